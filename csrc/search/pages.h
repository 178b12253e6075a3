/* The codes of a database: pages behind a table of two levels, immutable as far as a reader looks.
 *
 * A page holds 2^page_bits codes (a multiple of 512), in groups of 8, word-major inside a group: word w of the code at
 * place i of a page stands at
 *     codes[(i / 8 * n_words + w) * 8 + i % 8].
 * Position p of the database is place p mod 2^page_bits of page p / 2^page_bits. A leaf is an array of APH_LEAF_PAGES
 * pages, so that a change copies one leaf and the short array of leaves, however many pages there are.
 *
 * Readers load whole groups, so they also load places at and behind n, up to the end of the group of the last code,
 * which a writer may be filling at that moment. That is intended: a word is written by one store, no place below n is
 * ever written again, and what a kernel computes of the places at and behind n is masked. No reader looks at a group
 * that holds no code, so the last page needs memory for ceil(n / 8) groups only. */
#ifndef APH_PAGES_H
#define APH_PAGES_H

#include <stdint.h>

enum {
    APH_GROUP = 8,
    APH_BLOCK = 512, /* codes that the scan takes at a time; a page holds whole blocks */
    APH_BLOCK_GROUPS = APH_BLOCK / APH_GROUP,
    APH_LEAF_BITS = 7,
    APH_LEAF_PAGES = 1 << APH_LEAF_BITS
};

typedef struct {
    const uint64_t *codes; /* aligned to 8 bytes; may be a read-only map of a file */
    const int64_t *ids;    /* by place; NULL: the ids are first_id, first_id + 1, ... */
    int64_t first_id;
    const uint64_t *stale; /* NULL, or a bitmap by place: the code is not the one in the lookup's tables */
} aph_page;

typedef struct {
    const aph_page *const *leaves;
    int64_t n;              /* number of codes, < 2^44 */
    int64_t n_words;        /* words per code, 1 .. 1024 */
    const uint64_t *filter; /* NULL, or ceil(n / 64) words: bit p % 64 of word p / 64 set = position p takes part */
    int32_t page_bits;
    int32_t positions; /* 1: results name positions, 0: ids */
    int32_t ascending; /* 1 where what results name ascends with the position: of two equals the earlier wins */
    int32_t compact;   /* 1: gather the candidates of the filter into dense blocks first; 0: mask the hits */
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

/* The first word of a code; word w stands w * APH_GROUP further on. */
static inline const uint64_t *aph_code_of(const aph_codes *db, int64_t position)
{
    const int64_t place = aph_place_of(db, position);
    return aph_page_of(db, position)->codes + place / APH_GROUP * db->n_words * APH_GROUP + place % APH_GROUP;
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

/* Copy n codes, row-major, from the positions first, first + 1, ..., or from those given; and their ids. */
void aph_load(const aph_codes *db, int64_t first, uint64_t *codes, int64_t n);
void aph_load_at(const aph_codes *db, const int64_t *positions, uint64_t *codes, int64_t n);
void aph_load_ids(const aph_codes *db, int64_t first, int64_t *ids, int64_t n);

/* Copy the codes at the given positions to the places 0, 1, ... of a page. */
void aph_gather(const aph_codes *db, const int64_t *positions, int64_t n, uint64_t *page);

/* Whether ids[i] == ids[0] + i for all i < n. */
int aph_is_range(const int64_t *ids, int64_t n);

/* Write to `positions` those of [first, end) whose codes differ in two databases of the same width; returns how many. */
int64_t aph_different(const aph_codes *a, const aph_codes *b, int64_t first, int64_t end, int64_t *positions);

#endif
