/* test_vocab.c: text becomes the tokens that the vocabulary means, and comes back byte for byte. Damaged vocabularies
 * are in test_vocab_bad.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "../engine/model.h"
#include "count_allocator.h"
#include "vocab_writer.h"

static const minim_allocator default_allocator; /* all zero: malloc */

/* ---- helpers ---------------------------------------------------------------------------------------------------- */

static vocab *open_file(const char *path) {
    gguf_file *f = NULL;
    vocab *v = NULL;
    minim_error e = {0};
    if (gguf_open(NULL, path, NULL, 0, &f, &e) || vocab_new(NULL, f, &v, &e)) fail_msg("%s", e.text);
    gguf_close(f);
    return v;
}

static vocab *open_stories(void) {
    return open_file("models/stories260K.gguf");
}

static vocab *must_open(const vw *w) {
    minim_error e = {0};
    vocab *v = vw_open(w, NULL, &e);
    if (!v) fail_msg("%s", e.text);
    return v;
}

static token_list tokens_of(const vocab *v, const char *text, size_t n, unsigned flags) {
    token_list l = {0};
    minim_error e = {0};
    if (vocab_tokenize(v, &default_allocator, text, n, flags, &l, &e)) fail_msg("%s", e.text);
    return l;
}

static void free_tokens(token_list *l) {
    token_list_free(&default_allocator, l);
}

/* "1 403 407" */
static char *print_tokens(const token_list *l) {
    char *s = calloc(l->n + 1, 12);
    size_t at = 0;
    for (size_t i = 0; i < l->n; i++) at += (size_t)snprintf(s + at, 12, "%s%d", i ? " " : "", (int)l->token[i]);
    return s;
}

static void assert_tokens(const vocab *v, const char *text, unsigned flags, const char *expected) {
    token_list l = tokens_of(v, text, strlen(text), flags);
    char *found = print_tokens(&l);
    if (strcmp(found, expected) != 0) fail_msg("\"%s\" gives %s, expected %s", text, found, expected);
    free(found);
    free_tokens(&l);
}

static char *text_of(const vocab *v, const token_list *l, int special, size_t *n) {
    char *s = malloc(l->n * 64 + 64);
    int at_start = 1;
    *n = 0;
    for (size_t i = 0; i < l->n; i++) {
        *n += vocab_piece(v, l->token[i], special, at_start, s + *n, 64);
        at_start = vocab_next_at_start(v, l->token[i], special, at_start);
    }
    s[*n] = 0;
    return s;
}

static void assert_comes_back(const vocab *v, const char *text, size_t n, unsigned flags) {
    token_list l = tokens_of(v, text, n, flags);
    size_t n_back;
    char *back = text_of(v, &l, (flags & MINIM_PARSE_SPECIAL) != 0, &n_back);
    if (n_back != n || memcmp(back, text, n) != 0) fail_msg("\"%.60s\" comes back as \"%.60s\"", text, back);
    free(back);
    free_tokens(&l);
}

/* ---- the vocabulary in the repository --------------------------------------------------------------------------- */

static void stories_gives_the_tokens_of_the_reference(void **state) {
    vocab *v = open_stories();
    (void)state; /* from the reference tokenizer of the fixtures */
    assert_tokens(v, "Once upon a time", MINIM_ADD_SPECIAL, "1 403 407 261 378");
    assert_tokens(v, "", MINIM_ADD_SPECIAL, "1");
    assert_tokens(v, "", 0, "");
    assert_tokens(v, " ", 0, "410 410");
    assert_tokens(v, "  two  spaces", 0, "410 410 259 424 414 410 262 427 412 331 419");
    assert_tokens(v, "Lily's mom said, \"Let's go!\"\n", 0,
                  "317 439 419 357 336 432 313 438 316 439 419 298 414 443 436 13");
    assert_tokens(v, "caf\xc3\xa9 \xe2\x82\xac 5", 0, "280 412 431 485 410 503 410 480");
    assert_tokens(v, "\xf0\x9f\x98\x80", 0, "410 243 162 155 131");
    assert_tokens(v, "<s>hi</s>there", 0, "410 504 419 505 415 417 504 492 419 505 413 260 276");
    assert_tokens(v, "<s>hi</s>there", MINIM_ADD_SPECIAL | MINIM_PARSE_SPECIAL, "1 1 270 417 2 383");
    assert_tokens(v, "the<unk>the", MINIM_PARSE_SPECIAL, "265 0 265");
    vocab_free(v);
}

