/* report.c: a decision as one line for people. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "support.h"

/* A line being written as snprintf() would: n counts on when the buffer is full. */
typedef struct report_line {
    char *buffer;
    size_t capacity, n;
} report_line;

static void report_add(report_line *line, const char *format, ...) ROUTER_PRINTF(2, 3);

static void report_add(report_line *line, const char *format, ...) {
    size_t room = line->n < line->capacity ? line->capacity - line->n : 0;
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(room ? line->buffer + line->n : NULL, room, format, arguments);
    va_end(arguments);
    if (n > 0) line->n += (size_t)n;
}

static const char *report_reason_text(minim_route_reason reason) {
    static const char *const texts[] = {
        [MINIM_ROUTE_REASON_LOCAL_ONLY] = "only the local model may answer",
        [MINIM_ROUTE_REASON_LOCAL_FIRST] = "the local model is asked first",
        [MINIM_ROUTE_REASON_REMOTE_FIRST] = "the remote is asked first",
        [MINIM_ROUTE_REASON_SCORE_PASSED] = "its score reaches the threshold",
        [MINIM_ROUTE_REASON_SCORE_LOW] = "the local score is below the threshold",
        [MINIM_ROUTE_REASON_LOCAL_EMPTY] = "the local answer is empty",
        [MINIM_ROUTE_REASON_LOCAL_CONTEXT] = "the local context was full before the answer ended",
        [MINIM_ROUTE_REASON_LOCAL_FAILED] = "the local model failed",
        [MINIM_ROUTE_REASON_NO_REMOTE] = "no remote is configured",
        [MINIM_ROUTE_REASON_REMOTE_FAILED] = "the remote failed",
        [MINIM_ROUTE_REASON_PRIVATE] = "the request may not leave this machine",
        [MINIM_ROUTE_REASON_OVER_BUDGET] = "a call does not fit the budget",
        [MINIM_ROUTE_REASON_CACHED] = "the same request was answered before",
        [MINIM_ROUTE_REASON_UNCALIBRATED] = "the local score has no calibration, so it reaches no calibrated bar",
        [MINIM_ROUTE_REASON_PROMPT_SCORE] = "the prompt looks too hard for the local model",
        [MINIM_ROUTE_REASON_ONLY_REMOTE] = "only the remote may answer",
        [MINIM_ROUTE_REASON_RACE] = "both begin",
        [MINIM_ROUTE_REASON_GATE_PASSED] = "the beginning of its answer is good enough",
        [MINIM_ROUTE_REASON_GATE_LOW] = "the beginning of the local answer is too weak",
        [MINIM_ROUTE_REASON_COLLAPSED] = "the local model lost its way in the middle",
        [MINIM_ROUTE_REASON_RACE_LOST] = "it was faster than a good local answer",
        [MINIM_ROUTE_REASON_LATENCY] = "the remote would begin too late",
        [MINIM_ROUTE_REASON_COMPLEXITY] = "the request is complex",
        [MINIM_ROUTE_REASON_SIMPLE] = "the request is simple",
        [MINIM_ROUTE_REASON_EVIDENCE] = "the local answer is not backed by evidence",
        [MINIM_ROUTE_REASON_VERIFY] = "whether the local answer is right",
        [MINIM_ROUTE_REASON_VERIFY_FAILED] = "the local answer could not be verified",
        [MINIM_ROUTE_REASON_COST] = "nothing else costs less in expectation",
        [MINIM_ROUTE_REASON_HYBRID] = "the remote helps where it loses its way",
    };
    size_t i = (size_t)reason;
    return i < sizeof texts / sizeof *texts && texts[i] ? texts[i] : "unknown reason";
}

static void report_add_usage(report_line *line, const char *who, const minim_route_usage *usage) {
    if (!usage->prompt_tokens && !usage->completion_tokens) return;
    report_add(line, "; %s tokens %llu in, %llu out%s", who, (unsigned long long)usage->prompt_tokens,
               (unsigned long long)usage->completion_tokens, usage->estimated ? " (estimated)" : "");
}

