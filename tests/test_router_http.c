/* test_router_http.c: the remote over libcurl against a scripted server on loopback: good answers in every form, faults
 * of every kind, and the whole cascade. The local model is a script with a log-probability. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../router/support.h"
#include "openai_server.h"
#include "router_test.h"

/* ---- what servers say ------------------------------------------------------------------------------------------- */

#define CHUNK(text)  "data: {\"model\":\"big-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define FINISH(why)  "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"" why "\"}]}\n\n"
#define USAGE        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":3}}\n\n"
#define DONE         "data: [DONE]\n\n"
#define EVENT_STREAM "Content-Type: text/event-stream"
#define JSON_BODY    "Content-Type: application/json"

static const openai_reply good_stream = {
    .headers = {EVENT_STREAM},
    .pieces = {"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n", CHUNK("Hello"),
               CHUNK(" big"), CHUNK(" world"), FINISH("stop") USAGE DONE}};

/* ---- one question to one server --------------------------------------------------------------------------------- */

typedef struct question {
    /* set by the test */
    minim_router_config config;
    double local_logprob;
    int stop_after_ms; /* 0 = never */
    openai_server *server;
    /* what came of it */
    char shown[4096]; /* every text the caller saw; "!" where it was withdrawn */
    size_t n_shown;
    unsigned pieces_at_first_text; /* how far the server was then */
    int made, local_asked;
    double started, seconds;
    minim_status status;
    minim_router *router;
    minim_router_answer *answer;
    minim_error error;
} question;

static question ask_about(openai_server *server) {
    question q = {.local_logprob = log(0.2), .server = server};
    minim_router_config_default(&q.config);
    q.config.mode = MINIM_ROUTE_MODE_CASCADE;
    q.config.connect_timeout = 1;
    q.config.stream_timeout = 3;
    q.config.idle_timeout = 3;
    q.config.timeout = 5;
    q.config.retry_after = 0.005;
    if (server) strcpy(q.config.base_url, openai_server_url(server));
    return q;
}

static minim_status local_script(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                 minim_router_reply *reply, minim_error *error) {
    question *q = state;
    (void)request, (void)error;
    q->local_asked++;
    reply->n_logprobs = 1;
    reply->sum_logprob = q->local_logprob;
    return sink->on_text(sink->user, "small", 5) ? MINIM_ERR_CANCELLED : MINIM_OK;
}

static minim_status counted_http(void *user, const minim_router_config *config, minim_router_backend *backend,
                                 minim_error *error) {
    ((question *)user)->made++;
    return minim_router_remote_http(NULL, config, backend, error);
}

static int on_text(void *user, minim_route route, const char *text, size_t n) {
    question *q = user;
    (void)route;
    if (!q->n_shown && q->server) q->pieces_at_first_text = openai_server_pieces(q->server);
    assert_true(q->n_shown + n + 2 < sizeof q->shown);
    memcpy(q->shown + q->n_shown, text, n);
    q->n_shown += n;
    return 0;
}

static void on_discard(void *user, const char *reason) {
    question *q = user;
    assert_true(reason[0] != 0);
    q->shown[q->n_shown++] = '!';
}

static int on_progress(void *user, minim_route route, uint64_t n) {
    question *q = user;
    (void)route, (void)n;
    return q->stop_after_ms && (router_now() - q->started) * 1000 > q->stop_after_ms;
}

static void ask(question *q) {
    minim_router_backend local = {q, local_script, NULL};
    minim_router_options options;
    minim_router_options_default(&options);
    options.config = &q->config;
    options.local = &local;
    options.remote = counted_http;
    options.remote_user = q;
    if (!q->router) assert_int_equal(minim_router_new(&options, &q->router, &q->error), MINIM_OK);
    minim_message message = {"user", "What?"};
    minim_router_request request;
    minim_router_request_default(&request);
    request.messages = &message;
    request.n_messages = 1;
    minim_router_callbacks callbacks;
    minim_router_callbacks_default(&callbacks);
    callbacks.user = q;
    callbacks.on_text = on_text;
    callbacks.on_discard = on_discard;
    callbacks.on_progress = on_progress;
    minim_router_answer_free(q->answer);
    q->answer = NULL;
    q->n_shown = 0;
    memset(q->shown, 0, sizeof q->shown);
    q->started = router_now();
    q->status = minim_router_ask(q->router, &request, &callbacks, &q->answer, &q->error);
    q->seconds = router_now() - q->started;
}

static void end(question *q) {
    minim_router_answer_free(q->answer);
    minim_router_free(q->router);
}

static openai_server *serve(const openai_reply *replies, size_t n) {
    openai_server *server = openai_server_start(replies, n);
    assert_non_null(server);
    return server;
}

/* The remote answered with this text. */
static void assert_remote(const question *q, const char *text) {
    if (q->status != MINIM_OK) fail_msg("%s", q->error.text);
    if (q->answer->decision->degraded) fail_msg("degraded: %s", q->answer->decision->degraded_reason);
    assert_int_equal(q->answer->decision->route, MINIM_ROUTE_REMOTE);
    assert_string_equal(q->answer->text, text);
    assert_string_equal(q->shown, text);
}

