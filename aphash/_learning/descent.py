"""The objective, its descent, and the rounds: from rows to relaxed codes and a hash function.

J = J0 + lambda J1 (Chen, Wang & Cheung 2018), with Q generalised by a scale s and a power a (s = a = 1 is the paper):

    g_ij = |h_i - b_j|^2 / 4      V = 1 / (1 + g/s)      w = V^a      q_ij = w_ij / Z_i,  Z_i = sum_j w_ij
    J0 = sum_i KL(P_i || Q_i) = sum_i [ log Z_i - log c_i + (a / c_i) sum_{j in P_i} log(1 + g_ij/s) ]
    J1 = |(|H| - 1)|^2 / (m r) + |(|B| - 1)|^2 / (n r)
    dJ0/dh_i = a/2s sum_j (p_ij - q_ij) V_ij (h_i - b_j)      dJ0/db_j = a/2s sum_i (p_ij - q_ij) V_ij (b_j - h_i)

For s = a = 1 the factor a/2s is the paper's 1/2. Steps are Adam's (Kingma & Ba 2015), whose direction does not depend
on the scale of the gradient. The gradient of B is multiplied by n/m, so that one epsilon fits both gradients, and steps
do not depend on n.
"""

from dataclasses import dataclass

import numpy as np

from aphash._learning.affinity import affinity
from aphash._learning.blocks import draw_rows
from aphash._learning.linear import (
    DENSE_BITS,
    GRAM_FEATURES,
    IterativeRidge,
    Ridge,
    groups,
    itq_rotation,
    principal_directions,
    random_orthonormal,
    rank,
)

HISTORY = np.dtype([("round", np.int32), ("iteration", np.int32), ("J0", np.float64), ("J1", np.float64)])

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_LAST_RATE = 0.02  # the cosine schedule ends at this share of the learning rate
_STALL = 10  # the relative fall of J is judged over so many iterations
_ROTATION_ROWS, _ROTATION_ROWS_KEPT = 20_000, 100_000  # of a sample; the second where rotations build on each other
_ROTATION_NUMBERS = 6_400_000  # in the larger sample; it has fewer rows with more bits, for its cost
_INIT_ITERATIONS, _ROUND_ITERATIONS = 100, 30


@dataclass
class Result:
    """What a fit found: the fitted attributes of APHash, in working units."""

    anchor_items: np.ndarray
    thresholds: np.ndarray
    anchor_codes: np.ndarray  # relaxed
    W: np.ndarray
    bias: np.ndarray
    history: np.ndarray
    n_iter: int
    n_directions: int  # independent directions of X, at most n_bits


