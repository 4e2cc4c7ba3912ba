/* remote_curl.c: a remote backend: POST {base_url}/chat/completions with libcurl. What the bytes mean is known to sse.c
 * and openai.c, when to try again to retry.c; here are the connection, its four clocks, and the loop of attempts.
 *
 * Safety: https only (http to this machine), certificates verified, TLS 1.2 or newer, no redirects, no cookies, no
 * netrc, no decompression, no proxy for this machine, every size capped. The key lives in this file's heap memory only
 * while the backend does, and is wiped; libcurl's own copies, in its send buffer, are out of our reach. */
#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "key.h"
#include "openai.h"
#include "remote.h"
#include "retry.h"
#include "sse.h"
#include "support.h"
#include "url.h"

enum {
    REMOTE_POLL_MS = 50,              /* how often a cancellation is looked for */
    REMOTE_MAX_LINE = 1 << 20,        /* bytes of one line or event of a stream */
    REMOTE_MAX_ERROR_BODY = 64 << 10, /* of an answer that is no success; what is more is dropped */
    REMOTE_MAX_HEADERS = 256 << 10
};
#define REMOTE_LINGER 0.2 /* seconds that the end of the connection may take after [DONE] */

/* ---- the client ------------------------------------------------------------------------------------------------- */

typedef struct remote_client {
    minim_router_config config;
    url_parts url;
    char *key;    /* "" = none */
    CURLM *multi; /* keeps connections open between requests */
    uint64_t random;
} remote_client;

static pthread_once_t remote_once = PTHREAD_ONCE_INIT;
static CURLcode remote_init_code;

