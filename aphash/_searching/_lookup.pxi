# Multi-index hashing and the search for all pairs. This file is included by _search.pyx, and works on tables of
# substrings (csrc/search/lookup.h).

cdef extern from "search/lookup.h":
    enum:
        APH_LOOKUP_DONE
        APH_LOOKUP_FULL
        APH_SUBSTRING_BITS
    ctypedef struct aph_lookup "aph_lookup":
        int64_t n_substrings
        const int32_t *starts
        const int64_t *tables
        const uint32_t *offsets
        const uint32_t *positions
        int64_t n_indexed
        const int64_t *stale
        int64_t n_stale
    ctypedef struct aph_pairs "aph_pairs":
        const uint32_t *order
        const uint32_t *bounds
        int64_t bucket
        int64_t end
        int64_t a
        int64_t b
        const int32_t *starts
        int64_t substring
        int32_t radius


MAX_SUBSTRING_BITS = APH_SUBSTRING_BITS  # that a substring of a lookup has at most

cdef int64_t BUILD_STEP = 1 << 21  # so many codes are counted or placed between two checks for signals


def build_tables(Snapshot snapshot, const int32_t[::1] starts):
    """Build the tables of a lookup over a snapshot's codes, fewer than 2^32.

    Parameters
    ----------
    starts : int32 (n_substrings + 1,)
        Substring j is the bits starts[j] .. starts[j + 1] - 1 of a code, MAX_SUBSTRING_BITS at most.

    Returns
    -------
    tables : int64 (n_substrings,)
        Where the table of substring j begins in `offsets`.
    offsets : uint32
        For substring j, 2^bits + 1 offsets into its row of `positions`, and one that is not used.
    positions : uint32 (n_substrings, n)
        Grouped by the value of the substring.
    """
    cdef int64_t n_substrings = starts.shape[0] - 1, j, first, bits, n = snapshot.db.n
    sizes = [(1 << (starts[j + 1] - starts[j])) + 2 for j in range(n_substrings)]
    tables = np.cumsum([0, *sizes], dtype=np.int64)[:n_substrings].copy()
    offsets = np.zeros(sum(sizes), np.uint32)
    positions = np.empty((n_substrings, n), np.uint32)
    if n == 0:
        return tables, offsets, positions
    cdef aph_codes db = database(snapshot, None, True)
    cdef uint32_t[::1] offset_view
    cdef uint32_t[:, ::1] position_view = positions
    for j in range(n_substrings):
        bits = starts[j + 1] - starts[j]
        table = offsets[tables[j] : tables[j] + sizes[j]]
        offset_view = table
        # Values are counted one place further on than their offsets stand. Placing advances the offsets, and leaves
        # each where it belongs.
        for first in range(0, n, BUILD_STEP):
            with nogil:
                c.substring_count(&db, first, min(n, first + BUILD_STEP), starts[j], bits, &offset_view[1])
            check_signals()
        np.cumsum(table, out=table, dtype=np.uint32)
        for first in range(0, n, BUILD_STEP):
            with nogil:
                c.substring_place(&db, first, min(n, first + BUILD_STEP), starts[j], bits, &offset_view[1],
                               &position_view[j, 0])
            check_signals()
    return tables, offsets, positions


cdef class Tables:
    """The arrays of a lookup, as the kernels take them.

    Parameters
    ----------
    starts, tables, offsets, positions
        As :func:`build_tables` takes and returns them. The positions may be a read-only map.
    """

    cdef aph_lookup lookup
    cdef object keep

    def __init__(self, const int32_t[::1] starts, const int64_t[::1] tables, const uint32_t[::1] offsets,
                 const uint32_t[:, ::1] positions):
        self.keep = (starts, tables, offsets, positions)
        self.lookup.n_substrings = starts.shape[0] - 1
        self.lookup.starts = &starts[0]
        self.lookup.tables = &tables[0]
        self.lookup.offsets = &offsets[0]
        self.lookup.n_indexed = positions.shape[1]
        self.lookup.positions = &positions[0, 0] if positions.shape[1] else NULL


cdef struct lookup_job:
    const aph_lookup *lookup
    const aph_codes *db
    const aph_queries *queries
    int64_t start             # the first query of the wave
    aph_found *found          # one for each query of the wave
    uint8_t *done
    int64_t *bins             # APH_BINS for each thread
    int64_t k, radius, room
    double budget, probe_cost, code_cost


