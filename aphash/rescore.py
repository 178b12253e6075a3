"""Re-ranking the candidates of a Hamming search by finer distances: float vectors, or the query's projections.

Passed to ``HammingIndex.search(..., rescore=...)``: the index finds ``factor * k`` candidates for each query, the
object gives their distances, and the k nearest by (distance, id) are returned. Needs numpy only.
"""

import numpy as np

from aphash._checks import check_count, check_ids
from aphash.codes import unpack_codes

_BLOCK_BYTES = 1 << 24  # of candidates' vectors: two or three such blocks are held at a time

METRICS = ("l2", "ip", "cosine")


class VectorRescore:
    """Re-rank by the distances of float vectors; reads the candidates' rows only.

    Parameters
    ----------
    X : array_like of shape (n, d)
        The items' vectors, of any real dtype; of a memory map, and of a dask array, only candidates are read.
    queries : array_like of shape (n_queries, d) or (d,)
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
        When an argument does not fit; by the search, when the number of queries differs, or a candidate has no row in X
        or NaN or infinity in it.

    Notes
    -----
    Sums are in float32, of float64 and integers in float64; distances are float32. Needs some 64 MiB, or three times a
    query's candidates where they are more.
    """

    def __init__(self, X, queries, *, metric="l2", factor=10, ids=None):
        self.X = X if isinstance(X, np.ndarray) or hasattr(X, "__dask_graph__") else np.asarray(X)
        if self.X.ndim != 2 or len(self.X) == 0 or self.X.dtype.kind not in "fiu":
            raise ValueError(f"X must be real numbers of shape (n, d), got {self.X.dtype} of shape {self.X.shape}")
        self._dtype = np.result_type(self.X.dtype, np.float32)
        if self._dtype.itemsize > 8:
            self._dtype = np.dtype(np.float64)
        self.queries = _rows("queries", queries).astype(self._dtype)
        if self.queries.shape[1] != self.X.shape[1]:
            raise ValueError(f"queries must have {self.X.shape[1]} columns as X has, got {self.queries.shape[1]}")
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {metric!r}")
        self.metric = metric
        self.factor = check_count(factor, "factor", 1)
        self._order = self._ids = None
        if ids is not None:
            ids = check_ids(ids, len(self.X))
            self._order = np.argsort(ids)
            self._ids = ids[self._order]

    def check(self, n_queries, n_bits):
        """Raise ValueError where these are not the queries of a search."""
        _check_queries(len(self.queries), n_queries)

    def distances(self, first, ids, codes_of):
        """Return the distances of the queries from number `first` on to their candidates.

        Parameters
        ----------
        first : int
        ids : ndarray of int64, shape (n_some, n_candidates)
            -1 where there is none.
        codes_of : callable
            ``codes_of(ids)`` are the codes of ids; not used here.

        Returns
        -------
        ndarray of float32, shape (n_some, n_candidates)
            Infinity where the id is -1.
        """
        rows = self._rows_of(ids)
        out = np.empty(ids.shape, np.float32)
        step = max(1, _BLOCK_BYTES // max(1, self._dtype.itemsize * ids.shape[1] * self.X.shape[1]))
        for start in range(0, len(ids), step):
            some = slice(start, start + step)
            out[some] = self._block(self.queries[first:][some], rows[some])
        bad = ~np.isfinite(out) & (ids != -1)
        if bad.any():
            raise ValueError(f"X has NaN, infinity or overflowing values in the row of id {ids[bad][0]}")
        out[ids == -1] = np.inf
        return out

    def _rows_of(self, ids):
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
        x = np.asarray(self.X[unique], self._dtype)[where.reshape(rows.shape)]
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the result
            if self.metric == "l2":
                x -= queries[:, None]
                return np.sqrt(np.einsum("qkd,qkd->qk", x, x))
            inner = np.einsum("qd,qkd->qk", queries, x)
            if self.metric == "ip":
                return -inner
            size = np.linalg.norm(queries, axis=1)[:, None] * np.sqrt(np.einsum("qkd,qkd->qk", x, x))
            return 1 - np.divide(inner, size, out=np.zeros_like(inner), where=size != 0)


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
        self.projections = _rows("projections", projections).astype(np.float32)
        self.factor = check_count(factor, "factor", 1)

    def check(self, n_queries, n_bits):
        """Raise ValueError where these are not the queries of a search."""
        _check_queries(len(self.projections), n_queries)
        if self.projections.shape[1] != n_bits:
            raise ValueError(f"projections must have n_bits={n_bits} columns, got {self.projections.shape[1]}")

    def distances(self, first, ids, codes_of):
        """Return the distances of the queries from number `first` on to their candidates, as VectorRescore does."""
        n_bits = self.projections.shape[1]
        out = np.full(ids.shape, np.inf, np.float32)
        step = max(1, _BLOCK_BYTES // max(1, 4 * ids.shape[1] * n_bits))
        for start in range(0, len(ids), step):
            some, wanted = (
                self.projections[first + start :][: len(ids[start : start + step])],
                ids[start : start + step],
            )
            real = wanted != -1
            bits = np.zeros((*wanted.shape, n_bits), np.float32)
            bits[real] = unpack_codes(codes_of(wanted[real]), n_bits)
            # The sum of |p| where bit != (p >= 0) is the sum of (p >= 0 ? p : 0) - bit p over all bits.
            distance = np.maximum(some, 0).sum(axis=1)[:, None] - np.einsum("qr,qkr->qk", some, bits)
            out[start : start + step][real] = np.maximum(distance, 0)[real]
        return out


def rerank(ids, distances, k):
    """Return the k nearest candidates of each query by (distance, id): distances and ids, (n_queries, k)."""
    order = np.lexsort((ids, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _check_queries(have, asked):
    if have != asked:
        raise ValueError(f"rescore has {have} queries, the search has {asked}")


def _rows(name, values):
    values = np.asarray(values)
    if values.dtype.kind not in "fiu" or values.ndim not in (1, 2):
        raise ValueError(f"{name} must be real numbers in 1 or 2 dimensions, got {values.dtype} {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} contains NaN or infinity")
    return np.atleast_2d(values)
