/* The kernels for queries with tables (weighted.h), included by kernels.inc.h.
 *
 * Lower bounds of the distances are computed for 512 codes at a time. They say which codes may be hits. These codes get
 * their distance from the tables of 32 bits, so results do not depend on how the bounds are rounded. Where the
 * instruction set has LOOKUP, the bounds are sums of entries of tables of bytes (nibbles.inc.h); elsewhere (SSE2) they
 * are sums of bit planes (planes.inc.h).
 *
 * An including file that has lookups defines, for vectors of bytes:
 *     LOOKUP(table, v)  table[v] of each byte of v, which are 0 .. 15; `table` has its 16 bytes in each 128-bit lane
 * TABLE16(at)       a vector with the 16 bytes at `at`, aligned to 16, in each 128-bit lane ADD8(a, b), ADD16(a, b)
 * unsigned saturating sums of bytes, of pairs of bytes MIN8(a, b), MIN16(a, b)   unsigned minima MASK8(a, limit)   bit
 * i: byte i of a is within `limit`, which has it in each byte MASK16(a, limit)  bits 2 i and 2 i + 1: pair i of bytes
 * is ZIP(lo, 8, a, b)  the lower halves (hi: the upper ones) of the 128-bit lanes of a and b, 8 (16, 32, 64) bits in
 * turn, where one instruction does it and HAS_WEIGHTED_SUMS where it has weighted_sums() of its own. */
#include "search/weighted.h"

enum { WAIT = 16 }; /* so many candidates of a query wait for each other, and get their distances together */

typedef struct {
    int64_t min_sum;  /* the sum of the tables' smallest entries */
    int64_t constant; /* of the present run of blocks */
    int alive;        /* whether codes of this run can be hits */
} weighted_query;

typedef struct {
    scan_memory common;
    weighted_query each[APH_MAX_QUERIES];
    int32_t alive[APH_MAX_QUERIES]; /* the active queries that may find something in this block */
    int32_t n_waiting[APH_MAX_QUERIES];
    uint32_t waiting[APH_MAX_QUERIES][WAIT]; /* positions of the candidates that wait, counted as in hits */
} weighted_head;

typedef struct bounds_s bounds; /* what one of the two kinds of bounds needs */

typedef struct { /* one scan */
    scan_state scan;
    weighted_head *head;
    const aph_weighted *queries;
    int64_t n_tables;
    int64_t run;
    int64_t missed;  /* candidates that were no hits */
    uint64_t *codes; /* [query][WAIT codes in groups]: of the candidates that wait */
    bounds *bounds;
} weighted_scan;

/* Each of the two kinds of bounds has three functions. bounds_bytes says how much memory it needs. start_bounds
 * prepares the active queries, and sets w->scan.count. set_bound sets the bound of a query whose hits are within the
 * sum of the smallest entries plus `room`. */
static int64_t bounds_bytes(int64_t n_words);
static void start_bounds(weighted_scan *w, char *scratch, int64_t n_queries);
static void set_bound(weighted_scan *w, int64_t q, int64_t room);

static int64_t weighted_scratch_bytes(int64_t n_words)
{
    const int64_t codes = n_words * (APH_BLOCK + APH_MAX_QUERIES * WAIT) * (int64_t)sizeof(uint64_t);
    return round64(sizeof(weighted_head)) + codes + bounds_bytes(n_words);
}

/* ---- exact distances ---- */

/* The sum of the tables for one code, whose words stand APH_GROUP apart. */
INLINE uint32_t weighted_sum(const uint64_t *code, const uint32_t *tables, int64_t n_tables)
{
    uint32_t sum = 0;
    for (int64_t t = 0; t < n_tables; code += APH_GROUP) {
        uint64_t word = *code;
        const int64_t stop = t + 16 < n_tables ? t + 16 : n_tables;
        for (; t < stop; t++, word >>= 4)
            sum += tables[t * APH_ENTRIES + (word & 15)];
    }
    return sum;
}

#ifndef HAS_WEIGHTED_SUMS
/* The sums of n codes, which stand in groups. `sums` has room for whole groups. */
static void weighted_sums(const uint64_t *groups, int64_t n, int64_t n_words, const uint32_t *tables, int64_t n_tables,
                          uint32_t *sums)
{
    for (int64_t i = 0; i < n; i++)
        sums[i] = weighted_sum(groups + aph_offset_of(n_words, i), tables, n_tables);
}
#endif

/* The run in which a block lies; it is not before `run`. */
static int64_t run_of(const aph_weighted *query, int64_t run, int64_t block)
{
    while (query->ends[run] <= block)
        run++;
    return run;
}

static void weighted_distances(const uint64_t *groups, const int64_t *positions, int64_t n, int64_t n_words,
                               const void *query, uint32_t *distances)
{
    const aph_weighted *q = query;
    weighted_sums(groups, n, n_words, q->tables, q->n_tables, distances);
    if (!q->constants)
        return;
    for (int64_t i = 0, run = 0; i < n; i++) { /* positions ascend */
        run = run_of(q, run, positions[i] / APH_BLOCK);
        distances[i] += (uint32_t)q->constants[run];
    }
}

/* ---- hits ---- */

INLINE uint32_t min_entry(const uint32_t *table)
{
    uint32_t min = table[0];
    for (int v = 1; v < APH_ENTRIES; v++)
        min = table[v] < min ? table[v] : min;
    return min;
}

