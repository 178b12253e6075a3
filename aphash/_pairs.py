"""All near pairs of an index: streamed, as groups, and the graph of nearest neighbours."""

import numpy as np

from aphash import _kernels, _search
from aphash._checks import as_ids, check_count
from aphash._runtime import n_threads

COMPARE_COST = 10.0  # nanoseconds for two codes that agree in a span, at scattered places: an estimate, not measured

_BLOCK_CODES = 512  # a scan begins at a multiple of it
_TILE_QUERIES, _TILE_CODES = 64, 1 << 16  # multiples of 64, and of _BLOCK_CODES
_BLOCK = 1 << 16  # pairs that are handed out at a time, at least, until the last


class Pairs:
    """The part of HammingIndex that compares its codes with each other."""

    def pairs(self, radius, *, filter=None, n_jobs=None, verbose=0):
        """Find all pairs of codes within a radius, each once.

        Parameters
        ----------
        radius : int
            At least 0; pairs at this distance are found.
        filter
            As for :meth:`search`: both codes of a pair take part.
        n_jobs : int, optional
            Threads, where pairs are found by scans; the tables of small radii use one.
        verbose : int, default=0
            1 shows a progress bar.

        Yields
        ------
        ids_i, ids_j : ndarray of int64, shape (m,)
            ``ids_i < ids_j``.
        distances : ndarray of int32, shape (m,)
            Blocks of some 65,536 pairs, up to four million where pairs are dense. The order of pairs and blocks is not
            stated.

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said: at the call, not at the first block.

        Notes
        -----
        The pairs are those of the index at the call. Later changes are not seen, and the pages that they change are
        kept until the last block is taken or the generator is closed.

        Codes within a small radius agree in one of ``radius + 1`` spans of their bits, so only such are compared; where
        the spans are too short for that, all are, by scans. Memory: 8 bytes a code, and 200 MiB at most for the blocks.
        """
        radius = min(check_count(radius, "radius", 0), self.n_bits)
        threads = n_threads(n_jobs, _kernels.max_threads())
        snapshot = self._store.present
        stream = _stream(snapshot, radius, bitmap(snapshot, filter), threads, verbose)
        return (_as_ids(snapshot, *block) for block in _in_blocks(stream, _BLOCK))

    def groups(self, radius, *, n_jobs=None, verbose=0):
        """Group the codes so that any two within a radius are in the same group: the connected components.

        Parameters
        ----------
        radius : int
        n_jobs, verbose
            As for :meth:`pairs`.

        Returns
        -------
        labels : ndarray of int64, shape (n,)
            The group of each code, in the order of ``ids``; groups are numbered from 0 as they first appear there.

        Raises
        ------
        TypeError, ValueError
            As :meth:`pairs`.

        Notes
        -----
        Memory: some 60 bytes a code beyond that of :meth:`pairs`, however many pairs there are.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        radius = min(check_count(radius, "radius", 0), self.n_bits)
        threads = n_threads(n_jobs, _kernels.max_threads())
        snapshot = self._store.present
        n = len(snapshot)
        stream = _stream(snapshot, radius, None, threads, verbose)
        labels = np.arange(n)  # the group of each code so far: a number below n
        for i, j, _ in _in_blocks(stream, max(n, _BLOCK)):  # as many pairs as codes, for each merge costs O(n)
            edges = coo_array((np.ones(len(i), bool), (labels[i], labels[j])), shape=(n, n))
            labels = connected_components(edges, directed=False)[1][labels]
        _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[labels]

    def knn_graph(self, k, *, n_jobs=None):
        """Return the graph of each code's k nearest other codes.

        Parameters
        ----------
        k : int
            At least 1. Codes have fewer neighbours where the index does not hold k others.
        n_jobs : int, optional

        Returns
        -------
        scipy.sparse.csr_array of int32, shape (n, n)
            Rows and columns in the order of ``ids``; the values are distances, and distances of 0 stand there as
            explicit zeros. Each row is in order of (distance, id), as :meth:`search` finds them, not of columns.

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said.
        """
        from scipy.sparse import csr_array

        k = check_count(k, "k", 1)
        threads = n_threads(n_jobs, _kernels.max_threads())
        snapshot = self._store.present
        n = len(snapshot)
        k = max(0, min(k, n - 1))
        distances, columns = np.empty((n, k), np.int32), np.empty((n, k), np.int64)
        step = max(1, (1 << 20) // (k + 1))
        engine = snapshot.lookup or _search
        for start in range(0, n if k else 0, step):
            rows = slice(start, min(n, start + step))
            codes = snapshot.load(start, rows.stop - start)
            d, ids = engine.search(snapshot, codes, k + 1, None, threads)
            other = ids != snapshot.load_ids(start, rows.stop - start)[:, np.newaxis]
            other[other.all(axis=1), -1] = False  # itself is not among so many equal ones: the last is too much
            distances[rows] = d[other].reshape(-1, k)
            columns[rows] = snapshot.find(ids[other]).reshape(-1, k)
        return csr_array((distances.ravel(), columns.ravel(), np.arange(n + 1, dtype=np.int64) * k), shape=(n, n))


def bitmap(snapshot, filter):
    """Return a filter as a packed bitmap by position of a snapshot: uint64 (ceil(n / 64),)."""
    if filter is None:
        return None
    n = len(snapshot)
    words = -(-n // 64)
    filter = np.asarray(filter)
    if filter.dtype == bool:
        if filter.shape != (n,):
            raise ValueError(f"filter of booleans must have shape ({n},), got {filter.shape}")
        mask = filter
    elif filter.dtype == np.uint64 and filter.dtype.isnative:
        if filter.shape != (words,):
            raise ValueError(f"filter as a packed bitmap must have shape ({words},), got {filter.shape}")
        return np.ascontiguousarray(filter)
    else:
        positions = snapshot.find(as_ids(filter, "filter"))
        mask = np.zeros(n, bool)
        mask[positions[positions >= 0]] = True
    bytes_ = np.zeros(words * 8, np.uint8)
    packed = np.packbits(mask, bitorder="little")
    bytes_[: len(packed)] = packed
    return bytes_.view("<u8").astype(np.uint64, copy=False)


def _stream(snapshot, radius, filter, threads, verbose):
    """Return a generator of positions i < j, distances and progress."""
    reader, n = None, len(snapshot)
    if radius < snapshot.n_bits and n < 1 << 32:
        reader = _search.PairStream(snapshot, radius, filter)
        scan = n / 2 * n * snapshot.n_words * _kernels.scan_costs()[1] / threads
        if reader.comparisons() * COMPARE_COST > scan:
            reader = None
    blocks = _tiles(snapshot, radius, filter, threads) if reader is None else _read(reader)
    return _with_progress(blocks, n, verbose)


def _as_ids(snapshot, i, j, distances):
    i, j = snapshot.ids_at(i), snapshot.ids_at(j)
    return np.minimum(i, j), np.maximum(i, j), distances


def _tiles(snapshot, radius, filter, threads):
    """Compare all codes, in tiles above the diagonal: (i, j, distances, progress)."""
    n = len(snapshot)
    for top in range(0, n, _TILE_QUERIES):
        rows = np.arange(top, min(n, top + _TILE_QUERIES))
        if filter is not None:
            rows = rows[(filter[top // 64] >> (rows % 64).astype(np.uint64)) & np.uint64(1) == 1]
        queries = snapshot.codes_at(rows)
        for left in range(top // _BLOCK_CODES * _BLOCK_CODES, n if len(rows) else 0, _TILE_CODES):
            offsets, distances, columns = _search.radius_search(
                snapshot, queries, radius, filter, threads, True, left, left + _TILE_CODES
            )
            i, j = np.repeat(rows, np.diff(offsets)), columns
            once = i < j
            yield i[once], j[once], distances[once], 1 - ((n - top) / n) ** 2


def _read(reader):
    while (found := reader.read()) is not None:
        yield *found, reader.progress


def _in_blocks(stream, size):
    """Put small blocks together, to `size` pairs at least, until the last."""
    waiting, n = [], 0
    for i, j, distances, _ in stream:
        if len(i):
            waiting.append((i, j, distances))
            n += len(i)
        if n >= size:
            yield tuple(map(np.concatenate, zip(*waiting)))
            waiting, n = [], 0
    if waiting:
        yield tuple(map(np.concatenate, zip(*waiting)))


def _with_progress(blocks, n, verbose):
    if not verbose:
        yield from blocks
        return
    from tqdm import tqdm

    with tqdm(total=n, unit="code", unit_scale=True, desc="pairs") as bar:
        for block in blocks:
            bar.update(int(block[-1] * n) - bar.n)
            yield block
        bar.update(n - bar.n)
