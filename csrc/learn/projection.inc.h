/* (C) Projections of items, as numbers and as packed signs. Included by kernels.inc.h. */

/* RUN features of a row are converted at a time: a long run, which the hardware prefetcher follows. The 16 floats more,
 * one cache line, keep the rows of a register block in different cache sets. */
enum { RUN = 4 * APH_DEPTH, RUN_LD = RUN + 16 };

/* A single row meets so many panels together. Their sums are enough to hide the latency of a multiply-add. */
enum { TOGETHER = 4 };

struct project_scratch {
    float *rows; /* [APH_BAND, or count where that is smaller][RUN_LD] */
    float *sums; /* [the same][ld] */
};

INLINE struct project_scratch carve_project(char **at, int64_t r, int64_t count)
{
    const int64_t n_rows = min(APH_BAND, count);
    struct project_scratch s;
    s.rows = carve(at, 4 * n_rows * RUN_LD);
    s.sums = carve(at, 4 * n_rows * panels_of(r) * WIDTH);
    return s;
}

static int64_t project_scratch(int64_t r, int64_t count)
{
    char *end = NULL;
    carve_project(&end, r, count);
    return (int64_t)(intptr_t)end;
}

static void pack_panel(const float *w, int64_t d, int64_t r, int64_t panel, float *out)
{
    const int64_t first = panel * WIDTH, valid = min(WIDTH, r - first);
    memset(out, 0, 4 * d * WIDTH);
    for (int64_t k = 0; k < d; k++)
        memcpy(out + k * WIDTH, w + k * r + first, 4 * valid);
}

/* Sets bit f of the code to 1 where y[f] >= 0. Bits from r on are zero. */
static void pack_signs(const float *y, int64_t r, uint64_t *code)
{
    for (int64_t f = 0; f < r; f += 64) {
        const int64_t valid = min(64, r - f);
        uint64_t word = 0;
        int64_t l = 0;
#ifdef V_SIGNS
        for (; l + VL <= valid; l += VL)
            word |= V_SIGNS(load(y + f + l)) << l;
#endif
        for (; l < valid; l++)
            word |= (uint64_t)(y[f + l] >= 0) << l;
        code[f / 64] = word;
    }
}

/* acc[c] = row (1 x depth) times panel c (depth x WIDTH). The sums have the same bits as those of `multiply`. */
INLINE void multiply_row(vf acc[TOGETHER][NV], const float *row, const float *const panels[TOGETHER], int64_t depth)
{
    UNROLL_FOR (int c = 0; c < TOGETHER; c++)
        UNROLL_FOR (int v = 0; v < NV; v++)
            acc[c][v] = (vf){0};
    for (int64_t k = 0; k < depth; k++) {
        const vf x = splat(row[k]);
        UNROLL_FOR (int c = 0; c < TOGETHER; c++)
            UNROLL_FOR (int v = 0; v < NV; v++)
                acc[c][v] += x * load(panels[c] + k * WIDTH + v * VL);
    }
}

/* Adds the products of the features from .. from + depth of a row to its sums, or to the bias where from is 0. */
static void project_row(const float *row, int64_t from, int64_t depth, const float *panels, int64_t d,
                        const float *bias, int64_t ld, float *sums)
{
    for (int64_t c = 0; c < ld; c += TOGETHER * WIDTH) {
        const int64_t valid = min(TOGETHER, (ld - c) / WIDTH);
        const float *p[TOGETHER];
        vf acc[TOGETHER][NV];
        UNROLL_FOR (int t = 0; t < TOGETHER; t++)
            p[t] = panels + (c + min(t, valid - 1) * WIDTH) * d + from * WIDTH;
        multiply_row(acc, row, p, depth);
        UNROLL_FOR (int t = 0; t < TOGETHER; t++)
            if (t < valid)
                UNROLL_FOR (int v = 0; v < NV; v++) {
                    const int64_t o = c + t * WIDTH + v * VL;
                    store(sums + o, (from ? load(sums + o) : load(bias + o)) + acc[t][v]);
                }
    }
}

static void project(const struct aph_source *items, int64_t start, int64_t count, const float *panels,
                    const float *bias, int64_t r, float *out, uint64_t *codes, void *scratch)
{
    char *at = scratch;
    const struct project_scratch s = carve_project(&at, r, count);
    const int64_t d = items->d, ld = panels_of(r) * WIDTH, words = (r + 63) / 64;
    for (int64_t j = 0; j < count; j += APH_BAND) {
        const int64_t n_rows = min(APH_BAND, count - j);
        for (int64_t from = 0; from < d; from += APH_DEPTH) {
            const int64_t depth = min(APH_DEPTH, d - from), run = min(RUN, d - from);
            const float *rows = s.rows + from % RUN;
            if (from % RUN == 0)
                for (int64_t i = 0; i < n_rows; i++) {
                    if (i + 1 < n_rows)
                        fetch(items, start + j + i + 1, from, run);
                    working_vector(items, start + j + i, from, run, s.rows + i * RUN_LD);
                }
            if (n_rows == 1) {
                project_row(rows, from, depth, panels, d, bias, ld, s.sums);
                continue;
            }
            for (int64_t c = 0; c < ld; c += WIDTH)
                for (int64_t i = 0; i < n_rows; i += MR) {
                    const float *p[MR];
                    vf acc[MR][NV];
                    row_pointers(p, rows + i * RUN_LD, RUN_LD, n_rows - i);
                    multiply(acc, p, panels + c * d + from * WIDTH, depth);
                    UNROLL_FOR (int row = 0; row < MR; row++)
                        if (row < n_rows - i)
                            UNROLL_FOR (int v = 0; v < NV; v++) {
                                float *o = s.sums + (i + row) * ld + c + v * VL;
                                store(o, (from ? load(o) : load(bias + c + v * VL)) + acc[row][v]);
                            }
                }
        }
        for (int64_t i = 0; i < n_rows; i++) {
            if (out)
                memcpy(out + (j + i) * r, s.sums + i * ld, 4 * r);
            if (codes)
                pack_signs(s.sums + i * ld, r, codes + (j + i) * words);
        }
    }
}
