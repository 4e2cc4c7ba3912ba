/* calib.c: what the scores of a local model's answers are worth: fits, keeps and applies calibrations. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calib.h"
#include "eval.h"

enum { CALIB_MIN_LABELS = 20, CALIB_MAX_LABELS = 1 << 24, CALIB_ISOTONIC_FROM = 500, CALIB_FOLDS = 5 };

void minim_route_calibrate_options_default(minim_route_calibrate_options *options) {
    if (!options) return;
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
    options->model = options->quantisation = "";
    options->alpha = options->delta = 0.1;
    options->isotonic = -1;
    options->seed = 1;
}

/* ---- a set of entries ------------------------------------------------------------------------------------------- */

minim_status minim_route_calibration_new(minim_route_calibration **calibration, minim_error *error) {
    if (!calibration) return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_calibration_new: NULL");
    minim_route_calibration *c = calloc(1, sizeof *c);
    if (!c) return router_fail_memory(error, "a calibration");
    *calibration = c;
    return MINIM_OK;
}

void minim_route_calibration_free(minim_route_calibration *calibration) {
    if (!calibration) return;
    for (size_t i = 0; i < calibration->n; i++) calib_map_free(&calibration->entries[i].map);
    free(calibration->entries);
    free(calibration);
}

size_t minim_route_calibration_count(const minim_route_calibration *calibration) {
    return calibration ? calibration->n : 0;
}

minim_status minim_route_calibration_get(const minim_route_calibration *calibration, size_t index,
                                         minim_route_calibration_info *info) {
    if (!calibration || index >= calibration->n || !info || info->size <= sizeof info->size) return MINIM_ERR_ARGUMENT;
    size_t size = info->size < sizeof *info ? info->size : sizeof *info;
    memcpy(info, &calibration->entries[index].info, size);
    info->size = size;
    return MINIM_OK;
}

static calib_entry *calib_find(const minim_route_calibration *c, const char *model, const char *quantisation,
                               minim_route_method method) {
    for (size_t i = 0; i < c->n; i++) {
        const minim_route_calibration_info *info = &c->entries[i].info;
        if (info->method == method && !strcmp(info->model, model) && !strcmp(info->quantisation, quantisation)) {
            return &c->entries[i];
        }
    }
    return NULL;
}

minim_status calib_put(minim_route_calibration *calibration, calib_entry *entry) {
    calib_entry *place = calib_find(calibration, entry->info.model, entry->info.quantisation, entry->info.method);
    if (!place) {
        minim_status status = calibration->n < CALIB_MAX_ENTRIES ? MINIM_OK : MINIM_ERR_SPACE;
        calib_entry *grown = NULL;
        if (status == MINIM_OK) {
            grown = realloc(calibration->entries, (calibration->n + 1) * sizeof *grown);
            if (!grown) status = MINIM_ERR_MEMORY;
        }
        if (status != MINIM_OK) {
            calib_map_free(&entry->map);
            return status;
        }
        calibration->entries = grown;
        place = &grown[calibration->n++];
        memset(place, 0, sizeof *place);
    }
    calib_map_free(&place->map);
    *place = *entry;
    return MINIM_OK;
}

/* ---- "learned" -------------------------------------------------------------------------------------------------- */

/* With some hundred labels the signals, which say much the same, must share their weight rather than fight for it. */
static const double calib_head_ridge = 5;

static double calib_head_term(const calib_head *head, const double *signals, int k) {
    double z = (signals[k] - head->middle[k]) / head->spread[k];
    return z > 4 ? 4 : z > -4 ? z : -4; /* also for what is no number */
}

double calib_head_score(const calib_head *head, const double *signals) {
    double sum = head->bias;
    for (int k = 0; k < MINIM_ROUTE_N_SIGNALS; k++) sum += head->weight[k] * calib_head_term(head, signals, k);
    return learn_sigmoid(sum);
}

