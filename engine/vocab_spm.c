/* vocab_spm.c: SentencePiece BPE (Kudo & Richardson 2018): of all neighbouring pairs whose joined text is a token,
 * merge the one with the best score, the leftmost of equal ones, until none is left.
 *
 *   - A space is one byte here: "▁" becomes ' ' in the tokens and in the text, so most tokens fit in a 64-bit number
 *     and are compared at once.
 *   - The text is cut wherever no token contains the two characters that meet, usually before each word. No merge can
 *     reach across such a place, and merges left and right of it do not touch each other, so every fragment is merged
 *     by itself: the result is the same, and the heap stays small.
 *   - Inside a fragment a heap gives the best pair: O(n log n), also for a megabyte of one letter. */
#include "vocab_impl.h"

#include <math.h>
#include <string.h>

/* A token in the hash table. A text of up to seven bytes is itself the key, with its length in the top byte; a longer
 * one has its hash there, with the top bit set, and must be compared. */
typedef struct spm_entry {
    uint64_t key; /* 0 = free */
    int32_t id;
    uint32_t rank; /* order of the score, 0 = best; equal scores have equal ranks */
} spm_entry;

struct vocab_spm {
    size_t n_entries;
    spm_entry *entry; /* [n_entries], n_entries = 2^(64 - shift) */
    int shift;
    uint32_t longest; /* bytes of the longest text */
    size_t text_bytes;
    char *text;             /* texts with ' ' for "▁", one after another, and VOCAB_WORK_BEHIND bytes */
    uint32_t *at;           /* [tokens + 1]: text i is text[at[i]..at[i + 1]); empty if no merge may give the token */
    uint64_t joins[256][4]; /* bit b of joins[a]: in some text a character that ends with byte a is followed by one that
                               begins with byte b */
};

/* A character, or several that have been merged. */
typedef struct spm_symbol {
    uint32_t at, n;      /* bytes of the fragment; n = 0: merged into the one before */
    uint32_t prev, next; /* neighbours, SPM_NONE at the ends */
    int32_t id;          /* the token, -1 = not looked up */
} spm_symbol;

#define SPM_NONE UINT32_MAX

/* A possible merge of a symbol with its right neighbour. */
typedef struct spm_pair {
    uint64_t order; /* rank, then index of the left symbol: the smallest is merged first */
    uint32_t n;     /* bytes of both. When they differ as its turn comes, one of the two has changed */
    int32_t id;
} spm_pair;

/* ---- the table -------------------------------------------------------------------------------------------------- */

static inline uint64_t spm_mix(uint64_t h, uint64_t word) {
    h = (h ^ word) * 0xff51afd7ed558ccd;
    return h ^ h >> 32;
}

/* The first n bytes of text, 1..8, as a number; eight may be read. */
static inline uint64_t spm_word(const char *text, uint32_t n) {
    uint64_t word;
    memcpy(&word, text, 8);
    return word & UINT64_MAX >> (64 - 8 * n);
}

/* The key of text[n], n > 0, with VOCAB_WORK_BEHIND readable bytes behind it. */
static inline uint64_t spm_key(const char *text, uint32_t n) {
    uint64_t h = n;
    if (n < 8) return spm_word(text, n) | (uint64_t)n << 56;
    for (; n > 8; n -= 8, text += 8) h = spm_mix(h, spm_word(text, 8));
    return spm_mix(h, spm_word(text, n)) | (uint64_t)1 << 63;
}

/* The entry with this text, or the free one where it belongs. *probes counts the entries looked at. */
static inline spm_entry *spm_find(const vocab_spm *spm, const char *text, uint32_t n, uint64_t *probes) {
    const uint64_t key = spm_key(text, n);
    for (size_t i = (size_t)(key * 0x9e3779b97f4a7c15 >> spm->shift);; i++) {
        spm_entry *entry = &spm->entry[i & (spm->n_entries - 1)];
        ++*probes;
        if (entry->key == 0) return entry;
        if (entry->key != key) continue;
        if (n < 8) return entry;
        if (spm->at[entry->id + 1] - spm->at[entry->id] == n && memcmp(spm->text + spm->at[entry->id], text, n) == 0)
            return entry;
    }
}

