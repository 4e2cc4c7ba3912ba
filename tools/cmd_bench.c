/* cmd_bench.c: `minim bench`: how fast a model runs, from end to end. The options are those of llama-bench.
 *
 * A test is: bring a sequence to a depth, then measure the processing of a prompt (pp), of single tokens (tg), or of
 * both. The tokens are random, which costs the same as any others; text and sampling are not part of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "bench_text.h"
#include "commands.h"
#include "common.h"
#include "machine.h"

typedef struct bench_settings {
    option_list model, n_prompt, n_gen, pair, depth, parallel, threads, batch, ubatch, isa, kv, type_k, type_v;
    const char *output, *output_err;
    int repetitions, delay, no_warmup, progress, verbose;
    bench_text_settings text;
} bench_settings;

#define BENCH(field)  offsetof(bench_settings, field)
#define BENCH_FORMATS "md|csv|json|jsonl|sql"

static const option bench_test_options[] = {
    {"-m, --model", "FILE", OPTION_LIST, BENCH(model), 0, 0, "a GGUF file (default: the built-in model)"},
    {"-p, --n-prompt", "N", OPTION_LIST, BENCH(n_prompt), 0, 0, "prompt tokens (default 512; 0 = no such test)"},
    {"-n, --n-gen", "N", OPTION_LIST, BENCH(n_gen), 0, 0, "tokens to generate (default 128; 0 = no such test)"},
    {"-pg", "PP,TG", OPTION_LIST, BENCH(pair), 0, 0, "a prompt and then tokens to generate, as one test"},
    {"-d, --n-depth", "N", OPTION_LIST, BENCH(depth), 0, 0, "tokens in the KV cache before (default 0)"},
    {"-npl, --parallel", "N", OPTION_LIST, BENCH(parallel), 0, 0,
     "sequences that run together, each with its own\nprompt and depth (default 1); speeds are of all"},
    {"-b, --batch-size", "N", OPTION_LIST, BENCH(batch), 0, 0, "prompt tokens handed over together (default 2048)"},
    {"-ub, --ubatch-size", "N", OPTION_LIST, BENCH(ubatch), 0, 0, "prompt tokens computed together (default 512)"},
    {"-t, --threads", "N", OPTION_LIST, BENCH(threads), 0, 0,
     "threads (default 0: as many as the CPUs\nthis process may use)"},
    {"--isa", "NAME", OPTION_LIST, BENCH(isa), 0, 0,
     "highest instruction set: ref, avx2,\navx512vnni ... (default: MINIM_ISA, else the best)"},
    {"--kv", "f16|f32|q8_0|q8q4|q4_0", OPTION_LIST, BENCH(kv), 0, 0, "type of the KV cache (default f16)"},
    {"-ctk, --cache-type-k", "TYPE", OPTION_LIST, BENCH(type_k), 0, 0, "the same for keys and for values, of equal"},
    {"-ctv, --cache-type-v", "TYPE", OPTION_LIST, BENCH(type_v), 0, 0, "types; or q8_0 and q4_0, which are q8q4"},
    {0},
};

static const option bench_run_options[] = {
    {"-r, --repetitions", "N", OPTION_INT, BENCH(repetitions), 1, 100000, "runs of each test (default 5)"},
    {"--delay", "SECONDS", OPTION_INT, BENCH(delay), 0, 86400, "pause before each test (default 0)"},
    {"--no-warmup", NULL, OPTION_FLAG, BENCH(no_warmup), 0, 0, "no run before the measured ones"},
    {"-o, --output", BENCH_FORMATS, OPTION_CHOICE, BENCH(output), 0, 0, "format on standard output (default md)"},
    {"-oe, --output-err", BENCH_FORMATS, OPTION_CHOICE, BENCH(output_err), 0, 0, "also print this format to stderr"},
    {"--progress", NULL, OPTION_FLAG, BENCH(progress), 0, 0, "say on stderr what is running"},
    {"-v, --verbose", NULL, OPTION_FLAG, BENCH(verbose), 0, 0, "say what the engine does"},
    {0},
};

static const option bench_text_options[] = {
    {"--text", "FILE", OPTION_LIST, BENCH(text.texts), 0, 0,
     "instead of the tests: speed of an answer with these\nwords, with and without speculation, in turn"},
    {"--text-prompt", "FILE", OPTION_LIST, BENCH(text.prompts), 0, 0,
     "what stands before it (the i-th before the i-th)"},
    {"--text-random", "N", OPTION_INT, BENCH(text.n_random), 2, 1 << 20, "an answer of N random tokens, too"},
    {"--text-vocab", "FILE", OPTION_STRING, BENCH(text.vocabulary), 0, 0,
     "tokens of another file: those of `minim synth`\nare made-up words"},
    {0},
};

static const option_usage bench_usage = {
    .command = "bench",
    .synopsis = "bench [OPTIONS]",
    .about = "Measures prompt processing (pp) and text generation (tg) in tokens per second.",
    .epilogue =
        "Every test option takes a list: \"-p 128,512\", the option several times, or for numbers a range: \"1-8\",\n"
        "\"1-8+2\", \"1-8*2\". All combinations are run. Markdown shows average and standard deviation; JSON has all\n"
        "samples, the median, the GB/s of weights that generation reads, and the GOPS of the matrices in a prompt.",
    .max_arguments = 0,
};

/* ---- what is to be run ------------------------------------------------------------------------------------------- */

