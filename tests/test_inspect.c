/* test_inspect.c: what a file says about itself comes out as JSON and as a list of tensors. */
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../engine/model.h"
#include "gguf_writer.h"

/* A model of nothing but its file. */
typedef struct fixture {
    gw w;
    uint8_t *image;
    minim_model model;
} fixture;

static minim_model *fixture_open(fixture *x) {
    size_t n;
    minim_error e;
    x->image = gw_finish(&x->w, &n);
    x->model = (minim_model){.allocator = mem_allocator(NULL)};
    if (gguf_open(NULL, "file", x->image, n, &x->model.file, &e)) fail_msg("%s", e.text);
    return &x->model;
}

static void fixture_close(fixture *x) {
    gguf_close(x->model.file);
    free(x->image);
    gw_free(&x->w);
}

static void assert_text(const minim_model *m, size_t index, size_t max_items, const char *expected) {
    char text[512];
    size_t needed = 0;
    assert_int_equal(minim_model_meta_text(m, index, max_items, text, sizeof text, &needed), MINIM_OK);
    assert_string_equal(text, expected);
    assert_int_equal(needed, strlen(expected));
}

static void every_integer_is_shown_with_its_sign(void **state) {
    static const struct {
        uint32_t type;
        uint64_t bits;
        const char *text;
    } cases[] = {
        {0, 0, "0"},
        {0, 255, "255"},
        {1, 0x80, "-128"},
        {1, 0x7f, "127"},
        {1, 0xff, "-1"},
        {2, 65535, "65535"},
        {3, 0x8000, "-32768"},
        {4, 0xffffffff, "4294967295"},
        {5, 0x80000000, "-2147483648"},
        {5, 0xffffffff, "-1"},
        {10, UINT64_MAX, "18446744073709551615"},
        {11, UINT64_MAX, "-1"},
        {11, UINT64_C(1) << 63, "-9223372036854775808"},
        {11, INT64_MAX, "9223372036854775807"},
        {7, 0, "false"},
        {7, 1, "true"},
    };
    enum { COUNT = sizeof cases / sizeof *cases };
    fixture x;
    (void)state;
    gw_init(&x.w);
    for (int i = 0; i < COUNT; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%d", i);
        gw_number(&x.w, key, cases[i].type, cases[i].bits);
    }
    const minim_model *m = fixture_open(&x);
    assert_int_equal(minim_model_meta_count(m), COUNT);
    for (size_t i = 0; i < COUNT; i++) assert_text(m, i, 0, cases[i].text);
    fixture_close(&x);
}

static const struct {
    double value;
    int is_f64;
    const char *text;
} floats[] = {
    {0.1, 0, "0.1"},
    {0.1, 1, "0.1"},
    {1, 0, "1"},
    {-0.0, 0, "-0"},
    {1e-5, 0, "1e-05"},
    {16777216, 0, "16777216"},
    {3.4028234663852886e38, 0, "3.4028235e+38"},
    {1.401298464324817e-45, 0, "1.4013e-45"},
    {1.0 / 3, 0, "0.33333334"},
    {1.0 / 3, 1, "0.3333333333333333"},
    {10000.5, 0, "10000.5"},
    {1.7976931348623157e308, 1, "1.7976931348623157e+308"},
    {5e-324, 1, "4.94065645841247e-324"},
    {(double)INFINITY, 0, "null"},
    {-(double)INFINITY, 1, "null"},
    {(double)NAN, 0, "null"},
    {(double)NAN, 1, "null"},
};

static void check_floats(void) {
    enum { COUNT = sizeof floats / sizeof *floats };
    fixture x;
    gw_init(&x.w);
    for (int i = 0; i < COUNT; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%d", i);
        if (floats[i].is_f64)
            gw_f64(&x.w, key, floats[i].value);
        else
            gw_f32(&x.w, key, (float)floats[i].value);
    }
    const minim_model *m = fixture_open(&x);
    for (size_t i = 0; i < COUNT; i++) {
        char text[64];
        assert_text(m, i, 0, floats[i].text);
        assert_int_equal(minim_model_meta_text(m, i, 0, text, sizeof text, NULL), MINIM_OK);
    }
    fixture_close(&x);
}

static void floats_have_the_digits_that_give_them_back(void **state) {
    (void)state;
    check_floats();
}

static void a_locale_with_a_decimal_comma_changes_nothing(void **state) {
    (void)state;
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8")) {
        print_message("no locale with a decimal comma is installed\n");
        skip();
    }
    check_floats();
    setlocale(LC_NUMERIC, "C");
}

