/* convert_safetensors.c: see convert.h. The format: https://github.com/huggingface/safetensors#format
 *
 *     8 bytes   length of the header
 *     header    {"name": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}, ..., "__metadata__": {"k": "v"}}
 *     data      the tensors, without a gap
 *
 * The header's grammar is so small that it is read here, without a tree: a hostile one cannot nest, and takes no more
 * memory than a small multiple of its size. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert.h"
#include "json.h"

/* The format's own limit on headers. */
static const uint64_t st_header_limit = 100000000;

typedef struct st_type {
    const char *name;
    uint64_t bytes;
    convert_dtype dtype;
} st_type;

static const st_type st_types[] = {
    {"F32", 4, CONVERT_F32},    {"F16", 2, CONVERT_F16},       {"BF16", 2, CONVERT_BF16},     {"F64", 8, CONVERT_OTHER},
    {"I64", 8, CONVERT_OTHER},  {"U64", 8, CONVERT_OTHER},     {"I32", 4, CONVERT_OTHER},     {"U32", 4, CONVERT_OTHER},
    {"I16", 2, CONVERT_OTHER},  {"U16", 2, CONVERT_OTHER},     {"I8", 1, CONVERT_OTHER},      {"U8", 1, CONVERT_OTHER},
    {"BOOL", 1, CONVERT_OTHER}, {"F8_E5M2", 1, CONVERT_OTHER}, {"F8_E4M3", 1, CONVERT_OTHER},
};

/* ---- the header's text ------------------------------------------------------------------------------------------- */

typedef struct st_text {
    char *start, *at, *end;
    const char *path;
} st_text;

static int st_wrong(const st_text *t, const char *expected) {
    return tool_fail("%s: header, byte %zu: expected %s", t->path, (size_t)(t->at - t->start), expected);
}

static void st_space(st_text *t) {
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\t' || *t->at == '\n' || *t->at == '\r')) t->at++;
}

/* Skips white space; 1 and moves on if `c` is next. */
static int st_take(st_text *t, char c) {
    st_space(t);
    if (t->at == t->end || *t->at != c) return 0;
    t->at++;
    return 1;
}

/* A string, decoded in place and terminated. */
static int st_string(st_text *t, char **string) {
    size_t length = 0;
    if (!st_take(t, '"')) return st_wrong(t, "a string");
    char *first = t->at - 1;
    while (t->at < t->end && *t->at != '"') t->at += *t->at == '\\' && t->end - t->at > 1 ? 2 : 1;
    if (t->at == t->end) return st_wrong(t, "the end of a string");
    t->at++;
    const char *wrong = json_read_string(first, (size_t)(t->at - first), &length);
    if (wrong) return tool_fail("%s: header: a string is damaged: %s", t->path, wrong);
    if (memchr(first, 0, length)) return tool_fail("%s: header: a string contains a NUL", t->path);
    first[length] = 0; /* at the latest on its closing quote */
    *string = first;
    return -1;
}

static int st_number(st_text *t, uint64_t *number) {
    st_space(t);
    uint64_t n = 0;
    const char *first = t->at;
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++) {
        const uint64_t digit = (uint64_t)(*t->at - '0');
        if (n > (UINT64_MAX - digit) / 10) return st_wrong(t, "a number below 2^64");
        n = n * 10 + digit;
    }
    if (t->at == first) return st_wrong(t, "a whole number");
    *number = n;
    return -1;
}

/* An array of at most `most` whole numbers. */
static int st_numbers(st_text *t, uint64_t *numbers, int most, int *n) {
    *n = 0;
    if (!st_take(t, '[')) return st_wrong(t, "\"[\"");
    if (st_take(t, ']')) return -1;
    do {
        uint64_t number = 0;
        const int code = st_number(t, &number);
        if (code >= 0) return code;
        if (*n == most)
            return tool_fail("%s: header, byte %zu: expected at most %d numbers", t->path, (size_t)(t->at - t->start),
                             most);
        numbers[(*n)++] = number;
    } while (st_take(t, ','));
    return st_take(t, ']') ? -1 : st_wrong(t, "\",\" or \"]\"");
}

