/* explain.c: what kind of transformer a file holds, in words, from its hyper-parameters and its list of tensors. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model.h"

/* Counts everything, keeps what fits before a NUL. */
typedef struct explain_text {
    char *buffer;
    size_t capacity, n;
} explain_text;

static void explain_put(explain_text *t, const char *format, ...) BASE_PRINTF(2, 3);

static void explain_put(explain_text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    size_t room = t->n < t->capacity ? t->capacity - t->n : 0;
    int n = vsnprintf(room ? t->buffer + t->n : NULL, room, format, args);
    va_end(args);
    if (n > 0) t->n += (size_t)n;
}

static int explain_has(const minim_model *m, const char *tensor) {
    return gguf_find_tensor(m->file, tensor) != NULL;
}

static void explain_heads(const minim_model *m, explain_text *t) {
    const model_shape *s = &m->shape;
    const family *f = m->family;
    int per_head = f->qk_norm == FAMILY_QK_HEAD || f->qk_norm == FAMILY_QK_HEADS;
    if (per_head && !explain_has(m, "blk.0.attn_q_norm.weight")) per_head = 0;
    explain_put(t, "heads\t");
    if (s->n_kv_heads < s->n_heads)
        explain_put(t, "%d queries share a key and a value", s->n_heads / s->n_kv_heads);
    else
        explain_put(t, "every query has its own key and value");
    if (f->qk_norm == FAMILY_QK_ALL_HEADS) explain_put(t, "; q and k are normed, all heads together");
    if (per_head) explain_put(t, "; q and k are normed, head by head");
    explain_put(t, "\n");
    if (s->n_window_layers) {
        explain_put(t, "window\t%d of %d layers see only the last %d tokens\n", s->n_window_layers, s->n_layers,
                    s->n_window);
    }
}

static void explain_positions(const minim_model *m, explain_text *t) {
    const model_shape *s = &m->shape;
    const family *f = m->family;
    explain_put(t, "positions\t");
    if (s->rope_off) {
        explain_put(t, "none: this model has its rotation switched off\n");
        return;
    }
    explain_put(t, "rotary, %d of %d dimensions of a head, %s, base %.9g", s->n_rot, s->head_dim,
                f->rope == FAMILY_ROPE_ADJACENT ? "pairs side by side" : "pairs half a head apart",
                (double)s->rope_base);
    if (s->n_window_layers && f->window_rope == FAMILY_WINDOW_ROPE_OWN_BASE) {
        explain_put(t, " (%.9g in windowed layers)", (double)s->rope_window_base);
    }
    if (f->no_rope_period) explain_put(t, "; none in one layer of %d", f->no_rope_period);
    if (s->rope_scale != 1) {
        explain_put(t, "; stretched %g times%s%s", 1.0 / (double)s->rope_scale, s->rope_yarn ? " (YaRN)" : "",
                    s->n_window_layers && f->window_rope != FAMILY_WINDOW_ROPE_SAME ? ", not in windowed layers" : "");
    }
    if (explain_has(m, "rope_freqs.weight")) explain_put(t, "; factors from the file");
    if (explain_has(m, "rope_factors_long.weight")) {
        explain_put(t, "; other factors for contexts above %d tokens", s->n_ctx_orig);
    }
    explain_put(t, "\n");
}

static void explain_layer(const minim_model *m, explain_text *t) {
    static const char *const kinds[] = {"RMS norm", "layer norm", "layer norm without weights"};
    static const char *const orders[] = {"before each part", "before and behind each part", "behind each part"};
    static const char *const ffn[] = {"SwiGLU: down(silu(gate x) * up x)", "GeGLU: down(gelu(gate x) * up x)",
                                      "GELU: down(gelu(up x)), no gate"};
    const model_shape *s = &m->shape;
    const family *f = m->family;
    int parallel = f->parallel == FAMILY_PARALLEL || (s->ffn_norm_optional && !explain_has(m, "blk.0.ffn_norm.weight"));
    explain_put(t, "layer\t%s %s; attention and feed-forward %s\n", kinds[f->norm], orders[f->order],
                parallel ? "run in parallel on the same input" : "one after the other");
    explain_put(t, "feed-forward\t%d wide, %s\n", s->n_ff, ffn[f->ffn]);
}

static void explain_biases(const minim_model *m, explain_text *t) {
    static const struct {
        const char *tensor, *name;
    } bias[] = {{"blk.0.attn_qkv.bias", "q, k, v"}, {"blk.0.attn_q.bias", "q"},      {"blk.0.attn_k.bias", "k"},
                {"blk.0.attn_v.bias", "v"},         {"blk.0.attn_output.bias", "o"}, {"blk.0.ffn_gate.bias", "gate"},
                {"blk.0.ffn_up.bias", "up"},        {"blk.0.ffn_down.bias", "down"}, {"output.bias", "output"}};
    int n = 0;
    for (size_t i = 0; i < sizeof bias / sizeof *bias; i++) {
        if (!explain_has(m, bias[i].tensor)) continue;
        explain_put(t, "%s%s", n++ ? ", " : "biases\ton ", bias[i].name);
    }
    if (n) explain_put(t, "\n");
}

static void explain_factors(const minim_model *m, explain_text *t) {
    const model_shape *s = &m->shape;
    const struct {
        const char *text;
        double value, none;
    } factor[] = {{"embeddings times", (double)s->embedding_scale, 1},
                  {"what a part adds times", (double)s->residual_scale, 1},
                  {"scores times", m->family->scalers ? (double)s->attn_scale : 0, 0},
                  {"scores bent below", (double)s->attn_softcap, 0},
                  {"logits times", (double)s->logit_scale, 1},
                  {"logits bent below", (double)s->output_softcap, 0},
                  {"q, k, v clamped to", (double)s->clamp_qkv, 0},
                  {"queries grow with the position by", (double)s->temperature, 0}};
    int n = 0;
    for (size_t i = 0; i < sizeof factor / sizeof *factor; i++) {
        if (factor[i].value == factor[i].none) continue;
        explain_put(t, "%s%s %.4g", n++ ? ", " : "factors\t", factor[i].text, factor[i].value);
    }
    if (n) explain_put(t, "\n");
}

minim_status minim_model_explain(const minim_model *m, char *buffer, size_t capacity, size_t *needed) {
    if (!m || (!buffer && capacity)) return MINIM_ERR_ARGUMENT;
    explain_text t = {buffer, capacity, 0};
    if (capacity) buffer[0] = 0;
    if (m->family && m->shape.n_layers) {
        explain_put(&t, "family\t%s\nspecial\t%s\n", m->family->title, m->family->story);
        explain_heads(m, &t);
        explain_positions(m, &t);
        explain_layer(m, &t);
        explain_biases(m, &t);
        explain_factors(m, &t);
        explain_put(&t, "output\t%s\n",
                    explain_has(m, "output.weight") ? "a matrix of its own" : "the embedding matrix once more");
    }
    if (needed) *needed = t.n;
    return t.n < capacity ? MINIM_OK : MINIM_ERR_SPACE;
}
