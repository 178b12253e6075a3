"""choose: its measures against brute force, its rule, what it shows, and bad input."""

import io
import pickle
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from test_recall import naive

import aphash
from aphash import APHash, Choice, choose
from aphash._choose import _Bench, _clusters, _sample, _stages, described


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(3)
    return (rng.standard_normal((500, 24)) + 3 * rng.standard_normal((12, 24))[rng.integers(12, size=500)]).astype("f4")


@pytest.fixture(scope="module")
def choices(X):
    return {what: choose(X, n_bytes=2, what=what, random_state=0, n_jobs=1) for what in ("neighbors", "kind")}


def bench(X, what="neighbors"):
    return _Bench(X, what, np.random.RandomState(0), 1, 1)


@pytest.mark.parametrize("mode", ["neighbors", "scores"])
def test_the_measures_against_brute_force(X, mode):
    it = bench(X, "kind")
    assert len(it.queries) == 50 and len(it.learning) == 450
    params = {"n_bits": 16, "mode": mode}
    it.do(params)
    ((_, score, measures),) = it.tried
    hasher = APHash(**params, random_state=it.seed, n_jobs=1).fit(it.learning)
    for k, name in ((10, "recall_at_10"), (100, "recall_at_100")):
        assert measures[name] == pytest.approx(naive(X, it.queries, hasher, 10, k), abs=1e-9)
    index = aphash.HammingIndex(16)
    index.add(hasher.transform(X))
    found = index.search(hasher.query_projections(X[it.queries]), 101)[1]
    shares = []
    for own, ids in zip(it.queries, found, strict=True):
        ids = ids[ids != own][:100]
        shares.append(np.mean([labels[ids] == labels[own] for labels in it.clusters]))
    np.testing.assert_allclose(score, shares)
    assert measures["kind"] == pytest.approx(np.mean(shares))
    assert it.choice(500).best_score_ == pytest.approx(np.mean(shares))


def test_neighbors_are_judged_by_both_recalls(X):
    it = bench(X)
    it.do({"n_bits": 16, "mode": "neighbors"})
    ((_, score, measures),) = it.tried
    assert score.mean() == pytest.approx((measures["recall_at_10"] + measures["recall_at_100"]) / 2)
    assert "kind" not in measures


def test_of_recipes_that_are_not_told_apart_the_cheapest(X):
    it = bench(X)
    rng = np.random.default_rng(0)
    base = rng.random(50)
    cheap, dear = {"n_bits": 16, "mode": "neighbors"}, {"n_bits": 16, "mode": "scores"}
    better, half = {"n_bits": 32, "mode": "scores"}, {"n_bits": 8, "mode": "semantic"}
    it.tried = [(dear, base, {}), (cheap, base - 0.004, {})]
    assert it.best() == 1
    it.tried = [(dear, base, {}), (cheap, base - 0.02, {})]
    assert it.best() == 0
    it.tried = [(dear, base, {}), (cheap, base - 0.02 + rng.normal(0, 0.5, 50), {})]  # a difference, but no sure one
    away = it.tried[0][1] - it.tried[1][1]
    assert it.best() == int(away.mean() <= away.std() / np.sqrt(50))
    it.tried = [(better, base + 0.3, {}), (dear, base, {}), (half, base + 0.299, {})]
    assert it.best() == 2
    trial = it.choice(500).trials_[1]
    assert trial["error"] == pytest.approx(0, abs=1e-12) and trial["score"] == pytest.approx(base.mean())
    fewer = dear | {"n_train": 100}
    it.tried = [(dear, base, {}), (fewer, base, {}), (dear | {"n_anchors": 400}, base, {})]
    assert it.best() == 1


def test_what_is_tried():
    modes, of_mode, rows, bits = _stages("neighbors", 64, 18_000)
    assert [each["mode"] for each in modes] == ["neighbors", "semantic", "scores"]
    of_kind = [each["mode"] for each in _stages("kind", 64, 18_000)[0]]
    assert of_kind == ["neighbors", "semantic", "scores", "semantic-scores"] == list(dict.fromkeys(of_kind))
    assert set(of_mode) == set(of_kind)
    assert rows == [{"n_train": 4500}] and bits == [{"n_bits": 32}]
    assert _stages("kind", 8, 900)[2:] == [[], []]
    assert {"max_iter": 0, "whitening": 0.0, "n_rounds": 8} in of_mode["semantic"]


def test_parameters_as_words():
    given = {"n_bits": 64, "mode": "semantic", "n_neighbors": 0.02, "whitening": 0.0, "n_train": 1_000_000}
    assert described(given) == "semantic, n_neighbors=0.02, whitening=0, n_train=1,000,000"


def test_a_choice(X, choices):
    for what, choice in choices.items():
        assert isinstance(choice, Choice) and choice.what == what
        assert (choice.n_, choice.n_rows_, choice.n_queries_) == (500, 500, 50)
        assert choice.best_params_ == choice.trials_[choice.best_index_]["params"]
        assert choice.best_params_["n_bits"] in (8, 16)
        top = max(trial["score"] for trial in choice.trials_)
        best = choice.trials_[choice.best_index_]
        assert top - best["score"] <= max(0.005, best["error"])
        assert choice.best_estimator_.fit(X).codes_.shape == (500, 1)
        assert isinstance(choice.best_estimator_, APHash)
        again = pickle.loads(pickle.dumps(choice))
        assert again.trials_ == choice.trials_ and str(again) == str(choice) and repr(again) == repr(choice)


