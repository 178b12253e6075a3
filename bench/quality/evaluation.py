"""Measures from stored codes: nothing is learned here, so that a measure can be added without repeating a run.

Every figure is a mean over queries; ties are at their expectation over random order (aphash.metrics); average precision
and recall are divided by all relevant items of the database. Relevant are the items with the query's label, and, for
``recall10@...``, the query's 10 nearest by Euclidean distance among the float vectors. Measures of distances have
``hits@10`` and ``hits@100``, too: how many of these 10 each query finds, in the order of the search (distance, id), a
hexadecimal digit a query, for intervals of paired differences.
"""

from typing import NamedTuple

import baselines
import numpy as np

from aphash import HammingIndex, metrics, unpack_codes

TIES = "expectation over random order within equal distances"
N_TRUE = 10
CANDIDATES = 100  # rescored by the float vectors
CUTS = (10, 100, 1000)  # ranks up to which precision and recall are measured
_QUERIES = 25  # whose float distances are ranked at a time
_PAIRS = 12_000_000  # of queries and items, whose distances are held while true neighbours are found
_CURVE_POINTS = 60
_EXACT = 1 << 24  # below, float32 holds whole numbers as they are
_IDS = (1 << 30) - 1


class Levels(NamedTuple):
    """Of a ranking, the number of items up to the end of each level of distance, and how many of them are relevant."""

    ends: np.ndarray
    hits: np.ndarray


class Ranking(NamedTuple):
    """The ids of a query's first items, and the levels for its true neighbours and for its label (or None)."""

    first: np.ndarray
    near: Levels
    same: Levels | None


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
        """The same for packed codes that are asked by weights (n_queries, n_bits), with the distances of the search.

        Needs 4 n_bits n bytes; 8 above 256 bits.
        """
        n_bits = weights.shape[1]
        number = np.float32 if n_bits * 65535 < _EXACT else np.float64  # so that sums of whole numbers are exact
        bits = unpack_codes(database, n_bits).T.astype(number)
        scale = np.abs(weights).max(axis=1, keepdims=True).astype(np.float64)
        integers = np.copysign(np.rint(np.abs(weights) / np.where(scale > 0, scale, 1) * 65535), weights).astype(number)
        rows = iter(np.array_split(integers, range(_QUERIES, len(weights), _QUERIES)))

        def distances(_):  # bits that differ: the positive weights, less those of set bits
            some = next(rows)
            return np.maximum(some, 0).sum(axis=1, keepdims=True) - some @ bits

        return self.of_distances(distances)

    def of_distances(self, distances):
        """The same for a function from queries to distances to all items: float32, or whole numbers below 2^31.

        Needs 4 n bytes for each of 25 queries, and 50 n.
        """
        sums, curves, found = {}, [], []
        for start in range(0, len(self.Q), _QUERIES):
            some = slice(start, start + _QUERIES)
            keys = _whole_numbers(distances(self.Q[some]))
            rankings = [self._ranked(key, start + i) for i, key in enumerate(keys)]
            near, same = _counts([r.near for r in rankings]), None
            if self.labels is not None:
                same = _counts([r.same for r in rankings])
                curves += [_at_levels(r.same, keys.shape[1]) for r in rankings]
            for name, value in self._figures(same, near).items():
                sums[name] = sums.get(name, 0) + value * len(keys)
            found += [r.first for r in rankings]
        out = {name: value / len(self.Q) for name, value in sums.items()}
        if curves:
            out["curve"] = _curve(*np.mean(curves, axis=0))
        found = np.stack(found)
        hits = (found[:, :, None] == self.neighbors[:, None, :]).any(axis=2)
        out |= {f"hits@{k}": "".join(f"{h:x}" for h in hits[:, :k].sum(axis=1)) for k in (10, 100)}
        return _rounded(out | self._rescored(found))

    def _ranked(self, keys, q):
        """Rank the items for query q by one sort of 64-bit numbers: distance, then id, then what is relevant.

        Without labels no rank beyond the last cut is needed, so only items up to there are sorted.
        """
        n, labelled = len(keys), self.labels is not None
        low = np.arange(n, dtype=np.int64) << 2
        low[self.neighbors[q]] |= 1
        if labelled:
            low |= (self.labels == self.query_labels[q]).astype(np.int64) << 1
        elif n > 4 * CUTS[-1]:
            some = np.flatnonzero(keys <= np.partition(keys, CUTS[-1] - 1)[CUTS[-1] - 1])
            keys, low = keys[some], low[some]
        line = keys.astype(np.int64) << 32 | low
        line.sort()
        ends = np.append(np.flatnonzero(np.diff(line >> 32)) + 1, len(line))
        near = Levels(ends, np.cumsum(line & 1)[ends - 1])
        if len(line) < n:  # all others are one level behind
            near = Levels(np.append(ends, n), np.append(near.hits, self.neighbors.shape[1]))
        same = Levels(ends, np.cumsum(line >> 1 & 1)[ends - 1]) if labelled else None
        return Ranking((line[:CANDIDATES] >> 2) & _IDS, near, same)

    @staticmethod
    def _figures(same, near):
        out = {}
        n = int(near.items[0].sum())
        if same is not None:
            out["mAP"] = metrics.average_precision(same).mean()
            out |= {f"P@{k}": metrics.precision_at_k(same, k).mean() for k in CUTS if k <= n}
        for k in CUTS:
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


def _whole_numbers(distances):
    """Return int32 in the order of the distances, equal ones equal."""
    if distances.dtype == np.float32:
        if np.isnan(distances).any():
            raise ValueError("distances contain NaN")
        bits = (distances + np.float32(0)).view(np.int32)  # -0 becomes 0
        return np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)  # of negative numbers the smaller has more bits
    if not (np.abs(distances) < 2**31).all() or (distances != np.rint(distances)).any():
        raise ValueError(f"distances must be float32, or whole numbers below 2^31; got {distances.dtype}")
    return distances.astype(np.int32)


def _counts(levels):
    """Counts of several rankings, without the levels that hold nothing relevant: the gaps between others are one level.

    That changes no measure but the curve, and leaves a tenth of the numbers.
    """
    rows = []
    for ends, hits in levels:
        relevant = np.diff(hits, prepend=0)
        some = np.flatnonzero(relevant)
        edges = np.append(np.stack([np.where(some > 0, ends[some - 1], 0), ends[some]], axis=1).ravel(), ends[-1])
        rows.append((np.diff(edges, prepend=0), relevant[some]))
    shape = len(rows), max(len(items) for items, _ in rows)
    counts = metrics.Counts(np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    for i, (items, relevant) in enumerate(rows):
        counts.items[i, : len(items)] = items
        counts.relevant[i, 1 : 2 * len(relevant) : 2] = relevant
    return counts


def _at_levels(levels, n):
    """(precision, recall) of one query at the points of the curve: numbers of levels, evenly by their logarithms."""
    points = np.unique(np.geomspace(1, n, _CURVE_POINTS).astype(int)) - 1
    points = np.minimum(points, len(levels.ends) - 1)
    hits = levels.hits[points]
    return hits / levels.ends[points], hits / max(levels.hits[-1], 1)


def _curve(precision, recall):
    some = slice(int(np.searchsorted(recall, 0.9999)) + 1)  # beyond, nothing changes any more
    precision, recall = precision[some], recall[some]
    return {"recall": np.round(recall, 4).tolist(), "precision": np.round(precision, 4).tolist()}


def _rounded(figures):
    return {name: value if isinstance(value, dict | str) else round(float(value), 5) for name, value in figures.items()}