/* The remote failed in this way, and the local answer was given instead. */
static void assert_degraded(const question *q, minim_route_failure failure, const char *says) {
    if (q->status != MINIM_OK) fail_msg("%s", q->error.text);
    assert_int_equal(q->answer->decision->route, MINIM_ROUTE_LOCAL);
    assert_int_equal(q->answer->decision->degraded, 1);
    assert_string_equal(q->answer->text, "small");
    assert_non_null(q->answer->remote);
    if (q->answer->remote->failure != failure) {
        fail_msg("%s: %s", minim_route_failure_name(q->answer->remote->failure), q->answer->decision->degraded_reason);
    }
    assert_has(q->answer->decision->degraded_reason, says);
}

/* ---- good answers ----------------------------------------------------------------------------------------------- */

static void below_the_bar_the_prompt_goes_to_the_server(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1);
    question q = ask_about(server);
    strcpy(q.config.model, "big");
    q.config.input_cost_per_token = 1e-6;
    q.config.output_cost_per_token = 2e-6;
    ask(&q);
    assert_remote(&q, "Hello big world");
    assert_int_equal(q.answer->decision->reason, MINIM_ROUTE_REASON_SCORE_LOW);
    assert_string_equal(q.answer->remote->model, "big-1");
    assert_int_equal(q.answer->remote->finish, MINIM_ROUTE_FINISH_END);
    assert_int_equal(q.answer->remote->usage.prompt_tokens, 11);
    assert_int_equal(q.answer->remote->usage.completion_tokens, 3);
    assert_int_equal(q.answer->remote->usage.estimated, 0);
    assert_int_equal(q.answer->remote->http_status, 200);
    assert_int_equal(q.answer->remote->attempts, 1);
    assert_true(fabs(q.answer->decision->cost - 17e-6) < 1e-12);
    assert_string_equal(openai_server_path(server), "/v1/chat/completions");
    json_t *body = json_loads(openai_server_body(server), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(body, "model")), "big");
    assert_true(json_is_true(json_object_get(body, "stream")));
    assert_true(json_is_true(json_object_get(json_object_get(body, "stream_options"), "include_usage")));
    assert_int_equal(json_integer_value(json_object_get(body, "max_tokens")), 256);
    json_decref(body);
    assert_string_equal(openai_server_header(server, "Content-Type"), "application/json");
    assert_string_equal(openai_server_header(server, "Authorization"), ""); /* there is no key */
    end(&q);
    openai_server_stop(server);
}

static void above_the_bar_there_is_no_connection(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1);
    question q = ask_about(server);
    q.local_logprob = log(0.9);
    ask(&q);
    assert_int_equal(q.status, MINIM_OK);
    assert_string_equal(q.shown, "small");
    assert_int_equal(q.answer->decision->degraded, 0);
    assert_int_equal(q.made, 0);
    assert_int_equal(openai_server_connections(server), 0);
    end(&q);
    openai_server_stop(server);
}

static void in_local_mode_there_is_no_connection_whatever_the_score(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1);
    question q = ask_about(server);
    q.config.mode = MINIM_ROUTE_MODE_LOCAL;
    q.local_logprob = -100;
    ask(&q);
    assert_int_equal(q.status, MINIM_OK);
    assert_string_equal(q.shown, "small");
    assert_int_equal(q.answer->decision->reason, MINIM_ROUTE_REASON_LOCAL_ONLY);
    assert_int_equal(q.made, 0);
    assert_int_equal(openai_server_connections(server), 0);
    end(&q);
    openai_server_stop(server);
}

static void remote_text_is_shown_while_the_server_still_writes(void **state) {
    (void)state;
    openai_reply slow = good_stream;
    slow.piece_ms = 100;
    openai_server *server = serve(&slow, 1);
    question q = ask_about(server);
    ask(&q);
    assert_remote(&q, "Hello big world");
    assert_in_range(q.pieces_at_first_text, 2, 4); /* of 5 */
    assert_true(q.answer->remote->usage.first_token_seconds < q.answer->remote->usage.seconds - 0.1);
    end(&q);
    openai_server_stop(server);
}

static void remote_first_streams_without_the_local_model(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1);
    question q = ask_about(server);
    q.config.mode = MINIM_ROUTE_MODE_REMOTE;
    ask(&q);
    assert_remote(&q, "Hello big world");
    assert_int_equal(q.local_asked, 0);
    end(&q);
    openai_server_stop(server);
}

static void several_questions_share_a_connection(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1);
    question q = ask_about(server);
    for (int i = 0; i < 3; i++) {
        ask(&q);
        assert_remote(&q, "Hello big world");
    }
    assert_int_equal(q.made, 1);
    assert_int_equal(openai_server_requests(server), 3);
    assert_int_equal(openai_server_connections(server), 1);
    end(&q);
    openai_server_stop(server);
}

