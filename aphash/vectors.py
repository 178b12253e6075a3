"""VectorIndex: from vectors to ids, in one object. A face over APHash, HammingIndex and VectorRescore."""

import contextlib
import copy
import io
import numbers
import os
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from aphash import _kernels
from aphash._common import container
from aphash._common.arrays import as_floats, shown
from aphash._common.checks import check_count, check_ids
from aphash._common.finite import check_finite
from aphash._common.threads import n_threads
from aphash._learning import item_encoder, recipe
from aphash._learning.encoder import ARRAYS, Encoder, encode, names_of, project, refuse_sparse
from aphash._measuring import brute_force
from aphash._searching import calibration, index_file
from aphash._searching.calibration import Calibration
from aphash._searching.kept import KINDS, KeptRescore, KeptVectors
from aphash.codes import check_n_bits, n_words, note_origin
from aphash.index import HammingIndex
from aphash.rescore import VectorRescore, with_queries

KIND, VERSION = "VectorIndex", 1

RECALL = 0.95  # of a search that does not say

_METRICS = ("cosine", "l2")
_TRAIN_ROWS = 250_000  # what n_train="auto" learns from at most
_QUERIES = 1000  # rows that do not learn, but calibrate; at most a fifth
_BLOCK_BYTES = 1 << 24  # of rows that are normalised and encoded at a time
_FILTERED = 2  # times as many candidates with a filter
_GRAPH_ROWS = 1024  # that are searched for at a time


class Found:
    """What a search found: ``distances, ids = found``; and where the distances come from.

    Attributes
    ----------
    distances, ids : ndarray
    offsets : ndarray
        Of a radius search, which unpacks as ``offsets, distances, ids = found``.
    exact : bool
        Whether the distances are those of vectors; otherwise they are estimated from the codes.
    candidates : int
        How many codes were ranked anew for each query (of a radius search, on average), 0 where none were.
    recall : float
        The share of the true nearest neighbours that is expected in the results.
    """

    def __init__(self, parts: tuple[np.ndarray, ...], exact: bool, candidates: int, recall: float) -> None:
        self._parts, self.exact, self.candidates, self.recall = parts, exact, candidates, recall

    @property
    def distances(self) -> np.ndarray:
        return self._parts[-2]

    @property
    def ids(self) -> np.ndarray:
        return self._parts[-1]

    @property
    def offsets(self) -> np.ndarray:
        if len(self) != 3:
            raise AttributeError("only a radius search has offsets")
        return self._parts[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, place: int) -> np.ndarray:
        return self._parts[place]

    def __repr__(self) -> str:
        kind = f"exact, of {self.candidates} candidates" if self.exact else "estimated"
        parts = ", ".join(map(repr, self._parts))
        return f"<found: {parts}; distances {kind}; expected recall {self.recall:.3g}>"


class Pairs:
    """The near pairs of an index, block by block: an iterator over ``(ids_i, ids_j, distances)``.

    Attributes
    ----------
    radius : int
        Bits by which codes may differ.
    recall : float
        The share of all pairs within the distance that is expected.
    precision : float
        The share of what is found that is expected to be within the distance: 1 where vectors verify it.
    exact : bool
        Whether distances are those of vectors.
    """

    def __init__(self, blocks: Generator, radius: int, recall: float, precision: float, exact: bool) -> None:
        self._blocks, self.radius, self.recall, self.precision, self.exact = blocks, radius, recall, precision, exact

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return next(self._blocks)

    def close(self) -> None:
        """Stop; what the pairs keep of the index is given back."""
        self._blocks.close()

    def __repr__(self) -> str:
        kind = "verified" if self.exact else f"precision {self.precision:.3g}"
        return f"<pairs within {self.radius} bits: expected recall {self.recall:.3g}, {kind}>"


@dataclass(frozen=True)
class _State:
    """All that a fitted index holds, replaced as a whole: a search sees one of it from beginning to end."""

    encoder: Encoder
    codes: HammingIndex
    kept: KeptVectors | None
    attached: VectorRescore | None
    calibration: Calibration
    metric: str

    def rescore(self):
        """Return what ranks anew, or None."""
        if self.attached is not None:
            return self.attached
        return None if self.kept is None else KeptRescore(self.kept, self.metric)

    def has_vectors(self):
        return self.attached is not None or self.kept is not None


