/* test_gguf_files.c: what is not a readable file is refused at once with one clear line, and real GGUF files open. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../engine/gguf.h"
#include "gguf_writer.h"

static char folder[] = "/tmp/minim-gguf-files-XXXXXX";

static const char *in_folder(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* ---- the file system -------------------------------------------------------------------------------------------- */

static void refuse_path(const char *path, minim_status status, const char *text) {
    gguf_file *f;
    minim_error e;
    if (gguf_open(NULL, path, NULL, 0, &f, &e) != status || !strstr(e.text, text))
        fail_msg("status %d, text: %s", e.status, e.text);
    assert_null(f);
    assert_memory_equal(e.text, path, strlen(path));
}

static void a_directory_is_refused(void **state) {
    (void)state;
    refuse_path(folder, MINIM_ERR_IO, ": is a directory, expected a GGUF file");
}

static void a_pipe_is_refused_at_once(void **state) {
    (void)state;
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    alarm(20); /* waiting for a writer would hang here */
    refuse_path(in_folder("pipe"), MINIM_ERR_IO, ": is a pipe, expected a GGUF file");
    alarm(0);
}

static void a_socket_is_refused(void **state) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)state;
    snprintf(address.sun_path, sizeof address.sun_path, "%.90s", in_folder("socket"));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address)) {
        if (fd >= 0) close(fd);
        print_message("no sockets here\n");
        skip();
    }
    refuse_path(in_folder("socket"), MINIM_ERR_IO, ": is a socket, expected a GGUF file");
    close(fd);
}

static void a_device_is_refused(void **state) {
    (void)state;
    refuse_path("/dev/null", MINIM_ERR_IO, ": is a device, expected a GGUF file");
}

static void an_empty_file_is_refused(void **state) {
    (void)state;
    assert_int_equal(gw_save(in_folder("empty.gguf"), "", 0), 0);
    refuse_path(in_folder("empty.gguf"), MINIM_ERR_FORMAT, ": is empty, expected a GGUF file");
}

static void a_missing_file_is_refused(void **state) {
    (void)state;
    refuse_path(in_folder("missing.gguf"), MINIM_ERR_IO, ": cannot be opened: No such file or directory");
    refuse_path("", MINIM_ERR_IO, ": cannot be opened: No such file or directory");
    assert_int_equal(symlink("nowhere", in_folder("dangling.gguf")), 0);
    refuse_path(in_folder("dangling.gguf"), MINIM_ERR_IO, ": cannot be opened: No such file or directory");
}

static void an_unreadable_file_is_refused(void **state) {
    const uid_t user = geteuid();
    gguf_file *f;
    minim_error e;
    minim_status status;
    (void)state;
    assert_int_equal(gw_save(in_folder("secret.gguf"), "GGUF", 4), 0);
    assert_int_equal(chmod(in_folder("secret.gguf"), 0), 0);
    assert_int_equal(chmod(folder, 0755), 0);
    /* Root may read everything: be somebody else for a moment. */
    if (user == 0 && seteuid(65534)) {
        print_message("root, and cannot be anybody else: nothing is unreadable\n");
        skip();
    }
    status = gguf_open(NULL, in_folder("secret.gguf"), NULL, 0, &f, &e);
    if (user == 0) assert_int_equal(seteuid(0), 0);
    assert_int_equal(status, MINIM_ERR_IO);
    assert_non_null(strstr(e.text, "secret.gguf: cannot be opened: Permission denied"));
}

static void no_path_and_no_data_is_an_argument_error(void **state) {
    gguf_file *f;
    minim_error e;
    (void)state;
    assert_int_equal(gguf_open(NULL, NULL, NULL, 0, &f, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(gguf_open(NULL, NULL, "GGUF", 4, &f, &e), MINIM_ERR_FORMAT);
    assert_memory_equal(e.text, "(memory): ", 10);
    assert_int_equal(gguf_open(NULL, "empty", "", 0, &f, &e), MINIM_ERR_FORMAT);
    assert_string_equal(e.text, "empty: is empty, expected a GGUF file");
}

/* ---- real files ------------------------------------------------------------------------------------------------- */

static gguf_file *open_file(const char *path) {
    gguf_file *f;
    minim_error e;
    if (gguf_open(NULL, path, NULL, 0, &f, &e)) fail_msg("%s", e.text);
    return f;
}

static void the_default_model_opens(void **state) {
    gguf_file *f = open_file("models/stories260K.gguf");
    const gguf_value *tokens;
    const gguf_tensor *t = gguf_find_tensor(f, "blk.4.ffn_down.weight");
    uint32_t layers = 0;
    gguf_str architecture;
    (void)state;
    assert_int_equal(gguf_value_count(f), 19);
    assert_int_equal(gguf_tensor_count(f), 48);
    assert_int_equal(gguf_get_str(f, "general.architecture", &architecture, NULL, NULL), MINIM_OK);
    assert_string_equal(architecture.s, "llama");
    assert_int_equal(gguf_get_u32(f, "llama.block_count", &layers, NULL, NULL), MINIM_OK);
    assert_int_equal(layers, 5);
    assert_int_equal(gguf_get_array(f, "tokenizer.ggml.tokens", GGUF_STR, &tokens, NULL, NULL), MINIM_OK);
    assert_int_equal(tokens->count, 512);
    assert_string_equal(((const gguf_str *)tokens->data)[1].s, "<s>");
    assert_non_null(t);
    assert_memory_equal(t->dim, ((uint64_t[]){172, 64, 1, 1}), sizeof t->dim);
    gguf_close(f);
}

static int n_fixtures;

static int open_fixture(const char *path, const struct stat *st, int type, struct FTW *where) {
    const size_t n = strlen(path);
    (void)st;
    (void)where;
    if (type != FTW_F || n < 5 || strcmp(path + n - 5, ".gguf") != 0) return 0;
    gguf_file *f = open_file(path);
    minim_error e;
    for (size_t i = 0; i < gguf_tensor_count(f); i++) {
        const gguf_tensor *t = gguf_tensor_at(f, i);
        uint8_t first[1], last[1];
        assert_int_equal(gguf_read(f, t, 0, first, 1, &e), MINIM_OK);
        assert_int_equal(gguf_read(f, t, t->bytes - 1, last, 1, &e), MINIM_OK);
    }
    gguf_close(f);
    n_fixtures++;
    return 0;
}

static void all_fixtures_open(void **state) {
    const char *shared = getenv("MINIM_SHARED");
    char path[1024];
    struct stat st;
    (void)state;
    snprintf(path, sizeof path, "%s/fixtures", shared ? shared : "../shared");
    if (stat(path, &st)) {
        print_message("%s is not there: only the default model was opened\n", path);
        skip();
    }
    assert_int_equal(nftw(path, open_fixture, 16, FTW_PHYS), 0);
    print_message("%d fixtures opened\n", n_fixtures);
    assert_true(n_fixtures > 0);
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where) {
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_directory_is_refused),        cmocka_unit_test(a_pipe_is_refused_at_once),
        cmocka_unit_test(a_socket_is_refused),           cmocka_unit_test(a_device_is_refused),
        cmocka_unit_test(an_empty_file_is_refused),      cmocka_unit_test(a_missing_file_is_refused),
        cmocka_unit_test(an_unreadable_file_is_refused), cmocka_unit_test(no_path_and_no_data_is_an_argument_error),
        cmocka_unit_test(the_default_model_opens),       cmocka_unit_test(all_fixtures_open),
    };
    int failed;
    if (!mkdtemp(folder)) return 1;
    failed = cmocka_run_group_tests_name("GGUF in the file system", tests, NULL, NULL);
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return failed;
}
