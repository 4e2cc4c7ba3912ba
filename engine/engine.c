/* engine.c: the public minim_engine_* and minim_seq_* calls. */
#include "engine.h"

#include <fenv.h>
#include <stdlib.h>
#include <string.h>

void minim_engine_options_default(minim_engine_options *options) {
    *options = (minim_engine_options){
        .size = sizeof *options, .n_batch = 228, .page_size = 64, .prefix_cache = (uint64_t)256 << 20};
}

/* Everything an engine's options decide, before memory is taken. */
typedef struct engine_plan {
    minim_engine_options o;
    int n_threads, n_ctx, n_batch;
    kv_shape kv;
    uint64_t together; /* pages that hold the same tokens */
    uint64_t page_bytes, page_limit, cache_limit, scratch_bytes;
    kern_table kern;
} engine_plan;

static minim_status engine_choose_isa(kern_table *kern, const char *isa, minim_error *e) {
    const char *from = "isa";
    if (!isa) isa = getenv("MINIM_ISA"), from = "MINIM_ISA";
    if (!kern_table_init(kern, isa)) return MINIM_OK;
    char known[128] = "";
    const char *name;
    for (int i = 0; (name = kern_isa_name(i)); i++) {
        if (!kern_isa_available(name)) continue;
        if (known[0]) strncat(known, ", ", sizeof known - strlen(known) - 1);
        strncat(known, name, sizeof known - strlen(known) - 1);
    }
    return err_set(e, MINIM_ERR_ARGUMENT, "%s is \"%.32s\", this machine has: %s", from, isa, known);
}

static minim_status engine_make_plan(const minim_model *m, const minim_engine_options *user, engine_plan *p,
                                     minim_error *e) {
    if (!m) return err_set(e, MINIM_ERR_ARGUMENT, "model is NULL");
    if (!m->shape.n_layers) {
        if (e) *e = m->shape_error;
        return m->shape_error.status ? m->shape_error.status : MINIM_ERR_UNSUPPORTED;
    }
    minim_engine_options_default(&p->o);
    if (user) memcpy(&p->o, user, user->size < sizeof p->o ? user->size : sizeof p->o);
    const minim_engine_options *o = &p->o;
    const model_shape *s = &m->shape;
    if (o->n_threads < 0 || o->n_threads > POOL_MAX_THREADS) {
        return err_set(e, MINIM_ERR_ARGUMENT, "n_threads is %d, expected 0 to %d", o->n_threads, POOL_MAX_THREADS);
    }
    if (o->n_ctx < 0) return err_set(e, MINIM_ERR_ARGUMENT, "n_ctx is %d, expected 0 or more", o->n_ctx);
    if (o->n_batch < 1 || o->n_batch > 1 << 16) {
        return err_set(e, MINIM_ERR_ARGUMENT, "n_batch is %d, expected 1 to 65536", o->n_batch);
    }
    if (o->page_size < 16 || o->page_size > ENGINE_RANGE || (o->page_size & (o->page_size - 1))) {
        return err_set(e, MINIM_ERR_ARGUMENT, "page_size is %d, expected 16, 32, 64, 128 or 256", o->page_size);
    }
    if ((unsigned)o->kv_type > MINIM_KV_Q8_Q4) {
        return err_set(e, MINIM_ERR_ARGUMENT, "kv_type is %d, expected MINIM_KV_F16, _F32, _Q8, _Q4 or _Q8_Q4",
                       (int)o->kv_type);
    }
    if ((unsigned)o->rope_factors > MINIM_ROPE_LONG) {
        return err_set(e, MINIM_ERR_ARGUMENT, "rope_factors is %d, expected MINIM_ROPE_AUTO, _SHORT or _LONG",
                       (int)o->rope_factors);
    }
    int cpus = cpu_count();
    p->n_threads = o->n_threads ? o->n_threads : cpus < POOL_MAX_THREADS ? cpus : POOL_MAX_THREADS;
    p->n_ctx = o->n_ctx ? o->n_ctx : s->n_ctx_train;
    p->n_batch = o->n_batch < p->n_ctx ? o->n_batch : p->n_ctx;
    p->kv = (kv_shape){.n_layers = s->n_layers,
                       .n_windowed = s->n_window_layers,
                       .n_window = s->n_window,
                       .n_kv_heads = s->n_kv_heads,
                       .head_dim = s->head_dim,
                       .page_size = o->page_size,
                       .type = (enum kern_kv)o->kv_type};
    p->together = (uint64_t)kv_shape_pages(&p->kv);
    p->page_bytes = kv_page_bytes(&p->kv);
    minim_status status = engine_choose_isa(&p->kern, o->isa, e);
    if (status) return status;
    p->scratch_bytes = forward_scratch_bytes(m, &p->kern, p->n_batch, p->n_threads);
    if (!p->page_bytes || !p->scratch_bytes) {
        return err_set(e, MINIM_ERR_UNSUPPORTED, "%s: the model is too wide for this machine", gguf_path(m->file));
    }
    uint64_t for_context = ((uint64_t)p->n_ctx + (uint64_t)o->page_size - 1) / (uint64_t)o->page_size;
    p->page_limit = o->kv_limit ? o->kv_limit / p->page_bytes : for_context * p->together;
    p->cache_limit = o->prefix_cache / p->page_bytes;
    return MINIM_OK;
}

