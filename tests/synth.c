#include "synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/gguf.h"
#include "../kernels/quants/quants.h"

enum { SYNTH_VOCAB = 512 /* tokens of models/stories260K.gguf */ };

typedef struct synth_buffer {
    char *p;
    size_t n, capacity;
} synth_buffer;

static void synth_put(synth_buffer *b, const void *data, size_t n) {
    if (b->n + n > b->capacity) {
        b->capacity = (b->n + n) * 2;
        b->p = realloc(b->p, b->capacity);
        if (!b->p) abort();
    }
    memcpy(b->p + b->n, data, n);
    b->n += n;
}

static void synth_u32(synth_buffer *b, uint32_t v) {
    synth_put(b, &v, 4);
}
static void synth_u64(synth_buffer *b, uint64_t v) {
    synth_put(b, &v, 8);
}

static void synth_str(synth_buffer *b, const char *s, size_t n) {
    synth_u64(b, n);
    synth_put(b, s, n);
}

static void synth_key(synth_buffer *b, const char *key, uint32_t type) {
    synth_str(b, key, strlen(key));
    synth_u32(b, type);
}

/* One metadata entry of another file, as it stands there; lists of the tokens with `pad` more. */
static void synth_copy(synth_buffer *b, const gguf_value *v, int pad) {
    static const size_t size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    static const char type_key[] = "tokenizer.ggml.token_type";
    const int32_t more = strncmp(v->key.s, type_key, strlen(type_key)) ? 0 : 5; /* unused */
    if (v->type != GGUF_ARR || v->count != SYNTH_VOCAB) pad = 0;
    synth_key(b, v->key.s, v->type);
    if (v->type == GGUF_ARR) synth_u32(b, v->elem_type), synth_u64(b, v->count + (uint64_t)pad);
    if (v->elem_type != GGUF_STR) {
        synth_put(b, v->data, size[v->elem_type] * v->count);
        for (int i = 0; i < pad; i++) synth_put(b, &more, 4);
        return;
    }
    const gguf_str *s = v->data;
    for (uint64_t i = 0; i < v->count; i++) synth_str(b, s[i].s, s[i].n);
    for (int i = 0; i < pad; i++) {
        char text[32];
        synth_str(b, text, (size_t)snprintf(text, sizeof text, "[PAD%d]", SYNTH_VOCAB + i));
    }
}

/* PCG32 (O'Neill 2014), so that the weights are the same everywhere. */
static uint32_t synth_next(uint64_t *state) {
    uint64_t old = *state;
    *state = old * 6364136223846793005u + 1442695040888963407u;
    uint32_t x = (uint32_t)(((old >> 18) ^ old) >> 27), rotate = (uint32_t)(old >> 59);
    return x >> rotate | x << (-rotate & 31);
}

static uint64_t synth_state; /* of the model that is being made */

static uint32_t synth_random(void) {
    return synth_next(&synth_state);
}

/* About -1..1, heavier in the middle; exact arithmetic. */
static float synth_number(void) {
    return ((float)(synth_random() >> 9) - (float)(synth_random() >> 9)) * 0x1p-23f;
}

/* The root of the mean square of a block. */
static float synth_size_of(uint32_t type, const uint8_t *block) {
    const int n = kern_type_get(type).block;
    float values[QUANT_MAX_BLOCK], sum = 0;
    kern_dequantize(type, block, n, values);
    for (int i = 0; i < n; i++) sum += values[i] * values[i];
    return sqrtf(sum / (float)n);
}

