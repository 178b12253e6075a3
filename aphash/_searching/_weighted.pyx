"""Queries whose distance is a sum of table entries, one for each four bits of a code (csrc/search/weighted.h).

:class:`TableQueries` takes any tables. :class:`WeightedQueries` makes the tables of bits with weights. Both are what
:func:`aphash._searching._search.search` and :func:`aphash._searching._search.radius_search` take as queries; distances
are uint32.
"""

from libc.math cimport fabs, rint
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from aphash._kernels cimport APH_ENTRIES, aph_isa, aph_weighted, chosen_isa
from aphash._searching._search cimport Queries

import numpy as np

cimport numpy as cnp

cnp.import_array()


cdef const aph_isa *const *chosen = chosen_isa()

MOST = 65535  # the largest weight of a bit
PAD_DISTANCE = 0xffffffff
cdef double MAX_WEIGHT = 65535
cdef int64_t SAMPLE = 512  # codes; tables of bytes that are made for the largest distance let all codes pass


cdef class TableQueries(Queries):
    """Queries with tables, and with constants by position. A distance is the sum of the code's entries and its block's
    constant.

    Parameters
    ----------
    tables : uint32 (n_queries, n_tables, 16)
        tables[i, t, v] is what bits 4 t .. 4 t + 3 of a code add to its distance to query i where their value is v.
        Bits beyond the tables add nothing. The array must be C-contiguous, and is not copied.
    constants : int32 (n_queries, n_runs), optional
        What the codes of each run of blocks add; a block has 512 codes.
    ends : int64 (n_runs,), optional
        The number of the block behind each run, ascending. The last must lie behind all codes that are searched.

    Raises
    ------
    ValueError
        When the distances of a query could lie outside of 0 .. 2^32 - 1, or shapes do not fit each other.
    """

    cdef readonly object tables, constants, ends
    cdef object states

    def __init__(self, cnp.ndarray tables, cnp.ndarray constants=None, cnp.ndarray ends=None):
        if (cnp.PyArray_TYPE(tables) != cnp.NPY_UINT32 or tables.ndim != 3 or tables.shape[2] != APH_ENTRIES
                or not cnp.PyArray_IS_C_CONTIGUOUS(tables)):
            raise TypeError("tables must be C-contiguous uint32 of shape (n_queries, n_tables, 16)")
        min_sums, max_sums = tables.min(2).sum(1, dtype=np.int64), tables.max(2).sum(1, dtype=np.int64)
        if (constants is None) != (ends is None):
            raise ValueError("constants and ends belong together")
        if constants is not None:
            if (cnp.PyArray_TYPE(constants) != cnp.NPY_INT32 or constants.ndim != 2
                    or constants.shape[0] != tables.shape[0] or not cnp.PyArray_IS_C_CONTIGUOUS(constants)):
                raise TypeError("constants must be C-contiguous int32 of shape (n_queries, n_runs)")
            if (cnp.PyArray_TYPE(ends) != cnp.NPY_INT64 or ends.ndim != 1 or ends.shape[0] != constants.shape[1]
                    or ends.shape[0] == 0 or not cnp.PyArray_IS_C_CONTIGUOUS(ends) or ends[0] < 1
                    or (np.diff(ends) < 1).any()):
                raise TypeError("ends must be ascending int64 of shape (n_runs,), at least 1")
            min_sums, max_sums = min_sums + constants.min(1), max_sums + constants.max(1)
        if len(tables) and (min_sums.min() < 0 or max_sums.max() > 0xffffffff):
            raise ValueError("sums of tables and constants must lie in 0 .. 2^32 - 1")
        self.hold(tables, constants, ends, max_sums.max() if len(tables) else 0)

    cdef int hold(self, cnp.ndarray tables, cnp.ndarray constants, cnp.ndarray ends, int64_t max_distance) except -1:
        """Make the states that the kernels read. All has been checked."""
        cdef int64_t n_queries = tables.shape[0], n_tables = tables.shape[1], i
        cdef aph_weighted *state
        states = np.zeros(max(1, n_queries) * sizeof(aph_weighted), np.uint8)
        state = <aph_weighted *> cnp.PyArray_DATA(states)
        for i in range(n_queries):
            state[i].tables = <const uint32_t *> cnp.PyArray_DATA(tables) + i * n_tables * APH_ENTRIES
            state[i].n_tables = n_tables
            if constants is not None:
                state[i].constants = <const int32_t *> cnp.PyArray_DATA(constants) + i * ends.shape[0]
                state[i].ends = <const int64_t *> cnp.PyArray_DATA(ends)
        self.values = self.tables = tables
        self.constants, self.ends, self.states = constants, ends, states
        self.dtype, self.pad = np.dtype(np.uint32), PAD_DISTANCE
        self.q.first = <const char *> state
        self.q.stride = sizeof(aph_weighted)
        self.q.max_distance = max_distance
        self.q.alone, self.q.batch = chosen[0].weighted_alone, chosen[0].weighted_batch
        self.q.sample = SAMPLE
        self.q.scratch_bytes = chosen[0].search.weighted.scratch_bytes
        self.q.scan = chosen[0].search.weighted.scan
        self.q.distances = chosen[0].search.weighted.distances
        self.q.lookup = NULL
        return 0

    def take(self, which):
        constants = None if self.constants is None else np.ascontiguousarray(self.constants[which])
        return TableQueries(np.ascontiguousarray(self.tables[which]), constants, self.ends)


