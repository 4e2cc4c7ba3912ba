/* int_product.h: matrix products with integer weights on Arm, for every level: NEON, dot product, 8-bit matrix
 * multiply.
 *
 * A 128-bit register holds 4 rows of 4 inputs of a panel; that is what sdot multiplies with 4 activations. There are
 * two ways through a matrix: few tokens:   straight from the panels, codes are unpacked where they are used (neon_few)
 *   many tokens:  a part of a panel is unpacked into the first-level cache once, in the order in which a micro-kernel
 * of 4 tokens x 16 rows wants it, and multiplied with up to 64 tokens, which were put in order likewise The second way
 * is neon_int_product(), the same for all levels; a level brings its three functions.
 *
 * Instructions of a level are written as assembly: clang before 16 declares their intrinsics only with -march flags,
 * and so the functions here need no target attribute, which would keep them from being shared. Only the functions
 * behind the pointers of a level carry it. */
#ifndef KERN_ARM_INT_PRODUCT_H
#define KERN_ARM_INT_PRODUCT_H

#include "../internal.h"

#if defined(KERN_ARM)

#include <arm_neon.h>

#define NEON_INLINE __attribute__((always_inline)) static inline

#if defined(__clang__) && __clang_major__ < 16 /* there, "arch=" is not known */
#define NEON_DOTPROD_TARGET __attribute__((target("dotprod")))
#define NEON_I8MM_TARGET    __attribute__((target("dotprod,i8mm")))
#else
#define NEON_DOTPROD_TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define NEON_I8MM_TARGET    __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
#endif

/* ---- what a level brings ----------------------------------------------------------------------------------------- */

enum {
    NEON_FEW = 8,     /* most tokens that go straight from the panels */
    NEON_AHEAD = 1024 /* bytes the prefetch of a decode step runs ahead */
};

/* A block of a panel, unpacked: signed codes, and scales as the level wants them. */
typedef struct neon_rows {
    int8_t codes[KERN_PANEL * KERN_BLOCK];
    float scale[2 * KERN_PANEL];
} neon_rows;

/* A block of 4 tokens. */
typedef struct neon_tokens {
    int8_t codes[4 * KERN_BLOCK];
    float scale[8];
} neon_tokens;

typedef struct neon_int_kernel {
    uint32_t type;
    int64_t few_tokens; /* up to so many tokens go straight from the panels */
    /* y[t][0..16) = a panel times n tokens */
    void (*few)(const uint8_t *panel, int64_t cols, const kern_act *act, int64_t n, float *y, int64_t ldy);
    /* one block; scales [16] f16 */
    void (*unpack)(const uint8_t *codes, const uint8_t *scales, neon_rows *rows);
    /* one block of 4 tokens: codes [4] pointers, scale [4] */
    void (*arrange)(const int8_t *const *codes, const float *scale, neon_tokens *tokens);
    /* y[0..4)[0..16) += n_blocks blocks of 4 tokens x 16 rows; with `first`, y starts at zero */
    void (*tile)(const neon_rows *rows, const neon_tokens *tokens, int64_t n_blocks, int first, float *y, int64_t ldy);
} neon_int_kernel;

/* kern_table.matmul for integer types */
void neon_int_product(const neon_int_kernel *kernel, const void *panels, int64_t rows, int64_t cols,
                      const kern_act *act, int64_t n, float *y, int64_t ldy);

/* What levels share. */
void neon_arrange(const int8_t *const *codes, const float *scale, neon_tokens *tokens);
void neon_unpack_q4_0(const uint8_t *codes, const uint8_t *scales, neon_rows *rows);
void neon_unpack_q8_0(const uint8_t *codes, const uint8_t *scales, neon_rows *rows);
void dotprod_few_q4_0(const uint8_t *panel, int64_t cols, const kern_act *act, int64_t n, float *y, int64_t ldy);
void neon_table_int(kern_table *table); /* the integer part of kern_table_neon() */

/* ---- unpacking --------------------------------------------------------------------------------------------------- */

NEON_INLINE int64_t neon_code_bytes(const uint32_t type) {
    return type == KERN_Q4_0 ? 256 : 512;
}

