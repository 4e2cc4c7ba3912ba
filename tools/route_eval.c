/* route_eval.c: `minim route eval`: what a router is worth on prompts whose answers were judged. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "output.h"
#include "route.h"
#include "route_learn.h"

typedef struct eval_settings {
    option_list models;
    const char *svg;
    int cascade, bootstrap, json, train, splits;
    float local_price, verify_price, remote_price;
    uint64_t seed;
} eval_settings;

#define EVAL(field) offsetof(eval_settings, field)

static const option eval_what_options[] = {
    {"--model", "FILE", OPTION_LIST, EVAL(models), 0, 0,
     "what `minim route train` wrote; may be given several\ntimes, the first is compared with the others"},
    {"--train", "N", OPTION_INT, EVAL(train), 20, 200000,
     "instead: learn from N prompts drawn at random and\nmeasure on the others"},
    {"--splits", "N", OPTION_INT, EVAL(splits), 1, 1000, "so many times (default 20)"},
    {0},
};

static const option eval_how_options[] = {
    {"--cascade", NULL, OPTION_FLAG, EVAL(cascade), 0, 0,
     "count the local answer and its verification for every\nprompt: a cascade pays twice"},
    {"--local-price", "X", OPTION_FLOAT, EVAL(local_price), 0, 1e9, "of a local token (default 0)"},
    {"--verify-price", "X", OPTION_FLOAT, EVAL(verify_price), 0, 1e9,
     "of a verification token (default: the remote's)"},
    {"--remote-price", "X", OPTION_FLOAT, EVAL(remote_price), 0, 1e9, "of a remote token (default 1)"},
    {"--bootstrap", "N", OPTION_INT, EVAL(bootstrap), 0, 100000, "resamples for the intervals (default 1000; 0: none)"},
    {"--seed", "N", OPTION_U64, EVAL(seed), 0, 0, "of resamples and splits (default 1)"},
    {"--svg", "FILE", OPTION_STRING, EVAL(svg), 0, 0, "draw the curves"},
    {"--json", NULL, OPTION_FLAG, EVAL(json), 0, 0, "print one JSON object"},
    {0},
};

static const option_usage eval_usage = {
    .command = "route eval",
    .synopsis = "route eval [OPTIONS] LABELS.tsv",
    .about = "Measures routers on prompts whose answers were judged, beside a random one and an oracle.",
    .epilogue =
        "LABELS.tsv has the columns weak and strong: the quality of the local and of the remote answer, 0 to 1; and\n"
        "prompt for --model and --train. A column score (of the local answer, high = sure) is measured as a "
        "cascade's.\n"
        "Columns local_tokens, verify_tokens and remote_tokens make costs; without them a remote answer counts 1.\n\n"
        "PGR: share of the gap between the two models that is closed. APGR: its mean over all shares of prompts sent\n"
        "away, 0.5 for a random router. CPT50, CPT80: share to send for a PGR of 0.5, 0.8. AUC-DF: mean quality over\n"
        "all shares. AIQ: the same over all costs. IBC: lift of the incremental benefit per cost. AURC: mean share of\n"
        "wrong answers among the surest. In brackets: 95 % intervals.",
    .max_arguments = 1,
};

#ifdef MINIM_WITH_ROUTER

enum { EVAL_MOST = 8 };

/* One router that is measured. */
typedef struct eval_router {
    const char *name;
    minim_route_model *model;
    double *score, *confidence; /* [n] */
    int has_confidence;
    size_t abstained;
    minim_route_report report;
    minim_route_figure less; /* APGR of the first router minus this one's */
} eval_router;

typedef struct eval_task {
    const eval_settings *settings;
    const char *path;
    route_labels labels;
    double *weak, *strong, *costs[3]; /* [n]; costs: local, verify, remote */
    double *memory;                   /* of the routers' scores and confidences */
    eval_router routers[EVAL_MOST];
    size_t n_routers, n_learned; /* n_learned: prompts left out because a model learned from them */
    minim_route_eval_options options;
} eval_task;

