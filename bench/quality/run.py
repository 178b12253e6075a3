"""The one entry to every measurement of quality: learns, stores codes, measures, and writes one JSON line a run.

    python bench/quality/run.py --all --data-dir DATA --work WORK --processes 2 --n-jobs 1
                                                                   everything that the report shows; resumable
    python bench/quality/run.py --dataset cnn --method itq aphash-semantic --bits 64 --seeds 0 1 2
    python bench/quality/run.py --method control:n_rounds=4,rotation=random aphash-semantic:n_neighbors=0.02
    python bench/quality/run.py --quick                                    digits only, seconds; what CI runs
    python bench/quality/run.py --proof --processes 2 --n-jobs 1
                                                                   the figures to hold, as a table; resumable

A run is a data set, a protocol, a seed, a method with its parameters and a length. A run whose line is there is
skipped (--force repeats it); --measure computes the measures of stored codes again. --proof measures again or repeats
lines that lack what it compares, and leaves out sets whose data are not there; --dataset and --seeds choose. Seconds
are those of a machine that may be doing other things: speed is compared in bench/speed/kernels.py, not here.
"""

import argparse
import concurrent.futures
import contextlib
import datetime
import functools
import importlib.metadata
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import baselines
import datasets
import evaluation
import numpy as np
import proof
from methods import control_specs, make
from results import BENCH, Results, Table, codes_path, key_of
from threadpoolctl import threadpool_limits

import aphash

# The controls that --all runs: rounds from the identity, at random, and at random from a start of such a whitening.
CONTROLS_64 = (4, 8, 16), (4, 8, 16), {0.5: (6, 8, 10), 0.75: (8, 10, 12, 14)}
CONTROLS_128 = (8,), (4, 8), {0.5: (8, 10), 0.75: (12, 14)}
CONTROLS_OTHER = (), (8,), {0.75: (12,)}
MEANS = ["means:k=50", "means:k=200", "mean-bits:k=50", "mean-bits:k=200"]  # the controls without rounds
SWEEP = [f"aphash-semantic:n_neighbors={k}" for k in (0.0025, 0.01, 0.02, 0.04)]
LENGTHS = (64, 128, 16, 32, 256)  # that --all measures, in this order: what matters most is there first
QUICK = ["random", "itq", "control:n_rounds=8,rotation=random", "pq", "floats", "aphash-semantic", "aphash-neighbors",
         "aphash-scores"]  # fmt: skip


def methods_for(n_bits, dataset, first):
    """The specs that --all runs at a length: most at 64 bits; those that take minutes with the first seed only."""
    entry = datasets.REGISTRY.get(dataset, datasets.Entry(None, dataset))
    if entry.methods is not None:
        return list(entry.methods) if first else []
    specs = [
        "aphash-semantic",
        "aphash-neighbors",
        "aphash-scores",
        "random",
        "pca",
        "itq",
        "sh",
        "pq",
        "pq:rotated=True",
        "rabitq:inside=False",
    ]
    if entry.n_directions is not None and n_bits > entry.n_directions:
        specs.remove("pca")
    if n_bits > 64:
        specs += ["rabitq"]
    if n_bits != 256:
        specs += ["agh"]
    if n_bits in (64, 128):
        specs += ["aphash-semantic-scores", *MEANS]
    if n_bits == 64:
        specs += ["itq:n_components=16", "itq:n_components=32", *control_specs(*CONTROLS_64), "floats"]
        specs += SWEEP if entry.sweep else []
    elif n_bits == 128:
        specs += control_specs(*CONTROLS_128)
    else:
        specs += control_specs(*CONTROLS_OTHER)
    if first:
        specs += ["opq"] if n_bits in (64, 128, 256) else []
        specs += ["aphash-paper"] if dataset == "gist" or n_bits == 64 else []
    return specs


# -- one run ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def peak_memory(record):
    """Set record["peak_memory_mib"]: the most resident memory inside, beyond what was resident before (Linux)."""

    def status(name):
        return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024

    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
        before = status("VmRSS")
    except OSError:
        record["peak_memory_mib"] = None
        yield
        return
    yield
    record["peak_memory_mib"] = round(status("VmHWM") - before, 1)


