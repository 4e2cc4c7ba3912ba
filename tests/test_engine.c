/* test_engine.c: the forward pass against golden logits, and the promise that nothing but the model, the tokens and the
 * KV type decides a bit of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/engine.h"
#include "../engine/gguf.h"
#include "../engine/minim.h"
#include "../engine/model.h"
#include "../kernels/kernels.h"
#include "../router/sha256.h"
#include "synth.h"

enum { N_VOCAB = 512 };

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

/* ---- running tokens through a model ------------------------------------------------------------------------------ */

typedef struct setup {
    const char *isa;
    int threads, chunk, page; /* chunk 0 = all at once */
    minim_kv_type kv;
    int n_ctx;
} setup;

static minim_engine *engine_for(const minim_model *m, const setup *s) {
    minim_error e;
    minim_engine *engine;
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.isa = s->isa, o.n_threads = s->threads, o.kv_type = s->kv, o.n_ctx = s->n_ctx;
    if (s->page) o.page_size = s->page;
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    engine->share_all = 1;
    return engine;
}

/* Logits of every position, [n][N_VOCAB]; free() them. */
static float *logits_of(const minim_model *m, const setup *s, const int32_t *tokens, size_t n) {
    minim_error e;
    minim_engine *engine = engine_for(m, s);
    minim_seq *seq;
    ok(minim_seq_new(engine, &seq, &e), &e);
    minim_row *rows = calloc(n, sizeof *rows);
    float *logits = malloc(n * N_VOCAB * sizeof *logits);
    assert_true(rows && logits);
    for (size_t i = 0; i < n; i++) rows[i] = (minim_row){seq, tokens[i], 1};
    size_t chunk = s->chunk ? (size_t)s->chunk : n;
    for (size_t i = 0; i < n; i += chunk) {
        size_t now = n - i < chunk ? n - i : chunk;
        ok(minim_engine_step(engine, rows + i, now, logits + i * N_VOCAB, &e), &e);
    }
    assert_int_equal(minim_seq_length(seq), n);
    free(rows);
    minim_seq_free(seq);
    minim_engine_free(engine);
    return logits;
}

static minim_model *model_from(const void *data, size_t size) {
    minim_error e;
    minim_model *m;
    minim_model_options o;
    minim_model_options_default(&o);
    o.n_threads = 2;
    ok(minim_model_load_memory(data, size, "synthetic", &o, &m, &e), &e);
    return m;
}

static minim_model *model_synth(const synth_shape *shape) {
    size_t size;
    void *data = synth_model(shape, &size);
    assert_non_null(data);
    minim_model *m = model_from(data, size);
    free(data);
    return m;
}

/* ---- golden logits ----------------------------------------------------------------------------------------------- */

static size_t read_tokens(const char *path, int32_t *tokens, size_t capacity) {
    FILE *f = fopen(path, "r");
    if (!f) fail_msg("%s can not be opened", path);
    size_t n = 0;
    for (int id; n < capacity && fscanf(f, "%d", &id) == 1;) tokens[n++] = id;
    fclose(f);
    return n;
}

static float *read_floats(const char *path, size_t n) {
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s can not be opened", path);
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    assert_int_equal(fread(x, sizeof *x, n, f), n);
    fclose(f);
    return x;
}