static void eval_task_free(eval_task *task) {
    for (size_t k = 0; k < task->n_routers; k++) minim_route_model_free(task->routers[k].model);
    free(task->memory);
    free(task->weak);
    free(task->strong);
    for (int i = 0; i < 3; i++) free(task->costs[i]);
    route_free_labels(&task->labels);
}

/* Qualities and costs as arrays. */
static int eval_prepare(eval_task *task) {
    const eval_settings *settings = task->settings;
    size_t n = task->labels.n;
    double remote = (double)settings->remote_price;
    double verify = settings->verify_price < 0 ? remote : (double)settings->verify_price;
    task->weak = malloc((n + 1) * sizeof *task->weak);
    task->strong = malloc((n + 1) * sizeof *task->strong);
    for (int i = 0; i < 3; i++) task->costs[i] = malloc((n + 1) * sizeof **task->costs);
    if (!task->weak || !task->strong || !task->costs[0] || !task->costs[1] || !task->costs[2])
        return tool_fail("out of memory for %zu prompts", n);
    for (size_t i = 0; i < n; i++) {
        const minim_route_label *row = task->labels.rows[i];
        if (isnan(row->weak) || isnan(row->strong))
            return tool_fail("%s: prompt %zu: expected weak and strong", task->path, i + 1);
        task->weak[i] = row->weak;
        task->strong[i] = row->strong;
        task->costs[0][i] = (double)settings->local_price * (isnan(row->local_tokens) ? 1 : row->local_tokens);
        task->costs[1][i] = verify * (isnan(row->verify_tokens) ? 0 : row->verify_tokens);
        task->costs[2][i] = remote * (isnan(row->remote_tokens) ? 1 : row->remote_tokens);
    }
    minim_route_eval_options_default(&task->options);
    task->options.weak = task->weak;
    task->options.strong = task->strong;
    task->options.local_cost = task->costs[0];
    task->options.verify_cost = task->costs[1];
    task->options.remote_cost = task->costs[2];
    task->options.cascade = settings->cascade;
    task->options.n_bootstrap = settings->bootstrap;
    task->options.seed = settings->seed;
    return -1;
}

static eval_router *eval_add(eval_task *task, const char *name) {
    eval_router *router = &task->routers[task->n_routers];
    router->name = name;
    router->score = task->memory + 2 * task->n_routers * task->labels.n;
    router->confidence = router->score + task->labels.n;
    task->n_routers++;
    return router;
}

/* The column `score`: a cascade sends the least sure first. */
static void eval_add_column(eval_task *task) {
    size_t n = task->labels.n;
    int is_probability = 1;
    for (size_t i = 0; i < n; i++) {
        double score = task->labels.rows[i]->score;
        if (isnan(score)) return;
        is_probability &= score >= 0 && score <= 1;
    }
    eval_router *router = eval_add(task, "column score");
    router->has_confidence = is_probability;
    for (size_t i = 0; i < n; i++) {
        router->score[i] = -task->labels.rows[i]->score;
        router->confidence[i] = task->labels.rows[i]->score;
    }
}

static int eval_add_model(eval_task *task, const char *path) {
    minim_error error = {.status = MINIM_OK};
    eval_router *router = eval_add(task, path);
    router->has_confidence = 1;
    return minim_route_model_load(path, &router->model, &error) ? tool_fail_error(&error) : -1;
}

/* What the models say about prompts that none of them was trained on; the others are no test and go. */
static int eval_predict(eval_task *task) {
    size_t kept = 0;
    for (size_t i = 0; i < task->labels.n; i++) {
        const minim_route_label *row = task->labels.rows[i];
        int learned = 0, abstains[EVAL_MOST] = {0};
        for (size_t k = 0; k < task->n_routers; k++) {
            eval_router *router = &task->routers[k];
            minim_route_prediction p = {.size = sizeof p};
            if (!router->model) { /* the column */
                router->score[kept] = router->score[i];
                router->confidence[kept] = router->confidence[i];
                continue;
            }
            if (minim_route_predict(router->model, row->prompt, row->n_prompt, &p))
                return tool_fail("out of memory for a score");
            router->score[kept] = p.score;
            router->confidence[kept] = p.weak;
            learned |= p.learned;
            abstains[k] = p.abstained != 0;
        }
        if (learned) {
            task->n_learned++;
            continue;
        }
        for (size_t k = 0; k < task->n_routers; k++) task->routers[k].abstained += (size_t)abstains[k];
        task->labels.rows[kept++] = row;
    }
    task->labels.n = kept;
    if (kept) return -1;
    return tool_fail("%s: the models learned from all of these prompts: they say nothing about others", task->path);
}

