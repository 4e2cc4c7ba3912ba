/* cmd_batch.c: `minim batch`: a file of prompts becomes a file of answers, many at a time, in order, and after a kill
 * at any moment the rest of it.
 *
 * Every line of the input that is not blank is an object, and so is every line of the output, in the same order: so the
 * number of complete lines in the output says where to go on. A last line that is not complete is cut off. A digest in
 * every line of the output tells which line it answers, with which settings: what was made from another file, by
 * another model or otherwise, is not gone on with. */
#include "commands.h"
#include "common.h"

#ifndef MINIM_WITH_JANSSON

int cmd_batch(int argc, char **argv) {
    (void)argc, (void)argv;
    return tool_fail("batch: this program was built without jansson, which reads JSON");
}

#else

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "speculation.h"

typedef struct batch_settings {
    tool_settings tool;
    tool_speculation speculation; /* lookup only */
    const char *output, *format;
    int parallel;
} batch_settings;

#define BATCH(field) offsetof(batch_settings, field)

static const option batch_options[] = {
    {"-o, --output", "FILE", OPTION_STRING, BATCH(output), 0, 0,
     "write the answers here, and go on where it\nends if it is there (default: standard output)"},
    {"-np, --parallel", "N", OPTION_INT, BATCH(parallel), 1, 4096, "answers in the making at once (default 8)"},
    {"--lookup", "auto|off|N", OPTION_STRING, BATCH(speculation.lookup), 0, 0,
     "guess the next tokens from the text so far, at most N\n(1 to 16) in a step, while few answers are left; "
     "the\ntext stays the same (default auto: 16)"},
    {"--chat-format, --chat-template", "NAME", OPTION_STRING, BATCH(format), 0, 0,
     "of messages, instead of the file's own\n(\"help\" lists the names)"},
    {0},
};

static const option_usage batch_usage = {
    .command = "batch",
    .synopsis = "batch [OPTIONS] FILE.jsonl",
    .about = "Answers many prompts together and writes the answers in the order of the prompts.",
    .epilogue =
        "A line is {\"prompt\": \"...\"} or {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}]}, with "
        "\"id\" and, for\n"
        "this line only, \"max_tokens\", \"temperature\", \"top_k\", \"top_p\", \"min_p\", \"repeat_penalty\", "
        "\"seed\", \"stop\"\n"
        "(a string or a list), \"priority\". Answers are {\"id\", \"text\", \"stop\", \"prompt_tokens\",\n"
        "\"generated_tokens\", \"input\"}, or {\"id\", \"error\", \"input\"} for a line that has none; then the\n"
        "exit code is 1. Run again after an interruption, the same command does what is left; \"input\", a\n"
        "digest of the line and all that decides its answer, shows that it is the same.",
    .max_arguments = 1,
};

/* A line on its way from the input to the output. */
typedef struct batch_item {
    struct batch_run *run;
    char *id; /* JSON */
    uint64_t digest;
    tool_bytes text;
    char *line; /* of the output, when it is ready */
    size_t n_line;
    int failed; /* a callback had no memory */
} batch_item;

typedef struct batch_run {
    const batch_settings *settings;
    const minim_model *model;
    minim_engine *engine;
    minim_scheduler *scheduler;
    const char *file;  /* of the input */
    char *next, *end;  /* what of it is left */
    size_t number;     /* of the line before `next` */
    int fd;            /* the output */
    batch_item *items; /* [n_items]: a ring; items[written % n_items] is the next to be written */
    size_t n_items;
    size_t started, written, skipped, total;
    size_t n_errors, skipped_errors, n_tokens;
    uint64_t digest; /* of all that is the same for all lines */
    int code;        /* >= 0: something is wrong with the whole run */
    double begun, shown;
} batch_run;

/* ---- output -------------------------------------------------------------------------------------------------------
 */

static void batch_item_free(batch_item *item) {
    free(item->id);
    free(item->line);
    tool_bytes_free(&item->text);
    *item = (batch_item){.run = item->run};
}

