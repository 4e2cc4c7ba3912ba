/* record.c: what a decision depended on as a line of words, and back: a ledger's decisions can be replayed with another
 * threshold, or by a later version. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

typedef enum record_kind { RECORD_REAL, RECORD_COUNT, RECORD_FLAG, RECORD_BITS, RECORD_WORD } record_kind;
typedef enum record_part { RECORD_POLICY, RECORD_FEATURES, RECORD_STATE } record_part;

typedef struct record_field {
    const char *name;
    record_part part;
    record_kind kind;
    size_t offset;
    const char *(*word)(int value); /* "unknown" past the last one */
} record_field;

static const char *record_mode(int value) {
    return minim_route_mode_name((minim_route_mode)value);
}
static const char *record_plan(int value) {
    return minim_route_plan_name((minim_route_plan)value);
}
static const char *record_reason(int value) {
    return minim_route_reason_name((minim_route_reason)value);
}
static const char *record_method(int value) {
    return minim_route_method_name((minim_route_method)value);
}
static const char *record_threshold(int value) {
    return minim_route_threshold_name((minim_route_threshold)value);
}
static const char *record_route(int value) {
    return minim_route_name((minim_route)value);
}
static const char *record_finish(int value) {
    return minim_route_finish_name((minim_route_finish)value);
}
static const char *record_step(int value) {
    return minim_route_step_name((minim_route_step)value);
}
static const char *record_outcome(int value) {
    static const char *const words[] = {"not_asked", "answered", "failed", "stopped"};
    return value >= 0 && value < 4 ? words[value] : "unknown";
}

/* name, part, kind, offset, words. Content, and what a server said about a failure, have no row. */
#define RECORD_ROW(name, part, type, kind, field, word)                                                                \
    { name, part, kind, offsetof(type, field), word }
#define POLICY(name, kind, field, word)   RECORD_ROW(name, RECORD_POLICY, minim_route_policy, kind, field, word)
#define FEATURES(name, kind, field, word) RECORD_ROW(name, RECORD_FEATURES, minim_route_features, kind, field, word)
#define STATE(name, kind, field, word)    RECORD_ROW(name, RECORD_STATE, minim_route_state, kind, field, word)

