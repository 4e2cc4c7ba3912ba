/* test_router_wire.c: what comes over the wire, without a wire: event streams, OpenAI's JSON, retries. Left out without
 * the packages of the router's remote (MINIM_WITH_ROUTER). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../router/openai.h"
#include "../router/retry.h"
#include "../router/sse.h"
#include "router_test.h"

/* ---- event streams ---------------------------------------------------------------------------------------------- */

/* Events as text: "[type|data]" one after the other. */
typedef struct event_log {
    char text[4096];
    size_t n;
    int stop_after; /* 0 = never */
    int events;
} event_log;

static int log_event(void *user, const char *type, const char *data, size_t n) {
    event_log *log = user;
    assert_int_equal(data[n], 0);
    log->n += (size_t)snprintf(log->text + log->n, sizeof log->text - log->n, "[%s|%.*s]", type, (int)n, data);
    return ++log->events == log->stop_after;
}

static const char all_of_sse[] = "\xef\xbb\xbf: a ping\r\n\r\n"
                                 "data: one\r\ndata: two\r\n\r\n"
                                 "event: error\ndata:x\n\n"
                                 "id: 5\nretry: 10\nunknown: 1\ndata\n\n"
                                 "event: nothing\n\n"
                                 ":\n: data: no\ndata:  led by a space\r\r"
                                 "data: \xc3\xa4\xf0\x9f\x90\x9c: colon\n\n"
                                 "data: [DONE]";
static const char all_of_sse_events[] =
    "[|one\ntwo][error|x][|][| led by a space][|\xc3\xa4\xf0\x9f\x90\x9c: colon][|[DONE]]";

static void an_event_stream_is_read_alike_wherever_it_is_split(void **state) {
    (void)state;
    size_t n = sizeof all_of_sse - 1;
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = i; j <= n; j++) {
            event_log log = {.n = 0};
            sse_parser parser;
            sse_begin(&parser, 1000, 1000, log_event, &log);
            assert_int_equal(sse_push(&parser, all_of_sse, i), MINIM_OK);
            assert_int_equal(sse_push(&parser, all_of_sse + i, j - i), MINIM_OK);
            assert_int_equal(sse_push(&parser, all_of_sse + j, n - j), MINIM_OK);
            assert_int_equal(sse_finish(&parser), MINIM_OK);
            assert_string_equal(log.text, all_of_sse_events);
            sse_free(&parser);
        }
    }
}

static void an_event_stream_is_read_byte_by_byte(void **state) {
    (void)state;
    event_log log = {.n = 0};
    sse_parser parser;
    sse_begin(&parser, 1000, 1000, log_event, &log);
    for (size_t i = 0; i < sizeof all_of_sse - 1; i++) {
        assert_int_equal(sse_push(&parser, all_of_sse + i, 1), MINIM_OK);
    }
    assert_int_equal(sse_finish(&parser), MINIM_OK);
    assert_string_equal(log.text, all_of_sse_events);
    sse_free(&parser);
}

static minim_status push_all(const char *text, size_t max_line, size_t max_data, event_log *log) {
    sse_parser parser;
    sse_begin(&parser, max_line, max_data, log_event, log);
    minim_status status = sse_push(&parser, text, strlen(text));
    if (status == MINIM_OK) status = sse_finish(&parser);
    sse_free(&parser);
    return status;
}

static void lines_and_events_of_a_stream_are_capped(void **state) {
    (void)state;
    event_log log = {.n = 0};
    assert_int_equal(push_all("data: 12\n\n", 8, 8, &log), MINIM_OK);
    assert_int_equal(push_all("data: 123\n\n", 8, 8, &log), MINIM_ERR_SPACE);
    assert_int_equal(push_all(": a long comment\n", 8, 8, &log), MINIM_ERR_SPACE);
    assert_int_equal(push_all("data:12\ndata:34\ndata:5\n\n", 8, 7, &log), MINIM_OK);
    assert_int_equal(push_all("data:12\ndata:34\ndata:56\n\n", 8, 7, &log), MINIM_ERR_SPACE);
    assert_string_equal(log.text, "[|12][|12\n34\n5]");
}

