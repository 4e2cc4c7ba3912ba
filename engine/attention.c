/* attention.c: softmax(scale * q K^T) V over the paged cache. A query sees the keys up to its own position; in a
 * windowed layer only the last of them.
 *
 * The keys of a sequence are cut into ranges of ENGINE_RANGE at fixed positions. Within a range: all scores, their
 * maximum m, p = exp(score - m), sum l of p, o = p V. Ranges are joined in ascending order (online softmax). So the
 * bits of a row depend on its position only: not on pages, batch, threads, nor on whether ranges ran side by side.
 * Ranges that lie before the window are left out.
 *
 * The query heads that share a key-value head, and neighbouring tokens, form a tile of up to ENGINE_TILE rows, so that
 * K and V are read from memory once for all of them. Rows of a tile: [token][head of the group]. It goes through a
 * range in blocks of ENGINE_BLOCK rows, whose scores stay in the first-level cache from one pass to the next.
 *
 * With a Q8 or Q4 cache q is rounded to int8 too, a scale for each row, and so are p times the scales of the values, a
 * scale for KERN_WEIGHTS keys at fixed positions (weights_q8): both products are sums of integers, exact in any order.
 * Q4 becomes Q8's codes once for a tile and range.
 */
#include <math.h>
#include <string.h>

#include "engine.h"

typedef struct attention_job {
    minim_engine *e;
    int n_tiles, n_ranges; /* n_ranges: of the longest tile; 0 = a work item does all ranges of its tile */
    int slot, window;      /* the layer's place in the cache; tokens a query sees in it, 0 = all */
    int stride;            /* ranges from one to that which the same thread is likely to take next */
} attention_job;

/* One softmax range of all rows of a tile. */
typedef struct attention_part {
    float *max, *sum; /* [rows] */
    float *o;         /* [rows][head_dim] */
} attention_part;

static int attention_group(const model_shape *s) {
    return s->n_heads / s->n_kv_heads;
}

/* Tokens of so many query rows; at least one. */
static int attention_tokens(const model_shape *s, int rows) {
    int tokens = rows / attention_group(s);
    return tokens < 1 ? 1 : tokens;
}

static size_t attention_rows(const model_shape *s, int rows) {
    return (size_t)attention_tokens(s, rows) * (size_t)attention_group(s);
}

static attention_part attention_part_at(float *memory, size_t rows) {
    return (attention_part){memory, memory + rows, memory + 2 * rows};
}

int attention_make_tiles(const minim_engine *e, const step_row *rows, int n) {
    attention_tile *tiles = e->scratch.tiles;
    int n_tiles = 0, most = attention_tokens(&e->model->shape, ENGINE_TILE);
    for (int i = 0; i < n; i++) {
        attention_tile *last = n_tiles ? &tiles[n_tiles - 1] : NULL;
        if (last && last->seq == rows[i].seq && last->position + last->n_tokens == rows[i].position &&
            last->n_tokens < most) {
            last->n_tokens++;
        } else {
            tiles[n_tiles++] = (attention_tile){rows[i].seq, i, 1, rows[i].position};
        }
    }
    return n_tiles;
}

/* Keys [first, end) of a range that a token sees, counted from the start of the range; none: first >= end. */
static kern_view attention_visible(const attention_job *j, const attention_tile *tile, int t, int range) {
    int start = range * ENGINE_RANGE, position = tile->position + t;
    int end = position + 1 - start,
        first = j->window > 0 && position >= j->window ? position + 1 - j->window - start : 0;
    return (kern_view){first < 0              ? 0
                       : first > ENGINE_RANGE ? ENGINE_RANGE
                                              : first,
                       end > ENGINE_RANGE ? ENGINE_RANGE : end};
}

static int attention_same(kern_view a, kern_view b) {
    return a.first == b.first && a.end == b.end;
}

