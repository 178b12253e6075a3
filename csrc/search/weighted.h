/* Queries whose distance to a code is a sum of table entries, one for each four bits of the code, and of a constant for
 * each run of blocks: bits with weights; and norms, centres, lists of a partition. Served by kernels of the same form as
 * those of kernels.h. */
#ifndef APH_WEIGHTED_H
#define APH_WEIGHTED_H

#include "search/kernels.h"

enum { APH_ENTRIES = 16 }; /* of a table: one for each value of four bits */

/* A query's state. All sums that a code can have lie in 0 .. 2^32 - 1; who makes the tables checks it. */
typedef struct {
    const uint32_t *tables;   /* [n_tables][APH_ENTRIES]: what bits 4 t .. 4 t + 3 of a code add, by their value */
    int64_t n_tables;         /* the same for all queries of a scan, at most 16 n_words: further bits add nothing */
    const int32_t *constants; /* one for each run; NULL: 0 everywhere */
    const int64_t *ends;      /* the block behind each run, ascending; the last is behind the database */
} aph_weighted;

#endif
