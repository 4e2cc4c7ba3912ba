/* generate.c: minim_generate(): prompt in, text out. */
#include <fenv.h>
#include <string.h>

#include "engine.h"
#include "sample.h"
#include "text.h"

const char *minim_stop_name(minim_stop stop) {
    static const char *const name[] = {"end", "length", "stop", "context", "cancelled", "callback"};
    return (unsigned)stop < sizeof name / sizeof *name ? name[stop] : "unknown";
}

void minim_generate_options_default(minim_generate_options *options) {
    *options = (minim_generate_options){.size = sizeof *options,
                                        .sampling = {.top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64}};
}

typedef struct generate_run {
    minim_seq *seq;
    minim_generate_options o;
    minim_result r;
    minim_error *e;
    sampler *sampler;
    text_stream *text;
    float *logits; /* [n_vocab] */
    int stopped;   /* r.stop is set */
} generate_run;

static void generate_stop(generate_run *g, minim_stop why) {
    if (!g->stopped) g->r.stop = why;
    g->stopped = 1;
}

static minim_status generate_prefill(generate_run *g, const int32_t *prompt, size_t n) {
    minim_engine *en = g->seq->engine;
    minim_row *rows = mem_alloc(&en->allocator, (size_t)en->n_batch, sizeof *rows);
    if (!rows) return err_memory(g->e, "a prompt chunk", (uint64_t)en->n_batch * sizeof *rows);
    minim_status status = MINIM_OK;
    for (size_t done = 0; done < n && !status && !g->stopped;) {
        size_t chunk = n - done < (size_t)en->n_batch ? n - done : (size_t)en->n_batch;
        for (size_t i = 0; i < chunk; i++) rows[i] = (minim_row){g->seq, prompt[done + i], done + i == n - 1};
        status = minim_engine_step(en, rows, chunk, g->logits, g->e);
        done += chunk;
        if (!status && g->o.on_prefill && g->o.on_prefill(g->o.user, done, n)) generate_stop(g, MINIM_STOP_CALLBACK);
        if (atomic_load(&g->seq->cancelled)) generate_stop(g, MINIM_STOP_CANCELLED);
    }
    mem_free(&en->allocator, rows, (size_t)en->n_batch, sizeof *rows);
    return status;
}

static void generate_show(generate_run *g, const char *text, size_t n) {
    if (n && g->o.on_text && g->o.on_text(g->o.user, text, n)) generate_stop(g, MINIM_STOP_CALLBACK);
}

