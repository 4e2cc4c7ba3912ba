/* test_convert.c: `minim convert`. A Hugging Face directory is made of a GGUF file by undoing what a converter does;
 * converting it has to give that file back: weights and logits bit for bit, keys and vocabulary too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../engine/minim.h"
#include "convert_test.h"
#include "synth.h"

/* ---- equal files ------------------------------------------------------------------------------------------------- */

/* Norms of the Gemma kind went through w - 1 + 1 in float32, which is not always w. */
static void as_shifted(const gguf_file *file, const gguf_tensor *t, uint8_t *data) {
    const gguf_value *architecture = gguf_find(file, "general.architecture");
    float *x = (float *)data;
    if (strncmp(((const gguf_str *)architecture->data)->s, "gemma", 5) != 0 || !strstr(t->name.s, "norm.weight"))
        return;
    for (uint64_t i = 0; i < t->elements; i++) {
        const volatile float less = x[i] - 1;
        x[i] = less + 1;
    }
}

static void same_tensors(const gguf_file *expected, const gguf_file *found) {
    assert_int_equal(gguf_tensor_count(found), gguf_tensor_count(expected));
    for (size_t i = 0; i < gguf_tensor_count(expected); i++) {
        const gguf_tensor *a = gguf_tensor_at(expected, i), *b = gguf_find_tensor(found, a->name.s);
        if (!b) fail_msg("%s is missing", a->name.s);
        if (a->type != b->type || a->n_dims != b->n_dims || memcmp(a->dim, b->dim, sizeof a->dim) != 0)
            fail_msg("%s: another type or shape", a->name.s);
        uint8_t *x = read_tensor(expected, a), *y = read_tensor(found, b);
        as_shifted(expected, a, x);
        if (memcmp(x, y, a->bytes) != 0) fail_msg("%s: other weights", a->name.s);
        free(x);
        free(y);
    }
}

/* Keys of the fixtures that no directory holds, or that nobody writes. */
static int is_own(const char *key) {
    static const char *const own[] = {"general.name", "seperator_token_id",   "padding_token_id",
                                      "vocab_size",   "rope.dimension_count", "key_length",
                                      "value_length", "unknown_token_id"};
    for (size_t i = 0; i < COUNT(own); i++) {
        if (strstr(key, own[i])) return 1;
    }
    return !strcmp(key, "gemma.rope.freq_base") || !strcmp(key, "gemma2.rope.freq_base");
}

/* The fixtures of Phi-3 hold a factor that is one bit from what the converter's formula gives. */
static int same_floats(const gguf_value *a, const gguf_value *b) {
    for (uint64_t i = 0; i < a->count; i++) {
        const float x = ((const float *)a->data)[i], y = ((const float *)b->data)[i];
        if (!(fabsf(x - y) <= 1e-6f * fabsf(x))) return 0;
    }
    return 1;
}

/* 1 when floats are equal to the last bit. */
static int same_keys(const gguf_file *expected, const gguf_file *found) {
    int exact = 1;
    for (size_t i = 0; i < gguf_value_count(expected); i++) {
        const gguf_value *a = gguf_value_at(expected, i), *b = gguf_find(found, a->key.s);
        if (!b && is_own(a->key.s)) continue;
        if (!b) fail_msg("%s is missing", a->key.s);
        if (a->type != b->type || a->elem_type != b->elem_type || a->count != b->count)
            fail_msg("%s: another type", a->key.s);
        int same = 1;
        const gguf_str *s = a->data, *r = b->data;
        for (uint64_t k = 0; a->elem_type == GGUF_STR && k < a->count; k++)
            same &= s[k].n == r[k].n && !memcmp(s[k].s, r[k].s, s[k].n);
        if (a->elem_type == GGUF_F32) {
            same = same_floats(a, b);
            exact &= !memcmp(a->data, b->data, 4 * a->count);
        } else if (a->elem_type != GGUF_STR) {
            same = !memcmp(a->data, b->data, a->count * gguf_type_bytes(a->elem_type));
        }
        if (!same && strcmp(a->key.s, "general.name") != 0) fail_msg("%s: another value", a->key.s);
    }
    return exact;
}

