"""What ``VectorIndex.fit`` does: learn, encode, keep, calibrate."""

import numpy as np
from sklearn.utils import check_random_state

from aphash import _kernels
from aphash._common.arrays import as_floats
from aphash._common.checks import check_ids
from aphash._common.finite import check_finite
from aphash._common.threads import n_threads
from aphash._learning.blocks import draw_rows
from aphash._learning.encoder import Encoder, names_of, refuse_sparse
from aphash._learning.estimator import APHash
from aphash._measuring import brute_force
from aphash._searching import calibration
from aphash._searching.kept import KeptRescore, KeptVectors
from aphash._vectors.state import State, encode_rows, weights_of, working
from aphash.codes import n_words, note_origin
from aphash.index import HammingIndex
from aphash.rescore import VectorRescore, with_queries

_TRAIN_ROWS = 250_000  # what n_train="auto" learns from at most
_QUERIES = 2000  # rows that do not learn, but calibrate; at most a fifth


def learn(params, X, ids):
    """Return the State that an index with these parameters, which are checked, has after a fit."""
    names, X = names_of(X), _rows_to_fit(X)
    threads = n_threads(params.n_jobs, _kernels.max_threads())
    check_finite(X, threads)
    n = len(X)
    ids = None if ids is None else check_ids(ids, n)
    seed = params.random_state
    if isinstance(seed, np.random.Generator):
        seed = int(seed.integers(1 << 32))
    rng = check_random_state(seed)
    held_out = draw_rows(n, min(_QUERIES, n // 5), rng)
    learning = np.ones(n, bool)
    learning[held_out] = False
    learning = np.flatnonzero(learning)
    n_train = _TRAIN_ROWS if isinstance(params.n_train, str) else params.n_train
    if n_train < len(learning):
        learning = learning[draw_rows(len(learning), n_train, rng)]

    hasher = APHash(
        params.n_bits, mode=params.mode, n_train=max(2, len(learning)), n_jobs=params.n_jobs, verbose=params.verbose,
        random_state=rng.randint(1 << 31),
    ).fit(working(X[learning], params.metric))  # fmt: skip
    learned = hasher.encoder_
    encoder = Encoder(
        learned.coef, learned.intercept, learned.mean, learned.scale,
        items=learned.items, n_jobs=params.n_jobs, feature_names=names,
    )  # fmt: skip
    codes = np.empty((n, n_words(params.n_bits)), np.uint64)
    if encoder.items is not None:  # of these, codes_ are what transform gives
        codes[learning] = hasher.codes_
        others = np.ones(n, bool)
        others[learning] = False
        encode_rows(encoder, X, params.metric, codes, np.flatnonzero(others), threads)
    else:
        encode_rows(encoder, X, params.metric, codes, np.arange(n), threads)
    del hasher
    note_origin(codes, params.n_bits, encoder.fingerprint)
    index = HammingIndex(params.n_bits)
    ids = index.add(codes, ids=ids)
    kept = None if params.keep is None else KeptVectors(params.keep, X.shape[1]).put(X, ids)
    measured = _calibrated(X, held_out, params.metric, encoder, index, kept, rng, threads)
    return State(encoder, index, kept, None, measured, params.metric)


def _calibrated(X, rows, metric, encoder, index, kept, rng, threads):
    n, m = len(X), len(rows)
    if m == 0:
        return calibration.nothing(n)
    true_distances, true = brute_force.nearest_rows(X, rows, metric, calibration.N_TRUE, threads)
    others = calibration.other_rows(n, rows, true, rng)
    queries, by_vectors = X[rows], VectorRescore(X, metric=metric)
    ids = index.ids
    kept_distances = true_distances
    if kept is not None:
        kept_distances = with_queries(KeptRescore(kept, metric), queries, threads).distances(0, ids[true])
    return calibration.measure(
        index, weights_of(encoder, queries, metric, kept is not None, threads), index.get(ids[rows]), rows,
        true, true_distances, kept_distances, others, with_queries(by_vectors, queries, threads).distances(0, others),
    )  # fmt: skip


def _rows_to_fit(X):
    """Return X as float rows in C order; TypeError or ValueError that names it otherwise."""
    refuse_sparse(X)
    X = as_floats(X, "X")
    if X.ndim != 2:
        raise ValueError(f"X must have shape (n, d), got {X.shape}. Reshape your data")
    if len(X) < 2 or X.shape[1] < 1:
        raise ValueError(f"X must have at least 2 rows and 1 column, got shape {X.shape}")
    return np.ascontiguousarray(X)
