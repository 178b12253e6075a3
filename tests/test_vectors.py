"""VectorIndex against brute force in float64: results, distances, the recall that it promises, changes, files."""

import copy
import io
import itertools
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aphash
from aphash import HammingIndex, VectorIndex, VectorRescore
from aphash._measuring.recall import of_ranks
from aphash._searching import calibration, kept

KEEPS = [None, "float32", "float16", "int8"]


def clusters(n, d=40, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((60, d))
    return (centres[rng.integers(60, size=n)] + 0.5 * rng.standard_normal((n, d))).astype(np.float32)


def distances_of(Q, X, metric):
    Q, X = np.asarray(Q, np.float64), np.asarray(X, np.float64)
    if metric == "cosine":
        Q, X = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (Q, X))
        return 1 - Q @ X.T
    return np.sqrt(((Q[:, None] - X[None]) ** 2).sum(axis=2))


def rounded(X, keep):
    """The vectors as they are kept."""
    if keep == "int8":
        scales = np.abs(X).max(axis=1, keepdims=True) / 127
        return np.rint(X / scales) * scales
    return X.astype(keep or np.float64).astype(np.float64)


X = clusters(3000)
Q = clusters(3300)[3000:]  # of the same clusters


@pytest.fixture(scope="module", params=["cosine", "l2"])
def metric(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(metric):
    return {keep: VectorIndex(32, metric=metric, keep=keep, random_state=0).fit(X) for keep in KEEPS}


def everything(index):
    """All that can be seen of an index."""
    found = index.search(Q[:5], 7)
    held = [index.get(index.ids)] if index.info()["distances"] == "exact" else []
    return [index.ids, index.codes_.codes, found.ids, found.distances, *held]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# ---- results ----


@pytest.mark.parametrize("keep", KEEPS[1:])
def test_distances_are_those_of_the_kept_vectors(fitted, metric, keep):
    found = fitted[keep].search(Q, 10)
    wanted = np.take_along_axis(distances_of(Q, rounded(X, keep), metric), found.ids, axis=1)
    assert found.exact and found.distances.dtype == np.float32 and found.ids.dtype == np.int64
    np.testing.assert_allclose(found.distances, wanted, rtol=2e-5, atol=2e-6)
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_all_candidates_are_brute_force(fitted, metric):
    ids = fitted["float32"].search(Q, 10, candidates=len(X)).ids
    assert np.array_equal(ids, np.argsort(distances_of(Q, X, metric), axis=1)[:, :10])


@pytest.mark.parametrize("keep", KEEPS[1:])
@pytest.mark.parametrize("k", [1, 4, 10, 30, 100])
@pytest.mark.parametrize("recall", [0.8, 0.95])
def test_recall_holds_on_queries_that_were_not_there(fitted, metric, keep, k, recall):
    true = np.sort(distances_of(Q, X, metric), axis=1)[:, k - 1 : k]
    found = fitted[keep].search(Q, k, recall=recall)
    actual = (np.take_along_axis(distances_of(Q, X, metric), found.ids, axis=1) <= true * (1 + 1e-6)).mean()
    assert actual >= recall - 0.02 - 2 * np.sqrt(recall * (1 - recall) / len(Q)) and found.recall >= recall - 1e-3
    assert found.candidates < len(X) / 2


@pytest.mark.parametrize("mode", ["semantic", "neighbors", "semantic-scores"])
def test_recall_holds_in_other_modes(mode, tmp_path):
    index = VectorIndex(32, mode=mode, keep="float16", random_state=0).fit(X)
    index.save(tmp_path / "index")
    assert np.array_equal(VectorIndex.load(tmp_path / "index").search(Q, 10).ids, index.search(Q, 10).ids)
    all_of = distances_of(Q, X, "cosine")
    found = index.search(Q, 10)
    actual = (np.take_along_axis(all_of, found.ids, axis=1) <= np.sort(all_of, axis=1)[:, 9:10] * (1 + 1e-6)).mean()
    assert actual >= 0.93 and found.candidates < len(X) / 2


@pytest.mark.parametrize("which", ["some", "near"])
def test_recall_holds_with_a_filter(fitted, metric, which):
    all_of = distances_of(Q, X, metric)
    beside = np.argsort(all_of[0])[:600]  # one side of the data
    some = np.arange(0, 3000, 7) if which == "some" else beside
    queries = np.arange(len(Q)) if which == "some" else np.flatnonzero(np.isin(all_of.argmin(axis=1), beside))
    found = fitted["float16"].search(Q[queries], 10, filter=some)
    assert np.isin(found.ids, some).all() and len(queries) > 30
    all_of = all_of[queries]
    true = np.sort(all_of[:, some], axis=1)[:, 9:10] * (1 + 1e-6)
    assert (np.take_along_axis(all_of, found.ids, axis=1) <= true).mean() >= 0.93
    assert found.candidates == 2 * fitted["float16"].search(Q, 10).candidates


def test_recall_holds_when_the_index_has_grown():
    index = VectorIndex(32, metric="l2", keep="float32", random_state=0).fit(X[:1000])
    few = index.search(Q, 10).candidates
    index.add(X[1000:])
    all_of = distances_of(Q, X, "l2")
    found = index.search(Q, 10)
    assert found.candidates == pytest.approx(3 * few, abs=3)
    assert (np.take_along_axis(all_of, found.ids, axis=1) <= np.sort(all_of, axis=1)[:, 9:10]).mean() >= 0.93


def test_without_vectors_distances_are_estimated(fitted, metric):
    index = fitted[None]
    found = index.search(Q, 10)
    assert not found.exact and found.candidates == 0 and index.info()["distances"] == "estimated"
    by_hand = index.codes_.search(index.encoder_.query_projections(unit(Q) if metric == "cosine" else Q), 10)
    assert np.array_equal(found.ids, by_hand[1])
    actual = np.take_along_axis(distances_of(Q, X, metric), found.ids, axis=1)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert abs(found.distances.mean() - actual.mean()) < 0.1 * actual.mean()
    true = np.sort(distances_of(Q, X, metric), axis=1)[:, 9:10]
    assert abs((actual <= true).mean() - found.recall) < 0.06


def unit(V):
    return V / np.linalg.norm(V, axis=1, keepdims=True)


def test_a_search_is_its_parts_by_hand(fitted, metric):
    index = fitted["float32"]
    found = index.search(Q, 10, candidates=200)
    weights = index.encoder_.query_projections(unit(Q) if metric == "cosine" else Q)
    rescore = VectorRescore(X, metric=metric, factor=20)
    distances, ids = index.codes_.search(weights, 10, rescore=rescore, rescore_queries=Q)
    assert np.array_equal(found.ids, ids) and np.array_equal(found.distances, distances)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_same_seed_gives_the_same_index(n_jobs):
    first, again = (VectorIndex(32, keep="int8", random_state=3, n_jobs=jobs).fit(X[:1200]) for jobs in (n_jobs, 1))
    assert same(everything(first), everything(again)) and first.info() == again.info()


def test_one_vector_is_one_query(fitted):
    for index in fitted.values():
        one, many = index.search(Q[0], 5), index.search(Q[:1], 5)
        assert one.ids.shape == (5,) and np.array_equal(one.ids, many.ids[0])
        assert np.array_equal(one.distances, many.distances[0])


def test_results_are_padded(fitted):
    for index in fitted.values():
        found = index.search(Q[:3], 5, filter=[4, 9])
        assert (np.sort(found.ids[:, :2]) == [4, 9]).all() and (found.ids[:, 2:] == -1).all()
        assert np.isinf(found.distances[:, 2:]).all() and np.isfinite(found.distances[:, :2]).all()


def test_expansion_is_not_ranked_anew_unless_asked(fitted):
    index = fitted["float32"]
    assert not index.search(Q, 5, expand=10).exact
    assert index.search(Q, 5, expand=10, candidates=50).exact
    with pytest.raises(ValueError, match="recall is not known of a search with expand"):
        index.search(Q, 5, expand=10, recall=0.9)


# ---- radius, pairs, graph ----


@pytest.mark.parametrize("keep", KEEPS)
def test_radius_search(fitted, metric, keep):
    all_of = distances_of(Q, rounded(X, keep), metric)
    distance = np.quantile(all_of, 0.003)
    found = fitted[keep].radius_search(Q, distance, recall=0.9)
    offsets, distances, ids = found
    query = np.repeat(np.arange(len(Q)), np.diff(offsets))
    reached = (all_of[query, ids] <= distance).sum() / (all_of <= distance).sum()
    assert reached >= 0.85 and found.exact == (keep is not None) and found.recall >= 0.9
    if keep:
        np.testing.assert_allclose(distances, all_of[query, ids], rtol=2e-5, atol=2e-6)
        assert (distances <= np.float32(distance)).all()
        assert all((np.diff(distances[a:b]) >= 0).all() for a, b in itertools.pairwise(offsets))


@pytest.mark.parametrize("keep", KEEPS)
def test_pairs(fitted, metric, keep):
    all_of = distances_of(X, rounded(X, keep), metric)
    i, j = np.triu_indices(len(X), 1)
    distance = np.quantile(all_of[i, j], 0.001)
    near = all_of[i, j] <= distance
    pairs = fitted[keep].pairs(distance, recall=0.9)
    assert pairs.recall >= 0.9 and pairs.exact == (keep is not None) and 0 <= pairs.radius <= 32
    blocks = list(pairs)
    found_i, found_j, distances = (np.concatenate(each) for each in zip(*blocks))
    assert (found_i < found_j).all() and len(set(zip(found_i.tolist(), found_j.tolist()))) == len(found_i)
    by_kept = distances_of(rounded(X, keep), rounded(X, keep), metric)[found_i, found_j]
    good = (all_of[found_i, found_j] <= distance).sum()
    assert good / near.sum() >= 0.85 and distances.dtype == np.float32
    if keep:
        assert (distances <= np.float32(distance)).all()
        np.testing.assert_allclose(distances, by_kept, rtol=2e-5, atol=3e-6)
    else:
        assert abs(good / len(found_i) - pairs.precision) < 0.25
    filtered = list(fitted[keep].pairs(distance, filter=np.arange(100)))
    assert all((ids_j < 100).all() for _, ids_j, _ in filtered)


@pytest.mark.parametrize("linkage", ["single", "complete"])
def test_groups_are_those_of_the_pairs(fitted, metric, linkage):
    i, j = np.triu_indices(len(X), 1)
    distance = np.quantile(distances_of(X, X, metric)[i, j], 0.001)
    part = np.random.default_rng(1).permutation(3000)[:2000]
    for filter in (None, part):
        found = fitted["float16"].groups(distance, linkage=linkage, filter=filter)
        blocks = list(fitted["float16"].pairs(distance, filter=filter))
        taking_part = np.arange(3000) if filter is None else np.sort(part)
        ids, labels = found
        assert np.array_equal(ids, taking_part) and found.exact
        graph = np.full((3000, 3000), np.inf)
        for ids_i, ids_j, distances in blocks:
            graph[ids_i, ids_j] = graph[ids_j, ids_i] = distances
        if linkage == "single":
            from scipy.sparse.csgraph import connected_components

            expected = connected_components(np.isfinite(graph[np.ix_(ids, ids)]))[1]
        else:
            from scipy.cluster.hierarchy import fcluster
            from scipy.cluster.hierarchy import linkage as cluster

            beyond = np.where(np.isfinite(graph), graph, 10 * distance)[np.ix_(ids, ids)]
            expected = fcluster(cluster(beyond[np.triu_indices(len(ids), 1)], "complete"), distance, "distance")
        assert np.array_equal(labels, grouped(expected))
        assert np.array_equal(found.representatives, [ids[labels == g].min() for g in range(labels.max() + 1)])
        assert np.array_equal(np.union1d(found.representatives, found.duplicates), ids)
        assert len(found.representatives) + len(found.duplicates) == len(ids) > len(found.representatives)
        members = found.members()
        assert [m.tolist() for m in members] == [
            ids[labels == g].tolist() for g in range(labels.max() + 1) if (labels == g).sum() > 1
        ]


def grouped(labels):
    """Labels that are numbered in the order of their first items."""
    numbers = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels.tolist()])


