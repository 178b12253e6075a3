"""Searches by weights through the classes: values, arguments, rescoring, expansion, Dask, a pipeline."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_weighted_kernels import brute, make_weights, weighted_distances

import aphash
from aphash import APHash, Filter, HammingIndex, HammingNeighbors, VectorRescore, pack_codes, unpack_codes

N, BITS = 700, 100


def make_index(rng, n=N, n_bits=BITS, ids=None):
    index = HammingIndex(n_bits)
    codes = pack_codes(rng.standard_normal((n, n_bits)) - 0.1)
    codes[n // 2 :] = codes[: n - n // 2]  # ties
    index.add(codes, ids)
    return index


def expected(index, weights, k, mask=None):
    """The definition, in int64 and float64."""
    weights = np.asarray(weights, np.float64)
    integers, ids = brute(weighted_distances(index.codes, weights), k, index.ids, mask)
    floats = (integers * np.abs(weights).max(axis=1)[:, None] / 65535).astype(np.float32)
    floats[ids == -1] = np.inf
    return floats, ids


def assert_equal(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.longdouble])
@pytest.mark.parametrize("n_bits", [1, 64, 100])
def test_search(rng, isa, n_bits, dtype):
    index = make_index(rng, n_bits=n_bits, ids=rng.permutation(N) * 3 - 101)
    weights = rng.standard_normal((6, n_bits)).astype(dtype)
    mask = rng.random(N) < 0.2
    for k in (1, 10, N + 3):
        assert_equal(index.search(weights, k), expected(index, weights, k))
        for filter in (mask, index.ids[mask], Filter.from_mask(mask), Filter.excluding(index.ids[~mask])):
            assert_equal(index.search(weights, k, filter=filter), expected(index, weights, k, mask))
    one = index.search(weights[2], 5)
    assert one[0].shape == one[1].shape == (5,)
    assert_equal(one, [each[2] for each in expected(index, weights, 5)])
    assert_equal(index.search(weights[:0], 5), (np.empty((0, 5), np.float32), np.empty((0, 5), np.int64)))
    assert_equal(index.search(weights.tolist(), 5), expected(index, np.asarray(weights.tolist()), 5))


def test_a_transposed_view_and_a_lookup(rng):
    index = make_index(rng)
    weights = np.asfortranarray(rng.standard_normal((9, BITS)))
    wanted = expected(index, weights, 10)
    assert_equal(index.search(weights, 10), wanted)
    index.build_lookup()
    assert_equal(index.search(weights, 10), wanted)
    assert_equal(index.search(weights, 10, n_jobs=2), wanted)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_radius(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_bits = data.draw(st.integers(1, 200))
    index = make_index(rng, data.draw(st.integers(1, 600)), n_bits)
    kind = data.draw(st.sampled_from(["normal", "few values", "falling"]))
    weights = make_weights(rng, 4, n_bits, kind) * 10.0 ** data.draw(st.integers(-30, 30))
    size = np.abs(weights).sum(axis=1).max()
    radius = size * data.draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, np.inf])) if size else 0.0
    radius = 0.0 if np.isnan(radius) else radius
    if data.draw(st.booleans()):
        index.build_lookup()
    offsets, distances, ids = index.radius_search(weights, radius)
    integers = weighted_distances(index.codes, weights)
    for i, row in enumerate(integers):
        most = np.abs(weights[i]).max()
        limit = np.floor(min(radius / most * 65535, 2.0**32)) if most > 0 else 0
        inside = np.flatnonzero(row <= limit)
        inside = inside[np.lexsort((inside, row[inside]))]
        np.testing.assert_array_equal(ids[offsets[i] : offsets[i + 1]], inside)
        found = (row[inside] * most / 65535).astype(np.float32)
        np.testing.assert_array_equal(distances[offsets[i] : offsets[i + 1]], found)


def test_the_order_is_that_of_the_integers(rng):
    """Distances that float32 makes equal stay in the order of their integers, also when shards are merged."""
    index = HammingIndex(1024)
    weights = np.ones((1, 1024))
    weights[0, 0] = 1 / 65535  # an integer of 1, beside 1,023 of 65,535: float32 rounds it away
    codes = np.zeros((4, 16), np.uint64)
    codes[[1, 3], 0] = 1
    index.add(codes)
    distances, ids = index.search(weights, 4)
    assert np.unique(distances).size == 1
    assert ids.tolist() == [[1, 3, 0, 2]]


def test_zero_weights(rng):
    index = make_index(rng)
    weights = np.zeros((2, BITS))
    assert_equal(index.search(weights, 3), (np.zeros((2, 3), np.float32), np.array([[0, 1, 2]] * 2)))
    assert np.diff(index.radius_search(weights, 0)[0]).tolist() == [N, N]


def test_extreme_weights(rng):
    index = make_index(rng)
    for size in (5e-324, 1e-310, 1e-30, 1e30, 3e36 / BITS):
        weights = rng.choice([-1.0, 1.0], (3, BITS)) * size
        assert_equal(index.search(weights, 7), expected(index, weights, 7))


@pytest.mark.parametrize(
    ("queries", "error", "message"),
    [
        (np.ones((3, 512)), ValueError, r"must have shape \(n, n_bits=100\), got \(3, 512\): vectors go through"),
        (np.ones((3, 2)), ValueError, r"got \(3, 2\): codes are uint64"),
        (np.ones((3, 1, 100)), ValueError, "got \\(3, 1, 100\\)"),
        (np.ones(99), ValueError, "got \\(99,\\)"),
        (np.float64(3.0), ValueError, "got \\(\\)"),
        (np.where(np.arange(300).reshape(3, 100) == 250, np.nan, 1.0), ValueError, "NaN or infinity, first in row 2"),
        (np.where(np.arange(300).reshape(3, 100) == 150, -np.inf, 1.0), ValueError, "NaN or infinity, first in row 1"),
        (np.full((2, 100), 1e37), ValueError, "sum float32 does not hold, first in row 0"),
        (np.full((2, 100), 1e308), ValueError, "sum float32 does not hold, first in row 0"),
        (np.eye(100)[:4], ValueError, "only zeros and ones, .* pack_codes"),
        (np.ones((3, 100), int), TypeError, r"must be codes \(uint64 in native byte order\) or weights \(floats\)"),
        (np.ones((3, 100), np.int8), TypeError, "or weights"),
        (np.ones((3, 100), bool), TypeError, "or weights .*pack_codes"),
        (np.ones((3, 100), complex), TypeError, "or weights"),
        (np.ones((3, 3), np.uint64), ValueError, r"must have shape \(n, 2\)"),
        (np.ma.masked_less(np.arange(200.0).reshape(2, 100), 3), ValueError, "masked"),
        (None, TypeError, "got None"),
        ("text", TypeError, "got a str"),
    ],
)
def test_bad_queries(rng, queries, error, message):
    index = make_index(rng)
    for search in (lambda: index.search(queries, 3), lambda: index.radius_search(queries, 3)):
        with pytest.raises(error, match=f"queries.*{message}"):
            search()


def test_bad_arguments(rng):
    index = make_index(rng)
    weights = rng.standard_normal((3, BITS))
    for arguments, error, message in [
        ({"expand": -1}, ValueError, "expand must be at least 0"),
        ({"expand": 1.5}, TypeError, "expand must be an integer"),
        ({"expand": 3, "expand_weight": "1"}, TypeError, "expand_weight must be a number"),
        ({"expand": 3, "expand_weight": -1.0}, ValueError, "expand_weight must be finite"),
        ({"expand": 3, "expand_weight": np.inf}, ValueError, "expand_weight must be finite"),
        ({"expand_weight": np.nan}, ValueError, "expand_weight must be finite"),
        ({"k": 0}, ValueError, "k must be at least 1"),
    ]:
        with pytest.raises(error, match=message):
            index.search(weights, **{"k": 3, **arguments})
    with pytest.raises(TypeError, match="expand needs queries that are weights"):
        index.search(index.codes[:2], 3, expand=5)
    for radius, error in ((-1.0, ValueError), (np.nan, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="radius must be"):
            index.radius_search(weights, radius)
    with pytest.raises(TypeError, match="radius must be an integer"):
        index.radius_search(index.codes[:2], 1.5)
    with pytest.raises(TypeError, match="uint64"):
        index.add(weights)


def test_rescoring(rng):
    index = make_index(rng)
    X, Q, weights = rng.standard_normal((N, 5)), rng.standard_normal((4, 5)), rng.standard_normal((4, BITS))
    got = index.search(weights, 3, rescore=VectorRescore(X, factor=6), rescore_queries=Q)
    candidates = index.search(weights, 18)[1]
    finer = np.sqrt(((X[candidates] - Q[:, None]) ** 2).sum(2))
    order = np.lexsort((candidates, finer), axis=1)[:, :3]
    np.testing.assert_array_equal(got[1], np.take_along_axis(candidates, order, 1))
    np.testing.assert_allclose(got[0], np.take_along_axis(finer, order, 1), rtol=1e-5)


def expanded_by_hand(index, weights, expand, expand_weight, mask=None):
    ids = expected(index, weights, expand, mask)[1]
    place = {each: i for i, each in enumerate(index.ids.tolist())}
    signs = 2.0 * unpack_codes(index.codes, index.n_bits) - 1
    new = weights.copy()
    for i, row in enumerate(ids.tolist()):
        real = [place[each] for each in row if each != -1]
        if real and np.abs(weights[i]).max() > 0:
            new[i] = weights[i] / np.abs(weights[i]).mean() + expand_weight * signs[real].mean(0)
    return new


@pytest.mark.parametrize("expand", [1, 30, N + 1])
def test_expansion(rng, expand, monkeypatch):
    monkeypatch.setattr("aphash._searching.expansion._CHUNK_BITS", 10_000)
    index = make_index(rng, ids=rng.permutation(N) + 5)
    weights = rng.standard_normal((8, BITS))
    weights[3] = 0
    mask = rng.random(N) < 0.1
    for arguments, where in (({}, None), ({"filter": mask}, mask), ({"filter": np.zeros(N, bool)}, np.zeros(N, bool))):
        got = index.search(weights, 9, expand=expand, expand_weight=2.0, **arguments)
        wanted = expected(index, expanded_by_hand(index, weights, expand, 2.0, where), 9, where)
        np.testing.assert_array_equal(got[1], wanted[1])
        np.testing.assert_allclose(got[0], wanted[0], rtol=1e-6)
    alone = [each[0] for each in index.search(weights[:1], 9, expand=expand)]
    assert_equal(index.search(weights[0], 9, expand=expand), alone)
    assert_equal(index.search(weights, 9, expand=0), index.search(weights, 9))


def test_expansion_and_rescoring(rng):
    index = make_index(rng)
    X, Q, weights = rng.standard_normal((N, 5)), rng.standard_normal((4, 5)), rng.standard_normal((4, BITS))
    rescore = {"rescore": VectorRescore(X, factor=2), "rescore_queries": Q}
    got = index.search(weights, 3, expand=10, **rescore)
    assert_equal(got, index.search(expanded_by_hand(index, weights, 10, 1.0), 3, **rescore))


@pytest.mark.parametrize("most", [1 << 10, 1 << 26])
def test_many_queries_are_searched_in_parts(rng, most, monkeypatch):
    monkeypatch.setattr("aphash._searching.queries._TABLE_BYTES", most)
    index = make_index(rng)
    weights = rng.standard_normal((11, BITS))
    assert_equal(index.search(weights, 10), expected(index, weights, 10))
    offsets, distances, ids = index.radius_search(weights, 30.0)
    for i, row in enumerate(weights):
        own = slice(offsets[i], offsets[i + 1])
        assert_equal((distances[own], ids[own]), index.radius_search(row, 30.0)[1:])


def test_dask(rng):
    da = pytest.importorskip("dask.array")
    import aphash.dask

    one = make_index(rng, ids=rng.permutation(N) * 2)
    other = aphash.dask.HammingIndex(BITS)
    other.add(da.from_array(one.codes, chunks=(130, -1)), one.ids)
    weights = make_weights(rng, 7, BITS, "few values")
    weights[4] = 0
    mask = rng.random(N) < 0.3
    for arguments in ({}, {"filter": one.ids[mask]}, {"filter": mask}, {"expand": 9}, {"expand": 800, "filter": mask}):
        for k in (1, 20, N + 9):
            assert_equal(other.search(weights, k, **arguments), one.search(weights, k, **arguments))
    assert_equal(other.search(weights[2], 5), one.search(weights[2], 5))
    for radius in (0, 20.5, np.inf):
        assert_equal(other.radius_search(weights, radius), one.radius_search(weights, radius))
    empty = aphash.dask.HammingIndex(BITS)
    assert_equal(empty.search(weights, 3, expand=4), HammingIndex(BITS).search(weights, 3, expand=4))
    assert_equal(empty.radius_search(weights, 3), HammingIndex(BITS).radius_search(weights, 3))
    with pytest.raises(ValueError, match="vectors go through"):
        other.search(np.ones((3, 512)), 4)
    with pytest.raises(TypeError, match="expand needs"):
        other.search(one.codes[:2], 4, expand=3)


def test_shards_are_merged_by_integers(rng):
    """As test_the_order_is_that_of_the_integers, with a shard a code."""
    da = pytest.importorskip("dask.array")
    import aphash.dask

    weights = np.ones((1, 1024))
    weights[0, 0] = 1 / 65535
    codes = np.zeros((4, 16), np.uint64)
    codes[[1, 3], 0] = 1
    other = aphash.dask.HammingIndex(1024)
    other.add(da.from_array(codes, chunks=(1, -1)))
    assert other.search(weights, 4)[1].tolist() == [[1, 3, 0, 2]]
    assert other.radius_search(weights, 1024)[2].tolist() == [1, 3, 0, 2]


def test_a_pipeline():
    X = load_digits().data
    pipeline = make_pipeline(StandardScaler(), APHash(40, random_state=0), HammingNeighbors(4)).fit(X[100:])
    weights = pipeline[-2].query_projections(pipeline[:-2].transform(X[:100]))
    distances, found = pipeline[-1].kneighbors(weights)
    index = HammingIndex(40)
    index.add(pipeline[:-1].transform(X[100:]))
    assert_equal((distances, found), index.search(weights, 4))
    graph = pipeline[-1].kneighbors_graph(weights, mode="distance")
    np.testing.assert_array_equal(graph.data, distances.ravel())
    with pytest.raises(ValueError, match="X of floats are weights"):
        pipeline[-1].kneighbors(X[:3])


def test_pickles_and_copies_search_alike(rng):
    import copy
    import pickle

    index = make_index(rng)
    weights = rng.standard_normal((3, BITS))
    for other in (pickle.loads(pickle.dumps(index)), copy.deepcopy(index)):
        assert_equal(other.search(weights, 5), index.search(weights, 5))


def test_names():
    assert not hasattr(aphash, "ProjectionRescore")
