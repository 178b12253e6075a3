"""Threaded wrappers of the training kernels in csrc/learn/kernels.h: blocks of work for serial C functions, nothing else.

A *source* of items is ``(X, rows, mean, scale)``: X is (N, d) C-contiguous float16, float32 or float64 and is only read;
item j is row ``rows[j]`` of X, or row j where rows is None; its working vector is ``float32((x_j - mean) * scale)``.

Arguments are validated above; here only dtypes and contiguity are, by the memoryviews. No result depends on n_threads.
Work is done in waves of some milliseconds; between them Ctrl-C is looked for, with no thread running.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

import time

import numpy as np

cimport numpy as cnp

from aphash._kernels cimport aph_isa, chosen_isa, omp_get_thread_num

cnp.import_array()


cdef extern from "learn/kernels.h" nogil:
    enum:
        APH_DEPTH
        APH_TILE
        APH_SPAN
        APH_ROW_GROUP
        APH_SCAN

    struct aph_source:
        const void *x
        const int64_t *rows
        const double *mean
        double scale
        int64_t d
        int32_t dtype

    struct aph_affinity:
        double scale
        double power

    struct aph_step:
        double factor, penalty, lr, b1, b2, c1, c2, eps

    struct aph_columns:
        float *panels
        float *nat
        float *bias

    struct aph_learn:
        int32_t width
        int32_t block
        void (*working_vector)(const aph_source *, int64_t, int64_t, int64_t, float *) noexcept nogil
        void (*square_norms)(const float *, int64_t, int64_t, float *) noexcept nogil
        void (*distances)(const aph_source *, int64_t, int64_t, const float *, const float *, int64_t, float *, int64_t,
                          void *) noexcept nogil
        int64_t (*distances_scratch)() noexcept nogil
        int64_t (*count_within)(const float *, int64_t, float) noexcept nogil
        void (*list_within)(const float *, int64_t, float, int64_t, int32_t *) noexcept nogil
        void (*keep_nearest)(const float *, int64_t, int64_t, int64_t, uint64_t *, int64_t *, uint64_t *, int64_t *,
                             int64_t, uint64_t *, uint64_t *) noexcept nogil
        void (*end_nearest)(int64_t, uint64_t *, int64_t *, uint64_t *, int64_t *, uint64_t *) noexcept nogil
        void (*pair_distances)(const aph_source *, const double *, const int64_t *, int64_t, double *) noexcept nogil
        void (*pack_columns)(const float *, int64_t, int64_t, double, double, const aph_columns *) noexcept nogil
        void (*anchor_block)(const aph_affinity *, const float *, int64_t, int64_t, const float *, const float *,
                             int64_t, const int64_t *, const int32_t *, double *, float *, double *, void *) noexcept nogil
        int64_t (*anchor_scratch)(int64_t, int64_t, int64_t) noexcept nogil
        void (*item_block)(const aph_affinity *, const aph_step *, float *, float *, float *, float *, int64_t, int64_t,
                           const aph_columns *, const float *, const float *, int64_t, const int64_t *,
                           const int32_t *, void *) noexcept nogil
        int64_t (*item_scratch)(int64_t) noexcept nogil
        void (*bias)(const float *, int64_t, int64_t, double, double, float *) noexcept nogil
        void (*pack_panel)(const float *, int64_t, int64_t, int64_t, float *) noexcept nogil
        void (*project)(const aph_source *, int64_t, int64_t, const float *, const float *, int64_t, float *,
                        uint64_t *, void *) noexcept nogil
        int64_t (*project_scratch)(int64_t, int64_t) noexcept nogil
        float (*multiply_add)(int64_t) noexcept nogil

cdef extern from *:  # the training kernels of the instruction set in use
    """
    static const aph_isa *const *aph_learn_isa;
    #define APH_LEARN_KERNEL ((*aph_learn_isa)->learn)
    """
    const aph_isa *const *aph_learn_isa
    const aph_learn *kernel "APH_LEARN_KERNEL"


aph_learn_isa = chosen_isa()

# One wave: so many multiply-adds a thread, about 50 ms with AVX2. The wave's results wait in a buffer of at most so many
# floats (distances) or bytes (partial sums).
cdef int64_t WAVE_WORK = 1_000_000_000
cdef int64_t WAVE_FLOATS = 4_000_000
cdef int64_t WAVE_BYTES = 64_000_000


cdef inline int64_t least(int64_t a, int64_t b) noexcept nogil:
    return a if a < b else b


cdef inline int64_t most(int64_t a, int64_t b) noexcept nogil:
    return a if a > b else b


cdef class Scratch:
    """Memory for each thread, aligned to cache lines; thread t uses ``self.at(t)``."""

    cdef cnp.ndarray memory
    cdef char *first
    cdef int64_t row

    def __cinit__(self, int64_t bytes_a_thread, int n_threads):
        self.row = (bytes_a_thread + 4096 + 63) // 64 * 64  # + 4096 and an odd line: no two threads near one another
        self.row += 64
        self.memory = np.empty(self.row * n_threads + 64, np.uint8)
        self.first = <char *> (((<uint64_t> cnp.PyArray_DATA(self.memory)) + 63) // 64 * 64)

    cdef void *at(self, int thread) noexcept nogil:
        return self.first + thread * self.row


cdef int dtype_of(cnp.ndarray X) noexcept:
    """Return the enum aph_dtype of an array, -1 where it has none."""
    cdef int number = cnp.PyArray_TYPE(X)
    return 0 if number == cnp.NPY_FLOAT16 else 1 if number == cnp.NPY_FLOAT32 else 2 if number == cnp.NPY_FLOAT64 else -1


cdef class Source:
    """Keeps the arrays of a source alive beside the C struct of their addresses."""

    cdef aph_source c
    cdef object arrays

    def __cinit__(self, X, rows, mean, double scale):
        cdef const int64_t[::1] rows_view
        cdef const double[::1] mean_view
        if not isinstance(X, np.ndarray) or X.ndim != 2 or not X.flags.c_contiguous or not X.dtype.isnative:
            raise TypeError("X must be a C-contiguous 2-d array in native byte order")
        self.c.dtype = dtype_of(X)
        if self.c.dtype < 0:
            raise TypeError(f"X must be float16, float32 or float64, got {X.dtype}")
        self.arrays = (X, rows, mean)
        self.c.x = cnp.PyArray_DATA(X)
        self.c.d = X.shape[1]
        self.c.scale = scale
        self.c.rows = NULL
        if rows is not None:
            rows_view = rows
            if rows_view.shape[0]:
                self.c.rows = &rows_view[0]
        self.c.mean = NULL
        if mean is not None:
            mean_view = mean
            if mean_view.shape[0] != self.c.d:
                raise ValueError(f"mean must have {self.c.d} elements, got {mean_view.shape[0]}")
            self.c.mean = &mean_view[0]


def _check_items(X, rows, start, stop):
    n = len(X) if rows is None else len(rows)
    if not 0 <= start <= stop <= n or n > 2**31:
        raise ValueError(f"start and stop must be in order within 0 .. {n} <= 2^31 items, got {start} and {stop}")


def working(X, rows, int64_t start, int64_t stop, mean, double scale, float[:, ::1] out):
    """Write the working vectors of items [start, stop) to out (stop - start, d); one thread."""
    cdef Source source = Source(X, rows, mean, scale)
    cdef int64_t j
    _check_items(X, rows, start, stop)
    if out.shape[0] != stop - start or out.shape[1] != X.shape[1]:
        raise ValueError("out must have shape (stop - start, d)")
    with nogil:
        for j in range(start, stop):
            kernel.working_vector(&source.c, j, 0, source.c.d, &out[j - start, 0])


cdef class Distances:
    """Waves of squared distances: anchors [first, last) x items [start, stop), in ``d2`` (anchors, ld).

    A wave has so many items and anchors that it takes some 50 ms and that its distances fit into WAVE_FLOATS.
    """

    cdef Source source
    cdef Scratch scratch
    cdef const float[:, ::1] anchors
    cdef float[::1] norms
    cdef float[:, ::1] d2
    cdef int64_t n_items, n_anchors
    cdef int n_threads

    def __cinit__(self, X, rows, mean, scale, const float[:, ::1] A, int64_t n, int n_threads):
        cdef int64_t d = X.shape[1], m = A.shape[0], i, work
        if A.shape[1] != d:
            raise ValueError(f"A must have {d} columns, got {A.shape[1]}")
        self.source = Source(X, rows, mean, scale)
        self.scratch = Scratch(kernel.distances_scratch(), n_threads)
        self.n_threads = n_threads
        self.anchors = A
        self.norms = np.empty(m, np.float32)
        for i in prange(m, num_threads=n_threads, nogil=True):
            kernel.square_norms(&A[i, 0], 1, d, &self.norms[i])
        work = WAVE_WORK // d * n_threads
        self.n_items = APH_TILE * most(8, 4 * n_threads)
        self.n_anchors = most(APH_ROW_GROUP, least(m, least(work, WAVE_FLOATS) // self.n_items))
        self.n_items = APH_TILE * most(n_threads, least(self.n_items, work // self.n_anchors) // APH_TILE)
        self.n_items = least(self.n_items, (n + APH_TILE - 1) // APH_TILE * APH_TILE)
        # an odd number of cache lines a row: rows of one column do not share a cache set
        self.d2 = np.empty((least(m, self.n_anchors), self.n_items + 16), np.float32)

    cdef int wave(self, int64_t start, int64_t stop, int64_t first, int64_t last) except -1:
        cdef int64_t n_tiles = (stop - start + APH_TILE - 1) // APH_TILE, t, at
        PyErr_CheckSignals()
        for t in prange(n_tiles, num_threads=self.n_threads, schedule="dynamic", nogil=True):
            at = start + t * APH_TILE
            kernel.distances(
                &self.source.c, at, least(APH_TILE, stop - at), &self.anchors[first, 0], &self.norms[first],
                last - first, &self.d2[0, t * APH_TILE], self.d2.shape[1], self.scratch.at(omp_get_thread_num()),
            )
        return 0


def nearest(X, rows, int64_t start, int64_t stop, mean, double scale, const float[:, ::1] A, float[:, ::1] best_d2,
            int64_t[:, ::1] best_id, int n_threads):
    """Merge items [start, stop) into the k nearest of each anchor, in place.

    Parameters
    ----------
    X, rows, mean, scale
        A source of items.
    start, stop : int
        Item numbers.
    A : ndarray of float32, shape (m, d)
        Working vectors of the anchors.
    best_d2, best_id : ndarray of float32 and int64, shape (m, k)
        Squared working distances ``most(0, |a|^2 + |x|^2 - 2 a.x)`` and item numbers; +inf and -1 where there are none
        yet. The k smallest by (d2, id) of what they hold and of the items, ascending, when it returns.
    n_threads : int

    Notes
    -----
    Needs m * (k + most(k, 1024)) * 8 bytes and a wave of distances. Waves are visited in a scattered order, so that
    items sorted from far to near do not make every one of them a candidate for a while.
    """
    cdef int64_t m = A.shape[0], k = best_d2.shape[1], i, w, n_waves, stride, at, end, first, last, n_spare_max
    cdef int64_t[::1] n_best, n_spare
    cdef uint64_t[::1] limit
    cdef uint64_t[:, ::1] spare
    cdef uint64_t *keys
    cdef Scratch scratch
    cdef Distances distances
    _check_items(X, rows, start, stop)
    if best_d2.shape[0] != m or best_id.shape[0] != m or best_id.shape[1] != k or k < 1:
        raise ValueError("best_d2 and best_id must have shape (m, k)")
    if m == 0 or start == stop:
        return
    distances = Distances(X, rows, mean, scale, A, stop - start, n_threads)
    n_spare_max = most(k, 1024)
    n_best = np.zeros(m, np.int64)
    n_spare = np.zeros(m, np.int64)
    limit = np.empty(m, np.uint64)
    spare = np.empty((m, n_spare_max + APH_SCAN), np.uint64)
    scratch = Scratch(16 * (k + n_spare_max + APH_SCAN), n_threads)
    for i in prange(m, num_threads=n_threads, nogil=True):
        n_best[i] = to_keys(&best_d2[i, 0], &best_id[i, 0], k, &limit[i])

    n_waves = (stop - start + distances.n_items - 1) // distances.n_items
    stride = scatter(n_waves)
    for w in range(n_waves):
        at = start + w * stride % n_waves * distances.n_items
        end = least(stop, at + distances.n_items)
        for first in range(0, m, distances.n_anchors):
            last = least(m, first + distances.n_anchors)
            distances.wave(at, end, first, last)
            for i in prange(first, last, num_threads=n_threads, schedule="dynamic", chunksize=4, nogil=True):
                kernel.keep_nearest(
                    &distances.d2[i - first, 0], end - at, at, k, <uint64_t *> &best_id[i, 0], &n_best[i],
                    &spare[i, 0], &n_spare[i], n_spare_max, &limit[i], <uint64_t *> scratch.at(omp_get_thread_num()),
                )
    PyErr_CheckSignals()
    for i in prange(m, num_threads=n_threads, schedule="dynamic", nogil=True):
        kernel.end_nearest(k, <uint64_t *> &best_id[i, 0], &n_best[i], &spare[i, 0], &n_spare[i],
                           <uint64_t *> scratch.at(omp_get_thread_num()))
        from_keys(&best_d2[i, 0], &best_id[i, 0], k, n_best[i])


cdef uint64_t INFINITY_BITS = (<uint64_t> 0x7f800000) << 32  # of a key


cdef int64_t scatter(int64_t n):
    """Return a stride that visits 0 .. n - 1 in a scattered order: coprime to n, near its golden section."""
    cdef int64_t stride = most(1, <int64_t> (n * 0.6180339887498949)), a, b
    while True:
        a, b = n, stride
        while b:
            a, b = b, a % b
        if a == 1:
            return stride
        stride += 1


cdef int64_t to_keys(float *d2, int64_t *ids, int64_t k, uint64_t *limit) noexcept nogil:
    """Turn the entries that have an id into keys, in place of the ids; return their number."""
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
            largest = most(largest, key)
            n += 1
    limit[0] = largest if n == k else INFINITY_BITS | <uint64_t> 0xffffffffu  # above every id
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


def within(X, rows, int64_t start, int64_t stop, mean, double scale, const float[:, ::1] A, const float[::1] bound_d2,
           int n_threads):
    """List the items of [start, stop) whose squared working distance to an anchor is at most its bound.

    Parameters
    ----------
    X, rows, start, stop, mean, scale, A, n_threads
        As for :func:`nearest`, with the same distances.
    bound_d2 : ndarray of float32, shape (m,)
        A negative bound (or NaN) matches nothing and costs nothing.

    Returns
    -------
    indptr : ndarray of int64, shape (m + 1,)
    ids : ndarray of int64
        Item numbers, ascending in each row ``ids[indptr[i]:indptr[i + 1]]``.
    """
    cdef int64_t m, i, at, end, first, last
    cdef float[::1] bound
    cdef int64_t[::1] ends, place
    cdef int32_t[::1] hits
    cdef int64_t[::1] ids
    cdef Distances distances
    _check_items(X, rows, start, stop)
    if bound_d2.shape[0] != A.shape[0]:
        raise ValueError("bound_d2 must have an element for each row of A")
    active = np.flatnonzero(np.asarray(bound_d2) >= 0)
    m = len(active)
    indptr = np.zeros(A.shape[0] + 1, np.int64)
    if m == 0 or start == stop:
        return indptr, np.empty(0, np.int64)
    chosen = np.asarray(A) if m == A.shape[0] else np.asarray(A)[active]
    bound = np.asarray(bound_d2)[active]
    distances = Distances(X, rows, mean, scale, chosen, stop - start, n_threads)
    found = []  # (first anchor, ends of its hits in `hits`, hits) of each wave
    for at in range(start, stop, distances.n_items):
        end = least(stop, at + distances.n_items)
        for first in range(0, m, distances.n_anchors):
            last = least(m, first + distances.n_anchors)
            distances.wave(at, end, first, last)
            ends = np.zeros(last - first + 1, np.int64)
            for i in prange(last - first, num_threads=n_threads, nogil=True):
                ends[i + 1] = kernel.count_within(&distances.d2[i, 0], end - at, bound[first + i])
            np.cumsum(ends, out=np.asarray(ends))
            hits = np.empty(ends[last - first] + 1, np.int32)
            for i in prange(last - first, num_threads=n_threads, nogil=True):
                kernel.list_within(&distances.d2[i, 0], end - at, bound[first + i], at, &hits[ends[i]])
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


def pair_distances(X, rows, const double[:, ::1] anchors, const int64_t[::1] indptr, const int64_t[::1] ids,
                   double[::1] out, int n_threads):
    """Compute the exact Euclidean distances of listed pairs of raw rows, in float64.

    Parameters
    ----------
    X, rows
        As for :func:`nearest`.
    anchors : ndarray of float64, shape (m, d)
        Raw rows.
    indptr, ids : ndarray of int64, shapes (m + 1,) and (nnz,)
        The items of anchor i are ``ids[indptr[i]:indptr[i + 1]]``.
    out : ndarray of float64, shape (nnz,)

    Notes
    -----
    Where every row of ids ascends, the work goes along the items, so that a mapped X is read once and in order.
    """
    cdef int64_t m = anchors.shape[0], nnz = ids.shape[0], i, b, n_blocks, block, wave, end, d = anchors.shape[1], n
    cdef Source source = Source(X, rows, None, 1.0)
    if d != X.shape[1] or indptr.shape[0] != m + 1 or out.shape[0] != nnz:
        raise ValueError("anchors, indptr, ids and out must be (m, d), (m + 1,), (nnz,) and (nnz,)")
    if nnz == 0:
        return
    n = len(X) if rows is None else len(rows)
    if is_ascending(indptr, ids):
        block = most(64, 1_000_000 // d)
        n_blocks = (n + block - 1) // block
        wave = most(1, n_blocks * (WAVE_WORK // 8 // d) // most(nnz, 1)) * n_threads
        for b in range(0, n_blocks, wave):
            PyErr_CheckSignals()
            end = least(n_blocks, b + wave)
            for i in prange(b, end, num_threads=n_threads, schedule="dynamic", nogil=True):
                pairs_of_items(&source.c, anchors, indptr, ids, i * block, (i + 1) * block, out)
    else:
        wave = most(1, m * (WAVE_WORK // 8 // d) // most(nnz, 1)) * n_threads
        for b in range(0, m, wave):
            PyErr_CheckSignals()
            end = least(m, b + wave)
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


cdef void pairs_of_items(const aph_source *source, const double[:, ::1] anchors, const int64_t[::1] indptr,
                         const int64_t[::1] ids, int64_t start, int64_t stop, double[::1] out) noexcept nogil:
    cdef int64_t i, low, high
    for i in range(anchors.shape[0]):
        low = lower_bound(ids, indptr[i], indptr[i + 1], start)
        high = lower_bound(ids, low, indptr[i + 1], stop)
        if high > low:
            kernel.pair_distances(source, &anchors[i, 0], &ids[low], high - low, &out[low])


cdef int64_t count_pairs(const int64_t[::1] indptr, int64_t block_rows) noexcept nogil:
    """Return the largest number of pairs of the items of one span; spans begin anew in each block."""
    cdef int64_t n = indptr.shape[0] - 1, start = 0, at = 0, end, pairs = 0
    while at < n:
        if at == start + block_rows:
            start = at
        end = least(n, least(start + block_rows, at + APH_SPAN))
        pairs = most(pairs, indptr[end] - indptr[at])
        at = end
    return pairs


cdef class AnchorPass:
    """The blocks of one pass for the anchors' sums, in waves of so many blocks as slots can hold."""

    cdef const float[:, ::1] B, H
    cdef const int64_t[::1] indptr
    cdef const int32_t[::1] anchors
    cdef float[::1] h_bias
    cdef aph_affinity q
    cdef Scratch scratch
    cdef int64_t block_rows, n_blocks
    cdef int n_threads

    def __cinit__(self, B, H, double q_scale, double q_power, indptr, anchors, int64_t block_rows, int n_threads):
        cdef int64_t m = H.shape[0], r = H.shape[1]
        if B.shape[1] != r or len(indptr) != len(B) + 1 or block_rows < 1 or m < 1:
            raise ValueError("B, H and indptr must be (n, r), (m, r) and (n + 1,), block_rows and m at least 1")
        self.B, self.H, self.indptr, self.anchors = B, H, indptr, anchors
        self.q.scale, self.q.power = q_scale, q_power
        self.block_rows = block_rows
        self.n_blocks = (len(B) + block_rows - 1) // block_rows
        self.n_threads = n_threads
        self.h_bias = np.empty(m, np.float32)
        kernel.bias(&self.H[0, 0], m, r, q_scale, 1.0, &self.h_bias[0])
        self.scratch = Scratch(kernel.anchor_scratch(m, r, count_pairs(self.indptr, block_rows)), n_threads)

    cdef int wave(self, int64_t first, int64_t last, double[:, :, ::1] sums, float[:, :, :, ::1] vectors,
                  double[::1] penalty) except -1:
        cdef int64_t b, at, r = self.H.shape[1]
        cdef const int32_t *anchors = &self.anchors[0] if self.anchors.shape[0] else NULL
        PyErr_CheckSignals()
        for b in prange(first, last, num_threads=self.n_threads, schedule="dynamic", nogil=True):
            at = b * self.block_rows
            kernel.anchor_block(
                &self.q, &self.B[at, 0], least(self.block_rows, self.B.shape[0] - at), r, &self.H[0, 0], &self.h_bias[0],
                self.H.shape[0], &self.indptr[at], anchors, &sums[b - first, 0, 0], &vectors[b - first, 0, 0, 0],
                &penalty[b - first], self.scratch.at(omp_get_thread_num()),
            )
        return 0

    cdef int64_t slots(self):
        """Return how many blocks make a wave: a multiple of the threads, within WAVE_WORK and WAVE_BYTES."""
        cdef int64_t pairs = self.H.shape[0] * self.H.shape[1]
        cdef int64_t rounds = least(WAVE_BYTES // (8 * pairs * self.n_threads), WAVE_WORK // (2 * pairs * self.block_rows))
        return least(self.n_blocks, most(1, rounds) * self.n_threads)


def anchor_pass(B, H, q_scale, q_power, indptr, anchors, block_rows, double[:, ::1] sums, double[:, :, ::1] vectors,
                double[::1] penalty, n_threads):
    """Sum over all items what the anchors' gradient and the objective need.

    ``g_ij = |h_i - b_j|^2 / 4``, ``V = 1 / (1 + g / q_scale)``, ``w = V^q_power``; P is the set of listed pairs.

    Parameters
    ----------
    B, H : ndarray of float32, shapes (n, r) and (m, r)
    q_scale, q_power : float
    indptr, anchors : ndarray of int64 and int32, shapes (n + 1,) and (nnz,)
        The anchors of item j in P are ``anchors[indptr[j]:indptr[j + 1]]``, distinct, in any order.
    block_rows : int
        Items of a block. The blocks' sums, vectors in float32, are added as a binary tree: 0 + 1, 2 + 3, their sums,
        and so on; what is left over is added from the right. So 2^t blocks that begin at a multiple of 2^t are a node.
    sums : ndarray of float64, shape (4, m)
        Overwritten by ``sum_j w``, ``sum_j w V``, ``sum_P V``, ``sum_P log(1 + g / q_scale)``.
    vectors : ndarray of float64, shape (2, m, r)
        Overwritten by ``sum_j w V b_j``, ``sum_P V b_j``.
    penalty : ndarray of float64, shape (1,)
        Overwritten by ``sum_jf (|b_jf| - 1)^2``.
    n_threads : int
    """
    cdef AnchorPass blocks = AnchorPass(B, H, q_scale, q_power, indptr, anchors, block_rows, n_threads)
    cdef int64_t m = blocks.H.shape[0], r = blocks.H.shape[1], n_slots = blocks.slots(), first, last, b, i
    cdef int threads = n_threads
    cdef double[:, :, ::1] part_sums, tree_sums
    cdef float[:, :, :, ::1] part_vectors, tree_vectors
    cdef double[::1] part_penalty, tree_penalty
    cdef int n_levels = 1
    if sums.shape[0] != 4 or sums.shape[1] != m or vectors.shape[0] != 2 or vectors.shape[1] != m \
            or vectors.shape[2] != r or penalty.shape[0] != 1:
        raise ValueError("sums, vectors and penalty must be (4, m), (2, m, r) and (1,)")
    if not blocks.n_blocks:
        sums[:, :] = 0
        vectors[:, :, :] = 0
        penalty[:] = 0
        return
    while blocks.n_blocks >> n_levels:
        n_levels += 1
    part_sums, tree_sums = np.empty((n_slots, 4, m)), np.empty((n_levels, 4, m))
    part_vectors, tree_vectors = np.empty((n_slots, 2, m, r), np.float32), np.empty((n_levels, 2, m, r), np.float32)
    part_penalty, tree_penalty = np.empty(n_slots), np.empty(n_levels)
    for first in range(0, blocks.n_blocks, most(1, n_slots)):
        last = least(blocks.n_blocks, first + n_slots)
        blocks.wave(first, last, part_sums, part_vectors, part_penalty)
        for i in prange(m, num_threads=threads, nogil=True):
            for b in range(last - first):
                add_part(first + b, &tree_sums[0, 0, i], 4 * m, &part_sums[b, 0, i], 4, m, 1)
                add_part(first + b, &tree_vectors[0, 0, i, 0], 2 * m * r, &part_vectors[b, 0, i, 0], 2, m * r, r)
        for b in range(last - first):
            add_part(first + b, &tree_penalty[0], 1, &part_penalty[b], 1, 1, 1)
    add_up(blocks.n_blocks, &tree_sums[0, 0, 0], 4 * m, &sums[0, 0])
    add_up(blocks.n_blocks, &tree_vectors[0, 0, 0, 0], 2 * m * r, &vectors[0, 0, 0])
    add_up(blocks.n_blocks, &tree_penalty[0], 1, &penalty[0])


ctypedef fused real:
    float
    double


cdef void add_part(int64_t number, real *tree, int64_t level, real *part, int64_t n_rows, int64_t stride,
                   int64_t length) noexcept nogil:
    """Count a block's part in, as a binary counter: tree[t] is the sum of 2^t blocks where bit t of the count is set."""
    cdef int64_t at, f
    while number & 1:
        for at in range(n_rows):
            for f in range(length):
                part[at * stride + f] = tree[at * stride + f] + part[at * stride + f]
        tree += level
        number >>= 1
    for at in range(n_rows):
        for f in range(length):
            tree[at * stride + f] = part[at * stride + f]


cdef void add_up(int64_t n, real *tree, int64_t size, double *out) noexcept nogil:
    """Write the sum of n blocks, whose counter the tree is."""
    cdef real *total = NULL
    cdef int64_t f
    while n:
        if n & 1:
            if total:
                for f in range(size):
                    tree[f] = tree[f] + total[f]
            total = tree
        tree += size
        n >>= 1
    for f in range(size):
        out[f] = total[f]


def item_pass(float[:, ::1] B, float[:, ::1] M1, float[:, ::1] M2, H, inv_z, p, q_scale, q_power, indptr, anchors,
              block_rows, step, n_threads):
    """Make one step of Adam on every item, in place.

    ``A_ij = (p_i [ij in P] - w_ij inv_z_i) V_ij``; the gradient of item j is ``factor q_power / (2 q_scale)
    (sum_i A_ij b_j - sum_i A_ij h_i) + penalty (|b_j| - 1) sign(b_j)`` with ``sign(0) = 1``.

    Parameters
    ----------
    B, M1, M2 : ndarray of float32, shape (n, r)
        Items and the moments of their gradients; updated.
    H : ndarray of float32, shape (m, r)
    inv_z, p : ndarray of float32, shape (m,)
    q_scale, q_power, indptr, anchors
        As for :func:`anchor_pass`.
    block_rows : int
        Items of a piece of work; no result depends on it.
    step : tuple of float
        (factor, penalty, lr, b1, b2, c1, c2, eps): c1, c2 are ``1 - b1^t``, ``1 - b2^t``.
    n_threads : int
    """
    if M1.shape[0] != B.shape[0] or M1.shape[1] != B.shape[1] or M2.shape[0] != B.shape[0] or M2.shape[1] != B.shape[1]:
        raise ValueError("M1 and M2 must have the shape of B")
    if B.shape[0]:
        _items(B, &B[0, 0], &M1[0, 0], &M2[0, 0], NULL, H, inv_z, p, q_scale, q_power, indptr, anchors, block_rows, step,
               n_threads)


def item_gradient(const float[:, ::1] B, H, inv_z, p, q_scale, q_power, indptr, anchors, block_rows, factor, penalty,
                  float[:, ::1] out, n_threads):
    """Write the gradient of :func:`item_pass` to out (n, r) and update nothing."""
    if out.shape[0] != B.shape[0] or out.shape[1] != B.shape[1]:
        raise ValueError("out must have the shape of B")
    if B.shape[0]:
        _items(B, <float *> &B[0, 0], NULL, NULL, &out[0, 0], H, inv_z, p, q_scale, q_power, indptr, anchors, block_rows,
               (factor, penalty, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0), n_threads)


cdef int _items(const float[:, ::1] B, float *b, float *m1, float *m2, float *out, const float[:, ::1] H,
                const float[::1] inv_z, const float[::1] p, double q_scale, double q_power, const int64_t[::1] indptr,
                const int32_t[::1] anchors, int64_t block_rows, step, int n_threads) except -1:
    cdef int64_t n = B.shape[0], r = B.shape[1], m = H.shape[0], n_tiles = (m + APH_TILE - 1) // APH_TILE
    cdef int64_t ld = (r + kernel.width - 1) // kernel.width * kernel.width, n_blocks, wave, first, last, t, at, o
    cdef aph_affinity q = aph_affinity(q_scale, q_power)
    cdef aph_step adam
    cdef Scratch scratch, packed, structs
    cdef aph_columns *columns
    cdef float[::1] weight = np.zeros(n_tiles * APH_TILE, np.float32)
    cdef const int32_t *pair_anchors = &anchors[0] if anchors.shape[0] else NULL
    if H.shape[1] != r or inv_z.shape[0] != m or p.shape[0] != m or indptr.shape[0] != n + 1 or block_rows < 1:
        raise ValueError("H, inv_z, p and indptr must be (m, r), (m,), (m,) and (n + 1,), block_rows at least 1")
    adam.factor, adam.penalty, adam.lr, adam.b1, adam.b2, adam.c1, adam.c2, adam.eps = step
    for at in range(m):
        weight[at] = -inv_z[at]
    packed = Scratch(4 * APH_TILE * (r + ld + 1), n_tiles)
    structs = Scratch(n_tiles * sizeof(aph_columns), 1)
    columns = <aph_columns *> structs.at(0)
    for t in prange(n_tiles, num_threads=n_threads, nogil=True):
        columns[t].panels = <float *> packed.at(t)
        columns[t].nat = columns[t].panels + APH_TILE * r
        columns[t].bias = columns[t].nat + APH_TILE * ld
        kernel.pack_columns(&H[t * APH_TILE, 0], least(APH_TILE, m - t * APH_TILE), r, q_scale, 1.0, &columns[t])
    block_rows = least(block_rows, most(APH_ROW_GROUP, WAVE_WORK // (2 * m * r) // APH_ROW_GROUP * APH_ROW_GROUP))
    scratch = Scratch(kernel.item_scratch(r), n_threads)
    n_blocks = (n + block_rows - 1) // block_rows
    wave = most(1, WAVE_WORK // (2 * m * r * block_rows)) * n_threads
    for first in range(0, n_blocks, wave):
        PyErr_CheckSignals()
        last = least(n_blocks, first + wave)
        for t in prange(first, last, num_threads=n_threads, schedule="dynamic", nogil=True):
            at = t * block_rows
            o = at * r
            kernel.item_block(
                &q, &adam, b + o, m1 + o if m1 != NULL else NULL, m2 + o if m2 != NULL else NULL,
                out + o if out != NULL else NULL, least(block_rows, n - at), r, columns, &weight[0], &p[0], m, &indptr[at],
                pair_anchors, scratch.at(omp_get_thread_num()),
            )
    return 0


def project(X, rows, int64_t start, int64_t stop, mean, double scale, W, bias, float[:, ::1] out, int n_threads):
    """Write the projections ``working vector @ W + bias`` of items [start, stop) to out.

    Parameters
    ----------
    X, rows, start, stop, mean, scale
        As for :func:`nearest`.
    W, bias : ndarray of float32, shapes (d, r) and (r,)
    out : ndarray of float32, shape (stop - start, r)
    n_threads : int
    """
    Projection(W, bias, mean, scale, n_threads).project(X, rows, start, stop, out, n_threads)


def encode(X, rows, int64_t start, int64_t stop, mean, double scale, W, bias, uint64_t[:, ::1] out, int n_threads):
    """Write the packed signs (1 where >= 0) of the very numbers of :func:`project` to out (stop - start, n_words)."""
    Projection(W, bias, mean, scale, n_threads).encode(X, rows, start, stop, out, n_threads)


cdef class Projection:
    """A hash function packed for the kernels, once for any number of calls.

    Parameters
    ----------
    W, bias : ndarray of float32, shapes (d, r) and (r,)
    mean, scale
        Of the working vectors; as for :func:`nearest`.
    n_threads : int
        That pack.
    """

    cdef const aph_learn *kernel  # of the instruction set that it is packed for
    cdef Scratch panels
    cdef float[::1] bias
    cdef const double[::1] mean
    cdef double scale
    cdef int64_t d, r, n_words

    def __init__(self, const float[:, ::1] W, const float[::1] bias, mean, double scale, int n_threads=1):
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
        return self.kernel == kernel

    def project(self, X, rows, int64_t start, int64_t stop, float[:, ::1] out, int n_threads):
        """Write the projections of items [start, stop) to out (stop - start, r); see :func:`project`."""
        if out.shape[0] != stop - start or out.shape[1] != self.r:
            raise ValueError("out must have shape (stop - start, r)")
        if stop > start:
            self.run(X, rows, start, stop, &out[0, 0], NULL, n_threads)

    def encode(self, X, rows, int64_t start, int64_t stop, uint64_t[:, ::1] out, int n_threads):
        """Write the codes of items [start, stop) to out (stop - start, n_words); see :func:`encode`."""
        if out.shape[0] != stop - start or out.shape[1] != self.n_words:
            raise ValueError("out must have shape (stop - start, n_words)")
        if stop > start:
            self.run(X, rows, start, stop, NULL, &out[0, 0], n_threads)

    cdef int run(self, X, rows, int64_t start, int64_t stop, float *out, uint64_t *codes, int n_threads) except -1:
        cdef int64_t d = self.d, r = self.r, words = self.n_words, block, n_blocks, wave, first, last, t, at
        cdef Source source = Source(X, rows, np.asarray(self.mean), self.scale)
        cdef Scratch scratch = Scratch(self.kernel.project_scratch(r, stop - start), n_threads)
        cdef const float *packed = <const float *> self.panels.at(0)
        _check_items(X, rows, start, stop)
        block = APH_ROW_GROUP * most(1, least(16, WAVE_WORK // (APH_ROW_GROUP * d * r)))
        n_blocks = (stop - start + block - 1) // block
        wave = most(1, WAVE_WORK // (block * d * r)) * n_threads
        for first in range(0, n_blocks, wave):
            PyErr_CheckSignals()
            last = least(n_blocks, first + wave)
            for t in prange(first, last, num_threads=n_threads, schedule="dynamic", nogil=True):
                at = t * block
                self.kernel.project(
                    &source.c, start + at, least(block, stop - start - at), packed, &self.bias[0], r,
                    out + at * r if out != NULL else NULL, codes + at * words if codes != NULL else NULL,
                    scratch.at(omp_get_thread_num()),
                )
        return 0

    def project_row(self, X, double farthest):
        """Return the projections of one row; see :meth:`encode_row`."""
        return self.run_row(X, farthest, False)

    def encode_row(self, X, double farthest):
        """Return the code of one row, or None for whatever is no plain array of it: the short way of a single query.

        Parameters
        ----------
        X : ndarray of float16, float32 or float64, shape (1, d) or (d,)
        farthest : float
            Rows with values beyond it, NaN among them, are none that are answered here.

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
    """Whether no number is beyond farthest, or NaN."""
    cdef const uint16_t *halves = <const uint16_t *> x
    cdef const float *singles = <const float *> x
    cdef const double *doubles = <const double *> x
    cdef int64_t k
    cdef int beyond = 0
    if dtype == 0:  # from 0x7c00 on they are infinity and NaN; the largest number is 65,504
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
    """Return the multiply-adds a second of one thread in a loop that touches registers only, for the benchmarks."""
    cdef int64_t rounds = 1_000_000
    cdef double begin, best = 0, until = time.perf_counter() + seconds
    cdef float total = 0
    while time.perf_counter() < until:
        begin = time.perf_counter()
        with nogil:
            total += kernel.multiply_add(rounds)
        best = max(best, rounds * kernel.width * kernel.block / (time.perf_counter() - begin))
    return best if total == total else 0.0
