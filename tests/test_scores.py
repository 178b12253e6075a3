"""Modes "scores" and "semantic-scores": kernels against the formulas in float64, the learner, and what users see."""

import io
import pickle
import warnings

import numpy as np
import pytest
import reference

from aphash import APHash, Encoder, HammingIndex, Recipe, VectorIndex, unpack_codes
from aphash import load as load_product
from aphash import save as save_product
from aphash._common import container
from aphash._learning import _bits, item_encoder, scores
from aphash._learning.encoder import PRODUCT
from aphash._learning.item_encoder import from_bfloat16, project, to_bfloat16
from aphash._learning.kind_space import KindSpace


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def problem(rng, r, d, m=40):
    """Anchors and all that items' bits depend on, of plausible sizes; as arrays and numbers of an ItemEncoder."""
    A = rng.standard_normal((m, d)).astype(np.float32)
    weights = (rng.standard_normal((d, r)) / np.sqrt(d * r) * 3).astype(np.float32)
    B = np.where(rng.standard_normal((m, r)) >= 0, 1, -1).astype(np.float32)
    p = A.astype(float) @ weights
    decoder = (rng.standard_normal((r, d)) / np.sqrt(r)).astype(np.float32)
    arrays = {
        "start": rng.standard_normal((d, r)).astype(np.float32),
        "decoder": decoder,
        "anchors": to_bfloat16(A),
        "codes": np.packbits(np.pad(B > 0, ((0, 0), (0, -r % 64))), axis=1, bitorder="little").view(np.uint64),
        "log_z": np.log(np.exp(p @ B.T).sum(axis=1)).astype(np.float32),
        "sharpness": rng.uniform(0.01, 0.1, m).astype(np.float32),
        "log_p": rng.uniform(0, 1, m).astype(np.float32),
        "far": (p.T @ p / m).astype(np.float32),
    }
    numbers = {"norm": float(d), "equal_norms": 0.3 / d, "offset": -1.0, "scale": 0.1, "rho": 0.01}
    return weights, arrays, numbers | {"n_near": 7, "n_candidates": 20, "by_decoder": 0}


def is_lowest(loss, b, tolerance=1e-4):
    """Whether no single flip lowers the loss by more than rounding does."""
    here = loss(b)
    for j in range(len(b)):
        other = b.copy()
        other[j] *= -1
        if loss(other) < here - tolerance * max(1, abs(here)):
            return False
    return True


@pytest.mark.parametrize(("r", "d"), [(1, 1), (3, 5), (17, 16), (33, 70), (64, 31)])
def test_bits_of_equal_norms_are_those_of_the_loss(rng, isa, r, d):
    weights, arrays, numbers = problem(rng, r, d)
    kernels = item_encoder.scores(weights, arrays, numbers)
    X = rng.standard_normal((9, d)).astype(np.float32)
    D = arrays["decoder"].astype(float)
    x_d = project(X, np.ascontiguousarray(arrays["decoder"].T))
    first = np.where(rng.standard_normal((9, r)) >= 0, 1, -1).astype(np.float32)
    for sweeps in (0, 1, 50):
        found = [first.copy(), first.copy()]
        for n_threads, B in zip((1, 3), found):
            kernels.start(B, x_d, sweeps, n_threads)
        np.testing.assert_array_equal(*found)
        assert (np.abs(found[0]) == 1).all()
        for x, b, before in zip(X, found[0], first):

            def loss(b, x=x):
                return reference.start_loss(b, x, D, numbers["norm"], numbers["equal_norms"] * numbers["norm"])

            if sweeps == 0:
                np.testing.assert_array_equal(b, before)
            assert loss(b) <= loss(before) + 1e-4 * abs(loss(before))
            if sweeps == 50:
                assert is_lowest(loss, b.astype(float))


