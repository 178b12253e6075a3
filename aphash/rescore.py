"""Re-ranking the candidates of a search by finer distances: those of float vectors.

``index.search(codes, k, rescore=VectorRescore(X), rescore_queries=Q)``: the index finds ``factor * k`` candidates for
each query, the rescorer gives their distances to the query's vector, and the k nearest by (distance, id) are returned.
A rescorer holds no queries and can be used for any number of searches, in several threads. Needs numpy only.
"""

from dataclasses import dataclass

import numpy as np

from aphash._common.arrays import as_array, as_floats, shown
from aphash._common.checks import check_count, check_ids
from aphash._searching import _rows

_CHUNK_BYTES = 1 << 24  # of candidates' vectors: two or three such chunks are held at a time
_GAP_BYTES = 1 << 14  # of a file's rows that are read along between two that are wanted, rather than sought twice

_TINY = 1e-30  # below it a sum in float32 may have lost parts that underflow

METRICS = ("l2", "ip", "cosine")


class VectorRescore:
    """Re-rank by the distances of float vectors; reads the candidates' rows only.

    Parameters
    ----------
    X : array_like of shape (n, d)
        The items' vectors, of any real dtype; of memory maps and of arrays of dask, h5py and zarr, only candidates are
        read, when they are wanted.
    ids : array_like of int64, shape (n,), or None
        The ids of the rows of X. None: X has a row for each code of the index, whose ids are 0 .. n - 1.
    metric : {"l2", "ip", "cosine"}, default="l2"
        Euclidean distance; minus the inner product; one minus the cosine, from 0 to 2 (of a zero vector: 1).
    factor : int, default=10
        Candidates for each result asked for, at least 1.

    Raises
    ------
    TypeError, ValueError
        When an argument does not fit; by the search, when queries do not fit, without ``ids`` where the index's ids are
        not the rows of X, or when a candidate has no row in X, or NaN or infinity in it.

    Notes
    -----
    Rows of float32 and float16 in an array or memory map of numpy are read where they lie, by a kernel, in as many
    threads as the search has. Differences are rounded to float32 and their squares summed in float64, in a fixed order:
    distances are equal on every CPU and for every number of threads, and ranked before they are rounded to the float32
    that a search returns. Rows of other arrays are first copied, those of a chunk of queries at a time, into some
    64 MiB (or three times a query's candidates, where they are more). Of other dtypes sums are in float32, of float64
    and wide integers in float64, and where float32 overflows or underflows.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import APHash, HammingIndex, VectorRescore
    >>> X = np.random.default_rng(0).standard_normal((1000, 16)).astype(np.float32)
    >>> hasher = APHash(16, random_state=0).fit(X)
    >>> index = HammingIndex(16)
    >>> ids = index.add(hasher.transform(X))
    >>> distances, ids = index.search(hasher.transform(X[:3]), 2, rescore=VectorRescore(X), rescore_queries=X[:3])
    >>> ids[:, 0], distances[:, 0]
    (array([0, 1, 2]), array([0., 0., 0.], dtype=float32))
    """

    __module__ = "aphash"  # where it is public: pickles and reprs say so

    def __init__(self, X, ids=None, *, metric="l2", factor=10):
        self.X = X if _is_read_by_rows(X) else as_array(X, "X")
        kind = getattr(self.X.dtype, "kind", "?")
        if len(self.X.shape) != 2 or self.X.shape[0] == 0 or kind not in "fiub":
            raise ValueError(f"X must be real numbers of shape (n, d), got {self.X.dtype} of shape {self.X.shape}")
        if not isinstance(metric, str) or metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {shown(metric)}")
        self._dtype = np.dtype(np.float32 if np.result_type(self.X.dtype, np.float32) == np.float32 else np.float64)
        self.metric = metric
        self.factor = check_count(factor, "factor", 1)
        self._order = self._ids = None
        if ids is not None:
            if np.ndim(ids) == 2 or getattr(ids, "dtype", np.dtype(int)).kind == "f":
                raise TypeError(f"ids must be integers, got {shown(ids)}: queries go to search(..., rescore_queries=)")
            ids = check_ids(ids, self.X.shape[0])
            self._order = np.argsort(ids)
            self._ids = ids[self._order]

    def _bind(self, queries, n_codes, counted, n_threads):
        n, d = self.X.shape
        if queries.shape[1] != d:
            raise ValueError(f"rescore_queries must have {d} columns as X has, got {queries.shape[1]}")
        if self._ids is None and not (n == n_codes and counted()):
            raise ValueError(
                f"X has {n} rows, the index {n_codes} codes{'' if counted() else ', whose ids are not 0 .. n - 1'}: "
                "pass VectorRescore(X, ids) with the ids of the rows"
            )
        return with_queries(self, queries, n_threads)

    def _addresses(self, rows):
        """Return (addresses uint64, scales or None, kind) of rows that the kernel reads where they lie, or None."""
        X = self.X
        if not isinstance(X, np.ndarray) or X.dtype.name not in _rows.KINDS or not X.dtype.isnative:
            return None
        if X.dtype == np.int8 or (X.shape[1] > 1 and X.strides[1] != X.itemsize):
            return None
        return _addresses_of(X, rows), None, X.dtype.name

    def _take(self, ids):
        """Return the rows of X of ids, none of them -1."""
        rows, where = np.unique(self._rows_of(ids), return_inverse=True)
        return np.asarray(_read_rows(self.X, rows))[where]

    def _rows_of(self, ids):
        """Rows of X of the ids; 0 for -1."""
        real = ids != -1
        if self._ids is None:
            return np.where(real, ids, 0)
        place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        known = self._ids[place] == ids
        if not known[real].all():
            bad = ids[real & ~known]
            raise ValueError(f"X has no row for id {bad[0]} and {len(bad) - 1} other candidates, which ids must name")
        return np.where(real, self._order[place], 0)


