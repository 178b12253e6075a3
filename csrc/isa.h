/* Which instruction set the kernels use. Detection only: the choice is made by the caller, once, at import. */
#ifndef APH_ISA_H
#define APH_ISA_H

enum aph_isa { APH_ISA_BASE = 0, APH_ISA_AVX2 = 1, APH_ISA_AVX512 = 2, APH_ISA_COUNT = 3 };

/* 1 where this CPU and this build can run `isa` (an enum aph_isa), else 0. The base set runs everywhere. */
int aph_isa_supported(int isa);

#endif