static void stories_knows_its_special_tokens(void **state) {
    vocab *v = open_stories();
    size_t n;
    (void)state;
    assert_int_equal(vocab_size(v), 512);
    assert_int_equal(vocab_bos(v), 1);
    assert_int_equal(vocab_eos(v), 2);
    assert_true(vocab_adds_bos(v));
    assert_true(vocab_is_end(v, 2));
    assert_false(vocab_is_end(v, 1));
    assert_false(vocab_is_end(v, -1));
    assert_false(vocab_is_end(v, 512));
    assert_int_equal(vocab_end_at(v, 0), 2);
    assert_int_equal(vocab_end_at(v, 1), -1);
    assert_string_equal(vocab_text(v, 265, &n), "\xe2\x96\x81the");
    assert_int_equal(n, 6);
    assert_string_equal(vocab_text(v, 512, &n), "");
    assert_int_equal(vocab_type(v, 3), VOCAB_BYTE);
    assert_int_equal(vocab_type(v, -1), 0);
    assert_int_equal(vocab_find(v, "</s>", 4), 2);
    assert_int_equal(vocab_find(v, "</s", 3), -1);
    vocab_free(v);
}

static void any_bytes_come_back(void **state) {
    vocab *v = open_stories();
    static const char *const texts[] = {"",         " ",        "   ",          "a",           " a",
                                        "a ",       "\n\n",     "<s>",          "<0x41>",      "\xff\xfe",
                                        "\xe2\x96", "\xc0\x80", "\xed\xa0\x80", "caf\xc3\xa9", "\xf0\x9f\x98\x80 x"};
    uint32_t random = 1;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) assert_comes_back(v, texts[i], strlen(texts[i]), 0);
    assert_comes_back(v, "a\0b\0", 4, 0);
    for (int round = 0; round < 300; round++) {
        char text[200];
        const size_t n = (size_t)(round % 200);
        for (size_t i = 0; i < n; i++) {
            random = random * 1664525 + 1013904223;
            text[i] = (char)(round % 2 ? random >> 24 : (unsigned char)" ab\xe2\x96\x80\xc3\xa9"[random >> 29]);
        }
        assert_comes_back(v, text, n, 0);
    }
    vocab_free(v);
}

/* ---- the algorithm ---------------------------------------------------------------------------------------------- */

static void add_token(token_list *l, int32_t token) {
    if (mem_grow(&default_allocator, &l->token, &l->capacity, l->n + 1, sizeof token)) abort();
    l->token[l->n++] = token;
}

/* The definition, as slow as it is: looks at all pairs, merges the best, begins again. Characters are those of `text`,
 * in which a space is "▁". */
static token_list merge_slowly(const vw *w, const char *text) {
    char part[512][64];
    size_t n = 0;
    token_list l = {0};
    for (size_t i = 0; text[i]; n++) {
        const size_t length = utf8_length(text + i, strlen(text + i));
        memcpy(part[n], text + i, length);
        part[n][length] = 0;
        i += length;
    }
    for (;;) {
        size_t best = SIZE_MAX, best_token = 0;
        char joined[128];
        for (size_t i = 0; i + 1 < n; i++) {
            snprintf(joined, sizeof joined, "%.63s%.63s", part[i], part[i + 1]);
            for (size_t t = 0; t < w->n; t++) {
                if (w->type[t] != VOCAB_NORMAL || strcmp(w->text[t], joined) != 0) continue;
                if (best == SIZE_MAX || w->score[t] > w->score[best_token]) best = i, best_token = t;
                break;
            }
        }
        if (best == SIZE_MAX) break;
        snprintf(part[best], sizeof part[best], "%s", w->text[best_token]);
        memmove(part[best + 1], part[best + 2], (n - best - 2) * sizeof *part);
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        size_t t = 0;
        while (t < w->n && (w->type[t] != VOCAB_NORMAL || strcmp(w->text[t], part[i]) != 0)) t++;
        if (t < w->n) {
            add_token(&l, (int32_t)t);
            continue;
        }
        for (const char *c = part[i]; *c; c++) add_token(&l, 3 + (unsigned char)*c);
    }
    return l;
}

