/* generate.c: an answer from logits to text (generate.h), and minim_generate(), which makes one answer alone. */
#include "generate.h"

#include <fenv.h>
#include <string.h>

const char *minim_stop_name(minim_stop stop) {
    static const char *const name[] = {"end", "length", "stop", "context", "cancelled", "callback"};
    return (unsigned)stop < sizeof name / sizeof *name ? name[stop] : "unknown";
}

void minim_generate_options_default(minim_generate_options *options) {
    *options = (minim_generate_options){.size = sizeof *options,
                                        .sampling = {.top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64},
                                        .n_lookup = SPECULATE_MAX};
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

void generate_stop(generate_run *g, minim_stop why) {
    if (!g->stopped) g->r.stop = why;
    g->stopped = 1;
}

static minim_status generate_check(const generate_run *g, size_t n_history, const int32_t *prompt, size_t n,
                                   minim_error *e) {
    const minim_engine *en = g->engine;
    if (!n || !prompt) return err_set(e, MINIM_ERR_ARGUMENT, "the prompt is empty");
    if (g->o.max_tokens < 0)
        return err_set(e, MINIM_ERR_ARGUMENT, "max_tokens is %d, expected 0 or more", g->o.max_tokens);
    if (n > (size_t)en->n_ctx - n_history) {
        return err_set(e, MINIM_ERR_CONTEXT, "the prompt has %zu tokens, but the context of %d has room for %zu", n,
                       en->n_ctx, (size_t)en->n_ctx - n_history);
    }
    return MINIM_OK;
}

static minim_status generate_check_tokens(const generate_run *g, const char *what, const int32_t *tokens, size_t n,
                                          minim_error *e) {
    const int n_vocab = g->engine->model->n_vocab;
    if (n && !tokens) return err_set(e, MINIM_ERR_ARGUMENT, "%s tokens are NULL", what);
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return err_set(e, MINIM_ERR_ARGUMENT, "%s token %zu is %d, expected 0 to %d", what, i, tokens[i],
                           n_vocab - 1);
    }
    return MINIM_OK;
}

minim_status generate_begin(generate_run *g, minim_engine *en, const int32_t *history, size_t n_history,
                            const int32_t *prompt, size_t n_prompt, const minim_generate_options *options,
                            const atomic_int *cancelled, minim_error *e) {
    *g = (generate_run){.engine = en, .cancelled = cancelled, .start = time_now(), .guess = -1};
    minim_generate_options_default(&g->o);
    if (options) memcpy(&g->o, options, options->size < sizeof g->o ? options->size : sizeof g->o);
    g->r.n_prompt = n_prompt;
    g->first = n_history + n_prompt;
    minim_status status = generate_check(g, n_history, prompt, n_prompt, e);
    if (!status) status = generate_check_tokens(g, "prompt", prompt, n_prompt, e);
    if (!status) status = generate_check_tokens(g, "forced", g->o.forced, g->o.n_forced, e);
    if (!status) {
        status = sampler_new(&en->allocator, &en->kern, en->model->n_vocab, &g->o.sampling, g->o.n_top, &g->sampler, e);
    }
    if (!status) status = text_new(&en->allocator, g->o.stop, g->o.n_stop, &g->text, e);
    g->o.stop = NULL, g->o.n_stop = 0;
    if (status) return status;
    for (size_t i = 0; i < n_history; i++) sampler_accept(g->sampler, history[i]);
    for (size_t i = 0; i < n_prompt; i++) sampler_accept(g->sampler, prompt[i]);
    return MINIM_OK;
}

void generate_prefilled(generate_run *g, size_t done) {
    if (g->o.on_prefill && g->o.on_prefill(g->o.user, done, g->r.n_prompt)) generate_stop(g, MINIM_STOP_CALLBACK);
    if (atomic_load(g->cancelled)) generate_stop(g, MINIM_STOP_CANCELLED);
}