static void answers_come_in_many_forms(void **state) {
    (void)state;
    static const struct {
        const char *name;
        openai_reply reply;
        const char *text;
        minim_route_finish finish;
        int estimated;
    } rows[] = {
        {"in one piece of JSON",
         {.headers = {JSON_BODY},
          .pieces = {"\n {\"model\":\"m\",\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Who",
                     "le\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}"}},
         "Whole",
         MINIM_ROUTE_FINISH_END,
         0},
        {"JSON called a stream",
         {.headers = {EVENT_STREAM}, .pieces = {"{\"choices\":[{\"message\":{\"content\":\"Whole\"}}]}"}},
         "Whole",
         MINIM_ROUTE_FINISH_END,
         1},
        {"a stream called text",
         {.headers = {"Content-Type: text/plain"}, .pieces = {CHUNK("Hi") FINISH("stop") DONE}},
         "Hi",
         MINIM_ROUTE_FINISH_END,
         1},
        {"comments, pings, CRLF, other fields",
         {.headers = {EVENT_STREAM},
          .pieces = {": OPENROUTER PROCESSING\r\n\r\n", ": ping\r\n\r\n",
                     "id: 1\r\nevent: message\r\ndata: {\"choices\":\r\n",
                     "data: [{\"delta\":{\"content\":\"Hi\"}}]}\r\n\r\n: ping\r\n\r\n", "data: [DONE]\r\n\r\n"}},
         "Hi",
         MINIM_ROUTE_FINISH_END,
         1},
        {"a character in three pieces",
         {.headers = {EVENT_STREAM},
          .pieces = {"data: {\"choices\":[{\"delta\":{\"content\":\"\xf0\x9f", "\x90", "\x9c!\"}}]}\n\n" DONE}},
         "\xf0\x9f\x90\x9c!",
         MINIM_ROUTE_FINISH_END,
         1},
        {"bytes that are no UTF-8",
         {.headers = {EVENT_STREAM},
          .pieces = {CHUNK("a\xff"
                           "b") DONE}},
         "a" U "b",
         MINIM_ROUTE_FINISH_END,
         1},
        {"no newline behind [DONE]",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hi") "data: [DONE]"}},
         "Hi",
         MINIM_ROUTE_FINISH_END,
         1},
        {"a space behind [DONE]",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hi") "data: [DONE] \n\n"}},
         "Hi",
         MINIM_ROUTE_FINISH_END,
         1},
        {"more behind [DONE]",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hi") DONE CHUNK("ghost"), "data: garbage\n\n"}},
         "Hi",
         MINIM_ROUTE_FINISH_END,
         1},
        {"a connection that stays open behind [DONE]",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hi") DONE}, .end = OPENAI_END_STALL},
         "Hi",
         MINIM_ROUTE_FINISH_END,
         1},
        {"a connection that breaks behind [DONE]",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hi") DONE}, .end = OPENAI_END_ABORT},
         "Hi",
         MINIM_ROUTE_FINISH_END,
         1},
        {"cut off at max_tokens",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hi") FINISH("length") DONE}},
         "Hi",
         MINIM_ROUTE_FINISH_LENGTH,
         1},
        {"cut off by a filter",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hi") FINISH("content_filter") DONE}},
         "Hi",
         MINIM_ROUTE_FINISH_OTHER,
         1},
        {"status 201",
         {.status = 201, .headers = {EVENT_STREAM}, .pieces = {CHUNK("Hi") DONE}},
         "Hi",
         MINIM_ROUTE_FINISH_END,
         1},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        openai_server *server = serve(&rows[i].reply, 1);
        question q = ask_about(server);
        ask(&q);
        if (q.status != MINIM_OK || q.answer->decision->degraded) {
            fail_msg("%s: %s", rows[i].name, q.status ? q.error.text : q.answer->decision->degraded_reason);
        }
        assert_remote(&q, rows[i].text);
        assert_int_equal(q.answer->remote->finish, rows[i].finish);
        assert_int_equal(q.answer->remote->usage.estimated, rows[i].estimated);
        if (rows[i].estimated) assert_int_equal(q.answer->remote->usage.prompt_tokens, 2); /* "What?" is 5 bytes */
        assert_true(q.seconds < 2);
        end(&q);
        openai_server_stop(server);
    }
}

/* ---- faults ----------------------------------------------------------------------------------------------------- */

