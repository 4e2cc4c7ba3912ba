/* watch.c: what to do while the local model answers. Pure functions of values, as policy.c. */
#include <math.h>
#include <string.h>

#include "support.h"

/* The geometric mean probability of n tokens; 0 when that is no number. */
static double watch_score(double sum, uint64_t n) {
    double mean = n ? sum / (double)n : (double)NAN;
    return isnan(mean) ? 0 : mean < 0 ? exp(mean) : 1;
}

static minim_route_step watch_race(const minim_route_policy *policy, const minim_route_progress *p,
                                   minim_route_reason *reason) {
    uint64_t enough = policy->hold_tokens > 0 ? (uint64_t)policy->hold_tokens : 8;
    int looks = p->n_tokens >= enough || (p->n_tokens && p->seconds >= policy->gate_seconds);
    int passes = looks && watch_score(p->sum_logprob, p->n_tokens) >= policy->gate_threshold;
    if (p->remote_bytes) {
        *reason = MINIM_ROUTE_REASON_RACE_LOST;
        return MINIM_ROUTE_STEP_HAND_OVER;
    }
    if (passes) {
        *reason = MINIM_ROUTE_REASON_GATE_PASSED;
        return MINIM_ROUTE_STEP_SHOW;
    }
    if (p->remote_open || !p->may_ask) return MINIM_ROUTE_STEP_WAIT;
    int is_complex = policy->complexity_threshold > 0 && policy->complexity_threshold < 1 &&
                     p->complexity >= policy->complexity_threshold;
    if (!looks && !is_complex && p->seconds < policy->hedge_seconds) return MINIM_ROUTE_STEP_WAIT;
    *reason = is_complex ? MINIM_ROUTE_REASON_COMPLEXITY
              : looks    ? MINIM_ROUTE_REASON_GATE_LOW
                         : MINIM_ROUTE_REASON_RACE;
    return MINIM_ROUTE_STEP_OPEN;
}

static minim_route_step watch_step(const minim_route_policy *policy, const minim_route_progress *p,
                                   minim_route_reason *reason) {
    if (policy->mode != MINIM_ROUTE_MODE_CASCADE || policy->plan == MINIM_ROUTE_PLAN_CONTEXT)
        return MINIM_ROUTE_STEP_WAIT;
    if (p->shown || policy->plan == MINIM_ROUTE_PLAN_HYBRID) {
        int collapsed = p->may_ask && policy->handover_threshold > 0 && policy->handover_tokens > 0 &&
                        p->last_tokens >= (uint64_t)policy->handover_tokens &&
                        watch_score(p->last_logprob, p->last_tokens) < policy->handover_threshold;
        *reason = MINIM_ROUTE_REASON_COLLAPSED;
        return collapsed ? MINIM_ROUTE_STEP_HAND_OVER : MINIM_ROUTE_STEP_WAIT;
    }
    if (policy->plan == MINIM_ROUTE_PLAN_RACE) return watch_race(policy, p, reason);
    if (policy->hold_tokens <= 0 || p->n_tokens < (uint64_t)policy->hold_tokens) return MINIM_ROUTE_STEP_WAIT;
    int passes = watch_score(p->sum_logprob, p->n_tokens) >= policy->gate_threshold;
    *reason = passes ? MINIM_ROUTE_REASON_GATE_PASSED : MINIM_ROUTE_REASON_GATE_LOW;
    return passes ? MINIM_ROUTE_STEP_SHOW : p->may_ask ? MINIM_ROUTE_STEP_HAND_OVER : MINIM_ROUTE_STEP_WAIT;
}

minim_status minim_route_watch(const minim_route_policy *policy_in, const minim_route_progress *progress_in,
                               minim_route_step *step, minim_route_reason *reason) {
    minim_route_policy policy = {0};
    minim_route_progress progress = {0};
    minim_route_reason why = MINIM_ROUTE_REASON_LOCAL_FIRST;
    if (router_copy_sized(&policy, sizeof policy, policy_in) ||
        router_copy_sized(&progress, sizeof progress, progress_in) || !step || !reason) {
        return MINIM_ERR_ARGUMENT;
    }
    *step = watch_step(&policy, &progress, &why);
    *reason = why;
    return MINIM_OK;
}
