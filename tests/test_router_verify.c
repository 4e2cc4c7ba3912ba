/* test_router_verify.c: the remote as a judge of the local answer: when it is asked, what its verdict is worth, what
 * that costs, and that nothing private is shown to it. Both sides are scripts; the last tests have a server. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../router/minim_router.h"
#include "remote_test.h"

#define WHY(reason) MINIM_ROUTE_REASON_##reason

/* ---- decisions --------------------------------------------------------------------------------------------------- */

typedef struct world {
    minim_route_policy policy;
    minim_route_features features;
    minim_route_state state;
} world;

/* An answer of 100 tokens to a prompt of 100: R = 0.1 + 1, V = 0.232 + 0.01 dollars. */
static world world_make(void) {
    world w = {.policy = {.size = sizeof w.policy,
                          .method = MINIM_ROUTE_VERIFY,
                          .threshold = 0.6,
                          .remote_available = 1,
                          .input_cost_per_token = 0.001,
                          .output_cost_per_token = 0.01,
                          .error_cost = 4,
                          .verify_accuracy = 0.9},
               .features = {.size = sizeof w.features, .n_tokens = 100, .n_bytes = 300},
               .state = {.size = sizeof w.state,
                         .local = MINIM_ROUTE_ANSWERED,
                         .local_usage = {.prompt_tokens = 100, .completion_tokens = 100}}};
    return w;
}

/* Decides, and decides again from the line that a ledger would keep. */
static minim_route_decision decide(const world *w) {
    minim_route_decision d = {.size = sizeof d}, again = {.size = sizeof again};
    world read;
    char line[4096];
    assert_int_equal(minim_route_decide(&w->policy, &w->features, &w->state, &d), MINIM_OK);
    assert_true(minim_route_inputs(&w->policy, &w->features, &w->state, line, sizeof line) < sizeof line);
    assert_int_equal(minim_route_inputs_read(line, &read.policy, &read.features, &read.state, NULL), MINIM_OK);
    assert_int_equal(minim_route_decide(&read.policy, &read.features, &read.state, &again), MINIM_OK);
    if (memcmp(&d, &again, sizeof d)) fail_msg("a replay differs: %s", line);
    return d;
}

static void a_verdict_is_asked_for_and_then_is_the_score(void **state) {
    (void)state;
    world w = world_make();
    minim_route_decision d = decide(&w);
    assert_int_equal(d.action, MINIM_ROUTE_CHECK);
    assert_int_equal(d.reason, WHY(VERIFY));
    assert_int_equal(d.has_score, 0); /* there is none before the verdict */
    w.state.verify = MINIM_ROUTE_ANSWERED;
    w.features.has_verdict = 1;
    w.features.verdict = 0.6;
    d = decide(&w);
    assert_int_equal(d.action, MINIM_ROUTE_ANSWER);
    assert_int_equal(d.route, MINIM_ROUTE_LOCAL);
    assert_true(d.has_score && d.score == 0.6);
    assert_int_equal(d.calibrated, 0);
    w.features.verdict = 0.59;
    d = decide(&w);
    assert_int_equal(d.action, MINIM_ROUTE_ASK);
    assert_int_equal(d.route, MINIM_ROUTE_REMOTE);
    assert_int_equal(d.reason, WHY(SCORE_LOW));
    w.policy.threshold_semantics = MINIM_ROUTE_THRESHOLD_CALIBRATED;
    w.features.verdict = 0.99; /* a raw verdict reaches no calibrated bar */
    assert_int_equal(decide(&w).reason, WHY(UNCALIBRATED));
    w.features.has_confidence = 1;
    w.features.confidence = 0.61;
    d = decide(&w);
    assert_int_equal(d.reason, WHY(SCORE_PASSED));
    assert_int_equal(d.calibrated, 1);
}

