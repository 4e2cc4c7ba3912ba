/* score_figures.c: the figures of `minim eval`; see score.h. Everything is computed in double, in the order of the text
 * and on one thread, so that the figures are the same for every number of threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "score.h"

enum { SCORE_DIGITS = 12 };

int score_values_new(score_values *values, size_t capacity, int with_reference) {
    *values = (score_values){.capacity = capacity};
    values->nll = calloc(capacity, sizeof(double));
    if (with_reference) {
        values->reference_nll = calloc(capacity, sizeof(double));
        values->kl = calloc(capacity, sizeof(double));
        values->delta_p = calloc(capacity, sizeof(double));
    }
    int all = values->nll && (!with_reference || (values->reference_nll && values->kl && values->delta_p));
    if (!all) score_values_free(values);
    return all ? 0 : -1;
}

void score_values_free(score_values *values) {
    free(values->nll);
    free(values->reference_nll);
    free(values->kl);
    free(values->delta_p);
    *values = (score_values){0};
}

size_t score_not_finite(const float *values, size_t n) {
    size_t i = 0;
    while (i < n && isfinite(values[i])) i++;
    return i;
}

/* Index of the largest, the first one of equals. */
static size_t score_best(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

/* ln of the sum of exp(logit); `best` is the index of the largest. */
static double score_log_sum(const float *logits, size_t n, size_t best) {
    double most = logits[best], sum = 1;
    for (size_t i = 0; i < n; i++) {
        if (i != best) sum += exp(logits[i] - most);
    }
    return most + log(sum);
}

void score_add(score_values *values, const float *logits, const float *reference, size_t n_vocab, int32_t next) {
    if (values->n == values->capacity) return;
    size_t at = values->n++, best = score_best(logits, n_vocab);
    double log_sum = score_log_sum(logits, n_vocab, best);
    values->nll[at] = log_sum - logits[next];
    values->sum_nll += values->nll[at];
    if (!reference) return;

    size_t reference_best = score_best(reference, n_vocab);
    double reference_sum = score_log_sum(reference, n_vocab, reference_best), kl = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        double log_p = reference[i] - reference_sum;
        kl += exp(log_p) * (log_p - (logits[i] - log_sum));
    }
    values->kl[at] = kl;
    values->reference_nll[at] = reference_sum - reference[next];
    values->delta_p[at] = exp(-values->nll[at]) - exp(-values->reference_nll[at]);
    values->n_same += best == reference_best;
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

/* A mean and its standard error; 0 for a single value. */
typedef struct score_mean {
    double mean, error;
} score_mean;

static score_mean score_mean_of(const double *values, size_t n) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += values[i];
    score_mean result = {.mean = n > 0 ? sum / (double)n : 0};
    for (size_t i = 0; i < n; i++) squares += (values[i] - result.mean) * (values[i] - result.mean);
    if (n > 1) result.error = sqrt(squares / (double)n / (double)(n - 1));
    return result;
}

/* exp() of a mean, with the error it gets (to first order). */
static score_mean score_exp(score_mean mean) {
    double value = exp(mean.mean);
    return (score_mean){value, value * mean.error};
}

/* The root of the mean square. */
static score_mean score_rms(const double *values, size_t n) {
    double sum = 0, spread = 0;
    for (size_t i = 0; i < n; i++) sum += values[i] * values[i];
    double mean = n > 0 ? sum / (double)n : 0;
    for (size_t i = 0; i < n; i++) {
        double off = values[i] * values[i] - mean;
        spread += off * off;
    }
    score_mean result = {.mean = sqrt(mean)};
    if (n > 1 && mean > 0) result.error = 0.5 / result.mean * sqrt(spread / (double)n / (double)(n - 1));
    return result;
}

/* The share of positions with the same best token. */
static score_mean score_share(size_t n_same, size_t n) {
    score_mean result = {.mean = n > 0 ? (double)n_same / (double)n : 0};
    if (n > 1) result.error = sqrt(result.mean * (1 - result.mean) / (double)(n - 1));
    return result;
}

/* The value below which a fraction of the sorted values lies, between two of them by a straight line. */
static double score_quantile(const double *sorted, size_t n, double fraction) {
    if (n == 0) return 0;
    double at = fraction * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n) return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

static int score_compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double score_perplexity(const score_values *values) {
    return values->n > 0 ? exp(values->sum_nll / (double)values->n) : 0;
}

/* ---- printing ---------------------------------------------------------------------------------------------------- */

/* All that is said beside a reference. */
typedef struct score_comparison {
    score_mean perplexity, log_ratio, ratio, kl, delta_p, rms, same;
} score_comparison;

static score_comparison score_compare_models(score_values *v) {
    score_comparison c = {
        .perplexity = score_exp(score_mean_of(v->reference_nll, v->n)),
        .kl = score_mean_of(v->kl, v->n),
        .delta_p = score_mean_of(v->delta_p, v->n),
        .rms = score_rms(v->delta_p, v->n),
        .same = score_share(v->n_same, v->n),
    };
    /* The two go up and down together, so the error of their difference is that of the differences. */
    for (size_t i = 0; i < v->n; i++) v->reference_nll[i] = v->nll[i] - v->reference_nll[i];
    c.log_ratio = score_mean_of(v->reference_nll, v->n);
    c.ratio = score_exp(c.log_ratio);
    qsort(v->kl, v->n, sizeof *v->kl, score_compare);
    qsort(v->delta_p, v->n, sizeof *v->delta_p, score_compare);
    return c;
}

