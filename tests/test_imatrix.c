/* test_imatrix.c: what the matrices of a model get to see: the engine's on_input, parts of a model, `minim imatrix`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../engine/minim.h"
#include "gguf_writer.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { N_VOCAB = 512, N_EMBD = 64, N_FF = 172, N_LAYERS = 5, N = 40 };

static const char model_path[] = "models/stories260K.gguf";
static char folder[64], err[4096], out[1 << 16];

static int setup(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/minim-imatrix-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

/* ---- the engine shows the inputs of its matrices ----------------------------------------------------------------- */

typedef struct seen {
    char names[64][64];
    size_t n_names, rows[64], cols[64], n_calls;
    double squares[64][N_FF];
} seen;

static void on_input(void *user, const char *const *tensors, size_t n_tensors, const float *x, size_t n_rows,
                     size_t n_cols) {
    seen *s = user;
    s->n_calls++;
    for (size_t t = 0; t < n_tensors; t++) {
        size_t i = 0;
        while (i < s->n_names && strcmp(s->names[i], tensors[t]) != 0) i++;
        assert_true(i < COUNT(s->names) && n_cols <= N_FF);
        if (i == s->n_names) snprintf(s->names[s->n_names++], sizeof s->names[0], "%s", tensors[t]);
        s->rows[i] += n_rows;
        s->cols[i] = n_cols;
        for (size_t k = 0; k < n_rows * n_cols; k++) s->squares[i][k % n_cols] += (double)x[k] * (double)x[k];
    }
}

static size_t seen_at(const seen *s, const char *name) {
    for (size_t i = 0; i < s->n_names; i++)
        if (!strcmp(s->names[i], name)) return i;
    fail_msg("%s was not shown", name);
    return 0;
}

static minim_model *load(int first, int end) {
    minim_error e;
    minim_model *m;
    minim_model_options o;
    minim_model_options_default(&o);
    o.first_layer = first, o.end_layer = end;
    ok(minim_model_load(model_path, &o, &m, &e), &e);
    return m;
}

static minim_engine *engine_of(const minim_model *m, seen *s, int batch) {
    minim_error e;
    minim_engine *engine;
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.n_threads = 2;
    if (batch) o.n_batch = batch;
    if (s) o.on_input = on_input, o.on_input_user = s;
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    return engine;
}

/* Rows that want logits: every one, or the last. */
static void make_rows(minim_seq *seq, int all, minim_row *rows) {
    for (int i = 0; i < N; i++) rows[i] = (minim_row){seq, i ? 300 + i * 37 % 200 : 1, all || i == N - 1};
}

static float *logits_of(const minim_model *m, seen *s, int all, int batch) {
    minim_error e;
    minim_seq *seq;
    minim_row rows[N];
    minim_engine *engine = engine_of(m, s, batch);
    float *logits = malloc(N * N_VOCAB * sizeof *logits);
    assert_non_null(logits);
    ok(minim_seq_new(engine, &seq, &e), &e);
    make_rows(seq, all, rows);
    ok(minim_engine_step(engine, rows, N, logits, &e), &e);
    minim_seq_free(seq);
    minim_engine_free(engine);
    return logits;
}

static void being_watched_changes_no_bit(void **state) {
    (void)state;
    minim_model *m = load(0, 0);
    for (int all = 0; all < 2; all++) {
        seen s = {.n_names = 0};
        float *plain = logits_of(m, NULL, all, 0), *watched = logits_of(m, &s, all, 7);
        assert_memory_equal(plain, watched, (all ? N : 1) * N_VOCAB * sizeof *plain);
        free(plain);
        free(watched);
    }
    minim_model_free(m);
}

static void every_matrix_shows_all_rows(void **state) {
    (void)state;
    minim_model *m = load(0, 0);
    seen s = {.n_names = 0}, batches = {.n_names = 0};
    free(logits_of(m, &s, 0, 0));
    free(logits_of(m, &batches, 1, 7));
    minim_model_free(m);
    assert_int_equal(s.n_names, 7 * N_LAYERS + 1);
    assert_int_equal(s.n_calls, 4 * N_LAYERS + 1);
    for (size_t i = 0; i < s.n_names; i++) {
        const size_t other = seen_at(&batches, s.names[i]);
        assert_int_equal(s.rows[i], N);
        assert_int_equal(batches.rows[other], N);
        assert_int_equal(s.cols[i], strstr(s.names[i], "ffn_down") ? N_FF : N_EMBD);
        for (size_t k = 0; k < s.cols[i]; k++)
            assert_true(fabs(s.squares[i][k] - batches.squares[other][k]) <= 1e-9 * s.squares[i][k]);
    }
    seen_at(&s, "output.weight");
    const size_t q = seen_at(&s, "blk.2.attn_q.weight"), v = seen_at(&s, "blk.2.attn_v.weight");
    assert_memory_equal(s.squares[q], s.squares[v], N_EMBD * sizeof(double));
}