static void nothing_is_verified_that_is_decided_already(void **state) {
    (void)state;
    world w = world_make();
    w.features.n_bytes = 0;
    assert_int_equal(decide(&w).reason, WHY(LOCAL_EMPTY));
    w = world_make();
    w.features.evidence_failed = 1;
    assert_int_equal(decide(&w).reason, WHY(EVIDENCE));
    w = world_make();
    w.state.local = MINIM_ROUTE_FAILED;
    assert_int_equal(decide(&w).reason, WHY(LOCAL_FAILED));
    w = world_make();
    w.state.is_private = MINIM_PRIVATE_EMAIL;
    assert_int_equal(decide(&w).action, MINIM_ROUTE_ANSWER);
    assert_int_equal(decide(&w).reason, WHY(PRIVATE));
    w = world_make();
    w.state.over_budget = 1;
    assert_int_equal(decide(&w).reason, WHY(OVER_BUDGET));
    w = world_make();
    w.policy.mode = MINIM_ROUTE_MODE_LOCAL;
    assert_int_equal(decide(&w).action, MINIM_ROUTE_ANSWER);
    w = world_make();
    w.policy.remote_available = 0;
    assert_int_equal(decide(&w).reason, WHY(NO_REMOTE));
    w = world_make();
    w.state.verify = MINIM_ROUTE_FAILED;
    minim_route_decision d = decide(&w);
    assert_int_equal(d.action, MINIM_ROUTE_ASK);
    assert_int_equal(d.route, MINIM_ROUTE_REMOTE);
    assert_int_equal(d.reason, WHY(VERIFY_FAILED));
}

static world world_cost(double confidence) {
    world w = world_make();
    w.policy.method = MINIM_ROUTE_AVG_LOGPROB;
    w.policy.threshold_semantics = MINIM_ROUTE_THRESHOLD_COST;
    w.features.has_confidence = 1;
    w.features.confidence = confidence;
    return w;
}

static void the_cheapest_of_three_actions_is_taken(void **state) {
    (void)state;
    world w = world_cost(0.75);
    minim_route_decision d = decide(&w);
    /* By hand: accept 0.25 * 4; remote 1.1; verify 0.242 + 0.25 * 0.1 * 4 + (0.75 * 0.1 + 0.25 * 0.9) * 1.1 = 0.672. */
    assert_true(fabs(d.accept_cost - 1.0) < 1e-12 && fabs(d.remote_cost - 1.1) < 1e-12);
    assert_true(fabs(d.verify_cost - 0.672) < 1e-12);
    assert_int_equal(d.action, MINIM_ROUTE_CHECK);
    char line[512];
    minim_route_describe(&d, line, sizeof line);
    assert_has(line, "asking in one token the remote model: whether the local answer is right");
    assert_has(line, "expected cost: accept $1, verify $0.672, remote $1.1");
    w = world_cost(0.99);
    assert_int_equal(decide(&w).action, MINIM_ROUTE_ANSWER);
    assert_int_equal(decide(&w).reason, WHY(COST));
    w = world_cost(0.05);
    assert_int_equal(decide(&w).action, MINIM_ROUTE_ASK);
    assert_int_equal(decide(&w).route, MINIM_ROUTE_REMOTE);
    w = world_cost(0.75);
    w.policy.verify_accuracy = 0; /* nothing is verified */
    assert_int_equal(decide(&w).action, MINIM_ROUTE_ANSWER);
    w = world_cost(0.75);
    w.features.has_confidence = 0; /* nothing to weigh */
    assert_int_equal(decide(&w).reason, WHY(UNCALIBRATED));
    for (int i = 0; i <= 100; i++) {
        for (int e = 1; e < 400; e *= 3) {
            w = world_cost(i / 100.0);
            w.policy.error_cost = e / 10.0;
            d = decide(&w);
            double least = fmin(d.accept_cost, fmin(d.verify_cost, d.remote_cost));
            double taken = d.action == MINIM_ROUTE_ANSWER  ? d.accept_cost
                           : d.action == MINIM_ROUTE_CHECK ? d.verify_cost
                                                           : d.remote_cost;
            assert_true(taken == least);
        }
    }
}

