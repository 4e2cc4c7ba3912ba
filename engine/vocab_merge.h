/* vocab_merge.h: the loop that both SentencePiece BPE and byte-level BPE are made of: of all neighbouring symbols that
 * may be merged, merge the best pair, the leftmost of equal ones, until none is left (Sennrich et al. 2016). */
#ifndef ENGINE_VOCAB_MERGE_H
#define ENGINE_VOCAB_MERGE_H

#include "base.h"

#define MERGE_NONE UINT32_MAX

/* A character or byte, or several that have been merged. */
typedef struct merge_symbol {
    uint32_t at, n;      /* bytes of the fragment; n = 0: merged into the one before */
    uint32_t prev, next; /* neighbours, MERGE_NONE at the ends */
    int32_t id;          /* the token; negative: not known yet, or none */
} merge_symbol;

/* A possible merge of a symbol with its right neighbour. */
typedef struct merge_pair {
    uint64_t order; /* rank, then index of the left symbol: the smallest is merged first */
    uint32_t n;     /* bytes of both; on the heap 0 stands for a whole queue, of which this is the first place */
    int32_t id;     /* the token it gives */
} merge_pair;

/* Places that wait for the same merge, from left to right: a list through merge_work.place. */
typedef struct merge_queue {
    uint32_t rank, head, tail; /* head MERGE_NONE: empty */
} merge_queue;

typedef struct merge_place {
    uint32_t symbol, next;
} merge_place;

/* Memory that is used again for the next fragment. */
typedef struct merge_work {
    const minim_allocator *allocator;
    merge_symbol *symbol;
    size_t symbol_capacity;
    merge_pair *pair; /* [n_pairs]: a binary heap, the smallest order first */
    size_t n_pairs, pair_capacity;
    merge_queue *queue; /* [n_queues]: 0 or MERGE_QUEUES */
    size_t n_queues;
    merge_place *place;
    size_t n_places, place_capacity;
} merge_work;

void merge_work_free(merge_work *w);

typedef struct merge_fragment merge_fragment;
struct merge_fragment {
    /* Whether left and right, which are neighbours, may be merged: 1, with the rank (the smallest is best) and the
     * token. */
    int (*find)(const merge_fragment *f, const merge_symbol *left, const merge_symbol *right, uint32_t *rank,
                int32_t *id);
    const void *table; /* of find() */
    merge_work *w;
    const char *text;
    uint32_t n_symbols; /* w->symbol[0..n_symbols) */
};

/* Appends a symbol with n bytes; 0, or -1 when memory is short. The first call needs n_symbols = 0. */
int merge_append(merge_fragment *f, uint32_t at, uint32_t n, int32_t id);
/* Merges; O(n log n), and linear where few different merges come up, as in a megabyte of one letter. Afterwards the
 * symbols are w->symbol[0] and what follows it by `next`. 0, or -1 when memory is short. */
int merge_run(merge_fragment *f);

/* The heap, for other uses too. */
int merge_push(merge_work *w, merge_pair pair); /* -1 when memory is short */
merge_pair merge_pop(merge_work *w);            /* n_pairs > 0 */

#endif
