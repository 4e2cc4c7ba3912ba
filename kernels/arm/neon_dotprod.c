/* neon_dotprod.c: products with integer weights for cores with FEAT_DotProd (Cortex-A55, A76, Neoverse N1 and later):
 * sdot multiplies 4 rows by 4 inputs. Everything else is as in neon.c. */
#include "int_product.h"

#if defined(KERN_ARM)

/* ---- few tokens -------------------------------------------------------------------------------------------------- */

/* Codes stay unsigned: they are small enough to be signed, too. */
NEON_DOTPROD_TARGET KERN_INLINE void dotprod_dot_q4_0(const int T, const int Q, const uint8_t *block, const int8_t *act,
                                                      int64_t stride, int32x4_t *dot) {
    const uint8x16_t low_bits = vdupq_n_u8(15);
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
            const int8x16_t a = vld1q_s8(act + t * stride), b = vld1q_s8(act + t * stride + 16);
            KERN_UNROLL
            for (int q = 0; q < Q; q++) dot[t * Q + q] = neon_sdot(dot[t * Q + q], low[q], a, j);
            KERN_UNROLL
            for (int q = 0; q < Q; q++) dot[t * Q + q] = neon_sdot(dot[t * Q + q], high[q], b, j);
        }
    }
}

NEON_DOTPROD_TARGET KERN_INLINE void dotprod_dot_q8_0(const int T, const int Q, const uint8_t *block, const int8_t *act,
                                                      int64_t stride, int32x4_t *dot) {
    const uint8x16_t flip = vdupq_n_u8(0x80);
    KERN_UNROLL
    for (int j = 0; j < 8; j++) {
        int8x16_t code[4];
        KERN_UNROLL
        for (int q = 0; q < Q; q++) code[q] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(block + 64 * j + 16 * q), flip));
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            const int8x16_t a = vld1q_s8(act + t * stride + j / 4 * 16);
            KERN_UNROLL
            for (int q = 0; q < Q; q++) dot[t * Q + q] = neon_sdot(dot[t * Q + q], code[q], a, j % 4);
        }
    }
}

/* ---- 4 tokens x 16 rows ------------------------------------------------------------------------------------------ */

/* Eight of the rows times 4 tokens; rows and tokens are in the order of neon_int.c. */
NEON_DOTPROD_TARGET KERN_INLINE void dotprod_half_tile(const int half, const neon_rows *w, const neon_tokens *x,
                                                       int64_t n_blocks, int first, float *y, int64_t ldy) {
    float32x4_t acc[8]; /* [4 tokens][2] of 4 rows */
    KERN_UNROLL
    for (int i = 0; i < 8; i++) acc[i] = first ? vdupq_n_f32(0) : vld1q_f32(y + i / 2 * ldy + 8 * half + i % 2 * 4);
    for (int64_t b = 0; b < n_blocks; b++, w++, x++) {
        int32x4_t dot[8];
        KERN_UNROLL
        for (int i = 0; i < 8; i++) dot[i] = vdupq_n_s32(0);
        KERN_UNROLL
        for (int j = 0; j < 8; j++) {
            const int8_t *rows = w->codes + 256 * half + 32 * j;
            const int8x16_t w0 = vld1q_s8(rows), w1 = vld1q_s8(rows + 16);
            KERN_UNROLL
            for (int t = 0; t < 4; t++) {
                const int8x16_t a = vld1q_s8(x->codes + KERN_BLOCK * t + j / 4 * 16);
                dot[2 * t] = neon_sdot(dot[2 * t], w0, a, j % 4);
                dot[2 * t + 1] = neon_sdot(dot[2 * t + 1], w1, a, j % 4);
            }
        }
        KERN_UNROLL
        for (int i = 0; i < 8; i++) {
            const float32x4_t s = vmulq_n_f32(vld1q_f32(w->scale + 8 * half + i % 2 * 4), x->scale[i / 2]);
            acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), s);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 8; i++) vst1q_f32(y + i / 2 * ldy + 8 * half + i % 2 * 4, acc[i]);
}

NEON_TILE NEON_DOTPROD_TARGET static void dotprod_tile(const neon_rows *w, const neon_tokens *x, int64_t n_blocks,
                                                       int first, float *y, int64_t ldy) {
    dotprod_half_tile(0, w, x, n_blocks, first, y, ldy);
    dotprod_half_tile(1, w, x, n_blocks, first, y, ldy);
}

/* ---- the kernels ------------------------------------------------------------------------------------------------- */

/* Also the best there is for i8mm. */
NEON_TILE NEON_DOTPROD_TARGET void dotprod_few_q4_0(const uint8_t *panel, int64_t cols, const kern_act *act, int64_t n,
                                                    float *y, int64_t ldy) {
    neon_few(dotprod_dot_q4_0, KERN_Q4_0, 8, 4, panel, cols, act, n, y, ldy);
}

NEON_TILE NEON_DOTPROD_TARGET static void dotprod_few_q8_0(const uint8_t *panel, int64_t cols, const kern_act *act,
                                                           int64_t n, float *y, int64_t ldy) {
    neon_few(dotprod_dot_q8_0, KERN_Q8_0, 0, 4, panel, cols, act, n, y, ldy);
}

static void dotprod_matmul_q4_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                float *y, int64_t ldy) {
    static const neon_int_kernel kernel = {KERN_Q4_0,        10,           dotprod_few_q4_0,
                                           neon_unpack_q4_0, neon_arrange, dotprod_tile};
    neon_int_product(&kernel, panels, rows, cols, act, n, y, ldy);
}

static void dotprod_matmul_q8_0(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                float *y, int64_t ldy) {
    static const neon_int_kernel kernel = {KERN_Q8_0,        10,           dotprod_few_q8_0,
                                           neon_unpack_q8_0, neon_arrange, dotprod_tile};
    neon_int_product(&kernel, panels, rows, cols, act, n, y, ldy);
}

void kern_table_neon_dotprod(kern_table *table) {
    table->matmul[KERN_Q4_0] = dotprod_matmul_q4_0;
    table->matmul[KERN_Q8_0] = dotprod_matmul_q8_0;
    kern_table_neon_dotprod_quants(table);
    kern_table_neon_dotprod_attention(table);
}

#endif
