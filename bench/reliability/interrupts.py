"""Interrupts, measured: how long after Ctrl-C a call ends, and whether forked children can work.

    python bench/reliability/interrupts.py [--times 20] [--forks 50] [--only WORD] [--json FILE]

Each call is made over and over; at a random moment of it SIGINT arrives, and the seconds until KeyboardInterrupt is
caught are taken. Afterwards what was there must be as before: the earlier fit, or the answers of a search. Then a
parent works with all its threads and forks: each child fits or searches, too, and must answer as the parent did. And a
NaN far inside a large X must be found, and named, before anything is learned.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "speed"))
import fit as fits

from aphash import APHash, HammingIndex

HANG = 60.0  # seconds after which a child counts as hanging


def fitting(folder, n, d, n_bits):
    X = np.load(fits.generate(os.path.join(folder, f"{n}x{d}.npy"), n, d), mmap_mode="r")
    hasher = APHash(n_bits, random_state=0).fit(np.asarray(X[:2000]))
    before, coef = dict(vars(hasher)), hasher.coef_.copy()

    def call():
        vars(hasher).clear()  # a fit that ended in time is forgotten
        vars(hasher).update(before)
        hasher.fit(X)

    def whole():
        now = vars(hasher)
        return (
            now.keys() == before.keys() and all(now[k] is before[k] for k in now) and np.array_equal(now["coef_"], coef)
        )

    return call, whole


def searching(n, n_bits, n_queries, call):
    rng = np.random.default_rng(0)
    words = n_bits // 64
    codes, queries = (rng.integers(0, 2**64, (size, words), np.uint64) for size in (n, n_queries))
    index = HammingIndex(n_bits)
    index.add(codes)
    calls = {
        "search": lambda: index.search(queries, 100),
        "search, 1 thread": lambda: index.search(queries, 100, n_jobs=1),
        "radius_search": lambda: index.radius_search(queries, 12),
        "pairs": lambda: sum(len(each[0]) for each in index.pairs(3)),
        "build_lookup": index.build_lookup,
    }
    expected = index.search(queries[:3], 5)
    return calls[call], lambda: all(map(np.array_equal, index.search(queries[:3], 5), expected))


def latencies(call, whole, times, span, rng):
    found, sent = [], []

    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    while len(found) < times:
        timer = threading.Timer(rng.uniform(0, span), send)
        ended = False
        try:
            timer.start()
            call()
            ended = True
            timer.join()
            time.sleep(0.01)
        except KeyboardInterrupt:
            if ended:  # it came too late
                continue
            found.append(time.perf_counter() - sent[-1])
            if not whole():
                sys.exit("something was half done")
    return found


def row(name, call, whole, times, span, rng):
    seconds = latencies(call, whole, times, span, rng)
    return {"row": f"Ctrl-C: {name}", "times": times, "median_s": float(np.median(seconds)), "max_s": max(seconds)}


def nan_row(folder, n=1_000_000, d=128, at=700_000):
    """How soon a NaN far inside is found, before anything is learned."""
    path = fits.generate(os.path.join(folder, "nan.npy"), n, d)
    np.load(path, mmap_mode="r+")[at, d // 2] = np.nan
    begun = time.perf_counter()
    try:
        APHash(random_state=0).fit(np.load(path, mmap_mode="r"))
    except ValueError as error:
        if f"row {at}" not in str(error):
            sys.exit(f"the message does not name the row: {error}")
    else:
        sys.exit("a NaN was learned from")
    return {"row": f"NaN in row {at:,} of {n:,} x {d}", "times": 1, "seconds": time.perf_counter() - begun}


def forks(name, work, times):
    """Fork after the parent has worked; count the children that answer as it did."""
    expected, good = work(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks: it is what we try
        for _ in range(times):
            child = os.fork()
            if child == 0:
                os._exit(0 if all(map(np.array_equal, work(), expected)) else 1)
            until = time.perf_counter() + HANG
            while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
                if time.perf_counter() > until:
                    os.kill(child, signal.SIGKILL)
                    done = os.waitpid(child, 0)
                    break
                time.sleep(0.01)
            good += done[1] == 0
    return {"row": f"fork: {name}", "times": times, "right": good}


def measure(options, folder):
    rng = np.random.default_rng()
    for n, d, n_bits, span in ((300_000, 128, 64, 15), (50_000, 1024, 64, 15), (20_000, 512, 256, 8)):
        name = f"fit, {n:,} x {d:,}, {n_bits} bits"
        if options.only in name:
            yield row(name, *fitting(folder, n, d, n_bits), options.times, span, rng)
    for call, n, n_bits, n_queries, span in (
        ("search", 10_000_000, 64, 3000, 2.0),
        ("search, 1 thread", 10_000_000, 256, 2000, 4.0),
        ("radius_search", 10_000_000, 64, 3000, 2.0),
        ("pairs", 3_000_000, 64, 1, 0.5),
        ("build_lookup", 10_000_000, 64, 1, 0.8),
    ):
        name = f"{call}, {n / 1e6:g}M x {n_bits}"
        if options.only in name:
            yield row(name, *searching(n, n_bits, n_queries, call), options.times, span, rng)
    if options.only in "NaN":
        yield nan_row(folder)
    if options.only in "fork":
        X = np.random.default_rng(0).standard_normal((3000, 40)).astype(np.float32)
        hasher = APHash(32, random_state=0, n_rounds=2)
        yield forks("fit", lambda: (hasher.fit(X).codes_, hasher.coef_), options.forks)
        index = HammingIndex(32)
        index.add(hasher.codes_)
        yield forks("search", lambda: index.search(hasher.codes_, 20), options.forks)
        index.build_lookup()
        yield forks("search by lookup", lambda: index.search(hasher.codes_, 20), options.forks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--forks", type=int, default=50)
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--json", metavar="FILE", help="append a JSON line for each row")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with tempfile.TemporaryDirectory() as folder:
        for record in measure(options, folder):
            print("  ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in record.values()), flush=True)
            if options.json:
                with open(options.json, "a") as file:
                    print(json.dumps(record), file=file)


if __name__ == "__main__":
    main()