@pytest.mark.parametrize(("r", "d", "k"), [(1, 1, 1), (3, 5, 7), (17, 16, 16), (33, 70, 40), (64, 31, 33), (65, 8, 0)])
@pytest.mark.parametrize("by_decoder", [0, 1])
def test_bits_of_scores_are_those_of_the_items_share_of_the_objective(rng, isa, r, d, k, by_decoder):
    weights, arrays, numbers = problem(rng, r, d)
    numbers["by_decoder"] = by_decoder
    rebuilds = np.ascontiguousarray(arrays["decoder"].T) if by_decoder else weights
    kernels = item_encoder.scores(weights, arrays, numbers)
    X = rng.standard_normal((9, d)).astype(np.float32)
    R = rebuilds.T.astype(float)
    p = from_bfloat16(arrays["anchors"]).astype(float) @ weights
    near = np.array([rng.permutation(40)[:k] for _ in X], np.int32).reshape(9, k)
    share = rng.uniform(0, 0.3, (9, k)).astype(np.float32)
    first = np.where(rng.standard_normal((9, r)) >= 0, 1, -1).astype(np.float32)
    for sweeps in (0, 1, 50):
        found = [first.copy(), first.copy()]
        for n_threads, B in zip((1, 3), found):
            kernels.refine(B, project(X, rebuilds), near, share, sweeps, n_threads)
        np.testing.assert_array_equal(*found)
        assert (np.abs(found[0]) == 1).all()
        for x, b, before, of, P in zip(X, found[0], first, near, share):

            def loss(b, x=x, of=of, P=P):
                return reference.share_of_J0(
                    b, p[of], arrays["log_z"][of].astype(float), P, arrays["far"], -1.0, 0.1, x, R, 0.01
                )

            if sweeps == 0:
                np.testing.assert_array_equal(b, before)
            assert loss(b) <= loss(before) + 1e-4 * abs(loss(before))
            if sweeps == 50:
                assert is_lowest(loss, b.astype(float))


@pytest.mark.parametrize("k", [1, 7, 30, 100])
def test_items_are_encoded_by_the_nearest_of_their_candidates(rng, isa, k):
    """The whole of it, step by step in numpy; the kernels that descend are tested above."""
    r, d = 20, 19
    weights, arrays, numbers = problem(rng, r, d)
    kernels = item_encoder.scores(weights, arrays, numbers)
    A = from_bfloat16(arrays["anchors"]).astype(float)
    X = rng.standard_normal((30, d)).astype(np.float32)
    X[3] = A[5]  # an anchor is no neighbour of itself
    candidates = np.array([rng.permutation(40)[:30] for _ in X])
    candidates[:, -2:] = -1
    candidates[3, 0] = 5
    candidates[4] = -1
    maps = project(X, np.concatenate([arrays["start"], arrays["decoder"].T, weights], axis=1))
    codes = np.empty((30, 1), np.uint64)
    kernels.encode(X, maps, candidates, k, 3, 3, codes, 2)
    B = np.where(maps[:, :r] >= 0, np.float32(1), np.float32(-1))
    kernels.start(B, np.ascontiguousarray(maps[:, r : 2 * r]), 3, 1)
    for i, x in enumerate(X):
        of = candidates[i][candidates[i] >= 0]
        d2 = ((A[of] - x) ** 2).sum(axis=1)
        of, d2 = of[d2 > 1e-5 * (x**2).sum()], d2[d2 > 1e-5 * (x**2).sum()]
        assert i != 3 or 5 not in of
        chosen = np.sort(np.argsort(d2)[:k])  # in the candidates' order
        of, d2 = of[chosen], d2[chosen]
        share = np.exp(np.minimum(-arrays["sharpness"][of] * d2 / 2 - arrays["log_p"][of], 0)).astype(np.float32)
        kernels.refine(
            B[i : i + 1], np.ascontiguousarray(maps[i : i + 1, 2 * r :]), of[None].astype(np.int32), share[None], 3, 1
        )
    assert (unpack_codes(codes, r) == (B > 0)).mean() > 0.99  # sums of other orders may turn a bit


