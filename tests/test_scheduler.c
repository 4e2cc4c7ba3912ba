/* test_scheduler.c: many answers at once: each is the one that minim_generate() gives alone, whoever else is there, and
 * nobody is forgotten. MINIM_FUZZ_SECONDS sets how long the random test runs (default 2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/engine.h"
#include "../engine/minim.h"
#include "../engine/scheduler.h"
#include "../kernels/kernels.h"
#include "family_model.h"
#include "pages.h"
#include "synth.h"

enum { N_CTX = 160, PAGE = 16, MAX_TOKENS = N_CTX + 1 };

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

/* ---- the world ----------------------------------------------------------------------------------------------------
 */

typedef struct world {
    minim_model *model;
    minim_engine *engine, *alone; /* the second has the same room and no prefix cache */
    minim_scheduler *s;
    size_t step;
    uint64_t random;
    struct ask *asks; /* all that were ever submitted, newest first */
    size_t n_open;
    size_t n_pauses;
} world;

/* A request and what is known about it. */
typedef struct ask {
    world *w;
    struct ask *next;
    uint64_t id;
    int32_t prompt[MAX_TOKENS];
    size_t n_prompt, n_behind; /* all of it; what a sequence holds of it already */
    int priority;
    minim_generate_options o;
    int running, started, paused, done, cancelled; /* running: as the events tell */
    size_t n_paused;
    int32_t tokens[MAX_TOKENS];
    float logprobs[MAX_TOKENS];
    size_t n_tokens, last_step;
    int cancel_at; /* at so many tokens, from the callback; -1 = never */
    minim_stop stop;
    minim_status status;
    size_t n_recomputed, n_drafted, n_accepted;
} ask;

static minim_kv_type world_kv; /* of the worlds to come */

static minim_model *world_model(const char *family) {
    static const synth_shape shape = {.type = KERN_Q4_0,
                                      .n_layers = 2,
                                      .n_embd = 32,
                                      .n_heads = 2,
                                      .n_kv_heads = 1,
                                      .head_dim = 16,
                                      .n_ff = 32,
                                      .n_ctx = N_CTX};
    minim_error e;
    minim_model *m = family_model_load(family, &shape, &e);
    ok(e.status, &e);
    assert_non_null(m);
    return m;
}

static minim_engine *world_engine(const minim_model *m, uint64_t pages, int threads, uint64_t cache) {
    minim_error e;
    minim_engine *engine;
    minim_engine_options o;
    minim_engine_options_default(&o);
    minim_engine_info info = {.size = sizeof info};
    o.n_threads = 1, o.page_size = PAGE, o.n_ctx = N_CTX, o.n_batch = 48, o.prefix_cache = cache, o.kv_type = world_kv;
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    minim_engine_get_info(engine, &info);
    minim_engine_free(engine);
    o.kv_limit = pages * info.page_bytes, o.n_threads = threads;
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    engine->share_all = 1;
    return engine;
}

/* An engine with so many pages. */
static world *world_new(const char *family, uint64_t pages, const minim_scheduler_options *o, uint64_t cache) {
    minim_error e;
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->model = world_model(family);
    w->engine = world_engine(w->model, pages, 2, cache);
    w->alone = world_engine(w->model, pages, 1, 0);
    w->random = 88172645463325252u;
    ok(minim_scheduler_new(w->engine, o, &w->s, &e), &e);
    return w;
}

static size_t below(world *w, size_t n) {
    w->random ^= w->random << 13, w->random ^= w->random >> 7, w->random ^= w->random << 17;
    return (size_t)(w->random >> 11) % n;
}

static minim_scheduler_info info_of(world *w) {
    minim_scheduler_info info = {.size = sizeof info};
    assert_int_equal(minim_scheduler_get_info(w->s, &info), MINIM_OK);
    return info;
}

/* ---- callbacks ----------------------------------------------------------------------------------------------------
 */

static int on_token(void *user, const minim_token_event *event) {
    ask *a = user;
    assert_true(a->running && !a->done && a->n_tokens < MAX_TOKENS);
    assert_int_equal(event->index, a->n_tokens);
    /* Once it answers, it gets a token with every step, and more where some were guessed. */
    if (a->n_tokens && a->last_step && (!a->o.n_lookup || a->last_step != a->w->step))
        assert_int_equal(a->last_step + 1, a->w->step);
    a->last_step = a->w->step;
    a->logprobs[a->n_tokens] = event->logprob;
    a->tokens[a->n_tokens++] = event->token;
    if ((int)a->n_tokens == a->cancel_at) {
        assert_int_equal(minim_scheduler_cancel(a->w->s, a->id), MINIM_OK);
        a->cancelled = 1;
    }
    return 0;
}

static int comes_first(const ask *a, const ask *b) {
    return a->priority > b->priority || (a->priority == b->priority && a->id < b->id);
}