static int eval_measure_all(eval_task *task) {
    minim_error error = {.status = MINIM_OK};
    for (size_t k = 0; k < task->n_routers; k++) {
        eval_router *router = &task->routers[k];
        minim_route_eval_options options = task->options;
        options.confidence = router->has_confidence ? router->confidence : NULL;
        router->report.size = sizeof router->report;
        if (minim_route_evaluate(router->score, task->labels.n, &options, &router->report, &error) ||
            (k && minim_route_compare(task->routers[0].score, router->score, task->labels.n, &options, &router->less,
                                      &error)))
            return tool_fail_error(&error);
    }
    return -1;
}

/* ---- what is printed --------------------------------------------------------------------------------------------- */

/* A gain that may be chance, or rests on prompts that the model does not know, is none. */
static int eval_beats_random(const eval_task *task, const eval_router *router) {
    return router->report.apgr.low > 0.5 && 2 * router->abstained < task->labels.n;
}

static void eval_print_base(const eval_task *task, const minim_route_report *r) {
    printf("%llu prompts: weak %.4f, strong %.4f; %llu better by strong, %llu by weak, %llu without success\n\n",
           (unsigned long long)r->n, r->weak_mean, r->strong_mean, (unsigned long long)r->strong_only,
           (unsigned long long)r->weak_only, (unsigned long long)r->neither);
    if (task->n_learned) printf("(left out: %zu prompts that a model was trained on)\n\n", task->n_learned);
    if (isnan(r->oracle_apgr)) {
        puts("APGR, CPT and PGR are n/a: the remote model is no better on these prompts");
        return;
    }
    printf("%-8s APGR %.4f, CPT50 %.2f %%, CPT80 %.2f %%\n", "random", r->random_apgr, 100 * r->random_cpt50,
           100 * r->random_cpt80);
    printf("%-8s APGR %.4f, CPT50 %.2f %%, CPT80 %.2f %%\n", "oracle", r->oracle_apgr, 100 * r->oracle_cpt50,
           100 * r->oracle_cpt80);
}

static void eval_print_router(const eval_task *task, size_t k) {
    const eval_router *router = &task->routers[k];
    const minim_route_report *r = &router->report;
    char t[80];
    printf("\n%s\n  APGR     %s\n", router->name, route_figure_text(&r->apgr, 1, 4, t, sizeof t));
    printf("  CPT50    %s %%\n", route_figure_text(&r->cpt50, 100, 2, t, sizeof t));
    printf("  CPT80    %s %%\n", route_figure_text(&r->cpt80, 100, 2, t, sizeof t));
    if (!isnan(r->pgr[0]))
        printf("  PGR      %.3f, %.3f, %.3f with 20, 50, 80 %% sent away\n", r->pgr[20], r->pgr[50], r->pgr[80]);
    printf("  AUC-DF   %s\n", route_figure_text(&r->auc_df, 1, 4, t, sizeof t));
    printf("  cost50   %s %% of all-remote\n", route_figure_text(&r->cost50, 100, 2, t, sizeof t));
    printf("  cost80   %s %%\n", route_figure_text(&r->cost80, 100, 2, t, sizeof t));
    printf("  AIQ      %s\n", route_figure_text(&r->aiq, 1, 4, t, sizeof t));
    printf("  IBC      %s %% more gained per cost than by all-remote, at CPT50\n",
           route_figure_text(&r->ibc50, 100, 1, t, sizeof t));
    printf("           %s %% at CPT80\n", route_figure_text(&r->ibc80, 100, 1, t, sizeof t));
    printf("  AUROC    %s for a right local answer\n", route_figure_text(&r->auroc, 1, 4, t, sizeof t));
    printf("  AURC     %s\n", route_figure_text(&r->aurc, 1, 4, t, sizeof t));
    if (router->has_confidence)
        printf("  ECE      %.4f (equal mass %.4f), Brier %.4f\n", r->ece, r->ece_mass, r->brier);
    if (k)
        printf("  APGR of %s is higher by %s\n", task->routers[0].name,
               route_figure_text(&router->less, 1, 4, t, sizeof t));
    if (2 * router->abstained >= task->labels.n)
        printf("  DOES NOT TRANSFER: it abstains on %zu of these prompts, which are unlike those it learned from\n",
               router->abstained);
    else if (router->abstained)
        printf("  abstains on %zu prompts (%.1f %%)\n", router->abstained,
               100 * (double)router->abstained / (double)task->labels.n);
    if (r->apgr.low <= 0.5) puts("  NO BETTER THAN RANDOM on these prompts, as far as they can tell");
}

