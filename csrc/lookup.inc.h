/* The parts of lookup.h that count bits: included by hamming.inc.h, once per instruction set. */
#include "lookup.h"
#include "select.h"

/* ---- one query ---- */

static inline int32_t distance_to(const aph_codes *db, int64_t position, const uint64_t *query)
{
    const uint64_t *code = db->groups + position / APH_GROUP * db->n_words * APH_GROUP + position % APH_GROUP;
    int32_t distance = 0;
    for (int64_t word = 0; word < db->n_words; word++) distance += count_word(code[word * APH_GROUP] ^ query[word]);
    return distance;
}

static inline uint64_t query_value(const uint64_t *query, int32_t start, int32_t bits)
{
    const int shift = start % 64;
    uint64_t value = query[start / 64] >> shift;
    if (shift + bits > 64) value |= query[start / 64 + 1] << (64 - shift);
    return value & ((UINT64_C(1) << bits) - 1);
}

/* Whether an earlier step than (r, span) has met this code: each is to be reported once. */
static int met_before(const aph_lookup *lookup, const aph_codes *db, int64_t position, const uint64_t *query, int r,
                      int64_t span)
{
    for (int64_t j = 0; j < lookup->n_spans; j++) {
        const int32_t start = lookup->starts[j], bits = lookup->starts[j + 1] - start;
        const int32_t d = count_word(aph_span_value(db, position, start, bits) ^ query_value(query, start, bits));
        if (d < r || (d == r && j < span)) return 1;
    }
    return 0;
}

static void take(const aph_codes *db, int64_t position, int32_t distance, aph_found *found, int64_t *histogram)
{
    found->hits[found->count++] = (uint64_t)distance << APH_POSITION_BITS | (uint64_t)position;
    if (found->k && found->count >= found->capacity && found->count > found->k) aph_tighten(found, db, histogram);
}

static double choose(int32_t n, int32_t r)
{
    double value = 1;
    for (int32_t i = 0; i < r; i++) value = value * (n - i) / (i + 1);
    return value;
}

enum { BATCH = 64, WAITING = 512 };

typedef struct {
    uint32_t positions[WAITING];
    int n;
} waiting_codes;

/* Look at the codes that wait, which have been prefetched. Returns 0 when a buffer that keeps all is full. */
static int look(waiting_codes *waiting, const aph_lookup *lookup, const aph_codes *db, const uint64_t *query, int r,
                int64_t span, aph_found *found, int64_t *histogram)
{
    for (int i = 0; i < waiting->n; i++) {
        const int64_t position = waiting->positions[i];
        const int32_t distance = distance_to(db, position, query);
        if (distance > found->threshold || !aph_takes_part(db, position)) continue;
        if (lookup->stale && (lookup->stale[position / 64] >> (position % 64) & 1)) continue;
        if (met_before(lookup, db, position, query, r, span)) continue;
        if (!found->k && found->count >= found->capacity) return 0;
        take(db, position, distance, found, histogram);
    }
    waiting->n = 0;
    return 1;
}

