import os

import numpy as np
import pytest
from sklearn.datasets import load_digits

from aphash import _kernels
from aphash._searching import _search, _store

os.environ["_APHASH_MAX_THREADS"] = "8"  # work is split as a test says, also where there are fewer CPUs


@pytest.fixture(params=_kernels.isa_names())
def isa(request):
    """Runs a test once with each instruction set that this machine has."""
    before = _kernels.isa()
    _kernels.set_isa(request.param)
    yield request.param
    _kernels.set_isa(before)


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


@pytest.fixture
def small_work_is_split():
    """As many threads as are asked for work on the smallest database, and hits are counted in stretches of 1,024."""
    _search.set_limits(0.0, 1024)
    yield
    _search.set_limits()
