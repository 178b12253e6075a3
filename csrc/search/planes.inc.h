/* Bounds for bits with weights, by bit planes. Included by weighted.inc.h.
 *
 * The weights of a query become small integers, floor(w / unit). Their sum over the bits that differ, times the unit,
 * is a lower bound of the distance. Carry-save adders make this sum of the bit planes of the block (bitsliced.inc.h),
 * or of the complements of planes where the query's bit is set. A plane with weight 5 is added twice, as a 1 and as a
 * 4. With units of half the mean weight, fewer planes are added than a code has bits. As with codes, the sum starts at
 * 2^p - 1 - T. Smaller units let fewer codes pass, and need more planes. The scan chooses the unit by what it finds.
 *
 * A query is a list of planes for each power of two. The lists have the same lengths for all queries of a scan, so that
 * no branch depends on the query. A list that is too short is filled with a plane of zeros, and one that is too long
 * loses planes because weights are lowered. Carries are planes, too: eight planes of one power leave one plane of the
 * power that is three higher. */

enum {
    MAX_LEVELS = 7,  /* the largest number of bits in a small weight */
    MIN_LEVELS = 4,  /* the smallest, with which a scan begins */
    UNIT_BLOCKS = 8, /* the unit is chosen anew after so many blocks */
    MAX_WORDS = 64,  /* the lists of wider codes are too long to be kept */
    STRIP_WORDS = 8, /* the words of a strip, whose planes and their complements fit in a first-level cache */
    STRIP_BITS = 64 * STRIP_WORDS,
    SUM_PLANES = 24,                               /* of a sum: MAX_WORDS * 64 * 2^MAX_LEVELS < 2^20, and some beyond */
    TAILS = 4 * SUM_PLANES,                        /* carries of the planes of each power that are no whole eight */
    CARRIES = STRIP_BITS * MAX_LEVELS / 7 + TAILS, /* eight planes leave one, and eight of these again */
    ZEROS = 2 * STRIP_BITS                         /* the number of the plane of zeros */
};

typedef struct {            /* what is added of the words of one strip, the same for all queries */
    int planes[MAX_LEVELS]; /* planes of bits, for each power of two */
    int inputs[SUM_PLANES]; /* the same with the carries */
    int n_carries;
    uint8_t carries[CARRIES]; /* the power of each carry, in the order in which the carries are made */
} plane_shape;

struct bounds_s {
    int levels;   /* bits of the small weights at present */
    int n_planes; /* planes of a sum, without the one that says "farther" */
    int n_strips;
    int64_t list;    /* entries of a query's list for a strip */
    int64_t looked;  /* queries * blocks since the unit was chosen */
    uint16_t *lists; /* [query][strip][list] */
    uint8_t *small;  /* [query][bit]: the weight, and in bit MAX_LEVELS whether the query's bit is set */
    plane_shape shapes[(MAX_WORDS + STRIP_WORDS - 1) / STRIP_WORDS];
    int32_t left[APH_MAX_QUERIES];
    uint32_t units[APH_MAX_QUERIES];
    uint64_t bias[APH_MAX_QUERIES][SUM_PLANES];
    _Alignas(64) uint64_t masks[APH_MAX_QUERIES][APH_GROUP]; /* [lane], bit r: code 8 r + lane is a candidate */
    _Alignas(64) vec sums[APH_MAX_QUERIES][SUM_PLANES];
    vec bits[64];
    vec planes[ZEROS + 1 + CARRIES]; /* [bit][as it is, inverted], zeros, carries */
};

INLINE int strips_of(int64_t n_words) { return (int)((n_words + STRIP_WORDS - 1) / STRIP_WORDS); }

static void count_bounded(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                          const int64_t *positions);

/* The largest number of entries in a query's list for a strip. */
INLINE int64_t max_list(int64_t n_words)
{
    return (n_words < STRIP_WORDS ? n_words : STRIP_WORDS) * 64 * (MAX_LEVELS + 1) + TAILS;
}

