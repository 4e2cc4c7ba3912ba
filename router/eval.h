/* eval.h: curves of quality over the share of prompts that are sent away; the inside of minim_route_evaluate(). */
#ifndef ROUTER_EVAL_H
#define ROUTER_EVAL_H

#include "minim_route_learn.h"
#include "support.h"

/* Prompts in the order they are sent away: order[n], and first[n] is 1 where a block of equal scores begins. */
typedef struct eval_order {
    size_t n;
    uint32_t *order;
    unsigned char *first;
} eval_order;

/* Highest score first. MINIM_ERR_MEMORY. */
minim_status eval_order_new(eval_order *order, const double *score, size_t n);
void eval_order_free(eval_order *order);

/* One point of the curve: the share sent away, the mean quality, the summed cost; between points it is straight. */
typedef struct eval_point {
    double share, quality, cost;
} eval_point;

typedef struct eval_input {
    size_t n;
    const double *weak, *strong;          /* [n] */
    const double *keep_cost, *leave_cost; /* [n] of a prompt that is answered locally, or sent away */
    const uint32_t *copies;               /* [n] how often a prompt is in the resample; NULL = once */
} eval_input;

/* Writes the curve to points[n + 1]; returns how many points it has: one at 0 and one behind each block. */
size_t eval_curve(const eval_input *input, const eval_order *order, eval_point *points);

typedef struct eval_figures {
    double apgr, cpt50, cpt80, auc_df, cost50, cost80;
} eval_figures;

void eval_measure(const eval_point *points, size_t n, eval_figures *figures);

/* The curve at a share in 0..1. */
eval_point eval_at(const eval_point *points, size_t n, double share);

/* AUROC of a score (higher = more likely right) for qualities in 0..1: the chance that of a right and a wrong answer
 * the right one has the higher score, ties 1/2. NaN when there is only one kind. `order` is that of the score. */
double eval_auroc(const double *right, const uint32_t *copies, const eval_order *order);

/* Area under the risk-coverage curve for the same: the share of wrong answers among those kept, over the share kept,
 * the highest score first, or the lowest when from_end. A block of equals is kept in no particular order. */
double eval_aurc(const double *right, const uint32_t *copies, const eval_order *order, int from_end);

/* Area under the least concave, never falling curve above all points of quality over cost, from the first point to the
 * largest cost, divided by the latter. NaN when nothing costs anything. Moves points. */
double eval_aiq(eval_point *points, size_t n);

/* Expected calibration error over 10 bins: of equal width, or of equal mass (then by `order`, that of the confidence).
 */
double eval_ece_width(const double *confidence, const double *right, size_t n);
double eval_ece_mass(const double *confidence, const double *right, const eval_order *order);
double eval_brier(const double *confidence, const double *right, size_t n);

#endif
