/* bench_output.c: see bench.h. The formats and the names of the fields are those that users of llama-bench read, so
 * that their scripts and tables go on working; what minim adds stands behind. */
#include "bench.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/minim.h"
#include "json.h"
#include "machine.h"

/* ---- lists of values --------------------------------------------------------------------------------------------- */

enum { BENCH_LIST_MAX = 10000 };

static int bench_append(bench_ints *list, int value) {
    int *items = list->n < BENCH_LIST_MAX ? realloc(list->items, (list->n + 1) * sizeof *items) : NULL;
    if (!items) return -2;
    list->items = items;
    list->items[list->n++] = value;
    return 0;
}

/* One number at *text, which moves behind it. 0 or -1. */
static int bench_parse_int(const char **text, int min, int max, int *value) {
    int64_t number = 0;
    const char *s = *text;
    for (; *s >= '0' && *s <= '9'; s++) {
        if (number <= INT32_MAX) number = number * 10 + (*s - '0');
    }
    if (s == *text || number < min || number > max) return -1;
    *text = s;
    *value = (int)number;
    return 0;
}

int bench_parse_ints(const char *text, int min, int max, bench_ints *list) {
    for (;; text++) {
        int first = 0, step = 1, times = 1, status = bench_parse_int(&text, min, max, &first), last = first;
        if (!status && *text == '-') {
            text++;
            status = bench_parse_int(&text, min, max, &last);
            if (!status && *text == '+') {
                text++;
                status = bench_parse_int(&text, 1, max, &step);
            } else if (!status && *text == '*') {
                text++;
                step = 0;
                status = bench_parse_int(&text, 2, max, &times);
            }
        }
        /* 0 times anything stays 0 and would never arrive. */
        if (status || last < first || (times > 1 && first == 0) || (*text && *text != ',')) return -1;
        for (int64_t value = first; value <= last && !status; value = value * times + step)
            status = bench_append(list, (int)value);
        if (status) return status;
        if (!*text) return 0;
    }
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

static int bench_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bench_statistics bench_summarize(double *samples, size_t n) {
    bench_statistics s = {0};
    if (n == 0) return s;
    for (size_t i = 0; i < n; i++) s.average += samples[i] / (double)n;
    for (size_t i = 0; i < n && n > 1; i++) {
        double away = samples[i] - s.average;
        s.deviation += away * away / (double)(n - 1);
    }
    s.deviation = sqrt(s.deviation);
    qsort(samples, n, sizeof *samples, bench_compare);
    s.median = (samples[(n - 1) / 2] + samples[n / 2]) / 2;
    return s;
}

/* Tokens a second of a run that took `ns`. */
static double bench_speed(const bench_test *test, double ns) {
    return ns > 0 ? 1e9 * test->n_parallel * (test->n_prompt + test->n_gen) / ns : 0;
}

/* Of the times in ns, and of the speeds. 0, or -1 when memory is short. */
static int bench_summaries(const bench_test *test, bench_statistics *ns, bench_statistics *speed) {
    double *samples = malloc((test->n_samples + 1) * sizeof *samples);
    if (!samples) return -1;
    for (size_t i = 0; i < test->n_samples; i++) samples[i] = (double)test->samples_ns[i];
    *ns = bench_summarize(samples, test->n_samples);
    for (size_t i = 0; i < test->n_samples; i++) samples[i] = bench_speed(test, (double)test->samples_ns[i]);
    *speed = bench_summarize(samples, test->n_samples);
    free(samples);
    return 0;
}

/* ---- fields ------------------------------------------------------------------------------------------------------ */

typedef enum bench_kind { BENCH_TEXT, BENCH_INTEGER, BENCH_REAL } bench_kind;

typedef struct bench_field {
    const char *name;
    bench_kind kind;
    const char *text; /* of BENCH_TEXT */
    uint64_t integer;
    double real;
} bench_field;

enum { BENCH_FIELDS = 29 };

/* GB/s of weights that decoding reads; not a number for tests that also process a prompt, which reads them once for
 * many tokens. */
static double bench_weight_rate(const bench_test *test, const bench_statistics *ns) {
    return test->n_prompt || !(ns->median > 0) ? (double)NAN : (double)test->step_bytes * test->n_gen / ns->median;
}

/* Billions of operations a second in the layers' matrices; not a number for tests that generate. */
static double bench_matrix_rate(const bench_test *test, const bench_statistics *ns) {
    return test->n_gen || !(ns->median > 0) ? (double)NAN
                                            : (double)test->token_ops * test->n_prompt * test->n_parallel / ns->median;
}

/* 0, or -1 when memory is short. cpu is written to and must live as long as the fields. */
static int bench_make_fields(const bench_test *t, char *cpu, size_t size, bench_field fields[BENCH_FIELDS]) {
    bench_statistics ns, ts;
    if (bench_summaries(t, &ns, &ts)) return -1;
    const int differ = !strcmp(t->kv, "q8q4"); /* keys and values */
    const bench_field all[BENCH_FIELDS] = {
        {"build_commit", BENCH_TEXT, machine_commit(), 0, 0},
        {"cpu_info", BENCH_TEXT, machine_cpu(cpu, size), 0, 0},
        {"backends", BENCH_TEXT, "CPU", 0, 0},
        {"model_filename", BENCH_TEXT, t->model_filename, 0, 0},
        {"model_type", BENCH_TEXT, t->model_type, 0, 0},
        {"model_size", BENCH_INTEGER, NULL, t->model_size, 0},
        {"model_n_params", BENCH_INTEGER, NULL, t->model_n_params, 0},
        {"n_batch", BENCH_INTEGER, NULL, (uint64_t)t->n_batch, 0},
        {"n_ubatch", BENCH_INTEGER, NULL, (uint64_t)t->n_ubatch, 0},
        {"n_threads", BENCH_INTEGER, NULL, (uint64_t)t->n_threads, 0},
        {"type_k", BENCH_TEXT, differ ? "q8_0" : t->kv, 0, 0},
        {"type_v", BENCH_TEXT, differ ? "q4_0" : t->kv, 0, 0},
        {"n_prompt", BENCH_INTEGER, NULL, (uint64_t)t->n_prompt, 0},
        {"n_gen", BENCH_INTEGER, NULL, (uint64_t)t->n_gen, 0},
        {"n_depth", BENCH_INTEGER, NULL, (uint64_t)t->n_depth, 0},
        {"test_time", BENCH_TEXT, t->test_time, 0, 0},
        {"avg_ns", BENCH_INTEGER, NULL, (uint64_t)ns.average, 0},
        {"stddev_ns", BENCH_INTEGER, NULL, (uint64_t)ns.deviation, 0},
        {"avg_ts", BENCH_REAL, NULL, 0, ts.average},
        {"stddev_ts", BENCH_REAL, NULL, 0, ts.deviation},
        {"median_ns", BENCH_INTEGER, NULL, (uint64_t)ns.median, 0},
        {"median_ts", BENCH_REAL, NULL, 0, ts.median},
        {"isa", BENCH_TEXT, t->isa, 0, 0},
        {"weight_gb_per_second", BENCH_REAL, NULL, 0, bench_weight_rate(t, &ns)},
        {"matrix_gops", BENCH_REAL, NULL, 0, bench_matrix_rate(t, &ns)},
        {"load_ns", BENCH_INTEGER, NULL, t->load_ns, 0},
        {"peak_memory", BENCH_INTEGER, NULL, t->peak_memory, 0},
        {"version", BENCH_TEXT, minim_version(), 0, 0},
        {"n_parallel", BENCH_INTEGER, NULL, (uint64_t)t->n_parallel, 0},
    };
    memcpy(fields, all, sizeof all);
    return 0;
}

/* ---- Markdown ---------------------------------------------------------------------------------------------------- */

typedef struct bench_column {
    const char *name;
    int width; /* > 0: right-aligned */
} bench_column;

enum { BENCH_COLUMNS = 9 };

static const bench_column bench_columns[BENCH_COLUMNS] = {
    {"model", -30}, {"size", 10},    {"params", 10}, {"isa", -10}, {"threads", 7},
    {"n_batch", 7}, {"n_ubatch", 8}, {"kv", -4},     {"test", 15},
};

static int bench_column_shown(const bench_printer *printer, int index) {
    return index == 5 ? printer->show_batch : index == 6 ? printer->show_ubatch : index == 7 ? printer->show_kv : 1;
}

enum { BENCH_SPEED_WIDTH = 20 };

static void bench_markdown_header(const bench_printer *printer) {
    putc('|', printer->file);
    for (int i = 0; i < BENCH_COLUMNS; i++) {
        if (bench_column_shown(printer, i))
            fprintf(printer->file, " %*s |", bench_columns[i].width, bench_columns[i].name);
    }
    fprintf(printer->file, " %*s |\n|", BENCH_SPEED_WIDTH, "t/s");
    static const char dashes[] = "----------------------------------------";
    for (int i = 0; i < BENCH_COLUMNS; i++) {
        int width = bench_columns[i].width;
        if (bench_column_shown(printer, i))
            fprintf(printer->file, " %.*s%s |", abs(width) - 1, dashes, width > 0 ? ":" : "-");
    }
    fprintf(printer->file, " %.*s: |\n", BENCH_SPEED_WIDTH - 1, dashes);
}

/* "pp512", "tg128", "pp512+tg128", "tg128 x8 @ d4096" */
static void bench_test_name(const bench_test *test, char *text, size_t size) {
    char prompt[24] = "", gen[24] = "", depth[24] = "", parallel[24] = "";
    if (test->n_prompt) snprintf(prompt, sizeof prompt, "pp%d", test->n_prompt);
    if (test->n_gen) snprintf(gen, sizeof gen, "%stg%d", test->n_prompt ? "+" : "", test->n_gen);
    if (test->n_depth) snprintf(depth, sizeof depth, " @ d%d", test->n_depth);
    if (test->n_parallel > 1) snprintf(parallel, sizeof parallel, " x%d", test->n_parallel);
    snprintf(text, size, "%s%s%s%s", prompt, gen, parallel, depth);
}

static int bench_markdown_test(const bench_printer *printer, const bench_test *test) {
    bench_statistics ns, speed;
    char text[BENCH_COLUMNS][96], value[64];
    if (bench_summaries(test, &ns, &speed)) return -1;
    const double mib = 1024.0 * 1024.0, size = (double)test->model_size, params = (double)test->model_n_params;
    snprintf(text[0], sizeof text[0], "%s", test->model_type);
    snprintf(text[1], sizeof text[1], size < 1024 * mib ? "%.2f MiB" : "%.2f GiB",
             size / (size < 1024 * mib ? mib : 1024 * mib));
    snprintf(text[2], sizeof text[2], params < 1e9 ? "%.2f M" : "%.2f B", params / (params < 1e9 ? 1e6 : 1e9));
    snprintf(text[3], sizeof text[3], "%s", test->isa);
    snprintf(text[4], sizeof text[4], "%d", test->n_threads);
    snprintf(text[5], sizeof text[5], "%d", test->n_batch);
    snprintf(text[6], sizeof text[6], "%d", test->n_ubatch);
    snprintf(text[7], sizeof text[7], "%s", test->kv);
    bench_test_name(test, text[8], sizeof text[8]);
    snprintf(value, sizeof value, "%.2f ± %.2f", speed.average, speed.deviation);
    putc('|', printer->file);
    for (int i = 0; i < BENCH_COLUMNS; i++) {
        if (bench_column_shown(printer, i)) fprintf(printer->file, " %*s |", bench_columns[i].width, text[i]);
    }
    /* The width counts bytes, of which the sign has two. */
    fprintf(printer->file, " %*s |\n", BENCH_SPEED_WIDTH + 1, value);
    return 0;
}

/* ---- CSV, JSON, SQL ---------------------------------------------------------------------------------------------- */

/* text in quotes, which are doubled inside. */
static void bench_write_quoted(FILE *file, const char *text, char quote) {
    putc(quote, file);
    for (; *text; text++) {
        if (*text == quote) putc(quote, file);
        putc(*text, file);
    }
    putc(quote, file);
}

static void bench_csv_value(FILE *file, const bench_field *field) {
    if (field->kind == BENCH_TEXT)
        bench_write_quoted(file, field->text, '"');
    else if (field->kind == BENCH_INTEGER)
        fprintf(file, "\"%" PRIu64 "\"", field->integer);
    else if (isfinite(field->real))
        fprintf(file, "\"%.6f\"", field->real);
}

static void bench_json_value(FILE *file, const bench_field *field) {
    if (field->kind == BENCH_TEXT)
        json_write_string(file, field->text, strlen(field->text));
    else if (field->kind == BENCH_INTEGER)
        fprintf(file, "%" PRIu64, field->integer);
    else
        json_write_number(file, field->real, 8);
}

static void bench_sql_value(FILE *file, const bench_field *field) {
    if (field->kind == BENCH_TEXT)
        bench_write_quoted(file, field->text, '\'');
    else if (field->kind == BENCH_INTEGER)
        fprintf(file, "'%" PRIu64 "'", field->integer);
    else if (isfinite(field->real))
        fprintf(file, "'%.6f'", field->real);
    else
        fputs("NULL", file);
}

static void bench_csv_test(FILE *file, const bench_field *fields) {
    for (int i = 0; i < BENCH_FIELDS; i++) {
        if (i) putc(',', file);
        bench_csv_value(file, &fields[i]);
    }
    putc('\n', file);
}

/* Members of an object, separated by `gap`. */
static void bench_json_members(FILE *file, const bench_test *test, const bench_field *fields, const char *gap) {
    for (int i = 0; i < BENCH_FIELDS; i++) {
        fprintf(file, "\"%s\": ", fields[i].name);
        bench_json_value(file, &fields[i]);
        fprintf(file, ",%s", gap);
    }
    fputs("\"samples_ns\": [", file);
    for (size_t i = 0; i < test->n_samples; i++) fprintf(file, "%s%" PRIu64, i ? ", " : "", test->samples_ns[i]);
    fprintf(file, "],%s\"samples_ts\": [", gap);
    for (size_t i = 0; i < test->n_samples; i++) {
        if (i) fputs(", ", file);
        json_write_number(file, bench_speed(test, (double)test->samples_ns[i]), 8);
    }
    putc(']', file);
}

static void bench_json_test(const bench_printer *printer, const bench_test *test, const bench_field *fields) {
    int lines = printer->format == BENCH_JSON;
    if (lines) fputs(printer->n_printed ? ",\n" : "", printer->file);
    fputs(lines ? "  {\n    " : "{", printer->file);
    bench_json_members(printer->file, test, fields, lines ? "\n    " : " ");
    fputs(lines ? "\n  }" : "}\n", printer->file);
}

static void bench_sql_test(FILE *file, const bench_field *fields) {
    fputs("INSERT INTO minim_bench (", file);
    for (int i = 0; i < BENCH_FIELDS; i++) fprintf(file, "%s%s", i ? ", " : "", fields[i].name);
    fputs(") VALUES (", file);
    for (int i = 0; i < BENCH_FIELDS; i++) {
        if (i) fputs(", ", file);
        bench_sql_value(file, &fields[i]);
    }
    fputs(");\n", file);
}

static void bench_sql_header(FILE *file, const bench_field *fields) {
    static const char *const type[] = {"TEXT", "INTEGER", "REAL"};
    fputs("CREATE TABLE IF NOT EXISTS minim_bench (\n", file);
    for (int i = 0; i < BENCH_FIELDS; i++)
        fprintf(file, "  %s %s%s\n", fields[i].name, type[fields[i].kind], i + 1 < BENCH_FIELDS ? "," : "");
    fputs(");\n\n", file);
}

/* ---- printing ---------------------------------------------------------------------------------------------------- */

bench_format bench_format_find(const char *name) {
    static const char *const names[] = {"none", "md", "csv", "json", "jsonl", "sql"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcmp(names[i], name)) return (bench_format)i;
    }
    return BENCH_NONE;
}