/* Set the bound of a query by its threshold and by the constant of this run. */
static void set_limit(weighted_scan *w, int64_t q)
{
    weighted_query *query = w->head->each + q;
    const int64_t room = w->scan.found[q].threshold - query->constant - query->min_sum;
    query->alive = room >= 0;
    if (room >= 0)
        set_bound(w, q, room);
}

/* Append a hit if it is one. There is room for APH_MARGIN hits until prune_hits checks the buffer. */
INLINE void push_hit(aph_found *found, uint32_t distance, uint32_t position)
{
    found->hits[found->count] = (uint64_t)distance << APH_POSITION_BITS | position;
    found->count += distance <= found->threshold;
}

static void prune_hits(weighted_scan *w, int64_t q)
{
    aph_found *found = w->scan.found + q;
    if (found->k == 0 || found->count < found->capacity || found->count <= found->k)
        return;
    aph_prune_hits(found, w->scan.db, w->scan.memory->bins);
    set_limit(w, q);
}

/* Compute the distances of the candidates that wait, and append the hits among them. The threshold may have become
 * smaller since they came. */
static void append_waiting(weighted_scan *w, int64_t q)
{
    const int64_t n_words = w->scan.db->n_words;
    const uint32_t constant = (uint32_t)w->head->each[q].constant;
    uint32_t sums[WAIT];
    const int n = w->head->n_waiting[q];
    const int64_t before = w->scan.found[q].count;
    w->head->n_waiting[q] = 0;
    weighted_sums(w->codes + q * WAIT * n_words, n, n_words, w->queries[q].tables, w->n_tables, sums);
    for (int i = 0; i < n; i++) /* the sum may pass 2^32 before the constant is added, but the distance does not */
        push_hit(w->scan.found + q, sums[i] + constant, w->head->waiting[q][i]);
    w->missed += n - (w->scan.found[q].count - before);
    prune_hits(w, q);
}

static void append_all(weighted_scan *w)
{
    for (int64_t a = 0; a < w->scan.n_active; a++)
        if (w->head->n_waiting[w->scan.memory->active[a]])
            append_waiting(w, w->scan.memory->active[a]);
}

static void enter_run(scan_state *scan, int64_t block)
{
    weighted_scan *w = (weighted_scan *)scan;
    append_all(w);
    w->run = run_of(w->queries, w->run, block);
    scan->run_end = w->queries->ends[w->run];
    for (int64_t a = 0; a < scan->n_active; a++) {
        const int64_t q = scan->memory->active[a];
        w->head->each[q].constant = w->queries[q].constants[w->run];
        set_limit(w, q);
    }
}

/* ---- the scan ---- */

/* Let the candidates of a block wait, in order of their positions. `hot` has the bits of the runs of 64 codes that hold
 * candidates. Returns whether the query is finished. */
static int take_candidates(weighted_scan *w, const uint64_t *runs, unsigned hot, const uint64_t *groups, int64_t first,
                           const int64_t *positions, int64_t q)
{
    const int64_t n_words = w->scan.db->n_words;
    aph_found *found = w->scan.found + q;
    uint64_t *codes = w->codes + q * WAIT * n_words;
    int n = w->head->n_waiting[q];
    for (; hot; hot &= hot - 1) {
        const int run = __builtin_ctz(hot);
        for (uint64_t left = runs[run]; left; left &= left - 1) {
            const int at = run * 64 + __builtin_ctzll(left);
            aph_copy_code(codes + aph_offset_of(n_words, n), groups + aph_offset_of(n_words, at), n_words);
            w->head->waiting[q][n] = (uint32_t)((positions ? positions[at] : first + at) - found->first);
            if (++n < WAIT)
                continue;
            w->head->n_waiting[q] = n;
            append_waiting(w, q);
            n = 0;
        }
    }
    w->head->n_waiting[q] = n;
    return note_found(&w->scan, found);
}

/* List the active queries that may find something in this run of blocks. */
static int64_t list_alive(weighted_scan *w)
{
    int64_t n_alive = 0;
    for (int64_t a = 0; a < w->scan.n_active; a++)
        if (w->head->each[w->scan.memory->active[a]].alive)
            w->head->alive[n_alive++] = w->scan.memory->active[a];
    return n_alive;
}

#ifdef LOOKUP
#include "search/nibbles.inc.h"
#else
#include "search/planes.inc.h"
#endif

static int64_t weighted_scan_blocks(const aph_codes *db, int64_t block, int64_t end, const void *queries,
                                    int64_t n_queries, aph_found *found, void *scratch)
{
    weighted_scan w = {.scan = {.db = db, .found = found}, .queries = queries};
    w.head = scratch;
    w.scan.memory = &w.head->common;
    w.scan.block = (uint64_t *)((char *)scratch + round64(sizeof(weighted_head)));
    w.codes = w.scan.block + db->n_words * APH_BLOCK;
    w.n_tables = n_queries ? w.queries->n_tables : 0;
    list_active(&w.scan, n_queries);
    start_bounds(&w, (char *)(w.codes + db->n_words * APH_MAX_QUERIES * WAIT), n_queries);
    for (int64_t a = 0; a < w.scan.n_active; a++) {
        const int64_t q = w.head->common.active[a];
        weighted_query *query = w.head->each + q;
        *query = (weighted_query){0};
        for (int64_t t = 0; t < w.n_tables; t++)
            query->min_sum += min_entry(w.queries[q].tables + t * APH_ENTRIES);
        w.head->n_waiting[q] = 0;
        if (!w.queries[q].constants)
            set_limit(&w, q);
    }
    if (n_queries && w.queries->constants)
        w.scan.enter = enter_run;
    block = walk(&w.scan, block, end);
    append_all(&w);
    return block;
}
