/* policy.c: who answers. Pure functions of values: no clock, no I/O, no memory. */
#include <math.h>
#include <string.h>

#include "support.h"

double router_signal_score(minim_route_method method, const double *signals) {
    double score;
    switch (method) {
    case MINIM_ROUTE_AVG_LOGPROB: score = exp(signals[MINIM_ROUTE_SIGNAL_LOGPROB_MEAN]); break;
    case MINIM_ROUTE_MARGIN: score = 1 - exp(-signals[MINIM_ROUTE_SIGNAL_MARGIN_MEAN]); break;
    case MINIM_ROUTE_QUANTILE: score = exp(signals[MINIM_ROUTE_SIGNAL_LOGPROB_Q10]); break;
    default: return 0;
    }
    return score > 0 ? score < 1 ? score : 1 : 0; /* NaN is 0 */
}

static double policy_share(int is_known, double share) {
    return is_known && share > 0 ? share < 1 ? share : 1 : 0; /* NaN is 0 */
}

double minim_route_score(minim_route_method method, const minim_route_features *features_in) {
    minim_route_features all, *features = &all;
    memset(&all, 0, sizeof all);
    if (router_copy_sized(&all, sizeof all, features_in) || !features->n_tokens || !features->n_bytes) return 0;
    if (method == MINIM_ROUTE_AVG_LOGPROB) {
        double mean = features->sum_logprob / (double)features->n_tokens;
        if (isnan(mean)) return 0;
        return mean < 0 ? exp(mean) : 1; /* rounding may leave a certain answer's sum a hair above zero */
    }
    if (method == MINIM_ROUTE_SELF_CONSISTENCY) return policy_share(features->has_agreement, features->agreement);
    if (method == MINIM_ROUTE_VERIFY) return policy_share(features->has_verdict, features->verdict);
    if (!features->has_signals) return 0;
    if (method != MINIM_ROUTE_LEARNED) return router_signal_score(method, features->signals);
    return features->has_confidence ? features->learned_score : 0;
}

/* Whether the answer reaches the bar: of the kind that is asked for, or not at all. */
static minim_route_reason policy_judge_score(const minim_route_policy *policy, const minim_route_features *features,
                                             double score) {
    int passes = score >= policy->threshold;
    if (policy->method == MINIM_ROUTE_LEARNED && !features->has_confidence) return MINIM_ROUTE_REASON_UNCALIBRATED;
    if (policy->threshold_semantics >= MINIM_ROUTE_THRESHOLD_CALIBRATED) {
        if (!features->has_confidence) return MINIM_ROUTE_REASON_UNCALIBRATED;
        passes = policy->threshold_semantics == MINIM_ROUTE_THRESHOLD_CERTIFIED
                     ? features->certified
                     : features->confidence >= policy->threshold;
    }
    return passes ? MINIM_ROUTE_REASON_SCORE_PASSED : MINIM_ROUTE_REASON_SCORE_LOW;
}

