/* test_router_evidence.c: validators of answers, and what the router makes of a refusal. Left out without jansson
 * (MINIM_WITH_ROUTER). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../router/evidence.h"
#include "router_test.h"

#define SCHEMA                                                                                                         \
    "{\"type\":\"object\",\"required\":[\"name\",\"tags\"],\"additionalProperties\":false,\"properties\":{\"name\":{"  \
    "\"type\":\"string\"},\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":150},\"tags\":{\"type\":\"array\","  \
    "\"minItems\":1,\"maxItems\":2,\"items\":{\"enum\":[\"a\",\"b\"]}}}}"

enum { JSON = 1, PATTERN, SPANS, NUMBERS, COMMAND };

static const struct {
    int rule;
    const char *setting, *source, *answer, *says; /* NULL = accepted */
} rows[] = {
    {JSON, SCHEMA, "", "{\"name\":\"x\",\"tags\":[\"a\"],\"age\":7}", NULL},
    {JSON, SCHEMA, "", "Here:\n```json\n{\"name\":\"x\",\"tags\":[\"a\",\"b\"]}\n```\n", NULL},
    {JSON, SCHEMA, "", "{\"name\":\"x\"}", "a missing member: tags"},
    {JSON, SCHEMA, "", "{\"name\":5,\"tags\":[\"a\"]}", "another type: name"},
    {JSON, SCHEMA, "", "{\"name\":\"x\",\"tags\":[\"c\"]}", "not in enum: tags"},
    {JSON, SCHEMA, "", "{\"name\":\"x\",\"tags\":[]}", "too few items"},
    {JSON, SCHEMA, "", "{\"name\":\"x\",\"tags\":[\"a\",\"a\",\"a\"]}", "too many items"},
    {JSON, SCHEMA, "", "{\"name\":\"x\",\"tags\":[\"a\"],\"age\":-1}", "below minimum"},
    {JSON, SCHEMA, "", "{\"name\":\"x\",\"tags\":[\"a\"],\"age\":1.5}", "another type: age"},
    {JSON, SCHEMA, "", "{\"name\":\"x\",\"tags\":[\"a\"],\"more\":1}", "not foreseen: more"},
    {JSON, SCHEMA, "", "[1]", "another type"},
    {JSON, SCHEMA, "", "Sure! The name is x.", "no JSON"},
    {JSON, SCHEMA, "", "{\"name\":\"x\",", "no JSON"},
    {PATTERN, "^(yes|no)$", "", "yes", NULL},
    {PATTERN, "^(yes|no)$", "", "yes, sir", "evidence.pattern"},
    {SPANS, "", "The cat sat\n on the mat.", "It says \"cat sat on\".", NULL},
    {SPANS, "", "The cat sat on the mat.", "It says \"the dog\".", "\"the dog\" is not in the source"},
    {SPANS, "", "The cat sat on the mat.", "\xe2\x80\x9cThe cat\xe2\x80\x9d and \xc2\xabthe dog\xc2\xbb", "the dog"},
    {SPANS, "", "Ann lives in Rome.", "{\"city\": \"Rome\"}", NULL},
    {SPANS, "", "Ann lives in Rome.", "{\"city\": \"Paris\"}", "\"Paris\""},
    {SPANS, "", "x", "No quotation, an open \" only.", NULL},
    {NUMBERS, "", "3 apples at $1,250.50 each, 12 % tax", "3 cost 3751.5; tax is 12%.", NULL},
    {NUMBERS, "", "40 of 160 people", "That is 25 %, 120 fewer.", NULL},
    {NUMBERS, "", "2, 4 and 9", "The mean is 5, the sum 15, 9/4 is 2.25.", NULL},
    {NUMBERS, "", "10 and 3", "About 3.33.", NULL},
    {NUMBERS, "", "10 and 3", "About 3.35.", "3.35"},
    {NUMBERS, "", "Two trees", "There are 7.", "the number 7"},
    {NUMBERS, "", "alpha 5", "1. First\n2. Second: 5", NULL},
    {NUMBERS, "", "x", "See file a2 and B_52.", NULL},
    {COMMAND, "grep\n-q\nhello", "", "say hello", NULL},
    {COMMAND, "grep\n-q\nhello", "", "say bye", "grep: exit code 1"},
    {COMMAND, "true", "", "it does not read", NULL},
    {COMMAND, "/nowhere/program", "", "x", "/nowhere/program"},
};

static minim_router_config configure(int rule, const char *setting) {
    minim_router_config config;
    minim_router_config_default(&config);
    if (rule == JSON) strcpy(config.evidence_schema, setting);
    if (rule == PATTERN) strcpy(config.evidence_pattern, setting);
    if (rule == COMMAND) strcpy(config.evidence_command, setting);
    config.evidence_spans = rule == SPANS;
    config.evidence_numbers = rule == NUMBERS;
    return config;
}

