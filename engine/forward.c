/* forward.c: the transformer. One function, forward_run(), takes a batch of rows, each the next token of some sequence,
 * through all layers. B is the number of rows.
 *
 *     x = embedding[token]
 *     per layer:   h = norm(x);  q, k, v = W h;  rotate q, k;  store k, v;  x += Wo attention(q)
 *                  h = norm(x);  x += Wdown (silu(Wgate h) * (Wup h))
 *     logits = Woutput norm(x)
 *
 * That is Llama. Where a family differs, its row (models/family.h) or the file says so, and a step below does more, or
 * less: a norm behind a part, no norm before it, norms of q and k, biases, both parts from the same h, another
 * activation, factors, soft caps, windows. A step that a model does not have costs it one test.
 *
 * Every arrow is a parallel section over rows, heads or panels of weights; none of them changes what a row computes.
 */
#include <math.h>
#include <string.h>

#include "engine.h"

/* ---- scratch memory ---------------------------------------------------------------------------------------------- */

/* Adds room for `count` things of `size` bytes at *offset (cache-line aligned); -1 when it does not fit. */
static int forward_carve(uint64_t *offset, uint64_t count, uint64_t size) {
    uint64_t bytes;
    if (size_mul(count, size, &bytes) || size_add(bytes, 63, &bytes)) return -1;
    return size_add(*offset, bytes / 64 * 64, offset);
}

/* Attention and feed-forward part from the same h? */
static int forward_is_parallel(const minim_model *m, const model_layer *layer) {
    return m->family->order == FAMILY_PRE_NORM && !layer->ffn_norm.weight;
}

/* The layout of the block; with base NULL only its size. q, k and v lie where gate and up do later, unless a layer has
 * all of them at once. */
static uint64_t forward_layout(const minim_model *m, const kern_table *kern, int n_batch, int n_threads,
                               forward_scratch *f, char *base) {
    const model_shape *s = &m->shape;
    uint64_t b = (uint64_t)n_batch, embd = (uint64_t)s->n_embd, ff = (uint64_t)s->n_ff;
    uint64_t q = (uint64_t)s->n_heads * (uint64_t)s->head_dim, kv = (uint64_t)s->n_kv_heads * (uint64_t)s->head_dim;
    uint64_t widest = embd > q ? embd : q;
    if (ff > widest) widest = ff;
    uint64_t blocks = (widest + KERN_BLOCK - 1) / KERN_BLOCK, offset = 0;
    const uint64_t side = (uint64_t)kern_cell_rows(kern, n_batch); /* rows of cells side by side */
    const int parallel = m->family->parallel != FAMILY_SEQUENTIAL; /* some layers may be */
    f->worker_floats = attention_worker_floats(s);
    f->panels_bytes = (m->raw_panel_bytes * (size_t)kern->panel_group + 63) / 64 * 64;
    const struct {
        void *where; /* of the pointer to set */
        uint64_t count, size;
    } part[] = {
        {&f->x, b * embd, sizeof(float)},
        {&f->h, b * embd, sizeof(float)},
        {&f->q, b * q, sizeof(float)},
        {&f->k, b * kv, sizeof(float)},
        {&f->v, b * kv, sizeof(float)},
        {&f->gate, b * ff, sizeof(float)},
        {&f->up, b * ff, sizeof(float)},
        {&f->codes, b * blocks * KERN_BLOCK, 1},
        {&f->scale, b * blocks, sizeof(float)},
        {&f->sum, b * blocks, sizeof(int32_t)},
        {&f->cells, kern->fill_cells ? (b + side - 1) / side * side * blocks : 0, sizeof(kern_act_cell)},
        {&f->act_tiles, kern->tile_row ? (b + KERN_TILE_TOKENS - 1) / KERN_TILE_TOKENS * blocks : 0,
         sizeof(kern_act_tile)},
        {&f->rope[0], b * (uint64_t)s->n_rot, sizeof(float)},
        {&f->tiles, b, sizeof(attention_tile)},
        {&f->wanted, b, sizeof(step_row)},
        {&f->rope[1], b * (uint64_t)s->n_rot, sizeof(float)},
        {&f->worker, (uint64_t)n_threads * f->worker_floats, sizeof(float)},
        {&f->panels, (uint64_t)n_threads, f->panels_bytes},
    };
    enum { Q = 2, GATE = 5, CODES = 7 }; /* their places in part */
    uint64_t q_begin = 0, end = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        if (i == Q) q_begin = offset;
        if (i == GATE && !parallel) end = offset, offset = q_begin;
        if (i == CODES && !parallel && offset < end) offset = end;
        if (base) *(void **)part[i].where = base + offset;
        if (forward_carve(&offset, part[i].count, part[i].size)) return 0;
    }
    return offset <= PTRDIFF_MAX ? offset : 0;
}

