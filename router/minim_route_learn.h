/* minim_route_learn.h: what a router learns from judged answers, and what it is worth.
 *
 *   minim_route_labels       prompts whose answers somebody judged, from a table.
 *   minim_route_evaluate     what a score is worth: quality against the share of prompts that are sent away.
 *   minim_route_model        a score of the prompt alone; minim_router_options.prompt_model.
 *   minim_route_calibration  from a score to P(the local answer is right); minim_router_options.calibration.
 *
 * A program that only routes needs no more of this than the two _load() and _free() calls, for the files that its
 * configuration names. Rules: those of minim_router.h. Everything here runs on the caller's thread and is
 * deterministic: the same input and seed give the same result.
 */
#ifndef MINIM_ROUTE_LEARN_H
#define MINIM_ROUTE_LEARN_H

#include "minim_router.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- judged answers ---------------------------------------------------------------------------------------------- */

/* One prompt whose answers were judged. A quality is from 0 (wrong) to 1 (right). NaN: the file does not say. */
typedef struct minim_route_label {
    const char *group, *prompt; /* "" when the file does not say */
    size_t n_prompt;            /* bytes of the prompt */
    double weak, strong;        /* quality of the local and of the remote answer */
    double score;               /* of the local answer */
    double local_tokens, verify_tokens, remote_tokens;
    int has_signals;
    double signals[MINIM_ROUTE_N_SIGNALS];
    const char *model, *quantisation; /* of the local model; "" when the file does not say */
    const char *expect;               /* what a right answer says; "" when the file does not say */
} minim_route_label;

typedef struct minim_route_labels minim_route_labels;

/* Reads tab-separated lines under a header line that names the columns: `prompt` (\t, \n, \r and \\ escaped), `group`,
 * `weak` (or `correct`), `strong`, `score`, `local_tokens`, `verify_tokens`, `remote_tokens`, `model`, `quantisation`
 * and the names of signals, in any order; other columns are passed over. An empty number is "not known". The error
 * names file, line and column. */
MINIM_API minim_status minim_route_labels_load(const char *path, minim_route_labels **labels, minim_error *error);
MINIM_API void minim_route_labels_free(minim_route_labels *labels);
MINIM_API size_t minim_route_labels_count(const minim_route_labels *labels);
/* NULL past the end. Lives as long as the labels. */
MINIM_API const minim_route_label *minim_route_labels_get(const minim_route_labels *labels, size_t index);

/* ---- what a router is worth -------------------------------------------------------------------------------------- */

typedef struct minim_route_eval_options {
    size_t size;
    const double *weak, *strong; /* [n] quality of both answers, 0..1; required */
    const double *confidence;    /* [n] P(the local answer is right); NULL = not known */
    const double *local_cost;  /* [n] what the local answer, its verification and the remote answer cost, in any one */
    const double *verify_cost; /*     unit; NULL = 0, and 1 for the remote: then costs are calls */
    const double *remote_cost;
    int cascade;     /* 1: the local answer is made (and verified) for every prompt, as in a cascade; 0: only where it
                        stands, as when the prompt alone decides */
    int n_bootstrap; /* resamples for the intervals; 0 = none; default 1000 */
    uint64_t seed;
} minim_route_eval_options;

MINIM_API void minim_route_eval_options_default(minim_route_eval_options *options);

/* A figure and its 95 % interval (bootstrap over prompts). NaN: not defined, or not asked for. */
typedef struct minim_route_figure {
    double value, low, high;
} minim_route_figure;

enum { MINIM_ROUTE_CURVE = 101 };

