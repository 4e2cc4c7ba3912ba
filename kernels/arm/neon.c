/* neon.c: the kernels for the base instruction set of ARMv8-A, which every 64-bit Arm core has. Integer products are in
 * neon_int.c.
 *
 * A register holds 4 float32: 4 panel rows, 4 keys, 4 dimensions. Lanes never mix, so every lane does exactly what ref
 * does. Nothing outside an array is read or written. */
#include "int_product.h"

#if defined(KERN_ARM)

#include <float.h>
#include <math.h>

/* The first n of 4 values; the others read as 0 and are not written. */
KERN_INLINE float32x4_t neon_load_n(const float *p, int64_t n) {
    if (n >= 4) return vld1q_f32(p);
    float32x4_t v = vdupq_n_f32(0);
    if (n > 0) v = vld1q_lane_f32(p, v, 0);
    if (n > 1) v = vld1q_lane_f32(p + 1, v, 1);
    if (n > 2) v = vld1q_lane_f32(p + 2, v, 2);
    return v;
}

KERN_INLINE void neon_store_n(float *p, int64_t n, float32x4_t v) {
    if (n >= 4) {
        vst1q_f32(p, v);
        return;
    }
    if (n > 0) vst1q_lane_f32(p, v, 0);
    if (n > 1) vst1q_lane_f32(p + 1, v, 1);
    if (n > 2) vst1q_lane_f32(p + 2, v, 2);
}

/* ---- float products ---------------------------------------------------------------------------------------------- */

KERN_INLINE int64_t neon_bytes(const uint32_t type) {
    return type == KERN_F32 ? 4 : 2;
}

/* 4 elements of a float type as float32 */
KERN_INLINE float32x4_t neon_load_4(const uint32_t type, const uint8_t *p) {
    if (type == KERN_F32) return vreinterpretq_f32_u8(vld1q_u8(p));
    const uint8x8_t half = vld1_u8(p);
    if (type == KERN_F16) return vcvt_f32_f16(vreinterpret_f16_u8(half));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(half), 16)); /* BF16 */
}

/* acc + v * (a lane of x) */
KERN_INLINE float32x4_t neon_fma_lane(float32x4_t acc, float32x4_t v, float32x4_t x, const int lane) {
    switch (lane) {
    case 0: return vfmaq_laneq_f32(acc, v, x, 0);
    case 1: return vfmaq_laneq_f32(acc, v, x, 1);
    case 2: return vfmaq_laneq_f32(acc, v, x, 2);
    default: return vfmaq_laneq_f32(acc, v, x, 3);
    }
}

/* C[r][lane] = scale * (C or 0 + sum_i A[r][i] * B[i][lane]), i ascending, one fma each: matmul, qk and pv are all
 * this. B and C are seen as vectors of 4 lanes. */
typedef struct neon_product {
    const float *a; /* [n_rows][n_i] */
    int64_t lda, n_i;
    const uint8_t *b;               /* [n_vectors / 4][n_i][4][4], strides in bytes */
    int64_t group_stride, i_stride; /* between groups of 4 vectors; those of a group are neighbours */
    float *c;                       /* [n_rows][n_vectors][4] */
    int64_t ldc;
    int64_t first, end; /* lanes of the tile that are written */
    kern_asking asking;
    float scale;
    int add; /* 1: start from C, 0: from zero */
} neon_product;

/* 8 elements of a float type of 2 bytes */
KERN_INLINE void neon_load_8(const uint32_t type, const uint8_t *p, float32x4_t *vec) {
    const uint16x8_t half = vreinterpretq_u16_u8(vld1q_u8(p));
    if (type == KERN_F16) {
        vec[0] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(half)));
        vec[1] = vcvt_high_f32_f16(vreinterpretq_f16_u16(half));
    } else {
        vec[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(half), 16));
        vec[1] = vreinterpretq_f32_u32(vshll_high_n_u16(half, 16));
    }
}

