"""All near pairs of a snapshot, as a stream or as groups, and the graph of nearest neighbours."""

import numpy as np

from aphash._common.progress import ProgressBar
from aphash._kernels import scan_costs
from aphash._searching import _search, linkage
from aphash._searching.engines import engine_of
from aphash._searching.filters import positions_of

COMPARE_COST = (
    10.0  # nanoseconds for two codes that agree in a substring, at scattered places: an estimate, not measured
)

_BLOCK_CODES = 512  # a scan begins at a multiple of it
_TILE_QUERIES, _TILE_CODES = 64, 1 << 16  # multiples of 64, and of _BLOCK_CODES
_CHUNK_PAIRS = 1 << 16  # pairs in a chunk at least, except in the last one
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio; to multiply by it mixes bits
_EQUAL_PAIRS = 1  # pairs of equal codes for each code; up to so many are compared, since joining them costs more
_CANDIDATES = 1 << 20  # neighbours of a graph that are held at a time
_HASHED_BYTES = 1 << 20  # of the codes that are hashed, or compared with equal ones, at a time


def pairs(snapshot, radius, bitmap, threads, verbose):
    """Return a generator of (ids, ids, distances) of all near pairs; see ``HammingIndex.pairs``.

    ``bitmap`` is a filter that was prepared for the snapshot, or None.
    """
    stream = _with_progress(_pairs(snapshot, radius, bitmap, threads), len(snapshot), verbose)
    return (_as_ids(snapshot, *chunk) for chunk in _in_chunks(stream, _CHUNK_PAIRS))


def groups(snapshot, radius, bitmap, threads, verbose):
    """Return ids and the group of each; see ``HammingIndex.groups``."""
    joined = _Joined(snapshot, bitmap, _EQUAL_PAIRS if radius else 0)
    stream = _with_progress(_distinct_pairs(snapshot, radius, joined.filter, threads), len(snapshot), verbose)
    chunks = ((joined.number[i], joined.number[j], distances) for i, j, distances, _ in stream)
    labels = linkage.single(len(joined.first), chunks)  # the group of each distinct code
    of_item = np.empty(len(joined.items), np.int64)
    of_item[joined.order] = np.repeat(labels, joined.sizes)
    return snapshot.ids_at(joined.items), linkage.numbered(of_item)


