"""The training kernels against naive float64 numpy: every ISA, tile edges, thread counts, dtypes and scales."""

import itertools
import pickle

import numpy as np
import pytest
import reference

from aphash import _kernels
from aphash._learning import _distances, _projection, _source

pytestmark = pytest.mark.usefixtures("isa")
THREADS = (2, 3, 7)
POWERS = ((1, 1), (4, 2), (8, 4), (16, 8), (3, 1.5))  # (q_scale, q_power)


def working(X, rows, mean, scale):
    rows = np.arange(len(X)) if rows is None else rows
    return ((X[rows].astype(np.float64) - mean) * scale).astype(np.float32)


def source_of(rng, n, d, dtype=np.float32, offset=0.0, size=1.0):
    X = ((rng.standard_normal((n, d)) + offset) * size).astype(dtype)
    mean = X.astype(np.float64).mean(axis=0)
    return X, mean, 1 / (np.sqrt(((X - mean) ** 2).sum(axis=1).mean()) or 1.0)


def nearest(source, start, stop, A, k, n_threads=1, best=None):
    X, rows, mean, scale = source
    d2, ids = best or (np.full((len(A), k), np.inf, np.float32), np.full((len(A), k), -1, np.int64))
    _distances.nearest(_source.Source(X, rows, mean, scale), start, stop, A, d2, ids, n_threads)
    return d2, ids


def every_distance(source, n, A):
    """The kernel's own float32 squared distances, (m, n): what its selections are checked against."""
    d2, ids = nearest(source, 0, n, A, n)
    out = np.empty_like(d2)
    np.put_along_axis(out, ids, d2, axis=1)
    return out