/* Never undone: the host program may use libcurl as well. */
static void remote_init(void) {
    remote_init_code = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void remote_random(void *bytes, size_t n) {
    unsigned char *out = bytes;
    if (getrandom(out, n, GRND_NONBLOCK) == (ssize_t)n) return;
    /* Only jitter and request ids hang on it: the clock will do. */
    uint64_t x = (uint64_t)(router_now() * 1e9) ^ (uint64_t)(uintptr_t)bytes;
    for (size_t i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        out[i] = (unsigned char)(x >> 56);
    }
}

/* In [0, 1). xorshift64*, Vigna 2016. */
static double remote_jitter(remote_client *client) {
    uint64_t x = client->random ? client->random : 1;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    client->random = x;
    return (double)((x * 2685821657736338717u) >> 11) / 9007199254740992.0;
}

/* A peer that is gone must not kill the host program: OpenSSL writes with write(), and CURLOPT_NOSIGNAL leaves SIGPIPE
 * alone. So it is blocked in this thread for the time being, and one that came is taken away. */
typedef struct remote_signals {
    sigset_t before;
    int was_pending, is_blocked;
} remote_signals;

static int remote_pipe_pending(void) {
    sigset_t pending;
    return !sigpending(&pending) && sigismember(&pending, SIGPIPE) == 1;
}

static void remote_block_pipe(remote_signals *signals) {
    sigset_t pipe_only;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    signals->was_pending = remote_pipe_pending();
    signals->is_blocked = !pthread_sigmask(SIG_BLOCK, &pipe_only, &signals->before);
}

static void remote_restore_pipe(const remote_signals *signals) {
    sigset_t pipe_only;
    if (!signals->is_blocked) return;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    if (!signals->was_pending && remote_pipe_pending()) sigtimedwait(&pipe_only, NULL, &(struct timespec){0, 0});
    pthread_sigmask(SIG_SETMASK, &signals->before, NULL);
}

static void remote_free(void *state) {
    remote_client *client = state;
    remote_signals signals;
    if (!client) return;
    remote_block_pipe(&signals);
    curl_multi_cleanup(client->multi);
    remote_restore_pipe(&signals);
    key_free(client->key);
    free(client);
}

/* The address and the key, both checked. */
static minim_status remote_prepare(const minim_router_config *config, url_parts *url, char **key, minim_error *error) {
    if (!config->base_url[0])
        return router_fail(error, MINIM_ERR_ARGUMENT, "no remote is configured: base_url is empty");
    minim_status status = url_read(config->base_url, url, error);
    if (status == MINIM_OK && config->url_was_found && !url->loopback) {
        status =
            router_fail(error, MINIM_ERR_ARGUMENT,
                        "./minim.json: remote.base_url: found %s, expected an address on this machine, because nobody "
                        "named this file; if you trust it say --config ./minim.json",
                        url->origin);
    }
    return status == MINIM_OK ? key_read(config->api_key, key, error) : status;
}

minim_status remote_client_check(const minim_router_config *config, minim_error *error) {
    url_parts url;
    char *key = NULL;
    minim_status status = remote_prepare(config, &url, &key, error);
    key_free(key);
    return status;
}

/* ---- one attempt ------------------------------------------------------------------------------------------------ */

typedef enum remote_kind { REMOTE_UNKNOWN, REMOTE_STREAM, REMOTE_DOCUMENT, REMOTE_ERROR } remote_kind;

/* The answer to one request as it comes in. */
typedef struct remote_attempt {
    remote_client *client;
    const minim_router_sink *sink;
    CURL *easy;
    sse_parser sse;
    openai_reader reader;
    router_bytes body; /* of a document or an error */
    router_bytes said; /* text so far, where it may have to be counted */
    retry_hint hint;
    remote_kind kind;
    uint64_t n_bytes, n_header_bytes;
    int was_sent;                                 /* the request went out, at least in part */
    int is_compressed;                            /* the answer, although nobody asked for that */
    double started, first_event, last_byte, done; /* clock; 0 = not yet */
    double deadline;                              /* of the whole chat */
    int cancelled;
    int connection_failed; /* worth a retry. A server that was reached and is too slow is not: the local answer waits */
    minim_route_failure failure; /* of the transfer; the reader has its own */
    char detail[256];
    char curl_error[CURL_ERROR_SIZE];
} remote_attempt;

static int remote_fail(remote_attempt *attempt, minim_route_failure failure, const char *detail) {
    if (attempt->failure) return 1;
    attempt->failure = failure;
    router_line(attempt->detail, sizeof attempt->detail, "%s", detail);
    return 1;
}

/* "Content-Encoding: gzip" and the like; "identity" and nothing are none. */
static int remote_is_encoding(const char *line, size_t n) {
    static const char name[] = "content-encoding:";
    size_t at = sizeof name - 1;
    if (n < at || strncasecmp(line, name, at)) return 0;
    while (at < n && strchr(" \t", line[at])) at++;
    return at < n && !strchr("\r\n", line[at]) && !(n - at >= 8 && !strncasecmp(line + at, "identity", 8));
}

static size_t remote_on_header(char *line, size_t size, size_t n, void *user) {
    remote_attempt *attempt = user;
    n *= size;
    attempt->n_header_bytes += n;
    if (attempt->n_header_bytes > REMOTE_MAX_HEADERS) {
        remote_fail(attempt, MINIM_ROUTE_FAILED_TOO_LARGE, "more than 256 KiB of headers");
        return 0;
    }
    if (n >= 5 && !memcmp(line, "HTTP/", 5)) memset(&attempt->hint, 0, sizeof attempt->hint);
    attempt->is_compressed |= remote_is_encoding(line, n);
    retry_header(&attempt->hint, line, n, time(NULL));
    return n;
}

static int remote_is_success(CURL *easy) {
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    return status >= 200 && status < 300;
}

/* A stream can not begin with '{', an answer in one piece does. Servers' content types are not to be relied on. */
static remote_kind remote_sniff(const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!strchr(" \t\r\n", bytes[i])) return bytes[i] == '{' ? REMOTE_DOCUMENT : REMOTE_STREAM;
    }
    return REMOTE_UNKNOWN; /* white space so far: it is of no consequence to either */
}

