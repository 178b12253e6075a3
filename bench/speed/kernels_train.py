"""The training kernels against numpy, scikit-learn, faiss and torch: interleaved runs, medians of ratios.

Every peer's result is checked against ours before anything is timed. One thread on both sides, and CPU time, which a
busy machine disturbs less; rows of 2 threads measure elapsed time and need two idle cores.
"""

import argparse
import json
import os
import platform
import sys
import threading
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before any OpenMP runtime starts: idle threads must not spin

import numpy as np
import numpy_fit
from scipy import sparse
from threadpoolctl import threadpool_limits

from aphash import APHash, _kernels
from aphash._learning import _affinity_pass, _distances, _projection, _source

TILE = numpy_fit.TILE
BLOCK = 1024  # items of a block of a fit of so many items


def timed(call, clock):
    begin = clock()
    call()
    return clock() - begin


def compare(ours, peer, rounds, clock=time.process_time):
    """Return (median seconds of ours, median of the peer's, median ratio peer / ours) of interleaved runs."""
    ours(), peer()
    pairs = [(timed(ours, clock), timed(peer, clock)) for _ in range(rounds)]
    a, b = np.array(pairs).T
    return float(np.median(a)), float(np.median(b)), float(np.median(b / a))


def side_by_side(call):
    """Make the call in two Python threads at the same time: what two threads can gain here at most."""
    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Report:
    def __init__(self):
        self.rows = []
        self.peak = None

    def measure_peak(self):
        self.peak = _projection.fma_peak(0.3)

    def add(self, case, peer, ours, theirs, ratio, multiply_adds=None):
        share = multiply_adds / ours / self.peak if multiply_adds else None
        row = {"case": case, "peer": peer, "seconds": ours, "peer_seconds": theirs, "ratio": ratio, "peak_share": share}
        self.rows.append(row)
        text = f"{case:42s} {peer:24s} {ours * 1e3:9.1f} ms {theirs * 1e3:9.1f} ms {ratio:6.2f} x"
        print(text + (f"   {share:4.0%} of peak" if share else ""), flush=True)

    def add_two_threads(self, case, ours, rounds):
        """Elapsed time of ours(n_threads): 2 threads, and 1 thread twice at the same time, against 1 thread."""
        self.add(case + ", 2 threads", "1 thread", *compare(lambda: ours(2), ours, rounds, time.perf_counter))
        a, b, ratio = compare(lambda: side_by_side(ours), ours, rounds, time.perf_counter)
        self.add(case + ", 2 runs at once", "1 run, per run", a / 2, b, 2 * ratio)


# -- (B) the passes over all pairs -------------------------------------------------------------------------------------


def pairs_of(rng, n, m, share=0.01):
    """P, item-major: every item has about share * m anchors."""
    counts = rng.binomial(m, share, n)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    anchors = np.concatenate([rng.choice(m, c, replace=False) for c in counts]).astype(np.int32)
    return indptr, anchors


def tiled_numpy_gradients(H, B, P, p):
    """J's sums and both gradients for s = a = 1 in float32, m x n never held: what a careful user of numpy writes."""
    *sums, first, second = numpy_fit.anchor_pass(H, B, P, 1.0, 1.0)
    inv_z = (1 / sums[0]).astype(np.float32)
    return np.array(sums), np.array([first, second]), numpy_fit.item_gradient(H, B, P, p, inv_z, 1.0, 1.0)


def our_gradients(H, B, p, indptr, anchors, n_threads=1):
    m, r = H.shape
    sums, vectors, quantization_loss, gradient = np.empty((4, m)), np.empty((2, m, r)), np.empty(1), np.empty_like(B)
    _affinity_pass.anchor_pass(B, H, 1, 1, indptr, anchors, BLOCK, sums, vectors, quantization_loss, n_threads)
    inv_z = (1 / sums[0]).astype(np.float32)
    _affinity_pass.item_gradient(B, H, inv_z, p, 1, 1, indptr, anchors, BLOCK, 1.0, 0.0, gradient, n_threads)
    return sums, vectors, gradient


