/* model.c: loading and describing a model: the public minim_model_* calls that are not inspect.c's. */
#include "model.h"

#include <fenv.h>
#include <stdio.h>
#include <string.h>

#include "../models/chat.h"
#include "../models/default.h"

#define MODEL_TEXT(x)  MODEL_TEXT_(x)
#define MODEL_TEXT_(x) #x

const char *minim_version(void) {
    return MODEL_TEXT(MINIM_VERSION_MAJOR) "." MODEL_TEXT(MINIM_VERSION_MINOR) "." MODEL_TEXT(MINIM_VERSION_PATCH);
}

const char *minim_status_name(minim_status status) {
    static const char *const name[] = {"ok",          "argument", "memory", "io",       "format",
                                       "unsupported", "context",  "space",  "cancelled"};
    return (unsigned)status < sizeof name / sizeof *name ? name[status] : "unknown";
}

const void *minim_default_model(size_t *size) {
    return models_default_gguf(size);
}

void minim_model_options_default(minim_model_options *options) {
    *options = (minim_model_options){.size = sizeof *options, .level = MINIM_LOAD_ALL};
}

/* Copies text that came from a file, always terminated: as many whole characters as fit, '?' for what is none. */
static void model_copy_text(char *out, size_t capacity, const gguf_file *f, const char *key) {
    gguf_str s = {"", 0};
    int found;
    gguf_get_str(f, key, &s, &found, NULL);
    size_t used = 0;
    for (size_t i = 0, n; i < s.n && s.s[i]; i += n, used += n) {
        n = utf8_length(s.s + i, s.n - i);
        const char *character = n ? s.s + i : "?";
        if (!n) n = 1;
        if (n >= capacity - used) break;
        memcpy(out + used, character, n);
    }
    out[used] = 0;
}

