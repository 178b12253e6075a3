"""The store of an index: immutable snapshots of codes and ids, which share their pages. The caller checks arguments.

A :class:`Snapshot` is all that a search reads: a table of pages (csrc/search/pages.h), the number of codes, ways from
an id to its position (csrc/search/id_map.h), and the lookup with the list of positions that it no longer describes. A
search takes ``store.present`` by one attribute read and needs nothing else. So readers are not counted and wait for
nobody, and a forked process inherits no state of theirs. Memory belongs to the pages that lie in it, and is freed with
the last of them.

A change makes a :class:`Draft` from the present snapshot, under the store's lock, and publishes it as the present one
by one assignment when it is complete. Before that nobody sees it. If it is given up at any point, by an exception or a
fork, it leaves nothing behind that a snapshot shows. A draft copies the pages that it writes to, except the *tail*:
behind the last code it writes in place, at or beyond the *mark*, which is the largest number of codes in that page that
any snapshot was published with. A removal makes the number of codes smaller, but not the mark, so the next addition
copies the page. Three other things are written in place, and none of them can harm a reader. Each reader verifies
entries of the table of ids, and lengths of runs, against its own pages. New entries of the list of stale positions
stand behind those that any snapshot counts.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

from aphash._kernels cimport (
    APH_GROUP, APH_LEAF_BITS, APH_LEAF_PAGES, APH_RUNS, aph_codes, aph_id_of, aph_idmap, aph_page, aph_page_of,
    aph_portable, aph_run, aph_runs, portable)

import threading

import numpy as np

from aphash._common.checks import some


cdef extern from *:
    """
    #include <pthread.h>
    #include <stdlib.h>
    #include <sys/mman.h>
    static volatile long aph_fork_count = 0;
    static void aph_note_fork(void) { aph_fork_count++; }
    static int aph_watch_forks(void) { return pthread_atfork(NULL, NULL, aph_note_fork); }
    static void aph_advise_huge(void *start, size_t size)
    {
    #ifdef MADV_HUGEPAGE
        (void)madvise(start, size, MADV_HUGEPAGE); /* only faster where it is granted */
    #else
        (void)start, (void)size;
    #endif
    }
    """
    long aph_fork_count
    int aph_watch_forks() noexcept
    void aph_advise_huge(void *, size_t) noexcept nogil
    int posix_memalign(void **, size_t, size_t) noexcept nogil


cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
    unsigned long PyThread_get_thread_ident() noexcept


cdef const aph_portable *c = portable()

if aph_watch_forks() != 0:
    raise MemoryError("pthread_atfork")

cdef size_t HUGE_PAGE = 1 << 21
cdef size_t SLAB_BYTES = 1 << 22       # so many are allocated at once; one page in use keeps its slab
cdef int64_t SIGNAL_STEP = 1 << 20     # codes between two checks for signals in a long change

_page_bytes = 1 << 17


def set_page_bytes(n_bytes):
    """Set the size of the pages of stores that are made from now on, and return the size before; for tests."""
    global _page_bytes
    before, _page_bytes = _page_bytes, n_bytes
    return before


cdef int page_bits_of(int64_t n_words) except -1:
    """Return log2 of the number of codes in a page: as many as its bytes hold, but at least 512."""
    cdef int bits = 9
    while (<int64_t> 2 << bits) * n_words * 8 <= <int64_t> _page_bytes:
        bits += 1
    return bits


# ---- memory ----

cdef class Memory:
    """Bytes that are aligned to 64, and freed with the last reference. From 2 MiB on they are mapped, with huge pages
    advised, because a scan of separate allocations of 128 KiB takes 1.5 times as long."""

    def __dealloc__(self):
        if self.mapped:
            munmap(self.start, self.size)
        else:
            free(self.start)


cdef Memory allocate(size_t size):
    cdef Memory memory = Memory.__new__(Memory)
    cdef void *start = NULL
    cdef size_t ahead
    if size < HUGE_PAGE:
        if posix_memalign(&start, 64, size) != 0:
            raise MemoryError(f"{size} bytes for an index")
        memory.start = <char *> start
        memory.size = size
        return memory
    size = (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1)
    start = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if start == MAP_FAILED:
        raise MemoryError(f"{size} bytes for an index")
    ahead = -<size_t> start & (HUGE_PAGE - 1)  # what lies before and behind the aligned bytes is unmapped
    if ahead:
        munmap(start, ahead)
    if ahead < HUGE_PAGE:
        munmap(<char *> start + ahead + size, HUGE_PAGE - ahead)
    memory.start = <char *> start + ahead
    memory.size = size
    memory.mapped = True
    aph_advise_huge(memory.start, size)
    return memory


# ---- what a snapshot is made of ----

cdef class Leaf:
    """Neighbouring pages, with the owners of their codes, ids and stale bits."""

    def __cinit__(self):
        self.owners = [None] * (3 * APH_LEAF_PAGES)

    cdef Leaf copy(self):
        cdef Leaf leaf = Leaf.__new__(Leaf)
        memcpy(leaf.pages, self.pages, sizeof(self.pages))
        leaf.owners = self.owners.copy()
        return leaf


cdef class Table:
    """The leaves of an index."""

    def __cinit__(self):
        self.nodes = []

    def __dealloc__(self):
        free(self.leaves)

    cdef Table copy(self):
        cdef Table table = Table.__new__(Table)
        cdef Leaf leaf
        for leaf in self.nodes:
            table.append(leaf)
        return table

    cdef int append(self, Leaf leaf) except -1:
        cdef void *bigger
        if <int64_t> len(self.nodes) == self.room:
            bigger = realloc(self.leaves, (2 * self.room + 4) * sizeof(aph_page *))
            if bigger == NULL:
                raise MemoryError("the table of an index")
            self.leaves = <const aph_page **> bigger
            self.room = 2 * self.room + 4
        self.nodes.append(leaf)
        self.leaves[len(self.nodes) - 1] = leaf.pages
        return 0

    cdef int replace(self, int64_t i, Leaf leaf) except -1:
        self.leaves[i] = leaf.pages
        self.nodes[i] = leaf
        return 0


cdef class Runs:
    """Ranges of positions whose ids count up."""

    cdef Runs copy(self):
        cdef Runs runs = Runs.__new__(Runs)
        runs.runs = self.runs
        return runs


cdef class IdMap:
    """The table of the ids that the runs do not find. Entries are only ever added. Needs 16 to 40 bytes for each id."""


cdef IdMap new_id_map(int64_t entries):
    """Return an empty table with room for so many entries and an eighth more."""
    cdef IdMap map = IdMap.__new__(IdMap)
    cdef int64_t size = 16
    while size < 2 * entries + entries // 4:
        size *= 2
    map.slots = allocate(size * sizeof(int64_t))
    map.map.slots = <int64_t *> map.slots.start
    map.map.mask = size - 1
    with nogil:
        memset(map.map.slots, 0xff, size * sizeof(int64_t))
    return map


cdef int enter_all(IdMap map, const aph_codes *db, const aph_runs *runs) except -1:
    """Enter every position. Raises what a signal handler raises."""
    cdef int64_t first
    for first in range(0, db.n, SIGNAL_STEP):
        with nogil:
            map.count += c.idmap_insert(&map.map, db, runs, first, min(db.n, first + SIGNAL_STEP))
        PyErr_CheckSignals()
    return 0


cdef IdMap map_of(const aph_codes *db, const aph_runs *runs, int64_t more):
    """Return a table of all ids that the runs do not find, with room for more."""
    cdef int64_t outside
    cdef IdMap map
    with nogil:
        outside = c.outside_runs(db, runs, 0, db.n)
    map = new_id_map(outside + more)
    enter_all(map, db, runs)
    return map


cdef class Positions:
    """A list of positions that grows at its end. Each reader knows how many of its entries count."""


cdef Positions grown(Positions old, int64_t n, int64_t room):
    """Return a list with more room, which begins with n entries of the old one."""
    cdef Positions new = Positions.__new__(Positions)
    new.memory = allocate(max(64, room) * sizeof(int64_t))
    new.values = <int64_t *> new.memory.start
    new.room = max(64, room)
    if n:
        memcpy(new.values, old.values, n * sizeof(int64_t))
    return new


# ---- the lock of changes ----

cdef class ChangeLock:
    """The lock that lets one change happen at a time.

    Only compiled functions call ``enter`` and ``leave``, so no signal is handled between ``enter`` and the ``try``
    behind it, nor inside ``leave``. A lock that is older than the last fork is replaced at its first use, because the
    thread that held it does not exist in the child. A signal handler or finaliser may ask for a change inside a change
    of the same thread. This would wait for ever, so it is refused.
    """

    cdef object lock
    cdef long forks
    cdef unsigned long owner
    cdef object busy  # the lock that `owner` holds

    def __cinit__(self):
        self.lock, self.forks = threading.Lock(), aph_fork_count

    cdef object enter(self, bint nested=False):
        """Take the lock, and return what `leave` needs. With `nested`, return None inside a change of this thread."""
        if self.forks != aph_fork_count:
            fresh = threading.Lock()
            if self.forks != aph_fork_count:  # no other thread has replaced it meanwhile
                self.lock, self.forks, self.busy = fresh, aph_fork_count, None
        lock = self.lock
        if self.busy is lock and self.owner == PyThread_get_thread_ident():
            if nested:
                return None
            raise RuntimeError(
                "the index is being changed by this thread: a signal handler or finaliser cannot change it meanwhile")
        lock.acquire()
        self.owner = PyThread_get_thread_ident()
        self.busy = lock
        return lock

    cdef int leave(self, object lock) except -1:
        if lock is None:
            return 0
        if self.busy is lock:
            self.busy = None
        lock.release()
        return 0


cdef ChangeLock _maps_lock = ChangeLock()  # for tables of ids, which searches make when they first need them


# ---- snapshots ----

cdef class Snapshot:
    """The codes and ids of an index at one moment. A :class:`Store` makes it, and nothing of it changes.

    Attributes
    ----------
    n_bits : int
    next_id : int
        One more than the largest id that ever was in the index, at least 0.
    lookup : Lookup or None
    arrangement : object
        A new object after each change that moves codes to other positions, or gives positions to other codes.
    fingerprint : str or None
        The fingerprint of the model that made the codes, where it is known.
    n_stale : int
        The number of positions whose codes are not those in the lookup's tables, including positions that were removed
        since.
    """

    def __len__(self):
        return self.db.n

    @property
    def n_words(self):
        return self.db.n_words

    @property
    def ascending(self):
        """Whether ids ascend with the position."""
        return bool(self.db.ascending)

    cdef IdMap id_map(self):
        """Return the table of ids, which is made at its first use after loading; None where ids ascend."""
        cdef IdMap map = self.map
        if map is not None or self.db.ascending:
            return map
        lock = _maps_lock.enter(nested=True)
        try:
            if self.map is None:
                self.map = map_of(&self.db, &self.runs.runs, 0)
        finally:
            _maps_lock.leave(lock)
        return self.map

    def find(self, const int64_t[::1] ids):
        """Return the positions of ids, int64; -1 for ids that are not in the index."""
        out = np.empty(ids.shape[0], np.int64)
        cdef int64_t[::1] view = out
        cdef IdMap map = self.id_map()
        cdef const aph_idmap *table = &map.map if map is not None else NULL
        cdef int64_t i
        with nogil:
            for i in range(ids.shape[0]):
                view[i] = c.find(&self.db, &self.runs.runs, table, ids[i])
        return out

    def bitmap(self, const int64_t[::1] positions, bint others=False):
        """Return a packed bitmap of these positions, or of all others: uint64 (ceil(n / 64),). -1 is no position."""
        out = np.zeros((self.db.n + 63) // 64, np.uint64)
        cdef uint64_t[::1] view = out
        cdef int64_t i
        with nogil:
            for i in range(positions.shape[0]):
                if positions[i] >= 0:
                    view[positions[i] // 64] |= <uint64_t> 1 << (positions[i] % 64)
            if others:
                for i in range(view.shape[0]):
                    view[i] = ~view[i]
                if self.db.n % 64:
                    view[view.shape[0] - 1] &= (<uint64_t> 1 << (self.db.n % 64)) - 1
        return out

    def ids_at(self, positions):
        """Return the ids at positions (int64, any shape): int64 of that shape."""
        out = np.array(positions, np.int64, order="C")
        cdef int64_t[::1] view = out.reshape(-1)
        cdef int64_t i
        with nogil:
            for i in range(view.shape[0]):
                view[i] = aph_id_of(&self.db, view[i])
        return out

    def codes_at(self, const int64_t[::1] positions):
        """Return the codes at positions: uint64 (n, n_words)."""
        out = np.empty((positions.shape[0], self.db.n_words), np.uint64)
        cdef uint64_t[:, ::1] view = out
        if positions.shape[0]:
            with nogil:
                c.load_at(&self.db, &positions[0], &view[0, 0], positions.shape[0])
        return out

    def load(self, int64_t first, int64_t n):
        """Return the codes at the positions [first, first + n): uint64 (n, n_words)."""
        out = np.empty((n, self.db.n_words), np.uint64)
        cdef uint64_t[:, ::1] view = out
        if n:
            with nogil:
                c.load(&self.db, first, &view[0, 0], n)
        return out

    def load_ids(self, int64_t first, int64_t n):
        """Return the ids at the positions [first, first + n): int64."""
        out = np.empty(n, np.int64)
        cdef int64_t[::1] view = out
        if n:
            with nogil:
                c.load_ids(&self.db, first, &view[0], n)
        return out

    def first_id_of_range(self):
        """Return the first id where the ids count up from it over all positions; None otherwise, or without codes."""
        if self.db.n == 0 or not self.db.ascending:
            return None
        cdef int64_t first = aph_id_of(&self.db, 0), last = aph_id_of(&self.db, self.db.n - 1)
        return first if <uint64_t> last - <uint64_t> first == <uint64_t> (self.db.n - 1) else None

    def stale_positions(self):
        """Return the positions whose codes are not those in the lookup's tables, ascending: int64."""
        out = np.empty(self.n_stale, np.int64)
        cdef int64_t[::1] view = out
        if self.n_stale:
            memcpy(&view[0], self.stale.values, self.n_stale * sizeof(int64_t))
        return np.sort(out[out < self.db.n])

    def code_pages(self):
        """Yield the codes, a page at a time: uint64 (ceil(n / 8) * 8 * n_words,) in all, with zeros in the spare
        places.

        The arrays are read-only views, which are valid as long as the snapshot lives.
        """
        cdef int64_t size = 1 << self.db.page_bits, first, n, words
        cdef const aph_page *page
        for first in range(0, self.db.n, size):
            n = min(size, self.db.n - first)
            page = aph_page_of(&self.db, first)
            words = (n + APH_GROUP - 1) // APH_GROUP * APH_GROUP * self.db.n_words
            codes = np.asarray(<uint64_t[:words]> <uint64_t *> page.codes)
            codes.flags.writeable = False
            if n % APH_GROUP:  # another thread may be filling the last group, and it may hold codes that were removed
                codes = codes.copy()
                codes.reshape(-1, self.db.n_words, APH_GROUP)[n // APH_GROUP, :, n % APH_GROUP:] = 0
            yield codes

    def memory(self):
        """Return the bytes of codes, ids, the table of ids and stale positions. Each page counts as a whole page."""
        cdef int64_t size = 1 << self.db.page_bits, i, n_pages = (self.db.n + size - 1) >> self.db.page_bits
        cdef int64_t total = <int64_t> len(self.table.nodes) * sizeof(aph_page) * APH_LEAF_PAGES
        cdef const aph_page *page
        for i in range(n_pages):
            page = aph_page_of(&self.db, i * size)
            n = size if n_pages > 1 else room_of_first(self.db.n, size)
            total += n * 8 * self.db.n_words
            total += n * 8 if page.ids != NULL else 0
            total += size // 8 if page.stale != NULL else 0
        if self.map is not None:
            total += self.map.slots.size
        return total + self.n_stale * sizeof(int64_t)


cdef int64_t room_of_first(int64_t n, int64_t size) noexcept:
    """Return how many codes the first page has room for while it is the only one. It begins small, and doubles."""
    cdef int64_t room = 64
    while room < n:
        room *= 2
    return min(room, size)


# ---- changes ----

cdef struct tail_t:      # the last page, where it may be written to in place
    uint64_t *codes      # NULL where it may not
    int64_t room         # places
    int64_t mark         # the places before it have been published


cdef class Draft:
    """A change that is being made."""

    cdef aph_codes db  # the codes as the change has made them so far
    cdef Snapshot base
    cdef Table table
    cdef bint own_table
    cdef set own_leaves, fresh, fresh_bits  # numbers of leaves and pages whose memory is this draft's own
    cdef Runs runs
    cdef bint own_runs
    cdef IdMap map
    cdef object next_id
    cdef object lookup, arrangement, fingerprint
    cdef int64_t n_indexed
    cdef Positions stale
    cdef int64_t n_stale
    cdef tail_t tail
    cdef list slabs     # slabs with room for pages; the last one is in use
    cdef size_t slab_at
    cdef int64_t since_signals

    cdef int start(self, Snapshot base, tail_t tail, list slabs, size_t slab_at) except -1:
        self.base, self.db = base, base.db
        self.table, self.runs, self.map = base.table, base.runs, base.map
        self.next_id, self.lookup = base.next_id, base.lookup
        self.arrangement, self.fingerprint = base.arrangement, base.fingerprint
        self.stale, self.n_stale = base.stale, base.n_stale
        self.n_indexed = 0 if base.lookup is None else base.lookup.n_indexed
        self.tail, self.slabs, self.slab_at = tail, slabs.copy(), slab_at
        self.own_leaves, self.fresh, self.fresh_bits = set(), set(), set()
        return 0

    # -- pages

    cdef int64_t size(self) noexcept:
        return <int64_t> 1 << self.db.page_bits

    cdef Leaf leaf(self, int64_t i):
        """Return leaf i for writing."""
        cdef Leaf leaf
        if not self.own_table:
            self.table = self.table.copy()
            self.db.leaves = <const aph_page *const *> self.table.leaves
            self.own_table = True
        if i == <int64_t> len(self.table.nodes):
            leaf = Leaf.__new__(Leaf)
            self.table.append(leaf)
            self.db.leaves = <const aph_page *const *> self.table.leaves
            self.own_leaves.add(i)
        elif i not in self.own_leaves:
            leaf = (<Leaf> self.table.nodes[i]).copy()
            self.table.replace(i, leaf)
            self.own_leaves.add(i)
        return <Leaf> self.table.nodes[i]

    cdef const aph_page *page(self, int64_t i) noexcept:
        return aph_page_of(&self.db, i << self.db.page_bits)

    cdef Memory room(self, size_t n_bytes, int64_t n_pages, bint growing, size_t *at):
        """Return memory for one page of codes, the first of n_pages that are wanted now. The page begins at `at`."""
        cdef Memory slab
        cdef size_t page_bytes = <size_t> self.size() * 8 * self.db.n_words
        cdef int64_t together
        if n_bytes < page_bytes:
            at[0] = 0
            return allocate(n_bytes)
        while self.slabs:
            slab = <Memory> self.slabs[len(self.slabs) - 1]
            if self.slab_at + page_bytes <= slab.size:
                at[0] = self.slab_at
                self.slab_at += page_bytes
                return slab
            self.slabs.pop()
            self.slab_at = 0
        if growing:  # an eighth of the present pages, so that many single additions make slabs, too
            n_pages = max(n_pages, (self.db.n >> self.db.page_bits) // 8)
        together = min(n_pages, max(<int64_t> 1, <int64_t> (SLAB_BYTES // page_bytes)))
        slab = allocate(page_bytes * together)
        at[0] = 0
        if together > 1:
            self.slabs.append(slab)
            self.slab_at = page_bytes
        return slab

    cdef int renew(self, int64_t i, int64_t used, int64_t wanted, int64_t n_pages, bint growing) except -1:
        """Give page i memory of its own, with room for `wanted` codes, and copy its first `used` places."""
        cdef int64_t size = self.size(), n_words = self.db.n_words
        cdef int64_t room = room_of_first(wanted, size) if i == 0 and wanted <= size // 2 else size
        cdef Leaf leaf = self.leaf(i >> APH_LEAF_BITS)
        cdef int64_t at = i & (APH_LEAF_PAGES - 1)
        cdef aph_page old = leaf.pages[at], new
        cdef size_t start
        cdef Memory memory = self.room(room * 8 * n_words, n_pages, growing, &start), ids = None
        cdef uint64_t *codes = <uint64_t *> (memory.start + start)
        memset(&new, 0, sizeof(new))
        new.codes = codes
        if used:
            memcpy(codes, old.codes, (used + APH_GROUP - 1) // APH_GROUP * APH_GROUP * n_words * 8)
            new.first_id, new.stale = old.first_id, old.stale
        else:
            leaf.owners[3 * at + 2] = None
        if used and old.ids != NULL:
            ids = allocate(room * 8)
            memcpy(ids.start, old.ids, used * 8)
            new.ids = <const int64_t *> ids.start
        leaf.pages[at] = new
        leaf.owners[3 * at], leaf.owners[3 * at + 1] = memory, ids
        self.fresh.add(i)
        if (i + 1) << self.db.page_bits >= self.db.n:
            self.tail.codes, self.tail.room, self.tail.mark = codes, room, used
        return 0

    cdef int64_t *explicit_ids(self, int64_t i, int64_t used) except NULL:
        """Return the ids of page i, with its room. They may be written from the mark on, or in a fresh page."""
        cdef Leaf leaf
        cdef int64_t at = i & (APH_LEAF_PAGES - 1), room = self.size(), place
        cdef Memory memory
        cdef int64_t *ids
        if self.page(i).ids != NULL:
            return <int64_t *> self.page(i).ids
        if (i + 1) << self.db.page_bits >= self.db.n and self.tail.codes != NULL:
            room = self.tail.room
        memory = allocate(room * 8)
        ids = <int64_t *> memory.start
        leaf = self.leaf(i >> APH_LEAF_BITS)
        for place in range(used):
            ids[place] = leaf.pages[at].first_id + place
        leaf.pages[at].ids = ids
        leaf.owners[3 * at + 1] = memory
        return ids

    cdef int mark_stale(self, int64_t position) except -1:
        """Note that the code at a position is not the one in the tables.

        The bits are never written in place, since they and the list must agree whatever becomes of this draft.
        """
        cdef int64_t i = position >> self.db.page_bits, place = position & (self.size() - 1)
        cdef int64_t at = i & (APH_LEAF_PAGES - 1), n_bytes = self.size() // 8
        cdef const uint64_t *old
        cdef uint64_t *bits
        cdef Memory memory
        cdef Leaf leaf
        if position >= self.n_indexed:
            return 0
        old = self.page(i).stale
        if old != NULL and old[place // 64] >> (place % 64) & 1:
            return 0
        if i not in self.fresh_bits:
            memory = allocate(n_bytes)
            if old == NULL:
                memset(memory.start, 0, n_bytes)
            else:
                memcpy(memory.start, old, n_bytes)
            leaf = self.leaf(i >> APH_LEAF_BITS)
            leaf.pages[at].stale = <const uint64_t *> memory.start
            leaf.owners[3 * at + 2] = memory
            self.fresh_bits.add(i)
        if self.stale is None or self.n_stale == self.stale.room:
            self.stale = grown(self.stale, self.n_stale, 2 * self.n_stale)
        bits = <uint64_t *> self.page(i).stale
        bits[place // 64] |= <uint64_t> 1 << (place % 64)
        self.stale.values[self.n_stale] = position
        self.n_stale += 1
        return 0

    cdef int forget_stale(self, int64_t end) except -1:
        """Remove the positions from `end` on from the list, because the bits of their pages are gone."""
        cdef Positions fewer
        cdef int64_t i, kept = 0
        if self.n_stale == 0:
            return 0
        fewer = grown(None, 0, self.n_stale)
        for i in range(self.n_stale):
            if self.stale.values[i] < end:
                fewer.values[kept] = self.stale.values[i]
                kept += 1
        self.stale, self.n_stale = fewer, kept
        return 0

    # -- ids

    cdef int need_map(self, int64_t more) except -1:
        """Make sure that there is a table of ids with room for more entries. `db` must be whole."""
        cdef IdMap old = self.map, new
        cdef int64_t live
        if old is None:
            old = self.map = self.base.id_map() if not self.db.ascending else map_of(&self.db, &self.runs.runs, more)
        if 2 * (old.count + more) <= old.map.mask + 1:
            return 0
        with nogil:
            live = c.idmap_live(&old.map, &self.db, &self.runs.runs)
        new = new_id_map(live + more)
        with nogil:
            new.count = c.idmap_take(&new.map, &old.map, &self.db, &self.runs.runs)
        self.map = new
        return 0

    cdef int enter(self, int64_t first, int64_t count, int64_t expected) except -1:
        """Enter the positions [first, first + count) in the table of ids, if there is one. Room for more is kept."""
        if self.map is None and self.db.ascending:
            return 0
        self.need_map(max(count, expected))
        self.map.count += count  # an upper bound, raised first: after a fork in between it is not too small
        with nogil:
            c.idmap_insert(&self.map.map, &self.db, &self.runs.runs, first, first + count)
        return 0

    cdef int write_runs(self) except -1:
        if not self.own_runs:
            self.runs, self.own_runs = self.runs.copy(), True
        return 0

    cdef int find_ids(self, int64_t first, int64_t count, bint count_up, int64_t expected) except -1:
        """Let the ids of new positions be found: by a run where they count up, else by the table."""
        cdef int64_t first_id = aph_id_of(&self.db, first)
        cdef aph_run evicted
        cdef int64_t shortest
        if count_up:
            if c.runs_extend(&self.runs.runs, first_id, first, count):
                return 0
            self.write_runs()
            if self.runs.runs.n == APH_RUNS:
                shortest = c.runs_shortest(&self.runs.runs, first)
                evicted = self.runs.runs.runs[shortest]
                c.runs_drop(&self.runs.runs, shortest)
                self.enter(evicted.position, min(evicted.length, first - evicted.position), 0)
            if c.runs_insert(&self.runs.runs, first_id, first, count):
                return 0
        return self.enter(first, count, expected)

    # -- the steps of a change

    cdef int append(self, const uint64_t *codes, int64_t count, const int64_t *ids, int64_t first_id) except -1:
        """Add codes behind the last one, under `ids`, or where that is NULL under ids that count up from first_id."""
        cdef int64_t size = self.size(), done = 0, first, place, take, i, j
        cdef int64_t *written
        cdef bint count_up, is_sorted
        if count == 0:
            return 0
        with nogil:
            is_sorted = self.db.ascending
            if is_sorted and self.db.n:
                is_sorted = aph_id_of(&self.db, self.db.n - 1) < (first_id if ids == NULL else ids[0])
            if ids != NULL:
                for j in range(1, count):
                    if not is_sorted:
                        break
                    is_sorted = ids[j - 1] < ids[j]
        if not is_sorted:
            self.need_map(0)
            self.db.ascending = 0
        while done < count:
            first = self.db.n
            i, place = first >> self.db.page_bits, first & (size - 1)
            take = min(count - done, size - place)
            if place == 0 or self.tail.codes == NULL or place < self.tail.mark or place + take > self.tail.room:
                self.renew(i, place, place + take, (count - done + place + size - 1) // size, True)
            with nogil:
                c.store(self.tail.codes, self.db.n_words, place, codes + done * self.db.n_words, take)
                count_up = ids == NULL or c.is_range(ids + done, take)
            if ids != NULL:
                first_id = ids[done]
            if place == 0 and count_up:
                self.leaf(i >> APH_LEAF_BITS).pages[i & (APH_LEAF_PAGES - 1)].first_id = first_id
            elif not (count_up and self.page(i).ids == NULL and
                          <uint64_t> self.page(i).first_id + <uint64_t> place == <uint64_t> first_id):
                written = self.explicit_ids(i, place)
                for j in range(take):
                    written[place + j] = first_id + j if count_up else ids[done + j]
            self.db.n = first + take
            self.find_ids(first, take, count_up, count - done)
            for j in range(first, min(self.n_indexed, first + take)):
                self.mark_stale(j)
            done += take
            if ids == NULL:
                first_id += take
            self.look_at_signals(take)
        return 0

    cdef int write(self, const int64_t[::1] positions, const uint64_t[:, ::1] codes) except -1:
        """Write codes to positions, which are all different."""
        cdef int64_t j, word, n_words = self.db.n_words
        cdef uint64_t *to
        self.own_pages(positions)
        with nogil:
            for j in range(positions.shape[0]):
                to = self.place(positions[j])
                for word in range(n_words):
                    to[word * APH_GROUP] = codes[j, word]
        for j in range(positions.shape[0] if self.n_indexed else 0):
            self.mark_stale(positions[j])
        return 0

    cdef int remove(self, const int64_t[::1] positions) except -1:
        """Remove positions, which ascend. Codes from the end move to their places."""
        cdef int64_t n = self.db.n - positions.shape[0], j, word, hole, n_words = self.db.n_words
        cdef const uint64_t *code
        cdef uint64_t *to
        cdef int64_t n_holes = np.searchsorted(positions, n)
        cdef const int64_t[::1] holes = positions[:n_holes]
        stay = np.ones(positions.shape[0], bool)  # which of the positions from n on stay
        stay[np.asarray(positions[n_holes:]) - n] = False
        cdef const int64_t[::1] movers = n + np.flatnonzero(stay)
        cdef int64_t size = self.size()
        if n_holes:
            self.need_map(n_holes)
            self.db.ascending = 0
            self.own_pages(holes)
            for j in range(n_holes):
                hole = holes[j]
                (self.explicit_ids(hole >> self.db.page_bits, min(size, self.db.n - (hole & -size))))[
                    hole & (size - 1)] = aph_id_of(&self.db, movers[j])
            with nogil:
                for j in range(n_holes):
                    to, code = self.place(holes[j]), self.place(movers[j])
                    for word in range(n_words):
                        to[word * APH_GROUP] = code[word * APH_GROUP]
        self.cut(n)
        for j in range(n_holes):
            self.enter(holes[j], 1, 0)
            self.mark_stale(holes[j])
        return 0

    cdef int cut(self, int64_t n) except -1:
        """Remove the positions from n on."""
        cdef int64_t n_pages = (n + self.size() - 1) >> self.db.page_bits, at
        cdef int64_t n_leaves = (n_pages + APH_LEAF_PAGES - 1) >> APH_LEAF_BITS
        cdef Leaf leaf
        if n_pages < (self.db.n + self.size() - 1) >> self.db.page_bits:
            leaf = self.leaf(max(n_leaves, 1) - 1)
            del self.table.nodes[n_leaves:]
            for at in range(n_pages - ((n_leaves - 1) << APH_LEAF_BITS) if n_leaves else 0, APH_LEAF_PAGES):
                memset(leaf.pages + at, 0, sizeof(aph_page))
                leaf.owners[3 * at] = leaf.owners[3 * at + 1] = leaf.owners[3 * at + 2] = None
            self.forget_stale(n_pages << self.db.page_bits)
        self.write_runs()
        c.runs_cut(&self.runs.runs, n)
        self.db.n = n
        self.arrangement = object()
        if n == 0:
            self.db.ascending, self.map, self.fingerprint = 1, None, None
        if n_pages == 0 or self.page(n_pages - 1).codes != self.tail.codes:
            self.tail.codes = NULL
        return 0

    cdef int own_pages(self, const int64_t[::1] positions) except -1:
        """Give the pages of these positions memory that is this draft's own."""
        cdef int64_t left, i, used
        in_order = np.sort(np.asarray(positions) >> self.db.page_bits)
        pages = in_order[np.flatnonzero(np.diff(in_order, prepend=-1))].tolist()
        pages = [i for i in pages if i not in self.fresh]
        left = len(pages)
        for i in pages:
            used = min(self.size(), self.db.n - (i << self.db.page_bits))
            self.renew(i, used, used, left, False)
            left -= 1
            self.look_at_signals(used)
        return 0

    cdef uint64_t *place(self, int64_t position) noexcept nogil:
        """Return the first word of the code at a position. It may be written to in a fresh page only."""
        cdef int64_t place = position & (((<int64_t> 1) << self.db.page_bits) - 1), i = position >> self.db.page_bits
        cdef const aph_page *page = self.db.leaves[i >> APH_LEAF_BITS] + (i & (APH_LEAF_PAGES - 1))
        return <uint64_t *> page.codes + place // APH_GROUP * self.db.n_words * APH_GROUP + place % APH_GROUP

    cdef int look_at_signals(self, int64_t n) except -1:
        """Raise what a signal handler raises, once in many codes. The draft is then given up."""
        self.since_signals += n
        if self.since_signals >= SIGNAL_STEP:
            self.since_signals = 0
            PyErr_CheckSignals()
        return 0

    cdef int describe(self, lookup, Snapshot described) except -1:
        """Take another lookup, which was made from the snapshot `described`, or None."""
        cdef int64_t i, first, end, j, n, size = self.size()
        cdef int64_t[::1] different
        cdef Leaf leaf
        for i in range((self.db.n + size - 1) >> self.db.page_bits):
            if self.page(i).stale != NULL:
                leaf = self.leaf(i >> APH_LEAF_BITS)
                leaf.pages[i & (APH_LEAF_PAGES - 1)].stale = NULL
                leaf.owners[3 * (i & (APH_LEAF_PAGES - 1)) + 2] = None
        self.lookup, self.stale, self.n_stale = lookup, None, 0
        self.n_indexed = 0 if lookup is None else lookup.n_indexed
        end = min(self.db.n, self.n_indexed)
        if lookup is None or end == 0:
            return 0
        different = np.empty(min(size, end), np.int64)
        for first in range(0, end, size):
            if aph_page_of(&self.db, first).codes == aph_page_of(&described.db, first).codes:
                continue  # this is the same memory, and a published place is never written again
            with nogil:
                n = c.different(&self.db, &described.db, first, min(end, first + size), &different[0])
            for j in range(n):
                self.mark_stale(different[j])
        return 0

    cdef int take_fingerprint(self, fingerprint, int64_t n) except -1:
        """Note which model made n new codes. ValueError where another model made the codes that are there."""
        if fingerprint is None or n == 0:
            return 0
        if self.fingerprint is not None and self.fingerprint != fingerprint and self.db.n:
            raise ValueError("codes are those of another model than the index's, as their fingerprints tell: "
                             "an index holds the codes of one model")
        self.fingerprint = fingerprint
        return 0

    cdef Snapshot finished(self):
        cdef Snapshot snapshot = Snapshot.__new__(Snapshot)
        snapshot.db, snapshot.n_bits = self.db, self.base.n_bits
        snapshot.next_id, snapshot.lookup = self.next_id, self.lookup
        snapshot.arrangement, snapshot.fingerprint = self.arrangement, self.fingerprint
        snapshot.table, snapshot.runs, snapshot.map = self.table, self.runs, self.map
        if self.map is None and not self.db.ascending:  # the base may have got one meanwhile
            snapshot.map = self.base.map
        snapshot.stale, snapshot.n_stale = self.stale, self.n_stale
        return snapshot


cdef int64_t MAX_ID = 0x7fffffffffffffff


def refuse_unknown(ids, positions):
    """Raise KeyError, which names the ids, where a position is -1."""
    if (positions < 0).any():
        raise KeyError(f"ids are not in the index: {some(ids[positions < 0])}")


cdef class Store:
    """The present snapshot of an index, and its changes.

    Parameters
    ----------
    n_bits : int
        1 to 65,536.

    Attributes
    ----------
    present : Snapshot
    """

    cdef readonly Snapshot present
    cdef ChangeLock lock
    cdef tail_t tail
    cdef list slabs
    cdef size_t slab_at
    cdef long renewing

    def __cinit__(self, int64_t n_bits):
        cdef Snapshot empty = Snapshot.__new__(Snapshot)
        empty.n_bits, empty.next_id, empty.arrangement = n_bits, 0, object()
        empty.table, empty.runs = Table.__new__(Table), Runs.__new__(Runs)
        empty.db.n_words = (n_bits + 63) // 64
        empty.db.page_bits = page_bits_of(empty.db.n_words)
        empty.db.ascending = 1
        self.present, self.lock, self.slabs = empty, ChangeLock(), []

    cdef Draft draft(self):
        cdef Draft draft = Draft.__new__(Draft)
        draft.start(self.present, self.tail, self.slabs, self.slab_at)
        return draft

    def successor(self):
        """Return a store that begins with what this one holds. Neither sees the other's changes.

        This is for a change of several stores that is to be seen at once or not at all. The successor of each store is
        changed, and the successors take the places of the stores together. The room in the last page passes to the
        successor, and a later change of this store copies that page.
        """
        cdef Store store = Store(self.present.n_bits)
        lock = self.lock.enter()
        try:
            store.present = self.present
            store.tail, store.slabs, store.slab_at = self.tail, self.slabs, self.slab_at
            memset(&self.tail, 0, sizeof(self.tail))
            self.slabs, self.slab_at = [], 0
        finally:
            self.lock.leave(lock)
        return store

    cdef Draft empty_draft(self):
        """Return a draft without codes, whose pages will be its own."""
        cdef tail_t none
        cdef Draft draft = Draft.__new__(Draft)
        memset(&none, 0, sizeof(none))
        draft.start(self.present, none, [], 0)
        draft.table, draft.own_table, draft.runs, draft.own_runs = Table.__new__(Table), True, Runs.__new__(Runs), True
        draft.map, draft.db.leaves, draft.db.n, draft.db.ascending = None, NULL, 0, 1
        draft.lookup, draft.stale, draft.n_stale, draft.n_indexed = None, None, 0, 0
        draft.arrangement = object()
        return draft

    cdef int publish(self, Draft draft) except -1:
        """Make the draft the present snapshot.

        The stores behind the first statement run without a signal check between them, so Ctrl-C takes effect before or
        after all of them.
        """
        cdef Snapshot snapshot = draft.finished()
        cdef int64_t place = draft.db.n & (draft.size() - 1)
        draft.tail.mark = max(draft.tail.mark, place if place or draft.db.n == 0 else draft.size())
        self.tail, self.slabs, self.slab_at = draft.tail, draft.slabs, draft.slab_at
        self.present = snapshot
        return 0

    def add(self, const uint64_t[:, ::1] codes, ids=None, fingerprint=None):
        """Add codes (n, n_words) under ids (int64 (n,), all different, none -1), or under counted ids; return the ids.

        ValueError where some ids are in the index already, where there are no larger ids to count on, or where another
        model made the codes.
        """
        lock = self.lock.enter()
        try:
            draft = self.draft()
            draft.take_fingerprint(fingerprint, len(codes))
            ids = self.appended(draft, codes, ids)
            self.publish(draft)
        finally:
            self.lock.leave(lock)
        return ids

    cdef object appended(self, Draft draft, const uint64_t[:, ::1] codes, ids):
        cdef int64_t n = codes.shape[0]
        cdef const int64_t[::1] view
        if ids is None:
            first = draft.next_id
            if first + n - 1 > MAX_ID:
                raise ValueError(f"ids cannot be counted on from {first - 1}: give them")
            ids = np.arange(first, first + n, dtype=np.int64)
            if n:
                draft.append(&codes[0, 0], n, NULL, first)
        else:
            known = ids[draft.base.find(ids) >= 0]
            if known.size:
                raise ValueError(f"ids are in the index already: {some(known)}")
            view = ids
            if n:
                draft.append(&codes[0, 0], n, &view[0], 0)
        if n:
            draft.next_id = max(draft.next_id, int(ids.max()) + 1)
        return ids

    def update(self, const uint64_t[:, ::1] codes, ids, fingerprint=None):
        """Replace the codes of ids, which are all different. KeyError where some are not in the index."""
        lock = self.lock.enter()
        try:
            draft = self.draft()
            draft.take_fingerprint(fingerprint, len(codes))
            positions = draft.base.find(ids)
            refuse_unknown(ids, positions)
            draft.write(positions, codes)
            self.publish(draft)
        finally:
            self.lock.leave(lock)

    def upsert(self, codes, ids, fingerprint=None):
        """Replace the codes of those ids that are in the index, and add the others; return how many were added."""
        lock = self.lock.enter()
        try:
            draft = self.draft()
            draft.take_fingerprint(fingerprint, len(codes))
            positions = draft.base.find(ids)
            new = positions < 0
            draft.write(positions[~new], np.ascontiguousarray(codes[~new]))
            self.appended(draft, np.ascontiguousarray(codes[new]), ids[new])
            self.publish(draft)
        finally:
            self.lock.leave(lock)
        return int(new.sum())

    def remove(self, ids, bint ignore_missing):
        """Remove ids, all different; return how many. KeyError where some are not in the index, unless ignored."""
        lock = self.lock.enter()
        try:
            draft = self.draft()
            positions = draft.base.find(ids)
            if not ignore_missing:
                refuse_unknown(ids, positions)
            positions = np.sort(positions[positions >= 0])
            if len(positions):
                draft.remove(positions)
                self.publish(draft)
        finally:
            self.lock.leave(lock)
        return len(positions)

    def merge(self, Snapshot other):
        """Add all codes of another snapshot of as many bits under their ids. ValueError where some ids are in both."""
        cdef int64_t first
        lock = self.lock.enter()
        try:
            draft = self.draft()
            draft.take_fingerprint(other.fingerprint, other.db.n)
            for first in range(0, other.db.n, SIGNAL_STEP):
                new_ids = other.load_ids(first, min(SIGNAL_STEP, other.db.n - first))
                known = new_ids[draft.base.find(new_ids) >= 0]
                if known.size:
                    raise ValueError(f"ids are in both indexes: {some(known)}")
                draft.next_id = max(draft.next_id, int(new_ids.max()) + 1)
                PyErr_CheckSignals()
            self.copy_into(draft, other, None)
            self.publish(draft)
        finally:
            self.lock.leave(lock)

    cdef int copy_into(self, Draft draft, Snapshot other, order) except -1:
        """Append the codes of a snapshot, in the order of its positions or of the given positions."""
        cdef int64_t first, n, step = draft.size()
        cdef const int64_t[::1] ids
        cdef const uint64_t[:, ::1] codes
        for first in range(0, other.db.n, step):
            n = min(step, other.db.n - first)
            if order is None:
                codes, ids = other.load(first, n), other.load_ids(first, n)
            else:
                codes, ids = other.codes_at(order[first:first + n]), other.ids_at(order[first:first + n])
            draft.append(&codes[0, 0], n, &ids[0], 0)
        return 0

    def clear(self, lookup):
        """Remove all codes, but keep the next id. `lookup` is one without codes, or None."""
        lock = self.lock.enter()
        try:
            draft = self.empty_draft()
            draft.lookup, draft.fingerprint = lookup, None
            self.publish(draft)
        finally:
            self.lock.leave(lock)

    def compact(self):
        """Copy all codes to new pages, in order of their ids, without a lookup."""
        lock = self.lock.enter()
        try:
            draft = self.empty_draft()
            order = None if self.present.db.ascending else np.argsort(self.present.load_ids(0, self.present.db.n))
            self.copy_into(draft, self.present, order)
            self.publish(draft)
        finally:
            self.lock.leave(lock)

    def reserve(self, int64_t n):
        """Allocate pages for n codes in all."""
        cdef size_t page_bytes
        cdef int64_t pages, together
        lock = self.lock.enter()
        try:
            page_bytes = <size_t> 8 * self.present.db.n_words << self.present.db.page_bits
            pages = ((n - 1) >> self.present.db.page_bits) - ((self.present.db.n - 1) >> self.present.db.page_bits)
            slabs = [slab for slab in self.slabs]
            for slab in slabs:
                pages -= (<Memory> slab).size // page_bytes
            if slabs:
                pages += self.slab_at // page_bytes
            together = max(1, SLAB_BYTES // page_bytes)
            new = []
            while pages > 0:
                new.append(allocate(page_bytes * min(pages, together)))
                pages -= together
            self.slabs = new + slabs
            if not slabs:
                self.slab_at = 0
        finally:
            self.lock.leave(lock)

    def set_lookup(self, lookup, Snapshot described, replaces=None):
        """Take a lookup that was made from a snapshot of this store, or None to have none.

        With `replaces`, it is taken only if `replaces` is still the present lookup.
        """
        lock = self.lock.enter()
        try:
            if replaces is None or replaces is self.present.lookup:
                draft = self.draft()
                draft.describe(lookup, described)
                self.publish(draft)
        finally:
            self.lock.leave(lock)

    def renew_lookup(self):
        """Build the lookup anew if too much has changed, unless another thread does so. Does not hold the lock."""
        cdef Snapshot snapshot = self.present
        lookup = snapshot.lookup
        if lookup is None or self.renewing == aph_fork_count + 1 or not lookup.needs_rebuild(snapshot):
            return
        self.renewing = aph_fork_count + 1  # a thread that did this before a fork does not exist in the child
        try:
            self.set_lookup(lookup.rebuild_tables(snapshot), snapshot, lookup)
        except MemoryError:
            pass  # searches in the old tables are right, only slower
        finally:
            self.renewing = 0

    def adopt(self, codes, ids, int64_t first_id, next_id, bint ascending, bint look,
              lookup=None, stale=None, fingerprint=None):
        """Take the arrays of a file, which may be read-only maps. The store must be empty, and nobody else may have it.

        Parameters
        ----------
        codes : uint64 (ceil(n / 8) * 8 * n_words,)
        ids : int64 (n,), or int
            An int is the number of ids, which count up from first_id.
        next_id : int
        ascending : bool
        look : bool
            Whether the ids may be read, to find those that count up. Otherwise they stay in the array.
        lookup, stale
            A lookup and its stale positions, int64, all different.
        """
        cdef Draft draft = self.empty_draft()
        cdef bint counted = isinstance(ids, int), count_up
        cdef int64_t n = ids if counted else len(ids), size = draft.size(), i, at, place, words = size * draft.db.n_words
        cdef const uint64_t[::1] code_view = codes
        cdef const int64_t[::1] id_view
        cdef Leaf leaf
        if not counted:
            id_view = ids
        draft.db.ascending = ascending
        for i in range((n + size - 1) // size):
            at = i & (APH_LEAF_PAGES - 1)
            leaf = draft.leaf(i >> APH_LEAF_BITS)
            leaf.pages[at].codes = &code_view[i * words]
            leaf.owners[3 * at] = codes
            place = min(size, n - i * size)
            if counted:
                count_up, leaf.pages[at].first_id = True, first_id + i * size
            else:
                count_up = look and c.is_range(&id_view[i * size], place)
                leaf.pages[at].first_id = id_view[i * size] if count_up else 0
            if not count_up:
                leaf.pages[at].ids = &id_view[i * size]
                leaf.owners[3 * at + 1] = ids
            draft.db.n = i * size + place
            if count_up and not c.runs_extend(&draft.runs.runs, leaf.pages[at].first_id, i * size, place):
                c.runs_insert(&draft.runs.runs, leaf.pages[at].first_id, i * size, place)
        draft.next_id, draft.lookup, draft.fingerprint = next_id, lookup, fingerprint
        draft.n_indexed = 0 if lookup is None else lookup.n_indexed
        for position in () if stale is None else stale[stale < n].tolist():
            draft.mark_stale(position)
        self.publish(draft)
