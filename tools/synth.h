/* synth.h: writes GGUF files with random weights. */
#ifndef TOOLS_SYNTH_H
#define TOOLS_SYNTH_H

#include <stdint.h>

#include "shapes.h"

/* A weight type of the file format. */
typedef struct synth_type {
    const char *name; /* "q4_0" */
    uint32_t id;      /* of the tensor type in GGUF */
    uint32_t file_id; /* of general.file_type for a file of mostly this type */
    int block, block_bytes;
    /* n_blocks blocks of random weights with a standard deviation of about `deviation`. */
    void (*fill)(uint64_t *random, float deviation, uint8_t *out, size_t n_blocks);
} synth_type;

const synth_type *synth_type_find(const char *name);

enum { SYNTH_VOCAB_MIN = 512 }; /* control tokens, bytes, letters and a few words */

typedef struct synth_plan {
    const tool_shape *shape;
    const synth_type *type, *output_type; /* of the layers; of embedding and output */
    uint64_t seed;
    int force, quiet;
} synth_plan;

/* Bytes of all tensors. */
uint64_t synth_data_bytes(const synth_plan *plan);

/* Writes the file under a temporary name and renames it when it is complete. Returns the exit code, after a message
 * unless it is 0. */
int synth_write_file(const synth_plan *plan, const char *name);

#endif
