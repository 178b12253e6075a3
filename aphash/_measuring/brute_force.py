"""The true nearest rows of vectors, with which calibrations compare. Needs numpy only."""

import numpy as np

from aphash._common.threads import map_ordered, one_blas_thread
from aphash.rescore import VectorRescore, rerank, unit_vectors, with_queries

_TILE = 1 << 22  # distances that each thread holds at a time
_MORE = 32  # more candidates than are wanted, since float32 may order the last ones differently


def nearest_rows(X, own_rows, metric, k, n_threads):
    """Return (distances, rows), (m, k), of the rows of X that are nearest to some of its rows, each without itself.

    A float32 product of centred vectors ranks the rows. The nearest k + 32 are ranked anew by the exact distances of a
    :class:`VectorRescore`. Needs 16 MiB for each thread, and a chunk of rows.

    Parameters
    ----------
    X : ndarray of floats, shape (n, d)
    own_rows : ndarray of int64, shape (m,)
    metric : {"cosine", "l2"}
    k : int
        Less than n.
    """
    n, m = len(X), len(own_rows)
    wanted = min(n - 1, k + _MORE)
    q = working(X[own_rows], metric)
    centre = q.mean(axis=0)
    size = np.sqrt(np.mean(np.square(q - centre, dtype=np.float64).sum(axis=1))) or 1
    q = ((q - centre) / size).astype(np.float32)
    best = np.full((m, wanted), np.inf, np.float32), np.full((m, wanted), -1, np.int64)
    step = max(1, _TILE // m)

    def near(start):
        """Return the pairs in a chunk that are nearer than the farthest result so far. Results only get nearer."""
        chunk = (working(X[start : start + step], metric) - centre) / size
        chunk = chunk.astype(np.float32, copy=False)
        distances = np.einsum("nd,nd->n", chunk, chunk) - 2 * (q @ chunk.T)  # |x - q|^2 - |q|^2
        own = (own_rows >= start) & (own_rows < start + step)
        distances[own, own_rows[own] - start] = np.inf
        query, place = np.nonzero(distances < best[0][:, -1:])
        if len(query) > m * wanted and wanted < len(chunk):  # in the first chunks, when the results are still far
            place = np.argpartition(distances, wanted - 1, axis=1)[:, :wanted].ravel()
            query = np.repeat(np.arange(m), wanted)
        return query, place + start, distances[query, place]

    waiting, n_waiting = [], 0
    with one_blas_thread():
        for found in map_ordered(near, ((start,) for start in range(0, n, step)), n_threads):
            waiting.append(found)
            n_waiting += len(found[0])
            if n_waiting > m * wanted:
                best, waiting, n_waiting = _merged(best, waiting), [], 0
        best = _merged(best, waiting)
    finer = with_queries(VectorRescore(X, metric=metric), X[own_rows], n_threads).distances(0, best[1])
    return rerank(best[1], finer, min(k, n - 1))


def working(X, metric):
    """Return vectors whose Euclidean distances rank as the metric does."""
    X = X.astype(np.float32) if X.dtype == np.float16 else X
    return unit_vectors(X)[0] if metric == "cosine" else X


def _merged(best, found):
    """Return (distances, rows) of the nearest among the best so far and what was found since."""
    m, k = best[0].shape
    query = np.concatenate([np.repeat(np.arange(m), k), *(each[0] for each in found)])
    rows = np.concatenate([best[1].ravel(), *(each[1] for each in found)])
    distances = np.concatenate([best[0].ravel(), *(each[2] for each in found)])
    order = np.lexsort((rows, distances, query))
    starts = np.searchsorted(query[order], np.arange(m))
    order = order[starts[:, np.newaxis] + np.arange(k)]
    return distances[order], rows[order]