typedef struct minim_route_report {
    size_t size;
    uint64_t n, strong_only, weak_only, neither; /* prompts; strong > weak, strong < weak, both 0 */
    double weak_mean, strong_mean;
    minim_route_figure apgr;         /* area under PGR = (quality - weak) / (strong - weak) over the share sent away */
    minim_route_figure cpt50, cpt80; /* smallest share sent away with PGR >= 0.5, 0.8 */
    minim_route_figure auc_df;       /* area under the quality over the same share */
    minim_route_figure auroc;        /* of the confidence (else minus the score) for a right local answer, ties 1/2 */
    double ece, ece_mass, brier;     /* of the confidence: 10 bins of equal width, of equal mass; mean squared error */
    double cost_weak, cost_strong;   /* of all-local (verified when cascade) and all-remote, summed */
    minim_route_figure cost50, cost80;              /* of the router at cpt50 and cpt80, as a share of cost_strong */
    double oracle_apgr, oracle_cpt50, oracle_cpt80; /* a router that knows both answers' qualities */
    double random_apgr, random_cpt50, random_cpt80; /* a router that throws dice, on average */
    /* At i / 100 of the prompts sent away. */
    double quality[MINIM_ROUTE_CURVE], oracle_quality[MINIM_ROUTE_CURVE], cost[MINIM_ROUTE_CURVE];
    double pgr[MINIM_ROUTE_CURVE];
    minim_route_figure aurc; /* area under the share of wrong local answers over the share kept, surest first */
    minim_route_figure
        aiq; /* area under the hull, rising and bent down, of quality over cost, as a share of the most */
    minim_route_figure ibc50, ibc80; /* at cpt50, cpt80: quality gained per cost over that of all-remote, minus 1 */
} minim_route_report;

/* Measures a router that sends the prompts with the highest scores away first. score[n]; prompts of equal score are one
 * block that is sent in no particular order (linear interpolation), so the order of the input never matters.
 * Definitions: Ong et al. 2024 (PGR, APGR, CPT; exact trapezoids and first crossings instead of ten bins), Gupta et al.
 * 2024 (deferral curve), Guo et al. 2017 (ECE), Geifman & El-Yaniv 2017 (AURC; the prediction rejection ratio of
 * answers that are right or wrong is 2 AUROC - 1), Hu et al. 2024 (AIQ), Madaan et al. 2023 (IBC lift). What needs
 * strong_mean > weak_mean is NaN without. Numbers that are not finite are MINIM_ERR_ARGUMENT. */
MINIM_API minim_status minim_route_evaluate(const double *score, size_t n, const minim_route_eval_options *options,
                                            minim_route_report *report, minim_error *error);

/* APGR of score a minus that of score b on the same resamples (a paired bootstrap). */
MINIM_API minim_status minim_route_compare(const double *score_a, const double *score_b, size_t n,
                                           const minim_route_eval_options *options, minim_route_figure *difference,
                                           minim_error *error);

/* The curves of reports over the same prompts as one SVG image, with random and oracle. names[n] label them.
 * MINIM_ERR_IO when it can not be written; the file appears whole or not at all. */
MINIM_API minim_status minim_route_write_svg(const char *path, const minim_route_report *const *reports,
                                             const char *const *names, size_t n, minim_error *error);

/* ---- a score of the prompt alone --------------------------------------------------------------------------------- */

typedef struct minim_route_train_options {
    size_t size;
    uint64_t seed; /* of the folds */
    int n_folds;   /* of the cross-validation that chooses the ridges and makes the figures of _model_info; default 5.
                      0 = none: no figures, fixed ridges, and unfamiliar words are not abstained from */
} minim_route_train_options;

MINIM_API void minim_route_train_options_default(minim_route_train_options *options);

/* Trains two logistic heads on hashed word n-grams: P(weak is right) and P(strong is right). rows[n] have a prompt,
 * weak and strong. At least 20. Deterministic. */
MINIM_API minim_status minim_route_train(const minim_route_label *const *rows, size_t n,
                                         const minim_route_train_options *options, minim_route_model **model,
                                         minim_error *error);
MINIM_API void minim_route_model_free(minim_route_model *model);

typedef struct minim_route_model_info {
    size_t size;
    uint64_t n_labels, n_grams;
    double weak_mean, strong_mean; /* of the labels */
    minim_route_figure apgr;       /* cross-validated on the labels; NaN without folds */
    double familiarity;            /* prompts below it are abstained from */
    double ridge, shape_ridge;     /* how strongly the weights of words and of the shape are held back; 0 = not known */
} minim_route_model_info;

MINIM_API minim_status minim_route_model_get_info(const minim_route_model *model, minim_route_model_info *info);

typedef struct minim_route_prediction {
    size_t size;
    double weak, strong; /* P(right); the labels' means when it abstains */
    double score;        /* strong - weak: what sending the prompt away would gain */
    double familiarity;  /* share of the prompt's n-grams that were in the labelled prompts, rare ones count more */
    int abstained;       /* 1: too unfamiliar, the prediction says nothing */
    int learned;         /* 1: one of the prompts that were learned from: no test of the model */
} minim_route_prediction;

