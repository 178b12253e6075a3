"""Lookup: multi-index hashing, which is exact. A cost model chooses between it and the scan."""

import numbers

import numpy as np

from aphash._kernels import scan_costs
from aphash._searching import _search
from aphash._searching.engines import SCAN
from aphash.codes import check_n_bits

# Costs are nanoseconds, measured on one Zen 3 core over 10 million codes (bench/speed/kernels.py search), as the costs
# of a scan in csrc/isa.def.
PROBE_COST = 12.0  # for each probed value of a substring: two cache misses, which overlap
CODE_COST = 12.0  # for each code that is found there: another cache miss

MAX_SCAN_FRACTION = 0.1  # a query is given up at this share of a scan's cost; with its scan it costs 1.2 scans at most
PILOT = 64  # queries of a batch that are tried first; if nearly all are given up, so are the others
MAX_LOOSE = 1 / 32  # the share of codes that may be missing in the tables before these are built anew


class Lookup:
    """Tables from substrings of bits to positions, for the codes of one snapshot. They never change.

    Later snapshots share the tables. Each snapshot knows which positions hold another code by now, and these are
    compared one by one.

    Parameters
    ----------
    snapshot : Snapshot
        With fewer than 2^32 codes.
    max_scan_fraction : float
        A share of the scan's cost, by the constants above. A query that would cost more in the tables is scanned. With
        0 all queries are scanned, with infinity none is, except where fewer than k codes take part, which only a scan
        can find out.

    Attributes
    ----------
    n_indexed : int
        The codes at the positions [0, n_indexed) stand in the tables. Later codes are compared one by one.

    Notes
    -----
    Needs n_substrings * (4 n + 4 * 2^(n_bits / n_substrings)) bytes, which is about 8 n * n_substrings, with
    n_substrings = n_bits / log2(n).
    """

    def __init__(self, snapshot, max_scan_fraction=MAX_SCAN_FRACTION):
        if len(snapshot) >= 1 << 32:
            raise ValueError(f"a lookup holds fewer than 2^32 codes, got {len(snapshot)}")
        self.n_bits = snapshot.n_bits
        self.max_scan_fraction = _check_fraction(max_scan_fraction)
        self.starts = substring_starts(self.n_bits, len(snapshot))
        self._set(*_search.build_tables(snapshot, self.starts))

    def _set(self, tables, offsets, positions):
        self.tables, self.offsets, self.positions = tables, offsets, positions
        self.n_indexed = positions.shape[1]
        self._tables = _search.Tables(self.starts, tables, offsets, positions)

    def arrays(self):
        """Return the arrays that :meth:`from_arrays` takes, by name."""
        names = ("starts", "tables", "offsets", "positions")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_arrays(cls, n_bits, max_scan_fraction, starts, tables, offsets, positions, check=False):
        """Make a lookup of saved arrays, which may be read-only maps. ValueError where they do not fit each other.

        ``check`` says whether the contents of the tables are checked, too. Without it wrong tables give wrong results,
        but nothing outside the arrays is read.
        """
        self = cls.__new__(cls)
        self.n_bits = check_n_bits(n_bits)
        self.max_scan_fraction = _check_fraction(max_scan_fraction)
        self.starts = starts
        _check_tables(self.n_bits, starts, tables, offsets, positions, check)
        self._set(tables, offsets, positions)
        return self

    @property
    def nbytes(self):
        return sum(array.nbytes for array in self.arrays().values())

    def needs_rebuild(self, snapshot):
        """Return whether so much has changed that the tables should be built anew."""
        n = len(snapshot)
        loose = abs(n - self.n_indexed) + snapshot.n_stale
        return loose > max(4096, MAX_LOOSE * n)

    def rebuild_tables(self, snapshot):
        """Return such tables over another snapshot."""
        return Lookup(snapshot, self.max_scan_fraction)

    # ---- searching ----

    def budget(self, n, n_queries):
        """Return how many nanoseconds a query may cost before the scan is the better choice."""
        alone, batch = scan_costs()
        return self.max_scan_fraction * n * -(-self.n_bits // 64) * (batch if n_queries >= 6 else alone)

    def nearest(self, snapshot, queries, k, bitmap=None, n_threads=1):
        """Answer as the scan does; queries that would cost more than a scan are scanned."""
        if k > len(snapshot) or not queries.in_tables:
            return SCAN.nearest(snapshot, queries, k, bitmap, n_threads)
        done, _, d, i = self._try(snapshot, queries, k, 0, bitmap, n_threads)
        if done.all():
            return d.reshape(-1, k), i.reshape(-1, k)
        distances, found = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.int64)
        distances[done], found[done] = d.reshape(-1, k), i.reshape(-1, k)
        distances[~done], found[~done] = SCAN.nearest(snapshot, queries.take(~done), k, bitmap, n_threads)
        return distances, found

    def within(self, snapshot, queries, radius, bitmap=None, n_threads=1):
        """Answer as the scan does; queries that would cost more than a scan are scanned."""
        if not queries.in_tables:
            return SCAN.within(snapshot, queries, radius, bitmap, n_threads)
        done, offsets, d, i = self._try(snapshot, queries, 0, radius, bitmap, n_threads)
        if done.all():
            return offsets, d, i
        scanned = SCAN.within(snapshot, queries.take(~done), radius, bitmap, n_threads)
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

    def _try(self, snapshot, queries, k, radius, bitmap, n_threads):
        """Return (done, offsets, distances, ids) of the queries that the lookup can serve."""
        budget = self.budget(len(snapshot), len(queries))

        def run(some):
            return _search.lookup_search(
                self._tables, snapshot, some, k, radius, budget, PROBE_COST, CODE_COST, bitmap, n_threads
            )

        if len(queries) <= PILOT:
            return run(queries)
        pilot = run(queries.take(slice(PILOT)))
        left = len(queries) - PILOT
        if pilot[0].mean() < 0.1:
            offsets = np.concatenate([pilot[1], np.full(left, pilot[1][-1])])
            return np.concatenate([pilot[0], np.zeros(left, bool)]), offsets, pilot[2], pilot[3]
        rest = run(queries.take(slice(PILOT, None)))
        return (
            np.concatenate([pilot[0], rest[0]]),
            np.concatenate([pilot[1], pilot[1][-1] + rest[1][1:]]),
            np.concatenate([pilot[2], rest[2]]),
            np.concatenate([pilot[3], rest[3]]),
        )


