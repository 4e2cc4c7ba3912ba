/* common.c: see common.h. */
#include "common.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#undef tool_fail
#undef tool_fail_error

/* ---- settings ---------------------------------------------------------------------------------------------------- */

void tool_settings_default(tool_settings *settings) {
    minim_generate_options generate;
    minim_generate_options_default(&generate);
    *settings = (tool_settings){.n_predict = -1, .sampling = generate.sampling};
}

int tool_check_settings(const char *command, const tool_settings *settings) {
    if (settings->n_predict == 0) return options_complain(command, "-n: expected 1 or more, or -1, found 0");
    for (size_t i = 0; i < settings->stop.n; i++) {
        if (!*settings->stop.items[i]) return options_complain(command, "--stop: expected a text, found an empty one");
    }
    return -1;
}

int tool_check_format(const char *command, const char *format) {
    const char *name;
    if (!format) return -1;
    for (size_t i = 0; (name = minim_chat_format(i)); i++) {
        if (!strcmp(format, name)) return -1;
    }
    if (strcmp(format, "help") != 0) {
        return options_complain(command, "--chat-format: \"%s\" is not known; \"help\" lists the names", format);
    }
    for (size_t i = 0; (name = minim_chat_format(i)); i++) printf("%s\n", name);
    return EXIT_CODE_OK;
}

#define SETTING(field) offsetof(tool_settings, field)

const option tool_model_options[] = {
    {"-m, --model", "FILE", OPTION_STRING, SETTING(model), 0, 0, "a GGUF file (default: the built-in model)"},
    {"--no-mmap", NULL, OPTION_FLAG, SETTING(no_mmap), 0, 0,
     "read the file into memory instead of mapping it (who\ncuts or overwrites a mapped file stops minim)"},
    {"-v, --verbose", NULL, OPTION_FLAG, SETTING(verbose), 0, 0, "say what the engine does"},
    {"-q, --quiet", NULL, OPTION_FLAG, SETTING(quiet), 0, 0, "only errors on stderr"},
    {0},
};

const option tool_engine_options[] = {
    {"-t, --threads", "N", OPTION_INT, SETTING(n_threads), 0, 256,
     "threads (default 0: as many as the CPUs\nthis process may use)"},
    {"-c, --ctx-size", "N", OPTION_INT, SETTING(n_ctx), 0, INT_MAX,
     "longest conversation in tokens (default 0:\nwhat the model was trained for)"},
    {"-b, --batch-size", "N", OPTION_INT, SETTING(n_batch), 1, 1 << 16,
     "prompt tokens computed together; changes\nspeed and memory, never the result"},
    {"--kv", "f16|f32|q8|q8_0|q8q4|q4|q4_0", OPTION_CHOICE, SETTING(kv), 0, 0,
     "type of the KV cache (default f16); q8 takes half\nthe memory, q8q4 (values of 4 bits) three eighths, and\nq4 a "
     "quarter, "
     "which answers notice; q8_0 and q4_0 are\nother names"},
    {"--page-size", "16|32|64|128|256", OPTION_CHOICE, SETTING(page_size), 0, 0, "tokens a KV page (default 64)"},
    {"--rope-factors", "auto|short|long", OPTION_CHOICE, SETTING(rope_factors), 0, 0,
     "of models with two sets (Phi): auto (default) takes\nthe long one when -c is above the original context"},
    {"--isa", "NAME", OPTION_STRING, SETTING(isa), 0, 0,
     "highest instruction set, such as ref or avx2\n(default: MINIM_ISA, else the best of this CPU)"},
    {0},
};

const option tool_sampling_options[] = {
    {"-n, --predict, --n-predict", "N", OPTION_INT, SETTING(n_predict), -1, INT_MAX,
     "most tokens to generate (default -1:\nuntil the answer ends or the context is full)"},
    {"--temp", "T", OPTION_FLOAT, SETTING(sampling.temperature), 0, 100, "temperature (default 0: greedy)"},
    {"--top-k", "N", OPTION_INT, SETTING(sampling.top_k), 0, INT_MAX, "keep the N best tokens (default 0: all)"},
    {"--top-p", "P", OPTION_FLOAT, SETTING(sampling.top_p), 0, 1,
     "keep the best tokens that have\nprobability P together (default 1: all)"},
    {"--min-p", "P", OPTION_FLOAT, SETTING(sampling.min_p), 0, 1,
     "keep tokens with at least P times the\nprobability of the best (default 0: all)"},
    {"--repeat-penalty", "X", OPTION_FLOAT, SETTING(sampling.repeat_penalty), 0.01, 100,
     "penalty of recent tokens (default 1: none)"},
    {"--repeat-last-n", "N", OPTION_INT, SETTING(sampling.repeat_last_n), 0, INT_MAX,
     "how many tokens are recent (default 64)"},
    {"-s, --seed", "N", OPTION_U64, SETTING(sampling.seed), 0, 0, "the same seed gives the same text (default 0)"},
    {"--stop", "TEXT", OPTION_LIST, SETTING(stop), 0, 0, "end the answer before TEXT; may be repeated"},
    {"--ignore-eos", NULL, OPTION_FLAG, SETTING(ignore_end), 0, 0, "go on after the token that ends an answer"},
    {0},
};

