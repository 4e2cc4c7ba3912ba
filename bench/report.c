/* report.c: see report.h. */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../tools/json.h"
#include "../tools/machine.h"

/* ---- figures ----------------------------------------------------------------------------------------------------- */

static int report_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

report_range report_summary(const double *values, size_t n) {
    report_range range = {0};
    double *sorted = n ? malloc(n * sizeof *sorted) : NULL;
    if (!sorted) return range;
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, report_compare);
    range = (report_range){(sorted[(n - 1) / 2] + sorted[n / 2]) / 2, sorted[0], sorted[n - 1]};
    free(sorted);
    return range;
}

/* Median of the rounds. */
static double report_median(const double *values, const report_run *run) {
    return report_summary(values, (size_t)run->n_rounds).median;
}

/* Width of the range of the samples, as a share of their median. */
static double report_spread(const double *values, const report_run *run) {
    report_range range = report_summary(values, (size_t)run->n_rounds);
    return range.median > 0 ? (range.max - range.min) / range.median : 0;
}

/* The case of the same group that does the same with `isa`; NULL when it was not measured. */
static const harness_case *report_partner(const report_run *run, const harness_case *c, const char *isa) {
    for (size_t i = 0; i < run->list->n; i++) {
        const harness_case *other = &run->list->items[i];
        if (other->group != c->group || strcmp(other->isa, isa) != 0) continue;
        if (!strcmp(isa, "openblas") || (!strcmp(other->kernel, c->kernel) && !strcmp(other->type, c->type)))
            return other;
    }
    return NULL;
}

/* How many times as fast as its partner, in operations: the median of the ratios of each round. 0 = no partner. */
static double report_ratio(const report_run *run, const harness_case *c, const char *isa) {
    const harness_case *other = report_partner(run, c, isa);
    double *ratio = other && other != c ? malloc((size_t)run->n_rounds * sizeof *ratio) : NULL;
    if (!ratio) return 0;
    for (int r = 0; r < run->n_rounds; r++) ratio[r] = c->rate[r] * c->ops / (other->rate[r] * other->ops);
    double median = report_median(ratio, run);
    free(ratio);
    return median;
}

/* All matrices that a model multiplies a token with, each as often as the model has it. */
typedef struct report_total {
    const char *type, *isa;
    int64_t tokens;
    double gbs, gops, of_read, of_peak; /* medians over the rounds */
} report_total;

static int report_belongs(const harness_case *c, const report_total *total) {
    return c->count > 0 && c->tokens == total->tokens && !strcmp(c->isa, total->isa) && !strcmp(c->type, total->type);
}

/* Times add up, so rates and shares are joined as weighted harmonic means. 0 or -1. */
static int report_add_up(const report_run *run, report_total *total) {
    size_t n = (size_t)run->n_rounds;
    double *column = calloc(4 * n, sizeof *column);
    if (!column) return -1;
    for (size_t r = 0; r < n; r++) {
        double bytes = 0, ops = 0, seconds = 0, read_seconds = 0, peak_seconds = 0;
        for (size_t i = 0; i < run->list->n; i++) {
            const harness_case *c = &run->list->items[i];
            if (!report_belongs(c, total)) continue;
            /* A call may have computed a part of the matrix, for a part of the tokens. */
            double parts = c->count * ((double)c->rows / (double)c->call_rows);
            double b = parts * c->bytes, o = parts * c->ops * (double)c->tokens / (double)c->call_tokens;
            double s = o / (c->rate[r] * c->ops);
            bytes += b;
            ops += o;
            seconds += s;
            read_seconds += s * c->of_read[r];
            peak_seconds += s * c->of_peak[r];
        }
        column[r] = bytes / seconds * 1e-9;
        column[n + r] = ops / seconds * 1e-9;
        column[2 * n + r] = read_seconds / seconds;
        column[3 * n + r] = peak_seconds / seconds;
    }
    total->gbs = report_median(column, run);
    total->gops = report_median(column + n, run);
    total->of_read = report_median(column + 2 * n, run);
    total->of_peak = report_median(column + 3 * n, run);
    free(column);
    return 0;
}

