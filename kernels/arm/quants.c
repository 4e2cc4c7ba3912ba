/* quants.c: products of all integer types but Q4_0 and Q8_0 for 64-bit Arm; see quants/product.h.
 *
 * Codes are unpacked as signed bytes without offset. A register holds 4 rows of 4 inputs; lanes never mix, so every
 * lane does exactly what ref does. */
#include "../quants/product.h"

#if defined(KERN_ARM)

#include "int_product.h"

/* ---- unpacking --------------------------------------------------------------------------------------------------- */

/* Register j, its rows 4q .. 4q+3, of a plane of `bits` bits, moved up by `up`. */
KERN_INLINE uint8x16_t quants_plane(const int bits, const int up, const int j, const int q, const uint8_t *plane) {
    const uint8x16_t v = vld1q_u8(plane + j % bits * 64 + 16 * q);
    const int8_t move = (int8_t)(up - bits * (j / bits));
    return vandq_u8(vshlq_u8(v, vdupq_n_s8(move)), vdupq_n_u8((uint8_t)(((1 << bits) - 1) << up)));
}

KERN_INLINE void quants_codes(const int low, const int high, const int8_t offset, const int8_t *values,
                              const uint8_t *codes, int64_t n, quant_part *out) {
    const int8x16_t table = values ? vld1q_s8(values) : vdupq_n_s8(0);
    for (int64_t g = 0; g < n; g++, codes += 64 * (low + high)) {
        KERN_UNROLL
        for (int i = 0; i < 64 * (low + high); i += 64) __builtin_prefetch(codes + NEON_AHEAD + i);
        KERN_UNROLL
        for (int i = 0; i < 32; i++) {
            const int j = i / 4, q = i % 4;
            uint8x16_t v = quants_plane(low, 0, j, q, codes);
            if (high) v = vorrq_u8(v, quants_plane(high, low, j, q, codes + 64 * low));
            const int8x16_t code = values ? vqtbl1q_s8(table, v) : vsubq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8(offset));
            vst1q_s8((int8_t *)out->code[g][j] + 16 * q, code);
        }
    }
}

/* out[16] = f16 [16] times signed bytes [16]; times -1 with `minus`. Exact. */
KERN_INLINE void quants_times(const uint8_t *f16, int8x16_t bytes, const int minus, float *out) {
    const int16x8_t half[2] = {vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)};
    KERN_UNROLL
    for (int q = 0; q < 4; q++) {
        const int32x4_t s = q % 2 ? vmovl_high_s16(half[q / 2]) : vmovl_s16(vget_low_s16(half[q / 2]));
        const float32x4_t v = vmulq_f32(neon_scales(f16, q), vcvtq_f32_s32(s));
        vst1q_f32(out + 4 * q, minus ? vnegq_f32(v) : v);
    }
}

KERN_INLINE void quants_f16(const uint8_t *f16, float *out) {
    KERN_UNROLL
    for (int q = 0; q < 4; q++) vst1q_f32(out + 4 * q, neon_scales(f16, q));
}

/* Bits shift .. shift + bits - 1 of row i of 16 bytes, moved up. */
KERN_INLINE uint8x16_t quants_bits(const uint8_t *rows, int i, int shift, int bits, int up) {
    const uint8x16_t v = vshlq_u8(vld1q_u8(rows + KERN_PANEL * i), vdupq_n_s8((int8_t)-shift));
    return vshlq_u8(vandq_u8(v, vdupq_n_u8((uint8_t)((1 << bits) - 1))), vdupq_n_s8((int8_t)up));
}

KERN_INLINE int8x16_t quants_signed(uint8x16_t a, uint8x16_t b, int8_t offset) {
    return vsubq_s8(vreinterpretq_s8_u8(vorrq_u8(a, b)), vdupq_n_s8(offset));
}

/* Group g of a part; rows: what a block of the type has besides the codes, for 16 rows; i: which group of the block.
 * The formats: quants/formats.c. */
