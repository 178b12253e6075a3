"""How items get their bits in mode "scores": from their nearest anchors, one item at a time. Needs numpy only.

A query is real there: p = V (q - mu), and p . b scores an item with bits b. An item's bits are those that lower its
share of J0 (csrc/learn/bits.inc.h has the formula), found in four steps that see nothing but the item and the anchors:

1. begin with the signs of the start map, descend to bits of equal norms;
2. ask the anchors' codes for candidates by p = V (x - mu), with the search that the bits are made for;
3. compute their exact distances: the nearest of them are the anchors in whose P the item has a share;
4. descend on the item's share of J0.

A query is an anchor whose bits are not needed. So p itself descends on its share of J0, with all bits fixed: from
V (q - mu), some steps down the gradient sum_j (Q(j) - P(j)) b_j over the candidates of step 2 (``query_steps``).

In mode "semantic-scores", x is z of ``kind_space``, for anchors and items alike.
"""

import numpy as np

from aphash._learning import _bits, kind_space
from aphash._learning._projection import Projection
from aphash._learning._source import working
from aphash._searching import queries
from aphash._searching._store import Store
from aphash._searching.engines import SCAN
from aphash.codes import n_words

FIRST_SWEEPS, SWEEPS = 3, 3  # over the bits: at most so often, and until none changes
_CHUNK = 4096  # items that are encoded together
_RATE = 6.4  # of a step of a query's weights, for all bits: the more share a score, the less each moves
_PERPLEXITY = 0.5  # of a query's P, for each near anchor

ARRAYS = {  # what a model's file holds of it, with dtypes and dimensions
    "start": (np.float32, "dr"), "decoder": (np.float32, "rd"), "anchors": (np.uint16, "md"),
    "codes": (np.uint64, "mw"), "log_z": (np.float32, "m"), "sharpness": (np.float32, "m"), "log_p": (np.float32, "m"),
    "far": (np.float32, "rr"),
}  # fmt: skip
NUMBERS = ("norm", "equal_norms", "offset", "scale", "rho", "n_near", "n_candidates")
KIND_ARRAYS = kind_space.ARRAYS | {"weights": (np.float32, "dr")}  # of mode "semantic-scores"
LATER_NUMBERS = ("query_steps", "kind_scale", "by_decoder")  # not of the first files; of that mode; of some long codes


def has_later(numbers):
    """Whether these are numbers that the first files of items did not have."""
    return any(name in numbers for name in LATER_NUMBERS)


