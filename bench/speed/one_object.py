"""VectorIndex beside its parts called by hand, and the recall that it promises: one_object.py time | recall.

``time``: the same search, changes and files, in turn, with equal results checked; medians of the rounds' ratios.
``recall``: searches with recall=R beside brute force over floats, by queries that were never seen, of the data sets of
quality/datasets.py or of clusters that are made here (--datasets made).
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import aphash
from aphash import HammingIndex, VectorIndex, VectorRescore

sys.path.insert(0, str(Path(__file__).parents[1] / "quality"))
import datasets


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["time", "recall"])
    parser.add_argument("--datasets", nargs="+", default=["made"])
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--n-bits", type=int, default=64)
    parser.add_argument("--mode", default="scores")
    parser.add_argument("--keep", default="float16")
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="add a line a measurement to this file")
    arguments = parser.parse_args()
    for name in arguments.datasets:
        X, Q = made() if name == "made" else loaded(name, arguments.data_dir)
        start = time.perf_counter()
        index = VectorIndex(
            arguments.n_bits, mode=arguments.mode, keep=arguments.keep, random_state=0, n_jobs=arguments.n_jobs
        ).fit(X)
        about = {"dataset": name, "n": len(X), "d": X.shape[1], "n_bits": arguments.n_bits, "mode": arguments.mode}
        about |= {"keep": arguments.keep, "fit_s": round(time.perf_counter() - start, 1)}
        for line in (times if arguments.what == "time" else recalls)(index, X, Q, arguments):
            print(json.dumps(about | line), flush=True)
            if arguments.json:
                with open(arguments.json, "a") as file:
                    file.write(json.dumps(about | line) + "\n")


def made(n=20_000, d=128):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((300, d))
    X = centres[rng.integers(300, size=n + 1000)] + 0.7 * rng.standard_normal((n + 1000, d))
    return X[:n].astype(np.float32), X[n:].astype(np.float32)


def loaded(name, data_dir):
    dataset = datasets.load(name, data_dir, data_dir)
    database, queries = datasets.split(dataset)
    return dataset.X[database].astype(np.float32), dataset.X[queries].astype(np.float32)


def times(index, X, Q, arguments):
    """Yield the ratio of the object's time to that of its parts."""
    encoder, jobs = index.encoder_, arguments.n_jobs
    kept = X.astype(arguments.keep)  # as VectorIndex keeps them, but for int8
    codes = HammingIndex(arguments.n_bits)
    codes.add(encoder.transform(unit(X)))

    def object_search(k, candidates):
        return index.search(Q, k, candidates=candidates)

    def by_hand(k, candidates):
        rescore = VectorRescore(kept, metric="cosine", factor=candidates // k)
        weights = encoder.query_projections(unit(Q))
        return codes.search(weights, k, rescore=rescore, rescore_queries=Q, n_jobs=jobs)

    def object_codes(k, _):
        return index.search(Q, k, candidates=0)

    def codes_by_hand(k, _):
        return codes.search(encoder.query_projections(unit(Q)), k, n_jobs=jobs)

    for what, ours, hand, k, candidates in (
        ("codes alone", object_codes, codes_by_hand, 10, 0),
        ("rescored", object_search, by_hand, 10, 300),
        ("rescored", object_search, by_hand, 100, 1000),
    ):
        seconds = {"object": [], "by hand": []}
        for _ in range(arguments.rounds):
            one = timed(seconds["object"], ours, k, candidates)
            two = timed(seconds["by hand"], hand, k, candidates)
            assert np.array_equal(one[1], two[1])
        ratios = [a / b for a, b in zip(seconds["object"], seconds["by hand"], strict=True)]
        yield {
            "what": what, "k": k, "candidates": candidates, "queries": len(Q),
            "ms": round(1000 * statistics.median(seconds["object"]), 1), "ratio": round(statistics.median(ratios), 3),
        }  # fmt: skip
    seconds = {"object": [], "by hand": []}
    rows = unit(Q)
    for _ in range(arguments.rounds):
        own = timed(seconds["object"], index.add, Q)
        index.remove(own)
        codes.remove(timed(seconds["by hand"], lambda: codes.add(encoder.transform(rows))))
    ratios = [a / b for a, b in zip(seconds["object"], seconds["by hand"], strict=True)]
    yield {"what": "add, beside codes alone", "rows": len(Q), "ratio": round(statistics.median(ratios), 3)}
    with tempfile.TemporaryDirectory() as folder:
        opened = []
        index.save(Path(folder) / "index")
        for _ in range(arguments.rounds):
            timed(opened, lambda: VectorIndex.load(Path(folder) / "index", mmap=True))
        yield {"what": "open mapped", "ms": round(1000 * statistics.median(opened), 2), "version": aphash.__version__}


def recalls(index, X, Q, _):
    """Yield promised and found recall, with its standard error."""
    X, Q = unit(X), unit(Q)
    true = np.argsort(-(Q @ X.T), axis=1, kind="stable")[:, :100]
    for k in (1, 3, 10, 30, 100):
        for recall in (0.8, 0.9, 0.95, 0.98):
            try:
                result = index.search(Q, k, recall=recall)
            except ValueError as error:
                yield {"k": k, "recall": recall, "refused": str(error)}
                continue
            found = np.array([np.isin(a, b).mean() for a, b in zip(result.ids, true[:, :k], strict=True)])
            yield {
                "k": k, "recall": recall, "found": round(found.mean(), 4),
                "error": round(found.std() / np.sqrt(len(found)), 4), "candidates": result.candidates,
            }  # fmt: skip


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def timed(seconds, function, *args):
    start = time.perf_counter()
    result = function(*args)
    seconds.append(time.perf_counter() - start)
    return result


if __name__ == "__main__":
    main()
