/* AVX2: 256-bit vectors; bits are counted by nibbles, as in Mula, Kurz, Lemire (2018). */
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,bmi,bmi2,lzcnt,popcnt")
#include <immintrin.h>
#include <stdint.h>

typedef uint64_t vec4 __attribute__((vector_size(32)));

static inline __attribute__((always_inline)) vec4 count_bits(vec4 v)
{
    const __m256i nibbles = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                             0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i counts = _mm256_add_epi8(
        _mm256_shuffle_epi8(nibbles, _mm256_and_si256((__m256i)v, low)),
        _mm256_shuffle_epi8(nibbles, _mm256_and_si256(_mm256_srli_epi16((__m256i)v, 4), low)));
    return (vec4)_mm256_sad_epu8(counts, _mm256_setzero_si256());
}

#define LOWER(a, b) ((vec)_mm256_min_epu32((__m256i)(a), (__m256i)(b))) /* distances fill 17 bits of a lane */
#define ANY(v) (!_mm256_testz_si256((__m256i)(v), (__m256i)(v)))
#define APH_LANES 4
#define APH_SUFFIX avx2
#include "search/kernels.inc.h"
#else
typedef int aph_empty_translation_unit;
#endif
