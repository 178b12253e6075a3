"""The benchmark's own parts: features against their definitions, data sets, baselines, measures, the runner."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

faiss = pytest.importorskip("faiss")

BENCH = Path(__file__).resolve().parents[1] / "bench"
if not BENCH.is_dir():  # the tests of an installed wheel, away from a checkout
    pytest.skip("the benchmark scripts are not beside the tests", allow_module_level=True)
sys.path[:0] = [str(BENCH / "quality"), str(BENCH / "speed")]
import baselines  # noqa: E402
import curve  # noqa: E402
import datasets  # noqa: E402
import evaluation  # noqa: E402
import features  # noqa: E402
import fronts  # noqa: E402
import methods  # noqa: E402
import proof  # noqa: E402
import report  # noqa: E402
import results  # noqa: E402
import run as runner  # noqa: E402

from aphash import HammingIndex, metrics, unpack_codes  # noqa: E402


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((8, 24)) * 2
    y = rng.integers(8, size=900)
    return (centres[y] + rng.standard_normal((900, 24))).astype(np.float32), y


# -- features ---------------------------------------------------------------------------------------------------------


def lmgist(image):
    """GIST of one image in float64 as the authors' Matlab text has it, statement by statement (LMgist.m)."""

    def padarray(a, p):
        return np.pad(a, p, mode="symmetric")

    def meshgrid(n):
        return np.meshgrid(np.arange(-(n // 2), n - n // 2), np.arange(-(n // 2), n - n // 2))

    img = image.mean(axis=2) if image.ndim == 3 else image.astype(float)
    img = img - img.min()
    img = 255 * img / img.max()
    # prefilt
    w, s1 = 5, 4 / np.sqrt(np.log(2))
    img = padarray(np.log(img + 1), w)
    sn = img.shape[0]
    n = sn + sn % 2
    img = np.pad(img, ((0, n - sn), (0, n - sn)), mode="symmetric")
    fx, fy = meshgrid(n)
    gf = np.fft.fftshift(np.exp(-(fx**2 + fy**2) / s1**2))
    output = img - np.real(np.fft.ifft2(np.fft.fft2(img) * gf))
    localstd = np.sqrt(np.abs(np.fft.ifft2(np.fft.fft2(output**2) * gf)))
    output = (output / (0.2 + localstd))[w : sn - w, w : sn - w]
    # createGabor
    be = 32
    size = output.shape[0] + 2 * be
    fx, fy = meshgrid(size)
    fr, t = np.fft.fftshift(np.hypot(fx, fy)), np.fft.fftshift(np.angle(fx + 1j * fy))
    padded, out = np.fft.fft2(padarray(output, be)), []
    for i in range(4):
        for j in range(8):
            param = [0.35, 0.3 / 1.85**i, 16 * 8**2 / 32**2, np.pi / 8 * j]
            tr = t + param[3]
            tr = tr + 2 * np.pi * (tr < -np.pi) - 2 * np.pi * (tr > np.pi)
            G = np.exp(-10 * param[0] * (fr / size / param[1] - 1) ** 2 - 2 * param[2] * np.pi * tr**2)
            ig = np.abs(np.fft.ifft2(padded * G))[be : size - be, be : size - be]
            nx = np.fix(np.linspace(0, ig.shape[0], 5)).astype(int)
            v = np.array([[ig[nx[a] : nx[a + 1], nx[b] : nx[b + 1]].mean() for b in range(4)] for a in range(4)])
            out.append(v.ravel(order="F"))
    return np.concatenate(out)


@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 32), (34, 34)])
def test_gist_is_the_published_one(shape):
    images = np.random.default_rng(1).integers(0, 256, (67, *shape), np.uint8)  # more than a batch
    images[1] = images[1] // 8 + 100
    got = features.gist(images)
    assert got.shape == (67, 512) and got.dtype == np.float32
    for i in (0, 1, 66):
        np.testing.assert_allclose(got[i], lmgist(images[i]), rtol=2e-4, atol=2e-5)


