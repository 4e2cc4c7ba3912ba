/* route_calibrate.c: `minim route calibrate`: what the scores of a local model's answers are worth. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "route.h"
#include "route_learn.h"

typedef struct calibrate_settings {
    const char *output, *method, *model, *quantisation, *map;
    float alpha, delta;
    uint64_t seed;
    int json, resplits, labels;
} calibrate_settings;

#define CALIBRATE(field) offsetof(calibrate_settings, field)

static const option calibrate_options[] = {
    {"-o, --output", "FILE", OPTION_STRING, CALIBRATE(output), 0, 0,
     "where the calibration goes, beside those of other\nmodels that the file holds; \"calibration\" of\nminim.json"},
    {"--method", "avg_logprob|margin|quantile|learned|self_consistency|verify", OPTION_CHOICE, CALIBRATE(method), 0, 0,
     "which score (default avg_logprob); agreement and\nverdicts stand in the column score;\n\"confidence_method\" of "
     "minim.json"},
    {"--alpha", "X", OPTION_FLOAT, CALIBRATE(alpha), 0.001, 0.999,
     "certify a bar above which at most this share of\nanswers is wrong (default 0.1)"},
    {"--delta", "X", OPTION_FLOAT, CALIBRATE(delta), 0.001, 0.999, "with all but this probability (default 0.1)"},
    {"--map", "auto|platt|isotonic", OPTION_CHOICE, CALIBRATE(map), 0, 0,
     "auto: Platt under 500 labels, isotonic from there"},
    {"--model-name", "NAME", OPTION_STRING, CALIBRATE(model), 0, 0,
     "whose answers these are, where the file does not\nsay"},
    {"--quantisation", "TEXT", OPTION_STRING, CALIBRATE(quantisation), 0, 0,
     "likewise, as `minim ask --json` prints it"},
    {"--seed", "N", OPTION_U64, CALIBRATE(seed), 0, 0, "of the halves and folds (default 1)"},
    {"--resplits", "N", OPTION_INT, CALIBRATE(resplits), 1, 100000,
     "instead: N times calibrate with --labels of the\nanswers, drawn at random, and measure on the others"},
    {"--labels", "N", OPTION_INT, CALIBRATE(labels), 20, 1 << 24, "how many (default 200)"},
    {"--json", NULL, OPTION_FLAG, CALIBRATE(json), 0, 0, "print one JSON object for each model"},
    {0},
};

static const option_usage calibrate_usage = {
    .command = "route calibrate",
    .synopsis = "route calibrate [OPTIONS] ANSWERS.tsv",
    .about = "Learns from judged answers of a local model how often it is right at which score.",
    .epilogue =
        "ANSWERS.tsv has the columns correct (0 or 1), model, quantisation and the signals, as `minim route collect`\n"
        "writes them, or score instead of the signals. A calibration is good for the model and quantisation it was "
        "made\n"
        "with, for answers made without a temperature, and for prompts like these.",
    .max_arguments = 1,
};

#ifdef MINIM_WITH_ROUTER

static void calibrate_write_number(const char *name, double number, int *first) {
    json_write_name(stdout, name, first);
    json_write_number(stdout, number, 9);
}

static void calibrate_write(const minim_route_calibration_info *info) {
    int first = 1;
    putchar('{');
    json_write_name(stdout, "model", &first);
    json_write_string(stdout, info->model, strlen(info->model));
    json_write_name(stdout, "quantisation", &first);
    json_write_string(stdout, info->quantisation, strlen(info->quantisation));
    json_write_name(stdout, "method", &first);
    json_write_string(stdout, minim_route_method_name(info->method), strlen(minim_route_method_name(info->method)));
    json_write_name(stdout, "map", &first);
    fputs(info->isotonic ? "\"isotonic\"" : "\"platt\"", stdout);
    calibrate_write_number("labels", (double)info->n_labels, &first);
    calibrate_write_number("calibration_labels", (double)info->n_calibration, &first);
    calibrate_write_number("base_rate", info->base_rate, &first);
    calibrate_write_number("auroc", info->auroc, &first);
    calibrate_write_number("ece", info->ece, &first);
    calibrate_write_number("brier", info->brier, &first);
    calibrate_write_number("alpha", info->alpha, &first);
    calibrate_write_number("delta", info->delta, &first);
    json_write_name(stdout, "certified", &first);
    fputs(info->certified ? "true" : "false", stdout);
    calibrate_write_number("bar_score", info->certified ? info->bar_score : (double)NAN, &first);
    calibrate_write_number("bar_confidence", info->certified ? info->bar_confidence : (double)NAN, &first);
    calibrate_write_number("accepted", info->accepted, &first);
    calibrate_write_number("bound", info->certified ? info->bound : (double)NAN, &first);
    calibrate_write_number("labels_missing", info->labels_missing < 0 ? (double)NAN : info->labels_missing, &first);
    puts("}");
}

static void calibrate_print(const minim_route_calibration_info *info) {
    printf("model        %s (%s)\nlabels       %llu, %.1f %% right; %s, %s%s\n",
           info->model[0] ? info->model : "no name",
           info->quantisation[0] ? info->quantisation : "quantisation not said", (unsigned long long)info->n_labels,
           100 * info->base_rate, minim_route_method_name(info->method), info->isotonic ? "isotonic" : "Platt",
           info->method == MINIM_ROUTE_LEARNED ? ", half of them for the signals' weights" : "");
    printf("held out     AUROC %.3f, ECE %.3f, Brier %.3f\n", info->auroc, info->ece, info->brier);
    if (info->auroc < 0.55)
        puts("             The score hardly tells right from wrong: the confidence is nearly the base rate.");
    if (info->certified) {
        printf(
            "certified    confidence >= %.3f keeps %.0f %% of the answers; of those at most %.0f %% are wrong, with\n"
            "             probability %.0f %%\n",
            info->bar_confidence, 100 * info->accepted, 100 * info->alpha, 100 * (1 - info->delta));
    } else if (info->labels_missing < 0) {
        printf("certified    nothing: no bar has fewer than %.0f %% wrong answers above it, and more labels would not\n"
               "             change that. With \"threshold_semantics\": \"certified\" everything goes to the remote.\n",
               100 * info->alpha);
    } else {
        printf("certified    nothing yet: about %.0f labels are missing, if they are like these. Until then\n"
               "             \"threshold_semantics\": \"certified\" sends everything to the remote.\n",
               info->labels_missing);
    }
}

/* ---- is a promise kept on answers that were not learned from? ---------------------------------------------------- */

