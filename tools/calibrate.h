/* calibrate.h: a text as chunks of tokens, to be run for what the matrices of a model get to see. As llama-imatrix does
 * it: chunks of n_ctx tokens, each from an empty context with BOS in place of its first token where the vocabulary asks
 * for one; a rest is left out. */
#ifndef TOOLS_CALIBRATE_H
#define TOOLS_CALIBRATE_H

#include "common.h"

enum { CALIBRATE_CTX = 512 }; /* tokens a chunk, or the context of the model where that is shorter */

typedef struct calibrate_text {
    const char *path;   /* "-" is standard input */
    size_t n_ctx;       /* 0 = as above */
    size_t skip;        /* chunks at the start that are left out */
    size_t n_chunks;    /* 0 = all; afterwards how many there are */
    tool_tokens tokens; /* [n_chunks * n_ctx] */
} calibrate_text;

/* Reads text->path; the model needs its vocabulary. A text shorter than one chunk is an error. Returns -1, or the exit
 * code after a message; tokens are to be freed in either case. */
int calibrate_read(const minim_model *model, calibrate_text *text);

/* The first element of x that is no finite number, or n. */
size_t calibrate_find_bad(const float *x, size_t n);

#endif
