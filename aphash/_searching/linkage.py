"""Groups of near pairs: connected components (single linkage), or groups in which every two items are near."""

import numpy as np

from aphash._searching._linkage import CompleteLinkage

_PAIRS_AT_A_TIME = 1 << 16  # so many are taken between two checks for Ctrl-C


def join(labels, i, j):
    """Return labels of n items, numbers below n, in which each pair has the same label. Takes O(n + pairs)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(labels)
    edges = coo_array((np.ones(len(i), bool), (labels[i], labels[j])), shape=(n, n))
    return connected_components(edges, directed=False)[1][labels]


def single(n, chunks):
    """Return labels of n items, so that each pair in the chunks (i, j, distances) is in one group."""
    labels = np.arange(n)
    waiting, n_waiting = [], 0
    for i, j, _ in chunks:  # at least n pairs are merged at a time, since a merge costs O(n)
        waiting.append((i, j))
        n_waiting += len(i)
        if n_waiting >= max(n, _PAIRS_AT_A_TIME):
            labels = join(labels, *map(np.concatenate, zip(*waiting)))
            waiting, n_waiting = [], 0
    return join(labels, *map(np.concatenate, zip(*waiting))) if waiting else labels


def complete(n, chunks):
    """Return labels of n items, so that any two items of a group are among the pairs in the chunks (i, j, distances).

    This is agglomerative complete linkage: the two groups whose farthest items are nearest are joined, as long as all
    pairs between them are given. Among equal distances the pair with the smallest i, then j, comes first. Needs about
    200 bytes for each pair.
    """
    i, j, distances = (np.concatenate(each) for each in zip(_NO_PAIRS, *chunks))
    order = np.lexsort((j, i, distances))
    i, j = i[order], j[order]
    taken = np.unique(np.concatenate([i, j]))
    linkage = CompleteLinkage(len(taken))
    for start in range(0, len(i), _PAIRS_AT_A_TIME):
        some = slice(start, start + _PAIRS_AT_A_TIME)
        linkage.add(np.searchsorted(taken, i[some]), np.searchsorted(taken, j[some]))
    labels = np.arange(n)
    labels[taken] = taken[linkage.groups()]
    return labels


_NO_PAIRS = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)


def numbered(labels):
    """Return labels that count the groups from 0, in the order of their first items."""
    _, first, label = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[label]
