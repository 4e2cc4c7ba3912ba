/* bench_text.c: see bench_text.h.
 *
 * Models with random weights have the speed of real ones, but do not quote. So the tokens of the answer are given
 * (minim_generate_options.forced): guesses are right or wrong as they would be for a model that gives this answer. */
#include "bench_text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

typedef struct bench_text {
    const char *name;
    tool_tokens prompt, answer;
} bench_text;

typedef struct bench_text_runner {
    const bench_text_settings *settings;
    const minim_model *vocabulary; /* whose tokenizer is used */
    minim_engine *engine;
    minim_seq *seq;
    tool_draft draft;
    int n_vocab, rounds;
    double *plain, *guessed, *ratio; /* [rounds]: tokens a second, and the second by the first of the same round */
} bench_text_runner;

static int bench_text_read(const bench_text_runner *r, const char *path, tool_tokens *tokens) {
    tool_bytes text = {0};
    int code = tool_read_file(path, &text);
    if (code < 0) code = tool_tokenize(r->vocabulary, text.data, text.n, 0, tokens);
    tool_bytes_free(&text);
    for (size_t i = 0; code < 0 && i < tokens->n; i++) {
        if (tokens->ids[i] >= r->n_vocab)
            code = tool_fail("%s: token %d is none of the model's %d", path, (int)tokens->ids[i], r->n_vocab);
    }
    return code;
}

static int bench_text_random(const bench_text_runner *r, bench_text *text) {
    enum { PROMPT = 256 };
    uint64_t state = 1;
    for (int i = 0; i < PROMPT + r->settings->n_random; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        if (tool_tokens_append(i < PROMPT ? &text->prompt : &text->answer,
                               (int32_t)((state >> 33) % (uint64_t)r->n_vocab)))
            return EXIT_CODE_FAILED;
    }
    return -1;
}

/* Says n tokens of the answer. The sequence already holds the prompt but for its last token. */
static int bench_text_say(bench_text_runner *r, const bench_text *text, size_t n, int with_guesses,
                          minim_result *result) {
    minim_generate_options options;
    minim_error error = {.status = MINIM_OK};
    minim_generate_options_default(&options);
    options.n_lookup = 0;
    if (with_guesses) {
        options.n_lookup = 16;
        tool_speculation_settings(&r->settings->speculation, &r->draft, &options);
        if (r->draft.seq) minim_seq_truncate(r->draft.seq, 0);
    }
    options.forced = text->answer.ids;
    options.n_forced = text->answer.n;
    options.max_tokens = (int)n;
    options.ignore_end = 1;
    minim_seq_truncate(r->seq, text->prompt.n - 1);
    *result = (minim_result){.size = sizeof *result};
    tool_interrupt_target(r->seq);
    const minim_status status =
        minim_generate(r->seq, text->prompt.ids + text->prompt.n - 1, 1, &options, result, &error);
    tool_interrupt_target(NULL);
    if (tool_interrupted()) return EXIT_CODE_INTERRUPTED;
    return status == MINIM_OK ? -1 : tool_fail_error(&error);
}

static int bench_text_prefill(bench_text_runner *r, const bench_text *text) {
    const size_t n = text->prompt.n - 1;
    minim_error error = {.status = MINIM_OK};
    minim_row *rows = calloc(n ? n : 1, sizeof *rows);
    if (!rows) return tool_fail("out of memory");
    minim_seq_truncate(r->seq, 0);
    for (size_t i = 0; i < n; i++) rows[i] = (minim_row){r->seq, text->prompt.ids[i], 0};
    const minim_status status = minim_engine_step(r->engine, rows, n, NULL, &error);
    free(rows);
    return status == MINIM_OK ? -1 : tool_fail_error(&error);
}

static int bench_text_run(bench_text_runner *r, const bench_text *text) {
    minim_result result[2];
    if (text->answer.n < 2) return tool_fail("%s: expected a text of 2 tokens or more", text->name);
    int code = bench_text_prefill(r, text);
    if (code < 0) code = bench_text_say(r, text, 2, 0, &result[0]); /* a warm-up */
    for (int round = 0; round < r->rounds && code < 0; round++) {
        for (int i = 0; i < 2 && code < 0; i++) {
            const int with = (i + round) % 2;
            code = bench_text_say(r, text, text->answer.n, with, &result[with]);
        }
        if (code >= 0) break;
        r->plain[round] = tool_result_rates(&result[0]).decode;
        r->guessed[round] = tool_result_rates(&result[1]).decode;
        r->ratio[round] = r->plain[round] > 0 ? r->guessed[round] / r->plain[round] : 0;
    }
    if (code >= 0) return code;
    const size_t n = (size_t)r->rounds;
    const double plain = bench_summarize(r->plain, n).median, guessed = bench_summarize(r->guessed, n).median;
    const double ratio = bench_summarize(r->ratio, n).median; /* sorted now */
    printf("| %s | %zu | %zu | %.1f | %.1f | %.2f (%.2f to %.2f) | %zu | %zu | %.2f |\n", text->name, text->prompt.n,
           text->answer.n, plain, guessed, ratio, r->ratio[0], r->ratio[n - 1], result[1].n_drafted,
           result[1].n_accepted, (double)(text->answer.n - 1) / (double)result[1].n_steps);
    return tool_flush() ? EXIT_CODE_OK : -1;
}

