/* test_text.c: what a user sees of a stream: whole characters, nothing of a stop string, the same however it is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../engine/text.h"
#include "count_allocator.h"

#define BAD "\xef\xbf\xbd" /* U+FFFD */

static text_stream *must_make(const char *const *stop, size_t n_stop) {
    text_stream *t = NULL;
    minim_error e = {0};
    if (text_new(NULL, stop, n_stop, &t, &e)) fail_msg("%s", e.text);
    return t;
}

/* Pushes text in pieces of `step` bytes (0: all at once) and collects all that comes out. */
static char *stream(const char *const *stop, size_t n_stop, const char *text, size_t n, size_t step, int *stopped) {
    text_stream *t = must_make(stop, n_stop);
    char *out = calloc(3 * n + 16, 1);
    const char *ready;
    size_t n_ready, used = 0;
    *stopped = 0;
    for (size_t i = 0; i < n && !*stopped; i += step ? step : n) {
        const size_t here = step && step < n - i ? step : n - i;
        assert_int_equal(text_push(t, text + i, here, &ready, &n_ready, stopped, NULL), MINIM_OK);
        for (size_t k = 0; k < n_ready; k += utf8_length(ready + k, n_ready - k))
            assert_true(utf8_length(ready + k, n_ready - k) > 0); /* whole characters only */
        memcpy(out + used, ready, n_ready);
        used += n_ready;
    }
    assert_int_equal(text_finish(t, &ready, &n_ready, NULL), MINIM_OK);
    memcpy(out + used, ready, n_ready);
    text_free(t);
    return out;
}

static void assert_stream(const char *const *stop, size_t n_stop, const char *text, const char *expected, int stops) {
    for (size_t step = 0; step <= 4; step++) {
        int stopped;
        char *out = stream(stop, n_stop, text, strlen(text), step, &stopped);
        assert_string_equal(out, expected);
        assert_int_equal(stopped, stops);
        free(out);
    }
}

/* ---- characters ------------------------------------------------------------------------------------------------- */

static void half_a_character_waits_for_its_rest(void **state) {
    text_stream *t = must_make(NULL, 0);
    const char *ready;
    size_t n;
    int stopped;
    (void)state;
    assert_int_equal(text_push(t, "a\xf0\x9f", 3, &ready, &n, &stopped, NULL), MINIM_OK);
    assert_int_equal(n, 1);
    assert_memory_equal(ready, "a", 1);
    assert_int_equal(text_push(t, "\x98", 1, &ready, &n, &stopped, NULL), MINIM_OK);
    assert_int_equal(n, 0);
    assert_int_equal(text_push(t, "\x80!", 2, &ready, &n, &stopped, NULL), MINIM_OK);
    assert_int_equal(n, 5);
    assert_memory_equal(ready, "\xf0\x9f\x98\x80!", 5);
    assert_int_equal(text_push(t, "\xe2\x82", 2, &ready, &n, &stopped, NULL), MINIM_OK);
    assert_int_equal(n, 0);
    assert_int_equal(text_finish(t, &ready, &n, NULL), MINIM_OK);
    assert_int_equal(n, 3);
    assert_memory_equal(ready, BAD, 3);
    text_free(t);
}

static void what_is_no_utf_8_is_replaced(void **state) {
    (void)state;
    assert_stream(NULL, 0, "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", 0);
    assert_stream(NULL, 0, "\x80\xbf", BAD BAD, 0);                 /* continuations without a beginning */
    assert_stream(NULL, 0, "\xc0\x80", BAD BAD, 0);                 /* overlong */
    assert_stream(NULL, 0, "\xe0\x80\xaf", BAD BAD BAD, 0);         /* overlong */
    assert_stream(NULL, 0, "\xed\xa0\x80", BAD BAD BAD, 0);         /* a surrogate */
    assert_stream(NULL, 0, "\xf4\x90\x80\x80", BAD BAD BAD BAD, 0); /* above U+10FFFF */
    assert_stream(NULL, 0, "\xf5\xff", BAD BAD, 0);
    assert_stream(NULL, 0, "\xe2\x82x", BAD "x", 0); /* one for the part that was right */
    assert_stream(NULL, 0, "\xf0\x9f\x98\xc3\xa9", BAD "\xc3\xa9", 0);
    assert_stream(NULL, 0, "\xc3\xc3\xa9", BAD "\xc3\xa9", 0);
    assert_stream(NULL, 0, "a\xe2\x82", "a" BAD, 0); /* cut at the end */
    assert_stream(NULL, 0, "\xf4\x8f\xbf\xbf\xed\x9f\xbf", "\xf4\x8f\xbf\xbf\xed\x9f\xbf", 0);
}

static void a_nul_is_a_character(void **state) {
    int stopped;
    char *out = stream(NULL, 0, "a\0b", 3, 1, &stopped);
    (void)state;
    assert_memory_equal(out, "a\0b", 4);
    free(out);
}

