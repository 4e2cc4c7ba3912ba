/* route_learn.h: what the learning subcommands of `minim route` share. */
#ifndef TOOLS_ROUTE_LEARN_H
#define TOOLS_ROUTE_LEARN_H

#include "../router/minim_route_learn.h"
#include "common.h"

/* Labels of a file as an array of rows. */
typedef struct route_labels {
    minim_route_labels *labels;
    const minim_route_label **rows; /* [n] */
    size_t n;
} route_labels;

/* Returns -1, or the exit code after a message; also then it must be freed. */
int route_load_labels(const char *path, route_labels *labels);
void route_free_labels(route_labels *labels);

/* What a configuration names and was learned; NULL where it names nothing. */
typedef struct route_learned {
    minim_route_calibration *calibration;
    minim_route_model *prompt_model;
} route_learned;

/* Returns -1, or the exit code after a message; also then it must be freed. */
int route_load_learned(const minim_router_config *config, route_learned *learned);
void route_free_learned(route_learned *learned);

/* Shuffles the rows by the seed alone. */
void route_shuffle_labels(route_labels *labels, uint64_t seed);

/* The one file that is named on the command line. Returns NULL after a message. */
const char *route_one_file(const char *command, const option_list *arguments, const char *what);

/* "0.597 (0.581 to 0.612)", "n/a". Writes to buffer and returns it. */
const char *route_figure_text(const minim_route_figure *figure, double scale, int digits, char *buffer,
                              size_t capacity);

/* "name": [value, low, high] of a JSON object. */
void route_write_figure(const char *name, const minim_route_figure *figure, int *first);

#endif
