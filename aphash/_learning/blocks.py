"""Blocks of the training rows: how many rows a block has, what is computed of it, and the sums over blocks.

A block is the unit of work. Its number of rows depends on n only, and its partial sum on its rows only. Partial sums
are added in the order of the blocks, and those of the anchor pass as a fixed tree. So no result depends on the number
of threads, and another place that holds the same blocks (aphash.dask) gets the same bits from the same functions.

Functions of a block take what holds its rows, then ``start, stop``. What holds the rows is a
:class:`~aphash._learning._source.Source` where they read vectors, the relaxed codes B (n, r) where they read codes, or
both. Working vectors are made and held for ``chunk`` rows at a time only.
"""

import numpy as np

from aphash._learning import _source
from aphash.codes import pack

_PERMUTED_ROWS = 1_000_000  # of up to so many, rows are drawn by a permutation, as in earlier versions (8 MB)
_CHUNK_BYTES = 1 << 22  # of the float32 working vectors that each thread holds at a time


def block_rows(n):
    """Return the number of rows in a block: a multiple of 64, at least 1,024, that gives at most 128 blocks."""
    return max(1024, -(-n // (128 * 64)) * 64)


def chunk_rows(n, d):
    """Return how many rows of a block are held as working vectors at a time."""
    return max(64, min(block_rows(n), _CHUNK_BYTES // (4 * d)))


def blocks(n):
    """Return the list of (start, stop) of the blocks of n rows."""
    step = block_rows(n)
    return [(start, min(start + step, n)) for start in range(0, n, step)]


def draw_rows(n, n_rows, rng):
    """Return n_rows different numbers below n, ascending. All such sets are equally likely. Needs memory for n_rows."""
    if n <= _PERMUTED_ROWS:
        return np.sort(rng.choice(n, n_rows, replace=False))
    if 2 * n_rows > n:  # here n bytes are in proportion to n_rows
        stays = np.ones(n, bool)
        stays[draw_rows(n, n - n_rows, rng)] = False
        return np.flatnonzero(stays)
    rows = np.zeros(0, np.int64)
    while len(rows) < n_rows:  # as if rows were drawn one by one, and a repeated one drawn again
        rows = np.union1d(rows, rng.randint(0, n, n_rows - len(rows), np.int64))
    return rows


def merge_statistics(one, other):
    """Merge two (count, mean, sum of squared distances to the mean)."""
    (n, mean, spread), (m, other_mean, other_spread) = one, other
    with np.errstate(over="ignore", invalid="ignore"):
        shift = other_mean - mean
        return n + m, mean + shift * (m / (n + m)), spread + other_spread + (shift @ shift) * n * m / (n + m)


# -- vectors ----------------------------------------------------------------------------------------------------------


def working(source, items):
    """Return the working vectors of the items (an index array or a slice), float32 (len(items), d)."""
    raw = source.take(items)
    out = np.empty(raw.shape, np.float32)
    _source.working(_source.Source(raw, None, source.mean, source.scale), 0, len(raw), out)
    return out


def chunks(start, stop, chunk):
    """Yield slices of at most ``chunk`` rows, which together are [start, stop)."""
    for first in range(start, stop, chunk):
        yield slice(first, min(first + chunk, stop))


def statistics_of_block(source, start, stop, chunk):
    """Return (count, mean, sum of squared distances to the mean) of the rows as they are given."""
    merged = (0, np.zeros(source.d), 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        for part in chunks(start, stop, chunk):
            raw = np.array(source.take(part), np.float64)  # a copy, since it is changed in place
            mean = raw.mean(axis=0)
            raw -= mean
            merged = merge_statistics(merged, (len(raw), mean, np.einsum("ij,ij->", raw, raw)))
    return merged


def gram_of_block(source, start, stop, chunk):
    """Return (sum_j x_j x_j^T,) of the working vectors."""
    total = np.zeros((source.d, source.d))
    for part in chunks(start, stop, chunk):
        x = working(source, part)
        total += x.T @ x
    return (total,)


def gram_times_of_block(source, start, stop, chunk, V):
    """Return (sum_j x_j x_j^T V,) of the working vectors."""
    total = np.zeros(V.shape)
    for part in chunks(start, stop, chunk):
        x = working(source, part)
        total += x.T @ (x @ V)
    return (total,)


# -- vectors and relaxed codes ----------------------------------------------------------------------------------------


def cross_of_block(source, B, start, stop, chunk, target):
    """Return (sum_j x_j t_j^T, sum_j t_j, (sum |t|^2,)) for the targets t_j = target(b_j)."""
    r = B.shape[1]
    xt, total, squares = np.zeros((source.d, r)), np.zeros(r), np.zeros(1)
    for part in chunks(start, stop, chunk):
        t = target(B[part])
        xt += working(source, part).T @ t
        total += t.sum(axis=0, dtype=np.float64)
        squares += np.einsum("ij,ij->", t, t, dtype=np.float64)
    return xt, total, squares


# -- relaxed codes ----------------------------------------------------------------------------------------------------


def size_of_block(B, start, stop):
    """Return (sum |b|,)."""
    return (np.abs(B[start:stop]).sum(dtype=np.float64).reshape(1),)


def total_of_block(B, start, stop):
    """Return (sum_j b_j,)."""
    return (B[start:stop].sum(axis=0, dtype=np.float64),)


def codes_of_block(B, start, stop):
    """Return the packed signs."""
    return pack(B[start:stop])


def fill_random(B, start, stop, seed, offset):
    """Set a block to standard normal numbers. The generator is seeded by the place of the block, offset + start."""
    rng = np.random.default_rng([seed, offset + start])
    B[start:stop] = rng.standard_normal((stop - start, B.shape[1]), np.float32)


# -- sums over all blocks ---------------------------------------------------------------------------------------------


def add(parts):
    """Add tuples of float64 arrays, in their order."""
    total = None
    for part in parts:
        if total is None:
            total = part
        else:
            for left, right in zip(total, part, strict=True):
                left += right
    return total


class BlockSums:
    """The sums over blocks, wherever the blocks are.

    A subclass has n, d and chunk, and three methods that yield what a function returns for each block, in the order of
    the blocks: ``map_vectors``, ``map_codes`` and ``map_both``. Each takes the function, and its arguments after
    ``start, stop``.
    """

    def statistics(self):
        """Return mean and scale. NaN and infinity are found here, because sums over them are not finite."""
        merged = (0, np.zeros(self.d), 0.0)
        for block in self.map_vectors(statistics_of_block, self.chunk):
            merged = merge_statistics(merged, block)
        _, mean, spread = merged
        if not np.isfinite(spread):
            self.check_finite()
            raise ValueError("Input X has values so large that squared distances overflow float64: rescale X")
        if spread <= 1e-24 * self.n * (mean @ mean) and not self.any_differs():
            raise ValueError("Input X has no spread: all rows are equal, so there is nothing to learn")
        if spread / self.n < 1e-290:
            raise ValueError("Input X has values so close that squared distances underflow float64: rescale X")
        return mean, float(1 / np.sqrt(spread / self.n))

    def gram(self):
        """Return sum_j x_j x_j^T of the working vectors, (d, d) float64."""
        return add(self.map_vectors(gram_of_block, self.chunk))[0]

    def gram_times(self, V):
        """Return (sum_j x_j x_j^T) V without the d x d matrix, where d is too large for it. V is (d, p) float64."""
        return add(self.map_vectors(gram_times_of_block, self.chunk, np.ascontiguousarray(V, np.float32)))[0]

    def cross(self, target):
        """Return (sum_j x_j t_j^T, sum_j t_j, sum |t|^2) for the targets t_j = target(b_j); float64."""
        return add(self.map_both(cross_of_block, self.chunk, target))

    def normalizer(self, r):
        """Return what relaxed codes of r bits are multiplied by so that the mean of |B| is 1, float32."""
        return np.float32(self.n * r / add(self.map_codes(size_of_block))[0][0])

    def mean_code(self):
        """Return the mean of the relaxed codes, float32 (r,)."""
        return (add(self.map_codes(total_of_block))[0] / self.n).astype(np.float32)
