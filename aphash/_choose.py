"""choose: which recipe suits the data, by trying some on a sample; nothing needs labels."""

import time
import warnings
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from aphash import _kernels
from aphash._common import threads
from aphash._common.arrays import shown
from aphash._common.checks import check_count
from aphash._common.finite import check_finite
from aphash._common.progress import ProgressBar
from aphash._learning.blocks import draw_rows
from aphash._learning.estimator import APHash, checked_rows
from aphash._measuring.brute_force import nearest_rows
from aphash._measuring.recall import ranks, search_by_weights

WHAT = ("neighbors", "kind")

_LEAST_ROWS = 200
_QUERIES, _QUERIES_SHARE = 500, 10  # at most; one of so many rows
_K, _CANDIDATES = 10, 100  # what is judged: so many true neighbours among so many candidates
_COMPONENTS, _CLUSTERS = 64, (10, 30)  # of the partitions that stand for kinds
_TOLERANCE = 0.005  # of a score, below which nothing is bought for it; and one standard error
_MODES = {  # that are tried, by what a code costs: of as good ones the first is taken
    "neighbors": ("neighbors", "semantic", "scores"), "kind": ("neighbors", "semantic", "scores", "semantic-scores"),
}  # fmt: skip
_FEWER_ROWS, _FEWER_ROWS_FROM = 4, 4000  # a share of the rows that learn, where there are so many


def choose(X, *, n_bytes=8, what="neighbors", n_rows=20_000, random_state=None, n_jobs=None, verbose="auto"):
    """Choose mode, rounds, training rows and bits for your data: try recipes on a sample, and judge without labels.

    Parameters
    ----------
    X : array_like of shape (n, d)
        What :meth:`aphash.APHash.fit` takes; at least 200 rows. Euclidean distances are compared: normalise rows first
        where the cosine is meant. Of a memory map only the sample is read.
    n_bytes : int, default=8
        Of a code, at most. Half of them are chosen where they do as well.
    what : {"neighbors", "kind"}, default="neighbors"
        "neighbors": the true nearest neighbours are to be found. "kind": more of the same kind are.
    n_rows : int, default=20,000
        Rows of the sample, drawn at random; at least 200.
    random_state : int, RandomState or Generator instance, or None, default=None
        The same number gives the same choice, whatever n_jobs, but for the seconds.
    n_jobs : int or None, default=None
        Threads. None: all CPUs.
    verbose : int or "auto", default="auto"
        Show a progress bar; auto: when it takes more than 3 seconds, at a terminal or in a notebook.

    Returns
    -------
    Choice
        ``print(choice)`` is the table of what was tried, ``choice.best_params_`` the parameters for APHash,
        ``choice.best_estimator_`` an APHash with them, which is to be fitted to all of X, ``choice.trials_`` the
        numbers.

    Raises
    ------
    TypeError, ValueError
        For a parameter or an X that cannot be used, before anything is learned.

    Notes
    -----
    A tenth of the sample, at most 500 rows, does not learn: these rows are searched for by weights
    (:meth:`aphash.APHash.query_projections`) among all rows of the sample. ``what="neighbors"`` is judged by the share
    of the true 10 nearest among the first 10 and among the first 100, the mean of both. ``what="kind"`` is judged by
    agreement with clusters of the vectors: the sample's first 64 principal components, each divided by the root of its
    deviation so that the largest do not decide alone, are divided by k-means into 10 clusters and into 30, and the
    share of the first 100 in the query's own cluster, the mean of both, stands for the share of its kind. How well that
    agreed with labels on five sets is told in bench/README.md: it is a guide, and no proof. Where you have labels, use
    :func:`aphash.metrics.precision_at_k`.

    The modes are tried first, then other rounds (or fewer anchors) of the best, then fewer rows that learn, then half
    of the bytes. Of recipes that are not told apart (their scores differ by less than .005, or by less than the
    standard error of the difference over the queries) the one is chosen whose codes need fewer bytes, then the mode
    that encodes faster, then fewer rows that learn and fewer rounds. ``n_train`` is among the parameters only where
    fewer rows did as well. Recall among a sample is higher than among all rows.

    It takes some ten fits to the sample, about a minute for 20,000 x 512, and their memory; the sample is copied.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import aphash
    >>> choice = aphash.choose(load_digits().data, n_bytes=4, random_state=0)
    >>> hasher = choice.best_estimator_.fit(load_digits().data)
    >>> hasher.n_bits <= 32
    True
    """
    if not isinstance(what, str) or what not in WHAT:
        raise ValueError(f"what must be one of {', '.join(map(repr, WHAT))}, got {shown(what)}")
    n_bytes = check_count(n_bytes, "n_bytes", 1)
    n_rows = check_count(n_rows, "n_rows", _LEAST_ROWS)
    n_threads = threads.n_threads(n_jobs, _kernels.max_threads())
    rng = APHash(random_state=random_state)._random_state()
    sample, n = _sample(X, n_rows, rng, n_threads)
    bench = _Bench(sample, what, rng, n_jobs, n_threads)
    stages = _stages(what, 8 * n_bytes, len(bench.learning))
    total = sum(max(map(len, of_mode.values())) if isinstance(of_mode, dict) else len(of_mode) for of_mode in stages)
    with ProgressBar(verbose, total, "recipe", "choose") as progress:
        for of_mode in stages:
            known = bench.params()
            leader = known[bench.best()] if known else {}
            for changes in of_mode.get(leader["mode"], ()) if isinstance(of_mode, dict) else of_mode:
                bench.do({"n_bits": 8 * n_bytes} | leader | changes)
                progress.update(1)
    return bench.choice(n)


