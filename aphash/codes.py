"""The packed format of binary codes: what learning produces and searching consumes. Needs numpy only.

Bit ``b`` of a code is bit ``b % 64`` of word ``b // 64``; 1 means that the projection is >= 0. Words are uint64 in the
machine's own byte order, ``n_words = ceil(n_bits / 64)`` a code, C-contiguous; the padding bits of the last word are
zero. On a little-endian machine ``codes.view(numpy.uint8)`` is what ``numpy.packbits(..., bitorder="little")``, faiss,
usearch and pgvector's ``bit`` hold, padded to whole words.
"""

import numbers
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aphash._common.arrays import as_array, as_floats, shown

MAX_BITS = 65536

_PACK_ROWS = 1 << 14  # rows unpacked or packed at a time: bounds the temporary bytes
_MANY_BITS = 32  # projections of so many bits are not all positive by chance
_MARKS = 64  # words of an array of codes by which it is known again


@dataclass(frozen=True)
class Origin:
    """What is known of codes: how many bits were packed, and the fingerprint of the model that made them, if any."""

    n_bits: int
    fingerprint: str | None = None


_origins: dict[int, Any] = {}  # id of the array that owns the codes' memory -> (weak reference to it, Origin, marks)


def note_origin(codes, n_bits, fingerprint=None):
    """Remember where codes come from, as long as their array lives and is not written over; return them."""
    return note(codes, Origin(n_bits, fingerprint))


def note(codes, origin):
    """Remember the Origin of codes; see :func:`note_origin`."""
    owner = _owner(codes)
    key = id(owner)
    marks = _marks(owner) if owner.flags.writeable else None  # of a map nothing is read
    _origins[key] = weakref.ref(owner, lambda _: _origins.pop(key, None)), origin, marks
    return codes


def origin_of(codes) -> Origin | None:
    """Return the Origin of codes, or of whole rows of them; None where it is not known, as of every copy.

    An array that was written over holds other codes. It is known by a sample, so a few rows among many may go unseen.
    """
    if not isinstance(codes, np.ndarray) or codes.dtype != np.uint64 or codes.ndim == 0:
        return None
    owner = _owner(codes)
    reference, origin, marks = _origins.get(id(owner), (None, None, None))
    if reference is None or reference() is not owner:
        return None
    if not _are_whole_rows(codes, owner, n_words(origin.n_bits)) or (marks is not None and _marks(owner) != marks):
        return None
    return origin


def _are_whole_rows(codes, owner, words):
    """Whether codes are rows of the owner's, word by word: a cut through them is another code."""
    if codes.shape[-1] != words or (words > 1 and codes.strides[-1] != 8):
        return False
    ahead = codes.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    return all(step % (8 * words) == 0 for step in (ahead, *codes.strides[:-1]))


