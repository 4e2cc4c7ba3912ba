/* gguf_writer.h: builds GGUF files in memory, correct ones and damaged ones, for tests.
 *
 *     gw w;
 *     gw_init(&w);
 *     gw_str(&w, "general.architecture", "llama");
 *     gw_u32(&w, "llama.block_count", 1);
 *     gw_tensor(&w, "output_norm.weight", 0, 1, (uint64_t[]){64}, norm, sizeof norm);
 *     size_t n;
 *     uint8_t *image = gw_finish(&w, &n);      // malloc'd with exactly n bytes; free() it
 *     gw_free(&w);
 *
 * To damage a file: change the fields of gw before gw_finish() (version, n_tensors ...), write keys and tensor infos
 * from raw parts (gw_key, gw_info, gw_put), or patch the image.
 */
#ifndef TESTS_GGUF_WRITER_H
#define TESTS_GGUF_WRITER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct gw_buffer {
    uint8_t *data;
    size_t n, capacity;
} gw_buffer;

typedef struct gw {
    char magic[4];
    uint32_t version;
    uint64_t n_tensors, n_keys; /* counted by the functions below */
    uint64_t alignment;         /* of the data; gw_alignment() also writes the key */
    int no_data;                /* leave out the padding before the data and the data itself */
    gw_buffer keys, infos, data;
} gw;

static inline void gw_put(gw_buffer *b, const void *bytes, size_t n) {
    if (n == 0) return;
    if (b->n + n > b->capacity) {
        b->capacity = 2 * (b->n + n);
        b->data = realloc(b->data, b->capacity);
        if (!b->data) abort(); /* a test without memory has nothing to say */
    }
    memcpy(b->data + b->n, bytes, n);
    b->n += n;
}

/* The lowest n bytes of x, little endian. */
static inline void gw_put_number(gw_buffer *b, uint64_t x, size_t n) {
    uint8_t raw[8];
    for (size_t i = 0; i < n; i++) raw[i] = (uint8_t)(x >> 8 * i);
    gw_put(b, raw, n);
}

static inline void gw_put_string(gw_buffer *b, const void *s, size_t n) {
    gw_put_number(b, n, 8);
    gw_put(b, s, n);
}

static inline void gw_put_zeros(gw_buffer *b, size_t n) {
    static const uint8_t zeros[4096];
    for (; n > sizeof zeros; n -= sizeof zeros) gw_put(b, zeros, sizeof zeros);
    gw_put(b, zeros, n);
}

static inline void gw_init(gw *w) {
    *w = (gw){.magic = {'G', 'G', 'U', 'F'}, .version = 3, .alignment = 32};
}

static inline void gw_free(gw *w) {
    free(w->keys.data);
    free(w->infos.data);
    free(w->data.data);
    memset(w, 0, sizeof *w);
}

/* ---- keys ------------------------------------------------------------------------------------------------------- */

/* The start of a key; the caller puts its value into w->keys. Types: 0 u8, 1 i8, 2 u16, 3 i16, 4 u32, 5 i32, 6 f32,
 * 7 bool, 8 str, 9 arr, 10 u64, 11 i64, 12 f64. */
static inline void gw_key_bytes(gw *w, const void *key, size_t n, uint32_t type) {
    gw_put_string(&w->keys, key, n);
    gw_put_number(&w->keys, type, 4);
    w->n_keys++;
}

static inline void gw_key(gw *w, const char *key, uint32_t type) {
    gw_key_bytes(w, key, strlen(key), type);
}

static inline void gw_number(gw *w, const char *key, uint32_t type, uint64_t x) {
    static const uint8_t bytes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    gw_key(w, key, type);
    gw_put_number(&w->keys, x, bytes[type]);
}

static inline void gw_u32(gw *w, const char *key, uint32_t x) {
    gw_number(w, key, 4, x);
}

