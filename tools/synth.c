/* synth.c: see synth.h. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 * The weights are sane: after each norm the activations stay near 1 and the logits are finite, because a matrix of
 * `cols` columns gets a standard deviation of 1/sqrt(cols). The codes of quantised blocks are uniform random bits under
 * scales of about the same size and of both signs. */
#include "synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common.h"
#include "gguf_write.h"

/* ---- random weights ---------------------------------------------------------------------------------------------- */

/* SplitMix64 (Steele, Lea & Flood 2014): passes statistical tests and is one multiplication deep per step. */
static inline uint64_t synth_random(uint64_t *state) {
    uint64_t x = *state += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* Two uniform numbers between -1 and 1 from one random word; their standard deviation is 1/sqrt(3). */
static inline void synth_two(uint64_t *state, float two[2]) {
    uint64_t x = synth_random(state);
    two[0] = (float)(int32_t)(uint32_t)x * 0x1p-31f;
    two[1] = (float)(int32_t)(uint32_t)(x >> 32) * 0x1p-31f;
}

static inline uint32_t synth_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* float32 of a magnitude below 65504 to f16, to the nearest. */
static inline uint16_t synth_f16(float x) {
    uint32_t bits = synth_bits(x), magnitude = bits & 0x7fffffff;
    uint32_t half = (magnitude - (112u << 23) + 0x1000) >> 13;
    if (magnitude < 113u << 23) half = (uint32_t)(fabsf(x) * 0x1p24f + 0.5f); /* subnormal: multiples of 2^-24 */
    return (uint16_t)((bits >> 16 & 0x8000) | half);
}

static const float synth_sqrt3 = 1.7320508f;

static void synth_fill_f32(uint64_t *random, float deviation, uint8_t *out, size_t n) {
    float a = deviation * synth_sqrt3, two[2];
    for (size_t i = 0; i < n; i++) {
        if (i % 2 == 0) synth_two(random, two);
        gguf_write_32(out + 4 * i, synth_bits(two[i % 2] * a));
    }
}

static void synth_fill_f16(uint64_t *random, float deviation, uint8_t *out, size_t n) {
    float a = deviation * synth_sqrt3, two[2];
    for (size_t i = 0; i < n; i++) {
        if (i % 2 == 0) synth_two(random, two);
        gguf_write_16(out + 2 * i, synth_f16(two[i % 2] * a));
    }
}

/* bfloat16 is the upper half of a float32. */
static void synth_fill_bf16(uint64_t *random, float deviation, uint8_t *out, size_t n) {
    float a = deviation * synth_sqrt3, two[2];
    for (size_t i = 0; i < n; i++) {
        if (i % 2 == 0) synth_two(random, two);
        gguf_write_16(out + 2 * i, (uint16_t)(synth_bits(two[i % 2] * a) >> 16));
    }
}

/* A scale within a quarter of `scale`. Either sign: the codes of Q4_0 reach from -8 to 7, so their mean is not 0, and
 * blocks of one sign would give all outputs of a matrix the same large offset. */
static inline uint16_t synth_scale(uint64_t *random, float scale) {
    float two[2];
    synth_two(random, two);
    return synth_f16((two[1] < 0 ? -scale : scale) * (1 + 0.25f * two[0]));
}

static void synth_fill_q8_0(uint64_t *random, float deviation, uint8_t *out, size_t n_blocks) {
    float scale = deviation / 73.3f; /* the deviation of uniform codes from -127 to 127 */
    for (size_t b = 0; b < n_blocks; b++, out += 34) {
        gguf_write_16(out, synth_scale(random, scale));
        for (int i = 0; i < 4; i++) gguf_write_64(out + 2 + 8 * i, synth_random(random));
        /* -128 is a code that no quantiser writes. */
        for (int i = 2; i < 34; i++) out[i] = (uint8_t)(out[i] + (out[i] == 0x80));
    }
}

static void synth_fill_q4_0(uint64_t *random, float deviation, uint8_t *out, size_t n_blocks) {
    float scale = deviation / 4.64f; /* the root mean square of uniform codes from -8 to 7 */
    for (size_t b = 0; b < n_blocks; b++, out += 18) {
        gguf_write_16(out, synth_scale(random, scale));
        gguf_write_64(out + 2, synth_random(random));
        gguf_write_64(out + 10, synth_random(random));
    }
}

/* Blocks of random bytes, with an f16 scale at `at` that gives them the deviation wanted: `unit` is what they have when
 * the scale is 1. Behind it, with `minimum`, the f16 factor of the minima, which is that many scales. */
static void synth_fill_blocks(uint64_t *random, float scale, float minimum, int at, int bytes, uint8_t *out,
                              size_t n_blocks) {
    for (size_t b = 0; b < n_blocks; b++, out += bytes) {
        uint64_t bits = 0;
        for (int i = 0; i < bytes; i++, bits >>= 8) {
            if (i % 8 == 0) bits = synth_random(random);
            out[i] = (uint8_t)bits;
        }
        float two[2];
        synth_two(random, two);
        const float d = (two[1] < 0 ? -scale : scale) * (1 + 0.25f * two[0]);
        gguf_write_16(out + at, synth_f16(d));
        if (minimum != 0) gguf_write_16(out + at + 2, synth_f16(d * minimum));
    }
}

/* UNIT: the root mean square of a code times its small scale, less the minimum, all of them uniform. */
#define SYNTH_BLOCKS(NAME, UNIT, MINIMUM, AT, BYTES)                                                                   \
    static void synth_fill_##NAME(uint64_t *random, float deviation, uint8_t *out, size_t n_blocks) {                  \
        synth_fill_blocks(random, deviation / (UNIT), MINIMUM, AT, BYTES, out, n_blocks);                              \
    }
