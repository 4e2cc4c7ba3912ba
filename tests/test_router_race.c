/* test_router_race.c: gates, hand-overs, races and rules. The remote is a script with pauses; the local model is one,
 * too, or the built-in model. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../router/support.h"
#include "router_test.h"

/* ---- the gate, as a table --------------------------------------------------------------------------------------- */

enum {
    WAIT = MINIM_ROUTE_STEP_WAIT,
    SHOW = MINIM_ROUTE_STEP_SHOW,
    OPEN = MINIM_ROUTE_STEP_OPEN,
    HAND_OVER = MINIM_ROUTE_STEP_HAND_OVER
};
#define CASCADE     MINIM_ROUTE_PLAN_CASCADE
#define RACE        MINIM_ROUTE_PLAN_RACE
#define CONTEXT     MINIM_ROUTE_PLAN_CONTEXT
#define WHY(reason) MINIM_ROUTE_REASON_##reason

static const struct watch_row {
    int plan, hold;
    unsigned tokens;
    double score, last_score; /* of all tokens, of the last 4 */
    double seconds;
    int shown, may_ask, open, bytes;
    double complexity;
    int step, reason;
} watch_table[] = {
    /* a cascade that holds its answer to the end */
    {CASCADE, 0, 9, 0.1, 0.1, 9, 0, 1, 0, 0, 1, WAIT, 0},
    /* one that holds three tokens */
    {CASCADE, 3, 2, 0.1, 0.1, 9, 0, 1, 0, 0, 1, WAIT, 0},
    {CASCADE, 3, 3, 0.6, 0.6, 0, 0, 1, 0, 0, 0, SHOW, WHY(GATE_PASSED)},
    {CASCADE, 3, 3, 0.4, 0.4, 0, 0, 1, 0, 0, 0, HAND_OVER, WHY(GATE_LOW)},
    {CASCADE, 3, 3, 0.4, 0.4, 0, 0, 0, 0, 0, 0, WAIT, 0}, /* to whom? */
    {CASCADE, 3, 9, 0.6, 0.3, 0, 1, 1, 0, 0, 0, WAIT, 0},
    {CASCADE, 3, 9, 0.6, 0.1, 0, 1, 1, 0, 0, 0, HAND_OVER, WHY(COLLAPSED)},
    {CASCADE, 3, 3, 0.6, 0.1, 0, 1, 1, 0, 0, 0, WAIT, 0}, /* fewer than are watched */
    {CASCADE, 3, 9, 0.6, 0.1, 0, 1, 0, 0, 0, 0, WAIT, 0},
    /* a race: nothing yet, the hedge, the gate by tokens, the gate by time */
    {RACE, 8, 0, 0, 0, 0.05, 0, 1, 0, 0, 0, WAIT, 0},
    {RACE, 8, 0, 0, 0, 0.15, 0, 1, 0, 0, 0, WAIT, 0},
    {RACE, 8, 0, 0, 0, 0.25, 0, 1, 0, 0, 0, OPEN, WHY(RACE)},
    {RACE, 8, 0, 0, 0, 0.25, 0, 0, 0, 0, 0, WAIT, 0},
    {RACE, 8, 7, 0.9, 0.9, 0.05, 0, 1, 0, 0, 0, WAIT, 0},
    {RACE, 8, 8, 0.9, 0.9, 0.05, 0, 1, 0, 0, 0, SHOW, WHY(GATE_PASSED)},
    {RACE, 8, 8, 0.1, 0.1, 0.05, 0, 1, 0, 0, 0, OPEN, WHY(GATE_LOW)},
    {RACE, 8, 1, 0.9, 0.9, 0.1, 0, 1, 0, 0, 0, SHOW, WHY(GATE_PASSED)},
    {RACE, 8, 1, 0.1, 0.1, 0.1, 0, 1, 0, 0, 0, OPEN, WHY(GATE_LOW)},
    {RACE, 8, 8, 0.1, 0.1, 0.2, 0, 1, 1, 0, 0, WAIT, 0},
    {RACE, 8, 9, 0.9, 0.9, 0.2, 0, 1, 1, 0, 0, SHOW, WHY(GATE_PASSED)},
    {RACE, 8, 9, 0.1, 0.1, 0.2, 0, 1, 1, 1, 0, HAND_OVER, WHY(RACE_LOST)},
    {RACE, 8, 0, 0, 0, 0, 0, 1, 0, 0, 0.8, OPEN, WHY(COMPLEXITY)},
    {RACE, 8, 9, 0.9, 0.1, 0, 1, 1, 0, 0, 0, HAND_OVER, WHY(COLLAPSED)},
    {CONTEXT, 3, 9, 0.1, 0.1, 9, 0, 1, 0, 0, 1, WAIT, 0},
};