/* The lists of the command line, as values. */
typedef struct bench_plan {
    const bench_settings *settings;
    bench_ints n_prompt, n_gen, depth, parallel, threads, batch, ubatch;
    bench_ints pairs;     /* prompt, generated, prompt, generated ... */
    bench_ints kv;        /* minim_kv_type */
    option_list isa;      /* items are NULL for the default; the array is the plan's */
    char *isa_text;       /* what they point into */
    size_t n_tests, done; /* of all models */
} bench_plan;

static void bench_plan_free(bench_plan *plan) {
    bench_ints *lists[] = {&plan->n_prompt, &plan->n_gen,  &plan->depth, &plan->parallel, &plan->threads,
                           &plan->batch,    &plan->ubatch, &plan->pairs, &plan->kv};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) free(lists[i]->items);
    option_list_free(&plan->isa);
    free(plan->isa_text);
}

/* Reads one list option; `fallback` when it was not given. Returns -1 or an exit code. */
static int bench_read_ints(const char *name, const option_list *texts, const char *fallback, int min, int max,
                           bench_ints *list) {
    for (size_t i = 0; i < (texts->n ? texts->n : 1); i++) {
        const char *text = texts->n ? texts->items[i] : fallback;
        int status = bench_parse_ints(text, min, max, list);
        if (status == -2) return tool_fail("%s: the list is too long", name);
        if (status) {
            return options_complain("bench",
                                    "%s: expected numbers from %d to %d, like 1,2,4 or 1-8 or 1-8*2, found \"%s\"",
                                    name, min, max, text);
        }
    }
    return -1;
}

enum { BENCH_TOKENS_MAX = 1 << 24 };

static int bench_read_pairs(const option_list *texts, bench_ints *pairs) {
    for (size_t i = 0; i < texts->n; i++) {
        size_t before = pairs->n;
        int status = bench_parse_ints(texts->items[i], 0, BENCH_TOKENS_MAX, pairs);
        if (status == -2) return tool_fail("-pg: the list is too long");
        if (status || pairs->n != before + 2 || strcspn(texts->items[i], "-+*") != strlen(texts->items[i]))
            return options_complain("bench", "-pg: expected two numbers like 512,128, found \"%s\"", texts->items[i]);
    }
    return -1;
}