/* The ranges that some token of the tile sees. */
static int attention_first_range(const attention_job *j, const attention_tile *tile, int t) {
    int position = tile->position + t;
    return j->window > 0 && position >= j->window ? (position + 1 - j->window) / ENGINE_RANGE : 0;
}

static int attention_last_range(const attention_tile *tile) {
    return (tile->position + tile->n_tokens - 1) / ENGINE_RANGE;
}

static int attention_tile_ranges(const attention_job *j, const attention_tile *tile) {
    return attention_last_range(tile) - attention_first_range(j, tile, 0) + 1;
}

/* What a worker works with. Q8 has codes in place of q, and beside p. */
typedef struct attention_scratch {
    attention_part all, next; /* of a tile; of a block in one range */
    float *q;                 /* [rows of a tile][head_dim] */
    float *q_scale;           /* [rows of a tile] */
    float *scores;            /* [rows of a block][ENGINE_RANGE] */
    float *p_scale;           /* [blocks of a range][rows of a block] */
    kern_view *seen;          /* [rows of a block] */
    int8_t *q_codes;          /* [rows of a tile][head_dim, rounded up to groups of 8] */
    int8_t *p_codes;          /* [rows of a block][ENGINE_RANGE] */
    int8_t *keys, *values;    /* [pages of a range], unpacked from 4 bits */
} attention_scratch;

enum { ATTENTION_BLOCKS = ENGINE_RANGE / KERN_WEIGHTS };

static size_t attention_padded(const model_shape *s) {
    return ((size_t)s->head_dim + 7) / 8 * 8;
}

/* Its layout, in *w when there is one; returns floats. What only floats need and what only integers need share a place.
 */
static size_t attention_layout(const model_shape *s, float *memory, attention_scratch *w) {
    size_t rows = attention_rows(s, ENGINE_TILE), block = attention_rows(s, ENGINE_BLOCK), dim = (size_t)s->head_dim;
    size_t all = 0, next = all + rows * (dim + 2), scores = next + block * (dim + 2), q = scores + block * ENGINE_RANGE;
    size_t p_scale = scores, seen = p_scale + block * ATTENTION_BLOCKS, q_scale = seen + 2 * block;
    size_t q_codes = q_scale + rows, p_codes = q_codes + rows * attention_padded(s) / 4;
    size_t keys = p_codes + block * ENGINE_RANGE / 4, values = keys + ENGINE_RANGE * attention_padded(s) / 4;
    size_t end = values + ENGINE_RANGE * dim / 4 + 1;
    if (end < q + rows * dim) end = q + rows * dim;
    if (w) {
        *w = (attention_scratch){.all = attention_part_at(memory + all, rows),
                                 .next = attention_part_at(memory + next, block),
                                 .q = memory + q,
                                 .q_scale = memory + q_scale,
                                 .scores = memory + scores,
                                 .p_scale = memory + p_scale,
                                 .seen = (kern_view *)(void *)(memory + seen),
                                 .q_codes = (int8_t *)(void *)(memory + q_codes),
                                 .p_codes = (int8_t *)(void *)(memory + p_codes),
                                 .keys = (int8_t *)(void *)(memory + keys),
                                 .values = (int8_t *)(void *)(memory + values)};
    }
    return (end + 15) / 16 * 16;
}

size_t attention_worker_floats(const model_shape *s) {
    return attention_layout(s, NULL, NULL);
}

enum { ATTENTION_PAGES = ENGINE_RANGE / 16 }; /* of a range, at most */

/* K or V of one head in a range, page by page. Of those that no token of the tile sees, which may be gone, another one
 * stands in the place. */
typedef struct attention_pages {
    void *at[ATTENTION_PAGES];
    int first, n; /* the pages that are seen */
} attention_pages;

