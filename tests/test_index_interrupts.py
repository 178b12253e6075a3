"""Exceptions from signal handlers, and forks, at any moment leave an index as it was or as it is after the change."""

import os
import random
import signal
import sys
import threading
import time

import numpy as np
import pytest

from aphash import HammingIndex
from aphash._searching import _store

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Stop(Exception):
    pass


@pytest.fixture
def alarm():
    """SIGALRM raises Stop."""

    def handler(*_):
        raise Stop

    before = signal.signal(signal.SIGALRM, handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def interrupt_at_random(turns, path, seed=0):
    """Interrupt loops of calls; return the number of interrupts of each. The model is a dict of ids and codes."""
    rng, draw = np.random.default_rng(seed), random.Random(seed)
    index, before = HammingIndex(64), {}
    counts = {}

    def some(n):
        return draw.sample(sorted(before), min(n, len(before)))

    def codes(n):
        return rng.integers(0, 2**20, (n, 1)).astype(np.uint64)

    def add():
        new = codes(draw.choice([1, 7, 300]))
        first = index._store.present.next_id
        after = before | dict(zip(range(first, first + len(new)), new[:, 0].tolist()))
        return after, lambda: index.add(new)

    def add_shuffled():
        new = codes(draw.choice([1, 7, 300]))
        first = index._store.present.next_id
        ids = list(range(first, first + len(new)))
        draw.shuffle(ids)
        return before | dict(zip(ids, new[:, 0].tolist())), lambda: index.add(new, ids)

    def remove():
        ids = some(draw.choice([1, 5, 200]))
        return {i: code for i, code in before.items() if i not in set(ids)}, lambda: index.remove(ids)

    def update():
        ids = some(draw.choice([1, 5, 200]))
        new = codes(len(ids))
        return before | dict(zip(ids, new[:, 0].tolist())), lambda: index.update(new, ids)

    def upsert():
        ids = list({*some(5), *range(10**6, 10**6 + draw.choice([0, 3, 100]))})
        new = codes(len(ids))
        return before | dict(zip(ids, new[:, 0].tolist())), lambda: index.upsert(new, ids)

    calls = {
        "add": add, "add shuffled": add_shuffled, "remove": remove, "update": update, "upsert": upsert,
        "search": lambda: (before, lambda: index.search(codes(3), 3, n_jobs=1)),
        "in": lambda: (before, lambda: 7 in index),
        "build_lookup": lambda: (before, lambda: index.build_lookup(max_scan_fraction=np.inf)),
        "compact": lambda: (before, index.compact),
        "save": lambda: (before, lambda: index.save(path)),
    }  # fmt: skip
    for turn in range(turns):
        if len(before) > 3000:
            index.remove(sorted(before)[1000:])
            before = {i: before[i] for i in sorted(before)[:1000]}
        name = draw.choice(list(calls))
        after = before
        try:
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0002, 0.003))
            while True:
                after, call = calls[name]()
                call()
                before = after
        except Stop:
            counts[name] = counts.get(name, 0) + 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        ids, held = index.snapshot()
        content = dict(zip(ids.tolist(), held[:, 0].tolist()))
        assert content in (before, after), f"turn {turn}: an interrupted {name} is neither before nor after"
        before = content
        if turn % 8 == 0 and before:  # tables, scan and table of ids agree, and the index can be changed
            offsets, _, found = index.radius_search(held[:50], 0, n_jobs=1)
            for i in range(len(held[:50])):
                assert found[offsets[i] : offsets[i + 1]].tolist() == np.sort(ids[held[:, 0] == held[i, 0]]).tolist()
            assert np.array_equal(index.get(ids), held)
            new = codes(1)
            before |= {index.add(new).item(): new.item()}
        if name == "save" and os.path.exists(path):
            HammingIndex.load(path)
    return counts


def test_interrupts_leave_the_index_before_or_after_the_change(alarm, small_pages, tmp_path):
    assert sum(interrupt_at_random(400, tmp_path / "index").values()) == 400


