/* eval_curve.c: the figures of one curve, without memory of its own; see eval.h. */
#include <math.h>
#include <stdlib.h>

#include "eval.h"

enum { EVAL_BINS = 10 };

/* ---- order ------------------------------------------------------------------------------------------------------ */

typedef struct eval_key {
    double score;
    uint32_t index;
} eval_key;

static int eval_compare_keys(const void *a, const void *b) {
    const eval_key *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

minim_status eval_order_new(eval_order *order, const double *score, size_t n) {
    eval_key *keys = n < UINT32_MAX ? malloc((n + 1) * sizeof *keys) : NULL;
    *order = (eval_order){n, malloc((n + 1) * sizeof *order->order), malloc(n + 1)};
    if (!keys || !order->order || !order->first) {
        free(keys);
        eval_order_free(order);
        return MINIM_ERR_MEMORY;
    }
    for (size_t i = 0; i < n; i++) keys[i] = (eval_key){score[i], (uint32_t)i};
    qsort(keys, n, sizeof *keys, eval_compare_keys);
    for (size_t i = 0; i < n; i++) {
        order->order[i] = keys[i].index;
        order->first[i] = i == 0 || keys[i].score != keys[i - 1].score;
    }
    free(keys);
    return MINIM_OK;
}

void eval_order_free(eval_order *order) {
    free(order->order);
    free(order->first);
    *order = (eval_order){0};
}

/* ---- the curve -------------------------------------------------------------------------------------------------- */

static double eval_copies(const uint32_t *copies, size_t i) {
    return copies ? (double)copies[i] : 1;
}

size_t eval_curve(const eval_input *input, const eval_order *order, eval_point *points) {
    double n = 0, quality = 0, cost = 0, sent = 0;
    size_t n_points = 0;
    for (size_t i = 0; i < input->n; i++) {
        double copies = eval_copies(input->copies, i);
        n += copies;
        quality += copies * input->weak[i];
        cost += copies * input->keep_cost[i];
    }
    if (!(n > 0)) return 0;
    points[n_points++] = (eval_point){0, quality / n, cost};
    for (size_t at = 0; at < input->n; at++) {
        size_t i = order->order[at];
        double copies = eval_copies(input->copies, i);
        sent += copies;
        quality += copies * (input->strong[i] - input->weak[i]);
        cost += copies * (input->leave_cost[i] - input->keep_cost[i]);
        int ends = at + 1 == input->n || order->first[at + 1];
        if (ends && sent > points[n_points - 1].share * n) {
            points[n_points++] = (eval_point){sent / n, quality / n, cost};
        }
    }
    return n_points;
}

/* The smallest share whose quality is at least the wanted one. */
static eval_point eval_crossing(const eval_point *points, size_t n, double wanted) {
    for (size_t i = 1; i < n; i++) {
        const eval_point *a = &points[i - 1], *b = &points[i];
        if (b->quality < wanted) continue;
        double t = (wanted - a->quality) / (b->quality - a->quality);
        t = t > 0 ? t < 1 ? t : 1 : 0;
        return (eval_point){a->share + t * (b->share - a->share), wanted, a->cost + t * (b->cost - a->cost)};
    }
    return points[n - 1]; /* rounding: the last point is all-strong */
}

void eval_measure(const eval_point *points, size_t n, eval_figures *figures) {
    const double none = (double)NAN;
    *figures = (eval_figures){none, none, none, none, none, none};
    if (n < 2) return;
    double area = 0, weak = points[0].quality, strong = points[n - 1].quality, gain = strong - weak;
    for (size_t i = 1; i < n; i++) {
        area += (points[i].share - points[i - 1].share) * (points[i].quality + points[i - 1].quality) / 2;
    }
    figures->auc_df = area;
    if (!(gain > 1e-12)) return;
    figures->apgr = (area - weak) / gain;
    eval_point half = eval_crossing(points, n, weak + 0.5 * gain), most = eval_crossing(points, n, weak + 0.8 * gain);
    figures->cpt50 = half.share;
    figures->cpt80 = most.share;
    figures->cost50 = half.cost;
    figures->cost80 = most.cost;
}

eval_point eval_at(const eval_point *points, size_t n, double share) {
    for (size_t i = 1; i < n; i++) {
        const eval_point *a = &points[i - 1], *b = &points[i];
        if (b->share < share) continue;
        double t = (share - a->share) / (b->share - a->share);
        t = t > 0 ? t : 0;
        return (eval_point){share, a->quality + t * (b->quality - a->quality), a->cost + t * (b->cost - a->cost)};
    }
    return points[n - 1];
}

static int eval_compare_costs(const void *a, const void *b) {
    const eval_point *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    return (x->quality > y->quality) - (x->quality < y->quality);
}

double eval_aiq(eval_point *points, size_t n) {
    if (!n) return (double)NAN;
    qsort(points, n, sizeof *points, eval_compare_costs); /* a prompt may be cheaper when it leaves */
    double most = points[n - 1].cost, area = 0;
    size_t m = 0; /* points of the hull so far (Andrew's monotone chain) */
    for (size_t i = 0; i < n; i++) {
        eval_point p = points[i];
        if (m && p.quality <= points[m - 1].quality) continue; /* dearer and no better */
        while (m > 1) {
            const eval_point *a = &points[m - 2], *b = &points[m - 1];
            if ((b->quality - a->quality) * (p.cost - a->cost) > (p.quality - a->quality) * (b->cost - a->cost)) break;
            m--;
        }
        if (m == 1 && points[0].cost == p.cost) m = 0;
        points[m++] = p;
    }
    for (size_t i = 1; i < m; i++)
        area += (points[i].cost - points[i - 1].cost) * (points[i].quality + points[i - 1].quality) / 2;
    area += (most - points[m - 1].cost) * points[m - 1].quality;
    return most > 0 ? area / most : (double)NAN;
}

/* ---- confidence ------------------------------------------------------------------------------------------------- */

double eval_auroc(const double *right, const uint32_t *copies, const eval_order *order) {
    double rights = 0, wrongs = 0, above = 0, pairs = 0; /* above: right answers with a higher score */
    for (size_t at = 0; at < order->n;) {
        double block_right = 0, block_wrong = 0;
        do {
            size_t i = order->order[at];
            block_right += eval_copies(copies, i) * right[i];
            block_wrong += eval_copies(copies, i) * (1 - right[i]);
        } while (++at < order->n && !order->first[at]);
        pairs += block_wrong * (above + block_right / 2);
        above += block_right;
        rights += block_right;
        wrongs += block_wrong;
    }
    return rights > 0 && wrongs > 0 ? pairs / (rights * wrongs) : (double)NAN;
}

double eval_aurc(const double *right, const uint32_t *copies, const eval_order *order, int from_end) {
    double kept = 0, wrong = 0, area = 0;
    for (size_t k = 0; k < order->n;) {
        double block = 0, block_wrong = 0;
        int ends;
        do {
            size_t at = from_end ? order->n - 1 - k : k, i = order->order[at];
            block += eval_copies(copies, i);
            block_wrong += eval_copies(copies, i) * (1 - right[i]);
            ends = ++k == order->n || order->first[from_end ? at : at + 1];
        } while (!ends);
        if (!(block > 0)) continue;
        /* the integral of (wrong + rate t) / (kept + t) over t = 0 .. block */
        double rate = block_wrong / block;
        area += block_wrong + (kept > 0 ? (wrong - rate * kept) * log1p(block / kept) : 0);
        kept += block;
        wrong += block_wrong;
    }
    return kept > 0 ? area / kept : (double)NAN;
}

double eval_ece_width(const double *confidence, const double *right, size_t n) {
    double off[EVAL_BINS] = {0}, sum = 0;
    for (size_t i = 0; i < n; i++) {
        int bin = (int)(confidence[i] * EVAL_BINS);
        off[bin < EVAL_BINS ? bin : EVAL_BINS - 1] += confidence[i] - right[i];
    }
    for (int b = 0; b < EVAL_BINS; b++) sum += fabs(off[b]);
    return n ? sum / (double)n : (double)NAN;
}

double eval_ece_mass(const double *confidence, const double *right, const eval_order *order) {
    double sum = 0, off = 0;
    size_t n = order->n, bin = 1;
    for (size_t at = 0; at < n; at++) {
        size_t i = order->order[at];
        off += confidence[i] - right[i];
        /* A bin ends where its share is reached, but never inside a block of equals: their order means nothing. */
        if (at + 1 < n && (!order->first[at + 1] || at + 1 < bin * n / EVAL_BINS)) continue;
        sum += fabs(off);
        off = 0;
        while (bin * n / EVAL_BINS <= at + 1) bin++;
    }
    return n ? sum / (double)n : (double)NAN;
}

double eval_brier(const double *confidence, const double *right, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (confidence[i] - right[i]) * (confidence[i] - right[i]);
    return n ? sum / (double)n : (double)NAN;
}
