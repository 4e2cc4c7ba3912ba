/* neon_int.c: products with integer weights for the base instruction set of ARMv8-A (Cortex-A53, A72, ...), which
 * multiplies int8 to int16, 8 at a time. */
#include "int_product.h"

#if defined(KERN_ARM)

/* 4 activations, in every row */
KERN_INLINE int8x16_t neon_broadcast(const int8_t *four) {
    int32_t v;
    memcpy(&v, four, sizeof v);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

/* 8-bit codes: two signed ones of the same row times activations are at most 2 * 128 * 127 = 32512, which int16 holds;
 * then they are widened. sum[0]: rows 0 and 1, sum[1]: rows 2 and 3, 2 inputs each. */
KERN_INLINE void neon_add_pairs(int32x4_t *sum, int8x16_t w0, int8x16_t a0, int8x16_t w1, int8x16_t a1) {
    const int16x8_t low = vmull_s8(vget_low_s8(w0), vget_low_s8(a0)), high = vmull_high_s8(w0, a0);
    sum[0] = vpadalq_s16(sum[0], vmlal_s8(low, vget_low_s8(w1), vget_low_s8(a1)));
    sum[1] = vpadalq_s16(sum[1], vmlal_high_s8(high, w1, a1));
}

/* ---- few tokens -------------------------------------------------------------------------------------------------- */

/* 4-bit codes, unsigned: products add up in int16, where a whole block fits: 8 * 15 * 127 = 15240, twice that when
 * neighbours are joined. */
KERN_INLINE void neon_dot_q4_0(const int T, const int Q, const uint8_t *block, const int8_t *act, int64_t stride,
                               int32x4_t *dot) {
    const uint8x16_t low_bits = vdupq_n_u8(15);
    int16x8_t sum[2 * 8]; /* [T][Q][2]: rows 0 and 1, rows 2 and 3, 4 inputs each */
    KERN_UNROLL
    for (int i = 0; i < 2 * T * Q; i++) sum[i] = vdupq_n_s16(0);
    KERN_UNROLL
    for (int j = 0; j < 4; j++) {
        int8x16_t low[4], high[4];
        KERN_UNROLL
        for (int q = 0; q < Q; q++) {
            const uint8x16_t pair = vld1q_u8(block + 64 * j + 16 * q);
            low[q] = vreinterpretq_s8_u8(vandq_u8(pair, low_bits));
            high[q] = vreinterpretq_s8_u8(vshrq_n_u8(pair, 4));
        }
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            const int8x16_t a = neon_broadcast(act + t * stride + 4 * j);
            const int8x16_t b = neon_broadcast(act + t * stride + 4 * j + 16);
            KERN_UNROLL
            for (int q = 0; q < Q; q++) {
                int16x8_t *s = &sum[2 * (t * Q + q)];
                s[0] = vmlal_s8(s[0], vget_low_s8(low[q]), vget_low_s8(a));
                s[1] = vmlal_high_s8(s[1], low[q], a);
                s[0] = vmlal_s8(s[0], vget_low_s8(high[q]), vget_low_s8(b));
                s[1] = vmlal_high_s8(s[1], high[q], b);
            }
        }
    }
    KERN_UNROLL
    for (int i = 0; i < T * Q; i++) dot[i] = vpadalq_s16(dot[i], vpaddq_s16(sum[2 * i], sum[2 * i + 1]));
}

KERN_INLINE void neon_dot_q8_0(const int T, const int Q, const uint8_t *block, const int8_t *act, int64_t stride,
                               int32x4_t *dot) {
    const uint8x16_t flip = vdupq_n_u8(0x80);
    int32x4_t sum[2 * 8]; /* [T][Q][2] */
    KERN_UNROLL
    for (int i = 0; i < 2 * T * Q; i++) sum[i] = vdupq_n_s32(0);
    KERN_UNROLL
    for (int j = 0; j < 8; j += 2) {
        KERN_UNROLL
        for (int q = 0; q < Q; q++) {
            const uint8_t *p = block + 64 * j + 16 * q;
            const int8x16_t w0 = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), flip));
            const int8x16_t w1 = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p + 64), flip));
            KERN_UNROLL
            for (int t = 0; t < T; t++) {
                const int8x16_t a0 = neon_broadcast(act + t * stride + 4 * j);
                const int8x16_t a1 = neon_broadcast(act + t * stride + 4 * j + 4);
                neon_add_pairs(&sum[2 * (t * Q + q)], w0, a0, w1, a1);
            }
        }
    }
    KERN_UNROLL
    for (int i = 0; i < T * Q; i++) dot[i] = vaddq_s32(dot[i], vpaddq_s32(sum[2 * i], sum[2 * i + 1]));
}

/* ---- putting codes in order, also for sdot -------------------------------------------------------------------------
 * rows: [2 halves][8 groups of 4 inputs][8 rows][4 inputs], scale [16]; tokens: [4][32], scale [4] */