/* Reads or makes the i-th text: the files, then the random one. */
static int bench_text_load(const bench_text_runner *r, size_t i, bench_text *text) {
    const bench_text_settings *s = r->settings;
    if (i == s->texts.n) {
        text->name = "random tokens";
        return bench_text_random(r, text);
    }
    const char *path = s->texts.items[i], *name = strrchr(path, '/');
    text->name = name ? name + 1 : path;
    int code = bench_text_read(r, path, &text->answer);
    if (code < 0 && i < s->prompts.n) code = bench_text_read(r, s->prompts.items[i], &text->prompt);
    if (code < 0 && !text->prompt.n && tool_tokens_append(&text->prompt, 0)) code = EXIT_CODE_FAILED;
    return code;
}

static int bench_text_with_engine(bench_text_runner *r, const bench_text *texts, size_t n, int n_ctx,
                                  const minim_model *model, const tool_settings *tool) {
    tool_settings mine = *tool;
    minim_error error = {.status = MINIM_OK};
    mine.n_ctx = n_ctx;
    int code = tool_new_engine(&mine, model, &r->engine);
    if (code < 0 && minim_seq_new(r->engine, &r->seq, &error) != MINIM_OK) code = tool_fail_error(&error);
    if (code < 0) minim_engine_prepare(r->engine);
    if (code < 0) code = tool_new_draft(&r->settings->speculation, &mine, n_ctx, &r->draft);
    if (code >= 0) return code;
    puts("| text | prompt | answer | plain t/s | guessing t/s | times | guessed | right | tokens a step |\n"
         "| ---- | -----: | -----: | --------: | -----------: | ----: | ------: | ----: | ------------: |");
    for (size_t i = 0; i < n && code < 0; i++) code = bench_text_run(r, &texts[i]);
    return code < 0 ? EXIT_CODE_OK : code;
}

static int bench_text_with_model(bench_text_runner *r, const minim_model *model, const tool_settings *tool) {
    const size_t n = r->settings->texts.n + (r->settings->n_random > 0);
    minim_model_info info = {.size = sizeof info};
    bench_text *texts = calloc(n, sizeof *texts);
    if (!texts) return tool_fail("out of memory");
    minim_model_get_info(model, &info);
    r->n_vocab = info.n_vocab;
    if (!r->vocabulary) r->vocabulary = model;
    size_t longest = 0;
    int code = -1;
    for (size_t i = 0; i < n && code < 0; i++) {
        code = bench_text_load(r, i, &texts[i]);
        const size_t length = texts[i].prompt.n + texts[i].answer.n;
        if (length > longest) longest = length;
    }
    if (code < 0 && longest > INT_MAX) code = tool_fail("the texts are too long");
    if (code < 0) code = bench_text_with_engine(r, texts, n, (int)longest, model, tool);
    for (size_t i = 0; i < n; i++) {
        tool_tokens_free(&texts[i].prompt);
        tool_tokens_free(&texts[i].answer);
    }
    free(texts);
    return code;
}

int bench_texts(const bench_text_settings *settings, const tool_settings *tool, int rounds) {
    bench_text_runner r = {.settings = settings, .rounds = rounds};
    minim_model *model = NULL, *vocabulary = NULL;
    const tool_settings other = {.model = settings->vocabulary};
    if (settings->prompts.n > settings->texts.n)
        return options_complain("bench", "--text-prompt is given more often than --text");
    tool_catch_interrupt();
    r.plain = calloc((size_t)rounds, sizeof *r.plain);
    r.guessed = calloc((size_t)rounds, sizeof *r.guessed);
    r.ratio = calloc((size_t)rounds, sizeof *r.ratio);
    int code = r.plain && r.guessed && r.ratio ? -1 : tool_fail("out of memory");
    if (code < 0) code = tool_load_model(tool, MINIM_LOAD_ALL, &model, NULL);
    if (code < 0 && other.model) code = tool_load_model(&other, MINIM_LOAD_VOCAB, &vocabulary, NULL);
    r.vocabulary = vocabulary;
    if (code < 0) code = bench_text_with_model(&r, model, tool);
    tool_free_draft(&r.draft);
    minim_seq_free(r.seq);
    minim_engine_free(r.engine);
    minim_model_free(vocabulary);
    minim_model_free(model);
    free(r.plain);
    free(r.guessed);
    free(r.ratio);
    return code;
}
