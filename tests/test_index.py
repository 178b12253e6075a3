"""HammingIndex: what a user sees. The kernels have their own tests in test_search.py."""

import copy
import pickle
import threading
import weakref

import numpy as np
import pytest

from aphash import APHash, Filter, HammingIndex, pack_codes
from aphash.index import PAD_DISTANCE, PAD_ID


def random_codes(rng, n, n_bits):
    return pack_codes(rng.standard_normal((n, n_bits)))


def brute(codes, ids, queries, k):
    d = np.bitwise_count(codes[None] ^ queries[:, None]).sum(2).astype(np.int32)
    order = np.stack([np.lexsort((ids, row)) for row in d])[:, :k]
    return np.take_along_axis(d, order, 1), ids[order]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n_bits", [1, 7, 63, 64, 65, 127, 128, 256])
def test_search_against_brute_force(rng, n_bits):
    codes, queries = random_codes(rng, 700, n_bits), random_codes(rng, 9, n_bits)
    ids = rng.permutation(10_000)[:700] - 5_000
    ids[ids == -1] = 70_000
    index = HammingIndex(n_bits)
    assert np.array_equal(index.add(codes[:300], ids[:300]), ids[:300])
    index.add(codes[300:], ids[300:])
    assert len(index) == 700
    assert np.array_equal(index.codes, codes)
    assert np.array_equal(index.ids, ids)
    distances, found = index.search(queries, 20)
    expected = brute(codes, ids, queries, 20)
    assert distances.dtype == np.int32 and found.dtype == np.int64
    assert np.array_equal(distances, expected[0])
    assert np.array_equal(found, expected[1])
    offsets, d, i = index.radius_search(queries, n_bits // 2)
    all_distances, all_ids = brute(codes, ids, queries, 700)
    for q in range(9):
        inside = all_distances[q] <= n_bits // 2
        assert np.array_equal(d[offsets[q] : offsets[q + 1]], all_distances[q][inside])
        assert np.array_equal(i[offsets[q] : offsets[q + 1]], all_ids[q][inside])


def test_padding_and_single_queries(rng):
    index = HammingIndex(64)
    codes = random_codes(rng, 3, 64)
    distances, ids = index.search(codes, 2)
    assert (distances == PAD_DISTANCE).all() and (ids == PAD_ID).all()
    index.add(codes)
    distances, ids = index.search(codes[1], 5)
    assert distances.shape == ids.shape == (5,)
    assert ids[0] == 1 and distances[0] == 0
    assert (ids[3:] == -1).all() and (distances[3:] == np.iinfo(np.int32).max).all()
    offsets, distances, ids = index.radius_search(codes[1], 0)
    assert offsets.tolist() == [0, 1] and ids.tolist() == [1] and distances.tolist() == [0]


def test_ids_are_counted_on(rng):
    index = HammingIndex(8)
    assert index.add(random_codes(rng, 2, 8)).tolist() == [0, 1]
    index.add(random_codes(rng, 1, 8), [100])
    assert index.add(random_codes(rng, 2, 8)).tolist() == [101, 102]
    index = HammingIndex(8)
    index.add(random_codes(rng, 1, 8), [-7])
    assert index.add(random_codes(rng, 1, 8)).tolist() == [0]
    index.remove(0)
    assert index.add(random_codes(rng, 1, 8)).tolist() == [1], "a removed id came back"
    index.add(random_codes(rng, 1, 8), [2**63 - 1])
    with pytest.raises(ValueError, match="counted on"):
        index.add(random_codes(rng, 1, 8))
    assert sorted(index.ids.tolist()) == [-7, 1, 2**63 - 1]


def test_remove(rng):
    codes = random_codes(rng, 50, 64)
    index = HammingIndex(64)
    index.add(codes)
    index.remove(np.arange(0, 50, 3))
    left = np.setdiff1d(np.arange(50), np.arange(0, 50, 3))
    assert sorted(index.ids.tolist()) == left.tolist()
    assert np.array_equal(index.search(codes, 5)[1], brute(codes[left], left, codes, 5)[1])
    with pytest.raises(KeyError, match="3, 6"):
        index.remove([1, 3, 6])
    assert len(index) == len(left)
    index.add(codes[:1], [0])
    assert index.search(codes[0], 1)[1][0] == 0


@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_filters(rng, order):
    n = 3_000
    codes, queries = random_codes(rng, n, 64), random_codes(rng, 12, 64)
    ids = np.arange(n) * 3
    if order == "shuffled":
        rng.shuffle(ids)
    index = HammingIndex(64)
    index.add(codes, ids)
    for share in (0, 0.01, 0.5, 1):
        mask = rng.random(n) < share
        bitmap = np.packbits(mask, bitorder="little")
        bitmap = Filter.from_bitmap(np.pad(bitmap, (0, -len(bitmap) % 8)).view(np.uint64))
        k = min(10, mask.sum())
        unknown_twice_and_padding = np.concatenate([ids[mask], [1], ids[mask], [-1]])
        for filter in (mask, ids[mask], bitmap, unknown_twice_and_padding):
            distances, found = index.search(queries, 10, filter=filter)
            expected = brute(codes[mask], ids[mask], queries, 10)
            assert np.array_equal(distances[:, :k], expected[0])
            assert np.array_equal(found[:, :k], expected[1])
            assert (found[:, k:] == -1).all()
            offsets, _, found = index.radius_search(queries, 20, filter=filter)
            assert np.isin(found, ids[mask]).all()
            d = np.bitwise_count(codes[mask][None, :, 0] ^ queries)
            assert np.array_equal(np.diff(offsets), (d <= 20).sum(1))


BAD_CODES = [
    (np.zeros((2, 1), np.int64), TypeError),
    (np.zeros((2, 1), np.dtype(np.uint64).newbyteorder()), TypeError),
    (np.zeros((2, 2), np.uint64), ValueError),
    (np.zeros((2, 1, 1), np.uint64), ValueError),
    (np.full((2, 1), 1 << 60, np.uint64), ValueError),
]


@pytest.mark.parametrize("codes, error", BAD_CODES)
def test_bad_codes_are_refused(codes, error):
    index = HammingIndex(60)
    index.add(np.zeros((1, 1), np.uint64))
    with pytest.raises(error, match="codes"):
        index.add(codes)
    with pytest.raises(error, match="queries"):
        index.search(codes, 1)
    with pytest.raises(error, match="queries"):
        index.radius_search(codes, 1)
    assert len(index) == 1


@pytest.mark.parametrize(
    "ids, error, message",
    [
        ([1, -1], ValueError, "-1"),
        ([5, 5], ValueError, "twice: 5"),
        ([1, 7], ValueError, "already: 7"),
        ([1], ValueError, "shape"),
        ([[1, 2]], ValueError, "shape"),
        ([1.0, 2.0], TypeError, "integers"),
        (["a", "b"], TypeError, "integers"),
        (np.array([1, 2**63], np.uint64), ValueError, "int64"),
    ],
)
def test_bad_ids_are_refused(ids, error, message):
    index = HammingIndex(64)
    index.add(np.zeros((1, 1), np.uint64), [7])
    with pytest.raises(error, match=message):
        index.add(np.ones((2, 1), np.uint64), ids=ids)
    assert len(index) == 1 and index.ids.tolist() == [7] and index.codes.tolist() == [[0]]


def test_codes_come_first():
    """The old order of update, and whatever looks like it, is refused; two arrays of uint64 are not guessed at."""
    index = HammingIndex(64)
    codes = np.array([[5], [6]], np.uint64)
    index.add(codes, ids=np.array([1, 2], np.uint64))
    for call in (index.update, index.upsert, index.add):
        for wrong in (lambda call=call: call([1, 2], codes), lambda call=call: call(np.array([1, 2]), codes),
                      lambda call=call: call(np.array([1, 2], np.uint64), np.array([7, 8], np.uint64))):  # fmt: skip
            with pytest.raises(TypeError, match="codes"):
                wrong()
    assert index.snapshot()[0].tolist() == [1, 2] and index.snapshot()[1].tolist() == [[5], [6]]
    assert index.upsert(codes[::-1], ids=np.array([2, 3], np.uint64)) == 1
    assert index.get([1, 2, 3]).tolist() == [[5], [6], [5]]


@pytest.mark.parametrize("k, error", [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_bad_k(k, error):
    with pytest.raises(error, match="k must"):
        HammingIndex(64).search(np.zeros((1, 1), np.uint64), k)


@pytest.mark.parametrize("radius, error", [(-1, ValueError), (1.5, TypeError), (None, TypeError)])
def test_bad_radius(radius, error):
    with pytest.raises(error, match="radius must"):
        HammingIndex(64).radius_search(np.zeros((1, 1), np.uint64), radius)


@pytest.mark.parametrize("n_bits, error", [(0, ValueError), (65537, ValueError), (8.0, TypeError), (None, TypeError)])
def test_bad_n_bits(n_bits, error):
    with pytest.raises(error, match="n_bits"):
        HammingIndex(n_bits)


def test_bad_filters_and_jobs():
    index = HammingIndex(64)
    index.add(np.zeros((3, 1), np.uint64))
    query = np.zeros((1, 1), np.uint64)
    for filter, error in [
        (np.ones(2, bool), ValueError),
        (Filter.from_bitmap(np.ones(2, np.uint64)), ValueError),
        ([[0, 1]], ValueError),
        ([0.5], TypeError),
    ]:
        with pytest.raises(error, match="filter"):
            index.search(query, 1, filter=filter)
    with pytest.raises(ValueError, match="n_jobs"):
        index.search(query, 1, n_jobs=0)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64, ">i8", object])
def test_integers_of_every_dtype_are_ids(rng, dtype):
    index = HammingIndex(64)
    index.add(random_codes(rng, 100, 64))
    for wanted in ([5], [3, 64], [99, 3, 5, 5]):
        different = sorted(set(wanted))
        found = index.search(index.codes[5], 4, filter=np.array(wanted, dtype))[1]
        assert sorted(found.tolist()) == [-1] * (4 - len(different)) + different
        found = index.radius_search(index.codes[5], 64, filter=Filter.excluding(np.array(wanted, dtype)))[2]
        assert sorted(found.tolist()) == [i for i in range(100) if i not in wanted]


def test_filters_by_ids_follow_the_index(rng):
    codes = random_codes(rng, 200, 64)
    index, other = HammingIndex(64), HammingIndex(64)
    index.add(codes[:100])
    other.add(codes[:10], np.arange(150, 160))
    only, others = Filter.from_ids([3, 5, 150, 180, -1]), Filter.excluding([3, 5, 150, 10**6])

    def found(index, filter):
        return sorted(index.radius_search(codes[0], 64, filter=filter)[2].tolist())

    changes = [
        lambda: None, lambda: index.add(codes[100:]), lambda: index.remove([5]), index.compact,
        lambda: index.update(codes[:1], [3]), lambda: index.add(codes[:1], [5]), index.clear,
    ]  # fmt: skip
    for change in changes:
        change()
        ids = set(index.ids.tolist())
        assert found(index, only) == sorted(ids & {3, 5, 150, 180})
        assert found(index, others) == sorted(ids - {3, 5, 150})
        assert found(other, only) == [150] and found(other, others) == list(range(151, 160))
    assert found(other, pickle.loads(pickle.dumps(others))) == list(range(151, 160))


def bitmap_filter(mask):
    return Filter.from_bitmap(np.pad(np.packbits(mask, bitorder="little"), (0, 7)).view(np.uint64))


@pytest.mark.parametrize("make", [Filter.from_mask, bitmap_filter])
@pytest.mark.parametrize("change", ["remove first", "remove last", "compact", "clear"])
def test_filters_by_position_are_refused_once_positions_have_moved(rng, make, change):
    codes = random_codes(rng, 70, 64)
    index = HammingIndex(64)
    index.add(codes)
    mask = rng.random(70) < 0.5
    filter, unused = make(mask), make(mask)
    for _ in range(2):
        found = index.radius_search(codes[0], 64, filter=filter)[2]
        assert np.sort(found).tolist() == np.flatnonzero(mask).tolist()
        index.update(codes[1:2], [0])
        index.add(codes[:1])  # takes no part, and moves nothing
    if change.startswith("remove"):
        index.remove([0 if change == "remove first" else index.ids[-1]])
    else:
        getattr(index, change)()
    with pytest.raises(ValueError, match="positions have moved"):
        index.search(codes[0], 3, filter=filter)
    index.add(codes, np.arange(1000, 1070))
    with pytest.raises(ValueError, match="filter must have" if change != "clear" else "positions have moved"):
        index.search(codes[0], 3, filter=unused if change != "clear" else filter)


def test_a_filter_keeps_no_snapshot_and_is_prepared_once(rng):
    index = HammingIndex(64)
    index.add(random_codes(rng, 500, 64))
    filter = Filter.from_ids(np.arange(0, 500, 3))
    index.search(index.codes[:3], 3, filter=filter)
    assert filter.bitmap(index._store.present) is filter.bitmap(index._store.present)
    before = weakref.ref(index._store.present)
    index.add(index.codes[:1])
    assert before() is None


@pytest.mark.parametrize(
    ("make", "values", "error"),
    [
        (Filter.from_ids, [0.5], TypeError), (Filter.from_ids, [[1]], ValueError), (Filter.excluding, ["a"], TypeError),
        (Filter.from_mask, [0, 1], TypeError), (Filter.from_mask, [[True]], ValueError),
        (Filter.from_bitmap, np.ones(1, np.int64), TypeError),
        (Filter.from_bitmap, np.ones((1, 1), np.uint64), ValueError),
    ],
)  # fmt: skip
def test_bad_filters_are_refused_when_they_are_made(make, values, error):
    with pytest.raises(error):
        make(values)
    with pytest.raises(TypeError, match="from_ids"):
        Filter([1])


def test_lists_of_ids_are_taken_by_their_value():
    index = HammingIndex(64)
    codes = np.arange(4, dtype=np.uint64).reshape(-1, 1)
    index.add(codes, [np.int64(-7), np.uint64(2**63 - 1), 3, 1])
    assert index.ids.tolist() == [-7, 2**63 - 1, 3, 1]
    for mixed in ([True, 3], (3, False), [3, np.True_], [np.False_, 3]):
        for call in (index.get, index.contains, Filter.from_ids, lambda ids: index.search(codes, 1, filter=ids)):
            with pytest.raises(TypeError, match=r"must be integers, got .*(True|False).* at place"):
                call(mixed)
    with pytest.raises(TypeError, match="id must be an integer, got True"):
        assert True in index
    with pytest.raises(ValueError, match="ids must fit in int64, got 9223372036854775808 at place 1"):
        index.get([-7, 2**63])
    with pytest.raises(TypeError, match="ids must be integers, got dtype float64"):
        index.get([-7, 3.0])


def test_no_codes_do_not_tell_the_model(rng):
    one, other = (APHash(16, random_state=0, n_rounds=1, n_jobs=1).fit(rng.standard_normal((90, 20))) for _ in range(2))
    X = rng.standard_normal((30, 20))
    index = HammingIndex(16)
    index.add(one.transform(X)[:0])
    assert index.fingerprint is None
    index.add(other.transform(X).copy())
    for change in (index.add, index.update, index.upsert):
        change(one.transform(X)[:0], [])
        assert index.fingerprint is None
    index.search(other.transform(X), 1)
    empty = HammingIndex(16)
    empty.add(one.transform(X)[:0])
    index.add(other.transform(X))
    index.merge(empty)
    assert index.fingerprint == other.fingerprint_


def test_codes_of_another_model_are_refused(rng, tmp_path):
    one, other = (APHash(16, random_state=0, n_rounds=1, n_jobs=1).fit(rng.standard_normal((90, 20))) for _ in range(2))
    X = rng.standard_normal((30, 20))
    index = HammingIndex(16)
    index.add(one.transform(X))
    index.save(tmp_path / "index")
    for each in (index, pickle.loads(pickle.dumps(index)), HammingIndex.load(tmp_path / "index", mmap=True)):
        assert each.fingerprint == one.fingerprint_
        for call in (each.add, each.update, each.upsert):
            with pytest.raises(ValueError, match="another model"):
                call(other.transform(X), np.arange(30) + (100 if call == each.add else 0))
        for call in (each.search, each.radius_search):
            with pytest.raises(ValueError, match="another model"):
                call(other.transform(X), 1)
        assert len(each) == 30
        each.search(other.transform(X).copy(), 1)  # nothing is known of a copy
        each.search(one.transform(X[:1])[0], 1)
    index.clear()
    index.add(other.transform(X))
    assert index.fingerprint == other.fingerprint_
    with pytest.raises(ValueError, match="another model"):
        index.merge(HammingIndex.load(tmp_path / "index"))


def test_a_subclass_with_an_init_of_its_own_is_loaded_and_pickled(rng, tmp_path):
    index = Photos("holiday", 64)
    codes = random_codes(rng, 9, 64)
    index.add(codes)
    index.save(tmp_path / "index")
    for mmap in (False, True):
        loaded = Photos.load(tmp_path / "index", mmap=mmap)
        assert type(loaded) is Photos and np.array_equal(loaded.codes, codes)
    again = pickle.loads(pickle.dumps(index))
    assert (type(again), again.album) == (Photos, "holiday") and np.array_equal(again.codes, codes)
    twin = copy.copy(index)
    twin.add(codes)
    assert len(twin) == 18 and len(index) == 9 and twin.album == "holiday"


class Photos(HammingIndex):
    def __init__(self, album, n_bits):
        super().__init__(n_bits)
        self.album = album


def test_pickle(rng):
    index = HammingIndex(100)
    codes = random_codes(rng, 77, 100)
    index.add(codes, rng.permutation(77) + 3)
    again = pickle.loads(pickle.dumps(index))
    assert np.array_equal(again.codes, codes)
    assert np.array_equal(again.search(codes, 5)[1], index.search(codes, 5)[1])
    again.add(codes[:1], [1000])
    assert len(again) == 78 and len(index) == 77


def test_searches_see_the_index_before_or_after_a_change(rng):
    """A writer adds pairs of equal codes in one call and removes them in one: a search sees both or neither."""
    index = HammingIndex(64)
    index.add(random_codes(rng, 20_000, 64))
    pair = np.repeat(random_codes(rng, 1, 64), 2, axis=0)
    failures, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            offsets, _, _ = index.radius_search(pair[:1], 0, n_jobs=1)
            if offsets[-1] not in (0, 2):
                failures.append(offsets[-1])

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(50):
        index.add(pair, [-10, -11])
        index.remove([-11, -10])
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures
