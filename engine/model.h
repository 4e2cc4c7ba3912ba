/* model.h: what a minim_model is made of. */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include "gguf.h"
#include "vocab.h"

struct minim_model {
    minim_allocator allocator;
    gguf_file *file; /* metadata and tensor list */
    vocab *vocab;    /* NULL when the model was loaded without it */
};

#endif
