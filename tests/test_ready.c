/* test_ready.c: the weights of an ordinary file that is mapped: a first step that computes from the file, the step that
 * packs and those behind it give the same bits as a model that was read and packed while loading. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../kernels/kernels.h"
#include "family_model.h"
#include "gguf_writer.h"
#include "synth.h"

enum { N_VOCAB = 512, MOST = 40 };

static char folder[64], input[96], saved[96];

static int setup(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/minim-ready-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(input, sizeof input, "%s/in.gguf", folder);
    snprintf(saved, sizeof saved, "%s/saved", folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    unlink(input);
    unlink(saved);
    return rmdir(folder);
}

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

/* Writes an image, which is freed, as `input`. */
static void write_input(void *image, size_t size) {
    assert_non_null(image);
    assert_int_equal(gw_save(input, image, size), 0);
    free(image);
}

/* Rows of k and v end in a panel that is not full; there are biases. */
static void write_type(uint32_t type, int tied) {
    const synth_shape integers = {type, 2, 256, 32, 1, 8, 256, 64, tied, 1, 1, 0};
    const synth_shape floats = {type, 2, 40, 2, 1, 20, 72, 64, tied, 1, 1, 0};
    size_t size;
    void *image = synth_model(kern_type_get(type).integer ? &integers : &floats, &size);
    write_input(image, size);
}

static minim_model *load(int no_map) {
    minim_model *m;
    minim_model_options o;
    minim_error e;
    minim_model_options_default(&o);
    o.no_map = no_map, o.n_threads = 2;
    ok(minim_model_load(input, &o, &m, &e), &e);
    return m;
}

static minim_engine *engine_of(const minim_model *m, const char *isa, int threads) {
    minim_engine *engine;
    minim_engine_options o;
    minim_error e;
    minim_engine_options_default(&o);
    o.isa = isa, o.n_threads = threads, o.n_ctx = 64;
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    return engine;
}

/* Of a new sequence that takes n tokens in one step. */
static uint64_t step(minim_engine *engine, size_t n) {
    minim_seq *seq;
    minim_error e;
    minim_row rows[MOST];
    int32_t tokens[MOST];
    float *logits = malloc(n * N_VOCAB * sizeof *logits);
    uint64_t h = 14695981039346656037u;
    assert_non_null(logits);
    ok(minim_seq_new(engine, &seq, &e), &e);
    synth_tokens(tokens, n);
    for (size_t i = 0; i < n; i++) rows[i] = (minim_row){seq, tokens[i], 1};
    ok(minim_engine_step(engine, rows, n, logits, &e), &e);
    for (size_t i = 0; i < n * N_VOCAB * sizeof *logits; i++) h = (h ^ ((const uint8_t *)logits)[i]) * 1099511628211u;
    free(logits);
    minim_seq_free(seq);
    return h;
}

/* Bytes of the mapped file that the process holds; -1 when it is not mapped. */
static long mapped_now(void) {
    char line[512];
    long bytes = -1, kb;
    int here = 0;
    FILE *maps = fopen("/proc/self/smaps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
        if (strchr(line, '-') && strstr(line, " r")) here = strstr(line, input) != NULL;
        if (here && sscanf(line, "Rss: %ld kB", &kb) == 1) bytes = (bytes < 0 ? 0 : bytes) + kb * 1024;
    }
    if (maps) fclose(maps);
    return bytes;
}

/* From the file, packing, packed: three steps of one row, or the first of many. */
static void same_bits(const char *what, int every_isa) {
    minim_model *read = load(1);
    assert_int_equal(mapped_now(), -1);
    minim_engine *engine = engine_of(read, "ref", 1);
    const uint64_t one = step(engine, 1), some = step(engine, 5), many = step(engine, MOST);
    minim_engine_free(engine);
    minim_model_free(read);
    for (int k = 0; kern_isa_name(k); k++) {
        if (!kern_isa_available(kern_isa_name(k)) || (!every_isa && kern_isa_name(k + 1))) continue;
        for (int way = 0; way < 4; way++) {
            minim_model *m = load(0);
            engine = engine_of(m, kern_isa_name(k), 1 + (way + k) % 3);
            int same = 1;
            if (way == 0) same = step(engine, 1) == one;
            if (way == 1) same = step(engine, 5) == some;
            if (way == 3) minim_engine_prepare(engine);
            same = step(engine, MOST) == many && same; /* packs if that is still to be done */
            same = same && step(engine, 1) == one && step(engine, 5) == some;
            if (!same) fail_msg("%s, %s, way %d: other logits", what, kern_isa_name(k), way);
            minim_engine_free(engine);
            minim_model_free(m);
        }
    }
}

static void every_type(void **state) {
    (void)state;
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        if (!kern_type_get(type).has_kernels) continue;
        write_type(type, type % 2 == 0);
        same_bits(kern_type_get(type).name, type == KERN_Q4_0 || type == KERN_Q6_K);
    }
}

/* With matrices that hold several. */
static void every_family(void **state) {
    (void)state;
    for (const family_model *f = family_models; f->name; f++) {
        size_t size;
        void *image = family_model_image(f, -1, FAMILY_INTACT, NULL, &size);
        write_input(image, size);
        same_bits(f->name, 0);
    }
}

