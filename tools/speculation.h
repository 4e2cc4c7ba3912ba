/* speculation.h: guesses of the next tokens, for the commands that generate: options and a draft model. */
#ifndef TOOLS_SPECULATION_H
#define TOOLS_SPECULATION_H

#include "common.h"

typedef struct tool_speculation {
    const char *lookup; /* "auto", "off" or a number; NULL = the engine's default */
    const char *draft;  /* a file; NULL = none */
    int n_draft, n_draft_min;
    float draft_min_p, accept_min_p;
    int n_lookup; /* what `lookup` says, or -1; set by tool_check_speculation() */
} tool_speculation;

/* --lookup --draft --draft-max --draft-min --draft-min-p --accept-min-p, of a tool_speculation. */
extern const option tool_speculation_options[];

/* Reads --lookup, and complains of options that mean nothing without another. -1, or EXIT_CODE_USAGE. */
int tool_check_speculation(const char *command, tool_speculation *settings);

/* The second model, of --draft. */
typedef struct tool_draft {
    minim_model *model;
    minim_engine *engine;
    minim_seq *seq;
} tool_draft;

/* Loads it, with the engine settings of the first and a context of n_ctx tokens; without --draft nothing happens.
 * Returns -1, or the exit code after a message; then, too, tool_free_draft(). */
int tool_new_draft(const tool_speculation *settings, const tool_settings *tool, int n_ctx, tool_draft *draft);
void tool_free_draft(tool_draft *draft);

/* Fills in the options; draft may be NULL. */
void tool_speculation_settings(const tool_speculation *settings, const tool_draft *draft,
                               minim_generate_options *options);

#endif