/* Why the local answer of a cascade does not stand; MINIM_ROUTE_REASON_SCORE_PASSED when it does. */
static minim_route_reason policy_judge_local(const minim_route_policy *policy, const minim_route_features *features,
                                             const minim_route_state *state, double score) {
    if (state->local == MINIM_ROUTE_FAILED) return MINIM_ROUTE_REASON_LOCAL_FAILED;
    /* Made again because nobody took over: it is what it was. */
    if (state->local == MINIM_ROUTE_STOPPED || (state->stopped && state->remote == MINIM_ROUTE_FAILED))
        return state->stopped;
    if (!features->n_bytes) return MINIM_ROUTE_REASON_LOCAL_EMPTY;
    if (features->evidence_failed) return MINIM_ROUTE_REASON_EVIDENCE;
    if (features->finish == MINIM_ROUTE_FINISH_CONTEXT) return MINIM_ROUTE_REASON_LOCAL_CONTEXT;
    if (state->gate_passed) return MINIM_ROUTE_REASON_GATE_PASSED;
    return policy_judge_score(policy, features, score);
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
    int unfinished = state->local == MINIM_ROUTE_NOT_ASKED || state->local == MINIM_ROUTE_STOPPED;
    minim_route_action action = unfinished                             ? MINIM_ROUTE_ASK
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
static void policy_want_remote(const minim_route_policy *policy, const minim_route_state *state,
                               minim_route_reason reason, minim_route_decision *d) {
    int failed = state->remote == MINIM_ROUTE_FAILED || state->remote == MINIM_ROUTE_STOPPED;
    if (failed && policy->fail_on_error) {
        policy_set(d, MINIM_ROUTE_FAIL, MINIM_ROUTE_REMOTE, MINIM_ROUTE_REASON_REMOTE_FAILED);
    } else if (failed) {
        policy_local_stands(state, MINIM_ROUTE_REASON_REMOTE_FAILED, d);
        policy_degrade(d, state->remote_detail[0] ? state->remote_detail : "the remote failed");
    } else {
        policy_set(d, state->remote == MINIM_ROUTE_ANSWERED ? MINIM_ROUTE_ANSWER : MINIM_ROUTE_ASK, MINIM_ROUTE_REMOTE,
                   reason);
    }
}

/* The prompt alone says that the local model would answer in vain. */
static int policy_prompt_leaves(const minim_route_policy *policy, const minim_route_features *features) {
    return policy->prompt_threshold != 0 && features->has_prompt_score &&
           features->prompt_score >= policy->prompt_threshold;
}

/* The price of these tokens; 0 and *cost untouched when it is not known. */
static int policy_price(const minim_route_policy *policy, uint64_t prompt, uint64_t completion, double *cost) {
    double in = policy->input_cost_per_token, out = policy->output_cost_per_token;
    if ((prompt && !(in >= 0)) || (completion && !(out >= 0))) return 0;
    *cost = (prompt ? in * (double)prompt : 0) + (completion ? out * (double)completion : 0);
    return 1;
}

/* ---- accept, verify or ask: what each is expected to cost -------------------------------------------------------- */

enum { POLICY_CHECK_TOKENS = 32 }; /* what asking for a verdict adds to prompt and answer */

/* What one more call costs: of an answer as long as the local one, or of a verdict on it. Infinite when nobody knows.
 */
static double policy_call_cost(const minim_route_policy *policy, const minim_route_state *state, int is_check) {
    const minim_route_usage *local = &state->local_usage;
    uint64_t prompt = local->prompt_tokens ? local->prompt_tokens : (state->request_bytes + 3) / 4;
    double cost = (double)INFINITY;
    if (is_check)
        policy_price(policy, prompt + local->completion_tokens + POLICY_CHECK_TOKENS, 1, &cost);
    else
        policy_price(policy, prompt, local->completion_tokens, &cost);
    return cost;
}

/* P(right) after a verdict that is right with probability a: Bayes' rule. */
static double policy_after_verdict(double p, int is_yes, double a) {
    double right = p * (is_yes ? a : 1 - a), wrong = (1 - p) * (is_yes ? 1 - a : a);
    return right + wrong > 0 ? right / (right + wrong) : p;
}

static int policy_may_check(const minim_route_policy *policy, const minim_route_state *state) {
    return policy->plan == MINIM_ROUTE_PLAN_CASCADE && state->verify == MINIM_ROUTE_NOT_ASKED &&
           state->remote == MINIM_ROUTE_NOT_ASKED;
}

/* What is done with a local answer under "cost". The formulas stand at minim_route_decide(). */
static minim_route_action policy_weigh(const minim_route_policy *policy, const minim_route_features *features,
                                       const minim_route_state *state, minim_route_decision *d) {
    int by_verdict = policy->method == MINIM_ROUTE_VERIFY;
    double a = policy->verify_accuracy > 0.5 ? policy->verify_accuracy < 1 ? policy->verify_accuracy : 1 : 0.5;
    double p = features->has_confidence ? features->confidence : 0, e = policy->error_cost;
    if (features->has_verdict && !by_verdict) p = policy_after_verdict(p, features->verdict >= 0.5, a);
    d->confidence = d->has_confidence ? p : 0;
    d->has_expected = 1;
    d->remote_cost = policy_call_cost(policy, state, 0);
    d->accept_cost = (1 - p) * e;
    d->verify_cost = (double)INFINITY;
    if (policy_may_check(policy, state) && policy->verify_accuracy > 0)
        d->verify_cost =
            policy_call_cost(policy, state, 1) + (1 - p) * (1 - a) * e + (p * (1 - a) + (1 - p) * a) * d->remote_cost;
    if (d->accept_cost <= d->verify_cost && d->accept_cost <= d->remote_cost) return MINIM_ROUTE_ANSWER;
    return d->verify_cost < d->remote_cost ? MINIM_ROUTE_CHECK : MINIM_ROUTE_ASK;
}

/* A local answer that nothing but its score decides about. */
static void policy_by_score(const minim_route_policy *policy, const minim_route_features *features,
                            const minim_route_state *state, minim_route_reason reason, minim_route_decision *d) {
    int by_verdict = policy->method == MINIM_ROUTE_VERIFY && !features->has_verdict;
    int by_cost = policy->threshold_semantics == MINIM_ROUTE_THRESHOLD_COST;
    int may_check = policy_may_check(policy, state);
    minim_route_action action = reason == MINIM_ROUTE_REASON_SCORE_PASSED ? MINIM_ROUTE_ANSWER : MINIM_ROUTE_ASK;
    if (by_verdict) {
        action = may_check ? MINIM_ROUTE_CHECK : MINIM_ROUTE_ASK;
        reason = may_check ? MINIM_ROUTE_REASON_VERIFY : MINIM_ROUTE_REASON_VERIFY_FAILED;
    } else if (by_cost && features->has_confidence) {
        action = policy_weigh(policy, features, state, d);
        reason = MINIM_ROUTE_REASON_COST;
    }
    if (action == MINIM_ROUTE_CHECK)
        policy_set(d, MINIM_ROUTE_CHECK, MINIM_ROUTE_REMOTE, MINIM_ROUTE_REASON_VERIFY);
    else if (action == MINIM_ROUTE_ANSWER)
        policy_set(d, MINIM_ROUTE_ANSWER, MINIM_ROUTE_LOCAL, reason);
    else
        policy_want_remote(policy, state, reason, d);
}

/* ---- the plans of a cascade -------------------------------------------------------------------------------------- */

static void policy_cascade(const minim_route_policy *policy, const minim_route_features *features,
                           const minim_route_state *state, minim_route_decision *d) {
    if (!policy->remote_available) {
        policy_local_stands(state, MINIM_ROUTE_REASON_NO_REMOTE, d);
        return;
    }
    if (!policy_may_ask(state, d)) return;
    d->threshold_semantics = policy->threshold_semantics == MINIM_ROUTE_THRESHOLD_AUTO ? MINIM_ROUTE_THRESHOLD_RAW
                                                                                       : policy->threshold_semantics;
    d->calibrated = features->has_confidence && d->threshold_semantics != MINIM_ROUTE_THRESHOLD_RAW;
    if (state->local == MINIM_ROUTE_NOT_ASKED && policy_prompt_leaves(policy, features)) {
        policy_want_remote(policy, state, MINIM_ROUTE_REASON_PROMPT_SCORE, d);
        return;
    }
    if (state->local == MINIM_ROUTE_NOT_ASKED) {
        int is_race = policy->plan == MINIM_ROUTE_PLAN_RACE;
        policy_set(d, MINIM_ROUTE_ASK, MINIM_ROUTE_LOCAL,
                   is_race ? MINIM_ROUTE_REASON_RACE : MINIM_ROUTE_REASON_LOCAL_FIRST);
        d->hold = 1;
        return;
    }
    minim_route_reason reason = policy_judge_local(policy, features, state, d->score);
    if (reason == MINIM_ROUTE_REASON_SCORE_PASSED || reason == MINIM_ROUTE_REASON_SCORE_LOW ||
        reason == MINIM_ROUTE_REASON_UNCALIBRATED)
        policy_by_score(policy, features, state, reason, d);
    else if (reason == MINIM_ROUTE_REASON_GATE_PASSED)
        policy_set(d, MINIM_ROUTE_ANSWER, MINIM_ROUTE_LOCAL, reason);
    else
        policy_want_remote(policy, state, reason, d);
}

/* The local model writes; where it loses its way the remote writes a span and the local model goes on. */
static void policy_hybrid(const minim_route_policy *policy, const minim_route_features *features,
                          const minim_route_state *state, minim_route_decision *d) {
    minim_route_reason reason = MINIM_ROUTE_REASON_HYBRID;
    if (!policy->remote_available) {
        policy_local_stands(state, MINIM_ROUTE_REASON_NO_REMOTE, d);
        return;
    }
    if (!policy_may_ask(state, d)) return;
    if (state->local == MINIM_ROUTE_STOPPED) {
        policy_set(d, MINIM_ROUTE_ASK, MINIM_ROUTE_REMOTE, MINIM_ROUTE_REASON_COLLAPSED);
        d->span_tokens = policy->span_tokens;
        return;
    }
    if (state->local == MINIM_ROUTE_NOT_ASKED) {
        policy_set(d, MINIM_ROUTE_ASK, MINIM_ROUTE_LOCAL, reason);
        d->hold = 1;
        return;
    }
    if (state->local == MINIM_ROUTE_FAILED)
        reason = MINIM_ROUTE_REASON_LOCAL_FAILED;
    else if (!features->n_bytes)
        reason = MINIM_ROUTE_REASON_LOCAL_EMPTY;
    else if (features->evidence_failed)
        reason = MINIM_ROUTE_REASON_EVIDENCE;
    else if (features->finish == MINIM_ROUTE_FINISH_CONTEXT)
        reason = MINIM_ROUTE_REASON_LOCAL_CONTEXT;
    /* An answer that the remote was wanted for and failed is degraded, whether a span or all of it. */
    if (reason != MINIM_ROUTE_REASON_HYBRID || state->remote == MINIM_ROUTE_FAILED)
        policy_want_remote(policy, state, reason, d);
    else
        policy_set(d, MINIM_ROUTE_ANSWER, MINIM_ROUTE_LOCAL, reason);
}

/* The rules see the request only: no answer is made in vain, and none is judged, except by evidence. */
static void policy_context(const minim_route_policy *policy, const minim_route_features *features,
                           const minim_route_state *state, minim_route_decision *d) {
    int order = 1, rules = policy->rules;
    if (!policy->remote_available) {
        policy_local_stands(state, MINIM_ROUTE_REASON_NO_REMOTE, d);
        return;
    }
    if (!policy_may_ask(state, d)) return; /* privacy, wherever it stands in the order */
    while (order <= rules / 10) order *= 10;
    for (; order; order /= 10) {
        int rule = rules / order % 10;
        if (rule == 2 && policy->latency_budget > 0 && state->remote_latency > policy->latency_budget) {
            policy_local_stands(state, MINIM_ROUTE_REASON_LATENCY, d);
            return;
        }
        if (rule == 3 && policy->complexity_threshold > 0 && features->complexity >= policy->complexity_threshold) {
            policy_want_remote(policy, state, MINIM_ROUTE_REASON_COMPLEXITY, d);
            return;
        }
    }
    minim_route_reason reason = MINIM_ROUTE_REASON_SIMPLE;
    if (state->local == MINIM_ROUTE_FAILED) reason = MINIM_ROUTE_REASON_LOCAL_FAILED;
    if (state->local == MINIM_ROUTE_ANSWERED && features->evidence_failed) reason = MINIM_ROUTE_REASON_EVIDENCE;
    if (reason == MINIM_ROUTE_REASON_SIMPLE)
        policy_local_stands(state, reason, d);
    else
        policy_want_remote(policy, state, reason, d);
}

static void policy_only_remote(const minim_route_policy *policy, const minim_route_state *state,
                               minim_route_decision *d) {
    minim_route_action action = state->remote == MINIM_ROUTE_NOT_ASKED  ? MINIM_ROUTE_ASK
                                : state->remote == MINIM_ROUTE_ANSWERED ? MINIM_ROUTE_ANSWER
                                                                        : MINIM_ROUTE_FAIL;
    minim_route_reason reason = MINIM_ROUTE_REASON_ONLY_REMOTE;
    if (!policy->remote_available)
        reason = MINIM_ROUTE_REASON_NO_REMOTE;
    else if (state->is_private)
        reason = MINIM_ROUTE_REASON_PRIVATE;
    else if (state->over_budget)
        reason = MINIM_ROUTE_REASON_OVER_BUDGET;
    policy_set(d, reason == MINIM_ROUTE_REASON_ONLY_REMOTE ? action : MINIM_ROUTE_FAIL, MINIM_ROUTE_REMOTE, reason);
}

static void policy_remote_first(const minim_route_policy *policy, const minim_route_state *state,
                                minim_route_decision *d) {
    if (policy->remote_available) {
        if (policy_may_ask(state, d)) policy_want_remote(policy, state, MINIM_ROUTE_REASON_REMOTE_FIRST, d);
    } else {
        policy_local_stands(state, MINIM_ROUTE_REASON_NO_REMOTE, d);
        policy_degrade(d, "no remote is configured");
    }
}

/* Tokens of a remote that failed half way are paid for as well. */
static void policy_account(const minim_route_policy *policy, const minim_route_state *state, minim_route_decision *d) {
    d->local = state->local_usage;
    d->remote = state->remote_usage;
    d->seconds = state->seconds;
    d->extra = state->extra_usage;
    d->spans = state->spans;
    d->cost_known = policy_price(policy, d->remote.prompt_tokens + d->extra.prompt_tokens,
                                 d->remote.completion_tokens + d->extra.completion_tokens, &d->cost);
    /* Where the remote did not answer: its prompt as the local model counts it, an answer of the same length. */
    const minim_route_usage *alone = state->cached                           ? &state->cached_usage
                                     : state->remote == MINIM_ROUTE_ANSWERED ? &state->remote_usage
                                                                             : &state->local_usage;
    uint64_t prompt = alone->prompt_tokens ? alone->prompt_tokens : (state->request_bytes + 3) / 4;
    uint64_t spans = state->spans && alone == &state->local_usage ? state->extra_usage.completion_tokens : 0;
    d->all_remote_known = policy_price(policy, prompt, alone->completion_tokens + spans, &d->all_remote_cost);
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
    d.has_prompt_score = features.has_prompt_score;
    d.prompt_score = features.has_prompt_score ? features.prompt_score : 0;
    d.has_score = state.local == MINIM_ROUTE_ANSWERED;
    if (d.has_score) {
        d.has_confidence = features.has_confidence;
        d.confidence = features.has_confidence ? features.confidence : 0;
        d.has_score = policy.method != MINIM_ROUTE_VERIFY || features.has_verdict;
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
        case MINIM_ROUTE_MODE_ONLY_REMOTE: policy_only_remote(&policy, &state, &d); break;
        case MINIM_ROUTE_MODE_CASCADE:
            if (policy.plan == MINIM_ROUTE_PLAN_CONTEXT)
                policy_context(&policy, &features, &state, &d);
            else if (policy.plan == MINIM_ROUTE_PLAN_HYBRID)
                policy_hybrid(&policy, &features, &state, &d);
            else
                policy_cascade(&policy, &features, &state, &d);
            break;
        default: return MINIM_ERR_ARGUMENT;
        }
    if (d.action == MINIM_ROUTE_ANSWER && d.route == MINIM_ROUTE_LOCAL && features.evidence_failed && !d.degraded) {
        policy_degrade(&d, state.evidence_detail[0] ? state.evidence_detail : "a validator refused the answer");
    }
    d.size = decision->size < sizeof d ? decision->size : sizeof d;
    memcpy(decision, &d, d.size);
    return MINIM_OK;
}
