#include "isa.h"

int aph_isa_supported(int isa)
{
#if defined(__x86_64__)
    switch (isa) {
    case APH_ISA_BASE:
        return 1;
    case APH_ISA_AVX2: /* Haswell (2013) and later */
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
               __builtin_cpu_supports("popcnt");
    case APH_ISA_AVX512: /* Ice Lake, Zen 4 and later: the set with a vector popcount */
        return aph_isa_supported(APH_ISA_AVX2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vpopcntdq");
    default:
        return 0;
    }
#else
    return isa == APH_ISA_BASE;
#endif
}
