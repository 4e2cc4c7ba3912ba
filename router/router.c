/* router.c: asks whom the decisions name, keeps what they say, and shows it. Which backend that is and when is up to
 * policy.c; nothing here depends on the mode. */
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "minim_route_learn.h"
#include "vote.h"

enum { ROUTER_MAX_TEXT = 1 << 28 };

void minim_router_options_default(minim_router_options *options) {
    if (!options) return;
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

void minim_router_callbacks_default(minim_router_callbacks *callbacks) {
    if (!callbacks) return;
    memset(callbacks, 0, sizeof *callbacks);
    callbacks->size = sizeof *callbacks;
}

void minim_router_request_default(minim_router_request *request) {
    if (!request) return;
    minim_generate_options generate;
    minim_generate_options_default(&generate);
    memset(request, 0, sizeof *request);
    request->size = sizeof *request;
    request->max_tokens = 256;
    request->sampling = generate.sampling;
}

/* A budget that nobody keeps, or a cache that is nowhere, would be believed in. */
static minim_status router_check_ledger(const minim_router_config *config, const minim_ledger *ledger,
                                        minim_error *error) {
    int has_remote = config->mode != MINIM_ROUTE_MODE_LOCAL && config->base_url[0];
    if (!ledger && ((config->max_budget >= 0 && has_remote) || config->cache != MINIM_ROUTE_CACHE_OFF)) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "%s: found no ledger, expected one to keep it in (ledger.path)",
                           config->cache != MINIM_ROUTE_CACHE_OFF ? "cache.enabled" : "max_budget");
    }
    if (config->max_budget >= 0 && has_remote &&
        !(config->input_cost_per_token >= 0 && config->output_cost_per_token >= 0)) {
        return router_fail(error, MINIM_ERR_ARGUMENT,
                           "max_budget: found no prices, expected remote.input_cost_per_token and "
                           "remote.output_cost_per_token");
    }
    return MINIM_OK;
}

/* Settings that do not go together would be believed in as well. */
static minim_status router_check_plan(const minim_router_config *config, minim_error *error) {
    int has_remote = config->mode != MINIM_ROUTE_MODE_LOCAL && config->base_url[0];
    int is_late =
        config->confidence_method == MINIM_ROUTE_VERIFY || config->confidence_method == MINIM_ROUTE_SELF_CONSISTENCY;
    int gates = config->plan == MINIM_ROUTE_PLAN_CASCADE && (config->hold_tokens > 0 || config->handover_threshold > 0);
    int is_hybrid = config->plan == MINIM_ROUTE_PLAN_HYBRID;
    if (is_late && (config->plan == MINIM_ROUTE_PLAN_RACE || is_hybrid || gates)) {
        return router_fail(
            error, MINIM_ERR_ARGUMENT,
            "confidence_method: found %s together with %s, which looks at an answer before it is complete",
            minim_route_method_name(config->confidence_method),
            gates ? "hold_tokens or handover_threshold" : minim_route_plan_name(config->plan));
    }
    regex_t pattern;
    if (config->sample_pattern[0]) {
        minim_status status = vote_compile(config->sample_pattern, &pattern, error);
        if (status != MINIM_OK) return status;
        regfree(&pattern);
    }
    if (!has_remote) return MINIM_OK;
    if (config->threshold_semantics == MINIM_ROUTE_THRESHOLD_COST &&
        !(config->error_cost > 0 && config->input_cost_per_token >= 0 && config->output_cost_per_token >= 0)) {
        return router_fail(error, MINIM_ERR_ARGUMENT,
                           "threshold_semantics: found cost without all of error_cost, remote.input_cost_per_token and "
                           "remote.output_cost_per_token");
    }
    if (is_hybrid && config->continuation == MINIM_ROUTE_CONTINUE_NONE) {
        return router_fail(error, MINIM_ERR_UNSUPPORTED,
                           "policy: found hybrid with remote.continuation \"none\", expected one that says how the "
                           "server continues a text: prefix, partial, assistant or continue_final_message");
    }
    if (is_hybrid && !(config->handover_threshold > 0)) {
        return router_fail(error, MINIM_ERR_ARGUMENT,
                           "policy: found hybrid with handover_threshold 0, expected a score below which the remote "
                           "takes over");
    }
    return MINIM_OK;
}

