"""Retrieval measures over the whole ranking, with ties taken as they are. Needs numpy only.

Conventions
-----------
Distances. Hamming distances are small integers, so most items tie with many others; what an arbitrary order inside a
tie gives is not a measure of the codes. Every measure here is the *expectation over a uniformly random order within
equal distances*, in closed form (McSherry & Najork 2008), not one draw.

Relevance. An item is relevant to a query if they have the same label, or share a label where labels are boolean
matrices, or if it is one of the query's listed true neighbours.

Denominators. Average precision and recall divide by all relevant items of the database, not by those found. A query
without any relevant item counts as 0. A radius that holds no item counts as precision 0, and the share of such queries
is reported. Queries must not be in the database, or they find themselves.

For each query, the numbers of items and of relevant items at each distance are all that any measure needs: they are
counted once (:func:`count_codes`, :func:`count_distances`), and every measure is a function of these counts that
returns one number a query; the usual figure is its mean.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aphash.codes import check_codes

_BLOCK = 1 << 21  # query-item pairs held at a time


@dataclass(frozen=True)
class Counts:
    """How many items, and how many relevant ones, each query has at each level of distance, nearest first.

    Attributes
    ----------
    items, relevant : ndarray of int64, shape (n_queries, n_levels)
        Level d is Hamming distance d where the counts are of codes.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import metrics
    >>> counts = metrics.count_distances([[0, 1, 1, 3]], [[True, False, True, False]])
    >>> counts.items, counts.relevant
    (array([[1, 2, 1, 0]]), array([[1, 1, 0, 0]]))
    """

    items: NDArray[np.int64]
    relevant: NDArray[np.int64]

    @property
    def n_relevant(self) -> NDArray[np.int64]:
        """Relevant items of each query in the whole database, (n_queries,)."""
        return self.relevant.sum(axis=1)


def count_codes(
    query_codes: NDArray[np.uint64],
    database_codes: NDArray[np.uint64],
    *,
    query_labels: ArrayLike | None = None,
    database_labels: ArrayLike | None = None,
    neighbors: ArrayLike | None = None,
) -> Counts:
    """Count items and relevant items at each Hamming distance.

    Parameters
    ----------
    query_codes, database_codes : ndarray of uint64, shapes (n_queries, n_words) and (n, n_words)
        Packed codes.
    query_labels, database_labels : array_like, shapes (n_queries,) and (n,), or boolean (n_queries, c) and (n, c)
        Both or neither.
    neighbors : array_like of int, shape (n_queries, t)
        Instead of labels: the positions in the database that are relevant to each query.

    Returns
    -------
    Counts
        With 64 n_words + 1 levels.

    Raises
    ------
    TypeError, ValueError
        When codes, labels or neighbours do not fit each other.

    Notes
    -----
    Needs about 50 MiB beside the counts, or 24 n bytes where that is more.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import metrics
    >>> codes = np.array([[0], [1], [3], [7]], np.uint64)
    >>> counts = metrics.count_codes(codes[:1], codes, query_labels=[0], database_labels=[0, 0, 1, 1])
    >>> float(metrics.precision_at_k(counts, 2)[0])
    1.0
    """
    n_bits = 64 * np.shape(query_codes)[-1] if np.ndim(query_codes) else 64
    query_codes = check_codes(query_codes, n_bits, "query_codes", padded=True)
    database_codes = check_codes(database_codes, n_bits, "database_codes", padded=True)
    relevance = _relevance(len(query_codes), len(database_codes), query_labels, database_labels, neighbors)
    n_levels = n_bits + 1
    step = max(1, _BLOCK // max(1, len(database_codes)))
    counts = np.zeros((len(query_codes), n_levels, 2), np.int64)
    for start in range(0, len(query_codes), step):
        some = slice(start, start + step)
        queries = query_codes[some]
        cell = np.zeros((len(queries), len(database_codes)), np.int64)
        for word in range(query_codes.shape[1]):
            cell += np.bitwise_count(queries[:, word, None] ^ database_codes[None, :, word])
        cell += np.arange(len(queries))[:, None] * n_levels
        cell *= 2
        cell += relevance(some)
        counts[some] = np.bincount(cell.ravel(), minlength=counts[some].size).reshape(counts[some].shape)
    return Counts(counts.sum(axis=2), counts[:, :, 1])


def count_distances(distances: ArrayLike, relevant: ArrayLike) -> Counts:
    """Count for distances of any kind, such as those of float vectors; equal distances tie.

    Parameters
    ----------
    distances : array_like of shape (n_queries, n)
        Finite; smaller is nearer.
    relevant : array_like of bool, shape (n_queries, n)

    Returns
    -------
    Counts
        With n levels; the last ones are empty where distances tie.

    Raises
    ------
    ValueError
        When shapes differ or a distance is not a number.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import metrics
    >>> counts = metrics.count_distances([[0, 1, 1, 3]], [[True, False, True, False]])
    >>> counts.n_relevant
    array([2])
    """
    distances, relevant = np.asarray(distances), np.asarray(relevant, bool)
    if distances.ndim != 2 or distances.shape != relevant.shape:
        raise ValueError(
            f"distances and relevant must have one shape (n_queries, n), got {distances.shape} and {relevant.shape}"
        )
    if np.isnan(distances).any():
        raise ValueError("distances contains NaN")
    order = np.argsort(distances, axis=1, kind="stable")
    ranked = np.take_along_axis(distances, order, axis=1)
    level = np.zeros(ranked.shape, np.int64)
    np.cumsum(ranked[:, 1:] != ranked[:, :-1], axis=1, out=level[:, 1:])
    level += np.arange(len(level))[:, None] * distances.shape[1]
    items = np.bincount(level.ravel(), minlength=level.size).reshape(level.shape)
    hits = level[np.take_along_axis(relevant, order, axis=1)]
    return Counts(items, np.bincount(hits, minlength=level.size).reshape(level.shape))


def average_precision(counts: Counts) -> NDArray[np.float64]:
    """Return the expected average precision of each query over the whole ranking.

    In a tie of t items, s of them relevant, behind N items and R relevant ones, the item at place i is relevant with
    probability s/t, and then (i - 1)(s - 1)/(t - 1) relevant ones of the tie are expected before it. So the tie adds

        sum_{i=1..t} (s/t) (R + 1 + (i - 1)(s - 1)/(t - 1)) / (N + i)
            = (s/t) [ (R + 1) D + (s - 1)/(t - 1) (t - (N + 1) D) ],    D = 1/(N + 1) + ... + 1/(N + t),

    and average precision is the sum over ties, divided by the number of relevant items.

    Parameters
    ----------
    counts : Counts

    Returns
    -------
    ndarray of float64, shape (n_queries,)

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import metrics
    >>> counts = metrics.count_distances([[0, 1, 1, 3]], [[True, False, True, False]])
    >>> metrics.average_precision(counts).round(3)
    array([0.917])
    """
    t, s = counts.items, counts.relevant
    after = np.cumsum(t, axis=1)
    N, R = after - t, np.cumsum(s, axis=1) - s
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, after.max(initial=0) + 1))])
    D = harmonic[after] - harmonic[N]
    pairs = np.divide(s - 1, t - 1, out=np.zeros(t.shape), where=t > 1)
    share = np.divide(s, t, out=np.zeros(t.shape), where=t > 0)
    return _over_relevant((share * ((R + 1) * D + pairs * (t - (N + 1) * D))).sum(axis=1), counts)


def precision_at_k(counts: Counts, k: int) -> NDArray[np.float64]:
    """Return the expected share of relevant items among the first k of each query, (n_queries,) float64.

    Parameters
    ----------
    counts : Counts
    k : int
        1 to the number of items.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import metrics
    >>> counts = metrics.count_distances([[0, 1, 1, 3]], [[True, False, True, False]])
    >>> metrics.precision_at_k(counts, 2)
    array([0.75])
    """
    return _hits(counts, k) / k


def recall_at_k(counts: Counts, k: int) -> NDArray[np.float64]:
    """Return the expected share of each query's relevant items that are among the first k, (n_queries,) float64.

    With ``neighbors`` this is the recall of true neighbours: recall10@100 for 10 neighbours and k = 100.

    Parameters
    ----------
    counts : Counts
    k : int
        1 to the number of items.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import metrics
    >>> counts = metrics.count_distances([[0, 1, 1, 3]], [[True, False, True, False]])
    >>> metrics.recall_at_k(counts, 3)
    array([1.])
    """
    return _over_relevant(_hits(counts, k), counts)


@dataclass(frozen=True)
class WithinRadius:
    """Look-up measures: ``precision`` and ``recall`` of each query (n_queries,), ``empty``: share of empty balls.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import metrics
    >>> counts = metrics.count_distances([[0, 1, 1, 3]], [[True, False, True, False]])
    >>> found = metrics.within_radius(counts, 0)
    >>> found.precision, found.recall, found.empty
    (array([1.]), array([0.5]), 0.0)
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    empty: float


