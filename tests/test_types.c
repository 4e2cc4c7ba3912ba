/* test_types.c: every weight type: the values of its blocks, models made of it, and damage in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/engine.h"
#include "../engine/gguf.h"
#include "../engine/minim.h"
#include "../kernels/quants/quants.h"
#include "gguf_writer.h"
#include "../router/sha256.h"
#include "synth.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { N_VOCAB = 512, N_TOKENS = 40 };

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* SHA-256 of all values of tests/data/quants/NAME.gguf, three tensors one after another, as llama.cpp's gguf-py gives
 * them, float32. The files hold random bits besides ordinary weights: every table entry, sign and scale is there. */
static const struct values {
    const char *name, *sha256;
} values[] = {
    {"bf16", "07ec1fdb7a191308270e774953d275da07243e341167a29c41a91d4f27eda187"},
    {"f16", "97d5025285bd4ae63dcf9074b8285dd7cec32e3a60963cd29b823b5a187fcd0a"},
    {"iq1_m", "34517f3d0e94b26194e2673be798585ba6aae6e8d4d2aae627165d468f73e2cc"},
    {"iq1_s", "40a4ca577bf7cd3f35ad3b886ae3f8325b87cdd77b70e634380901bd111498f8"},
    {"iq2_s", "e30d65dd1f60c1b9e3029fb155620888395dfc0014ce65dcf6fdcf4d4a9483fd"},
    {"iq2_xs", "eb746b2d90b88c26fc7ceeb1c29724220409592ee434548c55ca0f9c8d6036f7"},
    {"iq2_xxs", "1aa9057a4cd99a025539bbc1fe29fefa4d1060ed8524a6283317e72ab0abbdc5"},
    {"iq3_s", "0fb3fec46360b0f80ea41eb92079d845b2c64a5a1643f2dedd0cd0ccc80eed0b"},
    {"iq3_xxs", "3a083927ca039e54f7a832dbed7fc253ffcd9ea90c582e211f4e2de57b368e3b"},
    {"iq4_nl", "036a2de012c96eefb3a7cd7fdeb9c82a5a0c07dbe73c8908f0ae8900ce6059bd"},
    {"iq4_xs", "61576ca25ad0640727bb1a6549d335e0c49f96d1dd6fc200f74285628b4a1acb"},
    {"mxfp4", "fbb06a6f37dc2a025b9bb010a801677036aa5067b4b0faf26a796841007659b4"},
    {"nvfp4", "3be9fd41973c91f058436543577273b30b011a0a35e4ad92fc9942cd71e32ef0"},
    {"q2_k", "e704c143259fe226fdc360a4c1fc9552112c7c738696533678b53e20d9e1e22a"},
    {"q3_k", "37484d558bc9d216acbf1b0b45651736d2fd9db87f41c2b325f1095ff788be3e"},
    {"q4_0", "7ba562dd017d7c2526bc0aa0a143778608e91ddcec2c7536b5ed50a060d9b752"},
    {"q4_1", "70aa16789ef53daf6d2ab6c9ce82dd4be627b888cc64c06e40238ef951b5ccf9"},
    {"q4_k", "a5f990932fd9984cca3c06d3c904e90f770eb5e050164f7a428e6b352ea84d43"},
    {"q5_0", "a8e7eddba886fc21d32249cf9b850b669687e4fe1fbeaed46f175e1600d21f7b"},
    {"q5_1", "b61d71f2e676e008e8f749abaf75bb8e9e62083971d12c560fb535ff829aeac1"},
    {"q5_k", "5ef07d213571fc1bf8f3c3c178f516c6ba40e09c620612937b2d1fc52708f53a"},
    {"q6_k", "e306fe2aaa5ab48d24451310abafc03745236d7685eaecee4c5f9bb33f1dd451"},
    {"q8_0", "aee4f4f90c8c16890c2c5e62df246f92ff1670ba97bc2ba96447863c16bb471f"},
    {"tq1_0", "8c21e650385923b07e18ccdcdcc49ab1985844006705f8aea3b4acc9a1cc0c32"},
    {"tq2_0", "b7ccd4b06a4d5934d67bc41558d5d5ee4e7e785d25042d91876185f8a7003873"},
};

