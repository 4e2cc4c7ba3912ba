/* learn_train.c: trains a score of prompts from judged answers.
 *
 * Two logistic heads, one for each model, because a hard prompt is hard for both: what counts is the difference, and
 * the difference of two well regularised predictions is less noisy than a prediction of the rare "weak wrong, strong
 * right" (router/README.md has the figures). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "learn_model.h"

enum { TRAIN_MIN_LABELS = 20, TRAIN_MAX_LABELS = 200000, TRAIN_MAX_FOLDS = 20, TRAIN_MIN_PROMPTS = 3 };

/* Of an n-gram's weight and of a shape's. Chosen on random splits of the sets in router/README.md; half or twice
 * changes their APGR by 0.005. */
#define TRAIN_RIDGE       2.0
#define TRAIN_SHAPE_RIDGE 100.0

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

/* ---- the prompts as n-grams ------------------------------------------------------------------------------------- */

/* The distinct n-grams of every prompt: those of prompt i are hash[start[i]] .. hash[start[i + 1]], in rising order. */
typedef struct train_text {
    size_t n, capacity;
    size_t *start;  /* [n + 1] */
    uint32_t *hash; /* [capacity] */
} train_text;

static void train_text_free(train_text *text) {
    free(text->start);
    free(text->hash);
}

static minim_status train_read(train_text *text, const minim_route_label *const *rows, size_t n) {
    learn_gram *grams = malloc(LEARN_MAX_GRAMS * sizeof *grams);
    *text = (train_text){.n = n, .start = calloc(n + 1, sizeof *text->start)};
    int failed = !grams || !text->start;
    for (size_t i = 0; i < n && !failed; i++) {
        size_t n_grams = learn_grams(rows[i]->prompt, rows[i]->n_prompt, grams), at = text->start[i];
        if (at + n_grams > text->capacity) {
            size_t capacity = 2 * (at + n_grams); /* at most LEARN_MAX_GRAMS a prompt: no overflow */
            uint32_t *grown = realloc(text->hash, capacity * sizeof *grown);
            if (!grown) {
                failed = 1;
                break;
            }
            text->hash = grown;
            text->capacity = capacity;
        }
        for (size_t k = 0; k < n_grams; k++) text->hash[at + k] = grams[k].hash;
        text->start[i + 1] = at + n_grams;
    }
    free(grams);
    if (!failed) return MINIM_OK;
    train_text_free(text);
    return MINIM_ERR_MEMORY;
}

static int train_compare_hashes(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* ---- one model from some of the prompts ------------------------------------------------------------------------- */

typedef struct train_job {
    const minim_route_label *const *rows;
    const train_text *text;
    const uint32_t *pick; /* [n] the prompts to learn from */
    size_t n;
    uint32_t *all; /* scratch: every n-gram of those prompts, sorted */
    /* the matrix */
    size_t *start;
    uint32_t *column;
    float *value;
    double *target, *ridge, *weights;
} train_job;

/* Keeps the n-grams that several prompts share: one that is in a single prompt says nothing about others. */
static minim_status train_vocabulary(train_job *job, minim_route_model **out) {
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < job->n; i++) {
        size_t from = job->text->start[job->pick[i]], to = job->text->start[job->pick[i] + 1];
        memcpy(job->all + n, job->text->hash + from, (to - from) * sizeof *job->all);
        n += to - from;
    }
    qsort(job->all, n, sizeof *job->all, train_compare_hashes);
    for (int pass = 0; pass < 2; pass++) {
        if (pass && !(*out = learn_model_new(kept))) return MINIM_ERR_MEMORY;
        kept = 0;
        for (size_t i = 0, end; i < n; i = end) {
            for (end = i; end < n && job->all[end] == job->all[i];) end++;
            if (end - i < TRAIN_MIN_PROMPTS) continue;
            if (pass) {
                (*out)->hash[kept] = job->all[i];
                (*out)->rarity[kept] = (float)log((double)(job->n + 1) / (double)(end - i));
            }
            kept++;
        }
    }
    return MINIM_OK;
}

/* Writes the row of a prompt: its known n-grams by rarity, scaled to length 1. Both lists are in order of hash. */
static size_t train_row(const minim_route_model *model, const uint32_t *hash, size_t n, uint32_t *column,
                        float *value) {
    size_t used = 0, j = 0;
    double square = 0;
    for (size_t i = 0; i < n; i++) {
        size_t low = j, high = model->n;
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            if (model->hash[middle] < hash[i])
                low = middle + 1;
            else
                high = middle;
        }
        j = low;
        if (j == model->n) break;
        if (model->hash[j] != hash[i]) continue;
        column[used] = (uint32_t)j;
        value[used++] = model->rarity[j];
        square += (double)model->rarity[j] * (double)model->rarity[j];
    }
    float scale = square > 0 ? (float)(1 / sqrt(square)) : 0;
    for (size_t k = 0; k < used; k++) value[k] *= scale;
    return used;
}

