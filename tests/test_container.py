"""Files: what is written is read, whatever is damaged is refused by name, and the old file survives every failure."""

import contextlib
import errno
import gzip
import io
import json
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib import image
from safetensors.numpy import load_file

import aphash
from aphash import APHash, Encoder, HammingIndex
from aphash._common import container

ROOT = Path(__file__).parents[1]
DTYPES = sorted(container._NAMES, key=str)


def sample(rng, n=50):
    return {
        "codes": rng.integers(0, 2**63, (n, 2), dtype=np.uint64),
        "ids": np.arange(n, dtype=np.int64) - 7,
        "coef": rng.standard_normal((3, 5)).astype(np.float32),
        "marks": rng.integers(0, 255, 13, dtype=np.uint8),
        "none": np.zeros((0, 4)),
    }


PARAMS = {"n_bits": 128, "mode": "semantic", "tol": 0.1, "seed": None, "names": ["α", 'a"b\\'], "flag": True}


@pytest.fixture
def stored(tmp_path, rng):
    contents = sample(rng)
    path = tmp_path / "some.file"
    container.write(path, contents, kind="thing", version=3, params=PARAMS)
    return path, contents


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


# ---- round trips ----


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("verify", [None, False, True])
def test_what_is_written_is_read(stored, mmap, verify):
    path, contents = stored
    found, params, version = container.read(path, kind="thing", mmap=mmap, verify=verify)
    assert_same(found, contents)
    assert params == PARAMS and version == 3
    assert all(array.flags.writeable != mmap for array in found.values() if array.size)
    assert os.listdir(path.parent) == [path.name]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        st.sampled_from(DTYPES).flatmap(lambda d: arrays(d, array_shapes(min_dims=0, max_dims=4, min_side=0))),
        max_size=4,
    ),
    st.booleans(),
)
def test_any_arrays(tmp_path, contents, mmap):
    path = tmp_path / "any"
    container.write(path, contents, kind="thing", version=1, params={})
    assert_same(container.read(path, mmap=mmap)[0], contents)
    assert_same(load_file(path), contents)


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 22])
def test_any_layout_in_any_piece(tmp_path, rng, piece, monkeypatch):
    monkeypatch.setattr(container, "CHUNK_BYTES", piece)
    base = rng.integers(0, 2**32, (9, 6, 5), dtype=np.uint32)
    contents = {
        "sliced": base[::2, 1:], "turned": base.T, "reversed": base[::-1], "fortran": np.asfortranarray(base),
        "big": base.astype(">u4"), "scalar": np.array(3.5), "flat": base[:, 0, 0],
        "broadcast": np.broadcast_to(base, (2, 9, 6, 5)),
    }  # fmt: skip
    container.write(tmp_path / "f", contents, kind="thing", version=1, params={})
    assert_same(
        container.read(tmp_path / "f")[0], {k: v.astype(v.dtype.newbyteorder("=")) for k, v in contents.items()}
    )


def test_pieces_make_the_same_file(tmp_path, rng):
    contents = sample(rng)
    container.write(tmp_path / "whole", contents, kind="thing", version=1, params=PARAMS)
    for size in (1, 7, 50, 99):
        pieces = {
            name: container.Chunks(a.dtype, a.shape, [a[i : i + size] for i in range(0, len(a), size)])
            for name, a in contents.items()
        }
        container.write(tmp_path / "pieces", pieces, kind="thing", version=1, params=PARAMS)
        assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


def test_the_safetensors_library_opens_it(stored):
    path, contents = stored
    assert_same(load_file(path), contents)
    with safetensors.safe_open(path, "numpy") as file:
        meta = file.metadata()
    assert meta["format"] == "aphash" and meta["kind"] == "thing" and meta["version"] == "3"
    assert json.loads(meta["params"]) == PARAMS


def test_arrays_are_aligned(stored):
    path, _ = stored
    with open(path, "rb") as file:
        header = container._read_header(container._File(file.fileno()), None)
    assert next(iter(header.entries.values())).start % container.ALIGNMENT == 0
    assert all(entry.start % entry.dtype.itemsize == 0 for entry in header.entries.values())
    assert all(array.flags.aligned for array in container.read(path, mmap=True)[0].values())


def test_numpy_scalars_are_parameters(tmp_path):
    params = {"a": np.int64(3), "b": np.float32(0.5), "c": np.bool_(True), "d": (1, 2)}
    container.write(tmp_path / "f", {}, kind="thing", version=1, params=params)
    assert container.read(tmp_path / "f")[1] == {"a": 3, "b": 0.5, "c": True, "d": [1, 2]}