/* Bytes of the character at text[n], n > 0. What is not UTF-8 counts byte by byte. */
static inline uint32_t spm_character(const char *text, size_t n) {
    size_t length;
    if ((unsigned char)*text < 0x80) return 1;
    length = utf8_length(text, n);
    return length ? (uint32_t)length : 1;
}

/* Replaces each "▁" by a space, in place; returns the new length. */
static size_t spm_short_spaces(char *text, size_t n) {
    const char *from = memchr(text, 0xe2, n), *const end = text + n;
    char *to = text + (from ? from - text : 0);
    if (!from) return n;
    while (from < end) {
        const int mark = end - from >= 3 && memcmp(from, VOCAB_SPACE_MARK, 3) == 0;
        *to++ = mark ? ' ' : *from;
        from += mark ? 3 : 1;
    }
    return (size_t)(to - text);
}

/* ---- loading ---------------------------------------------------------------------------------------------------- */

/* 1 if merges may give this token. Other user-defined tokens have been cut out before; a text with a real space can
 * not come up, because spaces are "▁" by then. */
static int spm_is_mergeable(const vocab *v, int32_t token) {
    size_t n;
    const char *text = vocab_bytes(v, token, &n);
    if (memchr(text, ' ', n)) return 0;
    if (v->type[token] == VOCAB_NORMAL) return 1;
    if (v->type[token] != VOCAB_USER) return 0;
    for (size_t i = 0; i + 3 <= n; i++)
        if (memcmp(text + i, VOCAB_SPACE_MARK, 3) == 0) return 1;
    return 0;
}

static void spm_copy_texts(const vocab *v, vocab_spm *spm) {
    uint32_t used = 0;
    for (int32_t i = 0; i < v->n; i++) {
        size_t n;
        const char *text = vocab_bytes(v, i, &n);
        spm->at[i] = used;
        if (!spm_is_mergeable(v, i)) continue;
        memcpy(spm->text + used, text, n);
        used += (uint32_t)spm_short_spaces(spm->text + used, n);
    }
    spm->at[v->n] = used;
    memset(spm->text + used, 0, VOCAB_WORK_BEHIND);
}

static void spm_note_joins(vocab_spm *spm, const char *text, uint32_t n) {
    for (uint32_t i = spm_character(text, n); i < n; i += spm_character(text + i, n - i)) {
        const unsigned char a = (unsigned char)text[i - 1], b = (unsigned char)text[i];
        spm->joins[a][b / 64] |= (uint64_t)1 << b % 64;
    }
}

/* A score that is not a number counts as the worst, so that there is an order. */
static float spm_score(const float *scores, int32_t token) {
    return scores[token] == scores[token] ? scores[token] : -INFINITY;
}

static int spm_score_before(const void *context, int32_t a, int32_t b) {
    return spm_score(context, a) > spm_score(context, b);
}

/* Puts each text into the table once, with the rank of its score. ids[n] and scratch[n] are free to use. */
static minim_status spm_fill_table(const vocab *v, vocab_spm *spm, const float *scores, int32_t *ids, int32_t *scratch,
                                   const char *path, minim_error *e) {
    uint32_t rank = 0, *const ranks = (uint32_t *)scratch;
    uint64_t probes = 0;
    for (int32_t i = 0; i < v->n; i++) ids[i] = i;
    vocab_sort(ids, scratch, (size_t)v->n, spm_score_before, scores);
    for (int32_t i = 0; i < v->n; i++) {
        if (i > 0 && spm_score_before(scores, ids[i - 1], ids[i])) rank++;
        ranks[ids[i]] = rank;
    }
    for (int32_t i = 0; i < v->n; i++) {
        const char *text = spm->text + spm->at[i];
        const uint32_t n = spm->at[i + 1] - spm->at[i];
        spm_entry *entry;
        if (n == 0) continue;
        entry = spm_find(spm, text, n, &probes);
        if (probes > vocab_probe_limit(v->n))
            return err_set(e, MINIM_ERR_FORMAT, "%s: the texts in key 'tokenizer.ggml.tokens' are made to collide",
                           path);
        if (entry->key) continue;
        *entry = (spm_entry){spm_key(text, n), i, ranks[i]};
        if (n > spm->longest) spm->longest = n;
        spm_note_joins(spm, text, n);
    }
    return MINIM_OK;
}