static void the_table_of_the_gate_holds(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(watch_table); i++) {
        const struct watch_row *row = &watch_table[i];
        minim_route_policy policy = {.size = sizeof policy,
                                     .plan = (minim_route_plan)row->plan,
                                     .hold_tokens = row->hold,
                                     .gate_threshold = 0.5,
                                     .handover_tokens = 4,
                                     .handover_threshold = 0.2,
                                     .gate_seconds = 0.1,
                                     .hedge_seconds = 0.25,
                                     .complexity_threshold = 0.7};
        minim_route_progress progress = {.size = sizeof progress,
                                         .n_tokens = row->tokens,
                                         .sum_logprob = row->tokens ? row->tokens * log(row->score) : 0,
                                         .last_tokens = row->tokens < 4 ? row->tokens : 4,
                                         .seconds = row->seconds,
                                         .shown = row->shown,
                                         .may_ask = row->may_ask,
                                         .remote_open = row->open,
                                         .remote_bytes = row->bytes,
                                         .complexity = row->complexity};
        if (row->tokens) progress.last_logprob = (double)progress.last_tokens * log(row->last_score);
        minim_route_step step;
        minim_route_reason reason;
        assert_int_equal(minim_route_watch(&policy, &progress, &step, &reason), MINIM_OK);
        if ((int)step != row->step || (step != MINIM_ROUTE_STEP_WAIT && (int)reason != row->reason)) {
            fail_msg("row %zu: step %d, %s", i, step, minim_route_reason_name(reason));
        }
        policy.mode = MINIM_ROUTE_MODE_LOCAL;
        assert_int_equal(minim_route_watch(&policy, &progress, &step, &reason), MINIM_OK);
        assert_int_equal(step, MINIM_ROUTE_STEP_WAIT);
        assert_int_equal(minim_route_watch(&policy, NULL, &step, &reason), MINIM_ERR_ARGUMENT);
    }
}

/* ---- two scripts ------------------------------------------------------------------------------------------------ */

/* Says its pieces, a token each. */
typedef struct script {
    const char *pieces[24];
    double logprobs[24];
    int pause_ms, first_ms; /* before each piece, before the first one */
    const char *failure;
    atomic_int asked, said, stopped;
} script;

static int script_sleep(const minim_router_sink *sink, int ms) {
    for (int left = ms; left > 0; left -= 5) {
        usleep((unsigned)(left < 5 ? left : 5) * 1000);
        if (sink->on_progress(sink->user, 0)) return 1;
    }
    return 0;
}

static minim_status script_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                minim_router_reply *reply, minim_error *error) {
    script *s = state;
    (void)request;
    atomic_fetch_add(&s->asked, 1);
    reply->attempts = 1;
    reply->usage.prompt_tokens = 10;
    int stop = script_sleep(sink, s->first_ms);
    for (int i = 0; !stop && s->pieces[i]; i++) {
        stop = script_sleep(sink, s->pause_ms);
        if (stop) break;
        reply->n_logprobs++;
        reply->sum_logprob += s->logprobs[i];
        reply->usage.completion_tokens++;
        atomic_fetch_add(&s->said, 1);
        stop = sink->on_progress(sink->user, reply->n_logprobs) ||
               sink->on_text(sink->user, s->pieces[i], strlen(s->pieces[i]));
    }
    if (stop) {
        atomic_fetch_add(&s->stopped, 1);
        return MINIM_ERR_CANCELLED;
    }
    if (!s->failure) return MINIM_OK;
    error->status = MINIM_ERR_IO;
    snprintf(error->text, sizeof error->text, "%s", s->failure);
    return MINIM_ERR_IO;
}