def test_gist_sees_orientation_and_ignores_contrast():
    x = np.arange(32)
    stripes = np.broadcast_to(128 + 100 * np.sin(x), (32, 32)).astype(np.uint8)
    upright, lying, faint = features.gist(np.stack([stripes, stripes.T, stripes // 2 + 60])).reshape(3, 32, 16)
    strongest = upright.mean(axis=1).argmax() % 8
    assert abs(int(lying.mean(axis=1).argmax()) % 8 - int(strongest)) == 4  # turned by 90 degrees
    np.testing.assert_allclose(upright, faint, rtol=0.2, atol=0.02)


def test_gist_needs_even_squares():
    for shape in ((33, 33), (16, 16), (32, 40)):
        with pytest.raises(ValueError, match="square with an even size"):
            features.gist(np.zeros((1, *shape), np.uint8))


def test_gist_of_a_blank_image_is_finite():
    assert np.isfinite(features.gist(np.full((1, 32, 32), 7, np.uint8))).all()


def sift(patch_dy, patch_dx):
    """SIFT of one 16 x 16 patch, pixel by pixel and vote by vote (Lowe 2004, section 6.1), in 0 .. 1."""
    sums = np.zeros((4, 4, 8))
    for y in range(16):
        for x in range(16):
            dy, dx = patch_dy[y, x], patch_dx[y, x]
            vote = np.hypot(dx, dy) * np.exp(-((y - 7.5) ** 2 + (x - 7.5) ** 2) / (2 * 8**2))
            row, column, turn = (y - 1.5) / 4, (x - 1.5) / 4, np.arctan2(dy, dx) / (2 * np.pi) * 8
            for i in (0, 1):
                for j in (0, 1):
                    for o in (0, 1):
                        r, c, t = int(np.floor(row)) + i, int(np.floor(column)) + j, int(np.floor(turn)) + o
                        if 0 <= r < 4 and 0 <= c < 4:
                            sums[r, c, t % 8] += vote * (1 - abs(row - r)) * (1 - abs(column - c)) * (1 - abs(turn - t))
    found = sums.ravel() / max(np.linalg.norm(sums), 1e-12)
    found = np.minimum(found, 0.2)
    return found / max(np.linalg.norm(found), 1e-12)


@pytest.mark.parametrize("shape", [(32, 32, 3), (27, 27)])
def test_sift_is_lowes(shape):
    images = np.random.default_rng(2).integers(0, 256, (67, *shape), np.uint8)  # more than a batch
    images[1] = np.arange(shape[0], dtype=np.uint8)[:, None].reshape(-1, *[1] * (len(shape) - 1))  # a slope
    images[2] = 9
    got = features.dense_sift(images, 5, 2)
    starts = range(0, shape[0] - 15, 5)
    assert got.shape == (67, len(starts) ** 2, 128) and got.dtype == np.uint8
    for i in (0, 1, 2, 66):
        grey = images[i].astype(float)
        dy, dx = np.gradient(grey.mean(axis=2) if grey.ndim == 3 else grey)
        wanted = [sift(dy[y : y + 16, x : x + 16], dx[y : y + 16, x : x + 16]) for y in starts for x in starts]
        assert np.abs(got[i] - np.minimum(512 * np.array(wanted), 255)).max() < 1.01  # the fraction is cut off
    assert got[0].max() > 100 and not got[2].any()
    slope = got[1, 0].reshape(16, 8)  # brighter downwards: all in one orientation
    assert slope[:, 2].all() and not np.delete(slope, 2, axis=1).any()


def test_sift_needs_squares():
    for shape in ((15, 15), (32, 40)):
        with pytest.raises(ValueError, match="must be square, with a size of at least 16"):
            features.dense_sift(np.zeros((1, *shape), np.uint8))


def test_lbp_is_histograms_of_59_patterns():
    pytest.importorskip("skimage")
    image = np.random.default_rng(0).integers(0, 256, (41, 50), np.uint8)
    got = features.uniform_lbp(image)
    assert got.shape == (1770,) and got.dtype == np.float32
    np.testing.assert_allclose(got.reshape(30, 59).sum(axis=1), 1, rtol=1e-5)
    flat = features.uniform_lbp(np.full((40, 60), 9, np.uint8)).reshape(30, 59)
    assert (flat.max(axis=1) == 1).all() and len(set(flat.argmax(axis=1))) == 1


# -- data sets --------------------------------------------------------------------------------------------------------


def test_digits_and_splits():
    data = datasets.load("digits")
    database, queries = datasets.split(data, "train", 3)
    assert len(data.X) == 1797 and len(queries) == 300 and (queries >= data.n_train).all()
    assert len(database) == data.n_train and not np.intersect1d(database, queries).size
    database, queries = datasets.split(data, "validation", 3)
    assert (queries < data.n_train).all() and (database < data.n_train).all()
    assert len(database) + len(queries) == data.n_train and not np.intersect1d(database, queries).size
    other = datasets.split(data, "validation", 4)[1]
    assert (queries != other).any()
    with pytest.raises(ValueError, match="protocol"):
        datasets.split(data, "all")


def test_queries_are_the_same_number_of_each_class_and_rest_takes_the_other_rows():
    y = np.arange(600) % 3
    data = datasets.Dataset("x", np.zeros((600, 2), np.float32), y, 300, "rest", n_queries=30)
    database, queries = datasets.split(data, "auto", 0)
    assert np.bincount(y[queries]).tolist() == [10, 10, 10] and queries.min() >= 300
    assert len(database) == 570


def write_cifar(folder, n=10_000):
    folder = folder / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        records = np.zeros((n, 3073), np.uint8)
        records[:, 0] = rng.integers(10, size=n)
        records[:, 1] = 50  # the first pixel's red
        records[:, 1024 + 33] = 70  # green of row 1, column 0
        records.tofile(folder / f"{name}.bin")
    (folder / "batches.meta.txt").write_text("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n")


def test_cifar10_binary_layout(tmp_path):
    write_cifar(tmp_path)
    images, labels, names, files = datasets.cifar10_images(tmp_path)
    assert images.shape == (60_000, 32, 32, 3) and labels.shape == (60_000,) and len(names) == 10 and len(files) == 6
    assert images[5, 0, 0].tolist() == [50, 0, 0] and images[5, 1, 0].tolist() == [0, 70, 0]
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").write_bytes(b"\0" * 3073)
    with pytest.raises(datasets.MissingData, match=r"data_batch_3.bin must have 10,000 records"):
        datasets.cifar10_images(tmp_path)


def test_descriptors_are_patches_of_training_images_and_one_of_each_test_image(tmp_path):
    write_cifar(tmp_path)
    data = datasets.descriptors(tmp_path, tmp_path / "cache", n_images=130, step=16)
    assert data.X.shape == (130 * 4 + 10_000, 128) and data.n_train == 520 and data.y is None
    images = datasets.cifar10_images(tmp_path)[0]
    assert np.array_equal(data.X[:520], features.dense_sift(images[:130], 16).reshape(520, 128))
    (file,) = (tmp_path / "cache").glob("*.npy")
    assert np.load(file).dtype == np.uint8
    assert datasets.descriptors(tmp_path, tmp_path / "cache", n_images=130, step=16).checksum == data.checksum


@pytest.mark.parametrize(
    "name", ["cnn", "gist", "descriptors", "youtube-faces", "nothing", "missing.npy", "missing.hdf5"]
)
def test_missing_data_says_what_belongs_where(name, tmp_path):
    name = str(tmp_path / name) if "." in name else name
    with pytest.raises(datasets.MissingData, match=r"missing|unknown"):
        datasets.load(name, tmp_path)


def test_another_file_is_refused(tmp_path):
    np.savez(tmp_path / "cifar10_cnn512.npz", x_train=np.zeros((3, 2)))
    with pytest.raises(datasets.MissingData, match="SHA-256"):
        datasets.load("cnn", tmp_path)


def test_idx_files(tmp_path):
    import gzip

    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))))
    assert datasets._read_idx(path, 2).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(datasets.MissingData, match="dimensions"):
        datasets._read_idx(path, 3)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(5))))
    with pytest.raises(datasets.MissingData, match="cut short"):
        datasets._read_idx(path, 2)


