/* quantize.h: which tensor of a model gets which type: what people name Q4_K_M is a rule and not a type. */
#ifndef TOOLS_QUANTIZE_H
#define TOOLS_QUANTIZE_H

#include "../engine/minim.h"
#include "encode.h"

typedef struct quantize_rule quantize_rule;

/* What --type names. */
typedef struct quantize_target {
    const char *name, *base;   /* base: the type of all matrices that the rule says nothing else about */
    uint32_t file_type;        /* general.file_type */
    const quantize_rule *rule; /* NULL = no exceptions */
} quantize_target;

/* In any case; NULL when there is none. */
const quantize_target *quantize_find_target(const char *name);

/* What the rules look at besides a tensor. */
typedef struct quantize_shape {
    int n_layers, n_values; /* layers; matrices that make the values of attention */
    int has_output;         /* else the embeddings are the output matrix too */
    uint64_t query_rows, value_rows;
    int heads_shared; /* heads that share keys and values; 0 where it cannot be seen */
} quantize_shape;

/* Looks at the next tensor; the shape starts as {0}. */
void quantize_see(quantize_shape *shape, const minim_tensor *tensor);

/* The type for a tensor (pure: without the rules of a mixture), or NULL when it stays as it is, as vectors, norms and
 * other small things do. Rows that are no multiple of the block become F16 when they are F32, otherwise they stay, too.
 */
const encode_type *quantize_choose(const quantize_target *target, int pure, const quantize_shape *shape,
                                   const minim_tensor *tensor);

#endif
