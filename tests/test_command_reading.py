"""Vectors, ids, labels and names of every format; what is wrong is one sentence that begins with the file's name."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from aphash._command import reading

X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name, X=X):
    """Write vectors in the format of a name; return how the array is named in a file of several."""
    suffix = os.path.splitext(name)[1]
    if suffix == ".npy":
        np.save(name, X)
    elif suffix == ".npz":
        np.savez(name, y=np.arange(len(X)), vectors=X)
    elif suffix in (".csv", ".tsv", ".txt"):
        np.savetxt(name, X, delimiter={".csv": ",", ".tsv": "\t", ".txt": " "}[suffix], fmt="%.9g")
    elif suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"y": range(len(X)), "vectors": list(X)}), name)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(name, "w") as file:
            file["group/vectors"], file["y"] = X, np.arange(len(X))
    return "group/vectors" if suffix == ".h5" else "vectors"


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.tsv", "x.txt", "x.parquet", "x.h5"])
def test_every_format_gives_the_vectors_from_a_file_and_from_standard_input(name, monkeypatch):
    own = write(name)
    assert np.array_equal(reading.read_vectors(name), X)
    content = Path(name).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert np.array_equal(reading.read_vectors("-"), X)
    if name.endswith((".npz", ".parquet", ".h5")):
        assert np.array_equal(reading.read_vectors(f"{name}:{own}"), X)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert np.array_equal(reading.read_vectors(f"-:{own}"), X)
        assert np.array_equal(reading.read_labels(f"{name}:y", len(X)), np.arange(len(X)))
        with pytest.raises(ValueError, match=rf"^{name}: has no array 'z': it holds .*{own} \(20 x "):
            reading.read_vectors(f"{name}:z")
    else:
        with pytest.raises((OSError, ValueError), match=r"No such file"):
            reading.read_vectors(f"{name}:vectors")
    with open(name, "wb") as file:
        file.write(content[: len(content) // 2])
    if not name.endswith((".csv", ".tsv", ".txt")):
        with pytest.raises(ValueError, match=f"^{name}: "):
            reading.read_vectors(name)
    with open(name, "wb"):
        pass
    with pytest.raises(ValueError, match=f"^{name}: empty$"):
        reading.read_vectors(name)


def test_a_file_of_npy_is_mapped_and_a_pipe_is_read():
    np.save("x.npy", X)
    assert isinstance(reading.read_vectors("x.npy").base, np.memmap)
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(Path("x.npy").read_bytes()))
    writer.start()
    reading.check_readable("pipe")
    assert np.array_equal(reading.read_vectors("pipe"), X)
    writer.join()


def test_several_arrays_must_be_named():
    np.savez("x.npz", first=X, second=X, y=np.arange(20))
    with pytest.raises(ValueError, match=r"^x.npz: holds first \(20 x 3\), second .*: name one, as in x.npz:first$"):
        reading.read_vectors("x.npz")
    np.savez("x.npz", y=np.arange(20))
    with pytest.raises(ValueError, match=r"^x.npz: holds y \(20\): name one"):
        reading.read_vectors("x.npz")
    np.save("odd:name.npz", X)  # a file that is called so
    os.rename("odd:name.npz.npy", "odd:name.npz")
    assert np.array_equal(reading.read_vectors("odd:name.npz"), X)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2\n3,x\n", "line 2, column 2: 'x' is no number"),
        ("a,b\n1,2\n3,x\n", r"line 3, column 2 \(b\): 'x' is no number"),
        ("# made by hand\na,b\n1,2\n\n", None),
        ("1,2\n3,\n", "line 2, column 2: no number"),
        ("1,2\n3,4\n5\n", "line 3: 1 columns, and 2 above"),
        ("1,2\n3,4,5\n", "line 2: 3 columns, and 2 above"),
        ("a,b\n", "no numbers, but names"),
        ("\n\n", "no numbers"),
        ("1,nan\n", "NaN or infinity.*row 0"),
        ("img.jpg,1,2\nimg2.jpg,3,4\n", "line 1, column 1: 'img.jpg' is no number"),
        ("\ufeff1;2\r\n3;4\r\n", None),
        ('"a"\t"b"\n"1"\t"2"\n', None),
        ("  1 2\n 3   4\n", None),
    ],
)
def test_tables_in_text(text, words):
    with open("x.csv", "w", encoding="utf-8", newline="") as file:
        file.write(text)
    if words is None:
        assert reading.read_vectors("x.csv")[0].tolist() == [1, 2]
    else:
        with pytest.raises(ValueError, match=f"^x.csv: .*{words}"):
            reading.read_vectors("x.csv")


def test_row_numbers_in_front_are_left_out(capsys):
    """As pandas.DataFrame.to_csv writes them."""
    with open("x.csv", "w") as file:
        file.write(",a,b\n0,1,2\n1,3,4\n")
    assert reading.read_vectors("x.csv").tolist() == [[1, 2], [3, 4]]
    assert capsys.readouterr().err == "aphash: x.csv: its first column, '', is left out\n"


def test_parquet_of_pandas_and_of_columns():
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pandas.DataFrame(X, columns=["a", "b", "c"], index=[f"row {i}" for i in range(20)])
    table.to_parquet("x.parquet")
    assert np.array_equal(reading.read_vectors("x.parquet"), X)
    table.assign(name="x").to_parquet("x.parquet")
    with pytest.raises(ValueError, match=r"^x.parquet: column 'name' is (large_)?string, not numbers"):
        reading.read_vectors("x.parquet")
    for values, words in (
        ([[1.0, 2.0], None], "rows without a value"),
        ([[1.0, 2.0], [1.0]], "row 1 has 1 numbers, row 0 2"),
        ([[1.0, None], [1.0, 2.0]], "lists with missing numbers"),
        ([["a"], ["b"]], "lists of (large_)?string"),
    ):
        pandas.DataFrame({"v": values}).to_parquet("x.parquet")
        with pytest.raises(ValueError, match=f"^x.parquet: column 'v'.* {words}"):
            reading.read_vectors("x.parquet")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (X.astype(str), "must be numbers, got text"),
        (X + 1j, "Complex"),
        (X.astype(object), "objects must become numbers"),
        (X[:, 0], r"shape \(n, d\), got shape \(20,\)"),
        (X[:0], r"got shape \(0, 3\)"),
        (np.where(X[7, 1] == X, np.inf, X), "NaN or infinity.*row 7"),
        (np.zeros(3, [("a", "f4")]), r"got shape \(3,\)"),
    ],
)
def test_arrays_that_are_no_vectors(array, words):
    np.save("x.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=f"^x.npy: .*{words}"):
        reading.read_vectors("x.npy")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.uint8, ">f4", bool])
def test_numbers_of_any_dtype_become_floats(dtype):
    values = np.abs(10 * X).astype(dtype)
    np.save("x.npy", values)
    found = reading.read_vectors("x.npy")
    assert found.dtype.kind == "f" and found.dtype.isnative and np.array_equal(found, values.astype(np.float64))


def test_one_vector_is_one_query():
    np.save("x.npy", X[0])
    assert np.array_equal(reading.read_vectors("x.npy", one=True), X[:1])


def test_files_of_others():
    for name, words in (("x.json", "json.load"), ("x.pkl", "pickle"), ("x.gz", "zcat"), ("x.npy", "not a .npy file")):
        with open(name, "w") as file:
            file.write("[1, 2]")
        with pytest.raises(ValueError, match=f"^{name}: .*{words}"):
            reading.read_vectors(name)
    with open("x.bin", "wb") as file:
        file.write(bytes(range(256)))
    with pytest.raises(ValueError, match=r"^x.bin: not a text in UTF-8, nor one of .npy"):
        reading.read_vectors("x.bin")


@pytest.mark.parametrize("module", ["pyarrow", "h5py"])
def test_libraries_that_are_not_there(module, monkeypatch):
    name = {"pyarrow": "x.parquet", "h5py": "x.h5"}[module]
    write(name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"^{name}: .* needs {module}: pip install {module}$"):
        reading.read_vectors(name)


def test_files_that_cannot_be_read(folder):
    for name, kind in (("none.npy", FileNotFoundError), (".", IsADirectoryError)):
        with pytest.raises(kind) as raised:
            reading.check_readable(name)
        assert raised.value.filename == name
    reading.check_readable(None, "-")
    with pytest.raises(ValueError, match="one file only"):
        reading.check_readable("-", "-:x")


def test_ids():
    with open("ids", "w") as file:
        file.write("7\n-3\n 9000000000\n")
    assert reading.read_ids("ids", 3).tolist() == [7, -3, 9_000_000_000]
    np.save("ids.npy", [5, 6])
    assert reading.read_ids("ids.npy", 2).tolist() == [5, 6]
    for text, words in (
        ("1\nx\n2", "line 2 is no integer: 'x'"),
        ("1\n2", "for each of 3 vectors, got 2"),
        ("1\n-1\n2", "must not be -1"),
        ("1\n1\n2", "got twice: 1"),
        ("1\n2\n" + "9" * 30, "int64"),
    ):
        with open("ids", "w") as file:
            file.write(text)
        with pytest.raises(ValueError, match=f"^ids: .*{words}"):
            reading.read_ids("ids", 3)
    np.save("ids.npy", [0.5, 1.5])
    with pytest.raises(ValueError, match=r"^ids.npy: ids must be integers"):
        reading.read_ids("ids.npy", 2)


def test_labels_and_names():
    with open("names", "w", encoding="utf-8") as file:
        file.write("ein Hund\u2028bellt\nKatze\n")
    assert reading.read_names("names") == ["ein Hund\u2028bellt", "Katze"]
    assert reading.read_labels("names", 2).tolist() == ["ein Hund\u2028bellt", "Katze"]
    with pytest.raises(ValueError, match=r"^names: expected 3 labels"):
        reading.read_labels("names", 3)
    np.save("y.npy", [0.5, 1.5])
    with pytest.raises(ValueError, match=r"^y.npy: expected 2 labels, integers or texts, got float64"):
        reading.read_labels("y.npy", 2)
    with pytest.raises(ValueError, match=r"^y.npy: expected a text"):
        reading.read_names("y.npy")


def test_standard_input_that_is_closed():
    program = "from aphash._command import reading\nreading.check_readable('-')"
    done = subprocess.run(["sh", "-c", f'"{sys.executable}" -c "{program}" <&-'], capture_output=True, text=True)
    assert done.returncode == 1 and "standard input is closed" in done.stderr


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.parquet", "x.h5"])
@pytest.mark.filterwarnings("ignore")  # of readers, on what they do not understand
def test_damaged_files_are_read_or_refused_by_name(name):
    write(name)
    if name == "x.npz":
        np.savez_compressed(name, vectors=X)
    content, chance, refused = Path(name).read_bytes(), np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in chance.integers(len(content), size=3):
            damaged[place] = chance.integers(256)
        Path(name).write_bytes(damaged[: chance.integers(1, len(content))] if chance.random() < 0.3 else damaged)
        try:
            assert reading.read_vectors(name).dtype.kind == "f"
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{name}: ") and "\n" not in str(error)
    assert refused > 10