static void on_state(void *user, uint64_t id, minim_request_state state) {
    ask *a = user;
    assert_true(!a->done && (!a->id || a->id == id));
    assert_int_equal(a->running, state == MINIM_REQUEST_PAUSED);
    a->running = state == MINIM_REQUEST_RUNNING;
    a->paused = !a->running;
    a->n_paused += (size_t)a->paused;
    a->w->n_pauses += (size_t)a->paused;
    a->last_step = 0; /* what was lost is computed again first */
    a->started = 1;
    /* Who starts is the first of those that wait; who is paused the last of those that run. */
    for (const ask *b = a->w->asks; b; b = b->next) {
        if (b == a || b->done || b->running == a->running) continue;
        assert_true(a->running ? comes_first(a, b) || b->cancelled : comes_first(b, a));
    }
}

static void on_done(void *user, uint64_t id, const minim_outcome *outcome) {
    ask *a = user;
    assert_int_equal(a->done, 0);
    assert_int_equal(a->id, id);
    a->done = 1, a->running = 0, a->paused = 0;
    a->w->n_open--;
    a->stop = outcome->result->stop, a->status = outcome->status;
    assert_int_equal(outcome->n_pauses, a->n_paused);
    assert_int_equal(outcome->result->n_generated, a->n_tokens);
    assert_int_equal(outcome->result->n_prompt, a->n_prompt - a->n_behind);
    assert_int_equal(outcome->error[0] != 0, outcome->status != MINIM_OK);
    a->n_recomputed = outcome->n_recomputed;
    a->n_drafted = outcome->result->n_drafted, a->n_accepted = outcome->result->n_accepted;
    assert_true(a->n_paused > 0 || a->n_behind > 0 || !a->n_recomputed); /* a fork that waits may lose its pages */
    if (a->status != MINIM_ERR_CONTEXT) assert_int_equal(a->status, MINIM_OK);
}

/* ---- asking -------------------------------------------------------------------------------------------------------
 */

static ask *ask_new(world *w, size_t n_prompt, int max_tokens) {
    ask *a = calloc(1, sizeof *a);
    assert_non_null(a);
    a->w = w, a->n_prompt = n_prompt, a->cancel_at = -1;
    size_t salt = below(w, 4);
    for (size_t i = 0; i < n_prompt; i++) a->prompt[i] = (int32_t)(3 + (salt * 131 + i * 17) % 500);
    minim_generate_options_default(&a->o);
    a->o.n_lookup = 0; /* most tests count steps */
    a->o.max_tokens = max_tokens, a->o.ignore_end = 1, a->o.user = a, a->o.on_token = on_token;
    return a;
}

/* The sequence that the prompt goes behind; NULL when there is no room for one. */
static minim_seq *ask_behind(ask *a) {
    minim_error e;
    minim_seq *seq = NULL;
    minim_row rows[MAX_TOKENS];
    if (!a->n_behind) return NULL;
    ok(minim_seq_new(a->w->engine, &seq, &e), &e);
    for (size_t i = 0; i < a->n_behind; i++) rows[i] = (minim_row){seq, a->prompt[i], 0};
    if (!minim_engine_step(a->w->engine, rows, a->n_behind, NULL, &e)) return seq;
    assert_int_equal(e.status, MINIM_ERR_CONTEXT);
    minim_seq_free(seq);
    a->n_behind = 0;
    return NULL;
}

static minim_status ask_submit(ask *a, minim_error *e) {
    minim_request r;
    minim_request_default(&r);
    minim_seq *behind = r.behind = ask_behind(a);
    r.prompt = a->prompt + a->n_behind, r.n_prompt = a->n_prompt - a->n_behind;
    r.options = &a->o, r.priority = a->priority;
    r.user = a, r.on_state = on_state, r.on_done = on_done;
    minim_status status = minim_scheduler_submit(a->w->s, &r, &a->id, e);
    minim_seq_free(behind);
    if (status) {
        free(a);
        return status;
    }
    a->next = a->w->asks;
    a->w->asks = a;
    a->w->n_open++;
    return MINIM_OK;
}

static ask *submit(world *w, size_t n_prompt, int max_tokens, int priority) {
    minim_error e;
    ask *a = ask_new(w, n_prompt, max_tokens);
    a->priority = priority;
    ok(ask_submit(a, &e), &e);
    return a;
}

static void cancel(ask *a) {
    assert_int_equal(minim_scheduler_cancel(a->w->s, a->id), a->done ? MINIM_ERR_ARGUMENT : MINIM_OK);
    a->cancelled |= !a->done;
}

/* ---- checking -----------------------------------------------------------------------------------------------------
 */

typedef struct expected {
    int32_t tokens[MAX_TOKENS];
    float logprobs[MAX_TOKENS];
    size_t n;
} expected;

