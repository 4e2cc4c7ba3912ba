/* kv.h: the paged key-value cache (Kwon et al. 2023). A pool hands out pages of page_size tokens; a sequence owns a
 * list of them. Memory is taken when a page is first needed and stays in the pool's free list afterwards.
 *
 * A page holds, for every layer, K [n_kv_heads][head_dim][page_size] (transposed: a key is a column, so that 16 keys
 * lie side by side for QK^T) and V [n_kv_heads][page_size][head_dim].
 */
#ifndef ENGINE_KV_H
#define ENGINE_KV_H

#include "../kernels/kernels.h"
#include "base.h"

typedef struct kv_shape {
    int n_layers, n_kv_heads, head_dim;
    int page_size; /* tokens */
    enum kern_kv type;
} kv_shape;

typedef struct kv_page kv_page;
typedef struct kv_pool kv_pool;

/* Bytes of one page; 0 if it does not fit a size. */
uint64_t kv_page_bytes(const kv_shape *s);

minim_status kv_pool_new(const minim_allocator *a, const kv_shape *s, uint64_t page_limit, kv_pool **out,
                         minim_error *e);
void kv_pool_free(kv_pool *p);
void kv_pool_info(const kv_pool *p, uint64_t *in_use, uint64_t *allocated, uint64_t *limit, uint64_t *page_bytes);

/* The pages of one sequence, in order. */
typedef struct kv_table {
    kv_page **page;
    size_t n, capacity;
} kv_table;

/* Makes room for n_tokens tokens in all. On failure (MINIM_ERR_CONTEXT: the limit is reached, or MINIM_ERR_MEMORY) the
 * table is unchanged. */
minim_status kv_reserve(kv_pool *p, kv_table *t, size_t n_tokens, minim_error *e);
/* Gives back the pages behind the first n_tokens tokens. */
void kv_shrink(kv_pool *p, kv_table *t, size_t n_tokens);
void kv_table_free(kv_pool *p, kv_table *t);

enum kern_kv kv_type(const kv_pool *p);
size_t kv_element(enum kern_kv type); /* bytes of one number */

/* K or V of one page, layer and head, see above. */
void *kv_keys(const kv_pool *p, const kv_page *page, int layer, int head);
void *kv_values(const kv_pool *p, const kv_page *page, int layer, int head);

/* Stores the key and value rows k, v [n_kv_heads][head_dim] of the token at `position`. scratch: [head_dim] floats. */
void kv_store(const kv_pool *p, const kern_table *kern, const kv_table *t, int layer, size_t position, const float *k,
              const float *v, void *scratch);

#endif