static void a_verdict_moves_the_probability_by_bayes(void **state) {
    (void)state;
    world w = world_cost(0.75);
    w.state.verify = MINIM_ROUTE_ANSWERED;
    w.features.has_verdict = 1;
    w.features.verdict = 0.8;
    minim_route_decision d = decide(&w);
    assert_true(fabs(d.confidence - 0.75 * 0.9 / (0.75 * 0.9 + 0.25 * 0.1)) < 1e-12);
    assert_true(isinf(d.verify_cost)); /* once is enough */
    assert_int_equal(d.action, MINIM_ROUTE_ANSWER);
    w.features.verdict = 0.2;
    d = decide(&w);
    assert_true(fabs(d.confidence - 0.75 * 0.1 / (0.75 * 0.1 + 0.25 * 0.9)) < 1e-12);
    assert_int_equal(d.route, MINIM_ROUTE_REMOTE);
    assert_int_equal(d.reason, WHY(COST));
}

static void an_error_can_be_asked_for_in_place_of_a_degraded_answer(void **state) {
    (void)state;
    world w = world_make();
    w.policy.method = MINIM_ROUTE_AVG_LOGPROB;
    w.features.sum_logprob = -1000;
    w.state.remote = MINIM_ROUTE_FAILED;
    assert_int_equal(decide(&w).degraded, 1);
    w.policy.fail_on_error = 1;
    assert_int_equal(decide(&w).action, MINIM_ROUTE_FAIL);
    w.policy.mode = MINIM_ROUTE_MODE_REMOTE;
    assert_int_equal(decide(&w).action, MINIM_ROUTE_FAIL);
}

/* ---- the router -------------------------------------------------------------------------------------------------- */

/* A remote that judges when it is asked for one token and answers otherwise. */
typedef struct scene {
    minim_router_config config;
    minim_message message;
    const char *local, *verdict; /* texts; verdict NULL: the best first tokens only */
    double yes, no;              /* probabilities of the first token; 0 = not said */
    int knows_logprobs, local_asked, checks, answers;
    minim_route_failure failure; /* of a verdict; CONFIG = cancelled */
    char asked[2048];            /* the last message that came with a check */
    minim_ledger *ledger;
    minim_router *router;
    minim_router_answer *answer;
    minim_error error;
} scene;

static minim_status scene_local(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                minim_router_reply *reply, minim_error *error) {
    scene *s = state;
    (void)request, (void)error;
    s->local_asked++;
    reply->n_logprobs = 2;
    reply->sum_logprob = 2 * log(0.7);
    reply->usage = (minim_route_usage){.prompt_tokens = 100, .completion_tokens = 100};
    return sink->on_text(sink->user, s->local, strlen(s->local)) ? MINIM_ERR_CANCELLED : MINIM_OK;
}

static minim_status scene_fail(minim_router_reply *reply, minim_route_failure failure, int http, minim_error *error) {
    reply->failure = failure;
    reply->http_status = http;
    error->status = MINIM_ERR_IO;
    snprintf(error->text, sizeof error->text, "HTTP %d", http);
    return MINIM_ERR_IO;
}

static minim_status scene_remote(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                 minim_router_reply *reply, minim_error *error) {
    scene *s = state;
    reply->attempts = 1;
    if (request->max_tokens != 1) {
        s->answers++;
        reply->usage = (minim_route_usage){.prompt_tokens = 100, .completion_tokens = 50};
        return sink->on_text(sink->user, "big", 3) ? MINIM_ERR_CANCELLED : MINIM_OK;
    }
    s->checks++;
    assert_int_equal(request->n_messages, 3);
    assert_string_equal(request->messages[1].role, "assistant");
    assert_string_equal(request->messages[1].content, s->local);
    snprintf(s->asked, sizeof s->asked, "%s", request->messages[2].content);
    if (request->top_logprobs && !s->knows_logprobs) return scene_fail(reply, MINIM_ROUTE_FAILED_REQUEST, 400, error);
    if (s->failure) return scene_fail(reply, s->failure, 503, error);
    reply->usage = (minim_route_usage){.prompt_tokens = 230, .completion_tokens = 1};
    if (request->top_logprobs && s->yes + s->no > 0) {
        reply->n_top = 3;
        reply->top[0] = (minim_router_top){" Yes", log(s->yes)};
        reply->top[1] = (minim_router_top){"NO", log(s->no)};
        reply->top[2] = (minim_router_top){"Maybe", log(0.1)};
    }
    if (!s->verdict) return scene_fail(reply, MINIM_ROUTE_FAILED_EMPTY, 200, error);
    return sink->on_text(sink->user, s->verdict, strlen(s->verdict)) ? MINIM_ERR_CANCELLED : MINIM_OK;
}

