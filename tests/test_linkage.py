"""Groups of near pairs against scipy's hierarchical clustering, and against their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.spatial.distance import pdist

from aphash._searching import linkage


def pairs_within(D, distance):
    """Yield the pairs of a condensed matrix of distances within a distance, in two blocks, in no order."""
    n = int((1 + np.sqrt(1 + 8 * len(D))) / 2)
    i, j = np.triu_indices(n, 1)
    near = np.random.default_rng(0).permutation(np.flatnonzero(distance >= D))
    for some in np.array_split(near, 2):
        yield i[some], j[some], D[some].astype(np.float32)


def same(labels, expected):
    return np.array_equal(linkage.numbered(labels), linkage.numbered(expected))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [2, 3, 17, 64, 300])
@pytest.mark.parametrize("spread", [0.02, 0.3, 2.0])
def test_groups_are_those_of_scipy(n, seed, spread):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n // 4), 3))
    X = centres[rng.integers(len(centres), size=n)] + spread * rng.standard_normal((n, 3))
    D = np.float32(pdist(X))
    distance = np.quantile(D, 0.15)
    for ours, name in ((linkage.complete, "complete"), (linkage.single, "single")):
        expected = fcluster(scipy_linkage(D.astype(np.float64), name), distance, "distance")
        assert same(ours(n, pairs_within(D, distance)), expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 12), st.data())
def test_every_two_of_a_complete_group_are_a_pair_and_no_two_groups_could_be_joined(n, data):
    all_pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    chosen = data.draw(st.lists(st.sampled_from(all_pairs), unique=True))
    distances = data.draw(st.lists(st.integers(0, 3), min_size=len(chosen), max_size=len(chosen)))  # with ties
    i, j = np.array(chosen, np.int64).reshape(-1, 2).T
    labels = linkage.complete(n, [(i, j, np.array(distances, np.float32))])
    near = set(chosen)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for group in groups:
        assert all((a, b) in near for a in group for b in group if a < b)
    for one, other in ((g, h) for g in groups for h in groups if g[0] < h[0]):
        assert not all((min(a, b), max(a, b)) in near for a in one for b in other)


def test_a_chain_is_cut_where_its_ends_are_not_near():
    i = np.arange(9)
    chain = [(i, i + 1, np.ones(9, np.float32))]
    assert (linkage.single(10, chain) == 0).all()
    assert np.array_equal(linkage.numbered(linkage.complete(10, chain)), np.arange(10) // 2)


def test_many_pairs_of_large_groups():
    """Some 60,000 pairs: the table of counts grows and drops what counts nothing."""
    sizes = np.array([300, 150, 80, 3, 2, 1])
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(6), sizes))
    i, j = np.triu_indices(len(labels), 1)
    near = labels[i] == labels[j]
    distances = np.random.default_rng(2).random(near.sum()).astype(np.float32)
    assert same(linkage.complete(len(labels), [(i[near], j[near], distances)]), labels)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_without_pairs_each_item_is_its_own_group(n):
    assert np.array_equal(linkage.complete(n, []), np.arange(n))
    assert np.array_equal(linkage.single(n, []), np.arange(n))
