/* synth.h: small Llama models with pseudo-random weights, as GGUF images in memory. */
#ifndef TESTS_SYNTH_H
#define TESTS_SYNTH_H

#include <stddef.h>
#include <stdint.h>

typedef struct synth_shape {
    uint32_t type; /* of the matrices: any that has kernels; norms are F32 */
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_ctx;
    int tied;   /* 1: no output.weight */
    int biases; /* 1: every matrix has one */
    int full;   /* 1: matrices of one row have two dimensions; 0: one, as ggml writes them */
    int pad;    /* so many unused tokens more than the vocabulary has */
} synth_shape;

/* The image (free() it); the vocabulary is that of models/stories260K.gguf (512 tokens). NULL if that can not be read.
 */
void *synth_model(const synth_shape *shape, size_t *size);

/* n token ids of a 512-token vocabulary, beginning with BOS. */
void synth_tokens(int32_t *tokens, size_t n);

#endif