static void validators_refuse_what_the_evidence_is_against(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        minim_router_config config = configure(rows[i].rule, rows[i].setting);
        minim_message message = {"user", rows[i].source};
        minim_router_request request;
        evidence_rules *rules = NULL;
        minim_error error;
        char detail[256] = "";
        minim_router_request_default(&request);
        request.messages = &message;
        request.n_messages = 1;
        if (evidence_rules_new(&config, &rules, &error)) fail_msg("row %zu: %s", i, error.text);
        int refused = evidence_refuses(rules, &request, rows[i].answer, detail, sizeof detail);
        if (refused != (rows[i].says != NULL)) fail_msg("row %zu: \"%s\": %s", i, rows[i].answer, detail);
        if (refused) assert_has(detail, rows[i].says);
        evidence_rules_free(rules);
    }
}

static void rules_that_make_no_sense_are_refused(void **state) {
    (void)state;
    static const struct {
        int rule;
        const char *setting, *says;
    } bad[] = {{PATTERN, "a(b", "evidence.pattern"},
               {JSON, "[1]", "expected an object"},
               {JSON, "{\"type\":[\"string\",\"null\"]}", "\"type\" is not checked"},
               {JSON, "{\"properties\":{\"a\":{\"anyOf\":[]}}}", "\"anyOf\" is not checked"}};
    for (size_t i = 0; i < COUNT(bad); i++) {
        minim_router_config config = configure(bad[i].rule, bad[i].setting);
        evidence_rules *rules = NULL;
        minim_error error;
        if (evidence_rules_new(&config, &rules, &error) == MINIM_OK) fail_msg("%s", bad[i].setting);
        assert_has(error.text, bad[i].says);
        assert_null(rules);
    }
    minim_router_config none;
    evidence_rules *rules = NULL;
    minim_router_config_default(&none);
    assert_int_equal(evidence_rules_new(&none, &rules, NULL), MINIM_OK);
    assert_null(rules);
}

/* A side that says one text. */
static minim_status say(void *state, const minim_router_request *request, const minim_router_sink *sink,
                        minim_router_reply *reply, minim_error *error) {
    (void)request, (void)error;
    reply->n_logprobs = 1;
    return sink->on_text(sink->user, state, strlen(state)) ? MINIM_ERR_CANCELLED : MINIM_OK;
}

static minim_status make(void *user, const minim_router_config *config, minim_router_backend *backend,
                         minim_error *error) {
    (void)config, (void)error;
    *backend = (minim_router_backend){.state = user, .chat = say};
    return MINIM_OK;
}

static minim_router_answer *ask(const char *local, const char *remote, minim_route_mode mode) {
    static char texts[2][64];
    minim_router_config config = configure(PATTERN, "42");
    minim_message message = {"user", "What is six times seven?"};
    minim_router_backend backend = {.state = texts[0], .chat = say};
    minim_router_request request;
    minim_router_options options;
    minim_router *router = NULL;
    minim_router_answer *answer = NULL;
    minim_error error;
    strcpy(texts[0], local);
    strcpy(texts[1], remote);
    config.mode = mode;
    strcpy(config.base_url, "https://unused.invalid/v1");
    minim_router_request_default(&request);
    request.messages = &message;
    request.n_messages = 1;
    minim_router_options_default(&options);
    options.config = &config;
    options.local = &backend;
    options.remote = make;
    options.remote_user = texts[1];
    if (minim_router_new(&options, &router, &error)) fail_msg("%s", error.text);
    if (minim_router_ask(router, &request, NULL, &answer, &error)) fail_msg("%s", error.text);
    minim_router_free(router);
    return answer;
}

static void a_refused_answer_goes_on_or_is_marked(void **state) {
    (void)state;
    static const struct {
        const char *local, *remote;
        minim_route_mode mode;
        minim_route route;
        minim_route_reason reason;
        int degraded;
    } cases[] = {
        {"it is 42", "it is 42!", MINIM_ROUTE_MODE_CASCADE, MINIM_ROUTE_LOCAL, MINIM_ROUTE_REASON_SCORE_PASSED, 0},
        {"it is 41", "it is 42!", MINIM_ROUTE_MODE_CASCADE, MINIM_ROUTE_REMOTE, MINIM_ROUTE_REASON_EVIDENCE, 0},
        {"it is 41", "it is 43!", MINIM_ROUTE_MODE_CASCADE, MINIM_ROUTE_LOCAL, MINIM_ROUTE_REASON_REMOTE_FAILED, 1},
        {"it is 42", "it is 43!", MINIM_ROUTE_MODE_REMOTE, MINIM_ROUTE_LOCAL, MINIM_ROUTE_REASON_REMOTE_FAILED, 1},
        {"it is 41", "it is 42!", MINIM_ROUTE_MODE_LOCAL, MINIM_ROUTE_LOCAL, MINIM_ROUTE_REASON_LOCAL_ONLY, 1},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        minim_router_answer *answer = ask(cases[i].local, cases[i].remote, cases[i].mode);
        const minim_route_decision *d = answer->decision;
        if (d->route != cases[i].route || d->reason != cases[i].reason || d->degraded != cases[i].degraded) {
            fail_msg("case %zu: %s, %s, %s", i, answer->text, minim_route_reason_name(d->reason), d->degraded_reason);
        }
        if (d->degraded) assert_has(d->degraded_reason, "evidence");
        minim_router_answer_free(answer);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(validators_refuse_what_the_evidence_is_against),
        cmocka_unit_test(rules_that_make_no_sense_are_refused),
        cmocka_unit_test(a_refused_answer_goes_on_or_is_marked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