def machine(n_jobs):
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"model name\s*:\s*(.+)", text)
    isa = "avx512" if " avx512_vpopcntdq" in text else "avx2" if " avx2" in text else "base"
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "isa": os.environ.get("APHASH_ISA") or isa,
        "threads": n_jobs,
        "system": platform.system(),
    }


def versions():
    names = ("aphash", "numpy", "scipy", "scikit-learn", "faiss-cpu")
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found | {"aphash": aphash.__version__}


def commit():
    def git(*args):
        return subprocess.run(["git", "-C", BENCH, *args], capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "..", ":!results")
    return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")


class Split:
    """One split of a data set, with the truth about it, made when it is first needed."""

    def __init__(self, dataset, protocol, seed, rows=None):
        self.dataset, self.seed = dataset, seed
        self.protocol = dataset.protocol if protocol == "auto" else protocol
        self.database, self.queries = datasets.split(dataset, self.protocol, seed)
        if rows and rows < len(self.database):  # a smaller database, drawn by the seed
            rng = np.random.default_rng(seed)
            self.database = np.sort(rng.choice(self.database, rows, replace=False))
        self.X = np.ascontiguousarray(dataset.X[self.database])
        self.Q = np.ascontiguousarray(dataset.X[self.queries])
        self._truth = None

    @property
    def truth(self):
        if self._truth is None:
            y = self.dataset.y
            labels = (None, None) if y is None else (y[self.database], y[self.queries])
            self._truth = evaluation.Truth(self.X, self.Q, *labels)
        return self._truth

    def key(self, spec, n_bits):
        return {
            "dataset": self.dataset.name,
            "checksum": self.dataset.checksum,
            "protocol": self.protocol,
            "seed": self.seed,
            "n": len(self.X),
            "method": spec,
            "n_bits": n_bits,
        }


