/* url.c: see url.h. */
#include "url.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "support.h"

/* host as libcurl gives it: IPv4 addresses in their usual form, IPv6 in brackets. "localhost" never asks DNS. */
static int url_host_is_loopback(const char *host) {
    struct in_addr address;
    if (!strcasecmp(host, "localhost") || !strcmp(host, "[::1]")) return 1;
    return inet_pton(AF_INET, host, &address) == 1 && (ntohl(address.s_addr) >> 24) == 127;
}

static minim_status url_check(const char *scheme, const char *host, CURLU *url, url_parts *parts, minim_error *error) {
    char *user = NULL, *password = NULL;
    curl_url_get(url, CURLUPART_USER, &user, 0);
    curl_url_get(url, CURLUPART_PASSWORD, &password, 0);
    int has_user = user || password;
    curl_free(user);
    curl_free(password);
    parts->loopback = url_host_is_loopback(host);
    if (has_user) {
        return router_fail(error, MINIM_ERR_ARGUMENT,
                           "remote URL at %s: found a user or password in it, expected an api_key instead", host);
    }
    if (strcmp(scheme, "https") && strcmp(scheme, "http")) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "remote URL: found %s://%s, expected https://", scheme, host);
    }
    if (!strcmp(scheme, "http") && !parts->loopback) {
        return router_fail(
            error, MINIM_ERR_ARGUMENT,
            "remote URL: found http://%s, expected https: prompts and keys go unencrypted to this machine "
            "only (127.0.0.1, [::1], localhost)",
            host);
    }
    return MINIM_OK;
}

/* Puts /chat/completions behind the path. */
static CURLUcode url_append(CURLU *url) {
    static const char tail[] = "/chat/completions";
    char *path = NULL, joined[1100];
    CURLUcode code = curl_url_get(url, CURLUPART_PATH, &path, 0);
    if (code) return code;
    size_t n = strlen(path), n_tail = sizeof tail - 1;
    while (n && path[n - 1] == '/') n--;
    int complete = n >= n_tail && !memcmp(path + n - n_tail, tail, n_tail);
    router_line(joined, sizeof joined, "%.*s%s", (int)n, path, complete ? "" : tail);
    curl_free(path);
    code = curl_url_set(url, CURLUPART_PATH, joined, 0);
    return code ? code : curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0);
}

/* Copies a part and frees it; -1 when it does not fit. */
static int url_take(char *field, size_t capacity, char *part) {
    size_t n = strlen(part);
    if (n < capacity) memcpy(field, part, n + 1);
    curl_free(part);
    return n < capacity ? 0 : -1;
}

static minim_status url_fill(CURLU *url, url_parts *parts, minim_error *error) {
    char *scheme = NULL, *host = NULL, *port = NULL, *whole = NULL;
    minim_status status = MINIM_ERR_ARGUMENT;
    if (curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) || curl_url_get(url, CURLUPART_HOST, &host, 0) ||
        curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT)) {
        router_fail(error, status, "remote URL: found no host, expected https://HOST/v1");
    } else {
        status = url_check(scheme, host, url, parts, error);
    }
    if (status == MINIM_OK) {
        router_line(parts->origin, sizeof parts->origin, "%s://%s:%s", scheme, host, port);
        if (url_append(url) || curl_url_get(url, CURLUPART_URL, &whole, 0) ||
            url_take(parts->endpoint, sizeof parts->endpoint, whole)) {
            status = router_fail(error, MINIM_ERR_ARGUMENT, "remote URL at %s: too long, or out of memory", host);
        }
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    return status;
}

minim_status url_read(const char *base_url, url_parts *parts, minim_error *error) {
    memset(parts, 0, sizeof *parts);
    CURLU *url = curl_url();
    if (!url) return router_fail_memory(error, "the remote URL");
    CURLUcode code = curl_url_set(url, CURLUPART_URL, base_url, 0);
    minim_status status;
    if (code == CURLUE_BAD_SCHEME || code == CURLUE_UNSUPPORTED_SCHEME) {
        status = router_fail(error, MINIM_ERR_ARGUMENT, "remote URL: expected it to begin with https://");
    } else if (code == CURLUE_OUT_OF_MEMORY) {
        status = router_fail_memory(error, "the remote URL");
    } else if (code) {
        status =
            router_fail(error, MINIM_ERR_ARGUMENT, "remote URL: %s, expected https://HOST/v1", curl_url_strerror(code));
    } else {
        status = url_fill(url, parts, error);
    }
    curl_url_cleanup(url);
    return status;
}
