/* words.c: the names of the router's values. */
#include <string.h>

#include "minim_router.h"

#define WORDS_AT(table, index)                                                                                         \
    ((size_t)(index) < sizeof(table) / sizeof *(table) ? (table)[(size_t)(index)] : "unknown")

const char *minim_route_mode_name(minim_route_mode mode) {
    static const char *const words[] = {"cascade", "local", "remote"};
    return WORDS_AT(words, mode);
}

const char *minim_route_method_name(minim_route_method method) {
    static const char *const words[] = {"avg_logprob"};
    return WORDS_AT(words, method);
}

const char *minim_route_name(minim_route route) {
    static const char *const words[] = {"local", "remote"};
    return WORDS_AT(words, route);
}

const char *minim_route_reason_name(minim_route_reason reason) {
    static const char *const words[] = {"local_only",  "local_first",   "remote_first", "score_passed", "score_low",
                                        "local_empty", "local_context", "local_failed", "no_remote",    "remote_failed",
                                        "private",     "over_budget",   "cached"};
    return WORDS_AT(words, reason);
}

const char *minim_route_failure_name(minim_route_failure failure) {
    static const char *const words[] = {"ok",         "config", "resolve",    "connect", "tls",    "timeout",
                                        "auth",       "quota",  "rate_limit", "request", "server", "protocol",
                                        "incomplete", "empty",  "too_large",  "local"};
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
    } words[] = {{"cascade", MINIM_ROUTE_MODE_CASCADE}, {"prefer_on_device", MINIM_ROUTE_MODE_CASCADE},
                 {"local", MINIM_ROUTE_MODE_LOCAL},     {"only_on_device", MINIM_ROUTE_MODE_LOCAL},
                 {"remote", MINIM_ROUTE_MODE_REMOTE},   {"prefer_in_cloud", MINIM_ROUTE_MODE_REMOTE}};
    for (size_t i = 0; word && i < sizeof words / sizeof *words; i++) {
        if (!strcmp(word, words[i].word)) {
            *mode = words[i].mode;
            return 0;
        }
    }
    return -1;
}
