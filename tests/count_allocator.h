/* count_allocator.h: an allocator for tests that counts, remembers the peak, and fails when asked. For one thread. */
#ifndef TESTS_COUNT_ALLOCATOR_H
#define TESTS_COUNT_ALLOCATOR_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/minim.h"

typedef struct count_allocator {
    size_t calls;        /* of alloc() so far */
    size_t fail_at;      /* this call (1 = the first) gives NULL; 0 = none */
    int fail_after;      /* and every call behind it */
    size_t blocks;       /* not freed yet */
    size_t bytes, peak;  /* not freed yet, and the most that ever were */
    size_t wrong_frees;  /* free() with another size than alloc() */
    size_t wrong_aligns; /* alloc() with less than 64 */
} count_allocator;

/* A block starts this far behind its size. */
enum { COUNT_HEAD = 4096 };

static inline void *count_alloc(void *user, size_t size, size_t alignment) {
    count_allocator *c = user;
    const size_t head = alignment > 64 ? COUNT_HEAD : 64;
    void *p;
    c->calls++;
    if (alignment < 64) c->wrong_aligns++;
    if (c->fail_at && (c->calls == c->fail_at || (c->fail_after && c->calls > c->fail_at))) return NULL;
    if (size > PTRDIFF_MAX - head || posix_memalign(&p, alignment < 64 ? 64 : alignment, head + size)) return NULL;
    memset((char *)p + head, 0xa5, size < 4096 ? size : 4096); /* nobody may rely on zeros */
    p = (char *)p + head;
    memcpy((char *)p - sizeof size, &size, sizeof size);
    memcpy((char *)p - 2 * sizeof size, &head, sizeof head);
    c->blocks++;
    c->bytes += size;
    if (c->bytes > c->peak) c->peak = c->bytes;
    return p;
}

static inline void count_free(void *user, void *pointer, size_t size) {
    count_allocator *c = user;
    size_t real, head;
    if (!pointer) return;
    memcpy(&real, (char *)pointer - sizeof real, sizeof real);
    memcpy(&head, (char *)pointer - 2 * sizeof head, sizeof head);
    if (real != size) c->wrong_frees++;
    c->blocks--;
    c->bytes -= real;
    free((char *)pointer - head);
}

static inline minim_allocator count_allocator_get(count_allocator *c) {
    return (minim_allocator){c, count_alloc, count_free};
}

/* Nothing is left, and every block was given and freed as the interface says. */
static inline int count_allocator_clean(const count_allocator *c) {
    return c->blocks == 0 && c->bytes == 0 && c->wrong_frees == 0 && c->wrong_aligns == 0;
}

#endif
