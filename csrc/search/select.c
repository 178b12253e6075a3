#include "search/select.h"

#include <string.h>

static const uint64_t POSITION_MASK = (UINT64_C(1) << APH_POSITION_BITS) - 1;

static inline int64_t distance_of(uint64_t hit) { return (int64_t)(hit >> APH_POSITION_BITS); }

static inline int64_t id_of(const aph_codes *db, const aph_found *found, uint64_t hit)
{
    const int64_t position = found->first + (int64_t)(hit & POSITION_MASK);
    return db->positions ? position : aph_id_of(db, position);
}

/* ---- heaps: they keep the smallest ids among equal distances, where ids do not ascend ---- */

/* Restore the max-heap of hits, ordered by their ids, below the place `at`. */
static void sift_hits(uint64_t *heap, int64_t at, int64_t size, const aph_codes *db, const aph_found *found)
{
    const uint64_t moving = heap[at];
    const int64_t id = id_of(db, found, moving);
    for (int64_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && id_of(db, found, heap[child + 1]) > id_of(db, found, heap[child]))
            child++;
        if (id_of(db, found, heap[child]) <= id)
            break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

static void sift_ids(int64_t *heap, int64_t at, int64_t size)
{
    const int64_t moving = heap[at];
    for (int64_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && heap[child + 1] > heap[child])
            child++;
        if (heap[child] <= moving)
            break;
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
            for (; j > 0 && ids[j - 1] > id; j--)
                ids[j] = ids[j - 1];
            ids[j] = id;
        }
        return;
    }
    for (int64_t i = n / 2; i-- > 0;)
        sift_ids(ids, i, n);
    for (int64_t size = n - 1; size > 0; size--) {
        const int64_t top = ids[0];
        ids[0] = ids[size];
        ids[size] = top;
        sift_ids(ids, 0, size);
    }
}

/* Whether result i comes after result j, by (distance, id). */
static int later(const uint32_t *distances, const int64_t *ids, int64_t i, int64_t j)
{
    return distances[i] != distances[j] ? distances[i] > distances[j] : ids[i] > ids[j];
}

static void swap(uint32_t *distances, int64_t *ids, int64_t i, int64_t j)
{
    const uint32_t distance = distances[i];
    const int64_t id = ids[i];
    distances[i] = distances[j], ids[i] = ids[j];
    distances[j] = distance, ids[j] = id;
}

static void sift_pairs(uint32_t *distances, int64_t *ids, int64_t at, int64_t size)
{
    for (int64_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && later(distances, ids, child + 1, child))
            child++;
        if (!later(distances, ids, child, at))
            break;
        swap(distances, ids, at, child);
    }
}

/* Heapsort by (distance, id). */
static void sort_pairs(uint32_t *distances, int64_t *ids, int64_t n)
{
    for (int64_t i = n / 2; i-- > 0;)
        sift_pairs(distances, ids, i, n);
    for (int64_t size = n - 1; size > 0; size--) {
        swap(distances, ids, 0, size);
        sift_pairs(distances, ids, 0, size);
    }
}

/* ---- selection ---- */

/* The smallest shift by which the distances low .. high of n hits fall into APH_BINS bins. Where there are more levels
 * than bins, it is into about two bins for each hit, since bins cost time, too. */
static int shift_for(int64_t low, int64_t high, int64_t n)
{
    int shift = 0;
    int64_t max_bins = APH_BINS;
    if (high - low >= APH_BINS)
        while (max_bins > 128 && max_bins > 2 * n)
            max_bins /= 2;
    while (((high - low) >> shift) >= max_bins)
        shift++;
    return shift;
}

/* The bin in which the k-th distance falls. *below is raised by the number of hits in the bins before it. */
static int64_t bin_of_kth(const int64_t *bins, int64_t k, int64_t *below)
{
    int64_t bin = 0;
    while (*below + bins[bin] < k)
        *below += bins[bin++];
    return bin;
}

/* The k-th distance of all hits, whose distances lie in low .. high. *below becomes the number of hits that are
 * nearer. */