/* [n][n_vocab] float32, or NULL when this architecture cannot be run. */
static float *logits_of(const char *path, const int32_t *tokens, size_t n, size_t *n_vocab) {
    minim_model *model = NULL;
    minim_engine *engine = NULL;
    minim_seq *seq = NULL;
    minim_error e;
    minim_model_info info = {.size = sizeof info};
    minim_engine_options options;
    minim_engine_options_default(&options);
    options.kv_type = MINIM_KV_F32;
    if (minim_model_load(path, NULL, &model, &e)) {
        if (e.status != MINIM_ERR_UNSUPPORTED) fail_msg("%s", e.text);
        return NULL;
    }
    if (minim_engine_new(model, &options, &engine, &e) || minim_seq_new(engine, &seq, &e)) fail_msg("%s", e.text);
    assert_int_equal(minim_model_get_info(model, &info), MINIM_OK);
    minim_row *rows = calloc(n, sizeof *rows);
    float *logits = malloc(n * (size_t)info.n_vocab * sizeof *logits);
    assert_true(rows && logits);
    for (size_t i = 0; i < n; i++) rows[i] = (minim_row){seq, tokens[i], 1};
    if (minim_engine_step(engine, rows, n, logits, &e)) fail_msg("%s", e.text);
    *n_vocab = (size_t)info.n_vocab;
    free(rows);
    minim_seq_free(seq);
    minim_engine_free(engine);
    minim_model_free(model);
    return logits;
}

/* The largest difference of logits, 0 only when all bits are equal; -1 when they cannot be computed. */
static double other_logits(const char *expected, const char *found) {
    enum { TOKENS = 24 };
    int32_t tokens[TOKENS];
    size_t n, m;
    double most = 0;
    synth_tokens(tokens, TOKENS);
    float *a = logits_of(expected, tokens, TOKENS, &n);
    if (!a) return -1;
    float *b = logits_of(found, tokens, TOKENS, &m);
    if (!b) fail_msg("%s runs, %s does not", expected, found);
    assert_int_equal(n, m);
    for (size_t i = 0; i < TOKENS * n; i++) {
        if (memcmp(&a[i], &b[i], sizeof *a) != 0) most = fmax(most, fmax(fabs((double)a[i] - (double)b[i]), 1e-30));
    }
    free(a);
    free(b);
    return most;
}

/* ---- families ---------------------------------------------------------------------------------------------------- */

static int is_convertible(const char *name) {
    static const char *const names[] = {"llama",
                                        "llama-bias",
                                        "llama-linear",
                                        "llama-k256",
                                        "mistral3",
                                        "smollm3",
                                        "qwen2",
                                        "qwen3",
                                        "phi3",
                                        "phi3-longrope",
                                        "gemma",
                                        "gemma2",
                                        "phi3-longrope-full",
                                        "gemma3",
                                        "phi3-longrope-short"};
    for (size_t i = 0; i < COUNT(names); i++) {
        if (!strcmp(names[i], name)) return 1;
    }
    return 0;
}

/* Every fixture of a folder whose family can be converted; returns how many. */
static int check_folder(const char *folder) {
    DIR *dir = opendir(folder);
    int n = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[1024];
        if (!is_convertible(entry->d_name)) continue;
        snprintf(path, sizeof path, "%s/%s/model.gguf", folder, entry->d_name);
        gguf_file *expected = open_file(path);
        hf_remove_directory(directory);
        mkdir(directory, 0700);
        hf_write_model(directory, expected);
        convert("-q --type f32");
        gguf_file *found = open_file(output);
        same_tensors(expected, found);
        const int exact = same_keys(expected, found) && strncmp(entry->d_name, "gemma", 5) != 0;
        gguf_close(found);
        gguf_close(expected);
        const double different = other_logits(path, output);
        if (different < 0)
            printf("# %-20s weights and keys equal; cannot be run\n", entry->d_name);
        else
            printf("# %-20s weights and keys equal, logits differ by %g at most\n", entry->d_name, different);
        if (different > (exact ? 0 : 1e-4)) fail_msg("%s: logits differ by %g", entry->d_name, different);
        n++;
    }
    if (dir) closedir(dir);
    return n;
}

