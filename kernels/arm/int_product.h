/* int_product.h: matrix products with integer weights, for every level of Arm.
 *
 * A 128-bit register holds 4 rows of 4 inputs of a panel, which is what sdot multiplies with 4 activations. There are
 * two ways through a matrix.
 *
 * Few tokens go straight from the panels: codes are unpacked where they are used (neon_few).
 *
 * For many tokens a part of a panel is unpacked into the first-level cache, once, in the order in which the level's
 * micro-kernel of 4 tokens x 16 rows reads it, and multiplied with up to 64 tokens, which are put in order likewise.
 *
 * neon_int_product() walks either way, with the functions that a level brings. */
#ifndef KERN_ARM_INT_PRODUCT_H
#define KERN_ARM_INT_PRODUCT_H

#include "../internal.h"

#if defined(KERN_ARM)

#include <arm_neon.h>

/* For functions that hold a tile in registers: gcc would move loads ahead of their use, out of registers, and spill. */
#if defined(__clang__)
#define NEON_TILE
#else
#define NEON_TILE __attribute__((optimize("no-schedule-insns")))
#endif

#if defined(__clang__) && __clang_major__ < 16 /* "arch=" is not known there */
#define NEON_DOTPROD_TARGET __attribute__((target("dotprod")))
#define NEON_I8MM_TARGET    __attribute__((target("dotprod,i8mm")))
#else
#define NEON_DOTPROD_TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#define NEON_I8MM_TARGET    __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
#endif

/* ---- what a level brings ----------------------------------------------------------------------------------------- */

enum {
    NEON_FEW = 10,    /* most tokens that go straight from the panels */
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
    int64_t few_tokens; /* up to so many tokens go straight from the panels, at most NEON_FEW */
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

KERN_INLINE int64_t neon_code_bytes(const uint32_t type) {
    return type == KERN_Q4_0 ? 256 : 512;
}

/* Rows 4q..4q+3 of a block: signed codes, 8 registers of [4 rows][4 inputs]. */
KERN_INLINE void neon_signed_codes(const uint32_t type, const uint8_t *block, int q, int8x16_t *code) {
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
KERN_INLINE float32x4_t neon_scales(const uint8_t *scales, int q) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(scales + 8 * q)));
}

/* ---- few tokens: straight from a panel --------------------------------------------------------------------------- */

/* dot[T][Q] += products of 4*Q rows of a block, as it lies in a panel, and T tokens, whose codes are `stride` apart.
 * T and Q are constants, and so is the function: it is inlined. */
typedef void neon_dot(const int T, const int Q, const uint8_t *block, const int8_t *act, int64_t stride,
                      int32x4_t *dot);

/* T tokens, from t0 on, times rows 4*q0 .. 4*(q0+Q)-1 of a panel, at y. Where codes are left unsigned, the sum of the
 * activations pays for the offset, before the first product. */
KERN_INLINE void neon_few_tile(neon_dot *add_products, const uint32_t type, const int32_t offset, const int T,
                               const int q0, const int Q, const uint8_t *panel, int64_t cols, const kern_act *act,
                               int64_t t0, float *y, int64_t ldy) {
    const int64_t n_blocks = cols / KERN_BLOCK;
    const uint8_t *block = panel + 16 * q0, *scales = panel + n_blocks * neon_code_bytes(type) + 8 * q0;
    const int8_t *codes = act->codes + t0 * cols;
    const float *scale = act->scale + t0 * n_blocks;
    const int32_t *sum = act->sum + t0 * n_blocks;
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
        add_products(T, Q, block, codes, cols, dot);
        KERN_UNROLL
        for (int i = 0; i < T * Q; i++) {
            const float32x4_t s = vmulq_n_f32(neon_scales(scales, i % Q), scale[i / Q * n_blocks + b]);
            acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), s);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < T * Q; i++) vst1q_f32(y + i / Q * ldy + 4 * (q0 + i % Q), acc[i]);
}

/* neon_int_kernel.few. Four tokens at a time have registers for 8 rows only, if at all: otherwise max_tokens is 2. */
KERN_INLINE void neon_few(neon_dot *add_products, const uint32_t type, const int32_t offset, const int max_tokens,
                          const uint8_t *panel, int64_t cols, const kern_act *act, int64_t n, float *y, int64_t ldy) {
    int64_t t = 0;
    for (; t + 4 <= n && max_tokens >= 4; t += 4) {
        neon_few_tile(add_products, type, offset, 4, 0, 2, panel, cols, act, t, y + t * ldy, ldy);
        neon_few_tile(add_products, type, offset, 4, 2, 2, panel, cols, act, t, y + t * ldy, ldy);
    }
    for (; t + 2 <= n && max_tokens < 4; t += 2) {
        neon_few_tile(add_products, type, offset, 2, 0, 2, panel, cols, act, t, y + t * ldy, ldy);
        neon_few_tile(add_products, type, offset, 2, 2, 2, panel, cols, act, t, y + t * ldy, ldy);
    }
    for (; t + 2 <= n; t += 2)
        neon_few_tile(add_products, type, offset, 2, 0, 4, panel, cols, act, t, y + t * ldy, ldy);
    for (; t < n; t++) neon_few_tile(add_products, type, offset, 1, 0, 4, panel, cols, act, t, y + t * ldy, ldy);
}

/* ---- dot products with 4 activations ----------------------------------------------------------------------------- */

/* acc[row] += sum over 4 inputs of code * activation, activations of a lane of 4 of them. Written as assembly, because
 * clang before 16 declares the intrinsics only when -march flags are given. */
#define NEON_DOT_LANE(instruction, lane)                                                                               \
    __asm__(instruction " %0.4s, %1.16b, %2.4b[" #lane "]" : "+w"(acc) : "w"(code), "w"(act))

/* signed codes */
NEON_DOTPROD_TARGET KERN_INLINE int32x4_t neon_sdot(int32x4_t acc, int8x16_t code, int8x16_t act, const int lane) {
    switch (lane) {
    case 0: NEON_DOT_LANE("sdot", 0); break;
    case 1: NEON_DOT_LANE("sdot", 1); break;
    case 2: NEON_DOT_LANE("sdot", 2); break;
    default: NEON_DOT_LANE("sdot", 3); break;
    }
    return acc;
}

/* unsigned codes */
NEON_I8MM_TARGET KERN_INLINE int32x4_t neon_usdot(int32x4_t acc, uint8x16_t code, int8x16_t act, const int lane) {
    switch (lane) {
    case 0: NEON_DOT_LANE("usdot", 0); break;
    case 1: NEON_DOT_LANE("usdot", 1); break;
    case 2: NEON_DOT_LANE("usdot", 2); break;
    default: NEON_DOT_LANE("usdot", 3); break;
    }
    return acc;
}

#endif

#endif
