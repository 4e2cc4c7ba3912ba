/* test_vocab_bad.c: a damaged or odd vocabulary is refused with a line that names the key, or works as vocab.h says;
 * and memory may fail anywhere. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "count_allocator.h"
#include "vocab_writer.h"

#define SPACE "\xe2\x96\x81"

static const minim_allocator default_allocator; /* all zero: malloc */

/* A small vocabulary that can spell "ab" and "a b". */
static void small(vw *w, int bytes) {
    vw_init(w, bytes);
    vw_add(w, SPACE, VOCAB_NORMAL, -3);
    vw_add(w, "a", VOCAB_NORMAL, -3);
    vw_add(w, "b", VOCAB_NORMAL, -3);
    vw_add(w, "ab", VOCAB_NORMAL, -1);
}

static void assert_refused(vw *w, minim_status status, const char *text) {
    count_allocator counter = {0};
    const minim_allocator a = count_allocator_get(&counter);
    minim_error e = {0};
    vocab *v = vw_open(w, &a, &e);
    if (v) fail_msg("accepted, expected: %s", text);
    assert_string_equal(e.text, text);
    assert_int_equal(e.status, status);
    assert_true(count_allocator_clean(&counter));
    vw_free(w);
}

/* The vocabulary loads and makes `ids` of text. */
static void assert_works(vw *w, const char *text, unsigned flags, const char *ids) {
    minim_error e = {0};
    vocab *v = vw_open(w, NULL, &e);
    token_list l = {0};
    char found[512] = "";
    if (!v) fail_msg("%s", e.text);
    assert_int_equal(vocab_tokenize(v, &default_allocator, text, strlen(text), flags, &l, &e), MINIM_OK);
    for (size_t i = 0; i < l.n; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%d", i ? " " : "", (int)l.token[i]);
    assert_string_equal(found, ids);
    token_list_free(&default_allocator, &l);
    vocab_free(v);
    vw_free(w);
}

/* ---- refused ---------------------------------------------------------------------------------------------------- */

static void missing_keys_are_named(void **state) {
    vw w;
    (void)state;
    small(&w, 0);
    w.omit = VW_NO_MODEL;
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.model' is missing");
    small(&w, 0);
    w.omit = VW_NO_TOKENS;
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.tokens' is missing");
    small(&w, 0);
    w.omit = VW_NO_SCORES;
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.scores' is missing");
}

static void an_unknown_tokenizer_lists_the_known_ones(void **state) {
    vw w;
    (void)state;
    small(&w, 0);
    w.model = "gpt\n2";
    assert_refused(&w, MINIM_ERR_UNSUPPORTED,
                   "made.gguf: key 'tokenizer.ggml.model' is \"gpt?2\"; minim knows: llama, gpt2, t5");
}

static void keys_of_another_type_are_refused(void **state) {
    static const int8_t bytes[7] = {0};
    vw w;
    (void)state;
    small(&w, 0);
    w.omit = VW_NO_TOKENS;
    gw_numbers(&w.file, "tokenizer.ggml.tokens", 1, bytes, 7, 1);
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.tokens' is arr[i8], expected arr[str]");
    small(&w, 0);
    w.omit = VW_NO_SCORES;
    gw_numbers(&w.file, "tokenizer.ggml.scores", 0, bytes, 7, 1);
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.scores' is arr[u8], expected arr[f32]");
    small(&w, 0);
    w.omit = VW_NO_TYPES;
    gw_numbers(&w.file, "tokenizer.ggml.token_type", 1, bytes, 7, 1);
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.token_type' is arr[i8], expected arr[i32]");
    small(&w, 0);
    w.omit = VW_NO_TYPES;
    gw_u32(&w.file, "tokenizer.ggml.token_type", 1);
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.token_type' is u32, expected arr[i32]");
    small(&w, 0);
    gw_str(&w.file, "tokenizer.ggml.bos_token_id", "1");
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.bos_token_id' is str, expected an integer");
    small(&w, 0);
    gw_u32(&w.file, "tokenizer.ggml.add_bos_token", 1);
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.add_bos_token' is u32, expected bool");
    small(&w, 0);
    gw_u32(&w.file, "general.name", 1);
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: key 'general.name' is u32, expected str");
}

static void short_arrays_are_refused(void **state) {
    static const float scores[8] = {0};
    static const int32_t types[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    vw w;
    (void)state;
    small(&w, 0);
    w.omit = VW_NO_SCORES;
    gw_numbers(&w.file, "tokenizer.ggml.scores", 6, scores, 6, 4);
    assert_refused(&w, MINIM_ERR_FORMAT,
                   "made.gguf: key 'tokenizer.ggml.scores' has 6 entries, expected 7, one for each token");
    small(&w, 0);
    w.omit = VW_NO_SCORES;
    gw_numbers(&w.file, "tokenizer.ggml.scores", 6, scores, 0, 4);
    assert_refused(&w, MINIM_ERR_FORMAT,
                   "made.gguf: key 'tokenizer.ggml.scores' has 0 entries, expected 7, one for each token");
    small(&w, 0);
    w.omit = VW_NO_TYPES;
    gw_numbers(&w.file, "tokenizer.ggml.token_type", 5, types, 8, 4);
    assert_refused(&w, MINIM_ERR_FORMAT,
                   "made.gguf: key 'tokenizer.ggml.token_type' has 8 entries, expected 7, one for each token");
    vw_init(&w, 0);
    w.n = 0;
    assert_refused(&w, MINIM_ERR_FORMAT,
                   "made.gguf: key 'tokenizer.ggml.tokens' has 0 entries, expected 1..2147483646");
}

static void impossible_token_types_are_refused(void **state) {
    vw w;
    (void)state;
    small(&w, 0);
    w.type[4] = 7;
    assert_refused(&w, MINIM_ERR_FORMAT,
                   "made.gguf: key 'tokenizer.ggml.token_type': token 4 has type 7, expected 1..6");
    small(&w, 0);
    w.type[4] = INT32_MIN;
    assert_refused(&w, MINIM_ERR_FORMAT,
                   "made.gguf: key 'tokenizer.ggml.token_type': token 4 has type -2147483648, expected 1..6");
}

static void byte_tokens_must_name_a_byte(void **state) {
    static const char *const texts[] = {"<0x-1>", "<0xZZ>", "<0x", "<0x411>", "", "<0x4g>", "x0x41>", "<0x41]"};
    char expected[200];
    vw w;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        small(&w, 0);
        vw_add(&w, texts[i], VOCAB_BYTE, 0);
        snprintf(expected, sizeof expected, "made.gguf: token 7 is a byte token with the text \"%s\", expected <0xNN>",
                 texts[i]);
        assert_refused(&w, MINIM_ERR_FORMAT, expected);
    }
}

static void bos_and_eos_out_of_range_are_refused(void **state) {
    vw w;
    (void)state;
    small(&w, 0);
    gw_u32(&w.file, "tokenizer.ggml.bos_token_id", 7);
    assert_refused(&w, MINIM_ERR_FORMAT,
                   "made.gguf: key 'tokenizer.ggml.bos_token_id' is 7, expected less than 7, the number of tokens");
    small(&w, 0);
    gw_u32(&w.file, "tokenizer.ggml.eos_token_id", 0xfffffffe);
    assert_refused(&w, MINIM_ERR_FORMAT,
                   "made.gguf: key 'tokenizer.ggml.eos_token_id' is 4294967294, expected less than 7, the number of "
                   "tokens");
}

/* ---- odd, but it works ------------------------------------------------------------------------------------------ */

static void special_ids_may_mean_none(void **state) {
    vw w;
    vocab *v;
    (void)state;
    small(&w, 0);
    gw_u32(&w.file, "tokenizer.ggml.bos_token_id", UINT32_MAX);
    gw_u32(&w.file, "tokenizer.ggml.eos_token_id", UINT32_MAX);
    gw_u32(&w.file, "tokenizer.ggml.unknown_token_id", 4000);
    gw_u32(&w.file, "tokenizer.ggml.eot_token_id", 4000);
    gw_bool(&w.file, "tokenizer.ggml.add_bos_token", 1);
    gw_bool(&w.file, "tokenizer.ggml.add_eos_token", 1);
    v = vw_open(&w, NULL, NULL);
    assert_non_null(v);
    assert_int_equal(vocab_bos(v), -1);
    assert_int_equal(vocab_eos(v), -1);
    assert_false(vocab_adds_bos(v));
    assert_int_equal(vocab_end_at(v, 0), 2); /* "</s>" by its text */
    vocab_free(v);
    assert_works(&w, "ab?", MINIM_ADD_SPECIAL, "3 6"); /* neither a byte nor an unknown token: nothing */
}

static void what_no_token_covers_is_unknown(void **state) {
    vw w;
    (void)state;
    small(&w, 0);
    assert_works(&w, "a\xc3\xa9", 0, "3 4 0 0");
    vw_init(&w, 0); /* not even a space */
    assert_works(&w, "a", 0, "0 0 0 0");
    vw_init(&w, 0);
    w.n = 1; /* one token: the default ids 1 and 2 are out of range */
    assert_works(&w, "a", MINIM_ADD_SPECIAL, "0 0 0 0");
}

static void of_equal_texts_the_first_is_meant(void **state) {
    vw w;
    vocab *v;
    (void)state;
    small(&w, 0);
    vw_add(&w, "ab", VOCAB_NORMAL, 100); /* its score does not count either */
    vw_add(&w, SPACE "a", VOCAB_NORMAL, 0);
    vw_add(&w, "<s>", VOCAB_USER, 0);
    v = vw_open(&w, NULL, NULL);
    assert_non_null(v);
    assert_int_equal(vocab_find(v, "ab", 2), 6);
    vocab_free(v);
    assert_works(&w, "ab", 0, "8 5");
    small(&w, 0);
    vw_add(&w, "<x>", VOCAB_CONTROL, 0);
    vw_add(&w, "<x>", VOCAB_CONTROL, 0);
    assert_works(&w, "<x>", MINIM_PARSE_SPECIAL, "7");
    small(&w, 0);
    vw_add(&w, "<x>", VOCAB_CONTROL, 0);
    vw_add(&w, "<x>", VOCAB_USER, 0); /* the first that may be used */
    assert_works(&w, "<x>", 0, "8");
    small(&w, 0);
    vw_add(&w, "<0x41>", VOCAB_BYTE, 0);
    vw_add(&w, "<0x41>", VOCAB_BYTE, 0);
    assert_works(&w, "A", 0, "3 7");
}

static void a_token_with_a_real_space_is_never_meant(void **state) {
    vw w;
    (void)state;
    small(&w, 0);
    vw_add(&w, "a ", VOCAB_NORMAL, 0); /* in a text spaces are "▁" */
    vw_add(&w, "a b", VOCAB_NORMAL, 0);
    assert_works(&w, "a b", 0, "3 4 3 5");
}

static void empty_and_broken_texts_are_kept(void **state) {
    vw w;
    vocab *v;
    size_t n;
    (void)state;
    small(&w, 0);
    vw_add(&w, "", VOCAB_NORMAL, 5);
    vw_add(&w, "", VOCAB_CONTROL, 5);
    vw_add(&w, "\xff", VOCAB_NORMAL, 5);
    vw_add(&w, "\xff\xfe", VOCAB_NORMAL, 5);
    vw_add_bytes(&w, "a\0b", 3, VOCAB_NORMAL, 5);
    vw_add_bytes(&w, "\0", 1, VOCAB_NORMAL, 5);
    vw_add_bytes(&w, "a\0", 2, VOCAB_NORMAL, 5);
    v = vw_open(&w, NULL, NULL);
    assert_non_null(v);
    assert_int_equal(vocab_find(v, "", 0), -1);
    assert_int_equal(vocab_find(v, "a\0b", 3), 11);
    vocab_text(v, 11, &n);
    assert_int_equal(n, 3);
    token_list l = {0};
    assert_int_equal(vocab_tokenize(v, &default_allocator,
                                    "\xff\xfe"
                                    "a\0b",
                                    5, MINIM_PARSE_SPECIAL, &l, NULL),
                     0);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.token[1], 10);
    assert_int_equal(l.token[2], 11);
    token_list_free(&default_allocator, &l);
    vocab_free(v);
    vw_free(&w);
}