/* A block of any integer type: random bytes, and scales that make numbers of about `spread` of them. */
static void synth_block(synth_buffer *b, uint32_t type, float spread) {
    const kern_type_info info = kern_type_get(type);
    const kern_format *f = kern_format_of(type);
    const float level = (float)((1 << (f->low.bits + f->high.bits)) - 1) / 2; /* what a minimum must make up for */
    const float minimum = type == KERN_Q4_1 || type == KERN_Q5_1 ? -level : level;
    uint8_t block[QUANT_MAX_BYTES] = {0};
    for (int i = 0; i < info.block_bytes; i++) block[i] = (uint8_t)(synth_random() >> 24);
    if (type == KERN_MXFP4) block[0] = (uint8_t)(122 + block[0] % 4);
    for (int i = 0; i < 4 && type == KERN_NVFP4; i++) block[i] = (uint8_t)(24 + block[i] % 8);
    for (int pass = 0; pass < 2 && f->n_f16 + (type == KERN_IQ1_M) > 0;
         pass++) { /* as if the scale were 1, then right */
        const float scale = pass ? spread * (1 + 0.5f * synth_number()) / synth_size_of(type, block) : 1;
        const uint16_t both[2] = {kern_f32_to_f16(scale), kern_f32_to_f16(scale * minimum)};
        for (int i = 0; i < f->n_f16; i++) memcpy(block + f->f16_at + 2 * i, &both[i], 2);
        for (int i = 0; i < 4 && type == KERN_IQ1_M; i++)
            block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (both[0] >> 4 * i & 15) << 4);
    }
    synth_put(b, block, (size_t)info.block_bytes);
}

/* A row of one type: numbers of about `spread` in the type's own blocks. */
static void synth_row(synth_buffer *b, uint32_t type, int cols, float spread) {
    for (int i = 0; i < cols;) {
        if (type == KERN_F32) {
            float x = synth_number() * spread;
            synth_put(b, &x, 4), i++;
        } else if (type == KERN_F16 || type == KERN_BF16) {
            float x = synth_number() * spread;
            uint32_t bits;
            memcpy(&bits, &x, 4);
            uint16_t half = type == KERN_F16 ? kern_f32_to_f16(x) : (uint16_t)(bits >> 16);
            synth_put(b, &half, 2), i++;
        } else if (type != KERN_Q4_0 && type != KERN_Q8_0) {
            synth_block(b, type, spread);
            i += kern_type_get(type).block;
        } else {
            int codes = type == KERN_Q4_0 ? 16 : 32;
            uint16_t scale =
                kern_f32_to_f16(spread * (1 + 0.5f * synth_number()) / (type == KERN_Q4_0 ? 8.0f : 128.0f));
            synth_put(b, &scale, 2);
            for (int k = 0; k < codes; k++) {
                uint8_t code = (uint8_t)(synth_random() >> 24);
                synth_put(b, &code, 1);
            }
            i += 32;
        }
    }
}

typedef struct synth_tensor {
    char name[64];
    uint32_t type;
    int cols, rows;
    float spread;
} synth_tensor;

enum { SYNTH_MAX = 1024 };

static int synth_add(synth_tensor *t, int n, const char *name, uint32_t type, int cols, int rows, float spread) {
    snprintf(t[n].name, sizeof t[n].name, "%s", name);
    t[n].type = type, t[n].cols = cols, t[n].rows = rows, t[n].spread = spread;
    return n + 1;
}

static int synth_list(const synth_shape *s, synth_tensor *t) {
    int q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim, vocab = SYNTH_VOCAB + s->pad, n = 0;
    n = synth_add(t, n, "token_embd.weight", s->type, s->n_embd, vocab, 1);
    n = synth_add(t, n, "output_norm.weight", KERN_F32, s->n_embd, 1, 0);
    if (!s->tied) n = synth_add(t, n, "output.weight", s->type, s->n_embd, vocab, 4 / sqrtf((float)s->n_embd));
    const struct {
        const char *name;
        int cols, rows;
    } part[] = {{"attn_q", s->n_embd, q},        {"attn_k", s->n_embd, kv},        {"attn_v", s->n_embd, kv},
                {"attn_output", q, s->n_embd},   {"ffn_gate", s->n_embd, s->n_ff}, {"ffn_up", s->n_embd, s->n_ff},
                {"ffn_down", s->n_ff, s->n_embd}};
    for (int layer = 0; layer < s->n_layers; layer++) {
        char name[64];
        for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", layer, part[i].name);
            n = synth_add(t, n, name, s->type, part[i].cols, part[i].rows, 3 / sqrtf((float)part[i].cols));
            snprintf(name, sizeof name, "blk.%d.%s.bias", layer, part[i].name);
            if (s->biases) n = synth_add(t, n, name, KERN_F32, part[i].rows, 1, 0.5f);
        }
        snprintf(name, sizeof name, "blk.%d.attn_norm.weight", layer);
        n = synth_add(t, n, name, KERN_F32, s->n_embd, 1, 0);
        snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", layer);
        n = synth_add(t, n, name, KERN_F32, s->n_embd, 1, 0);
    }
    return n;
}

