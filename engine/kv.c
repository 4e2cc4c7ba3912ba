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
    size_t together; /* pages that hold the same tokens; the first `kept` of them are never dropped */
    size_t kept;
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

int kv_shape_pages(kv_shape *s) {
    int a = s->n_layers - s->n_windowed, b = s->n_windowed;
    while (b) { /* their greatest common divisor (Euclid) */
        int rest = a % b;
        a = b, b = rest;
    }
    s->page_layers = a;
    return s->n_layers / a;
}

uint64_t kv_page_bytes(const kv_shape *s) {
    uint64_t bytes;
    if (size_mul((uint64_t)s->page_layers * 2, (uint64_t)s->n_kv_heads, &bytes) ||
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
    p->together = (size_t)(s->n_layers / s->page_layers);
    p->kept = (size_t)((s->n_layers - s->n_windowed) / s->page_layers);
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

/* Gives back all behind the first `keep` pages (of each kind). */
static void kv_cut(kv_pool *p, kv_table *t, size_t keep) {
    while (t->n > keep) {
        kv_page **page = t->page + --t->n * p->together;
        for (size_t i = 0; i < p->together; i++) {
            if (page[i]) kv_give(p, page[i]);
        }
    }
    if (t->dropped > t->n) t->dropped = t->n;
}

minim_status kv_reserve(kv_pool *p, kv_table *t, size_t n_tokens, minim_error *e) {
    size_t need = kv_pages_for(p, n_tokens), before = t->n;
    minim_status status = MINIM_OK;
    if (mem_grow(&p->allocator, &t->page, &t->capacity, need * p->together, sizeof *t->page)) {
        return err_memory(e, "a page table", need * p->together * sizeof *t->page);
    }
    while (t->n < need && !status) {
        kv_page **page = t->page + t->n++ * p->together;
        for (size_t i = 0; i < p->together; i++) page[i] = NULL;
        for (size_t i = 0; i < p->together && !status; i++) status = kv_take(p, &page[i], e);
    }
    if (status) kv_cut(p, t, before);
    return status;
}

void kv_shrink(kv_pool *p, kv_table *t, size_t n_tokens) {
    kv_cut(p, t, kv_pages_for(p, n_tokens));
}

void kv_drop(kv_pool *p, kv_table *t, size_t n_tokens) {
    size_t end = n_tokens / (size_t)p->shape.page_size;
    for (; t->dropped < end && t->dropped < t->n; t->dropped++) {
        kv_page **page = t->page + t->dropped * p->together;
        for (size_t i = p->kept; i < p->together; i++) {
            kv_give(p, page[i]);
            page[i] = NULL;
        }
    }
}

size_t kv_dropped(const kv_pool *p, const kv_table *t) {
    return p->kept < p->together ? t->dropped * (size_t)p->shape.page_size : 0;
}

minim_status kv_restore(kv_pool *p, kv_table *t, minim_error *e) {
    for (size_t i = 0; i < t->dropped * p->together; i++) {
        minim_status status = t->page[i] ? MINIM_OK : kv_take(p, &t->page[i], e);
        if (status) return status;
    }
    t->dropped = 0;
    return MINIM_OK;
}

void kv_table_free(kv_pool *p, kv_table *t) {
    kv_shrink(p, t, 0);
    mem_free(&p->allocator, t->page, t->capacity, sizeof *t->page);
    *t = (kv_table){0};
}

const kv_page *kv_page_at(const kv_pool *p, const kv_table *t, size_t index, int slot) {
    return t->page[index * p->together + (size_t)(slot / p->shape.page_layers)];
}

static char *kv_head(const kv_pool *p, const kv_page *page, int slot, int head, int is_value) {
    size_t index =
        ((size_t)(slot % p->shape.page_layers) * 2 + (size_t)is_value) * (size_t)p->shape.n_kv_heads + (size_t)head;
    return (char *)(uintptr_t)page + KV_HEADER + index * p->head_bytes;
}

void *kv_keys(const kv_pool *p, const kv_page *page, int slot, int head) {
    return kv_head(p, page, slot, head, 0);
}
void *kv_values(const kv_pool *p, const kv_page *page, int slot, int head) {
    return kv_head(p, page, slot, head, 1);
}

void kv_store(const kv_pool *p, const kern_table *kern, const kv_table *t, int slot, size_t position, const float *k,
              const float *v, void *scratch) {
    size_t size = (size_t)p->shape.page_size, dim = (size_t)p->shape.head_dim, column = position % size;
    const kv_page *page = kv_page_at(p, t, position / size, slot);
    for (int head = 0; head < p->shape.n_kv_heads; head++, k += dim, v += dim) {
        char *keys = kv_keys(p, page, slot, head), *values = kv_values(p, page, slot, head);
        if (p->shape.type == KERN_KV_F16) {
            const uint16_t *half = scratch;
            kern->to_f16(k, (int64_t)dim, scratch);
            for (size_t d = 0; d < dim; d++) memcpy(keys + (d * size + column) * 2, half + d, 2);
            kern->to_f16(v, (int64_t)dim, (uint16_t *)(void *)(values + column * dim * 2));
        } else {
            for (size_t d = 0; d < dim; d++) memcpy(keys + (d * size + column) * 4, k + d, 4);
            memcpy(values + column * dim * 4, v, dim * 4);
        }
    }
}
