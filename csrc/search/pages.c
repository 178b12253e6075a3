#include "search/pages.h"

void aph_store(uint64_t *page, int64_t n_words, int64_t first, const uint64_t *codes, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t *place = page + aph_offset_of(n_words, first + i);
        for (int64_t word = 0; word < n_words; word++)
            place[word * APH_GROUP] = codes[i * n_words + word];
    }
}

static inline void load_one(const aph_codes *db, int64_t position, uint64_t *code)
{
    const uint64_t *place = aph_code_of(db, position);
    for (int64_t word = 0; word < db->n_words; word++)
        code[word] = place[word * APH_GROUP];
}

void aph_load(const aph_codes *db, int64_t first, uint64_t *codes, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        load_one(db, first + i, codes + i * db->n_words);
}

void aph_load_at(const aph_codes *db, const int64_t *positions, uint64_t *codes, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        load_one(db, positions[i], codes + i * db->n_words);
}

void aph_load_ids(const aph_codes *db, int64_t first, int64_t *ids, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        ids[i] = aph_id_of(db, first + i);
}

void aph_gather(const aph_codes *db, const int64_t *positions, int64_t n, uint64_t *page)
{
    for (int64_t i = 0; i < n; i++)
        aph_copy_code(page + aph_offset_of(db->n_words, i), aph_code_of(db, positions[i]), db->n_words);
}

int aph_is_range(const int64_t *ids, int64_t n)
{
    for (int64_t i = 1; i < n; i++) /* the sum is unsigned, since the largest id has no successor */
        if (ids[i] != (int64_t)((uint64_t)ids[0] + (uint64_t)i) || ids[i] < ids[0])
            return 0;
    return 1;
}

int64_t aph_different(const aph_codes *a, const aph_codes *b, int64_t first, int64_t end, int64_t *positions)
{
    int64_t found = 0;
    for (int64_t p = first; p < end; p++) {
        const uint64_t *x = aph_code_of(a, p), *y = aph_code_of(b, p);
        if (x == y)
            continue; /* the same memory: a published place is never written again */
        uint64_t differs = 0;
        for (int64_t word = 0; word < a->n_words; word++)
            differs |= x[word * APH_GROUP] ^ y[word * APH_GROUP];
        if (differs)
            positions[found++] = p;
    }
    return found;
}
