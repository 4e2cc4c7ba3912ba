/* cases.c: see cases.h. A product is called with as many rows as the engine hands to a thread at a time; its weights
 * come from memory, not from a cache, because each call takes the next part of a large region. */
#include "cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(MINIM_WITH_OPENBLAS)
#include <cblas.h>
#endif

enum {
    CASES_KEYS = 64,           /* keys of a KV page */
    CASES_QUERIES = 64,        /* query rows of a tile when a prompt is processed */
    CASES_RANGE = 256,         /* scores that softmax sees at once */
    CASES_REF_TOKENS = 8,      /* the reference gains nothing from more, and would take seconds */
    CASES_PARTS = 8,           /* calls a matrix is cut into for each thread */
    CASES_READ_BYTES = 1 << 18 /* of one call of the pure reading */
};

/* ---- products ---------------------------------------------------------------------------------------------------- */

static void cases_run_matmul(const harness_case *c, harness_worker *w, uint64_t call) {
    const void *panels = harness_next(w, (size_t)c->bytes);
    const int64_t calls = c->rows / c->call_rows, parts = c->tokens / c->call_tokens;
    const int64_t row = (int64_t)(call % (uint64_t)calls) * c->call_rows;
    const int64_t t = (int64_t)(call / (uint64_t)calls % (uint64_t)parts) * c->call_tokens;
    kern_act act = kern_act_from(&c->memory->act, t / KERN_TILE_TOKENS * KERN_TILE_TOKENS, c->cols);
    act.cell_rows = kern_cell_rows(c->table, c->tokens);
    if (!c->table->fill_cells) act.cells = NULL; /* whoever finds them reads them */
    c->table->matmul[c->weight_type](panels, c->call_rows, c->cols, &act, c->call_tokens, w->output + t * c->rows + row,
                                     c->rows);
}

#if defined(MINIM_WITH_OPENBLAS)

static const float *cases_blas_matrix(const harness_case *c, uint64_t call) {
    size_t bytes = (size_t)c->bytes, room = (c->memory->n_weights - bytes) / 64 * 64 + 64;
    return (const float *)(const void *)(c->memory->weights + call * (bytes / 64 * 64) % room);
}

/* y[rows] = W[rows][cols] x */
static void cases_run_sgemv(const harness_case *c, harness_worker *w, uint64_t call) {
    cblas_sgemv(CblasRowMajor, CblasNoTrans, (int)c->call_rows, (int)c->cols, 1, cases_blas_matrix(c, call),
                (int)c->cols, c->memory->act.x, 1, 0, w->output, 1);
}

/* y[tokens][rows] = x[tokens][cols] W[rows][cols]^T */
static void cases_run_sgemm(const harness_case *c, harness_worker *w, uint64_t call) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)c->tokens, (int)c->call_rows, (int)c->cols, 1,
                c->memory->act.x, (int)c->cols, cases_blas_matrix(c, call), (int)c->cols, 0, w->output, (int)c->rows);
}

#endif

/* ---- attention: a page of the cache, cold --------------------------------------------------------------------------
 */

/* The page behind this one, in quarters. */
static kern_ahead cases_ahead(const harness_case *c, const void *page) {
    const size_t bytes = (size_t)c->bytes, quarter = bytes / KERN_AHEAD;
    kern_ahead ahead = {.lines = (int64_t)(quarter / KERN_LINE)};
    for (size_t i = 0; i < KERN_AHEAD; i++) ahead.at[i] = (const char *)page + bytes + i * quarter;
    return ahead;
}

static void cases_run_qk(const harness_case *c, harness_worker *w, uint64_t call) {
    const void *page = harness_next(w, (size_t)c->bytes);
    (void)call;
    const kern_ahead ahead = cases_ahead(c, page);
    c->table->qk[c->weight_type](w->x, c->cols, c->tokens, page, CASES_KEYS, CASES_KEYS, c->cols, 0.125f, w->output,
                                 CASES_KEYS, &ahead);
}

static void cases_run_pv(const harness_case *c, harness_worker *w, uint64_t call) {
    const void *page = harness_next(w, (size_t)c->bytes);
    (void)call;
    const kern_ahead ahead = cases_ahead(c, page);
    c->table->pv[c->weight_type](w->y, CASES_KEYS, c->tokens, page, CASES_KEYS, c->cols, w->output, c->cols, &ahead);
}

/* ---- what works on activations, which stay in the cache ------------------------------------------------------------
 */

static void cases_run_quantize(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)call;
    c->table->quantize(w->x, c->cols, w->codes, w->output, w->sums);
}

static void cases_run_rms_norm(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)call;
    c->table->rms_norm(w->x, w->y, c->cols, 1e-5f, w->output);
}

