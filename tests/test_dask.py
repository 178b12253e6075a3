"""aphash.dask against one machine, bit for bit: any chunks, any scheduler, workers that die."""

import contextlib
import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest

pytest.importorskip("distributed", reason="dask is not installed: pip install 'aphash[dask]'")

import dask
import dask.array as da
from distributed import Client, LocalCluster
from sklearn.exceptions import NotFittedError

import aphash
import aphash.dask
from aphash import Filter
from aphash._distributed.training_data import DaskRows
from aphash.rescore import VectorRescore

FITTED = ("coef_", "intercept_", "mean_", "anchors_", "anchor_indices_", "anchor_codes_", "thresholds_", "objective_")
N, D = 5000, 24
ALTERNATING = aphash.Recipe(updates="alternating")
SETTINGS = {"n_bits": 16, "n_anchors": 40, "n_rounds": 2, "max_iter": 5, "random_state": 3}
CHUNKS = {"even": (1000,) * 5, "uneven": (1, 2500, 7, 1024, 1468), "empty": (0, 3000, 0, 2000, 0)}


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)


@pytest.fixture(autouse=True)
def threads():
    with dask.config.set(num_workers=2):
        yield


@pytest.fixture(scope="module", params=[1, 2])
def client(request):
    """A cluster of worker processes that serves the tests of this module."""
    with started(request.param) as client:
        yield client


class started:
    def __init__(self, n_workers):
        self.n_workers = n_workers

    def __enter__(self):
        # A killed worker whose successor is slow to come would be given up, and everything wait for it.
        patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "300s"})
        with warnings.catch_warnings(), patient:
            warnings.simplefilter("ignore")  # a port that is in use, a disk that is nearly full: not ours
            self.cluster = LocalCluster(
                n_workers=self.n_workers, threads_per_worker=1, processes=True, dashboard_address=None,
                memory_limit=0, silence_logs=60,
            )  # fmt: skip
        self.client = Client(self.cluster, set_as_default=False)
        return self.client

    def __exit__(self, *error):
        self.client.close()
        self.cluster.close()


def chunked(X, rows):
    return da.from_array(X, chunks=(rows, *X.shape[1:]))


def assert_same(one, other):
    for name in FITTED:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    np.testing.assert_array_equal(one.codes_, other.codes_.compute())
    assert_same_recall(one.expected_recall_, other.expected_recall_)


def assert_same_recall(one, other):
    assert list(one) == list(other) and (one.n, one.n_queries) == (other.n, other.n_queries)
    for k in one:
        np.testing.assert_array_equal(one[k], other[k])


@pytest.mark.parametrize("rows", CHUNKS.values(), ids=CHUNKS)
def test_bits_do_not_depend_on_chunks(X, rows):
    one = aphash.APHash(**SETTINGS).fit(X)
    other = aphash.dask.APHash(**SETTINGS).fit(chunked(X, rows))
    assert_same(one, other)
    np.testing.assert_array_equal(one.transform(X), other.transform(da.from_array(X, chunks=(900, 10))).compute())
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(chunked(X, rows)).compute())


@pytest.mark.parametrize(
    "settings",
    [{"mode": "neighbors"}, {"mode": "paper"}, {"n_train": 3000}, {"mode": ALTERNATING}],
    ids=str,
)
def test_bits_in_other_settings(X, settings):
    settings = SETTINGS | settings
    assert_same(
        aphash.APHash(**settings).fit(X), aphash.dask.APHash(**settings).fit(chunked(X, CHUNKS["uneven"]))
    )  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"n_train": 1500, "n_jobs": 2}, {"mode": "semantic-scores"}], ids=str)
