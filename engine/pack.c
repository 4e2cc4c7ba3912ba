/* pack.c: which tensors of a file become panels in a packed one, and their panels. See minim_panels in minim.h and, for
 * the file, gguf.h. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

minim_status pack_check_scales(const gguf_file *f, const gguf_tensor *t, int as_rows, const void *data, int64_t first,
                               int n_rows, minim_error *e) {
    const int64_t cols = (int64_t)t->dim[0];
    int64_t col = 0;
    const int row = as_rows ? kern_find_bad_scale_in_rows(t->type, cols, data, n_rows, &col)
                            : kern_find_bad_scale(t->type, cols, data, n_rows, &col);
    if (row < 0) return MINIM_OK;
    return err_set(e, MINIM_ERR_FORMAT,
                   "%s: tensor %s: the scale of the block at row %lld, column %lld is infinite or not a number, "
                   "expected a finite one",
                   gguf_path(f), t->name.s, (long long)(first + row), (long long)col);
}

/* The matrices that weights.c loads as such. Norms with a row for each head have two dimensions, too. */
static int pack_is_matrix(const char *name, int *layer, const char **part) {
    static const char *const parts[] = {"attn_q",      "attn_k",   "attn_v", "attn_qkv",
                                        "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    *layer = -1, *part = name;
    if (!strcmp(name, "token_embd.weight") || !strcmp(name, "output.weight")) return 1;
    if (strncmp(name, "blk.", 4) != 0) return 0;
    char *end;
    const long number = strtol(name + 4, &end, 10);
    if (end == name + 4 || *end != '.' || number < 0 || number > INT_MAX) return 0;
    *layer = (int)number, *part = end + 1;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const size_t length = strlen(parts[i]);
        if (!strncmp(*part, parts[i], length) && !strcmp(*part + length, ".weight")) return 1;
    }
    return 0;
}

/* A matrix that holds several is taken apart between panels, or it stays as it is. */
static int pack_parts_are_whole(const minim_model *m, int layer, const char *part) {
    const model_shape *s = &m->shape;
    const int64_t q = (int64_t)s->n_heads * s->head_dim, kv = (int64_t)s->n_kv_heads * s->head_dim;
    char gate[64];
    if (layer >= s->n_layers) return 0;
    if (!strncmp(part, "attn_qkv.", 9)) return q % KERN_PANEL == 0 && kv % KERN_PANEL == 0;
    if (strncmp(part, "ffn_up.", 7) != 0) return 1;
    snprintf(gate, sizeof gate, "blk.%d.ffn_gate.weight", layer);
    return gguf_find_tensor(m->file, gate) || m->layers[layer].n_ff % KERN_PANEL == 0;
}

static int pack_is_packed(const minim_model *m, const gguf_tensor *t) {
    int layer;
    const char *part;
    if (t->panels || t->n_dims != 2 || !kern_panel_bytes(t->type, (int64_t)t->dim[0])) return 0;
    return pack_is_matrix(t->name.s, &layer, &part) && (layer < 0 || pack_parts_are_whole(m, layer, part));
}

minim_status minim_model_panels(const minim_model *model, size_t index, minim_panels *panels, minim_error *error) {
    const gguf_tensor *t = model ? gguf_tensor_at(model->file, index) : NULL;
    if (!t || !panels || panels->size < sizeof panels->size)
        return err_set(error, MINIM_ERR_ARGUMENT, "panels: %s", t ? "panels->size is not set" : "no such tensor");
    if (!model->shape.n_layers) {
        if (error) *error = model->shape_error;
        return model->shape_error.status ? model->shape_error.status : MINIM_ERR_UNSUPPORTED;
    }
    minim_panels full = {.size = panels->size,
                         .layout = KERN_PANEL_LAYOUT,
                         .alignment = GGUF_PANEL_ALIGNMENT,
                         .type = GGUF_PANELS + t->type};
    if (pack_is_packed(model, t)) {
        full.n = (t->dim[1] + KERN_PANEL - 1) / KERN_PANEL;
        full.panel_bytes = kern_panel_bytes(t->type, (int64_t)t->dim[0]);
    }
    memcpy(panels, &full, panels->size < sizeof full ? panels->size : sizeof full);
    return err_ok(error);
}

/* Sixteen rows at a time. */
static minim_status pack_rows(const minim_model *m, const gguf_tensor *t, uint64_t first, size_t n, char *panels,
                              minim_error *e) {
    const size_t bytes = kern_panel_bytes(t->type, (int64_t)t->dim[0]), row_bytes = bytes / KERN_PANEL;
    kern_table kern;
    kern_table_init(&kern, kern_isa_available("avx2") ? "avx2" : NULL); /* see weights_load() */
    char *rows = mem_alloc(&m->allocator, bytes, 1);
    minim_status status = rows ? MINIM_OK : err_memory(e, t->name.s, bytes);
    for (size_t i = 0; i < n && !status; i++, panels += bytes) {
        const uint64_t row = (first + i) * KERN_PANEL, left = t->dim[1] - row;
        const int n_rows = left < KERN_PANEL ? (int)left : KERN_PANEL;
        status = gguf_read(m->file, t, row * row_bytes, rows, (size_t)n_rows * row_bytes, e);
        if (status) break;
        kern.pack(t->type, (int64_t)t->dim[0], rows, row_bytes, n_rows, panels);
        status = pack_check_scales(m->file, t, 0, panels, (int64_t)row, n_rows, e);
    }
    mem_free(&m->allocator, rows, bytes, 1);
    return status ? status : err_ok(e);
}

minim_status minim_model_read_panels(const minim_model *model, size_t index, uint64_t first, size_t n, void *panels,
                                     minim_error *error) {
    minim_panels p = {.size = sizeof p};
    const minim_status status = minim_model_panels(model, index, &p, error);
    if (status) return status;
    if (first > p.n || n > p.n - first || (!panels && n))
        return err_set(error, MINIM_ERR_ARGUMENT,
                       "%s: tensor %s has %" PRIu64 " panels, %zu were asked for at %" PRIu64, gguf_path(model->file),
                       gguf_tensor_at(model->file, index)->name.s, p.n, n, first);
    return pack_rows(model, gguf_tensor_at(model->file, index), first, n, panels, error);
}
