/* vocab.h: tokens and text. Three kinds of tokenizer (key tokenizer.ggml.model): SentencePiece BPE ("llama", Kudo &
 * Richardson 2018), byte-level BPE ("gpt2", Radford et al. 2019) and the unigram model ("t5", Kudo 2018).
 *
 * What becomes of text: special tokens are cut out of it, and what lies between goes through the tokenizer kind. What
 * no token covers becomes byte tokens (a byte without a token is U+FFFD in byte-level BPE), else the unknown token.
 *
 *   special tokens   control and unknown tokens only where special tokens are parsed, user-defined ones always. The
 *                    longest is cut out first, wherever it stands; of equally long ones, that which comes first in
 *                    the list of tokens, from left to right. Texts longer than VOCAB_MAX_SPECIAL bytes are not looked
 *                    for.
 *   the rest         only gives normal and byte tokens, and user-defined ones that contain "▁" (runs of spaces): no
 *                    text can become a control or unused token, so a user's text is never anything but text.
 *   duplicates       where several tokens have the same text, the first is meant; an empty text is never meant.
 *
 * vocab_piece() is the way back: the pieces of the tokens of a text, put together, are the text, byte for byte, as long
 * as "▁" and every byte have their tokens. "▁" (U+2581) in a text comes back as a space from SentencePiece, which
 * cannot tell them apart; the unigram kind normalises text, so the normalised text comes back.
 */
#ifndef ENGINE_VOCAB_H
#define ENGINE_VOCAB_H

#include "gguf.h"

enum vocab_token_type {
    VOCAB_NORMAL = 1,
    VOCAB_UNKNOWN = 2,
    VOCAB_CONTROL = 3,
    VOCAB_USER = 4,
    VOCAB_UNUSED = 5,
    VOCAB_BYTE = 6
};

enum {
    VOCAB_MAX_SPECIAL = 256, /* bytes of a special token that is looked for in text */
    VOCAB_MAX_TEXT = 1 << 30 /* bytes of text that are tokenized at once */
};

typedef struct vocab vocab;

/* Copies what it needs; the gguf_file may be closed afterwards. A vocabulary that cannot be used is MINIM_ERR_FORMAT or
 * MINIM_ERR_UNSUPPORTED with a text that names the key. A file without token types gets sensible ones. */
minim_status vocab_new(const minim_allocator *a, const gguf_file *f, vocab **out, minim_error *e);
void vocab_free(vocab *v); /* NULL is fine */

int32_t vocab_size(const vocab *v);
int32_t vocab_bos(const vocab *v); /* -1 = none */
int32_t vocab_eos(const vocab *v);
int vocab_adds_bos(const vocab *v); /* 1: a text begins with BOS (which then exists) */
int vocab_is_end(const vocab *v, int32_t token);
/* The tokens that end an answer, the most important first: the file's end of sequence, of turn, of message, then tokens
 * with a text known to mean it. -1 behind the last. */
int32_t vocab_end_at(const vocab *v, size_t index);
/* The token's own text in the file, *n bytes (NUL-terminated too). */
const char *vocab_text(const vocab *v, int32_t token, size_t *n);
int vocab_type(const vocab *v, int32_t token); /* 0 when there is no such token */
/* The token with exactly this text, -1 if there is none. */
int32_t vocab_find(const vocab *v, const char *text, size_t n);

/* A growing list of tokens. */
typedef struct token_list {
    int32_t *token;
    size_t n, capacity;
} token_list;
void token_list_free(const minim_allocator *a, token_list *l);

/* Appends the tokens of text; flags as minim_tokenize(). On failure the list keeps its former length. */
minim_status vocab_tokenize(const vocab *v, const minim_allocator *a, const char *text, size_t n, unsigned flags,
                            token_list *out, minim_error *e);

/* A text that is put together of parts with different rights, for example a chat prompt. It is tokenized as one text,
 * so merges reach across the borders, but no special token does. */
enum vocab_span_kind {
    VOCAB_SPAN_PLAIN,   /* as vocab_tokenize() without MINIM_PARSE_SPECIAL */
    VOCAB_SPAN_SPECIAL, /* as with it */
    VOCAB_SPAN_SEALED,  /* as PLAIN; also user-defined tokens are not found if they end an answer or stand in a SPECIAL
                           span of the same text: the contents of a message cannot imitate the markers around it */
    VOCAB_SPAN_TOKEN    /* no text but this token */
};

typedef struct vocab_span {
    enum vocab_span_kind kind;
    int32_t token;
    const char *text;
    size_t n;
} vocab_span;

minim_status vocab_tokenize_spans(const vocab *v, const minim_allocator *a, const vocab_span *spans, size_t n_spans,
                                  token_list *out, minim_error *e);

/* Bytes of one token as they appear in text: "▁" is a space, byte tokens are their byte, control and unused tokens
 * nothing unless special is set, the unknown token U+FFFD unless special is set. Writes at most capacity bytes, returns
 * the full length. `at_start`: the token begins a text, so the leading space that tokenizing invents is dropped. */
size_t vocab_piece(const vocab *v, int32_t token, int special, int at_start, char *buf, size_t capacity);
/* Whether the token behind this one is at the start again, for vocab_piece(): tokens without a piece leave at_start as
 * it is, special tokens that show set it (tokenizing invents a space behind them), all others clear it. */
int vocab_next_at_start(const vocab *v, int32_t token, int special, int at_start);

#endif
