"""VectorIndex: from vectors to ids, in one object. A face over APHash, HammingIndex and VectorRescore."""

import contextlib
import copy
import io
from dataclasses import replace

import numpy as np

from aphash import _kernels
from aphash._common import container
from aphash._common.arrays import as_floats, shown
from aphash._common.checks import check_count, check_ids
from aphash._common.threads import n_threads
from aphash._learning import recipe
from aphash._searching import calibration
from aphash._searching.filters import positions_of, prepare
from aphash._searching.kept import KINDS
from aphash._searching.linkage import complete, numbered, single
from aphash._searching.results import Found, Groups
from aphash._vectors import file as index_file
from aphash._vectors.state import (
    CHUNK_BYTES,
    RECALL,
    Changes,
    check_distance,
    check_recall,
    distances_to,
    encode_rows,
    estimated,
    near_pairs,
    plan,
    radius_of,
    successor,
    sums_of,
    vectors_of,
    weights_of,
)
from aphash.codes import check_n_bits, n_words, note_origin
from aphash.rescore import VectorRescore

_METRICS = ("cosine", "l2")
_LINKAGES = {"single": single, "complete": complete}
_GRAPH_ROWS = 1024  # that are searched for at a time


class VectorIndex:
    """Search of vectors by learned codes, in one object: normalise, learn, encode, search, rank anew, change, save.

    Codes of ``n_bits`` are learned from the vectors (:class:`aphash.APHash`) and searched exactly, by the queries'
    weights (:class:`aphash.HammingIndex`); where the index keeps the vectors or is lent them, the nearest codes are
    ranked anew by them (:class:`aphash.VectorRescore`). How many codes that takes for a recall that is asked for is
    measured when the index is fitted.

    Parameters
    ----------
    n_bits : int, default=64
    mode : {"scores", "semantic-scores", "semantic", "neighbors", "paper"} or Recipe, default="scores"
        How codes are learned: see :class:`aphash.APHash`. "scores" finds most of the true neighbours.
    metric : {"cosine", "l2"}, default="cosine"
        The unit of all distances: one minus the cosine, from 0 to 2 (vectors need not be normalised); or Euclidean.
    keep : {None, "float32", "float16", "int8"}, default=None
        Keep the vectors beside the codes, in the index's file: 4, 2 or 1 bytes a number (int8: and 4 a row, its scale).
        None keeps codes alone; see :meth:`attach_vectors`.
    n_train : int or "auto"
        Rows that learn, drawn at random. auto: 250,000 at most. They are copied.
    random_state : int, RandomState or Generator instance, or None, default=None
        The same number gives the same index.
    n_jobs : int or None, default=None
        Threads. None: all CPUs.
    verbose : int or "auto", default="auto"
        Show the progress of learning: see :class:`aphash.APHash`.

    Attributes
    ----------
    encoder_ : Encoder
        The hash function. It expects what the metric makes of vectors: for cosine, vectors of length 1.
    codes_ : HammingIndex
        The codes; not to be changed.
    n_features_in_ : int
    ids : ndarray of int64, shape (n,)
    nbytes : int
        Memory of codes, ids, and kept vectors; of a mapped index, of the map.

    Notes
    -----
    A fifth of the rows, at most 2,000, do not learn: their true neighbours among all rows are found by exact search
    (some 2,000 n d multiply-adds), and their ranks in the search by codes tell how many candidates give what recall of
    1, 10 and 100 results; in between it is interpolated. Of 2,000 rows, the standard error of a recall of .95 is below
    .005. The number of candidates grows in proportion to the index, which is more than it takes. With fewer than five
    rows nothing is measured, and all codes are candidates.

    Distances are float32: exact for the vectors that rank (those kept, as they are kept; or those attached), or
    estimated where there are none: the average distance of sampled pairs of rows whose codes are as far apart, which
    never falls as codes get farther. ``result.exact`` says which.

    Any number of threads may search while others change the index; a search sees the index as it was at its call, codes
    and vectors alike. A change is made wholly or, when an exception comes out of it, not at all. Fitting needs the rows
    that learn once more, and what :class:`aphash.APHash` needs.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import VectorIndex
    >>> X = np.random.default_rng(0).standard_normal((2000, 32)).astype(np.float32)
    >>> index = VectorIndex(32, keep="float16", random_state=0).fit(X)
    >>> distances, ids = index.search(X[:2], 3)
    >>> ids[:, 0]
    array([0, 1])
    """

    __module__ = "aphash"  # where it is public: pickles and reprs say so

    def __init__(
        self,
        n_bits=64,
        *,
        mode="scores",
        metric="cosine",
        keep=None,
        n_train="auto",
        random_state=None,
        n_jobs=None,
        verbose="auto",
    ):
        self.n_bits = n_bits
        self.mode = mode
        self.metric = metric
        self.keep = keep
        self.n_train = n_train
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose
        self._state = None
        self._changes = Changes()

    def _check_params(self):
        check_n_bits(self.n_bits)
        recipe.recipe_of(self.mode)
        if isinstance(self.metric, str) and self.metric == "ip":
            raise ValueError(
                "metric='ip' cannot be had: an inner product depends on the lengths of the vectors, and codes tell "
                "directions or places only. Use 'cosine' where lengths do not matter; where they do, append the column "
                "sqrt(max |x|^2 - |x|^2) to the rows and 0 to the queries, and use 'l2', which then ranks the same"
            )
        if not isinstance(self.metric, str) or self.metric not in _METRICS:
            raise ValueError(f"metric must be one of {', '.join(map(repr, _METRICS))}, got {shown(self.metric)}")
        if self.keep is not None and not (isinstance(self.keep, str) and self.keep in KINDS):
            raise ValueError(f"keep must be None or one of {', '.join(map(repr, KINDS))}, got {shown(self.keep)}")
        if not (isinstance(self.n_train, str) and self.n_train == "auto"):
            check_count(self.n_train, "n_train", 2)
        n_threads(self.n_jobs, 1)

    # ---- learning ----

    def fit(self, X, y=None, *, ids=None):
        """Learn from X, or a sample of it, and index all of it; what the index held before is replaced.

        Parameters
        ----------
        X : array_like of shape (n, d)
            Whatever :meth:`aphash.APHash.fit` takes; n >= 2. Memory maps of float16, float32 and float64 are read by
            blocks.
        y : ignored
        ids : array_like of int, shape (n,), optional
            As for :meth:`add`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            When a parameter, X or ids are not as said. An index that was fitted before stays as it was, also when the
            fit is interrupted.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> VectorIndex(16, random_state=0).fit(X)
        VectorIndex(n_bits=16, mode='scores', metric='cosine', keep=None), 1000 vectors of 16 numbers
        """
        self._check_params()
        from aphash._vectors import fitting  # which needs scikit-learn

        state = fitting.learn(self, X, ids)
        with self._changes:
            self._state = state
        return self

    # ---- what is there ----

    def _fitted(self):
        state = self._state
        if state is None:
            from sklearn.exceptions import NotFittedError

            raise NotFittedError("This VectorIndex instance is not fitted yet: call fit(X) first")
        return state

    @property
    def encoder_(self):
        return self._fitted().encoder

    @property
    def codes_(self):
        return self._fitted().codes

    @property
    def n_features_in_(self):
        return self._fitted().encoder.n_features

    @property
    def ids(self):
        return self._fitted().codes.ids

    @property
    def nbytes(self):
        state = self._fitted()
        return state.codes.nbytes + (0 if state.kept is None else state.kept.nbytes)

    def __len__(self):
        return 0 if self._state is None else len(self._state.codes)

    def __contains__(self, id):
        return id in self._fitted().codes

    def __sklearn_is_fitted__(self):
        return self._state is not None

    def __repr__(self):
        mode = self.mode if isinstance(self.mode, str) else "Recipe"
        about = f"VectorIndex(n_bits={self.n_bits}, mode={mode!r}, metric={self.metric!r}, keep={self.keep!r})"
        state = self._state
        if state is None:
            return f"{about}, not fitted"
        attached = ", others attached" if state.attached is not None else ""
        return f"{about}, {len(state.codes)} vectors of {state.encoder.n_features} numbers{attached}"

    def get_params(self, deep=True):
        """Return the parameters by name, as scikit-learn's ``clone`` and its searches ask for them.

        Parameters
        ----------
        deep : bool, default=True
            Has no effect: no parameter is an estimator.

        Examples
        --------
        >>> from aphash import VectorIndex
        >>> VectorIndex(32).get_params()["n_bits"]
        32
        """
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params):
        """Change parameters; they count from the next fit on.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For a name that is none of a parameter; nothing is changed then. Values are checked by the fit.

        Examples
        --------
        >>> from aphash import VectorIndex
        >>> VectorIndex(32).set_params(n_bits=64).n_bits
        64
        """
        for name in params:
            if name not in _PARAMETERS:
                raise ValueError(f"{name!r} is no parameter of VectorIndex, which has {', '.join(_PARAMETERS)}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def info(self):
        """Return what the index is and what can be expected of it.

        Returns
        -------
        dict
            ``n``, ``n_features``, ``n_bits``, ``mode``, ``metric``, ``keep``, ``attached``; ``distances``: "exact" or
            "estimated"; ``code_bytes`` and ``vector_bytes`` of an item, ``nbytes``; ``calibrated_n``: of how many rows
            recall was measured; ``recall``: ``recall[k][c]`` that c candidates give for k results (in the search by
            codes alone, c = k); ``candidates``: ``candidates[k]`` that a recall of .95 takes, None where none do.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, keep="int8", random_state=0).fit(X)
        >>> about = index.info()
        >>> about["code_bytes"], about["vector_bytes"], about["distances"]
        (2, 20, 'exact')
        """
        state = self._fitted()
        n, measured, d = len(state.codes), state.calibration, state.encoder.n_features
        recall, candidates = {}, {}
        for k in calibration.KS:
            steps = [c for c in (k, 3 * k, 10 * k, 30 * k, 100 * k, 300 * k, 1000 * k) if c < min(n, measured.n)]
            recall[k] = {c: round(measured.recall_for(c, k, n), 4) for c in steps}
            candidates[k] = measured.candidates_for(RECALL, k, n)
        kind = None if state.kept is None else state.kept.kind
        vector_bytes = 0 if kind is None else KINDS[kind].itemsize * d + 4 * (kind == "int8")
        return {
            "n": n, "n_features": d, "n_bits": state.encoder.n_bits, "mode": self.mode, "metric": state.metric,
            "keep": kind, "attached": state.attached is not None,
            "distances": "exact" if state.has_vectors() else "estimated",
            "code_bytes": -(-state.encoder.n_bits // 8), "vector_bytes": vector_bytes, "nbytes": self.nbytes,
            "calibrated_n": measured.n, "recall": recall, "candidates": candidates,
        }  # fmt: skip

    # ---- changes ----

    def add(self, X, ids=None):
        """Add vectors.

        Parameters
        ----------
        X : array_like of shape (n_new, d) or (d,)
        ids : array_like of int, shape (n_new,), or one int, optional
            Any int64 but -1, none of them in the index yet. By default they are counted on from the largest id that was
            ever in the index.

        Returns
        -------
        ids : ndarray of int64, shape (n_new,)

        Raises
        ------
        TypeError, ValueError, MemoryError
            When X or ids are not as said; the ids at fault are named. The index stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, random_state=0).fit(X)
        >>> index.add(X[:2] + 1)
        array([1000, 1001])
        """
        with self._changes:
            state = self._fitted()
            X, codes = self._encoded(state, X)
            codes_after = successor(state.codes)
            ids = codes_after.add(codes, ids=ids)
            kept = None if state.kept is None else state.kept.put(X, ids)
            self._state = replace(state, codes=codes_after, kept=kept)
        return ids

    def upsert(self, X, ids):
        """Replace the vectors of ids that are in the index, and add the others, in one change.

        Parameters
        ----------
        X : array_like of shape (n, d) or (d,)
        ids : array_like of int, shape (n,), or one int
            All different.

        Returns
        -------
        int
            How many were added.

        Raises
        ------
        TypeError, ValueError, MemoryError
            When X or ids are not as said. The index stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, random_state=0).fit(X)
        >>> index.upsert(X[:2], [7, 5000])
        1
        """
        with self._changes:
            state = self._fitted()
            X, codes = self._encoded(state, X)
            ids = check_ids(ids, len(X))
            codes_after = successor(state.codes)
            added = codes_after.upsert(codes, ids=ids)
            kept = None if state.kept is None else state.kept.put(X, ids)
            self._state = replace(state, codes=codes_after, kept=kept)
        return added

    def remove(self, ids, *, missing="raise"):
        """Remove vectors by their ids.

        Parameters
        ----------
        ids : array_like of int, shape (n_old,), or one int
        missing : {"raise", "ignore"}, default="raise"
            What to do with ids that are not in the index.

        Returns
        -------
        int
            How many were removed.

        Raises
        ------
        KeyError
            When some are not in the index; they are named, and nothing is removed.
        TypeError, ValueError, MemoryError
            When an argument is not as said. The index stays as it was.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, random_state=0).fit(X)
        >>> index.remove([1, 2])
        2
        """
        with self._changes:
            state = self._fitted()
            codes_after = successor(state.codes)
            removed = codes_after.remove(ids, missing=missing)
            kept = None if state.kept is None else state.kept.without(check_ids(ids))
            self._state = replace(state, codes=codes_after, kept=kept)
        return removed

    def compact(self):
        """Give back the memory that removed and replaced vectors have left.

        Needs memory for the codes and the kept vectors once more. Results do not change.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, random_state=0).fit(X)
        >>> index.compact()
        """
        with self._changes:
            state = self._fitted()
            codes_after = successor(state.codes)
            codes_after.compact()
            kept = None if state.kept is None else state.kept.compacted()
            self._state = replace(state, codes=codes_after, kept=kept)

    def attach_vectors(self, X, ids=None):
        """Lend the index the vectors that it ranks by: an array or memory map, of which candidates are read.

        They take the place of kept ones in searches; they are neither copied, changed nor saved, so they are attached
        again once codes have been added that have no row there, and to an index that was loaded.

        Parameters
        ----------
        X : array_like of shape (n, d), or None
            As for :class:`aphash.VectorRescore`. None takes them away.
        ids : array_like of int, shape (n,), optional
            The ids of the rows. None: row i is that of id i, and the index's ids are 0 .. n - 1.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            When they are not as said, or ids of the index have no row.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, random_state=0).fit(X)
        >>> index.search(X[:1], 5).exact, index.attach_vectors(X).search(X[:1], 5).exact
        (False, True)
        """
        with self._changes:
            state = self._fitted()
            attached = None
            if X is not None:
                attached = VectorRescore(X, ids, metric=state.metric)
                if attached.X.shape[1] != state.encoder.n_features:
                    raise ValueError(f"X must have {state.encoder.n_features} columns, got {attached.X.shape[1]}")
                present = state.codes.ids
                if attached._ids is None and not np.array_equal(np.sort(present), np.arange(attached.X.shape[0])):
                    raise ValueError(
                        f"X has {attached.X.shape[0]} rows, and the index {len(present)} vectors, whose ids must be "
                        "0 .. n - 1: pass the ids of the rows"
                    )
                attached._rows_of(present)
            self._state = replace(state, attached=attached)
        return self

    def get(self, ids):
        """Return vectors by their ids, where they are kept or attached.

        Parameters
        ----------
        ids : array_like of int, shape (n_wanted,), or one int

        Returns
        -------
        ndarray, shape (n_wanted, d) or (d,)
            Attached ones as they are; otherwise what is kept: float32 or float16, float32 of int8.

        Raises
        ------
        KeyError
            When some are not in the index; they are named.
        ValueError
            When no vectors are kept.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, keep="float32", random_state=0).fit(X)
        >>> bool((index.get([3, 5]) == X[[3, 5]].astype(np.float32)).all())
        True
        """
        state = self._fitted()
        if not state.has_vectors():
            raise ValueError("no vectors are kept: fit with keep='float32', 'float16' or 'int8', or attach_vectors(X)")
        state.codes.get(ids)  # whether all are there
        found = vectors_of(state, np.atleast_1d(np.asarray(ids, np.int64)))
        return found[0] if np.ndim(ids) == 0 else found

    # ---- searches ----

    def search(self, Q, k, *, filter=None, recall=None, candidates=None, expand=0, expand_weight=1.0, n_jobs=None):
        """Find the k nearest vectors.

        Parameters
        ----------
        Q : array_like of shape (n_queries, d) or (d,)
        k : int
            At least 1. Beyond the number of vectors that take part the results are padded.
        filter : Filter or array_like, optional
            Which vectors take part, by ids, mask or :class:`aphash.Filter`: see :meth:`aphash.HammingIndex.search`.
        recall : float, optional
            The share of the true k nearest that is to be found, above 0 and at most 1: as many codes are ranked anew by
            vectors as that takes, and twice as many with a filter: that holds for filters at random and by kind, and
            may not where a filter leaves nothing near the query. By default .95 where there are vectors, and what the
            codes give where there are none.
        candidates : int, optional
            How many codes are ranked anew instead; 0: none, and distances are estimated.
        expand : int, default=0
        expand_weight : float, default=1.0
            Search for more of the same kind: see :meth:`aphash.HammingIndex.search`. Recall is not measured for that,
            so without ``candidates`` nothing is ranked anew.
        n_jobs : int, optional
            Threads; by default the index's.

        Returns
        -------
        distances : ndarray of float32, shape (n_queries, k) or (k,)
            In the metric's unit; infinity where there is no vector left.
        ids : ndarray of int64, shape (n_queries, k) or (k,)
            In order of (distance, id); estimated distances in the order of the search by codes. -1 where there is no
            vector left.

            The result has attributes, too: ``exact``, whether the distances are those of vectors or estimated;
            ``candidates``, and the ``recall`` that is expected.

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said; when recall is given and there are no vectors, or no number of candidates
            that was measured gives it: the message says what the best is.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, keep="float16", random_state=0).fit(X)
        >>> found = index.search(X[5], 2, recall=0.9)
        >>> found.ids[0], found.exact
        (np.int64(5), True)
        """
        state = self._fitted()
        n_jobs = self.n_jobs if n_jobs is None else n_jobs
        k = check_count(k, "k", 1)
        candidates, expected = plan(state, k, recall, candidates, expand, filter is not None)
        Q, threads, one = state.encoder._read(Q, n_jobs)
        weights = weights_of(state.encoder, Q, state.metric, state.kept is not None, threads)
        shared = {"filter": filter, "expand": expand, "expand_weight": expand_weight, "n_jobs": n_jobs}
        if candidates:
            rescore = copy.copy(state.rescore())
            rescore.factor = candidates / k
            distances, ids = state.codes.search(weights, k, rescore=rescore, rescore_queries=Q, **shared)
        else:
            distances, ids = state.codes.search(weights, k, **shared)
            if not expand:
                distances = estimated(state, distances, sums_of(weights)[:, np.newaxis])
        parts = (distances[0], ids[0]) if one else (distances, ids)
        return Found(parts, bool(candidates), candidates, expected)

    def radius_search(self, Q, distance, *, filter=None, recall=0.95, n_jobs=None):
        """Find the vectors within a distance.

        Codes within a radius are found, which is chosen from a sample of pairs such that it finds the share ``recall``
        of the vectors within the distance; where there are vectors, those that are farther are left out.

        Parameters
        ----------
        Q : array_like of shape (n_queries, d) or (d,)
        distance : float
            In the metric's unit, at least 0; a vector at this distance is found.
        filter
            As for :meth:`search`.
        recall : float, default=0.95
        n_jobs : int, optional

        Returns
        -------
        offsets : ndarray of int64, shape (n_queries + 1,)
        distances : ndarray of float32, shape (offsets[-1],)
        ids : ndarray of int64, shape (offsets[-1],)
            Those of query i stand at ``offsets[i] : offsets[i + 1]``, in order of (distance, id). The result has the
            attributes of :meth:`search`'s. Without vectors all that the codes found is there, with estimated distances,
            of which some are beyond ``distance``.

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, keep="float16", random_state=0).fit(X)
        >>> offsets, distances, ids = index.radius_search(X[:2], 0.01)
        >>> offsets, ids
        (array([0, 1, 2]), array([0, 1]))
        """
        state = self._fitted()
        n_jobs = self.n_jobs if n_jobs is None else n_jobs
        distance, recall = check_distance(distance), check_recall(recall)
        Q, threads, _ = state.encoder._read(Q, n_jobs)
        weights = weights_of(state.encoder, Q, state.metric, state.kept is not None, threads)
        weights = weights / sums_of(weights)[:, np.newaxis]  # distances are shares of the weights then
        radius, expected, _ = state.calibration.radius_for(distance, recall, "shares")
        offsets, shares, ids = state.codes.radius_search(weights, min(radius, 2.0), filter=filter, n_jobs=n_jobs)
        exact = state.has_vectors()
        if not exact:
            return Found((offsets, estimated(state, shares, 1.0), ids), False, 0, expected)
        query = np.repeat(np.arange(len(Q)), np.diff(offsets))
        distances = np.empty(len(ids))
        step = max(1, CHUNK_BYTES // (8 * Q.shape[1]))
        for start in range(0, len(ids), step):
            some = slice(start, start + step)
            distances[some] = distances_to(state, Q[query[some]], ids[some])
        near = distances.astype(np.float32) <= np.float32(distance)
        query, distances, found = query[near], distances[near], ids[near]
        order = np.lexsort((found, distances, query))
        ends = np.cumsum(np.bincount(query, minlength=len(Q)))
        parts = np.concatenate([[0], ends]), distances[order].astype(np.float32), found[order]
        return Found(parts, True, len(ids) // max(1, len(Q)), expected)

    # ---- vectors against each other ----

    def pairs(self, distance, *, recall=0.95, filter=None, n_jobs=None, verbose=0):
        """Find the near-duplicates: all pairs of vectors within a distance, each once.

        Parameters
        ----------
        distance : float
            In the metric's unit, at least 0; pairs at this distance are found.
        recall : float, default=0.95
            The share of them that is to be found. The radius of codes that finds it is chosen from a sample of pairs of
            rows: where few of those are so near, from the nearest ones, and more is found than asked for.
        filter
            As for :meth:`search`: both of a pair take part.
        n_jobs : int, optional
        verbose : int, default=0
            1 shows a progress bar.

        Returns
        -------
        Pairs
            An iterator over blocks ``(ids_i, ids_j, distances)``: int64, int64 and float32, of shape (m,), with
            ``ids_i < ids_j``. Its attributes ``recall``, ``precision`` and ``radius`` say what is expected, and
            ``exact`` whether vectors verified the distances. Without vectors all pairs within the radius come, with
            estimated distances.

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said: at the call, not at the first block.

        Notes
        -----
        The pairs are those of the index at the call. The larger the radius, the more pairs are looked at that are not
        near: see ``precision`` of an index without vectors. Memory: as :meth:`aphash.HammingIndex.pairs`, and 64 MiB.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> X[999] = X[0] + 0.001
        >>> index = VectorIndex(16, keep="float16", random_state=0).fit(X)
        >>> for ids_i, ids_j, distances in index.pairs(0.01):
        ...     print(ids_i, ids_j)
        [0] [999]
        """
        state = self._fitted()
        n_jobs = self.n_jobs if n_jobs is None else n_jobs
        return near_pairs(state, distance, recall, filter, n_jobs, verbose)

    def groups(self, distance, *, linkage="single", recall=0.95, filter=None, n_jobs=None, verbose=0):
        """Group the near-duplicates.

        Parameters
        ----------
        distance : float
            In the metric's unit, at least 0.
        linkage : {"single", "complete"}, default="single"
            single: any two vectors within the distance are in the same group, and so are those that a chain of such
            pairs joins, however far its ends are. complete: any two vectors of a group are within the distance, so no
            group is wider than that; of two groups those are joined first whose farthest members are nearest. It needs
            vectors.
        recall : float, default=0.95
            The share of the pairs within the distance that is to be found, as for :meth:`pairs`.
        filter
            As for :meth:`search`: the other vectors are in no group and connect none.
        n_jobs : int, optional
        verbose : int, default=0
            1 shows a progress bar.

        Returns
        -------
        Groups
            ``ids, labels = groups``: int64 arrays of shape (n,), the ids that take part, ascending, and the group of
            each, numbered from 0 by their smallest id. ``representatives`` are whom to keep, one of each group,
            ``duplicates`` all others, and ``members()`` lists the groups of two or more.

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said, and where complete linkage has no vectors.

        Notes
        -----
        Memory: as :meth:`pairs`, and 100 bytes a vector; with complete linkage all pairs within the distance are held,
        some 200 bytes each.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> X[[500, 999]] = X[0] + [[0.001], [0.002]]
        >>> index = VectorIndex(16, keep="float16", random_state=0).fit(X)
        >>> found = index.groups(0.01, linkage="complete")
        >>> found.members(), found.duplicates
        ([array([  0, 500, 999])], array([500, 999]))
        """
        state = self._fitted()
        n_jobs = self.n_jobs if n_jobs is None else n_jobs
        if not isinstance(linkage, str) or linkage not in _LINKAGES:
            raise ValueError(f"linkage must be one of {', '.join(map(repr, _LINKAGES))}, got {shown(linkage)}")
        if not state.has_vectors():
            if linkage == "complete":
                raise ValueError(
                    "linkage='complete' needs vectors that tell how far two of a group are: fit with keep='float32', "
                    "'float16' or 'int8', or attach_vectors(X)"
                )
            radius, expected, _ = radius_of(state, distance, recall)
            ids, labels = state.codes.groups(radius, filter=filter, n_jobs=n_jobs, verbose=verbose)
            return Groups(ids, labels, False, expected)
        found = near_pairs(state, distance, recall, filter, n_jobs, verbose)
        snapshot = state.codes._store.present
        taking_part = prepare(filter, snapshot)
        positions = np.arange(len(snapshot)) if taking_part is None else positions_of(taking_part, len(snapshot))
        ids = np.sort(snapshot.ids_at(positions))
        blocks = ((np.searchsorted(ids, i), np.searchsorted(ids, j), d) for i, j, d in found)
        with contextlib.closing(found):
            labels = _LINKAGES[linkage](len(ids), blocks)
        return Groups(ids, numbered(labels), True, found.recall)

    def knn_graph(self, k, *, recall=None, n_jobs=None):
        """Return the graph of each vector's k nearest others.

        Parameters
        ----------
        k : int
            At least 1.
        recall : float, optional
            As for :meth:`search`.
        n_jobs : int, optional

        Returns
        -------
        ids : ndarray of int64, shape (n,)
            Ascending.
        graph : scipy.sparse.csr_array of float32, shape (n, n)
            Row and column i are ``ids[i]``; the values are distances, and distances of 0 stand there as explicit zeros.
            Each row is in order of (distance, id). With vectors they are searched for as by :meth:`search`; without,
            codes are compared (:meth:`aphash.HammingIndex.knn_graph`) and distances estimated.

        Raises
        ------
        TypeError, ValueError
            As :meth:`search`.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> ids, graph = VectorIndex(16, keep="float16", random_state=0).fit(X).knn_graph(3)
        >>> graph.shape, graph.nnz
        ((1000, 1000), 3000)
        """
        from scipy.sparse import csr_array

        state = self._fitted()
        n_jobs = self.n_jobs if n_jobs is None else n_jobs
        k = check_count(k, "k", 1)
        candidates, _ = plan(state, k + 1, recall, None, 0)
        if not candidates:
            ids, graph = state.codes.knn_graph(k, n_jobs=n_jobs)
            distances = state.calibration.estimated(graph.data, "bits")
            return ids, csr_array((distances, graph.indices, graph.indptr), shape=graph.shape)
        ids = np.sort(state.codes.ids)
        n = len(ids)
        k = min(k, n - 1)
        distances, columns = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
        rescore = copy.copy(state.rescore())
        rescore.factor = candidates / (k + 1)
        for start in range(0, n if k else 0, _GRAPH_ROWS):
            rows = ids[start : start + _GRAPH_ROWS]
            V = np.ascontiguousarray(as_floats(vectors_of(state, rows), "X"))
            threads = n_threads(n_jobs, _kernels.max_threads())
            weights = weights_of(state.encoder, V, state.metric, state.kept is not None, threads)
            near, found = state.codes.search(weights, k + 1, rescore=rescore, rescore_queries=V, n_jobs=n_jobs)
            itself = found == rows[:, np.newaxis]
            itself[~itself.any(axis=1), -1] = True
            distances[start : start + len(rows)] = near[~itself].reshape(len(rows), k)
            columns[start : start + len(rows)] = np.searchsorted(ids, found[~itself]).reshape(len(rows), k)
        starts = np.arange(n + 1, dtype=np.int64) * k
        return ids, csr_array((distances.ravel(), columns.ravel(), starts), shape=(n, n))

    # ---- files ----

    def save(self, path):
        """Write the index to one file: hash function, codes, kept vectors and what was measured.

        Checksummed, and atomically, so that ``path`` is never half a file. Attached vectors are not saved.

        Parameters
        ----------
        path : str, os.PathLike, bytes or binary file object
            As for :meth:`aphash.HammingIndex.save`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before fit.
        OSError
            With the path, when it cannot be written; what was there stays.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, keep="int8", random_state=0).fit(X)
        >>> import io
        >>> file = io.BytesIO()
        >>> index.save(file)
        >>> VectorIndex.load(file.getvalue())
        VectorIndex(n_bits=16, mode='scores', metric='cosine', keep='int8'), 1000 vectors of 16 numbers
        """
        arrays, params = index_file.to_file(self._fitted(), self.get_params())
        container.write(path, arrays, kind=index_file.KIND, version=index_file.version_of(params), params=params)

    @classmethod
    def load(cls, path, *, mmap=False, verify=None):
        """Return the index that :meth:`save` wrote; numpy alone is needed.

        Parameters
        ----------
        path : str, os.PathLike, bytes or binary file object
            As for :meth:`aphash.HammingIndex.load`.
        mmap : bool, default=False
            Search codes, and read kept vectors, where they lie in the file, which is opened without being read. It may
            be changed in memory, and saved over itself.
        verify : bool, optional
            Whether the arrays' checksums are verified. By default they are, but for a mapped file.

        Raises
        ------
        OSError, ValueError
            With the path and what is wrong, when it cannot be read, is not such a file, or not whole.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import VectorIndex
        >>> X = np.random.default_rng(0).standard_normal((1000, 16))
        >>> index = VectorIndex(16, keep="int8", random_state=0).fit(X)
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "vectors.aphash")
        ...     index.save(path)
        ...     VectorIndex.load(path, mmap=True).search(X[7], 1).ids
        array([7])
        """
        arrays, params, version = container.read(path, kind=index_file.KIND, mmap=mmap, verify=verify)
        check = not mmap if verify is None else verify
        index, state = index_file.from_file(cls._checked, path, arrays, params, version, check)
        index._state = state
        return index

    @classmethod
    def _checked(cls, **given):
        index = cls(**given)
        index._check_params()
        return index

    # ---- pickling, and copying: as a file ----

    def __getstate__(self):
        own = {name: value for name, value in self.__dict__.items() if name not in ("_state", "_changes")}
        if self._state is None:
            return {"own": own, "file": None, "attached": None}
        file = io.BytesIO()
        self.save(file)
        return {"own": own, "file": file.getvalue(), "attached": self._state.attached}

    def __setstate__(self, state):
        self.__dict__.update(state["own"], _changes=Changes(), _state=None)
        if state["file"] is not None:
            loaded = VectorIndex.load(state["file"])._state
            self._state = replace(loaded, attached=state["attached"])

    def _encoded(self, state, X):
        """Return rows that are checked, and their codes."""
        X, threads, _ = state.encoder._read(X, self.n_jobs)
        codes = np.empty((len(X), n_words(state.encoder.n_bits)), np.uint64)
        encode_rows(state.encoder, X, state.metric, codes, np.arange(len(X)), threads)
        return X, note_origin(codes, state.encoder.n_bits, state.encoder.fingerprint)


_PARAMETERS = ("n_bits", "mode", "metric", "keep", "n_train", "random_state", "n_jobs", "verbose")