/* A block of rows in one range, with one key-value head. */
typedef struct attention_block {
    const attention_job *j;
    attention_tile rows; /* the block as a tile of its own */
    int row;             /* its first in the whole tile */
    int range, head;
    const attention_scratch *w;
    attention_part part;
    attention_pages keys, values;
    /* What keys and values are with Q8, and what is unpacked with Q4 */
    const int8_t *key_codes[ATTENTION_PAGES], *value_codes[ATTENTION_PAGES];
    const float *key_scales[ATTENTION_PAGES], *value_levels[ATTENTION_PAGES];
    int asks;                  /* 1: a product of floats asks for what is read next while it computes */
    attention_pages next_keys; /* of the range that this thread is likely to take next, or none */
} attention_block;

/* This page of the range, or the nearest that is seen. */
static int attention_seen(const attention_pages *p, int page) {
    return page < p->first ? p->first : page >= p->first + p->n ? p->first + p->n - 1 : page;
}

static attention_pages attention_find(const attention_job *j, const attention_tile *tile, int head, int range,
                                      int is_value) {
    const kv_pool *kv = j->e->kv;
    const int size = j->e->page_size, n = ENGINE_RANGE / size, slot = j->slot;
    const int first = attention_visible(j, tile, 0, range).first / size;
    const int last = (attention_visible(j, tile, tile->n_tokens - 1, range).end - 1) / size;
    attention_pages pages = {.first = first, .n = last - first + 1};
    for (int i = 0; i < n; i++) {
        const size_t index = (size_t)range * (size_t)n + (size_t)attention_seen(&pages, i);
        const kv_page *page = kv_page_at(kv, &tile->seq->pages, index, slot);
        pages.at[i] = is_value ? kv_values(kv, page, slot, head) : kv_keys(kv, page, slot, head);
    }
    return pages;
}

static void attention_find_codes(attention_block *b) {
    const kv_pool *kv = b->j->e->kv;
    const int size = b->j->e->page_size;
    const size_t dim = (size_t)b->j->e->model->shape.head_dim;
    for (int i = 0; i < ENGINE_RANGE / size; i++) {
        const size_t key = (size_t)attention_seen(&b->keys, i) * (size_t)size;
        b->key_codes[i] = kv_is_packed(kv, 0) ? b->w->keys + key * kv_key_dims(kv) : b->keys.at[i];
        b->value_codes[i] = kv_is_packed(kv, 1) ? b->w->values + key * dim : b->values.at[i];
        b->key_scales[i] = kv_scales(kv, b->keys.at[i], 0);
        b->value_levels[i] = kv_scales(kv, b->values.at[i], 1);
    }
}

/* Keys and values are waited for more than computed with when a tile has few tokens, and a little even when it is
 * full. */
static void attention_ask(attention_block *b, const attention_tile *tile) {
    const attention_job *j = b->j;
    int range = b->range + j->stride, head = b->head;
    b->asks = 1;
    if (range > attention_last_range(tile) && j->n_ranges) range -= attention_tile_ranges(j, tile), head++;
    if (range <= attention_last_range(tile) && head < j->e->model->shape.n_kv_heads)
        b->next_keys = attention_find(j, tile, head, range, 0);
}

/* The same for integers, which are computed with so soon that asking for all of it takes more time than it saves: only
 * what lies apart, the scales. */
static void attention_ask_scales(const attention_block *b, const attention_tile *tile) {
    const attention_job *j = b->j;
    const size_t bytes = (size_t)j->e->page_size * sizeof(float);
    if (b->range + j->stride > attention_last_range(tile)) return;
    for (int value = 0; value < 2; value++) {
        const attention_pages next = attention_find(j, tile, b->head, b->range + j->stride, value);
        for (int i = next.first; i < next.first + next.n; i++) {
            const char *scales = (const char *)kv_scales(j->e->kv, next.at[i], value);
            for (size_t at = 0; at < bytes; at += KERN_LINE) __builtin_prefetch(scales + at, 0, 3);
        }
    }
}

/* What the i-th of the range's products asks for: of each quarter of all pages the i-th piece, where a page has as many
 * pieces as there are quarters. NULL: nothing. */
