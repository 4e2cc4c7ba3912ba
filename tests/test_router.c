/* test_router.c: who answers and why, and what is shown meanwhile. Both sides are scripts: no model, no network. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../router/minim_router.h"
#include "router_test.h"

/* ---- policies --------------------------------------------------------------------------------------------------- */

static void a_score_is_the_geometric_mean_of_the_token_probabilities(void **state) {
    (void)state;
    minim_route_features f = {.size = sizeof f, .n_tokens = 4, .n_bytes = 9, .sum_logprob = 4 * log(0.25)};
    assert_true(fabs(minim_route_score(MINIM_ROUTE_AVG_LOGPROB, &f) - 0.25) < 1e-12);
    f.n_tokens = 8;
    f.sum_logprob *= 2; /* the length does not matter */
    assert_true(fabs(minim_route_score(MINIM_ROUTE_AVG_LOGPROB, &f) - 0.25) < 1e-12);
    f.sum_logprob = 1e-9;
    assert_true(minim_route_score(MINIM_ROUTE_AVG_LOGPROB, &f) == 1);
    f.sum_logprob = (double)-INFINITY;
    assert_true(minim_route_score(MINIM_ROUTE_AVG_LOGPROB, &f) == 0);
    f.sum_logprob = (double)NAN;
    assert_true(minim_route_score(MINIM_ROUTE_AVG_LOGPROB, &f) == 0);
    f.sum_logprob = -1;
    f.n_bytes = 0; /* white space is no answer */
    assert_true(minim_route_score(MINIM_ROUTE_AVG_LOGPROB, &f) == 0);
    f.n_bytes = 1;
    f.n_tokens = 0;
    assert_true(minim_route_score(MINIM_ROUTE_AVG_LOGPROB, &f) == 0);
}

/* Shorter names for the table. */
enum {
    CASCADE = MINIM_ROUTE_MODE_CASCADE,
    ONLY_LOCAL = MINIM_ROUTE_MODE_LOCAL,
    REMOTE_FIRST = MINIM_ROUTE_MODE_REMOTE,
    NONE = MINIM_ROUTE_NOT_ASKED,
    GOOD = MINIM_ROUTE_ANSWERED,
    BAD = MINIM_ROUTE_FAILED,
    ASK = MINIM_ROUTE_ASK,
    ANSWER = MINIM_ROUTE_ANSWER,
    FAIL = MINIM_ROUTE_FAIL,
    LOCAL = MINIM_ROUTE_LOCAL,
    REMOTE = MINIM_ROUTE_REMOTE,
    HOLD = 1,
    DEGRADED = 2
};
#define WHY(reason) MINIM_ROUTE_REASON_##reason

