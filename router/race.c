/* race.c: what happens while the local model answers: the gate that shows its text or hands over, and the remote beside
 * it in a thread of its own. Callbacks of the caller run on the caller's thread: the remote's text waits in a box. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "job.h"

enum { RACE_POLL_MS = 20 };

struct router_race {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under the lock. */
    router_bytes box; /* text that has come and was not taken yet */
    int done, has_text;
    /* The thread's until it is done. */
    minim_router_backend remote;
    minim_router_request request;
    minim_router_reply reply;
    minim_status status;
    minim_error error;
    atomic_int stop;
};

/* ---- the remote's thread ---------------------------------------------------------------------------------------- */

static int race_on_text(void *user, const char *text, size_t n) {
    struct router_race *race = user;
    pthread_mutex_lock(&race->lock);
    minim_status status = router_bytes_append(&race->box, text, n);
    race->has_text |= n > 0;
    pthread_cond_signal(&race->changed);
    pthread_mutex_unlock(&race->lock);
    return status != MINIM_OK || atomic_load(&race->stop);
}

static int race_on_progress(void *user, uint64_t n_tokens) {
    (void)n_tokens;
    return atomic_load(&((struct router_race *)user)->stop);
}

static void *race_run(void *user) {
    struct router_race *race = user;
    minim_router_sink sink = {race, race_on_text, race_on_progress};
    minim_status status = race->remote.chat(race->remote.state, &race->request, &sink, &race->reply, &race->error);
    pthread_mutex_lock(&race->lock);
    race->status = status;
    race->done = 1;
    pthread_cond_signal(&race->changed);
    pthread_mutex_unlock(&race->lock);
    return NULL;
}

static void race_free(struct router_race *race) {
    pthread_mutex_destroy(&race->lock);
    pthread_cond_destroy(&race->changed);
    router_bytes_free(&race->box);
    free(race);
}