static const record_field record_fields[] = {
    POLICY("mode", RECORD_WORD, mode, record_mode),
    POLICY("method", RECORD_WORD, method, record_method),
    POLICY("threshold", RECORD_REAL, threshold, NULL),
    POLICY("remote_available", RECORD_FLAG, remote_available, NULL),
    POLICY("input_cost_per_token", RECORD_REAL, input_cost_per_token, NULL),
    POLICY("output_cost_per_token", RECORD_REAL, output_cost_per_token, NULL),
    POLICY("threshold_semantics", RECORD_WORD, threshold_semantics, record_threshold),
    POLICY("prompt_threshold", RECORD_REAL, prompt_threshold, NULL),
    POLICY("plan", RECORD_WORD, plan, record_plan),
    POLICY("hold_tokens", RECORD_BITS, hold_tokens, NULL),
    POLICY("gate_threshold", RECORD_REAL, gate_threshold, NULL),
    POLICY("handover_tokens", RECORD_BITS, handover_tokens, NULL),
    POLICY("handover_threshold", RECORD_REAL, handover_threshold, NULL),
    POLICY("gate_seconds", RECORD_REAL, gate_seconds, NULL),
    POLICY("hedge_seconds", RECORD_REAL, hedge_seconds, NULL),
    POLICY("complexity_threshold", RECORD_REAL, complexity_threshold, NULL),
    POLICY("latency_budget", RECORD_REAL, latency_budget, NULL),
    POLICY("rules", RECORD_BITS, rules, NULL),
    POLICY("error_cost", RECORD_REAL, error_cost, NULL),
    POLICY("verify_accuracy", RECORD_REAL, verify_accuracy, NULL),
    POLICY("fail_on_error", RECORD_FLAG, fail_on_error, NULL),
    POLICY("span_tokens", RECORD_BITS, span_tokens, NULL),
    POLICY("max_spans", RECORD_BITS, max_spans, NULL),
    FEATURES("complexity", RECORD_REAL, complexity, NULL),
    FEATURES("evidence_failed", RECORD_FLAG, evidence_failed, NULL),
    FEATURES("n_tokens", RECORD_COUNT, n_tokens, NULL),
    FEATURES("n_bytes", RECORD_COUNT, n_bytes, NULL),
    FEATURES("sum_logprob", RECORD_REAL, sum_logprob, NULL),
    FEATURES("finish", RECORD_WORD, finish, record_finish),
    FEATURES("has_signals", RECORD_FLAG, has_signals, NULL),
    FEATURES("logprob_mean", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_LOGPROB_MEAN], NULL),
    FEATURES("logprob_min", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_LOGPROB_MIN], NULL),
    FEATURES("logprob_q10", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_LOGPROB_Q10], NULL),
    FEATURES("logprob_q25", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_LOGPROB_Q25], NULL),
    FEATURES("logprob_q50", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_LOGPROB_Q50], NULL),
    FEATURES("logprob_first", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_LOGPROB_FIRST], NULL),
    FEATURES("margin_mean", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_MARGIN_MEAN], NULL),
    FEATURES("margin_q10", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_MARGIN_Q10], NULL),
    FEATURES("entropy_mean", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_ENTROPY_MEAN], NULL),
    FEATURES("entropy_max", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_ENTROPY_MAX], NULL),
    FEATURES("entropy_first", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_ENTROPY_FIRST], NULL),
    FEATURES("log_length", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_LOG_LENGTH], NULL),
    FEATURES("cut_off", RECORD_REAL, signals[MINIM_ROUTE_SIGNAL_CUT_OFF], NULL),
    FEATURES("learned_score", RECORD_REAL, learned_score, NULL),
    FEATURES("has_confidence", RECORD_FLAG, has_confidence, NULL),
    FEATURES("confidence", RECORD_REAL, confidence, NULL),
    FEATURES("certified", RECORD_FLAG, certified, NULL),
    FEATURES("has_prompt_score", RECORD_FLAG, has_prompt_score, NULL),
    FEATURES("prompt_score", RECORD_REAL, prompt_score, NULL),
    FEATURES("has_agreement", RECORD_FLAG, has_agreement, NULL),
    FEATURES("agreement", RECORD_REAL, agreement, NULL),
    FEATURES("has_verdict", RECORD_FLAG, has_verdict, NULL),
    FEATURES("verdict", RECORD_REAL, verdict, NULL),
    STATE("local", RECORD_WORD, local, record_outcome),
    STATE("local_prompt_tokens", RECORD_COUNT, local_usage.prompt_tokens, NULL),
    STATE("local_completion_tokens", RECORD_COUNT, local_usage.completion_tokens, NULL),
    STATE("remote", RECORD_WORD, remote, record_outcome),
    STATE("remote_prompt_tokens", RECORD_COUNT, remote_usage.prompt_tokens, NULL),
    STATE("remote_completion_tokens", RECORD_COUNT, remote_usage.completion_tokens, NULL),
    STATE("remote_estimated", RECORD_FLAG, remote_usage.estimated, NULL),
    STATE("is_private", RECORD_BITS, is_private, NULL),
    STATE("over_budget", RECORD_FLAG, over_budget, NULL),
    STATE("cached", RECORD_FLAG, cached, NULL),
    STATE("cached_route", RECORD_WORD, cached_route, record_route),
    STATE("cached_prompt_tokens", RECORD_COUNT, cached_usage.prompt_tokens, NULL),
    STATE("cached_completion_tokens", RECORD_COUNT, cached_usage.completion_tokens, NULL),
    STATE("gate_passed", RECORD_FLAG, gate_passed, NULL),
    STATE("stopped", RECORD_WORD, stopped, record_reason),
    STATE("verify", RECORD_WORD, verify, record_outcome),
    STATE("spans", RECORD_BITS, spans, NULL),
    STATE("extra_prompt_tokens", RECORD_COUNT, extra_usage.prompt_tokens, NULL),
    STATE("extra_completion_tokens", RECORD_COUNT, extra_usage.completion_tokens, NULL),
    STATE("extra_estimated", RECORD_FLAG, extra_usage.estimated, NULL),
    STATE("gate_step", RECORD_WORD, gate_step, record_step),
    STATE("gate_tokens", RECORD_COUNT, gate.n_tokens, NULL),
    STATE("gate_sum_logprob", RECORD_REAL, gate.sum_logprob, NULL),
    STATE("gate_last_tokens", RECORD_COUNT, gate.last_tokens, NULL),
    STATE("gate_last_logprob", RECORD_REAL, gate.last_logprob, NULL),
    STATE("gate_at_seconds", RECORD_REAL, gate.seconds, NULL),
    STATE("gate_shown", RECORD_FLAG, gate.shown, NULL),
    STATE("gate_may_ask", RECORD_FLAG, gate.may_ask, NULL),
    STATE("gate_remote_open", RECORD_FLAG, gate.remote_open, NULL),
    STATE("gate_remote_bytes", RECORD_FLAG, gate.remote_bytes, NULL),
    STATE("gate_complexity", RECORD_REAL, gate.complexity, NULL),
    STATE("remote_latency", RECORD_REAL, remote_latency, NULL),
    STATE("request_bytes", RECORD_COUNT, request_bytes, NULL),
    STATE("seconds", RECORD_REAL, seconds, NULL),
};

enum { RECORD_FIELDS = sizeof record_fields / sizeof *record_fields };

