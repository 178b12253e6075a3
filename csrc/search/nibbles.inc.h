/* Bounds for any tables, by lookups of four bits. Included by weighted.inc.h, which says what LOOKUP and the other
 * macros are.
 *
 * The codes of a block are turned into nibble planes: a plane holds four bits of every code, a byte for each code. A
 * table of 16 bytes in a register then gives what those bits add, for as many codes at once as a vector has bytes.
 * Sources: Andre, Kermarrec, Le Scouarnec, "Cache locality is not enough: high-performance nearest neighbor search with
 * product quantization fast scan" (2015), "Accelerated nearest neighbor search with Quick ADC" (2017).
 *
 * The smallest entry of a table is subtracted from all of its entries. Then each entry u becomes floor(u scale), and
 * these bytes are added with saturation. Their sum is at most scale times the distance's own sum. A code is a candidate
 * while the sum of bytes is at most `limit`, the largest that the threshold allows. When the threshold has become
 * smaller by an eighth, scale is raised.
 *
 * With few tables, sums have 8 bits, and the threshold is at 254. The floor of each table loses half a unit on average,
 * which is too much of 254 where there are many tables. There a step of STEP tables has a sum of 8 bits, in which the
 * mean code is at FILL, and the sums of the steps are added in 16 bits. The tables of a step are taken from all over
 * the code, because the weights of some learners decrease from the first bit to the last. */
#include <math.h>

enum {
    NARROW = 32, /* up to so many tables, sums have 8 bits */
    STEP = 16,   /* the tables of one step, whose sum has 8 bits where the whole sum has 16 */
    FILL = 210,  /* the mean sum of a step: few codes exceed 255, and fewer of those that are near */
    FETCH = 128, /* how many words of groups of codes are fetched ahead */
    STRIP = 4    /* the steps of a strip: its planes fit in a first-level cache, and serve all queries in turn */
};

typedef struct {
    float scale;     /* the scale of the tables of bytes */
    float max_scale; /* the largest scale at which the sums of steps hardly ever saturate */
    int32_t limit;
} nibble_bound;

struct bounds_s {
    nibble_bound each[APH_MAX_QUERIES];
    int64_t n_steps;   /* 0 where sums have 8 bits */
    uint8_t *planes;   /* [place][512]: byte 64 r + 8 l + g is of code 64 r + 8 g + l; see place_of */
    uint16_t *partial; /* [query][512]: sums of 16 bits, kept between two strips */
    uint8_t *tables;   /* [query][place][APH_ENTRIES] */
    int64_t stride;    /* bytes from the tables of one query to those of the next */
};

static void count_bounded(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                          const int64_t *positions);

static int64_t bounds_bytes(int64_t n_words)
{
    const int64_t partial = APH_MAX_QUERIES * APH_BLOCK * (int64_t)sizeof(uint16_t);
    return round64(sizeof(bounds)) + partial + n_words * 16 * (APH_BLOCK + APH_MAX_QUERIES * APH_ENTRIES);
}

/* The place of table t: the tables of a step come from all over the code. */
INLINE int64_t place_of(const weighted_scan *w, int64_t t)
{
    return w->bounds->n_steps ? t % w->bounds->n_steps * STEP + t / w->bounds->n_steps : t;
}

INLINE uint8_t scaled_down(uint32_t value, float scale)
{
    const float scaled = (float)value * scale;
    return (uint8_t)(int32_t)(scaled < 255 ? scaled : 255);
}

static void make_byte_tables(const weighted_scan *w, int64_t q)
{
    const uint32_t *tables = w->queries[q].tables;
    const float scale = w->bounds->each[q].scale;
    for (int64_t t = 0; t < w->n_tables; t++) {
        const uint32_t *table = tables + t * APH_ENTRIES;
        const uint32_t min = min_entry(table);
        uint8_t *bytes = w->bounds->tables + q * w->bounds->stride + place_of(w, t) * APH_ENTRIES;
        for (int v = 0; v < APH_ENTRIES; v++)
            bytes[v] = scaled_down(table[v] - min, scale);
    }
}