/* The names of llama-bench, and one for Q8 keys with Q4 values; "q8" and "q4" are short. */
static const char *const bench_kv_names[] = {[MINIM_KV_F16] = "f16",
                                             [MINIM_KV_F32] = "f32",
                                             [MINIM_KV_Q8] = "q8_0",
                                             [MINIM_KV_Q4] = "q4_0",
                                             [MINIM_KV_Q8_Q4] = "q8q4"};

enum { BENCH_KV_TYPES = sizeof bench_kv_names / sizeof *bench_kv_names };

static int bench_kv_type(const char *text, size_t n) {
    int type = 0;
    if (n == 2 && !strncmp(text, "q8", n)) return MINIM_KV_Q8;
    if (n == 2 && !strncmp(text, "q4", n)) return MINIM_KV_Q4;
    while (type < BENCH_KV_TYPES && (strlen(bench_kv_names[type]) != n || strncmp(bench_kv_names[type], text, n) != 0))
        type++;
    return type < BENCH_KV_TYPES ? type : -1;
}

/* Appends the words of "f16,q8_0". Returns -1 or an exit code. */
static int bench_read_kv(const char *name, const option_list *texts, bench_ints *list) {
    for (size_t i = 0; i < texts->n; i++) {
        const char *text = texts->items[i];
        for (;; text++) {
            size_t n = strcspn(text, ",");
            int value = bench_kv_type(text, n), *items;
            if (value < 0)
                return options_complain("bench", "%s: expected f16, f32, q8_0, q8q4 or q4_0, found \"%s\"", name, text);
            items = realloc(list->items, (list->n + 1) * sizeof *items);
            if (!items) return tool_fail("out of memory");
            list->items = items;
            list->items[list->n++] = value;
            text += n;
            if (!*text) break;
        }
    }
    return -1;
}

/* What minim calls keys and values of these types; -1 if it has no such cache. */
static int bench_kv_of(int keys, int values) {
    if (keys == MINIM_KV_Q8 && values == MINIM_KV_Q4) return MINIM_KV_Q8_Q4;
    return keys == values ? keys : -1;
}

/* --kv, or -ctk and -ctv. */
static int bench_plan_kv(const bench_settings *settings, bench_ints *kv) {
    bench_ints k = {0}, v = {0};
    int code = bench_read_kv("--kv", &settings->kv, kv);
    if (code < 0) code = bench_read_kv("-ctk", &settings->type_k, &k);
    if (code < 0) code = bench_read_kv("-ctv", &settings->type_v, &v);
    int fits = !k.n || !v.n || k.n == v.n;
    for (size_t i = 0; fits && i < k.n && i < v.n; i++) fits = (k.items[i] = bench_kv_of(k.items[i], v.items[i])) >= 0;
    if (code < 0 && !fits)
        code = options_complain("bench", "-ctk and -ctv: expected equal types, or q8_0 and q4_0, found others");
    if (code < 0 && kv->n && (k.n || v.n))
        code = options_complain("bench", "--kv says the same as -ctk and -ctv: give one");
    bench_ints *given = k.n ? &k : &v;
    if (code < 0 && given->n) {
        *kv = *given;
        *given = (bench_ints){0};
    }
    free(k.items);
    free(v.items);
    if (code < 0 && !kv->n) {
        const char *fallback = "f16";
        code = bench_read_kv("--kv", &(option_list){&fallback, 1}, kv);
    }
    return code;
}

/* The words of "--isa a,b --isa c". */
static int bench_plan_isa(const option_list *texts, bench_plan *plan) {
    size_t bytes = 1, at = 0;
    for (size_t i = 0; i < texts->n; i++) bytes += strlen(texts->items[i]) + 1;
    plan->isa_text = calloc(bytes, 1);
    plan->isa.items = calloc(bytes, sizeof *plan->isa.items); /* there are fewer words than bytes */
    if (!plan->isa_text || !plan->isa.items) return tool_fail("out of memory");
    for (size_t i = 0; i < texts->n; i++) {
        const char *text = texts->items[i];
        for (size_t n; *text; text += n + (text[n] == ',')) {
            n = strcspn(text, ",");
            if (!n) continue;
            plan->isa.items[plan->isa.n++] = memcpy(plan->isa_text + at, text, n);
            at += n + 1;
        }
        if (!plan->isa.n) return options_complain("bench", "--isa: expected a name");
    }
    if (!texts->n) plan->isa.n = 1; /* NULL: the default */
    return -1;
}

