"""P, the sparse row-stochastic matrix of the paper, from the distances between anchors and items, by thresholds."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

_RESCAN_ANCHORS = 8  # anchors whose ties are collected in one pass, so that the lists hold 8 n items at most
_DEPTH = 256  # features whose products are summed in one piece: APH_DEPTH of csrc/learn/kernels.h


@dataclass(frozen=True)
class Affinity:
    """P (m, n), stored by items: p_ij is 1/c_i for the c_i items within theta_i of anchor i, and 0 for the others.

    Attributes
    ----------
    counts : ndarray of int64, shape (m,)
        c_i, at least 1.
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

    theta_i is the mean Euclidean distance from anchor i to its k = n_neighbors nearest items, with itself among them
    where it is an item. p_ij is 1 where d(c_i, x_j) <= theta_i and 0 elsewhere; then each row is divided by its sum
    (Chen, Wang & Cheung 2018).

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
    A pass in float32 ranks candidates. Their distances are then computed in float64, from X as it was given. The list
    of candidates may be incomplete up to the k-th distance, because of ties, duplicates, or distances that float32
    cannot tell apart. Where it is not certainly complete, the anchor is scanned again for all items up to that
    distance. Needs about 30 m k bytes, and 12 bytes for each entry of P; there can be more than m k entries where many
    items are duplicates.
    """
    m = len(anchors)
    anchors = np.ascontiguousarray(anchors, np.float64)
    candidates = min(rows.n, n_neighbors + max(16, n_neighbors // 32))
    d2, items = rows.nearest(A, candidates)
    items.sort(axis=1)  # so that X is read in the order of the file
    exact = rows.distances(anchors, np.arange(0, m * candidates + 1, candidates), items.ravel()).reshape(m, -1)
    kth = np.partition(exact, n_neighbors - 1, axis=1)[:, n_neighbors - 1]
    # The float32 distance of an item that is no candidate is at least that of the last candidate. Such an item can be
    # as near as kth only if rounding has changed its distance by the difference. What is rounded are sums of products,
    # of size |a||x|, and an item as near as kth has |x| <= |a| + kth.
    reach = (kth * rows.scale) ** 2
    size = np.sqrt(np.einsum("ij,ij->i", A, A, dtype=np.float64))
    terms = min(rows.d, _DEPTH) + (rows.d - 1) // _DEPTH  # of the chain of sums: in a piece, then of pieces
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
    """Return d <= theta, where a mean of equal distances counts as equal to them, however it is rounded."""
    return distances <= theta * (1 + 1e-12)
