/* test_gguf.c: a correct GGUF file is read as it is written, from memory and from a file alike; and whatever happens to
 * a file, the file system or the memory, the caller gets an answer. Damage by kind is in test_gguf_bad.c. */
#include <ftw.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../engine/gguf.h"
#include "count_allocator.h"
#include "gguf_writer.h"

static char folder[] = "/tmp/minim-gguf-XXXXXX";

static const char *in_folder(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* ---- a file with everything in it ------------------------------------------------------------------------------- */

static uint8_t norm_data[128], matrix_data[3 * 68];

/* Every type as a value and as an array; tensors with and without blocks. The tensor list ends at an odd offset. */
static uint8_t *full_file(uint32_t version, uint32_t alignment, size_t *n) {
    static const char *const words[] = {"", "the", "\xe2\x96\x81once", "bad \xff utf-8"};
    static const uint8_t numbers[24] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                                        13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
    static const uint8_t sizes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    static const uint8_t bools[3] = {1, 0, 1};
    gw w;
    uint8_t *image;
    gw_init(&w);
    w.version = version;
    for (size_t i = 0; i < sizeof norm_data; i++) norm_data[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof matrix_data; i++) matrix_data[i] = (uint8_t)(255 - i);
    if (alignment) gw_alignment(&w, alignment);
    gw_str(&w, "general.architecture", "llama");
    gw_number(&w, "u8", 0, 200);
    gw_number(&w, "i8", 1, (uint8_t)-100);
    gw_number(&w, "u16", 2, 60000);
    gw_number(&w, "i16", 3, (uint16_t)-30000);
    gw_u32(&w, "u32", 4000000000u);
    gw_number(&w, "i32", 5, (uint32_t)-2000000000);
    gw_f32(&w, "f32", 0.1f);
    gw_bool(&w, "true", 1);
    gw_bool(&w, "false", 0);
    gw_number(&w, "u64", 10, UINT64_MAX);
    gw_number(&w, "small u64", 10, 7);
    gw_number(&w, "i64", 11, (uint64_t)-5);
    gw_number(&w, "positive i64", 11, 5);
    gw_f64(&w, "f64", 0.25);
    gw_f64(&w, "large f64", 1e300);
    gw_f64(&w, "infinite f64", (double)INFINITY);
    gw_str(&w, "empty", "");
    gw_str_bytes(&w, "nul", "a\0b", 3);
    for (uint32_t type = 0; type < 13; type++) {
        char key[16];
        snprintf(key, sizeof key, "array %u", type);
        if (type == 7)
            gw_numbers(&w, key, type, bools, 3, 1);
        else if (type == 8)
            gw_strings(&w, key, words, 4);
        else if (type != 9)
            gw_numbers(&w, key, type, numbers, 3, sizes[type]);
    }
    gw_array(&w, "no numbers", 6, 0);
    gw_array(&w, "no strings", 8, 0);
    gw_tensor(&w, "norm.weight", 0, 1, (uint64_t[]){32}, norm_data, sizeof norm_data);
    gw_tensor(&w, "matrix.weight", 8, 2, (uint64_t[]){64, 3}, matrix_data, sizeof matrix_data);
    gw_tensor(&w, "\xc3\xa9tendu", 1, 4, (uint64_t[]){1, 3, 1, 2}, NULL, 12);
    image = gw_finish(&w, n);
    gw_free(&w);
    return image;
}

static gguf_file *open_ok(const char *path, const void *data, size_t n) {
    gguf_file *f;
    minim_error e;
    if (gguf_open(NULL, path, data, n, &f, &e)) fail_msg("%s", e.text);
    assert_int_equal(e.status, MINIM_OK);
    return f;
}

static void check_full_values(const gguf_file *f) {
    const gguf_value *v;
    const gguf_str *s;
    char type[32];
    v = gguf_find(f, "i16");
    assert_int_equal(v->type, GGUF_I16);
    assert_int_equal(v->elem_type, GGUF_I16);
    assert_int_equal(v->count, 1);
    assert_memory_equal(v->data, "\xd0\x8a", 2);
    assert_string_equal(gguf_type_text(v, type, sizeof type), "i16");
    v = gguf_find(f, "nul");
    s = v->data;
    assert_int_equal(s->n, 3);
    assert_memory_equal(s->s, "a\0b\0", 4);
    v = gguf_find(f, "array 8");
    s = v->data;
    assert_int_equal(v->count, 4);
    assert_string_equal(gguf_type_text(v, type, sizeof type), "arr[str]");
    assert_string_equal(s[0].s, "");
    assert_string_equal(s[1].s, "the");
    assert_string_equal(s[2].s, "\xe2\x96\x81once");
    assert_string_equal(s[3].s, "bad \xff utf-8");
    v = gguf_find(f, "array 10");
    assert_int_equal((uintptr_t)v->data % 8, 0);
    assert_memory_equal((const char *)v->data + 16, "\21\22\23\24\25\26\27\30", 8);
    v = gguf_find(f, "no strings");
    assert_int_equal(v->count, 0);
    assert_non_null(v->data);
    assert_null(gguf_find(f, "absent"));
    assert_null(gguf_find(f, ""));
    assert_null(gguf_value_at(f, gguf_value_count(f)));
}

static void check_full_tensors(const gguf_file *f) {
    const gguf_tensor *t = gguf_find_tensor(f, "matrix.weight");
    uint8_t data[sizeof matrix_data];
    minim_error e;
    assert_int_equal(gguf_tensor_count(f), 3);
    assert_ptr_equal(t, gguf_tensor_at(f, 1));
    assert_null(gguf_tensor_at(f, 3));
    assert_null(gguf_find_tensor(f, "matrix"));
    assert_int_equal(t->type, 8);
    assert_int_equal(t->n_dims, 2);
    assert_memory_equal(t->dim, ((uint64_t[]){64, 3, 1, 1}), sizeof t->dim);
    assert_int_equal(t->elements, 192);
    assert_int_equal(t->bytes, sizeof matrix_data);
    assert_int_equal(gguf_read(f, t, 0, data, sizeof data, &e), MINIM_OK);
    assert_memory_equal(data, matrix_data, sizeof data);
    assert_int_equal(gguf_read(f, t, 100, data, 5, &e), MINIM_OK);
    assert_memory_equal(data, matrix_data + 100, 5);
    assert_int_equal(gguf_read(f, t, sizeof data, NULL, 0, &e), MINIM_OK);
    t = gguf_find_tensor(f, "\xc3\xa9tendu");
    assert_int_equal(t->elements, 6);
    assert_int_equal(t->bytes, 12);
    assert_int_equal(gguf_tensor_at(f, 0)->offset % 8, 0);
}

/* alignment 0: no key, the default of 32 holds. */
static void check_full_file(uint32_t version, uint32_t alignment) {
    size_t n;
    uint8_t *image = full_file(version, alignment, &n);
    gguf_file *in_memory, *in_file;
    assert_int_equal(gw_save(in_folder("full.gguf"), image, n), 0);
    in_memory = open_ok("full", image, n);
    in_file = open_ok(in_folder("full.gguf"), NULL, 0);
    assert_string_equal(gguf_path(in_memory), "full");
    assert_string_equal(gguf_path(in_file), in_folder("full.gguf"));
    assert_int_equal(gguf_version(in_memory), version);
    assert_int_equal(gguf_value_count(in_file), gguf_value_count(in_memory));
    check_full_values(in_memory);
    check_full_values(in_file);
    check_full_tensors(in_memory);
    check_full_tensors(in_file);
    for (size_t i = 0; i < 3; i++) {
        const gguf_tensor *t = gguf_tensor_at(in_memory, i);
        assert_int_equal(t->offset % (alignment ? alignment : 32), 0);
        assert_int_equal(t->offset, gguf_tensor_at(in_file, i)->offset);
        assert_ptr_equal(gguf_data(in_memory, t), image + t->offset);
        assert_null(gguf_data(in_file, gguf_tensor_at(in_file, i)));
    }
    gguf_close(in_memory);
    gguf_close(in_file);
    free(image);
}

static void a_file_of_version_3_is_read_as_written(void **state) {
    (void)state;
    check_full_file(3, 0);
}

static void a_file_of_version_2_is_read_as_written(void **state) {
    (void)state;
    check_full_file(2, 0);
}

static void every_alignment_in_use_is_read(void **state) {
    static const uint32_t alignments[] = {8, 16, 32, 64, 128, 4096, 65536};
    (void)state;
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) check_full_file(3, alignments[i]);
}

