"""A model with its index in one file, files of earlier versions, and the command that describes files."""

import io
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

import aphash
from aphash import APHash, HammingIndex, HammingNeighbors
from aphash._common import container

DATA = Path(__file__).parent / "data"
# What tests/data holds, in each version of the format: a model of 24 bits fitted to QUERIES, an index of its codes
# under the ids 10, 11, ..., both in one file, and the index with a lookup and without the id 20. They must open for
# ever; never write them again.
QUERIES = (np.add.outer(7 * np.arange(40), np.arange(5) ** 2) % 11 * np.array([1.0, 2, 3, 5, 8])).astype(np.float32)


def product():
    hasher = APHash(24, n_anchors=10, n_neighbors=5, n_rounds=2, random_state=0)
    with pytest.warns(UserWarning, match="independent directions"):
        hasher.fit(QUERIES)
    index = HammingIndex(24)
    index.add(hasher.transform(QUERIES), np.arange(10, 50))
    return hasher, index


def test_saved_and_loaded_together(tmp_path):
    hasher, index = product()
    aphash.save(tmp_path / "product", hasher, index)
    assert [each.name for each in tmp_path.iterdir()] == ["product"]
    for mmap in (False, True):
        again, found = aphash.load(tmp_path / "product", mmap=mmap)
        codes = again.transform(QUERIES)
        np.testing.assert_array_equal(codes, hasher.transform(QUERIES))
        np.testing.assert_array_equal(again.codes_, hasher.codes_)
        for one, other in zip(found.search(codes, 3), index.search(codes, 3), strict=True):
            np.testing.assert_array_equal(one, other)
        found.add(codes[:1])
        assert len(found) == 41


def test_what_does_not_belong_together_is_refused(tmp_path):
    hasher, index = product()
    with pytest.raises(TypeError, match="HammingIndex, got APHash and str"):
        aphash.save(tmp_path / "x", hasher, "index")
    with pytest.raises(ValueError, match="n_bits=25, hasher 24"):
        aphash.save(tmp_path / "x", hasher, HammingIndex(25))
    with pytest.raises(NotFittedError):
        aphash.save(tmp_path / "x", APHash(24), index)
    other = HammingIndex(24)
    with pytest.warns(UserWarning, match="independent directions"):
        other.add(APHash(24, n_anchors=10, n_neighbors=5, n_rounds=2, random_state=1).fit(-QUERIES).codes_)
    with pytest.raises(ValueError, match="codes of another model"):
        aphash.save(tmp_path / "x", hasher, other)
    assert not list(tmp_path.iterdir())
    index.save(tmp_path / "index")
    with pytest.raises(ValueError, match=r"index.*APHash"):
        aphash.load(tmp_path / "index")
    container.write(tmp_path / "x", {}, kind="APHash+HammingIndex", version=1, params={})
    with pytest.raises(ValueError, match=r"x.*parameters"):
        aphash.load(tmp_path / "x")
    container.write(tmp_path / "x", {}, kind="APHash+HammingIndex", version=5, params={})
    with pytest.raises(ValueError, match=r"x.*version 5"):
        aphash.load(tmp_path / "x")


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_old_versions_open_for_ever(version):
    hasher, index = APHash.load(DATA / "model-1.aphash"), HammingIndex.load(DATA / f"index-{version}.aphash")
    codes = hasher.transform(QUERIES)
    np.testing.assert_array_equal(index.ids, np.arange(10, 50))
    np.testing.assert_array_equal(index.codes, codes)
    assert hasher.n_bits == 24 and hasher.codes_.shape == (40, 1) and hasher.anchors_.shape == (10, 5)
    assert index.add(codes[:1]) == [50]
    for mmap in (False, True):
        tabled = HammingIndex.load(DATA / f"index-lookup-{version}.aphash", mmap=mmap, verify=True)
        present = tabled._store.present
        assert (present.lookup.max_scan_fraction, present.lookup.n_indexed, present.n_stale) == (0.25, 40, 1)
        np.testing.assert_array_equal(tabled.get(tabled.ids), index.get(tabled.ids))
        for one, other in zip(tabled.search(codes, 3), index.search(codes, 3, filter=tabled.ids), strict=True):
            np.testing.assert_array_equal(one, other)
        again, found = aphash.load(DATA / f"product-{version}.aphash", mmap=mmap, verify=True)
        np.testing.assert_array_equal(again.transform(QUERIES), codes)
        np.testing.assert_array_equal(found.codes, codes)