def test_groups_without_vectors_are_those_of_the_codes(fitted, metric):
    index = fitted[None]
    distance = np.quantile(distances_of(X[:500], X[:500], metric), 0.01)
    found = index.groups(distance)
    ids, labels = index.codes_.groups(index.pairs(distance).radius)
    assert not found.exact and np.array_equal(found.ids, ids) and np.array_equal(found.labels, labels)
    with pytest.raises(ValueError, match="linkage='complete' needs vectors"):
        index.groups(distance, linkage="complete")
    with pytest.raises(ValueError, match="linkage must be one of 'single', 'complete', got 'ward'"):
        index.groups(distance, linkage="ward")


@pytest.mark.parametrize("keep", [None, "float16"])
def test_knn_graph(fitted, metric, keep):
    ids, graph = fitted[keep].knn_graph(5)
    assert np.array_equal(ids, np.arange(3000)) and graph.dtype == np.float32 and graph.nnz == 15000
    columns = graph.indices.reshape(3000, 5)
    assert not (columns == np.arange(3000)[:, None]).any()
    if keep:
        all_of = distances_of(X, X, metric)
        np.fill_diagonal(all_of, np.inf)
        true = np.sort(all_of, axis=1)[:, 4:5] * (1 + 1e-3)
        assert (np.take_along_axis(all_of, columns, axis=1) <= true).mean() > 0.93


