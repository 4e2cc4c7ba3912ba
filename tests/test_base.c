/* test_base.c: memory, errors, checked sizes and the count of CPUs. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../engine/base.h"
#include "count_allocator.h"

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static void memory_is_aligned_and_cleared_when_asked(void **state) {
    count_allocator counter = {0};
    const minim_allocator counted = count_allocator_get(&counter), empty = {0};
    const minim_allocator *allocators[] = {NULL, &empty, &counted};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (size_t n = 0; n < 200; n += 7) {
            uint8_t *a = mem_alloc(allocators[i], n, 3), *z = mem_zalloc(allocators[i], n, 3);
            assert_non_null(a);
            assert_non_null(z);
            assert_int_equal((uintptr_t)a % 64, 0);
            assert_int_equal((uintptr_t)z % 64, 0);
            memset(a, 1, n * 3);
            for (size_t k = 0; k < n * 3; k++) assert_int_equal(z[k], 0);
            mem_free(allocators[i], a, n, 3);
            mem_free(allocators[i], z, n, 3);
        }
        mem_free(allocators[i], NULL, 10, 10);
    }
    assert_true(counter.calls > 0);
    assert_true(count_allocator_clean(&counter));
}

static void sizes_that_wrap_give_no_memory(void **state) {
    (void)state;
    assert_null(mem_alloc(NULL, SIZE_MAX / 2 + 1, 2));
    assert_null(mem_alloc(NULL, SIZE_MAX / 8 + 2, 8)); /* 8 bytes, if it wrapped */
    assert_null(mem_zalloc(NULL, SIZE_MAX, SIZE_MAX));
    assert_null(mem_alloc(NULL, SIZE_MAX, 1));
}

static void growing_keeps_the_content_and_doubles(void **state) {
    count_allocator counter = {0};
    const minim_allocator a = count_allocator_get(&counter);
    uint32_t *p = NULL;
    size_t capacity = 0;
    (void)state;
    for (uint32_t i = 0; i < 100000; i++) {
        assert_int_equal(mem_grow(&a, &p, &capacity, i + 1, sizeof *p), 0);
        assert_true(capacity > i);
        p[i] = i * 3;
    }
    assert_true(counter.calls < 20);
    for (uint32_t i = 0; i < 100000; i++) assert_int_equal(p[i], i * 3);
    assert_int_equal(mem_grow(&a, &p, &capacity, 1, sizeof *p), 0); /* never shrinks */
    assert_true(capacity >= 100000);
    mem_free(&a, p, capacity, sizeof *p);
    assert_true(count_allocator_clean(&counter));
}

static void growing_that_fails_changes_nothing(void **state) {
    count_allocator counter = {.fail_at = 2, .fail_after = 1};
    const minim_allocator a = count_allocator_get(&counter);
    uint32_t *p = NULL, *before;
    size_t capacity = 0;
    (void)state;
    assert_int_equal(mem_grow(&a, &p, &capacity, 4, sizeof *p), 0);
    before = p;
    memcpy(p, "0123456789abcdef", 16);
    assert_int_equal(mem_grow(&a, &p, &capacity, 5, sizeof *p), -1);
    assert_int_equal(mem_grow(&a, &p, &capacity, SIZE_MAX, sizeof *p), -1);
    assert_ptr_equal(p, before);
    assert_int_equal(capacity, 4);
    assert_memory_equal(p, "0123456789abcdef", 16);
    mem_free(&a, p, capacity, sizeof *p);
    assert_true(count_allocator_clean(&counter));
}

/* ---- text and errors -------------------------------------------------------------------------------------------- */