static int expect_token(void *user, const minim_token_event *event) {
    expected *x = user;
    x->logprobs[x->n] = event->logprob;
    x->tokens[x->n++] = event->token;
    return 0;
}

/* A request that is done got what it would get alone, or the beginning of it when it was cancelled. */
static void check_answer(const ask *a) {
    minim_error e;
    minim_seq *seq;
    expected x = {.n = 0};
    minim_generate_options o = a->o;
    minim_result r = {.size = sizeof r};
    o.on_token = expect_token, o.user = &x;
    ok(minim_seq_new(a->w->alone, &seq, &e), &e);
    minim_status status = minim_generate(seq, a->prompt, a->n_prompt, &o, &r, &e);
    minim_seq_free(seq);
    assert_true(a->done);
    if (a->cancelled && a->status == MINIM_OK && a->stop == MINIM_STOP_CANCELLED) {
        assert_true(a->n_tokens <= x.n || status);
    } else {
        assert_int_equal(a->status, status);
        if (status) return;
        assert_int_equal(a->stop, r.stop);
        assert_int_equal(a->n_tokens, x.n);
    }
    assert_memory_equal(a->tokens, x.tokens, a->n_tokens * sizeof *x.tokens);
    assert_memory_equal(a->logprobs, x.logprobs, a->n_tokens * sizeof *x.logprobs);
}

static void check_pages(world *w) {
    minim_seq *seqs[256];
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        for (sched_request *r = i ? w->s->waiting.first : w->s->running.first; r; r = r->after) {
            if (i && r->seq && !r->n_behind) assert_int_equal(minim_seq_length(r->seq), 0); /* who waits has no page */
            if (r->seq && n < 256) seqs[n++] = r->seq;
        }
    }
    const char *wrong = pages_wrong(w->engine, seqs, n);
    if (wrong) fail_msg("%s", wrong);
}

static size_t step(world *w) {
    minim_error e;
    size_t n_left, n[3] = {0};
    w->step++;
    ok(minim_scheduler_step(w->s, &n_left, &e), &e);
    assert_int_equal(n_left, w->n_open);
    minim_scheduler_info info = info_of(w);
    for (const ask *a = w->asks; a; a = a->next) {
        n[0] += a->running, n[1] += !a->started && !a->done, n[2] += a->paused;
        if (a->cancelled) assert_true(a->done || a->cancel_at > 0); /* within one step */
    }
    assert_int_equal(info.n_running, n[0]);
    assert_int_equal(info.n_waiting, n[1]);
    assert_int_equal(info.n_paused, n[2]);
    assert_int_equal(info.n_done + n_left, info.n_submitted);
    assert_int_equal(info.n_pauses, w->n_pauses);
    check_pages(w);
    return n_left;
}

static void run(world *w) {
    for (size_t i = 0; step(w); i++) assert_true(i < 100000);
}

/* Forgets the requests that are done, after a look at their answers. */
static void check_done(world *w) {
    for (ask **link = &w->asks; *link;) {
        ask *a = *link;
        if (!a->done) {
            link = &a->next;
            continue;
        }
        check_answer(a);
        *link = a->next;
        free(a);
    }
}

static void world_free(world *w) {
    for (ask *a = w->asks; a; a = a->next) a->cancelled |= !a->done;
    minim_scheduler_free(w->s);
    assert_int_equal(w->n_open, 0);
    check_done(w);
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(w->engine, &info);
    assert_int_equal(info.pages_in_use, 0);
    minim_engine_free(w->engine);
    minim_engine_free(w->alone);
    minim_model_free(w->model);
    free(w);
}

enum { CACHE = 1 << 24 };

/* ---- tests --------------------------------------------------------------------------------------------------------
 */

static void answers_are_those_of_generate_alone(void **state) {
    (void)state;
    for (int cache = 0; cache < 2; cache++) {
        world *w = world_new(NULL, 200, NULL, cache ? CACHE : 0);
        for (size_t i = 0; i < 40; i++) {
            minim_error e;
            ask *a = ask_new(w, 1 + i * 3, 1 + (int)(i * 7 % 40));
            if (i % 3) a->o.sampling.temperature = 1, a->o.sampling.seed = i;
            if (i % 4 == 0) a->o.sampling.repeat_penalty = 1.2f, a->o.n_top = 3;
            if (i % 5 == 0) a->o.max_tokens = 0; /* to the end of the context */
            if (i % 2) a->o.n_lookup = 16;
            ok(ask_submit(a, &e), &e);
            if (i % 2) step(w); /* they join at different times */
        }
        run(w);
        minim_scheduler_info info = info_of(w);
        assert_int_equal(info.n_done, 40);
        assert_true(info.n_decode > 0 && info.n_prefill > 0);
        world_free(w);
    }
}

