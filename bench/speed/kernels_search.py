"""Exact search by codes against faiss and usearch: results checked equal, then timed side by side; and by weights.

    python bench/speed/kernels.py search [--quick] [--json FILE] [--isa NAME ...] [--only WORD]

Each row runs in one process, one thread each (but where it says otherwise), the sides in turn; the figure is the median
of the ratios of neighbouring runs. faiss is the better of use_heap True and False at its SIMD level, which is set by
FAISS_SIMD_LEVEL before it is imported, as this program does from --isa: AVX2 beside our avx2.

Searches by weights (--only weights) stand beside our own search by codes, and beside what else searches codes of as
many bytes by floats: faiss's 4-bit product quantisation with fast scan, after PCA and a random rotation, and turbovec
with 2 or 4 bits a dimension, where it is installed. Those find other neighbours, so only the times are compared. Our
own results are checked against numpy.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("RAYON_NUM_THREADS", "1")  # turbovec's threads

import numpy as np

from aphash import HammingIndex, _kernels, pack_codes, unpack_codes

FAISS_LEVEL = {"base": "NONE", "sse4": "NONE", "avx2": "AVX2", "avx512": "AVX512"}
FAISS_QUERIES = 40  # faiss and usearch are timed on so many queries of a batch, which is linear in them
USEARCH_QUERIES = 2

ROWS = [  # name, n, bits, k, queries, data
    ("1M x 64, k=10, clustered", 1e6, 64, 10, 500, "clustered"),
    ("1M x 64, k=1000, random", 1e6, 64, 1000, 200, "random"),
    ("1M x 128, k=100, clustered", 1e6, 128, 100, 300, "clustered"),
    ("1M x 256, k=10, random", 1e6, 256, 10, 200, "random"),
    ("10M x 64, k=100, random", 1e7, 64, 100, 256, "random"),
    ("10M x 128, k=100, random", 1e7, 128, 100, 256, "random"),
    ("10M x 256, k=100, random", 1e7, 256, 100, 256, "random"),
    ("10M x 64, k=10, one query", 1e7, 64, 10, 1, "random"),
]


def make(rng, n, bits, n_queries, kind):
    """Codes and queries, uint64: random, 1,000 clusters of 1/8 noise, or near-duplicates (pairs one bit apart)."""
    words = bits // 64

    def random(m):
        return rng.integers(0, 2**64, (m, words), np.uint64)

    if kind == "random":
        return random(n), random(n_queries)
    if kind == "clustered":
        centres = random(1000)

        def near(m):
            return centres[rng.integers(0, 1000, m)] ^ (random(m) & random(m) & random(m))

        return near(n), near(n_queries)
    codes = random(n)
    half = n // 2
    codes[half:] = codes[: n - half]
    flips = rng.integers(0, bits, n - half)
    codes[np.arange(half, n), flips // 64] ^= np.uint64(1) << (flips % 64).astype(np.uint64)
    return codes, codes[rng.integers(0, n, n_queries)]


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(ours, peers, repeats):
    """Time ours and each peer in turn: (median seconds of ours, {peer: (median seconds, median ratio)})."""
    times = {name: [] for name in ["", *peers]}
    for _ in range(repeats):
        times[""].append(seconds(ours))
        for name, peer in peers.items():
            times[name].append(seconds(peer))
    return statistics.median(times[""]), {
        name: (
            statistics.median(times[name]),
            statistics.median(p / o for p, o in zip(times[name], times[""])),
        )
        for name in peers
    }


def bandwidth(n_bytes):
    """Bytes a second that one thread reads from an array of this size: the best of five sums."""
    data = np.ones(n_bytes // 8, np.uint64)
    return n_bytes / min(seconds(data.max) for _ in range(5))


def alu_limit(bits):
    """Codes a second with everything in the caches and no hits: the kernel's own limit."""
    rng = np.random.default_rng(0)
    codes, queries = make(rng, 1 << 14, bits, 256, "random")
    index = HammingIndex(bits)
    index.add(codes)
    return len(codes) * 256 / min(seconds(lambda: index.radius_search(queries, 0, n_jobs=1)) for _ in range(15))


