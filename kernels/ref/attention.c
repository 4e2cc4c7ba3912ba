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

/* The bits of the largest |x|, which have the order of numbers; NaN is above all. */
static uint32_t ref_top(const float *x, int64_t n) {
    uint32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = kern_f32_to_bits(x[i]) & 0x7fffffff;
        if (bits > top) top = bits;
    }
    return top;
}

static void ref_codes(const float *x, int64_t n, float inv, int8_t *codes) {
    for (int64_t i = 0; i < n; i++) codes[i] = inv == 0 ? 0 : (int8_t)rintf(x[i] * inv);
}

static void ref_quantize_row(const float *x, int64_t n, int8_t *codes, float *scale) {
    ref_codes(x, n, kern_code_scale(ref_top(x, n), 127, scale), codes);
}

static void ref_quantize_value(const float *x, int64_t n, int8_t *codes, float *level) {
    ref_codes(x, n, kern_value_level(ref_top(x, n), 127, level), codes);
}

/* Codes -8 to 7 for -7.5 to 7.5, both ends half a step off. */
static void ref_codes_q4(const float *x, int64_t n, float inv, int8_t *codes) {
    for (int64_t i = 0; i < n; i++) {
        const float code = inv == 0 ? 0.0f : rintf(x[i] * inv);
        codes[i] = (int8_t)(code > 7 ? 7 : code);
    }
}

static void ref_quantize_row_q4(const float *x, int64_t n, int8_t *codes, float *scale) {
    ref_codes_q4(x, n, kern_code_scale(ref_top(x, n), 7.5f, scale), codes);
}

static void ref_quantize_value_q4(const float *x, int64_t n, int8_t *codes, float *level) {
    ref_codes_q4(x, n, kern_value_level(ref_top(x, n), 7.5f, level), codes);
}

static void ref_unpack_q4(const uint8_t *packed, int64_t n, int8_t *low, int8_t *high) {
    for (int64_t i = 0; i < n; i++) {
        low[i] = (int8_t)((packed[i] & 15) - 8);
        high[i] = (int8_t)((packed[i] >> 4) - 8);
    }
}

static void ref_scores_q8(const kern_look *l, int64_t row, int64_t n, const int8_t *k, const float *k_scale, float *s) {
    for (int64_t r = 0; r < n; r++)
        for (int64_t j = 0; j < 16; j++) {
            int32_t sum = 0;
            for (int64_t d = 0; d < 4 * l->n_groups; d++)
                sum += l->q[(row + r) * l->ldq + d] * k[(d / 4 * l->page_keys + j) * 4 + d % 4];
            s[r * KERN_RANGE + j] = (float)sum * k_scale[j];
        }
}

static void ref_cap_scores(float *s, int64_t n, float q_scale, float cap) {
    for (int64_t i = 0; i < n; i++) s[i] = cap * kern_tanhf(s[i] * q_scale * (1.0f / cap));
}

static float ref_largest(const float *s, int64_t n) {
    float m = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (s[i] > m) m = s[i]; /* false for NaN: it is not the maximum */
    return m + 0.0f;            /* -0 becomes +0, so that the order of equal zeros does not show */
}

static void ref_block_values(const float *const *level, kern_seen k, kern_block_values *out) {
    float top = KERN_LEVEL_MIN;
    for (int64_t i = k.first; i < k.end && !isnan(top); i++) {
        const float v = level[i / 16][i % 16];
        if (!(v <= top)) top = v;
    }
    out->worth = kern_level_scale(top);
    memset(out->down, 255, KERN_WEIGHTS);
    for (int64_t i = k.first; i < k.end; i++) {
        const float down = top - level[i / 16][i % 16];
        if (down < 255) out->down[i] = (uint8_t)down;
    }
}

static int32_t ref_weight_codes(const float *s, kern_seen k, float a, float z, const uint8_t *down, int8_t *codes) {
    int32_t sum = 0;
    memset(codes, 0, KERN_WEIGHTS);
    for (int64_t i = k.first; i < k.end; i++) {
        const float x = rintf(fmaf(s[i], a, z));
        const int y = !(x > 0 && x < 0x1p31f) ? 0 : x < 255 ? (int)x : 255;
        sum += kern_weight_code(y);
        codes[i] = y < down[i] ? 0 : kern_weight_code(y - down[i]);
    }
    return sum;
}

static void ref_exp(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = kern_expf(x[i]);
}

