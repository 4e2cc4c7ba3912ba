/* route_check.c: `minim route check`: reads the configuration as `minim ask` does and says what it comes to. */
#include <stdio.h>
#include <unistd.h>

#include "../router/minim_router.h"
#include "common.h"
#include "route.h"
#include "route_learn.h"

typedef struct check_settings {
    const char *config;
} check_settings;

static const option check_options[] = {
    {"--config", "FILE", OPTION_STRING, offsetof(check_settings, config), 0, 0,
     "instead of ./minim.json or\n$XDG_CONFIG_HOME/minim/minim.json"},
    {0},
};

static const option_usage check_usage = {
    .command = "route check",
    .synopsis = "route check [OPTIONS]",
    .about = "Reads the configuration (file, then environment) and says who may answer. Asks nobody.",
};

#ifdef MINIM_WITH_ROUTER

#ifdef MINIM_WITH_LEDGER

/* A ledger that is not there yet is made under another name, which is put to `made`, and does not stay. Returns -1, or
 * the exit code after a message. */
static int check_open_ledger(const minim_router_config *config, char *made, size_t capacity, minim_ledger **ledger) {
    minim_error error = {.status = MINIM_OK};
    made[0] = 0;
    if (!config->ledger[0]) return -1;
    int exists = !access(config->ledger, F_OK);
    if (!exists) snprintf(made, capacity, "%s.%ld.check", config->ledger, (long)getpid());
    return minim_ledger_open(exists ? config->ledger : made, ledger, &error) ? tool_fail_error(&error) : -1;
}

static void check_close_ledger(minim_ledger *ledger, const char *made) {
    minim_ledger_close(ledger);
    if (made[0]) unlink(made);
}

#else

static int check_open_ledger(const minim_router_config *config, char *made, size_t capacity, minim_ledger **ledger) {
    (void)made, (void)capacity, (void)ledger;
    if (!config->ledger[0]) return -1;
    return tool_fail_no_ledger();
}

static void check_close_ledger(minim_ledger *ledger, const char *made) {
    (void)ledger, (void)made;
}

#endif

/* The router that is made here asks nobody. */
static minim_status check_chat(void *state, const minim_router_request *request, const minim_router_sink *sink,
                               minim_router_reply *reply, minim_error *error) {
    (void)state, (void)request, (void)sink, (void)reply, (void)error;
    return MINIM_ERR_UNSUPPORTED;
}

/* Makes a router as `minim ask` does, with all that the configuration names but the models. Returns -1, or the exit
 * code after a message. */
static int check_router(const minim_router_config *config) {
    char made[sizeof config->ledger + 32];
    const minim_router_backend local = {.chat = check_chat};
    minim_router_options options;
    minim_router *router = NULL;
    minim_ledger *ledger = NULL;
    route_learned learned = {0};
    minim_error error = {.status = MINIM_OK};
    int code = check_open_ledger(config, made, sizeof made, &ledger);
    if (code < 0) code = route_load_learned(config, &learned);
    minim_router_options_default(&options);
    options.config = config;
    options.local = &local;
    options.ledger = ledger;
    options.calibration = learned.calibration;
    options.prompt_model = learned.prompt_model;
    if (code < 0 && minim_router_new(&options, &router, &error)) code = tool_fail_error(&error);
    minim_router_free(router);
    check_close_ledger(ledger, made);
    route_free_learned(&learned);
    return code;
}

static int check_config(const check_settings *settings) {
    minim_router_config config;
    minim_error error = {.status = MINIM_OK};
    minim_router_config_default(&config);
    minim_status status = minim_router_config_load(&config, settings->config, &error);
    if (status == MINIM_OK && config.mode != MINIM_ROUTE_MODE_LOCAL) {
        status = minim_router_config_environment(&config, &error);
        if (status == MINIM_OK && config.base_url[0]) status = minim_router_remote_check(&config, &error);
    }
    int code = status == MINIM_OK ? check_router(&config) : tool_fail_error(&error);
    if (code >= 0) return code;
    int has_remote = config.mode != MINIM_ROUTE_MODE_LOCAL && config.base_url[0];
    printf("mode       %s\nthreshold  %.10g (%s)\nremote     %s\n", minim_route_mode_name(config.mode),
           config.threshold, minim_route_method_name(config.confidence_method), has_remote ? config.base_url : "none");
    if (has_remote) printf("key        %s\n", config.api_key[0] ? config.api_key : "none");
    return EXIT_CODE_OK;
}

#else

static int check_config(const check_settings *settings) {
    (void)settings;
    return tool_fail("this minim was built without libcurl and jansson (Debian: libcurl4-openssl-dev, libjansson-dev): "
                     "there is nothing to configure");
}

#endif

int route_check(int argc, char **argv) {
    check_settings settings = {0};
    option_list arguments = {0};
    const option_table tables[] = {{"router", check_options, &settings}, {0}};
    int code = options_parse(&check_usage, tables, argc, argv, &arguments);
    if (code < 0) code = check_config(&settings);
    option_list_free(&arguments);
    return code;
}