static void cases_run_add(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)call;
    c->table->add(w->output, w->y, c->cols);
}

/* In place: the gate is set anew each time, lest it shrinks to subnormals, which are slow. */
static void cases_run_silu_mul(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)call;
    memcpy(w->output, w->x, (size_t)c->cols * sizeof *w->x);
    c->table->silu_mul(w->output, w->y, c->cols);
}

static void cases_run_rope_adjacent(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)call;
    c->table->rope_adjacent(w->x, c->rows, c->cols, c->cols, w->z);
}

static void cases_run_rope_split(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)call;
    c->table->rope_split(w->x, c->rows, c->cols, c->cols, w->z);
}

static void cases_run_softmax_part(const harness_case *c, harness_worker *w, uint64_t call) {
    float max, sum;
    (void)call;
    memcpy(w->output, w->x, (size_t)c->cols * sizeof *w->x);
    c->table->softmax_part(w->output, c->cols, 1, c->cols, &max, &sum);
}

static void cases_run_softmax_join(const harness_case *c, harness_worker *w, uint64_t call) {
    float max = 1, sum = 2, max2 = 1, sum2 = 2;
    (void)call;
    c->table->softmax_join(&max, &sum, w->output, &max2, &sum2, w->y, 1, c->cols);
}

static void cases_run_scale(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)call;
    c->table->scale(w->x, 0.5f, c->cols, w->output);
}

static void cases_run_to_f16(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)call;
    c->table->to_f16(w->x, c->cols, (uint16_t *)(void *)w->codes);
}

static void cases_run_from_f16(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)call;
    c->table->from_f16((const uint16_t *)(const void *)w->codes, c->cols, w->output);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static void cases_run_read(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)c, (void)call;
    limits_read(harness_next(w, CASES_READ_BYTES), CASES_READ_BYTES);
}

enum { CASES_PEAK_LOOPS = 1000 };

static void cases_run_peak(const harness_case *c, harness_worker *w, uint64_t call) {
    (void)w, (void)call;
    c->peak->run(CASES_PEAK_LOOPS);
}

harness_case cases_read(const harness_memory *memory) {
    return (harness_case){
        .kernel = "read", .type = "", .isa = "", .bytes = CASES_READ_BYTES, .run = cases_run_read, .memory = memory};
}

harness_case cases_peak(const harness_memory *memory, const limits_peak *peak) {
    return (harness_case){.kernel = peak->name,
                          .type = "",
                          .isa = peak->isa,
                          .ops = peak->ops * CASES_PEAK_LOOPS,
                          .bound = peak->bound,
                          .run = cases_run_peak,
                          .memory = memory,
                          .peak = peak};
}

/* The limit of an instruction set: its own, or the widest there is for those that have none (the reference and
 * OpenBLAS). */
static const limits_peak *cases_find_peak(const char *isa, harness_bound bound) {
    const limits_peak *peak, *first = NULL;
    for (size_t i = 0; (peak = limits_peak_at(i)); i++) {
        if (peak->bound != bound) continue;
        if (!strcmp(peak->isa, isa)) return peak;
        if (!first) first = peak;
    }
    return first;
}

/* ---- the list ---------------------------------------------------------------------------------------------------- */

void cases_name(const harness_case *c, char *text, size_t size) {
    snprintf(text, size, "%s%s%s%s%s", c->kernel, *c->type ? " " : "", c->type, *c->matrix ? " " : "", c->matrix);
}

static int cases_is_wanted(const cases_plan *plan, const harness_case *c) {
    char name[96];
    cases_name(c, name, sizeof name);
    return !plan->only || strstr(name, plan->only) != NULL;
}

static int cases_append(cases_list *list, harness_case c) {
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        harness_case *items = realloc(list->items, capacity * sizeof *items);
        if (!items) return -1;
        list->items = items;
        list->capacity = capacity;
    }
    c.peak = cases_find_peak(c.isa, c.bound);
    list->items[list->n++] = c;
    return 0;
}

/* 0, also when it was not wanted; -1 when memory is short. */
static int cases_add(const cases_plan *plan, cases_list *list, harness_case c) {
    return cases_is_wanted(plan, &c) ? cases_append(list, c) : 0;
}