static void generate_show(generate_run *g, const char *text, size_t n) {
    if (n && g->o.on_text && g->o.on_text(g->o.user, text, n)) generate_stop(g, MINIM_STOP_CALLBACK);
}

/* Text of a token through the stop strings to the caller. */
static minim_status generate_text(generate_run *g, int32_t token, minim_error *e) {
    char small[256], *piece = small;
    const minim_model *m = g->engine->model;
    const minim_allocator *a = &g->engine->allocator;
    size_t n = vocab_piece(m->vocab, token, 0, 0, small, sizeof small);
    if (n > sizeof small) {
        piece = mem_alloc(a, n, 1);
        if (!piece) return err_memory(e, "the text of a token", n);
        vocab_piece(m->vocab, token, 0, 0, piece, n);
    }
    const char *ready;
    size_t n_ready;
    int found;
    minim_status status = text_push(g->text, piece, n, &ready, &n_ready, &found, e);
    if (!status) {
        generate_show(g, ready, n_ready);
        if (found) generate_stop(g, MINIM_STOP_STRING);
    }
    if (piece != small) mem_free(a, piece, n, 1);
    return status;
}

static void generate_count(generate_run *g, const minim_token_event *event) {
    minim_result *r = &g->r;
    r->n_generated++;
    r->sum_logprob += (double)event->logprob;
    r->sum_margin += (double)event->margin;
    r->sum_entropy += (double)event->entropy;
    if (r->n_generated == 1 || (double)event->logprob < r->min_logprob) r->min_logprob = (double)event->logprob;
}

/* A token that takes the place of the sampler's choice, which has drawn its random number all the same. */
static void generate_replace(generate_run *g, const float *logits, minim_token_event *event) {
    const int32_t chosen = event->token;
    if (g->r.n_generated < g->o.n_forced) {
        event->token = g->o.forced[g->r.n_generated];
    } else if (g->guess >= 0 && g->guess != chosen && g->o.accept_min_p > 0 &&
               kern_expf(sampler_logprob(g->sampler, logits, g->guess)) >= g->o.accept_min_p) {
        event->token = g->guess;
        g->r.n_overruled++;
    }
    if (event->token != chosen) event->logprob = sampler_logprob(g->sampler, logits, event->token);
}

/* The next token, chosen with the same rounding whatever the host has set, and counted. */
static void generate_choose(generate_run *g, const float *logits, minim_token_event *event) {
    fenv_t host;
    fegetenv(&host);
    fesetenv(FE_DFL_ENV);
    sampler_choose(g->sampler, logits, event);
    generate_replace(g, logits, event);
    sampler_accept(g->sampler, event->token);
    event->index = (int)g->r.n_generated;
    event->is_end = vocab_is_end(g->engine->model->vocab, event->token) && !g->o.ignore_end;
    generate_count(g, event);
    fesetenv(&host);
}

minim_status generate_take(generate_run *g, const float *logits, int32_t *token, minim_error *e) {
    minim_token_event event = {0};
    if (!g->r.n_generated) g->r.prefill_seconds = time_now() - g->start;
    generate_choose(g, logits, &event);
    *token = event.token;
    if (event.index == 0) g->r.first_token_seconds = time_now() - g->start;
    if (g->o.on_token && g->o.on_token(g->o.user, &event)) generate_stop(g, MINIM_STOP_CALLBACK);
    if (event.is_end) {
        generate_stop(g, MINIM_STOP_END);
        return MINIM_OK;
    }
    minim_status status = generate_text(g, event.token, e);
    if (status) return status;
    if (atomic_load(g->cancelled)) generate_stop(g, MINIM_STOP_CANCELLED);
    if (g->o.max_tokens && g->r.n_generated >= (size_t)g->o.max_tokens) generate_stop(g, MINIM_STOP_LENGTH);
    if (g->first + g->r.n_generated > (size_t)g->engine->n_ctx) generate_stop(g, MINIM_STOP_CONTEXT);
    return MINIM_OK;
}

