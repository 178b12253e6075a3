"""Beside what people use today: peers.py recall | scan [--datasets cnn sentences] [--data-dir DATA].

``recall``: VectorIndex and its peers at a recall of .95.
For every contender ``build_...`` is what its user writes to get from vectors to an index, and ``search_...`` what he
writes to ask it; their lines are counted. Vectors are kept for ranking where the contender can keep them. Its effort
(candidates for each result, or the width of a graph's search) is the least of a ladder that reaches the recall on the
test queries; ours is what VectorIndex chooses by itself, without seeing them. One thread; the searches are interleaved,
and a ratio is the median of the rounds'. Bytes are those of codes and kept vectors, an item.
``scan``: what a search of codes alone takes, 500 queries, k = 100, one thread, interleaved.
"""

import argparse
import inspect
import json
import statistics
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import usearch.index

import aphash

sys.path.insert(0, str(Path(__file__).parents[1] / "quality"))
from one_object import loaded, unit

RECALL, K = 0.95, 10
LADDER = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["recall", "scan"])
    parser.add_argument("--datasets", nargs="+", default=["cnn", "sentences"])
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="add a line a contender to this file")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    for name in arguments.datasets:
        X, Q = (unit(each).astype(np.float32) for each in loaded(name, arguments.data_dir))
        for line in (compared if arguments.what == "recall" else scans)(X, Q, arguments.rounds):
            line = {"dataset": name, "n": len(X), "d": X.shape[1]} | line
            print(json.dumps(line), flush=True)
            if arguments.json:
                with open(arguments.json, "a") as file:
                    file.write(json.dumps(line) + "\n")


# ---- what a user writes ----


def build_ours(X):
    return aphash.VectorIndex(64, keep="int8", random_state=0, n_jobs=1).fit(X)


def search_ours(index, Q, effort):
    return index.search(Q, 10, recall=0.95).ids


def build_factory(X, description):
    index = faiss.index_factory(X.shape[1], description, faiss.METRIC_INNER_PRODUCT)
    index.train(X)
    index.add(X)
    return index


def search_refined(index, Q, effort):
    return index.search(Q, 10, params=faiss.IndexRefineSearchParameters(k_factor=effort))[1]


def build_binary(X):
    codes = np.packbits(X > 0, axis=1)
    index = faiss.IndexBinaryFlat(X.shape[1])
    index.add(codes)
    scales = np.abs(X).max(axis=0) / 127
    return index, np.rint(X / scales).astype(np.int8), scales


def search_binary(built, Q, effort):
    index, rows, scales = built
    candidates = index.search(np.packbits(Q > 0, axis=1), 10 * effort)[1]
    scores = np.einsum("qcd,qd->qc", rows[candidates], Q * scales, dtype=np.float32)
    order = np.argsort(-scores, axis=1)[:, :10]
    return np.take_along_axis(candidates, order, axis=1)


def build_graph(X):
    index = usearch.index.Index(ndim=X.shape[1], metric="cos", dtype="f16")
    index.add(np.arange(len(X)), X, threads=1)
    return index


def search_graph(index, Q, effort):
    index.expansion_search = 10 * effort
    return index.search(Q, 10, threads=1).keys


def build_floats(X):
    index = faiss.IndexFlatIP(X.shape[1])
    index.add(X)
    return index


def search_floats(index, Q, effort):
    return index.search(Q, 10)[1]


# ---- how they are compared ----


