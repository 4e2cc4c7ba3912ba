/* words.c: the names of the router's values. */
#include <string.h>

#include "minim_router.h"

#define WORDS_AT(table, index)                                                                                         \
    ((size_t)(index) < sizeof(table) / sizeof *(table) ? (table)[(size_t)(index)] : "unknown")

static const char *const words_methods[] = {"avg_logprob", "margin",           "quantile",
                                            "learned",     "self_consistency", "verify"};

const char *minim_route_mode_name(minim_route_mode mode) {
    static const char *const words[] = {"cascade", "local", "remote", "only_remote"};
    return WORDS_AT(words, mode);
}

const char *minim_route_plan_name(minim_route_plan plan) {
    static const char *const words[] = {"cascade", "race", "context", "hybrid"};
    return WORDS_AT(words, plan);
}

const char *minim_route_method_name(minim_route_method method) {
    return WORDS_AT(words_methods, method);
}

const char *minim_route_threshold_name(minim_route_threshold threshold) {
    static const char *const words[] = {"auto", "raw", "calibrated", "certified", "cost"};
    return WORDS_AT(words, threshold);
}

static const char *const words_signals[MINIM_ROUTE_N_SIGNALS] = {
    "logprob_mean", "logprob_min",  "logprob_q10", "logprob_q25",   "logprob_q50", "logprob_first", "margin_mean",
    "margin_q10",   "entropy_mean", "entropy_max", "entropy_first", "log_length",  "cut_off"};

const char *minim_route_signal_name(minim_route_signal signal) {
    return WORDS_AT(words_signals, signal);
}

const char *minim_route_name(minim_route route) {
    static const char *const words[] = {"local", "remote"};
    return WORDS_AT(words, route);
}

const char *minim_route_reason_name(minim_route_reason reason) {
    static const char *const words[] = {"local_only",  "local_first",   "remote_first", "score_passed", "score_low",
                                        "local_empty", "local_context", "local_failed", "no_remote",    "remote_failed",
                                        "private",     "over_budget",   "cached",       "uncalibrated", "prompt_score",
                                        "only_remote", "race",          "gate_passed",  "gate_low",     "collapsed",
                                        "race_lost",   "latency",       "complexity",   "simple",       "evidence",
                                        "verify",      "verify_failed", "cost",         "hybrid"};
    return WORDS_AT(words, reason);
}

const char *minim_route_failure_name(minim_route_failure failure) {
    static const char *const words[] = {"ok",         "config", "resolve",    "connect", "tls",      "timeout",
                                        "auth",       "quota",  "rate_limit", "request", "server",   "protocol",
                                        "incomplete", "empty",  "too_large",  "local",   "evidence", "context"};
    return WORDS_AT(words, failure);
}

const char *minim_route_finish_name(minim_route_finish finish) {
    static const char *const words[] = {"stop", "length", "context", "other"};
    return WORDS_AT(words, finish);
}

const char *minim_route_cache_name(minim_route_cache cache) {
    static const char *const words[] = {"off", "on", "read_only", "write_only"};
    return WORDS_AT(words, cache);
}

const char *minim_route_step_name(minim_route_step step) {
    static const char *const words[] = {"wait", "show", "open", "hand_over"};
    return WORDS_AT(words, step);
}

const char *minim_private_name(unsigned bit) {
    static const char *const words[] = {"email", "phone", "card", "iban", "key", "pattern", "request"};
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        if (bit == 1u << i) return words[i];
    }
    return "unknown";
}

int minim_route_mode_parse(const char *word, minim_route_mode *mode) {
    static const struct {
        const char *word;
        minim_route_mode mode;
    } words[] = {{"cascade", MINIM_ROUTE_MODE_CASCADE},
                 {"prefer_on_device", MINIM_ROUTE_MODE_CASCADE},
                 {"local", MINIM_ROUTE_MODE_LOCAL},
                 {"only_on_device", MINIM_ROUTE_MODE_LOCAL},
                 {"remote", MINIM_ROUTE_MODE_REMOTE},
                 {"prefer_in_cloud", MINIM_ROUTE_MODE_REMOTE},
                 {"only_remote", MINIM_ROUTE_MODE_ONLY_REMOTE},
                 {"only_in_cloud", MINIM_ROUTE_MODE_ONLY_REMOTE}};
    for (size_t i = 0; word && i < sizeof words / sizeof *words; i++) {
        if (!strcmp(word, words[i].word)) {
            *mode = words[i].mode;
            return 0;
        }
    }
    return -1;
}

int minim_route_method_parse(const char *word, minim_route_method *method) {
    for (size_t i = 0; word && i < sizeof words_methods / sizeof *words_methods; i++) {
        if (!strcmp(word, words_methods[i])) {
            *method = (minim_route_method)i;
            return 0;
        }
    }
    return -1;
}
