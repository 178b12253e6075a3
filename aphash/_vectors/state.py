"""All that a VectorIndex holds at one moment, and what is asked of it.

A state is never changed: a change makes another. Needs numpy only.
"""

import contextlib
import numbers
import os
import threading
from dataclasses import dataclass

import numpy as np

from aphash._common.arrays import shown
from aphash._common.checks import check_count
from aphash._common.finite import check_finite
from aphash._learning.encoder import Encoder, encode, project, query_weights
from aphash._measuring import brute_force
from aphash._searching.calibration import Calibration
from aphash._searching.kept import KeptRescore, KeptVectors
from aphash._searching.results import Pairs
from aphash.index import HammingIndex
from aphash.rescore import VectorRescore, with_queries

RECALL = 0.95  # of a search that does not say
CHUNK_BYTES = 1 << 24  # of rows that are normalised, encoded or compared at a time

_FILTERED = 2  # times as many candidates with a filter


@dataclass(frozen=True)
class State:
    """All that a fitted index holds, replaced as a whole: a search sees one of it from beginning to end."""

    encoder: Encoder
    codes: HammingIndex
    kept: KeptVectors | None
    attached: VectorRescore | None
    calibration: Calibration
    metric: str

    def rescore(self):
        """Return what ranks anew, or None."""
        if self.attached is not None:
            return self.attached
        return None if self.kept is None else KeptRescore(self.kept, self.metric)

    def has_vectors(self):
        return self.attached is not None or self.kept is not None


class Changes:
    """One change at a time: a lock, anew in a forked child, which refuses a change inside a change of its thread."""

    def __init__(self):
        self._lock, self._process, self._owner = threading.Lock(), os.getpid(), None

    def __enter__(self):
        if self._process != os.getpid():  # whoever held it does not exist here
            self.__init__()
        if self._owner == threading.get_ident():
            raise RuntimeError(
                "the index is being changed by this thread: a signal handler or finaliser cannot change it meanwhile"
            )
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(self, *_):
        self._owner = None
        self._lock.release()


