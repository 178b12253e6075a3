"""Rescoring against naive numpy: candidates by Hamming distance, then all in float64."""

import tracemalloc

import numpy as np
import pytest
from test_arrays import Capsule

from aphash import HammingIndex, VectorRescore, pack_codes
from aphash import rescore as rescore_module

N, D, BITS, QUERIES = 500, 24, 48, 7


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def data(rng):
    """Items, queries, projections of both."""
    X, queries = rng.standard_normal((N, D)), rng.standard_normal((QUERIES, D))
    W = rng.standard_normal((D, BITS))
    return X, queries, X @ W, queries @ W


def metric_of(name, x, q):
    if name == "l2":
        return np.sqrt(((x - q) ** 2).sum(-1))
    if name == "ip":
        return -(x * q).sum(-1)
    size = np.linalg.norm(x, axis=-1) * np.linalg.norm(q)
    return 1 - (x * q).sum(-1) / np.where(size > 0, size, 1)


def expected(distance_of, codes, ids, query_codes, k, factor):
    """The results of ``distance_of(query number, rows) -> float64`` over the candidates."""
    distances, found = [], []
    for i, query in enumerate(query_codes):
        hamming = np.bitwise_count(codes ^ query).sum(1)
        candidates = np.lexsort((ids, hamming))[: k * factor]
        finer = distance_of(i, candidates)
        order = np.lexsort((ids[candidates], finer))[:k]
        distances.append(finer[order])
        found.append(ids[candidates][order])
    return np.array(distances), np.array(found)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int8"])
@pytest.mark.parametrize("mapped", [False, True])
def test_vectors(data, tmp_path, metric, dtype, mapped):
    X, queries, Y, Z = data
    X = (X * 20).astype(dtype)
    X[3] = 0
    if mapped:
        np.save(tmp_path / "x.npy", X)
        X = np.load(tmp_path / "x.npy", mmap_mode="r")
    index = HammingIndex(BITS)
    index.add(pack_codes(Y))
    rescore = VectorRescore(X, metric=metric, factor=6)
    distances, ids = index.search(pack_codes(Z), 5, rescore=rescore, rescore_queries=queries)
    x = np.asarray(X, np.float64)
    wanted = expected(
        lambda i, rows: metric_of(metric, x[rows], queries[i]), index.codes, np.arange(N), pack_codes(Z), 5, 6
    )
    assert distances.dtype == np.float32 and ids.dtype == np.int64
    assert np.allclose(distances, wanted[0], rtol=1e-4, atol=1e-4)
    assert np.array_equal(ids, wanted[1])
    assert np.shares_memory(rescore.X, X), "the map was read in whole"


def test_all_candidates_make_an_exact_search(data):
    X, queries, Y, Z = data
    index = HammingIndex(BITS)
    index.add(pack_codes(Y))
    _, ids = index.search(pack_codes(Z), 5, rescore=VectorRescore(X, factor=N), rescore_queries=queries)
    exact = np.array([np.argsort(metric_of("l2", X, q))[:5] for q in queries])
    assert np.array_equal(ids, exact)


def test_float64_vectors_keep_their_precision(rng):
    """Differences of 1e-3 at an offset of 1e6: float32 cannot see them."""
    X = 1e6 + 1e-3 * np.arange(20.0)[:, None]
    index = HammingIndex(8)
    index.add(np.zeros((20, 1), np.uint64))
    distances, ids = index.search(np.zeros(1, np.uint64), 3, rescore=VectorRescore(X), rescore_queries=X[17])
    assert ids.tolist() == [17, 16, 18]
    assert np.allclose(distances, [0, 1e-3, 1e-3], atol=1e-6)


