/* bench-kernels: how far the matrix kernels are from what this machine can do.
 *
 *   bench-kernels [--isa NAME] [--type NAME] [--threads N] [--seconds S] [--json]
 *
 * Two limits are measured in the same run: how fast memory can be read, and how many products the instruction that a
 * kernel lives on can do when it does nothing else. A decode step (n = 1) touches every weight once, so it should reach
 * the first; prefill (n = 128) with weights in cache should come near the second. */
#include "../kernels/kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    BENCH_ROWS = 5632,
    BENCH_COLS = 2048, /* a feed-forward matrix of TinyLlama-1.1B */
    BENCH_TOKENS = 128,
    BENCH_MAX_THREADS = 64
};
static const size_t bench_memory = (size_t)512 << 20; /* more than caches hold */

static double bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- what the machine can do ------------------------------------------------------------------------------------- */

/* A measured piece of work: step() does a little of it and returns how much, in bytes or operations. */
typedef struct bench_work {
    double (*step)(struct bench_work *);
    int64_t thread, n_threads, turn;
    /* what the step works on */
    uint8_t *memory;
    const kern_table *kernels;
    uint32_t type;
    int64_t rows, n;
    kern_act act;
    float *y;
} bench_work;

/* Reads 4 MB of the thread's share of the memory. */
#if defined(__x86_64__)
__attribute__((target("avx2"))) static double bench_read(bench_work *w) {
    const size_t part = (size_t)4 << 20, parts = bench_memory / part, share = parts / (size_t)w->n_threads;
    const uint8_t *p = w->memory + ((size_t)w->thread * share + (size_t)w->turn++ % share) * part;
    __m256i any[4] = {_mm256_setzero_si256()};
    for (size_t i = 0; i < part; i += 128)
        for (size_t k = 0; k < 4; k++)
            any[k] = _mm256_or_si256(any[k], _mm256_loadu_si256((const void *)(p + i + 32 * k)));
    any[0] = _mm256_or_si256(_mm256_or_si256(any[0], any[1]), _mm256_or_si256(any[2], any[3]));
    __asm__ volatile("" : : "x"(any[0])); /* the reads are needed */
    return (double)part;
}

