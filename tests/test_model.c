/* test_model.c: what minim_model_load() says of files that are valid GGUF but not a model it can run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/minim.h"
#include "../kernels/kernels.h"
#include "synth.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const synth_shape shape = {.type = KERN_F32,
                                  .n_layers = 2,
                                  .n_embd = 64,
                                  .n_heads = 4,
                                  .n_kv_heads = 2,
                                  .head_dim = 16,
                                  .n_ff = 96,
                                  .n_ctx = 128};

typedef struct image {
    char *data;
    size_t size;
} image;

static image image_new(void) {
    image i;
    i.data = synth_model(&shape, &i.size);
    assert_non_null(i.data);
    return i;
}

/* Where `text` (a key or a tensor name, with its length before it) stands in the header. */
static char *image_find(const image *i, const char *text) {
    size_t n = strlen(text);
    uint64_t length = n;
    char want[128];
    memcpy(want, &length, 8);
    memcpy(want + 8, text, n);
    for (size_t at = 0; at + 8 + n <= i->size; at++) {
        if (!memcmp(i->data + at, want, 8 + n)) return i->data + at + 8;
    }
    fail_msg("%s is not in the file", text);
    return NULL;
}

static void set_u32(const image *i, const char *key, uint32_t value) {
    memcpy(image_find(i, key) + strlen(key) + 4, &value, 4);
}

static void set_f32(const image *i, const char *key, float value) {
    memcpy(image_find(i, key) + strlen(key) + 4, &value, 4);
}

static void rename_item(const image *i, const char *name) {
    *image_find(i, name) = 'X';
}

/* Loading fails with this status and a one-line text that has all the words; frees the image. */
static void refused(image i, minim_status status, const char *word, const char *word2) {
    minim_error e;
    minim_model *m = (minim_model *)&e;
    minim_status got = minim_model_load_memory(i.data, i.size, "file.gguf", NULL, &m, &e);
    assert_null(m);
    if (got != status || !strstr(e.text, "file.gguf") || !strstr(e.text, word) || !strstr(e.text, word2) ||
        strchr(e.text, '\n')) {
        fail_msg("status %s, text \"%s\"; expected status %s and the words \"%s\", \"%s\"", minim_status_name(got),
                 e.text, minim_status_name(status), word, word2);
    }
    assert_int_equal(e.status, status);
    free(i.data);
}

static void an_unknown_architecture_lists_the_known_ones(void **state) {
    (void)state;
    image i = image_new();
    memcpy(image_find(&i, "general.architecture") + strlen("general.architecture") + 12, "lemma", 5);
    refused(i, MINIM_ERR_UNSUPPORTED, "lemma", "known are: llama");
}

static void every_missing_tensor_is_named(void **state) {
    (void)state;
    static const char *const names[] = {"token_embd.weight",     "output_norm.weight",    "blk.0.attn_norm.weight",
                                        "blk.1.attn_q.weight",   "blk.0.attn_k.weight",   "blk.1.attn_v.weight",
                                        "blk.0.ffn_norm.weight", "blk.1.ffn_gate.weight", "blk.0.attn_output.weight",
                                        "blk.0.ffn_up.weight",   "blk.1.ffn_down.weight"};
    for (size_t k = 0; k < COUNT(names); k++) {
        image i = image_new();
        rename_item(&i, names[k]);
        refused(i, MINIM_ERR_FORMAT, names[k], "missing");
    }
}

static void a_model_without_output_weight_uses_the_embedding(void **state) {
    (void)state;
    image i = image_new();
    rename_item(&i, "output.weight");
    minim_model *m;
    minim_error e;
    assert_int_equal(minim_model_load_memory(i.data, i.size, "tied", NULL, &m, &e), MINIM_OK);
    minim_model_free(m);
    free(i.data);
}

static void every_missing_hyper_parameter_is_named(void **state) {
    (void)state;
    static const char *const keys[] = {"llama.block_count",          "llama.embedding_length",
                                       "llama.feed_forward_length",  "llama.context_length",
                                       "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"};
    for (size_t k = 0; k < COUNT(keys); k++) {
        image i = image_new();
        rename_item(&i, keys[k]);
        refused(i, MINIM_ERR_FORMAT, keys[k], "missing");
    }
    image i = image_new();
    rename_item(&i, "general.architecture");
    refused(i, MINIM_ERR_FORMAT, "general.architecture", "missing");
}

