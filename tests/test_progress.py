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


NOTEBOOK = """
import contextlib, sys, types
sys.modules["ipykernel.zmqshell"] = types.ModuleType("ipykernel.zmqshell")  # a kernel, as far as can be seen

class Shell: pass

class Widget:
    def __init__(self, **given):
        self.layout, self.style, self.children, self.value, self.bar_style = Shell(), Shell(), (), None, ""
        vars(self).update(given)

shown = []
ipython, display, widgets = (types.ModuleType(n) for n in ("IPython", "IPython.display", "ipywidgets"))
ipython.get_ipython, ipython.version_info, ipython.display = Shell, (9, 0), display
display.display = shown.append
widgets.IntProgress = widgets.FloatProgress = widgets.HBox = widgets.HTML = Widget
widgets.__version__ = "8.1"
sys.modules |= {"IPython": ipython, "IPython.display": display}
if sys.argv[1] == "widgets":
    sys.modules["ipywidgets"] = widgets
else:
    sys.modules["ipywidgets"] = None
from aphash._common import progress
progress._PATIENCE = 0.0
for verbose in (1, "auto"):
    with progress.ProgressBar(verbose, 10, "code", "pairs") as bar:
        bar.update(10, J="7")
for container in shown:
    left, bar, right = container.children
    print(left.value, bar.value, bar.bar_style, right.value)
"""


@pytest.mark.parametrize("widgets", ["widgets", "text"])
def test_a_notebook_has_a_bar_of_its_own(widgets):
    command = [sys.executable, "-W", "error", "-c", NOTEBOOK, widgets]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if widgets == "widgets":
        first, second = done.stdout.splitlines()
        assert "100%" in first and "success" in first and "J=7" in first and "success" in second
        assert done.stderr == ""
    else:
        assert done.stdout == "" and done.stderr.count("10.0/10.0") >= 2


def test_a_process_without_stderr_can_fit():
    program = f"{Path(__file__).read_text().split('def closed')[0]}\nprint(work().n_iter_)"
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec 2>&-; exec "$0" -c "$1"', sys.executable, program], stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == "2\n"
