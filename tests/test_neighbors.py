"""HammingNeighbors beside scikit-learn's NearestNeighbors, and at the end of a Pipeline."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from aphash import APHash, HammingIndex, HammingNeighbors, pack_codes, unpack_codes


def test_end_of_a_pipeline(digits):
    X, _ = digits
    hasher = APHash(24, n_anchors=50, n_rounds=2, random_state=0)
    pipeline = clone(make_pipeline(Normalizer(), hasher, HammingNeighbors(3, n_jobs=2))).fit(X[100:])
    codes = pipeline[:-1].transform(X[:100])
    distances, indices = pipeline[-1].kneighbors(codes)
    assert distances.shape == indices.shape == (100, 3)
    d = np.bitwise_count(codes[:, None] ^ pipeline[:-1].transform(X[100:])[None]).sum(2)
    assert np.array_equal(indices, np.argsort(d, axis=1, kind="stable")[:, :3])
    assert np.array_equal(distances, np.sort(d, axis=1)[:, :3])


@pytest.mark.parametrize("itself", [False, True])
def test_against_scikit_learn(rng, itself):
    Z = rng.standard_normal((200, 70))
    codes, queries = pack_codes(Z[:180]), None if itself else pack_codes(Z[180:])
    bits, query_bits = unpack_codes(codes, 70), None if itself else unpack_codes(queries, 70)
    ours, theirs = HammingNeighbors(4).fit(codes), NearestNeighbors(n_neighbors=4, metric="hamming").fit(bits)
    distances, indices = ours.kneighbors(queries)
    assert np.allclose(distances / 70, theirs.kneighbors(query_bits)[0])
    assert np.array_equal(ours.kneighbors(queries, return_distance=False), indices)
    assert ours.kneighbors(queries, 7)[0].shape[1] == 7
    for mode in ("connectivity", "distance"):
        graph, other = (
            n.kneighbors_graph(query_bits if n is theirs else queries, 4, mode=mode) for n in (ours, theirs)
        )
        assert graph.shape == other.shape and graph.nnz == other.nnz
        scale = 70 if mode == "distance" else 1
        assert np.allclose(np.sort(graph.data) / scale, np.sort(other.data))
    assert np.array_equal(graph.indices.reshape(-1, 4), indices)


@pytest.mark.parametrize("change", ["nothing", "add", "remove", "both", "far"])
def test_results_name_ids_after_changes_of_the_index(rng, change):
    """Also where a removal has moved codes to other positions; the graph has a column for every id."""
    fitted = HammingNeighbors(3).fit(pack_codes(rng.standard_normal((30, 70))))
    if change in ("remove", "both"):
        fitted.index_.remove([0, 7, 11])
    if change in ("add", "both", "far"):
        fitted.index_.add(fitted.index_.codes[:4], None if change != "far" else [50, 99, 40, 60])
    ids, codes = fitted.index_.snapshot()
    order = np.argsort(ids)
    ids, codes = ids[order], codes[order]
    d = np.bitwise_count(codes[:, None] ^ codes[None]).sum(2).astype(int)
    n_columns = {"add": 34, "both": 34, "far": 100}.get(change, 30)
    for X, distances in ((None, d + 1000 * np.eye(len(d), dtype=int)), (codes, d)):
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :3]
        found, indices = fitted.kneighbors(X)
        assert np.array_equal(indices, ids[nearest])
        assert np.array_equal(found, np.take_along_axis(d, nearest, axis=1))
        graph = fitted.kneighbors_graph(X, mode="distance")
        graph.check_format()
        rows = ids if X is None else np.arange(len(codes))
        assert graph.shape == (n_columns if X is None else len(codes), n_columns) and graph.nnz == 3 * len(codes)
        for row, at in zip(indices, rows.tolist()):
            assert graph.indices[graph.indptr[at] : graph.indptr[at + 1]].tolist() == row.tolist()
        dense = np.full(graph.shape, -1)
        dense[np.repeat(rows, 3), indices.ravel()] = found.ravel()
        assert np.array_equal(graph.toarray(), np.maximum(dense, 0))


def test_changes_that_leave_no_result(rng):
    codes = pack_codes(rng.standard_normal((5, 64)))
    fitted = HammingNeighbors(2).fit(codes)
    fitted.index_.add(codes[:1], [-7])
    assert fitted.kneighbors(codes[:1])[1].tolist() == [[-7, 0]]
    for X in (None, codes[:1]):
        with pytest.raises(ValueError, match="negative ids"):
            fitted.kneighbors_graph(X)
    fitted.index_.remove([-7, 0, 1, 2])
    assert fitted.kneighbors(codes[3:])[1].shape == (2, 2)
    with pytest.raises(ValueError, match="at most 1 for 2 codes"):
        fitted.kneighbors()
    fitted.index_.clear()
    with pytest.raises(ValueError, match="at most"):
        fitted.kneighbors(codes)


def test_results_of_an_index_that_shrinks_meanwhile(rng, monkeypatch):
    codes = pack_codes(rng.standard_normal((5, 64)))

    def shrinking(method):
        def call(self, *args, **kwargs):
            self.remove([0, 1, 2], missing="ignore")
            return method(self, *args, **kwargs)

        return call

    for name in ("search", "knn_graph"):
        monkeypatch.setattr(HammingIndex, name, shrinking(getattr(HammingIndex, name)))
    for X in (codes, None):
        fitted = HammingNeighbors(3).fit(codes)
        with pytest.raises(ValueError, match="fell meanwhile"):
            fitted.kneighbors(X)


def test_bad_arguments(rng):
    codes = pack_codes(rng.standard_normal((5, 64)))
    with pytest.raises(NotFittedError):
        HammingNeighbors().kneighbors(codes)
    with pytest.raises(TypeError, match="n_neighbors"):
        HammingNeighbors(1.5).fit(codes)
    with pytest.raises(TypeError, match="X must"):
        HammingNeighbors().fit(codes.astype(float))
    with pytest.raises(ValueError, match="X must"):
        HammingNeighbors().fit(codes[0])
    fitted = HammingNeighbors().fit(codes)
    assert fitted.kneighbors(codes)[1].shape == (5, 5) and fitted.kneighbors(codes[:0])[1].shape == (0, 5)
    with pytest.raises(ValueError, match="at most 4"):
        fitted.kneighbors()
    with pytest.raises(ValueError, match="at most 5"):
        fitted.kneighbors(codes, 6)
    with pytest.raises(ValueError, match="mode"):
        fitted.kneighbors_graph(codes, mode="both")


def test_masked_codes_are_refused(rng):
    codes = pack_codes(rng.standard_normal((20, 64)))
    masked = np.ma.array(codes, mask=np.zeros(codes.shape, bool))
    HammingNeighbors().fit(masked)
    masked.mask[3] = True
    with pytest.raises(ValueError, match="X has masked elements, first in row 3"):
        HammingNeighbors().fit(masked)
