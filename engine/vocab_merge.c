/* vocab_merge.c: see vocab_merge.h. */
#include "vocab_merge.h"

/* Up to so many symbols, looking at all of them for the best pair is faster than a heap. */
enum { MERGE_FEW = 24 };

void merge_work_free(merge_work *w) {
    mem_free(w->allocator, w->symbol, w->symbol_capacity, sizeof *w->symbol);
    mem_free(w->allocator, w->pair, w->pair_capacity, sizeof *w->pair);
}

int merge_append(merge_fragment *f, uint32_t at, uint32_t n, int32_t id) {
    merge_work *w = f->w;
    const uint32_t i = f->n_symbols++;
    if (i == w->symbol_capacity &&
        mem_grow(w->allocator, &w->symbol, &w->symbol_capacity, i < 64 ? 64 : (size_t)i + 1, sizeof *w->symbol))
        return -1;
    w->symbol[i] = (merge_symbol){at, n, i - 1, MERGE_NONE, id}; /* the first one's prev is MERGE_NONE: 0 - 1 */
    if (i) w->symbol[i - 1].next = i;
    return 0;
}

/* ---- the heap --------------------------------------------------------------------------------------------------- */

int merge_push(merge_work *w, merge_pair pair) {
    size_t i = w->n_pairs;
    if (i == w->pair_capacity && mem_grow(w->allocator, &w->pair, &w->pair_capacity, i < 64 ? 64 : i + 1, sizeof pair))
        return -1;
    w->n_pairs++;
    for (; i > 0 && w->pair[(i - 1) / 2].order > pair.order; i = (i - 1) / 2) w->pair[i] = w->pair[(i - 1) / 2];
    w->pair[i] = pair;
    return 0;
}

merge_pair merge_pop(merge_work *w) {
    merge_pair *pair = w->pair, top = pair[0], last = pair[--w->n_pairs];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < w->n_pairs; i = child) {
        if (child + 1 < w->n_pairs && pair[child + 1].order < pair[child].order) child++;
        if (pair[child].order >= last.order) break;
        pair[i] = pair[child];
    }
    pair[i] = last;
    return top;
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

/* The merge of symbol i with its right neighbour; order UINT64_MAX if there is none. */
static inline merge_pair merge_consider(const merge_fragment *f, uint32_t i) {
    const merge_symbol *left = &f->w->symbol[i], *right;
    uint32_t rank;
    int32_t id;
    if (left->next == MERGE_NONE) return (merge_pair){.order = UINT64_MAX};
    right = &f->w->symbol[left->next];
    if (!f->find(f, left, right, &rank, &id)) return (merge_pair){.order = UINT64_MAX};
    return (merge_pair){(uint64_t)rank << 32 | i, left->n + right->n, id};
}

/* Joins the symbol of a pair with its right neighbour. */
static void merge_join(merge_symbol *symbol, merge_pair pair) {
    merge_symbol *left = &symbol[(uint32_t)pair.order], *right = &symbol[left->next];
    left->n = pair.n;
    left->id = pair.id;
    left->next = right->next;
    right->n = 0;
    if (left->next != MERGE_NONE) symbol[left->next].prev = (uint32_t)pair.order;
}

static void merge_few(merge_fragment *f) {
    merge_symbol *symbol = f->w->symbol;
    merge_pair pair[MERGE_FEW];
    pair[0] = merge_consider(f, 0);
    for (uint32_t i = 1; i < f->n_symbols; i++) pair[i] = merge_consider(f, i);
    for (;;) {
        merge_pair best = pair[0];
        uint32_t i;
        for (i = symbol[0].next; i != MERGE_NONE; i = symbol[i].next)
            if (pair[i].order < best.order) best = pair[i];
        if (best.order == UINT64_MAX) return;
        i = (uint32_t)best.order;
        merge_join(symbol, best);
        pair[i] = merge_consider(f, i);
        if (symbol[i].prev != MERGE_NONE) pair[symbol[i].prev] = merge_consider(f, symbol[i].prev);
    }
}

static int merge_offer(merge_fragment *f, uint32_t i) {
    const merge_pair pair = merge_consider(f, i);
    return pair.order == UINT64_MAX ? 0 : merge_push(f->w, pair);
}

static int merge_many(merge_fragment *f) {
    merge_symbol *symbol = f->w->symbol;
    f->w->n_pairs = 0;
    for (uint32_t i = 0; i < f->n_symbols; i++)
        if (merge_offer(f, i)) return -1;
    while (f->w->n_pairs) {
        const merge_pair pair = merge_pop(f->w);
        const uint32_t i = (uint32_t)pair.order;
        if (symbol[i].n == 0 || symbol[i].next == MERGE_NONE || symbol[i].n + symbol[symbol[i].next].n != pair.n)
            continue;
        merge_join(symbol, pair);
        if (symbol[i].prev != MERGE_NONE && merge_offer(f, symbol[i].prev)) return -1;
        if (merge_offer(f, i)) return -1;
    }
    return 0;
}

int merge_run(merge_fragment *f) {
    if (f->n_symbols > MERGE_FEW) return merge_many(f);
    merge_few(f);
    return 0;
}
