/* quantize_types.c: see quantize.h. The rules are those of llama-quantize (llama.cpp, src/llama-quant.cpp) for dense
 * models, so that the name of a mixture means the same in both; but rows that do not fit stay floats instead of getting
 * a type with smaller blocks, and a plain type has no exceptions (Q4_0, or Q4_K, which it takes for Q4_K_M). */
#include "quantize.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What a mixture gives to the matrices that it does not give its base type to. NULL: it does. */
struct quantize_rule {
    const char *values, *first_values; /* attn_v, and that of the first layers */
    int n_first_values;                /* so many; QUANTIZE_MORE: those that need more */
    const char *shared;                /* attn_v where four heads and more share one */
    const char *down, *first_down;     /* ffn_down, and that of the first layers */
    int down_part;                     /* the first of so many parts; QUANTIZE_MORE */
    const char *attention_output;
};

enum { QUANTIZE_MORE = -1 };

static const quantize_rule quantize_medium = {
    .first_values = "Q6_K", .n_first_values = QUANTIZE_MORE, .first_down = "Q6_K", .down_part = QUANTIZE_MORE};
static const quantize_rule quantize_small = {0};
static const quantize_rule quantize_q4_k_s = {
    .first_values = "Q5_K", .n_first_values = 4, .first_down = "Q5_K", .down_part = 8};
static const quantize_rule quantize_q3_k_l = {.values = "Q5_K", .down = "Q5_K", .attention_output = "Q5_K"};
static const quantize_rule quantize_q3_k_m = {.values = "Q4_K",
                                              .first_values = "Q5_K",
                                              .n_first_values = 2,
                                              .down = "Q4_K",
                                              .first_down = "Q5_K",
                                              .down_part = 16,
                                              .attention_output = "Q4_K"};
static const quantize_rule quantize_q2_k = {
    .values = "Q3_K", .shared = "Q4_K", .down = "Q3_K", .attention_output = "Q3_K"};
static const quantize_rule quantize_q2_k_s = {.shared = "Q4_K", .first_down = "Q4_K", .down_part = 8};

static const quantize_target quantize_targets[] = {
    {"Q8_0", "Q8_0", 7, NULL},
    {"Q6_K", "Q6_K", 18, NULL},
    {"Q5_K", "Q5_K", 16, NULL},
    {"Q5_K_M", "Q5_K", 17, &quantize_medium},
    {"Q5_K_S", "Q5_K", 16, &quantize_small},
    {"Q4_K", "Q4_K", 14, NULL},
    {"Q4_K_M", "Q4_K", 15, &quantize_medium},
    {"Q4_K_S", "Q4_K", 14, &quantize_q4_k_s},
    {"Q3_K", "Q3_K", 11, NULL},
    {"Q3_K_L", "Q3_K", 13, &quantize_q3_k_l},
    {"Q3_K_M", "Q3_K", 12, &quantize_q3_k_m},
    {"Q3_K_S", "Q3_K", 11, &quantize_small},
    {"Q2_K", "Q2_K", 10, &quantize_q2_k},
    {"Q2_K_S", "Q2_K", 21, &quantize_q2_k_s},
    {"Q5_0", "Q5_0", 8, NULL},
    {"Q5_1", "Q5_1", 9, NULL},
    {"Q4_0", "Q4_0", 2, NULL},
    {"Q4_1", "Q4_1", 3, NULL},
    {"IQ4_NL", "IQ4_NL", 25, NULL},
    {"IQ4_XS", "IQ4_XS", 30, NULL},
    {"F16", "F16", 1, NULL},
    {"BF16", "BF16", 32, NULL},
    {"F32", "F32", 0, NULL},
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

void quantize_see(quantize_shape *shape, const minim_tensor *tensor) {
    const char *name = tensor->name;
    const int layer = quantize_layer(name);
    if (layer >= shape->n_layers) shape->n_layers = layer + 1;
    shape->n_values += quantize_is_values(name);
    shape->has_output |= !strcmp(name, "output.weight");
    /* Queries and values of the first layer tell how many heads share one. */
    if (!strcmp(name, "blk.0.attn_q.weight")) shape->query_rows = tensor->dims[1];
    if (!strcmp(name, "blk.0.attn_v.weight")) shape->value_rows = tensor->dims[1];
    shape->heads_shared = shape->value_rows ? (int)(shape->query_rows / shape->value_rows) : 0;
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

static const char *quantize_type_of_values(const quantize_target *target, const quantize_shape *shape, int layer) {
    const quantize_rule *rule = target->rule;
    const char *type = rule->values ? rule->values : target->base;
    if (rule->n_first_values == QUANTIZE_MORE ? quantize_needs_more(layer, shape->n_values)
                                              : layer < rule->n_first_values)
        type = rule->first_values;
    if (rule->shared && shape->heads_shared >= 4) type = rule->shared;
    /* The models of 70 thousand million weights: few values, so more bits cost little. */
    if (shape->n_layers == 80 && shape->heads_shared > 1 && (!strcmp(type, "Q3_K") || !strcmp(type, "Q4_K")))
        type = "Q5_K";
    return type;
}

static const char *quantize_type_of_down(const quantize_rule *rule, const quantize_shape *shape, int layer) {
    const int part = rule->down_part, n = shape->n_layers;
    const int is_first = part == QUANTIZE_MORE ? quantize_needs_more(layer, n) : part > 0 && layer < n / part;
    return is_first ? rule->first_down : rule->down;
}

static const char *quantize_mixed_type(const quantize_target *target, const quantize_shape *shape, const char *name) {
    const quantize_rule *rule = target->rule;
    const int layer = quantize_layer(name);
    const char *type = NULL;
    if (!strcmp(name, "output.weight") || (!shape->has_output && strstr(name, "token_embd.weight")))
        type = "Q6_K";
    else if (quantize_is_values(name))
        type = quantize_type_of_values(target, shape, layer);
    else if (strstr(name, "ffn_down"))
        type = quantize_type_of_down(rule, shape, layer);
    else if (strstr(name, "attn_output.weight"))
        type = rule->attention_output;
    return type ? type : target->base;
}

const encode_type *quantize_choose(const quantize_target *target, int pure, const quantize_shape *shape,
                                   const minim_tensor *tensor) {
    if (!quantize_is_matrix(tensor)) return NULL;
    const char *name = target->rule && !pure ? quantize_mixed_type(target, shape, tensor->name) : target->base;
    const encode_type *type = encode_find(name);
    if (type && tensor->dims[0] % (uint64_t)type->block) type = strcmp(tensor->type, "F32") ? NULL : encode_find("F16");
    return type && strcmp(type->name, tensor->type) ? type : NULL;
}
