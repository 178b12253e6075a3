"""Modes "scores" and "semantic-scores": what users see; test_scores_kernels.py has the formulas."""

import io
import pickle
import warnings

import numpy as np
import pytest

from aphash import APHash, Encoder, HammingIndex, Recipe, VectorIndex, unpack_codes
from aphash import load as load_product
from aphash import save as save_product
from aphash._common import container
from aphash._learning import _bits, item_encoder, scores
from aphash._learning.encoder import PRODUCT
from aphash._learning.item_encoder import project
from aphash._learning.kind_space import KindSpace


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X, y


@pytest.fixture(scope="module", params=["scores", "semantic-scores"])
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def hasher(digits, mode):
    return APHash(32, mode=mode, random_state=0).fit(digits[0])


def recall(index, queries, X, true):
    found = index.search(queries, 100)[1]
    return np.mean([np.isin(t, f).mean() for t, f in zip(true, found)])


def test_more_of_the_nearest_are_found_than_by_other_codes(digits):
    X = digits[0]
    items, Q = X[200:], X[:200]
    true = np.argsort(((Q[:, None] - items[None]) ** 2).sum(-1), axis=1, kind="stable")[:, :10]
    found = {}
    for mode in ("scores", "neighbors"):
        h = APHash(16, mode=mode, random_state=0).fit(items)
        index = HammingIndex(16)
        index.add(h.transform(items))
        found[mode] = recall(index, h.query_projections(Q), items, true)
    assert found["scores"] > found["neighbors"]


def patches(n, d=60, seed=0):
    """Clusters in planes of their own: where neighbours are depends on where a query is."""
    rng = np.random.default_rng(seed)
    centres, planes = rng.standard_normal((5, d)), rng.standard_normal((5, 4, d)) / 2
    own = rng.integers(5, size=n)
    X = centres[own] + np.einsum("nk,nkd->nd", rng.standard_normal((n, 4)), planes[own])
    return (X + 0.02 * rng.standard_normal((n, d))).astype(np.float32)


@pytest.fixture(scope="module")
def moving(mode):
    """A model whose queries move, and rows that are not in it."""
    X = patches(9000)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* distinct codes")  # of the kind there are five
        hasher = APHash(16, mode=mode, n_anchors=6000, n_train=8400, random_state=0).fit(X[:8700])
    assert hasher.items_.numbers["query_steps"] > 0
    return hasher, X[:8700], X[8700:]


def test_weights_of_queries_find_more_than_projections(moving, mode):
    """Also of items that are no anchors."""
    h, items, Q = moving
    others = np.setdiff1d(np.arange(len(items)), h.anchor_indices_)
    true = np.argsort(((Q[:, None] - items[others][None]) ** 2).sum(-1), axis=1, kind="stable")[:, :10]
    index = HammingIndex(16)
    index.add(h.codes_[others])
    moved, projected = (index.search(weigh(Q), 10)[1] for weigh in (h.query_projections, h.decision_function))
    moved, projected = (np.mean([np.isin(t, f).mean() for t, f in zip(true, ids)]) for ids in (moved, projected))
    assert moved > projected + (0.01 if mode == "scores" else 0)


def test_expected_recall_is_that_of_the_weights(moving):
    h, items, Q = moving
    true = np.argsort(((Q[:, None] - items[None]) ** 2).sum(-1), axis=1, kind="stable")[:, :10]
    index = HammingIndex(16)
    index.add(h.codes_)
    actual = [recall(index, weigh(Q), items, true) for weigh in (h.query_projections, h.decision_function)]
    assert abs(h.expected_recall_.at(100, k=10) - actual[0]) < 0.05 and actual[0] > actual[1]