static size_t bench_count_nonzero(const bench_ints *list) {
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++) n += list->items[i] != 0;
    return n;
}

/* Returns -1 or an exit code. */
static int bench_make_plan(const bench_settings *settings, bench_plan *plan) {
    const int tokens = BENCH_TOKENS_MAX;
    plan->settings = settings;
    int code = bench_read_ints("-p", &settings->n_prompt, "512", 0, tokens, &plan->n_prompt);
    if (code < 0) code = bench_read_ints("-n", &settings->n_gen, "128", 0, tokens, &plan->n_gen);
    if (code < 0) code = bench_read_ints("-d", &settings->depth, "0", 0, tokens, &plan->depth);
    if (code < 0) code = bench_read_ints("-npl", &settings->parallel, "1", 1, 1024, &plan->parallel);
    if (code < 0) code = bench_read_ints("-t", &settings->threads, "0", 0, 256, &plan->threads);
    if (code < 0) code = bench_read_ints("-b", &settings->batch, "2048", 1, 1 << 20, &plan->batch);
    if (code < 0) code = bench_read_ints("-ub", &settings->ubatch, "512", 1, 1 << 20, &plan->ubatch);
    if (code < 0) code = bench_read_pairs(&settings->pair, &plan->pairs);
    if (code < 0) code = bench_plan_kv(settings, &plan->kv);
    if (code < 0) code = bench_plan_isa(&settings->isa, plan);
    if (code >= 0) return code;
    size_t per_depth = bench_count_nonzero(&plan->n_prompt) + bench_count_nonzero(&plan->n_gen);
    for (size_t i = 0; i < plan->pairs.n; i += 2) per_depth += plan->pairs.items[i] || plan->pairs.items[i + 1];
    if (!per_depth) return options_complain("bench", "there is nothing to run: -p, -n and -pg are all 0");
    plan->n_tests = per_depth * plan->depth.n * plan->parallel.n * plan->threads.n * plan->batch.n * plan->ubatch.n *
                    plan->kv.n * plan->isa.n * (settings->model.n ? settings->model.n : 1);
    return -1;
}

static int bench_largest(const bench_ints *list) {
    int largest = list->n ? list->items[0] : 0;
    for (size_t i = 1; i < list->n; i++) largest = list->items[i] > largest ? list->items[i] : largest;
    return largest;
}