/* acc += a lane of x [NR] times the NV vectors at b */
KERN_INLINE void neon_float_step(const uint32_t type, const int NR, const int NV, const uint8_t *b,
                                 int64_t group_stride, const float32x4_t *x, const int lane, float32x4_t *acc) {
    float32x4_t vec[8];
    if (type == KERN_F32 || NV == 1) {
        KERN_UNROLL
        for (int v = 0; v < NV; v++)
            vec[v] = neon_load_4(type, b + v / 4 * group_stride + v % 4 * 4 * neon_bytes(type));
    } else {
        KERN_UNROLL
        for (int v = 0; v < NV; v += 2)
            neon_load_8(type, b + v / 4 * group_stride + v % 4 * 4 * neon_bytes(type), vec + v);
    }
    KERN_UNROLL
    for (int i = 0; i < NR * NV; i++) acc[i] = neon_fma_lane(acc[i], vec[i % NV], x[i / NV], lane);
}

/* Copies the lanes first <= lane < end of a tile [n_rows][n_lanes] to c. */
static void neon_copy_lanes(const float *tile, int64_t n_rows, int64_t n_lanes, const neon_product *g, float *c) {
    const int64_t end = g->end < n_lanes ? g->end : n_lanes;
    for (int64_t r = 0; r < n_rows; r++)
        memcpy(c + r * g->ldc + g->first, tile + r * n_lanes + g->first, (size_t)(end - g->first) * sizeof *c);
}

/* NR rows by NV vectors, held in registers while i runs. */
KERN_INLINE void neon_float_tile(const uint32_t type, const int NR, const int NV, neon_product *g, const float *a,
                                 float *c) {
    const uint8_t *b = g->b;
    const int64_t lda = g->lda, ldc = g->ldc, group_stride = g->group_stride, i_stride = g->i_stride;
    float32x4_t acc[16], x[4];
    KERN_UNROLL
    for (int i = 0; i < NR * NV; i++) acc[i] = g->add ? vld1q_f32(c + i / NV * ldc + i % NV * 4) : vdupq_n_f32(0);

    kern_asking asking = g->asking;
    int64_t i = 0;
    for (; i + 4 <= g->n_i; i += 4) {
        kern_ask(&asking, 4 * NR * NV);
        KERN_UNROLL
        for (int r = 0; r < NR; r++) x[r] = vld1q_f32(a + r * lda + i);
        KERN_UNROLL
        for (int lane = 0; lane < 4; lane++, b += i_stride)
            neon_float_step(type, NR, NV, b, group_stride, x, lane, acc);
    }
    for (; i < g->n_i; i++, b += i_stride) {
        KERN_UNROLL
        for (int r = 0; r < NR; r++) x[r] = vdupq_n_f32(a[r * lda + i]);
        neon_float_step(type, NR, NV, b, group_stride, x, 0, acc);
    }
    g->asking = asking;

    KERN_UNROLL
    for (int k = 0; k < NR * NV; k++) acc[k] = vmulq_n_f32(acc[k], g->scale);
    if (g->first == 0 && g->end >= 4 * NV) {
        KERN_UNROLL
        for (int k = 0; k < NR * NV; k++) vst1q_f32(c + k / NV * ldc + k % NV * 4, acc[k]);
    } else {
        float edge[16 * 4];
        KERN_UNROLL
        for (int k = 0; k < NR * NV; k++) vst1q_f32(edge + 4 * k, acc[k]);
        neon_copy_lanes(edge, NR, 4 * NV, g, c);
    }
}

KERN_INLINE void neon_float_rows(const uint32_t type, const int NV, neon_product *g, int64_t n_rows) {
    const float *a = g->a;
    float *c = g->c;
    if (NV <= 4)
        for (; n_rows >= 4; n_rows -= 4, a += 4 * g->lda, c += 4 * g->ldc) neon_float_tile(type, 4, NV, g, a, c);
    for (; n_rows >= 2; n_rows -= 2, a += 2 * g->lda, c += 2 * g->ldc) neon_float_tile(type, 2, NV, g, a, c);
    for (; n_rows >= 1; n_rows -= 1, a += g->lda, c += g->ldc) neon_float_tile(type, 1, NV, g, a, c);
}

/* All vectors. Few rows take more vectors at once, to hide the latency of the fma. With `whole`, B has whole groups of
 * vectors and only C is cut (a panel); otherwise lanes >= 4 and the last vector reaches back over lanes that are done:
 * it computes them again but does not write them. */