/* "__metadata__": texts that concern nobody here. */
static int st_metadata(st_text *t) {
    if (!st_take(t, '{')) return st_wrong(t, "\"{\"");
    if (st_take(t, '}')) return -1;
    do {
        char *text;
        int code = st_string(t, &text);
        if (code < 0 && !st_take(t, ':')) code = st_wrong(t, "\":\"");
        if (code < 0) code = st_string(t, &text);
        if (code >= 0) return code;
    } while (st_take(t, ','));
    return st_take(t, '}') ? -1 : st_wrong(t, "\",\" or \"}\"");
}

/* Does what a tensor says about itself fit together, and into `data` bytes? */
static int st_check_tensor(const st_text *t, convert_source *tensor, const uint64_t *offsets, uint64_t data) {
    const st_type *type = NULL;
    uint64_t bytes;
    for (size_t i = 0; i < sizeof st_types / sizeof *st_types; i++) {
        if (!strcmp(st_types[i].name, tensor->dtype_name)) type = &st_types[i];
    }
    if (!type) return tool_fail("%s: %s: dtype \"%.40s\" is not known", t->path, tensor->name, tensor->dtype_name);
    tensor->dtype = type->dtype;
    bytes = type->bytes;
    for (int i = 0; i < tensor->n_dims; i++) {
        if (tensor->dims[i] && bytes > (uint64_t)INT64_MAX / tensor->dims[i])
            return tool_fail("%s: %s: its shape has more than 2^63 bytes", t->path, tensor->name);
        bytes *= tensor->dims[i];
    }
    if (offsets[0] > offsets[1] || offsets[1] > data) {
        return tool_fail("%s: %s: data_offsets %" PRIu64 " to %" PRIu64 ", expected a range within the %" PRIu64
                         " bytes of data",
                         t->path, tensor->name, offsets[0], offsets[1], data);
    }
    if (offsets[1] - offsets[0] != bytes) {
        return tool_fail("%s: %s: %" PRIu64 " bytes of data, expected %" PRIu64 " from its shape and dtype %s", t->path,
                         tensor->name, offsets[1] - offsets[0], bytes, type->name);
    }
    tensor->offset = offsets[0];
    tensor->bytes = bytes;
    return -1;
}

/* The object behind a tensor's name. */
static int st_tensor(st_text *t, convert_source *tensor, uint64_t data) {
    uint64_t offsets[2];
    int n_offsets = 0, seen = 0;
    if (!st_take(t, '{')) return st_wrong(t, "\"{\"");
    do {
        char *field, *text;
        int code = st_string(t, &field), bit;
        if (code < 0 && !st_take(t, ':')) code = st_wrong(t, "\":\"");
        if (code >= 0) return code;
        if (!strcmp(field, "dtype")) {
            bit = 1;
            code = st_string(t, &text);
            if (code < 0) tensor->dtype_name = text;
        } else if (!strcmp(field, "shape")) {
            bit = 2;
            code = st_numbers(t, tensor->dims, CONVERT_MAX_DIMS, &tensor->n_dims);
        } else if (!strcmp(field, "data_offsets")) {
            bit = 4;
            code = st_numbers(t, offsets, 2, &n_offsets);
        } else {
            return tool_fail("%s: %s: field \"%.40s\" is not known", t->path, tensor->name, field);
        }
        if (code >= 0) return code;
        if (seen & bit) return tool_fail("%s: %s: %s stands there twice", t->path, tensor->name, field);
        seen |= bit;
    } while (st_take(t, ','));
    if (!st_take(t, '}')) return st_wrong(t, "\",\" or \"}\"");
    if (seen != 7 || n_offsets != 2)
        return tool_fail("%s: %s: expected dtype, shape and two data_offsets", t->path, tensor->name);
    return st_check_tensor(t, tensor, offsets, data);
}