def torch_gradients(torch, H, B, P, autograd):
    """KL(P | Q) and both gradients by torch, tiled; P (m, n) dense, which is the simplest to write."""
    H, B = torch.from_numpy(H), torch.from_numpy(B)
    tiles = range(0, len(B), TILE)
    if autograd:
        H.requires_grad_(), B.requires_grad_()
        z = torch.zeros(len(H))
        logs = 0.0
        for at in tiles:
            near = 1 / (1 + torch.cdist(H, B[at : at + TILE]) ** 2 / 4)
            z = z + near.sum(dim=1)
            logs = logs + (P[:, at : at + TILE] * near.log()).sum(dim=1)
        ((P.sum(dim=1) * z.log()) - logs).sum().backward()
        return H.grad.numpy(), B.grad.numpy()
    h2, b2 = (H * H).sum(dim=1), (B * B).sum(dim=1)

    def near_of(at):
        return torch.addmm(
            (1 + h2 / 4)[:, None] + b2[at : at + TILE] / 4, H, B[at : at + TILE].T, alpha=-0.5
        ).reciprocal_()

    z = torch.zeros(len(H))
    for at in tiles:
        z += near_of(at).sum(dim=1)
    dH, dB = torch.zeros_like(H), torch.empty_like(B)
    for at in tiles:
        near = near_of(at)
        part = B[at : at + TILE]
        A = (P[:, at : at + TILE] - near / z[:, None]) * near
        dH += 0.5 * (A.sum(dim=1)[:, None] * H - A @ part)
        dB[at : at + TILE] = 0.5 * (A.sum(dim=0)[:, None] * part - A.T @ H)
    return dH.numpy(), dB.numpy()


def bench_gradients(report, n, m, r, rounds):
    rng = np.random.default_rng(0)
    H, B = (rng.standard_normal((size, r)).astype(np.float32) for size in (m, n))
    indptr, anchors = pairs_of(rng, n, m)
    p = (1 / np.maximum(1, np.bincount(anchors, minlength=m))).astype(np.float32)
    case = f"(B) gradients n={n} m={m} r={r}"
    arguments = H, B, p, indptr, anchors
    P = sparse.csc_array((np.ones(len(anchors), np.float32), anchors, indptr), shape=(m, n))
    for got, want in zip(our_gradients(*arguments), tiled_numpy_gradients(H, B, P, p), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
    work = 4.0 * n * m * r
    report.measure_peak()
    result = compare(lambda: our_gradients(*arguments), lambda: tiled_numpy_gradients(H, B, P, p), rounds)
    report.add(case, "tiled numpy", *result, work)
    report.add_two_threads(case, lambda n_threads=1: our_gradients(*arguments, n_threads), rounds)
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
    dense = torch.from_numpy(P.toarray(order="C") * p[:, None])  # a row an anchor, as torch has it
    for name, autograd in (("torch, by hand", False), ("torch autograd", True)):
        result = compare(
            lambda: our_gradients(*arguments), lambda a=autograd: torch_gradients(torch, H, B, dense, a), rounds
        )
        report.add(case, name, *result, work)


# -- (A) thresholds and neighbours -------------------------------------------------------------------------------------


def our_nearest(X, A, k, n_threads=1):
    d2, ids = np.full((len(A), k), np.inf, np.float32), np.full((len(A), k), -1)
    _distances.nearest(_source.Source(X), 0, len(X), A, d2, ids, n_threads)
    return d2, ids


def bench_nearest(report, n, m, d, k, rounds):
    import faiss
    from sklearn.metrics._pairwise_distances_reduction import ArgKmin

    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)).astype(np.float32) / np.float32(np.sqrt(d))
    A = X[rng.permutation(n)[:m]].copy()
    case = f"(A) nearest n={n} m={m} d={d} k={k}"
    peers = {
        "tiled numpy": lambda: numpy_fit.nearest(X, A, k),
        "scikit-learn ArgKmin": lambda: ArgKmin.compute(A, X, k, metric="sqeuclidean", return_distance=True),
        "faiss.knn": lambda: faiss.knn(A, X, k),
    }
    d2, ids = our_nearest(X, A, k)
    report.measure_peak()
    for name, peer in peers.items():
        peer_d2, peer_ids = peer()
        np.testing.assert_allclose(d2, peer_d2, atol=1e-4)
        same = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(ids, peer_ids, strict=True)])
        assert same > 0.999, same  # rounding may swap the last ones
        report.add(case, name, *compare(lambda: our_nearest(X, A, k), peer, rounds), float(n) * m * d)
    report.add_two_threads(case, lambda n_threads=1: our_nearest(X, A, k, n_threads), rounds)


