/* openai.c: see openai.h. */
#include "openai.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the request ------------------------------------------------------------------------------------------------ */

/* A string for JSON, invalid UTF-8 replaced; NULL when memory is out. */
static json_t *openai_string(const char *text) {
    router_bytes clean = {.limit = SIZE_MAX / 4};
    json_t *string = NULL;
    if (router_utf8_append(&clean, text, strlen(text)) == MINIM_OK) string = json_stringn(clean.data, clean.n);
    router_bytes_free(&clean);
    return string;
}

/* The conversation, and behind it the beginning of the answer that is to be continued. */
static json_t *openai_messages(const minim_router_request *request, const minim_router_config *config) {
    json_t *array = json_array();
    int has_prefix = request->prefix && request->prefix[0];
    for (size_t i = 0; array && i < request->n_messages + (size_t)has_prefix; i++) {
        int is_prefix = i == request->n_messages;
        json_t *message = json_object();
        /* Each call releases the value it is given, also when it fails or the object is NULL. */
        int failed =
            json_object_set_new(message, "role", openai_string(is_prefix ? "assistant" : request->messages[i].role));
        failed |= json_object_set_new(message, "content",
                                      openai_string(is_prefix ? request->prefix : request->messages[i].content));
        if (is_prefix && config->continuation == MINIM_ROUTE_CONTINUE_PREFIX)
            failed |= json_object_set_new(message, "prefix", json_true());
        if (is_prefix && config->continuation == MINIM_ROUTE_CONTINUE_PARTIAL)
            failed |= json_object_set_new(message, "partial", json_true());
        if (failed) {
            json_decref(message);
            json_decref(array);
            return NULL;
        }
        if (json_array_append_new(array, message)) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *openai_stop(const minim_router_request *request) {
    json_t *array = json_array();
    for (size_t i = 0; array && i < request->n_stop; i++) {
        if (json_array_append_new(array, openai_string(request->stop[i]))) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static int openai_options(json_t *body, const minim_router_request *request, const minim_router_config *config) {
    int failed = 0;
    if (config->model[0]) failed |= json_object_set_new(body, "model", openai_string(config->model));
    if (request->max_tokens > 0) {
        const char *name = config->new_max_tokens ? "max_completion_tokens" : "max_tokens";
        failed |= json_object_set_new(body, name, json_integer(request->max_tokens));
    }
    const minim_sampling *sampling = &request->sampling;
    if (request->send & MINIM_ROUTER_SEND_TEMPERATURE) {
        failed |= json_object_set_new(body, "temperature", json_real((double)sampling->temperature));
    }
    if (request->send & MINIM_ROUTER_SEND_TOP_P) {
        failed |= json_object_set_new(body, "top_p", json_real((double)sampling->top_p));
    }
    if (request->send & MINIM_ROUTER_SEND_SEED) { /* a seed past 2^63 - 1 does not fit the servers' integers */
        failed |= json_object_set_new(body, "seed", json_integer((json_int_t)(sampling->seed & INT64_MAX)));
    }
    if (request->n_stop) failed |= json_object_set_new(body, "stop", openai_stop(request));
    if (request->top_logprobs > 0) {
        failed |= json_object_set_new(body, "logprobs", json_true());
        failed |= json_object_set_new(body, "top_logprobs", json_integer(request->top_logprobs));
    }
    if (request->prefix && request->prefix[0] && config->continuation == MINIM_ROUTE_CONTINUE_FINAL) {
        failed |= json_object_set_new(body, "continue_final_message", json_true());
        failed |= json_object_set_new(body, "add_generation_prompt", json_false());
    }
    if (config->provider[0]) failed |= json_object_set_new(body, "provider", json_loads(config->provider, 0, NULL));
    return failed;
}

minim_status openai_request(const minim_router_request *request, const minim_router_config *config, char **text,
                            minim_error *error) {
    json_t *body = json_object();
    int failed = json_object_set_new(body, "messages", openai_messages(request, config));
    failed |= json_object_set_new(body, "stream", json_boolean(config->stream));
    if (config->stream) failed |= json_object_set_new(body, "stream_options", json_pack("{sb}", "include_usage", 1));
    failed |= openai_options(body, request, config);
    /* 6 digits: temperatures are float, 0.7f is not to become 0.69999998807. */
    *text = failed ? NULL : json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(body);
    return *text ? MINIM_OK : router_fail_memory(error, "the request");
}

/* ---- the reader ------------------------------------------------------------------------------------------------- */

void openai_begin(openai_reader *reader, const minim_router_sink *sink, const char *secret, minim_router_reply *reply,
                  size_t max_bytes) {
    memset(reader, 0, sizeof *reader);
    reader->sink = sink;
    reader->secret = secret;
    reader->reply = reply;
    size_t limit = max_bytes < SIZE_MAX / 8 ? max_bytes * 3 : SIZE_MAX / 4; /* a bad byte becomes three */
    reader->json.limit = reader->text.limit = limit;
}

void openai_free(openai_reader *reader) {
    router_bytes_free(&reader->json);
    router_bytes_free(&reader->text);
}

/* The first failure is the one that is told. Returns non-zero. */
static int openai_fail(openai_reader *reader, minim_route_failure failure, const char *format, ...) ROUTER_PRINTF(3, 4);

static int openai_fail(openai_reader *reader, minim_route_failure failure, const char *format, ...) {
    if (reader->failure) return 1;
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    reader->failure = failure;
    router_line(reader->detail, sizeof reader->detail, "%s", text);
    return 1;
}

static const char *openai_type(const json_t *value) {
    static const char *const words[] = {"an object", "an array", "a string", "a number",
                                        "a number",  "true",     "false",    "null"};
    return value ? words[json_typeof(value)] : "nothing";
}

/* What the server wrote, without the key, short enough to leave room for the rest of the line. */
static void openai_quote(const openai_reader *reader, const char *text, char *buffer, size_t capacity) {
    char *copy = strdup(text);
    if (copy) router_redact(copy, reader->secret);
    router_line(buffer, capacity, "%s", copy ? copy : "");
    free(copy);
}

/* NULL after a failure was noted. */
static json_t *openai_parse(openai_reader *reader, const char *data, size_t n) {
    json_error_t error;
    reader->json.n = 0;
    minim_status status = router_utf8_append(&reader->json, data, n);
    if (status != MINIM_OK) {
        openai_fail(reader, MINIM_ROUTE_FAILED_TOO_LARGE, "no room for %zu bytes of JSON", n);
        return NULL;
    }
    json_t *root = json_loadb(reader->json.data, reader->json.n, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    if (!root && !error.text[0]) { /* jansson has no words for it */
        openai_fail(reader, MINIM_ROUTE_FAILED_TOO_LARGE, "out of memory for %zu bytes of JSON", n);
        return NULL;
    }
    if (!root) {
        char *near = strstr(error.text, " near "); /* the content stays out of messages */
        if (near) *near = 0;
        openai_fail(reader, MINIM_ROUTE_FAILED_PROTOCOL, "malformed JSON at byte %d of %zu: %s", error.position, n,
                    error.text);
        return NULL;
    }
    if (json_is_object(root)) return root;
    openai_fail(reader, MINIM_ROUTE_FAILED_PROTOCOL, "found %s, expected a JSON object", openai_type(root));
    json_decref(root);
    return NULL;
}

/* ---- errors ----------------------------------------------------------------------------------------------------- */

static minim_route_failure openai_failure(int status, const char *code, const char *type) {
    if (!strcmp(code, "context_length_exceeded") || !strcmp(type, "exceed_context_size_error"))
        return MINIM_ROUTE_FAILED_CONTEXT; /* OpenAI's word, and llama-server's */
    if (status == 402 || !strcmp(code, "insufficient_quota")) return MINIM_ROUTE_FAILED_QUOTA;
    if (status == 401 || status == 403 || !strcmp(code, "invalid_api_key")) return MINIM_ROUTE_FAILED_AUTH;
    if (status == 429 || !strcmp(code, "rate_limit_exceeded")) return MINIM_ROUTE_FAILED_RATE_LIMIT;
    if (status == 408) return MINIM_ROUTE_FAILED_TIMEOUT;
    return status && status < 500 ? MINIM_ROUTE_FAILED_REQUEST : MINIM_ROUTE_FAILED_SERVER;
}

/* The error of a body, in the forms that servers have: {"error": {"message", "code"}}, {"error": "text"},
 * {"message": "text"}, {"detail": "text"}. */
static const char *openai_error_text(const json_t *root, const char **code, const char **type, int *status) {
    const json_t *error = json_object_get(root, "error");
    const json_t *at = json_is_object(error) ? error : root;
    const char *text = json_is_string(error) ? json_string_value(error) : NULL;
    if (!text) text = json_string_value(json_object_get(at, "message"));
    if (!text) text = json_string_value(json_object_get(at, "detail"));
    const json_t *number = json_object_get(at, "code");
    const json_t *kind = json_object_get(at, "type");
    if (json_is_string(number)) *code = json_string_value(number);
    if (json_is_string(kind)) *type = json_string_value(kind);
    /* OpenRouter's code is the HTTP status that it would have sent. */
    double value = json_number_value(number);
    if (!*status && value >= 100 && value < 600) *status = (int)value;
    return text ? text : "";
}

void openai_error(openai_reader *reader, int status, const char *data, size_t n) {
    const char *code = "", *type = "", *text = "";
    int body_status = status;
    json_t *root = json_loadb(data ? data : "", n, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    char quote[200];
    if (root) text = openai_error_text(root, &code, &type, &body_status);
    openai_quote(reader, text, quote, sizeof quote);
    if (status >= 300 && status < 400) {
        openai_fail(reader, MINIM_ROUTE_FAILED_REQUEST, "HTTP %d: a redirect, which is not followed", status);
    } else {
        openai_fail(reader, openai_failure(status, code, type), "HTTP %d%s%s", status, quote[0] ? ": " : "", quote);
    }
    json_decref(root);
}

/* Is there an error in a body that came with 200? Notes it and returns 1. */
static int openai_error_inside(openai_reader *reader, const json_t *root, const char *event_type) {
    const json_t *error = json_object_get(root, "error");
    int is_error = !strcmp(event_type, "error") || (error && !json_is_null(error) && !json_is_false(error));
    if (!is_error) return 0;
    const char *code = "", *type = "";
    int status = 0;
    char quote[200];
    openai_quote(reader, openai_error_text(root, &code, &type, &status), quote, sizeof quote);
    openai_fail(reader, openai_failure(status, code, type), "the server reports an error%s%s", quote[0] ? ": " : "",
                quote);
    return 1;
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

/* Tokens as a count; 0 when it is no sensible one. */
static int openai_count(const json_t *usage, const char *name, uint64_t *count) {
    double value = json_number_value(json_object_get(usage, name));
    if (!(value >= 0 && value <= 9007199254740992.0) || !json_is_number(json_object_get(usage, name))) return 0;
    *count = (uint64_t)value;
    return 1;
}

static void openai_usage(openai_reader *reader, const json_t *root) {
    const json_t *usage = json_object_get(root, "usage");
    uint64_t prompt, completion;
    if (!openai_count(usage, "prompt_tokens", &prompt)) return;
    if (!openai_count(usage, "completion_tokens", &completion)) return;
    reader->reply->usage.prompt_tokens = prompt;
    reader->reply->usage.completion_tokens = completion;
    reader->has_usage = 1;
}

static void openai_model(openai_reader *reader, const json_t *root) {
    const char *model = json_string_value(json_object_get(root, "model"));
    if (model && !reader->reply->model[0]) {
        openai_quote(reader, model, reader->reply->model, sizeof reader->reply->model);
    }
}

static int openai_finish(openai_reader *reader, const json_t *choice) {
    const char *reason = json_string_value(json_object_get(choice, "finish_reason"));
    if (!reason) return 0;
    if (!strcmp(reason, "error")) {
        return openai_fail(reader, MINIM_ROUTE_FAILED_SERVER, "the server ended its answer with finish_reason error");
    }
    reader->has_finish = 1;
    reader->reply->finish = !strcmp(reason, "stop")     ? MINIM_ROUTE_FINISH_END
                            : !strcmp(reason, "length") ? MINIM_ROUTE_FINISH_LENGTH
                                                        : MINIM_ROUTE_FINISH_OTHER;
    return 0;
}

/* The best first tokens: logprobs.content[0].top_logprobs of a choice, where the server has them. */
static void openai_top(minim_router_reply *reply, const json_t *choice) {
    const json_t *content = json_object_get(json_object_get(choice, "logprobs"), "content");
    const json_t *list = json_object_get(json_array_get(content, 0), "top_logprobs"), *item;
    size_t i;
    if (reply->n_top || !json_is_array(list)) return;
    json_array_foreach(list, i, item) {
        const char *text = json_string_value(json_object_get(item, "token"));
        double logprob = json_number_value(json_object_get(item, "logprob"));
        if (reply->n_top == MINIM_ROUTER_TOP || !text || !(logprob <= 0)) continue;
        router_line(reply->top[reply->n_top].text, sizeof reply->top[0].text, "%s", text);
        reply->top[reply->n_top++].logprob = logprob;
    }
}

/* Passes text on. JSON strings are valid UTF-8, but may hold NULs. */
static int openai_text(openai_reader *reader, const char *text, size_t n) {
    if (!n) return 0;
    reader->text.n = 0;
    if (router_utf8_append(&reader->text, text, n) != MINIM_OK) {
        return openai_fail(reader, MINIM_ROUTE_FAILED_TOO_LARGE, "no room for %zu bytes of text", n);
    }
    reader->n_bytes += reader->text.n;
    /* Where memory is out it is no longer kept, and so not counted. */
    if (reader->said && router_bytes_append(reader->said, reader->text.data, reader->text.n) != MINIM_OK)
        reader->said = NULL;
    if (strspn(reader->text.data, " \t\r\n") < reader->text.n) reader->has_text = 1;
    if (reader->sink->on_text && reader->sink->on_text(reader->sink->user, reader->text.data, reader->text.n)) {
        reader->cancelled = 1;
        return 1;
    }
    return 0;
}

/* choices[0].delta of a chunk or choices[0].message of a whole answer. 0; non-zero when reading ends here. */
static int openai_choice(openai_reader *reader, const json_t *root, const char *part) {
    const json_t *choices = json_object_get(root, "choices");
    if (choices && !json_is_null(choices) && !json_is_array(choices)) {
        return openai_fail(reader, MINIM_ROUTE_FAILED_PROTOCOL, "choices: found %s, expected an array",
                           openai_type(choices));
    }
    if (!json_array_size(choices)) return 0;
    const json_t *choice = json_array_get(choices, 0), *message = json_object_get(choice, part);
    if (!json_is_object(choice)) {
        return openai_fail(reader, MINIM_ROUTE_FAILED_PROTOCOL, "choices[0]: found %s, expected an object",
                           openai_type(choice));
    }
    if (message && !json_is_null(message) && !json_is_object(message)) {
        return openai_fail(reader, MINIM_ROUTE_FAILED_PROTOCOL, "choices[0].%s: found %s, expected an object", part,
                           openai_type(message));
    }
    openai_top(reader->reply, choice);
    const json_t *content = json_object_get(message, "content");
    if (content && !json_is_null(content) && !json_is_string(content)) {
        return openai_fail(reader, MINIM_ROUTE_FAILED_PROTOCOL, "choices[0].%s.content: found %s, expected a string",
                           part, openai_type(content));
    }
    if (openai_text(reader, json_string_value(content), json_string_length(content))) return 1;
    return openai_finish(reader, choice);
}

int openai_event(void *user, const char *type, const char *data, size_t n) {
    openai_reader *reader = user;
    while (n && data[n - 1] == ' ') n--;
    if (n == 6 && !memcmp(data, "[DONE]", 6)) {
        reader->has_done = 1;
        return 1;
    }
    if (!n) return 0;
    reader->n_events++;
    json_t *root = openai_parse(reader, data, n);
    if (!root) return 1;
    int end = openai_error_inside(reader, root, type);
    if (!end) {
        openai_model(reader, root);
        openai_usage(reader, root);
        end = openai_choice(reader, root, "delta");
    }
    json_decref(root);
    return end;
}

void openai_document(openai_reader *reader, const char *data, size_t n) {
    json_t *root = openai_parse(reader, data, n);
    if (!root) return;
    reader->n_events++;
    if (!openai_error_inside(reader, root, "")) {
        openai_model(reader, root);
        openai_usage(reader, root);
        if (!json_array_size(json_object_get(root, "choices"))) {
            openai_fail(reader, MINIM_ROUTE_FAILED_PROTOCOL, "choices: found %s, expected an array with one choice",
                        openai_type(json_object_get(root, "choices")));
        } else if (!openai_choice(reader, root, "message")) {
            reader->has_done = reader->has_finish = 1;
        }
    }
    json_decref(root);
}
