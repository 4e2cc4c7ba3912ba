/* elementwise.c: the definition of everything between the matrix products: norm, SwiGLU, rotary embedding, sums,
 * conversions. */
#include "../internal.h"

#include <math.h>

static void ref_rms_norm(const float *x, const float *w, int64_t n, float eps, float *y) {
    float partial[KERN_LANES] = {0};
    for (int64_t i = 0; i < n; i++) partial[i % KERN_LANES] = fmaf(x[i], x[i], partial[i % KERN_LANES]);
    float inv = 1.0f / sqrtf(kern_fold(partial) / (float)n + eps);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * inv * w[i];
}

static void ref_layer_norm(const float *x, const float *w, const float *b, int64_t n, float eps, float *y) {
    float sum[KERN_LANES] = {0}, squares[KERN_LANES] = {0};
    for (int64_t i = 0; i < n; i++) sum[i % KERN_LANES] += x[i];
    float mean = kern_fold(sum) / (float)n;
    for (int64_t i = 0; i < n; i++) {
        float c = x[i] - mean;
        squares[i % KERN_LANES] = fmaf(c, c, squares[i % KERN_LANES]);
    }
    float inv = 1.0f / sqrtf(kern_fold(squares) / (float)n + eps);
    for (int64_t i = 0; i < n; i++) y[i] = fmaf((x[i] - mean) * inv, w[i], b[i]);
}

static void ref_add(float *x, const float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

static void ref_silu_mul(float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + kern_expf(-gate[i])) * up[i];
}

static float ref_gelu(float g) {
    return g / (1.0f + kern_expf(-(g * fmaf(g * g, KERN_GELU_C3, KERN_GELU_C1))));
}

static void ref_gelu_mul(float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) gate[i] = up ? ref_gelu(gate[i]) * up[i] : ref_gelu(gate[i]);
}

static void ref_softcap(float *x, int64_t n, float cap) {
    float inv = 1.0f / cap;
    for (int64_t i = 0; i < n; i++) x[i] = cap * kern_tanhf(x[i] * inv);
}

/* Of no family that is often run: there is no other version. */
static void ref_clamp(float *x, int64_t n, float limit) {
    for (int64_t i = 0; i < n; i++) x[i] = x[i] < -limit ? -limit : x[i] > limit ? limit : x[i];
}

/* Turns the pair (a, b) by the angle whose cosine and sine are c and s. */
static void ref_rotate(float *a, float *b, float c, float s) {
    float x = *a, y = *b;
    *a = fmaf(x, c, -(y * s));
    *b = fmaf(x, s, y * c);
}

static void ref_rope_adjacent(float *x, int64_t n_heads, int64_t head_dim, int64_t n_rot, const float *cs) {
    for (int64_t h = 0; h < n_heads; h++, x += head_dim)
        for (int64_t i = 0; i < n_rot / 2; i++) ref_rotate(&x[2 * i], &x[2 * i + 1], cs[2 * i], cs[2 * i + 1]);
}

static void ref_rope_split(float *x, int64_t n_heads, int64_t head_dim, int64_t n_rot, const float *cs) {
    for (int64_t h = 0; h < n_heads; h++, x += head_dim)
        for (int64_t i = 0; i < n_rot / 2; i++) ref_rotate(&x[i], &x[i + n_rot / 2], cs[2 * i], cs[2 * i + 1]);
}

static void ref_scale(const float *x, float a, int64_t n, float *y) {
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * a;
}

static void ref_to_f16(const float *x, int64_t n, uint16_t *y) {
    for (int64_t i = 0; i < n; i++) y[i] = kern_f32_to_f16(x[i]);
}

static void ref_from_f16(const uint16_t *x, int64_t n, float *y) {
    for (int64_t i = 0; i < n; i++) y[i] = kern_f16_to_f32(x[i]);
}

void kern_table_ref_elementwise(kern_table *table) {
    table->rms_norm = ref_rms_norm;
    table->layer_norm = ref_layer_norm;
    table->add = ref_add;
    table->silu_mul = ref_silu_mul;
    table->gelu_mul = ref_gelu_mul;
    table->softcap = ref_softcap;
    table->clamp = ref_clamp;
    table->rope_adjacent = ref_rope_adjacent;
    table->rope_split = ref_rope_split;
    table->scale = ref_scale;
    table->to_f16 = ref_to_f16;
    table->from_f16 = ref_from_f16;
}
