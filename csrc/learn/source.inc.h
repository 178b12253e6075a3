/* Rows of X, of any dtype, as working vectors or as float64. Included by kernels.inc.h. */

/* Converts IEEE half precision to single, without the F16C instructions. The multiplication moves the exponent, and
 * also normalises subnormal halves. Infinities and NaN do not come here. */
INLINE float from_half(uint16_t half)
{
    union {
        uint32_t bits;
        float value;
    } x = {(uint32_t)(half & 0x7fff) << 13};
    x.value *= 0x1p112f;
    x.bits |= (uint32_t)(half & 0x8000) << 16;
    return x.value;
}

INLINE int64_t row_of(const struct aph_source *s, int64_t item) { return s->rows ? s->rows[item] : item; }

/* out[k - from] = float32((x[k] - mean[k]) * scale) for from <= k < from + n. */
static void working_vector(const struct aph_source *s, int64_t item, int64_t from, int64_t n, float *restrict out)
{
    const double *restrict mean = s->mean + from;
    const double scale = s->scale;
    const int64_t at = row_of(s, item) * s->d + from;
    switch (s->dtype) {
    case APH_FLOAT16: {
        const uint16_t *restrict x = (const uint16_t *)s->x + at;
        for (int64_t k = 0; k < n; k++)
            out[k] = (float)(((double)from_half(x[k]) - mean[k]) * scale);
        break;
    }
    case APH_FLOAT32: {
        const float *restrict x = (const float *)s->x + at;
        for (int64_t k = 0; k < n; k++)
            out[k] = (float)(((double)x[k] - mean[k]) * scale);
        break;
    }
    default: {
        const double *restrict x = (const double *)s->x + at;
        for (int64_t k = 0; k < n; k++)
            out[k] = (float)((x[k] - mean[k]) * scale);
    }
    }
}

/* Prefetches a piece of the item that is converted next. A piece ends before the hardware prefetcher sees a pattern. */
INLINE void fetch(const struct aph_source *s, int64_t item, int64_t from, int64_t n)
{
    const int64_t size = s->dtype == APH_FLOAT16 ? 2 : s->dtype == APH_FLOAT32 ? 4 : 8;
    const char *x = (const char *)s->x + (row_of(s, item) * s->d + from) * size;
    for (int64_t at = 0; at < n * size; at += 64)
        __builtin_prefetch(x + at);
}

enum { DISTANCE_LANES = 16 };

/* The sum of (a - x)^2 in DISTANCE_LANES fixed lanes. `get` converts a number of x. */
#define SQUARED_DISTANCE(type, get)                                                                                    \
    {                                                                                                                  \
        const type *restrict x = (const type *)s->x + at;                                                              \
        for (; k + DISTANCE_LANES <= s->d; k += DISTANCE_LANES)                                                        \
            UNROLL_FOR (int l = 0; l < DISTANCE_LANES; l++) {                                                          \
                double t = a[k + l] - (double)get(x[k + l]);                                                           \
                lane[l] += t * t;                                                                                      \
            }                                                                                                          \
        for (int l = 0; k < s->d; k++, l++) {                                                                          \
            double t = a[k] - (double)get(x[k]);                                                                       \
            lane[l] += t * t;                                                                                          \
        }                                                                                                              \
        break;                                                                                                         \
    }
#define AS_IT_IS(x) (x)

static double pair_distance(const struct aph_source *s, const double *restrict a, int64_t item)
{
    const int64_t at = row_of(s, item) * s->d;
    double lane[DISTANCE_LANES] = {0};
    int64_t k = 0;
    switch (s->dtype) {
    case APH_FLOAT16:
        SQUARED_DISTANCE(uint16_t, from_half)
    case APH_FLOAT32:
        SQUARED_DISTANCE(float, AS_IT_IS)
    default:
        SQUARED_DISTANCE(double, AS_IT_IS)
    }
    for (int half = DISTANCE_LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return sqrt(lane[0]);
}
#undef SQUARED_DISTANCE
#undef AS_IT_IS

static void pair_distances(const struct aph_source *items, const double *anchor, const int64_t *ids, int64_t count,
                           double *out)
{
    for (int64_t e = 0; e < count; e++)
        out[e] = pair_distance(items, anchor, ids[e]);
}
