"""The packed format: where each bit is, round trips, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aphash.codes import (
    MAX_BITS,
    Origin,
    check_codes,
    check_n_bits,
    n_words,
    note_origin,
    origin_of,
    pack,
    pack_codes,
    unpack_codes,
)

N_BITS = [1, 7, 63, 64, 65, 127, 128, 256]
widths = pytest.mark.parametrize("n_bits", N_BITS)


@widths
def test_bit_b_is_bit_b_mod_64_of_word_b_div_64(n_bits):
    codes = pack_codes(np.eye(n_bits, dtype=bool))
    assert codes.shape == (n_bits, n_words(n_bits)) == (n_bits, (n_bits + 63) // 64)
    assert codes.dtype == np.uint64 and codes.dtype.isnative and codes.flags.c_contiguous
    for b in range(n_bits):
        expected = [0] * n_words(n_bits)
        expected[b // 64] = 1 << (b % 64)
        assert codes[b].tolist() == expected


@widths
def test_bytes_are_those_of_little_endian_packbits(n_bits, rng):
    bits = rng.random((2**14 + 3, n_bits)) < 0.5  # more rows than are packed at a time
    packed = np.packbits(bits, axis=1, bitorder="little")
    padded = np.zeros((len(bits), 8 * n_words(n_bits)), np.uint8)
    padded[:, : packed.shape[1]] = packed
    codes = pack_codes(bits)
    np.testing.assert_array_equal(codes.astype("<u8").view(np.uint8), padded)
    np.testing.assert_array_equal(unpack_codes(codes, n_bits), bits)


@given(st.data(), st.sampled_from(N_BITS), st.integers(0, 5))
def test_round_trip_of_bits(data, n_bits, n):
    bits = data.draw(arrays(bool, (n, n_bits)))
    codes = pack_codes(bits)
    assert check_codes(codes, n_bits) is codes
    unpacked = unpack_codes(codes, n_bits)
    assert unpacked.dtype == bool
    np.testing.assert_array_equal(unpacked, bits)
    np.testing.assert_array_equal(pack_codes(2.0 * unpacked - 1), codes)


@given(st.data(), st.sampled_from(N_BITS), st.integers(0, 5))
def test_round_trip_of_codes(data, n_bits, n):
    codes = data.draw(arrays(np.uint64, (n, n_words(n_bits))))
    codes[:, -1] &= np.uint64(2 ** ((n_bits - 1) % 64 + 1) - 1)
    np.testing.assert_array_equal(pack_codes(unpack_codes(codes, n_bits)), codes)


@given(st.data(), st.sampled_from(["<f4", ">f4", "<f8", "f2"]), st.sampled_from(N_BITS))
def test_a_projection_is_1_where_it_is_not_negative(data, dtype, n_bits):
    width = 8 * np.dtype(dtype).itemsize
    projections = data.draw(arrays(dtype, (2, n_bits), elements=st.floats(allow_nan=False, width=width)))
    np.testing.assert_array_equal(unpack_codes(pack(projections), n_bits), projections >= 0)
    projections[0, 0] = -1  # pack_codes doubts numbers of which none is negative
    np.testing.assert_array_equal(pack_codes(projections), pack(projections))
    np.testing.assert_array_equal(unpack_codes(pack_codes(projections, threshold="gt"), n_bits), projections > 0)


def test_zeros_of_both_signs_and_infinities():
    assert pack_codes(np.array([-0.0, 0.0, -1e-300, np.inf, -np.inf])).tolist() == [0b01011]


def test_integer_signs_and_lists():
    assert pack_codes([-1, 1, 1]).tolist() == [0b110]
    assert pack_codes(np.array([-5, 0, 3], np.int8)).tolist() == [0b110]
    assert pack_codes([[True, False], [False, True]]).tolist() == [[1], [2]]


@widths
def test_one_dimension_in_one_out(n_bits, rng):
    bits = rng.random(n_bits) < 0.5
    code = pack_codes(bits)
    assert code.shape == (n_words(n_bits),)
    np.testing.assert_array_equal(code, pack_codes(bits[np.newaxis])[0])
    np.testing.assert_array_equal(unpack_codes(code, n_bits), bits)
    np.testing.assert_array_equal(check_codes(code, n_bits), code[np.newaxis])


def test_codes_of_any_layout_come_back_contiguous(rng):
    codes = pack_codes(rng.random((6, 128)) < 0.5)
    for view in (np.asfortranarray(codes), codes[::2], codes[::-1]):
        checked = check_codes(view, 128)
        assert checked.flags.c_contiguous
        np.testing.assert_array_equal(checked, view)
        np.testing.assert_array_equal(pack_codes(unpack_codes(view, 128)), view)


@pytest.mark.parametrize(
    ("codes", "n_bits", "error", "message"),
    [
        (np.zeros((2, 1), np.int64), 64, TypeError, "queries must be uint64.*i8"),
        (np.zeros((2, 8), np.uint8), 64, TypeError, "queries must be uint64.*u1"),
        (np.zeros((2, 1)), 64, TypeError, "queries must be uint64.*f8"),
        (np.zeros((2, 1), np.dtype(np.uint64).newbyteorder("S")), 64, TypeError, "native byte order, got dtype [<>]u8"),
        (np.zeros((2, 1), np.uint64), 65, ValueError, r"queries must have shape \(n, 2\) for 65 bits, got \(2, 1\)"),
        (np.zeros((2, 2), np.uint64), 64, ValueError, r"queries must have shape \(n, 1\) for 64 bits, got \(2, 2\)"),
        (np.zeros(3, np.uint64), 128, ValueError, r"queries must have shape \(n, 2\)"),
        (np.zeros((2, 1, 1), np.uint64), 64, ValueError, r"queries must have shape .* got \(2, 1, 1\)"),
        (np.uint64(0), 64, ValueError, r"queries must have shape .* got \(\)"),
    ],
)
def test_check_codes_refuses(codes, n_bits, error, message):
    with pytest.raises(error, match=message):
        check_codes(codes, n_bits, "queries")
    with pytest.raises(error, match=message.replace("queries", "codes")):
        unpack_codes(codes, n_bits)


@pytest.mark.parametrize("n_bits", [n for n in N_BITS if n % 64])
@pytest.mark.parametrize("top", [False, True])
def test_padding_bits_are_refused_by_row(n_bits, top):
    codes = np.zeros((5, n_words(n_bits)), np.uint64)
    codes[[3, 4], -1] = np.uint64(1 << (63 if top else n_bits % 64))
    with pytest.raises(ValueError, match=f"codes has padding bits set beyond bit {n_bits - 1}, first in row 3"):
        check_codes(codes, n_bits)
    codes[:, -1] = np.uint64(1 << (n_bits - 1) % 64)  # the last bit itself is no padding
    check_codes(codes, n_bits)


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        ([0.5, np.nan], ValueError, "NaN"),
        (np.r_[np.zeros((2**14, 1)), [[np.nan]]], ValueError, "NaN"),
        ([[0, 1], [1, 1]], ValueError, "integers 0 and 1"),
        (np.array([1, 0], np.uint8), TypeError, "signed real numbers, got dtype uint8: pass .bits > 0. for a mask"),
        (["a", "b"], TypeError, "real numbers, got text of dtype"),
        ([1j, -1j], ValueError, "real numbers.*got dtype complex"),
        ([None, 1], ValueError, "no value .None. in row 0"),
        (np.ones((2, 2, 2)), ValueError, "1 or 2 dimensions, got shape .2, 2, 2."),
        (1.0, ValueError, "1 or 2 dimensions, got shape .."),
        (np.ones((3, 0)), ValueError, "n_bits must be in 1 .. 65536, got 0"),
        ([], ValueError, "n_bits must be in 1 .. 65536, got 0"),
        (np.ones((1, MAX_BITS + 1), bool), ValueError, "n_bits must be in 1 .. 65536, got 65537"),
    ],
)
def test_pack_codes_refuses(bits, error, message):
    with pytest.raises(error, match=message):
        pack_codes(bits)


def test_the_widest_code():
    assert MAX_BITS == 65536
    bits = np.arange(MAX_BITS) % 3 == 0
    np.testing.assert_array_equal(unpack_codes(pack_codes(bits), MAX_BITS), bits)


@pytest.mark.parametrize(
    ("n_bits", "error"),
    [(0, ValueError), (-1, ValueError), (65537, ValueError), (True, TypeError), (64.0, TypeError), ("64", TypeError)],
)
def test_check_n_bits_refuses(n_bits, error):
    with pytest.raises(error, match=r"n_bits must be .* got"):
        check_n_bits(n_bits)
    with pytest.raises(error, match=r"n_bits must be .* got"):
        unpack_codes(np.zeros((1, 1), np.uint64), n_bits)


def test_check_n_bits_takes_numpy_integers():
    assert type(check_n_bits(np.int64(48))) is int


BITS = np.random.default_rng(0).random((40, 64)) < 0.5


@pytest.mark.parametrize(
    ("dtypes", "one", "columns"),
    [
        (["float16", "float32", "float64", ">f4", "longdouble", object, "int8", "int64"], 1, 8),
        (["float16", "float32", "int16", ">i4", "int64"], 255, 8),
        (["float32", "float64"], 0.5, 64),
        (["float32", "int8", "int32"], 127, 64),
    ],
)
def test_bits_written_as_numbers_are_no_projections(dtypes, one, columns):
    """All would be >= 0: one code for everything."""
    bits = BITS[:, :columns]
    for dtype in dtypes:
        numbers = (bits * one).astype(dtype)
        for rows in (numbers, numbers[0], numbers.tolist()):
            with pytest.raises(ValueError, match=r"astype\(bool\)|pass booleans"):
                pack_codes(rows)
        np.testing.assert_array_equal(pack_codes(numbers, threshold="gt"), pack_codes(bits))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", ">u4"])
@pytest.mark.parametrize("threshold", ["ge", "gt"])
def test_unsigned_numbers_are_pixels_bytes_or_codes(dtype, threshold):
    for bits in (np.arange(64, dtype=dtype).reshape(2, 32), np.zeros((3, 8), dtype), np.ones(64, dtype)):
        with pytest.raises(TypeError, match="from_ubinary"):
            pack_codes(bits, threshold=threshold)


def test_numbers_without_a_negative_one_are_doubted_by_the_bits_they_would_make(rng):
    relu = np.maximum(rng.standard_normal((2 * 2**14, 40)), 0)
    with pytest.raises(ValueError, match="no negative number"):
        pack_codes(relu)
    relu[-1, -1] = -1e-9  # the last of three blocks
    assert pack_codes(relu)[-1, 0] == 2**39 - 1
    assert pack_codes(np.zeros((3, 64))).tolist() == [[2**64 - 1]] * 3  # the projections of nothing
    assert pack_codes(np.ones((2, 64))).tolist() == [[2**64 - 1]] * 2  # signs
    assert pack_codes([0.5, 3.0]).tolist() == [3]
    assert pack_codes([0.0, 1.0], threshold="gt").tolist() == [2]
    assert pack_codes(np.empty((0, 64))).shape == (0, 1)


def test_the_width_is_checked_where_it_is_given():
    square = BITS[:8, :8]
    for bits in (square, square[0], square.astype(float) - 0.5):
        with pytest.raises(ValueError, match=r"n_bits=64 columns, got shape \(8"):
            pack_codes(bits, n_bits=64)
    assert pack_codes(square.ravel(), n_bits=64).shape == (1,)
    with pytest.raises(TypeError, match="n_bits"):
        pack_codes(square, n_bits="64")
    for threshold in ("gte", None, 0.5, BITS):
        with pytest.raises(ValueError, match="threshold must be 'ge' or 'gt'"):
            pack_codes(square, threshold=threshold)


def test_codes_packed_from_fewer_bits_are_refused_where_that_is_known():
    """Each row of a square hash would be a code of its own."""
    codes = pack_codes(BITS[:8, :8])
    for view in (codes, codes[:3], codes[0], codes[::-1], pack_codes(BITS[0, :8])):
        with pytest.raises(ValueError, match="packed from 8 bits each, expected 64"):
            check_codes(view, 64)
        assert check_codes(view, 8).shape[1] == 1
    check_codes(codes.copy(), 64)  # cannot be known
    wide = pack_codes(np.hstack([BITS, BITS]))
    check_codes(wide[:, :1], 64)  # the first words of longer codes are codes
    codes = pack_codes(BITS)
    codes &= np.uint64(255)
    check_codes(codes, 8)  # fewer bits than were packed


def test_an_origin_is_forgotten_with_its_array():
    from aphash import codes as module

    before = len(module._origins)
    codes = note_origin(np.zeros((5, 2), np.uint64), 100, "abc")
    assert origin_of(codes) == origin_of(codes[2:]) == origin_of(codes[0]) == Origin(100, "abc")
    assert (
        origin_of(codes[:, :1]) is origin_of(codes.copy()) is origin_of([1, 2]) is origin_of(codes.view("i8")) is None
    )
    assert len(module._origins) == before + 1
    del codes
    assert len(module._origins) == before


@pytest.mark.parametrize("n", [1, 5, 64, 1000, 4099])
@pytest.mark.parametrize("n_bits", [49, 100])
def test_an_origin_is_forgotten_when_the_codes_are_written_over(rng, n, n_bits):
    Z = rng.standard_normal((n, n_bits))
    codes = pack_codes(Z)
    some = codes[n // 2 :]
    assert origin_of(some) == Origin(n_bits)
    codes ^= np.uint64(1)
    assert origin_of(codes) is origin_of(some) is None
    buffer = pack_codes(Z)
    buffer[:] = rng.integers(0, 1 << 63, buffer.shape, np.uint64)
    check_codes(buffer, 64 * buffer.shape[1])


def test_an_origin_is_that_of_whole_rows():
    codes = note_origin(np.arange(12, dtype=np.uint64).reshape(6, 2), 100)
    for rows in (
        codes[::-1],
        codes[1::3],
        codes[np.newaxis, 4],
        codes.reshape(2, 3, 2),
        codes.ravel()[4:8].reshape(2, 2),
    ):
        assert origin_of(rows) == Origin(100)
    for other in (codes[:2].T, codes[:, ::-1], codes.ravel()[1:-1].reshape(5, 2), codes.ravel()[::3][:4].reshape(2, 2)):
        assert origin_of(other) is None
    assert origin_of(note_origin(np.arange(2, dtype=np.uint64).reshape(1, 2), 100).T) is None


def test_lists_are_codes_by_their_value():
    for rows in ([[1], [2**64 - 1]], [[2**63], [5]], [[np.uint64(2**64 - 1)], [3]], ((0,), (7,))):
        assert check_codes(rows, 64).tolist() == [[int(row[0])] for row in rows]
    assert check_codes([2**64 - 1, 1], 128).tolist() == [[2**64 - 1, 1]]
    for rows, value in (([[1], [-1]], "-1 in row 1"), ([[2**64], [1]], f"{2**64} in row 0")):
        with pytest.raises(ValueError, match=f"from 0 to 2.64 - 1, got {value}"):
            check_codes(rows, 64)


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        (np.arange(20, dtype=np.uint64), ValueError, r"got \(20,\).*numpy.reshape\(codes, \(-1, 1\)\)"),
        (np.zeros((2, 64), np.float32), TypeError, r"hasher.transform\(X\)"),
        ([[0.5, 1.5]], TypeError, r"hasher.transform\(X\)"),
        (np.zeros((2, 8), np.uint8), TypeError, "from_bytes or from_ubinary"),
        (np.zeros((2, 8), np.int8), TypeError, "from_bytes or from_ubinary"),
        (np.zeros((2, 64), bool), TypeError, r"pack_codes\(codes\)"),
        ([[True], [False]], TypeError, r"pack_codes\(codes\)"),
        (np.zeros((2, 1), np.int64), TypeError, r"codes.astype\(np.uint64\)"),
        (np.zeros((2, 1), ">u8"), TypeError, r"codes.astype\(np.uint64\)"),
        (["0101"], TypeError, "from_bit_strings"),
        ([b"12345678", b"12345678"], TypeError, r"np.frombuffer\(b''.join\(codes\), np.uint64\)"),
        ([[1.0], [2.0]], TypeError, "float64 does not hold codes"),
        ([[-1], [1]], ValueError, "signed ones, each % 2"),
        (np.array([np.zeros(1, np.uint64), None], object)[:1], TypeError, r"np.stack\(codes\)"),
        ("0101", TypeError, "must be an array, got a str"),
        ({1, 2}, TypeError, "must be an array, got a set"),
        ((row for row in [[1], [2]]), TypeError, r"got a generator: pass np.stack\(list\(codes\)\)"),
        (None, TypeError, "must be an array, got None"),
        ([[1], None], ValueError, "row 1 is None"),
        ([None, [1]], ValueError, "row 1 is of shape"),
        ([[1], [2, 3]], ValueError, "row 1 is of shape"),
        (
            np.ma.masked_array(np.ones((3, 1), np.uint64), [[0], [1], [0]]),
            ValueError,
            "masked elements, first in row 1",
        ),
    ],
)
def test_messages_say_what_came_and_what_to_do(codes, error, message):
    with pytest.raises(error, match=message):
        check_codes(codes, 64)
