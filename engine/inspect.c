/* inspect.c: what a file says about itself: its metadata as JSON, and its list of tensors. See minim.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

/* ---- text into the caller's buffer ------------------------------------------------------------------------------ */

/* Counts everything, keeps what fits before a NUL. */
typedef struct inspect_text {
    char *buffer;
    size_t capacity, n;
} inspect_text;

static void inspect_put(inspect_text *t, const char *s, size_t n) {
    if (t->n + 1 < t->capacity) {
        const size_t room = t->capacity - 1 - t->n;
        memcpy(t->buffer + t->n, s, n < room ? n : room);
    }
    t->n += n;
}

static void inspect_puts(inspect_text *t, const char *s) {
    inspect_put(t, s, strlen(s));
}

/* Ends the text; where it was cut, not in the middle of a character. */
static minim_status inspect_finish(inspect_text *t, size_t *needed) {
    size_t n = t->n < t->capacity ? t->n : t->capacity - (t->capacity > 0);
    if (needed) *needed = t->n;
    if (t->capacity == 0) return MINIM_ERR_SPACE;
    if (t->n > n) {
        size_t start = n;
        while (start > 0 && n - start < 4 && (t->buffer[start - 1] & 0xc0) == 0x80) start--;
        if (start > 0 && utf8_length(t->buffer + start - 1, n - start + 1) == 0) n = start - 1;
    }
    t->buffer[n] = 0;
    return t->n < t->capacity ? MINIM_OK : MINIM_ERR_SPACE;
}

/* ---- values as JSON --------------------------------------------------------------------------------------------- */

/* Quoted and escaped. Control characters are escaped even where JSON does not ask for it (U+007F to U+009F): the text
 * may go to a terminal. */
static void inspect_string(inspect_text *t, const char *s, size_t n) {
    static const char letters[] = "\"\\\b\f\n\r\t", escapes[] = "\"\\bfnrt";
    inspect_put(t, "\"", 1);
    for (size_t i = 0; i < n;) {
        const size_t length = utf8_length(s + i, n - i);
        const unsigned char c = (unsigned char)s[i];
        const char *letter = c ? strchr(letters, c) : NULL;
        char code[8];
        if (length == 0) {
            inspect_puts(t, "\\ufffd");
        } else if (letter) {
            snprintf(code, sizeof code, "\\%c", escapes[letter - letters]);
            inspect_puts(t, code);
        } else if (c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0)) {
            snprintf(code, sizeof code, "\\u%04x", length == 2 ? (unsigned char)s[i + 1] : c);
            inspect_puts(t, code);
        } else {
            inspect_put(t, s + i, length);
        }
        i += length ? length : 1;
    }
    inspect_put(t, "\"", 1);
}

/* As few digits as give the same number again (at least %g's 6, or 15); null for infinity and NaN, which JSON lacks. */
static void inspect_float(inspect_text *t, double x, int is_f32) {
    char digits[40];
    int precision = is_f32 ? 6 : 15;
    if (!isfinite(x)) {
        inspect_puts(t, "null");
        return;
    }
    for (;; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, x);
        if (precision >= (is_f32 ? 9 : 17)) break;
        if (is_f32 ? strtof(digits, NULL) == (float)x : strtod(digits, NULL) == x) break;
    }
    /* The host's locale may write a decimal comma (or several bytes): in JSON it is a point. */
    for (size_t i = 0; digits[i];) {
        const size_t other = strcspn(digits + i, "0123456789+-e");
        const size_t number = strspn(digits + i, "0123456789+-e");
        if (other) inspect_put(t, ".", 1);
        inspect_put(t, digits + i, number);
        i += other ? other : number;
    }
}

