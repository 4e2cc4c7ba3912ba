/* fuzz_vocab.c: any bytes as a text and as a vocabulary, for libFuzzer. The first byte chooses:
 *
 *   - 0..127: the rest is a text for the vocabulary of models/stories260K.gguf. Tokenized, it must come back; it also
 *     goes through as two spans of a prompt, through the stream that holds stop strings back, and through the cutting
 *     into words of one family.
 *   - 128..255: the rest is a GGUF file. What loads as a vocabulary must tokenize and print all of its own texts.
 *
 * From the root of the repository:
 *
 *     clang -std=c11 -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
 *         tests/fuzz_vocab.c engine/base.c engine/gguf*.c $(ls engine/vocab*.c | grep -v _api) engine/unicode.c \
 *         engine/text.c $(find build/kernels -name '*.o') -lm -o build/fuzz_vocab
 *     mkdir -p build/corpus_vocab && build/fuzz_vocab -max_total_time=300 -max_len=4096 build/corpus_vocab
 */
#include "../engine/text.h"
#include "../engine/vocab_split.h"
#include "count_allocator.h"
#include "vocab_writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int condition) {
    if (!condition) __builtin_trap();
}

/* Appends the pieces of the tokens; returns their length. */
static size_t fuzz_print(const vocab *v, const token_list *l, int special, char *out, size_t capacity) {
    size_t n = 0;
    int at_start = 1;
    for (size_t i = 0; i < l->n; i++) {
        const size_t used = n < capacity ? n : capacity;
        n += vocab_piece(v, l->token[i], special, at_start, out + used, capacity - used);
        at_start = vocab_next_at_start(v, l->token[i], special, at_start);
    }
    return n;
}

static void fuzz_stream(const char *text, size_t n, size_t step) {
    static const char *const stop[] = {"ab", "aab", "\xe2\x82\xac", "b b b"};
    text_stream *t;
    const char *ready;
    size_t n_ready;
    int stopped;
    must(!text_new(NULL, stop, 4, &t, NULL));
    for (size_t i = 0; i < n; i += step) {
        must(!text_push(t, text + i, step < n - i ? step : n - i, &ready, &n_ready, &stopped, NULL));
        for (size_t k = 0; k < n_ready; k += utf8_length(ready + k, n_ready - k))
            must(utf8_length(ready + k, n_ready - k) > 0);
    }
    must(!text_finish(t, &ready, &n_ready, NULL));
    text_free(t);
}

/* Words are never empty, and together they are the text. */
static void fuzz_split(const char *text, size_t n, unsigned choice) {
    char names[512], *name;
    size_t total = 0, length, n_names = 1;
    split_reader r;
    split_list(names, sizeof names);
    for (name = names; (name = strstr(name, ", ")); name++) n_names++;
    name = names;
    for (unsigned i = 0; i < choice % n_names; i++) name = strstr(name, ", ") + 2;
    r = split_begin(split_find(name, strcspn(name, ",")), text, n);
    while ((length = split_next(&r))) total += length;
    must(total == n);
}

static void fuzz_text(const char *text, size_t n, unsigned choice) {
    static vocab *v;
    count_allocator counter = {0};
    const minim_allocator a = count_allocator_get(&counter);
    const unsigned flags = choice & (MINIM_ADD_SPECIAL | MINIM_PARSE_SPECIAL);
    const size_t half = n / 2;
    const vocab_span spans[] = {{VOCAB_SPAN_SPECIAL, 0, text, half}, {VOCAB_SPAN_SEALED, 0, text + half, n - half}};
    token_list l = {0};
    char *back = malloc(n + 64);
    gguf_file *f;
    if (!v) {
        must(!gguf_open(NULL, "models/stories260K.gguf", NULL, 0, &f, NULL));
        must(!vocab_new(NULL, f, &v, NULL));
        gguf_close(f);
    }
    must(!vocab_tokenize(v, &a, text, n, flags, &l, NULL));
    must(l.n <= n + 4);
    if (!(flags & MINIM_PARSE_SPECIAL) && !memmem(text, n, "\xe2\x96\x81", 3))
        must(fuzz_print(v, &l, 0, back, n + 64) == n && memcmp(back, text, n) == 0);
    l.n = 0;
    must(!vocab_tokenize_spans(v, &a, spans, 2, &l, NULL));
    token_list_free(&a, &l);
    must(count_allocator_clean(&counter));
    fuzz_stream(text, n, 1 + choice / 4);
    fuzz_split(text, n, choice / 4);
    free(back);
}

static void fuzz_vocabulary(const void *data, size_t size, unsigned choice) {
    /* The choice also says which allocation fails: most often none. */
    count_allocator counter = {.fail_at = choice > 200 ? choice - 200 : 0};
    const minim_allocator a = count_allocator_get(&counter);
    gguf_file *f = NULL;
    vocab *v = NULL;
    token_list l = {0};
    char piece[256];
    if (!gguf_open(NULL, "fuzz", data, size, &f, NULL) && !vocab_new(&a, f, &v, NULL)) {
        for (int32_t i = 0; i < vocab_size(v); i++) {
            size_t n;
            const char *text = vocab_text(v, i, &n);
            l.n = 0;
            vocab_tokenize(v, &a, text, n, choice % 4, &l, NULL);
            for (size_t k = 0; k < l.n; k++) must(l.token[k] >= 0 && l.token[k] < vocab_size(v));
            fuzz_print(v, &l, choice & 1, piece, sizeof piece);
        }
    }
    token_list_free(&a, &l);
    vocab_free(v);
    gguf_close(f);
    must(count_allocator_clean(&counter));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    if (data[0] < 128)
        fuzz_text((const char *)data + 1, size - 1, data[0]);
    else
        fuzz_vocabulary(data + 1, size - 1, data[0]);
    return 0;
}
