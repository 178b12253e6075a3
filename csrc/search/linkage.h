/* Complete linkage of near pairs: groups in which every two items are near.
 *
 * Pairs arrive in ascending order of their distance. For every two groups the pairs between them that have arrived are
 * counted; when all |A| |B| have, the two are joined. The distance of the last one is the largest between the groups, and
 * no other two groups are complete at a smaller one, so this is agglomerative complete linkage (Sorensen 1948), stopped
 * where the pairs end. It takes O(m log m) for m pairs, however the groups chain, and memory for the pairs alone: a
 * matrix of distances is never made.
 *
 * Counts stand in a hash table by the two groups' numbers: open addressing with linear probing, at most half full; an
 * entry of 0 counts nothing and is dropped when the table grows. Each group has a list of the groups that it has counts
 * with, in which numbers of groups that were joined since are looked up (`find`) and met twice. */
#ifndef APH_LINKAGE_H
#define APH_LINKAGE_H

#include <stdint.h>

typedef struct {
    int64_t group, next; /* next: a place among the links, or -1 */
} aph_link;

typedef struct {
    int64_t n;             /* items */
    int64_t *group;        /* of each item: its group's number or that of an item nearer to it */
    int64_t *size;         /* of each group */
    int64_t *first_link;   /* of each group: a place among the links, or -1 */
    int64_t *degree;       /* of each group: its links */
    aph_link *links;       /* all lists */
    int64_t n_links, room; /* links in use, links that there is memory for */
    uint64_t *keys;        /* of the table; UINT64_MAX where nothing is */
    int64_t *counts;
    int64_t mask, n_keys; /* size of the table - 1; keys that it holds */
} aph_linkage;

/* Begin with n groups of one item, n below 2^32. Returns 0, or -1 when there is no memory; then, too, call free. */
int aph_linkage_begin(aph_linkage *linkage, int64_t n);

/* Take m pairs of items i[], j[], i != j, each pair once, ascending in distance over all calls. Returns 0, or -1 when
 * there is no memory, after which the linkage can only be freed. */
int aph_linkage_add(aph_linkage *linkage, const int64_t *i, const int64_t *j, int64_t m);

/* Write the group of each item: the number of one of its items. */
void aph_linkage_groups(aph_linkage *linkage, int64_t *groups);

void aph_linkage_free(aph_linkage *linkage);

#endif
