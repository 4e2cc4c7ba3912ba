/* test_session.c: a sequence goes to a file and comes back with the same bits, or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../engine/minim.h"
#include "../kernels/kernels.h"
#include "family_model.h"
#include "synth.h"

enum { N_VOCAB = 512, N_CTX = 256, N = 100 };

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

/* ---- files --------------------------------------------------------------------------------------------------------
 */

static char folder[64], path[96];

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/minim-session-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/session", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder); /* fails if anything was left behind */
}

static unsigned char *read_file(size_t *size) {
    struct stat about;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fstat(fileno(f), &about), 0);
    *size = (size_t)about.st_size;
    unsigned char *data = malloc(*size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *size, f), *size);
    fclose(f);
    return data;
}

static void write_file(const unsigned char *data, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* ---- the world ----------------------------------------------------------------------------------------------------
 */

static minim_model *model_of(const char *family, int n_embd) {
    const synth_shape shape = {.type = KERN_Q4_0,
                               .n_layers = 1,
                               .n_embd = n_embd,
                               .n_heads = 2,
                               .n_kv_heads = 1,
                               .head_dim = 16,
                               .n_ff = 32,
                               .n_ctx = N_CTX};
    minim_error e;
    minim_model *m = family_model_load(family, &shape, &e);
    ok(e.status, &e);
    assert_non_null(m);
    return m;
}

static minim_engine_options options_of(void) {
    minim_engine_options o;
    minim_engine_options_default(&o);
    o.n_threads = 1, o.page_size = 16, o.n_ctx = N_CTX, o.n_batch = 32;
    return o;
}

static minim_engine *engine_of(const minim_model *m, const minim_engine_options *o) {
    minim_error e;
    minim_engine *engine;
    ok(minim_engine_new(m, o, &engine, &e), &e);
    return engine;
}

/* Takes the sequence to n tokens; logits of the last one. */
static void advance(minim_engine *engine, minim_seq *seq, size_t n, float *logits) {
    minim_error e;
    int32_t tokens[N_CTX];
    minim_row rows[N_CTX];
    synth_tokens(tokens, N_CTX);
    size_t from = minim_seq_length(seq);
    for (size_t i = from; i < n; i++) rows[i - from] = (minim_row){seq, tokens[i], i + 1 == n};
    ok(minim_engine_step(engine, rows, n - from, logits, &e), &e);
}

static minim_seq *seq_of(minim_engine *engine, size_t n) {
    minim_error e;
    minim_seq *seq;
    float logits[N_VOCAB];
    ok(minim_seq_new(engine, &seq, &e), &e);
    if (n) advance(engine, seq, n, logits);
    return seq;
}

static uint64_t pages_in_use(minim_engine *engine) {
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(engine, &info);
    return info.pages_in_use;
}

/* Nothing was restored, and nothing is left of it. */
static void refused(minim_engine *engine, minim_status status, const char *word) {
    minim_error e;
    minim_seq *seq = (minim_seq *)engine;
    uint64_t before = pages_in_use(engine);
    minim_status found = minim_seq_restore(engine, path, &seq, &e);
    if (found != status) fail_msg("%s, expected %s: %s", minim_status_name(found), minim_status_name(status), e.text);
    assert_null(seq);
    if (!strstr(e.text, word)) fail_msg("\"%s\" has no \"%s\"", e.text, word);
    assert_int_equal(pages_in_use(engine), before);
}

/* ---- there and back -----------------------------------------------------------------------------------------------
 */

static void round_trip(const char *family, minim_kv_type kv, size_t n, size_t cut) {
    minim_error e;
    float want[N_VOCAB], got[N_VOCAB];
    minim_model *m = model_of(family, 32);
    minim_engine_options o = options_of();
    o.kv_type = kv;
    minim_engine *a = engine_of(m, &o), *b = engine_of(m, &o);
    minim_seq *seq = seq_of(a, n), *back;
    minim_seq_truncate(seq, cut);
    ok(minim_seq_save(seq, path, &e), &e);
    ok(minim_seq_restore(b, path, &back, &e), &e);
    assert_int_equal(minim_seq_length(back), cut);
    if (cut) assert_memory_equal(minim_seq_tokens(back), minim_seq_tokens(seq), cut * sizeof(int32_t));
    if (cut == n) assert_true(pages_in_use(b) <= pages_in_use(a));
    minim_seq_free(seq);
    seq = seq_of(a, 0);
    advance(a, seq, cut + 20, want);
    advance(b, back, cut + 20, got);
    assert_memory_equal(got, want, sizeof got);
    minim_seq_free(seq);
    ok(minim_seq_save(back, path, &e), &e); /* again, over the first */
    minim_seq_free(back);
    ok(minim_seq_restore(a, path, &seq, &e), &e);
    advance(a, seq, cut + 21, got);
    minim_seq_free(seq);
    minim_engine_free(a);
    minim_engine_free(b);
    minim_model_free(m);
}

static void a_sequence_comes_back_with_the_same_bits(void **state) {
    (void)state;
    round_trip(NULL, MINIM_KV_F16, N, N);
    round_trip(NULL, MINIM_KV_F32, N, N);
    round_trip(NULL, MINIM_KV_Q8, N, N);
    round_trip(NULL, MINIM_KV_Q4, N, N);
    round_trip(NULL, MINIM_KV_Q8_Q4, N, N);
    round_trip("gemma3", MINIM_KV_Q8, 200, 200);
    round_trip("gemma3", MINIM_KV_Q4, 200, 30);
    round_trip(NULL, MINIM_KV_F16, 96, 96);
    round_trip(NULL, MINIM_KV_F16, N, 50);
    round_trip(NULL, MINIM_KV_F16, N, 0);
    round_trip("gemma3", MINIM_KV_F16, 200, 200); /* without what no window reaches */
    round_trip("gemma3", MINIM_KV_F16, 200, 30);  /* cut to where pages have been given back */
    round_trip("gemma2", MINIM_KV_F32, 150, 149);
}

/* Bytes of the caller's go along; other sequences do not get them. */
static void a_note_comes_back_too(void **state) {
    (void)state;
    minim_error e;
    size_t n;
    minim_model *m = model_of(NULL, 32);
    minim_engine_options o = options_of();
    minim_engine *engine = engine_of(m, &o);
    minim_seq *seq = seq_of(engine, 20), *back, *fork;
    assert_null(minim_seq_note(seq, &n));
    assert_int_equal(n, 0);
    ok(minim_seq_set_note(seq, "first", 5, &e), &e);
    ok(minim_seq_set_note(seq, "a\0b", 3, &e), &e);
    ok(minim_seq_save(seq, path, &e), &e);
    ok(minim_seq_restore(engine, path, &back, &e), &e);
    assert_memory_equal(minim_seq_note(back, &n), "a\0b", 3);
    assert_int_equal(n, 3);
    ok(minim_seq_fork(back, &fork, &e), &e);
    assert_null(minim_seq_note(fork, &n));
    ok(minim_seq_set_note(back, NULL, 0, &e), &e);
    assert_null(minim_seq_note(back, &n));
    ok(minim_seq_save(back, path, &e), &e);
    minim_seq_free(back);
    ok(minim_seq_restore(engine, path, &back, &e), &e);
    assert_null(minim_seq_note(back, &n));
    assert_int_equal(minim_seq_set_note(NULL, "x", 1, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_seq_set_note(seq, NULL, 1, &e), MINIM_ERR_ARGUMENT);
    minim_seq_free(back);
    minim_seq_free(fork);
    minim_seq_free(seq);
    minim_engine_free(engine);
    minim_model_free(m);
}

/* The same file, whatever lay in memory before. */
static void the_file_depends_on_the_sequence_only(void **state) {
    (void)state;
    minim_error e;
    size_t size[2];
    unsigned char *data[2];
    minim_model *m = model_of(NULL, 32);
    minim_engine_options o = options_of();
    minim_engine *engine = engine_of(m, &o);
    for (int i = 0; i < 2; i++) {
        minim_seq *other = seq_of(engine, i ? 200 : 0), *seq;
        minim_seq_free(other);
        seq = seq_of(engine, 37);
        ok(minim_seq_save(seq, path, &e), &e);
        data[i] = read_file(&size[i]);
        minim_seq_free(seq);
    }
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(data[0], data[1], size[0]);
    free(data[0]);
    free(data[1]);
    minim_engine_free(engine);
    minim_model_free(m);
}

/* ---- what is refused -----------------------------------------------------------------------------------------------
 */

static void a_damaged_file_is_refused(void **state) {
    (void)state;
    minim_error e;
    minim_model *m = model_of(NULL, 32);
    minim_engine_options o = options_of();
    minim_engine *engine = engine_of(m, &o);
    minim_seq *seq = seq_of(engine, 20);
    size_t size;
    ok(minim_seq_set_note(seq, "a note", 6, &e), &e);
    ok(minim_seq_save(seq, path, &e), &e);
    unsigned char *data = read_file(&size);
    for (size_t n = 0; n < size; n++) { /* cut at every byte */
        assert_int_equal(truncate(path, (off_t)(size - 1 - n)), 0);
        refused(engine, MINIM_ERR_FORMAT, "session");
    }
    for (size_t i = 0; i < size; i++) { /* a bit of every byte */
        minim_seq *back = NULL;
        data[i] ^= (unsigned char)(1 << i % 8);
        write_file(data, size);
        minim_status status = minim_seq_restore(engine, path, &back, &e);
        if (!status || status == MINIM_ERR_MEMORY || back) fail_msg("byte %zu: %s", i, minim_status_name(status));
        data[i] ^= (unsigned char)(1 << i % 8);
    }
    data[size] = 0;
    write_file(data, size + 1);
    refused(engine, MINIM_ERR_FORMAT, "bytes");
    /* Numbers that would be too much for a careless reader, in every field of the header. */
    for (size_t at = 8; at + 8 <= 88; at += 4) {
        static const uint64_t numbers[] = {UINT64_MAX, INT64_MAX, 1ull << 32, 1ull << 63, 0x7fffffff, 0};
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
            minim_seq *back = NULL;
            unsigned char before[8];
            memcpy(before, data + at, 8);
            memcpy(data + at, &numbers[k], 8);
            write_file(data, size);
            minim_status status = minim_seq_restore(engine, path, &back, &e);
            if (memcmp(before, &numbers[k], 8) != 0) assert_true(status && !back);
            minim_seq_free(back);
            memcpy(data + at, before, 8);
        }
    }
    write_file(data, size);
    minim_seq *back;
    ok(minim_seq_restore(engine, path, &back, &e), &e);
    minim_seq_free(back);
    minim_seq_free(seq);
    assert_int_equal(pages_in_use(engine), 0);
    free(data);
    minim_engine_free(engine);
    minim_model_free(m);
}

static void a_file_fits_one_model_and_one_kind_of_page(void **state) {
    (void)state;
    minim_error e;
    minim_model *m = model_of(NULL, 32), *wider = model_of(NULL, 64), *windows = model_of("gemma3", 0);
    minim_engine_options o = options_of(), other = o;
    minim_engine *engine = engine_of(m, &o);
    minim_seq *seq = seq_of(engine, 100);
    ok(minim_seq_save(seq, path, &e), &e);
    minim_seq_free(seq);
    minim_engine *bad = engine_of(wider, &o);
    refused(bad, MINIM_ERR_UNSUPPORTED, "another model");
    minim_engine_free(bad);
    bad = engine_of(windows, &o);
    refused(bad, MINIM_ERR_UNSUPPORTED, "another model");
    minim_engine_free(bad);
    other.kv_type = MINIM_KV_F32;
    bad = engine_of(m, &other);
    refused(bad, MINIM_ERR_UNSUPPORTED, "KV type");
    minim_engine_free(bad);
    other.kv_type = MINIM_KV_Q4;
    bad = engine_of(m, &other);
    refused(bad, MINIM_ERR_UNSUPPORTED, "KV type");
    minim_engine_free(bad);
    other = o, other.page_size = 32;
    bad = engine_of(m, &other);
    refused(bad, MINIM_ERR_UNSUPPORTED, "page");
    minim_engine_free(bad);
    other = o, other.n_ctx = 99;
    bad = engine_of(m, &other);
    refused(bad, MINIM_ERR_CONTEXT, "100 tokens");
    minim_engine_free(bad);
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(engine, &info);
    other = o, other.kv_limit = info.page_bytes * 6;
    bad = engine_of(m, &other);
    refused(bad, MINIM_ERR_CONTEXT, "pool is full");
    minim_engine_free(bad);
    minim_engine_free(engine);
    minim_model_free(windows);
    minim_model_free(wider);

    /* Same shapes, one weight changed. */
    size_t size;
    synth_shape shape = {.type = KERN_Q4_0,
                         .n_layers = 1,
                         .n_embd = 32,
                         .n_heads = 2,
                         .n_kv_heads = 1,
                         .head_dim = 16,
                         .n_ff = 32,
                         .n_ctx = N_CTX};
    unsigned char *image = synth_model(&shape, &size);
    assert_non_null(image);
    image[size - 1] ^= 1;
    minim_model *tuned;
    ok(minim_model_load_memory(image, size, "tuned", NULL, &tuned, &e), &e);
    free(image);
    bad = engine_of(tuned, &o);
    refused(bad, MINIM_ERR_UNSUPPORTED, "another model");
    minim_engine_free(bad);
    minim_model_free(tuned);
    minim_model_free(m);
}

static void what_cannot_be_opened_is_told(void **state) {
    (void)state;
    minim_error e;
    minim_model *m = model_of(NULL, 32);
    minim_engine_options o = options_of();
    minim_engine *engine = engine_of(m, &o);
    minim_seq *seq = seq_of(engine, 20), *back;
    unlink(path);
    refused(engine, MINIM_ERR_IO, "No such file");
    assert_int_equal(minim_seq_restore(engine, folder, &back, &e), MINIM_ERR_FORMAT);
    assert_int_equal(minim_seq_restore(engine, "/dev/zero", &back, &e), MINIM_ERR_FORMAT);
    assert_int_equal(minim_seq_save(seq, "/nowhere/at/all", &e), MINIM_ERR_IO);
    assert_int_equal(minim_seq_save(seq, folder, &e), MINIM_ERR_IO);
    /* What is no file is not replaced, and a link stays one. */
    char link[sizeof folder + 8];
    struct stat status;
    snprintf(link, sizeof link, "%s/link", folder);
    assert_int_equal(mkfifo(link, 0600), 0);
    assert_int_equal(minim_seq_save(seq, link, &e), MINIM_ERR_IO);
    assert_int_equal(lstat(link, &status), 0);
    assert_true(S_ISFIFO(status.st_mode));
    unlink(link);
    write_file((const unsigned char *)"", 0);
    assert_int_equal(symlink(path, link), 0);
    ok(minim_seq_save(seq, link, &e), &e);
    assert_int_equal(lstat(link, &status), 0);
    assert_true(S_ISLNK(status.st_mode));
    unlink(link);
    ok(minim_seq_restore(engine, path, &back, &e), &e);
    minim_seq_free(back);
    unlink(path);
    assert_int_equal(minim_seq_save(NULL, path, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_seq_save(seq, NULL, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_seq_restore(engine, path, NULL, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_seq_restore(NULL, path, &back, &e), MINIM_ERR_ARGUMENT);
    minim_seq_free(seq);
    minim_engine_free(engine);
    minim_model_free(m);
    DIR *d = opendir("/tmp");
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));)
        if (!strncmp(entry->d_name, folder + 5, strlen(folder + 5))) assert_string_equal(entry->d_name, folder + 5);
    closedir(d);
}

/* The disk is full at any byte: the file that was there stays. */
static void a_full_disk_changes_nothing(void **state) {
    (void)state;
    minim_error e;
    minim_model *m = model_of(NULL, 32);
    minim_engine_options o = options_of();
    minim_engine *engine = engine_of(m, &o);
    minim_seq *old = seq_of(engine, 5), *seq = seq_of(engine, 60), *back;
    struct rlimit before, limit;
    size_t size, full;
    ok(minim_seq_save(seq, path, &e), &e);
    free(read_file(&full));
    ok(minim_seq_save(old, path, &e), &e);
    unsigned char *data = read_file(&size);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (size_t room = 0; room < full; room += full / 40 + 1) {
        limit = before, limit.rlim_cur = room;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        minim_status status = minim_seq_save(seq, path, &e);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(status, MINIM_ERR_IO);
        size_t now;
        unsigned char *found = read_file(&now);
        assert_int_equal(now, size);
        assert_memory_equal(found, data, size);
        free(found);
    }
    free(data);
    ok(minim_seq_restore(engine, path, &back, &e), &e);
    assert_int_equal(minim_seq_length(back), 5);
    minim_seq_free(back);
    minim_seq_free(old);
    minim_seq_free(seq);
    minim_engine_free(engine);
    minim_model_free(m);
}

/* ---- what a file may not do ----------------------------------------------------------------------------------------
 */

/* Whoever writes a file decides what is in its pages: no other sequence may begin with them. */
static void pages_of_a_file_stay_with_its_sequence(void **state) {
    (void)state;
    minim_error e;
    float logits[N_VOCAB];
    int32_t tokens[N_CTX];
    size_t reused;
    minim_model *m = model_of(NULL, 32);
    minim_engine_options o = options_of();
    minim_engine *a = engine_of(m, &o), *b = engine_of(m, &o);
    minim_seq *seq = seq_of(a, 100), *back, *fork, *fresh;
    synth_tokens(tokens, N_CTX);
    ok(minim_seq_save(seq, path, &e), &e);
    minim_seq_free(seq);
    ok(minim_seq_restore(b, path, &back, &e), &e);
    advance(b, back, 150, logits);
    ok(minim_seq_fork(back, &fork, &e), &e);
    advance(b, fork, 200, logits);
    minim_seq_free(fork);
    ok(minim_seq_new(b, &fresh, &e), &e);
    ok(minim_seq_reuse(fresh, tokens, 200, &reused, &e), &e);
    assert_int_equal(reused, 0);
    minim_seq_truncate(back, 0); /* now it is one like others */
    advance(b, back, 100, logits);
    ok(minim_seq_reuse(fresh, tokens, 200, &reused, &e), &e);
    assert_int_equal(reused, 96);
    minim_seq_free(fresh);
    minim_seq_free(back);
    minim_engine_free(a);
    minim_engine_free(b);
    minim_model_free(m);
}

typedef struct failing {
    long at, count, live;
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

static void every_failing_allocation_is_survived(void **state) {
    (void)state;
    minim_error e;
    minim_model *m = model_of(NULL, 32);
    minim_engine_options o = options_of();
    failing f = {.at = -1};
    minim_allocator allocator = {&f, failing_alloc, failing_free};
    o.allocator = &allocator;
    minim_engine *engine = engine_of(m, &o);
    minim_seq *seq = seq_of(engine, 40), *back = NULL;
    ok(minim_seq_set_note(seq, "a note", 6, &e), &e);
    long live = f.live, failures = 0;
    for (minim_status status = MINIM_ERR_MEMORY; status; failures++) {
        f.count = 0, f.at = failures;
        status = minim_seq_save(seq, path, &e);
        if (!status) status = minim_seq_restore(engine, path, &back, &e);
        if (!status) break;
        assert_int_equal(status, MINIM_ERR_MEMORY);
        assert_null(back);
        assert_int_equal(f.live, live);
    }
    assert_true(failures > 5);
    f.at = -1;
    minim_seq_free(back);
    minim_seq_free(seq);
    minim_engine_free(engine);
    assert_int_equal(f.live, 0);
    minim_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_comes_back_with_the_same_bits),
        cmocka_unit_test(a_note_comes_back_too),
        cmocka_unit_test(the_file_depends_on_the_sequence_only),
        cmocka_unit_test(a_damaged_file_is_refused),
        cmocka_unit_test(a_file_fits_one_model_and_one_kind_of_page),
        cmocka_unit_test(what_cannot_be_opened_is_told),
        cmocka_unit_test(a_full_disk_changes_nothing),
        cmocka_unit_test(pages_of_a_file_stay_with_its_sequence),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