static const struct policy_row {
    int mode, has_remote;
    int local, remote; /* outcomes so far */
    double score;      /* of the local answer; the threshold is 0.5 */
    int finish;
    int action, route, reason, flags;
} policy_table[] = {
    /* nothing leaves the machine, whatever the score */
    {ONLY_LOCAL, 0, NONE, NONE, 0, 0, ASK, LOCAL, WHY(LOCAL_ONLY), 0},
    {ONLY_LOCAL, 1, NONE, NONE, 0, 0, ASK, LOCAL, WHY(LOCAL_ONLY), 0},
    {ONLY_LOCAL, 1, GOOD, NONE, 0.1, 0, ANSWER, LOCAL, WHY(LOCAL_ONLY), 0},
    {ONLY_LOCAL, 1, GOOD, NONE, 0.1, MINIM_ROUTE_FINISH_CONTEXT, ANSWER, LOCAL, WHY(LOCAL_ONLY), 0},
    {ONLY_LOCAL, 1, BAD, NONE, 0, 0, FAIL, LOCAL, WHY(LOCAL_ONLY), 0},
    /* a cascade without a remote */
    {CASCADE, 0, NONE, NONE, 0, 0, ASK, LOCAL, WHY(NO_REMOTE), 0},
    {CASCADE, 0, GOOD, NONE, 0.1, 0, ANSWER, LOCAL, WHY(NO_REMOTE), 0},
    {CASCADE, 0, BAD, NONE, 0, 0, FAIL, LOCAL, WHY(NO_REMOTE), 0},
    /* a cascade */
    {CASCADE, 1, NONE, NONE, 0, 0, ASK, LOCAL, WHY(LOCAL_FIRST), HOLD},
    {CASCADE, 1, GOOD, NONE, 0.9, 0, ANSWER, LOCAL, WHY(SCORE_PASSED), 0},
    {CASCADE, 1, GOOD, NONE, 0.51, 0, ANSWER, LOCAL, WHY(SCORE_PASSED), 0},
    {CASCADE, 1, GOOD, NONE, 0.49, 0, ASK, REMOTE, WHY(SCORE_LOW), 0},
    {CASCADE, 1, GOOD, GOOD, 0.49, 0, ANSWER, REMOTE, WHY(SCORE_LOW), 0},
    {CASCADE, 1, GOOD, BAD, 0.49, 0, ANSWER, LOCAL, WHY(REMOTE_FAILED), DEGRADED},
    {CASCADE, 1, GOOD, NONE, 0.9, MINIM_ROUTE_FINISH_LENGTH, ANSWER, LOCAL, WHY(SCORE_PASSED), 0},
    {CASCADE, 1, GOOD, NONE, 0.9, MINIM_ROUTE_FINISH_CONTEXT, ASK, REMOTE, WHY(LOCAL_CONTEXT), 0},
    {CASCADE, 1, GOOD, GOOD, 0.9, MINIM_ROUTE_FINISH_CONTEXT, ANSWER, REMOTE, WHY(LOCAL_CONTEXT), 0},
    {CASCADE, 1, GOOD, BAD, 0.9, MINIM_ROUTE_FINISH_CONTEXT, ANSWER, LOCAL, WHY(REMOTE_FAILED), DEGRADED},
    {CASCADE, 1, GOOD, NONE, -1, 0, ASK, REMOTE, WHY(LOCAL_EMPTY), 0}, /* -1: no text */
    {CASCADE, 1, BAD, NONE, 0, 0, ASK, REMOTE, WHY(LOCAL_FAILED), 0},
    {CASCADE, 1, BAD, GOOD, 0, 0, ANSWER, REMOTE, WHY(LOCAL_FAILED), 0},
    {CASCADE, 1, BAD, BAD, 0, 0, FAIL, LOCAL, WHY(REMOTE_FAILED), DEGRADED},
    /* remote first */
    {REMOTE_FIRST, 0, NONE, NONE, 0, 0, ASK, LOCAL, WHY(NO_REMOTE), DEGRADED},
    {REMOTE_FIRST, 0, GOOD, NONE, 0.9, 0, ANSWER, LOCAL, WHY(NO_REMOTE), DEGRADED},
    {REMOTE_FIRST, 0, BAD, NONE, 0, 0, FAIL, LOCAL, WHY(NO_REMOTE), DEGRADED},
    {REMOTE_FIRST, 1, NONE, NONE, 0, 0, ASK, REMOTE, WHY(REMOTE_FIRST), 0},
    {REMOTE_FIRST, 1, NONE, GOOD, 0, 0, ANSWER, REMOTE, WHY(REMOTE_FIRST), 0},
    {REMOTE_FIRST, 1, NONE, BAD, 0, 0, ASK, LOCAL, WHY(REMOTE_FAILED), DEGRADED},
    {REMOTE_FIRST, 1, GOOD, BAD, 0.1, 0, ANSWER, LOCAL, WHY(REMOTE_FAILED), DEGRADED},
    {REMOTE_FIRST, 1, BAD, BAD, 0, 0, FAIL, LOCAL, WHY(REMOTE_FAILED), DEGRADED},
};

