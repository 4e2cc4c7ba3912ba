/* cmd_chat.c: `minim chat`: a conversation.
 *
 * The whole conversation is rendered and tokenised anew for every turn, which keeps the chat format in one place
 * (minim_chat_tokenize). What the sequence already holds of it is not computed again: the longest common prefix stays
 * in the KV cache, only the rest is run. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "common.h"
#include "json.h"
#include "line.h"
#include "output.h"
#include "speculation.h"

typedef struct chat_settings {
    tool_settings tool;
    tool_speculation speculation;
    const char *system, *format;
    int json;
} chat_settings;

#define CHAT(field) offsetof(chat_settings, field)

static const option chat_options[] = {
    {"-sys, --system-prompt", "TEXT", OPTION_STRING, CHAT(system), 0, 0,
     "what the model is told before the first turn"},
    {"--chat-format, --chat-template", "NAME", OPTION_STRING, CHAT(format), 0, 0,
     "chat format instead of the file's own\n(\"help\" lists the names)"},
    {"--json", NULL, OPTION_FLAG, CHAT(json), 0, 0, "print each answer as a JSON object on a line"},
    {0},
};

static const option_usage chat_usage = {
    .command = "chat",
    .synopsis = "chat [OPTIONS]",
    .about = "A conversation with a model. Greedy unless --temp says otherwise.",
    .epilogue =
        "While chatting: /help /reset /system TEXT /save FILE /load FILE /export FILE /stats /exit. Ctrl-C stops an\n"
        "answer, Ctrl-D ends.\n"
        "A message is a line, or what stands between \"\"\" and \"\"\"; from a pipe, too. A text that is pasted into\n"
        "the terminal is one message. When the context is full, the oldest turns are forgotten, and it says so.",
    .max_arguments = 0,
};

static const char chat_help[] =
    "  /help          this list\n"
    "  /reset         forget the conversation, but not the system message\n"
    "  /system TEXT   set the system message and forget the conversation;\n"
    "                 without TEXT: remove it\n"
    "  /save FILE     keep the conversation and the state of the model in a file\n"
    "  /load FILE     go on from there, with the same model, --kv and --page-size\n"
    "  /export FILE   write the conversation to a file to read, as JSON\n"
    "  /stats         figures of the last answer, and how full the context is\n"
    "  /exit          end (also Ctrl-D)\n"
    "  \"\"\"            begins a message of several lines, which ends with another \"\"\"\n"
    "  Ctrl-C stops an answer.\n";

/* ---- the conversation -------------------------------------------------------------------------------------------- */

typedef struct chat_session {
    const chat_settings *settings;
    const minim_model *model;
    minim_engine *engine;
    minim_seq *seq;
    tool_draft draft;
    int n_ctx, raw; /* raw: the format puts nothing around messages, so that spaces between them count */
    double load_seconds;

    minim_message *messages; /* contents are ours; roles are constants */
    size_t n_messages, capacity;

    tool_tokens prompt;  /* the conversation, rendered */
    tool_bytes answer;   /* the text of the answer under way */
    minim_result result; /* of the last answer; n_prompt counts what was really run */
    size_t reused;       /* tokens of its prompt that were already cached */
    int failed;          /* a callback has failed and said why */
} chat_session;

static int chat_add_message(chat_session *chat, const char *role, const char *text, size_t n) {
    if (chat->n_messages == chat->capacity) {
        size_t capacity = chat->capacity ? chat->capacity * 2 : 16;
        minim_message *grown = realloc(chat->messages, capacity * sizeof *grown);
        if (!grown) {
            tool_fail("out of memory for the conversation");
            return -1;
        }
        chat->messages = grown;
        chat->capacity = capacity;
    }
    char *content = strndup(text, n);
    if (!content) {
        tool_fail("out of memory for a message of %zu bytes", n);
        return -1;
    }
    chat->messages[chat->n_messages++] = (minim_message){.role = role, .content = content};
    return 0;
}

