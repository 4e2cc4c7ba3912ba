/* attention.c: softmax(scale * q K^T) V over the paged cache. A query sees the keys up to its own position; in a
 * windowed layer only the last of them.
 *
 * The keys of a sequence are cut into ranges of ENGINE_RANGE at fixed positions. Within a range: all scores, their
 * maximum m, p = exp(score - m), sum l of p, o = p V. Ranges are joined in ascending order (online softmax). So the
 * bits of a row depend on its position only: not on pages, batch, threads, nor on whether ranges ran side by side.
 * Ranges that lie before the window are left out.
 *
 * The query heads that share a key-value head, and up to ENGINE_TILE neighbouring tokens, form a tile, so that K and V
 * are read once for all of them. Rows of a tile: [token][head of the group].
 */
#include <math.h>
#include <string.h>

#include "engine.h"

typedef struct attention_job {
    minim_engine *e;
    int n_tiles, n_ranges; /* n_ranges: of the longest tile; 0 = a work item does all ranges of its tile */
    int slot, window;      /* the layer's place in the cache; tokens a query sees in it, 0 = all */
} attention_job;

/* One softmax range of all rows of a tile. */
typedef struct attention_part {
    float *max, *sum; /* [rows] */
    float *o;         /* [rows][head_dim] */
} attention_part;

static int attention_group(const model_shape *s) {
    return s->n_heads / s->n_kv_heads;
}

static int attention_tile_tokens(const model_shape *s) {
    int tokens = ENGINE_TILE * 8 / attention_group(s);
    return tokens < 1 ? 1 : tokens > ENGINE_TILE ? ENGINE_TILE : tokens;
}

static size_t attention_tile_rows(const model_shape *s) {
    return (size_t)attention_tile_tokens(s) * (size_t)attention_group(s);
}

/* Scratch of a worker: q [rows][head_dim], scores [rows][ENGINE_RANGE], and two parts. */
size_t attention_worker_floats(const model_shape *s) {
    size_t rows = attention_tile_rows(s), dim = (size_t)s->head_dim;
    size_t floats = rows * dim + rows * ENGINE_RANGE + 2 * rows * (dim + 2);
    return (floats + 15) / 16 * 16;
}

static attention_part attention_part_at(float *memory, size_t rows) {
    return (attention_part){memory, memory + rows, memory + 2 * rows};
}

