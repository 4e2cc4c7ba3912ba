/* pool.c: see pool.h.
 *
 * One 64-bit word holds the whole hand-out: the number of items in the upper half, the next item in the lower. A thread
 * takes an item with one fetch-and-add; a latecomer of a finished section finds next >= items and takes nothing, so
 * nobody has to wait for threads that never got a CPU. The section is over when `done` reaches the number of items.
 */
#include "pool.h"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

struct pool {
    minim_allocator allocator;
    int n_threads, n_started;
    int n_awake; /* workers that are woken, and that spin: no more than there are CPUs beside the caller's */
    pool_task *task;
    void *arg;
    _Alignas(64) _Atomic uint64_t ticket; /* items << 32 | next */
    _Alignas(64) _Atomic uint32_t done;
    _Alignas(64) atomic_int sleeping;
    atomic_int stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread[POOL_MAX_THREADS];
    struct pool_worker {
        pool *pool;
        int index;
    } worker[POOL_MAX_THREADS];
};

static inline void pool_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int pool_has_item(uint64_t ticket) {
    return (uint32_t)ticket < (uint32_t)(ticket >> 32);
}

/* Works until no item is left. */
static void pool_work(pool *p, int worker) {
    while (pool_has_item(atomic_load_explicit(&p->ticket, memory_order_acquire))) {
        uint64_t ticket = atomic_fetch_add_explicit(&p->ticket, 1, memory_order_acq_rel);
        if (!pool_has_item(ticket)) return;
        p->task(p->arg, (uint32_t)ticket, worker);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
    }
}

/* Spins until there is something to do, at most about 100 microseconds; 0 when the time is over. */
static int pool_spin(pool *p) {
    double end = 0;
    for (int round = 0;; round++) {
        for (int i = 0; i < 64; i++) {
            if (pool_has_item(atomic_load_explicit(&p->ticket, memory_order_acquire))) return 1;
            pool_pause();
        }
        double now = time_now();
        if (round == 0)
            end = now + 100e-6;
        else if (now > end)
            return 0;
    }
}

/* 1 if more workers than that are awake: more threads than CPUs, and spinning would take one from a thread that works.
 */
static int pool_crowded(const pool *p) {
    return p->n_threads - 1 - atomic_load(&p->sleeping) > p->n_awake;
}

/* Wakes so many workers that, with those awake already, there is one for each item but the caller's. */
static void pool_wake(pool *p, uint32_t n_items) {
    const int want = n_items - 1 < (uint32_t)p->n_awake ? (int)n_items - 1 : p->n_awake;
    if (p->n_threads - 1 - atomic_load(&p->sleeping) >= want) return;
    pthread_mutex_lock(&p->lock);
    for (int awake = p->n_threads - 1 - atomic_load(&p->sleeping); awake < want; awake++) pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

static void *pool_main(void *arg) {
    struct pool_worker *w = arg;
    pool *p = w->pool;
    fesetenv(FE_DFL_ENV); /* the host may have switched denormals off; every thread must round alike */
    while (!atomic_load(&p->stop)) {
        pool_work(p, w->index);
        if (!pool_crowded(p) && pool_spin(p)) continue;
        pthread_mutex_lock(&p->lock);
        atomic_fetch_add(&p->sleeping, 1);
        while (!pool_has_item(atomic_load(&p->ticket)) && !atomic_load(&p->stop)) pthread_cond_wait(&p->wake, &p->lock);
        atomic_fetch_sub(&p->sleeping, 1);
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

int pool_threads(const pool *p) {
    return p->n_threads;
}

void pool_run_alone(pool_task *task, void *arg, uint32_t n_items) {
    for (uint32_t i = 0; i < n_items; i++) task(arg, i, 0);
}

void pool_run(pool *p, pool_task *task, void *arg, uint32_t n_items) {
    if (p->n_threads == 1 || n_items <= 1) {
        pool_run_alone(task, arg, n_items);
        return;
    }
    p->task = task;
    p->arg = arg;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->ticket, (uint64_t)n_items << 32); /* sequentially consistent: pairs with `sleeping` */
    pool_wake(p, n_items);
    pool_work(p, 0);
    for (int spins = 0; atomic_load_explicit(&p->done, memory_order_acquire) != n_items; spins++) {
        if (spins > 1000)
            sched_yield();
        else
            pool_pause();
    }
}

minim_status pool_new(const minim_allocator *a, int n_threads, pool **out, minim_error *e) {
    *out = NULL;
    if (n_threads < 1 || n_threads > POOL_MAX_THREADS) {
        return err_set(e, MINIM_ERR_ARGUMENT, "%d threads: expected 1 to %d", n_threads, POOL_MAX_THREADS);
    }
    pool *p = mem_zalloc(a, 1, sizeof *p);
    if (!p) return err_memory(e, "the thread pool", sizeof *p);
    p->allocator = *a;
    p->n_threads = n_threads;
    p->n_awake = (n_threads < cpu_count() ? n_threads : cpu_count()) - 1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    /* Signals belong to the host's threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* Products keep about 130 KB on the stack, which is more than some C libraries give a thread. */
    enum { STACK = 1 << 20 };
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    const int has_attributes = !failed;
    if (!failed) failed = pthread_attr_setstacksize(&attributes, STACK);
    for (int i = 1; i < n_threads && !failed; i++) {
        p->worker[i] = (struct pool_worker){p, i};
        failed = pthread_create(&p->thread[i], &attributes, pool_main, &p->worker[i]);
        if (!failed) p->n_started++;
    }
    if (has_attributes) pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        pool_free(p);
        return err_set(e, MINIM_ERR_MEMORY, "cannot start %d threads", n_threads);
    }
    *out = p;
    return MINIM_OK;
}

void pool_free(pool *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->n_started; i++) pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    minim_allocator a = p->allocator;
    mem_free(&a, p, 1, sizeof *p);
}
