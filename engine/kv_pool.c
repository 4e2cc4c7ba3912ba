/* kv_pool.c: who owns a page: the pool, and the tables of sequences. A page of several tables counts them. */
#include <string.h>

#include "kv_impl.h"

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
    minim_allocator a = p->allocator;
    mem_free(&a, p, 1, sizeof *p);
}

void kv_pool_info(const kv_pool *p, uint64_t *in_use, uint64_t *allocated, uint64_t *limit, uint64_t *page_bytes) {
    *in_use = p->in_use;
    *allocated = p->in_use;
    *limit = p->limit;
    *page_bytes = p->page_bytes;
}

/* ---- single pages ------------------------------------------------------------------------------------------------ */

static minim_status kv_take(kv_pool *p, kv_page **out, minim_error *e) {
    if (p->in_use == p->limit) {
        return err_set(e, MINIM_ERR_CONTEXT, "the KV pool is full: all %llu pages of %d tokens are in use",
                       (unsigned long long)p->limit, p->shape.page_size);
    }
    kv_page *page = mem_alloc(&p->allocator, 1, p->page_bytes);
    if (!page) return err_memory(e, "a KV page", p->page_bytes);
    page->users = 1;
    p->in_use++;
    *out = page;
    return MINIM_OK;
}

/* A table lets go of a page. What nobody holds goes back to the allocator: memory follows the pages in use. */
static void kv_give(kv_pool *p, kv_page *page) {
    if (--page->users) return;
    mem_free(&p->allocator, page, 1, p->page_bytes);
    p->in_use--;
}

/* *page becomes a page of its own with the same content, if it is not one already. */
static minim_status kv_own(kv_pool *p, kv_page **page, minim_error *e) {
    kv_page *copy = NULL;
    if ((*page)->users == 1) return MINIM_OK;
    minim_status status = kv_take(p, &copy, e);
    if (status) return status;
    memcpy((char *)copy + KV_HEADER, (char *)*page + KV_HEADER, p->page_bytes - KV_HEADER);
    kv_give(p, *page);
    *page = copy;
    return MINIM_OK;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

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

minim_status kv_reserve(kv_pool *p, kv_table *t, size_t n_old, size_t n_tokens, minim_error *e) {
    size_t need = kv_pages_for(p, n_tokens), before = t->n, size = (size_t)p->shape.page_size;
    minim_status status = MINIM_OK;
    if (mem_grow(&p->allocator, &t->page, &t->capacity, need * p->together, sizeof *t->page)) {
        return err_memory(e, "a page table", need * p->together * sizeof *t->page);
    }
    while (t->n < need && !status) {
        kv_page **page = t->page + t->n++ * p->together;
        for (size_t i = 0; i < p->together; i++) page[i] = NULL;
        for (size_t i = 0; i < p->together && !status; i++) status = kv_take(p, &page[i], e);
    }
    for (size_t i = 0; i < p->together && n_old % size && n_tokens > n_old && !status; i++) {
        kv_page **page = t->page + n_old / size * p->together + i;
        if (*page) status = kv_own(p, page, e);
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
            if (page[i]) kv_give(p, page[i]);
            page[i] = NULL;
        }
    }
}

size_t kv_dropped(const kv_pool *p, const kv_table *t) {
    return p->kept < p->together ? t->dropped * (size_t)p->shape.page_size : 0;
}

minim_status kv_restore(kv_pool *p, kv_table *t, minim_error *e) {
    size_t n = t->dropped * p->together, i = 0;
    minim_status status = MINIM_OK;
    for (; i < n && !status; i++) status = t->page[i] ? MINIM_OK : kv_take(p, &t->page[i], e);
    if (!status) {
        t->dropped = 0;
        return MINIM_OK;
    }
    while (i-- > 0) { /* those of the first kind were there before */
        if (i % p->together < p->kept || !t->page[i]) continue;
        kv_give(p, t->page[i]);
        t->page[i] = NULL;
    }
    return status;
}

minim_status kv_fork(kv_pool *p, const kv_table *from, kv_table *to, minim_error *e) {
    size_t n = from->n * p->together;
    *to = (kv_table){0};
    if (mem_grow(&p->allocator, &to->page, &to->capacity, n, sizeof *to->page)) {
        return err_memory(e, "a page table", n * sizeof *to->page);
    }
    for (size_t i = 0; i < n; i++) {
        to->page[i] = from->page[i];
        if (to->page[i]) to->page[i]->users++;
    }
    to->n = from->n, to->dropped = from->dropped;
    return MINIM_OK;
}

void kv_table_free(kv_pool *p, kv_table *t) {
    kv_shrink(p, t, 0);
    mem_free(&p->allocator, t->page, t->capacity, sizeof *t->page);
    *t = (kv_table){0};
}
