/* neon_int.c: products with integer weights for the base instruction set of ARMv8-A (Cortex-A53, A72, ...), which
 * multiplies int8 to int16, 8 at a time. */
#include "int_product.h"

#if defined(KERN_ARM)

/* ---- putting codes in order, also for sdot -------------------------------------------------------------------------
 * rows: [2 halves][8 groups of 4 inputs][8 rows][4 inputs], scale [16]; tokens: [4][32], scale [4] */

NEON_INLINE void neon_unpack(const uint32_t type, const uint8_t *codes, const uint8_t *scales, neon_rows *rows) {
    KERN_UNROLL
    for (int q = 0; q < 4; q++) {
        int8x16_t code[8];
        neon_signed_codes(type, codes, q, code);
        KERN_UNROLL
        for (int j = 0; j < 8; j++) vst1q_s8(rows->codes + q / 2 * 256 + 32 * j + q % 2 * 16, code[j]);
        vst1q_f32(rows->scale + 4 * q, neon_scales(scales, q));
    }
}

void neon_unpack_q4_0(const uint8_t *codes, const uint8_t *scales, neon_rows *rows) {
    neon_unpack(KERN_Q4_0, codes, scales, rows);
}

void neon_unpack_q8_0(const uint8_t *codes, const uint8_t *scales, neon_rows *rows) {
    neon_unpack(KERN_Q8_0, codes, scales, rows);
}

void neon_arrange(const int8_t *const *codes, const float *scale, neon_tokens *tokens) {
    for (int t = 0; t < 4; t++) {
        memcpy(tokens->codes + t * KERN_BLOCK, codes[t], KERN_BLOCK);
        tokens->scale[t] = scale[t];
    }
}

/* ---- 4 tokens x 16 rows ------------------------------------------------------------------------------------------ */