static int remote_take(remote_attempt *attempt, const char *bytes, size_t n) {
    openai_reader *reader = &attempt->reader;
    minim_status status = MINIM_OK;
    switch (attempt->kind) {
    case REMOTE_UNKNOWN: return 0;
    case REMOTE_STREAM:
        if (reader->has_done) return 0; /* whatever comes behind [DONE] */
        status = sse_push(&attempt->sse, bytes, n);
        if (!attempt->first_event && reader->n_events) attempt->first_event = attempt->last_byte;
        if (status == MINIM_ERR_CANCELLED && reader->has_done) {
            attempt->done = attempt->last_byte;
            return 0;
        }
        break;
    case REMOTE_DOCUMENT:
        if (!attempt->first_event) attempt->first_event = attempt->last_byte;
        status = router_bytes_append(&attempt->body, bytes, n);
        break;
    case REMOTE_ERROR:
        if (!attempt->first_event) attempt->first_event = attempt->last_byte;
        if (attempt->body.n + n <= attempt->body.limit) status = router_bytes_append(&attempt->body, bytes, n);
        break;
    }
    if (status == MINIM_ERR_SPACE) {
        return remote_fail(attempt, MINIM_ROUTE_FAILED_TOO_LARGE, "a line or event larger than 1 MiB");
    }
    if (status == MINIM_ERR_MEMORY) return remote_fail(attempt, MINIM_ROUTE_FAILED_TOO_LARGE, "out of memory");
    return status != MINIM_OK; /* the reader has failed or was cancelled, and knows why */
}

static size_t remote_on_body(char *bytes, size_t size, size_t n, void *user) {
    remote_attempt *attempt = user;
    n *= size;
    attempt->n_bytes += n;
    attempt->last_byte = router_now();
    if (attempt->n_bytes > attempt->client->config.max_response_bytes) {
        remote_fail(attempt, MINIM_ROUTE_FAILED_TOO_LARGE, "the answer is larger than max_response_bytes");
        return 0;
    }
    if (attempt->kind == REMOTE_UNKNOWN) {
        attempt->kind = remote_is_success(attempt->easy) ? remote_sniff(bytes, n) : REMOTE_ERROR;
        attempt->body.limit = attempt->kind == REMOTE_ERROR ? (size_t)REMOTE_MAX_ERROR_BODY
                                                            : (size_t)attempt->client->config.max_response_bytes;
    }
    return remote_take(attempt, bytes, n) ? 0 : n;
}

/* ---- the transfer ----------------------------------------------------------------------------------------------- */

static long remote_ms(double seconds) {
    double ms = seconds * 1000;
    return ms > 1e9 ? 1000000000L : ms > 1 ? (long)ms : 1;
}

/* curl_easy_setopt() fails only when memory is out or an option is not built in; every one of these is needed. */
#define REMOTE_SET(option, value)                                                                                      \
    if (code == CURLE_OK) code = curl_easy_setopt(easy, option, value)

static CURLcode remote_set_safety(CURL *easy, const remote_client *client) {
    CURLcode code = CURLE_OK;
#if LIBCURL_VERSION_NUM >= 0x075500
    REMOTE_SET(CURLOPT_PROTOCOLS_STR, client->url.loopback ? "http,https" : "https");
#else
    REMOTE_SET(CURLOPT_PROTOCOLS, (long)(client->url.loopback ? CURLPROTO_HTTP | CURLPROTO_HTTPS : CURLPROTO_HTTPS));
#endif
    REMOTE_SET(CURLOPT_FOLLOWLOCATION, 0L);
    REMOTE_SET(CURLOPT_SSL_VERIFYPEER, 1L);
    REMOTE_SET(CURLOPT_SSL_VERIFYHOST, 2L);
    REMOTE_SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    REMOTE_SET(CURLOPT_NOSIGNAL, 1L);
    REMOTE_SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    /* What goes to this machine does not take a detour over a proxy. */
    if (client->url.loopback) REMOTE_SET(CURLOPT_PROXY, "");
    /* The variables that curl and OpenSSL programs know; the library leaves them to its users. */
    const char *authorities = getenv("CURL_CA_BUNDLE");
    if (!authorities || !authorities[0]) authorities = getenv("SSL_CERT_FILE");
    if (authorities && authorities[0]) REMOTE_SET(CURLOPT_CAINFO, authorities);
#if LIBCURL_VERSION_NUM >= 0x075700
    REMOTE_SET(CURLOPT_QUICK_EXIT, 1L); /* a cancelled request does not wait for a name server */
#endif
    return code;
}