static int64_t bounds_bytes(int64_t n_words)
{
    if (n_words > MAX_WORDS)
        return round64(sizeof(bounds));
    return round64(sizeof(bounds)) +
           APH_MAX_QUERIES * (strips_of(n_words) * max_list(n_words) * (int64_t)sizeof(uint16_t) + n_words * 64);
}

/* What bit b of a code adds where it differs from the query's bit. *set says whether the query's bit is set. */
INLINE uint32_t weight_of(const uint32_t *tables, int64_t b, int *set)
{
    const uint32_t zero = tables[b / 4 * APH_ENTRIES], one = tables[b / 4 * APH_ENTRIES + (1 << b % 4)];
    *set = one < zero;
    return one > zero ? one - zero : zero - one;
}

/* Whether the entries of each table are sums of what the single bits add. */
static int is_sum_of_bits(const aph_weighted *query)
{
    for (int64_t t = 0; t < query->n_tables; t++) {
        const uint32_t *table = query->tables + t * APH_ENTRIES;
        int64_t wrong = 0;
        for (int v = 3; v < APH_ENTRIES; v++) {
            const int rest = v & (v - 1);
            wrong |= ((int64_t)table[v] - table[rest]) ^ ((int64_t)table[v - rest] - table[0]);
        }
        if (wrong)
            return 0;
    }
    return 1;
}

/* Make the small weights of a query. The number of weights of each strip that have a bit set is added to counts, for
 * each bit. Returns the unit. */
static uint32_t small_weights(const aph_weighted *query, int levels, int64_t n_bits, uint8_t *small,
                              int64_t (*counts)[MAX_LEVELS])
{
    const int max_weight = (1 << levels) - 1;
    uint64_t sum = 0, n = 0;
    int set;
    for (int64_t b = 0; b < n_bits; b++) {
        const uint32_t w = weight_of(query->tables, b, &set);
        sum += w;
        n += w != 0;
    }
    uint64_t unit = n ? sum / (n << (levels - MIN_LEVELS + 1)) : 1;
    unit = unit ? unit : 1;
    const double scale = 1.0 / (double)unit; /* weights have 32 bits, so rounding does not reach the next integer */
    for (int64_t b = 0; b < n_bits; b++) {
        const double scaled = weight_of(query->tables, b, &set) * scale;
        small[b] = (uint8_t)((scaled < max_weight ? (int)scaled : max_weight) | set << MAX_LEVELS);
    }
    for (int64_t b = 0; b < n_bits; b++)
        for (int p = 0; p < levels; p++)
            counts[b / STRIP_BITS][p] += small[b] >> p & 1;
    return (uint32_t)unit;
}

/* Lower the small weights of a strip until no list is longer than it may be. */
static void fit_weights(uint8_t *small, int n_bits, const plane_shape *shape, int levels)
{
    for (int p = levels - 1; p >= 0; p--) {
        const int bit = 1 << p, below = bit - 1;
        int excess = -shape->planes[p];
        for (int b = 0; b < n_bits; b++)
            excess += small[b] >> p & 1;
        for (int far = 0; far < 2 && excess > 0; far++) /* first the weights that lose least by it */
            for (int b = 0; b < n_bits && excess > 0; b++)
                if ((small[b] & bit) && (far || (small[b] & below) <= below / 2)) {
                    small[b] = (uint8_t)((small[b] & ~bit) | below);
                    excess--;
                }
    }
}

/* List the carries in the order in which add_planes makes them. */
static void shape_carries(plane_shape *shape, int levels, int n_planes)
{
    memset(shape->inputs, 0, sizeof shape->inputs);
    shape->n_carries = 0;
    for (int p = 0; p < n_planes; p++) {
        int *inputs = shape->inputs + p;
        if (p < levels) {
            shape->planes[p] += (*inputs + shape->planes[p]) & 1;
            *inputs += shape->planes[p];
        }
        for (int n = *inputs; n > 0;) {
            const int up = n >= 8 ? 3 : n >= 4 ? 2 : 1;
            n -= n >= 2 ? 1 << up : 1;
            shape->carries[shape->n_carries++] = (uint8_t)(p + up);
            inputs[up]++;
        }
    }
}

