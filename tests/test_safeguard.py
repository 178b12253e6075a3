"""Data that once ruined the learner: outliers, tails, few directions, tight clusters; and ordinary data, left alone."""

import warnings

import numpy as np
import pytest
import reference

from aphash import APHash, pack_codes, unpack_codes
from aphash._learning import safeguard
from aphash._learning.training_data import Rows

QUERIES = 200
MODES = ("semantic", "neighbors")


def clusters(rng, n, spread, count=15, d=24):
    labels = rng.integers(0, count, n)
    return rng.standard_normal((count, d))[labels] + spread * rng.standard_normal((n, d))


def spoiled(rng, n, rows, factor):
    X = clusters(rng, n, 0.6)
    X[QUERIES : QUERIES + rows] *= factor
    return X


HARD = {
    "one direction": lambda rng, n: rng.random((n, 1)),
    "two directions": lambda rng, n: rng.standard_normal((n, 2)),
    "a plane in space": lambda rng, n: rng.random((n, 2)) @ rng.standard_normal((2, 20)),
    "five directions": lambda rng, n: rng.random((n, 5)),
    "tight clusters": lambda rng, n: clusters(rng, n, 0.05),
    "clusters": lambda rng, n: clusters(rng, n, 0.3),
    "two clusters": lambda rng, n: clusters(rng, n, 0.1, 2),
    "lognormal": lambda rng, n: rng.lognormal(0, 3, (n, 24)),
    "Cauchy": lambda rng, n: rng.standard_cauchy((n, 24)),
    "lengths": lambda rng, n: clusters(rng, n, 0.6) * rng.lognormal(0, 2, (n, 1)),
    "one outlier": lambda rng, n: spoiled(rng, n, 1, 1e4),
    "outliers": lambda rng, n: spoiled(rng, n, n // 100, 50),
    "scales": lambda rng, n: clusters(rng, n, 0.6) * np.logspace(0, 6, 24),
    "duplicates": lambda rng, n: clusters(rng, 100, 0.6)[rng.integers(0, 100, n)],
    "one-hot": lambda rng, n: np.eye(12)[rng.integers(0, 12, (n, 4))].reshape(n, -1),
    "counts": lambda rng, n: rng.poisson(rng.dirichlet(np.full(60, 0.1), 10)[rng.integers(0, 10, n)] * 20),
}


def measure(codes, near):
    """Return (recall of the near among the first 100, ties at their expectation; number of distinct codes)."""
    Q, X = (
        unpack_codes(each.copy(), 64 * codes.shape[1]).astype(np.float32) for each in (codes[:QUERIES], codes[QUERIES:])
    )
    D = Q.sum(axis=1)[:, None] - 2 * Q @ X.T + X.sum(axis=1)
    kth = np.partition(D, 99, axis=1)[:, 99:100]
    room = (100 - (kth > D).sum(axis=1)) / (kth == D).sum(axis=1)
    hits = (near & (kth > D)).sum(axis=1) + room * (near & (kth == D)).sum(axis=1)
    return np.minimum(hits, 10).mean() / 10, len(np.unique(codes[QUERIES:], axis=0))


@pytest.mark.parametrize("n_bits", [16, 64])
@pytest.mark.parametrize("name", HARD)
@pytest.mark.filterwarnings("ignore:X has .* independent directions", "ignore:.* distinct codes")
def test_no_data_make_it_worse_than_random_projections(name, n_bits):
    X = np.asarray(HARD[name](np.random.default_rng(7), 1200 + QUERIES), np.float64)
    D = reference.distances(X[:QUERIES], X[QUERIES:])
    near = np.partition(D, 9, axis=1)[:, 9:10] * (1 + 1e-9) >= D
    centred, random = X - X[QUERIES:].mean(axis=0), []
    for seed in range(5):
        R = np.random.default_rng(seed).standard_normal((X.shape[1], n_bits))
        random.append(measure(pack_codes((centred @ R).astype(np.float32)), near))
    recall, distinct = np.mean(random, axis=0)
    for mode in MODES:
        h = APHash(n_bits, mode=mode, random_state=0, n_jobs=1).fit(X[QUERIES:])
        own_recall, own_distinct = measure(h.transform(X), near)
        if mode == "neighbors":
            assert own_recall >= recall - 0.02
            assert own_distinct >= 0.75 * distinct
        else:
            assert own_distinct >= 0.2 * distinct
        assert len(np.unique(h.codes_, axis=0)) >= 0.2 * distinct


@pytest.mark.parametrize("mode", ["semantic", "neighbors", "paper"])
@pytest.mark.parametrize(("rows", "value"), [(1, 1e3), (1, 65504.0), (15, 300.0), (30, 1e6)])
def test_far_rows_change_little(rng, mode, rows, value):
    X = clusters(rng, 1500, 0.7)
    settings = {"mode": mode, "random_state": 0, "n_jobs": 1, "max_iter": 5}
    clean = APHash(24, **settings).fit(X).transform(X)
    X[::-50][:rows] *= value
    h = APHash(24, **settings).fit(X)
    assert len(np.unique(h.transform(X))) > 0.8 * len(np.unique(clean))
    assert h.codes_.shape == (1500, 1)
    assert np.abs(h.anchors_).max() < value
    np.testing.assert_array_equal(h.anchors_, X[h.anchor_indices_])


def test_the_farthest_row_there_can_be(rng):
    X = clusters(rng, 400, 0.7)
    X[7] *= 1e25
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        h = APHash(16, mode="neighbors", random_state=0, n_jobs=1).fit(X)
        assert len(np.unique(h.codes_)) > 40 and 7 not in h.anchor_indices_
        X[7] *= 1e125
        with pytest.raises(ValueError, match=r"too far .* row 7"):  # it has no code: its projections overflow
            APHash(16, mode="neighbors", random_state=0, n_jobs=1).fit(X)


def test_rows_that_are_asked_for_all_learn(rng):
    X = clusters(rng, 60, 0.7)
    X[7] *= 1e3
    h = APHash(8, n_anchors=60, n_rounds=1, random_state=0, n_jobs=1).fit(X)
    assert h.anchor_indices_.tolist() == list(range(60))


def far(X):
    return safeguard.far_rows(Rows(X, None, 1), X)


def test_what_is_far(rng):
    X = clusters(rng, 1000, 0.7)
    assert far(X) is None
    tail = X.copy()
    tail[[3, 70, 999]] *= 100
    assert np.flatnonzero(far(tail)).tolist() == [3, 70, 999]
    tail[[70, 999]] = tail[3]  # the same row again and again is no cluster
    assert np.flatnonzero(far(tail)).tolist() == [3, 70, 999]
    company = X.copy()
    company[:200] += 300
    assert far(company) is None
    assert far(rng.standard_normal((500, 24)) * rng.lognormal(0, 2, (500, 1))).mean() < 0.5


@pytest.mark.parametrize("mode", ["semantic", "neighbors"])
def test_ordinary_data_are_left_alone(digits, mode, monkeypatch):
    X = digits[0]
    h = APHash(32, mode=mode, random_state=0, n_jobs=1).fit(X)
    assert (h.codes_ != h.transform(X)).any()  # the learned ones
    monkeypatch.setattr(safeguard, "MAX_BITS", 0)
    monkeypatch.setattr(safeguard, "far_rows", lambda *_: None)
    plain = APHash(32, mode=mode, random_state=0, n_jobs=1).fit(X)
    np.testing.assert_array_equal(h.codes_, plain.codes_)
    np.testing.assert_array_equal(h.coef_, plain.coef_)


def test_hyperplanes_through_the_data_cut_it(rng):
    V = np.vstack([np.zeros((300, 3)), rng.standard_normal((20, 3)) * 1e-6 + 1])
    for through in ("centre", "data"):
        W, bias = safeguard.random_hyperplanes(V, 8, np.random.RandomState(0), through)
        assert W.shape == (3, 8) and bias.shape == (8,)
        np.testing.assert_allclose(W[:, :3].T @ W[:, :3], np.eye(3), atol=1e-12)
    sides = (V @ W + bias >= 0).mean(axis=0)
    assert ((sides > 0) & (sides < 1)).all()
    assert len(np.unique(V @ W + bias >= 0, axis=0)) > 5


def test_check_counts_as_the_definition(rng):
    V = rng.standard_normal((150, 4))
    check = safeguard.Check(V, np.random.RandomState(0))
    bits = V @ rng.standard_normal((4, 5)) >= 0
    recalls, squares = [], []
    true = reference.distances(V, V)
    for q in check.queries:
        others = np.flatnonzero(np.arange(150) != q)
        near = others[np.argsort(true[q, others])[:10]]
        D = (bits[others] != bits[q]).sum(axis=1)
        share = np.array([np.clip((50 - (each > D).sum()) / (each == D).sum(), 0, 1) for each in D])  # in the first 50
        recalls.append(share[np.isin(others, near)].sum() / 10)
        squares.append(
            share @ np.minimum(true[q, others] ** 2 / np.median(np.r_[np.inf, true[q, others] ** 2]), 4) / 50
        )
    found_recall, found_nearness = check.of(bits)
    np.testing.assert_allclose(found_recall, np.mean(recalls), rtol=1e-9)
    np.testing.assert_allclose(found_nearness, -np.mean(squares), rtol=1e-9)
    assert check.distinct(bits) == len(np.unique(bits, axis=0))


@pytest.mark.filterwarnings("ignore:X has 1 independent directions")
@pytest.mark.parametrize("mode", ["scores", "semantic-scores"])
def test_warnings_of_few_codes_of_scores(rng, mode):
    """They rank by direction, of which a line has two."""
    settings = {"mode": mode, "random_state": 0, "n_jobs": 1, "n_anchors": 500, "max_iter": 5}
    with pytest.warns(UserWarning, match="2000 rows of X have only .* distinct codes") as caught:
        APHash(16, **settings).fit(rng.random((2000, 1)))
    assert {each.filename for each in caught if "distinct" in str(each.message)} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        APHash(16, **settings).fit(rng.random((2000, 16)))


@pytest.mark.filterwarnings("ignore:X has 1 independent directions")
def test_warnings_of_few_codes(rng):
    X = rng.random((2000, 1))
    with pytest.warns(UserWarning, match="2000 rows of X have only .* distinct codes"):
        APHash(16, random_state=0, n_jobs=1).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        APHash(16, random_state=0, n_jobs=1).fit(rng.random((2000, 16)))
        APHash(16, random_state=0, n_jobs=1).fit(
            rng.random((20, 16))[rng.integers(0, 20, 2000)]
        )  # 20 codes are all there is


def test_scales_do_not_lower_the_rank(rng):
    X = rng.standard_normal((500, 12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        APHash(12, n_rounds=1, max_iter=1, random_state=0, n_jobs=1).fit(X * np.logspace(0, 6, 12))
    wide = np.hstack([X[:, :3] * 1e5, X[:, :4], np.full((500, 2), 0.1), X[:, :1] + X[:, 1:2]])
    with pytest.warns(UserWarning, match="X has 4 independent directions, fewer than n_bits=12"):
        APHash(12, n_rounds=1, max_iter=1, random_state=0, n_jobs=1).fit(wide)