minim_status minim_router_new(const minim_router_options *options_in, minim_router **router, minim_error *error) {
    minim_router_options options;
    minim_router_options_default(&options);
    if (!router || router_copy_sized(&options, sizeof options, options_in) || !options.local || !options.local->chat) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_router_new: options, local or router is NULL");
    }
    minim_router *r = calloc(1, sizeof *r);
    if (!r) return router_fail_memory(error, "the router");
    minim_router_config_default(&r->config);
    minim_status status = options.config ? router_copy_config(&r->config, options.config, error) : MINIM_OK;
    if (status == MINIM_OK) status = router_check_ledger(&r->config, options.ledger, error);
    if (status == MINIM_OK) status = router_check_plan(&r->config, error);
    if (status == MINIM_OK) status = private_rules_new(&r->config, &r->rules, error);
    if (status == MINIM_OK) status = evidence_rules_new(&r->config, &r->evidence, error);
    if (status != MINIM_OK) {
        private_rules_free(r->rules);
        free(r);
        return status;
    }
    r->local = *options.local;
    r->ledger = options.ledger;
    if (options.local_identity) {
        router_line(r->local_identity, sizeof r->local_identity, "%s", options.local_identity);
    }
    /* Nothing that could reach a network exists in this mode. */
    if (r->config.mode != MINIM_ROUTE_MODE_LOCAL && r->config.base_url[0]) r->factory = options.remote;
    r->factory_user = options.remote_user;
    r->calibration = options.calibration;
    r->prompt_model = options.prompt_model;
    atomic_init(&r->cancelled, 0);
    *router = r;
    return MINIM_OK;
}

void minim_router_free(minim_router *router) {
    if (!router) return;
    if (router->has_remote && router->remote.free) router->remote.free(router->remote.state);
    private_rules_free(router->rules);
    evidence_rules_free(router->evidence);
    free(router);
}

void minim_router_cancel(minim_router *router) {
    if (router) atomic_store(&router->cancelled, 1);
}

/* ---- one prompt ------------------------------------------------------------------------------------------------- */

void minim_router_answer_free(minim_router_answer *answer) {
    router_job *job = (router_job *)answer;
    if (!job) return;
    router_bytes_free(&job->sides[MINIM_ROUTE_LOCAL].text);
    router_bytes_free(&job->sides[MINIM_ROUTE_REMOTE].text);
    free(job);
}

int router_show(router_job *job, minim_route route, const char *text, size_t n) {
    if (!n) return 0;
    job->shown = 1;
    return job->callbacks.on_text ? job->callbacks.on_text(job->callbacks.user, route, text, n) : 0;
}

/* The local side then has one text by two hands. */
static int router_is_hybrid(const router_job *job) {
    return job->policy.plan == MINIM_ROUTE_PLAN_HYBRID && job->policy.mode == MINIM_ROUTE_MODE_CASCADE;
}

static int router_on_text(void *user, const char *text, size_t n) {
    router_job *job = user;
    router_bytes *kept = &job->sides[job->asking].text;
    size_t before = kept->n;
    job->broke = router_utf8_append(kept, text, n); /* third-party backends may not keep to UTF-8 */
    if (job->broke != MINIM_OK || atomic_load(&job->router->cancelled)) return 1;
    if (job->hold) return 0;
    if (router_is_hybrid(job) && job->asking == MINIM_ROUTE_LOCAL) return hybrid_show(job, kept->n);
    return router_show(job, job->asking, kept->data + before, kept->n - before);
}

int router_release(router_job *job) {
    const router_bytes *kept = &job->sides[job->asking].text;
    job->hold = 0;
    return router_show(job, job->asking, kept->data, kept->n);
}

/* Text on the screen that will not be the answer is withdrawn. */
static void router_withdraw(router_job *job, const char *why) {
    if (!job->shown) return;
    job->shown = 0;
    job->hybrid.n_shown = 0;
    if (job->callbacks.on_discard) job->callbacks.on_discard(job->callbacks.user, why);
}

static int router_on_progress(void *user, uint64_t n_tokens) {
    router_job *job = user;
    if (atomic_load(&job->router->cancelled)) return 1;
    if (job->asking == MINIM_ROUTE_LOCAL && race_watch(job)) return 1;
    return job->callbacks.on_progress ? job->callbacks.on_progress(job->callbacks.user, job->asking, n_tokens) : 0;
}