static void tensors_may_lie_in_any_order_with_gaps(void **state) {
    const uint64_t dim = 32;
    gw w;
    size_t n;
    uint8_t *image;
    gguf_file *f;
    (void)state;
    gw_init(&w);
    for (int i = 0; i < 40; i++) { /* 0 13 26 39 12 ..: each place once, none in order, 64 bytes between two */
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        gw_info(&w, name, 0, 1, &dim, (uint64_t)(i * 13 % 40) * 192);
    }
    gw_put_zeros(&w.data, 39 * 192 + 128);
    image = gw_finish(&w, &n);
    f = open_ok("order", image, n);
    assert_int_equal(gguf_tensor_count(f), 40);
    assert_int_equal(gguf_find_tensor(f, "t1")->offset - gguf_find_tensor(f, "t0")->offset, 13 * 192);
    gguf_close(f);
    free(image);
    gw_free(&w);
}

static void a_file_without_keys_and_tensors_is_read(void **state) {
    gw w;
    size_t n;
    uint8_t *image;
    gguf_file *f;
    (void)state;
    gw_init(&w);
    image = gw_finish(&w, &n);
    assert_int_equal(n, 24);
    f = open_ok("nothing", image, n);
    assert_int_equal(gguf_value_count(f), 0);
    assert_int_equal(gguf_tensor_count(f), 0);
    assert_null(gguf_find(f, "general.architecture"));
    assert_null(gguf_find_tensor(f, "output.weight"));
    gguf_close(f);
    gguf_close(NULL);
    free(image);
}

