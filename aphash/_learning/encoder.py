"""The hash function of a fitted model: vectors to codes. Needs numpy only, so that a service starts at once."""

import hashlib
import sys
import warnings

import numpy as np

from aphash._common import container
from aphash._common.arrays import as_floats
from aphash._common.finite import check_finite
from aphash._common.threads import n_threads
from aphash._kernels import max_threads
from aphash._learning import _projection, item_encoder
from aphash._learning._source import Source
from aphash._learning.item_encoder import ItemEncoder
from aphash.codes import Origin, n_words, note

# Kinds of files, and the latest version of each. A model's: 2 has a Recipe, 3 the anchors of mode "scores", 4 numbers
# of items that those of 3 do not have. A product's: 3 has steps of a Pipeline, a Recipe or such anchors, 4 a model's 4;
# below, it is the version of the index.
MODEL, MODEL_VERSION = "APHash", 4
PRODUCT, PRODUCT_VERSION = "APHash+HammingIndex", 4

ARRAYS = ("coef_", "intercept_", "mean_")  # what a hash function is, with scale_
_FARTHEST = 1e30  # of a coordinate of a working vector: a projection of any length stays far below float32's 3e38
_SPLIT = 2_000_000  # multiply-adds that one thread does in 100 us


class Encoder:
    """What a fitted :class:`aphash.APHash` does with new vectors, without the learner; needs numpy alone.

    ``Encoder.load(path)`` opens the file of a model, or of a model with its index; ``aphash.load_encoder(path)`` gives
    the index, too; ``hasher.encoder_`` is that of a fitted model. Codes and projections are those of the model, bit for
    bit.

    Parameters
    ----------
    coef : ndarray of float64, shape (n_bits, d)
    intercept : ndarray of float64, shape (n_bits,)
    mean : ndarray of float64, shape (d,)
    scale : float
        ``coef_``, ``intercept_``, ``mean_`` and ``scale_`` of a fitted model. They become read-only.
    feature_names : sequence of str, optional
        Names of the columns that the model was fitted with.
    items : ItemEncoder, optional
        Of a model that learned scores, ``items_``: how items get their bits, from its anchors. Without it, bits are the
        signs of the projections.
    n_jobs : int, optional
        Threads; as for APHash. May be changed. A single row is encoded by one thread.

    Attributes
    ----------
    n_bits, n_features : int
    fingerprint : str
        Of the hash function: codes of encoders whose fingerprints differ must not be compared.
    coef, intercept, mean, scale, feature_names, n_jobs
        As given.

    Notes
    -----
    Holds 12 n_bits d bytes, the coefficients as given and packed for the kernels, and as much again while it is made;
    in mode "scores" 2 d + 4 n_bits bytes for each anchor beside it.
    It may be used by any number of threads, and in forked processes.

    Raises
    ------
    ValueError
        When the arrays do not fit each other.

    Examples
    --------
    >>> import io
    >>> from sklearn.datasets import load_digits
    >>> from aphash import APHash, Encoder
    >>> X, file = load_digits().data, io.BytesIO()
    >>> APHash(32, random_state=0).fit(X).save(file)
    >>> encoder = Encoder.load(file.getvalue())
    >>> encoder
    Encoder(n_bits=32, n_features=64)
    >>> encoder.transform(X[:5]).shape
    (5, 1)
    """

    __module__ = "aphash"  # where it is public: pickles and reprs say so

    def __init__(self, coef, intercept, mean, scale, *, feature_names=None, n_jobs=None, items=None):
        if np.ndim(coef) != 2:
            raise ValueError(f"coef must have shape (n_bits, d), got {np.shape(coef)}")
        r, d = coef.shape
        for name, array, shape in (("coef", coef, (r, d)), ("intercept", intercept, (r,)), ("mean", mean, (d,))):
            if array.dtype != np.float64 or array.shape != shape:
                raise ValueError(
                    f"arrays do not fit each other: {name} must be float64 of shape {shape}, got {array.dtype} of "
                    f"shape {array.shape}"
                )
        if not 0 < scale < np.inf:
            raise ValueError(f"scale must be positive, got {scale}")
        if feature_names is not None and (
            len(feature_names) != d or not all(isinstance(name, str) for name in feature_names)
        ):
            raise ValueError(f"feature_names must be {d} strings")
        for array in (coef, intercept, mean):
            array.setflags(write=False)  # what is packed of them, and their fingerprint, stay true
        self.coef, self.intercept, self.mean, self.scale = coef, intercept, mean, float(scale)
        self.feature_names, self.n_jobs = feature_names, n_jobs
        self.n_bits, self.n_features = coef.shape
        self.items = items
        self.fingerprint = fingerprint_of(coef, intercept, mean, self.scale, items)
        self._origin = Origin(self.n_bits, self.fingerprint)
        self._farthest = farthest(mean, self.scale)
        self._packed = None
        self._projection()  # at once: processes that are forked from here on share it

    @classmethod
    def load(cls, path):
        """Return the encoder of a file that ``APHash.save`` or ``aphash.save`` wrote.

        Parameters
        ----------
        path : str, os.PathLike, bytes or file object
            As for :meth:`aphash.APHash.load`. Of a file only the hash function is read, and only that is verified.

        Raises
        ------
        OSError, ValueError
            With the path and what is wrong, when it cannot be read, is not such a file, or not whole.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> X = load_digits().data
        >>> hasher = APHash(32, random_state=0).fit(X)
        >>> import io
        >>> from aphash import Encoder
        >>> file = io.BytesIO()
        >>> hasher.save(file)
        >>> Encoder.load(file.getvalue()).fingerprint == hasher.fingerprint_
        True
        """
        kinds = {MODEL: MODEL_VERSION, PRODUCT: PRODUCT_VERSION}
        own = [*item_encoder.ARRAYS, *item_encoder.KIND_ARRAYS]
        names = [*ARRAYS, *(f"items_{name}" for name in own)]
        wanted = {*names, *(f"hasher.{name}" for name in names)}
        kind, arrays, params, version = container.read_any(path, kinds, names=wanted)
        check_version(path, kind, version)
        if kind == PRODUCT:
            refuse_steps(path, params)
            params = params.get("hasher")
            arrays = {name.removeprefix("hasher."): each for name, each in arrays.items()}
        return cls._from_file(path, arrays, params)

    @classmethod
    def _from_file(cls, path, arrays, params):
        """Return the encoder of a model's arrays and parameters; ValueError with the path unless they are whole."""
        try:
            coef, intercept, mean = (arrays[name] for name in ARRAYS)
            names, n_jobs = params.get("feature_names_in_"), params["given"].get("n_jobs")
            names = None if names is None else np.array(names, object)
            scale = float(params["scale_"])
            items = None
            if "items_" in params:
                own = {name: arrays[f"items_{name}"] for name in item_encoder.ARRAYS}
                weights = _working_weights(coef, scale)
                if "items_kind_map" in arrays:
                    own |= {name: arrays[f"items_{name}"] for name in item_encoder.KIND_ARRAYS}
                    weights = own["weights"]
                items = ItemEncoder(weights, own, params["items_"])
            encoder = cls(coef, intercept, mean, scale, feature_names=names, n_jobs=n_jobs, items=items)
            if params.get("fingerprint_", encoder.fingerprint) != encoder.fingerprint:
                raise ValueError("its fingerprint is that of another hash function")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{container.name_of(path)}: not a whole APHash file: {error!r}") from None
        return encoder

    def __repr__(self):
        return f"Encoder(n_bits={self.n_bits}, n_features={self.n_features})"

    def __getstate__(self):  # what is packed is packed again
        names = ("coef", "intercept", "mean", "scale", "feature_names", "n_jobs", "items")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state):
        self.__init__(**state)

    def __dask_tokenize__(self):
        return type(self).__name__, self.fingerprint

    def transform(self, X):
        """Return the codes of X: the packed signs of the projections.

        Parameters
        ----------
        X : array_like of shape (n, d), or one row of shape (d,)
            What :meth:`aphash.APHash.fit` takes, data frames too.

        Returns
        -------
        ndarray of uint64, shape (n, n_words) or (n_words,)
            The same for a row whatever rows it comes with. Needs the result and a few MiB a thread.

        Raises
        ------
        TypeError, ValueError
            For another number of features, other names of columns, and whatever ``fit`` refuses: NaN, infinity, masked
            or missing values, texts, values so far from the learned ones that float32 does not hold their projections.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> X = load_digits().data
        >>> hasher = APHash(32, random_state=0).fit(X)
        >>> encoder = hasher.encoder_
        >>> bool((encoder.transform(X) == hasher.transform(X)).all())
        True
        """
        return self._transform(X, self.n_jobs)

    def decision_function(self, X):
        """Return the projections of X, whose signs are the codes.

        Parameters
        ----------
        X : array_like of shape (n, d), or one row of shape (d,)

        Returns
        -------
        ndarray of float32, shape (n, n_bits) or (n_bits,)
            ``X @ coef.T + intercept``; +-1 is what the hash function was fitted to.

        Raises
        ------
        TypeError, ValueError
            As :meth:`transform`.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> X = load_digits().data
        >>> hasher = APHash(32, random_state=0).fit(X)
        >>> hasher.encoder_.decision_function(X[0]).shape
        (32,)
        """
        return self._decision_function(X, self.n_jobs)

    def query_projections(self, X):
        """Return the weights by which X is searched for: queries of :meth:`aphash.HammingIndex.search`.

        A query is known exactly, so its weights say more than its code does. Of most models they are the numbers of
        :meth:`decision_function`. Of a model that learned scores (modes "scores" and "semantic-scores") they start
        there. Then they move: a query is an anchor whose h descends on its own KL(P || Q) while all codes are fixed, as
        in the paper. P is over those anchors of the model that are nearest to the query. It takes as many steps, 4 at
        most, as fit has found to help: none on some data, and none where X has more than 5 rows an anchor. They cost
        about as much as transform does. decision_function leaves them out, which is faster at the same recall where
        candidates are ranked by vectors afterwards, and finds more where a database has grown to many times the rows
        of fit.

        Parameters
        ----------
        X : array_like of shape (n, d), or one row of shape (d,)

        Returns
        -------
        ndarray of float32, shape (n, n_bits) or (n_bits,)
            The same for a row whatever rows it comes with. Needs the result, and 4 n_bits n_candidates bytes (200
            candidates) and some more a thread where scores were learned.

        Raises
        ------
        TypeError, ValueError
            As :meth:`transform`.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> X = load_digits().data
        >>> hasher = APHash(32, random_state=0).fit(X)
        >>> hasher.encoder_.query_projections(X[:3]).dtype
        dtype('float32')
        """
        return self._query_projections(X, self.n_jobs)

    # -- for the package: with the caller's n_jobs, and of arrays that are checked already ----------------------------

    def _transform(self, X, n_jobs):
        plain = self.feature_names is None and self.items is None
        codes = self._projection().encode_row(X, self._farthest) if plain else None
        if codes is None:
            rows, threads, one = self._read(X, n_jobs)
            codes = encode(self, rows, threads)
            codes = codes[0] if one else codes
        return note(codes, self._origin)

    def _decision_function(self, X, n_jobs):
        out = self._projection().project_row(X, self._farthest) if self.feature_names is None else None
        if out is None:
            rows, threads, one = self._read(X, n_jobs)
            out = project(self, rows, threads)
            out = out[0] if one else out
        return out

    @property
    def _moves_queries(self):
        """Whether the weights of a query are other than its projections."""
        return self.items is not None and bool(self.items.numbers.get("query_steps"))

    def _query_projections(self, X, n_jobs):
        if not self._moves_queries:
            return self._decision_function(X, n_jobs)
        rows, threads, one = self._read(X, n_jobs)
        out = query_weights(self, rows, threads)
        return out[0] if one else out

    def _is_of(self, fitted):
        """Whether this is the encoder of fitted attributes: the very same arrays."""
        return (
            self.coef is fitted.get("coef_")
            and self.intercept is fitted.get("intercept_")
            and self.mean is fitted.get("mean_")
            and self.scale == fitted.get("scale_")
            and self.feature_names is fitted.get("feature_names_in_")
            and self.items is fitted.get("items_")
        )

    def _projection(self):
        """Return the hash function packed for the instruction set in use; two threads may pack it, to the same."""
        packed = self._packed
        if packed is None or not packed.is_current():
            W = _working_weights(self.coef, self.scale)
            bias = np.ascontiguousarray(self.intercept + self.coef @ self.mean, np.float32)
            packed = self._packed = _projection.Projection(W, bias, self.mean, self.scale)
        return packed

    def _check(self, rows, threads):
        check_finite(rows, threads, self._farthest)

    def _read(self, X, n_jobs):
        """Return X as float rows in C order, checked, how many threads they are worth, and whether X was one vector."""
        if type(X) is not np.ndarray:
            refuse_sparse(X)
            self._check_names(names_of(X))
        elif self.feature_names is not None:
            self._check_names(None)
        array = as_floats(X, "X")
        one = array.ndim == 1
        rows = np.ascontiguousarray(array[np.newaxis] if one else array)
        if array.ndim == 0:
            raise ValueError(f"X must have shape (n, d) or (d,), got a scalar: {X!r}. Reshape your data")
        if array.ndim > 2:
            raise ValueError(f"X must have shape (n, d): found array with dim {array.ndim}, while dim <= 2 is required")
        for axis, what in enumerate(("sample(s)", "feature(s)")):
            if rows.shape[axis] == 0:
                raise ValueError(
                    f"X: Found array with 0 {what} (shape={array.shape}) while a minimum of 1 is required by APHash."
                )
        if rows.shape[1] != self.n_features:
            raise ValueError(
                f"X has {rows.shape[1]} features, but APHash is expecting {self.n_features} features as input."
            )
        work = len(rows) * self.n_features * self.n_bits
        threads = n_threads(n_jobs, max_threads(), split=len(rows) > 1 and work > _SPLIT)
        self._check(rows, threads)
        return rows, threads, one

    def _check_names(self, names):
        """Warn, or raise ValueError, in scikit-learn's words, where the columns' names are not those of fit."""
        fitted = self.feature_names
        if names is None or fitted is None:
            if names is not None:
                warnings.warn("X has feature names, but APHash was fitted without feature names", stacklevel=5)
            elif fitted is not None:
                warnings.warn(
                    "X does not have valid feature names, but APHash was fitted with feature names", stacklevel=5
                )
            return
        if list(fitted) == names:
            return
        message = "The feature names should match those that were passed during fit.\n"
        unseen, missing = sorted(set(names) - set(fitted)), sorted(set(fitted) - set(names))
        for title, which in (
            ("Feature names unseen at fit time:\n", unseen),
            ("Feature names seen at fit time, yet now missing:\n", missing),
        ):
            if which:
                message += title + "".join(f"- {name}\n" for name in which[:5]) + "- ...\n" * (len(which) > 5)
        if not unseen and not missing:
            message += "Feature names must be in the same order as they were in fit.\n"
        raise ValueError(message)


