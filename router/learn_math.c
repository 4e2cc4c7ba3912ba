/* learn_math.c: shuffling and logistic regression. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "learn.h"

void learn_shuffle(uint32_t *order, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        uint32_t j = learn_random_below(&seed, (uint32_t)i), swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}

double learn_sigmoid(double x) {
    if (x >= 0) return 1 / (1 + exp(-x));
    double e = exp(x);
    return e / (1 + e);
}

/* ---- logistic regression ---------------------------------------------------------------------------------------- */

/* The weights' last entry is the bias, so vectors here have n = n_columns + 1 entries. */
typedef struct logistic_fit {
    const learn_matrix *x;
    const double *target, *ridge;
    double tolerance;
    size_t n;
    double *w, *gradient, *step, *residual, *direction, *product, *trial; /* [n] */
    double *margin, *curvature, *change;                                  /* [n_rows] */
} logistic_fit;

/* out[n_rows] = X v */
static void logistic_forward(const logistic_fit *fit, const double *v, double *out) {
    const learn_matrix *x = fit->x;
    for (size_t i = 0; i < x->n_rows; i++) {
        double sum = v[x->n_columns];
        for (size_t k = x->start[i]; k < x->start[i + 1]; k++) sum += (double)x->value[k] * v[x->column[k]];
        out[i] = sum;
    }
}

/* out[n] = X^T u + ridge * v */
static void logistic_backward(const logistic_fit *fit, const double *u, const double *v, double *out) {
    const learn_matrix *x = fit->x;
    for (size_t j = 0; j < x->n_columns; j++) out[j] = fit->ridge[j] * v[j];
    out[x->n_columns] = 0;
    for (size_t i = 0; i < x->n_rows; i++) {
        for (size_t k = x->start[i]; k < x->start[i + 1]; k++) out[x->column[k]] += (double)x->value[k] * u[i];
        out[x->n_columns] += u[i];
    }
}

static double logistic_dot(const double *a, const double *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* log(1 + exp(m)) - t m, summed, and the penalty. */
static double logistic_loss(const logistic_fit *fit, const double *w, const double *margin) {
    double sum = 0;
    for (size_t i = 0; i < fit->x->n_rows; i++) {
        double m = margin[i];
        sum += (m > 0 ? m : 0) + log1p(exp(-fabs(m))) - fit->target[i] * m;
    }
    for (size_t j = 0; j < fit->x->n_columns; j++) sum += fit->ridge[j] * w[j] * w[j] / 2;
    return sum;
}

/* Solves H step = -gradient as far as the outer iteration needs it. */
static void logistic_conjugate(const logistic_fit *fit) {
    size_t n = fit->n;
    memset(fit->step, 0, n * sizeof *fit->step);
    for (size_t j = 0; j < n; j++) fit->direction[j] = fit->residual[j] = -fit->gradient[j];
    double square = logistic_dot(fit->residual, fit->residual, n), enough = square * 1e-4;
    for (int round = 0; round < 50 && square > enough; round++) {
        logistic_forward(fit, fit->direction, fit->change);
        for (size_t i = 0; i < fit->x->n_rows; i++) fit->change[i] *= fit->curvature[i];
        logistic_backward(fit, fit->change, fit->direction, fit->product);
        double bend = logistic_dot(fit->direction, fit->product, n);
        if (!(bend > 0)) return;
        double length = square / bend, before = square;
        for (size_t j = 0; j < n; j++) {
            fit->step[j] += length * fit->direction[j];
            fit->residual[j] -= length * fit->product[j];
        }
        square = logistic_dot(fit->residual, fit->residual, n);
        for (size_t j = 0; j < n; j++) {
            fit->direction[j] = fit->residual[j] + square / before * fit->direction[j];
        }
    }
}

/* One Newton step; 0 when nothing is gained any more. *loss is of the weights as they are. */
static int logistic_improve(const logistic_fit *fit, double *loss) {
    size_t n = fit->n;
    for (size_t i = 0; i < fit->x->n_rows; i++) {
        double p = learn_sigmoid(fit->margin[i]);
        fit->change[i] = p - fit->target[i];
        fit->curvature[i] = p * (1 - p) + 1e-9;
    }
    logistic_backward(fit, fit->change, fit->w, fit->gradient);
    logistic_conjugate(fit);
    double length = 1, before = *loss;
    for (int halvings = 0; halvings < 20; halvings++, length /= 2) {
        for (size_t j = 0; j < n; j++) fit->trial[j] = fit->w[j] + length * fit->step[j];
        logistic_forward(fit, fit->trial, fit->margin);
        double now = logistic_loss(fit, fit->trial, fit->margin);
        if (!(now < before)) continue;
        memcpy(fit->w, fit->trial, n * sizeof *fit->w);
        *loss = now;
        return before - now > fit->tolerance * (before + 1);
    }
    return 0;
}

minim_status learn_logistic(const learn_matrix *x, const double *target, const double *ridge, double tolerance,
                            double *weights, double *bias) {
    size_t n = x->n_columns + 1;
    double *memory = calloc(7 * n + 3 * x->n_rows + 1, sizeof *memory);
    if (!memory) return MINIM_ERR_MEMORY;
    double *rows = memory + 7 * n;
    logistic_fit fit = {.x = x,
                        .target = target,
                        .ridge = ridge,
                        .tolerance = tolerance,
                        .n = n,
                        .w = memory,
                        .gradient = memory + n,
                        .step = memory + 2 * n,
                        .residual = memory + 3 * n,
                        .direction = memory + 4 * n,
                        .product = memory + 5 * n,
                        .trial = memory + 6 * n,
                        .margin = rows,
                        .curvature = rows + x->n_rows,
                        .change = rows + 2 * x->n_rows};
    memcpy(fit.w, weights, x->n_columns * sizeof *weights);
    fit.w[x->n_columns] = *bias;
    logistic_forward(&fit, fit.w, fit.margin);
    double loss = logistic_loss(&fit, fit.w, fit.margin);
    for (int round = 0; round < 30 && logistic_improve(&fit, &loss); round++) continue;
    memcpy(weights, fit.w, x->n_columns * sizeof *weights);
    *bias = fit.w[x->n_columns];
    free(memory);
    return MINIM_OK;
}
