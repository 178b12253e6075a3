import numpy as np
import pytest
import reference
from sklearn.decomposition import PCA

from aphash._learning import linear
from aphash._learning.training_data import Rows


@pytest.fixture
def problem(rng):
    X = rng.standard_normal((200, 7)) * np.arange(1, 8) + 0.5
    T = np.where(X @ rng.standard_normal((7, 4)) + rng.standard_normal((200, 4)) >= 0, 1.0, -1.0)
    return X, T


def sums(X, T):
    return X.T @ T, T.sum(axis=0), (T**2).sum()


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 1.0, 30.0])
def test_ridge(problem, ridge):
    X, T = problem
    W, b = linear.Ridge(X.T @ X, X.sum(axis=0), len(X), ridge).solve(*sums(X, T))
    trace = (X**2).sum() + len(X)
    expected_W, expected_b = reference.ridge(X, T, ridge * trace / 8)
    np.testing.assert_allclose(W, expected_W, rtol=1e-9)
    np.testing.assert_allclose(b, expected_b, rtol=1e-9)


def test_ridge_of_zero_with_dependent_columns_is_refused(problem):
    X, _ = problem
    X = np.hstack([X, X])
    with pytest.raises(ValueError, match=r"ridge=0.*larger ridge"):
        linear.Ridge(X.T @ X, X.sum(axis=0), len(X), 0)


def test_gcv_is_the_best_share_by_its_definition(problem):
    X, T = problem
    X1 = np.hstack([X, np.ones((len(X), 1))])
    unit = np.trace(X1.T @ X1) / 8
    scores = []
    for share in linear.Ridge.SHARES:
        hat = X1 @ np.linalg.solve(X1.T @ X1 + share * unit * np.eye(8), X1.T)
        scores.append(((T - hat @ T) ** 2).sum() / (1 - np.trace(hat) / len(X)) ** 2)
    best = linear.Ridge.SHARES[np.argmin(scores)]
    assert linear.Ridge.SHARES[0] < best < linear.Ridge.SHARES[-1]
    W, b = linear.Ridge(X.T @ X, X.sum(axis=0), len(X), "gcv").solve(*sums(X, T))
    expected_W, expected_b = reference.ridge(X, T, best * unit)
    np.testing.assert_allclose(W, expected_W, rtol=1e-8)
    np.testing.assert_allclose(b, expected_b, rtol=1e-8)


def test_iterative_ridge_agrees_with_cholesky(rng):
    rows = Rows(rng.standard_normal((300, 40)) * np.linspace(0.1, 3, 40), None, 1)
    T = rng.standard_normal((300, 5))
    x = rows.working(slice(0, 300)).astype(float)
    direct = linear.Ridge(rows.gram(), np.zeros(40), 300, 1e-2).solve(*sums(x, T))
    iterative = linear.IterativeRidge(rows, 1e-2).solve(*sums(x, T))
    np.testing.assert_allclose(iterative[0], direct[0], rtol=1e-3, atol=1e-4 * np.abs(direct[0]).max())
    np.testing.assert_allclose(iterative[1], direct[1], rtol=1e-6)


@pytest.mark.parametrize("exact", [True, False])
def test_principal_directions(rng, exact):
    X = rng.standard_normal((500, 30)) * np.linspace(10, 0.1, 30)
    rows = Rows(X, None, 1)
    found = linear.principal_directions(rows, rows.gram() if exact else None, 8, np.random.RandomState(0))
    wanted = PCA(8).fit(X).components_.T
    assert found.shape == (30, 8)
    np.testing.assert_allclose(np.abs((found * wanted).sum(axis=0)), 1, atol=1e-4)
    np.testing.assert_allclose(found.T @ found, np.eye(8), atol=1e-6)


@pytest.mark.parametrize("exact", [True, False])
def test_principal_directions_end_at_the_rank(rng, exact):
    X = rng.standard_normal((100, 3)) @ rng.standard_normal((3, 10))
    rows = Rows(X, None, 1)
    found = linear.principal_directions(rows, rows.gram() if exact else None, 8, np.random.RandomState(0))
    assert found.shape == (10, 3)


@pytest.mark.parametrize(("p", "r"), [(1, 1), (3, 8), (8, 3), (8, 8)])
def test_random_orthonormal(p, r):
    projection = linear.random_orthonormal(p, r, np.random.RandomState(0))
    assert projection.shape == (p, r)
    product = projection @ projection.T if p <= r else projection.T @ projection
    np.testing.assert_allclose(product, np.eye(min(p, r)), atol=1e-12)


@pytest.mark.parametrize(("p", "r"), [(16, 16), (5, 16)])
def test_itq_comes_nearer_to_signs_and_stays_orthonormal(rng, p, r):
    V = (rng.standard_normal((400, p)) * np.linspace(2, 0.2, p)).astype(np.float32)
    before = linear.random_orthonormal(p, r, np.random.RandomState(0)).astype(np.float32)
    after = linear.itq_rotation(V, before, 30)

    def loss(projection):
        return ((reference.sign(V @ projection) - V @ projection) ** 2).sum()

    assert loss(after) < 0.99 * loss(before)
    np.testing.assert_allclose(after @ after.T, np.eye(p), atol=1e-4)


@pytest.mark.parametrize("start", ["random", "identity"])
@pytest.mark.parametrize("r", [1, 7, 1025])
def test_rotation_leaves_J0_and_distances_alone(rng, start, r):
    B = rng.standard_normal((80, r)).astype(np.float32)
    H = B[:10].copy()
    rotation = linear.Rotation(B - B.mean(axis=0), start, 5, np.random.RandomState(0))
    P = np.full((10, 80), 1 / 80)
    before = reference.J0(P, H.astype(float), B.astype(float), 2, 4)
    after = reference.J0(P, rotation(H).astype(float), rotation(B).astype(float), 2, 4)
    np.testing.assert_allclose(after, before, rtol=1e-4)
    assert len(rotation.parts) == (5 if r == 1025 else 1)
    assert r == 1 or not np.allclose(rotation(B), B)
