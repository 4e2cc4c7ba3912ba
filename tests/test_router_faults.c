/* test_router_faults.c: what goes wrong between the remote and a scripted server on loopback gives the local answer,
 * marked degraded; and what must never leave this machine does not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "remote_test.h"

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

/* No decompression, so no bombs; a proxy that compresses all the same is told apart from one that says nonsense. */
static void a_compressed_answer_is_refused(void **state) {
    (void)state;
    static const openai_reply replies[] = {
        {.headers = {EVENT_STREAM, "content-encoding:  gzip"}, .pieces = {"\x1f\x8b\x08..."}},
        {.headers = {EVENT_STREAM, "Content-Encoding: identity"}, .pieces = {CHUNK("Hi") FINISH("stop") DONE}},
    };
    openai_server *server = serve(replies, COUNT(replies));
    question q = ask_about(server);
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_PROTOCOL, "the answer is compressed");
    assert_string_equal(openai_server_header(server, "Accept-Encoding"), "identity");
    ask(&q);
    assert_remote(&q, "Hi");
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fault_gives_the_local_answer_marked_degraded),
        cmocka_unit_test(a_server_without_done_is_accepted_when_told_so),
        cmocka_unit_test(a_compressed_answer_is_refused),
        cmocka_unit_test(a_broken_stream_is_billed_by_estimate),
        cmocka_unit_test(a_port_on_which_nobody_listens_degrades),
        cmocka_unit_test(a_name_without_an_address_degrades),
        cmocka_unit_test(tls_with_a_server_that_has_none_degrades),
        cmocka_unit_test(a_redirect_is_not_followed),
        cmocka_unit_test(a_proxy_does_not_see_what_stays_on_this_machine),
        cmocka_unit_test(a_key_with_a_newline_never_reaches_a_server),
        cmocka_unit_test(an_unencrypted_address_elsewhere_is_refused),
    };
    return cmocka_run_group_tests(tests, remote_clear_environment, NULL);
}
