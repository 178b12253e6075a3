"""One file for a product: a fitted model together with the index of its codes."""

from aphash import _steps
from aphash._common import container
from aphash._learning.estimator import APHash
from aphash._searching import index_file
from aphash.index import HammingIndex
from aphash.neighbors import HammingNeighbors

KIND, VERSION = "APHash+HammingIndex", 3  # 3 has a Pipeline's steps; below it is the version of the index in it
_INDEX_VERSION = 2  # with the steps of a Pipeline, or without; the model's is 1


def save(path, hasher, index):
    """Write a fitted model and an index to one file: checksummed, and atomically.

    Parameters
    ----------
    path : str or os.PathLike
        Used as given; an existing file is replaced, at no moment by half a one.
    hasher : APHash or sklearn.pipeline.Pipeline
        Fitted. A Pipeline ends with an APHash; its steps in front of it may be Normalizer, StandardScaler,
        MinMaxScaler, MaxAbsScaler, RobustScaler, PCA, TruncatedSVD and "passthrough", of which parameters and what they
        learned are saved, without pickle. Their ``set_output`` and the Pipeline's ``memory`` are not.
    index : HammingIndex
        Of codes of the same length; its lookup is saved, too.

    Raises
    ------
    TypeError, ValueError
        When they are not of these classes, a step cannot be saved (the message says what to do), their ``n_bits``
        differ, or the index is known to hold the codes of another model.
    sklearn.exceptions.NotFittedError
        When the model is not fitted.
    OSError
        With the path, when it cannot be written.
    """
    model, (steps, hasher) = hasher, _steps.split(hasher)
    if not isinstance(hasher, APHash) or not isinstance(index, HammingIndex):
        advice = ""
        if steps is not None and not isinstance(hasher, APHash):
            advice = f": the Pipeline ends with {type(hasher).__name__}, and must end with APHash"
            if isinstance(hasher, HammingNeighbors):
                advice += "; pass pipeline[:-1] and pipeline[-1].index_"
        raise TypeError(
            f"expected an APHash and a HammingIndex, got {type(model).__name__} and {type(index).__name__}{advice}"
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
    both, version = {"hasher": params, "index": index_params}, _INDEX_VERSION
    if steps is not None:
        step_arrays, step_params = _steps.to_file(steps)
        together |= {f"steps.{name}": each for name, each in step_arrays.items()}
        both |= {"steps": step_params, "name": model.steps[-1][0]}
        version = VERSION  # so that who does not know of the steps refuses the file
    container.write(path, together, kind=KIND, version=version, params=both)


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
    tuple of (APHash or sklearn.pipeline.Pipeline, HammingIndex)
        What was saved.

    Raises
    ------
    OSError, ValueError
        With the path and what is wrong, when it cannot be read, is not such a file, or not whole.
    """
    arrays, params, version = container.read(path, kind=KIND, mmap=mmap, verify=verify)
    if not 1 <= version <= VERSION:
        raise ValueError(f"{path}: version {version} of such a file; this aphash reads up to {VERSION}")
    parts = {"hasher": {}, "index": {}, "steps": {}}
    for name, each in arrays.items():
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = each
    if not isinstance(params.get("hasher"), dict) or not isinstance(params.get("index"), dict):
        raise ValueError(f"{path}: no parameters of a model and an index")
    hasher = APHash._from_file(path, parts["hasher"], params["hasher"], 1)
    check = not mmap if verify is None else verify
    index = HammingIndex._of(
        index_file.from_file(path, parts["index"], params["index"], min(version, _INDEX_VERSION), check)
    )
    if index.n_bits != len(hasher.coef_):
        raise ValueError(f"{path}: an index of {index.n_bits} bits, a model of {len(hasher.coef_)}")
    if index.fingerprint not in (None, hasher.fingerprint_):
        raise ValueError(f"{path}: the index holds the codes of another model, as its fingerprint tells")
    if "steps" not in params:
        return hasher, index
    try:
        steps, columns = _steps.from_file(parts["steps"], params["steps"])
        if columns not in (None, hasher.n_features_in_):
            raise ValueError(f"a model of {hasher.n_features_in_} features behind steps that make {columns}")
        return _steps.joined(steps, params["name"], hasher), index
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not the whole steps of a Pipeline: {error!r}") from None
