/* weights.c: the tensors of a file. Matrices become 16-row panels (kernels.h). In a mapped file they are looked at, and
 * packed when they are needed (ready.c); otherwise they are read and packed here, 16 rows at a time, so that no tensor
 * is ever in memory twice. Matrices of a packed file are panels already: they are used where they lie, or read as they
 * are. */
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "pool.h"

void model_log(const minim_model *m, minim_log_level level, const char *format, ...) {
    if (!m->log) return;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    m->log(m->log_user, level, text);
}

typedef struct weights_loader {
    minim_model *m;
    const minim_model_options *o;
    minim_error *e;
    pool *pool;
    kern_table kern; /* to pack with */
    size_t arena_used;
    char *staging; /* [threads][staging_bytes]: 16 rows as they stand in the file */
    size_t staging_bytes;
    unsigned char *used; /* [tensors]: 1 when the model uses it */
    uint64_t bytes_done, bytes_total;
    const model_matrix *matrix; /* being packed */
    char *room;                 /* for its panels; NULL: none are made now */
    int64_t first_row;          /* of its tensor that belongs to it */
    minim_error task_error[POOL_MAX_THREADS];
    atomic_int failed;
} weights_loader;

static const gguf_tensor *weights_find(weights_loader *l, const char *name) {
    const gguf_tensor *t = gguf_find_tensor(l->m->file, name);
    if (t) l->used[t - gguf_tensor_at(l->m->file, 0)] = 1;
    return t;
}

static int weights_has(const weights_loader *l, const char *name) {
    return gguf_find_tensor(l->m->file, name) != NULL;
}

/* blk.`layer`.`name`.weight, NULL if there is none. */
static const gguf_tensor *weights_has_part(const weights_loader *l, int layer, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "blk.%d.%s.weight", layer, name);
    return gguf_find_tensor(l->m->file, full);
}

static minim_status weights_missing(weights_loader *l, const char *name) {
    return err_set(l->e, MINIM_ERR_FORMAT, "%s: tensor %s is missing, expected for architecture %s",
                   gguf_path(l->m->file), name, l->m->family->architecture);
}

static minim_status weights_wrong_shape(weights_loader *l, const gguf_tensor *t, int64_t cols, int64_t rows) {
    return err_set(l->e, MINIM_ERR_FORMAT, "%s: tensor %s has shape [%llu, %llu, %llu, %llu], expected [%lld, %lld]",
                   gguf_path(l->m->file), t->name.s, (unsigned long long)t->dim[0], (unsigned long long)t->dim[1],
                   (unsigned long long)t->dim[2], (unsigned long long)t->dim[3], (long long)cols, (long long)rows);
}

/* Whether the layers that are loaded may need it. */
static int weights_is_needed(const minim_model *m, const gguf_tensor *t) {
    const long layer = strncmp(t->name.s, "blk.", 4) ? -1 : strtol(t->name.s + 4, NULL, 10);
    return layer < 0 || (layer >= m->first_layer && layer < m->end_layer);
}

/* Bytes of a tensor's panels, cache lines full; 0 for a type that minim does not compute with. */
static uint64_t weights_panels_bytes(const gguf_tensor *t) {
    size_t panel = kern_panel_bytes(t->type, (int64_t)t->dim[0]);
    uint64_t panels = (t->dim[1] + KERN_PANEL - 1) / KERN_PANEL, bytes;
    return size_mul(panels, panel, &bytes) || bytes > PTRDIFF_MAX / 2 ? 0 : (bytes + 63) / 64 * 64;
}

/* A fused matrix is taken apart, and each part rounded up to whole panels: up to two panels more. */
static uint64_t weights_arena_bytes(const gguf_tensor *t) {
    uint64_t bytes = weights_panels_bytes(t);
    int may_be_fused = strstr(t->name.s, "attn_qkv") || strstr(t->name.s, "ffn_up");
    return bytes && may_be_fused ? bytes + 2 * (uint64_t)(kern_panel_bytes(t->type, (int64_t)t->dim[0]) + 63) : bytes;
}