def test_youtube_faces_layout(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("skimage")
    rng = np.random.default_rng(0)
    for person, frames in (("Ann_A", 12), ("Bob_B", 11), ("Few_F", 3)):
        for i in range(frames):
            folder = tmp_path / "aligned_images_DB" / person / str(i % 2)
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(rng.integers(0, 256, (64, 72, 3), np.uint8)).save(folder / f"{i}.jpg")
    data = datasets.youtube_faces(tmp_path, tmp_path / "cache", min_frames=10)
    assert data.X.shape == (23, 1770) and data.class_names == ["Ann_A", "Bob_B"]
    assert sorted(np.bincount(data.y)) == [11, 12] and data.n_train == 21
    assert datasets.youtube_faces(tmp_path, tmp_path / "cache", min_frames=10).checksum == data.checksum
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    with pytest.raises(datasets.MissingData, match="at least 500"):
        datasets.load("youtube-faces", tmp_path)


def test_npy_and_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    X = np.random.default_rng(0).standard_normal((50, 3))
    np.save(tmp_path / "a.npy", X)
    assert datasets.load(str(tmp_path / "a.npy")).y is None
    np.save(tmp_path / "a.labels.npy", np.arange(50))
    data = datasets.load(str(tmp_path / "a.npy"))
    assert data.n_train == 45 and data.y[7] == 7 and data.X.dtype == np.float32
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["train"], file["test"] = X[:40], X[40:]
        file.attrs["distance"] = "angular"
    data = datasets.load(str(tmp_path / "b.hdf5"))
    assert data.n_train == 40
    np.testing.assert_allclose(np.linalg.norm(data.X, axis=1), 1, rtol=1e-5)


# -- baselines --------------------------------------------------------------------------------------------------------

BINARY = ["random", "pca", "itq", "itq:n_components=6", "sh", "agh", "control:n_rounds=3,rotation=random",
          "control:n_rounds=3,rotation=identity", "full", "means:k=20", "mean-bits:k=20"]  # fmt: skip


@pytest.mark.parametrize("spec", BINARY)
def test_binary_baselines(spec, vectors):
    X, y = vectors
    first = methods.make(spec, 16, 0, 1).fit(X[:800])
    codes = first.transform(X)
    assert codes.shape == (900, 1) and codes.dtype == np.uint64
    assert np.array_equal(codes, methods.make(spec, 16, 0, 1).fit(X[:800]).transform(X))  # repeatable
    balance = unpack_codes(codes, 16).mean(axis=0)
    assert (balance > 0.02).all() and (balance < 0.98).all()
    score = metrics.mean_average_precision(codes[800:], codes[:800], y[800:], y[:800])
    assert score > (0.4 if spec == "random" else 0.5)  # chance is .125


def test_itq_turns_towards_signs_and_keeps_a_frame(vectors):
    X, _ = vectors
    Xc = X - X.mean(axis=0)
    for p in (6, 16):
        V = Xc @ baselines.principal_directions(Xc, p)
        R0 = baselines.random_orthonormal(p, 16, np.random.default_rng(0))
        R = baselines.itq_rotation(V, R0, 20)
        np.testing.assert_allclose(R @ R.T, np.eye(p), atol=1e-5)

        def loss(R, V=V):
            return np.linalg.norm(baselines.signs(V @ R) - V @ R)

        # each step is the best rotation for its signs
        falling = [loss(baselines.itq_rotation(V, R0, n)) for n in range(8)]
        assert (np.diff(falling) <= 1e-3).all() and loss(R) < falling[0]


def test_controls_are_the_rounds_without_descent(vectors):
    """Against the loop written out with explicit inverse and all rows, in float64."""
    X = np.exp(vectors[0].astype(np.float64) / 3)  # skewed, so that centring matters
    rounds, r = 3, 8
    got = baselines.Control(r, 0, rounds, "identity").fit(X.astype(np.float32))
    rng = np.random.default_rng(0)
    Z = X - X.mean(axis=0)
    Z /= np.sqrt((Z**2).sum(axis=1).mean())
    V = Z @ baselines.principal_directions(Z.astype(np.float32), r)
    B = V @ baselines.itq_rotation(V, baselines.random_orthonormal(r, r, rng), 50)
    X1 = np.hstack([Z, np.ones((len(Z), 1))])
    G = X1.T @ X1
    for _ in range(rounds):
        B = B / np.abs(B).mean()
        B = B - B.mean(axis=0)
        B = B @ baselines.itq_rotation(B, np.eye(r), 30)
        B = X1 @ np.linalg.inv(G + 1e-2 * np.trace(G) / len(G) * np.eye(len(G))) @ X1.T @ np.where(B >= 0, 1.0, -1.0)
    difference = np.abs(got.project(X.astype(np.float32)) - B).mean()
    assert difference < 2e-3  # a sign near zero may fall otherwise in float32


def test_means_of_neighbours(vectors):
    X = vectors[0][:300]
    lists = baselines.nearest_of_rows(X, 7)
    D = baselines.squared_distances(X.astype(np.float64), X.astype(np.float64))
    assert np.array_equal(np.sort(lists), np.sort(np.argsort(D, axis=1)[:, :7]))
    np.testing.assert_allclose(baselines.means_of(X, lists)[5], X[lists[5]].mean(axis=0), rtol=1e-5, atol=1e-6)
    assert baselines.nearest_of_rows(X, 3).shape == (300, 3) and baselines.nearest_of_rows(X[:50], 3).max() < 50


def test_bits_of_means_lower_their_loss_by_every_flip(vectors):
    X = vectors[0][:400]
    method = baselines.MeanBits(12, k=10, eta=4.0).fit(X)
    V = baselines.means_of(X, baselines.nearest_of_rows(X, 10)) - method.mean_
    D, size = method.W_.T.astype(np.float64), (V**2).sum(axis=1)

    def loss(B):
        E = V - B @ D
        return (E**2).sum(axis=1) + 3 * (E * V).sum(axis=1) ** 2 / size

    B = baselines.signs(V @ method.start_)
    before = loss(B)
    method._sweep(B, V, 30)  # until nothing changes
    assert (loss(B) <= before + 1e-5).all()
    for j in range(12):
        other = B.copy()
        other[:, j] *= -1
        assert (loss(other) >= loss(B) - 1e-4).all()
    plain = np.linalg.lstsq(B, V, rcond=None)[0]
    learned = method._decoder(B, V, 200)
    assert ((V - B @ learned) ** 2).sum() >= ((V - B @ plain) ** 2).sum()
    D = plain
    of_plain = loss(B).sum()
    D = learned
    assert loss(B).sum() < of_plain  # what is lost along v is less


def test_raw_signs_and_its_width(vectors):
    X, _ = vectors
    codes = baselines.RawSigns(24).fit(X).transform(X)
    assert np.array_equal(unpack_codes(codes, 24), X - X.mean(axis=0) >= 0)
    with pytest.raises(ValueError, match="must be 24"):
        baselines.RawSigns(16).fit(X)


@pytest.mark.parametrize("spec", ["floats", "pq", "opq", "rabitq:inside=False"])
def test_quantisers_rank_all_items_and_are_restored(spec, vectors):
    X, _ = vectors
    method = methods.make(spec, 16 if "pq" in spec else 24, 0, 1).fit(X[:800])
    d = method.distances(X[800:820])
    exact = baselines.squared_distances(X[800:820], X[:800])
    assert d.shape == (20, 800)
    assert np.corrcoef(d.ravel(), exact.ravel())[0, 1] > 0.8
    again = baselines.restore(method.state(), X[:800])(X[800:820])
    assert np.array_equal(again, d)


def test_rabitq_counts_its_factors():
    assert baselines.RaBitQ(128).bytes_per_item == 16 and baselines.RaBitQ(128, inside=False).bytes_per_item == 24
    with pytest.raises(ValueError, match="above 64"):
        baselines.RaBitQ(64)


# -- measures and the runner ------------------------------------------------------------------------------------------


def test_codes_and_distances_give_the_same_measures(vectors):
    X, y = vectors
    truth = evaluation.Truth(X[:800], X[800:], y[:800], y[800:])
    exact = ((X[800:, None].astype(np.float64) - X[None, :800]) ** 2).sum(axis=2)
    assert np.array_equal(truth.neighbors, np.argsort(exact, axis=1)[:, :10])
    method = baselines.ITQ(16).fit(X[:800])
    database, queries = method.transform(X[:800]), method.transform(X[800:])
    by_codes = truth.of_codes(database, queries)

    def hamming(Q):
        return np.bitwise_count(method.transform(Q)[:, None, 0] ^ database[None, :, 0]).astype(float)

    by_distances = truth.of_distances(hamming)
    for name in ("mAP", "P@10", "P@100", "recall10@10", "recall10@100"):
        assert by_codes[name] == pytest.approx(by_distances[name], abs=2e-5), name
    exact_figures = truth.of_distances(baselines.Floats().fit(X[:800]).distances)
    assert exact_figures["recall10@10"] == 1 and exact_figures["rescored recall10@10"] == 1


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("kind", ["distinct", "tied", "whole", "equal"])
def test_measures_by_one_sort_are_those_of_the_metrics(kind, labelled):
    """Against counts of every level; with labels all items are ranked, without them only what the cuts need."""
    rng = np.random.default_rng(3)
    n, n_queries = 4500, 31  # more than a block of queries, and than four times the last cut
    X, Q = (rng.standard_normal((size, 4)).astype(np.float32) for size in (n, n_queries))
    y = rng.integers(4, size=n + n_queries) if labelled else None
    d = baselines.squared_distances(Q, X) - np.float32(5)  # negative ones, too
    d = {"distinct": d, "tied": np.round(d), "whole": np.round(50 * d).astype(np.float64), "equal": 0 * d}[kind]
    d[:, ::7] *= -0.0 if kind == "equal" else 1  # -0 ties with 0
    truth = evaluation.Truth(X, Q, *((y[:n], y[n:]) if labelled else (None, None)))
    blocks = iter(np.split(d, [25]))
    got = truth.of_distances(lambda _: next(blocks))
    relevant = np.zeros(d.shape, bool)
    np.put_along_axis(relevant, truth.neighbors, True, axis=1)
    near = metrics.count_distances(d, relevant)
    for k in (10, 100, 1000):
        assert got[f"recall10@{k}"] == pytest.approx(metrics.recall_at_k(near, k).mean(), abs=6e-6)
    found = np.argsort(d, axis=1, kind="stable")
    for k in (10, 100):
        hits = [int(digit, 16) for digit in got[f"hits@{k}"]]
        assert hits == [len(np.intersect1d(a, b)) for a, b in zip(found[:, :k], truth.neighbors, strict=True)]
    if not labelled:
        assert "mAP" not in got and "curve" not in got
        return
    same = metrics.count_distances(d, y[n:, None] == y[:n])
    assert got["mAP"] == pytest.approx(metrics.average_precision(same).mean(), abs=6e-6)
    for k in (10, 100, 1000):
        assert got[f"P@{k}"] == pytest.approx(metrics.precision_at_k(same, k).mean(), abs=6e-6)
    precision, recall = metrics.precision_recall_curve(same)
    points = np.unique(np.geomspace(1, n, 60).astype(int)) - 1
    assert got["curve"]["recall"] == pytest.approx(recall[points][: len(got["curve"]["recall"])], abs=6e-5)
    assert got["curve"]["precision"] == pytest.approx(precision[points][: len(got["curve"]["recall"])], abs=6e-5)


def test_distances_that_cannot_be_ranked_are_refused(vectors):
    X, y = vectors
    truth = evaluation.Truth(X[:800], X[800:], y[:800], y[800:])
    for d in (np.full((25, 800), 0.5), np.full((25, 800), 2.0**40)):
        with pytest.raises(ValueError, match="whole numbers below"):
            truth.of_distances(lambda _, d=d: d)
    with pytest.raises(ValueError, match="NaN"):
        truth.of_distances(lambda _: np.full((25, 800), np.nan, np.float32))


def test_weights_are_measured_by_the_distances_of_the_search(vectors):
    X, y = vectors
    truth = evaluation.Truth(X[:800], X[800:], y[:800], y[800:])
    hasher = methods.make("aphash-neighbors", 20, 0, 1).fit(X[:800])
    weights = hasher.query_projections(X[800:])
    index = HammingIndex(20)
    index.add(hasher.transform(X[:800]))
    measured = truth.of_weights(hasher.transform(X[:800]), weights)
    ids = index.search(weights, 800)[1]
    ranks = np.argsort(ids, axis=1)  # of the items
    near = np.take_along_axis(ranks, truth.neighbors, axis=1) < 100
    assert measured["recall10@100"] == pytest.approx(near.mean(), abs=0.01)  # ties are expected, or broken by id
    assert (
        measured["recall10@100"] > truth.of_codes(hasher.transform(X[:800]), hasher.transform(X[800:]))["recall10@100"]
    )
    label = methods.label("itq" + methods.BY_WEIGHTS)
    assert label == "ITQ" and methods.queries_of("itq" + methods.BY_WEIGHTS) == "weights"
    assert methods.queries_of("itq") == "codes" and methods.queries_of("pq") == "floats"


def test_specs():
    assert methods.parse_spec("itq") == ("itq", {})
    assert methods.parse_spec("a:b=2,c=x,d=.5,e=True") == ("a", {"b": 2, "c": "x", "d": 0.5, "e": True})
    with pytest.raises(ValueError, match="parameter=value"):
        methods.parse_spec("a:b")
    with pytest.raises(ValueError, match="unknown method"):
        methods.make("nothing", 8, 0, 1)


def test_a_run_is_recorded_resumed_and_measured_again(tmp_path, capsys):
    arguments = ["--dataset", "digits", "--method", "random", "floats", "--bits", "16", "--seeds", "0",
                 "--work", str(tmp_path / "w"), "--results", str(tmp_path / "r")]  # fmt: skip
    assert runner.main(arguments) == 0
    lines = (tmp_path / "r" / "digits.jsonl").read_text().splitlines()
    record = json.loads(lines[0])
    assert len(lines) == 2
    for name in ("params", "seed", "protocol", "n", "n_queries", "ties", "seconds", "peak_memory_mib", "machine",
                 "versions", "commit", "measures", "bytes_per_item"):  # fmt: skip
        assert record[name] is not None, name
    capsys.readouterr()
    assert runner.main(arguments) == 0
    assert "mAP" not in capsys.readouterr().out  # nothing was run
    assert runner.main([*arguments, "--measure"]) == 0
    again = [json.loads(line) for line in (tmp_path / "r" / "digits.jsonl").read_text().splitlines()]
    assert [r["measures"] for r in again] == [json.loads(line)["measures"] for line in lines]
    assert runner.main([*arguments[:3], "rabitq", *arguments[5:]]) == 1  # what cannot be run is said, and counts


def test_runs_at_the_same_time_find_the_same(tmp_path):
    arguments = ["--dataset", "digits", "--method", "random", "itq", "rabitq", "--bits", "16", "--seeds", "0"]
    for n in (1, 2):
        arguments += ["--work", str(tmp_path / f"w{n}"), "--results", str(tmp_path / f"r{n}"), "--processes", str(n)]
        assert runner.main([*arguments, "--n-jobs", "1"]) == 1  # RaBitQ needs more bits; the others are done
    one, two = (
        {r["method"]: r["measures"] for r in map(json.loads, (tmp_path / r / "digits.jsonl").read_text().splitlines())}
        for r in ("r1", "r2")
    )
    assert one == two and set(one) == {"random", "itq"}
    with pytest.raises(SystemExit):
        runner.main(["--processes", "0"])


def test_missing_data_fails_the_run(tmp_path, capsys):
    arguments = ["--dataset", "cnn", "--data-dir", str(tmp_path), "--work", str(tmp_path), "--results", str(tmp_path)]
    assert runner.main(arguments) == 1
    assert "cifar10_cnn512.npz is missing" in capsys.readouterr().err


# -- fronts and the bars of a proof -----------------------------------------------------------------------------------


def line(method, seed, measures=None, by_weights=None, dataset="cnn", n_bits=64, n=100, **more):
    """A line of results, as far as tables and bars need it."""
    record = {"dataset": dataset, "checksum": "0", "protocol": "train", "seed": seed, "n": n, "method": method,
              "n_bits": n_bits, "measures": measures or {}, "bytes_per_item": n_bits / 8}  # fmt: skip
    return record | ({"by_weights": by_weights} if by_weights else {}) | more


def test_front_and_what_it_reaches_at_a_recall():
    points = [(0.3, 0.5), (0.6, 0.4), (0.5, 0.35), (0.2, 0.45)]  # the last two are beaten
    assert fronts.front(points).tolist() == [[0.3, 0.5], [0.6, 0.4]]
    assert fronts.at_recall(points, 0.45) == pytest.approx(0.45)
    assert fronts.at_recall(points, 0.9) == pytest.approx(0.4) and fronts.at_recall(points, 0.1) == pytest.approx(0.5)
    assert fronts.at_recall([], 0.5) is None


def test_methods_are_beside_controls_that_are_asked_alike():
    def figures(recall, mAP, P):
        return {"recall10@100": recall, "mAP": mAP, "P@100": P}

    records = [line("aphash-semantic", 0, figures(0.5, 0.40, 0.6), figures(0.6, 0.42, 0.7))]
    # by weights: the front of mAP is 1 and 2, that of P@100 is 3 and 4
    weights = [figures(0.5, 0.44, 0.5), figures(0.7, 0.40, 0.4), figures(0.55, 0.3, 0.8), figures(0.65, 0.3, 0.6)]
    for n, by_weights in enumerate(weights, 1):
        records.append(line(f"control:n_rounds={n},rotation=random", 0, figures(0.5, 0.9, 0.9), by_weights))
    table = results.Table(records[:4])  # of three controls there is no front
    assert fronts.beside(table, "cnn", 64, "aphash-semantic", "mAP") is None
    table = results.Table(records)
    spec = "aphash-semantic" + methods.BY_WEIGHTS
    assert len(fronts.controls(table, "cnn", 64, "weights")) == 4
    assert fronts.beside(table, "cnn", 64, spec, "mAP") == pytest.approx((0.6, 0.42, 0.42))
    assert fronts.beside(table, "cnn", 64, spec, "P@100") == pytest.approx((0.6, 0.7, 0.7))
    assert fronts.beside(table, "cnn", 64, "aphash-semantic", "mAP") == pytest.approx((0.5, 0.40, 0.9))
    assert fronts.beside(table, "cnn", 64, spec, "mAP", seeds=[1]) is None
    other = [line("aphash-semantic", 1, by_weights=figures(0.6, 0.42, 0.7)), line("itq", 1, by_weights=weights[0])]
    more = results.Table(records + other)  # a seed with ITQ alone has no front, so there is one seed to compare
    assert [bar.half for bar in proof.front_bars(more, ["cnn"], [0, 1])] == [None, None]
    assert fronts.beside(table, "cnn", 128, spec, "mAP") is None
    more = results.Table([*records, line("aphash-semantic-scores", 0, by_weights=figures(0.7, 0.5, 0.6))])
    (_, bar) = (b for b in proof.front_bars(more, ["cnn"], [0]) if b.measure == "mAP")
    assert bar.what == "64 bits, semantic-scores" and bar.found == pytest.approx(1.25) and bar.held
    (bar,) = (b for b in proof.front_bars(table, ["cnn", "gist", "wordnet"], [0]) if b.measure == "mAP")
    assert bar.found == pytest.approx(1) and not bar.held and bar.least == 1.02 and bar.half is None


def test_paired_intervals_are_over_queries():
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 11, size=(2, 2, 50))  # seeds, methods, queries
    pairs = [[line(spec, seed, {"hits@10": "".join(f"{h:x}" for h in draws[seed, i])}, queries="abcdef"[seed])
              for seed in (0, 1)] for i, spec in enumerate(("aphash-scores", "itq"))]  # fmt: skip
    each = (draws[:, 0] - draws[:, 1]) / 10
    assert proof.paired(*pairs, 10) == pytest.approx(1.96 * each.std(ddof=1) / 10)
    for record in pairs[0] + pairs[1]:
        record["queries"] = "same"  # a query of both seeds counts once
    assert proof.paired(*pairs, 10) == pytest.approx(1.96 * each.mean(axis=0).std(ddof=1) / np.sqrt(50))
    assert proof.paired(*pairs, 100) is None
    pairs[1][1]["queries"] = "others"
    with pytest.raises(ValueError, match="different queries"):
        proof.paired(*pairs, 10)
    del pairs[1][1]["queries"]
    assert proof.paired(*pairs, 10) is None
    assert proof.over_seeds([1.0]) is None
    assert proof.over_seeds([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)


def test_bars_are_held_by_means_of_common_seeds(capsys):
    def both(recall, bits, spec, seed, **more):
        return line(spec, seed, by_weights={"recall10@100": recall, "recall10@10": recall / 2}, n_bits=bits, **more)

    records = [both(0.95, 64, "aphash-scores", 0), both(0.85, 64, "itq", 0), both(0.5, 64, "itq", 1)]
    records += [both(0.95, 128, "aphash-scores", 0), both(0.954, 128, "itq", 0)]
    records += [both(0.95, 64, spec, 0, dataset=name) for name in ("digits",) for spec in ("aphash-scores", "itq")]
    table = results.Table(records)
    bars = {(b.dataset, b.bits, b.measure): b for b in proof.scores_bars(table, ["cnn", "digits", "gist"], [0, 1])}
    bar = bars["cnn", 64, "recall10@100"]
    assert bar.found == pytest.approx(0.1) and bar.least == 0.06 and bar.goal == 0.9 and bar.held
    assert bar.what == "8 bytes, 1 of 2 seeds"
    assert not bars["cnn", 64, "recall10@10"].held  # .05 of .07
    assert not bars["cnn", 128, "recall10@100"].held
    bar = bars["digits", 64, "recall10@100"]
    assert bar.found == 0 and bar.least == -0.005 and bar.goal is None and bar.held
    assert len(bars) == 6
    assert proof.show(table, ["cnn", "digits"], [0, 1]) == (3, 6)
    out = capsys.readouterr().out
    assert "0.900 met" in out and "missed" in out and "3 of 6 bars are held" in out and "compared: none" in out


def test_a_proof_runs_large_sets_with_one_seed():
    seeds = {}
    for name, _, (seed,), specs, _ in proof.plan(["descriptors", "wordnet"], [3, 4]):
        seeds.setdefault(name, set()).add(seed)
        assert specs == ["aphash-scores", "itq"]
    assert seeds == {"descriptors": {3}, "wordnet": {3, 4}}


def test_a_proof_is_resumed_and_completes_lines_that_lack_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(proof, "BITS", (16,))
    monkeypatch.setattr(proof, "FRONT_BITS", (16,))
    four = methods.control_specs((), (1, 2, 3, 4), {})
    monkeypatch.setattr(proof, "CONTROLS", {"digits": four, "cnn": four})
    monkeypatch.setattr(proof, "RATIOS_BY_CODES", (("digits", None, "random", 32, 1.0), ("cnn", 5, "random", 8, 1.0)))
    work, folder = tmp_path / "w", tmp_path / "r"
    arguments = ["--proof", "--dataset", "digits", "cnn", "--seeds", "0", "--work", str(work), "--results", str(folder),
                 "--data-dir", str(tmp_path)]  # fmt: skip
    assert runner.main(arguments) == 1  # random projections are not ahead of ITQ
    captured = capsys.readouterr()
    assert captured.err.count("cifar10_cnn512.npz is missing") == 1 and "Without data: cnn" in captured.out
    assert "compared: digits 5." in captured.out  # four controls and ITQ
    assert "1 bars" in captured.out and captured.out.count("missed") == 1
    path = folder / "digits.jsonl"
    lines = {r["method"]: r for r in map(json.loads, path.read_text().splitlines()) if r["n_bits"] == 16}
    assert len(lines) == 7 and len(lines["itq"]["by_weights"]["hits@100"]) == 300
    runner.main(arguments)
    again = capsys.readouterr().out
    assert "fit" not in again and again.startswith("\nMode scores")
    old = {name: json.loads(json.dumps(r)) for name, r in lines.items()}
    del old["itq"]["by_weights"]["hits@100"], old["aphash-scores"]["queries"], old["aphash-semantic"]["by_weights"]
    path.write_text("".join(json.dumps(r) + "\n" for r in old.values()))
    results.codes_path(work, old["itq"]).unlink()  # has to be learned again; the others are measured
    runner.main(arguments)
    assert capsys.readouterr().out.count("  fit ") == 5  # these, and two of 32 bits
    new = {r["method"]: r for r in map(json.loads, path.read_text().splitlines()) if r["n_bits"] == 16}
    assert new["itq"]["when"] >= lines["itq"]["when"] and new["itq"]["by_weights"] == lines["itq"]["by_weights"]
    assert new["aphash-semantic"] | {"seconds": 0} == lines["aphash-semantic"] | {"seconds": 0}


def test_a_proof_of_a_file_without_labels(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(proof, "BITS", (16,))
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).standard_normal((400, 20)))
    arguments = ["--proof", "--dataset", str(tmp_path / "mine.npy"), "--seeds", "0", "1", "--work", str(tmp_path / "w")]
    runner.main([*arguments, "--results", str(tmp_path / "r"), "--processes", "2", "--n-jobs", "1"])
    out = capsys.readouterr().out
    rows = [row.split() for row in out.splitlines() if row.startswith("mine  2 bytes")]
    assert [row[3] for row in rows] == ["recall10@100", "recall10@10"] and "of 2 bars are held" in out
    for row in rows:
        assert float(row[6]) == pytest.approx(float(row[4]) - float(row[5]), abs=6e-4)  # found, of both figures
        assert row[7].startswith("+-") and row[8] == "-0.005"


