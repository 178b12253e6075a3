"""The linear parts: principal directions, rotations towards signs, and the ridge hash function."""

import contextlib
import itertools

import numpy as np
from scipy import linalg

from aphash._common.threads import Crew

GRAM_FEATURES = 4096  # up to so many, the d x d Gram matrix is made; beyond, only products with it are
DENSE_BITS, _GROUP_BITS = 512, 256  # longer codes rotate in groups, since an SVD costs the cube of its bits
_PIECE_BYTES = 1 << 18  # of the sample that are multiplied at a time: the L2 cache holds them and the product
_RANK_TOLERANCE = 1e-6  # as a share of the largest eigenvalue; about what float32 vectors resolve


class Ridge:
    """W, b = argmin sum_j |t_j - W^T x_j - b|^2 + alpha (|W|^2 + |b|^2), for many targets on the same vectors.

    The vectors are given by their sums: G = [X, 1]^T [X, 1], and [X, 1]^T T and sum |T|^2 for each target. The constant
    is regularised, too, as in the rounds of docs/DESIGN.md.

    Parameters
    ----------
    gram : ndarray of float64, shape (d, d)
    total : ndarray of float64, shape (d,)
        sum_j x_j.
    n : int
        The number of vectors.
    ridge : float or "gcv"
        alpha as a share of trace(G) / (d + 1), the mean eigenvalue. "gcv" chooses the share from 25 between 1e-6 and
        100, by generalised cross-validation (Golub, Heath & Wahba 1979), anew for each call of `solve`.
    """

    SHARES = np.logspace(-6, 2, 25)

    def __init__(self, gram, total, n, ridge):
        d = len(gram)
        G = np.empty((d + 1, d + 1))
        G[:d, :d], G[:d, d], G[d, :d], G[d, d] = gram, total, total, n
        self.n, self.unit = n, np.trace(G) / (d + 1)
        self.gcv = ridge == "gcv"
        if self.gcv:
            values, self.vectors = linalg.eigh(G)
            self.values = np.maximum(values, 0)
        else:
            G[np.diag_indices(d + 1)] += ridge * self.unit
            try:
                self.factor = linalg.cho_factor(G)
            except linalg.LinAlgError:
                raise ValueError(
                    f"ridge={ridge!r} leaves the hash function undetermined: X has fewer independent directions than "
                    "features; expected a larger ridge"
                ) from None

    def solve(self, xt, total, squares):
        """Return W (d, r) and b (r,) float64, for X^T T (d, r), sum_j t_j (r,) and sum |T|^2."""
        right = np.vstack([xt, total])
        solution = self._solve_gcv(right, float(np.sum(squares))) if self.gcv else linalg.cho_solve(self.factor, right)
        return solution[:-1], solution[-1]

    def _solve_gcv(self, right, squares):
        # In the eigenbasis of G = U diag(v) U^T, with Z = U^T [X, 1]^T T and f = 1 / (v + alpha):
        # |T - T_hat|^2 = |T|^2 - sum z^2 (2 f - v f^2),  tr(hat) = sum v f,  GCV = |T - T_hat|^2 / (1 - tr(hat)/n)^2.
        Z = self.vectors.T @ right
        z2 = (Z**2).sum(axis=1)
        scores = []
        for alpha in self.SHARES * self.unit:
            f = 1 / (self.values + alpha)
            residual = squares - z2 @ (2 * f - self.values * f**2)
            scores.append(residual / max(1 - self.values @ f / self.n, 1e-12) ** 2)
        alpha = self.SHARES[int(np.argmin(scores))] * self.unit
        return self.vectors @ (Z / (self.values + alpha)[:, None])


class IterativeRidge:
    """The same for centred vectors with too many features for a Gram matrix, by conjugate gradients: a pass for each
    step.

    Parameters
    ----------
    rows : Rows
    ridge : float
    """

    STEPS, TOLERANCE = 50, 1e-5

    def __init__(self, rows, ridge):
        self.rows, self.n = rows, rows.n
        self.alpha = ridge * 2 * rows.n / (rows.d + 1)  # trace(G) = n (mean |x|^2 + 1) = 2 n

    def solve(self, xt, total, squares):
        W, residual = np.zeros_like(xt), xt.copy()
        direction, size = residual.copy(), (residual**2).sum(axis=0)
        goal = self.TOLERANCE**2 * np.maximum(size, np.finfo(float).tiny)
        for _ in range(self.STEPS):
            if (size <= goal).all():
                break
            image = self.rows.gram_times(direction) + self.alpha * direction
            step = size / np.maximum((direction * image).sum(axis=0), np.finfo(float).tiny)
            W += step * direction
            residual -= step * image
            before, size = size, (residual**2).sum(axis=0)
            direction = residual + direction * (size / np.maximum(before, np.finfo(float).tiny))
        return W, total / (self.n + self.alpha)


