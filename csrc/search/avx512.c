/* AVX-512 with VPOPCNTDQ: 512-bit vectors; a full adder is two instructions. */
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,bmi,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")
#include <immintrin.h>
#include <stdint.h>

typedef uint64_t vec8 __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) vec8 count_bits(vec8 v)
{
    return (vec8)_mm512_popcnt_epi64((__m512i)v);
}

#define LOGIC(a, b, c, truth) ((vec)_mm512_ternarylogic_epi64((__m512i)(a), (__m512i)(b), (__m512i)(c), truth))
#define XOR3(a, b, c) LOGIC(a, b, c, 0x96)
#define MAJ(a, b, c) LOGIC(a, b, c, 0xE8)
#define LOWER(a, b) ((vec)_mm512_min_epu64((__m512i)(a), (__m512i)(b)))
#define ANY(v) (_mm512_test_epi64_mask((__m512i)(v), (__m512i)(v)) != 0)
#define APH_LANES 8
#define APH_SUFFIX avx512
#include "search/kernels.inc.h"
#else
typedef int aph_empty_translation_unit;
#endif
