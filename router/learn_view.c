/* learn_view.c: labelled prompts as rows of a matrix, and two logistic heads fitted to some of them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "learn_train.h"

/* An n-gram of fewer prompts says too little about others. */
enum { TRAIN_MIN_PROMPTS = 3 };

/* ---- every prompt ----------------------------------------------------------------------------------------------- */

void train_prompts_free(train_prompts *prompts) {
    free(prompts->start);
    free(prompts->gram);
    free(prompts->hash);
    free(prompts->shape);
    *prompts = (train_prompts){0};
}

int learn_compare_hashes(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The hashes of every prompt's n-grams, in rising order, as gram. */
static minim_status train_read(train_prompts *prompts) {
    learn_gram *grams = malloc(LEARN_MAX_GRAMS * sizeof *grams);
    size_t capacity = 0;
    if (!grams) return MINIM_ERR_MEMORY;
    for (size_t i = 0; i < prompts->n; i++) {
        const minim_route_label *row = prompts->rows[i];
        size_t n_grams = learn_grams(row->prompt, row->n_prompt, grams), at = prompts->start[i];
        if (at + n_grams > capacity) {
            capacity = 2 * (at + n_grams); /* at most LEARN_MAX_GRAMS a prompt: no overflow */
            uint32_t *grown = realloc(prompts->gram, capacity * sizeof *grown);
            if (!grown) {
                free(grams);
                return MINIM_ERR_MEMORY;
            }
            prompts->gram = grown;
        }
        for (size_t k = 0; k < n_grams; k++) prompts->gram[at + k] = grams[k].hash;
        prompts->start[i + 1] = at + n_grams;
        learn_shape(row->prompt, row->n_prompt, prompts->shape + i * LEARN_SHAPES);
    }
    free(grams);
    return MINIM_OK;
}

/* Hashes become numbers: folds then count them in arrays. */
static minim_status train_number(train_prompts *prompts) {
    size_t n = prompts->start[prompts->n];
    prompts->hash = malloc((n + 1) * sizeof *prompts->hash);
    if (!prompts->hash) return MINIM_ERR_MEMORY;
    if (n) memcpy(prompts->hash, prompts->gram, n * sizeof *prompts->hash);
    qsort(prompts->hash, n, sizeof *prompts->hash, learn_compare_hashes);
    for (size_t i = 0; i < n; i++) {
        if (!i || prompts->hash[i] != prompts->hash[prompts->n_grams - 1])
            prompts->hash[prompts->n_grams++] = prompts->hash[i];
    }
    for (size_t i = 0; i < n; i++) {
        const uint32_t *at =
            bsearch(&prompts->gram[i], prompts->hash, prompts->n_grams, sizeof *at, learn_compare_hashes);
        prompts->gram[i] = (uint32_t)(at - prompts->hash);
    }
    return MINIM_OK;
}

minim_status train_prompts_new(train_prompts *prompts, const minim_route_label *const *rows, size_t n) {
    *prompts = (train_prompts){.rows = rows, .n = n};
    prompts->start = calloc(n + 1, sizeof *prompts->start);
    prompts->shape = malloc((n + 1) * LEARN_SHAPES * sizeof *prompts->shape);
    minim_status status = prompts->start && prompts->shape ? train_read(prompts) : MINIM_ERR_MEMORY;
    if (status == MINIM_OK) status = train_number(prompts);
    if (status != MINIM_OK) train_prompts_free(prompts);
    return status;
}

/* ---- in the eyes of a model that learns from some of them -------------------------------------------------------- */

void train_view_free(train_view *view) {
    free(view->word);
    free(view->rarity);
    free(view->memory_start);
    free(view->memory_column);
    free(view->memory_value);
    free(view->familiarity);
    free(view->odd);
    free(view->ridge);
    for (int head = 0; head < 2; head++) {
        free(view->target[head]);
        free(view->weights[head]);
    }
    *view = (train_view){0};
}

/* Which n-grams are columns: column_of[n_grams] gets a column, or UINT32_MAX. */
static minim_status train_vocabulary(train_view *view, uint32_t *column_of) {
    const train_prompts *prompts = view->prompts;
    memset(column_of, 0, prompts->n_grams * sizeof *column_of);
    for (size_t i = 0; i < view->n_learn; i++) {
        for (size_t k = prompts->start[view->order[i]]; k < prompts->start[view->order[i] + 1]; k++)
            column_of[prompts->gram[k]]++; /* in how many prompts */
    }
    for (size_t g = 0; g < prompts->n_grams; g++) view->n_words += column_of[g] >= TRAIN_MIN_PROMPTS;
    view->word = malloc((view->n_words + 1) * sizeof *view->word);
    view->rarity = malloc((view->n_words + 1) * sizeof *view->rarity);
    if (!view->word || !view->rarity) return MINIM_ERR_MEMORY;
    uint32_t n = 0;
    for (size_t g = 0; g < prompts->n_grams; g++) {
        if (column_of[g] < TRAIN_MIN_PROMPTS) {
            column_of[g] = UINT32_MAX;
            continue;
        }
        view->word[n] = (uint32_t)g;
        view->rarity[n] = (float)log((double)(view->n_learn + 1) / column_of[g]);
        column_of[g] = n++;
    }
    return MINIM_OK;
}

/* Where the shapes lie. */
static void train_shapes(train_view *view) {
    for (int k = 0; k < LEARN_SHAPES; k++) {
        double n = (double)view->n_learn, sum = 0, square = 0;
        for (size_t i = 0; i < view->n_learn; i++) {
            double shape = view->prompts->shape[view->order[i] * LEARN_SHAPES + (size_t)k];
            sum += shape;
            square += shape * shape;
        }
        double mean = sum / n, variance = square / n - mean * mean;
        view->shape_middle[k] = (float)mean;
        view->shape_spread[k] = variance > 1e-6 ? (float)sqrt(variance) : 1;
    }
}

/* Writes a row: its known n-grams by rarity, scaled to length 1, and its shape. Returns where the next one begins. */
static size_t train_row(train_view *view, size_t row, const uint32_t *column_of, size_t at) {
    const train_prompts *prompts = view->prompts;
    size_t prompt = view->order[row], from = at;
    double square = 0, all = 0, seen = 0, rarest = log((double)(view->n_learn + 1)), shape[LEARN_SHAPES];
    for (size_t k = prompts->start[prompt]; k < prompts->start[prompt + 1]; k++) {
        uint32_t column = column_of[prompts->gram[k]];
        double rarity = column == UINT32_MAX ? rarest : (double)view->rarity[column];
        all += rarity;
        if (column == UINT32_MAX) continue;
        seen += rarity;
        square += rarity * rarity;
        view->memory_column[at] = column;
        view->memory_value[at++] = (float)rarity;
    }
    float scale = square > 0 ? (float)(1 / sqrt(square)) : 0;
    while (from < at) view->memory_value[from++] *= scale;
    view->familiarity[row] = all > 0 ? seen / all : 0;
    memcpy(shape, prompts->shape + prompt * LEARN_SHAPES, sizeof shape);
    view->odd[row] = learn_scale_shape(view->shape_middle, view->shape_spread, shape) != 0;
    for (size_t k = 0; k < LEARN_SHAPES; k++, at++) {
        view->memory_column[at] = (uint32_t)(view->n_words + k);
        view->memory_value[at] = (float)shape[k];
    }
    return at;
}

static minim_status train_rows(train_view *view, const uint32_t *column_of) {
    const train_prompts *prompts = view->prompts;
    size_t n = view->n, n_columns = view->n_words + LEARN_SHAPES, most = (n + 1) * LEARN_SHAPES;
    for (size_t i = 0; i < n; i++) most += prompts->start[view->order[i] + 1] - prompts->start[view->order[i]];
    view->memory_start = malloc((n + 1) * sizeof *view->memory_start);
    view->memory_column = malloc(most * sizeof *view->memory_column);
    view->memory_value = malloc(most * sizeof *view->memory_value);
    view->familiarity = malloc((n + 1) * sizeof *view->familiarity);
    view->odd = malloc(n + 1);
    view->ridge = malloc(n_columns * sizeof *view->ridge);
    int failed = !view->memory_start || !view->memory_column || !view->memory_value || !view->familiarity ||
                 !view->odd || !view->ridge;
    for (int head = 0; head < 2; head++) {
        view->target[head] = malloc((n + 1) * sizeof *view->target[head]);
        view->weights[head] = calloc(n_columns, sizeof *view->weights[head]);
        failed |= !view->target[head] || !view->weights[head];
    }
    if (failed) return MINIM_ERR_MEMORY;
    view->memory_start[0] = 0;
    for (size_t i = 0; i < n; i++) {
        const minim_route_label *label = prompts->rows[view->order[i]];
        view->memory_start[i + 1] = train_row(view, i, column_of, view->memory_start[i]);
        view->target[0][i] = label->weak;
        view->target[1][i] = label->strong;
        for (int head = 0; head < 2 && i < view->n_learn; head++)
            view->mean[head] += view->target[head][i] / (double)view->n_learn;
    }
    for (int head = 0; head < 2; head++) {
        double base = fmin(fmax(view->mean[head], 0.001), 0.999);
        view->bias[head] = log(base / (1 - base));
    }
    view->x = (learn_matrix){view->n_learn, n_columns, view->memory_start, view->memory_column, view->memory_value};
    return MINIM_OK;
}

minim_status train_view_new(train_view *view, const train_prompts *prompts, const uint32_t *order, size_t n,
                            size_t n_learn) {
    *view = (train_view){.prompts = prompts, .order = order, .n = n, .n_learn = n_learn};
    uint32_t *column_of = malloc((prompts->n_grams + 1) * sizeof *column_of);
    minim_status status = column_of ? train_vocabulary(view, column_of) : MINIM_ERR_MEMORY;
    if (status == MINIM_OK) {
        train_shapes(view);
        status = train_rows(view, column_of);
    }
    free(column_of);
    if (status != MINIM_OK) train_view_free(view);
    return status;
}

/* ---- the heads -------------------------------------------------------------------------------------------------- */

minim_status train_fit(train_view *view, const train_ridge *ridge, double tolerance) {
    minim_status status = MINIM_OK;
    for (size_t j = 0; j < view->x.n_columns; j++) view->ridge[j] = j < view->n_words ? ridge->words : ridge->shape;
    for (int head = 0; head < 2 && status == MINIM_OK; head++)
        status = learn_logistic(&view->x, view->target[head], view->ridge, tolerance, view->weights[head],
                                &view->bias[head]);
    return status;
}

void train_predict(const train_view *view, size_t row, double right[2]) {
    for (int head = 0; head < 2; head++) {
        double sum = view->bias[head];
        for (size_t k = view->memory_start[row]; k < view->memory_start[row + 1]; k++)
            sum += (double)view->memory_value[k] * view->weights[head][view->memory_column[k]];
        right[head] = view->odd[row] ? view->mean[head] : learn_sigmoid(sum);
    }
}
