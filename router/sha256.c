/* sha256.c: see sha256.h. */
#include "sha256.h"

#include <stdio.h>
#include <string.h>

/* The first 32 bits of the fractions of the cube roots of the first 64 primes. */
static const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t sha256_rotate(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

/* One of 64 rounds; instead of moving the eight words along, the next round is given them in other places. */
#define SHA256_ROUND(a, b, c, d, e, f, g, h, i)                                                                        \
    do {                                                                                                               \
        uint32_t t = (h) + (sha256_rotate(e, 6) ^ sha256_rotate(e, 11) ^ sha256_rotate(e, 25)) +                       \
                     ((g) ^ ((e) & ((f) ^ (g)))) + sha256_k[i] + w[i];                                                 \
        (d) += t;                                                                                                      \
        (h) = t + (sha256_rotate(a, 2) ^ sha256_rotate(a, 13) ^ sha256_rotate(a, 22)) +                                \
              (((a) & (b)) | ((c) & ((a) | (b))));                                                                     \
    } while (0)

static void sha256_block(uint32_t h[8], const uint8_t *p) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (sha256_rotate(a, 7) ^ sha256_rotate(a, 18) ^ a >> 3) +
               (sha256_rotate(b, 17) ^ sha256_rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 64; i += 8) {
        SHA256_ROUND(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], i);
        SHA256_ROUND(s[7], s[0], s[1], s[2], s[3], s[4], s[5], s[6], i + 1);
        SHA256_ROUND(s[6], s[7], s[0], s[1], s[2], s[3], s[4], s[5], i + 2);
        SHA256_ROUND(s[5], s[6], s[7], s[0], s[1], s[2], s[3], s[4], i + 3);
        SHA256_ROUND(s[4], s[5], s[6], s[7], s[0], s[1], s[2], s[3], i + 4);
        SHA256_ROUND(s[3], s[4], s[5], s[6], s[7], s[0], s[1], s[2], i + 5);
        SHA256_ROUND(s[2], s[3], s[4], s[5], s[6], s[7], s[0], s[1], i + 6);
        SHA256_ROUND(s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[0], i + 7);
    }
    for (int i = 0; i < 8; i++) h[i] += s[i];
}

void sha256_begin(sha256_state *state) {
    /* Of the square roots of the first 8. */
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(state->h, start, sizeof start);
    state->n = 0;
}

void sha256_add(sha256_state *state, const void *data, size_t n) {
    const uint8_t *p = data;
    size_t have = (size_t)(state->n % 64);
    state->n += n;
    if (have) {
        size_t take = n < 64 - have ? n : 64 - have;
        if (take) memcpy(state->buffer + have, p, take);
        if (have + take < 64) return;
        sha256_block(state->h, state->buffer);
        p += take;
        n -= take;
    }
    for (; n >= 64; p += 64, n -= 64) sha256_block(state->h, p);
    if (n) memcpy(state->buffer, p, n);
}

void sha256_end(sha256_state *state, uint8_t digest[32]) {
    static const uint8_t padding[64] = {0x80};
    uint8_t length[8];
    uint64_t bits = state->n * 8;
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    size_t have = (size_t)(state->n % 64);
    sha256_add(state, padding, have < 56 ? 56 - have : 120 - have);
    sha256_add(state, length, sizeof length);
    for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(state->h[i / 4] >> (24 - 8 * (i % 4)));
}

void sha256_to_hex(const uint8_t digest[32], char hex[65]) {
    for (int i = 0; i < 32; i++) snprintf(hex + (size_t)i * 2, 3, "%02x", digest[i]);
}

void sha256_hex(const void *data, size_t n, char hex[65]) {
    sha256_state state;
    uint8_t digest[32];
    sha256_begin(&state);
    sha256_add(&state, data, n);
    sha256_end(&state, digest);
    sha256_to_hex(digest, hex);
}