static minim_status make_remote(void *user, const minim_router_config *config, minim_router_backend *backend,
                                minim_error *error) {
    (void)config, (void)error;
    *backend = (minim_router_backend){.state = user, .chat = script_chat};
    return MINIM_OK;
}

typedef struct scene {
    script local, remote;
    minim_router_backend local_backend;
    minim_router_config config;
    minim_message message;
    char shown[2048];
    size_t n_shown;
    double first_text;
    double started;
    minim_router *router;
    minim_router_answer *answer;
    minim_error error;
    minim_engine *engine; /* whose pages are counted when remote text is first shown */
    uint64_t pages;

} scene;

static int on_text(void *user, minim_route route, const char *text, size_t n) {
    scene *s = user;
    if (!s->n_shown) s->first_text = router_now() - s->started;
    if (route == MINIM_ROUTE_REMOTE && s->engine && s->pages == UINT64_MAX) {
        minim_engine_info info = {.size = sizeof info};
        assert_int_equal(minim_engine_get_info(s->engine, &info), MINIM_OK);
        s->pages = info.pages_in_use;
    }
    s->n_shown += (size_t)snprintf(s->shown + s->n_shown, sizeof s->shown - s->n_shown, "%s%.*s|",
                                   route == MINIM_ROUTE_LOCAL ? "L:" : "R:", (int)n, text);
    return 0;
}

static void on_discard(void *user, const char *reason) {
    scene *s = user;
    s->n_shown += (size_t)snprintf(s->shown + s->n_shown, sizeof s->shown - s->n_shown, "!%s!", reason);
}

static void scene_begin(scene *s, minim_route_plan plan) {
    memset(s, 0, sizeof *s);
    s->local = (script){.pieces = {"a", "b", "c", "d", "e", "f"}};
    s->remote = (script){.pieces = {"X", "Y"}};
    s->message = (minim_message){"user", "hello"};
    s->local_backend = (minim_router_backend){.state = &s->local, .chat = script_chat};
    minim_router_config_default(&s->config);
    s->config.plan = plan;
    strcpy(s->config.base_url, "https://unused.invalid/v1");
    s->config.input_cost_per_token = 0.001;
    s->config.output_cost_per_token = 0.01;
}

static void scene_scores(scene *s, double first, double rest) {
    for (int i = 0; i < 24; i++) s->local.logprobs[i] = log(i < 3 ? first : rest);
}

static minim_status scene_try(scene *s) {
    minim_router_options options;
    minim_router_options_default(&options);
    options.config = &s->config;
    options.local = &s->local_backend;
    options.remote = make_remote;
    options.remote_user = &s->remote;
    if (!s->router && minim_router_new(&options, &s->router, &s->error)) fail_msg("%s", s->error.text);
    minim_router_request request;
    minim_router_request_default(&request);
    request.messages = &s->message;
    request.n_messages = 1;
    minim_router_callbacks callbacks;
    minim_router_callbacks_default(&callbacks);
    callbacks.user = s;
    callbacks.on_text = on_text;
    callbacks.on_discard = on_discard;
    minim_router_answer_free(s->answer);
    s->answer = NULL;
    s->n_shown = 0;
    s->shown[0] = 0;
    s->started = router_now();
    return minim_router_ask(s->router, &request, &callbacks, &s->answer, &s->error);
}

static const minim_route_decision *scene_ask(scene *s) {
    if (scene_try(s) != MINIM_OK) fail_msg("%s", s->error.text);
    return s->answer->decision;
}

static void scene_end(scene *s) {
    minim_router_answer_free(s->answer);
    minim_router_free(s->router);
}

/* ---- cascades with a gate --------------------------------------------------------------------------------------- */

static void a_good_beginning_is_shown_and_then_streams(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, CASCADE);
    s.config.hold_tokens = 3;
    scene_scores(&s, 0.9, 0.4); /* the whole is below the threshold: the beginning has decided */
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.shown, "L:ab|L:c|L:d|L:e|L:f|");
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_GATE_PASSED);
    assert_int_equal(s.remote.asked, 0);
    scene_end(&s);
}

