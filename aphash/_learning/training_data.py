"""The training rows: read by blocks, centred and scaled; and everything that is a sum or a map over them.

A block is the one unit of work: its number of rows depends on n only, its partial sum is a function of its rows only,
and partial sums are added in block order, those of the anchor pass as a fixed tree. So no result depends on the number
of threads, and another place that holds the same blocks (aphash.dask) gets the same bits from the same functions.

Working vectors are float32((x - mean) * scale), mean |.|^2 = 1: computed in float64, so that offsets and magnitudes of
X cost no precision, and never held for more rows than a chunk.
"""

import numpy as np

from aphash._common.finite import check_finite
from aphash._common.threads import map_ordered
from aphash._learning import _affinity_pass, _distances, _projection, _source
from aphash._learning.linear import Rotation
from aphash.codes import pack

_PERMUTED_ROWS = 1_000_000  # up to here rows are drawn by a permutation: 8 MB, and the bits of earlier versions
_CHUNK_BYTES = 1 << 22  # of float32 working vectors held at a time, by each thread


def block_rows(n):
    """Return the number of rows of a block: at most 128 blocks, at least 1,024 rows each; a multiple of 64."""
    return max(1024, -(-n // (128 * 64)) * 64)


def chunk_rows(n, d):
    """Return how many rows of a block are working vectors at a time."""
    return max(64, min(block_rows(n), _CHUNK_BYTES // (4 * d)))


def blocks(n):
    """Return the list of (start, stop) of the blocks of n rows."""
    step = block_rows(n)
    return [(start, min(start + step, n)) for start in range(0, n, step)]


def draw_rows(n, n_rows, rng):
    """Return n_rows different numbers below n, ascending, all such sets alike likely; memory in proportion to them."""
    if n <= _PERMUTED_ROWS:
        return np.sort(rng.choice(n, n_rows, replace=False))
    if 2 * n_rows > n:  # n bytes are in proportion, too
        stays = np.ones(n, bool)
        stays[draw_rows(n, n - n_rows, rng)] = False
        return np.flatnonzero(stays)
    rows = np.zeros(0, np.int64)
    while len(rows) < n_rows:  # as if one after the other was drawn, and a repeated one drawn again
        rows = np.union1d(rows, rng.randint(0, n, n_rows - len(rows), np.int64))
    return rows


def merge_statistics(one, other):
    """Merge two (count, mean, sum of squared distances to the mean)."""
    (n, mean, spread), (m, other_mean, other_spread) = one, other
    with np.errstate(over="ignore", invalid="ignore"):
        shift = other_mean - mean
        return n + m, mean + shift * (m / (n + m)), spread + other_spread + (shift @ shift) * n * m / (n + m)


class BlockSums:
    """What is a sum over blocks, wherever they are: ``_map(method, *args)`` yields the blocks' parts in their order."""

    def _sum(self, method, *args):
        """Add what the method returns, a tuple of float64 arrays, over the blocks, in their order."""
        total = None
        for part in self._map(method, *args):
            if total is None:
                total = part
            else:
                for left, right in zip(total, part, strict=True):
                    left += right
        return total

    def _statistics(self):
        """Return mean and scale; NaN and infinity are caught here, by their sums."""
        merged = (0, np.zeros(self.d), 0.0)
        for block in self._map(Rows._statistics_block):
            merged = merge_statistics(merged, block)
        _, mean, spread = merged
        if not np.isfinite(spread):
            self._check_finite()
            raise ValueError("Input X has values so large that squared distances overflow float64: rescale X")
        if spread <= 1e-24 * self.n * (mean @ mean) and not self._any_differs():
            raise ValueError("Input X has no spread: all rows are equal, so there is nothing to learn")
        if spread / self.n < 1e-290:
            raise ValueError("Input X has values so close that squared distances underflow float64: rescale X")
        return mean, float(1 / np.sqrt(spread / self.n))

    def gram(self):
        """Return sum_j x_j x_j^T of the working vectors, (d, d) float64."""
        return self._sum(Rows._gram_block)[0]

    def gram_times(self, V):
        """Return (sum_j x_j x_j^T) V without the d x d matrix: for d that is too large for it. V (d, p) float64."""
        return self._sum(Rows._gram_times_block, np.ascontiguousarray(V, np.float32))[0]

    def cross(self, target):
        """Return (sum_j x_j t_j^T, sum_j t_j, sum |t|^2) for the targets t_j = target(b_j); float64."""
        return self._sum(Rows._cross_block, target)


class Rows(BlockSums):
    """The rows that learn, with the relaxed codes B (n, r) that belong to them.

    Parameters
    ----------
    X : ndarray of shape (n_rows, d)
        C-contiguous float16, float32 or float64; may be a memory map.
    rows : ndarray of int64 or None
        The ascending rows of X that learn; None for all.
    n_threads : int

    Attributes
    ----------
    n, d : int
    mean : ndarray of float64, shape (d,)
    scale : float
        One over the root of the mean squared distance to the mean.
    B : ndarray of float32, shape (n, r)
        After :meth:`project`.
    """

    def __init__(self, X, rows, n_threads):
        self.X, self.rows, self.n_threads = X, rows, n_threads
        self.n = len(X) if rows is None else len(rows)
        self.d = X.shape[1]
        self.chunk = chunk_rows(self.n, self.d)
        self.offset = 0  # of these rows among all, where they are one block of many
        self.B = None
        self.mean, self.scale = self._statistics()

    # -- reading ------------------------------------------------------------------------------------------------------

    def take(self, items):
        """Return the rows of X that the items are, as they are given, (len(items), d)."""
        return self.X[items if self.rows is None else self.rows[items]]

    def working(self, items):
        """Return the working vectors of the items (an index array or a slice), float32."""
        raw = self.take(items)
        out = np.empty(raw.shape, np.float32)
        _source.working(raw, None, 0, len(raw), self.mean, self.scale, out)
        return out

    @property
    def source(self):
        """What the kernels take to read working vectors by themselves."""
        return self.X, self.rows

    def _chunks(self, start, stop):
        for first in range(start, stop, self.chunk):
            yield slice(first, min(first + self.chunk, stop))

    def _map(self, method, *args):
        """Yield ``method(self, start, stop, *args)`` for each block, in their order."""
        edges = ((self, start, stop, *args) for start, stop in blocks(self.n))
        return map_ordered(method, edges, self.n_threads)

    def _check_finite(self):
        check_finite(self.X, self.n_threads)

    def _statistics_block(self, start, stop):
        merged = (0, np.zeros(self.d), 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            for part in self._chunks(start, stop):
                raw = np.array(self.take(part), np.float64)  # a copy: it is changed in place
                mean = raw.mean(axis=0)
                raw -= mean
                merged = merge_statistics(merged, (len(raw), mean, np.einsum("ij,ij->", raw, raw)))
        return merged

    def _any_differs(self):
        first = self.take(slice(0, 1))
        return any((self.take(part) != first).any() for part in self._chunks(1, self.n))

    # -- sums over the working vectors --------------------------------------------------------------------------------

    def _gram_block(self, start, stop):
        total = np.zeros((self.d, self.d))
        for part in self._chunks(start, stop):
            x = self.working(part)
            total += x.T @ x
        return (total,)

    def _gram_times_block(self, start, stop, V):
        total = np.zeros(V.shape)
        for part in self._chunks(start, stop):
            x = self.working(part)
            total += x.T @ (x @ V)
        return (total,)

    def _cross_block(self, start, stop, target):
        r = self.B.shape[1]
        xt, total, squares = np.zeros((self.d, r)), np.zeros(r), np.zeros(1)
        for part in self._chunks(start, stop):
            t = target(self.B[part])
            xt += self.working(part).T @ t
            total += t.sum(axis=0, dtype=np.float64)
            squares += np.einsum("ij,ij->", t, t, dtype=np.float64)
        return xt, total, squares

    # -- neighbours of the anchors ------------------------------------------------------------------------------------

    def nearest(self, A, k):
        """Return the k nearest items of working anchors A (m, d): squared distances float32 and items, (m, k)."""
        d2 = np.full((len(A), k), np.inf, np.float32)
        items = np.full((len(A), k), -1, np.int64)
        _distances.nearest(*self.source, 0, self.n, self.mean, self.scale, A, d2, items, self.n_threads)
        return d2, items

    def within(self, A, bound):
        """Return (indptr, items): the items within squared working distance bound_i of each anchor, ascending."""
        return _distances.within(*self.source, 0, self.n, self.mean, self.scale, A, bound, self.n_threads)

    def distances(self, anchors, indptr, items):
        """Return the exact distances, in units of X, of anchors (m, d) to their items, (len(items),) float64."""
        out = np.empty(len(items))
        _distances.pair_distances(*self.source, anchors, indptr, items, out, self.n_threads)
        return out

    # -- the relaxed codes --------------------------------------------------------------------------------------------

    def project(self, W, bias):
        """Set B to the projections (working vectors) @ W + bias, scaled so that the mean of |B| is 1."""
        if self.B is None or self.B.shape[1] != W.shape[1]:
            self.B = np.empty((self.n, W.shape[1]), np.float32)
        W, bias = np.ascontiguousarray(W, np.float32), np.ascontiguousarray(bias, np.float32)
        _projection.project(*self.source, 0, self.n, self.mean, self.scale, W, bias, self.B, self.n_threads)
        factor = np.float32(self.B.size / self._sum(Rows._size_block)[0][0])
        self._each(Rows._multiply_block, factor)

    def _size_block(self, start, stop):
        return (np.abs(self.B[start:stop]).sum(dtype=np.float64).reshape(1),)

    def _multiply_block(self, start, stop, factor):
        self.B[start:stop] *= factor

    def random_codes(self, r, seed):
        """Set B to standard normal numbers: a block's are those of the generator seeded with (seed, start)."""
        self.B = np.empty((self.n, r), np.float32)
        self._each(Rows._random_block, r, seed)

    def _random_block(self, start, stop, r, seed):
        rng = np.random.default_rng([seed, self.offset + start])
        self.B[start:stop] = rng.standard_normal((stop - start, r), np.float32)

    def take_codes(self, items):
        """Return the relaxed codes of the items, float32 (len(items), r)."""
        return self.B[items]

    def zero_moments(self, r):
        """Return two arrays of zeros like B: Adam's moments."""
        return np.zeros((self.n, r), np.float32), np.zeros((self.n, r), np.float32)

    def anchor_pass(self, H, q_scale, q_power, P, sums, vectors, penalty):
        """Fill the sums over all items that J and dJ/dH need; see ``_affinity_pass.anchor_pass``."""
        _affinity_pass.anchor_pass(
            self.B, H, q_scale, q_power, P.indptr, P.anchors, block_rows(self.n), sums, vectors, penalty,
            self.n_threads,
        )  # fmt: skip

    def item_pass(self, moments, H, inv_z, p, q_scale, q_power, P, step):
        """Move every row of B by one step of Adam; see ``_affinity_pass.item_pass``."""
        _affinity_pass.item_pass(
            self.B, *moments, H, inv_z, p, q_scale, q_power, P.indptr, P.anchors, block_rows(self.n), step,
            self.n_threads,
        )  # fmt: skip

    def rotate_towards_signs(self, sample, start, n_iter, rng):
        """Replace B by (B - its mean) R, with R found on the items of the sample; return that mean and R."""
        mean = (self._sum(Rows._total_block)[0] / self.n).astype(np.float32)
        rotation = Rotation(self.take_codes(sample) - mean, start, n_iter, rng, self.n_threads)
        self._each(Rows._rotate_block, mean, rotation)
        return mean, rotation

    def _total_block(self, start, stop):
        return (self.B[start:stop].sum(axis=0, dtype=np.float64),)

    def _rotate_block(self, start, stop, mean, rotation):
        self.B[start:stop] = rotation(self.B[start:stop] - mean)

    def _each(self, method, *args):
        for _ in self._map(method, *args):
            pass

    def codes(self):
        """Return the packed signs of B, (n, n_words) uint64."""
        return np.concatenate(list(self._map(Rows._codes_block)))

    def _codes_block(self, start, stop):
        return pack(self.B[start:stop])