def test_weights_of_a_query_depend_on_it_alone(moving):
    hasher, _, X = moving
    weights = hasher.query_projections(X)
    assert np.abs(weights - hasher.decision_function(X)).max() > 0.01
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_array_equal(hasher.query_projections(X[order]), weights[order])
    np.testing.assert_array_equal(hasher.query_projections(X.astype(float)), weights)
    for row in (0, 1, 70):
        np.testing.assert_array_equal(hasher.query_projections(X[row]), weights[row])
        np.testing.assert_array_equal(hasher.encoder_.query_projections(X[row : row + 1]), weights[row : row + 1])
    with pytest.raises(ValueError, match="61 features"):
        hasher.query_projections(np.ones((3, 61)))
    encoder = Encoder.load(saved(hasher))
    encoder.n_jobs = 3
    np.testing.assert_array_equal(encoder.query_projections(X), weights)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(hasher)).query_projections(X), weights)


def saved(hasher):
    file = io.BytesIO()
    hasher.save(file)
    return file.getvalue()


def test_weights_of_queries_anywhere_are_numbers(moving):
    """Where float32 does not hold distances, no anchor is near, and the weights are the projections."""
    hasher, _, X = moving
    centre = hasher.mean_[np.newaxis].astype(np.float32)
    for Q in (centre, X[:1] * 1e3, X[:1] * 1e12, X[:1] * 1e25, X * 0):
        weights = hasher.query_projections(Q)
        assert np.isfinite(weights).all()
        if np.abs(Q).max() > 1e20 and hasher.items_.kind_space is None:
            np.testing.assert_array_equal(weights, hasher.decision_function(Q))


def test_a_model_without_steps_has_the_projections_as_weights(moving, mode):
    """The files of version 3 are such."""
    hasher, _, X = moving
    items = hasher.items_
    numbers = {name: number for name, number in items.numbers.items() if name != "query_steps"}
    before = APHash.load(saved(hasher))
    before.items_ = item_encoder.ItemEncoder(items.weights, items.arrays, numbers)
    np.testing.assert_array_equal(before.query_projections(X), hasher.decision_function(X))
    np.testing.assert_array_equal(before.transform(X), hasher.transform(X))
    file = saved(before)
    assert container.read(file, kind="APHash")[2] == (3 if mode == "scores" else 4)
    np.testing.assert_array_equal(APHash.load(file).query_projections(X), hasher.decision_function(X))
    with pytest.raises(ValueError, match="query_steps must be"):
        item_encoder.ItemEncoder(items.weights, items.arrays, numbers | {"query_steps": -1})


def test_a_vector_index_moves_queries_where_codes_are_all_it_has():
    X = patches(9000)
    Q = X[8700:]
    for keep in (None, "int8"):
        index = VectorIndex(16, metric="l2", keep=keep, random_state=0).fit(X[:8700])
        moved, projected = index.encoder_.query_projections(Q), index.encoder_.decision_function(Q)
        assert np.abs(moved - projected).max() > 0.01
        found = index.search(Q, 100, candidates=0).ids
        np.testing.assert_array_equal(found, index.codes_.search(moved if keep is None else projected, 100)[1])


