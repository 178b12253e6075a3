"""The file of an index. Its arrays are as they are in memory, so that a map of the file can be searched.

``blocks`` (uint64) are the codes in groups of 8, as csrc/search/pages.h lays them out, one page behind the other; the
last group is padded with zeros. ``ids`` are int64. ``n_bits``, ``next_id`` and ``ascending`` are parameters. Where all
ids count up from the first one, there is no array of ids, but there are the parameters ``first_id`` and ``n``. Where
the index has a lookup, its arrays follow as ``lookup.*``, with the positions whose codes are not those in the tables as
``lookup.stale``. The parameter ``lookup`` holds its ``max_scan_fraction`` (null stands for infinity) under the name
that it had first, ``share``. Version 1 always has ``ids``.
"""

import math

import numpy as np

from aphash._common import container
from aphash._common.checks import is_sorted
from aphash._searching._store import Store
from aphash._searching.lookup import Lookup
from aphash.codes import check_n_bits, n_words

KIND, VERSION = "HammingIndex", 2

_CHECK_GROUPS = 1 << 16  # groups that are checked together
_IDS = 1 << 20  # ids that are written together


def write(snapshot, path, **more):
    """Write a snapshot, with ``more`` parameters, which readers ignore."""
    arrays, params = to_file(snapshot)
    container.write(path, arrays, kind=KIND, version=VERSION, params=params | more)


def read(path, mmap, verify):
    """Return the store of a file."""
    arrays, params, version = container.read(path, kind=KIND, mmap=mmap, verify=verify)
    return from_file(path, arrays, params, version, check=not mmap if verify is None else verify)


def to_file(snapshot):
    """Return (arrays, params) of a snapshot. Nothing is copied."""
    n, words = len(snapshot), snapshot.n_words
    arrays = {"blocks": container.Chunks(np.dtype(np.uint64), (-(-n // 8) * 8 * words,), snapshot.code_pages)}
    params = {"n_bits": snapshot.n_bits, "next_id": int(snapshot.next_id), "ascending": snapshot.ascending}
    if snapshot.fingerprint is not None:
        params["fingerprint"] = snapshot.fingerprint
    first_id = snapshot.first_id_of_range()
    if n and first_id is None:

        def chunks():
            return (snapshot.load_ids(start, min(_IDS, n - start)) for start in range(0, n, _IDS))

        arrays["ids"] = container.Chunks(np.dtype(np.int64), (n,), chunks)
    else:
        params |= {"first_id": first_id or 0, "n": n}
    lookup = snapshot.lookup
    if lookup is not None:
        arrays |= {f"lookup.{name}": array for name, array in lookup.arrays().items()}
        arrays["lookup.stale"] = snapshot.stale_positions()
        fraction = lookup.max_scan_fraction
        params["lookup"] = {"share": fraction if math.isfinite(fraction) else None}
    return arrays, params


def from_file(path, arrays, params, version, check):
    """Return the store of the arrays and parameters of a file. ValueError, with the path, where they do not fit each
    other.

    ``check`` says whether the contents are checked, too: padding bits, ids that must ascend, and ids that must not be
    -1. It also lets ids that count up be found, which then take no memory.
    """
    if not 1 <= version <= VERSION:
        raise ValueError(
            f"{container.name_of(path)}: version {version} of an index's file; this aphash reads up to {VERSION}"
        )
    try:
        n_bits, next_id, ascending = check_n_bits(params["n_bits"]), params["next_id"], params["ascending"]
        codes = arrays["blocks"]
        words = n_words(n_bits)
        ids, n, first_id = _ids_of_file(arrays, params, version)
        if codes.dtype != np.uint64:
            raise ValueError("blocks must be uint64")
        if codes.shape != (-(-n // 8) * 8 * words,):
            raise ValueError(f"{n} ids and blocks of shape {codes.shape} for {n_bits} bits")
        if type(next_id) is not int or not 0 <= next_id <= 1 << 63 or type(ascending) is not bool:
            raise ValueError("next_id must be an integer of at most 2^63, ascending true or false")
        fingerprint = params.get("fingerprint")
        if not isinstance(fingerprint, str | None):
            raise ValueError("fingerprint must be a text")
        lookup, stale = _lookup_from_file(arrays, params, n_bits, check)
        if check:
            _check_contents(codes.reshape(-1, words, 8), ids, n_bits, ascending)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{container.name_of(path)}: not a whole index: {error}") from None
    store = Store(n_bits)
    store.adopt(codes, n if ids is None else ids, first_id, next_id, ascending, check, lookup, stale, fingerprint)
    return store


def _ids_of_file(arrays, params, version):
    """Return (ids or None, n, first_id)."""
    if version == 1 or "ids" in arrays:
        ids = arrays["ids"]
        if ids.dtype != np.int64 or ids.ndim != 1:
            raise ValueError("ids must be int64 with one dimension")
        return ids, len(ids), 0
    first_id, n = params["first_id"], params["n"]
    for name, value in (("first_id", first_id), ("n", n)):
        if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"{name} must be an integer of 64 bits")
    if n < 0 or first_id + n > 1 << 63 or first_id <= -1 < first_id + n or (n and not params["ascending"]):
        raise ValueError(f"ids cannot be {n} numbers from {first_id} on")
    return None, n, first_id


def _lookup_from_file(arrays, params, n_bits, check):
    members = {name.removeprefix("lookup."): array for name, array in arrays.items() if name.startswith("lookup.")}
    about = params.get("lookup")
    if about is None and not members:
        return None, None
    if not isinstance(about, dict) or set(about) != {"share"}:
        raise ValueError("lookup must have its share")
    stale = members.pop("stale")
    fraction = math.inf if about["share"] is None else about["share"]
    lookup = Lookup.from_arrays(n_bits, fraction, **members, check=check)
    if stale.dtype != np.int64 or stale.ndim != 1:
        raise ValueError(f"lookup: stale must be int64, got {stale.dtype} of shape {stale.shape}")
    if stale.size and not 0 <= stale.min() <= stale.max() < lookup.n_indexed:
        raise ValueError(f"lookup: stale must hold positions below {lookup.n_indexed}")
    return lookup, stale


def _check_contents(groups, ids, n_bits, ascending):
    unused = n_bits % 64
    for start in range(0, len(groups) if unused else 0, _CHECK_GROUPS):
        if (groups[start : start + _CHECK_GROUPS, -1] >> np.uint64(unused)).any():
            raise ValueError("codes with padding bits set")
    if ids is not None and (ids == -1).any():
        raise ValueError("an id is -1")
    if ids is not None and ascending and not is_sorted(ids):
        raise ValueError("ids do not ascend")