def search_row(name, n, bits, k, n_queries, kind, repeats, with_usearch):
    import faiss

    faiss.omp_set_num_threads(1)
    codes, queries = make(np.random.default_rng(0), n, bits, n_queries, kind)
    index = HammingIndex(bits)
    index.add(codes)
    flat = faiss.IndexBinaryFlat(bits)
    flat.add(codes.view(np.uint8))
    few = queries[:FAISS_QUERIES].view(np.uint8)
    distances, ids = index.search(queries, k, n_jobs=1)
    peers = {}
    for heap in (True, False):

        def run(heap=heap):
            flat.use_heap = heap
            return flat.search(few, k)

        peers[f"faiss, use_heap={heap}"] = run
        check_equal(*run(), distances[: len(few)], ids[: len(few)], codes, queries)
    if with_usearch:
        from usearch.index import MetricKind, search

        bytes_ = codes.view(np.uint8)
        matches = search(bytes_, few[:USEARCH_QUERIES], k, MetricKind.Hamming, exact=True, threads=1)
        assert np.array_equal(np.asarray(matches.distances, np.int64)[:USEARCH_QUERIES], distances[: len(matches)])
        peers["usearch, exact"] = lambda: search(
            bytes_, few[:USEARCH_QUERIES], k, MetricKind.Hamming, exact=True, threads=1
        )
    ours, results = compare(lambda: index.search(queries, k, n_jobs=1), peers, repeats)
    share = {name: n_queries / (USEARCH_QUERIES if name.startswith("u") else len(few)) for name in peers}
    share = {name: max(1.0, s) for name, s in share.items()}
    record = {"row": name, "ours_ms": ours * 1e3, "codes_per_s": n * n_queries / ours}
    for peer, (_, ratio) in results.items():
        record[peer] = ratio * share[peer]
    record["ratio"] = min(v for key, v in record.items() if key.startswith("faiss"))
    if n_queries == 1:
        size = n * bits // 8
        record["of_bandwidth"] = size / ours / bandwidth(size)
    return record


def check_equal(peer_distances, peer_ids, distances, ids, codes, queries):
    """Distances are equal; of the peer's ids, which may be others among equals, the distances are right."""
    assert np.array_equal(np.sort(peer_distances, 1), distances)
    assert np.array_equal(np.bitwise_count(codes[ids] ^ queries[: len(ids), None]).sum(2), distances)
    assert np.array_equal(np.bitwise_count(codes[peer_ids] ^ queries[: len(ids), None]).sum(2), peer_distances)


def radius_row(n, bits, n_queries, repeats):
    import faiss

    faiss.omp_set_num_threads(1)
    codes, queries = make(np.random.default_rng(1), n, bits, n_queries, "clustered")
    radius = bits // 8
    index = HammingIndex(bits)
    index.add(codes)
    flat = faiss.IndexBinaryFlat(bits)
    flat.add(codes.view(np.uint8))
    few = queries[:FAISS_QUERIES].view(np.uint8)
    offsets, _, ids = index.radius_search(queries, radius, n_jobs=1)
    limits, _, found = flat.range_search(few, radius + 1)  # it means d < radius
    assert np.array_equal(limits.astype(np.int64), offsets[: len(limits)])
    for i in range(len(few)):
        assert np.array_equal(np.sort(found[limits[i] : limits[i + 1]]), np.sort(ids[offsets[i] : offsets[i + 1]]))
    ours, results = compare(
        lambda: index.radius_search(queries, radius, n_jobs=1),
        {"faiss": lambda: flat.range_search(few, radius + 1)},
        repeats,
    )
    return {
        "row": f"radius {radius}, {n / 1e6:g}M x {bits}, clustered",
        "ours_ms": ours * 1e3,
        "codes_per_s": n * n_queries / ours,
        "results_per_query": float(offsets[-1] / n_queries),
        "ratio": results["faiss"][1] * n_queries / len(few),
    }


