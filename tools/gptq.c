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

/* Copies the triangle above the diagonal of h [n][n] to the one below it, or back, in squares that fit the cache. */
static void gptq_mirror(size_t n, float *h, int back) {
    enum { SIDE = 64 };
    for (size_t top = 0; top < n; top += SIDE) {
        for (size_t left = top; left < n; left += SIDE) {
            for (size_t i = top; i < n && i < top + SIDE; i++) {
                for (size_t j = left > i ? left : i + 1; j < n && j < left + SIDE; j++) {
                    if (back)
                        h[i * n + j] = h[j * n + i];
                    else
                        h[j * n + i] = h[i * n + j];
                }
            }
        }
    }
}

/* Puts the rows and columns of s->root in the order of s->order: element (i, j) becomes what (order[i], order[j]) was.
 * In place, for there may be no room for two. 0, or -1 without memory. */
static int gptq_permute(const gptq_solver *s) {
    const size_t n = s->n, bytes = n * sizeof *s->root;
    float *spare = malloc(bytes);
    char *done = calloc(n, 1);
    const int code = spare && done ? 0 : -1;
    for (size_t i = 0; i < n && !code; i++) {
        float *row = s->root + i * n;
        for (size_t j = 0; j < n; j++) spare[j] = row[s->order[j]];
        memcpy(row, spare, bytes);
    }
    for (size_t start = 0; start < n && !code; start++) { /* a cycle of rows, each to the place of the one before */
        if (done[start]) continue;
        memcpy(spare, s->root + start * n, bytes);
        size_t i = start;
        for (; s->order[i] != start; i = s->order[i]) {
            memcpy(s->root + i * n, s->root + s->order[i] * n, bytes);
            done[i] = 1;
        }
        memcpy(s->root + i * n, spare, bytes);
        done[i] = 1;
    }
    free(spare);
    free(done);
    return code;
}

int gptq_prepare(gptq_solver *s, const char *name, size_t n, float *h) {
    double mean = 0, damping = 0.01;
    *s = (gptq_solver){.n = n, .root = h};
    if (!n) return tool_fail("the Hessian of %s is empty", name);
    for (size_t i = 0; i < n; i++) mean += (double)h[i * n + i] / (double)n;
    s->order = calloc(n, sizeof *s->order);
    s->weight = malloc(n * sizeof *s->weight);
    float *diagonal = malloc(n * sizeof *diagonal);
    gptq_mirror(n, h, 0);
    int code = -1, found = 0;
    if (!s->order || !s->weight || !diagonal || gptq_rank_columns(s, h, mean) || gptq_permute(s))
        code = tool_fail("out of memory for the Hessian of %s", name);
    for (size_t i = 0; i < n && code < 0; i++) diagonal[i] = h[i * n + i];
    /* A hundredth of the mean on the diagonal, as in the paper; more where that is not enough. */
    for (int tries = 0; tries < 5 && code < 0 && !found; tries++, damping *= 10) {
        const float add = mean > 0 ? (float)(damping * mean) : 1;
        if (tries) gptq_mirror(n, h, 1);
        for (size_t i = 0; i < n; i++) h[i * n + i] = diagonal[i] + add;
        found = !blas_inverse_root(n, h);
    }
    free(diagonal);
    if (code >= 0 || found) return code;
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
