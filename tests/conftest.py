import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """Real images: (1797, 64) float32 and their labels."""
    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32), y


@pytest.fixture
def rng():
    return np.random.default_rng(0)