def own_rows(n, repeats):
    """Rows against our own scan: filters, two threads, lookup, pairs."""
    codes, queries = make(np.random.default_rng(2), n, 64, 300, "near-duplicates")
    rng = np.random.default_rng(3)
    random = rng.integers(0, 2**64, (300, 1), np.uint64)
    index = HammingIndex(64)
    index.add(codes)

    def row(name, ours, other, ratio_of="scan / this"):
        base, results = compare(ours, {"other": other}, repeats)
        return {"row": name, "ours_ms": base * 1e3, "ratio": results["other"][1], "ratio_of": ratio_of}

    for share in (0.01, 0.5):
        mask = rng.random(n) < share
        bitmap = np.packbits(mask, bitorder="little")
        bitmap = np.pad(bitmap, (0, -len(bitmap) % 8)).view(np.uint64)
        for name, batch in (("batch", random), ("one query", random[:1])):
            yield row(
                f"filter {share:.0%}, {name}, k=10",
                lambda batch=batch: index.search(batch, 10, n_jobs=1),
                lambda batch=batch, bitmap=bitmap: index.search(batch, 10, filter=bitmap, n_jobs=1),
                "filtered / unfiltered",
            )
    yield row(
        "2 threads, batch, k=10",
        lambda: index.search(random, 10, n_jobs=2),
        lambda: index.search(random, 10, n_jobs=1),
        "1 thread / 2 threads",
    )
    looked_up = HammingIndex(64)
    looked_up.add(codes)
    start = time.perf_counter()
    looked_up.build_lookup()
    build = time.perf_counter() - start
    for i in range(20):
        for a, b in zip(looked_up.search(queries[i], 2), index.search(queries[i], 2)):
            assert np.array_equal(a, b)

    def one_by_one(index, count):
        for query in queries[:count]:
            index.search(query, 2, n_jobs=1)

    record = row(
        "lookup, near-duplicates, one query", lambda: one_by_one(looked_up, 300), lambda: one_by_one(index, 10)
    )
    yield record | {"ours_ms": record["ours_ms"] / 300, "ratio": record["ratio"] * 300 / 10, "build_s": build}
    yield row(
        "lookup, near-duplicates, batch",
        lambda: looked_up.search(queries, 2, n_jobs=1),
        lambda: index.search(queries, 2, n_jobs=1),
    )
    for name, batch in (("one query", random[:1]), ("batch", random)):
        yield row(
            f"lookup, random codes, {name}, k=10",
            lambda batch=batch: index.search(batch, 10, n_jobs=1),
            lambda batch=batch: looked_up.search(batch, 10, n_jobs=1),
            "with lookup / scan",
        )


DIMENSIONS = 128  # of the vectors that searches by weights are measured on


class Vectors:
    """Vectors of 1,000 clusters, each of 24 dimensions out of 128, made anew a chunk at a time."""

    def __init__(self, n):
        rng = np.random.default_rng(6)
        self.n = n
        self.centres = rng.standard_normal((1000, DIMENSIONS), np.float32)
        self.bases = rng.standard_normal((50, 24, DIMENSIONS), np.float32) / 5

    def chunk(self, seed, rows):
        rng = np.random.default_rng([7, seed])
        cluster = rng.integers(0, 1000, rows)
        noise = rng.standard_normal((rows, 24), np.float32)
        out = self.centres[cluster] + 0.1 * rng.standard_normal((rows, DIMENSIONS), np.float32)
        for number in range(50):
            here = cluster % 50 == number
            out[here] += noise[here] @ self.bases[number]
        return out

    def chunks(self, rows=50_000):
        for seed, start in enumerate(range(0, self.n, rows)):
            yield self.chunk(seed, min(rows, self.n - start))


def projection(vectors, n_bits):
    """PCA and a random rotation, or a random projection with orthonormal rows to more bits: (mean, matrix)."""
    sample = vectors.chunk(10**6, 20_000)
    mean = sample.mean(0)
    directions = np.linalg.eigh(np.cov(sample.T))[1][:, ::-1][:, :n_bits].astype(np.float32)
    random = np.random.default_rng(8).standard_normal((max(n_bits, directions.shape[1]), directions.shape[1]))
    return mean, directions @ np.linalg.qr(random)[0].T.astype(np.float32)


def check_weighted(codes, weights, distances, ids):
    """One query's results by the definition, in int64."""
    p = weights[0].astype(np.float64)
    integers = np.rint(np.abs(p) / np.abs(p).max() * 65535).astype(np.int64)
    found = np.empty(len(codes), np.int64)
    for start in range(0, len(codes), 1 << 16):
        some = slice(start, start + (1 << 16))
        found[some] = (unpack_codes(codes[some], len(p)) != (p >= 0)) @ integers
    order = np.lexsort((np.arange(len(codes)), found))[: len(ids[0])]
    assert np.array_equal(ids[0], order)
    assert np.array_equal(distances[0], (found[order] * np.abs(p).max() / 65535).astype(np.float32))


