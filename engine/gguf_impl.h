/* gguf_impl.h: what the sources of the GGUF reader share. */
#ifndef ENGINE_GGUF_IMPL_H
#define ENGINE_GGUF_IMPL_H

#include "gguf.h"
#include "gguf_index.h"

#define GGUF_SHOWN_PATH 160 /* bytes of a path in errors; the rest of the sentence must still fit behind it */

/* Values and names live in chunks that are freed together: a vocabulary has half a million strings. */
typedef struct gguf_chunk {
    struct gguf_chunk *next;
    size_t size, used; /* bytes behind this head, which is padded to 64 */
} gguf_chunk;

enum { GGUF_CHUNK_HEAD = 64 };

struct gguf_file {
    minim_allocator allocator;
    char *path; /* its end, if it is too long for an error */
    size_t path_bytes;
    int fd;               /* -1: image or closed */
    const uint8_t *image; /* [size] or NULL */
    void *map;            /* [size] or NULL: gguf_map() */
    uint64_t size;
    uint64_t alignment;
    uint32_t version;
    uint32_t panels; /* their layout, 0 = an ordinary file */
    gguf_value *values;
    size_t n_values, values_capacity;
    gguf_tensor *tensors;
    size_t n_tensors, tensors_capacity;
    gguf_index value_index, tensor_index;
    gguf_chunk *chunks;
    uint64_t chunk_bytes;
};

/* gguf.c: reads and checks the header of the file that is open. */
minim_status gguf_read_file(gguf_file *f, minim_error *e);

/* gguf_file.c: exactly n bytes at offset `at` of the open file. */
minim_status gguf_pread(const gguf_file *f, uint64_t at, void *dst, size_t n, minim_error *e);

#endif
