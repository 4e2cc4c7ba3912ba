/* remote_test.h: what the tests of the remote over libcurl share: a question that a router with a scripted local model
 * (one log-probability, the text "small") asks a scripted server, and what came of it. Include it behind cmocka.h. */
#ifndef TESTS_REMOTE_TEST_H
#define TESTS_REMOTE_TEST_H

#include "../router/minim_router.h"
#include "openai_server.h"
#include "router_test.h"

/* ---- what servers say ------------------------------------------------------------------------------------------- */

#define CHUNK(text)  "data: {\"model\":\"big-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define FINISH(why)  "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"" why "\"}]}\n\n"
#define USAGE        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":3}}\n\n"
#define DONE         "data: [DONE]\n\n"
#define EVENT_STREAM "Content-Type: text/event-stream"
#define JSON_BODY    "Content-Type: application/json"

/* "Hello big world" in five pieces */
extern const openai_reply good_stream;

/* ---- one question to one server --------------------------------------------------------------------------------- */

typedef struct question {
    /* set by the test */
    minim_router_config config;
    double local_logprob;
    int stop_after_ms;                                                   /* 0 = never */
    uint64_t (*count)(void *question, const char *text, size_t n_bytes); /* the local tokenizer; NULL = none */
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

/* A question to this server, to be changed before ask(); NULL = set config.base_url. */
question ask_about(openai_server *server);
/* May be called again: the router stays. */
void ask(question *q);
void end(question *q);
openai_server *serve(const openai_reply *replies, size_t n);

/* The remote answered with this text. */
void assert_remote(const question *q, const char *text);
/* The remote failed in this way, and the local answer was given instead. */
void assert_degraded(const question *q, minim_route_failure failure, const char *says);

/* Setup of a group: nothing of the machine's own may leak into the tests. */
int remote_clear_environment(void **state);

#endif