static CURLcode remote_set_request(remote_attempt *attempt, const char *body, struct curl_slist *headers) {
    const minim_router_config *config = &attempt->client->config;
    CURL *easy = attempt->easy;
    CURLcode code = remote_set_safety(easy, attempt->client);
    REMOTE_SET(CURLOPT_URL, attempt->client->url.endpoint);
    REMOTE_SET(CURLOPT_POST, 1L);
    REMOTE_SET(CURLOPT_POSTFIELDS, body);
    REMOTE_SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
    REMOTE_SET(CURLOPT_HTTPHEADER, headers);
    REMOTE_SET(CURLOPT_USERAGENT, "minim");
    REMOTE_SET(CURLOPT_CONNECTTIMEOUT_MS, remote_ms(config->connect_timeout));
    REMOTE_SET(CURLOPT_TIMEOUT_MS, remote_ms(attempt->deadline - attempt->started));
    REMOTE_SET(CURLOPT_HEADERFUNCTION, remote_on_header);
    REMOTE_SET(CURLOPT_HEADERDATA, attempt);
    REMOTE_SET(CURLOPT_WRITEFUNCTION, remote_on_body);
    REMOTE_SET(CURLOPT_WRITEDATA, attempt);
    REMOTE_SET(CURLOPT_ERRORBUFFER, attempt->curl_error);
    return code;
}

/* The clocks that libcurl does not have, and cancellation. Non-zero ends the transfer. */
static int remote_watch(remote_attempt *attempt) {
    const minim_router_config *config = &attempt->client->config;
    double now = router_now();
    char text[128];
    if (attempt->done) return now - attempt->done > REMOTE_LINGER;
    if (attempt->sink->on_progress && attempt->sink->on_progress(attempt->sink->user, attempt->reader.n_events)) {
        attempt->cancelled = 1;
        return 1;
    }
    if (config->stream && !attempt->first_event && now - attempt->started > config->stream_timeout) {
        snprintf(text, sizeof text, "no token within %.3g s (stream_timeout)", config->stream_timeout);
        return remote_fail(attempt, MINIM_ROUTE_FAILED_TIMEOUT, text);
    }
    if (attempt->first_event && now - attempt->last_byte > config->idle_timeout) {
        snprintf(text, sizeof text, "silence for %.3g s in the middle of the answer (idle_timeout)",
                 config->idle_timeout);
        return remote_fail(attempt, MINIM_ROUTE_FAILED_TIMEOUT, text);
    }
    return 0;
}

/* Runs the transfer to its end. CURLE_OK also when remote_watch() ended it. */
static CURLcode remote_transfer(remote_attempt *attempt) {
    CURLM *multi = attempt->client->multi;
    CURLcode result = CURLE_OK;
    if (curl_multi_add_handle(multi, attempt->easy)) return CURLE_OUT_OF_MEMORY;
    for (int running = 1; running;) {
        if (curl_multi_perform(multi, &running)) {
            result = CURLE_OUT_OF_MEMORY;
            break;
        }
        if (!running || remote_watch(attempt)) break;
        if (curl_multi_poll(multi, NULL, 0, REMOTE_POLL_MS, NULL)) {
            result = CURLE_OUT_OF_MEMORY;
            break;
        }
    }
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(multi, &left));) {
        if (message->msg == CURLMSG_DONE && message->easy_handle == attempt->easy) result = message->data.result;
    }
    curl_multi_remove_handle(multi, attempt->easy);
    return result;
}

/* ---- what an attempt came to ------------------------------------------------------------------------------------ */

static minim_route_failure remote_curl_failure(CURLcode code) {
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY: return MINIM_ROUTE_FAILED_RESOLVE;
    case CURLE_OPERATION_TIMEDOUT: return MINIM_ROUTE_FAILED_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_USE_SSL_FAILED: return MINIM_ROUTE_FAILED_TLS;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING: return MINIM_ROUTE_FAILED_PROTOCOL;
    default: return MINIM_ROUTE_FAILED_CONNECT;
    }
}

/* The transfer failed; a text that has begun broke off. */
static void remote_judge_transfer(remote_attempt *attempt, CURLcode code) {
    const char *text = attempt->curl_error[0] ? attempt->curl_error : curl_easy_strerror(code);
    minim_route_failure failure = remote_curl_failure(code);
    attempt->connection_failed = failure == MINIM_ROUTE_FAILED_RESOLVE || failure == MINIM_ROUTE_FAILED_CONNECT ||
                                 failure == MINIM_ROUTE_FAILED_TIMEOUT;
    if (attempt->reader.n_events && failure == MINIM_ROUTE_FAILED_CONNECT) failure = MINIM_ROUTE_FAILED_INCOMPLETE;
    remote_fail(attempt, failure, text);
}

