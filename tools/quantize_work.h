/* quantize_work.h: a file that is being quantised: what cmd_quantize.c and quantize_layers.c share. */
#ifndef TOOLS_QUANTIZE_WORK_H
#define TOOLS_QUANTIZE_WORK_H

#include "gguf_source.h"
#include "imatrix.h"
#include "quantize.h"

enum {
    QUANTIZE_MAX_THREADS = 64,
    QUANTIZE_PIECE = 1 << 20 /* elements that are in memory at a time; a multiple of every block */
};

typedef struct quantize_settings {
    const char *type, *method, *imatrix, *calibrate;
    int pure, dry_run, quiet, n_threads, n_ctx, n_chunks; /* 0 = the default */
} quantize_settings;

typedef struct quantize_tensor {
    minim_tensor from;
    uint32_t id;                  /* of its type in the input */
    uint64_t elements, bytes, at; /* at: where its bytes begin in the output's data */
    const encode_type *to;        /* NULL = copied */
} quantize_tensor;

/* Everything that is open or allocated while a file is quantised. */
typedef struct quantize_work {
    const quantize_settings *settings;
    const quantize_target *target;
    gguf_source source;
    gguf_head head;
    quantize_tensor *tensors;
    size_t n;
    float *values;  /* [QUANTIZE_PIECE] */
    uint8_t *raw;   /* [QUANTIZE_PIECE * 4] */
    imatrix im;     /* of --imatrix */
    float *weights; /* of the tensor that is being encoded: [n_mats][cols], or NULL */
} quantize_work;

/* All of these return -1 or, after a message, an exit code. */

/* Reads numbers of a tensor and looks for those that are none. */
int quantize_read_values(const quantize_work *w, size_t index, uint64_t first, size_t n, float *values);

/* The bytes of a tensor for the output, rounded or copied: to the file or, with writer NULL, to memory [bytes]. */
int quantize_write_tensor(quantize_work *w, size_t index, gguf_writer *writer, uint8_t *memory);

/* The message about a number that does not fit its type. */
int quantize_fail_large(const quantize_work *w, size_t index, uint64_t element);

/* quantize_layers.c: --method gptq: writes all tensors, not in the order of the file. */
int quantize_by_layers(quantize_work *w, gguf_writer *writer);

#endif
