"""What rescoring is worth: recall of the true neighbours and precision against the factor, by codes and by weights.

    python bench/quality/rescoring.py --data-dir DATA [--dataset cnn --bits 64 --seeds 0 1 2]
                                      [--plot docs/rescoring.svg]

A search for k results takes ``factor * k`` candidates, by the queries' codes or by their weights, and ranks them by
``VectorRescore`` (the float vectors). Printed, as JSON lines
with --json, and plotted: recall10@10 (the true 10 nearest by Euclidean distance, k = 10) and P@100 (same label,
k = 100), means over queries and seeds; factor 0 is the search without rescoring, its ties by id.
"""

import argparse
import json
import os
import time

import datasets
import numpy as np
from run import Split

import aphash
from aphash import HammingIndex, VectorRescore

FACTORS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
QUERIES = ("codes", "weights")


def rescorer(split, factor):
    """Return the arguments of the search."""
    return {"rescore": VectorRescore(split.X, factor=factor), "rescore_queries": split.Q} if factor else {}


def rows(split, mode, n_bits):
    """Fit, and yield (queries, factor, recall10@10, P@100, milliseconds a query of k = 10)."""
    hasher = aphash.APHash(n_bits, mode=mode, random_state=split.seed).fit(split.X)
    index = HammingIndex(n_bits)
    queries = {"codes": hasher.transform(split.Q), "weights": hasher.query_projections(split.Q)}
    index.add(hasher.transform(split.X))
    truth, n = split.truth, len(split.X)
    for name in QUERIES:
        for factor in FACTORS:
            if 10 * factor > n:
                continue
            arguments = rescorer(split, factor)
            begun = time.perf_counter()
            near = index.search(queries[name], 10, **arguments)[1]
            seconds = time.perf_counter() - begun
            recall = (
                np.mean([len(np.intersect1d(a, b)) for a, b in zip(near, truth.neighbors)]) / truth.neighbors.shape[1]
            )
            found = index.search(queries[name], 100, **arguments)[1]
            precision = np.nan if truth.labels is None else np.mean(truth.labels[found] == truth.query_labels[:, None])
            yield name, factor, float(recall), float(precision), 1e3 * seconds / len(split.Q)


def measure(options):
    dataset = datasets.load(options.dataset, options.data_dir, options.cache)
    records = []
    for seed in options.seeds:
        split = Split(dataset, "auto", seed)
        for mode in options.modes:
            for name, factor, recall, precision, milliseconds in rows(split, mode, options.bits):
                records.append(
                    {
                        "dataset": dataset.name, "protocol": split.protocol, "n": len(split.X), "seed": seed,
                        "mode": mode, "n_bits": options.bits, "queries": name, "factor": factor,
                        "recall10@10": recall, "P@100": precision, "milliseconds": milliseconds,
                    }
                )  # fmt: skip
    return records


def means(records, columns):
    """Means of columns over seeds: {(mode, queries, factor): means}."""
    groups = {}
    for r in records:
        groups.setdefault((r["mode"], r["queries"], r["factor"]), []).append([r[column] for column in columns])
    return {key: np.mean(values, axis=0).tolist() for key, values in groups.items()}


def plot(records, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "aphash", "svg.fonttype": "none"}  # the same figures give the same file
    import matplotlib.pyplot as plt

    table = means(records, ("recall10@10", "P@100"))
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
    for at, (ax, title) in enumerate(zip(axes, ("recall of the true 10, k = 10", "same label among 100, k = 100"))):
        for mode, style in (("semantic", "-"), ("neighbors", "--")):
            for name, colour in (("codes", "#1b6ca8"), ("weights", "#c7522a")):
                line = [(factor, table[mode, name, factor][at]) for factor in FACTORS if (mode, name, factor) in table]
                if len(line) < 2:
                    continue
                (_, none), *line = line
                ax.plot(*zip(*line), style, color=colour, marker="o", markersize=3, label=f"{mode}, {name}")
                ax.axhline(none, color="#999999", linestyle=style, linewidth=0.8)
        ax.set(xscale="log", xlabel="candidates / results (grey: not rescored)", title=title)
        ax.set_xticks([1, 2, 5, 10, 20, 50, 100], labels=["1", "2", "5", "10", "20", "50", "100"])
        ax.grid(alpha=0.3)
    axes[1].legend(fontsize=8)
    fig.savefig(path, metadata={"Date": None})


def show(records):
    table = means(records, ("recall10@10", "P@100", "milliseconds"))
    print(f"{'mode':10} {'queries':12} {'factor':>6} {'recall10@10':>12} {'P@100':>8} {'ms/query':>9}")
    for (mode, name, factor), (recall, precision, milliseconds) in table.items():
        print(f"{mode:10} {name:12} {factor or 'none':>6} {recall:12.4f} {precision:8.4f} {milliseconds:9.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cnn", metavar="NAME", help="as in run.py")
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--modes", nargs="+", default=["semantic", "neighbors"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--data-dir", metavar="DIR", default=os.environ.get("APHASH_DATA", "data"))
    parser.add_argument("--cache", metavar="DIR", help="features")
    parser.add_argument("--json", metavar="FILE", help="append a JSON line for each measurement")
    parser.add_argument("--plot", metavar="FILE.svg")
    options = parser.parse_args()
    records = measure(options)
    show(records)
    if options.json:
        with open(options.json, "a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
    if options.plot:
        plot(records, options.plot)


if __name__ == "__main__":
    main()
