/* attention.c: the definition of attention over a KV page.
 *
 *   scores = scale * Q K^T          qk
 *   p      = exp(scores - max)      softmax_part, which also returns max and sum
 *   out    = p V                    pv
 *
 * A sequence spans many pages. Each is one part (max, sum, out); softmax_join() adds a later part to an earlier one,
 * and the caller divides by the sum at the end. K is stored transposed: a key is a column. */
#include "../internal.h"

#include <float.h>
#include <math.h>

static float ref_kv_f16(const void *base, int64_t i) {
    return kern_f16_to_f32(kern_load_u16((const uint8_t *)base + i * 2));
}

static float ref_kv_f32(const void *base, int64_t i) {
    return kern_load_f32((const uint8_t *)base + i * 4);
}

/* ---- scores: q [n_q][head_dim], k [head_dim][ldk], s [n_q][n_keys] ----------------------------------------------- */

static inline void ref_qk(float (*load)(const void *, int64_t), const float *q, int64_t ldq, int64_t n_q, const void *k,
                          int64_t ldk, int64_t n_keys, int64_t head_dim, float scale, float *s, int64_t lds) {
    for (int64_t r = 0; r < n_q; r++)
        for (int64_t j = 0; j < n_keys; j++) {
            float acc = 0;
            for (int64_t d = 0; d < head_dim; d++) acc = fmaf(q[r * ldq + d], load(k, d * ldk + j), acc);
            s[r * lds + j] = scale * acc;
        }
}

static void ref_qk_f16(const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk, int64_t n_keys,
                       int64_t head_dim, float scale, float *s, int64_t lds, const kern_ahead *ahead) {
    (void)ahead;
    ref_qk(ref_kv_f16, q, ldq, n_q, k, ldk, n_keys, head_dim, scale, s, lds);
}

static void ref_qk_f32(const float *q, int64_t ldq, int64_t n_q, const void *k, int64_t ldk, int64_t n_keys,
                       int64_t head_dim, float scale, float *s, int64_t lds, const kern_ahead *ahead) {
    (void)ahead;
    ref_qk(ref_kv_f32, q, ldq, n_q, k, ldk, n_keys, head_dim, scale, s, lds);
}

/* ---- weighted values: p [n_q][n_keys], v [n_keys][head_dim], o [n_q][head_dim] ------------------------------------
 */

static inline void ref_pv(float (*load)(const void *, int64_t), const float *p, int64_t ldp, int64_t n_q, const void *v,
                          int64_t n_keys, int64_t head_dim, float *o, int64_t ldo) {
    for (int64_t r = 0; r < n_q; r++)
        for (int64_t j = 0; j < n_keys; j++)
            for (int64_t d = 0; d < head_dim; d++)
                o[r * ldo + d] = fmaf(p[r * ldp + j], load(v, j * head_dim + d), o[r * ldo + d]);
}

static void ref_pv_f16(const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys, int64_t head_dim,
                       float *o, int64_t ldo, const kern_ahead *ahead) {
    (void)ahead;
    ref_pv(ref_kv_f16, p, ldp, n_q, v, n_keys, head_dim, o, ldo);
}

static void ref_pv_f32(const float *p, int64_t ldp, int64_t n_q, const void *v, int64_t n_keys, int64_t head_dim,
                       float *o, int64_t ldo, const kern_ahead *ahead) {
    (void)ahead;
    ref_pv(ref_kv_f32, p, ldp, n_q, v, n_keys, head_dim, o, ldo);
}

/* ---- int8 keys and values ---------------------------------------------------------------------------------------- */

/* n codes that share a scale; see quantize() */
static void ref_quantize_codes(const float *x, int64_t n, int8_t *codes, float *scale) {
    float amax = 0;
    int finite = 1;
    for (int64_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        if (!(a < INFINITY)) finite = 0;
        if (a > amax) amax = a;
    }
    int empty = !finite || amax < KERN_AMAX_MIN;
    float inv = empty ? 0.0f : 127.0f / amax;
    *scale = !finite ? kern_bits_to_f32(KERN_NAN_BITS) : empty ? 0.0f : amax / 127.0f;
    for (int64_t i = 0; i < n; i++) codes[i] = empty ? 0 : (int8_t)rintf(x[i] * inv);
}

