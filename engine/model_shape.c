/* model_shape.c: the hyper-parameters of a file, key by key, each checked where it is read. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model.h"

/* Larger than any dense model that exists, small enough that no product below can overflow. */
enum { SHAPE_MAX_LAYERS = 1024, SHAPE_MAX_WIDTH = 1 << 20, SHAPE_MAX_HEADS = 4096, SHAPE_MAX_HEAD_DIM = 1024 };

typedef struct shape_reader {
    minim_model *m;
    minim_error *e;
    minim_status status; /* the first failure; later reads do nothing */
    char key[128];
} shape_reader;

static const char *shape_key(shape_reader *r, const char *suffix) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->m->family->architecture, suffix);
    return r->key;
}

static int shape_has(shape_reader *r, const char *suffix) {
    return !r->status && gguf_find(r->m->file, shape_key(r, suffix)) != NULL;
}

static void shape_require(shape_reader *r, int ok, minim_status status, const char *text) {
    if (r->status || ok) return;
    r->status = err_set(r->e, status, "%s: %s", gguf_path(r->m->file), text);
}

/* ---- values of one key ------------------------------------------------------------------------------------------- */

static int shape_in_range(shape_reader *r, const char *suffix, uint64_t value, int64_t lo, int64_t hi) {
    if (r->status || (value <= INT64_MAX && (int64_t)value >= lo && (int64_t)value <= hi)) return !r->status;
    r->status = err_set(r->e, MINIM_ERR_FORMAT, "%s: key %s is %llu, expected %lld to %lld", gguf_path(r->m->file),
                        shape_key(r, suffix), (unsigned long long)value, (long long)lo, (long long)hi);
    return 0;
}

/* An integer key in lo..hi. `fallback` < 0: the key is required. */
static int shape_int(shape_reader *r, const char *suffix, int64_t fallback, int64_t lo, int64_t hi) {
    if (r->status) return 0;
    uint32_t value = (uint32_t)fallback;
    int found = 0;
    r->status = gguf_get_u32(r->m->file, shape_key(r, suffix), &value, fallback < 0 ? NULL : &found, r->e);
    return shape_in_range(r, suffix, value, lo, hi) ? (int)value : 0;
}

/* A number key. NaN as fallback: the key is required; `zero` is what a 0 stands for, NaN where it may not be 0. */
static float shape_float(shape_reader *r, const char *suffix, float fallback, float zero) {
    if (r->status) return 0;
    float value = fallback;
    int found = 0;
    r->status = gguf_get_f32(r->m->file, shape_key(r, suffix), &value, isnan(fallback) ? NULL : &found, r->e);
    if (!r->status && value == 0 && !isnan(zero)) return zero;
    if (!r->status && !(value > 0 && isfinite(value))) {
        r->status = err_set(r->e, MINIM_ERR_FORMAT, "%s: key %s is %g, expected a number %s", gguf_path(r->m->file),
                            shape_key(r, suffix), (double)value, isnan(zero) ? "above 0" : "above 0, or 0 for none");
    }
    return r->status ? 0 : value;
}

/* ---- values per layer -------------------------------------------------------------------------------------------- */

/* The key as an array with an integer or bool for every layer; NULL when it is missing or a scalar. */
static const gguf_value *shape_layers(shape_reader *r, const char *suffix) {
    const gguf_value *v = r->status ? NULL : gguf_find(r->m->file, shape_key(r, suffix));
    if (!v || v->type != GGUF_ARR) return NULL;
    if (v->elem_type == GGUF_F32 || v->elem_type == GGUF_F64 || gguf_type_bytes(v->elem_type) == 0) {
        char type[32];
        r->status = err_set(r->e, MINIM_ERR_FORMAT, "%s: key %s is %s, expected an integer or an array of integers",
                            gguf_path(r->m->file), shape_key(r, suffix), gguf_type_text(v, type, sizeof type));
    } else if (v->count < (uint64_t)r->m->shape.n_layers) {
        r->status =
            err_set(r->e, MINIM_ERR_FORMAT, "%s: key %s has %llu values, expected one for each of %d layers",
                    gguf_path(r->m->file), shape_key(r, suffix), (unsigned long long)v->count, r->m->shape.n_layers);
    }
    return r->status ? NULL : v;
}

