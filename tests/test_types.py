"""Type checkers find the package as it is installed, and know what calls return."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import io
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import aphash
from aphash import APHash, Encoder, HammingIndex, VectorRescore

X = np.zeros((5, 3), np.float32)
hasher = APHash(8, mode="neighbors").fit(X)
codes = hasher.transform(X)
assert_type(codes, NDArray[np.uint64])
index = HammingIndex(8)
index.add(codes)
assert_type(index.search(codes, 3)[0], NDArray[np.int32])
assert_type(index.search(codes, 3, filter=[1, 2], n_jobs=1)[1], NDArray[np.int64])
assert_type(index.search(codes, 3, rescore=VectorRescore(X), rescore_queries=X)[0], NDArray[np.float32])
assert_type(index.search(hasher.query_projections(X), 3, expand=2)[0], NDArray[np.float32])
maybe = VectorRescore(X) if len(index) else None
assert_type(index.search(codes, 3, rescore=maybe)[0], NDArray[np.int32] | NDArray[np.float32])
encoder, found = aphash.load_encoder("x", mmap=True)
assert_type(encoder.query_projections(X), NDArray[np.float32])
assert_type(hasher.encoder_, Encoder)
assert_type(aphash.load(b"contents"), tuple[Any, HammingIndex])  # an APHash, or a Pipeline that ends with one
buffer = io.BytesIO()
aphash.save(buffer, hasher, found)
hasher.save(buffer)
with open("x", "rb") as file:
    Encoder.load(file), APHash.load(file), HammingIndex.load(file), HammingIndex.load(memoryview(b""))
index.serch(codes, 3)  # wrong
index.search(codes, "3")  # wrong
APHash(8, mode="neighbours")  # wrong
index.save(io.StringIO())  # wrong
"""


def test_mypy_finds_the_types(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    wrong = [number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")]
    assert [int(n) for n in re.findall(r"^program.py:(\d+): error", done.stdout, re.M)] == wrong, done.stdout


def test_the_stubs_are_what_the_package_is(tmp_path):
    """Signatures, classes and names of aphash/__init__.pyi against the package; mypy accepts what is annotated."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    allowed = tmp_path / "allowed"
    allowed.write_text("aphash\\._.*\n")  # private modules have no stubs
    config = Path(__file__).parents[1] / "pyproject.toml"
    command = [sys.executable, "-m", "mypy.stubtest", "aphash", "--ignore-missing-stub", "--ignore-unused-allowlist"]
    command += ["--allowlist", allowed, "--mypy-config-file", config]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
