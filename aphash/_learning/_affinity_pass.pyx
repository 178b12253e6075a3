"""The two passes over all pairs of anchors and items that an iteration needs: the anchors' pass and the items' pass."""

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t

import numpy as np

from aphash._kernels cimport omp_get_thread_num
from aphash._learning._source cimport (
    APH_BAND, APH_SPAN, APH_TILE, WAVE_BYTES, WAVE_WORK, Scratch, aph_affinity, aph_columns, aph_learn, aph_step,
    kernels)


cdef int64_t count_pairs(const int64_t[::1] indptr, int64_t block_rows) noexcept nogil:
    """Return the largest number of pairs in one span of items. Spans begin anew in each block."""
    cdef int64_t n = indptr.shape[0] - 1, start = 0, at = 0, end, pairs = 0
    while at < n:
        if at == start + block_rows:
            start = at
        end = min(n, min(start + block_rows, at + APH_SPAN))
        pairs = max(pairs, indptr[end] - indptr[at])
        at = end
    return pairs


cdef class AnchorPass:
    """The anchors' pass over the blocks of items, in waves of as many blocks as there are slots for."""

    cdef const aph_learn *kernel
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
        self.kernel = kernels()
        self.B, self.H, self.indptr, self.anchors = B, H, indptr, anchors
        self.q.scale, self.q.power = q_scale, q_power
        self.block_rows = block_rows
        self.n_blocks = (len(B) + block_rows - 1) // block_rows
        self.n_threads = n_threads
        self.h_bias = np.empty(m, np.float32)
        self.kernel.bias(&self.H[0, 0], m, r, q_scale, 1.0, &self.h_bias[0])
        self.scratch = Scratch(self.kernel.anchor_scratch(m, r, count_pairs(self.indptr, block_rows)), n_threads)

    cdef int wave(self, int64_t first, int64_t last, double[:, :, ::1] sums, float[:, :, :, ::1] vectors,
                  double[::1] quantization_loss) except -1:
        cdef int64_t b, at, r = self.H.shape[1]
        cdef const int32_t *anchors = &self.anchors[0] if self.anchors.shape[0] else NULL
        PyErr_CheckSignals()
        for b in prange(first, last, num_threads=self.n_threads, schedule="dynamic", nogil=True):
            at = b * self.block_rows
            self.kernel.anchor_block(
                &self.q, &self.B[at, 0], min(self.block_rows, self.B.shape[0] - at), r, &self.H[0, 0], &self.h_bias[0],
                self.H.shape[0], &self.indptr[at], anchors, &sums[b - first, 0, 0], &vectors[b - first, 0, 0, 0],
                &quantization_loss[b - first], self.scratch.at(omp_get_thread_num()),
            )
        return 0

    cdef int64_t slots(self):
        """Return how many blocks make a wave: a multiple of the threads, within WAVE_WORK and WAVE_BYTES."""
        cdef int64_t pairs = self.H.shape[0] * self.H.shape[1]
        cdef int64_t rounds = min(WAVE_BYTES // (8 * pairs * self.n_threads), WAVE_WORK // (2 * pairs * self.block_rows))
        return min(self.n_blocks, max(1, rounds) * self.n_threads)


def anchor_pass(B, H, q_scale, q_power, indptr, anchors, block_rows, double[:, ::1] sums, double[:, :, ::1] vectors,
                double[::1] quantization_loss, n_threads):
    """Compute the sums over all items that the anchors' gradient and the objective need.

    ``g_ij = |h_i - b_j|^2 / 4``, ``V = 1 / (1 + g / q_scale)``, ``w = V^q_power``; P is the set of listed pairs.

    Parameters
    ----------
    B, H : ndarray of float32, shapes (n, r) and (m, r)
    q_scale, q_power : float
    indptr, anchors : ndarray of int64 and int32, shapes (n + 1,) and (nnz,)
        The anchors of item j in P are ``anchors[indptr[j]:indptr[j + 1]]``, distinct, in any order.
    block_rows : int
        The number of items in a block. The sums of the blocks, with vectors in float32, are added as a binary tree: 0 +
        1, 2 + 3, then these sums, and so on. What is left over is added from the right. So 2^t blocks that begin at a
        multiple of 2^t have a sum of their own, a node of the tree.
    sums : ndarray of float64, shape (4, m)
        Overwritten by ``sum_j w``, ``sum_j w V``, ``sum_P V``, ``sum_P log(1 + g / q_scale)``.
    vectors : ndarray of float64, shape (2, m, r)
        Overwritten by ``sum_j w V b_j``, ``sum_P V b_j``.
    quantization_loss : ndarray of float64, shape (1,)
        Overwritten by ``sum_jf (|b_jf| - 1)^2``.
    n_threads : int
    """
    cdef AnchorPass blocks = AnchorPass(B, H, q_scale, q_power, indptr, anchors, block_rows, n_threads)
    cdef int64_t m = blocks.H.shape[0], r = blocks.H.shape[1], n_slots = blocks.slots(), first, last, b, i
    cdef int threads = n_threads
    cdef double[:, :, ::1] block_sums, tree_sums
    cdef float[:, :, :, ::1] block_vectors, tree_vectors
    cdef double[::1] block_loss, tree_loss
    cdef int n_levels = 1
    if sums.shape[0] != 4 or sums.shape[1] != m or vectors.shape[0] != 2 or vectors.shape[1] != m \
            or vectors.shape[2] != r or quantization_loss.shape[0] != 1:
        raise ValueError("sums, vectors and quantization_loss must be (4, m), (2, m, r) and (1,)")
    if not blocks.n_blocks:
        sums[:, :] = 0
        vectors[:, :, :] = 0
        quantization_loss[:] = 0
        return
    while blocks.n_blocks >> n_levels:
        n_levels += 1
    block_sums, tree_sums = np.empty((n_slots, 4, m)), np.empty((n_levels, 4, m))
    block_vectors, tree_vectors = np.empty((n_slots, 2, m, r), np.float32), np.empty((n_levels, 2, m, r), np.float32)
    block_loss, tree_loss = np.empty(n_slots), np.empty(n_levels)
    for first in range(0, blocks.n_blocks, max(1, n_slots)):
        last = min(blocks.n_blocks, first + n_slots)
        blocks.wave(first, last, block_sums, block_vectors, block_loss)
        for i in prange(m, num_threads=threads, nogil=True):
            for b in range(last - first):
                add_block(first + b, &tree_sums[0, 0, i], 4 * m, &block_sums[b, 0, i], 4, m, 1)
                add_block(first + b, &tree_vectors[0, 0, i, 0], 2 * m * r, &block_vectors[b, 0, i, 0], 2, m * r, r)
        for b in range(last - first):
            add_block(first + b, &tree_loss[0], 1, &block_loss[b], 1, 1, 1)
    add_up(blocks.n_blocks, &tree_sums[0, 0, 0], 4 * m, &sums[0, 0])
    add_up(blocks.n_blocks, &tree_vectors[0, 0, 0, 0], 2 * m * r, &vectors[0, 0, 0])
    add_up(blocks.n_blocks, &tree_loss[0], 1, &quantization_loss[0])


ctypedef fused real:
    float
    double


cdef void add_block(int64_t number, real *tree, int64_t level, real *sums, int64_t n_rows, int64_t stride,
                   int64_t length) noexcept nogil:
    """Add a block to a binary counter: tree[t] is the sum of 2^t blocks where bit t of the count is set."""
    cdef int64_t at, f
    while number & 1:
        for at in range(n_rows):
            for f in range(length):
                sums[at * stride + f] = tree[at * stride + f] + sums[at * stride + f]
        tree += level
        number >>= 1
    for at in range(n_rows):
        for f in range(length):
            tree[at * stride + f] = sums[at * stride + f]


cdef void add_up(int64_t n, real *tree, int64_t size, double *out) noexcept nogil:
    """Write the sum of n blocks, of which the tree is the counter."""
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
    (sum_i A_ij b_j - sum_i A_ij h_i) + quantization (|b_j| - 1) sign(b_j)`` with ``sign(0) = 1``.

    Parameters
    ----------
    B, M1, M2 : ndarray of float32, shape (n, r)
        Items and the moments of their gradients; updated.
    H : ndarray of float32, shape (m, r)
    inv_z, p : ndarray of float32, shape (m,)
    q_scale, q_power, indptr, anchors
        As for :func:`anchor_pass`.
    block_rows : int
        Items of one call of the kernel at most; no result depends on it.
    step : tuple of float
        (factor, quantization, lr, b1, b2, c1, c2, eps): c1, c2 are ``1 - b1^t``, ``1 - b2^t``.
    n_threads : int
    """
    if M1.shape[0] != B.shape[0] or M1.shape[1] != B.shape[1] or M2.shape[0] != B.shape[0] or M2.shape[1] != B.shape[1]:
        raise ValueError("M1 and M2 must have the shape of B")
    if B.shape[0]:
        _items(B, &B[0, 0], &M1[0, 0], &M2[0, 0], NULL, H, inv_z, p, q_scale, q_power, indptr, anchors, block_rows, step,
               n_threads)


def item_gradient(const float[:, ::1] B, H, inv_z, p, q_scale, q_power, indptr, anchors, block_rows, factor, quantization,
                  float[:, ::1] out, n_threads):
    """Write the gradient of :func:`item_pass` to out (n, r) and update nothing."""
    if out.shape[0] != B.shape[0] or out.shape[1] != B.shape[1]:
        raise ValueError("out must have the shape of B")
    if B.shape[0]:
        _items(B, <float *> &B[0, 0], NULL, NULL, &out[0, 0], H, inv_z, p, q_scale, q_power, indptr, anchors, block_rows,
               (factor, quantization, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0), n_threads)


cdef int _items(const float[:, ::1] B, float *b, float *m1, float *m2, float *out, const float[:, ::1] H,
                const float[::1] inv_z, const float[::1] p, double q_scale, double q_power, const int64_t[::1] indptr,
                const int32_t[::1] anchors, int64_t block_rows, step, int n_threads) except -1:
    cdef const aph_learn *kernel = kernels()
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
    adam.factor, adam.quantization, adam.lr, adam.b1, adam.b2, adam.c1, adam.c2, adam.eps = step
    for at in range(m):
        weight[at] = -inv_z[at]
    packed = Scratch(4 * APH_TILE * (r + ld + 1), n_tiles)
    structs = Scratch(n_tiles * sizeof(aph_columns), 1)
    columns = <aph_columns *> structs.at(0)
    for t in prange(n_tiles, num_threads=n_threads, nogil=True):
        columns[t].panels = <float *> packed.at(t)
        columns[t].nat = columns[t].panels + APH_TILE * r
        columns[t].bias = columns[t].nat + APH_TILE * ld
        kernel.pack_columns(&H[t * APH_TILE, 0], min(APH_TILE, m - t * APH_TILE), r, q_scale, 1.0, &columns[t])
    block_rows = min(block_rows, max(APH_BAND, WAVE_WORK // (2 * m * r) // APH_BAND * APH_BAND))
    scratch = Scratch(kernel.item_scratch(r), n_threads)
    n_blocks = (n + block_rows - 1) // block_rows
    wave = max(1, WAVE_WORK // (2 * m * r * block_rows)) * n_threads
    for first in range(0, n_blocks, wave):
        PyErr_CheckSignals()
        last = min(n_blocks, first + wave)
        for t in prange(first, last, num_threads=n_threads, schedule="dynamic", nogil=True):
            at = t * block_rows
            o = at * r
            kernel.item_block(
                &q, &adam, b + o, m1 + o if m1 != NULL else NULL, m2 + o if m2 != NULL else NULL,
                out + o if out != NULL else NULL, min(block_rows, n - at), r, columns, &weight[0], &p[0], m, &indptr[at],
                pair_anchors, scratch.at(omp_get_thread_num()),
            )
    return 0