SYNTH_BLOCKS(q4_1, 4.61f, -7.5f, 0, 20)
SYNTH_BLOCKS(q5_0, 9.25f, 0, 0, 22)
SYNTH_BLOCKS(q5_1, 9.23f, -15.5f, 0, 24)
SYNTH_BLOCKS(q2_k, 13.9f, 1.5f, 80, 84)
SYNTH_BLOCKS(q3_k, 43.4f, 0, 108, 110)
SYNTH_BLOCKS(q4_k, 258.0f, 7.5f, 0, 144)
SYNTH_BLOCKS(q5_k, 527.0f, 15.5f, 0, 176)
SYNTH_BLOCKS(q6_k, 1367.0f, 0, 208, 210)
SYNTH_BLOCKS(iq4_nl, 67.4f, 0, 0, 18)
SYNTH_BLOCKS(iq4_xs, 1247.0f, 0, 0, 136)

/* Norm weights: around 1. */
static void synth_fill_norm(uint64_t *random, float deviation, uint8_t *out, size_t n) {
    float two[2];
    (void)deviation;
    for (size_t i = 0; i < n; i++) {
        if (i % 2 == 0) synth_two(random, two);
        gguf_write_32(out + 4 * i, synth_bits(1 + 0.125f * two[i % 2]));
    }
}

static const synth_type synth_types[] = {
    {"f32", 0, 0, 1, 4, synth_fill_f32},
    {"f16", 1, 1, 1, 2, synth_fill_f16},
    {"bf16", 30, 32, 1, 2, synth_fill_bf16},
    {"q8_0", 8, 7, 32, 34, synth_fill_q8_0},
    {"q6_k", 14, 18, 256, 210, synth_fill_q6_k},
    {"q5_1", 7, 9, 32, 24, synth_fill_q5_1},
    {"q5_k", 13, 17, 256, 176, synth_fill_q5_k},
    {"q5_0", 6, 8, 32, 22, synth_fill_q5_0},
    {"q4_1", 3, 3, 32, 20, synth_fill_q4_1},
    {"q4_k", 12, 15, 256, 144, synth_fill_q4_k},
    {"q4_0", 2, 2, 32, 18, synth_fill_q4_0},
    {"iq4_nl", 20, 25, 32, 18, synth_fill_iq4_nl},
    {"iq4_xs", 23, 30, 256, 136, synth_fill_iq4_xs},
    {"q3_k", 11, 12, 256, 110, synth_fill_q3_k},
    {"q2_k", 10, 10, 256, 84, synth_fill_q2_k},
};