def contenders(d):
    """Yield (name, build, search, bytes of an item from what was built, ladder)."""

    def refined(description):
        def build_refined(X):
            return build_factory(X, description)

        return build_refined

    def nbytes(index, n):
        found = index.info()
        return found["code_bytes"] + found["vector_bytes"]

    yield "aphash VectorIndex, 64 bits, int8", build_ours, search_ours, nbytes, (None,)
    for code, size in (("OPQ8,PQ8", 8), ("PCAR64,PQ16x4fs", 8), ("RaBitQ", d // 8 + 8)):
        yield (
            f"faiss {code}, int8",
            refined(f"{code},Refine(SQ8)"),
            search_refined,
            lambda index, n, size=size: size + d,
            LADDER,
        )
    yield "sign bits, int8 (as with ST)", build_binary, search_binary, lambda built, n: d / 8 + d, LADDER
    yield "usearch f16", build_graph, search_graph, lambda index, n: index.memory_usage / n, LADDER
    yield "faiss flat, float32", build_floats, search_floats, lambda index, n: 4 * d, (None,)


def compared(X, Q, rounds):
    """Yield a line a contender."""
    true = search_floats(build_floats(X), Q, None)
    found = []
    for who, build, search, nbytes, ladder in contenders(X.shape[1]):
        start = time.perf_counter()
        built = build(X)
        build_s = time.perf_counter() - start
        for effort in ladder:
            recall = np.mean([np.isin(a, b).mean() for a, b in zip(search(built, Q, effort), true, strict=True)])
            if recall >= RECALL:
                break
        source = build_factory if build.__name__ == "build_refined" else build
        found.append(
            {
                "who": who, "lines": lines_of(source) + lines_of(search), "bytes": nbytes(built, len(X)),
                "build_s": round(build_s, 1), "effort": "own" if effort is None else effort,
                "recall": round(float(recall), 4), "search": (search, built, effort), "seconds": [],
            }
        )  # fmt: skip
    for _ in range(rounds):
        for each in found:
            search, built, effort = each["search"]
            start = time.perf_counter()
            search(built, Q, effort)
            each["seconds"].append(time.perf_counter() - start)
    own = found[0]["seconds"]
    for each in found:
        each["queries_s"] = round(len(Q) / statistics.median(each["seconds"]))
        each["times"] = round(statistics.median(b / a for a, b in zip(own, each["seconds"], strict=True)), 2)
        del each["search"], each["seconds"]
        yield each


def scans(X, Q, rounds):
    """Yield a line a kind of code; none is ranked anew."""
    Q, d = Q[:500], X.shape[1]
    hasher = aphash.APHash(64, random_state=0, n_jobs=1).fit(X)
    ours, binary, signs = aphash.HammingIndex(64), faiss.IndexBinaryFlat(64), faiss.IndexBinaryFlat(d // 8 * 8)
    codes, query_codes, weights = hasher.transform(X), hasher.transform(Q), hasher.query_projections(Q)
    ours.add(codes)
    binary.add(codes.view(np.uint8))
    signs.add(np.packbits(X > 0, axis=1))
    query_signs = np.packbits(Q > 0, axis=1)
    searches = {
        "aphash, by codes": lambda: ours.search(query_codes, 100, n_jobs=1),
        "aphash, by weights": lambda: ours.search(weights, 100, n_jobs=1),
        "faiss binary, 8 bytes": lambda: binary.search(query_codes.view(np.uint8), 100),
        f"faiss binary, {d // 8} bytes of signs": lambda: signs.search(query_signs, 100),
    }
    for description in ("PQ8", "PQ16x4fs", "PCA64,RaBitQ", "RaBitQ", "Flat"):
        index = build_factory(X, description)
        searches[f"faiss {description}"] = lambda index=index: index.search(Q, 100)
    mine, theirs = searches["aphash, by codes"](), searches["faiss binary, 8 bytes"]()
    assert np.array_equal(mine[0], theirs[0])
    seconds = {name: [] for name in searches}
    for _ in range(rounds):
        for name, search in searches.items():
            start = time.perf_counter()
            search()
            seconds[name].append(time.perf_counter() - start)
    for name, own in seconds.items():
        ratios = [a / b for a, b in zip(own, seconds["aphash, by codes"], strict=True)]
        yield {"who": name, "ms": round(1000 * statistics.median(own), 1), "times": round(statistics.median(ratios), 2)}


def lines_of(function):
    return len(inspect.getsource(function).splitlines()) - 1


if __name__ == "__main__":
    main()
