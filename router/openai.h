/* openai.h: OpenAI's chat completions in JSON: the request, the chunks of a stream, a whole answer, an error.
 * https://platform.openai.com/docs/api-reference/chat. No network here: bytes in, text out. Every field of an answer
 * may be missing, of another type or huge. */
#ifndef ROUTER_OPENAI_H
#define ROUTER_OPENAI_H

#include "support.h"

/* The body of the request, to be freed. Invalid UTF-8 in messages is replaced by U+FFFD: JSON can not hold it. */
minim_status openai_request(const minim_router_request *request, const minim_router_config *config, char **body,
                            minim_error *error);

/* Reads one answer and passes its text on. */
typedef struct openai_reader {
    const minim_router_sink *sink;
    const char *secret; /* taken out of what the server says; may be NULL */
    minim_router_reply *reply;
    router_bytes json, text;  /* scratch */
    uint64_t n_events;        /* pieces of the answer that came in */
    uint64_t n_bytes;         /* text that was passed on */
    router_bytes *said;       /* gets it, too; NULL = nobody wants it */
    int has_text;             /* some of it is not white space */
    int has_finish, has_done; /* finish_reason, [DONE] */
    int has_usage;
    int cancelled; /* the sink stopped it */
    minim_route_failure failure;
    char detail[256]; /* of the failure, one line */
} openai_reader;

void openai_begin(openai_reader *reader, const minim_router_sink *sink, const char *secret, minim_router_reply *reply,
                  size_t max_bytes);
void openai_free(openai_reader *reader);

/* One event of a stream; an sse_event_fn. Non-zero: finished, failed or cancelled. */
int openai_event(void *reader, const char *type, const char *data, size_t n);
/* A whole answer that was not streamed. */
void openai_document(openai_reader *reader, const char *data, size_t n);
/* The body of an answer with an HTTP status that is no success: sets failure and detail from both. */
void openai_error(openai_reader *reader, int status, const char *data, size_t n);

#endif