static const synth_type synth_norm = {"f32", 0, 0, 1, 4, synth_fill_norm};

const synth_type *synth_type_find(const char *name) {
    for (size_t i = 0; i < sizeof synth_types / sizeof *synth_types; i++) {
        if (!strcmp(synth_types[i].name, name)) return &synth_types[i];
    }
    return NULL;
}

/* ---- the tensors ------------------------------------------------------------------------------------------------- */

enum { SYNTH_LAYER_TENSORS = TOOL_LAYER_MATRICES + 2 };

typedef struct synth_tensor {
    char name[48];
    const synth_type *type;
    uint64_t cols, rows; /* rows = 0: a vector of cols */
    float deviation;
} synth_tensor;

static int synth_tensor_count(const synth_plan *plan) {
    return 2 + !plan->shape->tied + plan->shape->n_layers * SYNTH_LAYER_TENSORS;
}

static synth_tensor synth_vector(const char *name, int n) {
    synth_tensor tensor = {.type = &synth_norm, .cols = (uint64_t)n};
    snprintf(tensor.name, sizeof tensor.name, "%s", name);
    return tensor;
}

static synth_tensor synth_matrix(const char *name, const synth_type *type, int rows, int cols) {
    synth_tensor tensor = {.type = type, .cols = (uint64_t)cols, .rows = (uint64_t)rows};
    tensor.deviation = 1 / sqrtf((float)cols);
    snprintf(tensor.name, sizeof tensor.name, "%s", name);
    return tensor;
}

static synth_tensor synth_layer_tensor(const synth_plan *plan, int layer, int index) {
    char name[48];
    if (index >= TOOL_LAYER_MATRICES) {
        snprintf(name, sizeof name, "blk.%d.%s_norm.weight", layer, index == TOOL_LAYER_MATRICES ? "attn" : "ffn");
        return synth_vector(name, plan->shape->n_embd);
    }
    tool_matrix all[TOOL_LAYER_MATRICES];
    tool_shape_matrices(plan->shape, all);
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, all[index].name);
    return synth_matrix(name, plan->type, all[index].rows, all[index].cols);
}

/* In the order of the file. */
static synth_tensor synth_tensor_at(const synth_plan *plan, int index) {
    const tool_shape *shape = plan->shape;
    int n_layers = shape->n_layers * SYNTH_LAYER_TENSORS;
    if (index == 0) return synth_matrix("token_embd.weight", plan->output_type, shape->n_vocab, shape->n_embd);
    if (--index < n_layers) return synth_layer_tensor(plan, index / SYNTH_LAYER_TENSORS, index % SYNTH_LAYER_TENSORS);
    if (index == n_layers) return synth_vector("output_norm.weight", shape->n_embd);
    return synth_matrix("output.weight", plan->output_type, shape->n_vocab, shape->n_embd);
}

static uint64_t synth_tensor_blocks(const synth_tensor *tensor) {
    return tensor->cols / (uint64_t)tensor->type->block * (tensor->rows ? tensor->rows : 1);
}

static uint64_t synth_tensor_bytes(const synth_tensor *tensor) {
    return synth_tensor_blocks(tensor) * (uint64_t)tensor->type->block_bytes;
}

uint64_t synth_data_bytes(const synth_plan *plan) {
    uint64_t bytes = 0;
    for (int i = 0; i < synth_tensor_count(plan); i++) {
        synth_tensor tensor = synth_tensor_at(plan, i);
        bytes += gguf_write_aligned(synth_tensor_bytes(&tensor));
    }
    return bytes;
}

/* ---- the header -------------------------------------------------------------------------------------------------- */

