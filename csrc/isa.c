#include "isa.h"

#include <stddef.h>

/* The kernels by the names that their files give them. */
#define APH_ISA(name, runs, search, learn, alone, batch, walone, wbatch) extern const aph_hamming aph_hamming_##name;
#include "isa.def"
#undef APH_ISA
#define APH_ISA(name, runs, search, learn, alone, batch, walone, wbatch) extern const struct aph_learn aph_learn_##name;
#include "isa.def"
#undef APH_ISA

#define APH_ISA(name, runs, search, learn, alone, batch, walone, wbatch)                                               \
    {#name, 0, search, learn, alone, batch, walone, wbatch},
static aph_isa table[] = {
#include "isa.def"
};
#undef APH_ISA

#define HAS(feature) (__builtin_cpu_supports(feature) != 0)

/* This runs once, when the library is loaded. From then on the table is only read. */
__attribute__((constructor)) static void complete(void)
{
    int i = 0;
#define APH_ISA(name, runs, search, learn, alone, batch, walone, wbatch) table[i++].runs_here = (runs);
#include "isa.def"
#undef APH_ISA
    for (i = 1; i < aph_isa_count(); i++) {
        if (!table[i].search)
            table[i].search = table[i - 1].search;
        if (!table[i].learn)
            table[i].learn = table[i - 1].learn;
        if (table[i].scan_alone == 0)
            table[i].scan_alone = table[i - 1].scan_alone;
        if (table[i].scan_batch == 0)
            table[i].scan_batch = table[i - 1].scan_batch;
        if (table[i].weighted_alone == 0)
            table[i].weighted_alone = table[i - 1].weighted_alone;
        if (table[i].weighted_batch == 0)
            table[i].weighted_batch = table[i - 1].weighted_batch;
    }
}

int aph_isa_count(void) { return (int)(sizeof table / sizeof *table); }

const aph_isa *aph_isa_at(int i) { return table + i; }
