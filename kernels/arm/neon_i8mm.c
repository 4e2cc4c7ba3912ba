/* neon_i8mm.c: products with integer weights for cores with FEAT_I8MM (Neoverse V1 and N2, Cortex-A510, A710, X2 and
 * later). smmla multiplies 2 tokens x 8 inputs by 8 inputs x 2 rows: twice the products of sdot. Codes and activations
 * must lie in pairs of 8 inputs for that, which is worth it from NEON_FEW tokens on; fewer use usdot, or sdot. */
#include "int_product.h"

#if defined(KERN_ARM)

/* ---- few tokens -------------------------------------------------------------------------------------------------- */

/* Codes stay unsigned; 4-bit codes gain nothing from usdot. */
NEON_I8MM_TARGET KERN_INLINE void i8mm_dot_q8_0(const int T, const int Q, const uint8_t *block, const int8_t *act,
                                                int64_t stride, int32x4_t *dot) {
    KERN_UNROLL
    for (int j = 0; j < 8; j++) {
        uint8x16_t code[4];
        KERN_UNROLL
        for (int q = 0; q < Q; q++) code[q] = vld1q_u8(block + 64 * j + 16 * q);
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            const int8x16_t a = vld1q_s8(act + t * stride + j / 4 * 16);
            KERN_UNROLL
            for (int q = 0; q < Q; q++) dot[t * Q + q] = neon_usdot(dot[t * Q + q], code[q], a, j % 4);
        }
    }
}

/* ---- putting codes in order ----------------------------------------------------------------------------------------
 * rows:   [2 halves][4 groups of 8 inputs][4 pairs of rows][2 rows][8 inputs], scale [8 pairs][r, r+1, r, r+1]
 * tokens: [4 groups of 8 inputs][2 pairs of tokens][2 tokens][8 inputs], scale [2 pairs][t, t, t+1, t+1] */

KERN_INLINE void i8mm_unpack(const uint32_t type, const uint8_t *codes, const uint8_t *scales, neon_rows *rows) {
    KERN_UNROLL
    for (int q = 0; q < 4; q++) {
        int8x16_t code[8];
        neon_signed_codes(type, codes, q, code);
        int8_t *out = rows->codes + q / 2 * 256 + q % 2 * 32;
        KERN_UNROLL
        for (int j = 0; j < 8; j += 2) {
            const int32x4_t a = vreinterpretq_s32_s8(code[j]), b = vreinterpretq_s32_s8(code[j + 1]);
            vst1q_s8(out + 32 * j, vreinterpretq_s8_s32(vzip1q_s32(a, b)));
            vst1q_s8(out + 32 * j + 16, vreinterpretq_s8_s32(vzip2q_s32(a, b)));
        }
        const float32x4_t s = neon_scales(scales, q);
        vst1q_f32(rows->scale + 8 * q, vcombine_f32(vget_low_f32(s), vget_low_f32(s)));
        vst1q_f32(rows->scale + 8 * q + 4, vcombine_f32(vget_high_f32(s), vget_high_f32(s)));
    }
}

static void i8mm_unpack_q4_0(const uint8_t *codes, const uint8_t *scales, neon_rows *rows) {
    i8mm_unpack(KERN_Q4_0, codes, scales, rows);
}

static void i8mm_unpack_q8_0(const uint8_t *codes, const uint8_t *scales, neon_rows *rows) {
    i8mm_unpack(KERN_Q8_0, codes, scales, rows);
}

static void i8mm_arrange(const int8_t *const *codes, const float *scale, neon_tokens *tokens) {
    for (int g = 0; g < 4; g++)
        for (int t = 0; t < 4; t++) memcpy(tokens->codes + 32 * g + 8 * t, codes[t] + 8 * g, 8);
    for (int i = 0; i < 8; i++) tokens->scale[i] = scale[i / 2];
}

/* ---- 4 tokens x 16 rows ------------------------------------------------------------------------------------------ */

