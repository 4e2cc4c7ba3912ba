/* minim.h: the public interface of the minim engine.
 *
 *   minim_model    weights and vocabulary of one GGUF file; may be shared between threads and engines.
 *   minim_engine   runs one model: a KV page pool, a thread pool, scratch memory.
 *   minim_seq      one conversation: the tokens it has seen and the KV pages that hold them.
 *
 * The shortest complete program (errors left out):
 *
 *     minim_model *m;   minim_model_load("model.gguf", NULL, &m, &err);
 *     minim_engine *e;  minim_engine_new(m, NULL, &e, &err);
 *     minim_seq *s;     minim_seq_new(e, &s, &err);
 *     size_t n;         minim_tokenize(m, text, strlen(text), MINIM_ADD_SPECIAL, tokens, 256, &n, &err);
 *     minim_generate_options o;  minim_generate_options_default(&o);  o.on_text = print;
 *     minim_generate(s, tokens, n, &o, NULL, &err);
 *     minim_seq_free(s); minim_engine_free(e); minim_model_free(m);
 *
 * Rules that hold everywhere:
 *   - Every call that can fail returns a minim_status and takes a minim_error that may be NULL. Nothing aborts, exits
 *     or prints. On failure the out-parameters are NULL / unchanged.
 *   - Option structs start with their own size, so that fields can be added at the end without breaking a compiled
 *     program: call the matching _default() first, then change what you need. NULL options mean the defaults.
 *   - Strings are UTF-8 and NUL-terminated unless a length stands beside them. Sizes are bytes, times are seconds.
 *   - An engine serialises its own calls; different engines run in parallel. Free sequences before their engine, the
 *     engine before its model. Free functions accept NULL.
 *   - The same model, tokens and sampling options give the same logits, bit for bit, on every supported CPU, for any
 *     number of threads, batch size, page size and instruction set (see kernels/kernels.h).
 */
#ifndef MINIM_H
#define MINIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) && !defined(MINIM_STATIC)
#define MINIM_API __attribute__((visibility("default")))
#else
#define MINIM_API
#endif

#define MINIM_VERSION_MAJOR 0
#define MINIM_VERSION_MINOR 1
#define MINIM_VERSION_PATCH 0

/* "0.1.0": the version of the library that is linked, which may be newer than this header. */
MINIM_API const char *minim_version(void);

/* ---- status, errors, memory, log ------------------------------------------------------------------------------- */

typedef enum minim_status {
    MINIM_OK = 0,
    MINIM_ERR_ARGUMENT,    /* the caller passed something impossible (NULL, token id out of range ...) */
    MINIM_ERR_MEMORY,      /* an allocation failed; nothing is lost or leaked */
    MINIM_ERR_IO,          /* a file cannot be opened or read */
    MINIM_ERR_FORMAT,      /* the file is damaged or not what it should be */
    MINIM_ERR_UNSUPPORTED, /* the file is valid but needs something minim does not have */
    MINIM_ERR_CONTEXT,     /* the tokens do not fit the context or the KV pool */
    MINIM_ERR_SPACE,       /* the caller's buffer is too small; the needed size was reported */
    MINIM_ERR_CANCELLED    /* a callback or minim_seq_cancel() asked to stop */
} minim_status;

/* A short lower-case word for a status: "ok", "memory", "format" ... Never NULL. */
MINIM_API const char *minim_status_name(minim_status status);

/* Filled by the call that failed: one line of text that names the file, the item, what was found and expected. */
typedef struct minim_error {
    minim_status status;
    char text[508];
} minim_error;

/* All memory of a model or engine comes from here. alignment is a power of two, at most 4096. free() gets the size that
 * was asked for. Both may be called from several threads at once. */
typedef struct minim_allocator {
    void *user;
    void *(*alloc)(void *user, size_t size, size_t alignment);
    void (*free)(void *user, void *pointer, size_t size);
} minim_allocator;

typedef enum minim_log_level { MINIM_LOG_DEBUG, MINIM_LOG_INFO, MINIM_LOG_WARN } minim_log_level;

/* One line without a newline. May be called from the thread that made the call only. */
typedef void (*minim_log_fn)(void *user, minim_log_level level, const char *text);

