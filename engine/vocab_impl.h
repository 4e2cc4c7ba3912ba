/* vocab_impl.h: what the files of the vocabulary share. vocab.c loads it and knows the tokens, vocab_special.c finds
 * special tokens in text, vocab_text.c takes text apart around them and puts it together again. What lies between them
 * is the matter of the tokenizer kind: vocab_spm.c, vocab_bpe.c or vocab_unigram.c. */
#ifndef ENGINE_VOCAB_IMPL_H
#define ENGINE_VOCAB_IMPL_H

#include "vocab.h"
#include "vocab_merge.h"
#include "vocab_table.h"

#define VOCAB_SPACE_MARK "\xe2\x96\x81" /* "▁", U+2581: how SentencePiece writes a space */

enum { VOCAB_MAX_ENDS = 32 };
enum vocab_flag { VOCAB_FLAG_END = 1, VOCAB_FLAG_STRIP = 2 };

enum vocab_kind { VOCAB_SPM, VOCAB_BPE, VOCAB_UNIGRAM };

typedef struct vocab_spm vocab_spm;
typedef struct vocab_bpe vocab_bpe;
typedef struct vocab_unigram vocab_unigram;
struct split_kind;

struct vocab {
    minim_allocator allocator;
    enum vocab_kind kind;
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
    vocab_spm *spm;           /* of these three, the one of the kind */
    vocab_bpe *bpe;
    vocab_unigram *unigram;
};

/* Sorts ids[n], stable; before(context, a, b): a must come before b. scratch[n]. */
void vocab_sort(int32_t *ids, int32_t *scratch, size_t n, int (*before)(const void *context, int32_t a, int32_t b),
                const void *context);

/* The texts are a hostile file's choice. A table that needs more probes than this has been made to be slow. */
static inline uint64_t vocab_probe_limit(uint64_t n) {
    return 64 * n + 65536;
}

/* For the entries of key 'tokenizer.ggml.<what>' that have passed the limit. */
minim_status vocab_collision(const char *path, const char *what, minim_error *e);

static inline const char *vocab_bytes(const vocab *v, int32_t token, size_t *n) {
    *n = v->at[token + 1] - v->at[token] - 1;
    return v->text + v->at[token];
}

/* Bytes of the character at text[n], n > 0. What is not UTF-8 counts byte by byte. */
static inline size_t vocab_character(const char *text, size_t n) {
    size_t length;
    if ((unsigned char)*text < 0x80) return 1;
    length = utf8_length(text, n);
    return length ? length : 1;
}

/* vocab_find(), adding to *probes how many places were looked at. */
int32_t vocab_find_counted(const vocab *v, const char *text, size_t n, uint64_t *probes);
/* Whether a comes before b when sorted by text; the context is a vocab. */
int vocab_text_before(const void *context, int32_t a, int32_t b);
/* The first of sorted[low..high) whose byte at `depth` is not less than `byte`. All are longer than depth and agree
 * before it. */
size_t vocab_narrow(const vocab *v, const int32_t *sorted, size_t low, size_t high, size_t depth, int byte);
/* SentencePiece: 1 if text may become this token, other than as a special one: a normal token, or a user-defined one
 * that contains "▁". A token with a real space cannot come up, because spaces are "▁" by then. */
int vocab_is_mergeable(const vocab *v, int32_t token);
/* The value of a text of the form <0xAB>, else -1. */
int vocab_byte_value(const char *text, size_t n);
/* Replaces each "▁" by a space, in place; returns the new length. */
size_t vocab_short_spaces(char *text, size_t n);
/* Appends a token; -1 when memory is short. */
int token_list_push(const minim_allocator *a, token_list *l, int32_t token);
/* The same; instead of -1 the unknown token, unless that is a control token, which no text may become: then nothing. */
int vocab_push_token(const vocab *v, const minim_allocator *a, token_list *out, int32_t token);
/* Appends what stands for a byte that no other token covers. */
int vocab_push_byte(const vocab *v, const minim_allocator *a, token_list *out, unsigned char byte);

/* ---- special tokens in text: vocab_special.c -------------------------------------------------------------------- */

/* A token that stands at text[at .. at + n). */
typedef struct special_cut {
    size_t at, n;
    int32_t token;
} special_cut;

/* A text in which special tokens are looked for, and memory for it. */
typedef struct special_reader {
    const vocab *v;
    enum vocab_span_kind kind;
    const token_list *sealed; /* user-defined tokens that a SEALED span must not contain */
    const char *text;
    size_t at, n; /* what is before `at` has been read */
    merge_work work;
    struct special_cover *cover;
    size_t cover_capacity;
    special_cut *cut; /* [n_cuts], in order; those before next_cut have been given out */
    size_t n_cuts, next_cut, cut_capacity;
} special_reader;

/* Lists the tokens to look for. */
minim_status vocab_list_special(vocab *v, minim_error *e);
/* Begins with another text; the memory is kept. */
void special_begin(special_reader *r, enum vocab_span_kind kind, const char *text, size_t n);
/* The next special token: 1 and *cut, 0 if there is none any more, -1 when memory is short. */
int special_next(special_reader *r, special_cut *cut);
void special_free(special_reader *r);

/* ---- a stretch of text between special tokens ------------------------------------------------------------------- */

enum { VOCAB_WORK_BEFORE = 1 };

/* The stretch, and memory that is used again for the next one. Before the text is room for the invented space, behind
 * it are VOCAB_WORK_BEHIND bytes. */
typedef struct vocab_work {
    merge_work merge;
    char *text; /* the stretch is text[VOCAB_WORK_BEFORE .. VOCAB_WORK_BEFORE + n) */
    size_t n, capacity;
    char *normal; /* unigram: the normalised text, and the best way to each of its bytes */
    size_t n_normal, normal_capacity;
    struct unigram_step *step;
    size_t step_capacity;
} vocab_work;

/* Each kind has three functions. _new() prepares it; scores[n], one for each token. _encode() appends the tokens of the
 * stretch, which is not empty, and may change its text; add_space: begin with the invented space. -1 when memory is
 * short. */
minim_status vocab_spm_new(const vocab *v, const float *scores, const char *path, vocab_spm **out, minim_error *e);
void vocab_spm_free(const vocab *v, vocab_spm *spm);
int vocab_spm_encode(const vocab *v, vocab_work *w, int add_space, token_list *out);

minim_status vocab_unigram_new(const vocab *v, const gguf_file *f, const float *scores, vocab_unigram **out,
                               minim_error *e);
void vocab_unigram_free(const vocab *v, vocab_unigram *u);
int vocab_unigram_encode(const vocab *v, vocab_work *w, int add_space, token_list *out);
void vocab_unigram_work_free(vocab_work *w);

minim_status vocab_bpe_new(const vocab *v, const gguf_file *f, const struct split_kind *split, vocab_bpe **out,
                           minim_error *e);
void vocab_bpe_free(const vocab *v, vocab_bpe *bpe);
int vocab_bpe_encode(const vocab *v, vocab_work *w, token_list *out);
/* The byte that this text stands for, -1 if it is not one byte's. */
int vocab_bpe_byte_value(const char *text, size_t n);
/* The bytes of a normal or user-defined token; its own text if that does not stand for bytes. */
const char *vocab_bpe_piece(const vocab *v, int32_t token, size_t *n);

#endif
