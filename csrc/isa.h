/* The instruction sets that this build has (isa.def). Which one is used is the caller's choice. */
#ifndef APH_ISA_H
#define APH_ISA_H

#include "search/kernels.h"

struct aph_learn;

typedef struct {
    const char *name;
    int runs_here; /* 1 where this CPU can run it; the first one runs everywhere */
    const aph_hamming *search;
    const struct aph_learn *learn;
    double scan_alone, scan_batch, weighted_alone, weighted_batch; /* nanoseconds for each word of a code */
} aph_isa;

/* How many there are, and number i, from the base upwards. */
int aph_isa_count(void);
const aph_isa *aph_isa_at(int i);

#endif
