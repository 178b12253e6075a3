"""APHash, the estimator: checks what it is given, resolves the mode's defaults, calls the method, keeps the results."""

import contextlib
import copy
import numbers
import re
import warnings

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import _safe_indexing, check_array, check_random_state
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data

from aphash._common import container, threads
from aphash._common.arrays import as_floats, shown
from aphash._common.checks import check_count
from aphash._common.finite import check_finite
from aphash._common.progress import ProgressBar
from aphash._kernels import max_threads
from aphash._learning import model_file, recipe, safeguard, scores
from aphash._learning.blocks import draw_rows
from aphash._learning.descent import learn
from aphash._learning.encoder import ARRAYS, MODEL, Encoder, encode, farthest, fingerprint_of, query_weights
from aphash._learning.training_data import Rows
from aphash._measuring.recall import ExpectedRecall, expected_recall
from aphash.codes import check_n_bits, n_words, note_origin, pack, unpack_codes

_SIZES = 1e-12, 1e12  # of one over the size of vectors, whose float32 distances are exact enough as they are
TRAIN_ROWS = 1_000_000  # what n_train="auto" learns from at most
_HELD_OUT, _HELD_OUT_FROM = 300, 6000  # rows that measure the recall; of fewer rows than the second all learn
_MEASURED_ROWS, _MEASURED_NUMBERS = 100_000, 1 << 26  # among which held-out rows are searched for, at most
_COUNTED = 2500  # rows whose distinct codes are counted


