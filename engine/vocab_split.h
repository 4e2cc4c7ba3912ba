/* vocab_split.h: how text is cut into words before byte-level BPE merges inside them.
 *
 * Every model family publishes regular expressions for it (tokenizer.json); a GGUF file only names them
 * (tokenizer.ggml.pre). Here each of them is a scanner written by hand: linear in the text, no backtracking. */
#ifndef ENGINE_VOCAB_SPLIT_H
#define ENGINE_VOCAB_SPLIT_H

#include "unicode.h"

enum { SPLIT_MAX_STAGES = 6 };

/* Expressions are applied one after another: each cuts the pieces that the former has left, and what lies between two
 * of its matches is a piece too. */
typedef struct split_stage split_stage;

enum split_flag {
    SPLIT_WHOLE_WORDS = 1, /* a word that is a token is that token, whatever the merges say */
    SPLIT_ADD_BOS = 2,     /* texts begin with BOS where the file does not say */
    SPLIT_NO_BOS = 4       /* there is no BOS where the file does not say which */
};

typedef struct split_kind {
    const char *names;                              /* of tokenizer.ggml.pre, separated by spaces */
    unsigned flags;                                 /* enum split_flag */
    const split_stage *stage[SPLIT_MAX_STAGES + 1]; /* NULL behind the last */
} split_kind;

/* NULL when there is none of this name. */
const split_kind *split_find(const char *name, size_t n);
/* Writes "default, llama-bpe, ...": the first name of each kind; at most n bytes with the NUL. */
void split_list(char *buf, size_t n);

/* A text and where its pieces end, for each stage. */
typedef struct split_reader {
    const split_kind *kind;
    const char *text;
    size_t at, n;
    size_t end[SPLIT_MAX_STAGES];
} split_reader;

static inline split_reader split_begin(const split_kind *kind, const char *text, size_t n) {
    return (split_reader){.kind = kind, .text = text, .n = n};
}

/* Bytes of the next word, which begins at text[r->at] before the call; 0 behind the last one. */
size_t split_next(split_reader *r);

#endif
