"""Recall after rescoring against queries a second, at equal bytes: curve.py [--datasets cnn sentences descriptors].

    python bench/speed/curve.py --data-dir DATA --cache WORK/features --json bench/measurements/curve.jsonl \\
                                --plot docs/recall_speed.svg
    python bench/speed/curve.py --only-plot --json bench/measurements/curve.jsonl --plot docs/recall_speed.svg

Every method scans codes of so many bytes at most, all of what it stores of an item counted. It takes a number of
candidates, and ranks them by the same float32 vectors, by Euclidean distance, k = 10. So recall10@10 is the share of
the true neighbours that are among the candidates. aphash ranks by VectorRescore, faiss by IndexRefineFlat. Behind
faiss's binary index and turbovec, which have no vectors, candidates are ranked by numpy, as people do it. Times are
those from queries in floats to results, in one batch, on one thread. They are CPU times, to which other programs that
run beside add little. In each round all methods take their turn with every number of candidates; the figure is the
median of the rounds. turbovec is measured where it is installed.
"""

import argparse
import datetime
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("RAYON_NUM_THREADS", "1")  # turbovec's threads

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

import aphash

sys.path.insert(0, str(Path(__file__).parents[1] / "quality"))
import baselines
import datasets
from run import Split, machine, versions

K = 10
CANDIDATES = (10, 20, 50, 100, 200, 500, 1000, 2000)
HIGHEST = 0.9995  # recall beyond which more candidates are of no interest
ROWS = {"descriptors": 200_000}  # of a set that would take too long
N_TRAIN = 20_000  # rows from which the rotation of OPQ is learned: of all rows it takes minutes and gains little
_CHUNK_BYTES = 1 << 25  # of candidates' vectors that numpy holds at a time
KEY = ("dataset", "n", "bytes", "method", "candidates")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["cnn", "sentences", "descriptors"], metavar="NAME")
    parser.add_argument("--bytes", nargs="+", type=int, default=[8, 16, 32], metavar="N")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help=f"of: {', '.join(METHODS)}")
    parser.add_argument("--queries", type=int, default=500, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--data-dir", metavar="DIR", default=os.environ.get("APHASH_DATA", "data"))
    parser.add_argument("--cache", metavar="DIR", help="features, as of quality/run.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a line a method and number of candidates")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw all lines of --json, or what was measured")
    parser.add_argument("--only-plot", action="store_true", help="measure nothing")
    options = parser.parse_args()
    unknown = set(options.methods or ()) - set(METHODS)
    if unknown:
        parser.error(f"--methods: unknown {', '.join(sorted(unknown))}; one of {', '.join(METHODS)}")
    lines = []
    if options.json and options.json.exists():
        lines = [json.loads(line) for line in options.json.read_text().splitlines()]
    if not options.only_plot:
        faiss.omp_set_num_threads(1)
        with threadpool_limits(1):
            for name in options.datasets:
                split = Split(datasets.load(name, options.data_dir, options.cache), "auto", 0, ROWS.get(name))
                for n_bytes in options.bytes:
                    lines = kept(lines, measured(split, n_bytes, options))
                    if options.json:
                        options.json.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for text in table(lines):
        print(text)
    if options.plot:
        plot(lines, options.plot)


def kept(old, new):
    """Return the old lines that are not measured again, and the new ones."""
    again = {tuple(line[name] for name in KEY) for line in new}
    return [line for line in old if tuple(line[name] for name in KEY) not in again] + new


# ---- the methods: build(X, n_bytes) returns search(Q, n_candidates), which returns ids (n_queries, 10), and the bytes
# of a code ----


def ours(mode, project):
    def build(X, n_bytes):
        learned = aphash.APHash(8 * n_bytes, mode=mode, random_state=0, n_jobs=1).fit(X)
        return by_weights(X, 8 * n_bytes, learned.transform(X), getattr(learned, project))

    return build


def itq_by_weights(X, n_bytes):
    learned = baselines.ITQ(8 * n_bytes).fit(X)
    return by_weights(X, 8 * n_bytes, learned.transform(X), learned.project)


def by_weights(X, n_bits, codes, project):
    index = aphash.HammingIndex(n_bits)
    index.add(codes)

    def search(Q, n_candidates):
        rescore = aphash.VectorRescore(X, factor=n_candidates // K)
        return index.search(project(Q), K, rescore=rescore, rescore_queries=Q, n_jobs=1)[1]

    return search, n_bits // 8


def binary(make):
    """Codes in faiss's binary index, and numpy."""

    def build(X, n_bytes):
        learned = make(8 * n_bytes).fit(X)
        index = faiss.IndexBinaryFlat(8 * n_bytes)
        index.add(learned.transform(X).view(np.uint8)[:, :n_bytes])
        in_numpy = ranked_in_numpy(X)

        def search(Q, n_candidates):
            codes = learned.transform(Q).view(np.uint8)[:, :n_bytes]
            return in_numpy(Q, index.search(codes, n_candidates)[1])

        return search, n_bytes

    return build


def ranked_in_numpy(X):
    """Return what ranks candidates (n_queries, n_candidates) by |x|^2 - 2 x q."""
    squares = np.einsum("nd,nd->n", X, X)

    def search(Q, candidates):
        out = np.empty((len(Q), K), np.int64)
        step = max(1, _CHUNK_BYTES // (candidates.shape[1] * X.shape[1] * 4))
        for start in range(0, len(Q), step):
            some = candidates[start : start + step]
            d = squares[some] - 2 * (X[some] @ Q[start : start + step, :, None])[:, :, 0]
            near = np.argpartition(d, K - 1, axis=1)[:, :K] if some.shape[1] > K else np.arange(K)[None]
            near = np.take_along_axis(near, np.argsort(np.take_along_axis(d, near, axis=1), axis=1), axis=1)
            out[start : start + step] = np.take_along_axis(some, near, axis=1)
        return out

    return search


def refined(describe):
    """An index of faiss, by the description that ``describe(n_bytes, d)`` returns, and its IndexRefineFlat."""

    def build(X, n_bytes):
        base = describe(n_bytes, X.shape[1])
        if isinstance(base, str):
            base = faiss.index_factory(X.shape[1], base)
        rotations = [base.chain.at(i) for i in range(base.chain.size())] if hasattr(base, "chain") else []
        for rotation in map(faiss.downcast_VectorTransform, rotations):
            if isinstance(rotation, faiss.OPQMatrix):
                rotation.max_train_points = N_TRAIN
        index = faiss.IndexRefineFlat(base)
        index.train(X)
        index.add(X)
        quantiser = faiss.downcast_index(base.index) if isinstance(base, faiss.IndexPreTransform) else base

        def search(Q, n_candidates):
            parameters = faiss.IndexRefineSearchParameters(k_factor=n_candidates / K)
            return index.search(Q, K, params=parameters)[1]

        return search, quantiser.code_size

    return build


def rabitq(kind):
    """8 of the bytes are two factors of float32, so 8 bytes hold no code."""

    def describe(n_bytes, d):
        if n_bytes <= 8:
            raise ValueError("its factors need 8 bytes an item")
        return f"PCAR{min(d, 8 * n_bytes - 64)},{kind}"

    return describe


def scalar(n_bits, kind):
    """A scalar quantiser of so many bits for each of the first components, rotated at random."""

    def describe(n_bytes, d):
        width = 8 * n_bytes // n_bits
        if width > d:
            raise ValueError(f"{d} numbers fill {d * n_bits // 8} bytes only")
        return faiss.IndexPreTransform(faiss.PCAMatrix(d, width, 0, True), faiss.IndexScalarQuantizer(width, kind))

    return describe


def turbo(X, n_bytes):
    """2 bits a component and 4 bytes of its own an item: it ranks by inner products, so components are not centred."""
    from turbovec import TurboQuantIndex

    width = min(X.shape[1], 4 * (n_bytes - 4))
    directions = np.linalg.eigh((X.T @ X).astype(np.float64))[1][:, ::-1][:, :width].astype(np.float32)
    index = TurboQuantIndex(width, 2)
    index.add(np.ascontiguousarray(X @ directions))
    index.prepare()
    in_numpy = ranked_in_numpy(X)

    def search(Q, n_candidates):
        return in_numpy(Q, index.search(np.ascontiguousarray(Q @ directions), n_candidates)[1])

    return search, width // 4 + 4


def components(n_bytes, d, n_parts):
    """Return of how many components the parts of PQ are: 8 a byte, as of bits, or as many as there are."""
    return min(8 * n_bytes, d // n_parts * n_parts)


METHODS = {  # "np": without the training for polysemous codes, which takes most of the time and is of no use here
    "APHash scores": ours("scores", "decision_function"),  # as a VectorIndex that keeps vectors asks
    "APHash scores, queries moved": ours("scores", "query_projections"),
    "ITQ, by weights in aphash": itq_by_weights,
    "ITQ, faiss binary and numpy": binary(baselines.ITQ),
    "PCA signs, faiss binary and numpy": binary(baselines.PCASigns),
    "PQ": refined(lambda n_bytes, d: f"PCAR{components(n_bytes, d, n_bytes)},PQ{n_bytes}np"),
    "OPQ": refined(lambda n_bytes, d: f"OPQ{n_bytes}_{components(n_bytes, d, n_bytes)},PQ{n_bytes}np"),
    "PQ fast scan": refined(lambda n_bytes, d: f"PCAR{components(n_bytes, d, 2 * n_bytes)},PQ{2 * n_bytes}x4fs"),
    "OPQ fast scan": refined(
        lambda n_bytes, d: f"OPQ{2 * n_bytes}_{components(n_bytes, d, 2 * n_bytes)},PQ{2 * n_bytes}x4fs"
    ),
    "PLSQ": refined(lambda n_bytes, d: f"PLSQ{n_bytes // 4}x3x8_Nqint8"),
    "RaBitQ (8 bytes are factors)": refined(rabitq("RaBitQ")),
    "RaBitQ fast scan (8 bytes are factors)": refined(rabitq("RaBitQfs")),
    "2 bits a component": refined(scalar(2, faiss.ScalarQuantizer.QT_2bit_tqmse)),
    "4 bits a component": refined(scalar(4, faiss.ScalarQuantizer.QT_4bit)),
    "turbovec, 2 bits a component (4 bytes are factors)": turbo,
}


# ---- measuring ----


def measured(split, n_bytes, options):
    """Return a line for each method and number of candidates."""
    X, Q = split.X, np.ascontiguousarray(split.Q[: options.queries])
    true = split.truth.neighbors[: len(Q)]
    runs = []
    for name in options.methods or METHODS:
        begun = time.perf_counter()
        try:
            search, code_bytes = METHODS[name](X, n_bytes)
            if code_bytes > n_bytes:
                raise ValueError(f"its codes have {code_bytes} bytes")
        except (ImportError, RuntimeError, ValueError) as error:
            print(f"{split.dataset.name}, {n_bytes} bytes, {name}: left out. {error}", file=sys.stderr, flush=True)
            continue
        build_s = time.perf_counter() - begun
        for n_candidates in CANDIDATES:
            found = search(Q, n_candidates)
            recall = (found[:, :, None] == true[:, None, :K]).any(axis=2).mean()
            line = {
                "dataset": split.dataset.name, "n": len(X), "d": X.shape[1], "n_queries": len(Q), "bytes": n_bytes,
                "method": name, "code_bytes": code_bytes, "candidates": n_candidates,
                "recall10@10": round(float(recall), 4), "build_s": round(build_s, 1),
            }  # fmt: skip
            runs.append((line, search, []))
            if recall >= HIGHEST:
                break
        print(f"{split.dataset.name}, {n_bytes} bytes, {name}: built in {build_s:.1f} s", file=sys.stderr, flush=True)
    for _ in range(options.rounds):
        for line, search, seconds in runs:
            begun = time.process_time()
            search(Q, line["candidates"])
            seconds.append(time.process_time() - begun)
    common = {"machine": machine(1), "versions": versions(), "when": datetime.date.today().isoformat()}
    return [
        line | {"queries_s": round(len(Q) / statistics.median(seconds)), "rounds": len(seconds)} | common
        for line, _, seconds in runs
    ]


# ---- what was measured ----


def panels(lines):
    """Return {(dataset, bytes): {method: [(recall, queries a second, candidates), ...]}}, by candidates."""
    found = {}
    for line in sorted(lines, key=lambda line: line["candidates"]):
        panel = found.setdefault((line["dataset"], line["bytes"]), {})
        panel.setdefault(line["method"], []).append((line["recall10@10"], line["queries_s"], line["candidates"]))
    return found


def front(panel):
    """Return the (recall, queries a second, method) that no other point of the panel beats in both, by recall."""
    points = sorted(((r, s, method) for method, own in panel.items() for r, s, _ in own), key=lambda p: (-p[0], -p[1]))
    out, best = [], 0
    for point in points:
        if point[1] > best:
            out.append(point)
            best = point[1]
    return out[::-1]


def at(points, recall):
    """Return the most queries a second at a recall, interpolated between points; None where none reaches it."""
    speeds = [s for r, s, _ in points if r >= recall]
    for (r0, s0, _), (r1, s1, _) in itertools.pairwise(points):
        if r0 < recall <= r1:
            share = (recall - r0) / (r1 - r0)
            speeds.append(float(np.exp((1 - share) * np.log(s0) + share * np.log(s1))))
    return max(speeds, default=None)


def table(lines, recalls=(0.9, 0.95, 0.99)):
    """Yield the lines of a table in Markdown: queries a second at a recall."""
    for (dataset, n_bytes), panel in panels(lines).items():
        yield f"\n| {dataset}, {n_bytes} bytes | " + " | ".join(f"recall {r:g}" for r in recalls) + " |"
        yield "|---" * (1 + len(recalls)) + "|"
        rows = {method: [at(points, r) for r in recalls] for method, points in panel.items()}
        best = [max(row[i] or 0 for row in rows.values()) for i in range(len(recalls))]
        for method, row in sorted(rows.items(), key=lambda item: -(item[1][len(recalls) // 2] or 0)):
            cells = ["-" if s is None else f"{s:,.0f}" for s in row]
            cells = [f"**{cell}**" if s and s == most else cell for cell, s, most in zip(cells, row, best, strict=True)]
            yield f"| {method} | " + " | ".join(cells) + " |"


# Okabe and Ito's colours, which colour-blind readers can tell apart; kinds of codes share a colour.
STYLES = {
    "APHash scores": ("#0072B2", "-", "o", 2.6),
    "APHash scores, queries moved": ("#0072B2", ":", "o", 1.3),
    "ITQ, by weights in aphash": ("#56B4E9", "-", "s", 1.6),
    "ITQ, faiss binary and numpy": ("#56B4E9", "--", "D", 1.3),
    "PCA signs, faiss binary and numpy": ("#56B4E9", ":", "X", 1.3),
    "PQ fast scan": ("#D55E00", "-", "^", 1.6),
    "OPQ fast scan": ("#D55E00", "--", "v", 1.6),
    "PQ": ("#E69F00", "-", "<", 1.3),
    "OPQ": ("#E69F00", "--", ">", 1.3),
    "PLSQ": ("#E69F00", ":", "H", 1.3),
    "RaBitQ fast scan (8 bytes are factors)": ("#CC79A7", "-", "P", 1.3),
    "RaBitQ (8 bytes are factors)": ("#CC79A7", "--", "p", 1.3),
    "2 bits a component": ("#009E73", "-", "h", 1.3),
    "4 bits a component": ("#009E73", "--", "d", 1.3),
    "turbovec, 2 bits a component (4 bytes are factors)": ("#000000", ":", "*", 1.3),
}
TITLES = {"cnn": "CNN features", "sentences": "sentence embeddings", "descriptors": "SIFT descriptors"}


def plot(lines, path):
    """Small multiples: a row for each set, a column for each number of bytes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "aphash", "svg.fonttype": "none", "font.size": 9}
    import matplotlib.pyplot as plt

    found = panels(lines)
    sets = list(dict.fromkeys(line["dataset"] for line in lines))
    sizes = sorted({line["bytes"] for line in lines})
    shape = {line["dataset"]: (line["n"], line["d"]) for line in lines}
    fig, axes = plt.subplots(
        len(sets), len(sizes), figsize=(3.6 * len(sizes), 2.9 * len(sets) + 1), layout="constrained",
        squeeze=False, sharey="row",
    )  # fmt: skip
    handles = {}
    for row, dataset in zip(axes, sets, strict=True):
        for ax, n_bytes in zip(row, sizes, strict=True):
            panel = found.get((dataset, n_bytes), {})
            best = front(panel)
            for method, (colour, line, marker, width) in STYLES.items():
                points = [(shown(r), s) for r, s, _ in panel.get(method, ())]
                if not points:
                    continue
                look = {"color": colour, "linestyle": line, "linewidth": width}
                ax.plot(*zip(*points, strict=True), **look, alpha=0.9, zorder=4 if "APHash" in method else 3)
                leads = [(shown(r), s) for r, s, who in best if who == method]
                if leads:
                    ax.plot(*zip(*leads, strict=True), color=colour, linestyle="none", marker=marker, zorder=6,
                            markersize=6, markeredgecolor="white", markeredgewidth=0.6)  # fmt: skip
                if method not in handles:
                    look["marker"] = marker
                    handles[method] = plt.Line2D([], [], **look, markersize=6, markeredgecolor="white")
            stairs = [(shown(r), s) for r, s, _ in best]
            if stairs:
                x, y = np.array([(shown(0), stairs[0][1]), *stairs]).T
                ax.fill_between(x, y, 1, step="pre", color="#f1f1f1", linewidth=0, zorder=0)
            ticks = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
            ax.set_xticks([shown(t) for t in ticks], [f"{t:g}".lstrip("0") for t in ticks])
            ax.set(yscale="log", xlim=(shown(0.5), shown(HIGHEST)))
            ax.grid(alpha=0.35, linewidth=0.5)
            ax.spines[["top", "right"]].set_visible(False)
            if ax in axes[0]:
                ax.set_title(f"{n_bytes} bytes an item", fontsize=10)
            if ax in axes[-1]:
                ax.set_xlabel("recall10@10 after rescoring")
        n, d = shape[dataset]
        row[0].set_ylabel(f"{TITLES.get(dataset, dataset)}, {n:,} x {d}\nqueries a second, one thread")
        speeds = [s for ax_bytes in sizes for own in found.get((dataset, ax_bytes), {}).values() for _, s, _ in own]
        row[0].set_ylim(min(speeds) / 1.3, max(speeds) * 1.3)
    handles = {method: handles[method] for method in STYLES if method in handles}
    fig.legend(handles.values(), handles, loc="outside lower center", ncols=3, frameon=False, handlelength=3.2)
    fig.suptitle(
        "Up and right is better. Markers: points that no other method beats; the grey area lies below them.", fontsize=9
    )
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)


def shown(recall):
    """Where a recall stands: each halving of what is missed takes as much room; beyond .9995 all is one place."""
    return -np.log10(1 - min(recall, HIGHEST))


if __name__ == "__main__":
    main()
