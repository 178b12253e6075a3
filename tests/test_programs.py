"""What people do with what they have, from pictures, hashes, embeddings and databases to results.

Each test is a short program beside the library that it comes from.
"""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

import aphash
from aphash import APHash, HammingIndex, VectorRescore, interchange, pack_codes


@pytest.fixture(scope="module")
def pictures():
    """Thirty smooth pictures, each followed by two copies of another brightness that were stored as JPEG."""
    pytest.importorskip("imagehash", reason="imagehash is not installed")
    from PIL import Image, ImageEnhance

    rng, made = np.random.default_rng(0), []
    for _ in range(30):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        made.append(small.resize((96, 96), Image.Resampling.BICUBIC))
        for brightness in (0.92, 1.07):
            stored = io.BytesIO()
            ImageEnhance.Brightness(made[-1] if brightness < 1 else made[-2]).enhance(brightness).save(stored, "JPEG")
            with Image.open(stored) as copy:
                made.append(copy.convert("RGB"))
    return made


@pytest.fixture(scope="module")
def embeddings():
    """600 embeddings of 128 numbers in 30 clusters, normalised, and 20 queries."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 128))[rng.integers(0, 30, 620)] + 0.6 * rng.standard_normal((620, 128))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    return X[:600], X[600:]


def test_near_duplicates_among_pictures(pictures):
    """All pairs within 10 bits, beside the subtraction of ImageHash objects."""
    import imagehash

    hashes = [imagehash.phash(picture) for picture in pictures]
    index = HammingIndex(64)
    index.add(interchange.from_imagehash(hashes))
    found = {}
    for i, j, distances in index.pairs(10):
        found |= {tuple(sorted(pair)): d for *pair, d in zip(i.tolist(), j.tolist(), distances.tolist())}
    differences = {(i, j): hashes[i] - hashes[j] for i in range(90) for j in range(i + 1, 90)}
    assert found == {pair: d for pair, d in differences.items() if d <= 10}
    assert sum(i // 3 == j // 3 for i, j in found) > 60


def test_groups_of_hashes_in_a_table(pictures):
    """Hexadecimal text in a CSV file; the groups are the connected components of its distances."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    import imagehash

    text = pandas.DataFrame({"hash": [str(imagehash.dhash(each, 7)) for each in pictures]}, range(100, 190)).to_csv()
    table = pandas.read_csv(io.StringIO(text), index_col=0, dtype={"hash": str})
    index = HammingIndex(49)
    index.add(interchange.from_hex(table["hash"], 49), table.index)
    table["group"] = pandas.Series(*reversed(index.groups(4)))
    hashes = [imagehash.hex_to_hash(each) for each in table["hash"]]
    n, components = connected_components(np.array([[one - other <= 4 for other in hashes] for one in hashes]))
    assert table["group"].nunique() == n and len({*zip(table["group"], components)}) == n


def test_embeddings_that_were_quantised_elsewhere(embeddings):
    """ubinary rows in a faiss index, binary ones as an API's JSON; vectors rescore what the bits find."""
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    X, queries = embeddings
    rows, query_rows = np.packbits(X > 0, axis=1), np.packbits(queries > 0, axis=1)
    theirs = faiss.IndexBinaryFlat(128)
    theirs.add(rows)
    index = interchange.from_faiss(theirs, bitorder="big")
    codes = interchange.from_ubinary(query_rows, 128)
    assert np.array_equal(index.search(codes, 10)[0], theirs.search(query_rows, 10)[0])
    answer = json.loads(json.dumps({"binary": (rows.astype(int) - 128).tolist()}))
    assert np.array_equal(interchange.from_binary(answer["binary"], 128), index.codes)
    exact = faiss.IndexFlatIP(128)
    exact.add(X)
    found = index.search(codes, 10, rescore=VectorRescore(X, metric="ip", factor=60), rescore_queries=queries)[1]
    assert np.array_equal(found, exact.search(queries, 10)[1])


def test_descriptors_of_key_points():
    """ORB's bits of two views of a picture, beside scikit-image's own matcher."""
    feature = pytest.importorskip("skimage.feature", reason="scikit-image is not installed")
    from skimage.data import camera

    found = []
    for picture in (camera(), np.roll(camera(), (15, 9), (0, 1))):
        orb = feature.ORB(n_keypoints=120)
        orb.detect_and_extract(picture)
        found.append(orb.descriptors)
    index = HammingIndex(256)
    index.add(pack_codes(found[1]))
    distances, ids = index.search(pack_codes(found[0]), 1)
    matches = feature.match_descriptors(*found, metric="hamming", cross_check=False)
    differences = (found[0][:, None] != found[1][None]).sum(2)
    assert np.array_equal(distances[:, 0], differences[matches[:, 0], matches[:, 1]])
    assert np.array_equal(differences[np.arange(len(ids)), ids[:, 0]], distances[:, 0])


def test_columns_of_tables():
    """Hashes as text, bits and BIGINT in columns of pandas, polars and pyarrow; gaps are named."""
    codes = pack_codes(np.random.default_rng(0).random((200, 64)) < 0.5)
    columns = {
        "hex": interchange.to_hex(codes, 64),
        "bits": interchange.to_bit_strings(codes, 64),
        "signed": interchange.to_integers(codes, 64, signed=True),
    }
    kinds = 0
    for library, make in (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")):
        try:
            table = getattr(__import__(library), make)(columns)
        except ImportError:
            continue
        kinds += 1
        assert np.array_equal(interchange.from_hex(table["hex"], 64), codes), library
        assert np.array_equal(interchange.from_bit_strings(table["bits"]), codes), library
        assert np.array_equal(interchange.from_integers(table["signed"], 64), codes), library
        gaps = getattr(sys.modules[library], make)({"hex": ["f" * 16, None], "signed": [5, None]})
        with pytest.raises(TypeError, match="in row 1"):
            interchange.from_hex(gaps["hex"], 64)
        with pytest.raises(TypeError, match=r"missing values|in row 1"):
            interchange.from_integers(gaps["signed"], 64)
    if not kinds:
        pytest.skip("neither pandas, polars nor pyarrow is installed")


def test_a_pipeline_in_another_process(embeddings, tmp_path):
    """Learned and indexed here, answered there, from one file."""
    X, queries = embeddings
    pipeline = make_pipeline(
        StandardScaler(), PCA(40, random_state=0), Normalizer(), APHash(32, n_rounds=2, random_state=0)
    ).fit(X)
    index = HammingIndex(32)
    index.add(pipeline.transform(X))
    aphash.save(tmp_path / "product", pipeline, index)
    np.save(tmp_path / "queries.npy", queries)
    program = """
import sys, numpy as np, aphash
pipeline, index = aphash.load(sys.argv[1] + "/product", mmap=True)
np.save(sys.argv[1] + "/ids.npy", index.search(pipeline.transform(np.load(sys.argv[1] + "/queries.npy")), 6)[1])
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path)], check=True)
    assert np.array_equal(np.load(tmp_path / "ids.npy"), index.search(pipeline.transform(queries), 6)[1])
