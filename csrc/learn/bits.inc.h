/* (D) The bits of items where queries are real numbers: mode "scores". Included by kernels.inc.h.
 *
 * p_i = V a_i are the weights of anchor i, and b in {-1, 1}^r the bits of an item. Q(j | i) = exp(p_i.b_j) / Z_i is the
 * softmax of the scores. While Z_i is held fixed, with log Z_i = z_i, the share of one item in J0 = sum_i KL(P_i ||
 * Q_i) is
 *
 *     f(b) = sum_i [ exp(p_i.b - z_i) - P(j | i) p_i.b ]
 *
 * The anchors near the item are summed one by one. exp(b F b / 2 + w) stands for the many others: it is the mean of
 * exp(p.b) for normally distributed p, fitted to a sample. A last term, rho |s x - b V|^2, keeps an item from being
 * fitted to its few anchors alone; it may have D in place of V. Items are treated one at a time, and their bits one after the other: a bit is
 * flipped where that lowers the sum. The products of the bits with the matrices are kept up to date, so a flip costs
 * work for the near anchors and for one row of each matrix only.
 */

/* e^x, as in negative_power. Beyond -87 and 87 it has the value at these ends. */
INLINE vf exponential(vf x)
{
    static const float exp_c[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                  4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    const float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    x = -V_MAX(-V_MAX(x, splat(-87.0f)), splat(-87.0f));
    const vf n = (x * 1.44269504f + 12582912.0f) -
                 12582912.0f; /* the nearest integer, since floats around 1.5 * 2^23 have no fraction */
    const vf y = (x - n * ln2_high) - n * ln2_low;
    const vf exp = (polynomial(y, exp_c, 6) * (y * y) + y) + 1.0f;
    return (vf)((vi)exp + (__builtin_convertvector(n, vi) << 23));
}

INLINE float exponential_1(float x) { return exponential(splat(x))[0]; }

INLINE float sum_lanes(vf v)
{
    for (int t = VL / 2; t; t /= 2)
        for (int l = 0; l < t; l++)
            v[l] += v[l + t];
    return v[0];
}

INLINE void add_row(float *restrict y, const float *restrict x, float a, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

/* out = b M for a symmetric M (r, r). */
static void signs_times(const float *b, const float *m, int64_t r, float *out)
{
    memset(out, 0, 4 * r);
    for (int64_t j = 0; j < r; j++)
        add_row(out, m + j * r, b[j], r);
}

/* Descends on |x - b D|^2 + lambda / nu (|b D|^2 - nu)^2. The bits then reconstruct the item, with one norm for all
 * items. */
static void start_bits(const struct aph_scores *m, const float *x_d, float *b, int sweeps, void *scratch)
{
    const int64_t r = m->r;
    const float *g = m->gram_d;
    float *s = scratch;
    double norm = 0;
    signs_times(b, g, r, s);
    for (int64_t j = 0; j < r; j++)
        norm += (double)b[j] * s[j];
    for (int sweep = 0; sweep < sweeps; sweep++) {
        int flips = 0;
        for (int64_t j = 0; j < r; j++) {
            const double longer = 4 * ((double)g[j * r + j] - (double)b[j] * s[j]); /* what a flip adds to |b D|^2 */
            if (longer + 4 * (double)b[j] * x_d[j] + m->equal_norms * longer * (2 * (norm - m->norm) + longer) >= 0)
                continue;
            add_row(s, g + j * r, -2 * b[j], r);
            norm += longer;
            b[j] = -b[j];
            flips++;
        }
        if (!flips)
            break;
    }
}

INLINE float from_bfloat16(uint16_t x)
{
    union {
        uint32_t bits;
        float value;
    } y = {(uint32_t)x << 16};
    return y.value;
}

/* |x - a|^2 of a candidate. It is added in lanes whose number does not depend on the instruction set. */
static float distance_to_anchor(const struct aph_scores *m, const float *x, float x_norm, int64_t anchor)
{
    const uint16_t *a = m->anchors + anchor * m->d;
    float lane[16] = {0};
    int64_t k = 0;
    for (; k + 16 <= m->d; k += 16)
        UNROLL_FOR (int l = 0; l < 16; l++)
            lane[l] += x[k + l] * from_bfloat16(a[k + l]);
    for (int l = 0; k < m->d; k++, l++)
        lane[l] += x[k] * from_bfloat16(a[k]);
    for (int t = 8; t; t /= 2)
        for (int l = 0; l < t; l++)
            lane[l] += lane[l + t];
    const float d2 = (x_norm + m->norms[anchor]) - 2 * lane[0];
    return d2 > 0 ? d2 : 0;
}

/* The k-th smallest of n different keys, which are reordered (Hoare 1961). */
static uint64_t select_key(uint64_t *keys, int64_t n, int64_t k)
{
    int64_t low = 0, high = n - 1;
    k--;
    while (low < high) {
        const uint64_t pivot = keys[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (keys[i] < pivot)
                i++;
            while (keys[j] > pivot)
                j--;
            if (i <= j) {
                const uint64_t t = keys[i];
                keys[i++] = keys[j];
                keys[j--] = t;
            }
        }
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            break;
    }
    return keys[k];
}

enum { OWN_SHARE = 100000 }; /* an anchor nearer than |x|^2 / OWN_SHARE is the item itself, rounded to bfloat16 */

static int64_t near_anchors(const struct aph_scores *m, const float *x, const int64_t *candidates, int64_t n, int64_t k,
                            int32_t *near, float *share, void *scratch)
{
    char *at = scratch;
    uint64_t *keys = carve(&at, 8 * n), *order = carve(&at, 8 * n);
    const float x_norm = (float)sum_squares(x, m->d);
    int64_t count = 0, found = 0;
    for (int64_t i = 0; i < n; i++) {
        if (candidates[i] < 0)
            continue;
        const float d2 = distance_to_anchor(m, x, x_norm, candidates[i]);
        uint32_t bits;
        memcpy(&bits, &d2, 4);
        if (d2 * OWN_SHARE > x_norm)
            order[count++] = (uint64_t)bits << 32 | (uint32_t)candidates[i];
    }
    if (!count)
        return 0;
    memcpy(keys, order, 8 * count);
    const uint64_t last = select_key(keys, count, min(k, count));
    for (int64_t i = 0; i < count; i++) {
        if (order[i] > last)
            continue;
        const uint32_t bits = (uint32_t)(order[i] >> 32);
        float d2;
        memcpy(&d2, &bits, 4);
        near[found] = (int32_t)(uint32_t)order[i];
        const float log_p = -0.5f * m->sharpness[near[found]] * d2 - m->log_p[near[found]];
        share[found++] = exponential_1(log_p < 0 ? log_p : 0);
    }
    return found;
}

INLINE int64_t whole_vectors(int64_t n) { return (n + VL - 1) / VL * VL; }

struct score_scratch {
    float *grown;         /* [r][whole_vectors(k)]: the factor by which exp(p.b) grows when bit j is flipped */
    float *mass;          /* [whole_vectors(k)]: exp(p.b - z) */
    float *share;         /* [whole_vectors(k)]: P */
    float *pull;          /* [r][VL]: the sum of P p */
    float *far, *rebuilt; /* b F and b V V^T */
};

INLINE struct score_scratch carve_scores(char **at, int64_t ld, int64_t k)
{
    struct score_scratch s;
    s.grown = carve(at, 4 * ld * whole_vectors(k));
    s.mass = carve(at, 4 * whole_vectors(k));
    s.share = carve(at, 4 * whole_vectors(k));
    s.pull = carve(at, 4 * ld * VL);
    s.far = carve(at, 4 * ld);
    s.rebuilt = carve(at, 4 * ld);
    return s;
}

static int64_t bits_scratch(int64_t ld, int64_t n_candidates, int64_t k)
{
    char *end = NULL;
    carve_scores(&end, ld, k);
    const int64_t scores = (int64_t)(intptr_t)end;
    return scores > 16 * n_candidates + 128 ? scores : 16 * n_candidates + 128;
}

/* Computes all that depends on the near anchors, for a square of anchors and bits at a time. */
static void load_anchors(const struct aph_scores *m, const float *b, const int32_t *near, int64_t k,
                         const struct score_scratch *s)
{
    const int64_t kp = whole_vectors(k);
    for (int64_t i = 0; i < kp; i += VL) {
        const vf share = load(s->share + i);
        vf score = {0};
        for (int64_t j = 0; j < m->ld; j += VL) {
            vf p[VL];
            for (int l = 0; l < VL; l++)
                p[l] = i + l < k ? load(m->p + near[i + l] * m->ld + j) : (vf){0};
            transpose_square(p);
            for (int l = 0; l < VL && j + l < m->r; l++) {
                score += p[l] * b[j + l];
                store(s->pull + (j + l) * VL, load(s->pull + (j + l) * VL) + share * p[l]);
                store(s->grown + (j + l) * kp + i, exponential(p[l] * (-2 * b[j + l])));
            }
        }
        for (int l = 0; l < VL; l++)
            score[l] -= i + l < k ? m->log_z[near[i + l]] : 0;
        vf mass = exponential(score);
        for (int l = 0; l < VL; l++)
            if (i + l >= k)
                mass[l] = 0;
        store(s->mass + i, mass);
    }
}

static void score_bits(const struct aph_scores *m, const float *x_v, const int32_t *near, const float *share, int64_t k,
                       float *b, int sweeps, void *scratch)
{
    const int64_t r = m->r, kp = whole_vectors(k);
    char *at = scratch;
    const struct score_scratch s = carve_scores(&at, m->ld, k);
    memset(s.pull, 0, 4 * m->ld * VL);
    memset(s.share, 0, 4 * kp);
    memcpy(s.share, share, 4 * k);
    load_anchors(m, b, near, k, &s);
    signs_times(b, m->far, r, s.far);
    signs_times(b, m->gram_v, r, s.rebuilt);
    float form = 0; /* b F b */
    for (int64_t j = 0; j < r; j++) {
        form += b[j] * s.far[j];
        s.pull[j * VL] = sum_lanes(load(s.pull + j * VL));
    }
    float others = exponential_1(form / 2 + m->offset);
    for (int sweep = 0; sweep < sweeps; sweep++) {
        int flips = 0;
        for (int64_t j = 0; j < r; j++) {
            float *grown = s.grown + j * kp;
            vf gained = {0};
            for (int64_t i = 0; i < kp; i += VL)
                gained += load(s.mass + i) * (load(grown + i) - 1.0f);
            const float more = exponential_1(2 * (m->far[j * r + j] - b[j] * s.far[j]));
            const float apart = m->gram_v[j * r + j] - b[j] * (s.rebuilt[j] - m->scale * x_v[j]);
            const float change =
                sum_lanes(gained) + 2 * b[j] * s.pull[j * VL] + others * (more - 1) + 4 * m->rho * apart;
            if (!(change < 0))
                continue;
            for (int64_t i = 0; i < kp; i += VL) {
                const vf v = load(grown + i);
                store(s.mass + i, load(s.mass + i) * v);
                store(grown + i, 1.0f / v);
            }
            add_row(s.far, m->far + j * r, -2 * b[j], r);
            add_row(s.rebuilt, m->gram_v + j * r, -2 * b[j], r);
            others *= more;
            b[j] = -b[j];
            flips++;
        }
        if (!flips)
            break;
    }
}
