/* The instruction sets that this build has (isa.def). The caller chooses which one is used. */
#ifndef APH_ISA_H
#define APH_ISA_H

#include "search/kernels.h"

struct aph_learn;

typedef struct {
    const char *name;
    int runs_here; /* 1 where this CPU can run the set; the first set runs everywhere */
    const aph_hamming *search;
    const struct aph_learn *learn;
    double scan_alone, scan_batch, weighted_alone, weighted_batch; /* nanoseconds for each word of a code */
} aph_isa;

/* The number of instruction sets, and set number i. Set 0 is the base, and each later one needs a newer CPU. */
int aph_isa_count(void);
const aph_isa *aph_isa_at(int i);

#endif
