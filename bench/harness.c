/* harness.c: memory to work on, and the taking of one sample. See harness.h. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { HARNESS_HUGE_PAGE = 2 << 20 };

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Large pages where the system has them: otherwise the time to find small ones would count as memory being slow. */
static void *harness_alloc(size_t bytes) {
    size_t size = (bytes + HARNESS_HUGE_PAGE - 1) / HARNESS_HUGE_PAGE * HARNESS_HUGE_PAGE;
    void *p = aligned_alloc(bytes < HARNESS_HUGE_PAGE ? 64 : HARNESS_HUGE_PAGE, size ? size : HARNESS_HUGE_PAGE);
#if defined(MADV_HUGEPAGE)
    if (p && bytes >= HARNESS_HUGE_PAGE) madvise(p, size, MADV_HUGEPAGE);
#endif
    return p;
}

static uint64_t harness_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift64 (Marsaglia 2003) */
    return *state = x;
}

/* Random 16-bit groups whose bits 14..12 are 011: read as f16 between 1/8 and 2, read as bf16 or (two of them) as
 * float32 between 2^-31 and 2, of both signs. As codes any bits will do. So the same bytes serve as panels of every
 * type, scales included. */
static void harness_fill_weights(uint8_t *p, size_t n, uint64_t seed) {
    uint64_t state = seed;
    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t word = (harness_random(&state) & 0x8fff8fff8fff8fff) | 0x3000300030003000;
        memcpy(p + i, &word, 8);
    }
}

static void harness_fill_floats(float *x, size_t n, uint64_t seed) {
    uint64_t state = seed;
    for (size_t i = 0; i < n; i++) x[i] = (float)((int64_t)harness_random(&state) >> 32) * 0x1p-31f;
}

/* Each thread fills its own part: on a machine of several memories, it then lies near that thread. */
static void harness_fill(void *arg, int thread) {
    harness_memory *m = arg;
    harness_worker *w = &m->worker[thread];
    uint64_t seed = 88172645463325252 + (uint64_t)thread;
    harness_fill_weights(w->weights, w->n_weights, seed);
    harness_fill_floats(w->x, m->n_vector, seed);
    harness_fill_floats(w->y, m->n_vector, seed + 100);
    for (size_t i = 0; i + 1 < m->n_vector; i += 2) {
        double sine, cosine;
        kern_sincos((double)i, &sine, &cosine);
        w->z[i] = (float)cosine, w->z[i + 1] = (float)sine;
    }
    memset(w->output, 0, m->n_output * sizeof *w->output);
}

static int harness_worker_new(harness_memory *m, int index) {
    harness_worker *w = &m->worker[index];
    w->n_weights = m->n_weights / (size_t)m->n_threads / HARNESS_HUGE_PAGE * HARNESS_HUGE_PAGE;
    w->weights = m->weights + (size_t)index * w->n_weights;
    w->x = harness_alloc(m->n_vector * sizeof *w->x);
    w->y = harness_alloc(m->n_vector * sizeof *w->y);
    w->z = harness_alloc(m->n_vector * sizeof *w->z);
    w->codes = harness_alloc(m->n_vector);
    w->sums = harness_alloc(m->n_vector);
    w->output = harness_alloc(m->n_output * sizeof *w->output);
    return w->x && w->y && w->z && w->codes && w->sums && w->output && w->n_weights ? 0 : -1;
}

/* Tiles of the blocks that act has, one after the other, for the instruction set that wants them. */
static void harness_fill_tiles(const kern_table *table, const kern_act *act, size_t blocks, kern_act_tile *tiles,
                               size_t n) {
    for (size_t i = 0; table->tile_row && i < n; i++)
        for (int row = 0; row < KERN_TILE_TOKENS; row++) {
            const size_t b = (i * KERN_TILE_TOKENS + (size_t)row) % blocks;
            table->tile_row(act->codes + b * KERN_BLOCK, act->scale + b, act->sum + b, KERN_BLOCK, &tiles[i], row);
        }
}

/* Cells for any set: what sums begin with does not change their time. */
static void harness_fill_cells(const kern_act *act, size_t blocks, kern_act_cell *cells, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const size_t b = i % blocks;
        cells[i] = (kern_act_cell){.scale = act->scale[b], .weight = act->scale[b] * (float)act->sum[b]};
        memcpy(cells[i].codes, act->codes + b * KERN_BLOCK, KERN_BLOCK);
    }
}

