/* cmd_tokenize.c: `minim tokenize`: text to token ids and back. Needs only the vocabulary of a file. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "common.h"
#include "json.h"

typedef struct tokenize_settings {
    tool_settings tool;
    const char *file, *ids;
    int decode, special, json, jsonl, speed;
} tokenize_settings;

#define TOKENIZE(field) offsetof(tokenize_settings, field)

static const option tokenize_options[] = {
    {"-f, --file", "FILE", OPTION_STRING, TOKENIZE(file), 0, 0, "read from a file, \"-\" is standard input"},
    {"--special", NULL, OPTION_FLAG, TOKENIZE(special), 0, 0,
     "add BOS and EOS as the vocabulary asks, and\nread and write control tokens such as <s>"},
    {"-d, --decode", NULL, OPTION_FLAG, TOKENIZE(decode), 0, 0, "the other way: the input is ids"},
    {"--ids", "\"N N ...\"", OPTION_STRING, TOKENIZE(ids), 0, 0, "the same, with the ids given here"},
    {"--json", NULL, OPTION_FLAG, TOKENIZE(json), 0, 0, "print one JSON object: text, tokens, pieces"},
    {"--jsonl", NULL, OPTION_FLAG, TOKENIZE(jsonl), 0, 0,
     "the input is one JSON string a line; print\none JSON array of ids a line"},
    {"--speed", NULL, OPTION_FLAG, TOKENIZE(speed), 0, 0, "tokenize for a second, print how fast that is"},
    {0},
};

static const option_usage tokenize_usage = {
    .command = "tokenize",
    .synopsis = "tokenize [OPTIONS] [TEXT]",
    .about = "Turns text into token ids, separated by spaces, or ids back into text.",
    .epilogue =
        "Without TEXT and -f the input is read from standard input. Input is taken byte for byte, a newline at\n"
        "its end too; decoded text is written likewise. Without --special no token is added and text such as\n"
        "<s> is only text.",
    .max_arguments = 1,
};

static unsigned tokenize_flags(const tokenize_settings *settings) {
    return settings->special ? MINIM_ADD_SPECIAL | MINIM_PARSE_SPECIAL : 0;
}

static void tokenize_print_array(const tool_tokens *tokens) {
    putchar('[');
    for (size_t i = 0; i < tokens->n; i++) printf("%s%d", i ? ", " : "", (int)tokens->ids[i]);
    putchar(']');
}

/* ---- one text ---------------------------------------------------------------------------------------------------- */

static void tokenize_print_json(const minim_model *model, const tool_bytes *text, const tool_tokens *tokens) {
    fputs("{\"text\": ", stdout);
    json_write_string(stdout, text->data, text->n);
    fputs(", \"tokens\": ", stdout);
    tokenize_print_array(tokens);
    fputs(", \"pieces\": [", stdout);
    for (size_t i = 0; i < tokens->n; i++) {
        char piece[512];
        size_t n = tool_piece(model, tokens->ids[i], piece, sizeof piece);
        if (i) fputs(", ", stdout);
        json_write_string(stdout, piece, n);
    }
    fputs("]}\n", stdout);
}

/* Tokenizes the text again and again, for a second. Printed is the best round: others may have been disturbed. */
static int tokenize_measure(const tokenize_settings *settings, const minim_model *model, const tool_bytes *text,
                            tool_tokens *tokens) {
    const double begin = tool_seconds();
    double best = 0, now = begin;
    int code = -1, rounds = 0;
    for (; code < 0 && (rounds == 0 || now - begin < 1) && !tool_interrupted(); rounds++) {
        const double before = now;
        code = tool_tokenize(model, text->data, text->n, tokenize_flags(settings), tokens);
        now = tool_seconds();
        if (!best || now - before < best) best = now - before;
    }
    if (code < 0)
        printf("%zu bytes, %zu tokens: %.1f MB/s (the best of %d rounds, one thread)\n", text->n, tokens->n,
               best > 0 ? (double)text->n / best / 1e6 : 0, rounds);
    return code;
}

static int tokenize_encode(const tokenize_settings *settings, const minim_model *model, const tool_bytes *text) {
    tool_tokens tokens = {0};
    int code = tool_tokenize(model, text->data, text->n, tokenize_flags(settings), &tokens);
    if (code < 0 && settings->speed) {
        code = tokenize_measure(settings, model, text, &tokens);
    } else if (code < 0 && settings->json) {
        tokenize_print_json(model, text, &tokens);
    } else if (code < 0) {
        for (size_t i = 0; i < tokens.n; i++) printf("%s%d", i ? " " : "", (int)tokens.ids[i]);
        putchar('\n');
    }
    tool_tokens_free(&tokens);
    return code;
}

/* ---- ids to text ------------------------------------------------------------------------------------------------- */

