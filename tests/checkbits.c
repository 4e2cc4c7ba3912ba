/* checkbits.c: prints the SHA-256 of the logits of small models with pseudo-random weights, for every weight type,
 * every instruction set of this CPU, and two ways to split the work. test_arm.sh runs it under qemu and looks the
 * digests up in test_engine.c, which has the same models; where there is no cmocka, nothing else of the engine can be
 * tested.
 *
 *     checkbits          one line each: model, instruction set, threads, tokens a step, tokens a page, digest */
#include <stdio.h>
#include <stdlib.h>

#include "../engine/engine.h"
#include "../engine/minim.h"
#include "../kernels/kernels.h"
#include "../router/sha256.h"
#include "synth.h"

enum { BITS_VOCAB = 512, BITS_TOKENS = 300 };

#define BITS_SHAPE(TYPE, LAYERS, BIASES, TIED)                                                                         \
    {                                                                                                                  \
        .type = TYPE, .n_layers = LAYERS, .n_embd = 96, .n_heads = 8, .n_kv_heads = 2, .head_dim = 24, .n_ff = 160,    \
        .n_ctx = 1024, .biases = BIASES, .tied = TIED                                                                  \
    }

static const struct bits_model {
    const char *name;
    synth_shape shape;
    size_t n_tokens;
    minim_kv_type kv;
} bits_models[] = {
    {"Q4_0", BITS_SHAPE(KERN_Q4_0, 2, 0, 0), 70, MINIM_KV_F16},
    {"Q8_0", BITS_SHAPE(KERN_Q8_0, 2, 1, 1), 70, MINIM_KV_F16},
    {"F16", BITS_SHAPE(KERN_F16, 1, 0, 0), 20, MINIM_KV_F16},
    {"BF16", BITS_SHAPE(KERN_BF16, 1, 0, 0), 20, MINIM_KV_F32},
    {"long", BITS_SHAPE(KERN_Q4_0, 1, 0, 0), 280, MINIM_KV_F16},
    {"long_q8", BITS_SHAPE(KERN_Q4_0, 1, 0, 0), 280, MINIM_KV_Q8},
    {"long_q4", BITS_SHAPE(KERN_Q4_0, 1, 0, 0), 280, MINIM_KV_Q4},
};

static const struct bits_setup { int threads, chunk, page; } bits_setups[] = {{1, BITS_TOKENS, 64}, {3, 5, 16}};

/* The logits of all tokens, `chunk` of them a step; returns MINIM_OK or an error. */
static minim_status bits_run(minim_engine *engine, const int32_t *tokens, size_t n, size_t chunk, float *logits,
                             minim_error *error) {
    minim_seq *seq = NULL;
    minim_row rows[BITS_TOKENS];
    minim_status status = minim_seq_new(engine, &seq, error);
    for (size_t at = 0; at < n && status == MINIM_OK; at += chunk) {
        const size_t now = n - at < chunk ? n - at : chunk;
        for (size_t i = 0; i < now; i++) rows[i] = (minim_row){.seq = seq, .token = tokens[at + i], .want_logits = 1};
        status = minim_engine_step(engine, rows, now, logits + at * BITS_VOCAB, error);
    }
    minim_seq_free(seq);
    return status;
}

static minim_status bits_print(const struct bits_model *b, const minim_model *model, const char *isa,
                               const struct bits_setup *s, float *logits, minim_error *error) {
    int32_t tokens[BITS_TOKENS];
    minim_engine *engine = NULL;
    minim_engine_options options;
    minim_engine_options_default(&options);
    options.isa = isa, options.n_threads = s->threads, options.page_size = s->page;
    options.kv_type = b->kv, options.n_ctx = 1024;
    synth_tokens(tokens, b->n_tokens);
    minim_status status = minim_engine_new(model, &options, &engine, error);
    if (status == MINIM_OK) engine->share_all = 1;
    if (status == MINIM_OK) status = bits_run(engine, tokens, b->n_tokens, (size_t)s->chunk, logits, error);
    minim_engine_free(engine);
    if (status != MINIM_OK) return status;
    char hex[65];
    sha256_hex(logits, b->n_tokens * BITS_VOCAB * sizeof *logits, hex);
    printf("%s %s %d %d %d %s\n", b->name, isa, s->threads, s->chunk, s->page, hex);
    return MINIM_OK;
}

static minim_status bits_check(const struct bits_model *b, float *logits, minim_error *error) {
    size_t size = 0;
    minim_model *model = NULL;
    minim_model_options options;
    minim_model_options_default(&options);
    void *data = synth_model(&b->shape, &size);
    if (!data) {
        fprintf(stderr, "checkbits: models/stories260K.gguf cannot be read; start this in the repository's root\n");
        return MINIM_ERR_IO;
    }
    minim_status status = minim_model_load_memory(data, size, b->name, &options, &model, error);
    free(data);
    const char *isa;
    for (int i = 0; (isa = kern_isa_name(i)) && status == MINIM_OK; i++)
        for (size_t s = 0; s < sizeof bits_setups / sizeof *bits_setups && status == MINIM_OK; s++)
            if (kern_isa_available(isa)) status = bits_print(b, model, isa, &bits_setups[s], logits, error);
    minim_model_free(model);
    return status;
}

int main(void) {
    minim_error error = {MINIM_OK, ""};
    minim_status status = MINIM_OK;
    float *logits = malloc((size_t)BITS_TOKENS * BITS_VOCAB * sizeof *logits);
    for (size_t i = 0; i < sizeof bits_models / sizeof *bits_models && logits && status == MINIM_OK; i++)
        status = bits_check(&bits_models[i], logits, &error);
    if (status != MINIM_OK) fprintf(stderr, "checkbits: %s %s\n", minim_status_name(status), error.text);
    free(logits);
    return status != MINIM_OK || !logits;
}
