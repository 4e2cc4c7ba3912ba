/* calib_map.c: Platt's and the isotonic map, Clopper & Pearson's bound, and the bar it allows. No state, no I/O. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calib.h"
#include "eval.h"

/* ---- Platt ------------------------------------------------------------------------------------------------------ */

static double calib_log_odds(double score) {
    double s = score > 1e-6 ? score < 1 - 1e-6 ? score : 1 - 1e-6 : 1e-6;
    return log(s / (1 - s));
}

/* The line is believed as far as there are labels: beyond the outer twentieths of them a confidence would be no more
 * than the shape of a sigmoid. */
enum { CALIB_OUTER = 20 };

static minim_status calib_limits(calib_map *map, const double *score, size_t n) {
    eval_order order;
    if (eval_order_new(&order, score, n)) return MINIM_ERR_MEMORY;
    size_t outer = n > CALIB_OUTER ? n / CALIB_OUTER - 1 : 0;
    map->high = score[order.order[outer]];
    map->low = score[order.order[n - 1 - outer]];
    eval_order_free(&order);
    return MINIM_OK;
}

/* Platt 1999, with his smoothed targets. A slope below zero would say that surer means wronger: on few labels that is
 * chance, on many a broken score; either way the score carries no usable signal and everybody gets the base rate. */
static minim_status calib_fit_platt(calib_map *map, const double *score, const double *right, size_t n) {
    double *target = malloc(n * sizeof *target);
    float *value = malloc(n * sizeof *value);
    size_t *start = malloc((n + 1) * sizeof *start);
    uint32_t *column = calloc(n, sizeof *column);
    minim_status status = MINIM_ERR_MEMORY;
    double rights = 0, middle = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        double x = calib_log_odds(score[i]);
        rights += right[i];
        middle += x / (double)n;
        square += x * x / (double)n;
    }
    double spread = sqrt(fmax(square - middle * middle, 1e-12)), ridge = 0.5, slope = 0, offset = 0;
    if (target && value && start && column) {
        for (size_t i = 0; i < n; i++) {
            start[i] = i;
            value[i] = (float)((calib_log_odds(score[i]) - middle) / spread);
            target[i] = right[i] > 0.5 ? (rights + 1) / (rights + 2) : 1 / ((double)n - rights + 2);
        }
        start[n] = n;
        learn_matrix x = {n, 1, start, column, value};
        status = learn_logistic(&x, target, &ridge, LEARN_EXACT, &slope, &offset);
    }
    if (status == MINIM_OK && slope <= 0) {
        double base = (rights + 1) / ((double)n + 2);
        slope = 0;
        offset = log(base / (1 - base));
    }
    map->slope = slope / spread;
    map->offset = offset - map->slope * middle;
    if (status == MINIM_OK) status = calib_limits(map, score, n);
    free(target);
    free(value);
    free(start);
    free(column);
    return status;
}

/* ---- isotonic --------------------------------------------------------------------------------------------------- */

/* Pool adjacent violators (Ayer et al. 1955). A pool becomes one knot at its mean score; between knots the map is
 * straight, so that two scores of one pool still differ. Each pool also counts one answer of the base rate: no
 * certainty from few. */
static minim_status calib_fit_isotonic(calib_map *map, const double *score, const double *right, size_t n) {
    eval_order order;
    double *count = malloc(3 * n * sizeof *count), base = 0;
    map->x = malloc(n * sizeof *map->x);
    map->y = malloc(n * sizeof *map->y);
    if (!count || !map->x || !map->y || eval_order_new(&order, score, n)) {
        free(count);
        calib_map_free(map);
        return MINIM_ERR_MEMORY;
    }
    double *rights = count + n, *sum = count + 2 * n;
    size_t m = 0;
    for (size_t i = 0; i < n; i++) base += right[i] / (double)n;
    for (size_t at = n; at-- > 0;) { /* rising scores */
        size_t i = order.order[at];
        int joins = m > 0 && score[i] == score[order.order[at + 1]]; /* equal scores are one pool */
        if (!joins) {
            count[m] = rights[m] = sum[m] = 0;
            m++;
        }
        count[m - 1] += 1;
        rights[m - 1] += right[i];
        sum[m - 1] += score[i];
        int more = at > 0 && score[order.order[at - 1]] == score[i];
        while (!more && m > 1 && rights[m - 2] * count[m - 1] >= rights[m - 1] * count[m - 2]) {
            m--;
            count[m - 1] += count[m];
            rights[m - 1] += rights[m];
            sum[m - 1] += sum[m];
        }
    }
    for (size_t k = 0; k < m; k++) {
        map->x[k] = sum[k] / count[k];
        map->y[k] = (rights[k] + base) / (count[k] + 1);
        if (k && map->y[k] < map->y[k - 1]) map->y[k] = map->y[k - 1];
    }
    map->n = m;
    eval_order_free(&order);
    free(count);
    return MINIM_OK;
}

/* ---- both ------------------------------------------------------------------------------------------------------- */

minim_status calib_fit(calib_map *map, int isotonic, const double *score, const double *right, size_t n) {
    *map = (calib_map){.isotonic = isotonic};
    return isotonic ? calib_fit_isotonic(map, score, right, n) : calib_fit_platt(map, score, right, n);
}

