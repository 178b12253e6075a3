/* The kernels for queries with tables (weighted.h), included by kernels.inc.h.
 *
 * A block's codes are turned into nibble planes: for each four bits, a byte of every code. A table of 16 bytes in a
 * register then gives what those bits add for as many codes at once as a vector has bytes (LOOKUP: pshufb, tbl). Sources:
 * Andre, Kermarrec, Le Scouarnec, "Cache locality is not enough: high-performance nearest neighbor search with product
 * quantization fast scan" (2015), "Accelerated nearest neighbor search with Quick ADC" (2017).
 *
 * The bytes are lower bounds: entry u of a table, less the table's least entry, becomes floor(u scale), and they are
 * added with saturation, so the sum is at most scale times the distance's own. A code is a candidate while that sum is
 * within `limit`, the largest that the threshold allows. Candidates get their distance from the tables of 32 bits, so
 * results do not depend on scale or rounding. When the threshold has fallen by an eighth, scale is raised.
 *
 * Few tables: sums of 8 bits, the threshold at 254. Each table's floor loses half a unit, which is too much of 254 once
 * there are many: then STEP tables have a sum of 8 bits, for which the mean code is at FILL, and these sums are added in
 * 16 bits. The STEP tables are taken from all over the code, for the bits of some learners fall in weight.
 *
 * The including file may define, for vectors of bytes:
 *     LOOKUP(table, v)  table[v] of each byte of v, which are 0 .. 15; `table` has its 16 bytes in each 128-bit lane
 *     TABLE16(at)       a vector with the 16 bytes at `at`, aligned to 16, in each 128-bit lane
 *     ADD8(a, b), ADD16(a, b)   unsigned saturating sums of bytes, of pairs of bytes
 *     MIN8(a, b), MIN16(a, b)   unsigned minima
 *     MASK8(a, limit)   bit i: byte i of a is within `limit`, which has it in each byte
 *     MASK16(a, limit)  bits 2 i and 2 i + 1: pair i of bytes is
 *     ZIP(lo, 8, a, b)  the lower halves (hi: the upper ones) of the 128-bit lanes of a and b, 8 (16, 32, 64) bits in turn
 *     HAS_WEIGHTED_SUMS where it has weighted_sums() of its own */
#include "search/weighted.h"

#include <math.h>

enum {
    NARROW = 32, /* tables up to which sums of 8 bits serve */
    STEP = 16,   /* tables whose sum has 8 bits, where the whole sum has 16 */
    FILL = 210,  /* where the mean sum of STEP tables is put: few are beyond 255, and fewer of those that are near */
    FETCH = 128,  /* how many rows of codes are fetched ahead */
    WAIT = 16,   /* candidates of a query that wait for each other, to get their distances together */
    CHUNK = 4    /* steps whose planes fit in a first-level cache: they serve all queries before the next are touched */
};

typedef struct {
    float scale;      /* of the tables of 8 bits */
    int32_t limit;    /* -1: no code of this run can be a hit */
    int64_t least;    /* the sum of the tables' least entries */
    float finest;     /* the largest scale for which sums of STEP tables hardly ever saturate */
    int64_t constant; /* of this run */
} weighted_bound;

typedef struct {
    scan_memory common;
    weighted_bound bounds[APH_QUERY_BLOCK];
    int32_t alive[APH_QUERY_BLOCK]; /* those of the active queries that may find something in this block */
    int32_t n_waiting[APH_QUERY_BLOCK];
    uint32_t waiting[APH_QUERY_BLOCK][WAIT]; /* their positions, as in hits */
} weighted_head;

typedef struct { /* one scan */
    scan_state scan;
    weighted_head *head;
    const aph_weighted *queries;
    int64_t n_tables;
    int64_t n_steps; /* 0: sums have 8 bits */
    int64_t run;
    uint64_t *codes;   /* [query][WAIT codes in groups]: of those that wait */
    uint8_t *planes;   /* [place][512]: byte 64 r + 8 l + g is of code 64 r + 8 g + l; table t has its place by place_of */
    uint16_t *partial; /* [query][512]: sums of 16 bits between two chunks */
    uint8_t *tables;   /* [query][place][APH_ENTRIES] */
    int64_t stride;  /* bytes from one query's tables to the next's */
} weighted_scan;

