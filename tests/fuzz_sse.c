/* fuzz_sse.c: a server that says anything. The input is a stream that comes in pieces, a whole answer, or an error's
 * body; whatever it is, reading it must end without a crash, a leak or text that is not UTF-8, and a stream must be
 * read alike in one piece and in many.
 *
 *   clang -std=c11 -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all tests/fuzz_sse.c
 * \ router/sse.c router/openai.c router/support.c router/config.c router/words.c -ljansson -lm -o build/fuzz_sse
 *   build/fuzz_sse -max_total_time=60 -max_len=4096
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../router/openai.h"
#include "../router/sse.h"

/* Everything that comes out of a reading; two readings of the same bytes are compared by it. */
typedef struct fuzz_outcome {
    router_bytes text;
    minim_status status;
    minim_route_failure failure;
    uint64_t n_events;
    int has_done, has_finish;
} fuzz_outcome;

static int fuzz_on_text(void *user, const char *text, size_t n) {
    for (size_t i = 0, length; i < n; i += length) {
        length = router_utf8_length(text + i, n - i);
        if (!length || !text[i]) abort();
    }
    fuzz_outcome *outcome = user;
    return router_bytes_append(&outcome->text, text, n) != MINIM_OK;
}

/* piece: bytes at a time; 0 = all at once. */
static void fuzz_stream(const char *data, size_t n, size_t piece, fuzz_outcome *outcome) {
    minim_router_reply reply;
    openai_reader reader;
    sse_parser parser;
    memset(&reply, 0, sizeof reply);
    memset(outcome, 0, sizeof *outcome);
    outcome->text.limit = 1 << 24;
    minim_router_sink sink = {outcome, fuzz_on_text, NULL};
    openai_begin(&reader, &sink, "sk-x", &reply, 1 << 16);
    sse_begin(&parser, 512, 1024, openai_event, &reader);
    for (size_t i = 0; i < n && outcome->status == MINIM_OK; i += piece) {
        size_t left = n - i;
        if (!piece || piece > left) piece = left;
        outcome->status = sse_push(&parser, data + i, piece);
    }
    if (outcome->status == MINIM_OK) outcome->status = sse_finish(&parser);
    if (reader.failure && (!reader.detail[0] || strpbrk(reader.detail, "\r\n") || strstr(reader.detail, "sk-x")))
        abort();
    outcome->failure = reader.failure;
    outcome->n_events = reader.n_events;
    outcome->has_done = reader.has_done;
    outcome->has_finish = reader.has_finish;
    sse_free(&parser);
    openai_free(&reader);
}

static void fuzz_compare(const char *data, size_t n, size_t piece) {
    fuzz_outcome whole, split;
    fuzz_stream(data, n, 0, &whole);
    fuzz_stream(data, n, piece, &split);
    if (whole.status != split.status || whole.failure != split.failure || whole.n_events != split.n_events ||
        whole.has_done != split.has_done || whole.has_finish != split.has_finish || whole.text.n != split.text.n ||
        (whole.text.n && memcmp(whole.text.data, split.text.data, whole.text.n) != 0)) {
        abort();
    }
    router_bytes_free(&whole.text);
    router_bytes_free(&split.text);
}

static void fuzz_body(const char *data, size_t n, int status) {
    minim_router_reply reply;
    openai_reader reader;
    fuzz_outcome outcome;
    memset(&reply, 0, sizeof reply);
    memset(&outcome, 0, sizeof outcome);
    outcome.text.limit = 1 << 24;
    minim_router_sink sink = {&outcome, fuzz_on_text, NULL};
    openai_begin(&reader, &sink, "sk-x", &reply, 1 << 16);
    if (status)
        openai_error(&reader, status, data, n);
    else
        openai_document(&reader, data, n);
    if (status && !reader.failure) abort();
    openai_free(&reader);
    router_bytes_free(&outcome.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    const char *text = (const char *)data + 2;
    switch (data[0] % 4) {
    case 0: fuzz_body(text, size - 2, 0); break;
    case 1: fuzz_body(text, size - 2, 300 + data[1]); break;
    default: fuzz_compare(text, size - 2, 1 + data[1] % 32); break;
    }
    return 0;
}
