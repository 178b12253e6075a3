import numpy as np
import pytest
import reference
from scipy import sparse

from aphash._learning.affinity import affinity
from aphash._learning.training_data import Rows


def dense(P, m):
    """P as the paper writes it, (m, n)."""
    n = len(P.indptr) - 1
    pattern = sparse.csc_array((np.ones(len(P.anchors)), P.anchors, P.indptr), shape=(m, n)).toarray()
    assert (pattern <= 1).all()
    return pattern * P.weights[:, None]


def check(X, anchor_items, k, rows=None, n_threads=2):
    training = Rows(X, rows, n_threads)
    raw = X if rows is None else X[rows]
    anchors = training.take(anchor_items)
    theta, P = affinity(training, anchors, training.working(anchor_items), k)
    D = reference.distances(anchors, raw)
    expected = reference.thresholds(D, k)
    np.testing.assert_allclose(theta, expected, rtol=1e-12, atol=0)
    # a pair may fall either way only where d and theta are equal up to float64 rounding
    got, wanted = dense(P, len(anchors)), reference.affinity(D, expected * (1 + 1e-12))
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    np.testing.assert_allclose(got.sum(axis=1), 1)
    assert (np.diff(P.anchors)[np.diff(np.repeat(np.arange(len(raw)), np.diff(P.indptr))) == 0] > 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 17, 100])
def test_thresholds_and_P_are_exact(digits, dtype, k):
    check(digits[0].astype(dtype), np.arange(0, 1797, 60), k)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_every_anchor_and_every_neighbour(rng, k):
    X = rng.standard_normal((40, 3))
    check(X, np.arange(40), k)


def test_rows_that_learn_are_a_subset(digits, rng):
    rows = np.sort(rng.choice(1797, 500, replace=False))
    check(digits[0], np.arange(0, 500, 11), 25, rows=rows)


def test_duplicates_tie_at_the_threshold():
    # theta = 0 = the k-th distance: every duplicate is inside, not only k of them
    X = np.repeat(np.eye(5, 4), 60, axis=0)
    check(X, np.arange(0, 300, 50), 10)
    theta, P = affinity(Rows(X, None, 1), X[:1], Rows(X, None, 1).working(np.array([0])), 10)
    assert theta[0] == 0 and P.counts[0] == 60


def test_all_distances_equal(rng):
    X = np.eye(120)[rng.permutation(120)]
    check(X, np.arange(0, 120, 7), 30)


def test_near_duplicates_below_float32_resolution(rng):
    # 200 points within 1e-9 of each other, far from the mean: float32 cannot order them, the result must
    X = np.vstack([5 + 1e-9 * rng.standard_normal((200, 8)), rng.standard_normal((300, 8))])
    check(X, np.arange(0, 200, 20), 50)


@pytest.mark.parametrize("offset", [300, 1e6])
def test_an_offset_costs_no_precision(rng, offset):
    check(rng.standard_normal((500, 16)) + offset, np.arange(0, 500, 25), 20)


@pytest.mark.parametrize("size", [1e30, 1e-30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_and_tiny_values(rng, size, dtype):
    check((rng.standard_normal((300, 5)) * size).astype(dtype), np.arange(0, 300, 25), 20)


def test_far_to_near_order(rng):
    X = rng.standard_normal((3000, 4))
    X = X[np.argsort(-np.linalg.norm(X - X[0], axis=1))]
    check(X, np.array([2999, 0, 1500]), 60)