def test_describe(stored):
    path, contents = stored
    about = container.describe(path)
    assert about["kind"] == "thing" and about["version"] == 3 and about["params"] == PARAMS and about["damage"] == []
    assert about["nbytes"] == path.stat().st_size
    assert about["arrays"] == {name: (a.dtype.name, a.shape) for name, a in contents.items()}
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert container.describe(path)["damage"] == ["array 'marks' is damaged: the checksum differs"]


def test_a_map_outlives_its_file(stored, rng):
    path, contents = stored
    found, _, _ = container.read(path, mmap=True)
    container.write(path, {k: v + v.dtype.type(1) for k, v in found.items()}, kind="thing", version=1, params={})
    assert_same(found, contents)
    path.unlink()
    assert_same(found, contents)


def test_what_cannot_be_stored(tmp_path, rng):
    path = tmp_path / "f"
    short, wrong = [np.zeros(2, np.float32)], [np.zeros(3)]
    for contents, error, message in [
        ({"a": np.zeros(3, bool)}, TypeError, "'a': dtype bool"),
        ({"a": np.array([None])}, TypeError, "'a': dtype object"),
        ({"a": np.zeros(3, complex)}, TypeError, "'a': dtype complex128"),
        ({"__metadata__": np.zeros(3)}, ValueError, "__metadata__"),
        ({"a": container.Chunks(np.float32, (3,), short)}, ValueError, "'a': the chunks have 8 bytes, not 12"),
        ({"a": container.Chunks(np.float32, (3,), wrong)}, ValueError, "'a': a chunk has dtype float64, not float32"),
    ]:
        with pytest.raises(error, match=message):
            container.write(path, contents, kind="thing", version=1, params={})
    for params, error in [({"x": float("nan")}, ValueError), ({"x": 1e999}, ValueError), ({"x": rng}, TypeError)]:
        with pytest.raises(error, match="params cannot be stored"):
            container.write(path, {}, kind="thing", version=1, params=params)
    with pytest.raises(ValueError, match="params need a header of"):
        container.write(path, {}, kind="thing", version=1, params={"x": "x" * container.MAX_HEADER})
    assert os.listdir(tmp_path) == []


def test_another_kind_is_refused(stored):
    with pytest.raises(ValueError, match=r"some\.file: it holds 'thing', expected 'model'"):
        container.read(stored[0], kind="model")


# ---- damage ----


def attempts(path):
    yield lambda: container.read(path)
    yield lambda: container.read(path, mmap=True, verify=True)