/* ---- model ----------------------------------------------------------------------------------------------------- */

typedef struct minim_model minim_model;

/* How much of a file to load. A file that holds no model (a vocabulary, an unknown architecture) can still be read at
 * the lower levels. */
typedef enum minim_load_level {
    MINIM_LOAD_HEADER = 0, /* metadata and tensor list: minim_model_meta_*, minim_model_tensor_* */
    MINIM_LOAD_VOCAB = 1,  /* and the tokenizer */
    MINIM_LOAD_ALL = 2     /* and the weights */
} minim_load_level;

typedef struct minim_model_options {
    size_t size;
    minim_load_level level;
    int n_threads;                    /* threads that read weights; 0 = as many as the CPUs this process may use */
    const minim_allocator *allocator; /* NULL = malloc; copied */
    minim_log_fn log;
    void *log_user;
    /* Called from the loading thread with 0..1 as weights arrive; a non-zero return cancels (MINIM_ERR_CANCELLED). */
    int (*progress)(void *user, double fraction);
    void *progress_user;
    /* Part of a model, for work that goes through it layer by layer in little memory: the weights of layers first_layer
     * .. end_layer - 1, before the first layer also the embeddings, behind the last also the output. end_layer 0 = all.
     * A part runs with minim_engine_step_part() only. */
    int first_layer, end_layer;
    int no_map; /* 1: read and pack the weights instead of mapping the file; see minim_model_load() */
} minim_model_options;

MINIM_API void minim_model_options_default(minim_model_options *options);

/* Reads a GGUF file (version 2 or 3).
 *
 * The file is mapped read-only, and must not be cut or overwritten in place while the model lives: the system answers
 * with SIGBUS in whichever thread touches what is no longer there (and a changed byte changes answers). To replace it,
 * write a new file and rename it over the old one, as minim's own tools do: the mapping keeps the old one. Where others
 * may cut the file, or SIGBUS cannot be risked, set no_map: the weights are read into memory, and damage is an error.
 * So they are, too, when `allocator` is set, when the system refuses to map, and from memory.
 *
 * The pages of a file of `minim pack` are used as they are, and shared with every process that uses it. Of an ordinary
 * file weights are packed when they are needed: a first step of few rows computes from the file, so that the first
 * token is there soon; the next step packs, or minim_engine_prepare() does before, which takes as long as loading with
 * no_map. Steps that begin after it read nothing of an ordinary file any more. Who forks calls it before, so that the
 * children share what is packed, and does not fork while it runs. Logits are the same in all cases,
 * and those of the file it was packed from.
 */
MINIM_API minim_status minim_model_load(const char *path, const minim_model_options *options, minim_model **model,
                                        minim_error *error);

/* The same from memory; name stands for the file in error texts. data is not needed afterwards. */
MINIM_API minim_status minim_model_load_memory(const void *data, size_t size, const char *name,
                                               const minim_model_options *options, minim_model **model,
                                               minim_error *error);

MINIM_API void minim_model_free(minim_model *model);

/* The small model that is built into the minim program: a GGUF image for minim_model_load_memory(). NULL and 0 when the
 * engine was built without it (MINIM_NO_DEFAULT_MODEL). */
MINIM_API const void *minim_default_model(size_t *size);

/* What a model is. Pointers live as long as the model. Numbers that the load level does not know are 0 (-1 for ids). */
typedef struct minim_model_info {
    size_t size;              /* set by the caller to sizeof(minim_model_info) */
    const char *architecture; /* general.architecture */
    const char *name;         /* general.name or "" */
    const char *chat_format;  /* the recognised chat format, "raw" without a template, "unknown" for one not known */
    minim_load_level level;
    int n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, n_vocab;
    int n_ctx_train;          /* the context the model was trained for, tokens */
    int bos, eos;             /* token ids, -1 = none */
    uint64_t n_params;        /* elements of all tensors */
    uint64_t file_bytes;      /* bytes of all tensors in the file */
    uint64_t weight_bytes;    /* bytes of weights in memory */
    uint64_t step_bytes;      /* bytes of weights that one decoded token reads */
    const char *weight_types; /* for example "Q4_0 x155, F32 x45" */
    int panels;               /* version of the layout of panels in the file, 0 = an ordinary file; see minim_panels */
    uint64_t mapped_bytes;    /* of weight_bytes, what stays in the mapped file (of minim pack) */
} minim_model_info;

