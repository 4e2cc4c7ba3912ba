/* vocab.h: tokens and text. One tokenizer kind so far: SentencePiece BPE ("llama", Kudo & Richardson 2018). */
#ifndef ENGINE_VOCAB_H
#define ENGINE_VOCAB_H

#include "gguf.h"

enum vocab_token_type {
    VOCAB_NORMAL = 1, VOCAB_UNKNOWN = 2, VOCAB_CONTROL = 3, VOCAB_USER = 4, VOCAB_UNUSED = 5, VOCAB_BYTE = 6
};

typedef struct vocab vocab;

/* Copies what it needs; the gguf_file may be closed afterwards. */
minim_status vocab_new(const minim_allocator *a, const gguf_file *f, vocab **out, minim_error *e);
void vocab_free(vocab *v);

int32_t vocab_size(const vocab *v);
int32_t vocab_bos(const vocab *v); /* -1 = none */
int32_t vocab_eos(const vocab *v);
int vocab_is_end(const vocab *v, int32_t token);
/* The token's own text in the file, *n bytes. */
const char *vocab_text(const vocab *v, int32_t token, size_t *n);
int vocab_type(const vocab *v, int32_t token);
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

/* Bytes of one token as they appear in text: "▁" is a space, byte tokens are their byte, control and unused tokens
 * nothing unless special is set. Writes at most capacity bytes, returns the full length. `at_start`: the token begins a
 * text, so the leading space that tokenizing invents is dropped. */
size_t vocab_piece(const vocab *v, int32_t token, int special, int at_start, char *buf, size_t capacity);

#endif