def within_radius(counts: Counts, radius: int) -> WithinRadius:
    """Return precision and recall of the items within a Hamming distance, empty balls as precision 0.

    Parameters
    ----------
    counts : Counts
        Of codes.
    radius : int

    Returns
    -------
    WithinRadius

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import metrics
    >>> counts = metrics.count_distances([[0, 1, 1, 3]], [[True, False, True, False]])
    >>> metrics.within_radius(counts, 1).recall
    array([1.])
    """
    if radius < 0 or radius != int(radius):
        raise ValueError(f"radius must be a non-negative integer, got {radius!r}")
    items = counts.items[:, : int(radius) + 1].sum(axis=1)
    hits = counts.relevant[:, : int(radius) + 1].sum(axis=1)
    precision = np.divide(hits, items, out=np.zeros(len(items)), where=items > 0)
    return WithinRadius(precision, _over_relevant(hits, counts), float((items == 0).mean()))


def precision_recall_curve(counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (precision, recall) at each level of distance, means over the queries, two (n_levels,) float64 arrays.

    Precision at a level that holds nothing yet counts as 0, as in :func:`within_radius`.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import metrics
    >>> counts = metrics.count_distances([[0, 1, 1, 3]], [[True, False, True, False]])
    >>> precision, recall = metrics.precision_recall_curve(counts)
    >>> recall
    array([0.5, 1. , 1. , 1. ])
    """
    items, hits = np.cumsum(counts.items, axis=1), np.cumsum(counts.relevant, axis=1)
    precision = np.divide(hits, items, out=np.zeros(items.shape), where=items > 0)
    n_relevant = counts.n_relevant[:, None]
    recall = np.divide(hits, n_relevant, out=np.zeros(items.shape), where=n_relevant > 0)
    return precision.mean(axis=0), recall.mean(axis=0)


def mean_average_precision(
    query_codes: NDArray[np.uint64],
    database_codes: NDArray[np.uint64],
    query_labels: ArrayLike,
    database_labels: ArrayLike,
) -> float:
    """Return the mean over the queries of :func:`average_precision`, for packed codes and labels; a float.

    Parameters are those of :func:`count_codes`.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import metrics
    >>> codes = np.array([[0], [1], [3], [7]], np.uint64)
    >>> metrics.mean_average_precision(codes[:1], codes, [0], [0, 0, 1, 1])
    1.0
    """
    counts = count_codes(query_codes, database_codes, query_labels=query_labels, database_labels=database_labels)
    return float(average_precision(counts).mean())


def _hits(counts, k):
    """Expected relevant items among the first k: of a tie that k cuts, its relevant share."""
    if k != int(k) or not 1 <= k <= counts.items.sum(axis=1).min(initial=np.iinfo(np.int64).max):
        raise ValueError(f"k must be an integer from 1 to the number of items, got {k!r}")
    t, s = counts.items, counts.relevant
    before = np.cumsum(t, axis=1) - t
    inside = np.clip(k - before, 0, t)
    return (s * np.divide(inside, t, out=np.zeros(t.shape), where=t > 0)).sum(axis=1)


def _over_relevant(values, counts):
    n_relevant = counts.n_relevant
    return np.divide(values, n_relevant, out=np.zeros(len(n_relevant)), where=n_relevant > 0)


def _relevance(n_queries, n, query_labels, database_labels, neighbors):
    """Return a function from a slice of queries to booleans (queries, n)."""
    if (query_labels is None) != (database_labels is None) or (query_labels is None) == (neighbors is None):
        raise TypeError("give query_labels and database_labels, or neighbors")
    if neighbors is not None:
        neighbors = np.asarray(neighbors)
        if neighbors.ndim != 2 or len(neighbors) != n_queries or neighbors.dtype.kind not in "iu":
            raise ValueError(f"neighbors must be integers of shape ({n_queries}, t), got {neighbors.shape}")
        if neighbors.size and not (neighbors.min() >= 0 and neighbors.max() < n):
            raise ValueError(f"neighbors must be positions in the database, 0 to {n - 1}")

        def listed(some):
            found = np.zeros((len(neighbors[some]), n), bool)
            np.put_along_axis(found, neighbors[some], True, axis=1)
            return found

        return listed
    query_labels, database_labels = np.asarray(query_labels), np.asarray(database_labels)
    for name, labels, length in (("query_labels", query_labels, n_queries), ("database_labels", database_labels, n)):
        if labels.ndim not in (1, 2) or len(labels) != length:
            raise ValueError(f"{name} must have one row a code, {length}, got shape {labels.shape}")
    if query_labels.ndim == database_labels.ndim == 1:
        return lambda some: query_labels[some, None] == database_labels[None, :]
    if query_labels.shape[1:] != database_labels.shape[1:] or not query_labels.dtype == database_labels.dtype == bool:
        raise ValueError("labels with two dimensions must be booleans with the same number of columns")
    ours, theirs = query_labels.astype(np.float32), database_labels.T.astype(np.float32)
    return lambda some: ours[some] @ theirs > 0
