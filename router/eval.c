/* eval.c: measures a router on prompts whose answers were judged: figures, intervals, oracle and random. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"
#include "learn.h"

void minim_route_eval_options_default(minim_route_eval_options *options) {
    if (!options) return;
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
    options->n_bootstrap = 1000;
    options->seed = 1;
}

/* ---- what is needed while measuring ----------------------------------------------------------------------------- */

enum { EVAL_MAX_BOOTSTRAP = 100000, EVAL_MAX_PROMPTS = 1 << 26 };

typedef struct eval_job {
    minim_route_eval_options options;
    size_t n;
    double *keep, *leave; /* [n] costs of a prompt that stays, that leaves */
    eval_point *points;   /* [n + 1] */
    uint32_t *copies;     /* [n] */
    eval_order order;     /* by score */
    eval_order other;     /* by the confidence, the oracle's score or the second score */
} eval_job;

static void eval_job_free(eval_job *job) {
    free(job->keep);
    free(job->leave);
    free(job->points);
    free(job->copies);
    eval_order_free(&job->order);
    eval_order_free(&job->other);
}

static minim_status eval_check(const double *values, size_t n, double min, double max, const char *what,
                               minim_error *error) {
    for (size_t i = 0; values && i < n; i++) {
        if (values[i] >= min && values[i] <= max) continue;
        return router_fail(error, MINIM_ERR_ARGUMENT, "%s of prompt %zu: found %g, expected a number from %g to %g",
                           what, i, values[i], min, max);
    }
    return MINIM_OK;
}

static minim_status eval_job_start(eval_job *job, const double *score, size_t n,
                                   const minim_route_eval_options *options, minim_error *error) {
    *job = (eval_job){.n = n};
    minim_route_eval_options *o = &job->options;
    minim_route_eval_options_default(o);
    if (!score || !n || n > EVAL_MAX_PROMPTS || router_copy_sized(o, sizeof *o, options) || !o->weak || !o->strong ||
        o->n_bootstrap < 0 || o->n_bootstrap > EVAL_MAX_BOOTSTRAP) {
        return router_fail(error, MINIM_ERR_ARGUMENT,
                           "minim_route_evaluate: score, weak, strong and 1..%d prompts are needed, and at most %d "
                           "resamples",
                           EVAL_MAX_PROMPTS, EVAL_MAX_BOOTSTRAP);
    }
    minim_status status = eval_check(score, n, -1e300, 1e300, "score", error);
    if (status == MINIM_OK) status = eval_check(o->weak, n, 0, 1, "weak", error);
    if (status == MINIM_OK) status = eval_check(o->strong, n, 0, 1, "strong", error);
    if (status == MINIM_OK) status = eval_check(o->confidence, n, 0, 1, "confidence", error);
    if (status == MINIM_OK) status = eval_check(o->local_cost, n, 0, 1e100, "local cost", error);
    if (status == MINIM_OK) status = eval_check(o->verify_cost, n, 0, 1e100, "verification cost", error);
    if (status == MINIM_OK) status = eval_check(o->remote_cost, n, 0, 1e100, "remote cost", error);
    if (status != MINIM_OK) return status;
    job->keep = malloc(n * sizeof *job->keep);
    job->leave = malloc(n * sizeof *job->leave);
    job->points = malloc((n + 1) * sizeof *job->points);
    job->copies = malloc(n * sizeof *job->copies);
    if (!job->keep || !job->leave || !job->points || !job->copies || eval_order_new(&job->order, score, n)) {
        eval_job_free(job);
        return router_fail_memory(error, "the evaluation");
    }
    /* A cascade pays twice: what leaves was answered and verified at home first. */
    for (size_t i = 0; i < n; i++) {
        double local = (o->local_cost ? o->local_cost[i] : 0) + (o->verify_cost ? o->verify_cost[i] : 0);
        job->keep[i] = local;
        job->leave[i] = (o->remote_cost ? o->remote_cost[i] : 1) + (o->cascade ? local : 0);
    }
    return MINIM_OK;
}

static size_t eval_job_curve(const eval_job *job, const eval_order *order, const uint32_t *copies) {
    eval_input input = {job->n, job->options.weak, job->options.strong, job->keep, job->leave, copies};
    return eval_curve(&input, order, job->points);
}

static double eval_remote_cost(const eval_job *job, const uint32_t *copies) {
    double sum = 0;
    for (size_t i = 0; i < job->n; i++) {
        sum += (copies ? copies[i] : 1) * (job->options.remote_cost ? job->options.remote_cost[i] : 1);
    }
    return sum;
}

static double eval_local_cost(const eval_job *job, const uint32_t *copies) {
    double sum = 0;
    for (size_t i = 0; i < job->n && job->options.local_cost; i++)
        sum += (copies ? copies[i] : 1) * job->options.local_cost[i];
    return sum;
}