static void every_fault_gives_the_local_answer_marked_degraded(void **state) {
    (void)state;
    static char huge_line[1200000], many_events[40000];
    memset(huge_line, 'x', sizeof huge_line - 1);
    for (size_t i = 0; i + sizeof(DONE) < sizeof many_events; i += 4) memcpy(many_events + i, ":x\n\n", 4);
    static const struct {
        const char *name;
        openai_reply reply;
        minim_route_failure failure;
        const char *says, *shown; /* shown: what the caller saw */
    } rows[] = {
        {"401",
         {.status = 401,
          .headers = {JSON_BODY},
          .pieces = {"{\"error\":{\"message\":\"Incorrect API key provided: "
                     "sk-very-secret.\",\"code\":\"invalid_api_key\"}}"}},
         MINIM_ROUTE_FAILED_AUTH,
         "HTTP 401: Incorrect API key provided: [key].",
         "small"},
        {"401 that breaks off",
         {.status = 401, .pieces = {"{\"error\":{\"message\":\"no\"}}"}, .end = OPENAI_END_ABORT},
         MINIM_ROUTE_FAILED_AUTH,
         "HTTP 401: no",
         "small"},
        {"403 without a body", {.status = 403}, MINIM_ROUTE_FAILED_AUTH, "HTTP 403", "small"},
        {"402",
         {.status = 402, .pieces = {"{\"error\":{\"code\":402}}"}},
         MINIM_ROUTE_FAILED_QUOTA,
         "HTTP 402",
         "small"},
        {"404 in HTML",
         {.status = 404, .pieces = {"<html>no</html>"}},
         MINIM_ROUTE_FAILED_REQUEST,
         "HTTP 404",
         "small"},
        {"422 of FastAPI",
         {.status = 422, .pieces = {"{\"detail\":\"no such field\"}"}},
         MINIM_ROUTE_FAILED_REQUEST,
         "HTTP 422: no such field",
         "small"},
        {"204", {.status = 204}, MINIM_ROUTE_FAILED_PROTOCOL, "neither an event stream nor JSON", "small"},
        {"HTML under 200",
         {.pieces = {"<html>\n\nwelcome\n\n</html>"}},
         MINIM_ROUTE_FAILED_PROTOCOL,
         "neither an event stream nor JSON",
         "small"},
        {"malformed JSON in a stream",
         {.headers = {EVENT_STREAM}, .pieces = {"data: {\"choices\":[{]\n\n" DONE}},
         MINIM_ROUTE_FAILED_PROTOCOL,
         "malformed JSON",
         "small"},
        {"malformed JSON after some text",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("He"), "data: {\"choices\":[{]\n\n" DONE}},
         MINIM_ROUTE_FAILED_PROTOCOL,
         "malformed JSON",
         "He!small"},
        {"malformed JSON in one piece",
         {.headers = {JSON_BODY}, .pieces = {"{\"choices\":[{\"message\":{\"content\":\"Hi\"}}"}},
         MINIM_ROUTE_FAILED_PROTOCOL,
         "malformed JSON",
         "small"},
        {"JSON without choices",
         {.pieces = {"{\"ok\":true}"}},
         MINIM_ROUTE_FAILED_PROTOCOL,
         "choices: found nothing",
         "small"},
        {"text of the wrong type",
         {.headers = {EVENT_STREAM}, .pieces = {"data: {\"choices\":[{\"delta\":{\"content\":5}}]}\n\n" DONE}},
         MINIM_ROUTE_FAILED_PROTOCOL,
         "choices[0].delta.content: found a number, expected a string",
         "small"},
        {"an error under 200",
         {.headers = {EVENT_STREAM},
          .pieces = {CHUNK("He"), "data: {\"error\":{\"message\":\"overloaded\",\"code\":502}}\n\n"}},
         MINIM_ROUTE_FAILED_SERVER,
         "overloaded",
         "He!small"},
        {"an error event",
         {.headers = {EVENT_STREAM}, .pieces = {"event: error\ndata: {\"message\":\"too busy\"}\n\n"}},
         MINIM_ROUTE_FAILED_SERVER,
         "too busy",
         "small"},
        {"an error in one piece",
         {.pieces = {"{\"error\":{\"message\":\"no credit\",\"code\":\"insufficient_quota\"}}"}},
         MINIM_ROUTE_FAILED_QUOTA,
         "no credit",
         "small"},
        {"no [DONE] and no finish_reason",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("He"), CHUNK("llo")}},
         MINIM_ROUTE_FAILED_INCOMPLETE,
         "ended without [DONE] and finish_reason",
         "Hello!small"},
        {"no [DONE]",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hello"), FINISH("stop")}},
         MINIM_ROUTE_FAILED_INCOMPLETE,
         "ended without [DONE]",
         "Hello!small"},
        {"an aborted connection",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("He")}, .piece_ms = 20, .end = OPENAI_END_ABORT},
         MINIM_ROUTE_FAILED_INCOMPLETE,
         "127.0.0.1",
         "He!small"},
        {"a reset connection",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("He"), ":\n\n"}, .piece_ms = 50, .end = OPENAI_END_RESET},
         MINIM_ROUTE_FAILED_INCOMPLETE,
         "127.0.0.1",
         "He!small"},
        {"an empty answer",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("") FINISH("stop") DONE}},
         MINIM_ROUTE_FAILED_EMPTY,
         "without text",
         "small"},
        {"white space only",
         {.headers = {EVENT_STREAM}, .pieces = {CHUNK("\\n ") FINISH("stop") DONE}},
         MINIM_ROUTE_FAILED_EMPTY,
         "without text",
         "\n !small"},
        {"tool calls only",
         {.pieces = {"{\"choices\":[{\"message\":{\"content\":null,\"tool_calls\":[]}}]}"}},
         MINIM_ROUTE_FAILED_EMPTY,
         "without text",
         "small"},
        {"nothing but [DONE]", {.pieces = {DONE}}, MINIM_ROUTE_FAILED_EMPTY, "without text", "small"},
        {"an endless line",
         {.headers = {EVENT_STREAM}, .pieces = {"data: ", huge_line}},
         MINIM_ROUTE_FAILED_TOO_LARGE,
         "larger than 1 MiB",
         "small"},
    };
    setenv("OPENAI_API_KEY", "sk-very-secret", 1);
    for (size_t i = 0; i < COUNT(rows); i++) {
        openai_server *server = serve(&rows[i].reply, 1);
        question q = ask_about(server);
        strcpy(q.config.api_key, "env:OPENAI_API_KEY");
        ask(&q);
        if (q.status != MINIM_OK || !q.answer->decision->degraded) fail_msg("%s: not degraded", rows[i].name);
        if (strcmp(q.shown, rows[i].shown) != 0) fail_msg("%s: shown \"%s\"", rows[i].name, q.shown);
        assert_degraded(&q, rows[i].failure, rows[i].says);
        assert_lacks(q.answer->decision->degraded_reason, "sk-very-secret");
        assert_int_equal(openai_server_requests(server), 1); /* none of these is tried again */
        assert_string_equal(openai_server_header(server, "Authorization"), "Bearer sk-very-secret");
        assert_lacks(openai_server_body(server), "sk-very-secret");
        end(&q);
        openai_server_stop(server);
    }
    /* A flood of comments and pings. */
    openai_reply flood = {.headers = {EVENT_STREAM}, .pieces = {many_events}};
    openai_server *server = serve(&flood, 1);
    question q = ask_about(server);
    q.config.max_response_bytes = 20000;
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_TOO_LARGE, "max_response_bytes");
    end(&q);
    openai_server_stop(server);
    unsetenv("OPENAI_API_KEY");
}

