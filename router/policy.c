/* policy.c: who answers. Pure functions of values: no clock, no I/O, no memory. */
#include <math.h>
#include <string.h>

#include "support.h"

double minim_route_score(minim_route_method method, const minim_route_features *features) {
    if (!features || method != MINIM_ROUTE_AVG_LOGPROB || !features->n_tokens || !features->n_bytes) return 0;
    double mean = features->sum_logprob / (double)features->n_tokens;
    if (isnan(mean)) return 0;
    return mean < 0 ? exp(mean) : 1; /* rounding may leave a certain answer's sum a hair above zero */
}

/* Why the local answer of a cascade does not stand; MINIM_ROUTE_REASON_SCORE_PASSED when it does. */
static minim_route_reason policy_judge_local(const minim_route_policy *policy, const minim_route_features *features,
                                             const minim_route_state *state, double score) {
    if (state->local == MINIM_ROUTE_FAILED) return MINIM_ROUTE_REASON_LOCAL_FAILED;
    if (!features->n_bytes) return MINIM_ROUTE_REASON_LOCAL_EMPTY;
    if (features->finish == MINIM_ROUTE_FINISH_CONTEXT) return MINIM_ROUTE_REASON_LOCAL_CONTEXT;
    return score >= policy->threshold ? MINIM_ROUTE_REASON_SCORE_PASSED : MINIM_ROUTE_REASON_SCORE_LOW;
}

static void policy_set(minim_route_decision *d, minim_route_action action, minim_route route,
                       minim_route_reason reason) {
    d->action = action;
    d->route = route;
    d->reason = reason;
}

static void policy_degrade(minim_route_decision *d, const char *reason) {
    d->degraded = 1;
    router_line(d->degraded_reason, sizeof d->degraded_reason, "%s", reason);
}

/* Local is the only one left to ask, or has been asked: its answer stands whatever its score is. */
static void policy_local_stands(const minim_route_state *state, minim_route_reason reason, minim_route_decision *d) {
    minim_route_action action = state->local == MINIM_ROUTE_NOT_ASKED  ? MINIM_ROUTE_ASK
                                : state->local == MINIM_ROUTE_ANSWERED ? MINIM_ROUTE_ANSWER
                                                                       : MINIM_ROUTE_FAIL;
    policy_set(d, action, MINIM_ROUTE_LOCAL, reason);
}

/* Whether a remote that there is may be asked; if not, the local model answers and the decision says why. */
static int policy_may_ask(const minim_route_state *state, minim_route_decision *d) {
    if (state->is_private)
        policy_local_stands(state, MINIM_ROUTE_REASON_PRIVATE, d);
    else if (state->over_budget)
        policy_local_stands(state, MINIM_ROUTE_REASON_OVER_BUDGET, d);
    else
        return 1;
    return 0;
}

/* The remote is wanted, for this reason. */
static void policy_want_remote(const minim_route_state *state, minim_route_reason reason, minim_route_decision *d) {
    if (state->remote == MINIM_ROUTE_FAILED) {
        policy_local_stands(state, MINIM_ROUTE_REASON_REMOTE_FAILED, d);
        policy_degrade(d, state->remote_detail[0] ? state->remote_detail : "the remote failed");
    } else {
        policy_set(d, state->remote == MINIM_ROUTE_ANSWERED ? MINIM_ROUTE_ANSWER : MINIM_ROUTE_ASK, MINIM_ROUTE_REMOTE,
                   reason);
    }
}

static void policy_cascade(const minim_route_policy *policy, const minim_route_features *features,
                           const minim_route_state *state, minim_route_decision *d) {
    if (!policy->remote_available) {
        policy_local_stands(state, MINIM_ROUTE_REASON_NO_REMOTE, d);
        return;
    }
    if (!policy_may_ask(state, d)) return;
    if (state->local == MINIM_ROUTE_NOT_ASKED) {
        policy_set(d, MINIM_ROUTE_ASK, MINIM_ROUTE_LOCAL, MINIM_ROUTE_REASON_LOCAL_FIRST);
        d->hold = 1;
        return;
    }
    minim_route_reason reason = policy_judge_local(policy, features, state, d->score);
    if (reason == MINIM_ROUTE_REASON_SCORE_PASSED)
        policy_set(d, MINIM_ROUTE_ANSWER, MINIM_ROUTE_LOCAL, reason);
    else
        policy_want_remote(state, reason, d);
}

