"""Multi-index hashing equals the scan, whatever the data, the changes and the cost model; and so do the pairs."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import ISAS, brute, make_bitmap, make_blocks, make_codes, make_snapshot

from aphash import HammingIndex, _kernels
from aphash._searching import _search, _store, lookup
from aphash._searching.engines import SCAN


def with_lookup(codes, n_bits, ids=None):
    """A store in pages of 512 codes, whose lookup describes its codes."""
    before = _store.set_page_bytes(0)
    store = _store.Store(n_bits)
    _store.set_page_bytes(before)
    store.add(codes, ids)
    store.set_lookup(lookup.Lookup(store.present), store.present)
    return store


def check(store, queries, k, radius, mask=None, n_threads=1):
    """Both searches, with the lookup forced and with the cost model's choice, against brute force and the scan."""
    present = store.present
    filter = None if mask is None else make_bitmap(mask)
    packed = _search.PackedQueries(queries)
    expected = SCAN.nearest(present, packed, k, filter, n_threads)
    codes, ids = present.load(0, len(present)), present.load_ids(0, len(present))
    for a, b in zip(expected, brute(codes, queries, k, ids, mask)):
        np.testing.assert_array_equal(a, b)
    near = SCAN.within(present, packed, radius, filter, n_threads)
    for share in (np.inf, 0.0, lookup.MAX_SCAN_FRACTION):
        present.lookup.max_scan_fraction = share
        for a, b in zip(present.lookup.nearest(present, packed, k, filter, n_threads), expected):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(present.lookup.within(present, packed, radius, filter, n_threads), near):
            np.testing.assert_array_equal(a, b)


