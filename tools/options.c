/* options.c: see options.h. */
#include "options.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef options_complain

int options_complain(const char *command, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "minim %s: ", command);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, " (see minim %s --help)\n", command);
    va_end(arguments);
    return EXIT_CODE_USAGE;
}

void option_list_free(option_list *list) {
    free(list->items);
    list->items = NULL;
    list->n = 0;
}

static int option_list_add(option_list *list, const char *item) {
    const char **items = realloc(list->items, (list->n + 1) * sizeof *items);
    if (!items) return -1;
    list->items = items;
    list->items[list->n++] = item;
    return 0;
}

/* Is the n characters long `word` one of the words of `list`, which are separated by any of the characters of `gap`? */
static int option_has_word(const char *list, const char *gap, const char *word, size_t n) {
    while (*list) {
        list += strspn(list, gap);
        size_t length = strcspn(list, gap);
        if (length == n && n > 0 && !memcmp(list, word, n)) return 1;
        list += length;
    }
    return 0;
}

static const option *option_find(const option_table *tables, const char *name, size_t n, void **values) {
    for (; tables->rows; tables++) {
        for (const option *row = tables->rows; row->names; row++) {
            if (option_has_word(row->names, ", ", name, n)) {
                *values = tables->values;
                return row;
            }
        }
    }
    return NULL;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* strtol and friends also take leading white space, which "one number and nothing else" does not. */
static int option_starts_like_number(const char *text) {
    return *text && strchr("+-.0123456789", *text) != NULL;
}

static int option_set_int(const char *command, const option *row, const char *name, const char *text, int *value) {
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (!option_starts_like_number(text) || end == text || *end) {
        return options_complain(command, "%s: expected a whole number, found \"%s\"", name, text);
    }
    if (errno || (double)number < row->min || (double)number > row->max) {
        return options_complain(command, "%s: expected %.0f to %.0f, found %s", name, row->min, row->max, text);
    }
    *value = (int)number;
    return -1;
}

static int option_set_u64(const char *command, const char *name, const char *text, uint64_t *value) {
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || number > UINT64_MAX) {
        return options_complain(command, "%s: expected a whole number from 0 to 2^64 - 1, found \"%s\"", name, text);
    }
    *value = number;
    return -1;
}

static int option_set_float(const char *command, const option *row, const char *name, const char *text, float *value) {
    char *end;
    double number = strtod(text, &end);
    if (!option_starts_like_number(text) || end == text || *end || !isfinite(number)) {
        return options_complain(command, "%s: expected a number, found \"%s\"", name, text);
    }
    if (number < row->min || number > row->max) {
        return options_complain(command, "%s: expected %g to %g, found %s", name, row->min, row->max, text);
    }
    *value = (float)number;
    return -1;
}

/* -1, or the exit code of a mistake. A flag does not look at text. */
static int option_set(const char *command, const option *row, void *values, const char *name, const char *text) {
    void *field = (char *)values + row->offset;
    switch (row->kind) {
    case OPTION_FLAG: *(int *)field = 1; return -1;
    case OPTION_INT: return option_set_int(command, row, name, text, field);
    case OPTION_U64: return option_set_u64(command, name, text, field);
    case OPTION_FLOAT: return option_set_float(command, row, name, text, field);
    case OPTION_STRING: *(const char **)field = text; return -1;
    case OPTION_CHOICE:
        if (!option_has_word(row->argument, "|", text, strlen(text))) {
            return options_complain(command, "%s: expected %s, found \"%s\"", name, row->argument, text);
        }
        *(const char **)field = text;
        return -1;
    case OPTION_LIST:
        if (option_list_add(field, text)) {
            fprintf(stderr, "minim %s: out of memory\n", command);
            return EXIT_CODE_FAILED;
        }
        return -1;
    }
    return -1;
}

/* ---- help -------------------------------------------------------------------------------------------------------- */

enum { OPTION_HELP_COLUMN = 30 };

/* The help of one option; lines after a newline in its text start under the first. */
static void option_print_row(const option *row) {
    int width = printf("  %s%s%s", row->names, row->argument ? " " : "", row->argument ? row->argument : "");
    if (width > OPTION_HELP_COLUMN - 2) {
        putchar('\n');
        width = 0;
    }
    for (const char *line = row->help; line; width = 0) {
        const char *end = strchr(line, '\n');
        int n = end ? (int)(end - line) : (int)strlen(line);
        printf("%*s%.*s\n", OPTION_HELP_COLUMN - width, "", n, line);
        line = end ? end + 1 : NULL;
    }
}

static void option_print_help(const option_usage *usage, const option_table *tables) {
    printf("usage: minim %s\n\n%s\n", usage->synopsis, usage->about);
    for (; tables->rows; tables++) {
        printf("\n%s:\n", tables->title);
        for (const option *row = tables->rows; row->names; row++) option_print_row(row);
    }
    printf("\n  %-*sthis text\n", OPTION_HELP_COLUMN - 2, "-h, --help");
    if (usage->epilogue) printf("\n%s\n", usage->epilogue);
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static int option_add_argument(const option_usage *usage, option_list *arguments, const char *text) {
    if (arguments->n >= usage->max_arguments) {
        return options_complain(usage->command, "unexpected argument \"%s\"%s", text,
                                usage->max_arguments ? "; a text with spaces needs quotes" : "");
    }
    if (option_list_add(arguments, text)) {
        fprintf(stderr, "minim %s: out of memory\n", usage->command);
        return EXIT_CODE_FAILED;
    }
    return -1;
}

/* Handles argv[*i], moving *i when the value is the next word. */
static int option_parse_one(const option_usage *usage, const option_table *tables, int argc, char **argv, int *i) {
    const char *word = argv[*i];
    size_t n = word[1] == '-' ? strcspn(word, "=") : strlen(word);
    void *values = NULL;
    const option *row = option_find(tables, word, n, &values);
    if (!row) return options_complain(usage->command, "unknown option %.*s", n > 60 ? 60 : (int)n, word);
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)n, word);
    if (row->kind == OPTION_FLAG) {
        if (word[n]) return options_complain(usage->command, "%s takes no value", name);
        return option_set(usage->command, row, values, name, "");
    }
    if (word[n]) return option_set(usage->command, row, values, name, word + n + 1);
    if (*i + 1 >= argc) return options_complain(usage->command, "%s needs a value: %s", name, row->argument);
    return option_set(usage->command, row, values, name, argv[++*i]);
}

int options_parse(const option_usage *usage, const option_table *tables, int argc, char **argv,
                  option_list *arguments) {
    int only_arguments = 0;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        int code = -1;
        if (only_arguments || word[0] != '-' || !word[1]) {
            code = option_add_argument(usage, arguments, word);
        } else if (!strcmp(word, "--")) {
            only_arguments = 1;
        } else if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
            option_print_help(usage, tables);
            return EXIT_CODE_OK;
        } else {
            code = option_parse_one(usage, tables, argc, argv, &i);
        }
        if (code >= 0) return code;
    }
    return -1;
}