/* Tokens of the longest sequence. */
static int bench_longest(const bench_plan *plan) {
    int longest = 1, depth = 0;
    for (size_t i = 0; i < plan->depth.n; i++) depth = plan->depth.items[i] > depth ? plan->depth.items[i] : depth;
    for (size_t i = 0; i < plan->n_prompt.n; i++)
        longest = plan->n_prompt.items[i] > longest ? plan->n_prompt.items[i] : longest;
    for (size_t i = 0; i < plan->n_gen.n; i++)
        longest = plan->n_gen.items[i] > longest ? plan->n_gen.items[i] : longest;
    for (size_t i = 0; i < plan->pairs.n; i += 2) {
        int both = plan->pairs.items[i] + plan->pairs.items[i + 1];
        longest = both > longest ? both : longest;
    }
    return depth + longest;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

/* An engine and its sequences; the tests of the same settings share them, and what is cached up to a depth. */
typedef struct bench_runner {
    bench_plan *plan;
    bench_printer *printers; /* [2] */
    const minim_model *model;
    minim_engine *engine;
    minim_seq **seqs; /* [n_seqs], of which a test uses n_parallel */
    int n_seqs, n_parallel;
    minim_row *rows; /* [chunk or n_seqs] */
    float *logits;   /* [n_seqs][n_vocab] */
    int chunk;       /* prompt tokens of one call */
    int n_vocab;
    uint64_t random;
} bench_runner;

static int32_t bench_token(bench_runner *r) {
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((r->random >> 33) % (uint64_t)r->n_vocab);
}

static int bench_step(bench_runner *r, int n_rows) {
    minim_error error = {.status = MINIM_OK};
    if (minim_engine_step(r->engine, r->rows, (size_t)n_rows, r->logits, &error) != MINIM_OK)
        return tool_fail_error(&error);
    return tool_interrupted() ? EXIT_CODE_INTERRUPTED : -1;
}

/* n tokens of a prompt for one sequence. Returns -1 or an exit code. */
static int bench_prompt(bench_runner *r, minim_seq *seq, int n) {
    int code = -1;
    for (int done = 0; done < n && code < 0; done += r->chunk) {
        int rows = n - done < r->chunk ? n - done : r->chunk;
        for (int i = 0; i < rows; i++) r->rows[i] = (minim_row){seq, bench_token(r), 0};
        r->rows[rows - 1].want_logits = done + rows == n;
        code = bench_step(r, rows);
    }
    return code;
}

/* n steps of a token for every sequence. */
static int bench_generate(bench_runner *r, int n) {
    int code = -1;
    for (int done = 0; done < n && code < 0; done++) {
        for (int i = 0; i < r->n_parallel; i++) r->rows[i] = (minim_row){r->seqs[i], bench_token(r), 1};
        code = bench_step(r, r->n_parallel);
    }
    return code;
}

static int bench_run_once(bench_runner *r, int n_prompt, int n_gen) {
    int code = -1;
    for (int i = 0; n_prompt && i < r->n_parallel && code < 0; i++) code = bench_prompt(r, r->seqs[i], n_prompt);
    return code < 0 && n_gen ? bench_generate(r, n_gen) : code;
}

/* Brings the sequences to `depth` tokens: what is cached of a test before serves as well. */
static int bench_set_depth(bench_runner *r, int depth) {
    int code = -1;
    for (int i = 0; i < r->n_seqs && code < 0; i++) {
        size_t length = minim_seq_length(r->seqs[i]), wanted = i < r->n_parallel ? (size_t)depth : 0;
        if (length < wanted) code = bench_prompt(r, r->seqs[i], depth - (int)length);
        if (code < 0) minim_seq_truncate(r->seqs[i], wanted);
    }
    return code;
}

static void bench_say(const bench_runner *r, const char *format, int a, int b) {
    if (!r->plan->settings->progress) return;
    fprintf(stderr, "minim bench: test %zu/%zu: ", r->plan->done + 1, r->plan->n_tests);
    fprintf(stderr, format, a, b);
    putc('\n', stderr);
}

static int bench_pause(const bench_settings *settings) {
    for (int i = 0; i < settings->delay && !tool_interrupted(); i++) {
        struct timespec second = {.tv_sec = 1};
        nanosleep(&second, NULL);
    }
    return tool_interrupted() ? EXIT_CODE_INTERRUPTED : -1;
}

static int bench_warm_up(bench_runner *r, const bench_test *test) {
    if (r->plan->settings->no_warmup) return -1;
    bench_say(r, "warm-up", 0, 0);
    minim_engine_prepare(r->engine);
    return bench_run_once(r, test->n_prompt, test->n_gen > 0);
}

/* Fills test->samples_ns. */
static int bench_measure(bench_runner *r, bench_test *test) {
    int n = r->plan->settings->repetitions;
    bench_say(r, "pp%d tg%d starts", test->n_prompt, test->n_gen);
    int code = bench_pause(r->plan->settings);
    if (code < 0) code = bench_set_depth(r, test->n_depth);
    if (code < 0) code = bench_warm_up(r, test);
    for (int i = 0; i < n && code < 0; i++) {
        bench_say(r, "run %d/%d", i + 1, n);
        code = bench_set_depth(r, test->n_depth);
        double start = tool_seconds();
        if (code < 0) code = bench_run_once(r, test->n_prompt, test->n_gen);
        if (code < 0) test->samples_ns[test->n_samples++] = (uint64_t)((tool_seconds() - start) * 1e9);
    }
    return code;
}

/* Measures one test and prints it. */
static int bench_test_run(bench_runner *r, const bench_test *pattern, int depth, int n_prompt, int n_gen) {
    bench_test test = *pattern;
    time_t now = time(NULL);
    struct tm utc;
    if (!n_prompt && !n_gen) return -1;
    test.n_depth = depth;
    test.n_parallel = r->n_parallel;
    test.n_prompt = n_prompt;
    test.n_gen = n_gen;
    if (gmtime_r(&now, &utc)) strftime(test.test_time, sizeof test.test_time, "%Y-%m-%dT%H:%M:%SZ", &utc);
    test.samples_ns = calloc((size_t)r->plan->settings->repetitions, sizeof *test.samples_ns);
    int code = test.samples_ns ? bench_measure(r, &test) : tool_fail("out of memory");
    test.peak_memory = machine_peak_memory();
    for (int i = 0; i < 2 && code < 0; i++) {
        if (bench_print_test(&r->printers[i], &test)) code = tool_fail("out of memory");
    }
    free(test.samples_ns);
    r->plan->done++;
    return code < 0 && tool_flush() ? EXIT_CODE_OK : code; /* main() knows about standard output */
}

/* All tests of one depth and number of sequences. */
static int bench_run_group(bench_runner *r, const bench_test *pattern, int depth) {
    const bench_plan *plan = r->plan;
    int code = -1;
    for (size_t i = 0; i < plan->n_prompt.n && code < 0; i++)
        code = bench_test_run(r, pattern, depth, plan->n_prompt.items[i], 0);
    for (size_t i = 0; i < plan->n_gen.n && code < 0; i++)
        code = bench_test_run(r, pattern, depth, 0, plan->n_gen.items[i]);
    for (size_t i = 0; i < plan->pairs.n && code < 0; i += 2)
        code = bench_test_run(r, pattern, depth, plan->pairs.items[i], plan->pairs.items[i + 1]);
    return code;
}

/* All tests of one engine. */
static int bench_run_tests(bench_runner *r, const bench_test *pattern) {
    const bench_plan *plan = r->plan;
    int code = -1;
    for (size_t d = 0; d < plan->depth.n && code < 0; d++) {
        for (size_t p = 0; p < plan->parallel.n && code < 0; p++) {
            r->n_parallel = plan->parallel.items[p];
            code = bench_run_group(r, pattern, plan->depth.items[d]);
        }
    }
    return code;
}

/* One choice out of each list. */
typedef struct bench_choice {
    const char *isa;
    minim_kv_type kv;
    int threads, batch, ubatch;
} bench_choice;

static int bench_with_engine(bench_runner *r, bench_test *test, const bench_choice *choice) {
    minim_engine_options options;
    minim_engine_info info = {.size = sizeof info};
    minim_error error = {.status = MINIM_OK};
    tool_settings tool = {.verbose = r->plan->settings->verbose, .n_threads = choice->threads, .isa = choice->isa};
    tool_engine_settings(&tool, &options);
    options.n_ctx = bench_longest(r->plan);
    options.n_batch = choice->ubatch;
    options.kv_type = choice->kv;
    r->chunk = choice->batch < choice->ubatch ? choice->batch : choice->ubatch;
    r->n_seqs = bench_largest(&r->plan->parallel);
    options.prefix_cache = 0;
    minim_memory_plan memory = {.size = sizeof memory};
    if (r->n_seqs > 1 && minim_engine_plan(r->model, &options, &memory, &error) == MINIM_OK)
        options.kv_limit = memory.kv_full > UINT64_MAX / 1024 ? 0 : memory.kv_full * (uint64_t)r->n_seqs;
    r->rows = calloc((size_t)(r->chunk > r->n_seqs ? r->chunk : r->n_seqs), sizeof *r->rows);
    r->logits = calloc((size_t)r->n_seqs * (size_t)r->n_vocab, sizeof *r->logits);
    r->seqs = calloc((size_t)r->n_seqs, sizeof *r->seqs);
    int code = r->rows && r->logits && r->seqs ? -1 : tool_fail("out of memory");
    if (code < 0 && minim_engine_new(r->model, &options, &r->engine, &error) != MINIM_OK)
        code = tool_fail_error(&error);
    for (int i = 0; i < r->n_seqs && code < 0; i++) {
        if (minim_seq_new(r->engine, &r->seqs[i], &error) != MINIM_OK) code = tool_fail_error(&error);
    }
    if (code < 0) {
        minim_engine_get_info(r->engine, &info);
        test->isa = info.isa;
        test->kv = bench_kv_names[choice->kv];
        test->n_threads = info.n_threads;
        test->n_batch = choice->batch;
        test->n_ubatch = choice->ubatch;
        code = bench_run_tests(r, test);
    }
    for (int i = 0; r->seqs && i < r->n_seqs; i++) minim_seq_free(r->seqs[i]);
    minim_engine_free(r->engine);
    free(r->seqs);
    free(r->logits);
    free(r->rows);
    r->seqs = NULL, r->engine = NULL, r->logits = NULL, r->rows = NULL;
    return code;
}

/* All combinations of what an engine is made with. */
static int bench_with_model(bench_runner *r, bench_test *test) {
    const bench_plan *p = r->plan;
    size_t n = p->isa.n * p->kv.n * p->batch.n * p->ubatch.n * p->threads.n;
    int code = -1;
    for (size_t i = 0; i < n && code < 0; i++) {
        size_t rest = i;
        bench_choice choice;
        choice.threads = p->threads.items[rest % p->threads.n], rest /= p->threads.n;
        choice.ubatch = p->ubatch.items[rest % p->ubatch.n], rest /= p->ubatch.n;
        choice.batch = p->batch.items[rest % p->batch.n], rest /= p->batch.n;
        choice.kv = (minim_kv_type)p->kv.items[rest % p->kv.n], rest /= p->kv.n;
        choice.isa = p->isa.items[rest];
        code = bench_with_engine(r, test, &choice);
    }
    return code;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

/* The weight type that takes most of the bytes. */
static const char *bench_main_type(const minim_model *model) {
    const char *best = "";
    uint64_t most = 0;
    size_t n = minim_model_tensor_count(model);
    for (size_t i = 0; i < n; i++) {
        minim_tensor tensor, other;
        uint64_t bytes = 0;
        minim_model_tensor(model, i, &tensor);
        if (!strcmp(tensor.type, best)) continue;
        for (size_t k = i; k < n; k++) {
            minim_model_tensor(model, k, &other);
            if (!strcmp(other.type, tensor.type)) bytes += other.bytes;
        }
        if (bytes > most) {
            most = bytes;
            best = tensor.type;
        }
    }
    return best;
}

static void bench_describe_model(const minim_model *model, bench_test *test) {
    minim_model_info info = {.size = sizeof info};
    minim_model_get_info(model, &info);
    double n = (double)info.n_params;
    snprintf(test->model_type, sizeof test->model_type, "%.40s %.*f%c %.16s", info.architecture, n < 1e6 ? 0 : 2,
             n / (n < 1e6   ? 1e3
                  : n < 1e9 ? 1e6
                            : 1e9),
             n < 1e6   ? 'K'
             : n < 1e9 ? 'M'
                       : 'B',
             bench_main_type(model));
    test->model_size = info.file_bytes;
    test->model_n_params = info.n_params;
    test->step_bytes = info.step_bytes;
    minim_tensor tensor;
    for (size_t i = 0; minim_model_tensor(model, i, &tensor) == MINIM_OK; i++) {
        if (tensor.n_dims == 2 && !strncmp(tensor.name, "blk.", 4))
            test->token_ops += 2 * tensor.dims[0] * tensor.dims[1];
    }
}

static int bench_model(bench_plan *plan, bench_printer printers[2], const char *file) {
    bench_test test = {.model_filename = file ? file : "built-in model"};
    tool_settings tool = {.model = file, .verbose = plan->settings->verbose};
    minim_model_info info = {.size = sizeof info};
    minim_model *model = NULL;
    double seconds = 0;
    int code = tool_load_model(&tool, MINIM_LOAD_ALL, &model, &seconds);
    if (code < 0) {
        minim_model_get_info(model, &info);
        bench_runner runner = {
            .plan = plan, .printers = printers, .model = model, .n_vocab = info.n_vocab, .random = 1};
        test.load_ns = (uint64_t)(seconds * 1e9);
        bench_describe_model(model, &test);
        code = bench_with_model(&runner, &test);
    }
    minim_model_free(model);
    return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

/* --text: the first value of each list. */
static int bench_command_texts(const bench_settings *settings, const bench_plan *plan) {
    const tool_settings tool = {.model = settings->model.n ? settings->model.items[0] : NULL,
                                .n_threads = plan->threads.items[0],
                                .isa = plan->isa.items[0],
                                .kv = plan->kv.items[0] == MINIM_KV_F32 ? "f32" : "f16",
                                .verbose = settings->verbose};
    return bench_texts(&settings->text, &tool, settings->repetitions);
}

static int bench_command(const bench_settings *settings, bench_plan *plan) {
    int code = bench_make_plan(settings, plan);
    if (code >= 0) return code;
    if (settings->text.texts.n || settings->text.n_random) return bench_command_texts(settings, plan);
    bench_printer printers[2] = {{.file = stdout, .format = bench_format_find(settings->output)},
                                 {.file = stderr, .format = bench_format_find(settings->output_err)}};
    tool_catch_interrupt();
    for (int i = 0; i < 2; i++) {
        printers[i].show_batch = settings->batch.n > 0;
        printers[i].show_ubatch = settings->ubatch.n > 0;
        printers[i].show_kv = settings->kv.n || settings->type_k.n || settings->type_v.n;
        bench_print_header(&printers[i]);
    }
    tool_flush();
    size_t n = settings->model.n ? settings->model.n : 1;
    for (size_t i = 0; i < n && code < 0; i++)
        code = bench_model(plan, printers, settings->model.n ? settings->model.items[i] : NULL);
    for (int i = 0; i < 2; i++) bench_print_footer(&printers[i]); /* also after Ctrl-C: what was measured stays valid */
    return code < 0 ? EXIT_CODE_OK : code;
}

int cmd_bench(int argc, char **argv) {
    bench_settings settings = {.repetitions = 5, .output = "md", .output_err = "none"};
    bench_plan plan = {0};
    option_list arguments = {0};
    const option_table tables[] = {
        {"tests", bench_test_options, &settings},
        {"runs and output", bench_run_options, &settings},
        {"answers instead of tests", bench_text_options, &settings},
        {"their speculation", tool_speculation_options, &settings.text.speculation},
        {0},
    };
    int code = options_parse(&bench_usage, tables, argc, argv, &arguments);
    if (code < 0) code = tool_check_speculation("bench", &settings.text.speculation);
    if (code < 0) code = bench_command(&settings, &plan);
    bench_plan_free(&plan);
    option_list *lists[] = {&settings.model,  &settings.n_prompt, &settings.n_gen,      &settings.pair,
                            &settings.depth,  &settings.parallel, &settings.threads,    &settings.batch,
                            &settings.ubatch, &settings.isa,      &settings.kv,         &settings.type_k,
                            &settings.type_v, &arguments,         &settings.text.texts, &settings.text.prompts};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) option_list_free(lists[i]);
    return code;
}
