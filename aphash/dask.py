"""The same two classes over dask arrays: learning and searching past one machine. Needs ``pip install aphash[dask]``.

Rows are rechunked to the blocks of ``aphash._rows``, which depend on their number only; each block's sums are made by
the same functions as on one machine, and added in the same order. So codes, thresholds and hash function are those of
:class:`aphash.APHash`, bit for bit, whatever the chunks, the number of workers and the schedule, on one kind of CPU and
libraries. Blocks live on the workers as results of pure tasks: dask makes them again when a worker is lost.
"""

import copy

import numpy as np
from sklearn.utils.validation import check_is_fitted

from aphash import _hasher, _learn, _runtime
from aphash._linear import Rotation
from aphash._optimize import learn
from aphash._rows import Rows, block_rows, blocks, check_finite, chunk_rows
from aphash.codes import n_words

try:
    import dask
    import dask.array as da
except ImportError:
    raise ImportError("aphash.dask needs dask: pip install 'aphash[dask]'") from None

_BATCH = 32  # blocks whose results come to the client at a time


class APHash(_hasher.APHash):
    """:class:`aphash.APHash` for dask arrays: the same parameters, the same attributes, the same bits.

    ``fit`` takes a dask array of shape (n, d), chunked in any way; unknown chunk sizes are computed first. ``codes_``
    is a persisted dask array, which is never gathered. ``transform`` and ``decision_function`` take dask arrays and
    return lazy ones. ``n_jobs`` has no effect: a task uses one thread, and dask runs the tasks.

    Notes
    -----
    Uses the scheduler that dask uses: threads, or the workers of the current ``distributed.Client``. Of an iteration,
    m (2 n_bits + 4) numbers come back from each block, and m (n_bits + 2) go out; in a round, two lists of about 1.3
    n_anchors n_neighbors candidates come back. A worker needs 12 n_bits + 4 d bytes for each training row it holds.
    """

    def fit(self, X, y=None):
        """Learn from the rows of a dask array; see :meth:`aphash.APHash.fit`.

        Raises
        ------
        TypeError
            When X is not a dask array of real numbers.
        ValueError
            As on one machine; for NaN and infinity the block of rows is named.
        """
        self._check_params()
        rng = self._random_state()
        X = _known(X)
        n, n_train = len(X), min(len(X), _hasher.TRAIN_ROWS if self.n_train == "auto" else self.n_train)
        if n < 2:
            raise ValueError(f"Found array with {n} sample(s) while a minimum of 2 is required by APHash")
        settings = self._settings(n_train)
        rows = None
        if n_train < n:
            rows = np.sort(rng.choice(n, n_train, replace=False))
            for _ in _compute([dask.delayed(_check_block)(each, at) for each, at in _located(X)]):
                pass
        with _runtime.one_blas_thread, _hasher._Progress(self.verbose, settings, n_train) as progress:
            training = _DaskRows(X if rows is None else X[rows])
            found = learn(training, settings, rng, progress)
        fitted = self._attributes(found, training, rows)
        codes = training.codes()
        if rows is not None:
            codes = _replace(_encode(X, fitted), rows, codes)
        fitted["codes_"] = codes.persist()
        vars(self).update(fitted, n_features_in_=X.shape[1])
        return self

    def transform(self, X):
        """Return the codes of a dask array, lazily: a dask array of uint64, shape (n, n_words)."""
        return _encode(self._checked(X), vars(self))

    def decision_function(self, X):
        """Return the projections of a dask array, lazily: a dask array of float32, shape (n, n_bits)."""
        return _project(self._checked(X), vars(self))

    def _checked(self, X):
        check_is_fitted(self)
        X = _array(X)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {X.shape[1]} features, but APHash is expecting {self.n_features_in_} features")
        return X.rechunk({1: -1})


def _array(X):
    if not isinstance(X, da.Array):
        raise TypeError(f"X must be a dask array, got {type(X).__name__}; aphash.APHash takes numpy arrays")
    if X.ndim != 2:
        raise ValueError(f"X must have shape (n, d), got {X.ndim} dimension(s)")
    if X.dtype.kind not in "fiub":
        raise TypeError(f"X must hold real numbers, got dtype {X.dtype}")
    if X.dtype not in _hasher._DTYPES:
        X = X.astype(np.float32)
    return X


def _known(X):
    X = _array(X)
    if np.isnan(X.shape).any():
        X = copy.copy(X)  # compute_chunk_sizes writes into its array
        X.compute_chunk_sizes()
    if X.shape[1] == 0:
        raise ValueError("Found array with 0 feature(s) while a minimum of 1 is required by APHash")
    return X.rechunk({1: -1})


