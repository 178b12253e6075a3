"""A lower layer never imports a higher one, nor its own; benchmarks use what users have."""

import ast
import re
from pathlib import Path

import pytest

import aphash

ROOT = Path(__file__).parents[1]
LAYERS = [
    "_version _common.arrays _common.progress _searching.results",
    "_kernels",
    "_common.threads codes _common.checks _searching._rows",
    "_learning.recipe _learning._source _learning.linear _learning.safeguard _searching._store _common.container "
    "_steps metrics rescore",
    "_learning._distances _learning._affinity_pass _learning._projection _learning._bits _learning.blocks "
    "_searching._search _searching._linkage _searching.filters _common.finite _interchange.rows",
    "_searching.engines _searching._weighted _searching.linkage _interchange.items _learning.kind_space",
    "_searching.queries",
    "_learning.item_encoder _measuring.brute_force",
    "_learning.encoder _measuring.recall",
    "_learning.training_data _learning.affinity _learning.query_steps _searching.lookup",
    "_learning.descent _searching.pairs _searching.index_file _searching.expansion _searching.calibration",
    "_learning.scores _learning.model_file _distributed.training_data _searching.kept",
    "_learning.estimator index",
    "__init__ neighbors _distributed.index _interchange.indexes _vectors.state",
    "_vectors.fitting _vectors.file",
    "interchange dask _show_versions _product _choose vectors "
    "_command.arguments _command.terminal _command.writing _command.page",
    "_command.reading _command.info _command.comparison _command.picture _command.results_page",
    "_command.naming _command.demo _command.build _command.choose",
    "_command.search _command.dedup",
    "__main__",
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
KERNELS = ("_source", "_distances", "_affinity_pass", "_projection")  # what bench/kernels* measure
ROOMS = {name.partition(".")[0] for name in LEVEL if "." in name}
CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|[^\n]+)|c?import\s+([^\n]+))", re.M)
C_FILES = sorted(p for p in ROOT.glob("csrc/**/*") if p.suffix in (".c", ".h"))


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
            elif isinstance(node, ast.Attribute):
                names.append(ast.unparse(node))
    rooms = {f"aphash.{room}" for room in ROOMS}
    return [name for name in names if name.partition(".")[0] == "aphash" and name not in rooms]


def module_of(name):
    """The module of aphash that an import of ``name`` loads."""
    part = [*name.split("."), "__init__"][1]
    if part == "__version__":
        return "_version"
    if part in ROOMS:
        return ".".join(name.split(".")[1:3])
    return part if part in LEVEL else aphash._HOME.get(part, "aphash.__init__").partition(".")[2]


def name_of(path):
    return ".".join(path.relative_to(ROOT / "aphash").with_suffix("").parts)


MODULES = sorted(
    p
    for p in ROOT.glob("aphash/**/*")
    if p.suffix in (".py", ".pyx", ".pxd") and not (p.stem == "__init__" and p.parent.name in ROOMS)
)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: name_of(p) + p.suffix)
def test_a_module_imports_lower_layers_only(path):
    own = name_of(path)
    assert own in LEVEL, f"{own} has no layer: add it to LAYERS"
    targets = {module_of(name) for name in imported(path.read_text(), path.suffix != ".py")} - {own}
    assert {t for t in targets if LEVEL[t] >= LEVEL[own]} == set()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_nothing_by_itself(room):
    assert imported((ROOT / "aphash" / room / "__init__.py").read_text()) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("bench/**/*.py")), ids=lambda p: p.name)
def test_benchmarks_import_public_names_only(path):
    private = {
        name
        for name in imported(path.read_text())
        if any(part.startswith("_") and part != "__version__" for part in name.split("."))
    }
    kernels = {"_kernels", *(f"_learning.{name}" for name in KERNELS)} if path.name.startswith("kernels") else set()
    shared = kernels | ({"_command.page"} if path.name == "report.py" else set())  # pages for the browser
    assert {name for name in private if module_of(name) not in shared} == set()


@pytest.mark.parametrize("path", C_FILES, ids=lambda p: p.name)
def test_kernels_in_c_know_neither_python_nor_openmp(path):
    assert re.findall(r'^\s*#\s*include\s*[<"](?:Python|omp|numpy/.*)\.h[>"]', path.read_text(), re.M) == []


def test_the_parsers_see_every_form_of_import():
    python = (
        "import aphash.index as i, os\ndef f():\n  from aphash import APHash\n  import aphash\n"
        "  aphash._common.container.load()\n"
    )
    assert [module_of(name) for name in imported(python)].count("_learning.estimator") == 1
    assert {module_of(name) for name in imported(python)} == {
        "index",
        "_learning.estimator",
        "__init__",
        "_common.container",
    }
    cython = "cimport cython\nfrom aphash._kernels cimport (a,\n  b)\n"
    cython += "from aphash._common import container as io\nfrom aphash import index  # c\n"
    assert {module_of(name) for name in imported(cython + "import aphash.codes\n", True)} == {
        "_kernels",
        "_common.container",
        "index",
        "codes",
    }
    assert LEVEL["_learning.estimator"] == LEVEL["index"]  # neither side imports the other


def test_the_house_in_design_names_every_file():
    """And what the documents name is there."""
    design = (ROOT / "docs/DESIGN.md").read_text()
    if not (ROOT / "bench").is_dir():
        pytest.skip("the tests of an installed wheel, away from a checkout")
    house = design[design.index("## The house") : design.index("## Symbols")]
    sources = [*ROOT.glob("aphash/**/*.p*"), *ROOT.glob("csrc/**/*.[ch]"), *ROOT.glob("bench/*/*.py")]
    names = {p.name for p in sources if p.suffix in (".py", ".pyx", ".pxd", ".pxi", ".c", ".h")}
    words = set(re.findall(r"[\w]+", house))
    assert sorted(n for n in names if n.partition(".")[0] not in words and n != "__init__.py") == []
    for document in ("README.md", "CONTRIBUTING.md", "bench/README.md", "docs/DESIGN.md"):
        text = (ROOT / document).read_text()
        paths = re.findall(
            r"\b(?:aphash|bench|csrc|docs|examples|tests)/[\w/.-]+\.(?:py|pyi|pyx|sh|svg|md|c|h|def)\b", text
        )
        assert [path for path in paths if "NAME" not in path and not (ROOT / path).exists()] == [], document