KERN_INLINE void quants_scale(const uint32_t type, const uint8_t *rows, int i, int64_t g, quant_part *out) {
    float(*scale)[KERN_PANEL] = out->scale[g], (*min)[KERN_PANEL] = out->min[g];
    const uint8x16_t none = vdupq_n_u8(0);
    switch (type) {
    case KERN_Q4_1:
    case KERN_Q5_1: quants_f16(rows + 32, min[0]); /* fall through */
    case KERN_Q5_0:
    case KERN_IQ4_NL:
    case KERN_TQ2_0: quants_f16(rows, scale[0]); break;
    case KERN_Q4_K:
    case KERN_Q5_K: {
        const uint8_t *s = rows + 64;
        const uint8x16_t a = i < 4 ? quants_bits(s, i, 0, 6, 0)
                                   : vorrq_u8(quants_bits(s, 4 + i, 0, 4, 0), quants_bits(s, i - 4, 6, 2, 4));
        const uint8x16_t b = i < 4 ? quants_bits(s, 4 + i, 0, 6, 0)
                                   : vorrq_u8(quants_bits(s, 4 + i, 4, 4, 0), quants_bits(s, i, 6, 2, 4));
        quants_times(rows, vreinterpretq_s8_u8(a), 0, scale[0]);
        quants_times(rows + 32, vreinterpretq_s8_u8(b), 1, min[0]);
        break;
    }
    case KERN_IQ4_XS:
        quants_times(rows,
                     quants_signed(quants_bits(rows + 64, i / 2, 4 * (i % 2), 4, 0),
                                   quants_bits(rows + 32, i / 4, 2 * (i % 4), 2, 4), 32),
                     0, scale[0]);
        break;
    default:
        for (int h = 0; h < 2; h++) {
            const int k = 2 * i + h;
            if (type == KERN_Q6_K) {
                quants_times(rows, vld1q_s8((const int8_t *)rows + 32 + KERN_PANEL * k), 0, scale[h]);
            } else if (type == KERN_Q3_K) {
                quants_times(rows,
                             quants_signed(quants_bits(rows + 32, k % 8, 4 * (k / 8), 4, 0),
                                           quants_bits(rows + 32, 8 + k % 4, 2 * (k / 4), 2, 4), 32),
                             0, scale[h]);
            } else { /* Q2_K */
                quants_times(rows, quants_signed(quants_bits(rows + 64, k, 0, 4, 0), none, 0), 0, scale[h]);
                quants_times(rows + 32, quants_signed(quants_bits(rows + 64, k, 4, 4, 0), none, 0), 1, min[h]);
            }
        }
    }
}

/* n groups from `first` on; types whose planes have LOW and HIGH bits, SIDE bytes besides for each of their blocks of
 * GROUPS groups. */
