"""The hash function: projections of items, and codes, which are the signs of projections."""

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.math cimport fabs
from libc.stdint cimport int64_t, uint16_t, uint64_t

import time

import numpy as np

cimport numpy as cnp

from aphash._kernels cimport omp_get_thread_num
from aphash._learning._source cimport (
    APH_BAND, WAVE_WORK, Scratch, Source, aph_learn, aph_source, dtype_of, kernels)

cnp.import_array()


def project(Source source not None, int64_t start, int64_t stop, W, bias, float[:, ::1] out, int n_threads):
    """Write the projections ``working vector @ W + bias`` of items [start, stop) to out.

    Parameters
    ----------
    source : Source
    start, stop : int
        Item numbers.
    W, bias : ndarray of float32, shapes (d, r) and (r,)
    out : ndarray of float32, shape (stop - start, r)
    n_threads : int
    """
    cdef Projection packed = Projection(W, bias, source.mean, source.scale, n_threads)
    packed.run(source, start, stop, out, None, n_threads)


def encode(Source source not None, int64_t start, int64_t stop, W, bias, uint64_t[:, ::1] out, int n_threads):
    """Write the packed signs (1 where >= 0) of what :func:`project` gives to out (stop - start, n_words)."""
    cdef Projection packed = Projection(W, bias, source.mean, source.scale, n_threads)
    packed.run(source, start, stop, None, out, n_threads)