cdef void look_up(lookup_job *job, int64_t q, int thread) noexcept nogil:
    """Search one query. Its buffer grows as a radius search needs. Where memory ends, the query is not done."""
    cdef aph_found *found = job.found + q
    cdef const aph_queries *queries = job.queries
    cdef void *bigger
    cdef int status
    job.done[q] = 0
    found.capacity = job.room
    found.first = 0
    while True:
        bigger = realloc(found.hits, room_of(found.capacity) * sizeof(uint64_t))
        if bigger == NULL:
            return
        found.hits = <uint64_t *> bigger
        found.count = 0
        found.k = job.k
        found.threshold = queries.max_distance if job.k else min(job.radius, queries.max_distance)
        status = queries.lookup(job.lookup, job.db, queries.first + (job.start + q) * queries.stride, found, job.budget,
                                job.probe_cost, job.code_cost, job.bins + thread * (APH_BINS + 8))
        if status != APH_LOOKUP_FULL:
            job.done[q] = status == APH_LOOKUP_DONE
            return
        found.capacity *= 4


cdef double look_up_all(lookup_job *job, int64_t n_queries, int n_threads) noexcept:
    """Search the queries of a wave. Returns how many nanoseconds one thread needed for one query."""
    cdef int64_t q
    cdef double start = seconds()
    with nogil:
        if n_threads == 1:
            for q in range(n_queries):
                look_up(job, q, 0)
        else:
            for q in prange(n_queries, num_threads=n_threads, schedule="dynamic", chunksize=4):
                look_up(job, q, omp_get_thread_num())
    return (seconds() - start) * 1e9 * n_threads / n_queries


