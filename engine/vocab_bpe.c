/* vocab_bpe.c: byte-level BPE (Radford et al. 2019, GPT-2): text is cut into words (vocab_split.h); inside a word,
 * which begins as single bytes, the pair of neighbours that stands first in the list of merges is joined, until no pair
 * does.
 *
 *   - In the file each byte is written as a printable character ("Ġ" is a space). Loading turns the texts back into
 *     bytes; what is not written so (some added tokens) is never the result of a merge.
 *   - Merges are looked up by the two tokens, in a hash table of numbers.
 *   - Most words are tokens. For which of them the merges end at that very token is found out when loading, by merging;
 *     afterwards such a word is one look-up. */
#include "vocab_impl.h"
#include "vocab_split.h"

#include <string.h>

enum { BPE_MAX_WORD = 256 }; /* bytes of a token that may be known as a word */

typedef struct bpe_merge {
    uint64_t key; /* left and right token, each + 1; 0 = free */
    uint32_t rank;
    int32_t id;
} bpe_merge;

struct vocab_bpe {
    const split_kind *split;
    vocab_table table; /* normal tokens by their bytes. entry.rank = 1: as a word, the text is this token */
    bpe_merge *merge;  /* [n_merges], n_merges = 2^(64 - shift) */
    size_t n_merges;
    int shift;
    int lacks_bytes; /* some byte has no token */
};

/* ---- bytes as characters ---------------------------------------------------------------------------------------- */

/* The byte that GPT-2 writes as this character, -1 if it is none. Printable bytes are themselves, the others have the
 * characters from U+0100 on, in order. */
static int bpe_byte_of(uint32_t code) {
    if ((code >= 33 && code <= 126) || (code >= 161 && code <= 172) || (code >= 174 && code <= 255)) return (int)code;
    if (code >= 256 && code <= 288) return (int)code - 256;
    if (code >= 289 && code <= 322) return (int)code - 289 + 127;
    return code == 323 ? 173 : -1;
}

/* Writes the bytes that text[n] stands for, at most n; returns how many, 0 if there is a character that is no byte. */
static size_t bpe_read_text(const char *text, size_t n, char *out) {
    size_t written = 0, length;
    for (size_t i = 0; i < n; i += length) {
        const int byte = bpe_byte_of(unicode_decode(text + i, n - i, &length));
        if (byte < 0) return 0;
        out[written++] = (char)byte;
    }
    return written;
}

int vocab_bpe_byte_value(const char *text, size_t n) {
    size_t length = 0;
    const int byte = n ? bpe_byte_of(unicode_decode(text, n, &length)) : -1;
    return length == n ? byte : -1;
}

/* ---- loading ---------------------------------------------------------------------------------------------------- */

static int bpe_is_byte(const vocab *v, int32_t token) {
    size_t n;
    const char *text = vocab_bytes(v, token, &n);
    const int byte = vocab_bpe_byte_value(text, n);
    return byte >= 0 && v->byte[byte] == token;
}

static minim_status bpe_fill_table(const vocab *v, vocab_table *t, unsigned is_word, const char *path, minim_error *e) {
    uint32_t used = 0;
    uint64_t probes = 0;
    for (int32_t i = 0; i < v->n; i++) {
        size_t n;
        const char *text = vocab_bytes(v, i, &n);
        t->at[i] = used;
        if (v->type[i] == VOCAB_NORMAL || bpe_is_byte(v, i)) used += (uint32_t)bpe_read_text(text, n, t->text + used);
    }
    t->at[v->n] = used;
    for (int32_t i = 0; i < v->n; i++) {
        if (t->at[i + 1] > t->at[i]) vocab_table_add(t, i, is_word, &probes);
        if (probes > vocab_probe_limit((uint64_t)v->n)) return vocab_collision(path, "tokens", e);
    }
    return MINIM_OK;
}

/* The merge of this key, or the free entry where it belongs. */
static inline bpe_merge *bpe_find_merge(const vocab_bpe *bpe, uint64_t key, uint64_t *probes) {
    const uint64_t hash = (key ^ key >> 32) * 0x9e3779b97f4a7c15;
    for (size_t i = (size_t)(hash >> bpe->shift);; i++) {
        bpe_merge *merge = &bpe->merge[i & (bpe->n_merges - 1)];
        ++*probes;
        if (merge->key == key || merge->key == 0) return merge;
    }
}

static inline uint64_t bpe_key(int32_t left, int32_t right) {
    return ((uint64_t)left + 1) << 32 | ((uint64_t)right + 1);
}