static void golden(const char *family) {
    char path[256];
    int32_t tokens[256];
    minim_error e;
    minim_model *m;
    snprintf(path, sizeof path, "tests/data/logits/%s/model.gguf", family);
    ok(minim_model_load(path, NULL, &m, &e), &e);
    snprintf(path, sizeof path, "tests/data/logits/%s/tokens.txt", family);
    size_t n = read_tokens(path, tokens, COUNT(tokens));
    snprintf(path, sizeof path, "tests/data/logits/%s/logits.f32", family);
    float *want = read_floats(path, n * N_VOCAB);
    const char *isa;
    for (int i = 0; (isa = kern_isa_name(i)); i++) {
        if (!kern_isa_available(isa)) continue;
        setup s = {.isa = isa, .threads = 2, .kv = MINIM_KV_F32, .n_ctx = 256};
        float *got = logits_of(m, &s, tokens, n);
        double worst = 0;
        for (size_t k = 0; k < n * N_VOCAB; k++) worst = fmax(worst, fabs((double)got[k] - (double)want[k]));
        print_message("  %-16s %-11s largest difference %.2e\n", family, isa, worst);
        assert_true(worst <= 3e-4); /* false for NaN */
        free(got);
    }
    free(want);
    minim_model_free(m);
}

static void logits_match_the_golden_ones(void **state) {
    (void)state;
    golden("llama");
    golden("llama-ropefreqs");
    golden("llama-linear");
    golden("llama-bias");
}

/* ---- the same bits ----------------------------------------------------------------------------------------------- */

static const synth_shape shape_q4 = {.type = KERN_Q4_0,
                                     .n_layers = 2,
                                     .n_embd = 96,
                                     .n_heads = 8,
                                     .n_kv_heads = 2,
                                     .head_dim = 24,
                                     .n_ff = 160,
                                     .n_ctx = 1024};

/* The SHA-256 of the logits of n tokens is `want` for every instruction set, number of threads, chunk and page. Every
 * two of these four meet; of threads, chunks and pages each instruction set takes half of what there is, the next one
 * the other half. */
static void same_bits(const minim_model *m, const char *what, size_t n, minim_kv_type kv, const char *want) {
    static const int chunks[] = {0, 1, 2, 7, 64}, pages[] = {16, 64, 256};
    static const char *const kv_names[] = {[MINIM_KV_F16] = "F16",
                                           [MINIM_KV_F32] = "F32",
                                           [MINIM_KV_Q8] = "Q8",
                                           [MINIM_KV_Q4] = "Q4",
                                           [MINIM_KV_Q8_Q4] = "Q8 and Q4"};
    int32_t tokens[300];
    assert_true(n <= COUNT(tokens));
    synth_tokens(tokens, n);
    int runs = 0;
    size_t half = 0;
    const char *isa;
    for (int i = 0; (isa = kern_isa_name(i)); i++) {
        if (!kern_isa_available(isa)) continue;
        size_t t = half++;
        for (int threads = 1; threads <= 3; t++, threads += n > 256 ? 2 : 1) { /* long ones take their time */
            for (size_t c = 0; c < COUNT(chunks); c++) {
                for (size_t p = 0; p < COUNT(pages); p++) {
                    if (pages[p] == 256 ? chunks[c] || threads > 1 /* enough to see that it works */
                                        : (c + p + t) % 2)
                        continue;
                    setup s = {isa, threads, chunks[c], pages[p], kv, 1024};
                    float *logits = logits_of(m, &s, tokens, n);
                    char hex[65];
                    sha256_hex(logits, n * N_VOCAB * sizeof *logits, hex);
                    free(logits);
                    if (strcmp(hex, want) != 0) {
                        fail_msg("%s: isa %s, %d threads, chunks of %d, pages of %d: SHA-256 %s, expected %s", what,
                                 isa, threads, chunks[c], pages[p], hex, want);
                    }
                    runs++;
                }
            }
        }
    }
    print_message("  %-12s %zu tokens, %s KV: %d runs, SHA-256 %.16s...\n", what, n, kv_names[kv], runs, want);
}