static void reading_a_stream_stops_when_the_reader_says_so(void **state) {
    (void)state;
    event_log log = {.stop_after = 2};
    assert_int_equal(push_all("data: 1\n\ndata: 2\n\ndata: 3\n\n", 100, 100, &log), MINIM_ERR_CANCELLED);
    assert_string_equal(log.text, "[|1][|2]");
}

/* ---- OpenAI's JSON ---------------------------------------------------------------------------------------------- */

typedef struct read_answer {
    char text[4096];
    size_t n;
    minim_router_reply reply;
    openai_reader reader;
} read_answer;

static int take_text(void *user, const char *text, size_t n) {
    read_answer *answer = user;
    assert_true(answer->n + n < sizeof answer->text);
    memcpy(answer->text + answer->n, text, n);
    answer->n += n;
    answer->text[answer->n] = 0;
    return 0;
}

static void read_begin(read_answer *answer, minim_router_sink *sink) {
    memset(answer, 0, sizeof *answer);
    *sink = (minim_router_sink){.user = answer, .on_text = take_text};
    openai_begin(&answer->reader, sink, "sk-very-secret", &answer->reply, 1 << 20);
}

/* One chunk of a stream; the failure it makes. */
static minim_route_failure read_chunk(const char *json, size_t n, read_answer *answer) {
    minim_router_sink sink;
    read_begin(answer, &sink);
    openai_event(&answer->reader, "", json, n ? n : strlen(json));
    openai_free(&answer->reader);
    return answer->reader.failure;
}