static int64_t kth_of_hits(const aph_found *segments, int64_t n_segments, int64_t stride, int64_t k, int64_t low,
                           int64_t high, int64_t *bins, int64_t *below)
{
    int64_t n = 0;
    for (int64_t s = 0; s < n_segments; s++)
        n += segments[s * stride].count;
    for (*below = 0;;) {
        const int shift = shift_for(low, high, n);
        memset(bins, 0, (size_t)(((high - low) >> shift) + 1) * sizeof *bins);
        for (int64_t s = 0; s < n_segments; s++)
            for (int64_t i = 0; i < segments[s * stride].count; i++) {
                const int64_t distance = distance_of(segments[s * stride].hits[i]);
                if (distance >= low && distance <= high)
                    bins[(distance - low) >> shift]++;
            }
        const int64_t bin = bin_of_kth(bins, k, below);
        low += bin << shift;
        if (shift == 0)
            return low;
        if (high - low >= INT64_C(1) << shift)
            high = low + (INT64_C(1) << shift) - 1;
    }
}

int64_t aph_bound_kth(const uint32_t *distances, int64_t n, int64_t k, int64_t *bins)
{
    uint32_t low = UINT32_MAX, high = 0;
    for (int64_t i = 0; i < n; i++) {
        low = distances[i] < low ? distances[i] : low;
        high = distances[i] > high ? distances[i] : high;
    }
    const int shift = shift_for(low, high, n);
    int64_t below = 0;
    memset(bins, 0, (size_t)(((high - low) >> shift) + 1) * sizeof *bins);
    for (int64_t i = 0; i < n; i++)
        bins[(distances[i] - low) >> shift]++;
    const int64_t last = low + ((bin_of_kth(bins, k, &below) + 1) << shift) - 1; /* the end of the bin of the k-th */
    return last < high ? last : high;
}

static int64_t range_of_hits(const aph_found *segments, int64_t n_segments, int64_t stride, int64_t *low, int64_t *high)
{
    int64_t total = 0;
    *low = INT64_MAX, *high = 0;
    for (int64_t s = 0; s < n_segments; s++) {
        const aph_found *segment = segments + s * stride;
        total += segment->count;
        for (int64_t i = 0; i < segment->count; i++) {
            const int64_t distance = distance_of(segment->hits[i]);
            *low = distance < *low ? distance : *low;
            *high = distance > *high ? distance : *high;
        }
    }
    return total;
}

void aph_prune_hits(aph_found *found, const aph_codes *db, int64_t *bins)
{
    uint64_t *hits = found->hits;
    const int64_t k = found->k, count = found->count;
    int64_t low, high;
    int64_t below;
    range_of_hits(found, 1, 1, &low, &high);
    const int64_t last = kth_of_hits(found, 1, 1, k, low, high, bins, &below);
    int64_t ties = k - below; /* how many with the k-th distance may stay */

    if (db->ascending) { /* hits are in order of position: the first ties stay, and none of the later ones can replace them */
        int64_t kept = 0;
        for (int64_t i = 0; i < count; i++) {
            const int64_t distance = distance_of(hits[i]);
            const int equal = distance == last && ties > 0;
            ties -= equal;
            hits[kept] = hits[i];
            kept += distance < last || equal;
        }
        found->threshold = last - 1;
    } else { /* nearer hits go to the front, and a max-heap keeps the ties with the smallest ids */
        int64_t front = 0, end = 0;
        for (int64_t i = 0; i < count; i++) {
            const uint64_t hit = hits[i];
            if (distance_of(hit) > last)
                continue;
            hits[end++] = hit;
            if (distance_of(hit) < last) {
                hits[end - 1] = hits[front];
                hits[front++] = hit;
            }
        }
        uint64_t *heap = hits + front;
        for (int64_t i = ties / 2; i-- > 0;)
            sift_hits(heap, i, ties, db, found);
        for (int64_t i = ties; i < end - front; i++)
            if (id_of(db, found, heap[i]) < id_of(db, found, heap[0])) {
                heap[0] = heap[i];
                sift_hits(heap, 0, ties, db, found);
            }
        found->threshold = last;
    }
    found->count = k;
}

