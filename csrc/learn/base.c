/* The training kernels for every CPU: 128-bit vectors, which are SSE2 on x86-64 and NEON on aarch64. */
#include "learn/kernels.h"

#define VL 4
#if defined(__aarch64__) /* 32 vector registers */
#define MR 8
#else
#define MR 4
#endif
#define NV 2
#define LEARN_TABLE aph_learn_base
#include "learn/kernels.inc.h"
