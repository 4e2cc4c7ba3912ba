/* streams.h: panels side by side that a product goes through at once. A step of few tokens waits for memory, and the
 * CPU's own prefetchers read that best in a few long streams (bench/NOTES.md). */
#ifndef KERN_X86_STREAMS_H
#define KERN_X86_STREAMS_H

#include "../internal.h"

typedef struct kern_streams {
    const uint8_t *first; /* the panel of the first stream */
    int64_t apart;        /* bytes from one to the next */
    int64_t n_blocks;     /* of 32 inputs, in a row */
    const uint8_t *next;  /* where the first goes on; NULL if nothing is to be asked for behind these panels */
    int64_t next_apart;
} kern_streams;

/* The i-th panels of n streams, each of which has `each` of them, `bytes` long. They run on from panel to panel, and
 * behind the last one into the streams of the next product: see kern_act.follow. */
static inline kern_streams kern_streams_at(const void *panels, size_t bytes, int64_t n_blocks, int n, int64_t each,
                                           int64_t i, int64_t follow) {
    const int64_t panel = (int64_t)bytes, apart = each * panel, then = follow / n;
    const uint8_t *first = (const uint8_t *)panels + i * panel;
    if (i + 1 < each) return (kern_streams){first, apart, n_blocks, first + panel, apart};
    return (kern_streams){first, apart, n_blocks, then ? (const uint8_t *)panels + n * apart : NULL, then * panel};
}

/* A pointer the compiler shall take as it is: gcc 12 derives all addresses from few and runs out of registers. */
#define KERN_STREAMS_PIN(p) __asm__("" : "+r"(p))

/* Asks for block b of n streams whose blocks are `bytes` of codes, and behind all of them 16 scales each. They are read
 * once in a step: past the second level, which keeps what is read again. */
KERN_INLINE void kern_streams_fetch(const int bytes, const int n, const kern_streams *w, int64_t b) {
    const uint8_t *panel = w->first;
    int64_t apart = w->apart;
    if (b >= w->n_blocks) {
        panel = w->next, apart = w->next_apart, b -= w->n_blocks;
        if (!panel || b >= w->n_blocks) return;
    }
    const uint8_t *codes = panel + b * bytes, *scales = panel + w->n_blocks * bytes + b * 2 * KERN_PANEL;
    KERN_UNROLL
    for (int p = 0; p < n; p++) {
        KERN_STREAMS_PIN(codes);
        KERN_STREAMS_PIN(scales);
        KERN_UNROLL
        for (int i = 0; i < bytes; i += KERN_LINE) __builtin_prefetch(codes + i, 0, 0);
        __builtin_prefetch(scales, 0, 0);
        codes += apart;
        scales += apart;
    }
}

#endif