def test_bits_of_scores(X, settings):
    settings = {"n_bits": 24, "mode": "scores", "random_state": 0, "n_anchors": 1200, "max_iter": 10} | settings
    one = aphash.APHash(**settings).fit(X)
    other = aphash.dask.APHash(**settings).fit(chunked(X, CHUNKS["uneven"]))
    for name in ("coef_", "intercept_", "anchor_indices_", "anchor_codes_", "objective_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.fingerprint_ == other.fingerprint_ and not hasattr(other, "anchors_")
    np.testing.assert_array_equal(one.codes_, other.codes_.compute())
    np.testing.assert_array_equal(one.transform(X), other.transform(chunked(X, 700)).compute())
    assert one.items_.numbers == other.items_.numbers
    weights = other.query_projections(chunked(X, 700)).compute()
    np.testing.assert_array_equal(one.query_projections(X), weights)
    np.testing.assert_array_equal(one.codes_, other.to_local().codes_)
    assert one.expected_recall_.n_queries == (300 if "n_train" in settings else 0)
    assert_same_recall(one.expected_recall_, other.expected_recall_)


def test_recall_among_a_part_of_the_rows(X, monkeypatch):
    monkeypatch.setattr("aphash._learning.estimator._MEASURED_ROWS", 2000)
    for mode in ("scores", "neighbors"):
        settings = {"n_bits": 16, "mode": mode, "random_state": 0, "n_anchors": 100, "max_iter": 3, "n_train": 4950}
        one = aphash.APHash(**settings).fit(X)
        other = aphash.dask.APHash(**settings).fit(chunked(X, CHUNKS["uneven"]))
        assert one.expected_recall_.n == 2000 and len(one.codes_) == 5000
        assert_same_recall(one.expected_recall_, other.expected_recall_)


@pytest.mark.parametrize("spoil", ["far rows", "few directions"])
@pytest.mark.filterwarnings("ignore:X has .* independent directions", "ignore:.* distinct codes")
def test_bits_where_the_data_are_hard(X, spoil):
    X = X.copy()
    if spoil == "far rows":
        X[7::900] *= 1e4
    else:
        X[:, 2:] = 0
    one = aphash.APHash(**SETTINGS).fit(X)
    other = aphash.dask.APHash(**SETTINGS).fit(chunked(X, CHUNKS["uneven"]))
    assert_same(one, other)
    if spoil == "few directions":  # bits were replaced, so what was learned for the rows is gone
        np.testing.assert_array_equal(one.codes_, one.transform(X))


@pytest.mark.parametrize(("n_threads", "n_parts"), [(1, 2), (2, 5), (4, 9)])
def test_bits_of_parts_of_many_blocks(n_threads, n_parts, monkeypatch):
    """Nine blocks: a part's sum is a node of the tree, and the last part is not whole."""
    monkeypatch.setattr("aphash._distributed.training_data._PARTS_A_THREAD", 2)
    X = np.random.default_rng(5).standard_normal((9000, 8)).astype(np.float32)
    settings = SETTINGS | {"n_bits": 8}
    with dask.config.set(num_workers=n_threads):
        assert len(DaskRows(chunked(X, 2000), 8).parts) == n_parts
        for init in ("itq", "random"):
            settings["mode"] = aphash.Recipe(init=init)
            assert_same(aphash.APHash(**settings).fit(X), aphash.dask.APHash(**settings).fit(chunked(X, 2000)))


def test_bits_of_sorted_rows_and_of_duplicates(X):
    """One block holds most neighbours of an anchor: its first share does not reach the k-th."""
    sorted_rows = X[np.argsort(X[:, 0])]
    twice = np.repeat(X[:1250], 4, axis=0)
    far = np.concatenate([X[:2500], X[:2500] + 50])
    for rows in (sorted_rows, twice, far):
        settings = SETTINGS | {"n_neighbors": 200}
        assert_same(aphash.APHash(**settings).fit(rows), aphash.dask.APHash(**settings).fit(chunked(rows, 700)))


def test_bits_on_worker_processes(X, client):
    settings = SETTINGS | {"n_train": 4000}
    with client.as_current():
        other = aphash.dask.APHash(**settings).fit(chunked(X, CHUNKS["uneven"]))
        assert_same(aphash.APHash(**settings).fit(X), other)
        assert client.who_has()  # it was the cluster that worked
        index = aphash.dask.HammingIndex(16)
        index.add(other.codes_)
        single = aphash.HammingIndex(16)
        single.add(other.codes_.compute())
        for got, expected in zip(index.search(single.codes[:20], 30), single.search(single.codes[:20], 30)):
            np.testing.assert_array_equal(got, expected)


def test_unknown_chunk_sizes(X):
    array = unknown(X, 1300)
    other = aphash.dask.APHash(**SETTINGS).fit(array)
    assert np.isnan(array.shape[0])  # what was given is as it was
    assert_same(aphash.APHash(**SETTINGS).fit(X), other)


def unknown(X, rows):
    array = chunked(X, rows)
    array = array[da.from_array(np.ones(len(X), bool), chunks=(array.chunks[0],))]
    assert np.isnan(array.shape[0])
    return array


def test_transform_of_unknown_and_empty_chunks(X):
    fitted = aphash.dask.APHash(**SETTINGS).fit(chunked(X, 1000))
    for array in (unknown(X, 1300), chunked(X, CHUNKS["empty"]), unknown(X, CHUNKS["empty"])):
        lazy = fitted.transform(array)
        assert lazy.chunks[0] == array.chunks[0] or np.isnan(lazy.shape[0])
        np.testing.assert_array_equal(lazy.compute(), fitted.transform(chunked(X, 900)).compute())
    bad = X.copy()
    bad[4000, 3] = np.inf
    with pytest.raises(ValueError, match=r"infinity.*first in row 100 of chunk 3"):
        fitted.transform(unknown(bad, 1300)).compute()


def test_integers_and_float64(X):
    for typed in ((X * 20).astype(np.int16), X.astype(np.float64)):
        assert_same(aphash.APHash(**SETTINGS).fit(typed), aphash.dask.APHash(**SETTINGS).fit(chunked(typed, 2000)))


@pytest.mark.parametrize("dtype", [">f8", "longdouble", "int64", "uint64", ">i4"])
def test_numbers_that_float32_cannot_hold_are_read_as_float64(X, dtype):
    whole = np.round(X[:2000] * 100 + 2**28).astype(dtype)
    one = aphash.APHash(8, n_rounds=1, random_state=0).fit(np.asarray(whole, np.float64))
    other = aphash.dask.APHash(8, n_rounds=1, random_state=0).fit(chunked(whole, 300))
    np.testing.assert_array_equal(one.thresholds_, other.thresholds_)
    np.testing.assert_array_equal(one.codes_, other.codes_.compute())
    assert one.fingerprint_ == other.fingerprint_
    np.testing.assert_array_equal(one.transform(whole), other.transform(chunked(whole, 300)).compute())


def test_what_is_no_number_is_refused_in_any_chunk(X):
    masked = np.ma.masked_array(X[:2000], X[:2000] == X[777, 0])
    hasher = aphash.dask.APHash(8, n_rounds=1, random_state=0).fit(chunked(X[:2000], 300))
    for array in (
        da.from_array(masked, chunks=(300, -1), asarray=False),
        chunked(X[:2000], 300).map_blocks(
            lambda x: np.ma.masked_array(x, x == X[777, 0]), meta=np.empty((0, 0), X.dtype)
        ),
    ):
        with pytest.raises(ValueError, match="X has masked elements"):
            aphash.dask.APHash(8, n_rounds=1, random_state=0).fit(array)
        with pytest.raises(ValueError, match="X has masked elements"):
            hasher.transform(array).compute()
    far = X[:2000].astype(float)
    far[777, 2] = 1e200
    with pytest.raises(ValueError, match=r"too far .* row 177 of the chunk that begins at row 600"):
        hasher.transform(chunked(far, 300)).compute()
    large = np.full((2000, 3), 2**60)
    large[777, 1] += 1
    with pytest.raises(ValueError, match="float64 does not hold"):
        aphash.dask.APHash(3, n_rounds=1, random_state=0).fit(chunked(large, 300))

    class Frame:
        to_dask_array = None

    for wrong, error, words in (
        (Frame(), TypeError, r"got Frame: pass X.to_dask_array\(lengths=True\)"), (X, TypeError, "aphash.APHash takes"),
        (chunked(X.astype(str), 300), TypeError, "real numbers"), (chunked(X + 1j, 300), TypeError, "real numbers"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            hasher.fit(wrong)


@pytest.mark.parametrize("n_train", ["auto", 1500])
def test_a_model_is_saved(X, tmp_path, n_train):
    hasher = aphash.dask.APHash(16, n_rounds=1, n_train=n_train, random_state=0).fit(chunked(X, 300))
    hasher.save(tmp_path / "model")
    assert isinstance(hasher.codes_, da.Array)
    for kind in (aphash.APHash, aphash.dask.APHash):
        again = kind.load(tmp_path / "model")
        np.testing.assert_array_equal(again.codes_, hasher.codes_.compute())
        assert again.fingerprint_ == hasher.fingerprint_ and type(again) is kind
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()
    np.testing.assert_array_equal(
        again.transform(chunked(X, 300)).compute(), hasher.transform(chunked(X, 300)).compute()
    )
    index = aphash.HammingIndex(16)
    index.add(hasher.codes_.compute())
    aphash.save(tmp_path / "both", hasher, index)
    assert len(aphash.load(tmp_path / "both")[1]) == len(X)
    with pytest.raises(NotFittedError):
        aphash.dask.APHash().save(tmp_path / "model")


def test_a_model_comes_to_one_machine(X):
    hasher = aphash.dask.APHash(16, n_rounds=1, n_train=1500, random_state=0).fit(chunked(X, 300))
    local = hasher.to_local()
    assert type(local) is aphash.APHash and local.get_params() == hasher.get_params()
    assert type(local.codes_) is np.ndarray
    np.testing.assert_array_equal(local.codes_, hasher.codes_.compute())
    np.testing.assert_array_equal(local.transform(X), hasher.transform(chunked(X, 300)).compute())
    np.testing.assert_array_equal(
        local.query_projections(X[:9]), hasher.query_projections(chunked(X, 300)).compute()[:9]
    )
    same = aphash.APHash(16, n_rounds=1, n_train=1500, random_state=0).fit(X)
    assert {name for name in vars(same) if name.endswith("_")} == {name for name in vars(local) if name.endswith("_")}
    np.testing.assert_array_equal(local.codes_, same.codes_)
    with pytest.raises(NotFittedError):
        aphash.dask.APHash().to_local()


def test_codes_are_gathered_some_chunks_at_a_time(X, tmp_path, monkeypatch):
    hasher = aphash.dask.APHash(16, n_rounds=1, random_state=0).fit(chunked(X, 300))
    hasher.codes_ = hasher.codes_.rechunk({0: 100})
    at_a_time, compute = [], dask.compute
    monkeypatch.setattr("aphash._distributed.training_data._BATCH_BYTES", 9 * 100 * 8)
    monkeypatch.setattr(dask, "compute", lambda *tasks: at_a_time.append(len(tasks)) or compute(*tasks))
    hasher.save(tmp_path / "model")
    assert max(at_a_time) == 9 and sum(at_a_time) == len(X) // 100
    monkeypatch.undo()
    np.testing.assert_array_equal(aphash.APHash.load(tmp_path / "model").codes_, hasher.codes_.compute())


@pytest.mark.parametrize("n_train", [3000, "auto"])
def test_nan_names_the_chunk(X, n_train):
    bad = X.copy()
    bad[3333, 5] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity.*chunk that begins at row (3000|3072)"):
        aphash.dask.APHash(**SETTINGS | {"n_train": n_train}).fit(chunked(bad, 1000))
    fitted = aphash.dask.APHash(**SETTINGS).fit(chunked(X, 1000))
    with pytest.raises(ValueError, match="chunk that begins at row 3000"):
        fitted.transform(chunked(bad, 1000)).compute()


def test_bad_input_says_what_was_expected(X):
    hasher = aphash.dask.APHash(**SETTINGS)
    with pytest.raises(TypeError, match="X must be a dask array, got ndarray"):
        hasher.fit(X)
    with pytest.raises(TypeError, match="real numbers, got dtype complex"):
        hasher.fit(chunked(X.astype(complex), 1000))
    with pytest.raises(ValueError, match=r"shape \(n, d\), got 1"):
        hasher.fit(da.from_array(X[:, 0]))
    with pytest.raises(ValueError, match="a minimum of 2"):
        hasher.fit(chunked(X[:1], 1))
    with pytest.raises(ValueError, match="0 feature"):
        hasher.fit(chunked(X[:, :0], 1000))
    hasher.fit(chunked(X, 1000))
    with pytest.raises(ValueError, match="X has 3 features"):
        hasher.transform(chunked(X[:, :3], 1000))


# -- the index --------------------------------------------------------------------------------------------------------

N_BITS = 70


@pytest.fixture(scope="module")
def codes():
    rng = np.random.default_rng(1)
    few = rng.integers(0, 2, (40, N_BITS)).astype(bool)  # many ties
    return aphash.pack_codes(few[rng.integers(0, 40, 3000)] ^ (rng.random((3000, N_BITS)) < 0.03))


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(2).permutation(10_000)[:3000] * 7 - 5000


def both(codes, ids=None, rows=211):
    one, other = aphash.HammingIndex(N_BITS), aphash.dask.HammingIndex(N_BITS)
    one.add(codes, ids)
    other.add(chunked(codes, rows), ids)
    return one, other


def assert_answers(one, other, queries, **arguments):
    for k in (1, 10, 3100):
        for got, expected in zip(other.search(queries, k, **arguments), one.search(queries, k, **arguments)):
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype
    if "rescore" not in arguments:
        for radius in (0, 9, N_BITS):
            got = other.radius_search(queries, radius, **arguments)
            for left, right in zip(got, one.radius_search(queries, radius, **arguments)):
                np.testing.assert_array_equal(left, right)
                assert left.dtype == right.dtype


@pytest.mark.parametrize("rows", [211, 3000, (0, 1, 2990, 0, 9)], ids=str)
def test_index_answers_as_one_machine(codes, ids, rows):
    for given in (None, ids):
        one, other = both(codes, given, rows)
        assert len(other) == 3000 and other.n_bits == N_BITS
        assert_answers(one, other, codes[:5])
        assert_answers(one, other, codes[7])
        np.testing.assert_array_equal(other.ids.compute(), one.ids)
        np.testing.assert_array_equal(other.codes.compute(), one.codes)
        wanted = one.ids[[5, 2999, 0, 5]]
        np.testing.assert_array_equal(other.get(wanted), one.get(wanted))
        np.testing.assert_array_equal(other.get(int(wanted[1])), one.get(int(wanted[1])))
        some = np.r_[wanted, 123456, wanted + 1, -(2**63)]
        np.testing.assert_array_equal(other.contains(some), one.contains(some))
        np.testing.assert_array_equal(other.contains(123456), one.contains(123456))
        with pytest.raises(KeyError, match="not in the index: 123456"):
            other.get([wanted[0], 123456])


def test_an_index_comes_to_one_machine(codes, ids, tmp_path):
    for given in (None, ids):
        one, other = both(codes, given, (0, 1, 2990, 0, 9))
        for each in (one, other):
            each.add(codes[:7] if each is one else chunked(codes[:7], 3))
        other.save(tmp_path / str(given is None))
        for source in (other, aphash.dask.HammingIndex.load(tmp_path / str(given is None))):
            local = source.to_local()
            assert type(local) is aphash.HammingIndex
            np.testing.assert_array_equal(local.ids, one.ids)
            np.testing.assert_array_equal(local.codes, one.codes)
            np.testing.assert_array_equal(local.add(codes[:1]), one.ids.max() + 1)
    assert len(aphash.dask.HammingIndex(N_BITS).to_local()) == 0
    with pytest.raises(IsADirectoryError, match=r"aphash\.dask\.HammingIndex\.load\(folder\).*to_local\(\).*True"):
        aphash.HammingIndex.load(tmp_path / "True")
    with pytest.raises(IsADirectoryError, match=r"Is a directory: "):
        aphash.HammingIndex.load(tmp_path)


def test_what_stays_makes_another_index(codes, ids):
    """As the docstring says: there is no remove."""
    one, other = both(codes, ids)
    one.remove(ids[100:900])
    keep = ~da.isin(other.ids, ids[100:900])
    fewer = aphash.dask.HammingIndex(N_BITS)
    fewer.add(other.codes[keep], other.ids[keep])
    assert_answers(one, fewer, codes[:3])


def test_index_filters(codes, ids):
    one, other = both(codes, ids)
    mask = np.random.default_rng(3).random(3000) < 0.1
    bitmap = np.zeros(47 * 8, np.uint8)
    bitmap[:375] = np.packbits(mask, bitorder="little")
    some = [ids[mask], mask, ids[mask].astype(object), np.zeros(0, np.int64), [ids[3], ids[3], 99_999]]
    some += [Filter.from_ids(ids[mask]), Filter.excluding(ids[mask])]
    for filter in some:
        assert_answers(one, other, codes[:3], filter=filter)
    positions = Filter.from_mask(mask), Filter.from_bitmap(bitmap.view(np.uint64))
    for filter in positions:  # of the index of its first use
        for got, expected in zip(other.search(codes[:3], 400, filter=filter), one.search(codes[:3], 400, filter=mask)):
            np.testing.assert_array_equal(got, expected)
    third = both(codes, ids)[1]
    for index in (one, third):
        for filter in positions:
            with pytest.raises(ValueError, match="filter goes by position"):
                index.search(codes[:3], 1, filter=filter)
    with pytest.raises(ValueError, match="filter must have 3000 booleans for 3000 codes, got 2999"):
        other.search(codes[:1], 1, filter=mask[:-1])
    with pytest.raises(ValueError, match="filter must have 47 words"):
        other.search(codes[:1], 1, filter=Filter.from_bitmap(np.zeros(46, np.uint64)))
    other.add(chunked(codes[:70], 20))  # codes that were added since do not take part
    for filter in positions:
        for got, expected in zip(other.search(codes[:3], 400, filter=filter), one.search(codes[:3], 400, filter=mask)):
            np.testing.assert_array_equal(got, expected)


def test_index_rescores(codes, ids):
    one, other = both(codes, ids)
    rng = np.random.default_rng(4)
    vectors, queries = rng.standard_normal((3000, 8)), rng.standard_normal((5, 8))
    projections = rng.standard_normal((5, N_BITS))
    rescore = VectorRescore(vectors, ids, factor=3)
    for by in (codes[:5], projections):
        assert_answers(one, other, by, rescore=rescore, rescore_queries=queries)
    for dtype in (np.float32, np.int16):
        few = (vectors * 20).astype(dtype)
        expected = one.search(codes[:5], 3, rescore=VectorRescore(few, ids), rescore_queries=queries)
        lazy = VectorRescore(chunked(few, 170), ids)
        for index in (one, other):
            for got, want in zip(index.search(codes[:5], 3, rescore=lazy, rescore_queries=queries), expected):
                np.testing.assert_array_equal(got, want)


def test_rescoring_reads_the_candidates_chunks_only(codes):
    _, other = both(codes)
    read = []

    def reader(block, block_info=None):
        read.append(block_info[0]["chunk-location"][0])
        return block

    vectors = chunked(np.random.default_rng(4).standard_normal((3000, 8)), 100).map_blocks(
        reader, meta=np.empty((0, 8))
    )
    _, found = other.search(codes[:1], 2, rescore=VectorRescore(vectors, factor=3), rescore_queries=np.zeros((1, 8)))
    assert found.shape == (1, 2)
    assert set(read) == set(other.search(codes[:1], 6)[1][0] // 100)


def test_rescore_must_be_one_of_ours(codes):
    _, other = both(codes)
    with pytest.raises(TypeError, match="rescore must be"):
        other.search(codes[:1], 1, rescore=3)
    with pytest.raises(TypeError, match="needs rescore_queries"):
        other.search(codes[:1], 1, rescore=VectorRescore(np.ones((3000, 8))))
    for given, rows in ((None, 2999), (np.arange(1, 3001), 3000)):
        _, other = both(codes, given)
        with pytest.raises(ValueError, match=f"X has {rows} rows, the index 3000 codes"):
            other.search(codes[:1], 1, rescore=VectorRescore(np.ones((rows, 8))), rescore_queries=np.ones(8))


def test_index_many_batches(codes, monkeypatch):
    monkeypatch.setattr("aphash._distributed.index._BATCH", 25)
    monkeypatch.setattr("aphash._distributed.index._RADIUS_QUERIES", 2)
    one, other = both(codes, rows=500)
    assert_answers(one, other, codes[:7])
    weights = np.random.default_rng(5).standard_normal((7, N_BITS))
    assert_answers(one, other, weights)
    rescore = VectorRescore(np.random.default_rng(6).standard_normal((3000, 4)), factor=3)
    assert_answers(one, other, weights, rescore=rescore, rescore_queries=np.ones((7, 4)))


def test_index_of_unknown_chunks(codes, ids):
    one = aphash.HammingIndex(N_BITS)
    one.add(codes, ids)
    for rows in (700, (0, 1, 2990, 0, 9)):
        other = aphash.dask.HammingIndex(N_BITS)
        other.add(unknown(codes, rows), unknown(ids, rows))
        assert_answers(one, other, codes[:3])
    with pytest.raises(ValueError, match=r"ids must have shape \(3000,\), got \(2999,\)"):
        other.add(unknown(codes, 700), unknown(ids[:-1], 700))
    with pytest.raises(TypeError, match="ids must be integers, got dtype float64"):
        other.add(unknown(codes, 700), da.from_array(ids * 1.0, chunks=300))
    assert len(other) == 3000


def test_an_empty_index(codes):
    one, other = aphash.HammingIndex(N_BITS), aphash.dask.HammingIndex(N_BITS)
    assert_answers(one, other, codes[:2])
    queries = codes[:1030]  # more than are searched at a time, of both searches
    rescore = {"rescore": VectorRescore(np.ones((1, 3)), [5]), "rescore_queries": np.ones((len(queries), 3))}
    for arguments in ({}, rescore):
        for got, expected in zip(other.search(queries, 400, **arguments), one.search(queries, 400, **arguments)):
            np.testing.assert_array_equal(got, expected)
    for got, expected in zip(other.radius_search(queries, 9), one.radius_search(queries, 9)):
        np.testing.assert_array_equal(got, expected)


def test_ids_are_counted_on_and_never_twice(codes, ids, monkeypatch):
    monkeypatch.setattr("aphash._distributed.index._BUCKET_IDS", 1000)
    one, other = both(codes[:1000], ids[:1000])
    one.add(codes[1000:2000])
    other.add(chunked(codes[1000:2000], 300))
    more = ids[2000:]
    one.add(codes[2000:], more)
    other.add(chunked(codes[2000:], 300), da.from_array(more, chunks=170))
    assert_answers(one, other, codes[:3])
    for again in (np.r_[10**6 : 10**6 + 999, ids[3]], np.r_[10**6 : 10**6 + 999, 10**6]):
        with pytest.raises(ValueError, match="got twice"):
            other.add(chunked(codes[:1000], 300), da.from_array(again, chunks=100))
    assert len(other) == 3000
    assert_answers(one, other, codes[:3])


def test_bad_codes_leave_the_index_as_it_was(codes):
    _, other = both(codes)
    bad = codes.copy()
    bad[450, 1] |= np.uint64(1) << np.uint64(63)
    with pytest.raises(ValueError, match="chunk that begins at row 422"):
        other.add(chunked(bad, 211))
    with pytest.raises(TypeError, match="codes must be a dask array, got ndarray"):
        other.add(codes)
    with pytest.raises(TypeError, match="uint64, got float64"):
        other.add(chunked(codes.astype(float), 211))
    with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
        other.add(chunked(codes[:, :1], 211))
    with pytest.raises(ValueError, match=r"ids must have shape \(3000,\)"):
        other.add(chunked(codes, 211), np.arange(3))
    with pytest.raises(ValueError, match="-1"):
        other.add(chunked(codes, 211), da.arange(-1, 2999, chunks=500))
    assert len(other) == 3000


def test_saved_and_mapped(codes, ids, tmp_path):
    one, other = both(codes, ids)
    other.save(tmp_path / "index")
    loaded = aphash.dask.HammingIndex.load(tmp_path / "index")
    assert_answers(one, loaded, codes[:3])
    shard = aphash.HammingIndex.load(tmp_path / "index" / "shard-000003.aphash")  # is an index by itself
    np.testing.assert_array_equal(shard.codes, codes[633:844])
    np.testing.assert_array_equal(shard.ids, ids[633:844])
    one.add(codes[:9])
    loaded.add(chunked(codes[:9], 4))
    assert_answers(one, loaded, codes[:3])
    with pytest.raises(FileExistsError, match="holds an index already"):
        loaded.save(tmp_path / "index")
    (shard := tmp_path / "index" / "shard-000003.aphash").write_bytes(
        (tmp_path / "index" / "shard-000004.aphash").read_bytes()
    )
    with pytest.raises(ValueError, match=r"shard-000003\.aphash: not the shard"):
        aphash.dask.HammingIndex.load(tmp_path / "index")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"shard-000003\.aphash"):
        aphash.dask.HammingIndex.load(tmp_path / "index")
    with pytest.raises(FileNotFoundError, match="manifest"):
        aphash.dask.HammingIndex.load(tmp_path)


# -- workers that die -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def a_worker_killed(client, after):
    """SIGKILL a worker so many seconds after the start; what is inside must take longer, or wait for the thread."""

    def kill():
        time.sleep(after)
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    yield killer
    assert not killer.is_alive()


def test_all_workers_killed_in_fit(X):
    """For a moment there is none: nothing may wait for a worker that is gone."""
    with started(1) as client, client.as_current():
        client.wait_for_workers(1)
        with a_worker_killed(client, 0.5):
            other = aphash.dask.APHash(**SETTINGS | {"max_iter": 10}).fit(chunked(X, 700))
        assert_same(aphash.APHash(**SETTINGS | {"max_iter": 10}).fit(X), other)


def test_a_worker_killed_in_fit_and_in_search(X, codes):
    one = aphash.APHash(**SETTINGS | {"max_iter": 10}).fit(X)
    single = aphash.HammingIndex(N_BITS)
    single.add(codes)
    with started(2) as client, client.as_current():
        client.wait_for_workers(2)
        with a_worker_killed(client, 0.7):
            other = aphash.dask.APHash(**SETTINGS | {"max_iter": 10}).fit(chunked(X, 700))
        assert_same(one, other)
        index = aphash.dask.HammingIndex(N_BITS)
        index.add(chunked(codes, 100))
        with a_worker_killed(client, 0) as killer:
            answers = [index.search(codes[:50], 20) for _ in range(3)]
            killer.join()
        answers.append(index.search(codes[:50], 20))
        for answer in answers:
            for got, expected in zip(answer, single.search(codes[:50], 20)):
                np.testing.assert_array_equal(got, expected)


def test_score_names_and_generator_are_those_of_one_machine(X):
    parts, given = chunked(X, 700), {name: value for name, value in SETTINGS.items() if name != "random_state"}
    theirs = aphash.dask.APHash(**given, random_state=np.random.default_rng(3)).fit(parts)
    ours = aphash.APHash(**given, random_state=np.random.default_rng(3)).fit(X)
    np.testing.assert_array_equal(theirs.coef_, ours.coef_)
    assert theirs.score(parts) == theirs.score(parts[parts[:, 0] > -100]) == ours.score(X) > 0
    assert theirs.get_feature_names_out().tolist() == ["aphash0"]