/* Element i of a value. */
static void inspect_element(inspect_text *t, const gguf_value *v, uint64_t i) {
    const size_t size = gguf_type_bytes(v->elem_type); /* 0 for a string */
    const gguf_str *s = (const gguf_str *)v->data + (v->elem_type == GGUF_STR ? i : 0);
    const uint64_t bits = gguf_little((const char *)v->data + i * size, size);
    char digits[32] = "";
    double f64;
    float f32;
    switch (v->elem_type) {
    case GGUF_STR: inspect_string(t, s->s, s->n); return;
    case GGUF_BOOL: inspect_puts(t, bits ? "true" : "false"); return;
    case GGUF_F32: {
        const uint32_t low = (uint32_t)bits;
        memcpy(&f32, &low, sizeof f32);
        inspect_float(t, f32, 1);
        return;
    }
    case GGUF_F64:
        memcpy(&f64, &bits, sizeof f64);
        inspect_float(t, f64, 0);
        return;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        if (bits >> (8 * size - 1)) { /* two's complement of `size` bytes */
            const uint64_t magnitude = (~bits + 1) & (UINT64_MAX >> (64 - 8 * size));
            snprintf(digits, sizeof digits, "-%" PRIu64, magnitude);
            break;
        }
        /* fall through */
    default: snprintf(digits, sizeof digits, "%" PRIu64, bits);
    }
    inspect_puts(t, digits);
}

size_t minim_model_meta_count(const minim_model *model) {
    return model ? gguf_value_count(model->file) : 0;
}

minim_status minim_model_meta(const minim_model *model, size_t index, minim_meta *meta) {
    /* The types' names live as long as the library, not in a buffer of the caller. */
    static const char *const types[2][GGUF_TYPE_END] = {
        {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "arr", "u64", "i64", "f64"},
        {"arr[u8]", "arr[i8]", "arr[u16]", "arr[i16]", "arr[u32]", "arr[i32]", "arr[f32]", "arr[bool]", "arr[str]",
         "arr", "arr[u64]", "arr[i64]", "arr[f64]"},
    };
    const gguf_value *v = model ? gguf_value_at(model->file, index) : NULL;
    if (!v || !meta) return MINIM_ERR_ARGUMENT;
    *meta = (minim_meta){v->key.s, types[v->type == GGUF_ARR][v->elem_type], v->count};
    return MINIM_OK;
}