uint64_t forward_scratch_bytes(const minim_model *m, const kern_table *kern, int n_batch, int n_threads) {
    forward_scratch unused;
    return forward_layout(m, kern, n_batch, n_threads, &unused, NULL);
}

minim_status forward_scratch_new(minim_engine *e, minim_error *error) {
    forward_scratch *f = &e->scratch;
    int threads = pool_threads(e->pool);
    f->block_bytes = (size_t)forward_scratch_bytes(e->model, &e->kern, e->n_batch, threads);
    f->block = mem_alloc_huge(&e->allocator, f->block_bytes);
    if (!f->block) return err_memory(error, "scratch memory", f->block_bytes);
    forward_layout(e->model, &e->kern, e->n_batch, threads, f, f->block);
    return MINIM_OK;
}

void forward_scratch_free(minim_engine *e) {
    forward_scratch *f = &e->scratch;
    mem_free(&e->allocator, f->block, f->block_bytes, 1);
    mem_free(&e->allocator, f->partial, f->partial_capacity, sizeof(float));
}

/* ---- parallel sections ------------------------------------------------------------------------------------------- */

typedef struct forward_step {
    minim_engine *e;
    const step_row *rows;
    int n, layer;
    /* What forward_join_task does: */
    const model_norm *post; /* norm of h before it is added; NULL = nothing is added */
    const model_norm *pre;  /* norm of x that becomes the next h; NULL = h is not needed */
    float *logits;          /* [rows that want them][n_vocab] */
} forward_step;

/* Work on things side by side, panels or rows. Each thread has a lane, an equal share of them, neighbours. It goes
 * through it in pieces: half of the lane, half of the rest, and so on down to groups (guided self-scheduling,
 * Polychronopoulos & Kuck 1987). Memory is read in long stretches, one going on where the other ends; threads do not
 * write to the same cache lines; and who is done takes pieces of others, so that in the end nobody waits for long. */

/* Neighbours, and the end of the piece behind. */
typedef struct forward_piece {
    uint32_t begin, end, next_end;
} forward_piece;

/* Where a thread has got to. */
typedef struct forward_lane {
    _Alignas(64) _Atomic uint32_t taken; /* pieces */
} forward_lane;

typedef struct forward_shares {
    uint32_t n, group; /* things; a piece begins at a multiple of the group */
    uint32_t threads;  /* that share them; 1: the caller does all */
    uint32_t times;    /* that each lane is gone through, */
    void (*work)(void *arg, const forward_piece *piece, uint32_t time, int worker); /* the time-th with this piece */
    void *arg;
    forward_lane *lane; /* [threads] */
} forward_shares;