def _marks(owner):
    """Return some words of an array that owns codes, at even distances, as bytes; of a small one all."""
    if owner.size <= _MARKS:
        return owner.tobytes()
    words = owner.reshape(-1).view(np.uint64)
    step = -(-len(words) // _MARKS)
    return words[:: step + (step % 2 == 0)].tobytes()


def _owner(codes):
    while isinstance(codes.base, np.ndarray):
        codes = codes.base
    return codes


def check_n_bits(n_bits: object) -> int:
    """Return n_bits as an int; TypeError or ValueError unless it is an integer in 1 .. 65,536.

    Examples
    --------
    >>> from aphash.codes import check_n_bits
    >>> check_n_bits(64)
    64
    """
    if isinstance(n_bits, bool) or not isinstance(n_bits, numbers.Integral):
        raise TypeError(f"n_bits must be an integer, got {shown(n_bits)}")
    if not 1 <= int(n_bits) <= MAX_BITS:
        raise ValueError(f"n_bits must be in 1 .. {MAX_BITS}, got {n_bits}")
    return int(n_bits)


def n_words(n_bits: int) -> int:
    """Return the number of 64-bit words of a code of n_bits.

    Examples
    --------
    >>> from aphash.codes import n_words
    >>> n_words(64), n_words(65)
    (1, 2)
    """
    return -(-n_bits // 64)


def pack_codes(bits: ArrayLike, *, n_bits: int | None = None, threshold: str = "ge") -> NDArray[np.uint64]:
    """Pack signs, projections or booleans into codes.

    Parameters
    ----------
    bits : array_like of shape (n, n_bits) or (n_bits,)
        Booleans are taken as bits, other real numbers as projections, so -1/+1 signs pack as expected.
    n_bits : int, optional
        The width that bits must have. A hash that comes as a square, such as ImageHash's, is one code as
        ``hash.ravel()`` and as many short ones as rows otherwise.
    threshold : {"ge", "gt"}, default="ge"
        A projection's bit is 1 where it is >= 0, or where it is > 0, as sentence-transformers and pgvector have it:
        after a ReLU they differ.

    Returns
    -------
    ndarray of uint64, shape (n, n_words) or (n_words,)

    Raises
    ------
    ValueError
        For another number of dimensions or another width, no bits or more than 65,536, NaN, and for numbers that are no
        projections: 0 and 1, or 0 and 255, alone; with "ge" also 32 columns or more of numbers of which none is
        negative, since all would become 1 bits, and every code the same.
    TypeError
        When the elements are neither booleans nor signed real numbers: unsigned ones are pixels, packed bytes or codes.

    Notes
    -----
    Needs the result, and 16,384 rows of n_bits bytes beside it.

    Examples
    --------
    >>> from aphash import pack_codes
    >>> pack_codes([[-1.0, 0.5, 2.0], [1.0, -0.5, -2.0]])
    array([[6],
           [1]], dtype=uint64)
    """
    if not isinstance(threshold, str) or threshold not in ("ge", "gt"):
        raise ValueError(f"threshold must be 'ge' or 'gt', got {shown(threshold)}")
    array: NDArray[Any] = as_array(bits, "bits")
    if array.ndim not in (1, 2):
        advice = ": pass bits.reshape(len(bits), -1)" if array.ndim > 2 else ""
        raise ValueError(f"bits must have 1 or 2 dimensions, got shape {array.shape}{advice}")
    if array.dtype.kind == "u":
        raise TypeError(
            f"bits must be booleans or signed real numbers, got dtype {array.dtype}: pass (bits > 0) for a mask; "
            "aphash.interchange.from_bytes or from_ubinary take packed bytes; uint64 codes are packed already"
        )
    if array.dtype.kind not in "bif":
        if array.dtype.kind in "US":
            raise TypeError(f"bits must be booleans or real numbers, got text of dtype {array.dtype}")
        array = as_floats(array, "bits")
    width = check_n_bits(array.shape[-1])
    if n_bits is not None and width != check_n_bits(n_bits):
        raise ValueError(f"bits must have n_bits={n_bits} columns, got shape {array.shape}")
    if array.dtype.kind != "b":
        _refuse_no_projections(np.atleast_2d(array), threshold)
    return note_origin(pack(array, threshold), width)


def pack(bits, threshold="ge"):
    """Return the codes of booleans or projections as :func:`pack_codes` does, whatever the values but NaN."""
    rows = np.atleast_2d(bits)
    packed = np.zeros((rows.shape[0], n_words(rows.shape[1]) * 8), np.uint8)
    for start in range(0, rows.shape[0], _PACK_ROWS):
        block = rows[start : start + _PACK_ROWS]
        if block.dtype.kind == "f" and np.isnan(block).any():
            row = start + int(np.isnan(block).any(axis=1).argmax())
            raise ValueError(f"bits contains NaN, first in row {row}")
        ones = block if block.dtype.kind == "b" else block >= 0 if threshold == "ge" else block > 0
        eight = np.packbits(ones, axis=1, bitorder="little")
        packed[start : start + len(block), : eight.shape[1]] = eight
    codes = packed.view("<u8").astype(np.uint64, copy=False)
    return codes[0] if np.ndim(bits) == 1 else codes


def _refuse_no_projections(rows, threshold):
    """Raise ValueError for numbers that are no projections. The first row mostly tells: it has a negative number."""
    low, high, two_valued = np.inf, -np.inf, True
    start, step = 0, 1
    while start < len(rows):
        block = rows[start : start + step]
        if not block.min() >= 0:  # a negative number, or NaN, which is named later
            return
        low, high = min(low, block.min()), max(high, block.max())
        two_valued = two_valued and bool(((block == 0) | (block == high)).all())
        start, step = start + step, _PACK_ROWS
    if threshold == "gt" or not len(rows):
        return
    if low == high and (high > 0 or rows.dtype.kind == "f"):  # all signs are +1, or vectors of zeros
        return
    if two_valued and high in (0, 1, 255):
        kind = "integers" if rows.dtype.kind == "i" else "numbers"
        raise ValueError(
            f"bits holds only the {kind} 0 and {max(high, 1):g}: pass bits.astype(bool), -1/+1 signs, or threshold='gt'"
        )
    if rows.shape[1] >= _MANY_BITS:
        raise ValueError(
            "bits holds no negative number, so every bit would be 1: centre the projections, pass booleans "
            "(such as bits > t), or threshold='gt', which makes 0 a 0 bit"
        )


def unpack_codes(codes: NDArray[np.uint64], n_bits: int) -> NDArray[np.bool]:
    """Unpack codes into booleans.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words) or (n_words,)
    n_bits : int

    Returns
    -------
    ndarray of bool, shape (n, n_bits) or (n_bits,)
        ``2.0 * unpack_codes(...) - 1`` are the signs.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_codes`.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import unpack_codes
    >>> unpack_codes(np.array([[6], [1]], np.uint64), 3)
    array([[False,  True,  True],
           [ True, False, False]])
    """
    n_bits = check_n_bits(n_bits)
    rows = check_codes(codes, n_bits)
    flat = rows.astype("<u8", copy=False).view(np.uint8)
    bits = np.unpackbits(flat, axis=1, count=n_bits, bitorder="little").view(bool)
    return bits[0] if np.ndim(codes) == 1 else bits


def check_codes(codes: object, n_bits: int, name: str = "codes", *, padded: bool = False) -> NDArray[np.uint64]:
    """Return codes as a C-contiguous (n, n_words) array, checked.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words), or one code of shape (n_words,)
        Lists of integers are taken by their values.
    n_bits : int
    name : str
        The argument's name, for the messages.
    padded : bool
        Whether n_bits counts padding bits, too: then it does not matter how many were packed.

    Raises
    ------
    TypeError
        When the dtype is not uint64 in the machine's own byte order.
    ValueError
        When the width is not that of n_bits, a padding bit is set, or the codes are known to be packed from fewer bits.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash.codes import check_codes
    >>> check_codes(np.array([5], np.uint64), 64).shape
    (1, 1)
    """
    array: NDArray[Any] = as_array(codes, name)
    words = n_words(n_bits)
    if isinstance(codes, list | tuple) and array.dtype != np.uint64:
        array = from_list(codes, array, name)
    if array.dtype != np.uint64 or not array.dtype.isnative:
        raise TypeError(
            f"{name} must be uint64 in native byte order, got dtype {array.dtype.str}{_advice(array, name)}"
        )
    origin = origin_of(array)
    if origin is not None and origin.n_bits < n_bits and not padded and array.shape[-1] == words:
        raise ValueError(f"{name} were packed from {origin.n_bits} bits each, expected {n_bits}")
    if array.ndim == 1 and array.shape[0] == words:
        array = array[np.newaxis]
    if array.ndim != 2 or array.shape[1] != words:
        one_each = (
            f": for one code a number, pass numpy.reshape({name}, (-1, 1))" if words == 1 and array.ndim == 1 else ""
        )
        raise ValueError(f"{name} must have shape (n, {words}) for {n_bits} bits, got {array.shape}{one_each}")
    array = np.ascontiguousarray(array)
    if n_bits % 64:
        bad = np.flatnonzero(array[:, -1] >> np.uint64(n_bits % 64))
        if bad.size:
            raise ValueError(f"{name} has padding bits set beyond bit {n_bits - 1}, first in row {bad[0]}")
    return array


def from_list(given, codes, name):
    """Return a list of whole numbers as uint64, by value: numpy makes int64, float64 or objects of it as they are."""
    if codes.dtype.kind not in "iufO" or codes.size == 0:
        return codes
    objects = np.array(given, object)
    if objects.shape != codes.shape or not all(
        isinstance(each, numbers.Integral) and not isinstance(each, bool) for each in objects.ravel()
    ):
        return codes
    for at, each in enumerate(objects.ravel()):
        if not 0 <= each < 1 << 64:
            row = at // max(1, objects[0].size) if objects.ndim > 1 else at
            advice = ": of signed ones, each % 2**64" if -(1 << 63) <= each < 0 else ""
            raise ValueError(f"{name} must be whole numbers from 0 to 2^64 - 1, got {each} in row {row}{advice}")
    return objects.astype(np.uint64)


def _advice(codes, name):
    """Return what to do with an array that does not hold codes, as the end of a message."""
    kind, size = codes.dtype.kind, codes.dtype.itemsize
    if kind == "f":
        if codes.ndim == 2 and codes.shape[1] == 1:
            return ": float64 does not hold codes, so some went through it"
        return f": they are vectors; codes are hasher.transform(X), or pack_codes({name}) of projections"
    if kind == "b":
        return f": codes are pack_codes({name})"
    if kind in "iu" and size == 1:
        return ": aphash.interchange.from_bytes or from_ubinary make codes of bytes"
    if kind in "iu" and size == 8:
        return f": {name}.astype(np.uint64) keeps the bits"
    if kind == "S":
        return f": of bytes, np.frombuffer(b''.join({name}), np.uint64).reshape(len({name}), -1)"
    if kind == "U":
        return ": aphash.interchange.from_hex and from_bit_strings make codes of texts"
    if kind == "O" and codes.size:
        stack = f", which np.stack({name}) makes one of" if hasattr(codes.flat[0], "shape") else ""
        return f": objects, such as {shown(codes.flat[0])}{stack}"
    return ""
