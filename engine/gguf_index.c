/* gguf_index.c: a hash table of names. See gguf_index.h. */
#include "gguf_index.h"

#include <string.h>
#include <sys/random.h>

static uint64_t gguf_rotate(uint64_t x, int n) {
    return x << n | x >> (64 - n);
}

static void gguf_sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[1] = gguf_rotate(v[1], 13) ^ v[0];
    v[0] = gguf_rotate(v[0], 32);
    v[2] += v[3];
    v[3] = gguf_rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = gguf_rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = gguf_rotate(v[1], 17) ^ v[2];
    v[2] = gguf_rotate(v[2], 32);
}

/* SipHash-1-3 (Aumasson & Bernstein 2012). */
static uint64_t gguf_hash(const uint64_t seed[2], const char *s, size_t n) {
    const uint8_t *p = (const uint8_t *)s;
    uint64_t v[4] = {seed[0] ^ 0x736f6d6570736575u, seed[1] ^ 0x646f72616e646f6du, seed[0] ^ 0x6c7967656e657261u,
                     seed[1] ^ 0x7465646279746573u};
    uint64_t word;
    size_t left = n;
    for (; left >= 8; left -= 8, p += 8) {
        word = gguf_little(p, 8);
        v[3] ^= word;
        gguf_sip_round(v);
        v[0] ^= word;
    }
    word = gguf_little(p, left) | (uint64_t)n << 56;
    v[3] ^= word;
    gguf_sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++) gguf_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static void gguf_random(uint64_t seed[2]) {
    if (getrandom(seed, 2 * sizeof seed[0], GRND_NONBLOCK) == 2 * (ssize_t)sizeof seed[0]) return;
    /* No random source (an old kernel, a sandbox): what an author of files can at least not know beforehand. */
    seed[0] = (uint64_t)(uintptr_t)seed;
    seed[1] = (uint64_t)(time_now() * 1e9);
}

const gguf_str *gguf_index_name(const void *items, size_t stride, size_t i) {
    return (const gguf_str *)(const void *)((const char *)items + i * stride);
}

/* The slot of a name, or the empty slot where it belongs. *mark: what a slot of this name holds in its upper half. */
static size_t gguf_index_slot(const gguf_index *x, const void *items, size_t stride, const char *s, size_t n,
                              uint64_t *mark) {
    const uint64_t low = UINT32_MAX, hash = gguf_hash(x->seed, s, n);
    size_t at = (size_t)hash & (x->n_slots - 1);
    *mark = hash & ~low;
    for (; x->slot[at]; at = (at + 1) & (x->n_slots - 1)) {
        const gguf_str *other;
        if ((x->slot[at] & ~low) != *mark) continue;
        other = gguf_index_name(items, stride, (size_t)(x->slot[at] & low) - 1);
        if (other->n == n && memcmp(other->s, s, n) == 0) break;
    }
    return at;
}

int gguf_index_build(const minim_allocator *a, gguf_index *x, const void *items, size_t stride, size_t n,
                     size_t *second, size_t *first) {
    x->n_slots = 8;
    while (x->n_slots < 2 * n) x->n_slots *= 2;
    x->slot = mem_zalloc(a, x->n_slots, sizeof *x->slot);
    if (!x->slot) return -1;
    gguf_random(x->seed);
    for (size_t i = 0; i < n; i++) {
        const gguf_str *name = gguf_index_name(items, stride, i);
        uint64_t mark;
        const size_t at = gguf_index_slot(x, items, stride, name->s, name->n, &mark);
        if (x->slot[at]) {
            *second = i;
            *first = (size_t)(x->slot[at] & UINT32_MAX) - 1;
            return 1;
        }
        x->slot[at] = mark | (uint64_t)(i + 1);
    }
    return 0;
}

void gguf_index_free(const minim_allocator *a, gguf_index *x) {
    mem_free(a, x->slot, x->n_slots, sizeof *x->slot);
    *x = (gguf_index){0};
}

size_t gguf_index_find(const gguf_index *x, const void *items, size_t stride, const char *s, size_t n) {
    uint64_t mark;
    const size_t at = gguf_index_slot(x, items, stride, s, n, &mark);
    return x->slot[at] ? (size_t)(x->slot[at] & UINT32_MAX) - 1 : SIZE_MAX;
}
