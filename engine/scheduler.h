/* scheduler.h: what a scheduler is, inside. */
#ifndef ENGINE_SCHEDULER_H
#define ENGINE_SCHEDULER_H

#include "generate.h"

typedef struct sched_request sched_request;

/* In the order in which they are served: higher priority first, then who came first. */
typedef struct sched_list {
    sched_request *first, *last;
    size_t n;
} sched_list;

struct sched_request {
    sched_request *before, *after; /* in its list */
    uint64_t id;
    int priority;
    minim_request r;          /* without pointers to what is the caller's */
    minim_generate_options o; /* o.stop is in stop_block */
    char **stop_block;        /* [n_stop] pointers, then the strings */
    size_t stop_bytes;
    double submitted;

    int32_t *tokens; /* what it goes behind, the prompt, and what was generated; the last one may not have been run */
    size_t n_behind, n_tokens, capacity;
    minim_seq *seq;         /* from the start on, or from the submission as a fork; empty during a pause */
    size_t computed;        /* most tokens it ever had in the cache */
    generate_run g;         /* from the start on */
    speculator *speculator; /* the same; NULL = no guesses */
    speculation guess;      /* in the step being prepared, behind its rows */
    int started, paused;
    size_t n_pauses, n_recomputed;
    size_t n_rows; /* in the step being prepared */
    atomic_int cancelled;
};

struct minim_scheduler {
    minim_engine *engine;
    minim_scheduler_options o;
    pthread_mutex_t lock; /* of the lists and counters; not held during a step, nor in callbacks */
    int stepping;
    size_t n_cancelled; /* requests that are to end */
    sched_list waiting, running;
    minim_scheduler_info counts;
    uint64_t next_id;
    minim_row *rows; /* [n_rows] */
    size_t n_rows;
    float *logits;
    size_t logits_capacity; /* floats */
};

#endif