class ItemEncoder:
    """Vectors to the bits of modes "scores" and "semantic-scores".

    Parameters
    ----------
    weights : ndarray of float32, shape (d, r)
        V, transposed: what maps working vectors, or those of the kind space, to a query's weights.
    arrays : dict
        As :data:`ARRAYS` says: ``start`` and ``decoder`` (W and D), the anchors' working vectors as bfloat16 (the upper
        half of a float32) and their codes, log Z, beta and log sum of P, the form F. With a kind space, also as
        :data:`KIND_ARRAYS` says, the weights among them; then d is the space's e.
    numbers : dict
        As :data:`NUMBERS` says: nu, lambda / nu, w, s, rho, and how many near anchors are taken from how many
        candidates. ``query_steps`` is how many steps the weights of queries take; without it, none. ``kind_scale``
        belongs to a kind space. With ``by_decoder``, an item's bits have to rebuild it by D,
        and not by V.
    p : ndarray of float32, shape (m, r), optional
        The anchors' weights, where they are known.

    Raises
    ------
    ValueError
        When they do not fit each other.

    Notes
    -----
    Holds 2 m d + 4 m r bytes and some more for m anchors, and as much as a search of m codes while it encodes.
    """

    def __init__(self, weights, arrays, numbers, p=None):
        d, r = weights.shape
        m = len(arrays["anchors"])
        own, names = ARRAYS, (*NUMBERS, *(name for name in LATER_NUMBERS if name in numbers))
        sizes = {"d": d, "r": r, "m": m, "w": n_words(r)}
        if "kind_map" in arrays:
            own = ARRAYS | KIND_ARRAYS
            sizes |= {"e": d, "D": len(arrays["kind_map"])}
        for name, (dtype, axes) in own.items():
            array, shape = arrays[name], tuple(sizes[axis] for axis in axes)
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(
                    f"arrays do not fit each other: {name} must be {np.dtype(dtype)} of shape {shape}, got "
                    f"{array.dtype} of shape {array.shape}"
                )
        for name in names:
            if not np.isfinite(numbers[name]):
                raise ValueError(f"{name} must be finite, got {numbers[name]}")
        for name in ("n_near", "n_candidates"):
            if not 1 <= numbers[name] < 1 << 31 or numbers[name] != int(numbers[name]):
                raise ValueError(f"{name} must be a positive integer, got {numbers[name]}")
        if not 0 <= numbers.get("query_steps", 0) < 1 << 31:
            raise ValueError(f"query_steps must be a number of steps, got {numbers['query_steps']}")
        self.arrays = {name: np.ascontiguousarray(arrays[name]) for name in own}
        self.numbers = {name: numbers[name] for name in names}
        self.weights = np.ascontiguousarray(weights)
        self.kind_space = None
        if "kind_map" in arrays:
            parts = (self.arrays[name] for name in kind_space.ARRAYS)
            self.kind_space = kind_space.KindSpace(*parts, float(numbers["kind_scale"]))
        self._packed = None
        self._codes = Store(r)
        self._codes.add(self.arrays["codes"])
        self._pack(p)

    def __reduce__(self):
        return type(self), (self.weights, self.arrays, self.numbers)

    def fingerprint(self, digest):
        """Update a digest with all that codes depend on."""
        for name, array in self.arrays.items():
            digest.update(f"{name}{array.shape}".encode() + array.astype(array.dtype.newbyteorder("<")).tobytes())
        for name, number in self.numbers.items():
            digest.update(f"{name}={float(number).hex()}".encode())

    def _pack(self, p=None):
        """Return (maps, scores, the map to weights), for the instruction set in use."""
        packed = self._packed
        if packed is None or not packed[0].is_current():
            decoder = self.arrays["decoder"].T
            rebuilds = decoder if self.numbers.get("by_decoder") else self.weights
            one_map = np.concatenate([self.arrays["start"], decoder, rebuilds], axis=1)
            kernels = scores(self.weights, self.arrays, self.numbers, p)
            packed = self._packed = _map(one_map), kernels, _map(self.weights)
        return packed

    def encode(self, source, codes, n_threads):
        """Write the codes of all items of a source, whose working vectors are those of the anchors.

        Parameters
        ----------
        source : Source
            Of as many features as the anchors have, or as the kind space takes.
        codes : ndarray of uint64, shape (n, n_words)
        n_threads : int
        """
        for start, V in self._chunks(source, n_threads):
            self._encode(V, codes[start : start + len(V)], n_threads)

    def encode_vectors(self, V, n_threads):
        """Return the codes of vectors float32 (n, d) of the space in which the anchors are."""
        codes = np.empty((len(V), n_words(self.weights.shape[1])), np.uint64)
        for start in range(0, len(V), _CHUNK):
            some = slice(start, start + _CHUNK)
            self._encode(V[some], codes[some], n_threads)
        return codes

    def _encode(self, V, codes, n_threads):
        projection, kernels, asks = self._pack()
        n, r = len(V), self.weights.shape[1]
        maps = np.empty((n, 3 * r), np.float32)
        projection.project(V, maps, n_threads)
        weights = maps[:, 2 * r :]
        if self.numbers.get("by_decoder"):
            weights = np.empty((n, r), np.float32)
            asks.project(V, weights, n_threads)
        candidates, n_near = self._candidates(weights, n_threads), int(self.numbers["n_near"])
        kernels.encode(V, maps, candidates, n_near, FIRST_SWEEPS, SWEEPS, codes, n_threads)

    def query_weights(self, source, weights, n_threads):
        """Write the weights of all queries of a source: their projections, moved towards the anchors near them.

        Parameters
        ----------
        source : Source
            As of :meth:`encode`.
        weights : ndarray of float32, shape (n, n_bits)
        n_threads : int
        """
        for start, V in self._chunks(source, n_threads):
            weights[start : start + len(V)] = self.moved(V, int(self.numbers["query_steps"]), n_threads)

    def moved(self, V, steps, n_threads, bitmap=None):
        """Return the weights of vectors float32 (n, d) of the space in which the anchors are, after some steps.

        ``bitmap`` says which anchors are there for them.
        """
        _, kernels, asks = self._pack()
        r, n_near = self.weights.shape[1], int(self.numbers["n_near"])
        p = np.empty((len(V), r), np.float32)
        asks.project(V, p, n_threads)
        if steps:
            candidates, perplexity = self._candidates(p, n_threads, bitmap), _PERPLEXITY * n_near
            codes = self.arrays["codes"]
            kernels.move_queries(V, codes, candidates, n_near, perplexity, _RATE / r, steps, p, n_threads)
        return p

    @property
    def snapshot(self):
        """The anchors' codes, to be searched."""
        return self._codes.present

    def _chunks(self, source, n_threads):
        """Yield (start, vectors of the space in which the anchors are) of the items of a source."""
        X = np.empty((min(_CHUNK, max(1, source.n)), source.d), np.float32)
        for start in range(0, source.n, _CHUNK):
            some = X[: min(_CHUNK, source.n - start)]
            working(source, start, start + len(some), some)
            yield start, some if self.kind_space is None else self.kind_space(some, n_threads)

    def _candidates(self, weights, n_threads, bitmap=None):
        """Return the anchors with the highest scores, int64 (n, n_candidates)."""
        n_candidates = min(int(self.numbers["n_candidates"]), len(self.snapshot))
        return queries.nearest(SCAN, self.snapshot, weights.astype(np.float64), n_candidates, bitmap, n_threads)[1]