/* How many pieces a lane has, and which is the i-th (piece may be NULL). */
static uint32_t forward_cut(const forward_shares *s, uint32_t lane, uint32_t i, forward_piece *piece) {
    const uint32_t groups = (s->n + s->group - 1) / s->group;
    const uint32_t stop = (uint32_t)((uint64_t)groups * (lane + 1) / s->threads);
    uint32_t at = (uint32_t)((uint64_t)groups * lane / s->threads), n = 0;
    for (uint32_t size; at < stop; at += size, n++) {
        size = stop - at > 3 ? (stop - at) / 2 : 1;
        uint32_t end = (at + size) * s->group;
        if (end > s->n) end = s->n;
        if (piece && n == i) *piece = (forward_piece){at * s->group, end, end};
        if (piece && n == i + 1) piece->next_end = end;
    }
    return n;
}

/* Takes the next piece of the worker's lane, or of another that has one. There are as many items as pieces. */
static void forward_share_task(void *arg, uint32_t item, int worker) {
    const forward_shares *s = arg;
    forward_piece piece;
    (void)item;
    for (uint32_t lane = (uint32_t)worker % s->threads;; lane = (lane + 1) % s->threads) {
        const uint32_t i = atomic_fetch_add_explicit(&s->lane[lane].taken, 1, memory_order_relaxed);
        const uint32_t pieces = forward_cut(s, lane, 0, NULL);
        if (i >= pieces * s->times) continue;
        forward_cut(s, lane, i % pieces, &piece);
        s->work(s->arg, &piece, i / pieces, worker);
        return;
    }
}

static void forward_share(minim_engine *e, forward_shares s) {
    if (s.threads == 1 || (s.n <= s.group && s.times == 1)) {
        const forward_piece all = {0, s.n, s.n};
        for (uint32_t time = 0; time < s.times; time++) s.work(s.arg, &all, time, 0);
        return;
    }
    forward_lane lanes[POOL_MAX_THREADS];
    uint32_t pieces = 0;
    s.lane = lanes;
    for (uint32_t lane = 0; lane < s.threads; lane++) {
        atomic_init(&lanes[lane].taken, 0);
        pieces += forward_cut(&s, lane, 0, NULL) * s.times;
    }
    pool_run(e->pool, forward_share_task, &s, pieces);
}

typedef struct forward_rows_job {
    forward_step *step;
    pool_task *task;
} forward_rows_job;

static void forward_rows_work(void *arg, const forward_piece *piece, uint32_t time, int worker) {
    const forward_rows_job *j = arg;
    (void)time;
    for (uint32_t i = piece->begin; i < piece->end; i++) j->task(j->step, i, worker);
}

/* Runs task(step, row, worker) for n rows. Rows of a tile share its cache lines, so many rows are handed out by tiles.
 */
static void forward_rows(forward_step *s, pool_task *task, int n) {
    enum { SMALL_ROWS = 4, SMALL = 4096 /* floats */ };
    const int is_small = n < SMALL_ROWS || (int64_t)n * s->e->model->shape.n_embd < SMALL;
    const int threads = engine_threads(s->e, is_small), tiles = n >= 4 * KERN_TILE_TOKENS * threads;
    forward_share(s->e, (forward_shares){.n = (uint32_t)n,
                                         .group = tiles ? KERN_TILE_TOKENS : 1,
                                         .threads = (uint32_t)threads,
                                         .times = 1,
                                         .work = forward_rows_work,
                                         .arg = &(forward_rows_job){s, task}});
}

/* Quantises n columns of row t of x [B][cols], from `first` on, into the scratch codes. Rows of a width that is no
 * multiple of the block only ever meet float weights. */
static void forward_quantize(const forward_step *s, const float *x, int64_t t, int64_t cols, int64_t first, int64_t n) {
    minim_engine *e = s->e;
    forward_scratch *f = &e->scratch;
    if (cols % KERN_BLOCK) return;
    const int64_t blocks = cols / KERN_BLOCK, block = first / KERN_BLOCK;
    int8_t *codes = f->codes + t * cols + first;
    float *scale = f->scale + t * blocks + block;
    int32_t *sum = f->sum + t * blocks + block;
    e->kern.quantize(x + t * cols + first, n, codes, scale, sum);
    if (e->kern.fill_cells) {
        const int64_t rows = kern_cell_rows(&e->kern, s->n);
        e->kern.fill_cells(codes, scale, sum, n, f->cells + kern_cell_place(rows, blocks, t, block), rows);
    }
    if (e->kern.tile_row)
        e->kern.tile_row(codes, scale, sum, n, f->act_tiles + t / KERN_TILE_TOKENS * blocks + block,
                         (int)(t % KERN_TILE_TOKENS));
}

