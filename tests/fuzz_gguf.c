/* fuzz_gguf.c: any bytes as a GGUF file, for libFuzzer. What opens is read to its last byte; what does not must leave
 * nothing behind. From the root of the repository:
 *
 *     make CC=clang SAN=fuzzer-no-link,address,undefined build/san-fuzzer-no-link-address-undefined/libinternal.a
 *     clang -std=c11 -D_GNU_SOURCE -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
 *         tests/fuzz_gguf.c build/san-fuzzer-no-link-address-undefined/libinternal.a -lm -pthread -o build/fuzz_gguf
 *     mkdir -p build/corpus && head -c 20000 models/stories260K.gguf > build/corpus/seed
 *     build/fuzz_gguf -max_total_time=300 -max_len=20000 build/corpus
 */
#include "../engine/model.h"
#include "count_allocator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned fuzz_sum; /* so that reading is not optimised away */

static void fuzz_touch(const void *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) fuzz_sum += ((const uint8_t *)bytes)[i];
}

static void fuzz_values(const gguf_file *f) {
    for (size_t i = 0; i < gguf_value_count(f); i++) {
        const gguf_value *v = gguf_value_at(f, i), *array;
        char type[32];
        uint32_t u;
        float x;
        int b;
        gguf_str s;
        if (gguf_find(f, v->key.s) != v) __builtin_trap();
        fuzz_touch(v->data, (size_t)v->count * gguf_type_bytes(v->elem_type));
        for (uint64_t k = 0; v->elem_type == GGUF_STR && k < v->count; k++) {
            const gguf_str *string = (const gguf_str *)v->data + k;
            fuzz_touch(string->s, string->n + 1);
        }
        gguf_type_text(v, type, sizeof type);
        gguf_get_u32(f, v->key.s, &u, NULL, NULL);
        gguf_get_f32(f, v->key.s, &x, NULL, NULL);
        gguf_get_bool(f, v->key.s, &b, NULL, NULL);
        gguf_get_str(f, v->key.s, &s, NULL, NULL);
        gguf_get_array(f, v->key.s, GGUF_STR, &array, NULL, NULL);
    }
}

static void fuzz_tensors(const gguf_file *f) {
    for (size_t i = 0; i < gguf_tensor_count(f); i++) {
        const gguf_tensor *t = gguf_tensor_at(f, i);
        uint8_t part[64];
        const size_t n = t->bytes < sizeof part ? (size_t)t->bytes : sizeof part;
        if (gguf_find_tensor(f, t->name.s) != t) __builtin_trap();
        fuzz_touch(gguf_data(f, t), (size_t)t->bytes);
        if (gguf_read(f, t, t->bytes - n, part, n, NULL)) __builtin_trap();
        if (gguf_read(f, t, t->bytes - n, part, n + 1, NULL) != MINIM_ERR_ARGUMENT) __builtin_trap();
    }
}

/* What `minim inspect` would show. */
static void fuzz_inspect(gguf_file *f) {
    const minim_model model = {.file = f};
    for (size_t i = 0; i < minim_model_meta_count(&model); i++) {
        char text[100];
        minim_meta meta;
        size_t needed;
        const minim_status status = minim_model_meta_text(&model, i, i % 4, text, 1 + i % sizeof text, &needed);
        if (minim_model_meta(&model, i, &meta) || strlen(text) > i % sizeof text) __builtin_trap();
        if ((status == MINIM_OK) != (needed <= i % sizeof text)) __builtin_trap();
    }
    for (size_t i = 0; i < minim_model_tensor_count(&model); i++) {
        minim_tensor t;
        if (minim_model_tensor(&model, i, &t) || !t.type || !t.layout) __builtin_trap();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* The last byte says which allocation fails: most often none. */
    count_allocator counter = {.fail_at = size && data[size - 1] > 200 ? data[size - 1] - 200u : 0};
    const minim_allocator a = count_allocator_get(&counter);
    gguf_file *f;
    minim_error e;
    const minim_status status = gguf_open(&a, "fuzz", data, size, &f, &e);
    if ((status == MINIM_OK) != (f != NULL) || e.status != status) __builtin_trap();
    if (f) {
        fuzz_values(f);
        fuzz_tensors(f);
        fuzz_inspect(f);
    }
    gguf_close(f);
    if (!count_allocator_clean(&counter) || counter.peak > (1 << 20) + 16 * size) __builtin_trap();
    return 0;
}