class VectorIndex:
    """Search of vectors by learned codes, in one object: normalise, learn, encode, search, rank anew, change, save.

    Codes of ``n_bits`` are learned from the vectors (:class:`aphash.APHash`) and searched exactly, by the queries'
    weights (:class:`aphash.HammingIndex`); where the index keeps the vectors or is lent them, the nearest codes are
    ranked anew by them (:class:`aphash.VectorRescore`). How many codes that takes for a recall that is asked for is
    measured when the index is fitted.

    Parameters
    ----------
    n_bits : int, default=64
    mode : {"scores", "semantic", "neighbors", "paper"} or Recipe, default="scores"
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
    A fifth of the rows, at most 1,000, do not learn: their true neighbours among all rows are found by exact search
    (some 1,000 n d multiply-adds), and their ranks in the search by codes tell how many candidates give what recall of
    1, 10 and 100 results; in between it is interpolated. Of 1,000 rows, the standard error of a recall of .95 is below
    .007. Candidates grow in proportion to the index, which is more than
    they need to. With fewer than five rows nothing is measured, and all codes are candidates.

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
        self._changes = _Changes()

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
        from sklearn.utils import check_random_state

        from aphash._learning.blocks import draw_rows
        from aphash._learning.estimator import APHash

        self._check_params()
        names, X = names_of(X), _rows_to_fit(X)
        threads = n_threads(self.n_jobs, _kernels.max_threads())
        check_finite(X, threads)
        n = len(X)
        ids = None if ids is None else check_ids(ids, n)
        seed = self.random_state
        if isinstance(seed, np.random.Generator):
            seed = int(seed.integers(1 << 32))
        rng = check_random_state(seed)
        held_out = draw_rows(n, min(_QUERIES, n // 5), rng)
        learning = np.ones(n, bool)
        learning[held_out] = False
        learning = np.flatnonzero(learning)
        n_train = _TRAIN_ROWS if isinstance(self.n_train, str) else self.n_train
        if n_train < len(learning):
            learning = learning[draw_rows(len(learning), n_train, rng)]

        hasher = APHash(
            self.n_bits, mode=self.mode, n_train=max(2, len(learning)), n_jobs=self.n_jobs, verbose=self.verbose,
            random_state=rng.randint(1 << 31),
        ).fit(_working(X[learning], self.metric))  # fmt: skip
        learned = hasher.encoder_
        encoder = Encoder(
            learned.coef, learned.intercept, learned.mean, learned.scale,
            items=learned.items, n_jobs=self.n_jobs, feature_names=names,
        )  # fmt: skip
        codes = np.empty((n, n_words(self.n_bits)), np.uint64)
        if encoder.items is not None:  # of these, codes_ are what transform gives
            codes[learning] = hasher.codes_
            others = np.ones(n, bool)
            others[learning] = False
            _encode(encoder, X, self.metric, codes, np.flatnonzero(others), threads)
        else:
            _encode(encoder, X, self.metric, codes, np.arange(n), threads)
        del hasher
        note_origin(codes, self.n_bits, encoder.fingerprint)
        index = HammingIndex(self.n_bits)
        ids = index.add(codes, ids=ids)
        kept = None if self.keep is None else KeptVectors(self.keep, X.shape[1]).put(X, ids)
        measured = self._calibrated(X, held_out, encoder, index, kept, rng, threads)
        with self._changes:
            self._state = _State(encoder, index, kept, None, measured, self.metric)
        return self

    def _calibrated(self, X, rows, encoder, index, kept, rng, threads):
        n, m = len(X), len(rows)
        if m == 0:
            return calibration.nothing(n)
        true_distances, true = brute_force.nearest_rows(X, rows, self.metric, calibration.N_TRUE, threads)
        others = calibration.other_rows(n, rows, true, rng)
        queries, by_vectors = X[rows], VectorRescore(X, metric=self.metric)
        ids = index.ids
        kept_distances = true_distances
        if kept is not None:
            kept_distances = with_queries(KeptRescore(kept, self.metric), queries).distances(0, ids[true])
        weights = _weights(encoder, queries, self.metric, threads)
        return calibration.measure(
            index, weights, index.get(ids[rows]), rows, true, true_distances, kept_distances, others,
            with_queries(by_vectors, queries).distances(0, others),
        )  # fmt: skip

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
            "n": n, "n_features": d, "n_bits": self.n_bits, "mode": self.mode, "metric": state.metric,
            "keep": kind, "attached": state.attached is not None,
            "distances": "exact" if state.has_vectors() else "estimated",
            "code_bytes": -(-self.n_bits // 8), "vector_bytes": vector_bytes, "nbytes": self.nbytes,
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
            codes_after = _successor(state.codes)
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
            codes_after = _successor(state.codes)
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
            codes_after = _successor(state.codes)
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
            codes_after = _successor(state.codes)
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
        found = _vectors_of(state, np.atleast_1d(np.asarray(ids, np.int64)))
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
        candidates, expected = _plan(state, k, recall, candidates, expand, filter is not None)
        Q, threads, one = state.encoder._read(Q, n_jobs)
        weights = _weights(state.encoder, Q, state.metric, threads)
        shared = {"filter": filter, "expand": expand, "expand_weight": expand_weight, "n_jobs": n_jobs}
        if candidates:
            rescore = copy.copy(state.rescore())
            rescore.factor = candidates / k
            distances, ids = state.codes.search(weights, k, rescore=rescore, rescore_queries=Q, **shared)
        else:
            distances, ids = state.codes.search(weights, k, **shared)
            if not expand:
                distances = _estimated(state, distances, _sums(weights)[:, np.newaxis])
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
        distance, recall = _check_distance(distance), _check_recall(recall)
        Q, threads, _ = state.encoder._read(Q, n_jobs)
        weights = _weights(state.encoder, Q, state.metric, threads)
        weights = weights / _sums(weights)[:, np.newaxis]  # distances are shares of the weights then
        radius, expected, _ = state.calibration.radius_for(distance, recall, "shares")
        offsets, shares, ids = state.codes.radius_search(weights, min(radius, 2.0), filter=filter, n_jobs=n_jobs)
        exact = state.has_vectors()
        if not exact:
            return Found((offsets, _estimated(state, shares, 1.0), ids), False, 0, expected)
        query = np.repeat(np.arange(len(Q)), np.diff(offsets))
        distances = np.empty(len(ids))
        step = max(1, _BLOCK_BYTES // (8 * Q.shape[1]))
        for start in range(0, len(ids), step):
            some = slice(start, start + step)
            distances[some] = _distances(state, Q[query[some]], ids[some])
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
        distance, recall = _check_distance(distance), _check_recall(recall)
        radius, expected, precision = state.calibration.radius_for(distance, recall, "bits")
        radius = int(min(radius, self.n_bits))
        found = state.codes.pairs(radius, filter=filter, n_jobs=n_jobs, verbose=verbose)
        exact = state.has_vectors()
        blocks = _verified(state, found, distance) if exact else _with_estimates(state, found)
        return Pairs(blocks, radius, expected, 1.0 if exact else precision, exact)

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
        candidates, _ = _plan(state, k + 1, recall, None, 0)
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
            V = np.ascontiguousarray(as_floats(_vectors_of(state, rows), "X"))
            weights = _weights(state.encoder, V, state.metric, n_threads(n_jobs, _kernels.max_threads()))
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
        arrays, params = self._to_file()
        container.write(path, arrays, kind=KIND, version=VERSION, params=params)

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
        arrays, params, version = container.read(path, kind=KIND, mmap=mmap, verify=verify)
        return cls._from_file(path, arrays, params, version, not mmap if verify is None else verify)

    def _to_file(self):
        state = self._fitted()
        snapshot = state.codes._store.present
        parts = {
            "encoder": _encoder_to_file(state.encoder),
            "index": index_file.to_file(snapshot),
            "calibration": state.calibration.to_file(),
        }
        if state.kept is not None:
            parts["kept"] = state.kept.to_file(snapshot.load_ids(0, len(snapshot)))
        given = {name: getattr(self, name) for name in _PARAMETERS}
        given |= {"mode": recipe.to_file(self.mode), "metric": state.metric}
        given["random_state"] = self.random_state if isinstance(self.random_state, numbers.Integral) else None
        arrays = {f"{part}.{name}": each for part, (own, _) in parts.items() for name, each in own.items()}
        return arrays, {"given": given, **{part: params for part, (_, params) in parts.items()}}

    @classmethod
    def _from_file(cls, path, arrays, params, version, check):
        name = container.name_of(path)
        if not 1 <= version <= VERSION:
            raise ValueError(f"{name}: version {version} of such a file; this aphash reads up to {VERSION}")
        parts = {part: {} for part in ("encoder", "index", "calibration", "kept")}
        for full, each in arrays.items():
            part, _, own = full.partition(".")
            parts.setdefault(part, {})[own] = each
        try:
            index = cls(**recipe.from_file(params["given"]))
            index._check_params()
            encoder = Encoder._from_file(path, parts["encoder"], params["encoder"])
            own = path, parts["index"], params["index"], index_file.VERSION
            codes = HammingIndex._of(index_file.from_file(*own, check))
            kept = None
            if "kept" in params:
                kept = KeptVectors.from_file(path, parts["kept"], params["kept"], *own[1:])
            measured = Calibration.from_file(parts["calibration"], params["calibration"])
            if codes.n_bits != encoder.n_bits or codes.fingerprint not in (None, encoder.fingerprint):
                raise ValueError("the codes are those of another model")
            if kept is not None and (len(kept) != len(codes) or kept.n_features != encoder.n_features):
                raise ValueError("the vectors are not those of the codes")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if str(error).startswith(name):
                raise
            raise ValueError(f"{name}: not a whole VectorIndex: {error!r}") from None
        index._state = _State(encoder, codes, kept, None, measured, index.metric)
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
        self.__dict__.update(state["own"], _changes=_Changes(), _state=None)
        if state["file"] is not None:
            loaded = VectorIndex.load(state["file"])._state
            self._state = replace(loaded, attached=state["attached"])

    def _encoded(self, state, X):
        """Return rows that are checked, and their codes."""
        X, threads, _ = state.encoder._read(X, self.n_jobs)
        codes = np.empty((len(X), n_words(state.encoder.n_bits)), np.uint64)
        _encode(state.encoder, X, state.metric, codes, np.arange(len(X)), threads)
        return X, note_origin(codes, state.encoder.n_bits, state.encoder.fingerprint)


_PARAMETERS = ("n_bits", "mode", "metric", "keep", "n_train", "random_state", "n_jobs", "verbose")


class _Changes:
    """One change at a time: a lock, anew in a forked child, which refuses a change inside a change of its thread."""

    def __init__(self):
        self._lock, self._process, self._owner = threading.Lock(), os.getpid(), None

    def __enter__(self):
        if self._process != os.getpid():  # whoever held it does not exist here
            self.__init__()
        if self._owner == threading.get_ident():
            raise RuntimeError(
                "the index is being changed by this thread: a signal handler or finaliser cannot change it meanwhile"
            )
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(self, *_):
        self._owner = None
        self._lock.release()


def _plan(state, k, recall, candidates, expand, filtered=False):
    """Return (how many codes are ranked anew, 0 for none; the recall that is expected).

    With a filter twice as many: neighbours are farther where it leaves out those that are near, and codes say less of
    what is far.
    """
    more = _FILTERED if filtered and candidates is None else 1
    n, measured = len(state.codes), state.calibration
    if recall is not None and candidates is not None:
        raise TypeError("recall and candidates were both given: either says how many codes are ranked anew")
    if recall is not None:
        recall = _check_recall(recall)
        if expand:
            raise ValueError("recall is not known of a search with expand: pass candidates instead")
        if not state.has_vectors():
            best = measured.recall_for(k, k, n)
            raise ValueError(
                f"recall={recall:g} needs vectors to rank by, and the codes alone find {best:.3f} of the {k} nearest: "
                "fit with keep='float32', 'float16' or 'int8', or attach_vectors(X)"
            )
    if candidates is not None:
        candidates = check_count(candidates, "candidates", 0)
        if candidates and not state.has_vectors():
            raise ValueError("candidates need vectors to rank by: fit with keep=..., or attach_vectors(X)")
        if candidates and candidates < k:
            raise ValueError(f"candidates must be 0 or at least k={k}, got {candidates}")
        candidates = min(candidates, max(n, k))
    elif not state.has_vectors() or expand:
        candidates = 0
    else:
        wanted = RECALL if recall is None else recall
        candidates = measured.candidates_for(wanted, k, n)
        if candidates is None and recall is None:
            candidates = measured.best(k, n)[1]
        elif candidates is None:
            best, most = measured.best(k, n)
            raise ValueError(
                f"recall={recall:g} of {k} results was not reached: the best that was measured is {best:.4f}, with "
                f"{most} candidates. More bits or finer vectors (keep) find more; candidates={n} ranks all by vectors"
            )
        candidates = max(min(more * candidates, n), k)
    if n == 0:
        return 0, 1.0
    return candidates, measured.recall_for(max(candidates // more, k), k, n)


def _check_recall(recall):
    if isinstance(recall, bool) or not isinstance(recall, numbers.Real):
        raise TypeError(f"recall must be a number, got {shown(recall)}")
    if not 0 < recall <= 1:
        raise ValueError(f"recall must be above 0 and at most 1, got {recall}")
    return float(recall)


def _check_distance(distance):
    if isinstance(distance, bool) or not isinstance(distance, numbers.Real):
        raise TypeError(f"distance must be a number, got {shown(distance)}")
    if not distance >= 0:
        raise ValueError(f"distance must be at least 0, got {distance}")
    return float(distance)


def _rows_to_fit(X):
    """Return X as float rows in C order; TypeError or ValueError that names it otherwise."""
    refuse_sparse(X)
    X = as_floats(X, "X")
    if X.ndim != 2:
        raise ValueError(f"X must have shape (n, d), got {X.shape}. Reshape your data")
    if len(X) < 2 or X.shape[1] < 1:
        raise ValueError(f"X must have at least 2 rows and 1 column, got shape {X.shape}")
    return np.ascontiguousarray(X)


def _working(X, metric):
    """Return what the hash function is learned of and applied to."""
    return brute_force.working(X, metric) if metric == "cosine" else X


def _encode(encoder, X, metric, codes, rows, threads):
    """Write the codes of some rows of X, in blocks."""
    step = max(1, _BLOCK_BYTES // (4 * X.shape[1]))
    whole = len(rows) == len(X)
    for start in range(0, len(rows), step):
        some = slice(start, start + step) if whole else rows[start : start + step]
        block = np.ascontiguousarray(_working(X[some], metric))
        check_finite(block, 1, encoder._farthest)
        codes[some] = encode(encoder, block, threads)


def _weights(encoder, Q, metric, threads):
    return project(encoder, np.ascontiguousarray(_working(Q, metric)), threads)


def _sums(weights):
    """Return the sum of each query's weights, by which distances are shares of them."""
    sums = np.abs(weights).sum(axis=1, dtype=np.float64)
    return np.where(sums > 0, sums, 1)


