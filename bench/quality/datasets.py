"""The data sets: each is read from files in its authors' layout, checked, and split into database and queries.

``load(name, data_dir, cache_dir)`` gives a :class:`Dataset`; ``split(dataset, protocol, seed)`` gives the rows. Nothing
is downloaded: where a file is missing, the message says what belongs where.
"""

import gzip
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import features
import numpy as np


class MissingData(Exception):
    """A data set's files are not there, or are not the files that belong there; the message says what to do."""


@dataclass
class Dataset:
    """Vectors with labels, and which of them are the training part.

    Attributes
    ----------
    X : ndarray of float32, shape (n, d)
    y : ndarray of int, shape (n,), or None
    n_train : int
        The first so many rows are the training part, the others the test part.
    protocol : str
        "train" or "rest": what ``split`` does unless told otherwise.
    n_queries : int
    images : ndarray of uint8 or None
        Shape (n, h, w) or (n, h, w, 3), for pictures.
    checksum : str
        SHA-256 of X and y, 16 digits.
    """

    name: str
    X: np.ndarray
    y: np.ndarray | None
    n_train: int
    protocol: str = "train"
    n_queries: int = 1000
    images: np.ndarray | None = None
    class_names: list = field(default_factory=list)
    checksum: str = ""

    def __post_init__(self):
        digest = hashlib.sha256(np.ascontiguousarray(self.X).tobytes())
        if self.y is not None:
            digest.update(np.asarray(self.y, np.int64).tobytes())
        self.checksum = digest.hexdigest()[:16]


PROTOCOLS = {
    "train": "queries from the test part; the training part is database and training set",
    "rest": "queries from the test part; all other rows are database and training set",
    "validation": "queries from the training part; the rest of the training part is database and training set",
}