def weighted_rows(n, n_bits, repeats):
    """k = 10 of 256 queries by weights, beside codes and floats of as many bytes; and k = 1,000."""
    import faiss

    faiss.omp_set_num_threads(1)
    vectors = Vectors(n)
    mean, matrix = projection(vectors, n_bits)
    queries = vectors.chunk(10**7, 256)
    weights = (queries - mean) @ matrix
    index = HammingIndex(n_bits)
    n_parts = n_bits // 4
    dimensions = min(n_bits, DIMENSIONS)
    quantiser = faiss.IndexPQFastScan(dimensions, n_parts, 4)
    chain = faiss.PCAMatrix(DIMENSIONS, dimensions, 0, True)
    fast_scan = faiss.IndexPreTransform(chain, quantiser)
    fast_scan.train(vectors.chunk(10**6, 50_000))
    turbo = None
    if n_bits == 2 * DIMENSIONS or n_bits == 4 * DIMENSIONS:
        try:
            from turbovec import TurboQuantIndex
        except ImportError:
            pass
        else:
            turbo = TurboQuantIndex(DIMENSIONS, n_bits // DIMENSIONS)
    for chunk in vectors.chunks():
        index.add(pack_codes((chunk - mean) @ matrix))
        fast_scan.add(chunk)
        if turbo is not None:
            turbo.add(chunk)
    rotated = chain.apply(queries)
    check_weighted(index.codes, weights, *index.search(weights[:1], 100, n_jobs=1))
    codes = pack_codes(weights)
    peers = {
        "codes": lambda: index.search(codes, 10, n_jobs=1),
        "PQ fast scan": lambda: quantiser.search(rotated, 10),
        "k = 1,000": lambda: index.search(weights, 1000, n_jobs=1),
    }
    if turbo is not None:
        turbo.prepare()
        peers["turbovec"] = lambda: turbo.search(queries, 10)
    ours, results = compare(lambda: index.search(weights, 10, n_jobs=1), peers, repeats)
    yield {
        "row": f"weights, {n / 1e6:g}M x {n_bits}, k=10, 256 queries",
        "ours_ms": ours * 1e3,
        "codes_per_s": n * 256 / ours,
        "bytes_per_s": n * 256 / ours * n_bits / 8,
        **{name: ratio for name, (_, ratio) in results.items()},
        "ratio": results["PQ fast scan"][1],
        "ratio_of": "PQ fast scan / this; the others too",
    }


def weighted_single_row(n, repeats):
    """One query on random codes, beside the same by its code; and with two threads."""
    rng = np.random.default_rng(9)
    index = HammingIndex(64)
    index.add(rng.integers(0, 2**64, (n, 1), np.uint64))
    weights = rng.standard_normal(64)
    code = pack_codes(weights)
    peers = {
        "codes": lambda: index.search(code, 10, n_jobs=1),
        "2 threads": lambda: index.search(weights, 10, n_jobs=2),
    }
    ours, results = compare(lambda: index.search(weights, 10, n_jobs=1), peers, 3 * repeats)
    return {
        "row": f"weights, {n / 1e6:g}M x 64, k=10, one query",
        "ours_ms": ours * 1e3,
        **{name: ratio for name, (_, ratio) in results.items()},
        "ratio": results["codes"][1],
        "ratio_of": "codes / this; the other too",
    }


def small_weighted_row(n, repeats):
    """256 queries on a small index: mostly what does not depend on the number of codes."""
    rng = np.random.default_rng(10)
    index = HammingIndex(64)
    index.add(rng.integers(0, 2**64, (n, 1), np.uint64))
    weights = rng.standard_normal((256, 64))
    codes = pack_codes(weights)
    ours, results = compare(
        lambda: index.search(weights, 10, n_jobs=1), {"codes": lambda: index.search(codes, 10, n_jobs=1)}, 5 * repeats
    )
    return {
        "row": f"weights, {n:,} x 64, k=10, 256 queries",
        "ours_ms": ours * 1e3,
        "codes_per_s": n * 256 / ours,
        "ratio": results["codes"][1],
        "ratio_of": "codes / this",
    }


def pairs_row(n):
    codes, _ = make(np.random.default_rng(4), n, 64, 1, "near-duplicates")
    index = HammingIndex(64)
    index.add(codes)
    start = time.perf_counter()
    found = [(i, j, d) for i, j, d in index.pairs(2, n_jobs=1)]
    ours = time.perf_counter() - start
    i, j, d = (np.concatenate(part) for part in zip(*found))
    sample = codes[:1000]
    offsets, distances, ids = index.radius_search(sample, 2, n_jobs=1)
    of = np.repeat(np.arange(len(sample)), np.diff(offsets))
    expected = {(*sorted(pair), at) for *pair, at in zip(of, ids, distances) if pair[0] != pair[1]}
    assert {each for each in zip(i, j, d) if each[0] < len(sample)} == expected  # of a pair the first id is the less
    scan = seconds(lambda: index.radius_search(sample, 2, n_jobs=1)) / len(sample) * n
    return {"row": f"pairs, radius 2, {n / 1e6:g}M x 64, near-duplicates", "ours_ms": ours * 1e3, "pairs": len(d)} | {
        "ratio": scan / ours,
        "ratio_of": "one radius search a code by scan (from 1,000) / this",
    }


def measure(args):
    """Yield the records of one instruction set, which is the process's."""
    import faiss

    common = {
        "isa": _kernels.isa(),
        "faiss": faiss.__version__,
        "faiss_level": os.environ.get("FAISS_SIMD_LEVEL", "default"),
        "numpy": np.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }
    scale = 0.1 if args.quick else 1
    repeats = 3 if args.quick else 5

    def wanted(name):
        return not args.only or args.only in name

    limits = {}
    for name, n, bits, k, n_queries, kind in ROWS:
        if wanted(name):
            record = search_row(name, int(n * scale), bits, k, n_queries, kind, repeats, n <= 1e6 and k == 10)
            if n_queries > 1:
                limits[bits] = limits.get(bits) or alu_limit(bits)
                record["of_alu_limit"] = record["codes_per_s"] / limits[bits]
            yield common | {"n": int(n * scale)} | record
    for bits in (64, 128, 256):
        if wanted("radius"):
            yield common | radius_row(int(1e7 * scale), bits, 128, repeats)
    if wanted("own"):
        for record in own_rows(int(1e7 * scale), repeats):
            yield common | {"n": int(1e7 * scale)} | record
    for bits in (64, 128, 256, 512):
        if wanted("weights") or wanted(f"weights {bits}"):
            for record in weighted_rows(int(1e6 * scale), bits, repeats):
                yield common | {"n": int(1e6 * scale)} | record
    if wanted("weights"):
        yield common | weighted_single_row(int(1e7 * scale), repeats)
        for n in (1_000, 20_000):
            yield common | small_weighted_row(n, repeats)
    if wanted("pairs"):
        yield common | pairs_row(int(1e6 * scale))


def show(record):
    notes = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in record.items()
        if key not in ("isa", "row", "ratio", "ours_ms", "numpy", "machine", "faiss_level", "faiss", "n")
    )
    print(
        f"{record['isa']:7} {record['row']:42} {record['ours_ms']:10.2f} ms {record['ratio']:8.2f} x   {notes}",
        flush=True,
    )


def main(argv=None):
    parser = argparse.ArgumentParser(prog="kernels.py search", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the codes, three repeats")
    parser.add_argument("--json", metavar="FILE", help="append a JSON line for each row")
    parser.add_argument("--isa", nargs="*", help="instruction sets to measure; by default the best")
    parser.add_argument("--only", help="rows whose name contains this; own: those against our own scan; pairs")
    args = parser.parse_args(argv)
    if args.isa is not None:  # each in a process of its own: faiss and aphash choose when they are imported
        for name in args.isa or _kernels.isa_names():
            options = [*(["--quick"] if args.quick else []), *(["--json", args.json] if args.json else [])]
            options += ["--only", args.only] if args.only else []
            environment = {**os.environ, "APHASH_ISA": name, "FAISS_SIMD_LEVEL": FAISS_LEVEL.get(name, "NONE")}
            subprocess.run([sys.executable, __file__, *options], env=environment, check=True)
        return
    for record in measure(args):
        show(record)
        if args.json:
            with open(args.json, "a") as file:
                file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
