/* Distances of a query to rows of numbers. Part of kernels.inc.h; the contract is aph_rows_fn in kernels.h.
 *
 * Sums are float64, in eight lanes and a fixed order. Whatever is multiplied is a float32 or an integer, so that every
 * product is exact, and it makes no difference whether an instruction set multiplies and adds in one step: distances are
 * equal on every set, bit for bit. Equal vectors have distance 0. */

#pragma GCC diagnostic ignored "-Wpsabi" /* how such vectors are passed does not matter: the functions are inlined */

#ifndef ROW_WIDTH /* numbers of float64 in a vector */
#define ROW_WIDTH 8
#endif
enum { ROW_LANES = 8, ROW_PARTS = ROW_LANES / ROW_WIDTH };
typedef double row_doubles __attribute__((vector_size(8 * ROW_WIDTH)));
typedef float row_floats __attribute__((vector_size(4 * ROW_WIDTH)));
typedef int32_t row_ints __attribute__((vector_size(4 * ROW_WIDTH)));
typedef uint16_t row_halves __attribute__((vector_size(2 * ROW_WIDTH)));
typedef int8_t row_bytes __attribute__((vector_size(ROW_WIDTH)));

#ifndef BYTES_TO_INTS /* of ROW_WIDTH int8, and uint16 */
INLINE row_ints bytes_to_ints(const void *at)
{
    row_bytes x;
    memcpy(&x, at, sizeof x);
    return __builtin_convertvector(x, row_ints);
}
INLINE row_ints halves_to_ints(const void *at)
{
    row_halves x;
    memcpy(&x, at, sizeof x);
    return __builtin_convertvector(x, row_ints);
}
#define BYTES_TO_INTS(at) bytes_to_ints(at)
#define HALVES_TO_INTS(at) halves_to_ints(at)
#endif

/* float16 to float32: its bits behind the sign, moved to their place, times 2^112; infinity and NaN keep their exponent. */
INLINE row_floats floats_of_halves(row_ints bits)
{
    const row_floats size = (row_floats)((bits & 0x7fff) << 13) * 0x1p112f;
    const row_ints beyond = (row_ints)((bits & 0x7c00) == 0x7c00) & 0x7f800000;
    return (row_floats)((row_ints)size | beyond | (bits & 0x8000) << 16);
}

/* `valid` numbers of a row from number k on, and zeros up to ROW_WIDTH. */
INLINE row_doubles row_numbers(const char *row, int64_t k, int64_t valid, enum aph_row_kind kind)
{
    if (kind == APH_ROW_FLOAT32) {
        row_floats x = {0};
        memcpy(&x, row + 4 * k, (size_t)(4 * valid));
        return __builtin_convertvector(x, row_doubles);
    }
    const int64_t size = kind == APH_ROW_FLOAT16 ? 2 : 1;
    const char *at = row + size * k;
    char some[2 * ROW_WIDTH] = {0};
    if (valid < ROW_WIDTH) {
        memcpy(some, at, (size_t)(size * valid));
        at = some;
    }
    if (kind == APH_ROW_FLOAT16)
        return __builtin_convertvector(floats_of_halves(HALVES_TO_INTS(at)), row_doubles);
    return __builtin_convertvector(BYTES_TO_INTS(at), row_doubles);
}

