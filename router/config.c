/* config.c: what can be configured: one table of keys, types and ranges; defaults, checks, environment, flags. The file
 * is read in config_file.c. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void minim_router_config_default(minim_router_config *config) {
    if (!config) return;
    memset(config, 0, sizeof *config);
    config->size = sizeof *config;
    config->mode = MINIM_ROUTE_MODE_CASCADE;
    config->confidence_method = MINIM_ROUTE_AVG_LOGPROB;
    config->threshold = 0.5;
    config->connect_timeout = 5;
    config->stream_timeout = 60;
    config->idle_timeout = 30;
    config->timeout = 600;
    config->num_retries = 2;
    config->retry_after = 0.5;
    config->input_cost_per_token = config->output_cost_per_token = -1;
    config->max_response_bytes = (uint64_t)16 << 20;
    config->require_done = 1;
    config->stream = 1;
    config->max_budget = -1;
    config->allowed_fails = 3;
    config->cooldown_time = 5;
    config->cache_max_age = 86400;
    config->private_detect = MINIM_PRIVATE_ALL;
    config->gate_threshold = 0.5;
    config->handover_tokens = 16;
    config->gate_delay = 0.1;
    config->hedge_delay = 0.25;
    config->escalation_order = 123;
    config->complexity_threshold = 0.5;
    config->max_fallbacks = MINIM_ROUTER_FALLBACKS;
    config->verify_accuracy = 0.8;
    config->span_tokens = 32;
    config->max_spans = 4;
    config->samples = 5;
    config->sample_temperature = 0.7;
}

/* ---- the keys --------------------------------------------------------------------------------------------------- */

static int config_parse_mode(const char *word, int *value) {
    minim_route_mode mode;
    if (minim_route_mode_parse(word, &mode)) return -1;
    *value = (int)mode;
    return 0;
}

static int config_parse_method(const char *word, int *value) {
    minim_route_method method;
    if (minim_route_method_parse(word, &method)) return -1;
    *value = (int)method;
    return 0;
}

static int config_parse_semantics(const char *word, int *value) {
    for (int i = MINIM_ROUTE_THRESHOLD_AUTO; i <= MINIM_ROUTE_THRESHOLD_COST; i++) {
        if (strcmp(word, minim_route_threshold_name((minim_route_threshold)i)) != 0) continue;
        *value = i;
        return 0;
    }
    return -1;
}

static int config_parse_tokens_field(const char *word, int *value) {
    *value = !strcmp(word, "max_completion_tokens");
    return *value || !strcmp(word, "max_tokens") ? 0 : -1;
}

static int config_parse_cache(const char *word, int *value) {
    for (*value = MINIM_ROUTE_CACHE_OFF; *value <= MINIM_ROUTE_CACHE_WRITE_ONLY; ++*value) {
        if (!strcmp(word, minim_route_cache_name((minim_route_cache)*value))) return 0;
    }
    return -1;
}

static int config_parse_plan(const char *word, int *value) {
    for (*value = MINIM_ROUTE_PLAN_CASCADE; *value <= MINIM_ROUTE_PLAN_HYBRID; ++*value) {
        if (!strcmp(word, minim_route_plan_name((minim_route_plan)*value))) return 0;
    }
    return -1;
}

static int config_parse_on_error(const char *word, int *value) {
    *value = !strcmp(word, "fail");
    return *value || !strcmp(word, "skip") ? 0 : -1;
}

static int config_parse_continuation(const char *word, int *value) {
    static const char *const words[] = {"none", "prefix", "partial", "assistant", "continue_final_message"};
    for (*value = MINIM_ROUTE_CONTINUE_NONE; *value <= MINIM_ROUTE_CONTINUE_FINAL; ++*value) {
        if (!strcmp(word, words[*value])) return 0;
    }
    return -1;
}

static int config_parse_rule(const char *word, int *value) {
    *value = !strcmp(word, "privacy") ? 1 : !strcmp(word, "latency") ? 2 : !strcmp(word, "complexity") ? 3 : 0;
    return *value ? 0 : -1;
}

static int config_parse_private(const char *word, int *value) {
    for (*value = 1; *value < MINIM_PRIVATE_ALL; *value *= 2) {
        if (!strcmp(word, minim_private_name((unsigned)*value))) return 0;
    }
    return -1;
}

int config_parse_duration(const char *text, double *value) {
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {"mo", -1}};
    char *end;
    if (text[0] < '1' || text[0] > '9') return -1;
    unsigned long n = strtoul(text, &end, 10);
    for (size_t i = 0; n <= 10000 && i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].unit)) continue;
        *value = (double)n * units[i].seconds;
        return 0;
    }
    return -1;
}