static void scores_that_are_no_numbers_still_have_an_order(void **state) {
    vw w;
    (void)state;
    small(&w, 0);
    vw_add(&w, "bb", VOCAB_NORMAL, NAN);
    vw_add(&w, "aa", VOCAB_NORMAL, INFINITY);
    assert_works(&w, "aaabb", 0, "3 8 6 5"); /* "aa" with inf before "ab" with -1 before "bb" with NaN */
    small(&w, 0);
    w.score[6] = NAN; /* "ab", left of "bb" in the text and in the file */
    vw_add(&w, "bb", VOCAB_NORMAL, -5);
    assert_works(&w, "abb", 0, "3 4 7");
    small(&w, 0);
    for (size_t i = 0; i < w.n; i++) w.score[i] = i % 2 ? NAN : -INFINITY; /* all equal: from the left */
    vw_add(&w, "ba", VOCAB_NORMAL, NAN);
    assert_works(&w, "abab", 0, "3 6 6");
}

static void a_file_without_types_gets_them(void **state) {
    vw w;
    vocab *v;
    (void)state;
    small(&w, VW_BYTES);
    w.omit = VW_NO_TYPES;
    v = vw_open(&w, NULL, NULL);
    assert_non_null(v);
    assert_int_equal(vocab_type(v, 0), VOCAB_UNKNOWN);
    assert_int_equal(vocab_type(v, 1), VOCAB_CONTROL);
    assert_int_equal(vocab_type(v, 2), VOCAB_CONTROL);
    assert_int_equal(vocab_type(v, 3 + 'A'), VOCAB_BYTE);
    assert_true(vocab_is_end(v, 2));
    vocab_free(v);
    assert_works(&w, "a<s>\x01", MINIM_PARSE_SPECIAL, "259 260 1 259 4");
}

