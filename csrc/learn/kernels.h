/* The contract of the training kernels: serial functions over one block of work, one table of them per instruction set.
 *
 * Nothing here allocates, locks or keeps state. Every pointer is to C-contiguous memory; `scratch` is the caller's,
 * 64-byte aligned, of the size that the function beside it states, and holds nothing between two calls.
 * Numbers are finite. r, d, m, n are counts of bits, features, anchors, items.
 *
 * Every value of a pair (row i, column j) is one chain of multiply-adds over k in ascending order, in pieces of
 * APH_DEPTH, whose sums are added in ascending order. It depends neither on where i and j fall in a tile, nor on what
 * stands beside them.
 */
#ifndef APH_LEARN_H
#define APH_LEARN_H

#include <stdint.h>

enum aph_dtype { APH_FLOAT16 = 0, APH_FLOAT32 = 1, APH_FLOAT64 = 2 };

enum {
    APH_DEPTH = 256, /* k dimension of one multiplication: a panel of columns stays in the L1 cache */
    APH_TILE = 256,  /* most columns of a tile; a multiple of every ISA's panel width */
    APH_SCAN = 16,   /* distances looked at together */
    APH_SPAN = 1024, /* items whose pairs with the anchors are summed together; a multiple of APH_TILE */
    APH_BAND = 48,   /* rows that meet a tile together; a multiple of every ISA's row block */
};

/* Items: item j is row rows[j] of x, or row j where rows is NULL. Its working vector is
 * float32((x_j - mean) * scale), the arithmetic in float64. */
struct aph_source {
    const void *x;
    const int64_t *rows;
    const double *mean; /* d */
    double scale;
    int64_t d;
    int32_t dtype; /* enum aph_dtype; float16 as its bits */
};

/* Q: V = 1 / (1 + g/scale), w = V^power, g = |h - b|^2 / 4. */
struct aph_affinity {
    double scale;
    double power;
};

/* One Adam step; c1, c2 are the bias corrections 1 - b1^t, 1 - b2^t. */
struct aph_step {
    double factor;       /* of the KL gradient: n / m */
    double quantization; /* of (|b| - 1) sign(b) */
    double lr, b1, b2, c1, c2, eps;
};

/* The columns of a product in the two layouts that it needs, for one tile. n_panels = ceil(columns / width). */
struct aph_columns {
    float *panels; /* [APH_TILE / width][r][width]: values times -1 / (2 scale), for the first product (depth r) */
    float *nat;    /* [ceil(r / width)][APH_TILE][width]: values as they are, for the second one (depth columns) */
    float *bias;   /* [APH_TILE]; +inf in the padding, which makes V and w zero there */
};

/* What gives items their bits where queries are real (mode "scores", bits.inc.h): m anchors, r bits. */
struct aph_scores {
    const uint16_t *anchors;  /* (m, d) working vectors, bfloat16 */
    const float *norms;       /* (m) |a|^2 of these */
    const float *p;           /* (m, ld) V a, zero beyond r; ld is a multiple of 16 */
    const float *log_z;       /* (m) log sum_j exp(p . b_j) over the anchors' bits */
    const float *sharpness;   /* (m) beta: P(j | i) = exp(-beta_i |a_i - x_j|^2 / 2 - log_p_i) */
    const float *log_p;       /* (m) */
    const float *gram_d;      /* (r, r) D D^T */
    const float *gram_v;      /* (r, r) V V^T */
    const float *far;         /* (r, r) F */
    double norm, equal_norms; /* nu, lambda / nu */
    float offset, scale, rho; /* w, s, rho */
    int64_t d, r, ld;
};

struct aph_learn {
    int32_t width;         /* columns of a panel */
    int32_t register_rows; /* rows of a register block */

    /* The features from .. from + n of an item's working vector. */
    void (*working_vector)(const struct aph_source *items, int64_t item, int64_t from, int64_t n, float *out);

    /* out[i] = |a_i|^2, summed in float64. */
    void (*square_norms)(const float *a, int64_t m, int64_t d, float *out);

    /* out[i * ld + j] = max(0, |a_i|^2 + |x_j|^2 - 2 a_i.x_j) for items start + j, j < count <= APH_TILE. Whole vectors are
     * written: out has room for ceil(count / width) * width columns a row. scratch: distances_scratch() bytes. */
    void (*distances)(const struct aph_source *items, int64_t start, int64_t count, const float *a,
                      const float *a_norms, int64_t m, float *out, int64_t ld, void *scratch);
    int64_t (*distances_scratch)(void);

    /* Number of d2[j] <= bound, and their item numbers first + j in ascending order. */
    int64_t (*count_within)(const float *d2, int64_t count, float bound);
    void (*list_within)(const float *d2, int64_t count, float bound, int64_t first, int32_t *ids);

