"""What no data may ruin: far rows that do not learn, and a check of the learned bits against random hyperplanes.

The objective trusts means and sums of squares, which a few extreme rows own; and it may spend all bits on what is
between clusters, or on fewer directions than there are bits, so that many items share a code. Both are looked for
by what can be measured without labels, on a sample of the rows, and ordinary data pass: their bits do not change.
"""

import numpy as np
from scipy import linalg

FAR, TAIL = 4.0, 2.0  # far: beyond so many median distances, where the mean square is so many times the median one
_SAMPLE_ROWS, _SAMPLE_ROWS_NEIGHBORS, _SAMPLE_NUMBERS, _QUERIES = 2500, 10_000, 1 << 22, 300
_SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # of the bits that become random hyperplanes
_EDGE = 0.02  # of the ranks, where a hyperplane would leave nearly all rows on one side
_DRAWS = 3  # of random projections, and of hyperplanes of each kind
_DISTINCT, _ENOUGH = 0.8, 0.85  # of the distinct codes of random projections: to pass, and once bits are replaced
_MARGIN = 0.02  # of recall that replaced bits are to have: what is lost among all rows is more than among the sample's
_LOSS, _LOSS_OF_NEARNESS = 0.01, 0.02  # what 300 queries do not tell from nothing
# In the modes that are not for the nearest neighbours codes agree where the kind does: there may be as few as these,
# unless they lose so much recall.
_DISTINCT_OF_KIND, _LOSS_OF_KIND = 0.25, 0.05
MAX_BITS = 4096  # of codes that are checked


def sample_size(n, d, neighbors):
    """Return how many of n rows are looked at: more with ``neighbors``, since the nearest of few rows are far."""
    return min(n, _SAMPLE_ROWS_NEIGHBORS if neighbors else _SAMPLE_ROWS, max(500, _SAMPLE_NUMBERS // d))


def far_rows(rows, sample):
    """Return which rows are so far away that they would own the means and sums of squares, or None.

    They are the rows beyond 4 times the median distance to the centre, the sample's median of each feature; but only
    where the mean squared distance of all rows is more than twice the sample's median one, as heavy tails make it, and
    where most such rows of the sample are alone: far rows in company are a cluster, which is to be learned.

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
    """Return whether most of the rows have another, different one within a quarter of their length."""
    if not len(rows):
        return False
    D = squares + squares[rows, None] - 2 * V[rows] @ V.T
    D[1e-12 * squares[rows, None] >= D] = np.inf  # itself, and its duplicates
    return bool(np.mean(D.min(axis=1) < squares[rows] / 16) > 0.5)


def random_hyperplanes(V, r, rng, through):
    """Return W (d, r) and bias (r,) of random hyperplanes, through the centre or through the data.

    Their directions are random and orthogonal to each other, d at a time (Ji, Li, Yan, Zhang & Tian 2012). Through the
    centre, Hamming distances measure angles. Through the data, each passes between two rows of V (s, d) that
    are neighbours on it, at a rank drawn at random: a tessellation, which cuts where the items are, be they in few
    directions, in tight clusters or in heavy tails.
    """
    d = V.shape[1]
    batches = np.linalg.qr(rng.standard_normal((-(-r // d), d, min(d, r))))[0]  # (batch, d, column)
    W = batches.transpose(1, 0, 2).reshape(d, -1)[:, :r]
    if through == "centre":
        return W, np.zeros(r)
    Z = np.sort(V @ W, axis=0)
    ranks = np.cumsum(Z[1:] > Z[:-1], axis=0)  # of the gaps: between equal rows there is none
    at = (ranks >= 1 + np.floor(rng.uniform(_EDGE, 1 - _EDGE, r) * ranks[-1])).argmax(axis=0)
    columns = np.arange(r)
    return W, -(Z[at, columns] + Z[at + 1, columns]) / 2


class Check:
    """Measures of codes on a sample of V, (s, d) float64: what their first ones are, and how many are distinct.

    Ties in the Hamming distance count as their expectation over random orders. Codes are counted among at most 2,500
    rows, for of many rows all short codes have many.
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
        self.squares = np.minimum(D / typical, 4)  # so that the far rows of heavy tails do not own the mean

    def of(self, bits):
        """Return (recall, nearness): the 10 nearest in the first ones, and minus the first ones' mean squared distance.

        The squared distances are shares of the query's median one.
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

    Random projections of as many bits are the measure. With ``neighbors`` a code fails that has a lower recall, or less
    than .8 of their distinct codes. Without, one that finds what is farther away, or has less than a quarter of their
    distinct codes (.8, where its recall is much lower). And either, where they are fewer than a tenth of what they
    could be: random projections may be, too, as a line has two sides of its centre. Then 1/8 to all of its bits are
    replaced, first those that the others tell already, by hyperplanes through the centre or the data, in several
    draws: the fewest that give .85 of the distinct codes and find as much; with ``neighbors`` and so few codes, those
    of the highest recall.

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