static void calib_head_scale(calib_head *head, const minim_route_label *const *rows, size_t n) {
    for (int k = 0; k < MINIM_ROUTE_N_SIGNALS; k++) {
        double mean = 0, variance = 0;
        for (size_t i = 0; i < n; i++) mean += rows[i]->signals[k] / (double)n;
        for (size_t i = 0; i < n; i++) {
            double off = rows[i]->signals[k] - mean;
            variance += off * off / (double)n;
        }
        head->middle[k] = mean;
        head->spread[k] = variance > 1e-12 ? sqrt(variance) : 1;
    }
}

minim_status calib_head_fit(calib_head *head, const minim_route_label *const *rows, size_t n) {
    enum { K = MINIM_ROUTE_N_SIGNALS };
    memset(head, 0, sizeof *head);
    calib_head_scale(head, rows, n);
    double ridge[K], *target = malloc(n * sizeof *target);
    size_t *start = malloc((n + 1) * sizeof *start);
    uint32_t *column = malloc(n * K * sizeof *column);
    float *value = malloc(n * K * sizeof *value);
    minim_status status = MINIM_ERR_MEMORY;
    if (target && start && column && value) {
        for (size_t i = 0; i < n; i++) {
            start[i] = i * K;
            target[i] = rows[i]->weak;
            for (int k = 0; k < K; k++) {
                column[i * K + (size_t)k] = (uint32_t)k;
                value[i * K + (size_t)k] = (float)calib_head_term(head, rows[i]->signals, k);
            }
        }
        start[n] = n * K;
        for (int k = 0; k < K; k++) ridge[k] = calib_head_ridge;
        learn_matrix x = {n, K, start, column, value};
        status = learn_logistic(&x, target, ridge, LEARN_EXACT, head->weight, &head->bias);
    }
    free(target);
    free(start);
    free(column);
    free(value);
    return status;
}

/* ---- fitting an entry ------------------------------------------------------------------------------------------- */

typedef struct calib_job {
    const minim_route_label *const *rows; /* shuffled */
    size_t n;                             /* all labels */
    size_t n_fit;                         /* the first so many fit the head, the others calibrate */
    double *score, *right, *confidence;   /* [n - n_fit] */
    double *part_score, *part_right;      /* [n - n_fit] of a fold */
} calib_job;

/* Expected calibration error and Brier score of maps that have not seen what they are tried on. */
static minim_status calib_cross_validate(const calib_job *job, calib_entry *entry) {
    size_t n = job->n - job->n_fit;
    for (size_t fold = 0; fold < CALIB_FOLDS; fold++) {
        calib_map map;
        size_t m = 0;
        for (size_t i = 0; i < n; i++) {
            if (i % CALIB_FOLDS == fold) continue;
            job->part_score[m] = job->score[i];
            job->part_right[m++] = job->right[i];
        }
        minim_status status = calib_fit(&map, entry->map.isotonic, job->part_score, job->part_right, m);
        if (status != MINIM_OK) return status;
        for (size_t i = fold; i < n; i += CALIB_FOLDS) job->confidence[i] = calib_apply(&map, job->score[i]);
        calib_map_free(&map);
    }
    eval_order order;
    if (eval_order_new(&order, job->score, n)) return MINIM_ERR_MEMORY;
    entry->info.auroc = eval_auroc(job->right, NULL, &order);
    eval_order_free(&order);
    entry->info.ece = eval_ece_width(job->confidence, job->right, n);
    entry->info.brier = eval_brier(job->confidence, job->right, n);
    return MINIM_OK;
}

/* Whether the signals say what the score is; agreement and verdicts only stand in the score itself. */
static int calib_has_signals(const minim_route_label *row, minim_route_method method) {
    return row->has_signals && method != MINIM_ROUTE_SELF_CONSISTENCY && method != MINIM_ROUTE_VERIFY;
}

