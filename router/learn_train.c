/* learn_train.c: trains a score of prompts from judged answers.
 *
 * Two logistic heads, one for each model, because a hard prompt is hard for both: what counts is the difference, and
 * the difference of two well regularised predictions is less noisy than a prediction of the rare "weak wrong, strong
 * right" (router/README.md has the figures). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "learn_train.h"

enum { TRAIN_MIN_LABELS = 20, TRAIN_MAX_LABELS = 200000, TRAIN_MAX_FOLDS = 20 };

void minim_route_train_options_default(minim_route_train_options *options) {
    if (!options) return;
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
    options->seed = 1;
    options->n_folds = 5;
}

minim_route_model *learn_model_new(size_t n) {
    minim_route_model *model = calloc(1, sizeof *model);
    if (!model) return NULL;
    model->info.size = sizeof model->info;
    model->n = n;
    model->hash = calloc(n + 1, sizeof *model->hash);
    model->rarity = calloc(n + 1, sizeof *model->rarity);
    model->weights[0] = calloc(n + 1, sizeof *model->weights[0]);
    model->weights[1] = calloc(n + 1, sizeof *model->weights[1]);
    if (model->hash && model->rarity && model->weights[0] && model->weights[1]) return model;
    minim_route_model_free(model);
    return NULL;
}

void minim_route_model_free(minim_route_model *model) {
    if (!model) return;
    free(model->hash);
    free(model->rarity);
    free(model->weights[0]);
    free(model->weights[1]);
    free(model->learned);
    free(model);
}

minim_status minim_route_model_get_info(const minim_route_model *model, minim_route_model_info *info) {
    if (!model || !info || info->size <= sizeof info->size) return MINIM_ERR_ARGUMENT;
    size_t size = info->size < sizeof *info ? info->size : sizeof *info;
    memcpy(info, &model->info, size);
    info->size = size;
    return MINIM_OK;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static minim_status train_model(const train_view *view, const train_ridge *ridge, minim_route_model **out) {
    minim_route_model *model = learn_model_new(view->n_words);
    if (!model) return MINIM_ERR_MEMORY;
    for (size_t j = 0; j < view->n_words; j++) {
        model->hash[j] = view->prompts->hash[view->word[j]];
        model->rarity[j] = view->rarity[j];
    }
    memcpy(model->shape_middle, view->shape_middle, sizeof model->shape_middle);
    memcpy(model->shape_spread, view->shape_spread, sizeof model->shape_spread);
    for (int head = 0; head < 2; head++) {
        model->bias[head] = (float)view->bias[head];
        for (size_t j = 0; j < view->n_words; j++) model->weights[head][j] = (float)view->weights[head][j];
        for (size_t k = 0; k < LEARN_SHAPES; k++)
            model->shape_weights[head][k] = (float)view->weights[head][view->n_words + k];
    }
    model->info.n_labels = view->n_learn;
    model->info.n_grams = view->n_words;
    model->info.weak_mean = view->mean[0];
    model->info.strong_mean = view->mean[1];
    model->info.ridge = ridge->words;
    model->info.shape_ridge = ridge->shape;
    *out = model;
    return MINIM_OK;
}

/* To what the digits of a file give back exactly: a saved model says the same as the one that was trained. */
static void train_round(minim_route_model_info *info) {
    double *const doubles[] = {&info->weak_mean,  &info->strong_mean, &info->familiarity,
                               &info->apgr.value, &info->apgr.low,    &info->apgr.high};
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++) *doubles[i] = learn_round(*doubles[i]);
}

/* So that nobody takes the prompts it was trained on for a test. */
static minim_status train_remember(minim_route_model *model, const minim_route_label *const *rows, size_t n) {
    model->learned = malloc(n * sizeof *model->learned);
    if (!model->learned) return MINIM_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) model->learned[i] = learn_prompt_hash(rows[i]->prompt, rows[i]->n_prompt);
    qsort(model->learned, n, sizeof *model->learned, learn_compare_hashes);
    for (size_t i = 0; i < n; i++) {
        if (!i || model->learned[i] != model->learned[i - 1]) model->learned[model->n_learned++] = model->learned[i];
    }
    return MINIM_OK;
}

static minim_status train_check_rows(const minim_route_label *const *rows, size_t n, minim_error *error) {
    if (n < TRAIN_MIN_LABELS || n > TRAIN_MAX_LABELS) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "found %zu labelled prompts, expected %d to %d", n,
                           TRAIN_MIN_LABELS, TRAIN_MAX_LABELS);
    }
    for (size_t i = 0; i < n; i++) {
        const minim_route_label *row = rows[i];
        if (row && row->prompt && row->weak >= 0 && row->weak <= 1 && row->strong >= 0 && row->strong <= 1) continue;
        return router_fail(error, MINIM_ERR_ARGUMENT, "label %zu: expected a prompt, and weak and strong from 0 to 1",
                           i);
    }
    return MINIM_OK;
}

minim_status minim_route_train(const minim_route_label *const *rows, size_t n,
                               const minim_route_train_options *options_in, minim_route_model **model,
                               minim_error *error) {
    minim_route_train_options options;
    minim_route_train_options_default(&options);
    if (!rows || !model || (options_in && router_copy_sized(&options, sizeof options, options_in)) ||
        options.n_folds < 0 || options.n_folds == 1 || options.n_folds > TRAIN_MAX_FOLDS) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_train: NULL, or folds that are not 0 or 2..%d",
                           TRAIN_MAX_FOLDS);
    }
    minim_status status = train_check_rows(rows, n, error);
    if (status != MINIM_OK) return status;
    train_prompts prompts;
    train_view view = {0};
    train_ridge ridge = train_middle_ridge();
    minim_route_model *made = NULL;
    minim_route_model_info info = {.apgr = {(double)NAN, (double)NAN, (double)NAN}};
    uint32_t *all = malloc(n * sizeof *all);
    if (!all || train_prompts_new(&prompts, rows, n)) {
        free(all);
        return router_fail_memory(error, "the training");
    }
    for (size_t i = 0; i < n; i++) all[i] = (uint32_t)i;
    if (options.n_folds) status = train_select(&prompts, &options, &ridge, &info);
    if (status == MINIM_OK) status = train_view_new(&view, &prompts, all, n, n);
    if (status == MINIM_OK) status = train_fit(&view, &ridge, LEARN_EXACT);
    if (status == MINIM_OK) status = train_model(&view, &ridge, &made);
    if (status == MINIM_OK) status = train_remember(made, rows, n);
    train_view_free(&view);
    train_prompts_free(&prompts);
    free(all);
    if (status != MINIM_OK) {
        minim_route_model_free(made);
        return router_fail_memory(error, "the training");
    }
    made->info.apgr = info.apgr;
    made->info.familiarity = info.familiarity;
    train_round(&made->info);
    *model = made;
    return MINIM_OK;
}