void bench_print_header(const bench_printer *printer) {
    const bench_test empty = {.model_filename = "", .isa = "", .kv = ""};
    bench_field fields[BENCH_FIELDS] = {0};
    char cpu[8];
    if (printer->format == BENCH_MARKDOWN) bench_markdown_header(printer);
    if (printer->format == BENCH_JSON) fputs("[\n", printer->file);
    if ((printer->format != BENCH_CSV && printer->format != BENCH_SQL) ||
        bench_make_fields(&empty, cpu, sizeof cpu, fields)) {
        return;
    }
    if (printer->format == BENCH_SQL) {
        bench_sql_header(printer->file, fields);
        return;
    }
    for (int i = 0; i < BENCH_FIELDS; i++) fprintf(printer->file, "%s%s", i ? "," : "", fields[i].name);
    putc('\n', printer->file);
}

int bench_print_test(bench_printer *printer, const bench_test *test) {
    bench_field fields[BENCH_FIELDS];
    char cpu[256];
    if (printer->format == BENCH_NONE) return 0;
    if (printer->format == BENCH_MARKDOWN) return bench_markdown_test(printer, test);
    if (bench_make_fields(test, cpu, sizeof cpu, fields)) return -1;
    switch (printer->format) {
    case BENCH_CSV: bench_csv_test(printer->file, fields); break;
    case BENCH_SQL: bench_sql_test(printer->file, fields); break;
    default: bench_json_test(printer, test, fields); break;
    }
    printer->n_printed++;
    return 0;
}

void bench_print_footer(const bench_printer *printer) {
    char cpu[256];
    if (printer->format == BENCH_JSON) fputs(printer->n_printed ? "\n]\n" : "]\n", printer->file);
    if (printer->format == BENCH_MARKDOWN)
        fprintf(printer->file, "\nbuild: minim %s (%s), %s\n", minim_version(), machine_commit(),
                machine_cpu(cpu, sizeof cpu));
}
