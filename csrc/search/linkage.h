/* Complete linkage of near pairs: groups in which every two items are near.
 *
 * Pairs arrive in ascending order of their distance. For every two groups, the pairs between them that have arrived are
 * counted. When all |A| |B| pairs have arrived, the two groups are joined. The distance of the last pair is then the
 * largest between the groups, and no other two groups are complete at a smaller one. So this is agglomerative complete
 * linkage (Sorensen 1948), stopped where the pairs end. It takes O(m log m) time for m pairs, however the groups chain.
 * It needs memory for the pairs alone: a matrix of distances is never made.
 *
 * Counts stand in a hash table by the two groups' numbers. The table uses open addressing with linear probing, and is
 * at most half full. An entry of 0 counts nothing, and is dropped when the table is made anew. Each group has a list of
 * the groups with which it has counts. A group in such a list may have been joined to another one since: `find` says to
 * which, and a group may be met twice in a list. */
#ifndef APH_LINKAGE_H
#define APH_LINKAGE_H

#include <stdint.h>

typedef struct {
    int64_t group, next; /* next: the place of the next link, or -1 */
} aph_link;

typedef struct {
    int64_t n;             /* items */
    int64_t *group;        /* of each item: the number of its group, or of an item on the way to it */
    int64_t *size;         /* of each group */
    int64_t *first_link;   /* of each group: the place of its first link, or -1 */
    int64_t *degree;       /* of each group: how many links it has */
    aph_link *links;       /* the links of all lists */
    int64_t n_links, room; /* links in use, and links that there is memory for */
    uint64_t *keys;        /* keys of the table; UINT64_MAX in a free place */
    int64_t *counts;
    int64_t mask, n_keys; /* size of the table - 1, and keys that it holds */
} aph_linkage;

/* Begin with n groups of one item each; n is below 2^32. Returns 0, or -1 when there is no memory. In either case call
 * aph_linkage_free in the end. */
int aph_linkage_begin(aph_linkage *linkage, int64_t n);

/* Take m pairs of items i[], j[] with i != j. Each pair comes once, and distances ascend over all calls. Returns 0, or
 * -1 when there is no memory; after that the linkage can only be freed. */
int aph_linkage_add(aph_linkage *linkage, const int64_t *i, const int64_t *j, int64_t m);

/* Write the group of each item, which is the number of one of the group's items. */
void aph_linkage_groups(aph_linkage *linkage, int64_t *groups);

void aph_linkage_free(aph_linkage *linkage);

#endif
