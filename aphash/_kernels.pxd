"""What the other Cython modules use of the C library, which only ``_kernels`` links."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t


cdef extern from *:  # OpenMP: the same names with and without it
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define APH_OPENMP 1
    #else
    #define APH_OPENMP 0
    static inline int omp_get_max_threads(void) { return 1; }
    static inline int omp_get_thread_num(void) { return 0; }
    #endif
    """
    int APH_OPENMP
    int omp_get_max_threads() noexcept nogil
    int omp_get_thread_num() noexcept nogil


cdef extern from "search/pages.h" nogil:
    enum:
        APH_GROUP
        APH_BLOCK
        APH_LEAF_BITS
        APH_LEAF_PAGES
    ctypedef struct aph_page:
        const uint64_t *codes
        const int64_t *ids
        int64_t first_id
        const uint64_t *stale
    ctypedef struct aph_codes:
        const aph_page *const *leaves
        int64_t n
        int64_t n_words
        const uint64_t *filter
        int32_t page_bits
        int32_t positions
        int32_t ascending
        int32_t compact
    const aph_page *aph_page_of(const aph_codes *, int64_t) noexcept
    int64_t aph_id_of(const aph_codes *, int64_t) noexcept


cdef extern from "search/id_map.h" nogil:
    enum:
        APH_RUNS
    ctypedef struct aph_run:
        int64_t first_id
        int64_t position
        int64_t length
    ctypedef struct aph_runs:
        int64_t n
        aph_run runs[APH_RUNS]
    ctypedef struct aph_idmap:
        int64_t *slots
        int64_t mask


cdef extern from "search/linkage.h" nogil:
    ctypedef struct aph_linkage:
        int64_t n
        int64_t n_links


cdef extern from "search/kernels.h" nogil:
    enum:
        APH_MARGIN
        APH_MAX_QUERIES
        APH_POSITION_BITS
    ctypedef struct aph_found:
        uint64_t *hits
        int64_t first
        int64_t count
        int64_t capacity
        int64_t k
        int64_t threshold
    ctypedef int64_t aph_scratch_fn(int64_t) noexcept nogil
    ctypedef int64_t aph_scan_fn(const aph_codes *, int64_t, int64_t, const void *, int64_t, aph_found *,
                                 void *) noexcept nogil
    ctypedef void aph_distances_fn(const uint64_t *, const int64_t *, int64_t, int64_t, const void *,
                                  uint32_t *) noexcept nogil
    ctypedef int aph_lookup_fn(const void *, const aph_codes *, const void *, aph_found *, double, double, double,
                               int64_t *) noexcept nogil
    ctypedef int64_t aph_pairs_fn(void *, const aph_codes *, int64_t, int64_t, int64_t *, int64_t *,
                                  int32_t *) noexcept nogil
    enum aph_row_kind:
        APH_ROW_FLOAT32
        APH_ROW_FLOAT16
        APH_ROW_INT8
    enum aph_row_metric:
        APH_ROW_L2
        APH_ROW_IP
        APH_ROW_COSINE
    ctypedef void aph_rows_fn(const uint64_t *, const float *, int64_t, int64_t, const float *, aph_row_kind,
                              aph_row_metric, double *) noexcept nogil
    ctypedef struct aph_weighted_kernels:
        aph_scratch_fn *scratch_bytes
        aph_scan_fn *scan
        aph_distances_fn *distances
    ctypedef struct aph_hamming:
        aph_scratch_fn *scratch_bytes
        aph_scan_fn *scan
        aph_distances_fn *distances
        aph_lookup_fn *lookup
        aph_pairs_fn *pairs
        aph_weighted_kernels weighted
        aph_rows_fn *rows
    ctypedef struct aph_queries:
        const char *first
        int64_t stride
        int64_t max_distance
        double alone
        double batch
        int64_t sample
        aph_scratch_fn *scratch_bytes
        aph_scan_fn *scan
        aph_distances_fn *distances
        aph_lookup_fn *lookup