static uint64_t router_visible_bytes(const router_bytes *text) {
    uint64_t n = 0;
    for (size_t i = 0; i < text->n; i++) n += !strchr(" \t\r\n", text->data[i]);
    return n;
}

/* Whatever a backend calls it: a remote that says nothing, or what the evidence is against, is of no use to anybody. */
static minim_status router_check_remote(const router_job *job, router_side *side, minim_error *error) {
    char detail[256];
    if (!router_visible_bytes(&side->text)) {
        side->reply.failure = MINIM_ROUTE_FAILED_EMPTY;
        return router_fail(error, MINIM_ERR_IO, "a complete answer without text");
    }
    if (!evidence_refuses(job->router->evidence, &job->request, side->text.data, detail, sizeof detail))
        return MINIM_OK;
    side->reply.failure = MINIM_ROUTE_FAILED_EVIDENCE;
    return router_fail(error, MINIM_ERR_IO, "%s", detail);
}

minim_status router_reach_remote(router_job *job, const minim_router_request *request, minim_router_reply *reply,
                                 minim_error *error) {
    minim_router *router = job->router;
    if (job->state.is_private || private_request(router->rules, request)) {
        reply->failure = MINIM_ROUTE_FAILED_CONFIG;
        return router_fail(error, MINIM_ERR_ARGUMENT, "the request is private");
    }
    if (router->has_remote) return MINIM_OK;
    minim_status status = router->factory(router->factory_user, &router->config, &router->remote, error);
    router->has_remote = status == MINIM_OK;
    if (status != MINIM_OK) reply->failure = MINIM_ROUTE_FAILED_CONFIG;
    return status;
}

void router_count_call(router_job *job, const minim_router_reply *reply) {
    if (reply->attempts <= 0) return;
    job->calls++;
    memcpy(job->last_call.model, reply->model, sizeof job->last_call.model);
    memcpy(job->last_call.server, reply->server, sizeof job->last_call.server);
    memcpy(job->last_call.asked, reply->asked, sizeof job->last_call.asked);
    job->last_call.http_status = reply->http_status;
    job->attempts += (uint64_t)reply->attempts;
}

void router_add_usage(minim_route_usage *sum, const minim_route_usage *more) {
    sum->prompt_tokens += more->prompt_tokens;
    sum->completion_tokens += more->completion_tokens;
    sum->estimated |= more->estimated;
    sum->seconds += more->seconds;
}

static void router_note_failure(router_side *side, char *detail, minim_route_failure failure, const minim_error *said) {
    router_line(detail, sizeof((minim_route_state *)0)->local_detail, "%s",
                said->text[0] ? said->text : "no reason given");
    if (!side->reply.failure) side->reply.failure = failure;
}

void router_note_remote(router_job *job, minim_status status, const minim_error *said) {
    router_side *side = &job->sides[MINIM_ROUTE_REMOTE];
    minim_route_state *state = &job->state;
    state->remote = status == MINIM_OK ? MINIM_ROUTE_ANSWERED : MINIM_ROUTE_FAILED;
    state->remote_usage = side->reply.usage;
    job->answer.remote = &side->reply;
    if (status != MINIM_OK) router_note_failure(side, state->remote_detail, MINIM_ROUTE_FAILED_CONNECT, said);
    if (status == MINIM_OK) job->router->remote_latency = side->reply.usage.first_token_seconds;
}

void router_note_local(router_job *job, minim_status status, const minim_error *said) {
    router_side *side = &job->sides[MINIM_ROUTE_LOCAL];
    minim_route_state *state = &job->state;
    if (state->local != MINIM_ROUTE_STOPPED)
        state->local = status == MINIM_OK ? MINIM_ROUTE_ANSWERED : MINIM_ROUTE_FAILED;
    state->local_usage = side->reply.usage;
    if (!state->local_usage.completion_tokens) state->local_usage.completion_tokens = side->reply.n_logprobs;
    job->features.n_tokens = side->reply.n_logprobs;
    job->features.n_bytes = router_visible_bytes(&side->text);
    job->features.sum_logprob = side->reply.sum_logprob;
    job->features.has_agreement = side->reply.has_agreement;
    job->features.agreement = side->reply.agreement;
    job->features.finish = side->reply.finish;
    job->features.has_signals = side->reply.has_signals;
    memcpy(job->features.signals, side->reply.signals, sizeof job->features.signals);
    minim_route_apply_calibration(job->router->calibration, side->reply.model, side->reply.quantisation,
                                  job->router->config.confidence_method, &job->features);
    job->features.evidence_failed = state->local == MINIM_ROUTE_ANSWERED && side->text.data &&
                                    evidence_refuses(job->router->evidence, &job->request, side->text.data,
                                                     state->evidence_detail, sizeof state->evidence_detail);
    job->answer.local = &side->reply;
    if (state->local == MINIM_ROUTE_FAILED)
        router_note_failure(side, state->local_detail, MINIM_ROUTE_FAILED_LOCAL, said);
}