/* Where the prompts' shapes lie. */
static void train_shapes(const train_job *job, minim_route_model *model) {
    double sum[LEARN_SHAPES] = {0}, square[LEARN_SHAPES] = {0}, shape[LEARN_SHAPES];
    for (size_t i = 0; i < job->n; i++) {
        const minim_route_label *row = job->rows[job->pick[i]];
        learn_shape(row->prompt, row->n_prompt, shape);
        for (int k = 0; k < LEARN_SHAPES; k++) {
            sum[k] += shape[k];
            square[k] += shape[k] * shape[k];
        }
    }
    for (int k = 0; k < LEARN_SHAPES; k++) {
        double n = (double)job->n, mean = sum[k] / n, variance = square[k] / n - mean * mean;
        model->shape_middle[k] = (float)mean;
        model->shape_spread[k] = variance > 1e-6 ? (float)sqrt(variance) : 1;
    }
}

static minim_status train_heads(train_job *job, minim_route_model *model) {
    size_t n_values = 0, n_columns = model->n + LEARN_SHAPES;
    double shape[LEARN_SHAPES];
    for (size_t i = 0; i < job->n; i++) {
        size_t from = job->text->start[job->pick[i]], to = job->text->start[job->pick[i] + 1];
        job->start[i] = n_values;
        n_values += train_row(model, job->text->hash + from, to - from, job->column + n_values, job->value + n_values);
        learn_model_shape(model, job->rows[job->pick[i]]->prompt, job->rows[job->pick[i]]->n_prompt, shape);
        for (size_t k = 0; k < LEARN_SHAPES; k++, n_values++) {
            job->column[n_values] = (uint32_t)(model->n + k);
            job->value[n_values] = (float)shape[k];
        }
    }
    job->start[job->n] = n_values;
    learn_matrix x = {job->n, n_columns, job->start, job->column, job->value};
    for (size_t j = 0; j < n_columns; j++) job->ridge[j] = j < model->n ? TRAIN_RIDGE : TRAIN_SHAPE_RIDGE;
    for (int head = 0; head < 2; head++) {
        double mean = 0;
        for (size_t i = 0; i < job->n; i++) {
            const minim_route_label *row = job->rows[job->pick[i]];
            job->target[i] = head ? row->strong : row->weak;
            mean += job->target[i] / (double)job->n;
        }
        double base = mean < 0.001 ? 0.001 : mean > 0.999 ? 0.999 : mean;
        double bias = log(base / (1 - base));
        if (head)
            model->info.strong_mean = mean;
        else
            model->info.weak_mean = mean;
        memset(job->weights, 0, n_columns * sizeof *job->weights);
        minim_status status = learn_logistic(&x, job->target, job->ridge, job->weights, &bias);
        if (status != MINIM_OK) return status;
        model->bias[head] = (float)bias;
        for (size_t j = 0; j < model->n; j++) model->weights[head][j] = (float)job->weights[j];
        for (size_t k = 0; k < LEARN_SHAPES; k++) {
            model->shape_weights[head][k] = (float)job->weights[model->n + k];
        }
    }
    model->info.n_labels = job->n;
    model->info.n_grams = model->n;
    return MINIM_OK;
}

static minim_status train_pick(const minim_route_label *const *rows, const train_text *text, const uint32_t *pick,
                               size_t n, minim_route_model **model) {
    size_t most = text->start[text->n] + (n + 1) * LEARN_SHAPES;
    train_job job = {.rows = rows, .text = text, .pick = pick, .n = n};
    job.all = malloc(most * sizeof *job.all);
    job.start = malloc((n + 1) * sizeof *job.start);
    job.column = malloc(most * sizeof *job.column);
    job.value = malloc(most * sizeof *job.value);
    job.target = malloc((n + 1) * sizeof *job.target);
    job.ridge = malloc(most * sizeof *job.ridge);
    job.weights = malloc(most * sizeof *job.weights);
    minim_status status = MINIM_ERR_MEMORY;
    minim_route_model *made = NULL;
    if (job.all && job.start && job.column && job.value && job.target && job.ridge && job.weights) {
        status = train_vocabulary(&job, &made);
        if (status == MINIM_OK) train_shapes(&job, made);
        if (status == MINIM_OK) status = train_heads(&job, made);
    }
    free(job.all);
    free(job.start);
    free(job.column);
    free(job.value);
    free(job.target);
    free(job.ridge);
    free(job.weights);
    if (status == MINIM_OK)
        *model = made;
    else
        minim_route_model_free(made);
    return status;
}

/* ---- figures from prompts that were not learned from ------------------------------------------------------------ */

typedef struct train_check {
    const minim_route_label *const *rows;
    const train_text *text;
    size_t n;
    uint32_t *order, *pick; /* [n] shuffled; the prompts of a fold's complement */
    double *score, *familiarity, *weak, *strong;
} train_check;