/* All memory comes from the allocator of a caller who has one: then nothing is mapped. */
static int weights_may_map(const minim_model *m, const minim_model_options *o) {
    return !o->no_map && mem_is_default(&m->allocator);
}

void weights_plan(minim_model *m, const minim_model_options *o) {
    for (size_t i = 0; weights_may_map(m, o) && i < gguf_tensor_count(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        const size_t bytes = t->n_dims < 2 || t->panels ? 0 : kern_panel_bytes(t->type, (int64_t)t->dim[0]);
        if (m->raw_panel_bytes < bytes) m->raw_panel_bytes = bytes;
    }
}

/* Bytes for all panels that do not lie in the mapped file. */
static uint64_t weights_all_arena_bytes(const minim_model *m) {
    uint64_t bytes = 0;
    /* What has one dimension gets room unless its name tells that it is a vector: ggml leaves trailing dimensions of 1
     * away, so a matrix of one row looks like one. */
    for (size_t i = 0; i < gguf_tensor_count(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        if (strstr(t->name.s, "norm") || strstr(t->name.s, ".bias")) continue;
        if (weights_is_needed(m, t) && !(t->panels && gguf_mapped(m->file, t)) &&
            size_add(bytes, weights_arena_bytes(t), &bytes))
            bytes = UINT64_MAX;
    }
    return bytes;
}

/* One block: huge pages waste none of it at the ends of matrices. Where address space is limited there may be room for
 * it, but not for the file beside it. */
static minim_status weights_arena(weights_loader *l) {
    minim_model *m = l->m;
    uint64_t bytes = 0;
    for (int map = weights_may_map(m, l->o); map >= 0 && !m->panels; map--) {
        if (map)
            gguf_map(m->file);
        else
            gguf_unmap(m->file);
        bytes = weights_all_arena_bytes(m);
        m->panels = bytes <= PTRDIFF_MAX ? mem_alloc_huge(&m->allocator, (size_t)bytes) : NULL;
    }
    if (!m->panels) return err_memory(l->e, "the weights", bytes);
    m->panels_bytes = (size_t)bytes;
    m->raw_capacity = 7 * (size_t)(m->end_layer - m->first_layer) + 2;
    m->raw = mem_zalloc(&m->allocator, m->raw_capacity, sizeof *m->raw);
    return m->raw ? MINIM_OK : err_memory(l->e, "the list of matrices", m->raw_capacity * sizeof *m->raw);
}

static minim_status weights_progress(weights_loader *l, uint64_t bytes) {
    l->bytes_done += bytes;
    if (l->o->progress && l->o->progress(l->o->progress_user, (double)l->bytes_done / (double)l->bytes_total)) {
        return err_set(l->e, MINIM_ERR_CANCELLED, "%s: loading was cancelled", gguf_path(l->m->file));
    }
    return MINIM_OK;
}

/* n numbers of a tensor [rows][cols] of any float type, from the first-th on, as float32. */
typedef struct weights_part {
    int64_t cols, rows, first, n;
} weights_part;

static minim_status weights_numbers(weights_loader *l, const char *name, const weights_part *p, float **out) {
    const gguf_tensor *t = weights_find(l, name);
    if (!t) return weights_missing(l, name);
    if (t->elements != (uint64_t)(p->cols * p->rows) || t->dim[0] != (uint64_t)p->cols) {
        return weights_wrong_shape(l, t, p->cols, p->rows);
    }
    if ((t->type != KERN_F32 && t->type != KERN_F16 && t->type != KERN_BF16) || t->panels) {
        return err_set(l->e, MINIM_ERR_UNSUPPORTED, "%s: tensor %s has type %s%s, expected F32, F16 or BF16",
                       gguf_path(l->m->file), name, kern_type_get(t->type).name, t->panels ? " in panels" : "");
    }
    size_t size = t->type == KERN_F32 ? 4 : 2, n = (size_t)p->n;
    float *values = mem_alloc(&l->m->allocator, n, sizeof *values);
    char *raw = mem_alloc(&l->m->allocator, n, size);
    minim_status status = MINIM_OK;
    if (!values || !raw) status = err_memory(l->e, name, n * sizeof *values);
    if (!status) status = gguf_read(l->m->file, t, (uint64_t)p->first * size, raw, n * size, l->e);
    if (!status) kern_dequantize(t->type, raw, p->n, values);
    mem_free(&l->m->allocator, raw, n, size);
    if (status) {
        mem_free(&l->m->allocator, values, n, sizeof *values);
        return status;
    }
    *out = values;
    l->m->weight_bytes += n * sizeof *values;
    return weights_progress(l, n * size);
}

/* The norm `name`.weight [rows][cols] and, of a layer norm, `name`.bias: zeros in a norm that has none. */
static minim_status weights_norm(weights_loader *l, const char *name, int64_t cols, int64_t rows, int has_bias,
                                 model_norm *norm) {
    const family *f = l->m->family;
    char full[64];
    int64_t n = cols * rows;
    weights_part part = {cols, rows, 0, n};
    minim_status status = MINIM_OK;
    norm->n = (int)n;
    if (f->norm == FAMILY_NORM_PLAIN) { /* no tensors: weights of 1 */
        norm->weight = mem_alloc(&l->m->allocator, (size_t)n, sizeof(float));
        if (!norm->weight) return err_memory(l->e, name, (uint64_t)n * sizeof(float));
        for (int64_t i = 0; i < n; i++) norm->weight[i] = 1;
    } else {
        snprintf(full, sizeof full, "%s.weight", name);
        status = weights_numbers(l, full, &part, &norm->weight);
    }
    if (status || f->norm == FAMILY_NORM_RMS) return status;
    if (f->norm == FAMILY_NORM_LAYER && has_bias) {
        snprintf(full, sizeof full, "%s.bias", name);
        return weights_numbers(l, full, &part, &norm->bias);
    }
    norm->bias = mem_zalloc(&l->m->allocator, (size_t)n, sizeof(float));
    return norm->bias ? MINIM_OK : err_memory(l->e, name, (uint64_t)n * sizeof(float));
}

/* Panel `item` of the matrix into memory: as it stands in a packed file, or made from its rows. */
static minim_status weights_make_panel(weights_loader *l, int64_t item, int n_rows, int worker, char *panel) {
    const model_matrix *w = l->matrix;
    const gguf_file *f = l->m->file;
    minim_error *e = &l->task_error[worker];
    const int64_t first = l->first_row + item * KERN_PANEL;
    if (w->source->panels)
        return gguf_read(f, w->source, (uint64_t)(first / KERN_PANEL) * w->panel_bytes, panel, w->panel_bytes, e);
    const size_t row_bytes = w->panel_bytes / KERN_PANEL;
    const char *rows = gguf_data(f, w->source);
    if (rows) {
        rows += (size_t)first * row_bytes;
    } else {
        char *staging = l->staging + (size_t)worker * l->staging_bytes;
        const minim_status status =
            gguf_read(f, w->source, (uint64_t)first * row_bytes, staging, (size_t)n_rows * row_bytes, e);
        if (status) return status;
        rows = staging;
    }
    l->kern.pack(w->type, w->cols, rows, row_bytes, n_rows, panel);
    return MINIM_OK;
}

/* What ready.c will need of a matrix whose rows are mapped: they are not packed now. */
static void weights_leave_rows(weights_loader *l, const char *rows, model_matrix *w) {
    minim_model *m = l->m;
    w->raw = &m->raw[m->n_raw++];
    *w->raw = (model_raw){w, rows, l->room, MODEL_RAW_FRESH};
    l->room = NULL;
}

/* Damaged scales are refused, also those of a mapped file: looking at them takes a fraction of what the first token
 * takes, and brings the pages in by all threads. */
static minim_status weights_check_panel(weights_loader *l, int64_t item, int worker) {
    const model_matrix *w = l->matrix;
    const int64_t first = item * KERN_PANEL;
    const int n_rows = (int)(w->rows - first < KERN_PANEL ? w->rows - first : KERN_PANEL);
    const char *at = (w->raw ? w->raw->rows : (const char *)w->panels) + (size_t)item * w->panel_bytes;
    minim_status status = MINIM_OK;
    if (l->room) status = weights_make_panel(l, item, n_rows, worker, l->room + (size_t)item * w->panel_bytes);
    if (status) return status;
    return pack_check_scales(l->m->file, w->source, w->raw != NULL, at, l->first_row + first, n_rows,
                             &l->task_error[worker]);
}

/* Neighbouring panels, so that a thread reads stretches that prefetching is good for. */
enum { WEIGHTS_PANELS = 8 };

static void weights_panels_task(void *arg, uint32_t item, int worker) {
    weights_loader *l = arg;
    const int64_t panels = (l->matrix->rows + KERN_PANEL - 1) / KERN_PANEL, first = (int64_t)item * WEIGHTS_PANELS;
    for (int64_t i = first; i < panels && i < first + WEIGHTS_PANELS; i++) {
        if (atomic_load_explicit(&l->failed, memory_order_relaxed)) return;
        if (weights_check_panel(l, i, worker)) atomic_store(&l->failed, worker + 1);
    }
}

/* Rows [first, first + rows) of the matrix `name`.weight [all_rows][cols] and of `name`.bias, which must be there if it
 * is `needed` and is used where it is. */
typedef struct weights_rows {
    int64_t all_rows, cols, first, rows;
    int needs_bias;
} weights_rows;

static minim_status weights_matrix(weights_loader *l, const char *name, const weights_rows *r, model_matrix *w) {
    minim_model *m = l->m;
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    const gguf_tensor *t = weights_find(l, full);
    if (!t) return weights_missing(l, full);
    if (t->dim[0] != (uint64_t)r->cols || t->dim[1] != (uint64_t)r->all_rows || t->dim[2] != 1 || t->dim[3] != 1) {
        return weights_wrong_shape(l, t, r->cols, r->all_rows);
    }
    kern_type_info type = kern_type_get(t->type);
    size_t panel_bytes = kern_panel_bytes(t->type, r->cols);
    if (!type.has_kernels || !panel_bytes) {
        return err_set(l->e, MINIM_ERR_UNSUPPORTED,
                       "%s: tensor %s has type %s, which minim can not compute with, expected F32, F16, BF16 or a "
                       "quantised type of GGUF",
                       gguf_path(m->file), full, type.name);
    }
    uint64_t n_panels = ((uint64_t)r->rows + KERN_PANEL - 1) / KERN_PANEL;
    *w = (model_matrix){.type = t->type, .rows = r->rows, .cols = r->cols, .panel_bytes = panel_bytes, .source = t};
    m->weight_bytes += n_panels * panel_bytes;
    if (t->panels && r->first % KERN_PANEL) {
        return err_set(l->e, MINIM_ERR_FORMAT,
                       "%s: tensor %s is packed, and a part of it begins at row %lld, expected a multiple of %d",
                       gguf_path(m->file), full, (long long)r->first, KERN_PANEL);
    }
    const char *mapped = gguf_mapped(m->file, t);
    if (mapped) mapped += (size_t)r->first * (panel_bytes / KERN_PANEL);
    if (mapped && t->panels) {
        w->panels = mapped;
        m->mapped_bytes += n_panels * panel_bytes;
        l->room = NULL;
    } else {
        w->panels = l->room = m->panels + l->arena_used;
        l->arena_used += (size_t)((n_panels * panel_bytes + 63) / 64 * 64);
        if (mapped) weights_leave_rows(l, mapped, w);
    }

    l->matrix = w;
    l->first_row = r->first;
    pool_run(l->pool, weights_panels_task, l, (uint32_t)((n_panels + WEIGHTS_PANELS - 1) / WEIGHTS_PANELS));
    int failed = atomic_load(&l->failed);
    if (failed) {
        if (l->e) *l->e = l->task_error[failed - 1];
        return l->task_error[failed - 1].status;
    }
    minim_status status = weights_progress(l, t->bytes / (uint64_t)r->all_rows * (uint64_t)r->rows);
    snprintf(full, sizeof full, "%s.bias", name);
    if (status || (!r->needs_bias && !weights_has(l, full))) return status;
    return weights_numbers(l, full, &(weights_part){r->all_rows, 1, r->first, r->rows}, &w->bias);
}

/* The norms of a layer: which there are is a matter of the family. */
static minim_status weights_layer_norms(weights_loader *l, int index) {
    const family *f = l->m->family;
    const model_shape *s = &l->m->shape;
    model_layer *y = &l->m->layers[index];
    int64_t embd = s->n_embd, dim = s->head_dim;
    int per_head = f->qk_norm == FAMILY_QK_HEAD, pre = f->order != FAMILY_POST_NORM, post = f->order != FAMILY_PRE_NORM;
    int sequential = f->parallel != FAMILY_PARALLEL, qk = f->qk_norm != FAMILY_QK_NONE;
    const struct {
        const char *name;
        int64_t cols, rows;
        int wanted, may_be_absent, has_bias;
        model_norm *norm;
    } part[] = {
        {"attn_norm", embd, 1, pre, 0, 1, &y->attn_norm},
        {"ffn_norm", embd, 1, pre && sequential, s->ffn_norm_optional, 1, &y->ffn_norm},
        {"post_attention_norm", embd, 1, post, 0, 1, &y->attn_post},
        {"post_ffw_norm", embd, 1, post, 0, 1, &y->ffn_post},
        {"attn_q_norm", f->qk_norm == FAMILY_QK_ALL_HEADS ? dim * s->n_heads : dim,
         f->qk_norm == FAMILY_QK_HEADS ? s->n_heads : 1, qk, !per_head && f->qk_norm != FAMILY_QK_ALL_HEADS, 0,
         &y->q_norm},
        {"attn_k_norm", f->qk_norm == FAMILY_QK_ALL_HEADS ? dim * s->n_kv_heads : dim,
         f->qk_norm == FAMILY_QK_HEADS ? s->n_kv_heads : 1, qk, !per_head && f->qk_norm != FAMILY_QK_ALL_HEADS, 0,
         &y->k_norm},
    };
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s", index, part[i].name);
        if (!part[i].wanted || (part[i].may_be_absent && !weights_has_part(l, index, part[i].name))) continue;
        minim_status status = weights_norm(l, name, part[i].cols, part[i].rows, part[i].has_bias, part[i].norm);
        if (status) return status;
    }
    return MINIM_OK;
}

/* The matrices of a layer. q, k, v may come as one (attn_qkv), and gate and up too (ffn_up with twice the rows). */
static minim_status weights_layer(weights_loader *l, int index) {
    const family *f = l->m->family;
    const model_shape *s = &l->m->shape;
    model_layer *y = &l->m->layers[index];
    int64_t embd = s->n_embd, ff = y->n_ff, q = (int64_t)s->n_heads * s->head_dim,
            kv = (int64_t)s->n_kv_heads * s->head_dim;
    int gated = f->ffn != FAMILY_FFN_GELU;
    int fused = weights_has_part(l, index, "attn_qkv") ||
                !(weights_has_part(l, index, "attn_q") || weights_has_part(l, index, "attn_k") ||
                  weights_has_part(l, index, "attn_v"));
    const gguf_tensor *up = weights_has_part(l, index, "ffn_up");
    int pair = gated && !weights_has_part(l, index, "ffn_gate") && !(up && up->dim[1] == (uint64_t)ff);
    int64_t all = fused ? q + 2 * kv : 0, both = pair ? 2 * ff : ff;
    int bias_qkv = f->biases & FAMILY_BIAS_QKV, bias_ffn = f->biases & FAMILY_BIAS_FFN;
    const struct {
        const char *name;
        weights_rows rows;
        model_matrix *matrix;
    } part[] = {
        {fused ? "attn_qkv" : "attn_q", {fused ? all : q, embd, 0, q, bias_qkv}, &y->q},
        {fused ? "attn_qkv" : "attn_k", {fused ? all : kv, embd, fused ? q : 0, kv, bias_qkv}, &y->k},
        {fused ? "attn_qkv" : "attn_v", {fused ? all : kv, embd, fused ? q + kv : 0, kv, bias_qkv}, &y->v},
        {"attn_output", {embd, q, 0, embd, f->biases & FAMILY_BIAS_ATTN_OUTPUT}, &y->attn_output},
        {gated ? pair ? "ffn_up" : "ffn_gate" : NULL, {both, embd, 0, ff, bias_ffn}, &y->ffn_gate},
        {"ffn_up", {both, embd, pair ? ff : 0, ff, bias_ffn}, &y->ffn_up},
        {"ffn_down", {embd, ff, 0, embd, bias_ffn}, &y->ffn_down},
    };
    minim_status status = weights_layer_norms(l, index);
    for (size_t i = 0; i < sizeof part / sizeof *part && !status; i++) {
        char name[64];
        if (!part[i].name) continue;
        snprintf(name, sizeof name, "blk.%d.%s", index, part[i].name);
        status = weights_matrix(l, name, &part[i].rows, part[i].matrix);
    }
    return status;
}

/* Rotary factors: one set for every context, or one for short and one for long contexts. */
static minim_status weights_rope(weights_loader *l) {
    static const char *const names[] = {"rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"};
    minim_model *m = l->m;
    int64_t pairs = m->shape.n_rot / 2;
    float *factors[3] = {NULL};
    minim_status status = MINIM_OK;
    for (int i = 0; i < 3 && !status; i++) {
        if (!weights_has(l, names[i])) continue;
        status = weights_numbers(l, names[i], &(weights_part){pairs, 1, 0, pairs}, &factors[i]);
    }
    if (!status) {
        status = factors[0] ? rope_make(m, factors[0], factors[0], l->e) : rope_make(m, factors[1], factors[2], l->e);
    }
    for (int i = 0; i < 3; i++) mem_free(&m->allocator, factors[i], (size_t)pairs, sizeof(float));
    return status;
}

static uint64_t weights_matrix_bytes(const model_matrix *w) {
    return (uint64_t)w->panel_bytes * (((uint64_t)w->rows + KERN_PANEL - 1) / KERN_PANEL);
}

static void weights_count(minim_model *m) {
    for (int i = 0; i < m->shape.n_layers; i++) {
        const model_layer *y = &m->layers[i];
        const model_matrix *all[] = {&y->q, &y->k, &y->v, &y->attn_output, &y->ffn_gate, &y->ffn_up, &y->ffn_down};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) m->step_bytes += weights_matrix_bytes(all[k]);
    }
    m->step_bytes += weights_matrix_bytes(&m->output);
}

