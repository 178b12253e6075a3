"""Distances of queries to rows of numbers (csrc/search/rows.inc.h) against float64, on every instruction set."""

import numpy as np
import pytest

from aphash import VectorRescore, _kernels
from aphash._searching import _rows, kept
from aphash.rescore import with_queries

KINDS = ("float32", "float16", "int8")
METRICS = ("l2", "ip", "cosine")
ISAS = _kernels.isa_names()


def made(kind, n, d, seed=0):
    """Rows of a kind and their scales."""
    X = np.random.default_rng(seed).standard_normal((n, d))
    if kind != "int8":
        return X.astype(kind), None
    scales = (np.abs(X).max(axis=1) / 127).astype(np.float32)
    return np.rint(X / scales[:, None]).astype(np.int8), scales


def expected(X, scales, rows, Q, metric):
    """In float64."""
    X = X.astype(np.float64) * (1 if scales is None else scales.astype(np.float64)[:, None])
    Q = Q.astype(np.float32).astype(np.float64)
    if metric == "cosine":
        X, Q = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-300) for each in (X, Q))
    x = X[rows]
    if metric == "ip":
        return -np.einsum("qnd,qd->qn", x, Q)
    squares = ((x - Q[:, None]) ** 2).sum(axis=2)
    return np.sqrt(squares) if metric == "l2" else squares / 2


def found(X, scales, rows, Q, metric, n_threads=1):
    addresses = X.__array_interface__["data"][0] + rows * X.strides[0]
    own = None if scales is None else scales[rows]
    return _rows.distances(addresses.astype(np.uint64), own, X.dtype.name, Q, metric, n_threads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [1, 2, 7, 8, 9, 15, 16, 17, 64, 100, 511])
def test_distances_are_those_of_float64(isa, kind, metric, d):
    X, scales = made(kind, 50, d)
    Q = np.random.default_rng(1).standard_normal((5, d))
    rows = np.random.default_rng(2).integers(50, size=(5, 67))
    for n_threads in (1, 3):
        distances = found(X, scales, rows, Q, metric, n_threads)
        np.testing.assert_allclose(distances, expected(X, scales, rows, Q, metric), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_they_are_equal_on_every_instruction_set_and_for_every_number_of_threads(kind, metric):
    X, scales = made(kind, 300, 203)
    Q = np.random.default_rng(1).standard_normal((60, 203)) * 10 ** np.random.default_rng(3).uniform(-3, 3, (60, 1))
    rows = np.random.default_rng(2).integers(300, size=(60, 130))
    results, before = [], _kernels.isa()
    try:
        for isa in ISAS:
            _kernels.set_isa(isa)
            results += [found(X, scales, rows, Q, metric, n_threads) for n_threads in (1, 2, 5)]
    finally:
        _kernels.set_isa(before)
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("d", [3, 8, 50])
def test_equal_vectors_have_distance_zero(isa, kind, metric, d):
    X, scales = made(kind, 40, d)
    if kind == "int8":
        scales[:] = 0.25  # products by it are float32 numbers
    Q = X.astype(np.float32) * (1 if scales is None else scales[:, None])
    assert (found(X, scales, np.arange(40)[:, None], Q, metric) == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_zeros_are_at_cosine_distance_one(isa, kind):
    X, scales = made(kind, 4, 12)
    X[1] = 0
    Q = np.stack([np.ones(12), np.zeros(12)])
    distances = found(X, scales, np.tile(np.arange(4), (2, 1)), Q, "cosine")
    assert distances[0, 1] == 1 and (distances[1] == 1).all() and (distances[0, [0, 2, 3]] != 1).all()


def test_every_float16(isa):
    bits = np.arange(1 << 16, dtype=np.uint16)
    X = bits.view(np.float16)[:, None]
    with np.errstate(invalid="ignore"):
        wanted = -X.astype(np.float64)[:, 0]
    distances = found(X, None, np.arange(1 << 16)[None], np.ones((1, 1)), "ip")[0]
    np.testing.assert_array_equal(distances, wanted)  # NaN equals NaN here


def test_very_large_and_very_small_numbers(isa):
    for size in (1e-37, 1e-20, 1e20, 1e37):
        X = np.random.default_rng(0).standard_normal((20, 10)).astype(np.float32) * np.float32(size)
        Q = X[::-1].copy()
        rows = np.tile(np.arange(20), (20, 1))
        for metric in METRICS:
            wanted = expected(X, None, rows, Q, metric)
            np.testing.assert_allclose(
                found(X, None, rows, Q, metric), wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max()
            )


@pytest.mark.parametrize("view", ["C", "F", "reversed", "columns", "big-endian", "float64", "int8", "read-only"])
def test_a_rescorer_gives_the_same_whatever_the_layout(view):
    X = np.random.default_rng(0).integers(-9, 9, (60, 24)).astype(np.float32)
    Q, ids = X[:7] + 0.5, np.random.default_rng(2).integers(60, size=(7, 20))
    ids[0, 3] = -1
    wanted = with_queries(VectorRescore(X), Q).distances(0, ids)
    other = {
        "C": X,
        "F": np.asfortranarray(X),
        "reversed": X[::-1].copy()[::-1],
        "columns": np.repeat(X, 2, axis=1)[:, ::2],
        "big-endian": X.astype(">f4"),
        "float64": X.astype(np.float64),
        "int8": X.astype(np.int8),
        "read-only": X.copy(),
    }[view]
    other.flags.writeable = view != "read-only"
    distances = with_queries(VectorRescore(other), Q, 2).distances(0, ids)
    np.testing.assert_allclose(distances, wanted, rtol=1e-6)
    assert view in ("float64", "int8") or np.array_equal(distances, wanted)
    assert wanted[0, 3] == np.inf


@pytest.mark.parametrize("keep", KINDS)
def test_no_row_is_read_where_no_vector_is_kept(keep):
    rescore = with_queries(kept.KeptRescore(kept.KeptVectors(keep, 4), "l2"), np.ones((2, 4)))
    assert (rescore.distances(0, np.full((2, 3), -1)) == np.inf).all()


def test_nothing_to_compare():
    X = np.ones((3, 4), np.float32)
    assert found(X, None, np.zeros((0, 5), np.int64), np.ones((0, 4)), "l2").shape == (0, 5)
    assert found(X, None, np.zeros((2, 0), np.int64), np.ones((2, 4)), "l2").shape == (2, 0)
