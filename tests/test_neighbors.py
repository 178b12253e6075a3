"""HammingNeighbors beside scikit-learn's NearestNeighbors, and at the end of a Pipeline."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from aphash import APHash, HammingNeighbors, pack_codes, unpack_codes


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