static void ref_qk_q8(const int8_t *q, int64_t ldq, int64_t n_q, const int8_t *const *k, int64_t page_keys,
                      const float *k_scale, int64_t first, int64_t end, int64_t n_groups, float *s, int64_t lds,
                      float *top, int64_t ld_top) {
    for (int64_t r = 0; r < n_q; r++)
        for (int64_t j = first; j < end; j++) {
            const int8_t *key = k[j / page_keys] + j % page_keys * 4;
            float *best = top + j / KERN_WEIGHTS * ld_top + r;
            int32_t sum = 0;
            for (int64_t d = 0; d < 4 * n_groups; d++) sum += q[r * ldq + d] * key[d / 4 * page_keys * 4 + d % 4];
            s[r * lds + j] = (float)sum * k_scale[j];
            if (j == first || j % KERN_WEIGHTS == 0 || s[r * lds + j] > *best) *best = s[r * lds + j] + 0.0f;
        }
}

void kern_ref_value_codes(const float *scale, int64_t first, int64_t end, float *code, float *top) {
    uint32_t most = 0; /* the order of numbers that are not negative is that of their bits, NaN above all */
    for (int64_t j = first; j < end; j++)
        if (kern_f32_to_bits(scale[j]) > most) most = kern_f32_to_bits(scale[j]);
    const float inv = kern_code_scale(most, top);
    for (int64_t j = 0; j < KERN_WEIGHTS; j++) code[j] = inv == 0 || j < first || j >= end ? 0.0f : scale[j] * inv;
}

static void ref_softmax_q8_row(const float *s, const float *top, float *scale, int64_t ld_top, float q_scale,
                               const kern_values *v, int64_t first, int64_t end, int8_t *codes, float *max,
                               float *sum) {
    const int64_t block = first / KERN_WEIGHTS, stop = kern_blocks(end);
    float t[KERN_RANGE / KERN_WEIGHTS] = {0}, m = -INFINITY;
    for (int64_t b = block; b < stop; b++) {
        const kern_seen k = kern_seen_of(b, first, end);
        t[b] = kern_all_seen(k) ? top[b * ld_top] : -INFINITY;
        for (int64_t i = k.first; !kern_all_seen(k) && i < k.end; i++)
            if (s[k.begin + i] > t[b]) t[b] = s[k.begin + i] + 0.0f; /* -0 becomes +0: the order of equals is hidden */
        if (t[b] > m) m = t[b];
    }

    const float a = q_scale * KERN_POW2_ONE;
    float total[KERN_LANES] = {0};
    for (int64_t b = block; b < stop; b++) {
        const kern_seen k = kern_seen_of(b, first, end);
        const float z = fmaf(-t[b], a, KERN_POW2_ZERO), e = kern_expf((t[b] - m) * q_scale);
        const float *code = v->code + k.begin;
        float partial[KERN_LANES] = {0}, some[KERN_WEIGHTS], worth = v->top[b];
        if (!kern_all_seen(k)) {
            kern_ref_value_codes(v->scale + k.begin, k.first, k.end, some, &worth);
            code = some;
        }
        for (int64_t i = 0; i < KERN_WEIGHTS; i++) {
            const int is_seen = i >= k.first && i < k.end;
            const float p = is_seen ? kern_pow2f(fmaf(s[k.begin + i], a, z)) : 0.0f;
            partial[i % KERN_LANES] += p;
            codes[k.begin + i] = (int8_t)rintf(p * code[i]);
        }
        for (int i = 0; i < KERN_LANES; i++) total[i] = fmaf(partial[i], e, total[i]);
        scale[b * ld_top] = e * worth;
    }
    *max = m * q_scale;
    *sum = kern_fold(total) + (*max - *max);
}

static void ref_softmax_q8(const float *s, int64_t lds, int64_t n_rows, const float *top, int64_t ld_top,
                           const float *q_scale, const kern_values *v, int64_t first, int64_t end, int8_t *codes,
                           float *scale, float *max, float *sum) {
    for (int64_t r = 0; r < n_rows; r++)
        ref_softmax_q8_row(s + r * lds, top + r, scale + r, ld_top, q_scale[r], v, first, end, codes + r * lds, max + r,
                           sum + r);
}