double calib_apply(const calib_map *map, double score) {
    if (!map->isotonic) {
        double within = score < map->low ? map->low : score > map->high ? map->high : score;
        return learn_sigmoid(map->slope * calib_log_odds(within) + map->offset);
    }
    if (score <= map->x[0]) return map->y[0];
    if (score >= map->x[map->n - 1]) return map->y[map->n - 1];
    size_t low = 0, high = map->n - 1; /* x[low] < score < x[high] or equal */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (map->x[middle] <= score)
            low = middle;
        else
            high = middle;
    }
    double t = (score - map->x[low]) / (map->x[high] - map->x[low]);
    return map->y[low] + t * (map->y[high] - map->y[low]);
}

void calib_map_free(calib_map *map) {
    free(map->x);
    free(map->y);
    map->x = map->y = NULL;
    map->n = 0;
}

/* ---- the bound -------------------------------------------------------------------------------------------------- */

static double calib_log_gamma(double x) {
    int sign; /* lgamma() would write a global variable */
    return lgamma_r(x, &sign);
}

/* The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method. */
static double calib_beta_fraction(double a, double b, double x) {
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double result = d;
    for (int m = 1; m <= 10000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 + even * d;
        c = 1 + even / c;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = fabs(c) < tiny ? tiny : c;
        result *= d * c;
        d = 1 + odd * d;
        c = 1 + odd / c;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = fabs(c) < tiny ? tiny : c;
        double factor = d * c;
        result *= factor;
        if (fabs(factor - 1) < 1e-13) break;
    }
    return result;
}

/* The regularised incomplete beta function I_x(a, b). */
static double calib_beta(double a, double b, double x) {
    if (x <= 0) return 0;
    if (x >= 1) return 1;
    double front = exp(calib_log_gamma(a + b) - calib_log_gamma(a) - calib_log_gamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2)) return front * calib_beta_fraction(a, b, x) / a;
    return 1 - front * calib_beta_fraction(b, a, 1 - x) / b;
}

double calib_upper_bound(uint64_t errors, uint64_t n, double delta) {
    if (errors >= n) return 1;
    /* P(X <= errors | p) = I_{1-p}(n - errors, errors + 1) falls as p rises. */
    double low = 0, high = 1;
    for (int i = 0; i < 60; i++) {
        double p = (low + high) / 2;
        if (calib_beta((double)(n - errors), (double)errors + 1, 1 - p) > delta)
            low = p;
        else
            high = p;
    }
    return high;
}

/* ---- the bar ---------------------------------------------------------------------------------------------------- */

enum { CALIB_FIRST_SHARE = 20, CALIB_SHARE_STEP = 5 };

/* How many labels in all would certify a slice of this share with this rate of errors; -1: no number. */
static double calib_labels_needed(double share, double rate, double alpha, double delta) {
    const double most = 1e7;
    if (!(rate < alpha)) return -1;
    double low = 1, high = most; /* in the slice */
    uint64_t m = (uint64_t)most;
    if (calib_upper_bound((uint64_t)ceil(rate * (double)m), m, delta) > alpha) return -1;
    while (high - low > 1) {
        double middle = floor((low + high) / 2);
        m = (uint64_t)middle;
        if (calib_upper_bound((uint64_t)ceil(rate * (double)m - 1e-9), m, delta) <= alpha)
            high = middle;
        else
            low = middle;
    }
    return ceil(high / share);
}

/* Fixed-sequence testing (Angelopoulos et al. 2021, "Learn then Test"): slices of the best-scored labels, from 20 % to
 * all in an order that does not depend on who is right; each is tested at delta, the first that fails ends the walk,
 * and so the promise holds for the last that passed without a correction for their number. Slices of so few labels that
 * they could not pass without an error either are left out. */
minim_status calib_find_bar(calib_bar *bar, const double *score, const double *right, size_t n, double alpha,
                            double delta) {
    eval_order order;
    *bar = (calib_bar){.bound = 1, .labels_missing = -1};
    if (eval_order_new(&order, score, n)) return MINIM_ERR_MEMORY;
    size_t least = (size_t)ceil(log(delta) / log1p(-alpha)), at = 0;
    double needed = -1;
    uint64_t errors = 0;
    int going = 1;
    for (size_t percent = CALIB_FIRST_SHARE; percent <= 100; percent += CALIB_SHARE_STEP) {
        size_t wanted = (percent * n + 99) / 100;
        if (wanted <= at) continue;
        while (at < n && (at < wanted || !order.first[at])) errors += right[order.order[at++]] < 0.5;
        double bound = calib_upper_bound(errors, at, delta), share = (double)at / (double)n;
        double here = calib_labels_needed(share, (double)errors / (double)at, alpha, delta);
        if (here >= 0 && (needed < 0 || here < needed)) needed = here;
        if (at < least) continue; /* could not pass, so it does not end the walk either */
        going = going && bound <= alpha;
        if (going) *bar = (calib_bar){1, score[order.order[at - 1]], share, bound, 0};
    }
    eval_order_free(&order);
    /* So few labels that the estimate is below what there is: one more round of labels, at least one. */
    if (!bar->certified && needed >= 0) bar->labels_missing = fmax(needed - (double)n, 1);
    return MINIM_OK;
}