/* The usual bar of a cascade. */
static const double calibrate_high = 0.8;

typedef struct calibrate_sums {
    double ece, ece_mass, brier, auroc, accepted;
    double high, high_right; /* answers with a confidence of at least calibrate_high, and how many of them are right */
    int certified, broken;
} calibrate_sums;

/* What a calibration sees of an answer. */
static minim_route_features calibrate_features(const minim_route_label *row) {
    minim_route_features features = {.size = sizeof features, .has_signals = row->has_signals};
    memcpy(features.signals, row->signals, sizeof features.signals);
    features.has_agreement = features.has_verdict = !isnan(row->score);
    features.agreement = features.verdict = row->score;
    return features;
}

/* Calibrates with the first n_labels of rows[n] and measures on the others; memory[3 n]. */
static int calibrate_split(const minim_route_label *const *rows, size_t n, size_t n_labels,
                           const minim_route_calibrate_options *options, double *memory, calibrate_sums *sums) {
    double *confidence = memory, *right = memory + n, *score = memory + 2 * n, accepted = 0, wrong = 0;
    size_t n_held = n - n_labels;
    minim_route_calibration *calibration = NULL;
    minim_route_calibration_info info = {.size = sizeof info};
    minim_error error = {.status = MINIM_OK};
    if (minim_route_calibration_new(&calibration, &error) ||
        minim_route_calibrate(calibration, rows, n_labels, options, &info, &error)) {
        minim_route_calibration_free(calibration);
        return tool_fail_error(&error);
    }
    int code = -1;
    for (size_t i = 0; i < n_held && code < 0; i++) {
        minim_route_features features = calibrate_features(rows[n_labels + i]);
        if (!minim_route_apply_calibration(calibration, options->model, options->quantisation, options->method,
                                           &features))
            code = tool_fail("--resplits: an answer has no signals, which %s is made of",
                             minim_route_method_name(options->method));
        confidence[i] = features.confidence;
        right[i] = rows[n_labels + i]->weak;
        score[i] = -features.confidence;
        sums->high += features.confidence >= calibrate_high;
        sums->high_right += features.confidence >= calibrate_high ? right[i] : 0;
        accepted += features.certified;
        wrong += features.certified && right[i] < 0.5;
    }
    minim_route_calibration_free(calibration);
    if (code >= 0) return code;
    minim_route_report report = {.size = sizeof report};
    minim_route_eval_options eval;
    minim_route_eval_options_default(&eval);
    eval.weak = eval.strong = right;
    eval.confidence = confidence;
    eval.n_bootstrap = 0;
    if (minim_route_evaluate(score, n_held, &eval, &report, &error)) return tool_fail_error(&error);
    sums->ece += report.ece;
    sums->ece_mass += report.ece_mass;
    sums->brier += report.brier;
    sums->auroc += isnan(report.auroc.value) ? 0.5 : report.auroc.value;
    sums->accepted += accepted / (double)n_held;
    sums->certified += info.certified;
    sums->broken += accepted > 0 && wrong / accepted > options->alpha;
    return -1;
}