static void ref_pv_q8(const int8_t *p, int64_t ldp, const float *scale, int64_t ld_scale, int64_t n_q,
                      const int8_t *const *v, int64_t page_keys, int64_t first, int64_t end, int64_t head_dim, float *o,
                      int64_t ldo) {
    for (int64_t r = 0; r < n_q; r++)
        for (int64_t d = 0; d < head_dim; d++) {
            o[r * ldo + d] = 0;
            for (int64_t b = first; b < end; b++) {
                int32_t sum = 0;
                for (int64_t j = b * KERN_WEIGHTS; j < (b + 1) * KERN_WEIGHTS; j++) {
                    const int8_t *four = v[j / page_keys] + j % page_keys / 4 * 4 * head_dim + 4 * d;
                    sum += p[r * ldp + j] * four[j % 4];
                }
                o[r * ldo + d] = fmaf((float)sum, scale[b * ld_scale + r], o[r * ldo + d]);
            }
        }
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

static void ref_softmax_row(float *s, int64_t n, float *max, float *sum) {
    float m = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (s[i] > m) m = s[i]; /* false for NaN: it is not the maximum, but stays visible in s and sum */
    m += 0.0f;                  /* -0 becomes +0, so that the order of equal zeros does not show */

    float partial[KERN_LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        s[i] = kern_expf(s[i] - m);
        partial[i % KERN_LANES] += s[i];
    }
    *max = m;
    *sum = kern_fold(partial);
}

static void ref_softmax_part(float *s, int64_t lds, int64_t n_rows, int64_t n, float *max, float *sum) {
    for (int64_t r = 0; r < n_rows; r++) ref_softmax_row(s + r * lds, n, max + r, sum + r);
}

static void ref_clean(const float *x, int64_t n, float *y, float *top) {
    for (int64_t i = 0; i < n; i++) {
        float *best = top + i / KERN_CLEAN;
        if (i % KERN_CLEAN == 0) *best = -INFINITY;
        y[i] = x[i] >= -FLT_MAX ? x[i] <= FLT_MAX ? x[i] : FLT_MAX : -INFINITY;
        if (y[i] > *best) *best = y[i];
        *best += 0.0f; /* -0 becomes +0, so that the order of equal zeros does not show */
    }
}

static void ref_weigh(const float *x, int64_t n, float max, float *w, float *sum, double *dot) {
    float partial[KERN_LANES] = {0};
    double product[KERN_LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        const float below = x[i] - max; /* may be minus infinity */
        w[i] = kern_expf(below);
        partial[i % KERN_LANES] += w[i];
        if (w[i] > 0) product[i % KERN_LANES] += (double)w[i] * (double)below;
    }
    for (int step = KERN_LANES / 2; step > 0; step /= 2)
        for (int i = 0; i < step; i++) {
            partial[i] += partial[i + step];
            product[i] += product[i + step];
        }
    *sum = partial[0];
    *dot = product[0];
}

static void ref_join_row(float *max, float *sum, float *o, float m2, float sum2, const float *o2, int64_t n) {
    float m = *max > m2 ? *max : m2;
    float a = kern_expf(*max - m), b = kern_expf(m2 - m);
    *sum = fmaf(*sum, a, sum2 * b);
    for (int64_t d = 0; d < n; d++) o[d] = fmaf(o[d], a, o2[d] * b);
    *max = m;
}

static void ref_softmax_join(float *max, float *sum, float *o, const float *max2, const float *sum2, const float *o2,
                             int64_t n_rows, int64_t n) {
    for (int64_t r = 0; r < n_rows; r++) ref_join_row(max + r, sum + r, o + r * n, max2[r], sum2[r], o2 + r * n, n);
}

void kern_table_ref_attention(kern_table *table) {
    table->qk[KERN_KV_F16] = ref_qk_f16;
    table->qk[KERN_KV_F32] = ref_qk_f32;
    table->pv[KERN_KV_F16] = ref_pv_f16;
    table->pv[KERN_KV_F32] = ref_pv_f32;
    table->quantize_row = ref_quantize_codes;
    table->qk_q8 = ref_qk_q8;
    table->value_codes = kern_ref_value_codes;
    table->softmax_q8 = ref_softmax_q8;
    table->pv_q8 = ref_pv_q8;
    table->softmax_part = ref_softmax_part;
    table->clean = ref_clean;
    table->weigh = ref_weigh;
    table->softmax_join = ref_softmax_join;
}