KERN_INLINE void neon_float_product(const uint32_t type, neon_product *g, int64_t n_rows, int64_t lanes,
                                    const int whole) {
    for (int64_t done = 0; done < lanes;) {
        const int64_t left = lanes - done, groups = whole ? (left + 15) / 16 : left / 16;
        const int nv = groups >= 2 && n_rows <= 2 ? 8 : groups >= 1 ? 4 : 1;
        const int64_t back = nv == 1 && left < 4 ? 4 - left : 0;
        g->first = back;
        g->end = back + left;
        g->b -= back * neon_bytes(type);
        g->c -= back;
        if (nv == 8)
            neon_float_rows(type, 8, g, n_rows);
        else if (nv == 4)
            neon_float_rows(type, 4, g, n_rows);
        else
            neon_float_rows(type, 1, g, n_rows);
        g->b += nv == 1 ? 4 * neon_bytes(type) : nv / 4 * g->group_stride;
        g->c += nv * 4;
        done += nv * 4 - back;
    }
}

KERN_INLINE void neon_matmul_float(const uint32_t type, const void *panels, int64_t rows, int64_t cols,
                                   const kern_act *act, int64_t n, float *y, int64_t ldy) {
    const int64_t bytes = neon_bytes(type);
    neon_product g = {.a = act->x,
                      .lda = cols,
                      .n_i = cols,
                      .b = panels,
                      .group_stride = KERN_PANEL * bytes * cols,
                      .i_stride = KERN_PANEL * bytes,
                      .c = y,
                      .ldc = ldy,
                      .asking = kern_asking_begin(NULL, 1),
                      .scale = 1.0f};
    neon_float_product(type, &g, n, rows, 1);
}

NEON_TILE static void neon_matmul_f32(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                      float *y, int64_t ldy) {
    neon_matmul_float(KERN_F32, panels, rows, cols, act, n, y, ldy);
}

NEON_TILE static void neon_matmul_f16(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                      float *y, int64_t ldy) {
    neon_matmul_float(KERN_F16, panels, rows, cols, act, n, y, ldy);
}

NEON_TILE static void neon_matmul_bf16(const void *panels, int64_t rows, int64_t cols, const kern_act *act, int64_t n,
                                       float *y, int64_t ldy) {
    neon_matmul_float(KERN_BF16, panels, rows, cols, act, n, y, ldy);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

KERN_INLINE float neon_load_one(const uint32_t type, const uint8_t *p) {
    return type == KERN_F32 ? kern_load_f32(p) : kern_f16_to_f32(kern_load_u16(p));
}

/* qk and pv: fewer than 4 lanes go one by one. */
KERN_INLINE void neon_attend(const uint32_t type, neon_product *g, int64_t n_rows, int64_t lanes) {
    g->group_stride = 16 * neon_bytes(type);
    if (lanes >= 4) {
        neon_float_product(type, g, n_rows, lanes, 0);
        return;
    }
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t l = 0; l < lanes; l++) {
            const uint8_t *b = g->b + l * neon_bytes(type);
            float acc = g->add ? g->c[r * g->ldc + l] : 0.0f;
            for (int64_t i = 0; i < g->n_i; i++)
                acc = fmaf(g->a[r * g->lda + i], neon_load_one(type, b + i * g->i_stride), acc);
            g->c[r * g->ldc + l] = g->scale * acc;
        }
}

KERN_INLINE void neon_qk(const uint32_t type, const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk,
                         int64_t n_keys, int64_t head_dim, float scale, float *s, int64_t lds,
                         const kern_ahead *ahead) {
    neon_product g = {.a = q,
                      .lda = ldq,
                      .n_i = head_dim,
                      .b = k,
                      .i_stride = ldk * neon_bytes(type),
                      .c = s,
                      .ldc = lds,
                      .asking = kern_asking_begin(ahead, head_dim * n_q * ((n_keys + 3) / 4)),
                      .scale = scale};
    neon_attend(type, &g, n_q, n_keys);
}

