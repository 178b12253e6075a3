"""One file for a product: a fitted model together with the index of its codes."""

from aphash._common import container
from aphash._learning.encoder import MODEL_VERSION, PRODUCT, PRODUCT_VERSION, Encoder, check_version, refuse_steps
from aphash._searching import index_file
from aphash.index import HammingIndex

_INDEX_VERSION = 2  # of the index in the latest file


def save(path, hasher, index):
    """Write a fitted model and an index to one file: checksummed, and atomically.

    Parameters
    ----------
    path : str, os.PathLike, bytes or binary file object
        A path is used as given; an existing file is replaced, at no moment by half a one. A file object
        (``io.BytesIO``, what S3 clients upload) is written to front to back and left open.
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

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import aphash
    >>> X = load_digits().data
    >>> hasher = aphash.APHash(32, random_state=0).fit(X)
    >>> index = aphash.HammingIndex(32)
    >>> ids = index.add(hasher.transform(X))
    >>> import io
    >>> file = io.BytesIO()
    >>> aphash.save(file, hasher, index)
    >>> aphash.load(file.getvalue())[1]
    HammingIndex(n_bits=32), 1797 codes
    """
    import aphash._steps as _steps  # with scikit-learn, which load_encoder does without
    from aphash._learning import model_file
    from aphash._learning.estimator import APHash
    from aphash.neighbors import HammingNeighbors

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
    both = {"hasher": params, "index": index_params}
    # The latest version says what earlier ones do not know of, so that they refuse the file.
    of_model = model_file.version_of(params)
    if of_model == MODEL_VERSION:
        version = PRODUCT_VERSION
    else:
        version = 3 if steps is not None or of_model > 1 else _INDEX_VERSION
    if steps is not None:
        step_arrays, step_params = _steps.to_file(steps)
        together |= {f"steps.{name}": each for name, each in step_arrays.items()}
        both |= {"steps": step_params, "name": model.steps[-1][0]}
    container.write(path, together, kind=PRODUCT, version=version, params=both)


def load(path, *, mmap=False, verify=None):
    """Return the (hasher, index) that :func:`save` wrote; :func:`load_encoder` does without the learner.

    Parameters
    ----------
    path : str, os.PathLike, bytes or binary file object
        A file object is read front to back, from where it stands to the end of the index. Bytes, a bytearray or a
        memoryview are a file's contents.
    mmap : bool
        Search the index where it lies, as ``HammingIndex.load`` does. Needs a path.
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

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import aphash
    >>> X = load_digits().data
    >>> hasher = aphash.APHash(32, random_state=0).fit(X)
    >>> index = aphash.HammingIndex(32)
    >>> ids = index.add(hasher.transform(X))
    >>> import io
    >>> file = io.BytesIO()
    >>> aphash.save(file, hasher, index)
    >>> hasher, index = aphash.load(file.getvalue())
    >>> len(index), len(hasher.codes_)
    (1797, 1797)
    """
    from aphash._learning.estimator import APHash

    def model(arrays, params):
        return APHash._from_file(path, arrays, params, MODEL_VERSION)

    hasher, index, step_arrays, params = _load(path, mmap, verify, model)
    if "steps" not in params:
        return hasher, index
    import aphash._steps as _steps

    try:
        steps, columns = _steps.from_file(step_arrays, params["steps"])
        if columns not in (None, hasher.n_features_in_):
            raise ValueError(f"a model of {hasher.n_features_in_} features behind steps that make {columns}")
        return _steps.joined(steps, params["name"], hasher), index
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{container.name_of(path)}: not the whole steps of a Pipeline: {error!r}") from None


def load_encoder(path, *, mmap=False, verify=None):
    """Return an encoder and the index of a file that :func:`save` wrote: what a service needs, with numpy alone.

    Learning is not loaded, nor scikit-learn imported, so the first call in a process takes a fraction of
    :func:`load`'s. ``Encoder.load`` opens the file of a model without an index.

    Parameters
    ----------
    path, mmap, verify
        As for :func:`load`.

    Returns
    -------
    tuple of (Encoder, HammingIndex)

    Raises
    ------
    OSError, ValueError
        As :func:`load`; and ValueError for a file of a Pipeline, whose steps need scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import aphash
    >>> X = load_digits().data
    >>> hasher = aphash.APHash(32, random_state=0).fit(X)
    >>> index = aphash.HammingIndex(32)
    >>> ids = index.add(hasher.transform(X))
    >>> import io
    >>> file = io.BytesIO()
    >>> aphash.save(file, hasher, index)
    >>> encoder, index = aphash.load_encoder(file.getvalue())
    >>> distances, ids = index.search(encoder.transform(X[0]), 3)
    >>> ids.shape
    (3,)
    """

    def model(arrays, params):
        return Encoder._from_file(path, arrays, params)

    encoder, index, _, params = _load(path, mmap, verify, model)
    refuse_steps(path, params)
    return encoder, index


def _load(path, mmap, verify, model):
    """Return (what model makes of the arrays and parameters of the model, index, the steps' arrays, all params)."""
    arrays, params, version = container.read(path, kind=PRODUCT, mmap=mmap, verify=verify)
    check_version(path, PRODUCT, version)
    name = container.name_of(path)
    parts = {"hasher": {}, "index": {}, "steps": {}}
    for full, each in arrays.items():
        part, _, own = full.partition(".")
        parts.setdefault(part, {})[own] = each
    if not isinstance(params.get("hasher"), dict) or not isinstance(params.get("index"), dict):
        raise ValueError(f"{name}: no parameters of a model and an index")
    made = model(parts["hasher"], params["hasher"])
    encoder = made if isinstance(made, Encoder) else made.encoder_
    check = not mmap if verify is None else verify
    index_version = min(version, _INDEX_VERSION)
    index = HammingIndex._of(index_file.from_file(path, parts["index"], params["index"], index_version, check))
    if index.n_bits != encoder.n_bits:
        raise ValueError(f"{name}: an index of {index.n_bits} bits, a model of {encoder.n_bits}")
    if index.fingerprint not in (None, encoder.fingerprint):
        raise ValueError(f"{name}: the index holds the codes of another model, as its fingerprint tells")
    return made, index, parts["steps"], params