minim_status minim_model_meta_text(const minim_model *model, size_t index, size_t max_items, char *buffer,
                                   size_t capacity, size_t *needed) {
    const gguf_value *v = model ? gguf_value_at(model->file, index) : NULL;
    inspect_text t = {buffer, capacity, 0};
    if (!v || (!buffer && capacity)) return MINIM_ERR_ARGUMENT;
    if (v->type == GGUF_ARR) {
        const uint64_t shown = max_items && max_items < v->count ? max_items : v->count;
        inspect_puts(&t, "[");
        for (uint64_t i = 0; i < shown; i++) {
            if (i) inspect_puts(&t, ", ");
            inspect_element(&t, v, i);
        }
        inspect_puts(&t, shown < v->count ? ", ...]" : "]");
    } else {
        inspect_element(&t, v, 0);
    }
    return inspect_finish(&t, needed);
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

/* How weights.c would keep the tensor: matrices in panels, for speed or with the blocks of the file; vectors as
 * float32.
 */
static const char *inspect_layout(const gguf_tensor *t) {
    const kern_type_info info = kern_type_get(t->type);
    if (!info.has_kernels || t->dim[2] != 1 || t->dim[3] != 1) return "unsupported";
    if (t->n_dims > 1) return info.panels ? "panels" : "blocks";
    return info.integer ? "unsupported" : "rows";
}

size_t minim_model_tensor_count(const minim_model *model) {
    return model ? gguf_tensor_count(model->file) : 0;
}

minim_status minim_model_tensor(const minim_model *model, size_t index, minim_tensor *tensor) {
    const gguf_tensor *t = model ? gguf_tensor_at(model->file, index) : NULL;
    if (!t || !tensor) return MINIM_ERR_ARGUMENT;
    *tensor = (minim_tensor){
        .name = t->name.s,
        .type = kern_type_get(t->type).name,
        .layout = inspect_layout(t),
        .n_dims = (int)t->n_dims,
        .dims = {t->dim[0], t->dim[1], t->dim[2], t->dim[3]},
        .offset = t->offset,
        .bytes = t->bytes,
    };
    return MINIM_OK;
}

/* Whole blocks around what is asked for, a few at a time. */
static minim_status inspect_rows(const minim_model *model, const gguf_tensor *t, uint64_t first, size_t n,
                                 float *values, minim_error *error) {
    enum { PIECE = 4096, ELEMENT_BYTES = 4 }; /* elements read at once; most bytes of one */
    const kern_type_info info = kern_type_get(t->type);
    if (info.block_bytes > ELEMENT_BYTES * info.block)
        return err_set(error, MINIM_ERR_UNSUPPORTED, "%s: tensor %s has type %s, whose values minim does not know",
                       gguf_path(model->file), t->name.s, info.name);
    char raw[PIECE * ELEMENT_BYTES];
    float block[PIECE];
    const size_t most = PIECE / (size_t)info.block;
    while (n > 0) {
        const uint64_t b = first / (uint64_t)info.block, left = t->elements / (uint64_t)info.block - b;
        const size_t skip = (size_t)(first % (uint64_t)info.block);
        const size_t blocks = left < most ? (size_t)left : most, have = blocks * (size_t)info.block - skip;
        const size_t take = n < have ? n : have;
        const minim_status status =
            gguf_read(model->file, t, b * (uint64_t)info.block_bytes, raw, blocks * (size_t)info.block_bytes, error);
        if (status) return status;
        kern_dequantize(t->type, raw, (int64_t)blocks * info.block, block);
        memcpy(values, block + skip, take * sizeof *values);
        values += take, first += take, n -= take;
    }
    return err_ok(error);
}

/* Whole rows around what is asked for, of one panel after the other. */
static minim_status inspect_panels(const minim_model *model, const gguf_tensor *t, uint64_t first, size_t n,
                                   float *values, minim_error *error) {
    const size_t cols = (size_t)t->dim[0], bytes = kern_panel_bytes(t->type, (int64_t)cols);
    char *panel = mem_alloc(&model->allocator, bytes, 1);
    float *row = mem_alloc(&model->allocator, cols, sizeof *row);
    minim_status status = panel && row ? MINIM_OK : err_memory(error, t->name.s, bytes + cols * sizeof *row);
    uint64_t at = UINT64_MAX; /* which panel was read */
    for (uint64_t end = first + n; first < end && !status;) {
        const uint64_t r = first / cols, wanted = r / KERN_PANEL;
        const size_t skip = (size_t)(first % cols), left = (size_t)(end - first);
        const size_t take = left < cols - skip ? left : cols - skip;
        if (wanted != at) status = gguf_read(model->file, t, wanted * bytes, panel, bytes, error);
        at = wanted;
        if (status) break;
        kern_unpack_row(t->type, (int64_t)cols, panel, (int)(r % KERN_PANEL), row);
        memcpy(values, row + skip, take * sizeof *values);
        values += take, first += take;
    }
    mem_free(&model->allocator, row, cols, sizeof *row);
    mem_free(&model->allocator, panel, bytes, 1);
    return status ? status : err_ok(error);
}

minim_status minim_model_tensor_values(const minim_model *model, size_t index, uint64_t first, size_t n, float *values,
                                       minim_error *error) {
    const gguf_tensor *t = model ? gguf_tensor_at(model->file, index) : NULL;
    if (!t || (!values && n))
        return err_set(error, MINIM_ERR_ARGUMENT, "tensor values: %s", t ? "no place to put them" : "no such tensor");
    if (first > t->elements || n > t->elements - first)
        return err_set(error, MINIM_ERR_ARGUMENT,
                       "%s: tensor %s has %" PRIu64 " elements, %zu were asked for at %" PRIu64, gguf_path(model->file),
                       t->name.s, t->elements, n, first);
    if (!kern_type_get(t->type).has_kernels)
        return err_set(error, MINIM_ERR_UNSUPPORTED, "%s: tensor %s has type %s, whose values minim does not know",
                       gguf_path(model->file), t->name.s, kern_type_get(t->type).name);
    return t->panels ? inspect_panels(model, t, first, n, values, error)
                     : inspect_rows(model, t, first, n, values, error);
}