def lookup_search(Tables tables, Snapshot snapshot, Queries queries, int64_t k, int64_t radius, double budget,
                  double probe_cost, double code_cost, filter=None, int n_threads=1, bint positions=False):
    """Search queries in a lookup, and give up those that would cost too much.

    Parameters
    ----------
    snapshot, queries, filter, n_threads, positions
        As for :func:`search`. The tables must be those of the snapshot's lookup.
    k : int
        How many are wanted, at least 1; or 0 for all within `radius`.
    budget : float
        Nanoseconds that a query may cost: `probe_cost` for each value that is probed, and `code_cost` for each code
        that is found there.

    Returns
    -------
    done : bool (n_queries,)
        False for the queries that were given up. They have no results here.
    offsets : int64 (n_queries + 1,)
    distances : int32 (offsets[-1],)
    ids : int64 (offsets[-1],)
        As for :func:`radius_search`. With k > 0, there are k of each query that is done.
    """
    cdef int64_t n_queries = len(queries)
    cdef aph_codes db = database(snapshot, filter, positions)
    cdef aph_lookup lookup = tables.lookup
    done = np.zeros(n_queries, np.uint8)
    offsets = np.zeros(n_queries + 1, np.int64)
    all_distances, all_ids = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    cdef int64_t max_wave = max(1, min(1024, BUFFER_BYTES // (8 * room_of(2 * k))))
    founds = np.zeros(max_wave * sizeof(aph_found), np.uint8)
    bins = np.empty(n_threads * (APH_BINS + 8), np.int64)
    cdef uint8_t[::1] byte_view = founds, done_view = done
    cdef aph_found *found = <aph_found *> &byte_view[0]
    cdef int64_t[::1] bin_view = bins, offset_view = offsets, id_view
    cdef uint32_t[::1] distance_view
    cdef int64_t wave = min(max_wave, 4), q, total
    cdef double each = 0  # nanoseconds of a query, as measured; one thread searches the first few
    cdef int threads = 1
    cdef lookup_job job
    if n_queries == 0 or db.n == 0:
        return done.view(bool), offsets, all_distances[0], all_ids[0]
    db.ascending = 0  # since hits come in no order
    lookup.stale = snapshot.stale.values if snapshot.n_stale else NULL
    lookup.n_stale = snapshot.n_stale
    job.lookup = &lookup
    job.db = &db
    job.queries = &queries.q
    job.found = found
    job.bins = &bin_view[0]
    job.k = k
    job.radius = radius
    job.room = k + max(64, k)
    job.budget = budget
    job.probe_cost = probe_cost
    job.code_cost = code_cost
    job.start = 0
    try:
        while job.start < n_queries:
            wave = min(wave, n_queries - job.start)
            job.done = &done_view[job.start]
            each = look_up_all(&job, wave, threads)
            for q in range(wave):
                total = 0
                if job.done[q]:
                    total = k if k else found[q].count
                offset_view[job.start + q + 1] = offset_view[job.start + q] + total
            total = offset_view[job.start + wave] - offset_view[job.start]
            distances, found_ids = np.empty(total, np.int32), np.empty(total, np.int64)
            all_distances.append(distances)
            all_ids.append(found_ids)
            if total:
                distance_view, id_view = distances.view(np.uint32), found_ids
                with nogil:
                    for q in range(wave):
                        total = offset_view[job.start + q + 1] - offset_view[job.start + q]
                        if total:
                            c.order(found + q, 1, 1, total, &db, job.bins,
                                    &distance_view[offset_view[job.start + q] - offset_view[job.start]],
                                    &id_view[offset_view[job.start + q] - offset_view[job.start]])
            job.start += wave
            wave = min(max_wave, max(1, <int64_t> (n_threads * WAVE_SECONDS * 1e9 / max(each, 1.0))))
            threads = min(threads_for(each * min(wave, n_queries - job.start), n_threads),
                          <int> min(1024, ceil_div(max(1, min(wave, n_queries - job.start)), 4)))
            check_signals()
    finally:
        for q in range(max_wave):
            free(found[q].hits)
    return done.view(bool), offsets, np.concatenate(all_distances), np.concatenate(all_ids)


# ---- all pairs ----

cdef class PairStream:
    """All pairs of positions i < j with distance <= radius. Each pair comes once, in chunks of bounded size, in any
    order.

    Two codes within the radius agree in one of radius + 1 substrings of their bits, by the pigeonhole principle. Only
    codes that agree in a substring are therefore compared. Where substrings are so short that too many agree, use a
    radius search.

    Parameters
    ----------
    snapshot, filter
        The database, of fewer than 2^32 codes.
    radius : int
        Less than n_bits.

    Notes
    -----
    Needs 4 n bytes, and 4 bytes for each of up to 2^26 buckets, of which there are about n.
    """

    cdef aph_codes db
    cdef aph_pairs pairs
    cdef object keep, order, bounds
    cdef int64_t n_substrings, n_buckets, total_bits
    cdef int32_t[::1] starts

    def __init__(self, Snapshot snapshot, int64_t radius, filter=None):
        cdef int64_t n_bits = snapshot.n_bits, n = snapshot.db.n
        self.keep = (snapshot, filter)
        self.db = database(snapshot, filter, True)
        self.n_substrings = radius + 1
        self.starts = np.asarray([n_bits * j // (radius + 1) for j in range(radius + 2)], np.int32)
        self.pairs.starts = &self.starts[0]
        self.pairs.radius = <int32_t> radius
        self.pairs.substring = -1
        self.pairs.bucket = self.pairs.end = 0
        self.total_bits = min(26, max(4, (<object> n).bit_length()))
        if n == 0:
            self.n_substrings = 0

    cdef int next_substring(self) except -1:
        """Put the positions into buckets by the next substring."""
        self.pairs.substring += 1
        cdef int32_t start = self.starts[self.pairs.substring], stop = self.starts[self.pairs.substring + 1]
        cdef int32_t bits = <int32_t> min(self.total_bits, stop - start)
        cdef uint32_t[::1] bounds, order
        cdef int64_t first, n = self.db.n
        self.bounds = self.order = None
        self.n_buckets = 1 << bits
        self.bounds = np.zeros(self.n_buckets + 2, np.uint32)
        self.order = np.empty(n, np.uint32)
        bounds, order = self.bounds, self.order
        for first in range(0, n, BUILD_STEP):
            with nogil:
                c.hash_count(&self.db, first, min(n, first + BUILD_STEP), start, stop, bits, &bounds[1])
            check_signals()
        np.cumsum(self.bounds, out=self.bounds, dtype=np.uint32)
        for first in range(0, n, BUILD_STEP):
            with nogil:
                c.hash_place(&self.db, first, min(n, first + BUILD_STEP), start, stop, bits, &bounds[1], &order[0])
            check_signals()
        self.pairs.order = &order[0]
        self.pairs.bounds = &bounds[0]
        self.pairs.bucket, self.pairs.end = 0, self.n_buckets
        self.pairs.a, self.pairs.b = 0, 1
        return 0

    def comparisons(self):
        """Return how many pairs of codes would be compared if the bits were random. This estimates the cost."""
        cdef double n = self.db.n
        return sum(n * n / 2 / 2.0 ** min(self.total_bits, self.starts[j + 1] - self.starts[j])
                   for j in range(self.n_substrings))

    @property
    def progress(self):
        """The share of the work that has been done, from 0 to 1, by the number of buckets."""
        if self.n_substrings == 0:
            return 1.0
        if self.pairs.substring < 0:
            return 0.0
        return (self.pairs.substring + (<double> self.pairs.bucket) / self.n_buckets) / self.n_substrings

    def read(self, int64_t room=1 << 16, int64_t work=1 << 25):
        """Return the next pairs, or None when there are no more.

        Parameters
        ----------
        room : int
            How many pairs to return at most.
        work : int
            After about so many comparisons the pairs found so far are returned, possibly none. This bounds the time.

        Returns
        -------
        i, j : int64 (m,)
            Positions, i < j.
        distances : int32 (m,)
        """
        while self.pairs.bucket == self.pairs.end:
            if self.pairs.substring + 1 >= self.n_substrings:
                return None
            self.next_substring()
        i, j, distances = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int32)
        cdef int64_t[::1] i_view = i, j_view = j
        cdef int32_t[::1] distance_view = distances
        cdef int64_t m
        with nogil:
            m = chosen[0].search.pairs(&self.pairs, &self.db, room, work, &i_view[0], &j_view[0],
                                           &distance_view[0])
        check_signals()
        return i[:m].copy(), j[:m].copy(), distances[:m].copy()