def _estimated(state, distances, sums):
    none = np.isinf(distances)
    found = state.calibration.estimated(np.where(none, 0, distances / sums), "shares")
    found[none] = np.inf
    return found


def _successor(codes):
    return HammingIndex._of(codes._store.successor())


def _vectors_of(state, ids):
    """Return vectors by ids that are in the index."""
    if state.attached is None:
        return state.kept.get(ids)
    return state.attached._take(ids)


def _distances(state, vectors, ids):
    """Return the distances (m,) of vectors (m, d) to those of ids (m,), one each."""
    return with_queries(state.rescore(), vectors).distances(0, ids[:, np.newaxis])[:, 0]


def _verified(state, blocks, distance):
    step = max(1, _BLOCK_BYTES // (8 * state.encoder.n_features))
    with contextlib.closing(blocks):
        for ids_i, ids_j, _ in blocks:
            distances = np.empty(len(ids_i), np.float32)
            for start in range(0, len(ids_i), step):
                some = slice(start, start + step)
                distances[some] = _distances(state, _vectors_of(state, ids_i[some]), ids_j[some])
            near = distances <= np.float32(distance)
            if near.any():
                yield ids_i[near], ids_j[near], distances[near]


def _with_estimates(state, blocks):
    with contextlib.closing(blocks):
        for ids_i, ids_j, bits in blocks:
            yield ids_i, ids_j, state.calibration.estimated(bits, "bits")


def _encoder_to_file(encoder):
    """Return (arrays, params) that :meth:`Encoder._from_file` takes."""
    arrays = {name: getattr(encoder, name.rstrip("_")) for name in ARRAYS}
    params = {"scale_": encoder.scale, "fingerprint_": encoder.fingerprint, "given": {"n_jobs": encoder.n_jobs}}
    if encoder.items is not None:
        arrays |= {f"items_{name}": encoder.items.arrays[name] for name in item_encoder.ARRAYS}
        params["items_"] = encoder.items.numbers
    if encoder.feature_names is not None:
        params["feature_names_in_"] = list(encoder.feature_names)
    return arrays, params