static minim_status router_ask_remote(router_job *job, const minim_router_request *request,
                                      const minim_router_sink *sink, minim_error *said) {
    router_side *side = &job->sides[MINIM_ROUTE_REMOTE];
    if (job->race) return race_follow(job, sink, said);
    side->reply = (minim_router_reply){.size = sizeof side->reply};
    minim_status status = router_reach_remote(job, request, &side->reply, said);
    if (status != MINIM_OK) return status;
    status = job->router->remote.chat(job->router->remote.state, request, sink, &side->reply, said);
    router_count_call(job, &side->reply);
    return status;
}

static minim_status router_ask_local(router_job *job, const minim_router_request *request,
                                     const minim_router_sink *sink, minim_error *said) {
    router_side *side = &job->sides[MINIM_ROUTE_LOCAL];
    int is_hybrid = router_is_hybrid(job);
    minim_status status;
    job->window = (router_window){.n = 0};
    job->watched = job->hold;
    job->state.local = MINIM_ROUTE_NOT_ASKED;
    job->state.gate_passed = 0;
    if (is_hybrid) {
        status = hybrid_ask_local(job, request, sink, said);
    } else {
        side->reply = (minim_router_reply){.size = sizeof side->reply};
        side->text.n = 0;
        minim_router_request part = *request;
        if (job->router->config.confidence_method == MINIM_ROUTE_SELF_CONSISTENCY) {
            part.samples = job->router->config.samples;
            part.sample_temperature = job->router->config.sample_temperature;
            part.sample_pattern = job->router->config.sample_pattern;
        }
        status = job->router->local.chat(job->router->local.state, &part, sink, &side->reply, said);
    }
    job->watched = 0;
    return status;
}

/* Asks one side and notes what came of it. MINIM_OK also when the side failed; else the job is over. */
static minim_status router_ask_side(router_job *job, const minim_router_request *request,
                                    const minim_route_decision *decision, minim_error *error) {
    minim_route route = decision->route;
    minim_router_sink sink = {job, router_on_text, router_on_progress};
    minim_error said = {MINIM_OK, ""};
    if (!(route == MINIM_ROUTE_LOCAL && router_is_hybrid(job)))
        router_withdraw(job, minim_route_reason_name(decision->reason));
    job->asking = route;
    job->hold = decision->hold;
    minim_status status = route == MINIM_ROUTE_REMOTE ? router_ask_remote(job, request, &sink, &said)
                                                      : router_ask_local(job, request, &sink, &said);
    if (status == MINIM_OK && route == MINIM_ROUTE_REMOTE) status = router_check_remote(job, &job->sides[route], &said);
    if (job->broke != MINIM_OK) return router_fail(error, job->broke, "no room for the answer's text");
    int handed_over = route == MINIM_ROUTE_LOCAL && job->state.local == MINIM_ROUTE_STOPPED;
    if (status == MINIM_ERR_CANCELLED && !handed_over) return router_fail(error, status, "cancelled");
    if (route == MINIM_ROUTE_LOCAL)
        router_note_local(job, status, &said);
    else
        router_note_remote(job, status, &said);
    if (status != MINIM_OK && !handed_over)
        router_withdraw(job, route == MINIM_ROUTE_LOCAL ? job->state.local_detail : job->state.remote_detail);
    return MINIM_OK;
}