MINIM_API minim_status minim_route_predict(const minim_route_model *model, const char *prompt, size_t n_bytes,
                                           minim_route_prediction *prediction);

/* What one n-gram adds to the log-odds of both heads. The text is prompt[start .. start + length). */
typedef struct minim_route_reason_part {
    size_t start, length;
    double weak, strong;
} minim_route_reason_part;

/* The n-grams that move the score most, first. Returns how many were written to parts[capacity]. */
MINIM_API size_t minim_route_explain(const minim_route_model *model, const char *prompt, size_t n_bytes,
                                     minim_route_reason_part *parts, size_t capacity);

/* A JSON file with a version; written beside its place and renamed, so it is whole or not there. */
MINIM_API minim_status minim_route_model_save(const minim_route_model *model, const char *path, minim_error *error);
MINIM_API minim_status minim_route_model_load(const char *path, minim_route_model **model, minim_error *error);

/* ---- a score becomes a probability ------------------------------------------------------------------------------- */

/* A minim_route_calibration is what was learned about the answers of local models: an entry per model, quantisation and
 * method. */
typedef struct minim_route_calibrate_options {
    size_t size;
    const char *model, *quantisation; /* whose answers these are, as in minim_router_reply */
    minim_route_method method;        /* what the scores are */
    double alpha, delta; /* wanted: at most alpha of the accepted answers wrong, with probability 1 - delta; 0.1, 0.1 */
    int isotonic;        /* -1 (default): Platt under 500 labels, isotonic from there; 0, 1: always that */
    uint64_t seed;       /* of the half that "learned" is fitted on */
} minim_route_calibrate_options;

MINIM_API void minim_route_calibrate_options_default(minim_route_calibrate_options *options);

typedef struct minim_route_calibration_info {
    size_t size;
    char model[256], quantisation[256];
    minim_route_method method;
    int isotonic;
    uint64_t n_labels, n_calibration; /* all; those that calibrate (half of them with "learned") */
    double base_rate;                 /* of right answers */
    double auroc, ece, brier;         /* of the confidence, cross-validated */
    double alpha, delta;
    int certified;                                     /* 1: answers with a score >= bar_score keep the promise */
    double bar_score, bar_confidence, accepted, bound; /* share accepted, Clopper-Pearson bound of their error */
    double labels_missing; /* not certified: so many more, if they look like these; -1: no number would do */
} minim_route_calibration_info;

/* An empty one, to be filled by _calibrate(). */
MINIM_API minim_status minim_route_calibration_new(minim_route_calibration **calibration, minim_error *error);
MINIM_API void minim_route_calibration_free(minim_route_calibration *calibration);

/* Fits the entry for options' model, quantisation and method, in the place of an older one. rows[n] have weak (0 or 1)
 * and signals, or a score where the method is not "learned". At least 20 labels, of both kinds. info may be NULL. */
MINIM_API minim_status minim_route_calibrate(minim_route_calibration *calibration, const minim_route_label *const *rows,
                                             size_t n, const minim_route_calibrate_options *options,
                                             minim_route_calibration_info *info, minim_error *error);

MINIM_API size_t minim_route_calibration_count(const minim_route_calibration *calibration);
MINIM_API minim_status minim_route_calibration_get(const minim_route_calibration *calibration, size_t index,
                                                   minim_route_calibration_info *info);

/* Sets the calibrated part of *features: learned_score, has_confidence, confidence, certified. 0 when there is no entry
 * for this model, quantisation and method, or no signals: then has_confidence is 0. */
MINIM_API int minim_route_apply_calibration(const minim_route_calibration *calibration, const char *model,
                                            const char *quantisation, minim_route_method method,
                                            minim_route_features *features);

/* JSON, as with a model. _save() keeps the entries that others wrote into the file for other models meanwhile. */
MINIM_API minim_status minim_route_calibration_save(const minim_route_calibration *calibration, const char *path,
                                                    minim_error *error);
MINIM_API minim_status minim_route_calibration_load(const char *path, minim_route_calibration **calibration,
                                                    minim_error *error);

#ifdef __cplusplus
}
#endif
#endif
