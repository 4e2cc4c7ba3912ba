/* weights.c: reads the tensors of a file and packs each once into 16-row panels (kernels.h), 16 rows at a time, so that
 * no tensor is ever in memory twice. */
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
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
    size_t arena_used;
    char *staging; /* [threads][staging_bytes]: 16 rows as they stand in the file */
    size_t staging_bytes;
    unsigned char *used; /* [tensors]: 1 when the model uses it */
    uint64_t bytes_done, bytes_total;
    const model_matrix *matrix; /* being packed */
    minim_error task_error[POOL_MAX_THREADS];
    atomic_int failed;
} weights_loader;

static const gguf_tensor *weights_find(weights_loader *l, const char *name) {
    const gguf_tensor *t = gguf_find_tensor(l->m->file, name);
    if (t) l->used[t - gguf_tensor_at(l->m->file, 0)] = 1;
    return t;
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

/* Bytes of a tensor's panels, cache lines full; 0 for a type that minim does not compute with. */
static uint64_t weights_panels_bytes(const gguf_tensor *t) {
    size_t panel = kern_panel_bytes(t->type, (int64_t)t->dim[0]);
    uint64_t panels = (t->dim[1] + KERN_PANEL - 1) / KERN_PANEL, bytes;
    return size_mul(panels, panel, &bytes) || bytes > PTRDIFF_MAX / 2 ? 0 : (bytes + 63) / 64 * 64;
}

/* One block for all panels: huge pages waste none of it at the ends of matrices. */
static minim_status weights_arena(weights_loader *l) {
    minim_model *m = l->m;
    uint64_t bytes = 0;
    /* Vectors get room as well: ggml leaves trailing dimensions of 1 away, so a matrix of one row looks like one. What
     * is not touched takes no memory. */
    for (size_t i = 0; i < gguf_tensor_count(m->file); i++) {
        if (size_add(bytes, weights_panels_bytes(gguf_tensor_at(m->file, i)), &bytes)) bytes = UINT64_MAX;
    }
    m->panels = bytes <= PTRDIFF_MAX ? mem_alloc_huge(&m->allocator, (size_t)bytes) : NULL;
    if (!m->panels) return err_memory(l->e, "the weights", bytes);
    m->panels_bytes = (size_t)bytes;
    return MINIM_OK;
}

static minim_status weights_progress(weights_loader *l, uint64_t bytes) {
    l->bytes_done += bytes;
    if (l->o->progress && l->o->progress(l->o->progress_user, (double)l->bytes_done / (double)l->bytes_total)) {
        return err_set(l->e, MINIM_ERR_CANCELLED, "%s: loading was cancelled", gguf_path(l->m->file));
    }
    return MINIM_OK;
}

/* A vector of n numbers of any float type as float32; *out is NULL if it is absent and not required. */
static minim_status weights_vector(weights_loader *l, const char *name, int64_t n, int required, float **out) {
    const gguf_tensor *t = weights_find(l, name);
    if (!t) return required ? weights_missing(l, name) : MINIM_OK;
    if (t->elements != (uint64_t)n || t->dim[0] != (uint64_t)n) return weights_wrong_shape(l, t, n, 1);
    if (t->type != KERN_F32 && t->type != KERN_F16 && t->type != KERN_BF16) {
        return err_set(l->e, MINIM_ERR_UNSUPPORTED, "%s: tensor %s has type %s, expected F32, F16 or BF16",
                       gguf_path(l->m->file), name, kern_type_get(t->type).name);
    }
    float *values = mem_alloc(&l->m->allocator, (size_t)n, sizeof *values);
    char *raw = mem_alloc(&l->m->allocator, (size_t)t->bytes, 1);
    minim_status status = MINIM_OK;
    if (!values || !raw) status = err_memory(l->e, name, t->bytes);
    if (!status) status = gguf_read(l->m->file, t, 0, raw, (size_t)t->bytes, l->e);
    if (!status) kern_dequantize(t->type, raw, n, values);
    mem_free(&l->m->allocator, raw, (size_t)t->bytes, 1);
    if (status) {
        mem_free(&l->m->allocator, values, (size_t)n, sizeof *values);
        return status;
    }
    *out = values;
    l->m->weight_bytes += (uint64_t)n * sizeof *values;
    return weights_progress(l, t->bytes);
}

static void weights_pack_panel(void *arg, uint32_t item, int worker) {
    weights_loader *l = arg;
    const model_matrix *w = l->matrix;
    if (atomic_load_explicit(&l->failed, memory_order_relaxed)) return;
    int64_t first = (int64_t)item * KERN_PANEL;
    int n_rows = (int)(w->rows - first < KERN_PANEL ? w->rows - first : KERN_PANEL);
    size_t row_bytes = w->panel_bytes / KERN_PANEL;
    char *panel = (char *)w->panels + (size_t)item * w->panel_bytes;
    const char *rows = gguf_data(l->m->file, w->source);
    if (rows) {
        rows += (size_t)first * row_bytes;
    } else {
        char *staging = l->staging + (size_t)worker * l->staging_bytes;
        if (gguf_read(l->m->file, w->source, (uint64_t)first * row_bytes, staging, (size_t)n_rows * row_bytes,
                      &l->task_error[worker])) {
            atomic_store(&l->failed, worker + 1);
            return;
        }
        rows = staging;
    }
    int64_t bad = kern_find_bad_scale(w->type, rows, n_rows * w->cols);
    if (bad >= 0) {
        err_set(
            &l->task_error[worker], MINIM_ERR_FORMAT,
            "%s: tensor %s: the scale of the block at row %lld, column %lld is infinite or not a number, expected a "
            "finite one",
            gguf_path(l->m->file), w->source->name.s, (long long)(first + bad / w->cols), (long long)(bad % w->cols));
        atomic_store(&l->failed, worker + 1);
        return;
    }
    kern_pack(w->type, w->cols, rows, row_bytes, n_rows, panel);
}

/* The matrix `name`.weight [rows][cols] and, where the family has biases, `name`.bias. */
static minim_status weights_matrix(weights_loader *l, const char *name, int64_t rows, int64_t cols, model_matrix *w) {
    minim_model *m = l->m;
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    const gguf_tensor *t = weights_find(l, full);
    if (!t) return weights_missing(l, full);
    if (t->dim[0] != (uint64_t)cols || t->dim[1] != (uint64_t)rows || t->dim[2] != 1 || t->dim[3] != 1) {
        return weights_wrong_shape(l, t, cols, rows);
    }
    kern_type_info type = kern_type_get(t->type);
    size_t panel_bytes = kern_panel_bytes(t->type, cols);
    if (!type.has_kernels || !panel_bytes) {
        return err_set(l->e, MINIM_ERR_UNSUPPORTED,
                       "%s: tensor %s has type %s, which minim can not compute with, expected F32, F16, BF16 or a "
                       "quantised type of GGUF",
                       gguf_path(m->file), full, type.name);
    }
    uint64_t n_panels = ((uint64_t)rows + KERN_PANEL - 1) / KERN_PANEL;
    *w = (model_matrix){.type = t->type, .rows = rows, .cols = cols, .panel_bytes = panel_bytes, .source = t};
    w->panels = m->panels + l->arena_used;
    l->arena_used += (size_t)weights_panels_bytes(t);
    m->weight_bytes += n_panels * panel_bytes;

    l->matrix = w;
    pool_run(l->pool, weights_pack_panel, l, (uint32_t)n_panels);
    int failed = atomic_load(&l->failed);
    if (failed) {
        if (l->e) *l->e = l->task_error[failed - 1];
        return l->task_error[failed - 1].status;
    }
    minim_status status = weights_progress(l, t->bytes);
    if (!status && m->family->biases) {
        snprintf(full, sizeof full, "%s.bias", name);
        status = weights_vector(l, full, rows, 0, &w->bias);
    }
    return status;
}

static minim_status weights_layer(weights_loader *l, int index) {
    const model_shape *s = &l->m->shape;
    model_layer *layer = &l->m->layers[index];
    int64_t embd = s->n_embd, ff = s->n_ff, q = (int64_t)s->n_heads * s->head_dim,
            kv = (int64_t)s->n_kv_heads * s->head_dim;
    const struct {
        const char *name;
        int64_t rows, cols;
        model_matrix *matrix; /* or: */
        float **vector;
    } part[] = {
        {"attn_norm.weight", embd, 1, NULL, &layer->attn_norm},
        {"attn_q", q, embd, &layer->q, NULL},
        {"attn_k", kv, embd, &layer->k, NULL},
        {"attn_v", kv, embd, &layer->v, NULL},
        {"attn_output", embd, q, &layer->attn_output, NULL},
        {"ffn_norm.weight", embd, 1, NULL, &layer->ffn_norm},
        {"ffn_gate", ff, embd, &layer->ffn_gate, NULL},
        {"ffn_up", ff, embd, &layer->ffn_up, NULL},
        {"ffn_down", embd, ff, &layer->ffn_down, NULL},
    };
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s", index, part[i].name);
        minim_status status = part[i].matrix ? weights_matrix(l, name, part[i].rows, part[i].cols, part[i].matrix)
                                             : weights_vector(l, name, part[i].rows, 1, part[i].vector);
        if (status) return status;
    }
    return MINIM_OK;
}