def in_order(d2, k):
    ids = np.argsort(d2, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(d2, ids, axis=1), ids


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


# -- working vectors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 7, 16, 33])
def test_working_vectors_to_the_bit(rng, dtype, d):
    X, mean, scale = source_of(rng, 50, d, dtype, 300)
    rows = rng.integers(0, 50, 20)
    got, some = np.full((40, d), np.nan, np.float32), np.full((20, d), np.nan, np.float32)
    _source.working(_source.Source(X, None, mean, scale), 7, 47, got)
    _source.working(_source.Source(X, rows, mean, scale), 0, 20, some)
    np.testing.assert_array_equal(got, working(X, None, mean, scale)[7:47])
    np.testing.assert_array_equal(some, working(X, rows, mean, scale))


def test_a_source_is_the_same_after_pickling(rng):
    X, mean, scale = source_of(rng, 50, 4)
    source = _source.Source(X, np.arange(0, 50, 2), mean, scale)
    again = pickle.loads(pickle.dumps(source, protocol=5))
    assert (again.n, again.d, again.scale) == (25, 4, scale)
    got, want = np.empty((25, 4), np.float32), np.empty((25, 4), np.float32)
    _source.working(again, 0, 25, got)
    _source.working(source, 0, 25, want)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(again.take(slice(3, 5)), X[[6, 8]])


# -- (A) distances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 3, 16, 255, 256, 257, 512, 4097])
@pytest.mark.parametrize("m", [1, 5, 6, 7, 13])
def test_distances(rng, m, d):
    n = 263
    X, mean, scale = source_of(rng, n, d)
    x = working(X, None, mean, scale)
    A = x[rng.permutation(n)[:m]]
    d2 = every_distance((X, None, mean, scale), n, A)
    size = (x.astype(np.float64) ** 2).sum(axis=1)
    want = reference.distances(A, x) ** 2
    assert np.abs(d2 - want).max() < 3e-6 * (size.max() + 1)
    assert (d2 >= 0).all()


@pytest.mark.parametrize("n", [1, 15, 16, 17, 255, 256, 257, 2047, 2049, 5000])
@pytest.mark.parametrize("k", [1, 10, 300])
def test_nearest_keeps_the_smallest_by_distance_and_id(rng, n, k):
    X, mean, scale = source_of(rng, n, 3, np.float64)
    X = np.round(X, 1)  # many ties
    A = working(X, None, mean, scale)[rng.integers(0, n, 7)]
    source = (X, None, mean, scale)
    d2, ids = nearest(source, 0, n, A, k)
    want_d2, want_ids = in_order(every_distance(source, n, A), k)
    found = min(n, k)
    np.testing.assert_array_equal(d2[:, :found], want_d2)
    np.testing.assert_array_equal(ids[:, :found], want_ids)
    assert (ids[:, found:] == -1).all()
    assert np.isposinf(d2[:, found:]).all()


def test_nearest_does_not_depend_on_threads_or_splits(rng):
    X, mean, scale = source_of(rng, 6001, 19)
    A = working(X, None, mean, scale)[:13]
    source = (X, None, mean, scale)
    once = nearest(source, 0, len(X), A, 40)
    for n_threads in THREADS:
        assert_same(once, nearest(source, 0, len(X), A, 40, n_threads))
    for cuts in ((0, 6001), (0, 1, 6001), (0, 255, 257, 2048, 4099, 6001)):
        best = None
        for start, stop in itertools.pairwise(cuts):
            best = nearest(source, start, stop, A, 40, 2, best)
        assert_same(once, best)


@pytest.mark.parametrize("order", ["far to near", "near to far", "all the same"])
def test_nearest_of_sorted_and_equal_items(rng, order):
    n, k = 9000, 100
    X = np.linspace(5, 0, n)[:, None] * np.ones(4)
    if order == "near to far":
        X = X[::-1].copy()
    if order == "all the same":
        X[:] = 1.0
    A = np.full((3, 4), 0.25, np.float32)
    source = (X, None, np.zeros(4), 1.0)
    assert_same(nearest(source, 0, n, A, k), in_order(every_distance(source, n, A), k))


def test_ties_go_to_the_smaller_id_in_whatever_order_they_are_met(rng):
    n, k = 12000, 100  # waves are visited scattered: the smallest ids of the ties are not met first
    X = np.ones((n, 4))
    X[:2048] = 3.0
    A = np.zeros((3, 4), np.float32)
    for n_threads in (1, 2):
        d2, ids = nearest((X, None, np.zeros(4), 1.0), 0, n, A, k, n_threads)
        np.testing.assert_array_equal(ids, np.tile(np.arange(2048, 2048 + k), (3, 1)))
        assert (d2 == 4.0).all()


@pytest.mark.parametrize("n", [1, 31, 33, 256, 5000])
def test_within_is_every_item_up_to_the_bound(rng, n):
    X, mean, scale = source_of(rng, n, 5, np.float64)
    X = np.round(X, 1)
    A = working(X, None, mean, scale)[rng.integers(0, n, 8)]
    source = (X, None, mean, scale)
    d2 = every_distance(source, n, A)
    bound = np.sort(d2, axis=1)[:, min(n - 1, n // 3)].copy()  # some item is at the bound itself
    bound[[1, 4]] = -1, np.nan
    bound[2] = np.inf
    for n_threads in (1, *THREADS):
        indptr, ids = _distances.within(_source.Source(X, None, mean, scale), 0, n, A, bound, n_threads)
        assert indptr.dtype == ids.dtype == np.int64
        for i in range(len(A)):
            np.testing.assert_array_equal(ids[indptr[i] : indptr[i + 1]], np.flatnonzero(d2[i] <= bound[i]))
    start, stop = n // 4, n - n // 4
    indptr, ids = _distances.within(_source.Source(X, None, mean, scale), start, stop, A, bound, 2)
    for i in range(len(A)):
        want = start + np.flatnonzero(d2[i, start:stop] <= bound[i])
        np.testing.assert_array_equal(ids[indptr[i] : indptr[i + 1]], want)


def test_within_no_bound_and_no_items(rng):
    X, mean, scale = source_of(rng, 10, 2)
    A = working(X, None, mean, scale)
    for bound, stop in ((np.full(10, -1, np.float32), 10), (np.ones(10, np.float32), 0)):
        indptr, ids = _distances.within(_source.Source(X, None, mean, scale), 0, stop, A, bound, 2)
        assert indptr.tolist() == [0] * 11
        assert len(ids) == 0


def test_more_anchors_than_a_wave_takes(rng):
    X, mean, scale = source_of(rng, 2500, 2)
    x = working(X, None, mean, scale)
    A = np.tile(x[:1000], (3, 1))
    source = (X, None, mean, scale)
    d2, ids = nearest(source, 0, 2500, A, 3)
    once = nearest(source, 0, 2500, A[:1000], 3)
    assert_same((d2, ids), (np.tile(once[0], (3, 1)), np.tile(once[1], (3, 1))))
    indptr, items = _distances.within(_source.Source(X, None, mean, scale), 0, 2500, A, d2[:, 2].copy(), 2)
    assert set(np.diff(indptr)) == {3}
    np.testing.assert_array_equal(items.reshape(-1, 3), np.sort(ids, axis=1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [1.0, 1e30, 1e-30])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_dtypes_scales_and_offsets(rng, tmp_path, dtype, size, offset):
    if dtype == np.float16 and size != 1:
        size = 100.0 if size > 1 and offset == 0 else 1e-3  # what half precision holds; some are subnormal
    X, mean, scale = source_of(rng, 300, 65, dtype, offset, size)
    np.save(tmp_path / "X.npy", X)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    rows = np.sort(rng.permutation(300)[:111])
    x = working(X, rows, mean, scale)
    source = (X, rows, mean, scale)
    want = reference.distances(x[:9], x) ** 2
    assert np.abs(every_distance(source, 111, x[:9]) - want).max() < 1e-5
    W, bias = rng.standard_normal((65, 7)).astype(np.float32), np.zeros(7, np.float32)
    out = np.empty((111, 7), np.float32)
    _projection.project(_source.Source(X, rows, mean, scale), 0, 111, W, bias, out, 2)
    np.testing.assert_allclose(out, x.astype(np.float64) @ W, atol=2e-6)
    anchors = X[rows[:9]].astype(np.float64)
    indptr = np.arange(0, 9 * 111 + 1, 111)
    distance = np.empty(9 * 111)
    _distances.pair_distances(_source.Source(X, rows), anchors, indptr, np.tile(np.arange(111), 9), distance, 2)
    np.testing.assert_allclose(distance.reshape(9, 111), reference.distances(anchors, X[rows]), rtol=1e-13)


@pytest.mark.parametrize("d", [1, 3, 15, 16, 17, 512, 4097])
def test_pair_distances(rng, d):
    X = rng.standard_normal((500, d))
    anchors = rng.standard_normal((5, d))
    counts = [0, 3, 0, 200, 500]
    indptr = np.cumsum([0, *counts])
    ascending = np.concatenate([np.sort(rng.permutation(500)[:c]) for c in counts]).astype(np.int64)
    shuffled = np.concatenate([rng.permutation(500)[:c] for c in counts]).astype(np.int64)
    want = reference.distances(anchors, X)
    value = {}
    for ids in (ascending, shuffled):
        row = np.repeat(np.arange(5), counts)
        for n_threads in (1, *THREADS):
            out = np.full(len(ids), np.nan)
            _distances.pair_distances(_source.Source(X, None), anchors, indptr, ids, out, n_threads)
            np.testing.assert_allclose(out, want[row, ids], rtol=1e-13)
            for pair, distance in zip(zip(row, ids, strict=True), out, strict=True):
                assert value.setdefault(pair, distance) == distance


# -- (C) projections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [1, 7, 8, 16, 63, 64, 65, 128, 256])
@pytest.mark.parametrize("d", [1, 3, 16, 512, 4097])
def test_project_and_encode(rng, r, d):
    n = 55
    X, mean, scale = source_of(rng, n, d)
    W = rng.standard_normal((d, r)).astype(np.float32)
    bias = rng.standard_normal(r).astype(np.float32) / 8
    W[:, r // 2] = bias[r // 2] = 0  # a projection of exactly 0 is bit 1
    x = working(X, None, mean, scale)
    out = np.empty((n, r), np.float32)
    _projection.project(_source.Source(X, None, mean, scale), 0, n, W, bias, out, 1)
    np.testing.assert_allclose(out, x.astype(np.float64) @ W + bias, atol=1e-5)
    codes = np.full((n, -(-r // 64)), 2**64 - 1, np.uint64)
    _projection.encode(_source.Source(X, None, mean, scale), 0, n, W, bias, codes, 1)
    bits = np.unpackbits(codes.view(np.uint8), axis=1, bitorder="little")
    np.testing.assert_array_equal(bits[:, :r], out >= 0)
    assert not bits[:, r:].any()


def test_project_does_not_depend_on_batch_or_threads(rng):
    X, mean, scale = source_of(rng, 2000, 300)
    W, bias = rng.standard_normal((300, 65)).astype(np.float32), rng.standard_normal(65).astype(np.float32)
    whole = np.empty((2000, 65), np.float32)
    _projection.project(_source.Source(X, None, mean, scale), 0, 2000, W, bias, whole, 1)
    for n_threads in THREADS:
        part = np.empty((1500, 65), np.float32)
        _projection.project(_source.Source(X, None, mean, scale), 3, 1503, W, bias, part, n_threads)
        np.testing.assert_array_equal(part, whole[3:1503])
    for j in (0, 5, 6, 47, 48, 1999):
        one = np.empty((1, 65), np.float32)
        _projection.project(_source.Source(X, None, mean, scale), j, j + 1, W, bias, one, 1)
        np.testing.assert_array_equal(one[0], whole[j])


# -- manners ----------------------------------------------------------------------------------------------------------


def test_wrong_arrays_are_refused(rng):
    X, mean, scale = source_of(rng, 10, 4)
    A = np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="isa must be one of"):
        _kernels.set_isa("sse9")
    with pytest.raises(TypeError, match="C-contiguous"):
        nearest((X[:, ::2], None, mean[::2].copy(), scale), 0, 10, A[:, :2].copy(), 1)
    with pytest.raises(TypeError, match="float16, float32 or float64"):
        nearest((X.astype(np.int64), None, mean, scale), 0, 10, A, 1)
    with pytest.raises(ValueError, match="start and stop"):
        nearest((X, None, mean, scale), 0, 11, A, 1)
    with pytest.raises(TypeError, match="source"):
        _distances.within(None, 0, 10, A, np.ones(2, np.float32), 1)
    with pytest.raises(ValueError, match="mean must have 4 elements"):
        nearest((X, None, mean[:3].copy(), scale), 0, 10, A, 1)
    with pytest.raises(ValueError, match=r"W, bias and mean must be \(d, r\)"):
        W, bias, out = np.zeros((3, 2), np.float32), np.zeros(2, np.float32), np.empty((10, 2), np.float32)
        _projection.project(_source.Source(X, None, mean, scale), 0, 10, W, bias, out, 1)
    with pytest.raises(ValueError, match="A must have 4 columns"):
        nearest((X, None, mean, scale), 0, 10, np.zeros((2, 3), np.float32), 1)