/* One or more matrices that share their input, each y[B][rows] = W x + bias. */
typedef struct forward_product {
    const model_matrix *w;
    float *y;
} forward_product;

typedef struct forward_matmul {
    minim_engine *e;
    int n; /* rows of x */
    kern_act act;
    const forward_product *product;
    int n_products;
    int64_t part; /* rows of x that are multiplied with all matrices before the next */
} forward_matmul;

static uint32_t forward_panels(const model_matrix *w) {
    return (uint32_t)((w->rows + KERN_PANEL - 1) / KERN_PANEL);
}

/* Panels begin .. end - 1 of one product; `follow` panels behind them are likely to be next. */
static void forward_panels_of(const forward_matmul *j, const forward_product *product, int64_t begin, int64_t end,
                              int64_t follow, int64_t t, int64_t n, char *buffer) {
    const model_matrix *w = product->w;
    kern_act act = kern_act_from(&j->act, t, w->cols);
    for (int64_t p = begin, n_p; p < end; p += n_p) {
        n_p = end - p;
        const char *at = ready_panels(j->e, w, p, &n_p, buffer);
        act.follow = at == buffer ? 0 : follow;
        const int64_t first = p * KERN_PANEL, left = w->rows - first, rows = n_p * KERN_PANEL;
        float *y = product->y + t * w->rows + first;
        j->e->kern.matmul[w->type](at, rows < left ? rows : left, w->cols, &act, n, y, w->rows);
    }
    const int64_t first = begin * KERN_PANEL, stop = end * KERN_PANEL < w->rows ? end * KERN_PANEL : w->rows;
    float *y = product->y + t * w->rows + first;
    for (int64_t r = 0; w->bias && r < n; r++) j->e->kern.add(y + r * w->rows, w->bias + first, stop - first);
}

/* Panels of all matrices, one behind the other. */
static void forward_matmul_work(void *arg, const forward_piece *piece, uint32_t time, int worker) {
    const forward_matmul *j = arg;
    char *buffer = j->e->scratch.panels + (size_t)worker * j->e->scratch.panels_bytes;
    const int64_t t = time * j->part, n = j->n - t < j->part ? j->n - t : j->part;
    uint32_t first = 0; /* panel of the product */
    for (int k = 0; k < j->n_products; k++) {
        const uint32_t panels = forward_panels(j->product[k].w), stop = first + panels;
        const uint32_t begin = piece->begin > first ? piece->begin : first, end = piece->end < stop ? piece->end : stop;
        const uint32_t next_end = piece->next_end < stop ? piece->next_end : stop;
        if (begin < end) forward_panels_of(j, &j->product[k], begin - first, end - first, next_end - end, t, n, buffer);
        first = stop;
    }
}

/* Shows the input of matrices to the caller; parts of a matrix that the file has in one count once. */
static void forward_show(const minim_engine *e, const float *x, int n, const forward_product *product, int n_products) {
    enum { MOST = 8 };
    const char *names[MOST];
    size_t n_names = 0;
    for (int i = 0; i < n_products && n_names < MOST; i++) {
        if (i > 0 && product[i].w->source == product[i - 1].w->source) continue;
        names[n_names++] = product[i].w->source->name.s;
    }
    e->on_input(e->on_input_user, names, n_names, x, (size_t)n, (size_t)product->w->cols);
}

