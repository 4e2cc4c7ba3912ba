/* model.h: what a loaded model is, inside the engine. */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include "../kernels/kernels.h"
#include "../models/family.h"
#include "gguf.h"
#include "vocab.h"

/* Hyper-parameters, all checked: products of these fit an int64 and heads divide as they must. */
typedef struct model_shape {
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_rot, n_ff, n_ctx_train;
    float norm_eps;
    float rope_base;
    float rope_scale; /* multiplies the angles: 1 / rope.scaling.factor */
} model_shape;

/* W [rows][cols] in panels (kernels.h), with an optional bias [rows]. */
typedef struct model_matrix {
    uint32_t type; /* enum kern_type */
    int64_t rows, cols;
    void *panels;
    size_t panel_bytes; /* of one panel */
    float *bias;
    const gguf_tensor *source;
} model_matrix;

typedef struct model_layer {
    float *attn_norm, *ffn_norm;   /* [n_embd] */
    model_matrix q;                /* [n_heads * head_dim][n_embd] */
    model_matrix k, v;             /* [n_kv_heads * head_dim][n_embd] */
    model_matrix attn_output;      /* [n_embd][n_heads * head_dim] */
    model_matrix ffn_gate, ffn_up; /* [n_ff][n_embd] */
    model_matrix ffn_down;         /* [n_embd][n_ff] */
} model_layer;

struct minim_model {
    minim_allocator allocator;
    minim_log_fn log;
    void *log_user;
    minim_load_level level;
    gguf_file *file; /* metadata; its data is gone after loading */
    vocab *vocab;    /* from MINIM_LOAD_VOCAB on */

    const family *family; /* NULL for an unknown architecture (only below MINIM_LOAD_ALL) */
    model_shape shape;    /* all zero when the file has none; then shape_error says why */
    minim_error shape_error;

    char *panels; /* the panels of all matrices */
    size_t panels_bytes;
    model_layer *layers;    /* [n_layers] */
    model_matrix embedding; /* [n_vocab][n_embd] */
    model_matrix output;    /* [n_vocab][n_embd]; shares the panels of `embedding` when the file has no output.weight */
    float *output_norm;     /* [n_embd] */
    double *rope_freq;      /* [n_rot/2]: angle of pair i at position 1 */
    int n_vocab;

    uint64_t n_params, file_bytes, weight_bytes, step_bytes;
    char architecture[64], name[128], weight_types[256];
};

/* model_shape.c: reads and checks the hyper-parameters of m->file into m->family and m->shape. */
minim_status model_read_shape(minim_model *m, minim_error *e);

/* weights.c: reads and packs all tensors. On failure what was allocated is freed by weights_free(). */
minim_status weights_load(minim_model *m, const minim_model_options *o, minim_error *e);
void weights_free(minim_model *m);

/* Row `row` of a matrix as float32 [cols]. */
void model_matrix_row(const model_matrix *w, int64_t row, float *out);

void model_log(const minim_model *m, minim_log_level level, const char *format, ...) BASE_PRINTF(3, 4);

#endif
