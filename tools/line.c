/* line.c: see line.h. */
#include "line.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef MINIM_WITH_EDIT
#include <histedit.h>
#endif

struct line_reader {
    const char *prompt; /* NULL: nobody to show it to */
    char *buffer;       /* getline()'s */
    size_t capacity;
#ifdef MINIM_WITH_EDIT
    EditLine *edit; /* NULL: not on a terminal */
    History *history;
#endif
};

/* Cuts the newline off. */
static line_status line_done(const char *line, size_t length, const char **text, size_t *n) {
    *text = line;
    *n = length && line[length - 1] == '\n' ? length - 1 : length;
    return LINE_OK;
}

#ifdef MINIM_WITH_EDIT

enum { LINE_HISTORY = 1000 };

static char *line_edit_prompt(EditLine *edit) {
    void *reader = NULL;
    el_get(edit, EL_CLIENTDATA, &reader);
    return (char *)((line_reader *)reader)->prompt;
}

static void line_edit_open(line_reader *reader) {
    HistEvent event;
    setlocale(LC_CTYPE, ""); /* libedit reads characters, which may be several bytes */
    reader->history = history_init();
    reader->edit = el_init("minim", stdin, stderr, stderr);
    if (!reader->edit || !reader->history) return;
    history(reader->history, &event, H_SETSIZE, LINE_HISTORY);
    el_set(reader->edit, EL_CLIENTDATA, reader);
    el_set(reader->edit, EL_PROMPT, line_edit_prompt);
    el_set(reader->edit, EL_EDITOR, "emacs");
    el_set(reader->edit, EL_HIST, history, reader->history);
    el_source(reader->edit, NULL);
}

static void line_edit_close(line_reader *reader) {
    if (reader->edit) el_end(reader->edit);
    if (reader->history) history_end(reader->history);
}

static line_status line_edit_read(line_reader *reader, const char **text, size_t *n) {
    int length = 0;
    errno = 0;
    const char *line = el_gets(reader->edit, &length);
    if (!line || length <= 0) {
        if (length < 0 && errno == EINTR) {
            el_reset(reader->edit);
            return LINE_INTERRUPTED;
        }
        return length < 0 ? LINE_FAILED : LINE_END;
    }
    HistEvent event;
    if (length > 1) history(reader->history, &event, H_ENTER, line);
    return line_done(line, (size_t)length, text, n);
}
#endif

line_reader *line_open(const char *prompt) {
    line_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return NULL;
    reader->prompt = isatty(STDIN_FILENO) ? prompt : NULL;
#ifdef MINIM_WITH_EDIT
    if (reader->prompt && isatty(STDERR_FILENO)) line_edit_open(reader);
#endif
    return reader;
}

void line_close(line_reader *reader) {
    if (!reader) return;
#ifdef MINIM_WITH_EDIT
    line_edit_close(reader);
#endif
    free(reader->buffer);
    free(reader);
}

line_status line_read(line_reader *reader, const char **text, size_t *n) {
#ifdef MINIM_WITH_EDIT
    if (reader->edit && reader->history) return line_edit_read(reader, text, n);
#endif
    if (reader->prompt) fputs(reader->prompt, stderr);
    errno = 0;
    ssize_t length = getline(&reader->buffer, &reader->capacity, stdin);
    if (length >= 0) return line_done(reader->buffer, (size_t)length, text, n);
    if (feof(stdin)) return LINE_END;
    int reason = errno;
    clearerr(stdin);
    return reason == EINTR ? LINE_INTERRUPTED : LINE_FAILED;
}