class Choice:
    """What :func:`aphash.choose` found; ``print`` shows it as a table.

    Attributes
    ----------
    best_params_ : dict
        Of the recipe that was chosen, for :class:`aphash.APHash`.
    best_score_ : float
    best_index_ : int
        Its place in ``trials_``.
    trials_ : list of dict
        What was tried, in that order: ``params`` for APHash; ``score``, what the choice is made by, from 0 to 1;
        ``error``, the standard error of its difference to the highest score; ``recall_at_10`` and ``recall_at_100``,
        the share of the true 10 nearest among the first 10 and 100 by weights; of ``what="kind"`` also ``kind``, the
        share of the first 100 that are of the query's kind; ``seconds`` to learn from the sample and to encode it.
    what : {"neighbors", "kind"}
    n_rows_, n_queries_ : int
        Rows of the sample, and how many of them were searched for among all of it; these did not learn.
    n_ : int
        Rows of X.
    best_estimator_ : APHash
        With ``best_params_``, not fitted: fit it to all of X.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import aphash
    >>> choice = aphash.choose(load_digits().data, n_bytes=2, n_rows=400, random_state=0)
    >>> choice.best_params_["n_bits"] <= 16, choice.trials_[choice.best_index_]["params"] == choice.best_params_
    (True, True)
    """

    __module__ = "aphash"

    def __init__(self, what: str, trials: list[dict[str, Any]], best: int, n: int, n_rows: int, n_queries: int) -> None:
        self.what, self.trials_, self.best_index_ = what, trials, best
        self.n_, self.n_rows_, self.n_queries_ = n, n_rows, n_queries

    @property
    def best_params_(self) -> dict[str, Any]:
        return dict(self.trials_[self.best_index_]["params"])

    @property
    def best_score_(self) -> float:
        return self.trials_[self.best_index_]["score"]

    @property
    def best_estimator_(self) -> APHash:
        return APHash(**self.best_params_)

    def __repr__(self) -> str:
        judged = f"{_JUDGED[self.what]} {self.best_score_:.3f}"
        return f"<choice of {self.best_estimator_!r} among {len(self.trials_)}: {judged}>"

    def __str__(self) -> str:
        titles = ["", "recipe", "bytes", "10@10", "10@100", *(["kind"] if self.what == "kind" else []), "seconds"]
        lines = [titles]
        for place, trial in enumerate(self.trials_):
            lines.append(
                [
                    ">" if place == self.best_index_ else "",
                    described(trial["params"]),
                    f"{trial['params']['n_bits'] / 8:g}",
                    f"{trial['recall_at_10']:.3f}",
                    f"{trial['recall_at_100']:.3f}",
                    *([f"{trial['kind']:.3f}"] if self.what == "kind" else []),
                    f"{trial['seconds']:.1f}",
                ]
            )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        sides = [str.ljust, str.ljust, *[str.rjust] * len(titles)]
        table = ["  ".join(side(*each) for side, *each in zip(sides, line, widths)) for line in lines]
        notes = [
            f"{self.n_queries_} rows that did not learn were searched for by weights among {self.n_rows_:,} of "
            f"{self.n_:,} rows.",
            "10@10, 10@100: the share of the true 10 nearest among the first 10 and 100.",
        ]
        if self.what == "kind":
            notes.append("kind: the share of the first 100 in the query's cluster; no labels were used.")
        chosen = ", ".join(f"{name}={value!r}" for name, value in self.best_params_.items())
        return "\n".join([*map(str.rstrip, table), "", *notes, f"Chosen: APHash({chosen})"])


