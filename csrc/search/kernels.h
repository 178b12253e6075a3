/* Exact Hamming scan: the contract between the kernels and whoever calls them.
 *
 * The database is the pages of pages.h. The kernels work on blocks of 512 codes, which lie in one page. They are
 * serial, allocate nothing and keep no state; everything a thread writes is its own. */
#ifndef APH_HAMMING_H
#define APH_HAMMING_H

#include "search/pages.h"

enum {
    APH_POSITION_BITS = 32,      /* a hit is distance << 32 | position, counted from where the stretch begins */
    APH_MAX_PLANES = 18,         /* bit planes of a sum: 2^17 > 65,536, and one for what is beyond */
    APH_MARGIN = APH_BLOCK + 64, /* hits that a scan may find before it looks whether the buffer is full */
    APH_MAX_QUERIES = 256,       /* the most queries of one scan */
    APH_PATTERNS = 24            /* table offsets per word of a query: 21 triples of bits, 1 single bit, 2 unused */
};

typedef struct {    /* what one query has found so far in one stretch of the database, of at most 2^32 positions */
    uint64_t *hits; /* room for capacity + APH_MARGIN hits; in order of position where ids ascend */
    int64_t first;  /* the position from which hits are counted */
    int64_t count;
    int64_t capacity;
    int64_t k;         /* keep the k best once more than capacity were found; 0 keeps all: the scan returns instead */
    int64_t threshold; /* a hit has distance <= threshold; -1: nothing further can enter */
} aph_found;

/* Working memory of one thread for codes of n_words, in bytes; it must be aligned to 64. */
typedef int64_t aph_scratch_fn(int64_t n_words);

/* Scan the blocks [block, end) of `db` for n_queries <= APH_QUERY_BLOCK queries (their states, one behind the other).
 * found[i] belongs to query i. Returns `end`, or an earlier block when the buffer of a found with k = 0 is full
 * (count >= capacity): call again from there after giving it more room. */
typedef int64_t aph_scan_fn(const aph_codes *db, int64_t block, int64_t end, const void *queries, int64_t n_queries,
                            aph_found *found, void *scratch);

/* Distances of one query to n codes, a multiple of 8, in groups as in a page, from the given positions. */
typedef void aph_distances_fn(const uint64_t *groups, const int64_t *positions, int64_t n, int64_t n_words,
                              const void *query, uint32_t *distances);

struct aph_lookup_s;
struct aph_pairs_s;

/* Search one query in a lookup (lookup.h): the k best (found->k > 0), or all within found->threshold. Hits come in no
 * order: `db` must say that ids do not ascend. APH_LOOKUP_DEAR: more than `budget` nanoseconds would be needed, at the
 * two costs given; APH_LOOKUP_FULL: found->capacity is too small for a radius search. Either way start again. */
typedef int aph_lookup_fn(const struct aph_lookup_s *lookup, const aph_codes *db, const void *query, aph_found *found,
                          double budget, double probe_cost, double code_cost, int64_t *bins);

/* Write up to `room` pairs i < j and their distances; stop after about `work` comparisons. Returns their number; all is
 * done when pairs->group == pairs->end. */
typedef int64_t aph_pairs_fn(struct aph_pairs_s *pairs, const aph_codes *db, int64_t room, int64_t work, int64_t *i,
                             int64_t *j, int32_t *distances);

typedef struct { /* of queries with tables (weighted.h) */
    aph_scratch_fn *scratch_bytes;
    aph_scan_fn *scan;
    aph_distances_fn *distances;
} aph_weighted_kernels;

typedef struct {
    aph_scratch_fn *scratch_bytes;
    aph_scan_fn *scan;
    aph_distances_fn *distances;
    aph_lookup_fn *lookup;
    aph_pairs_fn *pairs;
    aph_weighted_kernels weighted;
} aph_hamming;

/* Queries of one kind: the kernels that know it, and how far apart the states of two queries are. */
typedef struct {
    const char *first;    /* the state of query i stands at first + i * stride: a code, row-major; or aph_weights */
    int64_t stride;       /* bytes */
    int64_t max_distance; /* distances are 0 .. max_distance, which is less than 2^32 */
    double alone, batch;  /* nanoseconds a scan costs for each word of a code, of a query alone and of one in a batch */
    int64_t sample;       /* codes whose distances a search at least looks at for its first threshold */
    aph_scratch_fn *scratch_bytes;
    aph_scan_fn *scan;
    aph_distances_fn *distances;
    aph_lookup_fn *lookup; /* NULL: this kind is not searched in tables */
} aph_queries;

static inline int aph_n_planes(int64_t n_words) /* the least p with 2^p > 64 n_words */
{
    int p = 7;
    while ((INT64_C(1) << p) <= 64 * n_words)
        p++;
    return p;
}

#endif
