"""Declarations that the kernel modules share: the training kernels in C, items, memory for threads, the size of a wave."""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint64_t

cimport numpy as cnp

from aphash._kernels cimport aph_isa, chosen_isa


cdef extern from "learn/kernels.h" nogil:
    enum:
        APH_DEPTH
        APH_TILE
        APH_SPAN
        APH_BAND
        APH_SCAN

    struct aph_source:
        const void *x
        const int64_t *rows
        const double *mean
        double scale
        int64_t d
        int32_t dtype

    struct aph_affinity:
        double scale
        double power

    struct aph_step:
        double factor, quantization, lr, b1, b2, c1, c2, eps

    struct aph_columns:
        float *panels
        float *nat
        float *bias

    struct aph_scores:
        const uint16_t *anchors
        const float *norms
        const float *p
        const float *log_z
        const float *sharpness
        const float *log_p
        const float *gram_d
        const float *gram_v
        const float *far
        double norm, equal_norms
        float offset, scale, rho
        int64_t d, r, ld

    struct aph_learn:
        int32_t width
        int32_t register_rows
        void (*working_vector)(const aph_source *, int64_t, int64_t, int64_t, float *) noexcept nogil
        void (*square_norms)(const float *, int64_t, int64_t, float *) noexcept nogil
        void (*distances)(const aph_source *, int64_t, int64_t, const float *, const float *, int64_t, float *, int64_t,
                          void *) noexcept nogil
        int64_t (*distances_scratch)() noexcept nogil
        int64_t (*count_within)(const float *, int64_t, float) noexcept nogil
        void (*list_within)(const float *, int64_t, float, int64_t, int32_t *) noexcept nogil
        void (*topk_push)(const float *, int64_t, int64_t, int64_t, uint64_t *, int64_t *, uint64_t *, int64_t *,
                             int64_t, uint64_t *, uint64_t *) noexcept nogil
        void (*topk_finish)(int64_t, uint64_t *, int64_t *, uint64_t *, int64_t *, uint64_t *) noexcept nogil
        void (*pair_distances)(const aph_source *, const double *, const int64_t *, int64_t, double *) noexcept nogil
        void (*pack_columns)(const float *, int64_t, int64_t, double, double, const aph_columns *) noexcept nogil
        void (*anchor_block)(const aph_affinity *, const float *, int64_t, int64_t, const float *, const float *,
                             int64_t, const int64_t *, const int32_t *, double *, float *, double *, void *) noexcept nogil
        int64_t (*anchor_scratch)(int64_t, int64_t, int64_t) noexcept nogil
        void (*item_block)(const aph_affinity *, const aph_step *, float *, float *, float *, float *, int64_t, int64_t,
                           const aph_columns *, const float *, const float *, int64_t, const int64_t *,
                           const int32_t *, void *) noexcept nogil
        int64_t (*item_scratch)(int64_t) noexcept nogil
        void (*bias)(const float *, int64_t, int64_t, double, double, float *) noexcept nogil
        void (*pack_panel)(const float *, int64_t, int64_t, int64_t, float *) noexcept nogil
        void (*project)(const aph_source *, int64_t, int64_t, const float *, const float *, int64_t, float *,
                        uint64_t *, void *) noexcept nogil
        int64_t (*project_scratch)(int64_t, int64_t) noexcept nogil
        void (*start_bits)(const aph_scores *, const float *, float *, int, void *) noexcept nogil
        int64_t (*near_anchors)(const aph_scores *, const float *, const int64_t *, int64_t, int64_t, int32_t *, float *,
                                void *) noexcept nogil
        void (*score_bits)(const aph_scores *, const float *, const int32_t *, const float *, int64_t, float *, int,
                           void *) noexcept nogil
        int64_t (*bits_scratch)(int64_t, int64_t, int64_t) noexcept nogil
        void (*move_query)(const aph_scores *, const uint64_t *, const float *, const int64_t *, int64_t, int64_t, double,
                           float, int, float *, void *) noexcept nogil
        int64_t (*query_scratch)(int64_t, int64_t, int64_t) noexcept nogil
        float (*multiply_add)(int64_t) noexcept nogil

cdef extern from *:
    """
    #define APH_LEARN_OF(isa) ((isa)->learn)
    """
    const aph_learn *learn_of "APH_LEARN_OF"(const aph_isa *) noexcept nogil


cdef inline const aph_learn *kernels() noexcept nogil:
    """Return the training kernels of the instruction set in use."""
    return learn_of(chosen_isa()[0])


# In a wave each thread does so many multiply-adds, which take about 50 ms with AVX2. The results of a wave wait in a
# buffer of at most so many floats (distances) or bytes (partial sums).
cdef enum:
    WAVE_WORK = 1_000_000_000
    WAVE_FLOATS = 4_000_000
    WAVE_BYTES = 64_000_000


cdef class Scratch:
    cdef cnp.ndarray memory
    cdef char *first
    cdef int64_t stride
    cdef void *at(self, int thread) noexcept nogil


cdef int dtype_of(cnp.ndarray X) noexcept


cdef class Source:
    cdef aph_source c
    cdef readonly object X
    cdef readonly object rows
    cdef readonly object mean
    cdef readonly int64_t n
    cdef int check(self, int64_t start, int64_t stop) except -1
