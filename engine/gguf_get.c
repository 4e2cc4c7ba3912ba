/* gguf_get.c: typed access to the metadata, for hyper-parameters. See gguf.h. */
#include "gguf.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* The value of a key, or what to return without one. */
static minim_status gguf_get(const gguf_file *f, const char *key, const gguf_value **v, int *found, minim_error *e) {
    *v = gguf_find(f, key);
    if (found) *found = *v != NULL;
    if (*v || found) return err_ok(e);
    return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s' is missing", gguf_path(f), key);
}

static minim_status gguf_wrong_type(const gguf_file *f, const gguf_value *v, const char *expected, minim_error *e) {
    char type[32];
    return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s' is %s, expected %s", gguf_path(f), v->key.s,
                   gguf_type_text(v, type, sizeof type), expected);
}

/* Bytes of the integer types, negative when signed; 0 for other types. */
static int gguf_integer_bytes(uint32_t type) {
    switch (type) {
    case GGUF_U8: return 1;
    case GGUF_U16: return 2;
    case GGUF_U32: return 4;
    case GGUF_U64: return 8;
    case GGUF_I8: return -1;
    case GGUF_I16: return -2;
    case GGUF_I32: return -4;
    case GGUF_I64: return -8;
    default: return 0;
    }
}

minim_status gguf_get_u32(const gguf_file *f, const char *key, uint32_t *out, int *found, minim_error *e) {
    const gguf_value *v;
    uint64_t x;
    int bytes, negative;
    minim_status s = gguf_get(f, key, &v, found, e);
    if (s || !v) return s;
    bytes = gguf_integer_bytes(v->type);
    if (bytes == 0) return gguf_wrong_type(f, v, "an integer", e);
    x = gguf_little(v->data, (size_t)(bytes < 0 ? -bytes : bytes));
    negative = bytes < 0 && x >> (-8 * bytes - 1) & 1;
    if (negative)
        return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s' is negative, expected 0 to 4294967295", gguf_path(f), key);
    if (x > UINT32_MAX)
        return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s' is %" PRIu64 ", expected 0 to 4294967295", gguf_path(f), key,
                       x);
    *out = (uint32_t)x;
    return MINIM_OK;
}

minim_status gguf_get_f32(const gguf_file *f, const char *key, float *out, int *found, minim_error *e) {
    const gguf_value *v;
    minim_status s = gguf_get(f, key, &v, found, e);
    if (s || !v) return s;
    if (v->type == GGUF_F32) {
        const uint32_t bits = (uint32_t)gguf_little(v->data, 4);
        memcpy(out, &bits, 4);
    } else if (v->type == GGUF_F64) {
        const uint64_t bits = gguf_little(v->data, 8);
        double x;
        memcpy(&x, &bits, 8);
        if (isfinite(x) && fabs(x) > (double)FLT_MAX)
            return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s' is %g, expected a value that fits f32", gguf_path(f), key,
                           x);
        *out = (float)x;
    } else {
        return gguf_wrong_type(f, v, "f32 or f64", e);
    }
    return MINIM_OK;
}

minim_status gguf_get_bool(const gguf_file *f, const char *key, int *out, int *found, minim_error *e) {
    const gguf_value *v;
    minim_status s = gguf_get(f, key, &v, found, e);
    if (s || !v) return s;
    if (v->type != GGUF_BOOL) return gguf_wrong_type(f, v, "bool", e);
    *out = (int)gguf_little(v->data, 1);
    return MINIM_OK;
}

minim_status gguf_get_str(const gguf_file *f, const char *key, gguf_str *out, int *found, minim_error *e) {
    const gguf_value *v;
    minim_status s = gguf_get(f, key, &v, found, e);
    if (s || !v) return s;
    if (v->type != GGUF_STR) return gguf_wrong_type(f, v, "str", e);
    *out = *(const gguf_str *)v->data;
    return MINIM_OK;
}

minim_status gguf_get_array(const gguf_file *f, const char *key, uint32_t elem_type, const gguf_value **out, int *found,
                            minim_error *e) {
    const gguf_value *v;
    minim_status s;
    *out = NULL;
    s = gguf_get(f, key, &v, found, e);
    if (s || !v) return s;
    if (v->type != GGUF_ARR || v->elem_type != elem_type) {
        const gguf_value like = {.type = GGUF_ARR, .elem_type = elem_type};
        char expected[32];
        return gguf_wrong_type(f, v, gguf_type_text(&like, expected, sizeof expected), e);
    }
    *out = v;
    return MINIM_OK;
}
