"""A lower layer never imports a higher one, nor its own; benchmarks use what users have."""

import ast
import re
from pathlib import Path

import pytest

import aphash

ROOT = Path(__file__).parents[1]
LAYERS = [
    "_version _arrays _progress",
    "_kernels",
    "_runtime codes _checks",
    "_learn _store _linear _safeguard _io _steps metrics rescore",
    "_search _filters",
    "_engines",
    "_rows _affinity _lookup",
    "_optimize _pairs _index_file",
    "_hasher index _dask_rows",
    "__init__ interchange neighbors _dask_index",
    "dask __main__ _show_versions _bundle",
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|[^\n]+)|c?import\s+([^\n]+))", re.M)
C_FILES = sorted(p for p in ROOT.glob("csrc/*") if p.suffix in (".c", ".h"))


def imported(source, cython=False):
    """Yield the dotted names of aphash that a source imports, or reaches as attributes of ``aphash``."""
    names = []
    if cython:
        for module, members, modules in CYTHON_IMPORT.findall(source):
            assert not module.startswith("."), "relative import"
            words = re.sub(r"#.*|\bas\s+\w+|[()\\]", " ", members or modules).replace(",", " ").split()
            names += [f"{module}.{word}" if module else word for word in words]
    else:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"relative import in line {node.lineno}"
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "aphash":
                names.append(f"aphash.{node.attr}")
    return [name for name in names if name.partition(".")[0] == "aphash"]


def module_of(name):
    """The module of aphash that an import of ``name`` loads."""
    part = [*name.split("."), "__init__"][1]
    if part == "__version__":
        return "_version"
    return part if part in LEVEL else aphash._HOME.get(part, "aphash.__init__").partition(".")[2]


MODULES = sorted(p for p in ROOT.glob("aphash/*") if p.suffix in (".py", ".pyx", ".pxd"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.name)
def test_a_module_imports_lower_layers_only(path):
    assert path.stem in LEVEL, f"{path.name} has no layer: add it to LAYERS"
    targets = {module_of(name) for name in imported(path.read_text(), path.suffix != ".py")} - {path.stem}
    assert {t for t in targets if LEVEL[t] >= LEVEL[path.stem]} == set()


@pytest.mark.parametrize("path", sorted(ROOT.glob("bench/**/*.py")), ids=lambda p: p.name)
def test_benchmarks_import_public_names_only(path):
    private = {
        name
        for name in imported(path.read_text())
        if any(part.startswith("_") and part != "__version__" for part in name.split("."))
    }
    kernels = {"aphash._kernels", "aphash._learn"} if path.name.startswith("kernels") else set()
    assert {name for name in private if ".".join(name.split(".")[:2]) not in kernels} == set()


@pytest.mark.parametrize("path", C_FILES, ids=lambda p: p.name)
def test_kernels_in_c_know_neither_python_nor_openmp(path):
    assert re.findall(r'^\s*#\s*include\s*[<"](?:Python|omp|numpy/.*)\.h[>"]', path.read_text(), re.M) == []


def test_the_parsers_see_every_form_of_import():
    python = (
        "import aphash.index as i, os\ndef f():\n  from aphash import APHash\n  import aphash\n  aphash._io.load()\n"
    )
    assert [module_of(name) for name in imported(python)].count("_hasher") == 1
    assert {module_of(name) for name in imported(python)} == {"index", "_hasher", "__init__", "_io"}
    cython = "cimport cython\nfrom aphash._kernels cimport (a,\n  b)\nfrom aphash import _io as io, index  # c\n"
    assert {module_of(name) for name in imported(cython + "import aphash.codes\n", True)} == {
        "_kernels",
        "_io",
        "index",
        "codes",
    }
    assert LEVEL["_hasher"] == LEVEL["index"]  # neither side imports the other
