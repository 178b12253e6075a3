"""This build's search beside another build's, in turn: what a change of the code costs.

    python bench/speed/against.py PYTHON [--quick] [--only WORD] [--repeats N] [--json FILE]

PYTHON is the interpreter of an environment that has the other build, for instance a checkout of the commit before. Each
row runs in two processes at a time, one with each build, that make the same index and answer in turn; the figure is the
median of the ratios of neighbouring runs, this build's time over the other's: below 1 is faster. Results are compared.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np


def codes_of(n, bits, near=False):
    """Random codes, or such that come in pairs one bit apart."""
    codes = np.random.default_rng(0).integers(0, 2**64, (n, bits // 64), np.uint64)
    if near:
        codes[n // 2 :] = codes[: n - n // 2] ^ np.uint64(1)
    return codes


def searching(bits, k, n_queries, n=10_000_000, lookup=False, near=False, filter=None, n_jobs=1, order=None):
    """A search of so many queries; `order`: ids are shuffled."""
    import aphash

    codes = codes_of(n, bits, near)
    index = aphash.HammingIndex(bits)
    index.add(codes, None if order is None else np.random.default_rng(1).permutation(n))
    if lookup:
        index.build_lookup()
    queries = codes[:n_queries] if near else codes_of(n_queries + 7, bits)[7:]
    some = {} if filter is None else {"filter": np.random.default_rng(2).random(n) < filter}
    if lookup:  # one query at a time is what tables are for
        return lambda: [index.search(query, k, n_jobs=n_jobs)[0] for query in queries]
    return lambda: index.search(queries, k, n_jobs=n_jobs, **some)[0]


def within(bits, radius, n_queries, n=10_000_000):
    import aphash

    codes = codes_of(n, bits)
    index = aphash.HammingIndex(bits)
    index.add(codes)
    return lambda: index.radius_search(codes[:n_queries], radius, n_jobs=1)[1]


def pairs(n=1_000_000):
    import aphash

    index = aphash.HammingIndex(64)
    index.add(codes_of(n, 64, near=True))
    return lambda: sum(len(d) for _, _, d in index.pairs(2, n_jobs=1))


def building(n=1_000_000):
    import aphash

    index = aphash.HammingIndex(64)
    index.add(codes_of(n, 64, near=True))
    return lambda: index.build_lookup()


def adding(n, at_once, shuffled=False):
    """An index of n codes, made by so many at once."""
    import aphash

    codes = codes_of(n, 64)
    ids = np.random.default_rng(1).permutation(n)

    def run():
        index = aphash.HammingIndex(64)
        for start in range(0, n, at_once):
            part = slice(start, start + at_once)
            index.add(codes[part], ids[part] if shuffled else None)
        return len(index)

    return run


def changing(what, n=1_000_000, changes=300, ids="counted"):
    """Single removals and additions, or updates, one after another."""
    import aphash

    codes = codes_of(n, 64)
    index = aphash.HammingIndex(64)
    index.add(codes, np.random.default_rng(1).permutation(n) if ids == "shuffled" else None)
    state = np.random.default_rng(3)

    def run():
        for _ in range(changes):
            if what == "update":
                index.update(codes=codes[:1], ids=[int(state.integers(n))])
            else:
                index.remove(index.add(codes[:1]))
        return len(index)

    return run


ROWS = {
    "10M x 64, k=10, one query": lambda q: searching(64, 10, 1, 10_000_000 // q),
    "10M x 128, k=10, one query": lambda q: searching(128, 10, 1, 10_000_000 // q),
    "10M x 64, k=100, batch of 256": lambda q: searching(64, 100, 256, 10_000_000 // q),
    "10M x 128, k=100, batch of 128": lambda q: searching(128, 100, 128, 10_000_000 // q),
    "10M x 256, k=100, batch of 64": lambda q: searching(256, 100, 64, 10_000_000 // q),
    "10M x 64, k=10, batch of 64, shuffled ids": lambda q: searching(64, 10, 64, 10_000_000 // q, order=1),
    "1M x 64, k=1,000, batch of 200": lambda q: searching(64, 1000, 200, 1_000_000 // q),
    "1,000 x 64, k=10, one query": lambda q: searching(64, 10, 1, 1000),
    "radius 12, 10M x 64, batch of 64": lambda q: within(64, 12, 64, 10_000_000 // q),
    "filter 1%, one query": lambda q: searching(64, 10, 1, 10_000_000 // q, filter=0.01),
    "filter 1%, batch of 64": lambda q: searching(64, 10, 64, 10_000_000 // q, filter=0.01),
    "filter 50%, batch of 64": lambda q: searching(64, 10, 64, 10_000_000 // q, filter=0.5),
    "lookup, near-duplicates, 300 single": lambda q: searching(64, 2, 300, 10_000_000 // q, lookup=True, near=True),
    "build_lookup, 1M x 64": lambda q: building(1_000_000 // q),
    "pairs, radius 2, 1M x 64": lambda q: pairs(1_000_000 // q),
    "add 1M x 64 at once": lambda q: adding(1_000_000 // q, 10**9),
    "add 1M x 64 at once, shuffled ids": lambda q: adding(1_000_000 // q, 10**9, True),
    "add 20,000 x 64 one by one": lambda q: adding(20_000 // q, 1),
    "update of one code, 300 of 1M": lambda q: changing("update", 1_000_000 // q),
    "add and remove one code, 300 of 1M": lambda q: changing("add", 1_000_000 // q),
}


def worker(row, quick):
    """Answer each line of the input by the seconds of one run; the first by a summary of the result."""
    run = ROWS[row](10 if quick else 1)
    result = run()
    print(json.dumps(float(np.sum(np.asarray(result, np.float64))) if result is not None else None), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", metavar="PYTHON", help="the interpreter that has the other build")
    parser.add_argument("--quick", action="store_true", help="a tenth of the codes")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", metavar="FILE", help="append a JSON line for each row")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        return worker(args.worker, args.quick)
    for row in ROWS:
        if args.only not in row:
            continue
        command = [__file__, "-", "--worker", row, *(["--quick"] if args.quick else [])]
        sides = [
            subprocess.Popen([python, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for python in (sys.executable, args.python)
        ]
        results = [side.stdout.readline() for side in sides]
        if results[0] != results[1] or not results[0]:
            raise SystemExit(f"{row}: this build answers {results[0]!r}, the other one {results[1]!r}")
        times = []
        for turn in range(args.repeats):
            pair = [0.0, 0.0]
            for i in (0, 1) if turn % 2 else (1, 0):
                sides[i].stdin.write("\n")
                sides[i].stdin.flush()
                pair[i] = float(sides[i].stdout.readline())
            times.append(pair)
        for side in sides:
            side.stdin.close()
            side.wait()
        ours, others = zip(*times)
        record = {
            "row": row,
            "ours_ms": statistics.median(ours) * 1e3,
            "other_ms": statistics.median(others) * 1e3,
            "ratio": statistics.median(a / b for a, b in times),
        }
        print(
            f"{row:44} {record['ours_ms']:10.3f} ms {record['other_ms']:10.3f} ms  {record['ratio']:6.3f}", flush=True
        )
        if args.json:
            with open(args.json, "a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