static void calibrate_print_resplits(const calibrate_settings *settings, const minim_route_calibrate_options *options,
                                     size_t n, const calibrate_sums *sums) {
    double times = settings->resplits, allowed = options->delta * times;
    /* what chance adds to delta: three standard deviations of a binomial */
    double slack = 3 * sqrt(times * options->delta * (1 - options->delta));
    if (settings->json) {
        int first = 1;
        putchar('{');
        json_write_name(stdout, "model", &first);
        json_write_string(stdout, options->model, strlen(options->model));
        json_write_name(stdout, "method", &first);
        printf("\"%s\"", minim_route_method_name(options->method));
        calibrate_write_number("resplits", times, &first);
        calibrate_write_number("labels", settings->labels, &first);
        calibrate_write_number("held_out", (double)n - settings->labels, &first);
        calibrate_write_number("auroc", sums->auroc / times, &first);
        calibrate_write_number("ece", sums->ece / times, &first);
        calibrate_write_number("ece_mass", sums->ece_mass / times, &first);
        calibrate_write_number("brier", sums->brier / times, &first);
        calibrate_write_number("bar_0.8_kept", sums->high / times / ((double)n - settings->labels), &first);
        calibrate_write_number("bar_0.8_right", sums->high > 0 ? sums->high_right / sums->high : (double)NAN, &first);
        calibrate_write_number("certified", sums->certified, &first);
        calibrate_write_number("broken", sums->broken, &first);
        calibrate_write_number("allowed", allowed, &first);
        calibrate_write_number("slack", slack, &first);
        calibrate_write_number("accepted", sums->accepted / times, &first);
        puts("}");
        return;
    }
    printf("%s (%s), %s: mean of %d resplits, %d labels, %zu answers held out\n", options->model, options->quantisation,
           minim_route_method_name(options->method), settings->resplits, settings->labels,
           n - (size_t)settings->labels);
    printf("held out     AUROC %.3f, ECE %.3f (equal mass %.3f), Brier %.3f\n", sums->auroc / times, sums->ece / times,
           sums->ece_mass / times, sums->brier / times);
    if (sums->high > 0)
        printf("confidence   of at least %.1f: %.1f %% of the answers, of which %.1f %% are right\n", calibrate_high,
               100 * sums->high / times / ((double)n - settings->labels), 100 * sums->high_right / sums->high);
    else
        printf("confidence   of at least %.1f: none of the answers\n", calibrate_high);
    printf(
        "promise      at most %.0f %% wrong: certified in %d, keeping %.0f %% of the answers on average; broken in %d"
        "\n             (delta allows %.0f, and chance %.0f more)\n",
        100 * options->alpha, sums->certified, 100 * sums->accepted / (sums->certified ? (double)sums->certified : 1),
        sums->broken, allowed, slack);
    if (sums->broken > allowed + slack) puts("             THE PROMISE IS NOT KEPT on these answers");
}

static int calibrate_resplit(const calibrate_settings *settings, const minim_route_label **rows, size_t n,
                             const minim_route_calibrate_options *options) {
    route_labels shuffled = {.rows = rows, .n = n};
    calibrate_sums sums = {0};
    if (n < (size_t)settings->labels + 20)
        return tool_fail("found %zu judged answers, expected at least %d, 20 more than --labels", n,
                         settings->labels + 20);
    double *memory = malloc(3 * n * sizeof *memory);
    int code = memory ? -1 : tool_fail("out of memory for %zu answers", n);
    for (int i = 0; i < settings->resplits && code < 0; i++) {
        route_shuffle_labels(&shuffled, settings->seed + (uint64_t)i);
        code = calibrate_split(rows, n, (size_t)settings->labels, options, memory, &sums);
    }
    free(memory);
    if (code < 0) calibrate_print_resplits(settings, options, n, &sums);
    return code;
}