/* Memory for n tokens; 0 or -1. */
static int spm_allocate(const vocab *v, vocab_spm *spm) {
    const minim_allocator *a = &v->allocator;
    int bits = 4;
    while ((size_t)1 << bits < 2 * (size_t)v->n) bits++;
    spm->shift = 64 - bits;
    spm->n_entries = (size_t)1 << bits;
    spm->text_bytes = v->text_bytes + VOCAB_WORK_BEHIND;
    spm->entry = mem_zalloc(a, spm->n_entries, sizeof *spm->entry);
    spm->text = mem_alloc(a, spm->text_bytes, 1);
    spm->at = mem_alloc(a, (size_t)v->n + 1, sizeof *spm->at);
    return spm->entry && spm->text && spm->at ? 0 : -1;
}

minim_status vocab_spm_new(const vocab *v, const float *scores, const char *path, vocab_spm **out, minim_error *e) {
    const minim_allocator *a = &v->allocator;
    const size_t n = (size_t)v->n;
    vocab_spm *spm = mem_zalloc(a, 1, sizeof *spm);
    int32_t *ids = mem_alloc(a, n, sizeof *ids), *scratch = mem_alloc(a, n, sizeof *scratch);
    minim_status status;
    if (spm && ids && scratch && !spm_allocate(v, spm)) {
        spm_copy_texts(v, spm);
        status = spm_fill_table(v, spm, scores, ids, scratch, path, e);
    } else {
        status = err_memory(e, "the table of merges", n * (2 * sizeof(spm_entry) + 4 * sizeof *ids));
    }
    mem_free(a, ids, n, sizeof *ids);
    mem_free(a, scratch, n, sizeof *scratch);
    if (status) {
        vocab_spm_free(v, spm);
        spm = NULL;
    }
    *out = spm;
    return status;
}

void vocab_spm_free(const vocab *v, vocab_spm *spm) {
    if (!spm) return;
    mem_free(&v->allocator, spm->entry, spm->n_entries, sizeof *spm->entry);
    mem_free(&v->allocator, spm->text, spm->text_bytes, 1);
    mem_free(&v->allocator, spm->at, (size_t)v->n + 1, sizeof *spm->at);
    mem_free(&v->allocator, spm, 1, sizeof *spm);
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

/* A fragment and the heap of its possible merges. */
typedef struct spm_fragment {
    const vocab_spm *spm;
    vocab_work *w;
    const char *text;
    uint32_t n_symbols;
    size_t n_pairs; /* w->pair[0..n_pairs) is a binary heap */
} spm_fragment;

static int spm_push(spm_fragment *f, spm_pair pair) {
    vocab_work *w = f->w;
    size_t i = f->n_pairs++;
    if (i == w->pair_capacity && mem_grow(w->allocator, &w->pair, &w->pair_capacity, i < 64 ? 64 : i + 1, sizeof pair))
        return -1;
    for (; i > 0 && w->pair[(i - 1) / 2].order > pair.order; i = (i - 1) / 2) w->pair[i] = w->pair[(i - 1) / 2];
    w->pair[i] = pair;
    return 0;
}

static spm_pair spm_pop(spm_fragment *f) {
    spm_pair *pair = f->w->pair, top = pair[0], last = pair[--f->n_pairs];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < f->n_pairs; i = child) {
        if (child + 1 < f->n_pairs && pair[child + 1].order < pair[child].order) child++;
        if (pair[child].order >= last.order) break;
        pair[i] = pair[child];
    }
    pair[i] = last;
    return top;
}

/* Puts the merge of symbol i with its right neighbour on the heap, if it gives a token. */
static inline int spm_consider(spm_fragment *f, uint32_t i) {
    const spm_symbol *left = &f->w->symbol[i];
    uint64_t probes = 0;
    const spm_entry *entry;
    uint32_t n;
    if (left->next == SPM_NONE) return 0;
    n = left->n + f->w->symbol[left->next].n;
    if (n > f->spm->longest) return 0;
    entry = spm_find(f->spm, f->text + left->at, n, &probes);
    if (entry->key == 0) return 0;
    return spm_push(f, (spm_pair){(uint64_t)entry->rank << 32 | i, n, entry->id});
}

