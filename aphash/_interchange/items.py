"""Codes as objects of Python: texts, integers, ImageHash. imagehash is imported when it is needed."""

import binascii
import itertools
import math
import numbers

import numpy as np

from aphash._common.arrays import as_array, shown
from aphash._interchange.rows import (
    chunk_rows,
    chunks,
    from_bytes,
    from_numbers,
    import_,
    is_big,
    to_bytes,
    to_numbers,
)
from aphash.codes import check_codes, check_n_bits, n_words, note_origin, pack, unpack_codes

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def to_bit_strings(codes, n_bits):
    """Return codes as texts of 0 and 1 for PostgreSQL's ``bit(n_bits)``, on which pgvector's ``<~>`` counts.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int

    Returns
    -------
    list of str
        Bit 0 comes first.

    Raises
    ------
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`.

    Examples
    --------
    >>> from aphash import interchange, pack_codes
    >>> codes = pack_codes([[True, False, True, True, False, False, False, False]])
    >>> interchange.to_bit_strings(codes, 8)
    ['10110000']
    """
    n_bits = check_n_bits(n_bits)
    codes, texts = check_codes(codes, n_bits), []
    for start, stop in chunks(len(codes), n_bits):
        text = (unpack_codes(codes[start:stop], n_bits).view(np.uint8) + ord("0")).tobytes().decode("ascii")
        texts += [text[at : at + n_bits] for at in range(0, len(text), n_bits)]
    return texts


def from_bit_strings(texts):
    """Return the codes of texts of 0 and 1, all of one length, which is n_bits.

    Parameters
    ----------
    texts : iterable of str
        A list, a column, or an open file of lines, whose line ends do not count; but not one text alone, and not a set.

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    TypeError
        For one text alone, and for what are no texts.
    ValueError
        For no text, texts of different lengths, or other characters.

    Examples
    --------
    >>> from aphash import interchange
    >>> interchange.from_bit_strings(["10110000"])
    array([[13]], dtype=uint64)
    """
    first, texts = _first(
        _several(texts, "texts", "str"), "texts must hold one text at least, for their length is n_bits"
    )
    n_bits = check_n_bits(len(_without_end(first, 0)))

    def refuse(text, row):
        raise ValueError(f"texts must be of one length, got {len(text)} in row {row} and {n_bits} in row 0")

    def convert(chunk, start):
        chunk = _texts_of_width(chunk, start, n_bits, refuse)
        characters = np.frombuffer("".join(chunk).encode("ascii", "replace"), np.uint8)
        bits = characters.reshape(len(chunk), n_bits) == ord("1")
        bad = ~bits & (characters.reshape(bits.shape) != ord("0"))
        if bad.any():
            row = int(bad.any(axis=1).argmax())
            raise ValueError(
                f"texts must consist of the characters 0 and 1, got {chunk[row][:80]!r} in row {start + row}"
            )
        return pack(bits)

    return _by_chunks(texts, n_bits, convert)