_JUDGED = {"neighbors": "mean recall", "kind": "share of the kind"}


def described(params):
    """Return parameters as a text, without the bits."""

    def word(name, value):
        return value if name == "mode" else f"{name}={value:,}" if isinstance(value, int) else f"{name}={value:g}"

    return ", ".join(word(name, value) for name, value in params.items() if name != "n_bits")


def _sample(X, n_rows, rng, n_threads):
    """Return rows of X as floats, in C order, and how many rows X has."""
    X = checked_rows(X, APHash())
    n = len(X)
    if n < _LEAST_ROWS:
        raise ValueError(f"X must have at least {_LEAST_ROWS} rows to choose by, got {n}")
    sample = X[draw_rows(n, n_rows, rng)] if n > n_rows else X
    check_finite(sample, n_threads)
    return (sample.astype(np.float32) if sample.dtype == np.float16 else sample), n


def _stages(what, n_bits, n_learning):
    """Return the changes to try, stage by stage: a list, or lists by the mode that leads by then."""
    fewer = [{"n_train": n_learning // _FEWER_ROWS}] if n_learning >= _FEWER_ROWS_FROM else []
    more = [{"n_rounds": 6}, {"n_rounds": 12}, {"n_neighbors": 0.02}]
    more += [{"max_iter": 0, "whitening": 0.0, "n_rounds": 8}]  # no descent: better on some text
    anchors = [{"n_anchors": n_learning // 2}] if n_learning >= _FEWER_ROWS_FROM else []
    return [
        [{"mode": mode} for mode in _MODES[what]],
        {
            "semantic": more,
            "neighbors": [{"n_rounds": 4}, {"n_rounds": 12}],
            "scores": anchors,
            "semantic-scores": anchors,
        },
        fewer,
        [{"n_bits": n_bits // 2}] if n_bits >= 16 else [],
    ]


class _Bench:
    """The sample, what is true of it, and the recipes that were tried on it."""

    def __init__(self, X, what, rng, n_jobs, n_threads):
        self.X, self.what, self.n_jobs, self.n_threads = X, what, n_jobs, n_threads
        n = len(X)
        self.queries = draw_rows(n, min(_QUERIES, n // _QUERIES_SHARE), rng)
        learns = np.ones(n, bool)
        learns[self.queries] = False
        self.learning = np.ascontiguousarray(X[learns])
        self.seed = int(rng.randint(1 << 31))
        self.true = nearest_rows(X, self.queries, "l2", _K, n_threads)[1]
        self.clusters = _clusters(X, self.seed) if what == "kind" else None
        self.tried = []  # (params, score of each query, measures)

    def params(self):
        return [params for params, _, _ in self.tried]

    def do(self, params):
        """Try a recipe."""
        begun = time.perf_counter()
        hasher = APHash(
            **{"n_train": len(self.learning)} | params, random_state=self.seed, n_jobs=self.n_jobs, verbose=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few directions, few codes: the fit to all of X says so
            hasher.fit(self.learning)
        codes, weights = hasher.transform(self.X), hasher.query_projections(self.X[self.queries])
        seconds = time.perf_counter() - begun
        find = search_by_weights(codes, weights, self.n_threads)
        rank = ranks(find, len(self.X), self.queries, self.true, _CANDIDATES)
        many, few = (rank <= _CANDIDATES).mean(axis=1), (rank <= _K).mean(axis=1)
        kind = self._kind(find) if self.clusters is not None else None
        measures = {"recall_at_10": float(few.mean()), "recall_at_100": float(many.mean()), "seconds": seconds}
        if kind is not None:
            measures["kind"] = float(kind.mean())
        self.tried.append((params, (few + many) / 2 if kind is None else kind, measures))

    def _kind(self, find):
        """Return which share of each query's first results is in its clusters."""
        n_first = min(_CANDIDATES, len(self.X) - 1)
        found = find(slice(None), n_first + 1)
        others = found != self.queries[:, np.newaxis]
        others[others.all(axis=1), -1] = False  # where the row itself is not among them
        found = found[others].reshape(-1, n_first)
        same = [labels[found] == labels[self.queries, np.newaxis] for labels in self.clusters]
        return np.mean([each.mean(axis=1) for each in same], axis=0)

    def best(self):
        """Return the place of the cheapest recipe that is not told apart from the one with the highest score."""
        scores = [score for _, score, _ in self.tried]
        top = int(np.argmax([score.mean() for score in scores]))
        good = [
            at
            for at, score in enumerate(scores)
            if scores[top].mean() - score.mean() <= max(_TOLERANCE, self._error(at, top))
        ]
        return min(good, key=lambda at: self._cost(self.tried[at][0]))

    def _error(self, at, top):
        away = self.tried[top][1] - self.tried[at][1]
        return float(away.std() / np.sqrt(len(away)))

    def _cost(self, params):
        default = APHash(mode=params["mode"])._settings(len(self.learning))
        return (
            params["n_bits"],
            _MODES[self.what].index(params["mode"]),
            params.get("n_train", len(self.learning)),
            params.get("n_anchors", default.n_anchors),
            params.get("n_rounds", default.n_rounds) * (1 + params.get("max_iter", default.max_iter)),
            "n_neighbors" in params,
        )

    def choice(self, n):
        """Return the Choice."""
        top = int(np.argmax([score.mean() for _, score, _ in self.tried]))
        trials = [
            {"params": params, "score": float(score.mean()), "error": self._error(at, top)} | measures
            for at, (params, score, measures) in enumerate(self.tried)
        ]
        return Choice(self.what, trials, self.best(), n, len(self.X), len(self.queries))


def _clusters(X, seed):
    """Return the clusters of the rows, (len(_CLUSTERS), n): k-means on half-whitened principal components.

    On the components as they are, clusters of Fashion-MNIST's pixels told the modes in the wrong order.
    """
    with threadpool_limits(1):  # sums of several threads have no one order
        if (X[0] == X).all():
            return np.zeros((len(_CLUSTERS), len(X)), np.int32)
        pca = PCA(min(_COMPONENTS, *X.shape), random_state=seed).fit(X)
        deviations = np.sqrt(pca.explained_variance_)
        used = deviations > 1e-6 * deviations[0]
        V = (pca.transform(X)[:, used] * deviations[used] ** -0.5).astype(np.float32)
        most = len(np.unique(V, axis=0))
        return np.stack(
            [KMeans(min(k, most), n_init=1, max_iter=30, random_state=seed).fit(V).labels_ for k in _CLUSTERS]
        )