static void start_planes(weighted_scan *w, int levels)
{
    bounds *m = w->bounds;
    const int64_t n_bits = w->n_tables * 4, width = w->scan.db->n_words * 64, n_active = w->scan.n_active;
    int64_t counts[sizeof m->shapes / sizeof *m->shapes][MAX_LEVELS] = {{0}};
    m->levels = levels;
    m->looked = w->missed = 0;
    m->planes[ZEROS] = (vec){0};
    m->n_strips = strips_of((n_bits + 63) / 64);
    for (int64_t a = 0; a < n_active; a++) {
        const int64_t q = w->head->common.active[a];
        m->units[q] = small_weights(w->queries + q, levels, n_bits, m->small + q * width, counts);
    }
    int64_t max_sum = 0;
    for (int strip = 0; strip < m->n_strips; strip++)
        for (int p = 0; p < levels; p++) {
            m->shapes[strip].planes[p] = (int)((counts[strip][p] + n_active - 1) / (n_active ? n_active : 1));
            max_sum += (int64_t)(m->shapes[strip].planes[p] + 1) << p;
        }
    for (m->n_planes = 6; (INT64_C(1) << m->n_planes) <= max_sum;)
        m->n_planes++;
    m->list = 0;
    for (int strip = 0; strip < m->n_strips; strip++) {
        int64_t length = 0;
        shape_carries(m->shapes + strip, levels, m->n_planes);
        for (int p = 0; p <= m->n_planes; p++)
            length += m->shapes[strip].inputs[p];
        m->list = length > m->list ? length : m->list;
    }
    for (int64_t a = 0; a < n_active; a++) {
        const int64_t q = w->head->common.active[a];
        for (int strip = 0; strip < m->n_strips; strip++) {
            const plane_shape *shape = m->shapes + strip;
            const int64_t first = (int64_t)strip * STRIP_BITS;
            const int n = (int)(n_bits - first < STRIP_BITS ? n_bits - first : STRIP_BITS);
            uint8_t *small = m->small + q * width + first;
            fit_weights(small, n, shape, levels);
            uint16_t *list = m->lists + (q * m->n_strips + strip) * m->list;
            for (int p = 0; p <= m->n_planes; p++) {
                int at = 0;
                if (p < levels) {
                    for (int b = 0; b < n; b++) {
                        list[at] = (uint16_t)((2 * b + (small[b] >> MAX_LEVELS)) * (int)sizeof(vec));
                        at += small[b] >> p & 1;
                    }
                    while (at < shape->planes[p])
                        list[at++] = (uint16_t)(ZEROS * (int)sizeof(vec));
                }
                for (int c = 0; c < shape->n_carries; c++)
                    if (shape->carries[c] == p)
                        list[at++] = (uint16_t)((ZEROS + 1 + c) * (int)sizeof(vec));
                list += at;
            }
        }
    }
}

#define INPUT(i) (*(const vec *)(planes + list[i]))

/* Add the n planes of one power to the planes of a sum. The carries are written one behind the other. */
INLINE void add_level(const char *planes, const uint16_t **lists, int n, vec *s0, vec *s1, vec *s2, vec **carries)
{
    const uint16_t *list = *lists;
    vec *carry = *carries, a, b, c, d;
    for (; n >= 8; n -= 8, list += 8) {
        ADD(*s0, a, INPUT(0), INPUT(1));
        ADD(*s0, b, INPUT(2), INPUT(3));
        ADD(*s1, c, a, b);
        ADD(*s0, a, INPUT(4), INPUT(5));
        ADD(*s0, b, INPUT(6), INPUT(7));
        ADD(*s1, d, a, b);
        ADD(*s2, a, c, d);
        *carry++ = a;
    }
    if (n & 4) {
        ADD(*s0, a, INPUT(0), INPUT(1));
        ADD(*s0, b, INPUT(2), INPUT(3));
        ADD(*s1, c, a, b);
        *carry++ = c;
        list += 4;
    }
    if (n & 2) {
        ADD(*s0, a, INPUT(0), INPUT(1));
        *carry++ = a;
        list += 2;
    }
    if (n & 1) {
        *carry++ = *s0 & INPUT(0);
        *s0 ^= INPUT(0);
        list++;
    }
    *lists = list, *carries = carry;
}

