"""Data that ruin learners: each mode beside random projections of the same bits, over a grid of hard sets.

    python bench/quality/hard_data.py [--bits 16 64 256] [--modes semantic neighbors paper]
        [--sets few tight ...] [--n 3000] [--processes 2] [--json bench/measurements/hard_data.jsonl]
    python bench/quality/hard_data.py --table bench/measurements/hard_data*.jsonl  a table by kind of what was measured

Measures, of 200 queries that are not in the database, codes by ``transform``, ties at their expectation: recall10@100
(the share of the 10 nearest by Euclidean distance in the first 100; as far as the 10th counts as near), P@100 of the
labels where a set has some, and the number of distinct codes. Random projections are Gaussian, about the mean, the mean
of three seeds. A line is marked where ``neighbors`` loses more than .02 of recall, another mode more than .02 of P@100,
or any mode has fewer than .8 of their distinct codes.
"""

import argparse
import concurrent.futures
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import aphash

MARGIN, DISTINCT = 0.02, 0.8


def clusters(rng, n, count, spread, d=32):
    """Gaussian clusters of deviation `spread` about standard normal centres; their numbers are the labels."""
    labels = rng.integers(0, count, n)
    return rng.standard_normal((count, d))[labels] + spread * rng.standard_normal((n, d)), labels


def _few(rng, n, p, d=None, kind="uniform"):
    Z = rng.random((n, p)) if kind == "uniform" else rng.standard_normal((n, p))
    return (Z if d is None else Z @ rng.standard_normal((p, d))), None


def _circle(rng, n, noise):
    t = rng.random(n) * 2 * np.pi
    return np.column_stack([np.cos(t), np.sin(t)]) + noise * rng.standard_normal((n, 2)), None


def _tails(rng, n, kind, parameter, d=32):
    if kind == "lognormal":
        return rng.lognormal(0, parameter, (n, d)), None
    if kind == "t":
        return rng.standard_t(parameter, (n, d)), None
    X, labels = clusters(rng, n, 20, 0.7, d)  # "lengths": directions are ordinary, only lengths are not
    return X * rng.lognormal(0, parameter, (n, 1)), None if parameter > 1 else labels


def _outliers(rng, n, share, factor, d=32):
    X, labels = clusters(rng, n, 20, 0.7, d)
    rows = rng.choice(n - 200, max(1, round(share * n)), replace=False)
    X[200 + rows] *= factor
    return X, labels


def _saturated(rng, n, value=65504.0, d=64):
    X, labels = clusters(rng, n, 20, 0.7, d)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    X[500, 3] = value
    return X, labels


def _one_direction_of_outliers(rng, n, share=0.01, d=32):
    X, labels = clusters(rng, n, 20, 0.7, d)
    rows = 200 + rng.choice(n - 200, round(share * n), replace=False)
    X[rows, 0] += 1000 * rng.random(len(rows))
    return X, labels


def _scales(rng, n, decades, d=32):
    X, labels = clusters(rng, n, 20, 0.7, d)
    return X * np.logspace(0, decades, d), None if decades > 2 else labels


def _duplicates(rng, n, different, d=32):
    base, labels = clusters(rng, different, 10, 0.7, d)
    chosen = rng.integers(0, different, n)
    return base[chosen], labels[chosen]


def _one_hot(rng, n, features, levels):
    picked = rng.integers(0, levels, (n, features))
    return np.eye(levels)[picked].reshape(n, -1), None


def _counts(rng, n, rate, d=100):
    topics = rng.dirichlet(np.full(d, 0.1), 15)
    labels = rng.integers(0, 15, n)
    return rng.poisson(rate * d * topics[labels]).astype(float), labels


def _bytes(rng, n, spread, d=32):
    X, labels = clusters(rng, n, 20, spread, d)
    return np.clip(np.round(128 + 50 * X), 0, 255).astype(np.uint8), labels


def _constant(rng, n, d=32):
    X, labels = clusters(rng, n, 20, 0.7, d)
    return np.hstack([X, np.full((n, d), 7.0)]), labels


def _binary(rng, n, d, share):
    return (rng.random((n, d)) < share).astype(float), None


def _spectrum(rng, n, power, d=64):
    return rng.standard_normal((n, d)) * (1.0 + np.arange(d)) ** -power, None


def _dominant(rng, n, factor, d=32):
    X, labels = clusters(rng, n, 20, 0.7, d)
    X[:, 0] *= factor
    return X, labels


def _rings(rng, n):
    labels = rng.integers(0, 4, n)
    t = rng.random(n) * 2 * np.pi
    return (1 + labels)[:, None] * np.column_stack([np.cos(t), np.sin(t)]) + 0.05 * rng.standard_normal((n, 2)), labels


def _unbalanced(rng, n, share, d=32):
    X = 0.05 * rng.standard_normal((n, d))
    labels = (rng.random(n) < share).astype(int)
    return X + labels[:, None] * rng.standard_normal(d), labels


def _offset(rng, n, offset, d=32):
    X, labels = clusters(rng, n, 20, 0.7, d)
    return X + offset, labels


