"""Multi-index hashing equals the scan, whatever the data, the changes and the cost model; and so do the pairs."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import ISAS, brute, make_bitmap, make_blocks, make_codes

from aphash import HammingIndex, _lookup, _search


def check(codes, lookup, queries, k, radius, ids=None, mask=None, n_threads=1):
    """Both searches, with the lookup forced and with the cost model's choice, against the scan."""
    blocks, n = make_blocks(codes), len(codes)
    ascending = ids is None
    filter = None if mask is None else make_bitmap(mask)
    rest = (ids, ascending, filter, n_threads)
    expected = _search.search(blocks, n, queries, k, *rest)
    near = _search.radius_search(blocks, n, queries, radius, *rest)
    for share in (np.inf, 0.0, _lookup.SHARE):
        lookup.share = share
        for a, b in zip(lookup.search(blocks, n, queries, k, *rest), expected):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(lookup.radius_search(blocks, n, queries, radius, *rest), near):
            np.testing.assert_array_equal(a, b)
    return expected


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
        lookup = _lookup.Lookup(make_blocks(codes), n, n_bits)
        for k in (1, 2, n + 1):
            for radius in (0, 1, 3):
                check(codes, lookup, queries, k, radius)
        ids = rng.permutation(n) - n // 3
        check(codes, lookup, queries, 2, 2, ids, rng.random(n) < 0.5, 3)


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
    lookup = _lookup.Lookup(make_blocks(codes), n, n_bits)
    ids = rng.permutation(n) if shuffled else None
    mask = None if share is None else rng.random(n) < share
    expected = check(codes, lookup, queries, k, radius, ids, mask)
    np.testing.assert_array_equal(expected[1], brute(codes, queries, k, ids, mask)[1])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.lists(st.sampled_from(["add", "remove", "replace"]), max_size=12))
def test_lookup_stays_in_step(seed, steps):
    """Codes added behind the tables or in freed places, the last one moved to a removed one's place, and replaced."""
    rng = np.random.default_rng(seed)
    codes = near_duplicates(rng, 200, 40)
    lookup = _lookup.Lookup(make_blocks(codes), len(codes), 40)
    for step in steps:
        at = rng.integers(0, len(codes))
        if step == "add":
            before = len(codes)
            codes = np.concatenate([codes, codes[at : at + 5] ^ np.uint64(1)])
            lookup.changed(np.arange(before, len(codes)))  # they may take places that stand in the tables
        elif step == "remove":
            codes[at] = codes[-1]
            codes = codes[:-1].copy()
            lookup.changed([at])
        else:
            codes[at] = codes[at - 1] ^ np.uint64(6)
            lookup.changed([at])
    check(codes, lookup, codes[:: max(1, len(codes) // 10)].copy(), 4, 2)
    check(codes, pickle.loads(pickle.dumps(lookup)), codes[-3:].copy(), 4, 2)


@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_index_with_a_lookup_equals_one_without(order):
    rng = np.random.default_rng(3)
    codes = near_duplicates(rng, 12_000, 64)
    ids = np.arange(12_000) if order == "ascending" else rng.permutation(12_000)
    plain, quick = HammingIndex(64), HammingIndex(64)
    for index in (plain, quick):
        index.add(codes[:6_000], ids[:6_000])
    quick.build_lookup(share=np.inf)
    built = quick._lookup
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
        index.update(ids[1:600:3], codes[6_000:6_200])
        index.add(codes[6_200:6_500], ids[6_200:6_500])
    assert quick._lookup is built  # so few changes do not build it anew
    compare(plain, quick)
    compare(plain, pickle.loads(pickle.dumps(quick)))
    for index in (plain, quick):
        index.add(codes[6_500:], ids[6_500:])
    assert quick._lookup is not built
    compare(plain, quick)
    quick.drop_lookup()
    compare(plain, quick)


@pytest.mark.parametrize(
    "share, error", [(-1, ValueError), (np.nan, ValueError), ("auto", TypeError), (True, TypeError)]
)
def test_bad_share(share, error):
    with pytest.raises(error, match="share must"):
        HammingIndex(64).build_lookup(share=share)


def test_a_worn_lookup_says_so():
    codes = make_codes(np.random.default_rng(0), 20_000, 32)
    lookup = _lookup.Lookup(make_blocks(codes), 20_000, 32)
    assert not lookup.worn(20_000)
    assert not lookup.worn(24_000)
    assert lookup.worn(24_500)
    assert lookup.worn(15_000)
    lookup.changed(np.arange(4_097))
    assert lookup.worn(20_000)


def test_costs_decide():
    """Random codes are given up within the budget; near-duplicates are not."""
    rng = np.random.default_rng(1)
    n = 200_000
    codes = near_duplicates(rng, n, 64)
    blocks = make_blocks(codes)
    lookup = _lookup.Lookup(blocks, n, 64)
    budget = lookup.budget(n, 1)
    tables = lookup._tables(n)
    costs = (_lookup.PROBE_COST, _lookup.CODE_COST)
    assert _search.lookup_search(tables, blocks, n, codes[:50], 2, 0, budget, *costs)[0].all()
    assert not _search.lookup_search(tables, blocks, n, make_codes(rng, 50, 64), 2, 0, budget, *costs)[0].any()


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
        stream = _search.PairStream(make_blocks(codes), n, codes.shape[1], n_bits, radius)
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
    stream = _search.PairStream(make_blocks(codes), 400, 1, 64, 2)
    assert sorted(read_pairs(stream, room=7, work=13)) == sorted(expected)
    stream = _search.PairStream(make_blocks(codes), 400, 1, 64, 2, make_bitmap(mask))
    assert set(read_pairs(stream)) == {p for p in expected if mask[p[0]] and mask[p[1]]}


def test_spans_cover_the_code():
    for n_bits in (1, 20, 28, 29, 57, 64, 65, 256, 1000):
        for n in (1, 10, 10**4, 10**7, 2**31):
            starts = _lookup.span_starts(n_bits, n)
            assert starts[0] == 0 and starts[-1] == n_bits
            assert (np.diff(starts) >= 1).all() and (np.diff(starts) <= 28).all()


def test_every_instruction_set_ran():
    assert set(ISAS) == set(_search.isa_names())