/* Add the planes in a query's list to a sum, and return the plane that says "farther". The code of each power is
 * written out, so that its loads are instructions of their own: a load of a carry has to wait for its store, a load of
 * a bit has not. */
INLINE vec add_planes(bounds *m, const plane_shape *shape, const uint16_t *list, int first, int last,
                      const uint64_t *bias, vec *sum)
{
    const char *planes = (const char *)m->planes;
    vec *carry = m->planes + ZEROS + 1;
    const int n_planes = m->n_planes;
    vec s0 = first ? spread(bias[0]) : sum[0], s1 = first ? spread(bias[1]) : sum[1], s2;
#define LEVEL(p)                                                                                                       \
    s2 = first ? spread(bias[p + 2]) : sum[p + 2];                                                                     \
    add_level(planes, &list, shape->inputs[p], &s0, &s1, &s2, &carry);                                                 \
    if (!last)                                                                                                         \
        sum[p] = s0;                                                                                                   \
    s0 = s1, s1 = s2;
    LEVEL(0) LEVEL(1) LEVEL(2) LEVEL(3) LEVEL(4) LEVEL(5) for (int p = 6; p < n_planes; p++) { LEVEL(p) }
    /* A sum is less than twice what these planes stand for, so at most one of them is set for a code. */
    for (int n = shape->inputs[n_planes]; n > 0; n--)
        s0 |= INPUT(n - 1);
    if (!last)
        sum[n_planes] = s0;
    return s0;
}

static void set_bound(weighted_scan *w, int64_t q, int64_t room)
{
    if (w->scan.count != count_bounded)
        return;
    bounds *m = w->bounds;
    const int64_t max_sum = (INT64_C(1) << m->n_planes) - 1, limit = room / m->units[q];
    const int64_t start = limit > max_sum ? 0 : max_sum - limit;
    for (int p = 0; p < m->n_planes + 2; p++)
        m->bias[q][p] = -(uint64_t)(p < m->n_planes ? start >> p & 1 : 0);
}

/* Fill the masks of a block for the queries in `alive`. Queries without a candidate are removed from the list. Returns
 * the number of those that stay. */
static int64_t find_in_planes(weighted_scan *w, const uint64_t *groups, int32_t *alive, int64_t n_alive)
{
    bounds *m = w->bounds;
    const int64_t n_words = w->scan.db->n_words, used = (w->n_tables + 15) / 16;
    for (int vector = 0; vector < VECTORS; vector++) {
        int64_t n_left = n_alive;
        memcpy(m->left, alive, (size_t)n_alive * sizeof *alive);
        for (int strip = 0; strip < m->n_strips; strip++) {
            const int64_t word = (int64_t)strip * STRIP_WORDS;
            const int here = (int)(used - word < STRIP_WORDS ? used - word : STRIP_WORDS),
                      last = strip + 1 == m->n_strips;
            for (int i = 0; i < here; i++) {
                make_planes(groups, n_words, word + i, vector, m->bits);
                for (int b = 0; b < 64; b++) {
                    m->planes[2 * (64 * i + b)] = m->bits[b];
                    m->planes[2 * (64 * i + b) + 1] = ~m->bits[b];
                }
            }
            int64_t kept = 0;
            for (int64_t a = 0; a < n_left; a++) {
                const int32_t q = m->left[a];
                const uint16_t *list = m->lists + (q * m->n_strips + strip) * m->list;
                const plane_shape *shape = m->shapes + strip;
                vec far;
                if (strip == 0 && last)
                    far = add_planes(m, shape, list, 1, 1, m->bias[q], NULL);
                else if (strip == 0)
                    far = add_planes(m, shape, list, 1, 0, m->bias[q], m->sums[q]);
                else if (last)
                    far = add_planes(m, shape, list, 0, 1, NULL, m->sums[q]);
                else
                    far = add_planes(m, shape, list, 0, 0, NULL, m->sums[q]);
                const vec near = ~far;
                *(vec *)(m->masks[q] + vector * APH_LANES) = near;
                m->left[kept] = q;
                kept += last || ANY(near);
            }
            n_left = kept;
        }
    }
    int64_t n_hot = 0;
    for (int64_t a = 0; a < n_alive; a++) {
        const int32_t q = alive[a];
        vec any = {0};
        for (int vector = 0; vector < VECTORS; vector++)
            any |= *(const vec *)(m->masks[q] + vector * APH_LANES);
        alive[n_hot] = q;
        n_hot += ANY(any);
    }
    return n_hot;
}

