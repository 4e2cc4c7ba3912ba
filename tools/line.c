/* line.c: see line.h. */
#include "line.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

#ifdef MINIM_WITH_EDIT
#include <histedit.h>
#include <wchar.h>
#endif

struct line_reader {
    const char *prompt; /* NULL: nobody to show it to */
    const char *shown;  /* prompt, or that of a block's further lines */
    char *buffer;       /* getline()'s */
    size_t capacity;
    tool_bytes block; /* the lines of a message between quotes */
#ifdef MINIM_WITH_EDIT
    EditLine *edit; /* NULL: not on a terminal */
    History *history;
    int marks_paste; /* the terminal is asked to mark what is pasted */
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
    return (char *)((line_reader *)reader)->shown;
}

/* What the terminal sends before and behind a pasted text when it was asked to. */
#define LINE_PASTE_BEGINS "\033[200~"
#define LINE_PASTE_ENDS   L"\033[201~"

enum { LINE_PASTE_MOST = 1 << 20 }; /* characters of one paste that are taken */

static void line_edit_mark_paste(const line_reader *reader, int on) {
    if (!reader->marks_paste) return;
    fputs(on ? "\033[?2004h" : "\033[?2004l", stderr);
    fflush(stderr);
}

/* Reads up to the mark behind a pasted text. Its length, without the mark; the rest of text is room for it. */
static size_t line_edit_read_paste(EditLine *edit, wchar_t *text) {
    const size_t n_end = wcslen(LINE_PASTE_ENDS);
    size_t n = 0;
    while (n < LINE_PASTE_MOST && el_wgetc(edit, &text[n]) == 1) {
        if (text[n] == L'\r') text[n] = L'\n'; /* what the Enter key sends */
        n++;
        if (n >= n_end && !wmemcmp(text + n - n_end, LINE_PASTE_ENDS, n_end)) return n - n_end;
    }
    return n;
}

/* Puts a pasted text into the line, newlines and all. */
static unsigned char line_edit_paste(EditLine *edit, int key) {
    wchar_t *text = malloc((LINE_PASTE_MOST + 1) * sizeof *text);
    (void)key;
    if (!text) return CC_ERROR;
    size_t n = line_edit_read_paste(edit, text);
    while (n && text[n - 1] == L'\n') n--;
    text[n] = 0;
    const int failed = n && el_winsertstr(edit, text);
    free(text);
    return failed ? CC_ERROR : CC_REFRESH;
}

static void line_edit_open(line_reader *reader) {
    const char *terminal = getenv("TERM");
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
    el_set(reader->edit, EL_ADDFN, "minim-paste", "Take a pasted text as it is", line_edit_paste);
    el_set(reader->edit, EL_BIND, LINE_PASTE_BEGINS, "minim-paste", NULL);
    el_source(reader->edit, NULL);
    reader->marks_paste = terminal && strcmp(terminal, "dumb") != 0;
}

static void line_edit_close(line_reader *reader) {
    if (reader->edit) el_end(reader->edit);
    if (reader->history) history_end(reader->history);
}

static line_status line_edit_read(line_reader *reader, const char **text, size_t *n) {
    int length = 0;
    errno = 0;
    line_edit_mark_paste(reader, 1);
    const char *line = el_gets(reader->edit, &length);
    const int reason = errno;
    line_edit_mark_paste(reader, 0);
    if (!line || length <= 0) {
        if (length < 0 && reason == EINTR) {
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
    tool_bytes_free(&reader->block);
    free(reader->buffer);
    free(reader);
}

static line_status line_read_one(line_reader *reader, const char **text, size_t *n) {
#ifdef MINIM_WITH_EDIT
    if (reader->edit && reader->history) return line_edit_read(reader, text, n);
#endif
    if (reader->prompt) fputs(reader->shown, stderr);
    errno = 0;
    ssize_t length = getline(&reader->buffer, &reader->capacity, stdin);
    if (length >= 0) return line_done(reader->buffer, (size_t)length, text, n);
    if (feof(stdin)) return LINE_END;
    int reason = errno;
    clearerr(stdin);
    return reason == EINTR ? LINE_INTERRUPTED : LINE_FAILED;
}

static const char line_quotes[] = "\"\"\"";
enum { LINE_N_QUOTES = sizeof line_quotes - 1 };

/* Appends a line of a block. 1 = it ended the block, 0 = go on, -1 = no memory, after a message. */
static int line_add_to_block(tool_bytes *block, const char *text, size_t n, int first) {
    size_t kept = n;
    while (kept && (text[kept - 1] == ' ' || text[kept - 1] == '\t' || text[kept - 1] == '\r')) kept--;
    const int ends = kept >= LINE_N_QUOTES && !memcmp(text + kept - LINE_N_QUOTES, line_quotes, LINE_N_QUOTES);
    if (ends) n = kept - LINE_N_QUOTES;
    /* Quotes alone on their line leave no empty line behind. */
    if (!first && block->n && !(ends && n == 0) && tool_bytes_append(block, "\n", 1)) return -1;
    if (tool_bytes_append(block, text, n)) return -1;
    return ends;
}

/* The first line, behind its quotes, is text[n]. A block that is still open at the end of the input ends there. */
static line_status line_read_block(line_reader *reader, const char **text, size_t *n) {
    line_status status = LINE_OK;
    reader->block.n = 0;
    int ended = line_add_to_block(&reader->block, *text, *n, 1);
    reader->shown = "... ";
    while (ended == 0 && (status = line_read_one(reader, text, n)) == LINE_OK)
        ended = line_add_to_block(&reader->block, *text, *n, 0);
    *text = reader->block.n ? reader->block.data : "";
    *n = reader->block.n;
    if (ended < 0) return LINE_FAILED;
    return ended || status == LINE_END ? LINE_BLOCK : status;
}

line_status line_read(line_reader *reader, const char **text, size_t *n) {
    reader->shown = reader->prompt;
    line_status status = line_read_one(reader, text, n);
    if (status != LINE_OK || *n < LINE_N_QUOTES || memcmp(*text, line_quotes, LINE_N_QUOTES) != 0) return status;
    *text += LINE_N_QUOTES;
    *n -= LINE_N_QUOTES;
    return line_read_block(reader, text, n);
}
