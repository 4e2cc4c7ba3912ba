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
    int json;
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
    calibrate_settings settings = {.alpha = 0.1F, .delta = 0.1F, .seed = 1};
    option_list arguments = {0};
    const option_table tables[] = {{"calibration", calibrate_options, &settings}, {0}};
    int code = options_parse(&calibrate_usage, tables, argc, argv, &arguments);
    const char *path = code < 0 ? route_one_file("route calibrate", &arguments, "a file of judged answers") : NULL;
    if (code < 0) code = path ? calibrate_run(&settings, path) : EXIT_CODE_USAGE;
    option_list_free(&arguments);
    return code;
}
