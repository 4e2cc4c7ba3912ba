/* convert.h: the parts of `minim convert`: a Hugging Face directory becomes a GGUF file, the same one, weight for
 * weight, that llama.cpp's converter makes of it.
 *
 *   convert_files.c         reading small files
 *   convert_safetensors.c   the weights as they lie in the directory
 *   convert_config.c        config.json: which family, which keys
 *   convert_tensors.c       which tensor becomes which, and how its numbers change
 *   convert_vocab.c         the vocabulary: the list of tokens
 *   convert_spm.c           tokens from tokenizer.model (a protobuf of SentencePiece)
 *   convert_special.c       tokens with a role, the chat template
 *   convert_bpe.c           tokens and merges from tokenizer.json, the pre-tokenizer's name
 *   cmd_convert.c           the command
 *
 * Everything in the directory is hostile. Functions that can fail return -1, or an exit code after a message that names
 * the file, the item, what was found and what was expected.
 */
#ifndef TOOLS_CONVERT_H
#define TOOLS_CONVERT_H

#include <jansson.h>
#include <stdint.h>

#include "common.h"
#include "gguf_write.h"

/* ---- files ------------------------------------------------------------------------------------------------------- */

enum { CONVERT_PATH = 4096, CONVERT_MAX_DIMS = 4 };

/* Reads a JSON object of the directory. *root stays NULL when the file is missing and is not `required`. The caller
 * frees it with json_decref(). */
int convert_read_json(const char *directory, const char *name, int required, json_t **root);

/* Reads a whole file, at most `limit` bytes. Returns 0 when it is there, 1 when it is missing; *code is set after a
 * message. */
int convert_read_file(const char *directory, const char *name, uint64_t limit, tool_bytes *bytes, int *code);

/* A number of an object, or `missing` when it is absent or null. Sets *code after a message when it is no number in
 * the range, and does nothing when *code is set already. `file` names the object. */
double convert_number(json_t *object, const char *file, const char *name, double missing, double min, double max,
                      int *code);

/* ---- safetensors ------------------------------------------------------------------------------------------------- */

typedef enum convert_dtype { CONVERT_F32, CONVERT_F16, CONVERT_BF16, CONVERT_OTHER } convert_dtype;

/* A tensor as it lies in a file: dims[0] is the outermost. */
typedef struct convert_source {
    const char *name;
    const char *dtype_name; /* "BF16" */
    convert_dtype dtype;
    int n_dims, part; /* part: index of the file */
    uint64_t dims[CONVERT_MAX_DIMS];
    uint64_t offset, bytes; /* from the start of the file */
} convert_source;

typedef struct convert_part {
    char *path;
    const char *name; /* without the directory */
    int file;         /* descriptor */
    char *header;     /* names point into it */
} convert_part;

/* All weights of a directory. Parts in order of their names, tensors of a part in order of theirs: llama.cpp's order.
 */
typedef struct convert_sources {
    convert_part *parts;
    size_t n_parts;
    convert_source *tensors;
    size_t n_tensors, capacity;
} convert_sources;

/* Opens model.safetensors, or the parts of model.safetensors.index.json, and checks their headers. */
int convert_open_sources(const char *directory, convert_sources *sources);
void convert_close_sources(convert_sources *sources);

/* n bytes of a tensor from byte `from` on. */
int convert_read_source(const convert_sources *sources, const convert_source *source, uint64_t from, void *data,
                        size_t n);

/* ---- the model --------------------------------------------------------------------------------------------------- */

typedef enum convert_style {
    CONVERT_LLAMA,
    CONVERT_QWEN,
    CONVERT_PHI3,
    CONVERT_GEMMA,
    CONVERT_GEMMA2,
    CONVERT_GEMMA3
} convert_style;

/* What differs between families. The defaults are those of Hugging Face's configuration classes: config.json leaves
 * out what equals them. */
typedef struct convert_family {
    const char *hf;           /* architectures[0] of config.json */
    const char *architecture; /* general.architecture */
    convert_style style;
    int permute;    /* 1: rows of q and k change their order, as the engines' pairing of dimensions needs */
    int norm_shift; /* 1: norms are stored without the 1 that is added to them */
    int qk_norms;   /* 1: norms of every head's q and k */
    /* defaults; 0 = there is none. kv_heads 0: as many as heads. head_dim 0: width / heads; -1: the same, and no key */
    int n_heads, n_kv_heads, head_dim, n_ctx, n_vocab, window;
    double norm_eps, rope_base, rope_base_local;
} convert_family;

/* The index-th row, NULL behind the last. */
const convert_family *convert_family_at(size_t index);

