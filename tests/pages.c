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