static const kern_ahead *attention_ahead(const attention_block *b, const attention_pages *pages, int is_value, int i,
                                         kern_ahead *out) {
    const size_t bytes = kv_page_head_bytes(b->j->e->kv, is_value) / KERN_AHEAD;
    if (!b->asks || i >= pages->n) return NULL;
    for (int k = 0; k < KERN_AHEAD; k++) {
        const int piece = k * pages->n + i;
        out->at[k] = (char *)pages->at[pages->first + piece / KERN_AHEAD] + (size_t)(piece % KERN_AHEAD) * bytes;
    }
    out->lines = (int64_t)(bytes / KERN_LINE);
    return out;
}

/* Scores of all keys that some row of the block sees, for all its rows. Those that a row does not see are not used. */
static void attention_scores(const attention_block *b) {
    const minim_engine *e = b->j->e;
    const model_shape *s = &e->model->shape;
    int64_t n = (int64_t)b->rows.n_tokens * attention_group(s), dim = s->head_dim;
    int size = e->page_size, first = attention_visible(b->j, &b->rows, 0, b->range).first, key = first;
    int end = attention_visible(b->j, &b->rows, b->rows.n_tokens - 1, b->range).end;
    enum kern_kv type = kv_type(e->kv);
    for (int next; key < end; key = next) {
        kern_ahead memory;
        int page = key / size, slot = key % size;
        next = key - slot + size < end ? key - slot + size : end;
        e->kern.qk[type](b->w->q + b->row * dim, dim, n, (char *)b->keys.at[page] + (size_t)slot * kv_element(type),
                         size, next - key, dim, s->attn_scale, b->w->scores + key, ENGINE_RANGE,
                         attention_ahead(b, &b->values, 1, page - first / size, &memory));
    }
}

/* p, maximum and sum of every row, those at once that see the same; one that sees nothing of the range gets sum 0. */
static void attention_softmax(const attention_block *b) {
    const minim_engine *e = b->j->e;
    const float cap = e->model->shape.attn_softcap;
    int group = attention_group(&e->model->shape);
    for (int t = 0, next; t < b->rows.n_tokens; t = next) {
        kern_view view = attention_visible(b->j, &b->rows, t, b->range);
        next = t + 1;
        while (next < b->rows.n_tokens && attention_same(view, attention_visible(b->j, &b->rows, next, b->range)))
            next++;
        float *scores = b->w->scores + (size_t)(t * group) * ENGINE_RANGE + view.first;
        int n = view.end - view.first, rows = (next - t) * group;
        for (int r = 0; r < rows; r++) {
            b->part.max[t * group + r] = -INFINITY, b->part.sum[t * group + r] = 0;
            if (n > 0 && cap > 0) e->kern.softcap(scores + (size_t)r * ENGINE_RANGE, n, cap);
        }
        if (n > 0)
            e->kern.softmax_part(scores, ENGINE_RANGE, rows, n, b->part.max + t * group, b->part.sum + t * group);
    }
}

/* o += p V for the keys [key, end) of one page and the tokens [token, token + n). */
static void attention_add_values(const attention_block *b, int key, int end, int token, int n,
                                 const kern_ahead *ahead) {
    const minim_engine *e = b->j->e;
    int64_t dim = e->model->shape.head_dim, group = attention_group(&e->model->shape), row = token * group;
    enum kern_kv type = kv_type(e->kv);
    const char *values = b->values.at[key / e->page_size];
    e->kern.pv[type](b->w->scores + row * ENGINE_RANGE + key, ENGINE_RANGE, n * group,
                     values + (size_t)(key % e->page_size * dim) * kv_element(type), end - key, dim,
                     b->part.o + row * dim, dim, ahead);
}

/* The same for keys that not all tokens see, one by one: a value that is not a number must not touch who cannot see it.
 */