def _map(weights):
    d, r = weights.shape
    return Projection(np.ascontiguousarray(weights, np.float32), np.zeros(r, np.float32), np.zeros(d), 1.0)


def project(X, weights, n_threads=1):
    """Return working vectors (n, d) times weights (d, r), float32; each row's numbers are its own."""
    out = np.empty((len(X), weights.shape[1]), np.float32)
    _map(weights).project(np.ascontiguousarray(X), out, n_threads)
    return out


def to_bfloat16(X):
    """Return the upper halves of float32 numbers, rounded to even, as uint16."""
    bits = np.ascontiguousarray(X, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def from_bfloat16(halves):
    """Return float32 numbers whose upper halves are given."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def scores(weights, arrays, numbers, p=None):
    """Return the state of the objective as the kernels take it; see :class:`ItemEncoder` for the arguments."""
    m, r = len(arrays["anchors"]), weights.shape[1]
    padded, norms = np.zeros((m, -(-r // 16) * 16), np.float32), np.empty(m, np.float32)
    for start in range(0, m, _CHUNK):
        A = from_bfloat16(arrays["anchors"][start : start + _CHUNK])
        some = slice(start, start + len(A))
        padded[some, :r] = project(A, weights) if p is None else p[some]
        norms[start : start + len(A)] = np.einsum("ij,ij->i", A, A, dtype=np.float64)
    decoder = np.ascontiguousarray(arrays["decoder"].T)
    rebuilds = decoder if numbers.get("by_decoder") else weights
    made = {
        "anchors": arrays["anchors"], "p": padded, "norms": norms, "log_z": arrays["log_z"],
        "sharpness": arrays["sharpness"], "log_p": arrays["log_p"], "far": arrays["far"],
        "gram_d": project(arrays["decoder"], decoder), "gram_v": project(np.ascontiguousarray(rebuilds.T), rebuilds),
    }  # fmt: skip
    return _bits.Scores(made, *(float(numbers[name]) for name in NUMBERS[:5]))
