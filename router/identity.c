/* identity.c: what tells one local model from another in the keys of the cache. */
#include <stdlib.h>
#include <string.h>

#include "sha256.h"
#include "support.h"

enum { IDENTITY_MAX_ITEMS = 64 }; /* of an array such as the vocabulary */

static void identity_add_text(sha256_state *hash, const char *text) {
    sha256_add(hash, text ? text : "", strlen(text ? text : "") + 1);
}

static minim_status identity_add_meta(sha256_state *hash, const minim_model *model, size_t index, router_bytes *text,
                                      minim_error *error) {
    minim_meta meta;
    size_t needed = 0;
    minim_status status = minim_model_meta(model, index, &meta);
    if (status != MINIM_OK) return router_fail(error, status, "the model's metadata entry %zu can not be read", index);
    status = minim_model_meta_text(model, index, IDENTITY_MAX_ITEMS, text->data, text->capacity, &needed);
    if (status == MINIM_ERR_SPACE && needed < SIZE_MAX / 2) {
        char *grown = realloc(text->data, needed + 1);
        if (!grown) return router_fail_memory(error, "the model's metadata");
        text->data = grown;
        text->capacity = needed + 1;
        status = minim_model_meta_text(model, index, IDENTITY_MAX_ITEMS, text->data, text->capacity, &needed);
    }
    if (status != MINIM_OK) return router_fail(error, status, "the model's metadata \"%s\" can not be read", meta.key);
    identity_add_text(hash, meta.key);
    sha256_add(hash, &meta.count, sizeof meta.count);
    sha256_add(hash, text->data, needed);
    return MINIM_OK;
}

minim_status minim_router_identity(const minim_model *model, char identity[65], minim_error *error) {
    minim_model_info info = {.size = sizeof info};
    sha256_state hash;
    uint8_t digest[32];
    if (!model || !identity || minim_model_get_info(model, &info) != MINIM_OK) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_router_identity: an argument is NULL");
    }
    sha256_begin(&hash);
    identity_add_text(&hash, info.chat_format);
    router_bytes text = {0};
    minim_status status = MINIM_OK;
    for (size_t i = 0; i < minim_model_meta_count(model) && status == MINIM_OK; i++) {
        status = identity_add_meta(&hash, model, i, &text, error);
    }
    free(text.data);
    for (size_t i = 0; i < minim_model_tensor_count(model) && status == MINIM_OK; i++) {
        minim_tensor tensor;
        if (minim_model_tensor(model, i, &tensor) != MINIM_OK) continue;
        identity_add_text(&hash, tensor.name);
        identity_add_text(&hash, tensor.type);
        sha256_add(&hash, tensor.dims, sizeof tensor.dims);
    }
    sha256_end(&hash, digest);
    sha256_to_hex(digest, identity);
    return status;
}
