"""Vectors that are kept by id beside the codes of an index: float32, float16, or int8 with a scale for each row.

Kept vectors never change. A change returns other kept vectors, which share the rows, so that codes and vectors can be
seen together as they were at one moment. Rows are only ever added. A table from ids to rows says which rows count; it
is a store that holds the number of the row as a code of 64 bits. Needs numpy only.
"""

from dataclasses import dataclass

import numpy as np

from aphash._common import container
from aphash._searching import index_file
from aphash._searching._store import Store, refuse_unknown
from aphash.rescore import VectorRescore

KINDS = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "int8": np.dtype(np.int8)}

_CHUNK_BYTES = 1 << 24  # of the float32 rows that are made or written at a time
_GROWTH = 8  # an eighth more rows are allocated at a time
_DEAD_ROWS = 4096  # rows in memory that do not count: up to so many are always kept


@dataclass
class _Extent:
    """Rows from number ``start`` on, in memory or in a map. ``scales`` is float32 (n,) where rows are int8."""

    rows: np.ndarray
    scales: np.ndarray | None
    start: int


class KeptVectors:
    """Vectors of dimension d by id.

    Attributes
    ----------
    kind : str
        One of KINDS.
    n_features : int
    """

    def __init__(self, kind, n_features):
        self.kind, self.n_features = kind, n_features
        self._table, self._extents, self._n = Store(64), (), 0
        self._n_mapped = self._dead = 0  # rows that are in a file; rows in memory that no longer count
        self._may_write = False  # behind row n in the last extent; the right passes to the next change

    def __len__(self):
        return len(self._table.present)

    @property
    def nbytes(self):
        held = sum(each.rows.nbytes + (0 if each.scales is None else each.scales.nbytes) for each in self._extents)
        return held + self._table.present.memory()

    # ---- changes: each returns other kept vectors ----

    def put(self, X, ids):
        """Return kept vectors in which rows X (n, d) are added under ids, or replace theirs. ValueError on overflow."""
        after = self._followed()
        first = after._append(X)
        numbers = np.arange(first, first + len(X), dtype=np.uint64)[:, np.newaxis]
        after._note_dead(self._numbers(ids))
        after._table.upsert(numbers, ids)
        return after._tidied()

    def without(self, ids):
        """Return kept vectors without those of ids. Some ids may be unknown."""
        after = self._followed()
        after._note_dead(self._numbers(ids))
        after._table.remove(ids, True)
        return after._tidied()

    def compacted(self):
        """Return kept vectors with an extent of their own for the rows that count, in the order of their ids."""
        present = self._table.present
        ids = np.sort(present.load_ids(0, len(present)))
        after = KeptVectors(self.kind, self.n_features)
        after._copy_from(self, ids)
        after._table.add(np.arange(len(ids), dtype=np.uint64)[:, np.newaxis], ids)
        return after

    def _followed(self):
        after = KeptVectors(self.kind, self.n_features)
        after._table, after._extents, after._n = self._table.successor(), self._extents, self._n
        after._n_mapped, after._dead = self._n_mapped, self._dead
        after._may_write, self._may_write = self._may_write, False
        return after

    def _append(self, X):
        """Write rows behind all others, and return the number of the first. Older kept vectors do not see them."""
        first, done = self._n, 0
        if self._may_write:
            last = self._extents[-1]
            done = min(len(X), len(last.rows) - (self._n - last.start))
            self._write(last, self._n - last.start, X[:done])
            self._n += done
        if done < len(X):
            extent = self._new_extent(max(len(X) - done, self._n // _GROWTH))
            self._write(extent, 0, X[done:])
            self._extents, self._n, self._may_write = (*self._extents, extent), self._n + len(X) - done, True
        return first

    def _new_extent(self, room):
        rows = np.empty((room, self.n_features), KINDS[self.kind])
        return _Extent(rows, np.empty(room, np.float32) if self.kind == "int8" else None, self._n)

    def _write(self, extent, at, X):
        step = max(1, _CHUNK_BYTES // (4 * self.n_features))
        for start in range(0, len(X), step):
            rows = X[start : start + step]
            place = slice(at + start, at + start + len(rows))
            with np.errstate(over="ignore"):
                floats = rows.astype(self.dtype, copy=False)
            if not np.isfinite(floats).all():
                largest = np.finfo(self.dtype).max
                raise ValueError(f"X has values beyond {largest:.6g}, which {self.kind} vectors cannot hold: see keep")
            if self.kind == "int8":
                extent.scales[place] = scales = _scales(floats)
                floats = np.rint(floats / scales[:, np.newaxis])
            extent.rows[place] = floats

    def _note_dead(self, numbers):
        self._dead += int((numbers >= self._n_mapped).sum())

    def _tidied(self):
        """Free the rows in memory that do not count, if most do not. Rows of a file stay where they are."""
        if self._dead <= max(_DEAD_ROWS, (self._n - self._n_mapped) // 2):
            return self
        present = self._table.present
        ids = present.load_ids(0, len(present))
        ids = np.sort(ids[self._numbers(ids) >= self._n_mapped])
        after = KeptVectors(self.kind, self.n_features)
        after._extents, after._n = tuple(p for p in self._extents if p.start < self._n_mapped), self._n_mapped
        after._n_mapped, after._table = self._n_mapped, self._table
        after._copy_from(self, ids)
        after._table.upsert(np.arange(self._n_mapped, after._n, dtype=np.uint64)[:, np.newaxis], ids)
        return after

    def _copy_from(self, other, ids):
        """Append the rows of ids as they are, in one extent."""
        if not len(ids):
            return
        extent = self._new_extent(len(ids))
        step = max(1, _CHUNK_BYTES // (4 * self.n_features))
        for start in range(0, len(ids), step):
            rows, scales = other._stored(other._numbers(ids[start : start + step]))
            extent.rows[start : start + step] = rows
            if scales is not None:
                extent.scales[start : start + step] = scales
        self._extents, self._n, self._may_write = (*self._extents, extent), self._n + len(ids), True

    # ---- by id ----

    def get(self, ids):
        """Return vectors (n, d) by ids, float32 or float16; KeyError where some are not kept."""
        numbers = self._numbers(ids)
        refuse_unknown(ids, numbers)
        return self.oindex[numbers]

    def _numbers(self, ids):
        """Return the numbers of the rows, -1 where there is none."""
        ids = np.ascontiguousarray(ids, np.int64)
        present = self._table.present
        positions = present.find(ids.ravel())
        known = positions >= 0
        if known.all():
            return present.codes_at(positions)[:, 0].astype(np.int64).reshape(ids.shape)
        numbers = np.full(ids.size, -1, np.int64)
        numbers[known] = present.codes_at(positions[known])[:, 0]
        return numbers.reshape(ids.shape)

    def addresses(self, numbers):
        """Return (addresses uint64, scales float32 or None) of rows by their numbers, in the shape of these."""
        flat = numbers.ravel()
        addresses = np.empty(flat.shape, np.uint64)
        scales = np.empty(flat.shape, np.float32) if self.kind == "int8" else None
        which = np.searchsorted([extent.start for extent in self._extents], flat, "right") - 1
        for i, extent in enumerate(self._extents):
            some = which == i
            at = flat[some] - extent.start
            addresses[some] = at * extent.rows.strides[0] + extent.rows.__array_interface__["data"][0]
            if scales is not None:
                scales[some] = extent.scales[at]
        return addresses.reshape(numbers.shape), None if scales is None else scales.reshape(numbers.shape)

    def _stored(self, numbers):
        """Return rows by their numbers, as they are stored, and their scales or None."""
        if len(self._extents) == 1:
            (extent,) = self._extents
            return extent.rows[numbers], None if extent.scales is None else extent.scales[numbers]
        rows = np.empty((len(numbers), self.n_features), KINDS[self.kind])
        scales = np.empty(len(numbers), np.float32) if self.kind == "int8" else None
        which = np.searchsorted([extent.start for extent in self._extents], numbers, "right") - 1
        for i, extent in enumerate(self._extents):
            some = which == i
            rows[some] = extent.rows[numbers[some] - extent.start]
            if scales is not None:
                scales[some] = extent.scales[numbers[some] - extent.start]
        return rows, scales

    # ---- what VectorRescore reads: an array of n rows, by rows ----

    @property
    def shape(self):
        return self._n, self.n_features

    @property
    def dtype(self):
        return np.dtype(np.float32) if self.kind == "int8" else KINDS[self.kind]

    @property
    def oindex(self):
        """``oindex[numbers]`` are rows by their numbers, as zarr's arrays give them."""
        return _Rows(self)

    # ---- files ----

    def to_file(self, ids):
        """Return (arrays, params) of the rows of ids, in this order. Nothing is copied."""
        n, step = len(ids), max(1, _CHUNK_BYTES // (4 * self.n_features))

        def chunks(which):
            return (self._stored(self._numbers(ids[at : at + step]))[which] for at in range(0, n, step))

        arrays = {"rows": container.Chunks(KINDS[self.kind], (n, self.n_features), lambda: chunks(0))}
        if self.kind == "int8":
            arrays["scales"] = container.Chunks(np.dtype(np.float32), (n,), lambda: chunks(1))
        numbers = np.zeros(-(-n // 8) * 8, np.uint64)
        numbers[:n] = np.arange(n)
        return arrays | {"numbers": numbers}, {"kind": self.kind, "n_features": self.n_features}

    @classmethod
    def from_file(cls, path, arrays, params, index_arrays, index_params, index_version):
        """Return what :meth:`to_file` wrote. The arrays and parameters of the index say which ids it was for."""
        kind, d = params["kind"], params["n_features"]
        if kind not in KINDS or type(d) is not int or d < 1:
            raise ValueError("vectors of an unknown kind")
        rows, scales = arrays["rows"], arrays.get("scales")
        n = len(rows)
        if rows.shape != (n, d) or rows.dtype != KINDS[kind]:
            raise ValueError(f"vectors of shape {rows.shape} and dtype {rows.dtype}")
        if (kind == "int8") != (scales is not None and scales.shape == (n,) and scales.dtype == np.float32):
            raise ValueError("vectors of int8, and no others, must have scales")
        table = {"blocks": arrays["numbers"]}
        table |= {"ids": index_arrays["ids"]} if "ids" in index_arrays else {}
        about = {name: index_params[name] for name in ("next_id", "ascending", "first_id", "n") if name in index_params}
        kept = cls(kind, d)
        kept._table = index_file.from_file(path, table, about | {"n_bits": 64}, index_version, False)
        if len(kept) != n:
            raise ValueError(f"{len(kept)} codes and {n} vectors")
        kept._extents, kept._n, kept._n_mapped = (_Extent(rows, scales, 0),) if n else (), n, n
        return kept


class KeptRescore(VectorRescore):
    """Re-rank by kept vectors. This VectorRescore finds rows by the table of the kept vectors."""

    __module__ = "aphash._searching.kept"

    def __init__(self, kept, metric):
        self.X, self.metric, self.factor = kept, metric, 1
        self._dtype = np.dtype(np.float32)
        self._ids = kept  # not None, since rows are found by ids, whatever ids the index has

    def _rows_of(self, ids):
        numbers = self.X._numbers(ids)
        unknown = (numbers < 0) & (ids != -1)
        if unknown.any():
            raise ValueError(f"no vector is kept of id {ids[unknown][0]}")
        return np.maximum(numbers, 0)

    def _addresses(self, rows):
        return *self.X.addresses(rows), self.X.kind


@dataclass(frozen=True)
class _Rows:
    kept: KeptVectors

    def __getitem__(self, numbers):
        rows, scales = self.kept._stored(numbers)
        return rows if scales is None else rows.astype(np.float32) * scales[:, np.newaxis]


def _scales(rows):
    """Return the scale of each row, with which the largest magnitude becomes 127."""
    return np.maximum(np.abs(rows).max(axis=1) / np.float32(127), np.finfo(np.float32).tiny)
