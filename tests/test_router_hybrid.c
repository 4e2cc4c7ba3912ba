/* test_router_hybrid.c: one answer by two hands: where the local model loses its way the remote continues its text for
 * a span. Scripts on both sides, then the built-in model, then a server that is told in each form to continue. */
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

/* ---- two scripts ------------------------------------------------------------------------------------------------- */

/* The local model says word after word of a list, each a token; it knows where it is by the words that are there. A
 * word in capitals is one that it is unsure of. The remote says the next words of the list in small letters. */
typedef struct scene {
    const char *words[16];
    int n_words, span_words;  /* of the remote at a time; 0 = what is asked for */
    int echoes, begins_alike; /* the remote repeats what it is to continue; or begins as if it did */
    const char *failure;
    minim_router_config config;
    minim_message message;
    minim_router_request request;
    char asked[8][256]; /* the prefixes that the remote was asked to continue */
    int remote_asked, local_asked, wholes, sessions, ended;
    char shown[1024];
    size_t n_shown;
    minim_ledger *ledger;
    minim_router *router;
    minim_router_answer *answer;
    minim_error error;
} scene;

static int words_in(const char *text) {
    int n = 0;
    for (size_t i = 0; text && text[i]; i++) n += text[i] != ' ' && (!i || text[i - 1] == ' ');
    return n;
}

static void session_free(void *state) {
    ((scene *)state)->ended++;
}

static minim_status local_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                               minim_router_reply *reply, minim_error *error) {
    scene *s = state;
    (void)error;
    s->local_asked++;
    reply->usage.prompt_tokens = 10;
    if (request->session && !request->session->state) {
        s->sessions++;
        *request->session = (minim_router_session){s, session_free};
    }
    for (int i = words_in(request->prefix); i < s->n_words; i++) {
        char word[32];
        int is_unsure = s->words[i][0] >= 'A' && s->words[i][0] <= 'Z';
        reply->n_logprobs++;
        reply->usage.completion_tokens++;
        reply->sum_logprob += log(is_unsure ? 0.01 : 0.9);
        snprintf(word, sizeof word, "%s%s", i ? " " : "", s->words[i]);
        if (sink->on_progress(sink->user, reply->n_logprobs) || sink->on_text(sink->user, word, strlen(word)))
            return MINIM_ERR_CANCELLED;
        if (request->max_tokens && reply->n_logprobs == (uint64_t)request->max_tokens) {
            reply->finish = MINIM_ROUTE_FINISH_LENGTH;
            break;
        }
    }
    return MINIM_OK;
}

static minim_status remote_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                minim_router_reply *reply, minim_error *error) {
    scene *s = state;
    const char *prefix = request->prefix ? request->prefix : "";
    int from = words_in(prefix), most = s->span_words ? s->span_words : request->max_tokens;
    snprintf(s->asked[s->remote_asked++ % 8], sizeof s->asked[0], "%s", prefix);
    s->wholes += !request->prefix;
    reply->attempts = 1;
    reply->usage.prompt_tokens = 20;
    if (s->failure) {
        error->status = MINIM_ERR_IO;
        snprintf(error->text, sizeof error->text, "%s", s->failure);
        return MINIM_ERR_IO;
    }
    for (const char *again = s->echoes ? prefix : ""; *again; again++) { /* in pieces */
        if (sink->on_text(sink->user, again, 1)) return MINIM_ERR_CANCELLED;
    }
    if (s->begins_alike && sink->on_text(sink->user, "a xo", 4)) return MINIM_ERR_CANCELLED;
    int i = from;
    for (; i < s->n_words && i < from + most; i++) {
        char word[32];
        snprintf(word, sizeof word, "%s%s", i ? " " : "", s->words[i]);
        for (char *c = word; *c; c++) *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
        reply->usage.completion_tokens++;
        if (sink->on_text(sink->user, word, strlen(word))) return MINIM_ERR_CANCELLED;
    }
    reply->finish = i < s->n_words ? MINIM_ROUTE_FINISH_LENGTH : MINIM_ROUTE_FINISH_END;
    return MINIM_OK;
}

static minim_status make_remote(void *user, const minim_router_config *config, minim_router_backend *backend,
                                minim_error *error) {
    (void)config, (void)error;
    *backend = (minim_router_backend){.state = user, .chat = remote_chat};
    return MINIM_OK;
}

