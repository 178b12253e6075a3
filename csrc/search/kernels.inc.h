/* The one body of the Hamming kernels, compiled once per instruction set. The including file defines
 *     APH_LANES      64-bit lanes of a vector: 2, 4 or 8
 *     APH_SUFFIX     base, avx2, avx512
 *     count_bits(v)  vec -> vec, set bits of each 64-bit lane
 * and may define MAJ(a, b, c), XOR3(a, b, c), LOWER(a, b) and ANY(v) where one instruction does them.
 *
 * Two ways to count. `few` takes one query and counts the bits of 8 codes at a time. `many` serves a batch: a block is
 * turned into bit planes (bit b of 512 codes in one row), and a query's distances are the sum of its planes, xored with
 * its bits, by carry-save adders: logic only, each of which works on 64 codes per lane. The first adders, of three
 * planes each, have only 8 possible inputs from a query, so their 16 results are tabled once per block and shared by
 * the whole batch ("four Russians"). The sum starts at 2^p - 1 - T, so that its carry out of plane p - 1 says
 * "farther than T" of 64 codes per lane, without a comparison. Source of the adder tree: Mula, Kurz, Lemire, "Faster
 * population counts using AVX2 instructions" (2018); of the tables: Arlazarov et al. (1970). */
#include "search/kernels.h"
#include "search/select.h"

#include <string.h>

#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)

typedef uint64_t vec __attribute__((vector_size(8 * APH_LANES), may_alias));
typedef uint64_t vec_u __attribute__((vector_size(8 * APH_LANES), may_alias, aligned(8)));

#define PARTS (APH_GROUP / APH_LANES) /* vectors in a row of 8 codes */
#define TRIPLES 21                    /* 63 bits in threes; the 64th stands alone */
#define ROW (2 * 8)                   /* vectors of a triple's table: 8 patterns, each sum and carry */
#define TABLE ((TRIPLES + 1) * ROW)
#define WORDS (APH_LANES < 8 ? 2 : 1) /* tabled at a time: what fits beside the queries in a first-level cache */
#define INLINE static inline __attribute__((always_inline))

#ifndef ANY
INLINE int any_bit(vec v)
{
    uint64_t all = v[0];
    for (int lane = 1; lane < APH_LANES; lane++) all |= v[lane];
    return all != 0;
}
#define ANY(v) any_bit(v)
#endif
#ifndef XOR3
#define XOR3(a, b, c) ((a) ^ (b) ^ (c))
#define MAJ(a, b, c) (((a) & (b)) | (((a) ^ (b)) & (c)))
#endif

typedef struct {
    _Alignas(64) vec table[TABLE * WORDS]; /* 22 KB */
    vec planes[64];
    _Alignas(64) uint64_t masks[APH_QUERY_BLOCK][APH_GROUP]; /* [lane], bit r: code 8 r + lane of the block is a hit */
    uint64_t bias[APH_QUERY_BLOCK][APH_MAX_PLANES];
    int32_t active[APH_QUERY_BLOCK];  /* queries that can still find something */
    int32_t hot[APH_QUERY_BLOCK + 1]; /* those with a hit in this block */
    int64_t positions[APH_BLOCK]; /* of candidates that wait, and where their codes are */
    const uint64_t *codes[APH_BLOCK];
} scratch_head;

/* Behind the head: bins of the selection, patterns of every word, sums of every query, one block of codes. */
typedef struct {
    scratch_head *head;
    int64_t *bins;
    uint16_t *patterns; /* [word][query][APH_PATTERNS] */
    vec *sums;          /* [query][APH_MAX_PLANES] */
    uint64_t *block;
} scratch_parts;

static int64_t round64(int64_t bytes) { return (bytes + 63) & ~INT64_C(63); }

static scratch_parts split_scratch(void *scratch, int64_t n_words)
{
    scratch_parts s;
    char *at = scratch;
    s.head = (scratch_head *)at;
    at += round64(sizeof(scratch_head));
    s.bins = (int64_t *)at;
    at += APH_BINS * (int64_t)sizeof(int64_t);
    s.patterns = (uint16_t *)at;
    at += round64(n_words * APH_QUERY_BLOCK * APH_PATTERNS * (int64_t)sizeof(uint16_t));
    s.sums = (vec *)at;
    at += round64((int64_t)APH_QUERY_BLOCK * APH_MAX_PLANES * (int64_t)sizeof(vec));
    s.block = (uint64_t *)at;
    return s;
}

