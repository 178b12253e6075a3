"""Items and their working vectors, and what the threaded wrappers of csrc/learn/kernels.h share.

The wrappers split work among threads, which call serial C functions, and do nothing else. The callers validate the
arguments; here the memoryviews check dtypes and contiguity only. No result depends on n_threads. Work is done in waves
of some milliseconds. Ctrl-C is checked for between two waves, when no thread is running.
"""

from libc.stdint cimport int64_t, uint64_t

import numpy as np

cimport numpy as cnp

cnp.import_array()


cdef class Scratch:
    """Memory for each thread, aligned to cache lines. Thread t uses ``self.at(t)``."""

    def __cinit__(self, int64_t bytes_a_thread, int n_threads):
        self.stride = (bytes_a_thread + 4096 + 63) // 64 * 64  # 4096 and an odd line more keep threads apart
        self.stride += 64
        self.memory = np.empty(self.stride * n_threads + 64, np.uint8)
        self.first = <char *> (((<uint64_t> cnp.PyArray_DATA(self.memory)) + 63) // 64 * 64)

    cdef void *at(self, int thread) noexcept nogil:
        return self.first + thread * self.stride


cdef int dtype_of(cnp.ndarray X) noexcept:
    """Return the enum aph_dtype of an array, or -1 where there is none for its dtype."""
    cdef int number = cnp.PyArray_TYPE(X)
    return 0 if number == cnp.NPY_FLOAT16 else 1 if number == cnp.NPY_FLOAT32 else 2 if number == cnp.NPY_FLOAT64 else -1


cdef class Source:
    """Items and their working vectors: the C struct of the arrays' addresses, and the arrays themselves, which it keeps
    alive.

    Item j is row ``rows[j]`` of X, or row j where rows is None. Its working vector is ``float32((x_j - mean) *
    scale)``.

    Parameters
    ----------
    X : ndarray of float16, float32 or float64, shape (N, d)
        C-contiguous. It is only read, so it may be a memory map.
    rows : ndarray of int64, shape (n,), or None
        None stands for all rows of X.
    mean : ndarray of float64, shape (d,), or None
        None becomes zeros.
    scale : float

    Attributes
    ----------
    X, rows, mean, scale
        As given.
    n, d : int
        The numbers of items and features.

    Raises
    ------
    TypeError, ValueError
        For another dtype, order or shape.
    """

    def __init__(self, X, rows=None, mean=None, double scale=1.0):
        cdef const int64_t[::1] rows_view
        cdef const double[::1] mean_view
        if not isinstance(X, np.ndarray) or X.ndim != 2 or not X.flags.c_contiguous or not X.dtype.isnative:
            raise TypeError("X must be a C-contiguous 2-d array in native byte order")
        self.c.dtype = dtype_of(X)
        if self.c.dtype < 0:
            raise TypeError(f"X must be float16, float32 or float64, got {X.dtype}")
        self.c.x = cnp.PyArray_DATA(X)
        self.c.d = X.shape[1]
        self.c.scale = scale
        self.c.rows = NULL
        if rows is not None:
            rows_view = rows
            if rows_view.shape[0]:
                self.c.rows = &rows_view[0]
        mean = np.zeros(self.c.d) if mean is None else mean
        mean_view = mean
        if mean_view.shape[0] != self.c.d:
            raise ValueError(f"mean must have {self.c.d} elements, got {mean_view.shape[0]}")
        self.c.mean = &mean_view[0] if self.c.d else NULL
        self.X, self.rows, self.mean = X, rows, mean
        self.n = len(X) if rows is None else len(rows)

    @property
    def d(self):
        return self.c.d

    @property
    def scale(self):
        return self.c.scale

    def __reduce__(self):
        return type(self), (self.X, self.rows, self.mean, self.scale)

    def centred(self, mean, scale):
        """Return the same items with another mean and scale."""
        return type(self)(self.X, self.rows, mean, scale)

    def take(self, items):
        """Return the rows of X, as they were given, of the items that an index array or a slice selects."""
        return self.X[items if self.rows is None else self.rows[items]]

    cdef int check(self, int64_t start, int64_t stop) except -1:
        if not 0 <= start <= stop <= self.n or self.n > (<int64_t> 1) << 31:
            raise ValueError(
                f"start and stop must be in order within 0 .. {self.n} <= 2^31 items, got {start} and {stop}"
            )
        return 0


def working(Source source not None, int64_t start, int64_t stop, float[:, ::1] out):
    """Write the working vectors of items [start, stop) to out (stop - start, d), by one thread."""
    cdef const aph_learn *kernel = kernels()
    cdef int64_t j
    source.check(start, stop)
    if out.shape[0] != stop - start or out.shape[1] != source.c.d:
        raise ValueError("out must have shape (stop - start, d)")
    with nogil:
        for j in range(start, stop):
            kernel.working_vector(&source.c, j, 0, source.c.d, &out[j - start, 0])