def prepared(steps, X):
    """A fitted Pipeline of steps and a model, and an index of its codes."""
    pipeline = make_pipeline(*steps, APHash(24, n_anchors=10, n_neighbors=5, n_rounds=2, random_state=0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X has .* independent directions")
        pipeline.fit(X)
    index = HammingIndex(24)
    index.add(pipeline.transform(X))
    return pipeline, index


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "steps",
    [
        [],
        [Normalizer()],
        [Normalizer("l1"), "passthrough", StandardScaler()],
        [StandardScaler(with_mean=False), Normalizer()],
        [StandardScaler(with_mean=False, with_std=False)],
        [MinMaxScaler((-2, 3), clip=True), MaxAbsScaler()],
        [RobustScaler(quantile_range=(10.0, 90.0)), PCA(3, whiten=True)],
        [RobustScaler(with_centering=False), PCA(0.9, svd_solver="full"), Normalizer()],
        [TruncatedSVD(4, random_state=np.random.RandomState(0)), PCA(random_state=3)],
    ],
    ids=lambda steps: "-".join(str(each).partition("(")[0] for each in steps),
)
def test_a_pipeline_is_saved_with_its_steps(tmp_path, steps, dtype, monkeypatch):
    X = QUERIES.astype(dtype)
    pipeline, index = prepared([clone(each) if each != "passthrough" else each for each in steps], X)
    for module in (pickle, joblib):
        monkeypatch.setattr(module, "dump", None)
        monkeypatch.setattr(module, "load", None)
    aphash.save(tmp_path / "product", pipeline, index)
    again, found = aphash.load(tmp_path / "product")
    assert type(again) is type(pipeline) and [name for name, _ in again.steps] == [name for name, _ in pipeline.steps]
    np.testing.assert_array_equal(again.transform(X), pipeline.transform(X))
    if steps:
        np.testing.assert_array_equal(again[:-1].transform(X), pipeline[:-1].transform(X))
    np.testing.assert_array_equal(found.codes, index.codes)
    buffer = io.BytesIO()
    aphash.save(buffer, pipeline, index)
    np.testing.assert_array_equal(aphash.load(buffer.getvalue())[0].transform(X), pipeline.transform(X))
    for load in (aphash.load_encoder, aphash.Encoder.load):
        with pytest.raises(ValueError, match=r"product: in front of the model are .* Pipeline.*: aphash\.load\(path\)"):
            load(tmp_path / "product")
    for (_, one), (_, other) in zip(again.steps[:-1], pipeline.steps[:-1]):
        if one == "passthrough":
            continue
        given = {**other.get_params(), "random_state": None} | {"random_state": one.get_params().get("random_state")}
        assert {**given, **one.get_params()} == given and one.get_params().keys() == other.get_params().keys()
        for name in (each for each in vars(other) if each.endswith("_")):
            value = getattr(one, name)
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
            assert np.asarray(value).dtype == np.asarray(getattr(other, name)).dtype, name
    assert again.n_features_in_ == 5
    with pytest.raises(ValueError, match="features"):
        again.transform(X[:, :4])


def test_a_pipeline_of_named_columns(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X = pandas.DataFrame(QUERIES, columns=list("abcde"))
    aphash.save(tmp_path / "product", *prepared([StandardScaler()], X))
    again, _ = aphash.load(tmp_path / "product")
    assert again.feature_names_in_.tolist() == list("abcde")
    with pytest.raises(ValueError, match="feature names should match"):
        again.transform(X.rename(columns={"a": "z"}))
    again[-1].set_output(transform="pandas")
    assert again.transform(X).columns.tolist() == ["aphash0"]


def test_pipelines_that_cannot_be_saved_say_what_to_do(tmp_path):
    pipeline, index = prepared([QuantileTransformer(n_quantiles=5)], QUERIES)
    with pytest.raises(TypeError, match=r"'quantiletransformer', of class Quantile.*last step.*joblib\.dump"):
        aphash.save(tmp_path / "x", pipeline, index)

    class Normalizer(StandardScaler):
        """Another's, of the same name."""

    pipeline, index = prepared([Normalizer()], QUERIES)
    with pytest.raises(TypeError, match="'normalizer', of class Normalizer, cannot be saved"):
        aphash.save(tmp_path / "x", pipeline, index)
    pipeline, index = prepared([PCA(3)], QUERIES)
    with pytest.raises(TypeError, match=r"PCA\.tol of the step 'pca' .*got array|PCA\.tol.*an array"):
        aphash.save(tmp_path / "x", pipeline.set_params(pca__tol=np.zeros(2)), index)
    pipeline = make_pipeline(APHash(24), HammingNeighbors())
    with pytest.raises(TypeError, match=r"ends with HammingNeighbors.*pass pipeline\[:-1\] and pipeline\[-1\]\.index_"):
        aphash.save(tmp_path / "x", pipeline, index)
    with pytest.raises(TypeError, match="ends with PCA, and must end with APHash"):
        aphash.save(tmp_path / "x", make_pipeline(PCA()), index)
    hasher, index = product()
    with pytest.raises(NotFittedError, match="StandardScaler"):
        aphash.save(tmp_path / "x", make_pipeline(StandardScaler(), hasher), index)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda arrays, params: params["steps"][0].update({"class": "FunctionTransformer"}), "FunctionTransformer"),
        (lambda arrays, params: params["steps"][0].update({"class": "os"}), "'os'"),
        (lambda arrays, params: params["steps"][0].pop("name"), "name"),
        (lambda arrays, params: params["steps"][0].update(given={"mean": 1}), "has no mean"),
        (lambda arrays, params: params["steps"][0].update(n_features_in_=4), r"shape \(4,\), got \(5,\)"),
        (lambda arrays, params: params["steps"][1].update(n_features_in_=4), "takes 4 columns, and 5 come"),
        (lambda arrays, params: params["steps"][0].update(feature_names_in_=["a"]), "must be 5 strings"),
        (lambda arrays, params: params.update(steps=3), "not iterable"),
        (lambda arrays, params: params["steps"].pop(), "3 features behind steps that make 5"),
        (lambda arrays, params: arrays.pop("steps.1.components_"), "PCA without components_"),
        (lambda arrays, params: arrays.update({"steps.1.components_": np.zeros((2, 5))}), r"shape \(2,\), got \(3,\)"),
        (lambda arrays, params: arrays.update({"steps.0.var_": np.zeros((5, 1))}), "StandardScaler.var_ must have"),
    ],
)
def test_steps_that_do_not_fit_are_refused(tmp_path, change, message):
    aphash.save(tmp_path / "whole", *prepared([StandardScaler(), PCA(3)], QUERIES))
    arrays, params, version = container.read(tmp_path / "whole")
    change(arrays, params)
    container.write(tmp_path / "bad", arrays, kind="APHash+HammingIndex", version=version, params=params)
    with pytest.raises(ValueError, match=f"bad: not the whole steps of a Pipeline.*{message}"):
        aphash.load(tmp_path / "bad")