static void a_weak_beginning_is_handed_over_before_the_rest_is_made(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, CASCADE);
    s.config.hold_tokens = 3;
    scene_scores(&s, 0.2, 0.9);
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.shown, "R:X|R:Y|");
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_GATE_LOW);
    assert_int_equal(d->degraded, 0);
    assert_int_equal(s.local.said, 3);
    assert_int_equal(d->local.completion_tokens, 3);
    scene_end(&s);
}

static void an_answer_that_loses_its_way_is_handed_over_in_the_middle(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, CASCADE);
    s.config.hold_tokens = 2;
    s.config.handover_tokens = 2;
    s.config.handover_threshold = 0.1;
    scene_scores(&s, 0.9, 0.05);
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_COLLAPSED);
    assert_string_equal(s.shown, "L:a|L:b|L:c|L:d|!collapsed!R:X|R:Y|");
    assert_string_equal(s.answer->text, "XY");
    /* When nobody takes over, the local answer is made again. */
    s.remote.failure = "gone";
    s.remote.pieces[0] = NULL;
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.shown, "L:a|L:b|L:c|L:d|!collapsed!L:a|L:b|L:c|L:d|L:e|L:f|");
    assert_string_equal(s.answer->text, "abcdef");
    assert_int_equal(d->degraded, 1);
    assert_string_equal(d->degraded_reason, "gone");
    scene_end(&s);
}

/* ---- races ------------------------------------------------------------------------------------------------------ */

static void a_good_local_answer_wins_without_a_call(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, RACE);
    s.config.hold_tokens = 3;
    scene_scores(&s, 0.9, 0.9);
    const minim_route_decision *d = scene_ask(&s);
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_GATE_PASSED);
    assert_string_equal(s.answer->text, "abcdef");
    assert_int_equal(s.remote.asked, 0);
    assert_true(d->cost == 0);
    scene_end(&s);
}

static void the_gate_decides_within_a_tenth_of_a_second(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, RACE);
    s.config.hold_tokens = 100; /* never reached */
    s.config.hedge_delay = 100;
    s.local.pause_ms = 30;
    scene_scores(&s, 0.9, 0.9);
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_GATE_PASSED);
    assert_true(s.first_text >= 0.09 && s.first_text < 0.4);
    scene_scores(&s, 0.1, 0.1);
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_RACE_LOST);
    assert_true(s.first_text >= 0.09 && s.first_text < 0.5);
    scene_end(&s);
}

static void a_weak_local_answer_loses_to_the_first_word_of_the_remote(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, RACE);
    s.config.hold_tokens = 3;
    s.local.pause_ms = 20;
    s.remote.pause_ms = 10;
    scene_scores(&s, 0.1, 0.1);
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "XY");
    assert_string_equal(s.shown, "R:X|R:Y|");
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_RACE_LOST);
    assert_int_equal(s.local.stopped, 1);
    assert_in_range(s.local.said, 3, 5);
    assert_true(fabs(d->cost - 0.03) < 1e-9);
    scene_end(&s);
}

static void a_local_answer_that_is_good_in_the_end_wins_and_the_loser_is_paid(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, RACE);
    s.config.hold_tokens = 3;
    s.config.gate_threshold = 0.8;
    s.remote.first_ms = 2000;
    s.local.pause_ms = 5;
    scene_scores(&s, 0.7, 0.7); /* below the gate's bar, above the threshold */
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "abcdef");
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_SCORE_PASSED);
    assert_int_equal(d->degraded, 0);
    assert_int_equal(s.remote.stopped, 1);
    assert_true(router_now() - s.started < 1.5);
    assert_true(fabs(d->cost - 0.01) < 1e-9); /* its prompt */
    assert_non_null(s.answer->remote);
    scene_end(&s);
}

static void a_gate_that_passes_late_stops_the_remote(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, RACE);
    s.config.hold_tokens = 3;
    s.config.hedge_delay = 0; /* both at once */
    s.local.first_ms = 50;
    s.remote.first_ms = 2000;
    scene_scores(&s, 0.9, 0.9);
    const minim_route_decision *d = scene_ask(&s);
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_GATE_PASSED);
    assert_int_equal(s.remote.asked, 1);
    assert_int_equal(s.remote.stopped, 1);
    assert_true(router_now() - s.started < 1.5);
    assert_true(d->cost > 0);
    scene_end(&s);
}