int attention_make_tiles(const minim_engine *e, const step_row *rows, int n) {
    attention_tile *tiles = e->scratch.tiles;
    int n_tiles = 0, most = attention_tile_tokens(&e->model->shape);
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
typedef struct attention_view {
    int first, end;
} attention_view;

static attention_view attention_visible(const attention_job *j, const attention_tile *tile, int t, int range) {
    int start = range * ENGINE_RANGE, position = tile->position + t;
    int end = position + 1 - start,
        first = j->window > 0 && position >= j->window ? position + 1 - j->window - start : 0;
    return (attention_view){first < 0              ? 0
                            : first > ENGINE_RANGE ? ENGINE_RANGE
                                                   : first,
                            end > ENGINE_RANGE ? ENGINE_RANGE : end};
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

/* What a tile does with the keys [first, first + n) of a page: with row0.. for n_rows rows. `score` is the column in
 * the range. */
typedef struct attention_span {
    const kv_page *page;
    int slot, score, n; /* first key in the page, first key in the range, keys */
    int row, n_rows;
} attention_span;

typedef void attention_use(void *arg, const attention_span *span);

/* The keys [from, to) of a page that begins at key `begin` of its range, for the tokens that see them, one by one. */
static void attention_edge(const attention_job *j, const attention_tile *tile, int range, attention_span span,
                           int begin, int from, int to, attention_use *use, void *arg) {
    int group = attention_group(&j->e->model->shape);
    for (int t = 0; t < tile->n_tokens; t++) {
        attention_view view = attention_visible(j, tile, t, range);
        span.score = view.first > from ? view.first : from;
        span.slot = span.score - begin;
        span.n = (view.end < to ? view.end : to) - span.score;
        span.row = t * group, span.n_rows = group;
        if (span.n > 0) use(arg, &span);
    }
}

/* Calls `use` for every part of a page that a set of rows sees, keys ascending for each row: what all rows see, all
 * rows together; before that, along the edge of the window, and behind it, along the causal edge, token by token. */
static void attention_spans(const attention_job *j, const attention_tile *tile, int range, attention_use *use,
                            void *arg) {
    int size = j->e->page_size, group = attention_group(&j->e->model->shape);
    attention_view oldest = attention_visible(j, tile, 0, range);
    attention_view newest = attention_visible(j, tile, tile->n_tokens - 1, range);
    for (int begin = oldest.first / size * size; begin < newest.end; begin += size) {
        attention_span span = {.page = kv_page_at(j->e->kv, &tile->seq->pages,
                                                  (size_t)(range * ENGINE_RANGE + begin) / (size_t)size, j->slot)};
        int stop = begin + size;
        int first = newest.first > begin ? newest.first : begin, end = oldest.end < stop ? oldest.end : stop;
        if (first >= end) { /* nothing is seen by all */
            attention_edge(j, tile, range, span, begin, begin, stop, use, arg);
            continue;
        }
        if (oldest.first < first) attention_edge(j, tile, range, span, begin, begin, first, use, arg);
        span.score = first, span.slot = first - begin, span.n = end - first;
        span.row = 0, span.n_rows = tile->n_tokens * group;
        use(arg, &span);
        if (end < stop) attention_edge(j, tile, range, span, begin, end, stop, use, arg);
    }
}

typedef struct attention_range {
    const attention_job *j;
    int head;       /* key-value head */
    const float *q; /* [rows][head_dim] */
    float *scores;  /* [rows][ENGINE_RANGE] */
    float *o;       /* [rows][head_dim] */
} attention_range;

static void attention_qk(void *arg, const attention_span *span) {
    attention_range *a = arg;
    const minim_engine *e = a->j->e;
    int64_t dim = e->model->shape.head_dim;
    enum kern_kv type = kv_type(e->kv);
    const char *keys = kv_keys(e->kv, span->page, a->j->slot, a->head);
    e->kern.qk[type](a->q + span->row * dim, dim, span->n_rows, keys + (size_t)span->slot * kv_element(type),
                     e->page_size, span->n, dim, e->model->shape.attn_scale,
                     a->scores + (int64_t)span->row * ENGINE_RANGE + span->score, ENGINE_RANGE);
}

static void attention_pv(void *arg, const attention_span *span) {
    attention_range *a = arg;
    const minim_engine *e = a->j->e;
    int64_t dim = e->model->shape.head_dim;
    enum kern_kv type = kv_type(e->kv);
    const char *values = kv_values(e->kv, span->page, a->j->slot, a->head);
    e->kern.pv[type](a->scores + (int64_t)span->row * ENGINE_RANGE + span->score, ENGINE_RANGE, span->n_rows,
                     values + (size_t)(span->slot * dim) * kv_element(type), span->n, dim, a->o + span->row * dim, dim);
}

/* One range of one tile; rows that see nothing of it get sum 0. */
static void attention_do_range(attention_range *a, const attention_tile *tile, int range, attention_part part) {
    const minim_engine *e = a->j->e;
    const model_shape *s = &e->model->shape;
    int group = attention_group(s), dim = s->head_dim;
    attention_spans(a->j, tile, range, attention_qk, a);
    for (int r = 0; r < tile->n_tokens * group; r++) {
        attention_view view = attention_visible(a->j, tile, r / group, range);
        float *scores = a->scores + (size_t)r * ENGINE_RANGE + view.first;
        int n = view.end - view.first;
        part.max[r] = -INFINITY, part.sum[r] = 0;
        if (n > 0 && s->attn_softcap > 0) e->kern.softcap(scores, n, s->attn_softcap);
        if (n > 0) e->kern.softmax_part(scores, n, &part.max[r], &part.sum[r]);
    }
    memset(part.o, 0, (size_t)(tile->n_tokens * group * dim) * sizeof *part.o);
    a->o = part.o;
    attention_spans(a->j, tile, range, attention_pv, a);
}

/* Adds a range to what the ranges before it gave: to nothing, where a row's window begins in it. */
static void attention_join(const attention_job *j, const attention_tile *tile, int range, attention_part all,
                           attention_part part) {
    int group = attention_group(&j->e->model->shape);
    int64_t dim = j->e->model->shape.head_dim;
    for (int r = 0; r < tile->n_tokens * group; r++) {
        attention_view view = attention_visible(j, tile, r / group, range);
        float *o = all.o + r * dim, *more = part.o + r * dim;
        if (view.first >= view.end) continue;
        if (attention_first_range(j, tile, r / group) == range) {
            all.max[r] = part.max[r], all.sum[r] = part.sum[r];
            memcpy(o, more, (size_t)dim * sizeof *o);
        } else {
            j->e->kern.softmax_join(&all.max[r], &all.sum[r], o, part.max[r], part.sum[r], more, dim);
        }
    }
}

/* o / sum into the rows of the attention output. */
static void attention_finish(const minim_engine *e, const attention_tile *tile, int head, attention_part all) {
    const model_shape *s = &e->model->shape;
    int group = attention_group(s);
    for (int t = 0; t < tile->n_tokens; t++) {
        for (int g = 0; g < group; g++) {
            int r = t * group + g;
            float *out = e->scratch.attention +
                         ((int64_t)(tile->first_row + t) * s->n_heads + (int64_t)head * group + g) * s->head_dim;
            e->kern.scale(all.o + (int64_t)r * s->head_dim, 1.0f / all.sum[r], s->head_dim, out);
        }
    }
}

/* The query rows of a tile side by side, [token][head of the group][head_dim]. */
static void attention_gather(const minim_engine *e, const attention_tile *tile, int head, float *q) {
    const model_shape *s = &e->model->shape;
    size_t row = (size_t)attention_group(s) * (size_t)s->head_dim;
    for (int t = 0; t < tile->n_tokens; t++) {
        const float *from = e->scratch.q + (int64_t)(tile->first_row + t) * s->n_heads * s->head_dim;
        memcpy(q + (size_t)t * row, from + (size_t)head * row, row * sizeof *q);
    }
}

/* The part of one tile, head and range (counted from the tile's first) in the split form. */
static attention_part attention_partial(const attention_job *j, int tile, int head, int range) {
    const model_shape *s = &j->e->model->shape;
    size_t rows = attention_tile_rows(s), stride = rows * ((size_t)s->head_dim + 2);
    size_t index = ((size_t)tile * (size_t)s->n_kv_heads + (size_t)head) * (size_t)j->n_ranges + (size_t)range;
    return attention_part_at(j->e->scratch.partial + index * stride, rows);
}

/* item = (tile * heads + head) * n_ranges + range, or (tile * heads + head) when an item does all ranges. */
static void attention_task(void *arg, uint32_t item, int worker) {
    const attention_job *j = arg;
    minim_engine *e = j->e;
    const model_shape *s = &e->model->shape;
    size_t rows = attention_tile_rows(s), dim = (size_t)s->head_dim;
    int range = 0;
    if (j->n_ranges) range = (int)(item % (uint32_t)j->n_ranges), item /= (uint32_t)j->n_ranges;
    int head = (int)(item % (uint32_t)s->n_kv_heads), index = (int)(item / (uint32_t)s->n_kv_heads);
    const attention_tile *tile = &e->scratch.tiles[index];
    int n_ranges = attention_tile_ranges(j, tile), first = attention_first_range(j, tile, 0);
    if (range >= n_ranges) return;

    float *memory = e->scratch.worker + (size_t)worker * e->scratch.worker_floats;
    attention_range a = {.j = j, .head = head, .q = memory, .scores = memory + rows * dim};
    attention_gather(e, tile, head, memory);
    memory += rows * dim + rows * ENGINE_RANGE;
    if (j->n_ranges) {
        attention_do_range(&a, tile, first + range, attention_partial(j, index, head, range));
        return;
    }
    attention_part all = attention_part_at(memory, rows), next = attention_part_at(memory + rows * (dim + 2), rows);
    attention_do_range(&a, tile, first, all);
    for (range = 1; range < n_ranges; range++) {
        attention_do_range(&a, tile, first + range, next);
        attention_join(j, tile, first + range, all, next);
    }
    attention_finish(e, tile, head, all);
}

/* Joins the ranges of one tile and head in the split form. */
static void attention_join_task(void *arg, uint32_t item, int worker) {
    (void)worker;
    const attention_job *j = arg;
    int head = (int)(item % (uint32_t)j->e->model->shape.n_kv_heads);
    int index = (int)(item / (uint32_t)j->e->model->shape.n_kv_heads);
    const attention_tile *tile = &j->e->scratch.tiles[index];
    attention_part all = attention_partial(j, index, head, 0);
    for (int range = 1; range < attention_tile_ranges(j, tile); range++) {
        attention_join(j, tile, attention_first_range(j, tile, 0) + range, all,
                       attention_partial(j, index, head, range));
    }
    attention_finish(j->e, tile, head, all);
}

/* Every row sees at least its own key, which lies in its last range. */
void attention_run(minim_engine *e, int layer, int n_tiles, int n_rows) {
    attention_job j = {.e = e, .n_tiles = n_tiles};
    j.slot = e->model->layers[layer].kv_slot, j.window = e->model->layers[layer].n_window;
    uint32_t items = (uint32_t)n_tiles * (uint32_t)e->model->shape.n_kv_heads;
    int most = 1;
    for (int i = 0; i < n_tiles; i++) {
        int ranges = attention_tile_ranges(&j, &e->scratch.tiles[i]);
        if (ranges > most) most = ranges;
    }
    int split = pool_threads(e->pool) > 1 && n_rows <= ENGINE_SPLIT_ROWS && most > 1;
    if (!split) {
        pool_run(e->pool, attention_task, &j, items);
        return;
    }
    j.n_ranges = most;
    pool_run(e->pool, attention_task, &j, items * (uint32_t)most);
    pool_run(e->pool, attention_join_task, &j, items);
}

/* Memory for the split form of a step whose longest sequence has n_tokens tokens. */
minim_status attention_reserve(minim_engine *e, size_t n_tokens, minim_error *error) {
    size_t ranges = (n_tokens + ENGINE_RANGE - 1) / ENGINE_RANGE;
    if (pool_threads(e->pool) == 1 || ranges < 2) return MINIM_OK;
    const model_shape *s = &e->model->shape;
    size_t need =
        ENGINE_SPLIT_ROWS * (size_t)s->n_kv_heads * ranges * attention_tile_rows(s) * ((size_t)s->head_dim + 2);
    if (mem_grow(&e->allocator, &e->scratch.partial, &e->scratch.partial_capacity, need, sizeof(float))) {
        return err_memory(error, "attention of a long sequence", need * sizeof(float));
    }
    return MINIM_OK;
}
