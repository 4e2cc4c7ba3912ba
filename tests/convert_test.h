/* convert_test.h: runs `minim convert` on a directory of its own, for test_convert*.c. */
#ifndef TESTS_CONVERT_TEST_H
#define TESTS_CONVERT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hf_writer.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static char directory[64];
static char output[128];
static char err[4096], out[65536];

static inline int setup(void **state) {
    (void)state;
    snprintf(directory, sizeof directory, "%s", hf_new_directory());
    snprintf(output, sizeof output, "%s.gguf", directory);
    return 0;
}

static inline int teardown(void **state) {
    (void)state;
    hf_remove_directory(directory);
    unlink(output);
    return 0;
}

static inline void slurp(const char *name, char *text, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s.%s", directory, name);
    FILE *file = fopen(path, "rb");
    const size_t n = file ? fread(text, 1, size - 1, file) : 0;
    text[n] = 0;
    if (file) fclose(file);
    unlink(path);
}

/* `minim convert` with these arguments; the exit code. Fills out and err. */
static inline int run(const char *before, const char *arguments) {
    const char *b = getenv("B");
    char command[1024];
    snprintf(command, sizeof command, "%s%s/minim convert %s >%s.out 2>%s.err </dev/null", before, b ? b : "build",
             arguments, directory, directory);
    const int status = system(command);
    slurp("out", out, sizeof out);
    slurp("err", err, sizeof err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline void convert(const char *options) {
    char arguments[512];
    snprintf(arguments, sizeof arguments, "%s %s %s", options, directory, output);
    if (run("", arguments)) fail_msg("minim convert %s: %s", arguments, err);
}

/* Converting fails with one line that has all the words, and leaves nothing behind. */
static inline void refuses(const char *word, const char *word2) {
    char arguments[512], part[256];
    struct stat status;
    snprintf(arguments, sizeof arguments, "-q %s %s", directory, output);
    const int code = run("", arguments);
    if (code != 1 || !strstr(err, word) || !strstr(err, word2) || strchr(err, '\n') != err + strlen(err) - 1)
        fail_msg("exit code %d, \"%s\"; expected 1 and the words \"%s\", \"%s\"", code, err, word, word2);
    assert_int_not_equal(stat(output, &status), 0);
    snprintf(part, sizeof part, "ls %s.*.part 2>/dev/null | grep -q part", output);
    assert_int_not_equal(system(part), 0);
}

static inline gguf_file *open_file(const char *path) {
    static minim_allocator allocator;
    minim_error e;
    gguf_file *file = NULL;
    allocator = mem_allocator(NULL);
    if (gguf_open(&allocator, path, NULL, 0, &file, &e)) fail_msg("%s", e.text);
    return file;
}

static inline uint8_t *read_tensor(const gguf_file *file, const gguf_tensor *t) {
    uint8_t *data = malloc(t->bytes);
    assert_non_null(data);
    assert_int_equal(gguf_read(file, t, 0, data, t->bytes, NULL), MINIM_OK);
    return data;
}

#endif
