/* main.c: the minim program: finds the subcommand and calls it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "common.h"

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} command;

static const command main_commands[] = {
    {"run", cmd_run, "continue a text with a model"},
    {"chat", cmd_chat, "talk with a model"},
    {"ask", cmd_ask, "the local model answers, or a remote one when that is better (router)"},
    {"batch", cmd_batch, "many prompts of a file, answered together"},
    {"route", cmd_route, "the router's other work: its configuration, its ledger, its training"},
    {"inspect", cmd_inspect, "what is in a GGUF file, and what it needs"},
    {"tokenize", cmd_tokenize, "text to token ids and back"},
    {"logits", cmd_logits, "raw logits of every position of a token sequence"},
    {"eval", cmd_eval, "perplexity over a text, and the distance from a reference model"},
    {"bench", cmd_bench, "how fast a model runs: prompt processing and text generation"},
    {"convert", cmd_convert, "a Hugging Face directory becomes a GGUF file"},
    {"imatrix", cmd_imatrix, "which weights matter for a text: an importance matrix, for quantize"},
    {"quantize", cmd_quantize, "the same model with smaller weights"},
    {"pack", cmd_pack, "the same model in a file whose weights need no packing: it starts at once"},
    {"synth", cmd_synth, "a model file with random weights in the shape of a real model, for benchmarks"},
};

enum { MAIN_COMMANDS = sizeof main_commands / sizeof *main_commands };

static void main_print_help(FILE *file) {
    fputs("usage: minim COMMAND [OPTIONS]\n\nRuns small language models (GGUF files) on the CPU.\n\ncommands:\n", file);
    for (int i = 0; i < MAIN_COMMANDS; i++) {
        fprintf(file, "  %-12s%s\n", main_commands[i].name, main_commands[i].about);
    }
    fputs("\n  minim COMMAND --help   the options of a command\n"
          "  minim --version        the version\n\n"
          "The answer goes to stdout, everything else to stderr. Without -m FILE the small model that is built in\n"
          "is used.\n\n"
          "exit codes:\n"
          "  0    it worked (also when the reader of a pipe closed it early)\n"
          "  1    it failed: a bad file, no memory, a remote that does not answer; one line on stderr says why\n"
          "  2    the command line is wrong\n"
          "  130  ended by Ctrl-C\n",
          file);
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of a write, which ends the work in order */
    signal(SIGXFSZ, SIG_IGN); /* and so is a file that may not grow */
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        main_print_help(stdout);
        return tool_finish(EXIT_CODE_OK);
    }
    if (!strcmp(name, "--version")) {
        printf("minim %s\n", minim_version());
        return tool_finish(EXIT_CODE_OK);
    }
    for (int i = 0; i < MAIN_COMMANDS; i++) {
        if (!strcmp(name, main_commands[i].name)) return tool_finish(main_commands[i].run(argc - 1, argv + 1));
    }
    if (*name)
        fprintf(stderr, "minim: unknown command \"%s\" (see minim --help)\n", name);
    else
        main_print_help(stderr);
    return EXIT_CODE_USAGE;
}