/* Angles per position: base^(-2i/n_rot) * scale / factor[i] (Su et al. 2021; factors: Llama 3.1). */
static minim_status weights_rope(weights_loader *l) {
    minim_model *m = l->m;
    int pairs = m->shape.n_rot / 2;
    float *factors = NULL;
    if (m->family->rope_factors) {
        minim_status status = weights_vector(l, "rope_freqs.weight", pairs, 0, &factors);
        if (status) return status;
    }
    minim_status status = MINIM_OK;
    m->rope_freq = mem_alloc(&m->allocator, (size_t)pairs, sizeof *m->rope_freq);
    if (!m->rope_freq) status = err_memory(l->e, "rotary frequencies", (uint64_t)pairs * sizeof *m->rope_freq);
    for (int i = 0; i < pairs && !status; i++) {
        if (factors && !(factors[i] > 0 && isfinite(factors[i]))) {
            status = err_set(l->e, MINIM_ERR_FORMAT, "%s: tensor rope_freqs.weight: element %d is %g, expected > 0",
                             gguf_path(m->file), i, (double)factors[i]);
            break;
        }
        m->rope_freq[i] = kern_pow((double)m->shape.rope_base, -2.0 * i / m->shape.n_rot) *
                          (double)m->shape.rope_scale / (factors ? (double)factors[i] : 1.0);
    }
    mem_free(&m->allocator, factors, (size_t)pairs, sizeof *factors);
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

static minim_status weights_load_all(weights_loader *l) {
    minim_model *m = l->m;
    const model_shape *s = &m->shape;
    m->n_vocab = vocab_size(m->vocab);
    m->layers = mem_zalloc(&m->allocator, (size_t)s->n_layers, sizeof *m->layers);
    if (!m->layers) return err_memory(l->e, "the layer table", (uint64_t)s->n_layers * sizeof *m->layers);

    minim_status status = weights_arena(l);
    if (!status) status = weights_matrix(l, "token_embd", m->n_vocab, s->n_embd, &m->embedding);
    for (int i = 0; i < s->n_layers && !status; i++) status = weights_layer(l, i);
    if (!status) status = weights_vector(l, "output_norm.weight", s->n_embd, 1, &m->output_norm);
    if (status) return status;
    if (gguf_find_tensor(m->file, "output.weight")) {
        status = weights_matrix(l, "output", m->n_vocab, s->n_embd, &m->output);
    } else {
        m->output = m->embedding;
    }
    if (!status) status = weights_rope(l);
    if (status) return status;
    weights_count(m);
    for (size_t i = 0; i < gguf_tensor_count(m->file); i++) {
        if (!l->used[i]) {
            model_log(m, MINIM_LOG_WARN, "%s: tensor %s is not used by architecture %s", gguf_path(m->file),
                      gguf_tensor_at(m->file, i)->name.s, m->family->architecture);
        }
    }
    return MINIM_OK;
}

minim_status weights_load(minim_model *m, const minim_model_options *o, minim_error *e) {
    weights_loader *l = mem_zalloc(&m->allocator, 1, sizeof *l);
    if (!l) return err_memory(e, "the loader", sizeof *l);
    l->m = m, l->o = o, l->e = e;
    int threads = o->n_threads > 0 ? o->n_threads : cpu_count();
    if (threads > POOL_MAX_THREADS) threads = POOL_MAX_THREADS;
    size_t n_tensors = gguf_tensor_count(m->file);
    for (size_t i = 0; i < n_tensors; i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        l->bytes_total += t->bytes;
        if (t->n_dims < 2 || t->dim[1] < 1) continue;
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

void weights_free(minim_model *m) {
    size_t embd = (size_t)m->shape.n_embd;
    for (int i = 0; m->layers && i < m->shape.n_layers; i++) {
        model_layer *y = &m->layers[i];
        model_matrix *all[] = {&y->q, &y->k, &y->v, &y->attn_output, &y->ffn_gate, &y->ffn_up, &y->ffn_down};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) weights_free_matrix(m, all[k]);
        mem_free(&m->allocator, y->attn_norm, embd, sizeof(float));
        mem_free(&m->allocator, y->ffn_norm, embd, sizeof(float));
    }
    mem_free(&m->allocator, m->layers, (size_t)m->shape.n_layers, sizeof *m->layers);
    if (m->output.panels != m->embedding.panels) weights_free_matrix(m, &m->output);
    weights_free_matrix(m, &m->embedding);
    mem_free(&m->allocator, m->panels, m->panels_bytes, 1);
    mem_free(&m->allocator, m->output_norm, embd, sizeof(float));
    mem_free(&m->allocator, m->rope_freq, (size_t)m->shape.n_rot / 2, sizeof *m->rope_freq);
}

void model_matrix_row(const model_matrix *w, int64_t row, float *out) {
    const char *panel = (const char *)w->panels + (size_t)(row / KERN_PANEL) * w->panel_bytes;
    kern_unpack_row(w->type, w->cols, panel, (int)(row % KERN_PANEL), out);
}