static void the_table_of_decisions_holds(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(policy_table); i++) {
        const struct policy_row *row = &policy_table[i];
        minim_route_policy policy = {.size = sizeof policy,
                                     .mode = (minim_route_mode)row->mode,
                                     .threshold = 0.5,
                                     .remote_available = row->has_remote};
        minim_route_state now = {.size = sizeof now,
                                 .local = (minim_route_outcome)row->local,
                                 .remote = (minim_route_outcome)row->remote,
                                 .remote_detail = "it broke"};
        minim_route_features f = {.size = sizeof f, .finish = (minim_route_finish)row->finish};
        if (row->local == GOOD) {
            f.n_tokens = 2;
            f.n_bytes = row->score >= 0 ? 5 : 0;
            f.sum_logprob = row->score > 0 ? 2 * log(row->score) : 0;
        }
        minim_route_decision d = {.size = sizeof d}, again;
        assert_int_equal(minim_route_decide(&policy, &f, &now, &d), MINIM_OK);
        if ((int)d.action != row->action || (int)d.route != row->route || (int)d.reason != row->reason ||
            d.hold != ((row->flags & HOLD) != 0) || d.degraded != ((row->flags & DEGRADED) != 0)) {
            fail_msg("row %zu: action %d route %s reason %s hold %d degraded %d", i, d.action,
                     minim_route_name(d.route), minim_route_reason_name(d.reason), d.hold, d.degraded);
        }
        assert_int_equal(d.calibrated, 0);
        assert_int_equal(d.has_score, row->local == GOOD);
        assert_true(!d.degraded || d.degraded_reason[0]);
        memset(&again, 0, sizeof again);
        again.size = sizeof again;
        assert_int_equal(minim_route_decide(&policy, &f, &now, &again), MINIM_OK);
        assert_memory_equal(&d, &again, sizeof d); /* pure */
    }
}

static void a_score_that_equals_the_threshold_is_good_enough(void **state) {
    (void)state;
    minim_route_policy policy = {.size = sizeof policy, .threshold = 1, .remote_available = 1};
    minim_route_state now = {.size = sizeof now, .local = MINIM_ROUTE_ANSWERED};
    minim_route_features f = {.size = sizeof f, .n_tokens = 1, .n_bytes = 1, .sum_logprob = 0};
    minim_route_decision d = {.size = sizeof d};
    assert_int_equal(minim_route_decide(&policy, &f, &now, &d), MINIM_OK);
    assert_int_equal(d.route, MINIM_ROUTE_LOCAL);
    policy.threshold = 0;
    f.sum_logprob = -1e9;
    assert_int_equal(minim_route_decide(&policy, &f, &now, &d), MINIM_OK);
    assert_int_equal(d.route, MINIM_ROUTE_LOCAL);
}

static void tokens_are_priced_and_unknown_prices_are_not_guessed(void **state) {
    (void)state;
    minim_route_policy policy = {.size = sizeof policy,
                                 .threshold = 0.5,
                                 .remote_available = 1,
                                 .input_cost_per_token = 1e-6,
                                 .output_cost_per_token = 4e-6};
    minim_route_state now = {.size = sizeof now,
                             .local = MINIM_ROUTE_ANSWERED,
                             .remote = MINIM_ROUTE_ANSWERED,
                             .local_usage = {.prompt_tokens = 1000, .completion_tokens = 1000},
                             .remote_usage = {.prompt_tokens = 100, .completion_tokens = 50, .estimated = 1},
                             .seconds = 1.5};
    minim_route_features f = {.size = sizeof f};
    minim_route_decision d = {.size = sizeof d};
    char line[512];
    assert_int_equal(minim_route_decide(&policy, &f, &now, &d), MINIM_OK);
    assert_int_equal(d.cost_known, 1);
    assert_true(fabs(d.cost - 300e-6) < 1e-12);
    minim_route_describe(&d, line, sizeof line);
    assert_string_equal(line,
                        "answered by the remote model: the local answer is empty; score 0.000 (avg_logprob, "
                        "uncalibrated), threshold 0.500; local tokens 1000 in, 1000 out; remote tokens 100 in, 50 "
                        "out (estimated); cost $0.0003 (estimated); 1.50 s");
    assert_int_equal(
        minim_route_describe(&d, line, 20),
        strlen("answered by the remote model: the local answer is empty; "
               "score 0.000 (avg_logprob, uncalibrated), threshold 0.500; local tokens 1000 in, 1000 out; remote "
               "tokens 100 in, 50 out (estimated); cost $0.0003 (estimated); 1.50 s"));
    assert_string_equal(line, "answered by the rem");
    policy.output_cost_per_token = -1;
    assert_int_equal(minim_route_decide(&policy, &f, &now, &d), MINIM_OK);
    assert_int_equal(d.cost_known, 0);
    minim_route_describe(&d, line, sizeof line);
    assert_has(line, "cost unknown");
}