/* Rows of n that are multiplied with all of a matrix before the next: parts of about the same size. */
static int64_t forward_part(const minim_engine *e, int64_t n, int64_t cols) {
    if (!e->kern.rows_at_once) return n;
    const int64_t most = e->kern.rows_at_once(cols), parts = (n + most - 1) / most;
    const int64_t tiles = (n + KERN_TILE_TOKENS - 1) / KERN_TILE_TOKENS;
    return parts > 1 ? (tiles + parts - 1) / parts * KERN_TILE_TOKENS : n;
}

/* x [n][cols] (and its quantised form in the scratch) times each product's matrix. */
static void forward_compute(minim_engine *e, const float *x, int n, const forward_product *product, int n_products) {
    /* Bytes of weights for one row, and how many rows more take as long again: for engine_threads(). */
    enum { SMALL = 192 * 1024, ROWS = 16 };
    const forward_scratch *f = &e->scratch;
    forward_matmul j = {.e = e, .n = n, .product = product, .n_products = n_products};
    j.act = (kern_act){.x = x, .codes = f->codes, .scale = f->scale, .sum = f->sum};
    if (e->kern.fill_cells) j.act.cells = f->cells, j.act.cell_rows = kern_cell_rows(&e->kern, n);
    if (e->kern.tile_row) j.act.tiles = f->act_tiles;
    j.part = forward_part(e, n, product->w->cols);
    uint64_t bytes = 0;
    uint32_t panels = 0;
    for (int i = 0; i < n_products; i++) {
        ready_for_product(e, product[i].w, n);
        panels += forward_panels(product[i].w);
        bytes += (uint64_t)forward_panels(product[i].w) * product[i].w->panel_bytes;
    }
    const int threads = engine_threads(e, bytes * (uint64_t)(n - 1 + ROWS) < SMALL * ROWS);
    forward_share(e, (forward_shares){.n = panels,
                                      .group = (uint32_t)e->kern.panel_group,
                                      .threads = (uint32_t)threads,
                                      .times = (uint32_t)((n + j.part - 1) / j.part),
                                      .work = forward_matmul_work,
                                      .arg = &j});
}

static void forward_multiply(minim_engine *e, const float *x, int n, const forward_product *product, int n_products) {
    if (e->on_input) forward_show(e, x, n, product, n_products);
    forward_compute(e, x, n, product, n_products);
}

/* ---- what a row does between the matrices ------------------------------------------------------------------------ */

/* Cosines and sines of a position. */
static void forward_angles(const minim_engine *e, const double *freq, int position, float *rope) {
    for (int i = 0; i < e->model->shape.n_rot / 2; i++) {
        double sine, cosine, magnitude = (double)e->model->shape.rope_magnitude;
        kern_sincos((double)position * freq[i], &sine, &cosine);
        if (freq == e->rope_freq[1]) magnitude = 1;
        rope[2 * i] = (float)(cosine * magnitude), rope[2 * i + 1] = (float)(sine * magnitude);
    }
}

static void forward_embed_task(void *arg, uint32_t item, int worker) {
    (void)worker;
    const forward_step *s = arg;
    const minim_engine *e = s->e;
    const model_shape *p = &e->model->shape;
    float *x = e->scratch.x + (size_t)item * (size_t)p->n_embd;
    if (e->model->first_layer > 0) {
        memcpy(x, e->hidden + (size_t)item * (size_t)p->n_embd, (size_t)p->n_embd * sizeof *x);
    } else {
        ready_row(&e->model->embedding, s->rows[item].token, x);
        if (p->embedding_scale != 1) e->kern.scale(x, p->embedding_scale, p->n_embd, x);
    }
    for (int i = 0; i < 2 && e->rope_freq[i]; i++) {
        forward_angles(e, e->rope_freq[i], s->rows[item].position, e->scratch.rope[i] + (int64_t)item * p->n_rot);
    }
}

