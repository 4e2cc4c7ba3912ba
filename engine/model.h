/* model.h: what a loaded model is, inside the engine. */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include <stdatomic.h>

#include "../kernels/kernels.h"
#include "../models/family.h"
#include "gguf.h"
#include "vocab.h"

/* Rotary frequencies of a kind of layer, and of a context. */
enum model_rope {
    MODEL_ROPE_NEAR,   /* every layer but those below */
    MODEL_ROPE_FAR,    /* in their place when the context is longer than n_ctx_orig and the file has factors for that */
    MODEL_ROPE_WINDOW, /* windowed layers that rotate in their own way */
    MODEL_ROPE_KINDS,
    MODEL_ROPE_NONE = MODEL_ROPE_KINDS /* a layer that does not rotate */
};

/* Hyper-parameters, all checked: products of these fit an int64 and heads divide as they must. Factors that a family
 * does not have are 1, limits it does not have are 0. */
typedef struct model_shape {
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_rot, n_ctx_train;
    int n_ff; /* of the widest layer */
    float norm_eps;

    float rope_base, rope_window_base;
    float rope_scale;              /* multiplies the angles: 1 / rope.scaling.factor */
    int rope_yarn;                 /* 1: high frequencies are not scaled (Peng et al. 2023) */
    float yarn_fast, yarn_slow;    /* turns within n_ctx_orig above which none, below which all is scaled */
    float rope_magnitude;          /* multiplies cosine and sine */
    int rope_off;                  /* 1: no layer rotates */
    int n_ctx_orig;                /* the context before it was stretched */
    int ffn_norm_optional;         /* 1: layers without ffn_norm run both parts in parallel */
    int n_window, n_window_layers; /* tokens that windowed layers see; how many layers these are */

    float attn_scale;   /* scores are q.k times this */
    float attn_softcap; /* scores are bent below it */
    float output_softcap;
    float embedding_scale, residual_scale; /* of embeddings; of what attention and feed-forward add */
    float logit_scale;
    float clamp_qkv;   /* q, k and v stay within +- this */
    float temperature; /* q times 1 + temperature * log(floor(position / n_ctx_orig) + 1) */
} model_shape;

enum model_raw_state {
    MODEL_RAW_FRESH,   /* no product has been computed yet */
    MODEL_RAW_USED,    /* one has, straight from the rows */
    MODEL_RAW_PACKING, /* an engine is making the panels */
    MODEL_RAW_PACKED   /* they are there */
};

/* W [rows][cols] in panels (kernels.h), with an optional bias [rows]. */
typedef struct model_matrix {
    uint32_t type; /* enum kern_type */
    int64_t rows, cols;
    const void *panels;    /* in memory of the model, or in the mapped file */
    struct model_raw *raw; /* NULL: the panels are there; else ask ready.c */
    size_t panel_bytes;    /* of one panel */
    float *bias;
    const gguf_tensor *source;
} model_matrix;

/* A matrix whose rows lie in the mapped file and whose panels are made when they are needed: see ready.c. */
typedef struct model_raw {
    const model_matrix *matrix;
    const char *rows; /* as in the file */
    char *panels;     /* matrix->panels, to be written */
    atomic_int state; /* enum model_raw_state */
} model_raw;

/* Weights of a norm over n numbers. NULL weights: there is no norm. */
typedef struct model_norm {
    float *weight; /* [n] */
    float *bias;   /* [n] for a layer norm (zeros where the file has none), NULL for RMS */
    int n;
} model_norm;

typedef struct model_layer {
    int n_ff;
    int n_window;         /* tokens a query sees, itself included; 0 = all */
    enum model_rope rope; /* NEAR, WINDOW or NONE */
    int kv_slot;          /* place in the cache: windowed layers come last, see kv.h */

    model_norm attn_norm, ffn_norm; /* over n_embd, before the part */
    model_norm attn_post, ffn_post; /* over n_embd, behind it */
    model_norm q_norm, k_norm;      /* before the rotation; see family_qk_norm */
    model_matrix q;                 /* [n_heads * head_dim][n_embd] */
    model_matrix k, v;              /* [n_kv_heads * head_dim][n_embd] */
    model_matrix attn_output;       /* [n_embd][n_heads * head_dim] */
    model_matrix ffn_gate, ffn_up;  /* [n_ff][n_embd]; no gate (panels NULL) in FAMILY_FFN_GELU */
    model_matrix ffn_down;          /* [n_embd][n_ff] */
} model_layer;

struct minim_model {
    minim_allocator allocator;
    minim_log_fn log;
    void *log_user;
    minim_load_level level;
    gguf_file *file; /* metadata; of its data only what is mapped stays after loading */
    vocab *vocab;    /* from MINIM_LOAD_VOCAB on */

    const family *family; /* NULL for an unknown architecture (only below MINIM_LOAD_ALL) */
    model_shape shape;    /* all zero when the file has none; then shape_error says why */
    minim_error shape_error;

    int first_layer, end_layer; /* of which there are weights: 0, n_layers for a whole model */

    char *panels; /* those of all matrices whose panels are not in the mapped file */
    size_t panels_bytes;
    model_raw *raw; /* [n_raw]: matrices that are not packed while loading */
    size_t n_raw, raw_capacity;
    size_t raw_panel_bytes; /* of the widest that may be among them; known from MINIM_LOAD_HEADER on */
    model_layer *layers;    /* [n_layers] */
    model_matrix embedding; /* [n_vocab][n_embd] */
    model_matrix output;    /* [n_vocab][n_embd]; shares the panels of `embedding` when the file has no output.weight */
    model_norm output_norm; /* over n_embd */
    double *rope_freq[MODEL_ROPE_KINDS]; /* [n_rot/2]: angle of pair i at position 1; NULL = no such layers */
    int n_vocab;

    uint64_t n_params, file_bytes, weight_bytes, step_bytes, mapped_bytes;
    char architecture[64], name[128], weight_types[256];
};

/* model_shape.c: reads and checks the hyper-parameters of m->file into m->family, m->shape and m->layers. */
minim_status model_read_shape(minim_model *m, minim_error *e);

/* rope.c: makes m->rope_freq. The factors are those of the file, [n_rot/2] or NULL. */
minim_status rope_make(minim_model *m, const float *near, const float *far, minim_error *e);

/* weights.c: sets m->raw_panel_bytes. */
void weights_plan(minim_model *m, const minim_model_options *o);
/* Reads all tensors, and packs those that are not mapped. On failure what was allocated is freed by
 * weights_free(). */
minim_status weights_load(minim_model *m, const minim_model_options *o, minim_error *e);
void weights_free(minim_model *m);

/* pack.c: the scales of n_rows <= 16 rows from `first` on, which lie in a panel or as in the file: MINIM_OK or an error
 * that names the tensor, row and column. */
minim_status pack_check_scales(const gguf_file *f, const gguf_tensor *t, int as_rows, const void *data, int64_t first,
                               int n_rows, minim_error *e);

void model_log(const minim_model *m, minim_log_level level, const char *format, ...) BASE_PRINTF(3, 4);

#endif