static void decisions_refuse_structs_without_a_size(void **state) {
    (void)state;
    minim_route_policy policy = {.size = sizeof policy};
    minim_route_state now = {.size = 0};
    minim_route_features f = {.size = sizeof f};
    minim_route_decision d = {.size = sizeof d};
    assert_int_equal(minim_route_decide(&policy, &f, &now, &d), MINIM_ERR_ARGUMENT);
    now.size = sizeof now;
    assert_int_equal(minim_route_decide(NULL, &f, &now, &d), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_route_decide(&policy, &f, &now, NULL), MINIM_ERR_ARGUMENT);
    policy.mode = (minim_route_mode)77;
    assert_int_equal(minim_route_decide(&policy, &f, &now, &d), MINIM_ERR_ARGUMENT);
}

static void every_value_has_a_word(void **state) {
    (void)state;
    minim_route_mode mode;
    assert_int_equal(minim_route_mode_parse("only_on_device", &mode), 0);
    assert_string_equal(minim_route_mode_name(mode), "local");
    assert_int_equal(minim_route_mode_parse("Local", &mode), -1);
    assert_int_equal(minim_route_mode_parse(NULL, &mode), -1);
    assert_string_equal(minim_route_reason_name(MINIM_ROUTE_REASON_REMOTE_FAILED), "remote_failed");
    assert_string_equal(minim_route_failure_name(MINIM_ROUTE_FAILED_LOCAL), "local");
    assert_string_equal(minim_route_failure_name(MINIM_ROUTE_FAILED_RATE_LIMIT), "rate_limit");
    assert_string_equal(minim_route_finish_name(MINIM_ROUTE_FINISH_OTHER), "other");
    assert_string_equal(minim_route_name((minim_route)-5), "unknown");
}

/* ---- the router with scripts on both sides ---------------------------------------------------------------------- */

/* A side that says its pieces, with a log-probability each, and then maybe fails. */
typedef struct script {
    const char *pieces[8];
    double logprob;      /* of each piece */
    const char *failure; /* NULL = answers well */
    minim_route_finish finish;
    int asked, made, freed;
} script;

static minim_status script_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                minim_router_reply *reply, minim_error *error) {
    script *s = state;
    s->asked++;
    assert_true(request->n_messages > 0);
    for (int i = 0; s->pieces[i]; i++) {
        reply->n_logprobs++;
        reply->sum_logprob += s->logprob;
        if (sink->on_progress(sink->user, reply->n_logprobs) ||
            sink->on_text(sink->user, s->pieces[i], strlen(s->pieces[i]))) {
            error->status = MINIM_ERR_CANCELLED;
            return MINIM_ERR_CANCELLED;
        }
    }
    reply->finish = s->finish;
    reply->usage.prompt_tokens = 10;
    reply->usage.completion_tokens = reply->n_logprobs;
    if (!s->failure) return MINIM_OK;
    error->status = MINIM_ERR_IO;
    snprintf(error->text, sizeof error->text, "%s", s->failure);
    return MINIM_ERR_IO;
}

static void script_free(void *state) {
    ((script *)state)->freed++;
}

static minim_status script_make(void *user, const minim_router_config *config, minim_router_backend *backend,
                                minim_error *error) {
    script *s = user;
    (void)config;
    s->made++;
    if (s->made == 100) { /* "can not be made" */
        error->status = MINIM_ERR_ARGUMENT;
        snprintf(error->text, sizeof error->text, "no such place");
        return MINIM_ERR_ARGUMENT;
    }
    *backend = (minim_router_backend){.state = s, .chat = script_chat, .free = script_free};
    return MINIM_OK;
}