/* A row whose scores are there. whole: what to know of values for rows that see all of a block */
static void weights_row(const kern_weights_steps *steps, const kern_look *l, int64_t r, float *s,
                        const float *const (*level)[KERN_WEIGHTS / 16], const kern_block_values *whole, int8_t *codes,
                        float *scale, int64_t ld_scale, float *max, float *sum) {
    enum { BLOCKS = KERN_RANGE / KERN_WEIGHTS };
    const int64_t first = l->seen[r].first, end = l->seen[r].end, block = first / KERN_WEIGHTS, stop = kern_blocks(end);
    const float q_scale = l->cap > 0 ? 1 : l->q_scale[r], a = q_scale * KERN_WEIGHT_STEPS;
    float t[BLOCKS] = {0}, e[BLOCKS], m = -INFINITY, total = 0;
    for (int64_t b = block; b < stop; b++) {
        const kern_seen k = kern_seen_of(b, first, end);
        if (l->cap > 0) steps->cap(s + k.begin, KERN_WEIGHTS, l->q_scale[r], l->cap);
        t[b] = steps->largest(s + k.begin + k.first, k.end - k.first);
        if (t[b] > m) m = t[b];
    }
    for (int64_t b = block; b < stop; b++) e[b] = (t[b] - m) * q_scale;
    steps->exp(e + block, stop - block);
    for (int64_t b = block; b < stop; b++) {
        const kern_seen k = kern_seen_of(b, first, end);
        const kern_block_values *v = whole + b;
        kern_block_values some;
        if (!kern_all_seen(k)) steps->values(level[b], k, &some), v = &some;
        const int32_t part = steps->codes(s + k.begin, k, a, fmaf(-t[b], a, 255), v->down, codes + k.begin);
        total = fmaf((float)part, e[b], total);
        scale[b * ld_scale] = e[b] * v->worth;
    }
    *max = m * q_scale;
    *sum = total + (*max - *max);
}

void kern_weights_by_steps(const kern_weights_steps *steps, const kern_look *l, int8_t *codes, int64_t ld, float *scale,
                           int64_t ld_scale, float *max, float *sum) {
    enum { ROWS = 4, BLOCKS = KERN_RANGE / KERN_WEIGHTS, PIECES = KERN_WEIGHTS / 16 };
    const kern_view all = kern_seen_by_some(l);
    const int64_t block = all.first / KERN_WEIGHTS, stop = kern_blocks(all.end);
    const float *level[BLOCKS][PIECES];
    kern_block_values whole[BLOCKS];
    float s[ROWS * KERN_RANGE];
    for (int64_t b = block; b < stop; b++) {
        for (int64_t i = 0; i < PIECES; i++) {
            const int64_t key = b * KERN_WEIGHTS + 16 * i;
            level[b][i] = l->v_level[key / l->page_keys] + key % l->page_keys;
        }
        const kern_seen k = kern_seen_of(b, all.first, all.end);
        if (kern_all_seen(k)) steps->values((const float *const *)level[b], k, &whole[b]);
    }
    for (int64_t row = 0; row < l->rows; row += ROWS) {
        const int64_t n = l->rows - row < ROWS ? l->rows - row : ROWS;
        for (int64_t key = block * KERN_WEIGHTS; key < stop * KERN_WEIGHTS; key += 16) {
            const int64_t page = key / l->page_keys, at = key % l->page_keys;
            steps->scores(l, row, n, l->k[page] + 4 * at, l->k_scale[page] + at, s + key);
        }
        for (int64_t r = row; r < row + n; r++) {
            memset(codes + r * ld + block * KERN_WEIGHTS, 0, (size_t)((stop - block) * KERN_WEIGHTS));
            for (int64_t b = block; b < stop; b++) scale[b * ld_scale + r] = 0;
            max[r] = -INFINITY, sum[r] = 0;
            if (l->seen[r].first < l->seen[r].end)
                weights_row(steps, l, r, s + (r - row) * KERN_RANGE, (const float *const(*)[PIECES])level, whole,
                            codes + r * ld, scale + r, ld_scale, max + r, sum + r);
        }
    }
}

const kern_weights_steps kern_ref_weights_steps = {ref_scores_q8,    ref_cap_scores,   ref_largest,
                                                   ref_block_values, ref_weight_codes, ref_exp};

static void ref_weights_q8(const kern_look *l, int8_t *codes, int64_t ld, float *scale, int64_t ld_scale, float *max,
                           float *sum) {
    kern_weights_by_steps(&kern_ref_weights_steps, l, codes, ld, scale, ld_scale, max, sum);
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
    const float m = ref_largest(s, n); /* NaN stays visible in s and sum */
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
    table->quantize_row = ref_quantize_row;
    table->quantize_value = ref_quantize_value;
    table->quantize_row_q4 = ref_quantize_row_q4;
    table->quantize_value_q4 = ref_quantize_value_q4;
    table->unpack_q4 = ref_unpack_q4;
    table->weights_q8 = ref_weights_q8;
    table->pv_q8 = ref_pv_q8;
    table->softmax_part = ref_softmax_part;
    table->clean = ref_clean;
    table->weigh = ref_weigh;
    table->softmax_join = ref_softmax_join;
}