def test_rows_under_other_ids_and_a_filter(data, rng):
    X, queries, Y, Z = data
    ids = rng.permutation(N) * 7 - 900
    assert -1 not in ids
    index = HammingIndex(BITS)
    index.add(pack_codes(Y), ids)
    row_order = rng.permutation(N)
    rescore = VectorRescore(X[row_order], ids[row_order], factor=4)
    distances, found = index.search(pack_codes(Z), 5, rescore=rescore, rescore_queries=queries)
    wanted = expected(lambda i, rows: metric_of("l2", X[rows], queries[i]), pack_codes(Y), ids, pack_codes(Z), 5, 4)
    assert np.allclose(distances, wanted[0], rtol=1e-5) and np.array_equal(found, wanted[1])
    mask = rng.random(N) < 0.3
    distances, found = index.search(pack_codes(Z), 5, rescore=rescore, rescore_queries=queries, filter=mask)
    wanted = expected(
        lambda i, rows: metric_of("l2", X[mask][rows], queries[i]),
        pack_codes(Y)[mask],
        ids[mask],
        pack_codes(Z),
        5,
        4,
    )
    assert np.allclose(distances, wanted[0], rtol=1e-5) and np.array_equal(found, wanted[1])


@pytest.mark.parametrize("kind", ["codes", "weights"])
def test_padding_one_query_and_blocks(data, kind, monkeypatch):
    X, queries, Y, Z = data

    def search(rows, k):
        rescore = VectorRescore(X, np.arange(N))
        by = pack_codes(Z[rows]) if kind == "codes" else Z[rows]
        return index.search(by, k, rescore=rescore, rescore_queries=queries[rows])

    index = HammingIndex(BITS)
    distances, ids = search(slice(None), 4)
    assert (ids == -1).all() and np.isinf(distances).all() and ids.shape == (QUERIES, 4)
    index.add(pack_codes(Y[:3]))
    distances, ids = search(2, 5)
    assert distances.shape == ids.shape == (5,)
    assert sorted(ids[:3]) == [0, 1, 2] and np.isfinite(distances[:3]).all() and (np.diff(distances[:3]) >= 0).all()
    assert ids[3:].tolist() == [-1, -1] and np.isinf(distances[3:]).all()
    index.add(pack_codes(Y[3:]))
    whole = search(slice(None), 4)
    monkeypatch.setattr("aphash.index._MAX_CANDIDATES", 80)
    monkeypatch.setattr("aphash.rescore._CHUNK_BYTES", 1)
    blocks = search(slice(None), 4)
    assert np.array_equal(whole[1], blocks[1]) and np.allclose(whole[0], blocks[0], rtol=1e-6)


def test_bad_arguments(data):
    X, queries, Y, Z = data
    for arguments, error, message in [
        ({"X": X[0]}, ValueError, "X must"),
        ({"X": X[:0]}, ValueError, "X must"),
        ({"X": X.astype(str)}, ValueError, "X must"),
        ({"X": X + 1j}, ValueError, "X must"),
        ({"X": np.ma.masked_greater(X, 0)}, ValueError, "X has masked elements"),
        ({"X": [[1.0], None]}, ValueError, "row 1 is None"),
        ({"X": {1.0}}, TypeError, "got a set"),
        ({"metric": "euclidean"}, ValueError, "metric"),
        ({"metric": X[0]}, ValueError, "metric .* got an array of shape"),
        ({"factor": 0}, ValueError, "factor"),
        ({"factor": 1.5}, TypeError, "factor"),
        ({"ids": np.arange(3)}, ValueError, "ids must have shape"),
        ({"ids": np.zeros(N, int)}, ValueError, "twice"),
        ({"ids": queries}, TypeError, "queries go to search"),
        ({"ids": queries[0]}, TypeError, "queries go to search"),
    ]:
        with pytest.raises(error, match=message):
            VectorRescore(**{"X": X, **arguments})
    index = HammingIndex(BITS)
    index.add(pack_codes(Y))
    vectors = VectorRescore(X)
    for rescore, given, error, message in [
        (vectors, queries[:2], ValueError, "each of the 7 queries, got 2"),
        (vectors, queries[:, 1:], ValueError, "24 columns as X has, got 23"),
        (vectors, queries[None], ValueError, "rescore_queries must have shape"),
        (vectors, queries * np.nan, ValueError, "rescore_queries contains NaN"),
        (vectors, queries.astype(str), TypeError, "rescore_queries must be numbers"),
        (vectors, None, TypeError, "needs rescore_queries: the queries' vectors"),
        (None, queries, TypeError, "without rescore"),
        (VectorRescore(X[:100]), queries, ValueError, "100 rows, the index 500 codes: pass .* ids"),
        (VectorRescore(X[:100], np.arange(100)), queries, ValueError, "no row for id"),
        (VectorRescore(np.full_like(X, np.nan)), queries, ValueError, "X has NaN"),
        (X, queries, TypeError, "rescore must be"),
    ]:
        with pytest.raises(error, match=message):
            index.search(pack_codes(Z), 5, rescore=rescore, rescore_queries=given)