static void chunks_with_wrong_types_are_named_and_never_crash(void **state) {
    (void)state;
    static const struct {
        const char *json;
        minim_route_failure failure;
        const char *detail, *text;
    } rows[] = {
        {"{\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}", MINIM_ROUTE_OK, "", "hi"},
        {"{\"choices\":[{\"delta\":{\"content\":null}}]}", MINIM_ROUTE_OK, "", ""},
        {"{\"choices\":[{\"delta\":{}}]}", MINIM_ROUTE_OK, "", ""},
        {"{\"choices\":[{\"delta\":null}]}", MINIM_ROUTE_OK, "", ""},
        {"{\"choices\":[{}]}", MINIM_ROUTE_OK, "", ""},
        {"{\"choices\":[]}", MINIM_ROUTE_OK, "", ""},
        {"{\"choices\":null}", MINIM_ROUTE_OK, "", ""},
        {"{}", MINIM_ROUTE_OK, "", ""},
        {"{\"choices\":7}", MINIM_ROUTE_FAILED_PROTOCOL, "choices: found a number", ""},
        {"{\"choices\":{}}", MINIM_ROUTE_FAILED_PROTOCOL, "choices: found an object", ""},
        {"{\"choices\":\"\"}", MINIM_ROUTE_FAILED_PROTOCOL, "choices: found a string", ""},
        {"{\"choices\":[1]}", MINIM_ROUTE_FAILED_PROTOCOL, "choices[0]: found a number", ""},
        {"{\"choices\":[null]}", MINIM_ROUTE_FAILED_PROTOCOL, "choices[0]: found null", ""},
        {"{\"choices\":[{\"delta\":true}]}", MINIM_ROUTE_FAILED_PROTOCOL, "choices[0].delta: found true", ""},
        {"{\"choices\":[{\"delta\":[]}]}", MINIM_ROUTE_FAILED_PROTOCOL, "choices[0].delta: found an array", ""},
        {"{\"choices\":[{\"delta\":{\"content\":5}}]}", MINIM_ROUTE_FAILED_PROTOCOL, "content: found a number", ""},
        {"{\"choices\":[{\"delta\":{\"content\":[\"a\"]}}]}", MINIM_ROUTE_FAILED_PROTOCOL, "content: found an array",
         ""},
        {"{\"choices\":[{\"delta\":{\"content\":{}}}]}", MINIM_ROUTE_FAILED_PROTOCOL, "content: found an object", ""},
        {"{\"choices\":[{\"finish_reason\":5}],\"usage\":[],\"model\":{}}", MINIM_ROUTE_OK, "", ""},
        {"{\"choices\":[{\"finish_reason\":\"error\"}]}", MINIM_ROUTE_FAILED_SERVER, "finish_reason error", ""},
        {"[]", MINIM_ROUTE_FAILED_PROTOCOL, "found an array", ""},
        {"[1,2", MINIM_ROUTE_FAILED_PROTOCOL, "malformed JSON", ""},
        {"{\"choices\":[{\"delta\":{\"content\":\"a", MINIM_ROUTE_FAILED_PROTOCOL, "malformed JSON", ""},
        {"hello", MINIM_ROUTE_FAILED_PROTOCOL, "malformed JSON", ""},
        {"5", MINIM_ROUTE_FAILED_PROTOCOL, "malformed JSON", ""},
        {"{\"a\":1e999}", MINIM_ROUTE_FAILED_PROTOCOL, "malformed JSON", ""},
        {"{\"a\":123456789012345678901234567890}", MINIM_ROUTE_OK, "", ""},
        {"{\"error\":null,\"choices\":[{\"delta\":{\"content\":\"x\"}}]}", MINIM_ROUTE_OK, "", "x"},
        {"{\"error\":{\"message\":\"no more\",\"code\":\"insufficient_quota\"}}", MINIM_ROUTE_FAILED_QUOTA, "no more",
         ""},
        {"{\"error\":{\"message\":\"slow down\",\"code\":429}}", MINIM_ROUTE_FAILED_RATE_LIMIT, "slow down", ""},
        {"{\"error\":{\"message\":7,\"code\":{}}}", MINIM_ROUTE_FAILED_SERVER, "reports an error", ""},
        {"{\"error\":\"text\"}", MINIM_ROUTE_FAILED_SERVER, "text", ""},
        {"{\"error\":{\"message\":\"bad key sk-very-secret!\",\"code\":401}}", MINIM_ROUTE_FAILED_AUTH,
         "bad key [key]!", ""},
        {"{\"error\":{\"message\":\"two\\nlines\\u0007\"}}", MINIM_ROUTE_FAILED_SERVER, "two?lines?", ""},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        read_answer answer;
        minim_route_failure failure = read_chunk(rows[i].json, 0, &answer);
        if (failure != rows[i].failure) fail_msg("%s: %s", rows[i].json, minim_route_failure_name(failure));
        assert_has(answer.reader.detail, rows[i].detail);
        assert_lacks(answer.reader.detail, "sk-very-secret");
        assert_string_equal(answer.text, rows[i].text);
    }
}

static void text_with_invalid_utf8_or_nul_becomes_replacement_characters(void **state) {
    (void)state;
    read_answer answer;
    static const char bad[] = "{\"choices\":[{\"delta\":{\"content\":\"a\xff\xc3(\xed\xa0\x80"
                              "b\xf0\x9f\"}}]}";
    assert_int_equal(read_chunk(bad, sizeof bad - 1, &answer), MINIM_ROUTE_OK);
    assert_string_equal(answer.text, "a" U U "(" U U U "b" U U);
    static const char nul[] = "{\"choices\":[{\"delta\":{\"content\":\"a\\u0000b\"}}]}";
    assert_int_equal(read_chunk(nul, sizeof nul - 1, &answer), MINIM_ROUTE_OK);
    assert_string_equal(answer.text, "a" U "b");
    static const char raw_nul[] = "{\"choices\":\0[]}";
    assert_int_equal(read_chunk(raw_nul, sizeof raw_nul - 1, &answer), MINIM_ROUTE_FAILED_PROTOCOL);
    static const char half[] = "{\"choices\":[{\"delta\":{\"content\":\"\\ud83d\"}}]}";
    assert_int_equal(read_chunk(half, sizeof half - 1, &answer), MINIM_ROUTE_FAILED_PROTOCOL);
}

