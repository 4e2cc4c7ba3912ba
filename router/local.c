/* local.c: the local model as a backend: a thin wrapper over minim_generate(). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "signals.h"
#include "vote.h"

typedef struct local_model {
    const minim_model *model;
    minim_engine *engine;
    char *chat_format; /* NULL = the file's */
} local_model;

/* One answer being made. */
typedef struct local_answer {
    const minim_router_sink *sink;
    minim_router_reply *reply;
    signal_track track;
} local_answer;

static int local_on_text(void *user, const char *text, size_t n_bytes) {
    const minim_router_sink *sink = ((local_answer *)user)->sink;
    return sink->on_text ? sink->on_text(sink->user, text, n_bytes) : 0;
}

static int local_on_token(void *user, const minim_token_event *event) {
    local_answer *answer = user;
    const minim_router_sink *sink = answer->sink;
    answer->reply->n_logprobs++;
    answer->reply->sum_logprob += (double)event->logprob;
    signal_add(&answer->track, event);
    return sink->on_progress ? sink->on_progress(sink->user, answer->reply->n_logprobs) : 0;
}

static int local_on_prefill(void *user, size_t done, size_t total) {
    const minim_router_sink *sink = ((local_answer *)user)->sink;
    (void)done, (void)total;
    return sink->on_progress ? sink->on_progress(sink->user, 0) : 0;
}

static minim_status local_tokenize(const local_model *local, const minim_router_request *request, int32_t **tokens,
                                   size_t *n_tokens, minim_error *error) {
    minim_status status = minim_chat_tokenize(local->model, local->chat_format, request->messages, request->n_messages,
                                              NULL, 0, n_tokens, error);
    if (status == MINIM_OK) return router_fail(error, MINIM_ERR_ARGUMENT, "the prompt is empty"); /* it fits 0 tokens */
    if (status != MINIM_ERR_SPACE) return status;
    size_t capacity = *n_tokens;
    *tokens = capacity < SIZE_MAX / sizeof **tokens ? malloc(capacity * sizeof **tokens) : NULL;
    if (!*tokens) return router_fail_memory(error, "the prompt's tokens");
    return minim_chat_tokenize(local->model, local->chat_format, request->messages, request->n_messages, *tokens,
                               capacity, n_tokens, error);
}

/* The tokens of a text that goes on behind others. Some tokenizers put a space before every text they are given: it is
 * read behind a line break, whose tokens are then left out; where they melt into the text, it is read alone. */
static minim_status local_tokenize_rest(const local_model *local, const char *text, int32_t **tokens, size_t *n_tokens,
                                        minim_error *error) {
    size_t n = strlen(text), n_line = 0, n_all = 0, capacity = n + 64; /* a byte is a token at most, and some more */
    int32_t line[16] = {0}, *all = capacity < SIZE_MAX / sizeof *all ? malloc(capacity * sizeof *all) : NULL;
    char *anchored = malloc(n + 2);
    if (!all || !anchored) {
        free(all);
        free(anchored);
        return router_fail_memory(error, "the answer's tokens");
    }
    anchored[0] = '\n';
    memcpy(anchored + 1, text, n + 1);
    minim_status status = minim_tokenize(local->model, "\n", 1, 0, line, 16, &n_line, error);
    if (status == MINIM_OK) status = minim_tokenize(local->model, anchored, n + 1, 0, all, capacity, &n_all, error);
    if (status == MINIM_OK && n_all >= n_line && !memcmp(all, line, n_line * sizeof *line)) {
        n_all -= n_line;
        memmove(all, all + n_line, n_all * sizeof *all);
    } else if (status == MINIM_OK) {
        status = minim_tokenize(local->model, text, n, 0, all, capacity, &n_all, error);
    }
    free(anchored);
    if (status != MINIM_OK) {
        free(all);
        return status;
    }
    *tokens = all;
    *n_tokens = n_all;
    return MINIM_OK;
}

