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
 * fitted to its few anchors alone; it may have D in place of V. Items are treated one at a time, and their bits one
 * after the other: a bit is flipped where that lowers the sum. The products of the bits with the matrices are kept up
 * to date, so a flip costs work for the near anchors and for one row of each matrix only.
 *
 * A query is an anchor whose p may still move while all bits are fixed. Its share of J0 is KL(P || Q) over the anchors'
 * bits, with the gradient
 *
 *     dJ0/dp = sum_j (Q(j) - P(j)) b_j
 *
 * P is over the nearest of the candidates, with the perplexity that it had in learning. Q is over all candidates, which
 * are those with the highest scores, so that little of Q is elsewhere.
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

/* Asks for the rows of the candidates ahead of i: they lie anywhere in megabytes. */
INLINE void prefetch_anchor(const struct aph_scores *m, const int64_t *candidates, int64_t i, int64_t n)
{
    enum { AHEAD = 2, LINE = 32 };
    if (i + AHEAD >= n || candidates[i + AHEAD] < 0)
        return;
    const uint16_t *a = m->anchors + candidates[i + AHEAD] * m->d;
    for (int64_t k = 0; k < m->d; k += LINE)
        __builtin_prefetch(a + k);
}

/* A key orders candidates by (distance, number): distances are not negative, so their bits are in their order. */
INLINE uint64_t key_of(float d2, uint32_t number)
{
    uint32_t bits;
    memcpy(&bits, &d2, 4);
    return (uint64_t)bits << 32 | number;
}

