/* line.h: reads the messages that a user types: with line editing and history on a terminal when minim was built with
 * libedit, plainly otherwise and from pipes.
 *
 * A message is a line, or what stands between three double quotes at the start of a line and three at the end of the
 * same or a later one. With line editing a pasted text is one message with all its lines, where the terminal marks what
 * is pasted ("bracketed paste"). */
#ifndef TOOLS_LINE_H
#define TOOLS_LINE_H

#include <stddef.h>

typedef struct line_reader line_reader;

/* prompt is shown before each message when standard input is a terminal; it must stay valid. NULL when memory is
 * short. */
line_reader *line_open(const char *prompt);
void line_close(line_reader *reader);

typedef enum line_status {
    LINE_OK,
    LINE_BLOCK, /* the message stood between quotes: it is no command, whatever it says */
    LINE_END,
    LINE_INTERRUPTED, /* a signal came while waiting; what was typed is forgotten */
    LINE_FAILED
} line_status;

/* *text is the message without the newline behind it, valid until the next call; it may hold NUL bytes. */
line_status line_read(line_reader *reader, const char **text, size_t *n);

#endif
