/* test_vocab_unigram.c: the unigram model finds the best cut of the normalised text; damaged files are refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "count_allocator.h"
#include "vocab_writer.h"

#define SPACE "\xe2\x96\x81"

static const minim_allocator default_allocator; /* all zero: malloc */

/* <pad> </s> <unk>, as in T5, and single letters: 3 "▁", 4 "a", 5 "b", 6 "c". */
static void unigram_init(vw *w) {
    vw_init(w, 0);
    w->n = 0;
    w->model = "t5";
    vw_add(w, "<pad>", VOCAB_CONTROL, 0);
    vw_add(w, "</s>", VOCAB_CONTROL, 0);
    vw_add(w, "<unk>", VOCAB_UNKNOWN, 0);
    vw_add(w, SPACE, VOCAB_NORMAL, -4);
    vw_add(w, "a", VOCAB_NORMAL, -5);
    vw_add(w, "b", VOCAB_NORMAL, -5);
    vw_add(w, "c", VOCAB_NORMAL, -5);
}

static vocab *unigram_open(vw *w) {
    minim_error e = {0};
    vocab *v = vw_open(w, NULL, &e);
    if (!v) fail_msg("%s", e.text);
    vw_free(w);
    return v;
}

static void assert_ids(const vocab *v, const char *text, size_t n, unsigned flags, const char *expected) {
    token_list l = {0};
    char found[512] = "";
    assert_int_equal(vocab_tokenize(v, &default_allocator, text, n, flags, &l, NULL), MINIM_OK);
    for (size_t i = 0; i < l.n; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%d", i ? " " : "", (int)l.token[i]);
    if (strcmp(found, expected) != 0) fail_msg("\"%s\" gives %s, expected %s", text, found, expected);
    token_list_free(&default_allocator, &l);
}

#define ASSERT_IDS(v, text, expected) assert_ids(v, text, strlen(text), 0, expected)

/* ---- the best cut ----------------------------------------------------------------------------------------------- */

static void the_sum_of_the_scores_decides(void **state) {
    vw w;
    vocab *v;
    (void)state;
    unigram_init(&w);
    vw_add(&w, "ab", VOCAB_NORMAL, -6);  /* 7 */
    vw_add(&w, "bc", VOCAB_NORMAL, -1);  /* 8 */
    vw_add(&w, "abc", VOCAB_NORMAL, -7); /* 9 */
    vw_add(&w, SPACE "a", VOCAB_NORMAL, -2);
    v = unigram_open(&w);
    ASSERT_IDS(v, "abc", "4 8"); /* -6, better than -7 and -11 */
    ASSERT_IDS(v, "ab", "7");    /* -6, better than -10 */
    ASSERT_IDS(v, "abcab", "4 8 7");
    ASSERT_IDS(v, "b abc", "5 10 8");
    ASSERT_IDS(v, "", "");
    ASSERT_IDS(v, " ", "3");
    assert_ids(v, "a", 1, MINIM_ADD_SPECIAL, "4 1"); /* T5 ends its texts, and does not begin them */
    assert_ids(v, "a</s>b", 6, MINIM_PARSE_SPECIAL, "4 1 5");
    vocab_free(v);
}

static void what_no_token_covers_is_one_unknown_token(void **state) {
    vw w;
    vocab *v;
    (void)state;
    unigram_init(&w);
    vw_add(&w, "unused", VOCAB_UNUSED, 100);
    v = unigram_open(&w);
    ASSERT_IDS(v, "axyzb", "4 2 5");
    ASSERT_IDS(v, "\xe4\xb8\xad\xe6\x96\x87", "2");
    ASSERT_IDS(v, "\xff\xfe\xe4", "2");
    assert_ids(v, "a\0b", 3, 0, "4 2 5");
    ASSERT_IDS(v, "unused", "2");    /* no text becomes an unused token */
    ASSERT_IDS(v, "<unk></s>", "2"); /* nor a special one */
    vocab_free(v);
    unigram_init(&w);
    w.type[2] = VOCAB_CONTROL;
    v = unigram_open(&w);
    ASSERT_IDS(v, "axb", "4 5");
    vocab_free(v);
}

/* ---- normalising ------------------------------------------------------------------------------------------------ */

static void spaces_follow_the_file(void **state) {
    static const struct {
        int first, one;
        const char *text, *ids;
    } cases[] = {{0, 0, " a  b ", "3 4 3 3 5 3"}, {1, 0, "a b", "3 4 3 5"}, {1, 0, " a", "3 3 4"},
                 {0, 1, "  a  b  ", "3 4 3 5"},   {1, 1, "a b", "3 4 3 5"}, {1, 1, "   ", ""}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vw w;
        vocab *v;
        unigram_init(&w);
        gw_bool(&w.file, "tokenizer.ggml.add_space_prefix", cases[i].first);
        gw_bool(&w.file, "tokenizer.ggml.remove_extra_whitespaces", cases[i].one);
        v = unigram_open(&w);
        ASSERT_IDS(v, cases[i].text, cases[i].ids);
        vocab_free(v);
    }
}

static void put_little(uint8_t *at, uint32_t x) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(x >> 8 * i);
}