static void values_are_those_of_the_formats(void **state) {
    enum { N_VALUES = 11008 };
    static float all[N_VALUES];
    (void)state;
    for (size_t i = 0; i < COUNT(values); i++) {
        char path[128], hex[65];
        minim_error e;
        minim_model *m;
        minim_model_options o;
        minim_model_options_default(&o);
        o.level = MINIM_LOAD_HEADER;
        snprintf(path, sizeof path, "tests/data/quants/%s.gguf", values[i].name);
        ok(minim_model_load(path, &o, &m, &e), &e);
        size_t n = 0;
        for (size_t t = 0; t < minim_model_tensor_count(m); t++) {
            minim_tensor tensor;
            minim_model_tensor(m, t, &tensor);
            const uint64_t elements = tensor.dims[0] * tensor.dims[1];
            assert_true(n + elements <= N_VALUES);
            /* in pieces that do not fit the blocks */
            for (uint64_t at = 0, piece; at < elements; at += piece) {
                piece = elements - at < 777 ? elements - at : 777;
                ok(minim_model_tensor_values(m, t, at, (size_t)piece, all + n + at, &e), &e);
            }
            n += (size_t)elements;
            assert_int_equal(minim_model_tensor_values(m, t, elements - 1, 2, all, &e), MINIM_ERR_ARGUMENT);
            assert_non_null(strstr(e.text, tensor.name));
        }
        assert_int_equal(n, N_VALUES);
        sha256_hex(all, sizeof all, hex);
        if (strcmp(hex, values[i].sha256)) fail_msg("%s: the values have SHA-256 %s", values[i].name, hex);
        minim_model_free(m);
    }
}

static void a_loaded_model_has_given_its_file_away(void **state) {
    (void)state;
    float x;
    minim_error e;
    minim_model *m;
    ok(minim_model_load("models/stories260K.gguf", NULL, &m, &e), &e);
    assert_int_equal(minim_model_tensor_values(m, 0, 0, 1, &x, &e), MINIM_ERR_IO);
    minim_model_free(m);
}

/* ---- whole models ------------------------------------------------------------------------------------------------ */

static float *logits_with(const minim_model *m, const char *isa, int threads, size_t chunk, const int32_t *tokens,
                          size_t n) {
    minim_error e;
    minim_engine *engine;
    minim_seq *seq;
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.isa = isa, o.n_threads = threads, o.kv_type = MINIM_KV_F32, o.n_ctx = 256;
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    engine->share_all = 1;
    ok(minim_seq_new(engine, &seq, &e), &e);
    float *logits = malloc(n * N_VOCAB * sizeof *logits);
    minim_row rows[N_TOKENS];
    assert_non_null(logits);
    for (size_t i = 0; i < n; i++) rows[i] = (minim_row){.seq = seq, .token = tokens[i], .want_logits = 1};
    for (size_t i = 0, now; i < n; i += now) {
        now = n - i < chunk ? n - i : chunk;
        ok(minim_engine_step(engine, rows + i, now, logits + i * N_VOCAB, &e), &e);
    }
    minim_seq_free(seq);
    minim_engine_free(engine);
    return logits;
}

static minim_model *model_of(const void *data, size_t size) {
    minim_error e;
    minim_model *m;
    ok(minim_model_load_memory(data, size, "synthetic", NULL, &m, &e), &e);
    return m;
}

/* For every type and instruction set, with one split of the work or another. */
static void models_of_every_type_have_the_same_bits_everywhere(void **state) {
    (void)state;
    enum { SOME = 21 };
    int32_t tokens[SOME];
    synth_tokens(tokens, SOME);
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        if (!kern_type_get(type).has_kernels) continue;
        synth_shape shape = {.type = type,
                             .n_layers = 1,
                             .n_embd = 256,
                             .n_heads = 4,
                             .n_kv_heads = 2,
                             .head_dim = 64,
                             .n_ff = 256,
                             .n_ctx = 64,
                             .tied = 1};
        size_t size;
        void *data = synth_model(&shape, &size);
        assert_non_null(data);
        minim_model *m = model_of(data, size);
        free(data);
        float *want = logits_with(m, "ref", 2, SOME, tokens, SOME);
        for (size_t i = 0; i < SOME * N_VOCAB; i++) assert_true(isfinite(want[i]) && fabsf(want[i]) < 1000);
        const char *isa;
        for (int i = 0; (isa = kern_isa_name(i)); i++) {
            static const struct {
                int threads;
                size_t chunk;
            } split[] = {{1, SOME}, {2, 1}, {3, 5}};
            const size_t k = (size_t)(type + (uint32_t)i) % COUNT(split);
            if (kern_isa_available(isa)) {
                float *got = logits_with(m, isa, split[k].threads, split[k].chunk, tokens, SOME);
                if (memcmp(got, want, SOME * N_VOCAB * sizeof *got))
                    fail_msg("%s on %s, %d threads: other bits", kern_type_get(type).name, isa, split[k].threads);
                free(got);
            }
        }
        free(want);
        minim_model_free(m);
    }
}