# ---- what must be refused ----


def test_it_is_cloned_and_searched_as_scikit_learns_estimators():
    from sklearn.base import clone

    index = VectorIndex(16, keep="int8", random_state=3).fit(X[:300])
    fresh = clone(index)
    assert fresh.get_params() == index.get_params() and len(fresh) == 0
    assert index.set_params(n_bits=24, keep=None) is index
    assert index.info()["n_bits"] == 16 and index.info()["keep"] == "int8"  # parameters count from the next fit on
    assert index.fit(X[:300]).info()["n_bits"] == 24
    with pytest.raises(ValueError, match="'bits' is no parameter of VectorIndex, which has n_bits, mode"):
        index.set_params(n_bits=8, bits=3)
    assert index.n_bits == 24


def test_the_inner_product_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="metric='ip' cannot be had: an inner product depends on the lengths"):
        VectorIndex(metric="ip").fit(X)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"metric": "dot"}, "metric must be one of 'cosine', 'l2', got 'dot'"),
        ({"keep": "int4"}, "keep must be None or one of 'float32', 'float16', 'int8', got 'int4'"),
        ({"n_bits": 0}, "n_bits"),
        ({"mode": "best"}, "mode"),
        ({"n_train": 1}, "n_train must be at least 2, got 1"),
    ],
)
def test_parameters_are_checked_by_fit(given, message):
    with pytest.raises(ValueError, match=message):
        VectorIndex(**given).fit(X[:10])


