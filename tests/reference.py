"""Every formula of the method in naive float64 numpy, in the paper's letters: the oracle of the tests.

C (m, d) anchors, X (n, d) items, H (m, r) and B (n, r) relaxed codes of anchors and items, theta (m,) thresholds,
P and Q (m, n) row-stochastic, g_ij = 1/4 |h_i - b_j|^2. Generalised as in docs/DESIGN.md by a scale s and a power a:
V = 1/(1 + g/s), w = V^a, q_ij = w_ij / sum_t w_it; s = a = 1 is the paper. Memory is no concern here: tests are small.
"""

import numpy as np


def distances(C, X):
    """Euclidean distances, (m, n)."""
    C, X = np.asarray(C, np.float64), np.asarray(X, np.float64)
    return np.sqrt(((C[:, None, :] - X[None, :, :]) ** 2).sum(axis=2))


def thresholds(D, k):
    """theta_i: the mean distance from anchor i to its k nearest items (itself among them), (m,)."""
    return np.sort(D, axis=1)[:, :k].mean(axis=1)


def affinity(D, theta):
    """P: 1 where d(c_i, x_j) <= theta_i, normalised row by row, (m, n)."""
    P = (theta[:, None] >= D).astype(np.float64)
    return P / P.sum(axis=1, keepdims=True)


def g(H, B):
    """1/4 of the squared distances: the Hamming distance, for signs, (m, n)."""
    return ((H[:, None, :] - B[None, :, :]) ** 2).sum(axis=2) / 4


def V(H, B, s):
    return 1 / (1 + g(H, B) / s)


def Q(H, B, s, a):
    w = V(H, B, s) ** a
    return w / w.sum(axis=1, keepdims=True)


def J0(P, H, B, s, a):
    """sum_i KL(P_i || Q_i), with 0 log 0 = 0."""
    q = Q(H, B, s, a)
    some = P > 0
    return (P[some] * np.log(P[some] / q[some])).sum()


def J1(H, B):
    """The quantisation loss with the paper's normalisers Z_H = m r and Z_B = n r."""
    return ((np.abs(H) - 1) ** 2).mean() + ((np.abs(B) - 1) ** 2).mean()


def J0_gradients(P, H, B, s, a):
    """(dJ0/dH, dJ0/dB): with A = (P - Q) V, a/2s sum_j A_ij (h_i - b_j) and a/2s sum_i A_ij (b_j - h_i)."""
    A = (P - Q(H, B, s, a)) * V(H, B, s)
    dH = a / (2 * s) * (A.sum(axis=1)[:, None] * H - A @ B)
    dB = a / (2 * s) * (A.sum(axis=0)[:, None] * B - A.T @ H)
    return dH, dB


def sign(Z):
    """+1 where >= 0, else -1: the rule of the packed codes."""
    return np.where(np.asarray(Z) >= 0, 1.0, -1.0)


def J1_gradients(H, B):
    """(dJ1/dH, dJ1/dB)."""
    return 2 / H.size * (np.abs(H) - 1) * sign(H), 2 / B.size * (np.abs(B) - 1) * sign(B)


def ridge(X, T, alpha):
    """(W, b) = argmin |T - X W - 1 b|^2 + alpha (|W|^2 + |b|^2)."""
    X1 = np.hstack([X, np.ones((len(X), 1))])
    W = np.linalg.solve(X1.T @ X1 + alpha * np.eye(X1.shape[1]), X1.T @ T)
    return W[:-1], W[-1]


def adam(theta, gradients, learning_rates, b1=0.9, b2=0.999, eps=1e-8):
    """Adam (Kingma & Ba 2015) over a list of gradients."""
    theta, m, v = np.array(theta, np.float64), 0.0, 0.0
    for t, (G, lr) in enumerate(zip(gradients, learning_rates, strict=True), start=1):
        m = b1 * m + (1 - b1) * G
        v = b2 * v + (1 - b2) * G**2
        theta = theta - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return theta


def hamming(a, b):
    """Hamming distances of two arrays of booleans, (len(a), len(b))."""
    return (a[:, None, :] != b[None, :, :]).sum(axis=2)


def search(distance, ids, k):
    """The k smallest of one row of distances by (distance, id), padded with (int32 max, -1)."""
    order = np.lexsort([ids, distance])[:k]
    pad = k - len(order)
    return (
        np.append(distance[order], np.full(pad, np.iinfo(np.int32).max)),
        np.append(ids[order], np.full(pad, -1)),
    )


# -- mode "scores": p (m, r) weights of the anchors, B (n, r) bits of the items, d2 (m, n) squared distances -------


def softmax_Q(p, B):
    """q_ij = exp(p_i . b_j) / Z_i."""
    Z = p @ B.T
    w = np.exp(Z - Z.max(axis=1, keepdims=True))
    return w / w.sum(axis=1, keepdims=True)


def perplexity_P(d2, beta):
    """p_ij = exp(-beta_i d2_ij / 2) / sum_j, and the perplexity of each row."""
    w = np.exp(-beta[:, None] / 2 * (d2 - d2.min(axis=1, keepdims=True)))
    P = w / w.sum(axis=1, keepdims=True)
    return P, np.exp(-(P * np.log(np.maximum(P, 1e-300))).sum(axis=1))


def start_loss(b, x, D, nu, lam):
    """|x - b D|^2 + lambda / nu (|b D|^2 - nu)^2."""
    y = b @ D
    return ((x - y) ** 2).sum() + lam / nu * ((y**2).sum() - nu) ** 2


def share_of_J0(b, p, log_z, P, F, w, s, x, R, rho):
    """sum_i [exp(p_i . b - log Z_i) - P_i p_i . b] + exp(b F b / 2 + w) + rho |s x - b R|^2; i: the near anchors.

    R is V or D.
    """
    score = p @ b
    return (np.exp(score - log_z) - P * score).sum() + np.exp(b @ F @ b / 2 + w) + rho * ((s * x - b @ R) ** 2).sum()


def moved_query(p, x, A, B, k, perplexity, rate, steps):
    """p after steps down dKL(P || Q)/dp = sum_j (Q_j - P_j) b_j; P over the k nearest of A, Q over all of B."""
    d2 = ((A - x) ** 2).sum(axis=1)
    near = np.argsort(d2, kind="stable")[:k]
    low, high = -30.0, 30.0
    for _ in range(100):
        beta = np.exp((low + high) / 2)
        P, found = perplexity_P(d2[near][None], np.array([beta]))
        low, high = ((low + high) / 2, high) if found[0] > perplexity else (low, (low + high) / 2)
    for _ in range(steps):
        p = p + rate * (P[0] @ B[near] - softmax_Q(p[None], B)[0] @ B)
    return p
