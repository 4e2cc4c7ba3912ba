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

/* ---- weights: rows of queries by keys ---------------------------------------------------------------------------- */

/* NR rows by 16 keys */
KERN_INLINE void neon_scores_tile(neon_add_four *add_four, const int NR, const int8_t *q, int64_t ldq, const int8_t *k,
                                  int64_t ldk, int64_t n_groups, const float *k_scale, float *s) {
    int32x4_t acc[16];
    KERN_UNROLL
    for (int i = 0; i < NR * 4; i++) acc[i] = vdupq_n_s32(0);
    for (int64_t i = 0; i < n_groups; i++, q += 4, k += 4 * ldk) {
        int8x16_t key[4];
        KERN_UNROLL
        for (int v = 0; v < 4; v++) key[v] = vld1q_s8(k + 16 * v);
        KERN_UNROLL
        for (int r = 0; r < NR; r++) {
            const int8x16_t four = neon_dup_four(q + r * ldq);
            KERN_UNROLL
            for (int v = 0; v < 4; v++) acc[r * 4 + v] = add_four(acc[r * 4 + v], key[v], four);
        }
    }
    KERN_UNROLL
    for (int i = 0; i < NR * 4; i++) {
        const float32x4_t scale = vld1q_f32(k_scale + i % 4 * 4);
        vst1q_f32(s + i / 4 * KERN_RANGE + i % 4 * 4, vmulq_f32(vcvtq_f32_s32(acc[i]), scale));
    }
}

KERN_INLINE void neon_scores(neon_add_four *add_four, const kern_look *l, int64_t row, int64_t n, const int8_t *k,
                             const float *k_scale, float *s) {
    const int8_t *q = l->q + row * l->ldq;
    if (n == 4) {
        neon_scores_tile(add_four, 4, q, l->ldq, k, l->page_keys, l->n_groups, k_scale, s);
        return;
    }
    for (int64_t r = 0; r < n; r++)
        neon_scores_tile(add_four, 1, q + r * l->ldq, l->ldq, k, l->page_keys, l->n_groups, k_scale,
                         s + r * KERN_RANGE);
}

static void neon_scores_q8(const kern_look *l, int64_t row, int64_t n, const int8_t *k, const float *k_scale,
                           float *s) {
    neon_scores(neon_add_four_base, l, row, n, k, k_scale, s);
}

NEON_DOTPROD_TARGET static void dotprod_scores_q8(const kern_look *l, int64_t row, int64_t n, const int8_t *k,
                                                  const float *k_scale, float *s) {
    neon_scores(neon_add_four_dotprod, l, row, n, k, k_scale, s);
}

/* kern_weight_code() of 16 numbers: the topmost 32 codes as a table, shifted with rounding. */
KERN_INLINE uint8x16_t neon_weight_code(uint8x16_t y) {
    const uint8x16x2_t table = {{vld1q_u8(kern_weight_32nds), vld1q_u8(kern_weight_32nds + 16)}};
    const uint8x16_t top = vqtbl2q_u8(table, vandq_u8(y, vdupq_n_u8(31)));
    const int8x16_t down = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(y, 5)), vdupq_n_s8(7));
    return vandq_u8(vrshlq_u8(top, down), vtstq_u8(y, y));
}

static int32_t neon_weight_codes(const float *s, kern_seen k, float a, float z, const uint8_t *down, int8_t *codes) {
    uint8_t seen[KERN_WEIGHTS] = {0};
    int32_t sum = 0;
    memset(seen + k.first, 255, (size_t)(k.end - k.first));
    for (int i = 0; i < KERN_WEIGHTS; i += 16) {
        int16x4_t half[4];
        KERN_UNROLL
        for (int h = 0; h < 4; h++) {
            const float32x4_t x = vfmaq_n_f32(vdupq_n_f32(z), vld1q_f32(s + i + 4 * h), a);
            const uint32x4_t fits = vcltq_f32(x, vdupq_n_f32(0x1p31f)); /* what does not is 0, as it is elsewhere */
            half[h] = vqmovn_s32(vandq_s32(vcvtnq_s32_f32(x), vreinterpretq_s32_u32(fits)));
        }
        const uint8x8_t low = vqmovun_s16(vcombine_s16(half[0], half[1]));
        const uint8x8_t high = vqmovun_s16(vcombine_s16(half[2], half[3]));
        const uint8x16_t all = vandq_u8(vcombine_u8(low, high), vld1q_u8(seen + i));
        vst1q_s8(codes + i, vreinterpretq_s8_u8(neon_weight_code(vqsubq_u8(all, vld1q_u8(down + i)))));
        sum += vaddlvq_u8(neon_weight_code(all));
    }
    return sum;
}

/* What there is one of in a row and block is ref's. */
static kern_weights_steps neon_steps(void) {
    kern_weights_steps steps = kern_ref_weights_steps;
    steps.scores = neon_scores_q8, steps.codes = neon_weight_codes;
    steps.cap = kern_neon_cap_scores, steps.largest = kern_neon_largest;
    return steps;
}

static void neon_weights_q8(const kern_look *l, int8_t *codes, int64_t ld, float *scale, int64_t ld_scale, float *max,
                            float *sum) {
    const kern_weights_steps steps = neon_steps();
    kern_weights_by_steps(&steps, l, codes, ld, scale, ld_scale, max, sum);
}

static void dotprod_weights_q8(const kern_look *l, int8_t *codes, int64_t ld, float *scale, int64_t ld_scale,
                               float *max, float *sum) {
    kern_weights_steps steps = neon_steps();
    steps.scores = dotprod_scores_q8;
    kern_weights_by_steps(&steps, l, codes, ld, scale, ld_scale, max, sum);
}

/* ---- weights of keys by their values ----------------------------------------------------------------------------- */

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
    table->weights_q8 = neon_weights_q8;
    table->pv_q8 = neon_pv_q8;
}

void kern_table_neon_dotprod_attention(kern_table *table) {
    table->weights_q8 = dotprod_weights_q8;
    table->pv_q8 = dotprod_pv_q8;
}

#endif
