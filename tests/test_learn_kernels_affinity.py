"""The passes over all pairs of anchors and items against the formulas in float64, and against finite differences."""

import copy

import numpy as np
import pytest
import reference

from aphash._learning import _affinity_pass

pytestmark = pytest.mark.usefixtures("isa")
THREADS = (2, 3, 7)
POWERS = ((1, 1), (4, 2), (8, 4), (16, 8), (3, 1.5))  # (q_scale, q_power)
R = (1, 7, 8, 16, 63, 64, 65, 128, 256)


class Problem:
    """Random H (m, r), B (n, r) and pairs: item j has about a tenth of the anchors, item 0 all and item 1 none."""

    def __init__(self, rng, n, m, r):
        self.H = rng.standard_normal((m, r)).astype(np.float32)
        self.B = rng.standard_normal((n, r)).astype(np.float32)
        self.B[:: max(1, n // 3)] = self.H[0]  # g = 0
        mask = rng.random((m, n)) < 0.1
        mask[:, 0] = True
        if n > 1:
            mask[:, 1] = False
        self.mask = mask
        self.indptr = np.concatenate([[0], np.cumsum(mask.sum(axis=0))])
        lists = [rng.permutation(np.flatnonzero(mask[:, j])) for j in range(n)]
        self.anchors = np.concatenate(lists).astype(np.int32)
        self.inv_z = (rng.random(m) / n).astype(np.float32)
        self.p = (rng.random(m) / n).astype(np.float32)

    def items(self, start, stop):
        """The same with some of the items."""
        part = copy.copy(self)
        part.B, part.indptr = self.B[start:stop], self.indptr[start : stop + 1] - self.indptr[start]
        part.anchors = self.anchors[self.indptr[start] : self.indptr[min(stop, len(self.B))]]
        return part

    def sums(self, s, a):
        """What anchor_pass returns, in float64."""
        H, B = self.H.astype(np.float64), self.B.astype(np.float64)
        near = reference.V(H, B, s)
        w, of_p = near**a, near * self.mask
        sums = [w.sum(axis=1), (w * near).sum(axis=1), of_p.sum(axis=1), -(np.log(near) * self.mask).sum(axis=1)]
        return np.array(sums), np.array([(w * near) @ B, of_p @ B]), ((np.abs(B) - 1) ** 2).sum()

    def gradient(self, s, a, factor, quantization_loss):
        H, B = self.H.astype(np.float64), self.B.astype(np.float64)
        near = reference.V(H, B, s)
        A = (self.p[:, None] * self.mask - near**a * self.inv_z[:, None]) * near
        kl = factor * a / (2 * s) * (A.sum(axis=0)[:, None] * B - A.T @ H)
        return kl + quantization_loss * (np.abs(B) - 1) * reference.sign(B)

    def anchor_pass(self, s, a, block_rows=512, n_threads=1):
        m, r = self.H.shape
        out = np.full((4, m), np.nan), np.full((2, m, r), np.nan), np.full(1, np.nan)
        _affinity_pass.anchor_pass(self.B, self.H, s, a, self.indptr, self.anchors, block_rows, *out, n_threads)
        return out

    def item_gradient(self, s, a, factor=1.0, quantization_loss=0.0, block_rows=512, n_threads=1):
        out = np.full_like(self.B, np.nan)
        _affinity_pass.item_gradient(
            self.B, self.H, self.inv_z, self.p, s, a, self.indptr, self.anchors, block_rows, factor, quantization_loss,
            out, n_threads,
        )  # fmt: skip
        return out


def assert_close(got, want, tolerance):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * (np.abs(want).max() + 1))


@pytest.mark.parametrize("r", R)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (300, 7), (257, 50), (70, 300), (515, 97)])
def test_anchor_pass(rng, n, m, r):
    problem = Problem(rng, n, m, r)
    for s, a in POWERS:
        sums, vectors, quantization_loss = problem.anchor_pass(s, a)
        want_sums, want_vectors, want_penalty = problem.sums(s, a)
        for got, want in zip(sums, want_sums, strict=True):
            assert_close(got, want, 2e-5)
        for got, want in zip(vectors, want_vectors, strict=True):
            assert_close(got, want, 2e-5)
        assert quantization_loss[0] == pytest.approx(want_penalty, rel=1e-6)


@pytest.mark.parametrize("r", (3, 16))
@pytest.mark.parametrize("n", [1023, 1024, 1025, 2100])
def test_anchor_pass_over_several_spans_of_a_block(rng, n, r):
    problem = Problem(rng, n, 11, r)
    sums, vectors, _ = problem.anchor_pass(2, 2, 4096)
    want_sums, want_vectors, _ = problem.sums(2, 2)
    for got, want in zip([*sums, *vectors], [*want_sums, *want_vectors], strict=True):
        assert_close(got, want, 2e-5)