def near_duplicates(rng, n, n_bits):
    codes = make_codes(rng, n, n_bits)
    codes[n // 2 :] = codes[: n - n // 2]
    flip = rng.integers(0, n_bits, n - n // 2)
    codes[np.arange(n // 2, n), flip // 64] ^= np.uint64(1) << (flip % 64).astype(np.uint64)
    return codes


@pytest.mark.parametrize("n_bits", [1, 7, 33, 63, 64, 65, 128, 200, 256])
def test_lookup_equals_scan(isa, n_bits):
    rng = np.random.default_rng(n_bits)
    for n in (1, 2, 513, 3000):
        codes = near_duplicates(rng, n, n_bits)
        queries = codes[rng.integers(0, n, 12)]
        store = with_lookup(codes, n_bits)
        for k in (1, 2, n + 1):
            for radius in (0, 1, 3):
                check(store, queries, k, radius)
        ids = 2 * (rng.permutation(n) - n // 3)
        check(with_lookup(codes, n_bits, ids), queries, 2, 2, rng.random(n) < 0.5, 3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 300),
    n_bits=st.integers(1, 80),
    values=st.sampled_from([2, 10, 10**9]),
    k=st.integers(1, 40),
    radius=st.integers(0, 20),
    shuffled=st.booleans(),
    share=st.sampled_from([None, 0.0, 0.1, 0.9]),
)
def test_lookup_equals_scan_property(seed, n, n_bits, values, k, radius, shuffled, share):
    rng = np.random.default_rng(seed)
    pool = make_codes(rng, min(values, n), n_bits)
    codes = pool[rng.integers(0, len(pool), n)]
    queries = np.concatenate([codes[:3], make_codes(rng, 2, n_bits)])
    ids = rng.permutation(n) if shuffled else None
    mask = None if share is None else rng.random(n) < share
    check(with_lookup(codes, n_bits, ids), queries, k, radius, mask)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([200, 511, 512, 513, 1025]),
    steps=st.lists(st.sampled_from(["add", "remove", "replace", "remove many", "add many", "older"]), max_size=12),
)
def test_lookup_stays_in_step(seed, n, steps):
    """Codes added behind the tables or in freed places, the last one moved to a removed one's place, and replaced; also
    tables that were made of an older snapshot."""
    rng = np.random.default_rng(seed)
    codes = near_duplicates(rng, n, 40)
    store = with_lookup(codes, 40)
    older = store.present
    for step in steps:
        ids = store.present.load_ids(0, len(store.present))
        some = rng.permutation(ids)[: len(ids) // 3 if "many" in step else 1]
        if step.startswith("add"):
            store.add(store.present.codes_at(store.present.find(some)) ^ np.uint64(1))
        elif step.startswith("remove"):
            store.remove(some, False)
        elif step == "replace":
            store.update(codes[rng.integers(0, n, len(some))] ^ np.uint64(6), some)
        else:
            store.set_lookup(lookup.Lookup(older), older)
            older = store.present
    queries = np.concatenate([codes[:: n // 10], make_codes(rng, 1, 40)])
    check(store, queries, 4, 2)
    present = store.present
    held = older.load(0, len(older))  # what an older snapshot shows does not change, nor what its tables find
    np.testing.assert_array_equal(
        lookup.Lookup(older, np.inf).nearest(older, _search.PackedQueries(queries), 3)[1],
        brute(held, queries, 3, older.load_ids(0, len(older)))[1],
    )
    again = _store.Store(40)
    stale = present.stale_positions()
    again.adopt(make_blocks(present.load(0, len(present))), present.load_ids(0, len(present)), 0, 10**6,
                present.ascending, True, present.lookup, stale)  # fmt: skip
    assert again.present.n_stale == len(stale) == len(np.unique(stale))
    check(again, queries, 4, 2)


@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_index_with_a_lookup_equals_one_without(order):
    rng = np.random.default_rng(3)
    codes = near_duplicates(rng, 12_000, 64)
    ids = np.arange(12_000) if order == "ascending" else rng.permutation(12_000)
    plain, quick = HammingIndex(64), HammingIndex(64)
    for index in (plain, quick):
        index.add(codes[:6_000], ids[:6_000])
    quick.build_lookup(max_scan_fraction=np.inf)
    built = quick._store.present.lookup
    queries = codes[::400]

    def compare(a, b):
        for left, right in zip(a.search(queries, 3), b.search(queries, 3)):
            np.testing.assert_array_equal(left, right)
        mask = ids[::2]
        for left, right in zip(a.radius_search(queries, 2, filter=mask), b.radius_search(queries, 2, filter=mask)):
            np.testing.assert_array_equal(left, right)

    compare(plain, quick)
    for index in (plain, quick):
        index.remove(ids[:600:3])
        index.update(codes[6_000:6_200], ids[1:600:3])
        index.add(codes[6_200:6_500], ids[6_200:6_500])
    assert quick._store.present.lookup is built  # so few changes do not build it anew
    compare(plain, quick)
    compare(plain, pickle.loads(pickle.dumps(quick)))
    for index in (plain, quick):
        index.add(codes[6_500:], ids[6_500:])
    assert quick._store.present.lookup is not built
    compare(plain, quick)
    quick.drop_lookup()
    compare(plain, quick)


@pytest.mark.parametrize(
    "share, error", [(-1, ValueError), (np.nan, ValueError), ("auto", TypeError), (True, TypeError)]
)
def test_bad_fraction(share, error):
    with pytest.raises(error, match="max_scan_fraction must"):
        HammingIndex(64).build_lookup(max_scan_fraction=share)


def test_a_worn_lookup_says_so():
    codes = make_codes(np.random.default_rng(0), 20_000, 32)
    store = with_lookup(codes, 32)
    lookup = store.present.lookup
    assert not lookup.needs_rebuild(store.present)
    store.add(codes[:4_000])
    assert not lookup.needs_rebuild(store.present)
    store.add(codes[:500])
    assert lookup.needs_rebuild(store.present)
    store.remove(np.arange(15_000, 24_500), False)
    assert lookup.needs_rebuild(store.present)
    store = with_lookup(codes, 32)
    store.update(codes[:4_097], np.arange(4_097))
    assert store.present.lookup.needs_rebuild(store.present)
    store.renew_lookup()
    assert store.present.n_stale == 0 and not store.present.lookup.needs_rebuild(store.present)


def test_costs_decide():
    """Random codes are given up within the budget; near-duplicates are not."""
    rng = np.random.default_rng(1)
    n = 200_000
    codes = near_duplicates(rng, n, 64)
    present = with_lookup(codes, 64).present
    tables = present.lookup
    limits = (tables.budget(n, 1), lookup.PROBE_COST, lookup.CODE_COST)
    assert _search.lookup_search(tables._tables, present, _search.PackedQueries(codes[:50]), 2, 0, *limits)[0].all()
    assert not _search.lookup_search(
        tables._tables, present, _search.PackedQueries(make_codes(rng, 50, 64)), 2, 0, *limits
    )[0].any()


def all_pairs(codes, radius):
    d = np.zeros((len(codes), len(codes)), np.int64)
    for word in range(codes.shape[1]):
        d += np.bitwise_count(codes[:, None, word] ^ codes[None, :, word])
    i, j = np.nonzero(np.triu(d <= radius, 1))
    return set(zip(i.tolist(), j.tolist(), d[i, j].tolist()))


def read_pairs(stream, **limits):
    seen = []
    while (block := stream.read(**limits)) is not None:
        assert len(block[0]) <= limits.get("room", 1 << 16)
        seen += zip(*(a.tolist() for a in block))
    return seen


@pytest.mark.parametrize("n_bits", [1, 20, 64, 100, 256])
@pytest.mark.parametrize("radius", [0, 1, 2, 5])
def test_pairs(isa, n_bits, radius):
    rng = np.random.default_rng(n_bits)
    radius = min(radius, n_bits - 1)
    for n in (0, 1, 2, 600):
        codes = near_duplicates(rng, n, n_bits)
        stream = _search.PairStream(make_snapshot(codes, n_bits=n_bits), radius)
        seen = read_pairs(stream)
        assert len(seen) == len(set(seen))  # each pair once
        assert set(seen) == all_pairs(codes, radius)
        assert stream.progress == 1


def test_pairs_in_small_blocks_and_filtered():
    rng = np.random.default_rng(2)
    codes = near_duplicates(rng, 400, 64)
    codes[:50] = codes[0]  # one large group
    mask = rng.random(400) < 0.5
    expected = all_pairs(codes, 2)
    stream = _search.PairStream(make_snapshot(codes), 2)
    assert sorted(read_pairs(stream, room=7, work=13)) == sorted(expected)
    stream = _search.PairStream(make_snapshot(codes), 2, make_bitmap(mask))
    assert set(read_pairs(stream)) == {p for p in expected if mask[p[0]] and mask[p[1]]}


def test_substrings_cover_the_code():
    for n_bits in (1, 20, 28, 29, 57, 64, 65, 256, 1000):
        for n in (1, 10, 10**4, 10**7, 2**31):
            starts = lookup.substring_starts(n_bits, n)
            assert starts[0] == 0 and starts[-1] == n_bits
            assert (np.diff(starts) >= 1).all() and (np.diff(starts) <= 28).all()


def test_every_instruction_set_ran():
    assert set(ISAS) == set(_kernels.isa_names())
