/* Functions that count, transpose and list bits and bytes. Included by kernels.inc.h. */

/* One step of the transposition of a bit matrix of 8 rows: exchange the high j bits of row a with the low j bits of row
 * b. */
#define EXCHANGE(a, b, j, m)                                                                                           \
    do {                                                                                                               \
        const __typeof__(r[0]) t = ((r[a] >> (j)) ^ r[b]) & (m);                                                       \
        r[a] ^= t << (j);                                                                                              \
        r[b] ^= t;                                                                                                     \
    } while (0)
#define EXCHANGES(j4, m4, j2, m2, j1, m1)                                                                              \
    do {                                                                                                               \
        EXCHANGE(0, 4, j4, m4);                                                                                        \
        EXCHANGE(1, 5, j4, m4);                                                                                        \
        EXCHANGE(2, 6, j4, m4);                                                                                        \
        EXCHANGE(3, 7, j4, m4);                                                                                        \
        EXCHANGE(0, 2, j2, m2);                                                                                        \
        EXCHANGE(1, 3, j2, m2);                                                                                        \
        EXCHANGE(4, 6, j2, m2);                                                                                        \
        EXCHANGE(5, 7, j2, m2);                                                                                        \
        EXCHANGE(0, 1, j1, m1);                                                                                        \
        EXCHANGE(2, 3, j1, m1);                                                                                        \
        EXCHANGE(4, 5, j1, m1);                                                                                        \
        EXCHANGE(6, 7, j1, m1);                                                                                        \
    } while (0)

/* The 8 x 8 bits of a word, transposed: bit 8 i + j becomes bit 8 j + i. */
INLINE uint64_t transpose_bits(uint64_t x)
{
    uint64_t t;
    t = (x ^ (x >> 7)) & UINT64_C(0x00AA00AA00AA00AA), x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & UINT64_C(0x0000CCCC0000CCCC), x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & UINT64_C(0x00000000F0F0F0F0), x ^= t ^ (t << 28);
    return x;
}

static inline int32_t count_word(uint64_t x)
{
#if defined(__POPCNT__) || !defined(__x86_64__)
    return (int32_t)__builtin_popcountll(x);
#else /* here the compiler would call a function for the builtin */
    x -= (x >> 1) & UINT64_C(0x5555555555555555);
    x = (x & UINT64_C(0x3333333333333333)) + ((x >> 2) & UINT64_C(0x3333333333333333));
    x = (x + (x >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F);
    return (int32_t)((x * UINT64_C(0x0101010101010101)) >> 56);
#endif
}

/* The 8 x 8 bytes of each lane, transposed. */
INLINE void transpose_bytes(vec *r)
{
#ifdef ZIP
    vec pairs[8], fours[8], eights[8]; /* pairs, fours and eights of rows; [odd lanes][..] */
    for (int i = 0; i < 4; i++)
        pairs[i] = ZIP(lo, 8, r[2 * i], r[2 * i + 1]), pairs[4 + i] = ZIP(hi, 8, r[2 * i], r[2 * i + 1]);
    for (int o = 0; o < 8; o += 4)
        for (int i = 0; i < 2; i++) {
            fours[o + i] = ZIP(lo, 16, pairs[o + 2 * i], pairs[o + 2 * i + 1]);
            fours[o + 2 + i] = ZIP(hi, 16, pairs[o + 2 * i], pairs[o + 2 * i + 1]);
        }
    for (int o = 0; o < 8; o += 2) {
        eights[o] = ZIP(lo, 32, fours[o], fours[o + 1]);
        eights[o + 1] = ZIP(hi, 32, fours[o], fours[o + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[2 * i] = ZIP(lo, 64, eights[i], eights[4 + i]);
        r[2 * i + 1] = ZIP(hi, 64, eights[i], eights[4 + i]);
    }
#else
    EXCHANGES(32, UINT64_C(0x00000000FFFFFFFF), 16, UINT64_C(0x0000FFFF0000FFFF), 8, UINT64_C(0x00FF00FF00FF00FF));
#endif
}

/* List the set bits of a block. Four places are written for each word, however many bits it has set: this saves
 * branches that no CPU can predict. */
INLINE int list_bits(const uint64_t *runs, uint16_t *list)
{
    int n = 0;
    for (int run = 0; run < 8; run++) {
        uint64_t left = runs[run];
        const int here = count_word(left);
        for (int i = 0; i < 4; i++) {
            list[n + i] = (uint16_t)(run * 64 + (left ? __builtin_ctzll(left) : 0));
            left &= left - 1;
        }
        for (int i = 4; i < here; i++, left &= left - 1)
            list[n + i] = (uint16_t)(run * 64 + __builtin_ctzll(left));
        n += here;
    }
    return n;
}
