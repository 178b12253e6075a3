"""Calibration: what searches by codes find of the true neighbours, measured once by queries whose answers are known.

The ranks of the true neighbours of a sample of queries tell the recall (``_measuring.recall``). A sample of pairs
tells how distances of codes and of vectors go together: which radius finds most pairs within a distance, and which
distance to expect. It pairs each query with some of its neighbours and with rows at random; each pair has the number of
pairs that it stands for. Needs numpy only.
"""

import functools
from dataclasses import dataclass, fields

import numpy as np

from aphash._measuring.recall import KS, MAX_CANDIDATES, of_ranks, ranks
from aphash.codes import unpack_codes

N_TRUE = 200  # true neighbours of a query that are used

_GRID = 97  # numbers of candidates for which recall is measured
_RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)  # the neighbours that are in the sample of pairs
_OTHERS = 16  # rows at random that are paired with each query
_MIN_PAIRS = 100  # a radius is chosen by at least so many pairs of the sample
_KNOTS = 65  # points in the tables from distances of codes to distances of vectors
_REMEMBERED = 1024  # answers that are remembered


def _remembered(method):
    """Remember what a method returns. To compute the number of candidates takes longer than to search for one query."""

    @functools.wraps(method)
    def remembered(self, *args):
        key = method.__name__, *args
        try:  # another thread may clear the memory meanwhile
            return self._memory[key]
        except KeyError:
            found = method(self, *args)
        if len(self._memory) >= _REMEMBERED:
            self._memory.clear()
        self._memory[key] = found
        return found

    return remembered