static inline void gw_bool(gw *w, const char *key, int x) {
    gw_number(w, key, 7, (uint64_t)(x != 0));
}

static inline void gw_f32(gw *w, const char *key, float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    gw_number(w, key, 6, bits);
}

static inline void gw_f64(gw *w, const char *key, double x) {
    uint64_t bits;
    memcpy(&bits, &x, 8);
    gw_number(w, key, 12, bits);
}

static inline void gw_str_bytes(gw *w, const char *key, const void *s, size_t n) {
    gw_key(w, key, 8);
    gw_put_string(&w->keys, s, n);
}

static inline void gw_str(gw *w, const char *key, const char *s) {
    gw_str_bytes(w, key, s, strlen(s));
}

/* The start of an array; the caller puts `count` elements into w->keys. */
static inline void gw_array(gw *w, const char *key, uint32_t type, uint64_t count) {
    gw_key(w, key, 9);
    gw_put_number(&w->keys, type, 4);
    gw_put_number(&w->keys, count, 8);
}

/* Elements of `size` bytes as they lie in memory (of a little-endian machine). */
static inline void gw_numbers(gw *w, const char *key, uint32_t type, const void *elements, size_t count, size_t size) {
    gw_array(w, key, type, count);
    gw_put(&w->keys, elements, count * size);
}

static inline void gw_strings(gw *w, const char *key, const char *const *strings, size_t count) {
    gw_array(w, key, 8, count);
    for (size_t i = 0; i < count; i++) gw_put_string(&w->keys, strings[i], strlen(strings[i]));
}

static inline void gw_alignment(gw *w, uint32_t alignment) {
    w->alignment = alignment;
    gw_u32(w, "general.alignment", alignment);
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

/* Only the entry of the tensor list. offset counts from the start of the data. */
static inline void gw_info(gw *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims,
                           uint64_t offset) {
    gw_put_string(&w->infos, name, strlen(name));
    gw_put_number(&w->infos, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) gw_put_number(&w->infos, dims[i], 8);
    gw_put_number(&w->infos, type, 4);
    gw_put_number(&w->infos, offset, 8);
    w->n_tensors++;
}

/* A tensor with its data (bytes as in the file), behind those added before. data NULL: zeros. */
static inline void gw_tensor(gw *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims,
                             const void *data, size_t bytes) {
    const size_t odd = w->data.n % (size_t)w->alignment;
    if (odd) gw_put_zeros(&w->data, (size_t)w->alignment - odd);
    gw_info(w, name, type, n_dims, dims, w->data.n);
    if (data)
        gw_put(&w->data, data, bytes);
    else
        gw_put_zeros(&w->data, bytes);
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

/* The whole file, *n bytes; free() it. Can be called again after changes. */
static inline uint8_t *gw_finish(const gw *w, size_t *n) {
    gw_buffer b = {NULL, 0, 0};
    uint8_t *exact;
    gw_put(&b, w->magic, 4);
    gw_put_number(&b, w->version, 4);
    gw_put_number(&b, w->n_tensors, 8);
    gw_put_number(&b, w->n_keys, 8);
    gw_put(&b, w->keys.data, w->keys.n);
    gw_put(&b, w->infos.data, w->infos.n);
    if (!w->no_data && w->data.n) {
        const size_t odd = w->alignment ? b.n % (size_t)w->alignment : 0;
        if (odd) gw_put_zeros(&b, (size_t)w->alignment - odd);
        gw_put(&b, w->data.data, w->data.n);
    }
    exact = malloc(b.n); /* not a byte more: a sanitizer sees every read behind the end */
    if (!exact) abort();
    memcpy(exact, b.data, b.n);
    *n = b.n;
    free(b.data);
    return exact;
}

/* Writes bytes to a file; 0 or -1. */
static inline int gw_save(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    const int ok = f && fwrite(bytes, 1, n, f) == n;
    return (f && fclose(f) == 0) && ok ? 0 : -1;
}

#endif