/* What the caller saw: "L:text" and "R:text" as pieces come, "!reason!" for a withdrawal. */
typedef struct screen {
    char text[1024];
    size_t n;
    int progress, decisions, stop_at_text, stop_at_progress, texts;
    minim_router *cancel_at_text;
    minim_route_decision last;
} screen;

static void screen_add(screen *s, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    s->n += (size_t)vsnprintf(s->text + s->n, sizeof s->text - s->n, format, arguments);
    va_end(arguments);
}

static int screen_text(void *user, minim_route route, const char *text, size_t n) {
    screen *s = user;
    screen_add(s, "%s:%.*s ", route == MINIM_ROUTE_LOCAL ? "L" : "R", (int)n, text);
    if (s->cancel_at_text) minim_router_cancel(s->cancel_at_text);
    return ++s->texts == s->stop_at_text;
}

static void screen_discard(void *user, const char *reason) {
    screen_add(user, "!%s! ", reason);
}

static void screen_decision(void *user, const minim_route_decision *decision) {
    screen *s = user;
    s->decisions++;
    s->last = *decision;
}

static int screen_progress(void *user, minim_route route, uint64_t n) {
    screen *s = user;
    (void)route, (void)n;
    return ++s->progress == s->stop_at_progress;
}

typedef struct scene {
    script local, remote;
    screen screen;
    minim_router_config config;
    minim_router *router;
    minim_router_answer *answer;
    minim_error error;
} scene;

static scene scene_make(minim_route_mode mode, double local_logprob) {
    scene s = {.local = {.pieces = {"small ", "answer"}, .logprob = local_logprob},
               .remote = {.pieces = {"big ", "answer"}}};
    minim_router_config_default(&s.config);
    s.config.mode = mode;
    strcpy(s.config.base_url, "https://unused.invalid/v1");
    return s;
}

static minim_status scene_ask(scene *s) {
    minim_router_backend local = {.state = &s->local, .chat = script_chat};
    minim_router_options options;
    minim_router_options_default(&options);
    options.config = &s->config;
    options.local = &local;
    options.remote = script_make;
    options.remote_user = &s->remote;
    if (!s->router) assert_int_equal(minim_router_new(&options, &s->router, &s->error), MINIM_OK);
    minim_message message = {"user", "question"};
    minim_router_request request;
    minim_router_request_default(&request);
    request.messages = &message;
    request.n_messages = 1;
    minim_router_callbacks callbacks;
    minim_router_callbacks_default(&callbacks);
    callbacks.user = &s->screen;
    callbacks.on_text = screen_text;
    callbacks.on_discard = screen_discard;
    callbacks.on_decision = screen_decision;
    callbacks.on_progress = screen_progress;
    return minim_router_ask(s->router, &request, &callbacks, &s->answer, &s->error);
}

static void scene_end(scene *s) {
    minim_router_answer_free(s->answer);
    minim_router_free(s->router);
    assert_int_equal(s->remote.freed, s->remote.made ? 1 : 0);
}

static void a_confident_local_answer_stands_and_the_remote_is_never_made(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.8));
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.answer->text, "small answer");
    assert_string_equal(s.screen.text, "L:small answer "); /* held, then in one piece */
    assert_int_equal(s.answer->decision->reason, MINIM_ROUTE_REASON_SCORE_PASSED);
    assert_true(fabs(s.answer->decision->score - 0.8) < 1e-9);
    assert_int_equal(s.answer->decision->degraded, 0);
    assert_non_null(s.answer->local);
    assert_null(s.answer->remote);
    assert_int_equal(s.remote.made, 0);
    assert_int_equal(s.screen.progress, 2);
    assert_int_equal(s.screen.decisions, 2);
    scene_end(&s);
}

static void below_the_bar_the_remote_answers_and_the_local_text_is_never_shown(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.2));
    s.config.input_cost_per_token = 0.001;
    s.config.output_cost_per_token = 0.01;
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.answer->text, "big answer");
    assert_string_equal(s.screen.text, "R:big  R:answer "); /* as it comes */
    assert_int_equal(s.answer->decision->route, MINIM_ROUTE_REMOTE);
    assert_int_equal(s.answer->decision->reason, MINIM_ROUTE_REASON_SCORE_LOW);
    assert_true(fabs(s.answer->decision->cost - 0.03) < 1e-9);
    assert_int_equal(s.answer->decision->local.completion_tokens, 2);
    minim_router_answer_free(s.answer);
    assert_int_equal(scene_ask(&s), MINIM_OK); /* the remote is made once */
    assert_int_equal(s.remote.made, 1);
    assert_int_equal(s.remote.asked, 2);
    scene_end(&s);
}