KERN_INLINE void neon_pv(const uint32_t type, const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys,
                         int64_t head_dim, float *o, int64_t ldo, const kern_ahead *ahead) {
    neon_product g = {.a = p,
                      .lda = ldp,
                      .n_i = n_keys,
                      .b = v,
                      .i_stride = head_dim * neon_bytes(type),
                      .c = o,
                      .ldc = ldo,
                      .asking = kern_asking_begin(ahead, n_keys * n_q * ((head_dim + 3) / 4)),
                      .scale = 1.0f,
                      .add = 1};
    neon_attend(type, &g, n_q, head_dim);
}

NEON_TILE static void neon_qk_f16(const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk, int64_t n_keys,
                                  int64_t head_dim, float scale, float *s, int64_t lds, const kern_ahead *ahead) {
    neon_qk(KERN_F16, q, ldq, n_q, k, ldk, n_keys, head_dim, scale, s, lds, ahead);
}

NEON_TILE static void neon_qk_f32(const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk, int64_t n_keys,
                                  int64_t head_dim, float scale, float *s, int64_t lds, const kern_ahead *ahead) {
    neon_qk(KERN_F32, q, ldq, n_q, k, ldk, n_keys, head_dim, scale, s, lds, ahead);
}

NEON_TILE static void neon_pv_f16(const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys,
                                  int64_t head_dim, float *o, int64_t ldo, const kern_ahead *ahead) {
    neon_pv(KERN_F16, p, ldp, n_q, v, n_keys, head_dim, o, ldo, ahead);
}

NEON_TILE static void neon_pv_f32(const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys,
                                  int64_t head_dim, float *o, int64_t ldo, const kern_ahead *ahead) {
    neon_pv(KERN_F32, p, ldp, n_q, v, n_keys, head_dim, o, ldo, ahead);
}

/* kern_expf() of 4 values */
KERN_INLINE float32x4_t neon_exp(float32x4_t x) {
    const float32x4_t round = vdupq_n_f32(KERN_EXP_ROUND);
    const float32x4_t rounded = vfmaq_f32(round, x, vdupq_n_f32(KERN_EXP_LOG2E));
    const float32x4_t n = vsubq_f32(rounded, round);
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(KERN_EXP_LN2HI));
    r = vfmsq_f32(r, n, vdupq_n_f32(KERN_EXP_LN2LO));

    float32x4_t p = vdupq_n_f32(KERN_EXP_C6);
    p = vfmaq_f32(vdupq_n_f32(KERN_EXP_C5), p, r);
    p = vfmaq_f32(vdupq_n_f32(KERN_EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(KERN_EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(KERN_EXP_C2), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);

    const float32x4_t power = vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(rounded), 23));
    const uint32x4_t below = vcltq_f32(x, vdupq_n_f32(KERN_EXP_MIN)); /* false for NaN */
    const uint32x4_t above = vcgtq_f32(x, vdupq_n_f32(KERN_EXP_MAX));
    const uint32x4_t e = vbicq_u32(vreinterpretq_u32_f32(vmulq_f32(p, power)), below);
    return vbslq_f32(above, vdupq_n_f32(INFINITY), vreinterpretq_f32_u32(e));
}

/* The tree that ends a reduction of 16 partial results: a[i] += a[i + 8], then 4, 2, 1. */
KERN_INLINE float neon_fold(const float32x4_t *a) {
    const float32x4_t b = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
    const float32x2_t c = vadd_f32(vget_low_f32(b), vget_high_f32(b));
    return vget_lane_f32(c, 0) + vget_lane_f32(c, 1);
}

/* The larger, lane by lane; b where a is NaN. (fmax and fmaxnm would let a NaN, or a signalling one, through.) */
KERN_INLINE float32x4_t neon_larger(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

/* max(s[0..n)), NaN left out, a zero as +0 */
KERN_INLINE float neon_max(const float *s, int64_t n) {
    float32x4_t largest[2] = {vdupq_n_f32(-INFINITY), vdupq_n_f32(-INFINITY)};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        largest[0] = neon_larger(vld1q_f32(s + i), largest[0]);
        largest[1] = neon_larger(vld1q_f32(s + i + 4), largest[1]);
    }
    float top = vmaxvq_f32(neon_larger(largest[0], largest[1])); /* no NaN in there */
    for (; i < n; i++)
        if (s[i] > top) top = s[i];
    return top + 0.0f;
}

