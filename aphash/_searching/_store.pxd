from libc.stdint cimport int64_t

from aphash._kernels cimport APH_LEAF_PAGES, aph_codes, aph_idmap, aph_page, aph_runs


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
    cdef readonly object arrangement
    cdef readonly object fingerprint
    cdef Table table
    cdef Runs runs
    cdef IdMap map
    cdef Positions stale
    cdef readonly int64_t n_stale
    cdef object __weakref__
    cdef IdMap id_map(self)