static minim_status scene_make(void *user, const minim_router_config *config, minim_router_backend *backend,
                               minim_error *error) {
    (void)config, (void)error;
    *backend = (minim_router_backend){.state = user, .chat = scene_remote};
    return MINIM_OK;
}

static scene scene_begin(const char *verdict) {
    scene s = {.message = {"user", "What is it?"}, .local = "small", .verdict = verdict};
    minim_router_config_default(&s.config);
    s.config.confidence_method = MINIM_ROUTE_VERIFY;
    s.config.input_cost_per_token = 0.001;
    s.config.output_cost_per_token = 0.01;
    strcpy(s.config.base_url, "https://unused.invalid/v1");
    return s;
}

static const minim_route_decision *scene_ask(scene *s) {
    minim_router_backend local = {.state = s, .chat = scene_local};
    minim_router_options options;
    minim_router_request request;
    minim_router_options_default(&options);
    options.config = &s->config;
    options.local = &local;
    options.remote = scene_make;
    options.remote_user = s;
    options.ledger = s->ledger;
    if (!s->router && minim_router_new(&options, &s->router, &s->error)) fail_msg("%s", s->error.text);
    minim_router_request_default(&request);
    request.messages = &s->message;
    request.n_messages = 1;
    minim_router_answer_free(s->answer);
    s->answer = NULL;
    if (minim_router_ask(s->router, &request, NULL, &s->answer, &s->error)) fail_msg("%s", s->error.text);
    return s->answer->decision;
}

static void scene_end(scene *s) {
    minim_router_answer_free(s->answer);
    minim_router_free(s->router);
}

static void a_yes_keeps_the_local_answer_and_is_paid_for(void **state) {
    (void)state;
    scene s = scene_begin("YES");
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "small");
    assert_int_equal(d->reason, WHY(SCORE_PASSED));
    assert_true(d->score == 1);
    assert_true(fabs(d->cost - (230 * 0.001 + 0.01)) < 1e-12);
    assert_int_equal(d->extra.prompt_tokens, 230);
    assert_int_equal(d->remote.prompt_tokens, 0);
    assert_null(s.answer->remote); /* it was not asked for an answer */
    assert_int_equal(s.answers, 0);
    assert_int_equal(s.checks, 2); /* the first one with logprobs, which this server refuses */
    assert_has(s.asked, "YES or NO");
    d = scene_ask(&s);
    assert_int_equal(s.checks, 3); /* it is not asked for them again */
    char line[512];
    minim_route_describe(d, line, sizeof line);
    assert_has(line, "verification tokens 230 in, 1 out");
    scene_end(&s);
}

static void a_no_sends_the_question_away_and_both_are_paid_for(void **state) {
    (void)state;
    scene s = scene_begin("no.");
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "big");
    assert_int_equal(d->reason, WHY(SCORE_LOW));
    assert_true(fabs(d->cost - (330 * 0.001 + 51 * 0.01)) < 1e-12);
    assert_int_equal(d->degraded, 0);
    scene_end(&s);
}

static void probabilities_of_the_first_token_are_the_score(void **state) {
    (void)state;
    scene s = scene_begin("NO");
    s.knows_logprobs = 1;
    s.yes = 0.54;
    s.no = 0.06;
    assert_true(fabs(scene_ask(&s)->score - 0.9) < 1e-9); /* whatever word was drawn */
    assert_int_equal(s.checks, 1);
    s.verdict = NULL; /* a first token of white space is no text, but has probabilities */
    assert_true(fabs(scene_ask(&s)->score - 0.9) < 1e-9);
    assert_string_equal(s.answer->text, "small");
    scene_end(&s);
}

