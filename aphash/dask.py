"""The same two classes over dask arrays, to learn and search past one machine. Needs ``pip install aphash[dask]``.

Rows are rechunked to runs of the blocks of ``aphash._learning.blocks``, which depend on the number of rows only. The
functions that sum over blocks are those of one machine, and the sums are added in the same order. So the codes, the
thresholds and the hash function have the same bits as those of :class:`aphash.APHash`, whatever the chunks, the number
of workers and the schedule, on one kind of CPU and with one set of libraries. Blocks live on the workers as results of
pure tasks, and dask makes them again when a worker is lost.
"""

import copy

import numpy as np
from sklearn.utils.validation import check_is_fitted

from aphash import _kernels
from aphash._common import container, threads
from aphash._common.arrays import as_array, whole_as_float64
from aphash._learning import estimator, scores
from aphash._learning.descent import learn
from aphash._learning.encoder import encode, farthest, project, query_weights
from aphash._measuring.recall import ExpectedRecall
from aphash.codes import n_words, note_origin

try:
    import dask
    import dask.array as da
except ImportError:
    raise ImportError("aphash.dask needs dask: pip install 'aphash[dask]'") from None

from aphash._distributed.index import HammingIndex, known_chunks
from aphash._distributed.training_data import DaskRows, check_chunk, compute

__all__ = ["APHash", "HammingIndex"]