static void attention_add_edge(const attention_block *b, int from, int to) {
    for (int t = 0; t < b->rows.n_tokens; t++) {
        kern_view view = attention_visible(b->j, &b->rows, t, b->range);
        int key = view.first > from ? view.first : from, end = view.end < to ? view.end : to;
        if (key < end) attention_add_values(b, key, end, t, 1, NULL);
    }
}

/* o = p V, page by page, keys ascending for each row: along the edge of the window, where all rows see the keys, and
 * along the causal edge. */
static void attention_values(const attention_block *b) {
    const minim_engine *e = b->j->e;
    const model_shape *s = &e->model->shape;
    int n = b->rows.n_tokens, size = e->page_size;
    kern_view oldest = attention_visible(b->j, &b->rows, 0, b->range);
    kern_view newest = attention_visible(b->j, &b->rows, n - 1, b->range);
    memset(b->part.o, 0, (size_t)(n * attention_group(s) * s->head_dim) * sizeof *b->part.o);
    for (int begin = oldest.first / size * size, i = 0; begin < newest.end; begin += size, i++) {
        kern_ahead memory;
        int stop = begin + size;
        int first = newest.first > begin ? newest.first : begin, end = oldest.end < stop ? oldest.end : stop;
        if (first >= end) { /* nothing is seen by all */
            attention_add_edge(b, begin, stop);
            continue;
        }
        if (oldest.first < first) attention_add_edge(b, begin, first);
        attention_add_values(b, first, end, 0, n, attention_ahead(b, &b->next_keys, 0, i, &memory));
        if (end < stop) attention_add_edge(b, end, stop);
    }
}

/* All of the above with integers. What a row does not see has p = 0. */
static void attention_integers(const attention_block *b) {
    const minim_engine *e = b->j->e;
    const model_shape *s = &e->model->shape;
    const attention_scratch *w = b->w;
    const int n = b->rows.n_tokens, group = attention_group(s), rows = n * group;
    const int64_t padded = (int64_t)attention_padded(s);
    for (int t = 0, r = 0; t < n; t++) {
        const kern_view view = attention_visible(b->j, &b->rows, t, b->range);
        for (const int next = r + group; r < next; r++) w->seen[r] = view;
    }
    const kern_look look = {.q = w->q_codes + b->row * padded,
                            .q_scale = w->q_scale + b->row,
                            .seen = w->seen,
                            .rows = rows,
                            .ldq = padded,
                            .n_groups = (s->head_dim + 3) / 4,
                            .k = b->key_codes,
                            .k_scale = b->key_scales,
                            .v_level = b->value_levels,
                            .page_keys = e->page_size,
                            .cap = s->attn_softcap};
    const int first = w->seen[0].first / KERN_WEIGHTS, end = (w->seen[rows - 1].end + KERN_WEIGHTS - 1) / KERN_WEIGHTS;
    e->kern.weights_q8(&look, w->p_codes, ENGINE_RANGE, w->p_scale, rows, b->part.max, b->part.sum);
    e->kern.pv_q8(w->p_codes, ENGINE_RANGE, w->p_scale, rows, rows, b->value_codes, e->page_size, first, end,
                  s->head_dim, b->part.o, s->head_dim);
}

/* What has 4 bits, of all keys and values of a range that the tile sees. */
static void attention_unpack(const attention_block *b) {
    const minim_engine *e = b->j->e;
    const size_t size = (size_t)e->page_size, dim = (size_t)e->model->shape.head_dim;
    for (int i = b->keys.first; i < b->keys.first + b->keys.n; i++) {
        const size_t key = (size_t)i * size;
        if (kv_is_packed(e->kv, 0))
            kv_unpack_keys(e->kv, &e->kern, b->keys.at[i], b->w->keys + key * kv_key_dims(e->kv));
        if (kv_is_packed(e->kv, 1)) kv_unpack_values(e->kv, &e->kern, b->values.at[i], b->w->values + key * dim);
    }
}

