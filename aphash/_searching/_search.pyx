"""Threaded wrappers of the search kernels, which take and return arrays. The caller has checked all arguments.

Queries are a :class:`Queries`, an object that knows its kind. A database is a
:class:`aphash._searching._store.Snapshot`. ``positions`` says that results name positions instead of ids. ``filter`` is
None or a packed bitmap by position: uint64, at least ``ceil(n / 64)`` words. The code at position p takes part where
bit p % 64 of word p // 64 is set.

Work is done in waves of about 50 ms, with the GIL released. Ctrl-C is noticed between two waves.
"""

from cython.parallel cimport prange
from libc.math cimport sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from aphash._kernels cimport (
    APH_BINS, APH_BLOCK, APH_GROUP, APH_MARGIN, APH_POSITION_BITS, APH_MAX_QUERIES, aph_codes, aph_found, aph_isa,
    aph_portable, aph_queries, aph_scan_fn, chosen_isa, omp_get_thread_num, portable)
from aphash._searching._store cimport Snapshot

import numpy as np

cimport numpy as cnp

cnp.import_array()


cdef const aph_isa *const *chosen = chosen_isa()
cdef const aph_portable *c = portable()

cdef int64_t NO_ID = -1

PAD_ID = NO_ID
PAD_DISTANCE = 0x7fffffff

cdef double WAVE_SECONDS = 0.05
cdef double SMALL_WORK = 1e5  # nanoseconds: work that one thread does in this time is not split
cdef int64_t MAX_SEGMENT = (<int64_t> 1) << APH_POSITION_BITS  # positions in a segment at most
cdef int64_t BUFFER_BYTES = 1 << 26  # of the hits that one thread holds


# ---- databases ----

cdef aph_codes database(Snapshot snapshot, filter_, bint positions):
    """Return the view that the kernels have of a snapshot and a filter, which must live longer than the view."""
    cdef aph_codes db = snapshot.db
    cdef const uint64_t[::1] filter_view
    db.positions = positions
    db.ascending = positions or db.ascending
    if filter_ is not None and db.n:
        filter_view = filter_
        db.filter = &filter_view[0]
    return db


# ---- queries ----

cdef class Queries:
    """A batch of queries of one kind, with the kernels that know this kind. Each kind is a subclass.

    Attributes
    ----------
    values : ndarray
        The array that the queries were made of. The kernels' pointers point into it.
    dtype : numpy dtype
        The dtype of the distances that the kernels give: int32 or uint32.
    pad : int
        The distance in places of the results for which there is no code left.
    """

    def __len__(self):
        return len(self.values)

    @property
    def in_tables(self):
        """Whether this kind of queries can be searched in the tables of a lookup."""
        return self.q.lookup != NULL

    def take(self, which):
        """Return some of the queries: those that a slice, or an array of numbers or booleans, selects."""
        return type(self)(np.ascontiguousarray(self.values[which]))


cdef class PackedQueries(Queries):
    """Queries that are codes, uint64 (n_queries, n_words). The distance is the number of bits that differ."""

    def __init__(self, cnp.ndarray codes):
        if cnp.PyArray_TYPE(codes) != cnp.NPY_UINT64 or codes.ndim != 2 or not cnp.PyArray_IS_C_CONTIGUOUS(codes):
            raise TypeError("codes must be C-contiguous uint64 of two dimensions")
        self.values = codes
        self.dtype, self.pad = np.dtype(np.int32), PAD_DISTANCE
        self.q.first = <const char *> cnp.PyArray_DATA(codes)
        self.q.stride = codes.shape[1] * 8
        self.q.max_distance = 64 * codes.shape[1]
        self.q.alone, self.q.batch = chosen[0].scan_alone, chosen[0].scan_batch
        self.q.sample = 0
        self.q.scratch_bytes = chosen[0].search.scratch_bytes
        self.q.scan = chosen[0].search.scan
        self.q.distances = chosen[0].search.distances
        self.q.lookup = chosen[0].search.lookup


def set_limits(double small_work=1e5, max_segment=None):
    """Set up to how many nanoseconds work is not split, and how many positions a segment has at most; for tests."""
    global SMALL_WORK, MAX_SEGMENT
    SMALL_WORK = small_work
    MAX_SEGMENT = (<int64_t> 1) << APH_POSITION_BITS if max_segment is None else max_segment