static int64_t weighted_scratch_bytes(int64_t n_words)
{
    const int64_t codes = n_words * (APH_BLOCK + APH_QUERY_BLOCK * WAIT) * (int64_t)sizeof(uint64_t);
    const int64_t partial = APH_QUERY_BLOCK * APH_BLOCK * (int64_t)sizeof(uint16_t);
    return round64(sizeof(weighted_head)) + codes + partial + n_words * 16 * (APH_BLOCK + APH_QUERY_BLOCK * APH_ENTRIES);
}

/* ---- exact distances ---- */

/* The sum of the tables for one code, whose words stand APH_GROUP apart. */
INLINE uint32_t weighted_sum(const uint64_t *code, const uint32_t *tables, int64_t n_tables)
{
    uint32_t sum = 0;
    for (int64_t t = 0; t < n_tables; code += APH_GROUP) {
        uint64_t word = *code;
        const int64_t stop = t + 16 < n_tables ? t + 16 : n_tables;
        for (; t < stop; t++, word >>= 4) sum += tables[t * APH_ENTRIES + (word & 15)];
    }
    return sum;
}

#ifndef HAS_WEIGHTED_SUMS
/* The sums of n codes in groups; there is room for those of whole groups. */
static void weighted_sums(const uint64_t *groups, int64_t n, int64_t n_words, const uint32_t *tables, int64_t n_tables,
                          uint32_t *sums)
{
    for (int64_t i = 0; i < n; i++)
        sums[i] = weighted_sum(groups + i / APH_GROUP * n_words * APH_GROUP + i % APH_GROUP, tables, n_tables);
}
#endif

/* The run in which a block lies, not before `run`. */
static int64_t run_of(const aph_weighted *query, int64_t run, int64_t block)
{
    while (query->ends[run] <= block) run++;
    return run;
}

static void weighted_distances(const uint64_t *groups, const int64_t *positions, int64_t n, int64_t n_words,
                               const void *query, uint32_t *distances)
{
    const aph_weighted *q = query;
    weighted_sums(groups, n, n_words, q->tables, q->n_tables, distances);
    if (!q->constants) return;
    for (int64_t i = 0, run = 0; i < n; i++) { /* positions ascend */
        run = run_of(q, run, positions[i] / APH_BLOCK);
        distances[i] += (uint32_t)q->constants[run];
    }
}

#ifdef LOOKUP
/* ---- tables of bytes, and what the threshold means in them ---- */

INLINE uint32_t least_entry(const uint32_t *table)
{
    uint32_t least = table[0];
    for (int v = 1; v < APH_ENTRIES; v++) least = table[v] < least ? table[v] : least;
    return least;
}

/* Steps take their tables from all over the code. */
INLINE int64_t place_of(const weighted_scan *w, int64_t t)
{
    return w->n_steps ? t % w->n_steps * STEP + t / w->n_steps : t;
}

static void make_byte_tables(const weighted_scan *w, int64_t q)
{
    const uint32_t *tables = w->queries[q].tables;
    const float scale = w->head->bounds[q].scale;
    for (int64_t t = 0; t < w->n_tables; t++) {
        const uint32_t *table = tables + t * APH_ENTRIES;
        const uint32_t least = least_entry(table);
        uint8_t *bytes = w->tables + q * w->stride + place_of(w, t) * APH_ENTRIES;
        for (int v = 0; v < APH_ENTRIES; v++) {
            const float scaled = (float)(table[v] - least) * scale;
            bytes[v] = (uint8_t)(int32_t)(scaled < 255 ? scaled : 255);
        }
    }
}

static void start_bound(const weighted_scan *w, int64_t q)
{
    weighted_bound *bound = w->head->bounds + q;
    const uint32_t *tables = w->queries[q].tables;
    double heaviest = 1;
    for (int64_t t = 0; t < w->n_tables; t++) bound->least += least_entry(tables + t * APH_ENTRIES);
    for (int64_t step = 0; step < w->n_steps; step++) {
        double sum = 0;
        for (int64_t t = step; t < w->n_tables; t += w->n_steps) {
            const uint32_t *table = tables + t * APH_ENTRIES;
            double mean = 0;
            for (int v = 0; v < APH_ENTRIES; v++) mean += table[v];
            sum += mean / APH_ENTRIES - least_entry(table);
        }
        heaviest = sum > heaviest ? sum : heaviest;
    }
    bound->finest = (float)(FILL / heaviest);
}

