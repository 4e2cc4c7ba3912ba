/* calib_file.c: calibrations as a JSON file. */
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "calib.h"
#include "learn_file.h"

static const char calib_file_name[] = "minim_route_calibration";
enum { CALIB_FILE_VERSION = 1, CALIB_FILE_NUMBERS = 11 };

/* The numbers of an entry that are one double each, with their ranges. */
static void calib_file_table(minim_route_calibration_info *info, double **fields) {
    double *const all[CALIB_FILE_NUMBERS] = {
        &info->base_rate, &info->auroc,          &info->ece,      &info->brier, &info->alpha,         &info->delta,
        &info->bar_score, &info->bar_confidence, &info->accepted, &info->bound, &info->labels_missing};
    memcpy(fields, all, sizeof all);
}

static const struct {
    const char *name;
    double min, max;
} calib_file_numbers[CALIB_FILE_NUMBERS] = {{"base_rate", 0, 1},
                                            {"auroc", 0, 1},
                                            {"ece", 0, 1},
                                            {"brier", 0, 1},
                                            {"alpha", 0, 1},
                                            {"delta", 0, 1},
                                            {"bar_score", 0, 1},
                                            {"bar_confidence", 0, 1},
                                            {"accepted", 0, 1},
                                            {"bound", 0, 1},
                                            {"labels_missing", -1, 1e9}};

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static json_t *calib_file_head(const calib_head *head) {
    json_t *object = json_object();
    int failed = !object;
    failed |= learn_set(object, "bias", json_real(head->bias));
    for (int k = 0; k < MINIM_ROUTE_N_SIGNALS; k++) {
        const double numbers[3] = {head->weight[k], head->middle[k], head->spread[k]};
        failed |= learn_set(object, minim_route_signal_name((minim_route_signal)k), learn_numbers(numbers, 3));
    }
    if (!failed) return object;
    json_decref(object);
    return NULL;
}

static json_t *calib_file_entry(calib_entry *entry) {
    json_t *object = json_object();
    double *fields[CALIB_FILE_NUMBERS];
    const double line[4] = {entry->map.slope, entry->map.offset, entry->map.low, entry->map.high};
    int failed = !object;
    calib_file_table(&entry->info, fields);
    failed |= learn_set(object, "model", json_string(entry->info.model));
    failed |= learn_set(object, "quantisation", json_string(entry->info.quantisation));
    failed |= learn_set(object, "method", json_string(minim_route_method_name(entry->info.method)));
    failed |= learn_set(object, "labels", json_integer((json_int_t)entry->info.n_labels));
    failed |= learn_set(object, "calibration_labels", json_integer((json_int_t)entry->info.n_calibration));
    for (int i = 0; i < CALIB_FILE_NUMBERS; i++)
        failed |= learn_set(object, calib_file_numbers[i].name, json_real(*fields[i]));
    failed |= learn_set(object, "certified", json_boolean(entry->info.certified));
    if (entry->map.isotonic) {
        failed |= learn_set(object, "isotonic_x", learn_numbers(entry->map.x, entry->map.n));
        failed |= learn_set(object, "isotonic_y", learn_numbers(entry->map.y, entry->map.n));
    } else {
        failed |= learn_set(object, "platt", learn_numbers(line, 4));
    }
    if (entry->info.method == MINIM_ROUTE_LEARNED)
        failed |= learn_set(object, "signals", calib_file_head(&entry->head));
    if (!failed) return object;
    json_decref(object);
    return NULL;
}