/* The index-th different (type, instruction set, tokens) of the products; 0 when there is none. */
static int report_total_at(const report_run *run, size_t index, report_total *total) {
    for (size_t i = 0; i < run->list->n; i++) {
        const harness_case *c = &run->list->items[i];
        *total = (report_total){.type = c->type, .isa = c->isa, .tokens = c->tokens};
        size_t first = 0;
        while (!report_belongs(&run->list->items[first], total) && first < i) first++;
        if (c->count > 0 && first == i && index-- == 0) return !report_add_up(run, total);
    }
    return 0;
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

void report_limits(FILE *file, const report_run *run) {
    report_range read = report_summary(run->read.sample, run->read.n);
    char cpu[256];
    fprintf(file, "%s, %d thread%s, commit %s, %s\n\n", machine_cpu(cpu, sizeof cpu), run->n_threads,
            run->n_threads > 1 ? "s" : "", machine_commit(), machine_compiler());
    fprintf(file, "| limit                       |   median |      min |      max |\n");
    fprintf(file, "| --------------------------- | -------: | -------: | -------: |\n");
    fprintf(file, "| %-27s | %8.2f | %8.2f | %8.2f |\n", "read, GB/s", read.median, read.min, read.max);
    for (int i = 0; i < run->n_peaks; i++) {
        const report_limit *peak = &run->peak[i];
        report_range range = report_summary(peak->sample, peak->n);
        char name[64];
        snprintf(name, sizeof name, "%s, GOPS", peak->peak->name);
        fprintf(file, "| %-27s | %8.1f | %8.1f | %8.1f |\n", name, range.median, range.min, range.max);
    }
}

static void report_print_ratio(FILE *file, double ratio) {
    if (ratio > 0)
        fprintf(file, " %8.*f |", ratio < 9.95 ? 2 : ratio < 99.5 ? 1 : 0, ratio);
    else
        fprintf(file, " %8s |", "");
}

static void report_totals(FILE *file, const report_run *run) {
    report_total total;
    if (!report_total_at(run, 0, &total)) return;
    fprintf(file, "\nAll matrices of %s, each as often as the model has it (the output matrix for one token only):\n\n",
            run->plan->model);
    fprintf(file, "| type | isa        | tokens |     GB/s | of read |     GOPS | of peak |\n");
    fprintf(file, "| ---- | ---------- | -----: | -------: | ------: | -------: | ------: |\n");
    for (size_t i = 0; report_total_at(run, i, &total); i++) {
        fprintf(file, "| %-4s | %-10s | %6lld | %8.2f | %5.1f %% | %8.1f | %5.1f %% |\n", total.type, total.isa,
                (long long)total.tokens, total.gbs, total.of_read * 100, total.gops, total.of_peak * 100);
    }
}

static void report_case(FILE *file, const report_run *run, const harness_case *c, int product) {
    double rate = report_median(c->rate, run);
    char name[96], shape[32];
    if (c->rows > 1)
        snprintf(shape, sizeof shape, "%lldx%lld", (long long)c->rows, (long long)c->cols);
    else
        snprintf(shape, sizeof shape, "%lld", (long long)c->cols);
    snprintf(name, sizeof name, "%s %s", c->kernel, c->type);
    fprintf(file, "| %-17s | %-11s | %-11s | %6lld | %-10s | %8.2f | %6.1f %% | %8.1f | %5.1f %% | %5.1f %% |", name,
            c->matrix, shape, (long long)c->tokens, c->isa, rate * c->bytes * 1e-9,
            report_median(c->of_read, run) * 100, rate * c->ops * 1e-9, report_median(c->of_peak, run) * 100,
            report_spread(c->rate, run) * 100);
    report_print_ratio(file, report_ratio(run, c, "ref"));
    if (product) report_print_ratio(file, report_ratio(run, c, "openblas"));
    putc('\n', file);
}

static void report_table(FILE *file, const report_run *run, int product) {
    int n = 0;
    for (size_t i = 0; i < run->list->n; i++) {
        const harness_case *c = &run->list->items[i];
        if ((c->count > 0) != product) continue;
        /* The reference stands in the column "x ref", unless it is all there is. */
        if (!strcmp(c->isa, "ref") && run->plan->n_isas > 1) continue;
        if (n++ == 0) {
            fprintf(
                file,
                "\n| kernel            | matrix      | shape       | tokens | isa        |     GB/s |  of read |     "
                "GOPS | of peak |  spread |    x ref |%s\n",
                product ? "   x BLAS |" : "");
            fprintf(file,
                    "| ----------------- | ----------- | ----------- | -----: | ---------- | -------: | -------: | "
                    "-------: | ------: | ------: | -------: |%s\n",
                    product ? " -------: |" : "");
        }
        report_case(file, run, c, product);
    }
}

void report_markdown(FILE *file, const report_run *run) {
    report_limits(file, run);
    report_totals(file, run);
    report_table(file, run, 1);
    report_table(file, run, 0);
    fprintf(file,
            "\n%d rounds of samples of %.0f ms; medians, shares and ratios are taken within a round. What the columns "
            "mean: bench/README.md\n",
            run->n_rounds, run->seconds * 1e3);
}

/* ---- for programs ------------------------------------------------------------------------------------------------ */

static void report_json_text(FILE *file, const char *name, const char *text, int *first) {
    json_write_name(file, name, first);
    json_write_string(file, text, strlen(text));
}

static void report_json_number(FILE *file, const char *name, double number, int *first) {
    json_write_name(file, name, first);
    json_write_number(file, number, 6);
}

static void report_json_range(FILE *file, const char *name, const double *values, size_t n, double times, int *first) {
    report_range range = report_summary(values, n);
    int inner = 1;
    json_write_name(file, name, first);
    putc('{', file);
    report_json_number(file, "median", range.median * times, &inner);
    report_json_number(file, "min", range.min * times, &inner);
    report_json_number(file, "max", range.max * times, &inner);
    putc('}', file);
}

static void report_json_machine(FILE *file, const report_run *run) {
    static char flags[8192]; /* a few hundred names */
    char cpu[256], when[32] = "";
    time_t now = time(NULL);
    struct tm utc;
    int first = 1;
    if (gmtime_r(&now, &utc)) strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    report_json_text(file, "commit", machine_commit(), &first);
    report_json_text(file, "compiler", machine_compiler(), &first);
    report_json_text(file, "compiler_flags", machine_compiler_flags(), &first);
    report_json_text(file, "cpu", machine_cpu(cpu, sizeof cpu), &first);
    report_json_text(file, "cpu_flags", machine_cpu_flags(flags, sizeof flags), &first);
    report_json_text(file, "time", when, &first);
    report_json_text(file, "model", run->plan->model, &first);
    report_json_number(file, "threads", run->n_threads, &first);
    report_json_number(file, "rounds", run->n_rounds, &first);
    report_json_number(file, "sample_seconds", run->seconds, &first);
    report_json_number(file, "weight_memory", (double)run->memory, &first);
}

static void report_json_limits(FILE *file, const report_run *run) {
    int first = 1;
    fputs("  \"limits\": {", file);
    report_json_range(file, "read_gbs", run->read.sample, run->read.n, 1, &first);
    fputs(", \"peaks\": [", file);
    for (int i = 0; i < run->n_peaks; i++) {
        const report_limit *peak = &run->peak[i];
        first = 1;
        fputs(i ? ",\n    {" : "\n    {", file);
        report_json_text(file, "name", peak->peak->name, &first);
        report_json_text(file, "isa", peak->peak->isa, &first);
        report_json_text(file, "kind", peak->peak->bound == HARNESS_INTEGER ? "int8" : "float32", &first);
        report_json_range(file, "gops", peak->sample, peak->n, 1, &first);
        putc('}', file);
    }
    fputs("]}", file);
}

static void report_json_case(FILE *file, const report_run *run, const harness_case *c) {
    size_t n = (size_t)run->n_rounds;
    int first = 1;
    double ref = report_ratio(run, c, "ref"), blas = report_ratio(run, c, "openblas");
    putc('{', file);
    report_json_text(file, "kernel", c->kernel, &first);
    report_json_text(file, "type", c->type, &first);
    report_json_text(file, "matrix", c->matrix, &first);
    report_json_text(file, "isa", c->isa, &first);
    report_json_number(file, "rows", (double)c->rows, &first);
    report_json_number(file, "cols", (double)c->cols, &first);
    report_json_number(file, "tokens", (double)c->tokens, &first);
    report_json_number(file, "ops_per_byte", c->ops / c->bytes, &first);
    report_json_text(file, "peak", c->peak ? c->peak->name : "", &first);
    report_json_range(file, "gbs", c->rate, n, c->bytes * 1e-9, &first);
    report_json_range(file, "gops", c->rate, n, c->ops * 1e-9, &first);
    report_json_range(file, "of_read", c->of_read, n, 1, &first);
    report_json_range(file, "of_peak", c->of_peak, n, 1, &first);
    report_json_number(file, "times_ref", ref > 0 ? ref : (double)NAN, &first);
    report_json_number(file, "times_openblas", blas > 0 ? blas : (double)NAN, &first);
    putc('}', file);
}

static void report_json_totals(FILE *file, const report_run *run) {
    report_total total;
    for (size_t i = 0; report_total_at(run, i, &total); i++) {
        int first = 1;
        fputs(i ? ",\n    {" : "\n    {", file);
        report_json_text(file, "type", total.type, &first);
        report_json_text(file, "isa", total.isa, &first);
        report_json_number(file, "tokens", (double)total.tokens, &first);
        report_json_number(file, "gbs", total.gbs, &first);
        report_json_number(file, "of_read", total.of_read, &first);
        report_json_number(file, "gops", total.gops, &first);
        report_json_number(file, "of_peak", total.of_peak, &first);
        putc('}', file);
    }
}

void report_json(FILE *file, const report_run *run) {
    fputs("{\n  ", file);
    report_json_machine(file, run);
    fputs(",\n", file);
    report_json_limits(file, run);
    fputs(",\n  \"totals\": [", file);
    report_json_totals(file, run);
    fputs("],\n  \"results\": [", file);
    for (size_t i = 0; i < run->list->n; i++) {
        fputs(i ? ",\n    " : "\n    ", file);
        report_json_case(file, run, &run->list->items[i]);
    }
    fputs("]\n}\n", file);
}