/* A field's value as text; "" when it is zero, which is what a line without it means. */
static void record_print(const record_field *field, const void *at, char *buffer, size_t capacity) {
    double real;
    uint64_t count;
    int number;
    buffer[0] = 0;
    switch (field->kind) {
    case RECORD_REAL:
        memcpy(&real, at, sizeof real);
        if (real != 0) snprintf(buffer, capacity, "%.17g", real); /* NaN too */
        return;
    case RECORD_COUNT:
        memcpy(&count, at, sizeof count);
        if (count) snprintf(buffer, capacity, "%llu", (unsigned long long)count);
        return;
    default:
        memcpy(&number, at, sizeof number);
        if (number && field->kind == RECORD_FLAG) snprintf(buffer, capacity, "1");
        if (number && field->kind == RECORD_BITS) snprintf(buffer, capacity, "%d", number);
        if (number && field->kind == RECORD_WORD) snprintf(buffer, capacity, "%s", field->word(number));
    }
}

static int record_scan(const record_field *field, const char *text, void *at) {
    char *end = NULL;
    if (field->kind == RECORD_REAL) {
        double real = strtod(text, &end);
        memcpy(at, &real, sizeof real);
    } else if (field->kind == RECORD_COUNT) {
        uint64_t count = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
        memcpy(at, &count, sizeof count);
    } else if (field->kind == RECORD_BITS) {
        int bits = text[0] >= '0' && text[0] <= '9' ? (int)strtoul(text, &end, 10) : 0;
        memcpy(at, &bits, sizeof bits);
    } else if (field->kind == RECORD_FLAG) {
        int flag = text[0] == '1';
        memcpy(at, &flag, sizeof flag);
        return !strcmp(text, "0") || !strcmp(text, "1") ? 0 : -1;
    } else {
        for (int value = 0; strcmp(field->word(value), "unknown"); value++) {
            if (strcmp(field->word(value), text)) continue;
            memcpy(at, &value, sizeof value); /* an enum of ours is as wide as an int */
            return 0;
        }
        return -1;
    }
    return end && end != text && !*end ? 0 : -1;
}

size_t minim_route_inputs(const minim_route_policy *policy_in, const minim_route_features *features_in,
                          const minim_route_state *state_in, char *buffer, size_t capacity) {
    minim_route_policy policy = {0};
    minim_route_features features = {0};
    minim_route_state state = {0};
    size_t n = 0;
    if (capacity) buffer[0] = 0;
    if (router_copy_sized(&policy, sizeof policy, policy_in) ||
        router_copy_sized(&features, sizeof features, features_in) ||
        router_copy_sized(&state, sizeof state, state_in)) {
        return 0;
    }
    const void *const parts[] = {&policy, &features, &state};
    for (int i = 0; i < RECORD_FIELDS; i++) {
        char value[40];
        record_print(&record_fields[i], (const char *)parts[record_fields[i].part] + record_fields[i].offset, value,
                     sizeof value);
        if (!value[0] && i) continue; /* the mode is always told */
        if (!value[0]) snprintf(value, sizeof value, "%s", record_mode(0));
        size_t room = n < capacity ? capacity - n : 0;
        int more = snprintf(room ? buffer + n : NULL, room, "%s%s=%s", n ? " " : "", record_fields[i].name, value);
        if (more > 0) n += (size_t)more;
    }
    return n;
}

minim_status minim_route_inputs_read(const char *text, minim_route_policy *policy, minim_route_features *features,
                                     minim_route_state *state, minim_error *error) {
    if (!text || !policy || !features || !state) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_inputs_read: an argument is NULL");
    }
    minim_route_policy p = {.size = sizeof p};
    minim_route_features f = {.size = sizeof f};
    minim_route_state s = {.size = sizeof s, .gate.size = sizeof s.gate};
    void *const parts[] = {&p, &f, &s};
    while (*text) {
        char word[128];
        size_t n = strcspn(text, " "), skip = strspn(text, " ");
        if (skip) {
            text += skip;
            continue;
        }
        if (n >= sizeof word) return router_fail(error, MINIM_ERR_FORMAT, "inputs: found a word of %zu bytes", n);
        memcpy(word, text, n);
        word[n] = 0;
        text += n;
        char *value = strchr(word, '=');
        const record_field *field = NULL;
        if (value) *value++ = 0;
        for (int i = 0; value && i < RECORD_FIELDS; i++) {
            if (!strcmp(record_fields[i].name, word)) field = &record_fields[i];
        }
        if (!field) return router_fail(error, MINIM_ERR_FORMAT, "inputs: unknown name \"%s\"", word);
        if (record_scan(field, value, (char *)parts[field->part] + field->offset)) {
            return router_fail(error, MINIM_ERR_FORMAT, "inputs: %s: found \"%s\"", word, value);
        }
    }
    *policy = p;
    *features = f;
    *state = s;
    return MINIM_OK;
}