static int on_text(void *user, minim_route route, const char *text, size_t n) {
    scene *s = user;
    s->n_shown += (size_t)snprintf(s->shown + s->n_shown, sizeof s->shown - s->n_shown, "%s%.*s|",
                                   route == MINIM_ROUTE_LOCAL ? "L:" : "R:", (int)n, text);
    return 0;
}

static void on_discard(void *user, const char *reason) {
    scene *s = user;
    s->n_shown += (size_t)snprintf(s->shown + s->n_shown, sizeof s->shown - s->n_shown, "!%s!", reason);
}

static void hybrid_config(minim_router_config *config) {
    minim_router_config_default(config);
    config->plan = MINIM_ROUTE_PLAN_HYBRID;
    config->continuation = MINIM_ROUTE_CONTINUE_PREFIX;
    config->handover_tokens = 2;
    config->handover_threshold = 0.05;
    config->span_tokens = 3;
    config->input_cost_per_token = 0.001;
    config->output_cost_per_token = 0.01;
    strcpy(config->base_url, "https://unused.invalid/v1");
}

static scene scene_begin(const char *const *words, int n) {
    scene s = {.n_words = n, .message = {"user", "go"}};
    memcpy(s.words, words, (size_t)n * sizeof *words);
    hybrid_config(&s.config);
    minim_router_request_default(&s.request);
    s.request.n_messages = 1;
    return s;
}

static const minim_route_decision *scene_ask(scene *s) {
    minim_router_backend local = {.state = s, .chat = local_chat};
    minim_router_options options;
    minim_router_callbacks callbacks;
    minim_router_options_default(&options);
    minim_router_callbacks_default(&callbacks);
    options.config = &s->config;
    options.local = &local;
    options.remote = make_remote;
    options.remote_user = s;
    options.ledger = s->ledger;
    callbacks.user = s;
    callbacks.on_text = on_text;
    callbacks.on_discard = on_discard;
    if (!s->router && minim_router_new(&options, &s->router, &s->error)) fail_msg("%s", s->error.text);
    s->request.messages = &s->message;
    minim_router_answer_free(s->answer);
    s->answer = NULL;
    s->n_shown = 0;
    s->shown[0] = 0;
    if (minim_router_ask(s->router, &s->request, &callbacks, &s->answer, &s->error)) fail_msg("%s", s->error.text);
    assert_int_equal(s->sessions, s->ended); /* what a backend kept is freed */
    return s->answer->decision;
}

static void scene_end(scene *s) {
    minim_router_answer_free(s->answer);
    minim_router_free(s->router);
}

static const char *const sure[] = {"a", "b", "c", "d"};
static const char *const unsure[] = {"a", "b", "C", "D", "E", "f", "g", "h"};

static void a_sure_answer_is_the_local_models_alone(void **state) {
    (void)state;
    scene s = scene_begin(sure, 4);
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "a b c d");
    assert_string_equal(s.shown, "L:a|L: b|L: c d|"); /* the last words under watch come at the end */
    assert_int_equal(d->reason, WHY(HYBRID));
    assert_int_equal(d->spans, 0);
    assert_true(d->cost == 0);
    assert_int_equal(s.remote_asked, 0);
    scene_end(&s);
}

static void a_span_is_written_by_the_remote_and_the_local_model_goes_on(void **state) {
    (void)state;
    scene s = scene_begin(unsure, 8);
    const minim_route_decision *d = scene_ask(&s);
    /* C and D together are too weak: they are taken back, and were never shown. */
    assert_string_equal(s.answer->text, "a b c d e f g h");
    assert_string_equal(s.asked[0], "a b");
    assert_string_equal(s.shown, "L:a|L: b|R: c|R: d|R: e|L: f|L: g h|");
    assert_int_equal(d->route, MINIM_ROUTE_LOCAL);
    assert_int_equal(d->reason, WHY(HYBRID));
    assert_int_equal(d->spans, 1);
    assert_int_equal(d->degraded, 0);
    assert_int_equal(d->extra.completion_tokens, 3);
    assert_true(fabs(d->cost - (20 * 0.001 + 3 * 0.01)) < 1e-12);
    assert_int_equal(d->local.completion_tokens, 4 + 3); /* what was taken back was made, too */
    assert_int_equal(d->local.prompt_tokens, 10);        /* not what was read again */
    assert_int_equal(s.sessions, 1);
    char line[512];
    minim_route_describe(d, line, sizeof line);
    assert_has(line, "1 span by the remote; span tokens 20 in, 3 out");
    scene_end(&s);
}