def is_small(double nanoseconds):
    """Return whether work that takes one thread so long is too small to be split."""
    return nanoseconds < SMALL_WORK


cdef int threads_for(double nanoseconds, int n_threads) noexcept:
    """Return how many threads are worth their start for work that takes one thread so long."""
    return n_threads if nanoseconds >= n_threads * SMALL_WORK else max(1, <int> (nanoseconds / SMALL_WORK))


def count_bits(const uint64_t[::1] bitmap, int64_t n):
    """Return how many of the first n bits are set."""
    if n == 0:
        return 0
    return c.count_bits(&bitmap[0], n)


# ---- waves of scans ----

cdef struct job_t:            # some queries, and the segment of the database that is scanned for them
    const char *queries
    int64_t first, n_queries  # the number of the first query in the batch
    aph_found *found
    int64_t block, end        # the blocks of the segment that are left
    void *scratch
    int64_t *bins
    int out_of_memory


cdef int64_t ceil_div(int64_t a, int64_t b) noexcept nogil:
    return (a + b - 1) // b


cdef double seconds() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec + 1e-9 * t.tv_nsec


cdef int64_t room_of(int64_t capacity) noexcept nogil:
    return capacity + APH_MARGIN


cdef void advance(job_t *job, const aph_codes *db, aph_scan_fn *scan, int64_t n_blocks) noexcept nogil:
    """Scan the next n_blocks of a job. Buffers that keep all hits grow when they are full."""
    cdef int64_t stop = min(job.end, job.block + n_blocks)
    cdef int64_t q
    cdef void *bigger
    cdef aph_found *f
    while True:
        for q in range(job.n_queries):
            f = job.found + q
            if f.k == 0 and (f.hits == NULL or f.count >= f.capacity):
                bigger = realloc(f.hits, room_of(max(256, f.capacity * 2)) * sizeof(uint64_t))
                if bigger == NULL:
                    job.out_of_memory = 1
                    return
                f.hits = <uint64_t *> bigger
                f.capacity = max(256, f.capacity * 2)
        if job.block >= stop:
            return
        job.block = scan(db, job.block, stop, job.queries, job.n_queries, job.found, job.scratch)


cdef int run(job_t *jobs, int64_t n_jobs, const aph_codes *db, aph_scan_fn *scan, int n_threads) except -1:
    """Run jobs to their end, in waves. Raises what a signal handler raises between two waves, or MemoryError."""
    cdef int64_t j, left = 1
    cdef double max_cost = 1, start, took
    for j in range(n_jobs):  # the first wave is short for certain; later ones are as long as was measured
        max_cost = max(max_cost, APH_BLOCK * db.n_words * (1.0 + 0.2 * jobs[j].n_queries))
    cdef int64_t step = max(1, <int64_t> (WAVE_SECONDS * 1e9 / max_cost))
    while left > 0:
        with nogil:
            start = seconds()
            if n_threads == 1 or n_jobs == 1:
                for j in range(n_jobs):
                    advance(jobs + j, db, scan, step)
            else:
                for j in prange(n_jobs, num_threads=n_threads, schedule="dynamic", chunksize=1):
                    advance(jobs + j, db, scan, step)
            took = seconds() - start
            left = 0
            for j in range(n_jobs):
                if jobs[j].out_of_memory:
                    left = -1
                    break
                left += jobs[j].end - jobs[j].block
        if left < 0:
            raise MemoryError("not enough memory for the result of a radius search")
        step = max(1, <int64_t> (step * min(4.0, max(0.25, WAVE_SECONDS / max(took, 1e-9)))))
        check_signals()
    return 0


cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1


cdef extern from "stdlib.h":
    int posix_memalign(void **, size_t, size_t) noexcept nogil


cdef int check_signals() except -1:
    PyErr_CheckSignals()
    return 0


cdef void *aligned(size_t size) except NULL:
    """Allocate memory that begins at a cache line."""
    cdef void *memory = NULL
    if posix_memalign(&memory, 64, max(size, 64)) != 0:
        raise MemoryError(f"{size} bytes for a search")
    return memory


