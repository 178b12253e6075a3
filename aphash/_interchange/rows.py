"""Codes as rows of bytes, with bits in either order. Needs numpy only."""

import importlib

import numpy as np

from aphash._common.arrays import as_array, shown
from aphash.codes import check_codes, check_n_bits, n_words, note_origin

CHUNK_BYTES = 1 << 20  # so many bytes, one for each bit, are converted at a time

_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1)[:, ::-1], axis=1).ravel()
_REVERSED_SIGNED = np.roll(_REVERSED, 128)  # the same for the byte v - 128, seen as uint8


def to_bytes(codes, n_bits):
    """Return codes as bytes, as faiss' binary indexes and usearch with ``dtype="b1"`` take them.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int

    Returns
    -------
    ndarray of uint8, shape (n, ceil(n_bits / 8))
        C-contiguous. The padding bits of the last byte are zero. usearch needs ``ndim=8 * shape[1]``, and faiss the
        same ``d``.

    Raises
    ------
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`.

    Notes
    -----
    This and the similar functions need memory for their result, and a few megabytes.

    Examples
    --------
    >>> from aphash import interchange, pack_codes
    >>> codes = pack_codes([[True, False, True, True, False, False, False, False]])
    >>> bytes = interchange.to_bytes(codes, 8)
    >>> bool((interchange.from_bytes(bytes, 8) == codes).all())
    True
    """
    n_bits = check_n_bits(n_bits)
    codes = check_codes(codes, n_bits, padded=True)  # the d of faiss may be longer than the codes
    return np.ascontiguousarray(codes.astype("<u8", copy=False).view(np.uint8)[:, : -(-n_bits // 8)])


def from_bytes(rows, n_bits):
    """Return the codes that :func:`to_bytes` turns into these rows.

    Parameters
    ----------
    rows : array_like of uint8, shape (n, ceil(n_bits / 8))
        Lists are taken where they hold integers from 0 to 255.
    n_bits : int

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    TypeError, ValueError
        For another dtype or width, or when a padding bit is set.

    Examples
    --------
    >>> from aphash import interchange, pack_codes
    >>> codes = pack_codes([[True, False, True, True, False, False, False, False]])
    >>> bytes = interchange.to_bytes(codes, 8)
    >>> bool((interchange.from_bytes(bytes, 8) == codes).all())
    True
    """
    n_bits = check_n_bits(n_bits)
    rows = _byte_rows(rows, n_bits, np.uint8)
    return _from_rows(rows, n_bits, None)


def to_ubinary(codes, n_bits):
    """Return codes as Hugging Face's and sentence-transformers' ``ubinary`` embeddings: ``numpy.packbits`` of the bits.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int

    Returns
    -------
    ndarray of uint8, shape (n, ceil(n_bits / 8))

    Raises
    ------
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`.

    Examples
    --------
    >>> from aphash import interchange, pack_codes
    >>> codes = pack_codes([[True, False, True, True, False, False, False, False]])
    >>> ubinary = interchange.to_ubinary(codes, 8)
    >>> bool((interchange.from_ubinary(ubinary, 8) == codes).all())
    True
    """
    n_bits = check_n_bits(n_bits)
    rows = check_codes(codes, n_bits).astype("<u8", copy=False).view(np.uint8)[:, : -(-n_bits // 8)]
    return _in_chunks(rows, _REVERSED, np.empty(rows.shape, np.uint8))


def from_ubinary(rows, n_bits):
    """Return the codes of ``ubinary`` embeddings, or of signed ``binary`` ones, whose bytes are smaller by 128.

    Parameters
    ----------
    rows : array_like of uint8 or int8, shape (n, ceil(n_bits / 8))
        int8 means ``binary``. Lists are accepted where their values tell which of the two they are.
    n_bits : int

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    TypeError, ValueError
        For another dtype or width, or when a padding bit is set, with which ``numpy.packbits`` fills the last byte.

    Examples
    --------
    >>> from aphash import interchange, pack_codes
    >>> codes = pack_codes([[True, False, True, True, False, False, False, False]])
    >>> ubinary = interchange.to_ubinary(codes, 8)
    >>> bool((interchange.from_ubinary(ubinary, 8) == codes).all())
    True
    """
    n_bits = check_n_bits(n_bits)
    rows = _byte_rows(rows, n_bits, np.uint8, np.int8)
    return _from_rows(rows.view(np.uint8), n_bits, _REVERSED_SIGNED if rows.dtype == np.int8 else _REVERSED)


def to_binary(codes, n_bits):
    """Return codes as signed ``binary`` embeddings of sentence-transformers and Cohere: the ``ubinary`` bytes minus
    128.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int

    Returns
    -------
    ndarray of int8, shape (n, ceil(n_bits / 8))

    Raises
    ------
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`.

    Examples
    --------
    >>> from aphash import interchange, pack_codes
    >>> codes = pack_codes([[True, False, True, True, False, False, False, False]])
    >>> binary = interchange.to_binary(codes, 8)
    >>> bool((interchange.from_binary(binary, 8) == codes).all())
    True
    """
    rows = to_ubinary(codes, n_bits)
    rows ^= np.uint8(128)  # this is v - 128 in 8 bits
    return rows.view(np.int8)


def from_binary(rows, n_bits):
    """Return the codes of signed ``binary`` embeddings.

    Parameters
    ----------
    rows : array_like of int8, shape (n, ceil(n_bits / 8))
        Lists are taken where they hold integers from -128 to 127.
    n_bits : int

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    TypeError, ValueError
        As :func:`from_ubinary`.

    Examples
    --------
    >>> from aphash import interchange, pack_codes
    >>> codes = pack_codes([[True, False, True, True, False, False, False, False]])
    >>> binary = interchange.to_binary(codes, 8)
    >>> bool((interchange.from_binary(binary, 8) == codes).all())
    True
    """
    n_bits = check_n_bits(n_bits)
    rows = _byte_rows(rows, n_bits, np.int8)
    return _from_rows(rows.view(np.uint8), n_bits, _REVERSED_SIGNED)


# -- for the other modules ---------------------------------------------------------------------------------------------


def to_numbers(codes, n_bits):
    """Return codes as big-endian numbers whose most significant of n_bits bits is bit 0, in rows of uint8."""
    rows, unused = to_ubinary(codes, n_bits), -n_bits % 8
    if unused:
        shifted = rows >> unused
        shifted[:, 1:] |= rows[:, :-1] << (8 - unused)
        rows = shifted
    return rows


def from_numbers(rows, n_bits):
    """Return the codes of rows of bytes as :func:`to_numbers` makes them."""
    unused = -n_bits % 8
    if unused:
        shifted = rows << unused
        shifted[:, :-1] |= rows[:, 1:] >> (8 - unused)
        rows = shifted
    return _from_rows(rows, n_bits, _REVERSED)


def _from_rows(rows, n_bits, table):
    """Return the codes of rows of bytes. The table turns each byte into one whose bit 0 is the first bit."""
    words = np.zeros((len(rows), 8 * n_words(n_bits)), np.uint8)
    _in_chunks(rows, table, words[:, : rows.shape[1]])
    if n_bits % 8:
        bad = words[:, rows.shape[1] - 1] >> n_bits % 8
        if bad.any():
            raise ValueError(f"rows has padding bits set beyond bit {n_bits - 1}, first in row {(bad != 0).argmax()}")
    return note_origin(words.view("<u8").astype(np.uint64, copy=False), n_bits)


def chunk_rows(n_bits):
    """Return how many rows of n_bits are converted at a time: some megabytes, with a byte for each bit."""
    return max(1, CHUNK_BYTES // n_bits)


def chunks(n, n_bits):
    """Yield (start, stop) of chunks of n rows."""
    step = chunk_rows(n_bits)
    for start in range(0, n, step):
        yield start, min(n, start + step)


def is_big(bitorder):
    if not isinstance(bitorder, str) or bitorder not in ("big", "little"):
        raise ValueError(f"bitorder must be 'big' or 'little', got {shown(bitorder)}")
    return bitorder == "big"


def import_(module, package):
    """Return a module of another library. The ImportError says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise ImportError(f"{name} is not installed: pip install {package}") from None


# -- inside ------------------------------------------------------------------------------------------------------------


def _in_chunks(rows, table, out):
    """Fill `out` with the bytes of the rows, or what a table of 256 makes of them, and return it."""
    for start, stop in chunks(len(rows), 8 * max(1, rows.shape[1])):
        out[start:stop] = rows[start:stop] if table is None else table[rows[start:stop]]
    return out


def _byte_rows(rows, n_bits, *dtypes):
    """Return rows as one of the dtypes, uint8 or int8, after checking that their width is that of n_bits."""
    given, width = rows, -(-n_bits // 8)
    rows = as_array(rows, "rows")
    unsigned, signed = np.uint8 in dtypes, np.int8 in dtypes
    if isinstance(given, list | tuple) and rows.dtype.kind in "iu" and rows.dtype.itemsize > 1 and rows.size:
        low, high = rows.min(), rows.max()
        if signed and low >= -128 and high < 128 and (low < 0 or not unsigned):
            rows = rows.astype(np.int8)
        elif unsigned and low >= 0 and high < 256 and (high > 127 or not signed):
            rows = rows.astype(np.uint8)
        elif low >= 0 and high < 128:
            raise ValueError("rows may be ubinary or binary: pass np.array(rows, np.uint8), or np.int8 for binary")
        else:
            raise ValueError(f"rows must be bytes, got integers from {low} to {high}")
    if rows.dtype not in dtypes:
        advice = ""
        if rows.dtype.kind in "SO":
            advice = ": of a list of bytes, np.frombuffer(b''.join(rows), np.uint8).reshape(len(rows), -1)"
        elif rows.dtype == np.uint64:
            advice = ": they may be codes already"
        elif rows.dtype == bool:
            advice = ": aphash.pack_codes(rows) takes bits"
        elif rows.dtype == np.uint8:
            advice = ": from_ubinary takes ubinary"
        elif rows.dtype.kind in "iu":
            advice = ": rows.view(np.uint8) keeps the bits" if rows.dtype.itemsize == 1 else ": rows.astype(np.uint8)"
        elif rows.dtype.kind == "f":
            advice = ": vectors are no bytes; codes of vectors are hasher.transform(X)"
        raise TypeError(f"rows must be {' or '.join(np.dtype(d).name for d in dtypes)}, got dtype {rows.dtype}{advice}")
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"rows must have shape (n, {width}) for {n_bits} bits, got {rows.shape}")
    return rows
