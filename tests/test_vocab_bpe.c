/* test_vocab_bpe.c: byte-level BPE: text is cut into words as the regular expression of each family says, merges follow
 * their list, any bytes survive, and damaged files are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "../engine/vocab_split.h"
#include "count_allocator.h"
#include "vocab_writer.h"

static const minim_allocator default_allocator; /* all zero: malloc */

/* ---- words ------------------------------------------------------------------------------------------------------ */

/* The words of text, with '|' between them. */
static void cut(const char *kind, const char *text, size_t n, char *out) {
    split_reader r = split_begin(split_find(kind, strlen(kind)), text, n);
    size_t at = 0, length;
    while ((length = split_next(&r))) {
        if (at) *out++ = '|';
        memcpy(out, text + at, length);
        out += length;
        at += length;
    }
    *out = 0;
    assert_int_equal(at, n);
}

/* Expected is what Python's regex module makes of the expressions in the models' tokenizer.json. */
static void text_is_cut_as_the_regular_expressions_say(void **state) {
    static const struct {
        const char *kind, *text, *expected;
    } cases[] = {
        {"gpt-2", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'s| 2024|!|\n\n | x"},
        {"gpt-2", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'|LL| don|'t| 12345| \xc3\xa9t\xc3\xa9|\xc2\xa0|\xe4\xb8\xad\xe6\x96\x87| /|a|/|\n"},
        {"gpt-2", "\t\ta \n b\r\n  ", "\t|\t|a| \n| b|\r\n  "},
        {"gpt-2",
         "'S 's 'll x' \xc2\xbd"
         "1\xd9\xa3 a\xcc\x81 \xf0\x9f\x98\x80!",
         "'|S| '|s| '|ll| x|'| \xc2\xbd"
         "1\xd9\xa3| a|\xcc\x81| \xf0\x9f\x98\x80!"},
        {"llama-bpe", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'s| |202|4|!\n\n| | x"},
        {"llama-bpe", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'LL| don|'t| |123|45| \xc3\xa9t\xc3\xa9|\xc2\xa0\xe4\xb8\xad\xe6\x96\x87| /|a|/\n"},
        {"llama-bpe", "\t\ta \n b\r\n  ", "\t|\ta| \n| b|\r\n|  "},
        {"llama-bpe",
         "'Re 's'll x' \xc2\xbd"
         "1\xd9\xa3\xe2\x85\xa7"
         "4 a\xcc\x81 \xf0\x9f\x98\x80! \xe3\x80\x80\xe3\x80\x80"
         "a",
         "'Re| '|s|'ll| x|'| |\xc2\xbd"
         "1\xd9\xa3|\xe2\x85\xa7"
         "4| a|\xcc\x81| \xf0\x9f\x98\x80!| \xe3\x80\x80|\xe3\x80\x80"
         "a"},
        {"qwen2", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'s| |2|0|2|4|!\n\n| | x"},
        {"qwen2", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'LL| don|'t| |1|2|3|4|5| \xc3\xa9t\xc3\xa9|\xc2\xa0\xe4\xb8\xad\xe6\x96\x87| /|a|/\n"},
        {"qwen2", "\t\ta \n b\r\n  ", "\t|\ta| \n| b|\r\n|  "},
        {"qwen35", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'s| |2|0|2|4|!\n\n| | x"},
        {"qwen35", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'LL| don|'t| |1|2|3|4|5| \xc3\xa9t\xc3\xa9|\xc2\xa0\xe4\xb8\xad\xe6\x96\x87| /|a|/\n"},
        {"qwen35", "\t\ta \n b\r\n  ", "\t|\ta| \n| b|\r\n|  "},
        {"qwen35", "\xe0\xa4\x95\xe0\xa5\x8d\xe0\xa4\xb7 12 e\xcc\x81!\xcc\x81 ",
         "\xe0\xa4\x95\xe0\xa5\x8d\xe0\xa4\xb7| |1|2| e\xcc\x81|!\xcc\x81| "},
        {"starcoder", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'s| |2|0|2|4|!|\n\n | x"},
        {"starcoder", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'|LL| don|'t| |1|2|3|4|5| \xc3\xa9t\xc3\xa9|\xc2\xa0|\xe4\xb8\xad\xe6\x96\x87| /|a|/|\n"},
        {"starcoder", "\t\ta \n b\r\n  ", "\t|\t|a| \n| b|\r\n  "},
        {"starcoder", "x2024 = 7;  8", "x|2|0|2|4| =| |7|;|  |8"},
        {"gpt-4o", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it's| |202|4|!\n\n| | x"},
        {"gpt-4o", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I'LL| don't| |123|45| \xc3\xa9t\xc3\xa9|\xc2\xa0\xe4\xb8\xad\xe6\x96\x87| /|a|/\n"},
        {"gpt-4o", "\t\ta \n b\r\n  ", "\t|\ta| \n| b|\r\n|  "},
        {"gpt-4o",
         "HelloWorld's ABCdef \xc7\x85"
         "a \xe4\xb8\xad"
         "A\xe4\xb8\xad e\xcc\x81"
         "A \xcc\x81"
         "AB //\n/ 1234",
         "Hello|World's| ABCdef| \xc7\x85"
         "a| \xe4\xb8\xad"
         "A\xe4\xb8\xad| e\xcc\x81|A| \xcc\x81|AB| //\n/| |123|4"},
        {"gpt-4o",
         "isn'T \xc3\x89"
         "COLE\xc3\x89t X1 \xca\xb0"
         "A",
         "isn'T| \xc3\x89"
         "COLE\xc3\x89t| X|1| \xca\xb0|A"},
        {"tekken", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'s| |2|0|2|4|!\n\n| | x"},
        {"tekken", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'LL| don|'t| |1|2|3|4|5| \xc3\xa9t\xc3\xa9|\xc2\xa0\xe4\xb8\xad\xe6\x96\x87| /|a|/\n"},
        {"tekken", "\t\ta \n b\r\n  ", "\t|\ta| \n| b|\r\n|  "},
        {"tekken",
         "HelloWorld's ABCdef \xe4\xb8\xad"
         "AB\xe4\xb8\xad 1234 a/\n/",
         "Hello|World|'s| ABCdef| \xe4\xb8\xad"
         "AB\xe4\xb8\xad| |1|2|3|4| a|/\n/"},
        {"deepseek-llm", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'|s| |2024|!|\n|\n| | x"},
        {"deepseek-llm", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'|LL| don|'|t| |12345| \xc3\xa9|t|\xc3\xa9|\xc2\xa0|\xe4\xb8\xad\xe6\x96\x87| /|a|/|\n"},
        {"deepseek-llm", "\t\ta \n b\r\n  ", "\t|\ta| |\n| b|\r|\n|  "},
        {"deepseek-llm",
         "caf\xc3\xa9  \xe3\x80\x82\xe4\xb8\xad\xe6\x96\x87"
         "ab12 3\n\xc2\xa0\xe3\x80\x81\xe2\x80\x99 end  ",
         "caf|\xc3\xa9| | |\xe3\x80\x82|\xe4\xb8\xad\xe6\x96\x87|ab|12| |3|\n|\xc2\xa0|\xe3\x80\x81\xe2\x80\x99| end| "
         " "},
        {"deepseek-coder", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'|s| |2|0|2|4|!|\n|\n| | x"},
        {"deepseek-coder", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'|LL| don|'|t| |1|2|3|4|5| \xc3\xa9t\xc3\xa9|\xc2\xa0|\xe4\xb8\xad\xe6\x96\x87| /|a|/|\n"},
        {"deepseek-coder", "\t\ta \n b\r\n  ", "\t|\ta| |\n| b|\r|\n|  "},
        {"deepseek-coder",
         "int  x1 = \xc2\xab"
         "f\xc2\xbb(\xe4\xb8\xad);\r\n  \xe3\x80\x80y ",
         "int| | x|1| =| \xc2\xab|f|\xc2\xbb(|\xe4\xb8\xad|);|\r|\n|  |\xe3\x80\x80|y| "},
        {"deepseek-v3", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'s| |202|4|!\n\n| | x"},
        {"deepseek-v3", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'LL| don|'t| |123|45| \xc3\xa9t\xc3\xa9|\xc2\xa0|\xe4\xb8\xad\xe6\x96\x87| /|a|/\n"},
        {"deepseek-v3", "\t\ta \n b\r\n  ", "\t|\ta| \n| b|\r\n|  "},
        {"deepseek-v3",
         "f(x) 12345\xe4\xb8\xad\xe3\x81\x82 .abc \x01\x02"
         "b e\xcc\x81  \n\n z\x01",
         "f|(x|)| |123|45|\xe4\xb8\xad\xe3\x81\x82| .|abc| |\x01|\x02"
         "b| e\xcc\x81|  \n\n| z|\x01"},
        {"falcon", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'|s| |202|4|!|\n\n | x"},
        {"falcon", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'|LL| don|'|t| |123|45| \xc3\xa9t\xc3\xa9|\xc2\xa0|\xe4\xb8\xad\xe6\x96\x87| |/|a|/|\n"},
        {"falcon", "\t\ta \n b\r\n  ", "\t|\t|a| \n| b|\r\n  "},
        {"falcon", "a`b`, 1234567 $x~ ", "a|`|b|`,| |123|456|7| |$|x|~| "},
        {"default", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'|s| |202|4|!|\n\n | x"},
        {"default", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'|LL| don|'|t| |123|45| \xc3\xa9t\xc3\xa9|\xc2\xa0|\xe4\xb8\xad\xe6\x96\x87| |/|a|/|\n"},
        {"default", "\t\ta \n b\r\n  ", "\t|\t|a| \n| b|\r\n  "},
        {"default", "a`b`, 1234567 \xd9\xa3$x~ ", "a|`|b|`|,| |123|456|7| |\xd9\xa3|$|x|~| "},
        {"minicpm5", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'s| |202|4|!\n\n| | x"},
        {"minicpm5", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'LL| don|'t| |123|45| \xc3\xa9t\xc3\xa9|\xc2\xa0\xe4\xb8\xad\xe6\x96\x87| /|a|/\n"},
        {"minicpm5", "\t\ta \n b\r\n  ", "\t|\ta| \n| b|\r\n|  "},
        {"minicpm5", "a  12345 b", "a|  |123|45| b"},
        {"seed-coder", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'s| |2|0|2|4|!|\n\n| | x"},
        {"seed-coder", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'LL| don|'t| |1|2|3|4|5| \xc3\xa9t\xc3\xa9|\xc2\xa0\xe4\xb8\xad\xe6\x96\x87| /|a|/|\n"},
        {"seed-coder", "\t\ta \n b\r\n  ", "\t|\ta| \n| b|\r\n|  "},
        {"seed-coder", "a!!\n\n b 12", "a|!!|\n\n| b| |1|2"},
        {"ufakzeka", "Hello  world, it's 2024!\n\n  x", "Hello| | world|,| it|'s| |2|0|2|4|!\n\n| | x"},
        {"ufakzeka", "I'LL don't 12345 \xc3\xa9t\xc3\xa9\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 /a/\n",
         "I|'LL| don|'t| |1|2|3|4|5| \xc3\xa9t\xc3\xa9|\xc2\xa0\xe4\xb8\xad\xe6\x96\x87| /|a|/\n"},
        {"ufakzeka", "\t\ta \n b\r\n  ", "\t|\ta| \n| b|\r\n|  "},
        {"ufakzeka", "don't ''s 12", "don|'t| ''|s| |1|2"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char found[256];
        cut(cases[i].kind, cases[i].text, strlen(cases[i].text), found);
        if (strcmp(found, cases[i].expected) != 0)
            fail_msg("%s cuts \"%s\" into %s, expected %s", cases[i].kind, cases[i].text, found, cases[i].expected);
    }
}

static void every_name_of_a_kind_is_found(void **state) {
    static const char *const same[][2] = {{"llama3", "llama-bpe"}, {"glm4", "chatglm-bpe"}, {"stablelm2", "qwen2"},
                                          {"phi-2", "gpt-2"},      {"smollm", "refact"},    {"llama4", "gpt-4o"},
                                          {"dbrx", "smaug-bpe"},   {"olmo", "mpt"},         {"lfm2", "falcon3"}};
    static const char *const none[] = {"", " ", "llama", "gpt-2 phi-2", "gpt", "gpt-2 ", "-2", "LLAMA3"};
    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        assert_non_null(split_find(same[i][0], strlen(same[i][0])));
        assert_ptr_equal(split_find(same[i][0], strlen(same[i][0])), split_find(same[i][1], strlen(same[i][1])));
    }
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) assert_null(split_find(none[i], strlen(none[i])));
    assert_null(split_find("gpt-2\0", 6));
}

/* Calls f for each kind, by its first name. */
static void for_each_kind(void (*f)(const char *kind)) {
    char names[512], *at = names, *name;
    split_list(names, sizeof names);
    while ((name = strtok_r(at, ", ", &at))) f(name);
}

/* Time for a text of pieces that follow each other; everything is a word in the end. */
static void cut_in_linear_time(const char *kind) {
    static const char *const units[] = {"a",
                                        "A",
                                        " ",
                                        "\n",
                                        "1",
                                        "!",
                                        "'",
                                        "\xcc\x81",
                                        "aA",
                                        "Aa",
                                        " \n",
                                        "\r",
                                        "\t",
                                        "\x01",
                                        "1\x01",
                                        "\xe4\xb8\xad",
                                        "\xe4\xb8\xad"
                                        "A",
                                        "  a",
                                        "\xff",
                                        "\xe3\x80\x80",
                                        " \xc2\xa0"};
    const size_t n = 1 << 18;
    char *text = malloc(n);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        const clock_t begin = clock();
        split_reader r = split_begin(split_find(kind, strlen(kind)), text, n);
        size_t total = 0, length;
        for (size_t i = 0; i < n; i++) text[i] = units[u][i % strlen(units[u])];
        while ((length = split_next(&r))) total += length;
        assert_int_equal(total, n);
        if (clock() - begin > 5 * CLOCKS_PER_SEC) fail_msg("%s takes too long for \"%s\"", kind, units[u]);
    }
    free(text);
}

static void cutting_takes_linear_time(void **state) {
    (void)state;
    for_each_kind(cut_in_linear_time);
}

/* Whatever the bytes are, words are never empty and together are the text. */
static void cut_random_bytes(const char *kind) {
    static const char letters[] = " \n\r'aAsS1!$\xcc\x81\xe4\xb8\xad\xe3\x80\x80\xff\xc3\xa9\xf0\x9f\x98\x80\0\x01";
    uint32_t random = 3;
    for (int round = 0; round < 300; round++) {
        char *text = malloc(1 + (size_t)round % 60), out[256]; /* exactly as long, so that a sanitizer sees more */
        const size_t n = (size_t)round % 60;
        for (size_t i = 0; i < n; i++) {
            random = random * 1664525 + 1013904223;
            text[i] = round % 3 ? letters[(random >> 16) % (sizeof letters - 1)] : (char)(random >> 24);
        }
        cut(kind, text, n, out);
        free(text);
    }
}

static void any_bytes_are_cut(void **state) {
    (void)state;
    for_each_kind(cut_random_bytes);
}

/* ---- vocabularies ----------------------------------------------------------------------------------------------- */

enum { MAX_MERGES = 256 };

/* A byte-level vocabulary: token b is byte b, then come the merges, each with its token, and what else is added. */
typedef struct bv {
    vw w;
    char byte_text[256][4];
    char text[MAX_MERGES][128], merge[MAX_MERGES][130];
    const char *merges[MAX_MERGES];
    size_t n_merges;
    const char *pre;
} bv;

static void bv_init(bv *b, const char *pre) {
    unsigned next = 256;
    memset(b, 0, sizeof *b);
    vw_init(&b->w, 0);
    b->w.n = 0;
    b->w.model = "gpt2";
    b->w.omit = VW_NO_SCORES;
    b->pre = pre;
    for (unsigned i = 0; i < 256; i++) {
        const int printable = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
        const unsigned code = printable ? i : next++;
        if (code < 128)
            snprintf(b->byte_text[i], 4, "%c", (int)code);
        else
            snprintf(b->byte_text[i], 4, "%c%c", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 63)));
        vw_add(&b->w, b->byte_text[i], VOCAB_NORMAL, 0);
    }
}

/* Writes bytes as characters; returns the length. */
static size_t bv_write(char *out, const char *bytes, const bv *b) {
    size_t n = 0;
    for (; *bytes; bytes++) {
        const char *text = b->byte_text[(unsigned char)*bytes];
        while (*text) out[n++] = *text++;
    }
    out[n] = 0;
    return n;
}

/* Adds a merge of two texts (bytes), with its token if there is none yet. Returns its id. */
static int32_t bv_merge(bv *b, const char *left, const char *right, int type) {
    const size_t i = b->n_merges++;
    char joined[130];
    size_t n;
    assert_true(i < MAX_MERGES);
    n = bv_write(b->merge[i], left, b);
    b->merge[i][n] = ' ';
    bv_write(b->merge[i] + n + 1, right, b);
    memcpy(joined, b->merge[i], n);
    strcpy(joined + n, b->merge[i] + n + 1);
    b->merges[i] = b->merge[i];
    for (size_t t = 0; t < b->w.n; t++)
        if (strcmp(b->w.text[t], joined) == 0) return (int32_t)t;
    strcpy(b->text[i], joined);
    return vw_add(&b->w, b->text[i], type, 0);
}

static void bv_keys(bv *b) {
    gw_array(&b->w.file, "tokenizer.ggml.merges", 8, b->n_merges);
    for (size_t i = 0; i < b->n_merges; i++) gw_put_string(&b->w.file.keys, b->merges[i], strlen(b->merges[i]));
    if (b->pre) gw_str(&b->w.file, "tokenizer.ggml.pre", b->pre);
}

static vocab *bv_open(bv *b) {
    minim_error e = {0};
    vocab *v;
    bv_keys(b);
    v = vw_open(&b->w, NULL, &e);
    if (!v) fail_msg("%s", e.text);
    vw_free(&b->w);
    return v;
}

static token_list tokens_of(const vocab *v, const char *text, size_t n, unsigned flags) {
    token_list l = {0};
    minim_error e = {0};
    if (vocab_tokenize(v, &default_allocator, text, n, flags, &l, &e)) fail_msg("%s", e.text);
    return l;
}

static void assert_tokens(const vocab *v, const char *text, size_t n, unsigned flags, const int32_t *expected,
                          size_t n_expected) {
    token_list l = tokens_of(v, text, n, flags);
    for (size_t i = 0; i < l.n && i < n_expected; i++)
        if (l.token[i] != expected[i])
            fail_msg("\"%s\": token %zu is %d, expected %d", text, i, (int)l.token[i], (int)expected[i]);
    if (l.n != n_expected) fail_msg("\"%s\" gives %zu tokens, expected %zu", text, l.n, n_expected);
    token_list_free(&default_allocator, &l);
}

#define ASSERT_TOKENS(v, text, flags, ...)                                                                             \
    assert_tokens(v, text, strlen(text), flags, (int32_t[]){__VA_ARGS__},                                              \
                  sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void assert_comes_back(const vocab *v, const char *text, size_t n) {
    token_list l = tokens_of(v, text, n, 0);
    char *back = malloc(n + 64);
    size_t at = 0;
    for (size_t i = 0; i < l.n; i++) at += vocab_piece(v, l.token[i], 0, i == 0, back + at, n + 64 - at);
    assert_int_equal(at, n);
    assert_memory_equal(back, text, n);
    free(back);
    token_list_free(&default_allocator, &l);
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

/* The definition, as slow as it is: looks at all pairs, joins the one that stands first in the list, begins again. */
static size_t merge_slowly(const bv *b, const char *word, int32_t *out) {
    static char part[64][128];
    size_t n = strlen(word);
    for (size_t i = 0; i < n; i++) strcpy(part[i], b->byte_text[(unsigned char)word[i]]);
    for (;;) {
        size_t best = SIZE_MAX, best_merge = SIZE_MAX;
        for (size_t i = 0; i + 1 < n; i++) {
            const size_t left = strlen(part[i]);
            for (size_t m = 0; m < b->n_merges && m < best_merge; m++)
                if (strncmp(b->merge[m], part[i], left) == 0 && b->merge[m][left] == ' ' &&
                    strcmp(b->merge[m] + left + 1, part[i + 1]) == 0)
                    best = i, best_merge = m;
        }
        if (best == SIZE_MAX) break;
        const size_t left = strlen(part[best]);
        for (size_t k = 0; k <= strlen(part[best + 1]); k++) part[best][left + k] = part[best + 1][k];
        memmove(part[best + 1], part[best + 2], (n - best - 2) * sizeof *part);
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = 0;
        while (strcmp(b->w.text[out[i]], part[i]) != 0) out[i]++;
    }
    return n;
}

static uint32_t bpe_random(uint32_t *state) {
    *state = *state * 1664525 + 1013904223;
    return *state >> 16;
}

/* Random merges, most of them in an order in which no training would find them. */
static void merging_follows_the_list(void **state) {
    uint32_t random = 11;
    (void)state;
    for (int round = 0; round < 40; round++) {
        static bv b;
        vocab *v;
        static char texts[40][16];
        size_t n_texts = 3;
        bv_init(&b, "gpt-2");
        strcpy(texts[0], "a");
        strcpy(texts[1], "b");
        strcpy(texts[2], "\xc3");
        while (n_texts < 40) {
            const char *left = texts[bpe_random(&random) % n_texts], *right = texts[bpe_random(&random) % n_texts];
            if (strlen(left) + strlen(right) > 8) continue;
            bv_merge(&b, left, right, VOCAB_NORMAL);
            memcpy(texts[n_texts], left, strlen(left));
            strcpy(texts[n_texts++] + strlen(left), right);
        }
        for (size_t i = b.n_merges; round % 2 && i > 1; i--) { /* another order */
            const size_t k = bpe_random(&random) % i;
            char swap[sizeof *b.merge];
            memcpy(swap, b.merge[k], sizeof swap);
            memmove(b.merge[k], b.merge[i - 1], sizeof swap);
            memcpy(b.merge[i - 1], swap, sizeof swap);
        }
        bv_keys(&b);
        v = vw_open(&b.w, NULL, NULL);
        assert_non_null(v);
        for (int i = 1; i < 40; i++) { /* from 24 symbols on, a heap */
            char text[64];
            int32_t expected[64];
            for (int k = 0; k < i; k++) text[k] = "ab"[bpe_random(&random) % 2];
            text[i] = 0;
            assert_tokens(v, text, (size_t)i, 0, expected, merge_slowly(&b, text, expected));
        }
        vocab_free(v);
        vw_free(&b.w);
    }
}

static void a_word_that_is_a_token_is_taken_whole_only_where_the_family_does_so(void **state) {
    static bv b;
    vocab *v;
    int32_t abc, bc;
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        bv_init(&b, whole ? "llama-bpe" : "dbrx");
        bc = bv_merge(&b, "b", "c", VOCAB_NORMAL);
        bv_merge(&b, "a", "b", VOCAB_NORMAL); /* comes later, so "abc" is never made by merging */
        abc = bv_merge(&b, "ab", "c", VOCAB_NORMAL);
        v = bv_open(&b);
        if (whole)
            ASSERT_TOKENS(v, "abc abc", 0, abc, ' ', 'a', bc);
        else
            ASSERT_TOKENS(v, "abc", 0, 'a', bc);
        vocab_free(v);
    }
}

static void any_bytes_come_back(void **state) {
    static bv b;
    vocab *v;
    char all[512];
    (void)state;
    bv_init(&b, "llama-bpe");
    bv_merge(&b, "\xe2", "\x82", VOCAB_NORMAL);
    bv_merge(&b, "\xe2\x82", "\xac", VOCAB_NORMAL);
    bv_merge(&b, " ", "a", VOCAB_NORMAL);
    v = bv_open(&b);
    for (int i = 0; i < 512; i++) all[i] = (char)(i * 7);
    assert_comes_back(v, all, 512);
    assert_comes_back(v, "", 0);
    assert_comes_back(v, "a\0b\0\0 a", 7);
    assert_comes_back(v, " \xe2\x82\xac \xe2\x82 \xc0\x80\xed\xa0\x80 \xf4\x90\x80\x80", 18);
    ASSERT_TOKENS(v, "\xe2\x82\xac", 0, 257);
    vocab_free(v);
}

static void a_byte_without_a_token_is_left_out_or_u_fffd(void **state) {
    static bv b;
    vocab *v;
    (void)state;
    bv_init(&b, "gpt-2");
    b.w.type[0xff] = VOCAB_USER; /* "\u00ff": that character, not the byte */
    b.w.type['\n'] = VOCAB_USER; /* "\u010a" can be nothing but the byte */
    b.w.type[0x01] = b.w.type[0xf1] = VOCAB_UNUSED;
    const int32_t ab = bv_merge(&b, "a", "b", VOCAB_NORMAL);
    v = bv_open(&b);
    ASSERT_TOKENS(v, "\xff", 0, 0xef, 0xbf, 0xbd);
    ASSERT_TOKENS(v,
                  "a\xff\xff"
                  "b\xf1",
                  0, 'a', 0xef, 0xbf, 0xbd, 0xef, 0xbf, 0xbd, 'b', 0xef, 0xbf, 0xbd);
    ASSERT_TOKENS(v,
                  "ab\x01"
                  "ab",
                  0, ab, ab);
    ASSERT_TOKENS(v,
                  "a\x01"
                  "b",
                  0, 'a', 'b'); /* what it stood between is not merged */
    assert_tokens(v, "\x01", 1, 0, NULL, 0);
    ASSERT_TOKENS(v,
                  "a\xf1\x80\x81\x82"
                  "b",
                  0, 'a', 0x80, 0x81, 0x82, 'b'); /* U+40042 */
    ASSERT_TOKENS(v, "\xff\xf1\x80\x81\x82\xff", 0, 0xef, 0xbf, 0xbd, 0x80, 0x81, 0x82, 0xef, 0xbf, 0xbd);
    ASSERT_TOKENS(v, "\xc3\xbf", 0, 0xff);
    ASSERT_TOKENS(v, "\n", 0, '\n');
    assert_comes_back(v, "a\nb", 3);
    vocab_free(v);
    bv_init(&b, "gpt-2");
    for (int i = 128; i < 256; i++) b.w.type[i] = VOCAB_UNUSED;
    b.w.type['!'] = VOCAB_CONTROL;
    gw_u32(&b.w.file, "tokenizer.ggml.unknown_token_id", '!'); /* a control token: no text becomes it */
    v = bv_open(&b);
    ASSERT_TOKENS(v,
                  "a\xff"
                  "b",
                  0, 'a', 'b');
    vocab_free(v);
}

static void no_text_becomes_a_special_token_by_merging(void **state) {
    static bv b;
    vocab *v;
    (void)state;
    bv_init(&b, "llama-bpe"); /* words that are tokens are taken whole there */
    const int32_t s = bv_merge(&b, "<", "s", VOCAB_NORMAL);
    const int32_t control = bv_merge(&b, "<s", ">", VOCAB_CONTROL), points = bv_merge(&b, "<", ">", VOCAB_CONTROL);
    const int32_t unused = bv_merge(&b, "u", "n", VOCAB_UNUSED);
    v = bv_open(&b);
    ASSERT_TOKENS(v, "<s>", 0, s, '>');
    ASSERT_TOKENS(v, "<>un", 0, '<', '>', 'u', 'n');
    ASSERT_TOKENS(v, "<s><>un", MINIM_PARSE_SPECIAL, control, points, 'u', 'n');
    (void)unused;
    vocab_free(v);
}

static void a_megabyte_of_anything_takes_no_time(void **state) {
    static const char *const units[] = {"a", " ", "\n", "ab", "aab", "1", "\xe4\xb8\xad"};
    static bv b;
    vocab *v;
    char run[64] = "a", spaces[64] = " ";
    char *text = malloc(1 << 20);
    (void)state;
    bv_init(&b, "gpt-2");
    for (int i = 0; i < 5; i++) { /* runs of 2, 4 ... 32 */
        bv_merge(&b, run, run, VOCAB_NORMAL);
        bv_merge(&b, spaces, spaces, VOCAB_NORMAL);
        memset(run, 'a', (size_t)2 << i);
        memset(spaces, ' ', (size_t)2 << i);
    }
    bv_merge(&b, "a", "b", VOCAB_NORMAL);
    bv_merge(&b, "b", "a", VOCAB_NORMAL);
    v = bv_open(&b);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        const clock_t begin = clock();
        token_list l;
        for (size_t i = 0; i < 1 << 20; i++) text[i] = units[u][i % strlen(units[u])];
        l = tokens_of(v, text, 1 << 20, 0);
        if (u < 2) assert_int_equal(l.n, 1 << 15);
        token_list_free(&default_allocator, &l);
        if (clock() - begin > 10 * CLOCKS_PER_SEC) fail_msg("\"%s\" takes too long", units[u]);
    }
    free(text);
    vocab_free(v);
}

/* ---- special tokens --------------------------------------------------------------------------------------------- */

static void bos_follows_the_family_and_the_file(void **state) {
    static const struct {
        const char *pre;
        int bos_key, control_11, add_bos;
        int32_t bos;
    } cases[] = {{"llama-bpe", 256, 0, 1, 256}, {"gpt-2", 256, 0, 0, 256}, {"tekken", 256, 0, 1, 256},
                 {"gpt-2", -1, 0, 0, -1},       {"falcon", -1, 1, 0, 11},  {"llama-bpe", -1, 0, 0, -1},
                 {"glm4", -1, 1, 0, -1},        {"glm4", 256, 0, 0, 256},  {NULL, -1, 0, 0, -1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static bv b;
        vocab *v;
        bv_init(&b, cases[i].pre);
        vw_add(&b.w, "<bos>", VOCAB_CONTROL, 0);
        if (cases[i].control_11) b.w.type[11] = VOCAB_CONTROL;
        if (cases[i].bos_key >= 0) gw_u32(&b.w.file, "tokenizer.ggml.bos_token_id", (uint32_t)cases[i].bos_key);
        v = bv_open(&b);
        assert_int_equal(vocab_bos(v), cases[i].bos);
        assert_int_equal(vocab_adds_bos(v), cases[i].add_bos);
        if (cases[i].add_bos)
            ASSERT_TOKENS(v, "a", MINIM_ADD_SPECIAL, 256, 'a');
        else
            ASSERT_TOKENS(v, "a", MINIM_ADD_SPECIAL, 'a');
        assert_false(vocab_is_end(v, ',')); /* 11 is Falcon's, elsewhere it is some ordinary token */
        vocab_free(v);
    }
}

static void the_longest_special_token_is_cut_first(void **state) {
    static bv b;
    vocab *v;
    (void)state;
    bv_init(&b, "gpt-2");
    const int32_t two = vw_add(&b.w, "<a", VOCAB_CONTROL, 0), three = vw_add(&b.w, "ab>", VOCAB_CONTROL, 0),
                  late = vw_add(&b.w, ">b>", VOCAB_CONTROL, 0), four = vw_add(&b.w, "b>b>", VOCAB_USER, 0);
    const int32_t spaces2 = vw_add(&b.w, "  ", VOCAB_USER, 0), spaces3 = vw_add(&b.w, "   ", VOCAB_USER, 0);
    v = bv_open(&b);
    ASSERT_TOKENS(v, "<ab>", MINIM_PARSE_SPECIAL, '<', three);           /* not "<a", though it begins before */
    ASSERT_TOKENS(v, "<ab>b>", MINIM_PARSE_SPECIAL, two, four);          /* "b>b>" first, then "<a" is free */
    ASSERT_TOKENS(v, "<ab>b>", 0, '<', 'a', four);                       /* only user-defined ones */
    ASSERT_TOKENS(v, "ab>b>b>b>", MINIM_PARSE_SPECIAL, 'a', four, four); /* the leftmost of equal ones */
    ASSERT_TOKENS(v, "aab>b", MINIM_PARSE_SPECIAL, 'a', three, 'b');
    ASSERT_TOKENS(v, "a>b>x", MINIM_PARSE_SPECIAL, 'a', late, 'x');
    ASSERT_TOKENS(v, "ab>b", MINIM_PARSE_SPECIAL, three, 'b');
    ASSERT_TOKENS(v, "       x", 0, spaces3, spaces3, ' ', 'x');
    ASSERT_TOKENS(v, "     x", 0, spaces3, spaces2, 'x');
    assert_comes_back(v, "  a   b        c", 16);
    vocab_free(v);
}

/* The definition again: for each token, the longest first, cut it out of all text that is left. */
static size_t cut_slowly(const vw *w, const char *text, int32_t *out) {
    const size_t n = strlen(text);
    int32_t cover[64];
    size_t n_out = 0;
    for (size_t i = 0; i < n; i++) cover[i] = -1;
    for (size_t length = 8; length > 0; length--)
        for (size_t t = 256; t < w->n; t++)
            for (size_t i = 0; w->bytes[t] == length && i + length <= n; i++) {
                int is_free = memcmp(text + i, w->text[t], length) == 0;
                for (size_t k = 0; k < length; k++) is_free &= cover[i + k] == -1;
                for (size_t k = 0; k < length && is_free; k++) cover[i + k] = k ? -2 : (int32_t)t;
            }
    for (size_t i = 0; i < n; i++)
        if (cover[i] != -2) out[n_out++] = cover[i] == -1 ? text[i] : cover[i];
    return n_out;
}

static void overlapping_special_tokens_follow_the_definition(void **state) {
    uint32_t random = 5;
    (void)state;
    for (int round = 0; round < 60; round++) {
        static bv b;
        static char texts[12][10];
        vocab *v;
        bv_init(&b, "gpt-2");
        for (size_t i = 0; i < 12; i++) {
            const size_t n = 2 + bpe_random(&random) % 5;
            for (size_t k = 0; k < n; k++) texts[i][k] = "xyz"[bpe_random(&random) % (round % 2 ? 2 : 3)];
            texts[i][n] = 0;
            for (size_t k = 0; k < i; k++)
                if (strcmp(texts[i], texts[k]) == 0) texts[i][0] = 'q'; /* no two alike */
            vw_add(&b.w, texts[i], VOCAB_USER, 0);
        }
        bv_keys(&b);
        v = vw_open(&b.w, NULL, NULL);
        assert_non_null(v);
        for (int i = 0; i < 60; i++) {
            char text[64];
            int32_t expected[64];
            for (int k = 0; k < i; k++) text[k] = "xyz"[bpe_random(&random) % (round % 2 ? 2 : 3)];
            text[i] = 0;
            assert_tokens(v, text, (size_t)i, 0, expected, cut_slowly(&b.w, text, expected));
        }
        vocab_free(v);
        vw_free(&b.w);
    }
}

static void a_megabyte_of_special_tokens_takes_no_time(void **state) {
    static const char *const units[] = {"<<", "<>", "<", "<<<>"};
    static char runs[64][64];
    static bv b;
    vocab *v;
    char *text = malloc(1 << 20);
    (void)state;
    bv_init(&b, "gpt-2");
    for (int i = 0; i < 40; i++) { /* runs of 2 .. 41 */
        memset(runs[i], '<', (size_t)i + 2);
        vw_add(&b.w, runs[i], VOCAB_USER, 0);
    }
    vw_add(&b.w, "<<>", VOCAB_USER, 0);
    v = bv_open(&b);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        const clock_t begin = clock();
        token_list l;
        for (size_t i = 0; i < 1 << 20; i++) text[i] = units[u][i % strlen(units[u])];
        l = tokens_of(v, text, 1 << 20, 0);
        if (u == 0) assert_int_equal(l.n, (1 << 20) / 41 + 1);
        token_list_free(&default_allocator, &l);
        if (clock() - begin > 10 * CLOCKS_PER_SEC) fail_msg("\"%s\" takes too long", units[u]);
    }
    free(text);
    vocab_free(v);
}

static void end_tokens_are_a_set_in_a_fixed_order(void **state) {
    static const char *const names[] = {"<|file_sep|>", "<|endoftext|>", "<|im_end|>", "<eos>", "<|fim_pad|>", "</s>"};
    static const int order[] = {2, 1, 5, 3, 4, 0}; /* behind the keys, as in vocab.c */
    int32_t ids[6];
    (void)state;
    for (int turn = 0; turn < 2; turn++) { /* the order of the tokens in the file does not matter */
        static bv b;
        vocab *v;
        bv_init(&b, "qwen2");
        for (int i = 0; i < 6; i++) {
            const int k = turn ? 5 - i : i;
            ids[k] = vw_add(&b.w, names[k], k % 2 ? VOCAB_CONTROL : VOCAB_USER, 0);
        }
        const int32_t eom = vw_add(&b.w, "eom", VOCAB_CONTROL, 0), eos = vw_add(&b.w, "eos", VOCAB_CONTROL, 0);
        const int32_t text = vw_add(&b.w, "<|end|>", VOCAB_NORMAL, 0); /* ordinary text */
        gw_u32(&b.w.file, "tokenizer.ggml.eom_token_id", (uint32_t)eom);
        gw_u32(&b.w.file, "tokenizer.ggml.eos_token_id", (uint32_t)eos);
        v = bv_open(&b);
        assert_int_equal(vocab_end_at(v, 0), eos);
        assert_int_equal(vocab_end_at(v, 1), eom);
        for (size_t i = 0; i < 6; i++) assert_int_equal(vocab_end_at(v, 2 + i), ids[order[i]]);
        assert_int_equal(vocab_end_at(v, 8), -1);
        assert_false(vocab_is_end(v, text));
        vocab_free(v);
    }
}

/* ---- damaged files ---------------------------------------------------------------------------------------------- */

static void assert_refused(vw *w, minim_status status, const char *text) {
    count_allocator counter = {0};
    const minim_allocator a = count_allocator_get(&counter);
    minim_error e = {0};
    if (vw_open(w, &a, &e)) fail_msg("accepted, expected: %s", text);
    if (strncmp(e.text, text, strlen(text)) != 0) fail_msg("%s, expected: %s", e.text, text);
    assert_int_equal(e.status, status);
    assert_true(count_allocator_clean(&counter));
    vw_free(w);
}

static void damaged_merges_are_refused(void **state) {
    static const struct {
        const char *merge, *complaint;
    } cases[] = {{"ab", "merge 1 is \"ab\", expected two tokens with a space between them"},
                 {"", "merge 1 is \"\", expected two tokens with a space between them"},
                 {" ", "merge 1 is \" \", expected two tokens with a space between them"},
                 {"x y", "merge 1 is \"x y\", but the two together is no token"},
                 {"xyz a", "merge 1 is \"xyz a\", but the left part is no token"},
                 {"a xyz", "merge 1 is \"a xyz\", but the right part is no token"},
                 {"a ", "merge 1 is \"a \", but the right part is no token"}};
    static bv b;
    char text[200];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bv_init(&b, "gpt-2");
        bv_merge(&b, "a", "b", VOCAB_NORMAL);
        b.merges[b.n_merges++] = cases[i].merge;
        bv_keys(&b);
        snprintf(text, sizeof text, "made.gguf: key 'tokenizer.ggml.merges': %s", cases[i].complaint);
        assert_refused(&b.w, MINIM_ERR_FORMAT, text);
    }
    bv_init(&b, "gpt-2");
    assert_refused(&b.w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.merges' is missing");
    bv_init(&b, "gpt-2");
    gw_numbers(&b.w.file, "tokenizer.ggml.merges", 5, (int32_t[]){1, 2}, 2, 4);
    assert_refused(&b.w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.merges' is arr[i32], expected arr[str]");
}

static void an_unknown_family_of_words_lists_the_known_ones(void **state) {
    static bv b;
    (void)state;
    bv_init(&b, "klingon");
    bv_keys(&b);
    assert_refused(&b.w, MINIM_ERR_UNSUPPORTED,
                   "made.gguf: key 'tokenizer.ggml.pre' is \"klingon\"; minim knows: default, llama-bpe, ");
    bv_init(&b, NULL);
    bv_keys(&b);
    gw_u32(&b.w.file, "tokenizer.ggml.pre", 1);
    assert_refused(&b.w, MINIM_ERR_FORMAT, "made.gguf: key 'tokenizer.ggml.pre' is u32, expected str");
}

static void odd_merges_do_no_harm(void **state) {
    static bv b;
    static char longest[1200], long_merge[2402];
    vocab *v;
    (void)state;
    bv_init(&b, "gpt-2");
    const int32_t ab = bv_merge(&b, "a", "b", VOCAB_NORMAL);
    bv_merge(&b, "a", "b", VOCAB_NORMAL); /* twice: the first counts */
    memset(longest, 'c', sizeof longest - 1);
    memset(long_merge, 'c', sizeof longest);
    long_merge[600] = ' '; /* two halves of a long token, which are none */
    vw_add(&b.w, longest, VOCAB_NORMAL, 0);
    vw_add(&b.w, "\xe4\xb8\xad", VOCAB_NORMAL, 0); /* stands for no bytes */
    vw_add(&b.w, "", VOCAB_NORMAL, 0);
    vw_add(&b.w, "", VOCAB_CONTROL, 0);
    vw_add(&b.w, "a", VOCAB_NORMAL, 0); /* the second "a" */
    vw_add(&b.w, "\xff\xfe", VOCAB_NORMAL, 0);
    v = bv_open(&b);
    ASSERT_TOKENS(v, "ab\xe4\xb8\xad", 0, ab, 0xe4, 0xb8, 0xad);
    token_list l = tokens_of(v, longest, sizeof longest - 1, 0);
    assert_int_equal(l.n, sizeof longest - 1);
    token_list_free(&default_allocator, &l);
    for (int32_t i = 0; i < vocab_size(v); i++) {
        char piece[2000];
        vocab_piece(v, i, 1, 1, piece, sizeof piece);
    }
    vocab_free(v);
}

static void memory_may_fail_anywhere(void **state) {
    static const char text[] = "<|s|>abab  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xff<|<|s|>";
    static bv b;
    size_t n;
    uint8_t *image;
    gguf_file *f;
    int done = 0;
    (void)state;
    bv_init(&b, "starcoder");
    bv_merge(&b, "a", "b", VOCAB_NORMAL);
    bv_merge(&b, "a", "a", VOCAB_NORMAL);
    vw_add(&b.w, "<|s|>", VOCAB_USER, 0);
    vw_add(&b.w, "<|<|", VOCAB_USER, 0);
    b.w.type[0xff] = VOCAB_UNUSED;
    bv_keys(&b);
    image = vw_image(&b.w, &n);
    assert_int_equal(gguf_open(NULL, "made.gguf", image, n, &f, NULL), MINIM_OK);
    for (size_t at = 1; !done; at++) {
        count_allocator counter = {.fail_at = at};
        const minim_allocator a = count_allocator_get(&counter);
        vocab *v = NULL;
        token_list l = {0};
        minim_status status = vocab_new(&a, f, &v, NULL);
        if (!status) status = vocab_tokenize(v, &a, text, sizeof text - 1, 0, &l, NULL);
        done = counter.calls < at;
        assert_int_equal(status, done ? MINIM_OK : MINIM_ERR_MEMORY);
        if (!done) assert_int_equal(l.n, 0);
        token_list_free(&a, &l);
        vocab_free(v);
        assert_true(count_allocator_clean(&counter));
        assert_true(at < 200);
    }
    gguf_close(f);
    free(image);
    vw_free(&b.w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_cut_as_the_regular_expressions_say),
        cmocka_unit_test(every_name_of_a_kind_is_found),
        cmocka_unit_test(cutting_takes_linear_time),
        cmocka_unit_test(any_bytes_are_cut),
        cmocka_unit_test(merging_follows_the_list),
        cmocka_unit_test(a_word_that_is_a_token_is_taken_whole_only_where_the_family_does_so),
        cmocka_unit_test(any_bytes_come_back),
        cmocka_unit_test(a_byte_without_a_token_is_left_out_or_u_fffd),
        cmocka_unit_test(no_text_becomes_a_special_token_by_merging),
        cmocka_unit_test(a_megabyte_of_anything_takes_no_time),
        cmocka_unit_test(bos_follows_the_family_and_the_file),
        cmocka_unit_test(the_longest_special_token_is_cut_first),
        cmocka_unit_test(overlapping_special_tokens_follow_the_definition),
        cmocka_unit_test(a_megabyte_of_special_tokens_takes_no_time),
        cmocka_unit_test(end_tokens_are_a_set_in_a_fixed_order),
        cmocka_unit_test(damaged_merges_are_refused),
        cmocka_unit_test(an_unknown_family_of_words_lists_the_known_ones),
        cmocka_unit_test(odd_merges_do_no_harm),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests_name("vocab_bpe", tests, NULL, NULL);
}
