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
 * Without LOOKUP (SSE2) a plane is that of a bit, its bytes 0 or 255, and a bit's weight is added where it differs. That
 * serves tables that are sums of what their four bits add; by others every code gets its distance.
 *
 * The including file defines, for vectors of bytes:
 *     LOOKUP(table, v)  if it can: table[v] of each byte of v, which are 0 .. 15; `table` has its 16 bytes in each
 *                       128-bit lane
 *     TABLE16(at)       with it: a vector with the 16 bytes at `at`, aligned to 16, in each 128-bit lane
 *     ADD8(a, b), ADD16(a, b)   unsigned saturating sums of bytes, of pairs of bytes
 *     MIN8(a, b), MIN16(a, b)   unsigned minima
 *     MASK8(a, limit)   bit i: byte i of a is within `limit`, which has it in each byte
 *     MASK16(a, limit)  bits 2 i and 2 i + 1: pair i of bytes is
 *     ZIP(lo, 8, a, b)  the lower halves (hi: the upper ones) of the 128-bit lanes of a and b, 8 (16, 32, 64) bits in turn
 *                       if it can
 *     HAS_WEIGHTED_SUMS where it has weighted_sums() of its own */
#include "search/weighted.h"

#include <math.h>

#ifdef LOOKUP
enum { ROWS = 1, NARROW = 32 };
#else
enum { ROWS = 4, NARROW = 16 };
#endif

/* ROWS: of a plane. NARROW: tables up to which sums of 8 bits serve. */
enum {
    STEP = 16,   /* tables whose sum has 8 bits, where the whole sum has 16 */
    FILL = 210,  /* where the mean sum of STEP tables is put: few are beyond 255, and fewer of those that are near */
    FETCH = 128, /* how many rows of codes are fetched ahead */
    WAIT = 16,   /* candidates of a query that wait for each other, to get their distances together */
    CHUNK = 4 /
        ROWS /* steps whose planes fit in a first-level cache: they serve all queries before the next are touched */
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
    int exact;       /* there are no bounds: each code gets its distance */
    uint64_t *codes; /* [query][WAIT codes in groups]: of those that wait */
    uint8_t *
        planes; /* [place][ROWS][512]: byte 64 r + 8 l + g is of code 64 r + 8 g + l; table t has its place by place_of */
    uint16_t *partial; /* [query][512]: sums of 16 bits between two chunks */
    uint8_t *tables;   /* [query][place][APH_ENTRIES] */
    int64_t stride;    /* bytes from one query's tables to the next's */
} weighted_scan;

