"""Files of named arrays and parameters. They have checksums, are written atomically, and can be mapped. This module
knows no classes, and needs numpy only.

The format is safetensors (8 bytes: the header's length, little-endian; the header, JSON; the arrays, C order,
little-endian, without gaps). So any safetensors reader opens these files, and nothing in them is ever executed. What
aphash adds stands in the header's ``__metadata__``, whose beginning has a fixed form::

    {"__metadata__":{"format":"aphash","header_crc32":"01234567","kind":"HammingIndex","version":"1",
     "crc32":"{\\"codes\\":\\"89abcdef\\"}","params":"{\\"n_bits\\":64}"},"codes":{"dtype":"U64",...}}      (spaces)

``header_crc32`` covers the length and the header, in which its own eight digits are taken as zeros. The header holds
the CRC32 of every array. Every byte of a file is therefore covered, and the size of the file follows from the header.
The first array begins at a multiple of 64 bytes, and each other one at a multiple of its item size: the header is
padded with spaces, and arrays with larger items come first.

The safetensors library itself (0.8.0) is not used, for four reasons. It has no mapped arrays: ``safe_open`` copies,
which takes 256 MiB and 0.17 s for an array of 256 MiB on one core, where a map takes no memory and less than 1 ms. It
takes no array in chunks. It accepts flipped bits. And it raises exceptions of a type of its own. A test shows that its
reader opens these files.
"""

import contextlib
import errno
import functools
import io
import json
import math
import mmap as _mmap
import os
import secrets
import stat
import zlib
from dataclasses import dataclass

import numpy as np

MAX_HEADER = 1 << 20  # bytes; a hostile header then makes the JSON parser allocate about 30 MiB at most
CHUNK_BYTES = 4 << 20  # bytes that are read or written at a time, and checksummed while they are in the cache
ALIGNMENT = 64
MANIFEST = "manifest.aphash"  # the file by which a folder is an index of aphash.dask

_DTYPES = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "U32": "<u4", "I32": "<i4", "F32": "<f4",
    "U16": "<u2", "I16": "<i2", "F16": "<f2", "U8": "|u1", "I8": "|i1",
}  # fmt: skip
_DTYPES = {name: np.dtype(code) for name, code in _DTYPES.items()}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_READERS = {  # for messages: what reads each kind of file
    "APHash": "APHash.load(path) or Encoder.load(path)", "HammingIndex": "HammingIndex.load(path)",
    "APHash+HammingIndex": "aphash.load(path)",
    "VectorIndex": "VectorIndex.load(path)", "dask.HammingIndex": "aphash.dask.HammingIndex.load(folder)",
}  # fmt: skip
_OTHERS = {  # for messages: how files of other kinds begin; none of ours can begin so
    b"\x93NUMPY": "an array of numpy (numpy.load reads it)", b"PK\x03\x04": "a zip archive, such as .npz",
    b"\x89PNG\r\n": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image", b"BM": "a BMP image",
    b"II*\x00": "a TIFF image", b"MM\x00*": "a TIFF image", b"RIFF": "a WebP image or another RIFF file",
    b"\x89HDF\r\n": "an HDF5 file", b"\x80\x04\x95": "a pickle", b"\x80\x05\x95": "a pickle",
    b"\x1f\x8b": "compressed by gzip", b"(\xb5/\xfd": "compressed by zstd", b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file", b"SQLite format 3": "an SQLite database", b"%PDF": "a PDF file",
    b"IB": "a binary index of faiss (aphash.interchange.from_faiss)", b"Ix": "an index of faiss",
    b"Iw": "an index of faiss", b"IH": "an index of faiss", b"<!DOCTYPE": "a web page", b"<html": "a web page",
    b"version https://git-lfs": "a pointer of git-lfs: fetch the file itself",
}  # fmt: skip

_START = b'{"__metadata__":{"format":"aphash","header_crc32":"'
_CRC_AT = 8 + len(_START)  # in the file