MINIM_API minim_status minim_model_get_info(const minim_model *model, minim_model_info *info);

/* What kind of transformer it is, for people: a line "name\ttext\n" each for the family, what is special about it,
 * heads, windows, positions, layers, biases, factors and output, as far as there is something to say. Nothing for a
 * model that minim cannot run. *needed (may be NULL) gets the length without the NUL; MINIM_ERR_SPACE if it did not
 * fit. */
MINIM_API minim_status minim_model_explain(const minim_model *model, char *buffer, size_t capacity, size_t *needed);

/* Metadata of the file, in file order. */
typedef struct minim_meta {
    const char *key;
    const char *type; /* "u32", "str", "arr[f32]" ... */
    uint64_t count;   /* elements of an array, else 1 */
} minim_meta;

MINIM_API size_t minim_model_meta_count(const minim_model *model);
MINIM_API minim_status minim_model_meta(const minim_model *model, size_t index, minim_meta *meta);
/* Writes the value of entry `index` as text (JSON: strings quoted and escaped, invalid UTF-8 replaced), at most
 * max_items elements of an array (0 = all) followed by "..." when more remain. *needed gets the length without the
 * NUL; MINIM_ERR_SPACE if it did not fit (what fits is written). */
MINIM_API minim_status minim_model_meta_text(const minim_model *model, size_t index, size_t max_items, char *buffer,
                                             size_t capacity, size_t *needed);

typedef struct minim_tensor {
    const char *name;
    const char *type; /* "F32", "Q4_0" ... */
    /* How minim keeps it: "panels" (packed for speed), "blocks" (as in the file: correct, but slower), "rows" (a
     * vector, as float32) or "unsupported". */
    const char *layout;
    int n_dims;
    uint64_t dims[4]; /* file order: dims[0] is contiguous; unused = 1 */
    uint64_t offset;  /* from the start of the file */
    uint64_t bytes;   /* in the file */
} minim_tensor;

MINIM_API size_t minim_model_tensor_count(const minim_model *model);
MINIM_API minim_status minim_model_tensor(const minim_model *model, size_t index, minim_tensor *tensor);

/* The exact values of elements first .. first+n-1 of a tensor, whatever its type, in file order. Only for a model that
 * was loaded below MINIM_LOAD_ALL: it keeps its file open; an image in memory must still be there.
 * MINIM_ERR_UNSUPPORTED for a type that holds no weights (integers). */
MINIM_API minim_status minim_model_tensor_values(const minim_model *model, size_t index, uint64_t first, size_t n,
                                                 float *values, minim_error *error);

/* How a matrix stands in a packed file (`minim pack`): as panels of 16 rows, which kernels use as they lie. */
typedef struct minim_panels {
    size_t size;          /* set by the caller to sizeof(minim_panels) */
    uint32_t layout;      /* value of the key minim.panels (u32), without which such a file is refused */
    uint32_t alignment;   /* least value of the key general.alignment (u32) */
    uint32_t type;        /* type of the tensor in the file; other programs do not know it, and so refuse the file */
    uint64_t n;           /* panels; 0 = this tensor stays as it is */
    uint64_t panel_bytes; /* of one; the tensor's data are n of them */
} minim_panels;

/* MINIM_ERR_UNSUPPORTED for a model that minim cannot run: it decides what is packed. */
MINIM_API minim_status minim_model_panels(const minim_model *model, size_t index, minim_panels *panels,
                                          minim_error *error);

/* Panels first .. first+n-1 of a tensor of an ordinary file, packed now. Only for a model that was loaded below
 * MINIM_LOAD_ALL. MINIM_ERR_FORMAT for a scale that is infinite or not a number. */
MINIM_API minim_status minim_model_read_panels(const minim_model *model, size_t index, uint64_t first, size_t n,
                                               void *panels, minim_error *error);

/* ---- text and tokens ------------------------------------------------------------------------------------------- */