/* ---- stop strings ----------------------------------------------------------------------------------------------- */

static void a_stop_string_ends_the_text(void **state) {
    const char *const one[] = {"User:"}, *const two[] = {"\n\n", "END"}, *const wide[] = {"\xe2\x82\xac"};
    (void)state;
    assert_stream(one, 1, "Hello.\nUser: more User:", "Hello.\n", 1);
    assert_stream(one, 1, "Hello, User", "Hello, User", 0);
    assert_stream(one, 1, "User:", "", 1);
    assert_stream(one, 1, "UsUser:", "Us", 1);
    assert_stream(two, 2, "a\nb\n\nEND", "a\nb", 1);
    assert_stream(two, 2, "aENENDb\n\n", "aEN", 1);
    assert_stream(wide, 1, "5 \xe2\x82\xad or \xe2\x82\xac 6", "5 \xe2\x82\xad or ", 1);
    assert_stream(NULL, 0, "", "", 0);
}

static void the_stop_string_that_is_complete_first_counts(void **state) {
    const char *const nested[] = {"abcdX", "c"}, *const same_end[] = {"c", "bc", "abc"}, *const self[] = {"aab"};
    (void)state;
    assert_stream(nested, 2, "1abcdX", "1ab", 1);
    assert_stream(same_end, 3, "1abc", "1", 1);
    assert_stream(self, 1, "aaaab", "aa", 1);
}

static void only_what_may_be_a_stop_string_is_held_back(void **state) {
    const char *const stop[] = {"<end>", "nd>x"};
    text_stream *t = must_make(stop, 2);
    const char *ready;
    size_t n;
    int stopped;
    (void)state;
    assert_int_equal(text_push(t, "abc<en", 6, &ready, &n, &stopped, NULL), MINIM_OK);
    assert_int_equal(n, 3);
    assert_int_equal(text_push(t, "d", 1, &ready, &n, &stopped, NULL), MINIM_OK);
    assert_int_equal(n, 0);
    assert_int_equal(text_push(t, "!", 1, &ready, &n, &stopped, NULL), MINIM_OK);
    assert_int_equal(n, 5);
    assert_memory_equal(ready, "<end!", 5);
    assert_int_equal(text_push(t, "<end>", 5, &ready, &n, &stopped, NULL), MINIM_OK);
    assert_int_equal(n, 0);
    assert_int_equal(stopped, 1);
    assert_int_equal(text_push(t, "more", 4, &ready, &n, &stopped, NULL), MINIM_OK); /* nothing comes behind it */
    assert_int_equal(n, 0);
    assert_int_equal(stopped, 1);
    assert_int_equal(text_finish(t, &ready, &n, NULL), MINIM_OK);
    assert_int_equal(n, 0);
    text_free(t);
}

/* The definition: the smallest end of a match, then the smallest beginning. */
static size_t find_stop(const char *const *stop, size_t n_stop, const char *text) {
    for (size_t end = 1; end <= strlen(text); end++) {
        size_t begin = SIZE_MAX;
        for (size_t i = 0; i < n_stop; i++) {
            const size_t n = strlen(stop[i]);
            if (n <= end && memcmp(text + end - n, stop[i], n) == 0 && end - n < begin) begin = end - n;
        }
        if (begin != SIZE_MAX) return begin;
    }
    return strlen(text);
}

static void random_streams_follow_the_definition(void **state) {
    uint32_t random = 5;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        char stop_text[4][8], text[64];
        const char *stop[4] = {stop_text[0], stop_text[1], stop_text[2], stop_text[3]};
        const size_t n_stop = (size_t)round % 5, n = (size_t)round % 60;
        int stopped;
        char *out;
        for (size_t i = 0; i < n_stop; i++) {
            random = random * 1664525 + 1013904223;
            const size_t length = 1 + (random >> 28) % 6;
            for (size_t k = 0; k < length; k++) stop_text[i][k] = (char)('a' + (random >> (8 + 2 * k)) % 2);
            stop_text[i][length] = 0;
        }
        for (size_t i = 0; i < n; i++) {
            random = random * 1664525 + 1013904223;
            text[i] = (char)('a' + (random >> 28) % 3 % 2 + (random >> 24) % 9 / 8);
        }
        text[n] = 0;
        out = stream(stop, n_stop, text, n, (size_t)round % 7, &stopped);
        const size_t expected = find_stop(stop, n_stop, text);
        assert_int_equal(strlen(out), expected);
        assert_memory_equal(out, text, expected);
        assert_int_equal(stopped, expected < n);
        free(out);
    }
}