static convert_source *st_new_tensor(convert_sources *sources) {
    if (sources->n_tensors == sources->capacity) {
        const size_t capacity = sources->capacity ? 2 * sources->capacity : 256;
        convert_source *grown = realloc(sources->tensors, capacity * sizeof *grown);
        if (!grown) return NULL;
        sources->tensors = grown;
        sources->capacity = capacity;
    }
    convert_source *tensor = &sources->tensors[sources->n_tensors++];
    *tensor = (convert_source){0};
    return tensor;
}

static int st_header(st_text *t, convert_sources *sources, int part, uint64_t data) {
    if (!st_take(t, '{')) return st_wrong(t, "\"{\"");
    if (!st_take(t, '}')) {
        do {
            char *name;
            int code = st_string(t, &name);
            if (code < 0 && !st_take(t, ':')) code = st_wrong(t, "\":\"");
            if (code < 0 && !strcmp(name, "__metadata__")) {
                code = st_metadata(t);
            } else if (code < 0) {
                convert_source *tensor = st_new_tensor(sources);
                if (!tensor) return tool_fail("out of memory");
                tensor->name = name;
                tensor->part = part;
                code = st_tensor(t, tensor, data);
            }
            if (code >= 0) return code;
        } while (st_take(t, ','));
        if (!st_take(t, '}')) return st_wrong(t, "\",\" or \"}\"");
    }
    st_space(t);
    return t->at == t->end ? -1 : st_wrong(t, "the end of the header");
}

/* ---- one file ---------------------------------------------------------------------------------------------------- */

