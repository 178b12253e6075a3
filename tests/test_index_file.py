"""An index on disk: what comes back, from memory and from the map, and what is refused."""

import os

import numpy as np
import pytest

from aphash import APHash, HammingIndex, pack_codes
from aphash._common import container
from aphash._searching import index_file

N_BITS = [1, 7, 63, 64, 65, 127, 128, 256]
LOADS = [{}, {"mmap": True}, {"mmap": True, "verify": True}]


def make(n_bits, n, rng, ascending=True):
    index = HammingIndex(n_bits)
    codes = pack_codes(rng.random((n, n_bits)) < 0.5) if n else np.zeros((0, -(-n_bits // 64)), np.uint64)
    index.add(codes, ids=None if ascending else 2 * (rng.permutation(3 * n)[:n] - n))
    return index


def assert_same(one, other, rng):
    assert len(one) == len(other) and one.n_bits == other.n_bits
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_array_equal(one.ids, other.ids)
    queries = pack_codes(rng.random((5, one.n_bits)) < 0.5)
    for a, b in zip(one.search(queries, 7), other.search(queries, 7), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(one.radius_search(queries, one.n_bits // 3), other.radius_search(queries, one.n_bits // 3)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_bits", N_BITS)
@pytest.mark.parametrize("how", LOADS, ids=str)
def test_what_was_saved_is_loaded(tmp_path, rng, n_bits, how):
    for n in (0, 1, 7, 8, 9, 1000):
        for ascending in (True, False):
            if ascending or n:
                index = make(n_bits, n, rng, ascending)
                index.save(tmp_path / "index")
                assert_same(HammingIndex.load(tmp_path / "index", **how), index, rng)
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.parametrize("how", LOADS, ids=str)
def test_a_loaded_index_changes_as_the_saved_one_and_its_file_does_not(tmp_path, rng, how):
    index = make(70, 100, rng, ascending=False)
    index.remove(index.ids[[3, 50, 99]])  # the last group has places that hold removed codes
    index.save(tmp_path / "index")
    before = (tmp_path / "index").read_bytes()
    codes = pack_codes(rng.random((40, 70)) < 0.5)
    calls = [
        lambda index: index.add(codes[:1]), lambda index: index.add(codes, ids=np.arange(10_000, 10_040)),
        lambda index: index.remove(index.ids[[0, 20]]), lambda index: index.update(codes[:5], index.ids[:5]),
    ]  # fmt: skip
    for order in (calls, calls[::-1], *[[call] for call in calls]):
        one, other = HammingIndex.load(tmp_path / "index"), HammingIndex.load(tmp_path / "index", **how)
        for call in order:
            for a, b in [(call(one), call(other))]:
                np.testing.assert_array_equal(a, b)
            assert_same(one, other, rng)
    assert (tmp_path / "index").read_bytes() == before


@pytest.mark.parametrize("how", LOADS, ids=str)
def test_the_table_of_ids_is_made_once_after_loading(tmp_path, rng, how):
    """Not anew after each change: each snapshot has the one that was made for the one before."""
    make(64, 3000, rng, ascending=False).save(tmp_path / "index")
    index = HammingIndex.load(tmp_path / "index", **how)
    before = index.nbytes
    index.update(index.codes[:1], index.ids[:1])
    assert index.nbytes - before > 16 * 3000  # 16 bytes an id at least
    index.build_lookup()
    index.drop_lookup()
    assert index.nbytes - before > 16 * 3000


def test_removed_codes_are_not_in_the_file(tmp_path, rng):
    index = make(64, 9, rng)
    secret = index.codes[8].tobytes()
    index.remove([8])
    index.add(pack_codes(rng.random((1, 64)) < 0.5))
    index.remove([3, 9])
    index.save(tmp_path / "index")
    assert secret not in (tmp_path / "index").read_bytes()


def test_a_map_is_saved_over_its_own_file(tmp_path, rng):
    index = make(64, 100, rng)
    index.save(tmp_path / "index")
    mapped = HammingIndex.load(tmp_path / "index", mmap=True)
    mapped.save(tmp_path / "index")
    assert_same(mapped, index, rng)
    assert_same(HammingIndex.load(tmp_path / "index"), index, rng)


def test_counted_ids_go_on_after_loading(tmp_path, rng):
    index = make(64, 10, rng)
    index.remove([9])
    index.save(tmp_path / "index")
    code = index.codes[:1]
    assert HammingIndex.load(tmp_path / "index").add(code) == index.add(code) == [10]


def test_damage_is_refused(tmp_path, rng):
    path = tmp_path / "index"
    make(70, 20, rng, ascending=False).save(path)
    whole = path.read_bytes()
    for bit in rng.choice(8 * len(whole), 200, replace=False):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        for how in ({}, {"mmap": True, "verify": True}):
            with pytest.raises(ValueError, match=str(path)):
                HammingIndex.load(path, **how)


def test_a_damaged_map_gives_other_results_but_no_crash(tmp_path, rng):
    path = tmp_path / "index"
    make(70, 500, rng, ascending=False).save(path)
    whole = path.read_bytes()
    for _ in range(20):
        data = bytearray(whole)
        data[-4000:] = rng.bytes(4000)  # ids
        data[-9000:-4000] = rng.bytes(5000)  # codes, with padding bits
        path.write_bytes(data)
        index = HammingIndex.load(path, mmap=True)
        index.search(pack_codes(rng.random((3, 70)) < 0.5), 20)
        index.radius_search(pack_codes(rng.random((3, 70)) < 0.5), 70)
        index.contains([1, 2])


GOOD = {"n_bits": 70, "next_id": 9, "ascending": True}


@pytest.mark.parametrize(
    ("arrays", "params", "message"),
    [
        ({"blocks": np.zeros(16, np.int64)}, {}, "blocks must be uint64"),
        ({"ids": np.arange(8, dtype=np.uint64)}, {}, "ids must be int64"),
        ({"ids": np.zeros((8, 1), np.int64)}, {}, "ids must be int64 with one dimension"),
        ({"blocks": np.zeros(8, np.uint64)}, {}, r"8 ids and blocks of shape \(8,\) for 70 bits"),
        ({"blocks": np.zeros((8, 2), np.uint64)}, {}, "blocks of shape"),
        ({"blocks": np.full(16, 1 << 6, np.uint64)}, {}, "padding bits"),
        ({"ids": np.arange(8)[::-1]}, {}, "ids do not ascend"),
        ({"ids": np.arange(8) - 1}, {}, "an id is -1"),
        ({}, {"n_bits": 0}, "n_bits"), ({}, {"n_bits": "64"}, "n_bits"), ({}, {"n_bits": 64}, "for 64 bits"),
        ({}, {"next_id": -1}, "next_id"), ({}, {"next_id": 1.0}, "next_id"), ({}, {"ascending": 1}, "ascending"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, arrays, params, message):
    good = {"blocks": np.zeros(16, np.uint64), "ids": np.arange(8)}

    def write(arrays, params, version=2, kind="HammingIndex"):
        container.write(tmp_path / "f", arrays, kind=kind, version=version, params=params)

    write(good, GOOD)
    assert len(HammingIndex.load(tmp_path / "f")) == 8
    write(good | arrays, GOOD | params)
    with pytest.raises(ValueError, match=f"{tmp_path / 'f'}: not a whole index: .*{message}"):
        HammingIndex.load(tmp_path / "f")
    for name in GOOD:
        write(good, {k: v for k, v in GOOD.items() if k != name})
        with pytest.raises(ValueError, match=f"{tmp_path / 'f'}: not a whole index: .*{name}"):
            HammingIndex.load(tmp_path / "f")
    write({"ids": good["ids"]}, GOOD)
    with pytest.raises(ValueError, match=r"f: not a whole index: .*blocks"):
        HammingIndex.load(tmp_path / "f", mmap=True)
    write(good, GOOD, version=index_file.VERSION + 1)
    with pytest.raises(ValueError, match="f: version 3 "):
        HammingIndex.load(tmp_path / "f")
    write(good, GOOD, kind="APHash")
    with pytest.raises(ValueError, match="f: it holds 'APHash', expected 'HammingIndex'"):
        HammingIndex.load(tmp_path / "f")


def test_neither_loads_the_other(tmp_path, rng):
    make(64, 10, rng).save(tmp_path / "index")
    with pytest.raises(ValueError, match="it holds 'HammingIndex', expected 'APHash'"):
        APHash.load(tmp_path / "index")


# -- a lookup in the file


def with_lookup(rng, n=600, share=np.inf):
    """An index of 70 bits whose lookup has codes that came, went and changed since."""
    index = make(70, n, rng, ascending=False)
    index.build_lookup(max_scan_fraction=share)
    index.remove(index.ids[[5, 100, n - 1]])
    index.add(pack_codes(rng.random((20, 70)) < 0.5))
    index.update(index.codes[7:14], index.ids[:7])
    return index


@pytest.mark.parametrize("how", LOADS, ids=str)
@pytest.mark.parametrize("share", [np.inf, 0.15, 0])
def test_a_lookup_is_saved_with_its_index(tmp_path, rng, how, share):
    index = with_lookup(rng, share=share)
    index.save(tmp_path / "index")
    loaded = HammingIndex.load(tmp_path / "index", **how)
    present, again = index._store.present, loaded._store.present
    assert again.lookup.max_scan_fraction == share
    for name, array in present.lookup.arrays().items():
        np.testing.assert_array_equal(again.lookup.arrays()[name], array)
    np.testing.assert_array_equal(again.stale_positions(), present.stale_positions())
    assert_same(loaded, index, rng)
    for each in (loaded, index):
        each.add(index.codes[:30])
        each.remove(each.ids[[0, 50]])
    assert_same(loaded, index, rng)
    loaded.drop_lookup()
    assert_same(loaded, index, rng)
    loaded.save(tmp_path / "index")
    assert HammingIndex.load(tmp_path / "index")._store.present.lookup is None


def test_a_lookup_that_does_not_fit_is_refused(tmp_path, rng):
    index = with_lookup(rng)
    arrays, params = index_file.to_file(index._store.present)
    arrays = {name: container.whole(each) for name, each in arrays.items()}

    def load(changed, params=params):
        container.write(tmp_path / "f", changed, kind="HammingIndex", version=2, params=params)
        return HammingIndex.load(tmp_path / "f")

    assert_same(load(arrays), index, rng)
    wrong = {
        "starts": [arrays["lookup.starts"] + 1, arrays["lookup.starts"][:1], np.array([0, 70], np.int32)],
        "tables": [arrays["lookup.tables"] + 1, arrays["lookup.tables"].astype(np.uint64)],
        "offsets": [arrays["lookup.offsets"][:-1], arrays["lookup.offsets"][::-1].copy()],
        "positions": [arrays["lookup.positions"][1:], arrays["lookup.positions"] + np.uint32(1)],
        "stale": [np.array([-1]), np.array([600]), np.zeros((1, 1), np.int64)],
    }
    for name, cases in wrong.items():
        for each in cases:
            with pytest.raises(ValueError, match=r"f: not a whole index: lookup"):
                load(arrays | {f"lookup.{name}": each})
        with pytest.raises(ValueError, match=f"f: not a whole index: .*{name}"):
            load({key: value for key, value in arrays.items() if key != f"lookup.{name}"})
    with pytest.raises(ValueError, match=r"f: not a whole index: .*more"):
        load(arrays | {"lookup.more": np.zeros(1)})
    for share in ("1", -1, True):
        with pytest.raises(ValueError, match=r"f: not a whole index: max_scan_fraction must be"):
            load(arrays, params | {"lookup": {"share": share}})
    for about in ({}, 3, {"share": 1, "more": 2}):
        with pytest.raises(ValueError, match=r"f: not a whole index: lookup must have its share"):
            load(arrays, params | {"lookup": about})


def test_a_damaged_map_of_a_lookup_gives_other_results_but_no_crash(tmp_path, rng):
    path = tmp_path / "index"
    index = with_lookup(rng, n=3000)
    index.save(path)
    whole = path.read_bytes()
    queries = pack_codes(rng.random((3, 70)) < 0.5)
    arrays = index._store.present.lookup.arrays()
    for name in ("offsets", "positions"):
        start, length = whole.index(arrays[name].tobytes()), arrays[name].nbytes
        for noise in (rng.bytes(length), bytes(length), b"\xff" * length):
            path.write_bytes(whole[:start] + noise + whole[start + length :])
            mapped = HammingIndex.load(path, mmap=True)
            mapped.search(queries, 20)
            mapped.radius_search(queries, 3)
            mapped.add(queries)
            mapped.search(queries, 20)
            with pytest.raises(ValueError, match="is damaged"):
                HammingIndex.load(path)
