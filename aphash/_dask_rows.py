"""The rows that learn, spread over dask workers block by block: what aphash._rows.Rows is to ``learn``.

A block's X, its relaxed codes with Adam's moments, and its part of P are results of three pure tasks. Those that change
are made anew from the ones before; a projection starts from X again, so a lost worker's blocks are made again from the
round's start, and what led there before is forgotten.
"""

import copy
import itertools

import dask
import dask.array as da
import numpy as np
from dask.sizeof import sizeof

from aphash import _learn, _runtime
from aphash._linear import Rotation
from aphash._rows import Rows, block_rows, blocks, check_finite, chunk_rows
from aphash.codes import n_words

_BATCH_BYTES = 1 << 26  # of results that come to the client at a time


class DaskRows:
    """What :class:`aphash._rows.Rows` is to ``learn``, with each block on some worker."""

    n_threads = 1  # of what is not a task

    def __init__(self, X):
        self.n, self.d = X.shape
        edges = blocks(self.n)
        self.edges = np.array([start for start, _ in edges] + [self.n])
        X = X.rechunk((tuple(stop - start for start, stop in edges), (self.d,)))
        chunk = chunk_rows(self.n, self.d)
        raw = X.to_delayed().ravel()
        made = [dask.delayed(_Block)(each, start, chunk) for each, (start, _) in zip(raw, edges, strict=True)]
        self.blocks = list(dask.persist(*made))
        self.codes_of_blocks = [None] * len(self.blocks)
        self.mean, self.scale = self._statistics()
        centre = _shared(self.mean, self.scale)
        self.blocks = list(dask.persist(*[dask.delayed(_centred)(block, centre) for block in self.blocks]))
        self.P = self.r = None

    def _map(self, method, *args, per_block=None, nbytes=0):
        """Yield ``method(block, 0, rows of the block, *args)`` of each block, in their order."""
        shared = _shared(*args)
        own = per_block or [()] * len(self.blocks)
        tasks = [dask.delayed(_call)(*self._of(b, method), method, shared, *mine) for b, mine in enumerate(own)]
        return compute(tasks, nbytes)

    def _of(self, b, method):
        """What a method needs of block b: its X, its codes."""
        block = None if method in _OF_CODES else self.blocks[b]
        return block, self.codes_of_blocks[b] if method in _USE_CODES else None

    def _change(self, function, *args, of=None):
        """Replace each block's codes by ``function(what the block has in `of`, *args)``."""
        shared = _shared(*args)
        changed = [dask.delayed(_make)(function, *each, shared) for each in zip(*of, strict=True)]
        self.codes_of_blocks = list(dask.persist(*changed))

    _sum, _statistics, gram_times, cross, gram = Rows._sum, Rows._statistics, Rows.gram_times, Rows.cross, Rows.gram

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
            dask.delayed(_call)(*self._of(block, method), method, (), items[a:b] - self.edges[block])
            for block, (a, b) in enumerate(itertools.pairwise(cuts))
            if b > a
        ]
        return np.concatenate(list(compute(tasks)))

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
        shared = _shared(A)
        tasks = [dask.delayed(_call)(self.blocks[b], None, _Block.listed_within, shared, missing[b]) for b in some]
        return dict(zip(some, compute(tasks), strict=True))

    def within(self, A, bound):
        parts = list(self._map(_Block.within_items, A, bound))
        lists = [np.concatenate([ids[p[i] : p[i + 1]] for p, ids in parts]) for i in range(len(A))]
        return np.concatenate([[0], np.cumsum([len(each) for each in lists])]), np.concatenate(lists)

    def distances(self, anchors, indptr, items):
        block = np.searchsorted(self.edges, items, side="right") - 1
        anchor = np.repeat(np.arange(len(anchors)), np.diff(indptr))
        out, where, own = np.empty(len(items)), [], []
        for b in range(len(self.blocks)):
            mine = np.flatnonzero(block == b)  # still by anchor
            counts = np.bincount(anchor[mine], minlength=len(anchors))
            where.append(mine)
            own.append((np.concatenate([[0], np.cumsum(counts)]), items[mine] - self.edges[b]))
        for mine, found in zip(where, self._map(_Block.pair_distances, anchors, per_block=own), strict=True):
            out[mine] = found
        return out

    # -- the relaxed codes: of each block (B, Adam's mean, Adam's square), the last two None before the first step

    def project(self, W, bias):
        W, bias = np.ascontiguousarray(W, np.float32), np.ascontiguousarray(bias, np.float32)
        self.r = W.shape[1]
        self._change(_projected, W, bias, of=[self.blocks])
        factor = np.float32(self.n * self.r / self._sum(Rows._size_block)[0][0])
        self._change(_multiplied, factor, of=[self.codes_of_blocks])

    def random_codes(self, r, seed):
        self.r = r
        self._change(_random, r, seed, of=[self.blocks])

    def zero_moments(self, r):
        """Nothing is made: the first step of a descent makes them."""

    def _send(self, P):
        """Give each block its part of P, once a round."""
        if P is not self.P:
            edges = itertools.pairwise(self.edges)
            parts = [
                dask.delayed((P.indptr[a : b + 1] - P.indptr[a], P.anchors[P.indptr[a] : P.indptr[b]]), traverse=False)
                for a, b in edges
            ]
            self.parts, self.P = list(dask.persist(*parts)), P

    def anchor_pass(self, H, q_scale, q_power, P, sums, vectors, penalty):
        self._send(P)
        for out in (sums, vectors, penalty):
            out[...] = 0
        shared = _shared(H, q_scale, q_power, block_rows(self.n))
        pairs = zip(self.codes_of_blocks, self.parts, strict=True)
        tasks = [dask.delayed(_make)(_sums, codes, part, shared) for codes, part in pairs]
        for parts in compute(tasks, 4 * vectors.size + 8 * sums.size):
            for out, part in zip((sums, vectors, penalty), parts, strict=True):
                out += part[0]

    def item_pass(self, moments, H, inv_z, p, q_scale, q_power, P, step):
        self._send(P)
        of = [self.codes_of_blocks, self.parts]
        self._change(_stepped, H, inv_z, p, q_scale, q_power, block_rows(self.n), step, of=of)

    def rotate_towards_signs(self, sample, start, n_iter, rng):
        mean = (self._sum(Rows._total_block)[0] / self.n).astype(np.float32)
        rotation = Rotation(self.take_codes(sample) - mean, start, n_iter, rng)
        self._change(_rotated, mean, rotation, of=[self.codes_of_blocks])
        return mean, rotation

    def codes(self):
        """Return the packed signs of B, a lazy dask array (n, n_words) of uint64."""
        width = n_words(self.r)
        parts = [
            da.from_delayed(dask.delayed(_call)(None, codes, Rows._codes_block, ()), (int(size), width), np.uint64)
            for codes, size in zip(self.codes_of_blocks, np.diff(self.edges), strict=True)
        ]
        return da.concatenate(parts)


