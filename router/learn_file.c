/* learn_file.c: see learn_file.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "learn_file.h"

enum { LEARN_FILE_MAX = 1 << 26 };

minim_status learn_load_json(const char *path, const char *name, int version, json_t **root, minim_error *error) {
    router_bytes text = {.limit = LEARN_FILE_MAX};
    json_error_t json_error;
    minim_status status = router_read_file(path, &text, error);
    if (status != MINIM_OK) {
        router_bytes_free(&text);
        return status;
    }
    json_t *object = json_loadb(text.data ? text.data : "", text.n, JSON_REJECT_DUPLICATES, &json_error);
    router_bytes_free(&text);
    const json_t *found = json_object_get(object, name);
    if (!object && !json_error.text[0]) return router_fail_memory(error, path); /* jansson has no words for it */
    if (!object) {
        return router_fail(error, MINIM_ERR_FORMAT, "%s:%d:%d: %s", path, json_error.line, json_error.column,
                           json_error.text);
    }
    if (!json_is_integer(found) || json_integer_value(found) != version) {
        if (json_is_integer(found))
            router_fail(error, MINIM_ERR_UNSUPPORTED, "%s: %s: found version %lld, expected %d", path, name,
                        (long long)json_integer_value(found), version);
        else
            router_fail(error, MINIM_ERR_FORMAT, "%s: found no \"%s\": %d, so it is another kind of file", path, name,
                        version);
        status = json_is_integer(found) ? MINIM_ERR_UNSUPPORTED : MINIM_ERR_FORMAT;
        json_decref(object);
        return status;
    }
    *root = object;
    return MINIM_OK;
}

minim_status learn_save_json(const char *path, const json_t *root, size_t digits, minim_error *error) {
    char *text = root ? json_dumps(root, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(digits) | JSON_COMPACT) : NULL;
    if (!text) return router_fail_memory(error, path);
    minim_status status = router_write_file(path, text, strlen(text), error);
    free(text);
    return status;
}

int learn_get_number(const char *path, const char *where, const json_t *object, const char *name, double min,
                     double max, double *number, minim_error *error) {
    const json_t *value = json_object_get(object, name);
    double found = json_number_value(value);
    if (json_is_number(value) && found >= min && found <= max) {
        *number = found;
        return 0;
    }
    if (json_is_number(value))
        router_fail(error, MINIM_ERR_FORMAT, "%s: %s%s: found %g, expected a number from %g to %g", path, where, name,
                    found, min, max);
    else
        router_fail(error, MINIM_ERR_FORMAT, "%s: %s%s: found %s, expected a number from %g to %g", path, where, name,
                    value ? "something else" : "nothing", min, max);
    return -1;
}

int learn_get_numbers(const char *path, const char *where, const json_t *object, const char *name, size_t most,
                      double min, double max, double **numbers, size_t *n, minim_error *error) {
    const json_t *array = json_object_get(object, name);
    size_t size = json_array_size(array);
    if (!json_is_array(array) || size > most || (*n != SIZE_MAX && size != *n)) {
        router_fail(error, MINIM_ERR_FORMAT, "%s: %s%s: found %s of %zu entries, expected an array of %s%zu", path,
                    where, name, json_is_array(array) ? "an array" : "no array", size, *n == SIZE_MAX ? "at most " : "",
                    *n == SIZE_MAX ? most : *n);
        return -1;
    }
    double *out = malloc((size + 1) * sizeof *out);
    if (!out) {
        router_fail_memory(error, path);
        return -1;
    }
    for (size_t i = 0; i < size; i++) {
        const json_t *value = json_array_get(array, i);
        out[i] = json_number_value(value);
        if (json_is_number(value) && out[i] >= min && out[i] <= max) continue;
        router_fail(error, MINIM_ERR_FORMAT, "%s: %s%s[%zu]: expected a number from %g to %g", path, where, name, i,
                    min, max);
        free(out);
        return -1;
    }
    *numbers = out;
    *n = size;
    return 0;
}

int learn_get_text(const char *path, const char *where, const json_t *object, const char *name, char *text,
                   size_t capacity, minim_error *error) {
    const json_t *value = json_object_get(object, name);
    if (json_is_string(value) && json_string_length(value) < capacity) {
        memcpy(text, json_string_value(value), json_string_length(value) + 1);
        return 0;
    }
    router_fail(error, MINIM_ERR_FORMAT, "%s: %s%s: expected a text shorter than %zu bytes", path, where, name,
                capacity);
    return -1;
}

int learn_set(json_t *object, const char *name, json_t *value) {
    return json_object_set_new(object, name, value); /* releases the value also when it fails */
}

json_t *learn_numbers(const double *numbers, size_t n) {
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        if (array && json_array_append_new(array, json_real(numbers[i]))) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}
