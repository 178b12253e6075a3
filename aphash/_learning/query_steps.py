"""How many steps the weights of queries take towards the anchors near them (``item_encoder``). Needs numpy only.

The steps help as far as the anchors near a query say where its other neighbours are: more where data have clusters,
less where they have none or anchors are few. So a fit tries them on neighbours that take no part in them. Half of the
anchors stand for the anchors, and some of the others ask for the nearest of the others. Where there are many more items
than anchors, the nearest items lie far inside of what the nearest anchors span, and no step is taken.
"""

import numpy as np

from aphash._measuring.recall import ranks
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
    searched = ~references[near[asked]]
    true = np.where(searched & (np.cumsum(searched, axis=1) <= _TRUE), near[asked], -1)
    found = [min(k, m // 20) for k in _FOUND]  # of the half that is searched, a tenth
    if n_items > _DENSE * m or not m // 20 or (true < 0).all():
        return 0
    half, others = (items.snapshot.bitmap(np.flatnonzero(which)) for which in (references, ~references))
    recalls = []
    for steps in STEPS:
        weights = items.moved(A[asked], steps, n_threads, half).astype(np.float64)

        def find(some, k, weights=weights):
            return queries.nearest(SCAN, items.snapshot, weights[some], k, others, n_threads)[1]

        rank = ranks(find, m, asked, true, max(found))[true >= 0]
        recalls.append(np.mean([(rank <= k).mean() for k in found]))
    return max(steps for steps, recall in zip(STEPS, recalls, strict=True) if recall >= max(recalls) - _FALLS)
