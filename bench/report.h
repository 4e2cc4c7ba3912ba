/* report.h: the figures of bench_kernels, for people and for programs. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdio.h>

#include "cases.h"

enum { REPORT_PEAKS = 8 };

/* One limit and all its samples, in GB/s or GOPS. */
typedef struct report_limit {
    const limits_peak *peak; /* NULL: reading memory */
    double *sample;
    size_t n;
} report_limit;

typedef struct report_run {
    const cases_plan *plan;
    const cases_list *list;
    int n_rounds, n_threads;
    double seconds; /* of a sample */
    size_t memory;  /* bytes that the weights lie in */
    report_limit read, peak[REPORT_PEAKS];
    int n_peaks;
} report_run;

typedef struct report_range {
    double median, min, max;
} report_range;

report_range report_summary(const double *values, size_t n);

void report_limits(FILE *file, const report_run *run);
void report_markdown(FILE *file, const report_run *run);
void report_json(FILE *file, const report_run *run);

#endif