static void synth_put_model_keys(gguf_head *h, const synth_plan *plan) {
    const tool_shape *s = plan->shape;
    gguf_head_string(h, "general.architecture", "llama", 5);
    /* No shape in the name: llama.cpp looks for a Phi-3 model's tokens when the name says that it is one. */
    gguf_head_string(h, "general.name", "synthetic", 9);
    gguf_head_string(h, "general.description", "random weights for benchmarks, written by minim synth", 53);
    gguf_head_u32(h, "general.file_type", plan->type->file_id);
    if (plan->type->block > 1 || plan->output_type->block > 1) gguf_head_u32(h, "general.quantization_version", 2);
    const struct {
        const char *key;
        int value;
    } number[] = {
        {"llama.block_count", s->n_layers},          {"llama.context_length", s->n_ctx},
        {"llama.embedding_length", s->n_embd},       {"llama.feed_forward_length", s->n_ff},
        {"llama.attention.head_count", s->n_heads},  {"llama.attention.head_count_kv", s->n_kv_heads},
        {"llama.attention.key_length", s->head_dim}, {"llama.attention.value_length", s->head_dim},
        {"llama.rope.dimension_count", s->head_dim}, {"llama.vocab_size", s->n_vocab},
    };
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        gguf_head_u32(h, number[i].key, (uint32_t)number[i].value);
    gguf_head_f32(h, "llama.rope.freq_base", s->rope_base);
    gguf_head_f32(h, "llama.attention.layer_norm_rms_epsilon", s->norm_eps);
}

/* ---- the vocabulary ---------------------------------------------------------------------------------------------- */

/* Ids: 0 <unk>, 1 <s>, 2 </s>, 256 bytes, the letters, then words. */
enum { SYNTH_FIRST_BYTE = 3, SYNTH_FIRST_LETTER = SYNTH_FIRST_BYTE + 256, SYNTH_FIRST_WORD = SYNTH_FIRST_LETTER + 27 };
enum { SYNTH_TYPE_NORMAL = 1, SYNTH_TYPE_UNKNOWN = 2, SYNTH_TYPE_CONTROL = 3, SYNTH_TYPE_BYTE = 6 };

#define SYNTH_SPACE_MARK "\xE2\x96\x81" /* the space of SentencePiece */

/* Every word once: the index, halved, in a numeral system whose digits are the syllables 1 to 80 (there is no zero, so
 * that no two numbers look alike); even ones start with a space. Any part of a word is a word too, as merging needs. */
static void synth_word(uint32_t index, char *text, size_t size) {
    static const char consonants[] = "bcdfghklmnprstvz", vowels[] = "aeiou";
    char syllables[16];
    size_t n = sizeof syllables;
    syllables[--n] = 0;
    for (uint32_t rest = index / 2 + 1; rest > 0; rest = (rest - 1) / 80) {
        uint32_t digit = (rest - 1) % 80;
        syllables[--n] = vowels[digit % 5];
        syllables[--n] = consonants[digit / 5];
    }
    snprintf(text, size, "%s%s", index % 2 ? "" : SYNTH_SPACE_MARK, syllables + n);
}

/* Text and type of a token; the type is returned. */
static uint32_t synth_token(uint32_t id, char *text, size_t size) {
    static const char *const special[] = {"<unk>", "<s>", "</s>"};
    if (id < SYNTH_FIRST_BYTE) {
        snprintf(text, size, "%s", special[id]);
        return id ? SYNTH_TYPE_CONTROL : SYNTH_TYPE_UNKNOWN;
    }
    if (id < SYNTH_FIRST_LETTER) {
        snprintf(text, size, "<0x%02X>", id - SYNTH_FIRST_BYTE);
        return SYNTH_TYPE_BYTE;
    }
    if (id == SYNTH_FIRST_LETTER)
        snprintf(text, size, SYNTH_SPACE_MARK);
    else if (id < SYNTH_FIRST_WORD)
        snprintf(text, size, "%c", 'a' + (int)(id - SYNTH_FIRST_LETTER - 1));
    else
        synth_word(id - SYNTH_FIRST_WORD, text, size);
    return SYNTH_TYPE_NORMAL;
}

