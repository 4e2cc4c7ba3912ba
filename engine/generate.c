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
                                        .sampling = {.top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64}};
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
    for (size_t i = 0; i < n; i++) {
        if (prompt[i] < 0 || prompt[i] >= en->model->n_vocab) {
            return err_set(e, MINIM_ERR_ARGUMENT, "prompt token %zu is %d, expected 0 to %d", i, prompt[i],
                           en->model->n_vocab - 1);
        }
    }
    return MINIM_OK;
}

minim_status generate_begin(generate_run *g, minim_engine *en, const int32_t *history, size_t n_history,
                            const int32_t *prompt, size_t n_prompt, const minim_generate_options *options,
                            const atomic_int *cancelled, minim_error *e) {
    *g = (generate_run){.engine = en, .cancelled = cancelled, .start = time_now()};
    minim_generate_options_default(&g->o);
    if (options) memcpy(&g->o, options, options->size < sizeof g->o ? options->size : sizeof g->o);
    g->r.n_prompt = n_prompt;
    g->first = n_history + n_prompt;
    minim_status status = generate_check(g, n_history, prompt, n_prompt, e);
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

/* The next token, chosen with the same rounding whatever the host has set, and counted. */
static void generate_choose(generate_run *g, const float *logits, minim_token_event *event) {
    fenv_t host;
    fegetenv(&host);
    fesetenv(FE_DFL_ENV);
    sampler_choose(g->sampler, logits, event);
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

minim_status generate_end(generate_run *g, minim_error *e) {
    const double now = time_now() - g->start;
    if (!g->r.n_generated) g->r.prefill_seconds = now;
    g->r.decode_seconds = g->r.n_generated ? now - g->r.first_token_seconds : 0;
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

static minim_status generate_tokens(generate_run *g, minim_seq *seq, float *logits, minim_error *e) {
    while (!g->stopped) {
        minim_row row = {seq, 0, 1};
        minim_status status = generate_take(g, logits, &row.token, e);
        if (status) return status;
        if (g->stopped) break;
        status = minim_engine_step(g->engine, &row, 1, logits, e);
        if (status == MINIM_ERR_CONTEXT) { /* the pool is full: the text so far stands */
            generate_stop(g, MINIM_STOP_CONTEXT);
            err_ok(e);
        } else if (status) {
            return status;
        } else {
            g->r.decode_bytes += g->engine->model->step_bytes;
        }
    }
    return MINIM_OK;
}

minim_status minim_generate(minim_seq *seq, const int32_t *prompt, size_t n_prompt,
                            const minim_generate_options *options, minim_result *result, minim_error *error) {
    if (!seq) return err_set(error, MINIM_ERR_ARGUMENT, "seq is NULL");
    minim_engine *en = seq->engine;
    const size_t before = seq->length, n_vocab = (size_t)en->model->n_vocab;
    generate_run g;
    float *logits = NULL;
    atomic_store(&seq->cancelled, 0);
    minim_status status =
        generate_begin(&g, en, seq->tokens, before, prompt, n_prompt, options, &seq->cancelled, error);
    if (!status) {
        logits = mem_alloc(&en->allocator, n_vocab, sizeof *logits);
        if (!logits) status = err_memory(error, "logits", n_vocab * sizeof *logits);
    }
    if (!status) status = generate_prefill(&g, seq, prompt, n_prompt, logits, error);
    if (!status) status = generate_tokens(&g, seq, logits, error);
    if (!status) status = generate_end(&g, error);
    generate_free(&g);
    mem_free(&en->allocator, logits, n_vocab, sizeof *logits);
    if (status) {
        minim_seq_truncate(seq, before);
        return status;
    }
    generate_result(&g, result);
    return err_ok(error);
}