def _located(X):
    """Yield (delayed chunk, its first row) of the chunks of rows."""
    return zip(X.to_delayed().ravel(), np.concatenate([[0], np.cumsum(X.chunks[0])])[:-1], strict=True)


def _check_block(block, first_row):
    try:
        check_finite(block)
    except ValueError as error:
        raise ValueError(f"{error} of the chunk that begins at row {first_row}") from None


def _compute(tasks):
    """Yield the tasks' results in their order, a batch at a time, so that the client holds a batch only."""
    for start in range(0, len(tasks), _BATCH):
        yield from dask.compute(*tasks[start : start + _BATCH])


# -- the hash function ------------------------------------------------------------------------------------------------


def _encode(X, fitted):
    width = n_words(len(fitted["coef_"]))
    return _by_rows(X, fitted, _learn.encode, width, np.uint64)


def _project(X, fitted):
    return _by_rows(X, fitted, _learn.project, len(fitted["coef_"]), np.float32)


def _by_rows(X, fitted, kernel, width, dtype):
    hash_function = fitted["mean_"], fitted["scale_"], *_hasher._working_hash(fitted)
    return X.map_blocks(
        _hash_block, *hash_function, kernel=kernel.__name__, width=width, out_dtype=dtype, dtype=dtype,
        chunks=(X.chunks[0], (width,)), meta=np.empty((0, width), dtype),
    )  # fmt: skip


def _hash_block(block, mean, scale, W, bias, kernel, width, out_dtype, block_info=None):
    first = block_info[0]["array-location"][0][0] if block_info else 0
    _check_block(block, first)
    out = np.empty((len(block), width), out_dtype)
    getattr(_learn, kernel)(np.ascontiguousarray(block), None, 0, len(block), mean, scale, W, bias, out, 1)
    return out


def _replace(codes, rows, learned):
    """Return codes with those of the rows replaced by the learned ones: each chunk takes its own."""
    edges = np.concatenate([[0], np.cumsum(codes.chunks[0])])
    cuts = np.searchsorted(rows, edges)
    parts = []
    for chunk, start, a, b in zip(codes.to_delayed().ravel(), edges[:-1], cuts[:-1], cuts[1:], strict=True):
        size = int(edges[len(parts) + 1] - start)
        part = dask.delayed(_put)(chunk, rows[a:b] - start, learned[a:b])
        parts.append(da.from_delayed(part, (size, codes.shape[1]), np.uint64))
    return da.concatenate(parts)


def _put(codes, where, values):
    codes = codes.copy()
    codes[where] = values
    return codes


# -- the rows that learn ----------------------------------------------------------------------------------------------


