/* vocab_special.c: finds special tokens in text.
 *
 * The longest token is cut out first, wherever it stands, then the next one, and so on: where two overlap, the longer
 * counts even if the shorter begins before it. That order matters only among tokens that overlap. So the text is read
 * once from the left; a token that overlaps no other is cut at once, and a cluster of overlapping ones is sorted out by
 * itself, from the longest down, with a heap. */
#include "vocab_impl.h"

#include <string.h>

/* ---- loading ---------------------------------------------------------------------------------------------------- */

/* 1 if the token is one to look for in text; *first gets its first byte. */
static int special_is_cut(const vocab *v, int32_t token, unsigned char *first) {
    size_t n;
    const char *text = vocab_bytes(v, token, &n);
    const int type = v->type[token];
    *first = (unsigned char)*text;
    return (type == VOCAB_UNKNOWN || type == VOCAB_CONTROL || type == VOCAB_USER) && n > 0 && n <= VOCAB_MAX_SPECIAL;
}

/* Lists the tokens to cut out of text, sorted by text. */
minim_status vocab_list_special(vocab *v, minim_error *e) {
    size_t n = 0;
    int32_t *scratch;
    unsigned char first;
    for (int32_t i = 0; i < v->n; i++)
        if (special_is_cut(v, i, &first)) v->special_from[first + 1]++, n++;
    for (int b = 0; b < 256; b++) v->special_from[b + 1] += v->special_from[b];
    v->n_special = n;
    v->special = mem_alloc(&v->allocator, n, sizeof *v->special);
    scratch = mem_alloc(&v->allocator, n, sizeof *scratch);
    if (v->special && scratch) {
        n = 0;
        for (int32_t i = 0; i < v->n; i++)
            if (special_is_cut(v, i, &first)) v->special[n++] = i;
        vocab_sort(v->special, scratch, n, vocab_text_before, v);
    }
    mem_free(&v->allocator, scratch, v->n_special, sizeof *scratch);
    if (!v->special || !scratch) return err_memory(e, "the special tokens", 2 * n * sizeof *scratch);
    return MINIM_OK;
}

/* ---- the longest one at a place --------------------------------------------------------------------------------- */

static int special_may_cut(const special_reader *r, int32_t token) {
    if (r->v->type[token] != VOCAB_USER) return r->kind == VOCAB_SPAN_SPECIAL;
    if (r->kind != VOCAB_SPAN_SEALED) return 1;
    for (size_t i = 0; i < r->sealed->n; i++)
        if (r->sealed->token[i] == token) return 0;
    return !(r->v->flag[token] & VOCAB_FLAG_END);
}

/* The longest special token that text[n] begins with, -1 if there is none. The candidates are a range of the sorted
 * list; each byte of text narrows it, so the work is bounded by the length of the longest special token. */
static int32_t special_longest(const special_reader *r, const char *text, size_t n, size_t *length) {
    const vocab *v = r->v;
    const unsigned char first = (unsigned char)text[0];
    size_t low = v->special_from[first], high = v->special_from[first + 1];
    int32_t found = -1;
    *length = 0;
    for (size_t depth = 1; low < high; depth++) {
        /* Texts that end here are sorted before those that go on, and the lowest id before equal ones. */
        for (; low < high; low++) {
            size_t n_token;
            vocab_bytes(v, v->special[low], &n_token);
            if (n_token > depth) break;
            if (*length == depth || !special_may_cut(r, v->special[low])) continue;
            found = v->special[low];
            *length = depth;
        }
        if (depth == n) break;
        low = vocab_narrow(v, v->special, low, high, depth, (unsigned char)text[depth]);
        high = vocab_narrow(v, v->special, low, high, depth, (unsigned char)text[depth] + 1);
    }
    return found;
}

/* Moves `at` to the next place where a special token begins, which may be the same one; -1 if there is none. */
static int32_t special_find(const special_reader *r, size_t *at, size_t *length) {
    const size_t *from = r->v->special_from;
    for (; *at < r->n; ++*at) {
        const unsigned char first = (unsigned char)r->text[*at];
        int32_t token;
        if (from[first] == from[first + 1]) continue;
        token = special_longest(r, r->text + *at, r->n - *at, length);
        if (token >= 0) return token;
    }
    return -1;
}

/* ---- clusters --------------------------------------------------------------------------------------------------- */