static int st_by_offset(const void *a, const void *b) {
    const convert_source *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int st_by_name(const void *a, const void *b) {
    return strcmp(((const convert_source *)a)->name, ((const convert_source *)b)->name);
}

/* The tensors of one part have to cover its data, each byte once. Afterwards they are in the order of their names and
 * offsets count from the start of the file. */
static int st_check_part(const char *path, convert_source *tensors, size_t n, uint64_t start, uint64_t data) {
    uint64_t end = 0;
    if (n) qsort(tensors, n, sizeof *tensors, st_by_offset);
    for (size_t i = 0; i < n; i++) {
        if (tensors[i].offset != end) {
            return tool_fail("%s: %s: its data starts at byte %" PRIu64 ", expected %" PRIu64 " (%s)", path,
                             tensors[i].name, tensors[i].offset, end,
                             tensors[i].offset < end ? "tensors overlap" : "a gap");
        }
        end += tensors[i].bytes;
        tensors[i].offset += start;
    }
    if (end != data) return tool_fail("%s: %" PRIu64 " bytes of data, expected %" PRIu64, path, data, end);
    if (n) qsort(tensors, n, sizeof *tensors, st_by_name);
    for (size_t i = 1; i < n; i++) {
        if (!strcmp(tensors[i - 1].name, tensors[i].name))
            return tool_fail("%s: %s stands there twice", path, tensors[i].name);
    }
    return -1;
}

static int st_read_at(int file, const char *path, uint64_t from, void *data, size_t n) {
    char *out = data;
    while (n > 0) {
        const ssize_t got = pread(file, out, n, (off_t)from);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return tool_fail("%s: %s", path, strerror(errno));
        if (got == 0) return tool_fail("%s: the file became shorter while it was read", path);
        out += got;
        from += (uint64_t)got;
        n -= (size_t)got;
    }
    return -1;
}

static int st_open_part(convert_sources *sources, int index) {
    convert_part *part = &sources->parts[index];
    struct stat status;
    uint8_t raw[8];
    uint64_t length = 0;
    part->file = open(part->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not make us wait */
    if (part->file < 0) return tool_fail("%s: %s", part->path, strerror(errno));
    if (fstat(part->file, &status)) return tool_fail("%s: %s", part->path, strerror(errno));
    if (!S_ISREG(status.st_mode)) return tool_fail("%s: expected a file", part->path);
    const uint64_t size = (uint64_t)status.st_size;
    if (size < 8) return tool_fail("%s: %" PRIu64 " bytes, expected at least 8", part->path, size);
    int code = st_read_at(part->file, part->path, 0, raw, sizeof raw);
    if (code >= 0) return code;
    for (int i = 0; i < 8; i++) length |= (uint64_t)raw[i] << 8 * i;
    if (length > size - 8 || length > st_header_limit) {
        return tool_fail("%s: a header of %" PRIu64 " bytes, expected at most %" PRIu64, part->path, length,
                         size - 8 < st_header_limit ? size - 8 : st_header_limit);
    }
    part->header = malloc((size_t)length + 1);
    if (!part->header) return tool_fail("out of memory");
    code = st_read_at(part->file, part->path, 8, part->header, (size_t)length);
    if (code >= 0) return code;
    st_text text = {part->header, part->header, part->header + length, part->path};
    const size_t first = sources->n_tensors;
    code = st_header(&text, sources, index, size - 8 - length);
    if (code >= 0 || sources->n_tensors == first) return code;
    return st_check_part(part->path, sources->tensors + first, sources->n_tensors - first, 8 + length,
                         size - 8 - length);
}

int convert_read_source(const convert_sources *sources, const convert_source *source, uint64_t from, void *data,
                        size_t n) {
    const convert_part *part = &sources->parts[source->part];
    return st_read_at(part->file, part->path, source->offset + from, data, n);
}

/* ---- all files --------------------------------------------------------------------------------------------------- */

static int st_add_part(const char *directory, const char *name, convert_sources *sources) {
    convert_part *grown = realloc(sources->parts, (sources->n_parts + 1) * sizeof *grown);
    if (!grown) return tool_fail("out of memory");
    sources->parts = grown;
    convert_part *part = &grown[sources->n_parts];
    const size_t size = strlen(directory) + strlen(name) + 2;
    *part = (convert_part){.file = -1, .path = malloc(size)};
    if (!part->path) return tool_fail("out of memory");
    snprintf(part->path, size, "%s/%s", directory, name);
    part->name = part->path + strlen(directory) + 1;
    sources->n_parts++;
    return -1;
}

static int st_part_by_name(const void *a, const void *b) {
    return strcmp(((const convert_part *)a)->name, ((const convert_part *)b)->name);
}

static int st_ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* Every part that an index names, once. */
static int st_parts_of_index(const char *directory, json_t *map, convert_sources *sources) {
    const char *tensor;
    json_t *value;
    json_t *seen = json_object();
    int code = seen ? -1 : tool_fail("out of memory");
    json_object_foreach(map, tensor, value) {
        const char *name = json_string_value(value);
        if (code >= 0) break;
        if (!name || !*name || strchr(name, '/') || !st_ends_with(name, ".safetensors")) {
            code = tool_fail("%s/model.safetensors.index.json: %.80s: expected a file name like "
                             "model-00001-of-00002.safetensors, found \"%.80s\"",
                             directory, tensor, name ? name : "");
        } else if (!json_object_get(seen, name)) {
            if (json_object_set_new(seen, name, json_true())) code = tool_fail("out of memory");
            if (code < 0) code = st_add_part(directory, name, sources);
        }
    }
    json_decref(seen);
    return code;
}

/* Every file model*.safetensors. */
static int st_parts_of_directory(const char *directory, convert_sources *sources) {
    DIR *dir = opendir(directory);
    if (!dir) return tool_fail("%s: %s", directory, strerror(errno));
    int code = -1;
    for (struct dirent *entry; code < 0 && (entry = readdir(dir));) {
        if (!strncmp(entry->d_name, "model", 5) && st_ends_with(entry->d_name, ".safetensors"))
            code = st_add_part(directory, entry->d_name, sources);
    }
    closedir(dir);
    if (code < 0 && !sources->n_parts)
        return tool_fail("%s: there is no model.safetensors and no model.safetensors.index.json", directory);
    return code;
}

/* model-00001-of-00003.safetensors: without an index, the name says how many there have to be. */
static int st_check_count(const char *directory, const convert_sources *sources) {
    for (size_t i = 0; i < sources->n_parts; i++) {
        const char *of = strstr(sources->parts[i].name, "-of-");
        char *end = NULL;
        const unsigned long count = of ? strtoul(of + 4, &end, 10) : 0;
        if (of && end != of + 4 && !strcmp(end, ".safetensors") && count != sources->n_parts)
            return tool_fail("%s: %s needs %lu parts, found %zu", directory, sources->parts[i].name, count,
                             sources->n_parts);
    }
    return -1;
}

static int st_pointer_by_name(const void *a, const void *b) {
    return strcmp((*(const convert_source *const *)a)->name, (*(const convert_source *const *)b)->name);
}

static int st_name_is(const void *name, const void *b) {
    return strcmp(name, (*(const convert_source *const *)b)->name);
}

/* No two parts may hold the same tensor, and the tensors have to be those of the index where there is one (map).
 * sorted: all tensors in order of their names. */
static int st_check_names(const char *directory, json_t *map, const convert_sources *sources,
                          const convert_source *const *sorted) {
    const char *name;
    json_t *value;
    for (size_t i = 0; i < sources->n_tensors; i++) {
        const convert_part *part = &sources->parts[sorted[i]->part];
        if (i && !strcmp(sorted[i - 1]->name, sorted[i]->name))
            return tool_fail("%s: %s is also in %s", part->path, sorted[i]->name,
                             sources->parts[sorted[i - 1]->part].name);
        const char *promised = json_string_value(json_object_get(map, sorted[i]->name));
        if (map && (!promised || strcmp(promised, part->name) != 0))
            return tool_fail("%s: %s is not where model.safetensors.index.json says: %s", part->path, sorted[i]->name,
                             promised ? promised : "nowhere");
    }
    json_object_foreach(map, name, value) {
        if (!bsearch(name, (const void *)sorted, sources->n_tensors, sizeof *sorted, st_name_is))
            return tool_fail("%s/%s: %.80s is missing, which model.safetensors.index.json promises", directory,
                             json_string_value(value), name);
    }
    return -1;
}

static int st_check_sources(const char *directory, json_t *map, const convert_sources *sources) {
    const convert_source **sorted = malloc((sources->n_tensors + 1) * sizeof *sorted);
    if (!sorted) return tool_fail("out of memory");
    for (size_t i = 0; i < sources->n_tensors; i++) sorted[i] = &sources->tensors[i];
    qsort((void *)sorted, sources->n_tensors, sizeof *sorted, st_pointer_by_name);
    const int code = st_check_names(directory, map, sources, sorted);
    free((void *)sorted);
    return code;
}

int convert_open_sources(const char *directory, convert_sources *sources) {
    json_t *index = NULL;
    int code = convert_read_json(directory, "model.safetensors.index.json", 0, &index);
    json_t *map = json_object_get(index, "weight_map");
    if (code < 0 && index && !json_is_object(map))
        code = tool_fail("%s/model.safetensors.index.json: expected an object weight_map", directory);
    if (code < 0) code = index ? st_parts_of_index(directory, map, sources) : st_parts_of_directory(directory, sources);
    if (code < 0 && !index) code = st_check_count(directory, sources);
    if (code < 0 && sources->n_parts) qsort(sources->parts, sources->n_parts, sizeof *sources->parts, st_part_by_name);
    for (size_t i = 0; i < sources->n_parts && code < 0; i++) code = st_open_part(sources, (int)i);
    if (code < 0) code = st_check_sources(directory, map, sources);
    json_decref(index);
    return code;
}

void convert_close_sources(convert_sources *sources) {
    for (size_t i = 0; i < sources->n_parts; i++) {
        if (sources->parts[i].file >= 0) close(sources->parts[i].file);
        free(sources->parts[i].header);
        free(sources->parts[i].path);
    }
    free(sources->parts);
    free(sources->tensors);
    *sources = (convert_sources){0};
}