/* Joins `n` random pieces of an alphabet; a space becomes "▁" in *marked. */
static void random_text(uint32_t *random, const char *const *alphabet, size_t letters, size_t n, char *text,
                        char *marked) {
    *text = *marked = 0;
    for (size_t i = 0; i < n; i++) {
        *random = *random * 1664525 + 1013904223;
        const char *piece = alphabet[(*random >> 16) % letters];
        strcat(text, piece);
        strcat(marked, strcmp(piece, " ") == 0 ? "\xe2\x96\x81" : piece);
    }
}

static void merging_follows_the_definition(void **state) {
    static const char *const alphabet[] = {"a", "b", " ", "\xc3\xa9", "a", "\xe2\x82\xac"};
    static char token_text[60][64];
    uint32_t random = 7;
    (void)state;
    for (int round = 0; round < 60; round++) {
        const size_t letters = 2 + (size_t)round % 5;
        char text[2048], marked[2048];
        vw w;
        vocab *v;
        vw_init(&w, VW_BYTES);
        gw_bool(&w.file, "tokenizer.ggml.add_space_prefix", 0);
        for (size_t i = 0; i < 60; i++) {
            random_text(&random, alphabet, letters, 1 + (random >> 20) % (i % 3 ? 3 : 7), text, token_text[i]);
            vw_add(&w, token_text[i], VOCAB_NORMAL, -(float)((random >> 24) % (round % 2 ? 4 : 100)));
        }
        v = must_open(&w);
        for (int i = 0; i < 40; i++) {
            random_text(&random, alphabet, letters, (size_t)i, text, marked);
            token_list expected = merge_slowly(&w, marked), found = tokens_of(v, text, strlen(text), 0);
            assert_int_equal(found.n, expected.n);
            if (found.n) assert_memory_equal(found.token, expected.token, found.n * sizeof *found.token);
            free_tokens(&expected);
            free_tokens(&found);
        }
        vocab_free(v);
        vw_free(&w);
    }
}

static double seconds_for(const vocab *v, const char *unit, size_t repeats, unsigned flags, size_t *n_tokens) {
    const size_t n_unit = strlen(unit);
    char *text = malloc(n_unit * repeats);
    token_list l;
    clock_t begin;
    double seconds;
    for (size_t i = 0; i < repeats; i++) memcpy(text + i * n_unit, unit, n_unit);
    begin = clock();
    l = tokens_of(v, text, n_unit * repeats, flags);
    seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    *n_tokens = l.n;
    free_tokens(&l);
    free(text);
    return seconds;
}

/* Quadratic time would be hours; the limit leaves room for sanitizers and a busy machine. */
static void a_megabyte_of_anything_takes_no_time(void **state) {
    static char many[12][4096];
    vw w;
    vocab *v;
    size_t n;
    (void)state;
    vw_init(&w, VW_BYTES);
    for (size_t i = 0; i < 12; i++) { /* runs of 1, 2, 4 ... 2048 letters: every merge leads to another one */
        memset(many[i], 'a', (size_t)1 << i);
        vw_add(&w, many[i], VOCAB_NORMAL, -(float)i);
    }
    vw_add(&w, "\xe2\x96\x81", VOCAB_NORMAL, -20);
    vw_add(&w, "\xe2\x96\x81\xe2\x96\x81", VOCAB_NORMAL, -20);
    vw_add(&w, "<|user|>", VOCAB_USER, 0);
    v = must_open(&w);
    assert_true(seconds_for(v, "a", 1 << 20, 0, &n) < 10);
    assert_true(n >= 512 && n < 600);
    assert_true(seconds_for(v, " ", 1 << 20, 0, &n) < 10);
    assert_int_equal(n, (1 << 19) + 1);
    assert_true(seconds_for(v, "<|user|>", 100000, 0, &n) < 10);
    assert_int_equal(n, 100000);
    assert_true(seconds_for(v, "<s>", 100000, MINIM_PARSE_SPECIAL, &n) < 10);
    assert_int_equal(n, 100000);
    assert_true(seconds_for(v, "<|use", 200000, 0, &n) < 10);
    vocab_free(v);
    vw_free(&w);
}

