"""What the store of an index promises: memory a code, and searches that wait for nobody.

    python bench/speed/store.py [--only memory|latency] [--codes N] [--json FILE]

memory: N 64-bit codes (40 million) with counted ids that come a million at a time; anonymous memory of the process
beyond what it had before the first, in bytes a code. latency: 200 searches of an index of N codes (256 million, 2 GB),
each some 100 ms long, alone and beside a save behind which an addition comes, beside build_lookup, and beside four
writers that pause 1 ms between changes; one thread a search, 99th percentile and median over those alone.
"""

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from aphash import HammingIndex


def anonymous(name="RssAnon"):
    """Bytes of the process's anonymous memory; VmHWM: the most that was resident since it was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {name} in /proc/self/status")


def memory(n, block=1_000_000):
    rng = np.random.default_rng(0)
    index = HammingIndex(64)
    first = rng.integers(0, 2**64, (block, 1), np.uint64)
    before = anonymous()
    for _ in range(0, n, block):
        Path("/proc/self/clear_refs").write_text("5")
        index.add(first)
        peak = anonymous("VmHWM") - anonymous("VmRSS") + anonymous() - before
    after = anonymous() - before
    index.remove([n // 3])
    removed = anonymous() - before
    index.add(first[:10])
    assert index.contains([0, n - 1, n + 5]).all() and n // 3 not in index
    return {
        "row": f"{n / 1e6:g}M x 64, counted ids, {block:,} at a time",
        "bytes_a_code": after / n,
        "peak_over_9_bytes": peak / (9 * n),
        "bytes_after_one_removal": removed / n,
        "nbytes_a_code": index.nbytes / len(index),
    }


def percentiles(times):
    return float(np.percentile(times, 50)), float(np.percentile(times, 99))


def latency(n):
    rng = np.random.default_rng(0)
    index = HammingIndex(64)
    for start in range(0, n, 1 << 22):
        index.add(rng.integers(0, 2**64, (min(1 << 22, n - start), 1), np.uint64))
    queries = rng.integers(0, 2**64, (4, 1), np.uint64)

    def search_times(count=200):
        times = []
        for _ in range(count):
            start = time.perf_counter()
            index.search(queries, 10, n_jobs=1)
            times.append(time.perf_counter() - start)
        return times

    search_times(3)
    n_queries = 1
    while n_queries < 64:  # as many as make a search of 100 ms
        queries = rng.integers(0, 2**64, (n_queries, 1), np.uint64)
        if np.median(search_times(5)) >= 0.1:
            break
        n_queries *= 2
    code = queries[:1]
    alone = percentiles(search_times())
    yield {
        "row": f"alone, {n / 1e6:g}M x 64, {n_queries} queries",
        "median_ms": alone[0] * 1e3,
        "p99_ms": alone[1] * 1e3,
    }
    stop = threading.Event()

    def beside(name, *works):
        stop.clear()
        done = dict.fromkeys(range(len(works)), 0)

        def repeat(i, work):
            while not stop.is_set():
                work()
                done[i] += 1

        threads = [threading.Thread(target=repeat, args=item) for item in enumerate(works)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        median, p99 = percentiles(search_times())
        stop.set()
        for thread in threads:
            thread.join()
        return {
            "row": f"beside {name}",
            "median_ms": median * 1e3,
            "p99_ms": p99 * 1e3,
            "p99_over_p99_alone": p99 / alone[1],
            "p99_over_median_alone": p99 / alone[0],
            "times_done": list(done.values()),
        }

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"

        def add_later():
            time.sleep(0.5)
            index.add(code)

        yield beside(f"a save of {8 * n / 1e9:.1f} GB, with additions", lambda: index.save(path), add_later)
    yield beside("build_lookup", index.build_lookup)
    index.drop_lookup()

    def change():
        ids = index.add(code)
        time.sleep(0.001)
        index.update(code, ids)
        time.sleep(0.001)
        index.remove(ids)
        time.sleep(0.001)

    yield beside("4 writers", *[change] * 4)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["memory", "latency"])
    parser.add_argument("--codes", type=int, help="40 million for memory, 256 million for latency")
    parser.add_argument("--json", metavar="FILE", help="append a JSON line for each row")
    args = parser.parse_args(argv)
    rows = []
    if args.only != "latency":
        rows.append([memory(args.codes or 40_000_000)])
    if args.only != "memory":
        rows.append(latency(args.codes or 256_000_000))
    for row in rows:
        for record in row:
            print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in record.items()), flush=True)
            if args.json:
                with open(args.json, "a") as file:
                    file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