    /* The k smallest of a stream by (d2, id), as keys: bits of d2 << 32 | id. best[0 .. *n_best) and spare[0 .. *n_spare)
     * hold candidates, spare at most n_spare_max; *limit: keys at or above it are out. scratch: k + n_spare_max keys. */
    void (*topk_push)(const float *d2, int64_t count, int64_t first, int64_t k, uint64_t *best, int64_t *n_best,
                      uint64_t *spare, int64_t *n_spare, int64_t n_spare_max, uint64_t *limit, uint64_t *scratch);
    /* Ends the stream: best holds the n_best smallest in ascending order. */
    void (*topk_finish)(int64_t k, uint64_t *best, int64_t *n_best, uint64_t *spare, int64_t *n_spare,
                        uint64_t *scratch);

    /* out[e] = |anchor - x_ids[e]| of raw rows, in float64 (mean and scale of the source are not used). */
    void (*pair_distances)(const struct aph_source *items, const double *anchor, const int64_t *ids, int64_t count,
                           double *out);

    /* Packs at most APH_TILE rows (count, r) of b as the columns of a product: bias = offset + |b|^2 / (4 scale). */
    void (*pack_columns)(const float *b, int64_t count, int64_t r, double scale, double offset,
                         const struct aph_columns *out);

    /* One block of items for the anchors' sums. h_bias (m): 1 + |h|^2 / (4 scale). sums (4, m), vectors (2, m, r) and
     * quantization_loss (1) are overwritten. indptr: n_rows + 1 offsets into anchors. scratch: anchor_scratch() bytes, where
     * max_pairs is the largest number of pairs of APH_SPAN items from a multiple of APH_SPAN of the block on. */
    void (*anchor_block)(const struct aph_affinity *q, const float *b, int64_t n_rows, int64_t r, const float *h,
                         const float *h_bias, int64_t m, const int64_t *indptr, const int32_t *anchors, double *sums,
                         float *vectors, double *quantization_loss, void *scratch);
    int64_t (*anchor_scratch)(int64_t m, int64_t r, int64_t max_pairs);

    /* One block of items against all anchors, packed in tiles of APH_TILE (columns[t]); weight (tiles, APH_TILE):
     * -inv_z, 0 in the padding. Updates b, m1, m2 in place, or writes the gradient to out where out is not NULL
     * (m1, m2 may be NULL then). scratch: item_scratch() bytes. */
    void (*item_block)(const struct aph_affinity *q, const struct aph_step *step, float *b, float *m1, float *m2,
                       float *out, int64_t n_rows, int64_t r, const struct aph_columns *columns, const float *weight,
                       const float *p, int64_t m, const int64_t *indptr, const int32_t *anchors, void *scratch);
    int64_t (*item_scratch)(int64_t r);

    /* 1 / (4 scale) times |b|^2 plus offset, as the passes use it. */
    void (*bias)(const float *b, int64_t count, int64_t r, double scale, double offset, float *out);

    /* panels [ceil(r / width)][d][width] of w (d, r), one panel a call; columns beyond r are zero. */
    void (*pack_panel)(const float *w, int64_t d, int64_t r, int64_t panel, float *out);

    /* x w + bias of the working vectors of count items: to out (count, r) where it is not NULL, and as sign bits
     * (>= 0) to codes (count, ceil(r / 64)) where that is not NULL. bias (panels, width), padded. scratch:
     * project_scratch(r, count) bytes. */
    void (*project)(const struct aph_source *items, int64_t start, int64_t count, const float *panels,
                    const float *bias, int64_t r, float *out, uint64_t *codes, void *scratch);
    int64_t (*project_scratch)(int64_t r, int64_t count);

    /* Bits b (r) of +-1, changed in place, of an item with x_d = x D^T: those of equal norms. */
    void (*start_bits)(const struct aph_scores *m, const float *x_d, float *b, int sweeps, void *scratch);
    /* The k nearest to x (d) of n candidates (numbers of anchors, -1: none), without x itself, in the candidates' order,
     * with the item's share in each one's P. Returns their number. */
    int64_t (*near_anchors)(const struct aph_scores *m, const float *x, const int64_t *candidates, int64_t n, int64_t k,
                            int32_t *near, float *share, void *scratch);
    /* Bits b (r) of +-1, changed in place, of an item with x_v = x V^T and k near anchors. */
    void (*score_bits)(const struct aph_scores *m, const float *x_v, const int32_t *near, const float *share, int64_t k,
                       float *b, int sweeps, void *scratch);
    /* Bytes of scratch for each of the three. */
    int64_t (*bits_scratch)(int64_t ld, int64_t n_candidates, int64_t k);

    /* rounds x (block x width) multiply-adds that touch registers only, to measure the peak. */
    float (*multiply_add)(int64_t rounds);
};

#endif
