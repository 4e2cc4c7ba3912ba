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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../engine/engine.h"
#include "../kernels/kernels.h"
#include "family_model.h"
#include "gguf_writer.h"
#include "synth.h"

#if defined(__SANITIZE_THREAD__)
enum { SOME = 5 }; /* every fifth, where every byte that plain C reads costs a call */
#else
enum { SOME = 1 };
#endif
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
    engine->share_all = 1;
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

/* From the file, packing, packed: three steps of one row, or the first of many. Returns how many were compared. */
static int same_bits(const char *what, int every_isa) {
    minim_model *read = load(1);
    assert_int_equal(mapped_now(), -1);
    minim_engine *engine = engine_of(read, "ref", 1);
    int compared = 0;
    const uint64_t one = step(engine, 1), some = step(engine, 5), many = step(engine, MOST);
    minim_engine_free(engine);
    minim_model_free(read);
    for (int k = 0; k == 0 || (every_isa && kern_isa_name(k)); k++) {
        const char *isa = every_isa ? kern_isa_name(k) : NULL; /* NULL: the best */
        if (isa && !kern_isa_available(isa)) continue;
        for (int way = 0; way < 4; way++) {
            minim_model *m = load(0);
            engine = engine_of(m, isa, 1 + (way + k) % 3);
            int same = 1;
            if (way == 0) same = step(engine, 1) == one;
            if (way == 1) same = step(engine, 5) == some;
            if (way == 3) minim_engine_prepare(engine);
            same = step(engine, MOST) == many && same; /* packs if that is still to be done */
            same = same && step(engine, 1) == one && step(engine, 5) == some;
            if (!same) fail_msg("%s, %s, way %d: other logits", what, isa ? isa : "best", way);
            compared += same;
            minim_engine_free(engine);
            minim_model_free(m);
        }
    }
    return compared;
}

static void every_type(void **state) {
    (void)state;
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        if (!kern_type_get(type).has_kernels || type % SOME) continue;
        write_type(type, type % 2 == 0);
        assert_true(same_bits(kern_type_get(type).name, type == KERN_Q4_0 || type == KERN_Q6_K) >= 4);
    }
}

/* With matrices that hold several. */
static void every_family(void **state) {
    (void)state;
    for (const family_model *f = family_models; f->name; f++) {
        size_t size;
        if ((f - family_models) % SOME) continue;
        void *image = family_model_image(f, -1, FAMILY_INTACT, NULL, &size);
        write_input(image, size);
        assert_int_equal(same_bits(f->name, 0), 4);
    }
}

typedef struct one_engine {
    minim_engine *engine;
    pthread_barrier_t *begin;
    int prepares;
    uint64_t expected;
    int wrong;
} one_engine;

static void *run_engine(void *arg) {
    one_engine *o = arg;
    pthread_barrier_wait(o->begin);
    if (o->prepares) minim_engine_prepare(o->engine);
    for (int i = 0; i < 6; i++) o->wrong += step(o->engine, 1) != o->expected;
    return NULL;
}

/* A model of some megabytes: packing takes a while. */
static size_t write_large(uint32_t type) {
    const synth_shape shape = {type, 2, 512, 8, 8, 64, 2048, 64, 0, 0, 1, 0};
    size_t size;
    void *image = synth_model(&shape, &size);
    write_input(image, size);
    return size;
}

