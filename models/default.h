/* default.h: the model inside the binary: models/stories260K.gguf (karpathy/tinyllamas, MIT licence). */
#ifndef MODELS_DEFAULT_H
#define MODELS_DEFAULT_H

#include <stddef.h>

/* The GGUF image; NULL and 0 when built with MINIM_NO_DEFAULT_MODEL. */
const void *models_default_gguf(size_t *size);

#endif
