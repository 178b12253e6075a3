/* The codes of a database. They lie in pages, which are reached through a table of two levels. What a reader uses of
 * them never changes.
 *
 * A page holds 2^page_bits codes, a multiple of 512. The codes stand in groups of 8, whose words are interleaved: word
 * w of the code at place i of a page stands at
 *     codes[(i / 8 * n_words + w) * 8 + i % 8].
 * Position p of the database is place p mod 2^page_bits of page p / 2^page_bits. A leaf is an array of APH_LEAF_PAGES
 * pages. A change therefore copies one leaf and the short array of leaves, however many pages there are.
 *
 * Readers load whole groups. They therefore also load the places from n to the end of the group of the last code, which
 * a writer may be filling at that moment. This is intended: a word is written by one store, no place below n is ever
 * written again, and what a kernel computes of the places from n on is masked. No reader loads a group that holds no
 * code, so the last page needs memory for ceil(n / 8) groups only. */
#ifndef APH_PAGES_H
#define APH_PAGES_H

#include <stdint.h>

enum {
    APH_GROUP = 8,   /* codes whose words are interleaved */
    APH_BLOCK = 512, /* codes that a scan takes at a time; a page holds whole blocks */
    APH_BLOCK_GROUPS = APH_BLOCK / APH_GROUP,
    APH_LEAF_BITS = 7,
    APH_LEAF_PAGES = 1 << APH_LEAF_BITS
};

typedef struct {
    const uint64_t *codes; /* aligned to 8 bytes; may be a read-only map of a file */
    const int64_t *ids;    /* by place; NULL where the ids are first_id, first_id + 1, ... */
    int64_t first_id;
    const uint64_t *stale; /* NULL, or a bitmap by place of the codes that are not those in the lookup's tables */
} aph_page;

typedef struct {
    const aph_page *const *leaves;
    int64_t n;              /* number of codes, < 2^44 */
    int64_t n_words;        /* words per code, 1 .. 1024 */
    const uint64_t *filter; /* NULL, or a bitmap of ceil(n / 64) words: position p takes part if its bit is set */
    int32_t page_bits;
    int32_t positions; /* 1 where results name positions, 0 where they name ids */
    int32_t ascending; /* 1 where what results name ascends with the position, so that the earlier of two equals wins */
    int32_t compact;   /* 1: the codes that take part are gathered into whole blocks first; 0: the hits are masked */
} aph_codes;

static inline const aph_page *aph_page_of(const aph_codes *db, int64_t position)
{
    const int64_t page = position >> db->page_bits;
    return db->leaves[page >> APH_LEAF_BITS] + (page & (APH_LEAF_PAGES - 1));
}

static inline int64_t aph_place_of(const aph_codes *db, int64_t position)
{
    return position & ((INT64_C(1) << db->page_bits) - 1);
}

/* The offset of the first word of the code at a place of a page or block. Word w stands w * APH_GROUP further on. */
static inline int64_t aph_offset_of(int64_t n_words, int64_t place)
{
    return place / APH_GROUP * n_words * APH_GROUP + place % APH_GROUP;
}

/* The first word of the code at a position. */
static inline const uint64_t *aph_code_of(const aph_codes *db, int64_t position)
{
    return aph_page_of(db, position)->codes + aph_offset_of(db->n_words, aph_place_of(db, position));
}

/* Copy a code from one page or block to another. */
static inline void aph_copy_code(uint64_t *out, const uint64_t *in, int64_t n_words)
{
    for (int64_t word = 0; word < n_words; word++)
        out[word * APH_GROUP] = in[word * APH_GROUP];
}

static inline int64_t aph_id_in(const aph_page *page, int64_t place)
{
    return page->ids ? page->ids[place] : page->first_id + place;
}

static inline int64_t aph_id_of(const aph_codes *db, int64_t position)
{
    return aph_id_in(aph_page_of(db, position), aph_place_of(db, position));
}

static inline int aph_takes_part(const aph_codes *db, int64_t position)
{
    return !db->filter || (db->filter[position / 64] >> (position % 64) & 1);
}

/* Write n codes (row-major) to the places first, first + 1, ... of a page. */
void aph_store(uint64_t *page, int64_t n_words, int64_t first, const uint64_t *codes, int64_t n);

/* Copy n codes, row-major, from the positions first, first + 1, ..., or from the given positions; or the ids there. */
void aph_load(const aph_codes *db, int64_t first, uint64_t *codes, int64_t n);
void aph_load_at(const aph_codes *db, const int64_t *positions, uint64_t *codes, int64_t n);
void aph_load_ids(const aph_codes *db, int64_t first, int64_t *ids, int64_t n);

/* Copy the codes at the given positions to the places 0, 1, ... of a page. */
void aph_gather(const aph_codes *db, const int64_t *positions, int64_t n, uint64_t *page);

/* Whether ids[i] == ids[0] + i for all i < n. */
int aph_is_range(const int64_t *ids, int64_t n);

/* Write to `positions` those of [first, end) whose codes differ in two databases of the same width. Returns how
 * many. */
int64_t aph_different(const aph_codes *a, const aph_codes *b, int64_t first, int64_t end, int64_t *positions);

#endif
