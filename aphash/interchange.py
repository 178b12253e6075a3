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

from aphash.codes import check_codes, check_n_bits, pack_codes, unpack_codes


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
    """
    n_bits = check_n_bits(n_bits)
    codes = check_codes(codes, n_bits)
    return np.ascontiguousarray(codes.astype("<u8", copy=False).view(np.uint8)[:, : -(-n_bits // 8)])


def from_bytes(rows, n_bits):
    """Return the codes that :func:`to_bytes` turns into these rows.

    Parameters
    ----------
    rows : array_like of uint8, shape (n, ceil(n_bits / 8))
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
    rows = _byte_rows(rows, -(-n_bits // 8))
    words = np.zeros((len(rows), -(-n_bits // 64) * 8), np.uint8)
    words[:, : rows.shape[1]] = rows
    return check_codes(words.view("<u8").astype(np.uint64, copy=False), n_bits, "rows")


def to_ubinary(codes, n_bits):
    """Return codes as Hugging Face's and sentence-transformers' ``ubinary`` embeddings: ``numpy.packbits`` of the bits.

    Parameters
    ----------
    codes : ndarray of uint64, shape (n, n_words)
    n_bits : int

    Returns
    -------
    ndarray of uint8, shape (n, ceil(n_bits / 8))
    """
    return np.packbits(unpack_codes(np.atleast_2d(codes), n_bits), axis=1)


def from_ubinary(rows, n_bits):
    """Return the codes of ``ubinary`` embeddings; add 128 and cast to uint8 to come from the signed ``binary`` ones.

    Parameters
    ----------
    rows : array_like of uint8, shape (n, ceil(n_bits / 8))
    n_bits : int

    Returns
    -------
    ndarray of uint64, shape (n, n_words)
    """
    n_bits = check_n_bits(n_bits)
    rows = _byte_rows(rows, -(-n_bits // 8))
    return pack_codes(np.unpackbits(rows, axis=1, count=n_bits).view(bool))


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
    """
    characters = unpack_codes(np.atleast_2d(codes), n_bits).astype(np.uint8) + ord("0")
    return [row.tobytes().decode("ascii") for row in characters]


def from_bit_strings(texts):
    """Return the codes of texts of 0 and 1, all of one length, which is n_bits.

    Parameters
    ----------
    texts : sequence of str

    Returns
    -------
    ndarray of uint64, shape (n, n_words)

    Raises
    ------
    ValueError
        For no text, texts of different lengths, or other characters.
    """
    texts = list(texts)
    lengths = {len(text) for text in texts}
    if len(lengths) != 1:
        raise ValueError(f"texts must be one or more of one length, got lengths {sorted(lengths)}")
    characters = np.frombuffer("".join(texts).encode("utf-8"), np.uint8)
    if characters.size != len(texts) * len(texts[0]) or not np.isin(characters, (ord("0"), ord("1"))).all():
        raise ValueError("texts must consist of the characters 0 and 1")
    return pack_codes(characters.reshape(len(texts), -1) == ord("1"))


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
    """Return a HammingIndex with the codes and ids of a flat binary index of faiss.

    Parameters
    ----------
    index : faiss.IndexBinaryFlat, IndexBinaryIDMap or IndexBinaryIDMap2
        Without a map, ids are counted from 0.
    n_bits : int or None
        The length of the codes where faiss' ``d`` is padded to whole bytes; None: ``d``.

    Returns
    -------
    HammingIndex

    Raises
    ------
    TypeError
        For another kind of index: its codes would be lossy or are not held.
    ValueError
        When n_bits does not fit, or an id is -1 or given twice.
    """
    from aphash.index import HammingIndex

    faiss = _faiss()
    index = faiss.downcast_IndexBinary(index)
    ids, flat = None, index
    if isinstance(index, faiss.IndexBinaryIDMap | faiss.IndexBinaryIDMap2):
        ids = faiss.vector_to_array(index.id_map)
        flat = faiss.downcast_IndexBinary(index.index)
    if not isinstance(flat, faiss.IndexBinaryFlat):
        raise TypeError(f"index must be an IndexBinaryFlat or an ID map over one, got {type(flat).__name__}")
    rows = faiss.vector_to_array(flat.xb).reshape(flat.ntotal, flat.code_size)
    found = HammingIndex(flat.d if n_bits is None else n_bits)
    found.add(from_bytes(rows, found.n_bits), ids)
    return found


def _faiss():
    try:
        import faiss
    except ImportError:
        raise ImportError("faiss is not installed: pip install faiss-cpu") from None
    return faiss


def _byte_rows(rows, width):
    rows = np.asarray(rows)
    if rows.dtype != np.uint8:
        raise TypeError(f"rows must be uint8, got dtype {rows.dtype}")
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"rows must have shape (n, {width}), got {rows.shape}")
    return rows
