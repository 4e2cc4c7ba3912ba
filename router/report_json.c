/* report_json.c: an answer as JSON for programs. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "support.h"

static json_t *report_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* json_object_set_new() releases the value also when it fails, and fails for a NULL value: one flag is enough. */
static void report_set(json_t *object, const char *name, json_t *value, int *failed) {
    if (json_object_set_new(object, name, value)) *failed = 1;
}

static json_t *report_signals(const double *signals) {
    json_t *object = json_object();
    int failed = !object;
    for (int i = 0; i < MINIM_ROUTE_N_SIGNALS; i++) {
        report_set(object, minim_route_signal_name((minim_route_signal)i), report_number(signals[i]), &failed);
    }
    if (!failed) return object;
    json_decref(object);
    return NULL;
}

static json_t *report_side(const minim_router_reply *reply) {
    if (!reply) return json_null();
    json_t *side = json_object();
    int failed = !side;
    const minim_route_usage *usage = &reply->usage;
    if (reply->failure) {
        report_set(side, "failure", json_string(minim_route_failure_name(reply->failure)), &failed);
    } else {
        report_set(side, "failure", json_null(), &failed);
    }
    report_set(side, "finish_reason",
               reply->failure ? json_null() : json_string(minim_route_finish_name(reply->finish)), &failed);
    report_set(side, "model", reply->model[0] ? json_string(reply->model) : json_null(), &failed);
    report_set(side, "prompt_tokens", json_integer((json_int_t)usage->prompt_tokens), &failed);
    report_set(side, "completion_tokens", json_integer((json_int_t)usage->completion_tokens), &failed);
    report_set(side, "estimated", json_boolean(usage->estimated), &failed);
    report_set(side, "first_token_seconds", report_number(usage->first_token_seconds), &failed);
    report_set(side, "seconds", report_number(usage->seconds), &failed);
    if (reply->quantisation[0]) report_set(side, "quantisation", json_string(reply->quantisation), &failed);
    if (reply->has_agreement) report_set(side, "agreement", report_number(reply->agreement), &failed);
    if (reply->has_signals) report_set(side, "signals", report_signals(reply->signals), &failed);
    if (reply->attempts) {
        report_set(side, "attempts", json_integer(reply->attempts), &failed);
        report_set(side, "http_status", reply->http_status ? json_integer(reply->http_status) : json_null(), &failed);
    }
    if (failed) {
        json_decref(side);
        return NULL;
    }
    return side;
}

static json_t *report_answer(const minim_router_answer *answer) {
    const minim_route_decision *d = answer->decision;
    json_t *object = json_object();
    int failed = !object;
    report_set(object, "answer", json_stringn(answer->text, answer->n_bytes), &failed);
    report_set(object, "route", json_string(minim_route_name(d->route)), &failed);
    report_set(object, "reason", json_string(minim_route_reason_name(d->reason)), &failed);
    report_set(object, "score", d->has_score ? report_number(d->score) : json_null(), &failed);
    report_set(object, "confidence", d->has_confidence ? report_number(d->confidence) : json_null(), &failed);
    report_set(object, "calibrated", json_boolean(d->calibrated), &failed);
    report_set(object, "confidence_method", json_string(minim_route_method_name(d->method)), &failed);
    report_set(object, "threshold", report_number(d->threshold), &failed);
    report_set(object, "threshold_semantics", json_string(minim_route_threshold_name(d->threshold_semantics)), &failed);
    report_set(object, "prompt_score", d->has_prompt_score ? report_number(d->prompt_score) : json_null(), &failed);
    report_set(object, "truncated", json_boolean(d->truncated), &failed);
    report_set(object, "local", report_side(answer->local), &failed);
    report_set(object, "remote", report_side(answer->remote), &failed);
    if (d->has_expected) {
        report_set(object, "accept_cost", report_number(d->accept_cost), &failed);
        report_set(object, "verify_cost", report_number(d->verify_cost), &failed);
        report_set(object, "remote_cost", report_number(d->remote_cost), &failed);
    }
    if (d->extra.prompt_tokens || d->extra.completion_tokens) {
        report_set(object, "extra_prompt_tokens", json_integer((json_int_t)d->extra.prompt_tokens), &failed);
        report_set(object, "extra_completion_tokens", json_integer((json_int_t)d->extra.completion_tokens), &failed);
    }
    if (d->spans) report_set(object, "spans", json_integer(d->spans), &failed);
    report_set(object, "cost", d->cost_known ? report_number(d->cost) : json_null(), &failed);
    report_set(object, "seconds", report_number(d->seconds), &failed);
    report_set(object, "degraded", json_boolean(d->degraded), &failed);
    report_set(object, "degraded_reason", d->degraded ? json_string(d->degraded_reason) : json_null(), &failed);
    if (failed) {
        json_decref(object);
        return NULL;
    }
    return object;
}

minim_status minim_router_answer_json(const minim_router_answer *answer, char **json, minim_error *error) {
    if (!answer || !answer->text || !answer->decision || !json) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_router_answer_json: an argument is NULL");
    }
    json_t *object = report_answer(answer);
    /* 10 digits: more than any of these figures is good for, and 0.1 does not become 0.10000000000000001. */
    char *text = object ? json_dumps(object, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(10)) : NULL;
    json_decref(object);
    if (!text) return router_fail_memory(error, "the JSON answer");
    *json = text;
    return MINIM_OK;
}

void minim_router_text_free(char *text) {
    free(text);
}