static void eval_write_curve(const char *name, const double *values, int *first) {
    json_write_name(stdout, name, first);
    for (int i = 0; i < MINIM_ROUTE_CURVE; i++) {
        putchar(i ? ',' : '[');
        json_write_number(stdout, values[i], 6);
    }
    putchar(']');
}

static void eval_write_pair(const char *name, double number, int *first) {
    json_write_name(stdout, name, first);
    json_write_number(stdout, number, 9);
}

static void eval_write_router(const eval_task *task, size_t k) {
    const eval_router *router = &task->routers[k];
    const minim_route_report *r = &router->report;
    int first = 1;
    fputs(k ? ",{" : "{", stdout);
    json_write_name(stdout, "name", &first);
    json_write_string(stdout, router->name, strlen(router->name));
    route_write_figure("apgr", &r->apgr, &first);
    route_write_figure("cpt50", &r->cpt50, &first);
    route_write_figure("cpt80", &r->cpt80, &first);
    route_write_figure("auc_df", &r->auc_df, &first);
    route_write_figure("cost50", &r->cost50, &first);
    route_write_figure("cost80", &r->cost80, &first);
    route_write_figure("aiq", &r->aiq, &first);
    route_write_figure("ibc50", &r->ibc50, &first);
    route_write_figure("ibc80", &r->ibc80, &first);
    route_write_figure("auroc", &r->auroc, &first);
    route_write_figure("aurc", &r->aurc, &first);
    eval_write_pair("ece", r->ece, &first);
    eval_write_pair("ece_mass", r->ece_mass, &first);
    eval_write_pair("brier", r->brier, &first);
    eval_write_pair("abstained", (double)router->abstained, &first);
    json_write_name(stdout, "beats_random", &first);
    fputs(isnan(r->apgr.low) ? "null" : eval_beats_random(task, router) ? "true" : "false", stdout);
    if (k) route_write_figure("first_apgr_minus_this", &router->less, &first);
    eval_write_curve("quality", r->quality, &first);
    eval_write_curve("pgr", r->pgr, &first);
    eval_write_curve("cost", r->cost, &first);
    putchar('}');
}

static void eval_write_all(const eval_task *task, const minim_route_report *r) {
    int first = 1;
    putchar('{');
    eval_write_pair("prompts", (double)r->n, &first);
    eval_write_pair("left_out", (double)task->n_learned, &first);
    eval_write_pair("weak", r->weak_mean, &first);
    eval_write_pair("strong", r->strong_mean, &first);
    eval_write_pair("strong_only", (double)r->strong_only, &first);
    eval_write_pair("weak_only", (double)r->weak_only, &first);
    eval_write_pair("neither", (double)r->neither, &first);
    eval_write_pair("cost_weak", r->cost_weak, &first);
    eval_write_pair("cost_strong", r->cost_strong, &first);
    json_write_name(stdout, "random", &first);
    int inner = 1;
    putchar('{');
    eval_write_pair("apgr", r->random_apgr, &inner);
    eval_write_pair("cpt50", r->random_cpt50, &inner);
    eval_write_pair("cpt80", r->random_cpt80, &inner);
    putchar('}');
    json_write_name(stdout, "oracle", &first);
    inner = 1;
    putchar('{');
    eval_write_pair("apgr", r->oracle_apgr, &inner);
    eval_write_pair("cpt50", r->oracle_cpt50, &inner);
    eval_write_pair("cpt80", r->oracle_cpt80, &inner);
    eval_write_curve("quality", r->oracle_quality, &inner);
    putchar('}');
    json_write_name(stdout, "routers", &first);
    putchar('[');
    for (size_t k = 0; k < task->n_routers; k++) eval_write_router(task, k);
    puts("]}");
}

