/* The set for any CPU: 128-bit vectors in portable C, which are SSE2 on x86-64 and NEON on aarch64. */
#include <stdint.h>

#if defined(__aarch64__)
#include <arm_neon.h>
#define COUNT_BYTES(v) vcntq_u8((uint8x16_t)(v))
#define SUM_BYTES(v) ((vec)vpaddlq_u32(vpaddlq_u16(vpaddlq_u8((uint8x16_t)(v)))))
#define count_bits(v) SUM_BYTES(COUNT_BYTES(v))
#else
static inline __attribute__((always_inline)) uint64_t __attribute__((vector_size(16)))
count_bits(uint64_t __attribute__((vector_size(16))) v)
{
    v -= (v >> 1) & UINT64_C(0x5555555555555555);
    v = (v & UINT64_C(0x3333333333333333)) + ((v >> 2) & UINT64_C(0x3333333333333333));
    v = (v + (v >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F);
    v += v >> 8;
    v += v >> 16;
    v += v >> 32;
    return v & 0x7F;
}
#endif

#if defined(__aarch64__)
#define LOOKUP(table, v) ((vec)vqtbl1q_u8((uint8x16_t)(table), (uint8x16_t)(v)))
#define TABLE16(at) ((vec)vld1q_u8(at))
#define ADD8(a, b) ((vec)vqaddq_u8((uint8x16_t)(a), (uint8x16_t)(b)))
#define ADD16(a, b) ((vec)vqaddq_u16((uint16x8_t)(a), (uint16x8_t)(b)))
#define MIN8(a, b) ((vec)vminq_u8((uint8x16_t)(a), (uint8x16_t)(b)))
#define MIN16(a, b) ((vec)vminq_u16((uint16x8_t)(a), (uint16x8_t)(b)))
static inline __attribute__((always_inline)) uint64_t bits_of_bytes(uint8x16_t v) /* the top bit of each byte */
{
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t bits = vandq_u8(v, vld1q_u8(places));
    return (uint64_t)vaddv_u8(vget_low_u8(bits)) | (uint64_t)vaddv_u8(vget_high_u8(bits)) << 8;
}
#define MASK8(a, limit) bits_of_bytes(vcleq_u8((uint8x16_t)(a), (uint8x16_t)(limit)))
#define MASK16(a, limit) bits_of_bytes((uint8x16_t)vcleq_u16((uint16x8_t)(a), (uint16x8_t)(limit)))
#endif

#define APH_LANES 2
#define APH_SUFFIX base
#include "search/kernels.inc.h"
