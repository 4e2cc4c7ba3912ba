/* unpack.c: the unpackers of all integer types, as functions. */
#include "../internal.h"

#if defined(KERN_X86)

#include <unistd.h>

#include "unpack256.h"

/* The values of 4-bit codes, see quants/formats.c. */
enum { UNPACK_IQ4 = 128, UNPACK_FP4 = 12 };
const uint8_t kern_iq4_unsigned[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
const uint8_t kern_fp4_unsigned[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

#define UNPACK_PLANES(NAME, LOW, HIGH, TABLE, GROUPS, SIDE)                                                            \
    UNPACK_TARGET static void unpack_##NAME(const uint8_t *panel, int64_t row_groups, int64_t first, int64_t n,        \
                                            quant_part *out) {                                                         \
        const unpack_type u = {KERN_##NAME, LOW, HIGH, TABLE, GROUPS, SIDE};                                           \
        unpack_part(u, 0, panel, row_groups, first, n, out);                                                           \
    }
UNPACK_PLANE_TYPES(UNPACK_PLANES)

#define UNPACK_BOOK(NAME)                                                                                              \
    static void unpack_##NAME(const uint8_t *panel, int64_t row_groups, int64_t first, int64_t n, quant_part *out) {   \
        quant_unpack_blocks(KERN_##NAME, panel, row_groups, first, n, out);                                            \
    }
UNPACK_BOOK_TYPES(UNPACK_BOOK)

const avx2_unpacker kern_avx2_unpackers[KERN_TYPE_END] = {
    [KERN_Q4_0] = {unpack_Q4_0, 8},
    [KERN_Q4_1] = {unpack_Q4_1, 0},
    [KERN_Q5_0] = {unpack_Q5_0, 16},
    [KERN_Q5_1] = {unpack_Q5_1, 0},
    [KERN_Q8_0] = {unpack_Q8_0, 128},
    [KERN_Q2_K] = {unpack_Q2_K, 0},
    [KERN_Q3_K] = {unpack_Q3_K, 4},
    [KERN_Q4_K] = {unpack_Q4_K, 0},
    [KERN_Q5_K] = {unpack_Q5_K, 0},
    [KERN_Q6_K] = {unpack_Q6_K, 32},
    [KERN_IQ4_NL] = {unpack_IQ4_NL, UNPACK_IQ4},
    [KERN_IQ4_XS] = {unpack_IQ4_XS, UNPACK_IQ4},
    [KERN_TQ2_0] = {unpack_TQ2_0, 1},
    [KERN_MXFP4] = {unpack_MXFP4, UNPACK_FP4},
    [KERN_NVFP4] = {unpack_NVFP4, UNPACK_FP4},
    [KERN_TQ1_0] = {unpack_TQ1_0, QUANT_BOOK_OFFSET},
    [KERN_IQ1_S] = {unpack_IQ1_S, QUANT_BOOK_OFFSET},
    [KERN_IQ1_M] = {unpack_IQ1_M, QUANT_BOOK_OFFSET},
    [KERN_IQ2_XXS] = {unpack_IQ2_XXS, QUANT_BOOK_OFFSET},
    [KERN_IQ2_XS] = {unpack_IQ2_XS, QUANT_BOOK_OFFSET},
    [KERN_IQ2_S] = {unpack_IQ2_S, QUANT_BOOK_OFFSET},
    [KERN_IQ3_XXS] = {unpack_IQ3_XXS, QUANT_BOOK_OFFSET},
    [KERN_IQ3_S] = {unpack_IQ3_S, QUANT_BOOK_OFFSET},
};

int unpack_cache_is_large(void) {
#ifdef _SC_LEVEL1_DCACHE_SIZE
    return sysconf(_SC_LEVEL1_DCACHE_SIZE) >= 48 << 10;
#else
    return 0;
#endif
}

#endif
