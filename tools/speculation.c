/* speculation.c: see speculation.h. */
#include "speculation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPECULATION(field) offsetof(tool_speculation, field)

enum { SPECULATION_MAX = 16 /* guesses of a step, see minim.h */ };

const option tool_speculation_options[] = {
    {"--lookup", "auto|off|N", OPTION_STRING, SPECULATION(lookup), 0, 0,
     "guess the next tokens from the text so far, at most N\n(1 to 16) at a time; only where that pays. The text "
     "stays\n"
     "the same, only the speed changes (default auto: 16)"},
    {"--draft, -md, --model-draft", "FILE", OPTION_STRING, SPECULATION(draft), 0, 0,
     "guess with a smaller model of the same vocabulary"},
    {"--draft-max", "N", OPTION_INT, SPECULATION(n_draft), 1, SPECULATION_MAX,
     "most tokens it drafts at a time (default 16)"},
    {"--draft-min", "N", OPTION_INT, SPECULATION(n_draft_min), 0, SPECULATION_MAX,
     "guess so many tokens even where it does not pay\n(default 0)"},
    {"--draft-min-p, --draft-p-min", "P", OPTION_FLOAT, SPECULATION(draft_min_p), 0, 1,
     "stop drafting before a token that the draft gives\nless than this probability (default 0)"},
    {"--accept-min-p", "P", OPTION_FLOAT, SPECULATION(accept_min_p), 0, 1,
     "accept a drafted token that the model gives at least\nthis probability, even if it would have said something\n"
     "else: faster, and no longer the model's own text\n(default 0: never)"},
    {0},
};

/* "auto", "off", or a number that is all digits; -1 for anything else. */
static int speculation_number(const char *text) {
    if (!strcmp(text, "auto")) return SPECULATION_MAX;
    if (!strcmp(text, "off")) return 0;
    if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 4) return -1;
    const long n = strtol(text, NULL, 10);
    return n <= SPECULATION_MAX ? (int)n : -1;
}

int tool_check_speculation(const char *command, tool_speculation *settings) {
    settings->n_lookup = -1;
    if (settings->lookup) {
        settings->n_lookup = speculation_number(settings->lookup);
        if (settings->n_lookup < 0)
            return options_complain(command, "--lookup: expected auto, off or a number from 0 to %d, found \"%s\"",
                                    SPECULATION_MAX, settings->lookup);
    }
    if (!settings->draft && (settings->n_draft || settings->draft_min_p > 0 || settings->accept_min_p > 0))
        return options_complain(command, "--draft-max, --draft-min-p and --accept-min-p need --draft FILE");
    return -1;
}

int tool_new_draft(const tool_speculation *settings, const tool_settings *tool, int n_ctx, tool_draft *draft) {
    if (!settings->draft) return -1;
    tool_settings mine = *tool;
    minim_error error = {.status = MINIM_OK};
    mine.model = settings->draft;
    mine.n_ctx = n_ctx;
    int code = tool_load_model(&mine, MINIM_LOAD_ALL, &draft->model, NULL);
    if (code < 0) code = tool_new_engine(&mine, draft->model, &draft->engine);
    if (code < 0 && minim_seq_new(draft->engine, &draft->seq, &error) != MINIM_OK) code = tool_fail_error(&error);
    return code;
}

void tool_free_draft(tool_draft *draft) {
    minim_seq_free(draft->seq);
    minim_engine_free(draft->engine);
    minim_model_free(draft->model);
    *draft = (tool_draft){0};
}

void tool_speculation_settings(const tool_speculation *settings, const tool_draft *draft,
                               minim_generate_options *options) {
    if (settings->n_lookup >= 0) options->n_lookup = settings->n_lookup;
    options->draft = draft ? draft->seq : NULL;
    options->n_draft = settings->n_draft;
    options->n_draft_min = settings->n_draft_min;
    options->draft_min_p = settings->draft_min_p;
    options->accept_min_p = settings->accept_min_p;
}
