/* Selection of the k nearest among hits, ordered by (distance, id). Distances are integers of 32 bits. They are counted
 * in at most APH_BINS bins, which are made finer around the k-th distance, so the work does not grow with the number of
 * levels. There is no heap of distances, and where ids ascend, hits of one distance need no comparison sort. */
#ifndef APH_SELECT_H
#define APH_SELECT_H

#include "search/kernels.h"

enum { APH_BINS = 2048 }; /* counters that the functions below need; their content does not matter */

/* Keep the k best hits of `found`, and lower its threshold to what can still enter: less than the k-th distance where
 * ids ascend, at most the k-th distance where they do not. Needs count >= k >= 1. */
void aph_prune_hits(aph_found *found, const aph_codes *db, int64_t *bins);

/* Write the k best of the hits in segments[0], segments[stride], ... in order of (distance, id). Where ids ascend, the
 * segments must stand in the order of their positions. Returns the number written: the smaller of k and the number of
 * hits. */
int64_t aph_order(const aph_found *segments, int64_t n_segments, int64_t stride, int64_t k, const aph_codes *db,
                  int64_t *bins, uint32_t *distances, int64_t *ids);

/* An upper bound of the k-th smallest of n >= k >= 1 distances. It is too large by less than their range / 64. */
int64_t aph_bound_kth(const uint32_t *distances, int64_t n, int64_t k, int64_t *bins);

/* Write up to `wanted` positions that are spread evenly over the codes that take part, ascending and distinct. Returns
 * their number. */
int64_t aph_sample(const aph_codes *db, int64_t wanted, int64_t *positions);

/* The number of set bits among the first n bits. */
int64_t aph_count_bits(const uint64_t *bitmap, int64_t n);

#endif
