"""Checks of counts and ids. Errors name the argument, what was expected and what came. Needs numpy only."""

import numbers

import numpy as np

from aphash._common.arrays import as_array, shown

_MAX_COUNT = 1 << 48  # the largest count of results, candidates or bits; no memory holds more


def check_count(value, name, minimum):
    """Return an integer that is at least `minimum`. Otherwise raise TypeError or ValueError, which name it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    if value > _MAX_COUNT:
        raise ValueError(f"{name} must be at most 2^48, got {value}")
    return int(value)


def as_ids(ids, name="ids"):
    """Return one or more integers as int64 (n,), whatever their values. TypeError or ValueError for anything else."""
    given, ids = ids, as_array(ids, name)
    if isinstance(given, list | tuple) and ids.ndim == 1 and ids.dtype.kind in "iuf":
        kinds = set(map(type, given))  # numpy makes 1 of True beside integers, and rounds where int64 does not do
        if kinds & {bool, np.bool} or (ids.dtype.kind == "f" and all(issubclass(k, numbers.Integral) for k in kinds)):
            ids = np.array(given, object)
    if ids.size == 0 and ids.ndim == 1:
        return np.zeros(0, np.int64)
    if ids.dtype.kind == "O" and ids.ndim == 1:
        ids = _from_objects(ids, name)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {ids.dtype}")
    if ids.ndim > 1:
        raise ValueError(f"{name} must have shape (n,), got {ids.shape}")
    if ids.dtype.kind == "u" and ids.size and ids.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit in int64, got {ids.max()}")
    return np.ascontiguousarray(np.atleast_1d(ids), np.int64)


def _from_objects(ids, name):
    """Return objects that are integers as int64. The error names the first that is none, or does not fit."""
    for place, each in enumerate(ids):
        if isinstance(each, bool | np.bool) or not isinstance(each, numbers.Integral):
            raise TypeError(f"{name} must be integers, got {shown(each)} at place {place}")
        if not -(1 << 63) <= each < 1 << 63:
            raise ValueError(f"{name} must fit in int64, got {each} at place {place}")
    return ids.astype(np.int64)


def check_ids(ids, n=None, name="ids"):
    """Return ids as int64 (n,), and check that they are integers, all different and none of them -1."""
    ids = as_ids(ids, name)
    if n is not None and len(ids) != n:
        raise ValueError(f"{name} must have shape ({n},), got {ids.shape}")
    if (ids == -1).any():
        raise ValueError(f"{name} must not be -1, which means no result; got it at place {np.argmax(ids == -1)}")
    in_order = np.sort(ids)
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    if repeated.size:
        raise ValueError(f"{name} must be different, got twice: {some(list(dict.fromkeys(repeated.tolist())))}")
    return ids


def is_sorted(ids):
    """Return whether each id is larger than the one before. They are compared, since a difference can overflow."""
    return bool((ids[1:] > ids[:-1]).all())


def some(ids):
    """Return a text that names the first ten ids, for a message."""
    shown = ", ".join(str(i) for i in ids[:10])
    return shown if len(ids) <= 10 else f"{shown} and {len(ids) - 10} more"