static int64_t weighted_scratch_bytes(int64_t n_words)
{
    const int64_t codes = n_words * (APH_BLOCK + APH_QUERY_BLOCK * WAIT) * (int64_t)sizeof(uint64_t);
    const int64_t partial = APH_QUERY_BLOCK * APH_BLOCK * (int64_t)sizeof(uint16_t);
    return round64(sizeof(weighted_head)) + codes + partial +
           n_words * 16 * (ROWS * APH_BLOCK + APH_QUERY_BLOCK * APH_ENTRIES);
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

/* ---- tables of bytes, and what the threshold means in them ---- */

INLINE uint32_t least_entry(const uint32_t *table)
{
    uint32_t least = table[0];
    for (int v = 1; v < APH_ENTRIES; v++)
        least = table[v] < least ? table[v] : least;
    return least;
}

/* Steps take their tables from all over the code. */
INLINE int64_t place_of(const weighted_scan *w, int64_t t)
{
    return w->n_steps ? t % w->n_steps * STEP + t / w->n_steps : t;
}

INLINE uint8_t scaled_down(uint32_t value, float scale)
{
    const float scaled = (float)value * scale;
    return (uint8_t)(int32_t)(scaled < 255 ? scaled : 255);
}

static void make_byte_tables(const weighted_scan *w, int64_t q)
{
    const uint32_t *tables = w->queries[q].tables;
    const float scale = w->head->bounds[q].scale;
    for (int64_t t = 0; t < w->n_tables; t++) {
        const uint32_t *table = tables + t * APH_ENTRIES;
        const uint32_t least = least_entry(table);
        uint8_t *bytes = w->tables + q * w->stride + place_of(w, t) * APH_ENTRIES;
#ifdef LOOKUP
        for (int v = 0; v < APH_ENTRIES; v++)
            bytes[v] = scaled_down(table[v] - least, scale);
#else
        (void)least;
        for (int b = 0; b < 4; b++) { /* the weight of bit b, and the value at which it adds nothing */
            const uint32_t zero = table[0], one = table[1 << b];
            bytes[b] = scaled_down(one > zero ? one - zero : zero - one, scale);
            bytes[4 + b] = one < zero ? 255 : 0;
        }
#endif
    }
}

#ifndef LOOKUP
/* Whether each table is a sum of what its bits add. */
static int is_sum_of_bits(const aph_weighted *query)
{
    for (int64_t t = 0; t < query->n_tables; t++) {
        const uint32_t *table = query->tables + t * APH_ENTRIES;
        for (int v = 3; v < APH_ENTRIES; v++) {
            const int rest = v & (v - 1);
            if ((int64_t)table[v] - table[rest] != (int64_t)table[v - rest] - table[0])
                return 0;
        }
    }
    return 1;
}
#endif

static void start_bound(const weighted_scan *w, int64_t q)
{
    weighted_bound *bound = w->head->bounds + q;
    const uint32_t *tables = w->queries[q].tables;
    double heaviest = 1;
    for (int64_t t = 0; t < w->n_tables; t++)
        bound->least += least_entry(tables + t * APH_ENTRIES);
    for (int64_t step = 0; step < w->n_steps; step++) {
        double sum = 0;
        for (int64_t t = step; t < w->n_tables; t += w->n_steps) {
            const uint32_t *table = tables + t * APH_ENTRIES;
            double mean = 0;
            for (int v = 0; v < APH_ENTRIES; v++)
                mean += table[v];
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
    bound->limit = w->exact ? 0 : -1;
    if (room < 0 || w->exact)
        return;
    /* Entries are at most u scale (1 + 2^-23), for u and the product are rounded, so the sums of hits are at most this. */
    const double slack = 1 + 1e-6;
    double scale =
        room > 0 ? 254.9 / (room * slack) : 256; /* a code with more than 254 is farther, whatever saturates */
    if (w->n_steps && scale < bound->finest) {
        scale = 65000.9 / ((room + 1) * slack);
        if (scale > bound->finest)
            scale = bound->finest;
    }
    const double limit = (double)room * bound->scale * slack;
    if (limit >= top + 1 || scale * 7 > bound->scale * 8.0) {
        bound->scale = (float)scale;
        make_byte_tables(w, q);
        bound->limit = (int32_t)((double)room * bound->scale * slack);
        if (bound->limit > top)
            bound->limit = top;
    } else
        bound->limit = (int32_t)limit;
}

/* ---- candidates ---- */

/* The planes of a block: bytes are transposed, 64 codes at a time, and split. */
static void make_nibbles(const weighted_scan *w, const uint64_t *groups)
{
    const int64_t n_words = w->scan.db->n_words;
    for (int64_t word = 0; word * 16 < w->n_tables; word++) {
        uint8_t *rows[16];
        for (int i = 0; i < 16; i++)
            rows[i] = w->planes + place_of(w, word * 16 + i) * ROWS * APH_BLOCK;
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
#ifndef LOOKUP
                typedef int8_t bytes_t __attribute__((vector_size(8 * APH_LANES)));
                for (int b = 0; b < 64; b++) {
                    const vec bit = (vec){0} + (UINT64_C(0x0101010101010101) << b % 8);
                    *(vec *)(rows[b / 4] + b % 4 * APH_BLOCK + at) = (vec)((bytes_t)(r[b / 8] & bit) == (bytes_t)bit);
                }
                continue;
#endif
                for (int b = 0; b < 8; b++) {
                    *(vec *)(rows[2 * b] + at) = r[b] & UINT64_C(0x0F0F0F0F0F0F0F0F);
                    *(vec *)(rows[2 * b + 1] + at) = r[b] >> 4 & UINT64_C(0x0F0F0F0F0F0F0F0F);
                }
            }
    }
}

/* Sums of 8 bits are made for two queries at a time, so that a plane is loaded once for both. As many vectors of sums as
 * there are registers for, of each. */
#define AHEAD(n_queries) (APH_LANES == 8 || (n_queries) == 1 ? 8 : 4)
#define AHEAD_WIDE (APH_LANES == 8 ? 8 : 4)

INLINE vec splat(uint8_t byte) { return (vec){0} + byte * UINT64_C(0x0101010101010101); }

/* Add what a table gives for n vectors of bytes to the sums [query][n]; the next query's table is `apart` bytes away. */
INLINE void add_table(const uint8_t *table, int64_t apart, int n_queries, const uint8_t *planes, int n, vec *sums)
{
#ifdef LOOKUP
    vec entries[2];
    for (int i = 0; i < n_queries; i++)
        entries[i] = TABLE16(table + i * apart);
    for (int a = 0; a < n; a++) {
        const vec v = ((const vec *)planes)[a];
        for (int i = 0; i < n_queries; i++)
            sums[i * n + a] = ADD8(sums[i * n + a], LOOKUP(entries[i], v));
    }
#else
    for (int b = 0; b < 4; b++)
        for (int i = 0; i < n_queries; i++) {
            const vec weight = splat(table[i * apart + b]), sign = splat(table[i * apart + 4 + b]);
            for (int a = 0; a < n; a++)
                sums[i * n + a] = ADD8(sums[i * n + a], (((const vec *)(planes + b * APH_BLOCK))[a] ^ sign) & weight);
        }
#endif
}

typedef struct {           /* one or two queries against a block */
    const uint8_t *tables; /* the first one's */
    int64_t apart;
    int32_t limits[2];
    vec *partial;         /* sums of 16 bits between chunks, of one query */
    unsigned hot[2];      /* out: the runs r that have a candidate, by bits; before the last chunk: whether any may */
    uint64_t masks[2][8]; /* out: [run], bit 8 l + g = code 64 r + 8 g + l is one; those of other runs mean nothing */
} weighted_pair;

/* Set the masks of n vectors from number `at` on; `masks` come from MASK8 or both of MASK16. */
#define SET_MASKS(pair, i, at, n, expression)                                                                          \
    for (int a = 0; a < (n); a++) {                                                                                    \
        const uint64_t mask = (expression);                                                                            \
        const int byte = ((at) + a) * APH_LANES; /* of masks; little-endian: bit i of byte j is bit 8 j + i */         \
        (pair)->hot[i] |= (unsigned)(mask != 0) << byte / 8;                                                           \
        memcpy((uint8_t *)(pair)->masks[i] + byte, &mask, APH_LANES);                                                  \
    }

INLINE void narrow_block(const uint8_t *planes, int64_t n_tables, int n_queries, weighted_pair *pair)
{
    const int n = AHEAD(n_queries);
    pair->hot[0] = pair->hot[1] = 0;
    for (int at = 0; at < APH_BLOCK / (int)sizeof(vec); at += n) {
        const uint8_t *here = planes + at * (int)sizeof(vec);
        vec sums[16] = {{0}};
#pragma GCC unroll 4
        for (int64_t t = 0; t < n_tables; t++)
            add_table(pair->tables + t * APH_ENTRIES, pair->apart, n_queries, here + t * ROWS * APH_BLOCK, n, sums);
        for (int i = 0; i < n_queries; i++) {
            const vec most = splat((uint8_t)pair->limits[i]);
            vec least = sums[i * n];
            for (int a = 1; a < n; a++)
                least = MIN8(least, sums[i * n + a]);
            if (MASK8(least, most) == 0) {
                if (APH_LANES < 8)
                    memset((uint8_t *)pair->masks[i] + at * APH_LANES, 0, (size_t)n * APH_LANES);
                continue;
            }
            SET_MASKS(pair, i, at, n, MASK8(sums[i * n + a], most))
        }
    }
}

static void narrow(const uint8_t *planes, int64_t n_tables, int n_queries, weighted_pair *pair)
{
    if (n_queries == 1)
        narrow_block(planes, n_tables, 1, pair);
    else if (n_tables == 16)
        narrow_block(planes, 16, 2, pair); /* unrolled for the usual widths */
    else if (n_tables == 32)
        narrow_block(planes, 32, 2, pair);
    else
        narrow_block(planes, n_tables, 2, pair);
}

/* As narrow_block for one query, with sums of 16 bits, of even bytes and odd ones, for the steps of a chunk. */
INLINE void wide_block(const uint8_t *planes, int n_steps, int first, int last, weighted_pair *pair)
{
    enum { N = AHEAD_WIDE };
    const vec low = (vec){0} + UINT64_C(0x00FF00FF00FF00FF);
    const vec most = (vec){0} + (uint64_t)pair->limits[0] * UINT64_C(0x0001000100010001);
    vec *waiting = pair->partial;
    pair->hot[0] = 0;
    for (int at = 0; at < APH_BLOCK / (int)sizeof(vec); at += N, waiting += 2 * N) {
        vec even[N], odd[N];
        for (int a = 0; a < N; a++) {
            even[a] = first ? (vec){0} : waiting[2 * a];
            odd[a] = first ? (vec){0} : waiting[2 * a + 1];
        }
        for (int step = 0; step < n_steps; step++) {
            const uint8_t *tables = pair->tables + step * STEP * APH_ENTRIES;
            const uint8_t *rows = planes + step * STEP * ROWS * APH_BLOCK + at * (int)sizeof(vec);
            vec bytes[N] = {{0}};
#pragma GCC unroll 16
            for (int t = 0; t < STEP; t++)
                add_table(tables + t * APH_ENTRIES, 0, 1, rows + t * ROWS * APH_BLOCK, N, bytes);
            for (int a = 0; a < N; a++) {
                even[a] = ADD16(even[a], bytes[a] & low);
                odd[a] = ADD16(odd[a], bytes[a] >> 8 & low);
            }
        }
        vec least = MIN16(even[0], odd[0]);
        for (int a = 1; a < N; a++)
            least = MIN16(least, MIN16(even[a], odd[a]));
        const int any = MASK16(least, most) != 0;
        if (!last) {
            for (int a = 0; a < N; a++)
                waiting[2 * a] = even[a], waiting[2 * a + 1] = odd[a];
            pair->hot[0] |= (unsigned)any;
        } else if (any) {
            SET_MASKS(pair, 0, at, N,
                      (MASK16(even[a], most) & UINT64_C(0x5555555555555555)) |
                          (MASK16(odd[a], most) & UINT64_C(0xAAAAAAAAAAAAAAAA)))
        } else
            memset((uint8_t *)pair->masks[0] + at * APH_LANES, 0, N * APH_LANES);
    }
}

static void wide(const uint8_t *planes, int n_steps, int first, int last, weighted_pair *pair)
{
    if (first && last)
        wide_block(planes, n_steps, 1, 1, pair);
    else if (last)
        wide_block(planes, n_steps, 0, 1, pair);
    else
        wide_block(planes, n_steps, first, 0, pair);
}

/* ---- hits ---- */

/* There is room for APH_MARGIN hits before `prune_hits` looks. */
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
        push_hit(w->scan.found + q, sums[i] + constant, w->head->waiting[q][i]);
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
        w->head->bounds[q].constant = w->queries[q].constants[w->run];
        set_limit(w, q);
    }
}