/* A score is never shown beside a bar of another kind. */
static void report_add_score(report_line *line, const minim_route_decision *d) {
    report_add(line, "; score %.3f (%s, %s)", d->score, minim_route_method_name(d->method),
               d->has_confidence ? "calibrated" : "uncalibrated");
    if (d->has_confidence) report_add(line, ", confidence %.3f", d->confidence);
    if (d->threshold_semantics == MINIM_ROUTE_THRESHOLD_COST)
        ; /* there is no bar */
    else if (d->threshold_semantics == MINIM_ROUTE_THRESHOLD_CERTIFIED)
        report_add(line, ", certified bar");
    else if (d->threshold_semantics == MINIM_ROUTE_THRESHOLD_CALIBRATED)
        report_add(line, ", least confidence %.3f", d->threshold);
    else
        report_add(line, ", threshold %.3f", d->threshold);
    if (d->truncated) report_add(line, ", answer cut off");
}

/* What each action is expected to cost, those that are not possible left out. */
static void report_add_expected(report_line *line, const minim_route_decision *d) {
    report_add(line, "; expected cost: accept $%.4g", d->accept_cost);
    if (isfinite(d->verify_cost)) report_add(line, ", verify $%.4g", d->verify_cost);
    if (isfinite(d->remote_cost)) report_add(line, ", remote $%.4g", d->remote_cost);
}

size_t minim_route_describe(const minim_route_decision *decision, char *buffer, size_t capacity) {
    static const char *const verbs[] = {"asking", "answered by", "no answer, not even from", "asking in one token"};
    report_line line = {.buffer = buffer, .capacity = buffer ? capacity : 0};
    if (line.capacity) buffer[0] = 0;
    if (!decision) return 0;
    const minim_route_decision *d = decision;
    report_add(&line, "%s the %s model: %s", verbs[d->action <= MINIM_ROUTE_CHECK ? d->action : MINIM_ROUTE_FAIL],
               minim_route_name(d->route), report_reason_text(d->reason));
    if (d->degraded && d->reason == MINIM_ROUTE_REASON_NO_REMOTE)
        report_add(&line, "; DEGRADED");
    else if (d->degraded)
        report_add(&line, "; DEGRADED: %s", d->degraded_reason);
    if (d->has_score) report_add_score(&line, d);
    if (d->has_expected) report_add_expected(&line, d);
    if (d->has_prompt_score) report_add(&line, "; prompt score %.3f", d->prompt_score);
    report_add_usage(&line, "local", &d->local);
    report_add_usage(&line, "remote", &d->remote);
    if (d->spans) report_add(&line, "; %d span%s by the remote", d->spans, d->spans > 1 ? "s" : "");
    report_add_usage(&line, d->spans ? "span" : "verification", &d->extra);
    if (!d->cost_known)
        report_add(&line, "; cost unknown");
    else
        report_add(&line, "; cost $%.6g%s", d->cost, d->remote.estimated || d->extra.estimated ? " (estimated)" : "");
    report_add(&line, "; %.2f s", d->seconds);
    return line.n;
}

static uint64_t report_asked(const minim_router_reply *reply) {
    return reply && reply->attempts > 0 ? (uint64_t)reply->attempts : 0;
}

size_t minim_router_answer_headers(const minim_router_answer *answer, char *buffer, size_t capacity) {
    report_line line = {.buffer = buffer, .capacity = buffer ? capacity : 0};
    if (line.capacity) buffer[0] = 0;
    if (!answer || !answer->decision) return 0;
    const minim_route_decision *d = answer->decision;
    const minim_router_reply *remote = answer->remote;
    uint64_t asked = report_asked(remote), fallbacks = remote ? (uint64_t)remote->fallbacks : 0;
    double busy =
        (answer->local ? answer->local->usage.seconds : 0) + (remote ? remote->usage.seconds : 0) + d->extra.seconds;
    report_add(&line, "x-minim-route: %s\r\nx-minim-reason: %s\r\nx-minim-confidence: ", minim_route_name(d->route),
               minim_route_reason_name(d->reason));
    if (d->has_confidence) report_add(&line, "%.6g", d->confidence);
    report_add(&line, "\r\nx-minim-response-cost: ");
    if (d->cost_known) report_add(&line, "%.9g", d->cost);
    /* A race's two sides work at the same time: what they did beside is no overhead of less than nothing. */
    report_add(&line,
               "\r\nx-minim-attempted-retries: %llu\r\nx-minim-attempted-fallbacks: %llu\r\n"
               "x-minim-overhead-duration-ms: %.3f\r\nx-minim-cache: %s\r\n",
               (unsigned long long)(asked > 1 + fallbacks ? asked - 1 - fallbacks : 0), (unsigned long long)fallbacks,
               d->seconds > busy ? (d->seconds - busy) * 1e3 : 0, answer->cache ? answer->cache : "off");
    return line.n;
}