static void a_long_prompt_does_not_hold_up_answers(void **state) {
    (void)state;
    minim_scheduler_options o;
    minim_scheduler_options_default(&o);
    o.chunk = 10;
    world *w = world_new(NULL, 100, &o, 0);
    ask *a = submit(w, 5, 60, 0);
    step(w);
    ask *b = submit(w, 100, 5, 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(b->n_tokens, 0);
        step(w); /* on_token sees that `a` gets one each time */
    }
    assert_int_equal(a->n_tokens, 11);
    assert_int_equal(b->n_tokens, 1);
    run(w);
    world_free(w);
}

static void equals_share_the_step(void **state) {
    (void)state;
    minim_scheduler_options o;
    minim_scheduler_options_default(&o);
    o.chunk = 48;
    world *w = world_new(NULL, 100, &o, 0);
    ask *all[3];
    for (int i = 0; i < 3; i++) all[i] = submit(w, 32, 20, 0);
    step(w); /* 48 tokens: 16 of each */
    for (int i = 0; i < 3; i++) assert_int_equal(all[i]->n_tokens, 0);
    step(w);
    for (int i = 0; i < 3; i++) assert_int_equal(all[i]->n_tokens, 1);
    for (int k = 0; k < 10; k++) step(w);
    for (int i = 0; i < 3; i++) assert_int_equal(all[i]->n_tokens, 11);
    run(w);
    world_free(w);
}

static void who_is_more_urgent_goes_first(void **state) {
    (void)state;
    minim_scheduler_options o;
    minim_scheduler_options_default(&o);
    o.max_running = 2;
    world *w = world_new(NULL, 100, &o, 0);
    ask *low[3], *high;
    for (int i = 0; i < 3; i++) low[i] = submit(w, 10, 30, 0);
    step(w);
    assert_true(low[0]->running && low[1]->running && !low[2]->running);
    high = submit(w, 10, 5, 1);
    step(w); /* takes the place of the youngest */
    assert_true(low[0]->running && high->running && low[1]->paused && !low[2]->started);
    while (!high->done) step(w);
    step(w);
    assert_true(low[1]->running && !low[2]->started);
    run(w);
    assert_int_equal(low[1]->n_paused, 1);
    assert_true(low[1]->n_recomputed >= 10);
    world_free(w);
}

static void a_full_pool_pauses_and_loses_nothing(void **state) {
    (void)state;
    world *w = world_new(NULL, 12, NULL, 0);
    for (int i = 0; i < 8; i++) submit(w, 20, 80, 0);
    run(w);
    minim_scheduler_info info = info_of(w);
    assert_true(info.n_pauses > 0 && info.n_recomputed > 0);
    check_done(w);
    world_free(w);
}

/* Texts that go round in circles are guessed, as long as few are answered together. */
static void repetition_is_guessed_while_few_answer(void **state) {
    (void)state;
    for (int n = 1; n <= 24; n += 23) {
        ask *asks[24];
        size_t drafted = 0, accepted = 0, tokens = 0;
        world *w = world_new(NULL, 400, NULL, 0);
        for (int i = 0; i < n; i++) {
            minim_error e;
            asks[i] = ask_new(w, 20, 100);
            for (int k = 0; k < 20; k++) asks[i]->prompt[k] = 7 + i + k % 2;
            asks[i]->o.n_lookup = 16;
            ok(ask_submit(asks[i], &e), &e);
        }
        run(w);
        for (int i = 0; i < n; i++) {
            check_answer(asks[i]);
            drafted += asks[i]->n_drafted, accepted += asks[i]->n_accepted, tokens += asks[i]->n_tokens;
        }
        assert_true(accepted <= drafted && tokens == 100u * (size_t)n);
        minim_scheduler_info info = info_of(w);
        assert_int_equal(info.n_decode, 99 * n);
        minim_engine_info about = {.size = sizeof about};
        minim_engine_get_info(w->engine, &about);
        if (n == 1 && strcmp(about.isa, "ref") != 0) assert_true(accepted > 20 && info.n_steps < 80);
        if (n > 1) assert_true(drafted < tokens / 8);
        world_free(w);
    }
}

