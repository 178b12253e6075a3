"""Arrays from outside: they become an ndarray of the same values, or an error says what to do. Needs numpy only.

numpy itself makes an array of nearly everything: it drops masks, reads texts as numbers, makes one object of a set, and
rounds what does not fit. Whatever comes from outside passes here first.
"""

import decimal
import numbers
import reprlib
import sys

import numpy as np

_EXACT_32, _EXACT_64 = 1 << 24, 1 << 53  # whole numbers up to these are exact in float32 and float64
_CHUNK = 1 << 20  # so many numbers are compared at a time

_short = reprlib.Repr()
_short.maxother = _short.maxstring = _short.maxlong = 60


def shown(value):
    """Return a value as a message names it: briefly, an array by its shape."""
    if getattr(value, "shape", ()) != ():
        return f"an array of shape {tuple(value.shape)}"
    return _short.repr(value)


def _is_masked(values):
    """Return whether this is a masked array. numpy.ma is not imported to find out that there are none."""
    return isinstance(values, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ()))


def as_array(values, name):
    """Return values as an ndarray, which is not copied where it is one.

    Parameters
    ----------
    values : array_like, or what has ``__dlpack__``
    name : str
        The argument's name, for the messages.

    Raises
    ------
    TypeError
        For what is no array: a set, an iterator, a mapping, a text or None; and for bfloat16.
    ValueError
        For masked elements, and rows of different lengths.
    """
    if type(values) is np.ndarray:
        return values
    if _is_masked(values):
        return _unmasked(values, name)
    if isinstance(values, list | tuple):
        values = [_unmasked(row, name) if _is_masked(row) else row for row in values]
    elif values is None or isinstance(values, str | bytes | set | frozenset | dict) or hasattr(values, "__next__"):
        kind = "None" if values is None else f"a {type(values).__name__}"
        advice = f": pass np.stack(list({name}))" if hasattr(values, "__next__") else ""
        raise TypeError(f"{name} must be an array, got {kind}{advice}")
    try:
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            array = np.from_dlpack(values)
        else:
            array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        if "bfloat16" in f"{getattr(values, 'dtype', '')} {error}".lower():
            raise TypeError(f"{name} has dtype bfloat16, which numpy lacks: pass {name}.float()") from None
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise _uneven(values, name) or kind(f"{name}: {error}") from None
    if array.ndim == 0 and array.dtype.kind == "O":
        raise TypeError(f"{name} must be an array, got {type(values).__name__}")
    return array


def as_floats(values, name):
    """Return real numbers as float16, float32 or float64 in the byte order of the machine, whichever holds all of them.

    Parameters
    ----------
    values : array_like
        Floats keep their dtype, but wider ones become float64. Booleans and integers become float32 where that is
        exact, and float64 elsewhere. Objects must be numbers.
    name : str

    Returns
    -------
    ndarray
        It is not copied where nothing changes. NaN and infinity are passed on.

    Raises
    ------
    TypeError
        For texts, dates and whatever else is no number.
    ValueError
        For complex numbers, missing values, masked elements, and integers that float64 does not hold.
    """
    array = as_array(values, name)
    if array.dtype.kind == "O":
        array = _from_objects(array, name)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        return array.astype(f"f{min(size, 8)}", copy=False)
    if kind == "b" or (kind in "iu" and size <= 2):
        return array.astype(np.float32)
    if kind in "iu":
        small = array.size == 0 or (array.min() >= -_EXACT_32 and array.max() <= _EXACT_32)
        return array.astype(np.float32) if small else whole_as_float64(array, name)
    if kind == "c":
        raise ValueError(f"{name} must be real numbers. Complex data not supported: got dtype {array.dtype}")
    if array.dtype.name == "bfloat16":
        raise TypeError(f"{name} has dtype bfloat16: pass {name}.astype(np.float32)")
    what = "text of " if kind in "USTa" else ""
    raise TypeError(f"{name} must be numbers, got {what}dtype {array.dtype}")


def whole_as_float64(array, name):
    """Return integers as float64. ValueError where float64 does not hold one exactly."""
    floats = array.astype(np.float64)
    if array.size and (array.min() < -_EXACT_64 or array.max() > _EXACT_64):
        rows = array.reshape(len(array), -1)
        step = max(1, _CHUNK // max(1, rows.shape[1]))
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step]
            with np.errstate(invalid="ignore"):  # 2^63 as int64
                differs = chunk != chunk.astype(np.float64).astype(array.dtype)
            if differs.any():
                at = np.argwhere(differs)[0]
                raise ValueError(
                    f"{name} has whole numbers that float64 does not hold, first {chunk[tuple(at)]} in row "
                    f"{start + at[0]}: subtract an offset, or round by {name}.astype(np.float64)"
                )
    return floats


def _unmasked(array, name):
    """Return the data of a masked array of which nothing is masked."""
    masked = np.ma.getmaskarray(array)
    if masked.dtype.names is None and masked.any():
        row = np.argwhere(masked)[0][0] if array.ndim else 0
        raise ValueError(f"{name} has masked elements, first in row {row}: fill them, or leave such rows out")
    return np.asarray(array.data)


def _uneven(values, name):
    """Return the ValueError for rows that do not form an array, or None where that is not the cause."""
    if not isinstance(values, list):
        return None
    sizes = [
        np.shape(row) if hasattr(row, "shape") else (len(row),) if hasattr(row, "__len__") else () for row in values
    ]
    for row, size in enumerate(sizes):
        if size != sizes[0]:
            found = "None" if values[row] is None else f"of shape {size}"
            return ValueError(f"{name} must have rows of one shape: row {row} is {found}, row 0 of shape {sizes[0]}")
    return None


def _from_objects(array, name):
    """Return an array of numbers from one of objects that are numbers."""
    flat = array.ravel().tolist()
    types = set(map(type, flat))
    good = {kind for kind in types if issubclass(kind, numbers.Real | decimal.Decimal | np.bool_)}
    if types == good:
        try:
            if all(issubclass(kind, numbers.Integral | np.bool_) for kind in types):
                whole = np.array(flat).reshape(array.shape)
                if whole.dtype.kind in "biu":
                    return whole
            return array.astype(np.float64)
        except OverflowError as error:
            raise ValueError(f"{name}: {error}") from None
    at = next(i for i, value in enumerate(flat) if type(value) not in good)
    value, place = flat[at], [int(i) for i in np.unravel_index(at, array.shape)]
    where = f"row {place[0]}" + "".join(f", column {each}" for each in place[1:])
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        raise ValueError(f"{name} has no value ({value!r}) in {where}")
    if isinstance(value, str | bytes):
        raise TypeError(f"{name} must be numbers, got the text {shown(value)} in {where}")
    if isinstance(value, list | tuple) or hasattr(value, "__array__"):
        column = name if array.ndim == 1 else f"column {place[-1]}"
        raise TypeError(f"{name} has a column of {type(value).__name__} objects: pass np.stack of {column}")
    try:
        float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be numbers, got {type(value).__name__} in {where}: {error}") from None
    raise TypeError(f"{name} must be numbers, got {type(value).__name__} in {where}")