/* The gate was content, and the whole answer is refused in the end: the remote that was told to stop is asked anew. */
static void a_remote_that_was_stopped_can_be_asked_again(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, RACE);
    s.config.hold_tokens = 5;
    s.config.hedge_delay = 0;
    s.config.gate_delay = 10;
    s.local.pause_ms = 5;
    s.remote.first_ms = 60;
    strcpy(s.config.evidence_pattern, "Y");
    scene_scores(&s, 0.9, 0.9);
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "XY");
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_EVIDENCE);
    assert_int_equal(d->degraded, 0);
    assert_int_equal(s.remote.asked, 2);
    assert_int_equal(s.remote.stopped, 1);
    assert_int_equal(d->extra.prompt_tokens, 10); /* the first call is paid for as well */
    assert_has(s.shown, "!evidence!R:X|R:Y|");
    scene_end(&s);
}

static void a_remote_that_fails_beside_leaves_the_local_answer(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, RACE);
    s.config.hold_tokens = 2;
    s.remote.pieces[0] = NULL;
    s.remote.failure = "line is dead";
    s.local.pause_ms = 20;
    scene_scores(&s, 0.1, 0.1);
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "abcdef");
    assert_int_equal(d->degraded, 1);
    assert_string_equal(d->degraded_reason, "line is dead");
    /* Broken off after it has won: the local answer is made again. */
    s.remote.pieces[0] = "X";
    s.remote.pieces[1] = "Y";
    s.remote.pause_ms = 60;
    d = scene_ask(&s);
    assert_string_equal(s.answer->text, "abcdef");
    assert_has(s.shown, "R:X|R:Y|!line is dead!L:a|");
    assert_int_equal(d->degraded, 1);
    scene_end(&s);
}

static void the_remote_that_is_still_silent_when_a_weak_answer_ends_is_waited_for(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, RACE);
    s.config.hold_tokens = 2;
    s.remote.first_ms = 100;
    scene_scores(&s, 0.1, 0.1);
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "XY");
    assert_lacks(s.shown, "L:");
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_SCORE_LOW);
    assert_int_equal(s.remote.asked, 1);
    scene_end(&s);
}

static void a_private_request_does_not_race(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, RACE);
    s.config.hedge_delay = 0;
    s.message.content = "call 555-123-4567";
    s.local.pause_ms = 5;
    scene_scores(&s, 0.1, 0.1);
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_PRIVATE);
    assert_int_equal(s.remote.asked, 0);
    scene_end(&s);
}

/* The real local model: its pages are back in the pool before the winner's first word is on the screen. */
static void the_losers_pages_are_back_at_once(void **state) {
    (void)state;
    scene s;
    size_t size = 0;
    minim_model *model = NULL;
    const void *data = minim_default_model(&size);
    scene_begin(&s, RACE);
    minim_engine_options options;
    minim_engine_options_default(&options);
    if (minim_model_load_memory(data, size, "built-in", NULL, &model, &s.error)) fail_msg("%s", s.error.text);
    if (minim_engine_new(model, &options, &s.engine, &s.error)) fail_msg("%s", s.error.text);
    if (minim_router_local(model, s.engine, NULL, &s.local_backend, &s.error)) fail_msg("%s", s.error.text);
    s.config.gate_threshold = 1;
    s.config.hedge_delay = 0;
    s.config.threshold = 1;
    s.message.content = "Once upon a time";
    s.pages = UINT64_MAX;
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "XY");
    assert_int_equal(d->route, MINIM_ROUTE_REMOTE);
    assert_int_equal(s.pages, 0);
    scene_end(&s);
    s.local_backend.free(s.local_backend.state);
    minim_engine_free(s.engine);
    minim_model_free(model);
}

/* ---- rules ------------------------------------------------------------------------------------------------------ */

static const char hard[] = "Prove that the algorithm in `f(x) = x*x + 3*x - 12` terminates, compare it with the one of "
                           "1974, derive its complexity step by step, and implement it in C. Why is it optimal? Which "
                           "cases fail? Explain each.";