def test_the_table(choices):
    for what, choice in choices.items():
        lines = str(choice).splitlines()
        rows = lines[1 : 1 + len(choice.trials_)]
        assert max(map(len, lines)) <= 88 and [row.startswith(">") for row in rows].count(True) == 1
        assert rows[choice.best_index_].startswith(">")
        assert ("kind" in lines[0]) == (what == "kind")
        assert f"{choice.trials_[0]['recall_at_10']:.3f}" in rows[0]
        assert "50 rows that did not learn" in str(choice) and lines[-1].startswith("Chosen: APHash(n_bits=")
        chosen = eval(lines[-1].removeprefix("Chosen: "), {"APHash": APHash})
        assert chosen.get_params() == choice.best_estimator_.get_params()
        assert repr(choice).startswith("<choice of APHash(")


@pytest.fixture
def only_modes(monkeypatch):
    monkeypatch.setattr("aphash._choose._stages", lambda *given: _stages(*given)[:1])


def without_seconds(choice):
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in choice.trials_]


@pytest.mark.parametrize("what", ["neighbors", "kind"])
def test_the_same_whatever_the_threads_and_the_container(X, only_modes, what, tmp_path):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    given = {"n_bytes": 2, "what": what, "random_state": 0}
    one = choose(X, n_jobs=1, **given)
    for other in (choose(mapped, n_jobs=3, **given), choose(np.asfortranarray(X), n_rows=5000, **given)):
        assert without_seconds(other) == without_seconds(one) and other.best_params_ == one.best_params_


def test_a_sample_of_many_rows(X, only_modes):
    many = np.tile(X, (3, 1))
    choice = choose(many, n_bytes=1, n_rows=400, random_state=0)
    assert (choice.n_, choice.n_rows_, choice.n_queries_) == (1500, 400, 40)
    sample, n = _sample(many, 400, np.random.RandomState(0), 1)
    assert n == 1500 and (sample[:, None] == many[None]).all(axis=2).any(axis=1).all()


def test_clusters_are_those_of_the_data(X):
    rng = np.random.default_rng(0)
    which = rng.integers(10, size=600)
    tight = 10 * rng.standard_normal((10, 12))[which] + 0.01 * rng.standard_normal((600, 12))
    labels = _clusters(tight, 0)
    assert labels.shape == (2, 600)
    for each in labels:  # no cluster has rows of two groups, where there are clusters enough
        if len(np.unique(each)) == 30:
            assert all(len(np.unique(which[each == label])) == 1 for label in np.unique(each))
    two = _clusters(np.ones((300, 4)) + (np.arange(300) == 0)[:, None], 0)
    assert two.shape == (2, 300) and (two[:, 1:] == two[:, 1:2]).all() and (two[:, 0] != two[:, 1]).all()
    assert not _clusters(np.ones((300, 4)), 0).any()


def test_kind_on_digits_agrees_with_labels():
    it = bench(load_digits().data, "kind")
    for mode in ("neighbors", "semantic", "scores"):
        it.do({"n_bits": 32, "mode": mode})
    scores = {params["mode"]: score.mean() for params, score, _ in it.tried}
    assert scores["semantic"] > scores["neighbors"] > scores["scores"]  # as P@100 of the labels has them


def test_no_warnings_of_trials_and_a_bar(X, only_modes, capfd):
    flat = X.copy()
    flat[:, 3:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose(flat, n_bytes=1, random_state=0, verbose=1)
    assert "choose" in capfd.readouterr().err
    choose(flat[:200], n_bytes=1, random_state=0)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"what": "semantic"}, ValueError, "what must be one of 'neighbors', 'kind', got 'semantic'"),
        ({"what": None}, ValueError, "what must be one of"),
        ({"n_bytes": 0}, ValueError, "n_bytes"),
        ({"n_bytes": 2.5}, TypeError, "n_bytes"),
        ({"n_rows": 20}, ValueError, "n_rows"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
        ({"random_state": "x"}, ValueError, "random_state"),
    ],
)
def test_bad_parameters(X, given, error, words):
    with pytest.raises(error, match=words):
        choose(X, **given)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.ones((199, 4)), "X must have at least 200 rows to choose by, got 199"),
        (np.ones(500), "X"),
        (np.full((300, 4), np.nan), "NaN"),
        (np.array([["a"] * 4] * 300), "X"),
    ],
)
def test_bad_data(wrong, words):
    with pytest.raises((TypeError, ValueError), match=words):
        choose(wrong)


def test_a_file_of_what_was_chosen(X, choices):
    hasher, file = choices["neighbors"].best_estimator_.fit(X), io.BytesIO()
    hasher.save(file)
    assert APHash.load(file.getvalue()).get_params() == hasher.get_params()
