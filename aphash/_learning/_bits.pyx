"""Threaded wrappers of the kernels that give items their bits where queries are real numbers (csrc/learn/bits.inc.h).

The kernels compute each item alone, so no result depends on n_threads or on the other items of a batch.
"""

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.stdint cimport int32_t, int64_t, uint16_t, uint64_t
from libc.string cimport memset

import numpy as np

cimport numpy as cnp

from aphash._kernels cimport omp_get_thread_num
from aphash._learning._source cimport Scratch, aph_learn, aph_scores, kernels

cnp.import_array()

cdef int64_t WAVE = 2048  # items of each thread between two checks for signals: about 100 ms


cdef class Scores:
    """The state of the objective on which the bits of items depend, as the kernels take it.

    Parameters
    ----------
    arrays : dict
        ``anchors`` uint16 (m, d) bfloat16; ``p`` float32 (m, ld), ld = ceil(r / 16) * 16, zero beyond r; ``norms``,
        ``log_z``, ``sharpness``, ``log_p`` float32 (m,); ``gram_d``, ``gram_v``, ``far`` float32 (r, r).
    norm, equal_norms, offset, scale, rho : float
    """

    cdef aph_scores c
    cdef object arrays
    cdef int64_t m

    def __init__(self, arrays, double norm, double equal_norms, double offset, double scale, double rho):
        cdef const uint16_t[:, ::1] anchors = arrays["anchors"]
        cdef const float[:, ::1] p = arrays["p"], gram_d = arrays["gram_d"], gram_v = arrays["gram_v"], far = arrays["far"]
        cdef const float[::1] norms = arrays["norms"], log_z = arrays["log_z"], sharpness = arrays["sharpness"]
        cdef const float[::1] log_p = arrays["log_p"]
        cdef int64_t m = anchors.shape[0], r = gram_d.shape[0]
        if p.shape[0] != m or p.shape[1] != (r + 15) // 16 * 16 or m < 1 or r < 1:
            raise ValueError("anchors and p must be (m, d) and (m, ceil(r / 16) * 16)")
        for name in ("norms", "log_z", "sharpness", "log_p"):
            if len(arrays[name]) != m:
                raise ValueError(f"{name} must be ({m},)")
        for name in ("gram_d", "gram_v", "far"):
            if arrays[name].shape != (r, r):
                raise ValueError(f"{name} must be ({r}, {r})")
        self.arrays, self.m = arrays, m
        self.c.anchors, self.c.norms, self.c.p = &anchors[0, 0], &norms[0], &p[0, 0]
        self.c.log_z, self.c.sharpness, self.c.log_p = &log_z[0], &sharpness[0], &log_p[0]
        self.c.gram_d, self.c.gram_v, self.c.far = &gram_d[0, 0], &gram_v[0, 0], &far[0, 0]
        self.c.norm, self.c.equal_norms, self.c.offset = norm, equal_norms, offset
        self.c.scale, self.c.rho = scale, rho
        self.c.d, self.c.r, self.c.ld = anchors.shape[1], r, p.shape[1]

    def refine(self, float[:, ::1] B, const float[:, ::1] x_v, const int32_t[:, ::1] near, const float[:, ::1] share,
               int sweeps, int n_threads):
        """Improve the bits of items whose near anchors are known, in place.

        Parameters
        ----------
        B : float32 (n, r)
            The bits, +1 and -1.
        x_v : float32 (n, r)
            x V^T.
        near, share : int32 and float32 (n, k)
            Anchors, and the share of the item in the P of each.
        sweeps : int
            All bits are visited at most so many times.
        """
        cdef int64_t n = B.shape[0], k = near.shape[1], i, first, last
        cdef const aph_learn *kernel = kernels()
        cdef Scratch scratch
        if x_v.shape[0] != n or near.shape[0] != n or share.shape[0] != n or share.shape[1] != k \
                or B.shape[1] != self.c.r or x_v.shape[1] != self.c.r:
            raise ValueError("B and x_v must be (n, r), near and share (n, k)")
        if n and k and not (0 <= np.min(near) and np.max(near) < self.m):
            raise ValueError(f"near must be numbers of the {self.m} anchors")
        scratch = Scratch(kernel.bits_scratch(self.c.ld, 0, k), n_threads)
        for first in range(0, n, WAVE * n_threads):
            PyErr_CheckSignals()
            last = min(n, first + WAVE * n_threads)
            for i in prange(first, last, num_threads=n_threads, schedule="dynamic", chunksize=16, nogil=True):
                kernel.score_bits(&self.c, &x_v[i, 0], &near[i, 0], &share[i, 0], k, &B[i, 0], sweeps,
                                  scratch.at(omp_get_thread_num()))

    def encode(self, const float[:, ::1] X, const float[:, ::1] maps, const int64_t[:, ::1] candidates, int64_t k,
               int first_sweeps, int sweeps, uint64_t[:, ::1] codes, int n_threads):
        """Write the codes of items.

        Parameters
        ----------
        X : float32 (n, d)
            Working vectors.
        maps : float32 (n, 3 r)
            Projections: those whose signs are the first bits, then x D^T and x V^T.
        candidates : int64 (n, c)
            Numbers of anchors, among which the k nearest are chosen; -1 is no anchor.
        k : int
        first_sweeps, sweeps : int
            How often all bits are visited at most: for equal norms, and then for the scores.
        codes : uint64 (n, n_words)
        n_threads : int
        """
        cdef int64_t n = X.shape[0], r = self.c.r, c = candidates.shape[1], words = codes.shape[1], i, first, last
        cdef const aph_learn *kernel = kernels()
        cdef Scratch scratch, near
        if maps.shape[0] != n or maps.shape[1] != 3 * r or X.shape[1] != self.c.d or candidates.shape[0] != n \
                or codes.shape[0] != n or words != (r + 63) // 64 or k < 1:
            raise ValueError("X, maps, candidates and codes must be (n, d), (n, 3 r), (n, c) and (n, n_words)")
        if n and c and not (-1 <= np.min(candidates) and np.max(candidates) < self.m):
            raise ValueError(f"candidates must be numbers of the {self.m} anchors, or -1")
        scratch = Scratch(kernel.bits_scratch(self.c.ld, c, k), n_threads)
        near = Scratch(8 * k + 4 * r, n_threads)
        for first in range(0, n, WAVE * n_threads):
            PyErr_CheckSignals()
            last = min(n, first + WAVE * n_threads)
            for i in prange(first, last, num_threads=n_threads, schedule="dynamic", chunksize=16, nogil=True):
                encode_one(&self.c, &X[i, 0], &maps[i, 0], &candidates[i, 0] if c else NULL, c, k, first_sweeps, sweeps,
                           &codes[i, 0], words, <char *> near.at(omp_get_thread_num()), scratch.at(omp_get_thread_num()))

    def move_queries(self, const float[:, ::1] X, const uint64_t[:, ::1] codes, const int64_t[:, ::1] candidates, int64_t k,
                     double perplexity, double rate, int steps, float[:, ::1] P, int n_threads):
        """Move the weights of queries down the gradient of their shares of J0, in place.

        Parameters
        ----------
        X : float32 (n, d)
            Working vectors.
        codes : uint64 (m, n_words)
            Of the anchors.
        candidates : int64 (n, c)
            Numbers of anchors: Q is over them, and P over the k nearest; -1 is no anchor.
        k : int
        perplexity : float
            Of P.
        rate : float
        steps : int
        P : float32 (n, r)
            The weights.
        n_threads : int
        """
        cdef int64_t n = X.shape[0], r = self.c.r, c = candidates.shape[1], i, first, last
        cdef const aph_learn *kernel = kernels()
        cdef Scratch scratch
        if P.shape[0] != n or P.shape[1] != r or X.shape[1] != self.c.d or candidates.shape[0] != n \
                or codes.shape[0] != self.m or codes.shape[1] != (r + 63) // 64 or k < 1:
            raise ValueError("X, codes, candidates and P must be (n, d), (m, n_words), (n, c) and (n, r)")
        if n and c and not (-1 <= np.min(candidates) and np.max(candidates) < self.m):
            raise ValueError(f"candidates must be numbers of the {self.m} anchors, or -1")
        if not c:
            return
        scratch = Scratch(kernel.query_scratch(self.c.ld, c, k), n_threads)
        for first in range(0, n, WAVE * n_threads):
            PyErr_CheckSignals()
            last = min(n, first + WAVE * n_threads)
            for i in prange(first, last, num_threads=n_threads, schedule="dynamic", chunksize=16, nogil=True):
                kernel.move_query(&self.c, &codes[0, 0], &X[i, 0], &candidates[i, 0], c, k, perplexity, <float> rate,
                                  steps, &P[i, 0], scratch.at(omp_get_thread_num()))

    def start(self, float[:, ::1] B, const float[:, ::1] x_d, int sweeps, int n_threads):
        """Change the bits B float32 (n, r) towards equal norms, in place. x_d (n, r) is x D^T."""
        cdef int64_t n = B.shape[0], i, first, last
        cdef const aph_learn *kernel = kernels()
        cdef Scratch scratch = Scratch(kernel.bits_scratch(self.c.ld, 0, 1), n_threads)
        if x_d.shape[0] != n or B.shape[1] != self.c.r or x_d.shape[1] != self.c.r:
            raise ValueError("B and x_d must be (n, r)")
        for first in range(0, n, WAVE * n_threads):
            PyErr_CheckSignals()
            last = min(n, first + WAVE * n_threads)
            for i in prange(first, last, num_threads=n_threads, schedule="dynamic", chunksize=16, nogil=True):
                kernel.start_bits(&self.c, &x_d[i, 0], &B[i, 0], sweeps, scratch.at(omp_get_thread_num()))


