/* gguf_index.h: finds the names of a file's keys and tensors in constant time.
 *
 * Open addressing with linear probing, half full at most. The hash is keyed at random: else a file could be made whose
 * names all fall on one slot, and a million of them would take hours.
 */
#ifndef ENGINE_GGUF_INDEX_H
#define ENGINE_GGUF_INDEX_H

#include "gguf.h"

typedef struct gguf_index {
    uint64_t *slot; /* [n_slots] upper half of the hash in the upper 32 bits, item + 1 in the lower; 0 = empty */
    size_t n_slots; /* a power of two */
    uint64_t seed[2];
} gguf_index;

/* `items` is an array whose items of `stride` bytes start with their name: gguf_value and gguf_tensor both do. It is
 * not copied, and must be the same in every call. */
const gguf_str *gguf_index_name(const void *items, size_t stride, size_t i);

/* Indexes n < 2^32 - 1 items. 0; -1 without memory; 1 when item *second has the name of item *first. */
int gguf_index_build(const minim_allocator *a, gguf_index *x, const void *items, size_t stride, size_t n,
                     size_t *second, size_t *first);
void gguf_index_free(const minim_allocator *a, gguf_index *x);

/* SIZE_MAX if it is not there. */
size_t gguf_index_find(const gguf_index *x, const void *items, size_t stride, const char *s, size_t n);

#endif