/* Negative numbers come out as huge ones. */
static uint64_t shape_element(const gguf_value *v, int i) {
    size_t size = gguf_type_bytes(v->elem_type);
    uint64_t x = gguf_little((const char *)v->data + (size_t)i * size, size);
    int is_signed = v->elem_type == GGUF_I8 || v->elem_type == GGUF_I16 || v->elem_type == GGUF_I32;
    return is_signed && x >> (8 * size - 1) ? UINT64_MAX : x;
}

/* An integer that a file may give as an array with the same number for every layer. */
static int shape_same_int(shape_reader *r, const char *suffix, int64_t fallback, int64_t lo, int64_t hi) {
    const gguf_value *v = shape_layers(r, suffix);
    if (!v) return shape_int(r, suffix, fallback, lo, hi);
    uint64_t value = shape_element(v, 0);
    for (int i = 1; i < r->m->shape.n_layers && !r->status; i++) {
        if (shape_element(v, i) == value) continue;
        r->status = err_set(r->e, MINIM_ERR_UNSUPPORTED,
                            "%s: key %s differs from layer to layer, which no family of "
                            "minim does",
                            gguf_path(r->m->file), shape_key(r, suffix));
    }
    return shape_in_range(r, suffix, value, lo, hi) ? (int)value : 0;
}

static void shape_read_ff(shape_reader *r, model_shape *s) {
    static const char suffix[] = "feed_forward_length";
    const gguf_value *v = shape_layers(r, suffix);
    int same = v ? 0 : shape_int(r, suffix, -1, 1, SHAPE_MAX_WIDTH);
    for (int i = 0; i < s->n_layers && !r->status; i++) {
        uint64_t n = v ? shape_element(v, i) : (uint64_t)same;
        if (!shape_in_range(r, suffix, n, 1, SHAPE_MAX_WIDTH)) return;
        r->m->layers[i].n_ff = (int)n;
        if (s->n_ff < (int)n) s->n_ff = (int)n;
    }
}

/* Which layers see a window, and which rotate how. */
static void shape_read_windows(shape_reader *r, model_shape *s) {
    static const char length[] = "attention.sliding_window", pattern[] = "attention.sliding_window_pattern";
    const family *f = r->m->family;
    if (f->window != FAMILY_WINDOW_NONE) {
        int required = f->window == FAMILY_WINDOW_REQUIRED;
        s->n_window = shape_int(r, length, required ? -1 : f->window_default, 0, INT32_MAX);
        if (s->n_window == 0) s->n_window = f->window_default;
    }
    const gguf_value *v = s->n_window ? shape_layers(r, pattern) : NULL;
    int period = s->n_window && !v ? shape_int(r, pattern, f->window_period, 0, SHAPE_MAX_LAYERS) : 1;
    for (int i = 0; i < s->n_layers && !r->status; i++) {
        model_layer *layer = &r->m->layers[i];
        int windowed = v ? shape_element(v, i) != 0 : period == 0 || (i + 1) % period != 0;
        if (windowed) layer->n_window = s->n_window, s->n_window_layers++;
        layer->rope = windowed && f->window_rope != FAMILY_WINDOW_ROPE_SAME ? MODEL_ROPE_WINDOW : MODEL_ROPE_NEAR;
        if (!windowed) layer->kv_slot = i - s->n_window_layers;
        if (s->rope_off || (f->no_rope_period && (i + 1) % f->no_rope_period == 0)) layer->rope = MODEL_ROPE_NONE;
    }
}

/* Windowed layers behind the others. */
static void shape_order_windows(minim_model *m) {
    int slot = m->shape.n_layers - m->shape.n_window_layers;
    for (int i = 0; i < m->shape.n_layers; i++) {
        if (m->layers[i].n_window) m->layers[i].kv_slot = slot++;
    }
}

/* ---- groups of keys ---------------------------------------------------------------------------------------------- */

/* The YaRN paper's factor for scores, as a factor for q and k. */
static double shape_yarn_magnitude(double factor, double multiplier) {
    return factor <= 1 ? 1.0 : 0.1 * multiplier * kern_log(factor) + 1.0;
}

