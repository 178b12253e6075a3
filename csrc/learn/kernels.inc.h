/* The body of the training kernels. Each instruction set includes it once, under a pragma of the target, and defines VL
 * (the floats of a vector), MR x NV (the register block: rows x vectors) and LEARN_TABLE.
 *
 * Distances, affinities and projections are one multiplication with three epilogues. Numbers of the rows are broadcast
 * against columns, which are packed in panels of WIDTH = NV * VL, and the sums stay in registers.
 */
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define WIDTH (NV * VL)
#define UNROLL_FOR(...) _Pragma("GCC unroll 16") for (__VA_ARGS__)

_Static_assert(APH_TILE % WIDTH == 0 && APH_BAND % MR == 0 && APH_SCAN % VL == 0, "tiles are whole register blocks");

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef float vf_any __attribute__((vector_size(4 * VL), aligned(4), may_alias));

INLINE vf load(const float *p) { return *(const vf_any *)p; }
INLINE void store(float *p, vf v) { *(vf_any *)p = v; }
INLINE vf splat(float x) { return x - (vf){0}; }

/* In SHUFFLE(a, b, lanes), lanes below VL are those of a, the others those of b. LANES(f, t) is f(l, t) for each lane
 * l. */
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif
#define LANES_4(f, t, l) f(l, t), f(l + 1, t), f(l + 2, t), f(l + 3, t)
#if VL == 4
#define LANES(f, t) LANES_4(f, t, 0)
#elif VL == 8
#define LANES(f, t) LANES_4(f, t, 0), LANES_4(f, t, 4)
#else
#define LANES(f, t) LANES_4(f, t, 0), LANES_4(f, t, 4), LANES_4(f, t, 8), LANES_4(f, t, 12)
#endif

#ifndef V_MAX
INLINE vf V_MAX(vf a, vf b)
{
    vi greater = a > b;
    return (vf)((greater & (vi)a) | (~greater & (vi)b));
}
#endif

#ifndef V_ANY
INLINE int V_ANY(vi mask)
{
    int32_t any = 0;
    for (int l = 0; l < VL; l++)
        any |= mask[l];
    return any != 0;
}
#endif

INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t panels_of(int64_t n) { return (n + WIDTH - 1) / WIDTH; }

/* Cuts an aligned array from scratch memory. The same calls on NULL give the size of all arrays. */
INLINE void *carve(char **at, int64_t bytes)
{
    char *piece = *at;
    *at += (bytes + 63) / 64 * 64;
    return piece;
}

/* Sets pointers to MR rows. Beyond the last valid row they repeat it, so that one kernel serves every edge. */
INLINE void row_pointers(const float *p[MR], const float *first, int64_t ld, int64_t valid)
{
    UNROLL_FOR (int i = 0; i < MR; i++)
        p[i] = first + (i < valid ? i : valid - 1) * ld;
}

/* acc = rows (MR x depth) times panel (depth x WIDTH). */
INLINE void multiply(vf acc[MR][NV], const float *const p[MR], const float *panel, int64_t depth)
{
    UNROLL_FOR (int i = 0; i < MR; i++)
        UNROLL_FOR (int v = 0; v < NV; v++)
            acc[i][v] = (vf){0};
#pragma GCC unroll 2
    for (int64_t k = 0; k < depth; k++) {
        vf column[NV];
        UNROLL_FOR (int v = 0; v < NV; v++)
            column[v] = load(panel + k * WIDTH + v * VL);
        UNROLL_FOR (int i = 0; i < MR; i++) {
            vf x = splat(p[i][k]);
            UNROLL_FOR (int v = 0; v < NV; v++)
                acc[i][v] += x * column[v];
        }
    }
}