def split(dataset, protocol="auto", seed=0):
    """Return (database rows, query rows), ascending, disjoint.

    Queries are drawn by the seed, the same number from each class where classes allow it (CIFAR-10: 100 a class).
    """
    if protocol == "auto":
        protocol = dataset.protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    n, n_train = len(dataset.X), dataset.n_train
    pool = np.arange(n_train) if protocol == "validation" else np.arange(n_train, n)
    rng = np.random.default_rng([seed, protocol == "validation"])
    count = min(dataset.n_queries, len(pool))
    labels = None if dataset.y is None else dataset.y[pool]
    classes, sizes = np.unique(labels, return_counts=True) if labels is not None else ([], np.zeros(1))
    if len(classes) and count % len(classes) == 0 and sizes.min() >= count // len(classes):
        drawn = [rng.choice(pool[labels == c], count // len(classes), replace=False) for c in classes]
        queries = np.sort(np.concatenate(drawn))
    else:
        queries = np.sort(rng.choice(pool, count, replace=False))
    everything = np.arange(n if protocol == "rest" else n_train)
    return np.setdiff1d(everything, queries), queries


def l2_normalised(X):
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)


# -- files ------------------------------------------------------------------------------------------------------------


def _need(path, what):
    if not path.exists():
        raise MissingData(f"{path} is missing: {what}")
    return path


def _check(path, sha256):
    """Raise MissingData unless the file's SHA-256 begins with the digits."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(sha256):
        raise MissingData(f"{path} is not the file that the figures are of: SHA-256 {found}, expected {sha256}...")


def _cached(cache_dir, name, sources, make):
    """Return ``make()``, an array, through cache_dir/name-DIGEST.npy where a cache folder is given.

    The digest is of the sources' names, sizes and times and of the extractor's text: another input is another file.
    """
    if cache_dir is None:
        return make()
    digest = hashlib.sha256(Path(features.__file__).read_bytes())
    for source in sources:
        stat = source.stat()
        digest.update(f"{source.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    path = Path(cache_dir) / f"{name}-{digest.hexdigest()[:12]}.npy"
    if path.exists():
        return np.load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    array = make()
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.save(file, array)
    partial.replace(path)
    return array


def cifar10_images(data_dir):
    """CIFAR-10, the authors' binary version: images (60000, 32, 32, 3), training part first; labels; names; files."""
    folder = _need(
        Path(data_dir) / "cifar-10-batches-bin",
        "the folder of CIFAR-10's binary version (data_batch_1.bin .. data_batch_5.bin, test_batch.bin)",
    )
    images, labels, files = [], [], []
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        path = _need(folder / name, "a batch of CIFAR-10's binary version")
        raw = np.fromfile(path, np.uint8)
        if raw.size != 10_000 * 3073:
            raise MissingData(f"{path} must have 10,000 records of 3,073 bytes, has {raw.size} bytes")
        records = raw.reshape(-1, 3073)
        labels.append(records[:, 0])
        images.append(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        files.append(path)
    labels = np.concatenate(labels)
    if labels.max() > 9:
        raise MissingData(f"{folder} holds labels above 9: not CIFAR-10")
    names = folder / "batches.meta.txt"
    names = names.read_text().split() if names.exists() else [str(i) for i in range(10)]
    return np.concatenate(images), labels, names, files


# -- the sets ---------------------------------------------------------------------------------------------------------


def digits(data_dir, cache_dir):
    """scikit-learn's 1,797 scans of digits, 64 pixels; 300 queries; training part: all but 300 rows drawn once."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order].astype(np.float32), y[order]
    return Dataset("digits", X, y, len(X) - 300, "train", 300, (255 - X * 15.9).astype(np.uint8).reshape(-1, 8, 8))


def cnn(data_dir, cache_dir):
    """CIFAR-10 in 512 features of a convolutional network, L2-normalised; database: the 50,000 of the training part."""
    path = _need(
        Path(data_dir) / "cifar10_cnn512.npz",
        "an archive of x_train (50000, 512), y_train, x_test (10000, 512), y_test",
    )
    _check(path, "7a515eaa7a0219f7")
    with np.load(path) as file:
        X = np.concatenate([file["x_train"], file["x_test"]]).astype(np.float32)
        y = np.concatenate([file["y_train"], file["y_test"]])
        n_train = len(file["x_train"])
    return Dataset("cnn", l2_normalised(X), y, n_train)


def gist(data_dir, cache_dir):
    """CIFAR-10 in GIST-512; the paper's protocol: 1,000 test images are queries, the other 59,000 the database."""
    images, labels, names, files = cifar10_images(data_dir)
    X = _cached(cache_dir, "cifar10-gist512", files, lambda: features.gist(images, os.cpu_count()))
    return Dataset("gist", X, labels, 50_000, "rest", images=images, class_names=names)


def descriptors(data_dir, cache_dir, n_images=40_000, step=4):
    """SIFT of 16 x 16 patches of CIFAR-10's images, 128 numbers in 0 .. 255 as the sets of the TEXMEX corpus have them.

    The database is 25 patches, 4 pixels apart, of each of the first 40,000 training images: 1,000,000. The test part is
    one patch, drawn once, of each of the 10,000 test images. There are no labels. The cache holds uint8; X is 4 times
    as large.
    """
    images, _, _, files = cifar10_images(data_dir)

    def extract():
        found = features.dense_sift(images[:n_images], step, os.cpu_count())
        of_tests = features.dense_sift(images[50_000:], step, os.cpu_count())
        drawn = np.random.default_rng(0).integers(of_tests.shape[1], size=len(of_tests))
        return np.concatenate([found.reshape(-1, found.shape[2]), of_tests[np.arange(len(of_tests)), drawn]])

    X = _cached(cache_dir, f"cifar10-sift-{n_images}-{step}", files, extract)
    return Dataset("descriptors", X.astype(np.float32), None, len(X) - 10_000)


def fashion(data_dir, cache_dir):
    """Fashion-MNIST's pixels in 0 .. 1; database: the 60,000 of the training part."""
    folder = Path(data_dir) / "fashion-mnist"
    if not folder.is_dir():
        folder = Path("/usr/share/datasets/fashion-mnist")
    _need(folder, "install Debian's package dataset-fashion-mnist, or put the four idx files into fashion-mnist/")
    images, labels = [], []
    for part in ("train", "t10k"):
        images.append(_read_idx(_need(folder / f"{part}-images-idx3-ubyte.gz", "a file of Fashion-MNIST"), 3))
        labels.append(_read_idx(_need(folder / f"{part}-labels-idx1-ubyte.gz", "a file of Fashion-MNIST"), 1))
    images, labels = np.concatenate(images), np.concatenate(labels)
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    if not digest.startswith(FASHION_SHA256):
        raise MissingData(f"{folder} does not hold Fashion-MNIST: SHA-256 of its arrays {digest}")
    names = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"]
    X = images.reshape(len(images), -1).astype(np.float32) / 255
    return Dataset("fashion", X, labels, 60_000, images=255 - images, class_names=names)


FASHION_SHA256 = "2cbc59191665e1ba"


def _read_idx(path, ndim):
    """An idx file (LeCun): magic 0, 0, type, number of dimensions; sizes as big-endian int32; bytes."""
    data = gzip.decompress(path.read_bytes())
    if data[:4] != bytes([0, 0, 8, ndim]):
        raise MissingData(f"{path} is not an idx file of unsigned bytes with {ndim} dimensions")
    shape = np.frombuffer(data, ">i4", ndim, 4)
    if len(data) != 4 + 4 * ndim + shape.prod():
        raise MissingData(f"{path} is cut short: {len(data)} bytes for shape {tuple(shape)}")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def wordnet(data_dir, cache_dir, n=40_000, n_features=256):
    """A text set: glosses of WordNet 3.0's nouns, TF-IDF and its 256 leading singular directions, L2-normalised.

    Labels are the 26 lexicographer files (noun.animal, noun.act, ...). 40,000 of the 82,115 glosses, drawn once; the
    last 5,000 of them are the test part.
    """
    path = Path(data_dir) / "wordnet" / "data.noun"
    if not path.exists():
        path = _need(Path("/usr/share/wordnet/data.noun"), "install Debian's package wordnet-base")
    lines = [line for line in path.read_text().splitlines() if not line.startswith("  ")]
    order = np.random.default_rng(0).permutation(len(lines))[:n]
    glosses = [lines[i].split(" | ", 1)[1] for i in order]
    y = np.array([int(lines[i].split(" ", 2)[1]) for i in order])
    X = _cached(cache_dir, f"wordnet-{n}-{n_features}", [path], lambda: features.latent_semantics(glosses, n_features))
    return Dataset("wordnet", l2_normalised(X), y, n - 5000)


def sentences(data_dir, cache_dir):
    """The 40,000 glosses in 384 features of a sentence encoder, L2-normalised; the last 5,000 are the test part."""
    path = _need(Path(data_dir) / "wordnet_minilm.npz", "an archive of x (40000, 384) and y")
    with np.load(path) as file:
        X, y = file["x"].astype(np.float32), file["y"]
    return Dataset("sentences", l2_normalised(X), y, len(X) - 5000)


def youtube_faces(data_dir, cache_dir, min_frames=500):
    """YouTube Faces (Wolf, Hassner & Maoz 2011): aligned_images_DB/PERSON/VIDEO/*.jpg, LBP-1770, people as classes.

    The middle third to two thirds in each direction of an aligned frame is the face (centre crop by one half), in grey;
    people with at least ``min_frames`` frames are classes; one frame in ten, drawn once, is the test part.
    """
    from PIL import Image

    root = _need(Path(data_dir) / "aligned_images_DB", "the folder of YouTube Faces' aligned images")
    people = {}
    for person in sorted(p for p in root.iterdir() if p.is_dir()):
        frames = sorted(person.glob("*/*.jpg"))
        if len(frames) >= min_frames:
            people[person.name] = frames
    if not people:
        raise MissingData(f"{root} has nobody with at least {min_frames} frames (PERSON/VIDEO/*.jpg)")
    files = [frame for frames in people.values() for frame in frames]

    def extract():
        out = []
        for file in files:
            grey = np.asarray(Image.open(file).convert("L"))
            h, w = grey.shape
            out.append(features.uniform_lbp(grey[h // 4 : h - h // 4, w // 4 : w - w // 4]))
        return np.array(out)

    X = _cached(cache_dir, f"youtube-faces-lbp-{min_frames}", files, extract)
    y = np.repeat(np.arange(len(people)), [len(frames) for frames in people.values()])
    order = np.random.default_rng(0).permutation(len(X))
    n_test = max(1, len(X) // 10)
    return Dataset("youtube-faces", X[order], y[order], len(X) - n_test, "rest", class_names=list(people))


def array_file(path):
    """A .npy file of vectors; labels, where they are, in NAME.labels.npy beside it. The last tenth is the test part."""
    path = Path(path)
    X = np.load(_need(path, "a .npy file of shape (n, d)"))
    if X.ndim != 2 or len(X) < 20:
        raise MissingData(f"{path} must have shape (n, d) with n >= 20, has {X.shape}")
    beside = path.with_name(path.stem + ".labels.npy")
    y = np.load(beside) if beside.exists() else None
    if y is not None and y.shape != (len(X),):
        raise MissingData(f"{beside} must have shape ({len(X)},), has {y.shape}")
    n_test = max(1, len(X) // 10)
    return Dataset(path.stem, X.astype(np.float32), y, len(X) - n_test, n_queries=min(1000, n_test))


def ann_benchmarks(path):
    """An HDF5 file of ann-benchmarks: "train" is the database, "test" the queries; angular sets are L2-normalised."""
    import h5py

    path = _need(Path(path), "an HDF5 file of ann-benchmarks")
    with h5py.File(path) as file:
        if "train" not in file or "test" not in file:
            raise MissingData(f"{path} has no 'train' and 'test': not a file of ann-benchmarks")
        X = np.concatenate([file["train"][:], file["test"][:]]).astype(np.float32)
        n_train, distance = len(file["train"]), file.attrs.get("distance", "euclidean")
    if distance not in ("euclidean", "angular"):
        raise MissingData(f"{path} has distance {distance!r}: euclidean and angular are read")
    return Dataset(path.stem, l2_normalised(X) if distance == "angular" else X, None, n_train)


@dataclass(frozen=True)
class Entry:
    """What the other scripts know of a set.

    Attributes
    ----------
    read : callable
        ``read(data_dir, cache_dir)`` gives the :class:`Dataset`.
    title : str
        Its name in the report.
    lengths : tuple of int
        Lengths of codes that ``run.py --all`` measures; the set is left out where there are none.
    sweep : bool
        Whether ``--all`` tries several n_neighbors.
    n_directions : int or None
        Principal directions, where there are fewer than features.
    methods : tuple of str or None
        The only methods that ``--all`` runs, with the first seed, where the set is too large for all of them.
    """

    read: Callable
    title: str
    lengths: tuple = ()
    sweep: bool = False
    n_directions: int | None = None
    methods: tuple | None = None


REGISTRY = {  # in the report's order
    "digits": Entry(digits, "Digits", (64, 16, 32), n_directions=61),
    "cnn": Entry(cnn, "CIFAR-10, CNN features", (64, 128, 16, 32, 256), sweep=True),
    "gist": Entry(gist, "CIFAR-10, GIST-512", (64, 128, 16, 32)),
    "fashion": Entry(fashion, "Fashion-MNIST", (64, 128, 16, 32), sweep=True),
    "wordnet": Entry(wordnet, "WordNet glosses (text)", (64,)),
    "sentences": Entry(sentences, "WordNet glosses, sentence embeddings", (64, 128, 256)),
    "descriptors": Entry(
        descriptors,
        "SIFT of CIFAR-10's patches",
        (64, 128, 256),
        methods=("aphash-neighbors", "aphash-scores", "random", "itq", "pq", "pq:rotated=True"),
    ),
    "youtube-faces": Entry(youtube_faces, "YouTube Faces"),
}


def title_of(name):
    """Return a set's name in the report; of one that is not in the registry, its own."""
    return REGISTRY[name].title if name in REGISTRY else name


def load(name, data_dir=None, cache_dir=None):
    """Return the data set of that name, or of that .npy or .hdf5 file.

    Raises
    ------
    MissingData
        When its files are not there or not what they should be.
    """
    data_dir = data_dir or os.environ.get("APHASH_DATA") or "data"
    if name in REGISTRY:
        return REGISTRY[name].read(data_dir, cache_dir)
    if str(name).endswith(".npy"):
        return array_file(name)
    if str(name).endswith((".hdf5", ".h5")):
        return ann_benchmarks(name)
    raise MissingData(f"unknown data set {name!r}: one of {', '.join(REGISTRY)}, or a .npy or .hdf5 file")