def learn(split, spec, n_bits, n_jobs, work):
    """Fit, encode, store the codes, and return the record without measures."""
    key = split.key(spec, n_bits)
    method = make(spec, n_bits, split.seed, n_jobs)
    record = key | {
        "params": {k: v for k, v in vars(method).items() if not k.endswith("_")},
        "d": split.X.shape[1],
        "n_queries": len(split.Q),
        "bytes_per_item": n_bits / 8,
        "ties": evaluation.TIES,
        "seconds": {},
    }
    begun = time.perf_counter()
    with peak_memory(record):
        method.fit(split.X)
        record["seconds"]["fit"] = round(time.perf_counter() - begun, 3)
        if hasattr(method, "transform"):
            begun = time.perf_counter()
            stored = {"database": method.transform(split.X)}
            record["seconds"]["encode"] = round(time.perf_counter() - begun, 3)
            stored["queries"] = method.transform(split.Q)
            project = method.query_projections if hasattr(method, "query_projections") else method.project
            stored["weights"] = np.asarray(project(split.Q), np.float32)
            if hasattr(method, "codes_"):
                stored["learned"] = method.codes_
        else:
            stored = method.state()
            record["bytes_per_item"] = method.bytes_per_item
    path = codes_path(work, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.savez(file, **stored)
    partial.replace(path)
    return record | {
        "machine": machine(n_jobs),
        "versions": versions(),
        "commit": commit(),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def measured(record, split, work):
    """Return the record with the measures of its stored codes."""
    with np.load(codes_path(work, record)) as file:
        stored = dict(file)
    begun = time.perf_counter()
    record["queries"] = f"{zlib.crc32(split.queries.astype(np.int64).tobytes()):08x}"  # which rows they are
    if "database" in stored:
        record["measures"] = split.truth.of_codes(stored["database"], stored["queries"])
        if "weights" in stored:
            record["by_weights"] = split.truth.of_weights(stored["database"], stored["weights"])
        if "learned" in stored:
            learned = split.truth.of_codes(stored["learned"], stored["queries"])
            learned.pop("curve", None)
            record["learned_database"] = learned
    else:
        record["measures"] = split.truth.of_distances(baselines.restore(stored, split.X))
    record["seconds"]["measure"] = round(time.perf_counter() - begun, 3)
    return record


# -- many runs --------------------------------------------------------------------------------------------------------


def show(record):
    m, s = record["measures"], record["seconds"]
    figures = "  ".join(f"{name} {m[name]:.4f}" for name in ("mAP", "P@100", "recall10@100") if name in m)
    if "by_weights" in record:
        m = record["by_weights"]
        figures += "; by weights " + "  ".join(
            f"{m[name]:.4f}" for name in ("mAP", "P@100", "recall10@100") if name in m
        )
    words = f"{record['dataset']:10} {record['protocol']:6} seed {record['seed']} {record['n_bits']:4} bits  "
    print(f"{words}{record['method']:42} {figures}  fit {s['fit']:.1f} s", flush=True)


@functools.lru_cache(maxsize=1)
def dataset_of(name, data_dir, cache):
    """Return the data set, and the seconds of loading it."""
    begun = time.perf_counter()
    return datasets.load(name, data_dir, cache), round(time.perf_counter() - begun, 3)


@functools.lru_cache(maxsize=1)
def split_of(name, seed, protocol, rows, data_dir, cache):
    dataset, loaded = dataset_of(name, data_dir, cache)
    return Split(dataset, protocol, seed, rows), loaded


def one(where, spec, n_bits, options, record):
    """Do one run, or only measure where there is a record: return (record, None), or (None, why not)."""
    try:
        split, loaded = split_of(*where)
        if record is None:
            record = learn(split, spec, n_bits, options.n_jobs, options.work)
            record["seconds"]["load"] = loaded
        return measured(record, split, options.work), None
    except (TypeError, ValueError, FileNotFoundError) as error:
        return None, error


def run(plan, options, results, has_figures=lambda record: True):
    """Do the runs of a plan: (dataset name, bits, seeds, specs, rows); return the records, and what was not done.

    A record that is there and has no figures is measured again from its codes, or, without these, is run again.
    """
    done, failed = [], []
    cache = options.cache or Path(options.work) / "features"

    def fail(what, why):
        print(f"{what}: not run. {why}", file=sys.stderr)
        failed.append(what)

    def known(key):
        """The record of a key and whether it needs no work."""
        record = None if options.force else results.records.get(key_of(key))
        if record is None or has_figures(record):
            return record, record is not None and not options.measure
        return (record if codes_path(options.work, key).exists() else None), False

    def tasks():
        for name, bits, seeds, specs, rows in plan:
            if name in failed:
                continue
            for seed in seeds:
                where = name, seed, options.protocol, rows, options.data_dir, cache
                try:
                    split, _ = split_of(*where)
                except datasets.MissingData as error:
                    fail(name, error)
                    break
                for n_bits in bits:
                    for spec in specs or methods_for(n_bits, name, seed == seeds[0]):
                        record, complete = known(split.key(spec, n_bits))
                        if not complete:
                            yield where, spec, n_bits, options, record

    for (where, spec, n_bits, *_), (record, error) in at_the_same_time(tasks(), options):
        if error:
            fail(f"{where[0]} {spec} {n_bits} bits", error)
        else:
            results.add(record)
            show(record)
            done.append(record)
    return done, failed


def at_the_same_time(tasks, options):
    """Yield each task with what ``one`` returns for it, as they end."""
    if options.processes == 1:
        yield from ((task, one(*task)) for task in tasks)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit the pools of threads
    with concurrent.futures.ProcessPoolExecutor(
        options.processes, mp_context=spawn, initializer=threadpool_limits, initargs=(options.n_jobs,)
    ) as pool:
        try:
            futures = {pool.submit(one, *task): task for task in tasks}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


GROWTH = (1000, 2000, 4000, 8000, 16_000)  # the full affinity ends here: at 32,000 its matrices need 20 GB and more


def grow(options, results):
    """Fits of CNN features at growing n, one seed: seconds and memory beside the full n x n affinity's."""
    specs = ["full", "itq", "control:n_rounds=8,rotation=random", "aphash-semantic"]
    return run([("cnn", [64], [0], specs, rows) for rows in GROWTH], options, results)[1]


def prove(options, results):
    """Do the runs that the bars need, print the bars; return what was not done or not held, without missing sets."""
    names = proof.names_of(options)
    _, failed = run(proof.plan(names, options.seeds), options, results, proof.has_figures)
    missing = [name for name in names if name in failed]
    shown = [name if name in datasets.REGISTRY else Path(name).stem for name in names]  # lines of files have their stem
    missed, _ = proof.show(Table(results.records.values()), shown, options.seeds)
    if missing:
        print(f"Without data: {', '.join(missing)}; of these, only lines that were there are above.")
    return [what for what in failed if what not in missing] + ([f"{missed} bars"] if missed else [])


def quick(options, results):
    """Digits in seconds; fails where learned codes are not ahead of ITQ."""
    records, failed = run([("digits", [32], [0], QUICK, None)], options, results)
    scores = {r["method"]: r["measures"] for r in records}
    if scores["aphash-semantic"]["mAP"] < 1.05 * scores["itq"]["mAP"]:
        failed.append("aphash-semantic is not ahead of itq")
    return failed


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", nargs="+", metavar="NAME",
                        help="default: digits, or with --proof and --all every set; "
                        f"{', '.join(datasets.REGISTRY)}, FILE.npy or FILE.hdf5")  # fmt: skip
    parser.add_argument("--method", nargs="+", metavar="SPEC", help="default: all methods; see the top")
    parser.add_argument("--bits", nargs="+", type=int, default=[64], metavar="N")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--protocol", choices=["auto", *datasets.PROTOCOLS], default="auto")
    parser.add_argument("--rows", type=int, metavar="N", help="draw a database of N rows only")
    for name, text in (
        ("all", "all data sets, lengths and methods"),
        ("quick", "digits only, in seconds"),
        ("proof", "the figures to hold, as a table"),
        ("force", "repeat runs that are there"),
        ("measure", "measure stored codes again"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("--data-dir", metavar="DIR", help="default: $APHASH_DATA, or data")
    parser.add_argument("--work", metavar="DIR", help="codes and features; default: data/bench-work")
    parser.add_argument("--cache", metavar="DIR", help="features; default: WORK/features")
    parser.add_argument("--results", metavar="DIR", default=BENCH / "results")
    parser.add_argument("--n-jobs", type=int, metavar="N", default=os.cpu_count(), help="threads of a run")
    parser.add_argument("--processes", type=int, metavar="N", default=1, help="runs at the same time")
    options = parser.parse_args(argv)
    if min(options.bits) < 1:
        parser.error("--bits must be positive")
    if options.processes < 1:
        parser.error("--processes must be positive")
    return options


def main(argv=None):
    options = parse(argv)
    temporary = tempfile.TemporaryDirectory() if options.quick else contextlib.nullcontext()
    with temporary as folder:
        if options.quick:
            options.work = options.results = folder
        options.work = options.work or BENCH.parent / "data" / "bench-work"
        results = Results(options.results)
        begun = time.perf_counter()
        if options.quick:
            failed = quick(options, results)
        elif options.proof:
            failed = prove(options, results)
        else:
            names = options.dataset or (datasets.REGISTRY if options.all else ["digits"])
            plan = [(name, options.bits, options.seeds, options.method, options.rows) for name in names]
            if options.all:
                plan = [
                    (name, [bits], options.seeds, options.method, options.rows)
                    for bits in LENGTHS
                    for name, entry in datasets.REGISTRY.items()
                    if name in names and bits in entry.lengths
                ]
            failed = run(plan, options, results)[1]
            if options.all and "cnn" in names:
                failed += grow(options, results)
    print(f"{time.perf_counter() - begun:.0f} s" + (f"; not done or not held: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