/* Text of a token through the stop strings to the caller. */
static minim_status generate_text(generate_run *g, int32_t token) {
    char small[256], *piece = small;
    const minim_model *m = g->seq->engine->model;
    const minim_allocator *a = &g->seq->engine->allocator;
    size_t n = vocab_piece(m->vocab, token, 0, 0, small, sizeof small);
    if (n > sizeof small) {
        piece = mem_alloc(a, n, 1);
        if (!piece) return err_memory(g->e, "the text of a token", n);
        vocab_piece(m->vocab, token, 0, 0, piece, n);
    }
    const char *ready;
    size_t n_ready;
    int found;
    minim_status status = text_push(g->text, piece, n, &ready, &n_ready, &found, g->e);
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
static void generate_choose(generate_run *g, minim_token_event *event) {
    fenv_t host;
    fegetenv(&host);
    fesetenv(FE_DFL_ENV);
    sampler_choose(g->sampler, g->logits, event);
    sampler_accept(g->sampler, event->token);
    event->index = (int)g->r.n_generated;
    event->is_end = vocab_is_end(g->seq->engine->model->vocab, event->token) && !g->o.ignore_end;
    generate_count(g, event);
    fesetenv(&host);
}

static minim_status generate_tokens(generate_run *g, double start) {
    minim_engine *en = g->seq->engine;
    while (!g->stopped) {
        minim_token_event event = {0};
        generate_choose(g, &event);
        if (event.index == 0) g->r.first_token_seconds = time_now() - start;
        if (g->o.on_token && g->o.on_token(g->o.user, &event)) generate_stop(g, MINIM_STOP_CALLBACK);
        if (event.is_end) {
            generate_stop(g, MINIM_STOP_END);
            break;
        }
        minim_status status = generate_text(g, event.token);
        if (status) return status;
        if (atomic_load(&g->seq->cancelled)) generate_stop(g, MINIM_STOP_CANCELLED);
        if (g->o.max_tokens && g->r.n_generated >= (size_t)g->o.max_tokens) generate_stop(g, MINIM_STOP_LENGTH);
        if (g->stopped) break;
        if (g->seq->length >= (size_t)en->n_ctx) {
            generate_stop(g, MINIM_STOP_CONTEXT);
            break;
        }
        minim_row row = {g->seq, event.token, 1};
        status = minim_engine_step(en, &row, 1, g->logits, g->e);
        if (status == MINIM_ERR_CONTEXT) { /* the pool is full: the text so far stands */
            generate_stop(g, MINIM_STOP_CONTEXT);
            err_ok(g->e);
        } else if (status) {
            return status;
        } else {
            g->r.decode_bytes += en->model->step_bytes;
        }
    }
    return MINIM_OK;
}

/* What was held back comes out, unless a stop string ended the text. */
static minim_status generate_flush(generate_run *g) {
    if (g->r.stop == MINIM_STOP_STRING || g->r.stop == MINIM_STOP_CALLBACK) return MINIM_OK;
    const char *ready;
    size_t n_ready;
    minim_status status = text_finish(g->text, &ready, &n_ready, g->e);
    if (!status) generate_show(g, ready, n_ready);
    return status;
}

static minim_status generate_check(const generate_run *g, const int32_t *prompt, size_t n) {
    const minim_engine *en = g->seq->engine;
    if (!n || !prompt) return err_set(g->e, MINIM_ERR_ARGUMENT, "the prompt is empty");
    if (g->o.max_tokens < 0)
        return err_set(g->e, MINIM_ERR_ARGUMENT, "max_tokens is %d, expected 0 or more", g->o.max_tokens);
    if (n > (size_t)en->n_ctx - g->seq->length) {
        return err_set(g->e, MINIM_ERR_CONTEXT, "the prompt has %zu tokens, but the context of %d has room for %zu", n,
                       en->n_ctx, (size_t)en->n_ctx - g->seq->length);
    }
    for (size_t i = 0; i < n; i++) {
        if (prompt[i] < 0 || prompt[i] >= en->model->n_vocab) {
            return err_set(g->e, MINIM_ERR_ARGUMENT, "prompt token %zu is %d, expected 0 to %d", i, prompt[i],
                           en->model->n_vocab - 1);
        }
    }
    return MINIM_OK;
}

static minim_status generate_prepare(generate_run *g, const int32_t *prompt, size_t n) {
    minim_engine *en = g->seq->engine;
    const minim_allocator *a = &en->allocator;
    minim_status status = sampler_new(a, &en->kern, en->model->n_vocab, &g->o.sampling, g->o.n_top, &g->sampler, g->e);
    if (!status) status = text_new(a, g->o.stop, g->o.n_stop, &g->text, g->e);
    if (status) return status;
    g->logits = mem_alloc(a, (size_t)en->model->n_vocab, sizeof *g->logits);
    if (!g->logits) return err_memory(g->e, "logits", (uint64_t)en->model->n_vocab * sizeof *g->logits);
    for (size_t i = 0; i < g->seq->length; i++) sampler_accept(g->sampler, g->seq->tokens[i]);
    for (size_t i = 0; i < n; i++) sampler_accept(g->sampler, prompt[i]);
    return MINIM_OK;
}

minim_status minim_generate(minim_seq *seq, const int32_t *prompt, size_t n_prompt,
                            const minim_generate_options *options, minim_result *result, minim_error *error) {
    if (!seq) return err_set(error, MINIM_ERR_ARGUMENT, "seq is NULL");
    minim_engine *en = seq->engine;
    generate_run g = {.seq = seq, .e = error};
    minim_generate_options_default(&g.o);
    if (options) memcpy(&g.o, options, options->size < sizeof g.o ? options->size : sizeof g.o);
    size_t before = seq->length;
    atomic_store(&seq->cancelled, 0);
    g.r.n_prompt = n_prompt;

    double start = time_now();
    minim_status status = generate_check(&g, prompt, n_prompt);
    if (!status) status = generate_prepare(&g, prompt, n_prompt);
    if (!status) status = generate_prefill(&g, prompt, n_prompt);
    if (!status) {
        g.r.prefill_seconds = time_now() - start;
        status = generate_tokens(&g, start);
        g.r.decode_seconds = g.r.first_token_seconds > 0 ? time_now() - start - g.r.first_token_seconds : 0;
    }
    if (!status) status = generate_flush(&g);
    sampler_free(g.sampler);
    text_free(g.text);
    mem_free(&en->allocator, g.logits, (size_t)en->model->n_vocab, sizeof *g.logits);
    if (status) {
        minim_seq_truncate(seq, before);
        return status;
    }
    if (result) {
        size_t size = result->size < sizeof g.r ? result->size : sizeof g.r;
        g.r.size = size;
        memcpy(result, &g.r, size);
    }
    return err_ok(error);
}
