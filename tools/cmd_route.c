/* cmd_route.c: `minim route SUBCOMMAND`: what belongs to the router but answers no question (router/README.md). */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "common.h"
#include "route.h"

typedef struct route_command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} route_command;

static const route_command route_commands[] = {
    {"check", route_check, "is the configuration usable? Asks nobody"},
    {"report", route_report, "what was asked, who answered, what it cost and what was saved"},
    {"log", route_log, "every line of the ledger as JSON"},
    {"export", route_export, "prompts and remote answers as JSON lines, for fine-tuning"},
    {"replay", route_replay, "makes the ledger's decisions again"},
    {"train", route_train, "learn from judged answers which prompts are too hard for the local model"},
    {"eval", route_eval, "what a router is worth on judged answers"},
    {"collect", route_collect, "lets the local model answer prompts, to be judged"},
    {"calibrate", route_calibrate, "from judged answers: how often it is right at which score"},
    {"explain", route_explain, "what the router would make of a prompt, and why"},
};

enum { ROUTE_COMMANDS = sizeof route_commands / sizeof *route_commands };

static void route_print_help(FILE *file) {
    fputs("usage: minim route SUBCOMMAND [OPTIONS]\n\nThe router: who answers, and what came of it.\n\nsubcommands:\n",
          file);
    for (int i = 0; i < ROUTE_COMMANDS; i++) {
        fprintf(file, "  %-12s%s\n", route_commands[i].name, route_commands[i].about);
    }
    fputs("\n  minim route SUBCOMMAND --help   its options\n", file);
}

int cmd_route(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        route_print_help(stdout);
        return EXIT_CODE_OK;
    }
    for (int i = 0; i < ROUTE_COMMANDS; i++) {
        if (!strcmp(name, route_commands[i].name)) return route_commands[i].run(argc - 1, argv + 1);
    }
    if (*name)
        fprintf(stderr, "minim: unknown subcommand \"route %s\" (see minim route --help)\n", name);
    else
        route_print_help(stderr);
    return EXIT_CODE_USAGE;
}
