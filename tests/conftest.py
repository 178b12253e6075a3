import os

import numpy as np
import pytest
from sklearn.datasets import load_digits

from aphash import _learn, _search, _store

os.environ["_APHASH_MOST_THREADS"] = "8"  # work is split as a test says, also where there are fewer CPUs


def _each(module, names):
    """A fixture that runs a test once with each of a module's instruction sets that this machine has."""

    @pytest.fixture(params=names)
    def chosen(request):
        before = module.isa()
        module.set_isa(request.param)
        yield request.param
        module.set_isa(before)

    return chosen


learn_isa = _each(_learn, _learn.supported_isas())
isa = _each(_search, _search.isa_names())


@pytest.fixture(scope="session")
def digits():
    """Real images: (1797, 64) float32 and their labels."""
    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32), y


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def small_pages():
    """Stores that are made in the test have pages of 512 codes, the fewest there are."""
    before = _store.set_page_bytes(0)
    yield
    _store.set_page_bytes(before)