static int tokenize_decode(const tokenize_settings *settings, const minim_model *model, const char *source,
                           const tool_bytes *input) {
    minim_model_info info = {.size = sizeof info};
    tool_tokens tokens = {0};
    tool_bytes text = {0};
    minim_model_get_info(model, &info);
    int code = tool_parse_ids(source, input->data, input->n, info.n_vocab, &tokens);
    if (code < 0) code = tool_detokenize(model, &tokens, settings->special ? MINIM_PARSE_SPECIAL : 0, &text);
    if (code < 0 && settings->json) {
        tokenize_print_json(model, &text, &tokens);
    } else if (code < 0) {
        if (text.n) fwrite(text.data, 1, text.n, stdout);
        if (isatty(STDOUT_FILENO)) putchar('\n');
    }
    tool_tokens_free(&tokens);
    tool_bytes_free(&text);
    return code;
}

/* ---- a line at a time -------------------------------------------------------------------------------------------- */

static int tokenize_lines(const tokenize_settings *settings, const minim_model *model, FILE *file, const char *name) {
    char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t length;
    tool_tokens tokens = {0};
    int code = -1;
    while (code < 0 && (length = getline(&line, &capacity, file)) >= 0) {
        size_t n = 0;
        const char *wrong = json_read_string(line, (size_t)length, &n);
        number++;
        if (wrong) code = tool_fail("%s: line %zu: expected a JSON string: %s", name, number, wrong);
        if (code < 0) code = tool_tokenize(model, line, n, tokenize_flags(settings), &tokens);
        if (code < 0) {
            errno = 0;
            tokenize_print_array(&tokens);
            putchar('\n');
            if (ferror(stdout)) code = tool_output_failed();
        }
    }
    if (code < 0 && tool_interrupted()) code = EXIT_CODE_INTERRUPTED;
    if (code < 0 && ferror(file)) code = tool_fail("%s: %s", name, strerror(errno));
    free(line);
    tool_tokens_free(&tokens);
    return code;
}

static int tokenize_jsonl(const tokenize_settings *settings, const minim_model *model) {
    if (!settings->file || !strcmp(settings->file, "-")) {
        return tokenize_lines(settings, model, stdin, "standard input");
    }
    FILE *file = fopen(settings->file, "rb");
    if (!file) return tool_fail("%s: %s", settings->file, strerror(errno));
    int code = tokenize_lines(settings, model, file, settings->file);
    fclose(file);
    return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int tokenize_whole(const tokenize_settings *settings, const minim_model *model, const char *text) {
    const char *source = settings->ids ? "--ids" : settings->file ? settings->file : text ? "ids" : "standard input";
    tool_bytes input = {0};
    int code = -1;
    if (text)
        code = tool_bytes_append(&input, text, strlen(text)) ? EXIT_CODE_FAILED : -1;
    else
        code = tool_read_file(settings->file ? settings->file : "-", &input);
    if (code < 0) {
        code = settings->decode || settings->ids ? tokenize_decode(settings, model, source, &input)
                                                 : tokenize_encode(settings, model, &input);
    }
    tool_bytes_free(&input);
    return code;
}

static int tokenize_run(const tokenize_settings *settings, const option_list *arguments) {
    const char *text = settings->ids ? settings->ids : arguments->n ? arguments->items[0] : NULL;
    if ((settings->ids != NULL) + (arguments->n != 0) + (settings->file != NULL) > 1) {
        return options_complain("tokenize", "the input is given more than once (TEXT, -f, --ids)");
    }
    if (settings->speed && (settings->json || settings->jsonl || settings->decode || settings->ids)) {
        return options_complain("tokenize", "--speed takes text and prints only the speed");
    }
    if (settings->jsonl && (text || settings->json || settings->decode)) {
        return options_complain("tokenize",
                                "--jsonl takes lines from standard input or -f, and goes with --special only");
    }
    minim_model *model = NULL;
    tool_catch_interrupt();
    int code = tool_load_model(&settings->tool, MINIM_LOAD_VOCAB, &model, NULL);
    if (code < 0) code = settings->jsonl ? tokenize_jsonl(settings, model) : tokenize_whole(settings, model, text);
    minim_model_free(model);
    return code < 0 ? EXIT_CODE_OK : code;
}

int cmd_tokenize(int argc, char **argv) {
    tokenize_settings settings = {0};
    option_list arguments = {0};
    tool_settings_default(&settings.tool);
    const option_table tables[] = {
        {"input and output", tokenize_options, &settings},
        {"model", tool_model_options, &settings.tool},
        {0},
    };
    int code = options_parse(&tokenize_usage, tables, argc, argv, &arguments);
    if (code < 0) code = tokenize_run(&settings, &arguments);
    option_list_free(&arguments);
    return code;
}
