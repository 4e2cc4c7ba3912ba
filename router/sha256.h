/* sha256.h: SHA-256 (FIPS 180-4): names of requests and answers in the ledger, keys of the cache; tests name logits. */
#ifndef ROUTER_SHA256_H
#define ROUTER_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct sha256_state {
    uint32_t h[8];
    uint64_t n;         /* bytes so far */
    uint8_t buffer[64]; /* of the block that is not full */
} sha256_state;

void sha256_begin(sha256_state *state);
void sha256_add(sha256_state *state, const void *data, size_t n);
void sha256_end(sha256_state *state, uint8_t digest[32]);

/* All at once; hex gets 64 digits and a NUL. */
void sha256_hex(const void *data, size_t n, char hex[65]);
void sha256_to_hex(const uint8_t digest[32], char hex[65]);

#endif