/* One write for a line, so that nearly always all of it is there or nothing. */
static int batch_write(const batch_run *run, const char *line, size_t n) {
    while (n > 0) {
        ssize_t done = write(run->fd, line, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) {
            if (!run->settings->output) return tool_output_failed();
            return tool_fail("%s: %s", run->settings->output, strerror(errno));
        }
        line += done, n -= (size_t)done;
    }
    return -1;
}

static void batch_show_progress(batch_run *run, int last) {
    const double now = tool_seconds();
    if (run->settings->tool.quiet || !isatty(STDERR_FILENO) || (!last && now - run->shown < 0.1)) return;
    enum { WIDTH = 40 };
    const size_t done = run->skipped + run->written;
    const int full = run->total ? (int)(done * WIDTH / run->total) : WIDTH;
    run->shown = now;
    fprintf(stderr, "\r[%.*s%*s] %zu/%zu  %.1f tokens/s ", full, "########################################",
            WIDTH - full, "", done, run->total, now > run->begun ? (double)run->n_tokens / (now - run->begun) : 0);
    if (last) putc('\n', stderr);
}

/* Writes the lines that are ready and whose turn it is. */
static void batch_drain(batch_run *run) {
    while (run->code < 0 && run->written < run->started) {
        batch_item *item = &run->items[run->written % run->n_items];
        if (!item->line) break;
        run->code = batch_write(run, item->line, item->n_line);
        if (run->code < 0) run->written++;
        batch_item_free(item);
    }
    batch_show_progress(run, 0);
}

static const char batch_line_begin[] = "{\"id\": ";

/* Begins the line of an item; NULL after a message. */
static FILE *batch_open_line(batch_item *item) {
    FILE *file = open_memstream(&item->line, &item->n_line);
    if (!file) {
        item->run->code = tool_fail("out of memory");
        return NULL;
    }
    fprintf(file, "%s%s, ", batch_line_begin, item->id ? item->id : "null");
    return file;
}

static void batch_close_line(batch_item *item, FILE *file) {
    fprintf(file, ", \"input\": \"%016llx\"}\n", (unsigned long long)item->digest);
    if (ferror(file) | fclose(file)) item->run->code = tool_fail("out of memory");
}

static void batch_error(batch_item *item, const char *text) {
    FILE *file = batch_open_line(item);
    if (!file) return;
    item->run->n_errors++;
    fputs("\"error\": ", file);
    json_write_string(file, text, strlen(text));
    batch_close_line(item, file);
}

/* ---- which line, and how it is answered
 * ------------------------------------------------------------------------------
 */

/* FNV-1a (Fowler, Noll, Vo). */
static uint64_t batch_digest(uint64_t digest, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) digest = (digest ^ (unsigned char)text[i]) * 0x100000001b3u;
    return digest;
}

/* The model, and what the command line says about answers. */
static uint64_t batch_digest_settings(const batch_run *run) {
    const tool_settings *tool = &run->settings->tool;
    const minim_sampling *s = &tool->sampling;
    const char *format = run->settings->format;
    minim_model_info info = {.size = sizeof info};
    char text[512];
    minim_model_get_info(run->model, &info);
    snprintf(text, sizeof text, "%.64s %.64s %llu %llu %.64s, %d %d %.16s %.16s %d, %g %d %g %g %g %d %llu, %.64s",
             info.architecture, info.name, (unsigned long long)info.n_params, (unsigned long long)info.file_bytes,
             info.weight_types, tool->n_predict, tool->ignore_end, tool->kv ? tool->kv : "",
             tool->rope_factors ? tool->rope_factors : "", tool->n_ctx, (double)s->temperature, s->top_k,
             (double)s->top_p, (double)s->min_p, (double)s->repeat_penalty, s->repeat_last_n,
             (unsigned long long)s->seed, format ? format : "");
    uint64_t digest = batch_digest(0xcbf29ce484222325u, text, strlen(text));
    for (size_t i = 0; i < tool->stop.n; i++)
        digest = batch_digest(digest, tool->stop.items[i], strlen(tool->stop.items[i]) + 1);
    return digest;
}

/* ---- answers ------------------------------------------------------------------------------------------------------
 */

static int batch_on_text(void *user, const char *text, size_t n) {
    batch_item *item = user;
    item->failed |= tool_bytes_append(&item->text, text, n) != 0;
    return item->failed;
}