void minim_router_config_policy(const minim_router_config *config, int remote_available, int has_calibration,
                                minim_route_policy *policy) {
    *policy = (minim_route_policy){.size = sizeof *policy,
                                   .mode = config->mode,
                                   .method = config->confidence_method,
                                   .threshold = config->threshold,
                                   .remote_available = remote_available,
                                   .input_cost_per_token = config->input_cost_per_token,
                                   .output_cost_per_token = config->output_cost_per_token,
                                   .threshold_semantics = config->threshold_semantics,
                                   .prompt_threshold = config->prompt_threshold,
                                   .plan = config->plan,
                                   .hold_tokens = config->hold_tokens,
                                   .gate_threshold = config->gate_threshold,
                                   .handover_tokens = config->handover_tokens,
                                   .handover_threshold = config->handover_threshold,
                                   .gate_seconds = config->gate_delay,
                                   .hedge_seconds = config->hedge_delay,
                                   .complexity_threshold = config->complexity_threshold,
                                   .latency_budget = config->latency_budget,
                                   .rules = config->escalation_order,
                                   .error_cost = config->error_cost,
                                   .verify_accuracy = config->verify_accuracy,
                                   .fail_on_error = config->fail_on_error,
                                   .span_tokens = config->span_tokens,
                                   .max_spans = config->max_spans};
    if (policy->threshold_semantics == MINIM_ROUTE_THRESHOLD_AUTO && has_calibration)
        policy->threshold_semantics = MINIM_ROUTE_THRESHOLD_CALIBRATED;
}

static minim_status router_decide(router_job *job) {
    job->state.seconds = router_now() - job->started;
    minim_status status = minim_route_decide(&job->policy, &job->features, &job->state, &job->decision);
    if (status == MINIM_OK && job->callbacks.on_decision) {
        job->callbacks.on_decision(job->callbacks.user, &job->decision);
    }
    return status;
}

/* The decision is an answer: shows what was held back. */
static minim_status router_conclude(router_job *job, minim_error *error) {
    minim_route route = job->decision.route;
    router_bytes *text = &job->sides[route].text;
    if (router_bytes_append(text, "", 0) != MINIM_OK) return router_fail_memory(error, "the answer's text");
    int stopped = router_is_hybrid(job) && route == MINIM_ROUTE_LOCAL && !job->state.cached
                      ? hybrid_show(job, text->n)
                      : !job->shown && router_show(job, route, text->data, text->n);
    if (stopped) return router_fail(error, MINIM_ERR_CANCELLED, "cancelled");
    job->answer.text = text->data;
    job->answer.n_bytes = text->n;
    job->answer.decision = &job->decision;
    return MINIM_OK;
}

/* Why the remote was not asked, in words for people. */
static const char *router_unasked(minim_route_reason reason) {
    switch (reason) {
    case MINIM_ROUTE_REASON_NO_REMOTE: return "no remote is configured (remote.base_url, OPENAI_BASE_URL)";
    case MINIM_ROUTE_REASON_PRIVATE: return "the request is private, so the remote may not see it";
    case MINIM_ROUTE_REASON_OVER_BUDGET: return "what the remote could cost does not fit max_budget any more";
    default: return minim_route_reason_name(reason);
    }
}

static minim_status router_nobody(const router_job *job, minim_error *error) {
    const minim_route_state *state = &job->state;
    int both = state->local_detail[0] && state->remote_detail[0];
    if (!state->local_detail[0] && !state->remote_detail[0]) { /* the mode has nobody else */
        return router_fail(error, MINIM_ERR_IO, "the mode %s allows no local answer, and %s",
                           minim_route_mode_name(job->policy.mode), router_unasked(job->decision.reason));
    }
    return router_fail(error, MINIM_ERR_IO, "%s%s%s%s%s", state->local_detail[0] ? "the local model failed: " : "",
                       state->local_detail, both ? "; the remote failed: " : "",
                       state->remote_detail[0] && !both ? "the remote failed: " : "", state->remote_detail);
}

/* What the trained model says about the last message of the user, before anybody is asked. */
static void router_score_prompt(router_job *job, const minim_router_request *request) {
    minim_route_prediction prediction = {.size = sizeof prediction};
    const char *prompt = NULL;
    for (size_t i = 0; i < request->n_messages; i++) {
        if (!strcmp(request->messages[i].role, "user")) prompt = request->messages[i].content;
    }
    if (!job->router->prompt_model || !prompt) return;
    if (minim_route_predict(job->router->prompt_model, prompt, strlen(prompt), &prediction) || prediction.abstained)
        return;
    job->features.has_prompt_score = 1;
    job->features.prompt_score = prediction.score;
}