static void complexity_grows_with_what_is_asked(void **state) {
    (void)state;
    const minim_message easy = {"user", "What is the capital of France?"}, difficult = {"user", hard};
    double low = minim_route_complexity(&easy, 1), high = minim_route_complexity(&difficult, 1);
    assert_true(low >= 0 && low < 0.2);
    assert_true(high > 0.6 && high <= 1);
    assert_true(minim_route_complexity(NULL, 0) == 0);
}

static void rules_decide_in_their_order(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int order;
        double latency; /* of the remote; the budget is 1 s */
        int reason, remote;
    } rows[] = {
        {"hello", 123, 0, WHY(SIMPLE), 0},
        {hard, 123, 0, WHY(COMPLEXITY), 1},
        {hard, 123, 0.5, WHY(COMPLEXITY), 1},
        {hard, 123, 2, WHY(LATENCY), 0},
        {hard, 132, 2, WHY(COMPLEXITY), 1},
        {hard, 12, 0, WHY(SIMPLE), 0},
        {hard, 3, 2, WHY(COMPLEXITY), 1},
        {hard, 0, 2, WHY(SIMPLE), 0},
        {"I am a@b.example", 32, 0, WHY(PRIVATE), 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        scene s;
        scene_begin(&s, CONTEXT);
        s.config.escalation_order = rows[i].order;
        s.config.latency_budget = 1;
        s.config.remote_latency = rows[i].latency;
        s.message.content = rows[i].text;
        scene_scores(&s, 0.01, 0.01); /* no matter */
        const minim_route_decision *d = scene_ask(&s);
        if ((int)d->reason != rows[i].reason || s.remote.asked != rows[i].remote || d->degraded) {
            fail_msg("row %zu: %s", i, minim_route_reason_name(d->reason));
        }
        assert_int_equal(s.local.asked, !rows[i].remote);
        scene_end(&s);
    }
}

static void only_in_cloud_never_asks_the_local_model(void **state) {
    (void)state;
    scene s;
    scene_begin(&s, CASCADE);
    s.config.mode = MINIM_ROUTE_MODE_ONLY_REMOTE;
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_ONLY_REMOTE);
    assert_string_equal(s.answer->text, "XY");
    s.message.content = "I am a@b.example";
    assert_int_equal(scene_try(&s), MINIM_ERR_IO);
    assert_has(s.error.text, "private");
    s.message.content = "hello";
    s.remote.failure = "gone";
    assert_int_equal(scene_try(&s), MINIM_ERR_IO);
    assert_string_equal(s.error.text, "the remote failed: gone");
    assert_int_equal(s.local.asked, 0);
    minim_route_mode mode;
    assert_int_equal(minim_route_mode_parse("only_in_cloud", &mode), 0);
    assert_int_equal(mode, MINIM_ROUTE_MODE_ONLY_REMOTE);
    scene_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_of_the_gate_holds),
        cmocka_unit_test(a_good_beginning_is_shown_and_then_streams),
        cmocka_unit_test(a_weak_beginning_is_handed_over_before_the_rest_is_made),
        cmocka_unit_test(an_answer_that_loses_its_way_is_handed_over_in_the_middle),
        cmocka_unit_test(a_good_local_answer_wins_without_a_call),
        cmocka_unit_test(the_gate_decides_within_a_tenth_of_a_second),
        cmocka_unit_test(a_weak_local_answer_loses_to_the_first_word_of_the_remote),
        cmocka_unit_test(a_local_answer_that_is_good_in_the_end_wins_and_the_loser_is_paid),
        cmocka_unit_test(a_gate_that_passes_late_stops_the_remote),
        cmocka_unit_test(a_remote_that_was_stopped_can_be_asked_again),
        cmocka_unit_test(a_remote_that_fails_beside_leaves_the_local_answer),
        cmocka_unit_test(the_remote_that_is_still_silent_when_a_weak_answer_ends_is_waited_for),
        cmocka_unit_test(a_private_request_does_not_race),
        cmocka_unit_test(the_losers_pages_are_back_at_once),
        cmocka_unit_test(complexity_grows_with_what_is_asked),
        cmocka_unit_test(rules_decide_in_their_order),
        cmocka_unit_test(only_in_cloud_never_asks_the_local_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
