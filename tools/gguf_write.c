/* gguf_write.c: see gguf_write.h. */
#include "gguf_write.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- the header -------------------------------------------------------------------------------------------------- */

static void gguf_head_append(gguf_head *head, tool_bytes *part, const void *data, size_t n) {
    if (!head->failed && tool_bytes_append(part, data, n)) head->failed = 1;
}

static void gguf_head_number(gguf_head *head, tool_bytes *part, uint64_t x, size_t n) {
    uint8_t raw[8];
    gguf_write_64(raw, x);
    gguf_head_append(head, part, raw, n);
}

static void gguf_head_text(gguf_head *head, tool_bytes *part, const char *text, size_t n) {
    gguf_head_number(head, part, n, 8);
    gguf_head_append(head, part, text, n);
}

static void gguf_head_key(gguf_head *head, const char *key, enum gguf_write_type type) {
    gguf_head_text(head, &head->keys, key, strlen(key));
    gguf_head_number(head, &head->keys, (uint64_t)type, 4);
    head->n_keys++;
}

void gguf_head_put_u32(gguf_head *head, uint32_t x) {
    gguf_head_number(head, &head->keys, x, 4);
}

void gguf_head_put_f32(gguf_head *head, float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    gguf_head_put_u32(head, bits);
}

void gguf_head_put_string(gguf_head *head, const char *text, size_t n) {
    gguf_head_text(head, &head->keys, text, n);
}

void gguf_head_u32(gguf_head *head, const char *key, uint32_t x) {
    gguf_head_key(head, key, GGUF_WRITE_U32);
    gguf_head_put_u32(head, x);
}

void gguf_head_i32(gguf_head *head, const char *key, int32_t x) {
    gguf_head_key(head, key, GGUF_WRITE_I32);
    gguf_head_put_u32(head, (uint32_t)x);
}

void gguf_head_f32(gguf_head *head, const char *key, float x) {
    gguf_head_key(head, key, GGUF_WRITE_F32);
    gguf_head_put_f32(head, x);
}

void gguf_head_bool(gguf_head *head, const char *key, int x) {
    gguf_head_key(head, key, GGUF_WRITE_BOOL);
    gguf_head_number(head, &head->keys, x != 0, 1);
}

void gguf_head_string(gguf_head *head, const char *key, const char *text, size_t n) {
    gguf_head_key(head, key, GGUF_WRITE_STRING);
    gguf_head_put_string(head, text, n);
}

void gguf_head_array(gguf_head *head, const char *key, enum gguf_write_type type, uint64_t count) {
    gguf_head_key(head, key, GGUF_WRITE_ARRAY);
    gguf_head_put_u32(head, (uint32_t)type);
    gguf_head_number(head, &head->keys, count, 8);
}

void gguf_head_alignment(gguf_head *head, uint32_t n) {
    gguf_head_u32(head, "general.alignment", n);
    head->alignment = n;
}

/* Rounds up to the alignment of the file. */
static uint64_t gguf_head_aligned(const gguf_head *head, uint64_t bytes) {
    const uint64_t n = head->alignment ? head->alignment : GGUF_WRITE_ALIGNMENT;
    return (bytes + n - 1) / n * n;
}

/* Bytes of magic, version and counts, keys, and the list of tensors. */
static uint64_t gguf_head_bytes(const gguf_head *head) {
    return 24 + head->keys.n + head->tensors.n;
}

uint64_t gguf_head_file_bytes(const gguf_head *head) {
    return gguf_head_aligned(head, gguf_head_bytes(head)) + head->data_bytes;
}

void gguf_head_tensor(gguf_head *head, const char *name, int n_dims, const uint64_t *dims, uint32_t type,
                      uint64_t bytes) {
    gguf_head_text(head, &head->tensors, name, strlen(name));
    gguf_head_number(head, &head->tensors, (uint64_t)n_dims, 4);
    for (int i = 0; i < n_dims; i++) gguf_head_number(head, &head->tensors, dims[i], 8);
    gguf_head_number(head, &head->tensors, type, 4);
    gguf_head_number(head, &head->tensors, head->data_bytes, 8);
    head->n_tensors++;
    head->data_bytes += gguf_head_aligned(head, bytes);
}

void gguf_head_copy(gguf_head *head, const void *entry, size_t n) {
    gguf_head_append(head, &head->keys, entry, n);
    head->n_keys++;
}

void gguf_head_join(gguf_head *head, const gguf_head *other) {
    gguf_head_append(head, &head->keys, other->keys.data, other->keys.n);
    head->n_keys += other->n_keys;
    head->failed |= other->failed;
}

