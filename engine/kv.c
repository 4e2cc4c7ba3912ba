#include "kv.h"

#include <string.h>

struct kv_page {
    kv_page *next; /* in the free list */
};

/* The data of a page starts one cache line behind its header. */
enum { KV_HEADER = 64 };

struct kv_pool {
    minim_allocator allocator;
    kv_shape shape;
    size_t element;    /* bytes of a number */
    size_t head_bytes; /* K or V of one head of one layer: head_dim * page_size * element */
    size_t page_bytes;
    uint64_t limit, allocated, in_use;
    kv_page *free_pages;
};

size_t kv_element(enum kern_kv type) {
    return type == KERN_KV_F16 ? 2 : 4;
}

enum kern_kv kv_type(const kv_pool *p) {
    return p->shape.type;
}

uint64_t kv_page_bytes(const kv_shape *s) {
    uint64_t bytes;
    if (size_mul((uint64_t)s->n_layers * 2, (uint64_t)s->n_kv_heads, &bytes) ||
        size_mul(bytes, (uint64_t)s->head_dim, &bytes) ||
        size_mul(bytes, (uint64_t)s->page_size * kv_element(s->type), &bytes) || size_add(bytes, KV_HEADER, &bytes) ||
        bytes > PTRDIFF_MAX) {
        return 0;
    }
    return bytes;
}

minim_status kv_pool_new(const minim_allocator *a, const kv_shape *s, uint64_t page_limit, kv_pool **out,
                         minim_error *e) {
    *out = NULL;
    uint64_t page_bytes = kv_page_bytes(s);
    if (!page_bytes) return err_set(e, MINIM_ERR_UNSUPPORTED, "a KV page of %d tokens is too large", s->page_size);
    if (!page_limit) {
        return err_set(e, MINIM_ERR_ARGUMENT, "kv_limit is less than one page of %llu bytes",
                       (unsigned long long)page_bytes);
    }
    kv_pool *p = mem_zalloc(a, 1, sizeof *p);
    if (!p) return err_memory(e, "the KV pool", sizeof *p);
    p->allocator = *a;
    p->shape = *s;
    p->element = kv_element(s->type);
    p->head_bytes = (size_t)s->head_dim * (size_t)s->page_size * p->element;
    p->page_bytes = (size_t)page_bytes;
    p->limit = page_limit;
    *out = p;
    return MINIM_OK;
}

void kv_pool_free(kv_pool *p) {
    if (!p) return;
    while (p->free_pages) {
        kv_page *page = p->free_pages;
        p->free_pages = page->next;
        mem_free(&p->allocator, page, 1, p->page_bytes);
    }
    minim_allocator a = p->allocator;
    mem_free(&a, p, 1, sizeof *p);
}

void kv_pool_info(const kv_pool *p, uint64_t *in_use, uint64_t *allocated, uint64_t *limit, uint64_t *page_bytes) {
    *in_use = p->in_use;
    *allocated = p->allocated;
    *limit = p->limit;
    *page_bytes = p->page_bytes;
}

static minim_status kv_take(kv_pool *p, kv_page **out, minim_error *e) {
    kv_page *page = p->free_pages;
    if (page) {
        p->free_pages = page->next;
    } else {
        if (p->allocated == p->limit) {
            return err_set(e, MINIM_ERR_CONTEXT, "the KV pool is full: all %llu pages of %d tokens are in use",
                           (unsigned long long)p->limit, p->shape.page_size);
        }
        page = mem_alloc(&p->allocator, 1, p->page_bytes);
        if (!page) return err_memory(e, "a KV page", p->page_bytes);
        p->allocated++;
    }
    p->in_use++;
    *out = page;
    return MINIM_OK;
}

static void kv_give(kv_pool *p, kv_page *page) {
    page->next = p->free_pages;
    p->free_pages = page;
    p->in_use--;
}

static size_t kv_pages_for(const kv_pool *p, size_t n_tokens) {
    size_t size = (size_t)p->shape.page_size;
    return n_tokens / size + (n_tokens % size != 0);
}

minim_status kv_reserve(kv_pool *p, kv_table *t, size_t n_tokens, minim_error *e) {
    size_t need = kv_pages_for(p, n_tokens), before = t->n;
    if (mem_grow(&p->allocator, &t->page, &t->capacity, need, sizeof *t->page)) {
        return err_memory(e, "a page table", need * sizeof *t->page);
    }
    while (t->n < need) {
        minim_status status = kv_take(p, &t->page[t->n], e);
        if (status) {
            while (t->n > before) kv_give(p, t->page[--t->n]);
            return status;
        }
        t->n++;
    }
    return MINIM_OK;
}

void kv_shrink(kv_pool *p, kv_table *t, size_t n_tokens) {
    size_t keep = kv_pages_for(p, n_tokens);
    while (t->n > keep) kv_give(p, t->page[--t->n]);
}

void kv_table_free(kv_pool *p, kv_table *t) {
    kv_shrink(p, t, 0);
    mem_free(&p->allocator, t->page, t->capacity, sizeof *t->page);
    *t = (kv_table){0};
}

static char *kv_head(const kv_pool *p, const kv_page *page, int layer, int head, int is_value) {
    size_t index = ((size_t)layer * 2 + (size_t)is_value) * (size_t)p->shape.n_kv_heads + (size_t)head;
    return (char *)(uintptr_t)page + KV_HEADER + index * p->head_bytes;
}

void *kv_keys(const kv_pool *p, const kv_page *page, int layer, int head) {
    return kv_head(p, page, layer, head, 0);
}
void *kv_values(const kv_pool *p, const kv_page *page, int layer, int head) {
    return kv_head(p, page, layer, head, 1);
}

void kv_store(const kv_pool *p, const kern_table *kern, const kv_table *t, int layer, size_t position, const float *k,
              const float *v, void *scratch) {
    size_t size = (size_t)p->shape.page_size, dim = (size_t)p->shape.head_dim, slot = position % size;
    const kv_page *page = t->page[position / size];
    for (int head = 0; head < p->shape.n_kv_heads; head++, k += dim, v += dim) {
        char *keys = kv_keys(p, page, layer, head), *values = kv_values(p, page, layer, head);
        if (p->shape.type == KERN_KV_F16) {
            const uint16_t *half = scratch;
            kern->to_f16(k, (int64_t)dim, scratch);
            for (size_t d = 0; d < dim; d++) memcpy(keys + (d * size + slot) * 2, half + d, 2);
            kern->to_f16(v, (int64_t)dim, (uint16_t *)(void *)(values + slot * dim * 2));
        } else {
            for (size_t d = 0; d < dim; d++) memcpy(keys + (d * size + slot) * 4, k + d, 4);
            memcpy(values + slot * dim * 4, v, dim * 4);
        }
    }
}
