/* limits.c: what the machine can do at most: the pure reading of memory, and the bare multiply-add instructions.
 *
 * The instructions stand in assembly, so that no compiler shortens the loops. Each loop has LIMITS_CHAINS independent
 * accumulators: more than latency times throughput of any CPU so far, so the units never wait for a result. */
#include <pthread.h>

#include "harness.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { LIMITS_CHAINS = 12, LIMITS_AHEAD = 4096 /* bytes that are fetched before they are read */ };

#if defined(__clang__)
#define LIMITS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LIMITS_UNROLL _Pragma("GCC unroll 16")
#endif

/* A function that runs `instruction` on LIMITS_CHAINS accumulators; each may read the constants a and b. */
#define LIMITS_LOOP(name, features, vector, start, instruction)                                                        \
    __attribute__((target(features))) static void name(uint64_t loops) {                                               \
        vector acc[LIMITS_CHAINS], a = start(1), b = start(1);                                                         \
        /* All loops over acc are unrolled: indexed by a variable it would live in memory. */                          \
        LIMITS_UNROLL                                                                                                  \
        for (int i = 0; i < LIMITS_CHAINS; i++) acc[i] = start(0);                                                     \
        for (; loops > 0; loops--) {                                                                                   \
            LIMITS_UNROLL                                                                                              \
            for (int i = 0; i < LIMITS_CHAINS; i++) instruction;                                                       \
        }                                                                                                              \
        LIMITS_UNROLL                                                                                                  \
        for (int i = 0; i < LIMITS_CHAINS; i++) __asm__ volatile("" ::LIMITS_REGISTER(acc[i]));                        \
    }

#if defined(__x86_64__)

#define LIMITS_REGISTER    "v"
#define LIMITS_3(mnemonic) __asm__ volatile(mnemonic " %2, %1, %0" : "+v"(acc[i]) : "v"(a), "v"(b))

LIMITS_LOOP(limits_vpdpbusd_512, "avx512f,avx512vnni", __m512i, _mm512_set1_epi8, LIMITS_3("vpdpbusd"))
LIMITS_LOOP(limits_vpdpbusd_256, "avx2", __m256i, _mm256_set1_epi8, LIMITS_3("%{vex%} vpdpbusd"))
/* Pairs of products, added to 16-bit sums: there is no shorter way to many products without VNNI. */
#define LIMITS_PAIRS(pairs)                                                                                            \
    __asm__ volatile("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+v"(acc[i]), "=&v"(pairs) : "v"(a), "v"(b))
LIMITS_LOOP(limits_vpmaddubsw_512, "avx512bw", __m512i, _mm512_set1_epi8, {
    __m512i pairs;
    LIMITS_PAIRS(pairs);
})
LIMITS_LOOP(limits_vpmaddubsw_256, "avx2", __m256i, _mm256_set1_epi8, {
    __m256i pairs;
    LIMITS_PAIRS(pairs);
})
LIMITS_LOOP(limits_vfmadd_512, "avx512f", __m512, _mm512_set1_ps, LIMITS_3("vfmadd231ps"))
LIMITS_LOOP(limits_vfmadd_256, "avx2,fma", __m256, _mm256_set1_ps, LIMITS_3("vfmadd231ps"))

enum { LIMITS_TILES = 6 /* accumulators; two of the eight tiles hold the factors */ };

/* Whole tiles: 16 by 64 times 64 by 16 int8. */
__attribute__((target("amx-tile,amx-int8"))) static void limits_tdpbssd(uint64_t loops) {
    struct {
        _Alignas(64) uint8_t palette;
        uint8_t start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shapes = {.palette = 1};
    for (int i = 0; i < LIMITS_TILES + 2; i++) shapes.rows[i] = 16, shapes.row_bytes[i] = 64;
    __asm__ volatile("" : : "r"(&shapes) : "memory"); /* gcc's intrinsic does not say that it reads them */
    _tile_loadconfig(&shapes);
    _tile_zero(6);
    _tile_zero(7);
    for (; loops > 0; loops--) {
        _tile_dpbssd(0, 6, 7);
        _tile_dpbssd(1, 6, 7);
        _tile_dpbssd(2, 6, 7);
        _tile_dpbssd(3, 6, 7);
        _tile_dpbssd(4, 6, 7);
        _tile_dpbssd(5, 6, 7);
    }
    _tile_release();
}

static const limits_peak limits_peaks[] = {
    {"tdpbssd", "amx", HARNESS_INTEGER, 2.0 * 16 * 16 * 64 * LIMITS_TILES, limits_tdpbssd},
    {"vpdpbusd zmm", "avx512vnni", HARNESS_INTEGER, 128.0 * LIMITS_CHAINS, limits_vpdpbusd_512},
    {"vpmaddubsw zmm", "avx512", HARNESS_INTEGER, 128.0 * LIMITS_CHAINS, limits_vpmaddubsw_512},
    {"vpdpbusd ymm", "avxvnni", HARNESS_INTEGER, 64.0 * LIMITS_CHAINS, limits_vpdpbusd_256},
    {"vpmaddubsw ymm", "avx2", HARNESS_INTEGER, 64.0 * LIMITS_CHAINS, limits_vpmaddubsw_256},
    {"vfmadd zmm", "avx512", HARNESS_FLOAT, 32.0 * LIMITS_CHAINS, limits_vfmadd_512},
    {"vfmadd ymm", "avx2", HARNESS_FLOAT, 16.0 * LIMITS_CHAINS, limits_vfmadd_256},
};

__attribute__((target("avx512f"))) static void limits_read_512(const char *p, size_t n) {
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t i = 0; i + 256 <= n; i += 256) {
        LIMITS_UNROLL
        for (int k = 0; k < 4; k++) {
            _mm_prefetch(p + i + 64 * k + LIMITS_AHEAD, _MM_HINT_T0);
            sum[k] = _mm512_xor_si512(sum[k], _mm512_loadu_si512(p + i + 64 * k));
        }
    }
    LIMITS_UNROLL
    for (int k = 0; k < 4; k++) __asm__ volatile("" ::"v"(sum[k]));
}