static void a_server_without_done_is_accepted_when_told_so(void **state) {
    (void)state;
    const openai_reply reply = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hello"), FINISH("stop")}};
    const openai_reply cut = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hello")}};
    openai_server *server = serve((openai_reply[]){reply, cut}, 2);
    question q = ask_about(server);
    q.config.require_done = 0;
    ask(&q);
    assert_remote(&q, "Hello");
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_INCOMPLETE, "without [DONE] and finish_reason");
    end(&q);
    openai_server_stop(server);
}

static void a_broken_stream_is_billed_by_estimate(void **state) {
    (void)state;
    const openai_reply cut = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("twelve bytes")}, .end = OPENAI_END_ABORT};
    openai_server *server = serve(&cut, 1);
    question q = ask_about(server);
    q.config.input_cost_per_token = 0.5;
    q.config.output_cost_per_token = 1;
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_INCOMPLETE, "");
    assert_int_equal(q.answer->decision->remote.estimated, 1);
    assert_true(fabs(q.answer->decision->cost - (2 * 0.5 + 3)) < 1e-9);
    end(&q);
    openai_server_stop(server);
}

static void a_port_on_which_nobody_listens_degrades(void **state) {
    (void)state;
    question q = ask_about(NULL);
    snprintf(q.config.base_url, sizeof q.config.base_url, "http://127.0.0.1:%u/v1", openai_unused_port());
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_CONNECT, "127.0.0.1");
    assert_int_equal(q.answer->remote->attempts, 3);
    assert_has(q.answer->decision->degraded_reason, "after 3 attempts");
    assert_int_equal(q.answer->decision->cost_known, 1); /* nobody was reached, nothing was spent */
    minim_router_free(q.router);
    q.router = NULL;
    q.config.mode = MINIM_ROUTE_MODE_REMOTE;
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_CONNECT, "127.0.0.1");
    end(&q);
}

static void a_name_without_an_address_degrades(void **state) {
    (void)state;
    question q = ask_about(NULL);
    q.config.connect_timeout = 0.5;
    q.config.num_retries = 0;
    strcpy(q.config.base_url, "https://no-such-host.invalid/v1");
    ask(&q);
    assert_int_equal(q.status, MINIM_OK);
    assert_int_equal(q.answer->decision->degraded, 1);
    /* How that fails depends on the machine's name servers. */
    minim_route_failure failure = q.answer->remote->failure;
    assert_true(failure == MINIM_ROUTE_FAILED_RESOLVE || failure == MINIM_ROUTE_FAILED_TIMEOUT ||
                failure == MINIM_ROUTE_FAILED_CONNECT || failure == MINIM_ROUTE_FAILED_TLS);
    assert_true(q.seconds < 3);
    end(&q);
}

