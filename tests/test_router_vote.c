/* test_router_vote.c: self-consistency: which of several samples is the answer, what its agreement is worth, and that
 * nothing of it leaves the machine. The real local model draws the samples; the remote is a script. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../router/minim_route_learn.h"
#include "../router/vote.h"
#include "router_test.h"

/* ---- what agrees ------------------------------------------------------------------------------------------------- */

static void answers_agree_in_what_they_say(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text, *agrees;
    } rows[] = {
        {NULL, "  Paris.\n", "paris"},
        {NULL, "\"PARIS\"", "paris"},
        {NULL, "**Paris**!", "paris"},
        {NULL, "New\n  York", "new york"},
        {NULL, "1,234,567", "1234567"},
        {NULL, "a, b", "a, b"},
        {NULL, "3.50", "3.50"},
        {NULL, "-7", "-7"},
        {NULL, "\xc3\x89t\xc3\xa9", "\xc3\x89t\xc3\xa9"}, /* only ASCII letters become small */
        {NULL, " .\n", ""},
        {NULL, "", ""},
        {"[0-9,]+", "3 apples and 4 pears make 1,007.", "1007"}, /* the last match */
        {"[0-9,]+", "none", ""},
        {"answer is ([a-z]+)", "the answer is no, the answer is yes indeed", "yes"}, /* the first group */
        {"^[A-D]", "because\nB\nso", "b"},
        {"^[A-D]", "AB", "a"}, /* what follows a match is not the beginning of a line */
        {"x*", "abc", ""},     /* matches of nothing end */
        {"(yes)|no", "yes no", "no"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        regex_t pattern;
        if (rows[i].pattern) assert_int_equal(vote_compile(rows[i].pattern, &pattern, NULL), MINIM_OK);
        char *agrees = vote_normalise(rows[i].text, rows[i].pattern ? &pattern : NULL);
        if (strcmp(agrees, rows[i].agrees)) fail_msg("\"%s\": \"%s\"", rows[i].text, agrees);
        free(agrees);
        if (rows[i].pattern) regfree(&pattern);
    }
}

static void the_most_common_answer_wins_and_ties_go_to_the_first(void **state) {
    (void)state;
    double agreement = -1;
    char *const clear[] = {"a", "b", "b", "c", "b"}, *const tie[] = {"x", "a", "b", "b", "a"};
    char *const nothing[] = {"", "", "c", ""}, *const silence[] = {"", ""};
    assert_int_equal(vote_count(clear, 5, &agreement), 1);
    assert_true(agreement == 0.6);
    assert_int_equal(vote_count(tie, 5, &agreement), 1);
    assert_true(agreement == 0.4);
    assert_int_equal(vote_count(nothing, 4, &agreement), 2);
    assert_true(agreement == 0.25);
    assert_int_equal(vote_count(silence, 2, &agreement), 0);
    assert_true(agreement == 0);
}

/* ---- with the built-in model ------------------------------------------------------------------------------------- */

typedef struct scene {
    minim_model *model;
    minim_engine *engine;
    minim_router_backend local;
    minim_router_config config;
    minim_message message;
    minim_router_request request;
    minim_router *router;
    minim_router_answer *answer;
    int remote_asked, texts, stop_after, progress;
    uint64_t most_pages; /* in use while it answered */
    minim_error error;
} scene;

static minim_status remote_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                minim_router_reply *reply, minim_error *error) {
    (void)request, (void)reply, (void)error;
    ((scene *)state)->remote_asked++;
    return sink->on_text(sink->user, "big", 3) ? MINIM_ERR_CANCELLED : MINIM_OK;
}

static minim_status make_remote(void *user, const minim_router_config *config, minim_router_backend *backend,
                                minim_error *error) {
    (void)config, (void)error;
    *backend = (minim_router_backend){.state = user, .chat = remote_chat};
    return MINIM_OK;
}

static int on_text(void *user, minim_route route, const char *text, size_t n) {
    (void)route, (void)text, (void)n;
    ((scene *)user)->texts++;
    return 0;
}

static uint64_t scene_pages(const scene *s) {
    minim_engine_info info = {.size = sizeof info};
    assert_int_equal(minim_engine_get_info(s->engine, &info), MINIM_OK);
    return info.pages_in_use;
}

static int on_progress(void *user, minim_route route, uint64_t n) {
    scene *s = user;
    (void)route, (void)n;
    if (scene_pages(s) > s->most_pages) s->most_pages = scene_pages(s);
    return ++s->progress == s->stop_after;
}

