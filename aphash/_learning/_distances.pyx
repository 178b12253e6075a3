"""Distances between anchors and items: the nearest items, those within a bound, and distances of listed pairs."""

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from aphash._kernels cimport omp_get_thread_num
from aphash._learning._source cimport (
    APH_BAND, APH_SCAN, APH_TILE, WAVE_FLOATS, WAVE_WORK, Scratch, Source, aph_learn, aph_source, kernels)


cdef class Distances:
    """Waves of squared distances of anchors [first, last) to items [start, stop), in ``d2`` (anchors, ld).

    The numbers of items and anchors of a wave are such that it takes about 50 ms, and its distances fit into
    WAVE_FLOATS.
    """

    cdef const aph_learn *kernel
    cdef Source source
    cdef Scratch scratch
    cdef const float[:, ::1] anchors
    cdef float[::1] norms
    cdef float[:, ::1] d2
    cdef int64_t n_items, n_anchors
    cdef int n_threads

    def __cinit__(self, Source source, const float[:, ::1] A, int64_t n, int n_threads):
        cdef int64_t d = source.c.d, m = A.shape[0], i, work
        if A.shape[1] != d:
            raise ValueError(f"A must have {d} columns, got {A.shape[1]}")
        self.kernel = kernels()
        self.source = source
        self.scratch = Scratch(self.kernel.distances_scratch(), n_threads)
        self.n_threads = n_threads
        self.anchors = A
        self.norms = np.empty(m, np.float32)
        for i in prange(m, num_threads=n_threads, nogil=True):
            self.kernel.square_norms(&A[i, 0], 1, d, &self.norms[i])
        work = WAVE_WORK // d * n_threads
        self.n_items = APH_TILE * max(8, 4 * n_threads)
        self.n_anchors = max(APH_BAND, min(m, min(work, WAVE_FLOATS) // self.n_items))
        self.n_items = APH_TILE * max(n_threads, min(self.n_items, work // self.n_anchors) // APH_TILE)
        self.n_items = min(self.n_items, (n + APH_TILE - 1) // APH_TILE * APH_TILE)
        # each row has an odd number of cache lines, so that the numbers of a column do not share a cache set
        self.d2 = np.empty((min(m, self.n_anchors), self.n_items + 16), np.float32)

    cdef int wave(self, int64_t start, int64_t stop, int64_t first, int64_t last) except -1:
        cdef int64_t n_tiles = (stop - start + APH_TILE - 1) // APH_TILE, t, at
        PyErr_CheckSignals()
        for t in prange(n_tiles, num_threads=self.n_threads, schedule="dynamic", nogil=True):
            at = start + t * APH_TILE
            self.kernel.distances(
                &self.source.c, at, min(APH_TILE, stop - at), &self.anchors[first, 0], &self.norms[first],
                last - first, &self.d2[0, t * APH_TILE], self.d2.shape[1], self.scratch.at(omp_get_thread_num()),
            )
        return 0


def nearest(Source source not None, int64_t start, int64_t stop, const float[:, ::1] A, float[:, ::1] best_d2,
            int64_t[:, ::1] best_id, int n_threads):
    """Merge items [start, stop) into the k nearest of each anchor, in place.

    Parameters
    ----------
    source : Source
    start, stop : int
        Item numbers.
    A : ndarray of float32, shape (m, d)
        Working vectors of the anchors.
    best_d2, best_id : ndarray of float32 and int64, shape (m, k)
        Squared working distances ``max(0, |a|^2 + |x|^2 - 2 a.x)`` and item numbers, with +inf and -1 where there are
        none yet. Afterwards they hold the k smallest, by (d2, id), of what they held and of the items, ascending.
    n_threads : int

    Notes
    -----
    Needs m * (k + max(k, 1024)) * 8 bytes, and the distances of a wave. Waves are visited in a scattered order.
    Otherwise all items would become candidates for a while where they are sorted from far to near.
    """
    cdef int64_t m = A.shape[0], k = best_d2.shape[1], i, w, n_waves, stride, at, end, first, last, n_spare_max
    cdef int64_t[::1] n_best, n_spare
    cdef uint64_t[::1] limit
    cdef uint64_t[:, ::1] spare
    cdef uint64_t *keys
    cdef Scratch scratch
    cdef Distances distances
    source.check(start, stop)
    if best_d2.shape[0] != m or best_id.shape[0] != m or best_id.shape[1] != k or k < 1:
        raise ValueError("best_d2 and best_id must have shape (m, k)")
    if m == 0 or start == stop:
        return
    distances = Distances(source, A, stop - start, n_threads)
    n_spare_max = max(k, 1024)
    n_best = np.zeros(m, np.int64)
    n_spare = np.zeros(m, np.int64)
    limit = np.empty(m, np.uint64)
    spare = np.empty((m, n_spare_max + APH_SCAN), np.uint64)
    scratch = Scratch(16 * (k + n_spare_max + APH_SCAN), n_threads)
    for i in prange(m, num_threads=n_threads, nogil=True):
        n_best[i] = to_keys(&best_d2[i, 0], &best_id[i, 0], k, &limit[i])

    n_waves = (stop - start + distances.n_items - 1) // distances.n_items
    stride = coprime_stride(n_waves)
    for w in range(n_waves):
        at = start + w * stride % n_waves * distances.n_items
        end = min(stop, at + distances.n_items)
        for first in range(0, m, distances.n_anchors):
            last = min(m, first + distances.n_anchors)
            distances.wave(at, end, first, last)
            for i in prange(first, last, num_threads=n_threads, schedule="dynamic", chunksize=4, nogil=True):
                distances.kernel.topk_push(
                    &distances.d2[i - first, 0], end - at, at, k, <uint64_t *> &best_id[i, 0], &n_best[i],
                    &spare[i, 0], &n_spare[i], n_spare_max, &limit[i], <uint64_t *> scratch.at(omp_get_thread_num()),
                )
    PyErr_CheckSignals()
    for i in prange(m, num_threads=n_threads, schedule="dynamic", nogil=True):
        distances.kernel.topk_finish(k, <uint64_t *> &best_id[i, 0], &n_best[i], &spare[i, 0], &n_spare[i],
                           <uint64_t *> scratch.at(omp_get_thread_num()))
        from_keys(&best_d2[i, 0], &best_id[i, 0], k, n_best[i])


cdef uint64_t INFINITY_BITS = (<uint64_t> 0x7f800000) << 32  # of a key


cdef int64_t coprime_stride(int64_t n):
    """Return a stride that visits 0 .. n - 1 in a scattered order. It is coprime to n, and near its golden section."""
    cdef int64_t stride = max(1, <int64_t> (n * 0.6180339887498949)), a, b
    while True:
        a, b = n, stride
        while b:
            a, b = b, a % b
        if a == 1:
            return stride
        stride += 1


cdef int64_t to_keys(float *d2, int64_t *ids, int64_t k, uint64_t *limit) noexcept nogil:
    """Replace the ids by keys, where there are ids, and return how many."""
    cdef int64_t e, n = 0
    cdef uint32_t bits
    cdef uint64_t largest = 0, key
    cdef float value
    for e in range(k):
        if ids[e] >= 0:
            value = d2[e] + 0.0  # -0.0 would be the largest of all
            memcpy(&bits, &value, 4)
            key = (<uint64_t> bits << 32) | <uint64_t> ids[e]
            (<uint64_t *> ids)[n] = key
            largest = max(largest, key)
            n += 1
    limit[0] = largest if n == k else INFINITY_BITS | <uint64_t> 0xffffffffu  # larger than every key
    return n


cdef void from_keys(float *d2, int64_t *ids, int64_t k, int64_t n) noexcept nogil:
    cdef int64_t e
    cdef uint32_t bits
    cdef uint64_t key
    for e in range(k):
        key = INFINITY_BITS
        if e < n:
            key = (<uint64_t *> ids)[e]
        bits = <uint32_t> (key >> 32)
        memcpy(&d2[e], &bits, 4)
        ids[e] = <int64_t> <uint32_t> key if e < n else -1


def within(Source source not None, int64_t start, int64_t stop, const float[:, ::1] A, const float[::1] bound_d2, int n_threads):
    """List the items of [start, stop) whose squared working distance to an anchor is at most its bound.

    Parameters
    ----------
    source, start, stop, A, n_threads
        As for :func:`nearest`, with the same distances.
    bound_d2 : ndarray of float32, shape (m,)
        A negative bound, or NaN, matches nothing and costs nothing.

    Returns
    -------
    indptr : ndarray of int64, shape (m + 1,)
    ids : ndarray of int64
        Item numbers. They ascend in each row ``ids[indptr[i]:indptr[i + 1]]``.
    """
    cdef int64_t m, i, at, end, first, last
    cdef float[::1] bound
    cdef int64_t[::1] ends, place
    cdef int32_t[::1] hits
    cdef int64_t[::1] ids
    cdef Distances distances
    source.check(start, stop)
    if bound_d2.shape[0] != A.shape[0]:
        raise ValueError("bound_d2 must have an element for each row of A")
    active = np.flatnonzero(np.asarray(bound_d2) >= 0)
    m = len(active)
    indptr = np.zeros(A.shape[0] + 1, np.int64)
    if m == 0 or start == stop:
        return indptr, np.empty(0, np.int64)
    chosen = np.asarray(A) if m == A.shape[0] else np.asarray(A)[active]
    bound = np.asarray(bound_d2)[active]
    distances = Distances(source, chosen, stop - start, n_threads)
    found = []  # of each wave: (its first anchor, where the hits of each anchor end, hits)
    for at in range(start, stop, distances.n_items):
        end = min(stop, at + distances.n_items)
        for first in range(0, m, distances.n_anchors):
            last = min(m, first + distances.n_anchors)
            distances.wave(at, end, first, last)
            ends = np.zeros(last - first + 1, np.int64)
            for i in prange(last - first, num_threads=n_threads, nogil=True):
                ends[i + 1] = distances.kernel.count_within(&distances.d2[i, 0], end - at, bound[first + i])
            np.cumsum(ends, out=np.asarray(ends))
            hits = np.empty(ends[last - first] + 1, np.int32)
            for i in prange(last - first, num_threads=n_threads, nogil=True):
                distances.kernel.list_within(&distances.d2[i, 0], end - at, bound[first + i], at, &hits[ends[i]])
            found.append((first, np.asarray(ends, np.int64).astype(np.int32), np.asarray(hits)))
    counts = np.zeros(m, np.int64)
    for first, wave_ends, _ in found:
        counts[first : first + len(wave_ends) - 1] += np.diff(wave_ends)
    indptr[1:][active] = counts
    np.cumsum(indptr, out=indptr)
    place = indptr[active]
    ids = np.empty(indptr[len(indptr) - 1], np.int64)
    for first, wave_ends, wave_hits in found:
        copy_hits(wave_ends, wave_hits, place[first:], ids)
    return indptr, np.asarray(ids)


cdef void copy_hits(const int32_t[::1] ends, const int32_t[::1] hits, int64_t[::1] place, int64_t[::1] ids) noexcept:
    cdef int64_t i, e
    with nogil:
        for i in range(ends.shape[0] - 1):
            for e in range(ends[i], ends[i + 1]):
                ids[place[i]] = hits[e]
                place[i] += 1


def pair_distances(Source source not None, const double[:, ::1] anchors, const int64_t[::1] indptr, const int64_t[::1] ids,
                   double[::1] out, int n_threads):
    """Compute the exact Euclidean distances of listed pairs of raw rows, in float64.

    Parameters
    ----------
    source : Source
        Its mean and scale are not used.
    anchors : ndarray of float64, shape (m, d)
        Raw rows.
    indptr, ids : ndarray of int64, shapes (m + 1,) and (nnz,)
        The items of anchor i are ``ids[indptr[i]:indptr[i + 1]]``.
    out : ndarray of float64, shape (nnz,)

    Notes
    -----
    Where the ids of every anchor ascend, the pairs are computed in the order of the items, so that a mapped X is read
    once and in order.
    """
    cdef int64_t m = anchors.shape[0], nnz = ids.shape[0], i, b, n_chunks, chunk, wave, end, d = anchors.shape[1]
    cdef const aph_learn *kernel = kernels()
    if d != source.c.d or indptr.shape[0] != m + 1 or out.shape[0] != nnz:
        raise ValueError("anchors, indptr, ids and out must be (m, d), (m + 1,), (nnz,) and (nnz,)")
    if nnz == 0:
        return
    if is_ascending(indptr, ids):
        chunk = max(64, 1_000_000 // d)
        n_chunks = (source.n + chunk - 1) // chunk
        wave = max(1, n_chunks * (WAVE_WORK // 8 // d) // max(nnz, 1)) * n_threads
        for b in range(0, n_chunks, wave):
            PyErr_CheckSignals()
            end = min(n_chunks, b + wave)
            for i in prange(b, end, num_threads=n_threads, schedule="dynamic", nogil=True):
                pairs_of_items(kernel, &source.c, anchors, indptr, ids, i * chunk, (i + 1) * chunk, out)
    else:
        wave = max(1, m * (WAVE_WORK // 8 // d) // max(nnz, 1)) * n_threads
        for b in range(0, m, wave):
            PyErr_CheckSignals()
            end = min(m, b + wave)
            for i in prange(b, end, num_threads=n_threads, schedule="dynamic", nogil=True):
                if indptr[i + 1] > indptr[i]:
                    kernel.pair_distances(&source.c, &anchors[i, 0], &ids[indptr[i]], indptr[i + 1] - indptr[i],
                                          &out[indptr[i]])


cdef bint is_ascending(const int64_t[::1] indptr, const int64_t[::1] ids) noexcept nogil:
    cdef int64_t i, e
    for i in range(indptr.shape[0] - 1):
        for e in range(indptr[i] + 1, indptr[i + 1]):
            if ids[e - 1] > ids[e]:
                return False
    return True


cdef int64_t lower_bound(const int64_t[::1] ids, int64_t low, int64_t high, int64_t item) noexcept nogil:
    cdef int64_t middle
    while low < high:
        middle = (low + high) // 2
        if ids[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low


cdef void pairs_of_items(const aph_learn *kernel, const aph_source *source, const double[:, ::1] anchors,
                         const int64_t[::1] indptr, const int64_t[::1] ids, int64_t start, int64_t stop,
                         double[::1] out) noexcept nogil:
    cdef int64_t i, low, high
    for i in range(anchors.shape[0]):
        low = lower_bound(ids, indptr[i], indptr[i + 1], start)
        high = lower_bound(ids, low, indptr[i + 1], stop)
        if high > low:
            kernel.pair_distances(source, &anchors[i, 0], &ids[low], high - low, &out[low])
