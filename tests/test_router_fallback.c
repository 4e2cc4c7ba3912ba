/* test_router_fallback.c: several servers, and the circuit breaker of each. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../router/remote.h" /* needs MINIM_WITH_ROUTER */
#include "openai_server.h"
#include "router_test.h"

static void a_breaker_opens_lets_one_through_and_closes(void **state) {
    (void)state;
    remote_breaker b = {0};
    for (int i = 0; i < 3; i++) {
        assert_true(breaker_allows(&b, 10));
        breaker_note(&b, MINIM_ROUTE_FAILED_SERVER, 3, 5, 10);
    }
    assert_false(breaker_allows(&b, 10));
    assert_false(breaker_allows(&b, 14.9));
    assert_true(breaker_allows(&b, 15));  /* the probe */
    assert_false(breaker_allows(&b, 15)); /* exactly one */
    breaker_note(&b, MINIM_ROUTE_FAILED_TIMEOUT, 3, 5, 15);
    assert_false(breaker_allows(&b, 19)); /* one failure is enough now */
    assert_true(breaker_allows(&b, 20));
    breaker_release(&b); /* cancelled: nothing is known */
    assert_true(breaker_allows(&b, 20));
    breaker_note(&b, MINIM_ROUTE_OK, 3, 5, 20);
    for (int i = 0; i < 2; i++) {
        assert_true(breaker_allows(&b, 20));
        breaker_note(&b, MINIM_ROUTE_FAILED_CONNECT, 3, 5, 20);
    }
    assert_true(breaker_allows(&b, 20));
    breaker_note(&b, MINIM_ROUTE_FAILED_REQUEST, 3, 5, 20); /* our fault, not the server's */
    assert_true(breaker_allows(&b, 20));
    breaker_note(&b, MINIM_ROUTE_FAILED_AUTH, 3, 5, 20);
    assert_false(breaker_allows(&b, 1e9));
}

static const openai_reply good = {
    .headers = {"Content-Type: text/event-stream"},
    .pieces = {"data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: [DONE]\n\n"}};
static const openai_reply broken = {.status = 500}, unauthorized = {.status = 401};
static const openai_reply breaks_off = {.headers = {"Content-Type: text/event-stream"},
                                        .pieces = {"data: {\"choices\":[{\"delta\":{\"content\":\"He\"}}]}\n\n"},
                                        .end = OPENAI_END_ABORT};

static int keep_text(void *user, const char *text, size_t n) {
    strncat(user, text, n);
    return 0;
}

static minim_status ask(const minim_router_backend *backend, char text[64], minim_router_reply *reply,
                        minim_error *error) {
    minim_message message = {"user", "What?"};
    minim_router_request request;
    minim_router_sink sink = {text, keep_text, NULL};
    minim_router_request_default(&request);
    request.messages = &message;
    request.n_messages = 1;
    text[0] = 0;
    *reply = (minim_router_reply){.size = sizeof *reply};
    return backend->chat(backend->state, &request, &sink, reply, error);
}

static minim_router_config configure(const openai_server *first, const openai_server *second) {
    minim_router_config config;
    minim_router_config_default(&config);
    config.num_retries = 0;
    strcpy(config.base_url, openai_server_url(first));
    if (second) strcpy(config.fallbacks[0].base_url, openai_server_url(second));
    return config;
}

static void the_next_server_is_asked_when_one_fails(void **state) {
    (void)state;
    openai_server *first = openai_server_start(&broken, 1), *second = openai_server_start(&good, 1);
    minim_router_config config = configure(first, second);
    minim_router_backend backend;
    minim_router_reply reply;
    minim_error error;
    char text[64];
    setenv("TEST_FIRST", "sk-first", 1);
    setenv("TEST_SECOND", "sk-second", 1);
    strcpy(config.api_key, "env:TEST_FIRST");
    strcpy(config.model, "m1");
    strcpy(config.fallbacks[0].api_key, "env:TEST_SECOND");
    strcpy(config.fallbacks[0].model, "m2");
    if (minim_router_remote_http(NULL, &config, &backend, &error)) fail_msg("%s", error.text);
    for (int i = 0; i < 5; i++) {
        if (ask(&backend, text, &reply, &error)) fail_msg("%s", error.text);
        assert_string_equal(text, "Hi");
        assert_int_equal(reply.attempts, i < 3 ? 2 : 1); /* then the first one is left alone */
    }
    assert_int_equal(openai_server_requests(first), 3);
    assert_string_equal(openai_server_header(first, "Authorization"), "Bearer sk-first");
    assert_string_equal(openai_server_header(second, "Authorization"), "Bearer sk-second"); /* each key to its own */
    assert_has(openai_server_body(second), "\"m2\"");
    backend.free(backend.state);
    openai_server_stop(first);
    openai_server_stop(second);
}

static void a_server_that_failed_is_left_alone_and_tried_again(void **state) {
    (void)state;
    openai_server *server = openai_server_start((openai_reply[]){broken, broken, good}, 3);
    minim_router_config config = configure(server, NULL);
    minim_router_backend backend;
    minim_router_reply reply;
    minim_error error;
    char text[64];
    config.allowed_fails = 2;
    config.cooldown_time = 0.2;
    if (minim_router_remote_http(NULL, &config, &backend, &error)) fail_msg("%s", error.text);
    for (int i = 0; i < 4; i++) assert_int_equal(ask(&backend, text, &reply, &error), MINIM_ERR_IO);
    assert_int_equal(openai_server_requests(server), 2);
    assert_has(error.text, "left alone");
    assert_int_equal(reply.attempts, 0);
    double end = router_now() + 0.25;
    while (router_now() < end) usleep(10000);
    assert_int_equal(ask(&backend, text, &reply, &error), MINIM_OK);
    backend.free(backend.state);
    openai_server_stop(server);
    server = openai_server_start((openai_reply[]){unauthorized, good}, 2);
    config = configure(server, NULL);
    if (minim_router_remote_http(NULL, &config, &backend, &error)) fail_msg("%s", error.text);
    for (int i = 0; i < 3; i++) assert_int_equal(ask(&backend, text, &reply, &error), MINIM_ERR_IO);
    assert_int_equal(openai_server_requests(server), 1);
    assert_has(error.text, "refused the key");
    backend.free(backend.state);
    config.disable_cooldowns = 1;
    if (minim_router_remote_http(NULL, &config, &backend, &error)) fail_msg("%s", error.text);
    assert_int_equal(ask(&backend, text, &reply, &error), MINIM_OK);
    backend.free(backend.state);
    openai_server_stop(server);
}

