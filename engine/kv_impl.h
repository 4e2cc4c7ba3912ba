/* kv_impl.h: what the files of the cache share: kv.c (what lies where in a page), kv_pool.c (who owns it) and
 * kv_prefix.c (pages that are found again by their tokens). */
#ifndef ENGINE_KV_IMPL_H
#define ENGINE_KV_IMPL_H

#include "kv.h"

typedef struct kv_slab kv_slab; /* see kv_pool.c */

struct kv_page {
    kv_node *node;  /* of the index, or NULL */
    uint32_t users; /* tables that hold it. Who wants to write into a page of several, or of the index, copies it */
    kv_slab *slab;  /* where it lies */
    kv_page *next;  /* among the free pages of its slab */
};

/* Of a page and of a slab, a cache line. */
enum { KV_HEADER = 64 };

/* A place in one of the two lists of what can be evicted, least recently used first. */
typedef struct kv_link {
    kv_node *older, *newer;
    uint64_t used; /* the pool's clock */
    int listed;
} kv_link;

typedef struct kv_list {
    kv_node *oldest, *newest;
} kv_list;

/* Full pages that hold the same page_size tokens behind the same tokens: a node of a tree over all tokens ever cached.
 */
struct kv_node {
    kv_node *parent; /* the tokens before; NULL: none */
    kv_node *next;   /* in the same bucket */
    uint64_t hash;   /* of all tokens from the first on */
    size_t depth;    /* pages of tokens up to here, this one included */
    size_t holders;  /* children, and tables whose last full page this is */
    kv_link leaf;    /* listed when nobody holds the node */
    kv_link window;  /* listed when no table holds the pages of windowed layers */
    int32_t *tokens; /* [page_size] */
    kv_page *page[]; /* [together]; windowed ones may be NULL */
};

struct kv_pool {
    minim_allocator allocator;
    kv_shape shape;
    size_t together; /* pages that hold the same tokens; the first `kept` of them are never dropped */
    size_t kept;
    size_t page_bytes;
    kv_slab *slabs; /* those with a free page */
    kv_counts counts;

    uint64_t cache_limit; /* pages that no table holds; 0 = no index */
    kv_node **bucket;     /* [n_buckets], a power of two */
    size_t n_buckets, n_nodes;
    kv_list leaves, windows; /* what can be evicted */
    uint64_t clock;
    uint64_t hash_mask; /* all ones; less of them make collisions, for tests */
};

/* kv_pool.c */
void kv_hold(kv_pool *p, kv_page *page);
void kv_give(kv_pool *p, kv_page *page);
void kv_page_free(kv_pool *p, kv_page *page);

/* kv_prefix.c: forgets what was used least recently; 0 when there is nothing to forget. No page need come free by it.
 */
int kv_evict(kv_pool *p);
/* The pages of the index that no table holds become no more than allowed. */
void kv_trim(kv_pool *p);
void kv_page_loose(kv_pool *p, kv_page *page); /* the last table has let go of a page of the index */
void kv_page_held(kv_pool *p, kv_page *page);  /* a table takes it again */
/* The table's place in the index becomes `node`, or one of its forebears with no more than `depth` pages. */
void kv_table_place(kv_pool *p, kv_table *t, kv_node *node, size_t depth);
void kv_prefix_free(kv_pool *p);

#endif