@dataclass(frozen=True)
class Chunks:
    """An array that is given in chunks: arrays of ``dtype`` that have ``shape`` when they are joined on axis 0.

    ``chunks`` is an iterable, or a function that returns one, since a file object is written in two passes.
    """

    dtype: np.dtype
    shape: tuple
    chunks: object

    def __iter__(self):
        return iter(self.chunks() if callable(self.chunks) else self.chunks)

    @property
    def nbytes(self):
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def whole(array):
    """Return an array, or the joined chunks of Chunks, with memory of its own."""
    if not isinstance(array, Chunks):
        return array.copy()
    joined, done = np.empty(array.shape, array.dtype), 0
    for chunk in array:
        joined[done : done + len(chunk)] = chunk
        done += len(chunk)
    return joined


@dataclass(frozen=True)
class _Entry:
    """Where an array is in a file. ``start`` is counted from the first byte of the file."""

    dtype: np.dtype
    shape: tuple
    start: int
    nbytes: int
    crc32: str


@dataclass(frozen=True)
class _Header:
    kind: str
    version: int
    params: dict
    entries: dict
    size: int  # of the whole file


# ---- paths, file objects, bytes ------------------------------------------------------------------------------------


def _is_file_object(path, method):
    return hasattr(path, method) and not isinstance(path, os.PathLike)


def _is_contents(path):
    """Return whether these are a file's bytes: its first eight hold a zero byte, and a path never does."""
    return isinstance(path, bytearray | memoryview) or (isinstance(path, bytes) and b"\0" in path[:8])


def name_of(path):
    """Return what messages call a path, a file object, or bytes."""
    if _is_contents(path):
        return "bytes"
    if _is_file_object(path, "read") or _is_file_object(path, "write"):
        name = getattr(path, "name", None)
        return name if isinstance(name, str) else f"a {type(path).__name__}"
    return os.fsdecode(path)


# ---- writing --------------------------------------------------------------------------------------------------------


def write(path, arrays, *, kind, version, params):
    """Write a file. At every moment ``path`` is the whole old file, or the whole new one.

    The file is written beside ``path`` under another name and forced to disk. Then it is renamed, and the folder is
    forced to disk. After an error, or Ctrl-C, nothing is left. A process that is killed leaves ``.aphash-*.tmp`` in the
    folder, which may be deleted. The file has the permissions of the one that it replaces, or those of the umask. A
    link is followed.

    Parameters
    ----------
    path : str, os.PathLike, bytes or binary file object
        A path is used as given. A file object is written to from where it stands, front to back. It is neither
        sought in nor closed, and after an error it holds half a file. The arrays are read twice for a file object.
    arrays : dict of str to ndarray or Chunks
        Of integers or floats.
    kind : str
        What the file holds, such as a class's name.
    version : int
        The version of the arrays and parameters that such a file holds.
    params : dict
        Whatever JSON can express; numpy scalars become Python's. With the names of the arrays at most 1 MiB.

    Raises
    ------
    OSError
        With the path, when the file cannot be written.
    ValueError, TypeError
        When an array or a parameter cannot be stored.

    Notes
    -----
    Needs 4 MiB beside the arrays; for an array that is not C-contiguous, a row of it where that is more.
    """
    names = sorted(arrays, key=lambda name: -np.dtype(arrays[name].dtype).itemsize)  # see ALIGNMENT
    if "__metadata__" in arrays:
        raise ValueError("no array can be named '__metadata__'")
    for name in names:
        if np.dtype(arrays[name].dtype).newbyteorder("<") not in _NAMES:
            raise TypeError(f"array {name!r}: dtype {arrays[name].dtype} cannot be stored")
    try:
        text = _dumps(params)
    except (TypeError, ValueError) as error:
        raise type(error)(f"params cannot be stored: {error}") from None
    arguments = {name: arrays[name] for name in names}, kind, version, text
    if _is_file_object(path, "write"):
        _write_to_file_object(path, arguments)
        return
    length = len(_header_bytes(*arguments, dict.fromkeys(names, "0" * 8)))
    with _replacing(path) as fd:
        os.lseek(fd, length, os.SEEK_SET)
        put = functools.partial(_write_all, fd)
        checksums = {name: _write_array(put, name, array) for name, array in arguments[0].items()}
        os.lseek(fd, 0, os.SEEK_SET)
        _write_all(fd, memoryview(_header_bytes(*arguments, checksums)))