/* Set the limit of a query, and its tables where their scale does not suit it. */
static void set_limit(const weighted_scan *w, int64_t q)
{
    weighted_bound *bound = w->head->bounds + q;
    const int64_t room = w->scan.found[q].threshold - bound->constant - bound->least;
    const int32_t top = w->n_steps ? 65000 : 254; /* the largest limit: sums saturate above it */
    bound->limit = -1;
    if (room < 0) return;
    /* Entries are at most u scale (1 + 2^-23), for u and the product are rounded, so the sums of hits are at most this. */
    const double slack = 1 + 1e-6;
    double scale = room > 0 ? 254.9 / (room * slack) : 256; /* a code with more than 254 is farther, whatever saturates */
    if (w->n_steps && scale < bound->finest) {
        scale = 65000.9 / ((room + 1) * slack);
        if (scale > bound->finest) scale = bound->finest;
    }
    const double limit = (double)room * bound->scale * slack;
    if (limit >= top + 1 || scale * 7 > bound->scale * 8.0) {
        bound->scale = (float)scale;
        make_byte_tables(w, q);
        bound->limit = (int32_t)((double)room * bound->scale * slack);
        if (bound->limit > top) bound->limit = top;
    } else
        bound->limit = (int32_t)limit;
}

/* ---- candidates ---- */

/* Nibble planes of a block: bytes are transposed, 64 codes at a time, and split. */
static void make_nibbles(const weighted_scan *w, const uint64_t *groups)
{
    const int64_t n_words = w->scan.db->n_words;
    for (int64_t word = 0; word * 16 < w->n_tables; word++) {
        uint8_t *rows[16];
        for (int i = 0; i < 16; i++) rows[i] = w->planes + place_of(w, word * 16 + i) * APH_BLOCK;
        for (int run = 0; run < 8; run++)
            for (int part = 0; part < PARTS; part++) {
                const uint64_t *in = groups + (run * 8 * n_words + word) * APH_GROUP + part * APH_LANES;
                const int at = run * 64 + part * (int)sizeof(vec);
                vec r[8];
                for (int g = 0; g < 8; g++) {
                    r[g] = *(const vec_u *)(in + g * n_words * APH_GROUP);
                    __builtin_prefetch(in + (g * n_words + FETCH) * APH_GROUP);
                }
                transpose_bytes(r);
                for (int b = 0; b < 8; b++) {
                    *(vec *)(rows[2 * b] + at) = r[b] & UINT64_C(0x0F0F0F0F0F0F0F0F);
                    *(vec *)(rows[2 * b + 1] + at) = r[b] >> 4 & UINT64_C(0x0F0F0F0F0F0F0F0F);
                }
            }
    }
}

#define AHEAD 8 /* vectors of sums that are kept in registers */
#define ACROSS (APH_BLOCK / (AHEAD * (int)sizeof(vec)))

INLINE vec splat(uint8_t byte) { return (vec){0} + byte * UINT64_C(0x0101010101010101); }

INLINE vec least_of(const vec *sums)
{
    vec least = sums[0];
    for (int a = 1; a < AHEAD; a++) least = MIN8(least, sums[a]);
    return least;
}

INLINE void add_tables(const uint8_t *planes, const uint8_t *tables, int64_t t, int64_t stop, vec *sums)
{
#pragma GCC unroll 4
    for (; t < stop; t++) {
        const vec table = TABLE16(tables + t * APH_ENTRIES);
        const vec *plane = (const vec *)(planes + t * APH_BLOCK);
        for (int a = 0; a < AHEAD; a++) sums[a] = ADD8(sums[a], LOOKUP(table, plane[a]));
    }
}

/* masks[r], bit 8 l + g = code 64 r + 8 g + l is a candidate. Returns the runs r that have any, as bits; masks of other runs
 * may be left as they are. */
