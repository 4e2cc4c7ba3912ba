/* book.c: the router's books: what of a request goes to the ledger. A ledger that fails costs no answer: it is told
 * beside the answer. Only where there is a budget nothing is spent without it. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "job.h"
#include "sha256.h"

enum {
    BOOK_MAX_TOKENS = 4096,  /* of a remote answer when there is a budget and the request names no bound */
    BOOK_MESSAGE_TOKENS = 16 /* what a chat template may put around a message, at most */
};

/* ---- names of requests ------------------------------------------------------------------------------------------ */

/* Length first, so that two fields can not be read as one. */
static void book_hash_text(sha256_state *hash, const char *text) {
    uint64_t n = strlen(text);
    sha256_add(hash, &n, sizeof n);
    sha256_add(hash, text, (size_t)n);
}

static void book_hash_number(sha256_state *hash, double value) {
    sha256_add(hash, &value, sizeof value);
}

static void book_hash_messages(sha256_state *hash, const minim_router_request *request) {
    book_hash_number(hash, (double)request->n_messages);
    for (size_t i = 0; i < request->n_messages; i++) {
        book_hash_text(hash, request->messages[i].role);
        book_hash_text(hash, request->messages[i].content);
    }
}

/* Everything that an answer depends on. */
static void book_cache_key(router_job *job, const minim_router_request *request) {
    const minim_router_config *config = &job->router->config;
    const minim_sampling *s = &request->sampling;
    const minim_route_features no_features = {.size = sizeof no_features};
    const minim_route_state no_state = {.size = sizeof no_state};
    char policy[2048];
    sha256_state hash;
    sha256_begin(&hash);
    book_hash_text(&hash, minim_version());
    book_hash_messages(&hash, request);
    const double numbers[] = {request->max_tokens, (double)s->temperature,    s->top_k,         (double)s->top_p,
                              (double)s->min_p,    (double)s->repeat_penalty, s->repeat_last_n, (double)s->seed,
                              request->send,       (double)request->n_stop};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) book_hash_number(&hash, numbers[i]);
    for (size_t i = 0; i < request->n_stop; i++) book_hash_text(&hash, request->stop[i]);
    minim_route_inputs(&job->policy, &no_features, &no_state, policy, sizeof policy);
    book_hash_text(&hash, policy);
    book_hash_number(&hash, config->evidence_spans + 2 * config->evidence_numbers);
    book_hash_text(&hash, config->evidence_schema);
    book_hash_text(&hash, config->evidence_pattern);
    book_hash_text(&hash, config->evidence_command);
    /* Other answers, only where there is a vote. */
    int votes = config->confidence_method == MINIM_ROUTE_SELF_CONSISTENCY;
    book_hash_number(&hash, votes ? config->samples : 0);
    book_hash_number(&hash, votes ? config->sample_temperature : 0);
    book_hash_text(&hash, votes ? config->sample_pattern : "");
    book_hash_text(&hash, config->provider);
    book_hash_number(&hash, config->stream);
    book_hash_text(&hash, config->base_url);
    book_hash_text(&hash, config->model);
    book_hash_text(&hash, job->router->local_identity);
    sha256_end(&hash, job->cache_key);
}

/* ---- before ----------------------------------------------------------------------------------------------------- */

static void book_note_error(router_job *job, const minim_error *error) {
    if (!job->ledger_error[0]) router_line(job->ledger_error, sizeof job->ledger_error, "%s", error->text);
}

static int book_reads_cache(const router_job *job) {
    minim_route_cache cache = job->router->config.cache;
    return job->may_cache && (cache == MINIM_ROUTE_CACHE_ON || cache == MINIM_ROUTE_CACHE_READ_ONLY);
}

static int book_writes_cache(const router_job *job) {
    minim_route_cache cache = job->router->config.cache;
    return job->may_cache && (cache == MINIM_ROUTE_CACHE_ON || cache == MINIM_ROUTE_CACHE_WRITE_ONLY);
}

