/* route_learn.c: see route_learn.h. */
#include "route_learn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "json.h"

int route_load_labels(const char *path, route_labels *labels) {
    minim_error error = {.status = MINIM_OK};
    if (minim_route_labels_load(path, &labels->labels, &error) != MINIM_OK) return tool_fail_error(&error);
    labels->n = minim_route_labels_count(labels->labels);
    labels->rows = malloc(labels->n * sizeof *labels->rows);
    if (!labels->rows) return tool_fail("out of memory for the labels");
    for (size_t i = 0; i < labels->n; i++) labels->rows[i] = minim_route_labels_get(labels->labels, i);
    return -1;
}

void route_free_labels(route_labels *labels) {
    free(labels->rows);
    minim_route_labels_free(labels->labels);
}

#ifdef MINIM_WITH_ROUTER

int route_load_learned(const minim_router_config *config, route_learned *learned) {
    minim_error error = {.status = MINIM_OK};
    if (config->calibration[0] && minim_route_calibration_load(config->calibration, &learned->calibration, &error))
        return tool_fail_error(&error);
    if (config->prompt_model[0] && minim_route_model_load(config->prompt_model, &learned->prompt_model, &error))
        return tool_fail_error(&error);
    return -1;
}

#else

int route_load_learned(const minim_router_config *config, route_learned *learned) {
    (void)learned;
    if (!config->calibration[0] && !config->prompt_model[0]) return -1;
    return tool_fail("this minim was built without libcurl and jansson: it reads no calibration");
}

#endif

void route_free_learned(route_learned *learned) {
    minim_route_calibration_free(learned->calibration);
    minim_route_model_free(learned->prompt_model);
}

void route_shuffle_labels(route_labels *labels, uint64_t seed) {
    for (size_t i = labels->n; i > 1; i--) {
        /* splitmix64, as the router's own */
        uint64_t z = seed += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        size_t j = (size_t)((z ^ z >> 31) % i);
        const minim_route_label *swap = labels->rows[i - 1];
        labels->rows[i - 1] = labels->rows[j];
        labels->rows[j] = swap;
    }
}

const char *route_one_file(const char *command, const option_list *arguments, const char *what) {
    if (arguments->n) return arguments->items[0];
    options_complain(command, "expected %s", what);
    return NULL;
}

const char *route_figure_text(const minim_route_figure *figure, double scale, int digits, char *buffer,
                              size_t capacity) {
    if (isnan(figure->value))
        snprintf(buffer, capacity, "n/a");
    else if (isnan(figure->low))
        snprintf(buffer, capacity, "%.*f", digits, scale * figure->value);
    else
        snprintf(buffer, capacity, "%.*f (%.*f to %.*f)", digits, scale * figure->value, digits, scale * figure->low,
                 digits, scale * figure->high);
    return buffer;
}

void route_write_figure(const char *name, const minim_route_figure *figure, int *first) {
    json_write_name(stdout, name, first);
    putchar('[');
    json_write_number(stdout, figure->value, 9);
    putchar(',');
    json_write_number(stdout, figure->low, 9);
    putchar(',');
    json_write_number(stdout, figure->high, 9);
    putchar(']');
}