@pytest.mark.parametrize(
    ("r", "d", "k", "c"),
    [(1, 1, 1, 1), (3, 5, 7, 9), (17, 16, 16, 40), (33, 70, 40, 33), (64, 31, 20, 40), (130, 9, 5, 31)],
)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_weights_of_queries_move_down_the_gradient(rng, isa, r, d, k, c, steps):
    weights, arrays, numbers = problem(rng, r, d)
    kernels = item_encoder.scores(weights, arrays, numbers)
    A = from_bfloat16(arrays["anchors"]).astype(float)
    B = unpack_codes(arrays["codes"], r) * 2.0 - 1
    X = rng.standard_normal((9, d)).astype(np.float32)
    X[3] = A[5]  # a query may be an anchor, which is near it then
    candidates = np.array([rng.permutation(40)[:c] for _ in X])
    candidates[0, 1::2] = -1
    candidates[1] = -1
    p = project(X, weights)
    found = [p.copy(), p.copy()]
    for n_threads, moved in zip((1, 3), found):
        kernels.move_queries(X, arrays["codes"], candidates, k, k / 2, 0.3, steps, moved, n_threads)
    np.testing.assert_array_equal(*found)
    for x, before, after, of in zip(X, p, found[0], candidates):
        of = of[of >= 0]
        expected = before
        if len(of):
            expected = reference.moved_query(before.astype(float), x, A[of], B[of], k, k / 2, 0.3, steps)
        np.testing.assert_allclose(after, expected, rtol=1e-3, atol=2e-3)
    if steps and r > 1 and c > 1:
        assert (np.abs(found[0] - p).max(axis=1) > 0.01)[2:].all()


def test_weights_move_towards_copies_at_one_place(rng, isa):
    """Anchors at one distance share P alike, also where that distance is 0."""
    weights, arrays, numbers = problem(rng, 20, 6)
    arrays["anchors"][:] = arrays["anchors"][0]
    kernels = item_encoder.scores(weights, arrays, numbers)
    x = from_bfloat16(arrays["anchors"][:1])
    B = unpack_codes(arrays["codes"], 20) * 2.0 - 1
    for X in (x, x + 1):
        p = np.zeros((1, 20), np.float32)
        kernels.move_queries(X, arrays["codes"], np.arange(40)[None], 10, 5.0, 0.5, 1, p, 1)
        np.testing.assert_allclose(p[0], 0.5 * (B[:10].mean(axis=0) - B.mean(axis=0)), atol=1e-5)