static void neon_softmax_row(float *s, int64_t n, float *max, float *sum) {
    const float top = neon_max(s, n);
    float32x4_t partial[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        KERN_UNROLL
        for (int h = 0; h < 4; h++) {
            const float32x4_t e = neon_exp(vsubq_f32(vld1q_f32(s + i + 4 * h), vdupq_n_f32(top)));
            vst1q_f32(s + i + 4 * h, e);
            partial[h] = vaddq_f32(partial[h], e);
        }
    }
    KERN_UNROLL
    for (int h = 0; h < 4; h++) {
        float *p = s + i + 4 * h;
        const int64_t left = n - i - 4 * h;
        if (left <= 0) break;
        neon_store_n(p, left, neon_exp(vsubq_f32(neon_load_n(p, left), vdupq_n_f32(top))));
        /* a lane that is not there adds +0 to a sum that is never -0: nothing */
        partial[h] = vaddq_f32(partial[h], neon_load_n(p, left));
    }
    *max = top;
    *sum = neon_fold(partial);
}

static void neon_softmax_part(float *s, int64_t lds, int64_t n_rows, int64_t n, float *max, float *sum) {
    for (int64_t r = 0; r < n_rows; r++) neon_softmax_row(s + r * lds, n, max + r, sum + r);
}

static void neon_clean(const float *x, int64_t n, float *y, float *top) {
    const float32x4_t lowest = vdupq_n_f32(-INFINITY), highest = vdupq_n_f32(FLT_MAX);
    for (int64_t i = 0; i < n;) {
        const int64_t end = n - i < KERN_CLEAN ? n : i + KERN_CLEAN;
        float32x4_t largest = lowest;
        float *best = top + i / KERN_CLEAN;
        for (; i < end; i += 4) {
            const float32x4_t v = neon_load_n(x + i, end - i);
            const uint32x4_t is_number = vcgeq_f32(v, vdupq_n_f32(-FLT_MAX)); /* false for NaN */
            const float32x4_t clean = vbslq_f32(is_number, vminq_f32(v, highest), lowest);
            neon_store_n(y + i, end - i, clean);
            if (end - i >= 4) largest = neon_larger(clean, largest);
            for (int64_t k = i; end - i < 4 && k < end; k++) /* lanes that are not there are not the largest */
                largest = neon_larger(vdupq_n_f32(y[k]), largest);
        }
        i = end;
        *best = vmaxvq_f32(largest) + 0.0f;
    }
}

/* Lanes 0, 1 to 14, 15 of the products are product[0..7]. */
static void neon_weigh(const float *x, int64_t n, float max, float *w, float *sum, double *dot) {
    float32x4_t partial[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    float64x2_t product[8];
    for (int h = 0; h < 8; h++) product[h] = vdupq_n_f64(0);
    for (int64_t i = 0; i < n; i += 16) {
        KERN_UNROLL
        for (int h = 0; h < 4; h++) {
            const int64_t left = n - i - 4 * h;
            if (left <= 0) break;
            float32x4_t below =
                vsubq_f32(left < 4 ? neon_load_n(x + i + 4 * h, left) : vld1q_f32(x + i + 4 * h), vdupq_n_f32(max));
            float32x4_t e = neon_exp(below);
            if (left < 4) { /* a lane that is not there adds +0 to sums that are never -0: nothing */
                neon_store_n(w + i + 4 * h, left, e);
                e = neon_load_n(w + i + 4 * h, left);
            } else {
                vst1q_f32(w + i + 4 * h, e);
            }
            partial[h] = vaddq_f32(partial[h], e);
            below = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(below), vcgtzq_f32(e)));
            product[2 * h] =
                vfmaq_f64(product[2 * h], vcvt_f64_f32(vget_low_f32(e)), vcvt_f64_f32(vget_low_f32(below)));
            product[2 * h + 1] = vfmaq_f64(product[2 * h + 1], vcvt_high_f64_f32(e), vcvt_high_f64_f32(below));
        }
    }
    for (int step = 4; step > 0; step /= 2)
        for (int h = 0; h < step; h++) product[h] = vaddq_f64(product[h], product[h + step]);
    *sum = neon_fold(partial);
    *dot = vgetq_lane_f64(product[0], 0) + vgetq_lane_f64(product[0], 1);
}