/* Pages of windowed layers that a sequence holds while it comes in batches: the window, the batch, one page to spare,
 * and those that are begun at both ends. */
static uint64_t engine_window_pages(const minim_model *m, uint64_t page_size, uint64_t n_batch, uint64_t all) {
    uint64_t some = ((uint64_t)m->shape.n_window + n_batch) / page_size + 3;
    return some < all ? some : all;
}

/* Of one sequence of n_ctx tokens. */
static uint64_t engine_most_pages(const minim_model *m, const engine_plan *p) {
    uint64_t size = (uint64_t)p->kv.page_size, all = ((uint64_t)p->n_ctx + size - 1) / size;
    uint64_t windowed = (uint64_t)(p->kv.n_windowed / p->kv.page_layers);
    return (p->together - windowed) * all + windowed * engine_window_pages(m, size, (uint64_t)p->n_batch, all);
}

uint64_t engine_pages_most(const minim_engine *en, size_t n_tokens) {
    uint64_t size = (uint64_t)en->page_size, all = ((uint64_t)n_tokens + size - 1) / size;
    return (en->pages_together - en->pages_windowed) * all +
           en->pages_windowed * engine_window_pages(en->model, size, (uint64_t)en->n_batch, all);
}

uint64_t engine_pages_least(const minim_engine *en, size_t n_tokens) {
    uint64_t size = (uint64_t)en->page_size, all = ((uint64_t)n_tokens + size - 1) / size;
    return (en->pages_together - en->pages_windowed) * all + en->pages_windowed * (all > 0);
}

minim_status minim_engine_plan(const minim_model *m, const minim_engine_options *options, minim_memory_plan *plan,
                               minim_error *error) {
    engine_plan p = {0};
    if (!plan || plan->size < sizeof plan->size) return err_set(error, MINIM_ERR_ARGUMENT, "plan->size is not set");
    minim_status status = engine_make_plan(m, options, &p, error);
    if (status) return status;
    uint64_t kv_full;
    if (size_mul(engine_most_pages(m, &p), p.page_bytes, &kv_full)) kv_full = UINT64_MAX;
    minim_memory_plan full = {.size = plan->size,
                              .weights = m->weight_bytes ? m->weight_bytes : m->file_bytes,
                              .scratch = p.scratch_bytes,
                              .kv_per_token = p.page_bytes * p.together / (uint64_t)p.kv.page_size,
                              .kv_full = kv_full,
                              .n_ctx = p.n_ctx};
    memcpy(plan, &full, plan->size < sizeof full ? plan->size : sizeof full);
    return err_ok(error);
}