static void impossible_hyper_parameters_are_named(void **state) {
    (void)state;
    static const struct {
        const char *key;
        uint32_t value;
        minim_status status;
        const char *word, *word2;
    } cases[] = {
        {"llama.block_count", 0, MINIM_ERR_FORMAT, "llama.block_count is 0", "expected 1"},
        {"llama.block_count", UINT32_MAX, MINIM_ERR_FORMAT, "llama.block_count", "expected 1"},
        {"llama.block_count", 1025, MINIM_ERR_FORMAT, "llama.block_count is 1025", "expected 1 to 1024"},
        {"llama.block_count", 3, MINIM_ERR_FORMAT, "blk.2.", "missing"},
        {"llama.embedding_length", 0, MINIM_ERR_FORMAT, "llama.embedding_length", "expected 1"},
        {"llama.embedding_length", 65, MINIM_ERR_FORMAT, "token_embd.weight", "expected [65, 512]"},
        {"llama.embedding_length", UINT32_MAX, MINIM_ERR_FORMAT, "llama.embedding_length", "expected 1"},
        {"llama.feed_forward_length", 0, MINIM_ERR_FORMAT, "llama.feed_forward_length", "expected 1"},
        {"llama.feed_forward_length", 95, MINIM_ERR_FORMAT, "blk.0.ffn_", "expected ["},
        {"llama.context_length", 0, MINIM_ERR_FORMAT, "llama.context_length", "expected 1"},
        {"llama.context_length", UINT32_MAX, MINIM_ERR_FORMAT, "llama.context_length", "expected 1"},
        {"llama.attention.head_count", 0, MINIM_ERR_FORMAT, "llama.attention.head_count", "expected 1"},
        {"llama.attention.head_count", 8, MINIM_ERR_FORMAT, "blk.0.attn_q.weight", "expected [64, 128]"},
        {"llama.attention.head_count_kv", 0, MINIM_ERR_FORMAT, "llama.attention.head_count_kv", "expected 1"},
        {"llama.attention.head_count_kv", 3, MINIM_ERR_FORMAT, "4 attention heads", "3 key-value heads"},
        {"llama.attention.key_length", 0, MINIM_ERR_FORMAT, "llama.attention.key_length", "expected 1"},
        {"llama.attention.value_length", 8, MINIM_ERR_UNSUPPORTED, "value_length", "key_length"},
        {"llama.rope.dimension_count", 15, MINIM_ERR_FORMAT, "rope.dimension_count", "even"},
        {"llama.rope.dimension_count", 18, MINIM_ERR_FORMAT, "rope.dimension_count is 18", "expected 2 to 16"},
        {"llama.rope.dimension_count", 0, MINIM_ERR_FORMAT, "rope.dimension_count", "expected 2"},
    };
    for (size_t k = 0; k < COUNT(cases); k++) {
        image i = image_new();
        set_u32(&i, cases[k].key, cases[k].value);
        refused(i, cases[k].status, cases[k].word, cases[k].word2);
    }
    static const float eps[] = {0, -1, NAN, INFINITY};
    for (size_t k = 0; k < COUNT(eps); k++) {
        image i = image_new();
        set_f32(&i, "llama.attention.layer_norm_rms_epsilon", eps[k]);
        refused(i, MINIM_ERR_FORMAT, "layer_norm_rms_epsilon", "above 0");
    }
}

static void heads_that_do_not_divide_the_width_need_their_size(void **state) {
    (void)state;
    image i = image_new();
    rename_item(&i, "llama.attention.key_length");
    set_u32(&i, "llama.attention.head_count", 3);
    set_u32(&i, "llama.attention.head_count_kv", 3);
    refused(i, MINIM_ERR_FORMAT, "embedding_length 64 is not a multiple of 3 heads", "key_length is missing");
}

/* The type of a number key is changed in place: u32 and f32 have the same size. */
static void a_hyper_parameter_of_another_type_is_named(void **state) {
    (void)state;
    image i = image_new();
    uint32_t f32 = 6;
    memcpy(image_find(&i, "llama.block_count") + strlen("llama.block_count"), &f32, 4);
    refused(i, MINIM_ERR_FORMAT, "llama.block_count", "f32");
}

static void a_matrix_of_another_shape_is_named(void **state) {
    (void)state;
    image i = image_new(); /* ffn_down [96, 64] becomes its transpose */
    uint64_t dims[2] = {64, 96};
    memcpy(image_find(&i, "blk.1.ffn_down.weight") + strlen("blk.1.ffn_down.weight") + 4, dims, sizeof dims);
    refused(i, MINIM_ERR_FORMAT, "blk.1.ffn_down.weight has shape [64, 96, 1, 1]", "expected [96, 64]");
    i = image_new();
    uint64_t one = 32;
    memcpy(image_find(&i, "blk.0.attn_norm.weight") + strlen("blk.0.attn_norm.weight") + 4, &one, sizeof one);
    refused(i, MINIM_ERR_FORMAT, "blk.0.attn_norm.weight has shape [32,", "expected [64, 1]");
}