#define QUANTS_UNPACK(NAME, LOW, HIGH, OFFSET, VALUES, GROUPS, SIDE)                                                   \
    static void quants_unpack_##NAME(const uint8_t *panel, int64_t row_groups, int64_t first, int64_t n,               \
                                     quant_part *out) {                                                                \
        const int64_t group_bytes = 64 * ((LOW) + (HIGH));                                                             \
        const uint8_t *rows = panel + row_groups * group_bytes + first / (GROUPS) * (SIDE)*KERN_PANEL;                 \
        quants_codes(LOW, HIGH, OFFSET, VALUES, panel + first * group_bytes, n, out);                                  \
        for (int64_t g = 0; g < n; g++)                                                                                \
            quants_scale(KERN_##NAME, rows + g / (GROUPS) * (SIDE)*KERN_PANEL, (int)(g % (GROUPS)), g, out);           \
    }
QUANTS_UNPACK(Q4_1, 4, 0, 0, NULL, 1, 4)
QUANTS_UNPACK(Q5_0, 4, 1, 16, NULL, 1, 2)
QUANTS_UNPACK(Q5_1, 4, 1, 0, NULL, 1, 4)
QUANTS_UNPACK(Q2_K, 2, 0, 0, NULL, 8, 20)
QUANTS_UNPACK(Q3_K, 2, 1, 4, NULL, 8, 14)
QUANTS_UNPACK(Q4_K, 4, 0, 0, NULL, 8, 16)
QUANTS_UNPACK(Q5_K, 4, 1, 0, NULL, 8, 16)
QUANTS_UNPACK(Q6_K, 4, 2, 32, NULL, 8, 18)
QUANTS_UNPACK(IQ4_NL, 4, 0, 0, kern_format_of(KERN_IQ4_NL)->values, 1, 2)
QUANTS_UNPACK(IQ4_XS, 4, 0, 0, kern_format_of(KERN_IQ4_XS)->values, 8, 8)
QUANTS_UNPACK(TQ2_0, 2, 0, 1, NULL, 8, 2)

/* Codes of the others get this offset (below 128, so that they are signed as well). */
#define QUANTS_BLOCKS(NAME)                                                                                            \
    static void quants_unpack_##NAME(const uint8_t *panel, int64_t row_groups, int64_t first, int64_t n,               \
                                     quant_part *out) {                                                                \
        quant_unpack_blocks(KERN_##NAME, panel, row_groups, first, n, out);                                            \
    }
QUANTS_BLOCKS(MXFP4)
QUANTS_BLOCKS(NVFP4)
QUANTS_BLOCKS(TQ1_0)
QUANTS_BLOCKS(IQ1_S)
QUANTS_BLOCKS(IQ1_M)
QUANTS_BLOCKS(IQ2_XXS)
QUANTS_BLOCKS(IQ2_XS)
QUANTS_BLOCKS(IQ2_S)
QUANTS_BLOCKS(IQ3_XXS)
QUANTS_BLOCKS(IQ3_S)

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* dot[T][2] of 4 rows each += products of the half h (16 inputs) of a group, rows 8 * half and following, and T tokens.
 */
typedef void quants_dot(const int T, const int half, const int h, const uint8_t (*code)[64], const int8_t *act,
                        int64_t stride, int32x4_t *dot);

NEON_DOTPROD_TARGET KERN_INLINE void quants_dot_sdot(const int T, const int half, const int h,
                                                     const uint8_t (*code)[64], const int8_t *act, int64_t stride,
                                                     int32x4_t *dot) {
    int8x16_t x[4];
    KERN_UNROLL
    for (int t = 0; t < T; t++) x[t] = vld1q_s8(act + t * stride + 16 * h);
    KERN_UNROLL
    for (int j = 0; j < 4; j++) {
        const int8_t *rows = (const int8_t *)code[4 * h + j] + 32 * half;
        const int8x16_t w0 = vld1q_s8(rows), w1 = vld1q_s8(rows + 16);
        KERN_UNROLL
        for (int t = 0; t < T; t++) {
            dot[2 * t] = neon_sdot(dot[2 * t], w0, x[t], j);
            dot[2 * t + 1] = neon_sdot(dot[2 * t + 1], w1, x[t], j);
        }
    }
}

/* Two products of signed bytes fit into int16: 2 * 128 * 127 = 32512. Then neighbours are widened and added. */
KERN_INLINE void quants_dot_mul(const int T, const int half, const int h, const uint8_t (*code)[64], const int8_t *act,
                                int64_t stride, int32x4_t *dot) {
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) {
        int32x4_t low = vdupq_n_s32(0), high = vdupq_n_s32(0); /* rows 0 and 1, 2 and 3; 2 inputs each */
        KERN_UNROLL
        for (int j = 4 * h; j < 4 * h + 4; j += 2) {
            const int8x16_t v = vld1q_s8((const int8_t *)code[j] + 32 * half + i % 2 * 16);
            const int8x16_t w = vld1q_s8((const int8_t *)code[j + 1] + 32 * half + i % 2 * 16);
            int32_t four[2];
            memcpy(four, act + i / 2 * stride + 4 * j, sizeof four);
            const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four[0]));
            const int8x16_t y = vreinterpretq_s8_s32(vdupq_n_s32(four[1]));
            low = vpadalq_s16(low, vmlal_s8(vmull_s8(vget_low_s8(v), vget_low_s8(x)), vget_low_s8(w), vget_low_s8(y)));
            high = vpadalq_s16(high, vmlal_high_s8(vmull_high_s8(v, x), w, y));
        }
        dot[i] = vaddq_s32(dot[i], vpaddq_s32(low, high));
    }
}

