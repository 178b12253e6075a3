/* Any CPU: 128-bit vectors in portable C (SSE2 on x86-64, NEON on aarch64). */
#include <stdint.h>

#if defined(__aarch64__)
#include <arm_neon.h>
static inline __attribute__((always_inline)) uint64_t __attribute__((vector_size(16)))
count_bits(uint64_t __attribute__((vector_size(16))) v)
{
    return (uint64_t __attribute__((vector_size(16))))vpaddlq_u32(
        vpaddlq_u16(vpaddlq_u8(vcntq_u8(vreinterpretq_u8_u64((uint64x2_t)v)))));
}
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

#define APH_LANES 2
#define APH_SUFFIX base
#include "search/kernels.inc.h"
