"""The packed format of binary codes: what learning produces and searching consumes. Needs numpy only.

Bit ``b`` of a code is bit ``b % 64`` of word ``b // 64``; 1 means that the projection is >= 0. Words are uint64 in the
machine's own byte order, ``n_words = ceil(n_bits / 64)`` a code, C-contiguous; the padding bits of the last word are
zero. On a little-endian machine ``codes.view(numpy.uint8)`` is what ``numpy.packbits(..., bitorder="little")``, faiss,
usearch and pgvector's ``bit`` hold, padded to whole words.
"""

import numbers

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_BITS = 65536

_PACK_ROWS = 1 << 14  # rows unpacked or packed at a time: bounds the temporary bytes


def check_n_bits(n_bits: object) -> int:
    """Return n_bits as an int; TypeError or ValueError unless it is an integer in 1 .. 65,536."""
    if isinstance(n_bits, bool) or not isinstance(n_bits, numbers.Integral):
        raise TypeError(f"n_bits must be an integer, got {n_bits!r}")
    if not 1 <= n_bits <= MAX_BITS:
        raise ValueError(f"n_bits must be in 1 .. {MAX_BITS}, got {n_bits}")
    return int(n_bits)


def n_words(n_bits: int) -> int:
    """Return the number of 64-bit words of a code of n_bits."""
    return -(-n_bits // 64)


def pack_codes(bits: ArrayLike) -> NDArray[np.uint64]:
    """Pack signs, projections or booleans into codes.

    Parameters
    ----------
    bits : array_like of shape (n, n_bits) or (n_bits,)
        Booleans are taken as bits; real numbers as projections: a bit is 1 where the number is >= 0, so -1/+1 signs
        pack as expected. NaN is refused, and so are integers that hold 0 and 1 only: signs are -1/+1,
        bits booleans.

    Returns
    -------
    ndarray of uint64, shape (n, n_words) or (n_words,)

    Raises
    ------
    ValueError
        For another number of dimensions, no bits or more than 65,536, NaN, or integers of which some are 0 and the
        others 1 (as projections they would all become 1 bits, which nobody wants).
    TypeError
        When the elements are neither booleans nor real numbers.

    Notes
    -----
    Needs the result, and 16,384 rows of n_bits bytes beside it.
    """
    bits = np.asarray(bits)
    if bits.ndim not in (1, 2):
        raise ValueError(f"bits must have 1 or 2 dimensions, got {bits.ndim}")
    if bits.dtype.kind not in "biuf":
        raise TypeError(f"bits must be booleans or real numbers, got dtype {bits.dtype}")
    rows = np.atleast_2d(bits)
    words = n_words(check_n_bits(rows.shape[1]))
    packed = np.zeros((rows.shape[0], words * 8), np.uint8)
    if bits.dtype.kind in "iu" and rows.size and rows.min() == 0 and rows.max() <= 1:
        raise ValueError("bits holds only the integers 0 and 1: pass bits.astype(bool), or -1/+1 signs")
    for start in range(0, rows.shape[0], _PACK_ROWS):
        block = rows[start : start + _PACK_ROWS]
        if block.dtype.kind == "f" and np.isnan(block).any():
            raise ValueError("bits contains NaN")
        ones = block if block.dtype.kind == "b" else block >= 0
        eight = np.packbits(ones, axis=1, bitorder="little")
        packed[start : start + len(block), : eight.shape[1]] = eight
    codes = packed.view("<u8").astype(np.uint64, copy=False)
    return codes[0] if bits.ndim == 1 else codes


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
    """
    n_bits = check_n_bits(n_bits)
    rows = check_codes(codes, n_bits)
    flat = rows.astype("<u8", copy=False).view(np.uint8)
    bits = np.unpackbits(flat, axis=1, count=n_bits, bitorder="little").view(bool)
    return bits[0] if np.ndim(codes) == 1 else bits


def check_codes(codes: object, n_bits: int, name: str = "codes") -> NDArray[np.uint64]:
    """Return codes as a C-contiguous (n, n_words) array, checked.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words), or one code of shape (n_words,)
    n_bits : int
    name : str
        The argument's name, for the messages.

    Raises
    ------
    TypeError
        When the dtype is not uint64 in the machine's own byte order.
    ValueError
        When the width is not that of n_bits, or a padding bit is set.
    """
    codes = np.asarray(codes)
    words = n_words(n_bits)
    if codes.dtype != np.uint64 or not codes.dtype.isnative:
        raise TypeError(f"{name} must be uint64 in native byte order, got dtype {codes.dtype.str}")
    if codes.ndim == 1:
        codes = codes[np.newaxis]
    if codes.ndim != 2 or codes.shape[1] != words:
        raise ValueError(f"{name} must have shape (n, {words}) for {n_bits} bits, got {codes.shape}")
    codes = np.ascontiguousarray(codes)
    if n_bits % 64:
        bad = np.flatnonzero(codes[:, -1] >> np.uint64(n_bits % 64))
        if bad.size:
            raise ValueError(f"{name} has padding bits set beyond bit {n_bits - 1}, first in row {bad[0]}")
    return codes
