/* learn_model.h: a trained score of prompts, for the files that train, use, save and load it. */
#ifndef ROUTER_LEARN_MODEL_H
#define ROUTER_LEARN_MODEL_H

#include "learn.h"

struct minim_route_model {
    minim_route_model_info info;
    size_t n;          /* n-grams, in order of hash */
    uint32_t *hash;    /* [n] */
    float *rarity;     /* [n] log(labels / prompts that have it): what it counts in a prompt */
    float *weights[2]; /* [n] of P(weak is right), P(strong is right) */
    size_t n_learned;
    uint32_t *learned; /* [n_learned] hashes of the prompts it was trained on, rising; NULL when there are none */
    float bias[2];
    /* The shape of a prompt enters as (shape - middle) / spread, within -3 .. 3. */
    float shape_middle[LEARN_SHAPES], shape_spread[LEARN_SHAPES];
    float shape_weights[2][LEARN_SHAPES];
};

/* A number for a whole prompt. */
uint32_t learn_prompt_hash(const char *prompt, size_t n_bytes);

/* A model with room for n n-grams and no list of prompts; NULL when memory is short. */
minim_route_model *learn_model_new(size_t n);

/* Makes of shape[LEARN_SHAPES] what enters. 1 when a prompt of this shape was never seen, else 0. */
int learn_scale_shape(const float *middle, const float *spread, double *shape);

/* Of uint32_t, for qsort() and bsearch(). */
int learn_compare_hashes(const void *a, const void *b);

#endif