static const struct {
    const char *name, *label;
    double fraction;
} score_quantiles[] = {
    {"min", "minimum", 0},      {"p1", "1 %", 0.01},   {"p5", "5 %", 0.05},   {"p10", "10 %", 0.1},
    {"median", "median", 0.5},  {"p90", "90 %", 0.9},  {"p95", "95 %", 0.95}, {"p99", "99 %", 0.99},
    {"p99_9", "99.9 %", 0.999}, {"max", "maximum", 1},
};
enum { SCORE_QUANTILES = sizeof score_quantiles / sizeof *score_quantiles };

static void score_write(const char *name, double number, int *first) {
    json_write_name(stdout, name, first);
    json_write_number(stdout, number, SCORE_DIGITS);
}

static void score_write_mean(const char *name, score_mean mean, int *first) {
    int inner = 1;
    json_write_name(stdout, name, first);
    putchar('{');
    score_write("value", mean.mean, &inner);
    score_write("error", mean.error, &inner);
    putchar('}');
}

/* rms NULL = none. */
static void score_write_spread(const char *name, score_mean mean, const score_mean *rms, const double *sorted, size_t n,
                               int *first) {
    int inner = 1;
    json_write_name(stdout, name, first);
    putchar('{');
    score_write("mean", mean.mean, &inner);
    score_write("error", mean.error, &inner);
    if (rms) score_write("rms", rms->mean, &inner);
    if (rms) score_write("rms_error", rms->error, &inner);
    for (int i = 0; i < SCORE_QUANTILES; i++) {
        score_write(score_quantiles[i].name, score_quantile(sorted, n, score_quantiles[i].fraction), &inner);
    }
    putchar('}');
}

static void score_write_text(const char *name, const char *text, int *first) {
    json_write_name(stdout, name, first);
    json_write_string(stdout, text, strlen(text));
}

static void score_print_json(const score_subject *subject, score_values *v) {
    int first = 1;
    score_mean nll = score_mean_of(v->nll, v->n);
    putchar('{');
    score_write_text("model", subject->model, &first);
    score_write_text("text", subject->text, &first);
    if (subject->reference) score_write_text("reference", subject->reference, &first);
    score_write("n_ctx", subject->n_ctx, &first);
    score_write("chunks", (double)subject->n_chunks, &first);
    score_write("positions", (double)v->n, &first);
    score_write_mean("perplexity", score_exp(nll), &first);
    score_write_mean("nll", nll, &first);
    if (subject->reference) {
        score_comparison c = score_compare_models(v);
        score_write_mean("reference_perplexity", c.perplexity, &first);
        score_write_mean("perplexity_ratio", c.ratio, &first);
        score_write_mean("log_perplexity_ratio", c.log_ratio, &first);
        score_write_spread("kl_divergence", c.kl, NULL, v->kl, v->n, &first);
        score_write_spread("delta_p", c.delta_p, &c.rms, v->delta_p, v->n, &first);
        score_write_mean("same_top", c.same, &first);
    }
    puts("}");
}

static void score_print_mean(const char *label, score_mean mean, double scale, const char *unit) {
    printf("%-28s%12.6f +/- %.6f%s\n", label, mean.mean * scale, mean.error * scale, unit);
}

static void score_print_spread(const char *label, const double *sorted, size_t n, double scale, const char *unit) {
    for (int i = 0; i < SCORE_QUANTILES; i++) {
        char text[40];
        snprintf(text, sizeof text, "%s, %s", label, score_quantiles[i].label);
        printf("%-28s%12.6f%s\n", text, score_quantile(sorted, n, score_quantiles[i].fraction) * scale, unit);
    }
}

void score_print(const score_subject *subject, score_values *v, int json) {
    if (json) {
        score_print_json(subject, v);
        return;
    }
    printf("%zu positions in %zu chunks of %d tokens\n", v->n, subject->n_chunks, subject->n_ctx);
    score_print_mean("perplexity", score_exp(score_mean_of(v->nll, v->n)), 1, "");
    if (!subject->reference) return;
    score_comparison c = score_compare_models(v);
    score_print_mean("perplexity of the reference", c.perplexity, 1, "");
    score_print_mean("ratio of perplexities", c.ratio, 1, "");
    score_print_mean("ln of the ratio", c.log_ratio, 1, "");
    score_print_mean("KL divergence, mean", c.kl, 1, "");
    score_print_spread("KL divergence", v->kl, v->n, 1, "");
    score_print_mean("change of p, mean", c.delta_p, 100, " %");
    score_print_mean("change of p, rms", c.rms, 100, " %");
    score_print_spread("change of p", v->delta_p, v->n, 100, " %");
    score_print_mean("same most likely token", c.same, 100, " %");
}
