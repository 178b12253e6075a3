"""What no data may ruin: far rows that do not learn, and a check of the learned bits against random hyperplanes.

The objective trusts means and sums of squares, which a few extreme rows own; and it may spend all bits on what is
between clusters, or on fewer directions than there are bits, so that many items share a code. Both are looked for
by what can be measured without labels, on a sample of the rows, and ordinary data pass: their bits do not change.
"""

import numpy as np
from scipy import linalg

FAR, TAIL = 4.0, 2.0  # far: beyond so many median distances, where the mean square is so many times the median one
_SAMPLE_ROWS, _SAMPLE_NUMBERS, _QUERIES = 3000, 1 << 23, 300
_SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # of the bits that become random hyperplanes
_LOSS = 0.01  # of recall: what 300 queries do not tell from nothing
MAX_BITS = 4096  # of codes that are checked


def sample_size(n, d):
    """Return how many of n rows are looked at."""
    return min(n, _SAMPLE_ROWS, max(500, _SAMPLE_NUMBERS // d))


def far_rows(rows, sample):
    """Return which rows are so far away that they would own the means and sums of squares, or None.

    They are the rows beyond 4 times the median distance to the centre, the sample's median of each feature; but only
    where the mean squared distance of all rows is more than twice the sample's median one, as heavy tails make it.

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
        squares = np.einsum("ij,ij->i", sample - centre, sample - centre)
    typical = np.median(squares[squares > 0]) if squares.any() else 0  # many rows may be equal
    if not 0 < typical < np.inf or rows.scale**-2 <= TAIL * typical:
        return None
    distances = rows.distances(centre[None], np.array([0, rows.n]), np.arange(rows.n))
    far = distances > FAR * np.sqrt(typical)
    return far if far.any() and not far.all() else None


def random_hyperplanes(V, r, rng, through):
    """Return W (d, r) and bias (r,) of random hyperplanes: Gaussian directions, through the centre or through the data.

    "centre": signs of random projections (Charikar 2002), whose Hamming distance measures angles. "data": each
    passes between two rows of V (s, d) that are neighbours on it, at a rank drawn at random: a tessellation, in which
    few directions, tight clusters and heavy tails are still cut where the items are.
    """
    W = rng.standard_normal((V.shape[1], r))
    if through == "centre":
        return W, np.zeros(r)
    Z = np.sort(V @ W, axis=0)
    gaps = Z[1:] > Z[:-1]
    ranks = np.cumsum(gaps, axis=0)
    wanted = 1 + np.floor(rng.uniform(size=r) * ranks[-1])
    at = (ranks >= wanted).argmax(axis=0)  # the gap of that rank
    columns = np.arange(r)
    return W, -(Z[at, columns] + Z[at + 1, columns]) / 2


class Check:
    """Measures of codes on a sample: recall of the true neighbours, and how many codes are distinct.

    Parameters
    ----------
    V : ndarray of float64, shape (s, d)
        Working vectors.
    rng : RandomState
    """

    def __init__(self, V, rng):
        s = len(V)
        self.near, self.first = max(1, min(10, s // 10)), max(2, min(100, s // 3))
        self.queries = np.sort(rng.choice(s, min(_QUERIES, s), replace=False))
        Q = V[self.queries]
        D = np.einsum("ij,ij->i", V, V) - 2 * (Q @ V.T) + np.einsum("ij,ij->i", Q, Q)[:, None]
        self.itself = np.arange(len(Q)), self.queries
        D[self.itself] = np.inf
        bound = np.partition(D, self.near - 1, axis=1)[:, self.near - 1]
        self.relevant = D <= bound[:, None] + 1e-12
        self.relevant[self.itself] = False

    def recall(self, bits):
        """Return the share of the 10 nearest in the first 100 by Hamming distance, ties at their expectation."""
        signs = np.where(bits, np.float32(1), np.float32(-1))
        D = -(signs[self.queries] @ signs.T)
        D[self.itself] = np.inf
        bound = np.partition(D, self.first - 1, axis=1)[:, self.first - 1 : self.first]
        inside, level = bound > D, bound == D
        room = (self.first - inside.sum(axis=1)) / level.sum(axis=1)
        hits = (self.relevant & inside).sum(axis=1) + room * (self.relevant & level).sum(axis=1)
        return float(np.minimum(hits, self.near).mean() / self.near)

    def distinct(self, bits):
        """Return the number of distinct codes."""
        return len(np.unique(np.packbits(bits, axis=1), axis=0))


def _bits(V, W, bias):
    return V @ W + bias >= 0


def reinforce(V, W, bias, rng, neighbors, least_distinct):
    """Replace learned bits by random hyperplanes where the learned code is worse than random ones.

    Random projections of as many bits are the measure. A code fails that has fewer distinct codes than the share
    ``least_distinct`` of theirs, or, with ``neighbors``, a lower recall. Then 1/8 to all of its bits are replaced, those
    that the others tell first, by hyperplanes through the centre or through the data: the fewest that have .85 of
    the distinct codes, or, with ``neighbors``, those of the highest recall.

    Parameters
    ----------
    V : ndarray of float64, shape (s, d)
        A sample of the working vectors.
    W, bias : ndarray of float64, shapes (d, r) and (r,)
    rng : RandomState
    neighbors : bool
    least_distinct : float

    Returns
    -------
    W, bias : as given, or new ones
    replaced : int
        How many bits are random hyperplanes.
    """
    r = W.shape[1]
    check = Check(V, rng)
    learned = _bits(V, W, bias)
    fills = {("centre", i): random_hyperplanes(V, r, rng, "centre") for i in range(2)}
    random_bits = {key: _bits(V, *fill) for key, fill in fills.items()}
    reference = np.mean([check.distinct(each) for each in random_bits.values()])
    goal = np.mean([check.recall(each) for each in random_bits.values()]) if neighbors else 0
    recall = check.recall(learned) if neighbors else 0
    if check.distinct(learned) >= least_distinct * reference and recall >= goal - _LOSS:
        return W, bias, 0

    fills["data", 0] = random_hyperplanes(V, r, rng, "data")
    random_bits["data", 0] = _bits(V, *fills["data", 0])
    *_, order = linalg.qr(np.where(learned, 1.0, -1.0), mode="r", pivoting=True)  # the most independent bits first
    best, found = (), None
    for share in _SHARES:
        replaced = order[r - max(1, round(share * r)) :]
        for key, fill in random_bits.items():
            mixed = learned.copy()
            mixed[:, replaced] = fill[:, replaced]
            enough = check.distinct(mixed) >= 0.85 * reference or share == 1
            score = enough, check.recall(mixed)
            if score > best:
                best, found = score, (replaced, fills[key])
        if best[0] and not neighbors:
            break
    replaced, (fill_W, fill_bias) = found
    W, bias = W.copy(), bias.copy()
    W[:, replaced], bias[replaced] = fill_W[:, replaced], fill_bias[replaced]
    return W, bias, len(replaced)