#define CONFIG_AT(field) offsetof(minim_router_config, field)
#define CONFIG_SECONDS   CONFIG_REAL
static const char config_seconds[] = "a number of seconds from 0.001 to 86400";
static const char config_delay[] = "a number of seconds from 0 to 86400";
static const char config_price[] = "a price in $ per token from 0 to 1";

static const config_key config_keys[] = {
    {"", "mode", CONFIG_WORD, CONFIG_AT(mode), 0, 0,
     "\"cascade\", \"local\", \"remote\", \"only_remote\", \"prefer_on_device\", \"only_on_device\", "
     "\"prefer_in_cloud\" or "
     "\"only_in_cloud\"",
     config_parse_mode},
    {"", "confidence_method", CONFIG_WORD, CONFIG_AT(confidence_method), 0, 0,
     "\"avg_logprob\", \"margin\", \"quantile\", \"learned\", \"self_consistency\" or \"verify\"", config_parse_method},
    {"", "policy", CONFIG_WORD, CONFIG_AT(plan), 0, 0, "\"cascade\", \"race\", \"context\" or \"hybrid\"",
     config_parse_plan},
    {"", "span_tokens", CONFIG_INTEGER, CONFIG_AT(span_tokens), 1, 4096, "a whole number from 1 to 4096", NULL},
    {"", "max_spans", CONFIG_INTEGER, CONFIG_AT(max_spans), 1, 1000, "a whole number from 1 to 1000", NULL},
    {"", "error_cost", CONFIG_REAL, CONFIG_AT(error_cost), 0, 1e6, "an amount of $ from 0 to 1000000", NULL},
    {"", "verify_accuracy", CONFIG_REAL, CONFIG_AT(verify_accuracy), 0, 1, "0, or a number from 0.5 to 1", NULL},
    {"", "on_error", CONFIG_WORD, CONFIG_AT(fail_on_error), 0, 0, "\"skip\" or \"fail\"", config_parse_on_error},
    {"self_consistency", "samples", CONFIG_INTEGER, CONFIG_AT(samples), 2, 16, "a whole number from 2 to 16", NULL},
    {"self_consistency", "temperature", CONFIG_REAL, CONFIG_AT(sample_temperature), 0.01, 5, "a number from 0.01 to 5",
     NULL},
    {"self_consistency", "pattern", CONFIG_STRING, CONFIG_AT(sample_pattern), 0,
     sizeof((minim_router_config *)0)->sample_pattern, "a regular expression shorter than 1024 bytes", NULL},
    {"", "hold_tokens", CONFIG_INTEGER, CONFIG_AT(hold_tokens), 0, 4096, "a whole number from 0 to 4096", NULL},
    {"", "gate_threshold", CONFIG_REAL, CONFIG_AT(gate_threshold), 0, 1, "a number from 0 to 1", NULL},
    {"", "handover_threshold", CONFIG_REAL, CONFIG_AT(handover_threshold), 0, 1, "a number from 0 to 1", NULL},
    {"", "handover_tokens", CONFIG_INTEGER, CONFIG_AT(handover_tokens), 1, 64, "a whole number from 1 to 64", NULL},
    {"", "gate_delay", CONFIG_SECONDS, CONFIG_AT(gate_delay), 0, 86400, config_delay, NULL},
    {"", "hedge_delay", CONFIG_SECONDS, CONFIG_AT(hedge_delay), 0, 86400, config_delay, NULL},
    {"", "escalation_order", CONFIG_ORDER, CONFIG_AT(escalation_order), 0, 0,
     "an array of \"privacy\", \"latency\", \"complexity\"", config_parse_rule},
    {"", "complexity_threshold", CONFIG_REAL, CONFIG_AT(complexity_threshold), 0, 1, "a number from 0 to 1", NULL},
    {"", "latency_budget", CONFIG_SECONDS, CONFIG_AT(latency_budget), 0, 86400, config_delay, NULL},
    {"", "remote_latency", CONFIG_SECONDS, CONFIG_AT(remote_latency), 0, 86400, config_delay, NULL},
    {"", "threshold", CONFIG_REAL, CONFIG_AT(threshold), 0, 1, "a number from 0 to 1", NULL},
    {"", "max_budget", CONFIG_REAL, CONFIG_AT(max_budget), 0, 1e6, "an amount of $ from 0 to 1000000", NULL},
    {"", "budget_duration", CONFIG_DURATION, CONFIG_AT(budget_duration), 0, 0,
     "\"30s\", \"30m\", \"30h\", \"30d\" or \"1mo\"", NULL},
    {"ledger", "path", CONFIG_STRING, CONFIG_AT(ledger), 0, sizeof((minim_router_config *)0)->ledger,
     "a path shorter than 1024 bytes", NULL},
    {"ledger", "content", CONFIG_BOOLEAN, CONFIG_AT(ledger_content), 0, 0, "true or false", NULL},
    {"cache", "enabled", CONFIG_WORD, CONFIG_AT(cache), 0, 0, "\"on\", \"off\", \"read_only\" or \"write_only\"",
     config_parse_cache},
    {"cache", "max_age_s", CONFIG_REAL, CONFIG_AT(cache_max_age), 1, 1e9, "a number of seconds from 1 to 1000000000",
     NULL},
    {"cache", "sampled", CONFIG_BOOLEAN, CONFIG_AT(cache_sampled), 0, 0, "true or false", NULL},
    {"privacy", "detect", CONFIG_SET, CONFIG_AT(private_detect), 0, 0,
     "an array of \"email\", \"phone\", \"card\", \"iban\", \"key\"", config_parse_private},
    {"privacy", "patterns", CONFIG_LINES, CONFIG_AT(private_patterns), 0,
     sizeof((minim_router_config *)0)->private_patterns,
     "an array of regular expressions, 4095 bytes in all, without empty ones and newlines", NULL},
    {"", "threshold_semantics", CONFIG_WORD, CONFIG_AT(threshold_semantics), 0, 0,
     "\"auto\", \"raw\", \"calibrated\", \"certified\" or \"cost\"", config_parse_semantics},
    {"", "calibration", CONFIG_STRING, CONFIG_AT(calibration), 0, sizeof((minim_router_config *)0)->calibration,
     "a path shorter than 1024 bytes", NULL},
    {"", "prompt_model", CONFIG_STRING, CONFIG_AT(prompt_model), 0, sizeof((minim_router_config *)0)->prompt_model,
     "a path shorter than 1024 bytes", NULL},
    {"", "prompt_threshold", CONFIG_REAL, CONFIG_AT(prompt_threshold), -1, 1, "a number from -1 to 1", NULL},
    {"evidence", "json_schema", CONFIG_JSON, CONFIG_AT(evidence_schema), 0,
     sizeof((minim_router_config *)0)->evidence_schema, "an object of 4095 bytes at most", NULL},
    {"evidence", "pattern", CONFIG_STRING, CONFIG_AT(evidence_pattern), 0,
     sizeof((minim_router_config *)0)->evidence_pattern, "a regular expression shorter than 1024 bytes", NULL},
    {"evidence", "spans", CONFIG_BOOLEAN, CONFIG_AT(evidence_spans), 0, 0, "true or false", NULL},
    {"evidence", "numbers", CONFIG_BOOLEAN, CONFIG_AT(evidence_numbers), 0, 0, "true or false", NULL},
    {"evidence", "command", CONFIG_LINES, CONFIG_AT(evidence_command), 0,
     sizeof((minim_router_config *)0)->evidence_command,
     "an array of a program and its arguments, 1023 bytes in all, without newlines", NULL},
    {"remote", "base_url", CONFIG_STRING, CONFIG_AT(base_url), 0, sizeof((minim_router_config *)0)->base_url,
     "a URL shorter than 1024 bytes", NULL},
    {"remote", "model", CONFIG_STRING, CONFIG_AT(model), 0, sizeof((minim_router_config *)0)->model,
     "a name shorter than 256 bytes", NULL},
    {"remote", "api_key", CONFIG_STRING, CONFIG_AT(api_key), 0, sizeof((minim_router_config *)0)->api_key,
     "\"env:NAME\" or \"file:PATH\" shorter than 1024 bytes", NULL},
    {"remote", "connect_timeout", CONFIG_SECONDS, CONFIG_AT(connect_timeout), 0.001, 86400, config_seconds, NULL},
    {"remote", "stream_timeout", CONFIG_SECONDS, CONFIG_AT(stream_timeout), 0.001, 86400, config_seconds, NULL},
    {"remote", "idle_timeout", CONFIG_SECONDS, CONFIG_AT(idle_timeout), 0.001, 86400, config_seconds, NULL},
    {"remote", "timeout", CONFIG_SECONDS, CONFIG_AT(timeout), 0.001, 86400, config_seconds, NULL},
    {"remote", "num_retries", CONFIG_INTEGER, CONFIG_AT(num_retries), 0, 10, "a whole number from 0 to 10", NULL},
    {"remote", "fallbacks", CONFIG_ENDPOINTS, CONFIG_AT(fallbacks), 0, 0,
     "an array of at most 5 objects, each with a base_url and maybe model and api_key (\"env:NAME\", \"file:PATH\")",
     NULL},
    {"remote", "context_window_fallbacks", CONFIG_ENDPOINTS, CONFIG_AT(context_fallbacks), 0, 0,
     "an array of at most 5 objects, each with a base_url and maybe model and api_key (\"env:NAME\", \"file:PATH\")",
     NULL},
    {"remote", "max_fallbacks", CONFIG_INTEGER, CONFIG_AT(max_fallbacks), 0, 5, "a whole number from 0 to 5", NULL},
    {"remote", "continuation", CONFIG_WORD, CONFIG_AT(continuation), 0, 0,
     "\"none\", \"prefix\", \"partial\", \"assistant\" or \"continue_final_message\"", config_parse_continuation},
    {"remote", "provider", CONFIG_JSON, CONFIG_AT(provider), 0, sizeof((minim_router_config *)0)->provider,
     "an object of 1023 bytes at most", NULL},
    {"remote", "allowed_fails", CONFIG_INTEGER, CONFIG_AT(allowed_fails), 1, 1000, "a whole number from 1 to 1000",
     NULL},
    {"remote", "cooldown_time", CONFIG_SECONDS, CONFIG_AT(cooldown_time), 0.001, 86400, config_seconds, NULL},
    {"remote", "disable_cooldowns", CONFIG_BOOLEAN, CONFIG_AT(disable_cooldowns), 0, 0, "true or false", NULL},
    {"remote", "retry_after", CONFIG_SECONDS, CONFIG_AT(retry_after), 0.001, 86400, config_seconds, NULL},
    {"remote", "input_cost_per_token", CONFIG_REAL, CONFIG_AT(input_cost_per_token), 0, 1, config_price, NULL},
    {"remote", "output_cost_per_token", CONFIG_REAL, CONFIG_AT(output_cost_per_token), 0, 1, config_price, NULL},
    {"remote", "max_response_bytes", CONFIG_BYTES, CONFIG_AT(max_response_bytes), 1024, 1 << 30,
     "a whole number of bytes from 1024 to 1073741824", NULL},
    {"remote", "require_done", CONFIG_BOOLEAN, CONFIG_AT(require_done), 0, 0, "true or false", NULL},
    {"remote", "stream", CONFIG_BOOLEAN, CONFIG_AT(stream), 0, 0, "true or false", NULL},
    {"remote", "max_tokens_field", CONFIG_WORD, CONFIG_AT(new_max_tokens), 0, 0,
     "\"max_tokens\" or \"max_completion_tokens\"", config_parse_tokens_field},
};