static void strings_are_escaped_and_repaired(void **state) {
    static const struct {
        const char *bytes;
        size_t n;
        const char *text;
    } cases[] = {
        {"", 0, "\"\""},
        {"a\"b\\c/d", 7, "\"a\\\"b\\\\c/d\""},
        {"\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\""},
        {"a\0b\x1b[31m", 8, "\"a\\u0000b\\u001b[31m\""},
        {"\x7f\xc2\x80\xc2\x9b\xc2\xa0", 7, "\"\\u007f\\u0080\\u009b\xc2\xa0\""},
        {"\xe2\x96\x81once \xf0\x9f\x90\x9c", 12, "\"\xe2\x96\x81once \xf0\x9f\x90\x9c\""},
        {"\xff", 1, "\"\\ufffd\""},
        {"a\xe2\x96z", 4, "\"a\\ufffd\\ufffdz\""},
        {"\xed\xa0\x80", 3, "\"\\ufffd\\ufffd\\ufffd\""},
        {"end \xf0\x9f\x90", 7, "\"end \\ufffd\\ufffd\\ufffd\""},
        {"\xc0\x80", 2, "\"\\ufffd\\ufffd\""},
    };
    enum { COUNT = sizeof cases / sizeof *cases };
    fixture x;
    (void)state;
    gw_init(&x.w);
    for (int i = 0; i < COUNT; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%d", i);
        gw_str_bytes(&x.w, key, cases[i].bytes, cases[i].n);
    }
    const minim_model *m = fixture_open(&x);
    for (size_t i = 0; i < COUNT; i++) assert_text(m, i, 0, cases[i].text);
    fixture_close(&x);
}

static void arrays_are_shown_up_to_the_wanted_number(void **state) {
    static const char *const words[] = {"one", "two", "three"};
    static const uint8_t bools[] = {1, 0};
    static const int16_t numbers[] = {1, -2, 3, -4, 5};
    fixture x;
    (void)state;
    gw_init(&x.w);
    gw_numbers(&x.w, "numbers", 3, numbers, 5, 2);
    gw_strings(&x.w, "words", words, 3);
    gw_numbers(&x.w, "bools", 7, bools, 2, 1);
    gw_array(&x.w, "nothing", 8, 0);
    const minim_model *m = fixture_open(&x);
    assert_text(m, 0, 0, "[1, -2, 3, -4, 5]");
    assert_text(m, 0, 5, "[1, -2, 3, -4, 5]");
    assert_text(m, 0, 4, "[1, -2, 3, -4, ...]");
    assert_text(m, 0, 1, "[1, ...]");
    assert_text(m, 1, 2, "[\"one\", \"two\", ...]");
    assert_text(m, 2, 0, "[true, false]");
    assert_text(m, 3, 0, "[]");
    assert_text(m, 3, 1, "[]");
    fixture_close(&x);
}

static void a_small_buffer_gets_the_start_and_the_needed_length(void **state) {
    static const char full[] = "\"a\xe2\x96\x81z\""; /* 7 bytes */
    fixture x;
    char text[16];
    size_t needed;
    (void)state;
    gw_init(&x.w);
    gw_str(&x.w, "key", "a\xe2\x96\x81z");
    const minim_model *m = fixture_open(&x);
    for (size_t capacity = 1; capacity <= 7; capacity++) {
        const size_t whole = capacity - 1 > 2 && capacity - 1 < 5 ? 2 : capacity - 1; /* never half a character */
        memset(text, '#', sizeof text);
        needed = 0;
        assert_int_equal(minim_model_meta_text(m, 0, 0, text, capacity, &needed), MINIM_ERR_SPACE);
        assert_int_equal(needed, 7);
        assert_int_equal(strlen(text), whole);
        assert_memory_equal(text, full, whole);
        assert_int_equal(text[capacity], '#');
    }
    assert_int_equal(minim_model_meta_text(m, 0, 0, text, 8, &needed), MINIM_OK);
    assert_string_equal(text, full);
    needed = 0;
    assert_int_equal(minim_model_meta_text(m, 0, 0, NULL, 0, &needed), MINIM_ERR_SPACE);
    assert_int_equal(needed, 7);
    fixture_close(&x);
}

static void keys_have_their_type_and_count(void **state) {
    static const uint8_t sizes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    static const uint8_t zeros[32];
    static const char *const words[] = {"a", "b"};
    fixture x;
    minim_meta meta;
    size_t index = 0;
    (void)state;
    gw_init(&x.w);
    for (uint32_t type = 0; type < 13; type++) {
        char key[16];
        if (type == 9) continue;
        snprintf(key, sizeof key, "one%u", type);
        if (type == 8)
            gw_str(&x.w, key, "");
        else
            gw_number(&x.w, key, type, 0);
        snprintf(key, sizeof key, "two%u", type);
        if (type == 8)
            gw_strings(&x.w, key, words, 2);
        else
            gw_numbers(&x.w, key, type, zeros, 2, sizes[type]);
    }
    const minim_model *m = fixture_open(&x);
    assert_int_equal(minim_model_meta_count(m), 24);
    for (uint32_t type = 0; type < 13; type++) {
        if (type == 9) continue;
        for (int array = 0; array < 2; array++, index++) {
            char key[16], name[32];
            snprintf(key, sizeof key, "%s%u", array ? "two" : "one", type);
            assert_int_equal(minim_model_meta(m, index, &meta), MINIM_OK);
            assert_string_equal(meta.key, key);
            assert_string_equal(meta.type, gguf_type_text(gguf_value_at(m->file, index), name, sizeof name));
            assert_int_equal(meta.count, array ? 2 : 1);
        }
    }
    assert_string_equal(meta.type, "arr[f64]");
    assert_int_equal(minim_model_meta(m, index, &meta), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_model_meta(m, 0, NULL), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_model_meta_text(m, index, 0, NULL, 0, NULL), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_model_meta_count(NULL), 0);
    assert_int_equal(minim_model_meta(NULL, 0, &meta), MINIM_ERR_ARGUMENT);
    fixture_close(&x);
}

