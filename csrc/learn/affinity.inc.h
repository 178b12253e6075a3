/* (B) The passes over all pairs of an anchor i and an item j. Included by kernels.inc.h.
 *
 *     g_ij = |h_i - b_j|^2 / 4       x_ij = 1 + g_ij / s = (1 + |h_i|^2 / 4s) + |b_j|^2 / 4s - h_i.b_j / 2s
 * V_ij = 1 / x_ij                w_ij = V_ij^a
 *
 * Bands of rows meet tiles of columns. A first product yields x, and V and w are computed in registers. w V goes to a
 * small tile T, and V to another one, for the few pairs of P. A second product, T times the columns, sums the vectors.
 * The m x n weights never exist together. In the anchors' pass, anchors are rows and items are columns; in the items'
 * pass it is the other way round. Sums are float32 in a tile and float64 across tiles.
 */

enum affinity_power { POWER_1, POWER_2, POWER_4, POWER_8, POWER_ANY };

INLINE enum affinity_power power_of(double power)
{
    return power == 1 ? POWER_1 : power == 2 ? POWER_2 : power == 4 ? POWER_4 : power == 8 ? POWER_8 : POWER_ANY;
}

INLINE vf polynomial(vf x, const float *c, int n)
{
    vf sum = splat(c[0]);
    UNROLL_FOR (int i = 1; i < n; i++)
        sum = sum * x + c[i];
    return sum;
}

/* x^-a for x >= 1, computed as exp(-a log x). log and exp are those of Cephes (Moshier). The relative error is about
 * 1e-7 (1 + a log x). Results below e^-87 become 0, and so does that of x = +inf, which is the padding. */
