/* config_file.c: reads a minim.json. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "config.h"

enum { CONFIG_FILE_MAX = 1 << 20, CONFIG_PATH_MAX = 4096 };

/* ---- values ----------------------------------------------------------------------------------------------------- */

/* What was found, in words; strings other than a choice are not quoted, one of them may be a key. */
static void config_found(const config_key *key, const json_t *value, char *buffer, size_t capacity) {
    switch (json_typeof(value)) {
    case JSON_OBJECT: router_line(buffer, capacity, "an object"); break;
    case JSON_ARRAY: router_line(buffer, capacity, "an array"); break;
    case JSON_STRING:
        if (key->kind == CONFIG_WORD || key->kind == CONFIG_DURATION)
            router_line(buffer, capacity, "\"%.80s\"", json_string_value(value));
        else
            router_line(buffer, capacity, "a string of %zu bytes", json_string_length(value));
        break;
    case JSON_INTEGER: router_line(buffer, capacity, "%lld", (long long)json_integer_value(value)); break;
    case JSON_REAL: router_line(buffer, capacity, "%.10g", json_real_value(value)); break;
    case JSON_TRUE: router_line(buffer, capacity, "true"); break;
    case JSON_FALSE: router_line(buffer, capacity, "false"); break;
    default: router_line(buffer, capacity, "null"); break;
    }
}

/* Bits of words; -1 when one is none. */
static int config_store_set(const config_key *key, const json_t *value, unsigned *set) {
    const json_t *item;
    size_t i;
    int bit;
    unsigned bits = 0;
    if (!json_is_array(value)) return -1;
    json_array_foreach(value, i, item) {
        if (!json_is_string(item) || key->parse_word(json_string_value(item), &bit)) return -1;
        bits |= (unsigned)bit;
    }
    *set = bits;
    return 0;
}

/* Different words as decimal digits; -1 when one is none or stands twice. */
static int config_store_order(const config_key *key, const json_t *value, int *order) {
    const json_t *item;
    size_t i;
    int digits = 0, digit;
    if (!json_is_array(value)) return -1;
    json_array_foreach(value, i, item) {
        if (!json_is_string(item) || key->parse_word(json_string_value(item), &digit)) return -1;
        for (int rest = digits; rest; rest /= 10) {
            if (rest % 10 == digit) return -1;
        }
        digits = digits * 10 + digit;
    }
    *order = digits;
    return 0;
}

static int config_store_text(const json_t *value, char *field, size_t capacity) {
    if (!json_is_string(value) || json_string_length(value) >= capacity) return -1;
    memcpy(field, json_string_value(value), json_string_length(value) + 1);
    return 0;
}

/* Other servers; a key itself is refused here as in the first one's place. */
static int config_store_endpoints(const json_t *value, minim_router_endpoint *endpoints) {
    minim_router_endpoint read[MINIM_ROUTER_FALLBACKS];
    const json_t *item;
    size_t i;
    memset(read, 0, sizeof read);
    if (!json_is_array(value) || json_array_size(value) > MINIM_ROUTER_FALLBACKS) return -1;
    json_array_foreach(value, i, item) {
        minim_router_endpoint *e = &read[i];
        const char *name;
        json_t *part;
        json_object_foreach((json_t *)(uintptr_t)item, name, part) {
            int bad = !strcmp(name, "base_url")  ? config_store_text(part, e->base_url, sizeof e->base_url)
                      : !strcmp(name, "model")   ? config_store_text(part, e->model, sizeof e->model)
                      : !strcmp(name, "api_key") ? config_store_text(part, e->api_key, sizeof e->api_key)
                                                 : -1;
            if (bad) return -1;
        }
        int named = !e->api_key[0] || !strncmp(e->api_key, "env:", 4) || !strncmp(e->api_key, "file:", 5);
        if (!e->base_url[0] || !named) return -1;
    }
    memcpy(endpoints, read, sizeof read);
    return 0;
}

