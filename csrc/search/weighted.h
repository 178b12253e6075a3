/* Queries whose distance to a code is a sum: of a table entry for each four bits of the code, and of a constant for the
 * run of blocks in which the code lies. Bits with weights are such queries. Norms, centres and the lists of a partition
 * can be expressed like this, too. Their kernels have the form of those in kernels.h. */
#ifndef APH_WEIGHTED_H
#define APH_WEIGHTED_H

#include "search/kernels.h"

enum { APH_ENTRIES = 16 }; /* a table has one entry for each value of four bits */

/* The state of a query. Whoever makes the tables checks that all sums that a code can have lie in 0 .. 2^32 - 1. */
typedef struct {
    const uint32_t *tables;   /* [n_tables][APH_ENTRIES]: what the bits 4 t .. 4 t + 3 of a code add, by their value */
    int64_t n_tables;         /* the same for all queries of a scan, at most 16 n_words; further bits add nothing */
    const int32_t *constants; /* one for each run of blocks; NULL where all are 0 */
    const int64_t *ends; /* the number of the block behind each run, ascending; the last lies behind the database */
} aph_weighted;

#endif