/* ---- special tokens --------------------------------------------------------------------------------------------- */

static void special_tokens_need_the_flag_and_user_defined_ones_do_not(void **state) {
    vw w;
    vocab *v;
    char expected[64];
    (void)state;
    vw_init(&w, VW_BYTES);
    const int a = vw_add(&w, "a", VOCAB_NORMAL, -1), space_a = vw_add(&w,
                                                                      "\xe2\x96\x81"
                                                                      "a",
                                                                      VOCAB_NORMAL, -2);
    const int control = vw_add(&w, "<x>", VOCAB_CONTROL, 0), user = vw_add(&w, "<y>", VOCAB_USER, 0);
    const int longer = vw_add(&w, "<y><y>", VOCAB_USER, 0);
    vw_add(&w, "\xe2\x96\x81", VOCAB_NORMAL, -3);
    v = must_open(&w);
    snprintf(expected, sizeof expected, "%d %d %d", space_a, control, space_a);
    assert_tokens(v, "a<x>a", MINIM_PARSE_SPECIAL, expected);
    snprintf(expected, sizeof expected, "%d %d %d %d %d", space_a, 3 + '<', 3 + 'x', 3 + '>', a);
    assert_tokens(v, "a<x>a", 0, expected);
    snprintf(expected, sizeof expected, "%d %d %d", space_a, user, space_a);
    assert_tokens(v, "a<y>a", 0, expected);
    snprintf(expected, sizeof expected, "%d %d", longer, user); /* the longest one counts */
    assert_tokens(v, "<y><y><y>", 0, expected);
    assert_comes_back(v, "a<x>a a<y> a<y><y><y>a", 22, MINIM_PARSE_SPECIAL);
    assert_comes_back(v, "a<x>a a<y> a<y><y><y>a", 22, 0);
    vocab_free(v);
    vw_free(&w);
}

static void no_text_becomes_a_control_token_by_merging(void **state) {
    vw w;
    vocab *v;
    token_list l;
    (void)state;
    vw_init(&w, VW_BYTES);
    vw_add(&w, "\xe2\x96\x81", VOCAB_NORMAL, -3);
    vw_add(&w, "<s", VOCAB_NORMAL, -1); /* "<s" and ">" would give "<s>", "<0x4" and "1>" a byte */
    vw_add(&w, "<0", VOCAB_NORMAL, -1);
    vw_add(&w, "x4", VOCAB_NORMAL, -1);
    vw_add(&w, "<0x4", VOCAB_NORMAL, -1);
    vw_add(&w, "1>", VOCAB_NORMAL, -1);
    vw_add(&w, "un", VOCAB_NORMAL, -1);
    vw_add(&w, "unused", VOCAB_UNUSED, 0);
    vw_add(&w, "used", VOCAB_NORMAL, -1);
    vw_add(&w, "us", VOCAB_NORMAL, -1);
    vw_add(&w, "ed", VOCAB_NORMAL, -1);
    v = must_open(&w);
    l = tokens_of(v, "<s><0x41>unused</s><unk>", 24, 0);
    for (size_t i = 0; i < l.n; i++) { /* only normal tokens and the bytes of the text itself */
        const int type = vocab_type(v, l.token[i]);
        assert_true(type == VOCAB_NORMAL || (type == VOCAB_BYTE && l.token[i] != 3 + 'A'));
    }
    free_tokens(&l);
    assert_comes_back(v, "<s><0x41>unused</s><unk>", 24, 0);
    vocab_free(v);
    vw_free(&w);
}

