#include "search/lookup.h"

/* The end of the page of a position, or `end` if that comes first. */
static int64_t end_of_page(const aph_codes *db, int64_t position, int64_t end)
{
    const int64_t next = ((position >> db->page_bits) + 1) << db->page_bits;
    return next < end ? next : end;
}

void aph_substring_count(const aph_codes *db, int64_t first, int64_t end, int32_t start, int32_t bits, uint32_t *counts)
{
    for (int64_t stop; first < end; first = stop) {
        const uint64_t *page = aph_page_of(db, first)->codes;
        stop = end_of_page(db, first, end);
        for (int64_t place = aph_place_of(db, first), i = 0; i < stop - first; i++)
            counts[aph_substring_value(page + aph_offset_of(db->n_words, place + i), start, bits) + 1]++;
    }
}

void aph_substring_place(const aph_codes *db, int64_t first, int64_t end, int32_t start, int32_t bits,
                         uint32_t *offsets, uint32_t *positions)
{
    for (int64_t stop; first < end; first = stop) {
        const uint64_t *page = aph_page_of(db, first)->codes;
        stop = end_of_page(db, first, end);
        for (int64_t place = aph_place_of(db, first), i = 0; i < stop - first; i++)
            positions[offsets[aph_substring_value(page + aph_offset_of(db->n_words, place + i), start, bits)]++] =
                (uint32_t)(first + i);
    }
}

uint32_t aph_substring_hash(const aph_codes *db, int64_t position, int32_t start, int32_t end, int32_t bits)
{
    const uint64_t *code = aph_code_of(db, position);
    if (end - start <= bits)
        return (uint32_t)aph_substring_value(code, start, end - start);
    uint64_t hash = 0;
    for (int32_t at = start; at < end; at += 32) {
        hash ^= aph_substring_value(code, at, end - at < 32 ? end - at : 32);
        hash *= UINT64_C(0x9E3779B97F4A7C15); /* 2^64 / golden ratio: Knuth's multiplicative hashing */
        hash ^= hash >> 32;
    }
    return (uint32_t)((hash * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - bits));
}

void aph_hash_count(const aph_codes *db, int64_t first, int64_t end, int32_t start, int32_t stop, int32_t bits,
                    uint32_t *counts)
{
    for (int64_t p = first; p < end; p++)
        if (aph_takes_part(db, p))
            counts[aph_substring_hash(db, p, start, stop, bits) + 1]++;
}

void aph_hash_place(const aph_codes *db, int64_t first, int64_t end, int32_t start, int32_t stop, int32_t bits,
                    uint32_t *offsets, uint32_t *order)
{
    for (int64_t p = first; p < end; p++)
        if (aph_takes_part(db, p))
            order[offsets[aph_substring_hash(db, p, start, stop, bits)]++] = (uint32_t)p;
}
