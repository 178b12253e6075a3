"""HammingNeighbors: the search as a step of a scikit-learn Pipeline, in front of what takes a graph or at its end."""

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from aphash._common.arrays import as_array, shown
from aphash._common.checks import check_count
from aphash._searching.queries import check_queries, check_radius
from aphash.codes import check_codes, origin_of
from aphash.index import PAD_ID, HammingIndex


class HammingNeighbors(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The nearest codes, in the manner of :class:`sklearn.neighbors.NearestNeighbors` and its transformers.

    It ends a pipeline whose steps before make the codes; those steps make the queries' codes, too::

        pipeline = make_pipeline(Normalizer(), APHash(), HammingNeighbors()).fit(X)
        distances, indices = pipeline[-1].kneighbors(pipeline[:-1].transform(queries))

    (scikit-learn's Pipeline hands on ``transform`` and ``predict`` but not ``kneighbors``, so the second line is the
    same as with scikit-learn's own NearestNeighbors.) Queries may be weights, which keep more of them::

        weights = pipeline[-2].query_projections(pipeline[:-2].transform(queries))
        distances, indices = pipeline[-1].kneighbors(weights)

    Or its graph goes to the next step, as that of
    :class:`sklearn.neighbors.KNeighborsTransformer` and RadiusNeighborsTransformer does::

        make_pipeline(APHash(), HammingNeighbors(radius=4), DBSCAN(eps=4, metric="precomputed")).fit_predict(X)
        make_pipeline(APHash(), HammingNeighbors(91), TSNE(metric="precomputed", init="random")).fit_transform(X)

    Some want a symmetric graph, as that of a radius is and that of the nearest is not, such as HDBSCAN and, where it is
    given a graph, UMAP. UMAP takes the nearest as arrays, too, of which each item is its own first::

        graph = HammingNeighbors(14).fit_transform(codes)
        knn = graph.indices.reshape(-1, 15), graph.data.reshape(-1, 15)
        UMAP(n_neighbors=15, precomputed_knn=knn).fit_transform(X)

    Parameters
    ----------
    n_neighbors : int, default=5
    radius : int, optional
        In bits; a code at this distance is a neighbour. Where it is given, ``transform`` makes the graph of all codes
        within it, and otherwise that of the ``n_neighbors`` nearest.
    mode : {"distance", "connectivity"}, default="distance"
        What ``transform`` makes a graph of: distances or ones.
    n_jobs : int, optional
        Threads; as for :meth:`HammingIndex.search`.

    Attributes
    ----------
    index_ : HammingIndex
        Its ids are the rows of the codes that were fitted; filters and rescoring are there. It may be changed: results
        name ids, and a removed code's id stays unused.
    n_samples_fit_ : int
        How many were fitted.
    n_features_in_ : int
        Words of a code.

    Examples
    --------
    >>> import numpy as np
    >>> from aphash import HammingNeighbors
    >>> codes = np.array([[0], [1], [3], [7]], np.uint64)
    >>> neighbors = HammingNeighbors(n_neighbors=2, radius=1).fit(codes)
    >>> distances, ids = neighbors.kneighbors(codes[:1])
    >>> distances, ids
    (array([[0, 1]], dtype=int32), array([[0, 1]]))
    """

    __module__ = "aphash"  # where it is public: pickles and reprs say so

    def __init__(self, n_neighbors=5, *, radius=None, mode="distance", n_jobs=None):
        self.n_neighbors = n_neighbors
        self.radius = radius
        self.mode = mode
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
            When X or a parameter is not as said.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingNeighbors
        >>> codes = np.array([[0], [1], [3], [7]], np.uint64)
        >>> neighbors = HammingNeighbors(n_neighbors=2, radius=1).fit(codes)
        >>> neighbors.n_samples_fit_
        4
        """
        check_count(self.n_neighbors, "n_neighbors", 1)
        if self.radius is not None:
            check_count(self.radius, "radius", 0)
        _check_mode(self.mode)
        codes = as_array(X, "X")
        if codes.ndim != 2 or codes.shape[1] == 0:
            raise ValueError(f"X must have shape (n, n_words), got {codes.shape}")
        origin = origin_of(codes)  # where it is not known: padding bits are 0 in all codes, so no distance changes
        index = HammingIndex(64 * codes.shape[1] if origin is None else origin.n_bits)
        index.add(check_codes(codes, index.n_bits, "X"))
        self.index_, self.n_samples_fit_, self.n_features_in_ = index, len(codes), codes.shape[1]
        return self

    # -- neighbours ---------------------------------------------------------------------------------------------------

    def kneighbors(self, X=None, n_neighbors=None, return_distance=True):
        """Find the nearest of the fitted codes.

        Parameters
        ----------
        X : ndarray of uint64, shape (n_queries, n_words), or of floats, shape (n_queries, n_bits), optional
            Codes or weights, as for :meth:`HammingIndex.search`. None: the fitted codes, each without itself; a row for
            each code that ``index_`` holds, in ascending order of their ids.
        n_neighbors : int, optional
            At most as many as there are codes; None: the constructor's.
        return_distance : bool, default=True

        Returns
        -------
        distances : ndarray of int32, of weights float32, shape (n_queries, n_neighbors)
            Only with return_distance.
        indices : ndarray of int64, shape (n_queries, n_neighbors)
            Ids: the fitted rows, and those of codes that ``index_`` got later. In order of (distance, index).

        Raises
        ------
        TypeError, ValueError
            When an argument is not as said.
        sklearn.exceptions.NotFittedError

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingNeighbors
        >>> codes = np.array([[0], [1], [3], [7]], np.uint64)
        >>> neighbors = HammingNeighbors(n_neighbors=2, radius=1).fit(codes)
        >>> neighbors.kneighbors(codes[:1], return_distance=False)
        array([[0, 1]])
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
        scipy.sparse.csr_matrix, shape (n_queries, n_columns)
            Of float64, and a matrix, as scikit-learn's own. Column j is the code with id j, and n_columns is
            ``n_samples_fit_``, or more when ``index_`` ever held a larger id. With X None row i is the code with id i,
            the shape is (n_columns, n_columns), and rows and columns of removed codes are empty. Each row is in order
            of (distance, index), not of columns.

        Raises
        ------
        TypeError, ValueError, sklearn.exceptions.NotFittedError
            As :meth:`kneighbors`; and ValueError when codes with negative ids were added to ``index_``, which have no
            column.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingNeighbors
        >>> codes = np.array([[0], [1], [3], [7]], np.uint64)
        >>> neighbors = HammingNeighbors(n_neighbors=2, radius=1).fit(codes)
        >>> neighbors.kneighbors_graph(codes, 1).toarray()
        array([[1., 0., 0., 0.],
               [0., 1., 0., 0.],
               [0., 0., 1., 0.],
               [0., 0., 0., 1.]])
        """
        _check_mode(mode)
        rows, distances, indices = self._nearest(X, n_neighbors)
        return self._graph(X, rows, np.full(len(rows), indices.shape[1]), distances, indices, mode)

    def radius_neighbors(self, X=None, radius=None, return_distance=True, sort_results=False):
        """Find all of the fitted codes within a radius.

        Parameters
        ----------
        X : ndarray of uint64, shape (n_queries, n_words), or of floats, shape (n_queries, n_bits), optional
            Codes or weights. None: the fitted codes, each without itself, as for :meth:`kneighbors`.
        radius : int, or float for weights, optional
            In bits, or in the weights' unit, at least 0; None: the constructor's, which must be given then.
        return_distance : bool, default=True
        sort_results : bool, default=False
            Either way each row is in order of (distance, index); what is written for scikit-learn may ask for it.

        Returns
        -------
        distances : ndarray of object, shape (n_queries,)
            Of arrays of int32, of weights float32. Only with return_distance.
        indices : ndarray of object, shape (n_queries,)
            Of arrays of int64: ids, as for :meth:`kneighbors`.

        Raises
        ------
        TypeError, ValueError, sklearn.exceptions.NotFittedError
            As :meth:`kneighbors`.

        Notes
        -----
        The result is an array for each query; :meth:`radius_neighbors_graph` and ``index_.radius_search`` hold the same
        in three arrays.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingNeighbors
        >>> codes = np.array([[0], [1], [3], [7]], np.uint64)
        >>> neighbors = HammingNeighbors(n_neighbors=2, radius=1).fit(codes)
        >>> neighbors.radius_neighbors(codes[:1], return_distance=False)[0]
        array([0, 1])
        """
        _, counts, distances, indices = self._within(X, radius)
        ends = np.cumsum(counts).tolist()
        starts = [0, *ends[:-1]]
        found = []
        for values in (distances, indices) if return_distance else (indices,):
            rows = np.empty(len(ends), object)
            rows[:] = [values[start:end] for start, end in zip(starts, ends)]
            found.append(rows)
        return tuple(found) if return_distance else found[0]

    def radius_neighbors_graph(self, X=None, radius=None, mode="connectivity", sort_results=False):
        """Return the graph of all of the fitted codes within a radius.

        Parameters
        ----------
        X, radius, sort_results
            As for :meth:`radius_neighbors`.
        mode : {"connectivity", "distance"}, default="connectivity"
            As for :meth:`kneighbors_graph`.

        Returns
        -------
        scipy.sparse.csr_matrix, shape (n_queries, n_columns)
            As :meth:`kneighbors_graph`; it needs 16 bytes a neighbour, and as many while it is made.

        Raises
        ------
        TypeError, ValueError, sklearn.exceptions.NotFittedError
            As :meth:`kneighbors_graph`.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingNeighbors
        >>> codes = np.array([[0], [1], [3], [7]], np.uint64)
        >>> neighbors = HammingNeighbors(n_neighbors=2, radius=1).fit(codes)
        >>> neighbors.radius_neighbors_graph(codes[:1]).toarray()
        array([[1., 1., 0., 0.]])
        """
        _check_mode(mode)
        rows, counts, distances, indices = self._within(X, radius)
        return self._graph(X, rows, counts, distances, indices, mode)

    # -- a transformer ------------------------------------------------------------------------------------------------

    def transform(self, X):
        """Return the graph of the neighbours of X among the fitted codes.

        Parameters
        ----------
        X : ndarray of uint64, shape (n_queries, n_words)

        Returns
        -------
        scipy.sparse.csr_matrix of float64, shape (n_queries, n_columns)
            As :meth:`kneighbors_graph`, or :meth:`radius_neighbors_graph` where ``radius`` was given. As scikit-learn's
            KNeighborsTransformer has it, ``mode="distance"`` gives one neighbour more than ``n_neighbors``: for
            estimators that count an item as its own neighbour, and for those that do not.

        Raises
        ------
        TypeError, ValueError, sklearn.exceptions.NotFittedError
            As :meth:`kneighbors_graph`.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingNeighbors
        >>> codes = np.array([[0], [1], [3], [7]], np.uint64)
        >>> neighbors = HammingNeighbors(n_neighbors=2, radius=1).fit(codes)
        >>> neighbors.transform(codes).shape
        (4, 4)
        """
        check_is_fitted(self)
        if self.radius is not None:
            return self.radius_neighbors_graph(X, mode=self.mode)
        return self.kneighbors_graph(X, self.n_neighbors + (self.mode == "distance"), self.mode)

    def fit_transform(self, X, y=None):
        """Hold the codes, and return the graph of their neighbours among themselves.

        Parameters
        ----------
        X : ndarray of uint64, shape (n, n_words)
        y : ignored

        Returns
        -------
        scipy.sparse.csr_matrix of float64, shape (n, n)
            As ``fit(X).transform(X)``: each code is its own neighbour, at distance 0. Of the nearest it is always the
            first, also where so many codes are equal that a search would leave it out.

        Raises
        ------
        TypeError, ValueError
            As :meth:`fit`, and when there are too few codes for ``n_neighbors``.

        Examples
        --------
        >>> import numpy as np
        >>> from aphash import HammingNeighbors
        >>> codes = np.array([[0], [1], [3], [7]], np.uint64)
        >>> neighbors = HammingNeighbors(n_neighbors=2, radius=1).fit(codes)
        >>> neighbors.fit_transform(codes).shape
        (4, 4)
        """
        self.fit(X)
        if self.radius is not None:
            return self.transform(X)
        n, others = self.n_samples_fit_, self.n_neighbors - (self.mode != "distance")
        itself = np.arange(n)[:, np.newaxis]
        distances, indices = np.zeros((n, 1), np.int32), itself
        if others:
            _, near, ids = self._nearest(None, others)
            distances, indices = np.hstack([distances, near]), np.hstack([itself, ids])
        return self._graph(None, itself.ravel(), np.full(n, others + 1), distances, indices, self.mode)

    @property
    def _n_features_out(self):
        """Columns of a graph, for get_feature_names_out: hammingneighbors0, ..."""
        return self._n_columns()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _n_columns(self):
        return self.index_._store.present.next_id  # behind the largest id that it ever held

    def _graph(self, X, rows, counts, distances, indices, mode):
        """Return a graph of what was found, counts[i] for the row rows[i]."""
        if (indices < 0).any() or (rows < 0).any():
            raise ValueError("a graph has no column for codes with negative ids, which were added to index_")
        n_columns = self._n_columns()
        of_row = np.zeros(n_columns if X is None else len(rows), np.int64)
        of_row[rows] = counts
        starts = np.concatenate([[0], np.cumsum(of_row)])
        values = np.ones(indices.size) if mode == "connectivity" else distances.ravel().astype(np.float64)
        return csr_matrix((values, indices.ravel(), starts), shape=(len(of_row), n_columns))

    def _nearest(self, X, n_neighbors):
        """Return the numbers of the rows, which are ids if X is None, and their distances and ids."""
        check_is_fitted(self)
        k = check_count(self.n_neighbors if n_neighbors is None else n_neighbors, "n_neighbors", 1)
        n = len(self.index_)
        max_k = n - (X is None)
        if k > max_k:
            raise ValueError(f"n_neighbors must be at most {max_k} for {n} codes, got {k}")
        if X is None:
            rows, graph = self.index_.knn_graph(k, n_jobs=self.n_jobs)
            distances, indices = graph.data, rows[graph.indices]
        else:
            distances, indices = self.index_.search(self._queries(X), k, n_jobs=self.n_jobs)
            rows = np.arange(len(indices))
        if indices.size < len(rows) * k or (indices == PAD_ID).any():
            raise ValueError(f"n_neighbors must be at most the number of codes, which fell meanwhile; got {k}")
        return rows, distances.reshape(-1, k), indices.reshape(-1, k)

    def _within(self, X, radius):
        """Return the numbers of the rows, how many each has, and all distances and ids, as :meth:`_nearest` does."""
        check_is_fitted(self)
        radius = self.radius if radius is None else radius
        if radius is None:
            raise ValueError("radius must be given, here or to HammingNeighbors(radius=...)")
        if X is None:
            rows, codes = self.index_.snapshot()
            order = np.argsort(rows)
            rows, codes = rows[order], codes[order]
        else:
            codes = self._queries(X)
            rows = np.arange(len(codes))
        radius = check_radius(radius, self.index_.n_bits, codes)
        offsets, distances, indices = self.index_.radius_search(codes, radius, n_jobs=self.n_jobs)
        if X is None:
            others = indices != np.repeat(rows, np.diff(offsets))
            offsets = np.concatenate([[0], np.cumsum(others)])[offsets]
            distances, indices = distances[others], indices[others]
        return rows, np.diff(offsets), distances, indices

    def _queries(self, X):
        """Return X checked: codes, or weights."""
        return check_queries(X, self.index_.n_bits, "X")


def _check_mode(mode):
    if not isinstance(mode, str) or mode not in ("connectivity", "distance"):
        raise ValueError(f"mode must be 'connectivity' or 'distance', got {shown(mode)}")
