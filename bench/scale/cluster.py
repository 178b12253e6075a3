"""The main job on a cluster: read, learn, encode, save, search; seconds and bytes moved for each stage.

    python bench/scale/cluster.py --generate 200000 128 --workers 2 --compare
    python bench/scale/cluster.py --data cifar10_cnn512.npz --n-bits 64 --compare
    python bench/scale/cluster.py --generate 200000 128 --workers 2 --per-iteration
    python bench/scale/cluster.py --generate 50000 128 --workers 2 --kill 5 --compare
    python bench/scale/cluster.py --generate 8000000 128 --workers 2 --memory-limit 512MiB --n-train 200000 --n-rounds 1
    python bench/scale/cluster.py --data features.zarr --scheduler tcp://10.0.0.1:8786

Bytes moved are what the workers' machines sent on all interfaces during the stage, the loopback among them: on a
LocalCluster everything between the processes, protocol and heartbeats included (and what other programs sent).
A new worker is one that was started anew: it was killed, by us or for its memory. Peaks are the workers' resident sets,
files they have mapped among them.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import tempfile
import threading
import time

import dask
import dask.array as da
import numpy as np
import zarr
from distributed import Client, LocalCluster

import aphash
import aphash.dask

CHUNK = 50_000


def main():
    args = arguments()
    folder = tempfile.mkdtemp(prefix="aphash-cluster-", dir=args.folder)
    try:
        path = args.data if args.data and args.data.endswith(".zarr") else to_zarr(args, folder)
        if args.scheduler:
            with Client(args.scheduler, direct_to_workers=True) as client:
                run(args, client, path, folder)
        else:
            limit = args.memory_limit or 0
            dask.config.set({
                "distributed.scheduler.work-stealing": not args.no_stealing,
                "distributed.deploy.lost-worker-timeout": "300s",  # else a slow restart is given up, and all wait
            })  # fmt: skip
            with (
                LocalCluster(n_workers=args.workers, threads_per_worker=1, memory_limit=limit, dashboard_address=None,
                             silence_logs=50) as cluster,
                Client(cluster, direct_to_workers=True) as client,
            ):  # fmt: skip
                run(args, client, path, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a cluster that runs; all its workers see --folder")
    parser.add_argument("--workers", type=int, default=2, help="of a cluster that is started otherwise")
    parser.add_argument("--memory-limit", help="of each worker, such as 512MiB")
    parser.add_argument("--no-stealing", action="store_true", help="of tasks, and their data, by idle workers")
    parser.add_argument("--data", metavar="FILE", help="npz (its X, or first 2-d array), or a zarr array")
    parser.add_argument("--generate", nargs=2, type=int, default=(200_000, 128), metavar=("N", "D"))
    parser.add_argument("--folder", help="for what is written; all workers must see it")
    parser.add_argument("--chunk", type=int, default=CHUNK, help="rows of a chunk")
    parser.add_argument("--n-bits", type=int, default=64)
    parser.add_argument("--n-anchors", type=int, default=500)
    parser.add_argument("--n-rounds", type=int, default=2)
    parser.add_argument("--max-iter", type=int, default=10)
    parser.add_argument("--n-train", type=int)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument(
        "--kill", type=int, default=0, metavar="TIMES", help="SIGKILL a worker so often in fit, and in search"
    )
    parser.add_argument("--per-iteration", action="store_true", help="seconds, bytes, tasks of an iteration")
    parser.add_argument("--compare", action="store_true", help="with one machine, which must hold X")
    parser.add_argument("--json", metavar="FILE", help="write the table there, too")
    return parser.parse_args()


def to_zarr(args, folder):
    """Write the features in chunks; return the path."""
    path = os.path.join(folder, "features.zarr")
    if args.data:
        with np.load(args.data) as file:
            X = next(file[name] for name in sorted(file, key=lambda name: name != "X") if file[name].ndim == 2)
        n, d = X.shape
    else:
        n, d = args.generate
    out = zarr.create_array(path, shape=(n, d), chunks=(args.chunk, d), dtype="float32", compressors=None)
    centres = np.random.default_rng(1).standard_normal((100, d), np.float32) * 2
    for start in range(0, n, args.chunk):
        stop = min(start + args.chunk, n)
        if args.data:
            out[start:stop] = X[start:stop]
        else:
            rng = np.random.default_rng([2, start])
            rows = rng.standard_normal((stop - start, d), np.float32)
            out[start:stop] = rows + centres[rng.integers(0, 100, stop - start)]
    return path


class Stages:
    """Seconds, bytes and tasks of each stage."""

    def __init__(self, client):
        self.client, self.rows = client, []
        client.get_task_stream()  # begins to record

    @contextlib.contextmanager
    def __call__(self, name):
        moved, workers, seconds, began = self.moved(), self._workers(), time.perf_counter(), time.time()
        yield
        seconds, moved = time.perf_counter() - seconds, self.moved() - moved
        tasks = self.client.get_task_stream(start=began)
        new, peaks = len(self._workers() - workers), self.client.run(peak_memory, on_error="ignore").values()
        peak = max((each for each in peaks if isinstance(each, int)), default=0)
        row = {"stage": name, "seconds": seconds, "bytes": moved, "tasks": len(tasks)}
        self.rows.append(row | {"new_workers": new, "peak_memory": peak})
        print(
            f"{name:24} {seconds:8.2f} s {moved / 2**20:9.2f} MiB {len(tasks):6} tasks {new:3} new workers, "
            f"peak {peak / 2**20:.0f} MiB", flush=True,
        )  # fmt: skip

    def _workers(self):
        return set(self.client.scheduler_info(n_workers=-1)["workers"])

    def moved(self):
        """Bytes sent by the workers' machines: on a LocalCluster those of the loopback interface."""
        return sum(dict(self.client.run(sent_by_machine, on_error="ignore").values()).values())


