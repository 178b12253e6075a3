/* Where an id is. Three ways, each of which only proposes a position: it counts if the database has that id there.
 *
 * 1. Runs: stretches of positions whose ids count up by one. Counted ids, and ranges given by a caller, cost nothing
 *    else. There are at most APH_RUNS, sorted by their first id, which do not overlap.
 * 2. Bisection, where ids ascend with the position.
 * 3. A hash table of positions, of the ids that runs do not find, where ids do not ascend.
 *
 * Databases of different age share runs and table while a writer extends them. That is right because of the
 * verification: nothing is ever taken out of a table, so a reader finds what was entered before its database was
 * published, and what it meets of later changes fails the verification and is passed over.
 *
 * The table: open addressing with linear probing; a slot holds a position, or -1. The size is a power of two, at least
 * twice the number of entries. Entries that no longer hold are left behind when the table is made anew. */
#ifndef APH_IDMAP_H
#define APH_IDMAP_H

#include "search/pages.h"

enum { APH_RUNS = 64 };

typedef struct {
    int64_t first_id, position, length;
} aph_run;

typedef struct {
    int64_t n;
    aph_run runs[APH_RUNS];
} aph_runs;

typedef struct {
    int64_t *slots;
    int64_t mask; /* size - 1 */
} aph_idmap;

/* The position of an id, or -1. `map`: NULL where ids ascend. */
int64_t aph_find(const aph_codes *db, const aph_runs *runs, const aph_idmap *map, int64_t id);

/* The position that the runs propose, if the database has the id there; else -1. */
int64_t aph_find_in_runs(const aph_codes *db, const aph_runs *runs, int64_t id);

/* Enter the positions [first, end) under the ids that they have in `db`, but those that the runs find. There must be
 * room. Returns how many were new. */
int64_t aph_idmap_insert(aph_idmap *map, const aph_codes *db, const aph_runs *runs, int64_t first, int64_t end);

/* Enter what another table holds and is still so in `db`. Returns how many. */
int64_t aph_idmap_take(aph_idmap *map, const aph_idmap *from, const aph_codes *db, const aph_runs *runs);

/* How many entries of a table are still so, at most. */
int64_t aph_idmap_live(const aph_idmap *map, const aph_codes *db, const aph_runs *runs);

/* How many of the positions [first, end) the runs do not find. */
int64_t aph_outside_runs(const aph_codes *db, const aph_runs *runs, int64_t first, int64_t end);

/* Note that `count` ids from first_id on stand at the positions from `position` on. Extending makes the run longer that
 * they continue, if there is one, by one store: the runs may be shared. Inserting adds a run, if there is room and none
 * overlaps it: the runs must be the caller's own. Both return whether they did. */
int aph_runs_extend(aph_runs *runs, int64_t first_id, int64_t position, int64_t count);
int aph_runs_insert(aph_runs *runs, int64_t first_id, int64_t position, int64_t count);

/* The number of the run with the fewest positions below n; there must be one. */
int64_t aph_runs_shortest(const aph_runs *runs, int64_t n);

/* Take run i out. */
void aph_runs_drop(aph_runs *runs, int64_t i);

/* Cut runs to positions below n. */
void aph_runs_cut(aph_runs *runs, int64_t n);

#endif
