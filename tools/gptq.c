/* gptq.c: see gptq.h. */
#include "gptq.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "blas.h"
#include "common.h"

/* ---- the solver -------------------------------------------------------------------------------------------------- */

typedef struct gptq_rank {
    float weight;
    uint32_t column;
} gptq_rank;

/* Largest first; of equal ones the first. */
static int gptq_compare(const void *a, const void *b) {
    const gptq_rank *left = a, *right = b;
    if (left->weight != right->weight) return left->weight < right->weight ? 1 : -1;
    return left->column < right->column ? -1 : 1;
}

/* The order of the columns, and their weights in relation to the mean; a little for inputs that are always zero. */
static int gptq_rank_columns(gptq_solver *s, const float *h, double mean) {
    gptq_rank *ranks = malloc(s->n * sizeof *ranks);
    if (!ranks) return -1;
    for (size_t i = 0; i < s->n; i++) {
        ranks[i] = (gptq_rank){h[i * s->n + i], (uint32_t)i};
        s->weight[i] = mean > 0 ? (float)((double)h[i * s->n + i] / mean + 1e-3) : 1;
    }
    qsort(ranks, s->n, sizeof *ranks, gptq_compare);
    for (size_t i = 0; i < s->n; i++) s->order[i] = ranks[i].column;
    free(ranks);
    return 0;
}

int gptq_prepare(gptq_solver *s, const char *name, size_t n, const float *h) {
    double mean = 0, damping = 0.01;
    *s = (gptq_solver){.n = n};
    if (!n) return tool_fail("the Hessian of %s is empty", name);
    for (size_t i = 0; i < n; i++) mean += (double)h[i * n + i] / (double)n;
    if (n <= SIZE_MAX / n / sizeof *s->root) s->root = malloc(n * n * sizeof *s->root);
    s->order = calloc(n, sizeof *s->order);
    s->weight = malloc(n * sizeof *s->weight);
    if (!s->root || !s->order || !s->weight || gptq_rank_columns(s, h, mean))
        return tool_fail("out of memory for the Hessian of %s", name);
    /* A hundredth of the mean on the diagonal, as in the paper; more where that is not enough. */
    for (int tries = 0; tries < 5; tries++, damping *= 10) {
        const float add = mean > 0 ? (float)(damping * mean) : 1;
        for (size_t i = 0; i < n; i++) {
            const size_t a = s->order[i];
            for (size_t j = i; j < n; j++) {
                const size_t b = s->order[j];
                s->root[i * n + j] = a < b ? h[a * n + b] : h[b * n + a];
            }
            s->root[i * n + i] += add;
        }
        if (!blas_inverse_root(n, s->root)) return -1;
    }
    return tool_fail("the Hessian of %s cannot be inverted: expected finite inputs", name);
}

void gptq_free(gptq_solver *s) {
    free(s->root);
    free(s->order);
    free(s->weight);
    *s = (gptq_solver){0};
}

/* ---- rounding ---------------------------------------------------------------------------------------------------- */

enum {
    GPTQ_ROWS = GPTQ_TILE,
    GPTQ_COLUMNS = 128 /* after so many, the columns to come are brought up to date */
};

typedef struct gptq_job {
    const gptq_solver *solver;
    const encode_type *type;
    const float *x;
    uint8_t *out;
    size_t rows;
    atomic_size_t next, bad; /* tile; the first element that does not fit */
    atomic_int code;
} gptq_job;

/* What a thread needs for a tile. */
typedef struct gptq_tile {
    float *w;            /* [GPTQ_ROWS][n]: in the order of the columns; what is left of the weights */
    float *error;        /* [GPTQ_ROWS][GPTQ_COLUMNS] */
    encode_parts *parts; /* [GPTQ_ROWS][n / block] */
} gptq_tile;

static void gptq_note_bad(gptq_job *job, size_t element) {
    size_t bad = atomic_load(&job->bad);
    while (element < bad && !atomic_compare_exchange_weak(&job->bad, &bad, element)) {
    }
}

