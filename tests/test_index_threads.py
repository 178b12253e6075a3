"""Several threads search an index while another one changes it: every result is that of before or of after a change."""

import threading

import numpy as np
import pytest

from aphash import HammingIndex, ProjectionRescore, pack_codes

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
            index.update(some, more)
        else:
            index.add(more, np.arange(N, N + 500))

    def back():
        if change == "update":
            index.update(some, np.array([before[i] for i in some.tolist()]))
        else:
            index.remove(np.arange(N, N + 500))

    calls = {
        "search": lambda: index.search(queries, 20, n_jobs=1),
        "filter": lambda: index.search(queries, 20, filter=np.arange(0, N + 500, 3), n_jobs=1),
        "rescore": lambda: index.search(
            queries, 20, rescore=ProjectionRescore(factor=4), rescore_queries=projections, n_jobs=1
        ),
        "radius": lambda: index.radius_search(queries, 25, n_jobs=1),
        "get": lambda: (index.get(some),),
        "graph": lambda: (index.knn_graph(1, n_jobs=1).shape,),
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