static void policy_remote_first(const minim_route_policy *policy, const minim_route_state *state,
                                minim_route_decision *d) {
    if (policy->remote_available) {
        if (policy_may_ask(state, d)) policy_want_remote(state, MINIM_ROUTE_REASON_REMOTE_FIRST, d);
    } else {
        policy_local_stands(state, MINIM_ROUTE_REASON_NO_REMOTE, d);
        policy_degrade(d, "no remote is configured");
    }
}

/* The price of these tokens; 0 and *cost untouched when it is not known. */
static int policy_price(const minim_route_policy *policy, uint64_t prompt, uint64_t completion, double *cost) {
    double in = policy->input_cost_per_token, out = policy->output_cost_per_token;
    if ((prompt && !(in >= 0)) || (completion && !(out >= 0))) return 0;
    *cost = (prompt ? in * (double)prompt : 0) + (completion ? out * (double)completion : 0);
    return 1;
}

/* Tokens of a remote that failed half way are paid for as well. */
static void policy_account(const minim_route_policy *policy, const minim_route_state *state, minim_route_decision *d) {
    d->local = state->local_usage;
    d->remote = state->remote_usage;
    d->seconds = state->seconds;
    d->cost_known = policy_price(policy, d->remote.prompt_tokens, d->remote.completion_tokens, &d->cost);
    /* Where the remote did not answer: its prompt as the local model counts it, an answer of the same length. */
    const minim_route_usage *alone = state->cached                           ? &state->cached_usage
                                     : state->remote == MINIM_ROUTE_ANSWERED ? &state->remote_usage
                                                                             : &state->local_usage;
    uint64_t prompt = alone->prompt_tokens ? alone->prompt_tokens : (state->request_bytes + 3) / 4;
    d->all_remote_known = policy_price(policy, prompt, alone->completion_tokens, &d->all_remote_cost);
}

minim_status minim_route_decide(const minim_route_policy *policy_in, const minim_route_features *features_in,
                                const minim_route_state *state_in, minim_route_decision *decision) {
    minim_route_policy policy;
    minim_route_features features;
    minim_route_state state;
    memset(&policy, 0, sizeof policy);
    memset(&features, 0, sizeof features);
    memset(&state, 0, sizeof state);
    if (router_copy_sized(&policy, sizeof policy, policy_in) ||
        router_copy_sized(&features, sizeof features, features_in) ||
        router_copy_sized(&state, sizeof state, state_in) || !decision || decision->size <= sizeof(size_t)) {
        return MINIM_ERR_ARGUMENT;
    }
    minim_route_decision d;
    memset(&d, 0, sizeof d);
    d.method = policy.method;
    d.threshold = policy.threshold;
    d.has_score = state.local == MINIM_ROUTE_ANSWERED;
    if (d.has_score) {
        d.score = minim_route_score(policy.method, &features);
        d.truncated = features.finish == MINIM_ROUTE_FINISH_LENGTH || features.finish == MINIM_ROUTE_FINISH_CONTEXT;
    }
    policy_account(&policy, &state, &d);
    if (state.cached)
        policy_set(&d, MINIM_ROUTE_ANSWER, state.cached_route, MINIM_ROUTE_REASON_CACHED);
    else
        switch (policy.mode) {
        case MINIM_ROUTE_MODE_LOCAL: policy_local_stands(&state, MINIM_ROUTE_REASON_LOCAL_ONLY, &d); break;
        case MINIM_ROUTE_MODE_REMOTE: policy_remote_first(&policy, &state, &d); break;
        case MINIM_ROUTE_MODE_CASCADE: policy_cascade(&policy, &features, &state, &d); break;
        default: return MINIM_ERR_ARGUMENT;
        }
    d.size = decision->size < sizeof d ? decision->size : sizeof d;
    memcpy(decision, &d, d.size);
    return MINIM_OK;
}