/* Activations as they are after quantize(); codes, scales and sums need not belong to x, only be possible. */
static int harness_act_new(kern_act *act, size_t n) {
    float *x = harness_alloc(n * sizeof *x), *scale = harness_alloc(n / KERN_BLOCK * sizeof *scale);
    int8_t *codes = harness_alloc(n);
    int32_t *sum = harness_alloc(n / KERN_BLOCK * sizeof *sum);
    kern_table table;
    kern_table_init(&table, NULL);
    const size_t n_cells = 2 * n / KERN_BLOCK; /* enough if the last rows are few */
    kern_act_cell *cells = harness_alloc(n_cells * sizeof *cells);
    /* A tile has 16 rows, even when there are fewer: twice as many are enough from 16 tokens on. */
    const size_t n_tiles = 2 * n / KERN_BLOCK / KERN_TILE_TOKENS;
    kern_act_tile *tiles = harness_alloc(n_tiles * sizeof *tiles);
    *act = (kern_act){.x = x, .codes = codes, .scale = scale, .sum = sum, .cells = cells, .tiles = tiles};
    if (!x || !scale || !codes || !sum || !cells || !tiles) return -1;
    harness_fill_floats(x, n, 4711);
    for (size_t b = 0; b < n / KERN_BLOCK; b++) {
        sum[b] = 0;
        for (size_t i = b * KERN_BLOCK; i < (b + 1) * KERN_BLOCK; i++) {
            codes[i] = (int8_t)(x[i] * 113);
            sum[b] += codes[i];
        }
        scale[b] = 1.0f / 127;
    }
    harness_fill_cells(act, n / KERN_BLOCK, cells, n_cells);
    harness_fill_tiles(&table, act, n / KERN_BLOCK, tiles, n_tiles);
    return 0;
}

int harness_memory_new(harness_memory *m, team *t, size_t weight_bytes, size_t n_vector, size_t act_values,
                       size_t outputs) {
    *m = (harness_memory){.n_threads = team_threads(t), .n_vector = (n_vector + 63) / 64 * 64, .n_output = outputs};
    m->n_weights = weight_bytes;
    m->weights = harness_alloc(weight_bytes);
    m->worker = calloc((size_t)m->n_threads, sizeof *m->worker);
    if (!m->weights || !m->worker || harness_act_new(&m->act, (act_values + 63) / 64 * 64)) return -1;
    for (int i = 0; i < m->n_threads; i++) {
        if (harness_worker_new(m, i)) return -1;
    }
    team_run(t, harness_fill, m);
    return 0;
}

void harness_memory_free(harness_memory *m) {
    for (int i = 0; m->worker && i < m->n_threads; i++) {
        harness_worker *w = &m->worker[i];
        void *all[] = {w->x, w->y, w->z, w->codes, w->sums, w->output};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) free(all[k]);
    }
    free((void *)m->act.x);
    free((void *)m->act.codes);
    free((void *)m->act.scale);
    free((void *)m->act.sum);
    free((void *)m->act.cells);
    free((void *)m->act.tiles);
    free(m->worker);
    free(m->weights);
}

/* ---- samples ----------------------------------------------------------------------------------------------------- */

double harness_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

typedef struct harness_sampling {
    const harness_case *c;
    const harness_memory *memory;
    double seconds;
} harness_sampling;

static void harness_work(void *arg, int thread) {
    const harness_sampling *s = arg;
    const harness_case *c = s->c;
    harness_worker *w = &s->memory->worker[thread];
    uint64_t calls = 0;
    double start = harness_now(), now;
    w->calls = w->seconds = 0;
    if (c->alone && thread > 0) return;
    do {
        for (uint64_t i = 0; i < c->repeat; i++) c->run(c, w, calls++);
        now = harness_now();
    } while (now - start < s->seconds);
    w->calls = (double)calls;
    w->seconds = now - start;
}

/* Calls until the clock, which itself takes some 50 ns, counts for nothing. */
static void harness_calibrate(harness_case *c) {
    const double enough = 10e-6;
    harness_worker *w = &c->memory->worker[0];
    c->run(c, w, 0); /* the first one fetches code and data */
    for (c->repeat = 1; c->repeat < 1 << 16; c->repeat *= 2) {
        double start = harness_now();
        for (uint64_t i = 0; i < c->repeat; i++) c->run(c, w, i);
        if (harness_now() - start > enough) return;
    }
}

double harness_sample(team *t, harness_case *c, double seconds) {
    const harness_sampling s = {c, c->memory, seconds};
    double rate = 0;
    if (!c->repeat) harness_calibrate(c);
    team_run(t, harness_work, (void *)&s);
    for (int i = 0; i < c->memory->n_threads; i++) {
        const harness_worker *w = &c->memory->worker[i];
        if (w->seconds > 0) rate += w->calls / w->seconds;
    }
    return rate;
}