def _check_fraction(value):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"max_scan_fraction must be a number, got {value!r}")
    if not value >= 0:
        raise ValueError(f"max_scan_fraction must be at least 0, got {value}")
    return float(value)


def _check_tables(n_bits, starts, tables, offsets, positions, contents):
    kinds = {"starts": np.int32, "tables": np.int64, "offsets": np.uint32, "positions": np.uint32}
    for (name, dtype), array in zip(kinds.items(), (starts, tables, offsets, positions), strict=True):
        if array.dtype != dtype or array.ndim != (2 if name == "positions" else 1):
            raise ValueError(f"lookup: {name} must be {np.dtype(dtype)}, got {array.dtype} of shape {array.shape}")
    widths = np.diff(starts.astype(np.int64))
    if (
        len(widths) < 1
        or starts[0] != 0
        or starts[-1] != n_bits
        or widths.min() < 1
        or widths.max() > _search.MAX_SUBSTRING_BITS
    ):
        raise ValueError(f"lookup: starts must cut {n_bits} bits into substrings of 1 to {_search.MAX_SUBSTRING_BITS}")
    ends = np.cumsum((1 << widths) + 2)
    if not np.array_equal(tables, np.concatenate([[0], ends[:-1]])) or offsets.shape != (ends[-1],):
        raise ValueError("lookup: tables and offsets do not fit the substrings")
    n = positions.shape[1]
    if positions.shape[0] != len(widths) or n >= 1 << 32:
        raise ValueError(f"lookup: positions of shape {positions.shape} for {len(widths)} substrings")
    for substring in range(len(widths) if contents else 0):
        table = offsets[tables[substring] : ends[substring] - 1]
        if table[0] != 0 or table[-1] != n or (table[1:] < table[:-1]).any() or (positions[substring] >= n).any():
            raise ValueError(f"lookup: the table of substring {substring} is not one of {n} positions")


def substring_starts(n_bits, n):
    """Cut n_bits into substrings of about log2(n) bits: int32 bit numbers, one more than substrings."""
    wanted = min(_search.MAX_SUBSTRING_BITS, max(4, int(max(2, n)).bit_length() - 1))
    n_substrings = max(1, round(n_bits / wanted))
    while -(-n_bits // n_substrings) > _search.MAX_SUBSTRING_BITS:
        n_substrings += 1
    return np.asarray([n_bits * j // n_substrings for j in range(n_substrings + 1)], np.int32)
