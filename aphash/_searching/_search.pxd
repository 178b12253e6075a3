"""The base class of all kinds of queries, for modules that add a kind; see :class:`Queries`."""

from libc.stdint cimport int64_t

from aphash._kernels cimport aph_queries


cdef class Queries:
    cdef aph_queries q
    cdef readonly object values
    cdef readonly object dtype
    cdef readonly int64_t pad