static void words_are_read_however_they_are_cut(void **state) {
    (void)state;
    static const struct {
        const char *said;
        int verdict; /* -1 = none */
    } rows[] = {{"Y", 1}, {"ye", 1}, {" Yes!", 1}, {"**YES**", 1},    {"N", 0},  {"No, it", 0},
                {"", -1}, {"?", -1}, {"Nope", -1}, {"Yesterday", -1}, {"1", -1}, {"Maybe", -1}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        scene s = scene_begin(rows[i].said);
        const minim_route_decision *d = scene_ask(&s);
        if (rows[i].verdict < 0 ? d->reason != WHY(VERIFY_FAILED) || d->route != MINIM_ROUTE_REMOTE
                                : !d->has_score || (int)d->score != rows[i].verdict) {
            fail_msg("\"%s\": %s, score %g", rows[i].said, minim_route_reason_name(d->reason), d->score);
        }
        scene_end(&s);
    }
}

static void a_server_that_is_down_is_not_asked_for_an_answer_too(void **state) {
    (void)state;
    scene s = scene_begin("YES");
    s.knows_logprobs = 1;
    s.failure = MINIM_ROUTE_FAILED_SERVER;
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "small");
    assert_int_equal(d->degraded, 1);
    assert_has(d->degraded_reason, "HTTP 503");
    assert_int_equal(s.answers, 0);
    assert_int_equal(s.answer->remote->failure, MINIM_ROUTE_FAILED_SERVER);
    s.failure = MINIM_ROUTE_FAILED_PROTOCOL; /* it is there, and no judge */
    d = scene_ask(&s);
    assert_string_equal(s.answer->text, "big");
    assert_int_equal(d->reason, WHY(VERIFY_FAILED));
    scene_end(&s);
}

static void no_judge_sees_what_is_private(void **state) {
    (void)state;
    scene s = scene_begin("YES");
    s.message.content = "Write to alice@example.com";
    const minim_route_decision *d = scene_ask(&s);
    assert_int_equal(d->reason, WHY(PRIVATE));
    assert_int_equal(s.checks + s.answers, 0);
    /* Nor an answer that has become private: the question itself may go. */
    s.message.content = "What is it?";
    s.local = "call +44 20 7946 0958";
    d = scene_ask(&s);
    assert_int_equal(d->reason, WHY(VERIFY_FAILED));
    assert_int_equal(s.checks, 0);
    assert_int_equal(s.answers, 1);
    scene_end(&s);
    s = scene_begin("YES");
    s.config.mode = MINIM_ROUTE_MODE_LOCAL;
    assert_int_equal(scene_ask(&s)->reason, WHY(LOCAL_ONLY));
    assert_int_equal(s.checks + s.answers, 0);
    scene_end(&s);
}

static void settings_that_do_not_go_together_are_refused(void **state) {
    (void)state;
    static const struct {
        minim_route_method method;
        minim_route_plan plan;
        minim_route_threshold semantics;
        int hold;
        double error_cost, price;
        const char *says;
    } rows[] = {{MINIM_ROUTE_VERIFY, MINIM_ROUTE_PLAN_RACE, 0, 0, 0, 0, "race"},
                {MINIM_ROUTE_SELF_CONSISTENCY, MINIM_ROUTE_PLAN_HYBRID, 0, 0, 0, 0, "hybrid"},
                {MINIM_ROUTE_SELF_CONSISTENCY, MINIM_ROUTE_PLAN_CASCADE, 0, 4, 0, 0, "hold_tokens"},
                {MINIM_ROUTE_MARGIN, MINIM_ROUTE_PLAN_CASCADE, MINIM_ROUTE_THRESHOLD_COST, 0, 0, 1e-6, "error_cost"},
                {MINIM_ROUTE_MARGIN, MINIM_ROUTE_PLAN_CASCADE, MINIM_ROUTE_THRESHOLD_COST, 0, 1, -1, "error_cost"}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        scene s = scene_begin("YES");
        minim_router_backend local = {.state = &s, .chat = scene_local};
        minim_router_options options;
        minim_router_options_default(&options);
        s.config.confidence_method = rows[i].method;
        s.config.plan = rows[i].plan;
        s.config.threshold_semantics = rows[i].semantics;
        s.config.hold_tokens = rows[i].hold;
        s.config.error_cost = rows[i].error_cost;
        s.config.input_cost_per_token = rows[i].price;
        options.config = &s.config;
        options.local = &local;
        assert_int_equal(minim_router_new(&options, &s.router, &s.error), MINIM_ERR_ARGUMENT);
        assert_has(s.error.text, rows[i].says);
    }
}