@pytest.mark.parametrize("r", R)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (300, 7), (47, 256), (49, 257), (97, 515)])
def test_item_gradient(rng, n, m, r):
    problem = Problem(rng, n, m, r)
    for s, a in POWERS:
        got = problem.item_gradient(s, a, 3.0, 0.25)
        assert_close(got, problem.gradient(s, a, 3.0, 0.25), 2e-5)


@pytest.mark.parametrize(("s", "a"), POWERS)
@pytest.mark.parametrize("n_blocks", [1, 2, 3, 8, 11, 12])
def test_anchor_pass_adds_blocks_in_a_tree_whatever_the_threads(rng, s, a, n_blocks):
    problem = Problem(rng, 100 * n_blocks - 7, 61, 17)
    once = problem.anchor_pass(s, a, 100)
    for n_threads in THREADS:
        for got, want in zip(problem.anchor_pass(s, a, 100, n_threads), once, strict=True):
            np.testing.assert_array_equal(got, want)
    for size in (1, 2, 4):  # blocks that come together: a node of the tree
        parts = [
            problem.items(at, at + 100 * size).anchor_pass(s, a, 100) for at in range(0, len(problem.B), 100 * size)
        ]
        for got, want in zip(tree_sum(parts), once, strict=True):
            np.testing.assert_array_equal(got, want)


def tree_sum(parts):
    """The halves of 2^t parts, 2^t < len(parts) <= 2^(t+1), added in the precision that anchor_pass has for each."""
    if len(parts) == 1:
        return parts[0]
    half = 1 << (len(parts) - 1).bit_length() - 1
    (sums, vectors, quantization_loss), (more, other, also) = tree_sum(parts[:half]), tree_sum(parts[half:])
    return sums + more, (vectors + other).astype(np.float32), quantization_loss + also


@pytest.mark.parametrize(("s", "a"), POWERS)
def test_item_gradient_does_not_depend_on_blocks_threads_or_place(rng, s, a):
    problem = Problem(rng, 333, 301, 33)
    once = problem.item_gradient(s, a)
    for n_threads in THREADS:
        for block_rows in (1, 47, 48, 100, 1000):
            np.testing.assert_array_equal(problem.item_gradient(s, a, 1.0, 0.0, block_rows, n_threads), once)
    for j in (0, 1, 5, 6, 100, 332):
        start, stop = problem.indptr[j], problem.indptr[j + 1]
        one = np.empty((1, 33), np.float32)
        _affinity_pass.item_gradient(
            problem.B[j : j + 1], problem.H, problem.inv_z, problem.p, s, a, problem.indptr[j : j + 2] - start,
            problem.anchors[start:stop], 1, 1.0, 0.0, one, 1,
        )  # fmt: skip
        np.testing.assert_array_equal(one[0], once[j])


def test_sign_of_zero_is_plus_one(rng):
    problem = Problem(rng, 10, 3, 8)
    problem.B[3] = 0.0
    problem.B[4] = -0.0
    problem.p[:] = problem.inv_z[:] = 0
    np.testing.assert_array_equal(problem.item_gradient(1, 1, 1.0, 0.5)[3:5], np.full((2, 8), -0.5, np.float32))


@pytest.mark.parametrize(("s", "a"), POWERS)
def test_gradients_are_the_slopes_of_the_objective(rng, s, a):
    problem = Problem(rng, 40, 12, 8)
    n, m = 40, 12
    P = problem.mask / problem.mask.sum(axis=1, keepdims=True)
    H, B = problem.H.astype(np.float64), problem.B.astype(np.float64)
    sums, vectors, _ = problem.anchor_pass(s, a)
    z = sums[0]
    p = 1 / problem.mask.sum(axis=1)
    problem.inv_z, problem.p = (1 / z).astype(np.float32), p.astype(np.float32)
    rowsum = p * sums[2] - sums[1] / z
    dH = a / (2 * s) * (rowsum[:, None] * H - (p[:, None] * vectors[1] - vectors[0] / z[:, None]))
    dB = problem.item_gradient(s, a, n / m) * (m / n)
    objective = reference.J0(P, H, B, s, a)
    log_n = (np.log(p) + np.log(z) + a * sums[3] * p).sum()  # sum_i log p_i + log Z_i + a mean_P log(1 + g/s)
    assert log_n == pytest.approx(objective, rel=1e-5)
    step = 1e-5
    for matrix, gradient in ((H, dH), (B, dB)):
        for at in [(0, 0), (1, 7), (5, 3), (11, 2)]:
            kept = matrix[at]
            matrix[at] = kept + step
            high = reference.J0(P, H, B, s, a)
            matrix[at] = kept - step
            low = reference.J0(P, H, B, s, a)
            matrix[at] = kept
            assert gradient[at] == pytest.approx((high - low) / (2 * step), abs=1e-5)