class _DaskRows:
    """What :class:`aphash._rows.Rows` is to ``learn``, with each block a Rows of its own on some worker."""

    def __init__(self, X):
        self.n, self.d = X.shape
        edges = blocks(self.n)
        self.edges = np.array([start for start, _ in edges] + [self.n])
        X = X.rechunk((tuple(stop - start for start, stop in edges), (self.d,)))
        chunk = chunk_rows(self.n, self.d)
        raw = X.to_delayed().ravel()
        self.states = [dask.delayed(_Block)(each, start, chunk) for each, (start, _) in zip(raw, edges, strict=True)]
        self.states = list(dask.persist(*self.states))
        self.mean, self.scale = self._statistics()
        self._change(_Block.centre, self.mean, self.scale)
        self.P = self.r = None

    def _map(self, method, *args, per_block=None):
        """Yield ``method(block, 0, rows of the block, *args)`` of each block, in their order."""
        shared = dask.delayed(args, traverse=False)
        own = per_block or [()] * len(self.states)
        return _compute([dask.delayed(_call)(state, method, shared, *mine) for state, mine in zip(self.states, own)])

    def _change(self, method, *args, per_block=None):
        """Replace each block by a copy on which the method has been called."""
        shared = dask.delayed(args, traverse=False)
        own = per_block or [()] * len(self.states)
        changed = [dask.delayed(_changed)(state, method, shared, *mine) for state, mine in zip(self.states, own)]
        self.states = list(dask.persist(*changed))

    _sum, _statistics = Rows._sum, Rows._statistics
    gram, gram_times, cross = Rows.gram, Rows.gram_times, Rows.cross

    def _check_finite(self):
        for _ in self._map(_Block.check):
            pass

    def _any_differs(self):
        first = self.take(np.array([0]))
        return any(self._map(_Block.differs, first))

    # -- reading

    def _pick(self, method, items):
        """Return what the method gives for ascending items, of the blocks that hold them."""
        cuts = np.searchsorted(items, self.edges)
        tasks = [
            dask.delayed(_call)(state, method, (), items[a:b] - start)
            for state, start, a, b in zip(self.states, self.edges[:-1], cuts[:-1], cuts[1:], strict=True)
            if b > a
        ]
        return np.concatenate(list(_compute(tasks)))

    def take(self, items):
        return self._pick(_Block.take_items, np.asarray(items))

    def working(self, items):
        return self._pick(_Block.working_items, np.asarray(items))

    def take_codes(self, items):
        return self._pick(_Block.code_items, np.asarray(items))

    # -- neighbours of the anchors

    def nearest(self, A, k):
        """As Rows.nearest. Each block gives its share of k and a bit more; where that did not reach the k-th, all."""
        m, sizes = len(A), np.diff(self.edges)
        wanted = np.minimum(sizes, np.ceil(1.3 * k * sizes / self.n).astype(int) + 16)
        if wanted.sum() < k:
            wanted = sizes
        own = [(int(each),) for each in wanted]
        lists = list(self._map(_Block.nearest_items, A, per_block=own))
        d2 = np.concatenate([part[0] for part in lists], axis=1)
        bound = np.partition(d2, k - 1, axis=1)[:, k - 1]  # k items are at most so far: the k-th is not farther
        missing = [np.where((part[0][:, -1] <= bound) & (len_ < size), bound, np.float32(-1))
                   for part, len_, size in zip(lists, wanted, sizes, strict=True)]  # fmt: skip
        out_d2, out_items = np.empty((m, k), np.float32), np.empty((m, k), np.int64)
        more = self._complete(A, missing)
        for i in range(m):
            keep = [b for b in range(len(lists)) if missing[b][i] < 0]
            far = np.concatenate([lists[b][0][i] for b in keep] + [more[b][0][i] for b in more if missing[b][i] >= 0])
            ids = np.concatenate([lists[b][1][i] for b in keep] + [more[b][1][i] for b in more if missing[b][i] >= 0])
            order = np.lexsort((ids, far))[:k]
            out_d2[i], out_items[i] = far[order], ids[order]
        return out_d2, out_items

    def _complete(self, A, missing):
        """All items within the bounds, of the blocks that have some: {block: (list of d2, list of items)}."""
        some = [b for b, bound in enumerate(missing) if (bound >= 0).any()]
        tasks = [dask.delayed(_call)(self.states[b], _Block.listed_within, (A,), missing[b]) for b in some]
        return dict(zip(some, _compute(tasks), strict=True))

    def within(self, A, bound):
        parts = list(self._map(_Block.within_items, A, bound))
        lists = [np.concatenate([ids[p[i] : p[i + 1]] for p, ids in parts]) for i in range(len(A))]
        return np.concatenate([[0], np.cumsum([len(each) for each in lists])]), np.concatenate(lists)

    def distances(self, anchors, indptr, items):
        block = np.searchsorted(self.edges, items, side="right") - 1
        anchor = np.repeat(np.arange(len(anchors)), np.diff(indptr))
        out, where, own = np.empty(len(items)), [], []
        for b in range(len(self.states)):
            mine = np.flatnonzero(block == b)  # still by anchor
            counts = np.bincount(anchor[mine], minlength=len(anchors))
            where.append(mine)
            own.append((np.concatenate([[0], np.cumsum(counts)]), items[mine] - self.edges[b]))
        for mine, found in zip(where, self._map(_Block.pair_distances, anchors, per_block=own), strict=True):
            out[mine] = found
        return out

    # -- the relaxed codes

    def project(self, W, bias):
        W, bias = np.ascontiguousarray(W, np.float32), np.ascontiguousarray(bias, np.float32)
        self.r = W.shape[1]
        self._change(_Block.project_all, W, bias)
        self._change(Rows._multiply_block, np.float32(self.n * self.r / self._sum(Rows._size_block)[0][0]))

    def random_codes(self, r, seed):
        self.r = r
        self._change(_Block.random_all, r, seed)

    def zero_moments(self, r):
        self._change(_Block.zero_all, r)

    def _send(self, P):
        """Give each block its part of P, once a round."""
        if P is not self.P:
            own = [
                (P.indptr[a : b + 1] - P.indptr[a], P.anchors[P.indptr[a] : P.indptr[b]])
                for a, b in zip(self.edges[:-1], self.edges[1:], strict=True)
            ]
            self._change(_Block.set_affinity, per_block=own)
            self.P = P

    def anchor_pass(self, H, q_scale, q_power, P, sums, vectors, penalty):
        self._send(P)
        for out in (sums, vectors, penalty):
            out[...] = 0
        for parts in self._map(_Block.sums, H, q_scale, q_power, block_rows(self.n)):
            for out, part in zip((sums, vectors, penalty), parts, strict=True):
                out += part[0]

    def item_pass(self, moments, H, inv_z, p, q_scale, q_power, P, step):
        self._send(P)
        self._change(_Block.step, H, inv_z, p, q_scale, q_power, block_rows(self.n), step)

    def rotate_towards_signs(self, sample, start, n_iter, rng):
        mean = (self._sum(Rows._total_block)[0] / self.n).astype(np.float32)
        rotation = Rotation(self.take_codes(sample) - mean, start, n_iter, rng)
        self._change(Rows._rotate_block, mean, rotation)
        return mean, rotation

    def codes(self):
        width = n_words(self.r)
        parts = [
            da.from_delayed(dask.delayed(_call)(state, Rows._codes_block, ()), (int(b - a), width), np.uint64)
            for state, a, b in zip(self.states, self.edges[:-1], self.edges[1:], strict=True)
        ]
        return da.concatenate(parts)