/* Tokens t0 .. t0 + T - 1 times 8 rows of panel p. */
KERN_INLINE void quants_tile(quants_dot *add_products, const int kind, const int T, quant_work *w, int p,
                             const int half, int64_t t0, const quant_tokens *s) {
    const int64_t stride = w->row_groups * KERN_BLOCK;
    const int8_t *act = w->codes + t0 * stride;
    const quant_part *part = &w->part[p];
    float32x4_t acc[8];
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) acc[i] = vld1q_f32(w->sum[t0 + i / 2][p] + 8 * half + i % 2 * 4);

    for (int64_t g = 0; g < w->n_groups; g++, act += KERN_BLOCK) {
        int32x4_t dot[8];
        KERN_UNROLL
        for (int i = 0; i < 2 * T; i++) dot[i] = vdupq_n_s32(s->start[i / 2][0][g]);
        add_products(T, half, 0, part->code[g], act, stride, dot);
        if (kind & QUANT_HALVES) {
            float32x4_t first[8];
            KERN_UNROLL
            for (int i = 0; i < 2 * T; i++) {
                first[i] = vmulq_f32(vcvtq_f32_s32(dot[i]), vld1q_f32(part->scale[g][0] + 8 * half + i % 2 * 4));
                dot[i] = vdupq_n_s32(s->start[i / 2][1][g]);
            }
            add_products(T, half, 1, part->code[g], act, stride, dot);
            KERN_UNROLL
            for (int i = 0; i < 2 * T; i++) {
                const int t = i / 2, r = 8 * half + i % 2 * 4;
                float32x4_t v = vfmaq_f32(first[i], vcvtq_f32_s32(dot[i]), vld1q_f32(part->scale[g][1] + r));
                if (kind & QUANT_MIN) {
                    v = vfmaq_n_f32(v, vld1q_f32(part->min[g][0] + r), s->weight[t][0][g]);
                    v = vfmaq_n_f32(v, vld1q_f32(part->min[g][1] + r), s->weight[t][1][g]);
                }
                acc[i] = vfmaq_n_f32(acc[i], v, s->scale[t][g]);
            }
        } else {
            add_products(T, half, 1, part->code[g], act, stride, dot);
            KERN_UNROLL
            for (int i = 0; i < 2 * T; i++) {
                const int t = i / 2, r = 8 * half + i % 2 * 4;
                const float32x4_t scale = vmulq_n_f32(vld1q_f32(part->scale[g][0] + r), s->scale[t][g]);
                acc[i] = vfmaq_f32(acc[i], vcvtq_f32_s32(dot[i]), scale);
                if (kind & QUANT_MIN) acc[i] = vfmaq_n_f32(acc[i], vld1q_f32(part->min[g][0] + r), s->weight[t][0][g]);
            }
        }
    }
    KERN_UNROLL
    for (int i = 0; i < 2 * T; i++) vst1q_f32(w->sum[t0 + i / 2][p] + 8 * half + i % 2 * 4, acc[i]);
}

