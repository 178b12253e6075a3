"""The recall that a fit expects, against brute force in float64; which rows it is measured with; where it is kept."""

import io
import pickle

import numpy as np
import pytest
from reference import distances as exact_distances

from aphash import APHash, HammingIndex, load, save
from aphash._learning.estimator import measured_rows
from aphash._measuring.brute_force import nearest_rows
from aphash._measuring.recall import ExpectedRecall, candidates_up_to, expected_recall, ranks

FAST = {"n_anchors": 60, "max_iter": 3, "random_state": 0}
LEARN = FAST | {"n_train": 1995}  # of 2,100 rows


def rows(n=2100, d=24, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) + 2 * rng.standard_normal((30, d))[rng.integers(30, size=n)]).astype(np.float32)


def naive(X, own, hasher, k, candidates):
    """Recall by sorting all scores, ties by id, each row itself left out."""
    bits = np.unpackbits(hasher.transform(X).view(np.uint8), axis=1, bitorder="little")[:, : hasher.n_bits]
    found = []
    for row in own:
        p = hasher.query_projections(X[row]).astype(np.float64)
        integers = np.copysign(np.rint(np.abs(p) / np.abs(p).max() * 65535), p)
        differ = (bits != (p >= 0)) @ np.abs(integers)
        order = np.lexsort((np.arange(len(X)), differ))
        order = order[order != row][:candidates]
        d = exact_distances(X[[row]].astype(np.float64), X.astype(np.float64))[0]
        d[row] = np.inf
        found.append(len(np.intersect1d(order, np.argsort(d, kind="stable")[:k])) / k)
    return np.mean(found)


@pytest.mark.parametrize("mode", ["semantic", "neighbors", "scores", "semantic-scores", "paper"])
def test_against_brute_force(mode):
    X = rows()
    hasher = APHash(20, mode=mode, **LEARN).fit(X)
    measured = hasher.expected_recall_
    assert list(measured) == [1, 10, 100] and (measured.n, measured.n_queries) == (2100, 105)
    learned = np.sort(np.random.RandomState(0).choice(2100, 2100 - 105, replace=False))
    own = np.setdiff1d(np.arange(2100), learned)
    assert not np.isin(hasher.anchor_indices_, own).any()
    for k, candidates in ((1, 1), (10, 10), (10, 100), (100, 1000), (100, 2099)):
        assert measured.at(candidates, k) == pytest.approx(naive(X, own, hasher, k, candidates), abs=1e-12)
    for found in measured.values():
        assert found.shape[1] == 2 and found[-1].tolist() == [2099, 1] and (np.diff(found, axis=0) >= 0).all()
        assert found[:5, 0].tolist() == [1, 2, 3, 5, 7]


def test_what_is_measured_is_what_searches_find():
    X = rows(6000, 40)
    hasher = APHash(32, mode="scores", n_anchors=1000, n_train=4700, random_state=0).fit(X[:5000])
    index = HammingIndex(32)
    index.add(hasher.transform(X[:5000]))
    true = np.argsort(exact_distances(X[5000:].astype(np.float64), X[:5000].astype(np.float64)), axis=1)[:, :10]
    ids = index.search(hasher.query_projections(X[5000:]), 50)[1]
    found = np.mean([np.isin(a, b).mean() for a, b in zip(true, ids, strict=True)])
    assert hasher.expected_recall_.at(50) == pytest.approx(found, abs=0.04)


def test_the_same_whatever_the_threads_and_the_type():
    X = rows()
    one = APHash(16, n_jobs=1, **LEARN).fit(X).expected_recall_
    for other in (APHash(16, n_jobs=3, **LEARN).fit(X), APHash(16, **LEARN).fit(X.astype(np.float64))):
        assert all(np.array_equal(one[k], other.expected_recall_[k]) for k in one)


def test_which_rows_measure():
    X = rows(6000)
    held_out = APHash(8, **FAST).fit(X).expected_recall_
    assert (held_out.n, held_out.n_queries) == (6000, 300)
    for hasher in (APHash(8, n_train=6000, **FAST).fit(X), APHash(8, **FAST).fit(X[:5999])):
        assert hasher.expected_recall_ == {} and hasher.expected_recall_.n_queries == 0
        assert "no recall" in str(hasher.expected_recall_)
    few = APHash(8, n_train=990, **FAST).fit(X[:1000]).expected_recall_  # as many as do not learn
    assert few.n_queries == 10 and few.n == 1000