static int64_t scratch_bytes(int64_t n_words)
{
    return round64(sizeof(scratch_head)) + APH_BINS * (int64_t)sizeof(int64_t) +
           round64(n_words * APH_QUERY_BLOCK * APH_PATTERNS * (int64_t)sizeof(uint16_t)) +
           round64((int64_t)APH_QUERY_BLOCK * APH_MAX_PLANES * (int64_t)sizeof(vec)) +
           n_words * APH_BLOCK * (int64_t)sizeof(uint64_t);
}

/* ---- few queries ---- */

/* Distances of the codes of vector `part` of a group to a query. */
INLINE vec group_distances(const uint64_t *group, int part, const uint64_t *query, int64_t n_words)
{
    vec total = {0};
    for (int64_t word = 0; word < n_words; word++)
        total += count_bits(*(const vec_u *)(group + word * APH_GROUP + part * APH_LANES) ^ query[word]);
    return total;
}

INLINE vec lower(vec a, vec b)
{
#ifdef LOWER
    return LOWER(a, b);
#else
    const vec less = (vec)(a < b);
    return (a & less) | (b & ~less);
#endif
}

/* Fill hits[8], bit i of word i / 64 = code i of the block is within the threshold; returns whether any is. The running
 * minimum of 64 codes is compared once; they are looked at one by one only when it passes. */
INLINE int few_block(const uint64_t *groups, int64_t n_words, const uint64_t *query, int32_t threshold, uint64_t *hits)
{
    int any = 0;
    for (int run = 0; run < APH_GROUP; run++) {
        const uint64_t *first = groups + run * 8 * n_words * APH_GROUP;
        vec least = {0};
        least = ~least;
        for (int g = 0; g < 8; g++) {
            __builtin_prefetch(first + g * n_words * APH_GROUP + 512);
            for (int part = 0; part < PARTS; part++)
                least = lower(least, group_distances(first + g * n_words * APH_GROUP, part, query, n_words));
        }
        uint64_t best = least[0];
        for (int lane = 1; lane < APH_LANES; lane++) best = least[lane] < best ? least[lane] : best;
        hits[run] = 0;
        if ((int64_t)best > threshold) continue;
        any = 1;
        for (int g = 0; g < 8; g++)
            for (int part = 0; part < PARTS; part++) {
                const vec d = group_distances(first + g * n_words * APH_GROUP, part, query, n_words);
                for (int lane = 0; lane < APH_LANES; lane++)
                    hits[run] |= (uint64_t)((int64_t)d[lane] <= threshold) << (g * 8 + part * APH_LANES + lane);
            }
    }
    return any;
}

static int few(const uint64_t *groups, int64_t n_words, const uint64_t *query, int32_t threshold, uint64_t *hits)
{
    switch (n_words) { /* unrolled for the usual widths */
    case 1: return few_block(groups, 1, query, threshold, hits);
    case 2: return few_block(groups, 2, query, threshold, hits);
    case 3: return few_block(groups, 3, query, threshold, hits);
    case 4: return few_block(groups, 4, query, threshold, hits);
    default: return few_block(groups, n_words, query, threshold, hits);
    }
}

static void distances(const uint64_t *groups, int64_t n, int64_t n_words, const void *query, int32_t *out)
{
    for (int64_t i = 0; i < n; i += APH_GROUP)
        for (int part = 0; part < PARTS; part++) {
            const vec d = group_distances(groups + i * n_words, part, query, n_words);
            for (int lane = 0; lane < APH_LANES; lane++) out[i + part * APH_LANES + lane] = (int32_t)d[lane];
        }
}

/* ---- many queries ---- */

/* One round of an 8-row bit-matrix transposition, log-step `j`: exchange the high j bits of row a with the low of b. */
#define EXCHANGE(a, b, j, m)                                                                                           \
    do {                                                                                                               \
        const __typeof__(r[0]) t = ((r[a] >> (j)) ^ r[b]) & (m);                                                                    \
        r[a] ^= t << (j);                                                                                              \
        r[b] ^= t;                                                                                                     \
    } while (0)