static void every_family_comes_back(void **state) {
    const char *shared = getenv("MINIM_SHARED");
    char folder[512];
    (void)state;
    assert_int_equal(check_folder("tests/data/logits"), 3);
    snprintf(folder, sizeof folder, "%s/fixtures/logits", shared ? shared : "../shared");
    if (!check_folder(folder)) printf("# SKIP convert: there are no fixtures of other families in %s\n", folder);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static const char fixture[] = "tests/data/logits/llama/model.gguf";

/* The directory of the llama fixture with weights of this type. */
static void write_llama(const char *dtype) {
    gguf_file *file = open_file(fixture);
    hf_tensors tensors = hf_tensors_of(file);
    hf_write_config(directory, file);
    hf_write_spm(directory, file);
    if (dtype) hf_round(&tensors, dtype);
    hf_write_safetensors(directory, "model.safetensors", &tensors, 0, tensors.n);
    hf_free(&tensors);
    gguf_close(file);
}

static uint32_t type_of(const char *tensor) {
    gguf_file *file = open_file(output);
    const uint32_t type = gguf_find_tensor(file, tensor)->type;
    gguf_close(file);
    return type;
}

static void the_type_is_that_of_the_weights_or_the_chosen_one(void **state) {
    static const struct {
        const char *dtype, *option;
        uint32_t type;
    } cases[] = {{NULL, "", 1},
                 {"F16", "", 1},
                 {"BF16", "", 30},
                 {"BF16", "--type f16", 1},
                 {NULL, "--type f32", 0},
                 {"F16", "--type bf16", 30},
                 {"BF16", "--outtype f32", 0}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char options[64];
        write_llama(cases[i].dtype);
        snprintf(options, sizeof options, "-q %s", cases[i].option);
        convert(options);
        if (type_of("blk.0.attn_q.weight") != cases[i].type)
            fail_msg("case %zu: type %u", i, type_of("blk.0.attn_q.weight"));
        assert_int_equal(type_of("blk.0.attn_norm.weight"), 0);
    }
}

/* A tensor of a model that was written as `dtype` and converted with `option`, as floats. */
static void the_same_numbers_come_out(void **state) {
    (void)state;
    write_llama("F16");
    convert("-q --type f32");
    gguf_file *wide = open_file(output);
    uint8_t *x = read_tensor(wide, gguf_find_tensor(wide, "blk.0.attn_k.weight"));
    const uint64_t n = gguf_find_tensor(wide, "blk.0.attn_k.weight")->elements;
    convert("-q");
    gguf_file *narrow = open_file(output);
    uint8_t *y = read_tensor(narrow, gguf_find_tensor(narrow, "blk.0.attn_k.weight"));
    for (uint64_t i = 0; i < n; i++) {
        const unsigned half = (unsigned)y[2 * i] | (unsigned)y[2 * i + 1] << 8;
        const int exponent = (int)(half >> 10 & 31);
        const float magnitude =
            exponent ? ldexpf((float)(half & 1023) + 1024, exponent - 25) : ldexpf((float)(half & 1023), -24);
        float found;
        memcpy(&found, x + 4 * i, 4);
        if (found != (half & 0x8000 ? -magnitude : magnitude)) fail_msg("number %llu", (unsigned long long)i);
    }
    free(x);
    free(y);
    gguf_close(wide);
    gguf_close(narrow);
}

/* Numbers between two halves go to the nearest, ties to even, small and large ones too. */
static void halves_are_rounded_to_the_nearest(void **state) {
    static const struct {
        float x;
        uint16_t half;
    } cases[] = {{0.0f, 0},
                 {-0.0f, 0x8000},
                 {1.0f, 0x3c00},
                 {1.00048828125f, 0x3c00},
                 {1.00146484375f, 0x3c02},
                 {65504.0f, 0x7bff},
                 {65519.9f, 0x7bff},
                 {65520.0f, 0x7c00},
                 {-1e30f, 0xfc00},
                 {6.103515625e-5f, 0x0400},
                 {6.0975552e-5f, 0x03ff},
                 {5.9604645e-8f, 1},
                 {2.9802322e-8f, 0},
                 {2.98023260e-8f, 1},
                 {8.9406967e-8f, 2},
                 {-3.3e-7f, 0x8006}};
    (void)state;
    gguf_file *file = open_file(fixture);
    hf_tensors tensors = hf_tensors_of(file);
    hf_tensor *matrix = NULL;
    for (size_t i = 0; i < tensors.n; i++) {
        if (!strcmp(tensors.items[i].name, "model.layers.0.self_attn.v_proj.weight")) matrix = &tensors.items[i];
    }
    assert_non_null(matrix);
    for (size_t i = 0; i < COUNT(cases); i++) ((float *)matrix->data)[i] = cases[i].x;
    hf_write_config(directory, file);
    hf_write_spm(directory, file);
    hf_write_safetensors(directory, "model.safetensors", &tensors, 0, tensors.n);
    convert("-q --type f16");
    gguf_file *found = open_file(output);
    uint8_t *data = read_tensor(found, gguf_find_tensor(found, "blk.0.attn_v.weight"));
    for (size_t i = 0; i < COUNT(cases); i++) {
        const unsigned half = (unsigned)data[2 * i] | (unsigned)data[2 * i + 1] << 8;
        if (half != cases[i].half) fail_msg("%.9g became %04x, expected %04x", (double)cases[i].x, half, cases[i].half);
    }
    free(data);
    gguf_close(found);
    hf_free(&tensors);
    gguf_close(file);
}

static void write_index(const hf_tensors *tensors, size_t cut, const char *second) {
    char *text = NULL;
    size_t size = 0;
    FILE *index = open_memstream(&text, &size);
    fputs("{\"metadata\": {\"total_size\": 1}, \"weight_map\": {", index);
    for (size_t i = 0; i < tensors->n; i++)
        fprintf(index, "%s\"%s\": \"%s\"", i ? ", " : "", tensors->items[i].name,
                i < cut ? "model-00001-of-00002.safetensors" : second);
    fputs("}}", index);
    fclose(index);
    hf_write(directory, "model.safetensors.index.json", text, size);
    free(text);
}

static void parts_give_the_same_model_as_one_file(void **state) {
    static const char second[] = "model-00002-of-00002.safetensors";
    char path[128];
    (void)state;
    gguf_file *file = open_file(fixture);
    hf_tensors tensors = hf_tensors_of(file);
    hf_write_model(directory, file);
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    unlink(path);
    hf_write_safetensors(directory, "model-00001-of-00002.safetensors", &tensors, 0, tensors.n / 2);
    refuses("needs 2 parts, found 1", directory);
    write_index(&tensors, tensors.n / 2, second);
    refuses(second, "No such file");
    hf_write_safetensors(directory, second, &tensors, tensors.n / 2, tensors.n - 1);
    refuses(second, "is missing, which model.safetensors.index.json promises");
    hf_write_safetensors(directory, second, &tensors, tensors.n / 2, tensors.n);
    convert("-q --type f32");
    gguf_file *found = open_file(output);
    same_tensors(file, found);
    gguf_close(found);
    unlink(output);
    write_index(&tensors, tensors.n, second);
    refuses("model-00001-of-00002.safetensors", "is missing");
    write_index(&tensors, tensors.n / 2 - 1, second);
    refuses("is not where model.safetensors.index.json says", second);
    write_index(&tensors, tensors.n / 2, "../model-00002-of-00002.safetensors");
    refuses("model.safetensors.index.json", "expected a file name");
    hf_free(&tensors);
    gguf_close(file);
}

static void llama_3_factors_become_a_tensor(void **state) {
    (void)state;
    write_llama(NULL);
    gguf_file *file = open_file(fixture);
    hf_write_config(directory, file);
    char config[2048], path[128];
    snprintf(path, sizeof path, "%s/config.json", directory);
    FILE *in = fopen(path, "rb");
    config[fread(config, 1, sizeof config - 1, in)] = 0;
    fclose(in);
    snprintf(strrchr(config, '}'), 256,
             ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0,"
             " \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 64}}");
    hf_write_text(directory, "config.json", config);
    convert("-q");
    gguf_file *found = open_file(output);
    const gguf_tensor *t = gguf_find_tensor(found, "rope_freqs.weight");
    float base = 10000;
    uint32_t dim = 0;
    int has;
    assert_non_null(t);
    gguf_get_f32(found, "llama.rope.freq_base", &base, &has, NULL);
    gguf_get_u32(found, "llama.rope.dimension_count", &dim, &has, NULL);
    assert_int_equal(t->elements, dim / 2);
    float *factors = (float *)read_tensor(found, t);
    int between = 0;
    for (uint32_t i = 0; i < dim / 2; i++) {
        const double length = 2 * 3.141592653589793 * pow(base, 2.0 * i / dim);
        double expected = length < 64 / 4.0 ? 1 : 8;
        if (length >= 64 / 4.0 && length <= 64) {
            const double smooth = (64 / length - 1) / 3;
            expected = 1 / ((1 - smooth) / 8 + smooth);
            between++;
        }
        assert_true(fabs(factors[i] - expected) < 1e-5 * expected);
    }
    assert_true(factors[0] == 1 && factors[dim / 2 - 1] == 8 && between > 0);
    free(factors);
    gguf_close(found);
    gguf_close(file);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static void the_plan_can_be_seen_before(void **state) {
    char arguments[256];
    struct stat status;
    (void)state;
    write_llama("BF16");
    snprintf(arguments, sizeof arguments, "--dry-run %s", directory);
    assert_int_equal(run("", arguments), 0);
    assert_non_null(strstr(out, "blk.0.attn_q.weight"));
    assert_non_null(strstr(out, "rows change places"));
    assert_non_null(strstr(err, "llama, BF16"));
    snprintf(arguments, sizeof arguments, "--dry-run --json %s %s", directory, output);
    assert_int_equal(run("", arguments), 0);
    assert_non_null(strstr(out, "\"tensors\": [{\"name\": "));
    assert_int_not_equal(stat(output, &status), 0);
}

static void nothing_that_is_needed_is_overwritten(void **state) {
    char arguments[512], path[256];
    (void)state;
    write_llama("BF16");
    static const char *const names[] = {"model.safetensors", "config.json", "tokenizer.model"};
    for (size_t i = 0; i < COUNT(names); i++) {
        struct stat before, after;
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        assert_int_equal(stat(path, &before), 0);
        snprintf(arguments, sizeof arguments, "--force %s %s", directory, path);
        assert_int_equal(run("", arguments), 1);
        assert_non_null(strstr(err, "is one of those to be converted"));
        assert_int_equal(stat(path, &after), 0);
        assert_int_equal(before.st_size, after.st_size);
    }
    FILE *file = fopen(output, "wb");
    fputs("a letter to my mother", file);
    fclose(file);
    snprintf(arguments, sizeof arguments, "%s %s", directory, output);
    assert_int_equal(run("", arguments), 1);
    assert_non_null(strstr(err, "--force"));
    convert("--force");
    convert(""); /* a GGUF file is replaced */
}

static void a_full_disk_keeps_the_old_file(void **state) {
    char arguments[256];
    struct stat before, after;
    (void)state;
    write_llama(NULL);
    convert("-q --type f16");
    assert_int_equal(stat(output, &before), 0);
    snprintf(arguments, sizeof arguments, "-q --type f32 %s %s", directory, output);
    assert_int_equal(run("ulimit -f 100; ", arguments), 1);
    assert_non_null(strstr(err, "File too large"));
    assert_int_equal(stat(output, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(before.st_ino, after.st_ino);
    snprintf(arguments, sizeof arguments, "test -z \"$(ls %s.*.part 2>/dev/null)\"", output);
    assert_int_equal(system(arguments), 0);
}

static void a_wrong_command_line_is_told(void **state) {
    (void)state;
    assert_int_equal(run("", ""), 2);
    assert_int_equal(run("", "one"), 2);
    assert_int_equal(run("", "one two three"), 2);
    assert_int_equal(run("", "--type q4_0 one two"), 2);
    assert_int_equal(run("", "--help"), 0);
    assert_non_null(strstr(out, "usage: minim convert"));
    assert_int_equal(run("", "/nonexistent /tmp/x.gguf"), 1);
    assert_non_null(strstr(err, "/nonexistent/config.json"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_family_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(the_type_is_that_of_the_weights_or_the_chosen_one, setup, teardown),
        cmocka_unit_test_setup_teardown(the_same_numbers_come_out, setup, teardown),
        cmocka_unit_test_setup_teardown(halves_are_rounded_to_the_nearest, setup, teardown),
        cmocka_unit_test_setup_teardown(parts_give_the_same_model_as_one_file, setup, teardown),
        cmocka_unit_test_setup_teardown(llama_3_factors_become_a_tensor, setup, teardown),
        cmocka_unit_test_setup_teardown(the_plan_can_be_seen_before, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_that_is_needed_is_overwritten, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_keeps_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wrong_command_line_is_told, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
