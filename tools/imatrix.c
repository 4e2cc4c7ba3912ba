/* imatrix.c: see imatrix.h. */
#include "imatrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gguf_write.h"
#include "json.h"

static const char imatrix_sums[] = ".in_sum2", imatrix_counts[] = ".counts";

/* ---- in memory --------------------------------------------------------------------------------------------------- */

imatrix_entry *imatrix_find(const imatrix *im, const char *name) {
    for (size_t i = 0; i < im->n; i++)
        if (!strcmp(im->entries[i].name, name)) return &im->entries[i];
    return NULL;
}

imatrix_entry *imatrix_get(imatrix *im, const char *name, size_t cols, size_t n_mats) {
    char printable[256];
    imatrix_entry *entry = imatrix_find(im, name);
    if (entry && entry->cols == cols && entry->n_mats == n_mats) return entry;
    if (entry) {
        tool_fail("importance matrix of %s: found %zu x %zu inputs, and %zu x %zu elsewhere",
                  tool_printable(name, printable, sizeof printable), n_mats, cols, entry->n_mats, entry->cols);
        return NULL;
    }
    if (im->n == im->capacity) {
        const size_t capacity = im->capacity ? 2 * im->capacity : 64;
        imatrix_entry *more = realloc(im->entries, capacity * sizeof *more);
        if (!more) {
            tool_fail("out of memory");
            return NULL;
        }
        im->entries = more;
        im->capacity = capacity;
    }
    entry = &im->entries[im->n];
    *entry = (imatrix_entry){strdup(name), cols, n_mats, NULL, NULL};
    if (n_mats <= SIZE_MAX / sizeof(double) / (cols ? cols : 1)) entry->sums = calloc(cols * n_mats, sizeof(double));
    entry->counts = calloc(n_mats, sizeof(double));
    im->n++; /* imatrix_free() looks after it */
    if (entry->name && entry->sums && entry->counts) return entry;
    tool_fail("out of memory");
    return NULL;
}

int imatrix_add_dataset(imatrix *im, const char *name) {
    char **more = realloc(im->datasets, (im->n_datasets + 1) * sizeof *more);
    char *copy = strdup(name);
    if (more) im->datasets = more;
    if (!more || !copy) {
        free(copy);
        tool_fail("out of memory");
        return -1;
    }
    more[im->n_datasets++] = copy;
    return 0;
}

