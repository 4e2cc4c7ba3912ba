#include "sha256.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint32_t sha256_rotate(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

/* The first 32 bits of the fraction of a prime's root: how the standard defines its constants. */
static uint32_t sha256_fraction(long double root) {
    return (uint32_t)((root - floorl(root)) * 4294967296.0L);
}

static void sha256_block(uint32_t h[8], const uint32_t k[64], const uint8_t *p) {
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
    for (int i = 0; i < 64; i++) {
        uint32_t a = s[0], e = s[4];
        uint32_t t1 = s[7] + (sha256_rotate(e, 6) ^ sha256_rotate(e, 11) ^ sha256_rotate(e, 25)) +
                      ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
        uint32_t t2 = (sha256_rotate(a, 2) ^ sha256_rotate(a, 13) ^ sha256_rotate(a, 22)) +
                      ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) h[i] += s[i];
}

void sha256_hex(const void *data, size_t n, char hex[65]) {
    uint32_t k[64], h[8];
    for (int prime = 2, found = 0; found < 64; prime++) {
        int is_prime = 1;
        for (int d = 2; d * d <= prime; d++) is_prime &= prime % d != 0;
        if (!is_prime) continue;
        if (found < 8) h[found] = sha256_fraction(sqrtl(prime));
        k[found++] = sha256_fraction(cbrtl(prime));
    }
    const uint8_t *p = data;
    size_t left = n;
    for (; left >= 64; p += 64, left -= 64) sha256_block(h, k, p);
    uint8_t tail[128] = {0};
    if (left) memcpy(tail, p, left);
    tail[left] = 0x80;
    size_t end = left < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++) tail[end - 1 - (size_t)i] = (uint8_t)((uint64_t)n * 8 >> 8 * i);
    for (size_t i = 0; i < end; i += 64) sha256_block(h, k, tail + i);
    for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", (unsigned)h[i]);
}
