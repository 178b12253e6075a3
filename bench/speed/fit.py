"""The whole fit, measured: memory beside the data, where the time goes, growth with n, m, r and d.

    python bench/speed/fit.py memory  [--rows 600000 --features 128 --bits 64 --anchors 500]
    python bench/speed/fit.py profile [--rows 1000000 --features 512 --bits 64]
    python bench/speed/fit.py growth

Data are generated into a memory-mapped file in --folder (a temporary one): clusters of different sizes on a slowly
decaying spectrum, float32, so that neighbourhoods exist at every scale. Each measurement runs in a process of its own.
"""

import argparse
import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np


def generate(path, n, d, seed=0):
    """Write n x d float32 to path (.npy), a block at a time."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((200, d)).astype(np.float32)
    spectrum = (1 / np.sqrt(1 + np.arange(d) / 8)).astype(np.float32)
    X = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
    for start in range(0, n, 20_000):
        rows = min(20_000, n - start)
        chosen = (200 * rng.random(rows) ** 2).astype(int)
        X[start : start + rows] = (centres[chosen] + 1.5 * rng.standard_normal((rows, d), np.float32)) * spectrum
    X.flush()
    return path


def anonymous_mib():
    """Anonymous memory of this process (not mapped files), MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no RssAnon: Linux is needed")


class PeakMemory:
    """The largest anonymous memory seen while inside, sampled every 5 ms."""

    def __enter__(self):
        self.start = self.peak = anonymous_mib()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.done.wait(0.005):
            self.peak = max(self.peak, anonymous_mib())

    def __exit__(self, *error):
        self.done.set()
        self.thread.join()
        self.beyond = self.peak - self.start


def fit_once(options):
    """Run one fit as the options say, and print a JSON line; this is what the child processes run."""
    from aphash import APHash

    X = np.load(options.data, mmap_mode="r")
    given = {"n_anchors": options.anchors} if options.anchors else {}
    if options.rounds:
        given["n_rounds"] = options.rounds
    hasher = APHash(options.bits, random_state=0, n_jobs=options.jobs, verbose=options.verbose, **given)
    APHash(8, random_state=0, n_rounds=1, max_iter=1).fit(np.asarray(X[:2000]))  # libraries are loaded
    profiler = cProfile.Profile() if options.profile else None
    with PeakMemory() as memory:
        begun = time.perf_counter()
        if profiler:
            profiler.enable()
        hasher.fit(X)
        if profiler:
            profiler.disable()
        seconds = time.perf_counter() - begun
    if profiler:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    print(
        json.dumps(
            {
                "n": len(X), "d": X.shape[1], "r": options.bits, "m": len(hasher.anchors_),
                "seconds": round(seconds, 2), "beyond_mib": round(memory.beyond, 1), "n_iter": hasher.n_iter_,
                "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            }
        )
    )  # fmt: skip


def child(data, **options):
    """Run fit_once in a fresh process; return its JSON."""
    command = [sys.executable, __file__, "once", "--data", str(data)]
    for name, value in options.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def memory(options, folder):
    n, r = options.rows or 600_000, options.bits
    data = generate(folder / "memory.npy", n, options.features or 128)
    found = child(data, bits=r, anchors=options.anchors or 500, jobs=options.jobs)
    state = 3 * n * r * 4 / 2**20
    print(json.dumps(found))
    print(f"beyond the start {found['beyond_mib']:.0f} MiB; 3 n r 4 B = {state:.0f} MiB; "
          f"over it {found['beyond_mib'] - state:.0f} MiB (target: 200)")  # fmt: skip


def profile(options, folder):
    data = generate(folder / "profile.npy", options.rows or 1_000_000, options.features or 512)
    print(json.dumps(child(data, bits=options.bits, jobs=options.jobs, profile=True)))


def growth(options, folder):
    base = {"n": 50_000, "m": 300, "r": 64, "d": 128}
    sweeps = {"n": [10_000, 30_000, 100_000, 300_000, 1_000_000], "m": [100, 300, 1000], "r": [16, 64, 256],
              "d": [32, 128, 512]}  # fmt: skip
    records = []
    for name, values in sweeps.items():
        for value in values:
            case = {**base, name: value}
            data = generate(folder / "growth.npy", case["n"], case["d"])
            found = {"sweep": name, **child(data, bits=case["r"], anchors=case["m"], jobs=options.jobs, rounds=2)}
            records.append(found)
            print(json.dumps(found), flush=True)
            if options.json:
                with open(options.json, "a") as file:
                    print(json.dumps(found), file=file)
    if options.plot:
        plot_growth(records, base, options.plot)


def plot_growth(records, base, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "aphash", "svg.fonttype": "none"}
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
    titles = {"n": "rows", "m": "anchors", "r": "bits", "d": "features"}
    for ax, (name, title) in zip(axes, titles.items()):
        x, y = np.array(sorted((r[name], r["seconds"]) for r in records if r["sweep"] == name)).T
        ax.loglog(x, y, "o-", color="#1b6ca8", markersize=4)
        ax.loglog(x, y[-1] * x / x[-1], ":", color="#999999")
        others = ", ".join(f"{titles[key]} {value:,}" for key, value in base.items() if key != name)
        ax.set_xlabel(title)
        ax.set_title(others, fontsize=7)
        ax.set_xticks(x, labels=[f"{value:,.0f}" for value in x], fontsize=8)
        ax.minorticks_off()
        ax.set_yticks(y, labels=[f"{value:.3g}" for value in y], fontsize=8)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("seconds of a fit (dotted: straight line)")
    fig.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "profile", "growth", "once"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--features", type=int)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--anchors", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help="where generated data go (default: a temporary folder)")
    parser.add_argument("--json", metavar="FILE", help="growth: append a JSON line for each fit")
    parser.add_argument("--plot", metavar="FILE.svg", help="growth: a picture of it")
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--verbose", type=int, default=0)
    options = parser.parse_args()
    if options.what == "once":
        return fit_once(options)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return {"memory": memory, "profile": profile, "growth": growth}[options.what](options, Path(folder))


if __name__ == "__main__":
    main()
