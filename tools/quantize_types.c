/* quantize_types.c: see quantize.h. The rules are those of llama-quantize (llama.cpp, src/llama-quant.cpp), so that a
 * name means the same in both; but rows that do not fit stay floats instead of getting a type with smaller blocks,
 * and a plain type has no exceptions. */
#include "quantize.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const quantize_target quantize_targets[] = {
    {"Q8_0", "Q8_0", 7, 0},    {"Q6_K", "Q6_K", 18, 0},     {"Q5_K", "Q5_K", 16, 0},   {"Q5_K_M", "Q5_K", 17, 1},
    {"Q5_K_S", "Q5_K", 16, 1}, {"Q4_K", "Q4_K", 14, 0},     {"Q4_K_M", "Q4_K", 15, 1}, {"Q4_K_S", "Q4_K", 14, 1},
    {"Q3_K", "Q3_K", 11, 0},   {"Q2_K", "Q2_K", 10, 0},     {"Q4_1", "Q4_1", 3, 0},    {"Q5_0", "Q5_0", 8, 0},
    {"Q5_1", "Q5_1", 9, 0},    {"IQ4_XS", "IQ4_XS", 30, 0}, {"Q4_0", "Q4_0", 2, 0},    {"IQ4_NL", "IQ4_NL", 25, 0},
    {"F16", "F16", 1, 0},      {"BF16", "BF16", 32, 0},     {"F32", "F32", 0, 0},
};

const quantize_target *quantize_find_target(const char *name) {
    for (size_t i = 0; i < sizeof quantize_targets / sizeof *quantize_targets; i++) {
        if (!strcasecmp(quantize_targets[i].name, name)) return &quantize_targets[i];
    }
    return NULL;
}

/* The number N of "blk.N.", or -1. */
static int quantize_layer(const char *name) {
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9') return -1;
    const long layer = strtol(name + 4, NULL, 10);
    return layer < 1 << 20 ? (int)layer : -1;
}

static int quantize_is_values(const char *name) {
    return strstr(name, "attn_v.weight") || strstr(name, "attn_qkv.weight") || strstr(name, "attn_kv_b.weight");
}

void quantize_see(quantize_shape *shape, const char *name) {
    const int layer = quantize_layer(name);
    if (layer >= shape->n_layers) shape->n_layers = layer + 1;
    shape->n_values += quantize_is_values(name);
    shape->has_output |= !strcmp(name, "output.weight");
}

/* Is it a matrix that may be rounded? */
static int quantize_is_matrix(const minim_tensor *tensor) {
    static const char *const kept[] = {"_norm.weight", "ffn_gate_inp.weight", "position_embd",        "token_types",
                                       "ssm_conv1d",   "shortconv.conv",      "per_layer_model_proj", "altup",
                                       "laurel",       "attn_rel_b"};
    const char *name = tensor->name;
    const size_t n = strlen(name);
    if (tensor->dims[1] * tensor->dims[2] * tensor->dims[3] <= 1) return 0;
    if (n < 6 || strcmp(name + n - 6, "weight") != 0) return 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strstr(name, kept[i])) return 0;
    return 1;
}

/* The first and the last eighth of the layers, and every third between them. */
static int quantize_needs_more(int layer, int n) {
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

static const char *quantize_mixed_type(const quantize_target *target, const quantize_shape *shape, const char *name) {
    const int layer = quantize_layer(name), is_medium = target->file_type == 15 || target->file_type == 17;
    if (!strcmp(name, shape->has_output ? "output.weight" : "token_embd.weight")) return "Q6_K";
    if (quantize_is_values(name)) {
        if (is_medium && quantize_needs_more(layer, shape->n_values)) return "Q6_K";
        if (target->file_type == 14 && layer < 4) return "Q5_K";
    } else if (strstr(name, "ffn_down")) {
        if (is_medium && quantize_needs_more(layer, shape->n_layers)) return "Q6_K";
        if (target->file_type == 14 && layer < shape->n_layers / 8) return "Q5_K";
    }
    return target->base;
}

const encode_type *quantize_choose(const quantize_target *target, const quantize_shape *shape,
                                   const minim_tensor *tensor) {
    if (!quantize_is_matrix(tensor)) return NULL;
    const char *name = target->mixed ? quantize_mixed_type(target, shape, tensor->name) : target->base;
    const encode_type *type = encode_find(name);
    if (type && tensor->dims[0] % (uint64_t)type->block) type = strcmp(tensor->type, "F32") ? NULL : encode_find("F16");
    return type && strcmp(type->name, tensor->type) ? type : NULL;
}