/* y = norm(x), n heads of them side by side; with weights for one head or for each. y may be x. */
static void forward_norm(const minim_engine *e, const model_norm *norm, const float *x, int64_t heads, int64_t dim,
                         float *y) {
    float eps = e->model->shape.norm_eps;
    for (int64_t i = 0; i < heads; i++, x += dim, y += dim) {
        int64_t own = norm->n > dim ? i * dim : 0;
        if (norm->bias)
            e->kern.layer_norm(x, norm->weight + own, norm->bias + own, dim, eps, y);
        else
            e->kern.rms_norm(x, norm->weight + own, dim, eps, y);
    }
}

/* Adds to the residual stream what a part has made, and takes the input of the next part from it:
 * x += norm(h), then h = norm(x), quantised too. */
static void forward_join_task(void *arg, uint32_t item, int worker) {
    (void)worker;
    const forward_step *s = arg;
    minim_engine *e = s->e;
    const model_shape *p = &e->model->shape;
    int64_t embd = p->n_embd;
    float *x = e->scratch.x + item * embd, *h = e->scratch.h + item * embd;
    if (s->post) {
        if (s->post->weight) forward_norm(e, s->post, h, 1, embd, h);
        if (p->residual_scale != 1) e->kern.scale(h, p->residual_scale, embd, h);
        e->kern.add(x, h, embd);
    }
    if (!s->pre) return;
    if (s->pre->weight)
        forward_norm(e, s->pre, x, 1, embd, h);
    else
        memcpy(h, x, (size_t)embd * sizeof *h);
    forward_quantize(s, e->scratch.h, item, embd, 0, embd);
}

/* What happens to q and k between their matrices and the cache: heads of one row. */
static void forward_prepare(const minim_engine *e, const model_layer *layer, const model_norm *norm, int64_t heads,
                            uint32_t item, float *x) {
    const model_shape *p = &e->model->shape;
    const family *f = e->model->family;
    int64_t n = heads * p->head_dim;
    if (norm->weight && f->qk_norm == FAMILY_QK_ALL_HEADS) forward_norm(e, norm, x, 1, n, x);
    if (norm->weight && f->qk_norm != FAMILY_QK_ALL_HEADS) forward_norm(e, norm, x, heads, p->head_dim, x);
    if (layer->rope == MODEL_ROPE_NONE) return;
    const float *cs = e->scratch.rope[layer->rope == MODEL_ROPE_WINDOW] + (int64_t)item * p->n_rot;
    if (f->rope == FAMILY_ROPE_ADJACENT)
        e->kern.rope_adjacent(x, heads, p->head_dim, p->n_rot, cs);
    else
        e->kern.rope_split(x, heads, p->head_dim, p->n_rot, cs);
}

/* Norms and rotates q and k and stores k and v. */
static void forward_rope_task(void *arg, uint32_t item, int worker) {
    const forward_step *s = arg;
    minim_engine *e = s->e;
    const model_shape *p = &e->model->shape;
    const model_layer *layer = &e->model->layers[s->layer];
    forward_scratch *f = &e->scratch;
    int64_t n_q = (int64_t)p->n_heads * p->head_dim, n_kv = (int64_t)p->n_kv_heads * p->head_dim;
    int position = s->rows[item].position;
    float *q = f->q + item * n_q, *k = f->k + item * n_kv, *v = f->v + item * n_kv;
    if (p->clamp_qkv > 0) {
        e->kern.clamp(q, n_q, p->clamp_qkv);
        e->kern.clamp(k, n_kv, p->clamp_qkv);
        e->kern.clamp(v, n_kv, p->clamp_qkv);
    }
    forward_prepare(e, layer, &layer->q_norm, p->n_heads, item, q);
    forward_prepare(e, layer, &layer->k_norm, p->n_kv_heads, item, k);
    if (p->temperature > 0) {
        double steps = kern_log((double)(position / p->n_ctx_orig + 1));
        e->kern.scale(q, (float)fma((double)p->temperature, steps, 1.0), n_q, q);
    }
    kv_store(e->kv, &e->kern, &s->rows[item].seq->pages, layer->kv_slot, (size_t)position, k, v,
             f->worker + (size_t)worker * f->worker_floats);
}