__attribute__((target("avx2"))) static void limits_read_256(const char *p, size_t n) {
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t i = 0; i + 128 <= n; i += 128) {
        LIMITS_UNROLL
        for (int k = 0; k < 4; k += 2) _mm_prefetch(p + i + 32 * k + LIMITS_AHEAD, _MM_HINT_T0);
        LIMITS_UNROLL
        for (int k = 0; k < 4; k++)
            sum[k] = _mm256_xor_si256(sum[k], _mm256_loadu_si256((const __m256i *)(p + i + 32 * k)));
    }
    LIMITS_UNROLL
    for (int k = 0; k < 4; k++) __asm__ volatile("" ::"x"(sum[k]));
}

#elif defined(__aarch64__)

#define LIMITS_REGISTER "w"
#define LIMITS_ARM(mnemonic, to, from)                                                                                 \
    __asm__ volatile(mnemonic " %0." to ", %1." from ", %2." from : "+w"(acc[i]) : "w"(a), "w"(b))

LIMITS_LOOP(limits_smmla, "arch=armv8.2-a+i8mm", int8x16_t, vdupq_n_s8, LIMITS_ARM("smmla", "4s", "16b"))
LIMITS_LOOP(limits_sdot, "arch=armv8.2-a+dotprod", int8x16_t, vdupq_n_s8, LIMITS_ARM("sdot", "4s", "16b"))
LIMITS_LOOP(limits_smlal, "arch=armv8-a", int8x16_t, vdupq_n_s8, LIMITS_ARM("smlal", "8h", "8b"))
LIMITS_LOOP(limits_fmla, "arch=armv8-a", float32x4_t, vdupq_n_f32, LIMITS_ARM("fmla", "4s", "4s"))

static const limits_peak limits_peaks[] = {
    {"smmla", "neon_i8mm", HARNESS_INTEGER, 64.0 * LIMITS_CHAINS, limits_smmla},
    {"sdot", "neon_dotprod", HARNESS_INTEGER, 32.0 * LIMITS_CHAINS, limits_sdot},
    {"smlal", "neon", HARNESS_INTEGER, 16.0 * LIMITS_CHAINS, limits_smlal},
    {"fmla", "neon", HARNESS_FLOAT, 8.0 * LIMITS_CHAINS, limits_fmla},
};

#else

static void limits_plain(uint64_t loops) {
    volatile float a = 1;
    float acc[LIMITS_CHAINS] = {0};
    for (; loops > 0; loops--) {
        for (int i = 0; i < LIMITS_CHAINS; i++) acc[i] = acc[i] * a + a;
    }
    volatile float sum = 0;
    for (int i = 0; i < LIMITS_CHAINS; i++) sum = sum + acc[i];
}

static const limits_peak limits_peaks[] = {
    {"plain C", "ref", HARNESS_FLOAT, 2.0 * LIMITS_CHAINS, limits_plain},
    {"plain C", "ref", HARNESS_INTEGER, 2.0 * LIMITS_CHAINS, limits_plain},
};

#endif

const limits_peak *limits_peak_at(size_t index) {
    for (size_t i = 0; i < sizeof limits_peaks / sizeof *limits_peaks; i++) {
        if (kern_isa_available(limits_peaks[i].isa) && index-- == 0) return &limits_peaks[i];
    }
    return NULL;
}

static void limits_read_plain(const char *p, size_t n) {
    uint64_t sum[8] = {0}, word[8];
    for (size_t i = 0; i + sizeof word <= n; i += sizeof word) {
        __builtin_memcpy(word, p + i, sizeof word);
        for (int k = 0; k < 8; k++) sum[k] ^= word[k];
    }
    __asm__ volatile("" ::"r"(sum) : "memory");
}

/* Chosen once: on a virtual machine CPUID takes as long as reading a megabyte. */
static void (*limits_reader)(const char *p, size_t n) = limits_read_plain;

static void limits_choose_reader(void) {
#if defined(__x86_64__)
    if (kern_isa_available("avx512"))
        limits_reader = limits_read_512;
    else if (kern_isa_available("avx2"))
        limits_reader = limits_read_256;
#endif
}

void limits_read(const void *p, size_t n) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, limits_choose_reader);
    limits_reader(p, n);
}
