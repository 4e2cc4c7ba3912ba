/* ngram.c: see ngram.h.
 *
 *     place:    0   1   2   3   4   5   6   7   8            a place is the index of the token behind a gram
 *     text:     a   b   c   d   x   a   b   c   .            grams of 2: place 2 is "a b", place 7 is "a b" again
 *                           ^               ^
 *                           3 <-- "b c" --- 8 = end          head["b c"] = 3, so the guess is text[3] = d
 *
 * A gram enters its chain only when the token behind it is known, so the end of the text never matches itself. */
#include "ngram.h"

#include <string.h>

enum {
    NGRAM_LEVELS = 3,
    NGRAM_FIRST_HEADS = 256, /* buckets at the start; a power of two */
    NGRAM_COMPARE = 64,      /* tokens that are compared to find the longest of several matches */
    NGRAM_NEAR = 40          /* tokens behind the last long match in which a match is preferred to equal ones */
};

/* Chains of the places whose grams of `order` tokens share a hash. A place is stored plus 1, so that 0 ends a chain. */
typedef struct ngram_level {
    size_t order;
    uint32_t *head; /* [n_heads]: the latest place of each hash */
    size_t n_heads;
    uint32_t *before; /* [capacity]: of each place, the one before it in its chain */
    size_t capacity;
} ngram_level;

struct ngram_index {
    minim_allocator allocator;
    int32_t *token; /* [n] */
    size_t n, capacity;
    ngram_level level[NGRAM_LEVELS]; /* longest grams first */
    size_t from, length;             /* the match: text[from - length .. from) equals the end of the text */
    size_t left;                     /* where the last match of NGRAM_LONG tokens and more went on; 0 = none yet */
};

minim_status ngram_new(const minim_allocator *a, ngram_index **out, minim_error *e) {
    *out = NULL;
    ngram_index *x = mem_zalloc(a, 1, sizeof *x);
    if (!x) return err_memory(e, "an n-gram index", sizeof *x);
    x->allocator = mem_allocator(a);
    x->level[0].order = NGRAM_LONG;
    x->level[1].order = NGRAM_MIDDLE;
    x->level[2].order = NGRAM_SHORT;
    *out = x;
    return MINIM_OK;
}

void ngram_free(ngram_index *x) {
    if (!x) return;
    const minim_allocator a = x->allocator;
    for (int i = 0; i < NGRAM_LEVELS; i++) {
        mem_free(&a, x->level[i].head, x->level[i].n_heads, sizeof *x->level[i].head);
        mem_free(&a, x->level[i].before, x->level[i].capacity, sizeof *x->level[i].before);
    }
    mem_free(&a, x->token, x->capacity, sizeof *x->token);
    mem_free(&a, x, 1, sizeof *x);
}

/* The bucket of the gram that ends before `place`: multiplicative hashing (Knuth), each token spread by the next. */
static size_t ngram_bucket(const ngram_index *x, const ngram_level *l, size_t place) {
    uint64_t hash = 0;
    for (size_t i = place - l->order; i < place; i++) {
        hash = (hash ^ (uint32_t)x->token[i]) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 32;
    }
    return (size_t)hash & (l->n_heads - 1);
}

static void ngram_link(const ngram_index *x, ngram_level *l, size_t place) {
    uint32_t *head = &l->head[ngram_bucket(x, l, place)];
    l->before[place] = *head;
    *head = (uint32_t)place + 1;
}

/* As many buckets as places, or twice as many: all chains anew. */
static int ngram_grow_heads(const ngram_index *x, ngram_level *l) {
    if (x->n < l->n_heads) return 0;
    const size_t n = l->n_heads ? 2 * l->n_heads : NGRAM_FIRST_HEADS;
    uint32_t *head = mem_zalloc(&x->allocator, n, sizeof *head);
    if (!head) return -1;
    mem_free(&x->allocator, l->head, l->n_heads, sizeof *l->head);
    l->head = head, l->n_heads = n;
    for (size_t place = l->order; place < x->n; place++) ngram_link(x, l, place);
    return 0;
}

/* How many tokens before two places are equal, up to NGRAM_COMPARE; a <= b. */
static size_t ngram_equal(const ngram_index *x, size_t a, size_t b) {
    size_t n = 0;
    while (n < a && n < NGRAM_COMPARE && x->token[a - 1 - n] == x->token[b - 1 - n]) n++;
    return n;
}

/* The longest match; who quotes or edits goes through a text in its order, so what lies shortly behind the last long
 * one is preferred. */
static void ngram_search(ngram_index *x) {
    size_t best = 0;
    x->length = 0;
    for (int i = 0; i < NGRAM_LEVELS && !x->length; i++) {
        const ngram_level *l = &x->level[i];
        if (x->n < l->order) continue;
        uint32_t at = l->head[ngram_bucket(x, l, x->n)];
        for (int tried = 0; at && tried < NGRAM_CANDIDATES; tried++, at = l->before[at - 1]) {
            const size_t place = at - 1, equal = ngram_equal(x, place, x->n);
            const size_t worth = 2 * equal + (x->left && place >= x->left && place - x->left < NGRAM_NEAR);
            if (equal >= l->order && worth > best) x->from = place, x->length = equal, best = worth;
        }
    }
}

minim_status ngram_push(ngram_index *x, int32_t token, minim_error *e) {
    const minim_allocator *a = &x->allocator;
    const uint64_t bytes = x->n * sizeof *x->token;
    if (x->n >= UINT32_MAX - 1) return err_set(e, MINIM_ERR_CONTEXT, "an n-gram index of %zu tokens is full", x->n);
    if (mem_grow(a, &x->token, &x->capacity, x->n + 1, sizeof *x->token))
        return err_memory(e, "an n-gram index", bytes);
    for (int i = 0; i < NGRAM_LEVELS; i++) {
        ngram_level *l = &x->level[i];
        if (mem_grow(a, &l->before, &l->capacity, x->n + 1, sizeof *l->before) || ngram_grow_heads(x, l))
            return err_memory(e, "an n-gram index", bytes);
    }
    for (int i = 0; i < NGRAM_LEVELS; i++)
        if (x->n >= x->level[i].order) ngram_link(x, &x->level[i], x->n);
    x->token[x->n++] = token;
    /* A match that goes on is still the longest: one longer than that would have been longer before. */
    if (x->length && x->token[x->from] == token) {
        x->from++, x->length++;
        if (x->length >= NGRAM_LONG) x->left = x->from;
    } else {
        ngram_search(x);
    }
    return MINIM_OK;
}

size_t ngram_length(const ngram_index *x) {
    return x->length;
}

int ngram_guess(const ngram_index *x, int32_t *tokens, int n) {
    if (!x->length) return 0;
    for (int i = 0; i < n; i++) {
        const size_t at = x->from + (size_t)i;
        tokens[i] = at < x->n ? x->token[at] : tokens[at - x->n];
    }
    return n;
}