static int config_store_json(const config_key *key, const json_t *value, char *text) {
    char *dump = json_is_object(value) ? json_dumps(value, JSON_COMPACT) : NULL;
    int fits = dump && strlen(dump) < (size_t)key->max;
    if (fits) memcpy(text, dump, strlen(dump) + 1);
    free(dump);
    return fits ? 0 : -1;
}

/* Strings, a line each. */
static int config_store_lines(const config_key *key, const json_t *value, char *lines) {
    const json_t *item;
    size_t i, n = 0;
    if (!json_is_array(value)) return -1;
    json_array_foreach(value, i, item) {
        size_t length = json_string_length(item);
        if (!length || strchr(json_string_value(item), '\n') || length + 2 > (size_t)key->max - n) return -1;
        if (n) lines[n++] = '\n';
        memcpy(lines + n, json_string_value(item), length);
        n += length;
    }
    lines[n] = 0;
    return 0;
}

/* Stores a value of the right type and range; -1 when it is not. */
static int config_store(const config_key *key, const json_t *value, minim_router_config *config) {
    void *field = (char *)config + key->offset;
    double number = json_number_value(value);
    int in_range = number >= key->min && number <= key->max, word;
    switch (key->kind) {
    case CONFIG_REAL:
        if (!json_is_number(value) || !in_range) return -1;
        *(double *)field = number;
        return 0;
    case CONFIG_INTEGER:
        if (!json_is_integer(value) || !in_range) return -1;
        *(int *)field = (int)number;
        return 0;
    case CONFIG_BYTES:
        if (!json_is_integer(value) || !in_range) return -1;
        *(uint64_t *)field = (uint64_t)json_integer_value(value);
        return 0;
    case CONFIG_BOOLEAN:
        if (!json_is_boolean(value)) return -1;
        *(int *)field = json_is_true(value);
        return 0;
    case CONFIG_STRING:
        if (!json_is_string(value) || json_string_length(value) >= (size_t)key->max) return -1;
        memcpy(field, json_string_value(value), json_string_length(value) + 1);
        return 0;
    case CONFIG_ENDPOINTS: return config_store_endpoints(value, field);
    case CONFIG_JSON: return config_store_json(key, value, field);
    case CONFIG_ORDER: return config_store_order(key, value, field);
    case CONFIG_SET: return config_store_set(key, value, field);
    case CONFIG_LINES: return config_store_lines(key, value, field);
    case CONFIG_DURATION: return json_is_string(value) ? config_parse_duration(json_string_value(value), field) : -1;
    case CONFIG_WORD:
        if (!json_is_string(value) || key->parse_word(json_string_value(value), &word)) return -1;
        memcpy(field, &word, sizeof word); /* an enum of ours is as wide as an int */
        return 0;
    }
    return -1;
}