def _working_weights(coef, scale):
    """Return the map (d, n_bits) of working vectors, float32."""
    return np.ascontiguousarray((coef / scale).T, np.float32)


def encode(encoder, X, threads):
    """Return the codes (n, n_words) of float rows in C order that are known to be good."""
    codes = np.empty((len(X), n_words(encoder.n_bits)), np.uint64)
    if encoder.items is None:
        encoder._projection().encode(X, codes, threads)
    else:
        encoder.items.encode(Source(X, None, encoder.mean, encoder.scale), codes, threads)
    return codes


def query_weights(encoder, X, threads):
    """Return the weights (n, n_bits) of queries, float rows in C order that are known to be good."""
    if not encoder._moves_queries:
        return project(encoder, X, threads)
    out = np.empty((len(X), encoder.n_bits), np.float32)
    encoder.items.query_weights(Source(X, None, encoder.mean, encoder.scale), out, threads)
    return out


def project(encoder, X, threads):
    """Return the projections (n, n_bits) of float rows in C order that are known to be good."""
    out = np.empty((len(X), encoder.n_bits), np.float32)
    encoder._projection().project(X, out, threads)
    return out


def farthest(mean, scale):
    """Return how large a value of X may be: working vectors are float32, and so are their projections."""
    return _FARTHEST / scale - np.abs(mean).max()  # float64: a Python float would be cast to X's dtype


