/* family.h: one row per model family. The forward function (engine/forward.c) reads the row; it has no family of its
 * own.
 */
#ifndef MODELS_FAMILY_H
#define MODELS_FAMILY_H

#include <stddef.h>

typedef enum family_rope {
    FAMILY_ROPE_ADJACENT, /* pairs (2i, 2i+1): files whose q and k rows the converter has permuted (GGML "NORM") */
    FAMILY_ROPE_SPLIT     /* pairs (i, i + n_rot/2): rotate_half as published (GGML "NEOX") */
} family_rope;

typedef struct family {
    const char *architecture; /* general.architecture, also the prefix of the family's keys */
    const char *title;        /* which models people know it by */
    family_rope rope;
    int biases;       /* 1: every matrix may have a bias; it is used where the file has one */
    int rope_factors; /* 1: rope_freqs.weight [n_rot/2] divides the frequencies where the file has it */
} family;

/* NULL when unknown. */
const family *family_find(const char *architecture);
/* The index-th row, NULL behind the last. */
const family *family_at(size_t index);

#endif
