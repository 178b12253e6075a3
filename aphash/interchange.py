"""Codes from and to the formats of other libraries. Needs numpy only; a library is imported where its objects are made.

============================================  =======================================  ======================  =======
source                                        call                                     bit b of a code is      bit is 1
============================================  =======================================  ======================  =======
aphash's words: ``APHash.transform``,         none: they are codes                     bit b % 64 of word      ``>= 0``
:func:`aphash.pack_codes`                                                              b // 64
projections, rotated vectors                  ``pack_codes(Y)``,                       column b                ``>= 0``,
                                              ``pack_codes(Y, threshold="gt")``                                ``> 0``
faiss' binary indexes                         :func:`from_faiss`, :func:`to_faiss`     b % 8 of byte b // 8
their rows; ``faiss.fvecs2bitvecs``,          :func:`from_bytes`, :func:`to_bytes`     b % 8 of byte b // 8    ``>= 0``,
``faiss.real_to_binary``                                                                                       ``> 0``
usearch ``dtype="b1"``                        :func:`from_usearch`,                    b % 8 of byte b // 8
                                              :func:`to_usearch`
its rows of packbits, and what it makes of    the same, ``bitorder="big"``             7 - b % 8 of byte       ``> 0``
floats                                                                                 b // 8
sentence-transformers, Cohere ``ubinary``,    :func:`from_ubinary`,                    7 - b % 8 of byte       ``> 0``
``numpy.packbits``                            :func:`to_ubinary`                       b // 8
the same in a faiss index                     ``from_faiss(..., bitorder="big")``      7 - b % 8 of byte       ``> 0``
                                                                                       b // 8
their signed ``binary``: ubinary - 128        :func:`from_binary`, :func:`to_binary`   the same, before 128    ``> 0``
                                                                                       is taken off
PostgreSQL ``bit(n)``, pgvector's             :func:`from_bit_strings`,                character b, from the   ``> 0``
``binary_quantize``                           :func:`to_bit_strings`                   left
hexadecimal text: ``str(ImageHash)``, PDQ     :func:`from_hex`, :func:`to_hex`         n_bits - 1 - b of the   the
                                                                                       number                  hash's
integers: ``int(text, 16)``,                  :func:`from_integers`,                   n_bits - 1 - b of the   the
``bit(64)::bigint``, BIGINT                   :func:`to_integers`                      number                  hash's
integers that are aphash's words              the same, ``bitorder="little"``          b of the number         ``>= 0``
``imagehash.ImageHash``                       :func:`from_imagehash`,                  element b, row by row   the
                                              :func:`to_imagehash`                                             hash's
PDQ's array: ``pdqhash.compute(image)[0]``    ``pack_codes(np.stack(rows) == 1)``      element b               the
                                                                                                               hash's
============================================  =======================================  ======================  =======

Hamming distances are the same in all of them: the order of bits does not matter, as long as database and queries have
the same one. A hash gives the same code whether it comes as text, integer, bits or ImageHash, and an embedding whether
it comes as ubinary, binary or PostgreSQL's bits. Where a vector has zeros, as after a ReLU, ``> 0`` and ``>= 0`` are
different codes.
"""

import binascii
import importlib
import itertools
import math
import numbers

import numpy as np

from aphash._common.arrays import as_array, shown
from aphash.codes import check_codes, check_n_bits, n_words, note_origin, pack, unpack_codes

_BLOCK_BYTES = 1 << 20  # converted at a time

_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1)[:, ::-1], axis=1).ravel()
_REVERSED_SIGNED = np.roll(_REVERSED, 128)  # of the byte v - 128, seen as uint8: the table of v