/* Twelve independent chains of one instruction hide its latency on any x86 so far. */
#define BENCH_CHAINS(instruction, wide)                                                                                \
    __asm__ volatile("1:\n .irp r,0,1,2,3,4,5,6,7,8,9,10,11\n " instruction " %%" wide "15,%%" wide "14,%%" wide       \
                     "\\r\n .endr\n dec %0\n jnz 1b"                                                                   \
                     : "+r"(count)                                                                                     \
                     :                                                                                                 \
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",  \
                       "xmm11", "xmm14", "xmm15")

static double bench_vpdpbusd(bench_work *w) {
    long count = 100000;
    (void)w;
    __asm__ volatile("vpxor %%xmm14,%%xmm14,%%xmm14\n vpxor %%xmm15,%%xmm15,%%xmm15" : : : "xmm14", "xmm15");
    BENCH_CHAINS("vpdpbusd", "zmm");
    return 100000.0 * 12 * 16 * 8; /* 16 lanes of 4 multiplications and 4 additions */
}

static double bench_vpmaddubsw(bench_work *w) {
    long count = 100000;
    (void)w;
    __asm__ volatile("vpxor %%xmm14,%%xmm14,%%xmm14\n vpxor %%xmm15,%%xmm15,%%xmm15" : : : "xmm14", "xmm15");
    BENCH_CHAINS("vpmaddubsw", "ymm");
    return 100000.0 * 12 * 16 * 4;
}

/* The products of zeros start from whatever the chains hold: clear them, or subnormals would be slow. */
static double bench_fma(bench_work *w, int wide) {
    long count = 100000;
    (void)w;
    __asm__ volatile("vzeroall"
                     :
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                       "xmm12", "xmm13", "xmm14", "xmm15");
    if (wide)
        BENCH_CHAINS("vfmadd231ps", "zmm");
    else
        BENCH_CHAINS("vfmadd231ps", "ymm");
    return 100000.0 * 12 * (wide ? 16 : 8) * 2;
}
static double bench_fma_zmm(bench_work *w) {
    return bench_fma(w, 1);
}
static double bench_fma_ymm(bench_work *w) {
    return bench_fma(w, 0);
}
#else
static double bench_read(bench_work *w) {
    const size_t part = (size_t)4 << 20, parts = bench_memory / part, share = parts / (size_t)w->n_threads;
    const uint8_t *p = w->memory + ((size_t)w->thread * share + (size_t)w->turn++ % share) * part;
    uint64_t any = 0, v;
    for (size_t i = 0; i < part; i += sizeof v) {
        memcpy(&v, p + i, sizeof v);
        any |= v;
    }
    __asm__ volatile("" : : "r"(any));
    return (double)part;
}
#endif

/* The instruction a kernel lives on; NULL where no limit is known. */
static double (*bench_limit(const char *isa, int integer, const char **name))(bench_work *) {
    *name = "";
#if defined(__x86_64__)
    if (!strcmp(isa, "avx512vnni")) {
        *name = integer ? "vpdpbusd zmm" : "vfmadd231ps zmm";
        return integer ? bench_vpdpbusd : bench_fma_zmm;
    }
    if (!strcmp(isa, "avx2")) {
        *name = integer ? "vpmaddubsw ymm" : "vfmadd231ps ymm";
        return integer ? bench_vpmaddubsw : bench_fma_ymm;
    }
#endif
    (void)isa, (void)integer;
    return NULL;
}

/* ---- the kernels ------------------------------------------------------------------------------------------------- */

static size_t bench_matrix_bytes(uint32_t type, int64_t rows) {
    return kern_panel_bytes(type, BENCH_COLS) * (size_t)(rows / KERN_PANEL);
}

/* Decode: the thread's rows of one matrix after another. */
static double bench_decode(bench_work *w) {
    const size_t bytes = bench_matrix_bytes(w->type, w->rows), copies = bench_memory / bytes;
    const int64_t panels = w->rows / KERN_PANEL, first = panels * w->thread / w->n_threads,
                  last = panels * (w->thread + 1) / w->n_threads;
    const size_t panel = kern_panel_bytes(w->type, BENCH_COLS);
    const uint8_t *p = w->memory + bytes * ((size_t)w->turn++ % copies) + panel * (size_t)first;
    w->kernels->matmul[w->type](p, (last - first) * KERN_PANEL, BENCH_COLS, &w->act, 1, w->y, BENCH_ROWS);
    return (double)(panel * (size_t)(last - first));
}

/* Prefill: each thread has a matrix of its own that stays in its cache. */
static double bench_prefill(bench_work *w) {
    const uint8_t *p = w->memory + bench_matrix_bytes(w->type, w->rows) * (size_t)w->thread;
    w->kernels->matmul[w->type](p, w->rows, BENCH_COLS, &w->act, w->n, w->y, w->rows);
    return 2.0 * (double)w->rows * BENCH_COLS * (double)w->n;
}

typedef struct bench_worker {
    pthread_t id;
    bench_work work;
    double seconds, rate;
} bench_worker;

static void *bench_worker_run(void *argument) {
    bench_worker *b = argument;
    double start = bench_now(), done = 0, at;
    do {
        done += b->work.step(&b->work);
        at = bench_now();
    } while (at < start + b->seconds);
    b->rate = done / (at - start);
    return NULL;
}

/* All threads together; 0 if they cannot be started. */
static double bench_rate(const bench_work *work, double (*step)(bench_work *), int n_threads, double seconds) {
    static bench_worker workers[BENCH_MAX_THREADS];
    double rate = 0;
    int started = 0;
    for (int t = 0; t < n_threads; t++, started++) {
        bench_worker *b = &workers[t];
        *b = (bench_worker){.work = *work, .seconds = seconds};
        b->work.step = step;
        b->work.thread = t;
        b->work.n_threads = n_threads;
        b->work.y += (size_t)t * BENCH_ROWS * BENCH_TOKENS;
        if (pthread_create(&b->id, NULL, bench_worker_run, b)) break;
    }
    for (int t = 0; t < started; t++) {
        pthread_join(workers[t].id, NULL);
        rate += workers[t].rate;
    }
    return started == n_threads ? rate : 0;
}

/* Weights of the type that are not slow for a reason of their own (subnormals): every scale is 0.01, every float lies
 * near 0.01. */
static void bench_fill(uint32_t type, uint8_t *memory) {
    const size_t panel = kern_panel_bytes(type, BENCH_COLS), elements = (size_t)BENCH_COLS * KERN_PANEL;
    const uint16_t scale = 0x211f, bfloat = 0x3c24;
    const float value = 0.01f;
    for (size_t i = 0; i < panel; i++) memory[i] = (uint8_t)(i * 2654435761u >> 13);
    if (type == KERN_F32)
        for (size_t i = 0; i < elements; i++) memcpy(memory + 4 * i, &value, 4);
    else if (type == KERN_F16 || type == KERN_BF16)
        for (size_t i = 0; i < elements; i++) memcpy(memory + 2 * i, type == KERN_F16 ? &scale : &bfloat, 2);
    else
        for (size_t i = elements / KERN_BLOCK; i > 0; i--) memcpy(memory + panel - 2 * i, &scale, 2);
    for (size_t at = panel; at + panel <= bench_memory; at += panel) memcpy(memory + at, memory, panel);
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

typedef struct bench_options {
    const char *isa, *type;
    int n_threads, json;
    double seconds;
} bench_options;

enum { BENCH_READ, BENCH_DECODE, BENCH_PREFILL, BENCH_LIMIT, BENCH_FIGURES, BENCH_ROUNDS = 5 };

/* The best of several rounds in which all figures take turns: other programs only ever make a figure smaller, and a
 * change of the clock rate meets all of them. */
static void bench_measure(const bench_options *o, const bench_work *base, int n_threads, double best[BENCH_FIGURES]) {
    const int integer = kern_type_get(base->type).integer;
    const char *name;
    double (*steps[BENCH_FIGURES])(bench_work *) = {bench_read, bench_decode, bench_prefill,
                                                    bench_limit(base->kernels->isa, integer, &name)};
    int64_t in_cache = (int64_t)(((size_t)1 << 20) / kern_panel_bytes(base->type, BENCH_COLS)) * KERN_PANEL; /* 1 MB */
    for (int f = 0; f < BENCH_FIGURES; f++) best[f] = 0;
    for (int round = 0; round < BENCH_ROUNDS; round++)
        for (int f = 0; f < BENCH_FIGURES; f++) {
            bench_work w = *base;
            w.turn = round * 7;
            w.rows = f == BENCH_PREFILL ? in_cache : BENCH_ROWS;
            double rate = steps[f] ? bench_rate(&w, steps[f], n_threads, o->seconds / BENCH_ROUNDS) * 1e-9 : 0;
            if (rate > best[f]) best[f] = rate;
        }
}

static void bench_report(const bench_options *o, const bench_work *base, int n_threads, int first) {
    const kern_type_info info = kern_type_get(base->type);
    const char *isa = base->kernels->isa, *limit;
    double best[BENCH_FIGURES];
    bench_limit(isa, info.integer, &limit);
    bench_measure(o, base, n_threads, best);
    const double decode = best[BENCH_DECODE], read = best[BENCH_READ], prefill = best[BENCH_PREFILL],
                 peak = best[BENCH_LIMIT];
    if (o->json) {
        printf("%s\n  {\"type\": \"%s\", \"isa\": \"%s\", \"threads\": %d, \"read_gb_s\": %.2f, \"decode_gb_s\": %.2f, "
               "\"prefill_gop_s\": %.2f, \"limit\": \"%s\", \"limit_gop_s\": %.2f}",
               first ? "[" : ",", info.name, isa, n_threads, read, decode, prefill, limit, peak);
    } else {
        if (first) printf("type  isa        threads |    decode    memory       |   prefill     limit\n");
        printf("%-5s %-10s %7d | %6.2f GB %6.2f GB %4.0f%% | %6.1f GO ", info.name, isa, n_threads, decode, read,
               100 * decode / read, prefill);
        if (peak > 0)
            printf("%6.1f GO %4.0f%%  of %s\n", peak, 100 * prefill / peak, limit);
        else
            printf("%9s\n", "-");
    }
    fflush(stdout);
}

static const char bench_help[] =
    "usage: bench-kernels [options]\n"
    "  --isa NAME     only this instruction set (ref, avx2, avx512vnni)\n"
    "  --type NAME    only this weight type (F32, F16, BF16, Q4_0, Q8_0)\n"
    "  --threads N    1 up to N threads, doubling (default 2)\n"
    "  --seconds S    time for one figure (default 0.5)\n"
    "  --json         an array of objects\n"
    "decode:  GB of weights a second, 5632 x 2048, one token, 512 MB of matrices in turn; memory: plain reading.\n"
    "prefill: 10^9 multiplications and additions a second, 128 tokens, weights in cache; limit: the bare "
    "instruction.\n";

static int bench_parse(int argc, char **argv, bench_options *o) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            o->json = 1;
        } else if (i + 1 < argc && !strcmp(argv[i], "--isa")) {
            o->isa = argv[++i];
        } else if (i + 1 < argc && !strcmp(argv[i], "--type")) {
            o->type = argv[++i];
        } else if (i + 1 < argc && !strcmp(argv[i], "--threads")) {
            o->n_threads = atoi(argv[++i]);
        } else if (i + 1 < argc && !strcmp(argv[i], "--seconds")) {
            o->seconds = atof(argv[++i]);
        } else {
            fputs(bench_help, strcmp(argv[i], "--help") ? stderr : stdout);
            return strcmp(argv[i], "--help") ? 2 : -1;
        }
    }
    if (o->n_threads >= 1 && o->n_threads <= BENCH_MAX_THREADS && o->seconds > 0) return 0;
    fputs(bench_help, stderr);
    return 2;
}

