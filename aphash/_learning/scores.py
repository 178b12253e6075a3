"""Mode "scores": the objective of the paper with real queries and discrete items.

J0 = sum_i KL(P_i || Q_i), where the anchors' side is real, p_i = V (a_i - mu), and the items' side is bits b_j. The
score of an item for a query is p . b, and

    P(j | i) = exp(-beta_i |a_i - x_j|^2 / 2) / sum over i's nearest, with beta_i such that its perplexity is a
               quarter of their number
    Q(j | i) = exp(p_i . b_j) / Z_i,  Z_i = sum_j exp(p_i . b_j)
    dJ0/dp_i = sum_j (Q(j | i) - P(j | i)) b_j,  dJ0/dV = sum_i dJ0/dp_i (a_i - mu)^T

P is t-SNE's (van der Maaten & Hinton 2008) on the anchors, Q a softmax instead of the paper's t-distribution: a query
ranks items by p . b and by nothing else, and only the softmax is the same for all items of one score. Given the bits,
J0 is convex in V (Adam); given V, each item's bits are found by descent on its share of J0 (csrc/learn/bits.inc.h).
They begin with ITQ's (Gong et al. 2013), taken to bits of equal norms: |x - b D|^2 + lambda / nu (|b D|^2 - nu)^2, as a
score must not rank items by the length of what they rebuild.

New queries move on from V (q - mu), down dJ0/dp with all bits fixed (``item_encoder``, ``query_steps``).

With ``goal="kind"`` the distances are those of a space in which items of the same kind are near (``kind_space``): the
directions of the projections that mode "semantic" learns. V maps them to weights; since a query's ranking does not
depend on the length of its weights, x -> p stays linear.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from aphash._common.threads import Crew
from aphash._learning import _bits, _distances, descent, query_steps
from aphash._learning._source import Source
from aphash._learning.blocks import draw_rows
from aphash._learning.descent import HISTORY, itq_map, sign
from aphash._learning.item_encoder import FIRST_SWEEPS, ItemEncoder, from_bfloat16, project, scores, to_bfloat16
from aphash._learning.kind_space import KindSpace
from aphash._learning.linear import GRAM_FEATURES
from aphash._learning.recipe import PRESETS, resolve
from aphash._learning.training_data import Rows
from aphash.codes import pack

_ITQ_ROWS = 20_000  # of the sample that the start is turned on
_EQUAL_NORMS = 0.3  # lambda
_START_ROUNDS = 10  # of bits of equal norms and their decoder
_DAMPING = 1e-2  # of the decoder's normal equations, a share of the anchors
_BATCH = 500  # anchors of a step
_TILE = 2048  # items whose scores are held at a time
_FAR_SAMPLE = 1000  # items to which the form of the far anchors is fitted
_PULL = 3.0  # how much larger than V's own size x is to be rebuilt by b V
_DECODER_BITS = 128  # with more, an item's bits have to rebuild it by D where X has directions enough, else by V
_DECODER_DIRECTIONS = 4  # which are one for so many bits
_DECODER_RHO = 1.4  # by D, rho is so many times the setting
_N_NEAR, _N_CANDIDATES = 100, 200  # of an item's anchors
_BETA1, _BETA2, _EPSILON = 0.9, 0.98, 1e-12
_TRIALS = 17  # of a first common scale of the weights
_KIND_NUMBERS = 2  # of the kind space, for each bit


@dataclass
class ScoreResult:
    """What a fit found, in working units."""

    anchor_items: np.ndarray
    W: np.ndarray  # (d, r): V, transposed; float64, of numbers that float32 holds
    bias: np.ndarray
    items: ItemEncoder
    history: np.ndarray
    n_iter: int
    n_directions: int


def _fewer(n_bits):
    """Return 1 up to 128 bits, less beyond: with more bits the scores are sums of more, and steps overshoot."""
    return min(1.0, 128 / n_bits)


def steps(settings):
    """Return how many steps of Adam each fit of V has: the first, and that of each round."""
    return [settings.max_iter] + [max(1, settings.max_iter * 2 // 5)] * settings.n_rounds


def n_steps(settings, n):
    """Return how often a fit to n rows calls ``progress``."""
    kind = _kind_settings(settings, n) if settings.goal == "kind" else None
    return sum(steps(settings)) + (kind.n_rounds * max(1, kind.max_iter) if kind else 0)


def n_relaxed(settings):
    """Return how many relaxed bits a row has while it is learned from."""
    return _KIND_NUMBERS * settings.n_bits if settings.objective == "scores" else settings.n_bits


def _kind_settings(settings, n):
    return resolve(PRESETS["semantic"], {}, n_relaxed(settings), n)


def learn(rows, settings, rng, progress, n_items, n_threads=None):
    """Learn the weights V, the anchors' bits and all that items' bits depend on.

    Parameters
    ----------
    rows : Rows
    settings : recipe.Settings
    rng : RandomState
    progress : callable
        Called with (round, iteration, J0, J1): J0 of a batch, for all anchors; J1 is 0, since bits are bits.
    n_items : int
        How many rows there are with those that do not learn.
    n_threads : int, optional
        For all that is of the anchors alone; None: those of the rows.

    Returns
    -------
    ScoreResult

    Notes
    -----
    Needs 4 m (2 d + 5 r + 4 k) bytes for m anchors with k neighbours, and a batch of scores. With ``goal="kind"``, d is
    2 r there, and what mode "semantic" needs for 2 r bits comes before it: 24 n r bytes and some more.
    """
    n_threads = n_threads or rows.n_threads
    if settings.goal == "neighbors":
        return _learn(rows, settings, rng, progress, n_items, n_threads)
    found = descent.learn(rows, _kind_settings(settings, rows.n), rng, progress)
    drawn = draw_rows(rows.n, min(rows.n, max(_ITQ_ROWS, settings.n_anchors)), rng)
    Z = KindSpace(found.W, found.bias).projections(rows.working(drawn), n_threads)
    length = float(np.sqrt(np.mean(np.square(Z, dtype=np.float64)) * Z.shape[1]))
    _bits.directions(Z, np.zeros(Z.shape[1]), 1.0)
    inner = Rows(Z, None, n_threads)
    kinds = KindSpace(found.W, found.bias, inner.mean, inner.scale)
    result = _learn(inner, settings, rng, progress, n_items, n_threads, kinds)
    # p = V s (y / |y| - mu), with the same length for all queries instead of |y|
    result.bias = inner.scale * ((found.bias / length - inner.mean) @ result.W)
    result.W = inner.scale / length * (found.W @ result.W)
    result.anchor_items = drawn[result.anchor_items]
    result.n_directions = min(found.n_directions, settings.n_bits)
    return result


def _learn(rows, settings, rng, progress, n_items, n_threads, kinds=None):
    """As :func:`learn`, with the distances of the rows as they are, which come from a kind space or from none."""
    s = settings
    gram = rows.gram() if rows.d <= GRAM_FEATURES else None
    sample = draw_rows(rows.n, min(rows.n, _ITQ_ROWS), rng)
    start, n_directions = itq_map(rows, gram, sample, s.n_bits, 0.0, rng)
    items = draw_rows(rows.n, s.n_anchors, rng)
    halves = to_bfloat16(rows.working(items))
    fit = _Fit(from_bfloat16(halves), s, rng, n_threads, progress)
    start = np.ascontiguousarray(start, np.float32)
    decoder, norm, B = _equal_norms(fit.A, start, n_threads)
    arrays = {"start": start, "decoder": decoder, "anchors": halves}
    numbers, x_d = {"norm": norm, "equal_norms": _EQUAL_NORMS / norm}, None
    wide = s.n_bits > _DECODER_BITS and _effective_directions(fit.A) * _DECODER_DIRECTIONS >= s.n_bits
    if kinds is None and wide:  # not tried in a kind space
        numbers["by_decoder"], x_d = 1, fit.project(decoder)
    V = fit.weights(fit.common_scale(decoder, B), B, 0)
    for number in range(1, s.n_rounds + 1):
        p = fit.project(V)
        kernels = scores(np.ascontiguousarray(V.T), *fit.state(V, p, B, arrays, numbers), p)
        kernels.refine(B, p if x_d is None else x_d, fit.near, fit.share, 1, n_threads)
        V = fit.weights(V, B, number)
    weights = np.ascontiguousarray(V.T)
    p = fit.project(V)
    arrays, numbers = fit.state(V, p, B, arrays, numbers)
    arrays["codes"] = pack(B)
    numbers |= {"n_near": min(_N_NEAR, fit.near.shape[1]), "n_candidates": _N_CANDIDATES}
    if kinds is not None:
        arrays |= {"kind_map": kinds.W, "kind_bias": kinds.bias, "kind_centre": kinds.centre, "weights": weights}
        numbers["kind_scale"] = kinds.scale
    encoder = ItemEncoder(weights, arrays, numbers, p)
    arrays["codes"] = encoder.encode_vectors(fit.A, n_threads)  # queries move towards the bits that these have as items
    encoder = ItemEncoder(weights, arrays, numbers, p)
    steps = query_steps.best(encoder, fit.A, fit.near, n_items, rng, n_threads)
    encoder = ItemEncoder(weights, arrays, numbers | {"query_steps": steps}, p)
    history = np.array(fit.history, HISTORY)
    bias = np.zeros(s.n_bits)  # working vectors are centred
    return ScoreResult(items, weights.astype(np.float64), bias, encoder, history, len(history), n_directions)


def _effective_directions(A, most=1000):
    """Return the participation ratio of the covariance C of centred rows, tr(C)^2 / tr(C^2), of a sample of them.

    tr(C^2) is the mean of (a_i . a_j)^2 over pairs of different rows.
    """
    A = A[:: -(-len(A) // most)].astype(np.float64)
    products = A @ A.T
    squares = np.square(products).sum() - np.square(products.diagonal()).sum()
    pairs = len(A) * (len(A) - 1)
    return float(products.diagonal().mean() ** 2 * pairs / squares) if squares > 0 else 1.0


def _equal_norms(A, start, n_threads):
    """Return D, nu and the anchors' bits: |a - b D|^2 + lambda / nu (|b D|^2 - nu)^2, D by least squares in between."""
    B = sign(project(A, start, n_threads))
    D = _decoder(B, A)
    for _ in range(_START_ROUNDS):
        norm = _mean_norm(B, D)
        _equal_kernels(D, norm).start(B, project(A, np.ascontiguousarray(D.T), n_threads), 1, n_threads)
        D = _decoder(B, A)
    norm, B = _mean_norm(B, D), sign(project(A, start, n_threads))
    _equal_kernels(D, norm).start(B, project(A, np.ascontiguousarray(D.T), n_threads), FIRST_SWEEPS, n_threads)
    return D, norm, B


