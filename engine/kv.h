/* kv.h: the paged key-value cache (Kwon et al. 2023). A pool hands out pages of page_size tokens; a sequence has a
 * list of them. Memory is taken when a page is needed and given back when no sequence holds it any more. Sequences with
 * the same beginning can share pages: each counts its tables, and who wants to write into a shared one copies it first.
 * Full pages are also found by the tokens they hold (kv_prefix.c), and stay for a while when no sequence holds them.
 *
 * A page holds, for each of page_layers layers, K [n_kv_heads][head_dim][page_size] (transposed: a key is a column, so
 * that 16 keys lie side by side for QK^T) and V [n_kv_heads][page_size][head_dim]. Q8: int8 codes of a head, K
 * [ceil(head_dim/4)][page_size][4] and V [page_size/4][head_dim][4], each with a float32 scale [page_size] behind. Q4:
 * two codes in a byte, of one token, so that whoever stores a token touches nobody else's: K has
 * [ceil(head_dim/8)][page_size][4] bytes of dimensions 8i + 0..3 and 8i + 4..7, V [page_size/4][ceil(head_dim/2)][4]
 * bytes of dimensions i and i + ceil(head_dim/2). Q8_Q4: K as Q8, V as Q4.
 * Layers have slots: first those that see everything, then windowed ones, whose pages are given back once no window
 * reaches them. page_layers divides both numbers, so that a page belongs to one kind and all pages have one size;
 * without windows it is all layers.
 */
#ifndef ENGINE_KV_H
#define ENGINE_KV_H

#include "../kernels/kernels.h"
#include "base.h"

typedef struct kv_shape {
    int n_layers, n_kv_heads, head_dim;
    int n_windowed;  /* the last slots */
    int n_window;    /* tokens that these see */
    int page_layers; /* see kv_shape_pages() */
    int page_size;   /* tokens */
    enum kern_kv type;
} kv_shape;

typedef struct kv_page kv_page;
typedef struct kv_node kv_node;
typedef struct kv_pool kv_pool;

typedef struct kv_counts {
    uint64_t limit;
    uint64_t in_use;       /* pages that some table holds, each counted once */
    uint64_t cached;       /* and those that only the index holds */
    uint64_t evicted;      /* pages that the index has lost */
    uint64_t asked, found; /* tokens looked up in it */
} kv_counts;

/* Sets page_layers; returns how many pages hold the same tokens. */
int kv_shape_pages(kv_shape *s);

/* Bytes of one page; 0 if it does not fit a size. */
uint64_t kv_page_bytes(const kv_shape *s);

/* Of page_limit pages in all no more than cache_limit may be pages that no sequence holds; 0 = no prefix index. */
minim_status kv_pool_new(const minim_allocator *a, const kv_shape *s, uint64_t page_limit, uint64_t cache_limit,
                         kv_pool **out, minim_error *e);
void kv_pool_free(kv_pool *p); /* no table is left */
kv_counts kv_pool_counts(const kv_pool *p);

/* The pages of one sequence, in order. */
typedef struct kv_table {
    kv_page **page; /* [n][pages that hold the same tokens]; NULL: was dropped */
    size_t n, capacity;
    size_t dropped; /* the first so many have lost the pages of windowed layers */
    kv_node *node;  /* the last full page that the prefix index knows, or NULL */
    int foreign;    /* 1: pages of a file, which the prefix index must not learn of */
} kv_table;

/* Makes room for n_tokens tokens in all, of which n_old are there: what lies behind those is then the table's alone. On
 * failure (MINIM_ERR_CONTEXT: the limit is reached, or MINIM_ERR_MEMORY) the table holds what it held. */
minim_status kv_reserve(kv_pool *p, kv_table *t, size_t n_old, size_t n_tokens, minim_error *e);
/* Gives back the pages behind the first n_tokens tokens. */
void kv_shrink(kv_pool *p, kv_table *t, size_t n_tokens);
/* Gives back the windowed layers' pages that hold only some of the first n_tokens tokens. */
void kv_drop(kv_pool *p, kv_table *t, size_t n_tokens);
/* Takes new pages, without content, for those dropped. On failure the table is unchanged. */
minim_status kv_restore(kv_pool *p, kv_table *t, minim_error *e);
/* Tokens whose keys and values were dropped. */
size_t kv_dropped(const kv_pool *p, const kv_table *t);
/* The first n_tokens of the table's tokens are computed: the prefix index learns of pages that are full by now. Does
 * nothing when there is no memory for it. */
void kv_index(kv_pool *p, kv_table *t, const int32_t *tokens, size_t n_tokens);
/* A table that has nothing takes the pages of the longest beginning of tokens that the index knows: *n_found tokens, a
 * multiple of page_size. */
minim_status kv_match(kv_pool *p, kv_table *t, const int32_t *tokens, size_t n_tokens, size_t *n_found, minim_error *e);
/* `to`, which has nothing, holds the same pages. */
minim_status kv_fork(kv_pool *p, const kv_table *from, kv_table *to, minim_error *e);
void kv_table_free(kv_pool *p, kv_table *t);

enum kern_kv kv_type(const kv_pool *p);
size_t kv_element(enum kern_kv type); /* bytes of one number; Q4: of two */
/* Dimensions of a key with those that fill its last group: of 4 for Q8, of 8 for Q4. */
size_t kv_key_dims(const kv_pool *p);
/* 1: keys, or values, have 4 bits. */
int kv_is_packed(const kv_pool *p, int is_value);
/* Bytes of K or V of one head of one layer in a page. */
size_t kv_page_head_bytes(const kv_pool *p, int is_value);

/* The page that holds the index-th page_size tokens of the layer in this slot. */
const kv_page *kv_page_at(const kv_pool *p, const kv_table *t, size_t index, int slot);
/* K or V of one page, layer and head, see above. */
void *kv_keys(const kv_pool *p, const kv_page *page, int slot, int head);
void *kv_values(const kv_pool *p, const kv_page *page, int slot, int head);

/* Q8, Q4: the scales [page_size] of what kv_keys() or kv_values() returned. */
float *kv_scales(const kv_pool *p, void *codes, int is_value);

/* A page of K or V of a head, from 4 bits to the codes of Q8: keys [kv_key_dims()/4][page_size][4], values
 * [page_size/4][head_dim][4] and 4 bytes more. */
void kv_unpack_keys(const kv_pool *p, const kern_table *kern, const void *k, int8_t *keys);
void kv_unpack_values(const kv_pool *p, const kern_table *kern, const void *v, int8_t *values);

/* Stores the key and value rows k, v [n_kv_heads][head_dim] of the token at `position`. scratch: [head_dim, and what
 * fills its last group of 8] floats. */
void kv_store(const kv_pool *p, const kern_table *kern, const kv_table *t, int slot, size_t position, const float *k,
              const float *v, void *scratch);

#endif