/* ---- messages ---------------------------------------------------------------------------------------------------- */

int tool_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("minim: ", stderr);
    vfprintf(stderr, format, arguments);
    putc('\n', stderr);
    va_end(arguments);
    return EXIT_CODE_FAILED;
}

int tool_fail_error(const minim_error *error) {
    if (error->status == MINIM_ERR_CANCELLED && tool_interrupted()) return EXIT_CODE_INTERRUPTED;
    return tool_fail("%s", error->text[0] ? error->text : minim_status_name(error->status));
}

int tool_fail_no_ledger(void) {
    return tool_fail("this minim was built without SQLite (Debian: libsqlite3-dev): it has no ledger");
}

/* errno of the first write to stdout that failed, 0 while all went well. */
static int tool_output_errno;

int tool_output_failed(void) {
    if (!tool_output_errno) {
        tool_output_errno = errno ? errno : EIO;
        if (tool_output_errno != EPIPE) tool_fail("standard output: %s", strerror(tool_output_errno));
    }
    return tool_output_errno == EPIPE ? EXIT_CODE_OK : EXIT_CODE_FAILED;
}

int tool_flush(void) {
    if (tool_output_errno) return -1;
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout)) return 0;
    tool_output_failed();
    return -1;
}

int tool_finish(int code) {
    tool_flush();
    if (code == EXIT_CODE_OK && tool_output_errno && tool_output_errno != EPIPE) return EXIT_CODE_FAILED;
    return code;
}

double tool_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- Ctrl-C ------------------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t tool_interrupt_flag;
static _Atomic double tool_interrupt_time; /* of the first one that was not cleared yet */
static _Atomic(minim_seq *) tool_interrupt_seq;

/* Some programs pass on a signal that the terminal has sent us as well: what comes at once is the same key press. */
static const double tool_interrupt_pause = 0.3;

static void tool_on_interrupt(int number) {
    (void)number;
    double now = tool_seconds();
    if (tool_interrupt_flag && now - atomic_load(&tool_interrupt_time) > tool_interrupt_pause) {
        _exit(EXIT_CODE_INTERRUPTED);
    }
    if (!tool_interrupt_flag) atomic_store(&tool_interrupt_time, now);
    tool_interrupt_flag = 1;
    minim_seq *seq = atomic_load(&tool_interrupt_seq);
    if (seq) minim_seq_cancel(seq);
}

void tool_catch_interrupt(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = tool_on_interrupt;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL); /* no SA_RESTART: a read of the terminal has to return */
}

void tool_interrupt_target(minim_seq *seq) {
    atomic_store(&tool_interrupt_seq, seq);
}

int tool_interrupted(void) {
    return tool_interrupt_flag != 0;
}

void tool_clear_interrupt(void) {
    tool_interrupt_flag = 0;
}

/* ---- models and engines ------------------------------------------------------------------------------------------ */

static void tool_log(void *user, minim_log_level level, const char *text) {
    const tool_settings *settings = user;
    if (level == MINIM_LOG_WARN ? !settings->quiet : settings->verbose) fprintf(stderr, "minim: %s\n", text);
}

/* A bar appears only when loading takes long enough for somebody to wonder. */
typedef struct tool_progress {
    double start, shown; /* seconds; 0 = the bar was not shown yet */
} tool_progress;

static const double tool_progress_patience = 0.3, tool_progress_interval = 0.1;
enum { TOOL_PROGRESS_WIDTH = 40 };

static int tool_on_progress(void *user, double fraction) {
    tool_progress *progress = user;
    double now = tool_seconds();
    if (now - progress->start > tool_progress_patience && now - progress->shown > tool_progress_interval) {
        static const char full[] = "########################################";
        int n = (int)(fraction * TOOL_PROGRESS_WIDTH);
        progress->shown = now;
        fprintf(stderr, "\rloading [%-*.*s] %3.0f%%", TOOL_PROGRESS_WIDTH, n, full, fraction * 100);
    }
    return tool_interrupted();
}