def fingerprint_of(coef, intercept, mean, scale, items=None):
    """Return 32 hexadecimal digits that tell this hash function from any other: the same for the same bits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in zip(ARRAYS, (coef, intercept, mean), strict=True):
        array = np.ascontiguousarray(array, "<f8")
        digest.update(f"{name}{array.shape}".encode() + array.tobytes())
    digest.update(float(scale).hex().encode())
    if items is not None:
        items.fingerprint(digest)
    return digest.hexdigest()


def check_version(path, kind, version):
    """Raise ValueError for a file of a later version than this aphash reads."""
    what, latest = ("a model's file", MODEL_VERSION) if kind == MODEL else ("such a file", PRODUCT_VERSION)
    if not 1 <= version <= latest:
        raise ValueError(f"{container.name_of(path)}: version {version} of {what}; this aphash reads 1 to {latest}")


def refuse_steps(path, params):
    """Raise ValueError for a file of a whole Pipeline: its model alone would encode what its steps have not changed."""
    if "steps" in params:
        raise ValueError(
            f"{container.name_of(path)}: in front of the model are the steps of a Pipeline, which need scikit-learn: "
            "aphash.load(path) opens both"
        )


def refuse_sparse(X):
    """Raise TypeError for a sparse matrix; scipy is not imported to find out that there are none."""
    sparse = sys.modules.get("scipy.sparse")
    if sparse is not None and sparse.issparse(X):
        raise TypeError(
            "X: Sparse data was passed, but dense data is required. Use '.toarray()' to convert to a dense numpy array."
        )


def names_of(X):
    """Return the names of a data frame's columns (pandas, polars, pyarrow), or None where they are no texts."""
    if isinstance(X, np.ndarray | list | tuple):
        return None
    names = getattr(X, "column_names", None)
    names = getattr(X, "columns", None) if names is None else names
    try:
        names = None if names is None else list(names)
    except TypeError:  # of something that is no data frame
        return None
    if not names:
        return None
    texts = [isinstance(name, str) for name in names]
    if any(texts) and not all(texts):
        raise TypeError(
            "X: Feature names are only supported if all input features have string names: "
            "pass X.columns = X.columns.astype(str), or an array"
        )
    return names if all(texts) else None
