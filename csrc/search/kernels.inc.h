/* The one body of the search kernels, compiled once per instruction set. The including file defines
 *     APH_LANES      64-bit lanes of a vector: 2, 4 or 8
 *     APH_SUFFIX     base, sse4, avx2, avx512
 *     count_bits(v)  vec -> vec, set bits of each 64-bit lane
 * and may define MAJ(a, b, c), XOR3(a, b, c), LOWER(a, b) and ANY(v) where one instruction does them, COUNT_BYTES and
 * SUM_BYTES for popcount.inc.h, and what weighted.inc.h names. */
#include "search/kernels.h"
#include "search/select.h"

#include <math.h>
#include <string.h>

#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)

typedef uint64_t vec __attribute__((vector_size(8 * APH_LANES), may_alias));
typedef uint64_t vec_u __attribute__((vector_size(8 * APH_LANES), may_alias, aligned(8)));

#define VECTORS (APH_GROUP / APH_LANES) /* vectors that hold one word of the 8 codes of a group */
#define INLINE static inline __attribute__((always_inline))

#ifndef ANY
INLINE int any_bit(vec v)
{
    uint64_t all = v[0];
    for (int lane = 1; lane < APH_LANES; lane++)
        all |= v[lane];
    return all != 0;
}
#define ANY(v) any_bit(v)
#endif
#ifndef XOR3
/* `a` may be ready last: only the last operation waits for it. */
#define XOR3(a, b, c) ((a) ^ ((b) ^ (c)))
#define MAJ(a, b, c) (((b) & (c)) | (((b) ^ (c)) & (a)))
#endif

#include "search/bits.inc.h"
#include "search/walk.inc.h"
#include "search/popcount.inc.h"
#include "search/bitsliced.inc.h"
#include "search/scan.inc.h"
#include "search/lookup.inc.h"
#include "search/pairs.inc.h"
#include "search/weighted.inc.h"
#include "search/rows.inc.h"

const aph_hamming PASTE(aph_hamming_, APH_SUFFIX) = {
    scratch_bytes, scan,       distances,
    lookup_query,  pairs_step, {weighted_scratch_bytes, weighted_scan_blocks, weighted_distances},
    row_distances,
};
