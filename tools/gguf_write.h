/* gguf_write.h: writes GGUF files: first the header in memory, then the file, weights in pieces of any size.
 * The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little endian).
 *
 *     gguf_head head = {0};
 *     gguf_head_string(&head, "general.architecture", "llama", 5);
 *     gguf_head_tensor(&head, "output_norm.weight", 1, (uint64_t[]){64}, GGUF_WRITE_TENSOR_F32, 256);
 *     gguf_writer writer;
 *     int code = gguf_writer_open(&writer, &head, "model.gguf", 0);
 *     if (code < 0) code = gguf_writer_put(&writer, weights, 256);
 *     code = gguf_writer_close(&writer, code);   // the exit code
 *     gguf_head_free(&head);
 */
#ifndef TOOLS_GGUF_WRITE_H
#define TOOLS_GGUF_WRITE_H

#include <stdint.h>

#include "common.h"
#include "output.h"

enum { GGUF_WRITE_ALIGNMENT = 32, GGUF_WRITE_MOST_ALIGNMENT = 4096 };

/* Types of metadata values. */
enum gguf_write_type {
    GGUF_WRITE_U32 = 4,
    GGUF_WRITE_I32 = 5,
    GGUF_WRITE_F32 = 6,
    GGUF_WRITE_BOOL = 7,
    GGUF_WRITE_STRING = 8,
    GGUF_WRITE_ARRAY = 9
};

/* Types of tensors that need no blocks. */
enum { GGUF_WRITE_TENSOR_F32 = 0, GGUF_WRITE_TENSOR_F16 = 1, GGUF_WRITE_TENSOR_BF16 = 30 };

/* Everything before the weights. Starts as {0}. When memory runs out, the first call says so and sets `failed`; the
 * others do nothing then, so it is enough to look once at the end. */
typedef struct gguf_head {
    tool_bytes keys, tensors;
    uint64_t n_keys, n_tensors;
    uint64_t data_bytes; /* of all tensors, each padded to the alignment */
    uint32_t alignment;  /* 0 = GGUF_WRITE_ALIGNMENT */
    int failed;
} gguf_head;

void gguf_head_u32(gguf_head *head, const char *key, uint32_t x);
void gguf_head_i32(gguf_head *head, const char *key, int32_t x);
void gguf_head_f32(gguf_head *head, const char *key, float x);
void gguf_head_bool(gguf_head *head, const char *key, int x);
void gguf_head_string(gguf_head *head, const char *key, const char *text, size_t n);
/* To be followed by `count` elements. */
void gguf_head_array(gguf_head *head, const char *key, enum gguf_write_type type, uint64_t count);
void gguf_head_put_u32(gguf_head *head, uint32_t x);
void gguf_head_put_f32(gguf_head *head, float x);
void gguf_head_put_string(gguf_head *head, const char *text, size_t n);

/* Tensors begin at multiples of n, a power of two up to GGUF_WRITE_MOST_ALIGNMENT, instead of GGUF_WRITE_ALIGNMENT:
 * adds the key that says so. Before the first tensor. */
void gguf_head_alignment(gguf_head *head, uint32_t n);

/* The next tensor; dims[0] is contiguous. bytes are those of its weights without padding. */
void gguf_head_tensor(gguf_head *head, const char *name, int n_dims, const uint64_t *dims, uint32_t type,
                      uint64_t bytes);

/* Appends an entry as it stands in another file: the n bytes of its key, type and value. */
void gguf_head_copy(gguf_head *head, const void *entry, size_t n);

/* Bytes of the whole file. */
uint64_t gguf_head_file_bytes(const gguf_head *head);

/* Appends the keys of another head. */
void gguf_head_join(gguf_head *head, const gguf_head *other);

void gguf_head_free(gguf_head *head);

typedef struct gguf_writer {
    tool_output output;
    const gguf_head *head;
    uint64_t written;    /* bytes of weights and their padding */
    double start, shown; /* seconds; shown 0 = there is no progress line */
    int show_progress;
} gguf_writer;

/* Opens the file under a temporary name and writes the header; `quiet`: no progress bar. Returns -1 or an exit code;
 * gguf_writer_close() has to follow in either case. */
int gguf_writer_open(gguf_writer *writer, const gguf_head *head, const char *name, int quiet);

/* Appends bytes of the current tensor; progress, and Ctrl-C, are looked after. Returns -1 or an exit code. */
int gguf_writer_put(gguf_writer *writer, const void *data, size_t n);

/* The next tensor is the one whose data begins at `at`, counted from the first tensor's: for who does not write them in
 * order. The file has to be one that can be sought in. Returns -1 or an exit code. */
int gguf_writer_place(gguf_writer *writer, uint64_t at);

/* Pads the current tensor; the next one begins. Returns -1 or an exit code. */
int gguf_writer_end_tensor(gguf_writer *writer);

/* With code -1 the file goes to the disk, is read back, and gets its name in place of an older file; otherwise it is
 * removed and the older one stays. Returns the exit code. */
int gguf_writer_close(gguf_writer *writer, int code);

/* float32 to f16, to the nearest, ties to even; with subnormals, infinities and NaN (IEEE 754). */
uint16_t gguf_write_f16(float x);
float gguf_write_from_f16(uint16_t half); /* exact */
/* float32 to bf16, to the nearest, ties to even; a NaN becomes quiet. */
uint16_t gguf_write_bf16(float x);

static inline void gguf_write_16(uint8_t *out, uint16_t x) {
    out[0] = (uint8_t)x;
    out[1] = (uint8_t)(x >> 8);
}

static inline void gguf_write_32(uint8_t *out, uint32_t x) {
    gguf_write_16(out, (uint16_t)x);
    gguf_write_16(out + 2, (uint16_t)(x >> 16));
}

static inline void gguf_write_64(uint8_t *out, uint64_t x) {
    gguf_write_32(out, (uint32_t)x);
    gguf_write_32(out + 4, (uint32_t)(x >> 32));
}

static inline uint64_t gguf_write_aligned(uint64_t bytes) {
    return (bytes + GGUF_WRITE_ALIGNMENT - 1) / GGUF_WRITE_ALIGNMENT * GGUF_WRITE_ALIGNMENT;
}

#endif
