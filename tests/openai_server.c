/* openai_server.c: see openai_server.h. libmicrohttpd, a thread for each connection, so that a reply may simply sleep.
 */
#include "openai_server.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SERVER_MAX_HEADERS = 16, SERVER_MAX_REPLIES = 8 };

struct openai_server {
    struct MHD_Daemon *daemon;
    pthread_mutex_t lock;
    openai_reply replies[SERVER_MAX_REPLIES];
    size_t n_replies;
    char url[64];
    int stopping;
    unsigned connections, requests, pieces;
    char *body;
    char path[128];
    char names[SERVER_MAX_HEADERS][64], values[SERVER_MAX_HEADERS][512];
    int n_headers;
};

/* One request; body while it comes in, then where its reply stands. */
typedef struct server_request {
    openai_server *server;
    struct MHD_Connection *connection;
    char *body;
    size_t n_body;
    const openai_reply *reply;
    size_t piece, offset;
} server_request;

static int server_stopping(openai_server *server) {
    pthread_mutex_lock(&server->lock);
    int stopping = server->stopping;
    pthread_mutex_unlock(&server->lock);
    return stopping;
}

/* In slices, so that stopping the server does not wait. */
static void server_sleep(openai_server *server, int ms) {
    for (; ms > 0 && !server_stopping(server); ms -= 5) {
        nanosleep(&(struct timespec){0, (ms < 5 ? ms : 5) * 1000000L}, NULL);
    }
}

/* ---- the reply -------------------------------------------------------------------------------------------------- */