void gguf_head_free(gguf_head *head) {
    tool_bytes_free(&head->keys);
    tool_bytes_free(&head->tensors);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static void gguf_writer_clear_progress(gguf_writer *writer) {
    if (writer->shown > 0) fprintf(stderr, "\r%70s\r", "");
    writer->shown = 0;
}

static void gguf_writer_show_progress(gguf_writer *writer) {
    static const char full[] = "########################################";
    const double now = tool_seconds(), passed = now - writer->start, total = (double)writer->head->data_bytes;
    if (!writer->show_progress || passed < 0.3 || now - writer->shown < 0.1 || total <= 0) return;
    const double fraction = (double)writer->written / total;
    fprintf(stderr, "\rwriting [%-40.*s] %3.0f%%", (int)(fraction * 40), full, fraction * 100);
    if (fraction > 0.01) fprintf(stderr, " %5.0f s left", passed / fraction - passed);
    writer->shown = now;
}

static int gguf_writer_failed(gguf_writer *writer) {
    const int number = errno;
    gguf_writer_clear_progress(writer);
    errno = number;
    return tool_fail_output(&writer->output);
}

static int gguf_writer_raw(gguf_writer *writer, const void *data, size_t n) {
    return !n || fwrite(data, 1, n, writer->output.file) == n ? -1 : gguf_writer_failed(writer);
}

int gguf_writer_open(gguf_writer *writer, const gguf_head *head, const char *name, int quiet) {
    static const uint8_t zeros[GGUF_WRITE_MOST_ALIGNMENT];
    uint8_t start[24] = {'G', 'G', 'U', 'F', 3}; /* magic, version, number of tensors, number of keys */
    *writer = (gguf_writer){.head = head, .start = tool_seconds()};
    if (head->failed) return EXIT_CODE_FAILED;
    writer->show_progress = !quiet && isatty(STDERR_FILENO);
#ifdef SIGXFSZ
    signal(SIGXFSZ, SIG_IGN); /* a limit of the file size is an error of a write */
#endif
    gguf_write_64(start + 8, head->n_tensors);
    gguf_write_64(start + 16, head->n_keys);
    const uint64_t bytes = gguf_head_bytes(head);
    int code = tool_open_output(name, &writer->output);
    if (code < 0) code = gguf_writer_raw(writer, start, sizeof start);
    if (code < 0) code = gguf_writer_raw(writer, head->keys.data, head->keys.n);
    if (code < 0) code = gguf_writer_raw(writer, head->tensors.data, head->tensors.n);
    if (code < 0) code = gguf_writer_raw(writer, zeros, (size_t)(gguf_head_aligned(head, bytes) - bytes));
    return code;
}

int gguf_writer_put(gguf_writer *writer, const void *data, size_t n) {
    if (tool_interrupted()) return EXIT_CODE_INTERRUPTED;
    const int code = gguf_writer_raw(writer, data, n);
    writer->written += n;
    gguf_writer_show_progress(writer);
    return code;
}

int gguf_writer_place(gguf_writer *writer, uint64_t at) {
    const uint64_t start = gguf_write_aligned(24 + writer->head->keys.n + writer->head->tensors.n);
    return fseeko(writer->output.file, (off_t)(start + at), SEEK_SET) ? gguf_writer_failed(writer) : -1;
}

int gguf_writer_end_tensor(gguf_writer *writer) {
    static const uint8_t zeros[GGUF_WRITE_MOST_ALIGNMENT];
    const uint64_t end = gguf_head_aligned(writer->head, writer->written);
    return gguf_writer_put(writer, zeros, (size_t)(end - writer->written));
}

/* Is what lies on the disk the file that was meant? The reader checks counts, names, sizes and offsets by itself. */
static int gguf_writer_read_back(gguf_writer *writer) {
    minim_model *model = NULL;
    minim_error error = {.status = MINIM_OK};
    minim_model_options options;
    minim_model_options_default(&options);
    options.level = MINIM_LOAD_HEADER;
    if (!writer->output.temporary) return -1; /* a pipe or a device */
    if (minim_model_load(writer->output.temporary, &options, &model, &error) != MINIM_OK)
        return tool_fail_error(&error);
    const size_t n_keys = minim_model_meta_count(model), n_tensors = minim_model_tensor_count(model);
    minim_model_free(model);
    if (n_keys == writer->head->n_keys && n_tensors == writer->head->n_tensors) return -1;
    return tool_fail("%s: reading back found %zu keys and %zu tensors, expected %llu and %llu",
                     writer->output.temporary, n_keys, n_tensors, (unsigned long long)writer->head->n_keys,
                     (unsigned long long)writer->head->n_tensors);
}

int gguf_writer_close(gguf_writer *writer, int code) {
    if (code < 0 && fflush(writer->output.file)) code = gguf_writer_failed(writer);
    /* A full disk may be noticed this late. What is no file on a disk (EINVAL) cannot be flushed to one. */
    if (code < 0 && fsync(fileno(writer->output.file)) && errno != EINVAL) code = gguf_writer_failed(writer);
    gguf_writer_clear_progress(writer);
    if (code < 0) code = gguf_writer_read_back(writer);
    return tool_close_output(&writer->output, code);
}

/* ---- 16-bit floats ----------------------------------------------------------------------------------------------- */

uint16_t gguf_write_f16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) { /* NaN: its upper bits, and never the pattern of an infinity */
        const uint16_t payload = (uint16_t)(magnitude >> 13 & 0x3ff);
        return (uint16_t)(sign | 0x7c00 | (payload ? payload : 1));
    }
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (magnitude < 0x33000000) return sign;                       /* 2^-25 and below round to zero (a tie to even) */
    const uint32_t exponent = magnitude >> 23;
    uint32_t significand = magnitude, shift = 13;
    if (exponent < 113) { /* subnormal: the leading one becomes visible and moves right */
        significand = (magnitude & 0x7fffff) | 0x800000;
        shift = 126 - exponent;
    } else {
        significand -= 112u << 23;
    }
    const uint32_t half = 1u << (shift - 1), odd = significand >> shift & 1;
    return (uint16_t)(sign | (significand + half - 1 + odd) >> shift);
}

float gguf_write_from_f16(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = half & 0x7fff;
    uint32_t bits = sign | ((magnitude << 13) + (112u << 23));
    float x;
    if (magnitude < 0x400) { /* subnormal: magnitude * 2^-24 is exact */
        x = (float)magnitude * 0x1p-24f;
        return sign ? -x : x;
    }
    if (magnitude >= 0x7c00) bits = sign | 0x7f800000 | (magnitude & 0x3ff) << 13;
    memcpy(&x, &bits, sizeof x);
    return x;
}

uint16_t gguf_write_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