static void forward_attention_quantize_task(void *arg, uint32_t item, int worker) {
    (void)worker;
    const forward_step *s = arg;
    const int64_t n = (int64_t)s->e->model->shape.n_heads * s->e->model->shape.head_dim;
    forward_quantize(s, s->e->scratch.q, item, n, 0, n);
}

/* Columns first .. first + n - 1 of a row. */
static void forward_activate_columns(const forward_step *s, int64_t row, int64_t ff, int64_t first, int64_t n) {
    minim_engine *e = s->e;
    float *gate = e->scratch.gate + row * ff + first, *up = e->scratch.up + row * ff + first;
    switch (e->model->family->ffn) {
    case FAMILY_FFN_SWIGLU: e->kern.silu_mul(gate, up, n); break;
    case FAMILY_FFN_GEGLU: e->kern.gelu_mul(gate, up, n); break;
    case FAMILY_FFN_GELU: e->kern.gelu_mul(gate, NULL, n); break;
    }
    forward_quantize(s, e->scratch.gate, row, ff, first, n);
}

static void forward_activation_row_task(void *arg, uint32_t item, int worker) {
    (void)worker;
    const forward_step *s = arg;
    const int64_t ff = s->e->model->layers[s->layer].n_ff;
    forward_activate_columns(s, item, ff, 0, ff);
}

static void forward_activation_work(void *arg, const forward_piece *piece, uint32_t time, int worker) {
    const forward_step *s = arg;
    const int64_t ff = s->e->model->layers[s->layer].n_ff, first = (int64_t)piece->begin * KERN_BLOCK;
    const int64_t end = (int64_t)piece->end * KERN_BLOCK, stop = end < ff ? end : ff;
    (void)time, (void)worker;
    for (int64_t row = 0; row < s->n; row++) forward_activate_columns(s, row, ff, first, stop - first);
}

/* gate = activation(gate) * up of all rows, quantised too. These are the widest rows there are: one is enough work for
 * all threads, so few rows are shared out by columns. */
static void forward_activate(forward_step *s) {
    enum { FEW = 32, GROUP = 16 /* blocks */, SMALL = 4096 /* floats */ };
    if (s->n > FEW) {
        forward_rows(s, forward_activation_row_task, s->n);
        return;
    }
    const int64_t ff = s->e->model->layers[s->layer].n_ff;
    forward_share(s->e, (forward_shares){.n = (uint32_t)((ff + KERN_BLOCK - 1) / KERN_BLOCK),
                                         .group = GROUP,
                                         .threads = (uint32_t)engine_threads(s->e, s->n * ff < SMALL),
                                         .times = 1,
                                         .work = forward_activation_work,
                                         .arg = s});
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

/* Factors and caps; and a NaN tells of damage in the model, but its sign and payload only which of two an instruction
 * has passed on. */
static void forward_logits_task(void *arg, uint32_t item, int worker) {
    (void)worker;
    const forward_step *s = arg;
    const model_shape *p = &s->e->model->shape;
    const int64_t n = s->e->model->n_vocab;
    float *logits = s->logits + (int64_t)item * n;
    if (p->logit_scale != 1) s->e->kern.scale(logits, p->logit_scale, n, logits);
    if (p->output_softcap > 0) s->e->kern.softcap(logits, n, p->output_softcap);
    for (int64_t i = 0; i < n; i++) logits[i] = logits[i] == logits[i] ? logits[i] : NAN;
}

/* Behind the keys and values of the last layer only the rows go on that want logits: they move together, in order.
 * Where all are to be seen or given back, later. */
static void forward_keep_wanted(forward_step *s) {
    if (s->rows == s->e->scratch.wanted) return; /* done */
    const forward_scratch *f = &s->e->scratch;
    const model_shape *p = &s->e->model->shape;
    const struct {
        float *row;
        int width;
    } kept[] = {{f->x, p->n_embd}, {f->q, p->n_heads * p->head_dim}, {f->gate, p->n_ff}, {f->up, p->n_ff}};
    const int parallel = forward_is_parallel(s->e->model, &s->e->model->layers[p->n_layers - 1]);
    const size_t n_kept = parallel ? 4 : 2; /* otherwise there is no gate and up yet, or any more */
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        if (!s->rows[i].logits) continue;
        f->wanted[n] = s->rows[i];
        for (size_t k = 0; n < i && k < n_kept; k++) {
            const size_t width = (size_t)kept[k].width;
            memcpy(kept[k].row + (size_t)n * width, kept[k].row + (size_t)i * width, width * sizeof(float));
        }
        n++;
    }
    s->rows = f->wanted, s->n = n;
}