static void a_tower_of_brackets_is_refused(void **state) {
    (void)state;
    read_answer answer;
    size_t n = 200000;
    char *tower = malloc(n);
    assert_non_null(tower);
    memset(tower, '[', n);
    assert_int_equal(read_chunk(tower, n, &answer), MINIM_ROUTE_FAILED_PROTOCOL);
    free(tower);
}

static void usage_counts_only_when_it_makes_sense(void **state) {
    (void)state;
    static const struct {
        const char *json;
        int has;
        uint64_t prompt, completion;
    } rows[] = {
        {"{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}", 1, 3, 4},
        {"{\"usage\":{\"prompt_tokens\":3.0,\"completion_tokens\":0}}", 1, 3, 0},
        {"{\"usage\":{\"prompt_tokens\":-3,\"completion_tokens\":4}}", 0, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1e300}}", 0, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":99999999999999999999999,\"completion_tokens\":4}}", 0, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":\"3\",\"completion_tokens\":4}}", 0, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":3}}", 0, 0, 0},
        {"{\"usage\":null}", 0, 0, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        read_answer answer;
        assert_int_equal(read_chunk(rows[i].json, 0, &answer), MINIM_ROUTE_OK);
        assert_int_equal(answer.reader.has_usage, rows[i].has);
        assert_int_equal(answer.reply.usage.prompt_tokens, rows[i].prompt);
        assert_int_equal(answer.reply.usage.completion_tokens, rows[i].completion);
    }
}

static void a_request_says_what_was_asked_for_and_no_more(void **state) {
    (void)state;
    minim_message messages[] = {{"system", "be \"brief\""}, {"user", "caf\xe9"}};
    const char *stop[] = {"END"};
    minim_router_config config;
    minim_router_config_default(&config);
    minim_router_request request;
    minim_router_request_default(&request);
    request.messages = messages;
    request.n_messages = 2;
    char *body = NULL;
    assert_int_equal(openai_request(&request, &config, &body, NULL), MINIM_OK);
    assert_string_equal(body,
                        "{\"messages\":[{\"role\":\"system\",\"content\":\"be \\\"brief\\\"\"},{\"role\":\"user\","
                        "\"content\":\"caf" U "\"}],\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                        "\"max_tokens\":256}");
    free(body);
    strcpy(config.model, "big");
    config.new_max_tokens = 1;
    request.send = MINIM_ROUTER_SEND_TEMPERATURE | MINIM_ROUTER_SEND_TOP_P | MINIM_ROUTER_SEND_SEED;
    request.sampling.temperature = 0.7f;
    request.sampling.top_p = 0.9f;
    request.sampling.seed = UINT64_MAX;
    request.n_messages = 1;
    request.max_tokens = 7;
    request.stop = stop;
    request.n_stop = 1;
    assert_int_equal(openai_request(&request, &config, &body, NULL), MINIM_OK);
    assert_has(body, "\"model\":\"big\",\"max_completion_tokens\":7,\"temperature\":0.7,\"top_p\":0.9,"
                     "\"seed\":9223372036854775807,\"stop\":[\"END\"]}");
    free(body);
}

/* ---- retries ---------------------------------------------------------------------------------------------------- */

