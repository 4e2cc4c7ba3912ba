/* kv.c: what lies where in a page. The pages themselves: kv_pool.c. */
#include <math.h>
#include <string.h>

#include "kv_impl.h"

size_t kv_element(enum kern_kv type) {
    return type == KERN_KV_F32 ? 4 : type == KERN_KV_F16 ? 2 : 1;
}

static int kv_has_4_bits(enum kern_kv type, int is_value) {
    return type == KERN_KV_Q4 || (type == KERN_KV_Q8_Q4 && is_value);
}

int kv_is_packed(const kv_pool *p, int is_value) {
    return kv_has_4_bits(p->shape.type, is_value);
}

static uint64_t kv_dims(const kv_shape *s) {
    const uint64_t group = s->type < KERN_KV_FLOATS ? 1 : s->type == KERN_KV_Q4 ? 8 : 4;
    return ((uint64_t)s->head_dim + group - 1) / group * group;
}

size_t kv_key_dims(const kv_pool *p) {
    return (size_t)kv_dims(&p->shape);
}

/* Of one token's key or value; the scale is extra. */
static uint64_t kv_token_bytes(const kv_shape *s, int is_value) {
    if (kv_has_4_bits(s->type, is_value)) return is_value ? ((uint64_t)s->head_dim + 1) / 2 : kv_dims(s) / 2;
    return (is_value ? (uint64_t)s->head_dim : kv_dims(s)) * kv_element(s->type);
}

/* Of K or V of one head of one layer in a page. */
static uint64_t kv_head_bytes(const kv_shape *s, int is_value) {
    const uint64_t scale = s->type >= KERN_KV_FLOATS ? sizeof(float) : 0;
    return (uint64_t)s->page_size * (kv_token_bytes(s, is_value) + scale);
}

enum kern_kv kv_type(const kv_pool *p) {
    return p->shape.type;
}

int kv_shape_pages(kv_shape *s) {
    int a = s->n_layers - s->n_windowed, b = s->n_windowed;
    while (b) { /* their greatest common divisor (Euclid) */
        int rest = a % b;
        a = b, b = rest;
    }
    s->page_layers = a;
    return s->n_layers / a;
}

size_t kv_page_head_bytes(const kv_pool *p, int is_value) {
    return (size_t)kv_head_bytes(&p->shape, is_value);
}

uint64_t kv_page_bytes(const kv_shape *s) {
    uint64_t bytes;
    if (size_mul((uint64_t)s->page_layers, (uint64_t)s->n_kv_heads, &bytes) ||
        size_mul(bytes, kv_head_bytes(s, 0) + kv_head_bytes(s, 1), &bytes) || size_add(bytes, KV_HEADER, &bytes) ||
        bytes > PTRDIFF_MAX) {
        return 0;
    }
    return bytes;
}

const kv_page *kv_page_at(const kv_pool *p, const kv_table *t, size_t index, int slot) {
    return t->page[index * p->together + (size_t)(slot / p->shape.page_layers)];
}

static char *kv_head(const kv_pool *p, const kv_page *page, int slot, int head, int is_value) {
    const size_t layer = (size_t)(slot % p->shape.page_layers), heads = (size_t)p->shape.n_kv_heads;
    const size_t key = kv_page_head_bytes(p, 0), value = kv_page_head_bytes(p, 1);
    const size_t at =
        layer * heads * (key + value) + (is_value ? heads * key + (size_t)head * value : (size_t)head * key);
    return (char *)(uintptr_t)page + KV_HEADER + at;
}

void *kv_keys(const kv_pool *p, const kv_page *page, int slot, int head) {
    return kv_head(p, page, slot, head, 0);
}
void *kv_values(const kv_pool *p, const kv_page *page, int slot, int head) {
    return kv_head(p, page, slot, head, 1);
}

float *kv_scales(const kv_pool *p, void *codes, int is_value) {
    return (float *)(void *)((char *)codes + (size_t)p->shape.page_size * (size_t)kv_token_bytes(&p->shape, is_value));
}

static char kv_pair(int low, int high) {
    return (char)((unsigned)(low + 8) | (unsigned)(high + 8) << 4);
}

/* K [head_dim/4][page_size][4]: four codes that are multiplied together lie side by side. With 4 bits two groups of
 * them share four bytes. */