@pytest.mark.parametrize(
    "bad", [X[0], X[:1], np.full((5, 3), np.nan), [["a"]], np.zeros((4, 0)), np.zeros((3, 2, 2)), None]
)
def test_a_failed_fit_leaves_the_index(bad):
    index = VectorIndex(16, keep="float32", random_state=0).fit(X[:100])
    before = everything(index)
    with pytest.raises((ValueError, TypeError), match="X"):
        index.fit(bad)
    assert same(everything(index), before)


def test_before_fit():
    index = VectorIndex(16)
    assert len(index) == 0 and "not fitted" in repr(index)
    for use in (index.info, lambda: index.search(Q, 1), lambda: index.save(io.BytesIO()), lambda: index.add(X)):
        with pytest.raises(ValueError, match="not fitted yet"):
            use()


def test_recall_that_cannot_be_had_is_refused_with_the_best(fitted):
    with pytest.raises(ValueError, match=r"recall=0.9 needs vectors to rank by, and the codes alone find 0\.\d+"):
        fitted[None].search(Q, 10, recall=0.9)
    with pytest.raises(ValueError, match=r"the best that was measured is 0\.9\d+, with \d+ candidates"):
        fitted["int8"].search(Q, 10, recall=1.0)
    assert fitted["float32"].search(Q, 10, recall=1.0).recall == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"recall": 1.5}, ValueError, "recall must be above 0 and at most 1"),
        ({"recall": 0}, ValueError, "recall must be above 0 and at most 1"),
        ({"recall": "high"}, TypeError, "recall must be a number"),
        ({"recall": 0.9, "candidates": 10}, TypeError, "recall and candidates were both given"),
        ({"candidates": 2}, ValueError, "candidates must be 0 or at least k=3, got 2"),
        ({"candidates": 2.5}, TypeError, "candidates must be an integer"),
        ({"filter": "all"}, TypeError, "filter"),
        ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
    ],
)
def test_arguments_of_searches_are_checked(fitted, given, error, message):
    with pytest.raises(error, match=message):
        fitted["float32"].search(Q, 3, **given)


