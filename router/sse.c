/* sse.c: see sse.h. */
#include "sse.h"

#include <string.h>

void sse_begin(sse_parser *parser, size_t max_line, size_t max_data, sse_event_fn on_event, void *user) {
    memset(parser, 0, sizeof *parser);
    parser->line.limit = max_line;
    parser->data.limit = max_data;
    parser->on_event = on_event;
    parser->user = user;
}

void sse_free(sse_parser *parser) {
    router_bytes_free(&parser->line);
    router_bytes_free(&parser->data);
}

/* An empty line: what was collected is an event, if it has data. */
static minim_status sse_dispatch(sse_parser *parser) {
    int stop = parser->has_data &&
               parser->on_event(parser->user, parser->type, parser->data.data ? parser->data.data : "", parser->data.n);
    parser->data.n = 0;
    parser->has_data = 0;
    parser->type[0] = 0;
    return stop ? MINIM_ERR_CANCELLED : MINIM_OK;
}

static minim_status sse_field(sse_parser *parser, const char *name, size_t n_name, const char *value, size_t n_value) {
    if (n_name == 4 && !memcmp(name, "data", 4)) {
        minim_status status = parser->has_data ? router_bytes_append(&parser->data, "\n", 1) : MINIM_OK;
        parser->has_data = 1;
        return status == MINIM_OK ? router_bytes_append(&parser->data, value, n_value) : status;
    }
    if (n_name == 5 && !memcmp(name, "event", 5)) {
        size_t n = n_value < sizeof parser->type ? n_value : sizeof parser->type - 1;
        memcpy(parser->type, value, n);
        parser->type[n] = 0;
    }
    return MINIM_OK;
}

/* parser->line is complete. */
static minim_status sse_line(sse_parser *parser) {
    const char *line = parser->line.data ? parser->line.data : "";
    size_t n = parser->line.n;
    parser->line.n = 0;
    if (!parser->begun) {
        parser->begun = 1;
        if (n >= 3 && !memcmp(line, "\xef\xbb\xbf", 3)) line += 3, n -= 3;
    }
    if (!n) return sse_dispatch(parser);
    parser->lines++;
    const char *colon = memchr(line, ':', n);
    if (colon == line) return MINIM_OK; /* a comment, often a ping */
    if (!colon) return sse_field(parser, line, n, "", 0);
    size_t n_name = (size_t)(colon - line), skip = n_name + 1;
    if (skip < n && line[skip] == ' ') skip++;
    return sse_field(parser, line, n_name, line + skip, n - skip);
}

minim_status sse_push(sse_parser *parser, const char *bytes, size_t n) {
    size_t i = 0;
    while (i < n) {
        if (parser->after_cr && bytes[i] == '\n') i++;
        parser->after_cr = 0;
        size_t end = i;
        while (end < n && bytes[end] != '\n' && bytes[end] != '\r') end++;
        minim_status status = router_bytes_append(&parser->line, bytes + i, end - i);
        if (status != MINIM_OK) return status;
        i = end;
        if (end == n) break;
        parser->after_cr = bytes[end] == '\r';
        i++;
        status = sse_line(parser);
        if (status != MINIM_OK) return status;
    }
    return MINIM_OK;
}

minim_status sse_finish(sse_parser *parser) {
    minim_status status = parser->line.n ? sse_line(parser) : MINIM_OK;
    return status == MINIM_OK ? sse_dispatch(parser) : status;
}
