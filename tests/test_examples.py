"""The examples run: a service that answers rightly while its file is replaced, and its refusals."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import aphash

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_every_answer_is_that_of_a_file_that_was_in_place():
    options = ["--seconds", "3", "--items", "500", "--features", "40", "--bits", "32"]
    run = subprocess.run([sys.executable, EXAMPLES / "load.py", *options], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "errors 0; wrong answers 0" in run.stdout and re.search(r"p99 \d+\.\d", run.stdout)
    assert all(int(n) > 0 for n in re.search(r"by file \[(\d+), (\d+), (\d+)\]", run.stdout).groups())


@pytest.fixture
def service(tmp_path):
    X = np.random.default_rng(0).standard_normal((300, 40), np.float32)
    hasher = aphash.APHash(32, n_rounds=1, random_state=0).fit(X)
    index = aphash.HammingIndex(32)
    index.add(hasher.transform(X))
    aphash.save(tmp_path / "product", hasher, index)
    command = [sys.executable, EXAMPLES / "serve.py", tmp_path / "product", "0", "1"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield server.stdout.readline().strip(), X, tmp_path / "product", index.search(hasher.transform(X), 3)[1]
    finally:
        server.send_signal(signal.SIGTERM)
        server.stdout.close()
        assert server.wait(20) == 0


def ask(url, vectors, k=3):
    with urllib.request.urlopen(f"{url}/?k={k}", vectors.tobytes(), timeout=60) as answer:
        return json.load(answer)["ids"]


def test_a_service_refuses_what_is_no_query_and_survives_a_broken_file(service):
    url, X, path, right = service
    assert ask(url, X) == right.tolist() and ask(url, X[7]) == right[7:8].tolist()
    for vectors, k, message in ((X[0, :7], 3, "reshape"), (X[0], 0, "k must be at least 1"), (X[0] * np.nan, 1, "NaN")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(url, vectors, k)
        with refused.value as answer:
            assert answer.code == 400 and message in json.load(answer)["error"]
    (path.parent / "other").write_bytes(b"no product")
    os.replace(path.parent / "other", path)
    assert ask(url, X[:2]) == right[:2].tolist()
    path.unlink()
    assert ask(url, X[:2]) == right[:2].tolist()
