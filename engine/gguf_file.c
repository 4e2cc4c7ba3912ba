/* gguf_file.c: a GGUF file as a file: opening it, reading its data, mapping it, closing it. See gguf.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gguf_impl.h"

minim_status gguf_pread(const gguf_file *f, uint64_t at, void *dst, size_t n, minim_error *e) {
    uint8_t *to = dst;
    while (n > 0) {
        const size_t part = n < ((size_t)1 << 30) ? n : (size_t)1 << 30;
        const ssize_t got = pread(f->fd, to, part, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return err_set(e, MINIM_ERR_IO, "%s: reading %zu bytes at offset %" PRIu64 " failed: %s", f->path, n, at,
                           strerror(errno));
        if (got == 0)
            return err_set(e, MINIM_ERR_IO,
                           "%s: the file was cut while it was read: it had %" PRIu64
                           " bytes and now ends before offset %" PRIu64,
                           f->path, f->size, at + n);
        to += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return MINIM_OK;
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

/* NULL for a regular file. */
static const char *gguf_special_file(mode_t mode) {
    if (S_ISREG(mode)) return NULL;
    if (S_ISDIR(mode)) return "a directory";
    if (S_ISFIFO(mode)) return "a pipe";
    if (S_ISSOCK(mode)) return "a socket";
    return "a device";
}

/* Opens only regular files: opening a pipe would wait for its writer, and opening a device can have side effects. */
static minim_status gguf_open_path(gguf_file *f, const char *path, minim_error *e) {
    struct stat st;
    const char *special;
    if (stat(path, &st)) return err_set(e, MINIM_ERR_IO, "%s: cannot be opened: %s", f->path, strerror(errno));
    special = gguf_special_file(st.st_mode);
    if (special) return err_set(e, MINIM_ERR_IO, "%s: is %s, expected a GGUF file", f->path, special);
    /* It may have been replaced since: do not wait, and look again. */
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (f->fd < 0 || fstat(f->fd, &st))
        return err_set(e, MINIM_ERR_IO, "%s: cannot be opened: %s", f->path, strerror(errno));
    special = gguf_special_file(st.st_mode);
    if (special) return err_set(e, MINIM_ERR_IO, "%s: is %s, expected a GGUF file", f->path, special);
    f->size = (uint64_t)st.st_size;
    return MINIM_OK;
}

/* What errors and gguf_path() call the file: of a very long path the end, so that the rest of an error has room. */
static minim_status gguf_set_name(gguf_file *f, const char *path, minim_error *e) {
    size_t n = strlen(path);
    if (n > GGUF_SHOWN_PATH) {
        path += n - GGUF_SHOWN_PATH;
        while ((*path & 0xc0) == 0x80) path++; /* not from the middle of a character */
        n = strlen(path);
    }
    f->path_bytes = n + 1;
    f->path = mem_alloc(&f->allocator, f->path_bytes, 1);
    if (!f->path) return err_memory(e, "GGUF path", f->path_bytes);
    memcpy(f->path, path, n + 1);
    return MINIM_OK;
}

minim_status gguf_open(const minim_allocator *a, const char *path, const void *data, size_t size, gguf_file **out,
                       minim_error *e) {
    const minim_allocator allocator = mem_allocator(a);
    gguf_file *f;
    minim_status s;
    *out = NULL;
    if (!path && !data) return err_set(e, MINIM_ERR_ARGUMENT, "no path and no data of a GGUF file was given");
    f = mem_zalloc(&allocator, 1, sizeof *f);
    if (!f) return err_memory(e, "GGUF file", sizeof *f);
    f->allocator = allocator;
    f->fd = -1;
    f->image = data;
    f->size = size;
    s = gguf_set_name(f, path ? path : "(memory)", e);
    if (!s && !data) s = gguf_open_path(f, path, e);
    if (!s) s = gguf_read_file(f, e);
    if (s) {
        gguf_close(f);
        return s;
    }
    *out = f;
    return err_ok(e);
}

void gguf_close_data(gguf_file *f) {
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
    f->image = NULL;
}

void gguf_close(gguf_file *f) {
    minim_allocator a;
    if (!f) return;
    a = f->allocator;
    gguf_close_data(f);
    gguf_unmap(f);
    while (f->chunks) {
        gguf_chunk *next = f->chunks->next;
        mem_free(&a, f->chunks, 1, GGUF_CHUNK_HEAD + f->chunks->size);
        f->chunks = next;
    }
    gguf_index_free(&a, &f->value_index);
    gguf_index_free(&a, &f->tensor_index);
    mem_free(&a, f->values, f->values_capacity, sizeof *f->values);
    mem_free(&a, f->tensors, f->tensors_capacity, sizeof *f->tensors);
    mem_free(&a, f->path, f->path_bytes, 1);
    mem_free(&a, f, 1, sizeof *f);
}

/* ---- access ----------------------------------------------------------------------------------------------------- */

const char *gguf_path(const gguf_file *f) {
    return f->path;
}

uint32_t gguf_version(const gguf_file *f) {
    return f->version;
}

uint32_t gguf_panels(const gguf_file *f) {
    return f->panels;
}

size_t gguf_value_count(const gguf_file *f) {
    return f->n_values;
}

const gguf_value *gguf_value_at(const gguf_file *f, size_t i) {
    return i < f->n_values ? &f->values[i] : NULL;
}

size_t gguf_tensor_count(const gguf_file *f) {
    return f->n_tensors;
}

const gguf_tensor *gguf_tensor_at(const gguf_file *f, size_t i) {
    return i < f->n_tensors ? &f->tensors[i] : NULL;
}

minim_status gguf_read(const gguf_file *f, const gguf_tensor *t, uint64_t at, void *dst, size_t n, minim_error *e) {
    if (at > t->bytes || n > t->bytes - at)
        return err_set(e, MINIM_ERR_ARGUMENT, "%s: tensor '%s' has %" PRIu64 " bytes, %zu were asked for at %" PRIu64,
                       f->path, t->name.s, t->bytes, n, at);
    if (!f->image && f->fd < 0)
        return err_set(e, MINIM_ERR_IO, "%s: tensor '%s' cannot be read, the file was closed", f->path, t->name.s);
    if (n == 0) return err_ok(e);
    if (f->image) {
        memcpy(dst, f->image + t->offset + at, n);
        return err_ok(e);
    }
    return gguf_pread(f, t->offset + at, dst, n, e);
}

const void *gguf_data(const gguf_file *f, const gguf_tensor *t) {
    return f->image ? f->image + t->offset : NULL;
}

int gguf_map(gguf_file *f) {
    if (f->map) return 0;
    if (f->fd < 0 || f->size > PTRDIFF_MAX) return -1;
    void *map = mmap(NULL, (size_t)f->size, PROT_READ, MAP_SHARED, f->fd, 0);
    if (map == MAP_FAILED) return -1;
    f->map = map;
    return 0;
}

void gguf_unmap(gguf_file *f) {
    if (f->map) munmap(f->map, (size_t)f->size);
    f->map = NULL;
}

const void *gguf_mapped(const gguf_file *f, const gguf_tensor *t) {
    return f->map ? (const uint8_t *)f->map + t->offset : NULL;
}
