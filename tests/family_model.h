/* family_model.h: small models of every family with pseudo-random weights, as GGUF images in memory, and what a plain
 * float64 forward pass makes of them. The pass shares no code with the engine but the reader of the file. */
#ifndef TESTS_FAMILY_MODEL_H
#define TESTS_FAMILY_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "../engine/minim.h"
#include "synth.h"

enum { FAMILY_MODEL_VOCAB = 512 }; /* tokens: the vocabulary of models/stories260K.gguf */

/* What a file of a family may or may not have. */
enum {
    FM_OUTPUT = 1,       /* output.weight */
    FM_FUSED_QKV = 2,    /* attn_qkv */
    FM_FUSED_FFN = 4,    /* gate and up in ffn_up */
    FM_BIAS_QKV = 8,     /* biases of q, k, v */
    FM_BIAS_O = 16,      /* of attn_output */
    FM_BIAS_FFN = 32,    /* of the feed-forward matrices */
    FM_BIAS_OUTPUT = 64, /* of output */
    FM_LAYER_NORM = 128, /* norms have biases */
    FM_NO_NORM_TENSORS = 256,
    FM_NO_PRE_NORM = 512, /* no attn_norm, no ffn_norm */
    FM_NO_FFN_NORM = 1024,
    FM_POST_NORM = 2048,     /* post_attention_norm, post_ffw_norm */
    FM_QK_NORM = 4096,       /* [head_dim] */
    FM_QK_NORM_HEADS = 8192, /* [head_dim, heads] */
    FM_QK_NORM_ALL = 16384,  /* [heads * head_dim] */
    FM_NO_GATE = 32768,
    FM_ROPE_FREQS = 65536,
    FM_ROPE_SHORT = 131072,
    FM_ROPE_LONG = 262144
};

typedef struct family_key {
    const char *name; /* without the architecture; NULL ends a list */
    uint32_t type;    /* of GGUF: 4 u32, 6 f32, 7 bool, 8 str; 9: array of n_layers numbers of type u32 */
    double number;    /* of an array: bit i is element i */
    const char *text;
} family_key;

typedef struct family_model {
    const char *name, *architecture;
    unsigned parts; /* FM_* */
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_rot, n_ff;
    int n_ctx; /* of the engine */
    family_key keys[12];
} family_model;

/* At least one of every family and of every optional part; the name of the last is NULL. */
extern const family_model family_models[];

/* One change to a correct file. */
typedef enum family_damage {
    FAMILY_INTACT,
    FAMILY_DROP,      /* the tensor is missing */
    FAMILY_TRANSPOSE, /* [a, b] becomes [b, a], a vector [n] becomes [1, n] */
    FAMILY_SHORT,     /* the last dimension is one less */
    FAMILY_QUANTISED, /* its type is Q8_0 (its first dimension being a multiple of 32) */
    FAMILY_INTEGERS,  /* no damage: every matrix whose rows are whole blocks is Q8_0 (tensor -1) */
} family_damage;

/* The image (free() it). `tensor` is the number of the one that is damaged; its name is written to `damaged`. NULL when
 * there are fewer tensors or the damage is none for this one. */
void *family_model_image(const family_model *m, int tensor, family_damage damage, char damaged[64], size_t *size);

/* Logits [n][FAMILY_MODEL_VOCAB] of tokens by the float64 pass, for an engine with a context of n_ctx; free() them. */
double *family_model_logits(const void *image, size_t size, const int32_t *tokens, int n, int n_ctx);

/* The model of this name in family_models, or the plain Llama of this shape when family is NULL; NULL and *error on
 * failure. */
minim_model *family_model_load(const char *family, const synth_shape *plain, minim_error *error);

#endif
