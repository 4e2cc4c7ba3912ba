/* bench.h: one measured test of `minim bench`, and how it is printed. */
#ifndef TOOLS_BENCH_H
#define TOOLS_BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- lists of values --------------------------------------------------------------------------------------------- */

typedef struct bench_ints {
    int *items;
    size_t n;
} bench_ints;

/* Appends the numbers of "1,2,4", "1-8", "1-8+2" or "1-8*2" to *list, each from min to max. 0; -1 when the text is
 * wrong; -2 when memory is short. */
int bench_parse_ints(const char *text, int min, int max, bench_ints *list);

/* ---- a test ------------------------------------------------------------------------------------------------------ */

typedef struct bench_test {
    const char *model_filename;
    char model_type[96]; /* "llama 1.10B Q4_0" */
    uint64_t model_size, model_n_params;
    uint64_t step_bytes; /* of weights that one decoded token reads */
    uint64_t token_ops;  /* operations of the layers' matrices for one token; a multiply-add is two */
    const char *isa, *kv;
    int n_batch, n_ubatch, n_threads, n_prompt, n_gen, n_depth;
    int n_parallel;     /* sequences; n_prompt and n_gen are of each */
    char test_time[32]; /* RFC 3339 */
    uint64_t load_ns, peak_memory;
    uint64_t *samples_ns; /* [n_samples] */
    size_t n_samples;
} bench_test;

typedef struct bench_statistics {
    double average, deviation, median;
} bench_statistics;

/* Of samples[n]; they come out sorted. The deviation is that of a sample (n - 1), 0 for a single one. */
bench_statistics bench_summarize(double *samples, size_t n);

/* ---- output ------------------------------------------------------------------------------------------------------ */

typedef enum bench_format { BENCH_NONE, BENCH_MARKDOWN, BENCH_CSV, BENCH_JSON, BENCH_JSONL, BENCH_SQL } bench_format;

typedef struct bench_printer {
    FILE *file;
    bench_format format;
    int show_batch, show_ubatch, show_kv; /* columns of the Markdown table that appear only when they were asked for */
    int n_printed;
} bench_printer;

bench_format bench_format_find(const char *name);
void bench_print_header(const bench_printer *printer);
/* 0, or -1 when memory is short. */
int bench_print_test(bench_printer *printer, const bench_test *test);
void bench_print_footer(const bench_printer *printer);

#endif
