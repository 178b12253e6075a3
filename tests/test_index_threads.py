"""Several threads search an index while another one changes it: every result is that of before or of after a change."""

import faulthandler
import os
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

from aphash import HammingIndex, pack_codes

N = 3000


@pytest.mark.parametrize("change", ["add and remove", "update"])
@pytest.mark.parametrize("lookup", [False, True])
def test_results_are_of_before_or_after_a_change(rng, change, lookup):
    codes, more, queries = (pack_codes(rng.standard_normal((n, 64))) for n in (N, 500, 4))
    projections = rng.standard_normal((4, 64))
    index = HammingIndex(64)
    index.add(codes, rng.permutation(N))
    if lookup:
        index.build_lookup()
    some = np.arange(0, N, 6)
    before = {int(i): c for i, c in zip(index.ids, index.codes)}

    def forth():
        if change == "update":
            index.update(more, some)
        else:
            index.add(more, np.arange(N, N + 500))

    def back():
        if change == "update":
            index.update(np.array([before[i] for i in some.tolist()]), some)
        else:
            index.remove(np.arange(N, N + 500))

    calls = {
        "search": lambda: index.search(queries, 20, n_jobs=1),
        "filter": lambda: index.search(queries, 20, filter=np.arange(0, N + 500, 3), n_jobs=1),
        "weights": lambda: index.search(projections, 20, n_jobs=1),
        "radius": lambda: index.radius_search(queries, 25, n_jobs=1),
        "get": lambda: (index.get(some),),
        "graph": lambda: (index.knn_graph(1, n_jobs=1)[1].shape,),
        "whole": lambda: (np.sort(index.codes, axis=0),),
    }
    old = {name: call() for name, call in calls.items()}
    forth()
    new = {name: call() for name, call in calls.items()}
    back()
    if change == "update":
        assert not np.array_equal(old["search"][1], new["search"][1])
    failures, counts, stop = [], dict.fromkeys(calls, 0), threading.Event()

    def read():
        while not stop.is_set():
            for name, call in calls.items():
                try:
                    found = call()
                except Exception as error:
                    failures.append((name, error))
                    return
                if not any(all(map(np.array_equal, found, known[name])) for known in (old, new)):
                    failures.append((name, "between"))
                    return
                counts[name] += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    changes = 0
    while (changes < 30 or min(counts.values()) < 8) and not failures:
        forth()
        back()
        changes += 1
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures


def soak(seconds, folder, n_writers=3, seed=0):
    """Threads add, remove, update, upsert, search, save, map, build tables and fork, side by side, against a model.

    A code is its id and a version. Ids go by fours, a four has one version and is changed by one call: whatever is seen
    of an index, in a search, a file, a child, holds whole fours of one version. Each writer owns the fours whose number
    is its own modulo n_writers, so the end is known. Returns how often each thing was done.
    """
    index, models, failures, counts = HammingIndex(64), [{} for _ in range(n_writers)], [], {}
    index.build_lookup(max_scan_fraction=np.inf)
    end = time.monotonic() + seconds

    def codes_of(ids, version):
        return (np.asarray(ids, np.uint64) << np.uint64(24) | np.uint64(version))[:, None]

    def check(ids, codes):
        assert np.array_equal(codes[:, 0] >> np.uint64(24), ids.astype(np.uint64)), "a code of another id"
        order = np.argsort(ids)
        ids, versions = ids[order].reshape(-1, 4), (codes[order, 0] & np.uint64(0xFFFFFF)).reshape(-1, 4)
        assert (ids - ids[:, :1] == np.arange(4)).all() and (ids[:, 0] % 4 == 0).all(), "half a four"
        assert (versions == versions[:, :1]).all(), "two versions in a four"

    def write(number):
        rng, model, version = np.random.default_rng([seed, number]), models[number], 0
        while time.monotonic() < end:
            version = (version + 1) & 0xFFFFFF
            what = rng.choice(["add", "remove", "update", "upsert"], p=[0.3, 0.25, 0.25, 0.2])
            known = np.array(sorted(model), np.int64)
            some = rng.permutation(known)[: rng.integers(1, 60)] if len(known) else known
            new = np.setdiff1d(rng.integers(0, 3000, rng.integers(1, 60)) * n_writers + number, known)
            if len(known) > 2000:
                some, what = rng.permutation(known)[:1500], "remove"
            fours = {"add": new, "remove": some, "update": some, "upsert": np.union1d(some[:20], new[:20])}[what]
            ids = (fours[:, None] * 4 + np.arange(4)).ravel()
            if what == "remove":
                index.remove(ids)
                for four in fours.tolist():
                    del model[four]
            else:
                getattr(index, what)(codes_of(ids, version), ids)
                model.update(dict.fromkeys(fours.tolist(), version))
            counts[what] = counts.get(what, 0) + 1

    def read():
        rng = np.random.default_rng([seed, 100])
        while time.monotonic() < end:
            ids, codes = index.snapshot()
            check(ids, codes)
            if len(ids):
                queries = codes[rng.integers(0, len(ids), 8)]
                distances, found = index.search(queries, 3, n_jobs=1)
                assert (distances[:, 1:] >= distances[:, :-1]).all()
                _, distances, found = index.radius_search(queries, 0, n_jobs=1)
                assert (distances == 0).all() and np.isin(found, queries[:, 0] >> np.uint64(24)).all()
                filter = rng.permutation(ids)[: len(ids) // 2]
                assert np.isin(index.search(queries, 2, filter=filter, n_jobs=1)[1], [*filter, -1]).all()
            counts["read"] = counts.get("read", 0) + 1

    def keep():
        path = folder / "index"
        while time.monotonic() < end:
            index.save(path)
            for mmap in (False, True):
                loaded = HammingIndex.load(path, mmap=mmap)
                check(*loaded.snapshot())
                own = loaded.ids
                loaded.remove(own[: len(own) // 8 * 4])
                loaded.add(codes_of(np.arange(4) + 10**9, 1), np.arange(4) + 10**9)
                assert np.array_equal(loaded.get(loaded.ids), loaded.codes)
            index.build_lookup(max_scan_fraction=np.inf)
            counts["keep"] = counts.get("keep", 0) + 1

    def guarded(work, *args):
        try:
            work(*args)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(write, i)) for i in range(n_writers)]
    threads += [threading.Thread(target=guarded, args=(work,)) for work in (read, read, keep)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end and not failures:
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(60, exit=True)
            try:
                check(*index.snapshot())
                index.upsert(codes_of(np.arange(8), 7), np.arange(8))
                index.compact()
                check(*index.snapshot())
                assert np.array_equal(index.get(index.ids), index.codes)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if status:
            failures.append(f"a child hung or failed: {os.waitstatus_to_exitcode(status)}")
        counts["fork"] = counts.get("fork", 0) + 1
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    versions = {four: version for model in models for four, version in model.items()}
    ids, codes = index.snapshot()
    assert sorted(ids.tolist()) == sorted(4 * four + j for four in versions for j in range(4))
    assert np.array_equal(
        codes, codes_of(ids, 0) | np.array([versions[i // 4] for i in ids.tolist()], np.uint64)[:, None]
    )
    return counts


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_everything_at_once(tmp_path, small_pages):
    assert set(soak(4, tmp_path)) == {"add", "remove", "update", "upsert", "read", "keep", "fork"}


if __name__ == "__main__":  # the long run: python tests/test_index_threads.py SECONDS
    from aphash._searching import _store

    _store.set_page_bytes(0)
    with tempfile.TemporaryDirectory() as folder:
        print(soak(float(sys.argv[1]), Path(folder)))
