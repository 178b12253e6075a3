"""HammingNeighbors: the search as the last step of a scikit-learn Pipeline."""

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from aphash._checks import check_count
from aphash.codes import check_codes, origin_of
from aphash.index import HammingIndex


class HammingNeighbors(BaseEstimator):
    """The nearest codes, in the manner of :class:`sklearn.neighbors.NearestNeighbors`.

    It ends a pipeline whose steps before make the codes; those steps make the queries' codes, too::

        pipeline = make_pipeline(Normalizer(), APHash(), HammingNeighbors()).fit(X)
        distances, indices = pipeline[-1].kneighbors(pipeline[:-1].transform(queries))

    An estimator, because a Pipeline can only end in one; scikit-learn's Pipeline hands on ``transform`` and ``predict``
    but not ``kneighbors``, so the second line is the same as with scikit-learn's own NearestNeighbors.

    Parameters
    ----------
    n_neighbors : int, default=5
    n_jobs : int, optional
        Threads; as for :meth:`HammingIndex.search`.

    Attributes
    ----------
    index_ : HammingIndex
        Its ids are the rows of the codes; add, filters and rescoring are there.
    n_samples_fit_ : int
    """

    def __init__(self, n_neighbors=5, *, n_jobs=None):
        self.n_neighbors = n_neighbors
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Hold the codes to search.

        Parameters
        ----------
        X : ndarray of uint64, shape (n, n_words)
            As APHash.transform makes them.
        y : ignored

        Returns
        -------
        HammingNeighbors

        Raises
        ------
        TypeError, ValueError
            When X is not as said, or n_neighbors is not an integer of at least 1.
        """
        check_count(self.n_neighbors, "n_neighbors", 1)
        codes = np.asarray(X)
        if codes.ndim != 2 or codes.shape[1] == 0:
            raise ValueError(f"X must have shape (n, n_words), got {codes.shape}")
        origin = origin_of(codes)  # where it is not known: padding bits are 0 in all codes, so no distance changes
        index = HammingIndex(64 * codes.shape[1] if origin is None else origin.n_bits)
        index.add(check_codes(codes, index.n_bits, "X"))
        self.index_, self.n_samples_fit_ = index, len(codes)
        return self

    def kneighbors(self, X=None, n_neighbors=None, return_distance=True):
        """Find the nearest of the fitted codes.

        Parameters
        ----------
        X : ndarray of uint64, shape (n_queries, n_words), optional
            None: the fitted codes, each without itself.
        n_neighbors : int, optional
            At most as many as there are codes; None: the constructor's.
        return_distance : bool, default=True

        Returns
        -------
        distances : ndarray of int32, shape (n_queries, n_neighbors)
            Only with return_distance.
        indices : ndarray of int64, shape (n_queries, n_neighbors)
            In order of (distance, index).

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said.
        sklearn.exceptions.NotFittedError
        """
        graph = self.kneighbors_graph(X, n_neighbors, mode="distance")
        shape = (graph.shape[0], self.n_neighbors if n_neighbors is None else n_neighbors)
        indices = graph.indices.reshape(shape).astype(np.int64, copy=False)
        return (graph.data.reshape(shape), indices) if return_distance else indices

    def kneighbors_graph(self, X=None, n_neighbors=None, mode="connectivity"):
        """Return the graph of the nearest of the fitted codes.

        Parameters
        ----------
        X, n_neighbors
            As for :meth:`kneighbors`.
        mode : {"connectivity", "distance"}, default="connectivity"
            The values: ones, or distances, those of 0 as explicit zeros.

        Returns
        -------
        scipy.sparse.csr_array, shape (n_queries, n_samples_fit_)
            Of float64 or int32. Each row is in order of (distance, index), not of columns.

        Raises
        ------
        TypeError, ValueError, sklearn.exceptions.NotFittedError
            As :meth:`kneighbors`.
        """
        check_is_fitted(self)
        if mode not in ("connectivity", "distance"):
            raise ValueError(f"mode must be 'connectivity' or 'distance', got {mode!r}")
        k = check_count(self.n_neighbors if n_neighbors is None else n_neighbors, "n_neighbors", 1)
        most = self.n_samples_fit_ - (X is None)
        if k > most:
            raise ValueError(f"n_neighbors must be at most {most} for {self.n_samples_fit_} fitted codes, got {k}")
        if X is None:
            graph = self.index_.knn_graph(k, n_jobs=self.n_jobs)
        else:
            distances, ids = self.index_.search(check_codes(X, self.index_.n_bits, "X"), k, n_jobs=self.n_jobs)
            starts = np.arange(len(ids) + 1, dtype=np.int64) * k
            graph = csr_array((distances.ravel(), ids.ravel(), starts), shape=(len(ids), self.n_samples_fit_))
        if mode == "connectivity":
            graph.data = np.ones(len(graph.data))
        return graph