static void once_a_word_was_said_nobody_else_is_asked(void **state) {
    (void)state;
    openai_server *first = openai_server_start(&breaks_off, 1), *second = openai_server_start(&good, 1);
    minim_router_config config = configure(first, second);
    minim_router_backend backend;
    minim_router_reply reply;
    minim_error error;
    char text[64];
    if (minim_router_remote_http(NULL, &config, &backend, &error)) fail_msg("%s", error.text);
    assert_int_equal(ask(&backend, text, &reply, &error), MINIM_ERR_IO);
    assert_string_equal(text, "He");
    assert_int_equal(openai_server_requests(second), 0);
    backend.free(backend.state);
    strcpy(config.fallbacks[0].base_url, "http://192.0.2.1/v1"); /* checked before anybody is asked */
    assert_int_equal(minim_router_remote_check(&config, &error), MINIM_ERR_ARGUMENT);
    assert_has(error.text, "192.0.2.1");
    assert_int_equal(minim_router_remote_http(NULL, &config, &backend, &error), MINIM_ERR_ARGUMENT);
    openai_server_stop(first);
    openai_server_stop(second);
}

static void a_request_that_is_too_long_goes_to_a_server_with_more_room(void **state) {
    (void)state;
    static const openai_reply too_long[] = {
        {.status = 400, .pieces = {"{\"error\":{\"message\":\"too long\",\"code\":\"context_length_exceeded\"}}"}},
        {.status = 400, /* as llama-server says it */
         .pieces = {"{\"error\":{\"code\":400,\"message\":\"too long\",\"type\":\"exceed_context_size_error\"}}"}}};
    for (size_t i = 0; i < 2; i++) {
        openai_server *first = openai_server_start(&too_long[i], 1), *second = openai_server_start(&good, 1),
                      *longer = openai_server_start(&good, 1);
        minim_router_config config = configure(first, second);
        minim_router_backend backend;
        minim_router_reply reply;
        minim_error error;
        char text[64];
        strcpy(config.context_fallbacks[0].base_url, openai_server_url(longer));
        strcpy(config.context_fallbacks[0].model, "m-long");
        if (minim_router_remote_http(NULL, &config, &backend, &error)) fail_msg("%s", error.text);
        for (int k = 0; k < 5; k++) { /* that says nothing about the first server: it is asked each time */
            if (ask(&backend, text, &reply, &error)) fail_msg("%s", error.text);
            assert_int_equal(reply.fallbacks, 1);
        }
        assert_int_equal(openai_server_requests(first), 5);
        assert_int_equal(openai_server_requests(second), 0);
        assert_has(openai_server_body(longer), "\"m-long\"");
        backend.free(backend.state);
        config.context_fallbacks[0].base_url[0] = 0; /* none named: the others are as good as any */
        if (minim_router_remote_http(NULL, &config, &backend, &error)) fail_msg("%s", error.text);
        assert_int_equal(ask(&backend, text, &reply, &error), MINIM_OK);
        assert_int_equal(openai_server_requests(second), 1);
        backend.free(backend.state);
        config.max_fallbacks = 0;
        if (minim_router_remote_http(NULL, &config, &backend, &error)) fail_msg("%s", error.text);
        assert_int_equal(ask(&backend, text, &reply, &error), MINIM_ERR_IO);
        assert_int_equal(reply.failure, MINIM_ROUTE_FAILED_CONTEXT);
        assert_int_equal(openai_server_requests(second), 1);
        backend.free(backend.state);
        openai_server_stop(first);
        openai_server_stop(second);
        openai_server_stop(longer);
    }
}

static void a_server_for_long_requests_is_not_asked_for_others(void **state) {
    (void)state;
    openai_server *first = openai_server_start(&broken, 1), *longer = openai_server_start(&good, 1);
    minim_router_config config = configure(first, NULL);
    minim_router_backend backend;
    minim_router_reply reply;
    minim_error error;
    char text[64];
    strcpy(config.context_fallbacks[0].base_url, openai_server_url(longer));
    if (minim_router_remote_http(NULL, &config, &backend, &error)) fail_msg("%s", error.text);
    assert_int_equal(ask(&backend, text, &reply, &error), MINIM_ERR_IO);
    assert_int_equal(openai_server_requests(longer), 0);
    backend.free(backend.state);
    openai_server_stop(first);
    openai_server_stop(longer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_breaker_opens_lets_one_through_and_closes),
        cmocka_unit_test(the_next_server_is_asked_when_one_fails),
        cmocka_unit_test(a_server_that_failed_is_left_alone_and_tried_again),
        cmocka_unit_test(once_a_word_was_said_nobody_else_is_asked),
        cmocka_unit_test(a_request_that_is_too_long_goes_to_a_server_with_more_room),
        cmocka_unit_test(a_server_for_long_requests_is_not_asked_for_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
