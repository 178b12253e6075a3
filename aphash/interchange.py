"""Codes from and to other libraries' formats. Needs numpy only; faiss is imported where a faiss index is asked for.

======================================  ==================================  ==========================
format                                  bytes of a code                     bit b of a code is
======================================  ==================================  ==========================
aphash                                  8 n_words, uint64 words             bit b % 64 of word b // 64
faiss, usearch ``b1`` (:func:`to_bytes`)  ceil(n_bits / 8)                    bit b % 8 of byte b // 8
``ubinary`` (:func:`to_ubinary`)        n_bits / 8                          bit 7 - b % 8 of byte b // 8
pgvector ``bit(n)`` (:func:`to_bit_strings`)  text of n_bits characters       character b, from the left
======================================  ==================================  ==========================

Hamming distances are the same in all of them: the order of bits does not matter, as long as both sides have it.
"""

import numpy as np

from aphash._common.arrays import as_array
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
    rows = _byte_rows(rows, n_bits, signed=False)
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
    rows = _byte_rows(rows, n_bits, signed=True)
    return _from_rows(rows.view(np.uint8), n_bits, _REVERSED_SIGNED if rows.dtype == np.int8 else _REVERSED)


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
        Not one text alone, nor a set.

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
    if isinstance(texts, str | bytes | set | frozenset | dict):
        advice = ": pass [texts] for one code" if isinstance(texts, str) else ""
        raise TypeError(f"texts must be a list of str, got a {type(texts).__name__}{advice}")
    texts = list(texts)
    if not texts:
        raise ValueError("texts must hold one text at least, for their length is n_bits")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts must be str, got {type(text).__name__} in row {row}")
        if len(text) != len(texts[0]):
            raise ValueError(f"texts must be of one length, got {len(text)} in row {row} and {len(texts[0])} in row 0")
    n_bits = check_n_bits(len(texts[0]))
    codes = np.empty((len(texts), n_words(n_bits)), np.uint64)
    for start, stop in _blocks(len(texts), n_bits):
        characters = np.frombuffer("".join(texts[start:stop]).encode("ascii", "replace"), np.uint8)
        bits = characters.reshape(stop - start, n_bits) == ord("1")
        bad = ~bits & (characters.reshape(bits.shape) != ord("0"))
        if bad.any():
            row = start + int(bad.any(axis=1).argmax())
            raise ValueError(f"texts must consist of the characters 0 and 1, got {texts[row][:80]!r} in row {row}")
        codes[start:stop] = pack(bits)
    return note_origin(codes, n_bits)


def to_faiss(index):
    """Return a ``faiss.IndexBinaryIDMap2`` over a flat index that holds a HammingIndex's codes under its ids.

    Parameters
    ----------
    index : HammingIndex

    Raises
    ------
    ImportError
        When faiss is not installed (``pip install faiss-cpu``).
    """
    faiss = _faiss()
    rows = to_bytes(index.codes, index.n_bits)
    flat = faiss.IndexBinaryFlat(8 * rows.shape[1])
    found = faiss.IndexBinaryIDMap2(flat)
    flat.this.disown()  # the map deletes it
    found.own_fields = True
    if len(rows):
        found.add_with_ids(rows, np.asarray(index.ids, np.int64))
    return found


def from_faiss(index, n_bits=None):
    """Return a HammingIndex with the codes and ids of a binary index of faiss.

    Parameters
    ----------
    index : faiss.IndexBinary
        Flat, HNSW, IVF or multi-hash, whose codes are whole, or an ID map over one. Without ids of its own they are
        counted from 0.
    n_bits : int or None
        The length of the codes where faiss' ``d`` is padded; None: ``d``.

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
    from aphash.index import HammingIndex

    faiss = _faiss()
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
    n_bits = check_n_bits(inner.d if n_bits is None else n_bits)
    if n_bits > inner.d:
        raise ValueError(f"n_bits={n_bits} is more than index.d={inner.d}")
    found, width = HammingIndex(n_bits), -(-n_bits // 8)
    for start, stop in _blocks(len(rows), 8 * inner.code_size):
        block = rows[start:stop]
        if block[:, width:].any() or (n_bits % 8 and (block[:, width - 1] >> n_bits % 8).any()):
            raise ValueError(f"index has bits set beyond n_bits={n_bits}: its codes are of index.d={inner.d} bits")
        found.add(from_bytes(block[:, :width], n_bits), None if ids is None else ids[start:stop])
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


def _faiss():
    try:
        import faiss
    except ImportError:
        raise ImportError("faiss is not installed: pip install faiss-cpu") from None
    return faiss


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


def _byte_rows(rows, n_bits, signed):
    """Return rows as uint8, or int8 where that may be, of the width of n_bits."""
    given, width = rows, -(-n_bits // 8)
    rows = as_array(rows, "rows")
    if isinstance(given, list | tuple) and rows.dtype.kind in "iu" and rows.dtype.itemsize > 1 and rows.size:
        low, high = rows.min(), rows.max()
        if signed and -128 <= low < 0 and high < 128:
            rows = rows.astype(np.int8)
        elif low >= 0 and high < 256 and (high > 127 or not signed):
            rows = rows.astype(np.uint8)
        elif low >= 0 and high < 128:
            raise ValueError("rows may be ubinary or binary: pass np.array(rows, np.uint8), or np.int8 for binary")
        else:
            raise ValueError(f"rows must be bytes, got integers from {low} to {high}")
    if rows.dtype != np.uint8 and not (signed and rows.dtype == np.int8):
        advice = ""
        if rows.dtype.kind in "SO":
            advice = ": of a list of bytes, np.frombuffer(b''.join(rows), np.uint8).reshape(len(rows), -1)"
        elif rows.dtype == np.uint64:
            advice = ": they may be codes already"
        elif rows.dtype == bool:
            advice = ": aphash.pack_codes(rows) takes bits"
        elif rows.dtype.kind in "iu":
            advice = ": rows.view(np.uint8) keeps the bits" if rows.dtype.itemsize == 1 else ": rows.astype(np.uint8)"
        elif rows.dtype.kind == "f":
            advice = ": vectors are no bytes; codes of vectors are hasher.transform(X)"
        raise TypeError(f"rows must be uint8{' or int8' if signed else ''}, got dtype {rows.dtype}{advice}")
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"rows must have shape (n, {width}) for {n_bits} bits, got {rows.shape}")
    return rows