static void tls_with_a_server_that_has_none_degrades(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1);
    question q = ask_about(server);
    snprintf(q.config.base_url, sizeof q.config.base_url, "https%s", openai_server_url(server) + 4);
    q.config.connect_timeout = q.config.stream_timeout = q.config.timeout = 20; /* OpenSSL starts slowly in valgrind */
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_TLS, "");
    assert_int_equal(q.answer->remote->attempts, 1);
    end(&q);
    openai_server_stop(server);
}

static void a_redirect_is_not_followed(void **state) {
    (void)state;
    static char location[128];
    openai_server *elsewhere = serve(&good_stream, 1);
    snprintf(location, sizeof location, "Location: %s/chat/completions", openai_server_url(elsewhere));
    static const int statuses[] = {301, 302, 303, 307, 308};
    setenv("TEST_KEY", "sk-very-secret", 1);
    for (size_t i = 0; i < COUNT(statuses); i++) {
        const openai_reply redirect = {.status = statuses[i], .headers = {location}};
        openai_server *server = serve(&redirect, 1);
        question q = ask_about(server);
        strcpy(q.config.api_key, "env:TEST_KEY");
        ask(&q);
        assert_degraded(&q, MINIM_ROUTE_FAILED_REQUEST, "a redirect, which is not followed");
        end(&q);
        openai_server_stop(server);
    }
    assert_int_equal(openai_server_connections(elsewhere), 0);
    unsetenv("TEST_KEY");
    openai_server_stop(elsewhere);
}

static void a_proxy_does_not_see_what_stays_on_this_machine(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1), *proxy = serve(&good_stream, 1);
    static const char *const names[] = {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"};
    for (size_t i = 0; i < COUNT(names); i++) setenv(names[i], openai_server_url(proxy), 1);
    question q = ask_about(server);
    ask(&q);
    for (size_t i = 0; i < COUNT(names); i++) unsetenv(names[i]);
    assert_remote(&q, "Hello big world");
    assert_int_equal(openai_server_connections(proxy), 0);
    end(&q);
    openai_server_stop(server);
    openai_server_stop(proxy);
}

static void a_key_with_a_newline_never_reaches_a_server(void **state) {
    (void)state;
    openai_server *server = serve(&good_stream, 1);
    setenv("TEST_KEY", "sk-very-secret\r\nX-Evil: 1", 1);
    question q = ask_about(server);
    strcpy(q.config.api_key, "env:TEST_KEY");
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_CONFIG, "TEST_KEY: found byte 0x0d");
    assert_lacks(q.answer->decision->degraded_reason, "sk-very");
    assert_int_equal(openai_server_connections(server), 0);
    unsetenv("TEST_KEY");
    end(&q);
    openai_server_stop(server);
}

static void an_unencrypted_address_elsewhere_is_refused(void **state) {
    (void)state;
    question q = ask_about(NULL);
    strcpy(q.config.base_url, "http://192.0.2.1/v1");
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_CONFIG, "expected https");
    assert_int_equal(q.answer->remote->attempts, 0);
    end(&q);
}

/* ---- retries ---------------------------------------------------------------------------------------------------- */

