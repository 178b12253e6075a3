"""Complete linkage of near pairs: the wrapper of csrc/search/linkage.h. The caller checks arguments."""

from libc.stdint cimport int64_t

from aphash._kernels cimport aph_linkage, aph_portable, portable

import numpy as np

cdef const aph_portable *c = portable()


cdef class CompleteLinkage:
    """The groups of n items, n below 2^32. At first each item is a group. Of every group, all pairs have arrived."""

    cdef aph_linkage linkage

    def __cinit__(self, int64_t n):
        if c.linkage_begin(&self.linkage, n) != 0:
            raise MemoryError(f"no memory for {n} groups")

    def __dealloc__(self):
        c.linkage_free(&self.linkage)

    def add(self, const int64_t[::1] i, const int64_t[::1] j):
        """Take pairs of items with i != j. Each comes once, and distances ascend over all calls. Raises MemoryError."""
        cdef int64_t m = i.shape[0]
        cdef int failed
        if m == 0:
            return
        with nogil:
            failed = c.linkage_add(&self.linkage, &i[0], &j[0], m)
        if failed:
            raise MemoryError(f"no memory for {self.linkage.n_links} links between groups")

    def groups(self):
        """Return the group of each item, int64 (n,): the number of one of its items."""
        cdef int64_t[::1] out = np.empty(self.linkage.n, np.int64)
        if self.linkage.n:
            with nogil:
                c.linkage_groups(&self.linkage, &out[0])
        return np.asarray(out)