/* Columns first .. end-1 of a row: rounds each and lets those behind it make up for the error. */
static void gptq_round_columns(const gptq_job *job, float *w, encode_parts *parts, size_t first, size_t end,
                               float *error) {
    const gptq_solver *s = job->solver;
    const size_t block = (size_t)job->type->block;
    for (size_t i = first; i < end; i++) {
        const size_t column = s->order[i];
        const float *root = s->root + i * s->n;
        const float q = encode_code(job->type, &parts[column / block], (int)(column % block), w[i]);
        const float e = (w[i] - q) / root[i];
        error[i - first] = e;
        for (size_t j = i + 1; j < end; j++) w[j] -= e * root[j];
    }
}

static void gptq_run_tile(gptq_job *job, const gptq_tile *tile, size_t first, size_t rows) {
    const gptq_solver *s = job->solver;
    const size_t n = s->n, block = (size_t)job->type->block, n_blocks = n / block, bytes = (size_t)job->type->bytes;
    for (size_t r = 0; r < rows; r++) {
        const float *x = job->x + (first + r) * n;
        for (size_t b = 0; b < n_blocks; b++) {
            if (!encode_scales(job->type, x + b * block, s->weight + b * block, &tile->parts[r * n_blocks + b]))
                continue;
            gptq_note_bad(job, (first + r) * n + b * block);
            return;
        }
        for (size_t i = 0; i < n; i++) tile->w[r * n + i] = x[s->order[i]];
    }
    for (size_t at = 0, end; at < n; at = end) {
        end = n - at < GPTQ_COLUMNS ? n : at + GPTQ_COLUMNS;
        for (size_t r = 0; r < rows; r++)
            gptq_round_columns(job, tile->w + r * n, tile->parts + r * n_blocks, at, end,
                               tile->error + r * GPTQ_COLUMNS);
        if (end < n)
            blas_subtract_product(rows, n - end, end - at, tile->error, GPTQ_COLUMNS, s->root + at * n + end, n,
                                  tile->w + end, n);
    }
    for (size_t b = 0; b < rows * n_blocks; b++)
        encode_put(job->type, &tile->parts[b], job->out + (first * n_blocks + b) * bytes);
}

static void *gptq_run(void *argument) {
    gptq_job *job = argument;
    const size_t n = job->solver->n, n_blocks = n / (size_t)job->type->block;
    gptq_tile tile = {.w = malloc(GPTQ_ROWS * n * sizeof(float)),
                      .error = malloc(GPTQ_ROWS * GPTQ_COLUMNS * sizeof(float)),
                      .parts = calloc(GPTQ_ROWS * n_blocks, sizeof(encode_parts))};
    if (!tile.w || !tile.error || !tile.parts) atomic_store(&job->code, EXIT_CODE_FAILED);
    while (atomic_load(&job->code) < 0) {
        const size_t first = atomic_fetch_add(&job->next, GPTQ_ROWS);
        if (first >= job->rows) break;
        gptq_run_tile(job, &tile, first, job->rows - first < GPTQ_ROWS ? job->rows - first : GPTQ_ROWS);
        if (tool_interrupted()) atomic_store(&job->code, EXIT_CODE_INTERRUPTED);
    }
    free(tile.w);
    free(tile.error);
    free(tile.parts);
    return NULL;
}

int gptq_encode(const gptq_solver *solver, const encode_type *type, const float *x, size_t rows, int n_threads,
                uint8_t *out, size_t *bad) {
    enum { MOST = 64 };
    pthread_t threads[MOST];
    int started[MOST] = {0};
    gptq_job job = {.solver = solver, .type = type, .x = x, .out = out, .rows = rows};
    atomic_init(&job.next, 0);
    atomic_init(&job.bad, rows * solver->n);
    atomic_init(&job.code, -1);
    blas_set_threads(1);
    for (int i = 1; i < n_threads && i < MOST; i++) started[i] = !pthread_create(&threads[i], NULL, gptq_run, &job);
    gptq_run(&job);
    for (int i = 1; i < n_threads && i < MOST; i++)
        if (started[i]) pthread_join(threads[i], NULL);
    blas_set_threads(n_threads);
    *bad = atomic_load(&job.bad);
    const int code = atomic_load(&job.code);
    return code == EXIT_CODE_FAILED ? tool_fail("out of memory") : code;
}
