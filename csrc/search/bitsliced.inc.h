/* Distances of a batch of queries, counted in bit planes. Included by kernels.inc.h.
 *
 * A block is turned into bit planes: plane b holds bit b of its 512 codes. A query's distances are the sum of the
 * planes, each xored with the query's bit. Carry-save adders compute the sum by logic only; each instruction works on
 * 64 codes in each lane. The first adders take three planes each. A query gives them only 8 possible inputs, so their
 * 16 results are put in a table once for each block, and the whole batch shares them ("four Russians"). The sum starts
 * at 2^p - 1 - T. The carry out of plane p - 1 therefore says "farther than T" of 64 codes in each lane, without a
 * comparison. Source of the adder tree: Mula, Kurz, Lemire, "Faster population counts using AVX2 instructions" (2018);
 * of the tables: Arlazarov et al. (1970). */

#define TRIPLES 21             /* 63 bits in threes; the 64th stands alone */
#define TRIPLE_VECTORS (2 * 8) /* vectors in a triple's table: a sum and a carry for each of 8 patterns */
#define TABLE ((TRIPLES + 1) * TRIPLE_VECTORS)
#define WORDS                                                                                                          \
    (APH_LANES < 8 ? 2                                                                                                 \
                   : 1) /* words whose tables exist at a time: these fit in a first-level cache beside the queries */

typedef struct {
    scan_memory common;
    _Alignas(64) vec table[TABLE * WORDS]; /* 22 KB */
    vec planes[64];
    _Alignas(64) uint64_t masks[APH_MAX_QUERIES][APH_GROUP]; /* [lane], bit r: code 8 r + lane of the block is a hit */
    uint64_t bias[APH_MAX_QUERIES][APH_MAX_PLANES];
    int32_t hot[APH_MAX_QUERIES + 1]; /* the queries that have a hit in this block */
} scratch_head;

/* The arrays that follow the head: patterns of every word, sums of every query, and one block of codes. */
typedef struct {
    scratch_head *head;
    uint16_t *patterns; /* [word][query][APH_PATTERNS] */
    vec *sums;          /* [query][APH_MAX_PLANES] */
    uint64_t *block;
} scratch_arrays;

static int64_t round64(int64_t bytes) { return (bytes + 63) & ~INT64_C(63); }

static scratch_arrays split_scratch(void *scratch, int64_t n_words)
{
    scratch_arrays s;
    char *at = scratch;
    s.head = (scratch_head *)at;
    at += round64(sizeof(scratch_head));
    s.patterns = (uint16_t *)at;
    at += round64(n_words * APH_MAX_QUERIES * APH_PATTERNS * (int64_t)sizeof(uint16_t));
    s.sums = (vec *)at;
    at += round64((int64_t)APH_MAX_QUERIES * APH_MAX_PLANES * (int64_t)sizeof(vec));
    s.block = (uint64_t *)at;
    return s;
}

static int64_t scratch_bytes(int64_t n_words)
{
    return round64(sizeof(scratch_head)) +
           round64(n_words * APH_MAX_QUERIES * APH_PATTERNS * (int64_t)sizeof(uint16_t)) +
           round64((int64_t)APH_MAX_QUERIES * APH_MAX_PLANES * (int64_t)sizeof(vec)) +
           n_words * APH_BLOCK * (int64_t)sizeof(uint64_t);
}

/* planes[b], lane l, bit r = bit b of `word` of the code 8 r + vector * APH_LANES + l. The 64 x 64 bits of each lane
 * are transposed in two passes of three rounds, eight rows in registers at a time. */
