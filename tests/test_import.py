"""What importing costs: numpy, and nothing else until it is needed."""

import ast
import inspect
import os
import pickle
import pickletools
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


STUB = ast.parse((Path(aphash.__file__).parent / "__init__.pyi").read_text())


def declared(body):
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def signature(node):
    """The (name, kind, default) of a stub's function, as inspect gives them."""
    a, p = node.args, inspect.Parameter
    ordinary = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(ordinary) - len(a.defaults)) + a.defaults
    found = [(arg, p.POSITIONAL_OR_KEYWORD, value) for arg, value in zip(ordinary, defaults)]
    found += [(a.vararg, p.VAR_POSITIONAL, None)] if a.vararg else []
    found += [(arg, p.KEYWORD_ONLY, value) for arg, value in zip(a.kwonlyargs, a.kw_defaults)]
    found += [(a.kwarg, p.VAR_KEYWORD, None)] if a.kwarg else []
    return [(arg.arg, kind, p.empty if value is None else ast.literal_eval(value)) for arg, kind, value in found]


def test_types_cover_the_public_names():
    imported = {alias.asname for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(aphash.__all__) | {"codes", "index"} <= imported | {"__version__", *declared(STUB.body)}


@pytest.mark.parametrize("name", declared(STUB.body))
def test_types_are_those_of_the_implementation(name):
    node, thing = declared(STUB.body)[name], getattr(aphash, name)
    functions = {name: (node, thing)}
    if isinstance(node, ast.ClassDef):
        stubs = declared(node.body)
        own = {k for k, v in vars(thing).items() if not k.startswith("_") and (callable(v) or hasattr(v, "__get__"))}
        assert own <= set(stubs), f"aphash/__init__.pyi lacks members of {name}"
        functions = {k: (stub, inspect.getattr_static(thing, k)) for k, stub in stubs.items()}
    for member, (stub, real) in functions.items():
        if isinstance(real, property):
            assert [ast.unparse(d) for d in stub.decorator_list] == ["property"], member
            continue
        decorators = [ast.unparse(d) for d in stub.decorator_list if ast.unparse(d) != "overload"]
        assert decorators == ["classmethod"] * isinstance(real, classmethod), member
        real = real.__func__ if isinstance(real, classmethod) else real
        if "set_output" in member:  # scikit-learn wraps it
            continue
        wanted = [(p.name, p.kind, p.default) for p in inspect.signature(real).parameters.values()]
        assert signature(stub) == wanted, f"{name}.{member}"


def test_an_index_imports_nothing_while_it_is_used(tmp_path):
    """A child forked while another thread imports finds that module's lock shut, and hangs when it needs the module."""
    program = """
import sys, numpy as np
from aphash import HammingIndex
before = set(sys.modules)
index = HammingIndex(64)
codes = np.arange(3000, dtype=np.uint64)[:, None]
index.add(codes)
index.build_lookup()
index.remove([3, 2999])
index.update(codes[:2], [5, 6])
index.upsert(codes[:2], [7, 10**6])
index.merge(HammingIndex(64))
index.search(codes[:9], 5, n_jobs=1)
index.radius_search(codes[0], 3, filter=[1, 2], n_jobs=1)
index.search(codes, 5, n_jobs=2)
index.get(np.flatnonzero(index.contains([1])))
index.snapshot()
index.compact()
7 in index
list(index.pairs(1))
index.save(sys.argv[1])
HammingIndex.load(sys.argv[1], mmap=True).add(codes[:1])
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "index"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def pickled_names(thing):
    """The modules that a pickle names."""
    strings, found = [], set()
    for code, value, _ in pickletools.genops(pickle.dumps(thing)):
        if isinstance(value, str):
            strings.append(value)
        if code.name == "STACK_GLOBAL":
            found.add(strings[-2])
        elif code.name == "GLOBAL":
            found.add(value.split()[0])
    return found


def test_public_classes_say_that_they_are_public(digits):
    classes = [getattr(aphash, name) for name in aphash.__all__ if isinstance(getattr(aphash, name), type)]
    assert len(classes) > 6 and {each.__module__ for each in classes} == {"aphash"}
    X = digits[0][:100]
    hasher = aphash.APHash(8, mode=aphash.Recipe(n_rounds=1, max_iter=1, rotation="none"), n_anchors=5).fit(X)
    index = aphash.HammingIndex(8)
    index.add(hasher.codes_)
    index.build_lookup()
    neighbors = aphash.HammingNeighbors(2).fit(hasher.codes_)
    for thing in (hasher, hasher.encoder_, index, neighbors, aphash.VectorRescore(X), aphash.Filter.from_ids([1])):
        private = [name for name in pickled_names(thing) if name.startswith("aphash._")]
        assert private == [] and "aphash" in pickled_names(thing)
        assert type(pickle.loads(pickle.dumps(thing))) is type(thing)
    assert repr(aphash.APHash) == "<class 'aphash.APHash'>"


def test_show_versions(capsys):
    aphash.show_versions()
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    said = {name.strip(): value for name, value in said.items()}
    assert said["aphash"] == aphash.__version__ and said["python"].startswith(sys.version.split()[0])
    for name in ("numpy", "scipy", "scikit-learn", "threadpoolctl", "tqdm"):
        assert re.match(r"\d+\.\d+", said[name])
    assert re.fullmatch(r"yes, \d+ threads|no: one thread", said["OpenMP"])
    assert re.fullmatch(r"\w+ of base.*", said["instruction set"])
    assert said["thread pool 1"].startswith(("blas, ", "openmp, ")) and "CPU" in said
