/* The contract of the training kernels. They are serial functions over one block of rows, and there is one table of
 * them for each instruction set.
 *
 * Nothing here allocates, locks or keeps state. Every pointer is to C-contiguous memory. `scratch` belongs to the
 * caller, is aligned to 64 bytes, has the size that the function beside it states, and holds nothing between two calls.
 * Numbers are finite. r, d, m and n are the numbers of bits, features, anchors and items.
 *
 * Every value of a pair (row i, column j) is one chain of multiply-adds over k in ascending order. The chain is cut
 * into pieces of APH_DEPTH, whose sums are added in ascending order. The value depends neither on the places of i and j
 * in a tile, nor on what stands beside them.
 */
#ifndef APH_LEARN_H
#define APH_LEARN_H

#include <stdint.h>

enum aph_dtype { APH_FLOAT16 = 0, APH_FLOAT32 = 1, APH_FLOAT64 = 2 };

enum {
    APH_DEPTH = 256, /* features of one multiplication, so that a panel of columns stays in the L1 cache */
    APH_TILE = 256,  /* the largest number of columns in a tile; a multiple of the panel width of every ISA */
    APH_SCAN = 16,   /* distances that are compared together */
    APH_SPAN = 1024, /* the items of a span, whose pairs with the anchors are summed together; a multiple of APH_TILE */
    APH_BAND = 48,   /* the rows of a band, which meet a tile together; a multiple of the register_rows of every ISA */
};

/* The items. Item j is row rows[j] of x, or row j where rows is NULL. Its working vector is float32((x_j - mean) *
 * scale), computed in float64. */
struct aph_source {
    const void *x;
    const int64_t *rows;
    const double *mean; /* d */
    double scale;
    int64_t d;
    int32_t dtype; /* enum aph_dtype; float16 numbers are read by their bits */
};

/* The affinities Q: V = 1 / (1 + g/scale), w = V^power, g = |h - b|^2 / 4. */
struct aph_affinity {
    double scale;
    double power;
};

/* One step of Adam. c1 and c2 are the bias corrections 1 - b1^t and 1 - b2^t. */
struct aph_step {
    double factor;       /* the factor of the gradient of KL: n / m */
    double quantization; /* the factor of (|b| - 1) sign(b) */
    double lr, b1, b2, c1, c2, eps;
};

/* The columns of one tile, in the two layouts that the two products need. */
struct aph_columns {
    float *panels; /* [APH_TILE / width][r][width]: values times -1 / (2 scale), for the first product (depth r) */
    float *nat;    /* [ceil(r / width)][APH_TILE][width]: values as they are, for the second one (depth columns) */
    float *bias;   /* [APH_TILE]; +inf in the padding, so that V and w are zero there */
};

/* What gives items their bits where queries are real numbers (mode "scores", bits.inc.h): m anchors, r bits. */
struct aph_scores {
    const uint16_t *anchors;  /* (m, d) working vectors, bfloat16 */
    const float *norms;       /* (m) |a|^2 of these working vectors */
    const float *p;           /* (m, ld) V a, zero beyond r; ld is a multiple of 16 */
    const float *log_z;       /* (m) log sum_j exp(p . b_j) over the anchors' bits */
    const float *sharpness;   /* (m) beta: P(j | i) = exp(-beta_i |a_i - x_j|^2 / 2 - log_p_i) */
    const float *log_p;       /* (m) */
    const float *gram_d;      /* (r, r) D D^T */
    const float *gram_v;      /* (r, r) V V^T, or D D^T where items are rebuilt by D */
    const float *far;         /* (r, r) F */
    double norm, equal_norms; /* nu, lambda / nu */
    float offset, scale, rho; /* w, s, rho */
    int64_t d, r, ld;
};

struct aph_learn {
    int32_t width;         /* the columns of a panel */
    int32_t register_rows; /* the rows of a register block */

    /* The features from .. from + n of an item's working vector. */
    void (*working_vector)(const struct aph_source *items, int64_t item, int64_t from, int64_t n, float *out);

    /* out[i] = |a_i|^2. The sum is computed in float64. */
    void (*square_norms)(const float *a, int64_t m, int64_t d, float *out);

    /* out[i * ld + j] = max(0, |a_i|^2 + |x_j|^2 - 2 a_i.x_j) for items start + j, j < count <= APH_TILE. Whole panels
     * are written, so each row of out has room for ceil(count / width) * width columns. scratch: distances_scratch()
     * bytes. */
    void (*distances)(const struct aph_source *items, int64_t start, int64_t count, const float *a,
                      const float *a_norms, int64_t m, float *out, int64_t ld, void *scratch);
    int64_t (*distances_scratch)(void);

    /* The number of d2[j] <= bound; and their item numbers first + j, in ascending order. */
    int64_t (*count_within)(const float *d2, int64_t count, float bound);
    void (*list_within)(const float *d2, int64_t count, float bound, int64_t first, int32_t *ids);

