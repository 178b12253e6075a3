/* Where each id is: a hash table of positions. The ids themselves stay in the index's array, so a slot is 8 bytes.
 *
 * Open addressing with linear probing; a slot holds a position, or -1. The size is a power of two and at least twice
 * the number of entries, so a search ends after some two probes. Removal shifts the entries behind back: no tombstones,
 * and the cost stays the same after any number of changes. */
#ifndef APH_IDMAP_H
#define APH_IDMAP_H

#include <stdint.h>

typedef struct {
    int64_t *slots;
    int64_t mask; /* size - 1 */
} aph_idmap;

/* The position of an id, or -1. `ids` is the array by position, of at least every position in the table. */
int64_t aph_idmap_find(const aph_idmap *map, const int64_t *ids, int64_t id);

/* Enter ids[first .. first + n), none of them in the table yet. There must be room. */
void aph_idmap_insert(aph_idmap *map, const int64_t *ids, int64_t first, int64_t n);

/* Take out an id that is in the table. */
void aph_idmap_erase(aph_idmap *map, const int64_t *ids, int64_t id);

/* Say that an id that is in the table is now at another position; ids[] of the old one must still be as it was. */
void aph_idmap_move(aph_idmap *map, const int64_t *ids, int64_t id, int64_t position);

#endif
