"""The scan kernels against brute force in numpy, with ties, on every instruction set that this machine can run."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from aphash._searching._search import PackedQueries

from aphash import _kernels
from aphash._searching import _search, _store

pytestmark = pytest.mark.usefixtures("small_work_is_split")

BLOCK = 512  # codes that a kernel takes at a time
ISAS = _kernels.isa_names()


def test_which_instruction_sets_ran(record_property):
    assert ISAS[0] == "base"
    record_property("isa", ISAS)
    print("instruction sets that ran:", *ISAS)


def make_codes(rng, n, n_bits):
    codes = rng.integers(0, 2**64, (n, -(-n_bits // 64)), np.uint64, endpoint=False)
    if n_bits % 64:
        codes[:, -1] &= np.uint64((1 << n_bits % 64) - 1)
    return codes


def make_blocks(codes):
    """The codes in groups of 8, with no room behind the last group: a read past it is a fault of the kernel."""
    n, n_words = codes.shape
    blocks = np.full((-(-n // 8), n_words, 8), 2**64 - 1, np.uint64)  # padding that would count as codes
    blocks[np.arange(n) // 8, :, np.arange(n) % 8] = codes
    return blocks.ravel()


def make_snapshot(codes, ids=None, n_bits=None, blocks=None):
    """Codes in pages of 512, the fewest there are, each of which ends where the next begins."""
    before = _store.set_page_bytes(0)
    store = _store.Store(n_bits or 64 * codes.shape[1])
    _store.set_page_bytes(before)
    ascending = ids is None or bool((ids[1:] > ids[:-1]).all())
    blocks = make_blocks(codes) if blocks is None else blocks
    store.adopt(blocks, len(codes) if ids is None else ids, 0, 0, ascending, True)
    return store.present


def make_bitmap(mask):
    packed = np.packbits(mask, bitorder="little")
    return np.pad(packed, (0, -len(packed) % 8)).view(np.uint64)


def all_distances(codes, queries):
    out = np.zeros((len(queries), len(codes)), np.int64)
    for word in range(codes.shape[1]):
        out += np.bitwise_count(codes[None, :, word] ^ queries[:, None, word])
    return out


def brute(codes, queries, k, ids=None, mask=None):
    ids = np.arange(len(codes)) if ids is None else ids
    where = np.arange(len(codes)) if mask is None else np.flatnonzero(mask)
    distances = np.full((len(queries), k), _search.PAD_DISTANCE, np.int32)
    found = np.full((len(queries), k), -1, np.int64)
    for i, row in enumerate(all_distances(codes, queries)):
        order = where[np.lexsort((ids[where], row[where]))][:k]
        distances[i, : len(order)] = row[order]
        found[i, : len(order)] = ids[order]
    return distances, found


def check_search(codes, queries, k, ids=None, mask=None, n_threads=1):
    bitmap = None if mask is None else make_bitmap(mask)
    snapshot = make_snapshot(codes, ids)
    for positions in (False, True) if ids is not None else (False,):
        got = _search.search(snapshot, PackedQueries(queries), k, bitmap, n_threads, positions)
        expected = brute(codes, queries, k, None if positions else ids, mask)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


def check_radius(codes, queries, radius, ids=None, mask=None, n_threads=1):
    bitmap = None if mask is None else make_bitmap(mask)
    offsets, distances, found = _search.radius_search(
        make_snapshot(codes, ids), PackedQueries(queries), radius, bitmap, n_threads
    )
    expected = brute(codes, queries, len(codes), ids, mask)
    inside = (expected[0] <= radius) & (expected[1] != -1) if ids is None else expected[0] <= radius
    np.testing.assert_array_equal(np.diff(offsets), inside.sum(1))
    np.testing.assert_array_equal(distances, expected[0][inside])
    np.testing.assert_array_equal(found, expected[1][inside])


@pytest.mark.parametrize("n_queries", [1, 5, 6, 20])  # one by one up to 5, bit planes from 6 on
@pytest.mark.parametrize("n_bits", [1, 63, 64, 65, 127, 128, 192, 256, 1000, 4096])
def test_against_brute_force(isa, n_bits, n_queries):
    rng = np.random.default_rng(n_bits)
    for n in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 1100):
        codes = make_codes(rng, n, n_bits)
        if n > BLOCK:
            codes[n // 2 :] = codes[: n - n // 2]  # ties
        queries = make_codes(rng, n_queries, n_bits)
        if n:
            queries[0] = codes[-1]
        for k in {1, 10, max(1, n - 1), max(1, n), n + 5}:
            check_search(codes, queries, k)
        check_radius(codes, queries, int(0.49 * n_bits))


def test_widest_codes(isa):
    rng = np.random.default_rng(0)
    codes, queries = make_codes(rng, 600, 65536), make_codes(rng, 7, 65536)
    codes[5] = ~queries[3]  # the largest distance
    for some in (queries, queries[:2]):
        check_search(codes, some, 3)
        check_search(codes, some, 600)


@pytest.mark.parametrize("n_queries", [1, 8])
@pytest.mark.parametrize("order", ["ascending", "shuffled"])
@pytest.mark.parametrize("data", ["equal", "equidistant", "near-to-far", "far-to-near", "few values"])
def test_hard_orders(isa, data, order, n_queries):
    """Data that overflow a buffer with ties, or mislead the sampled threshold."""
    rng = np.random.default_rng(1)
    n = 40_000
    queries = np.zeros((n_queries, 1), np.uint64)
    if data == "equal":
        codes = np.full((n, 1), 77, np.uint64)
    elif data == "equidistant":
        codes = np.uint64(1) << rng.integers(0, 64, (n, 1), np.uint64)
    elif data == "few values":
        codes = rng.integers(0, 3, (n, 1), np.uint64)
    else:
        codes = make_codes(rng, n, 64)
        near = np.argsort(np.bitwise_count(codes[:, 0]), kind="stable")
        codes = codes[near if data == "near-to-far" else near[::-1]]
    ids = None if order == "ascending" else rng.permutation(n) - n // 2
    for k in (1, 10, 300, 2000):
        check_search(codes, queries, k, ids)
    check_search(codes, queries, 300, ids, n_threads=3)
    if data in ("equal", "few values"):
        check_radius(codes[:3000], queries, 3, None if ids is None else ids[:3000])


def test_sample_that_misleads(isa):
    """The sampled positions are nearer than all else: too small a first threshold, so a second search is needed."""
    n, k = 100_000, 64
    codes = make_codes(np.random.default_rng(2), n, 64)
    m = n // 512 // 8 * 8
    codes[[i * n // m for i in range(12)]] = 0
    for n_queries in (1, 9):
        check_search(codes, np.zeros((n_queries, 1), np.uint64), k)


@pytest.mark.parametrize("n_bits", [64, 100, 256])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.97, 1.0])
def test_filters(isa, share, n_bits):
    rng = np.random.default_rng(3)
    n = 20_011
    codes = make_codes(rng, n, n_bits)
    mask = rng.random(n) < share
    ids = rng.permutation(n)
    for n_queries in (1, 9):
        queries = make_codes(rng, n_queries, n_bits)
        for k in (1, 50):
            check_search(codes, queries, k, None, mask)
            check_search(codes, queries, k, ids, mask, 2)
        check_radius(codes, queries, int(0.4 * n_bits), ids, mask)


def test_filter_bits_beyond_the_end_do_not_count(isa):
    codes = make_codes(np.random.default_rng(4), 70, 64)
    bitmap = np.full(2, 2**64 - 1, np.uint64)
    for n_queries in (1, 9):
        distances, ids = _search.search(make_snapshot(codes), PackedQueries(codes[:n_queries]), 80, bitmap)
        assert (ids[:, 70:] == -1).all() and (np.sort(ids[:, :70]) == np.arange(70)).all()
        assert (distances[:, 70:] == _search.PAD_DISTANCE).all()


def test_threads_batches_and_splits_do_not_matter(isa):
    rng = np.random.default_rng(5)
    n = 60_000
    codes, queries = make_codes(rng, n, 64), make_codes(rng, 300, 64)
    codes[::3] &= np.uint64(0xFFF)  # ties
    queries[::2] &= np.uint64(0xFFFF)
    for ids in (None, rng.permutation(n)):
        snapshot = make_snapshot(codes, ids)
        expected = _search.search(snapshot, PackedQueries(queries), 20)
        np.testing.assert_array_equal(expected[1][:20], brute(codes, queries[:20], 20, ids)[1])
        radius = _search.radius_search(snapshot, PackedQueries(queries), 12)
        for n_threads in (2, 3, 7):
            for part in (queries, queries[:1], queries[:31]):
                got = _search.search(snapshot, PackedQueries(part), 20, None, n_threads)
                np.testing.assert_array_equal(got[0], expected[0][: len(part)])
                np.testing.assert_array_equal(got[1], expected[1][: len(part)])
            again = _search.radius_search(snapshot, PackedQueries(queries), 12, None, n_threads)
            for a, b in zip(again, radius):
                np.testing.assert_array_equal(a, b)
        one_by_one = [_search.search(snapshot, PackedQueries(queries[i : i + 1]), 20)[1][0] for i in range(50)]
        np.testing.assert_array_equal(one_by_one, expected[1][:50])


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_stretch_of_positions(isa, n_threads):
    rng = np.random.default_rng(11)
    codes, ids = make_codes(rng, 2000, 64), rng.permutation(2000)
    snapshot, queries = make_snapshot(codes, ids), codes[:40]
    mask = rng.random(2000) < 0.5
    for first, end in ((0, 512), (512, 1536), (1536, 2000), (1024, 5000), (1536, 1537), (0, None), (2048, 2560)):
        for part in (queries, queries[:2]):
            offsets, _, found = _search.radius_search(
                snapshot, PackedQueries(part), 30, make_bitmap(mask), n_threads, True, first, end
            )
            near = (all_distances(codes, part) <= 30) & mask
            near[:, :first] = False
            near[:, 2000 if end is None else end :] = False
            np.testing.assert_array_equal(np.diff(offsets), near.sum(1))
            for i in range(len(part)):
                np.testing.assert_array_equal(np.sort(found[offsets[i] : offsets[i + 1]]), np.flatnonzero(near[i]))


def test_read_only_map(isa, tmp_path):
    codes = make_codes(np.random.default_rng(6), 1000, 128)
    make_blocks(codes).tofile(tmp_path / "blocks")
    blocks = np.memmap(tmp_path / "blocks", np.uint64, mode="r")
    got = _search.search(make_snapshot(codes, blocks=blocks), PackedQueries(codes[:10]), 4)
    np.testing.assert_array_equal(got[1], brute(codes, codes[:10], 4)[1])


def test_concurrent_searches(isa):
    rng = np.random.default_rng(7)
    codes, queries = make_codes(rng, 30_000, 128), make_codes(rng, 40, 128)
    snapshot = make_snapshot(codes)
    expected = brute(codes, queries, 10)
    wrong = []

    def work():
        for _ in range(5):
            got = _search.search(snapshot, PackedQueries(queries), 10, None, 2)
            if not (np.array_equal(got[0], expected[0]) and np.array_equal(got[1], expected[1])):
                wrong.append(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_can_search():
    """After a search with several threads in the parent, whose OpenMP threads the child does not have."""
    from aphash import HammingIndex

    codes = make_codes(np.random.default_rng(8), 100_000, 64)
    index = HammingIndex(64)
    index.add(codes)
    expected = index.search(codes[:40], 5, n_jobs=2)[1]
    for _ in range(10):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            same = all(np.array_equal(index.search(codes[:40], 5, n_jobs=j)[1], expected) for j in (2, None))
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("search", ["search", "radius_search"])
def test_interrupt(isa, search):
    """A signal's exception comes out of a long search soon, and not at its end."""
    codes = make_codes(np.random.default_rng(9), 200_000, 256)
    snapshot = make_snapshot(codes)
    queries = np.tile(codes[:1000], (100, 1))  # tens of seconds on the fastest set

    class Interrupted(Exception):
        pass

    def handler(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        start = time.monotonic()
        with pytest.raises(Interrupted):
            getattr(_search, search)(snapshot, PackedQueries(queries), 5)
        assert time.monotonic() - start < 10  # not a measurement: the whole search takes far longer
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_set_isa_refuses_what_cannot_run():
    with pytest.raises(ValueError, match="isa must be one of base"):
        _kernels.set_isa("mmx")


def test_environment_names_the_instruction_set():
    import subprocess
    import sys

    code = "from aphash import _kernels; print(_kernels.isa())"
    for name in ISAS:
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "APHASH_ISA": name}, capture_output=True, text=True
        )
        assert done.stdout.strip() == name
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "APHASH_ISA": "mmx"}, capture_output=True, text=True
    )
    assert done.returncode != 0 and "APHASH_ISA='mmx'" in done.stderr
