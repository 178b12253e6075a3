import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import warnings

import numpy as np
import pytest
import reference
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils.estimator_checks import parametrize_with_checks

from aphash import APHash, Encoder, HammingIndex, HammingNeighbors, unpack_codes
from aphash._common import container
from aphash._learning.blocks import draw_rows
from aphash._learning.recipe import PRESETS, Recipe
from aphash.codes import Origin, origin_of

MODES = ("semantic", "neighbors", "paper")  # of codes: tests/test_scores.py has the other one
N_BITS = (1, 7, 63, 64, 65, 127, 128, 256)
LEARNED = ("codes_", "coef_", "intercept_", "thresholds_", "anchors_", "anchor_indices_", "anchor_codes_", "objective_")


def quick(**given):
    return APHash(**{"n_bits": 16, "n_anchors": 40, "n_rounds": 2, "max_iter": 4, "random_state": 0, **given})


def same(one, other, names=LEARNED):
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


OTHERWISE = {"check_fit2d_predict1d": "a vector of shape (d,) is one row, as the docstring of transform says"}


@parametrize_with_checks(
    [
        APHash(n_bits=3, n_rounds=2),
        APHash(n_bits=2, mode="paper", max_iter=20),
        APHash(n_bits=3, mode="scores"),
        APHash(n_bits=3, mode="semantic-scores"),
    ],
    expected_failed_checks=lambda estimator: OTHERWISE,
)
@pytest.mark.filterwarnings("ignore:X has .* independent directions")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("mode", MODES)
def test_attributes(digits, mode):
    X = digits[0]
    h = APHash(20, mode=mode, n_anchors=50, max_iter=12, random_state=0).fit(X)
    n, d, m = *X.shape, 50
    assert h.codes_.shape == (n, 1) and h.codes_.dtype == np.uint64
    assert h.coef_.shape == (20, d) and h.intercept_.shape == (20,) and h.n_features_in_ == d
    assert h.anchors_.shape == (m, d) and h.anchors_.dtype == X.dtype
    np.testing.assert_array_equal(h.anchors_, X[h.anchor_indices_])
    assert h.anchor_codes_.shape == (m, 1) and not (h.anchor_codes_ >> np.uint64(20)).any()
    rounds = PRESETS[mode].n_rounds
    assert h.objective_["round"].max() == rounds and h.objective_["iteration"].max() <= 12
    assert h.n_iter_ <= 12 * rounds and h.n_iter_ <= len(h.objective_)
    assert (h.objective_["J0"] > 0).all() and (h.objective_["J1"] > 0).all()
    D = reference.distances(h.anchors_, X)
    k = {"semantic": 100, "neighbors": 50, "paper": 90}[mode]
    np.testing.assert_allclose(h.thresholds_, reference.thresholds(D, k), rtol=1e-12)


def test_each_descent_lowers_the_objective(digits):
    h = APHash(32, n_anchors=100, random_state=0).fit(digits[0])
    J = h.objective_["J0"] + 0.3 * 100 * h.objective_["J1"]
    for number in range(1, 9):
        mine = J[h.objective_["round"] == number]
        assert mine[-1] < 0.95 * mine[0]


@pytest.mark.parametrize("n_bits", N_BITS)
@pytest.mark.filterwarnings("ignore:X has .* independent directions")
def test_projections_and_codes_agree_at_every_length(digits, n_bits):
    X = digits[0][:300]
    h = quick(n_bits=n_bits, q_scale=2.0).fit(X)
    projections = h.decision_function(X)
    assert projections.shape == (300, n_bits) and projections.dtype == np.float32
    np.testing.assert_allclose(projections, X @ h.coef_.T + h.intercept_, atol=2e-5)
    np.testing.assert_array_equal(unpack_codes(h.transform(X), n_bits), projections >= 0)
    np.testing.assert_array_equal(h.transform(X[17:18]), h.transform(X)[17:18])
    np.testing.assert_array_equal(h.decision_function(X[3:10]), projections[3:10])
    np.testing.assert_array_equal(clone(h).fit_transform(X), h.transform(X))


def test_learned_codes_resemble_the_hash_codes(digits):
    h = APHash(32, n_anchors=100, random_state=0).fit(digits[0])
    differ = (unpack_codes(h.codes_, 32) != unpack_codes(h.transform(digits[0]), 32)).mean()
    assert 0 < differ < 0.25


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n_jobs", [2, 3, 7, None, -1])
def test_threads_do_not_change_a_bit(rng, mode, n_jobs):
    X = rng.standard_normal((5000, 20)).astype(np.float32)  # several blocks
    fits = [quick(mode=mode, n_rounds="auto", max_iter=3, n_jobs=jobs).fit(X) for jobs in (1, n_jobs)]
    same(*fits)
    np.testing.assert_array_equal(fits[0].transform(X), fits[1].transform(X))


