/* Finding the position of an id. There are three ways. Each only proposes a position, which counts if the database has
 * that id there.
 *
 * 1. Runs. A run is a range of positions whose ids count up by one. Counted ids, and ranges given by a caller, need
 *    nothing else. There are at most APH_RUNS runs. They are sorted by their first id, and do not overlap.
 * 2. Bisection, where ids ascend with the position.
 * 3. A hash table, where ids do not ascend. It holds the positions of the ids that the runs do not find.
 *
 * Databases of different age share the runs and the table while a writer extends them. This is right because proposals
 * are verified. Nothing is ever taken out of a table, so a reader finds what was entered before its database was
 * published. What the reader meets of later changes fails the verification, and is passed over.
 *
 * The table uses open addressing with linear probing. A slot holds a position, or -1. The size is a power of two, at
 * least twice the number of entries. Entries that are no longer true are left out when the table is made anew. */
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

/* The position of an id, or -1. `map` is NULL where ids ascend. */
int64_t aph_find(const aph_codes *db, const aph_runs *runs, const aph_idmap *map, int64_t id);

/* The position that the runs propose, if the database has the id there; else -1. */
int64_t aph_find_in_runs(const aph_codes *db, const aph_runs *runs, int64_t id);

/* Enter the positions [first, end) under the ids that they have in `db`, except those that the runs find. The table
 * must have room for them. Returns how many were new. */
int64_t aph_idmap_insert(aph_idmap *map, const aph_codes *db, const aph_runs *runs, int64_t first, int64_t end);

/* Enter those entries of another table that are still true in `db`. Returns how many. */
int64_t aph_idmap_take(aph_idmap *map, const aph_idmap *from, const aph_codes *db, const aph_runs *runs);

/* An upper bound of the number of entries of a table that are still true. */
int64_t aph_idmap_live(const aph_idmap *map, const aph_codes *db, const aph_runs *runs);

/* How many of the positions [first, end) the runs do not find. */
int64_t aph_outside_runs(const aph_codes *db, const aph_runs *runs, int64_t first, int64_t end);

/* Note that `count` ids from first_id on stand at the positions from `position` on. aph_runs_extend makes the run
 * that they continue longer, if there is one. It does so by one store, so the runs may be shared. aph_runs_insert
 * adds a run, if there is room and no other run overlaps it; the runs must be the caller's own. Both return whether
 * they did. */
int aph_runs_extend(aph_runs *runs, int64_t first_id, int64_t position, int64_t count);
int aph_runs_insert(aph_runs *runs, int64_t first_id, int64_t position, int64_t count);

/* The number of the run with the fewest positions below n; there must be one. */
int64_t aph_runs_shortest(const aph_runs *runs, int64_t n);

/* Take run i out. */
void aph_runs_drop(aph_runs *runs, int64_t i);

/* Cut runs to positions below n. */
void aph_runs_cut(aph_runs *runs, int64_t n);

#endif