static void what_the_remote_repeats_is_left_out(void **state) {
    (void)state;
    scene s = scene_begin(unsure, 8);
    s.echoes = 1;
    scene_ask(&s);
    assert_string_equal(s.answer->text, "a b c d e f g h");
    assert_string_equal(s.shown, "L:a|L: b|R: c|R: d|R: e|L: f|L: g h|");
    s.echoes = 0;
    s.begins_alike = 1; /* as if, and then it differs: nothing is lost */
    scene_ask(&s);
    assert_memory_equal(s.answer->text, "a ba xo c d e", 13);
    scene_end(&s);
}

static void the_remote_may_end_the_answer(void **state) {
    (void)state;
    scene s = scene_begin(unsure, 5);
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "a b c d e");
    assert_int_equal(s.local_asked, 1);
    assert_int_equal(s.answer->local->finish, MINIM_ROUTE_FINISH_END);
    assert_int_equal(d->spans, 1);
    scene_end(&s);
}

static void spans_are_counted_and_then_the_local_model_is_alone(void **state) {
    (void)state;
    static const char *const words[] = {"a", "B", "C", "D", "E", "F", "G", "H", "I", "J", "k"};
    scene s = scene_begin(words, 11);
    s.config.max_spans = 2;
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "a b c d e f g H I J k");
    assert_string_equal(s.asked[1], "a b c d");
    assert_int_equal(d->spans, 2);
    assert_int_equal(d->degraded, 0);
    scene_end(&s);
}

static void the_length_of_the_answer_is_that_of_both(void **state) {
    (void)state;
    scene s = scene_begin(unsure, 8);
    s.request.max_tokens = 6;
    scene_ask(&s);
    assert_string_equal(s.answer->text, "a b c d e f");
    assert_int_equal(s.answer->local->finish, MINIM_ROUTE_FINISH_LENGTH);
    s.request.max_tokens = 4; /* the span has no more room */
    scene_ask(&s);
    assert_string_equal(s.answer->text, "a b c d");
    assert_int_equal(s.answer->local->finish, MINIM_ROUTE_FINISH_LENGTH);
    scene_end(&s);
}

#ifdef MINIM_WITH_LEDGER

static void spans_are_calls_in_the_report(void **state) {
    (void)state;
    static const char *const words[] = {"a", "B", "C", "D", "E", "F", "G", "H", "I", "J", "k"};
    scene s = scene_begin(words, 11);
    char folder[] = "/tmp/minim-hybrid-XXXXXX", path[64], command[64];
    minim_ledger_day *days = NULL;
    size_t n = 0;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/ledger.db", folder);
    if (minim_ledger_open(path, &s.ledger, &s.error)) fail_msg("%s", s.error.text);
    s.config.max_spans = 2;
    assert_int_equal(scene_ask(&s)->spans, 2);
    if (minim_ledger_report(s.ledger, 0, &days, &n, &s.error)) fail_msg("%s", s.error.text);
    assert_int_equal(days[n - 1].remote_calls, 2);
    assert_int_equal(days[n - 1].remote_verdicts, 0);
    assert_int_equal(days[n - 1].remote_requests, 1);
    assert_int_equal(days[n - 1].local, 1);
    minim_ledger_days_free(days);
    scene_end(&s);
    minim_ledger_close(s.ledger);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

#endif

static void a_span_that_fails_degrades(void **state) {
    (void)state;
    scene s = scene_begin(unsure, 8);
    s.failure = "gone";
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "a b C D E f g h");
    assert_string_equal(s.shown, "L:a|L: b|L: C|L: D|L: E|L: f|L: g h|");
    assert_int_equal(d->degraded, 1);
    assert_string_equal(d->degraded_reason, "gone");
    assert_int_equal(s.remote_asked, 1); /* and not again */
    scene_end(&s);
}

static void what_must_not_leave_is_written_alone(void **state) {
    (void)state;
    scene s = scene_begin(unsure, 8);
    s.request.is_private = 1;
    const minim_route_decision *d = scene_ask(&s);
    assert_string_equal(s.answer->text, "a b C D E f g h");
    assert_int_equal(d->reason, WHY(PRIVATE));
    assert_int_equal(s.remote_asked, 0);
    scene_end(&s);
    /* The beginning of the answer has become private: nothing is degraded, nothing leaves. */
    static const char *const words[] = {"alice@example.com", "b", "C", "D", "e"};
    s = scene_begin(words, 5);
    d = scene_ask(&s);
    assert_string_equal(s.answer->text, "alice@example.com b C D e");
    assert_string_equal(s.shown, "L:alice@example.com|L: b|L: C|L: D|L: e|");
    assert_int_equal(d->reason, WHY(PRIVATE));
    assert_int_equal(d->degraded, 0);
    assert_int_equal(s.remote_asked, 0);
    scene_end(&s);
}

