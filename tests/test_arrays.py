"""What comes from outside: the same values as an ndarray, or a refusal that says what to do."""

import decimal
import fractions

import numpy as np
import pytest

from aphash._common.arrays import as_array, as_floats, shown
from aphash._common.checks import as_ids, check_count

VALUES = np.random.default_rng(0).standard_normal((30, 3)) + 1e8  # float32 holds nothing of the differences


class Tensor:
    """Another library's array, which numpy asks for its numbers."""

    dtype = "torch.bfloat16"
    shape = (2, 3)

    def __array__(self, *args, **kwargs):
        raise TypeError("Got unsupported ScalarType BFloat16")


class Capsule:
    """An array that has DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **kwargs):
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize(
    "given",
    [
        VALUES,
        VALUES.astype(">f8"),
        VALUES.astype(np.longdouble),
        VALUES.astype(object),
        VALUES.tolist(),
        tuple(map(tuple, VALUES.tolist())),
        list(VALUES),
        Capsule(VALUES),
        np.ma.masked_array(VALUES),
        np.vectorize(decimal.Decimal)(VALUES),
        np.vectorize(fractions.Fraction)(VALUES),
    ],
)
def test_float64_stays_float64(given):
    floats = as_floats(given, "X")
    assert floats.dtype == np.float64 and floats.dtype.isnative
    np.testing.assert_array_equal(floats, VALUES)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f2", ">f4", ">f8"])
def test_floats_keep_their_width(dtype):
    given = np.arange(6).reshape(2, 3).astype(dtype)
    floats = as_floats(given, "X")
    assert floats.dtype.itemsize == given.dtype.itemsize and floats.dtype.isnative
    assert (floats is given) == given.dtype.isnative


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.array([[0, 255]], np.uint8), "f4"),
        (np.array([[True, False]]), "f4"),
        (np.array([[-(2**15), 9]], ">i2"), "f4"),
        (np.array([[2**24, -(2**24)]]), "f4"),
        (np.array([[2**24 + 1, 0]]), "f8"),
        (np.array([[0, -(2**24) - 1]], "i4"), "f8"),
        (np.array([[2**53, -(2**53)]]), "f8"),
        (np.array([[2**60, 2**63]], np.uint64), "f8"),
        ([[1, 2]], "f4"),
        ([[2**24 + 1, 2]], "f8"),
        (np.array([[1, 2**63]], object), "f8"),
        (np.empty((0, 3), int), "f4"),
        (np.array([[True, 0.5]], object), "f8"),
    ],
)
def test_whole_numbers_are_exact(given, dtype):
    floats = as_floats(given, "X")
    assert floats.dtype == dtype
    assert floats.tolist() == np.asarray(given).tolist()


@pytest.mark.parametrize("dtype", ["i8", "u8", ">i8", object])
def test_whole_numbers_that_float64_rounds_are_refused(dtype):
    given = np.full((2000, 1000), 2**60).astype(dtype)
    assert as_floats(given[:2, :2], "X")[0, 0] == 2.0**60
    given[1500, 7] += 1
    with pytest.raises(ValueError, match=f"first {2**60 + 1} in row 1500: subtract an offset"):
        as_floats(given, "X")
    for value in (2**63 - 1, -(2**63) + 1):
        with pytest.raises(ValueError, match="in row 0"):
            as_floats(np.array([[value]]), "X")


def objects(*rows):
    return np.array(rows, object)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.ma.masked_equal(np.array([[1.0, 2], [3, 4]]), 3), ValueError, "masked elements, first in row 1"),
        ([np.ma.masked_array([1.0, 2]), np.ma.masked_array([1.0, 2], [1, 0])], ValueError, "masked elements"),
        (np.array([["1.5", "2"]]), TypeError, "text of dtype"),
        (np.array([[b"1"]]), TypeError, "text of dtype"),
        ([["1.5", "2"]], TypeError, "text of dtype"),
        (objects([1.0, 2.0], [3.0, "4.5"]), TypeError, "the text '4.5' in row 1, column 1"),
        (objects([1.0, 2.0], [None, 4.0]), ValueError, "no value .None. in row 1, column 0"),
        ([[1.0, 2.0], [3.0, None]], ValueError, "no value .None. in row 1, column 1"),
        ([[1.0, 2.0], None], ValueError, "row 1 is None"),
        ([[1.0, 2.0], [3.0]], ValueError, "row 1 is of shape .1,"),
        (objects([{}, 1]), TypeError, "got dict in row 0, column 0: float"),
        (
            np.array([np.ones(3), np.ones(3), None], object)[:2],
            TypeError,
            "column of ndarray objects: pass np.stack of X",
        ),
        (np.array(["2020-01-01"], "M8[D]"), TypeError, "got dtype datetime64"),
        (np.array([3], "m8[s]"), TypeError, "timedelta"),
        (np.ones((2, 2)) + 1j, ValueError, "Complex"),
        (np.zeros(3, "f4,f4"), TypeError, "must be numbers"),
        ({1.0, 2.0}, TypeError, "got a set"),
        ({"a": [1]}, TypeError, "got a dict"),
        (iter([[1.0]]), TypeError, "np.stack.list"),
        ((x for x in [1]), TypeError, "got a generator"),
        (map(float, "12"), TypeError, "got a map"),
        (None, TypeError, "got None"),
        ("12", TypeError, "got a str"),
        (object(), TypeError, "got object"),
        ({1: 2}.values(), TypeError, "got dict_values"),
        (Tensor(), TypeError, r"bfloat16, which numpy lacks: pass X.float\(\)"),
        ([Tensor(), Tensor()], TypeError, r"pass X.float\(\)"),
        (objects([10**400]), ValueError, "too large"),
    ],
)
def test_refusals(given, error, message):
    with pytest.raises(error, match=message) as raised:
        as_floats(given, "X")
    assert str(raised.value).startswith("X") and len(str(raised.value)) < 250


def test_an_ndarray_is_not_copied():
    array = np.arange(6.0)
    assert as_array(array, "X") is array
    assert np.shares_memory(as_array(array.view(np.recarray), "X"), array)
    assert np.shares_memory(as_array(Capsule(array), "X"), array)


def test_values_are_shown_briefly():
    assert shown(np.zeros(384)) == "an array of shape (384,)"
    assert shown(3) == "3" and shown("ab") == "'ab'" and shown(np.float64(2)) == "np.float64(2.0)"
    for value in (list(range(1000)), "x" * 1000, 10**500, {i: i for i in range(100)}, (0.1,) * 384):
        assert len(shown(value)) < 100


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([3, None], TypeError, "got None at place 1"),
        ([2**100, 5], ValueError, "fit in int64, got 1267650600228229401496703205376 at place 0"),
        (np.array([1, 2.5], object), TypeError, "got 2.5 at place 1"),
        (np.array([True, 1], object), TypeError, "got True at place 0"),
        ([0.5], TypeError, "got dtype float64"),
        ({1, 2}, TypeError, "ids must be an array, got a set"),
        (None, TypeError, "ids must be an array, got None"),
        (np.ma.masked_equal([1, 2], 2), ValueError, "ids has masked elements, first in row 1"),
        (["1"], TypeError, "got dtype <U1"),
    ],
)
def test_ids_that_are_refused(ids, error, message):
    with pytest.raises(error, match=message):
        as_ids(ids)


def test_ids_of_any_integers():
    for ids in ([1, 2], (1, 2), range(1, 3), np.array([1, 2], object), np.array([1, 2], ">u4"), [np.int8(1), 2]):
        assert as_ids(ids).tolist() == [1, 2] and as_ids(ids).dtype == np.int64
    assert as_ids([]).shape == (0,) and as_ids(7).tolist() == [7]


@pytest.mark.parametrize("value", [2**48 + 1, 2**62, 2**70, np.int64(2**62)])
def test_counts_that_no_memory_holds_are_refused(value):
    with pytest.raises(ValueError, match="k must be at most 2"):
        check_count(value, "k", 1)
    with pytest.raises(TypeError, match=r"k must be an integer, got an array of shape \(384,\)"):
        check_count(np.zeros(384), "k", 1)
