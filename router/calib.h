/* calib.h: from scores to probabilities and bars; the inside of minim_route_calibrate(). */
#ifndef ROUTER_CALIB_H
#define ROUTER_CALIB_H

#include "learn.h"

/* A map from scores to P(right) that never falls. Platt: sigmoid(slope * x + offset), x = log-odds of the score within
 * 1e-6 .. 1 - 1e-6, slope >= 0; flat below `low` and above `high`. Isotonic: straight lines through the knots, flat
 * beyond the ends. */
typedef struct calib_map {
    int isotonic;
    double slope, offset, low, high;
    size_t n;      /* knots */
    double *x, *y; /* [n] rising scores; rising probabilities */
} calib_map;

/* Fits a map to score[n] (0..1) and right[n] (0 or 1). The knots belong to the caller. MINIM_ERR_MEMORY. */
minim_status calib_fit(calib_map *map, int isotonic, const double *score, const double *right, size_t n);
double calib_apply(const calib_map *map, double score);
void calib_map_free(calib_map *map);

/* The smallest p for which P(at most `errors` of n are wrong | p) <= delta: Clopper & Pearson's upper bound. 1 for n =
 * 0. */
double calib_upper_bound(uint64_t errors, uint64_t n, double delta);

/* What the labels certify: see minim_route_calibration_info. */
typedef struct calib_bar {
    int certified;
    double score, accepted, bound, labels_missing;
} calib_bar;

minim_status calib_find_bar(calib_bar *bar, const double *score, const double *right, size_t n, double alpha,
                            double delta);

/* The method "learned": sigmoid(bias + sum weight (signal - middle) / spread), terms within -4 .. 4 spreads. */
typedef struct calib_head {
    double middle[MINIM_ROUTE_N_SIGNALS], spread[MINIM_ROUTE_N_SIGNALS], weight[MINIM_ROUTE_N_SIGNALS], bias;
} calib_head;

minim_status calib_head_fit(calib_head *head, const minim_route_label *const *rows, size_t n);
double calib_head_score(const calib_head *head, const double *signals);

typedef struct calib_entry {
    minim_route_calibration_info info;
    calib_head head; /* of "learned" */
    calib_map map;
} calib_entry;

struct minim_route_calibration {
    calib_entry *entries;
    size_t n;
};

enum { CALIB_MAX_ENTRIES = 4096, CALIB_MAX_KNOTS = 100000 };

/* Puts an entry in the place of the one for the same model, quantisation and method, or at the end; takes its knots
 * over also when it fails. MINIM_ERR_MEMORY, MINIM_ERR_SPACE. */
minim_status calib_put(minim_route_calibration *calibration, calib_entry *entry);

#endif