/* The sum of squares in float64. It is added in eight lanes, and these in a fixed order. */
static double sum_squares(const float *x, int64_t n)
{
    double lane[8] = {0};
    int64_t k = 0;
    for (; k + 8 <= n; k += 8)
        UNROLL_FOR (int l = 0; l < 8; l++)
            lane[l] += (double)x[k + l] * (double)x[k + l];
    for (int l = 0; k < n; k++, l++)
        lane[l] += (double)x[k] * (double)x[k];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

/* Transposes a square of VL vectors: for t = 1, 2, 4, .. the t x t squares beside the diagonal of each 2t x 2t square
 * are exchanged. */
INLINE void transpose_square(vf v[VL])
{
#define LOW(l, t) ((l) & (t) ? VL + (l) - (t) : (l))
#define HIGH(l, t) ((l) & (t) ? VL + (l) : (l) + (t))
#define EXCHANGE(t)                                                                                                    \
    UNROLL_FOR (int i = 0; i < VL; i++)                                                                                \
        if (!(i & (t))) {                                                                                              \
            const vf low = SHUFFLE(v[i], v[i + (t)], LANES(LOW, t));                                                   \
            v[i + (t)] = SHUFFLE(v[i], v[i + (t)], LANES(HIGH, t));                                                    \
            v[i] = low;                                                                                                \
        }
    EXCHANGE(1)
    EXCHANGE(2)
#if VL > 4
    EXCHANGE(4)
#endif
#if VL > 8
    EXCHANGE(8)
#endif
#undef EXCHANGE
#undef LOW
#undef HIGH
}

/* panel[k * WIDTH + l] = factor * rows[l * ld + k] for k < n, so that WIDTH rows become one panel. */
INLINE void transpose(const float *rows, int64_t ld, int64_t n, float factor, float *panel)
{
    int64_t k = 0;
    for (; k + VL <= n; k += VL)
        for (int c = 0; c < WIDTH; c += VL) {
            vf v[VL];
            UNROLL_FOR (int l = 0; l < VL; l++)
                v[l] = load(rows + (c + l) * ld + k);
            transpose_square(v);
            UNROLL_FOR (int l = 0; l < VL; l++)
                store(panel + (k + l) * WIDTH + c, factor * v[l]);
        }
    for (; k < n; k++)
        for (int l = 0; l < WIDTH; l++)
            panel[k * WIDTH + l] = factor * rows[l * ld + k];
}

static float multiply_add(int64_t rounds)
{
    vf acc[MR][NV];
    for (int i = 0; i < MR; i++)
        for (int v = 0; v < NV; v++)
            acc[i][v] = splat(0.001f * (float)(i * NV + v));
    vf x = splat(0.999f), y = splat(1e-6f);
    __asm__ volatile("" : "+x"(x), "+x"(y)); /* the compiler must not know these numbers */
    for (int64_t k = 0; k < rounds; k++)
        UNROLL_FOR (int i = 0; i < MR; i++)
            UNROLL_FOR (int v = 0; v < NV; v++)
                acc[i][v] = acc[i][v] * x + y;
    vf sum = (vf){0};
    for (int i = 0; i < MR; i++)
        for (int v = 0; v < NV; v++)
            sum += acc[i][v];
    return sum[0];
}

#include "learn/source.inc.h"
#include "learn/distances.inc.h"
#include "learn/affinity.inc.h"
#include "learn/projection.inc.h"
#include "learn/bits.inc.h"

const struct aph_learn LEARN_TABLE = {
    .width = WIDTH,
    .register_rows = MR,
    .working_vector = working_vector,
    .square_norms = square_norms,
    .distances = distances,
    .distances_scratch = distances_scratch,
    .count_within = count_within,
    .list_within = list_within,
    .topk_push = topk_push,
    .topk_finish = topk_finish,
    .pair_distances = pair_distances,
    .pack_columns = pack_columns,
    .anchor_block = anchor_block,
    .anchor_scratch = anchor_scratch,
    .item_block = item_block,
    .item_scratch = item_scratch,
    .bias = bias,
    .pack_panel = pack_panel,
    .project = project,
    .project_scratch = project_scratch,
    .start_bits = start_bits,
    .near_anchors = near_anchors,
    .score_bits = score_bits,
    .bits_scratch = bits_scratch,
    .move_query = move_query,
    .query_scratch = query_scratch,
    .multiply_add = multiply_add,
};
