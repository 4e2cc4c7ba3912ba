/* route_check.c: `minim route check`: reads the configuration as `minim ask` does and says what it comes to. */
#include <stdio.h>

#include "../router/minim_router.h"
#include "common.h"
#include "route.h"

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

static int check_config(const check_settings *settings) {
    minim_router_config config;
    minim_error error = {.status = MINIM_OK};
    minim_router_config_default(&config);
    minim_status status = minim_router_config_load(&config, settings->config, &error);
    if (status == MINIM_OK && config.mode != MINIM_ROUTE_MODE_LOCAL) {
        status = minim_router_config_environment(&config, &error);
        if (status == MINIM_OK && config.base_url[0]) status = minim_router_remote_check(&config, &error);
    }
    if (status != MINIM_OK) return tool_fail_error(&error);
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
