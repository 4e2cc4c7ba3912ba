/* family_reference.c: the float64 forward pass of family_model.h, written from the descriptions of the families: one
 * long function over whole matrices, no cache, no batches, libm. It knows the families by name and nothing of the
 * engine's table. */
#include "family_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/gguf.h"

typedef struct pass {
    gguf_file *file;
    const char *image, *arch;
    int layer_norm;
    double eps;
} pass;

static int pass_is(const pass *p, const char *names) {
    const char *found = strstr(names, p->arch);
    size_t n = strlen(p->arch);
    while (found && (found[n] != ' ' && found[n] != 0)) found = strstr(found + 1, p->arch);
    return found != NULL && (found == names || found[-1] == ' ');
}

static const gguf_value *pass_key(const pass *p, const char *name) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", p->arch, name);
    return gguf_find(p->file, full);
}

static double pass_element(const gguf_value *v, uint64_t i) {
    float f;
    uint64_t bits =
        gguf_little((const char *)v->data + i * gguf_type_bytes(v->elem_type), gguf_type_bytes(v->elem_type));
    uint32_t low = (uint32_t)bits;
    memcpy(&f, &low, 4);
    return v->elem_type == GGUF_F32 ? (double)f : (double)bits;
}

static double pass_number(const pass *p, const char *name, double fallback) {
    const gguf_value *v = pass_key(p, name);
    return v ? pass_element(v, 0) : fallback;
}

/* A tensor as float32; NULL if there is none. layer < 0: not one of a layer. */
static const float *pass_tensor(const pass *p, int layer, const char *name, const char *end) {
    char full[128], block[16] = "";
    if (layer >= 0) snprintf(block, sizeof block, "blk.%d.", layer);
    snprintf(full, sizeof full, "%s%s%s", block, name, end);
    const gguf_tensor *t = gguf_find_tensor(p->file, full);
    return t ? (const float *)(const void *)(p->image + t->offset) : NULL;
}

static double *pass_zeros(size_t n) {
    double *x = calloc(n, sizeof *x);
    if (!x) abort();
    return x;
}

/* y [n][rows] = x [n][cols] W^T + bias, rows [first, first + rows) of a matrix of `all` rows. */
static void pass_linear(const pass *p, int layer, const char *name, const double *x, int n, int cols, int first,
                        int rows, double *y) {
    const float *w = pass_tensor(p, layer, name, ".weight"), *b = pass_tensor(p, layer, name, ".bias");
    for (int t = 0; t < n; t++)
        for (int r = 0; r < rows; r++) {
            double sum = b ? (double)b[first + r] : 0;
            for (int c = 0; c < cols; c++)
                sum += (double)w[(size_t)(first + r) * (size_t)cols + (size_t)c] * x[t * cols + c];
            y[t * rows + r] = sum;
        }
}

/* In place, n vectors of `dim`; vector i has the weights number i % heads. */
static void pass_norm(const pass *p, int layer_norm, const float *w, const float *b, int heads, double *x, int n,
                      int dim) {
    for (int i = 0; i < n; i++, x += dim) {
        double mean = 0, square = 0;
        const float *weight = w ? w + (size_t)(i % heads) * (size_t)dim : NULL;
        for (int k = 0; k < dim && layer_norm; k++) mean += x[k] / dim;
        for (int k = 0; k < dim; k++) square += (x[k] - mean) * (x[k] - mean) / dim;
        for (int k = 0; k < dim; k++) {
            x[k] = (x[k] - mean) / sqrt(square + p->eps) * (weight ? (double)weight[k] : 1) + (b ? (double)b[k] : 0);
        }
    }
}

static void pass_named_norm(const pass *p, int layer, const char *name, double *x, int n, int dim) {
    const float *w = pass_tensor(p, layer, name, ".weight"), *b = pass_tensor(p, layer, name, ".bias");
    pass_norm(p, p->layer_norm, w, b, 1, x, n, dim);
}

typedef struct rotation {
    int n_rot, split, yarn;
    double base, scale, magnitude, original, fast, slow;
    const float *factors;
} rotation;