static void a_vocabulary_of_half_a_million_strings_loads_quickly(void **state) {
    enum { COUNT = 500000 };
    count_allocator counter = {0};
    const minim_allocator a = count_allocator_get(&counter);
    const double start = time_now();
    gw w;
    size_t n;
    uint8_t *image;
    gguf_file *f;
    const gguf_str *s;
    (void)state;
    gw_init(&w);
    gw_array(&w, "tokenizer.ggml.tokens", 8, COUNT);
    for (int i = 0; i < COUNT; i++) {
        char token[16];
        gw_put_string(&w.keys, token, (size_t)snprintf(token, sizeof token, "token%d", i));
    }
    image = gw_finish(&w, &n);
    assert_int_equal(gguf_open(&a, "vocabulary", image, n, &f, NULL), MINIM_OK);
    s = gguf_find(f, "tokenizer.ggml.tokens")->data;
    for (int i = 0; i < COUNT; i += 777) {
        char token[16];
        snprintf(token, sizeof token, "token%d", i);
        assert_string_equal(s[i].s, token);
    }
    assert_true(counter.calls < 500); /* not one allocation a string */
    assert_true(counter.peak < 2 * n + 100000);
    print_message("half a million strings, written and read: %.2f s\n", time_now() - start);
    gguf_close(f);
    assert_true(count_allocator_clean(&counter));
    free(image);
    gw_free(&w);
}

static void large_and_small_values_take_little_more_than_the_file(void **state) {
    static const uint8_t numbers[20000];
    count_allocator counter = {0};
    const minim_allocator a = count_allocator_get(&counter);
    gw w;
    size_t n;
    uint8_t *image;
    gguf_file *f;
    (void)state;
    gw_init(&w);
    for (int i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "small %d", i);
        gw_u32(&w, key, 1);
        snprintf(key, sizeof key, "large %d", i);
        gw_numbers(&w, key, 0, numbers, sizeof numbers, 1);
    }
    image = gw_finish(&w, &n);
    assert_int_equal(gguf_open(&a, "values", image, n, &f, NULL), MINIM_OK);
    assert_true(counter.peak < n + n / 8);
    gguf_close(f);
    free(image);
    gw_free(&w);
}