static void a_remote_that_fails_before_its_first_word_leaves_the_local_answer_degraded(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.2));
    s.remote = (script){.failure = "line is dead"};
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.screen.text, "L:small answer ");
    assert_string_equal(s.answer->text, "small answer");
    assert_int_equal(s.answer->decision->degraded, 1);
    assert_string_equal(s.answer->decision->degraded_reason, "line is dead");
    assert_int_equal(s.local.asked, 1);
    scene_end(&s);
}

static void a_stream_that_breaks_off_is_withdrawn_before_the_local_answer_is_shown(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.2));
    s.remote.failure = "broke off";
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.screen.text, "R:big  R:answer !broke off! L:small answer ");
    assert_string_equal(s.answer->text, "small answer");
    scene_end(&s);
}

static void a_remote_that_says_nothing_has_failed(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.2));
    s.remote = (script){.pieces = {" \n"}};
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.answer->text, "small answer");
    assert_int_equal(s.answer->remote->failure, MINIM_ROUTE_FAILED_EMPTY);
    assert_int_equal(s.answer->decision->degraded, 1);
    scene_end(&s);
}

static void a_remote_that_can_not_be_made_counts_as_failed(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.2));
    s.remote.made = 99;
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.answer->decision->degraded_reason, "no such place");
    assert_int_equal(s.answer->remote->failure, MINIM_ROUTE_FAILED_CONFIG);
    s.remote.made = 0; /* nothing to free */
    scene_end(&s);
}

static void in_local_mode_no_remote_exists_whatever_the_score(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_LOCAL, log(0.001));
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.screen.text, "L:small  L:answer "); /* nothing to wait for: text as it comes */
    assert_int_equal(s.answer->decision->reason, MINIM_ROUTE_REASON_LOCAL_ONLY);
    minim_router_answer_free(s.answer);
    s.answer = NULL;
    s.local.failure = "too long";
    assert_int_equal(scene_ask(&s), MINIM_ERR_IO);
    assert_string_equal(s.error.text, "the local model failed: too long");
    assert_int_equal(s.remote.made, 0);
    scene_end(&s);
}

static void without_a_remote_a_cascade_stays_local_and_says_so(void **state) {
    (void)state;
    char line[512];
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.2));
    s.config.base_url[0] = 0;
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.screen.text, "L:small  L:answer ");
    minim_route_describe(s.answer->decision, line, sizeof line);
    assert_has(line, "answered by the local model: no remote is configured");
    assert_has(line, "uncalibrated");
    assert_lacks(line, "DEGRADED");
    assert_int_equal(s.remote.made, 0);
    scene_end(&s);
}

static void remote_first_does_not_run_the_local_model(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_REMOTE, 0);
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.screen.text, "R:big  R:answer ");
    assert_int_equal(s.local.asked, 0);
    assert_int_equal(s.answer->decision->has_score, 0);
    assert_null(s.answer->local);
    scene_end(&s);
}

static void remote_first_falls_back_to_the_local_model_while_its_text_comes(void **state) {
    (void)state;
    char line[512];
    scene s = scene_make(MINIM_ROUTE_MODE_REMOTE, log(0.9));
    s.remote.failure = "broke off";
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.screen.text, "R:big  R:answer !broke off! L:small  L:answer ");
    minim_route_describe(s.answer->decision, line, sizeof line);
    assert_has(line, "DEGRADED: broke off");
    scene_end(&s);
}

static void a_local_model_that_fails_hands_over(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.9));
    s.local.failure = "the prompt does not fit";
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.answer->text, "big answer");
    assert_int_equal(s.answer->decision->reason, MINIM_ROUTE_REASON_LOCAL_FAILED);
    assert_int_equal(s.answer->decision->degraded, 0);
    scene_end(&s);
}