static int lookup_query(const aph_lookup *lookup, const aph_codes *db, const uint64_t *query, aph_found *found,
                     double budget, double probe_cost, double code_cost, int64_t *histogram)
{
    double spent = (double)(db->n - lookup->n_indexed + lookup->n_extra) * code_cost * 0.2; /* in order: cheaper */
    if (spent > budget) return APH_LOOKUP_DEAR;
    const int64_t loose = db->n > lookup->n_indexed ? db->n - lookup->n_indexed : 0;
    /* Tables may be a map of a damaged file: whatever they say, nothing outside the arrays is read. */
    const uint32_t n_listed = (uint32_t)lookup->n_indexed, limit = (uint32_t)(loose ? lookup->n_indexed : db->n);
    for (int64_t i = 0; i < loose + lookup->n_extra; i++) {
        const int64_t position = i < loose ? lookup->n_indexed + i : lookup->extra[i - loose];
        const int32_t distance = distance_to(db, position, query);
        if (distance > found->threshold || !aph_takes_part(db, position)) continue;
        if (!found->k && found->count >= found->capacity) return APH_LOOKUP_FULL;
        take(db, position, distance, found, histogram);
    }

    if (found->k && found->count >= found->k) aph_tighten(found, db, histogram);
    waiting_codes waiting = {.n = 0};
    for (int32_t r = 0;; r++)
        for (int64_t j = 0; j < lookup->n_spans; j++) {
            const int32_t start = lookup->starts[j], bits = lookup->starts[j + 1] - start;
            const uint64_t centre = query_value(query, start, bits), end = UINT64_C(1) << bits;
            const uint32_t *offsets = lookup->offsets + lookup->tables[j];
            const uint32_t *positions = lookup->positions + j * lookup->n_indexed;
            const double probes = r <= bits ? choose(bits, r) : 0;
            if (spent + probes * (probe_cost + code_cost * (double)lookup->n_indexed / (double)end) > budget)
                return APH_LOOKUP_DEAR;
            const int64_t before = found->count;
            uint64_t flips = r == 0 ? 0 : (UINT64_C(1) << r) - 1; /* the values with r bits, in rising order */
            for (int more = r <= bits; more;) {
                uint64_t values[BATCH];
                int n = 0;
                while (n < BATCH && more) {
                    values[n] = centre ^ flips;
                    __builtin_prefetch(offsets + values[n]);
                    n++;
                    const uint64_t low = flips & -flips, carry = flips + low; /* Gosper's next value */
                    if (flips == 0)
                        more = 0;
                    else {
                        flips = carry | (((carry ^ flips) / low) >> 2);
                        more = flips < end;
                    }
                }
                uint64_t in_batch = 0;
                for (int i = 0; i < n; i++) {
                    in_batch += (uint32_t)(offsets[values[i] + 1] - offsets[values[i]]);
                    __builtin_prefetch(positions + offsets[values[i]]);
                }
                spent += n * probe_cost + (double)in_batch * code_cost;
                if (spent > budget) return APH_LOOKUP_DEAR;
                for (int i = 0; i < n; i++) {
                    const uint32_t last = offsets[values[i] + 1] < n_listed ? offsets[values[i] + 1] : n_listed;
                    for (uint32_t at = offsets[values[i]]; at < last; at++) {
                        const uint32_t position = positions[at];
                        if (position >= limit) continue; /* removed since */
                        __builtin_prefetch(db->groups + position / APH_GROUP * APH_GROUP * db->n_words);
                        waiting.positions[waiting.n++] = position;
                        if (waiting.n == WAITING && !look(&waiting, lookup, db, query, r, j, found, histogram))
                            return APH_LOOKUP_FULL;
                    }
                }
            }
            if (!look(&waiting, lookup, db, query, r, j, found, histogram)) return APH_LOOKUP_FULL;
            const int64_t certain = lookup->n_spans * r + j; /* all codes this near have been found */
            if (!found->k) {
                if (certain >= found->threshold) return APH_LOOKUP_DONE;
                continue;
            }
            if (found->count > found->k || (found->count == found->k && before < found->k))
                aph_tighten(found, db, histogram); /* the threshold becomes the k-th distance */
            if (found->count >= found->k && certain >= found->threshold) return APH_LOOKUP_DONE;
            if (certain >= 64 * db->n_words) return APH_LOOKUP_DEAR; /* fewer than k take part: the caller pads */
        }
}

/* ---- all pairs ---- */

static int agree(const aph_codes *db, int64_t x, int64_t y, int32_t start, int32_t end)
{
    for (int32_t at = start; at < end; at += 32) {
        const int32_t bits = end - at < 32 ? end - at : 32;
        if (aph_span_value(db, x, at, bits) != aph_span_value(db, y, at, bits)) return 0;
    }
    return 1;
}

static int64_t pairs_step(aph_pairs *pairs, const aph_codes *db, int64_t room, int64_t work, int64_t *i, int64_t *j,
                       int32_t *distances)
{
    int64_t n = 0;
    const int64_t n_words = db->n_words;
    for (; pairs->group < pairs->end; pairs->group++, pairs->a = 0, pairs->b = 1) {
        const uint32_t *group = pairs->order + pairs->bounds[pairs->group];
        const int64_t size = pairs->bounds[pairs->group + 1] - pairs->bounds[pairs->group];
        for (; pairs->a + 1 < size; pairs->a++, pairs->b = pairs->a + 1) {
            const int64_t x = group[pairs->a];
            const uint64_t *cx = db->groups + x / APH_GROUP * n_words * APH_GROUP + x % APH_GROUP;
            for (; pairs->b < size; pairs->b++) {
                if (n == room || work <= 0) return n;
                work--;
                const int64_t y = group[pairs->b];
                const uint64_t *cy = db->groups + y / APH_GROUP * n_words * APH_GROUP + y % APH_GROUP;
                int32_t distance = 0;
                for (int64_t w = 0; w < n_words && distance <= pairs->radius; w++)
                    distance += count_word(cx[w * APH_GROUP] ^ cy[w * APH_GROUP]);
                if (distance > pairs->radius) continue;
                if (!agree(db, x, y, pairs->starts[pairs->span], pairs->starts[pairs->span + 1])) continue;
                int64_t span = 0;
                while (span < pairs->span && !agree(db, x, y, pairs->starts[span], pairs->starts[span + 1])) span++;
                if (span < pairs->span) continue; /* reported for that span */
                i[n] = x;
                j[n] = y;
                distances[n++] = distance;
            }
        }
        work--;
    }
    return n;
}