static void very_long_tokens_do_no_harm(void **state) {
    static char normal[100001], special[100001];
    vw w;
    vocab *v;
    token_list l = {0};
    (void)state;
    memset(normal, 'a', sizeof normal - 1);
    memset(special, 'c', sizeof special - 1);
    small(&w, 0);
    vw_add(&w, normal, VOCAB_NORMAL, 0);
    vw_add(&w, special, VOCAB_USER, 0);
    v = vw_open(&w, NULL, NULL);
    assert_non_null(v);
    assert_int_equal(vocab_tokenize(v, &default_allocator, special, 100000, 0, &l, NULL), MINIM_OK);
    assert_int_equal(l.n, 100001);
    l.n = 0;
    assert_int_equal(vocab_tokenize(v, &default_allocator, normal, 100000, 0, &l, NULL), MINIM_OK);
    assert_int_equal(l.n, 100001);
    token_list_free(&default_allocator, &l);
    vocab_free(v);
    vw_free(&w);
}

/* Texts of seven bytes are their own keys in the table of merges. It takes the top bits of key times a constant, so
 * keys whose products are small all want the same place. Without a limit a large file of them would load for hours. */
static void texts_made_to_collide_are_refused(void **state) {
    static char texts[VW_MAX][8];
    const uint64_t multiplier = 0x9e3779b97f4a7c15;
    uint64_t inverse = 1;
    size_t n = 0;
    vw w;
    (void)state;
    for (int i = 0; i < 6; i++) inverse *= 2 - multiplier * inverse; /* Newton: the inverse modulo 2^64 */
    vw_init(&w, 0);
    for (uint64_t product = 1; n < 4000; product += 256) {
        const uint64_t key = product * inverse;
        if (key >> 56 != 7) continue; /* the length is part of the key */
        memcpy(texts[n], &key, 7);
        if (strlen(texts[n]) == 7 && !strchr(texts[n], ' ')) vw_add(&w, texts[n++], VOCAB_NORMAL, 0);
    }
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: the texts in key 'tokenizer.ggml.tokens' are made to collide");
}