static void start_bound(const weighted_scan *w, int64_t q)
{
    const uint32_t *tables = w->queries[q].tables;
    const int64_t n_steps = w->bounds->n_steps;
    double max_sum = 1;
    for (int64_t step = 0; step < n_steps; step++) {
        double sum = 0;
        for (int64_t t = step; t < w->n_tables; t += n_steps) {
            const uint32_t *table = tables + t * APH_ENTRIES;
            double mean = 0;
            for (int v = 0; v < APH_ENTRIES; v++)
                mean += table[v];
            sum += mean / APH_ENTRIES - min_entry(table);
        }
        max_sum = sum > max_sum ? sum : max_sum;
    }
    w->bounds->each[q] = (nibble_bound){.max_scale = (float)(FILL / max_sum)};
}

static void start_bounds(weighted_scan *w, char *scratch, int64_t n_queries)
{
    const int64_t n_words = w->scan.db->n_words;
    bounds *b = w->bounds = (bounds *)scratch;
    b->planes = (uint8_t *)scratch + round64(sizeof(bounds));
    b->partial = (uint16_t *)(b->planes + n_words * 16 * APH_BLOCK);
    b->tables = (uint8_t *)(b->partial + APH_MAX_QUERIES * APH_BLOCK);
    b->n_steps =
        w->n_tables <= NARROW ? 0 : (w->n_tables + STEP - 1) / STEP; /* there are planes for all bits of a word */
    b->stride = (b->n_steps ? b->n_steps * STEP : w->n_tables) * APH_ENTRIES;
    if (b->n_steps * STEP > w->n_tables)
        memset(b->tables, 0, (size_t)(n_queries * b->stride));
    for (int64_t a = 0; a < w->scan.n_active; a++)
        start_bound(w, w->scan.memory->active[a]);
    w->scan.count = count_bounded;
}