/* Forks of one beginning: it is computed once, and its pages are one page's worth of memory for all. */
static void requests_can_go_behind_a_sequence(void **state) {
    (void)state;
    minim_error e;
    minim_seq *behind;
    minim_row rows[70];
    ask *asks[6];
    world *w = world_new(NULL, 40, NULL, 0), *other = world_new(NULL, 2, NULL, 0);
    ok(minim_seq_new(w->engine, &behind, &e), &e);
    for (int i = 0; i < 6; i++) {
        w->random = 1; /* the same prompt for all */
        asks[i] = ask_new(w, 71, 30);
        asks[i]->o.sampling.temperature = 1, asks[i]->o.sampling.seed = (uint64_t)i;
        asks[i]->o.sampling.repeat_penalty = 1.3f; /* which looks at what went before as well */
    }
    for (int i = 0; i < 70; i++) rows[i] = (minim_row){behind, asks[0]->prompt[i], 0};
    ok(minim_engine_step(w->engine, rows, 70, NULL, &e), &e);
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(w->engine, &info);
    const uint64_t pages = info.pages_in_use;
    for (int i = 0; i < 6; i++) {
        ask *a = asks[i];
        minim_request r;
        minim_request_default(&r);
        r.prompt = a->prompt + 70, r.n_prompt = 1, r.options = &a->o, r.behind = behind;
        r.user = a, r.on_state = on_state, r.on_done = on_done;
        assert_int_equal(minim_scheduler_submit(other->s, &r, NULL, &e), MINIM_ERR_ARGUMENT); /* another engine's */
        ok(minim_scheduler_submit(w->s, &r, &a->id, &e), &e);
        a->n_behind = 70, a->next = w->asks, w->asks = a;
        w->n_open++;
    }
    minim_engine_get_info(w->engine, &info);
    assert_int_equal(info.pages_in_use, pages);
    minim_seq_free(behind);
    step(w);
    for (int i = 0; i < 6; i++) assert_int_equal(asks[i]->n_tokens, 1); /* together */
    assert_int_equal(info_of(w).n_prefill, 6);                          /* a token each */
    run(w);
    assert_true(info_of(w).n_recomputed == 0 && asks[0]->n_tokens > 1);
    world_free(w);
    world_free(other);
}

/* Six forks in a pool that has room for little more than one: they take turns. */
static void forks_share_a_full_pool(void **state) {
    (void)state;
    minim_error e;
    for (uint64_t pages = 8; pages < 14; pages++) {
        world *w = world_new(NULL, pages, NULL, pages % 2 ? CACHE : 0);
        for (int i = 0; i < 6; i++) {
            ask *a = ask_new(w, 50, 60);
            a->n_behind = 49, a->o.n_lookup = 16 * (i % 2), a->o.sampling.temperature = 1,
            a->o.sampling.seed = (uint64_t)i;
            ok(ask_submit(a, &e), &e);
        }
        run(w);
        for (const ask *a = w->asks; a; a = a->next) assert_int_equal(a->stop, MINIM_STOP_LENGTH);
        world_free(w);
    }
}

static void a_pool_of_one_page_serves_one_after_the_other(void **state) {
    (void)state;
    minim_error e;
    world *w = world_new(NULL, 1, NULL, CACHE);
    for (int i = 0; i < 3; i++) submit(w, 10, 30, 0); /* ends when the page is full */
    assert_int_equal(ask_submit(ask_new(w, 17, 3), &e), MINIM_ERR_CONTEXT);
    assert_non_null(strstr(e.text, "17 tokens"));
    submit(w, 16, 1, 0);
    run(w);
    world_free(w);
}

/* A prompt that a windowed model could hold only without the others, and pages that somebody else holds. */
static void what_does_not_fit_ends_alone(void **state) {
    (void)state;
    minim_error e;
    minim_seq *other;
    world *w = world_new(NULL, 10, NULL, 0);
    ok(minim_seq_new(w->engine, &other, &e), &e);
    minim_row rows[60];
    for (int i = 0; i < 60; i++) rows[i] = (minim_row){other, 5, 0};
    ok(minim_engine_step(w->engine, rows, 60, NULL, &e), &e);
    ask *a = submit(w, 110, 3, 0), *b = submit(w, 20, 3, 0);
    for (int i = 0; i < 50 && (!a->done || !b->done); i++) {
        w->step++;
        ok(minim_scheduler_step(w->s, NULL, &e), &e);
    }
    assert_true(a->done && b->done);
    assert_int_equal(a->status, MINIM_ERR_CONTEXT);
    assert_int_equal(b->status, MINIM_OK);
    minim_seq_free(other);
    a->cancelled = 1, a->status = MINIM_OK, a->stop = MINIM_STOP_CANCELLED; /* alone it would have had room */
    world_free(w);
}

static void cancel_works_at_every_point(void **state) {
    (void)state;
    for (int at = 0; at < 24; at++) {
        world *w = world_new(NULL, 12, NULL, at % 2 ? CACHE : 0);
        ask *a[4];
        for (int i = 0; i < 4; i++) a[i] = submit(w, 40, 20, i == 3);
        for (int i = 0; i < at; i++) step(w);
        cancel(a[at % 4]);
        cancel(a[at % 4]); /* twice is once */
        step(w);
        assert_true(a[at % 4]->done);
        run(w);
        assert_int_equal(minim_scheduler_cancel(w->s, a[0]->id), MINIM_ERR_ARGUMENT);
        assert_int_equal(minim_scheduler_cancel(w->s, 12345), MINIM_ERR_ARGUMENT);
        world_free(w);
    }
}