static void pass_rope(const rotation *r, double *x, int n, int heads, int dim) {
    double low = fmax(0, floor(r->n_rot * log(r->original / (r->fast * 2 * M_PI)) / (2 * log(r->base))));
    double high = fmin(r->n_rot - 1, ceil(r->n_rot * log(r->original / (r->slow * 2 * M_PI)) / (2 * log(r->base))));
    for (int t = 0; t < n; t++)
        for (int h = 0; h < heads; h++, x += dim)
            for (int i = 0; i < r->n_rot / 2; i++) {
                double angle = t * pow(r->base, -2.0 * i / r->n_rot) / (r->factors ? (double)r->factors[i] : 1);
                double share = fmin(1, fmax(0, (i - low) / fmax(0.001, high - low)));
                angle = r->yarn ? angle * r->scale * share + angle * (1 - share) : angle * r->scale;
                double c = cos(angle) * r->magnitude, s = sin(angle) * r->magnitude;
                double *a = r->split ? x + i : x + 2 * i, *b = r->split ? x + i + r->n_rot / 2 : x + 2 * i + 1;
                double u = *a, v = *b;
                *a = u * c - v * s, *b = u * s + v * c;
            }
}

static double pass_yarn_magnitude(double factor, double multiplier) {
    return factor <= 1 ? 1 : 0.1 * multiplier * log(factor) + 1;
}