INLINE unsigned narrow_block(const uint8_t *planes, const uint8_t *tables, int64_t n_tables, int32_t limit, uint64_t *masks)
{
    const vec most = splat((uint8_t)limit);
    unsigned hot = 0;
    for (int part = 0; part < ACROSS; part++) {
        const uint8_t *at = planes + part * AHEAD * (int)sizeof(vec);
        vec sums[AHEAD] = {{0}};
        add_tables(at, tables, 0, n_tables, sums);
        if (MASK8(least_of(sums), most) == 0) {
            if (APH_LANES < 8) memset((uint8_t *)masks + part * AHEAD * APH_LANES, 0, AHEAD * APH_LANES);
            continue;
        }
        for (int a = 0; a < AHEAD; a++) {
            const uint64_t mask = MASK8(sums[a], most);
            const int byte = (part * AHEAD + a) * APH_LANES; /* of masks; little-endian: bit i of byte j is bit 8 j + i */
            hot |= (unsigned)(mask != 0) << byte / 8;
            memcpy((uint8_t *)masks + byte, &mask, APH_LANES);
        }
    }
    return hot;
}

static unsigned narrow(const uint8_t *planes, const uint8_t *tables, int64_t n_tables, int32_t limit, uint64_t *masks)
{
    switch (n_tables) { /* unrolled for the usual widths */
    case 16: return narrow_block(planes, tables, 16, limit, masks);
    case 32: return narrow_block(planes, tables, 32, limit, masks);
    default: return narrow_block(planes, tables, n_tables, limit, masks);
    }
}

/* As `narrow`, with sums of 16 bits, of even bytes and odd ones, for the steps of a chunk. Between chunks the sums wait in
 * `partial`, and what is returned is whether any code can still be a candidate: 0 or not. */
#define AHEAD_WIDE (APH_LANES < 8 ? 4 : 8)
INLINE unsigned wide_chunk(const uint8_t *planes, const uint8_t *tables, int n_steps, int first, int last, int32_t limit,
                      vec *partial, uint64_t *masks)
{
    const vec low = (vec){0} + UINT64_C(0x00FF00FF00FF00FF);
    const vec most = (vec){0} + (uint64_t)limit * UINT64_C(0x0001000100010001);
    unsigned hot = 0;
    for (int at = 0; at < APH_BLOCK; at += AHEAD_WIDE * (int)sizeof(vec), partial += 2 * AHEAD_WIDE) {
        vec even[AHEAD_WIDE], odd[AHEAD_WIDE];
        for (int a = 0; a < AHEAD_WIDE; a++) {
            even[a] = first ? (vec){0} : partial[2 * a];
            odd[a] = first ? (vec){0} : partial[2 * a + 1];
        }
        for (int step = 0; step < n_steps; step++) {
            vec bytes[AHEAD_WIDE];
            for (int i = step * STEP; i < (step + 1) * STEP; i++) {
                const vec table = TABLE16(tables + i * APH_ENTRIES);
                const vec *plane = (const vec *)(planes + i * APH_BLOCK + at);
                for (int a = 0; a < AHEAD_WIDE; a++) {
                    const vec found = LOOKUP(table, plane[a]);
                    bytes[a] = i > step * STEP ? ADD8(bytes[a], found) : found;
                }
            }
            for (int a = 0; a < AHEAD_WIDE; a++) {
                even[a] = ADD16(even[a], bytes[a] & low);
                odd[a] = ADD16(odd[a], bytes[a] >> 8 & low);
            }
        }
        vec least = MIN16(even[0], odd[0]);
        for (int a = 1; a < AHEAD_WIDE; a++) least = MIN16(least, MIN16(even[a], odd[a]));
        const uint64_t here = MASK16(least, most);
        for (int a = 0; a < AHEAD_WIDE && !last; a++) partial[2 * a] = even[a], partial[2 * a + 1] = odd[a];
        if (!last) hot |= here != 0;
        for (int a = 0; a < AHEAD_WIDE && last; a++) {
            const int byte = at / 8 + a * APH_LANES;
            uint64_t mask = 0;
            if (here)
                mask = (MASK16(even[a], most) & UINT64_C(0x5555555555555555)) |
                       (MASK16(odd[a], most) & UINT64_C(0xAAAAAAAAAAAAAAAA));
            hot |= (unsigned)(mask != 0) << byte / 8;
            memcpy((uint8_t *)masks + byte, &mask, APH_LANES);
        }
    }
    return hot;
}

static unsigned wide(const uint8_t *planes, const uint8_t *tables, int64_t n_steps, int64_t step, int32_t limit, vec *partial,
                uint64_t *masks)
{
    const int first = step == 0, last = step + CHUNK >= n_steps;
    if (first && n_steps == 4) return wide_chunk(planes, tables, 4, 1, 1, limit, partial, masks);
    if (last) return wide_chunk(planes, tables, (int)(n_steps - step), first, 1, limit, partial, masks);
    return wide_chunk(planes, tables, CHUNK, first, 0, limit, partial, masks);
}
#endif