def test_flipped_bits_are_found(tmp_path, rng):
    path = tmp_path / "flipped"
    container.write(path, sample(rng, 9), kind="thing", version=1, params=PARAMS)
    whole = path.read_bytes()
    places = [[bit] for bit in range(8 * len(whole))][:: max(1, 8 * len(whole) // 600)]
    places += [rng.choice(8 * len(whole), n, replace=False) for n in (1, 2, 3) for _ in range(100)]
    for bits in places:
        data = bytearray(whole)
        for bit in bits:
            data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        for attempt in attempts(path):
            with pytest.raises(ValueError, match=str(path)):
                attempt()


def test_every_byte_is_covered(tmp_path):
    path = tmp_path / "f"
    container.write(path, {"a": np.arange(3, dtype=np.uint8)}, kind="thing", version=1, params={})
    whole = path.read_bytes()
    for at in range(len(whole)):
        for value in (0x01, 0x20, 0x80):  # 0x20: upper and lower case
            path.write_bytes(whole[:at] + bytes([whole[at] ^ value]) + whole[at + 1 :])
            with pytest.raises(ValueError, match=str(path)):
                container.read(path)


def test_truncated_and_extended_files_are_refused(stored):
    path, _ = stored
    whole = path.read_bytes()
    lengths = {*range(0, 20), *range(0, len(whole), 37), *range(len(whole) - 20, len(whole))}
    for data in [whole[:n] for n in sorted(lengths)] + [whole + b"\0", whole + whole]:
        path.write_bytes(data)
        for mmap in (False, True):  # mapped without verification too: the size alone says it
            with pytest.raises(ValueError, match=str(path)):
                container.read(path, mmap=mmap)
        with pytest.raises(ValueError, match=str(path)):
            container.describe(path)


def test_a_mapped_file_is_verified_on_request_only(stored):
    path, contents = stored
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert container.read(path, mmap=True)[0]["marks"][-1] != contents["marks"][-1]
    with pytest.raises(ValueError, match="array 'marks' is damaged: the checksum differs"):
        container.read(path, mmap=True, verify=True)


def signed(header, data=b""):
    """A file whose header's checksum is right, as damage never makes them."""
    header = header if isinstance(header, bytes) else header.encode()
    raw = len(header).to_bytes(8, "little") + header
    at = container._CRC_AT
    return raw[:at] + b"%08x" % zlib.crc32(raw) + raw[at + 8 :] + data


def header(entries="", *, crc=None, params="{}", version="1"):
    """A header of raw JSON ``entries``, for arrays a, b.. of which only those in ``crc`` are said to exist."""
    crc = json.dumps(dict.fromkeys(crc or "", "00000000"))
    meta = {"format": "aphash", "header_crc32": "0" * 8, "kind": "thing", "version": version, "crc32": crc}
    text = json.dumps({"__metadata__": meta | {"params": params}}, separators=(",", ":"))
    return text[:-1] + ("," + entries if entries else "") + "}"


def array(shape, offsets, name="a", dtype='"U8"'):
    return f'"{name}":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}'


def one(shape, offsets, data=b"", **options):
    return signed(header(array(shape, offsets, **options), crc="a"), data)


def two(offsets, others, data):
    return signed(header(array("[2]", offsets) + "," + array("[2]", others, "b"), crc="ab"), data)


NOT_OURS, SIZES = "not an aphash file", "sizes and offsets must be"
HOSTILE = {  # name: (content, what the error says)
    "empty": (b"", "it has 0 bytes"),
    "short": (b"\0\0\0", "it has 3 bytes"),
    "zeros": (bytes(4096), NOT_OURS),
    "ones": (b"\xff" * 4096, NOT_OURS),
    "text": (b"hello world, this is a text\n" * 100, NOT_OURS),
    "npy": (b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }".ljust(200), NOT_OURS),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(500), NOT_OURS),
    "faiss": (b"IBxF" + bytes(500), NOT_OURS),
    "pickle": (b"\x80\x04\x95" + bytes(200), NOT_OURS),
    "safetensors": (safetensors.numpy.save({"a": np.zeros(9)}, {"format": "np"}), NOT_OURS),
    "huge header": ((1 << 62).to_bytes(8, "little") + b"{" * 5000, "a header of 4611686018427387904 bytes"),
    "header beyond": ((900_000).to_bytes(8, "little") + b'{"__metadata__":{', "cut short: it has 25 bytes"),
    "deep": (signed(header('"x":' + "[" * 500_000)), "recursion"),
    "deep closed": (signed(header('"x":' + "[" * 400_000 + "]" * 400_000)), "recursion"),
    "deep objects": (signed(header('"x":' + '{"a":' * 150_000)), "recursion"),
    "deep params": (signed(header(params='{"a":' + "[" * 400_000)), "recursion"),
    "wide": (signed(header('"x":[' + "{}," * 300_000 + "{}]")), "checksums are not those"),
    "wide pairs": (signed(header('"x":[' + '{"a":0},' * 120_000 + "{}]")), "checksums are not those"),
    "wide params": (signed(header('"x":0', params='{"a":[' + "[]," * 300_000 + "0]}")), "checksums are not those"),
    "long number": (one("[" + "9" * 900_000 + "]", "[0,1]"), "cannot be read"),
    "not closed": (signed(header()[:-1]), "cannot be read"),
    "not UTF-8": (signed(header('"x":0').encode().replace(b"x", b"\xff")), "cannot be read"),
    "two objects": (signed(header() + "{}"), "cannot be read: Extra data"),
    "twice": (signed(header(array("[1]", "[0,1]") + "," + array("[1]", "[1,2]"), crc="a"), b"xy"), "occurs twice"),
    "metadata twice": (signed(header('"__metadata__":{}')), "occurs twice"),
    "no fields": (signed('{"__metadata__":{"format":"aphash","header_crc32":"00000000"}}'), "must hold the strings"),
    "more fields there": (signed(header().replace('"kind"', '"x":"y","kind"')), "must hold the strings"),
    "number": (signed(header().replace('"thing"', "3")), "must hold the strings"),
    "NaN": (signed(header(params='{"a":NaN}')), "params cannot be read: NaN is not a finite"),
    "Infinity": (signed(header(params='{"a":-Infinity}')), "params cannot be read: -Infinity is not a finite"),
    "1e999": (signed(header(params='{"a":1e999}')), "params cannot be read: 1e999 is not a finite"),
    "params list": (signed(header(params="[]")), "params is not a JSON object"),
    "params broken": (signed(header(params="{")), "params cannot be read"),
    "version": (signed(header(version="-1")), "version is not a number"),
    "version digit": (signed(header(version="\u00b2")), "version is not a number"),
    "unnamed": (signed(header(array("[1]", "[0,1]")), b"x"), "checksums are not those"),
    "another": (signed(header(array("[1]", "[0,1]"), crc="b"), b"x"), "checksums are not those"),
    "no entry": (signed(header('"b":0', crc="b")), "'b': dtype, shape and data_offsets expected"),
    "exabytes": (one(f"[{(1 << 60) - 1}]", f"[0,{(1 << 60) - 1}]", b"x"), "cut short"),
    "zettabytes": (one(f"[{1 << 62}]", f"[0,{1 << 62}]", b"x"), "too large"),
    "overflow": (one("[4294967296,4294967296]", "[0,0]"), "too large"),
    "overflow to fit": (one("[4294967296,4294967297]", "[0,4294967296]"), "too large"),
    "zero times huge": (one(f"[0{',9223372036854775807' * 30}]", "[0,0]"), "too large"),
    "negative": (one("[-1]", "[0,-1]"), SIZES),
    "negative twice": (one("[-1,-1]", "[0,1]", b"x"), SIZES),
    "beyond 64 bits": (one("[18446744073709551617]", "[0,1]", b"x"), SIZES),
    "fraction": (one("[1.0]", "[0,1]", b"x"), SIZES),
    "true": (one("[true]", "[0,1]", b"x"), SIZES),
    "into the header": (one("[1]", "[-8,-7]"), SIZES),
    "no offsets": (one("[1]", "null", b"x"), SIZES),
    "shape is text": (one('"1"', "[0,1]", b"x"), SIZES),
    "many dimensions": (one("[" + "1," * 5000 + "1]", "[0,1]", b"x"), "too large"),
    "backwards": (one("[1]", "[1,0]", b"x"), r"at \[1, 0\] in the file, expected \[0, 1\]"),
    "three offsets": (one("[1]", "[0,1,2]", b"x"), r"at \[0, 1, 2\] in the file"),
    "wrong size": (one("[3]", "[0,2]", b"xyz"), r"expected \[0, 3\]"),
    "more fields": (one("[1]", '[0,1],"x":1', b"x"), "'a': dtype, shape and data_offsets expected"),
    "bad dtype": (one("[1]", "[0,1]", b"x", dtype='"O"'), "unknown dtype 'O'"),
    "dtype is a list": (one("[1]", "[0,1]", b"x", dtype="[]"), "unknown dtype"),
    "overlap": (two("[0,2]", "[1,3]", b"xyz"), r"'b': at \[1, 3\] in the file, expected \[2, 4\]"),
    "same place": (two("[0,2]", "[0,2]", b"xy"), "'b': at"),
    "hole": (two("[0,2]", "[3,5]", b"xyzab"), "'b': at"),
    "hole at the start": (one("[1]", "[1,2]", b"xy"), "'a': at"),
    "cut short": (one("[3]", "[0,3]", b"xy"), "cut short: "),
    "too long": (one("[3]", "[0,3]", b"xyza"), "too long: "),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    content, message = HOSTILE[name]
    path = tmp_path / "hostile"
    path.write_bytes(content)
    for attempt in (container.read, lambda path: container.read(path, mmap=True), container.describe):
        with pytest.raises(ValueError, match=f"{path}: .*{message}"):
            attempt(path)


def test_a_crafted_file_can_be_right(tmp_path):
    data = b"xyz"
    text = header(array("[3]", "[0,3]"), crc="a", params='{"b":1.5}').replace("00000000\\", f"{zlib.crc32(data):08x}\\")
    (tmp_path / "f").write_bytes(signed(text, data))
    found, params, version = container.read(tmp_path / "f")
    assert_same(found, {"a": np.frombuffer(data, np.uint8)})
    assert (params, version) == ({"b": 1.5}, 1)


CHILD = """
import resource, sys, time
from pathlib import Path
from aphash._common import container
import numpy as np, json, zlib  # what is imported is not what a file costs
def size():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (size() + (64 << 20),) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    for mmap in (False, True):
        start = time.process_time()  # of this process: the machine may be busy
        try:
            container.read(path, mmap=mmap)
            outcome = "accepted"
        except (ValueError, OSError) as error:
            outcome = "named" if str(path) in str(error) else f"unnamed {error}"
        except BaseException as error:
            outcome = repr(error)
        print(path.name, outcome, time.process_time() - start, sep="|")
"""


def run(code, *arguments, **options):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=env, capture_output=True, text=True, **options
    )


def test_hostile_files_need_little_time_and_memory(tmp_path):
    for name, (content, _) in HOSTILE.items():
        (tmp_path / name).write_bytes(content)
    with open(tmp_path / "sparse", "wb") as file:  # sizes agree with the file: a terabyte that is not there
        file.write(one(f"[{1 << 40}]", f"[0,{1 << 40}]"))
        with contextlib.suppress(OSError):  # a file system that cannot: then the size is wrong, which is an error too
            file.truncate(file.tell() + (1 << 40))
    done = run(CHILD, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split("|") for line in done.stdout.splitlines()]
    assert len(lines) == 2 * (len(HOSTILE) + 1)
    assert [line for line in lines if line[1] != "named"] == []
    assert max(float(line[2]) for line in lines) < 1


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: not a regular file"):
        container.read(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        container.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        container.read(tmp_path / "absent")
    with pytest.raises(ValueError, match="/dev/zero: not a regular file"):
        container.read("/dev/zero")
    with pytest.raises(ValueError, match="null"):
        container.read("a\0b")
    for path, error in [(tmp_path / "pipe", OSError), (tmp_path, IsADirectoryError), (tmp_path / "no" / "f", OSError)]:
        with pytest.raises(error, match=str(path)):
            container.write(path, {}, kind="thing", version=1, params={})
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


# ---- saving ----


def test_the_path_is_used_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("plain", "with.dots.npz", b"bytes", Path("ä ö"), "n" * 255):
        container.write(path, {}, kind="thing", version=1, params={})
        container.read(path)
    assert set(os.listdir()) == {"plain", "with.dots.npz", "bytes", "ä ö", "n" * 255}


def test_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        container.write(tmp_path / "new", {}, kind="thing", version=1, params={})
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o604)
    container.write(tmp_path / "new", {}, kind="thing", version=2, params={})
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604


def test_a_link_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "file")
    for version in (1, 2):
        container.write(tmp_path / "link", {}, kind="thing", version=version, params={})
        assert container.read(tmp_path / "disk" / "file")[2] == version
    assert (tmp_path / "link").is_symlink() and sorted(os.listdir(tmp_path)) == ["disk", "link"]


NOBODY = """
import os, sys
from aphash._common import container
if os.geteuid() == 0:  # whom permissions do not bind
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
path = sys.argv[1]
for action in (lambda: container.write(path, {}, kind="thing", version=2, params={}), lambda: container.read(path)):
    try:
        action()
        print("no error")
    except BaseException as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("what", ["folder", "file"])
def test_without_permission_the_old_file_stays(tmp_path, what):
    folder = tmp_path / "folder"
    folder.mkdir()
    for above in (tmp_path, tmp_path.parent, tmp_path.parent.parent):  # pytest's own, closed to others
        above.chmod(above.stat().st_mode | 0o011)
    path = folder / "file"
    container.write(path, {}, kind="thing", version=1, params={})
    folder.chmod(0o555 if what == "folder" else 0o777)
    path.chmod(0o444 if what == "file" else 0o666)
    try:
        done = run(NOBODY, path)
        wrote, read = done.stdout.splitlines()
        assert wrote.startswith("PermissionError") and str(path) in wrote, done
        assert read == "no error" and container.read(path)[2] == 1
        assert os.listdir(folder) == ["file"]
        path.chmod(0)
        _, read = run(NOBODY, path).stdout.splitlines()
        assert read.startswith("PermissionError") and str(path) in read, read
    finally:
        folder.chmod(0o777)


FULL = """
import resource, sys
import numpy as np
from aphash._common import container
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    container.write(sys.argv[1], {"a": np.ones(1 << 17)}, kind="thing", version=2, params={})
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("room", [0, 100, 5000, 1 << 20])
def test_a_full_disk_leaves_the_old_file(tmp_path, room):
    path = tmp_path / "file"
    container.write(path, {}, kind="thing", version=1, params={})
    done = run(FULL, path, room)
    assert done.returncode == 0 and "File too large" in done.stdout and str(path) in done.stdout, done
    assert container.read(path)[2] == 1
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "lseek"])
def test_any_error_or_interrupt_leaves_the_old_file(stored, monkeypatch, call):
    path, contents = stored
    for error, caught in [(OSError(28, "No space left on device"), OSError), (KeyboardInterrupt(), KeyboardInterrupt)]:
        with monkeypatch.context() as patch:

            def fail(*_, error=error):
                raise error

            patch.setattr(os, call, fail)
            with pytest.raises(caught) as info:
                container.write(path, {"a": np.ones(9)}, kind="thing", version=4, params={})
        assert caught is KeyboardInterrupt or (info.value.errno == 28 and str(path) in str(info.value))
        assert_same(container.read(path)[0], contents)
        assert os.listdir(path.parent) == [path.name]


