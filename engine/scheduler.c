/* scheduler.c: many answers at once (continuous batching): who takes part in a step, who waits, and who gives way when
 * pages run out. What becomes of the logits is generate.c's.
 *
 * A request is its tokens and a place: it has computed the first ones (its sequence's length), and computes the rest in
 * pieces, the last of which gives the logits for the next token. So the prompt, the one token of an answer and what has
 * to be computed again after a pause are all the same thing.
 */
#include "scheduler.h"

#include <string.h>

void minim_scheduler_options_default(minim_scheduler_options *options) {
    *options = (minim_scheduler_options){.size = sizeof *options, .max_running = 32, .max_queue = 1024, .chunk = 64};
}

void minim_request_default(minim_request *request) {
    *request = (minim_request){.size = sizeof *request};
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static int sched_is_before(const sched_request *a, const sched_request *b) {
    return a->priority > b->priority || (a->priority == b->priority && a->id < b->id);
}

static void sched_insert(sched_list *list, sched_request *r) {
    sched_request *before = list->last;
    while (before && sched_is_before(r, before)) before = before->before;
    r->before = before, r->after = before ? before->after : list->first;
    *(r->before ? &r->before->after : &list->first) = r;
    *(r->after ? &r->after->before : &list->last) = r;
    list->n++;
}

static void sched_remove(sched_list *list, sched_request *r) {
    *(r->before ? &r->before->after : &list->first) = r->after;
    *(r->after ? &r->after->before : &list->last) = r->before;
    list->n--;
}

static sched_request *sched_find(const sched_list *list, uint64_t id) {
    sched_request *r = list->first;
    while (r && r->id != id) r = r->after;
    return r;
}

/* ---- the scheduler ------------------------------------------------------------------------------------------------
 */

minim_status minim_scheduler_new(minim_engine *engine, const minim_scheduler_options *options, minim_scheduler **out,
                                 minim_error *error) {
    if (!engine || !out) return err_set(error, MINIM_ERR_ARGUMENT, "engine or scheduler is NULL");
    *out = NULL;
    minim_scheduler_options o;
    minim_scheduler_options_default(&o);
    if (options) memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    if (o.max_running < 1) {
        return err_set(error, MINIM_ERR_ARGUMENT, "max_running is %d, expected 1 or more", o.max_running);
    }
    if (o.max_queue < 1) return err_set(error, MINIM_ERR_ARGUMENT, "max_queue is %d, expected 1 or more", o.max_queue);
    if (o.chunk < 1) return err_set(error, MINIM_ERR_ARGUMENT, "chunk is %d, expected 1 or more", o.chunk);
    minim_scheduler *s = mem_zalloc(&engine->allocator, 1, sizeof *s);
    if (!s) return err_memory(error, "the scheduler", sizeof *s);
    s->engine = engine;
    s->o = o;
    s->next_id = 1;
    /* A step is a token of every answer, or none, a piece of the prompts, and guesses. */
    s->n_rows = (size_t)o.max_running + (size_t)(o.chunk > engine->n_batch ? o.chunk : engine->n_batch);
    s->n_rows += SPECULATE_MAX;
    s->rows = mem_alloc(&engine->allocator, s->n_rows, sizeof *s->rows);
    minim_status status = s->rows ? MINIM_OK : err_memory(error, "the rows of a step", s->n_rows * sizeof *s->rows);
    if (!status && pthread_mutex_init(&s->lock, NULL))
        status = err_set(error, MINIM_ERR_MEMORY, "cannot create a mutex");
    if (status) {
        mem_free(&engine->allocator, s->rows, s->n_rows, sizeof *s->rows);
        mem_free(&engine->allocator, s, 1, sizeof *s);
        return status;
    }
    *out = s;
    return err_ok(error);
}

minim_status minim_scheduler_get_info(minim_scheduler *s, minim_scheduler_info *info) {
    if (!s || !info || info->size < sizeof info->size) return MINIM_ERR_ARGUMENT;
    const size_t size = info->size < sizeof *info ? info->size : sizeof *info;
    pthread_mutex_lock(&s->lock);
    minim_scheduler_info full = s->counts;
    full.n_running = s->running.n;
    full.n_waiting = s->waiting.n - full.n_paused;
    pthread_mutex_unlock(&s->lock);
    full.size = info->size;
    memcpy(info, &full, size);
    return MINIM_OK;
}

/* ---- requests come and go -----------------------------------------------------------------------------------------
 */

static void sched_request_free(minim_scheduler *s, sched_request *r) {
    const minim_allocator *a = &s->engine->allocator;
    generate_free(&r->g);
    speculator_free(r->speculator);
    minim_seq_free(r->seq);
    mem_free(a, r->tokens, r->capacity, sizeof *r->tokens);
    mem_free(a, r->stop_block, r->stop_bytes, 1);
    mem_free(a, r, 1, sizeof *r);
}

/* Stop strings live as long as the request. */
static minim_status sched_copy_stops(minim_scheduler *s, sched_request *r, minim_error *e) {
    size_t bytes = r->o.n_stop * sizeof(char *);
    if (!r->o.n_stop) return MINIM_OK;
    for (size_t i = 0; i < r->o.n_stop; i++) bytes += strlen(r->o.stop[i]) + 1;
    r->stop_block = mem_alloc(&s->engine->allocator, bytes, 1);
    if (!r->stop_block) return err_memory(e, "stop strings", bytes);
    r->stop_bytes = bytes;
    char *to = (char *)(r->stop_block + r->o.n_stop);
    for (size_t i = 0; i < r->o.n_stop; i++) {
        const size_t n = strlen(r->o.stop[i]) + 1;
        r->stop_block[i] = memcpy(to, r->o.stop[i], n);
        to += n;
    }
    r->o.stop = (const char *const *)r->stop_block;
    return MINIM_OK;
}

/* A prompt that can never be held is refused at once; how much more an answer takes is seen when it is there. */
static minim_status sched_check_room(const minim_scheduler *s, size_t n_prompt, minim_error *e) {
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(s->engine, &info);
    const uint64_t need = engine_pages_least(s->engine, n_prompt);
    if (need <= info.page_limit) return MINIM_OK;
    return err_set(e, MINIM_ERR_CONTEXT, "the prompt of %zu tokens needs %llu KV pages, the pool has %llu", n_prompt,
                   (unsigned long long)need, (unsigned long long)info.page_limit);
}

/* What it goes behind, then the prompt. */
static minim_status sched_copy_tokens(minim_scheduler *s, sched_request *r, minim_error *e) {
    const size_t n = r->n_behind + r->r.n_prompt;
    if (mem_grow(&s->engine->allocator, &r->tokens, &r->capacity, n, sizeof *r->tokens))
        return err_memory(e, "a prompt", n * sizeof *r->tokens);
    if (r->n_behind) memcpy(r->tokens, r->seq->tokens, r->n_behind * sizeof *r->tokens);
    memcpy(r->tokens + r->n_behind, r->r.prompt, r->r.n_prompt * sizeof *r->tokens);
    r->n_tokens = n;
    return MINIM_OK;
}

static minim_status sched_fill(minim_scheduler *s, sched_request *r, const minim_request *request, minim_error *e) {
    minim_generate_options_default(&r->o);
    const minim_generate_options *o = request->options;
    if (o) memcpy(&r->o, o, o->size < sizeof r->o ? o->size : sizeof r->o);
    if (request->behind && request->behind->engine != s->engine)
        return err_set(e, MINIM_ERR_ARGUMENT, "the sequence to go behind is of another engine");
    if (r->o.draft) return err_set(e, MINIM_ERR_ARGUMENT, "draft: a scheduler does not draft, minim_generate() does");
    minim_status status = speculator_check(&r->o, e);
    if (!status && request->behind) status = minim_seq_fork(request->behind, &r->seq, e);
    if (status) return status;
    r->n_behind = r->computed = r->seq ? r->seq->length : 0;
    /* Whatever is wrong with it is said now; what an answer needs is made when it starts. */
    status = generate_begin(&r->g, s->engine, r->seq ? r->seq->tokens : NULL, r->n_behind, r->r.prompt, r->r.n_prompt,
                            &r->o, &r->cancelled, e);
    generate_free(&r->g);
    if (!status) status = sched_check_room(s, r->n_behind + r->r.n_prompt, e);
    if (!status) status = sched_copy_stops(s, r, e);
    if (!status) status = sched_copy_tokens(s, r, e);
    r->r.prompt = NULL, r->r.options = NULL, r->r.behind = NULL;
    return status;
}

minim_status minim_scheduler_submit(minim_scheduler *s, const minim_request *request, uint64_t *id,
                                    minim_error *error) {
    if (!s || !request) return err_set(error, MINIM_ERR_ARGUMENT, "scheduler or request is NULL");
    sched_request *r = mem_zalloc(&s->engine->allocator, 1, sizeof *r);
    if (!r) return err_memory(error, "a request", sizeof *r);
    minim_request_default(&r->r);
    memcpy(&r->r, request, request->size < sizeof r->r ? request->size : sizeof r->r);
    atomic_init(&r->cancelled, 0);
    r->priority = r->r.priority;
    r->submitted = time_now();
    minim_status status = sched_fill(s, r, &r->r, error);
    if (!status) {
        pthread_mutex_lock(&s->lock);
        if (s->waiting.n - s->counts.n_paused >= (size_t)s->o.max_queue) {
            status = err_set(error, MINIM_ERR_SPACE, "the queue is full: %d requests wait", s->o.max_queue);
        } else {
            r->id = s->next_id++;
            if (id) *id = r->id;
            s->counts.n_submitted++;
            sched_insert(&s->waiting, r);
        }
        pthread_mutex_unlock(&s->lock);
    }
    if (status) {
        sched_request_free(s, r);
        return status;
    }
    return err_ok(error);
}

minim_status minim_scheduler_cancel(minim_scheduler *s, uint64_t id) {
    if (!s) return MINIM_ERR_ARGUMENT;
    pthread_mutex_lock(&s->lock);
    sched_request *r = sched_find(&s->running, id);
    if (!r) r = sched_find(&s->waiting, id);
    if (r && !atomic_exchange(&r->cancelled, 1)) s->n_cancelled++;
    pthread_mutex_unlock(&s->lock);
    return r ? MINIM_OK : MINIM_ERR_ARGUMENT;
}

/* Takes a request out of its list, tells the caller, and forgets it. */
static void sched_end(minim_scheduler *s, sched_list *list, sched_request *r, minim_status status, minim_error *e) {
    if (!status && r->started) status = generate_end(&r->g, e);
    pthread_mutex_lock(&s->lock);
    sched_remove(list, r);
    s->counts.n_paused -= (size_t)r->paused;
    s->counts.n_done++;
    if (atomic_load(&r->cancelled)) s->n_cancelled--;
    pthread_mutex_unlock(&s->lock);
    if (r->r.on_done) {
        r->g.r.size = sizeof r->g.r;
        r->g.r.n_prompt = r->r.n_prompt;
        const minim_outcome outcome = {.status = status,
                                       .error = status ? e->text : "",
                                       .result = &r->g.r,
                                       .n_pauses = r->n_pauses,
                                       .n_recomputed = r->n_recomputed};
        r->r.on_done(r->r.user, r->id, &outcome);
    }
    sched_request_free(s, r);
}

static sched_request *sched_first_cancelled(minim_scheduler *s, const sched_list *list) {
    pthread_mutex_lock(&s->lock);
    sched_request *r = s->n_cancelled ? list->first : NULL;
    while (r && !atomic_load(&r->cancelled)) r = r->after;
    pthread_mutex_unlock(&s->lock);
    return r;
}

static void sched_end_cancelled(minim_scheduler *s, sched_list *list) {
    minim_error e = {MINIM_OK, ""};
    for (sched_request *r; (r = sched_first_cancelled(s, list));) {
        generate_stop(&r->g, MINIM_STOP_CANCELLED);
        sched_end(s, list, r, MINIM_OK, &e);
    }
}

void minim_scheduler_free(minim_scheduler *s) {
    if (!s) return;
    minim_engine *en = s->engine;
    for (int i = 0; i < 2; i++) {
        sched_list *list = i ? &s->waiting : &s->running;
        for (sched_request *r = list->first; r; r = r->after) s->n_cancelled += !atomic_exchange(&r->cancelled, 1);
        sched_end_cancelled(s, list);
    }
    pthread_mutex_destroy(&s->lock);
    mem_free(&en->allocator, s->logits, s->logits_capacity, sizeof *s->logits);
    mem_free(&en->allocator, s->rows, s->n_rows, sizeof *s->rows);
    mem_free(&en->allocator, s, 1, sizeof *s);
}

/* ---- who runs -----------------------------------------------------------------------------------------------------
 */

static void sched_move(minim_scheduler *s, sched_list *from, sched_list *to, sched_request *r) {
    pthread_mutex_lock(&s->lock);
    sched_remove(from, r);
    sched_insert(to, r);
    s->counts.n_paused -= (size_t)r->paused;
    r->paused = from == &s->running;
    s->counts.n_paused += (size_t)r->paused;
    s->counts.n_pauses += (uint64_t)r->paused;
    pthread_mutex_unlock(&s->lock);
    if (r->r.on_state) r->r.on_state(r->r.user, r->id, r->paused ? MINIM_REQUEST_PAUSED : MINIM_REQUEST_RUNNING);
}

static void sched_pause(minim_scheduler *s, sched_request *r) {
    minim_seq_truncate(r->seq, 0);
    r->n_pauses++;
    sched_move(s, &s->running, &s->waiting, r);
}

/* What an answer needs is made when it starts for the first time. */
static minim_status sched_begin(minim_scheduler *s, sched_request *r, minim_error *e) {
    if (r->started) return MINIM_OK;
    minim_status status = r->seq ? MINIM_OK : minim_seq_new(s->engine, &r->seq, e);
    if (!status) {
        status = generate_begin(&r->g, s->engine, r->tokens, r->n_behind, r->tokens + r->n_behind, r->r.n_prompt, &r->o,
                                &r->cancelled, e);
        r->g.start = r->submitted;
    }
    if (!status) status = speculator_new(r->seq, &r->o, &r->speculator, e);
    for (size_t i = 0; i < r->n_tokens && r->speculator && !status; i++)
        status = speculator_push(r->speculator, r->tokens[i], 0, e);
    r->started = !status;
    return status;
}

/* Is there room for it beside those that run? Each of them may take a page of every kind before long. What the prefix
 * cache has is taken first, and given back if the answer is no. */
static int sched_fits(minim_scheduler *s, sched_request *r) {
    const size_t forked = r->seq->length;
    size_t reused = forked;
    if (!forked && minim_seq_reuse(r->seq, r->tokens, r->n_tokens, &reused, NULL)) reused = 0; /* then without it */
    if (!r->n_pauses && !r->n_behind) r->g.r.n_reused = reused;
    if (!s->running.n) return 1;
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(s->engine, &info);
    uint64_t need = engine_pages_most(s->engine, r->n_tokens + 1) - engine_pages_most(s->engine, reused);
    need += (uint64_t)s->running.n * s->engine->pages_together;
    if (info.page_limit - info.pages_in_use >= need) return 1;
    if (!forked) minim_seq_truncate(r->seq, 0); /* a fork's pages are somebody else's as well */
    return 0;
}

/* Starts who is first in the queue, as long as there is room; somebody of lower priority gives way. Never two of the
 * same priority for each other: nothing would be won. */
static void sched_admit(minim_scheduler *s) {
    for (;;) {
        minim_error e = {MINIM_OK, ""};
        pthread_mutex_lock(&s->lock);
        sched_request *r = s->waiting.first;
        pthread_mutex_unlock(&s->lock);
        if (!r) return;
        sched_request *last = s->running.last;
        const int lower = last && last->priority < r->priority;
        if (s->running.n >= (size_t)s->o.max_running) {
            if (!lower) return;
            sched_pause(s, last);
            continue;
        }
        minim_status status = sched_begin(s, r, &e);
        if (status) {
            sched_end(s, &s->waiting, r, status, &e);
        } else if (sched_fits(s, r)) {
            sched_move(s, &s->waiting, &s->running, r);
        } else if (lower) {
            sched_pause(s, last);
        } else {
            return;
        }
    }
}

/* ---- a step -------------------------------------------------------------------------------------------------------
 */

static size_t sched_left(const sched_request *r) {
    return r->n_tokens - r->seq->length;
}

/* The rows of requests of one priority, from `first` on, that have more than one token to compute: even shares of the
 * budget, but no crumbs. Returns what is left of it. */
static size_t sched_share(sched_request *first, size_t budget) {
    enum { CRUMB = 16 };
    size_t n = 0;
    for (sched_request *r = first; r && r->priority == first->priority; r = r->after) n += sched_left(r) > 1;
    size_t share = n ? budget / n : 0;
    if (share < CRUMB) share = CRUMB;
    for (int round = 0; round < 2; round++) { /* what some do not need goes to the first */
        for (sched_request *r = first; r && r->priority == first->priority && budget; r = r->after) {
            if (sched_left(r) < 2) continue;
            size_t more = sched_left(r) - r->n_rows;
            if (!round && more > share) more = share;
            if (more > budget) more = budget;
            r->n_rows += more, budget -= more;
        }
    }
    return budget;
}

/* Tokens that may follow those who answer run with them, as many as pay beside the n rows there are; the first in order
 * choose first. Returns their number. */
static minim_status sched_guess(minim_scheduler *s, size_t n, size_t *n_guesses, minim_error *e) {
    minim_status status = MINIM_OK;
    *n_guesses = 0;
    for (sched_request *r = s->running.first; r && !status; r = r->after) {
        if (!r->speculator || r->n_rows != 1 || sched_left(r) != 1 || !r->g.r.n_generated) continue;
        const int left = SPECULATE_MAX - (int)*n_guesses, room = generate_room(&r->g, r->seq);
        status = speculator_guess(r->speculator, r->tokens[r->n_tokens - 1], room < left ? room : left,
                                  (int)(n - 1 + *n_guesses), &r->guess, e);
        *n_guesses += (size_t)r->guess.n;
    }
    return status;
}

/* How many rows everybody has; the sum. *n_logits: those that want logits. */
static size_t sched_plan(minim_scheduler *s, size_t *n_logits) {
    size_t n = 0;
    int answering = 0;
    for (sched_request *r = s->running.first; r; r = r->after) {
        r->n_rows = sched_left(r) == 1;
        r->guess.n = 0;
        answering |= r->n_rows > 0;
    }
    size_t budget = (size_t)(answering ? s->o.chunk : s->engine->n_batch);
    for (sched_request *r = s->running.first; r;) {
        sched_request *first = r;
        budget = sched_share(first, budget);
        while (r && r->priority == first->priority) r = r->after;
    }
    *n_logits = 0;
    for (sched_request *r = s->running.first; r; r = r->after) {
        n += r->n_rows;
        *n_logits += r->n_rows && r->n_rows == sched_left(r);
    }
    return n;
}

/* Runs the rows that were planned. */
static minim_status sched_run_rows(minim_scheduler *s, size_t n_logits, minim_error *e) {
    const size_t floats = n_logits * (size_t)s->engine->model->n_vocab;
    size_t n = 0;
    if (mem_grow(&s->engine->allocator, &s->logits, &s->logits_capacity, floats, sizeof *s->logits))
        return err_memory(e, "logits", floats * sizeof *s->logits);
    for (sched_request *r = s->running.first; r; r = r->after) {
        for (size_t i = 0; i < r->n_rows; i++) {
            size_t at = r->seq->length + i;
            s->rows[n++] = (minim_row){r->seq, r->tokens[at], at + 1 == r->n_tokens};
        }
        for (int i = 0; i < r->guess.n; i++) s->rows[n++] = (minim_row){r->seq, r->guess.token[i], 1};
    }
    return minim_engine_step(s->engine, s->rows, n, s->logits, e);
}

static void sched_count(minim_scheduler *s, uint64_t *count, size_t n) {
    pthread_mutex_lock(&s->lock);
    *count += n;
    pthread_mutex_unlock(&s->lock);
}

/* What a step means for one request. Returns 1 when it has ended, and then *status. */
static int sched_advance(minim_scheduler *s, sched_request *r, const float *logits, minim_status *status,
                         minim_error *e) {
    const size_t length = r->seq->length - (size_t)r->guess.n, before = length - r->n_rows;
    const size_t again = r->computed > before ? (r->computed < length ? r->computed : length) - before : 0;
    const int prompt = !r->g.r.n_generated;
    r->n_recomputed += again;
    sched_count(s, prompt || again ? &s->counts.n_prefill : &s->counts.n_decode, r->n_rows);
    sched_count(s, &s->counts.n_recomputed, again);
    if (prompt && length > r->computed) generate_prefilled(&r->g, length - r->n_behind);
    if (length > r->computed) r->computed = length;
    if (!prompt && !again) {
        r->g.r.decode_bytes += s->engine->model->step_bytes;
        r->g.r.n_steps++;
        r->g.r.n_drafted += (size_t)r->guess.n;
    }
    *status = MINIM_OK;
    if (!logits || r->g.stopped) return r->g.stopped;
    int32_t token;
    int n_right;
    const size_t most = r->n_tokens + (size_t)r->guess.n + 1;
    if (mem_grow(&s->engine->allocator, &r->tokens, &r->capacity, most, sizeof *r->tokens))
        *status = err_memory(e, "a token list", most * sizeof *r->tokens);
    if (!*status) *status = generate_verify(&r->g, r->seq, r->speculator, &r->guess, logits, &n_right, &token, e);
    if (*status || r->g.stopped) return 1;
    sched_count(s, &s->counts.n_decode, (size_t)n_right);
    for (int i = 0; i < n_right; i++) r->tokens[r->n_tokens++] = r->guess.token[i];
    r->tokens[r->n_tokens++] = token;
    if (r->seq->length > r->computed) r->computed = r->seq->length;
    return 0;
}

/* Forks that wait give their pages back; what they held is computed when they start. Were there any? */
static int sched_release_waiting(minim_scheduler *s) {
    int released = 0;
    pthread_mutex_lock(&s->lock);
    for (sched_request *r = s->waiting.first; r; r = r->after) {
        if (!r->seq || !r->seq->length) continue;
        minim_seq_truncate(r->seq, 0);
        released = 1;
    }
    pthread_mutex_unlock(&s->lock);
    return released;
}

/* There is no room for the step. Somebody gives way; who is alone takes smaller pieces, and in the end has to stop. */
static size_t sched_give_way(minim_scheduler *s, size_t most, minim_status status, minim_error *e) {
    sched_request *r = s->running.last;
    if (s->running.n > 1) {
        sched_pause(s, r);
    } else if (sched_release_waiting(s)) {
        return most;
    } else if (r->n_rows > 1) {
        return r->n_rows / 2;
    } else if (r->g.r.n_generated && status == MINIM_ERR_CONTEXT) { /* as minim_generate(): the text so far stands */
        generate_stop(&r->g, MINIM_STOP_CONTEXT);
        sched_end(s, &s->running, r, MINIM_OK, e);
    } else {
        sched_end(s, &s->running, r, status, e);
    }
    return most;
}

static void sched_compute(minim_scheduler *s) {
    minim_error e = {MINIM_OK, ""};
    size_t n_logits, n, n_guesses = 0, most = SIZE_MAX;
    for (int guessing = 1;; guessing = 0) { /* without room for guesses: without them */
        n = sched_plan(s, &n_logits);
        sched_request *r = s->running.first;
        if (n > most) n = r->n_rows = most, n_logits = 0; /* one is alone */
        if (!n) return;
        if (guessing && sched_guess(s, n, &n_guesses, &e)) {
            n_guesses = 0;
            continue;
        }
        minim_status status = sched_run_rows(s, n_logits + n_guesses, &e);
        if (!status) break;
        if (!n_guesses) most = sched_give_way(s, most, status, &e);
        n_guesses = 0;
    }
    const float *logits = s->logits;
    for (sched_request *r = s->running.first, *next; r; r = next) {
        next = r->after;
        if (!r->n_rows) continue;
        const size_t n_guessed = (size_t)r->guess.n;
        const int wants = r->seq->length - n_guessed == r->n_tokens;
        minim_status status;
        if (sched_advance(s, r, wants ? logits : NULL, &status, &e)) sched_end(s, &s->running, r, status, &e);
        if (wants) logits += (1 + n_guessed) * (size_t)s->engine->model->n_vocab;
    }
}

minim_status minim_scheduler_step(minim_scheduler *s, size_t *n_left, minim_error *error) {
    if (!s) return err_set(error, MINIM_ERR_ARGUMENT, "scheduler is NULL");
    pthread_mutex_lock(&s->lock);
    const int busy = s->stepping;
    s->stepping = 1;
    pthread_mutex_unlock(&s->lock);
    if (busy) return err_set(error, MINIM_ERR_ARGUMENT, "a step of this scheduler is running");
    sched_end_cancelled(s, &s->running);
    sched_end_cancelled(s, &s->waiting);
    sched_admit(s);
    sched_compute(s);
    pthread_mutex_lock(&s->lock);
    s->stepping = 0;
    s->counts.n_steps++;
    if (n_left) *n_left = s->running.n + s->waiting.n;
    pthread_mutex_unlock(&s->lock);
    return err_ok(error);
}

minim_status minim_scheduler_run(minim_scheduler *s, minim_error *error) {
    size_t n_left = 1;
    minim_status status = MINIM_OK;
    while (n_left && !status) status = minim_scheduler_step(s, &n_left, error);
    return status;
}
