"""Measures from stored codes: nothing is learned here, so that a measure can be added without repeating a run.

Every figure is a mean over queries; ties are at their expectation over random order (aphash.metrics); average precision
and recall are divided by all relevant items of the database. Relevant are the items with the query's label, and, for
``recall10@...``, the query's 10 nearest by Euclidean distance among the float vectors.
"""

import baselines
import numpy as np

from aphash import HammingIndex, metrics, unpack_codes

TIES = "expectation over random order within equal distances"
N_TRUE = 10
CANDIDATES = 100  # rescored by the float vectors
_QUERIES = 25  # whose float distances are ranked at a time
_PAIRS = 12_000_000  # of queries and items, whose distances are held while true neighbours are found
_EXACT = 1 << 24  # float32 holds all integers up to here
_CURVE_POINTS = 60


def true_neighbors(X, Q, k=N_TRUE):
    """Positions of the k nearest rows of X to each row of Q, nearest first: float32 candidates, exact in float64."""
    out = np.empty((len(Q), k), np.int64)
    wanted = min(len(X), k + 20)
    step = max(1, min(200, _PAIRS // len(X)))
    for start in range(0, len(Q), step):
        q = Q[start : start + step]
        near = np.argpartition(baselines.squared_distances(q, X), wanted - 1, axis=1)[:, :wanted]
        exact = ((X[near].astype(np.float64) - q[:, None]) ** 2).sum(axis=2)
        out[start : start + step] = np.take_along_axis(near, np.argsort(exact, axis=1, kind="stable")[:, :k], axis=1)
    return out


def count_neighbors(distances, neighbors):
    """Return what ``metrics.count_distances`` counts, without sorting all items: relevant are the neighbours only.

    Items between two neighbours are one level without a relevant one, so no measure of the ranking changes.

    Parameters
    ----------
    distances : ndarray, shape (n_queries, n)
    neighbors : ndarray of int, shape (n_queries, t)

    Returns
    -------
    metrics.Counts
        Of 2 t + 1 levels.
    """
    own = np.sort(np.take_along_axis(distances, neighbors, axis=1), axis=1)
    n, t = distances.shape[1], own.shape[1]
    ends = np.full((len(own), 2 * t + 2), n)  # of levels: items before each neighbour's distance, and up to it
    ends[:, 0] = 0
    relevant = np.zeros((len(own), 2 * t + 1), np.int64)
    for j in range(t):
        ends[:, 2 * j + 1] = np.count_nonzero(distances < own[:, j, None], axis=1)
        ends[:, 2 * j + 2] = np.count_nonzero(distances <= own[:, j, None], axis=1)
        relevant[:, 2 * j + 1] = (own == own[:, j, None]).sum(axis=1)
        if j:  # a distance that was there before: its level has been counted
            again = own[:, j] == own[:, j - 1]
            ends[again, 2 * j + 1] = ends[again, 2 * j]
            relevant[again, 2 * j + 1] = 0
    return metrics.Counts(np.diff(ends, axis=1), relevant)


def first(distances, k):
    """Return the k items of least distance, by (distance, number)."""
    if k >= len(distances):
        return np.argsort(distances, kind="stable")
    some = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
    return some[np.argsort(distances[some], kind="stable")[:k]]


class Truth:
    """What the answers to one split's queries are compared with.

    Parameters
    ----------
    X, Q : ndarray of float32
        Database and queries.
    labels, query_labels : ndarray or None
    """

    def __init__(self, X, Q, labels, query_labels):
        self.X, self.Q, self.labels, self.query_labels = X, Q, labels, query_labels
        self.neighbors = true_neighbors(X, Q)

    def of_codes(self, database, queries):
        """Return the measures of packed codes, a dict of numbers and of the precision-recall curve."""
        index = HammingIndex(64 * database.shape[1])  # whole words: padding bits are 0, and no distance changes
        index.add(database.copy())  # of a copy it is not known that fewer bits were packed
        found = index.search(queries.copy(), min(CANDIDATES, len(database)))[1]
        near = metrics.count_codes(queries, database, neighbors=self.neighbors)
        same = None
        if self.labels is not None:
            same = metrics.count_codes(queries, database, query_labels=self.query_labels, database_labels=self.labels)
        out = self._figures(same, near)
        if same is not None:
            ball = metrics.within_radius(same, 2)
            out |= {"P(r<=2)": ball.precision.mean(), "R(r<=2)": ball.recall.mean(), "empty(r<=2)": ball.empty}
            out["curve"] = _curve(*metrics.precision_recall_curve(same))
        return _rounded(out | self._rescored(found))

    def of_weights(self, database, weights):
        """The same for packed codes that are asked by weights (n_queries, n_bits), with the distances of the search."""
        dtype = np.float32 if 65535 * weights.shape[1] <= _EXACT else np.float64  # sums are exact in either
        bits = unpack_codes(database, weights.shape[1]).T.astype(dtype)
        scale = np.abs(weights).max(axis=1, keepdims=True).astype(np.float64)
        integers = np.copysign(np.rint(np.abs(weights) / np.where(scale > 0, scale, 1) * 65535), weights).astype(dtype)
        rows = iter(np.array_split(integers, range(_QUERIES, len(weights), _QUERIES)))

        def distances(_):  # bits that differ: the positive weights, less those of set bits
            some = next(rows)
            return np.maximum(some, 0).sum(axis=1, keepdims=True) - some @ bits

        return self.of_distances(distances)

    def of_distances(self, distances):
        """The same for a function from queries to distances to all items."""
        sums, curve, found = {}, 0, []
        for start in range(0, len(self.Q), _QUERIES):
            some = slice(start, start + _QUERIES)
            d = distances(self.Q[some])
            near, same = count_neighbors(d, self.neighbors[some]), None
            if self.labels is not None:
                same = metrics.count_distances(d, self.query_labels[some, None] == self.labels[None])
                curve = curve + np.array(metrics.precision_recall_curve(same)) * len(d)
            for name, value in self._figures(same, near).items():
                sums[name] = sums.get(name, 0) + value * len(d)
            found += [first(row, CANDIDATES) for row in d]
        out = {name: value / len(self.Q) for name, value in sums.items()}
        if self.labels is not None:
            precision, recall = curve / len(self.Q)
            ranks = np.unique(np.geomspace(1, len(precision), _CURVE_POINTS).astype(int)) - 1
            out["curve"] = _curve(precision[ranks], recall[ranks])
        return _rounded(out | self._rescored(np.stack(found)))

    @staticmethod
    def _figures(same, near):
        out = {}
        n = int(near.items[0].sum())
        if same is not None:
            out["mAP"] = metrics.average_precision(same).mean()
            out |= {f"P@{k}": metrics.precision_at_k(same, k).mean() for k in (10, 100, 1000) if k <= n}
        for k in (10, 100, 1000):
            if k <= n:
                out[f"recall{N_TRUE}@{k}"] = metrics.recall_at_k(near, k).mean()
        return out

    def _rescored(self, found):
        """Precision and recall of the first 10 after the candidates were ordered by the floats' distances."""
        d = np.stack([((self.X[ids] - q) ** 2).sum(axis=1) for ids, q in zip(found, self.Q)])
        first = np.take_along_axis(found, np.argsort(d, axis=1, kind="stable")[:, :10], axis=1)
        hits = (first[:, :, None] == self.neighbors[:, None, :]).any(axis=2)
        out = {f"rescored recall{N_TRUE}@10": hits.mean()}
        if self.labels is not None:
            out["rescored P@10"] = (self.labels[first] == self.query_labels[:, None]).mean()
        return out


def _curve(precision, recall):
    some = slice(int(np.searchsorted(recall, 0.9999)) + 1)  # beyond, nothing changes any more
    precision, recall = precision[some], recall[some]
    return {"recall": np.round(recall, 4).tolist(), "precision": np.round(precision, 4).tolist()}


def _rounded(figures):
    return {name: value if isinstance(value, dict) else round(float(value), 5) for name, value in figures.items()}
