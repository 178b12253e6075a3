"""HammingNeighbors: the search as the last step of a scikit-learn Pipeline."""

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from aphash._common.arrays import as_array
from aphash._common.checks import check_count
from aphash.codes import check_codes, origin_of
from aphash.index import PAD_ID, HammingIndex


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
        Its ids are the rows of the codes that were fitted; filters and rescoring are there. It may be changed: results
        name ids, and a removed code's id stays unused.
    n_samples_fit_ : int
        How many were fitted.
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
        codes = as_array(X, "X")
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
            None: the fitted codes, each without itself; a row for each code that ``index_`` holds, in ascending order
            of their ids.
        n_neighbors : int, optional
            At most as many as there are codes; None: the constructor's.
        return_distance : bool, default=True

        Returns
        -------
        distances : ndarray of int32, shape (n_queries, n_neighbors)
            Only with return_distance.
        indices : ndarray of int64, shape (n_queries, n_neighbors)
            Ids: the fitted rows, and those of codes that ``index_`` got later. In order of (distance, index).

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said.
        sklearn.exceptions.NotFittedError
        """
        _, distances, indices = self._nearest(X, n_neighbors)
        return (distances, indices) if return_distance else indices

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
        scipy.sparse.csr_array, shape (n_queries, n_columns)
            Of float64 or int32. Column j is the code with id j, and n_columns is ``n_samples_fit_``, or more when
            ``index_`` ever held a larger id. With X None row i is the code with id i, the shape is
            (n_columns, n_columns), and rows and columns of removed codes are empty. Each row is in order of
            (distance, index), not of columns.

        Raises
        ------
        TypeError, ValueError, sklearn.exceptions.NotFittedError
            As :meth:`kneighbors`; and ValueError when codes with negative ids were added to ``index_``, which have no
            column.
        """
        if mode not in ("connectivity", "distance"):
            raise ValueError(f"mode must be 'connectivity' or 'distance', got {mode!r}")
        rows, distances, indices = self._nearest(X, n_neighbors)
        if (indices < 0).any() or (rows < 0).any():
            raise ValueError("a graph has no column for codes with negative ids, which were added to index_")
        n_columns = self.index_._store.present.next_id  # behind the largest id that it ever held
        counts = np.zeros(n_columns if X is None else len(rows), np.int64)
        counts[rows] = indices.shape[1]
        starts = np.concatenate([[0], np.cumsum(counts)])
        values = np.ones(indices.size) if mode == "connectivity" else distances.ravel()
        return csr_array((values, indices.ravel(), starts), shape=(len(counts), n_columns))

    def _nearest(self, X, n_neighbors):
        """Return the numbers of the rows, which are ids if X is None, and their distances and ids."""
        check_is_fitted(self)
        k = check_count(self.n_neighbors if n_neighbors is None else n_neighbors, "n_neighbors", 1)
        n = len(self.index_)
        most = n - (X is None)
        if k > most:
            raise ValueError(f"n_neighbors must be at most {most} for {n} codes, got {k}")
        if X is None:
            rows, graph = self.index_.knn_graph(k, n_jobs=self.n_jobs)
            distances, indices = graph.data, rows[graph.indices]
        else:
            distances, indices = self.index_.search(check_codes(X, self.index_.n_bits, "X"), k, n_jobs=self.n_jobs)
            rows = np.arange(len(indices))
        if indices.size < len(rows) * k or (indices == PAD_ID).any():
            raise ValueError(f"n_neighbors must be at most the number of codes, which fell meanwhile; got {k}")
        return rows, distances.reshape(-1, k), indices.reshape(-1, k)