INLINE float distance_of(uint64_t key)
{
    const uint32_t bits = (uint32_t)(key >> 32);
    float d2;
    memcpy(&d2, &bits, 4);
    return d2;
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
        prefetch_anchor(m, candidates, i, n);
        if (candidates[i] < 0)
            continue;
        const float d2 = distance_to_anchor(m, x, x_norm, candidates[i]);
        if (d2 * OWN_SHARE > x_norm)
            order[count++] = key_of(d2, (uint32_t)candidates[i]);
    }
    if (!count)
        return 0;
    memcpy(keys, order, 8 * count);
    const uint64_t last = select_key(keys, count, min(k, count));
    for (int64_t i = 0; i < count; i++) {
        if (order[i] > last)
            continue;
        near[found] = (int32_t)(uint32_t)order[i];
        const float log_p = -0.5f * m->sharpness[near[found]] * distance_of(order[i]) - m->log_p[near[found]];
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

/* What descent on one query needs, for n candidates, k of them near; np and kp are these rounded up to whole vectors. */
struct query_scratch {
    float *b;       /* [np][ld]: the candidates' bits; 0 beyond r and beyond n */
    float *Q;       /* [np] */
    float *P;       /* [kp], over the near ones */
    float *d2;      /* [kp] */
    float *pulled;  /* [ld]: the rate times sum_j P(j) b_j */
    float *p;       /* [ld]: the weights; 0 beyond r */
    uint64_t *keys; /* [2][np] */
    int32_t *near;  /* [kp]: places in the list of candidates */
};

INLINE struct query_scratch carve_query(char **at, int64_t ld, int64_t n, int64_t k)
{
    const int64_t np = whole_vectors(n), kp = whole_vectors(k);
    struct query_scratch s;
    s.b = carve(at, 4 * np * ld);
    s.Q = carve(at, 4 * np);
    s.P = carve(at, 4 * kp);
    s.d2 = carve(at, 4 * kp);
    s.pulled = carve(at, 4 * ld);
    s.p = carve(at, 4 * ld);
    s.keys = carve(at, 16 * np);
    s.near = carve(at, 4 * kp);
    return s;
}

static int64_t query_scratch(int64_t ld, int64_t n_candidates, int64_t k)
{
    char *end = NULL;
    carve_query(&end, ld, n_candidates, min(k, n_candidates));
    return (int64_t)(intptr_t)end;
}

/* Writes the bits of a code as +1 and -1, and 0 from r to ld. */
INLINE void unpack_bits(const uint64_t *code, int64_t r, int64_t ld, float *b)
{
    vi bit;
    for (int l = 0; l < VL; l++)
        bit[l] = 1 << l;
    for (int64_t j = 0; j < ld; j += VL) {
        const vi some = ((vi){0} + (int32_t)(code[j / 64] >> (j % 64) & ((1u << VL) - 1))) & bit;
        store(b + j, (vf)(((vi)(some == 0) << 31) | (vi)splat(1.0f)));
    }
    for (int64_t j = r; j < ld; j++)
        b[j] = 0;
}

/* P[i] = exp(-beta d2[i] / 2) / sum over k distances, from which the smallest was taken, with the wanted perplexity, by
 * bisection of log beta. Where all are equally near, any beta has the largest perplexity there is. d2 is 0 beyond k. */
static void perplexity(const float *d2, int64_t k, double wanted, float *P)
{
    enum { BISECTIONS = 30 };
    const double entropy = log(wanted > 1 ? wanted : 1), padding = (double)(whole_vectors(k) - k);
    double mean = 0, low = log(1e-3), high = log(1e5), total = 1; /* low and high: of beta times the mean */
    for (int64_t i = 0; i < k; i++)
        mean += d2[i];
    mean = mean / (double)k > 1e-30 ? mean / (double)k : 1e-30;
    for (int step = 0; step <= BISECTIONS; step++) {
        const double middle = (low + high) / 2, beta = exp(middle) / mean;
        vf sum = {0}, moment = {0};
        for (int64_t i = 0; i < k; i += VL) {
            const vf d = load(d2 + i), weight = exponential(d * (float)(-beta / 2));
            sum += weight;
            moment += weight * d;
            store(P + i, weight);
        }
        total = sum_lanes(sum) - padding;
        if (log(total) + beta / 2 * sum_lanes(moment) / total > entropy)
            low = middle;
        else
            high = middle;
    }
    for (int64_t i = 0; i < k; i++)
        P[i] = (float)(P[i] / total);
}

/* The scores p.b of np candidates. */
INLINE void score_candidates(const float *b, const float *p, int64_t np, int64_t ld, float *out)
{
    for (int64_t i = 0; i < np; i += VL) {
        vf sum[VL] = {{0}};
        for (int64_t j = 0; j < ld; j += VL) {
            const vf weight = load(p + j);
            UNROLL_FOR (int l = 0; l < VL; l++)
                sum[l] += weight * load(b + (i + l) * ld + j);
        }
        transpose_square(sum);
        vf score = {0};
        for (int l = 0; l < VL; l++)
            score += sum[l];
        store(out + i, score);
    }
}

static void move_query(const struct aph_scores *m, const uint64_t *codes, const float *x, const int64_t *candidates,
                       int64_t n, int64_t k, double wanted, float rate, int steps, float *p, void *scratch)
{
    const int64_t r = m->r, ld = m->ld, words = (r + 63) / 64;
    char *at = scratch;
    const struct query_scratch s = carve_query(&at, ld, n, min(k, n));
    const float x_norm = (float)sum_squares(x, m->d);
    int64_t count = 0;
    if (!(x_norm < 1e37f)) /* so far away that float32 does not hold distances, and no anchor is near */
        return;
    for (int64_t i = 0; i < n; i++) {
        prefetch_anchor(m, candidates, i, n);
        if (candidates[i] < 0)
            continue;
        s.keys[count] = key_of(distance_to_anchor(m, x, x_norm, candidates[i]), (uint32_t)count);
        unpack_bits(codes + candidates[i] * words, r, ld, s.b + count++ * ld);
    }
    if (!count)
        return;
    const int64_t np = whole_vectors(count);
    memset(s.b + count * ld, 0, 4 * (np - count) * ld);
    k = min(k, count);
    uint64_t *order = s.keys + np;
    memcpy(order, s.keys, 8 * count);
    const uint64_t last = select_key(order, count, k);
    int64_t found = 0;
    float nearest = INFINITY;
    for (int64_t i = 0; i < count; i++) {
        if (s.keys[i] > last)
            continue;
        s.d2[found] = distance_of(s.keys[i]);
        nearest = s.d2[found] < nearest ? s.d2[found] : nearest;
        s.near[found++] = (int32_t)i;
    }
    for (int64_t i = 0; i < k; i++)
        s.d2[i] -= nearest;
    for (int64_t i = k; i < whole_vectors(k); i++)
        s.d2[i] = 0;
    perplexity(s.d2, k, wanted, s.P);
    memset(s.pulled, 0, 4 * ld);
    for (int64_t i = 0; i < k; i++)
        add_row(s.pulled, s.b + s.near[i] * ld, rate * s.P[i], ld);
    memset(s.p, 0, 4 * ld);
    memcpy(s.p, p, 4 * r);
    for (int step = 0; step < steps; step++) {
        score_candidates(s.b, s.p, np, ld, s.Q);
        float top = -INFINITY, sum = 0;
        for (int64_t i = 0; i < count; i++)
            top = s.Q[i] > top ? s.Q[i] : top;
        for (int64_t i = 0; i < np; i += VL)
            store(s.Q + i, exponential(load(s.Q + i) - top));
        for (int64_t i = 0; i < count; i++)
            sum += s.Q[i];
        for (int64_t j = 0; j < ld; j++)
            s.p[j] += s.pulled[j];
        for (int64_t i = 0; i < count; i++)
            add_row(s.p, s.b + i * ld, -rate / sum * s.Q[i], ld);
    }
    memcpy(p, s.p, 4 * r);
}