def test_without_ids_the_rows_must_be_those_of_the_index(data):
    """A row too many, or an index that does not count from 0: the wrong rows would be ranked in silence."""
    X, queries, Y, Z = data
    for rows, ids in (
        (X, np.arange(1, N)),
        (X[1:], np.arange(1, N)),
        (X[:-2], np.arange(N - 1)),
        (X[1:], np.r_[0 : N - 2, 10**6]),
    ):
        index = HammingIndex(BITS)
        index.add(pack_codes(Y[1:]), ids)
        with pytest.raises(ValueError, match=r"rows, the index .* codes"):
            index.search(pack_codes(Z), 5, rescore=VectorRescore(rows), rescore_queries=queries)
    index = HammingIndex(BITS)
    order = np.random.default_rng(0).permutation(N)
    index.add(pack_codes(Y[order]), order)  # in any order: row i is that of id i
    plain = HammingIndex(BITS)
    plain.add(pack_codes(Y))
    search = {"rescore": VectorRescore(X), "rescore_queries": queries}
    assert np.array_equal(index.search(pack_codes(Z), 5, **search)[1], plain.search(pack_codes(Z), 5, **search)[1])
    index.remove([N - 1])
    with pytest.raises(ValueError, match="500 rows, the index 499 codes"):
        index.search(pack_codes(Z), 5, **search)
    assert len(index.search(pack_codes(Z), 5, rescore=VectorRescore(X[:-1]), rescore_queries=queries)[0]) == QUERIES


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1.0, 1e25, 1e-25, 1e-37])
def test_cosine_distances_are_those_of_any_size(rng, dtype, size):
    V = rng.standard_normal((60, 64))
    V[1] = -V[0]
    V[2] = 3 * V[0]
    V[3] = 0
    X = (V * size).astype(dtype)
    index = HammingIndex(8)
    index.add(np.zeros((60, 1), np.uint64))
    rescore = VectorRescore(X, metric="cosine", factor=60)
    found = np.empty((60, 60))
    distances, ids = index.search(np.zeros((60, 1), np.uint64), 60, rescore=rescore, rescore_queries=X)
    np.put_along_axis(found, ids, distances, axis=1)
    assert found.min() == 0 and 2 - 1e-6 < found.max() <= 2
    assert (np.diag(found)[4:] == 0).all() and found[3, 3] == found[3, 5] == 1
    assert found[0, 2] < 1e-13 and found[0, 1] > 2 - 1e-6
    assert np.array_equal(found, found.T)
    exact = X.astype(np.longdouble) / size
    norms = np.sqrt((exact**2).sum(1))
    norms[3] = 1
    assert np.allclose(found, (1 - exact @ exact.T / norms / norms[:, None]).astype(float), atol=1e-6)


@pytest.mark.parametrize("size", [1e-25, 1e-18, 1e18, 1e25])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_other_distances_of_any_size(data, size, metric):
    X, queries, Y, Z = data
    if metric == "ip":
        size **= 0.5
    index = HammingIndex(BITS)
    index.add(pack_codes(Y))
    plain = index.search(pack_codes(Z), 5, rescore=VectorRescore(X, metric=metric), rescore_queries=queries)
    scaled = VectorRescore((X * size).astype(np.float32), metric=metric)
    found = index.search(pack_codes(Z), 5, rescore=scaled, rescore_queries=(queries * size).astype(np.float32))
    assert np.array_equal(found[1], plain[1])
    assert np.allclose(found[0] / (size if metric == "l2" else size * size), plain[0], rtol=1e-4)


