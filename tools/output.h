/* output.h: a file that a command writes. It appears under its name only when it is complete; SIGTERM and SIGHUP end
 * the command and leave nothing of it. */
#ifndef TOOLS_OUTPUT_H
#define TOOLS_OUTPUT_H

#include <stdio.h>

typedef struct tool_output {
    FILE *file;
    const char *name;
    char *temporary; /* NULL: written directly, because it is a pipe or a device */
    char *target;    /* what a link points to, or NULL */
} tool_output;

/* Whether two names are of one file on a disk; NULL and what is not there are none. */
int tool_is_same_file(const char *a, const char *b);

/* "-" is standard output. Returns -1, or the exit code after a message; also then it must be closed. */
int tool_open_output(const char *name, tool_output *output);
/* The message after a write has failed, from errno. Returns the exit code. */
int tool_fail_output(const tool_output *output);
/* Closes the file; with code -1 it gets its name, otherwise it is removed. Returns the exit code. */
int tool_close_output(tool_output *output, int code);

#endif