static void remote_judge_stream(remote_attempt *attempt) {
    openai_reader *reader = &attempt->reader;
    if (!reader->has_done) {
        minim_status status = sse_finish(&attempt->sse);
        if (status == MINIM_ERR_MEMORY) remote_fail(attempt, MINIM_ROUTE_FAILED_TOO_LARGE, "out of memory");
    }
    if (reader->failure || reader->cancelled || reader->has_done) return;
    if (!reader->n_events && attempt->is_compressed) {
        remote_fail(attempt, MINIM_ROUTE_FAILED_PROTOCOL, "the answer is compressed, expected none of that");
    } else if (!reader->n_events) {
        remote_fail(attempt, MINIM_ROUTE_FAILED_PROTOCOL, "found neither an event stream nor JSON");
    } else if (!reader->has_finish) {
        remote_fail(attempt, MINIM_ROUTE_FAILED_INCOMPLETE, "the stream ended without [DONE] and finish_reason");
    } else if (attempt->client->config.require_done) {
        remote_fail(attempt, MINIM_ROUTE_FAILED_INCOMPLETE, "the stream ended without [DONE] (see require_done)");
    }
}

static void remote_judge(remote_attempt *attempt, CURLcode code, int status) {
    openai_reader *reader = &attempt->reader;
    if (attempt->cancelled || reader->cancelled || attempt->failure || reader->failure) return;
    if (status && (status < 200 || status >= 300)) { /* says more than a body that broke off */
        openai_error(reader, status, attempt->body.data, attempt->body.n);
        return;
    }
    if (code != CURLE_OK && !reader->has_done) {
        remote_judge_transfer(attempt, code);
        return;
    }
    if (attempt->kind == REMOTE_DOCUMENT)
        openai_document(reader, attempt->body.data, attempt->body.n);
    else
        remote_judge_stream(attempt);
    if (attempt->failure || reader->failure || reader->cancelled || reader->has_text) return;
    remote_fail(attempt, MINIM_ROUTE_FAILED_EMPTY, "a complete answer without text");
}

/* One request and its answer. What came out of it is in *attempt. */
static void remote_try(remote_attempt *attempt, const char *body, struct curl_slist *headers,
                       minim_router_reply *reply) {
    CURLcode code = CURLE_OUT_OF_MEMORY;
    long status = 0;
    attempt->started = router_now();
    if ((attempt->easy = curl_easy_init())) code = remote_set_request(attempt, body, headers);
    if (code != CURLE_OK) {
        remote_fail(attempt, MINIM_ROUTE_FAILED_CONFIG, curl_easy_strerror(code));
    } else {
        code = remote_transfer(attempt);
        long sent = 0;
        curl_easy_getinfo(attempt->easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(attempt->easy, CURLINFO_REQUEST_SIZE, &sent);
        attempt->was_sent = sent > 0;
        remote_judge(attempt, code, (int)status);
    }
    curl_easy_cleanup(attempt->easy);
    attempt->easy = NULL;
    reply->http_status = (int)status;
}

/* ---- headers ---------------------------------------------------------------------------------------------------- */

static void remote_free_headers(struct curl_slist *headers) {
    for (struct curl_slist *h = headers; h; h = h->next) router_wipe(h->data, strlen(h->data));
    curl_slist_free_all(headers);
}

/* 0, or -1 with the list freed and NULL. */
static int remote_add_header(struct curl_slist **headers, const char *line) {
    struct curl_slist *longer = curl_slist_append(*headers, line);
    if (!longer) remote_free_headers(*headers);
    *headers = longer;
    return longer ? 0 : -1;
}

/* The same id for every attempt: a server that knows it does not answer, and bill, twice. */
static void remote_request_id(char id[37]) {
    unsigned char r[16];
    remote_random(r, sizeof r);
    r[6] = (r[6] & 0x0f) | 0x40; /* RFC 9562, version 4 */
    r[8] = (r[8] & 0x3f) | 0x80;
    snprintf(id, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0], r[1], r[2], r[3],
             r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15]);
}