int64_t aph_order(const aph_found *segments, int64_t n_segments, int64_t stride, int64_t k, const aph_codes *db,
                  int64_t *bins, uint32_t *distances, int64_t *ids)
{
    int64_t low, high;
    int64_t below;
    const int64_t total = range_of_hits(segments, n_segments, stride, &low, &high);
    if (k > total)
        k = total;
    if (k == 0)
        return 0;
    const int64_t last = kth_of_hits(segments, n_segments, stride, k, low, high, bins, &below);
    const int shift = shift_for(low, last, total);
    if (high - low >=
        APH_BINS) { /* the bins are those around the k-th distance, so hits are counted again in coarse ones */
        memset(bins, 0, (size_t)(((last - low) >> shift) + 1) * sizeof *bins);
        for (int64_t s = 0; s < n_segments; s++)
            for (int64_t i = 0; i < segments[s * stride].count; i++) {
                const int64_t distance = distance_of(segments[s * stride].hits[i]);
                if (distance < last)
                    bins[(distance - low) >> shift]++;
            }
    }
    const int64_t n_bins = (last - low) >> shift;                                 /* the last bin ends at `below` */
    for (int64_t bin = 0, start = 0, here; bin <= n_bins; bin++, start += here) { /* counts become places */
        here = bins[bin];
        bins[bin] = start;
    }
    int64_t end = below; /* the end of the hits with the k-th distance, which come last */
    for (int64_t s = 0; s < n_segments; s++) {
        const aph_found *segment = segments + s * stride;
        for (int64_t i = 0; i < segment->count; i++) {
            const uint64_t hit = segment->hits[i];
            const int64_t distance = distance_of(hit);
            if (distance < last) {
                const int64_t place = bins[(distance - low) >> shift]++;
                ids[place] = id_of(db, segment, hit);
                distances[place] = (uint32_t)distance;
            } else if (distance == last && end < k) {
                ids[end] = id_of(db, segment, hit);
                distances[end++] = (uint32_t)distance;
                if (!db->ascending && end == k) /* more of them may come: from here on these ids are a max-heap */
                    for (int64_t j = (k - below) / 2; j-- > 0;)
                        sift_ids(ids + below, j, k - below);
            } else if (distance == last && !db->ascending) {
                const int64_t id = id_of(db, segment, hit);
                if (id >= ids[below])
                    continue;
                ids[below] = id;
                sift_ids(ids + below, 0, k - below);
            }
        }
    }
    if (shift) {
        for (int64_t bin = 0, start = 0; bin <= n_bins && start < below; start = bins[bin++])
            sort_pairs(distances + start, ids + start, bins[bin] - start);
        if (!db->ascending)
            sort_ids(ids + below, k - below);
    } else if (!db->ascending)
        for (int64_t i = 0, j; i < k; i = j) {
            for (j = i + 1; j < k && distances[j] == distances[i];)
                j++;
            sort_ids(ids + i, j - i);
        }
    return k;
}

/* ---- samples and bitmaps ---- */

int64_t aph_sample(const aph_codes *db, int64_t wanted, int64_t *positions)
{
    const int64_t n = db->n;
    int64_t found = 0;
    if (wanted > n)
        wanted = n;
    for (int64_t i = 0; i < wanted; i++) { /* one from each of `wanted` ranges of equal size, if any there takes part */
        const int64_t start = (int64_t)((__int128)i * n / wanted), end = (int64_t)((__int128)(i + 1) * n / wanted);
        if (!db->filter) {
            positions[found++] = start;
            continue;
        }
        for (int64_t word = start / 64; word * 64 < end; word++) {
            uint64_t bits = db->filter[word];
            if (word * 64 < start)
                bits &= ~UINT64_C(0) << (start % 64);
            if (!bits)
                continue;
            const int64_t position = word * 64 + __builtin_ctzll(bits);
            if (position < end)
                positions[found++] = position;
            break;
        }
    }
    return found;
}

int64_t aph_count_bits(const uint64_t *bitmap, int64_t n)
{
    int64_t count = 0;
    for (int64_t word = 0; word < n / 64; word++)
        count += __builtin_popcountll(bitmap[word]);
    if (n % 64)
        count += __builtin_popcountll(bitmap[n / 64] & ~(~UINT64_C(0) << (n % 64)));
    return count;
}