static void make_planes(const uint64_t *groups, int64_t n_words, int64_t word, int vector, vec *planes)
{
    const uint64_t *in = groups + word * APH_GROUP + vector * APH_LANES;
    for (int i = 0; i < 8; i++) {
        vec r[8];
        for (int j = 0; j < 8; j++)
            r[j] = *(const vec_u *)(in + (j * 8 + i) * n_words * APH_GROUP);
        EXCHANGES(32, UINT64_C(0x00000000FFFFFFFF), 16, UINT64_C(0x0000FFFF0000FFFF), 8, UINT64_C(0x00FF00FF00FF00FF));
        for (int j = 0; j < 8; j++)
            planes[j * 8 + i] = r[j];
    }
    for (int i = 0; i < 8; i++) {
        vec r[8];
        for (int j = 0; j < 8; j++)
            r[j] = planes[i * 8 + j];
        EXCHANGES(4, UINT64_C(0x0F0F0F0F0F0F0F0F), 2, UINT64_C(0x3333333333333333), 1, UINT64_C(0x5555555555555555));
        for (int j = 0; j < 8; j++)
            planes[i * 8 + j] = r[j];
    }
}

/* table[triple * TRIPLE_VECTORS + 2 q] is the sum, and the next vector the carry, of the triple's planes, of which
 * those whose bit is set in q are inverted. */
static void make_table(const vec *planes, vec *table)
{
    for (int t = 0; t < TRIPLES; t++) {
        const vec a = planes[3 * t], b = planes[3 * t + 1], c = planes[3 * t + 2];
        const vec sum = XOR3(a, b, c), other = ~sum;
        const vec m0 = MAJ(a, b, c), m1 = MAJ(~a, b, c), m2 = MAJ(a, ~b, c), m4 = MAJ(a, b, ~c);
        vec *entries = table + t * TRIPLE_VECTORS;
        entries[0] = sum, entries[1] = m0;
        entries[2] = other, entries[3] = m1;
        entries[4] = other, entries[5] = m2;
        entries[6] = sum, entries[7] = ~m4;
        entries[8] = other, entries[9] = m4;
        entries[10] = sum, entries[11] = ~m2;
        entries[12] = sum, entries[13] = ~m1;
        entries[14] = other, entries[15] = ~m0;
    }
    table[TRIPLES * TRIPLE_VECTORS] = planes[63];
    table[TRIPLES * TRIPLE_VECTORS + 2] = ~planes[63];
}

/* The offsets into a table, in bytes, that the word of a query selects. */
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
#define SUM(t) (*(const vec *)(at + (t) * TRIPLE_VECTORS * sizeof(vec) + patterns[t]))
#define CARRY(t) (*(const vec *)(at + (t) * TRIPLE_VECTORS * sizeof(vec) + sizeof(vec) + patterns[t]))

/* Add two triples, which are 2 sums and 2 carries, to s0 and s1. `two` gets the plane of weight 2 that is left, `four`
 * a carry. */
#define PAIR(t)                                                                                                        \
    do {                                                                                                               \
        ADD(s0, two, SUM(t), SUM((t) + 1));                                                                            \
        ADD(s1, four, CARRY(t), CARRY((t) + 1));                                                                       \
    } while (0)
/* Add four triples to s0, s1, s2. `eight` gets a carry, `four` the plane of weight 4 that is left. */
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
/* Add eight triples to s0 .. s3. `sixteen` gets a carry, `eight` the plane of weight 8 that is left. */
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

/* Add the distances in one word to the planes s[0 .. 5] of a running sum. Returns the carry, whose weight is 64. */
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
    /* These are the triples 16 .. 20 and the single bit, which has no carry. */
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

INLINE vec spread(uint64_t word) { return (vec){0} + word; }

/* Store the mask of a query for one vector. After the last vector, note the query if any code of the block is a hit. */
INLINE int64_t finish(scratch_head *head, int32_t q, int vector, vec hits, int64_t n_hot)
{
    *(vec *)(head->masks[q] + vector * APH_LANES) = hits;
    for (int before = 0; before < vector; before++)
        hits |= *(const vec *)(head->masks[q] + before * APH_LANES);
    head->hot[n_hot] = q;
    return n_hot + ANY(hits);
}

/* For codes of one word, whose sums never leave the registers. Fills the masks of the active queries for one vector of
 * each group of the block. After the last vector head->hot lists the queries that have a hit. Returns their number. */
