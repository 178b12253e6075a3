"""How many steps the weights of queries take towards the anchors near them (``item_encoder``). Needs numpy only.

The steps help as far as the anchors near a query say where its other neighbours are: more where data have clusters,
less where they have none or anchors are few. So a fit tries them on neighbours that take no part in them. Half of the
anchors stand for the anchors, and some of the others ask for the nearest of the others. Where there are many more items
than anchors, the nearest items lie far inside of what the nearest anchors span, and no step is taken.
"""

import numpy as np

from aphash._searching import queries
from aphash._searching.engines import SCAN

STEPS = (0, 1, 2, 4)
_QUERIES, _TRUE = 2000, 10  # queries, and neighbours of each
_FOUND = (10, 100)  # recall of these many results is compared, the mean of both
_DENSE = 5  # items an anchor, at most: with 15, a million descriptors lose recall10@10 (bench/README.md)
_FALLS = 0.002  # by so much it may fall below the best: by less than chance makes of it


def best(items, A, near, n_items, rng, n_threads):
    """Return the most steps whose recall is as good as the best.

    Parameters
    ----------
    items : ItemEncoder
        Of the anchors.
    A : ndarray of float32, shape (m, d)
        The anchors, as the encoder takes vectors.
    near : ndarray of int32, shape (m, k)
        The nearest other anchors of each, in order of their distance.
    n_items : int
        How many items there are to be searched, of which the anchors are a sample.
    rng : RandomState
    n_threads : int
    """
    m = len(A)
    references = np.zeros(m, bool)
    references[rng.permutation(m)[: m // 2]] = True
    asked = rng.permutation(np.flatnonzero(~references))[:_QUERIES]
    others = ~references[near[asked]]
    true = np.where(others & (np.cumsum(others, axis=1) <= _TRUE), near[asked], -1)
    found = [min(k, m // 20) for k in _FOUND]  # of the half that is searched, a tenth
    if n_items > _DENSE * m or not m // 20 or (true < 0).all():
        return 0
    recalls = []
    for steps in STEPS:
        weights = items.moved(A[asked], steps, n_threads, _bitmap(references)).astype(np.float64)
        ids = queries.nearest(SCAN, items.snapshot, weights, max(found) + 1, _bitmap(~references), n_threads)[1]
        ids = _without(ids, asked)
        hits = [np.isin(_pairs(ids[:, :k]), _pairs(true)).sum() for k in found]
        recalls.append(np.mean(hits) / (true >= 0).sum())
    return max(steps for steps, recall in zip(STEPS, recalls, strict=True) if recall >= max(recalls) - _FALLS)


def _bitmap(mask):
    """Return a mask as the packed bitmap of a search."""
    return np.packbits(np.pad(mask, (0, -len(mask) % 64)), bitorder="little").view("<u8").astype(np.uint64)


def _without(ids, own):
    """Return ids (n, k - 1) without the query itself, or without the last where it is not among them."""
    drop = ids == own[:, np.newaxis]
    drop[~drop.any(axis=1), -1] = True
    return ids[~drop].reshape(len(ids), -1)


def _pairs(ids):
    """Return (row, id) as one number each; of the id -1 there are none."""
    rows, columns = np.nonzero(ids >= 0)
    return rows << 32 | ids[rows, columns].astype(np.int64)
