/* (A) Squared distances between anchors and items, and the selection among them. Included by kernels.inc.h. */

enum { DISTANCE_BAND = 96 }; /* so many anchors' pieces of APH_DEPTH stay in the L2 cache beside the tile */

static void square_norms(const float *a, int64_t m, int64_t d, float *out)
{
    for (int64_t i = 0; i < m; i++) {
        double sum = 0; /* in the same pieces as the norm of an item */
        for (int64_t k = 0; k < d; k += APH_DEPTH)
            sum += sum_squares(a + i * d + k, min(APH_DEPTH, d - k));
        out[i] = (float)sum;
    }
}

struct distance_scratch {
    float *panels; /* [APH_TILE / WIDTH][APH_DEPTH][WIDTH] */
    float *rows;   /* [WIDTH][APH_DEPTH] */
    double *norms; /* [APH_TILE] */
};

INLINE struct distance_scratch carve_distances(char **at)
{
    struct distance_scratch s;
    s.panels = carve(at, 4 * APH_TILE * APH_DEPTH);
    s.rows = carve(at, 4 * WIDTH * APH_DEPTH);
    s.norms = carve(at, 8 * APH_TILE);
    return s;
}

static int64_t distances_scratch(void)
{
    char *end = NULL;
    carve_distances(&end);
    return (int64_t)(intptr_t)end;
}

static void distances(const struct aph_source *items, int64_t start, int64_t count, const float *a,
                      const float *a_norms, int64_t m, float *out, int64_t ld, void *scratch)
{
    char *at = scratch;
    const struct distance_scratch s = carve_distances(&at);
    const int64_t d = items->d, n_panels = panels_of(count);
    memset(s.norms, 0, 8 * APH_TILE);

    for (int64_t from = 0; from < d; from += APH_DEPTH) {
        const int64_t depth = min(APH_DEPTH, d - from);
        const int last = from + depth == d;
        for (int64_t j = 0; j < n_panels * WIDTH; j += WIDTH) {
            for (int64_t l = 0; l < WIDTH; l++) {
                float *row = s.rows + l * APH_DEPTH;
                if (j + l + 1 < count)
                    fetch(items, start + j + l + 1, from, depth);
                if (j + l < count) {
                    working_vector(items, start + j + l, from, depth, row);
                    s.norms[j + l] += sum_squares(row, depth);
                } else {
                    memset(row, 0, 4 * depth);
                }
            }
            transpose(s.rows, APH_DEPTH, depth, 1.0f, s.panels + j * APH_DEPTH);
        }
        for (int64_t band = 0; band < m; band += DISTANCE_BAND)
            for (int64_t j = 0; j < n_panels * WIDTH; j += WIDTH) {
                float norms[WIDTH];
                for (int l = 0; l < WIDTH; l++)
                    norms[l] = (float)s.norms[j + l];
                for (int64_t i = band; i < min(m, band + DISTANCE_BAND); i += MR) {
                    const float *p[MR];
                    vf acc[MR][NV];
                    row_pointers(p, a + i * d + from, d, m - i);
                    multiply(acc, p, s.panels + j * APH_DEPTH, depth);
                    UNROLL_FOR (int row = 0; row < MR; row++)
                        if (row < m - i)
                            UNROLL_FOR (int v = 0; v < NV; v++) {
                                float *o = out + (i + row) * ld + j + v * VL;
                                vf sum = acc[row][v];
                                if (from)
                                    sum = load(o) + sum;
                                if (last)
                                    sum = V_MAX(splat(a_norms[i + row]) + load(norms + v * VL) - 2.0f * sum, splat(0));
                                store(o, sum);
                            }
                }
            }
    }
}

INLINE int any_within(const float *d2, float bound)
{
    vi any = load(d2) <= splat(bound);
    for (int t = VL; t < APH_SCAN; t += VL)
        any |= load(d2 + t) <= splat(bound);
    return V_ANY(any);
}

static int64_t count_within(const float *d2, int64_t count, float bound)
{
    int32_t hits = 0; /* count is at most the number of items in a wave */
    for (int64_t j = 0; j < count; j++)
        hits += d2[j] <= bound;
    return hits;
}

static void list_within(const float *d2, int64_t count, float bound, int64_t first, int32_t *ids)
{
    for (int64_t j = 0; j < count; j += APH_SCAN) {
        if (j + APH_SCAN <= count && !any_within(d2 + j, bound))
            continue;
        for (int64_t t = j; t < min(count, j + APH_SCAN); t++)
            if (d2[t] <= bound)
                *ids++ = (int32_t)(first + t);
    }
}

