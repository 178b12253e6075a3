"""Recall of the true neighbours: their ranks in a search by weights tell it for every number of candidates.

With c candidates that are ranked anew by vectors, the true neighbours of rank c or less are found. So one search of a
sample of queries, whose true neighbours are known, tells the recall for every c up to its length. Needs numpy only.
"""

from typing import Any

import numpy as np

from aphash._measuring.brute_force import nearest_rows
from aphash._searching import queries
from aphash._searching._store import Store
from aphash._searching.engines import SCAN

KS = (1, 10, 100)  # true neighbours for which recall is measured
MAX_CANDIDATES = 1 << 14  # that recall is measured for; all, where there are fewer codes

_TIE = 1e-6  # relative: as far as the last neighbour
_TOLD = 10_000  # candidates: the most that ExpectedRecall has
_STEPS = (1, 2, 3, 5, 7)  # times powers of ten: the numbers of candidates that are told


class ExpectedRecall(dict[int, np.ndarray]):
    """``recall[k]`` for k = 1, 10, 100: an array (g, 2) of numbers of candidates and the share of the true k nearest.

    Attributes
    ----------
    n : int
        Rows that were searched: more rows make the recall of as many candidates lower.
    n_queries : int
        Rows that were searched for; 0 where nothing was measured, and then the dict is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import APHash
    >>> X = np.random.default_rng(0).standard_normal((2000, 16))
    >>> measured = APHash(16, n_train=1900, random_state=0).fit(X).expected_recall_
    >>> sorted(measured), measured.n, measured.n_queries
    ([1, 10, 100], 2000, 100)
    """

    __module__ = "aphash"  # where it is public: pickles say so

    def __init__(self, recall: Any = (), n: int = 0, n_queries: int = 0) -> None:
        super().__init__(recall)
        self.n, self.n_queries = n, n_queries

    def __reduce__(self):
        return type(self), (dict(self), self.n, self.n_queries)

    def at(self, candidates: float, k: int = 10) -> float:
        """Return the recall of the k nearest among so many candidates; log-linear between those that were measured.

        Parameters
        ----------
        candidates : float
        k : {1, 10, 100}

        Returns
        -------
        float

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import ExpectedRecall
        >>> recall = ExpectedRecall({10: np.array([[1, 0.1], [10, 0.5], [100, 0.9]])}, n=1000, n_queries=50)
        >>> recall.at(10), recall.at(100)
        (0.5, 0.9)
        """
        known, found = self[k].T
        return float(np.interp(np.log(candidates), np.log(known), found))

    def __str__(self) -> str:
        if not self.n_queries:
            return "no recall was measured: too few rows that did not learn"
        shown = [c for c in (1, 10, 100, 1000, 10_000) if c <= self[1][-1, 0]]
        lines = [
            f"expected share of the true k nearest among the first candidates by weights ({self.n_queries} rows that "
            f"did not learn, among {self.n:,} rows)",
            " ".join(["candidates", *(f"{c:>7,}" for c in shown)]),
        ]
        for k in self:
            told = (f"{self.at(c, k):7.3f}" if c >= k else 7 * " " for c in shown)
            lines.append(" ".join([f"k = {k:<6}", *told]).rstrip())
        return "\n".join(lines)


def expected_recall(X, own_rows, codes, weights, n_threads):
    """Return the :class:`ExpectedRecall` of rows of X that are searched for among all of them, themselves left out.

    Parameters
    ----------
    X : ndarray of floats, shape (n, d)
        Euclidean distances are compared.
    own_rows : ndarray of int64, shape (m,)
    codes : ndarray of uint64, shape (n, n_words)
    weights : ndarray of floats, shape (m, n_bits)
    n_threads : int

    Notes
    -----
    Needs m (d + 2 n_bits) numbers, 16 MiB a thread, and min(n, 10,000) candidates of 12 bytes for some
    hundred queries at a time.
    """
    n = len(X)
    distances, true = nearest_rows(X, own_rows, "l2", max(KS), n_threads)
    most = min(n - 1, _TOLD)
    found = ranks(search_by_weights(codes, weights, n_threads), n, own_rows, true, most)
    grid = candidates_up_to(most)
    recall, _ = of_ranks(found, distances, distances, grid)
    by_k = {k: np.stack([grid, each], axis=1) for k, each in zip(KS, recall, strict=True) if k < n}
    return ExpectedRecall(by_k, n, len(own_rows))


def search_by_weights(codes, weights, n_threads):
    """Return a function from a slice of the weights and k to the rows of the k nearest codes, (len(slice), k)."""
    store = Store(weights.shape[1])
    store.add(codes)
    asked = np.ascontiguousarray(weights, np.float64)
    return lambda some, k: queries.nearest(SCAN, store.present, asked[some], k, None, n_threads)[1]


def candidates_up_to(most):
    """Return 1, 2, 3, 5, 7, 10, 20, ... up to a number, which is the last."""
    powers = 10 ** np.arange(len(str(most)))
    grid = np.multiply.outer(powers, _STEPS).ravel()
    return np.append(grid[grid < most], most)


def ranks(find, n, own_rows, true, most=MAX_CANDIDATES):
    """Return the ranks, from 1, of rows in searches without the queries' own rows; n or more beyond ``most``.

    Parameters
    ----------
    find : callable
        Given a slice of the queries and k, returns the rows of the k nearest codes of each, (len(slice), k).
    n : int
        Rows that are searched.
    own_rows : ndarray of int64, shape (m,)
    true : ndarray of int64, shape (m, l)

    Returns
    -------
    ndarray of int64, shape (m, l)
    """
    out = np.empty(true.shape, np.int64)
    rank = np.full(n, n + 1, np.int64)
    most = min(n, most + 1)
    step = max(1, (1 << 22) // most)
    for start in range(0, len(true), step):
        for query, rows in enumerate(find(slice(start, start + step), most), start):
            rank[rows] = np.arange(1, most + 1)
            out[query] = rank[true[query]] - (rank[true[query]] > rank[own_rows[query]])
            rank[rows] = n + 1
    return out


def of_ranks(ranks, true_distances, kept_distances, grid):
    """Return (recall, its standard error), each of shape (len(KS), len(grid)), of numbers of candidates.

    Parameters
    ----------
    ranks : ndarray of int64, shape (m, l)
        Of the true neighbours, in the order of the columns of the distances.
    true_distances, kept_distances : ndarray, shape (m, l)
        By the vectors as they were given, ascending; and as they are kept, by which candidates are ranked anew.
    grid : sequence of int
    """
    order = np.argsort(kept_distances, axis=1, kind="stable")
    ranks, found = np.take_along_axis(ranks, order, axis=1), np.empty((2, len(KS), len(grid)))
    distances = np.take_along_axis(true_distances, order, axis=1)
    for row, k in enumerate(KS):
        k = min(k, ranks.shape[1])
        is_true = distances <= true_distances[:, k - 1 : k] * (1 + _TIE)
        for column, candidates in enumerate(grid):
            among = ranks <= candidates
            first = among & (np.cumsum(among, axis=1) <= k)
            of_queries = (first & is_true).sum(axis=1) / k
            found[:, row, column] = of_queries.mean(), of_queries.std() / np.sqrt(len(ranks))
    return found
