/* shapes.c: see shapes.h. The figures come from the configuration files that the models were published with. */
#include "shapes.h"

#include <string.h>

static const tool_shape shape_table[] = {
    {"smollm2-135m", "llama", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1, 100000.0f, 1e-5f},
    {"qwen2.5-0.5b", "qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, 1, 1000000.0f, 1e-6f},
    {"tinyllama-1.1b", "llama", 22, 2048, 32, 4, 64, 5632, 32000, 2048, 0, 10000.0f, 1e-5f},
    {"llama-3.2-1b", "llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, 1, 500000.0f, 1e-5f},
    {"llama-3.2-3b", "llama", 28, 3072, 24, 8, 128, 8192, 128256, 131072, 1, 500000.0f, 1e-5f},
    {"phi-3-mini", "phi3", 32, 3072, 32, 32, 96, 8192, 32064, 4096, 0, 10000.0f, 1e-5f},
    {"qwen3-4b", "qwen3", 36, 2560, 32, 8, 128, 9728, 151936, 40960, 1, 1000000.0f, 1e-6f},
};

const tool_shape *tool_shape_at(size_t index) {
    return index < sizeof shape_table / sizeof *shape_table ? &shape_table[index] : NULL;
}

const tool_shape *tool_shape_find(const char *name) {
    const tool_shape *shape;
    for (size_t i = 0; (shape = tool_shape_at(i)); i++) {
        if (!strcmp(shape->name, name)) return shape;
    }
    return NULL;
}

void tool_shape_matrices(const tool_shape *shape, tool_matrix matrices[TOOL_LAYER_MATRICES]) {
    int embd = shape->n_embd, ff = shape->n_ff;
    int q = shape->n_heads * shape->head_dim, kv = shape->n_kv_heads * shape->head_dim;
    const tool_matrix all[TOOL_LAYER_MATRICES] = {
        {"attn_q", q, embd},    {"attn_k", kv, embd}, {"attn_v", kv, embd},   {"attn_output", embd, q},
        {"ffn_gate", ff, embd}, {"ffn_up", ff, embd}, {"ffn_down", embd, ff},
    };
    memcpy(matrices, all, sizeof all);
}