static void neon_join_row(float *max, float *sum, float *o, float m2, float sum2, const float *o2, int64_t n) {
    const float m = *max > m2 ? *max : m2;
    const float a = kern_expf(*max - m), b = kern_expf(m2 - m);
    *sum = fmaf(*sum, a, sum2 * b);
    *max = m;
    for (int64_t i = 0; i < n; i += 4) {
        const float32x4_t later = vmulq_n_f32(neon_load_n(o2 + i, n - i), b);
        neon_store_n(o + i, n - i, vfmaq_n_f32(later, neon_load_n(o + i, n - i), a));
    }
}

static void neon_softmax_join(float *max, float *sum, float *o, const float *max2, const float *sum2, const float *o2,
                              int64_t n_rows, int64_t n) {
    for (int64_t r = 0; r < n_rows; r++) neon_join_row(max + r, sum + r, o + r * n, max2[r], sum2[r], o2 + r * n, n);
}

/* ---- between the products ---------------------------------------------------------------------------------------- */

KERN_INLINE uint32x4_t neon_abs_bits(float32x4_t x) {
    return vbicq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x80000000u));
}

KERN_INLINE void neon_quantize_block(const float *x, int8_t *codes, float *scale, int32_t *sum) {
    float32x4_t v[8];
    int32x4_t m = vdupq_n_s32(INT32_MIN);
    uint32x4_t u = vdupq_n_u32(0);
    KERN_UNROLL
    for (int i = 0; i < 8; i++) {
        v[i] = vld1q_f32(x + 4 * i);
        m = vmaxq_s32(m, vreinterpretq_s32_f32(v[i]));
        u = vmaxq_u32(u, vreinterpretq_u32_f32(v[i]));
    }
    float inv;
    if (!kern_act_scale_bits((uint32_t)vmaxvq_s32(m), vmaxvq_u32(u), &inv, scale)) {
        memset(codes, 0, KERN_BLOCK);
        *sum = 0;
        return;
    }
    int16x8_t code[4]; /* every number is at most 127 in size: narrowing loses nothing */
    KERN_UNROLL
    for (int i = 0; i < 4; i++)
        code[i] = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[2 * i], inv))),
                               vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[2 * i + 1], inv))));
    vst1q_s8(codes, vcombine_s8(vmovn_s16(code[0]), vmovn_s16(code[1])));
    vst1q_s8(codes + 16, vcombine_s8(vmovn_s16(code[2]), vmovn_s16(code[3])));
    *sum = vaddlvq_s16(vaddq_s16(vaddq_s16(code[0], code[1]), vaddq_s16(code[2], code[3])));
}

static void neon_quantize(const float *x, int64_t n, int8_t *codes, float *scale, int32_t *sum) {
    for (int64_t b = 0; b < n / KERN_BLOCK; b++)
        neon_quantize_block(x + b * KERN_BLOCK, codes + b * KERN_BLOCK, scale + b, sum + b);
}