INLINE vf negative_power(vf x, float a)
{
    static const float log_c[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                                  -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                                  2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    static const float exp_c[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                  4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    const float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    /* x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)) */
    vi e = ((vi)x - 0x3f3504f3) >> 23;
    vf f = (vf)((vi)x - (e << 23)) - 1.0f, f2 = f * f, n = __builtin_convertvector(e, vf);
    vf log = f + (polynomial(f, log_c, 9) * f * f2 + n * ln2_low - 0.5f * f2) + n * ln2_high;
    vf y = -a * log;
    vi zero = (y < splat(-87.0f)) | (x == splat(INFINITY));
    y = V_MAX(y, splat(-87.0f));
    vi whole = __builtin_convertvector(y * 1.44269504f - 0.5f,
                                       vi); /* the conversion rounds towards zero, which gives the nearest for y <= 0 */
    n = __builtin_convertvector(whole, vf);
    y = (y - n * ln2_high) - n * ln2_low;
    vf exp = (polynomial(y, exp_c, 6) * (y * y) + y) + 1.0f;
    return (vf)(((vi)exp + (whole << 23)) & ~zero);
}

/* w = V^a, with V = 1 / x. */
INLINE vf raise(vf v, vf x, enum affinity_power which, float a)
{
    switch (which) {
    case POWER_1:
        return v;
    case POWER_2:
        return v * v;
    case POWER_4:
        v *= v;
        return v * v;
    case POWER_8:
        v *= v;
        v *= v;
        return v * v;
    default:
        return negative_power(x, a);
    }
}

static void bias(const float *b, int64_t count, int64_t r, double scale, double offset, float *out)
{
    for (int64_t j = 0; j < count; j++)
        out[j] = (float)(offset + sum_squares(b + j * r, r) / (4 * scale));
}

static void pack_columns(const float *b, int64_t count, int64_t r, double scale, double offset,
                         const struct aph_columns *out)
{
    const float factor = (float)(-0.5 / scale);
    bias(b, count, r, scale, offset, out->bias);
    for (int64_t j = count; j < APH_TILE; j++)
        out->bias[j] = INFINITY;
    for (int64_t j = 0; j < panels_of(count) * WIDTH; j += WIDTH) {
        float *panel = out->panels + j * r;
        if (j + WIDTH <= count)
            transpose(b + j * r, r, r, factor, panel);
        else
            for (int64_t k = 0; k < r; k++)
                for (int64_t l = 0; l < WIDTH; l++)
                    panel[k * WIDTH + l] = j + l < count ? factor * b[(j + l) * r + k] : 0;
    }
    for (int64_t c = 0; c < r; c += WIDTH) {
        float *panel = out->nat + c * APH_TILE;
        const int64_t valid = min(WIDTH, r - c);
        for (int64_t j = 0; j < panels_of(count) * WIDTH; j++) {
            if (j < count && valid == WIDTH) {
                memcpy(panel + j * WIDTH, b + j * r + c, 4 * WIDTH); /* the size is known, so this is no call */
                continue;
            }
            memset(panel + j * WIDTH, 0, 4 * WIDTH);
            if (j < count)
                memcpy(panel + j * WIDTH, b + j * r + c, 4 * valid);
        }
    }
}

/* A band of at most APH_BAND rows, and the tile of columns that it meets. */
struct band {
    const float *rows; /* n_rows rows of r */
    const float *row_bias;
    const struct aph_columns *columns;
    const float *weight; /* of the columns; NULL where all are 1 */
    int64_t n_rows, n_columns, r;
    float *t, *v; /* [APH_BAND][APH_TILE] */
    float *z, *s; /* [APH_BAND][VL]: row sums in lanes, of w (only where weight is NULL) and of T */
};

/* The sums over k of a register block: acc is the sum over the last piece, and what came before is added. */
INLINE vf x_of(const struct band *band, vf acc, int64_t i, int64_t j, int64_t from)
{
    if (from)
        return load(band->t + i * APH_TILE + j) + acc;
    return splat(band->row_bias[i]) + load(band->columns->bias + j) + acc;
}

INLINE void keep_sums(const struct band *band, vf acc[MR][NV], int64_t i, int64_t j, int64_t from)
{
    UNROLL_FOR (int row = 0; row < MR; row++)
        for (int c = 0; c < NV && row < band->n_rows - i; c++)
            store(band->t + (i + row) * APH_TILE + j + c * VL, x_of(band, acc[row][c], i + row, j + c * VL, from));
}

/* Computes V, w and T = w V (times weight) from the sums of the first n_rows rows of a register block. */
INLINE void compute_weights(const struct band *band, vf acc[MR][NV], int64_t i, int64_t j, int n_rows, int64_t from,
                            enum affinity_power which, float power, int weighted)
{
    const vf one = splat(1.0f);
    UNROLL_FOR (int row = 0; row < MR; row++) {
        if (row >= n_rows)
            break;
        vf z = load(band->z + (i + row) * VL), s = load(band->s + (i + row) * VL);
        UNROLL_FOR (int c = 0; c < NV; c++) {
            const int64_t at = (i + row) * APH_TILE + j + c * VL;
            vf x = V_MAX(x_of(band, acc[row][c], i + row, j + c * VL, from), one);
            vf near = one / x;
            vf w = raise(near, x, which, power);
            vf t = w * near;
            if (weighted)
                t *= load(band->weight + j + c * VL);
            else
                z += w;
            s += t;
            store(band->v + at, near);
            store(band->t + at, t);
        }
        if (!weighted)
            store(band->z + (i + row) * VL, z);
        store(band->s + (i + row) * VL, s);
    }
}

INLINE void first_product(const struct band *given, enum affinity_power which, float power, int weighted)
{
    const struct band copy = *given, *const band =
                                         &copy; /* the copy stays in registers, since no store can change it */
    memset(band->z, 0, 4 * APH_BAND * VL);
    memset(band->s, 0, 4 * APH_BAND * VL);
    for (int64_t from = 0; from < band->r; from += APH_DEPTH) {
        const int64_t depth = min(APH_DEPTH, band->r - from);
        const int last = from + depth == band->r;
        for (int64_t j = 0; j < band->n_columns; j += WIDTH)
            for (int64_t i = 0; i < band->n_rows; i += MR) {
                const float *p[MR];
                vf acc[MR][NV];
                row_pointers(p, band->rows + i * band->r + from, band->r, band->n_rows - i);
                multiply(acc, p, band->columns->panels + j * band->r + from * WIDTH, depth);
                if (!last)
                    keep_sums(band, acc, i, j, from);
                else if (band->n_rows - i >= MR)
                    compute_weights(band, acc, i, j, MR, from, which, power, weighted);
                else
                    compute_weights(band, acc, i, j, (int)(band->n_rows - i), from, which, power, weighted);
            }
    }
}

static void first_product_of_power(const struct band *band, double power)
{
    const float a = (float)power;
#define CASE(which)                                                                                                    \
    case which:                                                                                                        \
        if (band->weight)                                                                                              \
            first_product(band, which, a, 1);                                                                          \
        else                                                                                                           \
            first_product(band, which, a, 0);                                                                          \
        break;
    switch (power_of(power)) {
        CASE(POWER_1)
        CASE(POWER_2)
        CASE(POWER_4)
        CASE(POWER_8)
        CASE(POWER_ANY)
    }
#undef CASE
}

/* sums[i * ld + f] += sum_j T_ij columns_jf, where ld is r padded to whole panels. */
static void second_product(const struct band *band, double *sums, int64_t ld)
{
    for (int64_t c = 0; c < ld; c += WIDTH)
        for (int64_t i = 0; i < band->n_rows; i += MR) {
            const float *p[MR];
            vf acc[MR][NV];
            float tile[MR][WIDTH];
            row_pointers(p, band->t + i * APH_TILE, APH_TILE, band->n_rows - i);
            multiply(acc, p, band->columns->nat + c * APH_TILE, band->n_columns);
            UNROLL_FOR (int row = 0; row < MR; row++)
                UNROLL_FOR (int v = 0; v < NV; v++)
                    store(&tile[row][v * VL], acc[row][v]);
            for (int64_t row = 0; row < min(MR, band->n_rows - i); row++) {
                double *sum = sums + (i + row) * ld + c;
                for (int l = 0; l < WIDTH; l++)
                    sum[l] += (double)tile[row][l];
            }
        }
}

/* A pair of P: the number of the item in its span, and V. */
struct near_pair {
    int32_t item;
    float v;
};

/* sums[f] += sum_e v_e b[item_e]_f for the few pairs of one anchor. */
static void add_rows(const float *b, int64_t r, const struct near_pair *pairs, int64_t count, double *restrict sums)
{
    for (int64_t c = 0; c < r; c += WIDTH) {
        const int64_t valid = min(WIDTH, r - c);
        float tile[WIDTH] = {0};
        if (valid == WIDTH) {
            vf acc[NV];
            UNROLL_FOR (int v = 0; v < NV; v++)
                acc[v] = (vf){0};
            for (int64_t e = 0; e < count; e++)
                UNROLL_FOR (int v = 0; v < NV; v++)
                    acc[v] += splat(pairs[e].v) * load(b + pairs[e].item * r + c + v * VL);
            UNROLL_FOR (int v = 0; v < NV; v++)
                store(tile + v * VL, acc[v]);
        } else {
            for (int64_t e = 0; e < count; e++)
                for (int64_t l = 0; l < valid; l++)
                    tile[l] += pairs[e].v * b[pairs[e].item * r + c + l];
        }
        for (int l = 0; l < WIDTH; l++) /* the sums have room for whole panels */
            sums[c + l] += (double)tile[l];
    }
}

INLINE double lanes_sum(const float *lane)
{
    double sum = 0;
    for (int l = 0; l < VL; l++)
        sum += (double)lane[l];
    return sum;
}

/* Sorts the pairs of n_items items by anchor; the pairs of an anchor stay in the order of the items. The pairs of
 * anchor i end at end[i], and begin where those of anchor i - 1 end. end[-1] is 0. */
static void sort_pairs(const int64_t *indptr, const int32_t *anchors, int64_t n_items, int64_t m, int32_t *end,
                       struct near_pair *pairs)
{
    memset(end - 1, 0, 4 * (m + 1));
    for (int64_t e = indptr[0]; e < indptr[n_items]; e++)
        if (anchors[e] + 1 < m)
            end[anchors[e] + 1]++;
    for (int64_t i = 1; i < m; i++)
        end[i] += end[i - 1]; /* for now this is where the pairs of anchor i begin */
    for (int64_t j = 0; j < n_items; j++)
        for (int64_t e = indptr[j]; e < indptr[j + 1]; e++)
            pairs[end[anchors[e]]++].item = (int32_t)j;
}

struct pass_scratch {
    float *t, *v, *z, *s;
    double *sums; /* [2][m][ld], or [APH_BAND][ld] */
    double *row_sums;
    float *row_bias;
    struct aph_columns columns;
    int32_t *end, *next; /* of the pairs of each anchor: where they end, and the next one */
    struct near_pair *pairs;
};

INLINE struct pass_scratch carve_pass(char **at, int64_t n_sums, int64_t r)
{
    struct pass_scratch s = {0};
    s.t = carve(at, 4 * APH_BAND * APH_TILE);
    s.v = carve(at, 4 * APH_BAND * APH_TILE);
    s.z = carve(at, 4 * APH_BAND * VL);
    s.s = carve(at, 4 * APH_BAND * VL);
    s.sums = carve(at, 8 * n_sums * panels_of(r) * WIDTH);
    s.row_sums = carve(at, 8 * APH_BAND);
    s.row_bias = carve(at, 4 * APH_BAND);
    return s;
}

INLINE struct pass_scratch carve_anchor_pass(char **at, int64_t m, int64_t r, int64_t max_pairs)
{
    struct pass_scratch s = carve_pass(at, 2 * m, r);
    s.columns.panels = carve(at, 4 * APH_TILE * r);
    s.columns.nat = carve(at, 4 * APH_TILE * panels_of(r) * WIDTH);
    s.columns.bias = carve(at, 4 * APH_TILE);
    s.end = (int32_t *)carve(at, 4 * (m + 1)) + 1;
    s.next = carve(at, 4 * m);
    s.pairs = carve(at, sizeof *s.pairs * max_pairs); /* this array is the last, so the pass need not know its size */
    return s;
}

static int64_t anchor_scratch(int64_t m, int64_t r, int64_t max_pairs)
{
    char *end = NULL;
    carve_anchor_pass(&end, m, r, max_pairs);
    return (int64_t)(intptr_t)end;
}

static int64_t item_scratch(int64_t r)
{
    char *end = NULL;
    carve_pass(&end, APH_BAND, r);
    return (int64_t)(intptr_t)end;
}

static double sign_loss(const float *b, int64_t n)
{
    double lane[8] = {0};
    int64_t k = 0;
    for (; k + 8 <= n; k += 8)
        UNROLL_FOR (int l = 0; l < 8; l++) {
            double t = (double)(fabsf(b[k + l]) - 1.0f);
            lane[l] += t * t;
        }
    for (int l = 0; k < n; k++, l++) {
        double t = (double)(fabsf(b[k]) - 1.0f);
        lane[l] += t * t;
    }
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

/* Adds the pairs of one anchor: near += V, logs += log x = -log V, vector += V b. */
static void anchor_pairs(const float *b, int64_t r, const struct near_pair *pairs, int64_t count, double *near,
                         double *logs, double *vector)
{
    double product = 1;
    for (int64_t e = 0; e < count; e++) {
        *near += (double)pairs[e].v;
        product *= (double)pairs[e].v;
        if (e % 4 == 3 || product == 0) { /* the product of four factors >= 2^-149 does not underflow */
            *logs -= log(product);
            product = 1;
        }
    }
    *logs -= log(product);
    add_rows(b, r, pairs, count, vector);
}

static void anchor_block(const struct aph_affinity *q, const float *b, int64_t n_rows, int64_t r, const float *h,
                         const float *h_bias, int64_t m, const int64_t *indptr, const int32_t *anchors, double *sums,
                         float *vectors, double *quantization_loss, void *scratch)
{
    char *at = scratch;
    const int64_t ld = panels_of(r) * WIDTH;
    const struct pass_scratch s = carve_anchor_pass(&at, m, r, 0);
    memset(sums, 0, 8 * 4 * m);
    memset(s.sums, 0, 8 * 2 * m * ld);
    *quantization_loss = 0;
    for (int64_t span = 0; span < n_rows; span += APH_SPAN) {
        const int64_t span_items = min(APH_SPAN, n_rows - span);
        sort_pairs(indptr + span, anchors, span_items, m, s.end, s.pairs);
        memcpy(s.next, s.end - 1, 4 * m);
        for (int64_t tile = 0; tile < span_items; tile += APH_TILE) {
            const int64_t count = min(APH_TILE, span_items - tile);
            const float *items = b + (span + tile) * r;
            pack_columns(items, count, r, q->scale, 0.0, &s.columns);
            *quantization_loss += sign_loss(items, count * r);
            for (int64_t first = 0; first < m; first += APH_BAND) {
                const struct band band = {h + first * r,
                                          h_bias + first,
                                          &s.columns,
                                          NULL,
                                          min(APH_BAND, m - first),
                                          panels_of(count) * WIDTH,
                                          r,
                                          s.t,
                                          s.v,
                                          s.z,
                                          s.s};
                first_product_of_power(&band, q->power);
                second_product(&band, s.sums + first * ld, ld);
                for (int64_t i = first; i < first + band.n_rows; i++) {
                    const float *v = s.v + (i - first) * APH_TILE - tile;
                    sums[i] += lanes_sum(s.z + (i - first) * VL);
                    sums[m + i] += lanes_sum(s.s + (i - first) * VL);
                    for (; s.next[i] < s.end[i] && s.pairs[s.next[i]].item < tile + count; s.next[i]++)
                        s.pairs[s.next[i]].v = v[s.pairs[s.next[i]].item];
                }
            }
        }
        for (int64_t i = 0; i < m; i++)
            anchor_pairs(b + span * r, r, s.pairs + s.end[i - 1], s.end[i] - s.end[i - 1], sums + 2 * m + i,
                         sums + 3 * m + i, s.sums + (m + i) * ld);
    }
    for (int64_t i = 0; i < 2 * m; i++)
        for (int64_t f = 0; f < r; f++)
            vectors[i * r + f] = (float)s.sums[i * ld + f];
}

/* Adds the pairs of P to T: T += p V. The rows of the band are items, and its columns the anchors first .. first +
 * n_anchors. */
static void add_pairs(const struct band *band, const int64_t *indptr, const int32_t *anchors, int64_t first,
                      int64_t n_anchors, const float *p, double *row_sums)
{
    for (int64_t i = 0; i < band->n_rows; i++)
        for (int64_t e = indptr[i]; e < indptr[i + 1]; e++) {
            const int64_t anchor = anchors[e] - first;
            if (anchor < 0 || anchor >= n_anchors)
                continue;
            const float t = p[anchors[e]] * band->v[i * APH_TILE + anchor];
            band->t[i * APH_TILE + anchor] += t;
            row_sums[i] += (double)t;
        }
}

/* Computes the gradient of one item from its sums, and writes it to out or applies one step of Adam (Kingma and Ba,
 * 2015). */
static void item_step(const struct aph_step *step, double kl, double row_sum, const double *restrict sum,
                      float *restrict b, float *restrict m1, float *restrict m2, float *restrict out, int64_t r)
{
    const float quantization = (float)step->quantization, b1 = (float)step->b1, b2 = (float)step->b2,
                eps = (float)step->eps;
    const float new1 = (float)(1 - step->b1), new2 = (float)(1 - step->b2);
    const float rate = (float)(step->lr / step->c1), c2 = (float)(1 / step->c2);
    for (int64_t f = 0; f < r; f++) {
        float g = (float)(kl * (row_sum * (double)b[f] - sum[f]));
        g += quantization * (b[f] >= 0 ? b[f] - 1.0f : b[f] + 1.0f);
        if (out) {
            out[f] = g;
            continue;
        }
        m1[f] = b1 * m1[f] + new1 * g;
        m2[f] = b2 * m2[f] + new2 * (g * g);
        b[f] -= rate * m1[f] / (sqrtf(m2[f] * c2) + eps);
    }
}

static void item_block(const struct aph_affinity *q, const struct aph_step *step, float *b, float *m1, float *m2,
                       float *out, int64_t n_rows, int64_t r, const struct aph_columns *columns, const float *weight,
                       const float *p, int64_t m, const int64_t *indptr, const int32_t *anchors, void *scratch)
{
    char *at = scratch;
    const int64_t ld = panels_of(r) * WIDTH;
    const struct pass_scratch s = carve_pass(&at, APH_BAND, r);
    const double kl = step->factor * q->power / (2 * q->scale);
    for (int64_t j = 0; j < n_rows; j += APH_BAND) {
        const int64_t count = min(APH_BAND, n_rows - j);
        bias(b + j * r, count, r, q->scale, 0.0, s.row_bias);
        memset(s.sums, 0, 8 * APH_BAND * ld);
        memset(s.row_sums, 0, 8 * APH_BAND);
        for (int64_t first = 0; first < m; first += APH_TILE) {
            const int64_t n_anchors = min(APH_TILE, m - first);
            const struct band band = {b + j * r,
                                      s.row_bias,
                                      columns + first / APH_TILE,
                                      weight + first,
                                      count,
                                      panels_of(n_anchors) * WIDTH,
                                      r,
                                      s.t,
                                      s.v,
                                      s.z,
                                      s.s};
            first_product_of_power(&band, q->power);
            for (int64_t i = 0; i < count; i++)
                s.row_sums[i] += lanes_sum(s.s + i * VL);
            add_pairs(&band, indptr + j, anchors, first, n_anchors, p, s.row_sums);
            second_product(&band, s.sums, ld);
        }
        for (int64_t i = 0; i < count; i++) {
            const int64_t o = (j + i) * r;
            item_step(step, kl, s.row_sums[i], s.sums + i * ld, b + o, m1 ? m1 + o : NULL, m2 ? m2 + o : NULL,
                      out ? out + o : NULL, r);
        }
    }
}