/* ---- parts of a model -------------------------------------------------------------------------------------------- */

static void parts_give_the_bits_of_the_whole(void **state) {
    (void)state;
    static const int borders[][2] = {{0, 2}, {2, 4}, {4, 5}};
    static float hidden[N * N_EMBD], logits[N * N_VOCAB];
    minim_model *whole = load(0, 0);
    float *expected = logits_of(whole, NULL, 1, 0);
    minim_model_free(whole);
    for (size_t i = 0; i < COUNT(borders); i++) {
        minim_error e;
        minim_seq *seq;
        minim_row rows[N];
        minim_model *m = load(borders[i][0], borders[i][1]);
        minim_engine *engine = engine_of(m, NULL, 16);
        const int last = i == COUNT(borders) - 1;
        ok(minim_seq_new(engine, &seq, &e), &e);
        make_rows(seq, 1, rows);
        if (!last) {
            assert_int_equal(minim_engine_step_part(engine, rows, N, hidden, logits, &e), MINIM_ERR_ARGUMENT);
            assert_int_equal(minim_seq_length(seq), 0);
        }
        assert_int_equal(minim_engine_step(engine, rows, N, logits, &e), MINIM_ERR_ARGUMENT);
        assert_int_equal(minim_engine_step_part(engine, rows, N, NULL, logits, &e), MINIM_ERR_ARGUMENT);
        for (int k = 0; k < N && !last; k++) rows[k].want_logits = 0;
        ok(minim_engine_step_part(engine, rows, N, hidden, logits, &e), &e);
        assert_int_equal(minim_seq_length(seq), N);
        minim_seq_free(seq);
        minim_engine_free(engine);
        minim_model_free(m);
    }
    assert_memory_equal(logits, expected, sizeof logits);
    free(expected);
}

