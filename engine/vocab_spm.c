/* vocab_spm.c: SentencePiece BPE (Kudo & Richardson 2018): of all neighbouring pairs whose joined text is a token,
 * merge the one with the best score, the leftmost of equal ones, until none is left.
 *
 *   - A space is one byte here: "▁" becomes ' ' in the tokens and in the text, so most tokens fit in a 64-bit number
 *     and are compared at once.
 *   - The text is cut wherever no token contains the two characters that meet, usually before each word. No merge can
 *     reach across such a place, and merges left and right of it do not touch each other, so every fragment is merged
 *     by itself: the result is the same, and there is less to look at. */
#include "vocab_impl.h"

#include <math.h>
#include <string.h>

struct vocab_spm {
    vocab_table table;
    uint64_t joins[256][4]; /* bit b of joins[a]: in some text a character that ends with byte a is followed by one that
                               begins with byte b */
};

/* ---- loading ---------------------------------------------------------------------------------------------------- */

static void spm_copy_texts(const vocab *v, vocab_table *t) {
    uint32_t used = 0;
    for (int32_t i = 0; i < v->n; i++) {
        size_t n;
        const char *text = vocab_bytes(v, i, &n);
        t->at[i] = used;
        if (!vocab_is_mergeable(v, i)) continue;
        memcpy(t->text + used, text, n);
        used += (uint32_t)vocab_short_spaces(t->text + used, n);
    }
    t->at[v->n] = used;
}

static void spm_note_joins(vocab_spm *spm, const char *text, uint32_t n) {
    for (uint32_t i = (uint32_t)vocab_character(text, n); i < n; i += (uint32_t)vocab_character(text + i, n - i)) {
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
        const char *text = spm->table.text + spm->table.at[i];
        const uint32_t n = spm->table.at[i + 1] - spm->table.at[i];
        if (n == 0) continue;
        if (vocab_table_add(&spm->table, i, ranks[i], &probes)) spm_note_joins(spm, text, n);
        if (probes > vocab_probe_limit((uint64_t)v->n)) return vocab_collision(path, "tokens", e);
    }
    return MINIM_OK;
}

minim_status vocab_spm_new(const vocab *v, const float *scores, const char *path, vocab_spm **out, minim_error *e) {
    const minim_allocator *a = &v->allocator;
    const size_t n = (size_t)v->n;
    vocab_spm *spm = mem_zalloc(a, 1, sizeof *spm);
    int32_t *ids = mem_alloc(a, n, sizeof *ids), *scratch = mem_alloc(a, n, sizeof *scratch);
    minim_status status;
    if (spm && ids && scratch && !vocab_table_new(&spm->table, a, n, v->text_bytes)) {
        spm_copy_texts(v, &spm->table);
        status = spm_fill_table(v, spm, scores, ids, scratch, path, e);
    } else {
        status = err_memory(e, "the table of merges", n * (2 * sizeof(vocab_entry) + 4 * sizeof *ids));
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
    vocab_table_free(&spm->table, &v->allocator);
    mem_free(&v->allocator, spm, 1, sizeof *spm);
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

static int spm_find(const merge_fragment *f, const merge_symbol *left, const merge_symbol *right, uint32_t *rank,
                    int32_t *id) {
    const vocab_table *t = f->table;
    const uint32_t n = left->n + right->n;
    uint64_t probes = 0;
    const vocab_entry *entry;
    if (n > t->longest) return 0;
    entry = vocab_table_find(t, f->text + left->at, n, &probes);
    *rank = entry->rank;
    *id = entry->id;
    return entry->key != 0;
}

static int spm_push_bytes(const vocab *v, const minim_allocator *a, const char *text, size_t n, token_list *out) {
    for (size_t i = 0; i < n; i++)
        if (vocab_push_byte(v, a, out, (unsigned char)text[i])) return -1;
    return 0;
}

static int spm_emit(const vocab *v, const merge_fragment *f, token_list *out) {
    const minim_allocator *a = f->w->allocator;
    for (uint32_t i = 0; i != MERGE_NONE; i = f->w->symbol[i].next) {
        const merge_symbol *s = &f->w->symbol[i];
        const char *text = f->text + s->at;
        const vocab_entry *entry = NULL;
        uint64_t probes = 0;
        int failed;
        if (s->id < 0) entry = vocab_table_find(f->table, text, s->n, &probes);
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
static size_t spm_next_fragment(const vocab_spm *spm, merge_fragment *f, size_t n) {
    size_t at = 0;
    unsigned char last, next;
    f->n_symbols = 0;
    do {
        const uint32_t length = (uint32_t)vocab_character(f->text + at, n - at);
        if (merge_append(f, (uint32_t)at, length, -1)) return 0;
        at += length;
        last = (unsigned char)f->text[at - 1];
        next = (unsigned char)f->text[at];
    } while (at < n && spm->joins[last][next / 64] >> next % 64 & 1);
    return at;
}

int vocab_spm_encode(const vocab *v, vocab_work *w, int add_space, token_list *out) {
    char *text = w->text + VOCAB_WORK_BEFORE;
    size_t n = vocab_short_spaces(text, w->n), length;
    merge_fragment f = {.find = spm_find, .table = &v->spm->table, .w = &w->merge};
    if (add_space) {
        *--text = ' ';
        n++;
    }
    memset(text + n, 0, VOCAB_WORK_BEHIND);
    for (size_t at = 0; at < n; at += length) {
        f.text = text + at;
        length = spm_next_fragment(v->spm, &f, n - at);
        if (!length || merge_run(&f) || spm_emit(v, &f, out)) return -1;
    }
    return 0;
}