static void what_is_exactly_at_a_limit_is_read(void **state) {
    enum { STRING = 16 << 20, ALIGNMENT = 64 << 20 };
    const uint64_t dim = 32;
    char *text = malloc(STRING + 1), *key = malloc(65536), name[64];
    gw w;
    size_t n;
    uint8_t *image;
    gguf_file *f;
    (void)state;
    assert_non_null(text);
    assert_non_null(key);
    memset(text, 't', STRING);
    memset(key, 'k', 65535);
    memset(name, 'n', 63);
    text[STRING] = key[65535] = name[63] = 0;
    gw_init(&w);
    gw_u32(&w, key, 5);
    gw_str(&w, "text", text);
    gw_u32(&w, "general.alignment", ALIGNMENT); /* the writer itself goes on with 32: there is no data yet */
    gw_info(&w, name, 0, 1, &dim, 0);
    image = gw_finish(&w, &n);
    assert_int_equal(gw_save(in_folder("limits.gguf"), image, n), 0);
    assert_int_equal(truncate(in_folder("limits.gguf"), ALIGNMENT + 128), 0);
    f = open_ok(in_folder("limits.gguf"), NULL, 0);
    assert_memory_equal(gguf_find(f, key)->data, "\5\0\0\0", 4);
    assert_int_equal(((const gguf_str *)gguf_find(f, "text")->data)->n, STRING);
    assert_string_equal(((const gguf_str *)gguf_find(f, "text")->data)->s, text);
    assert_int_equal(gguf_find_tensor(f, name)->offset, ALIGNMENT);
    gguf_close(f);
    unlink(in_folder("limits.gguf"));
    free(image);
    free(text);
    free(key);
    gw_free(&w);
}

/* ---- typed access ----------------------------------------------------------------------------------------------- */

static void integers_of_any_type_are_accepted_when_they_fit(void **state) {
    static const struct {
        const char *key;
        uint32_t value;
    } fits[] = {{"u8", 200}, {"u16", 60000}, {"u32", 4000000000u}, {"small u64", 7}, {"positive i64", 5}};
    static const char *const wrong[][2] = {
        {"i8", "full: key 'i8' is negative, expected 0 to 4294967295"},
        {"i16", "full: key 'i16' is negative"},
        {"i32", "full: key 'i32' is negative"},
        {"i64", "full: key 'i64' is negative"},
        {"u64", "full: key 'u64' is 18446744073709551615, expected 0 to 4294967295"},
        {"f32", "full: key 'f32' is f32, expected an integer"},
        {"true", "full: key 'true' is bool, expected an integer"},
        {"array 4", "full: key 'array 4' is arr[u32], expected an integer"},
        {"empty", "full: key 'empty' is str, expected an integer"},
        {"absent", "full: key 'absent' is missing"},
    };
    size_t n;
    uint8_t *image = full_file(3, 0, &n);
    gguf_file *f = open_ok("full", image, n);
    minim_error e;
    uint32_t x;
    int found;
    (void)state;
    for (size_t i = 0; i < sizeof fits / sizeof *fits; i++) {
        found = 0;
        assert_int_equal(gguf_get_u32(f, fits[i].key, &x, &found, &e), MINIM_OK);
        assert_int_equal(found, 1);
        assert_int_equal(x, fits[i].value);
        assert_int_equal(gguf_get_u32(f, fits[i].key, &x, NULL, &e), MINIM_OK);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        x = 77;
        assert_int_equal(gguf_get_u32(f, wrong[i][0], &x, NULL, &e), MINIM_ERR_FORMAT);
        assert_memory_equal(e.text, wrong[i][1], strlen(wrong[i][1]));
        assert_int_equal(x, 77);
    }
    found = 1;
    assert_int_equal(gguf_get_u32(f, "absent", &x, &found, &e), MINIM_OK);
    assert_int_equal(found, 0);
    assert_int_equal(x, 77);
    gguf_close(f);
    free(image);
}

