#include "family.h"

#include <string.h>

static const family family_table[] = {
    {.architecture = "llama",
     .title = "Llama 2/3, TinyLlama, SmolLM, Mistral 7B, DeepSeek-LLM and all that convert to it",
     .rope = FAMILY_ROPE_ADJACENT,
     .biases = 1,
     .rope_factors = 1},
};

const family *family_at(size_t index) {
    return index < sizeof family_table / sizeof *family_table ? &family_table[index] : NULL;
}

const family *family_find(const char *architecture) {
    const family *row;
    for (size_t i = 0; (row = family_at(i)); i++) {
        if (!strcmp(row->architecture, architecture)) return row;
    }
    return NULL;
}