cdef extern from "search/weighted.h" nogil:
    enum:
        APH_ENTRIES
    ctypedef struct aph_weighted:
        const uint32_t *tables
        int64_t n_tables
        const int32_t *constants
        const int64_t *ends


cdef extern from "search/select.h" nogil:
    enum:
        APH_BINS


cdef extern from "isa.h" nogil:
    ctypedef struct aph_isa:
        const char *name
        int runs_here
        const aph_hamming *search
        double scan_alone
        double scan_batch
        double weighted_alone
        double weighted_batch


cdef extern from "search/portable.h" nogil:
    ctypedef struct aph_portable:
        void (*store)(uint64_t *, int64_t, int64_t, const uint64_t *, int64_t) noexcept nogil
        void (*load)(const aph_codes *, int64_t, uint64_t *, int64_t) noexcept nogil
        void (*load_at)(const aph_codes *, const int64_t *, uint64_t *, int64_t) noexcept nogil
        void (*load_ids)(const aph_codes *, int64_t, int64_t *, int64_t) noexcept nogil
        void (*gather)(const aph_codes *, const int64_t *, int64_t, uint64_t *) noexcept nogil
        int (*is_range)(const int64_t *, int64_t) noexcept nogil
        int64_t (*different)(const aph_codes *, const aph_codes *, int64_t, int64_t, int64_t *) noexcept nogil
        int64_t (*find)(const aph_codes *, const aph_runs *, const aph_idmap *, int64_t) noexcept nogil
        int64_t (*idmap_insert)(aph_idmap *, const aph_codes *, const aph_runs *, int64_t, int64_t) noexcept nogil
        int64_t (*idmap_take)(aph_idmap *, const aph_idmap *, const aph_codes *, const aph_runs *) noexcept nogil
        int64_t (*idmap_live)(const aph_idmap *, const aph_codes *, const aph_runs *) noexcept nogil
        int64_t (*outside_runs)(const aph_codes *, const aph_runs *, int64_t, int64_t) noexcept nogil
        int (*runs_extend)(aph_runs *, int64_t, int64_t, int64_t) noexcept nogil
        int (*runs_insert)(aph_runs *, int64_t, int64_t, int64_t) noexcept nogil
        int64_t (*runs_shortest)(const aph_runs *, int64_t) noexcept nogil
        void (*runs_drop)(aph_runs *, int64_t) noexcept nogil
        void (*runs_cut)(aph_runs *, int64_t) noexcept nogil
        int64_t (*order)(const aph_found *, int64_t, int64_t, int64_t, const aph_codes *, int64_t *, uint32_t *,
                         int64_t *) noexcept nogil
        int64_t (*bound_kth)(const uint32_t *, int64_t, int64_t, int64_t *) noexcept nogil
        int64_t (*sample)(const aph_codes *, int64_t, int64_t *) noexcept nogil
        int64_t (*count_bits)(const uint64_t *, int64_t) noexcept nogil
        int (*linkage_begin)(aph_linkage *, int64_t) noexcept nogil
        int (*linkage_add)(aph_linkage *, const int64_t *, const int64_t *, int64_t) noexcept nogil
        void (*linkage_groups)(aph_linkage *, int64_t *) noexcept nogil
        void (*linkage_free)(aph_linkage *) noexcept nogil
        void (*substring_count)(const aph_codes *, int64_t, int64_t, int32_t, int32_t, uint32_t *) noexcept nogil
        void (*substring_place)(const aph_codes *, int64_t, int64_t, int32_t, int32_t, uint32_t *,
                           uint32_t *) noexcept nogil
        void (*hash_count)(const aph_codes *, int64_t, int64_t, int32_t, int32_t, int32_t, uint32_t *) noexcept nogil
        void (*hash_place)(const aph_codes *, int64_t, int64_t, int32_t, int32_t, int32_t, uint32_t *,
                           uint32_t *) noexcept nogil


cdef const aph_isa *const *chosen_isa() noexcept nogil  # where the set in use stands, which set_isa changes
cdef const aph_portable *portable() noexcept nogil
