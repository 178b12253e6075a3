"""The parameters of the method as one object: its checks, the presets, in estimators and in files."""

import copy
import dataclasses
import io
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import aphash
from aphash import APHash, Encoder, HammingIndex, Recipe
from aphash._common import container
from aphash._learning.recipe import PRESETS

STUDY = Recipe(
    init="random", rotation="none", hash_target="real", fit_hash="anchors", updates="alternating",
    resample_anchors=False, goal="neighbors",
)  # fmt: skip


def test_presets_are_what_the_modes_were():
    assert Recipe.preset("semantic") == Recipe()
    for name, recipe in PRESETS.items():
        assert APHash(mode=name)._settings(10_000) == APHash(mode=recipe)._settings(10_000)
    names = "'semantic', 'neighbors', 'paper', 'scores', 'semantic-scores'"
    with pytest.raises(ValueError, match=f"name must be one of {names}, got 'best'"):
        Recipe.preset("best")


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(Recipe)])
def test_every_field_has_a_check(name):
    for wrong in (object(), "no such choice", -1, [1]):
        with pytest.raises((TypeError, ValueError), match=f"^{name} "):
            Recipe(**{name: wrong})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"init": "pca"}, ValueError, "init must be one of 'itq', 'random', got 'pca'"),
        ({"rotation": None}, ValueError, "rotation must be one of 'random', 'identity', 'none', got None"),
        ({"resample_anchors": 1}, TypeError, "resample_anchors must be a bool, got 1"),
        ({"n_anchors": "auto"}, TypeError, "n_anchors must be an integer, got 'auto'"),
        ({"ridge": "auto"}, TypeError, "ridge must be a finite number of at least 0 or 'gcv', got 'auto'"),
        ({"tol": np.nan}, ValueError, "tol must be a finite number of at least 0, got nan"),
        ({"n_neighbors": 1.5}, ValueError, "n_neighbors as a share"),
    ],
)
def test_messages(given, error, message):
    with pytest.raises(error, match=message):
        Recipe(**given)
    with pytest.raises(error, match=message):
        Recipe.preset("paper").replace(**given)


def test_a_recipe_is_a_value():
    recipe = Recipe.preset("paper").replace(n_rounds=2)
    assert recipe == Recipe.preset("paper").replace(n_rounds=2) != Recipe.preset("paper")
    assert len({recipe, copy.deepcopy(recipe), pickle.loads(pickle.dumps(recipe))}) == 1
    assert eval(repr(recipe), {"Recipe": Recipe}) == recipe
    assert repr(Recipe()) == "Recipe()"
    assert all(f"  {name} " in str(recipe) for name in recipe.as_dict())
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.n_rounds = 3
    with pytest.raises(TypeError, match="n_round"):
        recipe.replace(n_round=3)


def test_in_an_estimator(digits):
    X = digits[0]
    hasher = APHash(16, mode=STUDY, n_rounds=1, max_iter=2, random_state=0)
    assert clone(hasher).mode == STUDY and clone(hasher).get_params() == hasher.get_params()
    assert "mode=Recipe(init='random', rotation='none'" in repr(hasher)
    search = GridSearchCV(hasher, {"mode": ["semantic", STUDY]}, cv=2).fit(X)
    assert search.best_params_["mode"] in ("semantic", STUDY)
    assert (hasher.fit(X).coef_ != clone(hasher).set_params(mode="semantic").fit(X).coef_).any()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(hasher)).fit(X).codes_, hasher.codes_)


@pytest.mark.parametrize("mode", ["neighbors", STUDY], ids=["preset", "recipe"])
def test_in_files(digits, mode):
    hasher = APHash(16, mode=mode, n_rounds=1, max_iter=2, random_state=0).fit(digits[0])
    index = HammingIndex(16)
    index.add(hasher.transform(digits[0]))
    model, both = io.BytesIO(), io.BytesIO()
    hasher.save(model)
    aphash.save(both, hasher, index)
    for again in (APHash.load(model.getvalue()), aphash.load(both.getvalue())[0]):
        assert again.get_params() == hasher.get_params()
        np.testing.assert_array_equal(again.transform(digits[0]), hasher.transform(digits[0]))
    for encoder in (Encoder.load(model.getvalue()), aphash.load_encoder(both.getvalue())[0]):
        assert encoder.fingerprint == hasher.fingerprint_
    # Earlier versions of aphash refuse what they do not know, and open the rest.
    versions = (
        container.read(model.getvalue(), kind="APHash")[2],
        container.read(both.getvalue(), kind="APHash+HammingIndex")[2],
    )
    assert versions == ((2, 3) if mode is STUDY else (1, 2))


@pytest.mark.parametrize("mode", ["semantic", "neighbors", "paper"])
@pytest.mark.parametrize("study", [{}, {"rotation": "none"}, {"init": "random", "resample_anchors": False}], ids=str)
def test_models_of_version_1_are_translated(digits, mode, study):
    hasher = APHash(16, mode=mode, n_rounds=1, max_iter=2, random_state=0).fit(digits[0])
    arrays, params = hasher._to_file()
    once = {
        "init": "auto", "rotation": "auto", "hash_target": "auto", "fit_hash": "auto", "updates": "auto",
        "resample_anchors": "auto",
    }  # fmt: skip
    params["given"] |= once | study
    file = io.BytesIO()
    container.write(file, arrays, kind="APHash", version=1, params=params)
    again = APHash.load(file.getvalue())
    assert again.mode == (Recipe.preset(mode).replace(**study) if study else mode)
    assert again.get_params() == hasher.get_params() | {"mode": again.mode}
    np.testing.assert_array_equal(again.codes_, hasher.codes_)
    params["given"] |= {"rotation": "backwards"}
    file = io.BytesIO()
    container.write(file, arrays, kind="APHash", version=1, params=params)
    with pytest.raises(ValueError, match=r"not a whole APHash file: .*rotation must be one of"):
        APHash.load(file.getvalue())