static void what_may_pass_is_tried_again_and_what_will_not_is_not(void **state) {
    (void)state;
#define BUSY(...)                                                                                                      \
    {                                                                                                                  \
        .status = 429, .headers = {__VA_ARGS__}, .pieces = { "{\"error\":{\"message\":\"slow down\"}}" }               \
    }
    static const openai_reply good = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hi") DONE}};
    static const struct {
        const char *name;
        openai_reply first;
        int attempts; /* then the server answers well; 1 = the client gave up */
        double at_least;
    } rows[] = {
        {"429", BUSY(JSON_BODY), 2, 0},
        {"429 with retry-after-ms", BUSY("retry-after-ms: 120"), 2, 0.12},
        {"429 with Retry-After", BUSY("Retry-After: 0.1"), 2, 0.1},
        {"429 with both", BUSY("Retry-After: 60", "retry-after-ms: 60"), 2, 0.06},
        {"429 with a long Retry-After", BUSY("Retry-After: 121"), 1, 0},
        {"429 with one past the deadline", BUSY("Retry-After: 100"), 1, 0},
        {"429 with a date long ago", BUSY("Retry-After: Sun, 06 Nov 1994 08:49:37 GMT"), 2, 0},
        {"429 with a date far off", BUSY("Retry-After: Fri, 01 Jan 2100 00:00:00 GMT"), 1, 0},
        {"429 without money",
         {.status = 429, .pieces = {"{\"error\":{\"message\":\"m\",\"code\":\"insufficient_quota\"}}"}},
         1,
         0},
        {"500", {.status = 500}, 2, 0},
        {"503", {.status = 503}, 2, 0},
        {"529", {.status = 529}, 2, 0},
        {"500 with x-should-retry: false", {.status = 500, .headers = {"x-should-retry: false"}}, 1, 0},
        {"400", {.status = 400}, 1, 0},
        {"400 with x-should-retry: true", {.status = 400, .headers = {"x-should-retry: true"}}, 2, 0},
        {"408", {.status = 408}, 2, 0},
        {"409", {.status = 409}, 2, 0},
        {"a reset before the answer", {.end = OPENAI_END_RESET}, 2, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        openai_server *server = serve((openai_reply[]){rows[i].first, good}, 2);
        question q = ask_about(server);
        ask(&q);
        if ((int)openai_server_requests(server) != rows[i].attempts) {
            fail_msg("%s: %u requests", rows[i].name, openai_server_requests(server));
        }
        if (rows[i].attempts > 1)
            assert_remote(&q, "Hi");
        else
            assert_int_equal(q.answer->decision->degraded, 1);
        assert_int_equal(q.answer->remote->attempts, rows[i].attempts);
        assert_true(q.seconds >= rows[i].at_least);
        assert_true(q.seconds < 2);
        end(&q);
        openai_server_stop(server);
    }
}

static void attempts_end_and_carry_the_same_id(void **state) {
    (void)state;
    char first[64];
    const openai_reply bad = {.status = 500};
    openai_server *server = serve((openai_reply[]){bad}, 1);
    question q = ask_about(server);
    q.config.num_retries = 0;
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_SERVER, "HTTP 500");
    assert_int_equal(openai_server_requests(server), 1);
    snprintf(first, sizeof first, "%s", openai_server_header(server, "Idempotency-Key"));
    assert_int_equal(strlen(first), 36);
    assert_string_equal(openai_server_header(server, "X-Client-Request-Id"), first);
    end(&q);
    q = ask_about(server);
    q.config.retry_after = 0.2;
    q.stop_after_ms = 350; /* between the second and the third attempt */
    ask(&q);
    assert_int_equal(q.status, MINIM_ERR_CANCELLED);
    assert_int_equal(openai_server_requests(server), 3);
    char second[64];
    snprintf(second, sizeof second, "%s", openai_server_header(server, "Idempotency-Key"));
    assert_string_not_equal(first, second);
    q.stop_after_ms = 0;
    q.config.num_retries = 4;
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_SERVER, "HTTP 500");
    assert_int_equal(openai_server_requests(server), 6); /* the router has copied its configuration: 3 attempts */
    end(&q);
    openai_server_stop(server);
}

static void once_text_was_shown_nothing_is_tried_again(void **state) {
    (void)state;
    const openai_reply cut = {
        .headers = {EVENT_STREAM}, .pieces = {CHUNK("He")}, .piece_ms = 20, .end = OPENAI_END_RESET};
    openai_server *server = serve((openai_reply[]){cut, good_stream}, 2);
    question q = ask_about(server);
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_INCOMPLETE, "");
    assert_string_equal(q.shown, "He!small");
    assert_int_equal(openai_server_requests(server), 1);
    end(&q);
    openai_server_stop(server);
}

/* ---- time ------------------------------------------------------------------------------------------------------- */

static void each_clock_ends_the_waiting(void **state) {
    (void)state;
    const openai_reply slow_start = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hi") DONE}, .first_ms = 2000};
    const openai_reply only_pings = {
        .headers = {EVENT_STREAM},
        .pieces = {":\n\n", ":\n\n", ":\n\n", ":\n\n", ":\n\n", ":\n\n", ":\n\n", ":\n\n", ":\n\n", ":\n\n", ":\n\n"},
        .piece_ms = 60};
    const openai_reply falls_silent = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("He")}, .end = OPENAI_END_STALL};
    const openai_reply drips = {.headers = {EVENT_STREAM},
                                .pieces = {CHUNK("a"), CHUNK("b"), CHUNK("c"), CHUNK("d"), CHUNK("e"), CHUNK("f"),
                                           CHUNK("g"), CHUNK("h"), CHUNK("i"), CHUNK("j"), CHUNK("k"), CHUNK("l")},
                                .piece_ms = 60};
    const struct {
        const openai_reply *reply;
        double stream, idle, total;
        const char *says;
    } rows[] = {
        {&slow_start, 0.2, 5, 5, "no token within 0.2 s"},
        {&only_pings, 0.2, 5, 5, "no token within 0.2 s"},
        {&falls_silent, 5, 0.2, 5, "silence for 0.2 s"},
        {&drips, 5, 5, 0.3, "127.0.0.1"},
        {&slow_start, 5, 5, 0.3, "127.0.0.1"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        openai_server *server = serve(rows[i].reply, 1);
        question q = ask_about(server);
        q.config.stream_timeout = rows[i].stream;
        q.config.idle_timeout = rows[i].idle;
        q.config.timeout = rows[i].total;
        ask(&q);
        assert_degraded(&q, MINIM_ROUTE_FAILED_TIMEOUT, rows[i].says);
        assert_true(q.seconds > 0.15 && q.seconds < 1.5);
        assert_int_equal(openai_server_requests(server), 1);
        end(&q);
        openai_server_stop(server);
    }
}