@pytest.mark.parametrize("r", [1, 16, 65])
def test_item_pass_is_adam(rng, r):
    problem = Problem(rng, 130, 61, r)
    B = problem.B.astype(np.float64)
    M1, M2 = rng.standard_normal((2, 130, r)) / 100
    M2 = M2**2
    first, second = M1.astype(np.float32), M2.astype(np.float32)
    lr, b1, b2, c1, c2, eps = 0.05, 0.9, 0.999, 1 - 0.9**3, 1 - 0.999**3, 1e-8
    gradient = problem.gradient(4, 2, 3.0, 0.25)
    M1 = b1 * M1 + (1 - b1) * gradient
    M2 = b2 * M2 + (1 - b2) * gradient**2
    B -= lr * (M1 / c1) / (np.sqrt(M2 / c2) + eps)
    start = problem.B.copy()
    results = []
    for block_rows, n_threads in ((512, 1), (50, 1), (48, 2), (7, 3), (1, 7)):
        out, one, two = start.copy(), first.copy(), second.copy()
        _affinity_pass.item_pass(
            out, one, two, problem.H, problem.inv_z, problem.p, 4, 2, problem.indptr, problem.anchors, block_rows,
            (3.0, 0.25, lr, b1, b2, c1, c2, eps), n_threads,
        )  # fmt: skip
        np.testing.assert_allclose(out, B, atol=2e-6)
        np.testing.assert_allclose(one, M1, atol=1e-6)
        np.testing.assert_allclose(two, M2, atol=1e-6)
        results.append((out, one, two))
    for result in results:
        for got, want in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(got, want)


def test_no_pairs_and_no_items(rng):
    problem = Problem(rng, 20, 5, 8)
    problem.mask[:] = False
    problem.indptr, problem.anchors = np.zeros(21, np.int64), np.zeros(0, np.int32)
    sums, vectors, _ = problem.anchor_pass(1, 1)
    assert not sums[2:].any() and not vectors[1].any()
    assert_close(problem.item_gradient(1, 1), problem.gradient(1, 1, 1.0, 0.0), 2e-5)
    problem.B, problem.indptr = problem.B[:0], np.zeros(1, np.int64)
    sums, vectors, quantization_loss = problem.anchor_pass(1, 1)
    assert not sums.any() and not vectors.any() and not quantization_loss.any()
    assert problem.item_gradient(1, 1).shape == (0, 8)


def test_long_codes(rng):
    problem = Problem(rng, 30, 9, 5000)
    for s, a in ((1, 1), (625, 4)):
        sums, vectors, _ = problem.anchor_pass(s, a)
        want_sums, want_vectors, _ = problem.sums(s, a)
        assert_close(sums, want_sums, 2e-4)
        assert_close(vectors, want_vectors, 2e-4)


@pytest.mark.parametrize("a", [0.01, 0.5, 1.0001, 3, 40])
@pytest.mark.parametrize("size", [1e-3, 1, 30, 1e4, 1e15])
def test_any_power(rng, a, size):
    """Items 1 .. 5 alone, at distances of many magnitudes, so that no large weight hides a wrong small one."""
    H, B = np.zeros((1, 3), np.float32), (rng.standard_normal((5, 3)) * size).astype(np.float32)
    for j in range(5):
        sums, vectors, quantization_loss = np.empty((4, 1)), np.empty((2, 1, 3)), np.empty(1)
        indptr, anchors = np.zeros(2, np.int64), np.zeros(0, np.int32)
        _affinity_pass.anchor_pass(B[j : j + 1], H, 2.0, a, indptr, anchors, 1, sums, vectors, quantization_loss, 1)
        near = reference.V(H.astype(np.float64), B[j : j + 1].astype(np.float64), 2.0)[0, 0]
        np.testing.assert_allclose(
            sums[:2, 0], [near**a, near ** (a + 1)], rtol=1e-6 * (1 + a - a * np.log(near)), atol=2e-38
        )


def test_logs_of_many_far_pairs_do_not_underflow(rng):
    H, B = np.zeros((1, 2), np.float32), np.full((300, 2), 1e17, np.float32)
    sums, vectors, quantization_loss = np.empty((4, 1)), np.empty((2, 1, 2)), np.empty(1)
    indptr, anchors = np.arange(301), np.zeros(300, np.int32)
    _affinity_pass.anchor_pass(B, H, 1.0, 1.0, indptr, anchors, 300, sums, vectors, quantization_loss, 1)
    assert sums[3, 0] == pytest.approx(300 * np.log(5e33), rel=1e-6)


def test_far_codes_underflow_to_no_weight(rng):
    problem = Problem(rng, 30, 9, 4)
    problem.B[5] *= 1e18
    sums, vectors, _ = problem.anchor_pass(1, 8)
    assert np.isfinite(sums).all() and np.isfinite(vectors).all()