/* Signed 4-bit codes: a block fits into int16. dot [4 tokens][2] of 4 rows. */
NEON_INLINE void neon_tile_q4_0(const int8_t *rows, const int8_t *tokens, int32x4_t *dot) {
    int16x8_t sum[2 * 8];
    KERN_UNROLL
    for (int i = 0; i < 16; i++) sum[i] = vdupq_n_s16(0);
    KERN_UNROLL
    for (int j = 0; j < 8; j++) {
        const int8x16_t w0 = vld1q_s8(rows + 32 * j), w1 = vld1q_s8(rows + 32 * j + 16);
        KERN_UNROLL
        for (int t = 0; t < 4; t++) {
            const int8x16_t a = neon_broadcast(tokens + KERN_BLOCK * t + 4 * j);
            sum[4 * t] = vmlal_s8(sum[4 * t], vget_low_s8(w0), vget_low_s8(a));
            sum[4 * t + 1] = vmlal_high_s8(sum[4 * t + 1], w0, a);
            sum[4 * t + 2] = vmlal_s8(sum[4 * t + 2], vget_low_s8(w1), vget_low_s8(a));
            sum[4 * t + 3] = vmlal_high_s8(sum[4 * t + 3], w1, a);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 8; i++) dot[i] = vpaddlq_s16(vpaddq_s16(sum[2 * i], sum[2 * i + 1]));
}

NEON_INLINE void neon_tile_q8_0(const int8_t *rows, const int8_t *tokens, int32x4_t *dot) {
    int32x4_t sum[2 * 8];
    KERN_UNROLL
    for (int i = 0; i < 16; i++) sum[i] = vdupq_n_s32(0);
    KERN_UNROLL
    for (int j = 0; j < 8; j += 2) {
        KERN_UNROLL
        for (int q = 0; q < 2; q++) {
            const int8x16_t w0 = vld1q_s8(rows + 32 * j + 16 * q), w1 = vld1q_s8(rows + 32 * j + 32 + 16 * q);
            KERN_UNROLL
            for (int t = 0; t < 4; t++) {
                const int8x16_t a0 = neon_broadcast(tokens + KERN_BLOCK * t + 4 * j);
                const int8x16_t a1 = neon_broadcast(tokens + KERN_BLOCK * t + 4 * j + 4);
                int32x4_t *s = &sum[4 * t + 2 * q];
                s[0] = neon_long_add(s[0], vget_low_s8(w0), vget_low_s8(a0), vget_low_s8(w1), vget_low_s8(a1));
                s[1] = neon_long_add(s[1], vget_high_s8(w0), vget_high_s8(a0), vget_high_s8(w1), vget_high_s8(a1));
            }
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 8; i++) dot[i] = vpaddq_s32(sum[2 * i], sum[2 * i + 1]);
}

/* Eight of the rows. */
NEON_INLINE void neon_half_tile(const uint32_t type, const int half, const neon_rows *w, const neon_tokens *x,
                                int64_t n_blocks, int first, float *y, int64_t ldy) {
    float32x4_t acc[8];
    KERN_UNROLL
    for (int i = 0; i < 8; i++) acc[i] = first ? vdupq_n_f32(0) : vld1q_f32(y + i / 2 * ldy + 8 * half + i % 2 * 4);
    for (int64_t b = 0; b < n_blocks; b++, w++, x++) {
        int32x4_t dot[8];
        if (type == KERN_Q4_0)
            neon_tile_q4_0(w->codes + 256 * half, x->codes, dot);
        else
            neon_tile_q8_0(w->codes + 256 * half, x->codes, dot);
        KERN_UNROLL
        for (int i = 0; i < 8; i++) {
            const float32x4_t s = vmulq_n_f32(vld1q_f32(w->scale + 8 * half + i % 2 * 4), x->scale[i / 2]);
            acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), s);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 8; i++) vst1q_f32(y + i / 2 * ldy + 8 * half + i % 2 * 4, acc[i]);
}

static void neon_int_tile_q4_0(const neon_rows *w, const neon_tokens *x, int64_t n_blocks, int first, float *y,
                               int64_t ldy) {
    neon_half_tile(KERN_Q4_0, 0, w, x, n_blocks, first, y, ldy);
    neon_half_tile(KERN_Q4_0, 1, w, x, n_blocks, first, y, ldy);
}

static void neon_int_tile_q8_0(const neon_rows *w, const neon_tokens *x, int64_t n_blocks, int first, float *y,
                               int64_t ldy) {
    neon_half_tile(KERN_Q8_0, 0, w, x, n_blocks, first, y, ldy);
    neon_half_tile(KERN_Q8_0, 1, w, x, n_blocks, first, y, ldy);
}

/* ---- the kernels ------------------------------------------------------------------------------------------------- */

static void neon_few_q4_0(const uint8_t *panel, int64_t cols, const kern_act *act, int64_t n, float *y, int64_t ldy) {
    neon_few(NEON_BASE, KERN_Q4_0, panel, cols, act, n, y, ldy);
}

static void neon_few_q8_0(const uint8_t *panel, int64_t cols, const kern_act *act, int64_t n, float *y, int64_t ldy) {
    neon_few(NEON_BASE, KERN_Q8_0, panel, cols, act, n, y, ldy);
}

static void neon_matmul_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                             int64_t ldy) {
    static const neon_int_kernel kernel = {KERN_Q4_0,        NEON_FEW,     neon_few_q4_0,
                                           neon_unpack_q4_0, neon_arrange, neon_int_tile_q4_0};
    neon_int_product(&kernel, panels, rows, cols, act, n, y, ldy);
}

static void neon_matmul_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                             int64_t ldy) {
    static const neon_int_kernel kernel = {KERN_Q8_0,        NEON_FEW,     neon_few_q8_0,
                                           neon_unpack_q8_0, neon_arrange, neon_int_tile_q8_0};
    neon_int_product(&kernel, panels, rows, cols, act, n, y, ldy);
}

void neon_table_int(kern_table *table) {
    table->matmul[KERN_Q4_0] = neon_matmul_q4_0;
    table->matmul[KERN_Q8_0] = neon_matmul_q8_0;
}

#endif
