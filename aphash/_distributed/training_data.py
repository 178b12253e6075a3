"""The rows that learn, spread over dask workers in parts. To ``learn`` they are what _learning.training_data.Rows is.

A part is a run of 1, 2, 4, .. blocks. There are few parts, since each task costs dask some milliseconds, and each sum
bytes. Three pure tasks make the rows of a part (a Source), its relaxed codes with Adam's moments, and its share of P.
The functions of ``aphash._learning.blocks`` compute whatever is computed of a block. Results that change are made anew
from the ones before. A projection starts from X again. So what a lost worker held is made again from the beginning of
the round, and what came before is forgotten.
"""

import itertools

import dask
import dask.array as da
import numpy as np
from dask.sizeof import sizeof

from aphash._common import threads
from aphash._common.arrays import as_array
from aphash._common.finite import check_finite
from aphash._learning import _affinity_pass
from aphash._learning._source import Source
from aphash._learning.blocks import BlockSums, block_rows, blocks, chunk_rows, codes_of_block, fill_random, working
from aphash._learning.linear import Rotation
from aphash._learning.training_data import distances, nearest, project, within
from aphash.codes import n_words

_BATCH_BYTES = 1 << 26  # of the results that come to the client at a time
_PART_BYTES = 1 << 25  # of a part at most, unless it is one block
_FAN_IN = 4  # so many parts' sums are added by one task; a power of two
_PARTS_A_THREAD = 8  # at least, where there are enough blocks, so that threads end at about the same time