static int tool_on_progress_silent(void *user, double fraction) {
    (void)user, (void)fraction;
    return tool_interrupted();
}

static minim_status tool_load_default(const minim_model_options *options, minim_model **model, minim_error *error) {
    size_t size = 0;
    const void *data = minim_default_model(&size);
    if (data) return minim_model_load_memory(data, size, "built-in model", options, model, error);
    error->status = MINIM_ERR_ARGUMENT;
    snprintf(error->text, sizeof error->text, "this minim was built without a model of its own: name one with -m FILE");
    return error->status;
}

minim_status tool_try_load_model(const tool_settings *settings, minim_load_level level, minim_model **model,
                                 double *seconds, minim_error *error) {
    tool_progress progress = {.start = tool_seconds()};
    minim_model_options options;
    minim_model_options_default(&options);
    options.level = level;
    options.n_threads = settings->n_threads;
    options.no_map = settings->no_mmap;
    options.log = tool_log;
    options.log_user = (void *)settings;
    options.progress = isatty(STDERR_FILENO) && !settings->quiet ? tool_on_progress : tool_on_progress_silent;
    options.progress_user = &progress;
    minim_status status = settings->model ? minim_model_load(settings->model, &options, model, error)
                                          : tool_load_default(&options, model, error);
    if (progress.shown > 0) fprintf(stderr, "\r%*s\r", TOOL_PROGRESS_WIDTH + 20, "");
    if (seconds) *seconds = tool_seconds() - progress.start;
    return status;
}

int tool_load_model(const tool_settings *settings, minim_load_level level, minim_model **model, double *seconds) {
    minim_error error = {.status = MINIM_OK};
    minim_status status = tool_try_load_model(settings, level, model, seconds, &error);
    return status == MINIM_OK ? -1 : tool_fail_error(&error);
}

void tool_engine_settings(const tool_settings *settings, minim_engine_options *options) {
    minim_engine_options_default(options);
    options->n_threads = settings->n_threads;
    options->n_ctx = settings->n_ctx;
    options->isa = settings->isa;
    options->log = tool_log;
    options->log_user = (void *)settings;
    if (settings->n_batch) options->n_batch = settings->n_batch;
    if (settings->page_size) options->page_size = (int)strtol(settings->page_size, NULL, 10);
    if (settings->rope_factors && !strcmp(settings->rope_factors, "short")) options->rope_factors = MINIM_ROPE_SHORT;
    if (settings->rope_factors && !strcmp(settings->rope_factors, "long")) options->rope_factors = MINIM_ROPE_LONG;
    if (settings->kv && *settings->kv == 'q')
        options->kv_type = settings->kv[1] == '4'         ? MINIM_KV_Q4
                           : strcmp(settings->kv, "q8q4") ? MINIM_KV_Q8
                                                          : MINIM_KV_Q8_Q4;
    if (settings->kv && !strcmp(settings->kv, "f32")) options->kv_type = MINIM_KV_F32;
}

int tool_new_engine(const tool_settings *settings, const minim_model *model, minim_engine **engine) {
    minim_engine_options options;
    minim_error error = {.status = MINIM_OK};
    tool_engine_settings(settings, &options);
    return minim_engine_new(model, &options, engine, &error) == MINIM_OK ? -1 : tool_fail_error(&error);
}

void tool_generate_settings(const tool_settings *settings, minim_generate_options *options) {
    minim_generate_options_default(options);
    options->sampling = settings->sampling;
    options->max_tokens = settings->n_predict > 0 ? settings->n_predict : 0;
    options->stop = settings->stop.items;
    options->n_stop = settings->stop.n;
    options->ignore_end = settings->ignore_end;
}

/* ---- text and tokens --------------------------------------------------------------------------------------------- */

/* The capacity to take when n elements are needed: at least doubled, so that appending is linear. 0 = too many. */
static size_t tool_grown(size_t capacity, size_t need, size_t size) {
    size_t most = SIZE_MAX / 2 / size;
    if (need > most) return 0;
    size_t twice = capacity > most / 2 ? most : capacity * 2;
    return need > twice ? need : twice;
}

