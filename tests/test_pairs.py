"""pairs, groups and knn_graph against naive numpy, by every way of finding them."""

import weakref

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from aphash import HammingIndex, pack_codes, unpack_codes


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def near_duplicates(rng, n, n_bits, flips=3):
    """Codes around a few centres, so that there are pairs at every small distance."""
    bits = rng.random((max(1, n // 5), n_bits))[rng.integers(0, max(1, n // 5), n)] < 0.5
    for _ in range(flips):
        bits[np.arange(n), rng.integers(0, n_bits, n)] ^= rng.random(n) < 0.5
    return pack_codes(bits)


def all_distances(codes):
    return np.bitwise_count(codes[:, None] ^ codes[None]).sum(2).astype(np.int32)


def index_of(rng, codes, n_bits):
    ids = rng.permutation(10 * len(codes))[: len(codes)] - 5 * len(codes)
    ids[ids == -1] = 10**12
    index = HammingIndex(n_bits)
    index.add(codes, ids)
    return index, ids


def as_set(blocks):
    found = [pair for i, j, d in blocks for pair in zip(i.tolist(), j.tolist(), d.tolist())]
    assert len(set(found)) == len(found), "a pair came twice"
    return set(found)


def naive_pairs(codes, ids, radius, mask=None):
    d = all_distances(codes)
    near = np.triu(d <= radius, 1)
    if mask is not None:
        near &= mask[:, None] & mask
    return {(min(ids[i], ids[j]), max(ids[i], ids[j]), d[i, j]) for i, j in zip(*np.nonzero(near))}


@pytest.fixture(params=["stream", "tiles"])
def way(request, monkeypatch):
    monkeypatch.setattr("aphash._pairs.COMPARE_COST", 0.0 if request.param == "stream" else np.inf)
    monkeypatch.setattr("aphash._pairs._TILE_CODES", 512)
    return request.param


@pytest.mark.parametrize("n_bits", [9, 64, 130])
@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 300])
def test_pairs(rng, way, n_bits, n):
    codes = near_duplicates(rng, n, n_bits) if n else np.zeros((0, -(-n_bits // 64)), np.uint64)
    index, ids = index_of(rng, codes, n_bits)
    mask = rng.random(n) < 0.5
    for radius in (0, 1, 3, n_bits):
        assert as_set(index.pairs(radius)) == naive_pairs(codes, ids, radius)
        for filter in (mask, ids[mask]):
            assert as_set(index.pairs(radius, filter=filter)) == naive_pairs(codes, ids, radius, mask)


def test_pairs_come_in_blocks_of_bounded_size(rng, way, monkeypatch):
    monkeypatch.setattr("aphash._pairs._BLOCK", 100)
    n = 700
    index = HammingIndex(64)
    index.add(np.zeros((n, 1), np.uint64))  # all equal: 244,650 pairs
    blocks = list(index.pairs(1, n_jobs=2))
    sizes = [len(d) for _, _, d in blocks]
    assert sum(sizes) == n * (n - 1) // 2 and len(blocks) > 2
    assert max(sizes) <= 100 + (1 << 16 if way == "stream" else 64 * 512)
    assert all(size >= 100 for size in sizes[:-1])
    for i, j, d in blocks:
        assert i.dtype == j.dtype == np.int64 and d.dtype == np.int32
        assert (i < j).all() and (d == 0).all()


def test_the_cheaper_way_is_taken(rng, monkeypatch):
    calls = []
    monkeypatch.setattr("aphash._pairs._tiles", lambda *a: calls.append(a) or iter(()))
    index = HammingIndex(64)
    index.add(pack_codes(rng.standard_normal((20_000, 64))))
    list(index.pairs(2))
    assert not calls
    list(index.pairs(30))
    list(index.pairs(64))
    assert len(calls) == 2


def test_pairs_of_an_index_that_changes(rng, way):
    """The pairs are those of the index at the call."""
    codes = near_duplicates(rng, 1200, 64)
    index, ids = index_of(rng, codes, 64)
    expected = naive_pairs(codes, ids, 2)
    blocks = index.pairs(2)
    index.update(np.zeros((600, 1), np.uint64), ids[::2])
    index.remove(ids[1::2])
    index.add(np.zeros((900, 1), np.uint64))
    assert as_set(blocks) == expected


def test_pairs_keep_no_pages_once_they_are_closed(rng, way):
    index, _ = index_of(rng, near_duplicates(rng, 600, 64), 64)
    for end in (list, lambda blocks: blocks.close(), lambda blocks: (next(blocks), blocks.close())):
        before = weakref.ref(index._store.present)
        blocks = index.pairs(2)
        index.add(np.zeros((1, 1), np.uint64))
        assert before() is not None
        end(blocks)
        assert before() is None


def test_progress_bar(rng, way, capsys):
    index = HammingIndex(64)
    index.add(pack_codes(rng.standard_normal((500, 64))))
    list(index.pairs(2, verbose=1))
    assert "pairs: 100%" in capsys.readouterr().err
    list(index.pairs(2))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("block", [7, 1 << 16])
def test_groups(rng, way, block, monkeypatch):
    monkeypatch.setattr("aphash._pairs._BLOCK", block)
    for n in (0, 1, 400):
        codes = near_duplicates(rng, n, 64) if n else np.zeros((0, 1), np.uint64)
        index, _ = index_of(rng, codes, 64)
        for radius in (0, 2):
            labels = index.groups(radius)
            assert labels.shape == (n,) and labels.dtype == np.int64
            if not n:
                continue
            expected = connected_components(all_distances(codes) <= radius, directed=False)[1]
            first = {}
            assert labels.tolist() == [first.setdefault(label, len(first)) for label in expected.tolist()]


@pytest.mark.parametrize("n, k", [(0, 3), (1, 3), (2, 5), (300, 1), (300, 7)])
@pytest.mark.parametrize("equal", [False, True])
def test_knn_graph(rng, n, k, equal):
    codes = near_duplicates(rng, n, 64) if n and not equal else np.zeros((n, 1), np.uint64)
    index, ids = index_of(rng, codes, 64)
    graph = index.knn_graph(k)
    assert graph.shape == (n, n) and graph.dtype == np.int32
    d = all_distances(codes)
    for i in range(n):
        order = np.lexsort((ids, d[i]))
        order = order[order != i][:k]
        row = slice(graph.indptr[i], graph.indptr[i + 1])
        assert graph.indices[row].tolist() == order.tolist()
        assert graph.data[row].tolist() == d[i, order].tolist()


def test_groups_of_real_images(digits):
    """Each image twice, the second with one bit flipped: every group holds both."""
    X, _ = digits
    codes = pack_codes(X[:300] - X.mean())
    flipped = unpack_codes(codes, 64)
    flipped[:, 5] ^= True
    index = HammingIndex(64)
    index.add(np.concatenate([codes, pack_codes(flipped)]))
    labels = index.groups(1)
    assert np.array_equal(labels[:300], labels[300:]) and len(np.unique(labels)) > 250


def test_bad_arguments(rng):
    index = HammingIndex(64)
    index.add(pack_codes(rng.standard_normal((5, 64))))
    for call in (index.pairs, index.groups):
        with pytest.raises(ValueError, match="radius"):
            call(-1)
        with pytest.raises(TypeError, match="radius"):
            call(1.5)
        with pytest.raises(ValueError, match="n_jobs"):
            call(1, n_jobs=0)
    with pytest.raises(ValueError, match="filter"):
        index.pairs(1, filter=np.ones(3, bool))
    with pytest.raises(ValueError, match="k must"):
        index.knn_graph(0)