static double pass_activation(const pass *p, double x) {
    if (!pass_is(p, "phi2 starcoder2 gemma gemma2 gemma3")) return x / (1 + exp(-x));
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/* out [n][heads * dim] */
typedef struct attention_setting {
    int n, heads, kv_heads, dim, window;
    double scale, cap;
} attention_setting;

static void pass_attention(const attention_setting *a, const double *q, const double *k, const double *v, double *out) {
    double *score = pass_zeros((size_t)a->n);
    for (int t = 0; t < a->n; t++)
        for (int h = 0; h < a->heads; h++) {
            int g = h / (a->heads / a->kv_heads), first = a->window && t >= a->window ? t + 1 - a->window : 0;
            double most = -INFINITY, sum = 0, *o = out + (t * a->heads + h) * a->dim;
            for (int j = first; j <= t; j++) {
                double s = 0;
                for (int d = 0; d < a->dim; d++) {
                    s += q[(t * a->heads + h) * a->dim + d] * k[(j * a->kv_heads + g) * a->dim + d];
                }
                s *= a->scale;
                score[j] = a->cap > 0 ? a->cap * tanh(s / a->cap) : s;
                most = fmax(most, score[j]);
            }
            for (int d = 0; d < a->dim; d++) o[d] = 0;
            for (int j = first; j <= t; j++) sum += score[j] = exp(score[j] - most);
            for (int j = first; j <= t; j++)
                for (int d = 0; d < a->dim; d++) o[d] += score[j] / sum * v[(j * a->kv_heads + g) * a->dim + d];
        }
    free(score);
}

static double *pass_run(const pass *p, const int32_t *tokens, int n, int n_ctx) {
    int d = (int)pass_number(p, "embedding_length", 0), layers = (int)pass_number(p, "block_count", 0);
    attention_setting a = {.n = n, .heads = (int)pass_number(p, "attention.head_count", 0)};
    a.kv_heads = (int)pass_number(p, "attention.head_count_kv", a.heads);
    a.dim = (int)pass_number(p, "attention.key_length", d / a.heads);
    a.cap = pass_is(p, "gemma2") ? pass_number(p, "attn_logit_softcapping", 50) : 0;
    int wide = (pass_is(p, "gemma2") && layers == 46) || (pass_is(p, "gemma3") && layers == 62);
    a.scale = 1 / sqrt(wide ? d / a.heads : a.dim);
    if (pass_is(p, "granite")) a.scale = pass_number(p, "attention.scale", a.scale);

    rotation global = {.n_rot = (int)pass_number(p, "rope.dimension_count", a.dim), .magnitude = 1, .scale = 1};
    global.split = pass_is(p, "phi2 phi3 gemma gemma2 gemma3 qwen2 qwen3 stablelm starcoder2 olmo2");
    global.base = pass_number(p, "rope.freq_base", 10000);
    global.original = pass_number(p, "rope.scaling.original_context_length", pass_number(p, "context_length", 0));
    global.fast = pass_number(p, "rope.scaling.yarn_beta_fast", 32);
    global.slow = pass_number(p, "rope.scaling.yarn_beta_slow", 1);
    rotation local = global;
    const gguf_value *type = pass_key(p, "rope.scaling.type");
    const char *kind = type ? ((const gguf_str *)type->data)->s : "linear";
    double factor = pass_number(p, "rope.scaling.factor", pass_number(p, "rope.scale_linear", 1));
    if (strcmp(kind, "none") != 0) global.scale = 1 / factor;
    global.magnitude = pass_number(p, "rope.scaling.attn_factor", 1);
    if (!strcmp(kind, "yarn")) {
        double multiplier = pass_number(p, "rope.scaling.yarn_log_multiplier", 0);
        global.yarn = 1, global.magnitude *= pass_yarn_magnitude(factor, 1);
        if (multiplier > 0) global.magnitude /= pass_yarn_magnitude(factor, multiplier);
    }
    global.factors = pass_tensor(p, -1, "rope_freqs", ".weight");
    const char *set = n_ctx > global.original ? "rope_factors_long" : "rope_factors_short";
    if (!global.factors) global.factors = pass_tensor(p, -1, set, ".weight");
    if (pass_is(p, "gemma3")) local.base = pass_number(p, "rope.freq_base_swa", 10000);

    int window = pass_is(p, "gemma2 gemma3 olmo2") ? (int)pass_number(p, "attention.sliding_window", 0) : 0;
    if (pass_is(p, "gemma2") && !window) window = 4096;
    const gguf_value *pattern = pass_key(p, "attention.sliding_window_pattern");
    int period = pass_is(p, "gemma2") ? 2 : pass_is(p, "gemma3") ? 6 : 4;
    if (pattern && pattern->type != GGUF_ARR) period = (int)pass_element(pattern, 0);
    double residual = pass_is(p, "granite") ? pass_number(p, "residual_scale", 1) : 1;
    double clamp = pass_number(p, "attention.clamp_kqv", INFINITY), embedding = 1;
    double temperature = pass_is(p, "mistral3") ? pass_number(p, "attention.temperature_scale", 0) : 0;
    int no_rope = pass_is(p, "granite") && pass_number(p, "rope.scaling.finetuned", 1) == 0;

    int nq = a.heads * a.dim, nk = a.kv_heads * a.dim, most_ff = 0;
    const gguf_value *ff_key = pass_key(p, "feed_forward_length");
    for (uint64_t i = 0; i < ff_key->count; i++) most_ff = (int)fmax(most_ff, pass_element(ff_key, i));
    double *x = pass_zeros((size_t)(n * d)), *h = pass_zeros((size_t)(n * d)), *o = pass_zeros((size_t)(n * d));
    double *q = pass_zeros((size_t)(n * nq)), *k = pass_zeros((size_t)(n * nk)), *v = pass_zeros((size_t)(n * nk));
    double *att = pass_zeros((size_t)(n * nq));
    double *gate = pass_zeros((size_t)(n * most_ff)), *up = pass_zeros((size_t)(n * most_ff));
    if (pass_is(p, "gemma gemma2 gemma3")) embedding = sqrt(d);
    if (pass_is(p, "granite")) embedding = pass_number(p, "embedding_scale", 1);
    const float *embd = pass_tensor(p, -1, "token_embd", ".weight");
    for (int i = 0; i < n * d; i++) x[i] = embedding * (double)embd[tokens[i / d] * d + i % d];

    for (int il = 0; il < layers; il++) {
        int ff = (int)pass_element(ff_key, ff_key->type == GGUF_ARR ? (uint64_t)il : 0);
        int windowed = window > 0 && (pattern && pattern->type == GGUF_ARR ? pass_element(pattern, (uint64_t)il) != 0
                                                                           : (il + 1) % period != 0);
        memcpy(h, x, (size_t)(n * d) * sizeof *h);
        if (!pass_is(p, "olmo2")) pass_named_norm(p, il, "attn_norm", h, n, d);
        int fused = pass_tensor(p, il, "attn_qkv", ".weight") != NULL;
        pass_linear(p, il, fused ? "attn_qkv" : "attn_q", h, n, d, 0, nq, q);
        pass_linear(p, il, fused ? "attn_qkv" : "attn_k", h, n, d, fused ? nq : 0, nk, k);
        pass_linear(p, il, fused ? "attn_qkv" : "attn_v", h, n, d, fused ? nq + nk : 0, nk, v);
        for (int i = 0; i < n * nq; i++) q[i] = fmin(clamp, fmax(-clamp, q[i]));
        for (int i = 0; i < n * nk; i++) k[i] = fmin(clamp, fmax(-clamp, k[i])), v[i] = fmin(clamp, fmax(-clamp, v[i]));
        const float *qn = pass_tensor(p, il, "attn_q_norm", ".weight"),
                    *kn = pass_tensor(p, il, "attn_k_norm", ".weight");
        if (pass_is(p, "olmo2")) {
            pass_norm(p, 0, qn, NULL, 1, q, n, nq);
            pass_norm(p, 0, kn, NULL, 1, k, n, nk);
        } else if (qn) {
            int each = pass_is(p, "stablelm");
            pass_norm(p, each, qn, NULL, each ? a.heads : 1, q, n * a.heads, a.dim);
            pass_norm(p, each, kn, NULL, each ? a.kv_heads : 1, k, n * a.kv_heads, a.dim);
        }
        const rotation *r = windowed && !pass_is(p, "gemma2") ? &local : &global;
        if (!no_rope && !(pass_is(p, "smollm3") && il % 4 == 3)) {
            pass_rope(r, q, n, a.heads, a.dim);
            pass_rope(r, k, n, a.kv_heads, a.dim);
        }
        for (int i = 0; i < n * nq; i++) q[i] *= 1 + temperature * log(floor(i / nq / global.original) + 1);
        a.window = windowed ? window : 0;
        pass_attention(&a, q, k, v, att);
        pass_linear(p, il, "attn_output", att, n, nq, 0, d, o);
        if (pass_tensor(p, il, "post_attention_norm", ".weight"))
            pass_named_norm(p, il, "post_attention_norm", o, n, d);
        for (int i = 0; i < n * d; i++) x[i] += residual * o[i];

        int parallel = pass_is(p, "phi2") || (pass_is(p, "stablelm") && !pass_tensor(p, il, "ffn_norm", ".weight"));
        if (!parallel) memcpy(h, x, (size_t)(n * d) * sizeof *h);
        if (!parallel && !pass_is(p, "olmo2")) pass_named_norm(p, il, "ffn_norm", h, n, d);
        int has_gate = pass_tensor(p, il, "ffn_gate", ".weight") != NULL, plain = pass_is(p, "phi2 starcoder2");
        pass_linear(p, il, "ffn_up", h, n, d, has_gate || plain ? 0 : ff, ff, up);
        if (!plain) pass_linear(p, il, has_gate ? "ffn_gate" : "ffn_up", h, n, d, 0, ff, gate);
        for (int i = 0; i < n * ff; i++)
            up[i] = plain ? pass_activation(p, up[i]) : pass_activation(p, gate[i]) * up[i];
        pass_linear(p, il, "ffn_down", up, n, ff, 0, d, o);
        if (pass_tensor(p, il, "post_ffw_norm", ".weight")) pass_named_norm(p, il, "post_ffw_norm", o, n, d);
        for (int i = 0; i < n * d; i++) x[i] += residual * o[i];
    }
    pass_named_norm(p, -1, "output_norm", x, n, d);
    double *logits = pass_zeros((size_t)n * FAMILY_MODEL_VOCAB);
    const float *bias = pass_tensor(p, -1, "output", ".bias");
    int own = pass_tensor(p, -1, "output", ".weight") != NULL;
    pass_linear(p, -1, own ? "output" : "token_embd", x, n, d, 0, FAMILY_MODEL_VOCAB, logits);
    double divide = pass_is(p, "granite") ? pass_number(p, "logit_scale", 1) : 1;
    double cap = pass_is(p, "gemma2") ? pass_number(p, "final_logit_softcapping", 30) : 0;
    for (int i = 0; i < n * FAMILY_MODEL_VOCAB; i++) {
        if (bias && !own) logits[i] += (double)bias[i % FAMILY_MODEL_VOCAB];
        logits[i] /= divide;
        if (cap > 0) logits[i] = cap * tanh(logits[i] / cap);
    }
    double *used[] = {x, h, o, q, k, v, att, gate, up};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) free(used[i]);
    return logits;
}

double *family_model_logits(const void *image, size_t size, const int32_t *tokens, int n, int n_ctx) {
    pass p = {.image = image};
    gguf_str arch;
    minim_error e;
    minim_allocator a = mem_allocator(NULL);
    if (gguf_open(&a, "reference", image, size, &p.file, &e) ||
        gguf_get_str(p.file, "general.architecture", &arch, NULL, &e)) {
        fprintf(stderr, "%s\n", e.text);
        abort();
    }
    p.arch = arch.s;
    p.layer_norm = pass_is(&p, "phi2 stablelm starcoder2 olmo");
    p.eps = pass_number(&p, p.layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 0);
    double *logits = pass_run(&p, tokens, n, n_ctx);
    gguf_close(p.file);
    return logits;
}