def sent_by_machine():
    import socket

    import psutil

    return socket.gethostname(), sum(each.bytes_sent for each in psutil.net_io_counters(pernic=True).values())


def peak_memory():
    import resource

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextlib.contextmanager
def killing(client, times, within):
    """Kill a worker at random moments while the block runs."""
    rng, done, killed = np.random.default_rng(), threading.Event(), []

    def kill():
        while len(killed) < times and not done.wait(rng.uniform(0.2, within)):
            pids = [pid for pid in client.run(os.getpid, on_error="ignore").values() if isinstance(pid, int)]
            if pids:  # else the last one's successor has not come yet
                killed.append(int(rng.choice(pids)))
                os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


def run(args, client, path, folder):
    client.wait_for_workers(1 if args.scheduler else args.workers)
    stage, X = Stages(client), da.from_zarr(path)
    n, d = X.shape
    print(f"{n} x {d} {X.dtype}, {len(client.ncores())} workers, memory limit {args.memory_limit}", flush=True)
    settings = {
        "n_bits": args.n_bits, "n_anchors": args.n_anchors, "n_rounds": args.n_rounds, "max_iter": args.max_iter,
        "tol": 0, "random_state": 0, "n_train": args.n_train or "auto",
    }  # fmt: skip
    hashers = []
    with stage("fit"), killing(client, args.kill, 6) as killed:
        while not hashers or len(killed) < args.kill:
            hashers.append(aphash.dask.APHash(**settings).fit(X))
            len(hashers[-1].codes_[-1:].compute())
    hasher = hashers[0]
    print(f"killed {len(killed)} in {len(hashers)} fits; {'equal' if all_equal(hashers) else 'DIFFERENT'}", flush=True)
    if args.per_iteration:
        with stage("fit, counted"), iterations(client, stage):
            aphash.dask.APHash(**settings).fit(X)
    with stage("encode"):
        da.to_zarr(hasher.transform(X), os.path.join(folder, "codes.zarr"))
    index = aphash.dask.HammingIndex(args.n_bits)
    with stage("add"):
        index.add(hasher.codes_)
    with stage("save"):
        index.save(os.path.join(folder, "index"))
    with stage("load"):
        index = aphash.dask.HammingIndex.load(os.path.join(folder, "index"))
    queries = hasher.transform(X[: args.queries]).compute()
    answers = []
    with stage("search"), killing(client, args.kill, 1) as killed:
        while not answers or len(killed) < args.kill:
            answers.append(index.search(queries, args.k))
    same = all(np.array_equal(a, b) for each in answers for a, b in zip(each, answers[0]))
    print(f"killed {len(killed)} in {len(answers)} searches; {'equal' if same else 'DIFFERENT'}", flush=True)
    if args.compare:
        compare(args, settings, path, hasher, queries, answers[0], stage)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"arguments": vars(args), "stages": stage.rows}, file, indent=1)


