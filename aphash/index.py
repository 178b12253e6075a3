"""HammingIndex: exact search over packed codes. Needs numpy only."""

import contextlib
import numbers
import threading

import numpy as np

from aphash import _search
from aphash._runtime import n_threads
from aphash.codes import check_codes, check_n_bits, n_words

PAD_ID = _search.PAD_ID
PAD_DISTANCE = _search.PAD_DISTANCE


class HammingIndex:
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
    Memory: ``8 * n_words`` bytes a code and 8 an id, up to half as much again after growth. A search needs a few
    megabytes a thread beside its result, whatever n is.

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
        self._ascending = True  # ids ascend with the position
        self._lock = ReadWriteLock()

    def __len__(self):
        return self._n

    def __repr__(self):
        return f"HammingIndex(n_bits={self.n_bits}), {self._n} codes"

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
            Any int64 but -1, none of them in the index yet. By default they are counted on from the largest id in the
            index (from 0 in an empty one, or where the largest is negative).

        Returns
        -------
        ids : ndarray of int64, shape (n_new,)

        Raises
        ------
        TypeError, ValueError
            When codes or ids are not as said; the ids at fault are named. The index stays as it was.
        """
        codes = check_codes(codes, self.n_bits)
        if ids is not None:
            ids = check_ids(ids, len(codes))
        with self._lock.exclusive():
            if ids is None:
                first = max(-1, int(self._ids[: self._n].max(initial=-1))) + 1
                if first + len(codes) - 1 > np.iinfo(np.int64).max:
                    raise ValueError(f"ids cannot be counted on from {first - 1}: give them")
                ids = np.arange(first, first + len(codes), dtype=np.int64)
            else:
                known = ids[self._positions(ids) >= 0]
                if known.size:
                    raise ValueError(f"ids are in the index already: {_some(known)}")
            n = self._n + len(codes)
            blocks, all_ids = self._room(n)
            _search.store(blocks, self._n, codes)
            all_ids[self._n : n] = ids
            ascending = self._ascending and bool((np.diff(all_ids[max(0, self._n - 1) : n]) > 0).all())
            self._blocks, self._ids, self._ascending, self._n = blocks, all_ids, ascending, n
        return ids

    def remove(self, ids):
        """Remove codes by their ids; the others keep their order.

        Parameters
        ----------
        ids : array_like of int, shape (n_old,)

        Raises
        ------
        KeyError
            When some are not in the index; they are named, and nothing is removed.
        """
        ids = check_ids(ids, None)
        with self._lock.exclusive():
            positions = self._positions(ids)
            unknown = ids[positions < 0]
            if unknown.size:
                raise KeyError(f"ids are not in the index: {_some(unknown)}")
            keep = np.ones(self._n, bool)
            keep[positions] = False
            kept = np.flatnonzero(keep)
            self._blocks = _search.gather(self._blocks, self._n_words, kept)
            self._ids = self._ids[kept]
            self._n = len(kept)

    # ---- searches ----

    def search(self, codes, k, *, filter=None, n_jobs=None):
        """Find the k nearest codes.

        Parameters
        ----------
        codes : ndarray of uint64, shape (n_queries, n_words) or (n_words,)
        k : int
            At least 1. Beyond the number of codes that take part the results are padded.
        filter : array_like, optional
            Which codes take part: booleans by position (in the order of ``ids``), integers: their ids, or uint64: a
            packed bitmap by position.
        n_jobs : int, optional
            Threads; see :func:`aphash._runtime.n_threads`.

        Returns
        -------
        distances : ndarray of int32, shape (n_queries, k) or (k,)
            2,147,483,647 where there is no code left.
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
            distances, ids = _search.search(
                self._blocks,
                self._n,
                rows,
                k,
                self._ids,
                self._ascending,
                self._bitmap(filter),
                threads,
            )
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
            return _search.radius_search(
                self._blocks,
                self._n,
                rows,
                radius,
                self._ids,
                self._ascending,
                self._bitmap(filter),
                threads,
            )

    # ---- inside: the lock is held ----

    def _room(self, n):
        """Return arrays with room for n codes: the present ones, or copies that have grown by at least half."""
        groups = -(-n // 8)
        if groups * 8 * self._n_words <= len(self._blocks) and n <= len(self._ids):
            return self._blocks, self._ids
        groups = max(groups, -(-(self._n + self._n // 2) // 8))
        blocks = np.zeros(groups * 8 * self._n_words, np.uint64)
        used = -(-self._n // 8) * 8 * self._n_words
        blocks[:used] = self._blocks[:used]
        ids = np.zeros(groups * 8, np.int64)
        ids[: self._n] = self._ids[: self._n]
        return blocks, ids

    def _positions(self, ids):
        """Return the positions of ids, -1 for unknown ones."""
        known = self._ids[: self._n]
        if self._n == 0:
            return np.full(len(ids), -1, np.int64)
        order = None if self._ascending else np.argsort(known)
        at = np.minimum(np.searchsorted(known, ids, sorter=order), self._n - 1)
        at = at if order is None else order[at]
        return np.where(known[at] == ids, at, -1)

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
            ids = check_ids(filter, None, "filter")
            positions = self._positions(ids)
            if (positions < 0).any():
                raise ValueError(f"filter holds ids that are not in the index: {_some(ids[positions < 0])}")
            mask = np.zeros(self._n, bool)
            mask[positions] = True
        bytes_ = np.zeros(words * 8, np.uint8)
        packed = np.packbits(mask, bitorder="little")
        bytes_[: len(packed)] = packed
        return bytes_.view("<u8").astype(np.uint64, copy=False)

    # ---- pickling: all but the lock, and no spare room ----

    def __getstate__(self):
        with self._lock.shared():
            state = self.__dict__.copy()
            state["_blocks"] = self._blocks[: -(-self._n // 8) * 8 * self._n_words].copy()
            state["_ids"] = self._ids[: self._n].copy()
        del state["_lock"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock = ReadWriteLock()


class ReadWriteLock:
    """Searches share the lock; a change has it alone, and searches that come later wait for a waiting change."""

    def __init__(self):
        self._condition = threading.Condition()
        self._readers = 0
        self._writer = False
        self._waiting = 0

    @contextlib.contextmanager
    def shared(self):
        with self._condition:
            self._condition.wait_for(lambda: not self._writer and not self._waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def exclusive(self):
        with self._condition:
            self._waiting += 1
            try:
                self._condition.wait_for(lambda: not self._writer and not self._readers)
                self._writer = True
            finally:
                self._waiting -= 1
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._writer = False
                self._condition.notify_all()


def check_count(value, name, least):
    """Return an integer of at least `least`; TypeError or ValueError that names it otherwise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if value > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit in 64 bits, got {value}")
    return int(value)


def check_ids(ids, n, name="ids"):
    """Return ids as int64 (n,), checked: integers, not -1, all different."""
    ids = np.asarray(ids)
    if ids.size == 0 and ids.ndim == 1 and n in (0, None):
        return np.zeros(0, np.int64)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {ids.dtype}")
    if ids.ndim != 1 or (n is not None and len(ids) != n):
        raise ValueError(f"{name} must have shape ({'n' if n is None else n},), got {ids.shape}")
    if ids.dtype.kind == "u" and ids.size and ids.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit in int64, got {ids.max()}")
    ids = ids.astype(np.int64)
    if (ids == -1).any():
        raise ValueError(f"{name} must not be -1, which means no result; got it at place {np.argmax(ids == -1)}")
    in_order = np.sort(ids)
    twice = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    if twice.size:
        raise ValueError(f"{name} must be different, got twice: {_some(twice)}")
    return ids


def _some(ids):
    shown = ", ".join(str(i) for i in ids[:10])
    return shown if len(ids) <= 10 else f"{shown} and {len(ids) - 10} more"