def test_an_error_in_the_pieces_leaves_the_old_file(stored):
    path, contents = stored

    def pieces():
        yield np.zeros(5)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        container.write(
            path, {"a": container.Chunks(np.dtype(float), (10,), pieces())}, kind="thing", version=4, params={}
        )
    assert_same(container.read(path)[0], contents)
    assert os.listdir(path.parent) == [path.name]


SAVER = """
import sys
import numpy as np
from aphash._common import container
print("ready", flush=True)
version = 1
while True:
    version += 1
    container.write(sys.argv[1], {"a": np.full(1 << 17, version)}, kind="thing", version=version, params={"v": version})
"""


def test_killed_while_saving_the_file_is_old_or_new(tmp_path, rng):
    path = tmp_path / "file"
    container.write(path, {"a": np.full(1 << 17, 1)}, kind="thing", version=1, params={"v": 1})
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    seen = set()
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", SAVER, path], env=env, stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        found, params, version = container.read(path)
        assert params == {"v": version} and (found["a"] == version).all()
        seen.add(version)
        assert all(name == "file" or name.startswith(".aphash-") for name in os.listdir(tmp_path))
    assert len(seen) > 1  # it was killed while it saved, not before


def test_the_folder_and_the_file_are_forced_to_disk_in_order(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def spy(*arguments, name=name, real=real):
            kind = "folder" if name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else ""
            calls.append(name + kind)
            return real(*arguments)

        monkeypatch.setattr(os, name, spy)
    container.write(tmp_path / "file", {}, kind="thing", version=1, params={})
    assert calls == ["fsync", "replace", "fsyncfolder"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EIO, errno.EBADF])
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_folder_that_cannot_be_forced_to_disk_is_no_error(stored, monkeypatch, number, call):
    path, _ = stored
    real = getattr(os, call)

    def refuse(thing, *rest):
        folder = os.path.isdir(thing) if call == "open" else stat.S_ISDIR(os.fstat(thing).st_mode)
        if folder:
            raise OSError(number, os.strerror(number))
        return real(thing, *rest)

    monkeypatch.setattr(os, call, refuse)
    container.write(path, {"a": np.ones(9)}, kind="thing", version=4, params={})
    monkeypatch.undo()
    assert container.read(path)[2] == 4 and os.listdir(path.parent) == [path.name]