cdef class WeightedQueries(TableQueries):
    """Queries with weights, float64 (n_queries, n_bits), finite, C-contiguous.

    The integers of a query are rint(|p| / max|p| * 65535), and its bits are p >= 0. The distance of a code is the sum
    of the integers of the bits that differ. Bits of a code beyond n_bits add nothing. Where all weights are zero, all
    distances are 0.

    Attributes
    ----------
    scales : float64 (n_queries,)
        max|p|. A distance in the weights' own unit is the integer times scale / 65535; see :func:`in_their_unit`.
    """

    cdef readonly object scales

    def __init__(self, cnp.ndarray weights):
        if (cnp.PyArray_TYPE(weights) != cnp.NPY_FLOAT64 or weights.ndim != 2
                or not cnp.PyArray_IS_C_CONTIGUOUS(weights)):
            raise TypeError("weights must be C-contiguous float64 of two dimensions")
        cdef int64_t n_queries = weights.shape[0], n_bits = weights.shape[1], n_tables = (n_bits + 3) // 4
        cdef cnp.ndarray tables = np.empty((n_queries, n_tables, APH_ENTRIES), np.uint32)
        cdef cnp.ndarray scales = np.empty(n_queries)
        cdef const double *p = <const double *> cnp.PyArray_DATA(weights)
        cdef uint32_t *table = <uint32_t *> cnp.PyArray_DATA(tables)
        cdef double *scale = <double *> cnp.PyArray_DATA(scales)
        cdef int64_t i, max_distance = 0
        with nogil:
            for i in range(n_queries):
                max_distance = max(max_distance, make_tables(p + i * n_bits, n_bits, table + i * n_tables * APH_ENTRIES,
                                                   scale + i))
        self.hold(tables, None, None, max_distance)
        self.values, self.scales = weights, scales

    def take(self, which):
        return WeightedQueries(np.ascontiguousarray(self.values[which]))


cdef double MAX_FLOAT = 3.4028234663852886e38  # the largest float32

FINITE, TOO_LARGE, ONLY_BITS = 1, 2, 3  # what check_weights finds wrong


def check_weights(cnp.ndarray weights):
    """Return (0, 0), or what is wrong with weights, float64 (n_queries, n_bits), and the first row where it is so.

    FINITE means that the row has NaN or infinity, TOO_LARGE that float32 may not hold its largest distance, and
    ONLY_BITS that every row holds both 0 and 1 and nothing else.
    """
    cdef int64_t n_queries = weights.shape[0], n_bits = weights.shape[1], i, b, zeros, ones, bits = 0, row = -1
    cdef const double *p = <const double *> cnp.PyArray_DATA(weights)
    cdef double total, max_size, size
    with nogil:
        for i in range(n_queries):
            total = max_size = 0
            zeros = ones = 0
            for b in range(n_bits):
                size = fabs(p[b])
                total += size
                max_size = max(max_size, size)
                zeros += p[b] == 0
                ones += p[b] == 1
            bits += zeros > 0 and ones > 0 and zeros + ones == n_bits
            p += n_bits
            # Rounding changes a weight by max_size / 131,070 at most, and the product is rounded once more.
            if not (total + max_size * n_bits / 131070 < MAX_FLOAT):
                row = i
                break
    if row >= 0:
        return (TOO_LARGE if np.isfinite(weights[row]).all() else FINITE), row
    return (ONLY_BITS, 0) if bits and bits == n_queries else (0, 0)


def integers_within(double radius, scale):
    """Return the largest integer distances within a radius, int64, for queries whose scales are given."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        limits = np.where(scale > 0, radius / scale * MAX_WEIGHT, np.inf)
    return np.floor(np.minimum(limits, PAD_DISTANCE)).astype(np.int64)


def in_their_unit(distances, ids, scale):
    """Return integer distances as float32 in their weights' unit, infinity where there is no id."""
    out = (distances * scale / MAX_WEIGHT).astype(np.float32)
    out[ids == -1] = np.inf
    return out


cdef int64_t make_tables(const double *p, int64_t n_bits, uint32_t *tables, double *scale) noexcept nogil:
    """Write the tables of a query, and return its largest distance."""
    cdef double max_size = 0
    cdef int64_t t, b, v, total = 0
    cdef uint32_t weight, differs[4]
    cdef uint32_t same[4]
    for b in range(n_bits):
        max_size = max(max_size, fabs(p[b]))
    scale[0] = max_size
    for t in range((n_bits + 3) // 4):
        for b in range(4):  # what the bit adds to a distance where it is 0, and where it is 1
            differs[b] = same[b] = 0
            if 4 * t + b < n_bits and max_size > 0:
                weight = <uint32_t> rint(fabs(p[4 * t + b]) / max_size * MAX_WEIGHT)
                total += weight
                if p[4 * t + b] >= 0:
                    differs[b] = weight
                else:
                    same[b] = weight
        tables[0] = differs[0] + differs[1] + differs[2] + differs[3]
        for b in range(4):
            for v in range(<int64_t> 1 << b):
                tables[v + (<int64_t> 1 << b)] = tables[v] - differs[b] + same[b]
        tables += APH_ENTRIES
    return total
