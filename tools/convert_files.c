/* convert_files.c: small files of the directory. See convert.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert.h"

/* The largest tokenizer.json known takes 33 MB. */
static const uint64_t convert_json_limit = 256 << 20;

void convert_warn(const convert_model *model, const char *format, ...) {
    va_list arguments;
    if (model->quiet) return;
    va_start(arguments, format);
    fputs("minim: note: ", stderr);
    vfprintf(stderr, format, arguments);
    putc('\n', stderr);
    va_end(arguments);
}

static int convert_read_all(int file, const char *path, tool_bytes *bytes, size_t size) {
    if (tool_bytes_reserve(bytes, size + 1)) return EXIT_CODE_FAILED;
    bytes->n = 0;
    while (bytes->n < size) {
        const ssize_t got = read(file, bytes->data + bytes->n, size - bytes->n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return tool_fail("%s: %s", path, strerror(errno));
        if (got == 0) return tool_fail("%s: the file became shorter while it was read", path);
        bytes->n += (size_t)got;
    }
    bytes->data[size] = 0;
    return -1;
}

int convert_read_file(const char *directory, const char *name, uint64_t limit, tool_bytes *bytes, int *code) {
    char path[CONVERT_PATH];
    struct stat status;
    *code = -1;
    bytes->n = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path) {
        *code = tool_fail("%.200s...: the path is too long", directory);
        return 1;
    }
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not make us wait */
    if (file < 0 && errno == ENOENT) return 1;
    if (file < 0 || fstat(file, &status))
        *code = tool_fail("%s: %s", path, strerror(errno));
    else if (!S_ISREG(status.st_mode))
        *code = tool_fail("%s: expected a file", path);
    else if ((uint64_t)status.st_size > limit)
        *code = tool_fail("%s: %" PRIu64 " bytes, expected at most %" PRIu64, path, (uint64_t)status.st_size, limit);
    else
        *code = convert_read_all(file, path, bytes, (size_t)status.st_size);
    if (file >= 0) close(file);
    return 0;
}

/* Python writes whole numbers of any length, and tokenizer_config.json often has one of 31 digits (model_max_length);
 * jansson takes none above 2^63. Here 1000... becomes 1e30, of the same length with spaces. */
static void convert_shorten_numbers(char *text, size_t n) {
    int in_string = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"') in_string = !in_string;
        if (in_string && text[i] == '\\') i++;
        if (in_string || i >= n || text[i] < '0' || text[i] > '9') continue;
        size_t end = i;
        while (end < n && text[end] >= '0' && text[end] <= '9') end++;
        const int is_whole = end == n || !strchr(".eE", text[end]);
        const int starts = i == 0 || !strchr(".eE+", text[i - 1]);
        if (end - i > 18 && is_whole && starts) {
            const int used = snprintf(text + i + 1, 16, "e%zu", end - i - 1);
            memset(text + i + 1 + used, ' ', end - i - 1 - (size_t)used);
        }
        i = end - 1;
    }
}

int convert_read_json(const char *directory, const char *name, int required, json_t **root) {
    tool_bytes bytes = {0};
    json_error_t error;
    int code;
    *root = NULL;
    if (convert_read_file(directory, name, convert_json_limit, &bytes, &code)) {
        if (code < 0 && required) code = tool_fail("%s/%s: the file is missing", directory, name);
    } else if (code < 0) {
        convert_shorten_numbers(bytes.data, bytes.n);
        json_t *value = json_loadb(bytes.data, bytes.n, 0, &error);
        if (!value) {
            code = tool_fail("%s/%s: line %d: %.200s", directory, name, error.line, error.text);
        } else if (!json_is_object(value)) {
            code = tool_fail("%s/%s: expected a JSON object", directory, name);
            json_decref(value);
        } else {
            *root = value;
        }
    }
    tool_bytes_free(&bytes);
    return code;
}

double convert_number(json_t *object, const char *file, const char *name, double missing, double min, double max,
                      int *code) {
    json_t *value = json_object_get(object, name);
    if (*code >= 0 || !value || json_is_null(value)) return missing;
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max)) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        *code = tool_fail("%s: %s: expected a number from %g to %g, found %.60s", file, name, min, max,
                          text ? text : "something else");
        free(text);
    }
    return number;
}