def all_equal(hashers):
    first = hashers[0]
    return all(
        np.array_equal(first.coef_, each.coef_)
        and np.array_equal(first.thresholds_, each.thresholds_)
        and bool((first.codes_ == each.codes_.rechunk(first.codes_.chunks)).all().compute())
        for each in hashers[1:]
    )


@contextlib.contextmanager
def iterations(client, stage):
    """Count from each anchor pass of a round to the next one: in between is one iteration, whole."""
    rows, counts = aphash.dask.DaskRows, []
    anchor_pass, last, parts, blocks = rows.anchor_pass, None, 0, 0

    def counted(self, H, q_scale, q_power, P, *out):
        nonlocal last, parts, blocks
        now = time.perf_counter(), stage.moved(), time.time()
        if last and last[0] is P:
            tasks = client.get_task_stream(start=last[1][2], stop=now[2])
            counts.append((now[0] - last[1][0], now[1] - last[1][1], len(tasks)))
        parts, blocks = len(self.parts), self.n_blocks
        last = P, (time.perf_counter(), stage.moved(), time.time())  # without what counting took
        anchor_pass(self, H, q_scale, q_power, P, *out)

    rows.anchor_pass = counted
    try:
        yield
    finally:
        rows.anchor_pass = anchor_pass
    seconds, moved, tasks = (np.array(each) for each in zip(*counts))
    stage.rows.append({"iterations": counts, "partitions": parts, "blocks": blocks})
    print(
        f"an iteration: {np.median(seconds):.2f} s (median); {blocks} blocks in {parts} partitions; of a partition "
        f"{moved.mean() / parts / 1024:.0f} KiB (mean; median {np.median(moved) / parts / 1024:.0f}) and "
        f"{tasks.mean() / parts:.2f} tasks; of a block {moved.mean() / blocks / 1024:.0f} KiB", flush=True,
    )  # fmt: skip


def compare(args, settings, path, hasher, queries, answer, stage):
    X = np.asarray(zarr.open_array(path, mode="r")[:])
    with stage("one machine: fit"):
        one = aphash.APHash(**settings, n_jobs=2).fit(X)
    index = aphash.HammingIndex(args.n_bits)
    index.add(one.codes_)
    with stage("one machine: search"):
        expected = index.search(queries, args.k)
    for name in ("coef_", "intercept_", "thresholds_", "anchors_", "objective_"):
        if not np.array_equal(getattr(one, name), getattr(hasher, name)):
            raise SystemExit(f"{name} differs from one machine's")
    if not np.array_equal(one.codes_, hasher.codes_.compute()):
        raise SystemExit("codes_ differ from one machine's")
    if not all(np.array_equal(a, b) for a, b in zip(answer, expected)):
        raise SystemExit("the answers differ from one machine's")
    print("equal to one machine: codes_, hash function, thresholds, objective, answers")


if __name__ == "__main__":
    main()