/* Logits of all rows that are left and want some; the caller's are adjacent. */
static void forward_output(forward_step *s) {
    minim_engine *e = s->e;
    const minim_model *m = e->model;
    forward_product product = {&m->output, NULL};
    s->post = NULL, s->pre = &m->output_norm;
    if (e->on_input) {
        forward_rows(s, forward_join_task, s->n);
        forward_show(e, e->scratch.h, s->n, &product, 1);
    }
    forward_keep_wanted(s);
    if (!s->n) return;
    s->logits = product.y = s->rows[0].logits;
    forward_rows(s, forward_join_task, s->n);
    forward_compute(e, e->scratch.h, s->n, &product, 1);
    forward_rows(s, forward_logits_task, s->n);
}

void forward_run(minim_engine *e, const step_row *rows, int n) {
    const minim_model *m = e->model;
    forward_scratch *f = &e->scratch;
    forward_step s = {.e = e, .rows = rows, .n = n};
    int n_tiles = attention_make_tiles(e, rows, n);
    forward_rows(&s, forward_embed_task, s.n);
    for (s.layer = m->first_layer; s.layer < m->end_layer; s.layer++) {
        const model_layer *layer = &m->layers[s.layer];
        const int gated = m->family->ffn != FAMILY_FFN_GELU;
        const int parallel = forward_is_parallel(m, layer);
        const forward_product in[] = {{&layer->q, f->q},
                                      {&layer->k, f->k},
                                      {&layer->v, f->v},
                                      {&layer->ffn_up, gated ? f->up : f->gate},
                                      {&layer->ffn_gate, f->gate}};
        const int n_attention = 3, n_ffn = gated ? 2 : 1;

        s.pre = &layer->attn_norm; /* s.post is the layer's before; h its ffn_down */
        forward_rows(&s, forward_join_task, s.n);
        forward_multiply(e, f->h, s.n, in, parallel ? n_attention + n_ffn : n_attention);
        forward_rows(&s, forward_rope_task, s.n);
        if (s.layer == m->shape.n_layers - 1 && !e->on_input && !e->hidden) {
            forward_keep_wanted(&s);
            if (!s.n) return;
            n_tiles = attention_make_tiles(e, s.rows, s.n);
        }
        attention_run(e, s.layer, n_tiles, s.n);
        forward_rows(&s, forward_attention_quantize_task, s.n);
        forward_multiply(e, f->q, s.n, &(forward_product){&layer->attn_output, f->h}, 1);

        s.post = &layer->attn_post, s.pre = parallel ? NULL : &layer->ffn_norm;
        forward_rows(&s, forward_join_task, s.n);
        if (!parallel) forward_multiply(e, f->h, s.n, in + n_attention, n_ffn);
        forward_activate(&s);
        forward_multiply(e, f->gate, s.n, &(forward_product){&layer->ffn_down, f->h}, 1);
        s.post = &layer->ffn_post;
    }
    s.pre = NULL;
    forward_rows(&s, forward_join_task, s.n);
    if (e->hidden) memcpy(e->hidden, f->x, (size_t)s.n * (size_t)m->shape.n_embd * sizeof *f->x);
    if (m->end_layer == m->shape.n_layers) forward_output(&s);
}
