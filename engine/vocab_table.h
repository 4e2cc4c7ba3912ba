/* vocab_table.h: a hash table from bytes to tokens, for the hot path of tokenizing.
 *
 * A text of up to seven bytes is itself the key, with its length in the top byte, so most look-ups compare one 64-bit
 * number; a longer one has its hash there, with the top bit set, and is compared. */
#ifndef ENGINE_VOCAB_TABLE_H
#define ENGINE_VOCAB_TABLE_H

#include "base.h"

#include <string.h>

enum { VOCAB_WORK_BEHIND = 8 }; /* bytes behind a text that may be read (not used): it is loaded eight at a time */

typedef struct vocab_entry {
    uint64_t key; /* 0 = free */
    int32_t id;
    uint32_t rank; /* SentencePiece: order of the score, 0 = best; equal scores have equal ranks */
} vocab_entry;

typedef struct vocab_table {
    size_t n_entries;
    vocab_entry *entry; /* [n_entries], n_entries = 2^(64 - shift) */
    int shift;
    uint32_t longest; /* bytes of the longest text in it */
    size_t n_tokens, text_bytes;
    char *text;   /* [text_bytes]: the texts, one after another, and VOCAB_WORK_BEHIND bytes */
    uint32_t *at; /* [n_tokens + 1]: text i is text[at[i]..at[i+1]); empty if no text may give the token */
} vocab_table;

/* Memory for n_tokens texts that take text_bytes; 0 or -1. The caller fills text and at, then adds tokens. */
int vocab_table_new(vocab_table *t, const minim_allocator *a, size_t n_tokens, size_t text_bytes);
void vocab_table_free(vocab_table *t, const minim_allocator *a);
/* Adds a token that has a text, unless there is one with the same text. *probes counts the entries looked at. Returns
 * whether it was added. */
int vocab_table_add(vocab_table *t, int32_t id, uint32_t rank, uint64_t *probes);

static inline uint64_t vocab_table_mix(uint64_t h, uint64_t word) {
    h = (h ^ word) * 0xff51afd7ed558ccd;
    return h ^ h >> 32;
}

/* The first n bytes of text, 1..8, as a number; eight may be read. */
static inline uint64_t vocab_table_word(const char *text, uint32_t n) {
    uint64_t word;
    memcpy(&word, text, 8);
    return word & UINT64_MAX >> (64 - 8 * n);
}

/* The key of text[n], n > 0, with VOCAB_WORK_BEHIND readable bytes behind it. */
static inline uint64_t vocab_table_key(const char *text, uint32_t n) {
    uint64_t h = n;
    if (n < 8) return vocab_table_word(text, n) | (uint64_t)n << 56;
    for (; n > 8; n -= 8, text += 8) h = vocab_table_mix(h, vocab_table_word(text, 8));
    return vocab_table_mix(h, vocab_table_word(text, n)) | (uint64_t)1 << 63;
}

/* The entry with this text, or the free one where it belongs. */
static inline vocab_entry *vocab_table_find(const vocab_table *t, const char *text, uint32_t n, uint64_t *probes) {
    const uint64_t key = vocab_table_key(text, n);
    for (size_t i = (size_t)(key * 0x9e3779b97f4a7c15 >> t->shift);; i++) {
        vocab_entry *entry = &t->entry[i & (t->n_entries - 1)];
        ++*probes;
        if (entry->key == 0) return entry;
        if (entry->key != key) continue;
        if (n < 8) return entry;
        if (t->at[entry->id + 1] - t->at[entry->id] == n && memcmp(t->text + t->at[entry->id], text, n) == 0)
            return entry;
    }
}

#endif
