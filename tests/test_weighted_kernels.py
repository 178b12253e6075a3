"""The scan by tables and by weights against brute force in int64, on every instruction set that runs here."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from aphash._searching._weighted import PAD_DISTANCE, TableQueries, WeightedQueries
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import BLOCK, make_bitmap, make_codes, make_snapshot

from aphash import _kernels
from aphash._searching import _search

pytestmark = pytest.mark.usefixtures("small_work_is_split")


def bits_of(codes, n_bits):
    return np.unpackbits(codes.astype("<u8").view(np.uint8), axis=1, bitorder="little")[:, :n_bits].astype(bool)


def weighted_distances(codes, weights):
    """The definition, an item at a time: int64 (n_queries, n)."""
    out = np.zeros((len(weights), len(codes)), np.int64)
    bits = bits_of(codes, weights.shape[1])
    for i, p in enumerate(weights):
        most = np.abs(p).max()
        integers = np.rint(np.abs(p) / most * 65535).astype(np.int64) if most > 0 else np.zeros(len(p), np.int64)
        out[i] = (bits != (p >= 0)) @ integers
    return out


def table_distances(codes, tables, constants=None, ends=None):
    out = np.zeros((len(tables), len(codes)), np.int64)
    for t in range(tables.shape[1]):
        nibbles = (codes[:, t // 16] >> np.uint64(t % 16 * 4) & np.uint64(15)).astype(np.int64)
        out += tables[:, t, nibbles].astype(np.int64)
    if constants is not None:
        out += constants[:, np.searchsorted(ends, np.arange(len(codes)) // BLOCK, "right")]
    return out


def brute(distances, k, ids=None, mask=None):
    n = distances.shape[1]
    ids = np.arange(n) if ids is None else ids
    where = np.arange(n) if mask is None else np.flatnonzero(mask)
    nearest = np.full((len(distances), k), PAD_DISTANCE, np.uint32)
    found = np.full((len(distances), k), -1, np.int64)
    for i, row in enumerate(distances):
        order = where[np.lexsort((ids[where], row[where]))][:k]
        nearest[i, : len(order)] = row[order]
        found[i, : len(order)] = ids[order]
    return nearest, found


def check(codes, queries, distances, ks, radii=(), ids=None, mask=None, n_threads=1, n_bits=None):
    snapshot = make_snapshot(codes, ids, n_bits)
    bitmap = None if mask is None else make_bitmap(mask)
    for k in ks:
        got = _search.search(snapshot, queries, k, bitmap, n_threads)
        expected = brute(distances, k, ids, mask)
        assert got[0].dtype == np.uint32
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])
    for radius in radii:  # one of each query
        offsets, near, found = _search.radius_search(snapshot, queries, radius, bitmap, n_threads)
        expected = brute(distances, len(codes), ids, mask)
        inside = (expected[0] <= np.asarray(radius)[:, None]) & (expected[1] != -1 if ids is None else True)
        if mask is not None:
            inside[:, mask.sum() :] = False
        np.testing.assert_array_equal(np.diff(offsets), inside.sum(1))
        np.testing.assert_array_equal(near, expected[0][inside])
        np.testing.assert_array_equal(found, expected[1][inside])


def make_weights(rng, n_queries, n_bits, kind="normal"):
    if kind == "normal":
        return rng.normal(size=(n_queries, n_bits))
    if kind == "few values":  # ties
        return rng.integers(-2, 3, (n_queries, n_bits)).astype(float)
    if kind == "falling":  # as principal components fall
        return rng.normal(size=(n_queries, n_bits)) * 0.9 ** np.arange(n_bits)
    return np.where(np.arange(n_bits) == 0, 1e30, 1e-30) * rng.choice([-1.0, 1.0], (n_queries, n_bits))


def middle(distances):
    return (
        np.sort(distances, 1)[:, distances.shape[1] // 3] if distances.shape[1] else np.zeros(len(distances), np.int64)
    )


@pytest.mark.parametrize("n_queries", [1, 7])
@pytest.mark.parametrize("n_bits", [1, 7, 63, 64, 65, 100, 128, 256, 300, 512, 700, 1000])
def test_weights_against_brute_force(isa, n_bits, n_queries):
    rng = np.random.default_rng(n_bits)
    for n in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 1100):
        codes = make_codes(rng, n, n_bits)
        if n > BLOCK:
            codes[n // 2 :] = codes[: n - n // 2]  # ties
        for kind in ("normal", "few values", "falling", "one bit"):
            weights = make_weights(rng, n_queries, n_bits, kind)
            distances = weighted_distances(codes, weights)
            ks = {1, 10, max(1, n - 1), max(1, n), n + 5}
            check(codes, WeightedQueries(weights), distances, ks, [middle(distances)], n_bits=n_bits)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.95])
@pytest.mark.parametrize("n_bits", [64, 100, 300])
def test_filters_threads_and_ids(isa, n_bits, share, n_threads):
    rng = np.random.default_rng(1)
    n = 5000
    codes = make_codes(rng, n, n_bits)
    codes[n // 2 :] = codes[: n // 2]
    ids = rng.permutation(n) - n // 2
    mask = rng.random(n) < share
    for n_queries in (1, 5, 40):
        weights = make_weights(rng, n_queries, n_bits, "few values")
        distances = weighted_distances(codes, weights)
        queries = WeightedQueries(weights)
        check(codes, queries, distances, (1, 10, 300), [middle(distances)], ids, mask, n_threads)
        check(codes, queries, distances, (1, 10, 300), [middle(distances)], ids, None, n_threads)
        check(codes, queries, distances, (10, 300), [middle(distances)], None, mask, n_threads)


@pytest.mark.parametrize("order", ["ascending", "shuffled"])
@pytest.mark.parametrize("data", ["equal", "few values", "near-to-far", "far-to-near"])
def test_hard_orders(isa, data, order):
    """Data that overflow a buffer with ties, let the threshold fall at every block, or mislead the sample."""
    rng = np.random.default_rng(2)
    n = 20_000
    weights = make_weights(rng, 4, 64, "normal")
    if data == "equal":
        codes = np.full((n, 1), 77, np.uint64)
    elif data == "few values":
        codes = rng.integers(0, 3, (n, 1), np.uint64)
    else:
        codes = make_codes(rng, n, 64)
        near = np.argsort(weighted_distances(codes, weights[:1])[0], kind="stable")
        codes = codes[near if data == "near-to-far" else near[::-1]]
    ids = None if order == "ascending" else rng.permutation(n) - n // 2
    distances = weighted_distances(codes, weights)
    check(codes, WeightedQueries(weights), distances, (1, 10, 300, 2000), ids=ids)
    check(codes, WeightedQueries(weights), distances, (300,), ids=ids, n_threads=3)


@pytest.mark.parametrize("n_queries", [1, 9])
@pytest.mark.parametrize("n_tables", [1, 3, 16, 31, 32, 33, 64, 75, 130])
@pytest.mark.parametrize("largest", [3, 2**16, 2**24])
def test_any_tables(isa, largest, n_tables, n_queries):
    rng = np.random.default_rng(n_tables)
    tables = rng.integers(0, largest, (n_queries, n_tables, 16), np.uint32)
    codes = make_codes(rng, 1600, 64 * -(-n_tables // 16))
    distances = table_distances(codes, tables)
    check(codes, TableQueries(tables), distances, (1, 10, 500, 1700), [middle(distances)])


@pytest.mark.parametrize("ends", [[1, 2, 3, 4, 5, 6, 7, 8], [3, 4, 100], [8]])
@pytest.mark.parametrize("n_tables", [16, 40])
def test_constants(isa, n_tables, ends):
    rng = np.random.default_rng(3)
    ends = np.array(ends)
    tables = rng.integers(1000, 5000, (11, n_tables, 16), np.uint32)
    constants = rng.integers(-1000 * n_tables, 20_000, (11, len(ends)), np.int32)
    codes = make_codes(rng, 8 * BLOCK - 7, 64 * -(-n_tables // 16))
    distances = table_distances(codes, tables, constants, ends)
    queries = TableQueries(tables, constants, ends)
    mask = rng.random(len(codes)) < 0.05
    for threads in (1, 3):
        check(codes, queries, distances, (1, 10, 700), [middle(distances)], None, None, threads)
        check(codes, queries, distances, (1, 10, 700), [middle(distances)], None, mask, threads)
        check(codes, queries.take([3]), distances[3:4], (1, 10), [middle(distances[3:4])], None, mask, threads)


def test_sums_that_pass_32_bits_on_the_way(isa):
    """The largest distance there can be, and tables beyond 2^32 that a constant brings back."""
    rng = np.random.default_rng(4)
    codes = make_codes(rng, 700, 64)
    tables = np.zeros((2, 16, 16), np.uint32)
    tables[0, 0], tables[0, 1] = 2**32 - 1 - 15, np.arange(16)
    tables[1] = rng.integers(2**27, 2**28, (16, 16), np.uint32)
    tables[1, 0] += 2**31
    constants = np.array([[0], [-(2**31)]], np.int32)
    distances = table_distances(codes, tables, constants, np.array([9]))
    assert distances.max() == 2**32 - 1
    check(codes, TableQueries(tables, constants, np.array([9])), distances, (1, 20, 700), [middle(distances)])


def test_sums_beyond_32_bits_are_refused():
    tables = np.full((1, 2, 16), 2**31, np.uint32)
    ends = np.array([1])
    for constant, fits in ((-(2**31), True), (-1, True), (0, False)):
        if fits:
            TableQueries(tables, np.array([[constant]], np.int32), ends)
        else:
            with pytest.raises(ValueError, match="2\\^32"):
                TableQueries(tables, np.array([[constant]], np.int32), ends)
    with pytest.raises(ValueError, match="2\\^32"):
        TableQueries(tables)
    tables[0, :, 3] = [0, 2**31 - 1]
    with pytest.raises(ValueError, match="2\\^32"):  # less than 0
        TableQueries(tables, np.array([[-(2**31)]], np.int32), ends)


def test_all_weights_zero(isa):
    codes = make_codes(np.random.default_rng(5), 1000, 65)
    weights = np.zeros((2, 65))
    check(codes, WeightedQueries(weights), np.zeros((2, 1000), np.int64), (1, 20), [np.zeros(2, np.int64)])


def test_widest_codes(isa):
    rng = np.random.default_rng(6)
    codes = make_codes(rng, 600, 65536)
    weights = make_weights(rng, 3, 65536)
    weights[2] = np.where(bits_of(codes[5:6], 65536)[0], -1.0, 1.0)  # the largest distance
    distances = weighted_distances(codes, weights)
    assert distances[2, 5] == 65536 * 65535
    check(codes, WeightedQueries(weights), distances, (3, 600), [middle(distances)])


@pytest.mark.parametrize("n_bits", [64, 256])
def test_a_sample_gives_the_first_threshold(isa, n_bits):
    """Databases so large that there is a sample; one of which it misleads, so that a second search is needed."""
    rng = np.random.default_rng(7)
    n = 30_000
    weights = make_weights(rng, 20, n_bits)
    codes = make_codes(rng, n, n_bits)
    for misleading in (False, True):
        if misleading:
            step = n // (n // 512)
            codes[::step] = np.packbits(weights[0] >= 0, bitorder="little").view(np.uint64)  # at distance 0
        distances = weighted_distances(codes, weights)
        check(codes, WeightedQueries(weights), distances, (1, 10, 100, 1000))
        check(codes, WeightedQueries(weights), distances, (10, 200), n_threads=2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_anything(data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n, n_bits = data.draw(st.integers(1, 1300)), data.draw(st.integers(1, 400))
    n_queries = data.draw(st.integers(1, 12))
    kind = data.draw(st.sampled_from(["normal", "few values", "falling", "one bit"]))
    codes = make_codes(rng, n, n_bits)
    if data.draw(st.booleans()):
        codes = codes[rng.integers(0, max(1, n // 50), n)]
    weights = make_weights(rng, n_queries, n_bits, kind)
    distances = weighted_distances(codes, weights)
    mask = rng.random(n) < data.draw(st.floats(0.01, 1)) if data.draw(st.booleans()) else None
    ids = rng.permutation(n) if data.draw(st.booleans()) else None
    for name in _kernels.isa_names():
        before = _kernels.isa()
        _kernels.set_isa(name)
        try:
            k = data.draw(st.integers(1, n + 3))
            check(codes, WeightedQueries(weights), distances, [k], [middle(distances)], ids, mask, 2, n_bits)
        finally:
            _kernels.set_isa(before)


def test_interrupt():
    rng = np.random.default_rng(8)
    snapshot = make_snapshot(make_codes(rng, 400_000, 64))
    queries = WeightedQueries(rng.normal(size=(3000, 64)))
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    before = _kernels.isa()
    _kernels.set_isa("base")
    timer.start()
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            _search.search(snapshot, WeightedQueries(queries.values), 10)
    finally:
        _kernels.set_isa(before)
        timer.join()
    assert time.monotonic() - start < 20