/* "left right": both and what they give together must be tokens. joined has room for the text. */
static minim_status bpe_add_merge(const vocab *v, vocab_bpe *bpe, gguf_str s, uint32_t rank, char *joined,
                                  uint64_t *probes, const char *path, minim_error *e) {
    const char *space = s.n > 1 ? memchr(s.s + 1, ' ', s.n - 1) : NULL;
    const size_t n = space ? (size_t)(space - s.s) : 0;
    int32_t left, right, id;
    bpe_merge *merge;
    if (!space)
        return err_set(e, MINIM_ERR_FORMAT,
                       "%s: key 'tokenizer.ggml.merges': merge %lu is \"%.*s\", expected two tokens with a space "
                       "between them",
                       path, (unsigned long)rank, (int)(s.n < 64 ? s.n : 64), s.s);
    memcpy(joined, s.s, n);
    memcpy(joined + n, space + 1, s.n - n - 1);
    left = vocab_find_counted(v, s.s, n, probes);
    right = vocab_find_counted(v, space + 1, s.n - n - 1, probes);
    id = vocab_find_counted(v, joined, s.n - 1, probes);
    if (left < 0 || right < 0 || id < 0)
        return err_set(e, MINIM_ERR_FORMAT,
                       "%s: key 'tokenizer.ggml.merges': merge %lu is \"%.*s\", but %s is no token", path,
                       (unsigned long)rank, (int)(s.n < 64 ? s.n : 64), s.s,
                       left < 0    ? "the left part"
                       : right < 0 ? "the right part"
                                   : "the two together");
    if (v->type[id] != VOCAB_NORMAL) return MINIM_OK; /* no text becomes a special token by merging */
    merge = bpe_find_merge(bpe, bpe_key(left, right), probes);
    if (!merge->key) *merge = (bpe_merge){bpe_key(left, right), rank, id};
    return MINIM_OK;
}