static void batch_on_done(void *user, uint64_t id, const minim_outcome *outcome) {
    (void)id;
    batch_item *item = user;
    batch_run *run = item->run;
    const minim_result *result = outcome->result;
    if (item->failed && run->code < 0) run->code = EXIT_CODE_FAILED;
    if (run->code >= 0 || (!outcome->status && result->stop == MINIM_STOP_CANCELLED)) return; /* the run ends */
    if (outcome->status) {
        batch_error(item, outcome->error);
        return;
    }
    FILE *file = batch_open_line(item);
    if (!file) return;
    run->n_tokens += result->n_generated;
    fputs("\"text\": ", file);
    json_write_string(file, item->text.data, item->text.n);
    fprintf(file, ", \"stop\": \"%s\", \"prompt_tokens\": %zu, \"generated_tokens\": %zu",
            minim_stop_name(result->stop), result->n_prompt, result->n_generated);
    batch_close_line(item, file);
}

/* ---- a line of the input -------------------------------------------------------------------------------------------
 */

/* What one line asks for; what points into the JSON lives as long as it. */
typedef struct batch_request {
    json_t *root;
    minim_generate_options options;
    const char **stops; /* [n] */
    tool_tokens tokens;
    int priority;
    char error[512]; /* not empty: what is wrong with it */
} batch_request;

/* A number of the line, if it has one, in [min, max]. */
static double batch_number(batch_request *r, const char *name, double value, double min, double max) {
    const json_t *json = json_object_get(r->root, name);
    if (!json || json_is_null(json)) return value;
    const double found = json_is_number(json) ? json_number_value(json) : min - 1;
    if (found >= min && found <= max) return found;
    snprintf(r->error, sizeof r->error, "%s: expected a number from %g to %g", name, min, max);
    return value;
}

static void batch_stops(batch_request *r) {
    json_t *stop = json_object_get(r->root, "stop");
    if (!stop || json_is_null(stop)) return;
    const size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
    r->stops = calloc(n + 1, sizeof *r->stops);
    for (size_t i = 0; i < n && r->stops; i++) {
        r->stops[i] = json_string_value(json_is_array(stop) ? json_array_get(stop, i) : stop);
        if (!r->stops[i]) snprintf(r->error, sizeof r->error, "stop: expected a string or a list of strings");
    }
    if (!r->stops) snprintf(r->error, sizeof r->error, "out of memory");
    r->options.stop = r->stops, r->options.n_stop = n;
}

static void batch_options_of_line(const batch_run *run, batch_request *r) {
    minim_sampling *s = &r->options.sampling;
    tool_generate_settings(&run->settings->tool, &r->options);
    tool_speculation_settings(&run->settings->speculation, NULL, &r->options);
    r->options.max_tokens = (int)batch_number(r, "max_tokens", r->options.max_tokens, -1, 1 << 30);
    if (r->options.max_tokens < 0) r->options.max_tokens = 0; /* -1 is what the command line calls it */
    s->temperature = (float)batch_number(r, "temperature", (double)s->temperature, 0, 100);
    s->top_k = (int)batch_number(r, "top_k", s->top_k, 0, 1 << 30);
    s->top_p = (float)batch_number(r, "top_p", (double)s->top_p, 0, 1);
    s->min_p = (float)batch_number(r, "min_p", (double)s->min_p, 0, 1);
    s->repeat_penalty = (float)batch_number(r, "repeat_penalty", (double)s->repeat_penalty, 0.01, 100);
    r->priority = (int)batch_number(r, "priority", 0, -1000000, 1000000);
    const json_t *seed = json_object_get(r->root, "seed");
    if (json_is_integer(seed))
        s->seed = (uint64_t)json_integer_value(seed);
    else if (seed && !json_is_null(seed))
        snprintf(r->error, sizeof r->error, "seed: expected a whole number");
    batch_stops(r);
}