/* y[tokens][rows] with weights of one type on every instruction set. */
static int cases_add_matmul(const cases_plan *plan, const harness_memory *memory, cases_list *list,
                            const cases_matrix *m, uint32_t type, int tokens) {
    size_t panel_bytes = kern_panel_bytes(type, m->cols);
    int64_t panels = (m->rows + KERN_PANEL - 1) / KERN_PANEL;
    int status = 0;
    if (!panel_bytes) return 0;
    for (int i = 0; i < plan->n_isas && !status; i++) {
        int ref = !strcmp(plan->isa[i], "ref");
        int64_t part = ref ? 1 : panels / (plan->n_threads * CASES_PARTS);
        int64_t most = (int64_t)(memory->n_weights / (size_t)memory->n_threads / panel_bytes / 2);
        const int64_t panel_group = list->table[i].panel_group;
        part = (part + panel_group - 1) / panel_group * panel_group;
        if (part > most) part = most;
        if (part < 1) part = 1;
        harness_case c = {.kernel = "matmul", .isa = plan->isa[i], .rows = m->rows, .cols = m->cols, .tokens = tokens};
        c.type = kern_type_get(type).name;
        snprintf(c.matrix, sizeof c.matrix, "%s", m->name);
        c.count = m->count;
        c.bound = kern_type_get(type).integer ? HARNESS_INTEGER : HARNESS_FLOAT;
        c.weight_type = type;
        c.call_rows = part * KERN_PANEL < m->rows ? part * KERN_PANEL : m->rows;
        c.call_tokens = ref && tokens > CASES_REF_TOKENS ? CASES_REF_TOKENS : tokens;
        if (list->table[i].rows_at_once) {
            const int64_t parts = (tokens - 1) / list->table[i].rows_at_once(m->cols) + 1;
            c.call_tokens = tokens / parts;
        }
        c.ops = 2.0 * (double)c.call_rows * (double)m->cols * (double)c.call_tokens;
        c.bytes = (double)part * (double)panel_bytes;
        c.run = cases_run_matmul;
        c.memory = memory;
        c.table = &list->table[i];
        c.group = list->n_groups;
        status = cases_add(plan, list, c);
    }
    return status;
}

/* The same as float32 by OpenBLAS: wherever there is something to compare it with, or on demand. */
static int cases_add_blas(const cases_plan *plan, const harness_memory *memory, cases_list *list, const cases_matrix *m,
                          int tokens, int compare) {
#if defined(MINIM_WITH_OPENBLAS)
    if (plan->no_blas) return 0;
    openblas_set_num_threads(plan->n_threads);
    int64_t most = (int64_t)(memory->n_weights / 2 / 4) / m->cols;
    harness_case c = {.kernel = tokens == 1 ? "sgemv" : "sgemm", .type = "F32", .isa = "openblas"};
    snprintf(c.matrix, sizeof c.matrix, "%s", m->name);
    c.rows = m->rows, c.cols = m->cols, c.tokens = c.call_tokens = tokens;
    c.count = m->count;
    c.call_rows = m->rows < most ? m->rows : most;
    c.bytes = 4.0 * (double)c.call_rows * (double)m->cols;
    c.ops = c.bytes / 2 * tokens;
    c.run = tokens == 1 ? cases_run_sgemv : cases_run_sgemm;
    c.memory = memory;
    c.alone = 1;
    c.group = list->n_groups;
    return compare ? cases_append(list, c) : cases_add(plan, list, c);
#else
    (void)plan, (void)memory, (void)list, (void)m, (void)tokens, (void)compare;
    return 0;
#endif
}

/* All types of one matrix and number of tokens are a group, OpenBLAS last. */
static int cases_add_matrix(const cases_plan *plan, const harness_memory *memory, cases_list *list,
                            const cases_matrix *m, int tokens) {
    int status = 0;
    size_t before = list->n;
    if (m->last && tokens > 1) return 0;
    if (m->type != CASES_ANY_TYPE) status = cases_add_matmul(plan, memory, list, m, m->type, tokens);
    for (int i = 0; i < plan->n_types && m->type == CASES_ANY_TYPE && !status; i++)
        status = cases_add_matmul(plan, memory, list, m, plan->type[i], tokens);
    if (!status) status = cases_add_blas(plan, memory, list, m, tokens, list->n > before);
    if (list->n > before) list->n_groups++;
    return status;
}

/* One operation on every instruction set. `ops` counts what ref/ does: additions, multiplications, comparisons and
 * conversions one each, a fused multiply-add two. */
static int cases_add_other(const cases_plan *plan, const harness_memory *memory, cases_list *list, harness_case c) {
    size_t before = list->n;
    int status = 0;
    c.memory = memory;
    c.group = list->n_groups;
    for (int i = 0; i < plan->n_isas && !status; i++) {
        c.isa = plan->isa[i];
        c.table = &list->table[i];
        status = cases_add(plan, list, c);
    }
    if (list->n > before) list->n_groups++;
    return status;
}