static void when_both_fail_the_error_says_what_each_said(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.9));
    s.local.failure = "too long";
    s.remote.failure = "gone";
    assert_int_equal(scene_ask(&s), MINIM_ERR_IO);
    assert_string_equal(s.error.text, "the local model failed: too long; the remote failed: gone");
    assert_null(s.answer);
    scene_end(&s);
}

static void a_local_answer_with_a_full_context_is_handed_over_and_a_long_one_is_not(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.9));
    s.local.finish = MINIM_ROUTE_FINISH_LENGTH;
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_int_equal(s.answer->decision->route, MINIM_ROUTE_LOCAL);
    assert_int_equal(s.answer->decision->truncated, 1);
    minim_router_answer_free(s.answer);
    s.local.finish = MINIM_ROUTE_FINISH_CONTEXT;
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_int_equal(s.answer->decision->route, MINIM_ROUTE_REMOTE);
    assert_int_equal(s.answer->decision->reason, MINIM_ROUTE_REASON_LOCAL_CONTEXT);
    scene_end(&s);
}

static void callbacks_stop_either_side(void **state) {
    (void)state;
    for (int at = 1; at <= 4; at++) { /* two steps of the local model, two of the remote */
        scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.2));
        s.screen.stop_at_progress = at;
        assert_int_equal(scene_ask(&s), MINIM_ERR_CANCELLED);
        assert_int_equal(s.remote.asked, at > 2);
        assert_null(s.answer);
        s.screen.stop_at_progress = 0;
        assert_int_equal(scene_ask(&s), MINIM_OK); /* the next one starts afresh */
        scene_end(&s);
    }
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.9));
    s.screen.stop_at_text = 1;
    assert_int_equal(scene_ask(&s), MINIM_ERR_CANCELLED);
    scene_end(&s);
}

static void a_router_is_cancelled_from_outside_and_starts_afresh(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_REMOTE, log(0.9));
    assert_int_equal(scene_ask(&s), MINIM_OK);
    minim_router_answer_free(s.answer);
    s.answer = NULL;
    s.screen.cancel_at_text = s.router;
    assert_int_equal(scene_ask(&s), MINIM_ERR_CANCELLED);
    assert_int_equal(s.local.asked, 0); /* cancelling is no failure: nobody else is asked */
    s.screen.cancel_at_text = NULL;
    assert_int_equal(scene_ask(&s), MINIM_OK);
    scene_end(&s);
}

static void an_answer_is_valid_utf8_whatever_a_backend_says(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_LOCAL, -1);
    s.local.pieces[0] = "\xff";
    assert_int_equal(scene_ask(&s), MINIM_OK);
    assert_string_equal(s.answer->text, U "answer");
    scene_end(&s);
}

static void an_answer_as_json_has_every_figure(void **state) {
    (void)state;
    scene s = scene_make(MINIM_ROUTE_MODE_CASCADE, log(0.25));
    s.remote.failure = "gone \"away\"";
    s.local.pieces[0] = "quote \" ";
    assert_int_equal(scene_ask(&s), MINIM_OK);
    char *text = NULL;
    assert_int_equal(minim_router_answer_json(s.answer, &text, NULL), MINIM_OK);
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "answer")), "quote \" answer");
    assert_string_equal(json_string_value(json_object_get(json, "route")), "local");
    assert_string_equal(json_string_value(json_object_get(json, "reason")), "remote_failed");
    assert_true(fabs(json_real_value(json_object_get(json, "score")) - 0.25) < 1e-9);
    assert_true(json_is_false(json_object_get(json, "calibrated")));
    assert_true(json_real_value(json_object_get(json, "threshold")) == 0.5);
    assert_true(json_is_null(json_object_get(json, "cost"))); /* the remote has no prices */
    assert_true(json_is_true(json_object_get(json, "degraded")));
    assert_string_equal(json_string_value(json_object_get(json, "degraded_reason")), "gone \"away\"");
    assert_true(json_real_value(json_object_get(json, "seconds")) >= 0);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(json, "local"), "completion_tokens")), 2);
    assert_string_equal(json_string_value(json_object_get(json_object_get(json, "remote"), "failure")), "connect");
    json_decref(json);
    minim_router_text_free(text);
    scene_end(&s);
}

