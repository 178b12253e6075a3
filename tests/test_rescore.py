"""Rescoring against naive numpy: candidates by Hamming distance, then all in float64."""

import numpy as np
import pytest

from aphash import HammingIndex, ProjectionRescore, VectorRescore, pack_codes, unpack_codes

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
    rescore = VectorRescore(X, queries, metric=metric, factor=6)
    distances, ids = index.search(pack_codes(Z), 5, rescore=rescore)
    x = np.asarray(X, np.float64)
    wanted = expected(
        lambda i, rows: metric_of(metric, x[rows], queries[i]), index.codes, np.arange(N), pack_codes(Z), 5, 6
    )
    assert distances.dtype == np.float32 and ids.dtype == np.int64
    assert np.allclose(distances, wanted[0], rtol=1e-4, atol=1e-4)
    assert np.array_equal(ids, wanted[1])
    assert isinstance(rescore.X, np.memmap) == mapped, "the map was read in whole"


def test_all_candidates_make_an_exact_search(data):
    X, queries, Y, Z = data
    index = HammingIndex(BITS)
    index.add(pack_codes(Y))
    _, ids = index.search(pack_codes(Z), 5, rescore=VectorRescore(X, queries, factor=N))
    exact = np.array([np.argsort(metric_of("l2", X, q))[:5] for q in queries])
    assert np.array_equal(ids, exact)


def test_float64_vectors_keep_their_precision(rng):
    """Differences of 1e-3 at an offset of 1e6: float32 cannot see them."""
    X = 1e6 + 1e-3 * np.arange(20.0)[:, None]
    index = HammingIndex(8)
    index.add(np.zeros((20, 1), np.uint64))
    distances, ids = index.search(np.zeros(1, np.uint64), 3, rescore=VectorRescore(X, X[17]))
    assert ids.tolist() == [17, 16, 18]
    assert np.allclose(distances, [0, 1e-3, 1e-3], atol=1e-6)


def test_rows_under_other_ids_and_a_filter(data, rng):
    X, queries, Y, Z = data
    ids = rng.permutation(N) * 7 - 900
    assert -1 not in ids
    index = HammingIndex(BITS)
    index.add(pack_codes(Y), ids)
    row_order = rng.permutation(N)
    rescore = VectorRescore(X[row_order], queries, ids=ids[row_order], factor=4)
    distances, found = index.search(pack_codes(Z), 5, rescore=rescore)
    wanted = expected(lambda i, rows: metric_of("l2", X[rows], queries[i]), pack_codes(Y), ids, pack_codes(Z), 5, 4)
    assert np.allclose(distances, wanted[0], rtol=1e-5) and np.array_equal(found, wanted[1])
    mask = rng.random(N) < 0.3
    distances, found = index.search(pack_codes(Z), 5, rescore=rescore, filter=mask)
    wanted = expected(
        lambda i, rows: metric_of("l2", X[mask][rows], queries[i]),
        pack_codes(Y)[mask],
        ids[mask],
        pack_codes(Z),
        5,
        4,
    )
    assert np.allclose(distances, wanted[0], rtol=1e-5) and np.array_equal(found, wanted[1])


def test_projections(data):
    _, _, Y, Z = data
    Z[0] = -np.abs(Z[0])
    codes = pack_codes(Y)
    index = HammingIndex(BITS)
    index.add(codes)
    distances, ids = index.search(pack_codes(Z), 5, rescore=ProjectionRescore(Z, factor=6))
    bits = unpack_codes(codes, BITS)
    wanted = expected(
        lambda i, rows: (np.abs(Z[i]) * (bits[rows] != (Z[i] >= 0))).sum(1), codes, np.arange(N), pack_codes(Z), 5, 6
    )
    assert distances.dtype == np.float32
    assert np.allclose(distances, wanted[0], rtol=1e-4, atol=1e-4)
    assert np.array_equal(ids, wanted[1])


@pytest.mark.parametrize("kind", ["vectors", "projections"])
def test_padding_one_query_and_blocks(data, kind, monkeypatch):
    X, queries, Y, Z = data
    make = (
        (lambda rows: VectorRescore(X, queries[rows]))
        if kind == "vectors"
        else (lambda rows: ProjectionRescore(Z[rows]))
    )
    index = HammingIndex(BITS)
    distances, ids = index.search(pack_codes(Z), 4, rescore=make(slice(None)))
    assert (ids == -1).all() and np.isinf(distances).all() and ids.shape == (QUERIES, 4)
    index.add(pack_codes(Y[:3]))
    distances, ids = index.search(pack_codes(Z[2]), 5, rescore=make(2))
    assert distances.shape == ids.shape == (5,)
    assert sorted(ids[:3]) == [0, 1, 2] and np.isfinite(distances[:3]).all() and (np.diff(distances[:3]) >= 0).all()
    assert ids[3:].tolist() == [-1, -1] and np.isinf(distances[3:]).all()
    index.add(pack_codes(Y[3:]))
    whole = index.search(pack_codes(Z), 4, rescore=make(slice(None)))
    monkeypatch.setattr("aphash.index._MOST_CANDIDATES", 80)
    monkeypatch.setattr("aphash.rescore._BLOCK_BYTES", 1)
    blocks = index.search(pack_codes(Z), 4, rescore=make(slice(None)))
    assert np.array_equal(whole[1], blocks[1]) and np.allclose(whole[0], blocks[0], rtol=1e-6)


def test_bad_arguments(data):
    X, queries, Y, Z = data
    for arguments, error, message in [
        ({"X": X[0]}, ValueError, "X must"),
        ({"X": X[:0]}, ValueError, "X must"),
        ({"X": X.astype(str)}, ValueError, "X must"),
        ({"queries": queries[:, 1:]}, ValueError, "columns"),
        ({"queries": queries[None]}, ValueError, "queries must"),
        ({"queries": queries * np.nan}, ValueError, "queries contains"),
        ({"metric": "euclidean"}, ValueError, "metric"),
        ({"factor": 0}, ValueError, "factor"),
        ({"factor": 1.5}, TypeError, "factor"),
        ({"ids": np.arange(3)}, ValueError, "ids must have shape"),
        ({"ids": np.zeros(N, int)}, ValueError, "twice"),
    ]:
        with pytest.raises(error, match=message):
            VectorRescore(**{"X": X, "queries": queries, **arguments})
    with pytest.raises(ValueError, match="projections"):
        ProjectionRescore(Z * np.inf)
    with pytest.raises(TypeError, match="factor"):
        ProjectionRescore(Z, factor=True)
    index = HammingIndex(BITS)
    index.add(pack_codes(Y))
    for rescore, error, message in [
        (VectorRescore(X, queries[:2]), ValueError, "2 queries, the search has 7"),
        (ProjectionRescore(Z[:2]), ValueError, "2 queries, the search has 7"),
        (ProjectionRescore(Z[:, :-1]), ValueError, "n_bits=48"),
        (VectorRescore(X[:100], queries), ValueError, "no row for id"),
        (VectorRescore(np.full_like(X, np.nan), queries), ValueError, "NaN"),
        (X, TypeError, "rescore must be"),
    ]:
        with pytest.raises(error, match=message):
            index.search(pack_codes(Z), 5, rescore=rescore)