def to_bytes(codes, n_bits):
    """Return codes as bytes, as faiss' binary indexes and usearch with ``dtype="b1"`` take them.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int

    Returns
    -------
    ndarray of uint8, shape (n, ceil(n_bits / 8))
        C-contiguous; the last byte's padding bits are zero. usearch needs ``ndim=8 * shape[1]``, faiss ``d`` likewise.

    Raises
    ------
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`.

    Notes
    -----
    This and its like need their result and a few megabytes.
    """
    n_bits = check_n_bits(n_bits)
    codes = check_codes(codes, n_bits, padded=True)  # faiss' d may be longer than the codes
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
    """
    n_bits = check_n_bits(n_bits)
    rows = check_codes(codes, n_bits).astype("<u8", copy=False).view(np.uint8)[:, : -(-n_bits // 8)]
    return _in_blocks(rows, _REVERSED, np.empty(rows.shape, np.uint8))


def from_ubinary(rows, n_bits):
    """Return the codes of ``ubinary`` embeddings, or of the signed ``binary`` ones, whose bytes are less by 128.

    Parameters
    ----------
    rows : array_like of uint8 or int8, shape (n, ceil(n_bits / 8))
        int8 means ``binary``. Lists are taken where their values tell which they are.
    n_bits : int

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    TypeError, ValueError
        For another dtype or width, or when a padding bit is set: those that ``numpy.packbits`` fills up with.
    """
    n_bits = check_n_bits(n_bits)
    rows = _byte_rows(rows, n_bits, np.uint8, np.int8)
    return _from_rows(rows.view(np.uint8), n_bits, _REVERSED_SIGNED if rows.dtype == np.int8 else _REVERSED)


def to_binary(codes, n_bits):
    """Return codes as sentence-transformers' and Cohere's signed ``binary`` embeddings: the ``ubinary`` bytes less 128.

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
    """
    rows = to_ubinary(codes, n_bits)
    rows ^= np.uint8(128)  # v - 128, of 8 bits
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
    """
    n_bits = check_n_bits(n_bits)
    rows = _byte_rows(rows, n_bits, np.int8)
    return _from_rows(rows.view(np.uint8), n_bits, _REVERSED_SIGNED)


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
    """
    n_bits = check_n_bits(n_bits)
    codes, texts = check_codes(codes, n_bits), []
    for start, stop in _blocks(len(codes), n_bits):
        text = (unpack_codes(codes[start:stop], n_bits).view(np.uint8) + ord("0")).tobytes().decode("ascii")
        texts += [text[at : at + n_bits] for at in range(0, len(text), n_bits)]
    return texts


def from_bit_strings(texts):
    """Return the codes of texts of 0 and 1, all of one length, which is n_bits.

    Parameters
    ----------
    texts : iterable of str
        Such as a list, a column, or an open file of lines, whose ends do not count. Not one text alone, nor a set.

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    TypeError
        For one text, and for what are no texts.
    ValueError
        For no text, texts of different lengths, or other characters.
    """
    first, texts = _first(
        _several(texts, "texts", "str"), "texts must hold one text at least, for their length is n_bits"
    )
    n_bits = check_n_bits(len(_without_end(first, 0)))

    def refuse(text, row):
        raise ValueError(f"texts must be of one length, got {len(text)} in row {row} and {n_bits} in row 0")

    def convert(block, start):
        block = _texts_of_width(block, start, n_bits, refuse)
        characters = np.frombuffer("".join(block).encode("ascii", "replace"), np.uint8)
        bits = characters.reshape(len(block), n_bits) == ord("1")
        bad = ~bits & (characters.reshape(bits.shape) != ord("0"))
        if bad.any():
            row = int(bad.any(axis=1).argmax())
            raise ValueError(
                f"texts must consist of the characters 0 and 1, got {block[row][:80]!r} in row {start + row}"
            )
        return pack(bits)

    return _by_blocks(texts, n_bits, convert)


def to_hex(codes, n_bits):
    """Return codes as hexadecimal text, as ``str`` of an ImageHash and PDQ's have it.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int

    Returns
    -------
    list of str
        Of ceil(n_bits / 4) digits each, in lower case: a number whose most significant bit is bit 0 of the code,
        with zeros in front.

    Raises
    ------
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`.
    """
    n_bits = check_n_bits(n_bits)
    codes, texts = check_codes(codes, n_bits), []
    width, odd = 2 * -(-n_bits // 8), -(-n_bits // 4) % 2
    for start, stop in _blocks(len(codes), n_bits):
        text = _to_numbers(codes[start:stop], n_bits).tobytes().hex()
        texts += [text[at + odd : at + width] for at in range(0, len(text), width)]
    return texts


def from_hex(texts, n_bits):
    """Return the codes of hexadecimal texts, such as ``str`` of an ImageHash or PDQ's 64 digits.

    Parameters
    ----------
    texts : iterable of str
        Of ceil(n_bits / 4) digits each, in either case: a list, a column, or an open file of lines, whose ends do not
        count. Not one text alone, nor a set.
    n_bits : int
        Where it is no multiple of 4, the first digit has zeros in front, as of the 49 bits of ``phash(image, 7)``. It
        is asked for because 13 digits may be 49, 50, 51 or 52 bits.

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    TypeError
        For one text, and for what are no texts.
    ValueError
        For texts of another length, other characters or more bits; the first row of them is named.
    """
    n_bits = check_n_bits(n_bits)
    digits = -(-n_bits // 4)
    pad = "0" if digits % 2 else ""

    def refuse(text, row):
        raise ValueError(
            f"texts must have {digits} hexadecimal digits for n_bits={n_bits}, got {len(text)} in row {row}, "
            f"{shown(text)}{_digits_advice(text, digits, n_bits)}"
        )

    def convert(block, start):
        block = _texts_of_width(block, start, digits, refuse)
        try:
            data = binascii.a2b_hex(pad + pad.join(block))
        except ValueError:
            bad = next(row for row, text in enumerate(block) if not set(text) <= _HEX_DIGITS)
            raise ValueError(
                f"texts must consist of hexadecimal digits, got {shown(block[bad])} in row {start + bad}"
            ) from None
        rows = np.frombuffer(data, np.uint8).reshape(len(block), -1)
        if n_bits % 4 and (rows[:, 0] >> (8 - -n_bits % 8)).any():
            bad = int((rows[:, 0] >> (8 - -n_bits % 8) != 0).argmax())
            raise ValueError(f"texts must be of {n_bits} bits, got more in row {start + bad}, {shown(block[bad])}")
        return _from_numbers(rows, n_bits)

    return _by_blocks(_several(texts, "texts", "str"), n_bits, convert)


def to_integers(codes, n_bits, *, signed=False, bitorder="big"):
    """Return codes as Python integers.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int
    signed : bool, default=False
        As signed types hold them: where n_bits is 8, 16, 32 (SQL's INTEGER), 64 (BIGINT) or another multiple of 64,
        numbers from 2^(n_bits - 1) on are less by 2^n_bits, so negative. Other lengths are numbers that a longer
        signed type holds as they are.
    bitorder : {"big", "little"}, default="big"
        "big": the most significant bit is bit 0, as in hexadecimal text, ``int(str(imagehash), 16)`` and PostgreSQL's
        ``code::bigint``. "little": the least significant is, as in aphash's own words.

    Returns
    -------
    list of int

    Raises
    ------
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`, or for another bitorder.
    """
    n_bits, big = check_n_bits(n_bits), _is_big(bitorder)
    codes, found = check_codes(codes, n_bits), []
    half = 1 << (n_bits - 1) if signed and _is_signed(n_bits) else None
    width = -(-n_bits // 8)
    for start, stop in _blocks(len(codes), n_bits):
        if big:
            data, order = _to_numbers(codes[start:stop], n_bits).tobytes(), "big"
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
        From 0 to 2^n_bits - 1; where n_bits is 8, 16, 32, 64 or another multiple of 64 also from -2^(n_bits - 1), which
        are the bits of signed types.
    n_bits : int
    bitorder : {"big", "little"}, default="big"
        As for :func:`to_integers`.

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    TypeError
        For what are no integers; floats do not hold 64 bits.
    ValueError
        For integers that are out of range; the first row of them is named.
    """
    n_bits, big = check_n_bits(n_bits), _is_big(bitorder)
    width = -(-n_bits // 8)
    least = -(1 << (n_bits - 1)) if _is_signed(n_bits) else 0

    def refuse(block, start):
        row = next(row for row, each in enumerate(block) if not least <= each < 1 << n_bits)
        raise ValueError(
            f"values must be from {'0' if least == 0 else f'-2^{n_bits - 1}'} to 2^{n_bits} - 1 for n_bits={n_bits}, "
            f"got {shown(int(block[row]))} in row {start + row}"
        )

    def convert(block, start):
        if isinstance(block, np.ndarray) and n_bits <= 64:
            low, high = int(block.min()), int(block.max())
            if low < least or high >= 1 << n_bits:
                refuse(block, start)
            data = block.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - width :]
        else:
            block = block.tolist() if isinstance(block, np.ndarray) else _integers(block, start)
            low, high = min(block), max(block)
            if low < least or high >= 1 << n_bits:
                refuse(block, start)
            if low < 0:
                block = [each + (1 << n_bits) if each < 0 else each for each in block]
            data = np.frombuffer(b"".join([each.to_bytes(width, "big") for each in block]), np.uint8)
            data = data.reshape(-1, width)
        return _from_numbers(data, n_bits) if big else _from_rows(data[:, ::-1], n_bits, None)

    if hasattr(values, "dtype"):
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
    return _by_blocks(_several(values, "values", "int"), n_bits, convert)


