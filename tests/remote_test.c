/* remote_test.c: see remote_test.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "../router/support.h"
#include "remote_test.h"

const openai_reply good_stream = {
    .headers = {EVENT_STREAM},
    .pieces = {"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n", CHUNK("Hello"),
               CHUNK(" big"), CHUNK(" world"), FINISH("stop") USAGE DONE}};

question ask_about(openai_server *server) {
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

void ask(question *q) {
    minim_router_backend local = {.state = q, .chat = local_script, .count = q->count};
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

void end(question *q) {
    minim_router_answer_free(q->answer);
    minim_router_free(q->router);
}

openai_server *serve(const openai_reply *replies, size_t n) {
    openai_server *server = openai_server_start(replies, n);
    assert_non_null(server);
    return server;
}

void assert_remote(const question *q, const char *text) {
    if (q->status != MINIM_OK) fail_msg("%s", q->error.text);
    if (q->answer->decision->degraded) fail_msg("degraded: %s", q->answer->decision->degraded_reason);
    assert_int_equal(q->answer->decision->route, MINIM_ROUTE_REMOTE);
    assert_string_equal(q->answer->text, text);
    assert_string_equal(q->shown, text);
}

void assert_degraded(const question *q, minim_route_failure failure, const char *says) {
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

int remote_clear_environment(void **state) {
    (void)state;
    static const char *const names[] = {"OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "http_proxy",
                                        "https_proxy",     "HTTPS_PROXY",    "all_proxy",    "ALL_PROXY",
                                        "SSL_CERT_FILE",   "CURL_CA_BUNDLE"};
    for (size_t i = 0; i < COUNT(names); i++) unsetenv(names[i]);
    return 0;
}
