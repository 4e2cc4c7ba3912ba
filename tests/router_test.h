/* router_test.h: what the router's tests share. Include it behind cmocka.h. */
#ifndef TESTS_ROUTER_TEST_H
#define TESTS_ROUTER_TEST_H

#include <string.h>

#define U            "\xef\xbf\xbd" /* U+FFFD */
#define COUNT(array) (sizeof(array) / sizeof *(array))
#define assert_has(text, part)                                                                                         \
    do {                                                                                                               \
        if (!strstr(text, part)) fail_msg("\"%s\" does not contain \"%s\"", text, part);                               \
    } while (0)
#define assert_lacks(text, part)                                                                                       \
    do {                                                                                                               \
        if (strstr(text, part)) fail_msg("\"%s\" contains \"%s\"", text, part);                                        \
    } while (0)

#endif
