"""The training rows, which are read by blocks, centred and scaled, and all sums and maps over them.

Working vectors are float32((x - mean) * scale), whose mean square norm is 1. They are computed in float64, so that
offsets and magnitudes of X cost no precision.
"""

import numpy as np

from aphash._common.finite import check_finite
from aphash._common.threads import map_ordered
from aphash._learning import _affinity_pass, _distances, _projection, _source
from aphash._learning.blocks import (
    BlockSums,
    block_rows,
    blocks,
    chunk_rows,
    chunks,
    codes_of_block,
    fill_random,
    working,
)
from aphash._learning.linear import Rotation


def nearest(source, A, k, n_threads):
    """Return the k nearest items of working anchors A (m, d): squared distances float32 and items, (m, k)."""
    d2 = np.full((len(A), k), np.inf, np.float32)
    items = np.full((len(A), k), -1, np.int64)
    _distances.nearest(source, 0, source.n, A, d2, items, n_threads)
    return d2, items


def within(source, A, bound, n_threads):
    """Return (indptr, items) of the items within the squared working distance bound_i of each anchor, ascending."""
    return _distances.within(source, 0, source.n, A, bound, n_threads)


def distances(source, anchors, indptr, items, n_threads):
    """Return the exact distances, in units of X, of anchors (m, d) to their items, (len(items),) float64."""
    out = np.empty(len(items))
    _distances.pair_distances(source, anchors, indptr, items, out, n_threads)
    return out


def project(source, W, bias, out, n_threads):
    """Write the projections (working vectors) @ W + bias of all items to out, float32 (n, r)."""
    W, bias = np.ascontiguousarray(W, np.float32), np.ascontiguousarray(bias, np.float32)
    _projection.project(source, 0, source.n, W, bias, out, n_threads)


class Rows(BlockSums):
    """The rows that learn, with the relaxed codes B (n, r) that belong to them.

    Parameters
    ----------
    X : ndarray of shape (n_rows, d)
        C-contiguous float16, float32 or float64. It may be a memory map.
    rows : ndarray of int64 or None
        The ascending rows of X that learn; None for all.
    n_threads : int

    Attributes
    ----------
    source : Source
        X, rows, mean and scale, from which the kernels read working vectors.
    n, d : int
    mean : ndarray of float64, shape (d,)
    scale : float
        1 / the root of the mean squared distance to the mean.
    B : ndarray of float32, shape (n, r)
        After :meth:`project`.
    """

    def __init__(self, X, rows, n_threads):
        self.source, self.n_threads = _source.Source(X, rows), n_threads
        self.n, self.d = self.source.n, self.source.d
        self.chunk = chunk_rows(self.n, self.d)
        self.B = None
        self.mean, self.scale = self.statistics()
        self.source = self.source.centred(self.mean, self.scale)

    # -- blocks -------------------------------------------------------------------------------------------------------

    def map_vectors(self, function, *args):
        return self._map(function, (self.source,), args)

    def map_codes(self, function, *args):
        return self._map(function, (self.B,), args)

    def map_both(self, function, *args):
        return self._map(function, (self.source, self.B), args)

    def _map(self, function, of, args):
        edges = ((*of, start, stop, *args) for start, stop in blocks(self.n))
        return map_ordered(function, edges, self.n_threads)

    def _change(self, function, *args):
        """Let a function change each block of B."""
        for _ in self.map_codes(function, *args):
            pass

    # -- reading ------------------------------------------------------------------------------------------------------

    def take(self, items):
        """Return the rows of X of the items, as they were given, (len(items), d)."""
        return self.source.take(items)

    def working(self, items):
        """Return the working vectors of the items (an index array or a slice), float32."""
        return working(self.source, items)

    def check_finite(self):
        """Raise ValueError, which names the row, for NaN and infinity."""
        check_finite(self.source.X, self.n_threads)

    def any_differs(self):
        """Return whether any row differs from the first."""
        first = self.take(slice(0, 1))
        return any((self.take(part) != first).any() for part in chunks(1, self.n, self.chunk))

    # -- neighbours of the anchors ------------------------------------------------------------------------------------

    def nearest(self, A, k):
        """As :func:`nearest` of all rows."""
        return nearest(self.source, A, k, self.n_threads)

    def within(self, A, bound):
        """As :func:`within` of all rows."""
        return within(self.source, A, bound, self.n_threads)

    def distances(self, anchors, indptr, items):
        """As :func:`distances` of all rows."""
        return distances(self.source, anchors, indptr, items, self.n_threads)

    # -- the relaxed codes --------------------------------------------------------------------------------------------

    def project(self, W, bias):
        """Set B to the projections (working vectors) @ W + bias, scaled so that the mean of |B| is 1."""
        if self.B is None or self.B.shape[1] != W.shape[1]:
            self.B = np.empty((self.n, W.shape[1]), np.float32)
        project(self.source, W, bias, self.B, self.n_threads)
        self._change(_multiply, self.normalizer(W.shape[1]))

    def random_codes(self, r, seed):
        """Set B to standard normal numbers; see :func:`~aphash._learning.blocks.fill_random`."""
        self.B = np.empty((self.n, r), np.float32)
        self._change(fill_random, seed, 0)

    def take_codes(self, items):
        """Return the relaxed codes of the items, float32 (len(items), r)."""
        return self.B[items]

    def zero_moments(self, r):
        """Return Adam's moments: two arrays of zeros with the shape of B."""
        return np.zeros((self.n, r), np.float32), np.zeros((self.n, r), np.float32)

    def anchor_pass(self, H, q_scale, q_power, P, sums, vectors, quantization_loss):
        """Fill the sums over all items that J and dJ/dH need; see ``_affinity_pass.anchor_pass``."""
        _affinity_pass.anchor_pass(
            self.B, H, q_scale, q_power, P.indptr, P.anchors, block_rows(self.n), sums, vectors, quantization_loss,
            self.n_threads,
        )  # fmt: skip

    def item_pass(self, moments, H, inv_z, p, q_scale, q_power, P, step):
        """Move every row of B by one step of Adam; see ``_affinity_pass.item_pass``."""
        _affinity_pass.item_pass(
            self.B, *moments, H, inv_z, p, q_scale, q_power, P.indptr, P.anchors, block_rows(self.n), step,
            self.n_threads,
        )  # fmt: skip

    def rotate_towards_signs(self, sample, start, n_iter, rng):
        """Replace B by (B - its mean) R, where R is found on the items of the sample. Return the mean and R."""
        mean = self.mean_code()
        rotation = Rotation(self.take_codes(sample) - mean, start, n_iter, rng, self.n_threads)
        self._change(_rotate, mean, rotation)
        return mean, rotation

    def codes(self):
        """Return the packed signs of B, (n, n_words) uint64."""
        return np.concatenate(list(self.map_codes(codes_of_block)))


def _multiply(B, start, stop, factor):
    B[start:stop] *= factor


def _rotate(B, start, stop, mean, rotation):
    B[start:stop] = rotation(B[start:stop] - mean)