#define EXCHANGES(j4, m4, j2, m2, j1, m1)                                                                              \
    do {                                                                                                               \
        EXCHANGE(0, 4, j4, m4); EXCHANGE(1, 5, j4, m4); EXCHANGE(2, 6, j4, m4); EXCHANGE(3, 7, j4, m4);                \
        EXCHANGE(0, 2, j2, m2); EXCHANGE(1, 3, j2, m2); EXCHANGE(4, 6, j2, m2); EXCHANGE(5, 7, j2, m2);                \
        EXCHANGE(0, 1, j1, m1); EXCHANGE(2, 3, j1, m1); EXCHANGE(4, 5, j1, m1); EXCHANGE(6, 7, j1, m1);                \
    } while (0)

/* planes[b], lane l, bit r = bit b of `word` of the code 8 r + part * APH_LANES + l. The 64 x 64 bits of each lane are
 * transposed in two passes of three rounds, eight rows in registers at a time. */
static void make_planes(const uint64_t *groups, int64_t n_words, int64_t word, int part, vec *planes)
{
    const uint64_t *in = groups + word * APH_GROUP + part * APH_LANES;
    for (int i = 0; i < 8; i++) {
        vec r[8];
        for (int j = 0; j < 8; j++) r[j] = *(const vec_u *)(in + (j * 8 + i) * n_words * APH_GROUP);
        EXCHANGES(32, UINT64_C(0x00000000FFFFFFFF), 16, UINT64_C(0x0000FFFF0000FFFF), 8, UINT64_C(0x00FF00FF00FF00FF));
        for (int j = 0; j < 8; j++) planes[j * 8 + i] = r[j];
    }
    for (int i = 0; i < 8; i++) {
        vec r[8];
        for (int j = 0; j < 8; j++) r[j] = planes[i * 8 + j];
        EXCHANGES(4, UINT64_C(0x0F0F0F0F0F0F0F0F), 2, UINT64_C(0x3333333333333333), 1, UINT64_C(0x5555555555555555));
        for (int j = 0; j < 8; j++) planes[i * 8 + j] = r[j];
    }
}

/* table[triple * ROW + 2 q], [... + 1]: sum and carry of the triple's planes, each inverted where q has its bit set. */
static void make_table(const vec *planes, vec *table)
{
    for (int t = 0; t < TRIPLES; t++) {
        const vec a = planes[3 * t], b = planes[3 * t + 1], c = planes[3 * t + 2];
        const vec sum = XOR3(a, b, c), other = ~sum;
        const vec m0 = MAJ(a, b, c), m1 = MAJ(~a, b, c), m2 = MAJ(a, ~b, c), m4 = MAJ(a, b, ~c);
        vec *row = table + t * ROW;
        row[0] = sum, row[1] = m0;
        row[2] = other, row[3] = m1;
        row[4] = other, row[5] = m2;
        row[6] = sum, row[7] = ~m4;
        row[8] = other, row[9] = m4;
        row[10] = sum, row[11] = ~m2;
        row[12] = sum, row[13] = ~m1;
        row[14] = other, row[15] = ~m0;
    }
    table[TRIPLES * ROW] = planes[63];
    table[TRIPLES * ROW + 2] = ~planes[63];
}

/* Offsets into a table, in bytes, from the word of a query. */
static void make_patterns(uint64_t word, uint16_t *patterns)
{
    for (int t = 0; t <= TRIPLES; t++)
        patterns[t] = (uint16_t)((word >> (3 * t) & 7) * 2 * sizeof(vec));
}

/* sum, carry of (sum + x + y) */
#define ADD(sum, carry, x, y)                                                                                          \
    do {                                                                                                               \
        const vec x_ = (x), y_ = (y);                                                                                  \
        carry = MAJ(sum, x_, y_);                                                                                      \
        sum = XOR3(sum, x_, y_);                                                                                       \
    } while (0)
#define SUM(t) (*(const vec *)(at + (t) * ROW * sizeof(vec) + patterns[t]))
#define CARRY(t) (*(const vec *)(at + (t) * ROW * sizeof(vec) + sizeof(vec) + patterns[t]))

/* Two triples: 2 sums, 2 carries -> into s0, s1; `two` gets the one plane of weight 2 that is left, `four` a carry. */
#define PAIR(t)                                                                                                        \
    do {                                                                                                               \
        ADD(s0, two, SUM(t), SUM((t) + 1));                                                                            \
        ADD(s1, four, CARRY(t), CARRY((t) + 1));                                                                       \
    } while (0)