/* The digests were taken once; they must be the same on every machine and for ever, or be changed on purpose. */
static void stories_gives_the_same_bits_everywhere(void **state) {
    (void)state;
    size_t size;
    const void *data = minim_default_model(&size);
    minim_model *m = model_from(data, size);
    same_bits(m, "stories260K", 100, MINIM_KV_F16, "b8b8fc2e59c2b7de36f857c00a1ad637f77edd66bf88d23711b4384190512df0");
    same_bits(m, "stories260K", 100, MINIM_KV_Q8, "f9411636070ceef1662e04aa48c903d3a6475a1f57a00c5e03c52ff60b4f8cde");
    same_bits(m, "stories260K", 100, MINIM_KV_Q8_Q4,
              "4ae10defdede468a6db2eb579322e29838f8d667811fe1b127d9815b0bb7ed01");
    same_bits(m, "stories260K", 100, MINIM_KV_Q4, "9f95af92c404a2436d7e64c580ca2a7725433f33824fc6867a9e2a40b3fc5460");
    same_bits(m, "stories260K", 100, MINIM_KV_F32, "040c36e746803d8c16f11a00ebf9b11d692f3f26948e8e59a74defe80dc2cf6f");
    minim_model_free(m);
}

static void a_q4_0_model_gives_the_same_bits_everywhere(void **state) {
    (void)state;
    minim_model *m = model_synth(&shape_q4);
    same_bits(m, "Q4_0", 70, MINIM_KV_F16, "1c37f203313460dc34a8f38c5cd3a6fd861b3989eea3106bfae97caed5ec3443");
    minim_model_free(m);
}

static void a_q8_0_model_gives_the_same_bits_everywhere(void **state) {
    (void)state;
    synth_shape shape = shape_q4;
    shape.type = KERN_Q8_0, shape.biases = 1, shape.tied = 1;
    minim_model *m = model_synth(&shape);
    same_bits(m, "Q8_0", 70, MINIM_KV_F16, "1081b0fe8160b297525a4796035cb28533a8a0bec8be7aac5b598506d6fb9525");
    minim_model_free(m);
}

static void half_precision_models_give_the_same_bits_everywhere(void **state) {
    (void)state;
    synth_shape shape = shape_q4;
    shape.n_layers = 1;
    shape.type = KERN_F16;
    minim_model *m = model_synth(&shape);
    same_bits(m, "F16", 20, MINIM_KV_F16, "78452e760b6596592052507f2fcb2614f6ac5063cf026398537fbac43fff5d21");
    minim_model_free(m);
    shape.type = KERN_BF16;
    m = model_synth(&shape);
    same_bits(m, "BF16", 20, MINIM_KV_F32, "eadbaff597343b0aaf54e724d7638d528483bbeb12fda1de0d1b806a240119f5");
    minim_model_free(m);
}

/* Which of two NaN an instruction passes on differs from one instruction set to the next. */
static void a_damaged_model_gives_the_same_bits_everywhere(void **state) {
    (void)state;
    static const uint32_t damage[] = {0x7fc00001, 0xffc12345, 0x7f800000, 0xff800000, 0x7f800001};
    enum { N = 12 };
    int32_t tokens[N];
    size_t size;
    synth_shape shape = shape_q4;
    shape.type = KERN_F32, shape.n_layers = 1;
    char *image = synth_model(&shape, &size);
    assert_non_null(image);
    for (size_t i = 0; i < 400; i++) memcpy(image + size - 4 * (i * 211 + 1), &damage[i % COUNT(damage)], 4);
    minim_model *m = model_from(image, size);
    free(image);
    synth_tokens(tokens, N);
    static const minim_kv_type kv[] = {MINIM_KV_F16, MINIM_KV_F32, MINIM_KV_Q8, MINIM_KV_Q4, MINIM_KV_Q8_Q4};
    for (size_t k = 0; k < COUNT(kv); k++) {
        float *expected = logits_of(m, &(setup){.isa = "ref", .threads = 1, .kv = kv[k]}, tokens, N);
        const char *isa;
        for (int i = 0; (isa = kern_isa_name(i)); i++) {
            if (!kern_isa_available(isa)) continue;
            for (int chunk = 0; chunk <= 3; chunk += 3) {
                float *found = logits_of(m, &(setup){isa, 1, chunk, 16, kv[k], 0}, tokens, N);
                assert_memory_equal(found, expected, N * N_VOCAB * sizeof *found);
                free(found);
            }
        }
        assert_true(isnan(expected[0]));
        free(expected);
    }
    minim_model_free(m);
}