def knn_graph(snapshot, k, threads):
    """Return ids and the graph of each code's k nearest; see ``HammingIndex.knn_graph``."""
    from scipy.sparse import csr_array

    n = len(snapshot)
    k = max(0, min(k, n - 1))
    joined = _Joined(snapshot, None)
    starts, others = joined.starts, np.arange(k)
    distances, columns = np.empty((n, k), np.int32), np.empty((n, k), np.int64)
    step = max(1, _CANDIDATES // (k + 1))
    for first in range(0, len(joined.first) if k else 0, step):
        last = min(first + step, len(joined.first))
        near_distances, near = _nearest(snapshot, joined, first, last, k + 1, threads)
        for place in range(starts[first], starts[last], step):
            places = np.arange(place, min(place + step, starts[last]))
            numbers = np.searchsorted(starts, places, "right") - 1
            itself = places - starts[numbers]  # its own place among its nearest, which may be behind them
            chosen = others + (others >= itself[:, np.newaxis])
            rows = joined.order[places]
            distances[rows] = np.take_along_axis(near_distances[numbers - first], chosen, axis=1)
            columns[rows] = np.take_along_axis(near[numbers - first], chosen, axis=1)
    graph = csr_array((distances.ravel(), columns.ravel(), np.arange(n + 1, dtype=np.int64) * k), shape=(n, n))
    return snapshot.ids_at(joined.items), graph


# ---- equal codes ----


class _Joined:
    """The codes that take part, as items in the order of their ids, and the distinct codes among them.

    Where there are up to ``tolerated`` pairs of equal codes for each code, all codes count as distinct.

    Attributes
    ----------
    items : ndarray of int64, shape (m,)
        The position of each item.
    order : ndarray of int64, shape (m,)
        Numbers of items. Those with equal codes stand side by side, in the order of their ids.
    starts, sizes : ndarray of int64, shape (n_distinct + 1,), (n_distinct,)
        The items with the d-th distinct code stand at ``order[starts[d] : starts[d + 1]]``.
    first : ndarray of int64, shape (n_distinct,)
        The position of the item with the smallest id, for each distinct code.
    number : ndarray of int64, shape (n,)
        At the positions in ``first``, the number d of the distinct code.
    filter : packed bitmap or None
        The filter that lets the positions in ``first`` take part.
    """

    def __init__(self, snapshot, filter, tolerated=0):
        n = len(snapshot)
        self.items = np.arange(n) if filter is None else positions_of(filter, n)
        if not snapshot.ascending:
            self.items = self.items[np.argsort(snapshot.ids_at(self.items))]
        hashes = _hashes(snapshot, self.items)
        if _n_equal_pairs(hashes) <= tolerated * len(hashes):
            self.order, self.starts = np.arange(len(self.items)), np.arange(len(self.items) + 1)
            self.first, self.filter = self.items, filter
        else:
            self.order, self.starts = _sorted(snapshot, self.items, hashes)
            self.first = self.items[self.order[self.starts[:-1]]]
            self.filter = snapshot.bitmap(self.first)
        self.sizes = np.diff(self.starts)
        self.number = np.zeros(n, np.int64)
        self.number[self.first] = np.arange(len(self.first))


def _hashes(snapshot, positions=None):
    """Return uint64 hashes of the codes at positions, or of all. A code of one word is its own hash."""
    n, n_words = len(snapshot) if positions is None else len(positions), snapshot.n_words
    out = np.empty(n, np.uint64)
    factors = np.arange(1, n_words + 1, dtype=np.uint64) * _ODD
    factors = (factors ^ factors >> np.uint64(31)) * _ODD | np.uint64(1)  # another odd number for each word
    step = max(1, _HASHED_BYTES // (8 * n_words))
    for start in range(0, n, step):
        stop = min(n, start + step)
        codes = snapshot.load(start, stop - start) if positions is None else snapshot.codes_at(positions[start:stop])
        if n_words > 1:  # the high bits of a word are moved down first, since a product moves bits up only
            codes ^= codes >> np.uint64(29)
            codes *= _ODD
            codes ^= codes >> np.uint64(32)
            codes *= factors
        out[start:stop] = codes.sum(axis=1, dtype=np.uint64)
    return out


def _n_equal_pairs(hashes):
    in_order = np.sort(hashes)
    begins = np.flatnonzero(in_order[1:] != in_order[:-1]) + 1
    if len(begins) == max(0, len(hashes) - 1):
        return 0
    sizes = np.diff(begins, prepend=0, append=len(hashes))
    return int((sizes * (sizes - 1) // 2).sum())


def _sorted(snapshot, positions, hashes):
    """Return an order of the positions that is stable and puts equal codes side by side, and where each code begins."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    if snapshot.n_words > 1 and not _are_equal(snapshot, positions[order], np.flatnonzero(same)):
        codes = snapshot.codes_at(positions)  # two codes share a hash, which is rare: sort by all words
        order = np.lexsort(codes.T)
        same = (codes[order[1:]] == codes[order[:-1]]).all(axis=1)
    return order, np.concatenate([[0], np.flatnonzero(~same) + 1, [len(order)]])


def _are_equal(snapshot, positions, places):
    """Return whether the code at each of the places equals the next code."""
    step = max(1, _HASHED_BYTES // (8 * snapshot.n_words))
    for start in range(0, len(places), step):
        some = places[start : start + step]
        if not np.array_equal(snapshot.codes_at(positions[some]), snapshot.codes_at(positions[some + 1])):
            return False
    return True


def _spread(firsts, counts):
    """Yield (row, place) of all places firsts[row] .. firsts[row] + counts[row] - 1, at most _CHUNK_PAIRS at a time."""
    ends = np.cumsum(counts)
    begins = ends - counts
    shifts = firsts - begins
    for low in range(0, ends[-1] if len(ends) else 0, _CHUNK_PAIRS):
        high = min(low + _CHUNK_PAIRS, ends[-1])
        touched = slice(np.searchsorted(ends, low, "right"), np.searchsorted(begins, high, "left"))
        lengths = np.minimum(ends[touched], high) - np.maximum(begins[touched], low)
        yield (
            np.repeat(np.arange(touched.start, touched.stop), lengths),
            np.repeat(shifts[touched], lengths) + np.arange(low, high),
        )


def _equal_pairs(joined):
    """Yield i, j, distances, progress of the pairs of equal codes."""
    several = np.repeat(joined.sizes > 1, joined.sizes)
    members, starts = joined.items[joined.order[several]], np.repeat(joined.starts[:-1], joined.sizes)
    before = np.flatnonzero(several) - starts[several]  # each item's partners: those before it with its code
    ranks = np.arange(len(members))
    n_rows = max(1, len(members))
    for row, place in _spread(ranks - before, before):
        yield members[place], members[row], np.zeros(len(row), np.int32), row[-1] / n_rows


# ---- nearest neighbours ----


def _nearest(snapshot, joined, first, last, k, threads):
    """Return distances and items, (last - first, k), of the k items nearest to each distinct code, ordered by both."""
    wide = min(k, len(joined.first))
    queries = _search.PackedQueries(snapshot.codes_at(joined.first[first:last]))
    d, ids = engine_of(snapshot).nearest(snapshot, queries, wide, joined.filter, threads)
    numbers = joined.number[snapshot.find(ids.ravel())].reshape(ids.shape)
    # Codes come in order of (distance, smallest id). So of a code that comes after j others, at most k - j items are
    # wanted, and none of a code that is farther than the one with which there are enough.
    counts = np.minimum(joined.sizes[numbers], k - np.arange(wide))
    enough = (np.cumsum(counts, axis=1) >= k).argmax(axis=1)
    counts[d > np.take_along_axis(d, enough[:, np.newaxis], axis=1)] = 0
    distances, items = np.empty((len(d), k), np.int32), np.empty((len(d), k), np.int64)
    ends = np.cumsum(counts.sum(axis=1))
    start = 0
    while start < len(d):  # as many rows at a time as the limit of candidates allows
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + 2 * _CANDIDATES, "right")))
        rows = slice(start, stop)
        distances[rows], items[rows] = _first_items(joined, numbers[rows], d[rows], counts[rows], k)
        start = stop
    return distances, items


def _first_items(joined, numbers, d, counts, k):
    """Return the first k by (distance, item) of counts[row, j] items with the distinct code numbers[row, j]."""
    flat = counts.ravel()
    shifts = joined.starts[numbers].ravel() - (np.cumsum(flat) - flat)
    items = joined.order[np.repeat(shifts, flat) + np.arange(flat.sum())]
    distances = np.repeat(d.ravel(), flat)
    totals = counts.sum(axis=1)
    begins = np.cumsum(totals) - totals
    mixed = np.repeat(((counts > 1) & (d > 0)).any(axis=1), totals)  # the others are in order already
    if mixed.any():
        rows, near, which = np.repeat(np.arange(len(d)), totals)[mixed], distances[mixed], items[mixed]
        order = np.lexsort((which, near, rows))
        distances[mixed], items[mixed] = near[order], which[order]
    chosen = begins[:, np.newaxis] + np.arange(k)
    return distances[chosen], items[chosen]


# ---- pairs ----


def _pairs(snapshot, radius, filter, threads):
    """Yield positions i, j, distances and progress of all pairs."""
    hashes = _hashes(snapshot, None if filter is None else positions_of(filter, len(snapshot)))
    few = _n_equal_pairs(hashes) <= _EQUAL_PAIRS * len(hashes)
    del hashes
    if few and radius:
        yield from _distinct_pairs(snapshot, radius, filter, threads)
        return
    joined = _Joined(snapshot, filter)
    for i, j, distances, progress in _equal_pairs(joined):
        yield i, j, distances, progress / 2
    members, starts, sizes = joined.items[joined.order], joined.starts, joined.sizes
    for i, j, distances, progress in _distinct_pairs(snapshot, radius, joined.filter, threads):
        for start in range(0, len(i), _CHUNK_PAIRS):
            some = slice(start, start + _CHUNK_PAIRS)
            one, other, near = joined.number[i[some]], joined.number[j[some]], distances[some]
            for pair, of_i in _spread(starts[one], sizes[one]):
                partner = other[pair]
                for row, of_j in _spread(starts[partner], sizes[partner]):
                    yield members[of_i[row]], members[of_j], near[pair[row]], (1 + progress) / 2


def _distinct_pairs(snapshot, radius, filter, threads):
    """Return a generator of positions i < j, distances and progress of the pairs of distinct codes."""
    reader, n = None, len(snapshot)
    if radius == 0:
        return iter(())
    if radius < snapshot.n_bits and n < 1 << 32:
        reader = _search.PairStream(snapshot, radius, filter)
        scan = n / 2 * n * snapshot.n_words * scan_costs()[1] / threads
        if reader.comparisons() * COMPARE_COST > scan:
            reader = None
    return _tiles(snapshot, radius, filter, threads) if reader is None else _read(reader)


def _as_ids(snapshot, i, j, distances):
    i, j = snapshot.ids_at(i), snapshot.ids_at(j)
    return np.minimum(i, j), np.maximum(i, j), distances


def _tiles(snapshot, radius, filter, threads):
    """Compare all codes in tiles above the diagonal, and yield (i, j, distances, progress)."""
    n = len(snapshot)
    for top in range(0, n, _TILE_QUERIES):
        rows = np.arange(top, min(n, top + _TILE_QUERIES))
        if filter is not None:
            rows = rows[(filter[top // 64] >> (rows % 64).astype(np.uint64)) & np.uint64(1) == 1]
        queries = _search.PackedQueries(snapshot.codes_at(rows))
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


def _in_chunks(stream, size):
    """Join small chunks to chunks of at least `size` pairs, except the last one."""
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


def _with_progress(chunks, n, verbose):
    with ProgressBar(verbose, n, "code", "pairs") as bar:
        for chunk in chunks:
            bar.update(int(chunk[-1] * n) - bar.n)
            yield chunk
        bar.update(n - bar.n)