static void other_types_are_read_or_named_when_wrong(void **state) {
    size_t n;
    uint8_t *image = full_file(3, 0, &n);
    gguf_file *f = open_ok("full", image, n);
    const gguf_value *v;
    minim_error e;
    gguf_str s;
    float x = 3;
    int b = 3, found = 1;
    (void)state;
    assert_int_equal(gguf_get_f32(f, "f32", &x, NULL, &e), MINIM_OK);
    assert_true(x == 0.1f);
    assert_int_equal(gguf_get_f32(f, "f64", &x, NULL, &e), MINIM_OK);
    assert_true(x == 0.25f);
    assert_int_equal(gguf_get_f32(f, "infinite f64", &x, NULL, &e), MINIM_OK);
    assert_true(isinf(x));
    assert_int_equal(gguf_get_f32(f, "large f64", &x, NULL, &e), MINIM_ERR_FORMAT);
    assert_string_equal(e.text, "full: key 'large f64' is 1e+300, expected a value that fits f32");
    assert_int_equal(gguf_get_f32(f, "u32", &x, NULL, &e), MINIM_ERR_FORMAT);
    assert_string_equal(e.text, "full: key 'u32' is u32, expected f32 or f64");

    assert_int_equal(gguf_get_bool(f, "true", &b, NULL, &e), MINIM_OK);
    assert_int_equal(b, 1);
    assert_int_equal(gguf_get_bool(f, "false", &b, NULL, &e), MINIM_OK);
    assert_int_equal(b, 0);
    assert_int_equal(gguf_get_bool(f, "u8", &b, &found, &e), MINIM_ERR_FORMAT);
    assert_string_equal(e.text, "full: key 'u8' is u8, expected bool");
    assert_int_equal(gguf_get_bool(f, "absent", &b, &found, &e), MINIM_OK);
    assert_int_equal(found, 0);

    assert_int_equal(gguf_get_str(f, "general.architecture", &s, NULL, &e), MINIM_OK);
    assert_string_equal(s.s, "llama");
    assert_int_equal(s.n, 5);
    assert_int_equal(gguf_get_str(f, "array 8", &s, NULL, &e), MINIM_ERR_FORMAT);
    assert_string_equal(e.text, "full: key 'array 8' is arr[str], expected str");

    assert_int_equal(gguf_get_array(f, "array 6", GGUF_F32, &v, NULL, &e), MINIM_OK);
    assert_ptr_equal(v, gguf_find(f, "array 6"));
    assert_int_equal(gguf_get_array(f, "array 6", GGUF_I32, &v, NULL, &e), MINIM_ERR_FORMAT);
    assert_string_equal(e.text, "full: key 'array 6' is arr[f32], expected arr[i32]");
    assert_null(v);
    assert_int_equal(gguf_get_array(f, "f32", GGUF_F32, &v, NULL, &e), MINIM_ERR_FORMAT);
    assert_string_equal(e.text, "full: key 'f32' is f32, expected arr[f32]");
    v = gguf_find(f, "f32");
    assert_int_equal(gguf_get_array(f, "absent", GGUF_F32, &v, &found, &e), MINIM_OK);
    assert_null(v);
    gguf_close(f);
    free(image);
}

/* ---- data ------------------------------------------------------------------------------------------------------- */

