/* support.c: see support.h. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- lines and errors ------------------------------------------------------------------------------------------- */

/* Makes a NUL-terminated text printable as one line. Where snprintf() has cut a character in half its bytes go. */
static void support_clean_line(char *line, int was_cut) {
    size_t n = strlen(line), i = 0;
    while (i < n) {
        size_t length = router_utf8_length(line + i, n - i);
        if (!length && was_cut && n - i < 4) {
            line[i] = 0;
            return;
        }
        unsigned char c = (unsigned char)line[i];
        if (!length || c < 0x20 || c == 0x7f) line[i] = '?';
        i += length ? length : 1;
    }
}

static void support_print_line(char *buffer, size_t capacity, const char *format, va_list arguments) {
    int n = vsnprintf(buffer, capacity, format, arguments);
    if (n < 0) buffer[0] = 0;
    support_clean_line(buffer, n > 0 && (size_t)n >= capacity);
}

void router_line(char *buffer, size_t capacity, const char *format, ...) {
    if (!capacity) return;
    va_list arguments;
    va_start(arguments, format);
    support_print_line(buffer, capacity, format, arguments);
    va_end(arguments);
}

minim_status router_fail(minim_error *error, minim_status status, const char *format, ...) {
    if (!error) return status;
    error->status = status;
    va_list arguments;
    va_start(arguments, format);
    support_print_line(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return status;
}

minim_status router_fail_memory(minim_error *error, const char *what) {
    return router_fail(error, MINIM_ERR_MEMORY, "out of memory for %s", what);
}

int router_copy_sized(void *to, size_t size, const void *from) {
    size_t from_size;
    if (!from) return -1;
    memcpy(&from_size, from, sizeof from_size); /* every sized struct begins with it */
    if (from_size <= sizeof from_size || from_size > 1 << 20) return -1;
    memcpy(to, from, from_size < size ? from_size : size);
    memcpy(to, &size, sizeof size);
    return 0;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

minim_status router_bytes_append(router_bytes *bytes, const char *data, size_t n) {
    if (n > bytes->limit || bytes->n > bytes->limit - n || bytes->limit >= SIZE_MAX / 2) return MINIM_ERR_SPACE;
    size_t need = bytes->n + n + 1;
    if (need > bytes->capacity) {
        size_t capacity = bytes->capacity ? bytes->capacity : 256;
        while (capacity < need) capacity *= 2;
        char *grown = realloc(bytes->data, capacity);
        if (!grown) return MINIM_ERR_MEMORY;
        bytes->data = grown;
        bytes->capacity = capacity;
    }
    if (n) memcpy(bytes->data + bytes->n, data, n);
    bytes->n += n;
    bytes->data[bytes->n] = 0;
    return MINIM_OK;
}

void router_bytes_free(router_bytes *bytes) {
    free(bytes->data);
    bytes->data = NULL;
    bytes->n = bytes->capacity = 0;
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

minim_status router_read_file(const char *path, router_bytes *text, minim_error *error) {
    char chunk[4096];
    struct stat info;
    FILE *file = NULL;
    /* A FIFO would hang us. */
    if (!stat(path, &info) && !S_ISREG(info.st_mode)) {
        return router_fail(error, MINIM_ERR_IO, "%s: expected a regular file", path);
    }
    if (!(file = fopen(path, "rb"))) return router_fail(error, MINIM_ERR_IO, "%s: %s", path, strerror(errno));
    minim_status status = MINIM_OK;
    size_t n;
    while (status == MINIM_OK && (n = fread(chunk, 1, sizeof chunk, file)) > 0) {
        status = router_bytes_append(text, chunk, n);
    }
    if (status == MINIM_ERR_SPACE)
        router_fail(error, status = MINIM_ERR_FORMAT, "%s: larger than %zu MiB", path, text->limit >> 20);
    else if (status != MINIM_OK)
        router_fail_memory(error, path);
    else if (ferror(file))
        status = router_fail(error, MINIM_ERR_IO, "%s: %s", path, strerror(errno));
    fclose(file);
    return status;
}

static int support_write_all(int fd, const char *data, size_t n) {
    while (n) {
        ssize_t written = write(fd, data, n);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return -1;
        data += written;
        n -= (size_t)written;
    }
    return 0;
}

/* For a pipe or a device, which has no place that something could be put in. */
static minim_status support_write_into(const char *path, const char *data, size_t n, minim_error *error) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int failed = fd < 0 || support_write_all(fd, data, n), why = errno;
    if (fd >= 0 && close(fd) && !failed) {
        failed = 1;
        why = errno;
    }
    return failed ? router_fail(error, MINIM_ERR_IO, "%s: %s", path, strerror(why)) : MINIM_OK;
}

/* A new file in path's directory; its name is put to `beside`. mkstemp() would leave the umask out. -1 with errno. */
static int support_open_beside(const char *path, mode_t mode, char *beside, size_t capacity) {
    int fd = -1;
    for (unsigned i = 0; i < 100 && fd < 0 && (!i || errno == EEXIST); i++) {
        snprintf(beside, capacity, "%s.%ld.%u.part", path, (long)getpid(), i);
        fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    }
    return fd;
}

minim_status router_write_file(const char *path, const char *data, size_t n, minim_error *error) {
    struct stat info;
    int exists = !stat(path, &info);
    if (exists && S_ISDIR(info.st_mode))
        return router_fail(error, MINIM_ERR_IO, "%s: expected a file name, found a directory", path);
    if (exists && !S_ISREG(info.st_mode)) return support_write_into(path, data, n, error);
    char *target = exists ? realpath(path, NULL) : strdup(path); /* a link stays one */
    if (!target) return router_fail(error, MINIM_ERR_IO, "%s: %s", path, strerror(errno));
    size_t capacity = strlen(target) + 48;
    char *beside = malloc(capacity);
    if (!beside) {
        free(target);
        return router_fail_memory(error, path);
    }
    mode_t mode = exists ? info.st_mode & 0777 : 0666;
    int fd = support_open_beside(target, mode, beside, capacity);
    int failed = fd < 0 || support_write_all(fd, data, n) || (exists && fchmod(fd, mode)) || fsync(fd);
    int why = errno;
    if (fd >= 0 && close(fd) && !failed) {
        failed = 1;
        why = errno;
    }
    if (!failed && rename(beside, target)) {
        failed = 1;
        why = errno;
    }
    if (failed && fd >= 0) unlink(beside);
    free(target);
    free(beside);
    return failed ? router_fail(error, MINIM_ERR_IO, "%s: %s", path, strerror(why)) : MINIM_OK;
}

/* ---- UTF-8 ------------------------------------------------------------------------------------------------------ */

size_t router_utf8_length(const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    if (!n) return 0;
    if (s[0] < 0x80) return 1;
    size_t length = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if (!length || length > n) return 0;
    /* The second byte's range shuts out overlong forms, surrogates and what is past U+10FFFF. */
    unsigned low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < length; i++) {
        if (s[i] < 0x80 || s[i] > 0xbf) return 0;
    }
    return length;
}

minim_status router_utf8_append(router_bytes *bytes, const char *text, size_t n) {
    size_t i = 0;
    while (i < n) {
        size_t good = i, length;
        while (good < n && text[good] && (length = router_utf8_length(text + good, n - good))) good += length;
        minim_status status = router_bytes_append(bytes, text + i, good - i);
        if (status == MINIM_OK && good < n) status = router_bytes_append(bytes, "\xef\xbf\xbd", 3);
        if (status != MINIM_OK) return status;
        i = good < n ? good + 1 : n;
    }
    return router_bytes_append(bytes, "", 0);
}

/* ---- secrets and time ------------------------------------------------------------------------------------------- */

void router_wipe(void *memory, size_t n) {
    if (memory) explicit_bzero(memory, n);
}

void router_redact(char *line, const char *secret) {
    static const char mark[] = "[key]";
    size_t n = secret ? strlen(secret) : 0, n_mark = sizeof mark - 1;
    if (!n) return;
    for (char *hit = line; (hit = strstr(hit, secret));) {
        size_t keep = n < n_mark ? n : n_mark; /* never longer than what it replaces: the line does not grow */
        memcpy(hit, mark, keep);
        memmove(hit + keep, hit + n, strlen(hit + n) + 1);
        hit += keep;
    }
}

double router_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