/* Four triples -> s0, s1, s2; `eight` gets a carry, `four` the plane of weight 4 that is left. */
#define QUAD(t)                                                                                                        \
    do {                                                                                                               \
        vec two, four_a, four_b, first;                                                                                \
        PAIR(t);                                                                                                       \
        first = two, four_a = four;                                                                                    \
        PAIR((t) + 2);                                                                                                 \
        four_b = four;                                                                                                 \
        ADD(s1, four, first, two);                                                                                     \
        ADD(s2, eight, four_a, four_b);                                                                                \
    } while (0)
/* Eight triples -> s0 .. s3; `sixteen` gets a carry, `eight` the plane of weight 8 that is left. */
#define OCTET(t)                                                                                                       \
    do {                                                                                                               \
        vec four, eight_a, eight_b, first;                                                                             \
        QUAD(t);                                                                                                       \
        first = four, eight_a = eight;                                                                                 \
        QUAD((t) + 4);                                                                                                 \
        eight_b = eight;                                                                                               \
        ADD(s2, eight, first, four);                                                                                   \
        ADD(s3, sixteen, eight_a, eight_b);                                                                            \
    } while (0)

/* Add the distances in one word to the planes s[0 .. 5] of a running sum; returns the carry, of weight 64. */
INLINE vec add_word(const vec *table, const uint16_t *patterns, vec *s)
{
    const char *at = (const char *)table;
    vec s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3], s4 = s[4], s5 = s[5];
    vec sixteen_a, thirty, left, carry, eight, sixteen;
    OCTET(0);
    left = eight, sixteen_a = sixteen;
    OCTET(8);
    ADD(s4, thirty, sixteen_a, sixteen);
    ADD(s3, sixteen, left, eight);
    left = sixteen;
    /* triples 16 .. 20 and the single bit, which has no carry */
    vec two, four, more, eight_c, thirty_b;
    QUAD(16);
    eight_c = eight;
    ADD(s0, two, SUM(20), SUM(21));
    ADD(s1, more, CARRY(20), two);
    ADD(s2, eight, four, more);
    ADD(s3, sixteen, eight_c, eight);
    ADD(s4, thirty_b, left, sixteen);
    ADD(s5, carry, thirty, thirty_b);
    s[0] = s0, s[1] = s1, s[2] = s2, s[3] = s3, s[4] = s4, s[5] = s5;
    return carry;
}