static minim_status train_fold(train_check *check, size_t fold, size_t n_folds) {
    size_t n_pick = 0;
    minim_route_model *model = NULL;
    for (size_t i = 0; i < check->n; i++) {
        if (i % n_folds != fold) check->pick[n_pick++] = check->order[i];
    }
    minim_status status = train_pick(check->rows, check->text, check->pick, n_pick, &model);
    for (size_t i = fold; i < check->n && status == MINIM_OK; i += n_folds) {
        uint32_t at = check->order[i];
        minim_route_prediction p = {.size = sizeof p};
        status = minim_route_predict(model, check->rows[at]->prompt, check->rows[at]->n_prompt, &p);
        /* Of a fold that has many gains the rest has few: without its own mean each fold would be ranked against that.
         */
        check->score[at] = p.score - (model->info.strong_mean - model->info.weak_mean);
        check->familiarity[at] = p.familiarity;
    }
    minim_route_model_free(model);
    return status;
}

static int train_compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Cross-validates: the APGR that is to be expected, and how familiar a prompt of this kind is that was not learned. */
static minim_status train_cross_validate(const minim_route_label *const *rows, const train_text *text, size_t n,
                                         const minim_route_train_options *options, minim_route_model_info *info) {
    train_check check = {.rows = rows, .text = text, .n = n};
    check.order = malloc(n * sizeof *check.order);
    check.pick = malloc(n * sizeof *check.pick);
    check.score = malloc(4 * n * sizeof *check.score);
    minim_status status = check.order && check.pick && check.score ? MINIM_OK : MINIM_ERR_MEMORY;
    if (status == MINIM_OK) {
        check.familiarity = check.score + n;
        check.weak = check.score + 2 * n;
        check.strong = check.score + 3 * n;
        learn_shuffle(check.order, n, options->seed);
        for (size_t i = 0; i < n; i++) {
            check.weak[i] = rows[i]->weak;
            check.strong[i] = rows[i]->strong;
        }
    }
    for (size_t fold = 0; fold < (size_t)options->n_folds && status == MINIM_OK; fold++) {
        status = train_fold(&check, fold, (size_t)options->n_folds);
    }
    if (status == MINIM_OK) {
        minim_route_report report = {.size = sizeof report};
        minim_route_eval_options eval;
        minim_route_eval_options_default(&eval);
        eval.weak = check.weak;
        eval.strong = check.strong;
        eval.seed = options->seed;
        eval.n_bootstrap = 400;
        status = minim_route_evaluate(check.score, n, &eval, &report, NULL);
        info->apgr = report.apgr;
        /* One prompt in fifty of this kind is abstained from, so that most of another kind can be. */
        qsort(check.familiarity, n, sizeof *check.familiarity, train_compare_doubles);
        info->familiarity = check.familiarity[n / 50];
    }
    free(check.order);
    free(check.pick);
    free(check.score);
    return status;
}

/* To what the nine digits of a file give back exactly: a saved model says the same as the one that was trained. */
static void train_round(minim_route_model_info *info) {
    double *const doubles[] = {&info->weak_mean,  &info->strong_mean, &info->familiarity,
                               &info->apgr.value, &info->apgr.low,    &info->apgr.high};
    for (size_t i = 0; i < sizeof doubles / sizeof *doubles; i++) *doubles[i] = (double)(float)*doubles[i];
}

/* So that nobody takes the prompts it was trained on for a test. */
static minim_status train_remember(minim_route_model *model, const minim_route_label *const *rows, size_t n) {
    model->learned = malloc(n * sizeof *model->learned);
    if (!model->learned) return MINIM_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) model->learned[i] = learn_prompt_hash(rows[i]->prompt, rows[i]->n_prompt);
    qsort(model->learned, n, sizeof *model->learned, train_compare_hashes);
    for (size_t i = 0; i < n; i++) {
        if (!i || model->learned[i] != model->learned[i - 1]) model->learned[model->n_learned++] = model->learned[i];
    }
    return MINIM_OK;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

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
    train_text text;
    uint32_t *pick = malloc(n * sizeof *pick);
    if (!pick || train_read(&text, rows, n)) {
        free(pick);
        return router_fail_memory(error, "the training");
    }
    minim_route_model *made = NULL;
    for (size_t i = 0; i < n; i++) pick[i] = (uint32_t)i;
    status = train_pick(rows, &text, pick, n, &made);
    if (status == MINIM_OK) status = train_remember(made, rows, n);
    if (status == MINIM_OK) {
        made->info.apgr = (minim_route_figure){(double)NAN, (double)NAN, (double)NAN};
        if (options.n_folds) status = train_cross_validate(rows, &text, n, &options, &made->info);
    }
    train_text_free(&text);
    free(pick);
    if (status != MINIM_OK) {
        minim_route_model_free(made);
        return router_fail_memory(error, "the training");
    }
    train_round(&made->info);
    *model = made;
    return MINIM_OK;
}
