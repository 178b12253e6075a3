#include "search/linkage.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT64_MAX
enum { MIN_SIZE = 1024 }; /* of the table and of the list of links */

int aph_linkage_begin(aph_linkage *linkage, int64_t n)
{
    memset(linkage, 0, sizeof *linkage);
    linkage->n = n;
    const size_t count = n ? (size_t)n : 1;
    linkage->group = malloc(count * sizeof(int64_t));
    linkage->size = malloc(count * sizeof(int64_t));
    linkage->first_link = malloc(count * sizeof(int64_t));
    linkage->degree = calloc(count, sizeof(int64_t));
    linkage->keys = malloc(MIN_SIZE * sizeof(uint64_t));
    linkage->counts = malloc(MIN_SIZE * sizeof(int64_t));
    if (!linkage->group || !linkage->size || !linkage->first_link || !linkage->degree || !linkage->keys ||
        !linkage->counts)
        return -1;
    linkage->mask = MIN_SIZE - 1;
    memset(linkage->keys, 0xff, MIN_SIZE * sizeof(uint64_t));
    for (int64_t item = 0; item < n; item++) {
        linkage->group[item] = item;
        linkage->size[item] = 1;
        linkage->first_link[item] = -1;
    }
    return 0;
}

void aph_linkage_free(aph_linkage *linkage)
{
    free(linkage->group);
    free(linkage->size);
    free(linkage->first_link);
    free(linkage->degree);
    free(linkage->links);
    free(linkage->keys);
    free(linkage->counts);
    memset(linkage, 0, sizeof *linkage);
}

static int64_t find(aph_linkage *linkage, int64_t item)
{
    int64_t *group = linkage->group;
    while (group[item] != item) {
        group[item] = group[group[item]]; /* halves the path */
        item = group[item];
    }
    return item;
}

/* ---- the table of counts ---- */

static uint64_t key_of(int64_t a, int64_t b)
{
    return a < b ? (uint64_t)a << 32 | (uint64_t)b : (uint64_t)b << 32 | (uint64_t)a;
}

/* The place of a key, or the free place where it belongs. */
static int64_t place_of(const aph_linkage *linkage, uint64_t key)
{
    uint64_t x = (key ^ key >> 33) * UINT64_C(0xff51afd7ed558ccd); /* half of MurmurHash3's finaliser */
    int64_t place = (int64_t)(x ^ x >> 33) & linkage->mask;
    while (linkage->keys[place] != key && linkage->keys[place] != NONE)
        place = (place + 1) & linkage->mask;
    return place;
}

/* Make the table anew without the keys that count nothing. Its size is at least four times the number of the other
 * keys. */
static int rebuild(aph_linkage *linkage)
{
    const int64_t old = linkage->mask + 1;
    uint64_t *old_keys = linkage->keys;
    int64_t *old_counts = linkage->counts, live = 0, size = MIN_SIZE;
    for (int64_t place = 0; place < old; place++)
        live += old_keys[place] != NONE && old_counts[place] != 0;
    while (size < 4 * live)
        size *= 2;
    uint64_t *keys = malloc((size_t)size * sizeof(uint64_t));
    int64_t *counts = malloc((size_t)size * sizeof(int64_t));
    if (!keys || !counts) {
        free(keys);
        free(counts);
        return -1;
    }
    memset(keys, 0xff, (size_t)size * sizeof(uint64_t));
    linkage->keys = keys;
    linkage->counts = counts;
    linkage->mask = size - 1;
    linkage->n_keys = live;
    for (int64_t at = 0; at < old; at++)
        if (old_keys[at] != NONE && old_counts[at] != 0) {
            const int64_t place = place_of(linkage, old_keys[at]);
            keys[place] = old_keys[at];
            counts[place] = old_counts[at];
        }
    free(old_keys);
    free(old_counts);
    return 0;
}

/* ---- lists of links ---- */

static int push_link(aph_linkage *linkage, int64_t to, int64_t group)
{
    if (linkage->n_links == linkage->room) {
        const int64_t room = linkage->room ? 2 * linkage->room : MIN_SIZE;
        aph_link *links = realloc(linkage->links, (size_t)room * sizeof(aph_link));
        if (!links)
            return -1;
        linkage->links = links;
        linkage->room = room;
    }
    linkage->links[linkage->n_links] = (aph_link){.group = group, .next = linkage->first_link[to]};
    linkage->first_link[to] = linkage->n_links++;
    linkage->degree[to]++;
    return 0;
}

/* Count `more` pairs between two groups, and link the groups if they were not linked. Returns the count, or -1. */
static int64_t count_pairs(aph_linkage *linkage, int64_t a, int64_t b, int64_t more)
{
    if (2 * (linkage->n_keys + 1) > linkage->mask + 1 && rebuild(linkage) != 0)
        return -1;
    const uint64_t key = key_of(a, b);
    const int64_t place = place_of(linkage, key);
    if (linkage->keys[place] == NONE) {
        linkage->keys[place] = key;
        linkage->counts[place] = 0;
        linkage->n_keys++;
    }
    if (linkage->counts[place] == 0 && (push_link(linkage, a, b) != 0 || push_link(linkage, b, a) != 0))
        return -1;
    return linkage->counts[place] += more;
}

/* Take the count of two groups out of the table. */
static int64_t take_count(aph_linkage *linkage, int64_t a, int64_t b)
{
    const int64_t place = place_of(linkage, key_of(a, b));
    if (linkage->keys[place] == NONE)
        return 0;
    const int64_t count = linkage->counts[place];
    linkage->counts[place] = 0;
    return count;
}

/* ---- joining ---- */

/* Join two groups: the one with fewer links goes into the other. No other two groups become complete by that, since a
 * group that was complete with both would have been joined before. */
static int join(aph_linkage *linkage, int64_t a, int64_t b)
{
    if (linkage->degree[a] < linkage->degree[b]) {
        const int64_t swap = a;
        a = b;
        b = swap;
    }
    take_count(linkage, a, b);
    linkage->group[b] = a;
    linkage->size[a] += linkage->size[b];
    for (int64_t at = linkage->first_link[b]; at >= 0; at = linkage->links[at].next) {
        const int64_t other = find(linkage, linkage->links[at].group);
        const int64_t count = other == a ? 0 : take_count(linkage, b, other);
        if (count > 0 && count_pairs(linkage, a, other, count) < 0)
            return -1;
    }
    return 0;
}

int aph_linkage_add(aph_linkage *linkage, const int64_t *i, const int64_t *j, int64_t m)
{
    for (int64_t pair = 0; pair < m; pair++) {
        const int64_t a = find(linkage, i[pair]), b = find(linkage, j[pair]);
        const int64_t count = count_pairs(linkage, a, b, 1);
        if (count < 0 || (count == linkage->size[a] * linkage->size[b] && join(linkage, a, b) != 0))
            return -1;
    }
    return 0;
}

void aph_linkage_groups(aph_linkage *linkage, int64_t *groups)
{
    for (int64_t item = 0; item < linkage->n; item++)
        groups[item] = find(linkage, item);
}