static inline int32_t count_word(uint64_t x)
{
#if defined(__POPCNT__) || !defined(__x86_64__)
    return (int32_t)__builtin_popcountll(x);
#else /* the compiler would call a function */
    x -= (x >> 1) & UINT64_C(0x5555555555555555);
    x = (x & UINT64_C(0x3333333333333333)) + ((x >> 2) & UINT64_C(0x3333333333333333));
    x = (x + (x >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F);
    return (int32_t)((x * UINT64_C(0x0101010101010101)) >> 56);
#endif
}

INLINE vec spread(uint64_t word) { return (vec){0} + word; }

/* Store the mask of a query and, after the last part, note the query if any code of the block is a hit. */
INLINE int64_t finish(scratch_head *head, int32_t q, int part, vec hits, int64_t n_hot)
{
    *(vec *)(head->masks[q] + part * APH_LANES) = hits;
    for (int before = 0; before < part; before++) hits |= *(const vec *)(head->masks[q] + before * APH_LANES);
    head->hot[n_hot] = q;
    return n_hot + ANY(hits);
}

/* Codes of one word: the sums never leave the registers. Fills the masks of one part of a block for the active queries;
 * after the last part head->hot lists those that have a hit. Returns their number. */
static int64_t many_narrow(const uint64_t *groups, int part, int64_t n_active, const scratch_parts *s)
{
    scratch_head *head = s->head;
    int64_t n_hot = 0;
    make_planes(groups, 1, 0, part, head->planes);
    make_table(head->planes, head->table);
    for (int64_t a = 0; a < n_active; a++) {
        const int32_t q = head->active[a];
        const uint64_t *bias = head->bias[q];
        vec low[6];
        for (int p = 0; p < 6; p++) low[p] = spread(bias[p]);
        const vec carry = add_word(head->table, s->patterns + q * APH_PATTERNS, low);
        n_hot = finish(head, q, part, ~(carry & spread(bias[6])), n_hot);
    }
    return n_hot;
}

/* Add `two` + 1 words, of which the first stands at s->patterns + word ..., to the sums of the active queries. */
INLINE int64_t add_words(int64_t word, int two, int first, int last, int n_planes, int part, int64_t n_active,
                         const scratch_parts *s)
{
    scratch_head *head = s->head;
    const uint16_t *patterns = s->patterns + word * APH_QUERY_BLOCK * APH_PATTERNS;
    int64_t n_hot = 0;
    for (int64_t a = 0; a < n_active; a++) {
        const int32_t q = head->active[a];
        const uint64_t *bias = head->bias[q];
        vec *sums = s->sums + (int64_t)q * APH_MAX_PLANES;
        vec low[6], carry;
        for (int p = 0; p < 6; p++) low[p] = first ? spread(bias[p]) : sums[p];
        vec plane = first ? spread(bias[6]) : sums[6];
        const vec c0 = add_word(head->table, patterns + q * APH_PATTERNS, low);
        if (two) {
            const vec c1 = add_word(head->table + TABLE, patterns + (APH_QUERY_BLOCK + q) * APH_PATTERNS, low);
            ADD(plane, carry, c0, c1);
        } else {
            carry = plane & c0;
            plane ^= c0;
        }
        if (!last) {
            for (int p = 0; p < 6; p++) sums[p] = low[p];
            sums[6] = plane;
        }
        for (int p = 7; p < n_planes; p++) {
            plane = first ? spread(bias[p]) : sums[p];
            if (!last) sums[p] = plane ^ carry;
            carry &= plane;
        }
        if (!first) carry |= sums[n_planes]; /* once over 2^p, always over */
        if (!last) {
            sums[n_planes] = carry;
            continue;
        }
        n_hot = finish(head, q, part, ~carry, n_hot);
    }
    return n_hot;
}

/* Codes of several words: WORDS of them are tabled at a time, the sums wait in memory between. As many_narrow
 * otherwise. */
static int64_t many_wide(const uint64_t *groups, int64_t n_words, int n_planes, int part, int64_t n_active,
                         const scratch_parts *s)
{
    scratch_head *head = s->head;
    int64_t n_hot = 0;
    for (int64_t word = 0; word < n_words; word += WORDS) {
        const int two = WORDS == 2 && word + 1 < n_words;
        const int first = word == 0, last = word + WORDS >= n_words;
        for (int i = 0; i <= two; i++) {
            make_planes(groups, n_words, word + i, part, head->planes);
            make_table(head->planes, head->table + i * TABLE);
        }
        if (two && first && last)
            n_hot = add_words(word, 1, 1, 1, 8, part, n_active, s);
        else if (two)
            n_hot = add_words(word, 1, first, last, n_planes, part, n_active, s);
        else
            n_hot = add_words(word, 0, first, last, n_planes, part, n_active, s);
    }
    return n_hot;
}

static void set_bias(uint64_t *bias, int n_planes, int32_t threshold)
{
    const int64_t least = (INT64_C(1) << n_planes) - 1;
    const int64_t start = threshold > least ? 0 : least - threshold;
    for (int p = 0; p < n_planes; p++) bias[p] = -(uint64_t)(start >> p & 1);
}

/* ---- the scan ---- */

/* From [lane], bit r: code 8 r + lane, to the order of positions: bit i of word i / 64. Bytes first, then bits. */
INLINE void order_lanes(const uint64_t *lanes, uint64_t *r)
{
    memcpy(r, lanes, 8 * sizeof *r);
    EXCHANGES(32, UINT64_C(0x00000000FFFFFFFF), 16, UINT64_C(0x0000FFFF0000FFFF), 8, UINT64_C(0x00FF00FF00FF00FF));
    for (int run = 0; run < 8; run++) {
        uint64_t x = r[run], t;
        t = (x ^ (x >> 7)) & UINT64_C(0x00AA00AA00AA00AA), x ^= t ^ (t << 7);
        t = (x ^ (x >> 14)) & UINT64_C(0x0000CCCC0000CCCC), x ^= t ^ (t << 14);
        t = (x ^ (x >> 28)) & UINT64_C(0x00000000F0F0F0F0), x ^= t ^ (t << 28);
        r[run] = x;
    }
}

/* List the set bits of a block. Four of each word are written unasked: fewer branches that nobody can predict. */
INLINE int list_bits(const uint64_t *runs, uint16_t *list)
{
    int n = 0;
    for (int run = 0; run < 8; run++) {
        uint64_t left = runs[run];
        const int here = count_word(left);
        for (int i = 0; i < 4; i++) {
            list[n + i] = (uint16_t)(run * 64 + (left ? __builtin_ctzll(left) : 0));
            left &= left - 1;
        }
        for (int i = 4; i < here; i++, left &= left - 1) list[n + i] = (uint16_t)(run * 64 + __builtin_ctzll(left));
        n += here;
    }
    return n;
}

/* Append the hits of a block. `positions`: NULL, or the positions of a gathered block. */
INLINE void append_hits(const uint16_t *list, int n, const uint64_t *groups, const aph_codes *db, int64_t first,
                        const int64_t *positions, const uint64_t *query, aph_found *found, int64_t *bins)
{
    const int64_t n_words = db->n_words;
    for (int i = 0; i < n; i++) {
        const int at = list[i];
        const uint64_t *code = groups + at / APH_GROUP * n_words * APH_GROUP + at % APH_GROUP;
        int32_t distance = 0;
        for (int64_t word = 0; word < n_words; word++)
            distance += count_word(code[word * APH_GROUP] ^ query[word]);
        /* Tightened since the block was counted. A radius never is: there every hit of a kernel must be one, and does show
         * in the tests if it is not. */
        if (found->k && distance > found->threshold) continue;
        const uint64_t position = (uint64_t)((positions ? positions[at] : first + at) - found->first);
        found->hits[found->count++] = (uint64_t)distance << APH_POSITION_BITS | position;
        if (found->k && found->count >= found->capacity && found->count > found->k) aph_tighten(found, db, bins);
    }
}

/* Where `many` pays: it costs about as much as 4 to 6 queries before the first one is answered. */
enum { MANY = 6 };

typedef struct { /* one scan */
    const aph_codes *db;
    const uint64_t *queries;
    int64_t n_queries;
    aph_found *found;
    scratch_parts s;
    int n_planes, sliced, full; /* full: a buffer that keeps all needs room */
    int64_t n_active;
} scan_state;

static void start_scan(scan_state *scan)
{
    const int64_t n_words = scan->db->n_words;
    scratch_head *head = scan->s.head;
    scan->n_active = 0;
    scan->full = 0;
    for (int64_t q = 0; q < scan->n_queries; q++) {
        const aph_found *found = scan->found + q;
        scan->full |= found->k == 0 && found->count >= found->capacity;
        if (found->threshold < 0) continue;
        head->active[scan->n_active++] = (int32_t)q;
    }
    scan->sliced = scan->n_active >= MANY;
    if (!scan->sliced) return;
    for (int64_t a = 0; a < scan->n_active; a++) {
        const int64_t q = head->active[a];
        set_bias(head->bias[q], scan->n_planes, scan->found[q].threshold);
        for (int64_t word = 0; word < n_words; word++)
            make_patterns(scan->queries[q * n_words + word],
                          scan->s.patterns + (word * APH_QUERY_BLOCK + q) * APH_PATTERNS);
    }
}

/* Count one block, of whose codes those in `allowed` take part. `positions`: NULL, or those of a gathered block. */
static void scan_block(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                       const int64_t *positions)
{
    const int64_t n_words = scan->db->n_words, n_active = scan->n_active;
    scratch_head *head = scan->s.head;
    int64_t n_hot = n_active;
    if (scan->sliced)
        for (int part = 0; part < PARTS; part++)
            n_hot = n_words == 1 ? many_narrow(groups, part, n_active, &scan->s)
                                 : many_wide(groups, n_words, scan->n_planes, part, n_active, &scan->s);
    int dropped = 0;
    for (int64_t h = 0; h < n_hot; h++) {
        const int64_t q = scan->sliced ? head->hot[h] : head->active[h];
        const uint64_t *query = scan->queries + q * n_words;
        aph_found *found = scan->found + q;
        const int32_t before = found->threshold;
        uint16_t list[APH_BLOCK + 4];
        uint64_t runs[8];
        if (scan->sliced)
            order_lanes(head->masks[q], runs);
        else if (!few(groups, n_words, query, before, runs))
            continue;
        for (int run = 0; run < 8; run++) runs[run] &= allowed[run];
        append_hits(list, list_bits(runs, list), groups, scan->db, first, positions, query, found, scan->s.bins);
        scan->full |= found->k == 0 && found->count >= found->capacity;
        if (found->threshold == before) continue;
        dropped |= found->threshold < 0;
        if (scan->sliced && found->threshold >= 0) set_bias(head->bias[q], scan->n_planes, found->threshold);
    }
    if (!dropped) return;
    scan->n_active = 0;
    for (int64_t a = 0; a < n_active; a++)
        if (scan->found[head->active[a]].threshold >= 0) head->active[scan->n_active++] = head->active[a];
}

/* allowed[8] = the first n of 512. */
INLINE void allow_first(uint64_t *allowed, int64_t n)
{
    for (int64_t run = 0; run < 8; run++)
        allowed[run] = n >= 64 * (run + 1) ? ~UINT64_C(0) : n <= 64 * run ? 0 : ~UINT64_C(0) >> (64 * (run + 1) - n);
}

static void scan_waiting(scan_state *scan, int64_t n)
{
    uint64_t allowed[8];
    const int64_t *positions = scan->s.head->positions;
    allow_first(allowed, n);
    const int64_t n_words = scan->db->n_words;
    for (int64_t i = 0; i < n; i++) {
        uint64_t *out = scan->s.block + i / APH_GROUP * n_words * APH_GROUP + i % APH_GROUP;
        for (int64_t word = 0; word < n_words; word++)
            out[word * APH_GROUP] = scan->s.head->codes[i][word * APH_GROUP];
    }
    scan_block(scan, scan->s.block, allowed, 0, positions);
}

static int64_t scan_gathered(scan_state *scan, int64_t block, int64_t end)
{
    const aph_codes *db = scan->db;
    scratch_head *head = scan->s.head;
    int64_t n = 0; /* candidates waiting, being fetched meanwhile */
    for (; block < end && scan->n_active && !scan->full; block++) {
        const int64_t first = block * APH_BLOCK;
        const int64_t here = db->n - first < APH_BLOCK ? db->n - first : APH_BLOCK;
        const uint64_t *filter = db->filter + block * 8, *groups = aph_code_of(db, first);
        if (n + aph_count_bits(filter, here) > APH_BLOCK) {
            scan_waiting(scan, n);
            n = 0;
            if (scan->full || !scan->n_active) break;
        }
        for (int64_t word = 0; word * 64 < here; word++) {
            uint64_t left = filter[word];
            if (here - word * 64 < 64) left &= ~UINT64_C(0) >> (64 - (here - word * 64));
            for (; left; left &= left - 1) {
                const int64_t at = word * 64 + __builtin_ctzll(left);
                const uint64_t *code = groups + at / APH_GROUP * APH_GROUP * db->n_words + at % APH_GROUP;
                __builtin_prefetch(code);
                head->codes[n] = code;
                head->positions[n++] = first + at;
            }
        }
    }
    if (n && scan->n_active) scan_waiting(scan, n);
    return scan->n_active ? block : end;
}

static int64_t scan_all(scan_state *scan, int64_t block, int64_t end)
{
    const aph_codes *db = scan->db;
    uint64_t allowed[8];
    for (; block < end && scan->n_active; block++) {
        if (scan->full) return block;
        const int64_t first = block * APH_BLOCK;
        const int64_t here = db->n - first < APH_BLOCK ? db->n - first : APH_BLOCK;
        const uint64_t *groups = aph_code_of(db, first);
        if (here < APH_BLOCK) { /* the database ends here: never read past it */
            memcpy(scan->s.block, groups, (size_t)((here + 7) / 8 * APH_GROUP * db->n_words) * sizeof *groups);
            groups = scan->s.block;
        }
        allow_first(allowed, here);
        if (db->filter) {
            uint64_t any = 0;
            for (int64_t run = 0; run * 64 < here; run++) any |= allowed[run] &= db->filter[block * 8 + run];
            if (!any) continue;
        }
        scan_block(scan, groups, allowed, first, NULL);
    }
    return end;
}

static int64_t scan(const aph_codes *db, int64_t block, int64_t end, const void *queries, int64_t n_queries,
                    aph_found *found, void *scratch)
{
    scan_state state = {.db = db, .queries = queries, .n_queries = n_queries, .found = found};
    state.s = split_scratch(scratch, db->n_words);
    state.n_planes = aph_n_planes(db->n_words);
    start_scan(&state);
    if (state.full) return block;
    return db->filter && db->compact ? scan_gathered(&state, block, end) : scan_all(&state, block, end);
}

#include "search/lookup.inc.h"

const aph_hamming PASTE(aph_hamming_, APH_SUFFIX) = {scratch_bytes, scan, distances, lookup_query, pairs_step};
