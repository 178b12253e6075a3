"""Query expansion: the nearest codes of a query are added to it, and it is searched for again. Needs numpy only.

Sources: Chum et al., "Total recall: automatic query expansion with a generative feature model" (2007); Radenovic,
Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation" (2018), of which this is the unweighted case,
on codes.
"""

import math
import numbers

import numpy as np

from aphash._common.arrays import shown
from aphash._common.checks import check_count
from aphash._searching.queries import is_float
from aphash.codes import unpack_codes

_CHUNK_BITS = 1 << 24  # bits that are unpacked at a time, a byte for each


def check_expansion(expand, expand_weight, rows):
    """Return (expand, expand_weight), checked. TypeError or ValueError where they, or the queries, do not fit."""
    expand = check_count(expand, "expand", 0)
    if isinstance(expand_weight, bool) or not isinstance(expand_weight, numbers.Real):
        raise TypeError(f"expand_weight must be a number, got {shown(expand_weight)}")
    if not 0 <= expand_weight < math.inf:
        raise ValueError(f"expand_weight must be finite and at least 0, got {expand_weight}")
    if expand and not is_float(rows):
        raise TypeError("expand needs queries that are weights, hasher.query_projections(X), got codes")
    return expand, float(expand_weight)


def expanded(weights, ids, codes_of, expand_weight):
    """Return the weights of expanded queries.

    The weights of a query are divided by their mean magnitude. Then ``expand_weight`` times the mean of the codes of
    its results, as -1 and +1, is added. A query without results, or with zeros only, stays as it is.

    Parameters
    ----------
    weights : float64 (n_queries, n_bits)
    ids : int64 (n_queries, expand)
        Results, -1 where there is none.
    codes_of : callable
        ``codes_of(ids)`` gives their codes.
    expand_weight : float
    """
    n_bits = weights.shape[1]
    out = weights.copy()
    step = max(1, _CHUNK_BITS // max(1, ids.shape[1] * n_bits))
    for start in range(0, len(weights), step):
        some = ids[start : start + step]
        real = some != -1
        signs = np.zeros((*some.shape, n_bits), np.int8)
        signs[real] = unpack_codes(codes_of(some[real]), n_bits)
        signs[real] *= 2
        signs[real] -= 1
        count = real.sum(axis=1)
        mean = signs.sum(axis=1, dtype=np.int64) / np.maximum(count, 1)[:, np.newaxis]
        old = weights[start : start + step]
        max_size = np.abs(old).max(axis=1, keepdims=True)
        changed = (count > 0) & (max_size[:, 0] > 0)
        unit = old[changed] / max_size[changed]
        unit /= np.abs(unit).mean(axis=1, keepdims=True)
        out[start : start + step][changed] = unit + expand_weight * mean[changed]
    return out
