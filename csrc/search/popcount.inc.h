/* Distances of one query, by population counts of 8 codes at a time. Included by kernels.inc.h. */

/* Distances of a query to the codes in one vector of a group. Where bits are counted a byte at a time (COUNT_BYTES) and the
 * bytes of a lane are added afterwards (SUM_BYTES), they are added once for 31 words: a byte has at most 8 of each. */
INLINE vec group_distances(const uint64_t *group, int vector, const uint64_t *query, int64_t n_words)
{
    vec total = {0};
#ifdef COUNT_BYTES
    for (int64_t word = 0; word < n_words;) {
        typedef uint8_t bytes __attribute__((vector_size(8 * APH_LANES)));
        bytes counts = {0};
        for (const int64_t stop = n_words - word < 31 ? n_words : word + 31; word < stop; word++)
            counts += (bytes)COUNT_BYTES(*(const vec_u *)(group + word * APH_GROUP + vector * APH_LANES) ^ query[word]);
        total += SUM_BYTES(counts);
    }
#else
    for (int64_t word = 0; word < n_words; word++)
        total += count_bits(*(const vec_u *)(group + word * APH_GROUP + vector * APH_LANES) ^ query[word]);
#endif
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

/* Fill hits[8]: bit i % 64 of word i / 64 says whether code i of the block is within the threshold. Returns whether any
 * code is. The minimum of 64 distances is compared once, and the codes are compared one by one only when it is small
 * enough. */
INLINE int popcount_block(const uint64_t *groups, int64_t n_words, const uint64_t *query, int64_t threshold,
                          uint64_t *hits)
{
    int any = 0;
    for (int run = 0; run < APH_GROUP; run++) {
        const uint64_t *first = groups + run * 8 * n_words * APH_GROUP;
        vec minimum = {0};
        minimum = ~minimum;
        for (int g = 0; g < 8; g++) {
            __builtin_prefetch(first + g * n_words * APH_GROUP + 512);
            for (int vector = 0; vector < VECTORS; vector++)
                minimum = lower(minimum, group_distances(first + g * n_words * APH_GROUP, vector, query, n_words));
        }
        uint64_t nearest = minimum[0];
        for (int lane = 1; lane < APH_LANES; lane++)
            nearest = minimum[lane] < nearest ? minimum[lane] : nearest;
        hits[run] = 0;
        if ((int64_t)nearest > threshold)
            continue;
        any = 1;
        for (int g = 0; g < 8; g++)
            for (int vector = 0; vector < VECTORS; vector++) {
                const vec d = group_distances(first + g * n_words * APH_GROUP, vector, query, n_words);
                for (int lane = 0; lane < APH_LANES; lane++)
                    hits[run] |= (uint64_t)((int64_t)d[lane] <= threshold) << (g * 8 + vector * APH_LANES + lane);
            }
    }
    return any;
}

static int popcount_scan(const uint64_t *groups, int64_t n_words, const uint64_t *query, int64_t threshold,
                         uint64_t *hits)
{
    switch (n_words) { /* the compiler unrolls these for the usual widths */
    case 1:
        return popcount_block(groups, 1, query, threshold, hits);
    case 2:
        return popcount_block(groups, 2, query, threshold, hits);
    case 3:
        return popcount_block(groups, 3, query, threshold, hits);
    case 4:
        return popcount_block(groups, 4, query, threshold, hits);
    default:
        return popcount_block(groups, n_words, query, threshold, hits);
    }
}

static void distances(const uint64_t *groups, const int64_t *positions, int64_t n, int64_t n_words, const void *query,
                      uint32_t *out)
{
    (void)positions;
    for (int64_t i = 0; i < n; i += APH_GROUP)
        for (int vector = 0; vector < VECTORS; vector++) {
            const vec d = group_distances(groups + i * n_words, vector, query, n_words);
            for (int lane = 0; lane < APH_LANES; lane++)
                out[i + vector * APH_LANES + lane] = (uint32_t)d[lane];
        }
}
