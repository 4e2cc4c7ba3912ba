/* route_train.c: `minim route train`: learns from judged answers which prompts only the remote model gets right. */
#include <math.h>
#include <stdio.h>

#include "json.h"
#include "output.h"
#include "route.h"
#include "route_learn.h"

typedef struct train_settings {
    const char *output;
    int n_labels, folds, json;
    uint64_t seed;
} train_settings;

#define TRAIN(field) offsetof(train_settings, field)

static const option train_options[] = {
    {"-o, --output", "FILE", OPTION_STRING, TRAIN(output), 0, 0,
     "where the model goes; \"prompt_model\" of minim.json"},
    {"--labels", "N", OPTION_INT, TRAIN(n_labels), 0, 200000,
     "learn from N of the prompts, drawn at random\n(default 0: all)"},
    {"--folds", "N", OPTION_INT, TRAIN(folds), 0, 20,
     "folds of the cross-validation that chooses settings\nand measures; 0: neither (default 5)"},
    {"--seed", "N", OPTION_U64, TRAIN(seed), 0, 0, "of draws and folds (default 1)"},
    {"--json", NULL, OPTION_FLAG, TRAIN(json), 0, 0, "print one JSON object"},
    {0},
};

static const option_usage train_usage = {
    .command = "route train",
    .synopsis = "route train [OPTIONS] LABELS.tsv",
    .about = "Learns from judged answers which prompts only the remote model gets right.",
    .epilogue =
        "LABELS.tsv has a header line with the columns prompt, weak and strong: the quality of the local and of the\n"
        "remote answer, 0 to 1. Tabs and newlines in prompts are \\t and \\n. A model is good for prompts like those "
        "it\n"
        "learned from and for these two models; `minim route eval` tells.",
    .max_arguments = 1,
};

#ifdef MINIM_WITH_ROUTER

static void train_print(const train_settings *settings, const minim_route_model_info *info, double seconds) {
    char apgr[80];
    int known = !isnan(info->apgr.low), works = known && info->apgr.low > 0.5;
    if (settings->json) {
        int first = 1;
        putchar('{');
        json_write_name(stdout, "labels", &first);
        printf("%llu", (unsigned long long)info->n_labels);
        json_write_name(stdout, "n_grams", &first);
        printf("%llu", (unsigned long long)info->n_grams);
        json_write_name(stdout, "weak_mean", &first);
        json_write_number(stdout, info->weak_mean, 9);
        json_write_name(stdout, "strong_mean", &first);
        json_write_number(stdout, info->strong_mean, 9);
        route_write_figure("apgr", &info->apgr, &first);
        json_write_name(stdout, "ridge", &first);
        json_write_number(stdout, info->ridge, 6);
        json_write_name(stdout, "shape_ridge", &first);
        json_write_number(stdout, info->shape_ridge, 6);
        json_write_name(stdout, "beats_random", &first);
        fputs(known ? works ? "true" : "false" : "null", stdout);
        json_write_name(stdout, "seconds", &first);
        json_write_number(stdout, seconds, 4);
        puts("}");
        return;
    }
    printf("labels       %llu (%llu n-grams), %.2f s\nquality      weak %.4f, strong %.4f\n",
           (unsigned long long)info->n_labels, (unsigned long long)info->n_grams, seconds, info->weak_mean,
           info->strong_mean);
    printf("ridges       words %g, shape %g%s\nAPGR         %s", info->ridge, info->shape_ridge,
           known ? ", chosen by cross-validation" : "", route_figure_text(&info->apgr, 1, 3, apgr, sizeof apgr));
    puts(known ? ", cross-validated; random 0.5" : "");
    if (known && !works) {
        puts("             No better than random as far as these labels can tell: more labels, or prompts that\n"
             "             say more about themselves, are needed before this model is of use.");
    }
}

static int train_run(const train_settings *settings, const char *path) {
    route_labels labels = {0};
    minim_route_model *model = NULL;
    minim_error error = {.status = MINIM_OK};
    minim_route_train_options options;
    minim_route_train_options_default(&options);
    options.seed = settings->seed;
    options.n_folds = settings->folds;
    if (settings->folds == 1) return options_complain("route train", "--folds is 1, expected 0 or 2 to 20");
    if (tool_is_same_file(settings->output, path))
        return tool_fail("%s: -o would overwrite an input", settings->output);
    int code = route_load_labels(path, &labels);
    if (code < 0 && settings->n_labels) {
        if ((size_t)settings->n_labels > labels.n)
            code = tool_fail("%s: found %zu prompts, expected at least the %d of --labels", path, labels.n,
                             settings->n_labels);
        route_shuffle_labels(&labels, settings->seed);
        labels.n = code < 0 ? (size_t)settings->n_labels : labels.n;
    }
    double started = tool_seconds();
    if (code < 0 && minim_route_train(labels.rows, labels.n, &options, &model, &error)) code = tool_fail_error(&error);
    double seconds = tool_seconds() - started;
    tool_catch_interrupt(); /* what is being written is written to its end */
    if (code < 0 && settings->output && minim_route_model_save(model, settings->output, &error))
        code = tool_fail_error(&error);
    if (code < 0) {
        minim_route_model_info info = {.size = sizeof info};
        minim_route_model_get_info(model, &info);
        train_print(settings, &info, seconds);
    }
    minim_route_model_free(model);
    route_free_labels(&labels);
    return code < 0 ? EXIT_CODE_OK : code;
}

#else

static int train_run(const train_settings *settings, const char *path) {
    (void)settings, (void)path, (void)train_options;
    return tool_fail("this minim was built without libcurl and jansson");
}

#endif

int route_train(int argc, char **argv) {
    train_settings settings = {.folds = 5, .seed = 1};
    option_list arguments = {0};
    const option_table tables[] = {{"training", train_options, &settings}, {0}};
    int code = options_parse(&train_usage, tables, argc, argv, &arguments);
    const char *path = code < 0 ? route_one_file("route train", &arguments, "a file of labels") : NULL;
    if (code < 0) code = path ? train_run(&settings, path) : EXIT_CODE_USAGE;
    option_list_free(&arguments);
    return code;
}
