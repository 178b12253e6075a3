"""Indexes of other libraries, which are imported when one is needed."""

import numpy as np

from aphash._interchange.rows import chunks, from_bytes, from_ubinary, import_, is_big, to_bytes, to_ubinary
from aphash.codes import check_n_bits
from aphash.index import HammingIndex


def to_faiss(index, *, bitorder="little"):
    """Return a ``faiss.IndexBinaryIDMap2`` over a flat index that holds a HammingIndex's codes under its ids.

    Parameters
    ----------
    index : HammingIndex
    bitorder : {"little", "big"}, default="little"
        The order of the bits in a byte. With "little", as faiss makes bytes of floats, queries are made by
        :func:`to_bytes`. With "big", as in ``numpy.packbits`` and ``ubinary`` embeddings, they are made by
        :func:`to_ubinary`.

    Raises
    ------
    ImportError
        When faiss is not installed (``pip install faiss-cpu``).
    ValueError
        For another bitorder.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import HammingIndex
    >>> index = HammingIndex(64)
    >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
    >>> from aphash import interchange
    >>> there = interchange.to_faiss(index)
    >>> interchange.from_faiss(there)
    HammingIndex(n_bits=64), 4 codes
    """
    big = is_big(bitorder)
    faiss = import_("faiss", "faiss-cpu")
    ids, rows = _rows_of(index, big)
    flat = faiss.IndexBinaryFlat(8 * rows.shape[1])
    found = faiss.IndexBinaryIDMap2(flat)
    flat.this.disown()  # the ID map deletes it
    found.own_fields = True
    if len(rows):
        found.add_with_ids(rows, ids)
    return found


def from_faiss(index, n_bits=None, *, bitorder="little"):
    """Return a HammingIndex with the codes and ids of a binary index of faiss.

    Parameters
    ----------
    index : faiss.IndexBinary
        A flat, HNSW, IVF or multi-hash index, which hold whole codes, or an ID map over one. Without ids of its own,
        ids are counted from 0.
    n_bits : int or None
        The length of the codes where the ``d`` of faiss is padded; with None it is ``d``.
    bitorder : {"little", "big"}, default="little"
        The order of the bits in a byte. It is "big" where ``numpy.packbits`` made them, as with ``ubinary`` embeddings.
        Then queries are the codes of :func:`from_ubinary`.

    Returns
    -------
    HammingIndex

    Raises
    ------
    TypeError
        For another kind of index, whose vectors are no codes, or which does not hold them.
    ValueError
        When n_bits does not fit, a bit beyond it is set, or an id is -1 or given twice.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import HammingIndex
    >>> index = HammingIndex(64)
    >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
    >>> from aphash import interchange
    >>> there = interchange.to_faiss(index)
    >>> interchange.from_faiss(there)
    HammingIndex(n_bits=64), 4 codes
    """
    big = is_big(bitorder)
    faiss = import_("faiss", "faiss-cpu")
    # What faiss returns does not own the memory that it points to, so `index` is kept until all is copied.
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
    contents = (
        (rows[start:stop], None if ids is None else ids[start:stop])
        for start, stop in chunks(len(rows), 8 * inner.code_size)
    )
    return _index_of(contents, inner.d, n_bits, big, "d")


def to_usearch(index, *, bitorder="little"):
    """Return a ``usearch.index.Index`` of ``dtype="b1"`` that holds a HammingIndex's codes under its ids.

    Parameters
    ----------
    index : HammingIndex
        Its ids must not be negative, since the keys of usearch are unsigned.
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
    usearch builds a graph, which takes about 200 us for each code. Its searches are approximate unless they have
    ``exact=True``.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import HammingIndex
    >>> index = HammingIndex(64)
    >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
    >>> from aphash import interchange
    >>> there = interchange.to_usearch(index)
    >>> interchange.from_usearch(there)
    HammingIndex(n_bits=64), 4 codes
    """
    big = is_big(bitorder)
    usearch = import_("usearch.index", "usearch")
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
        An index of ``dtype="b1"`` with one vector for each key.
    n_bits : int or None
        The length of the codes where the ``ndim`` of usearch is padded; with None it is ``ndim``.
    bitorder : {"little", "big"}, default="little"
        As for :func:`from_faiss`.

    Returns
    -------
    HammingIndex

    Raises
    ------
    TypeError
        For another kind of index, whose vectors are no codes.
    ValueError
        When n_bits does not fit, a bit beyond it is set, a key has several vectors, or is 2^63 or more.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import HammingIndex
    >>> index = HammingIndex(64)
    >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
    >>> from aphash import interchange
    >>> there = interchange.to_usearch(index)
    >>> interchange.from_usearch(there)
    HammingIndex(n_bits=64), 4 codes
    """
    big = is_big(bitorder)
    usearch = import_("usearch.index", "usearch")
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

    def contents():
        for start, stop in chunks(len(keys), 8 * index.ndim):
            yield np.stack(index.get(keys[start:stop])).reshape(stop - start, -1).view(np.uint8), keys[start:stop]

    return _index_of(contents(), index.ndim, n_bits, big, "ndim")


# -- inside ------------------------------------------------------------------------------------------------------------


def _rows_of(index, big):
    """Return the ids of a HammingIndex and its codes as rows of bytes."""
    if not isinstance(index, HammingIndex):
        advice = ": pass index.to_local()" if hasattr(index, "to_local") else ""
        raise TypeError(f"index must be a HammingIndex, got {type(index).__name__}{advice}")
    ids, codes = index.snapshot()
    return ids, (to_ubinary if big else to_bytes)(codes, index.n_bits)


def _index_of(contents, d, n_bits, big, name):
    """Return a HammingIndex of chunks of (rows of bytes, ids), which an index of d bits of another library holds."""
    n_bits = check_n_bits(d if n_bits is None else n_bits)
    if n_bits > d:
        raise ValueError(f"n_bits={n_bits} is more than index.{name}={d}")
    found, width, unused = HammingIndex(n_bits), -(-n_bits // 8), -n_bits % 8
    mask = np.uint8((1 << unused) - 1 if big else (0xFF << (8 - unused)) & 0xFF)
    for rows, ids in contents:
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