static int eval_draw(const eval_task *task, const minim_route_report *base) {
    const minim_route_report *reports[EVAL_MOST] = {base};
    const char *names[EVAL_MOST] = {"all weak to all strong"};
    minim_error error = {.status = MINIM_OK};
    tool_catch_interrupt(); /* what is being written is written to its end */
    for (size_t k = 0; k < task->n_routers; k++) {
        reports[k] = &task->routers[k].report;
        names[k] = task->routers[k].name;
    }
    size_t n = task->n_routers ? task->n_routers : 1;
    return minim_route_write_svg(task->settings->svg, reports, names, n, &error) ? tool_fail_error(&error) : -1;
}

/* The figures that no router is needed for: as of one that gives every prompt the same score. */
static int eval_base(const eval_task *task, minim_route_report *base) {
    minim_error error = {.status = MINIM_OK};
    double *zeros = calloc(task->labels.n, sizeof *zeros);
    minim_route_eval_options options = task->options;
    options.n_bootstrap = 0;
    base->size = sizeof *base;
    if (!zeros) return tool_fail("out of memory for scores");
    minim_status status = minim_route_evaluate(zeros, task->labels.n, &options, base, &error);
    free(zeros);
    return status ? tool_fail_error(&error) : -1;
}

static int eval_files(eval_task *task) {
    const eval_settings *settings = task->settings;
    minim_route_report base;
    int code = -1;
    eval_add_column(task);
    for (size_t i = 0; i < settings->models.n && code < 0; i++) code = eval_add_model(task, settings->models.items[i]);
    if (code < 0) code = eval_predict(task);
    if (code < 0) code = eval_prepare(task);
    if (code < 0) code = eval_measure_all(task);
    if (code < 0) code = eval_base(task, &base);
    if (code < 0 && settings->svg) code = eval_draw(task, &base);
    if (code >= 0) return code;
    if (settings->json) {
        eval_write_all(task, &base);
        return EXIT_CODE_OK;
    }
    eval_print_base(task, &base);
    for (size_t k = 0; k < task->n_routers; k++) eval_print_router(task, k);
    return EXIT_CODE_OK;
}

/* ---- learning and measuring on one file -------------------------------------------------------------------------- */

typedef struct eval_sums {
    double apgr, square, cpt50, cpt80, seconds, abstained;
} eval_sums;

static int eval_split(eval_task *task, size_t n_train, eval_sums *sums) {
    size_t n = task->labels.n - n_train;
    minim_error error = {.status = MINIM_OK};
    minim_route_model *model = NULL;
    double started = tool_seconds();
    if (minim_route_train(task->labels.rows, n_train, NULL, &model, &error)) return tool_fail_error(&error);
    sums->seconds += tool_seconds() - started;
    int code = -1;
    for (size_t i = 0; i < n && code < 0; i++) {
        const minim_route_label *row = task->labels.rows[n_train + i];
        minim_route_prediction p = {.size = sizeof p};
        if (minim_route_predict(model, row->prompt, row->n_prompt, &p)) code = tool_fail("out of memory for a score");
        task->routers[0].score[i] = p.score;
        sums->abstained += p.abstained / (double)n;
    }
    minim_route_model_free(model);
    if (code >= 0) return code;
    minim_route_report r = {.size = sizeof r};
    minim_route_eval_options options = task->options;
    options.weak = task->weak + n_train;
    options.strong = task->strong + n_train;
    options.local_cost = options.verify_cost = options.remote_cost = NULL;
    options.n_bootstrap = 0;
    if (minim_route_evaluate(task->routers[0].score, n, &options, &r, &error)) return tool_fail_error(&error);
    sums->apgr += r.apgr.value;
    sums->square += r.apgr.value * r.apgr.value;
    sums->cpt50 += r.cpt50.value;
    sums->cpt80 += r.cpt80.value;
    return -1;
}

