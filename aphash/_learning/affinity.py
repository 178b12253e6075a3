"""P: from the distances between anchors and items, by thresholds, to the sparse row-stochastic matrix of the paper."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

_RESCAN_ANCHORS = 8  # anchors whose ties are collected in one pass: bounds the list of candidates to 8 n items
_DEPTH = 256  # features whose products are summed before they meet other sums: APH_DEPTH of csrc/learn.h


@dataclass(frozen=True)
class Affinity:
    """P (m, n): p_ij = 1/c_i for the c_i items within theta_i of anchor i, else 0, by items.

    Attributes
    ----------
    counts : ndarray of int64, shape (m,)
        c_i >= 1.
    indptr, anchors : ndarray of int64, shape (n + 1,), and of int32
        The anchors of item j are ``anchors[indptr[j]:indptr[j + 1]]``, ascending.
    """

    counts: np.ndarray
    indptr: np.ndarray
    anchors: np.ndarray

    @property
    def weights(self):
        """1/c_i, float64 (m,)."""
        return 1.0 / self.counts


def affinity(rows, anchors, A, n_neighbors):
    """Return (theta, P) of the anchors.

    theta_i is the mean Euclidean distance from anchor i to its k = n_neighbors nearest items, itself among them where
    it is one; p_ij = 1 where d(c_i, x_j) <= theta_i, else 0, then each row is divided by its sum (Chen, Wang & Cheung
    2018).

    Parameters
    ----------
    rows : Rows
    anchors : ndarray of shape (m, d)
        In units of X.
    A : ndarray of float32, shape (m, d)
        Their working vectors.
    n_neighbors : int
        1 <= n_neighbors <= n.

    Returns
    -------
    theta : ndarray of float64, shape (m,)
        In units of X.
    P : Affinity

    Notes
    -----
    The float32 pass ranks candidates; their distances are then computed in float64 from X as it was given. An anchor
    whose list of candidates is not certainly complete up to its k-th distance (ties, duplicates, distances closer than
    float32 rounding) is scanned again for all items up to that distance. Needs about 30 m k bytes, and 12 bytes an
    entry of P, which can pass m k where many items are duplicates.
    """
    m = len(anchors)
    anchors = np.ascontiguousarray(anchors, np.float64)
    candidates = min(rows.n, n_neighbors + max(16, n_neighbors // 32))
    d2, items = rows.nearest(A, candidates)
    items.sort(axis=1)  # in the order of the file, for the reads
    exact = rows.distances(anchors, np.arange(0, m * candidates + 1, candidates), items.ravel()).reshape(m, -1)
    kth = np.partition(exact, n_neighbors - 1, axis=1)[:, n_neighbors - 1]
    # An item beyond the candidates has a float32 distance of at least the last one's. It can be as near as kth only
    # if rounding has moved it by the difference: sums of products of |a||x|, and such items have |x| <= |a| + kth.
    reach = (kth * rows.scale) ** 2
    size = np.sqrt(np.einsum("ij,ij->i", A, A, dtype=np.float64))
    terms = min(rows.d, _DEPTH) + (rows.d - 1) // _DEPTH  # added one by one: in a piece of the features, then pieces
    slack = (terms + 16) * np.finfo(np.float32).eps * (size + np.sqrt(reach) + 1e-6) ** 2
    unsure = np.flatnonzero((d2[:, -1] <= reach + slack) & (candidates < rows.n))

    theta = np.sort(exact, axis=1)[:, :n_neighbors].mean(axis=1)
    rescanned = {}
    for some in np.split(unsure, range(_RESCAN_ANCHORS, len(unsure), _RESCAN_ANCHORS)):
        if not some.size:
            continue
        bound = np.nextafter((reach[some] + slack[some]).astype(np.float32), np.float32(np.inf))
        indptr, near = rows.within(np.ascontiguousarray(A[some]), bound)
        distances = rows.distances(np.ascontiguousarray(anchors[some]), indptr, near)
        for i, start, stop in zip(some, indptr[:-1], indptr[1:], strict=True):
            mine = distances[start:stop]
            theta[i] = np.sort(mine)[:n_neighbors].mean()
            rescanned[i] = near[start:stop][_inside(mine, theta[i])]
    lists = [rescanned[i] if i in rescanned else items[i][_inside(exact[i], theta[i])] for i in range(m)]
    counts = np.array([len(each) for each in lists], np.int64)
    by_anchor = sparse.csr_array(
        (np.ones(counts.sum(), bool), np.concatenate(lists), np.concatenate([[0], np.cumsum(counts)])),
        shape=(m, rows.n),
    )
    by_item = by_anchor.tocsc()
    return theta, Affinity(counts, by_item.indptr.astype(np.int64), by_item.indices.astype(np.int32))


def _inside(distances, theta):
    """d <= theta, where a mean of equal distances counts as equal to them whatever its rounding."""
    return distances <= theta * (1 + 1e-12)