enum {
    MINIM_ADD_SPECIAL = 1,  /* put BOS before and EOS behind, as the vocabulary asks */
    MINIM_PARSE_SPECIAL = 2 /* text such as "<s>" becomes the control token; never use it for a user's text */
};

/* Text (any bytes; invalid UTF-8 falls back to byte tokens) to token ids. *n_tokens gets the number of tokens;
 * MINIM_ERR_SPACE if they are more than `capacity` (tokens may be NULL when capacity is 0). Linear time. */
MINIM_API minim_status minim_tokenize(const minim_model *model, const char *text, size_t n_bytes, unsigned flags,
                                      int32_t *tokens, size_t capacity, size_t *n_tokens, minim_error *error);

/* Token ids to bytes (no NUL is added). The leading space that the tokenizer invents is dropped again. Control tokens
 * give no text unless flags has MINIM_PARSE_SPECIAL. MINIM_ERR_SPACE and *n_bytes = needed if it does not fit. */
MINIM_API minim_status minim_detokenize(const minim_model *model, const int32_t *tokens, size_t n_tokens,
                                        unsigned flags, char *buffer, size_t capacity, size_t *n_bytes,
                                        minim_error *error);

/* 1 if the token ends an answer (end of sequence, of turn, of message). */
MINIM_API int minim_token_is_end(const minim_model *model, int32_t token);

typedef struct minim_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *content;
} minim_message;

/* Name of the index-th built-in chat format, NULL behind the last. */
MINIM_API const char *minim_chat_format(size_t index);

/* Renders a conversation, ready for the assistant's answer, in the file's chat format or in `format` when not NULL.
 * Contents are data: they can not become control tokens. Same buffer rules as minim_tokenize(). */
MINIM_API minim_status minim_chat_tokenize(const minim_model *model, const char *format, const minim_message *messages,
                                           size_t n_messages, int32_t *tokens, size_t capacity, size_t *n_tokens,
                                           minim_error *error);

/* ---- engine ---------------------------------------------------------------------------------------------------- */

typedef struct minim_engine minim_engine;

/* What keys and values are kept in. Q8: int8 with a scale for each token and head, half of F16's memory, less exact.
 * Q4: 4 bits and such a scale, a little more than a quarter, and much less exact, which is because of the keys. Q8_Q4:
 * keys as Q8, values as Q4. */
typedef enum minim_kv_type {
    MINIM_KV_F16 = 0,
    MINIM_KV_F32 = 1,
    MINIM_KV_Q8 = 2,
    MINIM_KV_Q4 = 3,
    MINIM_KV_Q8_Q4 = 4
} minim_kv_type;

/* Models with two sets of rotary factors (Phi): which to use. */
typedef enum minim_rope_factors {
    MINIM_ROPE_AUTO = 0, /* the long set when n_ctx is longer than the model's original context */
    MINIM_ROPE_SHORT = 1,
    MINIM_ROPE_LONG = 2
} minim_rope_factors;

typedef struct minim_engine_options {
    size_t size;
    int n_threads; /* 0 = as many as the CPUs this process may use (affinity and cgroup quota) */
    int n_ctx;     /* longest sequence in tokens; 0 = what the model was trained for */
    int n_batch;   /* most rows computed together; only speed and scratch memory depend on it; default 228 */
    int page_size; /* KV tokens a page: 16, 32, 64, 128 or 256; default 64 */
    minim_kv_type kv_type;
    uint64_t kv_limit; /* bytes that all KV pages together may take; 0 = enough for one sequence of n_ctx tokens,
                          which are taken as they are needed, not at start */
    const char *isa;   /* highest instruction set: "ref", "avx2", "avxvnni", "avx512", "avx512vnni", "amx"; on Arm
                          "ref", "neon", "neon_dotprod", "neon_i8mm"; NULL = MINIM_ISA or the CPU's best */
    const minim_allocator *allocator;
    minim_log_fn log;
    void *log_user;
    minim_rope_factors rope_factors;
    /* Shows what goes into the matrices (importance matrices, calibration): x [n_rows][n_cols] is the input of all the
     * n_tensors matrices, which are named as in the file. Called on the thread of the step, before the product; x lives
     * during the call only, and the call may not use the engine. All rows go through the last layer then, also those
     * that want no logits; no bit of a result changes. NULL = no calls. */
    void (*on_input)(void *user, const char *const *tensors, size_t n_tensors, const float *x, size_t n_rows,
                     size_t n_cols);
    void *on_input_user;
    /* Pages stay where a later sequence that begins with the same tokens finds them, also when their own is gone: at
     * most so many bytes of pages that no sequence holds, least recently used first out, always within kv_limit.
     * Default 256 MiB; 0 = pages are neither kept nor shared by their tokens. */
    uint64_t prefix_cache;
} minim_engine_options;