static void batch_tokens_of_messages(const batch_run *run, batch_request *r, const json_t *list) {
    const size_t n = json_array_size(list);
    minim_message *messages = calloc(n + 1, sizeof *messages);
    minim_error error = {.status = MINIM_OK};
    minim_status status = MINIM_ERR_SPACE;
    for (size_t i = 0; i < n && messages; i++) {
        const json_t *message = json_array_get(list, i);
        messages[i].role = json_string_value(json_object_get(message, "role"));
        messages[i].content = json_string_value(json_object_get(message, "content"));
        if (!messages[i].role || !messages[i].content)
            snprintf(r->error, sizeof r->error, "messages: %zu has no role or no content", i);
    }
    if (!messages) snprintf(r->error, sizeof r->error, "out of memory");
    for (int attempt = 0; attempt < 2 && status == MINIM_ERR_SPACE && !r->error[0];
         attempt++) { /* the first one counts */
        if (attempt && tool_tokens_reserve(&r->tokens, r->tokens.n)) break;
        status = minim_chat_tokenize(run->model, run->settings->format, messages, n, r->tokens.ids, r->tokens.capacity,
                                     &r->tokens.n, &error);
    }
    if (status && !r->error[0]) snprintf(r->error, sizeof r->error, "%s", error.text);
    free(messages);
}

static void batch_tokens_of_prompt(const batch_run *run, batch_request *r, const json_t *prompt) {
    if (tool_tokenize(run->model, json_string_value(prompt), json_string_length(prompt), MINIM_ADD_SPECIAL,
                      &r->tokens) >= 0) {
        snprintf(r->error, sizeof r->error, "the prompt has no tokens");
        return;
    }
    minim_model_info info = {.size = sizeof info};
    minim_model_get_info(run->model, &info);
    if (r->tokens.n > 1 && r->tokens.ids[r->tokens.n - 1] == info.eos) r->tokens.n--; /* the text is to go on */
}

/* Reads a line; r->error says what is wrong. */
static void batch_read_line(const batch_run *run, batch_request *r, batch_item *item, const char *line, size_t n) {
    json_error_t error;
    r->root = json_loadb(line, n, JSON_REJECT_DUPLICATES, &error);
    const json_t *id = json_object_get(r->root, "id");
    if (id) item->id = json_dumps(id, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!json_is_object(r->root)) {
        snprintf(r->error, sizeof r->error, "line %zu: %s", run->number, r->root ? "expected an object" : error.text);
        return;
    }
    const json_t *prompt = json_object_get(r->root, "prompt"), *messages = json_object_get(r->root, "messages");
    batch_options_of_line(run, r);
    if (r->error[0]) return;
    if (json_is_string(prompt) && !messages)
        batch_tokens_of_prompt(run, r, prompt);
    else if (json_is_array(messages) && !prompt)
        batch_tokens_of_messages(run, r, messages);
    else
        snprintf(r->error, sizeof r->error, "expected \"prompt\", a text, or \"messages\", a list");
    if (!r->error[0] && !r->tokens.n) snprintf(r->error, sizeof r->error, "there are no tokens");
}

static void batch_start(batch_run *run, const char *line, size_t n) {
    batch_item *item = &run->items[run->started++ % run->n_items];
    batch_request r = {.root = NULL};
    minim_error error = {.status = MINIM_OK};
    item->digest = batch_digest(run->digest, line, n);
    batch_read_line(run, &r, item, line, n);
    minim_request request;
    minim_request_default(&request);
    r.options.user = item, r.options.on_text = batch_on_text;
    request.prompt = r.tokens.ids, request.n_prompt = r.tokens.n, request.options = &r.options;
    request.priority = r.priority, request.user = item, request.on_done = batch_on_done;
    if (r.error[0])
        batch_error(item, r.error);
    else if (minim_scheduler_submit(run->scheduler, &request, NULL, &error) != MINIM_OK)
        batch_error(item, error.text);
    json_decref(r.root);
    free(r.stops);
    tool_tokens_free(&r.tokens);
}

/* The next line of the input that is not blank; NULL at the end. */
static char *batch_next_line(batch_run *run, size_t *n) {
    while (run->next < run->end) {
        char *line = run->next, *stop = memchr(line, '\n', (size_t)(run->end - line));
        if (!stop) stop = run->end;
        run->next = stop < run->end ? stop + 1 : stop;
        run->number++;
        *n = (size_t)(stop - line);
        for (size_t i = 0; i < *n; i++) {
            if (!strchr(" \t\r", line[i]) || !line[i]) return line;
        }
    }
    return NULL;
}