minim_status minim_engine_new(const minim_model *m, const minim_engine_options *options, minim_engine **out,
                              minim_error *error) {
    if (!out) return err_set(error, MINIM_ERR_ARGUMENT, "engine is NULL");
    *out = NULL;
    engine_plan p = {0};
    minim_status status = engine_make_plan(m, options, &p, error);
    if (status) return status;
    if (m->level < MINIM_LOAD_ALL) {
        return err_set(error, MINIM_ERR_ARGUMENT, "%s: the model was loaded without its weights", gguf_path(m->file));
    }
    minim_allocator a = mem_allocator(p.o.allocator);
    minim_engine *en = mem_zalloc(&a, 1, sizeof *en);
    if (!en) return err_memory(error, "the engine", sizeof *en);
    en->allocator = a;
    en->model = m;
    en->kern = p.kern;
    en->log = p.o.log, en->log_user = p.o.log_user;
    en->on_input = p.o.on_input, en->on_input_user = p.o.on_input_user;
    en->n_ctx = p.n_ctx, en->n_batch = p.n_batch, en->page_size = p.kv.page_size;
    en->page_bytes = p.page_bytes;
    en->pages_together = p.together;
    en->pages_windowed = (uint64_t)(p.kv.n_windowed / p.kv.page_layers);
    int far = p.o.rope_factors == MINIM_ROPE_AUTO ? p.n_ctx > m->shape.n_ctx_orig : p.o.rope_factors == MINIM_ROPE_LONG;
    far = far && m->rope_freq[MODEL_ROPE_FAR];
    en->rope_freq[0] = m->rope_freq[far ? MODEL_ROPE_FAR : MODEL_ROPE_NEAR];
    en->rope_freq[1] = m->rope_freq[MODEL_ROPE_WINDOW];
    en->has_lock = !pthread_mutex_init(&en->lock, NULL);
    if (!en->has_lock) status = err_set(error, MINIM_ERR_MEMORY, "cannot create a mutex");
    if (!status) status = pool_new(&a, p.n_threads, &en->pool, error);
    if (!status) status = kv_pool_new(&a, &p.kv, p.page_limit, p.cache_limit, &en->kv, error);
    if (!status) status = forward_scratch_new(en, error);
    if (!status) {
        en->rows = mem_alloc(&a, (size_t)en->n_batch, sizeof *en->rows);
        if (!en->rows) status = err_memory(error, "the row table", (uint64_t)en->n_batch * sizeof *en->rows);
    }
    if (status) {
        minim_engine_free(en);
        return status;
    }
    *out = en;
    return err_ok(error);
}

void minim_engine_free(minim_engine *en) {
    if (!en) return;
    minim_allocator a = en->allocator;
    mem_free(&a, en->rows, (size_t)en->n_batch, sizeof *en->rows);
    forward_scratch_free(en);
    kv_pool_free(en->kv);
    pool_free(en->pool);
    if (en->has_lock) pthread_mutex_destroy(&en->lock);
    mem_free(&a, en, 1, sizeof *en);
}

void minim_engine_prepare(minim_engine *en) {
    if (!en) return;
    pthread_mutex_lock(&en->lock);
    ready_for_all(en);
    pthread_mutex_unlock(&en->lock);
}

minim_status minim_engine_get_info(minim_engine *en, minim_engine_info *info) {
    if (!en || !info || info->size < sizeof info->size) return MINIM_ERR_ARGUMENT;
    pthread_mutex_lock(&en->lock);
    kv_counts kv = kv_pool_counts(en->kv);
    pthread_mutex_unlock(&en->lock);
    minim_engine_info full = {.size = info->size,
                              .isa = en->kern.isa,
                              .n_threads = pool_threads(en->pool),
                              .n_ctx = en->n_ctx,
                              .page_size = en->page_size,
                              .pages_in_use = kv.in_use,
                              .pages_allocated = kv.in_use + kv.cached,
                              .page_bytes = en->page_bytes,
                              .page_limit = kv.limit,
                              .pages_cached = kv.cached,
                              .pages_evicted = kv.evicted,
                              .prefix_asked = kv.asked,
                              .prefix_found = kv.found};
    memcpy(info, &full, info->size < sizeof full ? info->size : sizeof full);
    return MINIM_OK;
}

