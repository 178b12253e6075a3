#include "select.h"

#include <string.h>

static const uint64_t POSITION_MASK = (UINT64_C(1) << APH_POSITION_BITS) - 1;

static inline int32_t distance_of(uint64_t hit) { return (int32_t)(hit >> APH_POSITION_BITS); }
static inline int64_t position_of(uint64_t hit) { return (int64_t)(hit & POSITION_MASK); }
static inline int64_t id_of(const aph_codes *db, int64_t position)
{
    return db->positions ? position : aph_id_of(db, position);
}

/* ---- heaps: the smallest ids among equals, where ids do not ascend ---- */

/* Restore the max-heap below `at`, in an array of hits ordered by their ids. */
static void sift_hits(uint64_t *heap, int64_t at, int64_t size, const aph_codes *db)
{
    const uint64_t moving = heap[at];
    const int64_t id = id_of(db, position_of(moving));
    for (int64_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && id_of(db, position_of(heap[child + 1])) > id_of(db, position_of(heap[child]))) child++;
        if (id_of(db, position_of(heap[child])) <= id) break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

static void sift_ids(int64_t *heap, int64_t at, int64_t size)
{
    const int64_t moving = heap[at];
    for (int64_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && heap[child + 1] > heap[child]) child++;
        if (heap[child] <= moving) break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

static void sort_ids(int64_t *ids, int64_t n)
{
    if (n <= 16) {
        for (int64_t i = 1; i < n; i++) {
            const int64_t id = ids[i];
            int64_t j = i;
            for (; j > 0 && ids[j - 1] > id; j--) ids[j] = ids[j - 1];
            ids[j] = id;
        }
        return;
    }
    for (int64_t i = n / 2; i-- > 0;) sift_ids(ids, i, n);
    for (int64_t size = n - 1; size > 0; size--) {
        const int64_t top = ids[0];
        ids[0] = ids[size];
        ids[size] = top;
        sift_ids(ids, 0, size);
    }
}

/* ---- selection ---- */

void aph_tighten(aph_found *found, const aph_codes *db, int64_t *histogram)
{
    uint64_t *hits = found->hits;
    const int64_t k = found->k, count = found->count;
    int32_t high = 0;
    for (int64_t i = 0; i < count; i++) high = distance_of(hits[i]) > high ? distance_of(hits[i]) : high;
    memset(histogram, 0, (size_t)(high + 1) * sizeof *histogram);
    for (int64_t i = 0; i < count; i++) histogram[distance_of(hits[i])]++;
    int32_t last = 0; /* the k-th distance */
    int64_t below = 0;
    while (below + histogram[last] < k) below += histogram[last++];
    int64_t ties = k - below; /* how many of them may stay */

    if (db->ascending) { /* in order of position: the first ties stay, and a later one cannot replace them */
        int64_t kept = 0;
        for (int64_t i = 0; i < count; i++) {
            const int32_t distance = distance_of(hits[i]);
            const int equal = distance == last && ties > 0;
            ties -= equal;
            hits[kept] = hits[i];
            kept += distance < last || equal;
        }
        found->threshold = last - 1;
    } else { /* order does not matter: nearer ones to the front, then a max-heap of the equals with the smallest ids */
        int64_t front = 0, end = 0;
        for (int64_t i = 0; i < count; i++) {
            const uint64_t hit = hits[i];
            if (distance_of(hit) > last) continue;
            hits[end++] = hit;
            if (distance_of(hit) < last) {
                hits[end - 1] = hits[front];
                hits[front++] = hit;
            }
        }
        uint64_t *heap = hits + front;
        for (int64_t i = ties / 2; i-- > 0;) sift_hits(heap, i, ties, db);
        for (int64_t i = ties; i < end - front; i++)
            if (id_of(db, position_of(heap[i])) < id_of(db, position_of(heap[0]))) {
                heap[0] = heap[i];
                sift_hits(heap, 0, ties, db);
            }
        found->threshold = last;
    }
    found->count = k;
}

int64_t aph_order(const aph_found *parts, int64_t n_parts, int64_t stride, int64_t k, const aph_codes *db,
                  int64_t *histogram, int32_t *distances, int64_t *ids)
{
    int64_t total = 0;
    int32_t low = INT32_MAX, high = -1;
    for (int64_t p = 0; p < n_parts; p++) {
        const aph_found *part = parts + p * stride;
        total += part->count;
        for (int64_t i = 0; i < part->count; i++) {
            const int32_t distance = distance_of(part->hits[i]);
            low = distance < low ? distance : low;
            high = distance > high ? distance : high;
        }
    }
    if (k > total) k = total;
    if (k == 0 || high < low) return 0;
    const int32_t bins = high - low + 1;
    memset(histogram, 0, (size_t)bins * sizeof *histogram);
    for (int64_t p = 0; p < n_parts; p++)
        for (int64_t i = 0; i < parts[p * stride].count; i++)
            histogram[distance_of(parts[p * stride].hits[i]) - low]++;
    int64_t start = 0, last_start = 0; /* from counts to the place where a distance begins */
    int32_t last = -1;                 /* the last bin that begins before k */
    for (int32_t bin = 0; bin < bins; bin++) {
        const int64_t here = histogram[bin];
        if (start < k) {
            last = bin;
            last_start = start;
        }
        histogram[bin] = start;
        start += here;
    }
    for (int64_t p = 0; p < n_parts; p++) {
        const aph_found *part = parts + p * stride;
        for (int64_t i = 0; i < part->count; i++) {
            const int32_t bin = distance_of(part->hits[i]) - low;
            if (bin > last) continue;
            const int64_t id = id_of(db, position_of(part->hits[i]));
            const int64_t place = histogram[bin];
            if (place < k) {
                histogram[bin]++;
                ids[place] = id;
                distances[place] = low + bin;
                if (!db->ascending && bin == last && place + 1 == k)
                    for (int64_t j = (k - last_start) / 2; j-- > 0;) sift_ids(ids + last_start, j, k - last_start);
            } else if (!db->ascending && id < ids[last_start]) { /* the last bin overflows: a max-heap of the ids */
                ids[last_start] = id;
                sift_ids(ids + last_start, 0, k - last_start);
            }
        }
    }
    if (!db->ascending)
        for (int64_t i = 0, j; i < k; i = j) {
            for (j = i + 1; j < k && distances[j] == distances[i];) j++;
            sort_ids(ids + i, j - i);
        }
    return k;
}

/* ---- candidates ---- */

int64_t aph_sample(const aph_codes *db, int64_t wanted, int64_t *positions)
{
    const int64_t n = db->n;
    int64_t found = 0;
    if (wanted > n) wanted = n;
    for (int64_t i = 0; i < wanted; i++) { /* one from each of `wanted` equal stretches, if it holds a candidate */
        const int64_t start = (int64_t)((__int128)i * n / wanted), end = (int64_t)((__int128)(i + 1) * n / wanted);
        if (!db->filter) {
            positions[found++] = start;
            continue;
        }
        for (int64_t word = start / 64; word * 64 < end; word++) {
            uint64_t bits = db->filter[word];
            if (word * 64 < start) bits &= ~UINT64_C(0) << (start % 64);
            if (!bits) continue;
            const int64_t position = word * 64 + __builtin_ctzll(bits);
            if (position < end) positions[found++] = position;
            break;
        }
    }
    return found;
}

int64_t aph_count_bits(const uint64_t *bitmap, int64_t n)
{
    int64_t count = 0;
    for (int64_t word = 0; word < n / 64; word++) count += __builtin_popcountll(bitmap[word]);
    if (n % 64) count += __builtin_popcountll(bitmap[n / 64] & ~(~UINT64_C(0) << (n % 64)));
    return count;
}