/* What is guessed or left out is said. */
static void weights_warn(weights_loader *l) {
    minim_model *m = l->m;
    const int *known = m->family->known_layers;
    int n = m->shape.n_layers;
    if (known[0] && n != known[0] && n != known[1] && n != known[2]) {
        model_log(m, MINIM_LOG_WARN,
                  "%s: %s models have %d, %d or %d layers and this one has %d: scores are divided "
                  "by the root of the head size, which may be wrong",
                  gguf_path(m->file), m->family->architecture, known[0], known[1], known[2], n);
    }
    for (size_t i = 0; i < gguf_tensor_count(m->file); i++) {
        if (!l->used[i]) {
            model_log(m, MINIM_LOG_WARN, "%s: tensor %s is not used by architecture %s", gguf_path(m->file),
                      gguf_tensor_at(m->file, i)->name.s, m->family->architecture);
        }
    }
}

static minim_status weights_load_all(weights_loader *l) {
    minim_model *m = l->m;
    const model_shape *s = &m->shape;
    m->n_vocab = vocab_size(m->vocab);
    weights_rows rows = {m->n_vocab, s->n_embd, 0, m->n_vocab, 0};
    const int is_first = m->first_layer == 0, is_last = m->end_layer == s->n_layers;
    const int own_output = m->family->own_output || weights_has(l, "output.weight");
    minim_status status = weights_arena(l);
    if (!status && (is_first || (is_last && !own_output))) {
        status = weights_matrix(l, "token_embd", &rows, &m->embedding);
    }
    for (int i = m->first_layer; i < m->end_layer && !status; i++) status = weights_layer(l, i);
    if (!status && is_last) status = weights_norm(l, "output_norm", s->n_embd, 1, 1, &m->output_norm);
    if (status) return status;
    rows.needs_bias = m->family->biases & FAMILY_BIAS_OUTPUT;
    if (is_last && own_output) {
        status = weights_matrix(l, "output", &rows, &m->output);
    } else if (is_last) {
        m->output = m->embedding;
        m->output.bias = NULL;
        if (weights_has(l, "output.bias")) {
            status = weights_numbers(l, "output.bias", &(weights_part){m->n_vocab, 1, 0, m->n_vocab}, &m->output.bias);
        }
    }
    if (!status) status = weights_rope(l);
    if (status) return status;
    weights_count(m);
    if (is_first && is_last) weights_warn(l);
    return MINIM_OK;
}

