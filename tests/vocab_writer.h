/* vocab_writer.h: builds vocabularies in memory for tests.
 *
 *     vw w;
 *     vw_init(&w, VW_BYTES);                 // <unk> <s> </s> and, with VW_BYTES, the 256 byte tokens
 *     vw_add(&w, "▁the", VOCAB_NORMAL, -1);
 *     gw_bool(&w.file, "tokenizer.ggml.add_space_prefix", 0);
 *     vocab *v = vw_open(&w, NULL, NULL);    // NULL when it is refused
 *
 * Keys are left out of the file where w.omit says so.
 */
#ifndef TESTS_VOCAB_WRITER_H
#define TESTS_VOCAB_WRITER_H

#include "../engine/vocab.h"
#include "gguf_writer.h"

enum { VW_MAX = 4096, VW_BYTES = 1 };
enum vw_omit { VW_NO_MODEL = 1, VW_NO_TOKENS = 2, VW_NO_SCORES = 4, VW_NO_TYPES = 8 };

typedef struct vw {
    gw file; /* further keys */
    int omit;
    const char *model;
    const char *text[VW_MAX];
    size_t bytes[VW_MAX];
    int32_t type[VW_MAX];
    float score[VW_MAX];
    size_t n;
    char byte_text[256][8];
} vw;

static inline int32_t vw_add_bytes(vw *w, const char *text, size_t n, int type, float score) {
    if (w->n == VW_MAX) abort();
    w->text[w->n] = text;
    w->bytes[w->n] = n;
    w->type[w->n] = type;
    w->score[w->n] = score;
    return (int32_t)w->n++;
}

/* The text must outlive w. Returns the id. */
static inline int32_t vw_add(vw *w, const char *text, int type, float score) {
    return vw_add_bytes(w, text, strlen(text), type, score);
}

static inline void vw_init(vw *w, int bytes) {
    memset(w, 0, sizeof *w);
    gw_init(&w->file);
    w->model = "llama";
    vw_add(w, "<unk>", VOCAB_UNKNOWN, 0);
    vw_add(w, "<s>", VOCAB_CONTROL, 0);
    vw_add(w, "</s>", VOCAB_CONTROL, 0);
    for (int b = 0; b < 256 && bytes; b++) {
        snprintf(w->byte_text[b], sizeof w->byte_text[b], "<0x%02X>", (unsigned)b);
        vw_add(w, w->byte_text[b], VOCAB_BYTE, 0);
    }
}

/* Adds the keys and gives the image; w can be changed and used again. free() it. */
static inline uint8_t *vw_image(const vw *w, size_t *n) {
    gw file;
    uint8_t *image;
    gw_init(&file);
    gw_str(&file, "general.architecture", "llama");
    if (!(w->omit & VW_NO_MODEL)) gw_str(&file, "tokenizer.ggml.model", w->model);
    if (!(w->omit & VW_NO_TOKENS)) {
        gw_array(&file, "tokenizer.ggml.tokens", 8, w->n);
        for (size_t i = 0; i < w->n; i++) gw_put_string(&file.keys, w->text[i], w->bytes[i]);
    }
    if (!(w->omit & VW_NO_SCORES)) gw_numbers(&file, "tokenizer.ggml.scores", 6, w->score, w->n, 4);
    if (!(w->omit & VW_NO_TYPES)) gw_numbers(&file, "tokenizer.ggml.token_type", 5, w->type, w->n, 4);
    gw_put(&file.keys, w->file.keys.data, w->file.keys.n);
    file.n_keys += w->file.n_keys;
    image = gw_finish(&file, n);
    gw_free(&file);
    return image;
}

/* The vocabulary, and the file too if `file` is not NULL (close it after use). NULL and *e when it is refused. */
static inline vocab *vw_open_file(const vw *w, const minim_allocator *a, gguf_file **file, minim_error *e) {
    size_t n;
    uint8_t *image = vw_image(w, &n);
    gguf_file *f = NULL;
    vocab *v = NULL;
    if (!gguf_open(NULL, "made.gguf", image, n, &f, e)) vocab_new(a, f, &v, e);
    if (f) gguf_close_data(f);
    free(image);
    if (file)
        *file = f;
    else
        gguf_close(f);
    return v;
}

static inline vocab *vw_open(const vw *w, const minim_allocator *a, minim_error *e) {
    return vw_open_file(w, a, NULL, e);
}

static inline void vw_free(vw *w) {
    gw_free(&w->file);
}

#endif
