#include "idmap.h"

/* The finaliser of MurmurHash3 (A. Appleby, public domain): every bit of the id reaches the low bits, so counted ids,
 * multiples of a power of two and negative ids spread alike. */
static int64_t home_of(const aph_idmap *map, int64_t id)
{
    uint64_t x = (uint64_t)id;
    x = (x ^ x >> 33) * UINT64_C(0xff51afd7ed558ccd);
    x = (x ^ x >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return (int64_t)(x ^ x >> 33) & map->mask;
}

/* The slot of an id, or the empty one at which the search ends. */
static int64_t slot_of(const aph_idmap *map, const int64_t *ids, int64_t id)
{
    int64_t slot = home_of(map, id);
    while (map->slots[slot] >= 0 && ids[map->slots[slot]] != id) slot = (slot + 1) & map->mask;
    return slot;
}

int64_t aph_idmap_find(const aph_idmap *map, const int64_t *ids, int64_t id)
{
    return map->slots[slot_of(map, ids, id)];
}

void aph_idmap_insert(aph_idmap *map, const int64_t *ids, int64_t first, int64_t n)
{
    for (int64_t position = first; position < first + n; position++)
        map->slots[slot_of(map, ids, ids[position])] = position;
}

void aph_idmap_erase(aph_idmap *map, const int64_t *ids, int64_t id)
{
    int64_t hole = slot_of(map, ids, id);
    /* An entry further on may fill the hole unless its home lies behind the hole: then it would not be found. */
    for (int64_t slot = (hole + 1) & map->mask; map->slots[slot] >= 0; slot = (slot + 1) & map->mask) {
        const int64_t home = home_of(map, ids[map->slots[slot]]);
        if (((slot - home) & map->mask) >= ((slot - hole) & map->mask)) {
            map->slots[hole] = map->slots[slot];
            hole = slot;
        }
    }
    map->slots[hole] = -1;
}

void aph_idmap_move(aph_idmap *map, const int64_t *ids, int64_t id, int64_t position)
{
    map->slots[slot_of(map, ids, id)] = position;
}