/* Puts the answer so far behind the conversation's tokens. */
static minim_status local_add_prefix(const local_model *local, const char *prefix, int32_t **tokens, size_t *n_tokens,
                                     minim_error *error) {
    int32_t *rest = NULL;
    size_t n_rest = 0;
    if (!prefix || !prefix[0]) return MINIM_OK;
    minim_status status = local_tokenize_rest(local, prefix, &rest, &n_rest, error);
    if (status != MINIM_OK || !rest) return status;
    int32_t *longer = n_rest < SIZE_MAX / sizeof **tokens - *n_tokens
                          ? realloc(*tokens, (*n_tokens + n_rest) * sizeof **tokens)
                          : NULL;
    if (longer) {
        memcpy(longer + *n_tokens, rest, n_rest * sizeof *rest);
        *tokens = longer;
        *n_tokens += n_rest;
    }
    free(rest);
    return longer ? MINIM_OK : router_fail_memory(error, "the answer's tokens");
}

/* ---- what is kept between the parts of an answer ----------------------------------------------------------------- */

/* A sequence and the tokens whose keys and values it holds. */
typedef struct local_session {
    minim_seq *seq;
    int32_t *tokens;
    size_t n;
} local_session;

static void local_session_free(void *state) {
    local_session *kept = state;
    if (!kept) return;
    minim_seq_free(kept->seq);
    free(kept->tokens);
    free(kept);
}

/* The sequence of these tokens' beginning; *n_done of them need not be run again. What it holds beyond is forgotten. */
static minim_status local_session_find(const local_model *local, minim_router_session *session, const int32_t *tokens,
                                       size_t n_tokens, size_t *n_done, local_session **out, minim_error *error) {
    local_session *kept = session->state;
    minim_status status = MINIM_OK;
    if (!kept) {
        kept = calloc(1, sizeof *kept);
        if (!kept) return router_fail_memory(error, "the answer's parts");
        session->state = kept;
        session->free = local_session_free;
    }
    size_t n = 0;
    while (n < kept->n && n + 1 < n_tokens && kept->tokens[n] == tokens[n]) n++;
    /* A sequence that can not go back (its window has passed) is made anew. */
    if (kept->seq && minim_seq_truncate(kept->seq, n) != MINIM_OK) {
        minim_seq_free(kept->seq);
        kept->seq = NULL;
    }
    if (!kept->seq) {
        n = 0;
        status = minim_seq_new(local->engine, &kept->seq, error);
    }
    if (status != MINIM_OK) return status;
    *n_done = n;
    *out = kept;
    return MINIM_OK;
}

/* Notes which tokens the sequence holds now: those that were given; generated ones are read again from their text. */
static void local_session_note(local_session *kept, int32_t **tokens, size_t n_tokens) {
    free(kept->tokens);
    kept->tokens = *tokens;
    kept->n = n_tokens < minim_seq_length(kept->seq) ? n_tokens : minim_seq_length(kept->seq);
    *tokens = NULL;
}

/* ---- an answer --------------------------------------------------------------------------------------------------- */

static minim_route_finish local_finish(minim_stop stop) {
    switch (stop) {
    case MINIM_STOP_LENGTH: return MINIM_ROUTE_FINISH_LENGTH;
    case MINIM_STOP_CONTEXT: return MINIM_ROUTE_FINISH_CONTEXT;
    default: return MINIM_ROUTE_FINISH_END;
    }
}

static minim_status local_generate(minim_seq *seq, const minim_router_request *request, const int32_t *tokens,
                                   size_t n_tokens, const minim_router_sink *sink, minim_router_reply *reply,
                                   minim_error *error) {
    local_answer answer = {.sink = sink, .reply = reply};
    minim_result result;
    memset(&result, 0, sizeof result);
    result.size = sizeof result;
    minim_generate_options options;
    minim_generate_options_default(&options);
    options.sampling = request->sampling;
    options.max_tokens = request->max_tokens;
    options.stop = request->stop;
    options.n_stop = request->n_stop;
    options.user = &answer;
    options.on_text = local_on_text;
    options.on_token = local_on_token;
    options.on_prefill = local_on_prefill;
    minim_status status = minim_generate(seq, tokens, n_tokens, &options, &result, error);
    reply->finish = local_finish(result.stop);
    /* Where tokens are drawn at random their figures say how lucky the draw was: not what calibrations are made of. */
    if (status == MINIM_OK && request->sampling.temperature <= 0)
        reply->has_signals = !signal_finish(&answer.track, reply->finish, reply->signals);
    signal_free(&answer.track);
    if (status != MINIM_OK) return status;
    reply->usage.prompt_tokens = result.n_prompt;
    reply->usage.completion_tokens = result.n_generated;
    reply->usage.first_token_seconds = result.first_token_seconds;
    if (result.stop == MINIM_STOP_CALLBACK || result.stop == MINIM_STOP_CANCELLED) {
        return router_fail(error, MINIM_ERR_CANCELLED, "cancelled");
    }
    return MINIM_OK;
}

