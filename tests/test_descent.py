import numpy as np
import pytest
import reference
from scipy import sparse

from aphash._learning.affinity import Affinity
from aphash._learning.descent import Descent
from aphash._learning.recipe import Settings
from aphash._learning.training_data import Rows

POWERS = [(1, 1), (4, 2), (8, 4), (16, 8), (3, 1.5)]


def settings(**given):
    values = {
        "n_bits": 6, "n_anchors": 12, "n_neighbors": 5, "q_scale": 1.0, "q_power": 1.0, "quantization": 0.3,
        "ridge": 1e-2, "last_ridge": 1e-2, "whitening": 0.0,
        "n_rounds": 1, "max_iter": 10, "learning_rate": 0.05, "init": "itq", "rotation": "none",
        "hash_target": "sign", "fit_hash": "all", "updates": "together", "resample_anchors": True, "tol": 0.0,
    }  # fmt: skip
    return Settings(**{**values, **given})


@pytest.fixture
def problem(rng):
    """P (12, 90) dense, H (12, 6) and B (90, 6)."""
    B = rng.standard_normal((90, 6)).astype(np.float32)
    H = rng.standard_normal((12, 6)).astype(np.float32)
    P = rng.random((12, 90)) < 0.2
    P[:, 0] = True
    return P / P.sum(axis=1, keepdims=True), H, B


def descent(problem, given):
    P, H, B = problem
    rows = Rows(np.random.default_rng(1).standard_normal((len(B), 3)), None, 2)
    rows.B = B.copy()
    by_item = sparse.csc_array(P)
    affinity = Affinity(
        (P > 0).sum(axis=1).astype(np.int64), by_item.indptr.astype(np.int64), by_item.indices.astype(np.int32)
    )
    return Descent(rows, affinity, H.copy(), given)


def numeric(function, Z, step=1e-5):
    """The central difference of function in every element of Z."""
    G = np.empty(Z.shape)
    for where in np.ndindex(Z.shape):
        up, down = Z.copy(), Z.copy()
        up[where] += step
        down[where] -= step
        G[where] = (function(up) - function(down)) / (2 * step)
    return G


def relative(got, wanted):
    return np.abs(got - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize(("s", "a"), POWERS)
def test_reference_gradients_are_the_finite_differences(problem, s, a):
    P, H, B = problem
    H, B = H.astype(float), B.astype(float)
    dH, dB = reference.J0_gradients(P, H, B, s, a)
    assert relative(dH, numeric(lambda Z: reference.J0(P, Z, B, s, a), H)) < 1e-6
    assert relative(dB, numeric(lambda Z: reference.J0(P, H, Z, s, a), B)) < 1e-6
    dH, dB = reference.J1_gradients(H, B)
    assert relative(dH, numeric(lambda Z: reference.J1(Z, B), H)) < 1e-6
    assert relative(dB, numeric(lambda Z: reference.J1(H, Z), B)) < 1e-6


@pytest.mark.parametrize(("s", "a"), POWERS)
def test_objective_and_gradient_of_H(problem, s, a):
    P, H, B = problem
    d = descent(problem, settings(q_scale=s, q_power=a))
    J0, J1 = d.objective()
    np.testing.assert_allclose(J0, reference.J0(P, H.astype(float), B.astype(float), s, a), rtol=1e-5)
    np.testing.assert_allclose(J1, reference.J1(H.astype(float), B.astype(float)), rtol=1e-5)
    wanted = reference.J0_gradients(P, H.astype(float), B.astype(float), s, a)[0]
    wanted = wanted + 0.3 * reference.J1_gradients(H.astype(float), B.astype(float))[0]
    assert relative(d.gradient_H(), wanted) < 1e-5


@pytest.mark.parametrize("updates", ["together", "alternating"])
@pytest.mark.parametrize(("s", "a"), POWERS)
def test_steps_follow_adam(problem, updates, s, a):
    P, H, B = problem
    d = descent(problem, settings(q_scale=s, q_power=a, max_iter=4, updates=updates, quantization=2.0))
    d.run(lambda *_: None)
    n, m = len(B), len(H)
    Hs, Bs = H.astype(float), B.astype(float)
    gH, gB = [], []
    rates = [0.05 * (0.02 + 0.98 * (1 + np.cos(np.pi * t / 4)) / 2) for t in range(4)]
    for t in range(1, 5):
        gH.append(reference.J0_gradients(P, Hs, Bs, s, a)[0] + 2 * reference.J1_gradients(Hs, Bs)[0])
        moved = reference.adam(H, gH, rates[:t])
        at = moved if updates == "alternating" else Hs
        gB.append((reference.J0_gradients(P, at, Bs, s, a)[1] + 2 * reference.J1_gradients(Hs, Bs)[1]) * n / m)
        Hs, Bs = moved, reference.adam(B, gB, rates[:t])
    np.testing.assert_allclose(d.H, Hs, atol=2e-4)
    np.testing.assert_allclose(d.rows.B, Bs, atol=2e-4)
    assert np.abs(d.rows.B - B).max() > 0.05


@pytest.mark.parametrize("updates", ["together", "alternating"])
def test_the_objective_falls(problem, updates):
    seen = []
    d = descent(problem, settings(max_iter=60, updates=updates))
    assert d.run(lambda t, J0, J1: seen.append(J0 + 0.3 * J1)) == 60
    assert seen[-1] < 0.8 * seen[0]


def test_tol_stops_and_counts(problem):
    seen = []
    d = descent(problem, settings(max_iter=2000, tol=1e-2))
    n_iter = d.run(lambda *each: seen.append(each))
    assert 10 <= n_iter < 2000 and len(seen) == n_iter + 1
    J = [J0 + 0.3 * J1 for _, J0, J1 in seen]
    assert J[-11] - J[-1] < 1e-2 * J[-11]
    assert all(J[i - 10] - J[i] >= 1e-2 * J[i - 10] for i in range(10, len(J) - 1))


def test_a_heavy_quantization_makes_signs(problem):
    d = descent(problem, settings(max_iter=300, quantization=1e4))
    d.run(lambda *_: None)
    assert np.abs(np.abs(d.rows.B) - 1).max() < 0.05 and np.abs(np.abs(d.H) - 1).max() < 0.05
