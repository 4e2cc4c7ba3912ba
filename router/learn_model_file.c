/* learn_model_file.c: a trained score of prompts as a JSON file. The n-grams are hashes: the labelled prompts can not
 * be read back from it, though whether a given phrase was in several of them can be tried. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "learn_file.h"
#include "learn_model.h"

static const char model_file_name[] = "minim_route_model";
enum { MODEL_FILE_VERSION = 1 };

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static json_t *model_file_floats(const float *numbers, size_t n) {
    json_t *array = json_array();
    for (size_t i = 0; i < n && array; i++) {
        if (json_array_append_new(array, json_real((double)numbers[i]))) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

static json_t *model_file_hashes(const uint32_t *hash, size_t n) {
    json_t *array = json_array();
    for (size_t i = 0; i < n && array; i++) {
        if (json_array_append_new(array, json_integer(hash[i]))) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

minim_status minim_route_model_save(const minim_route_model *m, const char *path, minim_error *error) {
    if (!m || !path) return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_model_save: NULL");
    json_t *root = json_object();
    const minim_route_figure *a = &m->info.apgr;
    const double apgr[3] = {a->value, a->low, a->high};
    int has_apgr = !isnan(a->value) && !isnan(a->low) && !isnan(a->high), failed = !root;
    failed |= learn_set(root, model_file_name, json_integer(MODEL_FILE_VERSION));
    failed |= learn_set(root, "labels", json_integer((json_int_t)m->info.n_labels));
    failed |= learn_set(root, "weak_mean", json_real(m->info.weak_mean));
    failed |= learn_set(root, "strong_mean", json_real(m->info.strong_mean));
    failed |= learn_set(root, "apgr", learn_numbers(apgr, has_apgr ? 3 : 0));
    failed |= learn_set(root, "familiarity", json_real(m->info.familiarity));
    failed |= learn_set(root, "ridge", json_real(m->info.ridge));
    failed |= learn_set(root, "shape_ridge", json_real(m->info.shape_ridge));
    failed |= learn_set(root, "bias", model_file_floats(m->bias, 2));
    failed |= learn_set(root, "shape_middle", model_file_floats(m->shape_middle, LEARN_SHAPES));
    failed |= learn_set(root, "shape_spread", model_file_floats(m->shape_spread, LEARN_SHAPES));
    failed |= learn_set(root, "shape_weak", model_file_floats(m->shape_weights[0], LEARN_SHAPES));
    failed |= learn_set(root, "shape_strong", model_file_floats(m->shape_weights[1], LEARN_SHAPES));
    failed |= learn_set(root, "learned", model_file_hashes(m->learned, m->n_learned));
    failed |= learn_set(root, "hash", model_file_hashes(m->hash, m->n));
    failed |= learn_set(root, "rarity", model_file_floats(m->rarity, m->n));
    failed |= learn_set(root, "weak", model_file_floats(m->weights[0], m->n));
    failed |= learn_set(root, "strong", model_file_floats(m->weights[1], m->n));
    minim_status status = learn_save_json(path, failed ? NULL : root, 9, error);
    json_decref(root);
    return status;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

typedef struct model_file {
    const char *path;
    const json_t *root;
    minim_error *error;
} model_file;

/* Reads `n` numbers into out[n]. */
static int model_file_read_floats(const model_file *file, const char *name, size_t n, double min, double max,
                                  float *out) {
    double *numbers;
    if (learn_get_numbers(file->path, "", file->root, name, n, min, max, &numbers, &n, file->error)) return -1;
    for (size_t i = 0; i < n; i++) out[i] = (float)numbers[i];
    free(numbers);
    return 0;
}

/* Rising whole numbers up to `max`; *hashes is the caller's to free. */
static int model_file_read_hashes(const model_file *file, const char *name, size_t most, double max, uint32_t **hashes,
                                  size_t *n) {
    double *numbers;
    *n = SIZE_MAX;
    if (learn_get_numbers(file->path, "", file->root, name, most, 0, max, &numbers, n, file->error)) return -1;
    uint32_t *out = malloc((*n + 1) * sizeof *out);
    if (!out) {
        router_fail_memory(file->error, file->path);
        free(numbers);
        return -1;
    }
    for (size_t i = 0; i < *n; i++) {
        out[i] = (uint32_t)numbers[i];
        if (i == 0 || out[i] > out[i - 1]) continue;
        router_fail(file->error, MINIM_ERR_FORMAT, "%s: %s[%zu]: found %u behind %u, expected rising numbers",
                    file->path, name, i, out[i], out[i - 1]);
        free(out);
        free(numbers);
        return -1;
    }
    free(numbers);
    *hashes = out;
    return 0;
}