static uint64_t synth_bytes(const synth_tensor *t) {
    kern_type_info info = kern_type_get(t->type);
    return (uint64_t)(t->cols / info.block) * (uint64_t)info.block_bytes * (uint64_t)t->rows;
}

static void synth_metadata(synth_buffer *b, const synth_shape *s) {
    const struct {
        const char *key;
        int value;
    } number[] = {{"llama.block_count", s->n_layers},          {"llama.embedding_length", s->n_embd},
                  {"llama.feed_forward_length", s->n_ff},      {"llama.context_length", s->n_ctx},
                  {"llama.attention.head_count", s->n_heads},  {"llama.attention.head_count_kv", s->n_kv_heads},
                  {"llama.attention.key_length", s->head_dim}, {"llama.attention.value_length", s->head_dim},
                  {"llama.rope.dimension_count", s->head_dim}};
    synth_key(b, "general.architecture", GGUF_STR);
    synth_str(b, "llama", 5);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) {
        synth_key(b, number[i].key, GGUF_U32);
        synth_u32(b, (uint32_t)number[i].value);
    }
    float eps = 1e-5f;
    synth_key(b, "llama.attention.layer_norm_rms_epsilon", GGUF_F32);
    synth_put(b, &eps, 4);
}

void *synth_model(const synth_shape *s, size_t *size) {
    gguf_file *vocabulary;
    minim_error e;
    minim_allocator a = mem_allocator(NULL);
    if (gguf_open(&a, "models/stories260K.gguf", NULL, 0, &vocabulary, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return NULL;
    }
    synth_tensor *t = calloc(SYNTH_MAX, sizeof *t);
    if (!t) abort();
    int n = synth_list(s, t);
    size_t n_copied = 0;
    for (size_t i = 0; i < gguf_value_count(vocabulary); i++) {
        n_copied += !strncmp(gguf_value_at(vocabulary, i)->key.s, "tokenizer.", 10);
    }
    synth_buffer b = {0};
    synth_put(&b, "GGUF", 4);
    synth_u32(&b, 3);
    synth_u64(&b, (uint64_t)n);
    synth_u64(&b, 11 + n_copied);
    synth_metadata(&b, s);
    for (size_t i = 0; i < gguf_value_count(vocabulary); i++) {
        const gguf_value *v = gguf_value_at(vocabulary, i);
        if (!strncmp(v->key.s, "tokenizer.", 10)) synth_copy(&b, v, s->pad);
    }
    gguf_close(vocabulary);
    uint64_t offset = 0;
    for (int i = 0; i < n; i++) {
        int is_vector = t[i].rows == 1 && !s->full;
        synth_str(&b, t[i].name, strlen(t[i].name));
        synth_u32(&b, is_vector ? 1 : 2);
        synth_u64(&b, (uint64_t)t[i].cols);
        if (!is_vector) synth_u64(&b, (uint64_t)t[i].rows);
        synth_u32(&b, t[i].type);
        synth_u64(&b, offset);
        offset += (synth_bytes(&t[i]) + 31) / 32 * 32;
    }
    synth_state = 20261121;
    for (int i = 0; i < n; i++) {
        while (b.n % 32) synth_put(&b, "", 1);
        for (int row = 0; row < t[i].rows; row++) {
            if (t[i].spread > 0) {
                synth_row(&b, t[i].type, t[i].cols, t[i].spread);
            } else { /* a norm: around 1 */
                for (int k = 0; k < t[i].cols; k++) {
                    float x = 1 + 0.25f * synth_number();
                    synth_put(&b, &x, 4);
                }
            }
        }
    }
    while (b.n % 32) synth_put(&b, "", 1);
    free(t);
    *size = b.n;
    return b.p;
}

void synth_tokens(int32_t *tokens, size_t n) {
    uint64_t state = 7;
    for (size_t i = 0; i < n; i++) tokens[i] = i ? (int32_t)(synth_next(&state) % 512) : 1;
}
