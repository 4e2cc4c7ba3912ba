/* harness.h: measures kernels against what the machine can do at most.
 *
 * Everything that is timed is a harness_case: a kernel on some shape, the pure reading of memory, or the bare multiply-
 * add instruction. A sample runs a case on all threads for a few milliseconds. Cases that are compared stand in one
 * group and are sampled right after each other, round after round, and a ratio is taken inside a round: the machine's
 * speed may drift from round to round, and with it everything that is compared.
 */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include <stddef.h>
#include <stdint.h>

#include "../kernels/kernels.h"

/* ---- threads ----------------------------------------------------------------------------------------------------- */

typedef struct team team;

/* n threads, of which the caller of team_run() is number 0. NULL when that fails. */
team *team_new(int n);
void team_free(team *t);
int team_threads(const team *t);
/* Runs work(arg, thread) on every thread, all starting together, and returns when the last is done. */
void team_run(team *t, void (*work)(void *arg, int thread), void *arg);

/* CPUs that this process may use. */
int team_cpus(void);

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* What one thread works on. Numbers everywhere are finite and no subnormals, whatever type they are read as. */
typedef struct harness_worker {
    uint8_t *weights;      /* its part of the large memory: bytes that are valid weights of every type */
    size_t n_weights, at;  /* bytes; where the next call reads */
    float *x, *y, *z;      /* [n_vector] each, small vectors */
    int8_t *codes;         /* [n_vector] */
    int32_t *sums;         /* [n_vector / 32] */
    float *output;         /* [n_output], for products */
    double calls, seconds; /* of the last sample */
} harness_worker;

typedef struct harness_memory {
    int n_threads;
    uint8_t *weights; /* [n_weights], much larger than the last-level cache */
    size_t n_weights, n_vector, n_output;
    kern_act act;           /* [tokens][cols] of the largest case; shared, read only */
    harness_worker *worker; /* [n_threads] */
} harness_memory;

/* act_values: the most tokens times columns; outputs: the most tokens times rows. 0 or -1; free it in both cases. */
int harness_memory_new(harness_memory *m, team *t, size_t weight_bytes, size_t n_vector, size_t act_values,
                       size_t outputs);
void harness_memory_free(harness_memory *m);

/* The next n bytes of a worker's weights, cache-line aligned; starts again at the end. */
static inline const void *harness_next(harness_worker *w, size_t n) {
    const size_t step = (n + 63) / 64 * 64;
    if (w->n_weights - w->at < step) w->at = 0;
    const void *p = w->weights + w->at;
    w->at += step;
    return p;
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

typedef enum harness_bound { HARNESS_FLOAT, HARNESS_INTEGER } harness_bound;

/* The bare multiply-add instruction of an instruction set: no kernel made of it is faster. */
typedef struct limits_peak {
    const char *name; /* "vpdpbusd zmm" */
    const char *isa;  /* in the words of kern_isa_name() */
    harness_bound bound;
    double ops; /* of one loop; a multiply-add is two operations */
    void (*run)(uint64_t loops);
} limits_peak;

/* The index-th peak that this CPU can run, widest first; NULL behind the last. */
const limits_peak *limits_peak_at(size_t index);

/* Reads n bytes in the fastest way known. */
void limits_read(const void *p, size_t n);

/* ---- cases ------------------------------------------------------------------------------------------------------- */

typedef struct harness_case harness_case;
typedef void harness_run(const harness_case *c, harness_worker *w, uint64_t call);

struct harness_case {
    const char *kernel; /* "matmul", "rms_norm" ... */
    const char *type;   /* of the weights or the cache, "Q4_0"; "F32" for what works on activations */
    const char *isa;    /* "avx2" ... or "openblas" */
    char matrix[24];    /* "ffn_gate"; "" where there is none */
    int64_t rows, cols, tokens;
    int count;           /* how many matrices of this shape a step multiplies with; 0 = none */
    harness_bound bound; /* which multiply-add limits it */
    double ops, bytes;   /* of one call. bytes: what cannot be in a cache (weights, KV) of a product; all that is read
                            and written of the others */
    harness_run *run;
    const harness_memory *memory;
    const kern_table *table;
    const limits_peak *peak; /* the limit of its instruction set */
    uint32_t weight_type;
    int64_t call_rows, call_tokens; /* of a product: what one call computes */
    int alone;                      /* runs on thread 0 only: it brings threads of its own */
    int group;                      /* cases of a group are compared */
    uint64_t repeat;                /* calls between two looks at the clock; 0 = not measured yet */
    double *rate;                   /* [rounds] calls a second, all threads together */
    double *of_read, *of_peak;      /* [rounds] shares of the limits, measured in the same round around the case */
};

/* Calls a second, of all threads together. */
double harness_sample(team *t, harness_case *c, double seconds);

double harness_now(void); /* seconds of a monotonic clock */

#endif