void imatrix_free(imatrix *im) {
    for (size_t i = 0; i < im->n; i++) {
        free(im->entries[i].name);
        free(im->entries[i].sums);
        free(im->entries[i].counts);
    }
    for (size_t i = 0; i < im->n_datasets; i++) free(im->datasets[i]);
    free(im->entries);
    free(im->datasets);
    *im = (imatrix){0};
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* The metadata that is known; what has another type is not looked at. A list of names comes as JSON. */
static int imatrix_read_key(imatrix *im, const minim_model *file, size_t index, size_t *n_chunks) {
    minim_meta meta;
    tool_bytes text = {0};
    size_t n = 0;
    int code = -1;
    if (minim_model_meta(file, index, &meta) != MINIM_OK) return -1;
    minim_model_meta_text(file, index, 0, NULL, 0, &n);
    if (tool_bytes_reserve(&text, n + 1)) return EXIT_CODE_FAILED;
    minim_model_meta_text(file, index, 0, text.data, n + 1, &n);
    if (!strcmp(meta.key, "imatrix.chunk_count") && !strcmp(meta.type, "u32")) *n_chunks = strtoul(text.data, NULL, 10);
    if (!strcmp(meta.key, "imatrix.chunk_size") && !strcmp(meta.type, "u32"))
        im->chunk_size = strtoul(text.data, NULL, 10);
    if (!strcmp(meta.key, "imatrix.datasets") && !strcmp(meta.type, "arr[str]")) {
        for (char *at = strchr(text.data, '"'), *end; at && code < 0; at = strchr(end + 1, '"')) {
            size_t length;
            for (end = at + 1; *end && *end != '"'; end++) end += *end == '\\' && end[1];
            if (!*end || json_read_string(at, (size_t)(end + 1 - at), &length)) break;
            at[length] = 0;
            if (imatrix_add_dataset(im, at)) code = EXIT_CODE_FAILED;
        }
    }
    tool_bytes_free(&text);
    return code;
}

/* Adds n numbers of tensor `index` to sums; none may be negative. */
static int imatrix_read_numbers(const minim_model *file, const char *path, size_t index, size_t n, double *sums) {
    enum { PIECE = 4096 };
    float x[PIECE];
    char name[256];
    minim_error error = {.status = MINIM_OK};
    minim_tensor tensor;
    minim_model_tensor(file, index, &tensor);
    for (size_t at = 0, part; at < n; at += part) {
        part = n - at < PIECE ? n - at : PIECE;
        if (minim_model_tensor_values(file, index, at, part, x, &error) != MINIM_OK) return tool_fail_error(&error);
        for (size_t i = 0; i < part; i++) {
            if (!isfinite(x[i]) || x[i] < 0)
                return tool_fail("%s: tensor %s: element %zu is %g, expected a finite number that is not negative",
                                 path, tool_printable(tensor.name, name, sizeof name), at + i, (double)x[i]);
            sums[at + i] += (double)x[i];
        }
    }
    return -1;
}

/* The place of tensor NAME.counts, or the number of tensors. */
static size_t imatrix_find_counts(const minim_model *file, const char *name, size_t n_name) {
    const size_t n = minim_model_tensor_count(file);
    minim_tensor tensor;
    for (size_t i = 0; i < n; i++) {
        if (minim_model_tensor(file, i, &tensor) != MINIM_OK) continue;
        if (!strncmp(tensor.name, name, n_name) && !strcmp(tensor.name + n_name, imatrix_counts)) return i;
    }
    return n;
}

static int imatrix_read_entry(imatrix *im, const minim_model *file, const char *path, size_t index) {
    minim_tensor sums, counts;
    char name[256], printable[256];
    if (minim_model_tensor(file, index, &sums) != MINIM_OK) return -1;
    const size_t n = strlen(sums.name), n_suffix = sizeof imatrix_sums - 1;
    if (n < n_suffix || strcmp(sums.name + n - n_suffix, imatrix_sums) != 0) return -1;
    tool_printable(sums.name, printable, sizeof printable);
    const size_t place = imatrix_find_counts(file, sums.name, n - n_suffix);
    if (place == minim_model_tensor_count(file) || minim_model_tensor(file, place, &counts) != MINIM_OK)
        return tool_fail("%s: tensor %s stands alone, expected its %s", path, printable, imatrix_counts + 1);
    if (strcmp(sums.type, "F32") != 0 || strcmp(counts.type, "F32") != 0)
        return tool_fail("%s: tensor %s has type %s and its counts %s, expected F32", path, printable, sums.type,
                         counts.type);
    const uint64_t n_mats = counts.dims[0] * counts.dims[1] * counts.dims[2] * counts.dims[3];
    const uint64_t all = sums.dims[0] * sums.dims[1] * sums.dims[2] * sums.dims[3];
    if (!n_mats || !all || all / sums.dims[0] != n_mats || all > SIZE_MAX / sizeof(double) ||
        n - n_suffix >= sizeof name)
        return tool_fail("%s: tensor %s has %llu rows, expected as many as counts (%llu)", path, printable,
                         (unsigned long long)(sums.dims[0] ? all / sums.dims[0] : 0), (unsigned long long)n_mats);
    memcpy(name, sums.name, n - n_suffix);
    name[n - n_suffix] = 0;
    const imatrix_entry *entry = imatrix_get(im, name, (size_t)sums.dims[0], (size_t)n_mats);
    if (!entry) return EXIT_CODE_FAILED;
    int code = imatrix_read_numbers(file, path, index, (size_t)all, entry->sums);
    if (code < 0) code = imatrix_read_numbers(file, path, place, (size_t)n_mats, entry->counts);
    return code;
}

int imatrix_read(imatrix *im, const char *path) {
    minim_model *file = NULL;
    minim_error error = {.status = MINIM_OK};
    minim_model_options options;
    const size_t before = im->n;
    size_t n_chunks = 0;
    int code = -1;
    minim_model_options_default(&options);
    options.level = MINIM_LOAD_HEADER;
    if (minim_model_load(path, &options, &file, &error) != MINIM_OK) return tool_fail_error(&error);
    for (size_t i = 0; i < minim_model_meta_count(file) && code < 0; i++)
        code = imatrix_read_key(im, file, i, &n_chunks);
    const size_t n = minim_model_tensor_count(file);
    for (size_t i = 0; i < n && code < 0; i++) code = imatrix_read_entry(im, file, path, i);
    if (code < 0 && im->n == before && !n) code = tool_fail("%s: expected an importance matrix, found no tensor", path);
    if (code < 0 && !im->n) code = tool_fail("%s: expected an importance matrix, found no tensor *.in_sum2", path);
    im->n_chunks += n_chunks;
    minim_model_free(file);
    return code;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static int imatrix_compare(const void *a, const void *b) {
    const imatrix_entry *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

/* GGUF leaves trailing dimensions of 1 away. */
static void imatrix_head_tensor(gguf_head *head, const char *name, const char *suffix, size_t cols, size_t rows) {
    char full[300];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    gguf_head_tensor(head, full, rows > 1 ? 2 : 1, (uint64_t[]){cols, rows}, GGUF_WRITE_TENSOR_F32,
                     (uint64_t)cols * rows * sizeof(float));
}

static int imatrix_put(gguf_writer *writer, const double *numbers, size_t n) {
    int code = -1;
    for (size_t i = 0; i < n && code < 0; i++) {
        uint8_t raw[4];
        uint32_t bits;
        const float x = (float)numbers[i];
        memcpy(&bits, &x, sizeof bits);
        gguf_write_32(raw, bits);
        code = gguf_writer_put(writer, raw, sizeof raw);
    }
    return code < 0 ? gguf_writer_end_tensor(writer) : code;
}

int imatrix_write(const imatrix *im, const char *path) {
    const imatrix_entry **order = malloc((im->n ? im->n : 1) * sizeof *order);
    gguf_head head = {0};
    gguf_writer writer;
    if (!order) return tool_fail("out of memory");
    for (size_t i = 0; i < im->n; i++) order[i] = &im->entries[i];
    qsort(order, im->n, sizeof *order, imatrix_compare);
    gguf_head_string(&head, "general.type", "imatrix", 7);
    gguf_head_array(&head, "imatrix.datasets", GGUF_WRITE_STRING, im->n_datasets);
    for (size_t i = 0; i < im->n_datasets; i++) gguf_head_put_string(&head, im->datasets[i], strlen(im->datasets[i]));
    gguf_head_u32(&head, "imatrix.chunk_count", (uint32_t)im->n_chunks);
    gguf_head_u32(&head, "imatrix.chunk_size", (uint32_t)im->chunk_size);
    for (size_t i = 0; i < im->n; i++) {
        imatrix_head_tensor(&head, order[i]->name, imatrix_sums, order[i]->cols, order[i]->n_mats);
        imatrix_head_tensor(&head, order[i]->name, imatrix_counts, 1, order[i]->n_mats);
    }
    int code = gguf_writer_open(&writer, &head, path, 1);
    for (size_t i = 0; i < im->n && code < 0; i++) {
        code = imatrix_put(&writer, order[i]->sums, order[i]->cols * order[i]->n_mats);
        if (code < 0) code = imatrix_put(&writer, order[i]->counts, order[i]->n_mats);
    }
    code = gguf_writer_close(&writer, code);
    gguf_head_free(&head);
    free(order);
    return code;
}
