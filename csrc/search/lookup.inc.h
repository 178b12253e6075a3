/* The search of one query in the tables of a lookup (lookup.h). Included by kernels.inc.h. */
#include "search/lookup.h"
#include "search/select.h"

static inline int is_stale(const aph_codes *db, int64_t position)
{
    const uint64_t *stale = aph_page_of(db, position)->stale;
    const int64_t place = aph_place_of(db, position);
    return stale && (stale[place / 64] >> (place % 64) & 1);
}

static inline uint64_t query_value(const uint64_t *query, int32_t start, int32_t bits)
{
    const int shift = start % 64;
    uint64_t value = query[start / 64] >> shift;
    if (shift + bits > 64)
        value |= query[start / 64 + 1] << (64 - shift);
    return value & ((UINT64_C(1) << bits) - 1);
}

/* Whether an earlier step than (r, substring) has met this code. Each code is to be reported once. */
static int met_before(const aph_lookup *lookup, const uint64_t *code, const uint64_t *query, int r, int64_t substring)
{
    for (int64_t j = 0; j < lookup->n_substrings; j++) {
        const int32_t start = lookup->starts[j], bits = lookup->starts[j + 1] - start;
        const int32_t d = count_word(aph_substring_value(code, start, bits) ^ query_value(query, start, bits));
        if (d < r || (d == r && j < substring))
            return 1;
    }
    return 0;
}

static double binomial(int32_t n, int32_t r)
{
    double value = 1;
    for (int32_t i = 0; i < r; i++)
        value = value * (n - i) / (i + 1);
    return value;
}

enum { BATCH = 64, WAITING = 512 };

typedef struct {
    const uint64_t *codes[WAITING];
    uint32_t positions[WAITING];
    int n;
} waiting_codes;

/* Compare the codes that wait, which have been prefetched by now. Returns 0 when a buffer that keeps all hits is
 * full. */
static int verify_candidates(waiting_codes *waiting, const aph_lookup *lookup, const aph_codes *db,
                             const uint64_t *query, int r, int64_t substring, aph_found *found, int64_t *bins)
{
    for (int i = 0; i < waiting->n; i++) {
        const int64_t position = waiting->positions[i];
        const uint64_t *code = waiting->codes[i];
        const int32_t distance = distance_to(code, db->n_words, query);
        if (distance > found->threshold || !aph_takes_part(db, position))
            continue;
        if (is_stale(db, position) || met_before(lookup, code, query, r, substring))
            continue;
        if (!found->k && found->count >= found->capacity)
            return 0;
        append_hit(found, distance, position, db, bins);
    }
    waiting->n = 0;
    return 1;
}

static int lookup_query(const aph_lookup *lookup, const aph_codes *db, const void *state, aph_found *found,
                        double budget, double probe_cost, double code_cost, int64_t *bins)
{
    const uint64_t *query = state;
    const int64_t loose = db->n > lookup->n_indexed ? db->n - lookup->n_indexed : 0;
    double spent =
        (double)(loose + lookup->n_stale) * code_cost * 0.2; /* these codes are read in order, which is cheaper */
    if (spent > budget)
        return APH_LOOKUP_GIVEN_UP;
    /* The tables may be a map of a damaged file. Whatever they say, nothing outside the arrays is read. */
    const uint32_t n_listed = (uint32_t)lookup->n_indexed, limit = (uint32_t)(loose ? lookup->n_indexed : db->n);
    for (int64_t i = 0; i < loose + lookup->n_stale; i++) {
        const int64_t position = i < loose ? lookup->n_indexed + i : lookup->stale[i - loose];
        if (position >= db->n)
            continue; /* the code was removed after the tables were made */
        const int32_t distance = distance_to(aph_code_of(db, position), db->n_words, query);
        if (distance > found->threshold || !aph_takes_part(db, position))
            continue;
        if (!found->k && found->count >= found->capacity)
            return APH_LOOKUP_FULL;
        append_hit(found, distance, position, db, bins);
    }

    if (found->k && found->count >= found->k)
        aph_prune_hits(found, db, bins);
    waiting_codes waiting = {.n = 0};
    for (int32_t r = 0;; r++)
        for (int64_t j = 0; j < lookup->n_substrings; j++) {
            const int32_t start = lookup->starts[j], bits = lookup->starts[j + 1] - start;
            const uint64_t centre = query_value(query, start, bits), end = UINT64_C(1) << bits;
            const uint32_t *offsets = lookup->offsets + lookup->tables[j];
            const uint32_t *positions = lookup->positions + j * lookup->n_indexed;
            const double probes = r <= bits ? binomial(bits, r) : 0;
            if (spent + probes * (probe_cost + code_cost * (double)lookup->n_indexed / (double)end) > budget)
                return APH_LOOKUP_GIVEN_UP;
            const int64_t before = found->count;
            uint64_t flips =
                r == 0 || r > bits ? 0 : (UINT64_C(1) << r) - 1; /* the values with r bits, in rising order */
            for (int more = r <= bits; more;) {
                uint64_t values[BATCH];
                int n = 0;
                while (n < BATCH && more) {
                    values[n] = centre ^ flips;
                    __builtin_prefetch(offsets + values[n]);
                    n++;
                    const uint64_t low = flips & -flips, carry = flips + low; /* Gosper's hack gives the next value */
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
                if (spent > budget)
                    return APH_LOOKUP_GIVEN_UP;
                for (int i = 0; i < n; i++) {
                    const uint32_t last = offsets[values[i] + 1] < n_listed ? offsets[values[i] + 1] : n_listed;
                    for (uint32_t at = offsets[values[i]]; at < last; at++) {
                        const uint32_t position = positions[at];
                        if (position >= limit)
                            continue; /* the code was removed after the tables were made */
                        const uint64_t *code = aph_code_of(db, position);
                        __builtin_prefetch(code);
                        waiting.codes[waiting.n] = code;
                        waiting.positions[waiting.n++] = position;
                        if (waiting.n == WAITING && !verify_candidates(&waiting, lookup, db, query, r, j, found, bins))
                            return APH_LOOKUP_FULL;
                    }
                }
            }
            if (!verify_candidates(&waiting, lookup, db, query, r, j, found, bins))
                return APH_LOOKUP_FULL;
            const int64_t certain = lookup->n_substrings * r + j; /* all codes this near have been found */
            if (!found->k) {
                if (certain >= found->threshold)
                    return APH_LOOKUP_DONE;
                continue;
            }
            if (found->count > found->k || (found->count == found->k && before < found->k))
                aph_prune_hits(found, db, bins); /* the threshold becomes the k-th distance */
            if (found->count >= found->k && certain >= found->threshold)
                return APH_LOOKUP_DONE;
            if (certain >= 64 * db->n_words)
                return APH_LOOKUP_GIVEN_UP; /* fewer than k codes take part: the scan finds that out */
        }
}