/* ---- several answers, and the one that most agree on ------------------------------------------------------------- */

typedef struct local_vote local_vote;

typedef struct local_sample {
    local_vote *vote;
    router_bytes text;
    char *agrees; /* what has to agree */
    minim_result result;
    minim_status status;
    minim_error error;
} local_sample;

struct local_vote {
    const minim_router_request *request;
    const minim_router_sink *sink;
    minim_router_reply *reply;
    local_sample *samples; /* [request->samples] */
    uint64_t n_tokens;     /* of all */
    double started;
    int stopped; /* by the sink */
};

static int local_vote_on_text(void *user, const char *text, size_t n_bytes) {
    local_sample *sample = user;
    sample->status = router_bytes_append(&sample->text, text, n_bytes);
    return sample->status != MINIM_OK;
}

static int local_vote_on_token(void *user, const minim_token_event *event) {
    local_vote *vote = ((local_sample *)user)->vote;
    (void)event;
    if (!vote->n_tokens++) vote->reply->usage.first_token_seconds = router_now() - vote->started;
    if (vote->sink->on_progress && vote->sink->on_progress(vote->sink->user, vote->n_tokens)) vote->stopped = 1;
    return vote->stopped;
}

static void local_vote_on_done(void *user, uint64_t id, const minim_outcome *outcome) {
    local_sample *sample = user;
    (void)id;
    if (outcome->result) sample->result = *outcome->result;
    if (sample->status != MINIM_OK)
        router_fail_memory(&sample->error, "a sample's text");
    else if (outcome->status != MINIM_OK)
        sample->status = router_fail(&sample->error, outcome->status, "%s", outcome->error);
}

/* Runs the prompt but for its last token, once for all samples: forks share its pages. */
static minim_status local_vote_prefill(const local_model *local, const local_vote *vote, minim_seq *seq,
                                       const int32_t *tokens, size_t n_tokens, minim_error *error) {
    enum { CHUNK = 256 };
    minim_row rows[CHUNK];
    size_t done = 0;
    minim_status status = minim_seq_reuse(seq, tokens, n_tokens, &done, error);
    while (status == MINIM_OK && done + 1 < n_tokens) {
        size_t n = n_tokens - 1 - done < CHUNK ? n_tokens - 1 - done : CHUNK;
        for (size_t i = 0; i < n; i++) rows[i] = (minim_row){seq, tokens[done + i], 0};
        status = minim_engine_step(local->engine, rows, n, NULL, error);
        if (status != MINIM_OK) return status;
        done += n;
        if (vote->sink->on_progress && vote->sink->on_progress(vote->sink->user, 0))
            return router_fail(error, MINIM_ERR_CANCELLED, "cancelled");
    }
    return status;
}

/* The i-th sample goes behind a fork of the sequence. */
static minim_status local_vote_submit(local_vote *vote, size_t i, minim_seq *seq, int32_t last,
                                      minim_scheduler *scheduler, minim_error *error) {
    local_sample *sample = &vote->samples[i];
    minim_generate_options options;
    minim_request request;
    minim_generate_options_default(&options);
    options.sampling = vote->request->sampling;
    options.sampling.temperature = (float)vote->request->sample_temperature;
    options.sampling.seed += i;
    options.max_tokens = vote->request->max_tokens;
    options.stop = vote->request->stop;
    options.n_stop = vote->request->n_stop;
    options.user = sample;
    options.on_text = local_vote_on_text;
    options.on_token = local_vote_on_token;
    minim_request_default(&request);
    request.prompt = &last;
    request.n_prompt = 1;
    request.options = &options;
    request.behind = seq;
    request.user = sample;
    request.on_done = local_vote_on_done;
    sample->vote = vote;
    sample->text.limit = SIZE_MAX / 8;
    return minim_scheduler_submit(scheduler, &request, NULL, error);
}

