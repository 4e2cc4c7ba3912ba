/* local.c: the local model as a backend: a thin wrapper over minim_generate(). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "signals.h"

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

static minim_status local_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                               minim_router_reply *reply, minim_error *error) {
    local_model *local = state;
    double started = router_now();
    int32_t *tokens = NULL;
    size_t n_tokens = 0;
    minim_seq *seq = NULL;
    minim_model_info info = {.size = sizeof info};
    if (minim_model_get_info(local->model, &info) == MINIM_OK) {
        router_line(reply->model, sizeof reply->model, "%s", info.name);
        router_line(reply->quantisation, sizeof reply->quantisation, "%s, %llu parameters, %s", info.architecture,
                    (unsigned long long)info.n_params, info.weight_types);
    }
    minim_status status = local_tokenize(local, request, &tokens, &n_tokens, error);
    if (status == MINIM_OK) status = minim_seq_new(local->engine, &seq, error);
    if (status == MINIM_OK) status = local_generate(seq, request, tokens, n_tokens, sink, reply, error);
    minim_seq_free(seq);
    free(tokens);
    reply->usage.seconds = router_now() - started;
    if (status != MINIM_OK) reply->failure = MINIM_ROUTE_FAILED_LOCAL;
    return status;
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
    *backend = (minim_router_backend){.state = local, .chat = local_chat, .free = local_free};
    return MINIM_OK;
}
