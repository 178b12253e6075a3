"""Safeguards against unusual data: far rows do not learn, and learned bits are compared with random hyperplanes.

A few extreme rows can dominate the means and sums of squares on which the objective depends. The objective may also
spend all bits on the differences between clusters, or on fewer directions than there are bits, so that many items share
a code. Both are detected on a sample of the rows, without labels. The bits of ordinary data do not change.
"""

import numpy as np
from scipy import linalg

FAR, TAIL = 4.0, 2.0  # far rows lie beyond FAR median distances, where the mean square is TAIL times the median one
_SAMPLE_ROWS, _SAMPLE_ROWS_NEIGHBORS, _SAMPLE_NUMBERS, _QUERIES = 2500, 10_000, 1 << 22, 300
_SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # the shares of bits that may become random hyperplanes
_EDGE = 0.02  # the share of ranks at each end where a hyperplane would leave nearly all rows on one side
_DRAWS = 3  # draws of random projections, and of hyperplanes of each kind
_DISTINCT, _ENOUGH = 0.8, 0.85  # of the distinct codes of random projections: to pass, and once bits are replaced
_MARGIN = 0.02  # replaced bits must have so much more recall, since more is lost among all rows than in the sample
_LOSS, _LOSS_OF_NEARNESS = 0.01, 0.02  # differences that 300 queries cannot tell from 0
# In the modes that are not for the nearest neighbours, items of one kind share codes. So there may be as few distinct
# codes as this share, unless the loss of recall is so large.
_DISTINCT_OF_KIND, _LOSS_OF_KIND = 0.25, 0.05
MAX_BITS = 4096  # longer codes are not checked


