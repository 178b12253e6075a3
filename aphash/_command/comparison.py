"""What the demo measures: codes of each mode beside ITQ's and signs at their bytes, and the floats themselves.

All codes are searched by the queries' floats, as weights. Measures are of held-out queries: how many of the first 100
are of the query's kind, how many of the first 10 are among the 10 nearest floats, and both once more after the nearest
10 times as many codes were ranked by the floats.

Without labels a kind is one of 20 clusters of the floats. They order the methods nearly as labels do where those are
known: WordNet at 64 bits, share of the first 100 by labels and by clusters: semantic .569 .704, neighbors .552 .643,
ITQ .529 .610, scores .522 .605, signs .520 .574, floats .528 .583. The share of the first that are near the query in
the floats' own order does not: it ranks semantic last.
"""

import time
from dataclasses import dataclass

import numpy as np

from aphash._learning import linear
from aphash._learning.estimator import APHash
from aphash.codes import pack_codes
from aphash.index import HammingIndex
from aphash.rescore import VectorRescore

KIND_AT, TRUE_AT = 100, 10  # results that are looked at
N_QUERIES = 300
N_ROWS = 100_000  # that a comparison is made of at most
N_CLUSTERS = 20
FACTOR = 10  # candidates a result, which floats rank anew
MODES = ("semantic", "neighbors", "scores")

_CLUSTERED = 20_000  # rows that clusters are learned of
_ITQ_ROWS = 50_000  # rows that ITQ learns from


@dataclass(frozen=True)
class Row:
    """A line of the table; shares are means over the queries, None where there is nothing to rank anew."""

    name: str
    nbytes: int
    kind: float
    true: float
    kind_rescored: float | None
    true_rescored: float | None
    seconds: float
    found: np.ndarray  # (n_queries, TRUE_AT) rows of the database


@dataclass(frozen=True)
class Setting:
    """Database and queries of unit length or as they are, with their kinds and the true nearest."""

    database: np.ndarray
    queries: np.ndarray
    database_kinds: np.ndarray
    query_kinds: np.ndarray
    nearest: np.ndarray  # (n_queries, KIND_AT) rows of the database

    @property
    def kind_at(self):
        return self.nearest.shape[1]


def split(n, seed):
    """Return the rows of the database and of the held-out queries, both ascending and drawn at random."""
    order = np.random.default_rng(seed).permutation(n)
    n_queries = min(N_QUERIES, n // 5)
    return np.sort(order[n_queries : n_queries + N_ROWS]), np.sort(order[:n_queries])


def setting(database, queries, database_labels, query_labels, seed):
    """Return a Setting; without labels kinds are clusters."""
    from sklearn.neighbors import NearestNeighbors

    n_kind = max(1, min(KIND_AT, len(database) // 10))
    n_near = max(n_kind, min(TRUE_AT, len(database)))
    search = NearestNeighbors(n_neighbors=n_near, algorithm="brute").fit(database)
    nearest = search.kneighbors(queries, return_distance=False)
    if database_labels is None:
        from sklearn.cluster import MiniBatchKMeans

        sample = np.random.default_rng(seed).permutation(len(database))[:_CLUSTERED]
        clusters = MiniBatchKMeans(
            min(N_CLUSTERS, max(1, len(database) // 10)), random_state=seed, n_init=3, batch_size=4096
        )
        clusters.fit(database[np.sort(sample)])
        database_labels, query_labels = clusters.predict(database), clusters.predict(queries)
    return Setting(database, queries, database_labels, query_labels, nearest)


def methods(where, n_bits, seed, n_jobs):
    """Return functions without arguments that measure, by the methods' names."""
    encoders = {
        **{f"APHash {mode}": lambda mode=mode: _learned(where, n_bits, mode, seed, n_jobs) for mode in MODES},
        "ITQ": lambda: _itq(where, n_bits, seed),
        "signs": lambda: _signs(where),
    }
    measures = {name: lambda name=name: _judged(where, name, encoders[name], n_jobs) for name in encoders}
    return measures | {"floats": lambda: _floats(where)}


def _floats(where):
    nearest = where.nearest
    return Row(
        "floats", where.database.shape[1] * 4, _share_of_kind(where, nearest[:, : where.kind_at]), 1.0, None, None, 0.0,
        nearest[:, :TRUE_AT],
    )  # fmt: skip


def _judged(where, name, encode, n_jobs):
    begun = time.perf_counter()
    codes, weights = encode()
    seconds = time.perf_counter() - begun
    n, n_bits = len(codes), weights.shape[1]
    index = HammingIndex(n_bits)
    index.add(codes)
    k = where.kind_at
    found = index.search(weights, k, n_jobs=n_jobs)[1]

    def rescored(k):
        candidates = min(FACTOR * k, max(k, n // 4))
        rescore = VectorRescore(where.database)
        rescore.factor = candidates / k
        return index.search(weights, k, rescore=rescore, rescore_queries=where.queries, n_jobs=n_jobs)[1]

    return Row(
        name, -(-n_bits // 8), _share_of_kind(where, found), _share_of_true(where, found),
        _share_of_kind(where, rescored(k)), _share_of_true(where, rescored(min(TRUE_AT, n))), seconds,
        found[:, :TRUE_AT],
    )  # fmt: skip


def _share_of_kind(where, found):
    return float(np.mean(where.database_kinds[found] == where.query_kinds[:, np.newaxis]))


def _share_of_true(where, found):
    true, found = where.nearest[:, :TRUE_AT], found[:, :TRUE_AT]
    return float(np.mean((found[:, :, np.newaxis] == true[:, np.newaxis]).any(axis=1)))


# ---- methods: packed codes of the database, weights of the queries --------------------------------------------------


def _learned(where, n_bits, mode, seed, n_jobs):
    hasher = APHash(n_bits, mode=mode, random_state=seed, n_jobs=n_jobs, verbose=0).fit(where.database)
    return hasher.transform(where.database), hasher.query_projections(where.queries)


def _itq(where, n_bits, seed):
    """Iterative quantisation (Gong & Lazebnik, CVPR 2011): principal directions, turned towards signs."""
    rng = np.random.RandomState(seed)
    X = where.database
    mean = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    sample = X[np.sort(rng.permutation(len(X))[:_ITQ_ROWS])] - mean
    _, directions = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    directions = directions[:, ::-1][:, :n_bits].astype(np.float32)
    frame = linear.random_orthonormal(directions.shape[1], n_bits, rng)
    frame = directions @ linear.itq_rotation(sample @ directions, frame, 50)
    return pack_codes((X - mean) @ frame), (where.queries - mean) @ frame


def _signs(where):
    """One bit a number, its sign about the mean: what "binary quantisation" of vector databases does."""
    mean = where.database.mean(axis=0, dtype=np.float64).astype(np.float32)
    return pack_codes(where.database - mean), where.queries - mean