def plan(state, k, recall, candidates, expand, filtered=False):
    """Return (how many codes are ranked anew, 0 for none; the recall that is expected).

    With a filter twice as many: neighbours are farther where it leaves out those that are near, and codes say less of
    what is far.
    """
    more = _FILTERED if filtered and candidates is None else 1
    n, measured = len(state.codes), state.calibration
    if recall is not None and candidates is not None:
        raise TypeError("recall and candidates were both given: either says how many codes are ranked anew")
    if recall is not None:
        recall = check_recall(recall)
        if expand:
            raise ValueError("recall is not known of a search with expand: pass candidates instead")
        if not state.has_vectors():
            best = measured.recall_for(k, k, n)
            raise ValueError(
                f"recall={recall:g} needs vectors to rank by, and the codes alone find {best:.3f} of the {k} nearest: "
                "fit with keep='float32', 'float16' or 'int8', or attach_vectors(X)"
            )
    if candidates is not None:
        candidates = check_count(candidates, "candidates", 0)
        if candidates and not state.has_vectors():
            raise ValueError("candidates need vectors to rank by: fit with keep=..., or attach_vectors(X)")
        if candidates and candidates < k:
            raise ValueError(f"candidates must be 0 or at least k={k}, got {candidates}")
        candidates = min(candidates, max(n, k))
    elif not state.has_vectors() or expand:
        candidates = 0
    else:
        wanted = RECALL if recall is None else recall
        candidates = measured.candidates_for(wanted, k, n)
        if candidates is None and recall is None:
            candidates = measured.best(k, n)[1]
        elif candidates is None:
            best, most = measured.best(k, n)
            raise ValueError(
                f"recall={recall:g} of {k} results was not reached: the best that was measured is {best:.4f}, with "
                f"{most} candidates. More bits or finer vectors (keep) find more; candidates={n} ranks all by vectors"
            )
        candidates = max(min(more * candidates, n), k)
    if n == 0:
        return 0, 1.0
    return candidates, measured.recall_for(max(candidates // more, k), k, n)


def radius_of(state, distance, recall):
    """Return (radius in bits, recall, precision) of what finds the pairs within a distance."""
    distance, recall = check_distance(distance), check_recall(recall)
    radius, expected, precision = state.calibration.radius_for(distance, recall, "bits")
    return int(min(radius, state.encoder.n_bits)), expected, precision


def check_recall(recall):
    if isinstance(recall, bool) or not isinstance(recall, numbers.Real):
        raise TypeError(f"recall must be a number, got {shown(recall)}")
    if not 0 < recall <= 1:
        raise ValueError(f"recall must be above 0 and at most 1, got {recall}")
    return float(recall)


def check_distance(distance):
    if isinstance(distance, bool) or not isinstance(distance, numbers.Real):
        raise TypeError(f"distance must be a number, got {shown(distance)}")
    if not distance >= 0:
        raise ValueError(f"distance must be at least 0, got {distance}")
    return float(distance)


def working(X, metric):
    """Return what the hash function is learned of and applied to."""
    return brute_force.working(X, metric) if metric == "cosine" else X


def encode_rows(encoder, X, metric, codes, rows, threads):
    """Write the codes of some rows of X, in blocks."""
    step = max(1, CHUNK_BYTES // (4 * X.shape[1]))
    whole = len(rows) == len(X)
    for start in range(0, len(rows), step):
        some = slice(start, start + step) if whole else rows[start : start + step]
        block = np.ascontiguousarray(working(X[some], metric))
        check_finite(block, 1, encoder._farthest)
        codes[some] = encode(encoder, block, threads)


def weights_of(encoder, Q, metric, ranked, threads):
    """Return the weights of queries: the projections where candidates are ranked by kept vectors, since more candidates
    then cost less than better weights."""
    weights = project if ranked else query_weights
    return weights(encoder, np.ascontiguousarray(working(Q, metric)), threads)


def sums_of(weights):
    """Return the sum of each query's weights, by which distances are shares of them."""
    sums = np.abs(weights).sum(axis=1, dtype=np.float64)
    return np.where(sums > 0, sums, 1)


def estimated(state, distances, sums):
    none = np.isinf(distances)
    found = state.calibration.estimated(np.where(none, 0, distances / sums), "shares")
    found[none] = np.inf
    return found


def successor(codes):
    return HammingIndex._of(codes._store.successor())


def vectors_of(state, ids):
    """Return vectors by ids that are in the index."""
    if state.attached is None:
        return state.kept.get(ids)
    return state.attached._take(ids)


def distances_to(state, vectors, ids):
    """Return the distances (m,) of vectors (m, d) to those of ids (m,), one each."""
    return with_queries(state.rescore(), vectors).distances(0, ids[:, np.newaxis])[:, 0]


def near_pairs(state, distance, recall, filter, n_jobs, verbose):
    radius, expected, precision = radius_of(state, distance, recall)
    found = state.codes.pairs(radius, filter=filter, n_jobs=n_jobs, verbose=verbose)
    exact = state.has_vectors()
    blocks = _verified(state, found, distance) if exact else _with_estimates(state, found)
    return Pairs(blocks, radius, expected, 1.0 if exact else precision, exact)


def _verified(state, blocks, distance):
    step = max(1, CHUNK_BYTES // (8 * state.encoder.n_features))
    with contextlib.closing(blocks):
        for ids_i, ids_j, _ in blocks:
            distances = np.empty(len(ids_i), np.float32)
            for start in range(0, len(ids_i), step):
                some = slice(start, start + step)
                distances[some] = distances_to(state, vectors_of(state, ids_i[some]), ids_j[some])
            near = distances <= np.float32(distance)
            if near.any():
                yield ids_i[near], ids_j[near], distances[near]


def _with_estimates(state, blocks):
    with contextlib.closing(blocks):
        for ids_i, ids_j, bits in blocks:
            yield ids_i, ids_j, state.calibration.estimated(bits, "bits")