class Descent:
    """One descent of J over H and B from their present values. Adam's moments start at zero.

    Needs 2 n r float32 for the moments of B beside B itself. The m x n weights exist in tiles only.
    """

    def __init__(self, rows, P, H, settings):
        self.rows, self.P, self.H, self.settings = rows, P, H, settings
        m, r = H.shape
        self.sums, self.vectors, self.quantization_loss = np.empty((4, m)), np.empty((2, m, r)), np.empty(1)
        self.moments_H = np.zeros((m, r)), np.zeros((m, r))
        self.moments_B = rows.zero_moments(r)

    def objective(self):
        """Return (J0, J1) at the present H and B, and keep the sums that the gradients need."""
        s = self.settings
        m, r = self.H.shape
        self.rows.anchor_pass(self.H, s.q_scale, s.q_power, self.P, self.sums, self.vectors, self.quantization_loss)
        Z, _, _, logs = self.sums
        p = self.P.weights
        J0 = float(np.sum(np.log(Z) + np.log(p) + s.q_power * p * logs))
        J1 = float(
            ((np.abs(self.H, dtype=np.float64) - 1) ** 2).sum() / (m * r)
            + self.quantization_loss[0] / (self.rows.n * r)
        )
        return J0, J1

    def step_H(self, gradient, t, rate):
        mean, square = self.moments_H
        mean *= _BETA1
        mean += (1 - _BETA1) * gradient
        square *= _BETA2
        square += (1 - _BETA2) * gradient**2
        move = mean / (1 - _BETA1**t) / (np.sqrt(square / (1 - _BETA2**t)) + _EPSILON)
        self.H = (self.H - rate * move).astype(np.float32)

    def gradient_H(self):
        """Return dJ/dH, (m, r) float64, from the sums of the last :meth:`objective`."""
        s = self.settings
        Z, WV, PV, _ = self.sums
        WVB, PVB = self.vectors
        p = self.P.weights[:, None]
        H = self.H.astype(np.float64)
        rowsum = p * PV[:, None] - WV[:, None] / Z[:, None]
        G = s.q_power / (2 * s.q_scale) * (rowsum * H - (p * PVB - WVB / Z[:, None]))
        return G + s.quantization * 2 / H.size * (np.abs(H) - 1) * np.where(H >= 0, 1, -1)

    def step_B(self, H, t, rate):
        """Move B by the gradient at H, with the Z of the last :meth:`objective`."""
        s = self.settings
        m, r = H.shape
        step = (
            self.rows.n / m, s.quantization * 2 / (m * r), rate,
            _BETA1, _BETA2, 1 - _BETA1**t, 1 - _BETA2**t, _EPSILON,
        )  # fmt: skip
        self.rows.item_pass(
            self.moments_B,
            H,
            (1 / self.sums[0]).astype(np.float32),
            self.P.weights.astype(np.float32),
            s.q_scale,
            s.q_power,
            self.P,
            step,
        )

    def run(self, report):
        """Iterate until max_iter, or until the relative fall of J over 10 iterations is smaller than tol.

        Parameters
        ----------
        report : callable
            Called with (iteration, J0, J1) before each step.

        Returns
        -------
        int
            The number of iterations done.
        """
        s = self.settings
        history = []
        for t in range(1, s.max_iter + 1):
            J0, J1 = self.objective()
            report(t, J0, J1)
            history.append(J0 + s.quantization * J1)
            if s.tol and t > _STALL:
                before = history[-1 - _STALL]
                if before - history[-1] < s.tol * abs(before):
                    return t - 1
            cosine = (1 + np.cos(np.pi * (t - 1) / s.max_iter)) / 2
            rate = s.learning_rate * (_LAST_RATE + (1 - _LAST_RATE) * cosine)
            H = self.H
            gradient = self.gradient_H()
            self.step_H(gradient, t, rate)
            if s.updates == "alternating":  # the step of B uses the new H
                self.objective()
                H = self.H
            self.step_B(H, t, rate)
        return s.max_iter


