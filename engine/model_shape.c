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

/* An integer key in lo..hi. `fallback` < 0: the key is required. */
static int shape_int(shape_reader *r, const char *suffix, int64_t fallback, int64_t lo, int64_t hi) {
    if (r->status) return 0;
    uint32_t value = (uint32_t)fallback;
    int found = 0;
    r->status = gguf_get_u32(r->m->file, shape_key(r, suffix), &value, fallback < 0 ? NULL : &found, r->e);
    if (!r->status && (value < lo || value > hi)) {
        r->status = err_set(r->e, MINIM_ERR_FORMAT, "%s: key %s is %lu, expected %lld to %lld", gguf_path(r->m->file),
                            shape_key(r, suffix), (unsigned long)value, (long long)lo, (long long)hi);
    }
    return r->status ? 0 : (int)value;
}

/* A number key that must be finite and > 0. NaN as fallback: the key is required. */
static float shape_float(shape_reader *r, const char *suffix, float fallback, int zero_is_fallback) {
    if (r->status) return 0;
    float value = fallback;
    int found = 0;
    r->status = gguf_get_f32(r->m->file, shape_key(r, suffix), &value, isnan(fallback) ? NULL : &found, r->e);
    if (!r->status && zero_is_fallback && value == 0) value = fallback;
    if (!r->status && !(value > 0 && isfinite(value))) {
        r->status = err_set(r->e, MINIM_ERR_FORMAT, "%s: key %s is %g, expected a number above 0",
                            gguf_path(r->m->file), shape_key(r, suffix), (double)value);
    }
    return r->status ? 0 : value;
}

static void shape_require(shape_reader *r, int ok, minim_status status, const char *text) {
    if (r->status || ok) return;
    r->status = err_set(r->e, status, "%s: %s", gguf_path(r->m->file), text);
}

static minim_status shape_unknown_family(minim_model *m, gguf_str found, minim_error *e) {
    char known[200] = "";
    const family *row;
    for (size_t i = 0; (row = family_at(i)); i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", row->architecture);
    }
    return err_set(e, MINIM_ERR_UNSUPPORTED, "%s: architecture \"%.64s\" is not known; known are: %s",
                   gguf_path(m->file), found.s, known);
}

static void shape_read_rope(shape_reader *r, model_shape *s) {
    s->n_rot = shape_int(r, "rope.dimension_count", s->head_dim, 2, s->head_dim);
    shape_require(r, s->n_rot % 2 == 0, MINIM_ERR_FORMAT, "rope.dimension_count is odd, expected an even number");
    s->rope_base = shape_float(r, "rope.freq_base", 10000.0f, 0);
    float factor = shape_float(r, "rope.scale_linear", 1.0f, 1);
    factor = shape_float(r, "rope.scaling.factor", factor, 1);
    gguf_str type = {"linear", 6};
    int found;
    if (!r->status) r->status = gguf_get_str(r->m->file, shape_key(r, "rope.scaling.type"), &type, &found, r->e);
    if (r->status) return;
    if (!strcmp(type.s, "none")) {
        factor = 1;
    } else if (strcmp(type.s, "linear") != 0) {
        r->status = err_set(r->e, MINIM_ERR_UNSUPPORTED, "%s: rope.scaling.type \"%.32s\", known are: none, linear",
                            gguf_path(r->m->file), type.s);
    }
    s->rope_scale = 1.0f / factor;
}

minim_status model_read_shape(minim_model *m, minim_error *e) {
    gguf_str architecture;
    minim_status status = gguf_get_str(m->file, "general.architecture", &architecture, NULL, e);
    if (status) return status;
    m->family = family_find(architecture.s);
    if (!m->family) return shape_unknown_family(m, architecture, e);

    shape_reader r = {.m = m, .e = e};
    model_shape s = {0};
    s.n_layers = shape_int(&r, "block_count", -1, 1, SHAPE_MAX_LAYERS);
    s.n_embd = shape_int(&r, "embedding_length", -1, 1, SHAPE_MAX_WIDTH);
    s.n_ff = shape_int(&r, "feed_forward_length", -1, 1, SHAPE_MAX_WIDTH);
    s.n_ctx_train = shape_int(&r, "context_length", -1, 1, INT32_MAX / 2);
    s.n_heads = shape_int(&r, "attention.head_count", -1, 1, SHAPE_MAX_HEADS);
    s.n_kv_heads = shape_int(&r, "attention.head_count_kv", s.n_heads, 1, SHAPE_MAX_HEADS);
    s.norm_eps = shape_float(&r, "attention.layer_norm_rms_epsilon", NAN, 0);
    if (!r.status && s.n_heads % s.n_kv_heads != 0) {
        r.status = err_set(e, MINIM_ERR_FORMAT, "%s: %d attention heads can not share %d key-value heads",
                           gguf_path(m->file), s.n_heads, s.n_kv_heads);
    }
    int default_dim = !r.status && s.n_heads > 0 && s.n_embd % s.n_heads == 0 ? s.n_embd / s.n_heads : -1;
    if (!r.status && default_dim < 0 && !gguf_find(m->file, shape_key(&r, "attention.key_length"))) {
        r.status = err_set(e, MINIM_ERR_FORMAT,
                           "%s: embedding_length %d is not a multiple of %d heads, and attention.key_length is missing",
                           gguf_path(m->file), s.n_embd, s.n_heads);
    }
    s.head_dim = shape_int(&r, "attention.key_length", default_dim, 1, SHAPE_MAX_HEAD_DIM);
    int value_dim = shape_int(&r, "attention.value_length", s.head_dim, 1, SHAPE_MAX_HEAD_DIM);
    shape_require(&r, value_dim == s.head_dim, MINIM_ERR_UNSUPPORTED,
                  "attention.value_length differs from attention.key_length, which no family of minim has");
    int experts = shape_int(&r, "expert_count", 0, 0, INT32_MAX);
    shape_require(&r, experts == 0, MINIM_ERR_UNSUPPORTED, "mixture-of-experts models are not supported yet");
    if (!r.status) shape_read_rope(&r, &s);
    shape_require(&r, (int64_t)s.n_heads * s.head_dim <= SHAPE_MAX_WIDTH, MINIM_ERR_FORMAT,
                  "attention heads times head size is more than 1048576");
    if (!r.status) m->shape = s;
    return r.status;
}