static int cases_add_attention(const cases_plan *plan, const harness_memory *memory, cases_list *list) {
    static const char *const names[KERN_KV_FLOATS] = {[KERN_KV_F16] = "F16", [KERN_KV_F32] = "F32"};
    int group = plan->n_heads / plan->n_kv_heads, status = 0;
    const int tokens[] = {group, CASES_QUERIES};
    for (uint32_t kv = 0; kv < KERN_KV_FLOATS; kv++) {
        for (int i = 0; i < 2 && !status; i++) {
            harness_case c = {.kernel = "qk", .type = names[kv], .rows = CASES_KEYS, .cols = plan->head_dim};
            c.tokens = tokens[i];
            c.weight_type = kv;
            c.bytes = (kv == KERN_KV_F16 ? 2.0 : 4.0) * CASES_KEYS * plan->head_dim;
            c.ops = 2.0 * CASES_KEYS * plan->head_dim * tokens[i];
            c.run = cases_run_qk;
            status = cases_add_other(plan, memory, list, c);
            c.kernel = "pv";
            c.run = cases_run_pv;
            if (!status) status = cases_add_other(plan, memory, list, c);
        }
    }
    return status;
}

static int cases_add_others(const cases_plan *plan, const harness_memory *memory, cases_list *list) {
    const double embd = plan->n_embd, ff = plan->n_ff, dim = plan->head_dim, heads = plan->n_heads;
    const struct {
        const char *kernel;
        harness_run *run;
        double rows, cols, ops, bytes; /* ops and bytes of one value */
    } part[] = {
        {"quantize", cases_run_quantize, 1, embd, 4, 5.25},
        {"rms_norm", cases_run_rms_norm, 1, embd, 4, 12},
        {"add", cases_run_add, 1, embd, 1, 12},
        {"silu_mul", cases_run_silu_mul, 1, ff, 20, 12},
        {"rope_adjacent", cases_run_rope_adjacent, heads, dim, 3, 8},
        {"rope_split", cases_run_rope_split, heads, dim, 3, 8},
        {"softmax_part", cases_run_softmax_part, 1, CASES_RANGE, 18, 8},
        {"softmax_join", cases_run_softmax_join, 1, dim, 3, 12},
        {"scale", cases_run_scale, 1, dim, 1, 8},
        {"to_f16", cases_run_to_f16, 1, dim * plan->n_kv_heads, 1, 6},
        {"from_f16", cases_run_from_f16, 1, embd, 1, 6},
    };
    int status = cases_add_attention(plan, memory, list);
    for (size_t i = 0; i < sizeof part / sizeof *part && !status; i++) {
        harness_case c = {.kernel = part[i].kernel, .type = "F32", .tokens = 1, .run = part[i].run};
        double values = part[i].rows * part[i].cols;
        if (c.run == cases_run_quantize && plan->n_embd % KERN_BLOCK) continue;
        c.rows = (int64_t)part[i].rows;
        c.cols = (int64_t)part[i].cols;
        c.ops = values * part[i].ops;
        c.bytes = values * part[i].bytes;
        status = cases_add_other(plan, memory, list, c);
    }
    return status;
}

static size_t cases_largest(size_t a, size_t b) {
    return a > b ? a : b;
}

void cases_sizes(const cases_plan *plan, size_t *n_vector, size_t *act_values, size_t *outputs) {
    size_t rows = (size_t)plan->n_heads * (size_t)plan->head_dim;
    *n_vector = cases_largest((size_t)plan->n_embd, (size_t)plan->n_ff);
    *n_vector = cases_largest(*n_vector, cases_largest(rows, (size_t)CASES_QUERIES * (size_t)plan->head_dim));
    *n_vector = 2 * cases_largest(*n_vector, (size_t)plan->n_heads * CASES_KEYS); /* codes also hold f16 */
    *act_values = *n_vector;
    *outputs = *n_vector;
    for (int i = 0; i < plan->n_matrices; i++) {
        for (int k = 0; k < plan->n_tokens; k++) {
            size_t tokens = plan->matrix[i].last ? 1 : (size_t)plan->tokens[k];
            *act_values = cases_largest(*act_values, tokens * (size_t)plan->matrix[i].cols);
            *outputs = cases_largest(*outputs, tokens * (size_t)plan->matrix[i].rows);
        }
    }
}

int cases_make(const cases_plan *plan, const harness_memory *memory, cases_list *list) {
    int status = 0;
    for (int i = 0; i < plan->n_isas; i++) kern_table_init(&list->table[i], plan->isa[i]);
    for (int k = 0; k < plan->n_tokens && !status; k++) {
        for (int i = 0; i < plan->n_matrices && !status; i++)
            status = cases_add_matrix(plan, memory, list, &plan->matrix[i], plan->tokens[k]);
    }
    return status ? status : cases_add_others(plan, memory, list);
}

void cases_free(cases_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        free(list->items[i].rate);
        free(list->items[i].of_read);
        free(list->items[i].of_peak);
    }
    free(list->items);
}