/* The embedding of one token is no number: what comes before it is computed together with it, and must not notice. */
static void damage_touches_only_who_sees_it(void **state) {
    (void)state;
    enum { N = 150, AT = 70 };
    static const uint32_t nan = 0x7fc00000;
    int32_t tokens[N];
    size_t size;
    minim_error e;
    gguf_file *file;
    synth_shape shape = shape_q4;
    shape.type = KERN_F32, shape.n_layers = 2;
    char *image = synth_model(&shape, &size);
    assert_non_null(image);
    synth_tokens(tokens, N);
    ok(gguf_open(NULL, "synthetic", image, size, &file, &e), &e);
    const uint64_t embedding = gguf_find_tensor(file, "token_embd.weight")->offset;
    gguf_close(file);
    for (size_t i = 0; i < N; i++) tokens[i] = tokens[i] == 7 ? 8 : tokens[i];
    tokens[AT] = 7;
    for (int d = 0; d < shape.n_embd; d++) memcpy(image + embedding + 4 * (size_t)(7 * shape.n_embd + d), &nan, 4);
    minim_model *m = model_from(image, size);
    free(image);
    static const minim_kv_type kv[] = {MINIM_KV_F16, MINIM_KV_F32, MINIM_KV_Q8, MINIM_KV_Q4, MINIM_KV_Q8_Q4};
    for (size_t k = 0; k < COUNT(kv); k++) {
        const setup s = {.threads = 2, .page = 16, .kv = kv[k], .n_ctx = 256};
        float *together = logits_of(m, &s, tokens, N), *alone = logits_of(m, &s, tokens, AT);
        assert_memory_equal(together, alone, AT * N_VOCAB * sizeof *alone);
        for (size_t i = 0; i < AT; i++) assert_true(isfinite(together[i * N_VOCAB]));
        for (size_t i = AT; i < N; i++) assert_true(isnan(together[i * N_VOCAB]));
        free(together), free(alone);
    }
    minim_model_free(m);
}

/* Past 256 tokens attention works in several ranges, which threads share when few rows run. */
static void long_sequences_give_the_same_bits_everywhere(void **state) {
    (void)state;
    synth_shape shape = shape_q4;
    shape.n_layers = 1;
    minim_model *m = model_synth(&shape);
    same_bits(m, "long", 280, MINIM_KV_Q8, "045db39ca17cc88f83098a0b6382fa9e45a3e487b9230491ee8a6ba05341538f");
    same_bits(m, "long", 280, MINIM_KV_Q4, "50ef31aa37350fcf19e0219f7d53d68c60144b236c8ef891de01deb148786898");
    same_bits(m, "long", 280, MINIM_KV_F16, "a96fb1559ca61be27b5bcada5af56f6282bd162ed87a21296208a61f00f32105");
    minim_model_free(m);
}

/* Groups of four dimensions that are not full. */
static void odd_heads_with_int8_keys_give_the_same_bits_everywhere(void **state) {
    (void)state;
    synth_shape shape = shape_q4;
    shape.n_layers = 1, shape.type = KERN_F32, shape.head_dim = 18;
    minim_model *m = model_synth(&shape);
    same_bits(m, "odd heads", 40, MINIM_KV_Q8, "0f3e2fc1314baac8e00572357cc6552ccdb0e7aec60bdeaf169a3ab2fbc26b2e");
    same_bits(m, "odd heads", 40, MINIM_KV_Q8_Q4, "683392ad737cec718dfdef437e81956159fef56af061d6547706d46fac98b7b1");
    same_bits(m, "odd heads", 40, MINIM_KV_Q4, "dc92cfac76b111e8260610c2ca7ce1323f4fc0f6252f3e3eb64d03d3395b1cde");
    minim_model_free(m);
}