static int spm_merge(spm_fragment *f) {
    spm_symbol *symbol = f->w->symbol;
    f->n_pairs = 0;
    for (uint32_t i = 0; i < f->n_symbols; i++)
        if (spm_consider(f, i)) return -1;
    while (f->n_pairs) {
        const spm_pair pair = spm_pop(f);
        spm_symbol *left = &symbol[(uint32_t)pair.order], *right;
        if (left->n == 0 || left->next == SPM_NONE) continue;
        right = &symbol[left->next];
        if (left->n + right->n != pair.n) continue;
        left->n = pair.n;
        left->id = pair.id;
        left->next = right->next;
        right->n = 0;
        if (left->next != SPM_NONE) symbol[left->next].prev = (uint32_t)pair.order;
        if (left->prev != SPM_NONE && spm_consider(f, left->prev)) return -1;
        if (spm_consider(f, (uint32_t)pair.order)) return -1;
    }
    return 0;
}

static int spm_push_bytes(const vocab *v, const minim_allocator *a, const char *text, size_t n, token_list *out) {
    for (size_t i = 0; i < n; i++)
        if (vocab_push_byte(v, a, out, (unsigned char)text[i])) return -1;
    return 0;
}

static int spm_emit(const vocab *v, const spm_fragment *f, token_list *out) {
    const minim_allocator *a = f->w->allocator;
    for (uint32_t i = 0; i != SPM_NONE; i = f->w->symbol[i].next) {
        const spm_symbol *s = &f->w->symbol[i];
        const char *text = f->text + s->at;
        const spm_entry *entry = NULL;
        uint64_t probes = 0;
        int failed;
        if (s->id < 0) entry = spm_find(f->spm, text, s->n, &probes);
        if (!entry || entry->key)
            failed = token_list_push(a, out, entry ? entry->id : s->id);
        else if (*text == ' ') /* SentencePiece spells its own mark, not the space */
            failed = spm_push_bytes(v, a, VOCAB_SPACE_MARK, 3, out);
        else
            failed = spm_push_bytes(v, a, text, s->n, out);
        if (failed) return -1;
    }
    return 0;
}

/* Reads the characters of text[n] up to the first place that no token reaches across. Returns the bytes read, 0 when
 * memory is short. */
static size_t spm_next_fragment(spm_fragment *f, size_t n) {
    vocab_work *w = f->w;
    size_t at = 0;
    unsigned char last, next;
    f->n_symbols = 0;
    do {
        const uint32_t i = f->n_symbols++, length = spm_character(f->text + at, n - at);
        if (i == w->symbol_capacity &&
            mem_grow(w->allocator, &w->symbol, &w->symbol_capacity, i < 64 ? 64 : (size_t)i + 1, sizeof *w->symbol))
            return 0;
        w->symbol[i] = (spm_symbol){(uint32_t)at, length, i - 1, i + 1, -1};
        at += length;
        last = (unsigned char)f->text[at - 1];
        next = (unsigned char)f->text[at];
    } while (at < n && f->spm->joins[last][next / 64] >> next % 64 & 1);
    w->symbol[f->n_symbols - 1].next = SPM_NONE; /* the first one's prev is SPM_NONE: 0 - 1 */
    return at;
}

int vocab_spm_encode(const vocab *v, vocab_work *w, int add_space, token_list *out) {
    char *text = w->text + VOCAB_WORK_BEFORE;
    size_t n = spm_short_spaces(text, w->n), length;
    spm_fragment f = {.spm = v->spm, .w = w};
    if (add_space) {
        *--text = ' ';
        n++;
    }
    memset(text + n, 0, VOCAB_WORK_BEHIND);
    for (size_t at = 0; at < n; at += length) {
        f.text = text + at;
        length = spm_next_fragment(&f, n - at);
        if (!length || spm_merge(&f) || spm_emit(v, &f, out)) return -1;
    }
    return 0;
}

void vocab_spm_work_free(vocab_work *w) {
    mem_free(w->allocator, w->symbol, w->symbol_capacity, sizeof *w->symbol);
    mem_free(w->allocator, w->pair, w->pair_capacity, sizeof *w->pair);
}
