"""The results of a VectorIndex: arrays, which unpack like a tuple, and what is known about them."""

from collections.abc import Generator, Iterator
from typing import Self

import numpy as np


class Found:
    """The results of a search, ``distances, ids = found``, and what is known about them.

    Attributes
    ----------
    distances, ids : ndarray
    offsets : ndarray
        A radius search has them, too, and unpacks as ``offsets, distances, ids = found``.
    exact : bool
        Whether the distances are those of vectors. Otherwise they are estimated from the codes.
    candidates : int
        How many codes were ranked anew for each query, 0 where none were. For a radius search this is the mean.
    recall : float
        The share of the true nearest neighbours that is expected in the results.
    """

    def __init__(self, arrays: tuple[np.ndarray, ...], exact: bool, candidates: int, recall: float) -> None:
        self._arrays, self.exact, self.candidates, self.recall = arrays, exact, candidates, recall

    @property
    def distances(self) -> np.ndarray:
        return self._arrays[-2]

    @property
    def ids(self) -> np.ndarray:
        return self._arrays[-1]

    @property
    def offsets(self) -> np.ndarray:
        if len(self) != 3:
            raise AttributeError("only a radius search has offsets")
        return self._arrays[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, place: int) -> np.ndarray:
        return self._arrays[place]

    def __repr__(self) -> str:
        kind = f"exact, of {self.candidates} candidates" if self.exact else "estimated"
        arrays = ", ".join(map(repr, self._arrays))
        return f"<found: {arrays}; distances {kind}; expected recall {self.recall:.3g}>"


class Pairs:
    """The near pairs of an index, chunk by chunk: an iterator over ``(ids_i, ids_j, distances)``.

    Attributes
    ----------
    radius : int
        The number of bits by which codes may differ.
    recall : float
        The share of all pairs within the distance that is expected.
    precision : float
        The share of the pairs found that is expected to be within the distance. It is 1 where vectors verify it.
    exact : bool
        Whether distances are those of vectors.
    """

    def __init__(self, chunks: Generator, radius: int, recall: float, precision: float, exact: bool) -> None:
        self._chunks, self.radius, self.recall, self.precision, self.exact = chunks, radius, recall, precision, exact

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return next(self._chunks)

    def close(self) -> None:
        """Stop, and release what the pairs hold of the index."""
        self._chunks.close()

    def __repr__(self) -> str:
        kind = "verified" if self.exact else f"precision {self.precision:.3g}"
        return f"<pairs within {self.radius} bits: expected recall {self.recall:.3g}, {kind}>"


class Groups:
    """The groups of near vectors of an index: ``ids, labels = groups``.

    Attributes
    ----------
    ids : ndarray of int64, shape (n,)
        The ids of the vectors that take part, ascending.
    labels : ndarray of int64, shape (n,)
        The group of each id. Groups are numbered from 0, in the order of their smallest ids.
    representatives : ndarray of int64, shape (n_groups,)
        The vectors to keep: the smallest id of each group.
    duplicates : ndarray of int64, shape (n - n_groups,)
        All other ids, ascending. ``index.remove(groups.duplicates)`` leaves one vector of each group.
    exact : bool
        Whether vectors verified the distances.
    recall : float
        The share of all pairs within the distance that is expected to have been seen.
    """

    def __init__(self, ids: np.ndarray, labels: np.ndarray, exact: bool, recall: float) -> None:
        self.ids, self.labels, self.exact, self.recall = ids, labels, exact, recall

    @property
    def representatives(self) -> np.ndarray:
        return self.ids[np.unique(self.labels, return_index=True)[1]]

    @property
    def duplicates(self) -> np.ndarray:
        is_first = np.zeros(len(self.ids), bool)
        is_first[np.unique(self.labels, return_index=True)[1]] = True
        return self.ids[~is_first]

    def members(self) -> list[np.ndarray]:
        """Return the ids of each group of two or more, ascending, in the order of the groups."""
        order = np.argsort(self.labels, kind="stable")
        each = np.split(self.ids[order], np.flatnonzero(np.diff(self.labels[order])) + 1)
        return [ids for ids in each if len(ids) > 1]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.ids, self.labels))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> np.ndarray:
        return (self.ids, self.labels)[place]

    def __repr__(self) -> str:
        sizes = np.bincount(self.labels) if len(self.labels) else np.zeros(0, np.int64)
        kind = "verified" if self.exact else "estimated"
        return (
            f"<{len(sizes)} groups of {len(self.ids)} vectors, {np.count_nonzero(sizes > 1)} of two or more, "
            f"the largest of {sizes.max(initial=0)}; distances {kind}>"
        )