/* Starts the remote; a failure becomes the state's. */
static void race_open(router_job *job) {
    minim_error error = {MINIM_OK, ""};
    sigset_t all, before;
    book_reserve(job, &job->request);
    if (job->state.over_budget) return;
    router_side *side = &job->sides[MINIM_ROUTE_REMOTE];
    side->reply.size = sizeof side->reply;
    struct router_race *race = calloc(1, sizeof *race);
    minim_status status =
        race ? router_reach_remote(job, &job->request, &side->reply, &error) : router_fail_memory(&error, "the race");
    if (status == MINIM_OK && race) {
        race->remote = job->router->remote;
        race->request = job->request;
        race->reply.size = sizeof race->reply;
        race->box.limit = side->text.limit;
        pthread_mutex_init(&race->lock, NULL);
        pthread_cond_init(&race->changed, NULL);
        atomic_init(&race->stop, 0);
        /* Signals are for the host program's threads. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int failed = pthread_create(&race->thread, NULL, race_run, race);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (!failed) {
            job->race = race;
            return;
        }
        race_free(race);
        race = NULL;
        router_fail(&error, MINIM_ERR_MEMORY, "no thread for the remote");
    }
    free(race);
    job->state.remote = MINIM_ROUTE_FAILED;
    job->answer.remote = &side->reply;
    router_line(job->state.remote_detail, sizeof job->state.remote_detail, "%s", error.text);
}

/* Waits for the thread's end and takes over what it has to say. */
static minim_status race_join(router_job *job, minim_error *error) {
    struct router_race *race = job->race;
    router_side *side = &job->sides[MINIM_ROUTE_REMOTE];
    pthread_join(race->thread, NULL);
    minim_status status = race->status;
    side->reply = race->reply;
    router_count_call(job, &side->reply);
    if (error) *error = race->error;
    job->race = NULL;
    job->race_given_up = 0;
    race_free(race);
    return status;
}

minim_status race_follow(router_job *job, const minim_router_sink *sink, minim_error *error) {
    struct router_race *race = job->race;
    router_bytes piece = {0};
    int stopped = 0, done = 0;
    while (!stopped && !done) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += RACE_POLL_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_mutex_lock(&race->lock);
        if (!race->box.n && !race->done) pthread_cond_timedwait(&race->changed, &race->lock, &until);
        piece = race->box;
        race->box = (router_bytes){.limit = piece.limit};
        done = race->done;
        pthread_mutex_unlock(&race->lock);
        if (piece.n) stopped = sink->on_text(sink->user, piece.data, piece.n);
        if (!stopped && !done) stopped = sink->on_progress(sink->user, 0);
        router_bytes_free(&piece);
    }
    if (stopped) atomic_store(&race->stop, 1);
    minim_status status = race_join(job, error);
    return stopped ? router_fail(error, MINIM_ERR_CANCELLED, "cancelled") : status;
}

void race_clear(router_job *job) {
    if (!job->race || !job->race_given_up) return;
    race_join(job, NULL);
    router_side *side = &job->sides[MINIM_ROUTE_REMOTE];
    router_add_usage(&job->state.extra_usage, &side->reply.usage);
    memset(&side->reply, 0, sizeof side->reply);
}

void race_stop(router_job *job) {
    if (!job->race) return;
    atomic_store(&job->race->stop, 1);
    race_join(job, NULL);
    job->state.remote = MINIM_ROUTE_STOPPED;
    job->state.remote_usage = job->sides[MINIM_ROUTE_REMOTE].reply.usage;
    job->answer.remote = &job->sides[MINIM_ROUTE_REMOTE].reply;
    router_line(job->state.remote_detail, sizeof job->state.remote_detail, "stopped for the local answer");
}

/* ---- the gate --------------------------------------------------------------------------------------------------- */

/* Log-probabilities of the last tokens, from the growing sum of all. */
static void race_note_tokens(router_job *job) {
    const minim_router_reply *reply = &job->sides[MINIM_ROUTE_LOCAL].reply;
    router_window *w = &job->window;
    uint64_t n = reply->n_logprobs - w->n;
    double each = n ? (reply->sum_logprob - w->sum) / (double)n : 0;
    for (uint64_t i = 0; i < n && i < ROUTER_WINDOW; i++) w->last[(w->n + i) % ROUTER_WINDOW] = each;
    w->n = reply->n_logprobs;
    w->sum = reply->sum_logprob;
}

static void race_progress(router_job *job, minim_route_progress *p) {
    const router_window *w = &job->window;
    const minim_route_state *state = &job->state;
    struct router_race *race = job->race;
    *p = (minim_route_progress){.size = sizeof *p, .n_tokens = w->n, .sum_logprob = w->sum};
    uint64_t wanted = (uint64_t)job->policy.handover_tokens;
    for (; p->last_tokens < w->n && p->last_tokens < wanted && p->last_tokens < ROUTER_WINDOW; p->last_tokens++) {
        p->last_logprob += w->last[(w->n - 1 - p->last_tokens) % ROUTER_WINDOW];
    }
    p->seconds = router_now() - job->started;
    p->shown = !job->hold;
    p->complexity = job->features.complexity;
    p->may_ask = job->policy.remote_available && !state->is_private && !state->over_budget &&
                 state->remote == MINIM_ROUTE_NOT_ASKED &&
                 (job->policy.plan != MINIM_ROUTE_PLAN_HYBRID || state->spans < job->policy.max_spans);
    if (!race || job->race_given_up) return;
    pthread_mutex_lock(&race->lock);
    p->remote_open = 1;
    p->remote_bytes = race->has_text;
    int failed = race->done && race->status != MINIM_OK;
    pthread_mutex_unlock(&race->lock);
    if (!failed) return;
    minim_error error = {MINIM_OK, ""};
    race_join(job, &error);
    router_note_remote(job, MINIM_ERR_IO, &error);
    p->remote_open = p->remote_bytes = p->may_ask = 0;
}

int race_watch(router_job *job) {
    minim_route_progress progress;
    minim_route_step step = MINIM_ROUTE_STEP_WAIT;
    minim_route_reason reason;
    if (!job->watched) return 0;
    int is_hybrid = job->policy.plan == MINIM_ROUTE_PLAN_HYBRID;
    race_note_tokens(job);
    if (is_hybrid) {
        hybrid_note_token(job);
        if (hybrid_show(job, job->hybrid.cut)) return 1;
    }
    race_progress(job, &progress);
    if (minim_route_watch(&job->policy, &progress, &step, &reason) != MINIM_OK) return 0;
    if (step != MINIM_ROUTE_STEP_WAIT) {
        job->state.gate_step = step;
        job->state.gate = progress;
    }
    switch (step) {
    case MINIM_ROUTE_STEP_SHOW:
        if (job->race) {
            atomic_store(&job->race->stop, 1); /* joined when the answer is complete */
            job->race_given_up = 1;
        }
        job->state.gate_passed = 1;
        return router_release(job);
    case MINIM_ROUTE_STEP_OPEN: race_open(job); return 0;
    case MINIM_ROUTE_STEP_HAND_OVER:
        job->state.local = MINIM_ROUTE_STOPPED;
        job->state.stopped = reason;
        return 1;
    default: return 0;
    }
}