minim_status weights_load(minim_model *m, const minim_model_options *o, minim_error *e) {
    weights_loader *l = mem_zalloc(&m->allocator, 1, sizeof *l);
    if (!l) return err_memory(e, "the loader", sizeof *l);
    l->m = m, l->o = o, l->e = e;
    /* No more than packing makes use of: the best table may ask the system for AMX tiles. */
    kern_table_init(&l->kern, kern_isa_available("avx2") ? "avx2" : NULL);
    int threads = o->n_threads > 0 ? o->n_threads : cpu_count();
    if (threads > POOL_MAX_THREADS) threads = POOL_MAX_THREADS;
    size_t n_tensors = gguf_tensor_count(m->file);
    for (size_t i = 0; i < n_tensors; i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        if (!weights_is_needed(m, t)) continue;
        l->bytes_total += t->bytes;
        if (t->n_dims < 2 || t->dim[1] < 1 || t->panels) continue;
        size_t sixteen_rows = (size_t)(t->bytes / (t->elements / t->dim[0])) * KERN_PANEL;
        if (sixteen_rows > l->staging_bytes) l->staging_bytes = sixteen_rows;
    }
    l->used = mem_zalloc(&m->allocator, n_tensors, 1);
    if (!l->used) l->staging_bytes = 0;
    l->staging = mem_alloc(&m->allocator, (size_t)threads, l->staging_bytes);
    minim_status status = l->used && l->staging
                              ? pool_new(&m->allocator, threads, &l->pool, e)
                              : err_memory(e, "the loader's buffers", l->staging_bytes * (size_t)threads);
    if (!status) status = weights_load_all(l);
    pool_free(l->pool);
    mem_free(&m->allocator, l->staging, (size_t)threads, l->staging_bytes);
    mem_free(&m->allocator, l->used, n_tensors, 1);
    mem_free(&m->allocator, l, 1, sizeof *l);
    return status;
}