static minim_status bpe_read_merges(const vocab *v, vocab_bpe *bpe, const gguf_file *f, minim_error *e) {
    const char *const key = "tokenizer.ggml.merges";
    const gguf_value *merges;
    const gguf_str *s;
    size_t longest = 0;
    uint64_t probes = 0;
    char *joined;
    int bits = 4;
    minim_status status = gguf_get_array(f, key, GGUF_STR, &merges, NULL, e);
    if (status) return status;
    if (merges->count > INT32_MAX)
        return err_set(e, MINIM_ERR_FORMAT, "%s: key '%s' has %llu entries, expected at most %d", gguf_path(f), key,
                       (unsigned long long)merges->count, INT32_MAX);
    s = merges->data;
    for (uint64_t i = 0; i < merges->count; i++)
        if (s[i].n > longest) longest = s[i].n;
    while ((uint64_t)1 << bits < merges->count + merges->count / 2) bits++;
    bpe->shift = 64 - bits;
    bpe->n_merges = (size_t)1 << bits;
    bpe->merge = mem_zalloc(&v->allocator, bpe->n_merges, sizeof *bpe->merge);
    joined = mem_alloc(&v->allocator, longest, 1);
    if (!bpe->merge || !joined) status = err_memory(e, "the merges", bpe->n_merges * sizeof *bpe->merge + longest);
    for (uint64_t i = 0; i < merges->count && !status; i++) {
        status = bpe_add_merge(v, bpe, s[i], (uint32_t)i, joined, &probes, gguf_path(f), e);
        if (!status && probes > vocab_probe_limit(4 * i)) status = vocab_collision(gguf_path(f), "merges", e);
    }
    mem_free(&v->allocator, joined, longest, 1);
    return status;
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

static int bpe_find(const merge_fragment *f, const merge_symbol *left, const merge_symbol *right, uint32_t *rank,
                    int32_t *id) {
    uint64_t probes = 0;
    const bpe_merge *merge;
    if (left->id < 0 || right->id < 0) return 0;
    merge = bpe_find_merge(f->table, bpe_key(left->id, right->id), &probes);
    *rank = merge->rank;
    *id = merge->id;
    return merge->key != 0;
}

/* Merges a word; the symbols are in f->w. */
static int bpe_merge_word(const vocab *v, merge_fragment *f, const char *word, size_t n) {
    f->n_symbols = 0;
    for (size_t i = 0; i < n; i++)
        if (merge_append(f, (uint32_t)i, 1, v->byte[(unsigned char)word[i]])) return -1;
    return merge_run(f);
}

/* Notes which tokens are what the merges make of their text. */
static int bpe_note_words(const vocab *v, vocab_bpe *bpe) {
    merge_work w = {.allocator = &v->allocator};
    merge_fragment f = {.find = bpe_find, .table = bpe, .w = &w};
    int failed = 0;
    for (size_t i = 0; i < bpe->table.n_entries && !failed; i++) {
        vocab_entry *entry = &bpe->table.entry[i];
        const uint32_t at = entry->key ? bpe->table.at[entry->id] : 0;
        const uint32_t n = entry->key ? bpe->table.at[entry->id + 1] - at : 0;
        if (n == 0 || n > BPE_MAX_WORD) continue;
        failed = bpe_merge_word(v, &f, bpe->table.text + at, n);
        if (!failed) entry->rank = w.symbol->id == entry->id && w.symbol->n == n;
    }
    merge_work_free(&w);
    return failed;
}

minim_status vocab_bpe_new(const vocab *v, const gguf_file *f, const split_kind *split, vocab_bpe **out,
                           minim_error *e) {
    const unsigned whole_words = split->flags & SPLIT_WHOLE_WORDS;
    vocab_bpe *bpe = mem_zalloc(&v->allocator, 1, sizeof *bpe);
    minim_status status = MINIM_OK;
    if (!bpe || vocab_table_new(&bpe->table, &v->allocator, (size_t)v->n, v->text_bytes))
        status = err_memory(e, "the table of tokens", (uint64_t)v->n * 2 * sizeof(vocab_entry) + v->text_bytes);
    if (!status) {
        bpe->split = split;
        for (int b = 0; b < 256; b++) bpe->lacks_bytes |= v->byte[b] < 0;
        status = bpe_fill_table(v, &bpe->table, whole_words, gguf_path(f), e);
    }
    if (!status) status = bpe_read_merges(v, bpe, f, e);
    if (!status && !whole_words && bpe_note_words(v, bpe)) status = err_memory(e, "the words", BPE_MAX_WORD);
    if (status) {
        vocab_bpe_free(v, bpe);
        bpe = NULL;
    }
    *out = bpe;
    return status;
}

void vocab_bpe_free(const vocab *v, vocab_bpe *bpe) {
    if (!bpe) return;
    vocab_table_free(&bpe->table, &v->allocator);
    mem_free(&v->allocator, bpe->merge, bpe->n_merges, sizeof *bpe->merge);
    mem_free(&v->allocator, bpe, 1, sizeof *bpe);
}

/* ---- the way in and out ----------------------------------------------------------------------------------------- */

static int bpe_encode_word(const vocab *v, merge_fragment *f, const char *word, size_t n, token_list *out) {
    const vocab_table *t = &v->bpe->table;
    const minim_allocator *a = f->w->allocator;
    uint64_t probes = 0;
    if (n == 1) return vocab_push_byte(v, a, out, (unsigned char)*word);
    if (n <= t->longest) {
        const vocab_entry *entry = vocab_table_find(t, word, (uint32_t)n, &probes);
        if (entry->key && entry->rank) return token_list_push(a, out, entry->id);
    }
    if (bpe_merge_word(v, f, word, n)) return -1;
    for (uint32_t i = 0; i != MERGE_NONE; i = f->w->symbol[i].next) {
        const merge_symbol *s = &f->w->symbol[i];
        if (s->id >= 0 ? token_list_push(a, out, s->id) : vocab_push_byte(v, a, out, (unsigned char)word[s->at]))
            return -1;
    }
    return 0;
}

/* Replaces bytes that are no UTF-8 and have no token by U+FFFD. A byte of a character that has no token stays: words
 * are cut around it as around any other, nothing is merged with it, and in the end the unknown token stands for it, or
 * nothing where there is none (as in llama.cpp: Falcon has no vertical tab, StarCoder no byte F1). */
static int bpe_replace_bytes(const vocab *v, vocab_work *w) {
    const char *from = w->text + VOCAB_WORK_BEFORE;
    size_t missing = 0, n = w->n, length;
    for (size_t i = 0; i < n; i++) missing += v->byte[(unsigned char)from[i]] < 0;
    if (!missing) return 0; /* most often */
    missing = 0;
    for (size_t i = 0; i < n; i += length ? length : 1) {
        length = utf8_length(from + i, n - i);
        missing += !length && v->byte[(unsigned char)from[i]] < 0;
    }
    if (!missing) return 0;
    if (mem_grow(w->merge.allocator, &w->text, &w->capacity, VOCAB_WORK_BEFORE + n + 2 * missing + VOCAB_WORK_BEHIND,
                 1))
        return -1;
    char *to = w->text + VOCAB_WORK_BEFORE, *end = to + n + 2 * missing;
    memmove(end - n, to, n);
    from = end - n;
    for (; from < end; from += length) { /* it is never behind `to` */
        length = utf8_length(from, (size_t)(end - from));
        const int stray = !length;
        if (stray) length = 1;
        if (stray && v->byte[(unsigned char)*from] < 0) {
            *to++ = '\xef', *to++ = '\xbf', *to++ = '\xbd';
        } else {
            memmove(to, from, length);
            to += length;
        }
    }
    w->n += 2 * missing;
    return 0;
}

int vocab_bpe_encode(const vocab *v, vocab_work *w, token_list *out) {
    if (v->bpe->lacks_bytes && bpe_replace_bytes(v, w)) return -1;
    char *text = w->text + VOCAB_WORK_BEFORE;
    split_reader reader = split_begin(v->bpe->split, text, w->n);
    merge_fragment f = {.find = bpe_find, .table = v->bpe, .w = &w->merge};
    size_t at = 0, n;
    memset(text + w->n, 0, VOCAB_WORK_BEHIND);
    for (; (n = split_next(&reader)); at += n)
        if (bpe_encode_word(v, &f, text + at, n, out)) return -1;
    return 0;
}

const char *vocab_bpe_piece(const vocab *v, int32_t token, size_t *n) {
    const vocab_table *t = &v->bpe->table;
    *n = t->at[token + 1] - t->at[token];
    return *n ? t->text + t->at[token] : vocab_bytes(v, token, n);
}