/* All samples together: a step of the engine is a token of each. The sequence goes: its pages are the forks' now. */
static minim_status local_vote_generate(const local_model *local, local_vote *vote, minim_seq **seq, int32_t last,
                                        minim_error *error) {
    size_t n = (size_t)vote->request->samples, left = n;
    minim_scheduler *scheduler = NULL;
    minim_scheduler_options options;
    minim_scheduler_options_default(&options);
    options.max_running = vote->request->samples;
    minim_status status = minim_scheduler_new(local->engine, &options, &scheduler, error);
    for (size_t i = 0; i < n && status == MINIM_OK; i++)
        status = local_vote_submit(vote, i, *seq, last, scheduler, error);
    minim_seq_free(*seq);
    *seq = NULL;
    while (left && !vote->stopped && status == MINIM_OK) status = minim_scheduler_step(scheduler, &left, error);
    minim_scheduler_free(scheduler);
    if (vote->stopped) return router_fail(error, MINIM_ERR_CANCELLED, "cancelled");
    for (size_t i = 0; i < n && status == MINIM_OK; i++) {
        vote->reply->usage.completion_tokens += vote->samples[i].result.n_generated;
        status = vote->samples[i].status;
        if (status != MINIM_OK && error) *error = vote->samples[i].error;
    }
    return status;
}

/* Counts, and passes the winner's text on. */
static minim_status local_vote_end(local_vote *vote, minim_error *error) {
    const minim_router_request *request = vote->request;
    size_t n = (size_t)request->samples;
    char *agrees[MINIM_ROUTER_MAX_SAMPLES];
    regex_t pattern;
    int has_pattern = request->sample_pattern && request->sample_pattern[0];
    minim_status status = has_pattern ? vote_compile(request->sample_pattern, &pattern, error) : MINIM_OK;
    if (status != MINIM_OK) return status;
    for (size_t i = 0; i < n; i++) {
        const char *text = vote->samples[i].text.data;
        agrees[i] = vote->samples[i].agrees = vote_normalise(text ? text : "", has_pattern ? &pattern : NULL);
        if (!agrees[i]) status = router_fail_memory(error, "a sample");
    }
    if (has_pattern) regfree(&pattern);
    if (status != MINIM_OK) return status;
    const local_sample *best = &vote->samples[vote_count(agrees, n, &vote->reply->agreement)];
    vote->reply->has_agreement = 1;
    vote->reply->finish = local_finish(best->result.stop);
    vote->reply->n_logprobs = best->result.n_generated;
    vote->reply->sum_logprob = best->result.sum_logprob;
    if (best->text.n && vote->sink->on_text && vote->sink->on_text(vote->sink->user, best->text.data, best->text.n))
        return router_fail(error, MINIM_ERR_CANCELLED, "cancelled");
    return MINIM_OK;
}

static minim_status local_vote_run(const local_model *local, const minim_router_request *request, const int32_t *tokens,
                                   size_t n_tokens, const minim_router_sink *sink, minim_router_reply *reply,
                                   minim_error *error) {
    local_vote vote = {.request = request, .sink = sink, .reply = reply, .started = router_now()};
    minim_seq *seq = NULL;
    size_t n = request->samples <= MINIM_ROUTER_MAX_SAMPLES ? (size_t)request->samples : 0;
    if (!n) return router_fail(error, MINIM_ERR_ARGUMENT, "more than %d samples", MINIM_ROUTER_MAX_SAMPLES);
    vote.samples = calloc(n, sizeof *vote.samples);
    if (!vote.samples) return router_fail_memory(error, "the samples");
    minim_status status = minim_seq_new(local->engine, &seq, error);
    if (status == MINIM_OK) status = local_vote_prefill(local, &vote, seq, tokens, n_tokens, error);
    reply->usage.prompt_tokens = status == MINIM_OK ? n_tokens : 0;
    if (status == MINIM_OK) status = local_vote_generate(local, &vote, &seq, tokens[n_tokens - 1], error);
    minim_seq_free(seq);
    if (status == MINIM_OK) status = local_vote_end(&vote, error);
    for (size_t i = 0; i < n; i++) {
        router_bytes_free(&vote.samples[i].text);
        free(vote.samples[i].agrees);
    }
    free(vote.samples);
    return status;
}