class Counting:
    """A dataset of h5py that notes how many rows were read at most at once, and in all."""

    def __init__(self, dataset):
        self.dataset, self.most, self.all = dataset, 0, 0

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def __getitem__(self, rows):
        found = self.dataset[rows]
        self.most, self.all = max(self.most, len(found)), self.all + len(found)
        return found


@pytest.mark.parametrize("kind", ["map", "h5py", "zarr", "dlpack", "list", "dask"])
def test_vectors_are_read_by_rows_wherever_they_are(tmp_path, rng, kind):
    X = rng.standard_normal((20_000, 256)).astype(np.float32)
    W, queries = rng.standard_normal((256, BITS)), X[[7, 19_999]] + 0.01
    codes = pack_codes(X @ W)
    index = HammingIndex(BITS)
    index.add(codes)
    expected = index.search(codes[[7, 19_999]], 3, rescore=VectorRescore(X), rescore_queries=queries)
    assert expected[1][:, 0].tolist() == [7, 19_999]
    if kind == "map":
        np.save(tmp_path / "x.npy", X)
        vectors = np.load(tmp_path / "x.npy", mmap_mode="r")
    elif kind == "h5py":
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        file = h5py.File(tmp_path / "x.h5", "w")
        vectors = Counting(file.create_dataset("x", data=X))
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr", reason="zarr is not installed")
        vectors = zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(100, 256))
    elif kind == "dask":
        vectors = pytest.importorskip("dask.array", reason="dask is not installed").from_array(X, chunks=(500, -1))
    elif kind == "list":
        vectors = X.tolist()
    else:
        vectors = Capsule(X)
    rescore = VectorRescore(vectors)
    tracemalloc.start()
    found = index.search(codes[[7, 19_999]], 3, rescore=rescore, rescore_queries=queries)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)  # a list is float64
    if kind not in ("dask", "zarr"):  # they note their own memory, of chunks
        assert peak < 2_000_000
    if kind == "h5py":
        assert vectors.all < 1500
        monkeypatched = rescore_module._GAP_BYTES, rescore_module._CHUNK_BYTES
        rescore_module._GAP_BYTES, rescore_module._CHUNK_BYTES = 1 << 30, 50 * 1024
        try:
            vectors.most = 0
            rows = np.arange(0, 20_000, 3)
            assert np.array_equal(rescore_module._read_rows(vectors, rows), X[rows]) and vectors.most <= 50
        finally:
            rescore_module._GAP_BYTES, rescore_module._CHUNK_BYTES = monkeypatched
        file.close()


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("scale", [1e-30, 1e-43, 1e-12, 1e15])
def test_distances_that_float32_cannot_hold_apart_are_ranked(data, metric, scale):
    X, queries, Y, Z = data
    X, queries = X * scale, queries * scale
    codes, index = pack_codes(Y), HammingIndex(BITS)
    index.add(codes)
    found = index.search(pack_codes(Z), 5, rescore=VectorRescore(X, metric=metric), rescore_queries=queries)
    distances, ids = expected(
        lambda i, rows: metric_of(metric, X[rows], queries[i]), codes, np.arange(N), pack_codes(Z), 5, 10
    )
    np.testing.assert_array_equal(found[1], ids)
    np.testing.assert_array_equal(found[0], distances.astype(np.float32))


@pytest.mark.parametrize("levels", [2, 5, 10**6])
@pytest.mark.parametrize(("c", "k"), [(1, 1), (50, 10), (50, 50), (50, 60)])
def test_reranking_is_sorting_all_candidates(levels, c, k):
    rng = np.random.default_rng(0)
    distances = rng.integers(levels, size=(30, c)).astype(float)  # of two levels most of the last ones tie
    ids = np.stack([rng.permutation(1000)[:c] for _ in range(30)])
    ids[ids % 7 == 0] = -1
    distances[ids == -1] = np.inf
    order = np.lexsort((ids, distances), axis=1)[:, :k]
    near, found = rescore_module.rerank(ids, distances, k)
    assert np.array_equal(near, np.take_along_axis(distances, order, axis=1))
    assert np.array_equal(found, np.take_along_axis(ids, order, axis=1))
    assert rescore_module.rerank(ids[:0], distances[:0], k)[1].shape == (0, min(c, k))