/* Draws n prompts with replacement. The same seed draws the same prompts for every router: intervals are paired. */
static void eval_resample(const eval_job *job, uint64_t *random) {
    memset(job->copies, 0, job->n * sizeof *job->copies);
    for (size_t i = 0; i < job->n; i++) job->copies[learn_random_below(random, (uint32_t)job->n)]++;
}

/* ---- intervals -------------------------------------------------------------------------------------------------- */

static int eval_compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sets the middle 95 % of values[n] as the interval; those that are NaN are left out. Sorts values. */
static void eval_interval(double *values, size_t n, minim_route_figure *figure) {
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isnan(values[i])) values[m++] = values[i];
    }
    figure->low = figure->high = (double)NAN;
    if (m < 20 || isnan(figure->value)) return;
    qsort(values, m, sizeof *values, eval_compare_doubles);
    figure->low = values[(size_t)(0.025 * (double)(m - 1))];
    figure->high = values[(size_t)ceil(0.975 * (double)(m - 1))];
}

static const minim_route_figure eval_unknown = {(double)NAN, (double)NAN, (double)NAN};

/* ---- a report --------------------------------------------------------------------------------------------------- */

enum { EVAL_N_FIGURES = 11 };

/* The figures that have intervals, in the order of eval_values(). */
static void eval_figure_list(minim_route_report *r, minim_route_figure **list) {
    minim_route_figure *const figures[EVAL_N_FIGURES] = {&r->apgr,  &r->cpt50,  &r->cpt80,  &r->auc_df,
                                                         &r->auroc, &r->cost50, &r->cost80, &r->aurc,
                                                         &r->aiq,   &r->ibc50,  &r->ibc80};
    memcpy(list, figures, sizeof figures);
}

static void eval_values(const eval_job *job, const uint32_t *copies, double *values) {
    eval_figures f;
    int has_confidence = job->options.confidence != NULL;
    size_t n = eval_job_curve(job, &job->order, copies);
    double remote = eval_remote_cost(job, copies);
    eval_measure(job->points, n, &f);
    /* Without a confidence a high score speaks against the local answer. */
    const eval_order *surest = has_confidence ? &job->other : &job->order;
    double auroc = eval_auroc(job->options.weak, copies, surest);
    if (!has_confidence) auroc = 1 - auroc;
    double aurc = eval_aurc(job->options.weak, copies, surest, !has_confidence);
    /* What the local model alone costs, unverified; its gain per cost is that of sending everything away. */
    double local = eval_local_cost(job, copies), aiq = eval_aiq(job->points, n);
    double ibc50 = 0.5 * (remote - local) / (f.cost50 - local) - 1,
           ibc80 = 0.8 * (remote - local) / (f.cost80 - local) - 1;
    const double all[EVAL_N_FIGURES] = {f.apgr,
                                        f.cpt50,
                                        f.cpt80,
                                        f.auc_df,
                                        auroc,
                                        f.cost50 / remote,
                                        f.cost80 / remote,
                                        aurc,
                                        aiq,
                                        f.cost50 > local ? ibc50 : (double)NAN,
                                        f.cost80 > local ? ibc80 : (double)NAN};
    memcpy(values, all, sizeof all);
}

static minim_status eval_bootstrap(const eval_job *job, minim_route_report *r) {
    size_t b = (size_t)job->options.n_bootstrap;
    if (!b) return MINIM_OK;
    double *samples = malloc(b * EVAL_N_FIGURES * sizeof *samples), values[EVAL_N_FIGURES];
    minim_route_figure *list[EVAL_N_FIGURES];
    uint64_t random = job->options.seed;
    if (!samples) return MINIM_ERR_MEMORY;
    for (size_t i = 0; i < b; i++) {
        eval_resample(job, &random);
        eval_values(job, job->copies, values);
        for (int k = 0; k < EVAL_N_FIGURES; k++) samples[(size_t)k * b + i] = values[k];
    }
    eval_figure_list(r, list);
    for (int k = 0; k < EVAL_N_FIGURES; k++) eval_interval(samples + (size_t)k * b, b, list[k]);
    free(samples);
    return MINIM_OK;
}

static void eval_count(const eval_job *job, minim_route_report *r) {
    for (size_t i = 0; i < job->n; i++) {
        double w = job->options.weak[i], s = job->options.strong[i];
        r->strong_only += s > w;
        r->weak_only += s < w;
        r->neither += s <= 0 && w <= 0;
        r->weak_mean += w / (double)job->n;
        r->strong_mean += s / (double)job->n;
        r->cost_weak += job->keep[i];
    }
    r->n = job->n;
    r->cost_strong = eval_remote_cost(job, NULL);
}

