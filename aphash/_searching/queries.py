"""Queries: packed codes or weights. The dtype tells which; either becomes a query object for the engines.

Engines give integer distances. Those of weights are turned into the weights' own unit at the very end. So the answers
of several chunks, or of several machines, are merged by integers and have one order.
"""

import numbers

import numpy as np

from aphash._common.arrays import as_array, as_floats
from aphash._common.arrays import shown as as_text
from aphash._common.checks import check_count
from aphash._searching import _search, _weighted
from aphash.codes import check_codes, from_list, n_words

_TABLE_BYTES = 1 << 26  # of the tables that are made of weights at a time


def check_queries(queries, n_bits, name="queries"):
    """Return queries as C-contiguous rows, checked: uint64 codes (n, n_words), or float64 weights (n, n_bits).

    Parameters
    ----------
    queries : array_like
        Codes as :func:`aphash.codes.check_codes` takes them, or floats of shape (n, n_bits) or (n_bits,).
    n_bits : int
    name : str
        The argument's name, for the messages.

    Raises
    ------
    TypeError
        For dtypes that are neither codes nor floats.
    ValueError
        When the shape does not fit n_bits; for NaN and infinity; for weights whose sum float32 does not hold; for
        floats that are only zeros and ones, since these are bits.
    """
    array = as_array(queries, name)
    if isinstance(queries, list | tuple):
        array = from_list(queries, array, name)
    if not is_float(array):
        try:
            return check_codes(queries, n_bits, name)
        except TypeError as error:
            either = "must be codes (uint64 in native byte order) or weights (floats)"
            raise TypeError(str(error).replace("must be uint64 in native byte order", either)) from None
    weights = np.asarray(as_floats(array, name), np.float64, order="C")
    rows = weights[np.newaxis] if weights.ndim == 1 else weights
    if weights.ndim not in (1, 2) or rows.shape[1] != n_bits:
        advice = ": vectors go through hasher.query_projections first"
        if rows.ndim and rows.shape[-1] == n_words(n_bits):
            advice = ": codes are uint64, and some that go through floats are lost"
        raise ValueError(
            f"{name} of floats are weights, which must have shape (n, n_bits={n_bits}), got {weights.shape}{advice}"
        )
    wrong, row = _weighted.check_weights(rows)
    if wrong == _weighted.FINITE:
        raise ValueError(f"{name} contains NaN or infinity, first in row {row}")
    if wrong == _weighted.TOO_LARGE:
        raise ValueError(f"{name} has weights whose sum float32 does not hold, first in row {row}")
    if wrong == _weighted.ONLY_BITS:
        raise ValueError(
            f"{name} holds only zeros and ones, which are bits, no weights: codes are pack_codes({name} > 0)"
        )
    return rows


def check_radius(radius, n_bits, rows):
    """Return the radius of a search for checked rows: an int of codes, at most n_bits, or a float of weights."""
    if not is_float(rows):
        return min(check_count(radius, "radius", 0), n_bits)
    if isinstance(radius, bool) or not isinstance(radius, numbers.Real):
        raise TypeError(f"radius must be a number, got {as_text(radius)}")
    if not radius >= 0:
        raise ValueError(f"radius must be at least 0, got {radius}")
    return float(radius)


def is_float(rows):
    """Return whether an array holds weights rather than codes."""
    return rows.dtype.kind == "f"


def make(rows):
    """Return the query object of checked rows."""
    return _weighted.WeightedQueries(rows) if is_float(rows) else _search.PackedQueries(rows)


def nearest(engine, snapshot, rows, k, bitmap, n_threads):
    """Return what ``engine.nearest`` gives for checked rows: integer distances and ids (n, k)."""
    step = _step(rows)
    if len(rows) <= step:
        return engine.nearest(snapshot, make(rows), k, bitmap, n_threads)
    chunks = [
        engine.nearest(snapshot, make(rows[start : start + step]), k, bitmap, n_threads)
        for start in range(0, len(rows), step)
    ]
    return tuple(np.concatenate(each) for each in zip(*chunks, strict=True))


def within(engine, snapshot, rows, radius, bitmap, n_threads):
    """Return what ``engine.within`` gives for checked rows and a checked radius: offsets, integer distances, ids."""
    step = _step(rows)
    offsets, distances, ids = [np.zeros(1, np.int64)], [], []
    for start in range(0, max(1, len(rows)), step):
        some = rows[start : start + step]
        limit = _weighted.integers_within(radius, scales(some)) if is_float(rows) else radius
        ends, near, found = engine.within(snapshot, make(some), limit, bitmap, n_threads)
        offsets.append(ends[1:] + offsets[-1][-1])
        distances.append(near)
        ids.append(found)
    return tuple(each[0] if len(each) == 1 else np.concatenate(each) for each in (offsets, distances, ids))


def shown(distances, ids, rows):
    """Return distances (n, k) of checked rows as a search returns them: those of weights as float32, in their unit."""
    return _weighted.in_their_unit(distances, ids, scales(rows)[:, np.newaxis]) if is_float(rows) else distances


def shown_within(offsets, distances, ids, rows):
    """As :func:`shown`, for a radius search."""
    if not is_float(rows):
        return distances
    return _weighted.in_their_unit(distances, ids, np.repeat(scales(rows), np.diff(offsets)))


def scales(weights):
    """Return the largest magnitude of each query: float64 (n,)."""
    return np.maximum(weights.max(axis=1), -weights.min(axis=1))


def _step(rows):
    return max(1, _TABLE_BYTES // (16 * rows.shape[1])) if is_float(rows) else max(1, len(rows))
