/* The training kernels for AVX-512. Of 32 registers, 16 are accumulators, 2 hold columns and 1 a broadcast value. Four
 * columns would need fewer loads, but they would pad codes of 16 and 32 bits to 64. */
#include "learn/kernels.h"

#if defined(__x86_64__)
#include "target.h"

#include <immintrin.h>

#define VL 16
#define MR 8
#define NV 2
#define LEARN_TABLE aph_learn_avx512
#define V_MAX(a, b) _mm512_max_ps(a, b)
#define V_ANY(mask) (_mm512_test_epi32_mask((__m512i)(mask), (__m512i)(mask)) != 0)
#define V_SIGNS(a) ((uint64_t)_mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_GE_OQ))
APH_TARGET("avx2,fma,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl" APH_WIDE_VECTORS)
#include "learn/kernels.inc.h"
APH_TARGET_END
#endif
