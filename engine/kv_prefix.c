/* kv_prefix.c: the prefix index: full pages are found again by the tokens they hold, so that a sequence that begins
 * like another one, running or gone, starts with its pages.
 *
 * A node stands for the page_size tokens of a page behind those of its parent, so a path from the root is a beginning
 * of some sequence. A node is looked up by its parent and its tokens; a hash over all tokens up to it finds the bucket,
 * and parent and tokens are compared, so a collision costs time and nothing else.
 *
 * Tables hold the node of their last full page, and nodes their parent. What nobody holds can be evicted, least
 * recently used first, when the pool needs the memory: so a path is forgotten from its end. Windowed layers need the
 * last pages of a path only; theirs can be evicted on their own, and a path is of use down to where they are complete.
 */
#include <string.h>

#include "kv_impl.h"

/* ---- the lists of what can be evicted -----------------------------------------------------------------------------
 */

static kv_link *kv_link_of(const kv_pool *p, const kv_list *list, kv_node *node) {
    return list == &p->leaves ? &node->leaf : &node->window;
}

/* Puts a node where its time of use belongs. Most are the newest; a parent whose last child was evicted is among the
 * oldest. */
static void kv_list_add(kv_pool *p, kv_list *list, kv_node *node) {
    kv_link *link = kv_link_of(p, list, node);
    kv_node *newer = NULL;
    if (link->listed) return;
    if (list->newest && kv_link_of(p, list, list->newest)->used > link->used) {
        newer = list->oldest;
        while (kv_link_of(p, list, newer)->used <= link->used) newer = kv_link_of(p, list, newer)->newer;
    }
    kv_node *older = newer ? kv_link_of(p, list, newer)->older : list->newest;
    link->older = older, link->newer = newer, link->listed = 1;
    *(older ? &kv_link_of(p, list, older)->newer : &list->oldest) = node;
    *(newer ? &kv_link_of(p, list, newer)->older : &list->newest) = node;
}

static void kv_list_remove(kv_pool *p, kv_list *list, kv_node *node) {
    kv_link *link = kv_link_of(p, list, node);
    if (!link->listed) return;
    *(link->older ? &kv_link_of(p, list, link->older)->newer : &list->oldest) = link->newer;
    *(link->newer ? &kv_link_of(p, list, link->newer)->older : &list->newest) = link->older;
    link->listed = 0;
}

/* Pages of windowed layers come and go together: the first stands for all. */
static int kv_is_window(const kv_pool *p, const kv_page *page) {
    return p->kept < p->together && page->node->page[p->kept] == page;
}

void kv_page_loose(kv_pool *p, kv_page *page) {
    if (!kv_is_window(p, page)) return;
    page->node->window.used = ++p->clock;
    kv_list_add(p, &p->windows, page->node);
}

void kv_page_held(kv_pool *p, kv_page *page) {
    if (kv_is_window(p, page)) kv_list_remove(p, &p->windows, page->node);
}

/* ---- nodes --------------------------------------------------------------------------------------------------------
 */

static size_t kv_node_bytes(const kv_pool *p) {
    return sizeof(kv_node) + p->together * sizeof(kv_page *) + (size_t)p->shape.page_size * sizeof(int32_t);
}

static void kv_node_hold(kv_pool *p, kv_node *node) {
    if (!node->holders++) kv_list_remove(p, &p->leaves, node);
}

static void kv_node_give(kv_pool *p, kv_node *node) {
    if (!--node->holders) kv_list_add(p, &p->leaves, node);
}

/* The index forgets the pages [first, together) of a node. */
static void kv_node_drop(kv_pool *p, kv_node *node, size_t first) {
    for (size_t i = first; i < p->together; i++) {
        kv_page *page = node->page[i];
        if (!page) continue;
        node->page[i] = NULL;
        page->node = NULL;
        if (page->users) continue;
        p->counts.cached--;
        p->counts.evicted++;
        kv_page_free(p, page);
    }
    kv_list_remove(p, &p->windows, node);
}

