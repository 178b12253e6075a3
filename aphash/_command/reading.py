"""Indexes, vectors, labels, ids and names out of files of the usual kinds, or of standard input.

They are checked as they are read. Whatever is wrong is a ValueError that begins with the file's name, as the command
line prints it.
"""

import contextlib
import errno
import io
import os
import re
import stat
import sys
import tokenize
import warnings
import zipfile
import zlib

import numpy as np

from aphash._common.arrays import as_floats
from aphash._common.checks import check_ids
from aphash._common.finite import check_finite

STDIN = "-"
FORMATS = ".npy, .npz, .csv, .tsv, .parquet and .h5 files"  # for help texts

_SUFFIXES = {
    ".npy": "npy", ".npz": "npz", ".csv": "text", ".tsv": "text", ".txt": "text",
    ".parquet": "parquet", ".pq": "parquet", ".h5": "hdf5", ".hdf5": "hdf5",
}  # fmt: skip
_BEGINNINGS = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PAR1": "parquet", b"\x89HDF\r\n\x1a\n": "hdf5"}
_OF_DAMAGE = (  # what readers raise for files that are not whole
    ValueError, TypeError, OSError, EOFError, LookupError, ArithmeticError, RuntimeError, MemoryError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_OURS = b'"format":"aphash"'  # in the first 64 bytes
_OF_ARRAYS = ("npz", "parquet", "hdf5")  # kinds of files that hold several
_COUNTING = ("", "id", "ids", "index")  # names of a first column that is left out
_ADVICE = {
    ".json": "json.load reads it, numpy.save writes what is read here",
    ".pkl": "pickle loads it, numpy.save writes what is read here",
    ".pickle": "pickle loads it, numpy.save writes what is read here",
    ".pt": "torch.load reads it, numpy.save writes what is read here",
    ".gz": "unpack it, or pipe it: zcat FILE | aphash ... -",
}


def name_of(source):
    """Return how messages name a file."""
    return "standard input" if source == STDIN else source


def split_source(source):
    """Return (path, name of an array in it or None) of FILE or FILE:NAME."""
    path, colon, array = source.rpartition(":")
    if not colon or os.path.exists(source):
        return source, None
    if path == STDIN or _SUFFIXES.get(_suffix(path)) in _OF_ARRAYS:
        return path, array
    return source, None


def check_readable(*sources):
    """Raise OSError or ValueError when one of some sources, None among them, is not there, or standard input is two."""
    given = [split_source(source)[0] for source in sources if source is not None]
    if given.count(STDIN) > 1:
        raise ValueError("standard input, '-', can be one file only")
    for path in given:
        if path == STDIN:
            if sys.stdin is None:
                raise ValueError("standard input is closed")
            continue
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if stat.S_ISREG(mode):  # a pipe's writer would lose its reader
            os.close(os.open(path, os.O_RDONLY))


def read_vectors(source, *, least=1, one=False):
    """Return vectors, one a row, as floats.

    Parameters
    ----------
    source : str
        A file, FILE:NAME of an array in a file that holds several, or "-": standard input.
    least : int
        Rows that are needed.
    one : bool
        Whether an array of shape (d,) is one row.

    Returns
    -------
    ndarray of float16, float32 or float64, shape (n, d)
        Finite. That of a .npy file is mapped where it holds floats; others are in memory.
    """
    path, array = split_source(source)
    found = _read(path, array, ndim=2)
    name = name_of(source)
    if one and found.ndim == 1 and found.size:
        found = found[np.newaxis]
    if found.ndim != 2 or len(found) < least or found.shape[1] < 1:
        rows = "" if least == 1 else f", n >= {least}"
        raise ValueError(f"{name}: expected vectors, an array of shape (n, d){rows}, got shape {found.shape}")
    try:
        found = as_floats(found, "the array")
        check_finite(found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {str(error).removeprefix('Input X ')}") from None
    return found


def read_labels(source, n):
    """Return n labels: an array of integers or texts, or the lines of a text."""
    path, array = split_source(source)
    kind, content = _kind_and_content(path)
    labels = np.array(_lines(path, content)) if kind == "text" else _read(path, array, ndim=1, found=(kind, content))
    if labels.shape != (n,) or labels.dtype.kind not in "biuUS":
        raise ValueError(
            f"{name_of(source)}: expected {n:,} labels, integers or texts, got {labels.dtype} of shape {labels.shape}"
        )
    return labels


def read_ids(source, n):
    """Return n ids, int64 and all different: an array of integers, or one integer a line."""
    path, array = split_source(source)
    kind, content = _kind_and_content(path)
    name = name_of(source)
    if kind == "text":
        ids = []
        for number, line in enumerate(_lines(path, content), 1):
            try:
                ids.append(int(line))
            except ValueError:
                raise ValueError(f"{name}: line {number} is no integer: {_shortened(line)!r}") from None
    else:
        ids = _read(path, array, ndim=1, found=(kind, content))
    if len(ids) != n:
        raise ValueError(f"{name}: expected an id for each of {n:,} vectors, got {len(ids):,}")
    try:
        return check_ids(ids, n)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None


def read_names(source):
    """Return the lines of a text."""
    path, _ = split_source(source)
    kind, content = _kind_and_content(path)
    if kind != "text":
        raise ValueError(f"{name_of(source)}: expected a text of one name a line")
    return _lines(path, content)


def is_index(path):
    """Whether a file is one of aphash's own."""
    if path == STDIN or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return _OURS in file.read(64)


def read_index(path):
    """Return the VectorIndex in a file, mapped."""
    from aphash.vectors import VectorIndex

    return VectorIndex.load(path, mmap=True)


# ---- files ----------------------------------------------------------------------------------------------------------


def _suffix(path):
    return os.path.splitext(path)[1].lower()


def _kind_and_content(path):
    """Return (kind, the path itself or what was read of a pipe)."""
    content = path
    if path == STDIN:
        content = io.BytesIO(sys.stdin.buffer.read())
    elif not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "rb") as pipe:
            content = io.BytesIO(pipe.read())
    if content is path:
        with open(path, "rb") as file:
            head = file.read(64)
    else:
        head = content.getbuffer()[:64].tobytes()
    if not head:
        raise ValueError(f"{name_of(path)}: empty")
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind, content
    if _OURS in head:
        raise ValueError(f"{name_of(path)}: a file of aphash, no vectors")
    suffix = _suffix(path)
    kind = _SUFFIXES.get(suffix, "text")
    if kind != "text":
        raise ValueError(f"{path}: not a {suffix} file: it does not begin as one")
    if suffix in _ADVICE:
        raise ValueError(f"{path}: not one of {FORMATS}: {_ADVICE[suffix]}")
    return kind, content


def _read(path, array, ndim, found=None):
    kind, content = _kind_and_content(path) if found is None else found
    if array is not None and kind not in _OF_ARRAYS:
        raise ValueError(f"{name_of(path)}: has no arrays of which {array!r} could be one")
    readers = {"npy": _read_npy, "npz": _read_npz, "text": _read_text, "parquet": _read_parquet, "hdf5": _read_hdf5}
    name = name_of(path)
    try:
        return readers[kind](path, content, array, ndim)
    except _OF_DAMAGE as error:
        if str(error).startswith(f"{name}: "):
            raise
        raise ValueError(
            f"{name}: damaged, or not a file of its kind: {_words(error) or type(error).__name__}"
        ) from None


def _chosen(path, holds, wanted, ndim):
    """Return the name of an array, from {name: (shape, dtype)}: the one that is wanted, or the only one that fits."""
    listed = ", ".join(f"{name} ({' x '.join(map(str, shape))})" for name, (shape, _) in list(holds.items())[:8])
    more = f" and {len(holds) - 8} more" if len(holds) > 8 else ""
    if wanted is not None:
        if wanted not in holds:
            raise ValueError(f"{name_of(path)}: has no array {wanted!r}: it holds {listed or 'none'}{more}")
        return wanted
    fit = [name for name, (shape, dtype) in holds.items() if len(shape) == ndim and dtype.kind in "fiubUS"]
    if len(fit) == 1:
        return fit[0]
    advice = f": name one, as in {path}:{(fit or list(holds))[0]}" if holds else ""
    raise ValueError(f"{name_of(path)}: holds {listed or 'no array'}{more}{advice}")


# ---- numpy ----------------------------------------------------------------------------------------------------------


def _read_npy(path, content, _array, _ndim):
    with _without_objects(path):
        return np.load(content, mmap_mode="r" if content is path else None)


@contextlib.contextmanager
def _without_objects(path):
    """Say what to do where numpy advises to run what is in a file."""
    try:
        yield
    except ValueError as error:
        if not any(words in str(error) for words in ("pickle", "Object arrays", "Python objects")):
            raise
        raise ValueError(
            f"{name_of(path)}: holds Python objects, which are not read: objects must become numbers first"
        ) from None


def _words(error):
    return " ".join(str(error).split())


def _read_npz(path, content, wanted, ndim):
    with zipfile.ZipFile(content) as archive:
        holds = {each.removesuffix(".npy"): _header(archive, each) for each in archive.namelist()}
        holds = {each: about for each, about in holds.items() if about is not None}
    chosen = _chosen(path, holds, wanted, ndim)
    if content is not path:
        content.seek(0)
    with _without_objects(path), np.load(content) as arrays:
        return arrays[chosen]


def _header(archive, member):
    """Return (shape, dtype) of an array in an archive, None where it is none; its numbers are not read."""
    with archive.open(member) as file:
        try:
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = read[np.lib.format.read_magic(file)](file)
        except (KeyError, ValueError):
            return None
    return shape, dtype


# ---- text -----------------------------------------------------------------------------------------------------------


def _text(path, content):
    """Return the open text, whose byte order mark is skipped."""
    file = open(content, "rb") if content is path else content  # noqa: SIM115 it is closed with the text
    return io.TextIOWrapper(file, "utf-8-sig")


def _lines(path, content):
    try:
        with _text(path, content) as file:
            lines = file.read().split("\n")  # splitlines would split at other characters, too
            return lines if lines[-1] else lines[:-1]
    except UnicodeDecodeError:
        raise ValueError(f"{name_of(path)}: not a text in UTF-8") from None


def _read_text(path, content, _array, _ndim):
    """Return the numbers of a table in text, float32: separated by tabs, semicolons, commas or spaces."""
    try:
        with _text(path, content) as file:
            skipped, first = 0, ""
            for line in file:
                first = line.strip("\r\n")
                if first.strip() and not first.startswith("#"):
                    break
                skipped, first = skipped + 1, ""
            if not first:
                raise ValueError("no numbers")
            delimiter = next((each for each in "\t;," if each in first), None)
            fields = [field.strip().strip('"') for field in first.split(delimiter)]
            numbers = [_is_number(field) for field in fields]
            names = fields if not any(numbers) else None
            counts = names is not None and len(names) > 1 and names[0].lower() in _COUNTING
            if counts:
                print(f"aphash: {name_of(path)}: its first column, {names[0]!r}, is left out", file=sys.stderr)
            return _numbers(file, first, delimiter, names, counts, skipped)
    except UnicodeDecodeError:
        raise ValueError(f"{name_of(path)}: not a text in UTF-8, nor one of {FORMATS}") from None
    except ValueError as error:
        raise ValueError(f"{name_of(path)}: {error}") from None


def _numbers(rest, first, delimiter, names, counts, skipped):
    def lines():
        if names is None:
            yield first
        yield from rest

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "loadtxt: input contained no data")
        try:
            found = np.loadtxt(
                lines(), np.float32, delimiter=delimiter, ndmin=2, quotechar='"',
                converters={0: lambda _: 0.0} if counts else None,
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(_place(str(error), names, skipped)) from None
    if not len(found):
        raise ValueError("no numbers, but names of columns")
    return found[:, 1:] if counts else found


def _place(words, names, skipped):
    """Return what loadtxt says with the line of the file, which it counts from rows of numbers."""
    offset = skipped + (names is not None) + 1
    if found := re.search(r"could not convert string (.*) to \w+ at row (\d+), column (\d+)", words):
        text, row, column = found[1], int(found[2]), int(found[3])
        where = f" ({names[column - 1]})" if names is not None and column <= len(names) else ""
        empty = text in ("''", '""')
        return f"line {row + offset}, column {column}{where}: {'no number' if empty else f'{text} is no number'}"
    if found := re.search(r"changed from (\d+) to (\d+) at row (\d+)", words):
        return f"line {int(found[3]) + offset - 1}: {found[2]} columns, and {found[1]} above"
    return words


def _is_number(field):
    try:
        float(field)
    except ValueError:
        return False
    return True


def _shortened(text):
    return text if len(text) <= 40 else text[:39] + "…"


# ---- other libraries' files -----------------------------------------------------------------------------------------


def _read_parquet(path, content, wanted, ndim):
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{name_of(path)}: a .parquet file needs pyarrow: pip install pyarrow") from None
    name = name_of(path)
    file = parquet.ParquetFile(content)
    columns = {field.name: field.type for field in file.schema_arrow if not field.name.startswith("__index_level")}
    lists = [each for each, kind in columns.items() if _is_list(kind)]
    if wanted is None and ndim == 2 and not lists:
        texts = [each for each, kind in columns.items() if not _is_numeric(kind)]
        if texts:
            raise ValueError(f"{name}: column {texts[0]!r} is {columns[texts[0]]}, not numbers or lists of them")
        parts = [_column(name, each, file.read([each])[each]) for each in columns]
        return np.column_stack(parts) if parts else np.empty((0, 0), np.float32)
    n = file.metadata.num_rows
    holds = {each: ((n, "d") if _is_list(kind) else (n,), np.dtype("f4")) for each, kind in columns.items()}
    chosen = _chosen(path, holds, wanted, ndim)
    return _column(name, chosen, file.read([chosen])[chosen])


def _is_list(kind):
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_numeric(kind):
    from pyarrow import types

    return types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)


