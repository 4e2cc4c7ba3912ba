/* labels.c: reads judged answers, one a line. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "minim_route_learn.h"
#include "support.h"

enum { LABELS_FILE_MAX = 1 << 28, LABELS_MAX_COLUMNS = 64 };

struct minim_route_labels {
    router_bytes text; /* the file, cut into NUL-terminated fields */
    minim_route_label *rows;
    size_t n, capacity;
};

/* ---- columns ---------------------------------------------------------------------------------------------------- */

typedef struct label_column {
    const char *name;
    size_t offset;
    int is_text;
    double min, max; /* of a number */
} label_column;

#define LABEL_AT(field) offsetof(minim_route_label, field)

static const label_column label_columns[] = {
    {"group", LABEL_AT(group), 1, 0, 0},
    {"prompt", LABEL_AT(prompt), 1, 0, 0},
    {"expect", LABEL_AT(expect), 1, 0, 0},
    {"model", LABEL_AT(model), 1, 0, 0},
    {"quantisation", LABEL_AT(quantisation), 1, 0, 0},
    {"weak", LABEL_AT(weak), 0, 0, 1},
    {"correct", LABEL_AT(weak), 0, 0, 1},
    {"strong", LABEL_AT(strong), 0, 0, 1},
    {"score", LABEL_AT(score), 0, -1e9, 1e9},
    {"local_tokens", LABEL_AT(local_tokens), 0, 0, 1e12},
    {"verify_tokens", LABEL_AT(verify_tokens), 0, 0, 1e12},
    {"remote_tokens", LABEL_AT(remote_tokens), 0, 0, 1e12},
};

enum { LABEL_COLUMNS = sizeof label_columns / sizeof *label_columns };

/* What a column of the file is; *signal >= 0 for a signal. Both empty: passed over. */
static const label_column *label_find(const char *name, int *signal) {
    *signal = -1;
    for (int i = 0; i < MINIM_ROUTE_N_SIGNALS; i++) {
        if (!strcmp(name, minim_route_signal_name((minim_route_signal)i))) *signal = i;
    }
    for (size_t i = 0; i < LABEL_COLUMNS; i++) {
        if (!strcmp(name, label_columns[i].name)) return &label_columns[i];
    }
    return NULL;
}

/* ---- one line --------------------------------------------------------------------------------------------------- */

typedef struct label_reader {
    const char *path;
    size_t line, n_columns;
    const label_column *columns[LABELS_MAX_COLUMNS];
    int signals[LABELS_MAX_COLUMNS];
} label_reader;

/* Undoes \t \n \r \\ in place; another escape stays as it is. Returns the length. */
static size_t label_unescape(char *text) {
    char *to = text;
    for (const char *from = text; *from; from++) {
        static const char escapes[] = "t\tn\nr\r\\\\";
        const char *hit = NULL;
        for (int i = 0; *from == '\\' && i < 8 && !hit; i += 2) hit = from[1] == escapes[i] ? escapes + i + 1 : NULL;
        *to++ = hit ? *hit : *from;
        from += hit != NULL;
    }
    *to = 0;
    return (size_t)(to - text);
}

/* An empty text is NaN. 0, or -1 when it is no number between the two. */
static int label_number(const char *text, double min, double max, double *number) {
    char *end;
    *number = (double)NAN;
    if (!*text) return 0;
    /* strtod() also reads hexadecimal, infinities and leading space: not here. */
    if (text[strspn(text, "0123456789+-.eE")]) return -1;
    double value = strtod(text, &end);
    if (*end || !(value >= min && value <= max)) return -1;
    *number = value;
    return 0;
}

static minim_status label_store(const label_reader *reader, size_t at, char *text, minim_route_label *row,
                                minim_error *error) {
    const label_column *column = reader->columns[at];
    int signal = reader->signals[at];
    if (column && column->is_text) {
        size_t n = label_unescape(text);
        *(const char **)(void *)((char *)row + column->offset) = text;
        if (column->offset == LABEL_AT(prompt)) row->n_prompt = n;
        return MINIM_OK;
    }
    if (!column && signal < 0) return MINIM_OK;
    double min = column ? column->min : -1e9, max = column ? column->max : 1e9;
    double *field = column ? (double *)(void *)((char *)row + column->offset) : &row->signals[signal];
    if (label_number(text, min, max, field)) {
        return router_fail(error, MINIM_ERR_FORMAT, "%s:%zu: %s: found \"%.40s\", expected a number from %g to %g",
                           reader->path, reader->line,
                           column ? column->name : minim_route_signal_name((minim_route_signal)signal), text, min, max);
    }
    return MINIM_OK;
}

/* Cuts at tabs; returns how many fields there are, at most one more than fit. */
static size_t label_split(char *line, char **fields) {
    size_t n = 0;
    for (char *at = line; at && n <= LABELS_MAX_COLUMNS; n++) {
        if (n < LABELS_MAX_COLUMNS) fields[n] = at;
        at = strchr(at, '\t');
        if (at) *at++ = 0;
    }
    return n;
}

