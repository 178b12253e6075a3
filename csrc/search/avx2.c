/* The set AVX2: 256-bit vectors. Bits are counted by nibbles, as in Mula, Kurz, Lemire (2018). */
#if defined(__x86_64__)
#include "target.h"

APH_TARGET("avx2,fma,bmi,bmi2,lzcnt,popcnt")
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef uint64_t vec4 __attribute__((vector_size(32)));

static inline __attribute__((always_inline)) vec4 count_bits(vec4 v)
{
    const __m256i nibbles = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1,
                                             2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i counts =
        _mm256_add_epi8(_mm256_shuffle_epi8(nibbles, _mm256_and_si256((__m256i)v, low)),
                        _mm256_shuffle_epi8(nibbles, _mm256_and_si256(_mm256_srli_epi16((__m256i)v, 4), low)));
    return (vec4)_mm256_sad_epu8(counts, _mm256_setzero_si256());
}

static inline __attribute__((always_inline)) __m128i load_4_bytes(const void *at) /* _mm_loadu_si32 needs GCC 11 */
{
    int32_t x;
    memcpy(&x, at, sizeof x);
    return _mm_cvtsi32_si128(x);
}

#define LOWER(a, b) ((vec)_mm256_min_epu32((__m256i)(a), (__m256i)(b))) /* distances fill 17 bits of a lane */
#define ANY(v) (!_mm256_testz_si256((__m256i)(v), (__m256i)(v)))

#define LOOKUP(table, v) ((vec)_mm256_shuffle_epi8((__m256i)(table), (__m256i)(v)))
#define TABLE16(at) ((vec)_mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(at))))
#define ADD8(a, b) ((vec)_mm256_adds_epu8((__m256i)(a), (__m256i)(b)))
#define ADD16(a, b) ((vec)_mm256_adds_epu16((__m256i)(a), (__m256i)(b)))
#define MIN8(a, b) ((vec)_mm256_min_epu8((__m256i)(a), (__m256i)(b)))
#define MIN16(a, b) ((vec)_mm256_min_epu16((__m256i)(a), (__m256i)(b)))
#define MASK8(a, limit) ((uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8((__m256i)MIN8(a, limit), (__m256i)(a))))
#define MASK16(a, limit) ((uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi16((__m256i)MIN16(a, limit), (__m256i)(a))))
#define ZIP(half, bits, a, b) ((vec)_mm256_unpack##half##_epi##bits((__m256i)(a), (__m256i)(b)))

/* A table of 16 numbers fills two registers, between which bit 3 of the index chooses. Eight codes are summed at a
 * time. */
#define HAS_WEIGHTED_SUMS
static void weighted_sums(const uint64_t *groups, int64_t n, int64_t n_words, const uint32_t *tables, int64_t n_tables,
                          uint32_t *sums)
{
    for (int64_t i = 0; i < n; i += 8) {
        __m256i sum = _mm256_setzero_si256();
        for (int64_t t = 0; t < n_tables;) {
            const float *at = (const float *)(const void *)(groups + (i / 8 * n_words + t / 16) * 8);
            const __m256 first = _mm256_loadu_ps(at), second = _mm256_loadu_ps(at + 8);
            __m256i half = _mm256_permute4x64_epi64(_mm256_castps_si256(t & 8 ? _mm256_shuffle_ps(first, second, 0xDD)
                                                                              : _mm256_shuffle_ps(first, second, 0x88)),
                                                    0xD8);
            for (const int64_t stop = t + 8 < n_tables ? t + 8 : n_tables; t < stop; t++) {
                const __m256i *table = (const __m256i *)(tables + t * 16);
                const __m256i low = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(table), half);
                const __m256i high = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(table + 1), half);
                const __m256 chosen = _mm256_castsi256_ps(_mm256_slli_epi32(half, 28));
                sum = _mm256_add_epi32(sum, _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(low),
                                                                                 _mm256_castsi256_ps(high), chosen)));
                half = _mm256_srli_epi32(half, 4);
            }
        }
        _mm256_storeu_si256((__m256i *)(sums + i), sum);
    }
}

#define ROW_WIDTH 4 /* of sums of eight, which fill two registers, GCC stores both at every step */
#define BYTES_TO_INTS(at) ((row_ints)_mm_cvtepi8_epi32(load_4_bytes(at)))
#define HALVES_TO_INTS(at) ((row_ints)_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(at))))

#define APH_LANES 4
#define APH_SUFFIX avx2
#include "search/kernels.inc.h"
APH_TARGET_END
#else
typedef int aph_empty_translation_unit;
#endif