static minim_status config_read_object(const char *path, const char *section, json_t *object,
                                       minim_router_config *config, minim_error *error) {
    const char *name, *dot = section[0] ? "." : "";
    json_t *value;
    json_object_foreach(object, name, value) {
        if (!section[0] && config_is_section(name)) {
            if (!json_is_object(value)) {
                return router_fail(error, MINIM_ERR_FORMAT, "%s: %s: expected an object", path, name);
            }
            minim_status status = config_read_object(path, name, value, config, error);
            if (status != MINIM_OK) return status;
            continue;
        }
        const config_key *key = config_find(section, name);
        if (!key) {
            return router_fail(error, MINIM_ERR_FORMAT, "%s: unknown key \"%s%s%.80s\" (router/README.md lists them)",
                               path, section, dot, name);
        }
        if (config_store(key, value, config)) {
            char found[128];
            config_found(key, value, found, sizeof found);
            return router_fail(error, MINIM_ERR_FORMAT, "%s: %s%s%s: found %s, expected %s", path, section, dot, name,
                               found, key->expected);
        }
    }
    return MINIM_OK;
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

/* A path that a file says is relative to that file. field: the path behind a prefix of n_prefix bytes. */
static minim_status config_place(const char *path, const char *name, char *field, size_t capacity, size_t n_prefix,
                                 minim_error *error) {
    const char *slash = strrchr(path, '/');
    char placed[1024];
    if (field[n_prefix] == '/' || !slash) return MINIM_OK;
    int n = snprintf(placed, sizeof placed, "%.*s%.*s%s", (int)n_prefix, field, (int)(slash + 1 - path), path,
                     field + n_prefix);
    if (n < 0 || (size_t)n >= capacity || (size_t)n >= sizeof placed) {
        return router_fail(error, MINIM_ERR_FORMAT, "%s: %s: the path is too long", path, name);
    }
    memcpy(field, placed, (size_t)n + 1);
    return MINIM_OK;
}

static minim_status config_place_keys(const char *path, const char *name, const minim_router_endpoint *before,
                                      minim_router_endpoint *endpoints, minim_error *error) {
    minim_status status = MINIM_OK;
    for (int i = 0; i < MINIM_ROUTER_FALLBACKS && status == MINIM_OK; i++) {
        char *key = endpoints[i].api_key;
        if (strncmp(key, "file:", 5) != 0 || !strcmp(key, before[i].api_key)) continue;
        status = config_place(path, name, key, sizeof endpoints[i].api_key, 5, error);
    }
    return status;
}

static minim_status config_place_paths(const char *path, const minim_router_config *before, minim_router_config *config,
                                       minim_error *error) {
    minim_status status = MINIM_OK;
    if (!strncmp(config->api_key, "file:", 5)) {
        status = config_place(path, "remote.api_key", config->api_key, sizeof config->api_key, 5, error);
    }
    if (status == MINIM_OK)
        status = config_place_keys(path, "remote.fallbacks", before->fallbacks, config->fallbacks, error);
    if (status == MINIM_OK)
        status = config_place_keys(path, "remote.context_window_fallbacks", before->context_fallbacks,
                                   config->context_fallbacks, error);
    if (status == MINIM_OK && config->ledger[0] && strcmp(config->ledger, before->ledger)) {
        status = config_place(path, "ledger.path", config->ledger, sizeof config->ledger, 0, error);
    }
    if (status == MINIM_OK && config->calibration[0] && strcmp(config->calibration, before->calibration)) {
        status = config_place(path, "calibration", config->calibration, sizeof config->calibration, 0, error);
    }
    if (status == MINIM_OK && config->prompt_model[0] && strcmp(config->prompt_model, before->prompt_model)) {
        status = config_place(path, "prompt_model", config->prompt_model, sizeof config->prompt_model, 0, error);
    }
    return status;
}

/* Other servers of a file: where they are from, and that a found file names no key. */
static minim_status config_check_endpoints(const char *path, int was_found, const char *name,
                                           const minim_router_endpoint *before, minim_router_endpoint *endpoints,
                                           minim_error *error) {
    if (!memcmp(endpoints, before, MINIM_ROUTER_FALLBACKS * sizeof *before)) return MINIM_OK;
    for (int i = 0; i < MINIM_ROUTER_FALLBACKS; i++) {
        endpoints[i].url_was_found = was_found;
        if (!was_found || !endpoints[i].api_key[0]) continue;
        return router_fail(error, MINIM_ERR_FORMAT,
                           "%s: %s: no api_key is taken from a file that merely lies in the current directory; if you "
                           "trust it say --config %s",
                           path, name, path);
    }
    return MINIM_OK;
}

/* What the remote section of a file may not say; `before` is the configuration without the file. Whether a base_url is
 * on this machine is not looked at before somebody is to be asked there: minim_router_remote_check(). */
static minim_status config_check_remote(const char *path, int was_found, const minim_router_config *before,
                                        minim_router_config *config, minim_error *error) {
    int has_key = config->api_key[0] && strcmp(config->api_key, before->api_key);
    int has_url = config->base_url[0] && strcmp(config->base_url, before->base_url);
    if (has_key && strncmp(config->api_key, "env:", 4) && strncmp(config->api_key, "file:", 5)) {
        return router_fail(
            error, MINIM_ERR_FORMAT,
            "%s: remote.api_key: found something else, expected \"env:NAME\" or \"file:PATH\" (a key itself "
            "does not belong in this file)",
            path);
    }
    if (was_found && has_key) {
        return router_fail(
            error, MINIM_ERR_FORMAT,
            "%s: remote.api_key: not taken from a file that merely lies in the current directory; if you "
            "trust it say --config %s",
            path, path);
    }
    if (was_found && config->ledger[0] && strcmp(config->ledger, before->ledger)) {
        return router_fail(
            error, MINIM_ERR_FORMAT,
            "%s: ledger.path: not taken from a file that merely lies in the current directory (its cache would "
            "answer for the models); if you trust it say --config %s",
            path, path);
    }
    if (was_found && config->evidence_command[0] && strcmp(config->evidence_command, before->evidence_command)) {
        return router_fail(
            error, MINIM_ERR_FORMAT,
            "%s: evidence.command: no program is run for a file that merely lies in the current directory; if you "
            "trust it say --config %s",
            path, path);
    }
    minim_status status =
        config_check_endpoints(path, was_found, "remote.fallbacks", before->fallbacks, config->fallbacks, error);
    if (status == MINIM_OK)
        status = config_check_endpoints(path, was_found, "remote.context_window_fallbacks", before->context_fallbacks,
                                        config->context_fallbacks, error);
    if (status != MINIM_OK) return status;
    /* Nor may it make anything less private. */
    if (was_found) config->private_detect |= before->private_detect;
    if (has_url) config->url_was_found = was_found;
    if (has_key && !has_url) {
        return router_fail(
            error, MINIM_ERR_FORMAT,
            "%s: remote.api_key: expected remote.base_url beside it: a key is only sent to the address it "
            "was named with",
            path);
    }
    return MINIM_OK;
}

/* The first minim.json there is; "" when there is none. *was_found: it is ./minim.json. */
static void config_search(char *path, size_t capacity, int *was_found) {
    struct stat info;
    const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    snprintf(path, capacity, "./minim.json");
    *was_found = 1;
    if (!lstat(path, &info)) return;
    *was_found = 0;
    int n = -1;
    if (xdg && xdg[0])
        n = snprintf(path, capacity, "%s/minim/minim.json", xdg);
    else if (home && home[0])
        n = snprintf(path, capacity, "%s/.config/minim/minim.json", home);
    if (n < 0 || (size_t)n >= capacity || stat(path, &info)) path[0] = 0;
}

minim_status minim_router_config_load(minim_router_config *config, const char *path, minim_error *error) {
    char searched[CONFIG_PATH_MAX];
    int was_found = 0;
    minim_router_config c;
    minim_router_config_default(&c);
    if (!config || router_copy_sized(&c, sizeof c, config)) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_router_config_load: config is NULL or has no size");
    }
    if (!path) {
        config_search(searched, sizeof searched, &was_found);
        if (!searched[0]) return MINIM_OK;
        path = searched;
    }
    router_bytes text = {.limit = CONFIG_FILE_MAX};
    minim_status status = router_read_file(path, &text, error);
    json_t *root = NULL;
    json_error_t json_error;
    if (status == MINIM_OK) {
        root = json_loadb(text.data ? text.data : "", text.n, JSON_REJECT_DUPLICATES, &json_error);
        if (!root && !json_error.text[0]) { /* jansson has no words for it */
            status = router_fail_memory(error, path);
        } else if (!root) {
            /* What stands near the mistake may be a key. */
            char *quote = strstr(json_error.text, " near ");
            if (quote) *quote = 0;
            status = router_fail(error, MINIM_ERR_FORMAT, "%s:%d:%d: %s", path, json_error.line, json_error.column,
                                 json_error.text);
        } else if (!json_is_object(root)) {
            status = router_fail(error, MINIM_ERR_FORMAT, "%s: found an array, expected an object", path);
        }
    }
    minim_router_config before = c;
    if (status == MINIM_OK) status = config_read_object(path, "", root, &c, error);
    if (status == MINIM_OK) status = config_check_remote(path, was_found, &before, &c, error);
    if (status == MINIM_OK) status = config_place_paths(path, &before, &c, error);
    if (status == MINIM_OK) config_give_back(config, &c);
    json_decref(root);
    router_bytes_free(&text);
    return status;
}