/* A map with one rule: "X" becomes the text at `offset` behind the 512 nodes. Returns its size. */
static size_t make_map(uint8_t *map, uint32_t offset, const char *texts, size_t n_texts) {
    const uint32_t root = 256, base = 128, node = root ^ 'X';
    memset(map, 0, 4 + 4 * 512);
    put_little(map, 4 * 512);
    put_little(map + 4, root << 10);
    put_little(map + 4 + 4 * node, base << 10 | 1 << 8 | 'X');
    put_little(map + 4 + 4 * (node ^ base), 1U << 31 | offset);
    memcpy(map + 4 + 4 * 512, texts, n_texts);
    return 4 + 4 * 512 + n_texts;
}

static void the_character_map_replaces(void **state) {
    static uint8_t map[4096];
    for (int type = 0; type < 2; type++) { /* u8, i8 */
        vw w;
        vocab *v;
        (void)state;
        unigram_init(&w);
        gw_numbers(&w.file, "tokenizer.ggml.precompiled_charsmap", (uint32_t)type, map,
                   make_map(map, 2, "?\0ab c\0", 7), 1);
        v = unigram_open(&w);
        ASSERT_IDS(v, "aXb", "4 4 5 3 6 5");
        ASSERT_IDS(v, "cY", "6 2");
        vocab_free(v);
    }
}

static void damaged_maps_are_refused_or_do_nothing(void **state) {
    static uint8_t map[4096];
    static const uint32_t offsets[] = {3, 4, 0x7fffffff};
    char text[200];
    vw w;
    vocab *v;
    minim_error e;
    (void)state;
    for (size_t n = 0; n < 9; n++) { /* too short for its size, which is too large */
        const unsigned size = n < 4 ? 0 : 2048;
        make_map(map, 0, "", 1);
        unigram_init(&w);
        gw_numbers(&w.file, "tokenizer.ggml.precompiled_charsmap", 0, map, n, 1);
        assert_null(vw_open(&w, NULL, &e));
        snprintf(text, sizeof text,
                 "made.gguf: key 'tokenizer.ggml.precompiled_charsmap' has %zu bytes, expected a size (here %u) and "
                 "what follows",
                 n, size);
        assert_string_equal(e.text, text);
        vw_free(&w);
    }
    for (size_t i = 0; i < 3; i++) { /* the text has no end, or begins behind the map */
        unigram_init(&w);
        gw_numbers(&w.file, "tokenizer.ggml.precompiled_charsmap", 0, map, make_map(map, offsets[i], "ab\0c", 4), 1);
        v = unigram_open(&w);
        ASSERT_IDS(v, "aXb", "4 2 5");
        vocab_free(v);
    }
    make_map(map, 0, "", 1);
    memset(map + 4, 0xff, 2048); /* every node leads out of the map */
    unigram_init(&w);
    gw_numbers(&w.file, "tokenizer.ggml.precompiled_charsmap", 0, map, 2053, 1);
    v = unigram_open(&w);
    ASSERT_IDS(v, "aXb", "4 2 5");
    vocab_free(v);
    unigram_init(&w);
    gw_str(&w.file, "tokenizer.ggml.precompiled_charsmap", "text");
    assert_null(vw_open(&w, NULL, &e));
    assert_string_equal(e.text, "made.gguf: key 'tokenizer.ggml.precompiled_charsmap' is str, expected arr[u8]");
    vw_free(&w);
}

