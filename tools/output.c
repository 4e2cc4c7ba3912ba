/* output.c: see output.h. */
#include "output.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

int tool_fail_output(const tool_output *output) {
    if (output->file == stdout) return tool_output_failed();
    return tool_fail("%s: %s", output->name, strerror(errno));
}

int tool_is_same_file(const char *a, const char *b) {
    struct stat left, right;
    return a && b && !stat(a, &left) && !stat(b, &right) && S_ISREG(left.st_mode) && left.st_dev == right.st_dev &&
           left.st_ino == right.st_ino;
}

/* A command that is ended from outside leaves nothing half-written. */
static char *volatile output_unfinished;

static void output_on_end(int number) {
    if (output_unfinished) unlink(output_unfinished);
    signal(number, SIG_DFL);
    raise(number);
}

static void output_catch_end(int number) {
    struct sigaction before, action;
    if (sigaction(number, NULL, &before) || before.sa_handler != SIG_DFL) return; /* nohup wants it ignored */
    memset(&action, 0, sizeof action);
    action.sa_handler = output_on_end;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

int tool_open_output(const char *name, tool_output *output) {
    *output = (tool_output){.name = name};
    if (!strcmp(name, "-")) {
        output->name = "standard output";
        output->file = stdout;
        return -1;
    }
    struct stat status;
    int exists = !stat(name, &status);
    if (exists && S_ISDIR(status.st_mode)) return tool_fail("%s: expected a file name, found a directory", name);
    if (!exists || S_ISREG(status.st_mode)) {
        output->target = exists ? realpath(name, NULL) : NULL;
        const char *target = output->target ? output->target : name;
        size_t size = strlen(target) + 32;
        output->temporary = malloc(size);
        if (!output->temporary) return tool_fail("out of memory");
        snprintf(output->temporary, size, "%s.%ld.part", target, (long)getpid());
        output_unfinished = output->temporary;
        output_catch_end(SIGTERM);
        output_catch_end(SIGHUP);
    }
    output->file = fopen(output->temporary ? output->temporary : name, "wb");
    return output->file ? -1 : tool_fail_output(output);
}

int tool_close_output(tool_output *output, int code) {
    int is_file = output->file && output->file != stdout;
    if (code < 0 && fflush(output->file)) code = tool_fail_output(output);
    if (is_file && fclose(output->file) && code < 0) code = tool_fail_output(output);
    const char *target = output->target ? output->target : output->name;
    if (output->temporary && code < 0 && rename(output->temporary, target)) code = tool_fail_output(output);
    if (output->temporary && is_file && code >= 0) unlink(output->temporary);
    if (output_unfinished == output->temporary) output_unfinished = NULL;
    free(output->temporary);
    free(output->target);
    return code < 0 ? EXIT_CODE_OK : code;
}