MINIM_API void minim_engine_options_default(minim_engine_options *options);

MINIM_API minim_status minim_engine_new(const minim_model *model, const minim_engine_options *options,
                                        minim_engine **engine, minim_error *error);
MINIM_API void minim_engine_free(minim_engine *engine);

/* Packs what of the model's weights is still to be packed (minim_model_load()), so that no step has to: for a server
 * before its first request, and for who measures steps. */
MINIM_API void minim_engine_prepare(minim_engine *engine);

/* What an engine would take, before anything is allocated. Works from MINIM_LOAD_HEADER on. */
typedef struct minim_memory_plan {
    size_t size;                                      /* set by the caller */
    uint64_t weights, scratch, kv_per_token, kv_full; /* bytes; kv_full is for one sequence of n_ctx tokens that comes
                                                         in steps of up to n_batch; windows give pages back */
    int n_ctx;
} minim_memory_plan;

MINIM_API minim_status minim_engine_plan(const minim_model *model, const minim_engine_options *options,
                                         minim_memory_plan *plan, minim_error *error);

typedef struct minim_engine_info {
    size_t size; /* set by the caller */
    const char *isa;
    int n_threads, n_ctx, page_size;
    uint64_t pages_in_use;    /* held by sequences; a page that several share counts once */
    uint64_t pages_allocated; /* and those that only the prefix cache holds */
    uint64_t page_bytes, page_limit;
    uint64_t pages_cached;               /* of pages_allocated: held by the prefix cache alone */
    uint64_t pages_evicted;              /* that gave way to others, since the engine began */
    uint64_t prefix_asked, prefix_found; /* tokens looked up in the prefix cache, and of these found */
} minim_engine_info;

MINIM_API minim_status minim_engine_get_info(minim_engine *engine, minim_engine_info *info);

/* ---- sequences and the forward step ---------------------------------------------------------------------------- */

typedef struct minim_seq minim_seq;

MINIM_API minim_status minim_seq_new(minim_engine *engine, minim_seq **seq, minim_error *error);
MINIM_API void minim_seq_free(minim_seq *seq);
/* *fork becomes a second sequence with the same tokens. It shares the pages of the first: a fork takes no page until
 * one of the two goes on inside a page that both hold, which is then copied. Both live on alone, and are freed in any
 * order. A cancelled sequence can be forked; the fork is not cancelled. */
MINIM_API minim_status minim_seq_fork(minim_seq *seq, minim_seq **fork, minim_error *error);
/* Tokens whose keys and values are cached. */
MINIM_API size_t minim_seq_length(const minim_seq *seq);
/* These tokens, [minim_seq_length()]; valid until the sequence changes. May be NULL when there are none. */
MINIM_API const int32_t *minim_seq_tokens(const minim_seq *seq);
/* Forgets everything behind the first n tokens; pages that become empty go back to the pool. */
MINIM_API minim_status minim_seq_truncate(minim_seq *seq, size_t n_tokens);
/* An empty sequence takes from the prefix cache the longest beginning of tokens[n_tokens] that is there, in whole pages
 * and without the last token, whose logits have to be computed: *n_reused (may be NULL) tokens, often 0. It then goes
 * on with tokens + *n_reused, and has the same bits as if it had computed all. minim_generate() does this by itself. */
MINIM_API minim_status minim_seq_reuse(minim_seq *seq, const int32_t *tokens, size_t n_tokens, size_t *n_reused,
                                       minim_error *error);
/* Bytes of the caller's that go into the file of a sequence and come back with it: what was said, say, while the
 * sequence knows tokens only. Copied; 0 bytes = none. A fork has none. */
