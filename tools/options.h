/* options.h: the command line, read from tables.
 *
 * A command describes its options in rows of `option`; several tables, each with a title, form an option_usage. Values
 * land in a struct of the command: a row holds the offset of its field. Numbers are read strictly ("3x" is an error)
 * and have a range. `--name value`, `--name=value` and `--` (no options behind it) work as everywhere; "-" is an
 * argument.
 */
#ifndef TOOLS_OPTIONS_H
#define TOOLS_OPTIONS_H

#include <stddef.h>

/* Exit codes of the minim program, documented in `minim --help`. */
enum { EXIT_CODE_OK = 0, EXIT_CODE_FAILED = 1, EXIT_CODE_USAGE = 2, EXIT_CODE_INTERRUPTED = 130 };

typedef enum option_kind {
    OPTION_FLAG,   /* int, becomes 1 */
    OPTION_INT,    /* int */
    OPTION_U64,    /* uint64_t; min and max are not looked at */
    OPTION_FLOAT,  /* float */
    OPTION_STRING, /* const char * */
    OPTION_CHOICE, /* const char *, one of the words of `argument` ("f32|f16") */
    OPTION_LIST    /* option_list, grows by one each time */
} option_kind;

typedef struct option {
    const char *names;    /* "-n, --predict, --n-predict"; NULL ends a table */
    const char *argument; /* what the help calls the value; NULL for a flag */
    option_kind kind;
    size_t offset;   /* of the field in the struct of its table */
    double min, max; /* of a number, both inclusive */
    const char *help;
} option;

/* Values of an option that may be given several times, in order. They point into argv; free only the array. */
typedef struct option_list {
    const char **items;
    size_t n;
} option_list;

void option_list_free(option_list *list);

typedef struct option_table {
    const char *title;
    const option *rows; /* NULL ends the tables */
    void *values;       /* the struct that the offsets belong to */
} option_table;

typedef struct option_usage {
    const char *command;  /* "run": messages start with "minim run: " */
    const char *synopsis; /* lines behind "usage: minim " */
    const char *about;    /* a paragraph under it */
    const char *epilogue; /* under the options; may be NULL */
    size_t max_arguments; /* that are no options */
} option_usage;

/* Reads argv[1..]; what is no option goes to *arguments, which the caller frees also after a failure. Returns -1 to go
 * on, else the exit code: 0 after --help, 2 after a message about a mistake. */
int options_parse(const option_usage *usage, const option_table *tables, int argc, char **argv, option_list *arguments);

/* A usage message of a command in the same form: one line and where to find help. Returns EXIT_CODE_USAGE. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int options_complain(const char *command, const char *format, ...);

/* The static analyzer does not look into another file, so it is told here what comes back. */
#ifdef __clang_analyzer__
#define options_complain(...) (options_complain(__VA_ARGS__), EXIT_CODE_USAGE)
#endif

#endif
