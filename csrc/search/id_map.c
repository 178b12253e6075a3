#include "search/id_map.h"

/* The slot where the search for an id begins, by the finaliser of MurmurHash3 (A. Appleby, public domain). Every bit of
 * the id reaches the low bits, so counted ids, multiples of a power of two and negative ids are spread equally well. */
static int64_t home_of(const aph_idmap *map, int64_t id)
{
    uint64_t x = (uint64_t)id;
    x = (x ^ x >> 33) * UINT64_C(0xff51afd7ed558ccd);
    x = (x ^ x >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return (int64_t)(x ^ x >> 33) & map->mask;
}

/* Slots, and lengths of runs, are read while a writer extends them. Each is one aligned word. */
static inline int64_t read_word(const int64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void write_word(int64_t *word, int64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

/* ---- finding ---- */

/* The number of the first run that begins behind an id. */
static int64_t place_in(const aph_runs *runs, int64_t id)
{
    int64_t low = 0, high = runs->n;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (runs->runs[middle].first_id <= id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int64_t aph_find_in_runs(const aph_codes *db, const aph_runs *runs, int64_t id)
{
    const int64_t at = place_in(runs, id);
    if (at == 0)
        return -1;
    const aph_run *run = runs->runs + at - 1;
    const uint64_t ahead = (uint64_t)id - (uint64_t)run->first_id;
    if (ahead >= (uint64_t)read_word(&run->length))
        return -1;
    const int64_t position = run->position + (int64_t)ahead;
    return position < db->n && aph_id_of(db, position) == id ? position : -1;
}

int64_t aph_find(const aph_codes *db, const aph_runs *runs, const aph_idmap *map, int64_t id)
{
    const int64_t in_run = aph_find_in_runs(db, runs, id);
    if (in_run >= 0 || db->n == 0)
        return in_run;
    if (!map) {
        int64_t low = 0, high = db->n; /* the search ends at the first position whose id is not smaller */
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (aph_id_of(db, middle) < id)
                low = middle + 1;
            else
                high = middle;
        }
        return low < db->n && aph_id_of(db, low) == id ? low : -1;
    }
    for (int64_t slot = home_of(map, id);; slot = (slot + 1) & map->mask) {
        const int64_t position = read_word(map->slots + slot);
        if (position < 0)
            return -1;
        if (position < db->n && aph_id_of(db, position) == id)
            return position;
    }
}

/* ---- the table ---- */

static int insert(aph_idmap *map, int64_t id, int64_t position)
{
    int64_t slot = home_of(map, id);
    for (; map->slots[slot] >= 0; slot = (slot + 1) & map->mask)
        if (map->slots[slot] == position)
            return 0;
    write_word(map->slots + slot, position);
    return 1;
}

/* The first position in [position, end) that may be outside the runs, or `end`. Pages that lie in one run as a whole
 * are passed over at once. */
static int64_t pass_over(const aph_codes *db, const aph_runs *runs, int64_t position, int64_t end)
{
    while (position < end) {
        const aph_page *page = aph_page_of(db, position);
        const int64_t left = (INT64_C(1) << db->page_bits) - aph_place_of(db, position);
        const int64_t last = position + (left < end - position ? left : end - position) - 1;
        if (page->ids)
            break;
        const int64_t id = aph_id_of(db, position), last_id = aph_id_of(db, last);
        const int64_t at = place_in(runs, id);
        if (at == 0 || at != place_in(runs, last_id))
            break; /* the ids are not of one run */
        if (aph_find_in_runs(db, runs, id) != position || aph_find_in_runs(db, runs, last_id) != last)
            break;
        position = last + 1;
    }
    return position;
}

int64_t aph_idmap_insert(aph_idmap *map, const aph_codes *db, const aph_runs *runs, int64_t first, int64_t end)
{
    int64_t entered = 0;
    for (int64_t position = first; position < end; position++) {
        if (position == first || !aph_place_of(db, position))
            position = pass_over(db, runs, position, end);
        if (position == end)
            break;
        const int64_t id = aph_id_of(db, position);
        if (aph_find_in_runs(db, runs, id) != position)
            entered += insert(map, id, position);
    }
    return entered;
}

int64_t aph_idmap_take(aph_idmap *map, const aph_idmap *from, const aph_codes *db, const aph_runs *runs)
{
    int64_t entered = 0;
    for (int64_t slot = 0; slot <= from->mask; slot++) {
        const int64_t position = from->slots[slot];
        if (position >= 0 && position < db->n)
            entered += aph_idmap_insert(map, db, runs, position, position + 1);
    }
    return entered;
}

int64_t aph_idmap_live(const aph_idmap *map, const aph_codes *db, const aph_runs *runs)
{
    int64_t live = 0;
    for (int64_t slot = 0; slot <= map->mask; slot++) {
        const int64_t position = map->slots[slot];
        live += position >= 0 && position < db->n && aph_outside_runs(db, runs, position, position + 1);
    }
    return live;
}

int64_t aph_outside_runs(const aph_codes *db, const aph_runs *runs, int64_t first, int64_t end)
{
    int64_t count = 0;
    for (int64_t position = first; position < end; position++) {
        if (position == first || !aph_place_of(db, position))
            position = pass_over(db, runs, position, end);
        if (position == end)
            break;
        count += aph_find_in_runs(db, runs, aph_id_of(db, position)) != position;
    }
    return count;
}

/* ---- runs ---- */

/* How long a run is inside a database of n codes. What a change that was given up has added to the run lies behind
 * n. */
static int64_t length_in(const aph_run *run, int64_t n)
{
    return run->length < n - run->position ? run->length : n - run->position;
}

static int room_at(const aph_runs *runs, int64_t at, int64_t first_id, int64_t count)
{
    return at == runs->n || (uint64_t)runs->runs[at].first_id - (uint64_t)first_id >= (uint64_t)count;
}

int aph_runs_extend(aph_runs *runs, int64_t first_id, int64_t position, int64_t count)
{
    const int64_t at = place_in(runs, first_id);
    if (at == 0 || !room_at(runs, at, first_id, count))
        return 0;
    aph_run *run = runs->runs + at - 1;
    const uint64_t ahead = (uint64_t)first_id - (uint64_t)run->first_id;
    if (ahead > (uint64_t)run->length || run->position + (int64_t)ahead != position)
        return 0;
    write_word(&run->length, (int64_t)ahead + count);
    return 1;
}

int aph_runs_insert(aph_runs *runs, int64_t first_id, int64_t position, int64_t count)
{
    const int64_t at = place_in(runs, first_id);
    if (runs->n == APH_RUNS || !room_at(runs, at, first_id, count))
        return 0;
    if (at > 0 && (uint64_t)first_id - (uint64_t)runs->runs[at - 1].first_id < (uint64_t)runs->runs[at - 1].length)
        return 0; /* these ids stood in that run before they were removed */
    for (int64_t i = runs->n; i > at; i--)
        runs->runs[i] = runs->runs[i - 1];
    runs->runs[at] = (aph_run){first_id, position, count};
    runs->n++;
    return 1;
}

int64_t aph_runs_shortest(const aph_runs *runs, int64_t n)
{
    int64_t shortest = 0;
    for (int64_t i = 1; i < runs->n; i++)
        if (length_in(runs->runs + i, n) < length_in(runs->runs + shortest, n))
            shortest = i;
    return shortest;
}

void aph_runs_drop(aph_runs *runs, int64_t i)
{
    runs->n--;
    for (; i < runs->n; i++)
        runs->runs[i] = runs->runs[i + 1];
}

void aph_runs_cut(aph_runs *runs, int64_t n)
{
    for (int64_t i = runs->n; i-- > 0;) {
        runs->runs[i].length = length_in(runs->runs + i, n);
        if (runs->runs[i].length <= 0)
            aph_runs_drop(runs, i);
    }
}