INLINE void insertion_sort(uint64_t *keys, int64_t n)
{
    for (int64_t t = 1; t < n; t++) {
        uint64_t key = keys[t];
        int64_t to = t;
        for (; to > 0 && keys[to - 1] > key; to--)
            keys[to] = keys[to - 1];
        keys[to] = key;
    }
}

enum { SAMPLE = 16 };

/* Moves the k smallest of n >= k distinct keys to the front, and the largest of these to place k - 1. spare has room
 * for n keys. After Floyd and Rivest (1975): the pivot is the key of a sorted sample that is expected just beyond the
 * k-th. The places of the sample come from a fixed sequence of pseudo-random numbers, which no order of the data can
 * defeat in practice. */
static void select_keys(uint64_t *keys, int64_t n, int64_t k, uint64_t *spare)
{
    uint64_t random = 0x9e3779b97f4a7c15u;
    while (n > SAMPLE) { /* the k-th key of all is the k-th of these n keys */
        uint64_t sample[SAMPLE];
        for (int t = 0; t < SAMPLE; t++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            sample[t] = keys[(random >> 32) * (uint64_t)n >> 32];
        }
        insertion_sort(sample, SAMPLE);
        int64_t rank = SAMPLE * k / n; /* two beyond the k-th, or two before it where k is more than half of n */
        rank += 2 * k > n ? -2 : 2;
        const uint64_t pivot = sample[rank < 0 ? 0 : min(rank, SAMPLE - 1)];
        int64_t below = 0, above = 0;
        for (int64_t t = 0; t < n; t++) { /* no branch on the data */
            const uint64_t key = keys[t];
            const int is_above = key > pivot;
            keys[below] = key;
            spare[above] = key;
            below += !is_above;
            above += is_above;
        }
        memcpy(keys + below, spare, 8 * above);
        if (k <= below) {
            if (above == 0) { /* the pivot is the largest key: it is set apart, so that n becomes smaller */
                int64_t place = 0;
                while (keys[place] != pivot)
                    place++;
                keys[place] = keys[n - 1];
                keys[n - 1] = pivot;
                below--;
                if (k > below)
                    return;
            }
            n = below;
        } else {
            keys += below;
            n = above;
            k -= below;
        }
    }
    insertion_sort(keys, n);
}

static void sort_keys(uint64_t *keys, int64_t n, uint64_t *spare)
{
    while (n > SAMPLE) { /* one half is sorted by recursion, the other one here */
        const int64_t half = n / 2;
        select_keys(keys, n, half, spare);
        sort_keys(keys, half, spare);
        keys += half;
        n -= half;
    }
    insertion_sort(keys, n);
}

/* Merges the spare keys into best, which keeps the k smallest. The largest of them comes last. */
static void merge_spare(int64_t k, uint64_t *best, int64_t *n_best, const uint64_t *spare, int64_t *n_spare,
                        uint64_t *scratch)
{
    const int64_t n = *n_best + *n_spare;
    memcpy(scratch, best, 8 * *n_best);
    memcpy(scratch + *n_best, spare, 8 * *n_spare);
    *n_best = min(n, k);
    *n_spare = 0;
    select_keys(scratch, n, *n_best, scratch + n);
    memcpy(best, scratch, 8 * *n_best);
}

static void topk_push(const float *d2, int64_t count, int64_t first, int64_t k, uint64_t *best, int64_t *n_best,
                      uint64_t *spare, int64_t *n_spare, int64_t n_spare_max, uint64_t *limit, uint64_t *scratch)
{
    union {
        uint32_t bits;
        float value;
    } bound = {(uint32_t)(*limit >> 32)}, at;
    int64_t n = *n_spare;
    for (int64_t j = 0; j < count; j += APH_SCAN) {
        if (j + APH_SCAN <= count && !any_within(d2 + j, bound.value))
            continue;
        const int64_t end = min(count, j + APH_SCAN);
        for (int64_t t = j; t < end; t++) { /* no branch on the data */
            at.value = d2[t];
            const uint64_t key = (uint64_t)at.bits << 32 | (uint64_t)(first + t);
            spare[n] = key;
            n += key < *limit;
        }
        if (n < n_spare_max)
            continue;
        merge_spare(k, best, n_best, spare, &n, scratch);
        if (*n_best == k) {
            *limit = best[k - 1];
            bound.bits = (uint32_t)(*limit >> 32);
        }
    }
    *n_spare = n;
}

static void topk_finish(int64_t k, uint64_t *best, int64_t *n_best, uint64_t *spare, int64_t *n_spare,
                        uint64_t *scratch)
{
    merge_spare(k, best, n_best, spare, n_spare, scratch);
    sort_keys(best, *n_best, scratch);
}