/* A model with the n-grams' hashes and nothing else; NULL after the error. */
static minim_route_model *model_file_start(const model_file *file) {
    uint32_t *hash = NULL;
    size_t n;
    const double max = (1 << LEARN_HASH_BITS) - 1;
    if (model_file_read_hashes(file, "hash", (size_t)1 << LEARN_HASH_BITS, max, &hash, &n)) return NULL;
    minim_route_model *m = learn_model_new(n);
    if (m)
        memcpy(m->hash, hash, n * sizeof *hash);
    else
        router_fail_memory(file->error, file->path);
    free(hash);
    return m;
}

static int model_file_read(const model_file *file, minim_route_model *m) {
    const char *path = file->path;
    const json_t *root = file->root;
    float apgr[3] = {NAN, NAN, NAN};
    double labels = 0;
    int has_apgr = json_array_size(json_object_get(root, "apgr")) > 0;
    if (learn_get_number(path, "", root, "labels", 1, 1e9, &labels, file->error) ||
        learn_get_number(path, "", root, "weak_mean", 0, 1, &m->info.weak_mean, file->error) ||
        learn_get_number(path, "", root, "strong_mean", 0, 1, &m->info.strong_mean, file->error) ||
        learn_get_number(path, "", root, "familiarity", 0, 1, &m->info.familiarity, file->error) ||
        /* older files do not say */
        (json_object_get(root, "ridge") &&
         learn_get_number(path, "", root, "ridge", 0, 1e9, &m->info.ridge, file->error)) ||
        (json_object_get(root, "shape_ridge") &&
         learn_get_number(path, "", root, "shape_ridge", 0, 1e9, &m->info.shape_ridge, file->error)) ||
        (has_apgr && model_file_read_floats(file, "apgr", 3, -1e9, 1e9, apgr)) ||
        model_file_read_floats(file, "bias", 2, -100, 100, m->bias) ||
        model_file_read_floats(file, "shape_middle", LEARN_SHAPES, -1e9, 1e9, m->shape_middle) ||
        model_file_read_floats(file, "shape_spread", LEARN_SHAPES, 1e-6, 1e9, m->shape_spread) ||
        model_file_read_floats(file, "shape_weak", LEARN_SHAPES, -1e3, 1e3, m->shape_weights[0]) ||
        model_file_read_floats(file, "shape_strong", LEARN_SHAPES, -1e3, 1e3, m->shape_weights[1]) ||
        model_file_read_hashes(file, "learned", (size_t)1 << 22, 4294967295.0, &m->learned, &m->n_learned) ||
        model_file_read_floats(file, "rarity", m->n, 0, 100, m->rarity) ||
        model_file_read_floats(file, "weak", m->n, -1e3, 1e3, m->weights[0]) ||
        model_file_read_floats(file, "strong", m->n, -1e3, 1e3, m->weights[1])) {
        return -1;
    }
    m->info.weak_mean = learn_round(m->info.weak_mean);
    m->info.strong_mean = learn_round(m->info.strong_mean);
    m->info.familiarity = learn_round(m->info.familiarity);
    m->info.n_labels = (uint64_t)labels;
    m->info.n_grams = m->n;
    m->info.apgr = (minim_route_figure){(double)apgr[0], (double)apgr[1], (double)apgr[2]};
    return 0;
}

minim_status minim_route_model_load(const char *path, minim_route_model **model, minim_error *error) {
    minim_error local = {.status = MINIM_OK};
    model_file file = {.path = path, .error = error ? error : &local};
    json_t *root = NULL;
    if (!path || !model) return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_model_load: NULL");
    minim_status status = learn_load_json(path, model_file_name, MODEL_FILE_VERSION, &root, error);
    if (status != MINIM_OK) return status;
    file.root = root;
    minim_route_model *m = model_file_start(&file);
    if (!m || model_file_read(&file, m)) {
        minim_route_model_free(m);
        status = file.error->status;
    } else {
        *model = m;
    }
    json_decref(root);
    return status;
}