static void synth_put_vocabulary(gguf_head *h, uint32_t n) {
    char text[32];
    gguf_head_string(h, "tokenizer.ggml.model", "llama", 5);
    gguf_head_array(h, "tokenizer.ggml.tokens", GGUF_WRITE_STRING, n);
    for (uint32_t id = 0; id < n; id++) {
        synth_token(id, text, sizeof text);
        gguf_head_put_string(h, text, strlen(text));
    }
    gguf_head_array(h, "tokenizer.ggml.scores", GGUF_WRITE_F32, n);
    for (uint32_t id = 0; id < n; id++)
        gguf_head_put_f32(h, id < SYNTH_FIRST_LETTER ? 0.0f : (float)SYNTH_FIRST_LETTER - (float)id);
    gguf_head_array(h, "tokenizer.ggml.token_type", GGUF_WRITE_I32, n);
    for (uint32_t id = 0; id < n; id++) gguf_head_put_u32(h, synth_token(id, text, sizeof text));
    gguf_head_u32(h, "tokenizer.ggml.bos_token_id", 1);
    gguf_head_u32(h, "tokenizer.ggml.eos_token_id", 2);
    gguf_head_u32(h, "tokenizer.ggml.unknown_token_id", 0);
    gguf_head_bool(h, "tokenizer.ggml.add_bos_token", 1);
    gguf_head_bool(h, "tokenizer.ggml.add_eos_token", 0);
}

static void synth_make_header(const synth_plan *plan, gguf_head *h) {
    synth_put_model_keys(h, plan);
    synth_put_vocabulary(h, (uint32_t)plan->shape->n_vocab);
    for (int i = 0; i < synth_tensor_count(plan); i++) {
        const synth_tensor tensor = synth_tensor_at(plan, i);
        const uint64_t dims[2] = {tensor.cols, tensor.rows};
        gguf_head_tensor(h, tensor.name, tensor.rows ? 2 : 1, dims, tensor.type->id, synth_tensor_bytes(&tensor));
    }
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

/* Random weights in chunks. Returns -1 or an exit code. */
static int synth_write_tensor(gguf_writer *writer, const synth_tensor *tensor, uint64_t *random) {
    enum { CHUNK = 1 << 20 };
    uint8_t *chunk = malloc(CHUNK);
    if (!chunk) return tool_fail("out of memory");
    uint64_t blocks = synth_tensor_blocks(tensor), most = CHUNK / (uint64_t)tensor->type->block_bytes;
    int code = -1;
    while (blocks > 0 && code < 0) {
        size_t n = (size_t)(blocks < most ? blocks : most);
        tensor->type->fill(random, tensor->deviation, chunk, n);
        blocks -= n;
        code = gguf_writer_put(writer, chunk, n * (size_t)tensor->type->block_bytes);
    }
    free(chunk);
    return code < 0 ? gguf_writer_end_tensor(writer) : code;
}

static void synth_report(const synth_plan *plan, const char *name, double seconds) {
    char size[32];
    uint64_t n = 0;
    for (int i = 0; i < synth_tensor_count(plan); i++) {
        synth_tensor tensor = synth_tensor_at(plan, i);
        n += tensor.cols * (tensor.rows ? tensor.rows : 1);
    }
    fprintf(stderr, "%s: %s, %s, %.1f million parameters, %s in %.1f s\n", name, plan->shape->name, plan->type->name,
            (double)n * 1e-6, tool_size_text(synth_data_bytes(plan), size, sizeof size), seconds);
}

int synth_write_file(const synth_plan *plan, const char *name) {
    const double start = tool_seconds();
    struct stat status;
    int exists = !stat(name, &status);
    if (exists && !S_ISREG(status.st_mode))
        return tool_fail("%s: expected a file name, found a folder or device", name);
    if (exists && !plan->force) return tool_fail("%s: the file exists already; --force overwrites it", name);
    gguf_head head = {0};
    gguf_writer writer;
    uint64_t random = plan->seed;
    synth_make_header(plan, &head);
    int code = gguf_writer_open(&writer, &head, name, plan->quiet);
    for (int i = 0; i < synth_tensor_count(plan) && code < 0; i++) {
        synth_tensor tensor = synth_tensor_at(plan, i);
        code = synth_write_tensor(&writer, &tensor, &random);
    }
    code = gguf_writer_close(&writer, code);
    gguf_head_free(&head);
    if (code == EXIT_CODE_OK && !plan->quiet) synth_report(plan, name, tool_seconds() - start);
    return code;
}
