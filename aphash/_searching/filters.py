"""Filters: which codes take part in a search, prepared once for any number of searches. Needs numpy only."""

import weakref

import numpy as np

from aphash._common.arrays import as_array
from aphash._common.checks import as_ids


class Filter:
    """Which codes take part in a search; made by ``from_ids``, ``excluding``, ``from_mask`` and ``from_bitmap``.

    A filter by ids follows the index: it may be used with any index, before and after any change, and names codes that
    come later, too. A filter by positions (mask, bitmap) belongs to the index of its first use, as it is then: codes
    that are added later do not take part, and once positions have moved (after a removal, ``compact`` or ``clear``)
    its use raises ValueError.

    What a filter has worked out for an index is kept until the index changes or the filter is used with another: a bit
    a code. It keeps nothing of the index alive. Any number of threads may use it.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import HammingIndex
    >>> index = HammingIndex(64)
    >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
    >>> from aphash import Filter
    >>> some = Filter.from_ids([1, 3])
    >>> index.search(np.array([0], np.uint64), 2, filter=some)
    (array([1, 3], dtype=int32), array([1, 3]))
    """

    __module__ = "aphash"  # where it is public: pickles and reprs say so

    def __init__(self, *_):
        raise TypeError("Filter is made by Filter.from_ids, .excluding, .from_mask or .from_bitmap")

    @classmethod
    def _of(cls, kind, values):
        self = object.__new__(cls)
        self.kind, self.values = kind, values
        self._arrangement = None  # of positions, at the first use of a mask or bitmap
        self._prepared = None  # (weak reference to a snapshot, its bitmap)
        return self

    @classmethod
    def from_ids(cls, ids):
        """Let only these ids take part.

        Parameters
        ----------
        ids : array_like of int, shape (n,), or one int
            Once or more; those that are not in the index have no effect.

        Raises
        ------
        TypeError, ValueError
            When ids are not integers that fit in int64, of one dimension.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> from aphash import Filter
        >>> index.search(np.array([0], np.uint64), 1, filter=Filter.from_ids([2, 3]))[1]
        array([2])
        """
        return cls._of("ids", as_ids(ids).copy())

    @classmethod
    def excluding(cls, ids):
        """Let all but these ids take part; parameters and errors as for :meth:`from_ids`.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> from aphash import Filter
        >>> index.search(np.array([0], np.uint64), 1, filter=Filter.excluding([0]))[1]
        array([1])
        """
        return cls._of("excluding", as_ids(ids).copy())

    @classmethod
    def from_mask(cls, mask):
        """Let the positions take part at which a mask is true.

        Parameters
        ----------
        mask : array_like of bool, shape (n,)
            In the order of ``index.ids``.

        Raises
        ------
        TypeError, ValueError
            When it is not of booleans, or not of one dimension; at its first use, when it does not have an element for
            each code of the index.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> from aphash import Filter
        >>> index.search(np.array([0], np.uint64), 1, filter=Filter.from_mask(index.ids > 1))[1]
        array([2])
        """
        mask = as_array(mask, "mask")
        if mask.dtype != bool:
            raise TypeError(f"mask must be booleans, got dtype {mask.dtype}: for ids, see Filter.from_ids")
        if mask.ndim != 1:
            raise ValueError(f"mask must have shape (n,), got {mask.shape}")
        return cls._of("mask", mask.copy())

    @classmethod
    def from_bitmap(cls, words):
        """Let the positions take part whose bits are set.

        Parameters
        ----------
        words : ndarray of uint64, shape (ceil(n / 64),)
            Bit p % 64 of word p // 64 is that of position p, in the order of ``index.ids``.

        Raises
        ------
        TypeError, ValueError
            When it is not of uint64 in native byte order, or not of one dimension; at its first use, when it does not
            have the words that the index needs.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingIndex
        >>> index = HammingIndex(64)
        >>> ids = index.add(np.array([[0], [1], [3], [7]], np.uint64))
        >>> from aphash import Filter
        >>> words = np.array([0b1000], np.uint64)  # position 3 alone
        >>> index.search(np.array([0], np.uint64), 1, filter=Filter.from_bitmap(words))[1]
        array([3])
        """
        words = as_array(words, "words")
        if words.dtype != np.uint64 or not words.dtype.isnative:
            raise TypeError(f"words must be uint64 in native byte order, got dtype {words.dtype}")
        if words.ndim != 1:
            raise ValueError(f"words must have shape (ceil(n / 64),), got {words.shape}")
        return cls._of("bitmap", words.copy())

    def __repr__(self):
        return f"<Filter by {self.kind}, {len(self.values)} {'words' if self.kind == 'bitmap' else 'values'}>"

    def bitmap(self, snapshot):
        """Return the packed bitmap by position of a snapshot: uint64 (ceil(n / 64),), bits beyond n zero."""
        prepared = self._prepared
        if prepared is not None and prepared[0]() is snapshot:
            return prepared[1]
        if self.kind in ("ids", "excluding"):
            words = snapshot.bitmap(snapshot.find(self.values), self.kind == "excluding")
        else:
            words = self._of_positions(snapshot)
        self._prepared = weakref.ref(snapshot), words
        return words

    def belong_to(self, arrangement, n):
        """Take n positions, at the first use, as those that a mask or bitmap means; return their number.

        ValueError where it is not one of n positions, or they have another arrangement than at the first use.
        """
        if self._arrangement is None:
            self._check_length(n)
            self._n, self._arrangement = n, arrangement
        elif self._arrangement is not arrangement:
            raise ValueError(
                "filter goes by position, and the positions have moved since its first use (or that was with another "
                "index): make a new one, or use Filter.from_ids"
            )
        return self._n

    def _check_length(self, n):
        wanted = n if self.kind == "mask" else -(-n // 64)
        if len(self.values) != wanted:
            name = "booleans" if self.kind == "mask" else "words of a packed bitmap"
            raise ValueError(f"filter must have {wanted} {name} for {n} codes, got {len(self.values)}")

    def __reduce__(self):
        return Filter._of, (self.kind, self.values)

    def _of_positions(self, snapshot):
        n = len(snapshot)
        self.belong_to(snapshot.arrangement, n)
        if self.kind == "mask":
            packed = np.packbits(self.values, bitorder="little")
            packed = np.pad(packed, (0, -(-n // 64) * 8 - len(packed)))
            return packed.view("<u8").astype(np.uint64, copy=False)
        words = np.zeros(-(-n // 64), np.uint64)
        words[: len(self.values)] = self.values
        if self._n % 64:
            words[self._n // 64] &= np.uint64((1 << self._n % 64) - 1)
        return words


def as_filter(filter):
    """Return the filter that an argument means, or None: ids of any integer dtype, booleans by position, a Filter."""
    if filter is None or isinstance(filter, Filter):
        return filter
    array = as_array(filter, "filter")
    if array.dtype == bool:
        if array.ndim != 1:
            raise ValueError(f"filter of booleans must have shape (n,), got {array.shape}")
        return Filter._of("mask", array)
    return Filter._of("ids", as_ids(filter if isinstance(filter, list | tuple) else array, "filter"))


def prepare(filter, snapshot):
    """Return a search's filter as a packed bitmap by position of a snapshot, or None."""
    filter = as_filter(filter)
    return None if filter is None else filter.bitmap(snapshot)


def positions_of(bitmap, n):
    """Return the positions, int64 ascending, that a packed bitmap of n positions holds."""
    return np.flatnonzero(np.unpackbits(bitmap.astype("<u8").view(np.uint8), count=n, bitorder="little"))
