/* fallback.c: the remote as the router sees it: one server, and others for when it fails. Each has retries and a
 * circuit breaker of its own. Once a word was said nobody else is asked. */
#include <stdlib.h>
#include <string.h>

#include "remote.h"

typedef struct fallback_server {
    minim_router_backend backend;
    remote_breaker breaker;
} fallback_server;

typedef struct fallback_pool {
    minim_router_config config;
    fallback_server servers[1 + 2 * MINIM_ROUTER_FALLBACKS];
    int n, n_plain; /* all; the first so many are not those for long requests */
} fallback_pool;

/* ---- the breaker ------------------------------------------------------------------------------------------------ */

int breaker_allows(remote_breaker *breaker, double now) {
    if (breaker->refused || breaker->probing) return 0;
    if (breaker->open_until == 0) return 1;
    if (now < breaker->open_until) return 0;
    breaker->probing = 1;
    return 1;
}

void breaker_note(remote_breaker *breaker, minim_route_failure failure, int allowed_fails, double cooldown_time,
                  double now) {
    int was_probe = breaker->probing;
    breaker->probing = 0;
    if (failure == MINIM_ROUTE_FAILED_AUTH) breaker->refused = 1;
    /* A request that is refused for what it says, or an answer too long or empty, says nothing about the server. */
    if (failure == MINIM_ROUTE_OK || failure == MINIM_ROUTE_FAILED_REQUEST || failure == MINIM_ROUTE_FAILED_EMPTY ||
        failure == MINIM_ROUTE_FAILED_TOO_LARGE || failure == MINIM_ROUTE_FAILED_CONTEXT) {
        breaker->fails = 0;
        breaker->open_until = 0;
        return;
    }
    breaker->fails++;
    if (was_probe || breaker->fails >= allowed_fails) breaker->open_until = now + cooldown_time;
}

void breaker_release(remote_breaker *breaker) {
    breaker->probing = 0;
}

/* ---- one question ----------------------------------------------------------------------------------------------- */

/* Notes whether a word was said. */
typedef struct fallback_sink {
    const minim_router_sink *sink;
    int said;
} fallback_sink;

static int fallback_on_text(void *user, const char *text, size_t n) {
    fallback_sink *s = user;
    s->said |= n > 0;
    return s->sink->on_text ? s->sink->on_text(s->sink->user, text, n) : 0;
}

static int fallback_on_progress(void *user, uint64_t n_tokens) {
    const fallback_sink *s = user;
    return s->sink->on_progress ? s->sink->on_progress(s->sink->user, n_tokens) : 0;
}

static minim_status fallback_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                                  minim_router_reply *reply, minim_error *error) {
    fallback_pool *pool = state;
    const minim_router_config *config = &pool->config;
    fallback_sink watched = {sink, 0};
    minim_router_sink inner = {&watched, fallback_on_text, fallback_on_progress};
    minim_status status = MINIM_ERR_IO;
    int attempts = 0, asked = 0, others = 0, too_long = 0;
    for (int i = 0; i < pool->n && !watched.said && (!i || others < config->max_fallbacks); i++) {
        fallback_server *server = &pool->servers[i];
        /* A request that is too long for one goes to those that were named for it, where there are any. */
        if (too_long && i < pool->n_plain && pool->n > pool->n_plain) continue;
        if (!too_long && i >= pool->n_plain) break;
        if (!config->disable_cooldowns && !breaker_allows(&server->breaker, router_now())) continue;
        *reply = (minim_router_reply){.size = sizeof *reply};
        asked = 1;
        others += i > 0;
        status = server->backend.chat(server->backend.state, request, &inner, reply, error);
        attempts += reply->attempts;
        if (status == MINIM_ERR_CANCELLED) {
            breaker_release(&server->breaker);
            break;
        }
        breaker_note(&server->breaker, status == MINIM_OK ? MINIM_ROUTE_OK : reply->failure, config->allowed_fails,
                     config->cooldown_time, router_now());
        if (status == MINIM_OK) break;
        too_long |= reply->failure == MINIM_ROUTE_FAILED_CONTEXT;
    }
    reply->attempts = attempts;
    reply->fallbacks = others;
    if (asked) return status;
    reply->failure = MINIM_ROUTE_FAILED_CONNECT;
    return router_fail(error, MINIM_ERR_IO, "%s",
                       pool->servers[0].breaker.refused
                           ? "the server has refused the key before"
                           : "the server has failed several times and is left alone for a while");
}

/* ---- making it -------------------------------------------------------------------------------------------------- */

static void fallback_free(void *state) {
    fallback_pool *pool = state;
    if (!pool) return;
    for (int i = 0; i < pool->n; i++) {
        if (pool->servers[i].backend.free) pool->servers[i].backend.free(pool->servers[i].backend.state);
    }
    free(pool);
}

/* The configuration of the i-th server: the first one, its fallbacks, those for long requests. 0 when there is none. */
static int fallback_config(const minim_router_config *config, int i, minim_router_config *own) {
    *own = *config;
    if (!i) return 1;
    int k = (i - 1) % MINIM_ROUTER_FALLBACKS;
    const minim_router_endpoint *e = i > MINIM_ROUTER_FALLBACKS ? &config->context_fallbacks[k] : &config->fallbacks[k];
    if (!e->base_url[0]) return 0;
    memcpy(own->base_url, e->base_url, sizeof own->base_url);
    memcpy(own->api_key, e->api_key, sizeof own->api_key);
    if (e->model[0]) memcpy(own->model, e->model, sizeof own->model);
    own->url_was_found = e->url_was_found;
    return 1;
}

minim_status minim_router_remote_check(const minim_router_config *config_in, minim_error *error) {
    minim_router_config config, own;
    minim_status status = router_copy_config(&config, config_in, error);
    for (int i = 0; i <= 2 * MINIM_ROUTER_FALLBACKS && status == MINIM_OK; i++) {
        if (fallback_config(&config, i, &own)) status = remote_client_check(&own, error);
    }
    return status;
}

minim_status minim_router_remote_http(void *user, const minim_router_config *config, minim_router_backend *backend,
                                      minim_error *error) {
    minim_router_config own;
    (void)user;
    if (!backend) return router_fail(error, MINIM_ERR_ARGUMENT, "minim_router_remote_http: backend is NULL");
    fallback_pool *pool = calloc(1, sizeof *pool);
    if (!pool) return router_fail_memory(error, "the remote");
    minim_status status = router_copy_config(&pool->config, config, error);
    for (int i = 0; i <= 2 * MINIM_ROUTER_FALLBACKS && status == MINIM_OK; i++) {
        if (!fallback_config(&pool->config, i, &own)) continue;
        status = remote_client_new(&own, &pool->servers[pool->n].backend, error);
        if (status != MINIM_OK) break;
        pool->n++;
        if (i <= MINIM_ROUTER_FALLBACKS) pool->n_plain++;
    }
    if (status != MINIM_OK) {
        fallback_free(pool);
        return status;
    }
    *backend = (minim_router_backend){.state = pool, .chat = fallback_chat, .free = fallback_free};
    return MINIM_OK;
}
