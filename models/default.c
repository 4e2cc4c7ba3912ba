/* default.c: see default.h. The file is pulled in by the assembler, so no generated source is needed. */
#include "default.h"

#ifdef MINIM_NO_DEFAULT_MODEL
const void *models_default_gguf(size_t *size) {
    *size = 0;
    return NULL;
}
#else
#ifndef MINIM_DEFAULT_MODEL_PATH
#define MINIM_DEFAULT_MODEL_PATH "models/stories260K.gguf"
#endif
__asm__(".section .rodata\n"
        ".balign 64\n"
        ".global models_default_begin\n"
        ".hidden models_default_begin\n"
        "models_default_begin:\n"
        ".incbin \"" MINIM_DEFAULT_MODEL_PATH "\"\n"
        ".global models_default_end\n"
        ".hidden models_default_end\n"
        "models_default_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const unsigned char models_default_begin[], models_default_end[];

const void *models_default_gguf(size_t *size) {
    *size = (size_t)(models_default_end - models_default_begin);
    return models_default_begin;
}
#endif