const config_key *config_find(const char *section, const char *name) {
    for (size_t i = 0; i < sizeof config_keys / sizeof *config_keys; i++) {
        if (!strcmp(config_keys[i].section, section) && !strcmp(config_keys[i].name, name)) return &config_keys[i];
    }
    return NULL;
}

int config_is_section(const char *name) {
    for (size_t i = 0; i < sizeof config_keys / sizeof *config_keys; i++) {
        if (name[0] && !strcmp(config_keys[i].section, name)) return 1;
    }
    return 0;
}

/* Not given: what a number has that nobody set, and that may be outside of what can be given. */
static int config_is_default(const config_key *key, double value) {
    minim_router_config defaults;
    minim_router_config_default(&defaults);
    return key->kind == CONFIG_REAL && value == *(double *)(void *)((char *)&defaults + key->offset);
}

minim_status router_copy_config(minim_router_config *to, const minim_router_config *from, minim_error *error) {
    minim_router_config defaults;
    minim_router_config_default(&defaults);
    *to = defaults;
    if (router_copy_sized(to, sizeof *to, from)) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "the configuration is NULL or has no size");
    }
    if ((unsigned)to->mode > MINIM_ROUTE_MODE_ONLY_REMOTE || (unsigned)to->plan > MINIM_ROUTE_PLAN_HYBRID ||
        (unsigned)to->confidence_method > MINIM_ROUTE_VERIFY ||
        (unsigned)to->threshold_semantics > MINIM_ROUTE_THRESHOLD_COST ||
        (unsigned)to->continuation > MINIM_ROUTE_CONTINUE_FINAL) {
        return router_fail(error, MINIM_ERR_ARGUMENT,
                           "the configuration's mode, method or policy is none of the known ones");
    }
    if ((unsigned)to->cache > MINIM_ROUTE_CACHE_WRITE_ONLY || !(fabs(to->budget_duration) <= 1e9)) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "the configuration's cache or budget_duration makes no sense");
    }
    for (int i = 0; i < 2 * MINIM_ROUTER_FALLBACKS; i++) {
        int k = i % MINIM_ROUTER_FALLBACKS;
        minim_router_endpoint *e = i == k ? &to->fallbacks[k] : &to->context_fallbacks[k];
        e->base_url[sizeof e->base_url - 1] = e->model[sizeof e->model - 1] = e->api_key[sizeof e->api_key - 1] = 0;
    }
    for (size_t i = 0; i < sizeof config_keys / sizeof *config_keys; i++) {
        const config_key *key = &config_keys[i];
        char *field = (char *)to + key->offset;
        double value;
        if (key->kind == CONFIG_STRING || key->kind == CONFIG_LINES || key->kind == CONFIG_JSON)
            field[(size_t)key->max - 1] = 0;
        if (key->kind == CONFIG_REAL)
            value = *(double *)(void *)field;
        else if (key->kind == CONFIG_INTEGER)
            value = *(int *)(void *)field;
        else if (key->kind == CONFIG_BYTES)
            value = (double)*(uint64_t *)(void *)field;
        else
            continue;
        int is_unknown_price = key->expected == config_price && value < 0;
        if (!is_unknown_price && !(value >= key->min && value <= key->max) && !config_is_default(key, value)) {
            return router_fail(error, MINIM_ERR_ARGUMENT, "%s: found %.10g, expected %s", key->name, value,
                               key->expected);
        }
    }
    return MINIM_OK;
}

