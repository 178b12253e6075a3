/* The scan for queries that are codes. It takes one block after the other, collects hits, and lowers the thresholds as
 * it finds more. Included by kernels.inc.h. */

/* Reorder a mask from lanes, where bit r of lane l is code 8 r + l, to positions, where bit i % 64 of word i / 64 is
 * code i. The bytes are transposed first, then the bits. */
INLINE void order_lanes(const uint64_t *lanes, uint64_t *r)
{
    memcpy(r, lanes, 8 * sizeof *r);
    EXCHANGES(32, UINT64_C(0x00000000FFFFFFFF), 16, UINT64_C(0x0000FFFF0000FFFF), 8, UINT64_C(0x00FF00FF00FF00FF));
    for (int run = 0; run < 8; run++)
        r[run] = transpose_bits(r[run]);
}

static inline int32_t distance_to(const uint64_t *code, int64_t n_words, const uint64_t *query)
{
    int32_t distance = 0;
    for (int64_t word = 0; word < n_words; word++)
        distance += count_word(code[word * APH_GROUP] ^ query[word]);
    return distance;
}

/* Append a hit. A buffer that keeps the k best is pruned when it is full. */
INLINE void append_hit(aph_found *found, int32_t distance, int64_t position, const aph_codes *db, int64_t *bins)
{
    found->hits[found->count++] = (uint64_t)distance << APH_POSITION_BITS | (uint64_t)(position - found->first);
    if (found->k && found->count >= found->capacity && found->count > found->k)
        aph_prune_hits(found, db, bins);
}

/* Append the hits of a block. `positions` is NULL, or holds the positions of a gathered block. */
INLINE void push_hits(const uint16_t *list, int n, const uint64_t *groups, const aph_codes *db, int64_t first,
                      const int64_t *positions, const uint64_t *query, aph_found *found, int64_t *bins)
{
    const int64_t n_words = db->n_words;
    for (int i = 0; i < n; i++) {
        const int at = list[i];
        const uint64_t *code = groups + aph_offset_of(n_words, at);
        const int32_t distance = distance_to(code, n_words, query);
        /* The threshold may have become smaller since the block was counted. That of a radius search never does. There
         * each hit of a kernel must be within the radius, and the tests see it if one is not. */
        if (found->k && distance > found->threshold)
            continue;
        append_hit(found, distance, positions ? positions[at] : first + at, db, bins);
    }
}

/* From so many queries on bit planes are used. To make them costs about as much as 4 to 6 queries by population
 * counts. */
enum { MIN_BATCH = 6 };

typedef struct { /* one scan */
    scan_state scan;
    const uint64_t *queries;
    scratch_arrays s;
    int n_planes, sliced;
} hamming_scan;

static void start_scan(hamming_scan *h, int64_t n_queries)
{
    scan_state *scan = &h->scan;
    const int64_t n_words = scan->db->n_words;
    scratch_head *head = h->s.head;
    list_active(scan, n_queries);
    h->sliced = scan->n_active >= MIN_BATCH;
    if (!h->sliced)
        return;
    for (int64_t a = 0; a < scan->n_active; a++) {
        const int64_t q = head->common.active[a];
        set_bias(head->bias[q], h->n_planes, scan->found[q].threshold);
        for (int64_t word = 0; word < n_words; word++)
            make_patterns(h->queries[q * n_words + word], h->s.patterns + (word * APH_MAX_QUERIES + q) * APH_PATTERNS);
    }
}

static void count_block(scan_state *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                        const int64_t *positions)
{
    hamming_scan *h = (hamming_scan *)scan;
    const int64_t n_words = scan->db->n_words, n_active = scan->n_active;
    scratch_head *head = h->s.head;
    int64_t n_hot = n_active;
    if (h->sliced)
        for (int vector = 0; vector < VECTORS; vector++)
            n_hot = n_words == 1 ? bitsliced_narrow(groups, vector, n_active, &h->s)
                                 : bitsliced_wide(groups, n_words, h->n_planes, vector, n_active, &h->s);
    int dropped = 0;
    for (int64_t i = 0; i < n_hot; i++) {
        const int64_t q = h->sliced ? head->hot[i] : head->common.active[i];
        const uint64_t *query = h->queries + q * n_words;
        aph_found *found = scan->found + q;
        const int64_t before = found->threshold;
        uint16_t list[APH_BLOCK + 4];
        uint64_t runs[8];
        if (h->sliced)
            order_lanes(head->masks[q], runs);
        else if (!popcount_scan(groups, n_words, query, before, runs))
            continue;
        for (int run = 0; run < 8; run++)
            runs[run] &= allowed[run];
        push_hits(list, list_bits(runs, list), groups, scan->db, first, positions, query, found, head->common.bins);
        dropped |= note_found(scan, found);
        if (h->sliced && found->threshold != before && found->threshold >= 0)
            set_bias(head->bias[q], h->n_planes, found->threshold);
    }
    if (dropped)
        drop_finished(scan);
}

static int64_t scan(const aph_codes *db, int64_t block, int64_t end, const void *queries, int64_t n_queries,
                    aph_found *found, void *scratch)
{
    hamming_scan h = {.scan = {.db = db, .found = found, .count = count_block}, .queries = queries};
    h.s = split_scratch(scratch, db->n_words);
    h.scan.memory = &h.s.head->common;
    h.scan.block = h.s.block;
    h.n_planes = aph_n_planes(db->n_words);
    start_scan(&h, n_queries);
    return walk(&h.scan, block, end);
}
