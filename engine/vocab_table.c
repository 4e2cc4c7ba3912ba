/* vocab_table.c: see vocab_table.h. */
#include "vocab_table.h"

int vocab_table_new(vocab_table *t, const minim_allocator *a, size_t n_tokens, size_t text_bytes) {
    int bits = 4;
    while ((size_t)1 << bits < 2 * n_tokens) bits++;
    *t = (vocab_table){.shift = 64 - bits, .n_tokens = n_tokens, .n_entries = (size_t)1 << bits};
    t->text_bytes = text_bytes + VOCAB_WORK_BEHIND;
    t->entry = mem_zalloc(a, t->n_entries, sizeof *t->entry);
    t->text = mem_zalloc(a, t->text_bytes, 1);
    t->at = mem_alloc(a, n_tokens + 1, sizeof *t->at);
    return t->entry && t->text && t->at ? 0 : -1;
}

void vocab_table_free(vocab_table *t, const minim_allocator *a) {
    mem_free(a, t->entry, t->n_entries, sizeof *t->entry);
    mem_free(a, t->text, t->text_bytes, 1);
    mem_free(a, t->at, t->n_tokens + 1, sizeof *t->at);
}

int vocab_table_add(vocab_table *t, int32_t id, uint32_t rank, uint64_t *probes) {
    const char *text = t->text + t->at[id];
    const uint32_t n = t->at[id + 1] - t->at[id];
    vocab_entry *entry = vocab_table_find(t, text, n, probes);
    if (entry->key) return 0;
    *entry = (vocab_entry){vocab_table_key(text, n), id, rank};
    if (n > t->longest) t->longest = n;
    return 1;
}
