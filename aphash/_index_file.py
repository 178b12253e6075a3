"""HammingIndex's save and load: its arrays in a file as they are in memory, so that a map of the file can be searched.

``blocks`` (uint64, groups of 8 codes as ``_search`` lays them out, the last group padded with zeros) and ``ids``
(int64), with ``n_bits``, ``next_id`` and ``ascending`` as parameters. Where the index has a lookup, its arrays follow
as ``lookup.*``, with its ``share`` (null: infinity) as the parameter ``lookup``.
"""

import math

import numpy as np

from aphash import _io
from aphash._checks import ascend
from aphash._lookup import Lookup
from aphash.codes import check_n_bits, n_words

KIND, VERSION = "HammingIndex", 1

_CHECK_GROUPS = 1 << 16  # looked at together


def save(self, path):
    """Write the index to a file: checksummed, and atomically, so that ``path`` is never half a file.

    Parameters
    ----------
    path : str or os.PathLike
        Used as given; an existing file is replaced, also one that this index is a map of.

    Raises
    ------
    OSError
        With the path, when it cannot be written; what was there stays.

    Notes
    -----
    Needs a few megabytes. Searches go on meanwhile, changes wait. A lookup is saved, too.
    """
    write(self, path)


def write(index, path, **more):
    """Write an index, with ``more`` parameters that its readers leave alone."""
    with index._lock.shared():
        arrays, params = to_file(index)
        _io.write(path, arrays, kind=KIND, version=VERSION, params=params | more)


def load(cls, path, *, mmap=False, verify=None):
    """Return the index that :meth:`save` wrote.

    Parameters
    ----------
    path : str or os.PathLike
    mmap : bool
        Search the file where it lies: opening it takes the same short time whatever its size, and codes are read when a
        search needs them. The file is never written to: the first change copies the codes into memory. Shortening the
        file *in place* while it is mapped kills the process; saving over it, or deleting it, does no harm.
    verify : bool, optional
        Whether the checksums of codes and ids are verified, which reads the whole file. By default they are, but for a
        mapped file; the header's checksum and all sizes always are.

    Raises
    ------
    OSError, ValueError
        With the path and what is wrong, when it cannot be read, is not such a file, or not whole.
    """
    arrays, params, version = _io.read(path, kind=KIND, mmap=mmap, verify=verify)
    index = cls.__new__(cls)
    from_file(index, path, arrays, params, version, check=not mmap if verify is None else verify)
    return index


def to_file(index):
    """Return (arrays, params) of an index whose lock is held until they are written; nothing is copied."""
    n, width = len(index), 8 * n_words(index.n_bits)
    whole = n // 8 * width
    blocks, rest = index._blocks[: -(-n // 8) * width], n % 8
    last = blocks[whole:].reshape(-1, 8) * (np.arange(8) < rest).astype(np.uint64)  # spare places hold what was removed
    arrays = {"blocks": _io.Chunks(blocks.dtype, blocks.shape, (blocks[:whole], last.ravel())), "ids": index._ids[:n]}
    params = {"n_bits": index.n_bits, "next_id": int(index._next_id), "ascending": bool(index._ascending)}
    lookup = index._lookup
    if lookup is not None:
        arrays |= {f"lookup.{name}": array for name, array in lookup.arrays().items()}
        params["lookup"] = {"share": lookup.share if math.isfinite(lookup.share) else None}
    return arrays, params


def from_file(index, path, arrays, params, version, check):
    """Fill a new index; ValueError with the path unless the parts fit each other.

    ``check``: whether the contents are looked at, too: padding bits, and ids that must ascend or must not be -1.
    """
    if not 1 <= version <= VERSION:
        raise ValueError(f"{path}: version {version} of an index's file; this aphash reads up to {VERSION}")
    try:
        n_bits, next_id, ascending = check_n_bits(params["n_bits"]), params["next_id"], params["ascending"]
        blocks, ids = arrays["blocks"], arrays["ids"]
        words = n_words(n_bits)
        if blocks.dtype != np.uint64 or ids.dtype != np.int64 or ids.ndim != 1:
            raise ValueError("blocks must be uint64, ids int64 with one dimension")
        if blocks.shape != (-(-len(ids) // 8) * 8 * words,):
            raise ValueError(f"{len(ids)} ids and blocks of shape {blocks.shape} for {n_bits} bits")
        if type(next_id) is not int or not 0 <= next_id <= 1 << 63 or type(ascending) is not bool:
            raise ValueError("next_id must be an integer of at most 2^63, ascending true or false")
        lookup = _lookup_from_file(arrays, params, n_bits, check)
        if check:
            _check_contents(blocks.reshape(-1, words, 8), ids, n_bits, ascending)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a whole index: {error}") from None
    index.__init__(n_bits)
    index._blocks, index._ids, index._n = blocks, ids, len(ids)
    index._next_id, index._ascending, index._lookup = next_id, ascending, lookup


def _lookup_from_file(arrays, params, n_bits, check):
    parts = {name.removeprefix("lookup."): array for name, array in arrays.items() if name.startswith("lookup.")}
    about = params.get("lookup")
    if about is None and not parts:
        return None
    if not isinstance(about, dict) or set(about) != {"share"}:
        raise ValueError("lookup must have its share")
    share = math.inf if about["share"] is None else about["share"]
    return Lookup.from_arrays(n_bits, share, **parts, check=check)


def _check_contents(groups, ids, n_bits, ascending):
    unused = n_bits % 64
    for start in range(0, len(groups) if unused else 0, _CHECK_GROUPS):
        if (groups[start : start + _CHECK_GROUPS, -1] >> np.uint64(unused)).any():
            raise ValueError("codes with padding bits set")
    if (ids == -1).any():
        raise ValueError("an id is -1")
    if ascending and not ascend(ids):
        raise ValueError("ids do not ascend")
