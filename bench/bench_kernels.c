/* bench_kernels.c: how far the kernels are from what the machine can do. bench/README.md explains the figures. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "../engine/minim.h"
#include "../tools/shapes.h"
#include "cases.h"
#include "report.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct kernels_settings {
    const char *shape, *model, *isas, *types, *tokens, *only;
    int n_threads, n_rounds, n_megabytes, json, limits, no_blas;
    double seconds;
} kernels_settings;

static const char kernels_help[] =
    "usage: bench_kernels [OPTIONS]\n\n"
    "Measures every kernel on every instruction set of this CPU, on the matrices of a model, beside the bandwidth of\n"
    "memory, the bare multiply-add instructions, the reference, and OpenBLAS.\n\n"
    "  --shape NAME      a known model's matrices (default tinyllama-1.1b; minim synth --list)\n"
    "  -m, --model FILE  the matrices and types of a GGUF file instead\n"
    "  --types LIST      weight types, \"all\" for all (default q4_0,q8_0)\n"
    "  --tokens LIST     tokens computed together (default 1,8,512)\n"
    "  --isa LIST        instruction sets (default: all that this CPU has)\n"
    "  --only TEXT       only kernels whose name contains TEXT, like \"Q4_0 ffn\" or \"softmax\"\n"
    "  -t, --threads N   threads (default: the CPUs this process may use)\n"
    "  -r, --rounds N    rounds (default 5)\n"
    "  --seconds S       length of a sample (default 0.02)\n"
    "  --memory MB       memory the weights lie in (default: three times the last-level cache)\n"
    "  --no-blas         leave OpenBLAS out\n"
    "  --limits          measure only bandwidth and multiply-adds\n"
    "  --json            print JSON instead of Markdown tables\n"
    "  -h, --help        this text\n";

#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
static int
kernels_complain(const char *format, ...);

#include <stdarg.h>

static int kernels_complain(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("bench_kernels: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs(" (see --help)\n", stderr);
    va_end(arguments);
    return EXIT_USAGE;
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static int kernels_number(const char *name, const char *text, double min, double max, double *value) {
    char *end;
    *value = strtod(text, &end);
    if (end == text || *end || !(*value >= min && *value <= max))
        return kernels_complain("%s: expected %g to %g, found \"%s\"", name, min, max, text);
    return -1;
}

static int kernels_int(const char *name, const char *text, int min, int max, int *value) {
    double number = 0;
    int code = kernels_number(name, text, min, max, &number);
    *value = (int)number;
    return code;
}

/* Returns -1 to go on, or an exit code. */
static int kernels_parse(int argc, char **argv, kernels_settings *s) {
    enum { SHAPE = 256, TYPES, TOKENS, ISA, ONLY, SECONDS, MEMORY, NO_BLAS, LIMITS, JSON };
    static const struct option options[] = {{"shape", required_argument, NULL, SHAPE},
                                            {"model", required_argument, NULL, 'm'},
                                            {"types", required_argument, NULL, TYPES},
                                            {"tokens", required_argument, NULL, TOKENS},
                                            {"isa", required_argument, NULL, ISA},
                                            {"only", required_argument, NULL, ONLY},
                                            {"threads", required_argument, NULL, 't'},
                                            {"rounds", required_argument, NULL, 'r'},
                                            {"seconds", required_argument, NULL, SECONDS},
                                            {"memory", required_argument, NULL, MEMORY},
                                            {"no-blas", no_argument, NULL, NO_BLAS},
                                            {"limits", no_argument, NULL, LIMITS},
                                            {"json", no_argument, NULL, JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int code = -1;
    for (int option; code < 0 && (option = getopt_long(argc, argv, "m:t:r:h", options, NULL)) >= 0;) {
        switch (option) {
        case SHAPE: s->shape = optarg; break;
        case 'm': s->model = optarg; break;
        case TYPES: s->types = optarg; break;
        case TOKENS: s->tokens = optarg; break;
        case ISA: s->isas = optarg; break;
        case ONLY: s->only = optarg; break;
        case 't': code = kernels_int("-t", optarg, 1, 256, &s->n_threads); break;
        case 'r': code = kernels_int("-r", optarg, 1, 1000, &s->n_rounds); break;
        case SECONDS: code = kernels_number("--seconds", optarg, 1e-4, 60, &s->seconds); break;
        case MEMORY: code = kernels_int("--memory", optarg, 1, INT_MAX, &s->n_megabytes); break;
        case NO_BLAS: s->no_blas = 1; break;
        case LIMITS: s->limits = 1; break;
        case JSON: s->json = 1; break;
        case 'h': fputs(kernels_help, stdout); return EXIT_OK;
        default: return kernels_complain("what does not fit stands above");
        }
    }
    if (code < 0 && optind < argc) return kernels_complain("unexpected argument \"%s\"", argv[optind]);
    return code;
}

/* Copies the next word of a list to `word`; 0 at the end. */
static int kernels_word(const char **list, char *word, size_t size) {
    size_t n = strcspn(*list, ",");
    if (!n && !**list) return 0;
    snprintf(word, size, "%.*s", (int)(n < size ? n : size - 1), *list);
    *list += n + ((*list)[n] == ',');
    return 1;
}

static int kernels_parse_types(const char *list, cases_plan *plan) {
    char word[16];
    int all = !strcmp(list, "all");
    while (!all && kernels_word(&list, word, sizeof word)) {
        uint32_t type = 0;
        while (type < KERN_TYPE_END &&
               (!kern_type_get(type).has_kernels || strcasecmp(kern_type_get(type).name, word) != 0))
            type++;
        if (type == KERN_TYPE_END || plan->n_types == CASES_TYPES)
            return kernels_complain("--types: there are no kernels for \"%s\"", word);
        plan->type[plan->n_types++] = type;
    }
    for (uint32_t type = 0; all && type < KERN_TYPE_END && plan->n_types < CASES_TYPES; type++) {
        if (kern_type_get(type).has_kernels) plan->type[plan->n_types++] = type;
    }
    return plan->n_types ? -1 : kernels_complain("--types: expected a type");
}

static int kernels_parse_isas(const char *list, cases_plan *plan) {
    char word[32];
    const char *name;
    while (list && kernels_word(&list, word, sizeof word)) {
        int i = 0;
        while ((name = kern_isa_name(i)) && strcmp(name, word) != 0) i++;
        if (!name || plan->n_isas == CASES_ISAS) return kernels_complain("--isa: \"%s\" is not known", word);
        if (!kern_isa_available(name)) return kernels_complain("--isa: this CPU does not have %s", word);
        plan->isa[plan->n_isas++] = name;
    }
    for (int i = 0; !list && (name = kern_isa_name(i)); i++) {
        if (kern_isa_available(name) && plan->n_isas < CASES_ISAS) plan->isa[plan->n_isas++] = name;
    }
    return plan->n_isas ? -1 : kernels_complain("--isa: expected a name");
}

static int kernels_parse_tokens(const char *list, cases_plan *plan) {
    char word[16];
    while (kernels_word(&list, word, sizeof word)) {
        if (plan->n_tokens == CASES_TOKENS) return kernels_complain("--tokens: expected at most %d", CASES_TOKENS);
        int code = kernels_int("--tokens", word, 1, 1 << 16, &plan->tokens[plan->n_tokens++]);
        if (code >= 0) return code;
    }
    return plan->n_tokens ? -1 : kernels_complain("--tokens: expected a number");
}

/* ---- matrices ---------------------------------------------------------------------------------------------------- */

/* Counts a matrix; the first of its shape gives the name. */
static void kernels_add_matrix(cases_plan *plan, const char *name, int64_t rows, int64_t cols, uint32_t type, int count,
                               int last) {
    int i = 0;
    while (i < plan->n_matrices && (plan->matrix[i].rows != rows || plan->matrix[i].cols != cols ||
                                    plan->matrix[i].type != type || plan->matrix[i].last != last))
        i++;
    if (i == CASES_MATRICES) return;
    cases_matrix *m = &plan->matrix[i];
    if (i == plan->n_matrices) {
        *m = (cases_matrix){.rows = rows, .cols = cols, .type = type, .last = last};
        snprintf(m->name, sizeof m->name, "%s", name);
        plan->n_matrices++;
    }
    m->count += count;
}

static int kernels_use_shape(const char *name, cases_plan *plan) {
    const tool_shape *shape = tool_shape_find(name);
    tool_matrix matrix[TOOL_LAYER_MATRICES];
    if (!shape) return kernels_complain("--shape: \"%s\" is not known", name);
    plan->model = shape->name;
    plan->n_embd = shape->n_embd, plan->n_ff = shape->n_ff, plan->head_dim = shape->head_dim;
    plan->n_heads = shape->n_heads, plan->n_kv_heads = shape->n_kv_heads;
    tool_shape_matrices(shape, matrix);
    for (int i = 0; i < TOOL_LAYER_MATRICES; i++)
        kernels_add_matrix(plan, matrix[i].name, matrix[i].rows, matrix[i].cols, CASES_ANY_TYPE, shape->n_layers, 0);
    kernels_add_matrix(plan, "output", shape->n_vocab, shape->n_embd, CASES_ANY_TYPE, 1, 1);
    return -1;
}

/* "blk.3.ffn_up.weight" -> "ffn_up" */
static void kernels_short_name(const char *tensor, char *name, size_t size) {
    const char *start = strncmp(tensor, "blk.", 4) ? tensor : strchr(tensor + 4, '.');
    start = start && *start == '.' ? start + 1 : tensor;
    snprintf(name, size, "%.*s", (int)strcspn(start, "."), start);
}

static void kernels_add_tensor(cases_plan *plan, const minim_tensor *tensor, int tied) {
    char name[24];
    uint32_t type = 0;
    while (type < KERN_TYPE_END &&
           (!kern_type_get(type).has_kernels || strcmp(kern_type_get(type).name, tensor->type) != 0))
        type++;
    kernels_short_name(tensor->name, name, sizeof name);
    int is_embedding = !strcmp(name, "token_embd"); /* only looked up, unless it is the output matrix as well */
    if (tensor->n_dims != 2 || type == KERN_TYPE_END || (is_embedding && !tied)) return;
    if (tensor->dims[0] > INT_MAX || tensor->dims[1] > INT_MAX) return;
    kernels_add_matrix(plan, name, (int64_t)tensor->dims[1], (int64_t)tensor->dims[0], type, 1,
                       is_embedding || !strcmp(name, "output"));
}

static int kernels_use_model(const char *path, cases_plan *plan) {
    minim_model_options options;
    minim_model *model = NULL;
    minim_error error = {.status = MINIM_OK};
    minim_model_info info = {.size = sizeof info};
    minim_model_options_default(&options);
    options.level = MINIM_LOAD_HEADER;
    if (minim_model_load(path, &options, &model, &error) != MINIM_OK) {
        fprintf(stderr, "bench_kernels: %s\n", error.text);
        return EXIT_FAILED;
    }
    minim_model_get_info(model, &info);
    plan->model = path;
    plan->n_embd = info.n_embd, plan->n_ff = info.n_ff, plan->head_dim = info.head_dim;
    plan->n_heads = info.n_heads, plan->n_kv_heads = info.n_kv_heads;
    int tied = 1;
    minim_tensor tensor;
    for (size_t i = 0; minim_model_tensor(model, i, &tensor) == MINIM_OK; i++)
        tied &= strcmp(tensor.name, "output.weight") != 0;
    for (size_t i = 0; minim_model_tensor(model, i, &tensor) == MINIM_OK; i++) kernels_add_tensor(plan, &tensor, tied);
    minim_model_free(model);
    if (plan->n_matrices && plan->n_embd > 0 && plan->n_heads > 0 && plan->n_kv_heads > 0) return -1;
    fprintf(stderr, "bench_kernels: %s: expected a model with matrices that minim has kernels for\n", path);
    return EXIT_FAILED;
}

static int kernels_make_plan(const kernels_settings *s, cases_plan *plan) {
    *plan = (cases_plan){.only = s->only, .no_blas = s->no_blas, .n_threads = s->n_threads};
    int code = kernels_parse_types(s->types, plan);
    if (code < 0) code = kernels_parse_isas(s->isas, plan);
    if (code < 0) code = kernels_parse_tokens(s->tokens, plan);
    if (code < 0 && s->model && s->shape) code = kernels_complain("--shape and --model exclude each other");
    if (code < 0)
        code = s->model ? kernels_use_model(s->model, plan)
                        : kernels_use_shape(s->shape ? s->shape : "tinyllama-1.1b", plan);
    return code;
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

/* Limits are sampled before and after each group, once per round. */
typedef struct kernels_limits {
    harness_case read, peak[REPORT_PEAKS];
    double read_now, peak_now[REPORT_PEAKS]; /* bytes and operations a second, of the last sampling */
} kernels_limits;

static void kernels_sample_limits(report_run *run, team *t, kernels_limits *limits, double seconds) {
    limits->read_now = harness_sample(t, &limits->read, seconds) * limits->read.bytes;
    run->read.sample[run->read.n++] = limits->read_now * 1e-9;
    for (int i = 0; i < run->n_peaks; i++) {
        limits->peak_now[i] = harness_sample(t, &limits->peak[i], seconds / 4) * limits->peak[i].ops;
        run->peak[i].sample[run->peak[i].n++] = limits->peak_now[i] * 1e-9;
    }
}

/* OpenBLAS keeps its threads spinning for a while after a call; what is measured next must not share CPUs with them. */
static void kernels_settle(void) {
    const struct timespec pause = {.tv_nsec = 100 * 1000 * 1000};
    nanosleep(&pause, NULL);
}

static double kernels_peak_of(const report_run *run, const harness_case *c, const double *now) {
    for (int i = 0; i < run->n_peaks; i++) {
        if (run->peak[i].peak == c->peak) return now[i];
    }
    return 0;
}

/* Cases [first, end) are one group. */
static void kernels_sample_group(report_run *run, team *t, kernels_limits *limits, harness_case *items, size_t first,
                                 size_t end, int round) {
    double before[REPORT_PEAKS], read_before;
    kernels_sample_limits(run, t, limits, run->seconds);
    memcpy(before, limits->peak_now, sizeof before);
    read_before = limits->read_now;
    for (size_t i = first; i < end; i++) {
        harness_case *c = &items[i];
        /* What works in the cache settles at once, and there is much of it. */
        c->rate[round] = harness_sample(t, c, c->count ? run->seconds : run->seconds / 4);
        if (c->alone) kernels_settle();
    }
    kernels_sample_limits(run, t, limits, run->seconds);
    for (size_t i = first; i < end; i++) {
        harness_case *c = &items[i];
        double read = (read_before + limits->read_now) / 2;
        double peak = (kernels_peak_of(run, c, before) + kernels_peak_of(run, c, limits->peak_now)) / 2;
        c->of_read[round] = read > 0 ? c->rate[round] * c->bytes / read : 0;
        c->of_peak[round] = peak > 0 ? c->rate[round] * c->ops / peak : 0;
    }
}

static void kernels_progress(int round, int n_rounds, size_t done, size_t n) {
    static double shown;
    if (!isatty(STDERR_FILENO) || harness_now() - shown < 0.2) return;
    shown = harness_now();
    fprintf(stderr, "\rround %d of %d, %zu of %zu kernels ", round + 1, n_rounds, done, n);
}

static void kernels_run_rounds(report_run *run, team *t, kernels_limits *limits, cases_list *list) {
    for (int round = 0; round < run->n_rounds; round++) {
        if (!list->n) kernels_sample_limits(run, t, limits, run->seconds);
        for (size_t first = 0, end; first < list->n; first = end) {
            for (end = first + 1; end < list->n && list->items[end].group == list->items[first].group;) end++;
            kernels_progress(round, run->n_rounds, first, list->n);
            kernels_sample_group(run, t, limits, list->items, first, end, round);
        }
    }
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%50s\r", "");
}

/* Room for all samples. 0 or -1. */
static int kernels_make_room(report_run *run, cases_list *list) {
    size_t rounds = (size_t)run->n_rounds, n = 2 * rounds * (size_t)(list->n_groups + 1);
    run->read.sample = calloc(n, sizeof(double));
    if (!run->read.sample) return -1;
    for (int i = 0; i < run->n_peaks; i++) {
        run->peak[i].sample = calloc(n, sizeof(double));
        if (!run->peak[i].sample) return -1;
    }
    for (size_t i = 0; i < list->n; i++) {
        harness_case *c = &list->items[i];
        c->rate = calloc(rounds, sizeof(double));
        c->of_read = calloc(rounds, sizeof(double));
        c->of_peak = calloc(rounds, sizeof(double));
        if (!c->rate || !c->of_read || !c->of_peak) return -1;
    }
    return 0;
}

static int kernels_no_memory(void) {
    fputs("bench_kernels: out of memory or threads\n", stderr);
    return EXIT_FAILED;
}

/* Returns the exit code. */
static int kernels_measure(const kernels_settings *s, const cases_plan *plan, team *t, harness_memory *memory) {
    kernels_limits limits = {.read = cases_read(memory)};
    cases_list list = {0};
    report_run run = {.plan = plan, .list = &list, .n_rounds = s->n_rounds, .n_threads = s->n_threads};
    run.seconds = s->seconds;
    run.memory = memory->n_weights;
    const limits_peak *peak;
    for (; run.n_peaks < REPORT_PEAKS && (peak = limits_peak_at((size_t)run.n_peaks)); run.n_peaks++) {
        limits.peak[run.n_peaks] = cases_peak(memory, peak);
        run.peak[run.n_peaks].peak = peak;
    }
    int status = s->limits ? 0 : cases_make(plan, memory, &list);
    int code =
        status || s->limits || list.n ? -1 : kernels_complain("--only: no kernel has \"%s\" in its name", s->only);
    if (!status && code < 0) status = kernels_make_room(&run, &list);
    if (status) {
        code = kernels_no_memory();
    } else if (code < 0) {
        kernels_run_rounds(&run, t, &limits, &list);
        if (s->json)
            report_json(stdout, &run);
        else if (s->limits)
            report_limits(stdout, &run);
        else
            report_markdown(stdout, &run);
        code = EXIT_OK;
    }
    free(run.read.sample);
    for (int i = 0; i < run.n_peaks; i++) free(run.peak[i].sample);
    cases_free(&list);
    return code;
}

/* Bytes of the last-level cache, 0 when the system does not tell. */
static size_t kernels_cache_bytes(void) {
#if defined(_SC_LEVEL3_CACHE_SIZE)
    long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (bytes > 0) return (size_t)bytes;
#endif
    return 0;
}

static size_t kernels_memory_bytes(const kernels_settings *s) {
    const size_t least = (size_t)256 << 20, most = (size_t)2 << 30;
    size_t bytes = 3 * kernels_cache_bytes();
    if (s->n_megabytes) return (size_t)s->n_megabytes << 20;
    return bytes < least ? least : bytes > most ? most : bytes;
}

int main(int argc, char **argv) {
    kernels_settings settings = {
        .types = "q4_0,q8_0", .tokens = "1,8,512", .n_threads = team_cpus(), .n_rounds = 5, .seconds = 0.02};
    static cases_plan plan;
    harness_memory memory = {0};
    size_t n_vector, act_values, outputs;
    int code = kernels_parse(argc, argv, &settings);
    if (code < 0) code = kernels_make_plan(&settings, &plan);
    if (code >= 0) return code;
    cases_sizes(&plan, &n_vector, &act_values, &outputs);
    team *t = team_new(settings.n_threads);
    int status =
        t ? harness_memory_new(&memory, t, kernels_memory_bytes(&settings), n_vector, act_values, outputs) : -1;
    code = status ? kernels_no_memory() : kernels_measure(&settings, &plan, t, &memory);
    harness_memory_free(&memory);
    team_free(t);
    if (fflush(stdout) && code == EXIT_OK) {
        fprintf(stderr, "bench_kernels: standard output: %s\n", strerror(errno));
        code = EXIT_FAILED;
    }
    return code;
}