static void neon_rms_norm(const float *x, const float *w, int64_t n, float eps, float *y) {
    float32x4_t partial[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (int64_t i = 0; i < n; i += 16) {
        KERN_UNROLL
        for (int h = 0; h < 4; h++) {
            const float32x4_t v = neon_load_n(x + i + 4 * h, n - i - 4 * h); /* missing lanes add 0 * 0: nothing */
            partial[h] = vfmaq_f32(partial[h], v, v);
        }
    }
    const float inv = 1.0f / sqrtf(neon_fold(partial) / (float)n + eps);
    for (int64_t i = 0; i < n; i += 4) {
        const float32x4_t v = vmulq_n_f32(neon_load_n(x + i, n - i), inv);
        neon_store_n(y + i, n - i, vmulq_f32(v, neon_load_n(w + i, n - i)));
    }
}

static void neon_layer_norm(const float *x, const float *w, const float *b, int64_t n, float eps, float *y) {
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    float32x4_t squares[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (int64_t i = 0; i < n; i += 16) {
        KERN_UNROLL
        for (int h = 0; h < 4; h++) /* a lane that is not there adds +0 to a sum that is never -0: nothing */
            sum[h] = vaddq_f32(sum[h], neon_load_n(x + i + 4 * h, n - i - 4 * h));
    }
    const float32x4_t mean = vdupq_n_f32(neon_fold(sum) / (float)n);
    for (int64_t i = 0; i < n; i += 16) {
        KERN_UNROLL
        for (int h = 0; h < 4; h++) {
            const int64_t left = n - i - 4 * h;
            float32x4_t c = vsubq_f32(neon_load_n(x + i + 4 * h, left), mean);
            if (left < 4) { /* lanes that are not there count as 0 */
                float lane[4] = {0};
                neon_store_n(lane, left, c);
                c = vld1q_f32(lane);
            }
            squares[h] = vfmaq_f32(squares[h], c, c);
        }
    }
    const float inv = 1.0f / sqrtf(neon_fold(squares) / (float)n + eps);
    for (int64_t i = 0; i < n; i += 4) {
        const float32x4_t c = vmulq_n_f32(vsubq_f32(neon_load_n(x + i, n - i), mean), inv);
        neon_store_n(y + i, n - i, vfmaq_f32(neon_load_n(b + i, n - i), c, neon_load_n(w + i, n - i)));
    }
}

static void neon_add(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += 4)
        neon_store_n(x + i, n - i, vaddq_f32(neon_load_n(x + i, n - i), neon_load_n(y + i, n - i)));
}

static void neon_silu_mul(float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i += 4) {
        const float32x4_t g = neon_load_n(gate + i, n - i);
        const float32x4_t silu = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), neon_exp(vnegq_f32(g))));
        neon_store_n(gate + i, n - i, vmulq_f32(silu, neon_load_n(up + i, n - i)));
    }
}

static void neon_gelu_mul(float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i += 4) {
        const float32x4_t g = neon_load_n(gate + i, n - i);
        const float32x4_t factor = vfmaq_f32(vdupq_n_f32(KERN_GELU_C1), vmulq_f32(g, g), vdupq_n_f32(KERN_GELU_C3));
        const float32x4_t e = neon_exp(vnegq_f32(vmulq_f32(g, factor)));
        const float32x4_t gelu = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), e));
        neon_store_n(gate + i, n - i, up ? vmulq_f32(gelu, neon_load_n(up + i, n - i)) : gelu);
    }
}

/* kern_tanhf() of 4 values */
KERN_INLINE float32x4_t neon_tanh(float32x4_t x) {
    const float32x4_t one = vdupq_n_f32(1.0f), a = vabsq_f32(x), z = vmulq_f32(x, x);
    float32x4_t p = vdupq_n_f32(KERN_TANH_C11);
    p = vfmaq_f32(vdupq_n_f32(KERN_TANH_C9), p, z);
    p = vfmaq_f32(vdupq_n_f32(KERN_TANH_C7), p, z);
    p = vfmaq_f32(vdupq_n_f32(KERN_TANH_C5), p, z);
    p = vfmaq_f32(vdupq_n_f32(KERN_TANH_C3), p, z);
    const float32x4_t small = vfmaq_f32(x, vmulq_f32(x, z), p);
    const float32x4_t e = neon_exp(vaddq_f32(a, a));
    const float32x4_t large = vsubq_f32(one, vdivq_f32(vdupq_n_f32(2.0f), vaddq_f32(e, one)));
    const float32x4_t signed_large = vbslq_f32(vdupq_n_u32(0x80000000u), x, large);
    return vbslq_f32(vcltq_f32(a, vdupq_n_f32(KERN_TANH_SMALL)), small, signed_large);
}

static void neon_softcap(float *x, int64_t n, float cap) {
    const float inv = 1.0f / cap;
    for (int64_t i = 0; i < n; i += 4)
        neon_store_n(x + i, n - i, vmulq_n_f32(neon_tanh(vmulq_n_f32(neon_load_n(x + i, n - i), inv)), cap));
}

void kern_neon_cap_scores(float *s, int64_t n, float q_scale, float cap) {
    for (int64_t i = 0; i < n; i += 4) vst1q_f32(s + i, vmulq_n_f32(vld1q_f32(s + i), q_scale));
    neon_softcap(s, n, cap);
}

float kern_neon_largest(const float *s, int64_t n) {
    return neon_max(s, n);
}

