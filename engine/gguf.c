/* gguf.c: reads and checks the header of a GGUF file. See gguf.h.
 *
 * A header is read front to back through a small buffer, never mapped: a file that is cut while it is mapped kills the
 * process with SIGBUS, a read only fails. Nothing is allocated on the word of a count: every count is first compared
 * with the bytes that are left, so memory stays within a small multiple of what the file really holds.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../kernels/kernels.h"
#include "gguf_impl.h"

/* Limits of minim, far above real files (256 thousand tokens with 30 MB of metadata, 50 thousand tensors), and so low
 * that even a file of nothing but metadata is read or refused in about a second. */
#define GGUF_MAX_KEYS       (UINT64_C(1) << 20)
#define GGUF_MAX_TENSORS    (UINT64_C(1) << 18)
#define GGUF_MAX_KEY        65535 /* bytes; the format's own limit */
#define GGUF_MAX_NAME       63    /* bytes of a tensor's name; ggml keeps it with a NUL in 64 */
#define GGUF_MAX_STRING     (UINT64_C(16) << 20)
#define GGUF_MAX_ELEMENTS   (UINT64_C(64) << 20)
#define GGUF_MAX_METADATA   (UINT64_C(128) << 20) /* bytes of all keys, values and names in memory */
#define GGUF_MIN_KEY_BYTES  14                    /* in the file: length, one letter, type, a one-byte value */
#define GGUF_MIN_INFO_BYTES 33                    /* in the file: name as above, n_dims, one dim, type, offset */
#define GGUF_BUFFER         ((size_t)64 << 10)
#define GGUF_CHUNK          ((size_t)64 << 10)
#define GGUF_NONE           UINT64_MAX

/* ---- types ------------------------------------------------------------------------------------------------------ */