static void evidence_has_the_last_word(void **state) {
    (void)state;
    scene s = scene_begin(unsure, 8);
    strcpy(s.config.evidence_pattern, "z|e$");
    s.words[7] = "H";
    const minim_route_decision *d = scene_ask(&s);
    /* What both wrote is refused; the remote's own answer, "a b ... h", is refused as well. */
    assert_int_equal(d->degraded, 1);
    assert_int_equal(s.wholes, 1);
    assert_has(s.shown, "!evidence!");
    scene_end(&s);
}

static void a_server_that_can_not_continue_is_refused(void **state) {
    (void)state;
    scene s = scene_begin(sure, 4);
    minim_router_backend local = {.state = &s, .chat = local_chat};
    minim_router_options options;
    minim_router_options_default(&options);
    options.config = &s.config;
    options.local = &local;
    options.remote = make_remote;
    s.config.continuation = MINIM_ROUTE_CONTINUE_NONE;
    assert_int_equal(minim_router_new(&options, &s.router, &s.error), MINIM_ERR_UNSUPPORTED);
    assert_has(s.error.text, "remote.continuation");
    s.config.continuation = MINIM_ROUTE_CONTINUE_PARTIAL;
    s.config.handover_threshold = 0;
    assert_int_equal(minim_router_new(&options, &s.router, &s.error), MINIM_ERR_ARGUMENT);
    s.config.mode = MINIM_ROUTE_MODE_LOCAL; /* there is nobody who would have to */
    assert_int_equal(minim_router_new(&options, &s.router, &s.error), MINIM_OK);
    scene_end(&s);
}

/* ---- the built-in model ------------------------------------------------------------------------------------------ */

/* A remote that continues with this text. */
static minim_status ball_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                              minim_router_reply *reply, minim_error *error) {
    scene *s = state;
    static const char text[] = " found a big red ball";
    (void)error;
    snprintf(s->asked[s->remote_asked++ % 8], sizeof s->asked[0], "%s", request->prefix ? request->prefix : "");
    reply->attempts = 1;
    reply->usage = (minim_route_usage){.prompt_tokens = 20, .completion_tokens = 5};
    reply->finish = MINIM_ROUTE_FINISH_LENGTH;
    return sink->on_text(sink->user, text, sizeof text - 1) ? MINIM_ERR_CANCELLED : MINIM_OK;
}

static minim_status make_ball(void *user, const minim_router_config *config, minim_router_backend *backend,
                              minim_error *error) {
    (void)config, (void)error;
    *backend = (minim_router_backend){.state = user, .chat = ball_chat};
    return MINIM_OK;
}