# -- the report -------------------------------------------------------------------------------------------------------


def test_labels():
    assert methods.label("control:n_rounds=4,rotation=random") == "control, 4 rounds, random"
    assert methods.label("control:n_rounds=4,rotation=random,whitening=0.25,last_ridge=0.1").endswith("whitened 0.25")
    assert methods.label("itq:n_components=32") == "PCA-32 + projection"
    assert methods.label("aphash-semantic:q_power=2") == "APHash semantic, q_power=2"


def test_the_page_is_self_contained(tmp_path):
    methods = ["itq", "control:n_rounds=2,rotation=random", "floats", "aphash-semantic", "aphash-neighbors"]
    folders = ["--work", str(tmp_path / "w"), "--results", str(tmp_path / "r")]
    arguments = ["--dataset", "digits", "--method", *methods, "--bits", "16", "--seeds", "0", "1", *folders]
    assert runner.main(arguments) == 0
    report.main([*folders, "--out", str(tmp_path / "report.html")])
    text = (tmp_path / "report.html").read_text()
    for words in ("APHash semantic", "control, 2 rounds, random", "n = 1,497", "±", "<svg", "data:image/png;base64"):
        assert words in text, words
    assert "http://" not in text.replace("http://www.w3.org", "").replace("http://purl", "").replace(
        "http://creative", ""
    )
    records = [json.loads(line) for line in (tmp_path / "r" / "digits.jsonl").read_text().splitlines()]
    for record in records:  # a set without labels
        record["dataset"] = "descriptors"
        for measures in (record["measures"], record.get("by_weights", {})):
            for name in [name for name in measures if not name.startswith(("recall", "rescored recall"))]:
                del measures[name]
    (tmp_path / "r" / "descriptors.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    report.main([*folders, "--out", str(tmp_path / "report.html")])
    assert "SIFT of CIFAR-10" in (tmp_path / "report.html").read_text()
    with pytest.raises(SystemExit, match="no runs"):
        report.main(["--results", str(tmp_path / "nothing")])


def test_the_page_has_tables_by_codes_and_by_weights_and_stands_lines_without(tmp_path):
    base = {"peak_memory_mib": None, "seconds": {"fit": 1.0}, "machine": {"cpu": "c", "cores": 1, "isa": "base"},
            "commit": "0", "when": "2026-01-01T00:00", "versions": {}, "n_queries": 2, "d": 3}  # fmt: skip
    few = {"recall10@100": 0.5, "recall10@10": 0.25}  # without labels
    all_ = few | {"mAP": 0.3, "P@100": 0.4}
    records = [line("itq", 0, all_, all_ | {"recall10@100": 0.75}), line("aphash-scores", 0, all_, all_)]
    records += [line("aphash-scores", 0, few, few, n_bits=128), line("rabitq", 0, few, n_bits=128)]
    records += [line("rabitq:inside=False", 0, all_, bytes_per_item=16.0), line("pca", 0, all_)]
    records += [line("itq", 0, all_, dataset="gist"), line("pq", 0, few, dataset="plain")]
    (tmp_path / "r").mkdir()
    for r in records:
        with (tmp_path / "r" / f"{r['dataset']}.jsonl").open("a") as file:
            file.write(json.dumps(base | r) + "\n")
    report.main(["--results", str(tmp_path / "r"), "--out", str(tmp_path / "report.html")])
    text = (tmp_path / "report.html").read_text()
    for words in ("64 bits, asked by codes", "64 bits, asked by weights or floats", "At equal bytes",
                  '<td class="best">0.7500',
                  "scores less ITQ: recall10@100"):  # fmt: skip
        assert words in text, words
    found = report.equal_bytes(results.Table(records), "cnn")
    assert found["groups"] == [(8, list(report.BYTES_MEASURES)), (16, list(report.BYTES_MEASURES))]
    assert [row["name"] for row in found["rows"]] == ["APHash scores", "ITQ", "RaBitQ"]
    assert [cell["mean"] for cell in found["rows"][2]["cells"][:4]] == ["", "", "", "0.5000"]  # no 8 bytes
    assert [cell["best"] for cell in found["rows"][1]["cells"]] == [True, True, True, False, False, False]
    assert report.equal_bytes(results.Table(records), "gist") is None


# -- recall against speed ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def correlated():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((1500, 48)) @ rng.standard_normal((48, 96))
    return (X + rng.standard_normal(X.shape)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(name for name in curve.METHODS if "APHash" not in name))
def test_methods_of_the_curve_find_more_by_more_candidates(name, correlated):
    if name.startswith("turbovec"):
        pytest.importorskip("turbovec")
    X, Q = correlated[:1400], correlated[1400:]
    true = evaluation.true_neighbors(X, Q)
    search, code_bytes = curve.METHODS[name](X, 12)
    assert code_bytes <= 12
    recalls = []
    for n_candidates in (10, 300, 1400):
        found = search(Q, n_candidates)
        assert found.shape == (100, 10) and all(len(set(ids)) == 10 for ids in found.tolist())
        recalls.append((found[:, :, None] == true[:, None]).any(axis=2).mean())
        d = ((X[found] - Q[:, None]) ** 2).sum(axis=2)
        assert (np.diff(d, axis=1) > -1e-2 * d.max()).all()  # ranked by the vectors
    assert 0.03 < recalls[0] < recalls[1] <= recalls[2] and recalls[2] > 0.999


def test_scores_by_projections_are_searched_by_them():
    X = np.random.default_rng(0).standard_normal((400, 12)).astype(np.float32)
    plain, own = (methods.make(f"aphash-scores{more}", 8, 0, 1).fit(X) for more in (":queries=projections", ""))
    np.testing.assert_array_equal(plain.query_projections(X), own.decision_function(X))
    np.testing.assert_array_equal(plain.transform(X), own.transform(X))
    assert methods.label("aphash-scores:queries=projections") == "APHash scores, by projections"


def test_rabitq_of_eight_bytes_is_refused(correlated):
    with pytest.raises(ValueError, match="need 8 bytes"):
        curve.METHODS["RaBitQ (8 bytes are factors)"](correlated, 8)
    with pytest.raises(ValueError, match="fill 24 bytes only"):
        curve.METHODS["2 bits a component"](correlated, 25)


def test_the_curves_front_and_the_speed_at_a_recall():
    def line(method, candidates, recall, speed, n_bytes=8):
        return {"dataset": "cnn", "n": 5, "d": 3, "bytes": n_bytes, "method": method, "candidates": candidates,
                "recall10@10": recall, "queries_s": speed}  # fmt: skip

    lines = [line("PQ", 20, 0.8, 100), line("PQ", 10, 0.5, 400), line("OPQ", 10, 0.7, 90), line("OPQ", 20, 0.9, 10)]
    panel = curve.panels(lines)["cnn", 8]
    assert panel["PQ"] == [(0.5, 400, 10), (0.8, 100, 20)]
    assert curve.front(panel) == [(0.5, 400, "PQ"), (0.8, 100, "PQ"), (0.9, 10, "OPQ")]
    assert curve.at(panel["PQ"], 0.65) == pytest.approx(200)  # half-way
    assert curve.at(panel["PQ"], 0.4) == 400 and curve.at(panel["PQ"], 0.81) is None
    assert curve.kept(lines, [line("PQ", 20, 0.8, 111), line("PQ", 20, 0.8, 7, 16)])[-2]["queries_s"] == 111
    assert len(curve.kept(lines, [line("PQ", 20, 0.8, 111), line("PQ", 20, 0.8, 7, 16)])) == 5
    text = "\n".join(curve.table(lines, (0.6, 0.85)))
    assert "| OPQ | 90 | **17** |" in text and "| PQ | **252** | - |" in text


def test_the_curve_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    lines = [
        {"dataset": name, "n": 5, "d": 3, "bytes": n_bytes, "method": method, "candidates": c,
         "recall10@10": 1 - 1 / c, "queries_s": 1000 / c * (1 + i)}
        for name in ("cnn", "own") for n_bytes in (8, 16) for i, method in enumerate(curve.STYLES) for c in (10, 20)
    ]  # fmt: skip
    curve.plot(lines, tmp_path / "a.svg")
    curve.plot(lines, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert all(words in text for words in ("CNN features", "own", "16 bytes an item", *curve.STYLES))
    assert set(curve.STYLES) == set(curve.METHODS)