def to_imagehash(codes, n_bits, *, shape=None):
    """Return codes as ``imagehash.ImageHash`` objects.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int
    shape : tuple of two int, optional
        Of each hash. None: the square of n_bits, as nearly all are; ``colorhash`` has (14, 3).

    Returns
    -------
    list of imagehash.ImageHash

    Raises
    ------
    ImportError
        When imagehash is not installed (``pip install imagehash``).
    TypeError, ValueError
        As :func:`aphash.codes.check_codes`, and for a shape that is not of n_bits.
    """
    imagehash = _import("imagehash", "imagehash")
    n_bits = check_n_bits(n_bits)
    if shape is None:
        shape = (math.isqrt(n_bits), math.isqrt(n_bits))
        if shape[0] ** 2 != n_bits:
            raise ValueError(f"shape must be given, since n_bits={n_bits} is no square")
    if len(shape) != 2 or math.prod(shape) != n_bits:
        raise ValueError(f"shape must be two numbers whose product is n_bits={n_bits}, got {shown(shape)}")
    codes, hashes = check_codes(codes, n_bits), []
    for start, stop in _blocks(len(codes), n_bits):
        hashes += map(imagehash.ImageHash, unpack_codes(codes[start:stop], n_bits).reshape(-1, *shape).copy())
    return hashes