static const struct gguf_type_row {
    const char *name;
    uint8_t bytes; /* of an element in the file; of a string at least its length */
} gguf_types[GGUF_TYPE_END] = {
    [GGUF_U8] = {"u8", 1},   [GGUF_I8] = {"i8", 1},   [GGUF_U16] = {"u16", 2}, [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4}, [GGUF_I32] = {"i32", 4}, [GGUF_F32] = {"f32", 4}, [GGUF_BOOL] = {"bool", 1},
    [GGUF_STR] = {"str", 8}, [GGUF_ARR] = {"arr", 0}, [GGUF_U64] = {"u64", 8}, [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

const char *gguf_type_text(const gguf_value *v, char *buf, size_t n) {
    if (v->type == GGUF_ARR)
        snprintf(buf, n, "arr[%s]", gguf_types[v->elem_type].name);
    else
        snprintf(buf, n, "%s", gguf_types[v->type].name);
    return buf;
}

size_t gguf_type_bytes(uint32_t type) {
    return type < GGUF_TYPE_END && type != GGUF_STR ? gguf_types[type].bytes : 0;
}

uint64_t gguf_little(const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    uint64_t x = 0;
    while (n-- > 0) x = x << 8 | p[n];
    return x;
}

/* ---- the file in memory ----------------------------------------------------------------------------------------- */

/* Reads the header and knows where it is, for the text of errors. */
typedef struct gguf_reader {
    gguf_file *f;
    minim_error *e;
    uint8_t *buffer; /* [GGUF_BUFFER], NULL for an image */
    uint64_t buffer_at;
    size_t buffer_n;
    uint64_t at;      /* offset of the next byte */
    const char *kind; /* "key" or "tensor" ... */
    uint64_t number;  /* ... and which of them; GGUF_NONE in the fixed header */
    gguf_str name;    /* .s is NULL as long as it is not known */
    uint64_t element; /* of an array of strings, else GGUF_NONE */
} gguf_reader;

/* Room in errors for a name from the file; the rest of the sentence must still fit behind it. */
enum { GGUF_SHOWN_NAME = 80 };

/* "FILE: key 3 'general.name': ..." */
static minim_status BASE_PRINTF(3, 4) gguf_fail(const gguf_reader *r, minim_status status, const char *format, ...) {
    int shown = r->name.n > GGUF_SHOWN_NAME ? GGUF_SHOWN_NAME : (int)r->name.n;
    char item[GGUF_SHOWN_NAME + 64] = "", element[32] = "", text[sizeof(minim_error)];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    while (shown > 0 && shown < (int)r->name.n && (r->name.s[shown] & 0xc0) == 0x80) shown--; /* whole characters */
    if (r->number != GGUF_NONE && r->name.s)
        snprintf(item, sizeof item, "%s %" PRIu64 " '%.*s%s': ", r->kind, r->number, shown, r->name.s,
                 r->name.n > GGUF_SHOWN_NAME ? "..." : "");
    else if (r->number != GGUF_NONE)
        snprintf(item, sizeof item, "%s %" PRIu64 ": ", r->kind, r->number);
    if (r->element != GGUF_NONE) snprintf(element, sizeof element, "element %" PRIu64 ": ", r->element);
    return err_set(r->e, status, "%s: %s%s%s", r->f->path, item, element, text);
}

#ifdef __clang_analyzer__ /* as in base.h */
#define gguf_fail(r, status, ...) (gguf_fail(r, status, __VA_ARGS__), (status))
#endif

/* n bytes at a power-of-two alignment up to 64, as long as the file lives. */
static minim_status gguf_keep(gguf_reader *r, uint64_t n, size_t alignment, void **out) {
    gguf_file *f = r->f;
    gguf_chunk *c = f->chunks;
    size_t at = c ? (c->used + alignment - 1) & ~(alignment - 1) : 0;
    if (!c || at > c->size || n > c->size - at) {
        /* What is large gets a chunk of its own, put behind the first, which still has room. */
        const uint64_t size = n > GGUF_CHUNK / 4 ? n : GGUF_CHUNK;
        gguf_chunk *fresh;
        if (size > GGUF_MAX_METADATA - f->chunk_bytes)
            return gguf_fail(r, MINIM_ERR_FORMAT, "the metadata takes more than the limit of %" PRIu64 " bytes",
                             GGUF_MAX_METADATA);
        fresh = mem_alloc(&f->allocator, 1, GGUF_CHUNK_HEAD + (size_t)size);
        if (!fresh) return err_memory(r->e, "GGUF metadata", GGUF_CHUNK_HEAD + size);
        *fresh = (gguf_chunk){c, (size_t)size, 0};
        if (c && size != GGUF_CHUNK) {
            fresh->next = c->next;
            c->next = fresh;
        } else {
            f->chunks = fresh;
        }
        f->chunk_bytes += size;
        c = fresh;
        at = 0;
    }
    c->used = at + (size_t)n;
    *out = (uint8_t *)c + GGUF_CHUNK_HEAD + at;
    return MINIM_OK;
}

/* ---- reading bytes ---------------------------------------------------------------------------------------------- */

/* The next n bytes of the header. `what` names them in errors. */
static minim_status gguf_take(gguf_reader *r, const char *what, void *dst, size_t n) {
    const gguf_file *f = r->f;
    uint8_t *to = dst;
    if (n > f->size - r->at)
        return gguf_fail(r, MINIM_ERR_FORMAT,
                         "the file is cut: %s needs %zu bytes at offset %" PRIu64 ", but the file has only %" PRIu64,
                         what, n, r->at, f->size);
    if (f->image) {
        memcpy(dst, f->image + r->at, n);
        r->at += n;
        return MINIM_OK;
    }
    while (n > 0) {
        const uint64_t skip = r->at - r->buffer_at; /* at >= buffer_at: reading only goes forward */
        minim_status s;
        if (skip < r->buffer_n) {
            const size_t have = r->buffer_n - (size_t)skip, part = n < have ? n : have;
            memcpy(to, r->buffer + skip, part);
            to += part;
            r->at += part;
            n -= part;
        } else if (n >= GGUF_BUFFER) {
            s = gguf_pread(f, r->at, to, n, r->e);
            if (s) return s;
            r->at += n;
            return MINIM_OK;
        } else {
            const uint64_t left = f->size - r->at;
            const size_t fill = left < GGUF_BUFFER ? (size_t)left : GGUF_BUFFER;
            s = gguf_pread(f, r->at, r->buffer, fill, r->e);
            if (s) return s;
            r->buffer_at = r->at;
            r->buffer_n = fill;
        }
    }
    return MINIM_OK;
}

static minim_status gguf_take_u32(gguf_reader *r, const char *what, uint32_t *out) {
    uint8_t raw[4] = {0};
    const minim_status s = gguf_take(r, what, raw, sizeof raw);
    if (!s) *out = (uint32_t)gguf_little(raw, sizeof raw);
    return s;
}

static minim_status gguf_take_u64(gguf_reader *r, const char *what, uint64_t *out) {
    uint8_t raw[8] = {0};
    const minim_status s = gguf_take(r, what, raw, sizeof raw);
    if (!s) *out = gguf_little(raw, sizeof raw);
    return s;
}

/* Length and bytes of a string, kept with a NUL behind it. */
static minim_status gguf_take_string(gguf_reader *r, const char *what, uint64_t limit, gguf_str *out) {
    uint64_t n;
    void *p = NULL;
    minim_status s = gguf_take_u64(r, what, &n);
    if (s) return s;
    if (n > r->f->size - r->at)
        return gguf_fail(r, MINIM_ERR_FORMAT,
                         "%s is said to be %" PRIu64 " bytes long, but only %" PRIu64 " bytes of the file are left",
                         what, n, r->f->size - r->at);
    if (n > limit)
        return gguf_fail(r, MINIM_ERR_FORMAT, "%s is %" PRIu64 " bytes long, the limit is %" PRIu64, what, n, limit);
    s = gguf_keep(r, n + 1, 1, &p);
    if (!s) s = gguf_take(r, what, p, (size_t)n);
    if (s) return s;
    ((char *)p)[n] = 0;
    *out = (gguf_str){p, (size_t)n};
    return MINIM_OK;
}

/* A key or a tensor's name: not empty, UTF-8, no NUL. It also becomes the name in errors. */
static minim_status gguf_take_name(gguf_reader *r, const char *what, uint64_t limit, gguf_str *out) {
    minim_status s;
    r->name = (gguf_str){NULL, 0};
    s = gguf_take_string(r, what, limit, out);
    if (s) return s;
    if (out->n == 0) return gguf_fail(r, MINIM_ERR_FORMAT, "%s is empty", what);
    r->name = *out;
    for (size_t i = 0; i < out->n;) {
        const size_t n = utf8_length(out->s + i, out->n - i);
        if (n == 0 || out->s[i] == 0)
            return gguf_fail(r, MINIM_ERR_FORMAT, "%s has %s at byte %zu", what, n ? "a NUL" : "invalid UTF-8", i);
        i += n;
    }
    return MINIM_OK;
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

/* Indexes the names of the keys or of the tensors, which must all differ. */
static minim_status gguf_index_names(gguf_reader *r, gguf_index *x, const void *items, size_t stride, size_t n) {
    size_t second, first;
    switch (gguf_index_build(&r->f->allocator, x, items, stride, n, &second, &first)) {
    case 0: return MINIM_OK;
    case 1: break;
    default: return err_memory(r->e, "index of GGUF names", n * 2 * sizeof *x->slot);
    }
    r->number = second;
    r->name = *gguf_index_name(items, stride, second);
    return gguf_fail(r, MINIM_ERR_FORMAT, "%s %zu has the same name, expected each name once", r->kind, first);
}

const gguf_value *gguf_find(const gguf_file *f, const char *key) {
    const size_t i = gguf_index_find(&f->value_index, f->values, sizeof *f->values, key, strlen(key));
    return i == SIZE_MAX ? NULL : &f->values[i];
}

const gguf_tensor *gguf_find_tensor(const gguf_file *f, const char *name) {
    const size_t i = gguf_index_find(&f->tensor_index, f->tensors, sizeof *f->tensors, name, strlen(name));
    return i == SIZE_MAX ? NULL : &f->tensors[i];
}

/* ---- keys and values -------------------------------------------------------------------------------------------- */

static minim_status gguf_check_type(gguf_reader *r, const char *what, uint32_t type) {
    if (type < GGUF_TYPE_END) return MINIM_OK;
    return gguf_fail(r, MINIM_ERR_FORMAT, "%s %" PRIu32 " is unknown, expected 0..%d", what, type, GGUF_TYPE_END - 1);
}

/* The head of an array: element type and count, which must fit what is left of the file. */
static minim_status gguf_take_array_head(gguf_reader *r, gguf_value *v) {
    uint64_t fits;
    minim_status s = gguf_take_u32(r, "array element type", &v->elem_type);
    if (!s) s = gguf_check_type(r, "array element type", v->elem_type);
    if (!s && v->elem_type == GGUF_ARR)
        s = gguf_fail(r, MINIM_ERR_UNSUPPORTED,
                      "is an array of arrays, expected an array of numbers, bools or strings");
    if (!s) s = gguf_take_u64(r, "array length", &v->count);
    if (s) return s;
    fits = (r->f->size - r->at) / gguf_types[v->elem_type].bytes;
    if (v->count > fits)
        return gguf_fail(r, MINIM_ERR_FORMAT,
                         "is said to have %" PRIu64 " elements of type %s, but the rest of the file "
                         "has room for at most %" PRIu64,
                         v->count, gguf_types[v->elem_type].name, fits);
    if (v->count > GGUF_MAX_ELEMENTS)
        return gguf_fail(r, MINIM_ERR_FORMAT, "has %" PRIu64 " elements, the limit is %" PRIu64, v->count,
                         GGUF_MAX_ELEMENTS);
    return MINIM_OK;
}

static minim_status gguf_take_strings(gguf_reader *r, gguf_value *v) {
    gguf_str *strings;
    void *p = NULL;
    minim_status s = gguf_keep(r, v->count * sizeof *strings, 8, &p);
    if (s) return s;
    strings = p;
    v->data = p;
    for (uint64_t i = 0; i < v->count; i++) {
        if (v->type == GGUF_ARR) r->element = i;
        s = gguf_take_string(r, "string", GGUF_MAX_STRING, &strings[i]);
        if (s) return s;
    }
    r->element = GGUF_NONE;
    return MINIM_OK;
}

static minim_status gguf_take_numbers(gguf_reader *r, gguf_value *v) {
    const uint64_t bytes = v->count * gguf_types[v->elem_type].bytes;
    const uint8_t *raw;
    void *p = NULL;
    minim_status s = gguf_keep(r, bytes, 8, &p);
    if (!s) s = gguf_take(r, "value", p, (size_t)bytes);
    if (s) return s;
    v->data = raw = p;
    for (uint64_t i = 0; v->elem_type == GGUF_BOOL && i < v->count; i++)
        if (raw[i] > 1) return gguf_fail(r, MINIM_ERR_FORMAT, "bool %" PRIu64 " is %d, expected 0 or 1", i, raw[i]);
    return MINIM_OK;
}

static minim_status gguf_take_value(gguf_reader *r, gguf_value *v) {
    minim_status s = gguf_take_name(r, "key", GGUF_MAX_KEY, &v->key);
    if (!s) s = gguf_take_u32(r, "value type", &v->type);
    if (!s) s = gguf_check_type(r, "value type", v->type);
    if (s) return s;
    v->elem_type = v->type;
    v->count = 1;
    if (v->type == GGUF_ARR) s = gguf_take_array_head(r, v);
    if (s) return s;
    return v->elem_type == GGUF_STR ? gguf_take_strings(r, v) : gguf_take_numbers(r, v);
}

static minim_status gguf_take_values(gguf_reader *r, uint64_t n) {
    gguf_file *f = r->f;
    minim_status s;
    r->kind = "key";
    for (uint64_t i = 0; i < n; i++) {
        r->number = i;
        if (mem_grow(&f->allocator, &f->values, &f->values_capacity, f->n_values + 1, sizeof *f->values))
            return err_memory(r->e, "GGUF keys", (f->n_values + 1) * sizeof *f->values);
        s = gguf_take_value(r, &f->values[f->n_values]);
        if (s) return s;
        f->n_values++;
    }
    return gguf_index_names(r, &f->value_index, f->values, sizeof *f->values, f->n_values);
}

/* Tensors start at multiples of general.alignment, a power of two. */
static minim_status gguf_set_alignment(gguf_reader *r) {
    gguf_file *f = r->f;
    const gguf_value *v = gguf_find(f, "general.alignment");
    char type[32];
    f->alignment = 32;
    if (!v) return MINIM_OK;
    r->number = (uint64_t)(v - f->values);
    r->name = v->key;
    if (v->type != GGUF_U32)
        return gguf_fail(r, MINIM_ERR_FORMAT, "is %s, expected u32", gguf_type_text(v, type, sizeof type));
    f->alignment = gguf_little(v->data, 4);
    if (f->alignment < 8 || f->alignment > (64 << 20) || (f->alignment & (f->alignment - 1)))
        return gguf_fail(r, MINIM_ERR_FORMAT, "is %" PRIu64 ", expected a power of two from 8 to %d", f->alignment,
                         64 << 20);
    return MINIM_OK;
}

/* Panels (see gguf.h) may only be used when they are of the layout that the kernels know, and begin on cache lines. */
static minim_status gguf_check_panels(gguf_reader *r) {
    gguf_file *f = r->f;
    const gguf_value *v = gguf_find(f, "minim.panels");
    char type[32];
    if (!v) return MINIM_OK;
    r->number = (uint64_t)(v - f->values);
    r->name = v->key;
    if (v->type != GGUF_U32)
        return gguf_fail(r, MINIM_ERR_FORMAT, "is %s, expected u32", gguf_type_text(v, type, sizeof type));
    const uint64_t layout = gguf_little(v->data, 4);
    if (layout != KERN_PANEL_LAYOUT)
        return gguf_fail(r, MINIM_ERR_UNSUPPORTED,
                         "is %" PRIu64 ": the weights were packed by another version of minim, expected %d; pack the "
                         "original file again (minim pack)",
                         layout, KERN_PANEL_LAYOUT);
    if (f->alignment < GGUF_PANEL_ALIGNMENT)
        return gguf_fail(r, MINIM_ERR_FORMAT,
                         "says that the weights are packed, but general.alignment is %" PRIu64 ", expected at least %d",
                         f->alignment, GGUF_PANEL_ALIGNMENT);
    f->panels = KERN_PANEL_LAYOUT;
    return MINIM_OK;
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

/* Dimensions: 1 to 4, none of them 0, and so few elements that they can be counted in an int64. */
static minim_status gguf_take_dims(gguf_reader *r, gguf_tensor *t) {
    minim_status s = gguf_take_u32(r, "number of dimensions", &t->n_dims);
    if (s) return s;
    if (t->n_dims < 1 || t->n_dims > 4)
        return gguf_fail(r, MINIM_ERR_FORMAT, "has %" PRIu32 " dimensions, expected 1 to 4", t->n_dims);
    t->elements = 1;
    for (uint32_t i = 0; i < 4; i++) {
        t->dim[i] = 1;
        if (i >= t->n_dims) continue;
        s = gguf_take_u64(r, "dimension", &t->dim[i]);
        if (s) return s;
        if (t->dim[i] < 1 || t->dim[i] > INT64_MAX)
            return gguf_fail(r, MINIM_ERR_FORMAT, "dimension %" PRIu32 " is %" PRId64 ", expected at least 1", i,
                             (int64_t)t->dim[i]);
        if (size_mul(t->elements, t->dim[i], &t->elements) || t->elements > INT64_MAX)
            return gguf_fail(r, MINIM_ERR_FORMAT,
                             "the product of its dimensions up to %" PRIu32 " (%" PRIu64 ") is larger than 2^63", i,
                             t->dim[i]);
    }
    return MINIM_OK;
}

/* Bytes of whole panels: the rows that the last one lacks are there too. */
static minim_status gguf_size_panels(gguf_reader *r, gguf_tensor *t, kern_type_info info) {
    if (!r->f->panels)
        return gguf_fail(r, MINIM_ERR_FORMAT, "is packed, but there is no key 'minim.panels' that says how");
    if (!info.has_kernels || t->n_dims != 2)
        return gguf_fail(r, MINIM_ERR_FORMAT,
                         "is packed and has type %s and %" PRIu32 " dimensions, expected a type that minim computes "
                         "with and 2 dimensions",
                         info.name, t->n_dims);
    const uint64_t panel = kern_panel_bytes(t->type, (int64_t)t->dim[0]);
    if (!panel || size_mul((t->dim[1] + KERN_PANEL - 1) / KERN_PANEL, panel, &t->bytes) || t->bytes > INT64_MAX)
        return gguf_fail(r, MINIM_ERR_FORMAT, "%" PRIu64 " elements of type %s in panels take more than 2^63 bytes",
                         t->elements, info.name);
    return MINIM_OK;
}

/* Type and size in bytes. */
static minim_status gguf_take_type(gguf_reader *r, gguf_tensor *t) {
    kern_type_info info;
    minim_status s = gguf_take_u32(r, "tensor type", &t->type);
    if (s) return s;
    t->panels = t->type >= GGUF_PANELS && kern_type_get(t->type - GGUF_PANELS).name;
    if (t->panels) t->type -= GGUF_PANELS;
    info = kern_type_get(t->type);
    if (!info.name)
        return gguf_fail(r, MINIM_ERR_FORMAT,
                         "tensor type %" PRIu32 " is not known to minim (newer, or removed from the format)", t->type);
    if (t->dim[0] % (uint64_t)info.block)
        return gguf_fail(r, MINIM_ERR_FORMAT,
                         "dimension 0 is %" PRIu64 ", expected a multiple of %d, the block of type %s", t->dim[0],
                         info.block, info.name);
    if (t->panels) return gguf_size_panels(r, t, info);
    if (size_mul(t->elements / (uint64_t)info.block, (uint64_t)info.block_bytes, &t->bytes) || t->bytes > INT64_MAX)
        return gguf_fail(r, MINIM_ERR_FORMAT, "%" PRIu64 " elements of type %s take more than 2^63 bytes", t->elements,
                         info.name);
    return MINIM_OK;
}

static minim_status gguf_take_tensor(gguf_reader *r, gguf_tensor *t) {
    minim_status s = gguf_take_name(r, "tensor name", GGUF_MAX_NAME, &t->name);
    if (!s) s = gguf_take_dims(r, t);
    if (!s) s = gguf_take_type(r, t);
    if (!s) s = gguf_take_u64(r, "tensor offset", &t->offset); /* for now from the start of the data */
    if (!s && t->offset % r->f->alignment)
        s = gguf_fail(r, MINIM_ERR_FORMAT, "offset %" PRIu64 " is not a multiple of the alignment %" PRIu64, t->offset,
                      r->f->alignment);
    return s;
}

/* Makes every offset count from the start of the file, and checks that the data is there. */
static minim_status gguf_place_tensors(gguf_reader *r) {
    gguf_file *f = r->f;
    /* No wrap: at <= size < 2^63 and the alignment is small. */
    const uint64_t data = (r->at + f->alignment - 1) & ~(f->alignment - 1);
    const uint64_t room = data < f->size ? f->size - data : 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        gguf_tensor *t = &f->tensors[i];
        if (t->bytes > room || t->offset > room - t->bytes) {
            r->number = i;
            r->name = t->name;
            return gguf_fail(r, MINIM_ERR_FORMAT,
                             "the file is cut: its data is said to be %" PRIu64 " bytes at offset %" PRIu64
                             " of the data section, which has %" PRIu64 " bytes",
                             t->bytes, t->offset, room);
        }
        t->offset += data;
    }
    return MINIM_OK;
}

/* Moves order[at] down until no child is larger: the step of a heap sort. */
static void gguf_sift(const gguf_tensor *tensors, uint32_t *order, size_t at, size_t n) {
    for (;;) {
        size_t child = 2 * at + 1;
        uint32_t swap;
        if (child >= n) return;
        if (child + 1 < n && tensors[order[child + 1]].offset > tensors[order[child]].offset) child++;
        if (tensors[order[child]].offset <= tensors[order[at]].offset) return;
        swap = order[at];
        order[at] = order[child];
        order[child] = swap;
        at = child;
    }
}

/* No byte belongs to two tensors. The tensors need not be in order and may have gaps. Heap sort, because no input makes
 * it slow and, other than qsort(), it allocates nothing. */
static minim_status gguf_check_overlap(gguf_reader *r) {
    gguf_file *f = r->f;
    const size_t n = f->n_tensors;
    uint32_t *order = mem_alloc(&f->allocator, n, sizeof *order);
    minim_status s = MINIM_OK;
    if (!order) return err_memory(r->e, "order of GGUF tensors", n * sizeof *order);
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (size_t i = n / 2; i-- > 0;) gguf_sift(f->tensors, order, i, n);
    for (size_t end = n; end-- > 1;) {
        const uint32_t last = order[0];
        order[0] = order[end];
        order[end] = last;
        gguf_sift(f->tensors, order, 0, end);
    }
    for (size_t i = 1; i < n && !s; i++) {
        const gguf_tensor *a = &f->tensors[order[i - 1]], *b = &f->tensors[order[i]];
        if (b->offset - a->offset >= a->bytes) continue;
        r->number = order[i];
        r->name = b->name;
        s = gguf_fail(r, MINIM_ERR_FORMAT,
                      "its data at offset %" PRIu64 " overlaps that of tensor %" PRIu32 " '%s', which ends at %" PRIu64,
                      b->offset, order[i - 1], a->name.s, a->offset + a->bytes);
    }
    mem_free(&f->allocator, order, n, sizeof *order);
    return s;
}

static minim_status gguf_take_tensors(gguf_reader *r, uint64_t n) {
    gguf_file *f = r->f;
    minim_status s;
    r->kind = "tensor";
    for (uint64_t i = 0; i < n; i++) {
        r->number = i;
        if (mem_grow(&f->allocator, &f->tensors, &f->tensors_capacity, f->n_tensors + 1, sizeof *f->tensors))
            return err_memory(r->e, "GGUF tensor list", (f->n_tensors + 1) * sizeof *f->tensors);
        s = gguf_take_tensor(r, &f->tensors[f->n_tensors]);
        if (s) return s;
        f->n_tensors++;
    }
    s = gguf_index_names(r, &f->tensor_index, f->tensors, sizeof *f->tensors, f->n_tensors);
    if (!s) s = gguf_place_tensors(r);
    return s ? s : gguf_check_overlap(r);
}

/* ---- header ----------------------------------------------------------------------------------------------------- */

/* What people hand over by mistake. */
static const struct gguf_other_row {
    size_t at;
    const char *bytes;
    size_t n;
    const char *text;
} gguf_others[] = {
    {0, "tjgg", 4, "a GGML file of 2023 (ggjt), which came before GGUF"},
    {0, "fmgg", 4, "a GGML file of 2023 (ggmf), which came before GGUF"},
    {0, "lmgg", 4, "a GGML file of 2023 (ggml), which came before GGUF"},
    {0, "algg", 4, "a GGML LoRA adapter of 2023 (ggla), which came before GGUF"},
    {0, "PK\3\4", 4, "a ZIP archive (a PyTorch checkpoint?)"},
    {0, "\x80\2", 2, "a Python pickle (an old PyTorch checkpoint?)"},
    {0, "\177ELF", 4, "an ELF program"},
    {0, "MZ", 2, "a program (MZ; a llamafile holds a GGUF file inside)"},
    {0, "\x89HDF", 4, "an HDF5 file"},
    {0, "\x1f\x8b", 2, "gzip-compressed"},
    {0, "\x28\xb5\x2f\xfd", 4, "zstd-compressed"},
    {0, "\3757zXZ", 5, "xz-compressed"},
    {0, "version https://git-lfs", 23, "a Git LFS pointer: the file itself was not downloaded"},
    {0, "\0\0\0\0\0\0\0\0", 8, "zeros (an unfinished download?)"},
    {8, "{\"", 2, "a safetensors file"},
};

static const char *gguf_other_format(const uint8_t *head, size_t n) {
    size_t i;
    for (i = 0; i < sizeof gguf_others / sizeof gguf_others[0]; i++)
        if (n >= gguf_others[i].at + gguf_others[i].n &&
            memcmp(head + gguf_others[i].at, gguf_others[i].bytes, gguf_others[i].n) == 0)
            return gguf_others[i].text;
    for (i = 0; i < n; i++)
        if ((head[i] < 0x20 && (head[i] < '\t' || head[i] > '\r')) || head[i] >= 0x7f) return NULL;
    return "text";
}

static minim_status gguf_check_magic(gguf_reader *r) {
    uint8_t head[32];
    const size_t n = r->f->size < sizeof head ? (size_t)r->f->size : sizeof head;
    const char *other;
    minim_status s = gguf_take(r, "file type", head, n);
    if (s) return s;
    r->at = 4;
    if (n < 4) return gguf_fail(r, MINIM_ERR_FORMAT, "has only %zu bytes, too few for a GGUF file", n);
    if (memcmp(head, "GGUF", 4) == 0) return MINIM_OK;
    other = gguf_other_format(head, n);
    if (other) return gguf_fail(r, MINIM_ERR_FORMAT, "is %s, expected a GGUF file", other);
    return gguf_fail(r, MINIM_ERR_FORMAT, "starts with the bytes %02x %02x %02x %02x, expected 47 47 55 46 (GGUF)",
                     head[0], head[1], head[2], head[3]);
}

static minim_status gguf_check_version(gguf_reader *r) {
    uint32_t version;
    minim_status s = gguf_take_u32(r, "GGUF version", &version);
    if (s) return s;
    r->f->version = version;
    if (version == 2 || version == 3) return MINIM_OK;
    if (version == 0) return gguf_fail(r, MINIM_ERR_FORMAT, "GGUF version is 0, expected 2 or 3");
    if ((version & 0xffff) == 0)
        return gguf_fail(r, MINIM_ERR_UNSUPPORTED,
                         "is a big-endian GGUF file (version 0x%08" PRIx32 "), expected a little-endian one", version);
    return gguf_fail(r, MINIM_ERR_UNSUPPORTED, "GGUF version is %" PRIu32 ", expected 2 or 3%s", version,
                     version == 1 ? " (version 1 files must be converted again)" : "");
}

/* A number of keys or tensors: the smallest thinkable ones must fit what is left of the file. */
static minim_status gguf_check_count(gguf_reader *r, const char *what, uint64_t n, uint64_t bytes, uint64_t limit) {
    const uint64_t left = r->f->size - r->at;
    if (n > left / bytes)
        return gguf_fail(r, MINIM_ERR_FORMAT,
                         "%s is %" PRIu64 ", but the %" PRIu64 " bytes behind the header have room for "
                         "at most %" PRIu64,
                         what, n, left, left / bytes);
    if (n > limit) return gguf_fail(r, MINIM_ERR_FORMAT, "%s is %" PRIu64 ", the limit is %" PRIu64, what, n, limit);
    return MINIM_OK;
}

static minim_status gguf_read_header(gguf_reader *r) {
    uint64_t n_tensors = 0, n_keys = 0;
    minim_status s = gguf_check_magic(r);
    if (!s) s = gguf_check_version(r);
    if (!s) s = gguf_take_u64(r, "number of tensors", &n_tensors);
    if (!s) s = gguf_take_u64(r, "number of keys", &n_keys);
    if (!s) s = gguf_check_count(r, "number of tensors", n_tensors, GGUF_MIN_INFO_BYTES, GGUF_MAX_TENSORS);
    if (!s) s = gguf_check_count(r, "number of keys", n_keys, GGUF_MIN_KEY_BYTES, GGUF_MAX_KEYS);
    if (!s) s = gguf_take_values(r, n_keys);
    if (!s) s = gguf_set_alignment(r);
    if (!s) s = gguf_check_panels(r);
    return s ? s : gguf_take_tensors(r, n_tensors);
}

minim_status gguf_read_file(gguf_file *f, minim_error *e) {
    gguf_reader r = {.f = f, .e = e, .number = GGUF_NONE, .element = GGUF_NONE};
    minim_status s;
    if (f->size == 0) return err_set(e, MINIM_ERR_FORMAT, "%s: is empty, expected a GGUF file", f->path);
    if (!f->image) {
        r.buffer = mem_alloc(&f->allocator, GGUF_BUFFER, 1);
        if (!r.buffer) return err_memory(e, "GGUF read buffer", GGUF_BUFFER);
    }
    s = gguf_read_header(&r);
    mem_free(&f->allocator, r.buffer, GGUF_BUFFER, 1);
    return s;
}
