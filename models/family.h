/* family.h: one row per model family. A row says what a GGUF file does not: the order of the steps, the kind of norm,
 * of rotary pairs and of activation, the defaults of keys, and what a complete file must hold. engine/forward.c reads
 * it; no family has a function of its own. Zero is what Llama does, so a row names only what differs.
 *
 * What a file does say is taken from the file in every family: biases where it has them, fused or split matrices,
 * rotary factors, soft caps, an output matrix or the embedding in its place.
 */
#ifndef MODELS_FAMILY_H
#define MODELS_FAMILY_H

#include <stddef.h>

typedef enum family_rope {
    FAMILY_ROPE_ADJACENT, /* pairs (2i, 2i+1): files whose q and k rows the converter has permuted (GGML "NORM") */
    FAMILY_ROPE_SPLIT     /* pairs (i, i + n_rot/2): rotate_half as published (GGML "NEOX") */
} family_rope;

typedef enum family_norm {
    FAMILY_NORM_RMS,   /* x / rms(x) * weight */
    FAMILY_NORM_LAYER, /* (x - mean) / deviation * weight + bias */
    FAMILY_NORM_PLAIN  /* (x - mean) / deviation: no tensors */
} family_norm;

typedef enum family_ffn {
    FAMILY_FFN_SWIGLU, /* down(silu(gate x) * up x) */
    FAMILY_FFN_GEGLU,  /* down(gelu(gate x) * up x), gelu in the tanh form */
    FAMILY_FFN_GELU    /* down(gelu(up x)) */
} family_ffn;

/* Where the norms of a layer stand: x + sub(norm(x)), x + norm(sub(norm(x))), x + norm(sub(x)). */
typedef enum family_order { FAMILY_PRE_NORM, FAMILY_PRE_AND_POST_NORM, FAMILY_POST_NORM } family_order;

typedef enum family_parallel {
    FAMILY_SEQUENTIAL,                /* the feed-forward part sees what attention has added */
    FAMILY_PARALLEL,                  /* both see the same norm(x); there is no ffn_norm */
    FAMILY_PARALLEL_WITHOUT_FFN_NORM, /* parallel in files without ffn_norm */
} family_parallel;

/* Norms of q and k before the rotation. */
typedef enum family_qk_norm {
    FAMILY_QK_NONE,
    FAMILY_QK_HEAD,     /* every head by itself, weights [head_dim] for all of them */
    FAMILY_QK_HEADS,    /* layer norm of every head, weights [n_heads][head_dim]; a file may lack it */
    FAMILY_QK_ALL_HEADS /* all heads together as one vector [n_heads * head_dim] */
} family_qk_norm;

typedef enum family_window {
    FAMILY_WINDOW_NONE,     /* attention.sliding_window is ignored, as the family's other engines do */
    FAMILY_WINDOW_OPTIONAL, /* windowed layers where the key says so */
    FAMILY_WINDOW_REQUIRED  /* the key must be there */
} family_window;

/* How windowed layers rotate. */
typedef enum family_window_rope {
    FAMILY_WINDOW_ROPE_SAME,    /* as the others */
    FAMILY_WINDOW_ROPE_PLAIN,   /* with the same base, but without scaling */
    FAMILY_WINDOW_ROPE_OWN_BASE /* with rope.freq_base_swa (10000) and without scaling */
} family_window_rope;

/* Biases that a complete file has; others are used where they are. */
enum { FAMILY_BIAS_QKV = 1, FAMILY_BIAS_ATTN_OUTPUT = 2, FAMILY_BIAS_FFN = 4, FAMILY_BIAS_OUTPUT = 8 };

typedef struct family {
    const char *architecture; /* general.architecture, also the prefix of the family's keys */
    const char *title;        /* which models people know it by */
    const char *story;        /* what is special about it, for people: one sentence */
    family_rope rope;
    family_norm norm;
    family_order order;
    family_parallel parallel;
    family_qk_norm qk_norm;
    family_ffn ffn;
    int biases;     /* FAMILY_BIAS_*, or-ed */
    int own_output; /* 1: output.weight must be there; 0: without it the embedding takes its place */
    family_window window;
    family_window_rope window_rope;
    int window_default;  /* tokens, where the key is missing or 0; 0 = no window */
    int window_period;   /* every so many layers one sees everything: layer il is windowed if (il+1) % period != 0 */
    int no_rope_period;  /* every so many layers one does not rotate; 0 = all rotate */
    int whole_rope;      /* 1: the rotation takes the whole head */
    int wide_layers;     /* with so many layers scores are divided by sqrt(n_embd / n_heads), not by sqrt(head_dim) */
    int known_layers[3]; /* other layer counts make the rule of wide_layers a guess; 0 = no guess */
    int scale_embedding; /* 1: embeddings times sqrt(n_embd) */
    int scalers;         /* 1: embedding_scale, residual_scale, attention.scale, logit_scale; rope can be off */
    int temperature;     /* 1: attention.temperature_scale makes q grow with the position */
    float attn_softcap;  /* defaults of attn_logit_softcapping and final_logit_softcapping; 0 = none */
    float output_softcap;
} family;

/* NULL when unknown. */
const family *family_find(const char *architecture);
/* The index-th row, NULL behind the last. */
const family *family_at(size_t index);

#endif
