"""HammingIndex: exact search over packed codes. Needs numpy only."""

import contextlib
import copy
import numbers
import threading

import numpy as np

from aphash import _index_file, _search
from aphash._checks import as_ids, ascend, check_count, check_ids, some
from aphash._lock import ReadWriteLock
from aphash._lookup import SHARE, Lookup
from aphash._pairs import Pairs
from aphash._runtime import n_threads
from aphash.codes import check_codes, check_n_bits, n_words
from aphash.rescore import bind, rerank

PAD_ID = _search.PAD_ID
PAD_DISTANCE = _search.PAD_DISTANCE

_MOST_CANDIDATES = 1 << 20  # that are held at a time while they are ranked anew


class HammingIndex(Pairs):
    """Exact search of binary codes by Hamming distance: the k nearest, or all within a radius.

    Parameters
    ----------
    n_bits : int
        Bits of a code, 1 to 65,536.

    Attributes
    ----------
    n_bits : int
    codes : ndarray of uint64, shape (n, n_words)
        A copy of the codes, in the order of ``ids``.
    ids : ndarray of int64, shape (n,)
        A copy of the ids, by position.

    Notes
    -----
    Memory: ``8 * n_words`` bytes a code and 8 an id, up to half as much again after growth, and 16 to 32 bytes an id
    once ids do not ascend with the position (given in another order, or after a removal). What a removal frees is kept
    for codes to come. A search needs a few megabytes a thread beside its result, whatever n is.

    Adding, removing and updating cost in proportion to the codes in question (growth and the table of ids are paid off
    over many changes). A removal puts codes from the end in the place of the removed ones: positions change, ids and
    results do not depend on them.

    Searches may run in several threads at once, and while another thread changes the index: each sees it as it was
    before or after the change. Distances are int32, ids int64; results are ordered by (distance, id), the same for
    every instruction set, number of threads and batch.
    """

    def __init__(self, n_bits):
        self.n_bits = check_n_bits(n_bits)
        self._n_words = n_words(self.n_bits)
        self._n = 0
        self._blocks = np.zeros(0, np.uint64)  # groups of 8 codes, word-major: see _search
        self._ids = np.zeros(0, np.int64)
        self._next_id = 0  # after the largest that ever was in the index
        self._lookup = None
        self._ascending = True  # ids ascend with the position: they are found by bisection, else by a table
        self._start()

    def _start(self):
        """What is not kept in a file or pickle."""
        self._id_map = None
        self._id_map_lock = threading.Lock()  # searches that share the lock may want to build the table at once
        self._changes = 0
        self._lock = ReadWriteLock()

    def __len__(self):
        return self._n

    def __repr__(self):
        return f"HammingIndex(n_bits={self.n_bits}), {self._n} codes"

    def __contains__(self, id):
        if not isinstance(id, numbers.Integral):
            raise TypeError(f"id must be an integer, got {id!r}: for several, see contains()")
        return -(2**63) <= id < 2**63 and bool(self.contains(int(id))[0])

    @property
    def codes(self):
        with self._lock.shared():
            return _search.load(self._blocks, self._n_words, 0, self._n)

    @property
    def ids(self):
        with self._lock.shared():
            return self._ids[: self._n].copy()

    # ---- changes ----

    def add(self, codes, ids=None):
        """Add codes.

        Parameters
        ----------
        codes : ndarray of uint64, shape (n_new, n_words) or (n_words,)
            As :func:`aphash.pack_codes` makes them.
        ids : array_like of int, shape (n_new,), optional
            Any int64 but -1, none of them in the index yet. By default they are counted on from the largest id that was
            ever in the index, or from 0: the id of a removed code does not come back by itself.

        Returns
        -------
        ids : ndarray of int64, shape (n_new,)

        Raises
        ------
        TypeError, ValueError, MemoryError
            When codes or ids are not as said; the ids at fault are named. The index stays as it was.
        """
        codes = check_codes(codes, self.n_bits)
        if ids is not None:
            ids = check_ids(ids, len(codes))
        with self._lock.exclusive():
            if ids is None:
                if self._next_id + len(codes) - 1 > np.iinfo(np.int64).max:
                    raise ValueError(f"ids cannot be counted on from {self._next_id - 1}: give them")
                ids = np.arange(self._next_id, self._next_id + len(codes), dtype=np.int64)
            else:
                known = ids[self._positions(ids) >= 0]
                if known.size:
                    raise ValueError(f"ids are in the index already: {some(known)}")
            old, n = self._n, self._n + len(codes)
            blocks, all_ids = self._room(n)
            _search.store(blocks, old, codes)
            all_ids[old:n] = ids
            ascending = self._ascending and ascend(all_ids[max(0, old - 1) : n])
            next_id = max(self._next_id, int(ids.max(initial=-1)) + 1)
            id_map = None
            if not ascending:
                id_map = self._table(self._ids)
                id_map.reserve(all_ids, n)
            self._unsettle(np.arange(old, n))
            # Plain stores and one call, so that a Ctrl-C comes before or after them all; all memory is there.
            self._blocks, self._ids, self._ascending, self._id_map = blocks, all_ids, ascending, id_map
            self._n, self._next_id = n, next_id
            self._changes += 1
            if id_map is not None:
                id_map.enter(all_ids, old, n - old)
            self._renew_lookup()
        return ids

    def remove(self, ids, *, missing="raise"):
        """Remove codes by their ids.

        Parameters
        ----------
        ids : array_like of int, shape (n_old,), or one int
        missing : {"raise", "ignore"}, default="raise"
            What to do with ids that are not in the index.

        Returns
        -------
        int
            How many were removed.

        Raises
        ------
        KeyError
            When some are not in the index; they are named, and nothing is removed.
        TypeError, ValueError
            When an argument is not as said.
        """
        if missing not in ("raise", "ignore"):
            raise ValueError(f"missing must be 'raise' or 'ignore', got {missing!r}")
        ids = check_ids(ids)
        with self._lock.exclusive():
            positions = self._positions(ids)
            if missing == "raise":
                self._refuse_unknown(ids, positions)
            removed = np.sort(positions[positions >= 0])
            n = self._n - len(removed)
            holes = removed[: np.searchsorted(removed, n)]
            stay = np.ones(self._n - n, bool)  # of the positions beyond n
            stay[removed[len(holes) :] - n] = False
            movers = n + np.flatnonzero(stay)
            ascending = self._ascending and not len(holes)
            blocks, all_ids = self._room(self._n)
            id_map = None if ascending else self._table(self._ids)
            self._unsettle(holes)
            # As in add: before or after, never between.
            self._blocks, self._ids, self._ascending, self._id_map = blocks, all_ids, ascending, id_map
            self._n = n
            self._changes += 1
            _search.fill_holes(blocks, self._n_words, all_ids, id_map, removed, holes, movers)
            self._renew_lookup()
        return len(removed)

    def update(self, ids, codes):
        """Replace codes; the ids stay.

        Parameters
        ----------
        ids : array_like of int, shape (n_old,), or one int
        codes : ndarray of uint64, shape (n_old, n_words) or (n_words,)

        Raises
        ------
        KeyError
            When some are not in the index; they are named, and nothing is changed.
        TypeError, ValueError
            When codes or ids are not as said.
        """
        codes = check_codes(codes, self.n_bits)
        ids = check_ids(ids, len(codes))
        with self._lock.exclusive():
            positions = self._positions(ids)
            self._refuse_unknown(ids, positions)
            self._blocks, self._ids = self._room(self._n)
            self._changes += 1
            self._unsettle(positions)
            self._grouped()[positions // 8, :, positions % 8] = codes
            self._renew_lookup()

    # ---- lookup ----

    def build_lookup(self, *, share=SHARE):
        """Build tables that make searches sub-linear where neighbours are near: multi-index hashing, exact.

        From then on a search first tries the tables, and scans the codes for those queries that would cost too much
        there; the results are the same. It pays for near-duplicates, small radii and single queries; for large batches
        of queries without near neighbours the scan is as good. Changes of the index keep the tables in step; they are
        built anew when more than a 32nd of the codes has changed.

        Parameters
        ----------
        share : float, default=0.1
            A query is scanned once the tables would cost more than this share of its scan (by measured costs, see
            :mod:`aphash._lookup`). 0 always scans, infinity hardly ever.

        Raises
        ------
        TypeError, ValueError
            When share is not a number >= 0, or the index holds 2^32 codes or more.

        Notes
        -----
        Memory: about 8 bytes a code for each of the n_bits / log2(n) spans of the bits that the tables are made of.
        They are saved and pickled with the index.
        """
        with self._lock.exclusive():
            self._lookup = Lookup(self._blocks, self._n, self.n_bits, share)

    def drop_lookup(self):
        """Forget the tables of :meth:`build_lookup`; searches scan again."""
        with self._lock.exclusive():
            self._lookup = None

    # ---- by id ----

    def get(self, ids):
        """Return codes by their ids.

        Parameters
        ----------
        ids : array_like of int, shape (n_wanted,), or one int

        Returns
        -------
        codes : ndarray of uint64, shape (n_wanted, n_words) or (n_words,)

        Raises
        ------
        KeyError
            When some are not in the index; they are named.
        """
        wanted = as_ids(ids)
        with self._lock.shared():
            codes = self._get(wanted)
        return codes[0] if np.ndim(ids) == 0 else codes

    def contains(self, ids):
        """Return which ids are in the index; of a single one, ``id in index`` tells it.

        Parameters
        ----------
        ids : array_like of int, shape (n_wanted,), or one int

        Returns
        -------
        ndarray of bool, shape (n_wanted,)
        """
        ids = as_ids(ids)
        with self._lock.shared():
            return self._positions(ids) >= 0

    # ---- searches ----

    def search(self, codes, k, *, filter=None, rescore=None, rescore_queries=None, n_jobs=None):
        """Find the k nearest codes.

        Parameters
        ----------
        codes : ndarray of uint64, shape (n_queries, n_words) or (n_words,)
        k : int
            At least 1. Beyond the number of codes that take part the results are padded.
        filter : array_like, optional
            Which codes take part: integers are their ids (once or more; those that are not in the index have no
            effect), booleans go by position (in the order of ``ids``), uint64 are a packed bitmap by position: bit
            p % 64 of word p // 64, shape (ceil(n / 64),). Positions change with a removal, ids do not.
        rescore : VectorRescore or ProjectionRescore, optional
            Finer distances, from :mod:`aphash.rescore`: the ``factor * k`` nearest codes are ranked anew by them.
        rescore_queries : array_like of shape (n_queries, d or n_bits), optional
            What rescore ranks by: the queries' vectors, or their projections.
        n_jobs : int, optional
            Threads; see :func:`aphash._runtime.n_threads`.

        Returns
        -------
        distances : ndarray of int32, shape (n_queries, k) or (k,)
            2,147,483,647 where there is no code left. With rescore its distances: float32, infinity where none is left.
        ids : ndarray of int64, shape (n_queries, k) or (k,)
            In order of (distance, id); -1 where there is no code left.

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said.
        """
        rows = check_codes(codes, self.n_bits)
        k = check_count(k, "k", 1)
        threads = n_threads(n_jobs, _search.max_threads())
        with self._lock.shared():
            rescore = bind(
                rescore,
                rescore_queries,
                n_queries=len(rows),
                n_bits=self.n_bits,
                n_codes=self._n,
                counted=rescore is not None and self._counted(),
            )
            filter = self._bitmap(filter)
            if rescore is None:
                distances, ids = self._search(rows, k, filter, threads)
            else:
                distances, ids = self._search_and_rescore(rows, k, filter, threads, rescore)
        return (distances[0], ids[0]) if np.ndim(codes) == 1 else (distances, ids)

    def radius_search(self, codes, radius, *, filter=None, n_jobs=None):
        """Find all codes within a radius.

        Parameters
        ----------
        codes : ndarray of uint64, shape (n_queries, n_words) or (n_words,)
        radius : int
            At least 0; a code at this distance is found.
        filter, n_jobs
            As for :meth:`search`.

        Returns
        -------
        offsets : ndarray of int64, shape (n_queries + 1,)
        distances : ndarray of int32, shape (offsets[-1],)
        ids : ndarray of int64, shape (offsets[-1],)
            Those of query i stand at ``offsets[i] : offsets[i + 1]``, in order of (distance, id).

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said.
        """
        rows = check_codes(codes, self.n_bits)
        radius = min(check_count(radius, "radius", 0), self.n_bits)
        threads = n_threads(n_jobs, _search.max_threads())
        with self._lock.shared():
            return (self._lookup or _search).radius_search(
                self._blocks,
                self._n,
                rows,
                radius,
                self._ids,
                self._ascending,
                self._bitmap(filter),
                threads,
            )

    save = _index_file.save
    load = classmethod(_index_file.load)

    # ---- inside: the lock is held ----

    def _unsettle(self, positions):
        """Tell the lookup that codes will be written there; true too early does no harm."""
        if self._lookup is not None:
            self._lookup.changed(positions)

    def _renew_lookup(self):
        if self._lookup is not None and self._lookup.worn(self._n):
            with contextlib.suppress(MemoryError):  # the old tables are right, only slower
                self._lookup = Lookup(self._blocks, self._n, self.n_bits, self._lookup.share)

    def _search(self, rows, k, filter, threads):
        engine = self._lookup or _search
        return engine.search(self._blocks, self._n, rows, k, self._ids, self._ascending, filter, threads)

    def _search_and_rescore(self, rows, k, filter, threads, rescore):
        distances, ids = np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int64)
        n_candidates = max(k, min(k * rescore.factor, self._n))
        step = max(1, _MOST_CANDIDATES // n_candidates)
        for start in range(0, len(rows), step):
            _, found = self._search(rows[start : start + step], n_candidates, filter, threads)
            finer = rescore.distances(start, found, self._get)
            distances[start : start + step], ids[start : start + step] = rerank(found, finer, k)
        return distances, ids

    def _room(self, n):
        """Return arrays with room for n codes: the present ones, or copies that have grown by at least half.

        A copy, too, of a map of a file, which cannot be written to.
        """
        groups = -(-n // 8)
        enough = groups * 8 * self._n_words <= len(self._blocks) and n <= len(self._ids)
        if enough and self._blocks.flags.writeable and self._ids.flags.writeable:
            return self._blocks, self._ids
        if not enough:
            groups = max(groups, -(-(self._n + self._n // 2) // 8))
        blocks = np.zeros(groups * 8 * self._n_words, np.uint64)
        used = -(-self._n // 8) * 8 * self._n_words
        blocks[:used] = self._blocks[:used]
        ids = np.zeros(groups * 8, np.int64)
        ids[: self._n] = self._ids[: self._n]
        return blocks, ids

    def _grouped(self):
        """The blocks as (n_groups, n_words, 8)."""
        return self._blocks[: len(self._blocks) // (8 * self._n_words) * 8 * self._n_words].reshape(
            -1, self._n_words, 8
        )

    def _table(self, ids):
        """Return the table of positions, built at its first use."""
        with self._id_map_lock:
            if self._id_map is None:
                self._id_map = _search.IdMap(ids, self._n)
            return self._id_map

    def _positions(self, ids):
        """Return the positions of ids, -1 for unknown ones."""
        if self._n == 0:
            return np.full(len(ids), -1, np.int64)
        if not self._ascending:
            return self._table(self._ids).find(self._ids, ids)
        known = self._ids[: self._n]
        at = np.minimum(np.searchsorted(known, ids), self._n - 1)
        return np.where(known[at] == ids, at, -1)

    def _counted(self):
        """Whether the ids are 0 .. n - 1: all are different, so their ends tell."""
        ids = self._ids[: self._n]
        if not len(ids):
            return True
        low, high = (ids[0], ids[-1]) if self._ascending else (ids.min(), ids.max())
        return bool(low == 0 and high == len(ids) - 1)

    def _refuse_unknown(self, ids, positions):
        if (positions < 0).any():
            raise KeyError(f"ids are not in the index: {some(ids[positions < 0])}")

    def _get(self, ids):
        positions = self._positions(ids)
        self._refuse_unknown(ids, positions)
        return self._grouped()[positions // 8, :, positions % 8]

    def _bitmap(self, filter):
        """Return a filter as a packed bitmap by position."""
        if filter is None:
            return None
        words = -(-self._n // 64)
        filter = np.asarray(filter)
        if filter.dtype == bool:
            if filter.shape != (self._n,):
                raise ValueError(f"filter of booleans must have shape ({self._n},), got {filter.shape}")
            mask = filter
        elif filter.dtype == np.uint64 and filter.dtype.isnative:
            if filter.shape != (words,):
                raise ValueError(f"filter as a packed bitmap must have shape ({words},), got {filter.shape}")
            return np.ascontiguousarray(filter)
        else:
            positions = self._positions(as_ids(filter, "filter"))
            mask = np.zeros(self._n, bool)
            mask[positions[positions >= 0]] = True
        bytes_ = np.zeros(words * 8, np.uint8)
        packed = np.packbits(mask, bitorder="little")
        bytes_[: len(packed)] = packed
        return bytes_.view("<u8").astype(np.uint64, copy=False)

    # ---- pickling: no lock, table or spare room ----

    def __getstate__(self):
        with self._lock.shared():
            return {
                "n_bits": self.n_bits,
                "_n_words": self._n_words,
                "_n": self._n,
                "_blocks": self._blocks[: -(-self._n // 8) * 8 * self._n_words].copy(),
                "_ids": self._ids[: self._n].copy(),
                "_next_id": self._next_id,
                "_ascending": self._ascending,
                "_lookup": copy.copy(self._lookup),
            }

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._start()