/* The same for the table of all texts, whose hash is FNV-1a. */
static void texts_made_to_collide_by_hash_are_refused(void **state) {
    static char texts[VW_MAX][16];
    size_t n = 0;
    vw w;
    (void)state;
    vw_init(&w, 0);
    for (unsigned i = 0; n < 1200; i++) { /* 1203 tokens have 4096 places */
        uint64_t h = 0xcbf29ce484222325;
        snprintf(texts[n], sizeof texts[n], "%u", i);
        for (const char *c = texts[n]; *c; c++) h = (h ^ (unsigned char)*c) * 0x100000001b3;
        if ((h ^ h >> 29) % 4096 == 0) vw_add(&w, texts[n++], VOCAB_UNUSED, 0);
    }
    assert_refused(&w, MINIM_ERR_FORMAT, "made.gguf: the texts in key 'tokenizer.ggml.tokens' are made to collide");
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static void memory_may_fail_while_loading(void **state) {
    vw w;
    size_t n;
    uint8_t *image;
    gguf_file *f;
    minim_error e;
    int done = 0;
    (void)state;
    small(&w, VW_BYTES);
    image = vw_image(&w, &n);
    assert_int_equal(gguf_open(NULL, "made.gguf", image, n, &f, &e), MINIM_OK);
    for (size_t at = 1; !done; at++) {
        count_allocator counter = {.fail_at = at};
        const minim_allocator a = count_allocator_get(&counter);
        vocab *v = (vocab *)&e;
        const minim_status status = vocab_new(&a, f, &v, &e);
        done = counter.calls < at;
        if (done) {
            assert_int_equal(status, MINIM_OK);
            vocab_free(v);
        } else {
            assert_int_equal(status, MINIM_ERR_MEMORY);
            assert_null(v);
        }
        assert_true(count_allocator_clean(&counter));
        assert_true(at < 100);
    }
    gguf_close(f);
    free(image);
    vw_free(&w);
}

static void memory_may_fail_while_tokenizing(void **state) {
    static const char content[] = "ababababab <u>xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    vw w;
    vocab *v;
    int done = 0;
    (void)state;
    small(&w, VW_BYTES);
    vw_add(&w, "<u>", VOCAB_USER, 0);
    v = vw_open(&w, NULL, NULL);
    assert_non_null(v);
    for (size_t at = 2; !done; at++) { /* the first one is made here */
        count_allocator counter = {.fail_at = at};
        const minim_allocator a = count_allocator_get(&counter);
        const vocab_span spans[] = {{VOCAB_SPAN_TOKEN, 1, NULL, 0},
                                    {VOCAB_SPAN_SPECIAL, 0, "<s>abc<u>", 9},
                                    {VOCAB_SPAN_SEALED, 0, content, sizeof content - 1}};
        token_list l = {mem_alloc(&a, 1, sizeof *l.token), 1, 1};
        minim_status status;
        l.token[0] = 42;
        status = vocab_tokenize_spans(v, &a, spans, 3, &l, NULL);
        done = counter.calls < at;
        assert_int_equal(status, done ? MINIM_OK : MINIM_ERR_MEMORY);
        if (!done) assert_int_equal(l.n, 1);
        assert_int_equal(l.token[0], 42);
        token_list_free(&a, &l);
        assert_true(count_allocator_clean(&counter));
        assert_true(at < 100);
    }
    vocab_free(v);
    vw_free(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_keys_are_named),
        cmocka_unit_test(an_unknown_tokenizer_lists_the_known_ones),
        cmocka_unit_test(keys_of_another_type_are_refused),
        cmocka_unit_test(short_arrays_are_refused),
        cmocka_unit_test(impossible_token_types_are_refused),
        cmocka_unit_test(byte_tokens_must_name_a_byte),
        cmocka_unit_test(bos_and_eos_out_of_range_are_refused),
        cmocka_unit_test(special_ids_may_mean_none),
        cmocka_unit_test(what_no_token_covers_is_unknown),
        cmocka_unit_test(of_equal_texts_the_first_is_meant),
        cmocka_unit_test(a_token_with_a_real_space_is_never_meant),
        cmocka_unit_test(empty_and_broken_texts_are_kept),
        cmocka_unit_test(scores_that_are_no_numbers_still_have_an_order),
        cmocka_unit_test(a_file_without_types_gets_them),
        cmocka_unit_test(very_long_tokens_do_no_harm),
        cmocka_unit_test(texts_made_to_collide_are_refused),
        cmocka_unit_test(texts_made_to_collide_by_hash_are_refused),
        cmocka_unit_test(memory_may_fail_while_loading),
        cmocka_unit_test(memory_may_fail_while_tokenizing),
    };
    return cmocka_run_group_tests_name("vocab_bad", tests, NULL, NULL);
}