KERN_INLINE void quants_multiply(quants_dot *add_products, const int kind, quant_work *w) {
    quant_tokens s;
    for (int64_t t = 0, now; t < w->n; t += now) {
        now = w->n - t >= 4 ? 4 : w->n - t >= 2 ? 2 : 1;
        quant_prepare(kind, 4, w, t, &s);
        for (int p = 0; p < QUANT_PANELS; p++) {
            if (now == 4) {
                quants_tile(add_products, kind, 4, w, p, 0, t, &s);
                quants_tile(add_products, kind, 4, w, p, 1, t, &s);
            } else if (now == 2) {
                quants_tile(add_products, kind, 2, w, p, 0, t, &s);
                quants_tile(add_products, kind, 2, w, p, 1, t, &s);
            } else {
                quants_tile(add_products, kind, 1, w, p, 0, t, &s);
                quants_tile(add_products, kind, 1, w, p, 1, t, &s);
            }
        }
    }
}

#define QUANTS_MULTIPLY(TARGET, LEVEL, DOT, NAME, KIND)                                                                \
    NEON_TILE TARGET static void quants_##LEVEL##_##NAME(quant_work *w) {                                              \
        quants_multiply(DOT, KIND, w);                                                                                 \
    }
#define QUANTS_KINDS(TARGET, LEVEL, DOT)                                                                               \
    QUANTS_MULTIPLY(TARGET, LEVEL, DOT, plain, 0)                                                                      \
    QUANTS_MULTIPLY(TARGET, LEVEL, DOT, halves, QUANT_HALVES)                                                          \
    QUANTS_MULTIPLY(TARGET, LEVEL, DOT, min, QUANT_MIN)                                                                \
    QUANTS_MULTIPLY(TARGET, LEVEL, DOT, both, QUANT_HALVES | QUANT_MIN)
QUANTS_KINDS(, mul, quants_dot_mul)
QUANTS_KINDS(NEON_DOTPROD_TARGET, sdot, quants_dot_sdot)

/* ---- the table's entries ----------------------------------------------------------------------------------------- */

static void quants_matmul(uint32_t type, quant_unpack *unpack, int sdot, const void *panels, int64_t rows, int64_t cols,
                          const kern_act *act, int64_t n, float *y, int64_t ldy) {
    static void (*const multiply[2][QUANT_KINDS])(quant_work *) = {
        {quants_mul_plain, quants_mul_halves, quants_mul_min, quants_mul_both},
        {quants_sdot_plain, quants_sdot_halves, quants_sdot_min, quants_sdot_both}};
    const kern_format *f = kern_format_of(type);
    const int in_planes = f->low.bits && type != KERN_MXFP4 && type != KERN_NVFP4;
    const quant_product p = {unpack,
                             multiply[sdot][quant_kind(type)],
                             type,
                             in_planes ? 0 : QUANT_BOOK_OFFSET,
                             QUANT_TOKENS_FEW,
                             20,
                             QUANT_GROUPS,
                             0,
                             0};
    quant_matmul(&p, panels, rows, cols, act, n, y, ldy);
}

#define QUANTS_MATMUL(TYPE)                                                                                            \
    static void quants_mul_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,      \
                                  float *y, int64_t ldy) {                                                             \
        quants_matmul(KERN_##TYPE, quants_unpack_##TYPE, 0, panels, rows, cols, act, n, y, ldy);                       \
    }                                                                                                                  \
    static void quants_sdot_##TYPE(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,     \
                                   float *y, int64_t ldy) {                                                            \
        quants_matmul(KERN_##TYPE, quants_unpack_##TYPE, 1, panels, rows, cols, act, n, y, ldy);                       \
    }
KERN_QUANT_TYPES(QUANTS_MATMUL)

void kern_table_neon_quants(kern_table *table) {
    table->panel_group = QUANT_PANELS;
#define QUANTS_MUL_ENTRY(TYPE) table->matmul[KERN_##TYPE] = quants_mul_##TYPE;
    KERN_QUANT_TYPES(QUANTS_MUL_ENTRY)
}

void kern_table_neon_dotprod_quants(kern_table *table) {
#define QUANTS_SDOT_ENTRY(TYPE) table->matmul[KERN_##TYPE] = quants_sdot_##TYPE;
    KERN_QUANT_TYPES(QUANTS_SDOT_ENTRY)
}

#endif
