/* vocab_merge.c: see vocab_merge.h. */
#include "vocab_merge.h"

enum {
    MERGE_FEW = 24,     /* up to so many symbols, looking at all of them for the best pair is faster than a heap */
    MERGE_QUEUES = 4096 /* a power of two */
};

void merge_work_free(merge_work *w) {
    mem_free(w->allocator, w->symbol, w->symbol_capacity, sizeof *w->symbol);
    mem_free(w->allocator, w->pair, w->pair_capacity, sizeof *w->pair);
    mem_free(w->allocator, w->queue, w->n_queues, sizeof *w->queue);
    mem_free(w->allocator, w->place, w->place_capacity, sizeof *w->place);
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

/* Puts a pair in place of the first one. */
static void merge_replace(merge_work *w, merge_pair last) {
    merge_pair *pair = w->pair;
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < w->n_pairs; i = child) {
        if (child + 1 < w->n_pairs && pair[child + 1].order < pair[child].order) child++;
        if (pair[child].order >= last.order) break;
        pair[i] = pair[child];
    }
    pair[i] = last;
}

merge_pair merge_pop(merge_work *w) {
    const merge_pair first = w->pair[0];
    w->n_pairs--;
    if (w->n_pairs) merge_replace(w, w->pair[w->n_pairs]);
    return first;
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

/* ---- many symbols ------------------------------------------------------------------------------------------------ */

/* A heap of a million pairs is slow: each step down is a cache miss. But most pairs that wait for the same merge turn
 * up from left to right, so they stand in a queue, and only the first of each queue is on the heap. A place that comes
 * out of order, or whose queue is taken by another merge, goes to the heap by itself. Either way the heap has the
 * smallest order of all; whether the pair is still there is looked up when its turn comes. */

static int merge_prepare(merge_work *w) {
    w->n_pairs = w->n_places = 0;
    if (w->queue) return 0;
    w->queue = mem_alloc(w->allocator, MERGE_QUEUES, sizeof *w->queue);
    if (!w->queue) return -1;
    w->n_queues = MERGE_QUEUES;
    for (size_t i = 0; i < MERGE_QUEUES; i++) w->queue[i].head = MERGE_NONE;
    return 0;
}

/* Lets symbol i wait for its merge with the right neighbour, if there is one. */
static int merge_offer(merge_fragment *f, uint32_t i) {
    merge_work *w = f->w;
    merge_pair pair = merge_consider(f, i);
    const uint32_t rank = (uint32_t)(pair.order >> 32), place = (uint32_t)w->n_places;
    merge_queue *q = &w->queue[rank & (MERGE_QUEUES - 1)];
    if (pair.order == UINT64_MAX) return 0;
    if (q->head != MERGE_NONE && (q->rank != rank || w->place[q->tail].symbol > i)) return merge_push(w, pair);
    if (place == MERGE_NONE ||
        (place == w->place_capacity &&
         mem_grow(w->allocator, &w->place, &w->place_capacity, place < 64 ? 64 : (size_t)place + 1, sizeof *w->place)))
        return -1;
    w->place[w->n_places++] = (merge_place){i, MERGE_NONE};
    if (q->head != MERGE_NONE) {
        w->place[q->tail].next = place;
        q->tail = place;
        return 0;
    }
    *q = (merge_queue){rank, place, place};
    pair.n = 0;
    return merge_push(w, pair);
}

/* Takes the smallest order. */
static uint64_t merge_take(merge_work *w) {
    const merge_pair first = w->pair[0];
    merge_queue *q = &w->queue[(first.order >> 32) & (MERGE_QUEUES - 1)];
    if (first.n == 0) q->head = w->place[q->head].next;
    if (first.n || q->head == MERGE_NONE)
        merge_pop(w);
    else
        merge_replace(w, (merge_pair){(uint64_t)q->rank << 32 | w->place[q->head].symbol, 0, 0});
    return first.order;
}

static int merge_many(merge_fragment *f) {
    merge_work *w = f->w;
    if (merge_prepare(w)) return -1;
    for (uint32_t i = 0; i < f->n_symbols; i++)
        if (merge_offer(f, i)) return -1;
    while (w->n_pairs) {
        const uint64_t order = merge_take(w);
        const uint32_t i = (uint32_t)order;
        const merge_pair pair = w->symbol[i].n ? merge_consider(f, i) : (merge_pair){.order = UINT64_MAX};
        if (pair.order != order) continue; /* one of the two has changed */
        merge_join(w->symbol, pair);
        if (w->symbol[i].prev != MERGE_NONE && merge_offer(f, w->symbol[i].prev)) return -1;
        if (merge_offer(f, i)) return -1;
    }
    return 0;
}

int merge_run(merge_fragment *f) {
    if (f->n_symbols > MERGE_FEW) return merge_many(f);
    merge_few(f);
    return 0;
}
