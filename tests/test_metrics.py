import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from aphash import metrics, pack_codes


def naive_ap(relevant):
    relevant = np.asarray(relevant)
    found = np.cumsum(relevant)
    return (found / np.arange(1, len(relevant) + 1))[relevant].sum() / max(1, relevant.sum())


@pytest.fixture
def tied(rng):
    """Distances with many ties, relevance, (12, 200)."""
    return rng.integers(0, 6, (12, 200)), rng.random((12, 200)) < 0.2


def shuffled_means(distances, relevant, measure, times=4000):
    rng = np.random.default_rng(1)
    out = np.zeros(len(distances))
    for _ in range(times):
        order = np.argsort(distances + rng.random(distances.shape), axis=1)
        out += [measure(row) for row in np.take_along_axis(relevant, order, axis=1)]
    return out / times


def test_expectations_are_the_means_over_shuffles(tied):
    counts = metrics.count_distances(*tied)
    few = [each[:3] for each in tied]
    np.testing.assert_allclose(metrics.average_precision(counts)[:3], shuffled_means(*few, naive_ap), rtol=0.01)
    for k in (1, 10, 57):
        at_k = shuffled_means(*few, lambda row, k=k: row[:k].mean())
        np.testing.assert_allclose(metrics.precision_at_k(counts, k)[:3], at_k, atol=0.03)
        recall = shuffled_means(*few, lambda row, k=k: row[:k].sum() / row.sum())
        np.testing.assert_allclose(metrics.recall_at_k(counts, k)[:3], recall, atol=0.02)


@pytest.mark.parametrize("distances", [[0, 0, 0, 0, 0], [0, 1, 1, 1, 2], [1, 1, 0, 2, 2], [4, 3, 2, 1, 0]])
@pytest.mark.parametrize("relevant", [[1, 0, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [0, 1, 0, 1, 1]])
def test_every_order_of_a_tie_counts_the_same(distances, relevant):
    distances, relevant = np.array(distances), np.array(relevant, bool)
    orders = [o for o in map(list, itertools.permutations(range(5))) if (np.diff(distances[o]) >= 0).all()]
    counts = metrics.count_distances(distances[None], relevant[None])
    np.testing.assert_allclose(metrics.average_precision(counts)[0], np.mean([naive_ap(relevant[o]) for o in orders]))
    for k in range(1, 6):
        wanted = np.mean([relevant[o][:k].mean() for o in orders])
        np.testing.assert_allclose(metrics.precision_at_k(counts, k)[0], wanted)


def test_without_ties_it_is_scikit_learns(rng):
    distances, relevant = rng.random((5, 300)), rng.random((5, 300)) < 0.1
    wanted = [average_precision_score(r, -d) for d, r in zip(distances, relevant, strict=True)]
    np.testing.assert_allclose(metrics.average_precision(metrics.count_distances(distances, relevant)), wanted)


@pytest.fixture
def coded(rng):
    bits = rng.random((230, 70)) < 0.5
    labels = rng.integers(0, 4, 230)
    distances = (bits[:30, None, :] != bits[None, 30:, :]).sum(axis=2)
    return pack_codes(bits[:30]), pack_codes(bits[30:]), labels[:30], labels[30:], distances


def test_codes_and_distances_agree(coded, monkeypatch):
    q, d, ql, dl, distances = coded
    wanted = metrics.count_distances(distances, ql[:, None] == dl[None])
    for block in (1, 450, 1 << 21):
        monkeypatch.setattr(metrics, "_BLOCK", block)
        counts = metrics.count_codes(q, d, query_labels=ql, database_labels=dl)
        assert counts.items.shape == (30, 129) and (counts.items.sum(axis=1) == 200).all()
        for level in range(71):
            assert (counts.items[:, level] == (distances == level).sum(axis=1)).all()
        np.testing.assert_allclose(metrics.average_precision(counts), metrics.average_precision(wanted))
        np.testing.assert_allclose(metrics.precision_at_k(counts, 20), metrics.precision_at_k(wanted, 20))
    assert metrics.mean_average_precision(q, d, ql, dl) == metrics.average_precision(counts).mean()


def test_boolean_label_matrices_and_neighbors(coded):
    q, d, ql, dl, distances = coded
    one_hot = np.eye(4, dtype=bool)
    plain = metrics.count_codes(q, d, query_labels=ql, database_labels=dl)
    many = metrics.count_codes(q, d, query_labels=one_hot[ql], database_labels=one_hot[dl])
    np.testing.assert_array_equal(plain.relevant, many.relevant)
    neighbors = np.argsort(distances, axis=1, kind="stable")[:, :10]
    counts = metrics.count_codes(q, d, neighbors=neighbors)
    assert (counts.n_relevant == 10).all()
    assert (metrics.recall_at_k(counts, 200) == 1).all()
    assert (metrics.recall_at_k(counts, 10) > 0.5).all()


def test_radius_and_curve(coded):
    q, d, ql, dl, distances = coded
    counts = metrics.count_codes(q, d, query_labels=ql, database_labels=dl)
    relevant = ql[:, None] == dl[None]
    radius = int(np.sort(distances.min(axis=1))[15])
    inside = distances <= radius
    found = metrics.within_radius(counts, radius)
    assert 0 < found.empty < 1 and found.empty == (~inside.any(axis=1)).mean()
    precision = [r[i].mean() if i.any() else 0 for r, i in zip(relevant, inside, strict=True)]
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, (relevant & inside).sum(axis=1) / relevant.sum(axis=1))
    p, r = metrics.precision_recall_curve(counts)
    np.testing.assert_allclose([p[radius], r[radius]], [found.precision.mean(), found.recall.mean()])
    assert (np.diff(r) >= 0).all() and r[-1] == 1


def test_queries_without_relevant_items_count_as_zero(coded):
    q, d, ql, dl, _ = coded
    counts = metrics.count_codes(q, d, query_labels=ql + 100, database_labels=dl)
    assert (metrics.average_precision(counts) == 0).all() and (metrics.recall_at_k(counts, 5) == 0).all()


def test_bad_input(coded):
    q, d, ql, dl, distances = coded
    for arguments, error, message in [
        ({}, TypeError, "query_labels"), ({"query_labels": ql}, TypeError, "query_labels"),
        ({"query_labels": ql[:3], "database_labels": dl}, ValueError, "query_labels.*30.*3"),
        ({"query_labels": ql[:, None], "database_labels": dl[:, None]}, ValueError, "booleans"),
        ({"neighbors": np.full((30, 2), 200)}, ValueError, "0 to 199"), ({"neighbors": [[1]]}, ValueError, "30"),
        ({"neighbors": np.zeros((30, 2))}, ValueError, "integers"),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            metrics.count_codes(q, d, **arguments)
    with pytest.raises(ValueError, match="database_codes"):
        metrics.count_codes(q, d[:, :1], query_labels=ql, database_labels=dl)
    with pytest.raises(TypeError, match="query_codes"):
        metrics.count_codes(q.astype(float), d, query_labels=ql, database_labels=dl)
    with pytest.raises(ValueError, match="shape"):
        metrics.count_distances(distances, distances[:3] > 0)
    with pytest.raises(ValueError, match="NaN"):
        metrics.count_distances([[np.nan]], [[True]])
    counts = metrics.count_distances(distances, distances > 3)
    for k in (0, 201, 1.5):
        with pytest.raises(ValueError, match="k must be"):
            metrics.precision_at_k(counts, k)
    for radius in (-1, 0.5):
        with pytest.raises(ValueError, match="radius"):
            metrics.within_radius(counts, radius)