/* "Q4_0 x155, F32 x45": most frequent first. */
static void model_count_types(minim_model *m) {
    uint32_t type[64], count[64], n = 0;
    for (size_t i = 0; i < gguf_tensor_count(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        m->n_params += t->elements;
        m->file_bytes += t->bytes;
        uint32_t k = 0;
        while (k < n && type[k] != t->type) k++;
        if (k == n) {
            if (n == 64) continue;
            type[n] = t->type, count[n++] = 0;
        }
        count[k]++;
    }
    for (size_t used = 0;;) {
        uint32_t best = 0;
        for (uint32_t k = 1; k < n; k++) best = count[k] > count[best] ? k : best;
        if (!n || !count[best] || used >= sizeof m->weight_types) break;
        used += (size_t)snprintf(m->weight_types + used, sizeof m->weight_types - used, "%s%s x%u", used ? ", " : "",
                                 kern_type_get(type[best]).name, count[best]);
        count[best] = 0;
    }
}

/* The layers to load: all, or those that were asked for. */
static minim_status model_choose_layers(minim_model *m, const minim_model_options *o, minim_error *e) {
    const int n = m->shape.n_layers;
    m->first_layer = o->first_layer;
    m->end_layer = o->end_layer ? o->end_layer : n;
    if (o->first_layer == 0 && o->end_layer == 0) return MINIM_OK;
    if (o->first_layer >= 0 && o->first_layer < m->end_layer && m->end_layer <= n) return MINIM_OK;
    return err_set(e, MINIM_ERR_ARGUMENT, "%s: layers %d to %d, expected some of 0 to %d", gguf_path(m->file),
                   o->first_layer, m->end_layer - 1, n - 1);
}

static minim_status model_load_file(const char *path, const void *data, size_t size, const minim_model_options *user,
                                    minim_model **out, minim_error *e) {
    if (!out) return err_set(e, MINIM_ERR_ARGUMENT, "model is NULL");
    *out = NULL;
    minim_model_options o;
    minim_model_options_default(&o);
    if (user) memcpy(&o, user, user->size < sizeof o ? user->size : sizeof o);
    if (o.n_threads < 0) return err_set(e, MINIM_ERR_ARGUMENT, "n_threads is %d, expected 0 or more", o.n_threads);
    if ((unsigned)o.level > MINIM_LOAD_ALL)
        return err_set(e, MINIM_ERR_ARGUMENT, "level is %d, expected MINIM_LOAD_HEADER, _VOCAB or _ALL", (int)o.level);

    minim_allocator a = mem_allocator(o.allocator);
    minim_model *m = mem_zalloc(&a, 1, sizeof *m);
    if (!m) return err_memory(e, "the model", sizeof *m);
    m->allocator = a;
    m->log = o.log, m->log_user = o.log_user;
    m->level = o.level;
    minim_status status = gguf_open(&a, path, data, size, &m->file, e);
    if (!status) {
        model_copy_text(m->architecture, sizeof m->architecture, m->file, "general.architecture");
        model_copy_text(m->name, sizeof m->name, m->file, "general.name");
        model_count_types(m);
        /* A file can be looked at and its vocabulary used although minim does not know its architecture. */
        status = model_read_shape(m, &m->shape_error);
        m->shape_error.status = status;
        if (status && o.level >= MINIM_LOAD_ALL && e) *e = m->shape_error;
        if (o.level < MINIM_LOAD_ALL) status = MINIM_OK;
    }
    if (!status) status = model_choose_layers(m, &o, e);
    if (!status) weights_plan(m, &o);
    if (!status && o.level >= MINIM_LOAD_VOCAB) status = vocab_new(&a, m->file, &m->vocab, e);
    if (!status && m->vocab) m->n_vocab = vocab_size(m->vocab);
    if (!status && o.level >= MINIM_LOAD_ALL) status = weights_load(m, &o, e);
    if (status) {
        minim_model_free(m);
        return status;
    }
    if (o.level == MINIM_LOAD_ALL) gguf_close_data(m->file);
    *out = m;
    return err_ok(e);
}

/* Rotary frequencies and the like are computed while loading: with the same rounding whatever the host has set. */
static minim_status model_load(const char *path, const void *data, size_t size, const minim_model_options *options,
                               minim_model **model, minim_error *e) {
    fenv_t host;
    fegetenv(&host);
    fesetenv(FE_DFL_ENV);
    minim_status status = model_load_file(path, data, size, options, model, e);
    fesetenv(&host);
    return status;
}

minim_status minim_model_load(const char *path, const minim_model_options *options, minim_model **model,
                              minim_error *error) {
    if (!path) return err_set(error, MINIM_ERR_ARGUMENT, "path is NULL");
    return model_load(path, NULL, 0, options, model, error);
}

minim_status minim_model_load_memory(const void *data, size_t size, const char *name,
                                     const minim_model_options *options, minim_model **model, minim_error *error) {
    if (!data) return err_set(error, MINIM_ERR_ARGUMENT, "data is NULL");
    return model_load(name ? name : "memory", data, size, options, model, error);
}

void minim_model_free(minim_model *m) {
    if (!m) return;
    weights_free(m);
    vocab_free(m->vocab);
    gguf_close(m->file);
    minim_allocator a = m->allocator;
    mem_free(&a, m, 1, sizeof *m);
}

/* Name of the chat format that the file's template is. */
static const char *model_chat_format(const minim_model *m) {
    gguf_str text = {"", 0};
    int found;
    gguf_get_str(m->file, "tokenizer.chat_template", &text, &found, NULL);
    chat_style style;
    return chat_recognise(text.s, &style) ? style.format->name : "unknown";
}

minim_status minim_model_get_info(const minim_model *m, minim_model_info *info) {
    if (!m || !info || info->size < sizeof info->size) return MINIM_ERR_ARGUMENT;
    const model_shape *s = &m->shape;
    minim_model_info full = {.size = info->size,
                             .architecture = m->architecture,
                             .name = m->name,
                             .chat_format = model_chat_format(m),
                             .level = m->level,
                             .n_layers = s->n_layers,
                             .n_embd = s->n_embd,
                             .n_heads = s->n_heads,
                             .n_kv_heads = s->n_kv_heads,
                             .head_dim = s->head_dim,
                             .n_ff = s->n_ff,
                             .n_vocab = m->n_vocab,
                             .n_ctx_train = s->n_ctx_train,
                             .bos = m->vocab ? vocab_bos(m->vocab) : -1,
                             .eos = m->vocab ? vocab_eos(m->vocab) : -1,
                             .n_params = m->n_params,
                             .file_bytes = m->file_bytes,
                             .weight_bytes = m->weight_bytes,
                             .step_bytes = m->step_bytes,
                             .weight_types = m->weight_types,
                             .panels = (int)gguf_panels(m->file),
                             .mapped_bytes = m->mapped_bytes};
    memcpy(info, &full, info->size < sizeof full ? info->size : sizeof full);
    return MINIM_OK;
}