static void kv_store_key_codes(const kv_pool *p, const kern_table *kern, size_t column, const float *k, char *keys,
                               int8_t *codes) {
    const size_t size = (size_t)p->shape.page_size, dims = kv_key_dims(p);
    float *scale = &kv_scales(p, keys, 0)[column];
    memset(codes, 0, dims);
    if (!kv_is_packed(p, 0)) {
        kern->quantize_row(k, p->shape.head_dim, codes, scale);
        for (size_t d = 0; d < dims; d += 4) memcpy(keys + d * size + 4 * column, codes + d, 4);
        return;
    }
    kern->quantize_row_q4(k, p->shape.head_dim, codes, scale);
    for (size_t d = 0; d < dims; d += 8) {
        for (size_t i = 0; i < 4; i++) keys[(d / 8 * size + column) * 4 + i] = kv_pair(codes[d + i], codes[d + 4 + i]);
    }
}

/* V [page_size/4][head_dim][4]. With 4 bits the first and the second half of the dimensions share bytes. */
static void kv_store_value_codes(const kv_pool *p, const kern_table *kern, size_t column, const float *v, char *values,
                                 int8_t *codes) {
    const size_t dim = (size_t)p->shape.head_dim, half = (dim + 1) / 2;
    float *level = &kv_scales(p, values, 1)[column];
    if (!kv_is_packed(p, 1)) {
        kern->quantize_value(v, (int64_t)dim, codes, level);
        values += column / 4 * 4 * dim + column % 4;
        for (size_t d = 0; d < dim; d++) values[4 * d] = codes[d];
        return;
    }
    kern->quantize_value_q4(v, (int64_t)dim, codes, level);
    values += column / 4 * 4 * half + column % 4;
    for (size_t d = 0; d < half; d++) values[4 * d] = kv_pair(codes[d], half + d < dim ? codes[half + d] : 0);
}

void kv_unpack_keys(const kv_pool *p, const kern_table *kern, const void *k, int8_t *keys) {
    const size_t size = (size_t)p->shape.page_size;
    const uint8_t *packed = k;
    for (size_t d = 0; d < kv_key_dims(p); d += 8, packed += 4 * size, keys += 8 * size)
        kern->unpack_q4(packed, (int64_t)(4 * size), keys, keys + 4 * size);
}

/* Where head_dim is odd, a row of V ends with 4 codes too many, in whose place the next row begins. */
void kv_unpack_values(const kv_pool *p, const kern_table *kern, const void *v, int8_t *values) {
    const size_t size = (size_t)p->shape.page_size, dim = (size_t)p->shape.head_dim, half = (dim + 1) / 2;
    const uint8_t *packed = v;
    for (size_t i = 0; i < size; i += 4, packed += 4 * half, values += 4 * dim)
        kern->unpack_q4(packed, (int64_t)(4 * half), values, values + 4 * half);
}

/* A key that is no number makes its value none: whoever sees it gets none either, and weights_q8 only numbers. */
static void kv_settle_damage(float *key_scale, float *value_level) {
    if (isfinite(*key_scale)) return;
    *value_level = *key_scale;
    *key_scale = 0;
}

void kv_store(const kv_pool *p, const kern_table *kern, const kv_table *t, int slot, size_t position, const float *k,
              const float *v, void *scratch) {
    size_t size = (size_t)p->shape.page_size, dim = (size_t)p->shape.head_dim, column = position % size;
    const kv_page *page = kv_page_at(p, t, position / size, slot);
    for (int head = 0; head < p->shape.n_kv_heads; head++, k += dim, v += dim) {
        char *keys = kv_keys(p, page, slot, head), *values = kv_values(p, page, slot, head);
        if (p->shape.type >= KERN_KV_FLOATS) {
            kv_store_key_codes(p, kern, column, k, keys, scratch);
            kv_store_value_codes(p, kern, column, v, values, scratch);
            kv_settle_damage(&kv_scales(p, keys, 0)[column], &kv_scales(p, values, 1)[column]);
        } else if (p->shape.type == KERN_KV_F16) {
            const uint16_t *half = scratch;
            kern->to_f16(k, (int64_t)dim, scratch);
            for (size_t d = 0; d < dim; d++) memcpy(keys + (d * size + column) * 2, half + d, 2);
            kern->to_f16(v, (int64_t)dim, (uint16_t *)(void *)(values + column * dim * 2));
        } else {
            for (size_t d = 0; d < dim; d++) memcpy(keys + (d * size + column) * 4, k + d, 4);
            memcpy(values + column * dim * 4, v, dim * 4);
        }
    }
}
