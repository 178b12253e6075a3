"""Encoder: the hash function without the learner, from a file, with numpy alone; the same bits as the model's."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import aphash
from aphash import APHash, Encoder, HammingIndex, _kernels, unpack_codes
from aphash._common import container
from aphash.codes import origin_of

DATA = Path(__file__).parent / "data"
RNG = np.random.default_rng(5)
X = RNG.standard_normal((500, 72)).astype(np.float32)


@pytest.fixture(scope="module")
def hasher():
    return APHash(70, n_rounds=1, n_anchors=20, random_state=0).fit(RNG.standard_normal((900, 72)).astype(np.float32))


@pytest.fixture(scope="module")
def files(hasher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    hasher.save(folder / "model")
    index = HammingIndex(70)
    index.add(hasher.transform(X))
    aphash.save(folder / "product", hasher, index)
    return folder


@pytest.fixture(params=["model", "product", "load_encoder", "encoder_"])
def encoder(request, hasher, files):
    if request.param == "encoder_":
        return hasher.encoder_
    if request.param == "load_encoder":
        return aphash.load_encoder(files / "product")[0]
    return Encoder.load(files / request.param)


def test_it_is_the_model_s_hash_function(hasher, encoder):
    assert (encoder.n_bits, encoder.n_features, encoder.fingerprint) == (70, 72, hasher.fingerprint_)
    codes = encoder.transform(X)
    np.testing.assert_array_equal(codes, hasher.transform(X))
    assert codes.dtype == np.uint64 and codes.shape == (500, 2)
    out = encoder.decision_function(X)
    np.testing.assert_array_equal(out, hasher.decision_function(X))
    np.testing.assert_array_equal(out, encoder.query_projections(X))
    np.testing.assert_array_equal(out, hasher.query_projections(X))
    np.testing.assert_array_equal(unpack_codes(codes, 70), out >= 0)
    exact = X.astype(np.float64) @ hasher.coef_.T + hasher.intercept_
    np.testing.assert_allclose(out, exact, atol=1e-4 * np.abs(exact).max())
    assert origin_of(codes).fingerprint == hasher.fingerprint_
    assert "n_bits=70" in repr(encoder)


@pytest.mark.parametrize("isa", _kernels.isa_names())
@pytest.mark.parametrize("n_bits", [1, 9, 16, 33, 64, 100, 257])
@pytest.mark.parametrize("d", [1, 7, 300, 1500])
def test_one_row_has_the_bits_that_it_has_among_others(isa, n_bits, d):
    rng = np.random.default_rng([n_bits, d])
    encoder = Encoder(rng.standard_normal((n_bits, d)), rng.standard_normal(n_bits), rng.standard_normal(d), 0.7)
    before = _kernels.isa()
    try:
        for name in (*_kernels.isa_names(), isa):  # what was packed for another set is packed anew
            _kernels.set_isa(name)
            encoder.transform(np.zeros((2, d)))
        for dtype in (np.float16, np.float32, np.float64):
            V = rng.standard_normal((7, d)).astype(dtype)
            codes, out = encoder.transform(V), encoder.decision_function(V)
            np.testing.assert_allclose(out, V @ encoder.coef.T + encoder.intercept, rtol=1e-3, atol=1e-3)
            for i, row in enumerate(V):
                np.testing.assert_array_equal(encoder.transform(row), codes[i])
                np.testing.assert_array_equal(encoder.transform(V[i : i + 1]), codes[i : i + 1])
                np.testing.assert_array_equal(encoder.decision_function(row), out[i])
                np.testing.assert_array_equal(encoder.decision_function(V[i : i + 1]), out[i : i + 1])
    finally:
        _kernels.set_isa(before)


def forms(array):
    """The same numbers as people bring them: (what, the rows that they are)."""
    f8 = array.astype(np.float64)
    yield array, array
    yield array.tolist(), f8
    for dtype in ("f2", "f4", "f8", ">f8", ">f4", "g", object):
        yield array.astype(dtype), array.astype(dtype).astype(np.float64)
    whole = np.round(array * 9)
    for dtype in ("i1", "i4", ">i8", object):
        yield whole.astype("i4").astype(dtype), whole
    yield (array > 0), (array > 0).astype(np.float64)
    yield np.asfortranarray(array), array
    yield np.repeat(array, 2, axis=-1)[..., ::2], array
    yield np.ma.masked_array(array, mask=False), array


@pytest.mark.parametrize("shape", [(5, 72), (1, 72), (72,)])
def test_whatever_holds_the_numbers_is_read(hasher, encoder, shape):
    array = X[: shape[0]] if len(shape) == 2 else X[0]
    for given_X, rows in forms(array):
        wanted = np.atleast_2d(rows).astype(np.float64)
        for each in (encoder, hasher):
            codes, out = each.transform(given_X), each.decision_function(given_X)
            assert codes.shape == (*shape[:-1], 2) and out.shape == (*shape[:-1], 70)
            np.testing.assert_array_equal(np.atleast_2d(out), encoder.decision_function(wanted))
            np.testing.assert_array_equal(np.atleast_2d(codes), encoder.transform(wanted))


def _with(value, row=3, column=7, dtype=np.float64, n=5):
    array = X[:n].astype(dtype)
    array[row, column] = value
    return array


BAD = [
    (X[:, :71], ValueError, "71 features.*expecting 72"),
    (X[0, :71], ValueError, "71 features.*expecting 72"),
    (X[:0], ValueError, r"0 sample\(s\)"),
    (X[:, :0], ValueError, r"0 feature\(s\)"),
    (X[None], ValueError, "dim 3"),
    (1.5, ValueError, "Reshape your data"),
    (_with(np.nan), ValueError, "NaN.*row 3"),
    (_with(np.inf, 0, n=1), ValueError, "NaN.*row 0"),
    (_with(np.nan, 0, n=1)[0], ValueError, "NaN.*row 0"),
    (_with(np.nan, 0, dtype=np.float16, n=1), ValueError, "NaN.*row 0"),
    (_with(np.inf, 0, dtype=np.float32, n=1), ValueError, "infinity.*row 0"),
    (_with(1e38, 0, dtype=np.float32, n=1), ValueError, "too far .*row 0"),
    (_with(-1e300), ValueError, "too far .*row 3"),
    (np.ma.masked_equal(_with(7.0), 7.0), ValueError, "masked.*row 3"),
    (X[:2].astype(str), TypeError, "text"),
    (_with("1.5", dtype=object), TypeError, "text '1.5' in row 3, column 7"),
    (_with(None, dtype=object), ValueError, "no value .*row 3"),
    (X[:2] + 1j, ValueError, "Complex"),
    ([[1.0], [1.0, 2.0]], ValueError, "one shape: row 1"),
    (np.full((2, 72), 2**53 + 1), ValueError, "float64 does not hold"),
    (sparse.csr_array(X[:2]), TypeError, "Sparse"),
    (set(), TypeError, "a set"),
    (None, TypeError, "None"),
    (iter(X), TypeError, "np.stack"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD)
@pytest.mark.parametrize("method", ["transform", "decision_function", "query_projections"])
def test_what_cannot_be_read_is_refused_by_both(hasher, bad, error, message, method):
    for each in (hasher, hasher.encoder_):
        with pytest.raises(error, match=message) as caught:
            getattr(each, method)(bad)
        assert "X" in str(caught.value)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_frames_must_be_those_of_fit(library, tmp_path):
    frames = pytest.importorskip(library, reason=f"{library} is not installed")
    names = [f"c{i}" for i in range(6)]
    good = frames.DataFrame({name: X[:, i] for i, name in enumerate(names)})
    hasher = APHash(4, n_rounds=1, n_anchors=20, random_state=0).fit(good)
    hasher.save(tmp_path / "model")
    plain = APHash(4, n_rounds=1, n_anchors=20, random_state=0).fit(X[:, :6])
    for each in (hasher, Encoder.load(tmp_path / "model")):
        codes = each.transform(good)
        np.testing.assert_array_equal(codes, plain.transform(X[:, :6]))
        with pytest.warns(UserWarning, match="does not have valid feature names, but APHash was fitted with"):
            np.testing.assert_array_equal(each.transform(X[:1, :6]), codes[:1])
        with pytest.raises(ValueError, match=r"must be in the same order"):
            each.transform(good[names[::-1]])
        with pytest.raises(ValueError, match=r"unseen at fit time:\n- z\nFeature names seen .* missing:\n- c5"):
            each.transform(good.rename(columns={"c5": "z"}) if library == "pandas" else good.rename({"c5": "z"}))
        with pytest.raises(ValueError, match=r"missing:\n- c1\n- c2\n- c3\n- c4\n- c5\n$"):
            each.transform(good[["c0"]])
    assert list(Encoder.load(tmp_path / "model").feature_names) == names
    for each in (plain, plain.encoder_):
        with pytest.warns(UserWarning, match="X has feature names, but APHash was fitted without"):
            np.testing.assert_array_equal(each.transform(good), codes)
    if library == "pandas":
        with pytest.raises(TypeError, match=r"X.*string names"):
            plain.transform(good.rename(columns={"c5": 5}))
        assert plain.transform(frames.DataFrame(X[:, :6])).shape == (500, 1)  # names that are no texts are none


@given(st.integers(1, 9), st.sampled_from(["f2", "f4", "f8"]), st.booleans(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_rows_do_not_depend_on_their_company(n, dtype, vector, seed):
    rng = np.random.default_rng(seed)
    encoder = Encoder(rng.standard_normal((65, 11)), rng.standard_normal(65), np.zeros(11), 1.0)
    V = rng.standard_normal((n, 11)).astype(dtype)
    codes = encoder.transform(V)
    rows = V if vector else V[:, None]
    np.testing.assert_array_equal(np.stack([encoder.transform(row) for row in rows]).reshape(n, 2), codes)


def test_what_is_packed_stays_true(hasher):
    for name in ("coef_", "intercept_", "mean_"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(hasher, name)[:] = 0
    for changed in (copy.deepcopy(hasher), pickle.loads(pickle.dumps(hasher)), copy.copy(hasher)):
        np.testing.assert_array_equal(changed.transform(X), hasher.transform(X))
        assert not changed.coef_.flags.writeable
        changed.coef_ = -changed.coef_
        changed.intercept_ = -changed.intercept_
        np.testing.assert_array_equal(changed.decision_function(X[:9]), -hasher.decision_function(X[:9]))
        assert origin_of(changed.transform(X)).fingerprint != hasher.fingerprint_
    unfitted = pickle.loads(pickle.dumps(APHash(3)))
    assert not hasattr(unfitted, "encoder_")
    old = copy.copy(hasher)
    vars(old).pop("_encoder")  # a pickle of an earlier version
    np.testing.assert_array_equal(old.transform(X), hasher.transform(X))


def test_an_encoder_is_pickled(encoder):
    encoder.transform(X)
    encoder.n_jobs = 2
    for again in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(again.transform(X), encoder.transform(X))
        assert (again.fingerprint, again.n_jobs) == (encoder.fingerprint, 2)
    assert len(pickle.dumps(encoder)) < 8 * 70 * 74 + 2000
    encoder.n_jobs = None


@pytest.mark.parametrize("n_jobs", [0, 1.5, "all"])
def test_n_jobs_is_checked_where_there_is_work(encoder, n_jobs):
    encoder.n_jobs = n_jobs
    try:
        with pytest.raises((TypeError, ValueError), match="n_jobs"):
            encoder.transform(X)
    finally:
        encoder.n_jobs = None


def test_old_files_open():
    from test_product import QUERIES

    wanted = HammingIndex.load(DATA / "index-1.aphash").codes
    for name in ("model-1", "product-1", "product-2"):
        np.testing.assert_array_equal(Encoder.load(DATA / f"{name}.aphash").transform(QUERIES), wanted)
    for version in (1, 2):
        for mmap in (False, True):
            encoder, index = aphash.load_encoder(DATA / f"product-{version}.aphash", mmap=mmap)
            np.testing.assert_array_equal(encoder.transform(QUERIES), index.codes)


def test_only_the_hash_function_is_read(files, tmp_path):
    contents = bytearray((files / "model").read_bytes())
    header = json.loads(contents[8 : 8 + int.from_bytes(contents[:8], "little")])
    base = 8 + int.from_bytes(contents[:8], "little")

    def flip(name):
        damaged = bytearray(contents)
        damaged[base + header[name]["data_offsets"][0]] ^= 1
        (tmp_path / "damaged").write_bytes(damaged)

    flip("codes_")
    assert Encoder.load(tmp_path / "damaged").n_bits == 70
    with pytest.raises(ValueError, match="codes_"):
        APHash.load(tmp_path / "damaged")
    flip("coef_")
    with pytest.raises(ValueError, match="array 'coef_' is damaged"):
        Encoder.load(tmp_path / "damaged")


def test_files_that_hold_no_model_are_refused(files, tmp_path, hasher):
    index = HammingIndex(70)
    index.save(tmp_path / "index")
    with pytest.raises(
        ValueError, match=r"index: it holds 'HammingIndex', expected 'APHash' or 'APHash\+HammingIndex'"
    ):
        Encoder.load(tmp_path / "index")
    with pytest.raises(ValueError, match=r"model: it holds 'APHash'.* read it with APHash.load\(path\) or Encoder"):
        aphash.load_encoder(files / "model")
    arrays, params = hasher._to_file()
    for change, message in [
        ({"version": 5}, "version 5 of a model's file"),
        ({"params": {**params, "scale_": -1.0}}, "scale must be positive"),
        ({"params": {**params, "given": None}}, "not a whole"),
        ({"params": {**params, "feature_names_in_": ["a"]}}, "72 strings"),
        ({"params": {**params, "fingerprint_": "0"}}, "fingerprint"),
        ({"arrays": {**arrays, "mean_": np.zeros(3)}}, "do not fit each other: mean"),
        ({"arrays": {**arrays, "coef_": np.zeros((70, 72), np.float32)}}, "do not fit each other: coef"),
        ({"arrays": {**arrays, "coef_": np.zeros(70)}}, "coef must have shape"),
        ({"arrays": {}}, "coef_"),
        ({"kind": "APHash+HammingIndex", "version": 5}, "version 5 of such a file"),
        ({"kind": "APHash+HammingIndex"}, "not a whole"),
    ]:
        container.write(
            tmp_path / "bad", **{"arrays": arrays, "kind": "APHash", "version": 1, "params": params, **change}
        )
        with pytest.raises(ValueError, match=f"bad: .*{message}"):
            Encoder.load(tmp_path / "bad")
    with pytest.raises(FileNotFoundError, match="none"):
        Encoder.load(tmp_path / "none")


def test_query_projections_are_weights(hasher, files):
    encoder, index = aphash.load_encoder(files / "product", mmap=True)
    found = index.search(encoder.query_projections(X[:9]), 5)
    assert found[0].dtype == np.float32 and (found[1][:, 0] == np.arange(9)).mean() > 0.5


SERVICE = """
import os, sys
import aphash
encoder, index = aphash.load_encoder(sys.argv[1], mmap=True)
alone = aphash.Encoder.load(sys.argv[1])
import numpy as np
before = len(os.listdir("/proc/self/task"))
for X in (np.zeros((1, 72), np.float32), np.zeros(72), [[0.0] * 72]):
    codes = encoder.transform(X)
    assert (codes == alone.transform(X)).all()
    encoder.decision_function(X)
index.search(codes, 3, n_jobs=1)
print(len(os.listdir("/proc/self/task")) - before, *{name.partition(".")[0] for name in sys.modules})
"""


def test_a_service_loads_numpy_only_and_one_row_starts_no_thread(files):
    run = subprocess.run(
        [sys.executable, "-c", SERVICE, files / "product"],
        env={**os.environ, "PYTHONPATH": str(Path(aphash.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    threads, *modules = run.stdout.split()
    assert threads == "0"
    assert not {"scipy", "sklearn", "tqdm", "threadpoolctl", "joblib"} & set(modules)
