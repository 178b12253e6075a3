"""Numbers with which nothing can be computed: NaN, infinity, and numbers that would overflow. Needs numpy only."""

import numpy as np

from aphash._common.threads import map_ordered

_CHUNK_BYTES = 1 << 22  # of float64 values that are checked together


def check_finite(X, n_threads=1, farthest=np.inf):
    """Raise ValueError, naming the first row, when X holds NaN, infinity, or more than farthest.

    Needs no memory beside X, whatever its size, except one chunk of rows where there is something to name.
    """
    rows = max(1, _CHUNK_BYTES // (8 * X.shape[1]))

    def first_bad(start):
        chunk = X[start : start + rows]
        with np.errstate(invalid="ignore"):
            low, high = _ends(chunk)
            if low >= -farthest and high <= farthest and np.isfinite(low) and np.isfinite(high):
                return None
            bad = np.flatnonzero(~(np.isfinite(chunk) & (np.abs(chunk) <= farthest)).all(axis=1))
        return start + int(bad[0])

    for row in map_ordered(first_bad, ((start,) for start in range(0, len(X), rows)), n_threads):
        if row is not None and not np.isfinite(X[row]).all():
            raise ValueError(f"Input X contains NaN or infinity (inf), first in row {row}")
        if row is not None:
            raise ValueError(
                "Input X has values too far from those that were learned from, so that projections overflow float32: "
                f"beyond {farthest:.3g}, first in row {row}"
            )


def _ends(chunk):
    """Return two numbers between which all numbers of a chunk lie; NaN where the chunk holds NaN."""
    if chunk.dtype != np.float16:
        return chunk.min(), chunk.max()
    # numpy compares float16 a hundred times more slowly than integers. Without the sign, a larger number is a larger
    # integer.
    largest = (chunk.view(np.uint16) & 0x7FFF).max().view(np.float16)
    return -largest, largest
