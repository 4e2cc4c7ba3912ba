/* pool.h: a thread pool for short parallel sections. Work is handed out item by item, so a slow core does not hold the
 * others; waiting threads spin for a bounded time and then sleep. Which thread runs an item never changes a result. */
#ifndef ENGINE_POOL_H
#define ENGINE_POOL_H

#include "base.h"

typedef struct pool pool;

enum { POOL_MAX_THREADS = 256 };

/* The calling thread of pool_run() is worker 0; n_threads - 1 more are started. */
minim_status pool_new(const minim_allocator *a, int n_threads, pool **out, minim_error *e);
void pool_free(pool *p);
int pool_threads(const pool *p);

/* Runs task(arg, item, worker) for every item in 0..n_items-1 and returns when all are done. worker is 0..n_threads-1
 * and no two running tasks share one, so it can index scratch memory. One caller at a time. */
typedef void pool_task(void *arg, uint32_t item, int worker);
void pool_run(pool *p, pool_task *task, void *arg, uint32_t n_items);
/* The same by the caller alone. */
void pool_run_alone(pool_task *task, void *arg, uint32_t n_items);

#endif