cdef class Plan:
    """How a batch is cut into jobs, and their memory. A job has some of the queries, and a segment of the database."""

    cdef aph_codes db
    cdef aph_queries q
    cdef int n_threads
    cdef int64_t n_queries, n_segments, sets, per_job, first_block, n_blocks, scratch_stride
    cdef object keep  # the objects that the pointers of db and q point into
    cdef job_t *jobs
    cdef aph_found *found
    cdef char *scratch
    cdef int64_t *bins
    cdef uint64_t *hits  # in a search for k nearest: room for the hits of each found

    def __cinit__(self, Snapshot snapshot, Queries queries, filter_, bint positions, int64_t first, int64_t end,
                  int n_threads, int64_t max_queries):
        """Plan a scan of the positions [first, end); `first` is a multiple of 512."""
        self.q = queries.q
        self.n_queries = len(queries)
        self.db = database(snapshot, filter_, positions)
        self.db.n = min(self.db.n, end)
        self.first_block = first // APH_BLOCK
        self.n_blocks = ceil_div(self.db.n, APH_BLOCK) - self.first_block
        cdef double each = self.q.batch if self.n_queries >= 6 else self.q.alone
        n_threads = threads_for(each * self.n_blocks * APH_BLOCK * self.db.n_words * self.n_queries, n_threads)
        # With many queries, each thread has queries of its own. With few, each thread has a segment of the database,
        # and the results of the segments are merged.
        self.n_segments = 1
        if self.n_queries < 16 * n_threads and self.n_blocks >= 32 * n_threads:
            self.n_segments = n_threads
        self.n_segments = max(self.n_segments, ceil_div(self.n_blocks, MAX_SEGMENT // APH_BLOCK))
        self.sets = max(1, n_threads // self.n_segments)
        if self.n_segments == 1:
            self.sets = max(1, min(self.sets, self.n_queries))
        cdef int64_t n_jobs = self.sets * self.n_segments
        cdef int64_t waves = ceil_div(self.n_queries, self.sets * max_queries)
        self.per_job = max(1, ceil_div(self.n_queries, self.sets * max(1, waves)))
        self.n_threads = min(n_threads, n_jobs)
        self.scratch_stride = (self.q.scratch_bytes(self.db.n_words) + 63) // 64 * 64
        self.keep = (snapshot, queries, filter_)
        self.scratch = <char *> aligned(n_jobs * self.scratch_stride)
        self.bins = <int64_t *> aligned(n_jobs * (APH_BINS + 8) * sizeof(int64_t))
        self.jobs = <job_t *> aligned(n_jobs * sizeof(job_t))
        self.found = <aph_found *> aligned(n_jobs * self.per_job * sizeof(aph_found))
        memset(self.found, 0, n_jobs * self.per_job * sizeof(aph_found))

    def __dealloc__(self):
        free(self.scratch)
        free(self.bins)
        free(self.jobs)
        free(self.found)
        free(self.hits)

    cdef int64_t queries_of_wave(self) noexcept:
        return self.per_job * self.sets

    cdef int64_t lay_out(self, int64_t first, int64_t n_queries) noexcept:
        """Set up the jobs of n_queries <= queries_of_wave() queries, from number `first` on. Returns how many jobs."""
        cdef int64_t n_jobs = 0, each = ceil_div(n_queries, self.sets), start, segment, i
        cdef job_t *job
        for start in range(0, n_queries, each):
            for segment in range(self.n_segments):
                job = self.jobs + n_jobs
                job.queries = self.q.first + (first + start) * self.q.stride
                job.first = first + start
                job.n_queries = min(each, n_queries - start)
                job.found = self.found + n_jobs * self.per_job
                job.block = self.first_block + self.n_blocks * segment // self.n_segments
                job.end = self.first_block + self.n_blocks * (segment + 1) // self.n_segments
                for i in range(job.n_queries):
                    job.found[i].first = job.block * APH_BLOCK
                job.scratch = self.scratch + n_jobs * self.scratch_stride
                job.bins = self.bins + n_jobs * (APH_BINS + 8)
                job.out_of_memory = 0
                n_jobs += 1
        return n_jobs


cdef int choose_compact(Plan plan, int64_t candidates) noexcept:
    """Return 1 where it costs less to gather the codes that a filter lets take part, once for all queries of a job,
    than to mask their hits."""
    cdef double selected = candidates / max(1.0, <double> plan.db.n)
    return selected * (1 + 8.0 / plan.per_job) < 0.9 if plan.per_job > 1 else selected < 0.05


# ---- k nearest ----

cdef void start_job(job_t *job, const uint64_t *sample, const int64_t *sampled, int64_t m, int64_t rank,
                    const aph_codes *db, const aph_queries *queries) noexcept nogil:
    """Start each query with the rank-th distance in a sample of m codes as threshold, or without a sample with the
    largest distance."""
    cdef int64_t q
    for q in range(job.n_queries):
        job.found[q].threshold = queries.max_distance
        if rank <= m:
            queries.distances(sample, sampled, m, db.n_words, job.queries + q * queries.stride,
                              <uint32_t *> job.scratch)
            job.found[q].threshold = c.bound_kth(<uint32_t *> job.scratch, m, rank, job.bins)


cdef void finish_job(job_t *job, int64_t n_segments, int64_t per_job, int64_t n_results, const aph_codes *db,
                     uint32_t *distances, int64_t *ids, int64_t k) noexcept nogil:
    """Write the results of a job's queries. A query that found fewer than n_results gets PAD_ID as the last id."""
    cdef int64_t q, segment, total, at
    for q in range(job.n_queries):
        total = 0
        for segment in range(n_segments):
            total += job.found[segment * per_job + q].count
        at = (job.first + q) * k
        if total >= n_results:
            c.order(job.found + q, n_segments, per_job, n_results, db, job.bins, distances + at, ids + at)
        else:
            ids[at + n_results - 1] = NO_ID


cdef void order_job(job_t *job, int64_t n_segments, int64_t per_job, const aph_codes *db, const int64_t *offsets,
                    int64_t base, uint32_t *distances, int64_t *ids) noexcept nogil:
    """Write all that a job's queries found, those of query i from offsets[i] - base on."""
    cdef int64_t q, at, total
    for q in range(job.n_queries):
        at = offsets[job.first + q]
        total = offsets[job.first + q + 1] - at
        c.order(job.found + q, n_segments, per_job, total, db, job.bins, distances + (at - base),
                  ids + (at - base))


cdef void start_jobs(job_t *jobs, int64_t n_jobs, const uint64_t *sample, const int64_t *sampled, int64_t m,
                     int64_t rank, const aph_codes *db, const aph_queries *queries, int n_threads) noexcept:
    cdef int64_t j
    with nogil:
        if n_threads == 1:
            for j in range(n_jobs):
                start_job(jobs + j, sample, sampled, m, rank, db, queries)
        else:
            for j in prange(n_jobs, num_threads=n_threads, schedule="static", chunksize=1):
                start_job(jobs + j, sample, sampled, m, rank, db, queries)


cdef void finish_jobs(job_t *jobs, int64_t n_jobs, int64_t n_segments, int64_t per_job, int64_t n_results,
                      const aph_codes *db, uint32_t *distances, int64_t *ids, int64_t k, int n_threads) noexcept:
    cdef int64_t j
    with nogil:
        if n_threads == 1:
            for j in range(n_jobs // n_segments):
                finish_job(jobs + j * n_segments, n_segments, per_job, n_results, db, distances, ids, k)
        else:
            for j in prange(n_jobs // n_segments, num_threads=n_threads, schedule="static", chunksize=1):
                finish_job(jobs + j * n_segments, n_segments, per_job, n_results, db, distances, ids, k)


cdef void order_jobs(job_t *jobs, int64_t n_jobs, int64_t n_segments, int64_t per_job, const aph_codes *db,
                     const int64_t *offsets, int64_t base, uint32_t *distances, int64_t *ids,
                     int n_threads) noexcept:
    cdef int64_t j
    with nogil:
        if n_threads == 1:
            for j in range(n_jobs // n_segments):
                order_job(jobs + j * n_segments, n_segments, per_job, db, offsets, base, distances, ids)
        else:
            for j in prange(n_jobs // n_segments, num_threads=n_threads, schedule="static", chunksize=1):
                order_job(jobs + j * n_segments, n_segments, per_job, db, offsets, base, distances, ids)


def search(Snapshot snapshot, Queries queries, int64_t k, filter=None, int n_threads=1,
           bint positions=False, bint speculate=True):
    """Find the k nearest codes of each query.

    Parameters
    ----------
    snapshot, filter, positions
        As the module's docstring says.
    queries : Queries
    k : int
        At least 1.
    n_threads : int
        At least 1.
    speculate : bool
        Whether to start from a threshold that a sample makes likely, and to search those queries again for which it
        was too small. The results are the same.

    Returns
    -------
    distances : queries.dtype (n_queries, k)
    ids : int64 (n_queries, k)
        Ordered by (distance, id). queries.pad and PAD_ID fill the places for which no code is left.
    """
    cdef int64_t n_queries = len(queries), n_words = snapshot.db.n_words, n = snapshot.db.n
    cdef cnp.ndarray out_distances = np.empty((n_queries, k), queries.dtype)
    cdef cnp.ndarray out_ids = np.empty((n_queries, k), np.int64)
    cdef int64_t candidates = n if filter is None else count_bits(filter, n)
    cdef int64_t n_results = min(k, candidates)
    if n_results < k:
        out_distances[:, n_results:], out_ids[:, n_results:] = queries.pad, PAD_ID
    if n_queries == 0 or n_results == 0:
        return out_distances, out_ids
    cdef int64_t capacity = min(n_results + max(64, n_results), max(candidates, n_results + 1))
    cdef int64_t room = room_of(capacity)
    cdef int64_t max_queries = max(1, min(APH_MAX_QUERIES, BUFFER_BYTES // (8 * room)))
    cdef Plan plan = Plan(snapshot, queries, filter, positions, 0, n, n_threads, max_queries)
    plan.db.compact = choose_compact(plan, candidates)

    # A sample gives each query its first threshold. The k-th distance in the sample is certainly large enough. For a
    # large k a smaller rank is almost certainly enough: the number of the k nearest that the sample is expected to
    # hold, and three standard deviations more.
    cdef int64_t m = min(4096, candidates // 512)
    if n_results >= 128:  # it should hold eight of the k nearest, if that costs less than 1 % of the scan
        m = max(m, min(8192, 8 * candidates // n_results, candidates // 64))
    m = max(m, min(plan.q.sample, candidates))
    m = min(m, 512 * n_queries) // APH_GROUP * APH_GROUP
    cdef int64_t[::1] sampled
    cdef uint64_t[::1] sample_view
    cdef const uint64_t *sample = NULL
    cdef const int64_t *positions_of_sample = NULL
    if m:
        sampled = np.empty(m, np.int64)
        m = c.sample(&plan.db, m, &sampled[0]) // APH_GROUP * APH_GROUP
    if m:
        sample_view = np.empty(m * n_words, np.uint64)
        c.gather(&plan.db, &sampled[0], m, &sample_view[0])
        sample = &sample_view[0]
        positions_of_sample = &sampled[0]
    cdef double expected = <double> n_results * m / candidates
    cdef int64_t rank = min(n_results, <int64_t> (expected + 3 * sqrt(expected) + 3)) if speculate else n_results

    plan.hits = <uint64_t *> aligned(plan.sets * plan.n_segments * plan.per_job * room * sizeof(uint64_t))
    cdef uint32_t *distances = <uint32_t *> cnp.PyArray_DATA(out_distances)
    cdef int64_t *ids = <int64_t *> cnp.PyArray_DATA(out_ids)
    cdef int64_t start, wave, n_jobs, j, i, q
    short = []
    for start in range(0, n_queries, plan.queries_of_wave()):
        wave = min(plan.queries_of_wave(), n_queries - start)
        n_jobs = plan.lay_out(start, wave)
        for j in range(n_jobs):
            for i in range(plan.jobs[j].n_queries):
                plan.jobs[j].found[i].hits = plan.hits + (j * plan.per_job + i) * room
                plan.jobs[j].found[i].count = 0
                plan.jobs[j].found[i].capacity = capacity
                plan.jobs[j].found[i].k = n_results
        start_jobs(plan.jobs, n_jobs, sample, positions_of_sample, m, rank, &plan.db, &plan.q, plan.n_threads)
        run(plan.jobs, n_jobs, &plan.db, plan.q.scan, plan.n_threads)
        finish_jobs(plan.jobs, n_jobs, plan.n_segments, plan.per_job, n_results, &plan.db, distances, ids, k,
                    plan.n_threads)
        if rank < n_results:
            for q in range(start, start + wave):
                if ids[q * k + n_results - 1] == NO_ID:
                    short.append(q)
    if short:
        again = np.asarray(short)
        out_distances[again], out_ids[again] = search(
            snapshot, queries.take(again), k, filter, n_threads, positions, False)
    return out_distances, out_ids


# ---- radius ----

def radius_search(Snapshot snapshot, Queries queries, radius, filter=None, int n_threads=1,
                  bint positions=False, int64_t first=0, end=None):
    """Find all codes within a radius of each query.

    Parameters
    ----------
    snapshot, queries, filter, n_threads, positions
        As for :func:`search`.
    radius : int or ndarray of int64, shape (n_queries,)
        At least 0; a code at this distance is found.
    first, end : int
        The positions [first, end) are searched, by default all; `first` is a multiple of 512.

    Returns
    -------
    offsets : int64 (n_queries + 1,)
    distances : queries.dtype (offsets[-1],)
    ids : int64 (offsets[-1],)
        Those of query i stand at offsets[i] .. offsets[i + 1], ordered by (distance, id). While the search runs, it
        needs about four times the memory of the result.
    """
    cdef int64_t n_queries = len(queries), n = snapshot.db.n
    n = n if end is None else min(n, end)
    offsets = np.zeros(n_queries + 1, np.int64)
    if n_queries == 0 or n <= first:
        return offsets, np.empty(0, queries.dtype), np.empty(0, np.int64)
    cdef int64_t candidates = n if filter is None else count_bits(filter, n)
    cdef Plan plan = Plan(snapshot, queries, filter, positions, first, n, n_threads, APH_MAX_QUERIES)
    plan.db.compact = choose_compact(plan, candidates)
    cdef int64_t[::1] offset_view = offsets
    cdef int64_t start, wave, n_jobs, j, i, q, segment, total, n_found = plan.sets * plan.n_segments * plan.per_job
    cdef uint32_t[::1] distance_view
    cdef int64_t[::1] id_view
    cdef const int64_t[::1] radii = np.ascontiguousarray(np.broadcast_to(np.asarray(radius, np.int64), n_queries))
    all_distances, all_ids = [], []
    try:
        for start in range(0, n_queries, plan.queries_of_wave()):
            wave = min(plan.queries_of_wave(), n_queries - start)
            n_jobs = plan.lay_out(start, wave)
            for i in range(n_found):
                plan.found[i].count = 0
                plan.found[i].k = 0
            for j in range(n_jobs):
                for i in range(plan.jobs[j].n_queries):
                    plan.jobs[j].found[i].threshold = min(radii[plan.jobs[j].first + i], plan.q.max_distance)
            run(plan.jobs, n_jobs, &plan.db, plan.q.scan, plan.n_threads)
            q = start
            for j in range(0, n_jobs, plan.n_segments):
                for i in range(plan.jobs[j].n_queries):
                    total = 0
                    for segment in range(plan.n_segments):
                        total += plan.jobs[j].found[segment * plan.per_job + i].count
                    offset_view[q + 1] = offset_view[q] + total
                    q += 1
            total = offset_view[start + wave] - offset_view[start]
            distances = np.empty(total, queries.dtype)
            found_ids = np.empty(total, np.int64)
            all_distances.append(distances)
            all_ids.append(found_ids)
            if total == 0:
                continue
            distance_view = distances.view(np.uint32)
            id_view = found_ids
            order_jobs(plan.jobs, n_jobs, plan.n_segments, plan.per_job, &plan.db, &offset_view[0], offset_view[start],
                       &distance_view[0], &id_view[0], plan.n_threads)
            check_signals()
    finally:
        for i in range(n_found):
            free(plan.found[i].hits)
            plan.found[i].hits = NULL
    return offsets, np.concatenate(all_distances), np.concatenate(all_ids)


# ---- lookup and pairs ----

include "_lookup.pxi"