# -- (C) encoding ------------------------------------------------------------------------------------------------------


def bench_encode(report, n, d, r, rounds):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)).astype(np.float32)
    W = rng.standard_normal((d, r)).astype(np.float32)
    mean, bias, codes = np.zeros(d), np.zeros(r, np.float32), np.empty((n, -(-r // 64)), np.uint64)

    def ours(n_threads=1):
        _projection.encode(_source.Source(X, None, mean), 0, n, W, bias, codes, n_threads)

    def peer():
        return np.packbits(X @ W > 0, axis=1, bitorder="little")

    ours()
    bits = np.unpackbits(codes.view(np.uint8), axis=1, bitorder="little", count=r)
    assert (bits == np.unpackbits(peer(), axis=1, bitorder="little", count=r)).mean() > 0.99999
    case = f"(C) encode n={n} d={d} r={r}"
    report.measure_peak()
    report.add(case, "X @ W > 0, packbits", *compare(ours, peer, rounds), float(n) * d * r)
    report.add_two_threads(case, ours, rounds)


# -- the whole fit -----------------------------------------------------------------------------------------------------


def features_of(n, d):
    """Clusters of different sizes on a slowly decaying spectrum: one draw, that of all measurements so far.

    Rounding grows in an iteration and more on some draws than on others, and the two sides are compared closely.
    """
    rng = np.random.default_rng(0)
    spectrum = (1 / np.sqrt(1 + np.arange(d) / 8)).astype(np.float32)
    chosen = (200 * rng.random(n) ** 2).astype(int)
    return (
        rng.standard_normal((200, d), np.float32)[chosen] + 1.5 * rng.standard_normal((n, d), np.float32)
    ) * spectrum


def bench_fit(report, n, d, m, r, rounds):
    X = features_of(n, d)
    given = {  # all of them, so that the row stays the same when the defaults change
        "n_anchors": m, "n_neighbors": 0.01, "q_scale": r / 8, "q_power": 4.0, "whitening": 0.25, "n_rounds": 2,
        "max_iter": 10, "learning_rate": 0.05, "random_state": 0,
    }  # fmt: skip

    def ours(n_jobs=1):
        return APHash(r, n_jobs=n_jobs, **given).fit(X)

    def peer():
        return numpy_fit.fit(X, ours_settings, np.random.RandomState(0))

    ours_settings = APHash(r, **given)._settings(n)
    hasher = ours()
    J0 = peer()[-1]
    np.testing.assert_allclose(hasher.objective_["J0"][:10], J0[:10], rtol=1e-4)  # then rounding moves rotations
    np.testing.assert_allclose(hasher.objective_["J0"], J0, rtol=1e-2)
    case = f"fit n={n} d={d} m={m} r={r}, 2 rounds of 10"
    report.add(case, "tiled numpy", *compare(ours, peer, rounds))
    report.add_two_threads(case, ours, rounds)


def main(argv):
    parser = argparse.ArgumentParser(prog="kernels.py train", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: does it run?")
    parser.add_argument("--json", metavar="FILE", help="append the rows as JSON lines")
    parser.add_argument("--only", choices="ABCF", help="one kernel; F: the whole fit")
    options = parser.parse_args(argv)
    n, rounds = (6000, 3) if options.quick else (59000, 7)
    report = Report()
    report.measure_peak()
    print(f"isa {_kernels.isa()}, numpy {np.__version__}, FMA peak of a thread {report.peak / 1e9:.1f} G/s")
    with threadpool_limits(1):
        if options.only in (None, "B"):
            bench_gradients(report, n, 500, 64, rounds)
            bench_gradients(report, n, 500, 16, rounds)
        if options.only in (None, "A"):
            bench_nearest(report, n, 500, 512, 500, rounds)
        if options.only in (None, "C"):
            bench_encode(report, n, 512, 64, rounds)
        if options.only in (None, "F"):
            bench_fit(report, max(n, 21_000), 512, 500, 64, 3 if options.quick else 5)
    if options.json:
        machine = {
            "machine": platform.machine(),
            "isa": _kernels.isa(),
            "numpy": np.__version__,
            "fma_peak": report.peak,
        }
        with open(options.json, "a") as file:
            file.writelines(json.dumps({**machine, **row, "time": time.time()}) + "\n" for row in report.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