/* In the sequence that a session keeps, in several, or in one of its own. *tokens becomes NULL when a session keeps it.
 */
static minim_status local_run(const local_model *local, const minim_router_request *request, int32_t **tokens,
                              size_t n_tokens, const minim_router_sink *sink, minim_router_reply *reply,
                              minim_error *error) {
    minim_seq *seq = NULL;
    local_session *kept = NULL;
    size_t n_done = 0;
    minim_status status;
    if (request->samples > 1) return local_vote_run(local, request, *tokens, n_tokens, sink, reply, error);
    if (!request->session) {
        status = minim_seq_new(local->engine, &seq, error);
        if (status == MINIM_OK) status = local_generate(seq, request, *tokens, n_tokens, sink, reply, error);
        minim_seq_free(seq);
        return status;
    }
    status = local_session_find(local, request->session, *tokens, n_tokens, &n_done, &kept, error);
    if (status != MINIM_OK || !kept) return status;
    status = local_generate(kept->seq, request, *tokens + n_done, n_tokens - n_done, sink, reply, error);
    local_session_note(kept, tokens, n_tokens);
    return status;
}

static minim_status local_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                               minim_router_reply *reply, minim_error *error) {
    local_model *local = state;
    double started = router_now();
    int32_t *tokens = NULL;
    size_t n_tokens = 0;
    minim_model_info info = {.size = sizeof info};
    if (minim_model_get_info(local->model, &info) == MINIM_OK) {
        router_line(reply->model, sizeof reply->model, "%s", info.name);
        router_line(reply->quantisation, sizeof reply->quantisation, "%s, %llu parameters, %s", info.architecture,
                    (unsigned long long)info.n_params, info.weight_types);
    }
    minim_status status = local_tokenize(local, request, &tokens, &n_tokens, error);
    if (status == MINIM_OK) status = local_add_prefix(local, request->prefix, &tokens, &n_tokens, error);
    if (status == MINIM_OK && tokens) status = local_run(local, request, &tokens, n_tokens, sink, reply, error);
    free(tokens);
    reply->usage.seconds = router_now() - started;
    if (status != MINIM_OK) reply->failure = MINIM_ROUTE_FAILED_LOCAL;
    return status;
}

static uint64_t local_count(void *state, const char *text, size_t n_bytes) {
    size_t n = 0;
    minim_status status = minim_tokenize(((local_model *)state)->model, text, n_bytes, 0, NULL, 0, &n, NULL);
    return status == MINIM_OK || status == MINIM_ERR_SPACE ? n : 0;
}

static void local_free(void *state) {
    local_model *local = state;
    if (local) free(local->chat_format);
    free(local);
}

minim_status minim_router_local(const minim_model *model, minim_engine *engine, const char *chat_format,
                                minim_router_backend *backend, minim_error *error) {
    if (!model || !engine || !backend) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_router_local: an argument is NULL");
    }
    minim_model_info info = {.size = sizeof info};
    minim_status status = minim_model_get_info(model, &info);
    if (status != MINIM_OK) return router_fail(error, status, "minim_router_local: the model has no description");
    if (!chat_format && !strcmp(info.chat_format, "unknown")) {
        return router_fail(
            error, MINIM_ERR_UNSUPPORTED,
            "model \"%s\": found a chat template that minim does not know, expected one of its chat formats "
            "or one named by the caller",
            info.name);
    }
    local_model *local = calloc(1, sizeof *local);
    if (!local) return router_fail_memory(error, "the local backend");
    local->model = model;
    local->engine = engine;
    if (chat_format && !(local->chat_format = strdup(chat_format))) {
        local_free(local);
        return router_fail_memory(error, "the local backend");
    }
    *backend = (minim_router_backend){.state = local, .chat = local_chat, .free = local_free, .count = local_count};
    return MINIM_OK;
}