static struct curl_slist *remote_headers(const remote_client *client) {
    struct curl_slist *headers = NULL;
    char id[37], line[96];
    remote_request_id(id);
    if (remote_add_header(&headers, "Content-Type: application/json")) return NULL;
    if (remote_add_header(&headers, "Accept: text/event-stream, application/json")) return NULL;
    if (remote_add_header(&headers, "Accept-Encoding: identity")) return NULL; /* without it anything goes */
    if (remote_add_header(&headers, "Expect:")) return NULL;                   /* no waiting for "100 Continue" */
    snprintf(line, sizeof line, "Idempotency-Key: %s", id);
    if (remote_add_header(&headers, line)) return NULL;
    snprintf(line, sizeof line, "X-Client-Request-Id: %s", id);
    if (remote_add_header(&headers, line) || !client->key[0]) return headers;
    size_t n = strlen(client->key) + 32;
    char *authorization = malloc(n);
    if (!authorization) {
        remote_free_headers(headers);
        return NULL;
    }
    snprintf(authorization, n, "Authorization: Bearer %s", client->key);
    remote_add_header(&headers, authorization);
    router_wipe(authorization, n);
    free(authorization);
    return headers;
}

/* ---- the chat --------------------------------------------------------------------------------------------------- */

/* Waits; 1 when the sink stopped it. */
static int remote_sleep(remote_client *client, const minim_router_sink *sink, double seconds) {
    double end = router_now() + seconds, left;
    while ((left = end - router_now()) > 0) {
        if (sink->on_progress && sink->on_progress(sink->user, 0)) return 1;
        int ms = left * 1000 < REMOTE_POLL_MS ? (int)(left * 1000) + 1 : REMOTE_POLL_MS;
        if (curl_multi_poll(client->multi, NULL, 0, ms, NULL)) return 0; /* out of memory: try at once */
    }
    return 0;
}

/* Seconds until the next attempt, or -1. */
static double remote_next(remote_attempt *attempt, int n_done, int status) {
    remote_client *client = attempt->client;
    minim_route_failure failure = attempt->failure ? attempt->failure : attempt->reader.failure;
    if (attempt->cancelled || attempt->reader.cancelled || !failure) return -1;
    if (attempt->reader.n_bytes || n_done > client->config.num_retries) return -1; /* n_bytes: text was shown */
    int by_status = status && (status < 200 || status >= 300);
    if (by_status ? failure == MINIM_ROUTE_FAILED_QUOTA || !retry_status(&attempt->hint, status)
                  : !attempt->connection_failed) {
        return -1;
    }
    double seconds = retry_wait(&attempt->hint, client->config.retry_after, n_done - 1, remote_jitter(client));
    return router_now() + seconds < attempt->deadline ? seconds : -1;
}

/* Tokens of a text that no server has counted. */
static uint64_t remote_estimate(const minim_router_request *request, const char *text, uint64_t n_bytes) {
    uint64_t n = request->count && text && n_bytes ? request->count(request->count_user, text, (size_t)n_bytes) : 0;
    return n ? n : (n_bytes + 3) / 4;
}

/* Figures of the last attempt. Servers bill what they have generated, so a stream that broke off counts as well. */
static void remote_account(const remote_attempt *attempt, const minim_router_request *request,
                           minim_router_reply *reply) {
    const openai_reader *reader = &attempt->reader;
    if (attempt->first_event) reply->usage.first_token_seconds = attempt->first_event - attempt->started;
    /* A request that was given up while the server worked on it may be billed, too. */
    int given_up = attempt->cancelled || reader->cancelled || attempt->failure == MINIM_ROUTE_FAILED_TIMEOUT;
    if (reader->has_usage || (!reader->n_events && !(given_up && attempt->was_sent))) return;
    uint64_t prompt = 0;
    for (size_t i = 0; i < request->n_messages; i++) {
        const char *content = request->messages[i].content;
        prompt += remote_estimate(request, content, strlen(content));
    }
    if (request->prefix) prompt += remote_estimate(request, request->prefix, strlen(request->prefix));
    reply->usage.prompt_tokens = prompt;
    reply->usage.completion_tokens =
        remote_estimate(request, reader->said ? reader->said->data : NULL, reader->n_bytes);
    reply->usage.estimated = 1;
}