static minim_status calib_run(const calib_job *job, calib_entry *entry) {
    minim_route_calibration_info *info = &entry->info;
    size_t n = job->n - job->n_fit;
    minim_status status = MINIM_OK;
    if (job->n_fit) status = calib_head_fit(&entry->head, job->rows, job->n_fit);
    if (status != MINIM_OK) return status;
    for (size_t i = 0; i < n; i++) {
        const minim_route_label *row = job->rows[job->n_fit + i];
        job->right[i] = row->weak;
        if (job->n_fit)
            job->score[i] = calib_head_score(&entry->head, row->signals);
        else
            job->score[i] =
                calib_has_signals(row, info->method) ? router_signal_score(info->method, row->signals) : row->score;
    }
    for (size_t i = 0; i < job->n; i++) info->base_rate += job->rows[i]->weak / (double)job->n;
    status = calib_fit(&entry->map, info->isotonic, job->score, job->right, n);
    if (status == MINIM_OK) status = calib_cross_validate(job, entry);
    calib_bar bar;
    if (status == MINIM_OK) status = calib_find_bar(&bar, job->score, job->right, n, info->alpha, info->delta);
    if (status != MINIM_OK) return status;
    info->certified = bar.certified;
    info->bar_score = bar.score;
    info->bar_confidence = bar.certified ? calib_apply(&entry->map, bar.score) : 0;
    info->accepted = bar.accepted;
    info->bound = bar.bound;
    /* Only a part of new labels calibrates. */
    info->labels_missing = bar.labels_missing < 0 ? -1 : ceil(bar.labels_missing * (double)job->n / (double)n);
    return MINIM_OK;
}

static minim_status calib_check(const minim_route_label *const *rows, size_t n, const minim_route_calibrate_options *o,
                                minim_error *error) {
    size_t right = 0;
    if (!(o->alpha > 0 && o->alpha < 1 && o->delta > 0 && o->delta < 1)) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "alpha is %g and delta %g, expected numbers between 0 and 1",
                           o->alpha, o->delta);
    }
    if ((unsigned)o->method > MINIM_ROUTE_VERIFY)
        return router_fail(error, MINIM_ERR_ARGUMENT, "the method is none that can be calibrated");
    const size_t most = sizeof((minim_route_calibration_info *)0)->model; /* of the quantisation as well */
    if (!o->model || !o->quantisation || strlen(o->model) >= most || strlen(o->quantisation) >= most)
        return router_fail(error, MINIM_ERR_ARGUMENT, "the name of the model or its quantisation is NULL or too long");
    if (n < CALIB_MIN_LABELS || n > CALIB_MAX_LABELS)
        return router_fail(error, MINIM_ERR_ARGUMENT, "found %zu labels, expected %d to %d", n, CALIB_MIN_LABELS,
                           CALIB_MAX_LABELS);
    for (size_t i = 0; i < n; i++) {
        const minim_route_label *row = rows[i];
        if (!row || (row->weak != 0 && row->weak != 1))
            return router_fail(error, MINIM_ERR_ARGUMENT, "label %zu: expected an answer judged 0 or 1", i);
        if (!row->has_signals && o->method == MINIM_ROUTE_LEARNED)
            return router_fail(error, MINIM_ERR_ARGUMENT, "label %zu: expected all signals, for the method learned", i);
        if (!calib_has_signals(row, o->method) && !(row->score >= 0 && row->score <= 1))
            return router_fail(error, MINIM_ERR_ARGUMENT, "label %zu: expected signals, or a score from 0 to 1", i);
        right += row->weak > 0;
    }
    if (right < 2 || right > n - 2)
        return router_fail(error, MINIM_ERR_ARGUMENT, "found %zu right answers of %zu, expected some of both kinds",
                           right, n);
    return MINIM_OK;
}

/* Shuffles the labels, and so the halves and folds, by the seed alone. */
static minim_status calib_start(calib_job *job, const minim_route_label *const *rows, size_t n,
                                const minim_route_calibrate_options *o, const minim_route_label **shuffled,
                                double *memory) {
    uint32_t *order = malloc(n * sizeof *order);
    if (!order || !shuffled || !memory) {
        free(order);
        return MINIM_ERR_MEMORY;
    }
    learn_shuffle(order, n, o->seed);
    for (size_t i = 0; i < n; i++) shuffled[i] = rows[order[i]];
    free(order);
    *job = (calib_job){.rows = shuffled, .n = n, .n_fit = o->method == MINIM_ROUTE_LEARNED ? n / 2 : 0};
    double **const arrays[] = {&job->score, &job->right, &job->confidence, &job->part_score, &job->part_right};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) *arrays[i] = memory + i * n;
    return MINIM_OK;
}

