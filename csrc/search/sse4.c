/* The set x86-64-v2: 128-bit vectors with SSE4 and the popcount instruction. Virtual machines often offer no more. */
#if defined(__x86_64__)
#include "target.h"

APH_TARGET("ssse3,sse4.1,sse4.2,popcnt")
#include <immintrin.h>
#include <stdint.h>

typedef uint64_t vec2 __attribute__((vector_size(16)));

static inline __attribute__((always_inline)) vec2 count_bits(vec2 v)
{
    return (vec2){(uint64_t)__builtin_popcountll(v[0]), (uint64_t)__builtin_popcountll(v[1])};
}

#define ANY(v) (!_mm_testz_si128((__m128i)(v), (__m128i)(v)))

#define LOOKUP(table, v) ((vec)_mm_shuffle_epi8((__m128i)(table), (__m128i)(v)))
#define TABLE16(at) (*(const vec *)(const void *)(at))
#define ADD8(a, b) ((vec)_mm_adds_epu8((__m128i)(a), (__m128i)(b)))
#define ADD16(a, b) ((vec)_mm_adds_epu16((__m128i)(a), (__m128i)(b)))
#define MIN8(a, b) ((vec)_mm_min_epu8((__m128i)(a), (__m128i)(b)))
#define MIN16(a, b) ((vec)_mm_min_epu16((__m128i)(a), (__m128i)(b)))
#define MASK8(a, limit) ((uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8((__m128i)MIN8(a, limit), (__m128i)(a))))
#define MASK16(a, limit) ((uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi16((__m128i)MIN16(a, limit), (__m128i)(a))))
#define ZIP(half, bits, a, b) ((vec)_mm_unpack##half##_epi##bits((__m128i)(a), (__m128i)(b)))

#define APH_LANES 2
#define APH_SUFFIX sse4
#include "search/kernels.inc.h"
APH_TARGET_END
#else
typedef int aph_empty_translation_unit;
#endif