static void servers_say_in_many_forms_when_to_come_back(void **state) {
    (void)state;
    const time_t now = 784111777; /* Sun, 06 Nov 1994 08:49:37 GMT */
    static const struct {
        const char *headers[3];
        double wait; /* of the first retry, with no luck of the dice; -1 = no retry */
    } rows[] = {
        {{NULL}, 0.5},
        {{"Retry-After: 7\r\n"}, 7},
        {{"retry-after: 1.5\r\n"}, 1.5},
        {{"RETRY-AFTER:   3   \r\n"}, 3},
        {{"retry-after-ms: 250\r\n"}, 0.25},
        {{"retry-after-ms: 250\r\n", "retry-after: 9\r\n"}, 0.25},
        {{"retry-after: 9\r\n", "retry-after-ms: 250\r\n"}, 0.25},
        {{"Retry-After: Sun, 06 Nov 1994 08:49:57 GMT\r\n"}, 20},
        {{"Retry-After: Sun, 06 Nov 1994 08:49:00 GMT\r\n"}, 0.5}, /* in the past */
        {{"Retry-After: 120\r\n"}, 120},
        {{"Retry-After: 121\r\n"}, -1},
        {{"Retry-After: 1e9\r\n"}, -1},
        {{"Retry-After: 0\r\n"}, 0.5},
        {{"Retry-After: -5\r\n"}, 0.5},
        {{"Retry-After: soon\r\n"}, 0.5},
        {{"Retry-After:\r\n"}, 0.5},
        {{"Retry-After\r\n"}, 0.5},
        {{"X-Retry-After: 7\r\n"}, 0.5},
        {{"retry-after: nan\r\n"}, 0.5},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        retry_hint hint = {0};
        for (int h = 0; rows[i].headers[h]; h++)
            retry_header(&hint, rows[i].headers[h], strlen(rows[i].headers[h]), now);
        double wait = retry_wait(&hint, 0.5, 0, 0);
        if (fabs(wait - rows[i].wait) > 1e-9) fail_msg("row %zu: %g, not %g", i, wait, rows[i].wait);
    }
}

static void waiting_doubles_up_to_eight_seconds_with_jitter_downwards(void **state) {
    (void)state;
    static const double expected[] = {0.5, 1, 2, 4, 8, 8, 8};
    retry_hint hint = {0};
    for (int i = 0; i < (int)COUNT(expected); i++) {
        assert_true(fabs(retry_wait(&hint, 0.5, i, 0) - expected[i]) < 1e-9);
        assert_true(fabs(retry_wait(&hint, 0.5, i, 0.999999) - expected[i] * 0.75) < 1e-4);
    }
    assert_true(fabs(retry_wait(&hint, 0.5, 1000000, 0) - 8) < 1e-9);
}

static void only_some_statuses_are_tried_again_unless_the_server_says_otherwise(void **state) {
    (void)state;
    static const int again[] = {408, 409, 429, 500, 502, 503, 529}, not_again[] = {300, 400, 401, 402, 403, 404, 422};
    retry_hint none = {0}, yes = {0}, no = {0};
    retry_header(&yes, "X-Should-Retry: true\r\n", 22, 0);
    retry_header(&no, "x-should-retry: FALSE\r\n", 23, 0);
    for (size_t i = 0; i < COUNT(again); i++) {
        assert_true(retry_status(&none, again[i]));
        assert_false(retry_status(&no, again[i]));
    }
    for (size_t i = 0; i < COUNT(not_again); i++) {
        assert_false(retry_status(&none, not_again[i]));
        assert_true(retry_status(&yes, not_again[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_stream_is_read_alike_wherever_it_is_split),
        cmocka_unit_test(an_event_stream_is_read_byte_by_byte),
        cmocka_unit_test(lines_and_events_of_a_stream_are_capped),
        cmocka_unit_test(reading_a_stream_stops_when_the_reader_says_so),
        cmocka_unit_test(chunks_with_wrong_types_are_named_and_never_crash),
        cmocka_unit_test(text_with_invalid_utf8_or_nul_becomes_replacement_characters),
        cmocka_unit_test(a_tower_of_brackets_is_refused),
        cmocka_unit_test(usage_counts_only_when_it_makes_sense),
        cmocka_unit_test(a_request_says_what_was_asked_for_and_no_more),
        cmocka_unit_test(servers_say_in_many_forms_when_to_come_back),
        cmocka_unit_test(waiting_doubles_up_to_eight_seconds_with_jitter_downwards),
        cmocka_unit_test(only_some_statuses_are_tried_again_unless_the_server_says_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
