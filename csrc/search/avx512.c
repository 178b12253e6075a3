/* The set AVX-512 with VPOPCNTDQ: 512-bit vectors. A full adder takes two instructions. */
#if defined(__x86_64__)
#include "target.h"

APH_TARGET("avx2,fma,bmi,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef uint64_t vec8 __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) vec8 count_bits(vec8 v) { return (vec8)_mm512_popcnt_epi64((__m512i)v); }

#define LOGIC(a, b, c, truth) ((vec)_mm512_ternarylogic_epi64((__m512i)(a), (__m512i)(b), (__m512i)(c), truth))
#define XOR3(a, b, c) LOGIC(a, b, c, 0x96)
#define MAJ(a, b, c) LOGIC(a, b, c, 0xE8)
#define LOWER(a, b) ((vec)_mm512_min_epu64((__m512i)(a), (__m512i)(b)))
#define ANY(v) (_mm512_test_epi64_mask((__m512i)(v), (__m512i)(v)) != 0)

#define LOOKUP(table, v) ((vec)_mm512_shuffle_epi8((__m512i)(table), (__m512i)(v)))
#define TABLE16(at) ((vec)_mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(at))))
#define ADD8(a, b) ((vec)_mm512_adds_epu8((__m512i)(a), (__m512i)(b)))
#define ADD16(a, b) ((vec)_mm512_adds_epu16((__m512i)(a), (__m512i)(b)))
#define MIN8(a, b) ((vec)_mm512_min_epu8((__m512i)(a), (__m512i)(b)))
#define MIN16(a, b) ((vec)_mm512_min_epu16((__m512i)(a), (__m512i)(b)))
#define MASK8(a, limit) ((uint64_t)_mm512_cmple_epu8_mask((__m512i)(a), (__m512i)(limit)))
#define MASK16(a, limit)                                                                                               \
    ((uint64_t)_mm512_movepi8_mask(_mm512_movm_epi16(_mm512_cmple_epu16_mask((__m512i)(a), (__m512i)(limit)))))
#define ZIP(half, bits, a, b) ((vec)_mm512_unpack##half##_epi##bits((__m512i)(a), (__m512i)(b)))

/* A table of 16 numbers fills one register, in which permutexvar looks up the entries of 16 codes. It uses the low four
 * bits of an index only. 64 codes are summed at a time, then 16 at a time. */
#define HAS_WEIGHTED_SUMS
static inline __attribute__((always_inline)) void sums_of_groups(const uint64_t *groups, int pairs, int64_t apart,
                                                                 int64_t n_words, const uint32_t *tables,
                                                                 int64_t n_tables, uint32_t *sums)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    __m512i sum[4], half[4];
    for (int i = 0; i < pairs; i++)
        sum[i] = _mm512_setzero_si512();
    for (int64_t t = 0; t < n_tables;) {
        for (int i = 0; i < pairs; i++) {
            const uint64_t *at = groups + (2 * i * n_words + t / 16) * 8;
            half[i] = _mm512_permutex2var_epi32(_mm512_loadu_si512(at), t & 8 ? odd : even,
                                                _mm512_loadu_si512(at + apart * 8));
        }
        for (const int64_t stop = t + 8 < n_tables ? t + 8 : n_tables; t < stop; t++) {
            const __m512i table = _mm512_loadu_si512(tables + t * 16);
            for (int i = 0; i < pairs; i++) {
                sum[i] = _mm512_add_epi32(sum[i], _mm512_permutexvar_epi32(half[i], table));
                half[i] = _mm512_srli_epi32(half[i], 4);
            }
        }
    }
    for (int i = 0; i < pairs; i++)
        _mm512_storeu_si512(sums + 16 * i, sum[i]);
}

static void weighted_sums(const uint64_t *groups, int64_t n, int64_t n_words, const uint32_t *tables, int64_t n_tables,
                          uint32_t *sums)
{
    int64_t i = 0;
    for (; i + 64 <= n; i += 64)
        sums_of_groups(groups + i * n_words, 4, n_words, n_words, tables, n_tables, sums + i);
    for (; i + 8 < n; i += 16)
        sums_of_groups(groups + i * n_words, 1, n_words, n_words, tables, n_tables, sums + i);
    if (i < n) { /* eight codes are left: both halves of the register hold them */
        uint32_t both[16];
        sums_of_groups(groups + i * n_words, 1, 0, n_words, tables, n_tables, both);
        memcpy(sums + i, both, 8 * sizeof *sums);
    }
}

#define BYTES_TO_INTS(at) ((row_ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(at))))
#define HALVES_TO_INTS(at) ((row_ints)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(at))))

#define APH_LANES 8
#define APH_SUFFIX avx512
#include "search/kernels.inc.h"
APH_TARGET_END
#else
typedef int aph_empty_translation_unit;
#endif
