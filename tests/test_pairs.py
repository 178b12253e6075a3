"""pairs, groups and knn_graph against naive numpy, by every way of finding them."""

import weakref

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from aphash import HammingIndex, pack_codes, unpack_codes
from aphash._searching import pairs
from aphash._searching.filters import positions_of


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def near_duplicates(rng, n, n_bits, flips=3):
    """Codes around a few centres, so that there are pairs at every small distance."""
    bits = rng.random((max(1, n // 5), n_bits))[rng.integers(0, max(1, n // 5), n)] < 0.5
    for _ in range(flips):
        bits[np.arange(n), rng.integers(0, n_bits, n)] ^= rng.random(n) < 0.5
    return pack_codes(bits)


def copies(rng, n, n_bits, n_distinct=12):
    """Few codes, near each other, each several times: one of them a third of all."""
    bits = rng.random((1, n_bits)) < np.full((n_distinct, n_bits), 0.5)
    bits[np.arange(n_distinct), rng.integers(0, n_bits, n_distinct)] ^= True
    return pack_codes(bits)[np.maximum(0, rng.integers(-n_distinct // 2, n_distinct, n))]


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
    i, j = np.nonzero(near)
    low, high = np.minimum(ids[i], ids[j]), np.maximum(ids[i], ids[j])
    return set(zip(low.tolist(), high.tolist(), d[i, j].tolist()))


@pytest.fixture(params=["stream", "tiles", "few equal"])
def way(request, monkeypatch):
    """Distinct codes by spans, or by scans; or all by spans, as where few are equal."""
    monkeypatch.setattr("aphash._searching.pairs.COMPARE_COST", np.inf if request.param == "tiles" else 0.0)
    monkeypatch.setattr("aphash._searching.pairs._TILE_CODES", 512)
    monkeypatch.setattr("aphash._searching.pairs._EQUAL_PAIRS", 1 << 40 if request.param == "few equal" else 0)
    return request.param


MAKERS = {
    "near": near_duplicates,
    "copies": copies,
    "equal": lambda rng, n, n_bits: np.zeros((n, -(-n_bits // 64)), np.uint64),
    "different": lambda rng, n, n_bits: np.unique(near_duplicates(rng, 2 * n, n_bits), axis=0)[:n],
}


@pytest.fixture(params=MAKERS)
def make(request):
    """A maker of codes, also of none."""

    def made(rng, n, n_bits):
        return MAKERS[request.param](rng, n, n_bits) if n else np.zeros((0, -(-n_bits // 64)), np.uint64)

    return made


@pytest.fixture(params=["hashes", "one hash"])
def hashes(request, monkeypatch):
    """Different codes that share a hash are different all the same."""
    if request.param == "one hash":
        hashes = pairs._hashes
        shift = {True: np.uint64(0), False: np.uint64(62)}  # a code of one word is its own hash
        monkeypatch.setattr(pairs, "_hashes", lambda snapshot, *a: hashes(snapshot, *a) >> shift[snapshot.n_words == 1])
    monkeypatch.setattr(pairs, "_HASHED_BYTES", 1 << 10)
    return request.param


def test_different_codes_have_different_hashes(rng):
    """Also those that differ in one bit, or in the highest bits of two words."""
    bits = np.concatenate([np.eye(256, dtype=bool), np.eye(256, dtype=bool) | np.eye(256, k=64, dtype=bool)])
    bits = np.concatenate([bits, np.zeros((1, 256), bool), ~bits])
    index = HammingIndex(256)
    index.add(np.unique(pack_codes(bits), axis=0))
    assert len(np.unique(pairs._hashes(index._store.present))) == len(index)


@pytest.mark.parametrize("n_bits, n", [(9, 300), (64, 0), (64, 1), (64, 2), (64, 63), (64, 64), (64, 65), (130, 300)])
def test_pairs(rng, way, make, n_bits, n):
    codes = make(rng, n, n_bits)
    n = len(codes)
    index, ids = index_of(rng, codes, n_bits)
    mask = rng.random(n) < 0.5
    for radius in (0, 1, 3, n_bits):
        assert as_set(index.pairs(radius)) == naive_pairs(codes, ids, radius)
        for filter in (mask, ids[mask]):
            assert as_set(index.pairs(radius, filter=filter)) == naive_pairs(codes, ids, radius, mask)


def test_pairs_come_in_blocks_of_bounded_size(rng, way, monkeypatch):
    monkeypatch.setattr("aphash._searching.pairs._CHUNK_PAIRS", 100)
    n = 700
    index = HammingIndex(64)
    index.add(np.zeros((n, 1), np.uint64))  # all equal: 244,650 pairs
    blocks = list(index.pairs(1, n_jobs=2))
    sizes = [len(d) for _, _, d in blocks]
    assert sum(sizes) == n * (n - 1) // 2 and len(blocks) > 2
    assert max(sizes) <= 100 + (1 << 16 if way == "few equal" else 100)
    assert all(size >= 100 for size in sizes[:-1])
    for i, j, d in blocks:
        assert i.dtype == j.dtype == np.int64 and d.dtype == np.int32
        assert (i < j).all() and (d == 0).all()


def test_the_cheaper_way_is_taken(rng, monkeypatch):
    calls = []
    monkeypatch.setattr("aphash._searching.pairs._tiles", lambda *a: calls.append(a) or iter(()))
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


def test_pairs_of_codes_that_share_a_hash(rng, hashes):
    for codes in (copies(rng, 100, 130), near_duplicates(rng, 100, 130)):
        index, ids = index_of(rng, codes, 130)
        mask = rng.random(100) < 0.5
        assert as_set(index.pairs(2)) == naive_pairs(codes, ids, 2)
        assert as_set(index.pairs(2, filter=mask)) == naive_pairs(codes, ids, 2, mask)


@pytest.mark.parametrize("block", [7, 1 << 16])
def test_pairs_of_many_copies_in_small_blocks(rng, way, block, monkeypatch):
    """Every place where a block can end, among the copies of one code and among those of two."""
    monkeypatch.setattr("aphash._searching.pairs._CHUNK_PAIRS", block)
    codes = copies(rng, 90, 64)
    index, ids = index_of(rng, codes, 64)
    blocks = list(index.pairs(2))
    assert as_set(blocks) == naive_pairs(codes, ids, 2)
    if way != "few equal":
        assert max(len(d) for _, _, d in blocks) < 2 * block


def naive_groups(codes, ids, radius):
    order = np.argsort(ids)
    labels = connected_components(all_distances(codes[order]) <= radius, directed=False)[1]
    first = {}
    return ids[order].tolist(), [first.setdefault(label, len(first)) for label in labels.tolist()]


@pytest.mark.parametrize("block", [7, 1 << 16])
def test_groups(rng, way, make, hashes, block, monkeypatch):
    monkeypatch.setattr("aphash._searching.pairs._CHUNK_PAIRS", block)
    for n, n_bits in ((0, 64), (1, 64), (90, 64), (300 if block > 7 else 90, 130)):
        codes = make(rng, n, n_bits)
        index, ids = index_of(rng, codes, n_bits)
        mask = rng.random(len(codes)) < 0.5
        for radius in (0, 1, 2):
            for filter, part in ((None, slice(None)), (mask, mask), (ids[mask], mask), (~mask | True, slice(None))):
                found, labels = index.groups(radius, filter=filter)
                assert found.dtype == labels.dtype == np.int64
                if n:
                    assert (found.tolist(), labels.tolist()) == naive_groups(codes[part], ids[part], radius)
                else:
                    assert found.shape == labels.shape == (0,)


def test_groups_after_changes(rng):
    """They are numbered by ids, wherever a removal has moved the codes."""
    codes = copies(rng, 200, 64)
    index = HammingIndex(64)
    index.add(codes)
    index.remove(np.arange(0, 200, 3))
    assert not index._store.present.ascending
    stay = np.flatnonzero(np.arange(200) % 3)
    found, labels = index.groups(1)
    assert (found.tolist(), labels.tolist()) == naive_groups(codes[stay], stay, 1)


@pytest.mark.parametrize("n, k", [(0, 3), (1, 3), (2, 5), (120, 1), (120, 7), (120, 119), (120, 500)])
@pytest.mark.parametrize("candidates", [64, 1 << 20])
def test_knn_graph(rng, make, n, k, candidates, monkeypatch):
    monkeypatch.setattr("aphash._searching.pairs._CANDIDATES", candidates)
    codes = make(rng, n, 130)
    n = len(codes)
    index, ids = index_of(rng, codes, 130)
    order = np.argsort(ids)
    d = all_distances(codes[order])
    for share in (None, 0.1, np.inf):
        if share is not None:
            index.build_lookup(max_scan_fraction=share)
        found, graph = index.knn_graph(k)
        assert found.dtype == np.int64 and found.tolist() == ids[order].tolist()
        assert graph.shape == (n, n) and graph.dtype == np.int32
        nearest = np.argsort(d + 1000 * np.eye(n, dtype=np.int32), axis=1, kind="stable")[:, : min(k, n - 1)]
        assert np.array_equal(np.diff(graph.indptr), np.full(n, nearest.shape[1]))
        assert np.array_equal(graph.indices.reshape(nearest.shape), nearest)
        assert np.array_equal(graph.data.reshape(nearest.shape), np.take_along_axis(d, nearest, axis=1))


def test_equal_codes_are_not_compared(rng, monkeypatch):
    """Whatever compares codes sees each once."""
    seen = []

    class Stream(pairs._search.PairStream):
        def __init__(self, snapshot, radius, filter):
            seen.append(positions_of(filter, len(snapshot)))
            super().__init__(snapshot, radius, filter)

    def search(snapshot, queries, k, filter, n_threads):
        seen.append(queries)
        return search_all(snapshot, queries, k, filter, n_threads)

    search_all = pairs._search.search
    monkeypatch.setattr(pairs._search, "PairStream", Stream)
    monkeypatch.setattr(pairs._search, "search", search)
    index = HammingIndex(64)
    index.add(rng.permutation(np.repeat(near_duplicates(rng, 3, 64, 0)[:1] ^ np.uint64([[0], [1], [6]]), 500, axis=0)))
    assert sum(len(d) for _, _, d in index.pairs(1)) == 3 * 500 * 499 // 2 + 500**2
    assert np.bincount(index.groups(1)[1]).tolist() in ([1000, 500], [500, 1000])
    index.knn_graph(5)
    assert [len(each) for each in seen] == [3, 3, 3]


def test_groups_of_real_images(digits):
    """Each image twice, the second with one bit flipped: every group holds both."""
    X, _ = digits
    codes = pack_codes(X[:300] - X.mean())
    flipped = unpack_codes(codes, 64)
    flipped[:, 5] ^= True
    index = HammingIndex(64)
    index.add(np.concatenate([codes, pack_codes(flipped)]))
    _, labels = index.groups(1)
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
            call(1, filter=np.ones(3, bool))
    with pytest.raises(ValueError, match="k must"):
        index.knn_graph(0)