def to_hex(codes, n_bits):
    """Return codes as hexadecimal text, as ``str`` of an ImageHash and PDQ's have it.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int

    Returns
    -------
    list of str
        Each has ceil(n_bits / 4) digits, in lower case, with zeros in front. It is a number whose most significant bit
        is bit 0 of the code.

    Raises
    ------
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`.

    Examples
    --------
    >>> from aphash import interchange, pack_codes
    >>> codes = pack_codes([[True, False, True, True, False, False, False, False]])
    >>> interchange.to_hex(codes, 8)
    ['b0']
    """
    n_bits = check_n_bits(n_bits)
    codes, texts = check_codes(codes, n_bits), []
    width, odd = 2 * -(-n_bits // 8), -(-n_bits // 4) % 2
    for start, stop in chunks(len(codes), n_bits):
        text = to_numbers(codes[start:stop], n_bits).tobytes().hex()
        texts += [text[at + odd : at + width] for at in range(0, len(text), width)]
    return texts


def from_hex(texts, n_bits):
    """Return the codes of hexadecimal texts, such as ``str`` of an ImageHash or PDQ's 64 digits.

    Parameters
    ----------
    texts : iterable of str
        A list, a column, or an open file of lines, whose line ends do not count; but not one text alone, and not a set.
        Each has ceil(n_bits / 4) digits, in either case.
    n_bits : int
        It is needed because 13 digits may be 49, 50, 51 or 52 bits. Where it is no multiple of 4, the first digit
        begins with zero bits, as with the 49 bits of ``phash(image, 7)``.

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    TypeError
        For one text, and for what are no texts.
    ValueError
        For texts of another length, other characters or more bits. The first such row is named.

    Examples
    --------
    >>> from aphash import interchange
    >>> interchange.from_hex(["b0"], 8)
    array([[13]], dtype=uint64)
    """
    n_bits = check_n_bits(n_bits)
    digits = -(-n_bits // 4)
    pad = "0" if digits % 2 else ""

    def refuse(text, row):
        raise ValueError(
            f"texts must have {digits} hexadecimal digits for n_bits={n_bits}, got {len(text)} in row {row}, "
            f"{shown(text)}{_digits_advice(text, digits, n_bits)}"
        )

    def convert(chunk, start):
        chunk = _texts_of_width(chunk, start, digits, refuse)
        try:
            data = binascii.a2b_hex(pad + pad.join(chunk))
        except ValueError:
            bad = next(row for row, text in enumerate(chunk) if not set(text) <= _HEX_DIGITS)
            raise ValueError(
                f"texts must consist of hexadecimal digits, got {shown(chunk[bad])} in row {start + bad}"
            ) from None
        rows = np.frombuffer(data, np.uint8).reshape(len(chunk), -1)
        if n_bits % 4 and (rows[:, 0] >> (8 - -n_bits % 8)).any():
            bad = int((rows[:, 0] >> (8 - -n_bits % 8) != 0).argmax())
            raise ValueError(f"texts must be of {n_bits} bits, got more in row {start + bad}, {shown(chunk[bad])}")
        return from_numbers(rows, n_bits)

    return _by_chunks(_several(texts, "texts", "str"), n_bits, convert)


def to_integers(codes, n_bits, *, signed=False, bitorder="big"):
    """Return codes as Python integers.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int
    signed : bool, default=False
        Whether to return numbers as signed types hold them. Where n_bits is 8, 16, 32 (SQL's INTEGER), 64 (BIGINT) or
        another multiple of 64, 2^n_bits is subtracted from numbers from 2^(n_bits - 1) on, so they become negative.
        Numbers of other lengths fit in a longer signed type as they are.
    bitorder : {"big", "little"}, default="big"
        With "big", the most significant bit is bit 0, as in hexadecimal text, ``int(str(imagehash), 16)`` and
        PostgreSQL's ``code::bigint``. With "little", the least significant bit is bit 0, as in the words of aphash's
        codes.

    Returns
    -------
    list of int

    Raises
    ------
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`, or for another bitorder.

    Examples
    --------
    >>> from aphash import interchange, pack_codes
    >>> codes = pack_codes([[True, False, True, True, False, False, False, False]])
    >>> interchange.to_integers(codes, 8)
    [176]
    """
    n_bits, big = check_n_bits(n_bits), is_big(bitorder)
    codes, found = check_codes(codes, n_bits), []
    half = 1 << (n_bits - 1) if signed and _is_signed(n_bits) else None
    width = -(-n_bits // 8)
    for start, stop in chunks(len(codes), n_bits):
        if big:
            data, order = to_numbers(codes[start:stop], n_bits).tobytes(), "big"
        else:
            data, order = to_bytes(codes[start:stop], n_bits).tobytes(), "little"
        values = [int.from_bytes(data[at : at + width], order) for at in range(0, len(data), width)]
        found += values if half is None else [each - 2 * half if each >= half else each for each in values]
    return found


def from_integers(values, n_bits, *, bitorder="big"):
    """Return the codes of integers, such as hashes in a database's BIGINT column.

    Parameters
    ----------
    values : iterable of int, or ndarray of integers of shape (n,)
        Numbers from 0 to 2^n_bits - 1. Where n_bits is 8, 16, 32, 64 or another multiple of 64, they may also be
        negative, from -2^(n_bits - 1) on, as signed types hold them.
    n_bits : int
    bitorder : {"big", "little"}, default="big"
        As for :func:`to_integers`.

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    TypeError
        For what are no integers; floats do not hold 64 bits exactly.
    ValueError
        For integers that are out of range. The first such row is named.

    Examples
    --------
    >>> from aphash import interchange
    >>> interchange.from_integers([176], 8)
    array([[13]], dtype=uint64)
    """
    n_bits, big = check_n_bits(n_bits), is_big(bitorder)
    width = -(-n_bits // 8)
    minimum = -(1 << (n_bits - 1)) if _is_signed(n_bits) else 0

    def refuse(chunk, start):
        row = next(row for row, each in enumerate(chunk) if not minimum <= each < 1 << n_bits)
        raise ValueError(
            f"values must be from {'0' if minimum == 0 else f'-2^{n_bits - 1}'} to 2^{n_bits} - 1 for n_bits={n_bits}, "
            f"got {shown(int(chunk[row]))} in row {start + row}"
        )

    def convert(chunk, start):
        if isinstance(chunk, np.ndarray) and n_bits <= 64:
            low, high = int(chunk.min()), int(chunk.max())
            if low < minimum or high >= 1 << n_bits:
                refuse(chunk, start)
            data = chunk.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - width :]
        else:
            chunk = chunk.tolist() if isinstance(chunk, np.ndarray) else _integers(chunk, start)
            low, high = min(chunk), max(chunk)
            if low < minimum or high >= 1 << n_bits:
                refuse(chunk, start)
            if low < 0:
                chunk = [each + (1 << n_bits) if each < 0 else each for each in chunk]
            data = np.frombuffer(b"".join([each.to_bytes(width, "big") for each in chunk]), np.uint8)
            data = data.reshape(-1, width)
        return from_numbers(data, n_bits) if big else from_bytes(data[:, ::-1], n_bits)

    if hasattr(values, "dtype") or hasattr(values, "__array__"):
        values = as_array(values, "values")
        if values.dtype.kind not in "iuO":
            advice = ": float64 does not hold 64 bits, and a column with missing values is made of it"
            raise TypeError(
                f"values must be integers, got dtype {values.dtype}{advice if values.dtype.kind == 'f' else ''}"
            )
        if values.ndim != 1:
            advice = ": they may be codes already" if values.dtype == np.uint64 else ""
            raise ValueError(f"values must have shape (n,), got {values.shape}{advice}")
        values = values.tolist() if values.dtype.kind == "O" else values
    return _by_chunks(_several(values, "values", "int"), n_bits, convert)


def to_imagehash(codes, n_bits, *, shape=None):
    """Return codes as ``imagehash.ImageHash`` objects.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int
    shape : tuple of two int, optional
        The shape of each hash. With None it is a square of n_bits, as nearly all are; ``colorhash`` has (14, 3).

    Returns
    -------
    list of imagehash.ImageHash

    Raises
    ------
    ImportError
        When imagehash is not installed (``pip install imagehash``).
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`, and for a shape that is not of n_bits.

    Examples
    --------
    >>> from aphash import interchange, pack_codes
    >>> codes = pack_codes([[True, False, True, True, False, False, False, False]])
    >>> interchange.to_imagehash(codes, 8, shape=(2, 4))  # of imagehash.ImageHash
    [array([[ True, False,  True,  True],
           [False, False, False, False]])]
    """
    imagehash = import_("imagehash", "imagehash")
    n_bits = check_n_bits(n_bits)
    if shape is None:
        shape = (math.isqrt(n_bits), math.isqrt(n_bits))
        if shape[0] ** 2 != n_bits:
            raise ValueError(f"shape must be given, since n_bits={n_bits} is no square")
    if len(shape) != 2 or math.prod(shape) != n_bits:
        raise ValueError(f"shape must be two numbers whose product is n_bits={n_bits}, got {shown(shape)}")
    codes, hashes = check_codes(codes, n_bits), []
    for start, stop in chunks(len(codes), n_bits):
        hashes += map(imagehash.ImageHash, unpack_codes(codes[start:stop], n_bits).reshape(-1, *shape).copy())
    return hashes


def from_imagehash(hashes):
    """Return the codes of ``imagehash.ImageHash`` objects, all of one shape, of which n_bits is the number of bits.

    Parameters
    ----------
    hashes : iterable of imagehash.ImageHash
        A list of hashes, not one hash alone.

    Returns
    -------
    ndarray of uint64, shape (n, n_words)
        The bits of a hash come row by row, so these are the codes of ``from_hex(map(str, hashes), n_bits)``.

    Raises
    ------
    TypeError
        For one hash alone, and for what are no hashes.
    ValueError
        For no hash, and for hashes of different shapes. The first such row is named.

    Examples
    --------
    >>> import imagehash
    >>> import numpy as np
    >>> from aphash import interchange
    >>> bits = np.array([[True, False, True, True], [False, False, False, False]])
    >>> interchange.from_imagehash([imagehash.ImageHash(bits)])  # or imagehash.phash(image) of each image
    array([[13]], dtype=uint64)
    """
    hashes = _several(hashes, "hashes", "ImageHash")
    first, hashes = _first(hashes, "hashes must hold one hash at least, for its size is n_bits")
    shape = _bits_of(first, 0).shape
    n_bits = check_n_bits(math.prod(shape))

    def convert(chunk, start):
        rows = [_bits_of(each, start + row) for row, each in enumerate(chunk)]
        for row, bits in enumerate(rows):
            if bits.shape != shape:
                at = start + row
                raise ValueError(f"hashes must be of one shape, got {bits.shape} in row {at} and {shape} in row 0")
        return pack(np.stack(rows).reshape(len(rows), n_bits))

    return _by_chunks(hashes, n_bits, convert)


# -- inside ------------------------------------------------------------------------------------------------------------


def _is_signed(n_bits):
    """Return whether there are signed types of n_bits, whose negative numbers have the first bit set."""
    return n_bits in (8, 16, 32) or n_bits % 64 == 0


def _several(items, name, kind):
    """Return an iterable of items. TypeError where it is one item, or has no order."""
    if isinstance(items, str | bytes | set | frozenset | dict) or not hasattr(items, "__iter__"):
        alone = {"str": str, "int": numbers.Integral}.get(kind)
        one = isinstance(items, alone) if alone else hasattr(items, "hash")
        advice = f": pass [{name}] for one code" if one else ""
        raise TypeError(f"{name} must be a list of {kind}, got {_a(items)}{advice}")
    if isinstance(items, np.ndarray) and items.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), got {items.shape}")
    if isinstance(items, np.ndarray) and items.dtype.kind in "USO":
        return items.tolist()
    return items.to_pylist() if hasattr(items, "to_pylist") else items  # a column of pyarrow


def _a(thing):
    name = type(thing).__name__
    return "None" if thing is None else f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def _by_chunks(items, n_bits, convert):
    """Return the codes of items; convert(chunk, number of its first row) makes the codes of a chunk."""
    step, start = chunk_rows(n_bits), 0
    n = len(items) if hasattr(items, "__len__") else None
    codes, made = np.empty((n or 0, n_words(n_bits)), np.uint64), []
    each = iter(items)
    while True:
        chunk = items[start : start + step] if isinstance(items, np.ndarray) else list(itertools.islice(each, step))
        if not len(chunk):
            codes = codes[:start] if n is not None else np.concatenate([codes, *made])
            return note_origin(codes, n_bits)
        if n is None:
            made.append(convert(chunk, start))
        else:
            codes[start : start + len(chunk)] = convert(chunk, start)
        start += len(chunk)


def _first(items, empty):
    """Return the first of the items, and all of them. ValueError with the text `empty` where there is none."""
    each = iter(items)
    first = next(each, each)
    if first is each:
        raise ValueError(empty)
    return first, items if hasattr(items, "__len__") else itertools.chain([first], each)


def _without_end(text, row):
    """Return a line without its end."""
    if not isinstance(text, str):
        advice = ": each.decode()" if isinstance(text, bytes) else ""
        for method in ("to_text", "as_string"):  # of pgvector's Bit, of asyncpg's BitString
            if hasattr(text, method):
                advice = f": pass each.{method}()" + ('.replace(" ", "")' if method == "as_string" else "")
        raise TypeError(f"texts must be str, got {type(text).__name__} in row {row}{advice}")
    return text.removesuffix("\n").removesuffix("\r")


def _texts_of_width(chunk, start, width, refuse):
    """Return texts without line ends, all of one width. refuse(text, row) raises for the first of another width."""
    if set(map(type, chunk)) != {str} or set(map(len, chunk)) != {width}:
        chunk = [_without_end(text, start + row) for row, text in enumerate(chunk)]
        for row, text in enumerate(chunk):
            if len(text) != width:
                refuse(text, start + row)
    return chunk


def _digits_advice(text, digits, n_bits):
    """Return the end of a message, which says what to do with a hexadecimal text of another length."""
    if text[:2].lower() in ("0x", "\\x"):
        return f": without {text[:2]}"
    if len(text) == 2 * -(-n_bits // 8):
        return ": bytes of packbits, whose zeros are behind, are from_ubinary's"
    if len(text) < digits and set(text) <= _HEX_DIGITS:
        return ": numbers without zeros in front are from_integers([int(text, 16) for text in texts], n_bits)"
    return ""


def _integers(chunk, start):
    """Return a chunk of Python integers. TypeError for what are none."""
    types = set(map(type, chunk))
    if types == {int}:
        return chunk
    for row, each in enumerate(chunk):
        if isinstance(each, bool | np.bool_) or not isinstance(each, numbers.Integral):
            raise TypeError(f"values must be integers, got {shown(each)} in row {start + row}")
    return [int(each) for each in chunk]


def _bits_of(hash, row):
    """Return the booleans of an ImageHash."""
    bits = getattr(hash, "hash", None)
    if not isinstance(bits, np.ndarray) or bits.dtype != bool:
        advice = ""
        if hasattr(hash, "segment_hashes"):
            advice = ": it holds several hashes, each.segment_hashes"
        elif isinstance(hash, str):
            advice = ": from_hex(hashes, n_bits)"
        raise TypeError(f"hashes must be imagehash.ImageHash, got {type(hash).__name__} in row {row}{advice}")
    return bits