/* In an engine with room for so many sequences of a full context. */
static void scene_begin_with_room(scene *s, uint64_t sequences) {
    size_t size;
    minim_engine_options options;
    minim_engine_info info = {.size = sizeof info};
    memset(s, 0, sizeof *s);
    minim_engine_options_default(&options);
    options.page_size = 16;
    const void *data = minim_default_model(&size);
    assert_int_equal(minim_model_load_memory(data, size, "built-in", NULL, &s->model, &s->error), MINIM_OK);
    assert_int_equal(minim_engine_new(s->model, &options, &s->engine, &s->error), MINIM_OK);
    assert_int_equal(minim_engine_get_info(s->engine, &info), MINIM_OK);
    minim_engine_free(s->engine);
    options.kv_limit = sequences * info.page_limit * info.page_bytes;
    assert_int_equal(minim_engine_new(s->model, &options, &s->engine, &s->error), MINIM_OK);
    assert_int_equal(minim_router_local(s->model, s->engine, NULL, &s->local, &s->error), MINIM_OK);
    minim_router_config_default(&s->config);
    strcpy(s->config.base_url, "https://unused.invalid/v1");
    s->config.confidence_method = MINIM_ROUTE_SELF_CONSISTENCY;
    s->config.threshold = 0.6;
    strcpy(s->config.sample_pattern, "^[^.]*"); /* the first sentence */
    s->message = (minim_message){"user", "Once upon a time, there was a"};
    minim_router_request_default(&s->request);
    s->request.messages = &s->message;
    s->request.n_messages = 1;
    s->request.max_tokens = 12;
}

static void scene_begin(scene *s) {
    scene_begin_with_room(s, 1);
}

static minim_status scene_try(scene *s) {
    minim_router_options options;
    minim_router_callbacks callbacks;
    minim_router_options_default(&options);
    minim_router_callbacks_default(&callbacks);
    options.config = &s->config;
    options.local = &s->local;
    options.remote = make_remote;
    options.remote_user = s;
    callbacks.user = s;
    callbacks.on_text = on_text;
    callbacks.on_progress = on_progress;
    minim_router_free(s->router);
    s->router = NULL;
    if (minim_router_new(&options, &s->router, &s->error)) fail_msg("%s", s->error.text);
    minim_router_answer_free(s->answer);
    s->answer = NULL;
    s->texts = s->progress = 0;
    s->most_pages = 0;
    return minim_router_ask(s->router, &s->request, &callbacks, &s->answer, &s->error);
}

static const minim_route_decision *scene_ask(scene *s) {
    if (scene_try(s) != MINIM_OK) fail_msg("%s", s->error.text);
    return s->answer->decision;
}

static void scene_end(scene *s) {
    minim_router_answer_free(s->answer);
    minim_router_free(s->router);
    s->local.free(s->local.state);
    assert_int_equal(scene_pages(s), 0);
    minim_engine_free(s->engine);
    minim_model_free(s->model);
}

static void samples_that_agree_are_the_answer(void **state) {
    (void)state;
    scene s;
    char first[512];
    scene_begin(&s);
    s.config.sample_temperature = 0.01; /* all but greedy: everything agrees */
    const minim_route_decision *d = scene_ask(&s);
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_SCORE_PASSED);
    assert_true(d->score == 1 && d->has_score && !d->calibrated);
    assert_int_equal(d->local.completion_tokens, 5 * 12); /* all samples are counted */
    assert_int_equal(s.texts, 1);                         /* after the vote, in one piece */
    assert_int_equal(s.remote_asked, 0);
    assert_int_equal(s.answer->local->has_signals, 0);
    snprintf(first, sizeof first, "%s", s.answer->text);
    s.config.confidence_method = MINIM_ROUTE_AVG_LOGPROB; /* which is the greedy answer, from a prompt run at once */
    s.config.threshold = 0;
    scene_ask(&s);
    assert_string_equal(s.answer->text, first);
    scene_end(&s);
}

static void samples_that_differ_go_to_the_remote(void **state) {
    (void)state;
    scene s;
    scene_begin(&s);
    s.config.sample_temperature = 3;
    s.config.samples = 7;
    const minim_route_decision *d = scene_ask(&s);
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_SCORE_LOW);
    assert_string_equal(s.answer->text, "big");
    double agreement = s.answer->local->agreement;
    assert_true(agreement > 0 && agreement < 0.6 && fabs(agreement * 7 - rint(agreement * 7)) < 1e-9);
    assert_true(d->score == agreement);
    scene_ask(&s);
    assert_true(s.answer->local->agreement == agreement); /* the same seed, the same samples */
    /* A pattern that no sample has: nobody agrees. */
    strcpy(s.config.sample_pattern, "@@");
    assert_true(scene_ask(&s)->score == 0);
    scene_end(&s);
}

