/* report.c: a decision as one line for people. */
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
    if (d->threshold_semantics == MINIM_ROUTE_THRESHOLD_CERTIFIED)
        report_add(line, ", certified bar");
    else if (d->threshold_semantics == MINIM_ROUTE_THRESHOLD_CALIBRATED)
        report_add(line, ", least confidence %.3f", d->threshold);
    else
        report_add(line, ", threshold %.3f", d->threshold);
    if (d->truncated) report_add(line, ", answer cut off");
}

size_t minim_route_describe(const minim_route_decision *decision, char *buffer, size_t capacity) {
    static const char *const verbs[] = {"asking", "answered by", "no answer, not even from"};
    report_line line = {.buffer = buffer, .capacity = buffer ? capacity : 0};
    if (line.capacity) buffer[0] = 0;
    if (!decision) return 0;
    const minim_route_decision *d = decision;
    report_add(&line, "%s the %s model: %s", verbs[d->action <= MINIM_ROUTE_FAIL ? d->action : MINIM_ROUTE_FAIL],
               minim_route_name(d->route), report_reason_text(d->reason));
    if (d->degraded && d->reason == MINIM_ROUTE_REASON_NO_REMOTE)
        report_add(&line, "; DEGRADED");
    else if (d->degraded)
        report_add(&line, "; DEGRADED: %s", d->degraded_reason);
    if (d->has_score) report_add_score(&line, d);
    if (d->has_prompt_score) report_add(&line, "; prompt score %.3f", d->prompt_score);
    report_add_usage(&line, "local", &d->local);
    report_add_usage(&line, "remote", &d->remote);
    if (!d->cost_known)
        report_add(&line, "; cost unknown");
    else
        report_add(&line, "; cost $%.6g%s", d->cost, d->remote.estimated ? " (estimated)" : "");
    report_add(&line, "; %.2f s", d->seconds);
    return line.n;
}