/* Numbers that tensors and keys need, from config.json. */
typedef struct convert_shape {
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab, n_ctx, n_rot;
} convert_shape;

typedef struct convert_model {
    const char *directory;
    json_t *config; /* with the members of text_config on top */
    const convert_family *family;
    convert_shape shape;
    int n_tokens; /* of the vocabulary, once that was read */
    int quiet;    /* 1: convert_warn() says nothing */
} convert_model;

/* One line on stderr about something odd that does not stop the conversion. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void convert_warn(const convert_model *model, const char *format, ...);

/* Reads config.json, finds the family, fills the shape. */
int convert_read_config(const char *directory, convert_model *model);
/* Keys of the architecture, general.file_type among them. */
int convert_put_keys(const convert_model *model, uint32_t file_type, gguf_head *head);
/* general.sampling.* of generation_config.json, general.name and general.size_label. */
int convert_put_general(const convert_model *model, uint64_t n_params, gguf_head *head);
/* A parameter of rotation: from rope_parameters or rope_scaling, or else from the configuration itself. *code as with
 * convert_number(). */
double convert_rope_number(const convert_model *model, const char *name, double missing, double min, double max,
                           int *code);
/* "llama3", "yarn" ... or "". */
const char *convert_rope_type(const convert_model *model);
/* rope_parameters or rope_scaling (of the full layers, where there are two); NULL = there is none. */
json_t *convert_rope(const convert_model *model);

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

/* A tensor of the output. dims[0] is contiguous. */
typedef struct convert_tensor {
    char name[64];
    const convert_source *source; /* NULL: `values` */
    float *values;
    int permute_heads; /* 0 = rows keep their order */
    int shift;         /* 1: 1 is added to each number */
    int n_dims;
    uint64_t dims[CONVERT_MAX_DIMS];
    uint32_t type;
    uint64_t bytes;
} convert_tensor;

typedef struct convert_plan {
    convert_tensor *tensors;
    size_t n, capacity;
    uint64_t n_params, bytes;
    uint32_t file_type;
    const char *type_name; /* "F16": of the matrices */
} convert_plan;

/* type: "auto", "f32", "f16" or "bf16". */
int convert_make_plan(const convert_model *model, const convert_sources *sources, const char *type, convert_plan *plan);
void convert_free_plan(convert_plan *plan);
/* Writes all tensors, a few rows at a time. */
int convert_write_tensors(const convert_sources *sources, const convert_plan *plan, gguf_writer *writer);

/* ---- vocabulary -------------------------------------------------------------------------------------------------- */

/* tokenizer.ggml.token_type */
enum convert_token_type {
    CONVERT_NORMAL = 1,
    CONVERT_UNKNOWN = 2,
    CONVERT_CONTROL = 3,
    CONVERT_USER = 4,
    CONVERT_UNUSED = 5,
    CONVERT_BYTE = 6
};

typedef struct convert_token {
    size_t text, length; /* in convert_vocab.text */
    float score;
    int type;
} convert_token;

typedef struct convert_vocab {
    const char *model, *pre; /* "llama" or "gpt2" */
    convert_token *tokens;
    int n;
    tool_bytes text;
    json_t *tokenizer, *config; /* tokenizer.json and tokenizer_config.json; NULL = not there */
    int has_scores, has_merges; /* merges come from tokenizer.json */
    int space_prefix;           /* -1: no key */
    int no_bos;                 /* 1: add_bos_token = false is written when nothing else says so */
} convert_vocab;

/* Reads the tokenizer's files and puts its keys. model->n_tokens is set. */
int convert_put_vocab(convert_model *model, gguf_head *head);

/* Makes n tokens "[PAD<i>]" that are never used. */
int convert_new_tokens(convert_vocab *vocab, int n);
/* id has to be in range. */
int convert_set_token(convert_vocab *vocab, int id, const char *text, size_t length, float score, int type);
/* The same for an added token: control tokens by their flag or their look; in others, a space is a space. */
int convert_add_token(convert_vocab *vocab, int id, const char *text, size_t length, int special, float score);

/* tokenizer.model. */
int convert_read_spm(const convert_model *model, const tool_bytes *file, convert_vocab *vocab);
/* tokenizer.json. */
int convert_read_bpe(const convert_model *model, convert_vocab *vocab);
/* tokenizer.ggml.merges. */
int convert_put_merges(const convert_model *model, const convert_vocab *vocab, gguf_head *head);
/* Token ids by their role, add_bos_token and others, the chat template. May complete vocab->config. */
int convert_put_special(const convert_model *model, const convert_vocab *vocab, gguf_head *head);

#endif