static void tensors_have_shape_type_place_and_layout(void **state) {
    static const struct {
        const char *name;
        uint32_t type, n_dims;
        uint64_t dims[4];
        size_t bytes;
        const char *type_name, *layout;
    } tensors[] = {
        {"norm", 0, 1, {32, 1, 1, 1}, 128, "F32", "rows"},
        {"matrix", 2, 2, {32, 3, 1, 1}, 54, "Q4_0", "panels"},
        {"half", 1, 2, {5, 2, 1, 1}, 20, "F16", "panels"},
        {"experts", 8, 3, {32, 2, 2, 1}, 136, "Q8_0", "unsupported"},
        {"other", 12, 2, {256, 1, 1, 1}, 144, "Q4_K", "panels"},
        {"book", 29, 2, {256, 1, 1, 1}, 56, "IQ1_M", "blocks"},
        {"numbers", 26, 2, {5, 2, 1, 1}, 40, "I32", "unsupported"},
        {"quantised vector", 8, 1, {32, 1, 1, 1}, 34, "Q8_0", "unsupported"},
    };
    enum { COUNT = sizeof tensors / sizeof *tensors };
    fixture x;
    minim_tensor t;
    (void)state;
    gw_init(&x.w);
    for (int i = 0; i < COUNT; i++)
        gw_tensor(&x.w, tensors[i].name, tensors[i].type, tensors[i].n_dims, tensors[i].dims, NULL, tensors[i].bytes);
    const minim_model *m = fixture_open(&x);
    gguf_close_data(x.model.file); /* as in a loaded model */
    assert_int_equal(minim_model_tensor_count(m), COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(minim_model_tensor(m, i, &t), MINIM_OK);
        assert_string_equal(t.name, tensors[i].name);
        assert_string_equal(t.type, tensors[i].type_name);
        assert_string_equal(t.layout, tensors[i].layout);
        assert_int_equal(t.n_dims, tensors[i].n_dims);
        assert_memory_equal(t.dims, tensors[i].dims, sizeof t.dims);
        assert_int_equal(t.bytes, tensors[i].bytes);
        assert_int_equal(t.offset, gguf_tensor_at(m->file, i)->offset);
    }
    assert_int_equal(minim_model_tensor(m, COUNT, &t), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_model_tensor(m, 0, NULL), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_model_tensor_count(NULL), 0);
    fixture_close(&x);
}

static void a_name_is_cut_between_characters(void **state) {
    char name[200] = "\xff";
    size_t n;
    gw w;
    minim_model *m;
    minim_error e;
    minim_model_info info = {.size = sizeof info};
    minim_model_options o;
    (void)state;
    minim_model_options_default(&o);
    o.level = MINIM_LOAD_HEADER;
    memset(name + 1, 'a', 125);
    memcpy(name + 126, "\xc3\xa9z", 4); /* bytes 126 and 127: the last one has no room beside the NUL */
    gw_init(&w);
    gw_str(&w, "general.architecture", "a\xe2\x82z");
    gw_str(&w, "general.name", name);
    uint8_t *image = gw_finish(&w, &n);
    if (minim_model_load_memory(image, n, "file", &o, &m, &e)) fail_msg("%s", e.text);
    minim_model_get_info(m, &info);
    assert_int_equal(strlen(info.name), 126);
    assert_int_equal(info.name[0], '?');
    assert_string_equal(info.architecture, "a??z");
    minim_model_free(m);
    free(image);
    gw_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_integer_is_shown_with_its_sign),
        cmocka_unit_test(floats_have_the_digits_that_give_them_back),
        cmocka_unit_test(a_locale_with_a_decimal_comma_changes_nothing),
        cmocka_unit_test(strings_are_escaped_and_repaired),
        cmocka_unit_test(arrays_are_shown_up_to_the_wanted_number),
        cmocka_unit_test(a_small_buffer_gets_the_start_and_the_needed_length),
        cmocka_unit_test(a_name_is_cut_between_characters),
        cmocka_unit_test(keys_have_their_type_and_count),
        cmocka_unit_test(tensors_have_shape_type_place_and_layout),
    };
    return cmocka_run_group_tests_name("inspection of a file", tests, NULL, NULL);
}