/* ---- hits ---- */

#ifndef LOOKUP
static void set_limit(const weighted_scan *w, int64_t q) { (void)w, (void)q; }
#endif

/* There is room for APH_MARGIN hits before `tighten` looks. */
INLINE void append_hit(aph_found *found, uint32_t distance, uint32_t position)
{
    found->hits[found->count] = (uint64_t)distance << APH_POSITION_BITS | position;
    found->count += distance <= found->threshold;
}

static void tighten(weighted_scan *w, int64_t q)
{
    aph_found *found = w->scan.found + q;
    if (found->k == 0 || found->count < found->capacity || found->count <= found->k) return;
    aph_tighten(found, w->scan.db, w->scan.memory->bins);
    set_limit(w, q);
}

/* Give those that wait their distances, and append what is a hit. The threshold may have fallen since they came. */
static void append_waiting(weighted_scan *w, int64_t q)
{
    const int64_t n_words = w->scan.db->n_words;
    const uint32_t constant = (uint32_t)w->head->bounds[q].constant;
    uint32_t sums[WAIT];
    const int n = w->head->n_waiting[q];
    w->head->n_waiting[q] = 0;
    weighted_sums(w->codes + q * WAIT * n_words, n, n_words, w->queries[q].tables, w->n_tables, sums);
    for (int i = 0; i < n; i++) /* 2^32 may be passed on the way, but not by the distance */
        append_hit(w->scan.found + q, sums[i] + constant, w->head->waiting[q][i]);
    tighten(w, q);
}

static void append_all(weighted_scan *w)
{
    for (int64_t a = 0; a < w->scan.n_active; a++)
        if (w->head->n_waiting[w->scan.memory->active[a]]) append_waiting(w, w->scan.memory->active[a]);
}

static void enter_run(scan_state *scan, int64_t block)
{
    weighted_scan *w = (weighted_scan *)scan;
    append_all(w);
    w->run = run_of(w->queries, w->run, block);
    scan->run_end = w->queries->ends[w->run];
    for (int64_t a = 0; a < scan->n_active; a++) {
        const int64_t q = scan->memory->active[a];
        w->head->bounds[q].constant = w->queries[q].constants[w->run];
        set_limit(w, q);
    }
}

/* ---- the scan ---- */

#ifdef LOOKUP
/* Let the candidates of a block wait, in order of position; returns whether the query is finished. */
static int take_candidates(weighted_scan *w, const uint64_t *masks, unsigned hot, const uint64_t *groups,
                           const uint64_t *allowed, int64_t first, const int64_t *positions, int64_t q)
{
    const int64_t n_words = w->scan.db->n_words;
    aph_found *found = w->scan.found + q;
    uint64_t *codes = w->codes + q * WAIT * n_words;
    int n = w->head->n_waiting[q];
    for (; hot; hot &= hot - 1) {
        const int run = __builtin_ctz(hot);
        for (uint64_t left = transpose_bits(masks[run]) & allowed[run]; left; left &= left - 1) {
            const int at = run * 64 + __builtin_ctzll(left);
            const uint64_t *in = groups + at / APH_GROUP * n_words * APH_GROUP + at % APH_GROUP;
            uint64_t *out = codes + n / APH_GROUP * n_words * APH_GROUP + n % APH_GROUP;
            for (int64_t word = 0; word < n_words; word++) out[word * APH_GROUP] = in[word * APH_GROUP];
            w->head->waiting[q][n] = (uint32_t)((positions ? positions[at] : first + at) - found->first);
            if (++n < WAIT) continue;
            w->head->n_waiting[q] = n;
            append_waiting(w, q);
            n = 0;
        }
    }
    w->head->n_waiting[q] = n;
    return note_found(&w->scan, found);
}