cdef class Projection:
    """A hash function, packed for the kernels once for any number of calls.

    Parameters
    ----------
    W, bias : ndarray of float32, shapes (d, r) and (r,)
    mean, scale
        Those of the working vectors, as for :class:`Source`.
    n_threads : int
        The number of threads that pack.
    """

    cdef const aph_learn *kernel  # the kernels of the instruction set for which it is packed
    cdef Scratch panels
    cdef float[::1] bias
    cdef const double[::1] mean
    cdef double scale
    cdef int64_t d, r, n_words

    def __init__(self, const float[:, ::1] W, const float[::1] bias, mean, double scale, int n_threads=1):
        cdef const aph_learn *kernel = kernels()
        cdef int64_t d = W.shape[0], r = W.shape[1], width = kernel.width, n_panels = (r + width - 1) // width, panel
        cdef float *packed
        if bias.shape[0] != r or len(mean) != d or d < 1 or r < 1:
            raise ValueError("W, bias and mean must be (d, r), (r,) and (d,)")
        self.kernel, self.d, self.r, self.n_words = kernel, d, r, (r + 63) // 64
        self.mean, self.scale = mean, scale
        self.bias = np.zeros(n_panels * width, np.float32)
        self.bias[:r] = bias
        self.panels = Scratch(4 * n_panels * d * width, 1)
        packed = <float *> self.panels.at(0)
        for panel in prange(n_panels, num_threads=n_threads, nogil=True):
            self.kernel.pack_panel(&W[0, 0], d, r, panel, packed + panel * d * width)

    def is_current(self):
        """Return whether it is packed for the instruction set in use."""
        return self.kernel == kernels()

    def project(self, X, float[:, ::1] out, int n_threads):
        """Write the projections of the rows of X, an array as :class:`Source` takes it, to out (n, r)."""
        self.run(Source(X, None, np.asarray(self.mean), self.scale), 0, len(X), out, None, n_threads)

    def encode(self, X, uint64_t[:, ::1] out, int n_threads):
        """Write the codes of the rows of X, an array as :class:`Source` takes it, to out (n, n_words)."""
        self.run(Source(X, None, np.asarray(self.mean), self.scale), 0, len(X), None, out, n_threads)

    cdef int run(self, Source source, int64_t start, int64_t stop, float[:, ::1] out, uint64_t[:, ::1] codes,
                 int n_threads) except -1:
        """Write projections to out, or codes to codes. The other of the two is None."""
        cdef int64_t d = self.d, r = self.r, words = self.n_words, chunk, n_chunks, wave, first, last, t, at
        cdef float *numbers = NULL
        cdef uint64_t *bits = NULL
        cdef Scratch scratch
        cdef const float *packed = <const float *> self.panels.at(0)
        source.check(start, stop)
        if out is not None and (out.shape[0] != stop - start or out.shape[1] != r):
            raise ValueError("out must have shape (stop - start, r)")
        if codes is not None and (codes.shape[0] != stop - start or codes.shape[1] != words):
            raise ValueError("out must have shape (stop - start, n_words)")
        if start == stop:
            return 0
        if out is not None:
            numbers = &out[0, 0]
        if codes is not None:
            bits = &codes[0, 0]
        scratch = Scratch(self.kernel.project_scratch(r, stop - start), n_threads)
        chunk = APH_BAND * max(1, min(16, WAVE_WORK // (APH_BAND * d * r)))
        n_chunks = (stop - start + chunk - 1) // chunk
        wave = max(1, WAVE_WORK // (chunk * d * r)) * n_threads
        for first in range(0, n_chunks, wave):
            PyErr_CheckSignals()
            last = min(n_chunks, first + wave)
            for t in prange(first, last, num_threads=n_threads, schedule="dynamic", nogil=True):
                at = t * chunk
                self.kernel.project(
                    &source.c, start + at, min(chunk, stop - start - at), packed, &self.bias[0], r,
                    numbers + at * r if numbers != NULL else NULL, bits + at * words if bits != NULL else NULL,
                    scratch.at(omp_get_thread_num()),
                )
        return 0

    def project_row(self, X, double farthest):
        """Return the projections of one row; see :meth:`encode_row`."""
        return self.run_row(X, farthest, False)

    def encode_row(self, X, double farthest):
        """Return the code of one row, or None for whatever is no plain array of it. This is the short way for a single
        query.

        Parameters
        ----------
        X : ndarray of float16, float32 or float64, shape (1, d) or (d,)
        farthest : float
            The result is None for rows with larger values, or with NaN.

        Returns
        -------
        ndarray of uint64, shape (1, n_words) or (n_words,), or None
        """
        return self.run_row(X, farthest, True)

    cdef object run_row(self, X, double farthest, bint as_codes):
        cdef cnp.npy_intp shape[2]
        cdef cnp.ndarray row, result
        cdef Scratch scratch
        cdef aph_source source
        cdef float *out = NULL
        cdef uint64_t *codes = NULL
        cdef int ndim
        if type(X) is not np.ndarray:
            return None
        row = X
        ndim = cnp.PyArray_NDIM(row)
        source.dtype = dtype_of(row)
        if source.dtype < 0 or not (ndim == 1 or (ndim == 2 and cnp.PyArray_DIM(row, 0) == 1)):
            return None
        if cnp.PyArray_DIM(row, ndim - 1) != self.d or not cnp.PyArray_ISCARRAY_RO(row):  # contiguous, aligned, native
            return None
        source.x, source.d, source.rows = cnp.PyArray_DATA(row), self.d, NULL
        source.mean, source.scale = &self.mean[0], self.scale
        if not lies_within(source.x, source.dtype, self.d, farthest):
            return None
        shape[0], shape[ndim - 1] = 1, self.n_words if as_codes else self.r
        result = cnp.PyArray_EMPTY(ndim, shape, cnp.NPY_UINT64 if as_codes else cnp.NPY_FLOAT32, 0)
        if as_codes:
            codes = <uint64_t *> cnp.PyArray_DATA(result)
        else:
            out = <float *> cnp.PyArray_DATA(result)
        scratch = Scratch(self.kernel.project_scratch(self.r, 1), 1)
        with nogil:
            self.kernel.project(
                &source, 0, 1, <const float *> self.panels.at(0), &self.bias[0], self.r, out, codes, scratch.at(0)
            )
        return result


cdef bint lies_within(const void *x, int dtype, int64_t d, double farthest) noexcept nogil:
    """Return whether no number is NaN, or larger in magnitude than farthest."""
    cdef const uint16_t *halves = <const uint16_t *> x
    cdef const float *singles = <const float *> x
    cdef const double *doubles = <const double *> x
    cdef int64_t k
    cdef int beyond = 0
    if dtype == 0:  # 0x7c00 and more are infinity and NaN; the largest number is 65,504
        for k in range(d):
            beyond |= (halves[k] & 0x7fff) >= 0x7c00
        return not beyond and farthest >= 65504
    if dtype == 1:
        for k in range(d):
            beyond |= not (fabs(singles[k]) <= farthest)
        return not beyond
    for k in range(d):
        beyond |= not (fabs(doubles[k]) <= farthest)
    return not beyond


def fma_peak(double seconds):
    """Return how many multiply-adds one thread does in a second, in a loop that uses registers only; for benchmarks."""
    cdef const aph_learn *kernel = kernels()
    cdef int64_t rounds = 1_000_000
    cdef double begin, best = 0, until = time.perf_counter() + seconds
    cdef float total = 0
    while time.perf_counter() < until:
        begin = time.perf_counter()
        with nogil:
            total += kernel.multiply_add(rounds)
        best = max(best, rounds * kernel.width * kernel.register_rows / (time.perf_counter() - begin))
    return best if total == total else 0.0