static void a_server_that_never_says_a_word_is_given_up(void **state) {
    (void)state;
    int fd = -1;
    unsigned port = openai_silent_port(&fd);
    question q = ask_about(NULL);
    snprintf(q.config.base_url, sizeof q.config.base_url, "http://127.0.0.1:%u/v1", port);
    q.config.stream_timeout = 0.2;
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_TIMEOUT, "no token within");
    assert_true(q.seconds < 1.5);
    end(&q);
    close(fd);
}

static void waiting_is_cancelled_within_a_tenth_of_a_second(void **state) {
    (void)state;
    const openai_reply silent = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("late")}, .first_ms = 3000};
    const openai_reply stalled = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("He")}, .end = OPENAI_END_STALL};
    const openai_reply busy = {.status = 429, .headers = {"Retry-After: 4"}};
    const openai_reply *replies[] = {&silent, &stalled, &busy};
    for (size_t i = 0; i < COUNT(replies); i++) {
        openai_server *server = serve(replies[i], 1);
        question q = ask_about(server);
        q.stop_after_ms = 100;
        ask(&q);
        assert_int_equal(q.status, MINIM_ERR_CANCELLED);
        assert_true(q.seconds >= 0.1);
        assert_true(q.seconds < 0.5); /* a poll is 50 ms; the rest is for slow machines */
        assert_int_equal(q.local_asked, 1);
        end(&q);
        openai_server_stop(server);
    }
}

static void *cancel_soon(void *user) {
    usleep(100000);
    minim_router_cancel(user);
    return NULL;
}

static void waiting_is_cancelled_from_another_thread(void **state) {
    (void)state;
    const openai_reply stalled = {.headers = {EVENT_STREAM}, .pieces = {CHUNK("He")}, .end = OPENAI_END_STALL};
    openai_server *server = serve((openai_reply[]){good_stream, stalled}, 2);
    question q = ask_about(server);
    ask(&q);
    assert_remote(&q, "Hello big world");
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, q.router), 0);
    ask(&q);
    pthread_join(thread, NULL);
    assert_int_equal(q.status, MINIM_ERR_CANCELLED);
    assert_true(q.seconds < 0.6);
    end(&q);
    openai_server_stop(server);
}

static void *ask_in_thread(void *user) {
    ask(user);
    return NULL;
}

static void routers_run_in_parallel(void **state) {
    (void)state;
    openai_reply slow = good_stream;
    slow.piece_ms = 10;
    openai_server *server = serve(&slow, 1);
    question q[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        q[i] = ask_about(server);
        assert_int_equal(pthread_create(&threads[i], NULL, ask_in_thread, &q[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_remote(&q[i], "Hello big world");
        end(&q[i]);
    }
    openai_server_stop(server);
}

/* Nothing of the machine's own set-up may leak into the tests. */
static int clear_environment(void **state) {
    (void)state;
    static const char *const names[] = {"OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "http_proxy",
                                        "https_proxy",     "HTTPS_PROXY",    "all_proxy",    "ALL_PROXY",
                                        "SSL_CERT_FILE",   "CURL_CA_BUNDLE"};
    for (size_t i = 0; i < COUNT(names); i++) unsetenv(names[i]);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_local_mode_there_is_no_connection_whatever_the_score),
        cmocka_unit_test(above_the_bar_there_is_no_connection),
        cmocka_unit_test(below_the_bar_the_prompt_goes_to_the_server),
        cmocka_unit_test(remote_text_is_shown_while_the_server_still_writes),
        cmocka_unit_test(remote_first_streams_without_the_local_model),
        cmocka_unit_test(several_questions_share_a_connection),
        cmocka_unit_test(answers_come_in_many_forms),
        cmocka_unit_test(every_fault_gives_the_local_answer_marked_degraded),
        cmocka_unit_test(a_server_without_done_is_accepted_when_told_so),
        cmocka_unit_test(a_broken_stream_is_billed_by_estimate),
        cmocka_unit_test(a_port_on_which_nobody_listens_degrades),
        cmocka_unit_test(a_name_without_an_address_degrades),
        cmocka_unit_test(tls_with_a_server_that_has_none_degrades),
        cmocka_unit_test(a_redirect_is_not_followed),
        cmocka_unit_test(a_proxy_does_not_see_what_stays_on_this_machine),
        cmocka_unit_test(a_key_with_a_newline_never_reaches_a_server),
        cmocka_unit_test(an_unencrypted_address_elsewhere_is_refused),
        cmocka_unit_test(what_may_pass_is_tried_again_and_what_will_not_is_not),
        cmocka_unit_test(attempts_end_and_carry_the_same_id),
        cmocka_unit_test(once_text_was_shown_nothing_is_tried_again),
        cmocka_unit_test(each_clock_ends_the_waiting),
        cmocka_unit_test(a_server_that_never_says_a_word_is_given_up),
        cmocka_unit_test(waiting_is_cancelled_within_a_tenth_of_a_second),
        cmocka_unit_test(waiting_is_cancelled_from_another_thread),
        cmocka_unit_test(routers_run_in_parallel),
    };
    return cmocka_run_group_tests(tests, clear_environment, NULL);
}