int tool_bytes_reserve(tool_bytes *bytes, size_t n) {
    if (n <= bytes->capacity) return 0;
    size_t capacity = tool_grown(bytes->capacity, n, 1);
    char *grown = capacity ? realloc(bytes->data, capacity) : NULL;
    if (!grown) {
        tool_fail("out of memory for a text of %zu bytes", n);
        return -1;
    }
    bytes->data = grown;
    bytes->capacity = capacity;
    return 0;
}

int tool_bytes_append(tool_bytes *bytes, const char *data, size_t n) {
    if (tool_bytes_reserve(bytes, n <= SIZE_MAX - bytes->n ? bytes->n + n : SIZE_MAX)) return -1;
    if (n > 0) memcpy(bytes->data + bytes->n, data, n);
    bytes->n += n;
    return 0;
}

void tool_bytes_free(tool_bytes *bytes) {
    free(bytes->data);
    *bytes = (tool_bytes){0};
}

/* A prompt is text that somebody meant to send: /dev/zero or a disk image is a mistake, said before memory is full. */
enum { TOOL_FILE_MAX = 1 << 30 };

static int tool_read_stream(FILE *file, const char *name, tool_bytes *bytes) {
    char chunk[1 << 16];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, file)) > 0) {
        if (n > TOOL_FILE_MAX - bytes->n) return tool_fail("%s: expected at most 1 GiB of text, found more", name);
        if (tool_bytes_append(bytes, chunk, n)) return EXIT_CODE_FAILED;
    }
    if (!ferror(file)) return -1;
    if (tool_interrupted()) return EXIT_CODE_INTERRUPTED;
    return tool_fail("%s: %s", name, strerror(errno));
}

int tool_read_file(const char *path, tool_bytes *bytes) {
    bytes->n = 0;
    if (!strcmp(path, "-")) return tool_read_stream(stdin, "standard input", bytes);
    FILE *file = fopen(path, "rb");
    if (!file) return tool_fail("%s: %s", path, strerror(errno));
    int code = tool_read_stream(file, path, bytes);
    fclose(file);
    return code;
}

int tool_tokens_reserve(tool_tokens *tokens, size_t n) {
    if (n <= tokens->capacity) return 0;
    size_t capacity = tool_grown(tokens->capacity, n, sizeof *tokens->ids);
    int32_t *grown = capacity ? realloc(tokens->ids, capacity * sizeof *grown) : NULL;
    if (!grown) {
        tool_fail("out of memory for %zu tokens", n);
        return -1;
    }
    tokens->ids = grown;
    tokens->capacity = capacity;
    return 0;
}

int tool_tokens_append(tool_tokens *tokens, int32_t id) {
    if (tool_tokens_reserve(tokens, tokens->n + 1)) return -1;
    tokens->ids[tokens->n++] = id;
    return 0;
}

void tool_tokens_free(tool_tokens *tokens) {
    free(tokens->ids);
    *tokens = (tool_tokens){0};
}

int tool_tokenize(const minim_model *model, const char *text, size_t n, unsigned flags, tool_tokens *tokens) {
    minim_error error = {.status = MINIM_OK};
    for (int attempt = 0; attempt < 2; attempt++) { /* the first one finds out how many they are */
        minim_status status =
            minim_tokenize(model, n ? text : "", n, flags, tokens->ids, tokens->capacity, &tokens->n, &error);
        if (status == MINIM_OK) return -1;
        if (status != MINIM_ERR_SPACE) break;
        if (tool_tokens_reserve(tokens, tokens->n)) return EXIT_CODE_FAILED;
    }
    return tool_fail_error(&error);
}

int tool_detokenize(const minim_model *model, const tool_tokens *tokens, unsigned flags, tool_bytes *text) {
    minim_error error = {.status = MINIM_OK};
    for (int attempt = 0; attempt < 2; attempt++) {
        size_t needed = 0;
        minim_status status =
            minim_detokenize(model, tokens->ids, tokens->n, flags, text->data, text->capacity, &needed, &error);
        text->n = 0;
        if (status == MINIM_OK) {
            text->n = needed;
            return -1;
        }
        if (status != MINIM_ERR_SPACE) break;
        if (tool_bytes_reserve(text, needed)) return EXIT_CODE_FAILED;
    }
    return tool_fail_error(&error);
}

size_t tool_piece(const minim_model *model, int32_t token, char *buffer, size_t capacity) {
    /* Alone, a token loses the space that stands for the start of a text. Behind itself it does not. */
    const int32_t twice[2] = {token, token};
    char text[1024];
    size_t first = 0, both = 0;
    if (minim_detokenize(model, twice, 1, MINIM_PARSE_SPECIAL, text, sizeof text, &first, NULL) != MINIM_OK ||
        minim_detokenize(model, twice, 2, MINIM_PARSE_SPECIAL, text, sizeof text, &both, NULL) != MINIM_OK ||
        both < first || both - first > capacity) {
        return 0;
    }
    memcpy(buffer, text + first, both - first);
    return both - first;
}