static void bad_requests_are_refused(void **state) {
    (void)state;
    minim_error e;
    minim_scheduler_options o;
    minim_scheduler *s;
    minim_scheduler_options_default(&o);
    o.max_queue = 3;
    world *w = world_new(NULL, 50, &o, 0);
    for (int i = 0; i < 3; i++) submit(w, 4, 4, 0);
    assert_int_equal(ask_submit(ask_new(w, 4, 4), &e), MINIM_ERR_SPACE);
    assert_non_null(strstr(e.text, "queue is full"));
    step(w);
    submit(w, 4, 4, 0);
    assert_int_equal(ask_submit(ask_new(w, 0, 4), &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(ask_submit(ask_new(w, N_CTX + 1, 4), &e), MINIM_ERR_CONTEXT);
    assert_int_equal(ask_submit(ask_new(w, 4, -1), &e), MINIM_ERR_ARGUMENT);
    ask *a = ask_new(w, 4, 4);
    a->prompt[2] = 512;
    assert_int_equal(ask_submit(a, &e), MINIM_ERR_ARGUMENT);
    a = ask_new(w, 4, 4);
    a->o.sampling.temperature = -1;
    assert_int_equal(ask_submit(a, &e), MINIM_ERR_ARGUMENT);
    a = ask_new(w, 4, 4);
    a->o.n_lookup = 17;
    assert_int_equal(ask_submit(a, &e), MINIM_ERR_ARGUMENT);
    a = ask_new(w, 4, 4);
    ok(minim_seq_new(w->alone, &a->o.draft, &e), &e);
    minim_seq *draft = a->o.draft;
    assert_int_equal(ask_submit(a, &e), MINIM_ERR_ARGUMENT);
    assert_non_null(strstr(e.text, "draft"));
    minim_seq_free(draft);
    assert_int_equal(minim_scheduler_submit(w->s, NULL, NULL, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_scheduler_submit(NULL, NULL, NULL, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_scheduler_step(NULL, NULL, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_scheduler_cancel(NULL, 1), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_scheduler_get_info(w->s, NULL), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_scheduler_new(NULL, NULL, &s, &e), MINIM_ERR_ARGUMENT);
#define REFUSED(field)                                                                                                 \
    minim_scheduler_options_default(&o);                                                                               \
    o.field = 0;                                                                                                       \
    assert_int_equal(minim_scheduler_new(w->engine, &o, &s, &e), MINIM_ERR_ARGUMENT);                                  \
    assert_null(s);                                                                                                    \
    assert_non_null(strstr(e.text, #field));
    REFUSED(max_running)
    REFUSED(max_queue)
    REFUSED(chunk)
#undef REFUSED
    run(w);
    world_free(w);
}

/* Stop strings of the caller may be gone, and callbacks may use the scheduler. */
static int resubmit_text(void *user, const char *text, size_t n) {
    (void)text, (void)n;
    world *w = user;
    minim_error e;
    assert_int_equal(minim_scheduler_step(w->s, NULL, &e), MINIM_ERR_ARGUMENT);
    if (w->n_open < 3) submit(w, 6, 4, 0);
    return 0;
}

static void callbacks_may_use_the_scheduler(void **state) {
    (void)state;
    minim_error e;
    world *w = world_new(NULL, 50, NULL, 0);
    char stop[2][8] = {"zebra", "yonder"};
    const char *stops[] = {stop[0], stop[1]};
    minim_request r;
    minim_generate_options o;
    minim_request_default(&r);
    minim_generate_options_default(&o);
    int32_t prompt[8] = {1, 5, 6, 7, 8, 9, 10, 11};
    o.stop = stops, o.n_stop = 2, o.max_tokens = 20, o.ignore_end = 1, o.user = w, o.on_text = resubmit_text;
    r.prompt = prompt, r.n_prompt = 8, r.options = &o;
    ok(minim_scheduler_submit(w->s, &r, NULL, &e), &e);
    memset(stop, 'x', sizeof stop);
    memset(prompt, 0, sizeof prompt);
    ok(minim_scheduler_run(w->s, &e), &e);
    assert_int_equal(w->n_open, 0);
    assert_true(info_of(w).n_done > 2);
    for (ask *a = w->asks, *next; a; a = next) next = a->next, free(a);
    w->asks = NULL;
    world_free(w);
}

static void count_done(void *user, uint64_t id, const minim_outcome *outcome) {
    (void)id;
    if (outcome->status == MINIM_OK && outcome->result->stop == MINIM_STOP_LENGTH) ++*(size_t *)user;
}

static void ten_thousand_requests_are_answered(void **state) {
    (void)state;
    enum { N = 10000 };
    minim_error e;
    minim_scheduler_options so;
    minim_generate_options o;
    minim_request r;
    size_t done = 0;
    minim_scheduler_options_default(&so);
    so.max_queue = N, so.max_running = N;
    world *w = world_new(NULL, 3000, &so, CACHE);
    minim_generate_options_default(&o);
    minim_request_default(&r);
    o.max_tokens = 2, o.ignore_end = 1;
    r.options = &o, r.user = &done, r.on_done = count_done;
    for (int i = 0; i < N; i++) {
        int32_t prompt[] = {1, 3 + i % 500, 4 + i / 500};
        r.prompt = prompt, r.n_prompt = 3;
        ok(minim_scheduler_submit(w->s, &r, NULL, &e), &e);
    }
    ok(minim_scheduler_run(w->s, &e), &e);
    assert_int_equal(done, N);
    world_free(w);
}

/* Others submit and cancel while one makes the steps. */
typedef struct crowd {
    world *w;
    atomic_int left;
    atomic_int done;
} crowd;

static void crowd_done(void *user, uint64_t id, const minim_outcome *outcome) {
    (void)id, (void)outcome;
    atomic_fetch_add(&((crowd *)user)->done, 1);
}

static void *crowd_member(void *user) {
    crowd *c = user;
    minim_generate_options o;
    minim_request r;
    minim_generate_options_default(&o);
    minim_request_default(&r);
    o.max_tokens = 12, o.ignore_end = 1;
    int32_t prompt[20];
    synth_tokens(prompt, 20);
    r.prompt = prompt, r.n_prompt = 20, r.options = &o, r.user = c, r.on_done = crowd_done;
    for (int i = 0; i < 40; i++) {
        uint64_t id;
        minim_scheduler_info info = {.size = sizeof info};
        while (minim_scheduler_submit(c->w->s, &r, &id, NULL) != MINIM_OK) sched_yield();
        minim_scheduler_get_info(c->w->s, &info);
        if (i % 2) minim_scheduler_cancel(c->w->s, id);
    }
    atomic_fetch_sub(&c->left, 1);
    return NULL;
}

static void other_threads_may_submit_and_cancel(void **state) {
    (void)state;
    enum { THREADS = 3 };
    minim_error e;
    minim_scheduler_options so;
    minim_scheduler_options_default(&so);
    so.max_queue = 10;
    crowd c = {.w = world_new(NULL, 12, &so, CACHE)};
    pthread_t thread[THREADS];
    atomic_init(&c.left, THREADS);
    atomic_init(&c.done, 0);
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, crowd_member, &c), 0);
    while (atomic_load(&c.left) > 0 || atomic_load(&c.done) < THREADS * 40)
        ok(minim_scheduler_step(c.w->s, NULL, &e), &e);
    for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
    assert_int_equal(atomic_load(&c.done), THREADS * 40);
    world_free(c.w);
}

/* ---- memory that fails ---------------------------------------------------------------------------------------------
 */

typedef struct failing {
    long at, count, live;
} failing;

static void *failing_alloc(void *user, size_t size, size_t alignment) {
    failing *f = user;
    if (f->count++ == f->at) return NULL;
    void *p = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (p) f->live++;
    return p;
}

static void failing_free(void *user, void *p, size_t size) {
    (void)size;
    failing *f = user;
    if (p) f->live--;
    free(p);
}

/* Every request ends, with an answer or with an error. */
static void every_failing_allocation_is_survived(void **state) {
    (void)state;
    enum { ASKS = 4 };
    minim_model *m = world_model(NULL);
    for (long at = -1, n = 0; at < n; at++) {
        failing f = {.at = at};
        minim_allocator allocator = {&f, failing_alloc, failing_free};
        minim_engine_options eo;
        minim_engine *engine = NULL;
        minim_scheduler *s = NULL;
        size_t done = 0, submitted = 0;
        minim_seq *behind = NULL;
        minim_engine_options_default(&eo);
        eo.allocator = &allocator, eo.n_threads = 1, eo.page_size = PAGE, eo.n_ctx = 64; /* 4 pages */
        minim_status status = minim_engine_new(m, &eo, &engine, NULL);
        if (!status) status = minim_scheduler_new(engine, NULL, &s, NULL);
        if (!status) status = minim_seq_new(engine, &behind, NULL);
        if (!status) status = minim_engine_step(engine, &(minim_row){behind, 7, 0}, 1, NULL, NULL);
        for (int i = 0; i < ASKS && !status; i++) {
            int32_t prompt[20];
            const char *stop[] = {"never"};
            minim_generate_options o;
            minim_request r;
            minim_generate_options_default(&o);
            minim_request_default(&r);
            synth_tokens(prompt, 20);
            o.max_tokens = 20, o.ignore_end = 1, o.stop = stop, o.n_stop = 1;
            r.prompt = prompt, r.n_prompt = 20 - (size_t)i, r.options = &o, r.user = &done, r.on_done = count_done;
            r.behind = i % 2 ? behind : NULL;
            submitted += minim_scheduler_submit(s, &r, NULL, NULL) == MINIM_OK;
        }
        minim_seq_free(behind);
        if (!status) status = minim_scheduler_run(s, NULL);
        if (!status) {
            minim_scheduler_info info = {.size = sizeof info};
            minim_scheduler_get_info(s, &info);
            assert_int_equal(info.n_done, submitted);
            assert_true(done + 1 >= ASKS);
            if (at < 0) assert_true(info.n_pauses > 0);
        }
        minim_scheduler_free(s);
        minim_engine_free(engine);
        assert_int_equal(f.live, 0);
        if (at < 0) n = f.count;
        if (at + 1 == n) print_message("  %ld allocations, each made to fail once\n", n);
    }
    minim_model_free(m);
}

/* ---- anything at any time ------------------------------------------------------------------------------------------
 */

static void random_ask(world *w) {
    minim_error e;
    static const int limits[] = {1, 3, 10, 40, 0};
    ask *a = ask_new(w, 1 + below(w, below(w, 4) ? 40 : 150), limits[below(w, 5)]);
    a->priority = (int)below(w, 3);
    if (!below(w, 4)) a->n_behind = below(w, a->n_prompt);
    if (below(w, 2)) a->o.sampling.temperature = 1, a->o.sampling.seed = below(w, 5);
    if (!below(w, 8)) a->cancel_at = 1 + (int)below(w, 20);
    if (below(w, 2)) a->o.n_lookup = 1 + (int)below(w, 16);
    if (!below(w, 4)) a->o.n_draft_min = (int)below(w, 17); /* guesses, pay or not */
    minim_status status = ask_submit(a, &e);
    if (status && status != MINIM_ERR_SPACE && status != MINIM_ERR_CONTEXT) ok(status, &e);
}

static size_t anything(const char *family, uint64_t pages, int max_running, int chunk, uint64_t cache, int n_steps,
                       uint64_t seed) {
    minim_scheduler_options o;
    minim_scheduler_options_default(&o);
    o.max_running = max_running, o.chunk = chunk, o.max_queue = 12;
    world *w = world_new(family, pages, &o, cache);
    w->random ^= seed * 0x9e3779b97f4a7c15u;
    for (int i = 0; i < n_steps; i++) {
        if (!below(w, 4)) random_ask(w);
        if (!below(w, 12)) {
            size_t skip = w->n_open ? below(w, w->n_open) : 0;
            ask *a = w->asks;
            while (a && skip) skip--, a = a->next;
            if (a) cancel(a);
        }
        step(w);
        if (i % 64 == 0) check_done(w);
    }
    if (below(w, 2)) run(w); /* else the rest is cancelled */
    size_t done = (size_t)info_of(w).n_done;
    world_free(w);
    return done;
}

static void anything_may_happen_at_any_time(void **state) {
    (void)state;
    const char *seconds = getenv("MINIM_FUZZ_SECONDS");
    double end = time_now() + (seconds ? strtod(seconds, NULL) : 2);
    size_t done = 0;
    uint64_t seed = 0;
    do {
        seed++;
        world_kv = (minim_kv_type)(seed % 5);
        done += anything(NULL, 10 + seed % 23, 1 + (int)(seed % 7), 1 + (int)(seed * 13 % 60), seed % 3 ? CACHE : 0,
                         400, seed);
        if (seed % 4 == 0) done += anything("gemma2", 60 + seed % 40, 6, 20, CACHE, 200, seed);
    } while (time_now() < end);
    print_message("  %zu requests in %d worlds\n", done, (int)seed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_generate_alone),
        cmocka_unit_test(a_long_prompt_does_not_hold_up_answers),
        cmocka_unit_test(repetition_is_guessed_while_few_answer),
        cmocka_unit_test(equals_share_the_step),
        cmocka_unit_test(who_is_more_urgent_goes_first),
        cmocka_unit_test(a_full_pool_pauses_and_loses_nothing),
        cmocka_unit_test(requests_can_go_behind_a_sequence),
        cmocka_unit_test(forks_share_a_full_pool),
        cmocka_unit_test(a_pool_of_one_page_serves_one_after_the_other),
        cmocka_unit_test(what_does_not_fit_ends_alone),
        cmocka_unit_test(cancel_works_at_every_point),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(callbacks_may_use_the_scheduler),
        cmocka_unit_test(ten_thousand_requests_are_answered),
        cmocka_unit_test(other_threads_may_submit_and_cancel),
        cmocka_unit_test(every_failing_allocation_is_survived),
        cmocka_unit_test(anything_may_happen_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