size_t engine_first_key(const minim_engine *en, size_t position) {
    size_t window = (size_t)en->model->shape.n_window;
    return position >= window ? position + 1 - window : 0;
}

/* ---- sequences --------------------------------------------------------------------------------------------------- */

minim_status minim_seq_new(minim_engine *en, minim_seq **out, minim_error *error) {
    if (!en || !out) return err_set(error, MINIM_ERR_ARGUMENT, "engine or seq is NULL");
    *out = NULL;
    minim_seq *s = mem_zalloc(&en->allocator, 1, sizeof *s);
    if (!s) return err_memory(error, "a sequence", sizeof *s);
    s->engine = en;
    *out = s;
    return err_ok(error);
}

void minim_seq_free(minim_seq *s) {
    if (!s) return;
    minim_engine *en = s->engine;
    pthread_mutex_lock(&en->lock);
    kv_table_free(en->kv, &s->pages);
    pthread_mutex_unlock(&en->lock);
    mem_free(&en->allocator, s->tokens, s->capacity, sizeof *s->tokens);
    mem_free(&en->allocator, s->note, s->n_note, 1);
    mem_free(&en->allocator, s, 1, sizeof *s);
}

minim_status minim_seq_set_note(minim_seq *s, const void *note, size_t n_bytes, minim_error *error) {
    if (!s || (n_bytes && !note)) return err_set(error, MINIM_ERR_ARGUMENT, "seq or note is NULL");
    void *copy = n_bytes ? mem_alloc(&s->engine->allocator, n_bytes, 1) : NULL;
    if (n_bytes && !copy) return err_memory(error, "a note", n_bytes);
    if (n_bytes) memcpy(copy, note, n_bytes);
    mem_free(&s->engine->allocator, s->note, s->n_note, 1);
    s->note = copy, s->n_note = n_bytes;
    return err_ok(error);
}

const void *minim_seq_note(const minim_seq *s, size_t *n_bytes) {
    *n_bytes = s->n_note;
    return s->note;
}

minim_status minim_seq_fork(minim_seq *s, minim_seq **out, minim_error *error) {
    if (!s || !out) return err_set(error, MINIM_ERR_ARGUMENT, "seq is NULL");
    minim_engine *en = s->engine;
    minim_status status = minim_seq_new(en, out, error);
    if (status) return status;
    minim_seq *copy = *out;
    pthread_mutex_lock(&en->lock);
    if (mem_grow(&en->allocator, &copy->tokens, &copy->capacity, s->length, sizeof *s->tokens))
        status = err_memory(error, "a token list", s->length * sizeof *s->tokens);
    if (!status) status = kv_fork(en->kv, &s->pages, &copy->pages, error);
    if (!status) {
        if (s->length) memcpy(copy->tokens, s->tokens, s->length * sizeof *s->tokens);
        copy->length = s->length, copy->lost = s->lost;
    }
    pthread_mutex_unlock(&en->lock);
    if (status) {
        minim_seq_free(copy);
        *out = NULL;
    }
    return status;
}

minim_status minim_seq_reuse(minim_seq *s, const int32_t *tokens, size_t n_tokens, size_t *n_reused,
                             minim_error *error) {
    if (n_reused) *n_reused = 0;
    if (!s || (n_tokens && !tokens)) return err_set(error, MINIM_ERR_ARGUMENT, "seq or tokens is NULL");
    if (s->length) return err_set(error, MINIM_ERR_ARGUMENT, "the sequence holds %zu tokens, expected none", s->length);
    minim_engine *en = s->engine;
    size_t found = 0;
    pthread_mutex_lock(&en->lock);
    minim_status status = MINIM_OK;
    if (n_tokens > (size_t)en->n_ctx) n_tokens = (size_t)en->n_ctx;
    if (n_tokens && mem_grow(&en->allocator, &s->tokens, &s->capacity, n_tokens, sizeof *s->tokens))
        status = err_memory(error, "a token list", n_tokens * sizeof *s->tokens);
    if (!status && n_tokens) status = kv_match(en->kv, &s->pages, tokens, n_tokens - 1, &found, error);
    if (found) memcpy(s->tokens, tokens, found * sizeof *s->tokens);
    s->length = found;
    pthread_mutex_unlock(&en->lock);
    if (status) return status;
    if (n_reused) *n_reused = found;
    return err_ok(error);
}