void book_begin(router_job *job, const minim_router_request *request) {
    const minim_router *router = job->router;
    for (size_t i = 0; i < request->n_messages; i++) {
        job->state.request_bytes += strlen(request->messages[i].role) + strlen(request->messages[i].content);
    }
    job->cache = "off";
    if (!router->ledger) return;
    /* A private request leaves no content behind, not even here. */
    job->may_cache = router->config.cache != MINIM_ROUTE_CACHE_OFF && router->local_identity[0] &&
                     !job->state.is_private && (router->config.cache_sampled || !(request->sampling.temperature > 0));
    if (!job->may_cache) return;
    job->cache = "miss";
    book_cache_key(job, request);
    ledger_cached found = {.text.limit = job->sides[0].text.limit};
    minim_error error = {MINIM_OK, ""};
    if (!book_reads_cache(job)) return;
    if (router->ledger->functions->cache_get(router->ledger, job->cache_key, router->config.cache_max_age, &found,
                                             &error) != MINIM_OK) {
        book_note_error(job, &error);
    } else if (found.text.n) {
        router_side *side = &job->sides[found.route];
        side->text = found.text; /* handed over */
        found.text = (router_bytes){0};
        side->reply.finish = found.finish;
        router_line(side->reply.model, sizeof side->reply.model, "%s", found.model);
        job->state.cached = 1;
        job->state.cached_route = found.route;
        job->state.cached_usage = found.usage;
        job->cache = "hit";
    }
    router_bytes_free(&found.text);
}