/* Few rows of integers are computed with so soon that a range is read beforehand, all its pages in turns: the CPU's own
 * prefetchers go on with the others meanwhile, which they do not when lines are asked for (bench/NOTES.md). */
static void attention_read(const attention_block *b) {
    enum { TURN = 512 };
    const minim_engine *e = b->j->e;
    const size_t bytes[2] = {kv_page_head_bytes(e->kv, 0), kv_page_head_bytes(e->kv, 1)};
    for (size_t begin = 0; begin < bytes[0] || begin < bytes[1]; begin += TURN) {
        for (int page = b->keys.first; page < b->keys.first + b->keys.n; page++) {
            const volatile char *data[2] = {b->keys.at[page], b->values.at[page]};
            for (int value = 0; value < 2; value++)
                for (size_t i = begin; i < begin + TURN && i < bytes[value]; i += KERN_LINE) (void)data[value][i];
        }
    }
}

/* What a range is to a token */
enum attention_sees { ATTENTION_NOTHING, ATTENTION_FIRST, ATTENTION_MORE };

static enum attention_sees attention_look(const attention_job *j, const attention_tile *tile, int t, int range) {
    kern_view view = attention_visible(j, tile, t, range);
    return view.first >= view.end                       ? ATTENTION_NOTHING
           : attention_first_range(j, tile, t) == range ? ATTENTION_FIRST
                                                        : ATTENTION_MORE;
}

/* Adds a range to what the ranges before it gave: to nothing, where a row's window begins in it. */
static void attention_join(const attention_job *j, const attention_tile *tile, int range, attention_part all,
                           attention_part part) {
    int group = attention_group(&j->e->model->shape);
    int64_t dim = j->e->model->shape.head_dim;
    for (int t = 0, next; t < tile->n_tokens; t = next) {
        const enum attention_sees sees = attention_look(j, tile, t, range);
        next = t + 1;
        while (next < tile->n_tokens && attention_look(j, tile, next, range) == sees) next++;
        int r = t * group, rows = (next - t) * group;
        if (sees == ATTENTION_FIRST) {
            memcpy(all.max + r, part.max + r, (size_t)rows * sizeof *all.max);
            memcpy(all.sum + r, part.sum + r, (size_t)rows * sizeof *all.sum);
            memcpy(all.o + r * dim, part.o + r * dim, (size_t)(rows * dim) * sizeof *all.o);
        } else if (sees == ATTENTION_MORE) {
            j->e->kern.softmax_join(all.max + r, all.sum + r, all.o + r * dim, part.max + r, part.sum + r,
                                    part.o + r * dim, rows, dim);
        }
    }
}

/* One range of one tile; joins: it is added to what the ranges before it gave. */
static void attention_do_range(const attention_job *j, const attention_tile *tile, int head, int range,
                               const attention_scratch *w, attention_part all, int joins) {
    const model_shape *s = &j->e->model->shape;
    int block = attention_tokens(s, ENGINE_BLOCK), group = attention_group(s), dim = s->head_dim;
    attention_block b = {.j = j, .range = range, .head = head, .w = w};
    b.keys = attention_find(j, tile, head, range, 0), b.values = attention_find(j, tile, head, range, 1);
    const int integers = kv_type(j->e->kv) >= KERN_KV_FLOATS;
    if (!integers)
        attention_ask(&b, tile);
    else if (tile->n_tokens <= block)
        attention_read(&b);
    else
        attention_ask_scales(&b, tile);
    if (integers) attention_find_codes(&b), attention_unpack(&b);
    for (int t = 0; t < tile->n_tokens; t += block) {
        int n = tile->n_tokens - t < block ? tile->n_tokens - t : block;
        b.row = t * group;
        b.rows = (attention_tile){tile->seq, tile->first_row + t, n, tile->position + t};
        const attention_part mine = {all.max + b.row, all.sum + b.row, all.o + (size_t)b.row * (size_t)dim};
        b.part = joins ? w->next : mine;
        if (integers) {
            attention_integers(&b);
        } else {
            attention_scores(&b);
            attention_softmax(&b);
            attention_values(&b);
            b.asks = 0; /* the others find it in the cache */
        }
        if (joins) attention_join(j, &b.rows, range, mine, b.part);
    }
}