def make_sets():
    """Return {name: function(rng, n) -> X (n, d), labels (n,) or None}."""
    sets = {}
    for p in (1, 2, 3, 4, 6, 8):
        sets[f"few: {p} uniform"] = lambda rng, n, p=p: _few(rng, n, p)
    for p in (1, 2, 4, 8):
        sets[f"few: {p} normal in 32"] = lambda rng, n, p=p: _few(rng, n, p, 32, "normal")
    sets["few: circle"] = lambda rng, n: _circle(rng, n, 0.0)
    sets["few: rings"] = _rings
    for count in (2, 5, 20, 50, 200):
        for spread in (0.02, 0.1, 0.35):
            sets[f"tight: {count} clusters, {spread}"] = lambda rng, n, c=count, s=spread: clusters(rng, n, c, s)
    sets["tight: 10 clusters, 0.2, d = 8"] = lambda rng, n: clusters(rng, n, 10, 0.2, 8)
    sets["tight: 20 clusters, 0.35, d = 256"] = lambda rng, n: clusters(rng, n, 20, 0.35, 256)
    sets["tight: 1 % far away"] = lambda rng, n: _unbalanced(rng, n, 0.01)
    sets["tight: 20 % far away"] = lambda rng, n: _unbalanced(rng, n, 0.2)
    for s in (1, 2, 3):
        sets[f"tails: lognormal {s}"] = lambda rng, n, s=s: _tails(rng, n, "lognormal", s)
        sets[f"tails: t {s}"] = lambda rng, n, s=s: _tails(rng, n, "t", s)
        sets[f"tails: lengths {s}"] = lambda rng, n, s=s: _tails(rng, n, "lengths", s)
    for share, factor in ((0, 1000), (0, 1e6), (0.001, 100), (0.01, 10), (0.01, 30), (0.01, 1000)):
        sets[f"outliers: {share:.1%} x {factor:g}"] = lambda rng, n, s=share, f=factor: _outliers(rng, n, s, f)
    sets["outliers: one saturated"] = _saturated
    sets["outliers: 1 % in one column"] = _one_direction_of_outliers
    for decades in (2, 3, 6):
        sets[f"scales: {decades} decades"] = lambda rng, n, x=decades: _scales(rng, n, x)
    for factor in (10, 1000):
        sets[f"scales: one column x {factor}"] = lambda rng, n, f=factor: _dominant(rng, n, f)
    for power in (0.5, 2):
        sets[f"scales: spectrum {power}"] = lambda rng, n, a=power: _spectrum(rng, n, a)
    for different in (20, 200, 1000):
        sets[f"duplicates: {different} different"] = lambda rng, n, c=different: _duplicates(rng, n, c)
    sets["discrete: one-hot 6 x 8"] = lambda rng, n: _one_hot(rng, n, 6, 8)
    sets["discrete: one-hot 1 x 30"] = lambda rng, n: _one_hot(rng, n, 1, 30)
    sets["discrete: counts 1"] = lambda rng, n: _counts(rng, n, 1)
    sets["discrete: counts 0.1"] = lambda rng, n: _counts(rng, n, 0.1)
    sets["discrete: binary 64, 5 %"] = lambda rng, n: _binary(rng, n, 64, 0.05)
    sets["discrete: bytes, 0.35"] = lambda rng, n: _bytes(rng, n, 0.35)
    sets["discrete: bytes, 0.7"] = lambda rng, n: _bytes(rng, n, 0.7)
    sets["plain: constant columns"] = _constant
    sets["plain: offset 1e6"] = lambda rng, n: _offset(rng, n, 1e6)
    sets["plain: normal, d = 16"] = lambda rng, n: (rng.standard_normal((n, 16)), None)
    sets["plain: normal, d = 128"] = lambda rng, n: (rng.standard_normal((n, 128)), None)
    for rows in (50, 120, 300):
        sets[f"small: {rows} rows"] = lambda rng, n, rows=rows: clusters(rng, rows + 200, 5, 0.7)
    return sets


SETS = make_sets()


def first_share(D, relevant, k):
    """Expected number of relevant items among the first k by distance D (q, n), over a random order of ties."""
    k = min(k, D.shape[1])
    bound = np.partition(D, k - 1, axis=1)[:, k - 1 : k]
    inside, level = bound > D, bound == D
    room = (k - inside.sum(axis=1)) / level.sum(axis=1)
    return (relevant & inside).sum(axis=1) + room * (relevant & level).sum(axis=1)


def hamming(a, b):
    """Hamming distances of packed codes, (len(a), len(b))."""
    return sum(np.bitwise_count(a[:, None, word] ^ b[None, :, word]).astype(np.int32) for word in range(a.shape[1]))