int tool_parse_ids(const char *source, const char *text, size_t n, int n_vocab, tool_tokens *tokens) {
    static const char space[] = " \t\r\n";
    for (size_t i = 0; i < n;) {
        if (text[i] && strchr(space, text[i])) {
            i++;
            continue;
        }
        size_t start = i;
        int64_t id = 0;
        for (; i < n && text[i] >= '0' && text[i] <= '9'; i++) {
            if (id <= INT32_MAX) id = id * 10 + (text[i] - '0');
        }
        int ends = i == n || (text[i] && strchr(space, text[i]));
        if (i == start || !ends || id >= n_vocab) {
            size_t shown = 0;
            while (start + shown < n && shown < 20 && text[start + shown] > ' ' && text[start + shown] < 0x7F) shown++;
            if (!shown)
                return tool_fail("%s: item %zu: expected a token id from 0 to %d, found the byte 0x%02x", source,
                                 tokens->n + 1, n_vocab - 1, (unsigned char)text[start]);
            return tool_fail("%s: item %zu: expected a token id from 0 to %d, found \"%.*s\"", source, tokens->n + 1,
                             n_vocab - 1, (int)shown, text + start);
        }
        if (tool_tokens_append(tokens, (int32_t)id)) return EXIT_CODE_FAILED;
    }
    return -1;
}

/* ---- figures ----------------------------------------------------------------------------------------------------- */

static double tool_per_second(double amount, double seconds) {
    return seconds > 0 ? amount / seconds : 0;
}

/* Interrupted within the prompt: nobody has counted how far it came. */
static int tool_is_unfinished(const minim_result *result) {
    return !result->n_generated && (result->stop == MINIM_STOP_CANCELLED || result->stop == MINIM_STOP_CALLBACK);
}

tool_rates tool_result_rates(const minim_result *result) {
    /* The first token comes out of the prefill, so the steps after it are one less. */
    double steps = result->n_generated > 1 ? (double)(result->n_generated - 1) : 0;
    return (tool_rates){
        .prefill = tool_is_unfinished(result)
                       ? 0
                       : tool_per_second((double)(result->n_prompt - result->n_reused), result->prefill_seconds),
        .decode = tool_per_second(steps, result->decode_seconds),
        .bytes = tool_per_second((double)result->decode_bytes, result->decode_seconds),
    };
}

void tool_print_statistics(double load_seconds, const minim_result *result) {
    tool_rates rates = tool_result_rates(result);
    if (tool_is_unfinished(result)) {
        fprintf(stderr, "load %.3f s, ended within the prompt of %zu tokens\n", load_seconds, result->n_prompt);
        return;
    }
    fprintf(stderr,
            "load %.3f s, first token %.3f s, prefill %zu tokens at %.1f/s, decode %zu tokens at %.1f/s, %.2f GB/s of "
            "weights",
            load_seconds, result->first_token_seconds, result->n_prompt - result->n_reused, rates.prefill,
            result->n_generated, rates.decode, rates.bytes * 1e-9);
    if (result->n_drafted) {
        fprintf(stderr, ", guessed %zu tokens, %.0f %% right, %.2f tokens a step", result->n_drafted,
                100.0 * (double)result->n_accepted / (double)result->n_drafted,
                result->n_steps ? (double)(result->n_generated - 1) / (double)result->n_steps : 0);
    }
    if (result->n_overruled) fprintf(stderr, ", %zu only likely", result->n_overruled);
    putc('\n', stderr);
}

const char *tool_printable(const char *text, char *buffer, size_t size) {
    size_t n = 0;
    for (; text && text[n] && n + 1 < size; n++) {
        unsigned char c = (unsigned char)text[n], before = n ? (unsigned char)text[n - 1] : 0;
        int control = c < 0x20 || c == 0x7F || (before == 0xC2 && c < 0xA0);
        if (before == 0xC2 && control) buffer[n - 1] = '?';
        buffer[n] = control ? '?' : text[n];
    }
    buffer[n] = 0;
    return buffer;
}

const char *tool_size_text(uint64_t bytes, char *buffer, size_t n) {
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 999.5 && unit < 6) {
        value /= 1000;
        unit++;
    }
    snprintf(buffer, n, unit && value < 99.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return buffer;
}