def _write_to_file_object(file, arguments):
    """Write front to back. The checksums stand before the arrays, so a first pass computes them."""
    if isinstance(file, io.TextIOBase):
        raise TypeError(f"path must be a binary file object, got {type(file).__name__}: open it with 'wb'")
    arrays = arguments[0]
    checksums = {name: _write_array(len, name, array) for name, array in arrays.items()}
    put = functools.partial(_write_to, file)
    put(memoryview(_header_bytes(*arguments, checksums)))
    for name, array in arrays.items():
        if _write_array(put, name, array) != checksums[name]:
            raise ValueError(f"{name_of(file)}: array {name!r} was changed while it was written")


def _write_to(file, data):
    while data:
        written = file.write(data)
        if written is None:  # some return None and write all; a raw one that cannot write now returns None, too
            if isinstance(file, io.RawIOBase):
                raise BlockingIOError(errno.EAGAIN, "the file object does not block, and cannot be written to now")
            return
        data = data[written:]


def _header_bytes(arrays, kind, version, params, checksums):
    """Return the bytes before the first array. Their number does not depend on the checksums."""
    meta = {"format": "aphash", "header_crc32": "0" * 8, "kind": kind, "version": str(version)}
    header = {"__metadata__": meta | {"crc32": _dumps(checksums), "params": params}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        dtype = _NAMES[np.dtype(array.dtype).newbyteorder("<")]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
    text = _dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise ValueError(f"params need a header of {len(text)} bytes, more than {MAX_HEADER}: store them as arrays")
    data = len(text).to_bytes(8, "little") + text
    return data[:_CRC_AT] + _crc(data) + data[_CRC_AT + 8 :]


def _write_array(put, name, array):
    """Hand the bytes of an array to `put`, as memoryviews, and return their checksum."""
    dtype = np.dtype(array.dtype).newbyteorder("<")
    crc = written = 0
    for chunk in array if isinstance(array, Chunks) else (array,):
        if chunk.dtype.newbyteorder("<") != dtype:
            raise ValueError(f"array {name!r}: a chunk has dtype {chunk.dtype}, not {dtype}")
        for view in _byte_views(chunk, dtype):
            crc = zlib.crc32(view, crc)
            put(view)
            written += len(view)
    if written != array.nbytes:
        raise ValueError(f"array {name!r}: the chunks have {written} bytes, not {array.nbytes}")
    return f"{crc:08x}"


def _byte_views(array, dtype):
    """Yield the bytes of an array in C order, as memoryviews of at most CHUNK_BYTES bytes (or a row)."""
    array = np.atleast_1d(array)
    if array.size == 0:
        return
    if array.dtype == dtype and array.flags.c_contiguous:
        flat = memoryview(array.reshape(-1).view(np.uint8))
        for start in range(0, len(flat), CHUNK_BYTES):
            yield flat[start : start + CHUNK_BYTES]
        return
    step = max(1, CHUNK_BYTES // max(1, array.nbytes // len(array)))
    for start in range(0, len(array), step):
        rows = np.ascontiguousarray(array[start : start + step], dtype)
        yield memoryview(rows.reshape(-1).view(np.uint8))


def _write_all(fd, data):
    while data:
        data = data[os.write(fd, data) :]


@contextlib.contextmanager
def _replacing(path):
    """Yield a descriptor to write to. On success its file takes the place of ``path``; otherwise nothing happens."""
    with _naming(path):
        target = os.path.realpath(os.fsdecode(path))  # a link stays, and the file to which it points is replaced
        folder = os.path.dirname(target)
        mode = _mode_to_keep(target)
        temporary = os.path.join(folder, f".aphash-{secrets.token_hex(8)}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                if mode is not None:
                    os.fchmod(fd, mode)
                yield fd
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        _sync_folder(folder)


def _mode_to_keep(target):
    """Return the permissions of the file that will be replaced, or None. Refuses what open(..., "w") refuses."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return stat.S_IMODE(status.st_mode)


def _sync_folder(folder):
    """Force a rename to disk where that can be done. The file is whole and in its place already, so errors are ignored.

    A network file system may refuse it (ENOTSUP, EINVAL), and so may a folder that can be written but not read
    (EACCES).
    """
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


# ---- reading --------------------------------------------------------------------------------------------------------


def read(path, *, kind=None, mmap=False, verify=None):
    """Read a file.

    Parameters
    ----------
    path : str, os.PathLike, bytes or binary file object
        A file object is read front to back, from where it stands to the end of what was written, so a socket works,
        too. Bytes, and objects with the same buffer, are the contents of a file; bytes without a zero byte are a path.
    kind : str, optional
        What the file must hold.
    mmap : bool
        With False, arrays are read into memory. With True, they are read-only views of the mapped file, which takes the
        same short time whatever the size. Then the header is checked, and the arrays only with ``verify=True``. As with
        any map, access to a file that was *shortened in place* kills the process (SIGBUS). A file that :func:`write`
        replaces, or that is deleted, does no harm. Needs a path.
    verify : bool, optional
        Whether the checksums of the arrays are verified. By default it is done for arrays that are read into memory.

    Returns
    -------
    arrays : dict of str to ndarray
    params : dict
    version : int

    Raises
    ------
    OSError
        When the file cannot be read, or does not fit in memory.
    ValueError
        When it is not such a file, or not whole. Both errors name the path and what is wrong.
    TypeError
        For a file object of texts.

    Notes
    -----
    Where the size of the file can be known, sizes are checked against it before anything is allocated.
    """
    return read_any(path, None if kind is None else (kind,), mmap=mmap, verify=verify)[1:]


def read_any(path, kinds=None, *, mmap=False, verify=None, names=None):
    """Read a file of one of several kinds, or some of its arrays. As :func:`read`, but the kind comes first.

    Parameters
    ----------
    kinds : collection of str, optional
    names : collection of str, optional
        The arrays to read. Other arrays are neither read nor verified.
    """
    if mmap and (_is_contents(path) or _is_file_object(path, "read")):
        raise ValueError(f"{name_of(path)}: mmap=True needs the path of a file, got {type(path).__name__}")
    with _opened(path) as source:
        header = _read_header(source, kinds)
        arrays = {}
        mapped = _mmap.mmap(source.fd, header.size, access=_mmap.ACCESS_READ) if mmap else None
        for name, entry in header.entries.items():
            if names is not None and name not in names:
                continue
            if mmap and entry.nbytes:
                array = np.ndarray(entry.shape, entry.dtype, mapped, entry.start)
            else:
                array = _allocate(name, entry)
            if not mmap:
                into = memoryview(array.reshape(-1).view(np.uint8))
                _check_array(source, name, entry, into, verify in (None, True))
            elif verify:
                _check_array(source, name, entry)
            arrays[name] = array
        source.end(header.size)
        return header.kind, arrays, header.params, header.version


def describe(path):
    """Return what a file holds, and check all of it.

    Returns
    -------
    dict
        ``kind``, ``version``, ``params``, ``nbytes`` (of the file), ``arrays`` (a dict from the name to
        ``(dtype, shape)``) and ``damage``, a list with a sentence for each array whose content is not what was written.

    Raises
    ------
    OSError, ValueError
        As :func:`read`, when the header is not whole.
    """
    with _opened(path) as source:
        header = _read_header(source, None)
        damage = []
        for name, entry in header.entries.items():
            try:
                _check_array(source, name, entry)
            except ValueError as error:
                damage.append(str(error))
        arrays = {name: (entry.dtype.name, entry.shape) for name, entry in header.entries.items()}
        about = {"kind": header.kind, "version": header.version, "params": header.params, "nbytes": header.size}
        return about | {"arrays": arrays, "damage": damage}


@contextlib.contextmanager
def _opened(path):
    """Yield a source to read from. Every ValueError inside names the path, and so does every OSError of a path."""
    if _is_contents(path) or _is_file_object(path, "read"):
        try:
            yield _Bytes(path) if _is_contents(path) else _Stream(path)
        except OSError:  # the file object's own error says most
            raise
        except ValueError as error:
            raise ValueError(f"{name_of(path)}: {error}") from error
        return
    with _naming(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # so that a pipe without a writer does not block
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR) + _advice_on_folder(path))
            if not stat.S_ISREG(mode):
                raise ValueError("not a regular file")
            yield _File(fd)
        finally:
            os.close(fd)


def _advice_on_folder(path):
    if not os.path.exists(os.path.join(os.fsdecode(path), MANIFEST)):
        return ""
    return (
        " that holds an index of aphash.dask: aphash.dask.HammingIndex.load(folder) opens it, and to_local() of that "
        "makes an aphash.HammingIndex of it"
    )


class _File:
    """A file by its descriptor. A source has a ``size`` (None: unknown); unless ``exact``, more may follow."""

    exact = True

    def __init__(self, fd):
        self.fd, self.size = fd, os.fstat(fd).st_size

    def peek(self, n):
        """Return the first n bytes, or fewer where there are no more."""
        return os.pread(self.fd, n, 0)

    def read_into(self, view, at):
        """Fill the view, or its beginning, with the bytes from ``at`` on. Returns how many, and 0 at the end."""
        return os.preadv(self.fd, [view], at)

    def end(self, size):
        """Advance the source to behind its first ``size`` bytes."""


class _Bytes(_File):
    """A file's contents in memory."""

    def __init__(self, contents):
        self._view = memoryview(contents).cast("B")
        self.size = len(self._view)

    def peek(self, n):
        return bytes(self._view[:n])

    def read_into(self, view, at):
        data = self._view[at : at + len(view)]
        view[: len(data)] = data
        return len(data)


class _Stream(_File):
    """A file object that is read front to back."""

    exact = False  # other things may follow

    def __init__(self, file):
        if isinstance(file, io.TextIOBase):
            raise TypeError(f"path must be a binary file object, got {type(file).__name__}: open it with 'rb'")
        self._file, self._ahead, self._at, self.size = file, b"", 0, None
        with contextlib.suppress(AttributeError, OSError, ValueError):  # what cannot be sought in may raise these
            if file.seekable():
                here = file.tell()
                self.size = file.seek(0, os.SEEK_END) - here
                file.seek(here)

    def peek(self, n):
        while len(self._ahead) < n:
            data = self._read(n - len(self._ahead))
            if not data:
                break
            self._ahead += data
        return self._ahead[:n]

    def read_into(self, view, at):
        self.end(at)
        if self._ahead:
            data, self._ahead = self._ahead[: len(view)], self._ahead[len(view) :]
        elif hasattr(self._file, "readinto"):
            n = self._file.readinto(view)
            if n is None:
                raise BlockingIOError(errno.EAGAIN, "the file object does not block, and has nothing to read now")
            self._at += n
            return n
        else:
            data = self._read(len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def end(self, size):
        while self._at < size:  # bytes that are not wanted
            data, self._ahead = self._ahead[: size - self._at], self._ahead[size - self._at :]
            data = data or self._read(min(CHUNK_BYTES, size - self._at))
            if not data:
                raise ValueError("cut short while it was read")
            self._at += len(data)

    def _read(self, n):
        data = self._file.read(n)
        if data is None:
            raise BlockingIOError(errno.EAGAIN, "the file object does not block, and has nothing to read now")
        return data


def _read_header(source, kinds):
    """Return the header, after checking its checksum, its format and the size of the file."""
    start = source.peek(64)
    size = len(start) if source.size is None and len(start) < 64 else source.size
    if len(start) < 8:
        raise ValueError(f"not an aphash file: it has {size} bytes")
    for beginning, what in _OTHERS.items():
        if start.startswith(beginning):
            raise ValueError(f"not an aphash file: it is {what}")
    start = start[:8]
    length = int.from_bytes(start, "little")
    if not len(_START) < length <= MAX_HEADER:
        raise ValueError(f"not an aphash file, or damaged: a header of {length} bytes")
    data = source.peek(8 + length)
    if len(data) < 8 + length:
        raise ValueError(
            f"cut short: it has {len(data) if size is None else size} bytes, its header alone {8 + length}"
        )
    if not data.startswith(_START, 8):
        other = data.startswith(b"{", 8) and not data.startswith(_START[:27], 8)
        raise ValueError(f"not an aphash file{': a safetensors file' if other else ''}, or its first bytes are damaged")
    stored = data[_CRC_AT : _CRC_AT + 8]
    if stored != _crc(data[:_CRC_AT] + b"0" * 8 + data[_CRC_AT + 8 :]):
        raise ValueError("its header is damaged: the checksum differs")
    header = _parse(data[8:])
    if size is not None and (size < header.size or (source.exact and size > header.size)):
        raise ValueError(f"{'cut short' if size < header.size else 'too long'}: {size} bytes, expected {header.size}")
    if kinds is not None and header.kind not in kinds:
        advice = f": read it with {_READERS[header.kind]}" if header.kind in _READERS else ""
        raise ValueError(f"it holds {header.kind!r}, expected {' or '.join(map(repr, kinds))}{advice}")
    return header


def _parse(data):
    """Return the header from its JSON. All of it is checked, since anyone can compute a checksum."""
    header = _loads(data, "header")
    meta = header.pop("__metadata__", None)
    fields = {"format", "header_crc32", "kind", "version", "crc32", "params"}
    if not isinstance(meta, dict) or set(meta) != fields or not all(isinstance(v, str) for v in meta.values()):
        raise ValueError(f"its header's __metadata__ must hold the strings {', '.join(sorted(fields))}")
    if not (meta["version"].isascii() and meta["version"].isdigit() and len(meta["version"]) < 10):
        raise ValueError("its header's version is not a number")
    checksums = _loads(meta["crc32"], "header's crc32")
    if list(checksums) != list(header):
        raise ValueError("its header's checksums are not those of its arrays")
    entries, end = {}, 0
    for name, entry in header.items():
        entries[name] = _entry(name, entry, 8 + len(data), end, checksums[name])
        end += entries[name].nbytes
    params = _loads(meta["params"], "header's params")
    return _Header(meta["kind"], int(meta["version"]), params, entries, 8 + len(data) + end)


def _entry(name, entry, base, end, crc32):
    """Return where an array is, if it begins where the one before it ends, and its size fits its shape."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"array {name!r}: dtype, shape and data_offsets expected")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise ValueError(f"array {name!r}: unknown dtype {str(code)[:20]!r}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
            raise ValueError(f"array {name!r}: sizes and offsets must be lists of integers from 0 to 2^63 - 1")
    if len(shape) > 32 or math.prod(n for n in shape if n) >= 1 << 60:
        raise ValueError(f"array {name!r}: too large")
    nbytes = math.prod(shape) * _DTYPES[code].itemsize
    if offsets != [end, end + nbytes]:
        raise ValueError(f"array {name!r}: at {offsets} in the file, expected {[end, end + nbytes]}")
    return _Entry(_DTYPES[code], tuple(shape), base + end, nbytes, crc32)


def _allocate(name, entry):
    try:
        return np.empty(entry.shape, entry.dtype)
    except MemoryError:
        raise OSError(errno.ENOMEM, f"array {name!r} needs {entry.nbytes} bytes, more than can be allocated") from None


def _check_array(source, name, entry, into=None, verify=True):
    """Read an array, into memory where `into` is given. ValueError if its content is not what was written."""
    buffer = memoryview(bytearray(min(CHUNK_BYTES, entry.nbytes))) if into is None else None
    crc = done = 0
    while done < entry.nbytes:
        want = min(CHUNK_BYTES, entry.nbytes - done)
        view = buffer[:want] if into is None else into[done : done + want]
        got = source.read_into(view, entry.start + done)
        if got == 0:
            raise ValueError(f"cut short while it was read, in array {name!r}")
        if verify:
            crc = zlib.crc32(view[:got], crc)
        done += got
    if verify and f"{crc:08x}" != entry.crc32:
        raise ValueError(f"array {name!r} is damaged: the checksum differs")


# ---- JSON and errors ------------------------------------------------------------------------------------------------


def _crc(data):
    return b"%08x" % zlib.crc32(data)


def _dumps(value):
    def plain(thing):
        if isinstance(thing, np.generic):
            return thing.item()
        raise TypeError(f"JSON has no {type(thing).__name__}, got {thing!r}")

    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=plain)


def _loads(text, what):
    """Parse a JSON object. Refuses a name that occurs twice, NaN, infinity, and a depth that exhausts the stack."""

    def unique(pairs):
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name occurs twice")
        return found

    def finite(text):
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(f"{text[:20]} is not a finite number")
        return value

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {what} cannot be read: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        raise ValueError(f"its {what} is not a JSON object")
    return value


@contextlib.contextmanager
def _naming(path):
    """Let every OSError and ValueError name the path as the user gave it."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), os.fspath(path)) from error
    except ValueError as error:
        raise ValueError(f"{os.fsdecode(path)}: {error}") from error