def test_other_files_are_named(tmp_path):
    path = tmp_path / "file"
    np.save(tmp_path / "x.npy", np.zeros(100))
    np.savez(tmp_path / "x.npz", a=np.zeros(100))
    image.imsave(tmp_path / "x.png", np.zeros((10, 10)))
    safetensors.numpy.save_file({"a": np.zeros(100)}, tmp_path / "x.safetensors")
    (tmp_path / "x.pickle").write_bytes(pickle.dumps(list(range(100))))
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes(100)))
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    for suffix, words in [
        ("npy", r"an array of numpy \(numpy.load reads it\)"),
        ("npz", "a zip archive, such as .npz"), ("png", "a PNG image"),
        ("safetensors", "a safetensors file"), ("pickle", "a pickle"), ("gz", "compressed by gzip"),
        ("jpg", "a JPEG image"),
    ]:  # fmt: skip
        for read in (container.read, container.describe, APHash.load, HammingIndex.load, aphash.load):
            with pytest.raises(ValueError, match=rf"x.{suffix}: not an aphash file: (it is )?{words}"):
                read(tmp_path / f"x.{suffix}")
    for length in range(64, 1 << 20, 64):  # no file of ours begins as one of them
        start = (length - 8).to_bytes(8, "little")
        assert not start.startswith(tuple(each[:8] for each in container._OTHERS))
    readers = {"APHash": "APHash.load", "HammingIndex": "HammingIndex.load", "APHash+HammingIndex": "aphash.load"}
    for kind, words in readers.items():
        container.write(path, {}, kind=kind, version=1, params={})
        with pytest.raises(ValueError, match=rf"it holds '{re.escape(kind)}', expected 'thing': read it with {words}"):
            container.read(path, kind="thing")