def _equal_kernels(D, norm):
    """Return kernels of which only those for equal norms may be called."""
    r, d = D.shape
    nothing, one = np.zeros(1, np.float32), np.zeros((1, d), np.uint16)
    arrays = {"anchors": one, "decoder": D, "log_z": nothing, "sharpness": nothing, "log_p": nothing}
    arrays["far"] = np.zeros((r, r), np.float32)
    numbers = {"norm": norm, "equal_norms": _EQUAL_NORMS / norm, "offset": 0, "scale": 0, "rho": 0}
    return scores(np.zeros((d, r), np.float32), arrays, numbers)


def _decoder(B, A):
    """Return D (r, d) float32 = argmin |A - B D|^2 + damping |D|^2."""
    gram = (B.T @ B).astype(np.float64)
    gram[np.diag_indices(len(gram))] += _DAMPING * len(B)
    return np.ascontiguousarray(linalg.solve(gram, (B.T @ A).astype(np.float64), assume_a="pos"), np.float32)


def _mean_norm(B, D):
    rebuilt = B @ D
    return float(np.einsum("ij,ij->", rebuilt, rebuilt, dtype=np.float64) / len(B))


class _Fit:
    """The anchors A (m, d), their P, and the fit of V to given bits."""

    def __init__(self, A, settings, rng, n_threads, progress):
        self.A, self.settings, self.rng, self.n_threads, self.progress = A, settings, rng, n_threads, progress
        self.m = len(A)
        self.near, d2 = _neighbors(A, settings.n_neighbors, n_threads)
        self.sharpness, self.P, self.log_p = _perplexity(d2, settings.n_neighbors / 4)
        self.entropy = -np.einsum("ij,ij->i", self.P, np.log(np.maximum(self.P, 1e-30)), dtype=np.float64)
        share = -self.sharpness[self.near] * d2 / 2 - self.log_p[self.near]
        self.share = np.exp(np.minimum(share, 0)).astype(np.float32)  # of an item in the P of its near anchors
        self.history = []

    def project(self, V):
        return project(self.A, np.ascontiguousarray(V.T, np.float32), self.n_threads)

    def common_scale(self, V, B):
        """Return V times the number that lowers J0 most, of some trials: a decoder has another scale than weights."""
        V = np.ascontiguousarray(V, np.float32)
        some = self.rng.choice(self.m, min(_BATCH, self.m), replace=False)
        p = self.A[some] @ V.T
        size = float((p @ B[:: max(1, self.m // _BATCH)].T).std())
        factors = np.geomspace(0.25, 64, _TRIALS) / (size if size > 0 else 1)
        pulled = self._pulled(some, B)
        losses = [self._loss(some, p * np.float32(factor), B, pulled) for factor in factors]
        return V * np.float32(factors[int(np.argmin(losses))])

    def weights(self, V, B, number):
        """Fit V to the bits B by Adam on batches of anchors; the step falls to zero."""
        s = self.settings
        n_steps = steps(s)[number]
        rate = (
            s.learning_rate
            * _fewer(s.n_bits) ** 2
            * (1 if number == 0 else 2 / 3)
            * float(np.sqrt(np.mean(V**2, dtype=np.float64)))
        )
        V = V.astype(np.float64)
        mean, square = np.zeros_like(V), np.zeros_like(V)
        for t in range(1, n_steps + 1):
            some = self.rng.choice(self.m, min(_BATCH, self.m), replace=False)
            x = self.A[some]
            loss, away = self._pass(some, x @ V.T.astype(np.float32), B)
            self.history.append((number + 1, t, loss * self.m, 0.0))
            self.progress(number + 1, t, loss * self.m, 0.0)
            gradient = (away.T @ x).astype(np.float64) / len(some)
            mean += (1 - _BETA1) * (gradient - mean)
            square += (1 - _BETA2) * (gradient**2 - square)
            step = mean / (1 - _BETA1**t) / (np.sqrt(square / (1 - _BETA2**t)) + _EPSILON)
            V -= rate * (1 - (t - 1) / n_steps) * step
        return V.astype(np.float32)

    def _pass(self, some, p, B):
        """Return the mean KL of some anchors with weights p, and its gradient in them, (len(some), r)."""
        mean, pulled = np.empty(p.shape, np.float32), self._pulled(some, B)
        return self._loss(some, p, B, pulled, mean), mean - pulled

    def _pulled(self, some, B):
        """Return the mean of b under P of some anchors, (len(some), r)."""
        return np.einsum("qk,qkr->qr", self.P[some], B[self.near[some]])

    def _loss(self, some, p, B, pulled, mean=None):
        """Return the mean KL of some anchors with weights p, whose mean of b under P is ``pulled``; see log_z."""
        attraction = np.einsum("qr,qr->q", p, pulled, dtype=np.float64)
        return float((self.log_z(p, B, some, mean) - attraction - self.entropy[some]).mean())

    def log_z(self, p, B, own, mean=None):
        """Return log Z (n,) float64 of weights p (n, r); item own[i] is not counted.

        Where ``mean`` (n, r) is given, the mean of b under Q is written to it, which costs nearly as much again.

        Tiles of scores are summed as they come, with the largest so far taken out (Milakov & Gimelshein 2018).
        """
        step = 64
        blocks = range(0, len(p), step)
        log_z = np.empty(len(p))

        def block(start):
            some = slice(start, start + step)
            log_z[some] = _softmax(p[some], B, own[some], None if mean is None else mean[some])

        with Crew(self.n_threads) as crew:
            for _ in crew.map(block, blocks):
                pass
        return log_z

    def state(self, V, p, B, arrays, numbers):
        """Return the arrays and numbers of the encoder: those given, and what depends on V, p = V a, and B."""
        log_z = self.log_z(p, B, np.arange(self.m)).astype(np.float32)
        form = (p.T @ p / np.float32(self.m)).astype(np.float64)
        some = np.sort(self.rng.choice(self.m, min(_FAR_SAMPLE, self.m), replace=False))
        far, half = np.empty(len(some)), np.empty(len(some))
        for at in range(0, len(some), 100):
            own = some[at : at + 100]
            b = B[own]
            mass = np.exp(np.minimum(b @ p.T - log_z, 80)).astype(np.float64)
            mass[np.arange(len(own)), own] = 0
            total = mass.sum(axis=1)
            np.put_along_axis(mass, self.near[own], 0, axis=1)
            far[at : at + 100] = np.log(np.maximum(mass.sum(axis=1), 1e-9 * np.maximum(total, 1e-30)))
            half[at : at + 100] = np.einsum("ij,jk,ik->i", b, form, b, optimize=True) / 2
        slope, offset = np.linalg.lstsq(np.stack([half, np.ones(len(some))], axis=1), far, rcond=None)[0]
        if "by_decoder" in numbers:  # a share of |V|^2 / |D|^2, since scores grow with V, and what is rebuilt does not
            scale, rho = 1.0, _DECODER_RHO * self.settings.quantization * _squares(V) / _squares(arrays["decoder"])
        else:
            scale = _PULL * np.einsum("ij,ij->", p, B, dtype=np.float64) / _squares(self.A)
            rho = self.settings.quantization * _fewer(self.settings.n_bits) ** 1.5
        made = {"log_z": log_z, "sharpness": self.sharpness, "log_p": self.log_p}
        made["far"] = np.ascontiguousarray(slope * form, np.float32)
        return arrays | made, numbers | {"offset": float(offset), "scale": float(scale), "rho": float(rho)}


def _squares(X):
    return np.einsum("ij,ij->", X, X, dtype=np.float64)


def _softmax(p, B, own, out=None):
    """Return log sum_j exp(p . b_j) without item own[i] for row i; the mean of b_j under that softmax goes to out."""
    top = np.full((len(p), 1), -np.inf, np.float32)
    total, mean = np.zeros((len(p), 1)), np.zeros(p.shape, np.float32)
    for start in range(0, len(B), _TILE):
        b = B[start : start + _TILE]
        z = p @ b.T
        mine = np.flatnonzero((own >= start) & (own < start + len(b)))
        z[mine, own[mine] - start] = -np.inf
        new = np.maximum(top, z.max(axis=1, keepdims=True))
        if np.isinf(new).any():  # one item only, which is its own
            new = np.where(np.isinf(new), np.float32(0), new)
        shrunk = np.exp(top - new)
        z -= new
        np.exp(z, out=z)
        total = total * shrunk + z.sum(axis=1, keepdims=True, dtype=np.float64)
        if out is not None:
            mean = mean * shrunk + z @ b
        top = new
    total = np.maximum(total, 1e-300)
    if out is not None:
        out[:] = mean / total
    return (top + np.log(total))[:, 0]


def _neighbors(A, k, n_threads):
    """Return the k nearest other anchors of each, int32 (m, k), and their squared distances, float32."""
    d2, items = np.full((len(A), k + 1), np.inf, np.float32), np.full((len(A), k + 1), -1, np.int64)
    _distances.nearest(Source(A), 0, len(A), A, d2, items, n_threads)
    own = items == np.arange(len(A))[:, np.newaxis]
    own[~own.any(axis=1), -1] = True  # behind as many copies of it: the last of them goes
    return items[~own].reshape(-1, k).astype(np.int32), d2[~own].reshape(-1, k)


def _perplexity(d2, wanted):
    """Return beta (m,), P (m, k) and the log of P's sum (m,): float32; P = exp(-beta d2 / 2) / sum has the perplexity.

    By bisection of log beta. Where all neighbours are equally near, any beta has the largest perplexity there is.
    """
    d2 = d2.astype(np.float64)
    nearer = d2 - d2[:, :1]
    spread = np.maximum(nearer.mean(axis=1, keepdims=True), 1e-30)
    low, high = 1e-3 / spread, 1e5 / spread
    for _ in range(40):
        beta = np.sqrt(low * high)
        weight = np.exp(-beta / 2 * nearer)
        total = weight.sum(axis=1, keepdims=True)
        flat = np.log(total) + beta / 2 * (weight * nearer).sum(axis=1, keepdims=True) / total > np.log(max(wanted, 1))
        low, high = np.where(flat, beta, low), np.where(flat, high, beta)
    log_p = np.log(total) - beta / 2 * d2[:, :1]
    return beta[:, 0].astype(np.float32), (weight / total).astype(np.float32), log_p[:, 0].astype(np.float32)