static minim_status calib_file_write(const minim_route_calibration *c, const char *path, minim_error *error) {
    json_t *root = json_object(), *entries = json_array();
    int failed = !root || !entries || learn_set(root, calib_file_name, json_integer(CALIB_FILE_VERSION));
    for (size_t i = 0; i < c->n && !failed; i++) {
        failed = json_array_append_new(entries, calib_file_entry(&c->entries[i])) != 0;
    }
    failed |= learn_set(root, "entries", entries);
    minim_status status = learn_save_json(path, failed ? NULL : root, 17, error);
    json_decref(root);
    return status;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static int calib_file_read_head(const char *path, const char *where, const json_t *object, calib_head *head,
                                minim_error *error) {
    const json_t *signals = json_object_get(object, "signals");
    if (learn_get_number(path, where, signals, "bias", -1e3, 1e3, &head->bias, error)) return -1;
    for (int k = 0; k < MINIM_ROUTE_N_SIGNALS; k++) {
        double *numbers;
        size_t n = 3;
        const char *name = minim_route_signal_name((minim_route_signal)k);
        if (learn_get_numbers(path, where, signals, name, 3, -1e9, 1e9, &numbers, &n, error)) return -1;
        head->weight[k] = numbers[0];
        head->middle[k] = numbers[1];
        head->spread[k] = numbers[2];
        free(numbers);
        if (head->spread[k] >= 1e-9 && fabs(head->weight[k]) <= 1e3) continue;
        router_fail(error, MINIM_ERR_FORMAT,
                    "%s: %s%s: found weight %g and spread %g, expected at most 1000 and above 0", path, where, name,
                    head->weight[k], head->spread[k]);
        return -1;
    }
    return 0;
}

static int calib_file_read_map(const char *path, const char *where, const json_t *object, calib_map *map,
                               minim_error *error) {
    double *line;
    size_t n = json_array_size(json_object_get(object, "platt")) == 2 ? 2 : 4; /* older files have no limits */
    map->isotonic = json_object_get(object, "platt") == NULL;
    if (!map->isotonic) {
        if (learn_get_numbers(path, where, object, "platt", 4, -1e6, 1e6, &line, &n, error)) return -1;
        map->slope = line[0];
        map->offset = line[1];
        map->low = n > 2 ? line[2] : 0;
        map->high = n > 2 ? line[3] : 1;
        free(line);
        if (map->slope >= 0 && map->low <= map->high) return 0;
        router_fail(error, MINIM_ERR_FORMAT, "%s: %splatt: found a slope below 0, or limits that fall", path, where);
        return -1;
    }
    map->n = SIZE_MAX;
    if (learn_get_numbers(path, where, object, "isotonic_x", CALIB_MAX_KNOTS, 0, 1, &map->x, &map->n, error) ||
        learn_get_numbers(path, where, object, "isotonic_y", CALIB_MAX_KNOTS, 0, 1, &map->y, &map->n, error)) {
        return -1;
    }
    int rises = map->n > 0;
    for (size_t i = 1; i < map->n; i++) rises &= map->x[i] > map->x[i - 1] && map->y[i] >= map->y[i - 1];
    if (rises) return 0;
    router_fail(error, MINIM_ERR_FORMAT, "%s: %sisotonic_x: expected rising numbers, at least one", path, where);
    return -1;
}

static int calib_file_read_entry(const char *path, const char *where, const json_t *object, calib_entry *entry,
                                 minim_error *error) {
    char method[32];
    double *fields[CALIB_FILE_NUMBERS], labels, calibration_labels;
    minim_route_calibration_info *info = &entry->info;
    calib_file_table(info, fields);
    if (learn_get_text(path, where, object, "model", info->model, sizeof info->model, error) ||
        learn_get_text(path, where, object, "quantisation", info->quantisation, sizeof info->quantisation, error) ||
        learn_get_text(path, where, object, "method", method, sizeof method, error) ||
        learn_get_number(path, where, object, "labels", 1, 1e9, &labels, error) ||
        learn_get_number(path, where, object, "calibration_labels", 1, 1e9, &calibration_labels, error)) {
        return -1;
    }
    if (minim_route_method_parse(method, &info->method)) {
        router_fail(error, MINIM_ERR_FORMAT,
                    "%s: %smethod: found \"%s\", expected avg_logprob, margin, quantile or learned", path, where,
                    method);
        return -1;
    }
    for (int i = 0; i < CALIB_FILE_NUMBERS; i++) {
        if (learn_get_number(path, where, object, calib_file_numbers[i].name, calib_file_numbers[i].min,
                             calib_file_numbers[i].max, fields[i], error)) {
            return -1;
        }
    }
    info->size = sizeof *info;
    info->n_labels = (uint64_t)labels;
    info->n_calibration = (uint64_t)calibration_labels;
    info->certified = json_is_true(json_object_get(object, "certified"));
    if (calib_file_read_map(path, where, object, &entry->map, error)) return -1;
    info->isotonic = entry->map.isotonic;
    return info->method == MINIM_ROUTE_LEARNED ? calib_file_read_head(path, where, object, &entry->head, error) : 0;
}

static minim_status calib_file_read(const char *path, const json_t *root, minim_route_calibration *c,
                                    minim_error *error) {
    const json_t *entries = json_object_get(root, "entries");
    size_t n = json_array_size(entries);
    if (!json_is_array(entries) || n > CALIB_MAX_ENTRIES) {
        return router_fail(error, MINIM_ERR_FORMAT, "%s: entries: expected an array of at most %d", path,
                           CALIB_MAX_ENTRIES);
    }
    for (size_t i = 0; i < n; i++) {
        char where[40];
        calib_entry entry;
        memset(&entry, 0, sizeof entry);
        router_line(where, sizeof where, "entries[%zu].", i);
        if (calib_file_read_entry(path, where, json_array_get(entries, i), &entry, error)) {
            calib_map_free(&entry.map);
            return error->status;
        }
        minim_status status = calib_put(c, &entry);
        if (status != MINIM_OK) return router_fail_memory(error, path);
    }
    return MINIM_OK;
}

minim_status minim_route_calibration_load(const char *path, minim_route_calibration **calibration, minim_error *error) {
    minim_error local = {.status = MINIM_OK};
    minim_route_calibration *c = NULL;
    json_t *root = NULL;
    if (!error) error = &local;
    if (!path || !calibration) return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_calibration_load: NULL");
    minim_status status = learn_load_json(path, calib_file_name, CALIB_FILE_VERSION, &root, error);
    if (status == MINIM_OK) status = minim_route_calibration_new(&c, error);
    if (status == MINIM_OK) status = calib_file_read(path, root, c, error);
    json_decref(root);
    if (status == MINIM_OK)
        *calibration = c;
    else
        minim_route_calibration_free(c);
    return status;
}

/* ---- keeping what others wrote ---------------------------------------------------------------------------------- */

/* A lock on the folder, so that two of us do not lose each other's entries: no file is left behind. -1 when it can not
 * be had; writing then goes on without. */
static int calib_file_lock(const char *path) {
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    free(folder);
    if (fd >= 0 && flock(fd, LOCK_EX)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* A copy of an entry, with knots of its own, into another set. */
static minim_status calib_file_copy(minim_route_calibration *to, const calib_entry *from) {
    calib_entry copy = *from;
    if (from->map.isotonic) {
        size_t bytes = from->map.n * sizeof *copy.map.x;
        copy.map.x = malloc(bytes);
        copy.map.y = malloc(bytes);
        if (!copy.map.x || !copy.map.y) {
            calib_map_free(&copy.map);
            return MINIM_ERR_MEMORY;
        }
        memcpy(copy.map.x, from->map.x, bytes);
        memcpy(copy.map.y, from->map.y, bytes);
    }
    return calib_put(to, &copy);
}

minim_status minim_route_calibration_save(const minim_route_calibration *calibration, const char *path,
                                          minim_error *error) {
    minim_route_calibration *merged = NULL;
    if (!calibration || !path) return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_calibration_save: NULL");
    int lock = calib_file_lock(path);
    /* A file that is there and is no calibration is somebody else's: it is not overwritten. */
    minim_status status = access(path, F_OK) ? minim_route_calibration_new(&merged, error)
                                             : minim_route_calibration_load(path, &merged, error);
    for (size_t i = 0; i < calibration->n && status == MINIM_OK; i++) {
        status = calib_file_copy(merged, &calibration->entries[i]);
        if (status != MINIM_OK) router_fail(error, status, "%s: no room for the entries", path);
    }
    if (status == MINIM_OK) status = calib_file_write(merged, path, error);
    if (lock >= 0) close(lock);
    minim_route_calibration_free(merged);
    return status;
}