int generate_room(const generate_run *g, const minim_seq *seq) {
    size_t room = (size_t)g->engine->n_ctx - seq->length - 1;
    const size_t left = g->o.max_tokens ? (size_t)g->o.max_tokens - g->r.n_generated - 1 : room;
    if (room > left) room = left;
    return room < SPECULATE_MAX ? (int)room : SPECULATE_MAX;
}

minim_status generate_verify(generate_run *g, minim_seq *seq, speculator *s, const speculation *guess,
                             const float *logits, int *n_right, int32_t *token, minim_error *e) {
    int at = 0;
    for (int is_right = 1; is_right; at += is_right) {
        g->guess = at < guess->n && guess->is_drafted ? guess->token[at] : -1;
        minim_status status = generate_take(g, logits + (size_t)at * (size_t)g->engine->model->n_vocab, token, e);
        if (status) return status;
        is_right = at < guess->n && *token == guess->token[at];
        g->r.n_accepted += (size_t)is_right;
        if (s && !g->stopped) status = speculator_push(s, *token, 1, e);
        if (status) return status;
        is_right = is_right && !g->stopped;
    }
    if (at < guess->n) minim_seq_truncate(seq, seq->length - (size_t)(guess->n - at));
    *n_right = at;
    return MINIM_OK;
}

minim_status generate_end(generate_run *g, minim_error *e) {
    const double now = time_now() - g->start;
    if (!g->r.n_generated) g->r.prefill_seconds = now;
    g->r.decode_seconds = g->r.n_generated ? now - g->r.first_token_seconds - g->packing : 0;
    if (g->r.stop == MINIM_STOP_STRING || g->r.stop == MINIM_STOP_CALLBACK) return MINIM_OK;
    const char *ready;
    size_t n_ready;
    minim_status status = text_finish(g->text, &ready, &n_ready, e);
    if (!status) generate_show(g, ready, n_ready);
    return status;
}

void generate_result(const generate_run *g, minim_result *result) {
    if (!result) return;
    size_t size = result->size < sizeof g->r ? result->size : sizeof g->r;
    memcpy(result, &g->r, size);
    result->size = size;
}

void generate_free(generate_run *g) {
    sampler_free(g->sampler);
    text_free(g->text);
    g->sampler = NULL, g->text = NULL;
}

/* ---- one answer alone -------------------------------------------------------------------------------------------- */

static minim_status generate_prefill(generate_run *g, minim_seq *seq, const int32_t *prompt, size_t n, float *logits,
                                     minim_error *e) {
    minim_engine *en = g->engine;
    minim_row *rows = mem_alloc(&en->allocator, (size_t)en->n_batch, sizeof *rows);
    if (!rows) return err_memory(e, "a prompt chunk", (uint64_t)en->n_batch * sizeof *rows);
    minim_status status = seq->length ? MINIM_OK : minim_seq_reuse(seq, prompt, n, &g->r.n_reused, e);
    for (size_t done = g->r.n_reused; done < n && !status && !g->stopped;) {
        size_t chunk = n - done < (size_t)en->n_batch ? n - done : (size_t)en->n_batch;
        for (size_t i = 0; i < chunk; i++) rows[i] = (minim_row){seq, prompt[done + i], done + i == n - 1};
        status = minim_engine_step(en, rows, chunk, logits, e);
        done += chunk;
        if (!status) generate_prefilled(g, done);
    }
    mem_free(&en->allocator, rows, (size_t)en->n_batch, sizeof *rows);
    return status;
}

/* Runs the token and, in the same step, the guesses behind it; logits gets a row for each. What there is no room for is
 * not guessed; without room for the token the answer ends. */