KERN_INLINE void neon_unpack(const uint32_t type, const uint8_t *codes, const uint8_t *scales, neon_rows *rows) {
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

/* Signed 4-bit codes: a block fits into int16. dot [T][2] of 4 rows. */
KERN_INLINE void neon_tile_q4_0(const int T, const int8_t *rows, const int8_t *tokens, int32x4_t *dot) {
    int16x8_t sum[2 * 8];
    KERN_UNROLL
    for (int i = 0; i < 4 * T; i++) sum[i] = vdupq_n_s16(0);
    KERN_UNROLL
    for (int j = 0; j < 8; j++) {
        const int8x16_t w0 = vld1q_s8(rows + 32 * j), w1 = vld1q_s8(rows + 32 * j + 16);
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            const int8x16_t a = neon_broadcast(tokens + KERN_BLOCK * t + 4 * j);
            sum[4 * t] = vmlal_s8(sum[4 * t], vget_low_s8(w0), vget_low_s8(a));
            sum[4 * t + 1] = vmlal_high_s8(sum[4 * t + 1], w0, a);
            sum[4 * t + 2] = vmlal_s8(sum[4 * t + 2], vget_low_s8(w1), vget_low_s8(a));
            sum[4 * t + 3] = vmlal_high_s8(sum[4 * t + 3], w1, a);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) dot[i] = vpaddlq_s16(vpaddq_s16(sum[2 * i], sum[2 * i + 1]));
}

KERN_INLINE void neon_tile_q8_0(const int T, const int8_t *rows, const int8_t *tokens, int32x4_t *dot) {
    int32x4_t sum[2 * 8];
    KERN_UNROLL
    for (int i = 0; i < 4 * T; i++) sum[i] = vdupq_n_s32(0);
    KERN_UNROLL
    for (int j = 0; j < 8; j += 2) {
        const int8x16_t w0 = vld1q_s8(rows + 32 * j), w1 = vld1q_s8(rows + 32 * j + 16);
        const int8x16_t v0 = vld1q_s8(rows + 32 * j + 32), v1 = vld1q_s8(rows + 32 * j + 48);
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            const int8x16_t a = neon_broadcast(tokens + KERN_BLOCK * t + 4 * j);
            const int8x16_t b = neon_broadcast(tokens + KERN_BLOCK * t + 4 * j + 4);
            neon_add_pairs(&sum[4 * t], w0, a, v0, b);
            neon_add_pairs(&sum[4 * t + 2], w1, a, v1, b);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) dot[i] = vpaddq_s32(sum[2 * i], sum[2 * i + 1]);
}

/* T of the tokens, from t0 on, times eight of the rows. */
KERN_INLINE void neon_part_tile(const uint32_t type, const int T, const int t0, const int half, const neon_rows *w,
                                const neon_tokens *x, int64_t n_blocks, int first, float *y, int64_t ldy) {
    float32x4_t acc[8]; /* [T][2] of 4 rows */
    y += t0 * ldy + 8 * half;
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) acc[i] = first ? vdupq_n_f32(0) : vld1q_f32(y + i / 2 * ldy + i % 2 * 4);
    for (int64_t b = 0; b < n_blocks; b++, w++, x++) {
        int32x4_t dot[8];
        if (type == KERN_Q4_0)
            neon_tile_q4_0(T, w->codes + 256 * half, x->codes + KERN_BLOCK * t0, dot);
        else
            neon_tile_q8_0(T, w->codes + 256 * half, x->codes + KERN_BLOCK * t0, dot);
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++) {
            const float32x4_t s = vmulq_n_f32(vld1q_f32(w->scale + 8 * half + i % 2 * 4), x->scale[t0 + i / 2]);
            acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), s);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) vst1q_f32(y + i / 2 * ldy + i % 2 * 4, acc[i]);
}

NEON_TILE static void neon_int_tile_q4_0(const neon_rows *w, const neon_tokens *x, int64_t n_blocks, int first,
                                         float *y, int64_t ldy) {
    neon_part_tile(KERN_Q4_0, 4, 0, 0, w, x, n_blocks, first, y, ldy);
    neon_part_tile(KERN_Q4_0, 4, 0, 1, w, x, n_blocks, first, y, ldy);
}

/* There are registers for 2 tokens only. */
NEON_TILE static void neon_int_tile_q8_0(const neon_rows *w, const neon_tokens *x, int64_t n_blocks, int first,
                                         float *y, int64_t ldy) {
    KERN_UNROLL
    for (int t0 = 0; t0 < 4; t0 += 2) {
        neon_part_tile(KERN_Q8_0, 2, t0, 0, w, x, n_blocks, first, y, ldy);
        neon_part_tile(KERN_Q8_0, 2, t0, 1, w, x, n_blocks, first, y, ldy);
    }
}

/* ---- the kernels ------------------------------------------------------------------------------------------------- */

NEON_TILE static void neon_few_q4_0(const uint8_t *panel, int64_t cols, const kern_act *act, int64_t n, float *y,
                                    int64_t ldy) {
    neon_few(neon_dot_q4_0, KERN_Q4_0, 8, 4, panel, cols, act, n, y, ldy);
}

NEON_TILE static void neon_few_q8_0(const uint8_t *panel, int64_t cols, const kern_act *act, int64_t n, float *y,
                                    int64_t ldy) {
    neon_few(neon_dot_q8_0, KERN_Q8_0, 0, 2, panel, cols, act, n, y, ldy);
}

static void neon_matmul_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                             int64_t ldy) {
    static const neon_int_kernel kernel = {KERN_Q4_0,         7, neon_few_q4_0, neon_unpack_q4_0, neon_arrange,
                                           neon_int_tile_q4_0};
    neon_int_product(&kernel, panels, rows, cols, act, n, y, ldy);
}

static void neon_matmul_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                             int64_t ldy) {
    static const neon_int_kernel kernel = {KERN_Q8_0,         7, neon_few_q8_0, neon_unpack_q8_0, neon_arrange,
                                           neon_int_tile_q8_0};
    neon_int_product(&kernel, panels, rows, cols, act, n, y, ldy);
}

void neon_table_int(kern_table *table) {
    table->matmul[KERN_Q4_0] = neon_matmul_q4_0;
    table->matmul[KERN_Q8_0] = neon_matmul_q8_0;
    kern_table_neon_quants(table);
}

#endif
