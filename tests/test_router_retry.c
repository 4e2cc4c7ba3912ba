/* test_router_retry.c: what is tried again, how long it is waited for, and how waiting is cancelled. The server is a
 * script on loopback. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "remote_test.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_may_pass_is_tried_again_and_what_will_not_is_not),
        cmocka_unit_test(attempts_end_and_carry_the_same_id),
        cmocka_unit_test(once_text_was_shown_nothing_is_tried_again),
        cmocka_unit_test(each_clock_ends_the_waiting),
        cmocka_unit_test(a_server_that_never_says_a_word_is_given_up),
        cmocka_unit_test(waiting_is_cancelled_within_a_tenth_of_a_second),
        cmocka_unit_test(waiting_is_cancelled_from_another_thread),
    };
    return cmocka_run_group_tests(tests, remote_clear_environment, NULL);
}