def learn(rows, settings, rng, progress):
    """Run the rounds. A round draws anchors, descends, rotates, fits the hash function, and projects the rows by it.

    Parameters
    ----------
    rows : Rows
        Afterwards its B are the learned relaxed codes of the training rows.
    settings : Settings
    rng : RandomState
    progress : callable
        Called with (round, iteration, J0, J1); with None for both where a round has no iteration.

    Returns
    -------
    Result
    """
    s = settings
    gram = rows.gram() if rows.d <= GRAM_FEATURES and (s.init == "itq" or s.fit_hash == "all") else None
    size = _ROTATION_ROWS
    if s.rotation == "identity":  # here the errors of a sample stay, and cost true neighbours
        size = max(size, min(_ROTATION_ROWS_KEPT, _ROTATION_NUMBERS // s.n_bits))
    sample = np.arange(rows.n)
    if rows.n > size:
        sample = draw_rows(rows.n, size, rng)
    n_directions = _initial_codes(rows, gram, sample, s, rng)
    ridges = {}  # by share; all rounds with the same share use one factorisation

    history, n_iter, items = [], 0, None
    for number in range(1, s.n_rounds + 1):
        last = number == s.n_rounds
        if items is None or s.resample_anchors:
            items, theta = draw_rows(rows.n, s.n_anchors, rng), None
        if theta is None and (s.max_iter or last or s.fit_hash == "anchors"):  # without a descent, of the last alone
            anchors, A = rows.take(items), rows.working(items)
            theta, P = affinity(rows, anchors, A, s.n_neighbors)
        H = rows.take_codes(items)
        if s.max_iter:
            descent = Descent(rows, P, H, s)

            def report(iteration, J0, J1, number=number):
                history.append((number, iteration, J0, J1))
                progress(number, iteration, J0, J1)

            n_iter += descent.run(report)
            H = descent.H
            del descent
        else:
            progress(number, 0, None, None)
        if s.rotation != "none":
            mean, rotation = rows.rotate_towards_signs(sample, s.rotation, _ROUND_ITERATIONS, rng)
            H = rotation(H - mean)
        target = sign if s.hash_target == "sign" or last else _itself
        share = s.last_ridge if last else s.ridge
        if s.fit_hash == "anchors":
            W, bias = _ridge_of_anchors(A, target(H), share)
        else:
            if share not in ridges:
                ridges[share] = _ridge_of_rows(rows, gram, share)
            W, bias = ridges[share].solve(*rows.cross(target))
        if not last:
            rows.project(W, bias)
    return Result(items, theta, H, W, bias, np.array(history, HISTORY), n_iter, n_directions)


def sign(codes):
    return np.where(codes >= 0, np.float32(1), np.float32(-1))


def _itself(codes):
    return codes


def _initial_codes(rows, gram, sample, settings, rng):
    """Set B, and return how many independent directions of X it has.

    With "itq", B are projections by :func:`itq_map`. With "random" they are standard normal numbers.
    """
    r = settings.n_bits
    if settings.init == "random":
        rows.random_codes(r, int(rng.randint(np.iinfo(np.int32).max)))
        return r
    W, n_directions = itq_map(rows, gram, sample, r, settings.whitening, rng)
    rows.project(W, np.zeros(r))
    return n_directions


def itq_map(rows, gram, sample, r, whitening, rng):
    """Return a map to r bits, (d, r) float64, and how many independent directions of X there are, at most r.

    The map projects on the leading principal directions, divides by their deviations to the power ``whitening``, and
    rotates towards signs. Where X has p < r directions, an orthonormal projection maps them to r bits. Then each bit is
    some direction of X, and where p is far below r, many bits are copies of each other.
    """
    directions = principal_directions(rows, gram, r, rng)
    p = directions.shape[1]
    projected = rows.working(sample) @ directions.astype(np.float32)
    deviations = projected.std(axis=0, dtype=np.float64)
    weights = (deviations / deviations[0]) ** -whitening
    directions, projected = directions * weights, projected * weights.astype(np.float32)
    projection = np.zeros((p, r))
    parts = groups(r) if min(p, r) > DENSE_BITS else [slice(0, r)]
    for i, bits in enumerate(parts):  # each group gets directions of all sizes
        mine = slice(i, None, len(parts))
        own = np.ascontiguousarray(projected[:, mine])
        start = random_orthonormal(own.shape[1], bits.stop - bits.start, rng)
        projection[mine, bits] = itq_rotation(own, start, _INIT_ITERATIONS, rows.n_threads)
    return directions @ projection, p if p == r or gram is None else max(p, min(r, rank(rows, gram)))


def _ridge_of_rows(rows, gram, ridge):
    if gram is None:
        if ridge == "gcv":
            raise ValueError(f"ridge='gcv' needs at most {GRAM_FEATURES} features, got {rows.d}: expected a number")
        return IterativeRidge(rows, ridge)
    return Ridge(gram, np.zeros(rows.d), rows.n, ridge)  # working vectors are centred


def _ridge_of_anchors(A, target, ridge):
    A, target = A.astype(np.float64), target.astype(np.float64)
    return Ridge(A.T @ A, A.sum(axis=0), len(A), ridge).solve(A.T @ target, target.sum(axis=0), (target**2).sum())