class APHash(estimator.APHash):
    """:class:`aphash.APHash` for dask arrays: the same parameters, the same attributes, the same bits.

    ``fit`` takes a dask array of shape (n, d), chunked in any way; unknown chunk sizes are computed first. ``codes_``
    is a persisted dask array, which is never gathered. ``transform`` and ``decision_function`` take dask arrays and
    return lazy ones. ``n_jobs`` has no effect, since a task uses one thread, and dask runs the tasks.

    Notes
    -----
    Uses the scheduler that dask uses: threads, or the workers of the current ``distributed.Client``. In an iteration,
    m (2 n_bits + 4) numbers come back for every four parts, each of which is some MB of rows, and 2 m n_bits numbers go
    to each worker. In a round, two lists of about 1.3 n_anchors n_neighbors candidates come back. At the end
    ``expected_recall_`` is measured where fit is called, on at most 100,000 rows and 64 million numbers of X, which are
    gathered for it. A worker needs 12 n_bits + 4 d bytes for each training row that it holds.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from aphash.dask import APHash
    >>> X = da.from_array(np.random.default_rng(0).standard_normal((1000, 16)), chunks=(250, 16))
    >>> hasher = APHash(16, random_state=0).fit(X)
    >>> hasher.codes_.shape
    (1000, 1)
    >>> local = hasher.to_local()  # an aphash.APHash with the same bits
    """

    def fit(self, X, y=None):
        """Learn from the rows of a dask array; see :meth:`aphash.APHash.fit`.

        Raises
        ------
        TypeError
            When X is not a dask array of real numbers.
        ValueError
            As on one machine; for NaN and infinity the chunk of rows is named.

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import APHash
        >>> X = da.from_array(np.random.default_rng(0).standard_normal((1000, 16)), chunks=(250, 16))
        >>> hasher = APHash(16, random_state=0).fit(X)
        >>> hasher.coef_.shape
        (16, 16)
        """
        self._check_params()
        rng = self._random_state()
        look = copy.deepcopy(rng)
        X = _known(X)
        n = len(X)
        if n < 2:
            raise ValueError(f"Found array with {n} sample(s) while a minimum of 2 is required by APHash")
        n_train = self._n_train(n)
        settings = self._settings(n_train)
        rows, others = None, np.zeros(0, np.int64)
        if n_train < n:
            rows = self._draw_learning(n, n_train, rng)
            others = estimator.others_than(rows, n)
            for _ in compute([dask.delayed(check_chunk)(each, at) for each, at in _located(X)]):
                pass
        with threads.one_blas_thread():
            training = DaskRows(X if rows is None else X[rows], scores.n_relaxed(settings))
            sample = X[self._sample(n, X.shape[1], look)].compute()
            kept = self._ordinary_rows(training, sample)
            if kept is not None:
                rows = kept if rows is None else rows[kept]
                settings = self._settings(len(rows))
                training = DaskRows(X[rows], scores.n_relaxed(settings))
            if settings.objective == "scores":  # sums come from the workers; what is of anchors alone is done here
                own_threads = threads.n_threads(self.n_jobs, _kernels.max_threads())
                progress = estimator.ScoreProgress(self.verbose, settings, training.n)
                with progress:
                    found = scores.learn(training, settings, rng, progress, n, own_threads)
                all_by_encoder = True
            else:
                progress = estimator.FitProgress(self.verbose, settings, training.n)
                with progress:
                    found = learn(training, settings, rng, progress)
                all_by_encoder = bool(self._safeguard(found, training, sample, look))
        fitted = self._attributes(found, training, rows)
        encoder = estimator.encoder_of(fitted)
        if settings.objective == "scores":
            self._count_codes(sample, encoder, own_threads)
        if all_by_encoder:
            codes = _encode(X, encoder)
        else:
            codes = training.codes()
            if rows is not None:
                codes = _replace(_encode(X, encoder), rows, codes)
        fitted["codes_"] = codes.persist()
        fitted["expected_recall_"] = self._expected_recall(X, encoder, fitted["codes_"], all_by_encoder, others, look)
        progress.tell(fitted["expected_recall_"])
        for name in estimator.NOT_OF_ALL_MODES:
            vars(self).pop(name, None)
        vars(self).update(fitted, n_features_in_=X.shape[1], _encoder=encoder)
        return self

    def _expected_recall(self, X, encoder, codes, all_by_encoder, others, rng):
        """As of one machine, where fit is called: among at most 64 million numbers, some chunks at a time."""
        against, own_rows = estimator.measured_rows(len(X), X.shape[1], others, rng)
        if not len(own_rows):
            return ExpectedRecall()
        some = X[against] if len(against) < len(X) else X
        n_threads = threads.n_threads(self.n_jobs, _kernels.max_threads())
        gathered = np.concatenate(list(compute(list(some.to_delayed().ravel()))))
        if all_by_encoder:
            codes = codes[against].compute()
        else:
            codes = encode(encoder, gathered, n_threads)
        return estimator.recall_of(encoder, gathered, own_rows, codes, n_threads)

    def _to_file(self):
        """As on one machine. A dask array codes_ is computed some chunks at a time while it is written."""
        arrays, params = super()._to_file()
        codes = arrays["codes_"]
        if isinstance(codes, da.Array):
            chunks = [dask.delayed(np.asarray)(each) for each in codes.to_delayed().ravel()]
            nbytes = 8 * codes.shape[1] * max(codes.chunks[0])
            arrays["codes_"] = container.Chunks(np.dtype(np.uint64), codes.shape, lambda: compute(chunks, nbytes))
        return arrays, params

    def to_local(self):
        """Return an :class:`aphash.APHash` with the same parameters and results, for numpy arrays.

        Returns
        -------
        aphash.APHash
            Its ``codes_`` are gathered: 8 n_words bytes of memory for each row that was fitted. Where that is too much,
            ``encoder_`` encodes numpy arrays, too, and :meth:`save` writes codes some chunks at a time.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import APHash
        >>> X = da.from_array(np.random.default_rng(0).standard_normal((1000, 16)), chunks=(250, 16))
        >>> hasher = APHash(16, random_state=0).fit(X)
        >>> hasher.to_local().codes_.shape
        (1000, 1)
        """
        encoder, local = self.encoder_, estimator.APHash(**self.get_params(deep=False))
        fitted = {name: value for name, value in vars(self).items() if name.endswith("_")}
        codes = note_origin(np.array(self.codes_), encoder.n_bits, encoder.fingerprint)
        vars(local).update(fitted, codes_=codes, _encoder=encoder)
        return local

    def transform(self, X):
        """Return the codes of a dask array, lazily: a dask array of uint64, shape (n, n_words).

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import APHash
        >>> X = da.from_array(np.random.default_rng(0).standard_normal((1000, 16)), chunks=(250, 16))
        >>> hasher = APHash(16, random_state=0).fit(X)
        >>> hasher.transform(X).compute().shape
        (1000, 1)
        """
        return _encode(self._checked(X), self.encoder_)

    def query_projections(self, X):
        """Return the weights by which queries are searched for, lazily; see :meth:`aphash.Encoder.query_projections`.

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import APHash
        >>> X = da.from_array(np.random.default_rng(0).standard_normal((1000, 16)), chunks=(250, 16))
        >>> hasher = APHash(16, random_state=0).fit(X)
        >>> hasher.query_projections(X[:3]).compute().shape
        (3, 16)
        """
        return _by_rows(self._checked(X), self.encoder_, query_weights, self.encoder_.n_bits, np.float32)

    def decision_function(self, X):
        """Return the projections of a dask array, lazily: a dask array of float32, shape (n, n_bits).

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import APHash
        >>> X = da.from_array(np.random.default_rng(0).standard_normal((1000, 16)), chunks=(250, 16))
        >>> hasher = APHash(16, random_state=0).fit(X)
        >>> hasher.decision_function(X[:3]).compute().shape
        (3, 16)
        """
        return _project(self._checked(X), self.encoder_)

    def score(self, X, y=None):
        """Return how well codes of a dask array keep neighbours: the number that :meth:`aphash.APHash.score` returns.

        Examples
        --------
        >>> import dask.array as da
        >>> import numpy as np
        >>> from aphash.dask import APHash
        >>> X = da.from_array(np.random.default_rng(0).standard_normal((1000, 16)), chunks=(250, 16))
        >>> hasher = APHash(16, random_state=0).fit(X)
        >>> 0 < hasher.score(X) < 1
        True
        """
        return super().score(_known(X), y)

    def _take(self, X, rows):
        return X[rows].compute()

    def _checked(self, X):
        check_is_fitted(self)
        X = _array(X)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {X.shape[1]} features, but APHash is expecting {self.n_features_in_} features")
        return X.rechunk({1: -1})