class DaskRows(BlockSums):
    """The rows that learn, with each part on some worker, for ``learn``. Their codes have r bits."""

    n_threads = 1  # for whatever is not a task

    def __init__(self, X, r):
        self.n, self.d = X.shape
        self.r, self.n_blocks = r, len(blocks(self.n))
        starts = [start for start, _ in blocks(self.n)][:: self._blocks_of_a_part()]
        self.edges = np.array([*starts, self.n])
        X = X.rechunk((tuple(np.diff(self.edges).tolist()), (self.d,)))
        self.chunk = chunk_rows(self.n, self.d)
        self.parts = self._persist(_source, zip(X.to_delayed().ravel()))
        self._codes, self.pending = [None] * len(self.parts), None
        self.mean, self.scale = self.statistics()
        self.parts = self._persist(_centred, zip(self.parts), self.mean, self.scale)
        self.P = None

    def _blocks_of_a_part(self):
        """Return how many blocks a part has: a power of two, so that its sum is a node of ``anchor_pass``'s tree."""
        n_threads = _n_threads()
        nbytes = block_rows(self.n) * (4 * self.d + 12 * self.r)
        size = 1
        while -(-self.n_blocks // (2 * size)) >= _PARTS_A_THREAD * n_threads and 2 * size * nbytes <= _PART_BYTES:
            size *= 2
        return size

    def _persist(self, function, of, *args):
        """Return ``function(*own, *args)`` for each part's own arguments. The results stay where they are made."""
        shared, tasks = _shared(*args), []
        for b, own in enumerate(of):
            with _in_turn(b):
                tasks.append(dask.delayed(_make)(function, shared, *own))
        return list(dask.persist(*tasks))

    # -- functions of parts, and of their blocks: the data come first, then the arguments

    def _map_parts(self, function, *args, per_part=None):
        """Yield ``function(source, *own, *args)`` for each part, in their order."""
        shared, own = _shared(*args), per_part or [()] * len(self.parts)
        return compute([dask.delayed(_call)(function, shared, part, *mine) for part, mine in zip(self.parts, own)])

    def map_vectors(self, function, *args):
        return self._map_blocks(function, self.parts, self._nothing, args)

    def map_codes(self, function, *args):
        return self._map_blocks(function, self._nothing, self.codes_of_parts, args)

    def map_both(self, function, *args):
        return self._map_blocks(function, self.parts, self.codes_of_parts, args)

    @property
    def _nothing(self):
        return [None] * len(self.parts)

    def _map_blocks(self, function, sources, codes, args):
        """Yield ``function(source, B, start, stop, *args)`` for each block, in their order, without what is None."""
        edges = blocks(self.n)
        shared, tasks = _shared(*args), []
        nbytes = 8 * self.d * max(self.d, self.r)  # of the largest sum
        step = max(1, _BATCH_BYTES // nbytes // 8)
        for source, relaxed, (first, end) in zip(sources, codes, itertools.pairwise(self.edges), strict=True):
            own = [(start - first, stop - first) for start, stop in edges if first <= start < end]
            for at in range(0, len(own), step):
                tasks.append(dask.delayed(_call_blocks)(function, source, relaxed, own[at : at + step], shared))
        return itertools.chain.from_iterable(compute(tasks, nbytes * min(step, self.n_blocks // len(self.parts) + 1)))

    def check_finite(self):
        for _ in self._map_parts(_check, per_part=zip(self.edges[:-1].tolist())):
            pass

    def any_differs(self):
        return any(self._map_parts(_differs, self.take(np.array([0]))))

    # -- reading

    def _pick(self, function, parts, items):
        """Return what the function gives for ascending items, from the parts that hold them."""
        cuts = np.searchsorted(items, self.edges)
        tasks = [
            dask.delayed(_call)(function, (), parts[number], items[a:b] - self.edges[number])
            for number, (a, b) in enumerate(itertools.pairwise(cuts))
            if b > a
        ]
        return np.concatenate(list(compute(tasks)))

    def take(self, items):
        return self._pick(Source.take, self.parts, np.asarray(items))

    def working(self, items):
        return self._pick(working, self.parts, np.asarray(items))

    def take_codes(self, items):
        return self._pick(_take_codes, self.codes_of_parts, np.asarray(items))

    # -- neighbours of the anchors

    def nearest(self, A, k):
        """As Rows.nearest. Each part gives its share of k and some more, or all that may be among the k nearest."""
        m, sizes = len(A), np.diff(self.edges)
        wanted = np.minimum(sizes, np.ceil(1.3 * k * sizes / self.n).astype(int) + 16)
        if wanted.sum() < k:
            wanted = sizes
        own = list(zip(self.edges[:-1].tolist(), wanted.tolist(), strict=True))
        lists = list(self._map_parts(_nearest, A, per_part=own))
        d2 = np.concatenate([part[0] for part in lists], axis=1)
        bound = np.partition(d2, k - 1, axis=1)[:, k - 1]  # k items are at most so far, so the k-th is not farther
        missing = [
            np.where((far[:, -1] <= bound) & (count < size), bound, np.float32(-1))
            for (far, _), count, size in zip(lists, wanted, sizes, strict=True)
        ]
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
        """Return all items within the bounds, of the parts that have some: {part: (list of d2, list of items)}."""
        some = [b for b, bound in enumerate(missing) if (bound >= 0).any()]
        shared = _shared(A)
        tasks = [dask.delayed(_call)(_listed, shared, self.parts[b], self.edges[b], missing[b]) for b in some]
        return dict(zip(some, compute(tasks), strict=True))

    def within(self, A, bound):
        parts = list(self._map_parts(_within, A, bound, per_part=zip(self.edges[:-1].tolist())))
        lists = [np.concatenate([ids[p[i] : p[i + 1]] for p, ids in parts]) for i in range(len(A))]
        return np.concatenate([[0], np.cumsum([len(each) for each in lists])]), np.concatenate(lists)

    def distances(self, anchors, indptr, items):
        part = np.searchsorted(self.edges, items, side="right") - 1
        anchor = np.repeat(np.arange(len(anchors)), np.diff(indptr))
        out, where, own = np.empty(len(items)), [], []
        for b in range(len(self.parts)):
            mine = np.flatnonzero(part == b)  # still by anchor
            counts = np.bincount(anchor[mine], minlength=len(anchors))
            where.append(mine)
            own.append((np.concatenate([[0], np.cumsum(counts)]), items[mine] - self.edges[b]))
        for mine, found in zip(where, self._map_parts(_distances, anchors, per_part=own), strict=True):
            out[mine] = found
        return out

    # -- the relaxed codes. Of each part: B, Adam's two moments, which are None before the first step, and perhaps sums

    def project(self, W, bias):
        self._change(_projected, W, bias, of=zip(self.parts))
        self._change(_multiplied, self.normalizer(self.r), of=zip(self.codes_of_parts))

    def random_codes(self, r, seed):
        self._change(_random, r, seed, block_rows(self.n), of=zip(self.parts, self.edges[:-1].tolist()))

    @property
    def codes_of_parts(self):
        self._step()
        return self._codes

    def _change(self, function, *args, of):
        """Replace the codes of each part by ``function(*own, *args)``, where `of` holds each part's own arguments."""
        of = list(of)
        self.pending = None  # what the step would have changed is replaced
        self._codes = self._persist(function, of, *args)

    def zero_moments(self, r):
        """Make nothing, since the first step of a descent makes the moments."""

    def _send(self, P):
        """Give each part its share of P, once a round."""
        if P is not self.P:
            edges = itertools.pairwise(self.edges)
            shares = [(P.indptr[a : b + 1] - P.indptr[a], P.anchors[P.indptr[a] : P.indptr[b]]) for a, b in edges]
            self.shares, self.P = self._persist(itself, [(_shared(*each),) for each in shares]), P

    def anchor_pass(self, H, q_scale, q_power, P, sums, vectors, quantization_loss):
        self._send(P)
        self._step(H, q_scale, q_power)
        tasks = [dask.delayed(_sums_of)(codes) for codes in self._codes]
        firsts = range(0, len(tasks), _FAN_IN)  # nodes of the tree, too
        nodes = [dask.delayed(_tree_sum)(tasks[first : first + _FAN_IN]) for first in firsts]
        total = _tree_sum(compute(nodes, 4 * vectors.size + 8 * sums.size))
        for out, whole in zip((sums, vectors, quantization_loss), total, strict=True):
            out[...] = whole

    def item_pass(self, moments, H, inv_z, p, q_scale, q_power, P, step):
        self._send(P)
        self._step()
        self.pending = H, inv_z, p, q_scale, q_power, step

    def _step(self, *sums_at):
        """Do the step that is pending, and with it the sums that follow: one task for each part, and one that hands
        them out.

        The tasks of all parts are ready at the same time then, in the order of the parts. No worker is idle, so dask
        leaves each task where its codes are, which are megabytes. With tasks that come one by one it would not, because
        H is on all workers, and any of them could run the task.
        """
        if self.pending or sums_at:
            of = zip(self._codes, self.shares, strict=True)
            pending, self.pending = self.pending, None
            self._codes = self._persist(_advanced, of, pending, sums_at, block_rows(self.n))

    def rotate_towards_signs(self, sample, start, n_iter, rng):
        mean = self.mean_code()
        rotation = Rotation(self.take_codes(sample) - mean, start, n_iter, rng)
        self._change(_rotated, mean, rotation, of=zip(self.codes_of_parts))
        return mean, rotation

    def codes(self):
        """Return the packed signs of B, a lazy dask array (n, n_words) of uint64."""
        width = n_words(self.r)
        parts = [
            da.from_delayed(dask.delayed(_packed)(codes), (int(size), width), np.uint64)
            for codes, size in zip(self.codes_of_parts, np.diff(self.edges), strict=True)
        ]
        return da.concatenate(parts)


def compute(tasks, nbytes=0):
    """Yield the results of the tasks, of about nbytes each, in their order. The client holds one batch of them only."""
    batch = max(8, min(128, _BATCH_BYTES // max(1, nbytes)))
    for start in range(0, len(tasks), batch):
        yield from dask.compute(*tasks[start : start + batch])


def check_chunk(chunk, first_row, number=None, farthest=np.inf):
    """Raise ValueError for what check_finite refuses. It names the chunk, by its number where first_row is NaN."""
    try:
        check_finite(chunk, farthest=farthest)
    except ValueError as error:
        which = f"chunk {number}" if np.isnan(first_row) else f"the chunk that begins at row {first_row}"
        raise ValueError(f"{error} of {which}") from None


def _n_threads():
    """Return how many threads dask has now: the scheduler's, or those of all workers."""
    client = getattr(dask.base.get_scheduler(), "__self__", None)
    if hasattr(client, "ncores"):
        return max(1, sum(client.ncores().values()))
    return dask.config.get("num_workers", None) or dask.system.CPU_COUNT


def _tree_sum(parts):
    """Add the sums of parts as ``_affinity_pass.anchor_pass`` adds those of blocks: as a binary tree."""
    tree = []  # (number of parts, their sum)
    for part in parts:
        count = 1
        while tree and tree[-1][0] == count:
            part = [left + right for left, right in zip(tree.pop()[1], part, strict=True)]
            count *= 2
        tree.append((count, part))
    _, total = tree.pop()
    while tree:
        total = [left + right for left, right in zip(tree.pop()[1], total, strict=True)]
    return total


def _in_turn(part):
    """Return a context whose tasks run in the order of the parts, as far as they are ready."""
    return dask.annotate(priority=-part)


def _shared(*args):
    """Return arguments that are sent once, and not with each task."""
    return dask.delayed(args, traverse=False)


def _call(function, shared, of, *own):
    with threads.one_blas_thread():
        return function(of, *own, *shared)


def _call_blocks(function, source, codes, edges, shared):
    of = ([] if source is None else [source]) + ([] if codes is None else [codes[0]])
    with threads.one_blas_thread():
        return [function(*of, start, stop, *shared) for start, stop in edges]


def _make(function, shared, *own):
    """Call a function with its own and the shared arguments. To limit BLAS would take as long as a small block."""
    return function(*own, *shared)


def itself(value):
    return value


# Functions of a part, which is a Source whose first row is row ``first`` of all rows.


def _source(X):
    return Source(np.ascontiguousarray(as_array(X, "X")))


def _centred(source, mean, scale):
    return source.centred(mean, scale)


def _check(source, first):
    check_chunk(source.X, first)


def _differs(source, row):
    return bool((row != source.X).any())


def _nearest(source, first, k, A):
    d2, items = nearest(source, A, k, 1)
    return d2, items + first


def _within(source, first, A, bound):
    indptr, items = within(source, A, bound, 1)
    return indptr, items + first


def _listed(source, first, bound, A):
    """Return all items within the bound of each anchor: (list of squared distances, list of items)."""
    max_count = int(np.diff(within(source, A, bound, 1)[0]).max())
    d2, items = nearest(source, A, max(1, max_count), 1)
    inside = d2 <= bound[:, None]
    return [each[i] for each, i in zip(d2, inside)], [each[i] + first for each, i in zip(items, inside)]


def _distances(source, indptr, items, anchors):
    return distances(source, anchors, indptr, items, 1)


# Functions that make the codes of a part (B and Adam's two moments). They do not change their arguments.


def _projected(source, W, bias):
    B = np.empty((source.n, W.shape[1]), np.float32)
    project(source, W, bias, B, 1)
    return B, None, None


def _random(source, first, r, seed, rows_of_block):
    B = np.empty((source.n, r), np.float32)
    for start in range(0, source.n, rows_of_block):
        fill_random(B, start, min(start + rows_of_block, source.n), seed, first)
    return B, None, None


def _multiplied(codes, factor):
    return codes[0] * factor, None, None


def _rotated(codes, mean, rotation):
    with threads.one_blas_thread():
        return rotation(codes[0] - mean), None, None


def _advanced(codes, share, pending, sums_at, rows_of_block):
    """Make the step that is pending, and return the codes, with their sums at H."""
    if pending:
        H, inv_z, p, q_scale, q_power, step = pending
        B, mean, square = (np.zeros_like(codes[0]) if each is None else each.copy() for each in codes[:3])
        _affinity_pass.item_pass(B, mean, square, H, inv_z, p, q_scale, q_power, *share, rows_of_block, step, 1)
        codes = B, mean, square
    if sums_at:
        H, q_scale, q_power = sums_at
        sums, vectors, quantization_loss = np.empty((4, len(H))), np.empty((2, *H.shape)), np.empty(1)
        _affinity_pass.anchor_pass(
            codes[0], H, q_scale, q_power, *share, rows_of_block, sums, vectors, quantization_loss, 1
        )
        codes = (
            *codes[:3],
            (sums, vectors.astype(np.float32), quantization_loss),
        )  # the tree adds float32 numbers
    return codes


def _take_codes(codes, items):
    return codes[0][items]


def _packed(codes):
    return codes_of_block(codes[0], 0, len(codes[0]))


def _sums_of(codes):
    return codes[3]


@sizeof.register(Source)
def _sizeof_source(source):
    return source.X.nbytes
