/* learn_grams.c: a prompt as a set of hashed n-grams (Weinberger et al. 2009: no vocabulary has to be kept). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "learn_model.h"

/* A word character; bytes of longer UTF-8 characters count as letters. */
static int grams_is_word(unsigned char c) {
    return c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static uint64_t grams_mix(uint64_t hash, unsigned char c) {
    if (c >= 'A' && c <= 'Z') c = (unsigned char)(c + 32);
    if (c >= '0' && c <= '9') c = '0'; /* the shape of a number says more than its value */
    return (hash ^ c) * 0x100000001b3; /* FNV-1a, 64 bits */
}

static uint32_t grams_fold(uint64_t hash) {
    hash ^= hash >> 32; /* the low bits of FNV mix worst */
    hash *= 0x9e3779b97f4a7c15;
    return (uint32_t)(hash >> (64 - LEARN_HASH_BITS));
}

/* Takes one word, number or sign off the text at *at; its length, 0 at the end. */
static size_t grams_next(const char *text, size_t n, size_t *at) {
    while (*at < n && (unsigned char)text[*at] <= ' ') ++*at;
    size_t end = *at;
    if (end == n) return 0;
    do end++;
    while (end < n && grams_is_word((unsigned char)text[end - 1]) && grams_is_word((unsigned char)text[end]));
    return end - *at;
}

uint32_t learn_prompt_hash(const char *prompt, size_t n_bytes) {
    uint64_t hash = 0xcbf29ce484222325;
    size_t n = n_bytes < 65536 ? n_bytes : 65536; /* no two prompts differ only behind that */
    for (size_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)prompt[i]) * 0x100000001b3;
    return (uint32_t)((hash ^ hash >> 32) * 0x9e3779b97f4a7c15 >> 32);
}

static int grams_compare(const void *a, const void *b) {
    const learn_gram *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return (x->start > y->start) - (x->start < y->start); /* the first place stands for the others */
}

size_t learn_grams(const char *text, size_t n, learn_gram *grams) {
    const uint64_t basis = 0xcbf29ce484222325;
    size_t n_grams = 0, i = 0, last_start = 0;
    uint64_t last = 0;
    if (n > UINT32_MAX) n = UINT32_MAX;
    for (int words = 0; words < LEARN_MAX_WORDS; words++) {
        size_t length = grams_next(text, n, &i), start = i;
        if (!length) break;
        uint64_t hash = basis;
        while (i < start + length) hash = grams_mix(hash, (unsigned char)text[i++]);
        grams[n_grams++] = (learn_gram){grams_fold(hash), (uint32_t)start, (uint32_t)(i - start)};
        if (words) {
            uint64_t pair = last * 0x100000001b3 ^ (hash + 0x9e3779b97f4a7c15);
            grams[n_grams++] = (learn_gram){grams_fold(pair), (uint32_t)last_start, (uint32_t)(i - last_start)};
        }
        last = hash;
        last_start = start;
    }
    qsort(grams, n_grams, sizeof *grams, grams_compare);
    size_t distinct = 0;
    for (size_t k = 0; k < n_grams; k++) {
        if (!distinct || grams[k].hash != grams[distinct - 1].hash) grams[distinct++] = grams[k];
    }
    return distinct;
}

void learn_shape(const char *text, size_t n, double *shape) {
    double words = 0, numbers = 0, signs = 0, lines = 0, sentences = 0, letters = 0;
    size_t at = 0, length;
    for (int i = 0; i < LEARN_MAX_WORDS && (length = grams_next(text, n, &at)); i++, at += length) {
        unsigned char c = (unsigned char)text[at];
        if (c >= '0' && c <= '9') {
            numbers++;
        } else if (grams_is_word(c)) {
            words++;
            letters += (double)length;
        } else {
            signs++;
            sentences += c == '.' || c == '?' || c == '!';
        }
    }
    for (size_t i = 0; i < at && i < n; i++) lines += text[i] == '\n';
    const double all[LEARN_SHAPES] = {log1p(words), log1p(numbers),   log1p(signs),
                                      log1p(lines), log1p(sentences), words > 0 ? letters / words : 0};
    for (int i = 0; i < LEARN_SHAPES; i++) shape[i] = all[i];
}