MEMORY = """
import sys, threading, time
import numpy as np
from aphash._common import container
def anonymous():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) << 10
a = np.arange(1 << 24, dtype=np.uint64)  # 128 MiB
base, peak, stop = anonymous(), 0, False
def watch():
    global peak
    while not stop:
        peak = max(peak, anonymous())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
container.write(sys.argv[1], {"a": a, "strided": a.reshape(-1, 64)[:, ::2]}, kind="thing", version=1, params={})
mapped = container.read(sys.argv[1], mmap=True, verify=True)
stop = True
watcher.join()
print(peak - base)
"""


def test_saving_and_mapping_need_little_memory(tmp_path):
    done = run(MEMORY, tmp_path / "f")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 32 << 20


# ---- file objects and bytes ----


class OneWay(io.RawIOBase):
    """A pipe's end: no seeking, and a few bytes at a time."""

    def __init__(self, contents=b"", most=7):
        self.contents, self.most, self.at = bytearray(contents), most, 0

    def readable(self):
        return True

    def writable(self):
        return True

    def readinto(self, view):
        part = self.contents[self.at : self.at + min(len(view), self.most)]
        view[: len(part)] = part
        self.at += len(part)
        return len(part)

    def write(self, data):
        part = bytes(data[: self.most])
        self.contents += part
        return len(part)


