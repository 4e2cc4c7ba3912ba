/* hf_writer.h: Hugging Face directories for tests of `minim convert`: from a GGUF file, by undoing what a converter
 * does, or piece by piece. A failure to write ends the test program. */
#ifndef TESTS_HF_WRITER_H
#define TESTS_HF_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "../engine/gguf.h"

typedef struct hf_tensor {
    char name[96];
    const char *dtype; /* "F32", "F16", "BF16" */
    int n_dims;
    uint64_t dims[4]; /* outermost first */
    void *data;       /* malloc'd */
    size_t bytes;
} hf_tensor;

typedef struct hf_tensors {
    hf_tensor *items;
    size_t n;
} hf_tensors;

/* Makes an empty directory under /tmp; its name lives until the next call. */
const char *hf_new_directory(void);
void hf_remove_directory(const char *directory);

void hf_write(const char *directory, const char *name, const void *data, size_t n);
void hf_write_text(const char *directory, const char *name, const char *text);

/* A safetensors file of `tensors[from..to)`. */
void hf_write_safetensors(const char *directory, const char *name, const hf_tensors *tensors, size_t from, size_t to);

/* The weights of a GGUF file in F32 under Hugging Face's names and in its order of rows; free with hf_free(). */
hf_tensors hf_tensors_of(const gguf_file *file);
/* Rounds matrices and vectors to "F16" or "BF16". */
void hf_round(hf_tensors *tensors, const char *dtype);
void hf_free(hf_tensors *tensors);

/* config.json of a GGUF file. */
void hf_write_config(const char *directory, const gguf_file *file);
/* tokenizer.model and tokenizer_config.json of a GGUF file with a SentencePiece vocabulary. */
void hf_write_spm(const char *directory, const gguf_file *file);

/* All of it, with one file of weights. */
void hf_write_model(const char *directory, const gguf_file *file);

#endif