static minim_status router_run(router_job *job, minim_error *error) {
    minim_router_request *request = &job->request;
    for (;;) {
        minim_status status = router_decide(job);
        if (status != MINIM_OK) return router_fail(error, status, "minim_router_ask: no decision");
        if (job->decision.action == MINIM_ROUTE_ANSWER) {
            status = router_conclude(job, error);
            if (!job->race || status != MINIM_OK) return status;
            race_stop(job); /* the loser is paid for, too */
            return router_decide(job);
        }
        if (job->decision.action == MINIM_ROUTE_FAIL) return router_nobody(job, error);
        if (job->decision.action == MINIM_ROUTE_CHECK) {
            status = verify_answer(job, error);
            if (status != MINIM_OK) return status;
            continue;
        }
        minim_route_decision asked = job->decision;
        if (asked.span_tokens) {
            status = hybrid_ask_span(job, asked.span_tokens, error);
            if (status != MINIM_OK) return status;
            continue;
        }
        if (asked.route == MINIM_ROUTE_REMOTE) race_clear(job);
        if (asked.route == MINIM_ROUTE_REMOTE && !job->race) {
            book_reserve(job, request);
            if (job->state.over_budget) continue;
        }
        status = router_ask_side(job, request, &asked, error);
        if (status != MINIM_OK) return status;
    }
}

/* After a request that came to nothing: what was paid until then is booked as well. */
static void router_account(router_job *job) {
    job->state.local_usage = job->sides[MINIM_ROUTE_LOCAL].reply.usage;
    job->state.remote_usage = job->sides[MINIM_ROUTE_REMOTE].reply.usage;
    if (job->sides[MINIM_ROUTE_LOCAL].reply.size) job->answer.local = &job->sides[MINIM_ROUTE_LOCAL].reply;
    if (job->sides[MINIM_ROUTE_REMOTE].reply.size) job->answer.remote = &job->sides[MINIM_ROUTE_REMOTE].reply;
    minim_route_decide(&job->policy, &job->features, &job->state, &job->decision);
}

minim_status minim_router_ask(minim_router *router, const minim_router_request *request_in,
                              const minim_router_callbacks *callbacks, minim_router_answer **answer,
                              minim_error *error) {
    minim_router_request request;
    minim_router_request_default(&request);
    if (!router || !answer || router_copy_sized(&request, sizeof request, request_in) || !request.messages ||
        !request.n_messages || (request.n_stop && !request.stop)) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_router_ask: router, request, messages or answer is NULL");
    }
    for (size_t i = 0; i < request.n_messages; i++) {
        if (request.messages[i].role && request.messages[i].content) continue;
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_router_ask: message %zu has no role or content", i);
    }
    router_job *job = calloc(1, sizeof *job);
    if (!job) return router_fail_memory(error, "the answer");
    minim_router_callbacks_default(&job->callbacks);
    if (callbacks && router_copy_sized(&job->callbacks, sizeof job->callbacks, callbacks)) {
        free(job);
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_router_ask: callbacks have no size");
    }
    job->router = router;
    job->started = router_now();
    job->decision.size = sizeof job->decision;
    job->features.size = sizeof job->features;
    job->state.size = sizeof job->state;
    job->sides[0].text.limit = job->sides[1].text.limit = ROUTER_MAX_TEXT;
    /* What the router says to its backends is not for the caller to say. */
    request.prefix = request.sample_pattern = NULL;
    request.session = NULL;
    request.top_logprobs = request.samples = 0;
    request.count = router->local.count;
    request.count_user = router->local.state;
    job->request = request;
    job->features.complexity = minim_route_complexity(request.messages, request.n_messages);
    job->state.remote_latency = router->remote_latency > 0 ? router->remote_latency : router->config.remote_latency;
    job->state.is_private = private_request(router->rules, &request);
    minim_router_config_policy(&router->config, router->factory != NULL, router->calibration != NULL, &job->policy);
    atomic_store(&router->cancelled, 0);
    router_score_prompt(job, &request);
    book_begin(job, &request);
    minim_status status = router_run(job, error);
    race_stop(job);
    hybrid_end(job);
    if (status != MINIM_OK) router_account(job);
    book_end(job, &request, status);
    if (job->ledger_error[0]) job->answer.ledger_error = job->ledger_error;
    if (status != MINIM_OK) {
        minim_router_answer_free(&job->answer);
        return status;
    }
    job->answer.cache = job->cache;
    *answer = &job->answer;
    return MINIM_OK;
}
