/* vocab_impl.h: what the files of the vocabulary share. vocab.c loads it and knows the tokens, vocab_text.c takes text
 * apart around special tokens and puts it together again, vocab_spm.c merges (a further tokenizer kind is a further
 * file with the same functions). */
#ifndef ENGINE_VOCAB_IMPL_H
#define ENGINE_VOCAB_IMPL_H

#include "vocab.h"

#define VOCAB_SPACE_MARK "\xe2\x96\x81" /* "▁", U+2581: how SentencePiece writes a space */

enum { VOCAB_MAX_ENDS = 32 };
enum vocab_flag { VOCAB_FLAG_END = 1, VOCAB_FLAG_STRIP = 2 };

typedef struct vocab_spm vocab_spm;

struct vocab {
    minim_allocator allocator;
    int32_t n;
    size_t text_bytes;
    char *text;       /* [text_bytes]: all texts in order of their ids, each with a NUL behind it */
    uint32_t *at;     /* [n + 1]: token i is text[at[i] .. at[i+1] - 1) */
    uint8_t *type;    /* [n], enum vocab_token_type */
    uint8_t *flag;    /* [n], enum vocab_flag: ends an answer; the white space behind it is dropped (Phi-3) */
    int32_t *slot;    /* [slot_mask + 1]: hash table from text to id, -1 = free */
    size_t slot_mask; /* a power of two - 1 */
    int32_t byte[256];
    int32_t bos, eos, unknown; /* -1 = none */
    int32_t end[VOCAB_MAX_ENDS];
    size_t n_end;
    int add_bos, add_eos, add_space;
    int32_t *special; /* [n_special]: tokens to cut out of text, sorted by text */
    size_t n_special;
    size_t special_from[257]; /* those whose first byte is b: special[special_from[b] .. special_from[b + 1]) */
    vocab_spm *spm;
};

/* Sorts ids[n], stable; before(context, a, b): a must come before b. scratch[n]. */
void vocab_sort(int32_t *ids, int32_t *scratch, size_t n, int (*before)(const void *context, int32_t a, int32_t b),
                const void *context);

/* The texts are a hostile file's choice. A table that needs more probes than this has been made to be slow. */
static inline uint64_t vocab_probe_limit(int32_t n) {
    return 64 * (uint64_t)n + 65536;
}

static inline const char *vocab_bytes(const vocab *v, int32_t token, size_t *n) {
    *n = v->at[token + 1] - v->at[token] - 1;
    return v->text + v->at[token];
}

/* The value of a text of the form <0xAB>, else -1. */
int vocab_byte_value(const char *text, size_t n);
/* Appends a token; -1 when memory is short. */
int token_list_push(const minim_allocator *a, token_list *l, int32_t token);
/* Appends what stands for a byte that no other token covers. */
int vocab_push_byte(const vocab *v, const minim_allocator *a, token_list *out, unsigned char byte);

/* ---- a stretch of text between special tokens ------------------------------------------------------------------- */

enum { VOCAB_WORK_BEFORE = 1, VOCAB_WORK_BEHIND = 8 };

/* The stretch, and memory that is used again for the next one. Before the text is room for the invented space, behind
 * it are bytes that may be read (not used), so that a text can be loaded eight bytes at a time. */
typedef struct vocab_work {
    const minim_allocator *allocator;
    char *text; /* the stretch is text[VOCAB_WORK_BEFORE .. VOCAB_WORK_BEFORE + n) */
    size_t n, capacity;
    struct spm_symbol *symbol;
    size_t symbol_capacity;
    struct spm_pair *pair;
    size_t pair_capacity;
} vocab_work;

void vocab_work_free(vocab_work *w);

/* ---- vocab_spm.c ------------------------------------------------------------------------------------------------ */

/* Prepares the merges. scores[n], one for each token. */
minim_status vocab_spm_new(const vocab *v, const float *scores, const char *path, vocab_spm **out, minim_error *e);
void vocab_spm_free(const vocab *v, vocab_spm *spm);
/* Appends the tokens of the stretch, which is not empty, and changes its text. add_space: begin with the invented
 * space. -1 when memory is short. */
int vocab_spm_encode(const vocab *v, vocab_work *w, int add_space, token_list *out);
void vocab_spm_work_free(vocab_work *w);

#endif