def sample_size(n, d, neighbors):
    """Return how many of n rows are measured: more with ``neighbors``, since the nearest of few rows are far."""
    return min(n, _SAMPLE_ROWS_NEIGHBORS if neighbors else _SAMPLE_ROWS, max(500, _SAMPLE_NUMBERS // d))


def far_rows(rows, sample):
    """Return which rows are so far away that they would dominate the means and sums of squares, or None.

    They are the rows beyond 4 times the median distance to the centre, which is the median of each feature in the
    sample. There are none unless the mean squared distance of all rows is more than twice the median one of the sample,
    as heavy tails make it, and unless most such rows of the sample are alone. Far rows in company are a cluster, which
    has to be learned.

    Parameters
    ----------
    rows : Rows
    sample : ndarray of shape (s, d)
        Rows as they are in X.

    Returns
    -------
    ndarray of bool, shape (n,), or None
    """
    sample = np.asarray(sample, np.float64)
    centre = np.median(sample, axis=0)
    with np.errstate(over="ignore"):
        sample = sample - centre
        squares = np.einsum("ij,ij->i", sample, sample)
    typical = np.median(squares[squares > 0]) if squares.any() else 0  # many rows may be equal
    if not 0 < typical < np.inf or rows.scale**-2 <= TAIL * typical:
        return None
    if _in_company(sample, squares, np.flatnonzero(squares > FAR**2 * typical)[:_QUERIES]):
        return None
    distances = rows.distances(centre[None], np.array([0, rows.n]), np.arange(rows.n))
    far = distances > FAR * np.sqrt(typical)
    return far if far.any() and not far.all() else None


def _in_company(V, squares, rows):
    """Return whether most of the rows have a different row within a quarter of their length."""
    if not len(rows):
        return False
    D = squares + squares[rows, None] - 2 * V[rows] @ V.T
    D[1e-12 * squares[rows, None] >= D] = np.inf  # the row itself, and its duplicates
    return bool(np.mean(D.min(axis=1) < squares[rows] / 16) > 0.5)


def random_hyperplanes(V, r, rng, through):
    """Return W (d, r) and bias (r,) of random hyperplanes, through the centre or through the data.

    Their directions are random, and orthogonal to each other, d at a time (Ji, Li, Yan, Zhang & Tian 2012). With
    hyperplanes through the centre, Hamming distances measure angles. A hyperplane through the data passes between two
    rows of V (s, d) that are neighbours in its direction, at a rank that is drawn at random. Such a tessellation cuts
    where the items are, also if they lie in few directions, in tight clusters or in heavy tails.
    """
    d = V.shape[1]
    batches = np.linalg.qr(rng.standard_normal((-(-r // d), d, min(d, r))))[0]  # (batch, d, column)
    W = batches.transpose(1, 0, 2).reshape(d, -1)[:, :r]
    if through == "centre":
        return W, np.zeros(r)
    Z = np.sort(V @ W, axis=0)
    ranks = np.cumsum(Z[1:] > Z[:-1], axis=0)  # ranks of the gaps; between equal rows there is no gap
    at = (ranks >= 1 + np.floor(rng.uniform(_EDGE, 1 - _EDGE, r) * ranks[-1])).argmax(axis=0)
    columns = np.arange(r)
    return W, -(Z[at, columns] + Z[at + 1, columns]) / 2


class Check:
    """Measures of codes on a sample V, (s, d) float64: what the first results are, and how many codes are distinct.

    Ties in the Hamming distance count as their expectation over random orders. Distinct codes are counted among at most
    2,500 rows, since among many rows every short code occurs.
    """

    def __init__(self, V, rng, first=100):
        s = len(V)
        self.near, self.first = max(1, min(10, s // 10)), max(1, min(first, s // 3))
        self.queries = np.sort(rng.choice(s, min(_QUERIES, s), replace=False))
        self.counted = np.sort(rng.choice(s, min(_SAMPLE_ROWS, s), replace=False))
        Q = V[self.queries]
        D = np.einsum("ij,ij->i", V, V) - 2 * (Q @ V.T) + np.einsum("ij,ij->i", Q, Q)[:, None]
        self.itself = np.arange(len(Q)), self.queries
        D[self.itself] = np.inf
        bound = np.partition(D, self.near - 1, axis=1)[:, self.near - 1]
        self.relevant = bound[:, None] + 1e-12 >= D
        typical = np.maximum(np.median(D, axis=1, keepdims=True), np.finfo(float).tiny)
        D[self.itself] = 0
        self.squares = np.minimum(D / typical, 4)  # so that the far rows of heavy tails do not dominate the mean

    def of(self, bits):
        """Return (recall, nearness) of bits: the share of the 10 nearest rows among the first results, and minus the
            mean
        squared distance of the first results, as a share of the query's median one.
        """
        signs = np.where(bits, np.float32(1), np.float32(-1))
        D = -(signs[self.queries] @ signs.T)
        D[self.itself] = np.inf
        bound = np.partition(D, self.first - 1, axis=1)[:, self.first - 1 : self.first]
        inside, level = bound > D, bound == D
        weight = inside + level * ((self.first - inside.sum(axis=1)) / level.sum(axis=1))[:, None]
        hits = np.minimum(np.einsum("ij,ij->i", self.relevant, weight), self.near)
        return float(hits.mean() / self.near), -float(np.einsum("ij,ij->", self.squares, weight) / weight.sum())

    def distinct(self, bits):
        """Return the number of distinct codes."""
        return distinct(bits[self.counted])


def distinct(bits):
    """Return the number of distinct rows of bits."""
    return len(set(map(bytes, np.packbits(bits, axis=1))))


def few_codes(V, r):
    """Return a tenth of the number of distinct codes that there could be of r bits for the rows of V."""
    return 0.1 * min(len(set(map(bytes, V))), 2.0 ** min(r, 60))


def _bits(V, W, bias):
    return V @ W + bias >= 0


def reinforce(V, W, bias, rng, neighbors):
    """Replace learned bits by random hyperplanes where the learned code is worse than random ones.

    The learned code is compared with random projections of as many bits. With ``neighbors`` it fails where it has a
    lower recall, or less than .8 of their distinct codes. Without ``neighbors`` it fails where its first results are
    farther away, or where it has less than a quarter of their distinct codes (.8 where its recall is much lower). In
    both cases it also fails where its distinct codes are fewer than a tenth of what they could be. Random projections
    may fail by this, too, because a line has only two sides of its centre.

    Where the code fails, 1/8 to all of its bits are replaced by hyperplanes through the centre or through the data, in
    several draws. Those bits go first that follow from the others. The fewest bits are replaced that give .85 of the
    distinct codes and find as much. With ``neighbors`` and so few codes, those with the highest recall are taken.

    Parameters
    ----------
    V : ndarray of float64, shape (s, d)
        A sample of the working vectors.
    W, bias : ndarray of float64, shapes (d, r) and (r,)
    rng : RandomState
    neighbors : bool

    Returns
    -------
    W, bias : as given, or new ones
    replaced : int
        How many bits are random hyperplanes.
    """
    r = W.shape[1]
    check = Check(V, rng)
    learned = _bits(V, W, bias)
    random_bits = [_bits(V, rng.standard_normal(W.shape), 0) for _ in range(_DRAWS)]
    reference = np.mean([check.distinct(each) for each in random_bits])
    recall, nearness = np.mean([check.of(each) for each in random_bits], axis=0)
    min_codes = few_codes(V[check.counted], r)
    n_codes, (own_recall, own_nearness) = check.distinct(learned), check.of(learned)
    if neighbors:
        finds, few = own_recall >= recall - _LOSS, _DISTINCT
    else:
        finds = own_nearness >= nearness - _LOSS_OF_NEARNESS
        few = _DISTINCT_OF_KIND if own_recall >= recall - _LOSS_OF_KIND else _DISTINCT
    collapsed = n_codes < min_codes
    if finds and not collapsed and n_codes >= few * reference:
        return W, bias, 0

    draws = max(_DRAWS, 128 // r)  # short codes depend on the draw
    fills = [random_hyperplanes(V, r, rng, through) for through in ("centre", "data") for _ in range(draws)]
    fill_bits = [_bits(V, *fill) for fill in fills]
    *_, order = linalg.qr(
        np.where(learned[check.counted], 1.0, -1.0), mode="r", pivoting=True
    )  # the most independent bits first
    goal = max(recall, min(recall + _MARGIN, 0.95)) if neighbors else nearness
    best, found = (), None
    for share in _SHARES:
        replaced = order[r - max(1, round(share * r)) :]
        for fill, bits in zip(fills, fill_bits, strict=True):
            mixed = learned.copy()
            mixed[:, replaced] = bits[:, replaced]
            found_recall, found_nearness = check.of(mixed)
            value = found_recall if neighbors else found_nearness
            n_codes = check.distinct(mixed)
            many = n_codes >= _ENOUGH * reference
            score = many and value >= goal and n_codes >= min_codes, many and value >= goal, many, value
            if score > best:
                best, found = score, (replaced, fill)
        if best[0] and not (neighbors and collapsed):
            break
    replaced, (fill_W, fill_bias) = found
    W, bias = W.copy(), bias.copy()
    W[:, replaced], bias[replaced] = fill_W[:, replaced], fill_bias[replaced]
    return W, bias, len(replaced)