static void parts_that_are_none_are_refused(void **state) {
    (void)state;
    static const int bad[][2] = {{-1, 2}, {2, 2}, {3, 1}, {0, 6}, {5, 5}, {5, 0}, {0, -1}, {1 << 30, 1 << 30}};
    for (size_t i = 0; i < COUNT(bad); i++) {
        minim_error e;
        minim_model *m = NULL;
        minim_model_options o;
        minim_model_options_default(&o);
        o.first_layer = bad[i][0], o.end_layer = bad[i][1];
        assert_int_equal(minim_model_load(model_path, &o, &m, &e), MINIM_ERR_ARGUMENT);
        assert_null(m);
    }
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static void slurp(const char *name, char *text, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    const size_t n = file ? fread(text, 1, size - 1, file) : 0;
    text[n] = 0;
    if (file) fclose(file);
}

/* `minim imatrix` in the folder; the exit code. Fills out and err. */
static int run(const char *arguments) {
    const char *b = getenv("B");
    char command[1024], here[512];
    assert_non_null(getcwd(here, sizeof here));
    snprintf(command, sizeof command,
             "here=%s; b=%s; case $b in /*) ;; *) b=$here/$b;; esac; cd %s; "
             "$b/minim imatrix %s >out 2>err </dev/null",
             here, b ? b : "build", folder, arguments);
    const int status = system(command);
    slurp("out", out, sizeof out);
    slurp("err", err, sizeof err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void refuses(const char *arguments, int exit_code, const char *word, const char *word2) {
    const int code = run(arguments);
    if (code != exit_code || !strstr(err, word) || !strstr(err, word2) || strchr(err, '\n') != err + strlen(err) - 1)
        fail_msg("%s: exit code %d, \"%s\"; expected %d, \"%s\", \"%s\"", arguments, code, err, exit_code, word, word2);
    char path[128];
    snprintf(path, sizeof path, "%s/never.gguf", folder);
    assert_int_equal(access(path, F_OK), -1);
}

static void write_text(const char *name, int repeat) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < repeat; i++)
        fputs("Once upon a time, there was a little girl named Lily. She loved to play. ", file);
    assert_int_equal(fclose(file), 0);
}

/* The numbers of a tensor of a file in the folder; at most `most`. */
static size_t numbers_of(const char *name, const char *tensor_name, float *x, size_t most) {
    char path[128];
    minim_error e;
    minim_model *m;
    minim_tensor tensor;
    minim_model_options o;
    minim_model_options_default(&o);
    o.level = MINIM_LOAD_HEADER;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    ok(minim_model_load(path, &o, &m, &e), &e);
    for (size_t i = 0; !minim_model_tensor(m, i, &tensor); i++) {
        const size_t n = tensor.dims[0] * tensor.dims[1];
        if (strcmp(tensor.name, tensor_name) != 0) continue;
        assert_true(n <= most);
        ok(minim_model_tensor_values(m, i, 0, n, x, &e), &e);
        minim_model_free(m);
        return n;
    }
    fail_msg("%s: no tensor %s", name, tensor_name);
    return 0;
}

static void a_file_holds_the_sums_of_squares(void **state) {
    (void)state;
    static float sums[N_FF], count[1];
    write_text("text", 20);
    if (run("-q -f text -o one.gguf -c 16 --chunks 3")) fail_msg("%s", err);
    assert_int_equal(numbers_of("one.gguf", "blk.4.ffn_down.weight.in_sum2", sums, N_FF), N_FF);
    assert_int_equal(numbers_of("one.gguf", "blk.4.ffn_down.weight.counts", count, 1), 1);
    assert_true(count[0] == 48);

    /* The same sums by the engine itself. */
    minim_error e;
    char text[2048];
    int32_t tokens[1024];
    size_t n;
    seen s = {.n_names = 0};
    minim_model *m = load(0, 0);
    minim_engine *engine = engine_of(m, &s, 0);
    minim_seq *seq;
    slurp("text", text, sizeof text);
    ok(minim_tokenize(m, text, strlen(text), MINIM_ADD_SPECIAL, tokens, COUNT(tokens), &n, &e), &e);
    ok(minim_seq_new(engine, &seq, &e), &e);
    for (int chunk = 0; chunk < 3; chunk++) {
        minim_row rows[16];
        for (int i = 0; i < 16; i++) rows[i] = (minim_row){seq, i ? tokens[chunk * 16 + i] : 1, 0};
        ok(minim_seq_truncate(seq, 0), &e);
        ok(minim_engine_step(engine, rows, 16, NULL, &e), &e);
    }
    minim_seq_free(seq);
    minim_engine_free(engine);
    minim_model_free(m);
    const double *expected = s.squares[seen_at(&s, "blk.4.ffn_down.weight")];
    for (int i = 0; i < N_FF; i++) assert_true(fabs((double)sums[i] - expected[i]) <= 1e-6 * expected[i]);
}

static void files_are_joined_by_adding(void **state) {
    (void)state;
    static float part[2][N_FF], sum[N_FF], count[1];
    const char *name = "blk.1.ffn_up.weight.in_sum2";
    write_text("text", 30);
    if (run("-q -f text -o a.gguf -c 32 --chunks 2") || run("-q -f text -o b.gguf -c 32 --chunk 2 --chunks 1") ||
        run("-q --in-file a.gguf --in-file b.gguf -o sum.gguf") ||
        run("-q -f text -c 32 --chunks 3 --output-file all.gguf"))
        fail_msg("%s", err);
    numbers_of("a.gguf", name, part[0], N_FF);
    numbers_of("b.gguf", name, part[1], N_FF);
    assert_int_equal(numbers_of("sum.gguf", name, sum, N_FF), N_EMBD);
    for (int i = 0; i < N_EMBD; i++) assert_true(fabsf(sum[i] - part[0][i] - part[1][i]) <= 1e-6f * sum[i]);
    numbers_of("all.gguf", name, part[0], N_FF);
    for (int i = 0; i < N_EMBD; i++) assert_true(fabsf(sum[i] - part[0][i]) <= 1e-5f * sum[i]);
    numbers_of("sum.gguf", "blk.1.ffn_up.weight.counts", count, 1);
    assert_true(count[0] == 96);
}

static void the_output_matrix_is_left_out_unless_wanted(void **state) {
    (void)state;
    static float x[N_FF];
    write_text("text", 4);
    if (run("-q -f text -o a.gguf -c 16 --process-output")) fail_msg("%s", err);
    assert_int_equal(numbers_of("a.gguf", "output.weight.in_sum2", x, N_FF), N_EMBD);
    if (run("-f text -o b.gguf -c 16")) fail_msg("%s", err);
    assert_non_null(strstr(err, "b.gguf: 35 matrices"));
}

static void short_texts_and_wrong_lines_are_refused(void **state) {
    (void)state;
    write_text("short", 1);
    refuses("-f short -o never.gguf", 1, "short: expected at least 128 tokens", "found 2");
    refuses("-f short -o never.gguf -c 8 --chunk 100", 1, "expected at least 808 tokens", "found 2");
    refuses("-f nothing -o never.gguf", 1, "nothing", "No such file");
    refuses("-f short -c 4 -o ./short", 1, "./short: -o would overwrite an input", "");
    char command[256];
    snprintf(command, sizeof command, "cp %s %s/model && ln -s model %s/link", model_path, folder, folder);
    assert_int_equal(system(command), 0);
    refuses("-m model -f short -c 4 -o link", 1, "link: -o would overwrite an input", "");
    snprintf(command, sizeof command, "cmp %s %s/model", model_path, folder);
    assert_int_equal(system(command), 0);
    refuses("-o never.gguf", 2, "-f TEXT", "");
    refuses("-f short -o never.gguf -c 0", 2, "-c", "");
}

/* A file of one entry, with what is wrong. */
static void write_imatrix(const char *type, float value, size_t n_sums, size_t n_counts, int alone) {
    float x[64];
    char path[128];
    gw w;
    size_t n;
    for (size_t i = 0; i < COUNT(x); i++) x[i] = i == 5 ? value : 1;
    gw_init(&w);
    gw_str(&w, "general.type", type);
    gw_u32(&w, "imatrix.chunk_count", 3);
    gw_tensor(&w, "m.weight.in_sum2", 0, 2, (uint64_t[]){32, n_sums}, x, n_sums * 32 * sizeof *x);
    if (!alone) gw_tensor(&w, "m.weight.counts", 0, 2, (uint64_t[]){1, n_counts}, x, n_counts * sizeof *x);
    uint8_t *image = gw_finish(&w, &n);
    snprintf(path, sizeof path, "%s/bad.gguf", folder);
    FILE *file = fopen(path, "wb");
    assert_true(file && fwrite(image, 1, n, file) == n && !fclose(file));
    free(image);
    gw_free(&w);
}

static void damaged_files_are_refused(void **state) {
    (void)state;
    static const char in[] = "-q --in-file bad.gguf -o never.gguf";
    write_imatrix("imatrix", NAN, 1, 1, 0);
    refuses(in, 1, "m.weight.in_sum2", "element 5 is nan");
    write_imatrix("imatrix", -1, 1, 1, 0);
    refuses(in, 1, "m.weight.in_sum2", "element 5 is -1");
    write_imatrix("imatrix", INFINITY, 1, 1, 0);
    refuses(in, 1, "m.weight.in_sum2", "element 5 is inf");
    write_imatrix("imatrix", 1, 2, 1, 0);
    refuses(in, 1, "m.weight.in_sum2", "2 rows");
    write_imatrix("imatrix", 1, 1, 1, 1);
    refuses(in, 1, "m.weight.in_sum2", "stands alone");
    char command[256];
    snprintf(command, sizeof command, "cp %s %s/bad.gguf", model_path, folder);
    assert_int_equal(system(command), 0);
    refuses(in, 1, "bad.gguf", "found no tensor *.in_sum2");
    write_imatrix("imatrix", 1, 2, 2, 0);
    assert_int_equal(run("-q --in-file bad.gguf -o good.gguf"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(being_watched_changes_no_bit),
        cmocka_unit_test(every_matrix_shows_all_rows),
        cmocka_unit_test(parts_give_the_bits_of_the_whole),
        cmocka_unit_test(parts_that_are_none_are_refused),
        cmocka_unit_test_setup_teardown(a_file_holds_the_sums_of_squares, setup, teardown),
        cmocka_unit_test_setup_teardown(files_are_joined_by_adding, setup, teardown),
        cmocka_unit_test_setup_teardown(the_output_matrix_is_left_out_unless_wanted, setup, teardown),
        cmocka_unit_test_setup_teardown(short_texts_and_wrong_lines_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_files_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