/* Rows 4q..4q+3 of a block: signed codes, 8 registers of [4 rows][4 inputs]. */
NEON_INLINE void neon_signed_codes(const uint32_t type, const uint8_t *block, int q, int8x16_t *code) {
    KERN_UNROLL
    for (int j = 0; j < neon_code_bytes(type) / 64; j++) {
        const uint8x16_t v = vld1q_u8(block + 64 * j + 16 * q);
        if (type == KERN_Q4_0) {
            code[j] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15))), vdupq_n_s8(8));
            code[4 + j] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(v, 4)), vdupq_n_s8(8));
        } else {
            code[j] = vreinterpretq_s8_u8(veorq_u8(v, vdupq_n_u8(0x80)));
        }
    }
}

/* 4 of the scales of a block */
NEON_INLINE float32x4_t neon_scales(const uint8_t *scales, int q) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(scales + 8 * q)));
}

/* ---- products of 4 rows by 4 inputs -------------------------------------------------------------------------------
 */

/* 4 activations, in every row */
NEON_INLINE int8x16_t neon_broadcast(const int8_t *four) {
    int32_t v;
    memcpy(&v, four, sizeof v);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

/* acc[row] += sum over 4 inputs of code * activation; the activations are those of a lane of 4. */
#define NEON_DOT_LANE(instruction, lane)                                                                               \
    __asm__(instruction " %0.4s, %1.16b, %2.4b[" #lane "]" : "+w"(acc) : "w"(code), "w"(act))

NEON_INLINE int32x4_t neon_sdot(int32x4_t acc, int8x16_t code, int8x16_t act, const int lane) {
    switch (lane) {
    case 0: NEON_DOT_LANE("sdot", 0); break;
    case 1: NEON_DOT_LANE("sdot", 1); break;
    case 2: NEON_DOT_LANE("sdot", 2); break;
    default: NEON_DOT_LANE("sdot", 3); break;
    }
    return acc;
}

/* The same with unsigned codes. */
NEON_INLINE int32x4_t neon_usdot(int32x4_t acc, uint8x16_t code, int8x16_t act, const int lane) {
    switch (lane) {
    case 0: NEON_DOT_LANE("usdot", 0); break;
    case 1: NEON_DOT_LANE("usdot", 1); break;
    case 2: NEON_DOT_LANE("usdot", 2); break;
    default: NEON_DOT_LANE("usdot", 3); break;
    }
    return acc;
}

/* ---- few tokens: straight from a panel -----------------------------------------------------------------------------
 */

/* The instructions a level may use. */
enum { NEON_BASE, NEON_DOTPROD, NEON_I8MM };

/* T tokens whose codes are `stride` apart, times rows 4*q0 .. 4*(q0+Q)-1 of a block: dot [T][Q] of 4 rows each.
 * With Q4_0, and with Q8_0 where there is usdot, the codes stay unsigned and the sum of the activations pays for the
 * offset, before the first product. */
NEON_INLINE void neon_dot_q4_0(const int T, const int Q, const uint8_t *block, const int8_t *act, int64_t stride,
                               int32x4_t *dot) {
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

NEON_INLINE void neon_dot_q8_0(const int level, const int T, const int Q, const uint8_t *block, const int8_t *act,
                               int64_t stride, int32x4_t *dot) {
    KERN_UNROLL
    for (int j = 0; j < 8; j++) {
        uint8x16_t code[4];
        KERN_UNROLL
        for (int q = 0; q < Q; q++) {
            code[q] = vld1q_u8(block + 64 * j + 16 * q);
            if (level != NEON_I8MM) code[q] = veorq_u8(code[q], vdupq_n_u8(0x80));
        }
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            const int8x16_t a = vld1q_s8(act + t * stride + j / 4 * 16);
            KERN_UNROLL
            for (int q = 0; q < Q; q++)
                dot[t * Q + q] = level == NEON_I8MM ? neon_usdot(dot[t * Q + q], code[q], a, j % 4)
                                                    : neon_sdot(dot[t * Q + q], vreinterpretq_s8_u8(code[q]), a, j % 4);
        }
    }
}

/* Without sdot. 4-bit codes: products add up in int16, where a whole block fits: 8 * 15 * 127 = 15240, twice that when
 * neighbours are joined. */
NEON_INLINE void neon_long_q4_0(const int T, const int Q, const uint8_t *block, const int8_t *act, int64_t stride,
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

/* Two signed codes of the same row times activations: at most 2 * 128 * 127 = 32512, which int16 holds; then they are
 * widened. */
NEON_INLINE int32x4_t neon_long_add(int32x4_t sum, int8x8_t w0, int8x8_t a0, int8x8_t w1, int8x8_t a1) {
    return vpadalq_s16(sum, vmlal_s8(vmull_s8(w0, a0), w1, a1));
}

NEON_INLINE void neon_long_q8_0(const int T, const int Q, const uint8_t *block, const int8_t *act, int64_t stride,
                                int32x4_t *dot) {
    const uint8x16_t flip = vdupq_n_u8(0x80);
    int32x4_t sum[2 * 8]; /* [T][Q][2]: rows 0 and 1, rows 2 and 3, 2 inputs each */
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
                int32x4_t *s = &sum[2 * (t * Q + q)];
                s[0] = neon_long_add(s[0], vget_low_s8(w0), vget_low_s8(a0), vget_low_s8(w1), vget_low_s8(a1));
                s[1] = neon_long_add(s[1], vget_high_s8(w0), vget_high_s8(a0), vget_high_s8(w1), vget_high_s8(a1));
            }
        }
    }
    KERN_UNROLL
    for (int i = 0; i < T * Q; i++) dot[i] = vpaddq_s32(sum[2 * i], sum[2 * i + 1]);
}