static ssize_t server_end(server_request *request) {
    switch (request->reply->end) {
    case OPENAI_END_STALL: server_sleep(request->server, 1000000); return MHD_CONTENT_READER_END_WITH_ERROR;
    case OPENAI_END_RESET: {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct linger hard = {1, 0}; /* closing sends RST */
        if (info) setsockopt(info->connect_fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    case OPENAI_END_ABORT: return MHD_CONTENT_READER_END_WITH_ERROR;
    default: return MHD_CONTENT_READER_END_OF_STREAM;
    }
}

static ssize_t server_read(void *user, uint64_t position, char *buffer, size_t capacity) {
    server_request *request = user;
    const openai_reply *reply = request->reply;
    (void)position;
    const char *piece = reply->pieces[request->piece];
    if (!piece) return server_end(request);
    if (!request->offset) {
        server_sleep(request->server, request->piece ? reply->piece_ms : reply->first_ms);
        pthread_mutex_lock(&request->server->lock);
        request->server->pieces++;
        pthread_mutex_unlock(&request->server->lock);
    }
    size_t size = reply->sizes[request->piece] ? reply->sizes[request->piece] : strlen(piece);
    size_t n = size - request->offset < capacity ? size - request->offset : capacity;
    memcpy(buffer, piece + request->offset, n);
    request->offset += n;
    if (request->offset == size) {
        request->piece++;
        request->offset = 0;
    }
    return (ssize_t)n;
}

static enum MHD_Result server_reply(server_request *request) {
    const openai_reply *reply = request->reply;
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, server_read, request, NULL);
    if (!response) return MHD_NO;
    for (size_t i = 0; reply->headers[i]; i++) {
        char name[64];
        const char *colon = strchr(reply->headers[i], ':');
        snprintf(name, sizeof name, "%.*s", (int)(colon - reply->headers[i]), reply->headers[i]);
        MHD_add_response_header(response, name, colon + 2);
    }
    enum MHD_Result result =
        MHD_queue_response(request->connection, reply->status ? (unsigned)reply->status : 200, response);
    MHD_destroy_response(response);
    return result;
}

/* ---- the request ------------------------------------------------------------------------------------------------ */

static enum MHD_Result server_note_header(void *user, enum MHD_ValueKind kind, const char *name, const char *value) {
    openai_server *server = user;
    (void)kind;
    if (server->n_headers < SERVER_MAX_HEADERS) {
        snprintf(server->names[server->n_headers], sizeof server->names[0], "%s", name);
        snprintf(server->values[server->n_headers++], sizeof server->values[0], "%s", value ? value : "");
    }
    return MHD_YES;
}

static enum MHD_Result server_handle(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                                     const char *version, const char *data, size_t *n_data, void **state) {
    openai_server *server = user;
    server_request *request = *state;
    (void)method, (void)version;
    if (!request) {
        if (!(request = calloc(1, sizeof *request))) return MHD_NO;
        request->server = server;
        request->connection = connection;
        *state = request;
        return MHD_YES;
    }
    if (*n_data) {
        char *body = realloc(request->body, request->n_body + *n_data + 1);
        if (!body) return MHD_NO;
        memcpy(body + request->n_body, data, *n_data);
        request->body = body;
        request->n_body += *n_data;
        body[request->n_body] = 0;
        *n_data = 0;
        return MHD_YES;
    }
    pthread_mutex_lock(&server->lock);
    size_t turn = server->requests++;
    request->reply = &server->replies[turn < server->n_replies ? turn : server->n_replies - 1];
    free(server->body);
    server->body = request->body;
    request->body = NULL;
    snprintf(server->path, sizeof server->path, "%s", url);
    server->n_headers = 0;
    MHD_get_connection_values(connection, MHD_HEADER_KIND, server_note_header, server);
    pthread_mutex_unlock(&server->lock);
    return server_reply(request);
}

static void server_completed(void *user, struct MHD_Connection *connection, void **state,
                             enum MHD_RequestTerminationCode code) {
    server_request *request = *state;
    (void)user, (void)connection, (void)code;
    if (request) free(request->body);
    free(request);
    *state = NULL;
}

static void server_connection(void *user, struct MHD_Connection *connection, void **socket_state,
                              enum MHD_ConnectionNotificationCode code) {
    openai_server *server = user;
    (void)connection, (void)socket_state;
    if (code != MHD_CONNECTION_NOTIFY_STARTED) return;
    pthread_mutex_lock(&server->lock);
    server->connections++;
    pthread_mutex_unlock(&server->lock);
}

/* ---- start and stop --------------------------------------------------------------------------------------------- */

openai_server *openai_server_start(const openai_reply *replies, size_t n) {
    openai_server *server = calloc(1, sizeof *server);
    if (!server || !n || n > SERVER_MAX_REPLIES) {
        free(server);
        return NULL;
    }
    memcpy(server->replies, replies, n * sizeof *replies);
    server->n_replies = n;
    pthread_mutex_init(&server->lock, NULL);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    server->daemon =
        MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL, server_handle,
                         server, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_NOTIFY_COMPLETED, server_completed, NULL,
                         MHD_OPTION_NOTIFY_CONNECTION, server_connection, server, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        server->daemon ? MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    if (!info) {
        openai_server_stop(server);
        return NULL;
    }
    snprintf(server->url, sizeof server->url, "http://127.0.0.1:%u/v1", (unsigned)info->port);
    return server;
}

void openai_server_stop(openai_server *server) {
    if (!server) return;
    pthread_mutex_lock(&server->lock);
    server->stopping = 1;
    pthread_mutex_unlock(&server->lock);
    if (server->daemon) MHD_stop_daemon(server->daemon);
    pthread_mutex_destroy(&server->lock);
    free(server->body);
    free(server);
}

/* ---- what it saw ------------------------------------------------------------------------------------------------ */

static unsigned server_count(openai_server *server, const unsigned *count) {
    pthread_mutex_lock(&server->lock);
    unsigned n = *count;
    pthread_mutex_unlock(&server->lock);
    return n;
}

const char *openai_server_url(const openai_server *server) {
    return server->url;
}
unsigned openai_server_connections(openai_server *server) {
    return server_count(server, &server->connections);
}
unsigned openai_server_requests(openai_server *server) {
    return server_count(server, &server->requests);
}
unsigned openai_server_pieces(openai_server *server) {
    return server_count(server, &server->pieces);
}
const char *openai_server_body(openai_server *server) {
    return server->body ? server->body : "";
}
const char *openai_server_path(openai_server *server) {
    return server->path;
}

const char *openai_server_header(openai_server *server, const char *name) {
    for (int i = 0; i < server->n_headers; i++) {
        if (!strcasecmp(server->names[i], name)) return server->values[i];
    }
    return "";
}

/* A TCP socket bound to a free port of 127.0.0.1. */
static int server_bind(unsigned *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || getsockname(fd, (struct sockaddr *)&address, &n)) {
        close(fd);
        return -1;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

unsigned openai_unused_port(void) {
    unsigned port = 0;
    int fd = server_bind(&port);
    if (fd >= 0) close(fd);
    return port;
}

unsigned openai_silent_port(int *fd) {
    unsigned port = 0;
    *fd = server_bind(&port);
    if (*fd >= 0) listen(*fd, 8); /* the kernel accepts, nobody reads */
    return port;
}