def test_kernels_refuse_what_does_not_fit(rng):
    weights, arrays, numbers = problem(rng, 20, 19)
    kernels = item_encoder.scores(weights, arrays, numbers)
    B, x_v = np.ones((2, 20), np.float32), np.ones((2, 20), np.float32)
    near, share = np.zeros((2, 3), np.int32), np.zeros((2, 3), np.float32)
    kernels.refine(B, x_v, near, share, 1, 1)
    for bad in ((B[:, :-1].copy(), x_v, near, share), (B, x_v[:1], near, share), (B, x_v, near + 40, share)):
        with pytest.raises(ValueError, match="must be"):
            kernels.refine(*bad, 1, 1)
    X, maps, codes = np.ones((2, 19), np.float32), np.ones((2, 60), np.float32), np.empty((2, 1), np.uint64)
    candidates = np.zeros((2, 4), np.int64)
    for bad in ((X, maps[:, :-1].copy(), candidates), (X, maps, candidates - 2), (X, maps, candidates + 40)):
        with pytest.raises(ValueError, match="must be"):
            kernels.encode(*bad, 3, 1, 1, codes, 1)
    p, of = np.ones((2, 20), np.float32), arrays["codes"]
    for bad in (
        (X[:, :-1].copy(), of, candidates, 3), (X, of[1:], candidates, 3), (X, of, candidates + 40, 3),
        (X, of, candidates - 2, 3), (X, of, candidates[:1], 3), (X, of, candidates, 0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must be"):
            kernels.move_queries(*bad, 1.0, 0.1, 1, p, 1)
    kernels.move_queries(X, of, candidates[:, :0], 3, 1.0, 0.1, 1, p, 1)
    assert (p == 1).all()  # nothing to move towards
    with pytest.raises(ValueError, match="must be"):
        _bits.Scores({"anchors": np.zeros((2, 3), np.uint16), **dict.fromkeys(
            ("p", "gram_d", "gram_v", "far"), np.zeros((2, 2), np.float32)), **dict.fromkeys(
            ("norms", "log_z", "sharpness", "log_p"), np.zeros(2, np.float32))}, 1, 1, 1, 1, 1)  # fmt: skip


def test_bfloat16(rng):
    x = np.concatenate([rng.standard_normal(1000), [0, 1, -1, 2.0**-100, 1.5 * 2**20]]).astype(np.float32)
    back = from_bfloat16(to_bfloat16(x))
    np.testing.assert_allclose(back, x, rtol=2**-8)
    np.testing.assert_array_equal(to_bfloat16(back), to_bfloat16(x))
    assert from_bfloat16(to_bfloat16(np.float32([1 + 2**-8, 1 + 3 * 2**-8]))).tolist() == [1, 1 + 2**-6]  # to even


@pytest.mark.parametrize("tile", [3, 50, 4096])
def test_softmax(rng, monkeypatch, tile):
    monkeypatch.setattr(scores, "_TILE", tile)
    p, B = 3 * rng.standard_normal((5, 12)), np.sign(rng.standard_normal((40, 12)))
    own = np.array([0, 39, 7, 7, 12])
    mean = np.empty(p.shape, np.float32)
    log_z = scores._softmax(p.astype(np.float32), B.astype(np.float32), own, mean)
    np.testing.assert_array_equal(scores._softmax(p.astype(np.float32), B.astype(np.float32), own), log_z)
    for i in range(5):
        others = np.delete(B, own[i], axis=0)
        Q = reference.softmax_Q(p[i : i + 1], others)
        np.testing.assert_allclose(log_z[i], np.log(np.exp(p[i] @ others.T).sum()), rtol=1e-5)
        np.testing.assert_allclose(mean[i], (Q @ others)[0], atol=1e-5)


def fit_of(rng, m=60, d=9, r=6, k=8):
    A = rng.standard_normal((m, d)).astype(np.float32)
    settings = Recipe.preset("scores").replace(n_neighbors=k)
    return scores._Fit(A, settings, np.random.RandomState(0), 2, lambda *a: None)


def test_P_has_the_perplexity_and_leaves_the_anchor_out(rng):
    fit = fit_of(rng)
    d2 = ((fit.A[:, None].astype(float) - fit.A[None]) ** 2).sum(-1)
    np.fill_diagonal(d2, np.inf)
    np.testing.assert_array_equal(fit.near, np.argsort(d2, axis=1)[:, :8])
    near = np.take_along_axis(d2, fit.near, axis=1)
    P, perplexity = reference.perplexity_P(near, fit.sharpness.astype(float))
    np.testing.assert_allclose(perplexity, 2, rtol=1e-3)
    np.testing.assert_allclose(fit.P, P, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(np.exp(-fit.sharpness[:, None] / 2 * near - fit.log_p[:, None]), P, rtol=1e-3, atol=1e-6)


def test_copies_of_an_anchor_do_not_push_it_out_of_its_place():
    A = np.repeat(np.arange(4, dtype=np.float32)[:, None], 20, axis=0) * np.ones(3, np.float32)
    near, d2 = scores._neighbors(A, 5, 1)
    assert (near != np.arange(len(A))[:, None]).all() and (d2 == 0).all()


def test_the_gradient_is_that_of_finite_differences(rng):
    fit = fit_of(rng)
    B = np.where(rng.standard_normal((60, 6)) >= 0, 1, -1).astype(np.float32)
    p = rng.standard_normal((60, 6))

    def J0(p):  # of all anchors, with Q over all items but their own
        total = 0
        for i in range(60):
            score = p[i] @ B.T.astype(float)
            score[i] = -np.inf
            log_q = score - np.log(np.exp(score).sum())
            P = fit.P[i].astype(float)
            total += (P * (np.log(np.maximum(P, 1e-30)) - log_q[fit.near[i]])).sum()
        return total

    loss, away = fit._pass(np.arange(60), p.astype(np.float32), B)
    np.testing.assert_allclose(loss * 60, J0(p), rtol=1e-4)
    for i, f in ((0, 0), (17, 3), (59, 5)):
        step = np.zeros_like(p)
        step[i, f] = 1e-5
        np.testing.assert_allclose(away[i, f], (J0(p + step) - J0(p - step)) / 2e-5, rtol=1e-3, atol=1e-4)


# -- what users see --------------------------------------------------------------------------------------------------


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