static void the_local_model_reads_what_the_remote_wrote(void **state) {
    (void)state;
    scene s = scene_begin(sure, 0);
    minim_model *model;
    minim_engine *engine;
    minim_router_backend local;
    minim_router_options options;
    minim_router *router;
    minim_router_answer *answer, *alone;
    minim_engine_info info = {.size = sizeof info};
    size_t size;
    const void *data = minim_default_model(&size);
    assert_int_equal(minim_model_load_memory(data, size, "built-in", NULL, &model, &s.error), MINIM_OK);
    assert_int_equal(minim_engine_new(model, NULL, &engine, &s.error), MINIM_OK);
    assert_int_equal(minim_router_local(model, engine, NULL, &local, &s.error), MINIM_OK);
    minim_router_options_default(&options);
    options.config = &s.config;
    options.local = &local;
    options.remote = make_ball;
    options.remote_user = &s;
    s.config.handover_tokens = 4;
    s.config.handover_threshold = 0.45;
    s.config.max_spans = 1;
    s.message.content = "Once upon a time";
    s.request.messages = &s.message;
    s.request.max_tokens = 60;
    assert_int_equal(minim_router_new(&options, &router, &s.error), MINIM_OK);
    if (minim_router_ask(router, &s.request, NULL, &answer, &s.error)) fail_msg("%s", s.error.text);
    assert_int_equal(s.remote_asked, 1);
    assert_int_equal(answer->decision->spans, 1);
    size_t n = strlen(s.asked[0]);
    assert_memory_equal(answer->text, s.asked[0], n);
    const char *behind = answer->text + n;
    assert_memory_equal(behind, " found a big red ball", 21);
    behind += 21;
    assert_true(strlen(behind) > 20);
    minim_engine_get_info(engine, &info);
    assert_int_equal(info.pages_in_use, 0);
    /* Greedy, and the same bits however the text came in: one who reads all of it at once goes on in the same way. */
    char all[1024];
    snprintf(all, sizeof all, "Once upon a time%.*s", (int)(behind - answer->text), answer->text);
    s.config.mode = MINIM_ROUTE_MODE_LOCAL;
    s.config.plan = MINIM_ROUTE_PLAN_CASCADE;
    s.message.content = all;
    s.request.max_tokens = 20;
    minim_router_free(router);
    assert_int_equal(minim_router_new(&options, &router, &s.error), MINIM_OK);
    if (minim_router_ask(router, &s.request, NULL, &alone, &s.error)) fail_msg("%s", s.error.text);
    if (strncmp(behind, alone->text, 20)) fail_msg("\"%s\" is not \"%s\"", behind, alone->text);
    minim_router_answer_free(alone);
    minim_router_answer_free(answer);
    minim_router_free(router);
    local.free(local.state);
    minim_engine_free(engine);
    minim_model_free(model);
}

/* ---- over the wire ----------------------------------------------------------------------------------------------- */

static void a_server_is_told_in_its_own_way_to_continue(void **state) {
    (void)state;
    static const struct {
        minim_route_continuation how;
        const char *has, *lacks;
    } rows[] = {
        {MINIM_ROUTE_CONTINUE_PREFIX, "{\"role\":\"assistant\",\"content\":\"Once upon\",\"prefix\":true}]", "partial"},
        {MINIM_ROUTE_CONTINUE_PARTIAL, "{\"role\":\"assistant\",\"content\":\"Once upon\",\"partial\":true}]",
         "prefix"},
        {MINIM_ROUTE_CONTINUE_ASSISTANT, "{\"role\":\"assistant\",\"content\":\"Once upon\"}]", "continue"},
        {MINIM_ROUTE_CONTINUE_FINAL, "\"continue_final_message\":true,\"add_generation_prompt\":false", "partial"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        openai_server *server = serve(&good_stream, 1);
        minim_router_config config;
        minim_router_backend remote;
        minim_error error;
        minim_router_reply reply = {.size = sizeof reply};
        minim_router_sink sink = {0};
        minim_message message = {"user", "go"};
        minim_router_request request;
        hybrid_config(&config);
        config.continuation = rows[i].how;
        strcpy(config.base_url, openai_server_url(server));
        minim_router_request_default(&request);
        request.messages = &message;
        request.n_messages = 1;
        request.prefix = "Once upon";
        assert_int_equal(minim_router_remote_http(NULL, &config, &remote, &error), MINIM_OK);
        assert_int_equal(remote.chat(remote.state, &request, &sink, &reply, &error), MINIM_OK);
        assert_has(openai_server_body(server), rows[i].has);
        assert_lacks(openai_server_body(server), rows[i].lacks);
        remote.free(remote.state);
        openai_server_stop(server);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sure_answer_is_the_local_models_alone),
        cmocka_unit_test(a_span_is_written_by_the_remote_and_the_local_model_goes_on),
        cmocka_unit_test(what_the_remote_repeats_is_left_out),
        cmocka_unit_test(the_remote_may_end_the_answer),
        cmocka_unit_test(spans_are_counted_and_then_the_local_model_is_alone),
        cmocka_unit_test(the_length_of_the_answer_is_that_of_both),
#ifdef MINIM_WITH_LEDGER
        cmocka_unit_test(spans_are_calls_in_the_report),
#endif
        cmocka_unit_test(a_span_that_fails_degrades),
        cmocka_unit_test(what_must_not_leave_is_written_alone),
        cmocka_unit_test(evidence_has_the_last_word),
        cmocka_unit_test(a_server_that_can_not_continue_is_refused),
        cmocka_unit_test(the_local_model_reads_what_the_remote_wrote),
        cmocka_unit_test(a_server_is_told_in_its_own_way_to_continue),
    };
    return cmocka_run_group_tests(tests, remote_clear_environment, NULL);
}