/* o / sum takes the place of the queries, which nobody needs any more: whoever computes this head and tile has copied
 * them. */
static void attention_finish(const minim_engine *e, const attention_tile *tile, int head, attention_part all) {
    const model_shape *s = &e->model->shape;
    int group = attention_group(s);
    for (int t = 0; t < tile->n_tokens; t++) {
        for (int g = 0; g < group; g++) {
            int r = t * group + g;
            float *out =
                e->scratch.q + ((int64_t)(tile->first_row + t) * s->n_heads + (int64_t)head * group + g) * s->head_dim;
            e->kern.scale(all.o + (int64_t)r * s->head_dim, 1.0f / all.sum[r], s->head_dim, out);
        }
    }
}

/* The query rows of a tile side by side, [token][head of the group][head_dim]; for Q8 and Q4 as codes. */
static void attention_gather(const minim_engine *e, const attention_tile *tile, int head, const attention_scratch *w) {
    const model_shape *s = &e->model->shape;
    const size_t dim = (size_t)s->head_dim, group = (size_t)attention_group(s), padded = attention_padded(s);
    for (int t = 0; t < tile->n_tokens; t++) {
        const float *from =
            e->scratch.q + ((size_t)(tile->first_row + t) * (size_t)s->n_heads + (size_t)head * group) * dim;
        if (kv_type(e->kv) < KERN_KV_FLOATS) memcpy(w->q + (size_t)t * group * dim, from, group * dim * sizeof *from);
        for (size_t r = (size_t)t * group; kv_type(e->kv) >= KERN_KV_FLOATS && r < ((size_t)t + 1) * group; r++) {
            int8_t *codes = w->q_codes + r * padded;
            for (size_t d = dim; d < padded; d++) codes[d] = 0;
            for (size_t d = 0; d < dim && t + 1 < tile->n_tokens; d += KERN_LINE / sizeof *from)
                __builtin_prefetch(from + (size_t)s->n_heads * dim + d, 0, 3); /* the next token's */
            e->kern.quantize_row(from, s->head_dim, codes, &w->q_scale[r]);
            w->q_scale[r] *= s->attn_scale;
            from += dim;
        }
    }
}

/* The part of one tile, head and range (counted from the tile's first) in the split form. */
static attention_part attention_partial(const attention_job *j, const attention_tile *tile, int head, int range) {
    const model_shape *s = &j->e->model->shape;
    size_t group = (size_t)attention_group(s), rows = (size_t)tile->n_tokens * group, ranges = (size_t)j->n_ranges;
    size_t index = (size_t)tile->first_row * (size_t)s->n_heads * ranges +
                   ((size_t)head * ranges + (size_t)range) * rows; /* in rows */
    return attention_part_at(j->e->scratch.partial + index * ((size_t)s->head_dim + 2), rows);
}

/* item = (tile * heads + head) * n_ranges + range, or head * tiles + tile when an item does all ranges: neighbouring
 * tiles of a long text find the keys and values of the head in a core's second-level cache. */