void config_give_back(minim_router_config *to, minim_router_config *from) {
    from->size = to->size < sizeof *from ? to->size : sizeof *from;
    memcpy(to, from, from->size);
}

/* ---- environment and flags -------------------------------------------------------------------------------------- */

/* A value of the environment; NULL when it is not set or empty. */
static const char *config_environment(const char *name) {
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

static minim_status config_copy(char *field, size_t capacity, const char *what, const char *value, minim_error *error) {
    if (strlen(value) >= capacity) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "%s: found %zu bytes, expected fewer than %zu", what,
                           strlen(value), capacity);
    }
    memcpy(field, value, strlen(value) + 1);
    return MINIM_OK;
}

/* Another address than the file's: the key that the file named is not for it. */
static minim_status config_set_url(minim_router_config *config, const char *what, const char *url, minim_error *error) {
    if (!strcmp(url, config->base_url)) {
        config->url_was_found = 0;
        return MINIM_OK;
    }
    minim_status status = config_copy(config->base_url, sizeof config->base_url, what, url, error);
    if (status != MINIM_OK) return status;
    config->url_was_found = 0;
    config->api_key[0] = 0;
    return MINIM_OK;
}

/* An address that nobody named gets no key. */
static void config_default_key(minim_router_config *config) {
    static const char reference[] = "env:OPENAI_API_KEY";
    if (config->api_key[0] || config->url_was_found || !config_environment("OPENAI_API_KEY")) return;
    memcpy(config->api_key, reference, sizeof reference);
}

/* Both functions below: `url` and `model` may be NULL. */
static minim_status config_apply(minim_router_config *config, const char *url_name, const char *url,
                                 const char *model_name, const char *model, minim_error *error) {
    minim_router_config c;
    minim_router_config_default(&c);
    if (!config || router_copy_sized(&c, sizeof c, config)) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "the configuration is NULL or has no size");
    }
    minim_status status = url ? config_set_url(&c, url_name, url, error) : MINIM_OK;
    if (status == MINIM_OK && model) status = config_copy(c.model, sizeof c.model, model_name, model, error);
    if (status != MINIM_OK) return status;
    config_default_key(&c);
    config_give_back(config, &c);
    return MINIM_OK;
}

minim_status minim_router_config_environment(minim_router_config *config, minim_error *error) {
    return config_apply(config, "OPENAI_BASE_URL", config_environment("OPENAI_BASE_URL"), "OPENAI_MODEL",
                        config_environment("OPENAI_MODEL"), error);
}

minim_status minim_router_config_remote(minim_router_config *config, const char *base_url, const char *model,
                                        minim_error *error) {
    return config_apply(config, "--remote-url", base_url, "--remote-model", model, error);
}
