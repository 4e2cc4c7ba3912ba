/* avxvnni.c: the integer products for AVX-VNNI, which brings vpdpbusd to processors without AVX-512 (Alder Lake, Sierra
 * Forest and later) and to some with it (Zen 5). Everything else is avx2.c's. */
#include "../internal.h"

#if defined(KERN_X86)

#include "avx2_int.h"

/* dot + the products of 8 rows of 4 codes with the same 4 activations. Written as assembly: compiled as an AVX2
 * function, it becomes part of the tile in avx2_int.h. */
AVX2_INLINE __m256i avxvnni_dot4(__m256i dot, __m256i code, __m256i act) {
    __asm__("%{vex%} vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+x"(dot) : "x"(code), "x"(act));
    return dot;
}

/* Codes stay unsigned; start pays for their offset before the first product. */
AVX2_INLINE void avxvnni_dot(const uint32_t layout, const int T, const uint8_t *codes, const int8_t *act, int64_t ld,
                             const int32_t *start, __m256i *dot) {
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) dot[i] = _mm256_set1_epi32(start[i / 2]);
    __m256i pair[2];
    KERN_UNROLL
    for (int j = 0; j < 8; j++) {
        __m256i code[2];
        avx2_codes(layout, T, j, codes, pair, code);
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++)
            dot[i] = avxvnni_dot4(dot[i], code[i % 2], avx2_act(layout, j, act + i / 2 * ld));
    }
}

AVX2_TARGET static void avxvnni_matmul_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                                            int64_t n, float *y, int64_t ldy) {
    avx2_matmul_int(avxvnni_dot, KERN_Q4_0, 8, 6, panels, rows, cols, act, n, y, ldy);
}

AVX2_TARGET static void avxvnni_matmul_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act,
                                            int64_t n, float *y, int64_t ldy) {
    avx2_matmul_int(avxvnni_dot, KERN_Q8_0, 128, 6, panels, rows, cols, act, n, y, ldy);
}

void kern_table_avxvnni(kern_table *table) {
    table->matmul[KERN_Q4_0] = avxvnni_matmul_q4_0;
    table->matmul[KERN_Q8_0] = avxvnni_matmul_q8_0;
    kern_table_quants256_vnni(table);
}

#endif