def from_imagehash(hashes):
    """Return the codes of ``imagehash.ImageHash`` objects, all of one shape, of which n_bits is the number of bits.

    Parameters
    ----------
    hashes : iterable of imagehash.ImageHash
        Not one alone.

    Returns
    -------
    ndarray of uint64, shape (n, n_words)
        Bits row by row: the same codes as ``from_hex(map(str, hashes), n_bits)``.

    Raises
    ------
    TypeError
        For one hash, and for what are no hashes.
    ValueError
        For no hash, and hashes of different shapes; the first row of them is named.
    """
    hashes = _several(hashes, "hashes", "ImageHash")
    first, hashes = _first(hashes, "hashes must hold one hash at least, for its size is n_bits")
    shape = _bits_of(first, 0).shape
    n_bits = check_n_bits(math.prod(shape))

    def convert(block, start):
        rows = [_bits_of(each, start + row) for row, each in enumerate(block)]
        for row, bits in enumerate(rows):
            if bits.shape != shape:
                at = start + row
                raise ValueError(f"hashes must be of one shape, got {bits.shape} in row {at} and {shape} in row 0")
        return pack(np.stack(rows).reshape(len(rows), n_bits))

    return _by_blocks(hashes, n_bits, convert)


def to_faiss(index, *, bitorder="little"):
    """Return a ``faiss.IndexBinaryIDMap2`` over a flat index that holds a HammingIndex's codes under its ids.

    Parameters
    ----------
    index : HammingIndex
    bitorder : {"little", "big"}, default="little"
        Of the bits in a byte: "little", as faiss makes bytes of floats; its queries are :func:`to_bytes`. "big", as
        ``numpy.packbits`` and ``ubinary`` embeddings have them; its queries are :func:`to_ubinary`.

    Raises
    ------
    ImportError
        When faiss is not installed (``pip install faiss-cpu``).
    ValueError
        For another bitorder.
    """
    big = _is_big(bitorder)
    faiss = _import("faiss", "faiss-cpu")
    ids, rows = _rows_of(index, big)
    flat = faiss.IndexBinaryFlat(8 * rows.shape[1])
    found = faiss.IndexBinaryIDMap2(flat)
    flat.this.disown()  # the map deletes it
    found.own_fields = True
    if len(rows):
        found.add_with_ids(rows, ids)
    return found


