/* The functions that are the same for every instruction set, in one table, so that modules can call them without
 * linking them. The header that declares a function says what it does. */
#ifndef APH_PORTABLE_H
#define APH_PORTABLE_H

#include "search/id_map.h"
#include "search/linkage.h"
#include "search/lookup.h"
#include "search/pages.h"
#include "search/select.h"

typedef struct {
    /* pages.h */
    void (*store)(uint64_t *, int64_t, int64_t, const uint64_t *, int64_t);
    void (*load)(const aph_codes *, int64_t, uint64_t *, int64_t);
    void (*load_at)(const aph_codes *, const int64_t *, uint64_t *, int64_t);
    void (*load_ids)(const aph_codes *, int64_t, int64_t *, int64_t);
    void (*gather)(const aph_codes *, const int64_t *, int64_t, uint64_t *);
    int (*is_range)(const int64_t *, int64_t);
    int64_t (*different)(const aph_codes *, const aph_codes *, int64_t, int64_t, int64_t *);
    /* id_map.h */
    int64_t (*find)(const aph_codes *, const aph_runs *, const aph_idmap *, int64_t);
    int64_t (*idmap_insert)(aph_idmap *, const aph_codes *, const aph_runs *, int64_t, int64_t);
    int64_t (*idmap_take)(aph_idmap *, const aph_idmap *, const aph_codes *, const aph_runs *);
    int64_t (*idmap_live)(const aph_idmap *, const aph_codes *, const aph_runs *);
    int64_t (*outside_runs)(const aph_codes *, const aph_runs *, int64_t, int64_t);
    int (*runs_extend)(aph_runs *, int64_t, int64_t, int64_t);
    int (*runs_insert)(aph_runs *, int64_t, int64_t, int64_t);
    int64_t (*runs_shortest)(const aph_runs *, int64_t);
    void (*runs_drop)(aph_runs *, int64_t);
    void (*runs_cut)(aph_runs *, int64_t);
    /* select.h */
    int64_t (*order)(const aph_found *, int64_t, int64_t, int64_t, const aph_codes *, int64_t *, uint32_t *, int64_t *);
    int64_t (*bound_kth)(const uint32_t *, int64_t, int64_t, int64_t *);
    int64_t (*sample)(const aph_codes *, int64_t, int64_t *);
    int64_t (*count_bits)(const uint64_t *, int64_t);
    /* linkage.h */
    int (*linkage_begin)(aph_linkage *, int64_t);
    int (*linkage_add)(aph_linkage *, const int64_t *, const int64_t *, int64_t);
    void (*linkage_groups)(aph_linkage *, int64_t *);
    void (*linkage_free)(aph_linkage *);
    /* lookup.h */
    void (*substring_count)(const aph_codes *, int64_t, int64_t, int32_t, int32_t, uint32_t *);
    void (*substring_place)(const aph_codes *, int64_t, int64_t, int32_t, int32_t, uint32_t *, uint32_t *);
    void (*hash_count)(const aph_codes *, int64_t, int64_t, int32_t, int32_t, int32_t, uint32_t *);
    void (*hash_place)(const aph_codes *, int64_t, int64_t, int32_t, int32_t, int32_t, uint32_t *, uint32_t *);
} aph_portable;

extern const aph_portable aph_portable_functions;

#endif
