/* Selection of the k nearest among hits, ordered by (distance, id). Distances are integers of 32 bits; their number of
 * levels costs nothing: they are counted in at most APH_BINS bins, which are made finer around the k-th. No heap on the
 * way, and where ids ascend no comparison sort of what has one distance. */
#ifndef APH_SELECT_H
#define APH_SELECT_H

#include "search/kernels.h"

enum { APH_BINS = 2048 }; /* counters that the functions below need, any content */

/* Keep the k best hits of `found` and lower its threshold to what can still enter: below the k-th distance where ids
 * ascend, up to it where they do not. Needs count >= k >= 1. */
void aph_prune_hits(aph_found *found, const aph_codes *db, int64_t *bins);

/* Write the k best of the hits in parts[0], parts[stride], ... in order of (distance, id). Where ids ascend the parts
 * must cover ascending stretches of positions. Returns the number written: the lesser of k and the hits' number. */
int64_t aph_order(const aph_found *segments, int64_t n_segments, int64_t stride, int64_t k, const aph_codes *db,
                  int64_t *bins, uint32_t *distances, int64_t *ids);

/* The k-th smallest of n >= k >= 1 distances, or somewhat more: by less than their range / 64. */
int64_t aph_bound_kth(const uint32_t *distances, int64_t n, int64_t k, int64_t *bins);

/* Up to `wanted` positions spread evenly over the candidates of `db`, ascending and distinct; returns their number. */
int64_t aph_sample(const aph_codes *db, int64_t wanted, int64_t *positions);

/* Number of set bits among the first n bits. */
int64_t aph_count_bits(const uint64_t *bitmap, int64_t n);

#endif