/* Choose a smaller unit where the candidates that pass cost more than further planes would, and a larger one where they
 * cost less. */
static void choose_units(weighted_scan *w)
{
    bounds *m = w->bounds;
    if (m->looked < UNIT_BLOCKS * w->scan.n_active)
        return;
    int step = 0;
    if (w->missed > 2 * m->looked)
        step = m->levels < MAX_LEVELS;
    else if (w->missed < m->looked / 3)
        step = -(m->levels > MIN_LEVELS);
    m->looked = w->missed = 0;
    if (step == 0)
        return;
    start_planes(w, m->levels + step);
    for (int64_t a = 0; a < w->scan.n_active; a++)
        set_limit(w, w->scan.memory->active[a]);
}

static void count_bounded(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                          const int64_t *positions)
{
    weighted_scan *w = (weighted_scan *)scan;
    int32_t *alive = w->head->alive;
    int64_t n_alive = list_alive(w);
    int dropped = 0;
    if (n_alive == 0)
        return;
    w->bounds->looked += n_alive;
    n_alive = find_in_planes(w, groups, alive, n_alive);
    for (int64_t a = 0; a < n_alive; a++) {
        uint64_t runs[8];
        order_lanes(w->bounds->masks[alive[a]], runs);
        unsigned hot = 0;
        for (int run = 0; run < 8; run++)
            hot |= (unsigned)((runs[run] &= allowed[run]) != 0) << run;
        dropped |= take_candidates(w, runs, hot, groups, first, positions, alive[a]);
    }
    choose_units(w);
    if (dropped)
        drop_finished(scan);
}

/* The scan without bounds, for tables that are no sums of bits, and for wider codes: the distance of each code is
 * computed. */
static void count_exactly(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                          const int64_t *positions)
{
    weighted_scan *w = (weighted_scan *)scan;
    int dropped = 0;
    uint32_t sums[APH_BLOCK];
    for (int64_t a = 0; a < scan->n_active; a++) {
        const int64_t q = scan->memory->active[a];
        aph_found *found = scan->found + q;
        const uint32_t constant = (uint32_t)w->head->each[q].constant;
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

static void start_bounds(weighted_scan *w, char *scratch, int64_t n_queries)
{
    const int64_t n_words = w->scan.db->n_words;
    bounds *m = w->bounds = (bounds *)scratch;
    int serves = n_words <= MAX_WORDS;
    (void)n_queries;
    for (int64_t a = 0; a < w->scan.n_active && serves; a++)
        serves = is_sum_of_bits(w->queries + w->scan.memory->active[a]);
    w->scan.count = serves ? count_bounded : count_exactly;
    if (!serves)
        return;
    m->lists = (uint16_t *)(scratch + round64(sizeof(bounds)));
    m->small = (uint8_t *)(m->lists + APH_MAX_QUERIES * strips_of(n_words) * max_list(n_words));
    start_planes(w, MIN_LEVELS);
}