def test_queries_and_distances_are_checked(fitted):
    index = fitted["float32"]
    for bad in (Q[:, :5], np.full((1, 40), np.nan), "text", np.zeros((0, 40))):
        with pytest.raises((ValueError, TypeError), match="X"):
            index.search(bad, 3)
    for call in (index.pairs, lambda distance: index.radius_search(Q, distance)):
        with pytest.raises(ValueError, match="distance must be at least 0"):
            call(-1.0)
        with pytest.raises(ValueError, match="distance must be at least 0"):
            call(np.nan)
        with pytest.raises(TypeError, match="distance must be a number"):
            call("near")
    with pytest.raises(ValueError, match="candidates need vectors"):
        fitted[None].search(Q, 3, candidates=30)


def test_names_of_columns_are_those_of_fit():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[:300], columns=[f"c{i}" for i in range(40)])
    index = VectorIndex(16, keep="float32", random_state=0).fit(frame)
    assert index.search(frame[:2], 1).ids.ravel().tolist() == [0, 1]
    with pytest.raises(ValueError, match="feature names should match"):
        index.search(frame.rename(columns={"c0": "other"}), 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_other_dtypes(dtype):
    rows = (10 * X[:300]).astype(dtype)
    index = VectorIndex(16, metric="l2", keep="float32", random_state=0).fit(rows)
    assert index.search(rows[:9].tolist(), 1).ids.ravel().tolist() == list(range(9))


# ---- changes ----


@pytest.mark.parametrize("keep", KEEPS)
def test_changes_give_what_an_index_of_the_result_would(fitted, metric, keep):
    index = copy.deepcopy(fitted[keep])
    assert index.add(Q[:10]).tolist() == list(range(3000, 3010))
    assert index.remove([0, 5, 3003, 2999]) == 4
    assert index.upsert(Q[10:13], [7, 99999, 3]) == 1
    wanted = dict(enumerate(X)) | {3000 + i: q for i, q in enumerate(Q[:10])} | {7: Q[10], 99999: Q[11], 3: Q[12]}
    for gone in (0, 5, 3003, 2999):
        del wanted[gone]
        assert gone not in index
    ids = np.array(sorted(wanted))
    rows = np.array([wanted[i] for i in ids])
    assert len(index) == len(ids) and np.array_equal(np.sort(index.ids), ids) and 99999 in index
    if keep:
        np.testing.assert_allclose(index.get(ids), rounded(rows, keep), rtol=1e-3, atol=1e-3)
        all_of = distances_of(Q, rounded(rows, keep), metric)
        found = index.search(Q, 5, candidates=len(ids))
        np.testing.assert_allclose(found.distances, np.sort(all_of, axis=1)[:, :5], rtol=1e-4, atol=2e-5)
    other = HammingIndex(32)
    other.add(index.encoder_.transform(unit(rows) if metric == "cosine" else rows), ids)
    weights = index.encoder_.query_projections(unit(Q) if metric == "cosine" else Q)
    for one, two in zip(index.codes_.search(weights, 20), other.search(weights, 20)):
        assert np.array_equal(one, two)
    before = everything(index)
    index.compact()
    assert same(before[2:4], everything(index)[2:4])


class Broken(Exception):
    pass


@pytest.mark.parametrize("change", ["add", "upsert", "remove"])
def test_a_failed_change_leaves_codes_and_vectors(fitted, monkeypatch, change):
    index = copy.deepcopy(fitted["int8"])
    before = everything(index)
    calls = {
        "add": lambda: index.add(Q[:9]),
        "upsert": lambda: index.upsert(Q[:9], np.arange(2995, 3004)),
        "remove": lambda: index.remove(np.arange(9)),
    }

    def fail(*_):
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(kept.KeptVectors, "_tidied", fail)  # after codes and vectors were changed
        with pytest.raises(Broken):
            calls[change]()
    assert same(everything(index), before)
    calls[change]()  # the next one does not stumble over it
    assert not same(everything(index)[:1], before[:1])


def test_bad_changes_are_refused_and_leave_the_index(fitted):
    index = copy.deepcopy(fitted["float16"])
    before = everything(index)
    for call, error, message in (
        (lambda: index.add(Q[:2], [5, 5000]), ValueError, "ids are in the index already: 5"),
        (lambda: index.add(Q[:2], [5000]), ValueError, r"ids must have shape \(2,\)"),
        (lambda: index.add(Q[:2, :3]), ValueError, "features"),
        (lambda: index.add(np.full((1, 40), np.inf)), ValueError, "NaN or infinity"),
        (lambda: index.add(np.full((1, 40), 7e4)), ValueError, "X has values beyond 65504, which float16"),
        (lambda: index.upsert(Q[:2], [1, 1]), ValueError, "ids must be different, got twice: 1"),
        (lambda: index.upsert(np.full((1, 40), 7e4), [1]), ValueError, "which float16 vectors cannot hold"),
        (lambda: index.remove([1, 70000]), KeyError, "70000"),
        (lambda: index.remove([1], missing="skip"), ValueError, "missing must be"),
        (lambda: index.get([1, 70000]), KeyError, "70000"),
    ):
        with pytest.raises(error, match=message):
            call()
        assert same(everything(index), before)
    assert index.remove([1, 70000], missing="ignore") == 1


def test_everything_can_be_removed_and_added_again(fitted):
    for index in map(copy.deepcopy, fitted.values()):
        index.remove(index.ids)
        assert len(index) == 0 and (index.search(Q[:2], 3).ids == -1).all()
        assert index.radius_search(Q[:2], 1.0)[0].tolist() == [0, 0, 0] and list(index.pairs(0.1)) == []
        file = io.BytesIO()
        index.save(file)
        assert len(VectorIndex.load(file.getvalue())) == 0
        index.add(Q[:3], [5, 6, 7])
        assert index.search(Q[:3], 1).ids.ravel().tolist() == [5, 6, 7]


def test_many_replacements_do_not_fill_memory(fitted):
    index = copy.deepcopy(fitted["float32"])
    size = index.nbytes
    for start in range(40):
        index.upsert(X[:1000] + start, np.arange(1000))
    assert index.nbytes < 4 * size
    assert np.array_equal(index.get(np.arange(1000)), X[:1000] + np.float32(39))
    assert np.array_equal(index.get(np.arange(1000, 3000)), X[1000:])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(["put", "without", "compacted", "file"]), st.integers(0, 40)), max_size=12),
    st.sampled_from(["float32", "int8"]),
)
def test_kept_vectors_are_a_dict(changes, kind):
    rng = np.random.default_rng(0)
    vectors, model, seen = kept.KeptVectors(kind, 3), {}, []
    for what, n in changes:
        ids = rng.choice(60, n, replace=False).astype(np.int64)
        seen.append((vectors, dict(model)))
        if what == "put":
            rows = rng.integers(-127, 128, (n, 3)).astype(np.float32)
            rows[:, 0] = 127  # a scale of 1: int8 is exact
            vectors = vectors.put(rows, ids)
            model |= dict(zip(ids.tolist(), rows))
        elif what == "without":
            vectors = vectors.without(ids)
            model = {i: row for i, row in model.items() if i not in ids}
        else:
            vectors = vectors.compacted()
    for each, held in [*seen, (vectors, model)]:
        assert len(each) == len(held)
        if held:
            assert np.array_equal(each.get(np.array(list(held))), np.array(list(held.values())))