/* ---- calibrating --------------------------------------------------------------------------------------------------
 */

/* Whether two answers are of one model and quantisation. */
static int calibrate_is_same(const minim_route_label *a, const minim_route_label *b) {
    return !strcmp(a->model, b->model) && !strcmp(a->quantisation, b->quantisation);
}

/* Calibrates the model of rows[0] and moves the others to the front of rows; *n is then how many there are. */
static int calibrate_one(const calibrate_settings *settings, minim_route_calibration *calibration,
                         const minim_route_label **rows, size_t *n, const minim_route_label **mine) {
    minim_route_calibrate_options options;
    minim_route_calibration_info info = {.size = sizeof info};
    minim_error error = {.status = MINIM_OK};
    const minim_route_label *first = rows[0];
    size_t n_mine = 0, n_others = 0;
    for (size_t i = 0; i < *n; i++) {
        if (calibrate_is_same(first, rows[i]))
            mine[n_mine++] = rows[i];
        else
            rows[n_others++] = rows[i];
    }
    *n = n_others;
    minim_route_calibrate_options_default(&options);
    options.model = first->model[0] || !settings->model ? first->model : settings->model;
    options.quantisation =
        first->quantisation[0] || !settings->quantisation ? first->quantisation : settings->quantisation;
    if (settings->method) minim_route_method_parse(settings->method, &options.method);
    /* 0.1 as a float is 0.10000000149: back to the digits that were typed. */
    options.alpha = rint((double)settings->alpha * 1e6) / 1e6;
    options.delta = rint((double)settings->delta * 1e6) / 1e6;
    options.seed = settings->seed;
    if (settings->map && strcmp(settings->map, "auto") != 0) options.isotonic = !strcmp(settings->map, "isotonic");
    if (settings->resplits) return calibrate_resplit(settings, mine, n_mine, &options);
    if (minim_route_calibrate(calibration, mine, n_mine, &options, &info, &error)) return tool_fail_error(&error);
    if (settings->json)
        calibrate_write(&info);
    else
        calibrate_print(&info);
    return -1;
}

static int calibrate_run(const calibrate_settings *settings, const char *path) {
    route_labels labels = {0};
    minim_route_calibration *calibration = NULL;
    minim_error error = {.status = MINIM_OK};
    if (settings->resplits && settings->output)
        return options_complain("route calibrate", "--resplits only measures: it goes without -o");
    int code = route_load_labels(path, &labels);
    size_t n = 0;
    /* Answers that nobody has judged yet are no labels. */
    for (size_t i = 0; i < labels.n && code < 0; i++) {
        if (!isnan(labels.rows[i]->weak)) labels.rows[n++] = labels.rows[i];
    }
    if (code < 0 && !n) code = tool_fail("%s: no answer is judged: expected 0 or 1 in the column correct", path);
    const minim_route_label **mine = code < 0 ? malloc(n * sizeof *mine) : NULL;
    if (code < 0 && (!mine || minim_route_calibration_new(&calibration, &error)))
        code = tool_fail("out of memory for %zu labels", n);
    while (code < 0 && n) code = calibrate_one(settings, calibration, labels.rows, &n, mine);
    tool_catch_interrupt(); /* what is being written is written to its end */
    if (code < 0 && settings->output && minim_route_calibration_save(calibration, settings->output, &error))
        code = tool_fail_error(&error);
    minim_route_calibration_free(calibration);
    free(mine);
    route_free_labels(&labels);
    return code < 0 ? EXIT_CODE_OK : code;
}

#else

static int calibrate_run(const calibrate_settings *settings, const char *path) {
    (void)settings, (void)path;
    return tool_fail("this minim was built without libcurl and jansson");
}

#endif

int route_calibrate(int argc, char **argv) {
    calibrate_settings settings = {.alpha = 0.1F, .delta = 0.1F, .seed = 1, .labels = 200};
    option_list arguments = {0};
    const option_table tables[] = {{"calibration", calibrate_options, &settings}, {0}};
    int code = options_parse(&calibrate_usage, tables, argc, argv, &arguments);
    const char *path = code < 0 ? route_one_file("route calibrate", &arguments, "a file of judged answers") : NULL;
    if (code < 0) code = path ? calibrate_run(&settings, path) : EXIT_CODE_USAGE;
    option_list_free(&arguments);
    return code;
}