class Body:
    """What S3 clients hand over: read(n) and nothing else."""

    def __init__(self, contents):
        self.read = io.BytesIO(contents).read


def sources(whole):
    yield "bytes", whole
    yield "bytearray", bytearray(whole)
    yield "memoryview", memoryview(whole)
    yield "array", memoryview(np.frombuffer(whole, np.uint8))
    yield "BytesIO", io.BytesIO(whole)
    yield "BufferedReader", io.BufferedReader(io.BytesIO(whole))
    yield "one way", OneWay(whole)
    yield "body", Body(whole)


def test_file_objects_and_bytes_are_read(stored):
    path, contents = stored
    for name, source in sources(path.read_bytes()):
        found, params, version = container.read(source, kind="thing")
        assert_same(found, contents)
        assert (params, version) == (PARAMS, 3), name
        assert all(array.flags.writeable and array.flags.owndata for array in found.values()), name
    for _, source in sources(path.read_bytes()):
        assert_same(container.read_any(source, names={"ids", "marks"})[1], {k: contents[k] for k in ("ids", "marks")})
        assert container.describe(bytes(path.read_bytes()))["damage"] == []


def test_file_objects_get_the_same_bytes(stored):
    path, contents = stored
    whole = path.read_bytes()
    pieces = {
        name: container.Chunks(a.dtype, a.shape, lambda a=a: (a[i : i + 9] for i in range(0, len(a), 9)))
        for name, a in contents.items()
    }
    with open(path.parent / "opened", "wb") as opened, open(path.parent / "appended", "ab") as appended:
        for file in (io.BytesIO(), OneWay(), OneWay(most=10**9), opened, appended):
            for arrays in (contents, pieces):
                container.write(file, arrays, kind="thing", version=3, params=PARAMS)
            assert not file.closed
            if not hasattr(file, "name"):
                assert (file.contents if isinstance(file, OneWay) else file.getvalue()) == whole + whole
    assert (path.parent / "opened").read_bytes() == (path.parent / "appended").read_bytes() == whole + whole
    with gzip.open(path.parent / "packed", "wb") as file:
        container.write(file, contents, kind="thing", version=3, params=PARAMS)
    with gzip.open(path.parent / "packed") as file:
        assert_same(container.read(file)[0], contents)