def _call(block, method, shared, *own):
    with _runtime.one_blas_thread:
        return method(block, 0, block.n, *shared, *own)


def _changed(block, method, shared, *own):
    block = copy.copy(block)
    if block.B is not None:
        block.B = block.B.copy()
    with _runtime.one_blas_thread:
        method(block, 0, block.n, *shared, *own)
    return block


class _Block(Rows):
    """One block of the rows that learn, with its relaxed codes, moments and part of P; changed on copies only."""

    def __init__(self, X, offset, chunk):
        self.X, self.rows, self.n_threads, self.offset, self.chunk = np.ascontiguousarray(X), None, 1, offset, chunk
        self.n, self.d = X.shape
        self.mean, self.scale = np.zeros(self.d), 1.0
        self.B = self.moments = self.indptr = self.anchors = None

    # Each is called with the block's range of rows, which is all of it, before its own arguments.

    def check(self, start, stop):
        _check_block(self.X, self.offset)

    def differs(self, start, stop, first):
        return bool((first != self.X).any())

    def centre(self, start, stop, mean, scale):
        self.mean, self.scale = mean, scale

    def take_items(self, start, stop, items):
        return self.take(items)

    def working_items(self, start, stop, items):
        return self.working(items)

    def code_items(self, start, stop, items):
        return self.B[items]

    def nearest_items(self, start, stop, A, k):
        d2, items = self.nearest(A, k)
        return d2, items + self.offset

    def within_items(self, start, stop, A, bound):
        indptr, items = self.within(A, bound)
        return indptr, items + self.offset

    def listed_within(self, start, stop, A, bound):
        """For each anchor all items within its bound: (list of squared distances, list of items)."""
        most = int((self.within(A, bound)[0][1:] - self.within(A, bound)[0][:-1]).max())
        d2, items = self.nearest(A, max(1, most))
        inside = d2 <= bound[:, None]
        return [each[i] for each, i in zip(d2, inside)], [each[i] + self.offset for each, i in zip(items, inside)]

    def pair_distances(self, start, stop, anchors, indptr, items):
        return self.distances(anchors, indptr, items)

    def project_all(self, start, stop, W, bias):
        self.B = np.empty((self.n, W.shape[1]), np.float32)
        _learn.project(self.X, None, 0, self.n, self.mean, self.scale, W, bias, self.B, 1)

    def random_all(self, start, stop, r, seed):
        self.B = np.empty((self.n, r), np.float32)
        self._random_block(0, self.n, r, seed)

    def zero_all(self, start, stop, r):
        self.moments = self.zero_moments(r)

    def set_affinity(self, start, stop, indptr, anchors):
        self.indptr, self.anchors = indptr, anchors

    def sums(self, start, stop, H, q_scale, q_power, rows_of_block):
        return _learn.anchor_pass_blocks(self.B, H, q_scale, q_power, self.indptr, self.anchors, rows_of_block, 1)

    def step(self, start, stop, H, inv_z, p, q_scale, q_power, rows_of_block, step):
        self.moments = tuple(each.copy() for each in self.moments)
        _learn.item_pass(
            self.B, *self.moments, H, inv_z, p, q_scale, q_power, self.indptr, self.anchors, rows_of_block, step, 1
        )