def test_searches_see_codes_and_vectors_of_one_moment(fitted):
    index = copy.deepcopy(fitted["float32"])
    V, stop, wrong = np.stack([Q[0], -Q[0]]), threading.Event(), []

    def look():
        while not stop.is_set():
            try:
                found = index.search(V, 1, candidates=50)
                both = index.get([77777])
                assert np.isfinite(found.distances).all() and np.isfinite(both).all()
            except KeyError:
                pass
            except Exception as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        index.upsert(V[turn % 2], [77777])
        index.remove([77777])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_change_inside_a_change_is_refused(fitted):
    index = copy.deepcopy(fitted["float32"])
    with index._changes, pytest.raises(RuntimeError, match="being changed by this thread"):
        index.remove([1])
    index.remove([1])


# ---- vectors of others ----


def test_attached_vectors_rank(fitted, metric):
    index = copy.deepcopy(fitted[None])
    assert index.attach_vectors(X) is index and "attached" in repr(index)
    found = index.search(Q, 10)
    wanted = np.take_along_axis(distances_of(Q, X, metric), found.ids, axis=1)
    assert found.exact and index.info()["attached"]
    np.testing.assert_allclose(found.distances, wanted, rtol=2e-5, atol=2e-6)
    assert np.array_equal(index.get([5, 3]), X[[5, 3]])
    index.add(Q[:1], [4000])
    with pytest.raises(ValueError, match="X has 3000 rows, the index 3001 codes"):
        index.search(Q, 10)
    index.attach_vectors(np.concatenate([Q[:1], X]), [4000, *range(3000)])
    assert index.search(Q[:1], 1).ids.tolist() == [[4000]]
    with pytest.raises(ValueError, match="X must have 40 columns, got 3"):
        index.attach_vectors(np.zeros((3001, 3)))
    with pytest.raises(ValueError, match="pass the ids of the rows"):
        index.attach_vectors(X)
    with pytest.raises(ValueError, match="no row for id"):
        index.attach_vectors(X, np.arange(3000))
    assert not index.attach_vectors(None).search(Q, 3).exact
    with pytest.raises(ValueError, match="no vectors are kept"):
        index.get([1])