/* ---- odd files -------------------------------------------------------------------------------------------------- */

static void scores_that_are_no_numbers_do_no_harm(void **state) {
    static const float scores[] = {NAN, INFINITY, -INFINITY, 3e38F};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        vw w;
        vocab *v;
        char text[1000];
        unigram_init(&w);
        w.score[4] = scores[i];
        vw_add(&w, "aa", VOCAB_NORMAL, scores[3 - i]);
        v = unigram_open(&w);
        memset(text, 'a', sizeof text);
        token_list l = {0};
        assert_int_equal(vocab_tokenize(v, &default_allocator, text, sizeof text, 0, &l, NULL), MINIM_OK);
        assert_true(l.n >= 500 && l.n <= 1000);
        token_list_free(&default_allocator, &l);
        vocab_free(v);
    }
    vw w;
    minim_error e;
    unigram_init(&w);
    w.omit = VW_NO_SCORES;
    assert_null(vw_open(&w, NULL, &e));
    assert_string_equal(e.text, "made.gguf: key 'tokenizer.ggml.scores' is missing");
    vw_free(&w);
}

static void a_megabyte_of_anything_takes_no_time(void **state) {
    static const char *const units[] = {"a", " ", "ab", "x", "\xe4\xb8\xad", "\xff"};
    static char long_token[100001], runs[20][256];
    char *text = malloc(1 << 20);
    vw w;
    vocab *v;
    (void)state;
    unigram_init(&w);
    memset(long_token, 'a', sizeof long_token - 1);
    vw_add(&w, long_token, VOCAB_NORMAL, 0); /* longer than what is looked for */
    for (int i = 0; i < 20; i++) {
        memset(runs[i], 'a', (size_t)12 * (size_t)i + 2);
        vw_add(&w, runs[i], VOCAB_NORMAL, -1);
    }
    v = unigram_open(&w);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        const clock_t begin = clock();
        token_list l = {0};
        for (size_t i = 0; i < 1 << 20; i++) text[i] = units[u][i % strlen(units[u])];
        assert_int_equal(vocab_tokenize(v, &default_allocator, text, 1 << 20, 0, &l, NULL), MINIM_OK);
        token_list_free(&default_allocator, &l);
        if (clock() - begin > 20 * CLOCKS_PER_SEC) fail_msg("\"%s\" takes too long", units[u]);
    }
    free(text);
    vocab_free(v);
}

static void memory_may_fail_anywhere(void **state) {
    static uint8_t map[4096];
    static const char text[] = "abc X </s> xyzaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    vw w;
    size_t n;
    uint8_t *image;
    gguf_file *f;
    int done = 0;
    (void)state;
    unigram_init(&w);
    gw_numbers(&w.file, "tokenizer.ggml.precompiled_charsmap", 0, map, make_map(map, 0, "ab", 3), 1);
    image = vw_image(&w, &n);
    assert_int_equal(gguf_open(NULL, "made.gguf", image, n, &f, NULL), MINIM_OK);
    for (size_t at = 1; !done; at++) {
        count_allocator counter = {.fail_at = at};
        const minim_allocator a = count_allocator_get(&counter);
        vocab *v = NULL;
        token_list l = {0};
        minim_status status = vocab_new(&a, f, &v, NULL);
        if (!status) status = vocab_tokenize(v, &a, text, sizeof text - 1, MINIM_PARSE_SPECIAL, &l, NULL);
        done = counter.calls < at;
        assert_int_equal(status, done ? MINIM_OK : MINIM_ERR_MEMORY);
        if (!done) assert_int_equal(l.n, 0);
        token_list_free(&a, &l);
        vocab_free(v);
        assert_true(count_allocator_clean(&counter));
        assert_true(at < 100);
    }
    gguf_close(f);
    free(image);
    vw_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sum_of_the_scores_decides),
        cmocka_unit_test(what_no_token_covers_is_one_unknown_token),
        cmocka_unit_test(spaces_follow_the_file),
        cmocka_unit_test(the_character_map_replaces),
        cmocka_unit_test(damaged_maps_are_refused_or_do_nothing),
        cmocka_unit_test(scores_that_are_no_numbers_do_no_harm),
        cmocka_unit_test(a_megabyte_of_anything_takes_no_time),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests_name("vocab_unigram", tests, NULL, NULL);
}
