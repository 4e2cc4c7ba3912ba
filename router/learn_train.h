/* learn_train.h: labelled prompts as rows of a matrix, and what is fitted to them; the inside of minim_route_train().
 */
#ifndef ROUTER_LEARN_TRAIN_H
#define ROUTER_LEARN_TRAIN_H

#include "learn_model.h"

/* How strongly the weights of both heads are held back. A prompt's n-grams have length 1 together, so 1 / words is the
 * variance, in log-odds, that they are expected to explain; a shape number has the variance 1 itself. */
typedef struct train_ridge {
    double words, shape;
} train_ridge;

/* Every labelled prompt. n-grams go by numbers 0 .. n_grams - 1 that rise with their hashes; those of prompt i are
 * gram[start[i]] .. gram[start[i + 1]], distinct and rising. */
typedef struct train_prompts {
    const minim_route_label *const *rows;
    size_t n, n_grams;
    size_t *start;  /* [n + 1] */
    uint32_t *gram; /* [start[n]] */
    uint32_t *hash; /* [n_grams] */
    double *shape;  /* [n][LEARN_SHAPES] */
} train_prompts;

/* rows must outlive it. MINIM_ERR_MEMORY. */
minim_status train_prompts_new(train_prompts *prompts, const minim_route_label *const *rows, size_t n);
void train_prompts_free(train_prompts *prompts);

/* Prompts in the eyes of a model that learns from the first n_learn of them: the n-grams that several of those share
 * are the columns. The other rows are there to be predicted. */
typedef struct train_view {
    const train_prompts *prompts;
    const uint32_t *order; /* [n] which prompt a row is */
    size_t n, n_learn, n_words;
    uint32_t *word; /* [n_words] the n-gram of a column; the shape's columns follow */
    float *rarity;  /* [n_words] */
    float shape_middle[LEARN_SHAPES], shape_spread[LEARN_SHAPES];
    learn_matrix x;
    double *familiarity; /* [n] */
    unsigned char *odd;  /* [n] 1: of a shape that was never seen */
    /* the fit */
    double mean[2];       /* of the labels that are learned from: weak, strong */
    double *target[2];    /* [n] */
    double *weights[2];   /* [x.n_columns] */
    double bias[2];       /* of both heads */
    double *ridge;        /* [x.n_columns] scratch */
    size_t *memory_start; /* what x points to */
    uint32_t *memory_column;
    float *memory_value;
} train_view;

/* prompts and order must outlive it. MINIM_ERR_MEMORY. */
minim_status train_view_new(train_view *view, const train_prompts *prompts, const uint32_t *order, size_t n,
                            size_t n_learn);
void train_view_free(train_view *view);

/* Fits both heads; starts from where the last fit ended. MINIM_ERR_MEMORY. */
minim_status train_fit(train_view *view, const train_ridge *ridge, double tolerance);

/* P(weak is right) and P(strong is right) of a row; the means where its shape is odd. */
void train_predict(const train_view *view, size_t row, double right[2]);

/* What is used without cross-validation: the middle of what is tried. */
train_ridge train_middle_ridge(void);

/* Tries ridges on n_folds folds and sets the best; also what is to be expected of the model: info's apgr and
 * familiarity. MINIM_ERR_MEMORY. */
minim_status train_select(const train_prompts *prompts, const minim_route_train_options *options, train_ridge *ridge,
                          minim_route_model_info *info);

#endif