static void bos_eos_and_the_space_follow_the_file(void **state) {
    vw w;
    vocab *v;
    char expected[64];
    (void)state;
    vw_init(&w, VW_BYTES);
    const int a = vw_add(&w, "a", VOCAB_NORMAL, -1), space = vw_add(&w, "\xe2\x96\x81", VOCAB_NORMAL, -1);
    v = must_open(&w); /* defaults: BOS and space, no EOS */
    snprintf(expected, sizeof expected, "1 %d %d", space, a);
    assert_tokens(v, "a", MINIM_ADD_SPECIAL, expected);
    vocab_free(v);
    gw_bool(&w.file, "tokenizer.ggml.add_bos_token", 0);
    gw_bool(&w.file, "tokenizer.ggml.add_eos_token", 1);
    gw_bool(&w.file, "tokenizer.ggml.add_space_prefix", 0);
    gw_u32(&w.file, "tokenizer.ggml.eos_token_id", 1);
    v = must_open(&w);
    assert_false(vocab_adds_bos(v));
    snprintf(expected, sizeof expected, "%d 1", a);
    assert_tokens(v, "a", MINIM_ADD_SPECIAL, expected);
    snprintf(expected, sizeof expected, "%d %d 1", space, a);
    assert_tokens(v, " a", MINIM_ADD_SPECIAL, expected);
    assert_comes_back(v, " a", 2, 0);
    vocab_free(v);
    vw_free(&w);
}

static void phi_3_swallows_white_space_behind_control_tokens(void **state) {
    vw w;
    vocab *v;
    char expected[64];
    (void)state;
    vw_init(&w, VW_BYTES);
    const int space_a = vw_add(&w,
                               "\xe2\x96\x81"
                               "a",
                               VOCAB_NORMAL, -1),
              end = vw_add(&w, "<|end|>", VOCAB_CONTROL, 0);
    gw_str(&w.file, "general.name", "My PHI-3 mini");
    v = must_open(&w);
    snprintf(expected, sizeof expected, "%d %d", end, space_a);
    assert_tokens(v, "<|end|> \n\t\v\f\r a", MINIM_PARSE_SPECIAL, expected);
    assert_tokens(v, "<|end|>a", MINIM_PARSE_SPECIAL, expected);
    snprintf(expected, sizeof expected, "%d %d", end, end);
    assert_tokens(v, "<|end|>\n<|end|>\n", MINIM_PARSE_SPECIAL, expected);
    snprintf(expected, sizeof expected, "1 %d %d %d %d", 3 + 0xe2, 3 + 0x96, 3 + 0x81, 3 + '\n');
    assert_tokens(v, "<s>\n", MINIM_PARSE_SPECIAL, expected); /* "<s>" keeps it */
    vocab_free(v);
    vw_free(&w);
}

static void end_tokens_have_a_fixed_order(void **state) {
    vw w;
    vocab *v;
    (void)state;
    vw_init(&w, VW_BYTES);
    const int text_end = vw_add(&w, "<|endoftext|>", VOCAB_CONTROL, 0),
              im_end = vw_add(&w, "<|im_end|>", VOCAB_USER, 0);
    const int eot = vw_add(&w, "turn", VOCAB_NORMAL, 0), plain = vw_add(&w, "<|end|>", VOCAB_NORMAL, 0);
    gw_u32(&w.file, "tokenizer.ggml.eot_token_id", (uint32_t)eot);
    gw_u32(&w.file, "tokenizer.ggml.eom_token_id", 99999); /* out of range: none */
    v = must_open(&w);
    assert_int_equal(vocab_end_at(v, 0), 2);
    assert_int_equal(vocab_end_at(v, 1), eot);
    assert_int_equal(vocab_end_at(v, 2), im_end);
    assert_int_equal(vocab_end_at(v, 3), text_end);
    assert_int_equal(vocab_end_at(v, 4), -1);
    assert_false(vocab_is_end(v, plain)); /* ordinary text may spell it */
    vocab_free(v);
    vw_free(&w);
}