typedef struct one_engine {
    const minim_model *model;
    int threads;
    uint64_t hash;
} one_engine;

static void *run_engine(void *arg) {
    one_engine *o = arg;
    minim_engine *engine = engine_of(o->model, NULL, o->threads);
    o->hash = 0;
    for (int i = 0; i < 3; i++) o->hash = o->hash * 31 + step(engine, 1);
    minim_engine_prepare(engine);
    o->hash = o->hash * 31 + step(engine, MOST);
    minim_engine_free(engine);
    return NULL;
}

/* Whoever comes first packs, the others go on meanwhile. */
static void engines_share_a_model(void **state) {
    (void)state;
    write_type(KERN_Q4_0, 1);
    minim_model *read = load(1);
    one_engine alone = {read, 1, 0};
    run_engine(&alone);
    minim_model_free(read);
    for (int round = 0; round < 10; round++) {
        minim_model *m = load(0);
        one_engine engine[3];
        pthread_t thread[3];
        for (int i = 0; i < 3; i++) {
            engine[i] = (one_engine){m, 1 + i % 2, 0};
            assert_int_equal(pthread_create(&thread[i], NULL, run_engine, &engine[i]), 0);
        }
        for (int i = 0; i < 3; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
        for (int i = 0; i < 3; i++) assert_true(engine[i].hash == alone.hash);
        minim_model_free(m);
    }
    assert_int_equal(mapped_now(), -1);
}

/* A saved sequence is bound to the weights, wherever they are at the time. */
static void saved_sequences_fit(void **state) {
    (void)state;
    minim_error e;
    minim_seq *seq;
    write_type(KERN_Q4_K, 0);
    for (int i = 0; i < 4; i++) {
        minim_model *from = load(i & 1), *to = load(i >> 1);
        minim_engine *a = engine_of(from, NULL, 2), *b = engine_of(to, NULL, 1);
        ok(minim_seq_new(a, &seq, &e), &e);
        ok(minim_engine_step(a, &(minim_row){seq, 1, 0}, 1, NULL, &e), &e);
        ok(minim_seq_save(seq, saved, &e), &e);
        minim_seq_free(seq);
        ok(minim_seq_restore(b, saved, &seq, &e), &e);
        assert_int_equal(minim_seq_length(seq), 1);
        minim_seq_free(seq);
        minim_engine_free(a);
        minim_engine_free(b);
        minim_model_free(from);
        minim_model_free(to);
    }
}

/* Rows of noise: of 16 times 8 scales some are often bad. */
static void damage_is_found_in_rows_as_in_panels(void **state) {
    (void)state;
    uint32_t seed = 1;
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        const int64_t cols = 512;
        const size_t bytes = kern_panel_bytes(type, cols);
        int found = 0, whole = 0;
        if (!bytes || !kern_type_get(type).integer) continue;
        uint8_t *rows = malloc(bytes), *panel = malloc(bytes);
        assert_true(rows && panel);
        for (int round = 0; round < 400; round++) {
            const int n_rows = 1 + round % KERN_PANEL;
            int64_t col[2] = {-1, -1};
            for (size_t i = 0; i < bytes; i++) rows[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
            kern_pack(type, cols, rows, bytes / KERN_PANEL, n_rows, panel);
            const int row = kern_find_bad_scale_in_rows(type, cols, rows, n_rows, &col[0]);
            assert_int_equal(row, kern_find_bad_scale(type, cols, panel, n_rows, &col[1]));
            assert_int_equal(col[0], col[1]);
            found += row >= 0, whole += row < 0;
        }
        assert_true(whole && (found || type == KERN_NVFP4)); /* NVFP4 has no scale that is no number */
        free(rows);
        free(panel);
    }
}

/* Weights are in memory once, but for a few pages. */
static void rows_are_given_back(void **state) {
    (void)state;
    const synth_shape shape = {KERN_F16, 2, 512, 8, 8, 64, 2048, 64, 0, 0, 1, 0};
    size_t size;
    void *image = synth_model(&shape, &size);
    write_input(image, size);
    minim_model *m = load(0);
    minim_engine *engine = engine_of(m, NULL, 2);
    const uint64_t first = step(engine, 1);
    const long before = mapped_now();
    assert_true(before > (long)size / 2);
    assert_true(step(engine, 1) == first);
    assert_true(mapped_now() < before / 8); /* the embedding is no factor of a product */
    minim_engine_prepare(engine);
    assert_true(mapped_now() < 256 * 1024);
    assert_true(step(engine, 1) == first);
    assert_int_equal(unlink(input), 0);
    assert_true(step(engine, 1) == first);
    minim_engine_free(engine);
    minim_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type),
        cmocka_unit_test(every_family),
        cmocka_unit_test(engines_share_a_model),
        cmocka_unit_test(saved_sequences_fit),
        cmocka_unit_test(damage_is_found_in_rows_as_in_panels),
        cmocka_unit_test(rows_are_given_back),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