minim_status minim_route_calibrate(minim_route_calibration *calibration, const minim_route_label *const *rows, size_t n,
                                   const minim_route_calibrate_options *options, minim_route_calibration_info *info,
                                   minim_error *error) {
    minim_route_calibrate_options o;
    minim_route_calibrate_options_default(&o);
    if (!calibration || !rows || router_copy_sized(&o, sizeof o, options))
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_calibrate: calibration, rows or options is NULL");
    minim_status status = calib_check(rows, n, &o, error);
    if (status != MINIM_OK) return status;
    calib_job job;
    calib_entry entry;
    memset(&entry, 0, sizeof entry);
    minim_route_calibration_info *e = &entry.info;
    const minim_route_label **shuffled = malloc(n * sizeof *shuffled);
    double *memory = malloc(5 * n * sizeof *memory);
    status = calib_start(&job, rows, n, &o, shuffled, memory);
    if (status == MINIM_OK) {
        e->size = sizeof *e;
        memcpy(e->model, o.model, strlen(o.model) + 1);
        memcpy(e->quantisation, o.quantisation, strlen(o.quantisation) + 1);
        e->method = o.method;
        e->n_labels = n;
        e->n_calibration = n - job.n_fit;
        e->isotonic = o.isotonic < 0 ? e->n_calibration >= CALIB_ISOTONIC_FROM : o.isotonic != 0;
        entry.map.isotonic = e->isotonic;
        e->alpha = o.alpha;
        e->delta = o.delta;
        status = calib_run(&job, &entry);
        if (status == MINIM_OK)
            status = calib_put(calibration, &entry);
        else
            calib_map_free(&entry.map);
    }
    free(shuffled);
    free(memory);
    if (status == MINIM_ERR_SPACE) return router_fail(error, status, "more than %d calibrations", CALIB_MAX_ENTRIES);
    if (status != MINIM_OK) return router_fail_memory(error, "the calibration");
    if (!info) return MINIM_OK;
    return minim_route_calibration_get(
        calibration, (size_t)(calib_find(calibration, o.model, o.quantisation, o.method) - calibration->entries), info);
}

/* ---- using it --------------------------------------------------------------------------------------------------- */

int minim_route_apply_calibration(const minim_route_calibration *calibration, const char *model,
                                  const char *quantisation, minim_route_method method, minim_route_features *features) {
    if (!features || features->size < offsetof(minim_route_features, has_prompt_score)) return 0;
    features->has_confidence = features->certified = 0;
    features->confidence = features->learned_score = 0;
    if (!calibration || !model || !quantisation) return 0;
    /* The caller's struct may be an older one, which has no agreement and no verdict. */
    minim_route_features all;
    memset(&all, 0, sizeof all);
    if (router_copy_sized(&all, sizeof all, features)) return 0;
    int is_known = method == MINIM_ROUTE_VERIFY             ? all.has_verdict
                   : method == MINIM_ROUTE_SELF_CONSISTENCY ? all.has_agreement
                                                            : all.has_signals;
    if (!is_known) return 0;
    const calib_entry *entry = calib_find(calibration, model, quantisation, method);
    if (!entry) return 0;
    double score = method == MINIM_ROUTE_LEARNED            ? calib_head_score(&entry->head, all.signals)
                   : method == MINIM_ROUTE_VERIFY           ? all.verdict
                   : method == MINIM_ROUTE_SELF_CONSISTENCY ? all.agreement
                                                            : router_signal_score(method, all.signals);
    features->learned_score = method == MINIM_ROUTE_LEARNED ? score : 0;
    features->confidence = calib_apply(&entry->map, score);
    features->certified = entry->info.certified && score >= entry->info.bar_score;
    features->has_confidence = 1;
    return 1;
}
