/* (A) Squared distances between anchors and items, and what is kept of them. Part of learn.inc.h. */

enum { DISTANCE_GROUP = 96 }; /* anchors whose piece of APH_DEPTH stays in the L2 cache beside the tile */

static void square_norms(const float *a, int64_t m, int64_t d, float *out)
{
    for (int64_t i = 0; i < m; i++) {
        double sum = 0; /* in the same pieces as an item's */
        for (int64_t k = 0; k < d; k += APH_DEPTH)
            sum += sum_squares(a + i * d + k, least(APH_DEPTH, d - k));
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

static void distances(const struct aph_source *items, int64_t start, int64_t count, const float *a, const float *a_norms,
                      int64_t m, float *out, int64_t ld, void *scratch)
{
    char *at = scratch;
    const struct distance_scratch s = carve_distances(&at);
    const int64_t d = items->d, n_panels = panels_of(count);
    memset(s.norms, 0, 8 * APH_TILE);

    for (int64_t from = 0; from < d; from += APH_DEPTH) {
        const int64_t depth = least(APH_DEPTH, d - from);
        const int last = from + depth == d;
        for (int64_t j = 0; j < n_panels * WIDTH; j += WIDTH) {
            for (int64_t l = 0; l < WIDTH; l++) {
                float *row = s.rows + l * APH_DEPTH;
                if (j + l < count) {
                    working_vector(items, start + j + l, from, depth, row);
                    s.norms[j + l] += sum_squares(row, depth);
                } else {
                    memset(row, 0, 4 * depth);
                }
            }
            transpose(s.rows, APH_DEPTH, depth, s.panels + j * APH_DEPTH);
        }
        for (int64_t group = 0; group < m; group += DISTANCE_GROUP)
            for (int64_t j = 0; j < n_panels * WIDTH; j += WIDTH) {
                float norms[WIDTH];
                for (int l = 0; l < WIDTH; l++)
                    norms[l] = (float)s.norms[j + l];
                for (int64_t i = group; i < least(m, group + DISTANCE_GROUP); i += MR) {
                    const float *p[MR];
                    vf acc[MR][NV];
                    row_pointers(p, a + i * d + from, d, m - i);
                    multiply(acc, p, s.panels + j * APH_DEPTH, depth);
                    UNROLL
                    for (int row = 0; row < MR; row++)
                        if (row < m - i)
                            UNROLL
                            for (int v = 0; v < NV; v++) {
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

enum { SCAN = 32 }; /* distances looked at together */

INLINE int any_within(const float *d2, float bound)
{
    int any = 0;
    for (int t = 0; t < SCAN; t++)
        any |= d2[t] <= bound;
    return any;
}

static int64_t count_within(const float *d2, int64_t count, float bound)
{
    int32_t hits = 0; /* count is at most a wave of items */
    for (int64_t j = 0; j < count; j++)
        hits += d2[j] <= bound;
    return hits;
}

static void list_within(const float *d2, int64_t count, float bound, int64_t first, int32_t *ids)
{
    for (int64_t j = 0; j < count; j += SCAN) {
        if (j + SCAN <= count && !any_within(d2 + j, bound))
            continue;
        for (int64_t t = j; t < least(count, j + SCAN); t++)
            if (d2[t] <= bound)
                *ids++ = (int32_t)(first + t);
    }
}

/* Moves the k smallest of n > k distinct keys to the front, the k-th of them to place k - 1. The pivots' places come from
 * a fixed sequence of pseudo-random numbers, which no order of the data can defeat in practice. */
static void select_keys(uint64_t *keys, int64_t n, int64_t k)
{
    int64_t low = 0, high = n - 1, target = k - 1;
    uint64_t random = 0x9e3779b97f4a7c15u;
    while (low < high) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        int64_t place = low + (int64_t)((random >> 33) % (uint64_t)(high - low + 1));
        uint64_t pivot = keys[place];
        keys[place] = keys[high];
        int64_t edge = low;
        for (int64_t t = low; t < high; t++) { /* no branch on the data */
            uint64_t key = keys[t];
            keys[t] = keys[edge];
            keys[edge] = key;
            edge += key < pivot;
        }
        keys[high] = keys[edge];
        keys[edge] = pivot;
        if (edge == target)
            return;
        if (edge < target)
            low = edge + 1;
        else
            high = edge - 1;
    }
}

static void sort_keys(uint64_t *keys, int64_t n)
{
    while (n > 24) { /* the smaller part by recursion, the larger one here: the depth is at most log2 n */
        int64_t middle = n / 2;
        select_keys(keys, n, middle + 1);
        sort_keys(keys, middle);
        keys += middle + 1;
        n -= middle + 1;
    }
    for (int64_t t = 1; t < n; t++) {
        uint64_t key = keys[t];
        int64_t to = t;
        for (; to > 0 && keys[to - 1] > key; to--)
            keys[to] = keys[to - 1];
        keys[to] = key;
    }
}

/* Merges the spare keys into best, which keeps the k smallest. */
static void merge_spare(int64_t k, uint64_t *best, int64_t *n_best, uint64_t *spare, int64_t *n_spare, uint64_t *scratch)
{
    int64_t n = *n_best + *n_spare;
    memcpy(scratch, best, 8 * *n_best);
    memcpy(scratch + *n_best, spare, 8 * *n_spare);
    if (n > k)
        select_keys(scratch, n, k);
    *n_best = least(n, k);
    *n_spare = 0;
    memcpy(best, scratch, 8 * *n_best);
}

static void keep_nearest(const float *d2, int64_t count, int64_t first, int64_t k, uint64_t *best, int64_t *n_best,
                         uint64_t *spare, int64_t *n_spare, int64_t n_spare_max, uint64_t *limit, uint64_t *scratch)
{
    union {
        uint32_t bits;
        float value;
    } bound = {(uint32_t)(*limit >> 32)}, at;
    for (int64_t j = 0; j < count; j += SCAN) {
        if (j + SCAN <= count && !any_within(d2 + j, bound.value))
            continue;
        for (int64_t t = j; t < least(count, j + SCAN); t++) {
            at.value = d2[t];
            uint64_t key = (uint64_t)at.bits << 32 | (uint64_t)(first + t);
            if (key >= *limit)
                continue;
            if (*n_best < k) {
                best[(*n_best)++] = key;
                if (*n_best < k)
                    continue;
                select_keys(best, k, k);
            } else {
                spare[(*n_spare)++] = key;
                if (*n_spare < n_spare_max)
                    continue;
                merge_spare(k, best, n_best, spare, n_spare, scratch);
            }
            *limit = best[k - 1];
            bound.bits = (uint32_t)(*limit >> 32);
        }
    }
}

static void end_nearest(int64_t k, uint64_t *best, int64_t *n_best, uint64_t *spare, int64_t *n_spare, uint64_t *scratch)
{
    merge_spare(k, best, n_best, spare, n_spare, scratch);
    sort_keys(best, *n_best);
}