/* sum[2 tokens][2 rows] += tokens [2][8] * rows [2][8] */
NEON_I8MM_TARGET KERN_INLINE int32x4_t i8mm_smmla(int32x4_t sum, int8x16_t tokens, int8x16_t rows) {
    __asm__("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(tokens), "w"(rows));
    return sum;
}

KERN_INLINE float32x4_t i8mm_low_halves(float32x4_t a, float32x4_t b) {
    return vcombine_f32(vget_low_f32(a), vget_low_f32(b));
}

KERN_INLINE float32x4_t i8mm_high_halves(float32x4_t a, float32x4_t b) {
    return vcombine_f32(vget_high_f32(a), vget_high_f32(b));
}

/* Eight of the rows. A register of acc is [2 tokens][2 rows], also as float32: only y has to be put in order. */
NEON_I8MM_TARGET KERN_INLINE void i8mm_half_tile(const int half, const neon_rows *w, const neon_tokens *x,
                                                 int64_t n_blocks, int first, float *y, int64_t ldy) {
    float32x4_t acc[8]; /* [2 pairs of tokens][4 pairs of rows] */
    y += 8 * half;
    KERN_UNROLL
    for (int i = 0; i < 8; i += 2) {
        const float *y0 = y + i / 4 * 2 * ldy + i % 4 * 2, *y1 = y0 + ldy;
        const float32x4_t a = first ? vdupq_n_f32(0) : vld1q_f32(y0), b = first ? vdupq_n_f32(0) : vld1q_f32(y1);
        acc[i] = i8mm_low_halves(a, b);
        acc[i + 1] = i8mm_high_halves(a, b);
    }
    for (int64_t block = 0; block < n_blocks; block++, w++, x++) {
        int32x4_t sum[8];
        KERN_UNROLL
        for (int i = 0; i < 8; i++) sum[i] = vdupq_n_s32(0);
        KERN_UNROLL
        for (int g = 0; g < 4; g++) {
            const int8x16_t x0 = vld1q_s8(x->codes + 32 * g), x1 = vld1q_s8(x->codes + 32 * g + 16);
            KERN_UNROLL
            for (int r = 0; r < 4; r++) {
                const int8x16_t rows = vld1q_s8(w->codes + 256 * half + 64 * g + 16 * r);
                sum[r] = i8mm_smmla(sum[r], x0, rows);
                sum[4 + r] = i8mm_smmla(sum[4 + r], x1, rows);
            }
        }
        const float32x4_t s0 = vld1q_f32(x->scale), s1 = vld1q_f32(x->scale + 4);
        KERN_UNROLL
        for (int i = 0; i < 8; i++) {
            const float32x4_t s = vmulq_f32(vld1q_f32(w->scale + 16 * half + 4 * (i % 4)), i < 4 ? s0 : s1);
            acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(sum[i]), s);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 8; i += 2) {
        float *y0 = y + i / 4 * 2 * ldy + i % 4 * 2;
        vst1q_f32(y0, i8mm_low_halves(acc[i], acc[i + 1]));
        vst1q_f32(y0 + ldy, i8mm_high_halves(acc[i], acc[i + 1]));
    }
}

NEON_TILE NEON_I8MM_TARGET static void i8mm_tile(const neon_rows *w, const neon_tokens *x, int64_t n_blocks, int first,
                                                 float *y, int64_t ldy) {
    i8mm_half_tile(0, w, x, n_blocks, first, y, ldy);
    i8mm_half_tile(1, w, x, n_blocks, first, y, ldy);
}

NEON_TILE NEON_I8MM_TARGET static void i8mm_few_q8_0(const uint8_t *panel, int64_t cols, const kern_act *act, int64_t n,
                                                     float *y, int64_t ldy) {
    neon_few(i8mm_dot_q8_0, KERN_Q8_0, 128, 4, panel, cols, act, n, y, ldy);
}

/* ---- the kernels ------------------------------------------------------------------------------------------------- */

static void i8mm_matmul_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                             int64_t ldy) {
    static const neon_int_kernel kernel = {KERN_Q4_0, 6, dotprod_few_q4_0, i8mm_unpack_q4_0, i8mm_arrange, i8mm_tile};
    neon_int_product(&kernel, panels, rows, cols, act, n, y, ldy);
}

static void i8mm_matmul_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n, float *y,
                             int64_t ldy) {
    static const neon_int_kernel kernel = {KERN_Q8_0, 6, i8mm_few_q8_0, i8mm_unpack_q8_0, i8mm_arrange, i8mm_tile};
    neon_int_product(&kernel, panels, rows, cols, act, n, y, ldy);
}

void kern_table_neon_i8mm(kern_table *table) {
    table->matmul[KERN_Q4_0] = i8mm_matmul_q4_0;
    table->matmul[KERN_Q8_0] = i8mm_matmul_q8_0;
}

#endif