# ---- files ----


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_holds_it_all(fitted, tmp_path, keep, mmap):
    index = copy.deepcopy(fitted[keep])
    index.remove([0, 17])
    index.upsert(Q[:2], [44, 5000])
    index.save(tmp_path / "index")
    loaded = VectorIndex.load(tmp_path / "index", mmap=mmap)
    assert same(everything(loaded), everything(index)) and repr(loaded) == repr(index)
    both = index.info(), loaded.info()
    for about in both:
        del about["nbytes"]
    assert both[0] == both[1]
    for each in (index, loaded):
        each.add(Q[5:9])
        each.remove([1, 5001])
        each.upsert(Q[9:12], [2, 3, 6000])
    assert same(everything(loaded), everything(index))
    loaded.save(tmp_path / "index")  # over the file that it is a map of
    again = VectorIndex.load(tmp_path / "index", mmap=True, verify=True)
    assert same(everything(again)[2:4], everything(index)[2:4])


def test_a_mapped_file_is_not_read_whole(fitted, tmp_path):
    fitted["float32"].save(tmp_path / "index")
    loaded = VectorIndex.load(tmp_path / "index", mmap=True)
    assert not loaded._state.kept._extents[0].rows.flags.writeable
    assert isinstance(loaded._state.kept._extents[0].rows.base, object)
    loaded.upsert(Q[:1], [0])
    assert len(loaded._state.kept._extents) == 2 and loaded._state.kept._extents[1].start == 3000


def test_a_failed_save_leaves_file_and_index(fitted, tmp_path, monkeypatch):
    index = copy.deepcopy(fitted["int8"])
    index.save(tmp_path / "index")
    data, before = (tmp_path / "index").read_bytes(), everything(index)
    index.add(Q[:3])
    after = everything(index)

    def fail(*_):
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(kept.KeptVectors, "_stored", fail)
        with pytest.raises(OSError, match="no space"):
            index.save(tmp_path / "index")
    assert (tmp_path / "index").read_bytes() == data and os.listdir(tmp_path) == ["index"]
    assert same(everything(index), after) and same(everything(VectorIndex.load(tmp_path / "index")), before)


def test_damage_is_found(fitted, tmp_path):
    path = tmp_path / "index"
    fitted["int8"].save(path)
    data = bytearray(path.read_bytes())
    for at in np.linspace(10, len(data) - 1, 40).astype(int):
        broken = data.copy()
        broken[at] ^= 4
        with pytest.raises(ValueError, match="bytes"):
            VectorIndex.load(broken)
    with pytest.raises(ValueError, match=r"VectorIndex.load\(path\)"):
        aphash.load(path)
    fitted["int8"].codes_.save(path)
    with pytest.raises(ValueError, match="it holds 'HammingIndex', expected 'VectorIndex'"):
        VectorIndex.load(path)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda index: pickle.loads(pickle.dumps(index))])
def test_copies(fitted, way):
    for index in (*fitted.values(), VectorIndex(8)):
        other = way(index)
        assert repr(other) == repr(index)
        if len(index):
            assert same(everything(other), everything(index))
            other.remove([0])
            assert 0 in index


