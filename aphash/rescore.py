"""Re-ranking the candidates of a Hamming search by finer distances: float vectors, or the query's projections.

Passed to ``HammingIndex.search(..., rescore=...)``: the index finds ``factor * k`` candidates for each query, the
object gives their distances, and the k nearest by (distance, id) are returned. Needs numpy only.
"""

import numbers

import numpy as np

from aphash.codes import unpack_codes

_BLOCK_BYTES = 1 << 26  # of candidates' vectors held at a time

METRICS = ("l2", "ip", "cosine")


class VectorRescore:
    """Re-rank by the distances of float vectors; reads the candidates' rows only.

    Parameters
    ----------
    X : array_like of shape (n, d)
        The items' vectors, of any real dtype; a memory map is read where candidates are.
    queries : array_like of shape (n_queries, d)
        The queries' vectors, in the order of the codes that are searched.
    metric : {"l2", "ip", "cosine"}, default="l2"
        Euclidean distance; minus the inner product; one minus the cosine (of a zero vector: 1).
    factor : int, default=10
        Candidates for each result asked for, at least 1.
    ids : array_like of int64, shape (n,), or None
        The ids of the rows of X; None: an item's id is its row.

    Raises
    ------
    TypeError, ValueError
        When an argument does not fit; by the search, when the number of queries differs or a candidate has no row in X.

    Notes
    -----
    Needs 64 MiB, or a query's candidates where they are more.
    """

    def __init__(self, X, queries, *, metric="l2", factor=10, ids=None):
        self.X = X if isinstance(X, np.ndarray) else np.asarray(X)
        self.queries = np.atleast_2d(_real("queries", queries)).astype(np.float32)
        self.factor = _check_factor(factor)
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {metric!r}")
        self.metric = metric
        if self.X.ndim != 2 or self.X.dtype.kind not in "fiu":
            raise ValueError(f"X must be real numbers of shape (n, d), got {self.X.dtype} of shape {self.X.shape}")
        if self.queries.shape[1] != self.X.shape[1]:
            raise ValueError(f"queries must have {self.X.shape[1]} columns as X has, got {self.queries.shape[1]}")
        self._order = self._ids = None
        if ids is not None:
            ids = np.asarray(ids, np.int64)
            if ids.shape != (len(self.X),):
                raise ValueError(f"ids must have shape ({len(self.X)},), one for each row of X, got {ids.shape}")
            self._order = np.argsort(ids, kind="stable")
            self._ids = ids[self._order]

    def distances(self, index, ids):
        """Return the distances of each query to its candidates, float32 of the shape of ids; inf where an id is -1."""
        _check_queries(len(self.queries), len(ids))
        rows = self._rows(ids)
        out = np.empty(ids.shape, np.float32)
        step = max(1, _BLOCK_BYTES // max(1, 4 * ids.shape[1] * self.X.shape[1]))
        for start in range(0, len(ids), step):
            some = slice(start, start + step)
            out[some] = self._block(self.queries[some], rows[some])
        out[ids == -1] = np.inf
        return out

    def _rows(self, ids):
        """Rows of X of the ids; 0 for -1."""
        real = ids != -1
        if self._ids is None:
            rows, known = np.where(real, ids, 0), (ids >= 0) & (ids < len(self.X))
        else:
            place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
            rows, known = np.where(real, self._order[place], 0), self._ids[place] == ids
        if not known[real].all():
            bad = ids[real & ~known]
            raise ValueError(f"X has no row for id {bad[0]} and {len(bad) - 1} other candidates: pass ids= of its rows")
        return rows

    def _block(self, queries, rows):
        unique, where = np.unique(rows, return_inverse=True)  # ascending, each once: for a memory map
        x = np.asarray(self.X[unique], np.float32)[where.reshape(rows.shape)]
        if self.metric == "l2":
            x -= queries[:, None]
            return np.sqrt(np.einsum("qkd,qkd->qk", x, x))
        inner = np.einsum("qd,qkd->qk", queries, x)
        if self.metric == "ip":
            return -inner
        size = np.linalg.norm(queries, axis=1)[:, None] * np.sqrt(np.einsum("qkd,qkd->qk", x, x))
        return 1 - np.divide(inner, size, out=np.zeros_like(inner), where=size > 0)


class ProjectionRescore:
    """Re-rank by the query's projections against the candidates' bits: finer than Hamming, without any vectors.

    The distance is the sum of |projection| over the bits in which the code differs from the query's sign: a bit that
    the query was unsure of costs little (asymmetric distance, Gordo & Perronnin 2011).

    Parameters
    ----------
    projections : array_like of shape (n_queries, n_bits)
        ``hasher.decision_function(queries)``, in the order of the codes that are searched.
    factor : int, default=10
        Candidates for each result asked for, at least 1.

    Raises
    ------
    TypeError, ValueError
        When an argument does not fit; by the search, when the number of queries or of bits differs.
    """

    def __init__(self, projections, *, factor=10):
        self.projections = np.atleast_2d(_real("projections", projections)).astype(np.float32)
        self.factor = _check_factor(factor)

    def distances(self, index, ids):
        """Return the distances of each query to its candidates, float32 of the shape of ids; inf where an id is -1."""
        _check_queries(len(self.projections), len(ids))
        if self.projections.shape[1] != index.n_bits:
            raise ValueError(f"projections must have n_bits={index.n_bits} columns, got {self.projections.shape[1]}")
        out = np.full(ids.shape, np.inf, np.float32)
        step = max(1, _BLOCK_BYTES // max(1, 8 * ids.shape[1] * index.n_bits))
        for start in range(0, len(ids), step):
            some, wanted = self.projections[start : start + step], ids[start : start + step]
            real = wanted != -1
            bits = np.zeros((*wanted.shape, index.n_bits), np.float32)
            bits[real] = unpack_codes(index.get(wanted[real]), index.n_bits)
            # sum of |p| where bit != (p >= 0), for bits 0 and 1:  sum over p >= 0 of p, minus bits . p
            distance = np.maximum(some, 0).sum(axis=1)[:, None] - np.einsum("qr,qkr->qk", some, bits)
            out[start : start + step][real] = np.maximum(distance, 0)[real]
        return out


def rerank(ids, distances, k):
    """Return the k nearest candidates of each query by (distance, id): distances and ids, (n_queries, k)."""
    order = np.lexsort((ids, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _check_factor(factor):
    if isinstance(factor, bool) or not isinstance(factor, numbers.Integral):
        raise TypeError(f"factor must be an integer, got {factor!r}")
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    return int(factor)


def _check_queries(have, asked):
    if have != asked:
        raise ValueError(f"rescore has {have} queries, the search has {asked}")


def _real(name, values):
    values = np.asarray(values)
    if values.dtype.kind not in "fiu" or values.ndim not in (1, 2):
        raise ValueError(f"{name} must be real numbers in 1 or 2 dimensions, got {values.dtype} {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} contains NaN or infinity")
    return values