static int64_t bitsliced_narrow(const uint64_t *groups, int vector, int64_t n_active, const scratch_arrays *s)
{
    scratch_head *head = s->head;
    int64_t n_hot = 0;
    make_planes(groups, 1, 0, vector, head->planes);
    make_table(head->planes, head->table);
    for (int64_t a = 0; a < n_active; a++) {
        const int32_t q = head->common.active[a];
        const uint64_t *bias = head->bias[q];
        vec low[6];
        for (int p = 0; p < 6; p++)
            low[p] = spread(bias[p]);
        const vec carry = add_word(head->table, s->patterns + q * APH_PATTERNS, low);
        n_hot = finish(head, q, vector, ~(carry & spread(bias[6])), n_hot);
    }
    return n_hot;
}

/* Add `two` + 1 words, of which `word` is the first, to the sums of the active queries. */
INLINE int64_t add_words(int64_t word, int two, int first, int last, int n_planes, int vector, int64_t n_active,
                         const scratch_arrays *s)
{
    scratch_head *head = s->head;
    const uint16_t *patterns = s->patterns + word * APH_MAX_QUERIES * APH_PATTERNS;
    int64_t n_hot = 0;
    for (int64_t a = 0; a < n_active; a++) {
        const int32_t q = head->common.active[a];
        const uint64_t *bias = head->bias[q];
        vec *sums = s->sums + (int64_t)q * APH_MAX_PLANES;
        vec low[6], carry;
        for (int p = 0; p < 6; p++)
            low[p] = first ? spread(bias[p]) : sums[p];
        vec plane = first ? spread(bias[6]) : sums[6];
        const vec c0 = add_word(head->table, patterns + q * APH_PATTERNS, low);
        if (two) {
            const vec c1 = add_word(head->table + TABLE, patterns + (APH_MAX_QUERIES + q) * APH_PATTERNS, low);
            ADD(plane, carry, c0, c1);
        } else {
            carry = plane & c0;
            plane ^= c0;
        }
        if (!last) {
            for (int p = 0; p < 6; p++)
                sums[p] = low[p];
            sums[6] = plane;
        }
        for (int p = 7; p < n_planes; p++) {
            plane = first ? spread(bias[p]) : sums[p];
            if (!last)
                sums[p] = plane ^ carry;
            carry &= plane;
        }
        if (!first)
            carry |= sums[n_planes]; /* a sum that was over 2^p once stays over it */
        if (!last) {
            sums[n_planes] = carry;
            continue;
        }
        n_hot = finish(head, q, vector, ~carry, n_hot);
    }
    return n_hot;
}

/* As bitsliced_narrow, for codes of several words. Tables are made of WORDS words at a time, and the sums wait in
 * memory in between. */
static int64_t bitsliced_wide(const uint64_t *groups, int64_t n_words, int n_planes, int vector, int64_t n_active,
                              const scratch_arrays *s)
{
    scratch_head *head = s->head;
    int64_t n_hot = 0;
    for (int64_t word = 0; word < n_words; word += WORDS) {
        const int two = WORDS == 2 && word + 1 < n_words;
        const int first = word == 0, last = word + WORDS >= n_words;
        for (int i = 0; i <= two; i++) {
            make_planes(groups, n_words, word + i, vector, head->planes);
            make_table(head->planes, head->table + i * TABLE);
        }
        if (two && first && last)
            n_hot = add_words(word, 1, 1, 1, 8, vector, n_active, s);
        else if (two)
            n_hot = add_words(word, 1, first, last, n_planes, vector, n_active, s);
        else
            n_hot = add_words(word, 0, first, last, n_planes, vector, n_active, s);
    }
    return n_hot;
}

static void set_bias(uint64_t *bias, int n_planes, int64_t threshold)
{
    const int64_t max_sum = (INT64_C(1) << n_planes) - 1;
    const int64_t start = threshold > max_sum ? 0 : max_sum - threshold;
    for (int p = 0; p < n_planes; p++)
        bias[p] = -(uint64_t)(start >> p & 1);
}
