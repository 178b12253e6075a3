"""Distances of queries to rows of numbers that lie anywhere in memory: a threaded wrapper of csrc/search/rows.inc.h.

The caller checks arguments, and keeps the rows alive.
"""

from cython.parallel cimport prange
from libc.stdint cimport int64_t, uint64_t

from aphash._kernels cimport (
    APH_ROW_COSINE, APH_ROW_FLOAT16, APH_ROW_FLOAT32, APH_ROW_INT8, APH_ROW_IP, APH_ROW_L2, aph_isa, aph_row_kind,
    aph_row_metric, aph_rows_fn, chosen_isa)

import numpy as np

cdef const aph_isa *const *chosen = chosen_isa()

cdef int64_t LANES = 8  # numbers to a multiple of which a query is filled up with zeros
cdef int64_t SEGMENT = 64  # rows that a thread takes at a time
cdef double ALONE = 1 << 19  # numbers that one thread reads sooner than others begin

KINDS = {"float32": APH_ROW_FLOAT32, "float16": APH_ROW_FLOAT16, "int8": APH_ROW_INT8}
_METRICS = {"l2": APH_ROW_L2, "ip": APH_ROW_IP, "cosine": APH_ROW_COSINE}


def distances(addresses, scales, kind, queries, metric, int n_threads):
    """Return the distances, float64 (n_queries, n), of queries to n rows each.

    Parameters
    ----------
    addresses : ndarray of uint64, shape (n_queries, n)
        Of rows of d numbers, one behind the other.
    scales : ndarray of float32, shape (n_queries, n), or None
        Of int8: what the numbers of a row are multiplied by.
    kind : {"float32", "float16", "int8"}
    queries : ndarray of floats, shape (n_queries, d)
        They are rounded to float32.
    metric : {"l2", "ip", "cosine"}
    n_threads : int
        At least 1.
    """
    cdef int64_t n_queries = addresses.shape[0], n = addresses.shape[1], d = queries.shape[1]
    cdef int64_t segments = (n + SEGMENT - 1) // SEGMENT, job, i, first, count
    out = np.empty((n_queries, n))
    if out.size == 0:
        return out
    filled = np.zeros((n_queries, (d + LANES - 1) // LANES * LANES), np.float32)
    if metric == "cosine":
        wide = queries.astype(np.float32).astype(np.float64)  # as rows are: see aph_rows_fn
        length = np.sqrt(_sums_of_squares(wide))
        filled[:, :d] = wide * np.divide(1, length, out=np.zeros(n_queries), where=length > 0)[:, np.newaxis]
    else:
        filled[:, :d] = queries
    cdef const uint64_t[:, ::1] at = np.ascontiguousarray(addresses, np.uint64)
    cdef const float[:, ::1] own = None if scales is None else np.ascontiguousarray(scales, np.float32)
    cdef const float[:, ::1] q = filled
    cdef double[:, ::1] to = out
    cdef aph_row_kind which = KINDS[kind]
    cdef aph_row_metric how = _METRICS[metric]
    cdef bint scaled = scales is not None
    cdef aph_rows_fn *kernel = chosen[0].search.rows
    if n_threads == 1 or <double> n_queries * n * d < ALONE:
        with nogil:
            for i in range(n_queries):
                kernel(&at[i, 0], &own[i, 0] if scaled else NULL, n, d, &q[i, 0], which, how, &to[i, 0])
        return out
    for job in prange(n_queries * segments, nogil=True, num_threads=n_threads, schedule="dynamic"):
        i = job // segments
        first = job % segments * SEGMENT
        count = min(SEGMENT, n - first)
        kernel(&at[i, first], &own[i, first] if scaled else NULL, count, d, &q[i, 0], which, how, &to[i, first])
    return out


def _sums_of_squares(x):
    """Return the sums of squares over rows, in the lanes and the order of the kernel's (``row_terms``)."""
    cdef int64_t n = x.shape[0], d = x.shape[1]
    filled = np.zeros((n, (d + 2 * LANES - 1) // (2 * LANES) * 2 * LANES))
    filled[:, :d] = x * x
    lanes = np.zeros((n, 2 * LANES))
    for chunk in np.split(filled, filled.shape[1] // (2 * LANES), axis=1):
        lanes += chunk
    v = lanes[:, :LANES] + lanes[:, LANES:]
    return ((v[:, 0] + v[:, 4]) + (v[:, 2] + v[:, 6])) + ((v[:, 1] + v[:, 5]) + (v[:, 3] + v[:, 7]))