#ifdef MINIM_WITH_LEDGER

/* Money is set aside for the verdict and then for the answer, in one line of the ledger. */
static void verdicts_keep_to_the_budget(void **state) {
    (void)state;
    static const struct {
        double budget;
        int checks, answers;
        minim_route_reason reason;
    } rows[] = {{0.01, 0, 0, WHY(OVER_BUDGET)}, /* not even a verdict */
                {0.5, 1, 0, WHY(OVER_BUDGET)},  /* a verdict, which says no, and then no answer */
                {10, 1, 1, WHY(SCORE_LOW)}};
    char path[] = "/tmp/minim-verify-XXXXXX", command[128];
    assert_non_null(mkdtemp(path));
    for (size_t i = 0; i < COUNT(rows); i++) {
        scene s = scene_begin("NO");
        minim_ledger *ledger = NULL;
        minim_ledger_day *days = NULL;
        size_t n_days = 0;
        snprintf(command, sizeof command, "%s/%zu.db", path, i);
        assert_int_equal(minim_ledger_open(command, &ledger, &s.error), MINIM_OK);
        s.knows_logprobs = 1;
        s.config.max_budget = rows[i].budget;
        s.ledger = ledger;
        const minim_route_decision *d = scene_ask(&s);
        assert_int_equal(d->reason, rows[i].reason);
        assert_int_equal(s.checks, rows[i].checks);
        assert_int_equal(s.answers, rows[i].answers);
        assert_int_equal(d->degraded, 0);
        double paid = rows[i].checks * (230 * 0.001 + 0.01) + rows[i].answers * (100 * 0.001 + 50 * 0.01);
        assert_true(fabs(d->cost - paid) < 1e-12);
        assert_int_equal(minim_ledger_report(ledger, 0, &days, &n_days, &s.error), MINIM_OK);
        assert_true(n_days == 2 && fabs(days[1].cost - paid) < 1e-9);
        assert_int_equal(days[1].remote_tokens, (uint64_t)(rows[i].checks + 50 * rows[i].answers));
        assert_int_equal(days[1].requests, 1);
        minim_ledger_days_free(days);
        scene_end(&s);
        minim_ledger_close(ledger);
    }
    snprintf(command, sizeof command, "rm -rf %s", path);
    assert_int_equal(system(command), 0);
}

#endif

/* ---- a server ---------------------------------------------------------------------------------------------------- */

static const openai_reply verdict_stream = {
    .headers = {EVENT_STREAM},
    .pieces = {
        "data: {\"choices\":[{\"delta\":{\"content\":\"NO\"},\"logprobs\":{\"content\":[{\"token\":\"NO\","
        "\"logprob\":-1.2,\"top_logprobs\":[{\"token\":\"YES\",\"logprob\":-0.5108},{\"token\":\"NO\","
        "\"logprob\":-1.6094},{\"token\":7},{\"logprob\":-2}]}]}}]}\n\n",
        FINISH("length") "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":60,\"completion_tokens\":1}}\n\n" DONE}};