MINIM_API minim_status minim_seq_set_note(minim_seq *seq, const void *note, size_t n_bytes, minim_error *error);
/* The note, and its length in *n_bytes; valid until it is set anew. NULL when there is none. */
MINIM_API const void *minim_seq_note(const minim_seq *seq, size_t *n_bytes);
/* Writes a sequence to a file, all or nothing: what was there before stays until the new file is complete and on disk.
 * A file fits the model (to the last weight), the KV type and the page size it was made with. A link stays one: what it
 * leads to is replaced. MINIM_ERR_IO when the path is no file (a directory, a pipe, a device) or cannot be written. */
MINIM_API minim_status minim_seq_save(minim_seq *seq, const char *path, minim_error *error);
/* A new sequence from such a file, which goes on with the same bits. A file that is damaged (there is a checksum) or of
 * another model, or that does not fit the context or the pool, is an error and changes nothing. */
MINIM_API minim_status minim_seq_restore(minim_engine *engine, const char *path, minim_seq **seq, minim_error *error);
/* Stops a running minim_generate() of this sequence after the current step. Safe from any thread and from a signal
 * handler. The next minim_generate() starts afresh. */
MINIM_API void minim_seq_cancel(minim_seq *seq);

/* One row of a step: the next token of a sequence. */
typedef struct minim_row {
    minim_seq *seq;
    int32_t token;
    int want_logits; /* non-zero: write this row's logits */
} minim_row;

/* Advances several sequences together: rows of one sequence are its next tokens, in order. Any number of rows.
 * logits gets [rows that want them][n_vocab] float32, in row order (may be NULL if none does). All or nothing: on
 * failure no sequence has changed. MINIM_ERR_CONTEXT if a sequence would pass n_ctx or the pool is full. */
MINIM_API minim_status minim_engine_step(minim_engine *engine, const minim_row *rows, size_t n_rows, float *logits,
                                         minim_error *error);

/* The same for a part of a model (minim_model_options.first_layer). hidden [n_rows][n_embd], not NULL, is what the
 * layers before have made of the rows, and becomes what this part makes of them; where the part has the first layer, it
 * is only written. Rows can want logits where the part has the last layer. A part after the other gives the bits of the
 * whole. */
MINIM_API minim_status minim_engine_step_part(minim_engine *engine, const minim_row *rows, size_t n_rows, float *hidden,
                                              float *logits, minim_error *error);

/* ---- generation ------------------------------------------------------------------------------------------------ */

typedef struct minim_sampling {
    float temperature;    /* 0 = greedy (the default) */
    int top_k;            /* 0 = off */
    float top_p;          /* 1 = off */
    float min_p;          /* 0 = off; keep tokens with p >= min_p * p(best) */
    float repeat_penalty; /* 1 = off; Keskar et al. 2019 (CTRL): logits of recent tokens divided (or multiplied) */
    int repeat_last_n;    /* how many recent tokens the penalty looks at; default 64 */
    uint64_t seed;        /* the same seed gives the same text; default 0 */
} minim_sampling;

typedef struct minim_logprob {
    int32_t token;
    float logprob; /* natural logarithm of the softmax of the raw logits */
} minim_logprob;

/* A generated token. All figures come from the raw logits, before penalty, temperature and filters. */
typedef struct minim_token_event {
    int32_t token;
    int index;                /* 0 for the first generated token */
    int is_end;               /* the token that ended the answer; it has no text */
    float logprob;            /* of this token */
    float margin;             /* logprob of the best token minus that of the second best */
    float entropy;            /* of the whole distribution, nats */
    int n_top;                /* entries of top */
    const minim_logprob *top; /* the best tokens, best first; ties: lower id first; valid during the call */
} minim_token_event;

typedef enum minim_stop {
    MINIM_STOP_END = 0,   /* an end token */
    MINIM_STOP_LENGTH,    /* max_tokens reached */
    MINIM_STOP_STRING,    /* a stop string appeared (it is not part of the text) */
    MINIM_STOP_CONTEXT,   /* the context or the KV pool is full */
    MINIM_STOP_CANCELLED, /* minim_seq_cancel() */
    MINIM_STOP_CALLBACK   /* a callback returned non-zero */
} minim_stop;