static minim_status generate_step(generate_run *g, minim_seq *seq, int32_t token, speculation *guess, float *logits,
                                  minim_error *e) {
    minim_row rows[1 + SPECULATE_MAX] = {{seq, token, 1}};
    for (int i = 0; i < guess->n; i++) rows[1 + i] = (minim_row){seq, guess->token[i], 1};
    minim_status status = minim_engine_step(g->engine, rows, 1 + (size_t)guess->n, logits, e);
    if (guess->n && (status == MINIM_ERR_CONTEXT || status == MINIM_ERR_MEMORY)) {
        guess->n = 0;
        status = minim_engine_step(g->engine, rows, 1, logits, e);
    }
    if (status == MINIM_ERR_CONTEXT) { /* the pool is full: the text so far stands */
        generate_stop(g, MINIM_STOP_CONTEXT);
        return err_ok(e);
    }
    if (status) return status;
    g->r.decode_bytes += g->engine->model->step_bytes;
    g->r.n_steps++;
    g->r.n_drafted += (size_t)guess->n;
    return MINIM_OK;
}

/* Behind the first token, which did not wait for it. */
static void generate_prepare(generate_run *g) {
    const double before = time_now();
    minim_engine_prepare(g->engine);
    g->packing = time_now() - before;
}

/* logits: [1 + SPECULATE_MAX][n_vocab] with a speculator, else one row. */
static minim_status generate_tokens(generate_run *g, minim_seq *seq, speculator *s, float *logits, minim_error *e) {
    speculation guess = {.n = 0};
    while (!g->stopped) {
        int32_t token;
        int n_right;
        minim_status status = generate_verify(g, seq, s, &guess, logits, &n_right, &token, e);
        if (status || g->stopped) return status;
        if (!g->r.n_steps) generate_prepare(g);
        guess.n = 0;
        if (s) status = speculator_guess(s, token, generate_room(g, seq), 0, &guess, e);
        if (!status) status = generate_step(g, seq, token, &guess, logits, e);
        if (status) return status;
    }
    return MINIM_OK;
}

/* Tells the speculator what the text was so far. */
static minim_status generate_speculator(const generate_run *g, minim_seq *seq, const int32_t *prompt, size_t n,
                                        speculator **out, minim_error *e) {
    minim_status status = speculator_new(seq, &g->o, out, e);
    for (size_t i = 0; i < seq->length && *out && !status; i++) status = speculator_push(*out, seq->tokens[i], 0, e);
    for (size_t i = 0; i < n && *out && !status; i++) status = speculator_push(*out, prompt[i], 0, e);
    return status;
}

minim_status minim_generate(minim_seq *seq, const int32_t *prompt, size_t n_prompt,
                            const minim_generate_options *options, minim_result *result, minim_error *error) {
    if (!seq) return err_set(error, MINIM_ERR_ARGUMENT, "seq is NULL");
    minim_engine *en = seq->engine;
    const size_t before = seq->length;
    size_t n_logits = (size_t)en->model->n_vocab;
    generate_run g;
    speculator *guesses = NULL;
    float *logits = NULL;
    atomic_store(&seq->cancelled, 0);
    minim_status status =
        generate_begin(&g, en, seq->tokens, before, prompt, n_prompt, options, &seq->cancelled, error);
    if (!status) status = generate_speculator(&g, seq, prompt, n_prompt, &guesses, error);
    if (!status) {
        if (guesses) n_logits *= 1 + SPECULATE_MAX;
        logits = mem_alloc(&en->allocator, n_logits, sizeof *logits);
        if (!logits) status = err_memory(error, "logits", n_logits * sizeof *logits);
    }
    if (!status) status = generate_prefill(&g, seq, prompt, n_prompt, logits, error);
    if (!status) status = generate_tokens(&g, seq, guesses, logits, error);
    if (!status) status = generate_end(&g, error);
    generate_free(&g);
    speculator_free(guesses);
    mem_free(&en->allocator, logits, n_logits, sizeof *logits);
    if (status) {
        minim_seq_truncate(seq, before);
        return status;
    }
    generate_result(&g, result);
    return err_ok(error);
}