/* Of eight lanes, which lie in ROW_PARTS vectors. */
INLINE double row_sum(const row_doubles *parts)
{
    double v[ROW_LANES];
    memcpy(v, parts, sizeof v);
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

enum row_term { ROW_DIFFERENCE, ROW_SCALED_DIFFERENCE, ROW_PRODUCT, ROW_UNIT_DIFFERENCE, ROW_SQUARE };

/* Of ROW_WIDTH numbers: (x - q)^2, (s x - q)^2, x q, (c x - q)^2 or x^2. What is squared is rounded to float32 before. */
INLINE row_doubles row_term(row_doubles x, const float *query, double factor, enum row_term term)
{
    if (term == ROW_SQUARE)
        return x * x;
    row_floats q, f;
    memcpy(&q, query, sizeof q);
    const row_doubles wide = __builtin_convertvector(q, row_doubles);
    if (term == ROW_PRODUCT)
        return x * wide;
    if (term == ROW_UNIT_DIFFERENCE)
        f = __builtin_convertvector(x * factor, row_floats) - q;
    else
        f = __builtin_convertvector(term == ROW_DIFFERENCE ? x - wide : x * factor - wide, row_floats);
    const row_doubles difference = __builtin_convertvector(f, row_doubles);
    return difference * difference;
}

/* Add the terms of up to eight numbers from number k on. */
INLINE void row_add(row_doubles *sums, const char *row, int64_t k, int64_t valid, const float *query, double factor,
                    enum aph_row_kind kind, enum row_term term)
{
    for (int j = 0; j < ROW_PARTS; j++) {
        const int64_t left = valid - j * ROW_WIDTH;
        if (left <= 0)
            break;
        const row_doubles x = row_numbers(row, k + j * ROW_WIDTH, left < ROW_WIDTH ? left : ROW_WIDTH, kind);
        sums[j] += row_term(x, query + k + j * ROW_WIDTH, factor, term);
    }
}

/* The sum of the terms over a row: chunks of eight in turn belong to two sums. */
INLINE double row_terms(const char *row, int64_t d, const float *query, double factor, enum aph_row_kind kind,
                        enum row_term term)
{
    row_doubles even[ROW_PARTS] = {{0}}, odd[ROW_PARTS] = {{0}};
    int64_t k = 0;
    for (; k + 2 * ROW_LANES <= d; k += 2 * ROW_LANES) {
        row_add(even, row, k, ROW_LANES, query, factor, kind, term);
        row_add(odd, row, k + ROW_LANES, ROW_LANES, query, factor, kind, term);
    }
    if (k + ROW_LANES <= d) {
        row_add(even, row, k, ROW_LANES, query, factor, kind, term);
        k += ROW_LANES;
        if (k < d)
            row_add(odd, row, k, d - k, query, factor, kind, term);
    } else if (k < d)
        row_add(even, row, k, d - k, query, factor, kind, term);
    for (int j = 0; j < ROW_PARTS; j++)
        even[j] += odd[j];
    return row_sum(even);
}

INLINE void row_distances_of(const uint64_t *addresses, const float *scales, int64_t n, int64_t d, const float *query,
                             double *out, enum aph_row_kind kind, enum aph_row_metric metric)
{
    int is_zero = 1; /* the query; rows of padding behind it are zero, too */
    for (int64_t k = 0; k < d; k++)
        is_zero &= query[k] == 0;
    const int64_t row_size = d * (kind == APH_ROW_FLOAT32 ? 4 : kind == APH_ROW_FLOAT16 ? 2 : 1);
    for (int64_t i = 0; i < n; i++) {
        const char *row = (const char *)(uintptr_t)addresses[i];
        if (i + 2 < n) /* rows lie anywhere, and what is fetched by itself comes late */
            for (int64_t at = 0; at < row_size; at += 64)
                __builtin_prefetch((const char *)(uintptr_t)addresses[i + 2] + at);
        const double scale = scales ? scales[i] : 1;
        if (metric == APH_ROW_IP)
            out[i] = -(row_terms(row, d, query, 1, kind, ROW_PRODUCT) * scale);
        else if (metric == APH_ROW_L2)
            out[i] = sqrt(
                row_terms(row, d, query, scale, kind, kind == APH_ROW_INT8 ? ROW_SCALED_DIFFERENCE : ROW_DIFFERENCE));
        else {
            const double squares = row_terms(row, d, query, 1, kind, ROW_SQUARE);
            const double unit = squares > 0 ? 1 / sqrt(squares) : 0;
            const double half = row_terms(row, d, query, unit, kind, ROW_UNIT_DIFFERENCE) / 2;
            out[i] = unit == 0 || is_zero ? 1 : half > 2 ? 2 : half;
        }
    }
}

static void row_distances(const uint64_t *addresses, const float *scales, int64_t n, int64_t d, const float *query,
                          enum aph_row_kind kind, enum aph_row_metric metric, double *out)
{
#define ROW_CASE(k, m)                                                                                                 \
    if (kind == k && metric == m) {                                                                                    \
        row_distances_of(addresses, scales, n, d, query, out, k, m);                                                   \
        return;                                                                                                        \
    }
#define ROW_CASES(k)                                                                                                   \
    ROW_CASE(k, APH_ROW_L2)                                                                                            \
    ROW_CASE(k, APH_ROW_IP)                                                                                            \
    ROW_CASE(k, APH_ROW_COSINE)
    ROW_CASES(APH_ROW_FLOAT32)
    ROW_CASES(APH_ROW_FLOAT16)
    ROW_CASES(APH_ROW_INT8)
#undef ROW_CASES
#undef ROW_CASE
}