def test_queries_stay_where_anchors_say_little():
    """Where neighbours lie alike in all directions, V says all that is to be known."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((4000, 30))
    hasher = APHash(16, mode="scores", n_anchors=1500, random_state=0).fit(X)
    assert hasher.items_.numbers["query_steps"] == 0
    np.testing.assert_array_equal(hasher.query_projections(X), hasher.decision_function(X))
    few = APHash(16, mode="scores", random_state=0).fit(X[:19, :16])  # too few to find out
    assert few.items_.numbers["query_steps"] == 0


def test_queries_stay_where_there_are_many_more_items_than_anchors(moving, mode):
    hasher, X, _ = moving
    assert hasher.items_.numbers["query_steps"] > 0
    settings = {"mode": mode, "random_state": 0, "max_iter": 5, "n_train": 2000}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* distinct codes")
        steps = [APHash(16, n_anchors=m, **settings).fit(X).items_.numbers["query_steps"] for m in (1739, 1740)]
    assert steps[0] == 0 < steps[1]


def test_a_code_depends_on_its_row_alone(digits, hasher):
    X = digits[0]
    np.testing.assert_array_equal(hasher.transform(X), hasher.codes_)
    np.testing.assert_array_equal(hasher.transform(X[::-1].copy())[::-1], hasher.codes_)
    np.testing.assert_array_equal(hasher.transform(X[7]), hasher.codes_[7])
    for dtype in (np.float32, np.float16, np.int64, ">f8"):
        np.testing.assert_array_equal(hasher.transform(X[300:333].astype(dtype)), hasher.codes_[300:333])
    np.testing.assert_array_equal(hasher.transform(X[300:333].tolist()), hasher.codes_[300:333])


def test_effective_directions(rng):
    X = rng.standard_normal((5000, 60)) * np.repeat([3.0, 1.0], [6, 54])
    X -= X.mean(axis=0)
    C = np.cov(X.T)
    expected = np.trace(C) ** 2 / np.square(C).sum()
    assert scores._effective_directions(X) == pytest.approx(expected, rel=0.1)
    assert scores._effective_directions(np.zeros((9, 3))) == scores._effective_directions(np.ones((1, 3))) == 1
    assert scores._effective_directions(np.array([[-1.0], [1.0]])) == pytest.approx(1)


@pytest.mark.parametrize(("n_bits", "by_decoder"), [(128, 0), (136, 1), (137, 0)])
def test_when_items_are_rebuilt_by_the_decoder(rng, tmp_path, n_bits, by_decoder):
    X = rng.standard_normal((700, 150)) * (np.linspace(2, 1, 150) if n_bits != 137 else 0.9 ** np.arange(150))
    hasher = APHash(n_bits, mode="scores", random_state=0, max_iter=5).fit(X)
    assert hasher.items_.numbers.get("by_decoder", 0) == by_decoder
    hasher.save(tmp_path / "model")
    for other in (hasher, Encoder.load(tmp_path / "model"), pickle.loads(pickle.dumps(hasher.encoder_))):
        np.testing.assert_array_equal(other.transform(X[::-1])[::-1], hasher.codes_)
        np.testing.assert_array_equal(other.transform(X[7]), hasher.codes_[7])
    # candidates are asked for by the weights V x, whatever the items are rebuilt by
    items = hasher.items_
    x = ((X - hasher.mean_) * hasher.scale_).astype(np.float32)
    candidates = np.argsort(-(x @ items.weights) @ (2.0 * unpack_codes(hasher.anchor_codes_, n_bits) - 1).T, axis=1)
    candidates = np.ascontiguousarray(candidates[:, : items.numbers["n_candidates"]])
    decoder = items.arrays["decoder"].T
    rebuilds = decoder if by_decoder else items.weights
    maps = project(x, np.concatenate([items.arrays["start"], decoder, rebuilds], axis=1))
    codes = np.empty_like(hasher.codes_)
    kernels = item_encoder.scores(items.weights, items.arrays, items.numbers)
    kernels.encode(x, maps, candidates, items.numbers["n_near"], 3, 3, codes, 1)
    assert (unpack_codes(codes, n_bits) == unpack_codes(hasher.codes_, n_bits)).mean() > 0.99


def test_the_same_seed_gives_the_same_model_whatever_n_jobs(digits, hasher, mode, small_work_is_split):
    for n_jobs in (1, 2, 3):
        other = APHash(32, mode=mode, random_state=0, n_jobs=n_jobs).fit(digits[0])
        np.testing.assert_array_equal(other.codes_, hasher.codes_)
        np.testing.assert_array_equal(other.coef_, hasher.coef_)
        assert other.fingerprint_ == hasher.fingerprint_
    assert APHash(32, mode=mode, random_state=1).fit(digits[0]).fingerprint_ != hasher.fingerprint_


def test_attributes(digits, hasher, mode):
    X = digits[0]
    m = len(X)
    assert hasher.anchor_indices_.tolist() == list(range(m)) and hasher.anchor_codes_.shape == (m, 1)
    assert len(hasher.objective_) == hasher.n_iter_ == 140
    assert hasher.objective_["J0"][-1] < hasher.objective_["J0"][0] and (hasher.objective_["J1"] == 0).all()
    assert not hasattr(hasher, "anchors_") and not hasattr(hasher, "thresholds_")
    projections = X @ hasher.coef_.T + hasher.intercept_
    np.testing.assert_allclose(hasher.decision_function(X), projections, rtol=1e-3, atol=1e-3)
    hasher = APHash(16, mode=mode, random_state=0, n_anchors=100, max_iter=5).fit(X)
    assert len(hasher.anchor_indices_) == 100 and hasher.codes_.shape == (m, 1)
    hasher.set_params(mode="semantic", n_anchors="auto", max_iter="auto").fit(X)
    assert hasattr(hasher, "anchors_") and not hasattr(hasher, "items_")
    np.testing.assert_array_equal(hasher.transform(X), HammingIndex(16).n_bits and hasher.encoder_.transform(X))


def test_files_and_pickles(digits, hasher, mode, tmp_path):
    X = digits[0]
    hasher.save(tmp_path / "model")
    index = HammingIndex(32)
    index.add(hasher.codes_)
    save_product(tmp_path / "product", hasher, index)
    for other in (
        APHash.load(tmp_path / "model"),
        APHash.load((tmp_path / "model").read_bytes()),
        Encoder.load(tmp_path / "model"),
        Encoder.load(tmp_path / "product"),
        load_product(tmp_path / "product")[0],
        pickle.loads(pickle.dumps(hasher)),
        pickle.loads(pickle.dumps(hasher.encoder_)),
    ):
        np.testing.assert_array_equal(other.transform(X), hasher.codes_)
        np.testing.assert_array_equal(other.query_projections(X), hasher.query_projections(X))
    again = io.BytesIO()
    APHash.load(tmp_path / "model").save(again)
    assert again.getvalue() == (tmp_path / "model").read_bytes()
    # 2 d + 16 + 8 bytes an anchor, and what does not grow with them
    rest = 60_000 if mode == "scores" else 90_000
    assert (tmp_path / "model").stat().st_size < len(X) * (2 * 64 + 12 + 8 + 8 + 8) + rest
    version = container.read(tmp_path / "model", kind="APHash")[2]
    assert version == 4 == container.read(tmp_path / "product", kind=PRODUCT)[2]


def test_a_file_whose_arrays_do_not_fit_is_refused(hasher, tmp_path):
    hasher.save(tmp_path / "model")
    arrays, params, version = container.read(tmp_path / "model", kind="APHash")
    for name, array in arrays.items():
        if name.startswith("items_"):
            container.write(
                tmp_path / "bad", {**arrays, name: array[:-1]}, kind="APHash", version=version, params=params
            )
            with pytest.raises(ValueError, match=r"bad.*not a whole APHash file"):
                APHash.load(tmp_path / "bad")
    for name in params["items_"]:  # of a mode that has numbers of its own
        fewer = {key: number for key, number in params["items_"].items() if key != name}
        container.write(tmp_path / "bad", arrays, kind="APHash", version=version, params={**params, "items_": fewer})
        with pytest.raises(ValueError, match=r"bad.*not a whole APHash file"):
            Encoder.load(tmp_path / "bad")
    counts = [{**params["items_"], name: bad} for name in ("n_near", "n_candidates") for bad in (0, -1, 2.5, 1e300)]
    for bad in ({}, {**params["items_"], "rho": "much"}, *counts):
        container.write(tmp_path / "bad", arrays, kind="APHash", version=version, params={**params, "items_": bad})
        with pytest.raises(ValueError, match=r"bad.*not a whole APHash file"):
            Encoder.load(tmp_path / "bad")


@pytest.mark.parametrize("name", ["ridge", "last_ridge", "q_scale", "q_power", "whitening", "tol"])
def test_parameters_that_mean_nothing_are_refused(digits, name):
    with pytest.raises(ValueError, match=f"{name} has no meaning where scores are learned"):
        APHash(8, mode="scores", **{name: 0.5}).fit(digits[0])


@pytest.mark.filterwarnings("ignore:X has .* independent directions", "ignore:.*rows of X have only")
@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_few_rows(rng, mode, n):
    X = rng.standard_normal((n, 5))
    for n_bits in (1, 8, 70):
        hasher = APHash(n_bits, mode=mode, random_state=0).fit(X)
        assert hasher.transform(X).shape == (n, (n_bits + 63) // 64)
        assert np.isfinite(hasher.query_projections(X)).all()
    with pytest.raises(ValueError, match="n_neighbors=200 must be at most the number of other anchors"):
        APHash(8, mode=mode, n_neighbors=200).fit(X)


@pytest.mark.filterwarnings("ignore:X has .* independent directions", "ignore:.*rows of X have only")
def test_copies_and_far_rows(rng):
    X = np.repeat(rng.standard_normal((7, 6)), 30, axis=0)
    assert len(np.unique(APHash(24, mode="scores", random_state=0).fit(X).codes_)) >= 5
    X = rng.standard_normal((500, 6))
    X[0] *= 1e6
    codes = APHash(24, mode="scores", random_state=0).fit(X).codes_
    assert len(np.unique(codes)) > 300


def test_a_recipe_of_scores(digits):
    X = digits[0][:300]
    recipe = Recipe.preset("scores").replace(n_neighbors=20, n_rounds=2, max_iter=10)
    hasher = APHash(16, mode=recipe, random_state=0).fit(X)
    assert hasher.n_iter_ == 10 + 4 + 4
    np.testing.assert_array_equal(hasher.transform(X), hasher.codes_)


@pytest.mark.filterwarnings("ignore:X has .* independent directions", "ignore:.*rows of X have only")
def test_kinds_in_few_directions_and_of_copies(rng):
    X = rng.standard_normal((600, 1))  # all directions are equal or opposite
    assert len(np.unique(APHash(16, mode="semantic-scores", random_state=0).fit(X).codes_)) >= 2
    X = np.repeat(rng.standard_normal((7, 6)), 30, axis=0)
    assert len(np.unique(APHash(24, mode="semantic-scores", random_state=0).fit(X).codes_)) >= 4


@pytest.mark.parametrize(("d", "e"), [(1, 1), (5, 3), (33, 70)])
def test_directions_of_the_kind_space(rng, d, e):
    X, W, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((19, d), (d, e), e))
    X[4], bias[0] = 0, 0
    bias[1:] = 0
    centre = rng.standard_normal(e)
    y = X.astype(float) @ W + bias
    length = np.sqrt((y**2).sum(axis=1, keepdims=True))
    expected = 1.5 * (y / np.where(length > 0, length, 1) - centre)
    space = KindSpace(W, bias, centre, 1.5)
    found = space(X, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(space(X, 3), found)
    for i in range(len(X)):
        np.testing.assert_array_equal(space(X[i : i + 1], 1)[0], found[i])
    with pytest.raises(ValueError, match="centre"):
        _bits.directions(found, centre[1:], 1.0)


def test_more_of_the_kind_are_found_than_by_scores_and_more_neighbors_than_by_semantic(digits):
    X, y = digits
    items, Q = X[300:], X[:300]
    true = np.argsort(((Q[:, None] - items[None]) ** 2).sum(-1), axis=1, kind="stable")[:, :10]
    same, near = {}, {}
    for mode in ("scores", "semantic-scores", "semantic"):
        h = APHash(32, mode=mode, random_state=0).fit(items)
        index = HammingIndex(32)
        index.add(h.transform(items))
        found = index.search(h.query_projections(Q), 100)[1]
        same[mode] = (y[300:][found] == y[:300, None]).mean()
        near[mode] = np.mean([np.isin(t, f[:20]).mean() for t, f in zip(true, found)])
    assert same["semantic-scores"] > same["scores"] + 0.02
    assert near["semantic-scores"] > near["semantic"] + 0.02
