"""The methods beside APHash, each from its publication, in numpy, scikit-learn and faiss; and the controls.

Binary methods are ``Method(n_bits, random_state).fit(X).transform(X)``, which gives packed codes as aphash's do.
Methods that rank by something else than Hamming distance (:class:`Floats`, the faiss quantisers) have
``fit(X)`` with the database, ``distances(Q)`` instead of ``transform``, and ``state()`` that :func:`restore` reads.

Names: V = X centred on the principal directions, R a rotation or an orthonormal projection, W a map, T its target.
"""

import numpy as np
from scipy import linalg
from sklearn.cluster import KMeans

from aphash.codes import pack_codes


def signs(Z):
    return np.where(Z >= 0, np.float32(1), np.float32(-1))


def random_orthonormal(p, r, rng):
    """Random p x r matrix with orthonormal rows (p <= r) or columns."""
    q, _ = linalg.qr(rng.standard_normal((max(p, r), min(p, r))), mode="economic")
    return (q if p >= r else q.T).astype(np.float32)


def itq_rotation(V, R, n_iter):
    """Alternate T = sign(V R) and R = argmin |T - V R| over orthonormal projections (Gong & Lazebnik, CVPR 2011)."""
    for _ in range(n_iter):
        U, _, Zt = linalg.svd(V.T @ signs(V @ R), full_matrices=False)
        R = U @ Zt
    return R


def principal_directions(Xc, p):
    """The leading p eigenvectors of Xc^T Xc, largest first; fewer where the rank is less."""
    values, vectors = linalg.eigh((Xc.T @ Xc).astype(np.float64))
    values, vectors = values[::-1][:p], vectors[:, ::-1][:, :p]
    return vectors[:, values > 1e-6 * values[0]].astype(np.float32)


class Linear:
    """What is common: codes are the signs of (X - mean_) W_ + bias_."""

    bias_ = 0.0

    def __init__(self, n_bits, random_state=0):
        self.n_bits, self.random_state = n_bits, random_state

    def project(self, X):
        return (X - self.mean_) @ self.W_ + self.bias_

    def transform(self, X):
        return pack_codes(self.project(X))

    def centred(self, X):
        self.mean_ = X.mean(axis=0, dtype=np.float64).astype(np.float32)
        return X - self.mean_


class RandomProjections(Linear):
    """Signs of Gaussian projections (Charikar 2002), "LSH"."""

    def fit(self, X):
        self.centred(X)
        rng = np.random.default_rng(self.random_state)
        self.W_ = rng.standard_normal((X.shape[1], self.n_bits), np.float32)
        return self


class RawSigns(Linear):
    """Sign of each feature about its mean: what "binary quantisation" of vector databases does. n_bits is d."""

    def fit(self, X):
        if self.n_bits != X.shape[1]:
            raise ValueError(f"sign of the raw embedding has one bit a feature: n_bits must be {X.shape[1]}")
        self.centred(X)
        return self

    def project(self, X):
        return X - self.mean_


class PCASigns(Linear):
    """Signs of the leading principal components."""

    def fit(self, X):
        self.W_ = principal_directions(self.centred(X), self.n_bits)
        if self.W_.shape[1] < self.n_bits:
            raise ValueError(f"X has {self.W_.shape[1]} principal directions, fewer than n_bits={self.n_bits}")
        return self


class ITQ(Linear):
    """PCA to p dimensions, then a projection to n_bits towards signs (Gong & Lazebnik 2011 for p = n_bits).

    p < n_bits is the simple baseline that spends all bits on the leading directions.
    """

    n_iter = 50

    def __init__(self, n_bits, random_state=0, n_components=None):
        super().__init__(n_bits, random_state)
        self.n_components = n_components

    def fit(self, X):
        Xc = self.centred(X)
        D = principal_directions(Xc, self.n_components or self.n_bits)
        rng = np.random.default_rng(self.random_state)
        self.W_ = D @ itq_rotation(Xc @ D, random_orthonormal(D.shape[1], self.n_bits, rng), self.n_iter)
        return self