def info(*arguments):
    return subprocess.run([sys.executable, "-m", "aphash", "info", *arguments], capture_output=True, text=True)


def test_info_describes_a_file_and_finds_damage(tmp_path):
    found = info(str(DATA / "product-1.aphash"))
    assert found.returncode == 0, found.stderr
    assert "APHash+HammingIndex, version 1" in found.stdout and "whole" in found.stdout
    assert "hasher.coef_" in found.stdout and "24 x 5" in found.stdout
    damaged = bytearray((DATA / "product-1.aphash").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "bad").write_bytes(damaged)
    found = info(str(tmp_path / "bad"))
    assert found.returncode == 1 and "not whole" in found.stderr
    for path, message in [(tmp_path / "none", "No such file"), (tmp_path, "directory")]:
        found = info(str(path))
        assert found.returncode == 1 and message in found.stderr and "Traceback" not in found.stderr


if __name__ == "__main__":  # how a new version's files in tests/data are made, once: python test_product.py VERSION
    model, codes = APHash.load(DATA / "model-1.aphash"), HammingIndex.load(DATA / "index-1.aphash")
    codes.save(DATA / f"index-{sys.argv[1]}.aphash")
    aphash.save(DATA / f"product-{sys.argv[1]}.aphash", model, codes)
    codes.build_lookup(max_scan_fraction=0.25)
    codes.remove([20])
    codes.save(DATA / f"index-lookup-{sys.argv[1]}.aphash")
