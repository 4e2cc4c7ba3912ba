/* gguf_source.h: a GGUF file of which a new one is made: its header again as it stands, also the keys that minim does
 * not know, and the bytes of its tensors. */
#ifndef TOOLS_GGUF_SOURCE_H
#define TOOLS_GGUF_SOURCE_H

#include <stdio.h>

#include "gguf_write.h"

typedef struct gguf_source {
    const char *name;
    minim_model *model; /* without its weights */
    FILE *file;
} gguf_source;

/* Starts as {0}; gguf_source_close() in any case. What `minim pack` has written is refused. Returns -1 or an exit code.
 */
int gguf_source_open(gguf_source *source, const char *name);
void gguf_source_close(gguf_source *source);

/* Is `output` the same file, under whatever name? Then it fails with "this is the file to be WHAT". */
int gguf_source_check_output(const gguf_source *source, const char *output, const char *what);

/* Appends all keys to head but those in `own`, which ends with NULL, and writes the id of each tensor's type to ids.
 * Returns -1 or an exit code. */
int gguf_source_copy_header(const gguf_source *source, const char *const *own, gguf_head *head, uint32_t *ids);

/* Appends the bytes of a tensor. Returns -1 or an exit code. */
int gguf_source_copy_data(const gguf_source *source, const minim_tensor *tensor, gguf_writer *writer);

/* Reads the bytes of a tensor to data [tensor->bytes]. Returns -1 or an exit code. */
int gguf_source_read_data(const gguf_source *source, const minim_tensor *tensor, void *data);

#endif
