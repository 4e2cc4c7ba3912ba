/* neon_attention.c: attention with int8 keys and values for NEON, with and without its dot product.
 *
 * A register holds 4 codes of 4 keys (of K) or of 4 dimensions (of V); each lane of the sums is one of them. Nothing
 * outside an array is read or written. */
#include "int_product.h"

#if defined(KERN_ARM)

#include <math.h>

/* sums[lane] += the lane's 4 codes times `four` codes. The function is a constant: it is inlined. */
typedef int32x4_t neon_add_four(int32x4_t sums, int8x16_t codes, int8x16_t four);

/* A sum of two products fits int16: 2 * 127 * 127 */
KERN_INLINE int32x4_t neon_add_four_base(int32x4_t sums, int8x16_t codes, int8x16_t four) {
    const int16x8_t low = vmull_s8(vget_low_s8(codes), vget_low_s8(four)), high = vmull_high_s8(codes, four);
    return vpadalq_s16(sums, vpaddq_s16(low, high));
}

NEON_DOTPROD_TARGET KERN_INLINE int32x4_t neon_add_four_dotprod(int32x4_t sums, int8x16_t codes, int8x16_t four) {
    return neon_sdot(sums, codes, four, 0);
}

KERN_INLINE int8x16_t neon_dup_four(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

/* The first n of 4 lanes; the others read as 0 and are not written. */
KERN_INLINE int8x16_t neon_load_codes(const int8_t *p, int64_t n) {
    int8_t lanes[16] = {0};
    if (n >= 4) return vld1q_s8(p);
    memcpy(lanes, p, (size_t)n * 4);
    return vld1q_s8(lanes);
}

KERN_INLINE float32x4_t neon_load_lanes(const float *p, int64_t n) {
    float lanes[4] = {0};
    if (n >= 4) return vld1q_f32(p);
    memcpy(lanes, p, (size_t)n * sizeof *p);
    return vld1q_f32(lanes);
}

KERN_INLINE void neon_store_lanes(float *p, int64_t n, float32x4_t v) {
    float lanes[4];
    if (n >= 4) {
        vst1q_f32(p, v);
        return;
    }
    vst1q_f32(lanes, v);
    memcpy(p, lanes, (size_t)n * sizeof *p);
}

typedef struct neon_qk8 {
    const int8_t *q, *k; /* [rows][ldq], [groups][ldk][4] */
    const float *k_scale;
    int64_t ldq, ldk, n_groups, lds, left; /* left: keys of the page and the block from here on */
    float *s, *top;                        /* top of the block of a tile */
    int begins;                            /* 1: nothing of the block has been seen yet */
} neon_qk8;

/* NR rows by NV vectors of 4 keys; only with NV = 1 may there be fewer. */
KERN_INLINE void neon_qk8_tile(neon_add_four *add_four, const int NR, const int NV, const neon_qk8 *g, int64_t row) {
    const int8_t *q = g->q + row * g->ldq, *k = g->k;
    const int64_t left = NV > 1 ? 4 : g->left;
    int32x4_t acc[16];
    KERN_UNROLL
    for (int i = 0; i < NR * NV; i++) acc[i] = vdupq_n_s32(0);
    for (int64_t i = 0; i < g->n_groups; i++, q += 4, k += 4 * g->ldk) {
        int8x16_t key[4];
        KERN_UNROLL
        for (int v = 0; v < NV; v++) key[v] = neon_load_codes(k + 16 * v, left);
        KERN_UNROLL
        for (int r = 0; r < NR; r++) {
            const int8x16_t four = neon_dup_four(q + r * g->ldq);
            KERN_UNROLL
            for (int v = 0; v < NV; v++) acc[r * NV + v] = add_four(acc[r * NV + v], key[v], four);
        }
    }
    KERN_UNROLL
    for (int r = 0; r < NR; r++) {
        float32x4_t largest = vdupq_n_f32(-INFINITY);
        KERN_UNROLL
        for (int v = 0; v < NV; v++) {
            const float32x4_t k_scale = neon_load_lanes(g->k_scale + v * 4, left);
            const float32x4_t s = vmulq_f32(vcvtq_f32_s32(acc[r * NV + v]), k_scale);
            neon_store_lanes(g->s + (row + r) * g->lds + v * 4, left, s);
            if (left >= 4) largest = vmaxq_f32(largest, s);
        }
        float top = vmaxvq_f32(largest);
        for (int64_t i = 0; left < 4 && i < left; i++) /* lanes that are not there are not the largest */
            if (g->s[(row + r) * g->lds + i] > top) top = g->s[(row + r) * g->lds + i];
        if (g->begins || top > g->top[row + r]) g->top[row + r] = top + 0.0f;
    }
}

KERN_INLINE void neon_qk8_all(neon_add_four *add_four, const int8_t *q, int64_t ldq, int64_t n_q,
                              const int8_t *const *k, int64_t page_keys, const float *k_scale, int64_t first,
                              int64_t end, int64_t n_groups, float *s, int64_t lds, float *top, int64_t ld_top) {
    neon_qk8 g = {.q = q, .ldq = ldq, .ldk = page_keys, .n_groups = n_groups, .lds = lds};
    for (int64_t j = first; j < end;) {
        const int64_t key = j % page_keys;
        int64_t r = 0;
        g.k = k[j / page_keys] + 4 * key, g.k_scale = k_scale + j, g.s = s + j;
        g.top = top + j / KERN_WEIGHTS * ld_top, g.begins = j == first || j % KERN_WEIGHTS == 0;
        g.left = kern_least(page_keys - key, end - j, KERN_WEIGHTS - j % KERN_WEIGHTS);
        const int wide = g.left >= 16;
        for (; r + 4 <= n_q && wide; r += 4) neon_qk8_tile(add_four, 4, 4, &g, r);
        for (; r < n_q && wide; r++) neon_qk8_tile(add_four, 1, 4, &g, r);
        for (; r < n_q; r++) neon_qk8_tile(add_four, 1, 1, &g, r);
        j += wide ? 16 : g.left < 4 ? g.left : 4;
    }
}

static void neon_qk_q8(const int8_t *q, int64_t ldq, int64_t n_q, const int8_t *const *k, int64_t page_keys,
                       const float *k_scale, int64_t first, int64_t end, int64_t n_groups, float *s, int64_t lds,
                       float *top, int64_t ld_top) {
    neon_qk8_all(neon_add_four_base, q, ldq, n_q, k, page_keys, k_scale, first, end, n_groups, s, lds, top, ld_top);
}

NEON_DOTPROD_TARGET static void dotprod_qk_q8(const int8_t *q, int64_t ldq, int64_t n_q, const int8_t *const *k,
                                              int64_t page_keys, const float *k_scale, int64_t first, int64_t end,
                                              int64_t n_groups, float *s, int64_t lds, float *top, int64_t ld_top) {
    neon_qk8_all(neon_add_four_dotprod, q, ldq, n_q, k, page_keys, k_scale, first, end, n_groups, s, lds, top, ld_top);
}

typedef struct neon_pv8 {
    const int8_t *p; /* [rows][ldp] */
    const float *scale;
    const int8_t *const *v;
    int64_t ldp, ld_scale, page_keys, first, end, head_dim, ldo;
    float *o;
    int64_t d, left; /* dimension, and how many there are from it on */
} neon_pv8;

/* NR rows by NV vectors of 4 dimensions; only with NV = 1 may there be fewer. */
KERN_INLINE void neon_pv8_tile(neon_add_four *add_four, const int NR, const int NV, const neon_pv8 *g, int64_t row) {
    const int64_t left = NV > 1 ? 4 : g->left;
    for (int64_t b = g->first; b < g->end; b++) {
        int32x4_t acc[16];
        KERN_UNROLL
        for (int i = 0; i < NR * NV; i++) acc[i] = vdupq_n_s32(0);
        for (int64_t j = b * KERN_WEIGHTS; j < (b + 1) * KERN_WEIGHTS; j += 4) {
            const int8_t *v = g->v[j / g->page_keys] + j % g->page_keys * g->head_dim + 4 * g->d;
            const int8_t *p = g->p + row * g->ldp + j;
            int8x16_t value[4];
            KERN_UNROLL
            for (int h = 0; h < NV; h++) value[h] = neon_load_codes(v + 16 * h, left);
            KERN_UNROLL
            for (int r = 0; r < NR; r++) {
                const int8x16_t four = neon_dup_four(p + r * g->ldp);
                KERN_UNROLL
                for (int h = 0; h < NV; h++) acc[r * NV + h] = add_four(acc[r * NV + h], value[h], four);
            }
        }
        KERN_UNROLL
        for (int i = 0; i < NR * NV; i++) {
            float *o = g->o + (row + i / NV) * g->ldo + g->d + i % NV * 4;
            const float32x4_t old = b > g->first ? neon_load_lanes(o, left) : vdupq_n_f32(0);
            const float scale = g->scale[b * g->ld_scale + row + i / NV];
            neon_store_lanes(o, left, vfmaq_n_f32(old, vcvtq_f32_s32(acc[i]), scale));
        }
    }
}

KERN_INLINE void neon_pv8_all(neon_add_four *add_four, neon_pv8 *g, int64_t n_q) {
    for (g->d = 0; g->d < g->head_dim;) {
        int64_t r = 0;
        g->left = g->head_dim - g->d;
        const int wide = g->left >= 16;
        for (; r + 4 <= n_q && wide; r += 4) neon_pv8_tile(add_four, 4, 4, g, r);
        for (; r < n_q && wide; r++) neon_pv8_tile(add_four, 1, 4, g, r);
        for (; r < n_q; r++) neon_pv8_tile(add_four, 1, 1, g, r);
        g->d += wide ? 16 : 4;
    }
}

static void neon_pv_q8(const int8_t *p, int64_t ldp, const float *scale, int64_t ld_scale, int64_t n_q,
                       const int8_t *const *v, int64_t page_keys, int64_t first, int64_t end, int64_t head_dim,
                       float *o, int64_t ldo) {
    neon_pv8 g = {p, scale, v, ldp, ld_scale, page_keys, first, end, head_dim, ldo, o, 0, 0};
    neon_pv8_all(neon_add_four_base, &g, n_q);
}

NEON_DOTPROD_TARGET static void dotprod_pv_q8(const int8_t *p, int64_t ldp, const float *scale, int64_t ld_scale,
                                              int64_t n_q, const int8_t *const *v, int64_t page_keys, int64_t first,
                                              int64_t end, int64_t head_dim, float *o, int64_t ldo) {
    neon_pv8 g = {p, scale, v, ldp, ld_scale, page_keys, first, end, head_dim, ldo, o, 0, 0};
    neon_pv8_all(neon_add_four_dotprod, &g, n_q);
}

/* Rounding to codes is ref's: it is a small part, and compilers vectorise it. */
void kern_table_neon_attention(kern_table *table) {
    table->qk_q8 = neon_qk_q8;
    table->pv_q8 = neon_pv_q8;
}

void kern_table_neon_dotprod_attention(kern_table *table) {
    table->qk_q8 = dotprod_qk_q8;
    table->pv_q8 = dotprod_pv_q8;
}

#endif