/* Where the budget's time begins. */
static double book_since(double duration) {
    struct timespec now;
    struct tm date;
    clock_gettime(CLOCK_REALTIME, &now);
    if (duration > 0) return (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - duration;
    if (duration == 0 || !gmtime_r(&now.tv_sec, &date)) return 0;
    date.tm_mon += (int)duration;
    return (double)timegm(&date);
}

/* The most that the request can cost: no tokenizer makes more tokens than there are bytes. */
static double book_worst_case(const router_job *job, const minim_router_request *request) {
    const minim_router_config *config = &job->router->config;
    double prompt = BOOK_MESSAGE_TOKENS * (double)(request->n_messages + 1);
    for (size_t i = 0; i < request->n_messages; i++) {
        prompt += (double)strlen(request->messages[i].role) + (double)strlen(request->messages[i].content);
    }
    if (request->prefix) prompt += BOOK_MESSAGE_TOKENS + (double)strlen(request->prefix);
    double in = config->input_cost_per_token, out = config->output_cost_per_token;
    return (in > 0 ? in * prompt : 0) + (out > 0 ? out * request->max_tokens : 0);
}

void book_reserve(router_job *job, minim_router_request *request) {
    const minim_router *router = job->router;
    minim_error error = {MINIM_OK, ""};
    int has_budget = router->config.max_budget >= 0;
    if (!router->ledger) return;
    if (has_budget && request->max_tokens <= 0) request->max_tokens = BOOK_MAX_TOKENS;
    minim_status status = router->ledger->functions->reserve(
        router->ledger, request->max_tokens > 0 ? book_worst_case(job, request) : 0, router->config.max_budget,
        book_since(router->config.budget_duration), &job->ticket, &error);
    if (status == MINIM_OK) return;
    if (status != MINIM_ERR_SPACE) book_note_error(job, &error);
    if (has_budget) job->state.over_budget = 1; /* also when nobody knows: what can not be booked is not spent */
}

/* ---- after ------------------------------------------------------------------------------------------------------ */

/* Appends text as a JSON string; what is no UTF-8 becomes U+FFFD. */
static minim_status book_quote(router_bytes *bytes, const char *text, size_t n) {
    router_bytes clean = {.limit = SIZE_MAX / 4};
    minim_status status = router_utf8_append(&clean, text, n);
    if (status == MINIM_OK) status = router_bytes_append(bytes, "\"", 1);
    for (size_t i = 0; i < clean.n && status == MINIM_OK; i++) {
        unsigned char c = (unsigned char)clean.data[i];
        char escaped[8];
        if (c == '"' || c == '\\')
            router_line(escaped, sizeof escaped, "\\%c", c);
        else if (c < 0x20)
            router_line(escaped, sizeof escaped, "\\u%04x", c);
        status = c == '"' || c == '\\' || c < 0x20 ? router_bytes_append(bytes, escaped, strlen(escaped))
                                                   : router_bytes_append(bytes, clean.data + i, 1);
    }
    router_bytes_free(&clean);
    return status == MINIM_OK ? router_bytes_append(bytes, "\"", 1) : status;
}

/* The conversation as a JSON array of messages. */
static minim_status book_conversation(const minim_router_request *request, router_bytes *json) {
    minim_status status = router_bytes_append(json, "[", 1);
    for (size_t i = 0; i < request->n_messages && status == MINIM_OK; i++) {
        const minim_message *message = &request->messages[i];
        status = router_bytes_append(json, i ? ",{\"role\":" : "{\"role\":", i ? 9 : 8);
        if (status == MINIM_OK) status = book_quote(json, message->role, strlen(message->role));
        if (status == MINIM_OK) status = router_bytes_append(json, ",\"content\":", 11);
        if (status == MINIM_OK) status = book_quote(json, message->content, strlen(message->content));
        if (status == MINIM_OK) status = router_bytes_append(json, "}", 1);
    }
    return status == MINIM_OK ? router_bytes_append(json, "]", 1) : status;
}

static void book_salted(const minim_ledger *ledger, sha256_state *hash) {
    sha256_begin(hash);
    sha256_add(hash, ledger->salt, sizeof ledger->salt);
}

static void book_hashes(const router_job *job, const minim_router_request *request, ledger_line *line) {
    uint8_t digest[32];
    sha256_state hash;
    book_salted(job->router->ledger, &hash);
    book_hash_messages(&hash, request);
    sha256_end(&hash, digest);
    sha256_to_hex(digest, line->prompt_hash);
    if (!job->answer.text) return;
    book_salted(job->router->ledger, &hash);
    sha256_add(&hash, job->answer.text, job->answer.n_bytes);
    sha256_end(&hash, digest);
    sha256_to_hex(digest, line->answer_hash);
}

/* A whole answer of the one that was meant to give it is worth keeping. */
static void book_store(router_job *job) {
    const minim_route_decision *d = &job->decision;
    const router_side *side = &job->sides[d->route];
    int is_whole = side->reply.finish == MINIM_ROUTE_FINISH_END || side->reply.finish == MINIM_ROUTE_FINISH_LENGTH;
    if (!book_writes_cache(job) || job->state.cached || d->degraded || !is_whole || !job->answer.n_bytes) return;
    if (job->state.over_budget) return; /* with money the answer would be another one */
    if (private_text(job->router->rules, job->answer.text))
        return; /* not the question's fault, but kept no more for it */
    ledger_cached keep = {.route = d->route, .finish = side->reply.finish, .text = side->text};
    keep.usage = d->route == MINIM_ROUTE_REMOTE ? d->remote : d->local;
    router_line(keep.model, sizeof keep.model, "%s", side->reply.model);
    minim_error error = {MINIM_OK, ""};
    minim_ledger *ledger = job->router->ledger;
    if (ledger->functions->cache_put(ledger, job->cache_key, job->router->config.cache_max_age, &keep, &error))
        book_note_error(job, &error);
    else
        job->cache = "stored";
}

void book_end(router_job *job, const minim_router_request *request, minim_status status) {
    minim_ledger *ledger = job->router->ledger;
    router_bytes conversation = {.limit = SIZE_MAX / 4};
    minim_error error = {MINIM_OK, ""};
    char inputs[4096];
    if (!ledger) return;
    if (status == MINIM_OK) book_store(job);
    /* What verification and spans have cost stands with the remote's tokens. */
    minim_router_reply remote = job->last_call;
    const minim_route_usage *extra = &job->state.extra_usage;
    int has_extra = extra->prompt_tokens || extra->completion_tokens;
    if (job->answer.remote) remote = *job->answer.remote;
    remote.usage.prompt_tokens += extra->prompt_tokens;
    remote.usage.completion_tokens += extra->completion_tokens;
    remote.usage.estimated |= extra->estimated;
    remote.usage.seconds += extra->seconds;
    remote.attempts = (int)(job->attempts < INT_MAX ? job->attempts : INT_MAX);
    ledger_line line = {.status = status,
                        .mode = job->router->config.mode,
                        .decision = &job->decision,
                        .local = job->answer.local,
                        .remote = job->answer.remote || job->calls || has_extra ? &remote : NULL,
                        .remote_calls = job->calls,
                        .remote_verdicts = job->verdicts,
                        .cache = job->cache,
                        .is_private = job->state.is_private,
                        .over_budget = job->state.over_budget,
                        .n_messages = request->n_messages,
                        .prompt_bytes = job->state.request_bytes,
                        .answer_bytes = job->answer.n_bytes,
                        .inputs = inputs};
    minim_route_inputs(&job->policy, &job->features, &job->state, inputs, sizeof inputs);
    book_hashes(job, request, &line);
    int wants_content = job->router->config.ledger_content && !job->state.is_private && status == MINIM_OK &&
                        !private_text(job->router->rules, job->answer.text);
    if (wants_content && book_conversation(request, &conversation) == MINIM_OK) {
        line.prompt = conversation.data;
        line.answer = job->answer.text;
    }
    if (ledger->functions->settle(ledger, job->ticket, &line, &error)) book_note_error(job, &error);
    router_bytes_free(&conversation);
}
