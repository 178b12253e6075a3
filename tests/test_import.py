"""What importing costs: numpy, and nothing else until it is needed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import aphash
import aphash._version

HEAVY = {"scipy", "sklearn", "tqdm", "threadpoolctl", "safetensors", "matplotlib", "dask"}


def third_party(statement, cwd):
    """Top-level modules outside the standard library that `statement` loads in a fresh interpreter."""
    code = f"""
import sys
before = set(sys.modules)
{statement}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(new - sys.stdlib_module_names))
"""
    env = {**os.environ, "PYTHONPATH": str(Path(aphash.__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_the_probe_sees_what_is_loaded(tmp_path):
    assert third_party("import threadpoolctl, tqdm", tmp_path) >= {"threadpoolctl", "tqdm"}


@pytest.mark.parametrize("statement", ["import aphash", "import aphash.codes", "import aphash.metrics"])
def test_needs_numpy_only(statement, tmp_path):
    loaded = third_party(statement, tmp_path)
    assert "aphash" in loaded
    assert not loaded & HEAVY
    # compiled Cython modules (numpy.random's) leave entries of Cython's own
    assert {name for name in loaded if "cython" not in name} <= {"aphash", "numpy"}


def test_codes_and_metrics_are_reached_from_the_package(tmp_path):
    loaded = third_party("import aphash; aphash.metrics; aphash.codes; aphash.pack_codes([True])", tmp_path)
    assert not loaded & HEAVY


def test_public_names_are_listed():
    assert set(aphash.__all__) <= set(dir(aphash))
    assert {"codes", "index", "metrics"} <= set(dir(aphash))
    assert len(set(aphash.__all__)) == len(aphash.__all__)


def test_lazy_names_are_the_modules_own():
    from aphash.codes import pack_codes

    assert aphash.pack_codes is pack_codes
    assert aphash.codes is sys.modules["aphash.codes"]
    assert aphash.metrics is sys.modules["aphash.metrics"]


def test_unknown_attribute_is_named():
    with pytest.raises(AttributeError, match="module 'aphash' has no attribute 'Hasher'"):
        _ = aphash.Hasher
    with pytest.raises(ImportError, match="Hasher"):
        from aphash import Hasher  # noqa: F401


def test_version():
    assert aphash.__version__ == aphash._version.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", aphash.__version__)