static minim_status label_header(label_reader *reader, char *line, minim_error *error) {
    char *fields[LABELS_MAX_COLUMNS];
    size_t n = label_split(line, fields);
    int known = 0;
    if (n > LABELS_MAX_COLUMNS)
        return router_fail(error, MINIM_ERR_FORMAT, "%s:1: more than %d columns", reader->path, LABELS_MAX_COLUMNS);
    for (size_t i = 0; i < n; i++) {
        reader->columns[i] = label_find(fields[i], &reader->signals[i]);
        known += reader->columns[i] || reader->signals[i] >= 0;
        for (size_t j = 0; j < i; j++) {
            int same = (reader->columns[i] && reader->columns[j] &&
                        reader->columns[i]->offset == reader->columns[j]->offset) ||
                       (reader->signals[i] >= 0 && reader->signals[i] == reader->signals[j]);
            if (same)
                return router_fail(error, MINIM_ERR_FORMAT, "%s:1: column \"%.40s\" is there twice", reader->path,
                                   fields[i]);
        }
    }
    if (!known) {
        return router_fail(
            error, MINIM_ERR_FORMAT,
            "%s:1: found no known column, expected a header such as group, weak, strong, prompt with tabs "
            "between (router/README.md)",
            reader->path);
    }
    reader->n_columns = n;
    return MINIM_OK;
}

static minim_status label_row(label_reader *reader, char *line, minim_route_labels *o, minim_error *error) {
    char *fields[LABELS_MAX_COLUMNS];
    size_t n = label_split(line, fields);
    if (n != reader->n_columns) {
        return router_fail(error, MINIM_ERR_FORMAT, "%s:%zu: found %s%zu columns, expected %zu as in the first line",
                           reader->path, reader->line, n > LABELS_MAX_COLUMNS ? "at least " : "", n, reader->n_columns);
    }
    if (o->n == o->capacity) {
        size_t capacity = o->capacity ? 2 * o->capacity : 256;
        minim_route_label *grown = realloc(o->rows, capacity * sizeof *grown); /* at most one a byte: no overflow */
        if (!grown) return router_fail_memory(error, reader->path);
        o->rows = grown;
        o->capacity = capacity;
    }
    minim_route_label *row = &o->rows[o->n];
    const double unknown = (double)NAN;
    *row = (minim_route_label){.group = "", .prompt = "", .model = "", .quantisation = "", .expect = ""};
    row->weak = row->strong = row->score = unknown;
    row->local_tokens = row->verify_tokens = row->remote_tokens = unknown;
    for (int i = 0; i < MINIM_ROUTE_N_SIGNALS; i++) row->signals[i] = unknown;
    for (size_t i = 0; i < n; i++) {
        minim_status status = label_store(reader, i, fields[i], row, error);
        if (status != MINIM_OK) return status;
    }
    row->has_signals = 1;
    for (int i = 0; i < MINIM_ROUTE_N_SIGNALS; i++) row->has_signals &= !isnan(row->signals[i]);
    o->n++;
    return MINIM_OK;
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

static minim_status labels_read(const char *path, minim_route_labels *o, minim_error *error) {
    label_reader reader = {.path = path};
    minim_status status = router_read_file(path, &o->text, error);
    if (status != MINIM_OK) return status;
    char *line = o->text.data, *end = line ? line + o->text.n : NULL;
    if (line && memchr(line, 0, o->text.n)) return router_fail(error, MINIM_ERR_FORMAT, "%s: holds a NUL byte", path);
    while (line && line < end) {
        char *next = strchr(line, '\n'), *tail = next ? next : end;
        *tail = 0; /* the text has a NUL at its end anyway */
        if (tail > line && tail[-1] == '\r') tail[-1] = 0;
        reader.line++;
        if (reader.line == 1)
            status = label_header(&reader, line, error);
        else if (*line)
            status = label_row(&reader, line, o, error);
        if (status != MINIM_OK) return status;
        line = next ? next + 1 : end;
    }
    if (!o->n) return router_fail(error, MINIM_ERR_FORMAT, "%s: found no line under the header", path);
    return MINIM_OK;
}

minim_status minim_route_labels_load(const char *path, minim_route_labels **labels, minim_error *error) {
    if (!path || !labels) return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_labels_load: NULL");
    minim_route_labels *o = calloc(1, sizeof *o);
    if (!o) return router_fail_memory(error, path);
    o->text.limit = LABELS_FILE_MAX;
    minim_status status = labels_read(path, o, error);
    if (status != MINIM_OK) {
        minim_route_labels_free(o);
        return status;
    }
    *labels = o;
    return MINIM_OK;
}

void minim_route_labels_free(minim_route_labels *labels) {
    if (!labels) return;
    router_bytes_free(&labels->text);
    free(labels->rows);
    free(labels);
}

size_t minim_route_labels_count(const minim_route_labels *labels) {
    return labels ? labels->n : 0;
}

const minim_route_label *minim_route_labels_get(const minim_route_labels *labels, size_t index) {
    return labels && index < labels->n ? &labels->rows[index] : NULL;
}