def bind(rescore, queries, *, n_queries, n_codes, counted, n_threads=1):
    """Return a rescorer with the queries of a search: what has ``factor`` and ``distances``.

    Parameters
    ----------
    rescore : VectorRescore or None
    queries : array_like of shape (n_queries, d), or of one dimension for one query, or None
    n_queries, n_codes : int
        Of the search, and of the index.
    counted : callable
        ``counted()``: whether the index's ids are 0 .. n_codes - 1. It may read them all, so it is called only where
        the answer matters.
    n_threads : int, default=1

    Returns
    -------
    object or None
        ``distances(first, ids)`` are those of the queries from number ``first`` on to candidates ``ids``
        (n_some, n_candidates), float64, infinity where an id is -1. None without rescore.

    Raises
    ------
    TypeError, ValueError
        When these do not fit each other.
    """
    if rescore is None:
        if queries is not None:
            raise TypeError("rescore_queries were given without rescore")
        return None
    if not isinstance(rescore, VectorRescore):
        raise TypeError(f"rescore must be a VectorRescore, got {type(rescore).__name__}")
    if queries is None:
        raise TypeError("rescore needs rescore_queries: the queries' vectors")
    queries = as_floats(queries, "rescore_queries")
    if queries.ndim not in (1, 2):
        raise ValueError(f"rescore_queries must have shape (n_queries, d), got {queries.shape}")
    queries = np.atleast_2d(queries)
    if len(queries) != n_queries:
        raise ValueError(f"rescore_queries must have a row for each of the {n_queries} queries, got {len(queries)}")
    if not np.isfinite(queries).all():
        raise ValueError("rescore_queries contains NaN or infinity")
    return rescore._bind(queries, n_codes, counted, n_threads)


def with_queries(rescore, queries, n_threads=1):
    """Return a VectorRescore with queries (n_queries, d), floats that are known to be good: see :func:`bind`."""
    return _Vectors(rescore, queries.astype(np.float64), n_threads)