def compute(tasks, nbytes=0):
    """Yield the tasks' results, of some nbytes each, in their order; the client holds a batch of them only."""
    batch = max(8, min(128, _BATCH_BYTES // max(1, nbytes)))
    for start in range(0, len(tasks), batch):
        yield from dask.compute(*tasks[start : start + batch])


def check_block(block, first_row):
    try:
        check_finite(block)
    except ValueError as error:
        raise ValueError(f"{error} of the chunk that begins at row {first_row}") from None


def _shared(*args):
    """Arguments that are sent once, not with each task."""
    return dask.delayed(args, traverse=False)


def _call(block, codes, method, shared, *own):
    block = _Block.without_rows() if block is None else copy.copy(block)
    if codes is not None:
        block.B = codes[0]
        block.n = len(block.B)
    with _runtime.one_blas_thread:
        return method(block, 0, block.n, *shared, *own)


def _make(function, *args):
    """Call function with its own and the shared arguments. No BLAS limit: it takes as long as a small block's step."""
    *own, shared = args
    return function(*own, *shared)


# What makes a block's codes; nothing that came before is changed.


def _centred(block, centre):
    block = copy.copy(block)
    block.mean, block.scale = centre
    return block


def _projected(block, W, bias):
    B = np.empty((block.n, W.shape[1]), np.float32)
    _learn.project(block.X, None, 0, block.n, block.mean, block.scale, W, bias, B, 1)
    return B, None, None


def _random(block, r, seed):
    block = copy.copy(block)
    block.B = np.empty((block.n, r), np.float32)
    block._random_block(0, block.n, r, seed)
    return block.B, None, None


def _multiplied(codes, factor):
    return codes[0] * factor, None, None


def _rotated(codes, mean, rotation):
    with _runtime.one_blas_thread:
        return rotation(codes[0] - mean), None, None


def _sums(codes, part, H, q_scale, q_power, rows_of_block):
    return _learn.anchor_pass_blocks(codes[0], H, q_scale, q_power, *part, rows_of_block, 1)


def _stepped(codes, part, H, inv_z, p, q_scale, q_power, rows_of_block, step):
    B, mean, square = (np.zeros_like(codes[0]) if each is None else each.copy() for each in codes)
    _learn.item_pass(B, mean, square, H, inv_z, p, q_scale, q_power, *part, rows_of_block, step, 1)
    return B, mean, square


class _Block(Rows):
    """One block of the rows that learn. Methods get the block's range, which is all of it, before their arguments."""

    def __init__(self, X, offset, chunk):
        self.X, self.rows, self.n_threads, self.offset, self.chunk = np.ascontiguousarray(X), None, 1, offset, chunk
        self.n, self.d = X.shape
        self.mean, self.scale, self.B = np.zeros(self.d), 1.0, None

    @classmethod
    def without_rows(cls):
        return cls(np.empty((0, 0)), 0, 1)

    def check(self, start, stop):
        check_block(self.X, self.offset)

    def differs(self, start, stop, first):
        return bool((first != self.X).any())

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
        most = int(np.diff(self.within(A, bound)[0]).max())
        d2, items = self.nearest(A, max(1, most))
        inside = d2 <= bound[:, None]
        return [each[i] for each, i in zip(d2, inside)], [each[i] + self.offset for each, i in zip(items, inside)]

    def pair_distances(self, start, stop, anchors, indptr, items):
        return self.distances(anchors, indptr, items)


_OF_CODES = {Rows._size_block, Rows._total_block, Rows._codes_block, _Block.code_items}
_USE_CODES = _OF_CODES | {Rows._cross_block}


@sizeof.register(_Block)
def _sizeof_block(block):
    return block.X.nbytes
