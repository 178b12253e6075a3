"""The examples of all public names run and give what they show, and every public name has one."""

import doctest
import importlib.util
import inspect
import warnings

import numpy as np
import pytest

import aphash

MODULES = ["aphash.codes", "aphash.interchange", "aphash.metrics"]
if importlib.util.find_spec("dask"):
    MODULES.append("aphash.dask")
NO_EXAMPLE = {  # what others in the package use, and what needs none
    "aphash.ProjectionRescore", "aphash.Filter.bitmap", "aphash.Filter.belong_to", "aphash.metrics.Counts.n_relevant",
}  # fmt: skip


def members(name, thing):
    """Yield (name, function or class) of a public thing and of its public methods and properties."""
    yield name, thing
    for own, member in vars(thing).items() if inspect.isclass(thing) else ():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not own.startswith("_") and inspect.isfunction(function):
            yield f"{name}.{own}", function


def public():
    for name in aphash.__all__:
        thing = getattr(aphash, name)
        if callable(thing):
            yield from members(f"aphash.{name}", thing)
    for module in map(importlib.import_module, MODULES):
        for name, thing in vars(module).items():
            if name in getattr(module, "__all__", [name]) and not name.startswith("_") and callable(thing):
                home = getattr(thing, "__module__", "")
                if thing is not getattr(aphash, name, None) and (home == module.__name__ or "__all__" in vars(module)):
                    yield from members(f"{module.__name__}.{name}", thing)


DOCUMENTED = {name: thing for name, thing in public() if not name.startswith("aphash.codes.") or name in (
    "aphash.codes.check_codes", "aphash.codes.check_n_bits", "aphash.codes.n_words",
)}  # fmt: skip


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_an_example_runs(name):
    thing = DOCUMENTED[name]
    own = thing.__doc__ or ""
    if ">>>" not in own:
        classes = "aphash.Choice.", "aphash.HammingIndex.", "aphash.VectorIndex."
        attribute = name.startswith(classes) and not own  # see the class's text
        assert attribute or name in NO_EXAMPLE, f"{name} has no example"
        return
    for package in ("faiss", "usearch", "imagehash"):
        if package in name:
            pytest.importorskip(package)
    test = doctest.DocTestParser().get_doctest(own, {"np": np}, name, inspect.getsourcefile(thing), 0)
    output = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=output.append)
    assert not output, "".join(output)
