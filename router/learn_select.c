/* learn_select.c: chooses how strongly weights are held back, by cross-validation on the labels alone, and measures
 * what is to be expected of prompts that were not learned from. */
#include <math.h>
#include <stdlib.h>

#include "learn_train.h"

/* Tried from the strongest on, for fits that start where the last one ended. Words: from a standard deviation of 0.18
 * log-odds, which hardly lets them speak, to 1.4, which hardly holds them back; the six shape numbers: together from
 * 0.08 to 0.8. */
static const double train_words[] = {32, 8, 2, 0.5};
static const double train_shape[] = {1000, 100, 10};

/* Newton's steps: what follows one that gained a thousandth of the loss gains far less. */
#define TRAIN_NEARLY 1e-3

enum {
    TRAIN_WORDS = sizeof train_words / sizeof *train_words,
    TRAIN_SHAPE = sizeof train_shape / sizeof *train_shape,
    TRAIN_TRIED = TRAIN_WORDS * TRAIN_SHAPE
};

static train_ridge train_tried(size_t i) {
    size_t words = i / TRAIN_SHAPE, shape = i % TRAIN_SHAPE;
    if (words % 2) shape = TRAIN_SHAPE - 1 - shape; /* back and forth: neighbours differ in one */
    return (train_ridge){train_words[words], train_shape[shape]};
}

train_ridge train_middle_ridge(void) {
    return (train_ridge){train_words[2], train_shape[1]};
}

typedef struct train_trial {
    const train_prompts *prompts;
    size_t n_folds;
    uint32_t *order;              /* [n] shuffled; prompt order[i] is in the fold i % n_folds */
    uint32_t *rows;               /* [n] a fold's view: the others, then the fold */
    double *loss;                 /* [TRAIN_TRIED][n_folds] squared error of the gain, strong - weak */
    double *score;                /* [TRAIN_TRIED][n] gain over the mean gain of the labels that were learned from */
    double *familiarity;          /* [n] */
    double *best, *weak, *strong; /* [n] for the evaluation */
} train_trial;

static minim_status train_try_fold(train_trial *trial, size_t fold) {
    size_t n = trial->prompts->n, n_learn = 0, n_held = 0;
    train_view view;
    for (size_t i = 0; i < n; i++) {
        if (i % trial->n_folds != fold) trial->rows[n_learn++] = trial->order[i];
    }
    for (size_t i = fold; i < n; i += trial->n_folds) trial->rows[n_learn + n_held++] = trial->order[i];
    minim_status status = train_view_new(&view, trial->prompts, trial->rows, n, n_learn);
    if (status != MINIM_OK) return status;
    for (size_t row = n_learn; row < n; row++) trial->familiarity[trial->rows[row]] = view.familiarity[row];
    for (size_t tried = 0; tried < TRAIN_TRIED && status == MINIM_OK; tried++) {
        train_ridge ridge = train_tried(tried);
        double *loss = &trial->loss[tried * trial->n_folds + fold];
        status = train_fit(&view, &ridge, TRAIN_NEARLY);
        *loss = 0;
        for (size_t row = n_learn; row < n && status == MINIM_OK; row++) {
            double right[2];
            train_predict(&view, row, right);
            double gain = right[1] - right[0], off = view.target[1][row] - view.target[0][row] - gain;
            *loss += off * off;
            /* Of a fold that has many gains the rest has few: without its own mean each fold would be ranked against
             * that. */
            trial->score[tried * n + trial->rows[row]] = gain - (view.mean[1] - view.mean[0]);
        }
    }
    train_view_free(&view);
    return status;
}

/* What has the least loss on all folds but one; of equal ones the strongest. except = n_folds: on all. */
static size_t train_best(const train_trial *trial, size_t except) {
    size_t best = 0;
    double least = INFINITY;
    for (size_t tried = 0; tried < TRAIN_TRIED; tried++) {
        double sum = 0;
        for (size_t fold = 0; fold < trial->n_folds; fold++) {
            if (fold != except) sum += trial->loss[tried * trial->n_folds + fold];
        }
        if (!(sum < least)) continue;
        least = sum;
        best = tried;
    }
    return best;
}

static int train_compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Each fold is predicted with what was best on the others: no prompt has a say in what it is measured with. */
static minim_status train_measure(train_trial *trial, uint64_t seed, minim_route_model_info *info) {
    size_t n = trial->prompts->n;
    for (size_t fold = 0; fold < trial->n_folds; fold++) {
        const double *score = trial->score + train_best(trial, fold) * n;
        for (size_t i = fold; i < n; i += trial->n_folds) trial->best[trial->order[i]] = score[trial->order[i]];
    }
    for (size_t i = 0; i < n; i++) {
        trial->weak[i] = trial->prompts->rows[i]->weak;
        trial->strong[i] = trial->prompts->rows[i]->strong;
    }
    minim_route_report report = {.size = sizeof report};
    minim_route_eval_options eval;
    minim_route_eval_options_default(&eval);
    eval.weak = trial->weak;
    eval.strong = trial->strong;
    eval.seed = seed;
    eval.n_bootstrap = 400;
    minim_status status = minim_route_evaluate(trial->best, n, &eval, &report, NULL);
    info->apgr = report.apgr;
    /* One prompt in fifty of this kind is abstained from, so that most of another kind can be. */
    qsort(trial->familiarity, n, sizeof *trial->familiarity, train_compare_doubles);
    info->familiarity = trial->familiarity[n / 50];
    return status;
}

minim_status train_select(const train_prompts *prompts, const minim_route_train_options *options, train_ridge *ridge,
                          minim_route_model_info *info) {
    size_t n = prompts->n, n_folds = (size_t)options->n_folds;
    train_trial trial = {.prompts = prompts, .n_folds = n_folds};
    trial.order = malloc(2 * n * sizeof *trial.order);
    trial.loss = malloc((TRAIN_TRIED * (n_folds + n) + 4 * n) * sizeof *trial.loss);
    minim_status status = trial.order && trial.loss ? MINIM_OK : MINIM_ERR_MEMORY;
    if (status == MINIM_OK) {
        trial.rows = trial.order + n;
        trial.score = trial.loss + TRAIN_TRIED * n_folds;
        trial.familiarity = trial.score + TRAIN_TRIED * n;
        trial.best = trial.familiarity + n;
        trial.weak = trial.best + n;
        trial.strong = trial.weak + n;
        learn_shuffle(trial.order, n, options->seed);
    }
    for (size_t fold = 0; fold < n_folds && status == MINIM_OK; fold++) status = train_try_fold(&trial, fold);
    if (status == MINIM_OK) {
        *ridge = train_tried(train_best(&trial, n_folds));
        status = train_measure(&trial, options->seed, info);
    }
    free(trial.order);
    free(trial.loss);
    return status;
}
