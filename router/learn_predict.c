/* learn_predict.c: what a trained model says about a prompt, and why. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "learn_model.h"

/* A prompt that is so many standard deviations longer, or otherwise different in shape, is of another kind. */
static const double PREDICT_ODD = 4;

/* Position of a hash among n rising ones, or n. */
static size_t predict_find(const uint32_t *hashes, size_t n, uint32_t hash) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (hashes[middle] < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && hashes[low] == hash ? low : n;
}

int learn_scale_shape(const float *middle, const float *spread, double *shape) {
    int is_odd = 0;
    for (int k = 0; k < LEARN_SHAPES; k++) {
        double z = (shape[k] - (double)middle[k]) / (double)spread[k];
        is_odd |= fabs(z) > PREDICT_ODD;
        shape[k] = z > 3 ? 3 : z < -3 ? -3 : z; /* a shape never seen does not outvote the words */
    }
    return is_odd;
}

/* The n-grams of a prompt that the model knows, with their places in it. */
typedef struct predict_known {
    learn_gram grams[LEARN_MAX_GRAMS];
    size_t at[LEARN_MAX_GRAMS]; /* in the model */
    size_t n;
    double scale; /* of a row: 1 / its length */
    double familiarity;
} predict_known;

static predict_known *predict_read(const minim_route_model *model, const char *prompt, size_t n_bytes) {
    predict_known *known = malloc(sizeof *known);
    if (!known) return NULL;
    size_t n = learn_grams(prompt, n_bytes, known->grams);
    double square = 0, all = 0, seen = 0, rarest = log((double)(model->info.n_labels + 1));
    known->n = 0;
    for (size_t i = 0; i < n; i++) {
        size_t at = predict_find(model->hash, model->n, known->grams[i].hash);
        double rarity = at < model->n ? (double)model->rarity[at] : rarest;
        all += rarity;
        if (at == model->n) continue;
        seen += rarity;
        square += rarity * rarity;
        known->grams[known->n] = known->grams[i];
        known->at[known->n++] = at;
    }
    known->scale = square > 0 ? 1 / sqrt(square) : 0;
    known->familiarity = all > 0 ? seen / all : 0;
    return known;
}

minim_status minim_route_predict(const minim_route_model *model, const char *prompt, size_t n_bytes,
                                 minim_route_prediction *prediction) {
    if (!model || !prompt || !prediction || prediction->size <= sizeof prediction->size) return MINIM_ERR_ARGUMENT;
    predict_known *known = predict_read(model, prompt, n_bytes);
    if (!known) return MINIM_ERR_MEMORY;
    double sum[2] = {(double)model->bias[0], (double)model->bias[1]};
    for (size_t i = 0; i < known->n; i++) {
        double value = (double)model->rarity[known->at[i]] * known->scale;
        for (int head = 0; head < 2; head++) sum[head] += value * (double)model->weights[head][known->at[i]];
    }
    double shape[LEARN_SHAPES];
    learn_shape(prompt, n_bytes, shape);
    int is_odd = learn_scale_shape(model->shape_middle, model->shape_spread, shape);
    for (int head = 0; head < 2; head++) {
        for (int k = 0; k < LEARN_SHAPES; k++) sum[head] += shape[k] * (double)model->shape_weights[head][k];
    }
    minim_route_prediction p = {.weak = learn_sigmoid(sum[0]),
                                .strong = learn_sigmoid(sum[1]),
                                .familiarity = known->familiarity,
                                .abstained = is_odd || known->familiarity < model->info.familiarity};
    free(known);
    uint32_t hash = learn_prompt_hash(prompt, n_bytes);
    p.learned = predict_find(model->learned, model->n_learned, hash) < model->n_learned;
    if (p.abstained) {
        p.weak = model->info.weak_mean;
        p.strong = model->info.strong_mean;
    }
    p.score = p.strong - p.weak;
    p.size = prediction->size < sizeof p ? prediction->size : sizeof p;
    memcpy(prediction, &p, p.size);
    return MINIM_OK;
}

/* By what they do to the score, most first; then by place. */
static int predict_compare_parts(const void *a, const void *b) {
    const minim_route_reason_part *x = a, *y = b;
    double gain_x = fabs(x->strong - x->weak), gain_y = fabs(y->strong - y->weak);
    if (gain_x != gain_y) return gain_x > gain_y ? -1 : 1;
    if (x->start != y->start) return x->start < y->start ? -1 : 1;
    return (x->length > y->length) - (x->length < y->length);
}

size_t minim_route_explain(const minim_route_model *model, const char *prompt, size_t n_bytes,
                           minim_route_reason_part *parts, size_t capacity) {
    if (!model || !prompt || (!parts && capacity)) return 0;
    predict_known *known = predict_read(model, prompt, n_bytes);
    minim_route_reason_part *all = known ? malloc((known->n + 1) * sizeof *all) : NULL;
    size_t n = 0;
    for (size_t i = 0; all && i < known->n; i++) {
        size_t at = known->at[i];
        double value = (double)model->rarity[at] * known->scale;
        all[n++] =
            (minim_route_reason_part){known->grams[i].start, known->grams[i].length,
                                      value * (double)model->weights[0][at], value * (double)model->weights[1][at]};
    }
    if (all) qsort(all, n, sizeof *all, predict_compare_parts);
    if (n > capacity) n = capacity;
    if (n) memcpy(parts, all, n * sizeof *all);
    free(all);
    free(known);
    return n;
}