def from_faiss(index, n_bits=None, *, bitorder="little"):
    """Return a HammingIndex with the codes and ids of a binary index of faiss.

    Parameters
    ----------
    index : faiss.IndexBinary
        Flat, HNSW, IVF or multi-hash, whose codes are whole, or an ID map over one. Without ids of its own they are
        counted from 0.
    n_bits : int or None
        The length of the codes where faiss' ``d`` is padded; None: ``d``.
    bitorder : {"little", "big"}, default="little"
        Of the bits in a byte. "big" where ``numpy.packbits`` made them, as of ``ubinary`` embeddings: then queries
        are the codes of :func:`from_ubinary`.

    Returns
    -------
    HammingIndex

    Raises
    ------
    TypeError
        For another kind of index: its vectors are no codes, or are not held.
    ValueError
        When n_bits does not fit, a bit beyond it is set, or an id is -1 or given twice.
    """
    big = _is_big(bitorder)
    faiss = _import("faiss", "faiss-cpu")
    # What faiss hands out does not own what it points to: `index` is kept until all is copied.
    whole = faiss.downcast_IndexBinary(index) if isinstance(index, faiss.IndexBinary) else index
    id_map, inner = None, whole
    if isinstance(whole, faiss.IndexBinaryIDMap | faiss.IndexBinaryIDMap2):
        id_map = faiss.vector_to_array(whole.id_map)
        inner = faiss.downcast_IndexBinary(whole.index)
    if isinstance(inner, faiss.IndexBinaryIVF):
        rows, ids = _lists(faiss, inner)
    else:
        flat, ids = inner, None
        if isinstance(inner, faiss.IndexBinaryHNSW | faiss.IndexBinaryMultiHash):
            flat = faiss.downcast_IndexBinary(inner.storage)
        if not isinstance(flat, faiss.IndexBinaryFlat):
            raise TypeError(
                "index must be a faiss.IndexBinary that holds whole codes (IndexBinaryFlat, -HNSW, -IVF or -MultiHash, "
                f"or an ID map over one), got {type(flat).__name__}{_advice(faiss, flat)}"
            )
        rows = np.empty((0, flat.code_size), np.uint8)
        if flat.ntotal:
            rows = faiss.rev_swig_ptr(flat.xb.data(), flat.ntotal * flat.code_size).reshape(-1, flat.code_size)
    if id_map is not None:
        ids = id_map if ids is None else id_map[ids]
    blocks = (
        (rows[start:stop], None if ids is None else ids[start:stop])
        for start, stop in _blocks(len(rows), 8 * inner.code_size)
    )
    return _index_of(blocks, inner.d, n_bits, big, "d")


def to_usearch(index, *, bitorder="little"):
    """Return a ``usearch.index.Index`` of ``dtype="b1"`` that holds a HammingIndex's codes under its ids.

    Parameters
    ----------
    index : HammingIndex
        Its ids must not be negative: usearch's keys are unsigned.
    bitorder : {"little", "big"}, default="little"
        As for :func:`to_faiss`.

    Raises
    ------
    ImportError
        When usearch is not installed (``pip install usearch``).
    ValueError
        For negative ids, or another bitorder.

    Notes
    -----
    usearch builds a graph: it takes some 200 us a code, and its searches are approximate unless they have
    ``exact=True``.
    """
    big = _is_big(bitorder)
    usearch = _import("usearch.index", "usearch")
    ids, rows = _rows_of(index, big)
    if len(ids) and ids.min() < 0:
        raise ValueError(f"index must have no negative ids, which usearch's keys cannot be, got {ids.min()}")
    found = usearch.Index(ndim=8 * rows.shape[1], dtype="b1", metric="hamming")
    if len(rows):
        found.add(ids.astype(np.uint64), rows)
    return found


def from_usearch(index, n_bits=None, *, bitorder="little"):
    """Return a HammingIndex with the codes and keys of an index of usearch.

    Parameters
    ----------
    index : usearch.index.Index
        Of ``dtype="b1"``, with one vector a key.
    n_bits : int or None
        The length of the codes where usearch's ``ndim`` is padded; None: ``ndim``.
    bitorder : {"little", "big"}, default="little"
        As for :func:`from_faiss`: "big" where ``numpy.packbits`` made the rows.

    Returns
    -------
    HammingIndex

    Raises
    ------
    TypeError
        For another kind of index: its vectors are no codes.
    ValueError
        When n_bits does not fit, a bit beyond it is set, a key has several vectors, or is 2^63 or more.
    """
    big = _is_big(bitorder)
    usearch = _import("usearch.index", "usearch")
    if not isinstance(index, usearch.Index):
        path = isinstance(index, str | bytes) or hasattr(index, "__fspath__")
        advice = ": pass usearch.index.Index.restore(path)" if path else ""
        raise TypeError(f"index must be a usearch.index.Index, got {type(index).__name__}{advice}")
    if index.dtype != usearch.ScalarKind.B1:
        raise TypeError(
            f"index must be of dtype b1, got {index.dtype.name.lower()}: it holds vectors; codes of vectors are "
            "hasher.transform(X)"
        )
    keys = np.unique(index.keys[:])
    if len(keys) != len(index):
        raise ValueError(f"index has several vectors under a key: {len(index)} under {len(keys)} keys")

    def blocks():
        for start, stop in _blocks(len(keys), 8 * index.ndim):
            yield np.stack(index.get(keys[start:stop])).reshape(stop - start, -1).view(np.uint8), keys[start:stop]

    return _index_of(blocks(), index.ndim, n_bits, big, "ndim")