/* One packs everything, or who needs it packs; the others go on meanwhile. */
static void engines_share_a_model(void **state) {
    (void)state;
    enum { N = 3 };
    write_large(KERN_Q4_0);
    minim_model *read = load(1);
    minim_engine *alone = engine_of(read, NULL, 1);
    const uint64_t expected = step(alone, 1);
    minim_engine_free(alone);
    minim_model_free(read);
    for (int round = 0; round < 12; round++) {
        minim_model *m = load(0);
        one_engine o[N];
        pthread_t thread[N];
        pthread_barrier_t begin;
        assert_int_equal(pthread_barrier_init(&begin, NULL, N), 0);
        for (int i = 0; i < N; i++)
            o[i] = (one_engine){engine_of(m, NULL, 1 + i % 2), &begin, i == 0 && round % 2, expected, 0};
        for (int i = 0; i < N; i++) assert_int_equal(pthread_create(&thread[i], NULL, run_engine, &o[i]), 0);
        for (int i = 0; i < N; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
        for (int i = 0; i < N; i++) {
            assert_int_equal(o[i].wrong, 0);
            minim_engine_free(o[i].engine);
        }
        pthread_barrier_destroy(&begin);
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
    const size_t size = write_large(KERN_F16);
    minim_model *m = load(0);
    minim_engine *engine = engine_of(m, NULL, 2);
    const uint64_t first = step(engine, 1);
    const long before = mapped_now();
    assert_true(before > (long)size / 2);
    assert_true(step(engine, 1) == first);
    assert_true(mapped_now() < before / 8); /* the embedding is no factor of a product */
    minim_engine_prepare(engine);
    minim_engine_prepare(NULL);
    assert_true(mapped_now() < before / 8);
    assert_true(step(engine, 1) == first);
    assert_int_equal(unlink(input), 0);
    assert_true(step(engine, 1) == first);
    minim_engine_free(engine);
    minim_model_free(m);
}

/* The same error whether rows are looked at or packed. */
static void damaged_scales_are_refused(void **state) {
    (void)state;
    const synth_shape shape = {KERN_Q4_0, 2, 256, 32, 1, 8, 256, 64, 0, 0, 1, 0};
    size_t size;
    uint8_t *image = synth_model(&shape, &size);
    minim_model *m;
    minim_error e[2];
    minim_tensor t = {.name = ""};
    minim_model_options o;
    minim_model_options_default(&o);
    o.level = MINIM_LOAD_HEADER;
    assert_non_null(image);
    ok(minim_model_load_memory(image, size, "image", &o, &m, &e[0]), &e[0]);
    for (size_t k = 0; strcmp(t.name, "blk.1.ffn_down.weight") != 0; k++)
        assert_int_equal(minim_model_tensor(m, k, &t), MINIM_OK);
    const size_t at = (size_t)t.offset + (201 * 8 + 7) * 18; /* the last of the 8 blocks of row 201 */
    image[at] = 0, image[at + 1] = 0x7c;                     /* infinity in float16 */
    minim_model_free(m);
    write_input(image, size);
    for (int no_map = 0; no_map < 2; no_map++) {
        minim_model_options_default(&o);
        o.no_map = no_map;
        assert_int_equal(minim_model_load(input, &o, &m, &e[no_map]), MINIM_ERR_FORMAT);
        if (!strstr(e[no_map].text, "blk.1.ffn_down.weight: the scale of the block at row 201, column 224 is infinite"))
            fail_msg("%s", e[no_map].text);
    }
    assert_string_equal(e[0].text, e[1].text);
}

/* What is planned from the header is what is taken. */
static void the_plan_knows(void **state) {
    (void)state;
    write_large(KERN_Q8_0);
    for (int no_map = 0; no_map < 2; no_map++) {
        minim_memory_plan plan[2] = {{.size = sizeof plan[0]}, {.size = sizeof plan[1]}};
        for (int all = 0; all < 2; all++) {
            minim_model *m;
            minim_error e;
            minim_model_options o;
            minim_engine_options eo;
            minim_model_options_default(&o);
            minim_engine_options_default(&eo);
            o.no_map = no_map, eo.n_threads = 16;
            o.level = all ? MINIM_LOAD_ALL : MINIM_LOAD_HEADER;
            ok(minim_model_load(input, &o, &m, &e), &e);
            ok(minim_engine_plan(m, &eo, &plan[all], &e), &e);
            minim_model_free(m);
        }
        assert_int_equal(plan[0].scratch, plan[1].scratch);
    }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* Where there is address space for the weights, but not for the file beside them. */
static void address_space_may_be_short(void **state) {
    (void)state;
    const synth_shape shape = {KERN_F32, 4, 1024, 16, 16, 64, 4096, 64, 0, 0, 1, 0};
    size_t size;
    long pages = 0;
    void *image = synth_model(&shape, &size);
    write_input(image, size);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        minim_model *m;
        minim_model_options o;
        minim_model_options_default(&o);
        o.n_threads = 1;
        FILE *statm = fopen("/proc/self/statm", "r");
        if (!statm || fscanf(statm, "%ld", &pages) != 1) _exit(2);
        const rlim_t limit = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + size + size / 4;
        if (setrlimit(RLIMIT_AS, &(struct rlimit){limit, limit})) _exit(2);
        _exit(minim_model_load(input, &o, &m, NULL) != MINIM_OK);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type),
        cmocka_unit_test(every_family),
        cmocka_unit_test(engines_share_a_model),
        cmocka_unit_test(saved_sequences_fit),
        cmocka_unit_test(damage_is_found_in_rows_as_in_panels),
        cmocka_unit_test(rows_are_given_back),
        cmocka_unit_test(damaged_scales_are_refused),
        cmocka_unit_test(the_plan_knows),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(address_space_may_be_short),
#endif
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