/* What a router would reach that knows both qualities. Uses job->other. */
static minim_status eval_oracle(eval_job *job, minim_route_report *r) {
    double *gain = malloc(job->n * sizeof *gain);
    if (!gain) return MINIM_ERR_MEMORY;
    for (size_t i = 0; i < job->n; i++) gain[i] = job->options.strong[i] - job->options.weak[i];
    minim_status status = eval_order_new(&job->other, gain, job->n);
    free(gain);
    if (status != MINIM_OK) return status;
    eval_figures f;
    size_t n = eval_job_curve(job, &job->other, NULL);
    eval_measure(job->points, n, &f);
    r->oracle_apgr = f.apgr;
    r->oracle_cpt50 = f.cpt50;
    r->oracle_cpt80 = f.cpt80;
    int defined = !isnan(f.apgr);
    r->random_apgr = defined ? 0.5 : (double)NAN;
    r->random_cpt50 = defined ? 0.5 : (double)NAN;
    r->random_cpt80 = defined ? 0.8 : (double)NAN;
    for (int i = 0; i < MINIM_ROUTE_CURVE; i++) {
        r->oracle_quality[i] = eval_at(job->points, n, i / (double)(MINIM_ROUTE_CURVE - 1)).quality;
    }
    eval_order_free(&job->other);
    return MINIM_OK;
}

static minim_status eval_run(eval_job *job, minim_route_report *r) {
    const double *confidence = job->options.confidence;
    minim_route_figure *list[EVAL_N_FIGURES];
    double values[EVAL_N_FIGURES];
    eval_count(job, r);
    minim_status status = eval_oracle(job, r);
    if (status == MINIM_OK && confidence) status = eval_order_new(&job->other, confidence, job->n);
    if (status != MINIM_OK) return status;
    r->ece = r->ece_mass = r->brier = (double)NAN;
    if (confidence) {
        r->ece = eval_ece_width(confidence, job->options.weak, job->n);
        r->ece_mass = eval_ece_mass(confidence, job->options.weak, &job->other);
        r->brier = eval_brier(confidence, job->options.weak, job->n);
    }
    eval_values(job, NULL, values);
    eval_figure_list(r, list);
    for (int k = 0; k < EVAL_N_FIGURES; k++) {
        *list[k] = eval_unknown;
        list[k]->value = values[k];
    }
    size_t n = eval_job_curve(job, &job->order, NULL);
    for (int i = 0; i < MINIM_ROUTE_CURVE; i++) {
        eval_point at = eval_at(job->points, n, i / (double)(MINIM_ROUTE_CURVE - 1));
        r->quality[i] = at.quality;
        r->cost[i] = at.cost;
    }
    double first = r->quality[0], gain = r->quality[MINIM_ROUTE_CURVE - 1] - first;
    for (int i = 0; i < MINIM_ROUTE_CURVE; i++)
        r->pgr[i] = isnan(r->apgr.value) ? (double)NAN : (r->quality[i] - first) / gain;
    return eval_bootstrap(job, r);
}

minim_status minim_route_evaluate(const double *score, size_t n, const minim_route_eval_options *options,
                                  minim_route_report *report, minim_error *error) {
    eval_job job;
    if (!report || report->size <= sizeof report->size)
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_evaluate: report is NULL or has no size");
    minim_status status = eval_job_start(&job, score, n, options, error);
    if (status != MINIM_OK) return status;
    minim_route_report r;
    memset(&r, 0, sizeof r);
    status = eval_run(&job, &r);
    eval_job_free(&job);
    if (status != MINIM_OK) return router_fail_memory(error, "the evaluation");
    r.size = report->size < sizeof r ? report->size : sizeof r;
    memcpy(report, &r, r.size);
    return MINIM_OK;
}

/* ---- two routers ------------------------------------------------------------------------------------------------ */

static double eval_apgr(const eval_job *job, const eval_order *order, const uint32_t *copies) {
    eval_figures f;
    eval_measure(job->points, eval_job_curve(job, order, copies), &f);
    return f.apgr;
}

minim_status minim_route_compare(const double *score_a, const double *score_b, size_t n,
                                 const minim_route_eval_options *options, minim_route_figure *difference,
                                 minim_error *error) {
    eval_job job;
    if (!score_b || !difference) return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_compare: NULL");
    minim_status status = eval_check(score_b, n, -1e300, 1e300, "score", error);
    if (status == MINIM_OK) status = eval_job_start(&job, score_a, n, options, error);
    if (status != MINIM_OK) return status;
    size_t b = (size_t)job.options.n_bootstrap;
    double *samples = malloc((b + 1) * sizeof *samples);
    uint64_t random = job.options.seed;
    if (!samples || eval_order_new(&job.other, score_b, n)) {
        free(samples);
        eval_job_free(&job);
        return router_fail_memory(error, "the comparison");
    }
    *difference = eval_unknown;
    difference->value = eval_apgr(&job, &job.order, NULL) - eval_apgr(&job, &job.other, NULL);
    for (size_t i = 0; i < b; i++) {
        eval_resample(&job, &random);
        samples[i] = eval_apgr(&job, &job.order, job.copies) - eval_apgr(&job, &job.other, job.copies);
    }
    eval_interval(samples, b, difference);
    free(samples);
    eval_job_free(&job);
    return MINIM_OK;
}