const int32_t *minim_seq_tokens(const minim_seq *s) {
    return s->tokens;
}

size_t minim_seq_length(const minim_seq *s) {
    return s->length;
}

minim_status minim_seq_truncate(minim_seq *s, size_t n_tokens) {
    if (!s || n_tokens > s->length) return MINIM_ERR_ARGUMENT;
    pthread_mutex_lock(&s->engine->lock);
    s->length = n_tokens;
    kv_shrink(s->engine->kv, &s->pages, n_tokens);
    s->lost = n_tokens > 0 && (s->lost || kv_dropped(s->engine->kv, &s->pages) > engine_first_key(s->engine, n_tokens));
    pthread_mutex_unlock(&s->engine->lock);
    return MINIM_OK;
}

void minim_seq_cancel(minim_seq *s) {
    atomic_store(&s->cancelled, 1);
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

static minim_status engine_check_rows(minim_engine *en, const minim_row *rows, size_t n, const float *logits,
                                      minim_error *e) {
    for (size_t i = 0; i < n; i++) {
        if (!rows[i].seq || rows[i].seq->engine != en) {
            return err_set(e, MINIM_ERR_ARGUMENT, "row %zu: the sequence is not one of this engine", i);
        }
        if (rows[i].token < 0 || rows[i].token >= en->model->n_vocab) {
            return err_set(e, MINIM_ERR_ARGUMENT, "row %zu: token %d, expected 0 to %d", i, rows[i].token,
                           en->model->n_vocab - 1);
        }
        if (rows[i].want_logits && !logits)
            return err_set(e, MINIM_ERR_ARGUMENT, "row %zu wants logits, but logits is NULL", i);
        rows[i].seq->pending = 0;
    }
    for (size_t i = 0; i < n; i++) {
        minim_seq *s = rows[i].seq;
        s->pending++;
        if (s->pending > (size_t)en->n_ctx - s->length) {
            return err_set(e, MINIM_ERR_CONTEXT, "%zu tokens and %zu more do not fit the context of %d", s->length,
                           s->pending, en->n_ctx);
        }
    }
    return MINIM_OK;
}

/* Pages and token memory for all pending rows, or nothing. */
static minim_status engine_reserve(minim_engine *en, const minim_row *rows, size_t n, minim_error *e) {
    size_t longest = 0, i = 0;
    minim_status status = MINIM_OK;
    for (; i < n && !status; i++) {
        minim_seq *s = rows[i].seq;
        size_t length = s->length + s->pending;
        if (length > longest) longest = length;
        if (mem_grow(&en->allocator, &s->tokens, &s->capacity, length, sizeof *s->tokens)) {
            status = err_memory(e, "a token list", length * sizeof *s->tokens);
        } else {
            status = s->lost ? kv_restore(en->kv, &s->pages, e) : MINIM_OK;
            if (!status) status = kv_reserve(en->kv, &s->pages, s->length, length, e);
        }
    }
    if (!status) status = attention_reserve(en, longest, e);
    if (status) {
        while (i-- > 0) kv_shrink(en->kv, &rows[i].seq->pages, rows[i].seq->length);
    }
    return status;
}

/* Runs en->rows[0..n), lets full pages be found, and gives back what no window reaches any more; but for a page, so
 * that a sequence can lose its last few tokens. */
static void engine_run(minim_engine *en, int n) {
    forward_run(en, en->rows, n);
    for (int i = 0; i < n; i++) {
        minim_seq *s = en->rows[i].seq;
        if (i + 1 == n || en->rows[i + 1].seq != s)
            kv_index(en->kv, &s->pages, s->tokens, (size_t)en->rows[i].position + 1);
    }
    if (!en->model->shape.n_window_layers) return;
    for (int i = 0; i < n; i++) {
        size_t first = engine_first_key(en, (size_t)en->rows[i].position + 1), page = (size_t)en->page_size;
        if (first > page) kv_drop(en->kv, &en->rows[i].seq->pages, first - page);
    }
}

/* After a cut that windowed layers can not follow: all tokens once more, which gives the same bits. */
static void engine_replay(minim_engine *en, minim_seq *s) {
    for (size_t i = 0; i < s->length;) {
        int n = 0;
        for (; i < s->length && n < en->n_batch; i++, n++) {
            en->rows[n] = (step_row){s, s->tokens[i], (int)i, NULL};
        }
        engine_run(en, n);
    }
    s->lost = 0;
}

/* What a step through a part of a model may be, and one through a whole model. */
static minim_status engine_check_part(const minim_engine *en, const minim_row *rows, size_t n, const float *hidden,
                                      minim_error *e) {
    const minim_model *m = en->model;
    const int is_part = m->first_layer > 0 || m->end_layer < m->shape.n_layers;
    if (is_part && !hidden) {
        return err_set(e, MINIM_ERR_ARGUMENT, "%s: layers %d to %d of %d are loaded, expected the whole model",
                       gguf_path(m->file), m->first_layer, m->end_layer - 1, m->shape.n_layers);
    }
    for (size_t i = 0; i < n && m->end_layer < m->shape.n_layers; i++) {
        if (rows[i].want_logits)
            return err_set(e, MINIM_ERR_ARGUMENT, "row %zu wants logits, but the last layer is not loaded", i);
    }
    for (size_t i = 0; i < n && hidden; i++) { /* its tokens alone do not bring back what was lost */
        if (rows[i].seq->lost && m->first_layer > 0)
            return err_set(e, MINIM_ERR_ARGUMENT, "row %zu: the sequence was cut and cannot go on in a part", i);
    }
    return MINIM_OK;
}

static minim_status engine_step(minim_engine *en, const minim_row *rows, size_t n_rows, float *hidden, float *logits,
                                minim_error *error) {
    if (!en || (n_rows && !rows)) return err_set(error, MINIM_ERR_ARGUMENT, "engine or rows is NULL");
    pthread_mutex_lock(&en->lock);
    minim_status status = engine_check_rows(en, rows, n_rows, logits, error);
    if (!status) status = engine_check_part(en, rows, n_rows, hidden, error);
    if (!status) status = engine_reserve(en, rows, n_rows, error);
    if (!status) {
        fenv_t host; /* the same rounding whatever the host has set */
        fegetenv(&host);
        fesetenv(FE_DFL_ENV);
        for (size_t i = 0; i < n_rows; i++) {
            if (rows[i].seq->lost) engine_replay(en, rows[i].seq);
        }
        en->hidden = hidden;
        for (size_t i = 0; i < n_rows;) {
            int n = 0;
            for (; i < n_rows && n < en->n_batch; i++, n++) {
                minim_seq *s = rows[i].seq;
                en->rows[n] = (step_row){s, rows[i].token, (int)s->length, rows[i].want_logits ? logits : NULL};
                if (rows[i].want_logits) logits += en->model->n_vocab;
                s->tokens[s->length++] = rows[i].token;
            }
            engine_run(en, n);
            if (hidden) en->hidden += (size_t)n * (size_t)en->model->shape.n_embd;
        }
        en->hidden = NULL;
        fesetenv(&host);
        err_ok(error);
    }
    pthread_mutex_unlock(&en->lock);
    return status;
}

minim_status minim_engine_step(minim_engine *en, const minim_row *rows, size_t n_rows, float *logits,
                               minim_error *error) {
    return engine_step(en, rows, n_rows, NULL, logits, error);
}

minim_status minim_engine_step_part(minim_engine *en, const minim_row *rows, size_t n_rows, float *hidden,
                                    float *logits, minim_error *error) {
    if (!hidden) return err_set(error, MINIM_ERR_ARGUMENT, "hidden is NULL");
    return engine_step(en, rows, n_rows, hidden, logits, error);
}
