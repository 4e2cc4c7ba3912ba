/* line.h: reads the lines that a user types: with line editing and history on a terminal when minim was built with
 * libedit, plainly otherwise and from pipes. */
#ifndef TOOLS_LINE_H
#define TOOLS_LINE_H

#include <stddef.h>

typedef struct line_reader line_reader;

/* prompt is shown before each line when standard input is a terminal; it must stay valid. NULL when memory is short. */
line_reader *line_open(const char *prompt);
void line_close(line_reader *reader);

typedef enum line_status { LINE_OK, LINE_END, LINE_INTERRUPTED, LINE_FAILED } line_status;

/* *text is the line without its newline, valid until the next call; it may hold NUL bytes. LINE_INTERRUPTED: a signal
 * came while waiting; what was typed is forgotten. */
line_status line_read(line_reader *reader, const char **text, size_t *n);

#endif
