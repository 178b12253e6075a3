"""What a service pays: one query's code, beside numpy's product, and the first load in a process. All in turn, medians.

    python bench/speed/serving.py row [--times 500]
    python bench/speed/serving.py load [--runs 15] [--other PYTHON]      PYTHON: of an environment with another build

``row``: ``transform`` of one float32 row beside ``numpy.sign(x @ W)``; the same signs are checked. ``load``: seconds of
CPU of a process that opens a saved model with its index (1,536 features, 256 bits, 100,000 codes) and encodes and
searches one query, less those of one that imports numpy.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np

import aphash

SHAPES = ((384, 64), (1536, 256), (4096, 256))
QUERY = "x = __import__('numpy').zeros((1, 1536), 'f4'); index.search(model.transform(x), 10, n_jobs=1)"


def fitted(d, n_bits, n=400):
    X = np.random.default_rng(0).standard_normal((n, d), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return aphash.APHash(n_bits, n_rounds=1, max_iter=1, n_anchors=20, random_state=0).fit(X), X


def rows(times):
    for d, n_bits in SHAPES:
        hasher, X = fitted(d, n_bits)
        encoder, W = hasher.encoder_, np.ascontiguousarray(hasher.coef_.T, np.float32)
        bias = hasher.decision_function(np.zeros((1, d), np.float32))
        signs = aphash.unpack_codes(encoder.transform(X), n_bits) == (X @ W + bias >= 0)
        if signs.mean() < 0.999:
            sys.exit("other signs than numpy's")
        x = X[:1]
        calls = {
            "numpy": lambda x=x, W=W: np.sign(x @ W),
            "Encoder": lambda x=x, encoder=encoder: encoder.transform(x),
            "APHash": lambda x=x, hasher=hasher: hasher.transform(x),
        }
        took = {name: [] for name in calls}
        for _ in range(times):
            for name, call in calls.items():
                begun = time.perf_counter()
                call()
                took[name].append(1e6 * (time.perf_counter() - begun))
        said = [f"{name} {statistics.median(t):.1f} us" for name, t in took.items()]
        for name in ("Encoder", "APHash"):
            ratio = statistics.median(ours / numpys for ours, numpys in zip(took[name], took["numpy"]))
            said.append(f"{name} / numpy {ratio:.2f}")
        print(f"{d} x {n_bits}: {', '.join(said)}")


def cpu_seconds(python, statement):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([python, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def loads(runs, other):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "product")
        hasher, X = fitted(1536, 256)
        index = aphash.HammingIndex(256)
        index.add(np.repeat(hasher.transform(X), 250, axis=0))
        aphash.save(path, hasher, index)
        opened = f"import aphash; model, index = aphash.{{}}({path!r}, mmap=True); {QUERY}"
        calls = {
            "numpy": (sys.executable, "import numpy"),
            "load_encoder": (sys.executable, opened.format("load_encoder")),
            "load": (sys.executable, opened.format("load")),
        }
        if other:
            calls["load, the other build"] = other, opened.format("load")
        took = {name: [] for name in calls}
        for _ in range(runs + 1):
            for name, call in calls.items():
                took[name].append(cpu_seconds(*call))
        for name, seconds in took.items():
            beyond = statistics.median(a - b for a, b in zip(seconds[1:], took["numpy"][1:]))
            print(f"{name}: {statistics.median(seconds[1:]):.3f} s of CPU, {beyond:.3f} beyond numpy")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("row", "load"))
    parser.add_argument("--times", type=int, default=500)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--other", metavar="PYTHON")
    options = parser.parse_args()
    if options.what == "row":
        rows(options.times)
    else:
        loads(options.runs, options.other)


if __name__ == "__main__":
    main()
