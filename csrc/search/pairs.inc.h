/* All pairs within a radius that share a substring (lookup.h). Included by kernels.inc.h. */

static int agree(const uint64_t *x, const uint64_t *y, int32_t start, int32_t end)
{
    for (int32_t at = start; at < end; at += 32) {
        const int32_t bits = end - at < 32 ? end - at : 32;
        if (aph_substring_value(x, at, bits) != aph_substring_value(y, at, bits))
            return 0;
    }
    return 1;
}

static int64_t pairs_step(aph_pairs *pairs, const aph_codes *db, int64_t room, int64_t work, int64_t *i, int64_t *j,
                          int32_t *distances)
{
    int64_t n = 0;
    const int64_t n_words = db->n_words;
    for (; pairs->bucket < pairs->end; pairs->bucket++, pairs->a = 0, pairs->b = 1) {
        const uint32_t *bucket = pairs->order + pairs->bounds[pairs->bucket];
        const int64_t size = pairs->bounds[pairs->bucket + 1] - pairs->bounds[pairs->bucket];
        for (; pairs->a + 1 < size; pairs->a++, pairs->b = pairs->a + 1) {
            const int64_t x = bucket[pairs->a];
            const uint64_t *cx = aph_code_of(db, x);
            for (; pairs->b < size; pairs->b++) {
                if (n == room || work <= 0)
                    return n;
                work--;
                const int64_t y = bucket[pairs->b];
                const uint64_t *cy = aph_code_of(db, y);
                int32_t distance = 0;
                for (int64_t w = 0; w < n_words && distance <= pairs->radius; w++)
                    distance += count_word(cx[w * APH_GROUP] ^ cy[w * APH_GROUP]);
                if (distance > pairs->radius)
                    continue;
                if (!agree(cx, cy, pairs->starts[pairs->substring], pairs->starts[pairs->substring + 1]))
                    continue;
                int64_t substring = 0;
                while (substring < pairs->substring &&
                       !agree(cx, cy, pairs->starts[substring], pairs->starts[substring + 1]))
                    substring++;
                if (substring < pairs->substring)
                    continue; /* the pair was reported for that substring */
                i[n] = x;
                j[n] = y;
                distances[n++] = distance;
            }
        }
        work--;
    }
    return n;
}
