"""The space of mode "semantic-scores", in which items of the same kind are near. Needs numpy only.

    y = W^T x + c        z = s (y / |y| - mu)

W is what mode "semantic" learns, with more numbers than the codes have bits. Only the direction of y counts, as it does
for signs. mu and s centre and scale the directions, as working vectors are centred and scaled.
"""

import numpy as np

from aphash._learning import _bits
from aphash._learning._projection import Projection

ARRAYS = {  # what a model's file holds of it, with dtypes and dimensions
    "kind_map": (np.float32, "De"), "kind_bias": (np.float32, "e"), "kind_centre": (np.float64, "e"),
}  # fmt: skip


class KindSpace:
    """Working vectors of X to vectors whose Euclidean distances say how much items are of the same kind.

    Parameters
    ----------
    W : ndarray of float32, shape (d, e)
    bias : ndarray of float32, shape (e,)
    centre : ndarray of float64, shape (e,), optional
        mu.
    scale : float, default=1.0
        s.
    """

    def __init__(self, W, bias, centre=None, scale=1.0):
        self.W, self.bias = np.ascontiguousarray(W, np.float32), np.ascontiguousarray(bias, np.float32)
        self.centre = np.zeros(len(self.bias)) if centre is None else np.ascontiguousarray(centre, np.float64)
        self.scale, self._packed = scale, None

    def __call__(self, X, n_threads):
        """Return z of working vectors (n, d), float32 (n, e). Each row's numbers are its own."""
        Z = self.projections(X, n_threads)
        _bits.directions(Z, self.centre, self.scale)
        return Z

    def projections(self, X, n_threads):
        """Return y of working vectors (n, d), float32 (n, e)."""
        packed = self._packed
        if packed is None or not packed.is_current():
            packed = self._packed = Projection(self.W, self.bias, np.zeros(len(self.W)), 1.0)
        out = np.empty((len(X), len(self.bias)), np.float32)
        packed.project(np.ascontiguousarray(X), out, n_threads)
        return out
