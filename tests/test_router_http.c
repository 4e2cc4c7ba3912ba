/* test_router_http.c: the remote over libcurl against a scripted server on loopback: good answers in every form, and
 * the whole cascade. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <pthread.h>

#include "remote_test.h"

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

/* Ten tokens a byte, which no other estimate comes to. */
static uint64_t count_tens(void *user, const char *text, size_t n_bytes) {
    (void)user;
    assert_int_equal(strlen(text), n_bytes);
    return 10 * n_bytes;
}

static uint64_t count_nothing(void *user, const char *text, size_t n_bytes) {
    (void)user, (void)text, (void)n_bytes;
    return 0;
}

static void what_no_server_counts_the_local_tokenizer_does(void **state) {
    (void)state;
    static const openai_reply replies[] = {
        {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hel"), CHUNK("lo"), FINISH("stop") DONE}},
        {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hello"), CHUNK(" b"), CHUNK("ig")}, .piece_ms = 60},
        {.headers = {JSON_BODY}, .pieces = {"{\"choices\":[{\"message\":{\"content\":\"Whole\"}}]}"}},
        {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hello") FINISH("stop") USAGE DONE}},
        {.headers = {EVENT_STREAM}, .pieces = {CHUNK("Hello") FINISH("stop") DONE}},
    };
    openai_server *server = serve(replies, COUNT(replies));
    question q = ask_about(server);
    q.count = count_tens;
    for (int i = 0; i < 3; i++) {
        ask(&q); /* the second one breaks off */
        assert_int_equal(q.answer->decision->degraded, i == 1);
        assert_int_equal(q.answer->remote->usage.estimated, 1);
        assert_int_equal(q.answer->remote->usage.prompt_tokens, 50); /* "What?" */
        assert_int_equal(q.answer->remote->usage.completion_tokens, i == 1 ? 90 : 50);
    }
    ask(&q);
    assert_int_equal(q.answer->remote->usage.estimated, 0); /* the server's own figures go first */
    assert_int_equal(q.answer->remote->usage.prompt_tokens, 11);
    end(&q);
    question other = ask_about(server); /* one that does not know */
    other.count = count_nothing;
    ask(&other);
    assert_int_equal(other.answer->remote->usage.prompt_tokens, 2);
    assert_int_equal(other.answer->remote->usage.completion_tokens, 2);
    end(&other);
    openai_server_stop(server);
}

/* In one piece: the server is asked for that, and its first byte may take longer than a first token. */
static void a_gateway_that_can_not_stream_is_asked_for_one_piece(void **state) {
    (void)state;
    const openai_reply whole = {
        .headers = {JSON_BODY},
        .pieces = {"{\"model\":\"m\",\"choices\":[{\"message\":{\"content\":\"Whole\"},\"finish_reason\":\"stop\"}],"
                   "\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2}}"},
        .first_ms = 300};
    openai_server *server = serve(&whole, 1);
    question q = ask_about(server);
    q.config.stream = 0;
    q.config.stream_timeout = 0.1;
    ask(&q);
    assert_remote(&q, "Whole");
    assert_int_equal(q.answer->remote->usage.completion_tokens, 2);
    assert_has(openai_server_body(server), "\"stream\":false");
    assert_lacks(openai_server_body(server), "stream_options");
    end(&q);
    q = ask_about(server);
    q.config.stream_timeout = 0.1;
    q.config.num_retries = 0;
    ask(&q);
    assert_degraded(&q, MINIM_ROUTE_FAILED_TIMEOUT, "stream_timeout");
    assert_has(openai_server_body(server), "\"stream\":true,\"stream_options\":{\"include_usage\":true}");
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_local_mode_there_is_no_connection_whatever_the_score),
        cmocka_unit_test(above_the_bar_there_is_no_connection),
        cmocka_unit_test(below_the_bar_the_prompt_goes_to_the_server),
        cmocka_unit_test(remote_text_is_shown_while_the_server_still_writes),
        cmocka_unit_test(remote_first_streams_without_the_local_model),
        cmocka_unit_test(several_questions_share_a_connection),
        cmocka_unit_test(answers_come_in_many_forms),
        cmocka_unit_test(what_no_server_counts_the_local_tokenizer_does),
        cmocka_unit_test(a_gateway_that_can_not_stream_is_asked_for_one_piece),
        cmocka_unit_test(routers_run_in_parallel),
    };
    return cmocka_run_group_tests(tests, remote_clear_environment, NULL);
}