static void routers_refuse_what_makes_no_sense(void **state) {
    (void)state;
    minim_error error;
    minim_router *router = NULL;
    minim_router_answer *answer = NULL;
    minim_router_options options;
    minim_router_options_default(&options);
    assert_int_equal(minim_router_new(&options, &router, &error), MINIM_ERR_ARGUMENT); /* no local model */
    assert_int_equal(minim_router_new(NULL, &router, NULL), MINIM_ERR_ARGUMENT);
    scene s = scene_make(MINIM_ROUTE_MODE_LOCAL, 0);
    minim_router_backend local = {.state = &s.local, .chat = script_chat};
    options.local = &local;
    options.config = &s.config;
    s.config.threshold = (double)NAN;
    assert_int_equal(minim_router_new(&options, &router, &error), MINIM_ERR_ARGUMENT);
    assert_has(error.text, "threshold");
    s.config.threshold = 0.5;
    s.config.mode = (minim_route_mode)9; /* must not become a cascade */
    assert_int_equal(minim_router_new(&options, &router, &error), MINIM_ERR_ARGUMENT);
    options.config = NULL;
    assert_int_equal(minim_router_new(&options, &router, &error), MINIM_OK);
    minim_router_request request;
    minim_router_request_default(&request);
    assert_int_equal(minim_router_ask(router, &request, NULL, &answer, &error), MINIM_ERR_ARGUMENT);
    minim_message message = {"user", NULL};
    request.messages = &message;
    request.n_messages = 1;
    assert_int_equal(minim_router_ask(router, &request, NULL, &answer, &error), MINIM_ERR_ARGUMENT);
    message.content = "hello";
    assert_int_equal(minim_router_ask(router, &request, NULL, &answer, &error), MINIM_OK); /* without callbacks */
    minim_router_answer_free(answer);
    minim_router_free(router);
    minim_router_free(NULL);
    minim_router_answer_free(NULL);
    minim_router_cancel(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_score_is_the_geometric_mean_of_the_token_probabilities),
        cmocka_unit_test(the_table_of_decisions_holds),
        cmocka_unit_test(a_score_that_equals_the_threshold_is_good_enough),
        cmocka_unit_test(tokens_are_priced_and_unknown_prices_are_not_guessed),
        cmocka_unit_test(decisions_refuse_structs_without_a_size),
        cmocka_unit_test(every_value_has_a_word),
        cmocka_unit_test(a_confident_local_answer_stands_and_the_remote_is_never_made),
        cmocka_unit_test(below_the_bar_the_remote_answers_and_the_local_text_is_never_shown),
        cmocka_unit_test(a_remote_that_fails_before_its_first_word_leaves_the_local_answer_degraded),
        cmocka_unit_test(a_stream_that_breaks_off_is_withdrawn_before_the_local_answer_is_shown),
        cmocka_unit_test(a_remote_that_says_nothing_has_failed),
        cmocka_unit_test(a_remote_that_can_not_be_made_counts_as_failed),
        cmocka_unit_test(in_local_mode_no_remote_exists_whatever_the_score),
        cmocka_unit_test(without_a_remote_a_cascade_stays_local_and_says_so),
        cmocka_unit_test(remote_first_does_not_run_the_local_model),
        cmocka_unit_test(remote_first_falls_back_to_the_local_model_while_its_text_comes),
        cmocka_unit_test(a_local_model_that_fails_hands_over),
        cmocka_unit_test(when_both_fail_the_error_says_what_each_said),
        cmocka_unit_test(a_local_answer_with_a_full_context_is_handed_over_and_a_long_one_is_not),
        cmocka_unit_test(callbacks_stop_either_side),
        cmocka_unit_test(a_router_is_cancelled_from_outside_and_starts_afresh),
        cmocka_unit_test(an_answer_is_valid_utf8_whatever_a_backend_says),
        cmocka_unit_test(an_answer_as_json_has_every_figure),
        cmocka_unit_test(routers_refuse_what_makes_no_sense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
