/* The contract between the search kernels and whoever calls them.
 *
 * The database is the pages of pages.h. The kernels work on blocks of 512 codes; a block lies in one page. The kernels
 * are serial, allocate nothing and keep no state. Whatever a thread writes is its own. A segment is the range of
 * positions that one job scans. */
#ifndef APH_HAMMING_H
#define APH_HAMMING_H

#include "search/pages.h"

enum {
    APH_POSITION_BITS = 32,      /* a hit is distance << 32 | position, counted from the beginning of the segment */
    APH_MAX_PLANES = 18,         /* bit planes of a sum: 2^17 > 65,536, and one plane that says "beyond" */
    APH_MARGIN = APH_BLOCK + 64, /* hits that a scan may add before it checks whether the buffer is full */
    APH_MAX_QUERIES = 256,       /* the largest number of queries in one scan */
    APH_PATTERNS = 24            /* table offsets per word of a query: 21 triples of bits, 1 single bit, 2 unused */
};

typedef struct {    /* what one query has found so far in one segment, which has at most 2^32 positions */
    uint64_t *hits; /* there is room for capacity + APH_MARGIN; they are in order of position where ids ascend */
    int64_t first;  /* the position from which hits are counted */
    int64_t count;
    int64_t capacity;
    int64_t k;         /* the k best are kept when the buffer is full; 0: all are kept, and the scan returns instead */
    int64_t threshold; /* a hit has distance <= threshold; -1: nothing more can be found */
} aph_found;

/* The bytes of working memory that one thread needs for codes of n_words. The memory must be aligned to 64. */
typedef int64_t aph_scratch_fn(int64_t n_words);

/* Scan the blocks [block, end) of `db` for n_queries <= APH_MAX_QUERIES queries, whose states stand one behind the
 * other. found[i] belongs to query i. Returns `end`. When the buffer of a query with k = 0 is full (count >= capacity),
 * it returns an earlier block: give the buffer more room, and call again from that block. */
typedef int64_t aph_scan_fn(const aph_codes *db, int64_t block, int64_t end, const void *queries, int64_t n_queries,
                            aph_found *found, void *scratch);

/* Distances of one query to n codes, which were gathered from the given positions. n is a multiple of 8, and the codes
 * stand in groups as in a page. */
typedef void aph_distances_fn(const uint64_t *groups, const int64_t *positions, int64_t n, int64_t n_words,
                              const void *query, uint32_t *distances);

struct aph_lookup_s;
struct aph_pairs_s;

/* Search one query in a lookup (lookup.h), for the k best (found->k > 0) or for all within found->threshold. Hits come
 * in no order, so `db` must say that ids do not ascend. Returns APH_LOOKUP_DONE; or APH_LOOKUP_GIVEN_UP where more than
 * `budget` nanoseconds would be needed, by the two costs given; or APH_LOOKUP_FULL where found->capacity is too small
 * for a radius search. In the last two cases the hits are not complete, and the search has to start again. */
typedef int aph_lookup_fn(const struct aph_lookup_s *lookup, const aph_codes *db, const void *query, aph_found *found,
                          double budget, double probe_cost, double code_cost, int64_t *bins);

/* Write up to `room` pairs i < j and their distances, and stop after about `work` comparisons. Returns the number of
 * pairs. All pairs have been found when pairs->bucket == pairs->end. */
typedef int64_t aph_pairs_fn(struct aph_pairs_s *pairs, const aph_codes *db, int64_t room, int64_t work, int64_t *i,
                             int64_t *j, int32_t *distances);

typedef struct { /* the kernels for queries with tables (weighted.h) */
    aph_scratch_fn *scratch_bytes;
    aph_scan_fn *scan;
    aph_distances_fn *distances;
} aph_weighted_kernels;

enum aph_row_kind { APH_ROW_FLOAT32, APH_ROW_FLOAT16, APH_ROW_INT8 };
enum aph_row_metric { APH_ROW_L2, APH_ROW_IP, APH_ROW_COSINE };

/* Distances (float64) of a query to n rows of d numbers, which stand at the addresses. `scales`: of int8, what a row's
 * numbers are to be multiplied by; else NULL. The query has d numbers and zeros up to the next multiple of 8. For cosine
 * it has length 1: its numbers times one over its length in float64, rounded to float32. L2 is the Euclidean distance,
 * IP minus the inner product, cosine |u - v|^2 / 2 of vectors of length 1, at most 2, and 1 where one of them is 0. */
typedef void aph_rows_fn(const uint64_t *addresses, const float *scales, int64_t n, int64_t d, const float *query,
                         enum aph_row_kind kind, enum aph_row_metric metric, double *distances);

typedef struct {
    aph_scratch_fn *scratch_bytes;
    aph_scan_fn *scan;
    aph_distances_fn *distances;
    aph_lookup_fn *lookup;
    aph_pairs_fn *pairs;
    aph_weighted_kernels weighted;
    aph_rows_fn *rows;
} aph_hamming;

/* The queries of one kind: their states, and the kernels that know the kind. */
typedef struct {
    const char *first;    /* the state of query i stands at first + i * stride: its words, or an aph_weighted */
    int64_t stride;       /* bytes */
    int64_t max_distance; /* distances lie in 0 .. max_distance, which is less than 2^32 */
    double alone, batch;  /* nanoseconds of a scan for each word of a code: of a query alone, of one in a batch */
    int64_t sample;       /* the smallest number of codes from whose distances a search takes its first threshold */
    aph_scratch_fn *scratch_bytes;
    aph_scan_fn *scan;
    aph_distances_fn *distances;
    aph_lookup_fn *lookup; /* NULL where this kind is not searched in tables */
} aph_queries;

static inline int aph_n_planes(int64_t n_words) /* the smallest p with 2^p > 64 n_words */
{
    int p = 7;
    while ((INT64_C(1) << p) <= 64 * n_words)
        p++;
    return p;
}

#endif