static void samples_of_a_private_question_stay(void **state) {
    (void)state;
    scene s;
    scene_begin(&s);
    s.config.sample_temperature = 3;
    s.request.is_private = 1;
    const minim_route_decision *d = scene_ask(&s);
    assert_int_equal(d->reason, MINIM_ROUTE_REASON_PRIVATE);
    s.request.is_private = 0;
    s.config.mode = MINIM_ROUTE_MODE_LOCAL;
    assert_int_equal(scene_ask(&s)->reason, MINIM_ROUTE_REASON_LOCAL_ONLY);
    assert_int_equal(s.remote_asked, 0);
    scene_end(&s);
}

static void a_vote_can_be_stopped_anywhere(void **state) {
    (void)state;
    scene s;
    scene_begin(&s);
    for (s.stop_after = 1; s.stop_after < 70; s.stop_after += 7) {
        minim_status status = scene_try(&s);
        if (status != MINIM_ERR_CANCELLED) {
            assert_int_equal(status, MINIM_OK);
            assert_true(s.progress < s.stop_after);
        }
        assert_int_equal(scene_pages(&s), 0);
    }
    scene_end(&s);
}

/* The samples are made together, each in its own pages behind the prompt's, of which there is one copy; in a pool that
 * has no room for that they take turns, and are the same. */
static void forks_share_the_prompt(void **state) {
    (void)state;
    scene s;
    double agreement = 0;
    uint64_t tokens = 0;
    char text[512] = "", longer[600] = "";
    for (int i = 0; i < 6; i++) strcat(longer, "The dog ran to the big red ball. ");
    for (uint64_t room = 4; room; room /= 4) {
        scene_begin_with_room(&s, room);
        minim_engine_info info = {.size = sizeof info};
        assert_int_equal(minim_engine_get_info(s.engine, &info), MINIM_OK);
        s.config.mode = MINIM_ROUTE_MODE_LOCAL;
        s.config.sample_temperature = 1;
        s.message.content = longer;
        s.request.max_tokens = 40;
        scene_ask(&s);
        const minim_router_reply *local = s.answer->local;
        uint64_t prompt = local->usage.prompt_tokens, shared = (prompt - 1) / (uint64_t)info.page_size;
        assert_true(shared > 1);
        assert_int_equal(s.answer->decision->local.prompt_tokens, prompt); /* counted once, not five times */
        if (room > 1) {
            assert_true(s.most_pages > shared + 5 && s.most_pages <= shared + 1 + 5 * 4);
            agreement = local->agreement;
            tokens = local->usage.completion_tokens;
            snprintf(text, sizeof text, "%s", s.answer->text);
        } else {
            assert_true(s.most_pages <= info.page_limit);
            assert_true(local->agreement == agreement);
            assert_int_equal(local->usage.completion_tokens, tokens);
            assert_string_equal(s.answer->text, text);
        }
        scene_end(&s);
    }
}

/* Agreement is a score like the others: with labels it becomes a probability, and no raw one passes for it. */
static void agreement_is_calibrated(void **state) {
    (void)state;
    enum { N = 400 };
    static minim_route_label rows[N];
    static const minim_route_label *pointers[N];
    minim_route_calibration *c = NULL;
    minim_route_calibrate_options o;
    minim_route_calibrate_options_default(&o);
    o.model = "m";
    o.quantisation = "q";
    o.method = MINIM_ROUTE_SELF_CONSISTENCY;
    for (int i = 0; i < N; i++) {
        int k = 1 + i % 5; /* right as often as half the agreement says: raw agreement is overconfident */
        rows[i] = (minim_route_label){.score = k / 5.0, .weak = (i / 5) % 10 < k, .model = "m", .quantisation = "q"};
        pointers[i] = &rows[i];
    }
    assert_int_equal(minim_route_calibration_new(&c, NULL), MINIM_OK);
    assert_int_equal(minim_route_calibrate(c, pointers, N, &o, NULL, NULL), MINIM_OK);
    minim_route_features f = {.size = sizeof f, .n_tokens = 3, .n_bytes = 9};
    assert_int_equal(minim_route_apply_calibration(c, "m", "q", o.method, &f), 0); /* no agreement yet */
    f.has_agreement = 1;
    f.agreement = 1;
    assert_int_equal(minim_route_apply_calibration(c, "m", "q", o.method, &f), 1);
    assert_true(f.confidence > 0.4 && f.confidence < 0.6);
    assert_int_equal(minim_route_apply_calibration(c, "m", "q", MINIM_ROUTE_VERIFY, &f), 0);
    minim_route_calibration_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_agree_in_what_they_say),
        cmocka_unit_test(the_most_common_answer_wins_and_ties_go_to_the_first),
        cmocka_unit_test(samples_that_agree_are_the_answer),
        cmocka_unit_test(samples_that_differ_go_to_the_remote),
        cmocka_unit_test(samples_of_a_private_question_stay),
        cmocka_unit_test(a_vote_can_be_stopped_anywhere),
        cmocka_unit_test(forks_share_the_prompt),
        cmocka_unit_test(agreement_is_calibrated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
