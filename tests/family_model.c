/* family_model.c: writing the models of family_model.h. */
#include "family_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/gguf.h"
#include "../kernels/kernels.h"
#include "gguf_writer.h"

/* Sizes that blocks of 32 divide, sizes that nothing divides, and many narrow layers. */
#define EVEN(dim, rot)                                                                                                 \
    .n_layers = 3, .n_embd = 64, .n_heads = 4, .n_kv_heads = 2, .head_dim = (dim), .n_rot = (rot), .n_ff = 96
#define ODD(rot) .n_layers = 2, .n_embd = 36, .n_heads = 3, .n_kv_heads = 1, .head_dim = 20, .n_rot = (rot), .n_ff = 44
#define DEEP(layers)                                                                                                   \
    .n_layers = (layers), .n_embd = 32, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .n_rot = 16, .n_ff = 32

enum { U32 = 4, F32 = 6, BOOL = 7, STR = 8, BITS = 9 };

const family_model family_models[] = {
    {.name = "llama", .architecture = "llama", EVEN(16, 16), .parts = FM_OUTPUT},
    {.name = "llama, heads of half a block",
     .architecture = "llama",
     .n_layers = 2,
     .n_embd = 64,
     .n_heads = 4,
     .n_kv_heads = 4,
     .head_dim = 16,
     .n_rot = 16,
     .n_ff = 96},
    {.name = "llama, odd sizes", .architecture = "llama", ODD(20), .parts = FM_ROPE_FREQS},
    {.name = "llama, all fused, biases",
     .architecture = "llama",
     ODD(20),
     .parts = FM_FUSED_QKV | FM_FUSED_FFN | FM_BIAS_QKV | FM_BIAS_O | FM_BIAS_FFN | FM_BIAS_OUTPUT | FM_OUTPUT},
    {.name = "llama, linear, old key",
     .architecture = "llama",
     EVEN(16, 16),
     .keys = {{"rope.scale_linear", F32, 4, NULL}, {"rope.freq_base", F32, 1e5, NULL}}},
    {.name = "llama, scaling none",
     .architecture = "llama",
     EVEN(16, 16),
     .keys = {{"rope.scaling.factor", F32, 4, NULL}, {"rope.scaling.type", STR, 0, "none"}}},
    {.name = "llama, yarn",
     .architecture = "llama",
     EVEN(16, 16),
     .keys = {{"rope.scaling.type", STR, 0, "yarn"},
              {"rope.scaling.factor", F32, 4, NULL},
              {"rope.scaling.attn_factor", F32, 1.25, NULL},
              {"rope.scaling.original_context_length", U32, 32, NULL}}},
    {.name = "llama, layers that differ",
     .architecture = "llama",
     EVEN(16, 16),
     .keys = {{"feed_forward_length", BITS, 5, NULL}, {"attention.head_count_kv", BITS, 0, NULL}}},
    {.name = "mistral3",
     .architecture = "mistral3",
     EVEN(16, 16),
     .keys = {{"rope.scaling.type", STR, 0, "yarn"},
              {"rope.scaling.factor", F32, 16, NULL},
              {"rope.scaling.original_context_length", U32, 8, NULL},
              {"rope.scaling.yarn_beta_fast", F32, 4, NULL},
              {"rope.scaling.yarn_beta_slow", F32, 0.5, NULL},
              {"rope.scaling.yarn_log_multiplier", F32, 0.7, NULL},
              {"attention.temperature_scale", F32, 0.2, NULL}}},
    {.name = "phi2",
     .architecture = "phi2",
     EVEN(16, 8),
     .parts = FM_LAYER_NORM | FM_FUSED_QKV | FM_BIAS_QKV | FM_BIAS_O | FM_BIAS_FFN | FM_BIAS_OUTPUT | FM_OUTPUT |
              FM_NO_FFN_NORM | FM_NO_GATE},
    {.name = "phi2, split",
     .architecture = "phi2",
     ODD(6),
     .parts = FM_LAYER_NORM | FM_BIAS_QKV | FM_BIAS_O | FM_BIAS_FFN | FM_BIAS_OUTPUT | FM_OUTPUT | FM_NO_FFN_NORM |
              FM_NO_GATE},
    {.name = "phi3, long factors",
     .architecture = "phi3",
     EVEN(16, 12),
     .n_ctx = 128,
     .parts = FM_FUSED_QKV | FM_FUSED_FFN | FM_ROPE_SHORT | FM_ROPE_LONG,
     .keys = {{"rope.scaling.original_context_length", U32, 127, NULL},
              {"rope.scaling.type", STR, 0, "longrope"},
              {"rope.scaling.attn_factor", F32, 1.2, NULL},
              {"attention.sliding_window", U32, 7, NULL}}},
    {.name = "phi3, short factors, split",
     .architecture = "phi3",
     ODD(20),
     .n_ctx = 127,
     .parts = FM_FUSED_FFN | FM_ROPE_SHORT | FM_ROPE_LONG | FM_OUTPUT,
     .keys = {{"rope.scaling.original_context_length", U32, 127, NULL}}},
    {.name = "phi3, only short factors",
     .architecture = "phi3",
     EVEN(16, 16),
     .n_ctx = 128,
     .parts = FM_FUSED_QKV | FM_FUSED_FFN | FM_ROPE_SHORT,
     .keys = {{"rope.scaling.original_context_length", U32, 64, NULL}}},
    {.name = "gemma", .architecture = "gemma", EVEN(32, 32)},
    {.name = "gemma2",
     .architecture = "gemma2",
     DEEP(4),
     .parts = FM_POST_NORM,
     .keys = {{"attention.sliding_window", U32, 9, NULL},
              {"attn_logit_softcapping", F32, 4, NULL},
              {"final_logit_softcapping", F32, 3, NULL}}},
    {.name = "gemma2, defaults",
     .architecture = "gemma2",
     DEEP(4),
     .parts = FM_POST_NORM | FM_OUTPUT,
     .keys = {{"attn_logit_softcapping", F32, 0, NULL}}},
    {.name = "gemma2, 46 layers",
     .architecture = "gemma2",
     .n_layers = 46,
     .n_embd = 32,
     .n_heads = 2,
     .n_kv_heads = 1,
     .head_dim = 8,
     .n_rot = 8,
     .n_ff = 16,
     .parts = FM_POST_NORM,
     .keys = {{"attention.sliding_window", U32, 12, NULL}}},
    {.name = "gemma3",
     .architecture = "gemma3",
     DEEP(7),
     .parts = FM_POST_NORM | FM_QK_NORM,
     .keys = {{"attention.sliding_window", U32, 10, NULL},
              {"rope.freq_base", F32, 1e6, NULL},
              {"rope.scaling.factor", F32, 8, NULL}}},
    {.name = "gemma3, own pattern, base",
     .architecture = "gemma3",
     DEEP(4),
     .parts = FM_POST_NORM | FM_QK_NORM,
     .keys = {{"attention.sliding_window", U32, 100, NULL},
              {"attention.sliding_window_pattern", U32, 2, NULL},
              {"rope.freq_base_swa", F32, 5000, NULL},
              {"rope.freq_base", F32, 1e6, NULL}}},
    {.name = "gemma3, window 1",
     .architecture = "gemma3",
     DEEP(2),
     .parts = FM_POST_NORM | FM_QK_NORM,
     .keys = {{"attention.sliding_window", U32, 1, NULL}}},
    {.name = "qwen2", .architecture = "qwen2", EVEN(16, 16), .parts = FM_BIAS_QKV},
    {.name = "qwen2, output with bias",
     .architecture = "qwen2",
     ODD(20),
     .parts = FM_BIAS_QKV | FM_OUTPUT | FM_BIAS_OUTPUT},
    {.name = "qwen3", .architecture = "qwen3", EVEN(32, 32), .parts = FM_QK_NORM | FM_OUTPUT},
    {.name = "stablelm", .architecture = "stablelm", EVEN(16, 4), .parts = FM_LAYER_NORM | FM_OUTPUT},
    {.name = "stablelm 1.6B",
     .architecture = "stablelm",
     ODD(8),
     .parts = FM_LAYER_NORM | FM_OUTPUT | FM_BIAS_QKV,
     .keys = {{"use_parallel_residual", BOOL, 0, NULL}}},
    {.name = "stablelm 12B",
     .architecture = "stablelm",
     ODD(4),
     .parts = FM_LAYER_NORM | FM_OUTPUT | FM_NO_FFN_NORM | FM_QK_NORM_HEADS,
     .keys = {{"use_parallel_residual", BOOL, 1, NULL}}},
    {.name = "starcoder2",
     .architecture = "starcoder2",
     EVEN(16, 16),
     .parts = FM_LAYER_NORM | FM_BIAS_QKV | FM_BIAS_O | FM_BIAS_FFN | FM_NO_GATE,
     .keys = {{"attention.sliding_window", U32, 5, NULL}}},
    {.name = "smollm3", .architecture = "smollm3", DEEP(5), .keys = {{"rope.freq_base", F32, 5e6, NULL}}},
    {.name = "granite",
     .architecture = "granite",
     EVEN(16, 16),
     .keys = {{"embedding_scale", F32, 12, NULL},
              {"residual_scale", F32, 0.22, NULL},
              {"attention.scale", F32, 0.09, NULL},
              {"logit_scale", F32, 8, NULL}}},
    {.name = "granite without rotation",
     .architecture = "granite",
     ODD(20),
     .parts = FM_BIAS_QKV | FM_BIAS_O | FM_BIAS_FFN | FM_OUTPUT,
     .keys = {{"logit_scale", F32, 0.5, NULL}, {"rope.scaling.finetuned", BOOL, 0, NULL}}},
    {.name = "olmo",
     .architecture = "olmo",
     EVEN(16, 16),
     .parts = FM_NO_NORM_TENSORS,
     .keys = {{"attention.clamp_kqv", F32, 0.75, NULL}}},
    {.name = "olmo2",
     .architecture = "olmo2",
     EVEN(16, 16),
     .parts = FM_NO_PRE_NORM | FM_POST_NORM | FM_QK_NORM_ALL | FM_OUTPUT},
    {.name = "olmo3",
     .architecture = "olmo2",
     DEEP(5),
     .parts = FM_NO_PRE_NORM | FM_POST_NORM | FM_QK_NORM_ALL | FM_OUTPUT,
     .keys = {{"attention.sliding_window", U32, 8, NULL},
              {"attention.sliding_window_pattern", BITS, 13, NULL},
              {"rope.scaling.type", STR, 0, "yarn"},
              {"rope.scaling.factor", F32, 8, NULL},
              {"rope.scaling.original_context_length", U32, 16, NULL}}},
    {.name = "chatglm",
     .architecture = "chatglm",
     EVEN(16, 8),
     .parts = FM_FUSED_QKV | FM_FUSED_FFN | FM_BIAS_QKV | FM_OUTPUT},
    {.name = "glm4", .architecture = "glm4", EVEN(16, 8), .parts = FM_FUSED_FFN | FM_BIAS_QKV | FM_POST_NORM},
    {.name = "glm4, fused",
     .architecture = "glm4",
     ODD(10),
     .parts = FM_FUSED_QKV | FM_FUSED_FFN | FM_POST_NORM | FM_OUTPUT},
    {.name = NULL},
};

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* About -1..1, heavier in the middle, the same everywhere: PCG32 (O'Neill 2014). */
static float family_random(uint64_t *state) {
    float sum = 0;
    for (int i = 0; i < 2; i++) {
        uint64_t old = *state;
        *state = old * 6364136223846793005u + 1442695040888963407u;
        uint32_t x = (uint32_t)(((old >> 18) ^ old) >> 27), rotate = (uint32_t)(old >> 59);
        x = x >> rotate | x << (-rotate & 31);
        sum += (i ? -1.0f : 1.0f) * (float)(x >> 9) * 0x1p-23f;
    }
    return sum;
}

typedef struct family_writer {
    const family_model *m;
    gw w;
    uint64_t random;
    int n, tensor; /* tensors so far, the damaged one */
    family_damage damage;
    char *damaged; /* its name; empty until it has come */
} family_writer;

/* numbers = centre + spread * random */
static void family_tensor(family_writer *f, const char *name, int cols, int rows, float centre, float spread) {
    uint64_t dims[2] = {(uint64_t)cols, (uint64_t)rows};
    uint32_t n_dims = rows > 1 ? 2 : 1, type = 0;
    size_t n = (size_t)cols * (size_t)rows, bytes = n * sizeof(float);
    float *x = malloc(bytes);
    if (!x) abort();
    const float *data = x;
    for (size_t i = 0; i < n; i++) x[i] = centre + spread * family_random(&f->random);
    if (f->n++ == f->tensor && f->damage != FAMILY_INTACT) {
        int possible = f->damage != FAMILY_QUANTISED || cols % 32 == 0;
        if (f->damage == FAMILY_TRANSPOSE) {
            possible = cols != rows;
            dims[0] = (uint64_t)rows, dims[1] = (uint64_t)cols, n_dims = 2;
        } else if (f->damage == FAMILY_SHORT) {
            possible = dims[n_dims - 1] > 1;
            bytes = bytes / dims[n_dims - 1] * (dims[n_dims - 1] - 1);
            dims[n_dims - 1]--;
        } else if (f->damage == FAMILY_QUANTISED) {
            type = 8, bytes = n / 32 * 34;
            data = NULL; /* zeros */
        }
        if (possible) snprintf(f->damaged, 64, "%s", name);
        if (f->damage == FAMILY_DROP) n_dims = 0;
    }
    if (n_dims) gw_tensor(&f->w, name, type, n_dims, dims, data, bytes);
    free(x);
}

/* About the same numbers as blocks of a scale and 32 codes. */
static void family_integers(family_writer *f, const char *name, int cols, int rows, float spread) {
    const size_t blocks = (size_t)cols / 32 * (size_t)rows;
    uint8_t *data = malloc(34 * blocks);
    if (!data) abort();
    for (size_t i = 0; i < blocks; i++) {
        const uint16_t scale = kern_f32_to_f16(spread / 127);
        memcpy(data + 34 * i, &scale, sizeof scale);
        for (size_t k = 0; k < 32; k++) data[34 * i + 2 + k] = (uint8_t)(int8_t)(127 * family_random(&f->random));
    }
    gw_tensor(&f->w, name, KERN_Q8_0, 2, (uint64_t[]){(uint64_t)cols, (uint64_t)rows}, data, 34 * blocks);
    free(data);
}

static void family_matrix(family_writer *f, const char *name, int cols, int rows, int bias) {
    const float spread = 3 / sqrtf((float)cols);
    char full[80];
    snprintf(full, sizeof full, "%s.weight", name);
    if (f->damage == FAMILY_INTEGERS && cols % 32 == 0)
        family_integers(f, full, cols, rows, spread);
    else
        family_tensor(f, full, cols, rows, 0, spread);
    snprintf(full, sizeof full, "%s.bias", name);
    if (bias) family_tensor(f, full, rows, 1, 0, 0.5f);
}

static void family_norm_tensors(family_writer *f, const char *name, int cols, int rows, int bias) {
    char full[80];
    if (f->m->parts & FM_NO_NORM_TENSORS) return;
    snprintf(full, sizeof full, "%s.weight", name);
    family_tensor(f, full, cols, rows, 1, 0.5f);
    snprintf(full, sizeof full, "%s.bias", name);
    if (bias) family_tensor(f, full, cols, rows, 0, 0.3f);
}

static int family_has_bits(const family_model *m, const char *key, int layer) {
    for (const family_key *k = m->keys; k->name; k++)
        if (!strcmp(k->name, key) && k->type == BITS) return (int)k->number >> layer & 1;
    return 0;
}

static void family_layer(family_writer *f, int layer) {
    const family_model *m = f->m;
    unsigned has = m->parts;
    int d = m->n_embd, q = m->n_heads * m->head_dim, kv = m->n_kv_heads * m->head_dim;
    int ff = m->n_ff + 8 * family_has_bits(m, "feed_forward_length", layer);
    int ln = (has & FM_LAYER_NORM) != 0, bias = (has & FM_BIAS_QKV) != 0, bias_ffn = (has & FM_BIAS_FFN) != 0;
    char name[64];
#define NAME(suffix) (snprintf(name, sizeof name, "blk.%d." suffix, layer), name)
    if (!(has & FM_NO_PRE_NORM)) family_norm_tensors(f, NAME("attn_norm"), d, 1, ln);
    if (!(has & (FM_NO_PRE_NORM | FM_NO_FFN_NORM))) family_norm_tensors(f, NAME("ffn_norm"), d, 1, ln);
    if (has & FM_FUSED_QKV) {
        family_matrix(f, NAME("attn_qkv"), d, q + 2 * kv, bias);
    } else {
        family_matrix(f, NAME("attn_q"), d, q, bias);
        family_matrix(f, NAME("attn_k"), d, kv, bias);
        family_matrix(f, NAME("attn_v"), d, kv, bias);
    }
    if (has & (FM_QK_NORM | FM_QK_NORM_HEADS | FM_QK_NORM_ALL)) {
        int each = (has & FM_QK_NORM_HEADS) != 0, all = (has & FM_QK_NORM_ALL) != 0;
        family_norm_tensors(f, NAME("attn_q_norm"), all ? q : m->head_dim, each ? m->n_heads : 1, 0);
        family_norm_tensors(f, NAME("attn_k_norm"), all ? kv : m->head_dim, each ? m->n_kv_heads : 1, 0);
    }
    family_matrix(f, NAME("attn_output"), q, d, (has & FM_BIAS_O) != 0);
    if (has & FM_POST_NORM) {
        family_norm_tensors(f, NAME("post_attention_norm"), d, 1, ln);
        family_norm_tensors(f, NAME("post_ffw_norm"), d, 1, ln);
    }
    if (!(has & (FM_FUSED_FFN | FM_NO_GATE))) family_matrix(f, NAME("ffn_gate"), d, ff, bias_ffn);
    family_matrix(f, NAME("ffn_up"), d, has & FM_FUSED_FFN ? 2 * ff : ff, bias_ffn);
    family_matrix(f, NAME("ffn_down"), ff, d, bias_ffn);
#undef NAME
}

/* ---- metadata ---------------------------------------------------------------------------------------------------- */

static int family_gives(const family_model *m, const char *key) {
    for (const family_key *k = m->keys; k->name; k++)
        if (!strcmp(k->name, key)) return 1;
    return 0;
}

static void family_u32(family_writer *f, const char *key, int value) {
    char name[128];
    snprintf(name, sizeof name, "%s.%s", f->m->architecture, key);
    if (!family_gives(f->m, key)) gw_u32(&f->w, name, (uint32_t)value);
}

static void family_metadata(family_writer *f) {
    const family_model *m = f->m;
    char name[128];
    int plain = (m->parts & (FM_LAYER_NORM | FM_NO_NORM_TENSORS)) != 0;
    gw_str(&f->w, "general.architecture", m->architecture);
    family_u32(f, "block_count", m->n_layers);
    family_u32(f, "context_length", 1024);
    family_u32(f, "embedding_length", m->n_embd);
    family_u32(f, "feed_forward_length", m->n_ff);
    family_u32(f, "attention.head_count", m->n_heads);
    family_u32(f, "attention.head_count_kv", m->n_kv_heads);
    if (m->head_dim * m->n_heads != m->n_embd) family_u32(f, "attention.key_length", m->head_dim);
    if (m->n_rot != m->head_dim) family_u32(f, "rope.dimension_count", m->n_rot);
    snprintf(name, sizeof name, "%s.attention.layer_norm_%sepsilon", m->architecture, plain ? "" : "rms_");
    gw_f32(&f->w, name, 1e-3f);
    for (const family_key *k = m->keys; k->name; k++) {
        snprintf(name, sizeof name, "%s.%s", m->architecture, k->name);
        switch (k->type) {
        case U32: gw_u32(&f->w, name, (uint32_t)k->number); break;
        case F32: gw_f32(&f->w, name, (float)k->number); break;
        case BOOL: gw_bool(&f->w, name, k->number != 0); break;
        case STR: gw_str(&f->w, name, k->text); break;
        default:
            gw_array(&f->w, name, U32, (uint64_t)m->n_layers);
            for (int i = 0; i < m->n_layers; i++) {
                int bit = (int)k->number >> i & 1, kv = !strcmp(k->name, "attention.head_count_kv");
                int value = !strcmp(k->name, "feed_forward_length") ? m->n_ff + 8 * bit : kv ? m->n_kv_heads : bit;
                gw_put_number(&f->w.keys, (uint64_t)value, 4);
            }
        }
    }
}

/* The tokenizer's entries of the built-in model. */
static void family_vocabulary(family_writer *f) {
    gguf_file *from;
    minim_error e;
    minim_allocator a = mem_allocator(NULL);
    if (gguf_open(&a, "models/stories260K.gguf", NULL, 0, &from, &e)) {
        fprintf(stderr, "%s\n", e.text);
        abort();
    }
    for (size_t i = 0; i < gguf_value_count(from); i++) {
        const gguf_value *v = gguf_value_at(from, i);
        if (strncmp(v->key.s, "tokenizer.", 10) != 0) continue;
        gw_key(&f->w, v->key.s, v->type);
        if (v->type == GGUF_ARR) {
            gw_put_number(&f->w.keys, v->elem_type, 4);
            gw_put_number(&f->w.keys, v->count, 8);
        }
        const gguf_str *s = v->data;
        for (uint64_t k = 0; k < v->count && v->elem_type == GGUF_STR; k++) gw_put_string(&f->w.keys, s[k].s, s[k].n);
        if (v->elem_type != GGUF_STR) gw_put(&f->w.keys, v->data, gguf_type_bytes(v->elem_type) * v->count);
    }
    gguf_close(from);
}

void *family_model_image(const family_model *m, int tensor, family_damage damage, char damaged[64], size_t *size) {
    char name[64] = "";
    family_writer f = {
        .m = m, .random = 20261121, .tensor = tensor, .damage = damage, .damaged = damaged ? damaged : name};
    unsigned has = m->parts;
    f.damaged[0] = 0;
    gw_init(&f.w);
    family_metadata(&f);
    family_vocabulary(&f);
    family_tensor(&f, "token_embd.weight", m->n_embd, FAMILY_MODEL_VOCAB, 0, 1);
    for (int i = 0; i < m->n_layers; i++) family_layer(&f, i);
    family_norm_tensors(&f, "output_norm", m->n_embd, 1, (has & FM_LAYER_NORM) != 0);
    if (has & FM_OUTPUT) {
        family_tensor(&f, "output.weight", m->n_embd, FAMILY_MODEL_VOCAB, 0, 4 / sqrtf((float)m->n_embd));
    }
    if (has & FM_BIAS_OUTPUT) family_tensor(&f, "output.bias", FAMILY_MODEL_VOCAB, 1, 0, 1);
    if (has & FM_ROPE_FREQS) family_tensor(&f, "rope_freqs.weight", m->n_rot / 2, 1, 3, 2);
    if (has & FM_ROPE_SHORT) family_tensor(&f, "rope_factors_short.weight", m->n_rot / 2, 1, 1.5f, 0.5f);
    if (has & FM_ROPE_LONG) family_tensor(&f, "rope_factors_long.weight", m->n_rot / 2, 1, 4, 3);
    const int intact = damage == FAMILY_INTACT || damage == FAMILY_INTEGERS;
    void *image = intact || f.damaged[0] ? gw_finish(&f.w, size) : NULL;
    gw_free(&f.w);
    return image;
}

minim_model *family_model_load(const char *family, const synth_shape *plain, minim_error *error) {
    minim_model *m = NULL;
    minim_model_options o;
    size_t size = 0;
    const family_model *f = family_models;
    while (family && strcmp(f->name, family) != 0) f++;
    void *image = family ? family_model_image(f, -1, FAMILY_INTACT, NULL, &size) : synth_model(plain, &size);
    minim_model_options_default(&o);
    o.n_threads = 1;
    minim_model_load_memory(image, size, "small", &o, &m, error);
    free(image);
    return m;
}
