"""The command line: whatever it is given, a line on stderr that names the file, before any work, and no traceback."""

import json
import re

import numpy as np
import pytest

from aphash.__main__ import main

X = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)


def changed(value, dtype=np.float32):
    other = X.astype(dtype)
    other[37, 2] = value
    return other


FILES = {
    "nan.npy": (changed(np.nan), "NaN or infinity.*row 37"), "inf.npy": (changed(-np.inf), "NaN or infinity.*row 37"),
    "one.npy": (X[:, :1], r"d >= 2, got \(60, 1\)"), "flat.npy": (X[:, 0], r"got \(60,\)"),
    "few.npy": (X[:19], r"n >= 20.*got \(19, 8\)"), "text.npy": (X.astype(str), "must be numbers, got text"),
    "complex.npy": (X + 1j, "Complex"), "objects.npy": (X.astype(object), "objects must become numbers"),
}  # fmt: skip


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("good.npy", X)

    def call(*argv):
        """Return what is said on stderr when it ends with an error; nothing must have been printed before."""
        with pytest.raises(SystemExit) as raised:
            main(list(argv))
        assert capsys.readouterr().out == ""
        assert isinstance(raised.value.code, str) and "\n" not in raised.value.code
        return raised.value.code

    return call


@pytest.mark.parametrize("name", FILES)
def test_arrays_that_are_refused(call, name):
    array, words = FILES[name]
    np.save(name, array, allow_pickle=True)
    assert (said := call("--data", name)).startswith("aphash: ") and name in said
    assert re.search(words, said), said


def test_files_that_are_no_arrays(call):
    np.savez("a.npz", first=X, second=X)
    np.savetxt("a.csv", X, delimiter=",")
    with open("a.json", "w") as file:
        json.dump(X.tolist(), file)
    with open("empty.npy", "w"):
        pass
    with open("good.npy", "rb") as whole, open("cut.npy", "wb") as cut:
        cut.write(whole.read()[:500])
    for name, words in [
        ("a.npz", "first, second"), ("a.csv", "numpy.loadtxt"), ("a.json", "json.load"), ("empty.npy", "No data"),
        ("cut.npy", "not a .npy file"), ("none.npy", "No such file"), (".", "directory"),
    ]:  # fmt: skip
        said = call("--data", name)
        assert name in said and words in said, said


def test_labels_that_are_refused(call):
    np.save("short.npy", np.zeros(59, int))
    np.save("real.npy", np.full(60, np.nan))
    np.savez("labels.npz", np.zeros(60, int))
    for name, words in (
        ("short.npy", "(59,)"),
        ("real.npy", "float64"),
        ("labels.npz", "archive"),
        ("none", "No such"),
    ):
        said = call("--data", "good.npy", "--labels", name)
        assert name in said and words in said and "good.npy" not in said
    assert "--labels needs --data" in call("--labels", "short.npy")


def test_a_picture_that_cannot_be_written_is_refused_before_any_work(call, tmp_path):
    for name, words in (("none/x.png", "No such file"), (".", "directory"), ("x.foo", "expected a picture's name")):
        for data in ((), ("--data", "good.npy")):
            said = call("--out", name, *data)
            assert name in said and words in said
    assert [each.name for each in tmp_path.iterdir()] == ["good.npy"]
    assert "n_bits must be in 1 .. 65536" in call("--bits", "0")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.uint8, ">f4", bool])
@pytest.mark.filterwarnings("ignore:X has .* independent directions")
def test_arrays_of_any_real_dtype_are_searched(tmp_path, monkeypatch, capsys, dtype):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.abs(10 * X).astype(dtype) if dtype is not bool else X > 0)
    np.save("y.npy", np.arange(60) % 3)
    main(["--data", "x.npy", "--labels", "y.npy", "--bits", "8"])
    assert capsys.readouterr().out.count("\n") == 9