static int eval_splits(eval_task *task) {
    const eval_settings *settings = task->settings;
    size_t n_train = (size_t)settings->train;
    eval_sums sums = {0};
    if (n_train + 20 > task->labels.n)
        return tool_fail("%s: found %zu prompts, expected at least %zu, 20 more than --train", task->path,
                         task->labels.n, n_train + 20);
    int code = -1;
    eval_add(task, "split");
    for (int i = 0; i < settings->splits && code < 0; i++) {
        route_shuffle_labels(&task->labels, settings->seed + (uint64_t)i);
        free(task->weak);
        free(task->strong);
        for (int k = 0; k < 3; k++) free(task->costs[k]);
        task->weak = task->strong = task->costs[0] = task->costs[1] = task->costs[2] = NULL;
        code = eval_prepare(task);
        if (code < 0) code = eval_split(task, n_train, &sums);
    }
    if (code >= 0) return code;
    double n = settings->splits, apgr = sums.apgr / n, variance = sums.square / n - apgr * apgr;
    double deviation = sqrt(variance > 0 ? variance : 0);
    if (settings->json) {
        int first = 1;
        putchar('{');
        eval_write_pair("splits", n, &first);
        eval_write_pair("train", (double)n_train, &first);
        eval_write_pair("apgr", apgr, &first);
        eval_write_pair("apgr_deviation", deviation, &first);
        eval_write_pair("cpt50", sums.cpt50 / n, &first);
        eval_write_pair("cpt80", sums.cpt80 / n, &first);
        eval_write_pair("abstained", sums.abstained / n, &first);
        eval_write_pair("train_seconds", sums.seconds / n, &first);
        puts("}");
    } else {
        printf("mean of %d splits, %zu labels each\n  APGR     %.4f (standard deviation %.4f)\n  CPT50    %.2f %%\n  "
               "CPT80   "
               " %.2f %%\n  abstains on %.1f %%; training took %.2f s\n",
               settings->splits, n_train, apgr, deviation, 100 * sums.cpt50 / n, 100 * sums.cpt80 / n,
               100 * sums.abstained / n, sums.seconds / n);
    }
    return EXIT_CODE_OK;
}

static int eval_command(const eval_settings *settings, const char *path) {
    eval_task task = {.settings = settings, .path = path};
    if (settings->train && (settings->models.n || settings->svg))
        return options_complain("route eval", "--train goes without --model and --svg");
    if (settings->models.n > EVAL_MOST - 1)
        return options_complain("route eval", "found %zu models, expected at most %d", settings->models.n,
                                EVAL_MOST - 1);
    int is_input = tool_is_same_file(settings->svg, path);
    for (size_t i = 0; i < settings->models.n; i++)
        is_input |= tool_is_same_file(settings->svg, settings->models.items[i]);
    if (is_input) return tool_fail("%s: --svg would overwrite an input", settings->svg);
    int code = route_load_labels(path, &task.labels);
    if (code < 0) {
        task.memory = malloc((2 * EVAL_MOST * task.labels.n + 1) * sizeof *task.memory);
        if (!task.memory) code = tool_fail("out of memory for the scores");
    }
    if (code < 0) code = settings->train ? eval_splits(&task) : eval_files(&task);
    eval_task_free(&task);
    return code;
}

#else

static int eval_command(const eval_settings *settings, const char *path) {
    (void)settings, (void)path;
    return tool_fail("this minim was built without libcurl and jansson");
}

#endif

int route_eval(int argc, char **argv) {
    eval_settings settings = {.bootstrap = 1000, .seed = 1, .splits = 20, .verify_price = -1, .remote_price = 1};
    option_list arguments = {0};
    const option_table tables[] = {
        {"routers", eval_what_options, &settings}, {"measuring", eval_how_options, &settings}, {0}};
    int code = options_parse(&eval_usage, tables, argc, argv, &arguments);
    const char *path = code < 0 ? route_one_file("route eval", &arguments, "a file of labels") : NULL;
    if (code < 0) code = path ? eval_command(&settings, path) : EXIT_CODE_USAGE;
    option_list_free(&arguments);
    option_list_free(&settings.models);
    return code;
}