static void reading_past_a_tensor_is_refused(void **state) {
    size_t n;
    uint8_t *image = full_file(3, 0, &n), byte[2];
    gguf_file *f = open_ok("full", image, n);
    const gguf_tensor *t = gguf_tensor_at(f, 0);
    minim_error e;
    (void)state;
    assert_int_equal(gguf_read(f, t, 127, byte, 2, &e), MINIM_ERR_ARGUMENT);
    assert_string_equal(e.text, "full: tensor 'norm.weight' has 128 bytes, 2 were asked for at 127");
    assert_int_equal(gguf_read(f, t, 129, byte, 0, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(gguf_read(f, t, UINT64_MAX, byte, 2, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(gguf_read(f, t, 1, byte, SIZE_MAX, &e), MINIM_ERR_ARGUMENT);
    gguf_close(f);
    free(image);
}

static void a_file_cut_after_opening_gives_an_error_and_no_signal(void **state) {
    size_t n;
    uint8_t *image = full_file(3, 0, &n), data[sizeof matrix_data];
    gguf_file *f;
    minim_error e;
    (void)state;
    assert_int_equal(gw_save(in_folder("cut.gguf"), image, n), 0);
    f = open_ok(in_folder("cut.gguf"), NULL, 0);
    assert_int_equal(truncate(in_folder("cut.gguf"), (off_t)gguf_tensor_at(f, 1)->offset + 10), 0);
    assert_int_equal(gguf_read(f, gguf_tensor_at(f, 0), 0, data, 128, &e), MINIM_OK);
    assert_memory_equal(data, norm_data, 128);
    assert_int_equal(gguf_read(f, gguf_tensor_at(f, 1), 0, data, sizeof data, &e), MINIM_ERR_IO);
    assert_non_null(strstr(e.text, "cut.gguf: the file was cut while it was read"));
    gguf_close(f);
    free(image);
}

static void metadata_outlives_the_data(void **state) {
    size_t n;
    uint8_t *image = full_file(3, 0, &n), data[128];
    gguf_file *files[2];
    minim_error e;
    (void)state;
    assert_int_equal(gw_save(in_folder("closed.gguf"), image, n), 0);
    files[0] = open_ok("full", image, n);
    files[1] = open_ok(in_folder("closed.gguf"), NULL, 0);
    for (int i = 0; i < 2; i++) gguf_close_data(files[i]);
    free(image); /* nothing may point into it now */
    unlink(in_folder("closed.gguf"));
    for (int i = 0; i < 2; i++) {
        const gguf_tensor *t = gguf_find_tensor(files[i], "norm.weight");
        check_full_values(files[i]);
        assert_int_equal(t->bytes, 128);
        assert_null(gguf_data(files[i], t));
        assert_int_equal(gguf_read(files[i], t, 0, data, 128, &e), MINIM_ERR_IO);
        assert_non_null(strstr(e.text, "tensor 'norm.weight' cannot be read, the file was closed"));
        gguf_close(files[i]);
    }
}

enum { THREAD_BYTES = 1 << 20, THREAD_READS = 2000 };

static void *read_everywhere(void *user) {
    gguf_file *f = user;
    const gguf_tensor *t = gguf_tensor_at(f, 0);
    uint32_t random = (uint32_t)(uintptr_t)&random;
    for (int i = 0; i < THREAD_READS; i++) {
        uint32_t words[64];
        const uint32_t at = (random = random * 1664525 + 1013904223) % (THREAD_BYTES / 4 - 64);
        if (gguf_read(f, t, 4 * at, words, sizeof words, NULL)) return f;
        for (uint32_t k = 0; k < 64; k++)
            if (words[k] != at + k) return f;
    }
    return NULL;
}

static void threads_read_one_file_at_once(void **state) {
    static uint32_t words[THREAD_BYTES / 4];
    const uint64_t dim = THREAD_BYTES / 4;
    pthread_t threads[4];
    gw w;
    size_t n;
    uint8_t *image;
    gguf_file *f;
    (void)state;
    for (uint32_t i = 0; i < THREAD_BYTES / 4; i++) words[i] = i;
    gw_init(&w);
    gw_tensor(&w, "counting", 26, 1, &dim, words, sizeof words);
    image = gw_finish(&w, &n);
    assert_int_equal(gw_save(in_folder("threads.gguf"), image, n), 0);
    f = open_ok(in_folder("threads.gguf"), NULL, 0);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, read_everywhere, f), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    gguf_close(f);
    free(image);
    gw_free(&w);
}

/* ---- damage at any place ---------------------------------------------------------------------------------------- */

/* Looks at every byte an open file gives, so that a sanitizer sees a bad pointer. */
static unsigned touch(const gguf_file *f) {
    unsigned sum = 0;
    for (size_t i = 0; i < gguf_value_count(f); i++) {
        const gguf_value *v = gguf_value_at(f, i);
        const uint8_t *raw = v->data;
        assert_ptr_equal(gguf_find(f, v->key.s), v);
        for (uint64_t k = 0; k < v->count * gguf_type_bytes(v->elem_type); k++) sum += raw[k];
        for (uint64_t k = 0; v->elem_type == GGUF_STR && k < v->count; k++) {
            const gguf_str *s = (const gguf_str *)v->data + k;
            for (size_t j = 0; j <= s->n; j++) sum += (uint8_t)s->s[j];
        }
    }
    for (size_t i = 0; i < gguf_tensor_count(f); i++) {
        const gguf_tensor *t = gguf_tensor_at(f, i);
        const uint8_t *raw = gguf_data(f, t);
        for (uint64_t k = 0; k < t->bytes; k++) sum += raw[k];
    }
    return sum;
}

static void every_beginning_of_a_file_is_refused(void **state) {
    size_t n;
    uint8_t *image = full_file(3, 64, &n);
    const char *path = in_folder("prefix.gguf");
    gguf_file *f;
    minim_error e;
    (void)state;
    assert_true(n < 4096);
    assert_int_equal(gw_save(path, image, n), 0);
    for (size_t cut = n; cut-- > 0;) {
        uint8_t *part = malloc(cut ? cut : 1); /* so that a read behind its end is seen */
        memcpy(part, image, cut);
        assert_int_equal(gguf_open(NULL, "prefix", part, cut, &f, &e), MINIM_ERR_FORMAT);
        assert_null(f);
        assert_memory_equal(e.text, "prefix: ", 8);
        free(part);
        assert_int_equal(truncate(path, (off_t)cut), 0);
        assert_int_equal(gguf_open(NULL, path, NULL, 0, &f, &e), MINIM_ERR_FORMAT);
    }
    free(image);
}

static void any_byte_of_the_header_may_be_wrong(void **state) {
    size_t n, header, accepted = 0, refused = 0;
    uint8_t *image = full_file(3, 0, &n);
    gguf_file *f = open_ok("full", image, n);
    minim_error e;
    (void)state;
    header = (size_t)gguf_tensor_at(f, 0)->offset;
    gguf_close(f);
    for (size_t at = 0; at < header; at++) {
        const uint8_t right = image[at];
        const uint8_t values[] = {
            0, 1, 2, 9, 0x7f, 0x80, 0xff, right ^ 1, right ^ 0x80, (uint8_t)(right + 1), (uint8_t)(right - 1)};
        for (size_t i = 0; i < sizeof values; i++) {
            image[at] = values[i];
            if (gguf_open(NULL, "full", image, n, &f, &e) == MINIM_OK) {
                touch(f);
                gguf_close(f);
                accepted++;
            } else {
                assert_null(f);
                assert_memory_equal(e.text, "full: ", 6);
                refused++;
            }
        }
        image[at] = right;
    }
    print_message("%zu damaged files accepted, %zu refused\n", accepted, refused);
    assert_true(accepted > 0 && refused > 0); /* a letter of a key is not checked, a type is */
    free(image);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* Fails each allocation in turn: once, or from then on. */
static void fail_every_allocation(const char *path, const void *data, size_t n, int fail_after) {
    count_allocator counter = {0};
    minim_allocator a = count_allocator_get(&counter);
    gguf_file *f;
    minim_error e;
    size_t calls;
    assert_int_equal(gguf_open(&a, path, data, n, &f, &e), MINIM_OK);
    calls = counter.calls;
    assert_true(calls > 5);
    gguf_close(f);
    assert_true(count_allocator_clean(&counter));
    for (size_t i = 1; i <= calls; i++) {
        counter = (count_allocator){.fail_at = i, .fail_after = fail_after};
        assert_int_equal(gguf_open(&a, path, data, n, &f, &e), MINIM_ERR_MEMORY);
        assert_int_equal(e.status, MINIM_ERR_MEMORY);
        assert_memory_equal(e.text, "out of memory: ", 15);
        assert_null(f);
        assert_true(count_allocator_clean(&counter));
    }
}

static void running_out_of_memory_leaks_nothing(void **state) {
    size_t n;
    uint8_t *image = full_file(3, 0, &n);
    (void)state;
    assert_int_equal(gw_save(in_folder("memory.gguf"), image, n), 0);
    for (int fail_after = 0; fail_after < 2; fail_after++) {
        fail_every_allocation("image", image, n, fail_after);
        fail_every_allocation(in_folder("memory.gguf"), NULL, 0, fail_after);
    }
    free(image);
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where) {
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_of_version_3_is_read_as_written),
        cmocka_unit_test(a_file_of_version_2_is_read_as_written),
        cmocka_unit_test(every_alignment_in_use_is_read),
        cmocka_unit_test(tensors_may_lie_in_any_order_with_gaps),
        cmocka_unit_test(a_file_without_keys_and_tensors_is_read),
        cmocka_unit_test(a_vocabulary_of_half_a_million_strings_loads_quickly),
        cmocka_unit_test(large_and_small_values_take_little_more_than_the_file),
        cmocka_unit_test(what_is_exactly_at_a_limit_is_read),
        cmocka_unit_test(integers_of_any_type_are_accepted_when_they_fit),
        cmocka_unit_test(other_types_are_read_or_named_when_wrong),
        cmocka_unit_test(reading_past_a_tensor_is_refused),
        cmocka_unit_test(a_file_cut_after_opening_gives_an_error_and_no_signal),
        cmocka_unit_test(metadata_outlives_the_data),
        cmocka_unit_test(threads_read_one_file_at_once),
        cmocka_unit_test(every_beginning_of_a_file_is_refused),
        cmocka_unit_test(any_byte_of_the_header_may_be_wrong),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };
    int failed;
    if (!mkdtemp(folder)) return 1;
    failed = cmocka_run_group_tests_name("GGUF files", tests, NULL, NULL);
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return failed;
}
