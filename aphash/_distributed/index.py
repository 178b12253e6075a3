"""HammingIndex over dask workers. A shard is a chunk of codes, made by a pure task. Answers are merged in a tree."""

import itertools
import os
import secrets

import dask
import dask.array as da
import numpy as np
from dask.sizeof import sizeof

from aphash import index
from aphash._common import container
from aphash._common.checks import as_ids, check_count, check_ids, some
from aphash._distributed.training_data import compute, itself
from aphash._searching import index_file
from aphash._searching.expansion import check_expansion, expanded
from aphash._searching.filters import Filter, as_filter
from aphash._searching.queries import check_queries, check_radius, is_float, shown, shown_within
from aphash.codes import check_n_bits, n_words
from aphash.index import PAD_DISTANCE, PAD_ID
from aphash.rescore import bind, rerank

_FAN_IN = 8  # so many answers are merged by one task
_BATCH = 1 << 18  # results, or candidates, of the queries that are searched at a time
_RADIUS_QUERIES = 1024  # queries of a radius search that are searched at a time
_BUCKET_IDS = 1 << 24  # ids that one task compares where the ranges of shards overlap

_KIND, _VERSION = "dask.HammingIndex", 1


class HammingIndex:
    """:class:`aphash.HammingIndex` over dask workers: the same answers, bit for bit.

    Parameters
    ----------
    n_bits : int
        Bits of a code, 1 to 65,536.

    Notes
    -----
    A shard is a chunk of codes on some worker, as the result of a pure task: dask makes it again from the chunk, or the
    file, when the worker is lost. Queries go to every shard; answers are merged eight at a time on the workers, and
    only the last come back. Uses the scheduler that dask uses: threads, or the workers of the current
    ``distributed.Client``. A worker needs 8 n_words + 8 bytes for each code that it holds, twice that while it adds
    it; a search needs some tens of MB beside.

    A shard never changes, so there is no ``remove`` and no ``update``: leave ids out by ``filter``, or make another
    index of what stays, on the workers::

        keep = ~da.isin(index.ids, gone)
        fewer = HammingIndex(n_bits)
        fewer.add(index.codes[keep], index.ids[keep])

    Searches have no ``n_jobs``: the search of a shard is a task of one thread, and dask runs the tasks.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from aphash.dask import HammingIndex
    >>> index = HammingIndex(64)
    >>> index.add(da.from_array(np.array([[0], [1], [3], [7]], np.uint64), chunks=(2, 1)))
    >>> index
    dask.HammingIndex(n_bits=64), 4 codes in 2 shards
    >>> index.search(np.array([0], np.uint64), 2)
    (array([0, 1], dtype=int32), array([0, 1]))
    """

    __module__ = "aphash.dask"  # where it is public: pickles and reprs say so

    def __init__(self, n_bits):
        self.n_bits = check_n_bits(n_bits)
        self._shards = []  # persisted tasks
        self._sizes, self._low, self._high = (np.zeros(0, np.int64) for _ in range(3))  # of the shards: n, least id, ..
        self._next_id = 0
        self._arrangement = object()  # of the positions, which never move; see Filter

    def __len__(self):
        return int(self._sizes.sum())

    def __repr__(self):
        return f"dask.HammingIndex(n_bits={self.n_bits}), {len(self)} codes in {len(self._shards)} shards"

    @property
    def codes(self):
        """The codes in the order in which they were added: a lazy dask array of uint64, shape (n, n_words).

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(da.from_array(np.array([[3], [7]], np.uint64)))
        >>> index.codes.compute()
        array([[3],
               [7]], dtype=uint64)
        """
        return self._lazy("codes", (n_words(self.n_bits),), np.uint64)

    @property
    def ids(self):
        """The ids in the order in which they were added: a lazy dask array of int64, shape (n,).

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(da.from_array(np.array([[3], [7]], np.uint64)))
        >>> index.ids.compute()
        array([0, 1])
        """
        return self._lazy("ids", (), np.int64)

    def _lazy(self, name, shape, dtype):
        chunks = [
            da.from_delayed(dask.delayed(getattr)(shard, name), (int(n), *shape), dtype)
            for shard, n in zip(self._shards, self._sizes, strict=True)
        ]
        return da.concatenate(chunks) if chunks else da.zeros((0, *shape), dtype)

    # -- changes

    def add(self, codes, ids=None):
        """Add codes: each chunk that is not empty becomes a shard.

        Parameters
        ----------
        codes : dask array of uint64, shape (n_new, n_words)
            Chunked in any way; unknown chunk sizes are computed first.
        ids : dask array or array_like of int, shape (n_new,), optional
            Any int64 but -1, all different. By default counted on from the largest that was in the index.

        Raises
        ------
        TypeError, ValueError
            When codes or ids are not as said. Where the fault is in a chunk, its first row is named. The index stays as
            it was.

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(da.from_array(np.array([[0], [1]], np.uint64)), ids=[10, 11])
        >>> index.ids.compute()
        array([10, 11])
        """
        codes = _dask_codes(codes, self.n_bits)
        sizes = codes.chunks[0]
        edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        if ids is None:
            if self._next_id + edges[-1] - 1 > np.iinfo(np.int64).max:
                raise ValueError(f"ids cannot be counted on from {self._next_id - 1}: give them")
            own = [int(self._next_id + start) for start in edges[:-1]]
        else:
            own = _ids_by_chunk(ids, sizes, edges)
        made = [
            dask.delayed(_make)(chunk, mine, self.n_bits, int(start))
            for chunk, mine, size, start in zip(codes.to_delayed().ravel(), own, sizes, edges[:-1], strict=True)
            if size
        ]
        shards = list(dask.persist(*made))
        ranges = np.array(list(compute([dask.delayed(_range)(shard) for shard in shards]))).reshape(-1, 2)
        low, high = np.concatenate([self._low, ranges[:, 0]]), np.concatenate([self._high, ranges[:, 1]])
        if ids is not None:
            _refuse_twice(self._shards + shards, low, high, len(self) + int(edges[-1]))
        self._sizes = np.concatenate([self._sizes, [size for size in sizes if size]]).astype(np.int64)
        self._shards, self._low, self._high = self._shards + shards, low, high
        self._next_id = max(self._next_id, int(ranges[:, 1].max(initial=-1)) + 1)

    # -- by id

    def contains(self, ids):
        """Return which ids are in the index; see :meth:`aphash.HammingIndex.contains`.

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(da.from_array(np.array([[0], [1]], np.uint64)))
        >>> index.contains([1, 2])
        array([ True, False])
        """
        wanted = as_ids(ids)
        found = np.zeros(len(wanted), bool)
        for place, known in self._of_shards(_contains, wanted):
            found[place] |= known
        return found

    def get(self, ids):
        """Return codes by their ids; see :meth:`aphash.HammingIndex.get`.

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(da.from_array(np.array([[3], [7]], np.uint64)))
        >>> index.get([1])
        array([[7]], dtype=uint64)
        """
        wanted = as_ids(ids)
        codes = self._get(wanted)
        return codes[0] if np.ndim(ids) == 0 else codes

    def _get(self, ids):
        codes, found = np.empty((len(ids), n_words(self.n_bits)), np.uint64), np.zeros(len(ids), bool)
        for place, (known, values) in self._of_shards(_get, ids):
            found[place[known]] = True
            codes[place[known]] = values
        if not found.all():
            raise KeyError(f"ids are not in the index: {some(ids[~found])}")
        return codes

    def _of_shards(self, function, ids):
        """Yield (places in ids, ``function(shard, ids there)``) of the shards whose range they are in."""
        tasks, places = [], []
        for shard, low, high in zip(self._shards, self._low, self._high, strict=True):
            place = np.flatnonzero((ids >= low) & (ids <= high))
            if place.size:
                tasks.append(dask.delayed(function)(shard, dask.delayed(ids[place], traverse=False)))
                places.append(place)
        return zip(places, compute(tasks), strict=True)

    # -- searches

    def search(self, queries, k, *, filter=None, expand=0, expand_weight=1.0, rescore=None, rescore_queries=None):
        """Find the k nearest codes, by codes or weights; see :meth:`aphash.HammingIndex.search`.

        Parameters
        ----------
        queries : ndarray of uint64 or of floats
            Codes or weights, as on one machine.
        k : int
        filter : Filter or array_like, optional
            As for :meth:`aphash.HammingIndex.search`; positions are in the order of adding.
        expand, expand_weight
            As on one machine; the codes of the first results come where the search is called.
        rescore : VectorRescore, optional
            Applied where the search is called; the candidates' rows come there. Vectors may be a dask array.
        rescore_queries : array_like, optional
            As on one machine.

        Returns
        -------
        distances, ids : ndarray
            As on one machine.

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(da.from_array(np.array([[0], [1], [3], [7]], np.uint64)))
        >>> index.search(np.array([[7]], np.uint64), 2)
        (array([[0, 1]], dtype=int32), array([[3, 2]]))
        """
        rows = check_queries(queries, self.n_bits)
        k = check_count(k, "k", 1)
        expand, expand_weight = check_expansion(expand, expand_weight, rows)
        n = len(self)
        # Ids are different, so n ids from 0 to n - 1 are exactly these numbers.

        def counted():
            return n == 0 or (min(self._low) == 0 and max(self._high) == n - 1)

        rescore = bind(rescore, rescore_queries, n_queries=len(rows), n_codes=n, counted=counted)
        filters = self._filters(filter)
        if expand:
            first = np.full((len(rows), expand), PAD_ID, np.int64)
            for start, _, found in self._nearest(rows, expand, filters):
                first[start : start + len(found), : found.shape[1]] = found
            rows = expanded(rows, first, self._get, expand_weight)
        wide = k if rescore is None else max(k, min(k * rescore.factor, n))
        exact = rescore is None and not is_float(rows)
        distances = (
            np.full((len(rows), k), PAD_DISTANCE, np.int32) if exact else np.full((len(rows), k), np.inf, np.float32)
        )
        ids = np.full((len(rows), k), PAD_ID, np.int64)
        for start, near, found in self._nearest(rows, wide, filters):
            if rescore is not None:
                near, found = rerank(found, rescore.distances(start, found), k)
            else:
                near = shown(near, found, rows[start : start + len(found)])
            distances[start : start + len(found), : near.shape[1]] = near
            ids[start : start + len(found), : near.shape[1]] = found
        return (distances[0], ids[0]) if np.ndim(queries) == 1 else (distances, ids)

    def radius_search(self, queries, radius, *, filter=None):
        """Find all codes within a radius, by codes or weights; see :meth:`aphash.HammingIndex.radius_search`.

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(da.from_array(np.array([[0], [1], [3], [7]], np.uint64)))
        >>> offsets, distances, ids = index.radius_search(np.array([[0]], np.uint64), 1)
        >>> ids
        array([0, 1])
        """
        rows = check_queries(queries, self.n_bits)
        radius = check_radius(radius, self.n_bits, rows)
        kind = np.float32 if is_float(rows) else np.int32
        offsets, distances, ids = [np.zeros(1, np.int64)], [np.zeros(0, kind)], [np.zeros(0, np.int64)]
        for start, (ends, near, found) in self._batches(
            rows, _RADIUS_QUERIES, self._filters(filter), _radius_search, _merge_radius, radius, 1 << 23
        ):
            offsets.append(ends[1:] + offsets[-1][-1])
            distances.append(shown_within(ends, near, found, rows[start : start + _RADIUS_QUERIES]))
            ids.append(found)
        return tuple(np.concatenate(each) for each in (offsets, distances, ids))

    def _nearest(self, rows, k, filters):
        """Yield (first query, integer distances, ids). They have fewer than k columns where there are fewer codes."""
        step = max(1, _BATCH // k)
        for start, answer in self._batches(rows, step, filters, _search, _merge, k, 12 * step * k):
            yield start, *answer

    def _batches(self, rows, step, filters, search, merge, limit, nbytes):
        """Yield (first query, merged answer) of the queries, `step` of them at a time."""
        starts = range(0, len(rows), step)
        if not self._shards:
            nothing = index.HammingIndex(self.n_bits)
            yield from ((start, search(nothing, rows[start : start + step], limit, None)) for start in starts)
            return
        tasks = []
        for start in starts:
            queries = dask.delayed(rows[start : start + step], traverse=False)
            answers = [
                dask.delayed(search)(shard, queries, limit, own)
                for shard, own in zip(self._shards, filters, strict=True)
            ]
            while len(answers) > 1:
                firsts = range(0, len(answers), _FAN_IN)
                answers = [dask.delayed(merge)(answers[i : i + _FAN_IN], limit) for i in firsts]
            tasks += answers
        yield from zip(starts, compute(tasks, nbytes), strict=True)

    def _filters(self, filter):
        """Return the filter of each shard."""
        if filter is None:
            return [None] * len(self._shards)
        filter, n = as_filter(filter), len(self)
        edges = np.concatenate([[0], np.cumsum(self._sizes)])
        kind, values = filter.kind, filter.values
        if kind in ("ids", "excluding"):
            own = [values[(values >= a) & (values <= b)] for a, b in zip(self._low, self._high, strict=True)]
            own = own if kind == "ids" else [Filter.excluding(each) for each in own]
        else:
            first_n = filter.belong_to(self._arrangement, n)
            if kind == "bitmap":
                values = np.unpackbits(values.astype("<u8").view(np.uint8), bitorder="little", count=first_n).view(bool)
            values = np.pad(values, (0, n - first_n))  # codes that were added since do not take part
            own = [values[a:b] for a, b in itertools.pairwise(edges)]
        return [dask.delayed(each, traverse=False) for each in own]

    # -- files

    def to_local(self):
        """Return an :class:`aphash.HammingIndex` of the same codes under the same ids, on this machine.

        Returns
        -------
        aphash.HammingIndex
            Positions, and the next id that is counted, are the same. Needs memory for the codes and ids, and for some
            shards beside them, which are gathered a few at a time.

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(da.from_array(np.array([[0], [1]], np.uint64)))
        >>> index.to_local()
        HammingIndex(n_bits=64), 2 codes
        """
        local = index.HammingIndex(self.n_bits)
        local.reserve(len(self))
        nbytes = 8 * (n_words(self.n_bits) + 1) * int(self._sizes.max(initial=0))
        for shard in compute(self._shards, nbytes):
            local.merge(shard)
        return local

    def save(self, folder):
        """Write one file for each shard, by the workers, and then a manifest that names and checks the files.

        Parameters
        ----------
        folder : str or os.PathLike
            All workers must see it under this name. It is made where it does not exist. Files of a save that did not
            end are replaced. A folder that holds a whole index is refused, because others may have mapped it.

        Raises
        ------
        FileExistsError
            When the folder holds an index.
        OSError
            When a file cannot be written. Without the manifest the folder is no index.

        Examples
        --------
        >>> import os, tempfile
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(da.from_array(np.array([[0], [1]], np.uint64)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index.save(folder)
        ...     sorted(os.listdir(folder))
        ['manifest.aphash', 'shard-000000.aphash']
        """
        folder = os.path.abspath(os.fspath(folder))
        os.makedirs(folder, exist_ok=True)
        manifest = os.path.join(folder, container.MANIFEST)
        if os.path.exists(manifest):
            raise FileExistsError(f"{folder} holds an index already")
        token = secrets.token_hex(8)
        saved = [dask.delayed(_save)(shard, _shard_path(folder, i), token) for i, shard in enumerate(self._shards)]
        headers = np.array(list(compute(saved)), np.uint32)
        arrays = {"sizes": self._sizes, "low": self._low, "high": self._high, "headers": headers}
        params = {"n_bits": self.n_bits, "next_id": self._next_id, "token": token}
        container.write(manifest, arrays, kind=_KIND, version=_VERSION, params=params)

    @classmethod
    def load(cls, folder):
        """Return the index that :meth:`save` wrote. Its shards are the files, which the workers map.

        Raises
        ------
        OSError, ValueError
            With the path and what is wrong, when a file is missing, not whole, or not of this index. The contents of
            shards are not read; ``aphash._common.container.describe`` checks them.

        Examples
        --------
        >>> import tempfile
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import HammingIndex
        >>> index = HammingIndex(64)
        >>> index.add(da.from_array(np.array([[0], [1]], np.uint64)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index.save(folder)
        ...     HammingIndex.load(folder)
        dask.HammingIndex(n_bits=64), 2 codes in 1 shards
        """
        folder = os.path.abspath(os.fspath(folder))
        path = os.path.join(folder, container.MANIFEST)
        arrays, params, version = container.read(path, kind=_KIND)
        if version > _VERSION:
            raise ValueError(f"{path}: version {version} of the format; this aphash reads up to {_VERSION}")
        try:
            self = cls(params["n_bits"])
            self._sizes, self._low, self._high = arrays["sizes"], arrays["low"], arrays["high"]
            headers, token, self._next_id = arrays["headers"], params["token"], int(params["next_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a whole manifest: {error!r}") from None
        shards = [
            dask.delayed(_load)(_shard_path(folder, i), self.n_bits, int(n), int(header), token)
            for i, (n, header) in enumerate(zip(self._sizes, headers, strict=True))
        ]
        self._shards = list(dask.persist(*shards))
        for _ in compute([dask.delayed(len)(shard) for shard in self._shards]):
            pass
        return self


def _dask_codes(codes, n_bits):
    if not isinstance(codes, da.Array):
        raise TypeError(
            f"codes must be a dask array, got {type(codes).__name__}; aphash.HammingIndex takes numpy arrays"
        )
    if codes.dtype != np.uint64:
        raise TypeError(f"codes must be uint64, got {codes.dtype}")
    if codes.ndim != 2 or codes.shape[1] != n_words(n_bits):
        raise ValueError(f"codes must have shape (n, {n_words(n_bits)}), got {codes.shape}")
    return known_chunks(codes).rechunk({1: -1})


def known_chunks(array):
    """Return a dask array whose numbers of rows are known. The given array stays as it was."""
    if not np.isnan(array.shape).any():
        return array
    array = array.map_blocks(itself, dtype=array.dtype, meta=array._meta)  # compute_chunk_sizes writes into its array
    return array.compute_chunk_sizes()


def _ids_by_chunk(ids, sizes, edges):
    if not isinstance(ids, da.Array):
        ids = check_ids(ids, int(edges[-1]))
        return [dask.delayed(ids[a:b], traverse=False) for a, b in itertools.pairwise(edges)]
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, got dtype {ids.dtype}")
    ids = known_chunks(ids)
    if ids.shape != (edges[-1],):
        raise ValueError(f"ids must have shape ({edges[-1]},), got {ids.shape}")
    return list(ids.rechunk((sizes,)).to_delayed().ravel())


def _refuse_twice(shards, low, high, n):
    """Raise ValueError when an id is in two shards. Where ranges of ids overlap, ids are compared in buckets."""
    order = np.argsort(low)
    if (high[order][:-1] < low[order][1:]).all():
        return
    n_buckets = -(-n // _BUCKET_IDS)
    split = [dask.delayed(_split, nout=n_buckets)(shard, n_buckets) for shard in shards]
    tasks = [dask.delayed(_twice)([each[b] for each in split]) for b in range(n_buckets)]
    twice = np.unique(np.concatenate(list(compute(tasks))))
    if twice.size:
        raise ValueError(f"ids must be different, got twice or in the index already: {some(twice)}")


# -- functions that the workers run


def _make(codes, ids, n_bits, first_row):
    shard = index.HammingIndex(n_bits)
    if isinstance(ids, int):
        ids = np.arange(ids, ids + len(codes), dtype=np.int64)
    try:
        shard.add(np.ascontiguousarray(codes), ids)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} (in the chunk that begins at row {first_row})") from None
    return shard


def _range(shard):
    ids = shard.ids
    return ids.min(), ids.max()


def _split(shard, n_buckets):
    ids = shard.ids
    bucket = ids % n_buckets
    return tuple(ids[bucket == b] for b in range(n_buckets))


def _twice(id_lists):
    ids = np.sort(np.concatenate(id_lists))
    return np.unique(ids[1:][ids[1:] == ids[:-1]])[:11]


def _contains(shard, ids):
    return shard.contains(ids)


def _get(shard, ids):
    known = np.flatnonzero(shard.contains(ids))
    return known, shard.get(ids[known])


def _search(shard, rows, k, filter):
    return index.nearest_integers(shard, rows, max(1, min(k, len(shard))), filter)


def _merge(answers, k):
    distances, ids = (np.concatenate(each, axis=1) for each in zip(*answers, strict=True))
    return rerank(ids, distances, k)


def _radius_search(shard, rows, radius, filter):
    return index.integers_within(shard, rows, radius, filter)


def _merge_radius(answers, radius):
    counts = [np.diff(offsets) for offsets, _, _ in answers]
    query = np.concatenate([np.repeat(np.arange(len(each)), each) for each in counts])
    distances, ids = (np.concatenate([answer[i] for answer in answers]) for i in (1, 2))
    order = np.lexsort((ids, distances, query))
    return np.concatenate([[0], np.cumsum(sum(counts))]), distances[order], ids[order]


def _shard_path(folder, i):
    return os.path.join(folder, f"shard-{i:06d}.aphash")


def _save(shard, path, token):
    """Write a shard as HammingIndex.save does, with the token of the save. aphash.HammingIndex.load opens it, too."""
    index_file.write(shard._store.present, path, token=token)
    return _header_crc(path)


def _header_crc(path):
    """Return the checksum of the header of a file. The header holds the checksums of the arrays."""
    with open(path, "rb") as file:
        file.seek(container._CRC_AT)
        return int(file.read(8), 16)


def _load(path, n_bits, n, header, token):
    arrays, params, version = container.read(path, kind=index_file.KIND, mmap=True)
    if params.get("token") != token or _header_crc(path) != header:
        raise ValueError(f"{path}: not the shard that the manifest names")
    shard = index.HammingIndex._of(index_file.from_file(path, arrays, params, version, check=False))
    if (len(shard), shard.n_bits) != (n, n_bits):
        raise ValueError(f"{path}: {len(shard)} codes of {shard.n_bits} bits, the manifest says {n} of {n_bits}")
    return shard


@sizeof.register(index.HammingIndex)
def _sizeof_index(shard):
    return shard.nbytes
