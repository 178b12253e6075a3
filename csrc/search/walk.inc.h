/* The walk over the blocks of a database and over its filter, which all scans share. Included by kernels.inc.h. */

typedef struct {                      /* the working memory that every scan has */
    int64_t bins[APH_BINS];           /* for the selection */
    int32_t active[APH_MAX_QUERIES];  /* the queries that can still find something */
    int64_t positions[APH_BLOCK];     /* of the codes that wait to be gathered */
    const uint64_t *codes[APH_BLOCK]; /* where these codes are */
} scan_memory;

typedef struct scan_state_s { /* one scan; the struct of each kind of query begins with this */
    const aph_codes *db;
    aph_found *found;
    scan_memory *memory;
    uint64_t *block; /* room for the codes of a block */
    int64_t n_active;
    int full; /* whether a buffer that keeps all hits is full */
    /* Scan one block, whose codes in `allowed` take part. `positions` is NULL, or holds those of a gathered block. */
    void (*count)(struct scan_state_s *scan, const uint64_t *groups, const uint64_t *allowed, int64_t first,
                  const int64_t *positions);
    /* This is called before the first block, and again before the block `run_end`, which it sets. NULL where all blocks
     * are alike. */
    void (*enter)(struct scan_state_s *scan, int64_t block);
    int64_t run_end;
} scan_state;

/* Note whether the buffer of a query is full. Returns whether the query can find nothing more, and is to be dropped. */
INLINE int note_found(scan_state *scan, const aph_found *found)
{
    scan->full |= found->k == 0 && found->count >= found->capacity;
    return found->threshold < 0;
}

/* List the queries that can find something. */
static void list_active(scan_state *scan, int64_t n_queries)
{
    scan->n_active = 0;
    scan->full = 0;
    for (int64_t q = 0; q < n_queries; q++)
        if (!note_found(scan, scan->found + q))
            scan->memory->active[scan->n_active++] = (int32_t)q;
}

static void drop_finished(scan_state *scan)
{
    const int64_t n_active = scan->n_active;
    int32_t *active = scan->memory->active;
    scan->n_active = 0;
    for (int64_t a = 0; a < n_active; a++)
        if (scan->found[active[a]].threshold >= 0)
            active[scan->n_active++] = active[a];
}

/* Set the first n of the 512 bits in allowed[8]. */
INLINE void allow_first(uint64_t *allowed, int64_t n)
{
    for (int64_t run = 0; run < 8; run++)
        allowed[run] = n >= 64 * (run + 1) ? ~UINT64_C(0) : n <= 64 * run ? 0 : ~UINT64_C(0) >> (64 * (run + 1) - n);
}

static void scan_waiting(scan_state *scan, int64_t n)
{
    uint64_t allowed[8];
    const int64_t *positions = scan->memory->positions;
    allow_first(allowed, n);
    const int64_t n_words = scan->db->n_words;
    for (int64_t i = 0; i < n; i++)
        aph_copy_code(scan->block + aph_offset_of(n_words, i), scan->memory->codes[i], n_words);
    scan->count(scan, scan->block, allowed, 0, positions);
}

static int64_t scan_gathered(scan_state *scan, int64_t block, int64_t end)
{
    const aph_codes *db = scan->db;
    scan_memory *memory = scan->memory;
    int64_t n = 0; /* codes that wait, and are fetched meanwhile */
    for (; block < end && scan->n_active && !scan->full; block++) {
        const int64_t first = block * APH_BLOCK;
        const int64_t here = db->n - first < APH_BLOCK ? db->n - first : APH_BLOCK;
        const uint64_t *filter = db->filter + block * 8, *groups = aph_code_of(db, first);
        const int entered = scan->enter && block >= scan->run_end;
        if (n && (entered || n + aph_count_bits(filter, here) > APH_BLOCK)) {
            scan_waiting(scan, n);
            n = 0;
            if (scan->full || !scan->n_active)
                break;
        }
        if (entered)
            scan->enter(scan, block);
        for (int64_t word = 0; word * 64 < here; word++) {
            uint64_t left = filter[word];
            if (here - word * 64 < 64)
                left &= ~UINT64_C(0) >> (64 - (here - word * 64));
            for (; left; left &= left - 1) {
                const int64_t at = word * 64 + __builtin_ctzll(left);
                const uint64_t *code = groups + aph_offset_of(db->n_words, at);
                __builtin_prefetch(code);
                memory->codes[n] = code;
                memory->positions[n++] = first + at;
            }
        }
    }
    if (n && scan->n_active)
        scan_waiting(scan, n);
    return scan->n_active ? block : end;
}

static int64_t scan_all(scan_state *scan, int64_t block, int64_t end)
{
    const aph_codes *db = scan->db;
    uint64_t allowed[8];
    for (; block < end && scan->n_active; block++) {
        if (scan->full)
            return block;
        if (scan->enter && block >= scan->run_end)
            scan->enter(scan, block);
        const int64_t first = block * APH_BLOCK;
        const int64_t here = db->n - first < APH_BLOCK ? db->n - first : APH_BLOCK;
        const uint64_t *groups = aph_code_of(db, first);
        if (here < APH_BLOCK) { /* the database ends in this block, and nothing behind its end may be read */
            memcpy(scan->block, groups, (size_t)((here + 7) / 8 * APH_GROUP * db->n_words) * sizeof *groups);
            groups = scan->block;
        }
        allow_first(allowed, here);
        if (db->filter) {
            uint64_t any = 0;
            for (int64_t run = 0; run * 64 < here; run++)
                any |= allowed[run] &= db->filter[block * 8 + run];
            if (!any)
                continue;
        }
        scan->count(scan, groups, allowed, first, NULL);
    }
    return end;
}

/* Scan the blocks [block, end): see aph_scan_fn. */
static int64_t walk(scan_state *scan, int64_t block, int64_t end)
{
    if (scan->full)
        return block;
    scan->run_end = block;
    return scan->db->filter && scan->db->compact ? scan_gathered(scan, block, end) : scan_all(scan, block, end);
}