/* Logits of a model of this shape for n tokens. */
static float *logits_of_shape(const synth_shape *shape, const int32_t *tokens, size_t n) {
    minim_model *m = model_synth(shape);
    float *logits = logits_of(m, &(setup){.threads = 1}, tokens, n);
    minim_model_free(m);
    return logits;
}

/* ggml leaves trailing dimensions of 1 away. */
static void a_matrix_of_one_row_may_be_written_as_a_vector(void **state) {
    (void)state;
    static const synth_shape narrow[] = {
        {.n_layers = 2, .n_embd = 64, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .n_ff = 1, .n_ctx = 64},
        {.n_layers = 1, .n_embd = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 2, .n_ff = 64, .n_ctx = 64, .tied = 1},
    };
    int32_t tokens[10];
    synth_tokens(tokens, COUNT(tokens));
    for (size_t i = 0; i < COUNT(narrow); i++) {
        synth_shape full = narrow[i];
        full.full = 1;
        float *vector = logits_of_shape(&narrow[i], tokens, COUNT(tokens));
        float *matrix = logits_of_shape(&full, tokens, COUNT(tokens));
        assert_memory_equal(vector, matrix, COUNT(tokens) * N_VOCAB * sizeof *vector);
        free(vector);
        free(matrix);
    }
}

/* The host may round in another direction: neither what is computed while loading nor the figures of a token change. */
static minim_result figures_when_rounding(int direction, const void *image, size_t size, double *rope_freq, size_t n) {
    minim_error e;
    minim_seq *seq;
    int32_t tokens[16];
    minim_generate_options o;
    minim_result result = {.size = sizeof result};
    minim_generate_options_default(&o);
    o.max_tokens = 30, o.ignore_end = 1, o.sampling.temperature = 1.2f;
    synth_tokens(tokens, COUNT(tokens));
    assert_int_equal(fesetround(direction), 0);
    minim_model *m = model_from(image, size);
    minim_engine *engine = engine_for(m, &(setup){.threads = 1});
    ok(minim_seq_new(engine, &seq, &e), &e);
    minim_status status = minim_generate(seq, tokens, COUNT(tokens), &o, &result, &e);
    assert_int_equal(fegetround(), direction); /* the host's own setting stands */
    fesetround(FE_TONEAREST);
    ok(status, &e);
    assert_true((int)n <= m->shape.n_rot / 2);
    memcpy(rope_freq, m->rope_freq[MODEL_ROPE_NEAR], n * sizeof *rope_freq);
    minim_seq_free(seq);
    minim_engine_free(engine);
    minim_model_free(m);
    return result;
}

