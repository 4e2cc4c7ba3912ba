/* sse.h: server-sent events, byte by byte: https://html.spec.whatwg.org/multipage/server-sent-events.html, section
 * "Interpreting an event stream". Works on bytes as they come: an event may be split anywhere, several may come at
 * once.
 *
 * Lines end with LF, CRLF or CR; a byte order mark at the start and lines that begin with ':' are skipped; several
 * `data:` lines of an event are joined by LF; id and retry are ignored. One deviation: an event that is complete but
 * for the empty line behind it when the stream ends is given out, because some servers leave that line out after
 * [DONE]. */
#ifndef ROUTER_SSE_H
#define ROUTER_SSE_H

#include "support.h"

/* type is the `event:` field, "" without one; data has n bytes and a NUL behind them. Non-zero stops the parser. */
typedef int (*sse_event_fn)(void *user, const char *type, const char *data, size_t n);

typedef struct sse_parser {
    router_bytes line, data;
    char type[32];
    int has_data;   /* the event being read has a data line */
    int after_cr;   /* the last byte was CR: a LF that follows belongs to it */
    int begun;      /* the byte order mark is behind us */
    uint64_t lines; /* that were not empty, comments included */
    sse_event_fn on_event;
    void *user;
} sse_parser;

/* max_line: bytes of a line; max_data: bytes of one event's data. */
void sse_begin(sse_parser *parser, size_t max_line, size_t max_data, sse_event_fn on_event, void *user);
/* MINIM_OK; MINIM_ERR_CANCELLED when on_event stopped it; MINIM_ERR_SPACE past a limit; MINIM_ERR_MEMORY. After
 * anything but MINIM_OK the parser may only be freed. */
minim_status sse_push(sse_parser *parser, const char *bytes, size_t n);
/* The stream has ended. */
minim_status sse_finish(sse_parser *parser);
void sse_free(sse_parser *parser);

#endif
