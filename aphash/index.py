"""HammingIndex: exact search over packed codes. Needs numpy only."""

import functools
import math
import numbers

import numpy as np

from aphash._common import container
from aphash._common.checks import as_ids, check_count, check_ids
from aphash._common.threads import n_threads
from aphash._kernels import max_threads, scan_costs
from aphash._searching import _search, index_file, pairs
from aphash._searching import queries as kinds
from aphash._searching._store import Store, refuse_unknown
from aphash._searching.engines import engine_of
from aphash._searching.expansion import check_expansion, expanded
from aphash._searching.filters import prepare
from aphash._searching.lookup import MAX_SCAN_FRACTION, Lookup
from aphash._searching.queries import check_queries
from aphash.codes import check_codes, check_n_bits, origin_of
from aphash.rescore import bind, rerank

PAD_ID = _search.PAD_ID
PAD_DISTANCE = _search.PAD_DISTANCE

_MAX_CANDIDATES = 1 << 20  # that are held at a time while they are ranked anew


def _codes_first(method):
    """Refuse ids of dtype uint64 by position: two arrays of uint64 cannot show which of them are the codes."""

    @functools.wraps(method)
    def checked(self, *args, **kwargs):
        if len(args) > 1 and getattr(args[1], "dtype", None) == np.uint64:
            name = method.__name__
            raise TypeError(
                f"codes come first, {name}(codes, ids), and ids of dtype uint64 by name: {name}(codes, ids=...)"
            )
        return method(self, *args, **kwargs)

    return checked


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
    fingerprint : str or None
        Of the model that made the codes (``APHash.fingerprint_``), where any of them is known to be a model's. Codes
        and queries that are known to be another model's are refused: their distances mean nothing.
    nbytes : int
        Memory of codes, ids and lookup, in bytes; of a mapped index, of the map.

    Notes
    -----
    Codes lie in pages of 128 KiB (of at least 512 codes), which are never copied when the index grows. Memory:
    ``8 * n_words`` bytes a code, and at most 4 MiB that wait for codes to come. Ids that count up cost nothing;
    otherwise 8 bytes an id in each page of others, and 16 to 40 bytes an id once ids do not ascend with the position
    (given in another order, or moved by a removal). A removal gives back the pages that it empties, in pieces of up to
    4 MiB of which one page in use keeps the whole; :meth:`compact` gives back the rest.

    Adding costs in proportion to the codes in question; removing and updating copy the pages that they touch. A removal
    puts codes from the end in the place of the removed ones: positions change, ids and results do not depend on them.

    Any number of threads may search while others change the index. A search takes the index as it is at the call, and
    neither waits nor makes anyone wait; a change is seen by the searches that begin after it, wholly or, when an
    exception comes out of it (Ctrl-C, no memory), not at all. Changes wait for each other; one that is asked for by a
    signal handler inside another change of the same thread raises RuntimeError. A forked child has the index as it was,
    whatever other threads were doing. Distances are int32, ids int64; results are ordered by (distance, id), the same
    for every instruction set, number of threads and batch.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import HammingIndex
    >>> index = HammingIndex(64)
    >>> index.add(np.array([[0], [1], [3], [7]], np.uint64))
    array([0, 1, 2, 3])
    >>> distances, ids = index.search(np.array([2], np.uint64), 2)
    >>> distances, ids
    (array([1, 1], dtype=int32), array([0, 2]))
    """

    __module__ = "aphash"  # where it is public: pickles and reprs say so

    def __init__(self, n_bits):
        self._store = Store(check_n_bits(n_bits))

    @classmethod
    def _of(cls, store):
        """Return an index of a store; a subclass's __init__ is not called, as by pickle."""
        index = cls.__new__(cls)
        index._store = store
        return index

    @property
    def n_bits(self):
        return self._store.present.n_bits

    def __len__(self):
        return len(self._store.present)

    def __repr__(self):
        return f"HammingIndex(n_bits={self.n_bits}), {len(self)} codes"

    def __contains__(self, id):
        if isinstance(id, bool) or not isinstance(id, numbers.Integral):
            raise TypeError(f"id must be an integer, got {id!r}: for several, see contains()")
        return -(2**63) <= id < 2**63 and bool(self.contains(int(id))[0])

    @property
    def codes(self):
        present = self._store.present
        return present.load(0, len(present))

    @property
    def ids(self):
        present = self._store.present
        return present.load_ids(0, len(present))

    @property
    def fingerprint(self):
        return self._store.present.fingerprint

    @property
    def nbytes(self):
        present = self._store.present
        return present.memory() + (0 if present.lookup is None else present.lookup.nbytes)

    def snapshot(self):
        """Return ids and codes of one moment, whatever other threads change meanwhile.

        Returns
        -------
        ids : ndarray of int64, shape (n,)
        codes : ndarray of uint64, shape (n, n_words)
            Copies.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> ids, codes = index.snapshot()
        >>> ids.shape, codes.shape
        ((4,), (4, 1))
        """
        present = self._store.present
        return present.load_ids(0, len(present)), present.load(0, len(present))

    # ---- changes ----

    @_codes_first
    def add(self, codes, ids=None):
        """Add codes.

        Parameters
        ----------
        codes : ndarray of uint64, shape (n_new, n_words) or (n_words,)
            As :func:`aphash.pack_codes` makes them.
        ids : array_like of int, shape (n_new,), optional
            Any int64 but -1, none of them in the index yet; of dtype uint64 by keyword only. By default they are
            counted on from the largest id that was ever in the index, or from 0: the id of a removed code does not come
            back by itself.

        Returns
        -------
        ids : ndarray of int64, shape (n_new,)

        Raises
        ------
        TypeError, ValueError, MemoryError
            When codes or ids are not as said, or the codes are another model's; the ids at fault are named. The index
            stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(np.array([[0], [1], [3], [7]], np.uint64))
        array([0, 1, 2, 3])
        >>> index.add(np.array([[15]], np.uint64), [100])
        array([100])
        >>> len(index)
        5
        """
        made_by, codes = _fingerprint_of(codes), check_codes(codes, self.n_bits)
        if ids is not None:
            ids = check_ids(ids, len(codes))
        ids = self._store.add(codes, ids, made_by)
        self._store.renew_lookup()
        return ids

    @_codes_first
    def update(self, codes, ids):
        """Replace codes; the ids stay.

        Parameters
        ----------
        codes : ndarray of uint64, shape (n_old, n_words) or (n_words,)
        ids : array_like of int, shape (n_old,), or one int
            Of dtype uint64 by keyword only.

        Raises
        ------
        KeyError
            When some are not in the index; they are named, and nothing is changed.
        TypeError, ValueError, MemoryError
            When codes or ids are not as said. The index stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.update(np.array([[255]], np.uint64), [2])
        >>> index.get(2)
        array([255], dtype=uint64)
        """
        made_by, codes = _fingerprint_of(codes), check_codes(codes, self.n_bits)
        self._store.update(codes, check_ids(ids, len(codes)), made_by)
        self._store.renew_lookup()

    @_codes_first
    def upsert(self, codes, ids):
        """Replace the codes of ids that are in the index, and add the others, in one change.

        Parameters
        ----------
        codes : ndarray of uint64, shape (n, n_words) or (n_words,)
        ids : array_like of int, shape (n,), or one int
            All different; of dtype uint64 by keyword only.

        Returns
        -------
        int
            How many were added.

        Raises
        ------
        TypeError, ValueError, MemoryError
            When codes or ids are not as said, or an id is given twice. The index stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.upsert(np.array([[255], [256]], np.uint64), [2, 50])
        1
        >>> index.ids
        array([ 0,  1,  2,  3, 50])
        """
        made_by, codes = _fingerprint_of(codes), check_codes(codes, self.n_bits)
        added = self._store.upsert(codes, check_ids(ids, len(codes)), made_by)
        self._store.renew_lookup()
        return added

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
        TypeError, ValueError, MemoryError
            When an argument is not as said. The index stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.remove([1, 77], missing="ignore")
        1
        >>> sorted(index.ids.tolist())
        [0, 2, 3]
        """
        if missing not in ("raise", "ignore"):
            raise ValueError(f"missing must be 'raise' or 'ignore', got {missing!r}")
        removed = self._store.remove(check_ids(ids), missing == "ignore")
        self._store.renew_lookup()
        return removed

    def merge(self, other):
        """Add all codes of another index, under their ids.

        Parameters
        ----------
        other : HammingIndex
            It stays as it is. Changes of it during the call are not seen.

        Raises
        ------
        TypeError
            When it is not a HammingIndex.
        ValueError
            When its ``n_bits`` is another, or ids are in both; they are named. The index stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> other = HammingIndex(64)
        >>> ids = other.add(np.array([[9]], np.uint64), [10])
        >>> index.merge(other)
        >>> 10 in index
        True
        """
        if not isinstance(other, HammingIndex):
            raise TypeError(f"other must be a HammingIndex, got {type(other).__name__}")
        if other.n_bits != self.n_bits:
            raise ValueError(f"other must have n_bits={self.n_bits}, got {other.n_bits}")
        self._store.merge(other._store.present)
        self._store.renew_lookup()

    def clear(self):
        """Remove all codes. The next id that is counted is the same as before.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.clear()
        >>> index.add(np.array([[5]], np.uint64))
        array([4])
        """
        lookup = self._store.present.lookup
        self._store.clear(None if lookup is None else Lookup(Store(self.n_bits).present, lookup.max_scan_fraction))

    def reserve(self, n):
        """Allocate memory for n codes in all, so that adding them does not fail for want of it.

        Parameters
        ----------
        n : int
            At least 0. Memory for fewer codes than there are is not given back: see :meth:`compact`. Ids that do not
            count up, and tables, need more.

        Raises
        ------
        TypeError, ValueError, MemoryError
            When n is not as said, or there is not so much. The index stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.reserve(1_000_000)
        >>> len(index)
        4
        """
        self._store.reserve(check_count(n, "n", 0))

    def compact(self):
        """Give memory back that removals have left, and build the table of ids and the lookup anew.

        Codes are copied in the order of their ids, so ids ascend with the position again. Results do not change.
        Changes wait meanwhile, searches do not. Needs memory for the codes once more, and 16 bytes a code beside it.

        Raises
        ------
        MemoryError
            The index stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.remove([0])
        1
        >>> index.compact()
        >>> index.ids
        array([1, 2, 3])
        """
        lookup = self._store.present.lookup
        self._store.compact()
        if lookup is not None:
            present = self._store.present
            self._store.set_lookup(lookup.rebuild_tables(present), present)

    # ---- lookup ----

    def build_lookup(self, *, max_scan_fraction=MAX_SCAN_FRACTION):
        """Build tables that make searches sub-linear where neighbours are near: multi-index hashing, exact.

        From then on a search first tries the tables, and scans the codes for those queries that would cost too much
        there; the results are the same. It pays for near-duplicates, small radii and single queries; for large batches
        of queries without near neighbours the scan is as good. Changes of the index keep the tables in step; they are
        built anew when more than 4,096, and more than a 32nd, of the codes have changed. Searches and changes go on
        meanwhile.

        Parameters
        ----------
        max_scan_fraction : float, default=0.1
            A query is scanned once the tables would cost more than this fraction of its scan (by measured costs, see
            :mod:`aphash._searching.lookup`). 0 always scans, infinity hardly ever.

        Raises
        ------
        TypeError, ValueError
            When max_scan_fraction is not a number >= 0, or the index holds 2^32 codes or more.

        Notes
        -----
        Memory: about 8 bytes a code for each of the n_bits / log2(n) substrings of the bits that the tables are made
        of. They are saved and pickled with the index.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.build_lookup()
        >>> index.radius_search(np.array([0], np.uint64), 1)[2]
        array([0, 1])
        """
        present = self._store.present
        self._store.set_lookup(Lookup(present, max_scan_fraction), present)

    def drop_lookup(self):
        """Forget the tables of :meth:`build_lookup`; searches scan again.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.build_lookup()
        >>> index.drop_lookup()
        """
        self._store.set_lookup(None, self._store.present)

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

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.get([3, 0])
        array([[7],
               [0]], dtype=uint64)
        """
        codes = _get(self._store.present, as_ids(ids))
        return codes[0] if np.ndim(ids) == 0 else codes

    def contains(self, ids):
        """Return which ids are in the index; of a single one, ``id in index`` tells it.

        Parameters
        ----------
        ids : array_like of int, shape (n_wanted,), or one int

        Returns
        -------
        ndarray of bool, shape (n_wanted,)

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.contains([3, 4])
        array([ True, False])
        >>> 3 in index
        True
        """
        return self._store.present.find(as_ids(ids)) >= 0

    # ---- searches ----

    def search(
        self,
        queries,
        k,
        *,
        filter=None,
        expand=0,
        expand_weight=1.0,
        rescore=None,
        rescore_queries=None,
        n_jobs=None,
    ):
        """Find the k nearest codes, by queries that are codes or weights; the dtype tells which.

        A vector is neither. Its code is ``hasher.transform(X)`` and its weights are ``hasher.query_projections(X)``. A
        vector that has n_bits numbers by chance cannot be told from weights.

        Parameters
        ----------
        queries : ndarray
            Codes: uint64, shape (n_queries, n_words) or (n_words,). The distance is the number of bits that differ.
            Weights p: floats, shape (n_queries, n_bits) or (n_bits,). The distance is the sum of |p| over the bits in
            which a code differs from p >= 0, so that a bit of which the query is unsure costs little (Gordo & Perronnin
            2011).
        k : int
            At least 1. Beyond the number of codes that take part the results are padded.
        filter : Filter or array_like, optional
            Which codes take part: a :class:`aphash.Filter`, which is prepared once for many searches; or integers of
            any dtype, which are ids (once or more; those that are not in the index have no effect); or booleans, shape
            (n,), by position, in the order of ``ids``. Positions change with a removal, ids do not.
        expand : int, default=0
            Search twice: the mean of the codes, as -1 and +1, of the first ``expand`` results is multiplied by
            ``expand_weight`` and added to the query's weights, which are divided by their mean magnitude before. The
            results and distances are those of the sum. Only for weights; 0 is off. More of the query's kind is found,
            and true neighbours are lost: it harms where kinds look alike, as near-identical products and images of
            tissue do. Choose both numbers on queries whose answers are known; 30 and 1, or 100 and 3, are where to
            begin.
        expand_weight : float, default=1.0
            At least 0.
        rescore : VectorRescore, optional
            Finer distances, from :mod:`aphash.rescore`: the ``factor * k`` nearest codes are ranked anew by them.
        rescore_queries : array_like of shape (n_queries, d), optional
            The queries' vectors, by which rescore ranks.
        n_jobs : int, optional
            Threads; see :func:`aphash._common.threads.n_threads`.

        Returns
        -------
        distances : ndarray of int32 or float32, shape (n_queries, k) or (k,)
            Of codes int32, 2,147,483,647 where there is no code left; of weights, and with rescore its distances,
            float32, infinity where none is left.
        ids : ndarray of int64, shape (n_queries, k) or (k,)
            In order of (distance, id); -1 where there is no code left.

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said.

        Notes
        -----
        Weights are compared exactly as integers: rint(|p| / max|p| * 65535) in float64, of which the sums are what
        results are ordered by; distances are these sums times max|p| / 65535. So results are the same on every
        machine, and two codes whose distances round to the same float32 stay in their order. Such a search needs
        16 n_bits bytes for each query, at most 64 MiB at a time, beside the results.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> index.search(np.array([[0], [7]], np.uint64), 2)
        (array([[0, 1],
               [0, 1]], dtype=int32), array([[0, 1],
               [3, 2]]))
        """
        rows = check_queries(queries, self.n_bits)
        k = check_count(k, "k", 1)
        expand, expand_weight = check_expansion(expand, expand_weight, rows)
        present = self._store.present
        threads = _threads(n_jobs, present, rows)
        _refuse_other_model(present, queries)
        rescore = bind(
            rescore,
            rescore_queries,
            n_queries=len(rows),
            n_codes=len(present),
            counted=lambda: _is_counted(present),
            n_threads=threads,
        )
        bitmap = prepare(filter, present)
        engine = engine_of(present)

        def nearest(rows, k):
            return kinds.nearest(engine, present, rows, k, bitmap, threads)

        def codes_of(ids):
            return _get(present, ids)

        if expand:
            rows = expanded(rows, nearest(rows, expand)[1], codes_of, expand_weight)
        if rescore is None:
            distances, ids = nearest(rows, k)
            distances = kinds.shown(distances, ids, rows)
        else:
            distances, ids = _search_and_rescore(rows, k, rescore, len(present), nearest)
        return (distances[0], ids[0]) if np.ndim(queries) == 1 else (distances, ids)

    def radius_search(self, queries, radius, *, filter=None, n_jobs=None):
        """Find all codes within a radius, by queries that are codes or weights; the dtype tells which.

        Parameters
        ----------
        queries : ndarray of uint64 or of floats
            As for :meth:`search`.
        radius : int; of weights float
            At least 0; a code at this distance is found. Of weights it is in their unit: found is what has an integer
            distance of at most floor(radius / max|p| * 65535).
        filter, n_jobs
            As for :meth:`search`.

        Returns
        -------
        offsets : ndarray of int64, shape (n_queries + 1,)
        distances : ndarray of int32, of weights float32, shape (offsets[-1],)
        ids : ndarray of int64, shape (offsets[-1],)
            Those of query i stand at ``offsets[i] : offsets[i + 1]``, in order of (distance, id).

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> offsets, distances, ids = index.radius_search(np.array([[0], [7]], np.uint64), 1)
        >>> offsets, distances, ids
        (array([0, 2, 4]), array([0, 1, 0, 1], dtype=int32), array([0, 1, 3, 2]))
        """
        rows = check_queries(queries, self.n_bits)
        radius = kinds.check_radius(radius, self.n_bits, rows)
        present = self._store.present
        threads = _threads(n_jobs, present, rows)
        _refuse_other_model(present, queries)
        bitmap = prepare(filter, present)
        offsets, distances, ids = kinds.within(engine_of(present), present, rows, radius, bitmap, threads)
        return offsets, kinds.shown_within(offsets, distances, ids, rows), ids

    # ---- codes against each other ----

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

        Many equal codes are found by sorting, and one of them is compared with others for all: n equal codes have n (n
        - 1) / 2 pairs, which are enumerated. Codes within a small radius agree in one of ``radius + 1`` substrings of
        their bits, so only such are compared; where the substrings are too short for that, all are, by scans. Memory:
        24 bytes a code, 60 with many equal ones, and 200 MiB at most for the blocks.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> for ids_i, ids_j, distances in index.pairs(1):
        ...     print(sorted(zip(ids_i.tolist(), ids_j.tolist(), distances.tolist())))
        [(0, 1, 1), (1, 2, 1), (2, 3, 1)]
        """
        radius = min(check_count(radius, "radius", 0), self.n_bits)
        present, threads = self._store.present, n_threads(n_jobs, max_threads())
        return pairs.pairs(present, radius, prepare(filter, present), threads, verbose)

    def groups(self, radius, *, filter=None, n_jobs=None, verbose=0):
        """Group the codes so that any two within a radius are in the same group: the connected components.

        Parameters
        ----------
        radius : int
        filter
            As for :meth:`search`: the other codes are in no group and connect none.
        n_jobs, verbose
            As for :meth:`pairs`.

        Returns
        -------
        ids : ndarray of int64, shape (n,)
            Of the codes that take part, ascending.
        labels : ndarray of int64, shape (n,)
            The group of each. Groups are numbered from 0 by their smallest id.

        Raises
        ------
        TypeError, ValueError
            As :meth:`pairs`.

        Notes
        -----
        Equal codes cost a sort. Memory: some 100 bytes a code beside the blocks of :meth:`pairs`, however many pairs
        there are.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> ids = index.add(np.array([[0xFF00]], np.uint64))
        >>> index.groups(1)
        (array([0, 1, 2, 3, 4]), array([0, 0, 0, 0, 1]))
        """
        radius = min(check_count(radius, "radius", 0), self.n_bits)
        present, threads = self._store.present, n_threads(n_jobs, max_threads())
        return pairs.groups(present, radius, prepare(filter, present), threads, verbose)

    def knn_graph(self, k, *, n_jobs=None):
        """Return the graph of each code's k nearest other codes.

        Parameters
        ----------
        k : int
            At least 1. Codes have fewer neighbours where the index does not hold k others.
        n_jobs : int, optional

        Returns
        -------
        ids : ndarray of int64, shape (n,)
            Of all codes, ascending.
        graph : scipy.sparse.csr_array of int32, shape (n, n)
            Row and column i are the code ``ids[i]``; the values are distances, and distances of 0 stand there as
            explicit zeros. Each row is in order of (distance, id), as :meth:`search` finds them, not of columns.

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said.

        Notes
        -----
        Of equal codes one is searched for all. Memory: 12 k + 60 bytes a code, and some 200 MiB.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> ids, graph = index.knn_graph(1)
        >>> graph.indices, graph.data
        (array([1, 0, 1, 2]), array([1, 1, 1, 1], dtype=int32))
        """
        k = check_count(k, "k", 1)
        return pairs.knn_graph(self._store.present, k, n_threads(n_jobs, max_threads()))

    # ---- files ----

    def save(self, path):
        """Write the index to a file: checksummed, and atomically, so that ``path`` is never half a file.

        Parameters
        ----------
        path : str, os.PathLike, bytes or binary file object
            A path is used as given; an existing file is replaced, also one that this index is a map of. A file object
            (``io.BytesIO``, what S3 clients upload) is written to front to back and left open; after an error it holds
            half a file.

        Raises
        ------
        OSError
            With the path, when it cannot be written; what was there stays.
        TypeError
            For a file object of texts.

        Notes
        -----
        Needs a few megabytes. What is written is the index at the call; searches and changes go on meanwhile, and pages
        that are changed are kept until it is done. A lookup is saved, too.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> import io
        >>> file = io.BytesIO()
        >>> index.save(file)
        >>> HammingIndex.load(file.getvalue())
        HammingIndex(n_bits=64), 4 codes
        """
        index_file.write(self._store.present, path)

    @classmethod
    def load(cls, path, *, mmap=False, verify=None):
        """Return the index that :meth:`save` wrote.

        Parameters
        ----------
        path : str, os.PathLike, bytes or binary file object
            A file object is read front to back, from where it stands to the end of the index. Bytes, a bytearray or a
            memoryview are a file's contents.
        mmap : bool
            Search the file where it lies: opening it takes the same short time whatever its size, and codes are read
            when a search needs them. The file is never written to: a change copies the pages that it touches into
            memory. Shortening the file *in place* while it is mapped kills the process; saving over it or deleting it
            does no harm.
        verify : bool, optional
            Whether the checksums of codes and ids are verified, which reads the whole file. By default they are, but
            for a mapped file; the header's checksum and all sizes always are.

        Raises
        ------
        OSError, ValueError
            With the path and what is wrong, when it cannot be read, is not such a file, or not whole.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "codes.aphash")
        ...     index.save(path)
        ...     HammingIndex.load(path, mmap=True).search(np.array([3], np.uint64), 1)
        (array([0], dtype=int32), array([2]))
        """
        return cls._of(index_file.read(path, mmap, verify))

    # ---- pickling, and copying: as a file ----

    def __getstate__(self):
        arrays, params = index_file.to_file(self._store.present)
        own = {name: value for name, value in self.__dict__.items() if name != "_store"}
        return {
            "arrays": {name: container.whole(array) for name, array in arrays.items()},
            "params": params,
            "own": own,
        }

    def __setstate__(self, state):
        self.__dict__.update(state["own"])
        self._store = index_file.from_file("pickle", state["arrays"], state["params"], index_file.VERSION, check=True)


def _threads(n_jobs, snapshot, rows):
    cost = scan_costs(kinds.is_float(rows))[0]
    small = snapshot.lookup is None and _search.is_small(len(snapshot) * snapshot.n_words * len(rows) * cost)
    return n_threads(n_jobs, max_threads(), split=not small)


def _fingerprint_of(codes):
    """The fingerprint of the model that made an argument, as it was given; None where that is not known."""
    origin = origin_of(codes) if isinstance(codes, np.ndarray) else None
    return None if origin is None else origin.fingerprint


def _refuse_other_model(snapshot, codes):
    if snapshot.fingerprint is None:
        return
    if _fingerprint_of(codes) not in (None, snapshot.fingerprint):
        raise ValueError("codes are those of another model than the index's, as their fingerprints tell")


def _get(snapshot, ids):
    positions = snapshot.find(ids)
    refuse_unknown(ids, positions)
    return snapshot.codes_at(positions)


def _is_counted(snapshot):
    """Whether the ids are 0 .. n - 1: all are different, so the least and the largest tell."""
    n = len(snapshot)
    if n == 0 or snapshot.first_id_of_range() == 0:
        return True
    ids = snapshot.load_ids(0, n)
    return bool(ids.min() == 0 and ids.max() == n - 1)


def nearest_integers(index, rows, k, filter):
    """What a search by checked rows finds, by one thread, with integer distances: other indexes' compare with them."""
    present = index._store.present
    return kinds.nearest(engine_of(present), present, rows, k, prepare(filter, present), 1)


def integers_within(index, rows, radius, filter):
    """As :func:`nearest_integers`, of a radius search with a checked radius."""
    present = index._store.present
    return kinds.within(engine_of(present), present, rows, radius, prepare(filter, present), 1)


def _search_and_rescore(rows, k, rescore, n, nearest):
    distances, ids = np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int64)
    n_candidates = max(k, min(math.ceil(k * rescore.factor), n))
    step = max(1, _MAX_CANDIDATES // n_candidates)
    for start in range(0, len(rows), step):
        found = nearest(rows[start : start + step], n_candidates)[1]
        finer = rescore.distances(start, found)
        distances[start : start + step], ids[start : start + step] = rerank(found, finer, k)
    return distances, ids
