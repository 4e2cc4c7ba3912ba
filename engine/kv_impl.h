/* kv_impl.h: what the files of the cache share: kv.c (what lies where in a page) and kv_pool.c (who owns it). */
#ifndef ENGINE_KV_IMPL_H
#define ENGINE_KV_IMPL_H

#include "kv.h"

struct kv_page {
    uint32_t users; /* tables that hold it; who wants to write into a page of several copies it first */
};

/* The data of a page starts one cache line behind its header. */
enum { KV_HEADER = 64 };

struct kv_pool {
    minim_allocator allocator;
    kv_shape shape;
    size_t together; /* pages that hold the same tokens; the first `kept` of them are never dropped */
    size_t kept;
    size_t element;    /* bytes of a number */
    size_t head_bytes; /* K or V of one head of one layer: head_dim * page_size * element */
    size_t page_bytes;
    uint64_t limit;
    uint64_t in_use; /* pages that some table holds, each counted once */
};

#endif