static void a_verdict_comes_over_the_wire(void **state) {
    (void)state;
    openai_server *server = serve(&verdict_stream, 1);
    question q = ask_about(server);
    q.config.confidence_method = MINIM_ROUTE_VERIFY;
    strcpy(q.config.provider, "{\"data_collection\":\"deny\"}");
    ask(&q);
    assert_int_equal(q.status, MINIM_OK);
    assert_string_equal(q.answer->text, "small");
    assert_true(fabs(q.answer->decision->score - 0.75) < 1e-3); /* 0.6 of 0.8 */
    assert_int_equal(q.answer->decision->extra.prompt_tokens, 60);
    const char *body = openai_server_body(server);
    assert_has(body, "\"max_tokens\":1,");
    assert_has(body, "\"logprobs\":true");
    assert_has(body, "\"top_logprobs\":5");
    assert_has(body, "{\"role\":\"assistant\",\"content\":\"small\"}");
    assert_has(body, "\"provider\":{\"data_collection\":\"deny\"}");
    end(&q);
    openai_server_stop(server);
}

static void a_server_without_logprobs_is_asked_again_without(void **state) {
    (void)state;
    static const openai_reply replies[] = {
        {.status = 400, .headers = {JSON_BODY}, .pieces = {"{\"error\":{\"message\":\"logprobs is not supported\"}}"}},
        {.headers = {EVENT_STREAM}, .pieces = {CHUNK("NO") FINISH("length") DONE}},
        {.headers = {EVENT_STREAM}, .pieces = {CHUNK("big") FINISH("stop") USAGE DONE}}};
    openai_server *server = serve(replies, 3);
    question q = ask_about(server);
    q.config.confidence_method = MINIM_ROUTE_VERIFY;
    ask(&q);
    assert_remote(&q, "big");
    assert_int_equal(openai_server_requests(server), 3);
    assert_lacks(openai_server_body(server), "logprobs");
    assert_int_equal(q.answer->decision->extra.estimated, 1); /* the verdict came without usage */
    char headers[512];
    assert_true(minim_router_answer_headers(q.answer, headers, sizeof headers) < sizeof headers);
    assert_has(headers, "x-minim-route: remote\r\n");
    assert_has(headers, "x-minim-reason: score_low\r\n");
    assert_has(headers, "x-minim-confidence: \r\n");
    assert_has(headers, "x-minim-attempted-retries: 0\r\n");
    assert_has(headers, "x-minim-attempted-fallbacks: 0\r\n");
    assert_has(headers, "x-minim-cache: off\r\n");
    assert_has(headers, "x-minim-overhead-duration-ms: ");
    assert_has(headers, "x-minim-response-cost: \r\n"); /* no prices */
    end(&q);
    openai_server_stop(server);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_verdict_is_asked_for_and_then_is_the_score),
        cmocka_unit_test(nothing_is_verified_that_is_decided_already),
        cmocka_unit_test(the_cheapest_of_three_actions_is_taken),
        cmocka_unit_test(a_verdict_moves_the_probability_by_bayes),
        cmocka_unit_test(an_error_can_be_asked_for_in_place_of_a_degraded_answer),
        cmocka_unit_test(a_yes_keeps_the_local_answer_and_is_paid_for),
        cmocka_unit_test(a_no_sends_the_question_away_and_both_are_paid_for),
        cmocka_unit_test(probabilities_of_the_first_token_are_the_score),
        cmocka_unit_test(words_are_read_however_they_are_cut),
        cmocka_unit_test(a_server_that_is_down_is_not_asked_for_an_answer_too),
        cmocka_unit_test(no_judge_sees_what_is_private),
        cmocka_unit_test(settings_that_do_not_go_together_are_refused),
#ifdef MINIM_WITH_LEDGER
        cmocka_unit_test(verdicts_keep_to_the_budget),
#endif
        cmocka_unit_test(a_verdict_comes_over_the_wire),
        cmocka_unit_test(a_server_without_logprobs_is_asked_again_without),
    };
    return cmocka_run_group_tests(tests, remote_clear_environment, NULL);
}
