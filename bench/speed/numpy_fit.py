"""The rounds of APHash as a careful user of numpy writes them: float32, tiles, m x n never held. A peer for the engine.

The draws are those of ``aphash.APHash`` in the same order, so that the two can be compared step by step; rotations and
the Cholesky factorisation are small and come from numpy and scipy on both sides.
"""

import sys
from pathlib import Path

import numpy as np
from scipy import linalg, sparse

sys.path.append(str(Path(__file__).parents[1] / "quality"))
from baselines import itq_rotation, signs

TILE = 4096  # items of a tile: its temporaries stay in the L3 cache

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def nearest(X, A, k):
    """The k nearest rows of X to each row of A: sgemm tiles, argpartition of each tile and what was best before."""
    a2 = (A * A).sum(axis=1)[:, None]
    d2, ids = np.full((len(A), k), np.inf, np.float32), np.full((len(A), k), -1)
    for at in range(0, len(X), TILE):
        part = X[at : at + TILE]
        tile = A @ part.T
        tile *= -2
        tile += a2
        tile += (part * part).sum(axis=1)
        both = np.concatenate([d2, tile], axis=1)
        both_ids = np.concatenate([ids, np.broadcast_to(np.arange(at, at + len(part)), tile.shape)], axis=1)
        best = np.argpartition(both, k - 1, axis=1)[:, :k]
        d2, ids = np.take_along_axis(both, best, axis=1), np.take_along_axis(both_ids, best, axis=1)
    order = np.argsort(d2, axis=1)
    return np.take_along_axis(d2, order, axis=1), np.take_along_axis(ids, order, axis=1)


def affinity(X, A, k):
    """P by items, CSC (m, n) of ones, and the number of items of each anchor."""
    d2, ids = nearest(X, A, k)
    distances = np.sqrt(np.maximum(d2, 0))
    inside = distances <= distances.mean(axis=1, dtype=np.float64)[:, None]
    row, column = np.nonzero(inside)[0], ids[inside]
    P = sparse.csc_array((np.ones(len(row), np.float32), (row, column)), shape=(len(A), len(X)))
    P.sort_indices()
    return P, inside.sum(axis=1)


def similarities(H, B, at, scale, h2):
    """1 / (1 + g/s) of a tile, and the tile."""
    part = B[at : at + TILE]
    x = H @ part.T
    x *= -0.5 / scale
    x += (1 + h2 / (4 * scale))[:, None]
    x += (part * part).sum(axis=1) / (4 * scale)
    return np.divide(1, x, out=x), part


def raised(V, power):
    """V^a as it is needed most: by squarings."""
    if power == 1:
        return V.copy()
    w = V**2 if power in (2, 4) else V**power
    if power == 4:
        w *= w
    return w


def entries_of(P, V, at, n):
    """The entries of a tile of V at P's places, as a CSR matrix (m, n of the tile)."""
    low, high = P.indptr[at], P.indptr[at + n]
    column = np.repeat(np.arange(n), np.diff(P.indptr[at : at + n + 1]))
    row = P.indices[low:high]
    return sparse.csr_array((V[row, column], (row, column)), shape=V.shape)


def anchor_pass(H, B, P, scale, power):
    """Return Z, the sums over w V and P V with their vectors, and the sum of log(1 + g/s) over P."""
    m = len(H)
    h2 = (H * H).sum(axis=1)
    Z, WV, PV, logs = np.zeros((4, m))
    WVB, PVB = np.zeros((2, *H.shape))
    for at in range(0, len(B), TILE):
        V, part = similarities(H, B, at, scale, h2)
        of_p = entries_of(P, V, at, len(part))
        PV += of_p.sum(axis=1)
        PVB += of_p @ part
        of_p.data = -np.log(of_p.data)
        logs += of_p.sum(axis=1)
        w = raised(V, power)
        Z += w.sum(axis=1)
        w *= V
        WV += w.sum(axis=1)
        WVB += w @ part
    return Z, WV, PV, logs, WVB, PVB


def item_gradient(H, B, P, p, inv_z, scale, power):
    """(a/2s) (colsum(A) B - A^T H) with A = (P - w/Z) V, for all items."""
    h2 = (H * H).sum(axis=1)
    out = np.empty_like(B)
    for at in range(0, len(B), TILE):
        V, part = similarities(H, B, at, scale, h2)
        of_p = entries_of(P, V, at, len(part))
        of_p = sparse.diags_array(p) @ of_p
        w = raised(V, power)
        w *= V
        w *= inv_z[:, None]
        colsum = of_p.sum(axis=0) - w.sum(axis=0)
        out[at : at + TILE] = power / (2 * scale) * (colsum[:, None] * part - (of_p.T @ H - w.T @ H))
    return out


