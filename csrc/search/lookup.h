/* Multi-index hashing: exact search without looking at every code (Norouzi, Punjani, Fleet, "Fast exact search in
 * Hamming space with multi-index hashing", 2014), and all pairs within a radius by the same pigeonhole.
 *
 * A code is cut into substrings of consecutive bits; each substring has a table from its value to the positions that hold it.
 * Step (r, j) probes the values at distance exactly r in substring j. After it, all codes are found whose distance is at
 * most s r + j (s substrings): one that is missed differs by more than r in substrings 0 .. j and by at least r in the others,
 * so by at least (j + 1)(r + 1) + (s - 1 - j) r = s r + j + 1. */
#ifndef APH_LOOKUP_H
#define APH_LOOKUP_H

#include "search/kernels.h"

enum { APH_SUBSTRING_BITS = 28 }; /* the most bits of a substring of a lookup */

typedef struct aph_lookup_s {
    int64_t n_substrings;
    const int32_t *starts;     /* n_substrings + 1 bit numbers: substring j = bits starts[j] .. starts[j + 1] - 1 */
    const int64_t *tables;     /* n_substrings: where the table of substring j begins in `offsets` */
    const uint32_t *offsets;   /* of substring j: 2^bits + 1 offsets into its positions */
    const uint32_t *positions; /* n_substrings x n_indexed */
    int64_t n_indexed;         /* positions [0, n_indexed) stand in the tables; later ones are looked at one by one */
    const int64_t *stale;      /* positions < n_indexed whose pages say so: their code is not the one in the tables. */
    int64_t n_stale;           /* Each once; also those that the database no longer reaches */
} aph_lookup;

/* Count (into counts[value + 1]) or place (advancing offsets[value]) the substring's values of positions [first, end). */
void aph_substring_count(const aph_codes *db, int64_t first, int64_t end, int32_t start, int32_t bits,
                         uint32_t *counts);
void aph_substring_place(const aph_codes *db, int64_t first, int64_t end, int32_t start, int32_t bits,
                         uint32_t *offsets, uint32_t *positions);

enum { APH_LOOKUP_DONE = 0, APH_LOOKUP_GIVEN_UP = 1, APH_LOOKUP_FULL = 2 }; /* what aph_lookup_fn returns */

/* All pairs within a radius. `order`: positions grouped by the hash of one substring, so that equal substrings stand together. */
typedef struct aph_pairs_s {
    const uint32_t *order;
    const uint32_t *bounds; /* group g = order[bounds[g]] .. order[bounds[g + 1] - 1] */
    int64_t bucket, end;    /* groups that are left */
    int64_t a, b;           /* places inside the group */
    const int32_t *starts;  /* of all substrings: a pair is reported for the first substring in which it agrees */
    int64_t substring;
    int32_t radius;
} aph_pairs;

/* Count (into counts[hash + 1]) or place (advancing offsets[hash]) the positions [first, end) that take part, by the hash
 * of the substring [start, stop): its value where it has no more than `bits` bits. */
void aph_hash_count(const aph_codes *db, int64_t first, int64_t end, int32_t start, int32_t stop, int32_t bits,
                    uint32_t *counts);
void aph_hash_place(const aph_codes *db, int64_t first, int64_t end, int32_t start, int32_t stop, int32_t bits,
                    uint32_t *offsets, uint32_t *order);

/* The bits start .. start + bits - 1 of the code whose first word is `code`. */
static inline uint64_t aph_substring_value(const uint64_t *code, int32_t start, int32_t bits)
{
    const int64_t word = start / 64;
    const int shift = start % 64;
    uint64_t value = code[word * APH_GROUP] >> shift;
    if (shift + bits > 64)
        value |= code[(word + 1) * APH_GROUP] << (64 - shift);
    return value & ((UINT64_C(1) << bits) - 1);
}

#endif