@dataclass(frozen=True)
class Calibration:
    """What was measured, as arrays that a file can hold.

    Attributes
    ----------
    n : int
        The number of rows that were searched.
    candidates : ndarray of int64, shape (g,)
        Ascending.
    recall : ndarray of float64, shape (len(KS), g)
        The share of the true k nearest that is among the k nearest of so many candidates, by the kept vectors.
    errors : ndarray of float64, shape (len(KS), g)
        Standard errors of recall.
    ceiling : ndarray of float64, shape (len(KS),)
        The same with all codes as candidates.
    distances, shares, bits : ndarray of float32, float32, int32, shape (m, s)
        For each sampled pair, the distance of the vectors, the share of the query's weights on bits that differ, and
        the number of bits that differ.
    counts : ndarray of float64, shape (s,)
        How many pairs each sampled pair stands for.
    """

    n: int
    candidates: np.ndarray
    recall: np.ndarray
    errors: np.ndarray
    ceiling: np.ndarray
    distances: np.ndarray
    shares: np.ndarray
    bits: np.ndarray
    counts: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "_memory", {})
        of_pairs = self.distances.ravel(), np.broadcast_to(self.counts, self.distances.shape).ravel()
        for name in ("shares", "bits"):
            object.__setattr__(self, f"_by_{name}", _table(getattr(self, name).ravel(), *of_pairs))

    def to_file(self):
        """Return (arrays, params)."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "n"}
        return arrays, {"n": self.n}

    @classmethod
    def from_file(cls, arrays, params):
        """Return what :meth:`to_file` gave. KeyError, TypeError or ValueError where it is not whole."""
        found = {each.name: np.array(arrays[each.name]) for each in fields(cls) if each.name != "n"}
        m, s = found["distances"].shape
        g = len(found["candidates"])
        shapes = {"candidates": (g,), "recall": (len(KS), g), "errors": (len(KS), g), "ceiling": (len(KS),)}
        shapes |= {"shares": (m, s), "bits": (m, s), "counts": (s,)}
        if type(params["n"]) is not int or any(found[name].shape != shape for name, shape in shapes.items()):
            raise ValueError("a calibration whose parts do not fit each other")
        return cls(params["n"], **found)

    # ---- how many candidates ----

    @_remembered
    def candidates_for(self, recall, k, n):
        """Return how many candidates give a recall of k results among n codes; None where no measured number does.

        In the sample they gave a recall that is larger by one standard error, so that chance in the sample does not
        make the recall smaller. Between measured numbers of candidates, and between measured k, the result is
        interpolated log-linearly. Beyond the largest k it grows in proportion to k, and beyond the measured n in
        proportion to n, which is more than is needed.
        """
        if not len(self.candidates):
            return n
        needed = self._needed(self.recall - self.errors, recall, k, n)
        if not np.isfinite(needed):
            return None
        return int(min(n, max(k, np.ceil(needed - 1e-9))))

    @_remembered
    def recall_for(self, candidates, k, n):
        """Return the recall of k results that so many candidates give among n codes."""
        if candidates >= n:
            return self._of_all(k)
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self._needed(self.recall, middle, k, n) <= candidates else (low, middle)
        return low

    def best(self, k, n):
        """Return the largest recall of k results that was measured, and how many candidates give it."""
        low, high = _around(k)
        reached = float((self.recall - self.errors)[[low, high]].max(axis=1, initial=0).min())
        return reached, self.candidates_for(reached, k, n)

    def _of_all(self, k):
        """Return the recall of k results when all codes are ranked by vectors, as these are kept."""
        return float(self.ceiling[list(_around(k))].min())

    def _needed(self, measured, recall, k, n):
        """Return how many candidates are needed, a real number; infinity where no measured number is enough."""
        if not len(self.candidates):
            return np.inf
        low, high = _around(k)
        share = 0.0 if low == high else np.log(k / KS[low]) / np.log(KS[high] / KS[low])
        needed = self._reaching(measured[low], recall) ** (1 - share) * self._reaching(measured[high], recall) ** share
        return needed * max(1, k / KS[-1]) * max(1, n / self.n)

    def _reaching(self, measured, recall):
        reached = np.maximum.accumulate(measured)
        if recall > reached[-1]:
            return np.inf
        at = int(np.argmax(reached >= recall))
        if at == 0:
            return float(self.candidates[0])
        fraction = (recall - reached[at - 1]) / (reached[at] - reached[at - 1])
        low, high = np.log(self.candidates[at - 1 : at + 1])
        return float(np.exp(low + fraction * (high - low)))

    # ---- how far ----

    def radius_for(self, distance, recall, of):
        """Return (radius, recall, precision) of the radius that finds such a share of the pairs within a distance.

        Parameters
        ----------
        distance : float
            Between vectors.
        recall : float
        of : {"shares", "bits"}
            The distance of codes that the radius is for.

        Returns
        -------
        radius, recall, precision : float
            They are those of the pairs in the sample. Where few of these are so near, they are those of the nearest
            pairs, and the recall is at least that. Precision is the share of the pairs within the radius that are
            within the distance; it is NaN where no pair is within the radius.
        """
        codes, order = getattr(self, of).ravel(), np.argsort(self.distances, axis=None)
        counts = np.broadcast_to(self.counts, self.distances.shape).ravel()
        if not len(order):
            return np.inf, 1.0, np.nan
        n_within = np.searchsorted(self.distances.ravel()[order], distance, "right")
        within = order[: max(n_within, min(_MIN_PAIRS, len(order)))]
        within = within[np.argsort(codes[within], kind="stable")]
        reached = np.cumsum(counts[within])
        at = min(np.searchsorted(reached, recall * reached[-1] * (1 - 1e-12)), len(within) - 1)
        radius = codes[within[at]]
        at = np.searchsorted(codes[within], radius, "right") - 1
        near = codes <= radius
        good = counts[near & (self.distances.ravel() <= distance)].sum() / counts[near].sum()
        return float(radius), float(reached[at] / reached[-1]), float(good)

    def estimated(self, codes, of):
        """Return the mean distances, float32, of vectors whose codes have these distances."""
        knots, values = getattr(self, f"_by_{of}")
        return np.interp(codes, knots, values).astype(np.float32)


def _table(codes, distances, counts):
    """Return (knots, values): the mean distance of vectors by that of codes. It never falls, and is 0 without pairs."""
    if not len(codes):
        return np.array([0.0, 1.0]), np.array([0.0, 0.0])
    order = np.argsort(codes, kind="stable")
    knots, values = [], []
    for some in np.array_split(order, min(_KNOTS, len(order))):
        total = counts[some].sum()
        knots.append((codes[some] * counts[some]).sum() / total)
        values.append((distances[some] * counts[some]).sum() / total)
    return np.array(knots), np.maximum.accumulate(values)


def _around(k):
    """Return the two places in KS between which k lies."""
    high = min(int(np.searchsorted(KS, k)), len(KS) - 1)
    return (high if k >= KS[high] else high - 1), high


def measure(codes, weights, own_codes, own_rows, true, true_distances, kept_distances, random_rows, random_distances):
    """Return a Calibration.

    Parameters
    ----------
    codes : HammingIndex
        The index whose positions are the rows.
    weights : ndarray of float32, shape (m, n_bits)
        The weights of queries, which are rows of the index themselves.
    own_codes : ndarray of uint64, shape (m, n_words)
    own_rows : ndarray of int64, shape (m,)
    true, true_distances, kept_distances : ndarray, shape (m, l)
        The true neighbours without the query itself, ascending in distance, and their distances by the vectors as they
        were given and as they are kept.
    random_rows, random_distances : ndarray, shape (m, r)
    """
    n, n_true = len(codes), true.shape[1]
    position = np.argsort(codes.ids)
    in_order = codes.ids[position]

    def find(some, k):
        return position[np.searchsorted(in_order, codes.search(weights[some], k)[1])]

    max_candidates = min(n - 1, MAX_CANDIDATES)
    grid = np.unique(np.rint(np.geomspace(1, max_candidates, _GRID)).astype(np.int64))
    places = [rank - 1 for rank in _RANKS if rank <= n_true]
    counts = np.diff([0, *(place + 1 for place in places[:-1]), n_true]) if places else np.zeros(0)
    rest = max(0, n - 1 - n_true)
    sampled = np.concatenate([true[:, places], random_rows], axis=1)
    bits, shares = _code_distances(codes, weights, own_codes, sampled)
    recall, errors = of_ranks(ranks(find, n, own_rows, true), true_distances, kept_distances, [*grid, n + 1])
    return Calibration(
        n=n,
        candidates=grid,
        recall=recall[:, :-1],
        errors=errors[:, :-1],
        ceiling=recall[:, -1],
        distances=np.concatenate([true_distances[:, places], random_distances], axis=1).astype(np.float32),
        shares=shares,
        bits=bits,
        counts=np.concatenate([counts, np.full(random_rows.shape[1], rest / max(1, random_rows.shape[1]))]),
    )


def nothing(n):
    """Return a Calibration of too few rows to measure anything."""
    return Calibration(
        n, np.zeros(0, np.int64), np.zeros((len(KS), 0)), np.zeros((len(KS), 0)), np.ones(len(KS)),
        np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int32), np.zeros(0),
    )  # fmt: skip


def _code_distances(codes, weights, own_codes, rows):
    """Return (bits, shares) of queries and rows (m, s)."""
    bits, shares = np.empty(rows.shape, np.int32), np.empty(rows.shape, np.float32)
    ids = codes.ids
    total = np.abs(weights).sum(axis=1, dtype=np.float64)
    total[total == 0] = 1
    own_bits = unpack_codes(own_codes, codes.n_bits).astype(bool)
    for query in range(len(rows)):
        items = unpack_codes(codes.get(ids[rows[query]]), codes.n_bits).astype(bool)
        bits[query] = (items != own_bits[query]).sum(axis=1)
        differ = items != (weights[query] >= 0)
        shares[query] = differ @ np.abs(weights[query]).astype(np.float64) / total[query]
    return bits, shares


def other_rows(n, own_rows, true, rng):
    """Return rows at random for each query, (m, r), which are neither its own nor its true neighbours."""
    m, n_true = true.shape
    r = _OTHERS if n - 1 > n_true else 0
    out = rng.randint(0, max(1, n - 1 - n_true), (m, r), np.int64)
    for query in range(m if r else 0):
        excluded = np.sort(np.append(true[query], own_rows[query]))
        out[query] += np.searchsorted(excluded - np.arange(len(excluded)), out[query], "right")
    return out