@dataclass(frozen=True)
class _Vectors:
    """A VectorRescore with queries (n_queries, d) of float64."""

    rescore: VectorRescore
    queries: np.ndarray
    n_threads: int

    @property
    def factor(self):
        return self.rescore.factor

    def distances(self, first, ids):
        if not (ids != -1).any():  # there may be no row at all, whose address could be taken
            return np.full(ids.shape, np.inf)
        rows, queries = self.rescore._rows_of(ids), self.queries[first : first + len(ids)]
        placed = self.rescore._addresses(rows)
        if placed is not None:
            with np.errstate(over="ignore", under="ignore"):
                out = _rows.distances(*placed, queries, self.rescore.metric, self.n_threads)
        else:
            out = self._by_rows(rows, queries)
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(out.astype(np.float32)) & (ids != -1)
        if bad.any():
            raise ValueError(f"X has NaN, infinity or overflowing values in the row of id {ids[bad][0]}")
        out[ids == -1] = np.inf
        return out

    def _by_rows(self, rows, queries):
        """Distances to rows that are read into memory first: of wide numbers, and of what is not an array of numpy."""
        out = np.empty(rows.shape)
        step = max(1, _CHUNK_BYTES // max(1, self.rescore._dtype.itemsize * rows.shape[1] * queries.shape[1]))
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            unique, where = np.unique(rows[some], return_inverse=True)  # ascending, each once: for what is on a disk
            where = where.reshape(rows[some].shape)
            x = np.asarray(_read_rows(self.rescore.X, unique))
            x = np.ascontiguousarray(x, x.dtype.newbyteorder("="))
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # looked at by the caller
                if x.dtype.kind == "f" and x.dtype.name in _rows.KINDS:  # equal distances, wherever rows are
                    addresses = _addresses_of(x, where)
                    out[some] = _rows.distances(
                        addresses, None, x.dtype.name, queries[some], self.rescore.metric, self.n_threads
                    )
                else:
                    x = x.astype(self.rescore._dtype, copy=False)
                    out[some] = _DISTANCES[self.rescore.metric](x, where, queries[some])
        return out


def _addresses_of(X, rows):
    """Return where rows of an array stand, uint64."""
    steps = rows.astype(np.uint64) * np.uint64(abs(X.strides[0]))
    base = np.uint64(X.__array_interface__["data"][0])
    return base + steps if X.strides[0] >= 0 else base - steps


# Distances of queries (q, d) to the rows ``where`` (q, k) of x, in x's precision but where float32 does not do.


def _l2(x, where, queries):
    return np.sqrt(_sums(x, where, queries, _squared_difference))


def _ip(x, where, queries):
    return -_sums(x, where, queries, _inner)


def _cosine(x, where, queries):
    """1 - cos = |u - v|^2 / 2 of unit vectors: it cannot be negative, and is 0 for what is equal."""
    (x, x_zero), (queries, q_zero) = unit_vectors(x), unit_vectors(queries.astype(x.dtype))
    cosine = np.minimum(_squared_difference(x[where], queries[:, None]) / 2, 2)
    return np.where(x_zero[where] | q_zero[:, None], 1, cosine)


_DISTANCES = {"l2": _l2, "ip": _ip, "cosine": _cosine}


def _sums(x, where, queries, of):
    """Return ``of`` the pairs; those that overflow or underflow in float32 anew in float64."""
    found = of(x[where], queries.astype(x.dtype)[:, None])
    if x.dtype == np.float32:
        size = np.abs(found)
        query, place = np.nonzero(~((size > _TINY) & (size < np.inf)))
        found = found.astype(np.float64)
        found[query, place] = of(x[where[query, place]].astype(np.float64), queries[query])
    return found


def _squared_difference(x, queries):
    """Return |x - q|^2 over the last axis; x is overwritten."""
    x -= queries
    return np.einsum("...d,...d->...", x, x)


def _inner(x, queries):
    return np.einsum("...d,...d->...", x, queries)


def unit_vectors(x):
    """Return unit vectors, and which were zero. Those of extreme size are first divided by their largest number."""
    norm = _norm(x)
    extreme = ~((norm > 1e-30) & (norm < 1e30))
    if extreme.any():
        x = x.copy()
        largest = np.abs(x[extreme]).max(axis=1)
        x[extreme] /= np.where(largest > 0, largest, 1)[:, None]
        norm[extreme] = _norm(x[extreme])
    return x / np.where(norm > 0, norm, 1).astype(x.dtype)[:, None], norm == 0


def _norm(x):
    return np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))


def rerank(ids, distances, k):
    """Return distances and ids, (n_queries, k), of the k nearest candidates by (distance, id). No distance is NaN."""
    if k < ids.shape[1]:  # sorting all candidates would take longer than their distances
        last = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
        n_near = int((distances <= last).sum(axis=1).max(initial=k))  # more than k where the last ones tie
        near = np.argpartition(distances, n_near - 1, axis=1)[:, :n_near]
        ids, distances = (np.take_along_axis(each, near, axis=1) for each in (ids, distances))
    order = np.lexsort((ids, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _is_read_by_rows(X):
    """Whether X is an array of dask, zarr or h5py, which must not be read whole."""
    return (hasattr(X, "__dask_graph__") and hasattr(X, "dtype")) or hasattr(X, "oindex") or hasattr(X, "read_direct")


def _read_rows(X, rows):
    """Return the ascending rows of X."""
    if hasattr(X, "oindex"):  # zarr: reads each chunk once
        return X.oindex[rows]
    if not hasattr(X, "read_direct"):
        return X[rows]
    # h5py takes a time for each row of a list that slices do not: rows that are near each other are read together.
    nbytes = max(1, X.shape[1] * X.dtype.itemsize)
    gap, max_rows = max(1, _GAP_BYTES // nbytes), max(1, _CHUNK_BYTES // nbytes)
    ends = np.flatnonzero((np.diff(rows) > gap) | (np.diff(rows // max_rows) > 0)) + 1
    parts = np.split(rows, ends)
    return np.concatenate([X[part[0] : part[-1] + 1][part - part[0]] for part in parts])
