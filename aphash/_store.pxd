from libc.stdint cimport int32_t, int64_t, uint64_t


cdef extern from "pages.h":
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
    int64_t aph_id_of(const aph_codes *, int64_t) noexcept nogil
    void aph_store(uint64_t *, int64_t, int64_t, const uint64_t *, int64_t) noexcept nogil
    void aph_load(const aph_codes *, int64_t, uint64_t *, int64_t) noexcept nogil
    void aph_load_at(const aph_codes *, const int64_t *, uint64_t *, int64_t) noexcept nogil
    void aph_load_ids(const aph_codes *, int64_t, int64_t *, int64_t) noexcept nogil
    void aph_gather(const aph_codes *, const int64_t *, int64_t, uint64_t *) noexcept nogil
    int aph_is_range(const int64_t *, int64_t) noexcept nogil
    int64_t aph_different(const aph_codes *, const aph_codes *, int64_t, int64_t, int64_t *) noexcept nogil


cdef extern from "idmap.h":
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


cdef class Memory:
    cdef char *start
    cdef size_t size
    cdef bint mapped


cdef class Leaf:
    cdef aph_page pages[APH_LEAF_PAGES]
    cdef list owners
    cdef Leaf copy(self)


cdef class Table:
    cdef const aph_page **leaves
    cdef int64_t room
    cdef list nodes
    cdef Table copy(self)
    cdef int append(self, Leaf leaf) except -1
    cdef int replace(self, int64_t i, Leaf leaf) except -1


cdef class Runs:
    cdef aph_runs runs
    cdef Runs copy(self)


cdef class IdMap:
    cdef aph_idmap map
    cdef int64_t count
    cdef Memory slots


cdef class Positions:
    cdef int64_t *values
    cdef int64_t room
    cdef Memory memory


cdef class Snapshot:
    cdef aph_codes db
    cdef readonly int64_t n_bits
    cdef readonly object next_id
    cdef readonly object lookup
    cdef Table table
    cdef Runs runs
    cdef IdMap map
    cdef Positions stale
    cdef readonly int64_t n_stale
    cdef object __weakref__
    cdef IdMap id_map(self)
