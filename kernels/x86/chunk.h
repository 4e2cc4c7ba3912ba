/* chunk.h: a part of the int8 activations, copied so that what the inner loop of an integer product reads lies side by
 * side: block after block, token after token. One pass over the activations spares that loop three pointers per token,
 * and keeps rows that are a power of two apart from fighting for the same cache set. 20 KB: it lives on the stack. */
#ifndef KERN_X86_CHUNK_H
#define KERN_X86_CHUNK_H

#include "../internal.h"

enum {
    CHUNK_TOKENS = 32, /* most tokens of a chunk: the weights are read once for so many */
    CHUNK_PAIRS = 512  /* most (block, token) pairs */
};

typedef struct chunk {
    int64_t first_token, n_tokens, first_block, n_blocks;
    int32_t codes[CHUNK_PAIRS][8]; /* [n_blocks][n_tokens][32 int8] */
    float scale[CHUNK_PAIRS];      /* [n_blocks][n_tokens] */
    int32_t start[CHUNK_PAIRS];    /* -offset * sum of the codes: where an accumulator starts */
} chunk;

/* The number of blocks a chunk of n_tokens can hold, at most n_blocks. */
static inline int64_t chunk_blocks(int64_t n_tokens, int64_t n_blocks) {
    int64_t most = CHUNK_PAIRS / n_tokens;
    return n_blocks < most ? n_blocks : most;
}

/* Fills the chunk from its first_token, n_tokens, first_block, n_blocks; a row of act has row_blocks blocks. */
static inline void chunk_fill(chunk *c, const kern_act *act, int64_t row_blocks, int32_t offset) {
    for (int64_t t = 0; t < c->n_tokens; t++) {
        const int64_t from = (c->first_token + t) * row_blocks + c->first_block;
        for (int64_t b = 0; b < c->n_blocks; b++) {
            const int64_t i = b * c->n_tokens + t;
            memcpy(c->codes[i], act->codes + (from + b) * KERN_BLOCK, KERN_BLOCK);
            c->scale[i] = act->scale[from + b];
            c->start[i] = -offset * act->sum[from + b];
        }
    }
}

#endif