def descend(H, B, P, counts, s, history):
    """Adam on both, as ``aphash._learning.descent.Descent``; B is changed in place, H is returned."""
    (m, r), n = H.shape, len(B)
    p = (1 / counts).astype(np.float32)
    mean_h, square_h = np.zeros((2, m, r))
    mean_b, square_b = np.zeros((2, n, r), np.float32)
    for t in range(1, s.max_iter + 1):
        Z, WV, PV, logs, WVB, PVB = anchor_pass(H, B, P, s.q_scale, s.q_power)
        history.append(float(np.sum(np.log(Z) + np.log(p) + s.q_power * p * logs)))
        rate = s.learning_rate * (0.02 + 0.98 * (1 + np.cos(np.pi * (t - 1) / s.max_iter)) / 2)
        inv_z = (1 / Z).astype(np.float32)
        pull = s.quantization * 2 / (m * r)
        gradient_b = item_gradient(H, B, P, p, inv_z, s.q_scale, s.q_power)
        gradient_b *= np.float32(n / m)
        gradient_b += np.float32(pull) * (np.abs(B) - 1) * np.copysign(np.float32(1), B)
        rowsum = p * PV - WV / Z
        gradient_h = s.q_power / (2 * s.q_scale) * (rowsum[:, None] * H - (p[:, None] * PVB - WVB / Z[:, None]))
        gradient_h += pull * (np.abs(H) - 1) * np.where(H >= 0, 1, -1)
        for X, mean, square, gradient in ((H, mean_h, square_h, gradient_h), (B, mean_b, square_b, gradient_b)):
            mean *= _BETA1
            mean += (1 - _BETA1) * gradient
            square *= _BETA2
            square += (1 - _BETA2) * gradient**2
            move = mean / (1 - _BETA1**t) / (np.sqrt(square / (1 - _BETA2**t)) + _EPSILON)
            X -= (rate * move).astype(np.float32)
    return H


def random_orthonormal(p, r, rng):
    q, upper = linalg.qr(rng.standard_normal((p, r)), mode="economic")
    return (q * np.where(np.diag(upper) < 0, -1.0, 1.0)).astype(np.float32)


def fit(X, s, rng):
    """Return (W, bias, B, J0 of each iteration), for n > 20,000, d >= r, and settings as ``semantic`` has them."""
    n, r = len(X), s.n_bits
    V = X - X.mean(axis=0, dtype=np.float64).astype(np.float32)
    V *= np.float32(1 / np.sqrt(np.einsum("ij,ij->", V, V, dtype=np.float64) / n))
    gram = (V.T @ V).astype(np.float64)
    G = np.zeros((len(gram) + 1,) * 2)
    G[:-1, :-1], G[-1, -1] = gram, n
    unit = np.trace(G) / len(G)
    factors = {share: linalg.cho_factor(G + share * unit * np.eye(len(G))) for share in {s.ridge, s.last_ridge}}
    sample = np.sort(rng.choice(n, 20_000, replace=False))
    directions = linalg.eigh(gram, subset_by_index=[len(gram) - r, len(gram) - 1])[1][:, ::-1]
    largest = np.abs(directions).argmax(axis=0)
    directions = (directions * np.where(directions[largest, np.arange(r)] < 0, -1.0, 1.0)).astype(np.float32)
    projected = V[sample] @ directions
    deviations = projected.std(axis=0, dtype=np.float64)
    weights = ((deviations / deviations[0]) ** -s.whitening).astype(np.float32)
    B = V @ (directions * weights @ itq_rotation(projected * weights, random_orthonormal(r, r, rng), 100))
    history = []
    for number in range(1, s.n_rounds + 1):
        B /= np.abs(B).mean()
        items = np.sort(rng.choice(n, s.n_anchors, replace=False))
        P, counts = affinity(V, V[items], s.n_neighbors)
        descend(B[items], B, P, counts, s, history)
        B -= B.mean(axis=0)
        B = B @ itq_rotation(B[sample], random_orthonormal(r, r, rng), 30)
        T = signs(B)
        right = np.vstack([V.T @ T, T.sum(axis=0)[None]]).astype(np.float64)
        W = linalg.cho_solve(factors[s.last_ridge if number == s.n_rounds else s.ridge], right).astype(np.float32)
        if number < s.n_rounds:
            B = V @ W[:-1] + W[-1]
    return W[:-1], W[-1], B, np.array(history)