static void attention_task(void *arg, uint32_t item, int worker) {
    const attention_job *j = arg;
    minim_engine *e = j->e;
    const model_shape *s = &e->model->shape;
    int range = 0, head = (int)(item / (uint32_t)j->n_tiles);
    uint32_t index = item % (uint32_t)j->n_tiles;
    if (j->n_ranges) {
        range = (int)(item % (uint32_t)j->n_ranges), item /= (uint32_t)j->n_ranges;
        head = (int)(item % (uint32_t)s->n_kv_heads), index = item / (uint32_t)s->n_kv_heads;
    }
    const attention_tile *tile = &e->scratch.tiles[index];
    int n_ranges = attention_tile_ranges(j, tile), first = attention_first_range(j, tile, 0);
    if (range >= n_ranges) return;

    attention_scratch w;
    attention_layout(s, e->scratch.worker + (size_t)worker * e->scratch.worker_floats, &w);
    attention_gather(e, tile, head, &w);
    if (j->n_ranges) {
        attention_do_range(j, tile, head, first + range, &w, attention_partial(j, tile, head, range), 0);
        return;
    }
    for (range = 0; range < n_ranges; range++) attention_do_range(j, tile, head, first + range, &w, w.all, range > 0);
    attention_finish(e, tile, head, w.all);
}

/* Joins the ranges of one tile and head in the split form. */
static void attention_join_task(void *arg, uint32_t item, int worker) {
    (void)worker;
    const attention_job *j = arg;
    int head = (int)(item % (uint32_t)j->e->model->shape.n_kv_heads);
    const attention_tile *tile = &j->e->scratch.tiles[item / (uint32_t)j->e->model->shape.n_kv_heads];
    attention_part all = attention_partial(j, tile, head, 0);
    for (int range = 1; range < attention_tile_ranges(j, tile); range++) {
        attention_join(j, tile, attention_first_range(j, tile, 0) + range, all,
                       attention_partial(j, tile, head, range));
    }
    attention_finish(j->e, tile, head, all);
}

/* Every row sees at least its own key, which lies in its last range. */
void attention_run(minim_engine *e, int layer, int n_tiles, int n_rows) {
    enum { START = 64, SMALL = 128 * 1024 }; /* keys that cost what a row costs without any; multiply-adds of q and k */
    attention_job j = {.e = e, .n_tiles = n_tiles, .stride = 1};
    j.slot = e->model->layers[layer].kv_slot, j.window = e->model->layers[layer].n_window;
    uint32_t items = (uint32_t)n_tiles * (uint32_t)e->model->shape.n_kv_heads;
    int most = 1;
    int64_t work = 0; /* about how many keys all rows see, then the multiply-adds of q and k */
    for (int i = 0; i < n_tiles; i++) {
        const attention_tile *tile = &e->scratch.tiles[i];
        int ranges = attention_tile_ranges(&j, tile);
        if (ranges > most) most = ranges;
        work += (int64_t)tile->n_tokens * (START + ranges * KERN_RANGE / 2);
    }
    work *= e->model->shape.n_heads * e->model->shape.head_dim;
    if (engine_threads(e, work < SMALL) == 1) {
        pool_run_alone(attention_task, &j, items);
        return;
    }
    int split = n_rows <= ENGINE_SPLIT_ROWS && most > 1;
    if (!split) {
        pool_run(e->pool, attention_task, &j, items);
        return;
    }
    j.n_ranges = most, j.stride = pool_threads(e->pool);
    pool_run(e->pool, attention_task, &j, items * (uint32_t)most);
    pool_run(e->pool, attention_join_task, &j, items);
}

/* Memory for the split form of a step whose longest sequence has n_tokens tokens. */
minim_status attention_reserve(minim_engine *e, size_t n_tokens, minim_error *error) {
    size_t ranges = (n_tokens + ENGINE_RANGE - 1) / ENGINE_RANGE;
    if (pool_threads(e->pool) == 1 || ranges < 2) return MINIM_OK;
    const model_shape *s = &e->model->shape;
    size_t need = ENGINE_SPLIT_ROWS * (size_t)s->n_heads * ranges * ((size_t)s->head_dim + 2);
    if (mem_grow(&e->allocator, &e->scratch.partial, &e->scratch.partial_capacity, need, sizeof(float))) {
        return err_memory(error, "attention of a long sequence", need * sizeof(float));
    }
    return MINIM_OK;
}