/* Set the limit of a query, and make its tables anew where their scale is too small or too large for it. */
static void set_bound(weighted_scan *w, int64_t q, int64_t room)
{
    nibble_bound *bound = w->bounds->each + q;
    const int n_steps = w->bounds->n_steps != 0;
    const int32_t top = n_steps ? 65000 : 254; /* the largest limit, since larger sums saturate */
    /* An entry is at most u scale (1 + 2^-23), since u and the product are rounded. So the sums of hits are at most
     * this. */
    const double slack = 1 + 1e-6;
    double scale =
        room > 0 ? 254.9 / (room * slack) : 256; /* a code with more than 254 is farther, also where a sum saturates */
    if (n_steps && scale < bound->max_scale) {
        scale = 65000.9 / ((room + 1) * slack);
        if (scale > bound->max_scale)
            scale = bound->max_scale;
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

/* Make the planes of a block: bytes are transposed, 64 codes at a time, and split into nibbles. */
static void make_nibbles(const weighted_scan *w, const uint64_t *groups)
{
    const int64_t n_words = w->scan.db->n_words;
    for (int64_t word = 0; word * 16 < w->n_tables; word++) {
        uint8_t *planes[16];
        for (int i = 0; i < 16; i++)
            planes[i] = w->bounds->planes + place_of(w, word * 16 + i) * APH_BLOCK;
        for (int run = 0; run < 8; run++)
            for (int vector = 0; vector < VECTORS; vector++) {
                const uint64_t *in = groups + (run * 8 * n_words + word) * APH_GROUP + vector * APH_LANES;
                const int at = run * 64 + vector * (int)sizeof(vec);
                vec r[8];
                for (int g = 0; g < 8; g++) {
                    r[g] = *(const vec_u *)(in + g * n_words * APH_GROUP);
                    __builtin_prefetch(in + (g * n_words + FETCH) * APH_GROUP);
                }
                transpose_bytes(r);
                for (int b = 0; b < 8; b++) {
                    *(vec *)(planes[2 * b] + at) = r[b] & UINT64_C(0x0F0F0F0F0F0F0F0F);
                    *(vec *)(planes[2 * b + 1] + at) = r[b] >> 4 & UINT64_C(0x0F0F0F0F0F0F0F0F);
                }
            }
    }
}

/* Sums of 8 bits are made for two queries at a time, so that a plane is loaded once for both. AHEAD is the number of
 * vectors of sums of each query, as many as the registers hold. */
#define AHEAD(n_queries) (APH_LANES == 8 || (n_queries) == 1 ? 8 : 4)
#define AHEAD_WIDE (APH_LANES == 8 ? 8 : 4)
#define WIDE_PAIRS (APH_LANES == 8)

INLINE vec splat(uint8_t byte) { return (vec){0} + byte * UINT64_C(0x0101010101010101); }

/* Add what a table gives for n vectors of bytes to the sums [query][n]. The table of the next query is `apart` bytes
 * away. */
INLINE void add_table(const uint8_t *table, int64_t apart, int n_queries, const uint8_t *planes, int n, vec *sums)
{
    vec entries[2];
    for (int i = 0; i < n_queries; i++)
        entries[i] = TABLE16(table + i * apart);
    for (int a = 0; a < n; a++) {
        const vec v = ((const vec *)planes)[a];
        for (int i = 0; i < n_queries; i++)
            sums[i * n + a] = ADD8(sums[i * n + a], LOOKUP(entries[i], v));
    }
}

typedef struct {           /* one or two queries, and what is found of them in a block */
    const uint8_t *tables; /* the tables of the first query */
    int64_t apart;
    int32_t limits[2];
    vec *partial[2]; /* sums of 16 bits, kept between strips */
    unsigned
        hot[2]; /* result: bit r is set where run r holds candidates; before the last strip: whether any may come */
    uint64_t masks[2][8]; /* result: bit 8 l + g of run r is code 64 r + 8 g + l; runs without candidates are not set */
} weighted_pair;

/* Set the masks of n vectors from number `at` on. The mask of a vector is `expression`, in which `a` is its number. */
#define SET_MASKS(pair, i, at, n, expression)                                                                          \
    for (int a = 0; a < (n); a++) {                                                                                    \
        const uint64_t mask = (expression);                                                                            \
        const int byte = ((at) + a) * APH_LANES; /* in `masks`, little-endian: bit i of byte j is bit 8 j + i */       \
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
            add_table(pair->tables + t * APH_ENTRIES, pair->apart, n_queries, here + t * APH_BLOCK, n, sums);
        for (int i = 0; i < n_queries; i++) {
            const vec limit = splat((uint8_t)pair->limits[i]);
            vec minimum = sums[i * n];
            for (int a = 1; a < n; a++)
                minimum = MIN8(minimum, sums[i * n + a]);
            if (MASK8(minimum, limit) == 0) {
                if (APH_LANES < 8)
                    memset((uint8_t *)pair->masks[i] + at * APH_LANES, 0, (size_t)n * APH_LANES);
                continue;
            }
            SET_MASKS(pair, i, at, n, MASK8(sums[i * n + a], limit))
        }
    }
}

static void narrow(const uint8_t *planes, int64_t n_tables, int n_queries, weighted_pair *pair)
{
    if (n_queries == 1)
        narrow_block(planes, n_tables, 1, pair);
    else if (n_tables == 16)
        narrow_block(planes, 16, 2, pair); /* the compiler unrolls these for the usual widths */
    else if (n_tables == 32)
        narrow_block(planes, 32, 2, pair);
    else
        narrow_block(planes, n_tables, 2, pair);
}

/* As narrow_block, for the steps of a strip, with sums of 16 bits: of the even bytes and of the odd ones. */
INLINE void wide_block(const uint8_t *planes, int n_steps, int n_queries, int first, int last, weighted_pair *pair)
{
    typedef uint16_t shorts __attribute__((vector_size(8 * APH_LANES)));
    const int n = AHEAD_WIDE / n_queries;
    const vec low = (vec){0} + UINT64_C(0x00FF00FF00FF00FF);
    pair->hot[0] = pair->hot[1] = 0;
    for (int at = 0; at < APH_BLOCK / (int)sizeof(vec); at += n) {
        vec even[AHEAD_WIDE], odd[AHEAD_WIDE]; /* [query][n] */
        for (int i = 0; i < n_queries; i++)
            for (int a = 0; a < n; a++) {
                even[i * n + a] = first ? (vec){0} : pair->partial[i][2 * (at + a)];
                odd[i * n + a] = first ? (vec){0} : pair->partial[i][2 * (at + a) + 1];
            }
        for (int step = 0; step < n_steps; step++) {
            const uint8_t *tables = pair->tables + step * STEP * APH_ENTRIES;
            const uint8_t *here = planes + step * STEP * APH_BLOCK + at * (int)sizeof(vec);
            vec bytes[AHEAD_WIDE] = {{0}};
#pragma GCC unroll 16
            for (int t = 0; t < STEP; t++)
                add_table(tables + t * APH_ENTRIES, pair->apart, n_queries, here + t * APH_BLOCK, n, bytes);
            for (int a = 0; a < n_queries * n; a++) {
                even[a] = ADD16(even[a], bytes[a] & low);
                odd[a] = ADD16(odd[a], (vec)((shorts)bytes[a] >> 8));
            }
        }
        for (int i = 0; i < n_queries; i++) {
            const vec limit = (vec){0} + (uint64_t)pair->limits[i] * UINT64_C(0x0001000100010001);
            vec minimum = MIN16(even[i * n], odd[i * n]);
            for (int a = 1; a < n; a++)
                minimum = MIN16(minimum, MIN16(even[i * n + a], odd[i * n + a]));
            const int any = MASK16(minimum, limit) != 0;
            if (!last) {
                for (int a = 0; a < n; a++)
                    pair->partial[i][2 * (at + a)] = even[i * n + a],
                                               pair->partial[i][2 * (at + a) + 1] = odd[i * n + a];
                pair->hot[i] |= (unsigned)any;
            } else if (any) {
                SET_MASKS(pair, i, at, n,
                          (MASK16(even[i * n + a], limit) & UINT64_C(0x5555555555555555)) |
                              (MASK16(odd[i * n + a], limit) & UINT64_C(0xAAAAAAAAAAAAAAAA)))
            } else if (APH_LANES < 8)
                memset((uint8_t *)pair->masks[i] + at * APH_LANES, 0, (size_t)n * APH_LANES);
        }
    }
}

INLINE void wide_of(const uint8_t *planes, int n_steps, int n_queries, int first, int last, weighted_pair *pair)
{
    if (first && last)
        wide_block(planes, n_steps, n_queries, 1, 1, pair);
    else if (last)
        wide_block(planes, n_steps, n_queries, 0, 1, pair);
    else
        wide_block(planes, n_steps, n_queries, first, 0, pair);
}

static void wide(const uint8_t *planes, int n_steps, int n_queries, int first, int last, weighted_pair *pair)
{
    if (n_queries == 1)
        wide_of(planes, n_steps, 1, first, last, pair);
    else
        wide_of(planes, n_steps, 2, first, last, pair);
}

static void count_bounded(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                          const int64_t *positions)
{
    weighted_scan *w = (weighted_scan *)scan;
    const bounds *b = w->bounds;
    int32_t *alive = w->head->alive;
    int64_t n_alive = list_alive(w);
    int dropped = 0;
    if (n_alive == 0)
        return;
    make_nibbles(w, groups);
    const int64_t strip = b->n_steps ? STRIP : 1, end = b->n_steps ? b->n_steps : 1;
    for (int64_t step = 0; step < end; step += strip) {
        const int last = step + strip >= end;
        const int64_t first_table = step * STEP, n_steps = last ? end - step : strip;
        const uint8_t *planes = b->planes + first_table * APH_BLOCK;
        int64_t kept = 0;
        for (int64_t a = 0, n; a < n_alive; a += n) {
            weighted_pair pair;
            const int64_t queries[2] = {alive[a], alive[a + 1 < n_alive ? a + 1 : a]};
            n = (b->n_steps == 0 || WIDE_PAIRS) && a + 1 < n_alive ? 2 : 1;
            for (int i = 0; i < 2; i++) {
                pair.limits[i] = b->each[queries[i]].limit;
                pair.partial[i] = (vec *)(b->partial + queries[i] * APH_BLOCK);
            }
            pair.tables = b->tables + queries[0] * b->stride + first_table * APH_ENTRIES;
            pair.apart = (queries[1] - queries[0]) * b->stride;
            if (b->n_steps)
                wide(planes, (int)n_steps, (int)n, step == 0, last, &pair);
            else
                narrow(planes, w->n_tables, (int)n, &pair);
            for (int i = 0; i < n; i++) {
                if (!pair.hot[i])
                    continue;
                alive[kept++] = (int32_t)queries[i];
                if (!last)
                    continue;
                uint64_t runs[8];
                for (unsigned hot = pair.hot[i]; hot; hot &= hot - 1) {
                    const int run = __builtin_ctz(hot);
                    runs[run] = transpose_bits(pair.masks[i][run]) & allowed[run];
                }
                dropped |= take_candidates(w, runs, pair.hot[i], groups, first, positions, queries[i]);
            }
        }
        n_alive = kept;
    }
    if (dropped)
        drop_finished(scan);
}
