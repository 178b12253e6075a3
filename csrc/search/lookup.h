/* Multi-index hashing: an exact search that does not look at every code (Norouzi, Punjani, Fleet, "Fast exact search in
 * Hamming space with multi-index hashing", 2014), and all pairs within a radius by the same pigeonhole.
 *
 * A code is cut into s substrings of consecutive bits. Each substring has a table from its value to the positions of
 * the codes that have this value. Step (r, j) probes the values at distance exactly r in substring j. After it, all
 * codes have been found whose distance is at most s r + j. A code that was missed differs by more than r bits in each
 * of the substrings 0 .. j and by at least r bits in each of the others, so by at least (j + 1)(r + 1) + (s - 1 - j) r
 * = s r + j + 1 bits. */
#ifndef APH_LOOKUP_H
#define APH_LOOKUP_H

#include "search/kernels.h"

enum { APH_SUBSTRING_BITS = 28 }; /* the largest number of bits in a substring of a lookup */

typedef struct aph_lookup_s {
    int64_t n_substrings;
    const int32_t *starts;     /* n_substrings + 1 bit numbers: substring j = bits starts[j] .. starts[j + 1] - 1 */
    const int64_t *tables;     /* n_substrings: where the table of substring j begins in `offsets` */
    const uint32_t *offsets;   /* of substring j: 2^bits + 1 offsets into its positions */
    const uint32_t *positions; /* n_substrings x n_indexed */
    int64_t n_indexed;         /* positions [0, n_indexed) stand in the tables; later ones are looked at one by one */
    const int64_t *stale;      /* positions < n_indexed whose code is not the one in the tables; their pages say so, */
    int64_t n_stale;           /* too. Each is listed once, also if the database has become shorter since */
} aph_lookup;

/* Count the values of a substring at the positions [first, end), in counts[value + 1]; or write each position to the
 * place that offsets[value] says, and advance it. */
void aph_substring_count(const aph_codes *db, int64_t first, int64_t end, int32_t start, int32_t bits,
                         uint32_t *counts);
void aph_substring_place(const aph_codes *db, int64_t first, int64_t end, int32_t start, int32_t bits,
                         uint32_t *offsets, uint32_t *positions);

enum { APH_LOOKUP_DONE = 0, APH_LOOKUP_GIVEN_UP = 1, APH_LOOKUP_FULL = 2 }; /* what aph_lookup_fn returns */

/* The state of the search for all pairs within a radius. A bucket holds the positions whose substrings have the same
 * hash, so equal substrings stand together. */
typedef struct aph_pairs_s {
    const uint32_t *order;
    const uint32_t *bounds; /* bucket g is order[bounds[g]] .. order[bounds[g + 1] - 1] */
    int64_t bucket, end;    /* the buckets that are left are [bucket, end) */
    int64_t a, b;           /* the next two places in the bucket to be compared */
    const int32_t *starts;  /* of all substrings; a pair is reported for the first substring in which it agrees */
    int64_t substring;
    int32_t radius;
} aph_pairs;

/* The same for the hash of the substring [start, stop), at those of the positions [first, end) that take part. Where
 * the substring has at most `bits` bits, its hash is its value. */
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