static void a_weight_type_without_kernels_is_refused(void **state) {
    (void)state;
    image i = image_new(); /* the last tensor's type: I32 has the size of F32 */
    uint32_t type = 26;
    memcpy(image_find(&i, "blk.1.ffn_down.weight") + strlen("blk.1.ffn_down.weight") + 20, &type, sizeof type);
    refused(i, MINIM_ERR_UNSUPPORTED, "blk.1.ffn_down.weight has type I32", "quantised type");
}

static void a_file_that_is_no_model_can_be_described(void **state) {
    (void)state;
    image i = image_new();
    memcpy(image_find(&i, "general.architecture") + strlen("general.architecture") + 12, "lemma", 5);
    minim_model_options o;
    minim_model_options_default(&o);
    o.level = MINIM_LOAD_VOCAB;
    minim_model *m;
    minim_error e;
    assert_int_equal(minim_model_load_memory(i.data, i.size, "lemma.gguf", &o, &m, &e), MINIM_OK);
    free(i.data);
    minim_model_info info = {.size = sizeof info};
    assert_int_equal(minim_model_get_info(m, &info), MINIM_OK);
    assert_string_equal(info.architecture, "lemma");
    assert_int_equal(info.n_vocab, 512);
    minim_memory_plan plan = {.size = sizeof plan};
    assert_int_equal(minim_engine_plan(m, NULL, &plan, &e), MINIM_ERR_UNSUPPORTED);
    minim_engine *engine;
    assert_int_equal(minim_engine_new(m, NULL, &engine, &e), MINIM_ERR_UNSUPPORTED);
    minim_model_free(m);
}

static int stop_at_half(void *user, double fraction) {
    double *last = user;
    assert_true(fraction > *last && fraction <= 1);
    *last = fraction;
    return fraction > 0.5;
}

static void an_impossible_load_level_is_named(void **state) {
    (void)state;
    minim_error e;
    minim_model *m;
    minim_model_options o;
    image i = image_new();
    minim_model_options_default(&o);
    for (int level = -1; level <= 3; level += 4) {
        o.level = (minim_load_level)level;
        assert_int_equal(minim_model_load_memory(i.data, i.size, "file", &o, &m, &e), MINIM_ERR_ARGUMENT);
        assert_non_null(strstr(e.text, "level"));
        assert_null(m);
    }
    free(i.data);
}

static void loading_reports_progress_and_can_be_cancelled(void **state) {
    (void)state;
    image i = image_new();
    double last = 0;
    minim_model_options o;
    minim_model_options_default(&o);
    o.progress = stop_at_half, o.progress_user = &last;
    minim_model *m;
    assert_int_equal(minim_model_load_memory(i.data, i.size, "x", &o, &m, NULL), MINIM_ERR_CANCELLED);
    assert_null(m);
    assert_true(last > 0.5);
    free(i.data);
}

static void a_log_line_names_tensors_that_are_not_used(void *user, minim_log_level level, const char *text) {
    int *seen = user;
    if (level == MINIM_LOG_WARN && strstr(text, "Xlk.0.attn_q.bias")) ++*seen;
}

static void unused_tensors_are_reported(void **state) {
    (void)state;
    synth_shape biased = shape;
    biased.biases = 1;
    image i;
    i.data = synth_model(&biased, &i.size);
    assert_non_null(i.data);
    rename_item(&i, "blk.0.attn_q.bias");
    int seen = 0;
    minim_model_options o;
    minim_model_options_default(&o);
    o.log = a_log_line_names_tensors_that_are_not_used, o.log_user = &seen;
    minim_model *m;
    assert_int_equal(minim_model_load_memory(i.data, i.size, "x", &o, &m, NULL), MINIM_OK);
    assert_int_equal(seen, 1);
    minim_model_free(m);
    free(i.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_architecture_lists_the_known_ones),
        cmocka_unit_test(every_missing_tensor_is_named),
        cmocka_unit_test(a_model_without_output_weight_uses_the_embedding),
        cmocka_unit_test(every_missing_hyper_parameter_is_named),
        cmocka_unit_test(impossible_hyper_parameters_are_named),
        cmocka_unit_test(heads_that_do_not_divide_the_width_need_their_size),
        cmocka_unit_test(a_hyper_parameter_of_another_type_is_named),
        cmocka_unit_test(a_matrix_of_another_shape_is_named),
        cmocka_unit_test(a_weight_type_without_kernels_is_refused),
        cmocka_unit_test(a_file_that_is_no_model_can_be_described),
        cmocka_unit_test(an_impossible_load_level_is_named),
        cmocka_unit_test(loading_reports_progress_and_can_be_cancelled),
        cmocka_unit_test(unused_tensors_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