static void shape_read_rope(shape_reader *r, model_shape *s) {
    const family *f = r->m->family;
    s->n_rot = shape_int(r, "rope.dimension_count", s->head_dim, 2, s->head_dim);
    shape_require(r, s->n_rot % 2 == 0, MINIM_ERR_FORMAT, "rope.dimension_count is odd, expected an even number");
    shape_require(r, !f->whole_rope || s->n_rot == s->head_dim, MINIM_ERR_FORMAT,
                  "rope.dimension_count differs from the head size, expected the same in this architecture");
    s->rope_base = shape_float(r, "rope.freq_base", 10000.0f, NAN);
    s->rope_window_base = s->rope_base;
    if (f->window_rope == FAMILY_WINDOW_ROPE_OWN_BASE) {
        s->rope_window_base = shape_float(r, "rope.freq_base_swa", 10000.0f, NAN);
    }
    float factor = shape_float(r, "rope.scale_linear", 1.0f, 1.0f);
    factor = shape_float(r, "rope.scaling.factor", factor, 1.0f);
    s->rope_magnitude = shape_float(r, "rope.scaling.attn_factor", 1.0f, NAN);
    s->n_ctx_orig = shape_int(r, "rope.scaling.original_context_length", s->n_ctx_train, 1, INT32_MAX / 2);
    gguf_str type = {"linear", 6};
    int found;
    if (!r->status) r->status = gguf_get_str(r->m->file, shape_key(r, "rope.scaling.type"), &type, &found, r->e);
    if (r->status) return;
    if (!strcmp(type.s, "none")) {
        factor = 1;
    } else if (!strcmp(type.s, "yarn")) {
        s->rope_yarn = 1;
        s->yarn_fast = shape_float(r, "rope.scaling.yarn_beta_fast", 32.0f, NAN);
        s->yarn_slow = shape_float(r, "rope.scaling.yarn_beta_slow", 1.0f, NAN);
        float multiplier = shape_float(r, "rope.scaling.yarn_log_multiplier", 0.0f, 0.0f);
        double magnitude = shape_yarn_magnitude((double)factor, 1);
        if (multiplier > 0) magnitude /= shape_yarn_magnitude((double)factor, (double)multiplier);
        s->rope_magnitude = (float)((double)s->rope_magnitude * magnitude);
    } else if (strcmp(type.s, "linear") != 0 && strcmp(type.s, "longrope") != 0) {
        r->status = err_set(r->e, MINIM_ERR_UNSUPPORTED,
                            "%s: rope.scaling.type \"%.32s\", known are: none, linear, yarn, longrope",
                            gguf_path(r->m->file), type.s);
    }
    s->rope_scale = 1.0f / factor;
}

/* Factors and limits of scores, of the residual stream and of logits. */
static void shape_read_factors(shape_reader *r, model_shape *s) {
    const family *f = r->m->family;
    s->embedding_scale = f->scale_embedding ? sqrtf((float)s->n_embd) : 1.0f;
    s->residual_scale = s->logit_scale = 1.0f;
    if (r->status || s->n_heads < 1) return;
    int wide = f->wide_layers == s->n_layers;
    s->attn_scale = (float)(1.0 / sqrt((double)(wide ? s->n_embd / s->n_heads : s->head_dim)));
    s->attn_softcap = shape_float(r, "attn_logit_softcapping", f->attn_softcap, 0.0f);
    s->output_softcap = shape_float(r, "final_logit_softcapping", f->output_softcap, 0.0f);
    s->clamp_qkv = shape_float(r, "attention.clamp_kqv", 0.0f, 0.0f);
    if (f->temperature) s->temperature = shape_float(r, "attention.temperature_scale", 0.0f, 0.0f);
    if (!f->scalers) return;
    s->embedding_scale = shape_float(r, "embedding_scale", 1.0f, 1.0f);
    s->residual_scale = shape_float(r, "residual_scale", 1.0f, 1.0f);
    s->attn_scale = shape_float(r, "attention.scale", s->attn_scale, s->attn_scale);
    s->logit_scale = 1.0f / shape_float(r, "logit_scale", NAN, NAN);
    int found, rotate = 1;
    if (!r->status) {
        r->status = gguf_get_bool(r->m->file, shape_key(r, "rope.scaling.finetuned"), &rotate, &found, r->e);
    }
    s->rope_off = !rotate;
}