class Truth:
    """The true neighbours, and the items with the same label, of 200 queries."""

    def __init__(self, X, labels, n_queries=200):
        X = np.asarray(X, np.float64)
        X = X - np.median(X, axis=0)  # for the precision of |q|^2 - 2 q x + |x|^2
        Q, X = X[:n_queries], X[n_queries:]
        D = np.vstack([((X - q) ** 2).sum(axis=1) for q in Q])
        tenth = np.partition(D, 9, axis=1)[:, 9:10]
        self.near = tenth * (1 + 1e-9) >= D
        self.same = None if labels is None else labels[:n_queries, None] == labels[None, n_queries:]

    def measure(self, Q, X):
        """Return recall10@100, P@100 or None, and the share of distinct codes, of packed codes."""
        D = hamming(Q, X)
        recall = np.minimum(first_share(D, self.near, 100), 10).mean() / 10
        precision = None if self.same is None else first_share(D, self.same, 100).mean() / min(100, len(X))
        return float(recall), None if precision is None else float(precision), len(np.unique(X, axis=0))


def random_projections(X, n_bits, seed):
    X = np.asarray(X, np.float64)
    R = np.random.default_rng(1000 + seed).standard_normal((X.shape[1], n_bits))
    return aphash.pack_codes(((X - X[200:].mean(axis=0)) @ R).astype(np.float32))


def run(name, n, bits, modes, seed=0):
    """Return the lines of one set: a dict for each length and mode."""
    rng = np.random.default_rng(seed)
    X, labels = SETS[name](rng, n + 200)
    truth = Truth(X, labels)
    lines = []
    for n_bits in bits:
        found = [truth.measure(c[:200], c[200:]) for c in (random_projections(X, n_bits, s) for s in range(3))]
        random = [None if each[0] is None else float(np.mean(each)) for each in zip(*found, strict=True)]
        for mode in modes:
            begun = time.perf_counter()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                hasher = aphash.APHash(n_bits, mode=mode, random_state=seed, n_jobs=1).fit(X[200:])
            seconds = time.perf_counter() - begun
            recall, precision, distinct = truth.measure(hasher.transform(X[:200]), hasher.transform(X[200:]))
            lost = random[0] - recall if mode == "neighbors" else (random[1] or 0) - (precision or 0)
            lines.append(
                {
                    "set": name, "n": len(X) - 200, "d": X.shape[1], "bits": n_bits, "mode": mode, "seed": seed,
                    "recall": recall, "precision": precision, "distinct": distinct,
                    "random_recall": random[0], "random_precision": random[1], "random_distinct": random[2],
                    "ok": bool(lost <= MARGIN and distinct >= DISTINCT * random[2]), "seconds": seconds,
                    "warnings": sorted({str(each.message) for each in caught}),
                }
            )  # fmt: skip
    return lines


def show(line):
    def pair(ours, theirs):
        return " -   -  " if ours is None else f"{ours:.3f} {theirs:.3f}"

    return (
        f"{'  ' if line['ok'] else '! '}{line['set']:34} {line['bits']:4} {line['mode']:9} "
        f"R {pair(line['recall'], line['random_recall'])}  P {pair(line['precision'], line['random_precision'])}  "
        f"distinct {line['distinct']:5} {line['random_distinct']:7.0f}  {line['seconds']:.1f} s  {line['warnings'][:1]}"
    )


def table(paths):
    """Print, by kind and mode, the worst of the lines of each file: what is lost, and the share of distinct codes."""
    files = [[json.loads(line) for line in Path(path).read_text().splitlines()] for path in paths]
    names = sorted({(line["set"].partition(":")[0], line["mode"]) for lines in files for line in lines})
    print(
        "| kind | mode | " + " | ".join(f"{Path(path).stem}: lines that lose, worst, distinct" for path in paths) + " |"
    )
    print("|---|---|" + "---|" * len(paths))
    for kind, mode in names:
        cells = []
        for lines in files:
            mine = [line for line in lines if line["set"].startswith(kind + ":") and line["mode"] == mode]
            measure = "recall" if mode == "neighbors" else "precision"
            gains = [line[measure] - line[f"random_{measure}"] for line in mine if line[measure] is not None]
            distinct = min((line["distinct"] / line["random_distinct"] for line in mine), default=np.nan)
            lost = sum(gain < -MARGIN for gain in gains)
            worst = f"{min(gains):+.3f}" if gains else "no labels"
            cells.append(f"{lost} of {len(gains)}, {worst}, {distinct:.2f}")
        print(f"| {kind} | {mode} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--modes", nargs="+", default=["semantic", "neighbors", "paper"])
    parser.add_argument("--sets", nargs="+", default=[""], help="parts of names")
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json")
    parser.add_argument("--table", nargs="+", metavar="FILE")
    args = parser.parse_args()
    if args.table:
        return table(args.table)
    names = [name for name in SETS if any(part in name for part in args.sets)]
    failed = total = 0
    with concurrent.futures.ProcessPoolExecutor(args.processes) as pool:
        waiting = [pool.submit(run, name, args.n, args.bits, args.modes, args.seed) for name in names]
        for future in waiting:
            for line in future.result():
                print(show(line), flush=True)
                failed, total = failed + (not line["ok"]), total + 1
                if args.json:
                    with open(args.json, "a") as file:
                        file.write(json.dumps(line) + "\n")
    print(f"{failed} of {total} lose")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