/* T tokens, from t0 on, times rows 4*q0 .. 4*(q0+Q)-1 of a panel, at y. */
NEON_INLINE void neon_few_tile(const int level, const uint32_t type, const int T, const int q0, const int Q,
                               const uint8_t *panel, int64_t cols, const kern_act *act, int64_t t0, float *y,
                               int64_t ldy) {
    const int64_t n_blocks = cols / KERN_BLOCK;
    const uint8_t *block = panel + 16 * q0, *scales = panel + n_blocks * neon_code_bytes(type) + 8 * q0;
    const int8_t *codes = act->codes + t0 * cols;
    const float *scale = act->scale + t0 * n_blocks;
    const int32_t *sum = act->sum + t0 * n_blocks;
    const int32_t offset = type == KERN_Q4_0 ? 8 : level == NEON_I8MM ? 128 : 0;
    float32x4_t acc[8];
    KERN_UNROLL
    for (int i = 0; i < T * Q; i++) acc[i] = vdupq_n_f32(0);

    for (int64_t b = 0; b < n_blocks; b++, block += neon_code_bytes(type), scales += 32, codes += KERN_BLOCK) {
        int32x4_t dot[8];
        if (q0 == 0) {
            KERN_UNROLL
            for (int i = 0; i < neon_code_bytes(type); i += 64) __builtin_prefetch(block + NEON_AHEAD + i);
        }
        KERN_UNROLL
        for (int i = 0; i < T * Q; i++) dot[i] = vdupq_n_s32(offset ? -offset * sum[i / Q * n_blocks + b] : 0);
        if (level == NEON_BASE && type == KERN_Q4_0)
            neon_long_q4_0(T, Q, block, codes, cols, dot);
        else if (level == NEON_BASE)
            neon_long_q8_0(T, Q, block, codes, cols, dot);
        else if (type == KERN_Q4_0)
            neon_dot_q4_0(T, Q, block, codes, cols, dot);
        else
            neon_dot_q8_0(level, T, Q, block, codes, cols, dot);
        KERN_UNROLL
        for (int i = 0; i < T * Q; i++) {
            const float32x4_t s = vmulq_n_f32(neon_scales(scales, i % Q), scale[i / Q * n_blocks + b]);
            acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), s);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < T * Q; i++) vst1q_f32(y + i / Q * ldy + 4 * (q0 + i % Q), acc[i]);
}

/* neon_int_kernel.few; 4 tokens at a time have registers for 8 rows only. */
NEON_INLINE void neon_few(const int level, const uint32_t type, const uint8_t *panel, int64_t cols, const kern_act *act,
                          int64_t n, float *y, int64_t ldy) {
    int64_t t = 0;
    for (; t + 4 <= n; t += 4) {
        neon_few_tile(level, type, 4, 0, 2, panel, cols, act, t, y + t * ldy, ldy);
        neon_few_tile(level, type, 4, 2, 2, panel, cols, act, t, y + t * ldy, ldy);
    }
    for (; t + 2 <= n; t += 2) neon_few_tile(level, type, 2, 0, 4, panel, cols, act, t, y + t * ldy, ldy);
    for (; t < n; t++) neon_few_tile(level, type, 1, 0, 4, panel, cols, act, t, y + t * ldy, ldy);
}

#endif

#endif