/* ---- the run ------------------------------------------------------------------------------------------------------
 */

/* Keeps the ring full: twice as many lines as answers in the making, so that a place is never empty. */
static void batch_fill(batch_run *run) {
    char *line;
    size_t n;
    while (run->code < 0 && run->started - run->written < run->n_items && (line = batch_next_line(run, &n)))
        batch_start(run, line, n);
}

static int batch_answer_all(batch_run *run) {
    minim_error error = {.status = MINIM_OK};
    size_t left = 0;
    run->begun = tool_seconds();
    do {
        batch_fill(run);
        if (run->code < 0 && minim_scheduler_step(run->scheduler, &left, &error) != MINIM_OK)
            run->code = tool_fail_error(&error);
        batch_drain(run);
        if (tool_interrupted() && run->code < 0) run->code = EXIT_CODE_INTERRUPTED;
    } while (run->code < 0 && (left || run->next < run->end || run->written < run->started));
    batch_show_progress(run, 1);
    return run->code;
}

/* Does a line of the output answer this line of the input? Counts it if it says that there is no answer. */
static int batch_is_answer(batch_run *run, const char *line, size_t n, const char *input, size_t n_input) {
    char digest[24];
    json_t *root = json_loadb(line, n, 0, NULL);
    const char *found = json_string_value(json_object_get(root, "input"));
    snprintf(digest, sizeof digest, "%016llx", (unsigned long long)batch_digest(run->digest, input, n_input));
    const int is_answer = found && !strcmp(found, digest);
    run->skipped_errors += is_answer && json_object_get(root, "error");
    json_decref(root);
    return is_answer;
}

/* Goes past the lines of the input that `old`, complete lines of the output, answers. Returns -1 or an exit code. */
static int batch_skip(batch_run *run, const char *old, size_t n_old) {
    const char *path = run->settings->output, *end = old + n_old;
    for (const char *next; old < end; old = next, run->skipped++) {
        size_t n;
        const char *line = batch_next_line(run, &n);
        next = (const char *)memchr(old, '\n', (size_t)(end - old)) + 1;
        if (!line) return tool_fail("%s: has more answers than the %zu prompts of %s", path, run->skipped, run->file);
        if (!batch_is_answer(run, old, (size_t)(next - old), line, n))
            return tool_fail("%s: line %zu does not answer line %zu of %s with this model and these settings", path,
                             run->skipped + 1, run->number, run->file);
    }
    return -1;
}

/* The output as it is: complete lines count, what is behind them goes. Returns -1 or an exit code. */
static int batch_resume(batch_run *run) {
    const char *path = run->settings->output;
    tool_bytes old = {0};
    run->fd = STDOUT_FILENO;
    if (!path) return -1;
    run->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (run->fd < 0) return tool_fail("%s: %s", path, strerror(errno));
    int code = tool_read_file(path, &old);
    if (code >= 0) return code;
    size_t complete = old.n;
    while (complete && old.data[complete - 1] != '\n') complete--;
    const size_t n_tail = old.n - complete, n_begin = strlen(batch_line_begin);
    code = batch_skip(run, old.data, complete);
    if (code < 0 && n_tail && memcmp(old.data + complete, batch_line_begin, n_tail < n_begin ? n_tail : n_begin) != 0)
        code = tool_fail("%s: ends with something else than a part of an answer", path);
    if (code < 0 && n_tail && ftruncate(run->fd, (off_t)complete)) code = tool_fail("%s: %s", path, strerror(errno));
    tool_bytes_free(&old);
    if (code < 0 && run->skipped && !run->settings->tool.quiet)
        fprintf(stderr, "%s: %zu answers are there already\n", path, run->skipped - run->skipped_errors);
    return code;
}