static minim_status remote_conclude(const remote_attempt *attempt, minim_router_reply *reply, minim_error *error) {
    const remote_client *client = attempt->client;
    if (attempt->cancelled || attempt->reader.cancelled) return router_fail(error, MINIM_ERR_CANCELLED, "cancelled");
    reply->failure = attempt->failure ? attempt->failure : attempt->reader.failure;
    if (!reply->failure) return MINIM_OK;
    char detail[256];
    router_line(detail, sizeof detail, "%s", attempt->failure ? attempt->detail : attempt->reader.detail);
    router_redact(detail, client->key);
    if (reply->attempts == 1) return router_fail(error, MINIM_ERR_IO, "%s: %s", client->url.origin, detail);
    return router_fail(error, MINIM_ERR_IO, "%s: %s (after %d attempts)", client->url.origin, detail, reply->attempts);
}

static void remote_begin(remote_attempt *attempt, remote_client *client, const minim_router_request *request,
                         const minim_router_sink *sink, minim_router_reply *reply, double deadline) {
    memset(attempt, 0, sizeof *attempt);
    attempt->client = client;
    attempt->sink = sink;
    attempt->deadline = deadline;
    sse_begin(&attempt->sse, REMOTE_MAX_LINE, REMOTE_MAX_LINE, openai_event, &attempt->reader);
    openai_begin(&attempt->reader, sink, client->key, reply, (size_t)client->config.max_response_bytes);
    attempt->said.limit = attempt->reader.text.limit;
    if (request->count) attempt->reader.said = &attempt->said;
}

static void remote_end(remote_attempt *attempt) {
    sse_free(&attempt->sse);
    openai_free(&attempt->reader);
    router_bytes_free(&attempt->body);
    router_bytes_free(&attempt->said);
}

static minim_status remote_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                minim_router_reply *reply, minim_error *error) {
    remote_client *client = state;
    double started = router_now(), deadline = started + client->config.timeout;
    char *body = NULL;
    remote_signals signals;
    remote_block_pipe(&signals);
    router_line(reply->server, sizeof reply->server, "%s", client->url.origin);
    router_line(reply->asked, sizeof reply->asked, "%s", client->config.model);
    minim_status status = openai_request(request, &client->config, &body, error);
    struct curl_slist *headers = status == MINIM_OK ? remote_headers(client) : NULL;
    if (status == MINIM_OK && !headers) status = router_fail_memory(error, "the request's headers");
    while (status == MINIM_OK) {
        remote_attempt attempt;
        remote_begin(&attempt, client, request, sink, reply, deadline);
        reply->attempts++;
        remote_try(&attempt, body, headers, reply);
        double wait = remote_next(&attempt, reply->attempts, reply->http_status);
        int again = wait >= 0;
        if (again && remote_sleep(client, sink, wait)) {
            attempt.cancelled = 1;
            again = 0;
        }
        if (!again) {
            remote_account(&attempt, request, reply);
            status = remote_conclude(&attempt, reply, error);
        }
        remote_end(&attempt);
        if (!again) break;
    }
    remote_restore_pipe(&signals);
    reply->usage.seconds = router_now() - started;
    remote_free_headers(headers);
    free(body);
    return status;
}

minim_status remote_client_new(const minim_router_config *config, minim_router_backend *backend, minim_error *error) {
    remote_client *client = calloc(1, sizeof *client);
    if (!client) return router_fail_memory(error, "the remote");
    client->config = *config;
    minim_status status = remote_prepare(&client->config, &client->url, &client->key, error);
    if (status == MINIM_OK) {
        pthread_once(&remote_once, remote_init);
        if (remote_init_code == CURLE_OK) client->multi = curl_multi_init();
        if (!client->multi) status = router_fail(error, MINIM_ERR_MEMORY, "libcurl can not be initialised");
    }
    if (status != MINIM_OK) {
        remote_free(client);
        return status;
    }
    remote_random(&client->random, sizeof client->random);
    *backend = (minim_router_backend){.state = client, .chat = remote_chat, .free = remote_free};
    return MINIM_OK;
}