class APHash(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learn compact binary codes without labels: Anchor-based Probability Hashing.

    A random set of anchors, the neighbours of each within a threshold (P), and the same neighbourhoods among binary
    codes (Q): codes are moved until Q resembles P, then a linear hash function is fitted for new vectors. The modes
    repeat this in short bursts between re-projections, which retrieves better than the published single descent;
    ``mode="paper"`` is the publication.

    Every parameter that is "auto" takes the mode's value; a value that is given wins over the mode's.

    Parameters
    ----------
    n_bits : int, default=64
        Length of the codes, 1 to 65,536. With more bits than X has independent directions, the directions are spread
        over all bits, and a warning is given. Above 512 bits rotations are made in groups of at most 256.
    mode : {"semantic", "neighbors", "scores", "semantic-scores", "paper"} or Recipe, default="semantic"
        "semantic": items of the same kind get near codes. "neighbors": the true nearest neighbours do. "scores": the
        most of the true nearest neighbours are found by weighted queries,
        ``index.search(hasher.query_projections(Q), k)``; not by codes. "semantic-scores": by the same queries, items of
        the kind are found as by "semantic", and far more of the true neighbours.
        "paper": the method as published. An :class:`aphash.Recipe` is a mode of your own; it has the parameters that
        only study the method, too.
    n_anchors : int or "auto"
        m; at most the number of training rows. auto: 300 (paper: 500, scores: 20,000), or all rows where there are
        fewer. Where scores are learned the model keeps them, as new items are encoded by their nearest anchors.
    n_neighbors : int, float or "auto"
        k of the thresholds: the neighbourhood that is learned; a float is a share of the training rows. Larger means
        more of the kind and less of the nearest neighbours. auto: 0.5 %, but at least 100 (neighbors: 50);
        paper: 5 %; at most a quarter of the rows. scores: 199 anchors, at most a quarter of them.
    q_scale : float or "auto"
        s in q ~ (1 + g/s)^-a, in bits. auto: 1, neighbors: n_bits / 8.
    q_power : float or "auto"
        a. auto: 2, neighbors: 4, paper: 1.
    quantization : float or "auto"
        lambda, the weight of the quantisation loss J1 in J = J0 + lambda J1. auto: 0.3 n_anchors, paper: 0.3.
    ridge : float, "gcv" or "auto"
        alpha of the hash function, as a share of the mean eigenvalue of [X, 1]^T [X, 1]; "gcv": by generalised
        cross-validation (up to 4,096 features). auto: 0.01.
    last_ridge : float, "gcv" or "auto"
        The same for the last round, whose hash function new vectors meet. auto: 0.1, neighbors and paper: 0.01; where
        ridge is given, as ridge.
    n_rounds : int or "auto"
        auto: 9, neighbors: 8, paper: 1.
    max_iter : int or "auto"
        Iterations of a round, at most. auto: 5, neighbors: 10, paper: 500. 0: no descent, rounds of rotation and
        re-projection alone, which on sentence embeddings find as many of the kind or more (with ``whitening=0``).
    learning_rate : float or "auto"
        Of the first iteration of a round; it falls to 2 % of that by a cosine. auto: 0.1, neighbors and
        paper: 0.05.
    whitening : float or "auto"
        The principal directions that codes begin with are divided by their deviations to this power, from 0 (as they
        are) to 1 (all alike). auto: 0.75, neighbors: 0; paper begins with random codes.
    n_train : int or "auto"
        Rows of X, drawn at random, that learn; the others are encoded, and up to 300 of them measure
        ``expected_recall_``. auto: 1,000,000 at most, and of 6,000 rows or more all but 300. Where all rows learn
        (``n_train=len(X)``), nothing is measured.
    tol : float or "auto"
        Stop a round when J falls by less than this share over 10 iterations; 0: never. auto: 0, paper: 1e-4.
    random_state : int, RandomState or Generator instance, or None, default=None
        The same number gives the same codes, bit for bit, whatever n_jobs, on the same kind of CPU and libraries. An
        instance is drawn from by each fit, so the next one gives other codes.
    n_jobs : int or None, default=None
        Threads. None: all CPUs, or ``OMP_NUM_THREADS``; negative: CPUs + 1 + n_jobs.
    verbose : int or "auto", default="auto"
        Show a progress bar with J on the standard error, and ``expected_recall_`` at its end. auto: for a fit that
        takes more than 3 seconds, at a terminal or in a notebook, where it is a widget.

    Attributes
    ----------
    codes_ : ndarray of uint64, shape (n, n_words)
        Learned codes of the training rows, packed: the index of a database that X is. Rows that did not learn, with
        ``n_train`` less than n, have the codes that transform gives them.
    coef_, intercept_ : ndarray of float64, shapes (n_bits, d) and (n_bits,)
        The hash function: projections are ``X @ coef_.T + intercept_``. Where scores are learned, a query's weights
        start from them (:meth:`query_projections`).
    items_ : ItemEncoder
        Of modes "scores" and "semantic-scores" only: how items get their bits.
    mean_, scale_ : ndarray of float64, shape (d,), and float
        Centre and scale of the training rows; projections are computed from the centred vectors.
    anchors_ : ndarray of shape (m, d)
        Of the last round, as they are in X; ``anchor_indices_`` are their rows. Not where scores are learned.
    anchor_codes_ : ndarray of uint64, shape (m, n_words)
        The packed signs of H.
    thresholds_ : ndarray of float64, shape (m,)
        theta, in units of X. Not where scores are learned.
    objective_ : structured ndarray of "round", "iteration", "J0", "J1"
        One element an iteration, before its step. Of scores, J0 is that of 500 anchors, for all of them.
    n_iter_ : int
        Iterations done, of all rounds.
    expected_recall_ : dict of int to ndarray of shape (g, 2)
        What to expect of ``index.search(hasher.query_projections(Q), candidates)`` on the codes of transform: for
        k = 1, 10 and 100 numbers of candidates (1, 2, 3, 5, 7, 10, ... up to 10,000) and the share of the true k
        nearest among them, by Euclidean distance: the recall after they are ranked anew by vectors.
        ``expected_recall_.at(100, k=10)`` tells one. Measured with ``n_queries`` rows that did not learn, among ``n``
        rows: X, or 100,000 of its rows at most (fewer of more than 671 features); of more rows, as many candidates
        find less. Empty where all rows learned: of fewer than 6,000, unless ``n_train`` is given.
    fingerprint_ : str
        Of the hash function: models whose fingerprints differ make codes that must not be compared.
    n_features_in_ : int

    Notes
    -----
    Needs 12 n n_bits bytes (B and Adam's two moments), about 30 n_anchors n_neighbors bytes, 24 d^2 bytes up to 4,096
    features, and 200 MiB at most beside X; X itself is read by blocks and never copied where it is C-contiguous
    float16, float32 or float64 (a memory map, too). Mode "scores" needs 4 n_anchors (2 d + 5 n_bits + 8 n_neighbors)
    bytes instead of the first two, and "semantic-scores" what "semantic" needs for twice the bits before it, and then
    as much as "scores" with 2 n_bits for d. There is no ``partial_fit``: every round reads every row.

    Rows that are so far from the others that they would own every mean do not learn; they have the codes that transform
    gives them. And the hash function is compared with random projections on a sample of the rows (up to 4,096 bits):
    where its codes are worse, as many bits as need be are replaced by random hyperplanes, and ``codes_`` are those of
    transform. Ordinary data are not touched by either.

    References
    ----------
    Chen, Wang, Cheung: Anchor-based Probability Hashing, 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from aphash import APHash, HammingIndex
    >>> X = load_digits().data
    >>> hasher = APHash(n_bits=32, random_state=0).fit(X)
    >>> index = HammingIndex(32)
    >>> ids = index.add(hasher.transform(X))
    >>> distances, ids = index.search(hasher.transform(X[:1]), k=5)
    """

    __module__ = "aphash"  # where it is public: pickles and reprs say so

    def __init__(
        self,
        n_bits=64,
        *,
        mode="semantic",
        n_anchors="auto",
        n_neighbors="auto",
        q_scale="auto",
        q_power="auto",
        quantization="auto",
        ridge="auto",
        last_ridge="auto",
        n_rounds="auto",
        max_iter="auto",
        learning_rate="auto",
        whitening="auto",
        n_train="auto",
        tol="auto",
        random_state=None,
        n_jobs=None,
        verbose="auto",
    ):
        self.n_bits = n_bits
        self.mode = mode
        self.n_anchors = n_anchors
        self.n_neighbors = n_neighbors
        self.q_scale = q_scale
        self.q_power = q_power
        self.quantization = quantization
        self.ridge = ridge
        self.last_ridge = last_ridge
        self.n_rounds = n_rounds
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.whitening = whitening
        self.n_train = n_train
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    # -- parameters ---------------------------------------------------------------------------------------------------

    def _check_params(self):
        """Raise TypeError or ValueError for whatever can be judged without X."""
        check_n_bits(self.n_bits)
        scores = recipe.recipe_of(self.mode).objective == "scores"
        for name, value in self._given().items():
            recipe.CHECKS[name](name, value, ("auto",))
            if scores and name not in recipe.SCORES_USE:
                raise ValueError(f"{name} has no meaning where scores are learned; expected 'auto', got {shown(value)}")
        if not _is_auto(self.n_train):
            check_count(self.n_train, "n_train", 2)

    def _given(self):
        """Return the parameters that win over the mode's."""
        values = {name: getattr(self, name) for name in self._get_param_names() if name in recipe.CHECKS}
        return {name: value for name, value in values.items() if not _is_auto(value)}

    def _goal(self):
        return recipe.recipe_of(self.mode).goal

    def _random_state(self):
        if isinstance(self.random_state, np.random.Generator):
            return np.random.RandomState(self.random_state.integers(1 << 32, size=16, dtype=np.uint32))
        try:
            return check_random_state(self.random_state)
        except ValueError:
            given = shown(self.random_state)
            raise ValueError(
                f"random_state must be an integer, a RandomState, a Generator or None, got {given}"
            ) from None

    def _settings(self, n):
        """Return the Settings for n training rows: the given values, and the mode's for "auto"."""
        return recipe.resolve(recipe.recipe_of(self.mode), self._given(), self.n_bits, n)

    # -- learning -----------------------------------------------------------------------------------------------------

    def fit(self, X, y=None):
        """Learn codes and hash function from the rows of X.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Real numbers, n >= 2. C-contiguous float16, float32 and float64, memory maps too, are read in place;
            anything else is copied first: wider floats, lists and objects to float64, integers to float32 where that
            is exact and else to float64.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            For a parameter or an X that cannot be used, before anything is learned: NaN, infinity, masked or missing
            values, texts, integers that float64 does not hold, values so far from the others that float32 does not
            hold their projections, names of some columns only. An estimator that was fitted
            before stays as it was, also when the fit is interrupted.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> hasher = APHash(32, random_state=0).fit(load_digits().data)
        >>> hasher.codes_.shape, hasher.codes_.dtype
        ((1797, 1), dtype('uint64'))
        """
        self._check_params()
        rng = self._random_state()
        look = copy.deepcopy(rng)  # what is looked at changes no draw of the learner
        n_threads = threads.n_threads(self.n_jobs, max_threads())
        checked = checked_rows(X, self)
        with _naming_X():
            columns = _columns(X)
        n = len(checked)
        n_train = self._n_train(n)
        settings = self._settings(n_train)
        rows, others = None, np.zeros(0, np.int64)
        if n_train < n:
            check_finite(checked, n_threads)
            rows = self._draw_learning(n, n_train, rng)
            others = others_than(rows, n)

        with threads.one_blas_thread():
            training = Rows(checked, rows, n_threads)
            sample = checked[self._sample(n, checked.shape[1], look)]
            kept = self._ordinary_rows(training, sample)
            if kept is not None:
                rows = kept if rows is None else rows[kept]
                training, settings = Rows(checked, rows, n_threads), self._settings(len(rows))
            if rows is not None:
                check_finite(checked, n_threads, farthest(training.mean, training.scale))
            if settings.objective == "scores":
                progress = ScoreProgress(self.verbose, settings, training.n)
                with progress:
                    found = scores.learn(training, settings, rng, progress, n)
                codes = None
            else:
                progress = FitProgress(self.verbose, settings, training.n)
                with progress:
                    found = learn(training, settings, rng, progress)
                replaced = self._safeguard(found, training, sample, look)
                codes = None if replaced else training.codes()
        fitted = self._attributes(found, training, rows)
        encoder = encoder_of(fitted | columns)
        if settings.objective == "scores":
            self._count_codes(sample, encoder, n_threads)
        if codes is None or rows is not None:
            encoded = encode(encoder, checked, n_threads)
            fitted["expected_recall_"] = self._expected_recall(checked, encoder, encoded, others, look, n_threads)
            if codes is not None:
                encoded[rows] = codes
            codes = encoded
        else:
            fitted["expected_recall_"] = ExpectedRecall()
        progress.tell(fitted["expected_recall_"])
        for name in NOT_OF_ALL_MODES:  # of an earlier fit
            vars(self).pop(name, None)
        vars(self).update(fitted, codes_=note_origin(codes, settings.n_bits, encoder.fingerprint), **columns)
        self._encoder = encoder
        return self

    def _n_train(self, n):
        """Return how many of n rows learn."""
        if not _is_auto(self.n_train):
            return min(n, self.n_train)
        return min(n - _HELD_OUT if n >= _HELD_OUT_FROM else n, TRAIN_ROWS)

    def _draw_learning(self, n, n_train, rng):
        """Return the rows that learn, ascending; that some are held out changes no other draw."""
        held_out = _is_auto(self.n_train) and n_train == n - _HELD_OUT
        return draw_rows(n, n_train, copy.deepcopy(rng) if held_out else rng)

    def _expected_recall(self, X, encoder, codes, others, rng, n_threads):
        """Return the ExpectedRecall of some of the rows that did not learn, with the codes of transform."""
        against, own_rows = measured_rows(len(X), X.shape[1], others, rng)
        if not len(own_rows):
            return ExpectedRecall()
        X, codes = (X, codes) if len(against) == len(X) else (X[against], codes[against])
        return recall_of(encoder, X, own_rows, codes, n_threads)

    def _sample(self, n, d, rng):
        """Return the rows that are looked at, ascending."""
        return draw_rows(n, safeguard.sample_size(n, d, self._goal() == "neighbors"), rng)

    def _ordinary_rows(self, training, sample):
        """Return which training rows learn, ascending, where some are too far away to; else None."""
        far = safeguard.far_rows(training, sample)
        if far is None:
            return None
        kept = np.flatnonzero(~far)
        given = [each for each in (self.n_anchors, self.n_neighbors) if isinstance(each, numbers.Integral)]
        return kept if len(kept) >= max([2, *given]) else None

    def _safeguard(self, found, training, sample, rng):
        """Check the hash function that was found, and replace bits in it; return how many."""
        if self.n_bits > safeguard.MAX_BITS:
            return 0
        V = (np.asarray(sample, np.float64) - training.mean) * training.scale
        np.clip(V, -1e100, 1e100, out=V)  # far rows: their squares are to be numbers
        neighbors = self._goal() == "neighbors"
        found.W, found.bias, replaced = safeguard.reinforce(V, found.W, found.bias, rng, neighbors)
        some = V[:: -(-len(V) // _COUNTED)]
        _tell_few_codes(some, safeguard.distinct(some @ found.W + found.bias >= 0), self.n_bits)
        if replaced:
            found.anchor_codes = training.working(found.anchor_items) @ found.W + found.bias
        return replaced

    def _count_codes(self, sample, encoder, n_threads):
        """Look how many codes the encoder has for a sample of X, where the bits are not those of projections."""
        some = np.ascontiguousarray(sample[:: -(-len(sample) // _COUNTED)])
        some = some[(np.abs(some) < encoder._farthest).all(axis=1)]
        if len(some):
            _tell_few_codes(some, len(np.unique(encode(encoder, some, n_threads), axis=0)), self.n_bits)

    def _attributes(self, found, training, rows):
        """Return the fitted attributes but codes_, of what was learned from the rows of X that ``rows`` names."""
        if found.n_directions < self.n_bits:
            warnings.warn(
                f"X has {found.n_directions} independent directions, fewer than n_bits={self.n_bits}: "
                "they are spread over all bits, and fewer bits may do as well",
                UserWarning,
                stacklevel=3,
            )
        coef = np.ascontiguousarray(found.W.T) * training.scale
        hash_function = {
            "mean_": training.mean,
            "scale_": training.scale,
            "coef_": coef,
            "intercept_": found.bias - coef @ training.mean,
        }
        items = getattr(found, "items", None)
        fitted = hash_function | {
            "fingerprint_": fingerprint_of(*(hash_function[name] for name in (*ARRAYS, "scale_")), items),
            "anchor_indices_": found.anchor_items if rows is None else rows[found.anchor_items],
            "objective_": found.history,
            "n_iter_": found.n_iter,
        }
        if items is not None:
            return fitted | {"items_": items, "anchor_codes_": items.arrays["codes"]}
        return fitted | {
            "anchors_": np.array(training.take(found.anchor_items)),
            "anchor_codes_": pack(found.anchor_codes),
            "thresholds_": found.thresholds,
        }

    # -- the hash function --------------------------------------------------------------------------------------------

    @property
    def encoder_(self):
        """The hash function alone, an :class:`aphash.Encoder`: all that a service needs, without scikit-learn.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> X = load_digits().data
        >>> hasher = APHash(32, random_state=0).fit(X)
        >>> hasher.encoder_
        Encoder(n_bits=32, n_features=64)
        """
        own = vars(self)
        encoder = own.get("_encoder")
        if encoder is None or not encoder._is_of(own):  # of an earlier version's pickle; an attribute was set
            check_is_fitted(self)
            encoder = self._encoder = encoder_of(own)
        return encoder

    def transform(self, X):
        """Return the codes of X: the packed signs of the projections.

        Parameters
        ----------
        X : array_like of shape (n, d), or one row of shape (d,)

        Returns
        -------
        ndarray of uint64, shape (n, n_words) or (n_words,)
            The same for a row whatever rows it comes with. Needs the result and a few MiB a thread.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.
        TypeError, ValueError
            For another number of features, and what :meth:`fit` refuses.

        Notes
        -----
        That a vector is one row is numpy's and faiss's manner. scikit-learn's own estimators refuse one, so its check
        ``check_fit2d_predict1d`` is the one of its checks that APHash does not pass.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> X = load_digits().data
        >>> hasher = APHash(32, random_state=0).fit(X)
        >>> hasher.transform(X[:3]).shape, hasher.transform(X[0]).shape
        ((3, 1), (1,))
        """
        codes = self.encoder_._transform(X, self.n_jobs)
        if codes.ndim == 1 and _get_output_config("transform", self)["dense"] != "default":
            return codes[np.newaxis]  # a data frame has rows
        return codes

    def decision_function(self, X):
        """Return the projections of X, whose signs are the codes.

        Parameters
        ----------
        X : array_like of shape (n, d), or one row of shape (d,)

        Returns
        -------
        ndarray of float32, shape (n, n_bits) or (n_bits,)
            ``X @ coef_.T + intercept_``; +-1 is what the hash function was fitted to.

        Raises
        ------
        sklearn.exceptions.NotFittedError, TypeError, ValueError
            As :meth:`transform`.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> X = load_digits().data
        >>> hasher = APHash(32, random_state=0).fit(X)
        >>> from aphash import pack_codes
        >>> projections = hasher.decision_function(X)
        >>> bool((pack_codes(projections) == hasher.transform(X)).all())
        True
        """
        return self.encoder_._decision_function(X, self.n_jobs)

    def query_projections(self, X):
        """Return the weights by which X is searched for; see :meth:`aphash.Encoder.query_projections`.

        Parameters
        ----------
        X : array_like of shape (n, d), or one row of shape (d,)

        Returns
        -------
        ndarray of float32, shape (n, n_bits) or (n_bits,)

        Raises
        ------
        sklearn.exceptions.NotFittedError, TypeError, ValueError
            As :meth:`transform`.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> X = load_digits().data
        >>> hasher = APHash(32, random_state=0).fit(X)
        >>> hasher.query_projections(X[:3]).shape
        (3, 32)
        """
        return self.encoder_._query_projections(X, self.n_jobs)

    @property
    def _n_features_out(self):
        """Words of a code, for get_feature_names_out: aphash0, ..."""
        return n_words(len(self.coef_))

    def score(self, X, y=None):
        """Return how well codes keep neighbours: a number without labels that GridSearchCV can maximise.

        It is the recall of true neighbours: of the 10 rows that are nearest by Euclidean distance, the share that is
        among the 10 with the nearest codes, the mean over up to 300 rows of X against up to 10,000, each itself left
        out. Rows at the same Hamming distance count as in random order. With fewer than 100 rows, a tenth of them are
        the nearest by distance, and with fewer than 30 a third by code.

        Parameters
        ----------
        X : array_like of shape (n, d)
            At least 2 rows, best such as were not fitted.
        y : ignored

        Returns
        -------
        float
            From 0 to 1; of n rows random codes would find 10 / n. The same for the same X and model: which rows are
            looked at depends on their number alone.

        Raises
        ------
        sklearn.exceptions.NotFittedError, TypeError, ValueError
            As :meth:`transform`.

        Notes
        -----
        Scores are to be compared on the same X only: more rows make them lower. More bits make them higher, and
        ``mode="neighbors"`` too, since "semantic" trades nearest neighbours for more of the kind; where there are
        labels, :func:`aphash.metrics.mean_average_precision` measures that. Costs some 300 x 10,000 x (d + n_bits)
        multiply-adds, tenths of a second, whatever the length of X, and memory of some 100 MiB.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> X = load_digits().data
        >>> hasher = APHash(32, random_state=0).fit(X)
        >>> bool(0 < hasher.score(X[:500]) <= 1)
        True
        """
        check_is_fitted(self)
        with _naming_X():
            n = _num_samples(X)
        if n < 2:
            raise ValueError(f"X must have at least 2 rows, got {n}")
        d = len(self.mean_)
        rng = np.random.RandomState(0)
        some = self._take(X, draw_rows(n, safeguard.sample_size(n, d, True), rng))
        bits = unpack_codes(self.encoder_._transform(some, self.n_jobs), len(self.coef_))
        V = (_read(some).astype(np.float64) - self.mean_) * self.scale_
        return safeguard.Check(np.clip(V, -1e100, 1e100), rng, first=10).of(bits)[0]

    def _take(self, X, rows):
        """Return rows of whatever fit takes."""
        return _safe_indexing(X, rows)

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, path):
        """Write the fitted estimator to a file: parameters, hash function, learned codes; checksummed, atomically.

        Parameters
        ----------
        path : str, os.PathLike, bytes or binary file object
            A path is used as given; an existing file is replaced, at no moment by half a one. A file object
            (``io.BytesIO``, what S3 clients upload) is written to front to back and left open.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.
        OSError
            With the path, when it cannot be written.
        TypeError
            For a file object of texts.

        Notes
        -----
        A ``random_state`` that is not a number is not saved: the loaded estimator has None.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from aphash import APHash
        >>> X = load_digits().data
        >>> hasher = APHash(32, random_state=0).fit(X)
        >>> import io
        >>> file = io.BytesIO()
        >>> hasher.save(file)
        >>> APHash.load(file.getvalue()).fingerprint_ == hasher.fingerprint_
        True
        """
        arrays, params = self._to_file()
        container.write(path, arrays, kind=MODEL, version=model_file.version_of(params), params=params)

    @classmethod
    def load(cls, path):
        """Return the estimator that :meth:`save` wrote; :meth:`aphash.Encoder.load` opens its hash function alone.

        Parameters
        ----------
        path : str, os.PathLike, bytes or binary file object
            A file object is read front to back, from where it stands to the end of the model. Bytes, a bytearray or a
            memoryview are a file's contents.

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
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "digits.aphash")
        ...     hasher.save(path)
        ...     again = APHash.load(path)
        >>> again.get_params() == hasher.get_params()
        True
        """
        arrays, params, version = container.read(path, kind=MODEL)
        return cls._from_file(path, arrays, params, version)

    def _to_file(self):
        """Return (arrays, params) for a file; NotFittedError before fit."""
        check_is_fitted(self)
        arrays, params = model_file.to_file(self.get_params(deep=False), vars(self))
        params["fingerprint_"] = self.encoder_.fingerprint  # of what is saved, should someone have changed it
        return arrays, params

    @classmethod
    def _from_file(cls, path, arrays, params, version):
        given, fitted, encoder = model_file.from_file(path, arrays, params, version, cls._get_param_names())
        hasher = cls(**given)
        vars(hasher).update(fitted, _encoder=encoder)
        return hasher

    def __getstate__(self):
        return {name: value for name, value in super().__getstate__().items() if name != "_encoder"}

    def __setstate__(self, state):
        super().__setstate__(state)
        if "coef_" in vars(self):
            self._encoder = encoder_of(vars(self))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are uint64 whatever X is
        return tags


def _tell_few_codes(some, distinct, n_bits):
    """Warn where rows have so few distinct codes; called by what ``fit`` calls."""
    if distinct < safeguard.few_codes(some, n_bits):
        warnings.warn(
            f"{len(some)} rows of X have only {distinct} distinct codes: what is so close together "
            "cannot be told apart. More bits tell more apart; if single features or rows are far larger than the "
            "others, scale them",
            UserWarning,
            stacklevel=4,
        )


# What as_floats makes of anything. NaN is looked for by blocks instead.
_DTYPES = [np.float32, np.float64, np.float16]


def others_than(rows, n):
    """Return the numbers below n that are not among the rows, ascending."""
    mine = np.ones(n, bool)
    mine[rows] = False
    return np.flatnonzero(mine)


def measured_rows(n, d, others, rng):
    """Return (rows among which is searched, ascending; the places in them of those that are searched for).

    Parameters
    ----------
    n, d : int
        Of X.
    others : ndarray of int64
        Rows that did not learn: those that are searched for are drawn of them.
    rng : RandomState
    """
    queries = others[draw_rows(len(others), min(_HELD_OUT, len(others)), rng)] if len(others) else others
    most = min(n, _MEASURED_ROWS, max(_MEASURED_NUMBERS // d, len(queries)))
    against = np.arange(n)
    if most < n and len(queries):
        rest = others_than(queries, n)
        against = np.sort(np.append(queries, rest[draw_rows(len(rest), most - len(queries), rng)]))
    return against, np.searchsorted(against, queries)


def recall_of(encoder, X, own_rows, codes, n_threads):
    """Return the ExpectedRecall of some rows of X among all of them, whose codes (n, n_words) are given."""
    weights = query_weights(encoder, X[own_rows], n_threads)
    if not _SIZES[0] < encoder.scale < _SIZES[1]:  # squares that no float holds
        X = ((X - encoder.mean) * encoder.scale).astype(np.float32)
    return expected_recall(X, own_rows, codes, weights, n_threads)


NOT_OF_ALL_MODES = ("feature_names_in_", "items_", "anchors_", "anchor_codes_", "thresholds_")  # attributes
_X = {"dtype": _DTYPES, "order": "C", "ensure_all_finite": False}


def _read(X):
    """Return X as float16, float32 or float64, whichever holds it; check_array has the words for what is sparse."""
    if sparse.issparse(X):
        return X
    X = as_floats(X, "X")
    if X.ndim == 1:
        raise ValueError(
            f"X must have shape (n, d), got 1D array of shape {X.shape}. Reshape your data: "
            "X.reshape(1, -1) is one row, X.reshape(-1, 1) one column"
        )
    return X


def checked_rows(X, estimator):
    """Return X as fit reads it: C-contiguous floats, two rows or more; TypeError or ValueError that name X."""
    with _naming_X():
        return check_array(_read(X), ensure_min_samples=2, estimator=estimator, **_X)


def _columns(X):
    """Return n_features_in_ and perhaps feature_names_in_ as scikit-learn makes them, or its error."""
    fitted = BaseEstimator()
    validate_data(fitted, X, skip_check_array=True)
    return vars(fitted)


@contextlib.contextmanager
def _naming_X():
    """Put the argument's name before messages that lack it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if re.search(r"\bX\b", str(error)):
            raise
        raise type(error)(f"X: {error}") from None


def encoder_of(fitted):
    """Return the Encoder of fitted attributes."""
    hash_function = (fitted[name] for name in (*ARRAYS, "scale_"))
    return Encoder(*hash_function, feature_names=fitted.get("feature_names_in_"), items=fitted.get("items_"))


def _is_auto(value):
    return isinstance(value, str) and value == "auto"


class FitProgress(ProgressBar):
    """A progress bar over the iterations of all rounds, in rows a second, with the objective beside it."""

    def __init__(self, verbose, settings, n):
        super().__init__(verbose, settings.n_rounds * max(1, settings.max_iter) * n, "row", "APHash")
        self.quantization, self.rows = settings.quantization, n

    def __call__(self, number, iteration, J0, J1):
        if J0 is None:
            self.update(self.rows, round=number)
            return
        J = J0 + self.quantization * J1
        self.update(self.rows, round=number, J0=f"{J0:.4g}", J1=f"{J1:.4g}", J=f"{J:.6g}")


class ScoreProgress(ProgressBar):
    """A progress bar over the steps, with the objective beside it."""

    def __init__(self, verbose, settings, n):
        super().__init__(verbose, scores.n_steps(settings, n), "step", "APHash")

    def __call__(self, number, iteration, J0, J1):
        self.update(1, round=number, J0=f"{J0:.4g}")