/* Removes n messages from index `at`. */
static void chat_remove_messages(chat_session *chat, size_t at, size_t n) {
    if (n == 0) return; /* there may be no list yet */
    for (size_t i = at; i < at + n; i++) free((char *)chat->messages[i].content);
    memmove(chat->messages + at, chat->messages + at + n, (chat->n_messages - at - n) * sizeof *chat->messages);
    chat->n_messages -= n;
}

/* 1 when the conversation starts with a system message. */
static size_t chat_has_system(const chat_session *chat) {
    return chat->n_messages > 0 && !strcmp(chat->messages[0].role, "system");
}

/* Renders the conversation into chat->prompt. Returns -1, or the exit code after a message. */
static int chat_render(chat_session *chat) {
    minim_error error = {.status = MINIM_OK};
    tool_tokens *prompt = &chat->prompt;
    for (int attempt = 0; attempt < 2; attempt++) { /* the first one finds out how many tokens there are */
        minim_status status = minim_chat_tokenize(chat->model, chat->settings->format, chat->messages, chat->n_messages,
                                                  prompt->ids, prompt->capacity, &prompt->n, &error);
        if (status == MINIM_OK) return -1;
        if (status != MINIM_ERR_SPACE) break;
        if (tool_tokens_reserve(prompt, prompt->n)) return EXIT_CODE_FAILED;
    }
    return tool_fail_error(&error);
}

/* Renders, and forgets the oldest turns until the conversation and an answer of some length fit the context.
 * Returns -1, or an exit code after a message: then the newest message does not fit. */
static int chat_render_to_fit(chat_session *chat) {
    size_t room = (size_t)chat->n_ctx - (size_t)chat->n_ctx / 4, forgotten = 0;
    int code = chat_render(chat);
    while (code < 0 && chat->prompt.n > room && chat->n_messages - chat_has_system(chat) > 2) {
        chat_remove_messages(chat, chat_has_system(chat), 2); /* a question and its answer */
        forgotten++;
        code = chat_render(chat);
    }
    if (forgotten) {
        fprintf(stderr, "(the context of %d tokens is full: forgot the oldest %s; /reset starts over)\n", chat->n_ctx,
                forgotten == 1 ? "turn" : "turns");
    }
    if (code < 0 && chat->prompt.n >= (size_t)chat->n_ctx) {
        return tool_fail("the message does not fit: it makes a prompt of %zu tokens, the context holds %d (-c N)",
                         chat->prompt.n, chat->n_ctx);
    }
    return code < 0 && chat->prompt.n == 0 ? tool_fail("the message makes no tokens") : code;
}

/* ---- an answer --------------------------------------------------------------------------------------------------- */

/* White space that an answer begins with is not shown and not kept: many models write a space or a newline that
 * belongs to the format, which puts it there again. */
static int chat_on_text(void *user, const char *text, size_t n) {
    chat_session *chat = user;
    for (; n && !chat->raw && !chat->answer.n && strchr(" \n\t", *text); n--) text++;
    chat->failed |= tool_bytes_append(&chat->answer, text, n) != 0;
    if (!chat->settings->json) fwrite(text, 1, n, stdout);
    return tool_flush() || chat->failed || tool_interrupted();
}

static int chat_on_token(void *user, const minim_token_event *event) {
    (void)user, (void)event;
    return tool_interrupted();
}

static int chat_on_prefill(void *user, size_t done, size_t total) {
    (void)user, (void)done, (void)total;
    return tool_interrupted();
}

/* Keeps the cached tokens that the new prompt starts with. At least one token is left to run: its logits are needed. */
static size_t chat_reuse_prefix(chat_session *chat) {
    const int32_t *cached = minim_seq_tokens(chat->seq);
    size_t n = 0, most = chat->prompt.n - 1, length = minim_seq_length(chat->seq);
    while (n < most && n < length && cached[n] == chat->prompt.ids[n]) n++;
    minim_seq_truncate(chat->seq, n);
    return n;
}

