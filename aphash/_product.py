"""One file for a product: a fitted model together with the index of its codes."""

from aphash._common import container
from aphash._learning.estimator import APHash
from aphash._searching import index_file
from aphash.index import HammingIndex

KIND, VERSION = "APHash+HammingIndex", 2  # the version of the index in it; the model's is 1


def save(path, hasher, index):
    """Write a fitted model and an index to one file: checksummed, and atomically.

    Parameters
    ----------
    path : str or os.PathLike
        Used as given; an existing file is replaced, at no moment by half a one.
    hasher : APHash
        Fitted.
    index : HammingIndex
        Of codes of the same length; its lookup is saved, too.

    Raises
    ------
    TypeError, ValueError
        When they are not of these classes, their ``n_bits`` differ, or the index is known to hold the codes of another
        model.
    sklearn.exceptions.NotFittedError
        When the model is not fitted.
    OSError
        With the path, when it cannot be written.
    """
    if not isinstance(hasher, APHash) or not isinstance(index, HammingIndex):
        raise TypeError(
            f"expected an APHash and a HammingIndex, got {type(hasher).__name__} and {type(index).__name__}"
        )
    arrays, params = hasher._to_file()
    if index.n_bits != len(hasher.coef_):
        raise ValueError(f"index has n_bits={index.n_bits}, hasher {len(hasher.coef_)}: they must be equal")
    known = index.fingerprint
    if known is not None and known != hasher.fingerprint_:
        raise ValueError("index holds the codes of another model, as its fingerprint tells: index hasher.transform(X)")
    index_arrays, index_params = index_file.to_file(index._store.present)
    together = {f"hasher.{name}": each for name, each in arrays.items()}
    together |= {f"index.{name}": each for name, each in index_arrays.items()}
    container.write(path, together, kind=KIND, version=VERSION, params={"hasher": params, "index": index_params})


def load(path, *, mmap=False, verify=None):
    """Return the (hasher, index) that :func:`save` wrote.

    Parameters
    ----------
    path : str or os.PathLike
    mmap : bool
        Search the index where it lies, as ``HammingIndex.load`` does.
    verify : bool, optional
        Whether the arrays' checksums are verified. By default they are, but for a mapped file.

    Returns
    -------
    tuple of (APHash, HammingIndex)

    Raises
    ------
    OSError, ValueError
        With the path and what is wrong, when it cannot be read, is not such a file, or not whole.
    """
    arrays, params, version = container.read(path, kind=KIND, mmap=mmap, verify=verify)
    if not 1 <= version <= VERSION:
        raise ValueError(f"{path}: version {version} of such a file; this aphash reads up to {VERSION}")
    parts = {"hasher": {}, "index": {}}
    for name, each in arrays.items():
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = each
    if not isinstance(params.get("hasher"), dict) or not isinstance(params.get("index"), dict):
        raise ValueError(f"{path}: no parameters of a model and an index")
    hasher = APHash._from_file(path, parts["hasher"], params["hasher"], 1)
    check = not mmap if verify is None else verify
    index = HammingIndex._of(index_file.from_file(path, parts["index"], params["index"], version, check))
    if index.n_bits != len(hasher.coef_):
        raise ValueError(f"{path}: an index of {index.n_bits} bits, a model of {len(hasher.coef_)}")
    if index.fingerprint not in (None, hasher.fingerprint_):
        raise ValueError(f"{path}: the index holds the codes of another model, as its fingerprint tells")
    return hasher, index
