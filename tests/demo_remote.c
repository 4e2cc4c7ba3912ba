/* demo_remote.c: the remote of `make demo`: an OpenAI-compatible server on 127.0.0.1 that says the same sentence to
 * everybody, word by word, and counts tokens; asked for one token it says YES. Prints its port, then serves until it is
 * killed. One request at a time.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DEMO_MAX_REQUEST = 1 << 20, DEMO_FIRST_MS = 60, DEMO_WORD_MS = 15 };

static void demo_sleep(int ms) {
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

/* Reads a whole request; the length of its body, or -1. */
static long demo_read(int fd, char *buffer) {
    size_t n = 0;
    for (;;) {
        ssize_t more = read(fd, buffer + n, DEMO_MAX_REQUEST - 1 - n);
        if (more <= 0) return -1;
        n += (size_t)more;
        buffer[n] = 0;
        char *end = strstr(buffer, "\r\n\r\n"), *length = strcasestr(buffer, "\r\ncontent-length:");
        if (!end || !length || length > end) continue;
        long body = strtol(length + 17, NULL, 10);
        if (body < 0 || body >= DEMO_MAX_REQUEST) return -1;
        if (n - (size_t)(end + 4 - buffer) >= (size_t)body) return body;
    }
}

/* A piece of a chunked body. */
static int demo_send(int fd, const char *text) {
    return dprintf(fd, "%zx\r\n%s\r\n", strlen(text), text) < 0;
}

/* "max_tokens" of a request; 0 = not said. */
static int demo_max_tokens(const char *request) {
    const char *at = strstr(request, "\"max_tokens\":");
    return at ? (int)strtol(at + 13, NULL, 10) : 0;
}

/* One token, to a router that asks whether an answer is right. */
static void demo_verdict(int fd, long body) {
    char event[512];
    dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
                "Connection: close\r\n\r\n");
    demo_sleep(DEMO_FIRST_MS);
    snprintf(event, sizeof event,
             "data: {\"choices\":[{\"delta\":{\"content\":\"YES\"},\"logprobs\":{\"content\":[{\"token\":\"YES\","
             "\"logprob\":-0.11,\"top_logprobs\":[{\"token\":\"YES\",\"logprob\":-0.11},{\"token\":\"NO\","
             "\"logprob\":-2.3}]}]},\"finish_reason\":\"length\"}]}\n\n"
             "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":%ld,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n",
             body / 4);
    if (!demo_send(fd, event)) dprintf(fd, "0\r\n\r\n");
}

static void demo_answer(int fd, long body, int max_tokens) {
    static const char *const words[] = {"I",   " am",      " the",    " big",  " model,", " played",
                                        " by", " a",       " script", " on",   " this",   " machine.",
                                        " No", " network", " was",    " used."};
    enum { WORDS = sizeof words / sizeof *words };
    int n = max_tokens > 0 && max_tokens < WORDS ? max_tokens : WORDS;
    char event[256];
    dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
                "Connection: close\r\n\r\n");
    demo_sleep(DEMO_FIRST_MS);
    for (int i = 0; i < n; i++) {
        snprintf(event, sizeof event,
                 "data: {\"model\":\"big-script\",\"choices\":[{\"delta\":{\"content\":\"%s\"}}]}\n\n", words[i]);
        if (demo_send(fd, event)) return;
        demo_sleep(DEMO_WORD_MS);
    }
    snprintf(event, sizeof event,
             "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"%s\"}]}\n\n"
             "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":%ld,\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n",
             n < WORDS ? "length" : "stop", body / 4, n + 4);
    if (!demo_send(fd, event)) dprintf(fd, "0\r\n\r\n");
}

int main(void) {
    static char buffer[DEMO_MAX_REQUEST];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGPIPE, SIG_IGN);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 8) ||
        getsockname(fd, (struct sockaddr *)&address, &n)) {
        perror("demo_remote");
        return 1;
    }
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int client = accept(fd, NULL, NULL);
        if (client < 0) continue;
        long body = demo_read(client, buffer);
        int max_tokens = body >= 0 ? demo_max_tokens(buffer) : 0;
        if (max_tokens == 1)
            demo_verdict(client, body);
        else if (body >= 0)
            demo_answer(client, body, max_tokens);
        close(client);
    }
}
