/* common.h: what several subcommands do alike: settings and their options, loading, prompts, Ctrl-C, the statistics
 * line. Messages go to stderr as one line "minim: ..."; stdout is for the answer alone. */
#ifndef TOOLS_COMMON_H
#define TOOLS_COMMON_H

#include "../engine/minim.h"
#include "options.h"

/* ---- settings ---------------------------------------------------------------------------------------------------- */

/* Values of tool_model_options, tool_engine_options and tool_sampling_options. */
typedef struct tool_settings {
    const char *model;                               /* a file; NULL = the built-in model */
    int n_threads, n_ctx, n_batch;                   /* 0 = the engine's default */
    const char *page_size, *kv, *isa, *rope_factors; /* NULL = the engine's default */
    int no_mmap;                                     /* read files into memory */
    int verbose, quiet;
    int n_predict;  /* -1 = until the answer ends */
    int ignore_end; /* end tokens do not end the answer */
    minim_sampling sampling;
    option_list stop; /* stop strings; the array is the caller's to free */
} tool_settings;

void tool_settings_default(tool_settings *settings);

/* What a range cannot say: -n 0, empty stop strings. -1, or EXIT_CODE_USAGE after a message. */
int tool_check_settings(const char *command, const tool_settings *settings);

/* --chat-format: prints the names for "help". -1, or an exit code. NULL is fine. */
int tool_check_format(const char *command, const char *format);

/* -m --no-mmap -v -q: every command that reads a model. */
extern const option tool_model_options[];
/* -t -c -b --kv --page-size --isa: every command that runs one. */
extern const option tool_engine_options[];
/* -n --stop --ignore-eos --temp --top-k ... --seed: every command that generates. */
extern const option tool_sampling_options[];

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* "minim: " and the text, one line on stderr. Returns EXIT_CODE_FAILED. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
int tool_fail(const char *format, ...);

/* The message of a failed call. Returns EXIT_CODE_INTERRUPTED when Ctrl-C was the reason, else EXIT_CODE_FAILED. */
int tool_fail_error(const minim_error *error);
/* The message of a command that needs a ledger in a build without one. Returns EXIT_CODE_FAILED. */
int tool_fail_no_ledger(void);

/* The static analyzer does not look into another file, so it is told here what comes back. */
#ifdef __clang_analyzer__
#define tool_fail(...)         (tool_fail(__VA_ARGS__), EXIT_CODE_FAILED)
#define tool_fail_error(error) (tool_fail_error(error), EXIT_CODE_FAILED)
#endif

/* Flushes stdout. 0; -1 with a message when writing failed; -1 without one when the reader has closed the pipe. */
int tool_flush(void);

/* To be called right after a write to stdout has failed, while errno says why: a message, unless the reader has closed
 * the pipe. Returns the exit code of that. */
int tool_output_failed(void);

/* To be returned from main: `code`, or EXIT_CODE_FAILED when standard output could not be written. That the reader
 * closed the pipe early (`| head -1`) is not a failure. */
int tool_finish(int code);

/* ---- Ctrl-C ------------------------------------------------------------------------------------------------------ */

/* From now on SIGINT sets a flag and cancels the sequence of tool_interrupt_target(); a second one ends the program. */
void tool_catch_interrupt(void);
/* NULL = none. The sequence must not be freed while it is the target. */
void tool_interrupt_target(minim_seq *seq);
int tool_interrupted(void);
void tool_clear_interrupt(void);

/* ---- models and engines ------------------------------------------------------------------------------------------ */

/* Loads settings->model or the built-in model, with a progress bar when that takes a while and stderr is a terminal.
 * Returns -1, or the exit code after a message. *seconds may be NULL. */
int tool_load_model(const tool_settings *settings, minim_load_level level, minim_model **model, double *seconds);

/* The same without a message. */
minim_status tool_try_load_model(const tool_settings *settings, minim_load_level level, minim_model **model,
                                 double *seconds, minim_error *error);

/* Fills the options of an engine from the settings. */
void tool_engine_settings(const tool_settings *settings, minim_engine_options *options);

/* As tool_load_model. */
int tool_new_engine(const tool_settings *settings, const minim_model *model, minim_engine **engine);

/* Sampling, length and stop strings from the settings. */
void tool_generate_settings(const tool_settings *settings, minim_generate_options *options);

double tool_seconds(void); /* of a monotonic clock */

/* ---- text and tokens --------------------------------------------------------------------------------------------- */

/* Bytes that grow. */
typedef struct tool_bytes {
    char *data;
    size_t n, capacity;
} tool_bytes;

/* Makes room for n bytes in all; 0 or -1 after a message. */
int tool_bytes_reserve(tool_bytes *bytes, size_t n);
int tool_bytes_append(tool_bytes *bytes, const char *data, size_t n);
void tool_bytes_free(tool_bytes *bytes);

/* Reads a file, or standard input when path is "-". Returns -1, or the exit code after a message. */
int tool_read_file(const char *path, tool_bytes *bytes);

/* Token ids that grow. */
typedef struct tool_tokens {
    int32_t *ids;
    size_t n, capacity;
} tool_tokens;

/* Makes room for n ids; 0 or -1 after a message. */
int tool_tokens_reserve(tool_tokens *tokens, size_t n);
int tool_tokens_append(tool_tokens *tokens, int32_t id);
void tool_tokens_free(tool_tokens *tokens);

/* Replaces *tokens by those of the text. Returns -1, or the exit code after a message. */
int tool_tokenize(const minim_model *model, const char *text, size_t n, unsigned flags, tool_tokens *tokens);

/* Replaces *text by that of the tokens. Returns -1, or the exit code after a message. */
int tool_detokenize(const minim_model *model, const tool_tokens *tokens, unsigned flags, tool_bytes *text);

/* The text of one token inside a text (a space at its start stays), control tokens by name. Writes at most `capacity`
 * bytes and returns how many; 0 when it is longer. */
size_t tool_piece(const minim_model *model, int32_t token, char *buffer, size_t capacity);

/* Appends ids that are separated by white space, each from 0 to n_vocab - 1, to *tokens. source names the text in
 * messages. Returns -1, or the exit code after a message. */
int tool_parse_ids(const char *source, const char *text, size_t n, int n_vocab, tool_tokens *tokens);

/* ---- figures ----------------------------------------------------------------------------------------------------- */

/* What a generation took, as rates; 0 where nothing was measured. */
typedef struct tool_rates {
    double prefill, decode; /* tokens a second */
    double bytes;           /* of weights, read a second while decoding */
} tool_rates;

tool_rates tool_result_rates(const minim_result *result);

/* One line on stderr: load time, time to the first token, prefill and decode speed, weights read, and guesses if there
 * were any. */
void tool_print_statistics(double load_seconds, const minim_result *result);

/* A name of a file, fit for a terminal: control characters (also U+0080 to U+009F), which could steer it, become '?'.
 * Writes to buffer, at most size - 1 bytes, and returns it. */
const char *tool_printable(const char *text, char *buffer, size_t size);

/* "1.2 MB": writes to buffer and returns it. */
const char *tool_size_text(uint64_t bytes, char *buffer, size_t n);

#endif