/* What covers a byte of a cluster. */
struct special_cover {
    uint32_t begin; /* where its token begins, counted from 1; 0 = free */
    int32_t token;
};

/* The order of candidates: the longest first, of those the one that comes first in the list of tokens, of its places
 * the leftmost. */
static merge_pair special_candidate(size_t at, size_t n, int32_t token) {
    const uint64_t id = (uint32_t)token < 1U << 23 ? (uint32_t)token : (1U << 23) - 1;
    return (merge_pair){(uint64_t)(VOCAB_MAX_SPECIAL - n) << 54 | id << 31 | at, (uint32_t)n, token};
}

static int special_add_cut(special_reader *r, size_t at, size_t n, int32_t token) {
    if (r->n_cuts == r->cut_capacity &&
        mem_grow(r->work.allocator, &r->cut, &r->cut_capacity, r->n_cuts < 16 ? 16 : r->n_cuts + 1, sizeof *r->cut))
        return -1;
    r->cut[r->n_cuts++] = (special_cut){at, n, token};
    return 0;
}

/* Puts the longest token at each place of text[begin..end) on the heap; the cluster grows as long as one overlaps its
 * end. Returns the end, 0 when memory is short. */
static size_t special_collect(special_reader *r, size_t begin, size_t end) {
    size_t length;
    for (size_t at = begin; at < end; at++) {
        const int32_t token = special_longest(r, r->text + at, r->n - at, &length);
        if (token < 0) continue;
        if (merge_push(&r->work, special_candidate(at - begin, length, token))) return 0;
        if (at + length > end) end = at + length;
    }
    return end;
}

/* Takes candidates until none is left. One whose beginning is covered is gone; if only its end is, what covers it is at
 * least as long, so the next shorter token at the same place is a candidate. */
static int special_settle(special_reader *r, size_t begin) {
    while (r->work.n_pairs) {
        const merge_pair best = merge_pop(&r->work);
        const size_t at = best.order & 0x7fffffff;
        const uint32_t last = r->cover[at + best.n - 1].begin;
        if (r->cover[at].begin) continue;
        if (last) {
            size_t length;
            const int32_t token = special_longest(r, r->text + begin + at, last - 1 - at, &length);
            if (token >= 0 && merge_push(&r->work, special_candidate(at, length, token))) return -1;
            continue;
        }
        for (size_t i = at; i < at + best.n; i++) r->cover[i] = (struct special_cover){(uint32_t)at + 1, best.id};
    }
    return 0;
}

/* Cuts the tokens of the cluster that begins at `begin` with one of `length` bytes; 0, or -1 when memory is short. */
static int special_cut_cluster(special_reader *r, size_t begin, size_t length) {
    size_t end;
    r->work.n_pairs = 0;
    end = special_collect(r, begin, begin + length);
    if (!end) return -1;
    r->at = end;
    if (r->work.n_pairs == 1) return special_add_cut(r, begin, length, r->work.pair->id);
    if (mem_grow(r->work.allocator, &r->cover, &r->cover_capacity, end - begin, sizeof *r->cover)) return -1;
    memset(r->cover, 0, (end - begin) * sizeof *r->cover);
    if (special_settle(r, begin)) return -1;
    for (size_t i = 0; i < end - begin; i++) {
        if (r->cover[i].begin != i + 1) continue;
        vocab_bytes(r->v, r->cover[i].token, &length);
        if (special_add_cut(r, begin + i, length, r->cover[i].token)) return -1;
    }
    return 0;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

void special_begin(special_reader *r, enum vocab_span_kind kind, const char *text, size_t n) {
    r->kind = kind;
    r->text = text;
    r->n = n;
    r->at = r->n_cuts = r->next_cut = 0;
}

int special_next(special_reader *r, special_cut *cut) {
    if (r->next_cut == r->n_cuts) {
        size_t length, at = r->at;
        r->next_cut = r->n_cuts = 0;
        if (special_find(r, &at, &length) < 0) return 0;
        if (special_cut_cluster(r, at, length)) return -1;
    }
    *cut = r->cut[r->next_cut++];
    return 1;
}

void special_free(special_reader *r) {
    mem_free(r->work.allocator, r->cover, r->cover_capacity, sizeof *r->cover);
    mem_free(r->work.allocator, r->cut, r->cut_capacity, sizeof *r->cut);
    merge_work_free(&r->work);
}
