/* engine.h: what an engine and a sequence are, inside. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "kv.h"
#include "model.h"
#include "pool.h"

enum {
    ENGINE_RANGE = KERN_RANGE, /* keys per attention range: fixed, because where ranges end decides the bits */
    ENGINE_TILE = 128,    /* query rows whose attention is computed together: tokens times heads that share a key */
    ENGINE_BLOCK = 32,    /* those of them whose scores or weights are there at a time, in the caches */
    ENGINE_SPLIT_ROWS = 8 /* up to so many rows, attention ranges are shared out between threads */
};

/* One token in a forward step. */
typedef struct step_row {
    minim_seq *seq;
    int32_t token;
    int position;  /* in its sequence */
    float *logits; /* [n_vocab] or NULL */
} step_row;

/* Neighbouring tokens of one sequence whose attention is computed together. */
typedef struct attention_tile {
    const minim_seq *seq;
    int first_row, n_tokens, position; /* row and position of its first token */
} attention_tile;

/* Scratch memory of a forward step of up to n_batch rows (B). One block; see forward_plan(). */
typedef struct forward_scratch {
    float *x;                 /* [B][n_embd]            the residual stream */
    float *h;                 /* [B][widest]            input of the next matrices */
    float *q, *k, *v;         /* [B][heads * head_dim], [B][kv heads * head_dim] twice; attention takes q's place */
    float *gate, *up;         /* [B][n_ff]              often where q, k and v were */
    int8_t *codes;            /* [B][widest]            h, quantised */
    float *scale;             /* [B][widest / 32] */
    int32_t *sum;             /* [B][widest / 32] */
    kern_act_cell *cells;     /* [B rounded up to cell_rows][widest / 32], for kernels that want them */
    kern_act_tile *act_tiles; /* [B / KERN_TILE_TOKENS][widest / 32], the same for kernels that want tiles */
    float *rope[2];           /* [B][n_rot / 2][2]      cos, sin: of most layers, and of windowed ones */
    attention_tile *tiles;    /* [B] */
    step_row *wanted;         /* [B]                    the rows that go on behind the last layer's attention */
    float *worker;            /* [threads][worker_floats]: attention of one tile, see attention.c */
    size_t worker_floats;
    char *panels; /* [threads][panels_bytes]: see ready.c */
    size_t panels_bytes;
    void *block;
    size_t block_bytes;
    float *partial;          /* attention.c: ranges of the split form; grown when needed */
    size_t partial_capacity; /* floats */
} forward_scratch;

struct minim_engine {
    minim_allocator allocator;
    const minim_model *model;
    minim_log_fn log;
    void *log_user;
    kern_table kern;
    int n_ctx, n_batch, page_size;
    uint64_t page_bytes;
    uint64_t pages_together, pages_windowed; /* that hold the same tokens: all kinds, and of these in windowed layers */
    const double *rope_freq[2]; /* [n_rot / 2]: of most layers, and of windowed ones (NULL: as the others) */
    pool *pool;
    int share_all; /* 1: threads share even what is too small for it; for tests */
    kv_pool *kv;
    forward_scratch scratch;
    step_row *rows; /* [n_batch]: the rows of the running step */
    float *hidden;  /* of a step through a part of the model: [n_batch][n_embd], in and out; else NULL */
    void (*on_input)(void *user, const char *const *tensors, size_t n_tensors, const float *x, size_t n_rows,
                     size_t n_cols); /* may be NULL */
    void *on_input_user;
    uint64_t model_sum;   /* session.c: which model this is; 0 = not known yet */
    pthread_mutex_t lock; /* one step at a time */
    int has_lock;
};

/* Threads for a section of a step, 1 if it is small: if it takes the caller less than some 5 microseconds, because
 * handing it out takes up to 3. Each section has a measure of its own for that (bench/NOTES.md). */
static inline int engine_threads(const minim_engine *e, int is_small) {
    return is_small && !e->share_all ? 1 : pool_threads(e->pool);
}

struct minim_seq {
    minim_engine *engine;
    kv_table pages;
    int32_t *tokens; /* [length]: what the cached keys and values came from */
    size_t length, capacity;
    size_t pending; /* rows of the step being prepared */
    int lost;       /* 1: windowed layers need keys that were dropped: its tokens are run again before the next step */
    void *note;     /* [n_note]: the caller's, for minim_seq_save() */
    size_t n_note;
    atomic_int cancelled;
};

/* engine.c: the first key that windowed layers need for the token at this position. */
size_t engine_first_key(const minim_engine *e, size_t position);
/* engine.c: pages of a sequence of n tokens that comes in batches: at most, and at the very least. */
uint64_t engine_pages_most(const minim_engine *e, size_t n_tokens);
uint64_t engine_pages_least(const minim_engine *e, size_t n_tokens);

/* forward.c: bytes that forward_scratch_new() will take; 0 when they do not fit. */
uint64_t forward_scratch_bytes(const minim_model *m, const kern_table *kern, int n_batch, int n_threads);
minim_status forward_scratch_new(minim_engine *e, minim_error *error);
void forward_scratch_free(minim_engine *e);
/* Runs n <= n_batch rows through the model. Pages are there; nothing can fail. */
void forward_run(minim_engine *e, const step_row *rows, int n);

/* ready.c: panels that are made when they are needed. Called before a product of n tokens, by the step's thread. */
void ready_for_product(minim_engine *e, const model_matrix *w, int n);
/* Makes all that are not there yet. */
void ready_for_all(minim_engine *e);
/* Panels from `first` on: where they are, or made in `buffer`, which has room for scratch.panels_bytes. *n is how many
 * are wanted, and becomes how many are there. */
const char *ready_panels(const minim_engine *e, const model_matrix *w, int64_t first, int64_t *n, char *buffer);
/* Row `row` of a matrix as float32 [cols]. */
void ready_row(const model_matrix *w, int64_t row, float *out);

/* attention.c: causal attention of n rows whose keys and values are stored; q becomes what it gives. */
size_t attention_worker_floats(const model_shape *s);
/* Makes sure that a step whose longest sequence has n_tokens tokens can run: the scratch memory that depends on length.
 */
minim_status attention_reserve(minim_engine *e, size_t n_tokens, minim_error *error);
int attention_make_tiles(const minim_engine *e, const step_row *rows, int n); /* returns their number */
void attention_run(minim_engine *e, int layer, int n_tiles, int n_rows);

#endif