static void count_weighted(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                           const int64_t *positions)
{
    weighted_scan *w = (weighted_scan *)scan;
    int32_t *alive = w->head->alive;
    int64_t n_alive = 0;
    int dropped = 0;
    uint64_t masks[8];
    for (int64_t a = 0; a < scan->n_active; a++)
        if (w->head->bounds[scan->memory->active[a]].limit >= 0) alive[n_alive++] = scan->memory->active[a];
    if (n_alive == 0) return;
    make_nibbles(w, groups);
    if (w->n_steps == 0)
        for (int64_t a = 0; a < n_alive; a++) {
            const int64_t q = alive[a];
            const uint8_t *tables = w->tables + q * w->stride;
            const unsigned hot = narrow(w->planes, tables, w->n_tables, w->head->bounds[q].limit, masks);
            if (hot) dropped |= take_candidates(w, masks, hot, groups, allowed, first, positions, q);
        }
    for (int64_t step = 0; step < w->n_steps; step += CHUNK) {
        const uint8_t *planes = w->planes + step * STEP * APH_BLOCK;
        int64_t kept = 0;
        for (int64_t a = 0; a < n_alive; a++) {
            const int64_t q = alive[a];
            const uint8_t *tables = w->tables + q * w->stride + step * STEP * APH_ENTRIES;
            const unsigned hot = wide(planes, tables, w->n_steps, step, w->head->bounds[q].limit,
                                      (vec *)(w->partial + q * APH_BLOCK), masks);
            if (!hot) continue;
            alive[kept++] = (int32_t)q;
            if (step + CHUNK >= w->n_steps)
                dropped |= take_candidates(w, masks, hot, groups, allowed, first, positions, q);
        }
        n_alive = kept;
    }
    if (dropped) drop_finished(scan);
}
#else
/* No bounds without LOOKUP: every code gets its distance. */
static void count_weighted(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                           const int64_t *positions)
{
    weighted_scan *w = (weighted_scan *)scan;
    int dropped = 0;
    uint32_t sums[APH_BLOCK];
    for (int64_t a = 0; a < scan->n_active; a++) {
        const int64_t q = scan->memory->active[a];
        aph_found *found = scan->found + q;
        const uint32_t constant = (uint32_t)w->head->bounds[q].constant;
        weighted_sums(groups, APH_BLOCK, scan->db->n_words, w->queries[q].tables, w->n_tables, sums);
        for (int run = 0; run < 8; run++)
            for (uint64_t left = allowed[run]; left; left &= left - 1) {
                const int at = run * 64 + __builtin_ctzll(left);
                append_hit(found, sums[at] + constant, (uint32_t)((positions ? positions[at] : first + at) - found->first));
            }
        tighten(w, q);
        dropped |= note_found(scan, found);
    }
    if (dropped) drop_finished(scan);
}
#endif

static int64_t weighted_scan_blocks(const aph_codes *db, int64_t block, int64_t end, const void *queries,
                                    int64_t n_queries, aph_found *found, void *scratch)
{
    weighted_scan w = {.scan = {.db = db, .found = found, .count = count_weighted}, .queries = queries};
    w.head = scratch;
    w.scan.memory = &w.head->common;
    w.scan.block = (uint64_t *)((char *)scratch + round64(sizeof(weighted_head)));
    w.codes = w.scan.block + db->n_words * APH_BLOCK;
    w.planes = (uint8_t *)(w.codes + db->n_words * APH_QUERY_BLOCK * WAIT);
    w.partial = (uint16_t *)(w.planes + db->n_words * 16 * APH_BLOCK);
    w.tables = (uint8_t *)(w.partial + APH_QUERY_BLOCK * APH_BLOCK);
    w.n_tables = n_queries ? w.queries->n_tables : 0;
    w.n_steps = w.n_tables <= NARROW ? 0 : (w.n_tables + STEP - 1) / STEP; /* planes are made for whole words, so for these */
    w.stride = (w.n_steps ? w.n_steps * STEP : w.n_tables) * APH_ENTRIES;
    list_active(&w.scan, n_queries);
    if (w.n_steps * STEP > w.n_tables) memset(w.tables, 0, (size_t)(n_queries * w.stride));
    for (int64_t a = 0; a < w.scan.n_active; a++) {
        const int64_t q = w.head->common.active[a];
        w.head->bounds[q] = (weighted_bound){0};
        w.head->n_waiting[q] = 0;
#ifdef LOOKUP
        start_bound(&w, q);
#endif
        if (!w.queries[q].constants) set_limit(&w, q);
    }
    if (n_queries && w.queries->constants) w.scan.enter = enter_run;
    block = walk(&w.scan, block, end);
    append_all(&w);
    return block;
}