def _rows_of(index, big):
    """Return the ids of a HammingIndex and its codes as rows of bytes."""
    ids, codes = index.snapshot()
    return ids, (to_ubinary if big else to_bytes)(codes, index.n_bits)


def _index_of(blocks, d, n_bits, big, name):
    """Return a HammingIndex of blocks of (rows of bytes, ids), which another library's index of d bits holds."""
    from aphash.index import HammingIndex

    n_bits = check_n_bits(d if n_bits is None else n_bits)
    if n_bits > d:
        raise ValueError(f"n_bits={n_bits} is more than index.{name}={d}")
    found, width, unused = HammingIndex(n_bits), -(-n_bits // 8), -n_bits % 8
    mask = np.uint8((1 << unused) - 1 if big else (0xFF << (8 - unused)) & 0xFF)
    for rows, ids in blocks:
        if rows[:, width:].any() or (rows[:, width - 1] & mask).any():
            raise ValueError(f"index has bits set beyond n_bits={n_bits}: its codes are of index.{name}={d} bits")
        found.add((from_ubinary if big else from_bytes)(rows[:, :width], n_bits), ids=ids)
    return found


def _lists(faiss, index):
    """Return the rows of an inverted file and their ids, in the order of the ids."""
    rows, ids, end = np.empty((index.ntotal, index.code_size), np.uint8), np.empty(index.ntotal, np.int64), 0
    lists = index.invlists
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if size:
            start, end = end, end + size
            codes, own = lists.get_codes(number), lists.get_ids(number)
            rows[start:end] = faiss.rev_swig_ptr(codes, size * index.code_size).reshape(size, -1)
            ids[start:end] = faiss.rev_swig_ptr(own, size)
            lists.release_codes(number, codes)
            lists.release_ids(number, own)
    order = np.argsort(ids[:end])
    return rows[order], ids[order]


def _advice(faiss, index):
    if isinstance(index, faiss.Index):
        return ": it holds vectors; codes of vectors are hasher.transform(X)"
    if isinstance(index, str | bytes) or hasattr(index, "__fspath__"):
        return ": pass faiss.read_index_binary(path)"
    return ""


def _import(module, package):
    """Return another library's module; ImportError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.partition(".")[0]
        raise ImportError(f"{name} is not installed: pip install {package}") from None


def _is_big(bitorder):
    if not isinstance(bitorder, str) or bitorder not in ("big", "little"):
        raise ValueError(f"bitorder must be 'big' or 'little', got {shown(bitorder)}")
    return bitorder == "big"


def _is_signed(n_bits):
    """Whether there are signed types of n_bits, whose negative numbers have the first bit set."""
    return n_bits in (8, 16, 32) or n_bits % 64 == 0


# ---- texts, integers and hashes, one by one ----


def _several(items, name, kind):
    """Return an iterable of items, unless it is one item, or has no order."""
    if isinstance(items, str | bytes | set | frozenset | dict) or not hasattr(items, "__iter__"):
        alone = {"str": str, "int": numbers.Integral}.get(kind)
        one = isinstance(items, alone) if alone else hasattr(items, "hash")
        advice = f": pass [{name}] for one code" if one else ""
        raise TypeError(f"{name} must be a list of {kind}, got {_a(items)}{advice}")
    if isinstance(items, np.ndarray) and items.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), got {items.shape}")
    return items.tolist() if isinstance(items, np.ndarray) and items.dtype.kind in "USO" else items


def _a(thing):
    name = type(thing).__name__
    return "None" if thing is None else f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def _by_blocks(items, n_bits, convert):
    """Return the codes of items, of which convert(block, number of its first row) makes those of a block."""
    step, start = max(1, _BLOCK_BYTES // n_bits), 0
    n = len(items) if hasattr(items, "__len__") else None
    codes, parts = np.empty((n or 0, n_words(n_bits)), np.uint64), []
    each = iter(items)
    while True:
        block = items[start : start + step] if isinstance(items, np.ndarray) else list(itertools.islice(each, step))
        if not len(block):
            return note_origin(codes if n is not None else np.concatenate([codes, *parts]), n_bits)
        if n is None:
            parts.append(convert(block, start))
        else:
            codes[start : start + len(block)] = convert(block, start)
        start += len(block)


def _first(items, empty):
    """Return the first of items, and all of them; ValueError, worded by empty, where there is none."""
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


def _texts_of_width(block, start, width, refuse):
    """Return texts without the ends of lines, all of a width; refuse(text, row) raises for the first that is not."""
    if set(map(type, block)) != {str} or set(map(len, block)) != {width}:
        block = [_without_end(text, start + row) for row, text in enumerate(block)]
        for row, text in enumerate(block):
            if len(text) != width:
                refuse(text, start + row)
    return block


_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def _digits_advice(text, digits, n_bits):
    """Return what to do with a hexadecimal text of another length, as the end of a message."""
    if text[:2].lower() in ("0x", "\\x"):
        return f": without {text[:2]}"
    if len(text) == 2 * -(-n_bits // 8):
        return ": bytes of packbits, whose zeros are behind, are from_ubinary's"
    if len(text) < digits and set(text) <= _HEX_DIGITS:
        return ": numbers without zeros in front are from_integers([int(text, 16) for text in texts], n_bits)"
    return ""


def _integers(block, start):
    """Return a block of Python integers; TypeError for what are none."""
    types = set(map(type, block))
    if types == {int}:
        return block
    for row, each in enumerate(block):
        if isinstance(each, bool | np.bool_) or not isinstance(each, numbers.Integral):
            raise TypeError(f"values must be integers, got {shown(each)} in row {start + row}")
    return [int(each) for each in block]


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


# ---- rows of bytes ----


def _to_numbers(codes, n_bits):
    """Return codes as big-endian numbers whose most significant of n_bits bits is bit 0, in rows of uint8."""
    rows, unused = to_ubinary(codes, n_bits), -n_bits % 8
    if unused:
        shifted = rows >> unused
        shifted[:, 1:] |= rows[:, :-1] << (8 - unused)
        rows = shifted
    return rows


def _from_numbers(rows, n_bits):
    """Return the codes of rows of bytes as :func:`_to_numbers` makes them."""
    unused = -n_bits % 8
    if unused:
        shifted = rows << unused
        shifted[:, :-1] |= rows[:, 1:] >> (8 - unused)
        rows = shifted
    return _from_rows(rows, n_bits, _REVERSED)


def _blocks(n, n_bits):
    """Yield (start, stop) of blocks of n rows: some megabytes, a bit a byte."""
    step = max(1, _BLOCK_BYTES // n_bits)
    for start in range(0, n, step):
        yield start, min(n, start + step)


def _in_blocks(rows, table, out):
    """Fill out with the rows' bytes, or what a table of 256 makes of them; return it."""
    for start, stop in _blocks(len(rows), 8 * max(1, rows.shape[1])):
        out[start:stop] = rows[start:stop] if table is None else table[rows[start:stop]]
    return out


def _from_rows(rows, n_bits, table):
    """Return the codes of rows of bytes, of which a table makes bytes whose bit 0 is the first."""
    words = np.zeros((len(rows), 8 * n_words(n_bits)), np.uint8)
    _in_blocks(rows, table, words[:, : rows.shape[1]])
    if n_bits % 8:
        bad = words[:, rows.shape[1] - 1] >> n_bits % 8
        if bad.any():
            raise ValueError(f"rows has padding bits set beyond bit {n_bits - 1}, first in row {(bad != 0).argmax()}")
    return note_origin(words.view("<u8").astype(np.uint64, copy=False), n_bits)


def _byte_rows(rows, n_bits, *dtypes):
    """Return rows as uint8 or int8, whichever of them may be, of the width of n_bits."""
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