static int batch_new_engine(batch_run *run) {
    minim_engine_options options;
    minim_scheduler_options scheduler;
    minim_error error = {.status = MINIM_OK};
    minim_memory_plan plan = {.size = sizeof plan};
    const uint64_t parallel = (uint64_t)run->settings->parallel;
    tool_engine_settings(&run->settings->tool, &options);
    minim_status status = minim_engine_plan(run->model, &options, &plan, &error);
    /* Room for all of them; what is not used is not taken. */
    if (!status) options.kv_limit = plan.kv_full > UINT64_MAX / parallel ? 0 : plan.kv_full * parallel;
    if (!status) status = minim_engine_new(run->model, &options, &run->engine, &error);
    if (!status) minim_engine_prepare(run->engine);
    minim_scheduler_options_default(&scheduler);
    scheduler.max_running = run->settings->parallel;
    scheduler.max_queue = (int)run->n_items;
    if (!status) status = minim_scheduler_new(run->engine, &scheduler, &run->scheduler, &error);
    return status ? tool_fail_error(&error) : -1;
}

static int batch_with_input(batch_run *run) {
    size_t n;
    char *begin = run->next;
    while (batch_next_line(run, &n)) run->total++;
    run->next = begin, run->number = 0;
    run->digest = batch_digest_settings(run);
    int code = batch_resume(run);
    run->n_items = (size_t)run->settings->parallel * 2;
    run->items = calloc(run->n_items, sizeof *run->items);
    if (code < 0 && !run->items) code = tool_fail("out of memory");
    for (size_t i = 0; run->items && i < run->n_items; i++) run->items[i].run = run;
    if (code < 0) code = batch_new_engine(run);
    run->code = -1;
    if (code < 0) code = batch_answer_all(run);
    run->code = EXIT_CODE_FAILED; /* whoever is cancelled now writes nothing */
    minim_scheduler_free(run->scheduler);
    minim_engine_free(run->engine);
    for (size_t i = 0; run->items && i < run->n_items; i++) batch_item_free(&run->items[i]);
    free(run->items);
    if (run->fd > STDOUT_FILENO && close(run->fd) && code < 0)
        code = tool_fail("%s: %s", run->settings->output, strerror(errno));
    if (code < 0 && !run->settings->tool.quiet) {
        double seconds = tool_seconds() - run->begun;
        fprintf(stderr, "%zu answers, %zu tokens in %.2f s, %.1f tokens/s\n", run->written - run->n_errors,
                run->n_tokens, seconds, seconds > 0 ? (double)run->n_tokens / seconds : 0);
    }
    const size_t errors = run->skipped_errors + run->n_errors;
    if (code < 0 && errors)
        return tool_fail("%zu of %zu lines have no answer; their \"error\" says why", errors,
                         run->skipped + run->written);
    return code < 0 ? EXIT_CODE_OK : code;
}

static int batch_command(batch_settings *settings, const option_list *arguments) {
    tool_bytes input = {0};
    minim_model *model = NULL;
    tool_catch_interrupt();
    int code = tool_check_settings("batch", &settings->tool);
    if (code < 0) code = tool_check_speculation("batch", &settings->speculation);
    if (code < 0) code = tool_check_format("batch", settings->format);
    if (code < 0 && !arguments->n) code = options_complain("batch", "expected a file of prompts (- is standard input)");
    if (code < 0) code = tool_read_file(arguments->items[0], &input);
    if (code < 0) code = tool_load_model(&settings->tool, MINIM_LOAD_ALL, &model, NULL);
    if (code < 0) {
        batch_run run = {.settings = settings, .model = model, .file = arguments->items[0]};
        run.next = input.data, run.end = input.data + input.n;
        code = batch_with_input(&run);
    }
    minim_model_free(model);
    tool_bytes_free(&input);
    return code;
}

int cmd_batch(int argc, char **argv) {
    batch_settings settings = {.parallel = 8};
    option_list arguments = {0};
    tool_settings_default(&settings.tool);
    const option_table tables[] = {
        {"batch", batch_options, &settings},
        {"model", tool_model_options, &settings.tool},
        {"generation, where a line does not say otherwise", tool_sampling_options, &settings.tool},
        {"engine", tool_engine_options, &settings.tool},
        {0},
    };
    int code = options_parse(&batch_usage, tables, argc, argv, &arguments);
    if (code < 0) code = batch_command(&settings, &arguments);
    option_list_free(&arguments);
    option_list_free(&settings.tool.stop);
    return code;
}

#endif