static void sealed_text_cannot_imitate_markers(void **state) {
    vw w;
    vocab *v;
    token_list l = {0};
    (void)state;
    vw_init(&w, VW_BYTES);
    const int marker = vw_add(&w, "[M]", VOCAB_USER, 0), end = vw_add(&w, "<|im_end|>", VOCAB_USER, 0);
    const int other = vw_add(&w, "[O]", VOCAB_USER, 0);
    v = must_open(&w);
    const vocab_span spans[] = {
        {VOCAB_SPAN_SPECIAL, 0, "[M]<s>", 6},
        {VOCAB_SPAN_SEALED, 0, "[M]<s>[O]<|im_end|>", 19},
        {VOCAB_SPAN_PLAIN, 0, "<s>[M]", 6},
        {VOCAB_SPAN_TOKEN, 2, NULL, 0},
    };
    int seen[5] = {0};
    assert_int_equal(vocab_tokenize_spans(v, &default_allocator, spans, 4, &l, NULL), MINIM_OK);
    for (size_t i = 0; i < l.n; i++) {
        seen[0] += l.token[i] == marker;
        seen[1] += l.token[i] == end;
        seen[2] += l.token[i] == other;
        seen[3] += l.token[i] == 1;
        seen[4] += l.token[i] == 2;
    }
    assert_int_equal(seen[0], 2); /* the first span's and the plain one's */
    assert_int_equal(seen[1], 0);
    assert_int_equal(seen[2], 1);
    assert_int_equal(seen[3], 1);
    assert_int_equal(seen[4], 1);
    free_tokens(&l);
    vocab_free(v);
    vw_free(&w);
}

static void merges_reach_across_spans(void **state) {
    vocab *v = open_stories();
    const vocab_span spans[] = {{VOCAB_SPAN_TOKEN, 1, NULL, 0},
                                {VOCAB_SPAN_SPECIAL, 0, "Onc", 3},
                                {VOCAB_SPAN_SEALED, 0, "e upon ", 7},
                                {VOCAB_SPAN_PLAIN, 0, "a time", 6}};
    token_list l = {0};
    char *found;
    (void)state;
    assert_int_equal(vocab_tokenize_spans(v, &default_allocator, spans, 4, &l, NULL), MINIM_OK);
    found = print_tokens(&l);
    assert_string_equal(found, "1 403 407 261 378");
    free(found);
    free_tokens(&l);
    vocab_free(v);
}

/* ---- pieces ----------------------------------------------------------------------------------------------------- */

static void a_piece_is_what_a_token_looks_like(void **state) {
    vw w;
    vocab *v;
    char buf[16];
    (void)state;
    vw_init(&w, VW_BYTES);
    const int word = vw_add(&w,
                            "\xe2\x96\x81"
                            "a\xe2\x96\x81"
                            "b",
                            VOCAB_NORMAL, 0);
    const int unused = vw_add(&w, "zz", VOCAB_UNUSED, 0), pad = vw_add(&w, "[PAD]", VOCAB_UNKNOWN, 0);
    const int empty = vw_add(&w, "", VOCAB_NORMAL, 0);
    v = must_open(&w);
    assert_int_equal(vocab_piece(v, word, 0, 0, buf, sizeof buf), 4);
    assert_memory_equal(buf, " a b", 4);
    assert_int_equal(vocab_piece(v, word, 0, 1, buf, sizeof buf), 3);
    assert_memory_equal(buf, "a b", 3);
    memset(buf, '#', sizeof buf);
    assert_int_equal(vocab_piece(v, word, 0, 0, buf, 2), 4); /* what fits, and the full length */
    assert_memory_equal(buf, " a##", 4);
    assert_int_equal(vocab_piece(v, 3 + 0xc3, 0, 1, buf, 1), 1);
    assert_int_equal((unsigned char)buf[0], 0xc3);
    assert_int_equal(vocab_piece(v, 1, 0, 0, buf, sizeof buf), 0);
    assert_int_equal(vocab_piece(v, 1, 1, 0, buf, sizeof buf), 3);
    assert_memory_equal(buf, "<s>", 3);
    assert_int_equal(vocab_piece(v, 0, 0, 0, buf, sizeof buf), 3);
    assert_memory_equal(buf, "\xef\xbf\xbd", 3);
    assert_int_equal(vocab_piece(v, 0, 1, 0, buf, sizeof buf), 5);
    assert_int_equal(vocab_piece(v, unused, 0, 0, buf, sizeof buf), 0);
    assert_int_equal(vocab_piece(v, unused, 1, 0, buf, sizeof buf), 2);
    assert_int_equal(vocab_piece(v, pad, 0, 0, buf, sizeof buf), 0);
    assert_int_equal(vocab_piece(v, empty, 1, 1, buf, sizeof buf), 0);
    assert_int_equal(vocab_piece(v, -1, 1, 1, buf, sizeof buf), 0);
    assert_int_equal(vocab_piece(v, INT32_MAX, 1, 1, buf, sizeof buf), 0);
    vocab_free(v);
    vw_free(&w);
}