/* "end", "length", "stop", "context", "cancelled", "callback" */
MINIM_API const char *minim_stop_name(minim_stop stop);

typedef struct minim_generate_options {
    size_t size;
    minim_sampling sampling;
    int max_tokens;          /* 0 = until the context is full; default 0 */
    const char *const *stop; /* stop strings */
    size_t n_stop;
    int n_top;      /* how many of the best tokens an event lists, 0..64 */
    int ignore_end; /* non-zero: end tokens do not end the answer (benchmarks) */
    void *user;
    /* Text as it becomes certain: whole UTF-8 characters only, and nothing that may still turn out to be a stop string.
     * A non-zero return stops. May be NULL. */
    int (*on_text)(void *user, const char *text, size_t n_bytes);
    int (*on_token)(void *user, const minim_token_event *event); /* before its text; non-zero stops; may be NULL */
    int (*on_prefill)(void *user, size_t done, size_t total);    /* after each chunk of the prompt; non-zero stops */

    /* Speculation: the next tokens are guessed, and verified in one step. It changes the speed and nothing else: text,
     * events, random numbers and the sequence afterwards are those of plain generation, to the bit, whatever the
     * sampling (but see accept_min_p). It turns itself off where it does not pay. While a callback runs, the sequence
     * may hold guesses behind the tokens that were given out. A scheduler guesses as long as few answers run, and does
     * not draft. */
    int n_lookup;       /* most tokens guessed from what the sequence said before, 0..16; 0 = off; default 16 */
    minim_seq *draft;   /* guesses of a smaller model: a sequence of an engine of its own whose model has the same
                           vocabulary. It is minim_generate()'s to fill and cut; keep it for the next turn. NULL = none */
    int n_draft;        /* most tokens drafted at a time, 0..16; 0 = 16 */
    int n_draft_min;    /* guesses made even where they do not pay, 0..16; default 0 */
    float draft_min_p;  /* a drafted token that the draft itself thinks less likely ends the guesses; default 0 */
    float accept_min_p; /* above 0: a drafted token stands if its probability (of the raw logits) is at least this, even
                           where plain generation would have chosen another. The text is then one of two models, and no
                           longer plain generation's; it is still the same each time. 0 = exact (the default) */

    /* The first n_forced tokens of the answer, in place of what sampling chooses: events then say what the model thinks
     * of a given text. */
    const int32_t *forced;
    size_t n_forced;
} minim_generate_options;

MINIM_API void minim_generate_options_default(minim_generate_options *options);

typedef struct minim_result {
    size_t size; /* set by the caller */
    minim_stop stop;
    size_t n_prompt, n_generated;                             /* tokens; an end token counts as generated */
    double prefill_seconds;                                   /* the prompt, up to its last logits */
    double first_token_seconds;                               /* from the call to the first sampled token */
    double decode_seconds;                                    /* everything after that but packing of weights */
    uint64_t decode_bytes;                                    /* weight bytes read while decoding */
    double sum_logprob, min_logprob, sum_margin, sum_entropy; /* over the generated tokens */
    size_t n_reused;                                          /* of the prompt: from the prefix cache */
    size_t n_steps;               /* of the model while decoding; each reads the weights once */
    size_t n_drafted, n_accepted; /* tokens guessed, and those that were right */
    size_t n_overruled;           /* of these, by accept_min_p alone */
} minim_result;

/* Appends the prompt to the sequence and generates; what the prefix cache has of the prompt of an empty sequence is not
 * computed again. Afterwards the sequence holds the prompt and every generated token
 * but the last, which has not been run; when it was stopped before the first token, the part of the prompt that was run
 * (see minim_seq_length). An empty prompt is an argument error. On failure the sequence is as before the
 * call. result may be NULL. */
MINIM_API minim_status minim_generate(minim_seq *seq, const int32_t *prompt, size_t n_prompt,
                                      const minim_generate_options *options, minim_result *result, minim_error *error);

/* ---- many answers at once -------------------------------------------------------------------------------------- */