static void shape_read_heads(shape_reader *r, model_shape *s) {
    s->n_heads = shape_same_int(r, "attention.head_count", -1, 1, SHAPE_MAX_HEADS);
    s->n_kv_heads = shape_same_int(r, "attention.head_count_kv", s->n_heads, 1, SHAPE_MAX_HEADS);
    if (r->status || s->n_heads < 1 || s->n_kv_heads < 1) return;
    if (s->n_heads % s->n_kv_heads != 0) {
        r->status = err_set(r->e, MINIM_ERR_FORMAT, "%s: %d attention heads can not share %d key-value heads",
                            gguf_path(r->m->file), s->n_heads, s->n_kv_heads);
    }
    int default_dim = s->n_embd % s->n_heads == 0 ? s->n_embd / s->n_heads : -1;
    if (!r->status && default_dim < 0 && !shape_has(r, "attention.key_length")) {
        r->status =
            err_set(r->e, MINIM_ERR_FORMAT,
                    "%s: embedding_length %d is not a multiple of %d heads, and attention.key_length is missing",
                    gguf_path(r->m->file), s->n_embd, s->n_heads);
    }
    s->head_dim = shape_int(r, "attention.key_length", default_dim, 1, SHAPE_MAX_HEAD_DIM);
    int value_dim = shape_int(r, "attention.value_length", s->head_dim, 1, SHAPE_MAX_HEAD_DIM);
    shape_require(r, value_dim == s->head_dim, MINIM_ERR_UNSUPPORTED,
                  "attention.value_length differs from attention.key_length, which no family of minim has");
    shape_require(r, (int64_t)s->n_heads * s->head_dim <= SHAPE_MAX_WIDTH, MINIM_ERR_FORMAT,
                  "attention heads times head size is more than 1048576");
}

static void shape_read_all(shape_reader *r) {
    minim_model *m = r->m;
    model_shape *s = &m->shape;
    int experts = shape_int(r, "expert_count", 0, 0, INT32_MAX);
    shape_require(r, experts == 0 && !gguf_find_tensor(m->file, "blk.0.ffn_gate_inp.weight"), MINIM_ERR_UNSUPPORTED,
                  "this is a mixture-of-experts model, which minim can not run yet; it runs dense models");
    s->n_layers = shape_int(r, "block_count", -1, 1, SHAPE_MAX_LAYERS);
    if (r->status) return;
    m->layers = mem_zalloc(&m->allocator, (size_t)s->n_layers, sizeof *m->layers);
    if (!m->layers) {
        r->status = err_memory(r->e, "the layer table", (uint64_t)s->n_layers * sizeof *m->layers);
        return;
    }
    s->n_embd = shape_int(r, "embedding_length", -1, 1, SHAPE_MAX_WIDTH);
    shape_read_ff(r, s);
    s->n_ctx_train = shape_int(r, "context_length", -1, 1, INT32_MAX / 2);
    shape_read_heads(r, s);
    int rms = m->family->norm == FAMILY_NORM_RMS;
    s->norm_eps = shape_float(r, rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", NAN, NAN);
    if (!r->status && m->family->parallel == FAMILY_PARALLEL_WITHOUT_FFN_NORM) {
        int found;
        s->ffn_norm_optional = 1;
        r->status = gguf_get_bool(m->file, shape_key(r, "use_parallel_residual"), &s->ffn_norm_optional, &found, r->e);
    }
    shape_read_factors(r, s);
    shape_read_rope(r, s);
    shape_read_windows(r, s);
    if (!r->status) shape_order_windows(m);
}

static minim_status shape_unknown_family(minim_model *m, gguf_str found, minim_error *e) {
    char known[300] = "";
    const family *row;
    for (size_t i = 0; (row = family_at(i)); i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", row->architecture);
    }
    return err_set(e, MINIM_ERR_UNSUPPORTED, "%s: architecture \"%.64s\" is not known%s; known are: %s",
                   gguf_path(m->file), found.s,
                   strstr(found.s, "moe") ? " (minim runs no mixtures of experts yet)" : "", known);
}

minim_status model_read_shape(minim_model *m, minim_error *e) {
    gguf_str architecture;
    minim_status status = gguf_get_str(m->file, "general.architecture", &architecture, NULL, e);
    if (status) return status;
    m->family = family_find(architecture.s);
    if (!m->family) return shape_unknown_family(m, architecture, e);
    shape_reader r = {.m = m, .e = e};
    shape_read_all(&r);
    if (r.status) {
        mem_free(&m->allocator, m->layers, (size_t)m->shape.n_layers, sizeof *m->layers);
        m->layers = NULL;
        m->shape = (model_shape){0};
    }
    return r.status;
}
