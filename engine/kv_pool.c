/* kv_pool.c: who owns a page: the pool, and the tables of sequences. A page of several tables counts them. */
#include <string.h>

#include "kv_impl.h"

minim_status kv_pool_new(const minim_allocator *a, const kv_shape *s, uint64_t page_limit, uint64_t cache_limit,
                         kv_pool **out, minim_error *e) {
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
    p->page_bytes = (size_t)page_bytes;
    p->counts.limit = page_limit;
    p->cache_limit = cache_limit;
    p->hash_mask = UINT64_MAX;
    *out = p;
    return MINIM_OK;
}

void kv_pool_free(kv_pool *p) {
    if (!p) return;
    kv_prefix_free(p);
    minim_allocator a = p->allocator;
    mem_free(&a, p, 1, sizeof *p);
}

kv_counts kv_pool_counts(const kv_pool *p) {
    return p->counts;
}

/* ---- memory of pages --------------------------------------------------------------------------------------------- */

/* Pages that are allocated together. Where they can be many megabytes they are on huge pages of the system: the first
 * touch of each 4 KB of small ones costs half a microsecond, in some virtual machines 14 (bench/NOTES.md). The pages
 * lie behind this, each from a cache line on. */
struct kv_slab {
    kv_slab *before, *next; /* in the pool's list of those with a free page */
    kv_page *free;          /* pages that were used, and are not now */
    size_t n, n_touched;    /* all pages; the first ones that were used at some time */
    size_t n_used;          /* that are used now */
};

_Static_assert(sizeof(kv_slab) <= KV_HEADER, "a slab's first page would lie in its header");

enum { KV_SLAB = 2 * MEM_HUGE_LEAST }; /* bytes a slab should have. With less than half of it, it is a single page */

static size_t kv_round_up(size_t bytes, size_t to) {
    return (bytes + to - 1) / to * to;
}

/* From a page of a slab to the next. The first one lies a header's length behind the slab's beginning. */
static size_t kv_slab_step(const kv_pool *p) {
    return kv_round_up(p->page_bytes, KV_HEADER);
}

/* Of several pages: to the end of a huge page, so that it is one. */
static size_t kv_slab_bytes(const kv_pool *p, size_t n) {
    return n == 1 ? KV_HEADER + p->page_bytes : kv_round_up(KV_HEADER + n * kv_slab_step(p), MEM_HUGE);
}

static void kv_slab_link(kv_pool *p, kv_slab *s) {
    s->before = NULL, s->next = p->slabs;
    if (s->next) s->next->before = s;
    p->slabs = s;
}

static void kv_slab_unlink(kv_pool *p, kv_slab *s) {
    *(s->before ? &s->before->next : &p->slabs) = s->next;
    if (s->next) s->next->before = s->before;
}

/* A slab with no more pages than the limit allows. */
static kv_slab *kv_slab_new(kv_pool *p) {
    const uint64_t allowed = p->counts.limit - p->counts.in_use - p->counts.cached;
    size_t n = KV_SLAB / p->page_bytes + 1;
    if (n > allowed) n = (size_t)allowed;
    if (n > 1 && (n * p->page_bytes < MEM_HUGE_LEAST || !mem_is_default(&p->allocator))) n = 1;
    kv_slab *s = mem_alloc_huge(&p->allocator, kv_slab_bytes(p, n));
    if (!s && n > 1) s = mem_alloc_huge(&p->allocator, kv_slab_bytes(p, n = 1));
    if (!s) return NULL;
    *s = (kv_slab){.n = n};
    kv_slab_link(p, s);
    return s;
}

/* Not cleared; NULL when there is no memory. */
static kv_page *kv_page_alloc(kv_pool *p) {
    kv_slab *s = p->slabs ? p->slabs : kv_slab_new(p);
    if (!s) return NULL;
    kv_page *page = s->free;
    if (page)
        s->free = page->next;
    else
        page = (kv_page *)(void *)((char *)s + KV_HEADER + s->n_touched++ * kv_slab_step(p));
    if (++s->n_used == s->n) kv_slab_unlink(p, s);
    page->slab = s;
    return page;
}

void kv_page_free(kv_pool *p, kv_page *page) {
    kv_slab *s = page->slab;
    page->next = s->free, s->free = page;
    if (s->n_used-- == s->n) kv_slab_link(p, s);
    if (s->n_used) return;
    kv_slab_unlink(p, s);
    mem_free(&p->allocator, s, 1, kv_slab_bytes(p, s->n));
}

/* ---- single pages ------------------------------------------------------------------------------------------------ */

/* What the index keeps gives way to what is needed. */
static minim_status kv_take(kv_pool *p, kv_page **out, minim_error *e) {
    while (p->counts.in_use + p->counts.cached >= p->counts.limit && kv_evict(p)) {
    }
    if (p->counts.in_use + p->counts.cached >= p->counts.limit) {
        return err_set(e, MINIM_ERR_CONTEXT, "the KV pool is full: all %llu pages of %d tokens are in use",
                       (unsigned long long)p->counts.limit, p->shape.page_size);
    }
    kv_page *page = kv_page_alloc(p);
    while (!page && kv_evict(p)) page = kv_page_alloc(p);
    if (!page) return err_memory(e, "a KV page", p->page_bytes);
    *page = (kv_page){.users = 1, .slab = page->slab};
    /* Cleared: a page may be saved before it is full, and integer products go over slots that nothing was written into,
     * 0 times. */
    memset((char *)page + KV_HEADER, 0, p->page_bytes - KV_HEADER);
    p->counts.in_use++;
    *out = page;
    return MINIM_OK;
}

/* One more table holds a page. */
void kv_hold(kv_pool *p, kv_page *page) {
    if (page->users++) return;
    p->counts.in_use++;
    p->counts.cached--;
    kv_page_held(p, page);
}

/* A table lets go of a page. What nobody holds goes back to its slab, and an empty slab to the allocator: memory
 * follows what is in use. */
void kv_give(kv_pool *p, kv_page *page) {
    if (--page->users) return;
    p->counts.in_use--;
    if (page->node) {
        p->counts.cached++;
        kv_page_loose(p, page);
    } else {
        kv_page_free(p, page);
    }
}

/* *page becomes a page of its own with the same content, if it is not one already. */
static minim_status kv_own(kv_pool *p, kv_page **page, minim_error *e) {
    kv_page *copy = NULL;
    if ((*page)->users == 1 && !(*page)->node) return MINIM_OK;
    minim_status status = kv_take(p, &copy, e);
    if (status)
        return (*page)->users == 1 && !(*page)->node ? err_ok(e) : status; /* the index may have lost it by now */
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
    if (!t->n) t->foreign = 0;
    kv_table_place(p, t, t->node, keep);
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
    kv_trim(p); /* a page that was copied may be nobody's now */
    return status;
}

void kv_shrink(kv_pool *p, kv_table *t, size_t n_tokens) {
    kv_cut(p, t, kv_pages_for(p, n_tokens));
    kv_table_place(p, t, t->node, n_tokens / (size_t)p->shape.page_size);
    kv_trim(p);
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
    kv_trim(p);
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
        if (to->page[i]) kv_hold(p, to->page[i]);
    }
    to->n = from->n, to->dropped = from->dropped, to->foreign = from->foreign;
    kv_table_place(p, to, from->node, SIZE_MAX);
    return MINIM_OK;
}

void kv_table_free(kv_pool *p, kv_table *t) {
    kv_shrink(p, t, 0);
    mem_free(&p->allocator, t->page, t->capacity, sizeof *t->page);
    *t = (kv_table){0};
}