def test_rows_are_searched_for_among_a_part_of_many():
    others = np.arange(0, 1_000_000, 1000)
    against, own = measured_rows(1_000_000, 64, others, np.random.RandomState(0))
    assert len(against) == 100_000 and len(own) == 300 and (np.diff(against) > 0).all()
    assert np.isin(against[own], others).all()
    against, own = measured_rows(1_000_000, 10_000, others, np.random.RandomState(0))
    assert len(against) == (1 << 26) // 10_000 and np.isin(against[own], others).all()


@pytest.mark.parametrize("size", [1e-20, 1e15, 1e100])
def test_values_of_any_size(size):
    X = rows().astype(np.float64)
    one, other = APHash(16, **LEARN).fit(X).expected_recall_, APHash(16, **LEARN).fit(X * size).expected_recall_
    for k in one:
        np.testing.assert_allclose(one[k], other[k], atol=0.01)


def test_copies_count_as_equally_near():
    X = np.repeat(np.random.default_rng(0).standard_normal((60, 24)), 20, axis=0)
    hasher = APHash(24, mode="neighbors", n_train=1100, **FAST).fit(X)
    assert len(np.unique(hasher.transform(X))) == 60  # no two of them share a code
    measured = hasher.expected_recall_
    assert measured.at(19, 1) == 1 and measured.at(19, 10) == 1


def test_kept_in_files_and_pickles(tmp_path):
    X = rows()
    hasher = APHash(16, mode="scores", **LEARN).fit(X)
    hasher.save(tmp_path / "model")
    index = HammingIndex(16)
    index.add(hasher.transform(X))
    file = io.BytesIO()
    save(file, hasher, index)
    for other in (APHash.load(tmp_path / "model"), load(file.getvalue())[0], pickle.loads(pickle.dumps(hasher))):
        measured = other.expected_recall_
        assert isinstance(measured, ExpectedRecall) and (measured.n, measured.n_queries) == (2100, 105)
        assert all(np.array_equal(measured[k], hasher.expected_recall_[k]) for k in (1, 10, 100))
    nothing = APHash(16, **FAST).fit(X[:500])
    nothing.save(tmp_path / "model")
    assert APHash.load(tmp_path / "model").expected_recall_ == {}


def test_told_by_verbose(capfd):
    X = rows()
    hasher = APHash(16, verbose=1, **LEARN).fit(X)
    told = capfd.readouterr().err
    assert str(hasher.expected_recall_) in told and "105 rows" in told and "among 2,100 rows" in told
    APHash(16, verbose=0, **LEARN).fit(X)
    APHash(16, **LEARN).fit(X)  # no terminal
    assert capfd.readouterr().err == ""
    lines = str(hasher.expected_recall_).splitlines()
    assert len(lines) == 5 and "1,000" in lines[1] and "10,000" not in lines[1]
    at_10 = f"{hasher.expected_recall_.at(10):.3f}"
    assert lines[3].split()[:4] == ["k", "=", "10", at_10]


def test_numbers_of_candidates():
    assert candidates_up_to(1).tolist() == [1]
    assert candidates_up_to(10).tolist() == [1, 2, 3, 5, 7, 10]
    assert candidates_up_to(1234).tolist()[-4:] == [500, 700, 1000, 1234]


def test_ranks_beyond_the_search_and_of_the_row_itself():
    order = np.array([[4, 2, 0, 1, 3], [0, 1, 2, 3, 4]])
    true, own = np.array([[2, 3, 0], [0, 4, 1]]), np.array([4, 3])
    found = ranks(lambda some, k: order[some, :k], 5, own, true)
    assert found.tolist() == [[1, 4, 2], [1, 4, 2]]
    found = ranks(lambda some, k: order[some, :k], 5, own, true, 2)
    assert found.tolist() == [[1, 5, 2], [1, 6, 2]]  # beyond: n or n + 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_true_neighbours(dtype):
    X = rows(700, 5).astype(dtype)
    own = np.array([3, 650, 17])
    distances, found = nearest_rows(X, own, "l2", 20, 2)
    D = exact_distances(X[own].astype(np.float64), X.astype(np.float64))
    D[np.arange(3), own] = np.inf
    np.testing.assert_array_equal(found, np.argsort(D, axis=1, kind="stable")[:, :20])
    np.testing.assert_allclose(distances, np.sort(D, axis=1)[:, :20], rtol=1e-5)


def test_few_rows_and_few_bits():
    X = rows(40, 3)
    codes, weights = np.arange(40, dtype=np.uint64)[:, np.newaxis] % np.uint64(2), np.ones((2, 1), np.float32)
    measured = expected_recall(X, np.array([0, 5]), codes, weights, 1)
    assert list(measured) == [1, 10] and measured[10][-1].tolist() == [39, 1]  # of 100 there are not so many