    /* The k smallest of a stream by (d2, id), as keys: the bits of d2 << 32 | id. best[0 .. *n_best) and spare[0 ..
     * *n_spare) hold candidates; spare holds n_spare_max at most. Keys that are not smaller than *limit are dropped.
     * scratch: room for 2 (k + n_spare_max + APH_SCAN) keys. */
    void (*topk_push)(const float *d2, int64_t count, int64_t first, int64_t k, uint64_t *best, int64_t *n_best,
                      uint64_t *spare, int64_t *n_spare, int64_t n_spare_max, uint64_t *limit, uint64_t *scratch);
    /* Ends the stream. best then holds the n_best smallest keys in ascending order. */
    void (*topk_finish)(int64_t k, uint64_t *best, int64_t *n_best, uint64_t *spare, int64_t *n_spare,
                        uint64_t *scratch);

    /* out[e] = |anchor - x_ids[e]| of raw rows, in float64. The mean and scale of the source are not used. */
    void (*pair_distances)(const struct aph_source *items, const double *anchor, const int64_t *ids, int64_t count,
                           double *out);

    /* Packs at most APH_TILE rows of b (count, r) as columns of a product; bias = offset + |b|^2 / (4 scale). */
    void (*pack_columns)(const float *b, int64_t count, int64_t r, double scale, double offset,
                         const struct aph_columns *out);

    /* The anchors' sums over one block of items. h_bias (m) is 1 + |h|^2 / (4 scale). sums (4, m), vectors (2, m, r)
     * and quantization_loss (1) are overwritten. indptr holds n_rows + 1 offsets into anchors. scratch:
     * anchor_scratch() bytes; max_pairs is the largest number of pairs in one span of the block. */
    void (*anchor_block)(const struct aph_affinity *q, const float *b, int64_t n_rows, int64_t r, const float *h,
                         const float *h_bias, int64_t m, const int64_t *indptr, const int32_t *anchors, double *sums,
                         float *vectors, double *quantization_loss, void *scratch);
    int64_t (*anchor_scratch)(int64_t m, int64_t r, int64_t max_pairs);

    /* One step of Adam on a block of items. columns[t] are all anchors, packed in tiles of APH_TILE. weight (tiles,
     * APH_TILE) is -inv_z, and 0 in the padding. Updates b, m1 and m2 in place; or, where out is not NULL, writes the
     * gradient to out (m1 and m2 may be NULL then). scratch: item_scratch() bytes. */
    void (*item_block)(const struct aph_affinity *q, const struct aph_step *step, float *b, float *m1, float *m2,
                       float *out, int64_t n_rows, int64_t r, const struct aph_columns *columns, const float *weight,
                       const float *p, int64_t m, const int64_t *indptr, const int32_t *anchors, void *scratch);
    int64_t (*item_scratch)(int64_t r);

    /* out[j] = offset + |b_j|^2 / (4 scale), as the passes use it. */
    void (*bias)(const float *b, int64_t count, int64_t r, double scale, double offset, float *out);

    /* Packs one panel of w (d, r) as [d][width]. Columns beyond r are zero. */
    void (*pack_panel)(const float *w, int64_t d, int64_t r, int64_t panel, float *out);

    /* Writes x w + bias of the working vectors of count items to out (count, r) where it is not NULL, and the sign bits
     * (1 where >= 0) to codes (count, ceil(r / 64)) where that is not NULL. bias (panels, width) is padded. scratch:
     * project_scratch(r, count) bytes. */
    void (*project)(const struct aph_source *items, int64_t start, int64_t count, const float *panels,
                    const float *bias, int64_t r, float *out, uint64_t *codes, void *scratch);
    int64_t (*project_scratch)(int64_t r, int64_t count);

    /* Changes the bits b (r), which are +1 and -1, of an item with x_d = x D^T towards equal norms. */
    void (*start_bits)(const struct aph_scores *m, const float *x_d, float *b, int sweeps, void *scratch);
    /* Writes the k nearest to x (d) of n candidates, without x itself, in the order of the candidates, and the share
     * that the item has in the P of each. Candidates are numbers of anchors, or -1 for none. Returns how many were
     * written. */
    int64_t (*near_anchors)(const struct aph_scores *m, const float *x, const int64_t *candidates, int64_t n, int64_t k,
                            int32_t *near, float *share, void *scratch);
    /* Changes the bits b (r) of an item with x_v = x V^T and k near anchors towards the objective of the scores. */
    void (*score_bits)(const struct aph_scores *m, const float *x_v, const int32_t *near, const float *share, int64_t k,
                       float *b, int sweeps, void *scratch);
    /* The bytes of scratch that each of these three needs. */
    int64_t (*bits_scratch)(int64_t ld, int64_t n_candidates, int64_t k);
    /* Moves the weights p (r) of a query x (d) down the gradient of its share of J0, so many steps of this rate. P is
     * over the k nearest of n candidates and has the wanted perplexity. Candidates are numbers of anchors, whose bits
     * codes (m, ceil(r / 64)) holds, or -1 for none. scratch: query_scratch() bytes. */
    void (*move_query)(const struct aph_scores *m, const uint64_t *codes, const float *x, const int64_t *candidates,
                       int64_t n, int64_t k, double wanted, float rate, int steps, float *p, void *scratch);
    int64_t (*query_scratch)(int64_t ld, int64_t n_candidates, int64_t k);

    /* Does rounds x (register_rows x width) multiply-adds in registers only, to measure the peak. */
    float (*multiply_add)(int64_t rounds);
};

#endif
