/* team.c: threads that start together. Not the engine's pool: a pool hands work out, here every thread has its own. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "harness.h"

struct team {
    int n, n_started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t run;        /* counts the runs */
    int n_running, stop; /* threads other than the caller's */
    atomic_int n_ready;
    void (*work)(void *arg, int thread);
    void *arg;
    struct team_member {
        team *team;
        int index;
        pthread_t thread;
    } * member;
};

/* Waits until all threads are awake, so that none measures while another still sleeps. */
static void team_start_line(team *t) {
    atomic_fetch_add(&t->n_ready, 1);
    while (atomic_load(&t->n_ready) < t->n) sched_yield();
}

static void *team_main(void *p) {
    const struct team_member *self = p;
    team *t = self->team;
    uint64_t seen = 0;
    for (;;) {
        pthread_mutex_lock(&t->lock);
        while (t->run == seen && !t->stop) pthread_cond_wait(&t->changed, &t->lock);
        seen = t->run;
        int stop = t->stop;
        pthread_mutex_unlock(&t->lock);
        if (stop) return NULL;
        team_start_line(t);
        t->work(t->arg, self->index);
        pthread_mutex_lock(&t->lock);
        if (--t->n_running == 0) pthread_cond_broadcast(&t->changed);
        pthread_mutex_unlock(&t->lock);
    }
}

team *team_new(int n) {
    team *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->n = n;
    t->member = calloc((size_t)n, sizeof *t->member);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    for (int i = 1; t->member && i < n; i++) {
        t->member[i] = (struct team_member){.team = t, .index = i};
        if (pthread_create(&t->member[i].thread, NULL, team_main, &t->member[i])) break;
        t->n_started++;
    }
    if (t->member && t->n_started == n - 1) return t;
    team_free(t);
    return NULL;
}

void team_free(team *t) {
    if (!t) return;
    pthread_mutex_lock(&t->lock);
    t->stop = 1;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    for (int i = 1; i <= t->n_started; i++) pthread_join(t->member[i].thread, NULL);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t->member);
    free(t);
}

int team_threads(const team *t) {
    return t->n;
}

void team_run(team *t, void (*work)(void *arg, int thread), void *arg) {
    pthread_mutex_lock(&t->lock);
    t->work = work;
    t->arg = arg;
    t->n_running = t->n - 1;
    atomic_store(&t->n_ready, 0);
    t->run++;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    team_start_line(t);
    work(arg, 0);
    pthread_mutex_lock(&t->lock);
    while (t->n_running > 0) pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

int team_cpus(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
#endif
    return 1;
}
