/* test_quantize.c: `minim quantize`: how far the numbers move, which tensors it touches, what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../engine/gguf.h"
#include "../engine/minim.h"
#include "../router/sha256.h"
#include "gguf_writer.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { COLS = 512, ROWS = 24, N = COLS * ROWS };

static char folder[64], input[96], output[96], err[4096], out[16384];

static int setup(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/minim-quantize-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(input, sizeof input, "%s/in.gguf", folder);
    snprintf(output, sizeof output, "%s/out.gguf", folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void slurp(const char *name, char *text, size_t size) {
    char path[96];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    const size_t n = file ? fread(text, 1, size - 1, file) : 0;
    text[n] = 0;
    if (file) fclose(file);
    unlink(path);
}

/* `minim quantize` with these arguments; the exit code. Fills out and err. */
static int run(const char *before, const char *arguments) {
    const char *b = getenv("B");
    char command[1024];
    snprintf(command, sizeof command, "%s%s/minim quantize %s >%s/out 2>%s/err </dev/null", before, b ? b : "build",
             arguments, folder, folder);
    const int status = system(command);
    slurp("out", out, sizeof out);
    slurp("err", err, sizeof err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void quantize(const char *from, const char *options) {
    char arguments[512];
    snprintf(arguments, sizeof arguments, "%s %s %s", options, from, output);
    if (run("", arguments)) fail_msg("minim quantize %s: %s", arguments, err);
}

static int folder_has(const char *pattern) {
    char command[256];
    snprintf(command, sizeof command, "ls %s | grep -q '%s'", folder, pattern);
    return !system(command);
}

/* Exit code 1, one line with both words, and no new file. */
static void refuses(const char *options, const char *word, const char *word2) {
    char arguments[512];
    snprintf(arguments, sizeof arguments, "-q %s %s %s", options, input, output);
    const int code = run("", arguments);
    if (code != 1 || !strstr(err, word) || !strstr(err, word2) || strchr(err, '\n') != err + strlen(err) - 1)
        fail_msg("exit code %d, \"%s\"; expected 1 and the words \"%s\", \"%s\"", code, err, word, word2);
    assert_false(folder_has("out.gguf"));
}

static void save(gw *w) {
    size_t n;
    uint8_t *image = gw_finish(w, &n);
    FILE *file = fopen(input, "wb");
    assert_true(file && fwrite(image, 1, n, file) == n && !fclose(file));
    free(image);
    gw_free(w);
}

/* A file of one matrix [ROWS][COLS]. */
static void save_matrix(const char *name, const float *x) {
    gw w;
    gw_init(&w);
    gw_str(&w, "general.architecture", "llama");
    gw_tensor(&w, name, 0, 2, (uint64_t[]){COLS, ROWS}, x, N * sizeof *x);
    save(&w);
}

/* Between -1 and 1. */
static float noise(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return (float)((int32_t)(*seed >> 8) - (1 << 23)) * 0x1p-23f;
}

enum { BELL, OUTLIERS, SHIFTED, TINY, ZERO, SAME, N_KINDS };

/* Rows as trained models have them, and rows that are hard to bear. */
static void fill(int kind, float *x) {
    uint32_t seed = 7 + (uint32_t)kind;
    for (int i = 0; i < N; i++) {
        const float bell = 0.05f * (noise(&seed) + noise(&seed) + noise(&seed) + noise(&seed));
        x[i] = kind == ZERO      ? (i % 2 ? -0.0f : 0.0f)
               : kind == SAME    ? 0.25f
               : kind == TINY    ? bell * 1e-38f
               : kind == SHIFTED ? bell + 1
                                 : bell;
        if (kind == OUTLIERS && i % 97 == 0) x[i] *= 40;
    }
}

static float *values_of(const char *path, const char *name) {
    minim_model *model = NULL;
    minim_error e;
    minim_model_options options;
    minim_tensor tensor;
    minim_model_options_default(&options);
    options.level = MINIM_LOAD_HEADER;
    if (minim_model_load(path, &options, &model, &e)) fail_msg("%s", e.text);
    for (size_t i = 0; !minim_model_tensor(model, i, &tensor); i++) {
        if (strcmp(tensor.name, name) != 0) continue;
        const size_t n = tensor.dims[0] * tensor.dims[1];
        float *x = malloc(n * sizeof *x);
        assert_non_null(x);
        if (minim_model_tensor_values(model, i, 0, n, x, &e)) fail_msg("%s", e.text);
        minim_model_free(model);
        return x;
    }
    fail_msg("%s: no tensor %s", path, name);
    return NULL;
}

/* Squared error in relation to the sum of squares, of the matrix "m.weight". */
static double error_of(const float *x, const char *options) {
    double error = 0, sum = 0;
    quantize(input, options);
    float *y = values_of(output, "m.weight");
    for (int i = 0; i < N; i++) {
        const double d = (double)x[i] - (double)y[i];
        if (!isfinite(y[i])) fail_msg("%s: element %d is not finite", options, i);
        error += d * d;
        sum += (double)x[i] * (double)x[i];
    }
    free(y);
    return sum > 0 ? error / sum : error;
}

/* ---- error ------------------------------------------------------------------------------------------------------- */

/* Relative root mean square error of bell-shaped weights: what each type is worth. */
static const struct type {
    const char *name;
    double nearest, search;
} types[] = {
    {"F16", 3e-4, 3e-4},    {"BF16", 2e-3, 2e-3},     {"Q8_0", 6e-3, 5.5e-3}, {"Q6_K", 0.021, 0.018},
    {"Q5_0", 0.046, 0.044}, {"Q5_1", 0.046, 0.042},   {"Q4_1", 0.095, 0.085}, {"Q3_K", 0.19, 0.155},
    {"Q2_K", 0.37, 0.30},   {"IQ4_XS", 0.088, 0.079}, {"Q5_K", 0.042, 0.038}, {"Q4_K", 0.086, 0.078},
    {"Q4_0", 0.095, 0.089}, {"IQ4_NL", 0.088, 0.08},
};

static void errors_are_those_of_the_type(void **state) {
    (void)state;
    static float x[N];
    for (int kind = 0; kind < N_KINDS; kind++) {
        fill(kind, x);
        save_matrix("m.weight", x);
        for (size_t i = 0; i < COUNT(types); i++) {
            char options[64];
            snprintf(options, sizeof options, "-q --type %s --method nearest", types[i].name);
            const double nearest = error_of(x, options);
            snprintf(options, sizeof options, "-q --type %s --method search", types[i].name);
            const double search = error_of(x, options);
            if (search > nearest * (1 + 1e-9))
                fail_msg("%s, rows %d: search %g, nearest %g", types[i].name, kind, search, nearest);
            if (kind == BELL && (sqrt(nearest) > types[i].nearest || sqrt(search) > types[i].search))
                fail_msg("%s: nearest %g, search %g", types[i].name, sqrt(nearest), sqrt(search));
            if (kind == ZERO) assert_true(nearest == 0 && search == 0);
            if (kind == SAME) assert_true(sqrt(search) < 0.01);
        }
    }
}

/* An importance matrix that says that a quarter of the inputs is all that counts. */
static void save_imatrix(const char *path, uint64_t cols) {
    static float sums[COLS], count = 100;
    gw w;
    size_t n;
    for (int i = 0; i < COLS; i++) sums[i] = i % 4 == 1 ? 100 : 1;
    gw_init(&w);
    gw_str(&w, "general.type", "imatrix");
    gw_strings(&w, "imatrix.datasets", (const char *const[]){"first.txt", "second.txt"}, 2);
    gw_u32(&w, "imatrix.chunk_count", 7);
    gw_tensor(&w, "m.weight.in_sum2", 0, 1, &cols, sums, cols * sizeof *sums);
    gw_tensor(&w, "m.weight.counts", 0, 1, (uint64_t[]){1}, &count, sizeof count);
    uint8_t *image = gw_finish(&w, &n);
    FILE *file = fopen(path, "wb");
    assert_true(file && fwrite(image, 1, n, file) == n && !fclose(file));
    free(image);
    gw_free(&w);
}

static gguf_file *open_output(void) {
    static minim_allocator allocator;
    gguf_file *file = NULL;
    minim_error e;
    allocator = mem_allocator(NULL);
    if (gguf_open(&allocator, output, NULL, 0, &file, &e)) fail_msg("%s", e.text);
    return file;
}

/* The output tells the importance matrix it was made with as llama-quantize does. */
static void tells_the_imatrix(const char *path) {
    gguf_file *file = open_output();
    gguf_str name, dataset;
    uint32_t entries = 0, chunks = 0;
    assert_int_equal(gguf_get_str(file, "quantize.imatrix.file", &name, NULL, NULL), MINIM_OK);
    assert_int_equal(gguf_get_str(file, "quantize.imatrix.dataset", &dataset, NULL, NULL), MINIM_OK);
    assert_int_equal(gguf_get_u32(file, "quantize.imatrix.entries_count", &entries, NULL, NULL), MINIM_OK);
    assert_int_equal(gguf_get_u32(file, "quantize.imatrix.chunks_count", &chunks, NULL, NULL), MINIM_OK);
    assert_string_equal(name.s, path);
    assert_string_equal(dataset.s, "first.txt");
    assert_true(entries == 1 && chunks == 7);
    gguf_close(file);
}

/* Squared error of the inputs that count. */
static double weighted_error(const float *x, const char *options) {
    double error = 0;
    quantize(input, options);
    float *y = values_of(output, "m.weight");
    for (int i = 1; i < N; i += 4) error += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    free(y);
    return error;
}

static void an_importance_matrix_moves_the_error_away_from_what_counts(void **state) {
    (void)state;
    static float x[N];
    char path[96], options[256];
    snprintf(path, sizeof path, "%s/im.gguf", folder);
    save_imatrix(path, COLS);
    fill(BELL, x);
    save_matrix("m.weight", x);
    for (size_t i = 0; i < COUNT(types); i++) {
        if (strchr(types[i].name, 'F')) continue; /* floats have no scales */
        snprintf(options, sizeof options, "-q --type %s", types[i].name);
        const double plain = weighted_error(x, options);
        snprintf(options, sizeof options, "-q --type %s --imatrix %s", types[i].name, path);
        const double weighted = weighted_error(x, options);
        if (!(weighted < plain * (types[i].name[1] == '8' ? 1 : 0.97)))
            fail_msg("%s: %g with, %g without an importance matrix", types[i].name, weighted, plain);
        tells_the_imatrix(path);
    }
    /* Once more from there: the keys are those of the last time, or of none. */
    snprintf(options, sizeof options, "mv %s %s", output, input);
    assert_int_equal(system(options), 0);
    snprintf(options, sizeof options, "-q --type Q8_0 --imatrix %s", path);
    quantize(input, options);
    tells_the_imatrix(path);
    quantize(input, "-q --type Q8_0");
    gguf_file *file = open_output();
    gguf_str none;
    int found = 1;
    assert_int_equal(gguf_get_str(file, "quantize.imatrix.file", &none, &found, NULL), MINIM_OK);
    assert_false(found);
    gguf_close(file);
    save_imatrix(path, COLS - 32);
    snprintf(options, sizeof options, "--type Q4_0 --imatrix %s", path);
    unlink(output);
    refuses(options, "m.weight", "1 x 480 inputs, expected 1 x 512");
    snprintf(options, sizeof options, "--type Q4_0 --imatrix %s", input);
    refuses(options, "in.gguf", "expected an importance matrix");
}

static void threads_do_not_change_a_byte(void **state) {
    (void)state;
    static float x[N];
    fill(OUTLIERS, x);
    save_matrix("m.weight", x);
    char command[512], options[64];
    for (int i = 0; i < 2; i++) {
        snprintf(options, sizeof options, "-q --type q5_k -t %d", i ? 7 : 1);
        quantize(input, options);
        snprintf(command, sizeof command, i ? "cmp %s %s/first" : "mv %s %s/first", output, folder);
        assert_int_equal(system(command), 0);
    }
}

/* ---- whole files ------------------------------------------------------------------------------------------------- */

static uint32_t type_of(const gguf_file *file, const char *name) {
    const gguf_tensor *t = gguf_find_tensor(file, name);
    if (!t) fail_msg("%s is missing", name);
    return t->type;
}

/* SHA-256 of all tensors, each with its bytes in the order of the file: equal to what llama-quantize --pure writes. */
static void plain_rounding_gives_the_bytes_of_ggml(void **state) {
    (void)state;
    static const struct {
        const char *type, *sha256;
    } cases[] = {{"Q8_0", "5360252beb3ca088f01f2766f5af943277704cb9fa49c8b82fb4d5697200ac8d"},
                 {"Q4_0", "fd4e5a8b7e6e46181adf0da5a10030728d256ba60d161f767b91532db5e0f7c9"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char options[64], hex[65];
        uint8_t digest[32];
        snprintf(options, sizeof options, "-q --type %s --method nearest", cases[i].type);
        quantize("models/stories260K.gguf", options);
        gguf_file *file = open_output();
        sha256_state hash;
        sha256_begin(&hash);
        for (size_t k = 0; k < gguf_tensor_count(file); k++) {
            const gguf_tensor *t = gguf_tensor_at(file, k);
            uint8_t *data = malloc(t->bytes);
            assert_true(data && !gguf_read(file, t, 0, data, t->bytes, NULL));
            sha256_add(&hash, data, t->bytes);
            free(data);
        }
        sha256_end(&hash, digest);
        sha256_to_hex(digest, hex);
        gguf_close(file);
        assert_string_equal(hex, cases[i].sha256);
    }
}

static void a_quantized_model_still_tells_its_story(void **state) {
    (void)state;
    const char *b = getenv("B");
    char command[512], text[1024];
    quantize("models/stories260K.gguf", "-q --type Q8_0");
    snprintf(command, sizeof command, "%s/minim run -q -m %s -n 20 'Once upon a time' >%s/text", b ? b : "build",
             output, folder);
    assert_int_equal(system(command), 0);
    slurp("text", text, sizeof text);
    assert_non_null(strstr(text, "there was a little girl"));
}

static void keys_and_small_tensors_stay(void **state) {
    (void)state;
    static float x[N];
    static const int32_t numbers[64];
    gw w;
    fill(BELL, x);
    gw_init(&w);
    gw_str(&w, "general.architecture", "llama");
    gw_str(&w, "own.text", "with \xff bytes");
    gw_u32(&w, "general.file_type", 99);
    gw_tensor(&w, "blk.0.attn_q.weight", 0, 2, (uint64_t[]){COLS, ROWS}, x, N * sizeof *x);
    gw_tensor(&w, "blk.0.attn_norm.weight", 0, 1, (uint64_t[]){COLS}, x, COLS * sizeof *x);
    gw_tensor(&w, "blk.0.attn_q.bias", 0, 1, (uint64_t[]){COLS}, x, COLS * sizeof *x);
    gw_tensor(&w, "blk.0.ffn_gate_inp.weight", 0, 2, (uint64_t[]){COLS, 2}, x, 2 * COLS * sizeof *x);
    gw_tensor(&w, "odd.weight", 0, 2, (uint64_t[]){33, 4}, x, 33 * 4 * sizeof *x);
    gw_tensor(&w, "numbers.weight", 26, 2, (uint64_t[]){32, 2}, numbers, sizeof numbers);
    save(&w);
    quantize(input, "-q --type q4_k");
    gguf_file *file = open_output();
    uint32_t number = 0;
    gguf_str text;
    int found;
    assert_int_equal(gguf_value_count(file), 4);
    assert_int_equal(gguf_get_str(file, "own.text", &text, &found, NULL), MINIM_OK);
    assert_true(found && text.n == 12 && !memcmp(text.s, "with \xff bytes", 12));
    assert_int_equal(gguf_get_u32(file, "general.file_type", &number, NULL, NULL), MINIM_OK);
    assert_int_equal(number, 14);
    assert_int_equal(gguf_get_u32(file, "general.quantization_version", &number, NULL, NULL), MINIM_OK);
    assert_int_equal(number, 2);
    assert_int_equal(type_of(file, "blk.0.attn_q.weight"), 12);
    assert_int_equal(type_of(file, "blk.0.attn_norm.weight"), 0);
    assert_int_equal(type_of(file, "blk.0.attn_q.bias"), 0);
    assert_int_equal(type_of(file, "blk.0.ffn_gate_inp.weight"), 0);
    assert_int_equal(type_of(file, "odd.weight"), 1);
    assert_int_equal(type_of(file, "numbers.weight"), 26);
    gguf_close(file);
}

/* Of 16 layers, as llama-quantize chooses. */
static void mixtures_give_more_bits_where_they_count(void **state) {
    (void)state;
    enum { Q2 = 10, Q3, Q4, Q5, Q6 };
    static float x[256 * 8];
    static const struct {
        const char *name;
        uint32_t file_type, base, attention_output;
        uint32_t values[4], shared[4], down[4]; /* of layers 0, 2, 3, 15; shared: values of four heads each */
    } cases[] = {
        {"Q5_K_M", 17, Q5, Q5, {Q6, Q5, Q5, Q6}, {Q6, Q5, Q5, Q6}, {Q6, Q5, Q5, Q6}},
        {"Q5_K_S", 16, Q5, Q5, {Q5, Q5, Q5, Q5}, {Q5, Q5, Q5, Q5}, {Q5, Q5, Q5, Q5}},
        {"Q4_K_M", 15, Q4, Q4, {Q6, Q4, Q4, Q6}, {Q6, Q4, Q4, Q6}, {Q6, Q4, Q4, Q6}},
        {"Q4_K_S", 14, Q4, Q4, {Q5, Q5, Q5, Q4}, {Q5, Q5, Q5, Q4}, {Q5, Q4, Q4, Q4}},
        {"Q3_K_L", 13, Q3, Q5, {Q5, Q5, Q5, Q5}, {Q5, Q5, Q5, Q5}, {Q5, Q5, Q5, Q5}},
        {"Q3_K_M", 12, Q3, Q4, {Q5, Q4, Q4, Q4}, {Q5, Q4, Q4, Q4}, {Q5, Q4, Q4, Q4}},
        {"Q3_K_S", 11, Q3, Q3, {Q3, Q3, Q3, Q3}, {Q3, Q3, Q3, Q3}, {Q3, Q3, Q3, Q3}},
        {"Q2_K", 10, Q2, Q3, {Q3, Q3, Q3, Q3}, {Q4, Q4, Q4, Q4}, {Q3, Q3, Q3, Q3}},
        {"Q2_K_S", 21, Q2, Q2, {Q2, Q2, Q2, Q2}, {Q4, Q4, Q4, Q4}, {Q4, Q2, Q2, Q2}},
    };
    static const int layers[] = {0, 2, 3, 15};
    for (size_t c = 0; c < 3 * COUNT(cases); c++) {
        const size_t i = c / 3;
        const int tied = c % 3 == 1, shared = c % 3 == 1, pure = c % 3 == 2;
        const uint32_t base = cases[i].base, *values = shared ? cases[i].shared : cases[i].values;
        char name[64], options[64];
        gw w;
        gw_init(&w);
        gw_str(&w, "general.architecture", "llama");
        gw_tensor(&w, "token_embd.weight", 0, 2, (uint64_t[]){256, 2}, x, 256 * 2 * sizeof *x);
        if (!tied) gw_tensor(&w, "output.weight", 0, 2, (uint64_t[]){256, 2}, x, 256 * 2 * sizeof *x);
        for (int layer = 0; layer < 16; layer++) {
            static const char *const parts[] = {"attn_q", "attn_v", "attn_output", "ffn_down"};
            for (size_t k = 0; k < COUNT(parts); k++) {
                const uint64_t rows = shared && k == 0 ? 8 : 2;
                snprintf(name, sizeof name, "blk.%d.%s.weight", layer, parts[k]);
                gw_tensor(&w, name, 0, 2, (uint64_t[]){256, rows}, x, 256 * rows * sizeof *x);
            }
        }
        save(&w);
        snprintf(options, sizeof options, "-q --method nearest --type %s%s", cases[i].name, pure ? " --pure" : "");
        quantize(input, options);
        gguf_file *file = open_output();
        uint32_t number = 0;
        assert_int_equal(gguf_get_u32(file, "general.file_type", &number, NULL, NULL), MINIM_OK);
        assert_int_equal(number, cases[i].file_type);
        assert_int_equal(type_of(file, "token_embd.weight"), tied ? Q6 : base);
        if (!tied) assert_int_equal(type_of(file, "output.weight"), pure ? base : Q6);
        for (int k = 0; k < 4; k++) {
            snprintf(name, sizeof name, "blk.%d.attn_q.weight", layers[k]);
            assert_int_equal(type_of(file, name), base);
            snprintf(name, sizeof name, "blk.%d.attn_v.weight", layers[k]);
            assert_int_equal(type_of(file, name), pure ? base : values[k]);
            snprintf(name, sizeof name, "blk.%d.attn_output.weight", layers[k]);
            assert_int_equal(type_of(file, name), pure ? base : cases[i].attention_output);
            snprintf(name, sizeof name, "blk.%d.ffn_down.weight", layers[k]);
            assert_int_equal(type_of(file, name), pure ? base : cases[i].down[k]);
        }
        gguf_close(file);
    }
}

/* Models of 80 layers whose heads share values have few of them: they never get less than Q5_K. */
static void values_of_the_largest_models_get_more_bits(void **state) {
    (void)state;
    static float x[256 * 8];
    static const char *const names[] = {"Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M"};
    for (size_t i = 0; i < 2 * COUNT(names); i++) {
        const uint64_t rows = i % 2 ? 2 : 8; /* of queries, beside 2 of values */
        char name[64], options[64];
        gw w;
        gw_init(&w);
        gw_str(&w, "general.architecture", "llama");
        for (int layer = 0; layer < 80; layer++) {
            snprintf(name, sizeof name, "blk.%d.attn_q.weight", layer);
            gw_tensor(&w, name, 0, 2, (uint64_t[]){256, rows}, x, 256 * rows * sizeof *x);
            snprintf(name, sizeof name, "blk.%d.attn_v.weight", layer);
            gw_tensor(&w, name, 0, 2, (uint64_t[]){256, 2}, x, 256 * 2 * sizeof *x);
        }
        save(&w);
        snprintf(options, sizeof options, "-q --method nearest --type %s", names[i / 2]);
        quantize(input, options);
        gguf_file *file = open_output();
        const int many_bits = type_of(file, "blk.40.attn_v.weight") == 13;
        gguf_close(file);
        if (many_bits != (rows == 8)) fail_msg("%s, %d rows of queries", names[i / 2], (int)rows);
    }
}

static void a_dry_run_tells_the_size_and_writes_nothing(void **state) {
    (void)state;
    static float x[N];
    struct stat status;
    char arguments[256], line[64];
    fill(BELL, x);
    save_matrix("m.weight", x);
    snprintf(arguments, sizeof arguments, "-q --type Q6_K --dry-run %s", input);
    assert_int_equal(run("", arguments), 0);
    assert_false(folder_has("out"));
    quantize(input, "-q --type Q6_K");
    assert_int_equal(stat(output, &status), 0);
    snprintf(line, sizeof line, "file: %lld bytes\n", (long long)status.st_size);
    assert_int_equal(run("", arguments), 0);
    if (!strstr(out, line)) fail_msg("expected \"%s\", found \"%s\"", line, out);
    assert_non_null(strstr(out, "m.weight"));
    for (size_t i = 0; i < COUNT(types); i++) {
        snprintf(arguments, sizeof arguments, "-q --method nearest --type %s %s %s", types[i].name,
                 "models/stories260K.gguf", output);
        assert_int_equal(run("", arguments), 0);
        assert_int_equal(stat(output, &status), 0);
        snprintf(line, sizeof line, "file: %lld bytes\n", (long long)status.st_size);
        snprintf(arguments, sizeof arguments, "--dry-run --type %s %s", types[i].name, "models/stories260K.gguf");
        assert_int_equal(run("", arguments), 0);
        if (!strstr(out, line)) fail_msg("%s: expected \"%s\", found \"%s\"", types[i].name, line, out);
    }
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void numbers_that_are_none_are_refused(void **state) {
    (void)state;
    static const char *const names[] = {"blk.3.ffn_up.weight", "blk.3.ffn_norm.weight"};
    static float x[N];
    for (int i = 0; i < 4; i++) {
        fill(BELL, x);
        x[1000] = i % 2 ? INFINITY : NAN;
        save_matrix(names[i / 2], x);
        refuses("--type Q4_0", names[i / 2], i % 2 ? "element 1000 is infinite" : "element 1000 is NaN");
        refuses("--type Q6_K --method nearest", names[i / 2], "element 1000");
    }
}

static void numbers_too_large_for_the_type_are_refused(void **state) {
    (void)state;
    static float x[N];
    for (size_t i = 0; i < COUNT(types); i++) {
        char options[64];
        fill(BELL, x);
        x[700] = i % 2 ? -3.4028235e38f : 3.4028235e38f;
        save_matrix("m.weight", x);
        for (int search = 0; search < 2; search++) {
            snprintf(options, sizeof options, "--type %s --method %s", types[i].name, search ? "search" : "nearest");
            refuses(options, "m.weight", "too large");
        }
    }
}

static void the_input_is_never_overwritten(void **state) {
    (void)state;
    static float x[N];
    char arguments[256];
    fill(BELL, x);
    save_matrix("m.weight", x);
    assert_int_equal(symlink(input, output), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(arguments, sizeof arguments, "--type Q4_0 %s %s", input, i ? output : input);
        assert_int_equal(run("", arguments), 1);
        assert_non_null(strstr(err, "the file to be quantized"));
    }
    free(values_of(input, "m.weight"));
    snprintf(arguments, sizeof arguments, "--type Q4_0 --imatrix %s models/stories260K.gguf %s", input, input);
    assert_int_equal(run("", arguments), 1);
    assert_non_null(strstr(err, "would overwrite an input"));
    free(values_of(input, "m.weight"));
}

static void a_full_disk_leaves_the_old_file(void **state) {
    (void)state;
    static float x[N];
    char arguments[256], text[32];
    fill(BELL, x);
    save_matrix("m.weight", x);
    FILE *file = fopen(output, "wb");
    assert_true(file && fputs("the old one", file) >= 0 && !fclose(file));
    snprintf(arguments, sizeof arguments, "-q --type Q8_0 %s %s", input, output);
    assert_int_equal(run("ulimit -f 4; ", arguments), 1);
    assert_non_null(strstr(err, "out.gguf"));
    assert_false(folder_has("part"));
    slurp("out.gguf", text, sizeof text);
    assert_string_equal(text, "the old one");
}

static void damaged_files_are_refused(void **state) {
    (void)state;
    static float x[N];
    fill(BELL, x);
    save_matrix("m.weight", x);
    for (long size = 0; size < 200; size += 7) {
        assert_int_equal(truncate(input, size), 0);
        refuses("--type Q4_0", "in.gguf", "");
        save_matrix("m.weight", x);
    }
}

static void wrong_command_lines_are_explained(void **state) {
    (void)state;
    assert_int_equal(run("", "models/stories260K.gguf /tmp/never.gguf"), 2);
    assert_non_null(strstr(err, "--type"));
    assert_int_equal(run("", "--type Q9_Z models/stories260K.gguf /tmp/never.gguf"), 2);
    assert_non_null(strstr(err, "Q9_Z"));
    assert_int_equal(run("", "--type Q4_0 models/stories260K.gguf"), 2);
    assert_int_equal(run("", "--type Q4_0 --method magic models/stories260K.gguf /tmp/never.gguf"), 2);
    assert_int_equal(run("", "--type Q4_0 --method nearest --imatrix x models/stories260K.gguf /tmp/never.gguf"), 2);
    assert_non_null(strstr(err, "--imatrix"));
    assert_int_equal(run("", "--help"), 0);
    assert_non_null(strstr(out, "--dry-run"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(errors_are_those_of_the_type, setup, teardown),
        cmocka_unit_test_setup_teardown(an_importance_matrix_moves_the_error_away_from_what_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_do_not_change_a_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(plain_rounding_gives_the_bytes_of_ggml, setup, teardown),
        cmocka_unit_test_setup_teardown(a_quantized_model_still_tells_its_story, setup, teardown),
        cmocka_unit_test_setup_teardown(keys_and_small_tensors_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(mixtures_give_more_bits_where_they_count, setup, teardown),
        cmocka_unit_test_setup_teardown(values_of_the_largest_models_get_more_bits, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dry_run_tells_the_size_and_writes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers_that_are_none_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers_too_large_for_the_type_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(the_input_is_never_overwritten, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_leaves_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_files_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_command_lines_are_explained, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
