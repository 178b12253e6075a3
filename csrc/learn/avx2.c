/* The training kernels for AVX2 and FMA. Of 16 registers, 12 are accumulators, 2 hold columns and 1 a broadcast
 * value. */
#include "learn/kernels.h"

#if defined(__x86_64__)
#include "target.h"

#include <immintrin.h>

#define VL 8
#define MR 6
#define NV 2
#define LEARN_TABLE aph_learn_avx2
#define V_MAX(a, b) _mm256_max_ps(a, b)
#define V_ANY(mask) (!_mm256_testz_si256((__m256i)(mask), (__m256i)(mask)))
#define V_SIGNS(a) ((uint64_t)(unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_GE_OQ)))
APH_TARGET("avx2,fma,bmi2,popcnt")
#include "learn/kernels.inc.h"
APH_TARGET_END
#endif