/* Turns 4 pairs (a, b) by angles whose cosines and sines are c and s: a*c - b*s, a*s + b*c. */
KERN_INLINE void neon_rotate(float32x4_t *a, float32x4_t *b, float32x4_t c, float32x4_t s) {
    const float32x4_t x = *a, y = *b;
    *a = vfmaq_f32(vnegq_f32(vmulq_f32(y, s)), x, c);
    *b = vfmaq_f32(vmulq_f32(y, c), x, s);
}

/* The pairs that are left over, one by one. */
KERN_INLINE void neon_rotate_one(float *a, float *b, const float *cs) {
    const float x = *a, y = *b;
    *a = fmaf(x, cs[0], -(y * cs[1]));
    *b = fmaf(x, cs[1], y * cs[0]);
}

static void neon_rope_adjacent(float *x, int64_t n_heads, int64_t head_dim, int64_t n_rot, const float *cs) {
    const int64_t half = n_rot / 2;
    for (int64_t h = 0; h < n_heads; h++, x += head_dim) {
        int64_t i = 0;
        for (; i + 4 <= half; i += 4) {
            float32x4x2_t v = vld2q_f32(x + 2 * i);
            const float32x4x2_t turn = vld2q_f32(cs + 2 * i);
            neon_rotate(&v.val[0], &v.val[1], turn.val[0], turn.val[1]);
            vst2q_f32(x + 2 * i, v);
        }
        for (; i < half; i++) neon_rotate_one(x + 2 * i, x + 2 * i + 1, cs + 2 * i);
    }
}

static void neon_rope_split(float *x, int64_t n_heads, int64_t head_dim, int64_t n_rot, const float *cs) {
    const int64_t half = n_rot / 2;
    for (int64_t h = 0; h < n_heads; h++, x += head_dim) {
        int64_t i = 0;
        for (; i + 4 <= half; i += 4) {
            float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + half + i);
            const float32x4x2_t turn = vld2q_f32(cs + 2 * i);
            neon_rotate(&a, &b, turn.val[0], turn.val[1]);
            vst1q_f32(x + i, a);
            vst1q_f32(x + half + i, b);
        }
        for (; i < half; i++) neon_rotate_one(x + i, x + half + i, cs + 2 * i);
    }
}

static void neon_scale(const float *x, float a, int64_t n, float *y) {
    for (int64_t i = 0; i < n; i += 4) neon_store_n(y + i, n - i, vmulq_n_f32(neon_load_n(x + i, n - i), a));
}

static void neon_to_f16(const float *x, int64_t n, uint16_t *y) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) vst1_u16(y + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
    for (; i < n; i++) y[i] = kern_f32_to_f16(x[i]);
}

static void neon_from_f16(const uint16_t *x, int64_t n, float *y) {
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(y + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x + i))));
    for (; i < n; i++) y[i] = kern_f16_to_f32(x[i]);
}

void kern_table_neon(kern_table *table) {
    neon_table_int(table);
    kern_table_neon_attention(table);
    table->quantize = neon_quantize;
    table->matmul[KERN_F32] = neon_matmul_f32;
    table->matmul[KERN_F16] = neon_matmul_f16;
    table->matmul[KERN_BF16] = neon_matmul_bf16;
    table->rms_norm = neon_rms_norm;
    table->layer_norm = neon_layer_norm;
    table->add = neon_add;
    table->silu_mul = neon_silu_mul;
    table->gelu_mul = neon_gelu_mul;
    table->softcap = neon_softcap;
    table->rope_adjacent = neon_rope_adjacent;
    table->rope_split = neon_rope_split;
    table->qk[KERN_KV_F16] = neon_qk_f16;
    table->qk[KERN_KV_F32] = neon_qk_f32;
    table->pv[KERN_KV_F16] = neon_pv_f16;
    table->pv[KERN_KV_F32] = neon_pv_f32;
    table->softmax_part = neon_softmax_part;
    table->clean = neon_clean;
    table->weigh = neon_weigh;
    table->softmax_join = neon_softmax_join;
    table->scale = neon_scale;
    table->to_f16 = neon_to_f16;
    table->from_f16 = neon_from_f16;
}

#endif
