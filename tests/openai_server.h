/* openai_server.h: a scripted OpenAI-compatible server on loopback, for tests. It answers the n-th request with the
 * n-th reply of its script (the last one repeats), in pieces with pauses, well or badly, and remembers what it was
 * asked. */
#ifndef TESTS_OPENAI_SERVER_H
#define TESTS_OPENAI_SERVER_H

#include <stddef.h>

typedef enum openai_end {
    OPENAI_END_CLEAN = 0, /* the last chunk of a chunked body */
    OPENAI_END_ABORT,     /* the connection closes without it */
    OPENAI_END_RESET,     /* the connection is reset (RST) */
    OPENAI_END_STALL      /* nothing more comes, the connection stays open */
} openai_end;

typedef struct openai_reply {
    int status;             /* 0 = 200 */
    const char *headers[7]; /* "Name: value", NULL-terminated */
    const char *pieces[24]; /* of the body, each sent on its own; NULL-terminated */
    size_t sizes[24];       /* bytes of a piece; 0 = strlen */
    int first_ms, piece_ms; /* pause before the first piece, and before each other one */
    openai_end end;
} openai_reply;

typedef struct openai_server openai_server;

/* NULL when it can not be started. Replies are copied, what they point to is not. */
openai_server *openai_server_start(const openai_reply *replies, size_t n);
void openai_server_stop(openai_server *server);

const char *openai_server_url(const openai_server *server); /* "http://127.0.0.1:PORT/v1" */
unsigned openai_server_connections(openai_server *server);
unsigned openai_server_requests(openai_server *server);
/* Of the last request: the body, the path, a header ("" = none). Valid until the next request. */
const char *openai_server_body(openai_server *server);
const char *openai_server_path(openai_server *server);
const char *openai_server_header(openai_server *server, const char *name);
/* Pieces that were handed out so far, over all requests. */
unsigned openai_server_pieces(openai_server *server);

/* A port of 127.0.0.1 on which nobody listens. */
unsigned openai_unused_port(void);
/* A port that accepts connections and never says a word; close *fd when done. */
unsigned openai_silent_port(int *fd);

#endif