def test_a_change_inside_a_change_of_the_same_thread_is_refused(small_pages):
    """As a finaliser asks for that runs while a change allocates; waiting would be for ever."""
    index = HammingIndex(64)
    index.add(np.zeros((600, 1), np.uint64))
    seen = []

    def handler(*_):
        try:
            index.remove([0], missing="ignore")
        except RuntimeError as error:
            seen.append(str(error))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        deadline = time.monotonic() + 60
        while not seen and time.monotonic() < deadline:
            index.add(np.zeros((1 << 21, 1), np.uint64), np.arange(10, 10 + (1 << 21))[::-1] + 10**7)
            index.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "being changed by this thread" in seen[0]
    index.add(np.zeros((1, 1), np.uint64))  # and the lock is free again


def in_child(work):
    """Run work in a forked child; return its exit code, or None if it hung."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("busy", ["add", "shuffled", "remove", "update", "search", "save", "build_lookup", "find"])
def test_a_child_forked_at_any_moment_has_a_whole_index(busy, tmp_path, small_pages):
    """While another thread changes, searches or saves the index; the child searches and changes what it has."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**64, (20_000, 1), np.uint64)
    index = HammingIndex(64)
    index.add(codes)
    index.remove([3])
    index.build_lookup()
    saved = tmp_path / "index"
    index.save(saved)
    stop = threading.Event()
    calls = {
        "add": lambda: index.add(codes[:500]),
        "shuffled": lambda: index.add(codes[:500], rng.permutation(500) + index._store.present.next_id),
        "remove": lambda: index.remove(index.add(codes[:500])[::3]),
        "update": lambda: index.update(codes[:500], np.arange(4, 504)),
        "search": lambda: index.search(codes[:50], 10, n_jobs=1),
        "save": lambda: index.save(saved),
        "build_lookup": lambda: index.build_lookup(),
        "find": lambda: 10**9 in HammingIndex.load(saved, mmap=True),
    }

    def work():
        while not stop.is_set():
            calls[busy]()

    def child():
        ids, held = index.snapshot()
        assert np.array_equal(index.get(ids), held)
        new = index.add(held[:700])
        index.remove(ids[:1000])
        index.update(held[:100], ids[1000:1100])
        assert len(index) == len(ids) + 700 - 1000
        assert np.array_equal(index.get(new), held[:700]) and not index.contains(ids[:1000]).any()
        assert 10**9 not in HammingIndex.load(saved)
        index.build_lookup(max_scan_fraction=np.inf)
        found = index.search(held[2000:2010], 1, n_jobs=1)
        assert (found[0] == 0).all()
        index.compact()
        index.save(saved.with_name("child"))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(8):
            time.sleep(random.uniform(0, 0.01))
            assert in_child(child) == 0
    finally:
        stop.set()
        thread.join()


def test_searches_do_not_wait_for_a_save_or_a_change(monkeypatch, tmp_path):
    """While a save is stuck in the file system, others search and change; the file holds what was there at the call."""
    codes = np.arange(2000, dtype=np.uint64)[:, None]
    index = HammingIndex(64)
    index.add(codes)
    stuck, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(fd):
        stuck.set()
        assert go_on.wait(60)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", slow)
    saver = threading.Thread(target=index.save, args=(tmp_path / "index",))
    saver.start()
    assert stuck.wait(60)
    index.add(codes[:1])
    index.update(codes[1:2], [0])
    index.remove([1])
    assert index.search(codes[1], 1)[1].item() == 0 and len(index) == 2000
    go_on.set()
    saver.join()
    assert HammingIndex.load(tmp_path / "index").snapshot()[1].tolist() == codes.tolist()


def test_a_filter_may_ask_the_index():
    """What the caller passes in is read where nothing is locked."""
    index = HammingIndex(64)
    index.add(np.arange(5, dtype=np.uint64)[:, None])

    class Lazy:
        def __array__(self, dtype=None, copy=None):
            index.remove([0])
            return np.array([i for i in range(5) if i in index], dtype)

    assert index.search(np.zeros(1, np.uint64), 3, filter=Lazy())[1].tolist() == [1, 2, 4]


if __name__ == "__main__":  # the long run: python tests/test_index_interrupts.py TURNS [SEED]
    import tempfile

    def handler(*_):
        raise Stop

    signal.signal(signal.SIGALRM, handler)
    _store.set_page_bytes(0)
    with tempfile.TemporaryDirectory() as folder:
        counts = interrupt_at_random(int(sys.argv[1]), f"{folder}/index", int((sys.argv[2:] or [0])[0]))
    print(counts)