def _array(X):
    """Return X as float16, float32 or float64, whichever holds it. Wide integers become float64: X is not read yet."""
    if not isinstance(X, da.Array):
        advice = "aphash.APHash takes numpy arrays"
        if hasattr(X, "to_dask_array"):
            advice = "pass X.to_dask_array(lengths=True)"
        raise TypeError(f"X must be a dask array, got {type(X).__name__}: {advice}")
    if X.ndim != 2:
        raise ValueError(f"X must have shape (n, d), got {X.ndim} dimension(s)")
    if X.dtype.kind not in "fiub":
        raise TypeError(f"X must hold real numbers, got dtype {X.dtype}")
    kind, size = X.dtype.kind, X.dtype.itemsize
    dtype = np.dtype(np.float64)
    if kind == "f":
        dtype = np.dtype(f"f{min(size, 8)}")
    elif kind == "b" or size <= 2:
        dtype = np.dtype(np.float32)
    plain = type(X._meta) is np.ndarray
    if X.dtype == dtype and X.dtype.isnative and plain:
        return X
    return X.map_blocks(_as_floats, dtype, dtype=dtype, meta=np.empty((0, 0), dtype))


def _as_floats(block, dtype):
    block = as_array(block, "X")  # masks are refused
    return whole_as_float64(block, "X") if block.dtype.kind in "iu" and dtype == np.float64 else block.astype(dtype)


def _known(X):
    X = known_chunks(_array(X))
    if X.shape[1] == 0:
        raise ValueError("Found array with 0 feature(s) while a minimum of 1 is required by APHash")
    return X.rechunk({1: -1})


def _located(X):
    """Yield (delayed chunk, its first row) of the chunks of rows."""
    return zip(X.to_delayed().ravel(), np.concatenate([[0], np.cumsum(X.chunks[0])])[:-1], strict=True)


# -- the hash function ------------------------------------------------------------------------------------------------


def _encode(X, encoder):
    return _by_rows(X, encoder, encode, n_words(encoder.n_bits), np.uint64)


def _project(X, encoder):
    return _by_rows(X, encoder, project, encoder.n_bits, np.float32)


def _by_rows(X, encoder, function, width, dtype):
    if encoder.items is not None:  # the anchors are megabytes, so they are one task of the graph and not in each task
        encoder = dask.delayed(encoder)
    return X.map_blocks(
        _hash_block, encoder, function, dtype=dtype, chunks=(X.chunks[0], (width,)), meta=np.empty((0, width), dtype)
    )


def _hash_block(block, encoder, function, block_info=None):
    block = as_array(block, "X")
    limit = farthest(encoder.mean, encoder.scale)
    check_chunk(block, block_info[0]["array-location"][0][0], block_info[0]["chunk-location"][0], limit)
    return function(encoder, np.ascontiguousarray(block), 1)


def _replace(codes, rows, learned):
    """Return codes with those of the rows replaced by the learned ones: each chunk takes its own."""
    edges = np.concatenate([[0], np.cumsum(codes.chunks[0])])
    cuts = np.searchsorted(rows, edges)
    parts = []
    for chunk, start, a, b in zip(codes.to_delayed().ravel(), edges[:-1], cuts[:-1], cuts[1:], strict=True):
        size = int(edges[len(parts) + 1] - start)
        part = dask.delayed(_put)(chunk, rows[a:b] - start, learned[a:b])
        parts.append(da.from_delayed(part, (size, codes.shape[1]), np.uint64))
    return da.concatenate(parts)


def _put(codes, where, values):
    codes = codes.copy()
    codes[where] = values
    return codes