def principal_directions(rows, gram, n_components, rng):
    """Return the leading principal directions of the working vectors.

    Parameters
    ----------
    rows : Rows
    gram : ndarray of float64, shape (d, d), or None
        None where d > 4,096. Then they are found by subspace iteration from random directions (Halko, Martinsson &
        Tropp 2011), with seven passes over the rows.
    n_components : int
    rng : RandomState

    Returns
    -------
    ndarray of float64, shape (d, p)
        The columns are orthonormal, in descending order of variance, and the largest entry of each is positive. p is
        n_components, or the numerical rank where that is smaller.
    """
    d = rows.d
    wanted = min(n_components, d)
    if gram is not None:
        values, vectors = linalg.eigh(gram, subset_by_index=[d - wanted, d - 1])
    else:
        basis = rng.standard_normal((d, min(d, rows.n, wanted + 16)))
        for _ in range(6):
            basis, _ = linalg.qr(rows.gram_times(basis), mode="economic")
        values, inner = linalg.eigh(basis.T @ rows.gram_times(basis))
        vectors = basis @ inner
        values, vectors = values[-wanted:], vectors[:, -wanted:]
    values, vectors = values[::-1], vectors[:, ::-1]
    vectors = vectors[:, values > _RANK_TOLERANCE * values[0]]
    largest = np.abs(vectors).argmax(axis=0)
    return vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)


def rank(rows, gram):
    """Return how many independent directions the rows have, whatever the scales of their features.

    This is the rank of the correlations. A feature that is small beside another one counts as a direction all the same,
    and one that is constant except for rounding does not.
    """
    deviations = np.sqrt(np.diag(gram) / rows.n)
    varies = deviations > 1e-12 * rows.scale * np.abs(rows.mean)
    deviations = deviations[varies]
    values = linalg.eigvalsh(gram[np.ix_(varies, varies)] / rows.n / deviations / deviations[:, None])
    return int((values > _RANK_TOLERANCE * values[-1]).sum())


def groups(r):
    """Return the slices of r bits that rotate among themselves: one up to 512 bits, else of at most 256 bits each."""
    count = 1 if r <= DENSE_BITS else -(-r // _GROUP_BITS)
    edges = [r * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def random_orthonormal(p, r, rng):
    """Return a random (p, r) matrix with orthonormal rows (p <= r) or columns (p >= r), float64."""
    q, upper = linalg.qr(rng.standard_normal((max(p, r), min(p, r))), mode="economic")
    q *= np.where(np.diag(upper) < 0, -1.0, 1.0)
    return q if p >= r else q.T


def itq_rotation(sample, projection, n_iter, n_threads=1):
    """Rotate an orthonormal projection R (p, r) so that V R, for a sample V (s, p), comes near to its own signs.

    This is ITQ (Gong et al. 2013). It alternates T = sign(V R) and R = argmax tr(R^T V^T T), which is U Z^T for the
    singular vectors of V^T T = U S Z^T. With p < r the rows of R stay orthonormal, and with p = r it is a rotation.

    V^T T is a sum over pieces of the sample that fit in the cache. They are added in their order, whatever the threads.
    """
    projection = np.asarray(projection, np.float32)
    step = max(64, _PIECE_BYTES // (4 * max(projection.shape)))
    pieces = [sample[start : start + step] for start in range(0, len(sample), step)]
    # A piece is too little work to be handed to a thread, so several go together, as long as their results are small.
    group = max(1, min(-(-len(pieces) // (2 * n_threads)), _PIECE_BYTES // projection.nbytes))

    def correlations(first):
        return [correlation(piece) for piece in pieces[first : first + group]]

    def correlation(piece):
        signs = piece @ projection  # a product that is 0 is +0, since its sum starts from +0
        bits = signs.view(np.uint32)
        np.bitwise_and(bits, np.uint32(0x80000000), out=bits)  # copysign(1, signs), which numpy does not vectorise
        np.bitwise_or(bits, np.uint32(0x3F800000), out=bits)
        return piece.T @ signs

    with Crew(n_threads) if n_threads > 1 else contextlib.nullcontext() as pool:
        for _ in range(n_iter):
            groups = (map if pool is None else pool.map)(correlations, range(0, len(pieces), group))
            U, _, Zt = linalg.svd(sum(itertools.chain.from_iterable(groups)), full_matrices=False, check_finite=False)
            projection = U @ Zt
    return projection


class Rotation:
    """A rotation of r bits that is found on a sample of codes. It is dense up to 512 bits, else block-diagonal in
    groups.

    J0 does not change when H and B rotate together, but J1 does. So a rotation towards signs costs nothing.

    Parameters
    ----------
    sample : ndarray of float32, shape (s, r)
        Centred codes.
    start : {"random", "identity"}
    n_iter : int
    rng : RandomState
    n_threads : int
    """

    def __init__(self, sample, start, n_iter, rng, n_threads=1):
        self.parts = []
        for bits in groups(sample.shape[1]):
            r = bits.stop - bits.start
            projection = random_orthonormal(r, r, rng) if start == "random" else np.eye(r)
            projection = itq_rotation(np.ascontiguousarray(sample[:, bits]), projection, n_iter, n_threads)
            self.parts.append((bits, np.ascontiguousarray(projection, np.float32)))

    def __call__(self, codes):
        out = np.empty_like(codes)
        for bits, projection in self.parts:
            out[:, bits] = codes[:, bits] @ projection
        return out