static void the_rounding_of_the_host_changes_nothing(void **state) {
    (void)state;
    enum { PAIRS = 12 }; /* of rotated dimensions, half a head */
    static const int directions[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    double expected[PAIRS], found[PAIRS];
    size_t size;
    void *image = synth_model(&shape_q4, &size);
    assert_non_null(image);
    minim_result usual = figures_when_rounding(FE_TONEAREST, image, size, expected, PAIRS);
    for (size_t i = 0; i < COUNT(directions); i++) {
        minim_result other = figures_when_rounding(directions[i], image, size, found, PAIRS);
        assert_memory_equal(found, expected, sizeof expected);
        assert_memory_equal(&other.sum_logprob, &usual.sum_logprob, 4 * sizeof usual.sum_logprob);
    }
    free(image);
}

/* Rows of several sequences in one step, in any order: each gets what it gets alone. */
static void sequences_do_not_see_each_other(void **state) {
    (void)state;
    enum { SEQS = 3, N = 40 };
    minim_error e;
    minim_model *m = model_synth(&shape_q4);
    setup s = {.threads = 2, .page = 16, .kv = MINIM_KV_F16, .n_ctx = 64};
    int32_t tokens[N + SEQS];
    synth_tokens(tokens, COUNT(tokens));
    float *alone[SEQS];
    for (int k = 0; k < SEQS; k++) alone[k] = logits_of(m, &s, tokens + k, N);

    minim_engine_options o;
    minim_engine_options_default(&o);
    o.n_threads = 2, o.page_size = 16, o.n_ctx = 64, o.kv_limit = 1 << 24;
    minim_engine *engine;
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    minim_seq *seq[SEQS];
    for (int k = 0; k < SEQS; k++) ok(minim_seq_new(engine, &seq[k], &e), &e);
    size_t at[SEQS] = {0};
    float *logits = malloc(SEQS * N * N_VOCAB * sizeof *logits);
    assert_non_null(logits);
    for (int step = 0; at[0] < N || at[1] < N || at[2] < N; step++) {
        minim_row rows[SEQS * N];
        int owner[SEQS * N], n = 0;
        size_t position[SEQS * N];
        for (int part = 0; part < 5; part++) {
            int k = (step + part * 2) % SEQS;
            for (int i = 0; i < 1 + (step + part) % 3 && at[k] < N; i++, n++) {
                rows[n] = (minim_row){seq[k], tokens[k + (int)at[k]], 1};
                owner[n] = k, position[n] = at[k]++;
            }
        }
        ok(minim_engine_step(engine, rows, (size_t)n, logits, &e), &e);
        for (int i = 0; i < n; i++) {
            assert_memory_equal(logits + i * N_VOCAB, alone[owner[i]] + position[i] * N_VOCAB, N_VOCAB * sizeof(float));
        }
    }
    for (int k = 0; k < SEQS; k++) {
        minim_seq_free(seq[k]);
        free(alone[k]);
    }
    free(logits);
    minim_engine_info info = {.size = sizeof info};
    assert_int_equal(minim_engine_get_info(engine, &info), MINIM_OK);
    assert_int_equal(info.pages_in_use, 0);
    minim_engine_free(engine);
    minim_model_free(m);
}

static void a_truncated_sequence_goes_on_as_if_the_rest_never_was(void **state) {
    (void)state;
    minim_error e;
    minim_model *m = model_synth(&shape_q4);
    setup s = {.threads = 1, .page = 16, .kv = MINIM_KV_F16, .n_ctx = 64};
    int32_t tokens[50];
    synth_tokens(tokens, 50);
    float *want = logits_of(m, &s, tokens, 50), got[N_VOCAB];
    minim_engine *engine = engine_for(m, &s);
    minim_seq *seq;
    ok(minim_seq_new(engine, &seq, &e), &e);
    minim_row row = {seq, 0, 0};
    for (int i = 0; i < 20; i++) row.token = tokens[i], ok(minim_engine_step(engine, &row, 1, NULL, &e), &e);
    for (int i = 0; i < 40; i++) row.token = i * 11, ok(minim_engine_step(engine, &row, 1, NULL, &e), &e);
    assert_int_equal(minim_seq_truncate(seq, 61), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_seq_truncate(seq, 20), MINIM_OK);
    row.want_logits = 1;
    for (int i = 20; i < 50; i++) {
        row.token = tokens[i];
        ok(minim_engine_step(engine, &row, 1, got, &e), &e);
        assert_memory_equal(got, want + i * N_VOCAB, sizeof got);
    }
    minim_seq_free(seq);
    minim_engine_free(engine);
    minim_model_free(m);
    free(want);
}

/* ---- limits and faults ------------------------------------------------------------------------------------------- */

static void a_step_that_does_not_fit_changes_nothing(void **state) {
    (void)state;
    minim_error e;
    minim_model *m = model_synth(&shape_q4);
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.n_threads = 1, o.page_size = 16, o.n_ctx = 64;
    minim_memory_plan plan = {.size = sizeof plan};
    ok(minim_engine_plan(m, &o, &plan, &e), &e);
    o.kv_limit = plan.kv_per_token * 16 + 1000; /* one page */
    minim_engine *engine;
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    minim_seq *a, *b;
    ok(minim_seq_new(engine, &a, &e), &e);
    ok(minim_seq_new(engine, &b, &e), &e);
    minim_row rows[40];
    for (int i = 0; i < 40; i++) rows[i] = (minim_row){i < 10 ? a : b, 3 + i, 0};
    assert_int_equal(minim_engine_step(engine, rows, 40, NULL, &e), MINIM_ERR_CONTEXT);
    assert_non_null(strstr(e.text, "KV pool is full"));
    assert_int_equal(minim_seq_length(a), 0);
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(engine, &info);
    assert_int_equal(info.pages_in_use, 0);
    ok(minim_engine_step(engine, rows, 10, NULL, &e), &e);
    assert_int_equal(minim_seq_length(a), 10);
    assert_int_equal(minim_engine_step(engine, rows + 10, 1, NULL, &e), MINIM_ERR_CONTEXT);
    rows[0].token = N_VOCAB;
    assert_int_equal(minim_engine_step(engine, rows, 1, NULL, &e), MINIM_ERR_ARGUMENT);
    rows[0].token = -1;
    assert_int_equal(minim_engine_step(engine, rows, 1, NULL, &e), MINIM_ERR_ARGUMENT);
    rows[0] = (minim_row){a, 1, 1};
    assert_int_equal(minim_engine_step(engine, rows, 1, NULL, &e), MINIM_ERR_ARGUMENT);
    minim_seq_free(a);
    ok(minim_engine_step(engine, rows + 10, 16, NULL, &e), &e); /* the page is free again */
    minim_seq_free(b);
    minim_engine_free(engine);
    minim_model_free(m);
}

static void impossible_options_are_named(void **state) {
    (void)state;
    size_t size;
    const void *data = minim_default_model(&size);
    minim_model *m = model_from(data, size);
    minim_engine_options good, o;
    minim_engine_options_default(&good);
    minim_error e;
    minim_engine *engine;
#define REFUSED(field, value, word)                                                                                    \
    o = good, o.field = value;                                                                                         \
    assert_int_equal(minim_engine_new(m, &o, &engine, &e), MINIM_ERR_ARGUMENT);                                        \
    assert_null(engine);                                                                                               \
    if (!strstr(e.text, word)) fail_msg("\"%s\" does not name %s", e.text, word);
    REFUSED(n_threads, -1, "n_threads")
    REFUSED(n_threads, 100000, "n_threads")
    REFUSED(n_ctx, -5, "n_ctx")
    REFUSED(n_batch, 0, "n_batch")
    REFUSED(page_size, 24, "page_size")
    REFUSED(page_size, 512, "page_size")
    REFUSED(kv_type, (minim_kv_type)7, "kv_type")
    REFUSED(kv_limit, 100, "kv_limit")
    REFUSED(isa, "sse9", "sse9")
    REFUSED(rope_factors, (minim_rope_factors)3, "rope_factors")
#undef REFUSED
    minim_model_free(m);
}

typedef struct failing {
    long at, count, live; /* fail allocation number `at` */
} failing;

static void *failing_alloc(void *user, size_t size, size_t alignment) {
    failing *f = user;
    if (f->count++ == f->at) return NULL;
    void *p = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (p) f->live++;
    return p;
}

static void failing_free(void *user, void *p, size_t size) {
    (void)size;
    failing *f = user;
    if (p) f->live--;
    free(p);
}

static minim_status load_and_generate(failing *f, uint64_t prefix_cache) {
    minim_allocator a = {f, failing_alloc, failing_free};
    minim_model_options mo;
    minim_model_options_default(&mo);
    mo.allocator = &a, mo.n_threads = 1;
    minim_engine_options eo;
    minim_engine_options_default(&eo);
    eo.allocator = &a, eo.n_threads = 2, eo.page_size = 16, eo.n_ctx = 400;
    eo.prefix_cache = prefix_cache;
    size_t size;
    const void *data = minim_default_model(&size);
    minim_model *m = NULL;
    minim_engine *engine = NULL;
    minim_seq *seq = NULL;
    int32_t tokens[300];
    synth_tokens(tokens, 300);
    minim_generate_options go;
    minim_generate_options_default(&go);
    go.max_tokens = 8, go.sampling.temperature = 1, go.sampling.top_k = 5, go.sampling.top_p = 0.9f;
    go.n_top = 3, go.ignore_end = 1;
    const char *stop[] = {"never"};
    go.stop = stop, go.n_stop = 1;
    minim_status status = minim_model_load_memory(data, size, "stories", &mo, &m, NULL);
    if (!status) status = minim_engine_new(m, &eo, &engine, NULL);
    if (!status) status = minim_seq_new(engine, &seq, NULL);
    if (!status) {
        minim_error e = {0};
        status = minim_generate(seq, tokens, 300, &go, NULL, &e);
        if (status) print_message("%s\n", e.text);
        if (status) assert_int_equal(minim_seq_length(seq), 0);
    }
    if (!status && prefix_cache) { /* once more, with the pages that are there by now */
        minim_seq_free(seq);
        seq = NULL;
        status = minim_seq_new(engine, &seq, NULL);
        if (!status) status = minim_generate(seq, tokens, 300, &go, NULL, NULL);
    }
    minim_seq_free(seq);
    minim_engine_free(engine);
    minim_model_free(m);
    return status;
}

static void every_failing_allocation_is_survived(void **state) {
    (void)state;
    for (int cache = 0; cache < 2; cache++) {
        uint64_t bytes = cache ? 1 << 20 : 0;
        failing f = {.at = -1};
        assert_int_equal(load_and_generate(&f, bytes), MINIM_OK);
        assert_int_equal(f.live, 0);
        long n = f.count, survived = 0;
        for (long at = 0; at < n; at++) {
            f = (failing){.at = at};
            minim_status status = load_and_generate(&f, bytes);
            survived += status == MINIM_OK;
            if (status != MINIM_ERR_MEMORY && (status || !cache))
                fail_msg("allocation %ld of %ld failed: status %s", at, n, minim_status_name(status));
            if (f.live) fail_msg("allocation %ld of %ld failed: %ld blocks leaked", at, n, f.live);
        }
        assert_int_equal(survived > 0, cache); /* without memory for the prefix cache it goes on without */
        print_message("  %ld allocations, each made to fail once\n", n);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_match_the_golden_ones),
        cmocka_unit_test(stories_gives_the_same_bits_everywhere),
        cmocka_unit_test(a_q4_0_model_gives_the_same_bits_everywhere),
        cmocka_unit_test(a_q8_0_model_gives_the_same_bits_everywhere),
        cmocka_unit_test(half_precision_models_give_the_same_bits_everywhere),
        cmocka_unit_test(a_damaged_model_gives_the_same_bits_everywhere),
        cmocka_unit_test(long_sequences_give_the_same_bits_everywhere),
        cmocka_unit_test(odd_heads_with_int8_keys_give_the_same_bits_everywhere),
        cmocka_unit_test(a_matrix_of_one_row_may_be_written_as_a_vector),
        cmocka_unit_test(the_rounding_of_the_host_changes_nothing),
        cmocka_unit_test(damage_touches_only_who_sees_it),
        cmocka_unit_test(sequences_do_not_see_each_other),
        cmocka_unit_test(a_truncated_sequence_goes_on_as_if_the_rest_never_was),
        cmocka_unit_test(a_step_that_does_not_fit_changes_nothing),
        cmocka_unit_test(impossible_options_are_named),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