def _column(path, name, column):
    """Return a column of numbers (n,), texts (n,), or lists of numbers (n, d)."""
    if column.null_count:
        raise ValueError(f"{path}: column {name!r} has rows without a value")
    if not _is_list(column.type):
        return np.asarray(column.to_numpy()) if _is_numeric(column.type) else np.array(column.to_pylist())
    if not _is_numeric(column.type.value_type):
        raise ValueError(f"{path}: column {name!r} holds lists of {column.type.value_type}, not of numbers")
    from pyarrow import compute

    lengths = compute.list_value_length(column).to_numpy()
    if len(lengths) and (lengths != lengths[0]).any():
        row = int(np.argmax(lengths != lengths[0]))
        raise ValueError(f"{path}: column {name!r}: row {row} has {lengths[row]} numbers, row 0 {lengths[0]}")
    parts = [chunk.flatten() for chunk in column.chunks]
    if any(part.null_count for part in parts):
        raise ValueError(f"{path}: column {name!r} has lists with missing numbers")
    flat = np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts]) if parts else np.empty(0, "f4")
    return flat.reshape(len(lengths), -1) if len(lengths) else np.empty((0, 0), np.float32)


def _read_hdf5(path, content, wanted, ndim):
    try:
        import h5py
    except ImportError:
        raise ValueError(f"{name_of(path)}: an .h5 file needs h5py: pip install h5py") from None
    holds = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            holds[name] = item.shape, item.dtype

    with h5py.File(content, "r") as file:
        file.visititems(note)
        found = file[_chosen(path, holds, None if wanted is None else wanted.strip("/"), ndim)]
        return np.array(found.asstr()[()].tolist()) if h5py.check_string_dtype(found.dtype) else found[()]
