"""HammingNeighbors beside scikit-learn's NearestNeighbors, and at the end of a Pipeline."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import DBSCAN
from sklearn.exceptions import NotFittedError
from sklearn.manifold import TSNE
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsTransformer,
    NearestNeighbors,
    RadiusNeighborsTransformer,
)
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
    with pytest.raises(ValueError, match=r"mode must be .* got None"):
        HammingNeighbors(mode=None).fit(codes)
    with pytest.raises(ValueError, match="radius must be given"):
        fitted.radius_neighbors(codes)
    with pytest.raises(TypeError, match=r"radius must be an integer, got 1\.5"):
        fitted.radius_neighbors(codes, 1.5)
    with pytest.raises(ValueError, match="radius must be at least 0, got -1"):
        HammingNeighbors(radius=-1).fit(codes)
    with pytest.raises(ValueError, match="at most 4"):
        fitted.fit_transform(codes)
    for call in (HammingNeighbors().transform, HammingNeighbors(radius=3).radius_neighbors):
        with pytest.raises(NotFittedError):
            call(codes)


def test_masked_codes_are_refused(rng):
    codes = pack_codes(rng.standard_normal((20, 64)))
    masked = np.ma.array(codes, mask=np.zeros(codes.shape, bool))
    HammingNeighbors().fit(masked)
    masked.mask[3] = True
    with pytest.raises(ValueError, match="X has masked elements, first in row 3"):
        HammingNeighbors().fit(masked)


def near_codes(rng, n, n_bits=70):
    """Codes with neighbours at every distance, and equal ones."""
    bits = rng.random((n // 4, n_bits)) < 0.5
    return pack_codes(bits[rng.integers(0, len(bits), n)] ^ (rng.random((n, n_bits)) < 0.03))


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("radius", [0, 3, 8, 70])
def test_radius_against_scikit_learn(rng, itself, radius):
    codes = near_codes(rng, 160)
    queries = None if itself else near_codes(rng, 30)
    bits, query_bits = unpack_codes(codes, 70), None if itself else unpack_codes(queries, 70)
    ours = HammingNeighbors(radius=radius).fit(codes)
    theirs = NearestNeighbors(radius=(radius + 0.5) / 70, metric="hamming").fit(bits)
    for n_jobs in (1, 2):
        ours.set_params(n_jobs=n_jobs)
        found, indices = ours.radius_neighbors(queries)
        their_distances, their_indices = theirs.radius_neighbors(query_bits, sort_results=True)
        assert found.dtype == indices.dtype == object and len(found) == len(their_distances)
        for ds, ids, their_ds, their_ids in zip(found, indices, their_distances, their_indices):
            assert ds.dtype == np.int32 and np.allclose(ds / 70, their_ds)
            assert sorted(ids.tolist()) == sorted(their_ids.tolist())
            assert list(zip(ds, ids)) == sorted(zip(ds, ids))
        only = ours.radius_neighbors(queries, return_distance=False, sort_results=True)
        assert [each.tolist() for each in only] == [each.tolist() for each in indices]
        for mode in ("connectivity", "distance"):
            graph = ours.radius_neighbors_graph(queries, mode=mode, sort_results=True)
            other = theirs.radius_neighbors_graph(query_bits, mode=mode)
            assert graph.dtype == np.float64 and graph.shape == other.shape and graph.nnz == other.nnz
            assert np.allclose(graph.toarray() / (70 if mode == "distance" else 1), other.toarray())
            assert np.array_equal(graph.indices, np.concatenate(indices))


def test_radius_after_changes_of_the_index(rng):
    codes = near_codes(rng, 40)
    fitted = HammingNeighbors(radius=6).fit(codes)
    fitted.index_.remove([0, 7, 11])
    fitted.index_.add(codes[:4], [50, 99, 40, 60])
    ids, codes = fitted.index_.snapshot()
    order = np.argsort(ids)
    ids, codes = ids[order], codes[order]
    d = np.bitwise_count(codes[:, None] ^ codes[None]).sum(2).astype(int)
    distances, indices = fitted.radius_neighbors()
    assert len(distances) == 41
    for row in range(41):
        near = [at for at in np.argsort(d[row], kind="stable") if d[row, at] <= 6 and at != row]
        assert indices[row].tolist() == ids[near].tolist() and distances[row].tolist() == d[row, near].tolist()
    graph = fitted.radius_neighbors_graph(mode="distance")
    graph.check_format()
    assert graph.shape == (100, 100) and graph.nnz == ((d <= 6).sum() - 41) and graph[[7], :].nnz == 0
    fitted.index_.add(codes[:1], [-7])
    with pytest.raises(ValueError, match="negative ids"):
        fitted.radius_neighbors_graph()


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
def test_its_graphs_are_those_of_scikit_learns_transformers(rng, mode):
    codes, queries = pack_codes(rng.standard_normal((60, 70))), pack_codes(rng.standard_normal((9, 70)))
    bits, query_bits = unpack_codes(codes, 70), unpack_codes(queries, 70)
    for ours, theirs in (
        (HammingNeighbors(5, mode=mode), KNeighborsTransformer(n_neighbors=5, mode=mode, metric="hamming")),
        (HammingNeighbors(radius=30, mode=mode), RadiusNeighborsTransformer(radius=0.43, mode=mode, metric="hamming")),
    ):
        scale = 70 if mode == "distance" else 1
        for graph, other in (
            (ours.fit_transform(codes), theirs.fit_transform(bits)),
            (ours.transform(queries), theirs.transform(query_bits)),
        ):
            assert graph.shape == other.shape and np.array_equal(graph.indptr, other.indptr)
            assert np.allclose(np.sort(graph.toarray()) / scale, np.sort(other.toarray()))
        assert ours.get_feature_names_out()[[0, -1]].tolist() == ["hammingneighbors0", "hammingneighbors59"]


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
@pytest.mark.parametrize("k", [1, 2, 6])
def test_each_code_is_its_own_first_neighbour(mode, k):
    """Of 30 equal codes a search names the first 7; each is in its own row of the graph none the less."""
    graph = HammingNeighbors(k, mode=mode).fit_transform(np.zeros((30, 1), np.uint64))
    graph.check_format()
    width = k + (mode == "distance")
    assert np.array_equal(graph.indptr, width * np.arange(31))
    assert np.array_equal(graph.indices[::width], np.arange(30))
    assert all(len(set(row)) == width for row in graph.indices.reshape(-1, width).tolist())
    assert graph.data.tolist() == [0.0 if mode == "distance" else 1.0] * graph.nnz


def test_in_front_of_what_takes_a_graph(digits):
    """The clusters are those of the same distances over bits, the embedding is one of as many rows."""
    X = digits[0][:300]
    hasher = APHash(32, n_anchors=50, n_rounds=2, random_state=0)
    clusters = DBSCAN(eps=4, metric="precomputed", min_samples=5)
    pipeline = make_pipeline(hasher, HammingNeighbors(radius=4), clusters)
    labels = pipeline.fit_predict(X)
    bits = unpack_codes(pipeline[0].transform(X), 32)
    assert np.array_equal(labels, DBSCAN(eps=4.5 / 32, metric="hamming", min_samples=5).fit_predict(bits))
    assert len(np.unique(labels)) > 2
    embedding = TSNE(metric="precomputed", init="random", perplexity=10, max_iter=250, random_state=0)
    assert make_pipeline(hasher, HammingNeighbors(31), embedding).fit_transform(X).shape == (300, 2)
    classes = KNeighborsClassifier(10, metric="precomputed")
    pipeline = make_pipeline(hasher, HammingNeighbors(10), classes).fit(X, digits[1][:300])
    assert pipeline.score(digits[0][300:400], digits[1][300:400]) > 0.6