static void impossible_stop_strings_are_refused(void **state) {
    char long_one[TEXT_MAX_STOP_BYTES + 2];
    const char *many[TEXT_MAX_STOPS + 1], *const empty[] = {"a", ""}, *const none[] = {NULL};
    const char *const broken[] = {"\xc3"};
    const char *const long_stop[] = {long_one};
    text_stream *t = NULL;
    minim_error e;
    (void)state;
    for (size_t i = 0; i < TEXT_MAX_STOPS + 1; i++) many[i] = "stop";
    memset(long_one, 'x', sizeof long_one);
    long_one[TEXT_MAX_STOP_BYTES + 1] = 0;
    assert_int_equal(text_new(NULL, many, TEXT_MAX_STOPS + 1, &t, &e), MINIM_ERR_ARGUMENT);
    assert_string_equal(e.text, "65 stop strings, at most 64 are possible");
    assert_int_equal(text_new(NULL, empty, 2, &t, &e), MINIM_ERR_ARGUMENT);
    assert_string_equal(e.text, "stop string 1 is empty");
    assert_int_equal(text_new(NULL, none, 1, &t, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(text_new(NULL, NULL, 1, &t, &e), MINIM_ERR_ARGUMENT);
    assert_int_equal(text_new(NULL, broken, 1, &t, &e), MINIM_ERR_ARGUMENT);
    assert_string_equal(e.text, "stop string 0 is not valid UTF-8");
    assert_int_equal(text_new(NULL, long_stop, 1, &t, &e), MINIM_ERR_ARGUMENT);
    assert_string_equal(e.text, "stop string 0 is longer than 1024 bytes");
    assert_null(t);
    long_one[TEXT_MAX_STOP_BYTES] = 0; /* the limits themselves are fine */
    assert_stream(long_stop, 1, long_one, "", 1);
    assert_stream(many, TEXT_MAX_STOPS, "no stop", "no ", 1);
}

/* 64 stop strings of a kilobyte that nearly match all the time. */
static void the_worst_stop_strings_cost_linear_time(void **state) {
    enum { N = 1 << 18 };
    static char stop_text[TEXT_MAX_STOPS][TEXT_MAX_STOP_BYTES + 1];
    const char *stop[TEXT_MAX_STOPS];
    char *text = malloc(N), *out;
    const clock_t begin = clock();
    int stopped;
    (void)state;
    for (size_t i = 0; i < TEXT_MAX_STOPS; i++) {
        memset(stop_text[i], 'a', TEXT_MAX_STOP_BYTES - i);
        stop_text[i][TEXT_MAX_STOP_BYTES - i - 1] = 'b';
        stop[i] = stop_text[i];
    }
    memset(text, 'a', N);
    out = stream(stop, TEXT_MAX_STOPS, text, N, 16, &stopped);
    assert_int_equal(strlen(out), N);
    assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 10);
    free(out);
    free(text);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static void memory_may_fail_and_nothing_is_lost(void **state) {
    const char *const stop[] = {"stop", "tone"};
    char text[3001];
    int done = 0;
    (void)state;
    memset(text, 't', sizeof text - 1);
    text[sizeof text - 1] = 0;
    for (size_t at = 1; !done; at++) {
        count_allocator counter = {.fail_at = at};
        const minim_allocator a = count_allocator_get(&counter);
        text_stream *t = NULL;
        const char *ready;
        size_t n, total = 0, used = 0;
        int stopped, failures = 0;
        if (text_new(&a, stop, 2, &t, NULL)) {
            assert_null(t);
            failures++;
        } else {
            for (size_t step = 1; used < sizeof text - 1; step *= 2) {
                const size_t here = step < sizeof text - 1 - used ? step : sizeof text - 1 - used;
                if (text_push(t, text + used, here, &ready, &n, &stopped, NULL)) {
                    assert_int_equal(n, 0); /* nothing was added: the same again */
                    failures++;
                    assert_int_equal(text_push(t, text + used, here, &ready, &n, &stopped, NULL), MINIM_OK);
                }
                total += n;
                used += here;
            }
            assert_int_equal(text_finish(t, &ready, &n, NULL), MINIM_OK);
            assert_int_equal(total + n, sizeof text - 1);
        }
        done = counter.calls < at;
        assert_int_equal(failures, !done);
        text_free(t);
        assert_true(count_allocator_clean(&counter));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_a_character_waits_for_its_rest),
        cmocka_unit_test(what_is_no_utf_8_is_replaced),
        cmocka_unit_test(a_nul_is_a_character),
        cmocka_unit_test(a_stop_string_ends_the_text),
        cmocka_unit_test(the_stop_string_that_is_complete_first_counts),
        cmocka_unit_test(only_what_may_be_a_stop_string_is_held_back),
        cmocka_unit_test(random_streams_follow_the_definition),
        cmocka_unit_test(impossible_stop_strings_are_refused),
        cmocka_unit_test(the_worst_stop_strings_cost_linear_time),
        cmocka_unit_test(memory_may_fail_and_nothing_is_lost),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
