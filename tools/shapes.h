/* shapes.h: the dimensions of models that people run, so that they can be benchmarked without a download. */
#ifndef TOOLS_SHAPES_H
#define TOOLS_SHAPES_H

#include <stddef.h>
#include <stdint.h>

typedef struct tool_shape {
    const char *name;   /* "tinyllama-1.1b" */
    const char *family; /* the architecture of the true model in GGUF's words: "llama", "qwen2" ... */
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab, n_ctx;
    int tied; /* 1: the embedding is also the output matrix */
    float rope_base, norm_eps;
} tool_shape;

/* The index-th shape, smallest first; NULL behind the last. */
const tool_shape *tool_shape_at(size_t index);
/* NULL when there is none of that name. */
const tool_shape *tool_shape_find(const char *name);

/* A weight matrix W[rows][cols]. */
typedef struct tool_matrix {
    const char *name; /* the part of the tensor's name between "blk.N." and ".weight" */
    int rows, cols;
} tool_matrix;

enum { TOOL_LAYER_MATRICES = 7 };

/* The matrices of one layer in the order in which a step multiplies with them. */
void tool_shape_matrices(const tool_shape *shape, tool_matrix matrices[TOOL_LAYER_MATRICES]);

#endif
