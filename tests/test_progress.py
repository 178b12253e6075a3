"""A progress bar shows what it should, and whatever becomes of stderr, the work goes on."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aphash import APHash
from aphash._common.progress import ProgressBar

X = np.random.default_rng(0).standard_normal((200, 8))


def work():
    return APHash(4, n_rounds=1, max_iter=2, n_anchors=20, verbose=1, random_state=0).fit(X)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


def broken_pipe():
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)


class Failing:
    """As a terminal that has gone."""

    def write(self, text):
        raise OSError(5, "Input/output error")

    flush = write


@pytest.mark.parametrize("stream", [lambda: None, closed, broken_pipe, Failing, object])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_fit_needs_no_stderr(monkeypatch, stream):
    stream = stream()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert work().n_iter_ == 2
        with ProgressBar(1, 10, "code", "pairs") as bar:
            bar.update(3)
            bar.update(7, J="1")
        assert bar.n == 10


def test_a_stderr_that_closes_midway():
    stream = io.StringIO()
    before, sys.stderr = sys.stderr, stream
    try:
        with ProgressBar(1, 10, "code", "pairs") as bar:
            bar.update(5)
            assert "pairs" in stream.getvalue()
            stream.close()
            bar.update(5)
    finally:
        sys.stderr = before


def test_nothing_is_shown_or_imported_unless_asked(capsys):
    with ProgressBar(0, 10, "code", "pairs") as bar:
        bar.update(10)
    assert capsys.readouterr().err == "" and bar.n == 10
    with ProgressBar(1, 10, "code", "pairs") as bar:
        bar.update(10, J0="7")
    shown = capsys.readouterr().err
    assert "pairs" in shown and "10.0/10.0" in shown and "J0=7" in shown


def test_a_process_without_stderr_can_fit():
    program = f"{Path(__file__).read_text().split('def closed')[0]}\nprint(work().n_iter_)"
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec 2>&-; exec "$0" -c "$1"', sys.executable, program], stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == "2\n"