/* A scheduler makes many answers together on one engine (continuous batching; Yu et al. 2022, Orca). Requests join and
 * leave at every step; a step computes the next token of every running answer and a piece of the prompts that are not
 * done, so that a long prompt does not hold up who is answering. When pages run out, the youngest request of the lowest
 * priority is paused: its pages are given back, and what it lost is computed again later, to the same bits. Every
 * answer is that of minim_generate() alone on an empty sequence, or on a fork of minim_request.behind.
 *
 * Submit, cancel and get_info may be called from any thread and from callbacks; all callbacks come from the thread that
 * makes the steps. The engine may be used otherwise at the same time. */
typedef struct minim_scheduler minim_scheduler;

typedef struct minim_scheduler_options {
    size_t size;
    int max_running; /* requests that are computed together; default 32 */
    int max_queue;   /* requests that wait to be started; default 1024 */
    int chunk;       /* most prompt tokens of a step in which an answer is running (without one: n_batch); default 64 */
} minim_scheduler_options;

MINIM_API void minim_scheduler_options_default(minim_scheduler_options *options);

MINIM_API minim_status minim_scheduler_new(minim_engine *engine, const minim_scheduler_options *options,
                                           minim_scheduler **scheduler, minim_error *error);
/* Requests that are left end as cancelled. Not from a callback, and before the engine is freed. */
MINIM_API void minim_scheduler_free(minim_scheduler *scheduler);

typedef enum minim_request_state {
    MINIM_REQUEST_RUNNING, /* started, or goes on after a pause */
    MINIM_REQUEST_PAUSED   /* its pages were needed for others; it goes on by itself */
} minim_request_state;

/* How a request has ended. */
typedef struct minim_outcome {
    minim_status status;        /* MINIM_OK, also when it was cancelled; otherwise there is no answer */
    const char *error;          /* one line, "" without an error */
    const minim_result *result; /* times count from the submission */
    size_t n_pauses;
    size_t n_recomputed; /* tokens that were computed again */
} minim_outcome;

typedef struct minim_request {
    size_t size;
    const int32_t *prompt; /* copied, as are the options and their stop strings */
    size_t n_prompt;
    const minim_generate_options *options; /* NULL = the defaults; their callbacks get their own `user` */
    int priority;                          /* higher ones first; equal ones in the order they came */
    void *user;
    void (*on_state)(void *user, uint64_t id, minim_request_state state);   /* may be NULL */
    void (*on_done)(void *user, uint64_t id, const minim_outcome *outcome); /* once for every request; may be NULL */
    /* The prompt goes behind the tokens of this sequence, in a fork that is made at once: several requests can share
     * what comes before them. NULL = an empty one. It belongs to the caller and may be freed after the call. */
    minim_seq *behind;
} minim_request;

MINIM_API void minim_request_default(minim_request *request);

/* Puts a request into the queue; *id (may be NULL) names it, never twice. MINIM_ERR_SPACE when the queue is full,
 * MINIM_ERR_CONTEXT when the prompt (with what it goes behind) does not fit the context or the whole KV pool. */
MINIM_API minim_status minim_scheduler_submit(minim_scheduler *scheduler, const minim_request *request, uint64_t *id,
                                              minim_error *error);
/* The request ends before it takes part in another step. MINIM_ERR_ARGUMENT when it has ended already. */
MINIM_API minim_status minim_scheduler_cancel(minim_scheduler *scheduler, uint64_t id);

/* One step. *n_left (may be NULL): requests that are not done. What goes wrong with a request ends that request only.
 * An argument error when a step is running. */
MINIM_API minim_status minim_scheduler_step(minim_scheduler *scheduler, size_t *n_left, minim_error *error);
/* Steps until nothing is left. */
MINIM_API minim_status minim_scheduler_run(minim_scheduler *scheduler, minim_error *error);

typedef struct minim_scheduler_info {
    size_t size;                                         /* set by the caller */
    size_t n_running, n_waiting, n_paused;               /* requests now */
    uint64_t n_submitted, n_done, n_pauses;              /* since it began */
    uint64_t n_steps, n_prefill, n_decode, n_recomputed; /* steps; tokens computed of prompts and of answers; again */
} minim_scheduler_info;

MINIM_API minim_status minim_scheduler_get_info(minim_scheduler *scheduler, minim_scheduler_info *info);

#ifdef __cplusplus
}
#endif
#endif
