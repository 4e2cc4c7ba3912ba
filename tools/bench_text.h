/* bench_text.h: `minim bench --text`: what speculation does for the speed of a given answer. */
#ifndef TOOLS_BENCH_TEXT_H
#define TOOLS_BENCH_TEXT_H

#include "speculation.h"

typedef struct bench_text_settings {
    option_list texts, prompts; /* files; the i-th prompt stands before the i-th text */
    const char *vocabulary;     /* a file whose tokenizer is used; NULL = the model's own */
    int n_random;               /* tokens of a random text, as one more; 0 = none */
    tool_speculation speculation;
} bench_text_settings;

/* Says each text again and again, token by token as a model would generate it, in rounds: once without guesses and once
 * with, in turning order. Prints a table. `tool` says which model, how many threads, and so on. Returns an exit code.
 */
int bench_texts(const bench_text_settings *settings, const tool_settings *tool, int rounds);

#endif