class Control(Linear):
    """The rounds of APHash with the descent taken out: what re-projection alone does.

    Start from ITQ; each round centres B, turns it towards signs (30 iterations; from a random rotation on at most
    20,000 rows, or from the identity on at most 100,000, as ours), and fits B again by ridge from X. What APHash adds
    is its distance to these.

    ``whitening`` w divides the starting directions by their standard deviation to the power w, ``last_ridge`` is the
    ridge of the last round: whatever setting of ours could help without the descent, the controls are given too.
    """

    def __init__(
        self, n_bits, random_state=0, n_rounds=8, rotation="random", ridge=1e-2, whitening=0.0, last_ridge=None
    ):
        super().__init__(n_bits, random_state)
        self.n_rounds, self.rotation, self.ridge = n_rounds, rotation, ridge
        self.whitening, self.last_ridge = whitening, ridge if last_ridge is None else last_ridge

    def fit(self, X):
        rng = np.random.default_rng(self.random_state)
        r = self.n_bits
        Xc = self.centred(X)
        scale = 1 / np.sqrt(np.einsum("ij,ij->", Xc, Xc, dtype=np.float64) / len(Xc))
        Xc *= np.float32(scale)
        D = principal_directions(Xc, r)
        B = Xc @ D
        B *= (B.std(axis=0) / B[:, 0].std()) ** -self.whitening
        start = random_orthonormal(D.shape[1], r, rng)
        rows = 20_000 if self.rotation == "random" else max(20_000, min(100_000, 6_400_000 // r))
        sample = rng.permutation(len(X))[:rows]
        B = B @ itq_rotation(B[sample], start, 100)
        X1 = np.hstack([Xc, np.ones((len(Xc), 1), np.float32)])
        G = (X1.T @ X1).astype(np.float64)
        unit = np.trace(G) / len(G) * np.eye(len(G))
        factor, last = (linalg.cho_factor(G + share * unit) for share in (self.ridge, self.last_ridge))
        for number in range(1, self.n_rounds + 1):
            B /= np.abs(B).mean()
            B -= B.mean(axis=0)
            start = random_orthonormal(r, r, rng) if self.rotation == "random" else np.eye(r, dtype=np.float32)
            B = B @ itq_rotation(B[sample], start, 30)
            W = linalg.cho_solve(
                last if number == self.n_rounds else factor, (X1.T @ signs(B)).astype(np.float64)
            ).astype(np.float32)
            B = X1 @ W
        self.W_, self.bias_ = W[:-1] * np.float32(scale), W[-1]
        return self


_MEANS_ROWS = 20_000  # from which what maps to means, or rebuilds them, is learned
_lists = {}  # the last database and its nearest rows: seconds to minutes, and several methods need the same


def nearest_of_rows(X, k):
    """Positions of the k nearest rows of X to each of its rows, itself among them, (n, k); the last X's are kept."""
    import faiss

    known = _lists.get("X")
    if known is not X or _lists["found"].shape[1] < k:
        _lists.update(X=X, found=faiss.knn(X, X, k)[1].astype(np.int32))
    return _lists["found"][:, :k]


def means_of(X, lists):
    """The mean of the rows of X that each list names, (len(lists), d) float32."""
    return np.concatenate([X[lists[a : a + 1000]].mean(axis=1) for a in range(0, len(lists), 1000)])


class NeighborMeans(Linear):
    """A linear map to the mean of an item's nearest neighbours, and ITQ behind it: more of the kind, without APHash.

    Ridge (the controls' share, .01) from [x, 1] to the mean of the k nearest rows of the database, on at most 20,000 of
    its rows; ITQ on the mapped database. Queries go through the same map.
    """

    ridge = 1e-2

    def __init__(self, n_bits, random_state=0, k=200):
        super().__init__(n_bits, random_state)
        self.k = k

    def fit(self, X):
        rng = np.random.default_rng(self.random_state)
        k = min(self.k, len(X))
        some = np.sort(rng.permutation(len(X))[:_MEANS_ROWS])
        Xc = self.centred(X)
        target = means_of(X, nearest_of_rows(X, max(k, min(200, len(X))))[some, :k]) - self.mean_
        X1 = np.hstack([Xc[some], np.ones((len(some), 1), np.float32)])
        G = (X1.T @ X1).astype(np.float64)
        G[np.diag_indices(len(G))] += self.ridge * np.trace(G) / len(G)
        W = linalg.solve(G, (X1.T @ target).astype(np.float64), assume_a="pos").astype(np.float32)
        mapped = Xc @ W[:-1] + W[-1]
        centre = mapped.mean(axis=0)
        D = principal_directions(mapped - centre, self.n_bits)
        R = random_orthonormal(D.shape[1], self.n_bits, rng)
        R = itq_rotation((mapped - centre)[some] @ D, R, ITQ.n_iter)
        self.W_, self.bias_ = W[:-1] @ D @ R, (W[-1] - centre) @ D @ R
        return self


class MeanBits(Linear):
    """Score-aware bits of the mean of an item's nearest neighbours.

    v, the mean of x's k nearest rows, centred, is rebuilt by b D, and what is lost along v, which scores see, weighs
    eta times what is lost across (the anisotropic loss of Guo et al. 2020, for an additive code of bits):

        loss = |e|^2 + (eta - 1) (e . v)^2 / |v|^2,  e = v - b D

    D by least squares and the bits of 20,000 means by coordinate descent in turns, from ITQ; then all bits. A query's
    weights are (q - mean) D^T. Items need their neighbours in the database to be encoded.
    """

    n_rounds, n_sweeps = 10, 3

    def __init__(self, n_bits, random_state=0, k=200, eta=4.0):
        super().__init__(n_bits, random_state)
        self.k, self.eta = k, eta

    def fit(self, X):
        rng = np.random.default_rng(self.random_state)
        self.X_, k = X, min(self.k, len(X))
        self.centred(X)
        lists = nearest_of_rows(X, max(k, min(200, len(X))))
        V = means_of(X, lists[np.sort(rng.permutation(len(X))[:_MEANS_ROWS]), :k]) - self.mean_
        self.start_ = principal_directions(V, self.n_bits)
        R = random_orthonormal(self.start_.shape[1], self.n_bits, rng)
        self.start_ = self.start_ @ itq_rotation(V @ self.start_, R, 30)
        B = signs(V @ self.start_)
        self.W_ = self._decoder(B, V).T
        for _ in range(self.n_rounds):
            self._sweep(B, V, 1)
            self.W_ = self._decoder(B, V).T
        return self

    def _decoder(self, B, V, n_steps=8):
        """Lower the loss in D, (r, d), by steps that the plain least squares' normal equations precondition."""
        G = (B.T @ B).astype(np.float64)
        G[np.diag_indices(len(G))] += 1e-2 * len(B)
        factor = linalg.cho_factor(G)
        D = linalg.cho_solve(factor, (B.T @ V).astype(np.float64)).astype(np.float32)
        size = np.maximum(np.einsum("ij,ij->i", V, V), 1e-9)
        for _ in range(n_steps if self.eta > 1 else 0):
            E = V - B @ D
            E += ((self.eta - 1) * np.einsum("ij,ij->i", E, V) / size)[:, None] * V
            D = D + (linalg.cho_solve(factor, (B.T @ E).astype(np.float64)) / self.eta).astype(np.float32)
        return D

    def _sweep(self, B, V, n_sweeps):
        """Flip bits of B where that lowers the loss, one column after the other, in all rows at once."""
        D = np.ascontiguousarray(self.W_.T)
        G, C = D @ D.T, V @ D.T
        size = np.maximum(np.einsum("ij,ij->i", V, V), 1e-9)
        S, along = B @ G, size - np.einsum("ij,ij->i", B, C)  # b D D^T; e . v
        share = (self.eta - 1) / size
        for _ in range(n_sweeps):
            for j in range(len(D)):
                b, c = B[:, j], C[:, j]
                across = 4 * b * (c - S[:, j]) + 4 * G[j, j]  # of |e|^2, where b_j becomes -b_j: e grows by 2 b_j D_j
                flip = np.flatnonzero(across + share * ((along + 2 * b * c) ** 2 - along**2) < 0)
                along[flip] += 2 * b[flip] * c[flip]
                S[flip] -= 2 * b[flip, None] * G[j]
                B[flip, j] *= -1

    def transform(self, X):
        """Codes of the database's own rows, or of others by their neighbours in it."""
        k = min(self.k, len(self.X_))
        lists = nearest_of_rows(X, k) if X is self.X_ else _nearest(X, self.X_, k)
        codes = []
        for a in range(0, len(X), 10_000):
            V = means_of(self.X_, lists[a : a + 10_000]) - self.mean_
            B = signs(V @ self.start_)
            self._sweep(B, V, self.n_sweeps)
            codes.append(pack_codes(B))
        return np.concatenate(codes)


def _nearest(Q, X, k):
    import faiss

    return faiss.knn(np.ascontiguousarray(Q), X, k)[1]


class SpectralHashing(Linear):
    """Eigenfunctions of a uniform box along the principal directions (Weiss, Torralba & Fergus 2008)."""

    def fit(self, X):
        Xc = self.centred(X)
        self.directions_ = principal_directions(Xc, self.n_bits)
        V = Xc @ self.directions_
        self.low_ = V.min(axis=0)
        span = V.max(axis=0) - self.low_
        counts = np.ceil((self.n_bits + 1) * span / span.max()).astype(int)  # more modes than that are never chosen
        direction = np.repeat(np.arange(len(counts)), counts)
        mode = np.concatenate([np.arange(1, c + 1) for c in counts])
        chosen = np.argsort((mode / span[direction]) ** 2, kind="stable")[: self.n_bits]
        self.chosen_, self.frequency_ = direction[chosen], np.pi * mode[chosen] / span[direction[chosen]]
        return self

    def project(self, X):
        V = (X - self.mean_) @ self.directions_ - self.low_
        return np.sin(np.pi / 2 + V[:, self.chosen_] * self.frequency_)


class AnchorGraphHashing(Linear):
    """One-layer anchor graph hashing (Liu, Wang, Kumar & Chang 2011): 300 k-means anchors, the 3 nearest of each item.

    Z (n, m) holds Gaussian weights to the nearest anchors, rows summing to 1, Lambda = diag(Z^T 1). With
    M = Lambda^-1/2 Z^T Z Lambda^-1/2 = U S U^T, the codes are the signs of Z Lambda^-1/2 U S^-1/2 without the constant
    eigenvector.
    """

    n_anchors, n_nearest = 300, 3

    def fit(self, X):
        if self.n_bits >= self.n_anchors:
            raise ValueError(f"anchor graph hashing has fewer bits than anchors, {self.n_anchors}: got {self.n_bits}")
        rng = np.random.RandomState(self.random_state)
        sample = X[rng.permutation(len(X))[:20_000]]
        self.anchors_ = KMeans(self.n_anchors, n_init=1, max_iter=5, random_state=rng).fit(sample).cluster_centers_
        _, d2 = self._nearest(X)
        self.bandwidth_ = np.sqrt(d2[:, -1]).mean() ** 2
        Z = self._weights(X)
        size = Z.sum(axis=0)
        root = 1 / np.sqrt(np.maximum(size, 1e-12))
        values, vectors = linalg.eigh((root[:, None] * (Z.T @ Z) * root).astype(np.float64))
        keep = np.argsort(-values)[1 : self.n_bits + 1]
        self.W_ = root[:, None] * vectors[:, keep] / np.sqrt(np.maximum(values[keep], 1e-12))
        return self

    def _nearest(self, X):
        d2 = squared_distances(X, self.anchors_)
        near = np.argpartition(d2, self.n_nearest - 1, axis=1)[:, : self.n_nearest]
        d2 = np.take_along_axis(d2, near, axis=1)
        order = np.argsort(d2, axis=1)
        return np.take_along_axis(near, order, axis=1), np.take_along_axis(d2, order, axis=1)

    def _weights(self, X):
        near, d2 = self._nearest(X)
        weight = np.exp(-d2 / self.bandwidth_)
        Z = np.zeros((len(X), self.n_anchors), np.float32)
        np.put_along_axis(Z, near, weight / weight.sum(axis=1, keepdims=True), axis=1)
        return Z

    def project(self, X):
        return self._weights(X) @ self.W_


class FullAffinity(Linear):
    """The same objective with every item an anchor, P and Q as full n x n matrices, as in SePH (Lin et al. 2015).

    P by thresholds over k = .05 n neighbours, Q Student t (s = a = 1), full
    gradient, Adam, then ridge. Here to show where time and memory end: it needs four n x n float32 matrices.
    """

    n_iter, learning_rate, quantization, ridge = 60, 0.05, 0.3, 1e-2

    def fit(self, X):
        rng = np.random.default_rng(self.random_state)
        n, r = len(X), self.n_bits
        Xc = self.centred(X)
        D = principal_directions(Xc, r)
        B = Xc @ D
        B = B @ itq_rotation(B, random_orthonormal(D.shape[1], r, rng), 50)
        B /= np.abs(B).mean()
        d = np.sqrt(np.maximum(squared_distances(Xc, Xc), 0))
        theta = np.partition(d, max(1, n // 20) - 1, axis=1)[:, : max(1, n // 20)].mean(axis=1)
        P = (d <= theta[:, None]).astype(np.float32)
        P /= P.sum(axis=1, keepdims=True)
        del d
        mean, square = np.zeros_like(B), np.zeros_like(B)
        for t in range(1, self.n_iter + 1):
            V = 1 / (1 + squared_distances(B, B) / 4)
            A = (P - V / V.sum(axis=1, keepdims=True)) * V
            A += A.T
            gradient = (A.sum(axis=1, keepdims=True) * B - A @ B) / 2
            gradient += self.quantization * 2 / r * (np.abs(B) - 1) * signs(B)
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            B -= self.learning_rate * (mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        G = (Xc.T @ Xc).astype(np.float64)
        G += self.ridge * np.trace(G) / len(G) * np.eye(len(G))
        self.W_ = linalg.solve(G, (Xc.T @ signs(B)).astype(np.float64), assume_a="pos").astype(np.float32)
        return self


def squared_distances(A, B):
    """Squared Euclidean distances, (len(A), len(B))."""
    d2 = -2 * (A @ B.T)
    d2 += np.einsum("ij,ij->i", A, A)[:, None]
    d2 += np.einsum("ij,ij->i", B, B)[None]
    return d2


class Floats:
    """Brute force over the float vectors."""

    def __init__(self, n_bits=None, random_state=0):
        pass

    def fit(self, X):
        self.X_ = X
        self.bytes_per_item = 4 * X.shape[1]
        return self

    def distances(self, Q):
        return squared_distances(Q, self.X_)

    def state(self):
        return {}  # the data set itself


class Faiss:
    """A faiss index that holds codes; distances are faiss's own estimates between floats and codes (asymmetric)."""

    def __init__(self, n_bits, random_state=0):
        self.n_bits, self.random_state = n_bits, random_state

    def fit(self, X):
        import faiss

        faiss.omp_set_num_threads(1)
        self.index_ = self._index(X.shape[1])
        self.index_.train(X)
        self.index_.add(X)
        return self

    def distances(self, Q):
        return all_distances(self.index_, Q)

    def state(self):
        import faiss

        return {"faiss": faiss.serialize_index(self.index_)}


class PQ(Faiss):
    """Product quantisation (Jegou, Douze & Schmid 2011): n_bits / part_bits sub-quantisers; n_bits / 8 bytes.

    ``part_bits``: 8 (256 centres), or 4 (16 centres: the codes of faiss's fast scan, without its rounding of tables).
    ``rotated=True``: of the n_bits first principal components, rotated at random, so that all parts hold as much;
    otherwise of the features.
    """

    def __init__(self, n_bits, random_state=0, rotated=False, part_bits=8):
        super().__init__(n_bits, random_state)
        if part_bits not in (4, 8):
            raise ValueError(f"part_bits must be 4 or 8, got {part_bits}")
        self.rotated, self.part_bits = rotated, part_bits

    @property
    def bytes_per_item(self):
        return self.n_bits // 8

    def _parts(self, d):
        parts = self.n_bits // self.part_bits
        if self.n_bits % 8 or d % parts:
            raise ValueError(f"PQ needs its {parts} parts to divide the {d} numbers that they are made of")
        return parts

    def _index(self, d):
        import faiss

        width = min(d, self.n_bits) if self.rotated else d
        quantiser = faiss.IndexPQ(width, self._parts(width), self.part_bits)
        quantiser.pq.cp.seed, quantiser.pq.cp.min_points_per_centroid = self.random_state + 1, 1
        if not self.rotated:
            return quantiser
        rotation = faiss.RandomRotationMatrix(width, width)
        rotation.init(self.random_state)
        self.kept_ = (faiss.PCAMatrix(d, width), rotation, quantiser)  # faiss does not own them
        index = faiss.IndexPreTransform(quantiser)
        index.prepend_transform(rotation)
        index.prepend_transform(self.kept_[0])
        return index


class OPQ(PQ):
    """PQ after a learned rotation (Ge, He, Ke & Sun 2013), to 4 dimensions a byte as faiss's guidelines advise.

    The rotation is learned from 20,000 rows: faiss's default of all rows takes minutes and gains little.
    """

    def _index(self, d):
        import faiss

        parts = self.n_bits // 8
        width = min(d // parts * parts, 4 * parts)
        quantiser = faiss.IndexPQ(width, parts, 8)
        quantiser.pq.cp.seed, quantiser.pq.cp.min_points_per_centroid = self.random_state + 1, 1
        rotation = faiss.OPQMatrix(d, parts, width)
        rotation.max_train_points = 20_000
        index = faiss.IndexPreTransform(rotation, quantiser)
        self.kept_ = (rotation, quantiser)  # faiss does not own them
        return index


class RaBitQ(Faiss):
    """RaBitQ (Gao & Long 2024) of faiss: PCA, a random rotation, one bit a dimension, and two float32 factors an item.

    ``inside=True`` counts the 8 bytes of the factors within n_bits / 8, so only n_bits - 64 dimensions are left: equal
    bytes. ``inside=False`` keeps n_bits dimensions and needs 8 bytes more than the codes it is compared with.
    """

    def __init__(self, n_bits, random_state=0, inside=True):
        super().__init__(n_bits, random_state)
        self.inside = inside
        if inside and n_bits <= 64:
            raise ValueError(f"RaBitQ needs 8 bytes of factors an item: n_bits must be above 64, got {n_bits}")

    @property
    def bytes_per_item(self):
        return self.n_bits // 8 + (0 if self.inside else 8)

    def _index(self, d):
        import faiss

        width = min(d, self.n_bits - 64 if self.inside else self.n_bits)
        rotation = faiss.RandomRotationMatrix(width, width)
        rotation.init(self.random_state)
        quantiser = faiss.IndexRaBitQ(width, faiss.METRIC_L2)
        self.kept_ = (faiss.PCAMatrix(d, width), rotation, quantiser)
        index = faiss.IndexPreTransform(quantiser)
        index.prepend_transform(rotation)
        index.prepend_transform(self.kept_[0])
        return index


def all_distances(index, Q):
    """Distances of a faiss index to every item, (len(Q), n) float32, in the order of the items."""
    import faiss

    Q = np.ascontiguousarray(Q, np.float32)
    if isinstance(index, faiss.IndexPreTransform):
        for i in range(index.chain.size()):
            Q = faiss.downcast_VectorTransform(index.chain.at(i)).apply(Q)
        index = faiss.downcast_index(index.index)
    n = index.ntotal
    if isinstance(index, faiss.IndexPQ):  # the asymmetric distance is the one to the decoded vector
        return squared_distances(Q, index.reconstruct_n(0, n))
    limits, found, ids = index.range_search(Q, np.inf)
    if limits[-1] != len(Q) * n:
        raise RuntimeError(f"faiss returned {limits[-1]} of {len(Q) * n} distances")
    out = np.empty((len(Q), n), np.float32)
    out[np.repeat(np.arange(len(Q)), n), ids] = found
    return out


def restore(state, X):
    """Return a function from queries to distances for what ``state()`` stored; X is the database."""
    if "faiss" not in state:
        return Floats().fit(X).distances
    import faiss

    index = faiss.deserialize_index(state["faiss"])
    return lambda Q: all_distances(index, Q)