static void kv_node_free(kv_pool *p, kv_node *node) {
    kv_node **link = &p->bucket[node->hash & (p->n_buckets - 1)];
    while (*link != node) link = &(*link)->next;
    *link = node->next;
    p->n_nodes--;
    kv_node_drop(p, node, 0);
    kv_list_remove(p, &p->leaves, node);
    if (node->parent) kv_node_give(p, node->parent);
    mem_free(&p->allocator, node, 1, kv_node_bytes(p));
}

int kv_evict(kv_pool *p) {
    kv_node *leaf = p->leaves.oldest, *window = p->windows.oldest;
    if (!leaf && !window) return 0;
    if (leaf && (!window || leaf->leaf.used <= window->window.used))
        kv_node_free(p, leaf);
    else
        kv_node_drop(p, window, p->kept);
    return 1;
}

void kv_trim(kv_pool *p) {
    while (p->counts.cached > p->cache_limit && kv_evict(p)) {
    }
}

void kv_prefix_free(kv_pool *p) {
    while (p->leaves.oldest) kv_node_free(p, p->leaves.oldest);
    mem_free(&p->allocator, p->bucket, p->n_buckets, sizeof(kv_node *));
}

/* ---- finding and adding -------------------------------------------------------------------------------------------
 */

static uint64_t kv_hash(const kv_pool *p, const kv_node *parent, const int32_t *tokens) {
    uint64_t h = parent ? parent->hash : 0x9e3779b97f4a7c15u;
    for (int i = 0; i < p->shape.page_size; i++) {
        h = (h ^ (uint32_t)tokens[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h & p->hash_mask;
}

static kv_node *kv_find(const kv_pool *p, const kv_node *parent, const int32_t *tokens) {
    const uint64_t hash = kv_hash(p, parent, tokens);
    kv_node *node = p->n_buckets ? p->bucket[hash & (p->n_buckets - 1)] : NULL;
    while (node && (node->hash != hash || node->parent != parent ||
                    memcmp(node->tokens, tokens, (size_t)p->shape.page_size * sizeof *tokens) != 0)) {
        node = node->next;
    }
    return node;
}

/* As many buckets as nodes, at least. Without memory the old ones go on serving. */
static void kv_grow(kv_pool *p) {
    const size_t n = p->n_buckets ? p->n_buckets * 2 : 64;
    if (p->n_nodes < p->n_buckets) return;
    kv_node **bucket = mem_zalloc(&p->allocator, n, sizeof(kv_node *));
    if (!bucket) return;
    for (size_t i = 0; i < p->n_buckets; i++) {
        for (kv_node *node = p->bucket[i], *next; node; node = next) {
            next = node->next;
            node->next = bucket[node->hash & (n - 1)];
            bucket[node->hash & (n - 1)] = node;
        }
    }
    mem_free(&p->allocator, p->bucket, p->n_buckets, sizeof(kv_node *));
    p->bucket = bucket, p->n_buckets = n;
}

static kv_node *kv_node_new(kv_pool *p, kv_node *parent, const int32_t *tokens) {
    kv_grow(p);
    kv_node *node = p->n_buckets ? mem_zalloc(&p->allocator, 1, kv_node_bytes(p)) : NULL;
    if (!node) return NULL;
    node->tokens = (int32_t *)(void *)(node->page + p->together);
    memcpy(node->tokens, tokens, (size_t)p->shape.page_size * sizeof *tokens);
    node->parent = parent;
    node->depth = parent ? parent->depth + 1 : 1;
    node->hash = kv_hash(p, parent, tokens);
    kv_node **bucket = &p->bucket[node->hash & (p->n_buckets - 1)];
    node->next = *bucket;
    *bucket = node;
    if (parent) kv_node_hold(p, parent);
    p->n_nodes++;
    return node;
}

void kv_table_place(kv_pool *p, kv_table *t, kv_node *node, size_t depth) {
    kv_node *before = t->node;
    while (node && node->depth > depth) node = node->parent;
    if (node == before) return;
    if (node) kv_node_hold(p, node);
    t->node = node;
    p->clock++;
    for (kv_node *used = before; used; used = used->parent) used->leaf.used = p->clock;
    if (before) kv_node_give(p, before);
}

/* A table's pages and those of a node hold the same numbers: the table takes the node's, and the node what it lacks. */
static void kv_adopt(kv_pool *p, kv_page **page, kv_node *node) {
    for (size_t i = 0; i < p->together; i++) {
        if (!page[i] || page[i] == node->page[i]) continue;
        if (node->page[i]) {
            kv_page *own = page[i];
            page[i] = node->page[i];
            kv_hold(p, page[i]);
            kv_give(p, own);
        } else if (!page[i]->node) {
            node->page[i] = page[i];
            page[i]->node = node;
        }
    }
}

void kv_index(kv_pool *p, kv_table *t, const int32_t *tokens, size_t n_tokens) {
    const size_t size = (size_t)p->shape.page_size, full = n_tokens / size;
    if (!p->cache_limit || t->foreign) return;
    for (size_t i = t->node ? t->node->depth : 0; i < full; i++) {
        kv_node *node = kv_find(p, t->node, tokens + i * size);
        if (!node) node = kv_node_new(p, t->node, tokens + i * size);
        if (!node) return; /* no memory: it can not be found, and nothing else */
        kv_adopt(p, t->page + i * p->together, node);
        kv_table_place(p, t, node, node->depth);
    }
}

/* Pages of tokens of windowed layers that a sequence of `depth` pages needs to go on. */
static size_t kv_window_pages(const kv_pool *p, size_t depth) {
    const size_t size = (size_t)p->shape.page_size, window = (size_t)p->shape.n_window, end = depth * size;
    return depth - (end >= window ? (end + 1 - window) / size : 0);
}

minim_status kv_match(kv_pool *p, kv_table *t, const int32_t *tokens, size_t n_tokens, size_t *n_found,
                      minim_error *e) {
    const size_t size = (size_t)p->shape.page_size;
    kv_node *best = NULL, *node = NULL;
    size_t complete = 0, windows = 0; /* pages in a row, up to here, that windowed layers have */
    *n_found = 0;
    if (!p->cache_limit) return MINIM_OK;
    p->counts.asked += n_tokens;
    for (size_t i = 0; (i + 1) * size <= n_tokens && (node = kv_find(p, node, tokens + i * size)); i++) {
        complete = p->kept == p->together || node->page[p->kept] ? complete + 1 : 0;
        if (complete >= kv_window_pages(p, node->depth)) best = node, windows = complete;
    }
    if (!best) return MINIM_OK;
    const size_t n = best->depth * p->together;
    if (mem_grow(&p->allocator, &t->page, &t->capacity, n, sizeof *t->page))
        return err_memory(e, "a page table", n * sizeof *t->page);
    /* One page of windowed layers more than needed, so that the sequence can lose a few tokens. */
    if (windows > kv_window_pages(p, best->depth) + 1) windows = kv_window_pages(p, best->depth) + 1;
    t->n = best->depth;
    t->dropped = p->kept == p->together ? 0 : best->depth - windows;
    for (node = best; node; node = node->parent) {
        kv_page **page = t->page + (node->depth - 1) * p->together;
        for (size_t i = 0; i < p->together; i++) {
            page[i] = i < p->kept || node->depth > t->dropped ? node->page[i] : NULL;
            if (page[i]) kv_hold(p, page[i]);
        }
    }
    kv_table_place(p, t, best, best->depth);
    *n_found = best->depth * size;
    p->counts.found += *n_found;
    return MINIM_OK;
}
