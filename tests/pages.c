/* pages.c: see pages.h. */
#include "pages.h"

#include <stdio.h>
#include <stdlib.h>

#include "../engine/engine.h"
#include "../engine/kv_impl.h"

static int pages_compare(const void *a, const void *b) {
    const kv_page *x = *(kv_page *const *)a, *y = *(kv_page *const *)b;
    return x < y ? -1 : x > y;
}

static int pages_listed(const kv_pool *p, const kv_list *list, const kv_node *node) {
    const kv_node *at = list->oldest;
    while (at && at != node) at = list == &p->leaves ? at->leaf.newer : at->window.newer;
    return at == node;
}

/* The prefix index: what it holds alone is what the pool counts; nodes know who holds them, and what can be evicted is
 * in the lists. */
static const char *pages_of_index(const kv_pool *p) {
    uint64_t cached = 0;
    size_t n_nodes = 0;
    for (size_t b = 0; b < p->n_buckets; b++) {
        for (const kv_node *node = p->bucket[b]; node; node = node->next, n_nodes++) {
            const kv_page *first = p->kept < p->together ? node->page[p->kept] : NULL;
            for (size_t i = 0; i < p->together; i++) {
                if (!node->page[i] && i < p->kept) return "a page that is kept is missing";
                if (i > p->kept && !node->page[i] != !first) return "pages of windowed layers are there in part";
                if (!node->page[i]) continue;
                if (node->page[i]->node != node) return "a page does not know its node";
                cached += !node->page[i]->users;
            }
            if (pages_listed(p, &p->leaves, node) != !node->holders) return "a node is listed, or not, but is not free";
            if (pages_listed(p, &p->windows, node) != (first && !first->users)) return "a window is listed wrongly";
            if (node->depth != (node->parent ? node->parent->depth + 1 : 1)) return "a node has the wrong depth";
        }
    }
    if (cached != p->counts.cached) return "the pool counts cached pages wrongly";
    if (cached > p->cache_limit) return "more pages are cached than allowed";
    return n_nodes == p->n_nodes ? NULL : "the pool counts nodes wrongly";
}

static const char *pages_count(minim_engine *engine, kv_page **held, size_t n_held) {
    static char text[128];
    uint64_t distinct = 0;
    qsort(held, n_held, sizeof *held, pages_compare);
    for (size_t i = 0, same; i < n_held; i += same, distinct++) {
        for (same = 1; i + same < n_held && held[i + same] == held[i];) same++;
        if (held[i]->users != same) {
            snprintf(text, sizeof text, "a page of %zu sequences counts %u", same, held[i]->users);
            return text;
        }
    }
    minim_engine_info info = {.size = sizeof info};
    minim_engine_get_info(engine, &info);
    const char *wrong = pages_of_index(engine->kv);
    if (wrong) return wrong;
    if (info.pages_in_use != distinct || info.pages_allocated < distinct || info.pages_allocated > info.page_limit) {
        snprintf(text, sizeof text, "%zu pages are held, the pool counts %zu of %zu (%zu allowed)", (size_t)distinct,
                 (size_t)info.pages_in_use, (size_t)info.pages_allocated, (size_t)info.page_limit);
        return text;
    }
    return NULL;
}

const char *pages_wrong(minim_engine *engine, minim_seq *const *seqs, size_t n) {
    size_t together = engine->kv->together, most = 1, n_held = 0;
    for (size_t i = 0; i < n; i++) most += seqs[i]->pages.n * together;
    kv_page **held = malloc(most * sizeof(kv_page *));
    if (!held) return "out of memory";
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < seqs[i]->pages.n * together; k++) {
            if (seqs[i]->pages.page[k]) held[n_held++] = seqs[i]->pages.page[k];
        }
    }
    const char *wrong = pages_count(engine, held, n_held);
    free(held);
    return wrong;
}