static void weights_free_matrix(minim_model *m, model_matrix *w) {
    mem_free(&m->allocator, w->bias, (size_t)w->rows, sizeof *w->bias);
}

static void weights_free_norm(minim_model *m, model_norm *norm) {
    mem_free(&m->allocator, norm->weight, (size_t)norm->n, sizeof *norm->weight);
    mem_free(&m->allocator, norm->bias, (size_t)norm->n, sizeof *norm->bias);
}

void weights_free(minim_model *m) {
    for (int i = 0; m->layers && i < m->shape.n_layers; i++) {
        model_layer *y = &m->layers[i];
        model_matrix *all[] = {&y->q, &y->k, &y->v, &y->attn_output, &y->ffn_gate, &y->ffn_up, &y->ffn_down};
        model_norm *norms[] = {&y->attn_norm, &y->ffn_norm, &y->attn_post, &y->ffn_post, &y->q_norm, &y->k_norm};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) weights_free_matrix(m, all[k]);
        for (size_t k = 0; k < sizeof norms / sizeof *norms; k++) weights_free_norm(m, norms[k]);
    }
    mem_free(&m->allocator, m->layers, (size_t)m->shape.n_layers, sizeof *m->layers);
    weights_free_matrix(m, &m->output);
    weights_free_matrix(m, &m->embedding);
    weights_free_norm(m, &m->output_norm);
    mem_free(&m->allocator, m->panels, m->panels_bytes, 1);
    mem_free(&m->allocator, m->raw, m->raw_capacity, sizeof *m->raw);
    for (int i = 0; i < MODEL_ROPE_KINDS; i++) {
        mem_free(&m->allocator, m->rope_freq[i], (size_t)m->shape.n_rot / 2, sizeof *m->rope_freq[i]);
    }
}