def test_a_loaded_index_needs_numpy_alone_and_imports_nothing_later(fitted, tmp_path):
    fitted["float16"].save(tmp_path / "index")
    np.save(tmp_path / "Q.npy", Q)
    program = """
import sys, numpy as np
from aphash import VectorIndex
index = VectorIndex.load(sys.argv[1], mmap=True)
Q = np.load(sys.argv[2])
assert "sklearn" not in sys.modules and "scipy" not in sys.modules
before = set(sys.modules)
index.search(Q, 5); index.search(Q, 5, candidates=0); index.radius_search(Q, .1); list(index.pairs(.01))
index.add(Q[:2]); index.upsert(Q[:2], [1, 2]); index.remove([1]); index.compact(); index.get([2]); index.info()
index.save(sys.argv[1])
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "index", tmp_path / "Q.npy"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_ten_lines_from_vectors_to_a_changed_index(tmp_path):
    path = tmp_path / "photos"
    index = VectorIndex(32, keep="float16", random_state=0).fit(X)
    index.save(path)
    index = VectorIndex.load(path, mmap=True)
    distances, ids = index.search(Q, 10, recall=0.9)
    new = index.add(Q[:100])
    index.upsert(Q[100:101], [7])
    index.remove(ids[0, :1])
    duplicates = [pair for block in index.pairs(0.001) for pair in zip(*block)]
    neighbours, graph = index.knn_graph(5)
    index.save(path)
    assert len(new) == 100 and len(index) == 3099 and distances.shape == (300, 10) and graph.shape == (3099, 3099)
    assert duplicates == [] and len(neighbours) == 3099 and len(VectorIndex.load(path)) == 3099


# ---- calibration by itself ----


def test_recall_is_that_of_the_ranks():
    ranks = np.array([[1, 2, 50], [3, 1, 4]])
    distances = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    found, errors = of_ranks(ranks, distances, distances, [1, 2, 3, 50])
    assert errors[0].tolist() == pytest.approx([0.5 / 2**0.5, 0.5 / 2**0.5, 0, 0])
    assert found[0].tolist() == [0.5, 0.5, 1, 1]  # the nearest is first of all and third
    assert found[1].tolist() == [2 / 6, 3 / 6, 4 / 6, 1]
    kept_otherwise = distances[:, ::-1]  # the third is thought to be the nearest
    assert of_ranks(ranks, distances, kept_otherwise, [50])[0][0].tolist() == [0]


def test_radii_are_quantiles_of_the_sample():
    rng = np.random.default_rng(0)
    distances = rng.random((50, 10)).astype(np.float32)
    bits = np.rint(20 * distances + rng.normal(0, 1, distances.shape)).clip(0, 32).astype(np.int32)
    counts = np.array([1, 1, 1, 1, 1, 1, 2, 3, 50, 100.0])
    measured = calibration.Calibration(
        1000,
        np.arange(1, 4),
        np.ones((3, 3)),
        np.zeros((3, 3)),
        np.ones(3),
        distances,
        bits / np.float32(32),
        bits,
        counts,
    )
    for distance in (0.2, 0.5, 0.9):
        radius, recall, precision = measured.radius_for(distance, 0.9, "bits")
        weight = np.broadcast_to(counts, bits.shape)
        near = distances <= max(distance, np.sort(distances, axis=None)[99])
        assert recall == pytest.approx((weight * (near & (bits <= radius))).sum() / (weight * near).sum())
        assert recall >= 0.9 > (weight * (near & (bits < radius))).sum() / (weight * near).sum()
        good = (weight * ((distances <= distance) & (bits <= radius))).sum() / (weight * (bits <= radius)).sum()
        assert precision == pytest.approx(good)
    assert (np.diff(measured.estimated(np.arange(33), "bits")) >= 0).all()


def test_random_rows_are_others():
    true = np.array([[3, 1, 4], [9, 2, 6]])
    drawn = calibration.other_rows(10, np.array([5, 0]), true, np.random.RandomState(0))
    assert not np.isin(drawn[0], [5, 3, 1, 4]).any() and not np.isin(drawn[1], [0, 9, 2, 6]).any()
    assert set(drawn[0].tolist()) == {0, 2, 6, 7, 8, 9} and drawn.max() < 10


def test_candidates_between_the_measured_numbers_of_results():
    recall = np.array([[0.5, 0.9, 1], [0.2, 0.8, 1], [0.1, 0.7, 1]])
    none = np.zeros((0, 0), np.float32)
    measured = calibration.Calibration(
        10**6, np.array([10, 100, 1000]), recall, 0 * recall, np.ones(3), none, none, none.astype(np.int32), np.zeros(0)
    )
    assert measured.candidates_for(0.9, 1, 10**6) == 100
    assert measured.candidates_for(0.8, 10, 10**6) == 100
    assert measured.candidates_for(0.7, 1000, 10**6) == 1000
    assert measured.candidates_for(0.8, 10, 3 * 10**6) == 300
    between = measured.candidates_for(0.85, 4, 10**6)
    assert measured.candidates_for(0.85, 1, 10**6) < between < measured.candidates_for(0.85, 10, 10**6)
    assert measured.recall_for(between, 4, 10**6) == pytest.approx(0.85, abs=0.01)
