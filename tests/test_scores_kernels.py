"""Modes "scores" and "semantic-scores": kernels and the learner's sums against the formulas in float64."""

import numpy as np
import pytest
import reference

from aphash import Recipe, unpack_codes
from aphash._learning import _bits, item_encoder, scores
from aphash._learning.item_encoder import from_bfloat16, project, to_bfloat16


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
