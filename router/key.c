/* key.c: see key.h. No stdio here: its buffers would keep a copy. */
#include "key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

enum { KEY_MAX = 8192 };

/* A key has pages of its own, which core dumps leave out. */
static size_t key_bytes(size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (n + page) / page * page; /* and a NUL */
}

static char *key_alloc(size_t n) {
    char *key = mmap(NULL, key_bytes(n), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (key == MAP_FAILED) return NULL;
#ifdef MADV_DONTDUMP
    madvise(key, key_bytes(n), MADV_DONTDUMP); /* a kernel that does not know it dumps: nothing more can be done */
#endif
    return key;
}

void key_free(char *key) {
    if (!key) return;
    size_t n = strlen(key);
    router_wipe(key, n);
    munmap(key, key_bytes(n));
}

/* Trims text[0..n) and copies what is left, when it is a key. */
static minim_status key_take(const char *where, const char *text, size_t n, char **key, minim_error *error) {
    while (n && strchr(" \t\r\n", text[n - 1])) n--;
    while (n && strchr(" \t\r\n", text[0])) text++, n--;
    if (!n) return router_fail(error, MINIM_ERR_FORMAT, "API key in %s: found nothing, expected a key", where);
    if (n > KEY_MAX) {
        return router_fail(error, MINIM_ERR_FORMAT, "API key in %s: expected at most %d bytes", where, KEY_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c <= 0x20 || c >= 0x7f) {
            return router_fail(error, MINIM_ERR_FORMAT,
                               "API key in %s: found byte 0x%02x at %zu, expected one line of visible ASCII", where, c,
                               i);
        }
    }
    char *copy = key_alloc(n);
    if (!copy) return router_fail_memory(error, "the API key");
    memcpy(copy, text, n);
    *key = copy;
    return MINIM_OK;
}

static minim_status key_from_environment(const char *name, char **key, minim_error *error) {
    char where[160];
    const char *value = getenv(name);
    if (!value) {
        return router_fail(error, MINIM_ERR_IO, "API key: environment variable %s is not set", name[0] ? name : "\"\"");
    }
    router_line(where, sizeof where, "environment variable %s", name);
    return key_take(where, value, strlen(value), key, error);
}

/* Is fd a file that only its owner may read? */
static minim_status key_check_file(int fd, const char *path, minim_error *error) {
    struct stat info;
    if (fstat(fd, &info)) return router_fail(error, MINIM_ERR_IO, "API key file %s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) {
        return router_fail(error, MINIM_ERR_FORMAT, "API key file %s: expected a regular file", path);
    }
    if (info.st_mode & 077) {
        return router_fail(error, MINIM_ERR_IO, "API key file %s: found mode %04o, expected 0600 (chmod 600 %s)", path,
                           (unsigned)info.st_mode & 07777u, path);
    }
    return MINIM_OK;
}

static minim_status key_from_file(const char *path, char **key, minim_error *error) {
    char buffer[KEY_MAX + 256]; /* room for white space around the key */
    /* O_NONBLOCK: a FIFO must not hang us before fstat() refuses it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return router_fail(error, MINIM_ERR_IO, "API key file %s: %s", path, strerror(errno));
    minim_status status = key_check_file(fd, path, error);
    size_t n = 0;
    while (status == MINIM_OK && n < sizeof buffer) {
        ssize_t got = read(fd, buffer + n, sizeof buffer - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) status = router_fail(error, MINIM_ERR_IO, "API key file %s: %s", path, strerror(errno));
        if (got <= 0) break;
        n += (size_t)got;
    }
    close(fd);
    char where[256];
    router_line(where, sizeof where, "file %s", path);
    if (status == MINIM_OK) status = key_take(where, buffer, n, key, error);
    router_wipe(buffer, sizeof buffer);
    return status;
}

minim_status key_read(const char *reference, char **key, minim_error *error) {
    if (!reference[0]) {
        char *empty = key_alloc(0);
        if (!empty) return router_fail_memory(error, "the API key");
        *key = empty;
        return MINIM_OK;
    }
    if (!strncmp(reference, "env:", 4)) return key_from_environment(reference + 4, key, error);
    if (!strncmp(reference, "file:", 5)) return key_from_file(reference + 5, key, error);
    return router_fail(error, MINIM_ERR_ARGUMENT,
                       "API key: expected \"env:NAME\" or \"file:PATH\", not the key itself");
}
