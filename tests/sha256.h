/* sha256.h: SHA-256 (FIPS 180-4), to name a set of logits in a test. */
#ifndef TESTS_SHA256_H
#define TESTS_SHA256_H

#include <stddef.h>

/* hex gets 64 digits and a NUL. */
void sha256_hex(const void *data, size_t n, char hex[65]);

#endif