/* ---- the public functions --------------------------------------------------------------------------------------- */

static void the_public_functions_report_what_they_need(void **state) {
    minim_model m = {.vocab = open_stories()};
    minim_error e;
    int32_t tokens[8], odd[] = {1, 403, 512};
    char text[32];
    size_t n = 0;
    (void)state;
    assert_int_equal(minim_tokenize(&m, "Once upon a time", 16, MINIM_ADD_SPECIAL, NULL, 0, &n, &e), MINIM_ERR_SPACE);
    assert_int_equal(n, 5);
    tokens[4] = -7;
    assert_int_equal(minim_tokenize(&m, "Once upon a time", 16, MINIM_ADD_SPECIAL, tokens, 4, &n, &e), MINIM_ERR_SPACE);
    assert_int_equal(tokens[4], -7);
    assert_int_equal(minim_tokenize(&m, "Once upon a time", 16, MINIM_ADD_SPECIAL, tokens, 5, &n, &e), MINIM_OK);
    assert_int_equal(tokens[4], 378);
    assert_int_equal(minim_tokenize(&m, NULL, 0, 0, NULL, 0, &n, &e), MINIM_OK);
    assert_int_equal(n, 0);
    assert_int_equal(minim_tokenize(&m, NULL, 3, 0, tokens, 8, &n, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_tokenize(&m, "a", 1, 4, tokens, 8, &n, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_tokenize(NULL, "a", 1, 0, tokens, 8, &n, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_tokenize(&m, "a", SIZE_MAX / 2, 0, tokens, 8, &n, &e), MINIM_ERR_ARGUMENT);

    assert_int_equal(minim_detokenize(&m, tokens, 5, 0, NULL, 0, &n, &e), MINIM_ERR_SPACE);
    assert_int_equal(n, 16);
    memset(text, '#', sizeof text);
    assert_int_equal(minim_detokenize(&m, tokens, 5, 0, text, 15, &n, &e), MINIM_ERR_SPACE);
    assert_int_equal(text[15], '#');
    assert_int_equal(minim_detokenize(&m, tokens, 5, 0, text, 16, &n, &e), MINIM_OK);
    assert_memory_equal(text, "Once upon a time#", 17);
    assert_int_equal(minim_detokenize(&m, tokens, 5, MINIM_PARSE_SPECIAL, text, 32, &n, &e), MINIM_OK);
    assert_memory_equal(text, "<s>Once upon a time", 19);
    assert_int_equal(minim_detokenize(&m, odd, 3, 0, text, 32, &n, &e), MINIM_ERR_ARGUMENT);
    assert_string_equal(e.text, "token 2 is 512, expected 0..511");
    assert_int_equal(minim_detokenize(&m, NULL, 0, 0, NULL, 0, &n, &e), MINIM_OK);

    assert_true(minim_token_is_end(&m, 2));
    assert_false(minim_token_is_end(NULL, 2));
    vocab_free(m.vocab);
    m.vocab = NULL;
    assert_int_equal(minim_tokenize(&m, "a", 1, 0, tokens, 8, &n, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(minim_detokenize(&m, tokens, 1, 0, text, 8, &n, &e), MINIM_ERR_ARGUMENT);
    assert_false(minim_token_is_end(&m, 2));
}

/* ---- golden files ----------------------------------------------------------------------------------------------- */

static char *read_whole(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    char *s = NULL;
    long size;
    if (!f) return NULL;
    if (fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0) {
        rewind(f);
        s = malloc((size_t)size + 1);
        *n = fread(s, 1, (size_t)size, f);
        s[*n] = 0;
    }
    fclose(f);
    return s;
}

/* Runs every case of FILE.inp; with `golden` the ids must be those of FILE.out, with `back` the text must come back. */
static void run_cases(const vocab *v, const char *folder, const char *file, unsigned flags, int golden, int back) {
    static const char end[] = "\n__ggml_vocab_test__\n";
    char path[512];
    size_t n, n_out, cases = 0;
    char *text, *out, *next, *line;
    snprintf(path, sizeof path, "%s/%s.inp", folder, file);
    text = read_whole(path, &n);
    snprintf(path, sizeof path, "%s/%s.out", folder, file);
    out = read_whole(path, &n_out);
    if (!text || !out) fail_msg("%s is missing", path);
    line = out;
    for (char *at = text; (next = strstr(at, end)); at = next + strlen(end), cases++) {
        char *line_end = strchr(line, '\n');
        *line_end = 0;
        *next = 0;
        if (golden) assert_tokens(v, at, flags, *line == ' ' ? line + 1 : line);
        if (back && !(flags & MINIM_PARSE_SPECIAL) && !strstr(at, "\xe2\x96\x81"))
            assert_comes_back(v, at, (size_t)(next - at), flags);
        line = line_end + 1;
    }
    assert_true(cases > 10);
    free(text);
    free(out);
}

static void golden_vocabularies_match(void **state) {
    static const char *const names[] = {"llama-spm", "phi-3", "gpt-2", "starcoder", "deepseek-llm", "llama3", "qwen2"};
    const char *shared = getenv("MINIM_SHARED");
    char folder[400], path[512], file[64];
    FILE *f;
    (void)state;
    snprintf(folder, sizeof folder, "%s/fixtures/vocab", shared ? shared : "../shared");
    snprintf(path, sizeof path, "%s/llama-spm.gguf", folder);
    f = fopen(path, "rb");
    if (!f) {
        print_message("no golden vocabularies at %s: skipped\n", folder);
        skip();
    }
    fclose(f);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        vocab *v;
        snprintf(path, sizeof path, "%s/%s.gguf", folder, names[i]);
        v = open_file(path);
        run_cases(v, folder, names[i], 0, 1, 1);
        snprintf(file, sizeof file, "%s.extra", names[i]);
        run_cases(v, folder, file, 0, 1, 1);
        snprintf(file, sizeof file, "%s.special", names[i]);
        run_cases(v, folder, file, MINIM_ADD_SPECIAL | MINIM_PARSE_SPECIAL, 1, 0);
        snprintf(file, sizeof file, "%s.invalid", names[i]);
        /* starcoder has no tokens for bytes that UTF-8 does not have; those of deepseek-llm are user-defined and called
         * "\u00ff" and so on, so they stand for these characters. */
        run_cases(v, folder, file, 0, 0, strcmp(names[i], "starcoder") && strcmp(names[i], "deepseek-llm"));
        vocab_free(v);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_gives_the_tokens_of_the_reference),
        cmocka_unit_test(stories_knows_its_special_tokens),
        cmocka_unit_test(any_bytes_come_back),
        cmocka_unit_test(merging_follows_the_definition),
        cmocka_unit_test(a_megabyte_of_anything_takes_no_time),
        cmocka_unit_test(special_tokens_need_the_flag_and_user_defined_ones_do_not),
        cmocka_unit_test(no_text_becomes_a_control_token_by_merging),
        cmocka_unit_test(bos_eos_and_the_space_follow_the_file),
        cmocka_unit_test(phi_3_swallows_white_space_behind_control_tokens),
        cmocka_unit_test(end_tokens_have_a_fixed_order),
        cmocka_unit_test(sealed_text_cannot_imitate_markers),
        cmocka_unit_test(merges_reach_across_spans),
        cmocka_unit_test(a_piece_is_what_a_token_looks_like),
        cmocka_unit_test(the_public_functions_report_what_they_need),
        cmocka_unit_test(golden_vocabularies_match),
    };
    return cmocka_run_group_tests_name("vocab", tests, NULL, NULL);
}