int main(int argc, char **argv) {
    static const uint32_t types[] = {KERN_Q4_0, KERN_Q8_0, KERN_F16, KERN_BF16, KERN_F32};
    bench_options o = {.n_threads = 2, .seconds = 0.5};
    int status = bench_parse(argc, argv, &o), first = 1;
    if (status) return status < 0 ? 0 : status;

    const size_t n = (size_t)BENCH_TOKENS * BENCH_COLS;
    uint8_t *memory = aligned_alloc(4096, bench_memory);
    float *x = malloc(n * sizeof *x), *scale = malloc(n / KERN_BLOCK * sizeof *scale);
    float *y = calloc((size_t)o.n_threads * BENCH_ROWS * BENCH_TOKENS, sizeof *y);
    int8_t *codes = malloc(n);
    int32_t *sum = malloc(n / KERN_BLOCK * sizeof *sum);
    if (!memory || !x || !scale || !y || !codes || !sum) {
        fprintf(stderr, "bench-kernels: not enough memory, %zu MB needed\n", (bench_memory >> 20) + 64);
        return 1;
    }
    kern_table kernels;
    kern_table_init(&kernels, NULL);
    for (size_t i = 0; i < n; i++) x[i] = (float)((int)(i * 7919 % 201) - 100) * 0.01f;
    kernels.quantize(x, (int64_t)n, codes, scale, sum);
    bench_work work = {.memory = memory, .act = {x, codes, scale, sum}, .y = y};

    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        if (o.type && strcmp(o.type, kern_type_get(types[t]).name)) continue;
        bench_fill(types[t], memory);
        for (int i = 0; kern_isa_name(i); i++) {
            if (o.isa && strcmp(o.isa, kern_isa_name(i))) continue;
            if (kern_table_init(&kernels, kern_isa_name(i))) continue; /* not on this CPU */
            for (int threads = 1; threads <= o.n_threads; threads *= 2) {
                work.kernels = &kernels;
                work.type = types[t];
                work.n = BENCH_TOKENS;
                bench_report(&o, &work, threads, first);
                first = 0;
            }
        }
    }
    if (o.json && !first) printf("\n]\n");
    if (first) fprintf(stderr, "bench-kernels: nothing matches --isa and --type\n");
    free(memory);
    free(x);
    free(scale);
    free(y);
    free(codes);
    free(sum);
    return first;
}