static void *read_all(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    *size = 0;
    if (!f) return NULL;
    char *data = malloc(1 << 21);
    if (data) *size = fread(data, 1, 1 << 21, f);
    fclose(f);
    return data;
}

/* The same model with all weights in F32: the metadata as it is, every tensor with the values it stands for. */
static void *with_f32_weights(const char *path, size_t *size) {
    minim_error e;
    gguf_file *file;
    gw w;
    minim_allocator a = mem_allocator(NULL);
    uint8_t *image = read_all(path, size);
    assert_non_null(image);
    ok(gguf_open(&a, path, image, *size, &file, &e), &e);
    gw_init(&w);
    w.n_keys = gguf_value_count(file);
    const char *name = gguf_tensor_at(file, 0)->name.s;
    size_t at = 24, length = strlen(name);
    while (at + 8 + length < *size && (memcmp(image + at + 8, name, length) || image[at] != length)) at++;
    gw_put(&w.keys, image + 24, at - 24);
    for (size_t i = 0; i < gguf_tensor_count(file); i++) {
        const gguf_tensor *t = gguf_tensor_at(file, i);
        float *x = malloc(t->elements * sizeof *x);
        assert_non_null(x);
        kern_dequantize(t->type, gguf_data(file, t), (int64_t)t->elements, x);
        gw_tensor(&w, t->name.s, KERN_F32, t->n_dims, t->dim, x, t->elements * sizeof *x);
        free(x);
    }
    gguf_close(file);
    free(image);
    image = gw_finish(&w, size);
    gw_free(&w);
    return image;
}

static void difference(const float *a, const float *b, size_t n, double *worst, double *rms) {
    *worst = *rms = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        *worst = d > *worst || d != d ? d : *worst;
        *rms += d * d;
    }
    *rms = sqrt(*rms / (double)n);
}

/* A model that llama-quantize made, beside its logits in float64 with exact activations: the values of the weights are
 * exact, so F32 weights come as close as F32 does; with int8 activations the difference is about what llama.cpp's
 * activations cost (max, rms, as meta.json has them). */
static void whole_model(const char *folder, const char *name, double max, double rms) {
    char path[512];
    int32_t tokens[N_TOKENS];
    minim_error e;
    minim_model *m;
    size_t n = 0, size;
    double worst, mean;
    snprintf(path, sizeof path, "%s/%s/tokens.txt", folder, name);
    FILE *f = fopen(path, "r");
    if (!f) fail_msg("%s can not be opened", path);
    for (int id; n < N_TOKENS && fscanf(f, "%d", &id) == 1;) tokens[n++] = id;
    fclose(f);
    assert_int_equal(n, N_TOKENS);
    snprintf(path, sizeof path, "%s/%s/ref64.f32", folder, name);
    float *want = read_all(path, &size);
    assert_non_null(want);
    assert_int_equal(size, n * N_VOCAB * sizeof *want);

    snprintf(path, sizeof path, "%s/%s/model.gguf", folder, name);
    ok(minim_model_load(path, NULL, &m, &e), &e);
    float *got = logits_with(m, NULL, 2, N_TOKENS, tokens, n);
    difference(got, want, n * N_VOCAB, &worst, &mean);
    print_message("  %-8s largest difference %.4f of %.4f, rms %.4f of %.4f\n", name, worst, max, mean, rms);
    assert_true(worst <= 1.25 * max && mean <= rms); /* one of 20480 numbers is largest by chance */
    free(got);
    minim_model_free(m);

    void *exact = with_f32_weights(path, &size);
    m = model_of(exact, size);
    free(exact);
    got = logits_with(m, NULL, 2, N_TOKENS, tokens, n);
    difference(got, want, n * N_VOCAB, &worst, &mean);
    assert_true(worst <= 3e-4);
    free(got);
    minim_model_free(m);
    free(want);
}

