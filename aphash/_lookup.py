"""Lookup: multi-index hashing beside an index's scan, exact, with a cost model that chooses between them."""

import numbers

import numpy as np

from aphash import _search
from aphash.codes import check_n_bits

# Nanoseconds, measured on one Zen 3 core over 10 million codes (bench/kernels.py search). A scan's are for each word of
# a code: of a query alone, and of one in a batch, where the bit planes are shared.
SCAN_COST = {"base": (2.2, 0.20), "avx2": (0.40, 0.09), "avx512": (0.35, 0.05)}
PROBE_COST = 12.0  # for a probed value of a span: two cache misses, overlapping
CODE_COST = 12.0  # for a code found there: another

SHARE = 0.1  # of a scan's cost after which a query is given up, so that it costs at most 1.2 scans in all
PILOT = 64  # queries of a batch that are tried first: if nearly all are given up, so is the rest
MAX_LOOSE = 1 / 32  # share of codes that may be missing from the tables before they are built anew


class Lookup:
    """Tables from spans of bits to positions, kept in step with an index.

    Parameters
    ----------
    blocks : ndarray of uint64
        The index's codes, as :mod:`aphash._search` lays them out.
    n : int
        Number of codes, less than 2^32.
    n_bits : int
    share : float
        Of the scan's cost, by the constants above: a query that would cost more in the tables is scanned. 0: all are
        scanned, infinity: none is (but where fewer than k codes take part, which only a scan finds out).

    Attributes
    ----------
    n_indexed : int
        Codes at the positions [0, n_indexed) stand in the tables. Later ones, and those of :meth:`changed`, are looked
        at one by one.

    Notes
    -----
    Memory: n_spans * (4 n + 4 * 2^(n_bits / n_spans)) bytes, about 8 n * n_spans, with n_spans = n_bits / log2(n).

    Not safe for changes during searches: the index's lock sees to that.
    """

    def __init__(self, blocks, n, n_bits, share=SHARE):
        if n >= 1 << 32:
            raise ValueError(f"a lookup holds fewer than 2^32 codes, got {n}")
        self.n_bits = n_bits
        self.share = _check_share(share)
        self.starts = span_starts(n_bits, n)
        self._set(*_search.build_tables(blocks, n, -(-n_bits // 64), self.starts), {})

    def _set(self, tables, offsets, positions, stale):
        self.tables, self.offsets, self.positions = tables, offsets, positions
        self.stale = stale  # position -> None: a dict keeps an order and removes in O(1)
        self.bitmap = None
        self._handle = None

    @property
    def n_indexed(self):
        return self.positions.shape[1]

    # ---- files and pickles ----

    def arrays(self):
        """Return the arrays that :meth:`from_arrays` takes, by name."""
        stale = np.fromiter(self.stale, np.int64, len(self.stale))
        return {
            "starts": self.starts,
            "tables": self.tables,
            "offsets": self.offsets,
            "positions": self.positions,
            "stale": stale,
        }

    @classmethod
    def from_arrays(cls, n_bits, share, starts, tables, offsets, positions, stale, check=False):
        """Make a lookup of saved arrays, possibly read-only maps; ValueError where they do not fit each other.

        ``check``: whether all of the tables is looked at, too. Without it wrong tables give wrong results, but nothing
        outside the arrays is read.
        """
        self = cls.__new__(cls)
        self.n_bits = check_n_bits(n_bits)
        self.share = _check_share(share)
        self.starts = starts
        _check_tables(self.n_bits, starts, tables, offsets, positions, stale, check)
        self._set(tables, offsets, positions, {})
        self.changed(stale)
        return self

    def __getstate__(self):
        return {"n_bits": self.n_bits, "share": self.share, **self.arrays()}

    def __setstate__(self, state):
        self.__dict__.update(type(self).from_arrays(**state).__dict__)

    # ---- keeping in step ----

    def changed(self, positions):
        """Note that the codes at these positions are not, or no longer, the ones in the tables.

        To be called with every position that was written: a code added there, moved there or replaced (those behind
        n_indexed are ignored). Removing from the end needs no call. Cost in proportion to the change, but for the
        first, which makes a bitmap of n_indexed bits.
        """
        inside = np.asarray(positions)[np.asarray(positions) < self.n_indexed]
        if not len(inside):
            return
        if self.bitmap is None:
            self.bitmap = np.zeros(-(-self.n_indexed // 64), np.uint64)
        np.bitwise_or.at(self.bitmap, inside // 64, np.uint64(1) << (inside % 64).astype(np.uint64))
        self.stale.update(dict.fromkeys(inside.tolist()))
        self._handle = None

    def worn(self, n):
        """Return whether so much has changed, for an index of n codes, that the tables should be built anew."""
        loose = max(0, n - self.n_indexed) + len(self.stale) + max(0, self.n_indexed - n)
        return loose > max(4096, MAX_LOOSE * n)

    def _tables(self, n):
        """Return the kernels' view of the tables for an index of n codes."""
        handle = self._handle
        if handle is None or handle[0] != n:
            extra = np.fromiter((p for p in self.stale if p < n), np.int64)
            tables = _search.Tables(self.starts, self.tables, self.offsets, self.positions, self.bitmap, extra)
            handle = self._handle = (n, tables)
        return handle[1]

    # ---- searching ----

    def budget(self, n, n_queries):
        """Return how many nanoseconds a query may cost before the scan is the better choice."""
        alone, batch = SCAN_COST[_search.isa()]
        return self.share * n * -(-self.n_bits // 64) * (batch if n_queries >= 6 else alone)

    def search(self, blocks, n, queries, k, ids, ascending, filter, n_threads):
        """Search as :func:`aphash._search.search` does; queries that would cost more than a scan are scanned."""
        distances = np.full((len(queries), k), _search.PAD_DISTANCE, np.int32)
        found = np.full((len(queries), k), _search.PAD_ID, np.int64)
        if k > n:
            done = np.zeros(len(queries), bool)
        else:
            done, _, d, i = self._try(blocks, n, queries, k, 0, ids, filter, n_threads)
            distances[done] = d.reshape(-1, k)
            found[done] = i.reshape(-1, k)
        if not done.all():
            rest = np.ascontiguousarray(queries[~done])
            distances[~done], found[~done] = _search.search(blocks, n, rest, k, ids, ascending, filter, n_threads)
        return distances, found

    def radius_search(self, blocks, n, queries, radius, ids, ascending, filter, n_threads):
        """Search as :func:`aphash._search.radius_search` does; queries that would cost more than a scan are scanned."""
        done, offsets, d, i = self._try(blocks, n, queries, 0, radius, ids, filter, n_threads)
        if done.all():
            return offsets, d, i
        rest = np.ascontiguousarray(queries[~done])
        scanned = _search.radius_search(blocks, n, rest, radius, ids, ascending, filter, n_threads)
        if not done.any():
            return scanned
        counts = np.diff(offsets)
        counts[~done] = np.diff(scanned[0])
        merged = np.concatenate([[0], np.cumsum(counts)])
        from_lookup = np.repeat(done, counts)
        distances, found = np.empty(merged[-1], np.int32), np.empty(merged[-1], np.int64)
        distances[from_lookup], distances[~from_lookup] = d, scanned[1]
        found[from_lookup], found[~from_lookup] = i, scanned[2]
        return merged, distances, found

    def _try(self, blocks, n, queries, k, radius, ids, filter, n_threads):
        """Return (done, offsets, distances, ids) of the queries that the lookup can serve."""
        budget = self.budget(n, len(queries))
        tables = self._tables(n)

        def run(part):
            return _search.lookup_search(
                tables, blocks, n, part, k, radius, budget, PROBE_COST, CODE_COST, ids, filter, n_threads
            )

        pilot = run(queries[:PILOT])
        if len(queries) <= PILOT:
            return pilot
        left = len(queries) - PILOT
        if pilot[0].mean() < 0.1:
            offsets = np.concatenate([pilot[1], np.full(left, pilot[1][-1])])
            return np.concatenate([pilot[0], np.zeros(left, bool)]), offsets, pilot[2], pilot[3]
        rest = run(queries[PILOT:])
        return (
            np.concatenate([pilot[0], rest[0]]),
            np.concatenate([pilot[1], pilot[1][-1] + rest[1][1:]]),
            np.concatenate([pilot[2], rest[2]]),
            np.concatenate([pilot[3], rest[3]]),
        )


def _check_share(share):
    if isinstance(share, bool) or not isinstance(share, numbers.Real):
        raise TypeError(f"share must be a number, got {share!r}")
    if not share >= 0:
        raise ValueError(f"share must be at least 0, got {share}")
    return float(share)


def _check_tables(n_bits, starts, tables, offsets, positions, stale, contents):
    kinds = {"starts": np.int32, "tables": np.int64, "offsets": np.uint32, "positions": np.uint32, "stale": np.int64}
    for (name, dtype), array in zip(kinds.items(), (starts, tables, offsets, positions, stale), strict=True):
        if array.dtype != dtype or array.ndim != (2 if name == "positions" else 1):
            raise ValueError(f"lookup: {name} must be {np.dtype(dtype)}, got {array.dtype} of shape {array.shape}")
    widths = np.diff(starts.astype(np.int64))
    if (
        len(widths) < 1
        or starts[0] != 0
        or starts[-1] != n_bits
        or widths.min() < 1
        or widths.max() > _search.MAX_SPAN_BITS
    ):
        raise ValueError(f"lookup: starts must cut {n_bits} bits into spans of 1 to {_search.MAX_SPAN_BITS}")
    ends = np.cumsum((1 << widths) + 2)
    if not np.array_equal(tables, np.concatenate([[0], ends[:-1]])) or offsets.shape != (ends[-1],):
        raise ValueError("lookup: tables and offsets do not fit the spans")
    n = positions.shape[1]
    if positions.shape[0] != len(widths) or n >= 1 << 32:
        raise ValueError(f"lookup: positions of shape {positions.shape} for {len(widths)} spans")
    if stale.size and not 0 <= stale.min() <= stale.max() < n:
        raise ValueError(f"lookup: stale must hold positions below {n}")
    for span in range(len(widths) if contents else 0):
        table = offsets[tables[span] : ends[span] - 1]
        if table[0] != 0 or table[-1] != n or (table[1:] < table[:-1]).any() or (positions[span] >= n).any():
            raise ValueError(f"lookup: the table of span {span} is not one of {n} positions")


def span_starts(n_bits, n):
    """Cut n_bits into spans of about log2(n) bits: int32 bit numbers, one more than spans."""
    wanted = min(_search.MAX_SPAN_BITS, max(4, int(max(2, n)).bit_length() - 1))
    n_spans = max(1, round(n_bits / wanted))
    while -(-n_bits // n_spans) > _search.MAX_SPAN_BITS:
        n_spans += 1
    return np.asarray([n_bits * j // n_spans for j in range(n_spans + 1)], np.int32)
