/* The scan: blocks in turn, thresholds that tighten, hits. Included by kernels.inc.h. */

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