static void only_valid_utf8_has_a_length(void **state) {
    static const struct {
        const char *s;
        size_t n, length;
    } cases[] = {
        {"", 0, 0},
        {"\0", 1, 1},
        {"a", 1, 1},
        {"\x7f", 1, 1},
        {"\x80", 1, 0},
        {"\xbf\x80", 2, 0},
        {"\xc0\x80", 2, 0},
        {"\xc1\xbf", 2, 0},
        {"\xc2\x80", 2, 2},
        {"\xdf\xbf", 2, 2},
        {"\xc2", 1, 0},
        {"\xc2z", 2, 0},
        {"\xe0\x9f\xbf", 3, 0},
        {"\xe0\xa0\x80", 3, 3},
        {"\xed\x9f\xbf", 3, 3},
        {"\xed\xa0\x80", 3, 0},
        {"\xee\x80\x80", 3, 3},
        {"\xef\xbf\xbf", 3, 3},
        {"\xe2\x82", 2, 0},
        {"\xe2\x82z", 3, 0},
        {"\xf0\x8f\xbf\xbf", 4, 0},
        {"\xf0\x90\x80\x80", 4, 4},
        {"\xf4\x8f\xbf\xbf", 4, 4},
        {"\xf4\x90\x80\x80", 4, 0},
        {"\xf5\x80\x80\x80", 4, 0},
        {"\xff", 1, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(utf8_length(cases[i].s, cases[i].n), cases[i].length);
}

static void an_error_is_one_line_of_valid_text(void **state) {
    minim_error e;
    (void)state;
    assert_int_equal(err_set(&e, MINIM_ERR_IO, "%s: %d", "file", 7), MINIM_ERR_IO);
    assert_int_equal(e.status, MINIM_ERR_IO);
    assert_string_equal(e.text, "file: 7");
    err_set(&e, MINIM_ERR_IO, "%s",
            "a\nb\x1b[2Jc\td\x7f\xc2\x9b"
            "e\xc2\xa0\xe2\x82\xac\xff\xe2\x82 z");
    assert_string_equal(e.text, "a?b?[2Jc?d??e\xc2\xa0\xe2\x82\xac??? z");
    err_set(&e, MINIM_ERR_IO, "model: %s", e.text);
    assert_string_equal(e.text, "model: a?b?[2Jc?d??e\xc2\xa0\xe2\x82\xac??? z");
    assert_int_equal(err_set(NULL, MINIM_ERR_FORMAT, "nobody listens"), MINIM_ERR_FORMAT);
    assert_int_equal(err_ok(&e), MINIM_OK);
    assert_int_equal(e.status, MINIM_OK);
    assert_string_equal(e.text, "");
    assert_int_equal(err_memory(&e, "a thing", 12345678901), MINIM_ERR_MEMORY);
    assert_string_equal(e.text, "out of memory: a thing needs 12345678901 bytes");
}

static void a_long_error_is_cut_between_characters(void **state) {
    char text[600];
    minim_error e;
    (void)state;
    for (size_t before = 500; before < 512; before++) {
        memset(text, 'x', sizeof text);
        strcpy(text + before, "\xf0\x9f\x90\x9c and more");
        err_set(&e, MINIM_ERR_IO, "%s", text);
        assert_int_equal(strlen(e.text), before > 503 && before < 507 ? before : 507);
        assert_null(strchr(e.text, '?'));
    }
}

/* ---- sizes ------------------------------------------------------------------------------------------------------ */

static void sizes_are_multiplied_and_added_exactly_or_not_at_all(void **state) {
    uint64_t x = 7;
    (void)state;
    assert_int_equal(size_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &x), -1);
    assert_int_equal(size_mul(UINT64_MAX, 2, &x), -1);
    assert_int_equal(size_mul(UINT64_MAX / 3 + 1, 3, &x), -1);
    assert_int_equal(size_add(UINT64_MAX, 1, &x), -1);
    assert_int_equal(x, 7);
    assert_int_equal(size_mul(UINT64_MAX / 3, 3, &x), 0);
    assert_true(x == UINT64_MAX);
    assert_int_equal(size_mul(UINT64_MAX, 0, &x), 0);
    assert_true(x == 0);
    assert_int_equal(size_mul(0, UINT64_MAX, &x), 0);
    assert_true(x == 0);
    assert_int_equal(size_add(UINT64_MAX - 1, 1, &x), 0);
    assert_true(x == UINT64_MAX);
}

/* ---- the machine ------------------------------------------------------------------------------------------------ */

static char root[] = "/tmp/minim-base-XXXXXX";

/* Writes a small file below the root, with its folders. */
static void put_file(const char *name, const char *text) {
    char path[512];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(path, 0755);
        *p = '/';
    }
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* The quota of a machine whose files are these, up to a NULL name. */
static int quota_with(const char *const *files) {
    char command[64];
    int quota;
    for (; *files; files += 2) put_file(files[0], files[1]);
    quota = cpu_quota(root);
    snprintf(command, sizeof command, "rm -rf '%s'/*", root);
    assert_int_equal(system(command), 0);
    return quota;
}

static void the_quota_of_cgroup_2_is_found(void **state) {
    (void)state;
    assert_int_equal(quota_with((const char *[]){NULL}), 0);
    assert_int_equal(quota_with((const char *[]){"proc/self/cgroup", "0::/\n", NULL}), 0);
    assert_int_equal(quota_with((const char *[]){"proc/self/cgroup", "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max",
                                                 "200000 100000\n", NULL}),
                     2);
    assert_int_equal(
        quota_with((const char *[]){"proc/self/cgroup", "0::/a\n", "sys/fs/cgroup/a/cpu.max", "max 100000\n", NULL}),
        0);
    /* rounded up: a part of a CPU still needs a thread */
    assert_int_equal(
        quota_with((const char *[]){"proc/self/cgroup", "0::/a\n", "sys/fs/cgroup/a/cpu.max", "250000 100000\n", NULL}),
        3);
    assert_int_equal(
        quota_with((const char *[]){"proc/self/cgroup", "0::/a\n", "sys/fs/cgroup/a/cpu.max", "1000 100000\n", NULL}),
        1);
    /* a container sees its own limit at the mount point */
    assert_int_equal(
        quota_with((const char *[]){"proc/self/cgroup", "0::/\n", "sys/fs/cgroup/cpu.max", "400000 100000\n", NULL}),
        4);
    assert_int_equal(quota_with((const char *[]){"proc/self/cgroup", "0::/not/visible/here\n", "sys/fs/cgroup/cpu.max",
                                                 "400000 100000\n", NULL}),
                     4);
}

static void the_smallest_quota_of_a_group_and_its_parents_holds(void **state) {
    (void)state;
    assert_int_equal(quota_with((const char *[]){"proc/self/cgroup", "0::/a/b/c\n", "sys/fs/cgroup/a/cpu.max",
                                                 "200000 100000\n", "sys/fs/cgroup/a/b/cpu.max", "max 100000\n",
                                                 "sys/fs/cgroup/a/b/c/cpu.max", "700000 100000\n", NULL}),
                     2);
}

static void the_quota_of_cgroup_1_is_found(void **state) {
    static const char group[] = "12:memory:/docker/x\n5:cpu,cpuacct:/docker/x\n2:cpuset:/\n0::/\n";
    (void)state;
    assert_int_equal(quota_with((const char *[]){"proc/self/cgroup", group, "sys/fs/cgroup/cpu/cpu.cfs_quota_us",
                                                 "150000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000\n", NULL}),
                     3);
    assert_int_equal(
        quota_with((const char *[]){"proc/self/cgroup", group, "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "-1\n",
                                    "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000\n", NULL}),
        0);
    /* the limit of another controller's folder is not ours */
    assert_int_equal(
        quota_with((const char *[]){"proc/self/cgroup", "2:cpuset:/a\n", "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us",
                                    "100000\n", "sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n", NULL}),
        0);
}

static void nonsense_in_cgroup_files_is_no_quota(void **state) {
    static const char *const texts[] = {"",           "\n",         "nonsense\n",  "-5 100000\n",
                                        "0 100000\n", "100000 0\n", "100000 -1\n", "9000000000000000000 1\n"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_int_equal(quota_with((const char *[]){"proc/self/cgroup", "0::/a\n:\n::\nno colon\n",
                                                     "sys/fs/cgroup/a/cpu.max", texts[i], NULL}),
                         0);
}

static void the_affinity_mask_limits_the_cpus(void **state) {
    cpu_set_t all, one;
    int first = 0;
    (void)state;
    assert_true(cpu_count() >= 1);
    if (sched_getaffinity(0, sizeof all, &all)) skip();
    while (!CPU_ISSET(first, &all)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(cpu_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_true(cpu_count() <= CPU_COUNT(&all));
}

static void time_goes_forward_in_seconds(void **state) {
    const double start = time_now();
    double seconds;
    (void)state;
    usleep(20000);
    seconds = time_now() - start;
    assert_true(seconds >= 0.02 && seconds < 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned_and_cleared_when_asked),
        cmocka_unit_test(sizes_that_wrap_give_no_memory),
        cmocka_unit_test(growing_keeps_the_content_and_doubles),
        cmocka_unit_test(growing_that_fails_changes_nothing),
        cmocka_unit_test(only_valid_utf8_has_a_length),
        cmocka_unit_test(an_error_is_one_line_of_valid_text),
        cmocka_unit_test(a_long_error_is_cut_between_characters),
        cmocka_unit_test(sizes_are_multiplied_and_added_exactly_or_not_at_all),
        cmocka_unit_test(the_quota_of_cgroup_2_is_found),
        cmocka_unit_test(the_smallest_quota_of_a_group_and_its_parents_holds),
        cmocka_unit_test(the_quota_of_cgroup_1_is_found),
        cmocka_unit_test(nonsense_in_cgroup_files_is_no_quota),
        cmocka_unit_test(the_affinity_mask_limits_the_cpus),
        cmocka_unit_test(time_goes_forward_in_seconds),
    };
    int failed;
    if (!mkdtemp(root)) return 1;
    failed = cmocka_run_group_tests_name("base", tests, NULL, NULL);
    rmdir(root);
    return failed;
}
