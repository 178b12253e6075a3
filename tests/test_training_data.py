import itertools
import threading
import tracemalloc

import numpy as np
import pytest
import reference

from aphash._common.finite import check_finite
from aphash._common.threads import map_ordered
from aphash._learning.blocks import block_rows, blocks, draw_rows
from aphash._learning.training_data import Rows


@pytest.mark.parametrize("n", [1, 2, 1023, 1024, 1025, 131072, 131073, 10**6, 10**9])
def test_blocks_cover_the_rows_in_order(n):
    edges = blocks(n)
    assert edges[0][0] == 0 and edges[-1][1] == n and len(edges) <= 128
    assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
    assert block_rows(n) % 64 == 0 and max(b - a for a, b in edges) <= block_rows(n)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_map_ordered(n_threads):
    assert list(map_ordered(lambda x: x * x, ((i,) for i in range(50)), n_threads)) == [i * i for i in range(50)]


def test_map_ordered_stops_at_an_error():
    done, lock = [], threading.Lock()

    def work(i):
        if i == 3:
            raise RuntimeError("no")
        with lock:
            done.append(i)

    with pytest.raises(RuntimeError, match="no"):
        list(map_ordered(work, ((i,) for i in range(1000)), 2))
    assert len(done) < 20


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_statistics_and_working_vectors(rng, dtype, n_threads):
    X = (rng.standard_normal((3000, 5)) * [1, 2, 3, 0, 5] + 7).astype(dtype)
    rows = Rows(X, None, n_threads)
    exact = X.astype(float)
    np.testing.assert_allclose(rows.mean, exact.mean(axis=0), rtol=1e-12)
    centred = exact - exact.mean(axis=0)
    np.testing.assert_allclose(rows.scale, 1 / np.sqrt((centred**2).sum(axis=1).mean()), rtol=1e-12)
    x = rows.working(slice(10, 20))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, centred[10:20] * rows.scale, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", [1e30, 1e-30, 1e100])
def test_statistics_at_any_size(rng, size):
    X = rng.standard_normal((500, 4)) * size
    rows = Rows(X, None, 1)
    np.testing.assert_allclose((rows.working(slice(0, 500)) ** 2).sum(axis=1).mean(), 1, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 2999, 1500])
def test_what_is_not_finite_is_named(value, row):
    X = np.ones((3000, 3), np.float32)
    X[row, 1] = value
    with pytest.raises(ValueError, match=f"X contains NaN or infinity.*row {row}$"):
        check_finite(X, 2)
    with pytest.raises(ValueError, match=f"row {row}$"):
        Rows(X, None, 2)


def test_finite_values_whose_sum_overflows_are_finite():
    check_finite(np.full((100, 3), np.finfo(np.float64).max))
    check_finite(np.full((1000, 3), np.float16(60000)))


def test_no_spread():
    with pytest.raises(ValueError, match="all rows are equal"):
        Rows(np.full((100, 3), 0.1), None, 1)
    with pytest.raises(ValueError, match="all rows are equal"):
        Rows(np.zeros((5000, 3), np.float32), None, 1)
    Rows(np.array([[1e8, 1], [1e8, 2]]), None, 1)
    with pytest.raises(ValueError, match="overflow"):
        Rows(np.array([[1e200], [-1e200]]), None, 1)
    with pytest.raises(ValueError, match="underflow"):
        Rows(np.array([[1e-200], [-1e-200]]), None, 1)


@pytest.fixture
def trained(rng):
    rows = Rows(rng.standard_normal((2500, 6)), None, 2)
    rows.project(rng.standard_normal((6, 9)), rng.standard_normal(9))
    return rows


def test_sums(trained, rng):
    x = trained.working(slice(0, 2500)).astype(float)
    np.testing.assert_allclose(trained.gram(), x.T @ x, rtol=1e-5, atol=1e-3)
    V = rng.standard_normal((6, 2))
    np.testing.assert_allclose(trained.gram_times(V), x.T @ x @ V, rtol=1e-5, atol=1e-3)
    xt, total, squares = trained.cross(lambda b: np.sign(b))
    T = np.sign(trained.B).astype(float)
    np.testing.assert_allclose(xt, x.T @ T, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(total, T.sum(axis=0))
    np.testing.assert_allclose(squares, [T.size])


def test_projection_has_mean_size_one(trained):
    np.testing.assert_allclose(np.abs(trained.B).mean(), 1, rtol=1e-6)


def test_rotation_centres_and_keeps_distances(trained):
    before = trained.B.copy()
    mean, rotation = trained.rotate_towards_signs(np.arange(2500), "random", 10, np.random.RandomState(0))
    np.testing.assert_allclose(mean, before.mean(axis=0, dtype=float), atol=1e-6)
    np.testing.assert_allclose(trained.B, rotation(before - mean), atol=1e-6)
    np.testing.assert_allclose(trained.B.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(
        reference.g(trained.B[:5], trained.B[:50]), reference.g(before[:5], before[:50]), rtol=1e-4, atol=1e-5
    )


def test_random_codes_depend_on_the_seed_only(trained):
    trained.random_codes(9, 3)
    first = trained.B.copy()
    trained.n_threads = 1
    trained.random_codes(9, 3)
    assert (first == trained.B).all()
    trained.random_codes(9, 4)
    assert (first != trained.B).any()
    assert abs(first.std() - 1) < 0.02


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_what_is_not_finite_or_too_far_is_named_by_row(rng, dtype):
    X = rng.standard_normal((3000, 5)).astype(dtype)
    check_finite(X, 2, 100.0)
    for value, words in ((np.nan, "NaN"), (-np.nan, "NaN"), (np.inf, "NaN or infinity"), (-np.inf, "NaN or infinity")):
        for farthest in (np.inf, 100.0):
            bad = X.copy()
            bad[[2000, 2500], 3] = value
            with pytest.raises(ValueError, match=f"{words}.*first in row 2000"):
                check_finite(bad, 2, farthest)
    for value in (101, -101, np.finfo(dtype).max, np.finfo(dtype).min):
        bad = X.copy()
        bad[[2000, 2500], 3] = value
        check_finite(bad)
        with pytest.raises(ValueError, match=r"too far .* first in row 2000"):
            check_finite(bad, 2, 100.0)


@pytest.mark.parametrize("n_rows", [1, 3, 8, 9])
def test_every_set_of_rows_is_drawn_as_often(monkeypatch, n_rows):
    monkeypatch.setattr("aphash._learning.blocks._PERMUTED_ROWS", 0)
    rng = np.random.RandomState(0)
    counts = np.zeros(10, int)
    for _ in range(2000):
        rows = draw_rows(10, n_rows, rng)
        assert len(rows) == n_rows and (np.diff(rows) > 0).all() and rows[0] >= 0 and rows[-1] < 10
        counts[rows] += 1
    assert (abs(counts - 200 * n_rows) < 5 * np.sqrt(200 * n_rows)).all()


def test_rows_are_drawn_in_memory_of_the_sample_and_as_before_where_they_are_few():
    for n in (10, 1_000_000):
        expected = np.sort(np.random.RandomState(3).choice(n, n // 2, replace=False))
        np.testing.assert_array_equal(draw_rows(n, n // 2, np.random.RandomState(3)), expected)
    tracemalloc.start()
    rows = draw_rows(10**12, 100_000, np.random.RandomState(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * rows.nbytes and len(np.unique(rows)) == 100_000
    assert abs(rows.mean() / 10**12 - 0.5) < 0.01
