"""The demo, ``python -m aphash``: learns codes of real images, searches them, prints a table, writes a picture.

``python -m aphash info FILE`` says what a file of aphash holds, and whether it is whole.
"""

import argparse
import os
import sys
import time

import numpy as np

from aphash import APHash, HammingIndex, metrics, pack_codes
from aphash._common import container
from aphash._common.arrays import as_floats
from aphash._common.finite import check_finite
from aphash._learning import linear
from aphash.codes import check_n_bits

QUERIES = 300
OUT = "aphash-demo.png"
NEIGHBORS = 10  # how many true nearest neighbours count, where there are no labels


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["info"]:
        return info(argv[1:])
    options = parse(argv)
    try:
        check_n_bits(options.bits)
        X, labels, shape = load(options)
        if shape is not None or options.out != OUT:
            check_picture(options.out)
        database, queries = split(len(X), options.seed)
        run(options, X, labels, shape, database, queries)
    except (OSError, TypeError, ValueError, MemoryError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        named = any(path in message for path in (options.data, options.labels) if path) or options.data is None
        sys.exit(f"aphash: {message}" if named else f"aphash: {options.data}: {message}")


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="python -m aphash",
        description="Learn binary codes of images (or of your own vectors), search held-out queries, compare.",
        epilog="Without --data: the 1,797 scans of handwritten digits that scikit-learn ships. "
        "'%(prog)s info FILE' says what a file of aphash holds, and whether it is whole.",
    )
    parser.add_argument("--bits", type=int, default=32, metavar="N", help="length of the codes (default 32)")
    parser.add_argument("--data", metavar="FILE.npy", help="vectors of your own, one a row")
    parser.add_argument("--labels", metavar="FILE.npy", help="their labels, integers; without: true neighbours count")
    parser.add_argument("--mode", choices=("semantic", "neighbors", "paper"), default="semantic")
    parser.add_argument("--out", default=OUT, metavar="FILE.png", help="the picture (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def info(argv):
    """Print what a file holds; exit with 1 when it is not whole."""
    parser = argparse.ArgumentParser(prog="python -m aphash info", description="What a file of aphash holds.")
    parser.add_argument("file", metavar="FILE")
    options = parser.parse_args(argv)
    try:
        found = container.describe(options.file)
    except (OSError, ValueError) as error:
        sys.exit(f"aphash: {error}")
    print(f"{options.file}: {found['kind']}, version {found['version']}, {found['nbytes']:,} bytes")
    for name, (dtype, shape) in found["arrays"].items():
        print(f"  {name:24} {dtype:8} {' x '.join(map(str, shape))}")
    for name, value in found["params"].items():
        print(f"  {name:24} {value}")
    if found["damage"]:
        sys.exit("\n".join(["aphash: not whole:", *found["damage"]]))
    print("whole: all checksums are right")
    return None


def load(options):
    """Return vectors (n, d), labels (n,) or None, and the shape of an image or None."""
    if options.data is None:
        if options.labels is not None:
            raise ValueError("--labels needs --data: the bundled digits have labels of their own")
        from sklearn.datasets import load_digits

        X, labels = load_digits(return_X_y=True)
        return X.astype(np.float32), labels, (8, 8)
    X = read(options.data)
    if X.ndim != 2 or len(X) < 20 or X.shape[1] < 2:
        raise ValueError(f"{options.data}: expected an array of shape (n, d), n >= 20 and d >= 2, got {X.shape}")
    as_floats(X[:1], options.data)  # for its dtype
    if X.dtype.kind == "f":
        check_finite(X)  # of the file: its rows are in another order later
    labels = None
    if options.labels is not None:
        labels = read(options.labels)
        if labels.shape != (len(X),) or labels.dtype.kind not in "biuUS":
            raise ValueError(
                f"{options.labels}: expected integers of shape ({len(X)},), got {labels.dtype} of shape {labels.shape}"
            )
    return X, labels, None


def read(path):
    """Return the array of a .npy file, mapped."""
    try:
        found = np.load(path, mmap_mode="r")
    except (EOFError, ValueError) as error:
        why = str(error)
        if "pickle" in why or "objects" in why:  # numpy's advice is to run what is in the file
            why = "numpy.loadtxt reads .csv, json.load .json; objects must become numbers first"
        raise ValueError(f"{path}: not a .npy file of numbers, which numpy.save writes: {why}") from None
    if not isinstance(found, np.ndarray):
        with found:
            names = ", ".join(found.files)
        raise ValueError(f"{path}: an .npz archive of {names}: numpy.save one of its arrays as a .npy file")
    return found


def check_picture(path):
    """Raise OSError or ValueError where a picture cannot be written there; nothing is left."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    kinds = Figure().canvas.get_supported_filetypes()
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    if suffix not in kinds and suffix:
        raise ValueError(f"--out {path}: expected a picture's name, one of .{', .'.join(sorted(kinds))}")
    new = not os.path.exists(path)
    with open(path, "ab"):
        pass
    if new:
        os.unlink(path)


def split(n, seed):
    """Return the rows of the database and of the held-out queries, both ascending."""
    order = np.random.default_rng(seed).permutation(n)
    count = min(QUERIES, n // 5)
    return np.sort(order[count:]), np.sort(order[:count])


def run(options, X, labels, shape, database, queries):
    train, query = np.ascontiguousarray(X[database]), np.ascontiguousarray(X[queries])
    print(f"{len(train):,} items and {len(query):,} queries of {X.shape[1]} numbers, {options.bits} bits\n")
    exact = squared_distances(query, train)
    nearest = np.argsort(exact, axis=1, kind="stable")[:, :NEIGHBORS]
    if labels is None:
        relevance = {"neighbors": nearest}
        relevant = np.zeros(exact.shape, bool)
        np.put_along_axis(relevant, nearest, True, axis=1)
    else:
        relevance = {"query_labels": labels[queries], "database_labels": labels[database]}
        relevant = labels[queries][:, None] == labels[database][None]

    hasher = APHash(options.bits, mode=options.mode, random_state=options.seed)
    encoders = {
        "APHash": lambda: (hasher.fit(train).transform(train), hasher.transform(query)),
        "ITQ": lambda: itq(train, query, options.bits, options.seed),
        "random projections": lambda: random_projections(train, query, options.bits, options.seed),
    }
    meaning = "same label" if labels is not None else f"the {NEIGHBORS} true nearest neighbours"
    print(f"{'':20}{'mAP':>8}{'P@10':>8}{'bits':>7}{'bytes/item':>12}{'learn+encode s':>16}")
    found = {}
    for name, encode in encoders.items():
        begun = time.perf_counter()
        codes, asked = encode()
        seconds = time.perf_counter() - begun
        counts = metrics.count_codes(asked, codes, **relevance)
        index = HammingIndex(options.bits)
        index.add(codes)
        found[name] = index.search(asked, NEIGHBORS)[1]
        row(name, counts, options.bits, codes.shape[1] * 8, seconds)
    counts = metrics.count_distances(exact, relevant)
    row("float brute force", counts, 32 * X.shape[1], 4 * X.shape[1], 0.0)
    found["float brute force"] = nearest
    print(f"\nRelevant: {meaning}. mAP over the whole ranking and P@10, ties at their expectation.")
    if shape is not None:
        picture(options.out, query, train, labels[queries], labels[database], found, shape)


def row(name, counts, bits, size, seconds):
    ap, p10 = metrics.average_precision(counts).mean(), metrics.precision_at_k(counts, 10).mean()
    print(f"{name:20}{ap:8.3f}{p10:8.3f}{bits:7}{size:12}{seconds:16.2f}")


def squared_distances(query, train):
    query, train = query.astype(np.float64), train.astype(np.float64)
    return (query**2).sum(axis=1)[:, None] - 2 * query @ train.T + (train**2).sum(axis=1)[None]


def itq(train, query, n_bits, seed):
    """Iterative quantisation (Gong et al. 2013): principal directions, turned towards signs."""
    rng = np.random.RandomState(seed)
    mean = train.mean(axis=0, dtype=np.float64)
    _, _, directions = np.linalg.svd(np.cov(train, rowvar=False), hermitian=True)
    directions = directions[:n_bits].T
    projected = ((train - mean) @ directions).astype(np.float32)
    frame = linear.random_orthonormal(directions.shape[1], n_bits, rng)
    frame = linear.itq_rotation(projected, frame, 50)
    return pack_codes(projected @ frame), pack_codes((query - mean) @ directions @ frame)


def random_projections(train, query, n_bits, seed):
    """Signs of Gaussian projections of the centred vectors (Charikar 2002)."""
    directions = np.random.RandomState(seed).standard_normal((train.shape[1], n_bits))
    mean = train.mean(axis=0, dtype=np.float64)
    return pack_codes((train - mean) @ directions), pack_codes((query - mean) @ directions)


def picture(path, query, train, query_labels, train_labels, found, shape):
    """Write queries with their nearest neighbours by each method; a wrong digit has a red frame."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("No picture: matplotlib is not installed (pip install 'aphash[plot]' or pip install matplotlib).")
        return
    shown = np.linspace(0, len(query) - 1, 4).astype(int)
    methods = list(found)
    figure = Figure(figsize=(11, 1.15 * len(shown) * len(methods) + 0.6), layout="constrained")
    grid = figure.subplots(len(shown) * len(methods), NEIGHBORS + 1)
    for i, q in enumerate(shown):
        for j, name in enumerate(methods):
            axes = grid[i * len(methods) + j]
            images = [query[q], *train[found[name][q]]]
            labels = [query_labels[q], *train_labels[found[name][q]]]
            for axis, image, label in zip(axes, images, labels, strict=True):
                axis.imshow(image.reshape(shape), cmap="gray_r", interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                wrong = label != query_labels[q]
                for spine in axis.spines.values():
                    spine.set(color="crimson" if wrong else "0.85", linewidth=2.5 if wrong else 0.8)
            for spine in axes[0].spines.values():
                spine.set(color="royalblue", linewidth=2.5)
            axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    figure.suptitle("Query (blue) and its 10 nearest by each method; red: another digit", fontsize=12)
    figure.savefig(path, dpi=90)
    print(f"Picture: {path}")


if __name__ == "__main__":
    main()