static void a_mixed_file_is_as_good_as_in_llama_cpp(void **state) {
    (void)state;
    whole_model("tests/data/logits-quant", "q4_k_m", 0.355, 0.0641);
}

static void every_file_type_is_as_good_as_in_llama_cpp(void **state) {
    static const struct {
        const char *name;
        double max, rms;
    } type[] = {{"bf16", 0.0648, 0.0124},  {"f16", 0.00784, 0.00154}, {"iq4_nl", 0.211, 0.0468},
                {"iq4_xs", 0.304, 0.0639}, {"q2_k", 0.306, 0.0639},   {"q3_k_m", 0.308, 0.0629},
                {"q4_0", 0.267, 0.0442},   {"q4_1", 0.219, 0.045},    {"q4_k_m", 0.355, 0.0641},
                {"q5_0", 0.212, 0.0444},   {"q5_1", 0.251, 0.0444},   {"q5_k_m", 0.297, 0.0636},
                {"q6_k", 0.309, 0.0645},   {"q8_0", 0.209, 0.0444}};
    const char *shared = getenv("MINIM_SHARED");
    char folder[400], path[512];
    (void)state;
    snprintf(folder, sizeof folder, "%s/fixtures/logits-quant", shared ? shared : "../shared");
    snprintf(path, sizeof path, "%s/q8_0/model.gguf", folder);
    FILE *f = fopen(path, "rb");
    if (!f) {
        print_message("no fixtures in %s, left out\n", folder);
        skip();
    }
    fclose(f);
    for (size_t i = 0; i < COUNT(type); i++) whole_model(folder, type[i].name, type[i].max, type[i].rms);
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static void a_scale_that_is_no_number_is_an_error_that_names_the_tensor(void **state) {
    (void)state;
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        const kern_type_info info = kern_type_get(type);
        if (!info.has_kernels || !info.integer || (!kern_format_of(type)->n_f16 && type != KERN_MXFP4)) continue;
        synth_shape shape = {.type = type,
                             .n_layers = 1,
                             .n_embd = 256,
                             .n_heads = 4,
                             .n_kv_heads = 2,
                             .head_dim = 64,
                             .n_ff = 256,
                             .n_ctx = 64,
                             .tied = 1};
        size_t size;
        minim_error e;
        minim_model *m = (minim_model *)&e;
        gguf_file *file;
        minim_allocator a = mem_allocator(NULL);
        uint8_t *image = synth_model(&shape, &size);
        assert_non_null(image);
        ok(gguf_open(&a, "x", image, size, &file, &e), &e);
        const gguf_tensor *t = gguf_find_tensor(file, "blk.0.ffn_up.weight");
        const uint16_t bad = type % 2 ? 0xfc00 : 0x7e01; /* minus infinity, not a number */
        uint8_t *block = image + t->offset + 37 * (256 / info.block) * info.block_bytes; /* the first of row 37 */
        if (type == KERN_MXFP4)
            block[0] = 0xff;
        else
            memcpy(block + kern_format_of(type)->f16_at, &bad, 2);
        gguf_close(file);
        assert_int_equal(minim_model_load_memory(image, size, "file.gguf", NULL, &m, &e), MINIM_ERR_FORMAT);
        assert_null(m);
        if (!strstr(e.text, "file.gguf: tensor blk.0.ffn_up.weight: the scale of the block at row 37, column 0 is "))
            fail_msg("%s: %s", info.name, e.text);
        free(image);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_those_of_the_formats),
        cmocka_unit_test(a_loaded_model_has_given_its_file_away),
        cmocka_unit_test(models_of_every_type_have_the_same_bits_everywhere),
        cmocka_unit_test(a_mixed_file_is_as_good_as_in_llama_cpp),
        cmocka_unit_test(every_file_type_is_as_good_as_in_llama_cpp),
        cmocka_unit_test(a_scale_that_is_no_number_is_an_error_that_names_the_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