def test_a_file_object_is_left_behind_what_was_read(stored):
    path, contents = stored
    whole = path.read_bytes()
    for source in (io.BytesIO(b"before" + whole + whole + b"after"), OneWay(b"before" + whole + whole + b"after")):
        assert source.read(6) == b"before"
        assert_same(container.read(source)[0], contents)
        assert container.read_any(source, names={"none"})[1].keys() == {"none"}
        assert source.read(5) == b"after"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_contents_are_refused_from_anywhere(name):
    content, message = HOSTILE[name]
    for kind, source in sources(content):
        if kind == "bytes" and b"\0" not in content[:8]:  # bytes that may be a path
            continue
        with pytest.raises((ValueError, OSError), match=rf"{message}|cut short|damaged|more than can be allocated"):
            container.read(source)


def test_half_a_stream_is_refused(stored):
    whole = stored[0].read_bytes()
    for n in [*range(0, 20), *range(20, len(whole), 97), len(whole) - 1]:
        for kind, source in sources(whole[:n]):
            if kind == "bytes" and b"\0" not in whole[:n]:
                continue
            with pytest.raises(ValueError, match=r"not an aphash file|cut short|damaged"):
                container.read(source)
    for kind, source in sources(whole + b"x"):
        if kind in ("bytes", "bytearray", "memoryview", "array"):
            with pytest.raises(ValueError, match=r"^bytes: too long"):
                container.read(source)
    damaged = bytearray(whole)
    damaged[-1] ^= 1
    for _, source in sources(bytes(damaged)):
        with pytest.raises(ValueError, match="'marks' is damaged"):
            container.read(source)


def test_wrong_file_objects_are_named(stored, tmp_path):
    path, contents = stored
    for source, name in ((io.BytesIO(path.read_bytes()), "a BytesIO"), (path.read_bytes(), "bytes")):
        with pytest.raises(ValueError, match=f"^{name}: mmap=True needs the path of a file"):
            container.read(source, mmap=True)
    with open(path, "rb") as file, pytest.raises(ValueError, match=rf"^{path}: it holds 'thing', expected 'other'"):
        container.read(file, kind="other")
    with open(tmp_path / "text", "w+") as file:
        with pytest.raises(TypeError, match="binary file object, got TextIOWrapper: open it with 'wb'"):
            container.write(file, contents, kind="thing", version=1, params={})
        with pytest.raises(TypeError, match="binary file object, got TextIOWrapper: open it with 'rb'"):
            container.read(file)
    with pytest.raises(ValueError, match="'codes' was changed while it was written"):
        changing = iter([np.zeros(3), np.ones(3)])
        unsteady = {"codes": container.Chunks(np.float64, (3,), lambda: [next(changing)])}
        container.write(io.BytesIO(), unsteady, kind="thing", version=1, params={})
    with open(os.devnull, "rb") as file, pytest.raises(io.UnsupportedOperation):  # its own error, as it is
        container.write(file, contents, kind="thing", version=1, params={})
    with pytest.raises(FileNotFoundError):
        container.read(b"no such file")
    assert_same(container.read(os.fsencode(path))[0], contents)


def test_models_and_indexes_go_through_file_objects(tmp_path):
    X = np.random.default_rng(0).standard_normal((300, 32)).astype(np.float32)
    hasher = APHash(24, n_rounds=1, n_anchors=20, random_state=0).fit(X)
    index = HammingIndex(24)
    index.add(hasher.transform(X), np.arange(300) * 7)
    index.build_lookup()
    for thing, load in ((hasher, APHash.load), (index, HammingIndex.load)):
        thing.save(tmp_path / "file")
        buffer = io.BytesIO()
        thing.save(buffer)
        assert buffer.getvalue() == (tmp_path / "file").read_bytes()
        for _, source in sources(buffer.getvalue()):
            again = io.BytesIO()
            load(source).save(again)
            assert again.getvalue() == buffer.getvalue()
    buffer = OneWay(most=1000)
    aphash.save(buffer, hasher, index)
    aphash.save(tmp_path / "file", hasher, index)
    assert buffer.contents == (tmp_path / "file").read_bytes()
    for load in (aphash.load, aphash.load_encoder):
        for _, source in sources(bytes(buffer.contents)):
            model, found = load(source)
            np.testing.assert_array_equal(
                found.search(model.transform(X[:9]), 3)[1], index.search(index.codes[:9], 3)[1]
            )
        with pytest.raises(ValueError, match="mmap=True needs the path"):
            load(bytes(buffer.contents), mmap=True)
    for _, source in sources(bytes(buffer.contents)):
        np.testing.assert_array_equal(Encoder.load(source).transform(X), hasher.transform(X))