def test_seeds(digits):
    X = digits[0]
    same(quick(random_state=3).fit(X), quick(random_state=np.random.RandomState(3)).fit(X))
    assert (quick(random_state=3).fit(X).codes_ != quick(random_state=4).fit(X).codes_).any()


def test_given_values_win_over_the_mode():
    given = {
        "n_bits": 48, "n_anchors": 7, "n_neighbors": 3, "q_scale": 2, "q_power": 1.5, "quantization": 9, "ridge": "gcv",
        "n_rounds": 2, "max_iter": 3, "learning_rate": 0.1, "tol": 0.5, "last_ridge": 0.5, "whitening": 0.3,
    }  # fmt: skip
    for mode in PRESETS:
        settings = APHash(mode=mode, **given)._settings(1000).as_dict()
        assert {name: settings[name] for name in given} == given
        study = {
            "init": "random", "rotation": "none", "hash_target": "real", "fit_hash": "anchors",
            "updates": "alternating", "resample_anchors": False, "goal": "neighbors",
        }  # fmt: skip
        recipe = Recipe.preset(mode).replace(**study)
        settings = APHash(mode=recipe, **given)._settings(1000).as_dict()
        assert {name: settings[name] for name in given | study} == given | study


@pytest.mark.parametrize(
    ("mode", "n", "k"),
    [
        ("semantic", 400, 100), ("semantic", 50_000, 250), ("semantic", 100, 25), ("semantic", 3, 1),
        ("neighbors", 50_000, 250), ("neighbors", 1000, 50), ("paper", 1000, 50), ("paper", 2, 1),
    ],
)  # fmt: skip
def test_defaults_follow_n(mode, n, k):
    settings = APHash(mode=mode, n_bits=64)._settings(n)
    assert settings.n_neighbors == k
    assert settings.n_anchors == min(n, PRESETS[mode].n_anchors)
    assert settings.q_scale == (8 if mode == "neighbors" else 1)
    assert APHash(mode=mode, n_neighbors=0.5)._settings(n).n_neighbors == round(n / 2)
    assert APHash(mode=Recipe(n_neighbors=n))._settings(n).n_neighbors == max(1, n // 4)


@pytest.mark.parametrize("given", [
    {"mode": Recipe(init="random")}, {"mode": Recipe(rotation="none")}, {"mode": Recipe(rotation="identity")},
    {"mode": Recipe(hash_target="real")}, {"max_iter": 30, "tol": 0.05}, {"mode": Recipe(fit_hash="anchors")},
    {"mode": Recipe(updates="alternating")}, {"mode": Recipe(resample_anchors=False)}, {"ridge": "gcv"},
    {"ridge": "gcv", "mode": Recipe(fit_hash="anchors")}, {"mode": Recipe(q_scale_per_bit=1 / 8)},
    {"mode": Recipe(quantization_per_anchor=0.0)}, {"mode": Recipe(quantization_per_anchor=3.0)},
    {"n_neighbors": 0.1}, {"q_power": 1.5}, {"q_scale": 0.5}, {"ridge": 1.0},
    {"quantization": 0.0}, {"last_ridge": 1.0}, {"whitening": 0.0},
    {"learning_rate": 0.5}, {"mode": "neighbors"}, {"mode": "paper"}, {"n_train": 500},
])  # fmt: skip
def test_every_parameter_has_an_effect(digits, given):
    plain = quick(max_iter=given.get("max_iter", 4)).fit(digits[0])
    changed = quick(**given).fit(digits[0])
    assert (plain.coef_ != changed.coef_).any()
    assert np.isfinite(changed.coef_).all()


def test_paper_mode_converges(digits):
    h = APHash(16, mode="paper", n_anchors=60, random_state=0).fit(digits[0])
    J = h.objective_["J0"] + 0.3 * h.objective_["J1"]
    assert 10 < h.n_iter_ < 500
    assert J[-11] - J[-1] < 1e-4 * J[-11]
    assert J[-1] < 0.5 * J[0]


# -- input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.int64, bool, object])
def test_dtypes_of_the_same_values_give_the_same_result(digits, dtype):
    X = digits[0] if dtype is not bool else digits[0] > 8
    same(quick().fit(np.asarray(X, np.float32)), quick().fit(X.astype(dtype)), ("codes_", "coef_", "thresholds_"))


TYPES = {
    "list": lambda X: X.tolist(), "longdouble": lambda X: X.astype(np.longdouble), "object": lambda X: X.astype(object),
    ">f8": lambda X: X.astype(">f8"), "list of rows": list,
    "memory view": lambda X: memoryview(np.ascontiguousarray(X)),
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_what_float32_cannot_hold_is_read_as_float64(rng, kind):
    X = rng.standard_normal((300, 6)) + 1e8  # float32's steps are 8 there
    plain, other = quick(n_bits=6).fit(X), quick(n_bits=6).fit(TYPES[kind](X))
    same(plain, other)
    np.testing.assert_array_equal(plain.transform(TYPES[kind](X)), plain.transform(X))
    np.testing.assert_array_equal(plain.decision_function(TYPES[kind](X)), plain.decision_function(X))
    whole = np.round(X * 16)
    for dtype in ("i8", ">i8", "u8", object):
        same(
            quick(n_bits=6).fit(whole), quick(n_bits=6).fit(whole.astype("i8").astype(dtype)), ("codes_", "thresholds_")
        )


def test_pandas_columns_of_any_kind_are_read_as_they_are(rng):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X = rng.standard_normal((300, 6)) + 1e8
    plain = quick(n_bits=6).fit(X)
    frame = pandas.DataFrame(X)
    for dtype in ("float64", "Float64", object):
        same(plain, quick(n_bits=6).fit(frame.astype(dtype)))
    whole = pandas.DataFrame(np.round(X))
    for dtype in ("int64", "Int64", "UInt64"):
        same(quick(n_bits=6).fit(whole), quick(n_bits=6).fit(whole.astype(dtype)), ("codes_", "thresholds_"))
    gap = frame.astype("Float64")
    gap.iloc[7, 2] = pandas.NA
    with pytest.raises(ValueError, match=r"row 7"):
        plain.transform(gap)
    for wrong in (frame.astype(str), frame.assign(**{"0": "1.5"}), pandas.DataFrame({"a": list(X)})):
        with pytest.raises(TypeError, match=r"^X"):
            quick().fit(wrong)


def test_columns_are_checked_before_anything_is_learned(digits, monkeypatch):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    monkeypatch.setattr("aphash._learning.estimator.learn", None)
    names = [str(i) for i in range(63)]
    with pytest.raises(TypeError, match=r"[Ff]eature names"):
        quick().fit(pandas.DataFrame(digits[0], columns=[7, *names]))
    monkeypatch.undo()
    h = quick().fit(pandas.DataFrame(digits[0][:200]).rename(columns=str))
    assert len(h.feature_names_in_) == 64
    assert not hasattr(h.fit(digits[0][:200]), "feature_names_in_")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_whose_projections_overflow_are_refused_by_row(rng, dtype):
    X = (rng.standard_normal((3000, 40)) * 1e-5).astype(dtype)
    h = quick(n_bits=32, n_train=2000).fit(X)
    for factor in (1e3, 1e25):
        far = X * dtype(factor)
        codes = unpack_codes(h.transform(far), 32)
        exact = np.asarray(far, np.float64) @ h.coef_.T + h.intercept_ >= 0
        assert (codes == exact).mean() > 0.999
    far, row = X.copy(), int(np.setdiff1d(np.arange(3000), draw_rows(3000, 2000, np.random.RandomState(0)))[50])
    far[row, 7] = dtype(1e38 if dtype is np.float32 else -1e300)
    for call in (h.transform, h.decision_function, h.fit):
        with pytest.raises(ValueError, match=rf"too far .* row {row}"):
            call(far)


def test_a_fingerprint_tells_hash_functions_apart(digits, tmp_path):
    X = digits[0]
    h, other = quick().fit(X), quick(random_state=1).fit(X)
    assert len(h.fingerprint_) == 32 and h.fingerprint_ != other.fingerprint_
    assert quick(n_jobs=2).fit(X).fingerprint_ == h.fingerprint_ == pickle.loads(pickle.dumps(h)).fingerprint_
    h.save(tmp_path / "model")
    loaded = APHash.load(tmp_path / "model")
    assert loaded.fingerprint_ == h.fingerprint_
    for codes in (h.codes_, h.transform(X), h.transform(X)[5:9], h.transform(X)[0], h.fit_transform(X), loaded.codes_):
        assert origin_of(codes) == Origin(16, h.fingerprint_)
    arrays, params = h._to_file()
    del params["fingerprint_"]  # as files of 0.3 are
    container.write(tmp_path / "old", arrays, kind="APHash", version=1, params=params)
    assert APHash.load(tmp_path / "old").fingerprint_ == h.fingerprint_


def test_memory_map_and_orders(digits, tmp_path):
    X = digits[0]
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    before = X.copy()
    plain = quick().fit(X)
    same(plain, quick().fit(mapped))
    same(plain, quick().fit(np.asfortranarray(X)))
    same(plain, quick().fit(np.repeat(X, 2, axis=0)[::2]))
    np.testing.assert_array_equal(plain.transform(mapped), plain.transform(X))
    np.testing.assert_array_equal(X, before)


def test_float64_input_is_not_changed(rng):
    X = rng.standard_normal((200, 5))
    before = X.copy()
    quick(n_bits=4).fit(X).transform(X)
    np.testing.assert_array_equal(X, before)


def test_an_offset_changes_nothing(digits):
    X = digits[0].astype(float)
    one, other = quick().fit(X), quick().fit(X + 300)
    np.testing.assert_allclose(one.thresholds_, other.thresholds_, rtol=1e-9)
    assert (one.codes_ != other.codes_).mean() < 0.01
    assert (one.transform(X) != other.transform(X + 300)).mean() < 0.01


@pytest.mark.parametrize("size", [2.0**100, 2.0**-100, 1e30, 1e-30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_and_tiny_values(digits, size, dtype):
    X = digits[0].astype(dtype) / 16
    one, other = quick().fit(X), quick().fit(X * dtype(size))
    exact = np.log2(size).is_integer()  # another rounding of X can end in another rotation, so in other codes
    np.testing.assert_allclose(one.thresholds_ * size, other.thresholds_, rtol=1e-12 if exact else 1e-5)
    if exact:
        np.testing.assert_array_equal(one.transform(X), other.transform(X * dtype(size)))


def test_fewer_rows_than_anchors():
    X = np.random.default_rng(0).standard_normal((20, 8))
    h = APHash(4, random_state=0).fit(X)
    assert len(h.anchors_) == 20 and h.codes_.shape == (20, 1)
    h = APHash(1, random_state=0).fit(X[:2])
    assert h.codes_.shape == (2, 1)


def test_constant_columns_do_not_matter(rng):
    X = rng.standard_normal((300, 6))
    wide = np.hstack([X, np.full((300, 3), 7.0)])
    h = quick(n_bits=6).fit(wide)
    np.testing.assert_allclose(h.coef_[:, 6:], 0, atol=1e-9)
    assert len(np.unique(h.codes_)) > 10


def test_more_bits_than_directions(rng):
    X = rng.standard_normal((300, 2)) @ rng.standard_normal((2, 9))
    with pytest.warns(UserWarning, match="2 independent directions, fewer than n_bits=16"):
        h = quick().fit(X)
    bits = unpack_codes(h.transform(X), 16)
    assert (bits.std(axis=0) > 0.1).all()  # every bit splits the data


def test_many_features(rng):
    X = rng.standard_normal((150, 3)) @ rng.standard_normal((3, 5000)) + 0.1 * rng.standard_normal((150, 5000))
    h = quick(n_bits=3).fit(X)
    near = np.argsort(reference.distances(X[:1], X)[0])[1:30]
    codes = unpack_codes(h.transform(X), 3)
    assert (codes[near] != codes[0]).sum(axis=1).mean() < (codes != codes[0]).sum(axis=1).mean()
    with pytest.raises(ValueError, match="gcv"):
        quick(n_bits=3, ridge="gcv").fit(X)


@pytest.mark.parametrize("resample", [True, False])
@pytest.mark.parametrize("fit_hash", ["all", "anchors"])
def test_rounds_without_a_descent(digits, fit_hash, resample):
    X = digits[0]
    recipe = Recipe(rotation="identity", fit_hash=fit_hash, resample_anchors=resample, max_iter=0, n_rounds=3)
    h = APHash(16, mode=recipe, n_anchors=100, random_state=0).fit(X)
    assert h.n_iter_ == 0 and len(h.objective_) == 0 and h.thresholds_.shape == (100,)
    still = recipe.replace(max_iter=1, learning_rate=1e-30)  # a step that moves nothing
    other = APHash(16, mode=still, n_anchors=100, random_state=0).fit(X)
    assert other.n_iter_ == 3
    same(h, other, ("codes_", "coef_", "intercept_", "anchor_indices_", "anchor_codes_", "thresholds_"))


def test_n_train(digits):
    X = digits[0]
    h = quick(n_train=700).fit(X)
    assert h.codes_.shape == (1797, 1) and (np.diff(h.anchor_indices_) > 0).all()
    np.testing.assert_array_equal(h.anchors_, X[h.anchor_indices_])
    equal = (h.codes_ == h.transform(X)).ravel()
    assert equal.sum() >= 1097 and not equal.all()
    same(h, quick(n_train=700, n_jobs=3).fit(X))
    same(quick(n_train=5000).fit(X), quick().fit(X))
    many = np.tile(X, (4, 1))[:6000]
    held_out = quick().fit(many)  # 300 are, and no other draw changes
    assert held_out.expected_recall_.n_queries == 300
    kept = np.sort(np.random.RandomState(0).choice(6000, 5700, replace=False))
    same(held_out, quick(n_train=5700).fit(many[kept]), ("coef_", "thresholds_"))
    same(quick(n_train=5999).fit(many[1:]), quick().fit(many[1:]))


BAD_PARAMETERS = [
    ({"n_bits": 0}, ValueError, "n_bits"), ({"n_bits": 65537}, ValueError, "n_bits"),
    ({"n_bits": 8.0}, TypeError, "n_bits"), ({"n_bits": True}, TypeError, "n_bits"),
    ({"n_bits": "auto"}, TypeError, "n_bits"), ({"n_anchors": 0}, ValueError, "n_anchors"),
    ({"n_anchors": 101}, ValueError, "n_anchors=101 .* 100"), ({"n_anchors": 1.5}, TypeError, "n_anchors"),
    ({"n_neighbors": 0}, ValueError, "n_neighbors"), ({"n_neighbors": 101}, ValueError, "n_neighbors=101 .* 100"),
    ({"n_neighbors": 0.0}, ValueError, "n_neighbors"), ({"n_neighbors": 1.01}, ValueError, "n_neighbors"),
    ({"n_neighbors": -0.1}, ValueError, "n_neighbors"), ({"n_neighbors": float("nan")}, ValueError, "n_neighbors"),
    ({"n_neighbors": "many"}, TypeError, "n_neighbors"), ({"quantization": -1}, ValueError, "quantization"),
    ({"quantization": float("nan")}, ValueError, "quantization"), ({"ridge": -1e-3}, ValueError, "ridge"),
    ({"last_ridge": -1e-3}, ValueError, "last_ridge"), ({"whitening": -1}, ValueError, "whitening"),
    ({"ridge": float("nan")}, ValueError, "ridge"), ({"ridge": "cv"}, TypeError, "ridge"),
    ({"learning_rate": 0}, ValueError, "learning_rate"), ({"learning_rate": -1}, ValueError, "learning_rate"),
    ({"learning_rate": float("inf")}, ValueError, "learning_rate"), ({"tol": -1e-3}, ValueError, "tol"),
    ({"q_scale": 0}, ValueError, "q_scale"), ({"q_power": 0.0}, ValueError, "q_power"),
    ({"n_rounds": 0}, ValueError, "n_rounds"), ({"max_iter": -1}, ValueError, "max_iter"),
    ({"mode": "auto"}, ValueError, "mode"), ({"mode": None}, ValueError, "mode"), ({"mode": {}}, ValueError, "mode"),
    ({"n_train": 1}, ValueError, "n_train"),
    ({"n_jobs": 0}, ValueError, "n_jobs"), ({"n_jobs": 1.5}, TypeError, "n_jobs"),
    ({"random_state": "x"}, ValueError, "random_state"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "error", "message"), BAD_PARAMETERS, ids=lambda v: str(v) if type(v) is dict else "")
def test_bad_parameters_are_named(given, error, message):
    X = np.random.default_rng(0).standard_normal((100, 4))
    h = APHash(n_bits=4).set_params(**given)
    with pytest.raises(error, match=message):
        h.fit(X)
    assert not [name for name in vars(h) if name.endswith("_")]


GOOD = np.random.default_rng(0).standard_normal((100, 4))


def _with(value):
    X = GOOD.copy()
    X[70, 2] = value
    return X


BAD_X = [
    (_with(np.nan), ValueError, "NaN.*row 70"), (_with(np.inf), ValueError, "inf.*row 70"),
    (np.empty((0, 4)), ValueError, "X.*0 sample"), (np.empty((5, 0)), ValueError, "0 feature"),
    (GOOD[:1], ValueError, "minimum of 2"), (np.ones((50, 4)), ValueError, "all rows are equal"),
    (sparse.csr_array(GOOD), TypeError, "[Ss]parse"), (GOOD + 1j, ValueError, "[Cc]omplex"),
    (np.array([[{}, 1], [2, 3]], object), TypeError, "argument must be a string or a real number"),
    (np.array([["a", "b"], ["c", "d"]]), TypeError, "X must be numbers, got text"),
    (GOOD[0], ValueError, "1D array"), (GOOD[None], ValueError, "dim 3"),
    (None, TypeError, "X must be an array, got None"),
    (np.ma.masked_equal(GOOD, GOOD[70, 2]), ValueError, "X has masked elements, first in row 70"),
    (GOOD.astype(str), TypeError, "got text"), (GOOD.astype(str).astype(object), TypeError, "the text '.*' in row 0"),
    ([[1.0, 2.0], [None, 3.0]], ValueError, "X has no value .None. in row 1"), ({1.0, 2.0}, TypeError, "got a set"),
    (np.arange(2**60, 2**60 + 12).reshape(6, 2), ValueError, "float64 does not hold"),
    ((row for row in GOOD), TypeError, r"pass np.stack\(list\(X\)\)"),
    (np.array([*GOOD, None], object)[:-1], TypeError, "column of ndarray objects: pass np.stack of X"),
]  # fmt: skip


@pytest.mark.parametrize(("X", "error", "message"), BAD_X)
def test_bad_X_is_refused_and_nothing_is_lost(X, error, message):
    fresh = APHash(4, random_state=0)
    with pytest.raises(error, match=message):
        fresh.fit(X)
    assert not [name for name in vars(fresh) if name.endswith("_")]
    fitted = APHash(4, random_state=0).fit(GOOD)
    before = pickle.dumps(vars(fitted))
    with pytest.raises(error, match=message):
        fitted.fit(X)
    assert pickle.dumps(vars(fitted)) == before


@pytest.mark.parametrize("method", ["transform", "decision_function"])
def test_bad_queries(method):
    with pytest.raises(NotFittedError):
        getattr(APHash(), method)(GOOD)
    h = APHash(4, random_state=0).fit(GOOD)
    for X, error, message in [
        (GOOD[:, :3], ValueError, "3 features.*expecting 4"), (_with(np.nan), ValueError, "NaN.*row 70"),
        (GOOD[0, :3], ValueError, "3 features.*expecting 4"), (sparse.csr_array(GOOD), TypeError, "[Ss]parse"),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            getattr(h, method)(X)


# -- manners ----------------------------------------------------------------------------------------------------------


def test_pickle_clone_and_search(digits):
    X = digits[0]
    h = quick().fit(X)
    again = pickle.loads(pickle.dumps(h))
    same(h, again)
    np.testing.assert_array_equal(h.transform(X), again.transform(X))
    assert clone(h).get_params() == h.get_params()
    pipeline = make_pipeline(Normalizer(), quick())
    assert pipeline.fit(X).transform(X[:5]).shape == (5, 1)

    def score(estimator, X, y=None):
        return -estimator.objective_["J0"][-1]

    search = GridSearchCV(quick(), {"n_bits": [4, 8], "q_power": ["auto", 1.0]}, scoring=score, cv=2).fit(X)
    assert set(search.best_params_) == {"n_bits", "q_power"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_saved_and_loaded(digits, tmp_path, dtype):
    X = digits[0].astype(dtype)
    h = quick(q_power=1.5, n_train=1000).fit(X)
    h.save(tmp_path / "model")
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
    again = APHash.load(tmp_path / "model")
    same(h, again, (*LEARNED, "mean_", "scale_", "n_iter_", "n_features_in_"))
    assert again.anchors_.dtype == dtype and again.get_params() == h.get_params()
    np.testing.assert_array_equal(h.transform(X), again.transform(X))
    same(h, again.fit(X))


def test_feature_names_survive_a_file(digits, tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X = pandas.DataFrame(digits[0][:200]).rename(columns=str)
    quick().fit(X).save(tmp_path / "model")
    again = APHash.load(tmp_path / "model")
    assert list(again.feature_names_in_) == list(X.columns)
    with pytest.raises(ValueError, match="feature names"):
        again.transform(X.rename(columns={"0": "zero"}))


def test_files_that_are_refused(digits, tmp_path):
    with pytest.raises(NotFittedError):
        APHash().save(tmp_path / "model")
    h = quick(random_state=np.random.RandomState(0)).fit(digits[0])
    h.save(tmp_path / "model")
    assert APHash.load(tmp_path / "model").random_state is None
    arrays, params = h._to_file()
    for change, message in [
        ({"arrays": {**arrays, "mean_": np.zeros(3)}}, "mean"), ({"params": {}}, "given"),
        ({"arrays": {**arrays, "coef_": arrays["coef_"][:5]}}, "intercept"),
        ({"version": 9}, "version 9 .* reads 1 to 4"),
        ({"version": 0}, "version 0 of a model's file"),
        ({"arrays": {**arrays, "coef_": -arrays["coef_"]}}, "fingerprint"),
        ({"params": {**params, "given": {"n_bats": 3}}}, "does not know: n_bats"),
        ({"kind": "HammingIndex"}, "HammingIndex"),
    ]:  # fmt: skip
        container.write(
            tmp_path / "bad", **{"arrays": arrays, "kind": "APHash", "version": 1, "params": params, **change}
        )
        with pytest.raises(ValueError, match=f"bad.*{message}"):
            APHash.load(tmp_path / "bad")
    with pytest.raises(FileNotFoundError, match="none"):
        APHash.load(tmp_path / "none")


def test_progress_bar_shows_the_objective(digits, capsys):
    quick(verbose=1).fit(digits[0])
    shown = capsys.readouterr().err
    assert "APHash" in shown and "J=" in shown and "J0=" in shown and "row/s" in shown
    quick().fit(digits[0])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("terminal", "patience", "shown"), [(True, 0.0, True), (True, 60.0, False), (False, 0.0, False)]
)
def test_progress_by_itself_at_a_terminal_only(digits, capsys, monkeypatch, terminal, patience, shown):
    monkeypatch.setattr("aphash._common.progress._PATIENCE", patience)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    quick().fit(digits[0])
    assert ("APHash" in capsys.readouterr().err) == shown
    assert quick().verbose == "auto"


@pytest.fixture
def hears_ctrl_c():
    """A shell's background jobs are started with SIGINT ignored, and Python keeps it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_an_interrupted_fit_leaves_the_earlier_one_whole(rng):
    X = rng.standard_normal((40_000, 64)).astype(np.float32)
    h = APHash(32, n_rounds=1, max_iter=2, random_state=0).fit(X)
    before = pickle.dumps(vars(h).copy())
    names = {k: v for k, v in vars(h).items() if k.endswith("_")}
    h.set_params(n_rounds=1000)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        h.fit(X)
    h.set_params(n_rounds=1)
    assert all(vars(h)[k] is v for k, v in names.items())
    assert pickle.dumps(vars(h).copy()) == before


def test_a_forked_child_can_fit_after_its_parent_did():
    program = """
        import os, sys, numpy as np
        from aphash import APHash
        X = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)
        codes = APHash(8, random_state=0, n_jobs=2, n_rounds=1).fit(X).codes_
        for _ in range(3):
            child = os.fork()
            if child == 0:
                same = (APHash(8, random_state=0, n_jobs=2, n_rounds=1).fit(X).codes_ == codes).all()
                os._exit(0 if same else 1)
            assert os.waitpid(child, 0)[1] == 0
        print("same")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "same\n", done.stderr


def test_a_fit_in_a_thread_pool_is_right(digits):
    X = digits[0]
    expected = quick().fit(X)
    found = []
    threads = [threading.Thread(target=lambda: found.append(quick(n_jobs=2).fit(X))) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 3
    for each in found:
        same(expected, each)


@pytest.mark.parametrize(
    ("arrays", "params", "message"),
    [
        ({"coef_": np.zeros((8, 5), np.float32)}, {}, "do not fit each other: coef"),
        ({"codes_": np.zeros((40, 1), np.int64)}, {}, "do not fit each other: codes_"),
        ({"codes_": np.zeros((40, 2), np.uint64)}, {}, "do not fit each other: codes_"),
        ({"mean_": np.zeros(4)}, {}, "do not fit each other: mean"),
        ({"anchor_indices_": np.zeros(10)}, {}, "do not fit each other: anchor_indices_"),
        ({}, {"scale_": 0.0}, "scale must be positive"),
        ({}, {"scale_": "x"}, "could not convert"),
        ({}, {"feature_names_in_": ["a"]}, "must be 5 strings"),
        ({}, {"feature_names_in_": [1, 2, 3, 4, 5]}, "must be 5 strings"),
        ({}, {"given": {"bits": 3}}, "bits"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(tmp_path, rng, arrays, params, message):
    hasher = APHash(8, n_anchors=10, n_neighbors=5, n_rounds=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hasher.fit(rng.standard_normal((40, 5)))
    good_arrays, good_params = hasher._to_file()
    path = tmp_path / "model"
    container.write(path, good_arrays, kind="APHash", version=1, params=good_params)
    np.testing.assert_array_equal(APHash.load(path).codes_, hasher.codes_)
    container.write(path, good_arrays | arrays, kind="APHash", version=1, params=good_params | params)
    with pytest.raises(ValueError, match=f"{path}: not a whole APHash file: .*{message}"):
        APHash.load(path)


@pytest.mark.parametrize("n_bits, names", [(16, ["aphash0"]), (64, ["aphash0"]), (65, ["aphash0", "aphash1"])])
def test_feature_names_are_those_of_the_words(digits, n_bits, names):
    X = digits[0][:300]
    with pytest.raises(NotFittedError):
        quick().get_feature_names_out()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X has .* independent directions")
        hasher = quick(n_bits=n_bits).fit(X)
    assert hasher.get_feature_names_out().tolist() == names
    assert make_pipeline(Normalizer().fit(X), hasher).get_feature_names_out().tolist() == names
    codes = hasher.transform(X)
    for kind in ("pandas", "polars"):
        pytest.importorskip(kind, reason=f"{kind} is not installed")
        frame = clone(hasher).set_output(transform=kind)
        vars(frame).update({name: value for name, value in vars(hasher).items() if name.endswith("_")})
        made = frame.transform(X)
        assert list(made.columns) == names and type(made).__module__.startswith(kind)
        np.testing.assert_array_equal(made.to_numpy(), codes)
        assert made.to_numpy().dtype == np.uint64
        np.testing.assert_array_equal(frame.transform(X[3]).to_numpy(), codes[3:4])
        index = HammingIndex(n_bits)
        index.add(made)
        np.testing.assert_array_equal(index.codes, codes)
        assert 0 <= frame.score(X) <= 1
        frame.set_output(transform="default")
        assert origin_of(frame.transform(X)) == Origin(n_bits, hasher.fingerprint_)


def test_a_frame_keeps_its_index(digits):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X = pandas.DataFrame(digits[0][:200]).add_prefix("pixel").set_index(pandas.Index(range(1000, 1200)))
    hasher = quick().set_output(transform="pandas")
    made = hasher.fit_transform(X)
    assert made.index.tolist() == X.index.tolist() and made.dtypes.tolist() == [np.uint64]
    np.testing.assert_array_equal(made.to_numpy(), hasher.set_output(transform="default").transform(X))


def test_a_generator_as_random_state(digits):
    """The same seed gives the same codes; each fit draws anew; a clone draws as its model would have."""
    X = digits[0][:400]
    one, other = (quick(random_state=np.random.default_rng(5)) for _ in range(2))
    same(one.fit(X), other.fit(X))
    first = one.coef_
    copy = clone(one)
    assert not np.array_equal(one.fit(X).coef_, first)
    same(copy.fit(X), one)
    assert not np.array_equal(quick(random_state=np.random.default_rng(6)).fit(X).coef_, first)
    state = np.random.default_rng(5).bit_generator.state
    untouched = np.random.default_rng(5)
    with pytest.raises(ValueError):
        quick(n_bits=16, random_state=untouched, n_rounds=0).fit(X)
    assert untouched.bit_generator.state == state


def naive_score(hasher, X, rows, queries):
    """The expected share of each query's 10 nearest among the first 10 by code, ties as in random order."""
    signs = np.where(unpack_codes(hasher.transform(X[rows]), hasher.n_bits), 1, -1)
    near, first = max(1, min(10, len(rows) // 10)), max(1, min(10, len(rows) // 3))
    found = []
    for query in queries:
        others = np.arange(len(rows)) != query
        d = ((X[rows] - X[rows[query]]) ** 2).sum(1)[others]
        hamming = ((signs != signs[query]).sum(1))[others]
        true = set(np.argsort(d, kind="stable")[:near].tolist())
        last = np.sort(hamming)[first - 1]
        tied = np.flatnonzero(hamming == last)
        inside = np.flatnonzero(hamming < last)
        share = (first - len(inside)) / len(tied)
        found.append((len(true & set(inside.tolist())) + share * len(true & set(tied.tolist()))) / near)
    return np.mean(found)


@pytest.mark.parametrize("n", [2, 7, 40, 250])
def test_score_is_the_recall_of_the_nearest(digits, n):
    X = np.random.default_rng(1).standard_normal((n, 18))
    hasher = quick().fit(np.random.default_rng(2).standard_normal((300, 18)))
    assert hasher.score(X) == pytest.approx(naive_score(hasher, X, np.arange(n), range(n)))
    assert hasher.score(X.tolist()) == hasher.score(X) == hasher.score(X, "ignored")


def test_score_of_many_rows_looks_at_a_bounded_sample(rng, monkeypatch):
    X = rng.standard_normal((30_000, 18)).astype(np.float32)
    hasher = quick().fit(X[:500])
    seen = []
    encode = Encoder._transform
    monkeypatch.setattr(Encoder, "_transform", lambda self, rows, n: seen.append(len(rows)) or encode(self, rows, n))
    assert hasher.score(X) == hasher.score(X) and seen == [10_000, 10_000]
    with pytest.raises(ValueError, match="X must have at least 2 rows, got 1"):
        hasher.score(X[:1])
    for wrong, words in ((X[:9, :5], "5 features"), (sparse.csr_array(X[:9]), "[Ss]parse"), (X[0], "X")):
        with pytest.raises((TypeError, ValueError), match=words):
            hasher.score(wrong)
    with pytest.raises(NotFittedError):
        quick().score(X)


def test_grid_search_finds_what_keeps_neighbours(digits):
    search = GridSearchCV(
        make_pipeline(Normalizer(), quick(n_bits=16)), {"aphash__n_bits": [4, 16], "aphash__n_rounds": [1]}, cv=2
    ).fit(digits[0][:600])
    assert search.best_params_["aphash__n_bits"] == 16
    low, high = search.cv_results_["mean_test_score"]
    assert 0 < low < high < 1


def test_notebooks_show_it(digits):
    page = make_pipeline(Normalizer(), quick(n_bits=24), HammingNeighbors(7))._repr_html_()
    for words in ("APHash", "n_bits", "24", "HammingNeighbors", "Normalizer"):
        assert words in page
    assert "fitted" in quick().fit(digits[0][:100])._repr_html_()


def test_a_model_is_saved_with_the_bits_that_it_has(digits, tmp_path):
    X = digits[0] if isinstance(digits, tuple) else digits
    h = APHash(32, random_state=0).fit(X)
    weights = h.query_projections(X)
    h.set_params(n_bits=64).save(tmp_path / "model")  # a search over parameters leaves such models
    again = APHash.load(tmp_path / "model")
    assert again.n_bits == 32 and h.n_bits == 64
    np.testing.assert_array_equal(again.query_projections(X), weights)
