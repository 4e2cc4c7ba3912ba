/* ready.c: panels that are made when they are first needed.
 *
 * The rows of an ordinary file are mapped, and nothing is copied while loading. The first product of few tokens with a
 * matrix is computed from there: panels are made a few at a time in a buffer that stays in the cache. The second, or
 * one of many tokens, makes all panels first, and lets go of the rows. So the first token waits neither for as much new
 * memory as the file has bytes nor for packing into it, and everything after it finds panels. The bits are the same:
 * panels are. Engines may share a model: one of them makes the panels of a matrix, others go on with its rows. */
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine.h"

enum { READY_MANY = 32 /* tokens in a step for which panels are worth their memory at once */ };

static int ready_is_packed(const model_raw *raw) {
    return !raw || atomic_load_explicit(&raw->state, memory_order_acquire) == MODEL_RAW_PACKED;
}

/* Panels first .. first + n - 1. The rows of the next one are asked for before each: a thread packs neighbours. */
static void ready_pack(const kern_table *kern, const model_raw *raw, int64_t first, int64_t n, char *out) {
    const model_matrix *w = raw->matrix;
    const char *rows = raw->rows + (size_t)first * w->panel_bytes;
    for (int64_t left = w->rows - first * KERN_PANEL; n > 0; n--, left -= KERN_PANEL) {
        for (size_t i = w->panel_bytes; i < 2 * w->panel_bytes; i += 64) __builtin_prefetch(rows + i, 0, 2);
        kern->pack(w->type, w->cols, rows, w->panel_bytes / KERN_PANEL, left < KERN_PANEL ? (int)left : KERN_PANEL,
                   out);
        rows += w->panel_bytes, out += w->panel_bytes;
    }
}

typedef struct ready_job {
    const kern_table *kern;
    const model_raw *raw;
} ready_job;

static void ready_pack_task(void *arg, uint32_t item, int worker) {
    (void)worker;
    const ready_job *j = arg;
    ready_pack(j->kern, j->raw, item, 1, j->raw->panels + (size_t)item * j->raw->matrix->panel_bytes);
}

/* The process gives back what it holds of the mapped rows; the file's other bytes on the same pages come again. */
static void ready_let_go(const model_raw *raw) {
    const model_matrix *w = raw->matrix;
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), before = (uintptr_t)raw->rows % page;
    const size_t bytes = (size_t)w->rows * (w->panel_bytes / KERN_PANEL);
    madvise((void *)((uintptr_t)raw->rows - before), bytes + before, MADV_DONTNEED);
}

/* 1 when the panels are there; 0 while another engine makes them. */
static int ready_make(minim_engine *e, model_raw *raw) {
    int state = atomic_load_explicit(&raw->state, memory_order_acquire);
    while (state < MODEL_RAW_PACKING && !atomic_compare_exchange_weak(&raw->state, &state, MODEL_RAW_PACKING)) {
    }
    if (state >= MODEL_RAW_PACKING) return state == MODEL_RAW_PACKED;
    ready_job job = {&e->kern, raw};
    pool_run(e->pool, ready_pack_task, &job, (uint32_t)((raw->matrix->rows + KERN_PANEL - 1) / KERN_PANEL));
    atomic_store_explicit(&raw->state, MODEL_RAW_PACKED, memory_order_release);
    ready_let_go(raw);
    return 1;
}

void ready_for_product(minim_engine *e, const model_matrix *w, int n) {
    int fresh = MODEL_RAW_FRESH;
    if (ready_is_packed(w->raw)) return;
    if (n >= READY_MANY || !atomic_compare_exchange_strong(&w->raw->state, &fresh, MODEL_RAW_USED))
        ready_make(e, w->raw);
}

void ready_for_all(minim_engine *e) {
    for (size_t i = 0; i < e->model->n_raw; i++) {
        while (!ready_make(e, &e->model->raw[i])) sched_yield();
    }
}

const char *ready_panels(const minim_engine *e, const model_matrix *w, int64_t first, int64_t *n, char *buffer) {
    if (ready_is_packed(w->raw)) return (const char *)w->panels + (size_t)first * w->panel_bytes;
    if (*n > e->kern.panel_group) *n = e->kern.panel_group;
    ready_pack(&e->kern, w->raw, first, *n, buffer);
    return buffer;
}

void ready_row(const model_matrix *w, int64_t row, float *out) {
    if (ready_is_packed(w->raw)) {
        const char *panel = (const char *)w->panels + (size_t)(row / KERN_PANEL) * w->panel_bytes;
        kern_unpack_row(w->type, w->cols, panel, (int)(row % KERN_PANEL), out);
    } else {
        kern_dequantize(w->type, w->raw->rows + (size_t)row * (w->panel_bytes / KERN_PANEL), w->cols, out);
    }
}
