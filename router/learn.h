/* learn.h: what the learning part of the router shares: random numbers, sparse vectors, logistic regression, files.
 *
 * Everything here runs on one thread in one order, so the same input and seed give the same result everywhere that libm
 * does. The calls of minim_route_learn.h stand on it: labels.c reads labels, eval_*.c measures, learn_*.c trains on
 * prompts, calib_*.c turns scores into probabilities. */
#ifndef ROUTER_LEARN_H
#define ROUTER_LEARN_H

#include "minim_route_learn.h"
#include "support.h"

/* ---- random numbers --------------------------------------------------------------------------------------------- */

/* splitmix64 (Steele, Lea & Flood 2014). */
static inline uint64_t learn_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* 0 .. n-1 without division; n < 2^32. The bias is below n / 2^32. */
static inline uint32_t learn_random_below(uint64_t *state, uint32_t n) {
    return (uint32_t)((learn_random(state) >> 32) * n >> 32);
}

/* Fills order[n] with 0 .. n-1, shuffled (Fisher & Yates). n < 2^32. */
void learn_shuffle(uint32_t *order, size_t n, uint64_t seed);

/* The nearest float, as a double: what nine digits give back exactly. volatile because gcc 12 -O3 forgets the rounding
 * of two neighbours (it takes a double for a float and back for the double). */
static inline double learn_round(double x) {
    volatile float rounded = (float)x;
    return (double)rounded;
}

/* 1 / (1 + exp(-x)) without overflow. */
double learn_sigmoid(double x);

/* ---- logistic regression ---------------------------------------------------------------------------------------- */

/* Rows of a sparse matrix [n_rows][n_columns]: row i has the entries start[i] .. start[i+1]. */
typedef struct learn_matrix {
    size_t n_rows, n_columns;
    const size_t *start;    /* [n_rows + 1] */
    const uint32_t *column; /* [start[n_rows]], below n_columns */
    const float *value;     /* the same */
} learn_matrix;

/* Minimises sum_i cross-entropy(target[i], sigmoid(w . x_i + bias)) + sum_j ridge[j] w[j]^2 / 2 by Newton's method with
 * conjugate gradients (Lin, Weng & Keerthi 2008, without the trust region: a step that does not help is halved). The
 * bias is not penalised. target is in [0, 1]; weights[n_columns] is the result and the start. Ends when a step gains
 * less than this share of the loss: LEARN_EXACT, or more where it is only tried. MINIM_ERR_MEMORY. */
#define LEARN_EXACT 1e-7
minim_status learn_logistic(const learn_matrix *x, const double *target, const double *ridge, double tolerance,
                            double *weights, double *bias);

/* ---- n-grams of a text ------------------------------------------------------------------------------------------ */

enum {
    LEARN_MAX_WORDS = 2048, /* of a prompt that are looked at */
    LEARN_MAX_GRAMS = 2 * LEARN_MAX_WORDS,
    LEARN_HASH_BITS = 22
};

/* A word, a number or a sign, or two that stand side by side: where it is in the text. */
typedef struct learn_gram {
    uint32_t hash; /* below 2^LEARN_HASH_BITS */
    uint32_t start, length;
} learn_gram;

/* What n-grams do not tell: how long and of what make a prompt is. */
enum { LEARN_SHAPES = 6 };

/* shape[LEARN_SHAPES]: logarithms of one plus the number of words, numbers, signs, line breaks and sentences; mean
 * length of a word. Of as much of the text as learn_grams() looks at. */
void learn_shape(const char *text, size_t n, double *shape);

/* Writes the distinct n-grams of a text, in order of their hashes, to grams[LEARN_MAX_GRAMS]; returns how many. Words
 * are lower-cased (ASCII), digits all count as the same digit. */
size_t learn_grams(const char *text, size_t n, learn_gram *grams);

#endif
