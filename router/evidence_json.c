/* evidence_json.c: the structure of a JSON answer, by a small part of JSON Schema. */
#include <jansson.h>
#include <string.h>

#include "evidence.h"

enum { EVIDENCE_DEPTH = 64 };

static const char *const evidence_keywords[] = {
    "type",    "properties", "required", "additionalProperties", "items",  "enum", "minItems", "maxItems",
    "minimum", "maximum",    "title",    "description",          "$schema"};

/* A schema that says more than is checked would be believed in. */
static minim_status evidence_check_schema(const json_t *schema, int depth, minim_error *error) {
    const char *key;
    json_t *value;
    if (!json_is_object(schema) || depth > EVIDENCE_DEPTH) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "evidence.json_schema: expected an object, 64 levels at most");
    }
    json_object_foreach((json_t *)(uintptr_t)schema, key, value) {
        int known = 0;
        for (size_t i = 0; i < sizeof evidence_keywords / sizeof *evidence_keywords; i++) {
            known |= !strcmp(key, evidence_keywords[i]);
        }
        if (!known || (!strcmp(key, "type") && !json_is_string(value)) ||
            (!strcmp(key, "additionalProperties") && !json_is_boolean(value))) {
            return router_fail(error, MINIM_ERR_UNSUPPORTED, "evidence.json_schema: \"%.40s\" is not checked here",
                               key);
        }
    }
    minim_status status = MINIM_OK;
    json_t *items = json_object_get(schema, "items"), *properties = json_object_get(schema, "properties");
    if (items) status = evidence_check_schema(items, depth + 1, error);
    json_object_foreach(properties, key, value) {
        if (status == MINIM_OK) status = evidence_check_schema(value, depth + 1, error);
    }
    return status;
}

minim_status evidence_json_check(const char *text, minim_error *error) {
    json_t *schema = json_loads(text, 0, NULL);
    minim_status status = evidence_check_schema(schema, 0, error);
    json_decref(schema);
    return status;
}

static int evidence_has_type(const json_t *value, const char *type) {
    if (!strcmp(type, "object")) return json_is_object(value);
    if (!strcmp(type, "array")) return json_is_array(value);
    if (!strcmp(type, "string")) return json_is_string(value);
    if (!strcmp(type, "integer")) return json_is_integer(value);
    if (!strcmp(type, "number")) return json_is_number(value);
    if (!strcmp(type, "boolean")) return json_is_boolean(value);
    return !strcmp(type, "null") && json_is_null(value);
}

/* Why a value does not fit; NULL when it does. `at` gets the nearest name. */
static const char *evidence_misfit(const json_t *schema, const json_t *value, const char **at) {
    const char *type = json_string_value(json_object_get(schema, "type")), *key;
    const json_t *item, *limit;
    size_t i;
    json_t *member;
    if (type && !evidence_has_type(value, type)) return "another type";
    const json_t *words = json_object_get(schema, "enum");
    if (json_is_array(words)) {
        int found = 0;
        json_array_foreach(words, i, item) {
            found |= json_equal(item, value);
        }
        if (!found) return "a value that is not in enum";
    }
    if ((limit = json_object_get(schema, "minimum")) && json_is_number(value) &&
        json_number_value(value) < json_number_value(limit))
        return "a number below minimum";
    if ((limit = json_object_get(schema, "maximum")) && json_is_number(value) &&
        json_number_value(value) > json_number_value(limit))
        return "a number above maximum";
    if (json_is_array(value)) {
        double n = (double)json_array_size(value);
        if ((limit = json_object_get(schema, "minItems")) && n < json_number_value(limit)) return "too few items";
        if ((limit = json_object_get(schema, "maxItems")) && n > json_number_value(limit)) return "too many items";
        const json_t *items = json_object_get(schema, "items");
        json_array_foreach(value, i, item) {
            const char *why = items ? evidence_misfit(items, item, at) : NULL;
            if (why) return why;
        }
    }
    if (!json_is_object(value)) return NULL;
    json_array_foreach(json_object_get(schema, "required"), i, item) {
        if (json_object_get(value, json_string_value(item) ? json_string_value(item) : "")) continue;
        *at = json_string_value(item);
        return "a missing member";
    }
    const json_t *properties = json_object_get(schema, "properties");
    json_object_foreach((json_t *)(uintptr_t)value, key, member) {
        const json_t *part = json_object_get(properties, key);
        if (!part && json_is_false(json_object_get(schema, "additionalProperties"))) {
            *at = key;
            return "a member that is not foreseen";
        }
        const char *outer = *at;
        *at = key;
        const char *why = part ? evidence_misfit(part, member, at) : NULL;
        if (why) return why;
        *at = outer;
    }
    return NULL;
}

/* Models like to put JSON into a fence: the text between the first brace or bracket and its fence. */
static size_t evidence_json_part(const char *answer, const char **start) {
    const char *fence = strstr(answer, "```");
    *start = answer;
    if (fence) {
        const char *line = strchr(fence, '\n'), *end = line ? strstr(line, "```") : NULL;
        if (end) {
            *start = line + 1;
            return (size_t)(end - *start);
        }
    }
    return strlen(answer);
}

int evidence_json_refuses(const char *schema_text, const char *answer, char *detail, size_t n) {
    const char *start, *at = "";
    size_t length = evidence_json_part(answer, &start);
    json_t *schema = json_loads(schema_text, 0, NULL);
    json_t *value = json_loadb(start, length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    const char *why = value && schema ? evidence_misfit(schema, value, &at) : "no JSON";
    if (why) router_line(detail, n, "evidence: found %s%s%.60s in the answer", why, at[0] ? ": " : "", at);
    json_decref(schema);
    json_decref(value);
    return why != NULL;
}