cdef void encode_one(const aph_scores *c, const float *x, const float *maps, const int64_t *candidates, int64_t count,
                     int64_t k, int first_sweeps, int sweeps, uint64_t *code, int64_t words, char *own,
                     void *scratch) noexcept nogil:
    cdef const aph_learn *kernel = kernels()
    cdef int64_t r = c.r, j, found
    cdef float *b = <float *> own
    cdef float *share = b + r
    cdef int32_t *near = <int32_t *> (share + k)
    for j in range(r):
        b[j] = 1 if maps[j] >= 0 else -1
    kernel.start_bits(c, maps + r, b, first_sweeps, scratch)
    found = kernel.near_anchors(c, x, candidates, count, k, near, share, scratch)
    kernel.score_bits(c, maps + 2 * r, near, share, found, b, sweeps, scratch)
    memset(code, 0, 8 * words)
    for j in range(r):
        if b[j] > 0:
            code[j // 64] |= <uint64_t> 1 << (j % 64)


def directions(float[:, ::1] Y, const double[::1] centre, double scale):
    """Replace each row y by scale (y / |y| - centre). A row of zeros has no direction, and becomes -scale centre."""
    cdef int64_t i, j, e = Y.shape[1]
    cdef double squares, factor
    if centre.shape[0] != e:
        raise ValueError(f"centre must be ({e},)")
    with nogil:
        for i in range(Y.shape[0]):
            squares = 0
            for j in range(e):
                squares += <double>Y[i, j] * Y[i, j]
            factor = 1 / sqrt(squares) if squares > 0 else 0
            for j in range(e):
                Y[i, j] = <float>(scale * (factor * Y[i, j] - centre[j]))