static void chat_explain_stop(const chat_session *chat) {
    if (chat->result.stop == MINIM_STOP_CONTEXT) {
        fprintf(stderr, "(cut: the context of %d tokens is full; -c N makes it larger)\n", chat->n_ctx);
    } else if (tool_interrupted()) {
        fprintf(stderr, "(stopped)\n");
    }
}

static void chat_print_json(const chat_session *chat) {
    const char *const stop = minim_stop_name(chat->result.stop);
    const struct {
        const char *name;
        size_t value;
    } counts[] = {{"prompt_tokens", chat->prompt.n},
                  {"cached_tokens", chat->reused},
                  {"generated_tokens", chat->result.n_generated}};
    int first = 1;
    putchar('{');
    json_write_name(stdout, "text", &first);
    json_write_string(stdout, chat->answer.data, chat->answer.n);
    json_write_name(stdout, "stop", &first);
    json_write_string(stdout, stop, strlen(stop));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        json_write_name(stdout, counts[i].name, &first);
        printf("%zu", counts[i].value);
    }
    putchar('}');
}

/* Answers the last message. -1 = go on; else the exit code of a failure that ends the chat. */
static int chat_answer(chat_session *chat) {
    minim_generate_options options;
    minim_error error = {.status = MINIM_OK};
    tool_generate_settings(&chat->settings->tool, &options);
    tool_speculation_settings(&chat->settings->speculation, &chat->draft, &options);
    options.user = chat;
    options.on_text = chat_on_text;
    options.on_token = chat_on_token;
    options.on_prefill = chat_on_prefill;
    chat->answer.n = 0;
    chat->reused = chat_reuse_prefix(chat);
    chat->result = (minim_result){.size = sizeof chat->result};
    minim_status status = minim_generate(chat->seq, chat->prompt.ids + chat->reused, chat->prompt.n - chat->reused,
                                         &options, &chat->result, &error);
    if (chat->failed) return EXIT_CODE_FAILED;
    if (status != MINIM_OK && !tool_interrupted()) return tool_fail_error(&error);
    if (chat->settings->json) chat_print_json(chat);
    putchar('\n');
    if (tool_flush()) return EXIT_CODE_OK;
    chat_explain_stop(chat);
    tool_clear_interrupt();
    if (!chat->settings->tool.quiet) tool_print_statistics(chat->load_seconds, &chat->result);
    return chat_add_message(chat, "assistant", chat->answer.data ? chat->answer.data : "", chat->answer.n)
               ? EXIT_CODE_FAILED
               : -1;
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static void chat_print_stats(const chat_session *chat) {
    if (chat->result.n_generated) tool_print_statistics(chat->load_seconds, &chat->result);
    fprintf(stderr, "context: %zu of %d tokens; %zu of the last prompt were already cached\n",
            minim_seq_length(chat->seq), chat->n_ctx, chat->reused);
}

static void chat_reset(chat_session *chat) {
    size_t first = chat_has_system(chat);
    chat_remove_messages(chat, first, chat->n_messages - first);
}

static int chat_set_system(chat_session *chat, const char *text, size_t n) {
    chat_remove_messages(chat, 0, chat->n_messages);
    return n ? chat_add_message(chat, "system", text, n) : 0;
}

/* {"messages": [{"role": "user", "content": "..."}, ...]} */
static void chat_write_conversation(const chat_session *chat, FILE *file) {
    fputs("{\"messages\": [", file);
    for (size_t i = 0; i < chat->n_messages; i++) {
        const minim_message *message = &chat->messages[i];
        int first = 1;
        fputs(i ? ",\n  {" : "\n  {", file);
        json_write_name(file, "role", &first);
        json_write_string(file, message->role, strlen(message->role));
        json_write_name(file, "content", &first);
        json_write_string(file, message->content, strlen(message->content));
        putc('}', file);
    }
    fputs("\n]}\n", file);
}

static void chat_export(chat_session *chat, const char *path) {
    FILE *file = fopen(path, "w");
    if (!file) {
        tool_fail("%s: %s", path, strerror(errno));
        return;
    }
    chat_write_conversation(chat, file);
    const int failed = ferror(file) | fclose(file);
    if (failed)
        tool_fail("%s: cannot be written: %s", path, strerror(errno));
    else
        fprintf(stderr, "%zu messages written to %s\n", chat->n_messages, path);
}

/* A saved conversation is the sequence with the messages as its note: this line, then for each message its role, a
 * space, its length, a newline, its content and a newline. */
static const char chat_note_begin[] = "minim chat 1\n";

static void chat_save(chat_session *chat, const char *path) {
    char *note = NULL;
    size_t n = 0;
    minim_error error = {.status = MINIM_OK};
    if (tool_is_same_file(path, chat->settings->tool.model)) {
        tool_fail("%s: is the model, which /save would overwrite", path);
        return;
    }
    FILE *file = open_memstream(&note, &n);
    if (file) fputs(chat_note_begin, file);
    for (size_t i = 0; i < chat->n_messages && file; i++)
        fprintf(file, "%s %zu\n%s\n", chat->messages[i].role, strlen(chat->messages[i].content),
                chat->messages[i].content);
    if (!file || ferror(file) | fclose(file))
        tool_fail("out of memory for the conversation");
    else if (minim_seq_set_note(chat->seq, note, n, &error) || minim_seq_save(chat->seq, path, &error))
        tool_fail_error(&error);
    else
        fprintf(stderr, "%zu messages saved in %s\n", chat->n_messages, path);
    minim_seq_set_note(chat->seq, NULL, 0, NULL);
    free(note);
}

/* The next message of a note that ends at `end`: its role, a constant, or NULL where there is none. */
static const char *chat_read_message(const char **at, const char *end, const char **content, size_t *n) {
    static const char *const roles[] = {"system", "user", "assistant"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const size_t length = strlen(roles[i]);
        const char *from = *at;
        if ((size_t)(end - from) <= length || memcmp(from, roles[i], length) != 0 || from[length] != ' ') continue;
        *n = 0;
        for (from += length + 1; from < end && *from >= '0' && *from <= '9' && *n < SIZE_MAX / 20; from++)
            *n = *n * 10 + (size_t)(*from - '0');
        if (end - from < 2 || *from != '\n' || *n > (size_t)(end - from) - 2 || from[1 + *n] != '\n') return NULL;
        *content = from + 1;
        *at = from + *n + 2;
        return memchr(*content, 0, *n) ? NULL : roles[i];
    }
    return NULL;
}

/* The messages of a sequence's note become those of `into`. 0, or -1 after a message. */
static int chat_read_note(chat_session *into, const minim_seq *seq, const char *path) {
    size_t n_note, n;
    const char *at = minim_seq_note(seq, &n_note), *content;
    const size_t begin = strlen(chat_note_begin);
    if (n_note < begin || memcmp(at, chat_note_begin, begin) != 0) {
        tool_fail("%s: holds no conversation: it was not written by /save", path);
        return -1;
    }
    const char *const end = at + n_note;
    for (at += begin; at < end;) {
        const char *role = chat_read_message(&at, end, &content, &n);
        if (!role) {
            tool_fail("%s: message %zu of the conversation cannot be read", path, into->n_messages + 1);
            return -1;
        }
        if (chat_add_message(into, role, content, n)) return -1;
    }
    return 0;
}

/* All of the conversation comes back, or the one at hand goes on. */
static void chat_load(chat_session *chat, const char *path) {
    chat_session loaded = {.messages = NULL};
    minim_error error = {.status = MINIM_OK};
    if (minim_seq_restore(chat->engine, path, &loaded.seq, &error)) {
        tool_fail_error(&error);
    } else if (!chat_read_note(&loaded, loaded.seq, path)) {
        const chat_session before = *chat;
        tool_interrupt_target(loaded.seq);
        chat->seq = loaded.seq, chat->messages = loaded.messages;
        chat->n_messages = loaded.n_messages, chat->capacity = loaded.capacity;
        loaded = before; /* to be forgotten */
        minim_seq_set_note(chat->seq, NULL, 0, NULL);
        fprintf(stderr, "%zu messages loaded from %s\n", chat->n_messages, path);
    }
    minim_seq_free(loaded.seq);
    chat_remove_messages(&loaded, 0, loaded.n_messages);
    free(loaded.messages);
}

/* A command that takes a file. A failure is told, and the chat goes on. */
static void chat_with_file(chat_session *chat, const char *command, const char *name, size_t n,
                           void (*work)(chat_session *chat, const char *path)) {
    char *path = strndup(name, n);
    if (!path)
        tool_fail("out of memory for the name of a file");
    else if (!*path)
        fprintf(stderr, "%s needs the name of a file\n", command);
    else
        work(chat, path);
    free(path);
}

/* What stands behind the name of a command, NULL if it is another one. */
static const char *chat_command_is(const char *text, size_t n, const char *name, size_t *n_rest) {
    const size_t length = strlen(name);
    if (n < length || memcmp(text, name, length) != 0 || (n > length && text[length] != ' ')) return NULL;
    *n_rest = n - length;
    for (text += length; *n_rest && *text == ' '; --*n_rest) text++;
    while (*n_rest && text[*n_rest - 1] == ' ') --*n_rest;
    return text;
}

/* A line that starts with a slash. -1 = go on, else the exit code. */
static int chat_command(chat_session *chat, const char *text, size_t n) {
    const char *rest;
    if (chat_command_is(text, n, "/exit", &n) || chat_command_is(text, n, "/quit", &n)) return EXIT_CODE_OK;
    if (chat_command_is(text, n, "/help", &n)) {
        fputs(chat_help, stderr);
    } else if (chat_command_is(text, n, "/reset", &n)) {
        chat_reset(chat);
    } else if (chat_command_is(text, n, "/stats", &n)) {
        chat_print_stats(chat);
    } else if ((rest = chat_command_is(text, n, "/save", &n))) {
        chat_with_file(chat, "/save", rest, n, chat_save);
    } else if ((rest = chat_command_is(text, n, "/load", &n))) {
        chat_with_file(chat, "/load", rest, n, chat_load);
    } else if ((rest = chat_command_is(text, n, "/export", &n))) {
        chat_with_file(chat, "/export", rest, n, chat_export);
    } else if ((rest = chat_command_is(text, n, "/system", &n))) {
        if (chat_set_system(chat, rest, n)) return EXIT_CODE_FAILED;
    } else {
        fprintf(stderr, "unknown command; /help lists them\n");
    }
    return -1;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static int chat_turn(chat_session *chat, const char *text, size_t n, int block) {
    if (n == 0) return -1;
    if (text[0] == '/' && !block && !memchr(text, '\n', n)) return chat_command(chat, text, n);
    if (memchr(text, 0, n)) {
        tool_fail("the message holds a NUL byte; it was left out");
        return -1;
    }
    if (chat_add_message(chat, "user", text, n)) return EXIT_CODE_FAILED;
    if (chat_render_to_fit(chat) >= 0) { /* said why; the conversation goes on without this message */
        chat_remove_messages(chat, chat->n_messages - 1, 1);
        return -1;
    }
    return chat_answer(chat);
}

static int chat_loop(chat_session *chat, line_reader *reader) {
    int interactive = isatty(STDIN_FILENO) && !chat->settings->tool.quiet;
    if (interactive) fputs("/help lists the commands, Ctrl-D ends\n", stderr);
    for (;;) {
        const char *text;
        size_t n;
        line_status status = line_read(reader, &text, &n);
        if (status == LINE_END) {
            if (interactive) putc('\n', stderr);
            return EXIT_CODE_OK;
        }
        if (status == LINE_FAILED) return tool_fail("standard input cannot be read");
        if (status == LINE_INTERRUPTED) {
            if (!isatty(STDIN_FILENO)) return EXIT_CODE_INTERRUPTED;
            tool_clear_interrupt();
            putc('\n', stderr);
            continue;
        }
        int code = chat_turn(chat, text, n, status == LINE_BLOCK);
        if (code >= 0) return code;
    }
}

static int chat_with_engine(chat_session *chat) {
    minim_engine_info info = {.size = sizeof info};
    minim_error error = {.status = MINIM_OK};
    minim_engine_get_info(chat->engine, &info);
    chat->n_ctx = info.n_ctx;
    if (minim_seq_new(chat->engine, &chat->seq, &error) != MINIM_OK) return tool_fail_error(&error);
    const int draft = tool_new_draft(&chat->settings->speculation, &chat->settings->tool, chat->n_ctx, &chat->draft);
    if (draft >= 0) return draft;
    const char *system = chat->settings->system;
    if (system && chat_set_system(chat, system, strlen(system))) return EXIT_CODE_FAILED;
    line_reader *reader = line_open("> ");
    if (!reader) return tool_fail("out of memory");
    tool_interrupt_target(chat->seq);
    int code = chat_loop(chat, reader);
    tool_interrupt_target(NULL);
    line_close(reader);
    return code;
}

/* Finds out before the first message whether the conversation can be rendered. */
static int chat_try_format(chat_session *chat) {
    static const minim_message nothing = {.role = "user", .content = ""};
    const char *format = chat->settings->format;
    minim_model_info info = {.size = sizeof info};
    minim_error error = {.status = MINIM_OK};
    size_t n;
    minim_status status = minim_chat_tokenize(chat->model, format, &nothing, 1, NULL, 0, &n, &error);
    if (status != MINIM_OK && status != MINIM_ERR_SPACE) return tool_fail_error(&error);
    minim_model_get_info(chat->model, &info);
    chat->raw = !strcmp(format ? format : info.chat_format, "raw");
    return -1;
}

/* An engine with room for two conversations: one that is loaded is complete before the one at hand is forgotten. */
static int chat_new_engine(chat_session *chat) {
    minim_engine_options options;
    minim_memory_plan plan = {.size = sizeof plan};
    minim_error error = {.status = MINIM_OK};
    tool_engine_settings(&chat->settings->tool, &options);
    minim_status status = minim_engine_plan(chat->model, &options, &plan, &error);
    if (!status) options.kv_limit = plan.kv_full > UINT64_MAX / 2 ? 0 : plan.kv_full * 2;
    if (!status) status = minim_engine_new(chat->model, &options, &chat->engine, &error);
    return status ? tool_fail_error(&error) : -1;
}

static int chat_run(const chat_settings *settings) {
    chat_session chat = {.settings = settings};
    minim_model *model = NULL;
    tool_catch_interrupt();
    int code = tool_load_model(&settings->tool, MINIM_LOAD_ALL, &model, &chat.load_seconds);
    chat.model = model;
    if (code < 0) code = chat_try_format(&chat);
    if (code < 0) code = chat_new_engine(&chat);
    if (code < 0) code = chat_with_engine(&chat);
    chat_remove_messages(&chat, 0, chat.n_messages);
    free(chat.messages);
    tool_tokens_free(&chat.prompt);
    tool_bytes_free(&chat.answer);
    tool_free_draft(&chat.draft);
    minim_seq_free(chat.seq);
    minim_engine_free(chat.engine);
    minim_model_free(model);
    return code;
}

int cmd_chat(int argc, char **argv) {
    chat_settings settings = {0};
    option_list arguments = {0};
    tool_settings_default(&settings.tool);
    const option_table tables[] = {
        {"conversation", chat_options, &settings},
        {"model", tool_model_options, &settings.tool},
        {"generation", tool_sampling_options, &settings.tool},
        {"speculation", tool_speculation_options, &settings.speculation},
        {"engine", tool_engine_options, &settings.tool},
        {0},
    };
    int code = options_parse(&chat_usage, tables, argc, argv, &arguments);
    if (code < 0) code = tool_check_settings("chat", &settings.tool);
    if (code < 0) code = tool_check_speculation("chat", &settings.speculation);
    if (code < 0) code = tool_check_format("chat", settings.format);
    if (code < 0) code = chat_run(&settings);
    option_list_free(&arguments);
    option_list_free(&settings.tool.stop);
    return code;
}