/* ---- the scan ---- */

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
            for (int64_t word = 0; word < n_words; word++)
                out[word * APH_GROUP] = in[word * APH_GROUP];
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

static void count_weighted(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                           const int64_t *positions)
{
    weighted_scan *w = (weighted_scan *)scan;
    int32_t *alive = w->head->alive;
    int64_t n_alive = 0;
    int dropped = 0;
    for (int64_t a = 0; a < scan->n_active; a++)
        if (w->head->bounds[scan->memory->active[a]].limit >= 0)
            alive[n_alive++] = scan->memory->active[a];
    if (n_alive == 0)
        return;
    make_nibbles(w, groups);
    const int64_t chunk = w->n_steps ? CHUNK : 1, end = w->n_steps ? w->n_steps : 1;
    for (int64_t step = 0; step < end; step += chunk) {
        const int last = step + chunk >= end;
        const int64_t first_table = step * STEP, n_steps = last ? end - step : chunk;
        const uint8_t *planes = w->planes + first_table * ROWS * APH_BLOCK;
        int64_t kept = 0;
        for (int64_t a = 0, n; a < n_alive; a += n) {
            weighted_pair pair;
            const int64_t queries[2] = {alive[a], alive[a + 1 < n_alive ? a + 1 : a]};
            n = w->n_steps == 0 && a + 1 < n_alive ? 2 : 1;
            for (int i = 0; i < 2; i++)
                pair.limits[i] = w->head->bounds[queries[i]].limit;
            pair.partial = (vec *)(w->partial + queries[0] * APH_BLOCK);
            pair.tables = w->tables + queries[0] * w->stride + first_table * APH_ENTRIES;
            pair.apart = (queries[1] - queries[0]) * w->stride;
            if (w->n_steps)
                wide(planes, (int)n_steps, step == 0, last, &pair);
            else
                narrow(planes, w->n_tables, (int)n, &pair);
            for (int i = 0; i < n; i++) {
                if (!pair.hot[i])
                    continue;
                alive[kept++] = (int32_t)queries[i];
                if (last)
                    dropped |=
                        take_candidates(w, pair.masks[i], pair.hot[i], groups, allowed, first, positions, queries[i]);
            }
        }
        n_alive = kept;
    }
    if (dropped)
        drop_finished(scan);
}
#ifndef LOOKUP
/* As count_weighted, without bounds. */
static void count_exactly(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
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
                push_hit(found, sums[at] + constant,
                         (uint32_t)((positions ? positions[at] : first + at) - found->first));
            }
        prune_hits(w, q);
        dropped |= note_found(scan, found);
    }
    if (dropped)
        drop_finished(scan);
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
    w.partial = (uint16_t *)(w.planes + db->n_words * 16 * ROWS * APH_BLOCK);
    w.tables = (uint8_t *)(w.partial + APH_QUERY_BLOCK * APH_BLOCK);
    w.n_tables = n_queries ? w.queries->n_tables : 0;
    w.n_steps =
        w.n_tables <= NARROW ? 0 : (w.n_tables + STEP - 1) / STEP; /* planes are made for whole words, so for these */
    w.stride = (w.n_steps ? w.n_steps * STEP : w.n_tables) * APH_ENTRIES;
    list_active(&w.scan, n_queries);
#ifndef LOOKUP
    for (int64_t a = 0; a < w.scan.n_active && !w.exact; a++)
        w.exact = !is_sum_of_bits(w.queries + w.head->common.active[a]);
    if (w.exact)
        w.scan.count = count_exactly;
#endif
    if (w.n_steps * STEP > w.n_tables)
        memset(w.tables, 0, (size_t)(n_queries * w.stride));
    for (int64_t a = 0; a < w.scan.n_active; a++) {
        const int64_t q = w.head->common.active[a];
        w.head->bounds[q] = (weighted_bound){0};
        w.head->n_waiting[q] = 0;
        start_bound(&w, q);
        if (!w.queries[q].constants)
            set_limit(&w, q);
    }
    if (n_queries && w.queries->constants)
        w.scan.enter = enter_run;
    block = walk(&w.scan, block, end);
    append_all(&w);
    return block;
}
