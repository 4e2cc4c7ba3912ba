/* test_quantize_layers.c: `minim quantize --method gptq`: it beats plain rounding, it leaves nothing behind. */
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

#include "../engine/minim.h"
#include "synth.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { N_VOCAB = 512, N = 96 };

static char folder[64], text[96], output[96], err[4096];
static int is_left_out; /* this build has no OpenBLAS */

static const char stories[] = "models/stories260K.gguf";

/* ---- programs ---------------------------------------------------------------------------------------------------- */

static const char *program(void) {
    static char path[256];
    snprintf(path, sizeof path, "%s/minim", getenv("B") ? getenv("B") : "build");
    return path;
}

static int shell(const char *command) {
    const int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void slurp(const char *name, char *to, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    const size_t n = file ? fread(to, 1, size - 1, file) : 0;
    to[n] = 0;
    if (file) fclose(file);
}

/* `minim quantize`; the exit code. Fills err. */
static int run(const char *before, const char *options, const char *from) {
    char command[1024];
    snprintf(command, sizeof command, "%s%s quantize %s %s %s >%s/out 2>%s/err </dev/null", before, program(), options,
             from, output, folder, folder);
    const int code = shell(command);
    slurp("err", err, sizeof err);
    return code;
}

/* Nothing but what was there before. */
static void leaves_nothing(void) {
    char command[256];
    snprintf(command, sizeof command, "test -z \"$(ls %s | grep out.gguf)\"", folder);
    if (shell(command)) fail_msg("something was left behind");
}

/* The built-in model tells stories for calibration. */
static int setup(void **state) {
    (void)state;
    char command[1024];
    snprintf(folder, sizeof folder, "/tmp/minim-layers-XXXXXX");
    if (access(program(), X_OK) || !mkdtemp(folder)) return -1;
    snprintf(output, sizeof output, "%s/out.gguf", folder);
    snprintf(text, sizeof text, "%s/text", folder);
    snprintf(command, sizeof command,
             "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do printf 'Once upon a time'; %s run -q --temp 1 --seed $i -n 120 "
             "'Once upon a time'; echo; done >%s </dev/null",
             program(), text);
    if (shell(command)) return -1;
    snprintf(command, sizeof command, "-q --type Q4_0 --method gptq --chunks 1 --calibrate %s", text);
    is_left_out = run("", command, stories) == 1 && strstr(err, "left out when this minim was built");
    unlink(output);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return shell(command);
}

/* ---- how far a model is from another ----------------------------------------------------------------------------- */

static float *logits_of(const char *path, const int32_t *tokens) {
    minim_error e;
    minim_model *m;
    minim_engine *engine;
    minim_seq *seq;
    minim_row rows[N];
    float *logits = malloc((size_t)N * N_VOCAB * sizeof *logits);
    assert_non_null(logits);
    if (minim_model_load(path, NULL, &m, &e) || minim_engine_new(m, NULL, &engine, &e) ||
        minim_seq_new(engine, &seq, &e))
        fail_msg("%s", e.text);
    for (int i = 0; i < N; i++) rows[i] = (minim_row){seq, tokens[i], 1};
    if (minim_engine_step(engine, rows, N, logits, &e)) fail_msg("%s", e.text);
    minim_seq_free(seq);
    minim_engine_free(engine);
    minim_model_free(m);
    return logits;
}

/* Mean squared difference of the logits of the output and of `from` on tokens. */
static double distance(const char *options, const char *from, const int32_t *tokens) {
    double sum = 0;
    if (run("", options, from)) fail_msg("%s: %s", options, err);
    float *a = logits_of(from, tokens), *b = logits_of(output, tokens);
    for (int i = 0; i < N * N_VOCAB; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    free(a);
    free(b);
    assert_true(isfinite(sum));
    return sum / (N * N_VOCAB);
}

/* A story that calibration has not seen. */
static void story(int32_t *tokens) {
    minim_error e;
    minim_model *m;
    char words[4096], command[1024];
    static int32_t all[4096];
    size_t n;
    snprintf(command, sizeof command, "%s run -q --temp 1 --seed 77 -n 120 'Once upon a time' >%s/story </dev/null",
             program(), folder);
    assert_int_equal(shell(command), 0);
    slurp("story", words, sizeof words);
    if (minim_model_load(stories, NULL, &m, &e) ||
        minim_tokenize(m, words, strlen(words), MINIM_ADD_SPECIAL, all, COUNT(all), &n, &e))
        fail_msg("%s", e.text);
    minim_model_free(m);
    for (size_t i = 0; i < N; i++) tokens[i] = all[i % n];
}

static void beats(const char *type, const char *from, const int32_t *tokens, double factor) {
    char options[256];
    snprintf(options, sizeof options, "-q --type %s --method nearest", type);
    const double nearest = distance(options, from, tokens);
    snprintf(options, sizeof options, "-q --type %s --method gptq --calibrate %s", type, text);
    const double gptq = distance(options, from, tokens);
    if (!(gptq < factor * nearest)) fail_msg("%s: gptq %g, nearest %g", type, gptq, nearest);
}

static void it_beats_plain_rounding_on_stories(void **state) {
    (void)state;
    static const char *const types[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "Q8_0"};
    int32_t tokens[N];
    if (is_left_out) skip();
    story(tokens);
    for (size_t i = 0; i < COUNT(types); i++) beats(types[i], stories, tokens, 0.85);
}

/* Rows of 256 for the K types; the output matrix is the one of the embeddings in half of the cases. Weights are noise,
 * so there is less to win. */
static void it_beats_plain_rounding_of_k_types(void **state) {
    (void)state;
    static const char *const types[] = {"Q2_K",   "Q3_K",   "Q4_K",   "Q5_K",   "Q6_K",   "IQ4_XS", "Q4_K_M",
                                        "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q3_K_L", "Q3_K_M", "Q2_K_S"};
    int32_t tokens[N];
    char path[128];
    if (is_left_out) skip();
    story(tokens);
    snprintf(path, sizeof path, "%s/in.gguf", folder);
    for (size_t i = 0; i < COUNT(types); i++) {
        const synth_shape shape = {.type = 0,
                                   .n_layers = 2,
                                   .n_embd = 256,
                                   .n_heads = 4,
                                   .n_kv_heads = 2,
                                   .head_dim = 64,
                                   .n_ff = 256,
                                   .n_ctx = 128,
                                   .tied = (int)(i % 2),
                                   .biases = i == 3};
        size_t n;
        void *image = synth_model(&shape, &n);
        FILE *file = fopen(path, "wb");
        assert_true(image && file && fwrite(image, 1, n, file) == n && !fclose(file));
        free(image);
        beats(types[i], path, tokens, 0.75);
    }
}

static void threads_do_not_change_a_byte(void **state) {
    (void)state;
    char command[1024], options[256];
    if (is_left_out) skip();
    for (int i = 0; i < 2; i++) {
        snprintf(options, sizeof options, "-q --type Q4_0 --method gptq --chunks 3 --calibrate %s -t %d", text,
                 i ? 3 : 1);
        if (run("", options, stories)) fail_msg("%s", err);
        snprintf(command, sizeof command, i ? "cmp %s %s/first" : "mv %s %s/first", output, folder);
        assert_int_equal(shell(command), 0);
    }
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void refuses(const char *before, const char *options, const char *from, int exit_code, const char *word,
                    const char *word2) {
    if (!*before) unlink(output);
    const int code = run(before, options, from);
    if (code != exit_code || !strstr(err, word) || !strstr(err, word2) || strchr(err, '\n') != err + strlen(err) - 1)
        fail_msg("%s: exit code %d, \"%s\"; expected %d, \"%s\", \"%s\"", options, code, err, exit_code, word, word2);
}

static void wrong_lines_and_short_texts_are_refused(void **state) {
    (void)state;
    char options[256];
    refuses("", "--type Q4_0 --method gptq", stories, 2, "--calibrate", "");
    snprintf(options, sizeof options, "--type Q4_0 --method search --calibrate %s", text);
    refuses("", options, stories, 2, "--calibrate", "gptq");
    if (is_left_out) skip();
    refuses("", "--type Q4_0 --method gptq --calibrate /dev/null", stories, 1,
            "/dev/null: expected at least 128 tokens", "found 1");
    refuses("", "--type Q4_0 --method gptq --calibrate /nowhere", stories, 1, "/nowhere", "No such file");
    leaves_nothing();
}

/* Weights that are no numbers; the tensor is named. */
static void numbers_that_are_none_are_refused(void **state) {
    (void)state;
    char command[1024], options[256], path[128];
    minim_error e;
    minim_model *m;
    minim_model_options o;
    minim_tensor tensor;
    if (is_left_out) skip();
    minim_model_options_default(&o);
    o.level = MINIM_LOAD_HEADER;
    if (minim_model_load(stories, &o, &m, &e)) fail_msg("%s", e.text);
    for (size_t i = 0; !minim_model_tensor(m, i, &tensor) && strcmp(tensor.name, "blk.3.ffn_up.weight") != 0;) i++;
    snprintf(path, sizeof path, "%s/bad.gguf", folder);
    snprintf(command, sizeof command,
             "cp %s %s && printf '\\000\\000\\300\\177' | dd of=%s bs=1 seek=%llu conv=notrunc 2>/dev/null", stories,
             path, path, (unsigned long long)(tensor.offset + 4000));
    minim_model_free(m);
    assert_int_equal(shell(command), 0);
    snprintf(options, sizeof options, "-q --type Q4_0 --method gptq --chunks 2 --calibrate %s", text);
    refuses("", options, path, 1, "blk.3.ffn_", "");
    leaves_nothing();
}

static void a_full_disk_leaves_the_old_file(void **state) {
    (void)state;
    char options[256], old[32];
    if (is_left_out) skip();
    FILE *file = fopen(output, "wb");
    assert_true(file && fputs("the old one", file) >= 0 && !fclose(file));
    snprintf(options, sizeof options, "-q --type Q4_0 --method gptq --chunks 2 --calibrate %s", text);
    refuses("ulimit -f 100; ", options, stories, 1, "out.gguf", "");
    slurp("out.gguf", old, sizeof old);
    assert_string_equal(old, "the old one");
    unlink(output);
    leaves_nothing();
    snprintf(options, sizeof options, "-q --type Q4_0 --method gptq --chunks 2 --calibrate %s %s %s", text, stories,
             stories);
    char command[1024];
    snprintf(command, sizeof command, "%s quantize %s 2>%s/err", program(), options, folder);
    assert_int_equal(shell(command), 1);
    slurp("err", err, sizeof err);
    assert_non_null(strstr(err, "the file to be quantized"));
}

/* Ctrl-C while the calibration text is being read from a pipe that never ends, and while layers are being rounded: the
 * text is so long that nobody would wait for the end. */
static void an_interrupt_leaves_nothing(void **state) {
    (void)state;
    static const char *const ways[] = {"nearest", "search", "gptq"};
    char command[1024];
    for (size_t i = 0; i < COUNT(ways); i++) {
        const int gptq = !strcmp(ways[i], "gptq");
        if (gptq && is_left_out) skip();
        snprintf(command, sizeof command, gptq ? "for i in $(seq 400); do cat %s; done >%s/long" : "true %s %s", text,
                 folder);
        assert_int_equal(shell(command), 0);
        /* For the others the disk is a pipe that nobody empties. */
        if (gptq)
            snprintf(
                command, sizeof command,
                "%s quantize -q --type Q4_0 --method gptq --calibrate %s/long %s %s 2>%s/err </dev/null & p=$!; "
                "while kill -0 $p && ! ls %s | grep -q out.gguf; do sleep 0.05; done; sleep 0.3; kill -INT $p; wait $p",
                program(), folder, stories, output, folder, folder);
        else
            snprintf(
                command, sizeof command,
                "mkfifo %s/pipe.%s; %s quantize -q --type Q8_0 --method %s %s %s/pipe.%s 2>%s/err </dev/null & p=$!; "
                "exec 3<>%s/pipe.%s; sleep 0.3; kill -INT $p; cat <&3 >/dev/null & c=$!; wait $p; code=$?; kill $c; "
                "exit $code",
                folder, ways[i], program(), ways[i], stories, folder, ways[i], folder, folder, ways[i]);
        const int code = shell(command);
        slurp("err", err, sizeof err);
        if (code != 130) fail_msg("%s: exit code %d, %s", ways[i], code, err);
        leaves_nothing();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_beats_plain_rounding_on_stories), cmocka_unit_test(it_beats_plain_rounding_of_k_types),
        cmocka_unit_test(threads_do_not_change_a_byte),       cmocka_unit_test(wrong_lines_and_short_texts_are_refused),
        cmocka_unit_test(numbers_that_are_none_are_refused),  cmocka_unit_test(a_full_disk_leaves_the_old_file),
        cmocka_unit_test(an_interrupt_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
