/* gguf_source.c: see gguf_source.h. The engine has checked the header when it opened the file; it is read once more
 * because the engine does not hand out bytes. */
#include "gguf_source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- opening ----------------------------------------------------------------------------------------------------- */

int gguf_source_open(gguf_source *source, const char *name) {
    minim_error error = {.status = MINIM_OK};
    minim_model_options options;
    minim_model_info info = {.size = sizeof info};
    minim_model_options_default(&options);
    options.level = MINIM_LOAD_HEADER;
    source->name = name;
    if (minim_model_load(name, &options, &source->model, &error) != MINIM_OK) return tool_fail_error(&error);
    minim_model_get_info(source->model, &info);
    if (info.panels)
        return tool_fail("%s: its weights are packed (minim pack); expected the file that it was packed from", name);
    source->file = fopen(name, "rb");
    return source->file ? -1 : tool_fail("%s: %s", name, strerror(errno));
}

void gguf_source_close(gguf_source *source) {
    minim_model_free(source->model);
    if (source->file) fclose(source->file);
}

int gguf_source_check_output(const gguf_source *source, const char *output, const char *what) {
    struct stat to, from;
    if (stat(output, &to) || fstat(fileno(source->file), &from)) return -1;
    if (to.st_dev != from.st_dev || to.st_ino != from.st_ino) return -1;
    return tool_fail("%s: this is the file to be %s; expected another one", output, what);
}

/* ---- the header -------------------------------------------------------------------------------------------------- */

typedef struct gguf_reading {
    const gguf_source *source;
    tool_bytes entry; /* the key that is being read, from its first byte on */
} gguf_reading;

/* Reads the next n bytes of the header and keeps them in r->entry. Returns -1 or an exit code. */
static int gguf_source_take(gguf_reading *r, uint64_t n) {
    enum { PIECE = 1 << 16 };
    char piece[PIECE];
    while (n > 0) {
        const size_t part = n < PIECE ? (size_t)n : PIECE;
        if (fread(piece, 1, part, r->source->file) != part)
            return tool_fail("%s: the header could not be read again: %s", r->source->name,
                             ferror(r->source->file) ? strerror(errno) : "the file has become shorter");
        if (tool_bytes_append(&r->entry, piece, part)) return EXIT_CODE_FAILED;
        n -= part;
    }
    return -1;
}

/* The same for a number of n <= 8 bytes. */
static int gguf_source_take_number(gguf_reading *r, size_t n, uint64_t *number) {
    const int code = gguf_source_take(r, n);
    *number = 0;
    for (size_t i = 0; i < n && code < 0; i++) *number |= (uint64_t)(uint8_t)r->entry.data[r->entry.n - n + i] << 8 * i;
    return code;
}

static int gguf_source_take_string(gguf_reading *r) {
    uint64_t n;
    const int code = gguf_source_take_number(r, 8, &n);
    return code < 0 ? gguf_source_take(r, n) : code;
}

static int gguf_source_take_values(gguf_reading *r, uint64_t type, uint64_t count) {
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    int code = -1;
    if (type == GGUF_WRITE_STRING) {
        for (uint64_t i = 0; i < count && code < 0; i++) code = gguf_source_take_string(r);
        return code;
    }
    if (type >= sizeof sizes || !sizes[type] || count > UINT64_MAX / 8)
        return tool_fail("%s: expected a value that can be copied, found type %" PRIu64, r->source->name, type);
    return gguf_source_take(r, count * sizes[type]);
}

static int gguf_source_is_own(const char *const *own, const char *key, size_t n) {
    for (; *own; own++)
        if (n == strlen(*own) && !memcmp(*own, key, n)) return 1;
    return 0;
}

/* The next key; the engine has checked the header already. */
static int gguf_source_copy_key(gguf_reading *r, const char *const *own, gguf_head *head) {
    uint64_t type, count = 1;
    r->entry.n = 0;
    int code = gguf_source_take_string(r);
    if (code >= 0) return code;
    const size_t key_bytes = r->entry.n - 8;
    code = gguf_source_take_number(r, 4, &type);
    if (code < 0 && type == GGUF_WRITE_ARRAY) {
        code = gguf_source_take_number(r, 4, &type);
        if (code < 0) code = gguf_source_take_number(r, 8, &count);
    }
    if (code < 0) code = gguf_source_take_values(r, type, count);
    if (code < 0 && !gguf_source_is_own(own, r->entry.data + 8, key_bytes))
        gguf_head_copy(head, r->entry.data, r->entry.n);
    return code;
}

/* The id of the type of the next tensor. */
static int gguf_source_read_id(gguf_reading *r, uint32_t *id) {
    uint64_t number = 0;
    r->entry.n = 0;
    int code = gguf_source_take_string(r);
    if (code < 0) code = gguf_source_take_number(r, 4, &number);
    if (code < 0) code = gguf_source_take(r, number * 8);
    if (code < 0) code = gguf_source_take_number(r, 4, &number);
    *id = (uint32_t)number;
    return code < 0 ? gguf_source_take(r, 8) : code;
}

int gguf_source_copy_header(const gguf_source *source, const char *const *own, gguf_head *head, uint32_t *ids) {
    gguf_reading r = {.source = source};
    const size_t n_keys = minim_model_meta_count(source->model), n_tensors = minim_model_tensor_count(source->model);
    if (head->failed) return EXIT_CODE_FAILED; /* and its message was given */
    int code = gguf_source_take(&r, 24);       /* magic, version, number of tensors, number of keys */
    for (size_t i = 0; i < n_keys && code < 0; i++) code = gguf_source_copy_key(&r, own, head);
    for (size_t i = 0; i < n_tensors && code < 0; i++) code = gguf_source_read_id(&r, &ids[i]);
    tool_bytes_free(&r.entry);
    return code < 0 && head->failed ? EXIT_CODE_FAILED : code;
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

int gguf_source_copy_data(const gguf_source *source, const minim_tensor *tensor, gguf_writer *writer) {
    enum { PIECE = 1 << 20 };
    uint8_t *raw = malloc(PIECE);
    int code = raw ? -1 : tool_fail("out of memory");
    for (uint64_t done = 0; done < tensor->bytes && code < 0;) {
        const uint64_t left = tensor->bytes - done;
        const size_t n = left < PIECE ? (size_t)left : PIECE;
        const ssize_t got = pread(fileno(source->file), raw, n, (off_t)(tensor->offset + done));
        if (got < 0 && errno == EINTR && !tool_interrupted()) continue;
        if (got < 0 && tool_interrupted())
            code = EXIT_CODE_INTERRUPTED;
        else if (got <= 0)
            code = tool_fail("%s: %s", source->name, got < 0 ? strerror(errno) : "the file has become shorter");
        else
            code = gguf_writer_put(writer, raw, (size_t)got);
        done += got > 0 ? (uint64_t)got : 0;
    }
    free(raw);
    return code;
}

int gguf_source_read_data(const gguf_source *source, const minim_tensor *tensor, void *data) {
    for (uint64_t done = 0; done < tensor->bytes;) {
        const ssize_t got = pread(fileno(source->file), (char *)data + done, (size_t)(tensor->bytes - done),
                                  (off_t)(tensor->offset + done));
        if (got < 0 && tool_interrupted()) return EXIT_CODE_INTERRUPTED;
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return tool_fail("%s: %s", source->name, got < 0 ? strerror(errno) : "the file has become shorter");
        done += (uint64_t)got;
    }
    return -1;
}
