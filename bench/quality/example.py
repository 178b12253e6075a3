"""The README's worked example: 100,000 images, their near-duplicates found, saved, mapped, searched, rescored.

    python bench/quality/example.py --data-dir DATA [--work WORK]

The images are CIFAR-10's 60,000 and, of 40,000 of them, a copy that is brighter or darker by up to a tenth and was
stored again as JPEG (quality 75 to 95). So it is known which images are near-duplicates. Their features are GIST-512
(bench/quality/features.py), extracted once into WORK.
"""

import argparse
import io
import os
import time
from pathlib import Path

import datasets
import evaluation
import features
import numpy as np
from PIL import Image

import aphash
from aphash import APHash, HammingIndex, VectorRescore

N_COPIES = 40_000
N_QUERIES = 1000


def copy_of(image, rng):
    """Return a copy of an image: brighter or darker, through JPEG."""
    brightness = np.clip(np.arange(256) * rng.uniform(0.9, 1.1), 0, 255).astype(int)
    picture = Image.fromarray(image).point(brightness.tolist() * 3)
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=int(rng.integers(75, 96)))
    return np.asarray(Image.open(stored))


def vectors(data_dir, work):
    """Return (path of the .npy file of features, originals: the image that each row shows)."""
    images = datasets.cifar10_images(data_dir)[0]
    rng = np.random.default_rng(0)
    copied = rng.choice(len(images), N_COPIES, replace=False)
    path = Path(work) / "example-gist512.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        copies = np.stack([copy_of(images[i], rng) for i in copied])
        X = features.gist(np.concatenate([images, copies]), os.cpu_count()).astype(np.float32)
        np.save(path.with_suffix(".part.npy"), X)
        path.with_suffix(".part.npy").replace(path)
    return path, np.concatenate([np.arange(len(images)), copied])


class Clock:
    """Says how long it took since it last spoke."""

    def __init__(self):
        self.begun = time.perf_counter()

    def __call__(self, words):
        print(f"{time.perf_counter() - self.begun:8.2f} s  {words}", flush=True)
        self.begun = time.perf_counter()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", metavar="DIR", default=os.environ.get("APHASH_DATA", "data"))
    parser.add_argument("--work", metavar="DIR", default="data/bench-work", help="features and the saved file")
    parser.add_argument("--radius", type=int, default=4)
    options = parser.parse_args()
    clock = Clock()
    path, original = vectors(options.data_dir, options.work)
    clock("features (once)")

    X = np.load(path, mmap_mode="r")
    hasher = APHash(n_bits=128, mode="neighbors", random_state=0).fit(X)
    clock(f"fit: {len(X)} x {X.shape[1]}, 128 bits")
    index = HammingIndex(128)
    index.add(hasher.transform(X))
    clock("encode and add")

    n_images, n_found, n_pairs = len(X) - N_COPIES, 0, 0
    for i, j, _ in index.pairs(options.radius):
        n_pairs += len(i)
        n_found += int(np.count_nonzero((original[i] == original[j]) & (j >= n_images)))
    words = f"pairs within {options.radius} bits: {n_pairs}"
    clock(f"{words}, among them {n_found} of the {N_COPIES} copies with their originals")
    _, labels = index.groups(options.radius)
    sizes = np.bincount(labels)
    clock(f"groups: {len(sizes)}, the largest of {sizes.max()}, {np.count_nonzero(sizes > 1)} of more than one")

    index.build_lookup()
    clock("lookup")
    file = Path(options.work) / "example.aphash"
    aphash.save(file, hasher, index)
    clock(f"save: {file.stat().st_size / 2**20:.1f} MiB")
    hasher, index = aphash.load(file, mmap=True)
    clock("open it as a map")

    queries = X[-N_QUERIES:]  # copies; who is the original?
    codes = hasher.transform(queries)
    clock(f"encode {N_QUERIES} queries")
    ids = index.search(codes, 10, filter=np.arange(n_images))[1]  # among the originals only
    first = np.mean(ids[:, 0] == original[-N_QUERIES:])
    clock(f"search among the originals: the nearest code is the right one for {first:.1%}")
    ids = index.search(codes, 10, filter=np.arange(n_images), rescore=VectorRescore(X), rescore_queries=queries)[1]
    first = np.mean(ids[:, 0] == original[-N_QUERIES:])
    clock(f"the same, 100 candidates ranked by their vectors: {first:.1%}")
    exact = evaluation.true_neighbors(np.asarray(X[:n_images]), np.asarray(queries), k=1)[:, 0]
    clock(f"brute force over the vectors: {np.mean(exact == original[-N_QUERIES:]):.1%}")


if __name__ == "__main__":
    main()
