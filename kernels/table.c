/* table.c: which instruction sets there are, which this CPU can run, and the table of their kernels. */
#include "internal.h"

#if defined(KERN_X86)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(KERN_ARM) && defined(__linux__)
#include <sys/auxv.h>
#endif

/* ---- what the CPU offers ----------------------------------------------------------------------------------------- */

#if defined(KERN_X86)

/* Bits of the state components that the operating system saves (XCR0): without them an AVX register would not survive
 * a task switch, whatever CPUID says. */
enum { CPU_XCR0_AVX = 0x06, CPU_XCR0_AVX512 = 0xe6, CPU_XCR0_AMX = 0x60000 };

static uint32_t cpu_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Linux hands the 8 KB of tile registers only to a process that asks, once for all its threads (arch_prctl(2)). It
 * refuses when a signal stack is too small for them; then there are no tiles. */
static int cpu_may_use_tiles(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return 0;
#endif
}

enum { CPU_TILES = 4 }; /* the level that needs tiles */

/* The level of the table this CPU reaches: 0 ref, 1 avx2, 2 avx512, 3 avx512vnni, 4 amx. */
static int cpu_level(void) {
    const uint32_t leaf1 = bit_FMA | bit_OSXSAVE | bit_AVX | bit_F16C;               /* ecx */
    const uint32_t leaf7 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL; /* ebx */
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1) != leaf1) return 0;
    uint32_t xcr0 = cpu_xcr0();
    if ((xcr0 & CPU_XCR0_AVX) != CPU_XCR0_AVX) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return 0;
    if ((xcr0 & CPU_XCR0_AVX512) != CPU_XCR0_AVX512) return 1;
    if ((b & leaf7) != leaf7) return 1;
    if (!(c & bit_AVX512VNNI)) return 2;
    const uint32_t amx = 1u << 24 | 1u << 25; /* edx: AMX-TILE, AMX-INT8 */
    return (d & amx) == amx && (xcr0 & CPU_XCR0_AMX) == CPU_XCR0_AMX ? 4 : 3;
}

#else

enum { CPU_TILES = -1 };

static int cpu_may_use_tiles(void) {
    return 0;
}

#if defined(KERN_ARM) && defined(__linux__)

/* Bits of AT_HWCAP and AT_HWCAP2, in which Linux says what the CPU and the kernel offer (elf_hwcaps in the kernel's
 * documentation). */
#define CPU_HWCAP_ASIMD   (1ul << 1)
#define CPU_HWCAP_ASIMDDP (1ul << 20)
#define CPU_HWCAP2_I8MM   (1ul << 13)

/* 0 ref, 1 neon, 2 neon_dotprod, 3 neon_i8mm */
static int cpu_level(void) {
    const unsigned long caps = getauxval(AT_HWCAP), caps2 = getauxval(AT_HWCAP2);
    if (!(caps & CPU_HWCAP_ASIMD)) return 0;
    if (!(caps & CPU_HWCAP_ASIMDDP)) return 1;
    return caps2 & CPU_HWCAP2_I8MM ? 3 : 2;
}

#elif defined(KERN_ARM)

/* NEON is there on every 64-bit Arm system; how to ask for more differs from one to the next. */
static int cpu_level(void) {
    return 1;
}

#else

static int cpu_level(void) {
    return 0;
}

#endif

#endif

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* In rising order; each level is filled over the one before it. */
static const struct kern_level {
    const char *name;
    void (*fill)(kern_table *table);
} kern_levels[] = {
    {"ref", NULL},
#if defined(KERN_X86)
    {"avx2", kern_table_avx2},
    {"avx512", kern_table_avx512},
    {"avx512vnni", kern_table_avx512vnni},
    {"amx", kern_table_amx},
#elif defined(KERN_ARM)
    {"neon", kern_table_neon},
    {"neon_dotprod", kern_table_neon_dotprod},
    {"neon_i8mm", kern_table_neon_i8mm},
#endif
};

enum { KERN_N_LEVELS = sizeof kern_levels / sizeof *kern_levels };

static int kern_level_of(const char *isa) {
    for (int i = 0; i < KERN_N_LEVELS; i++)
        if (!strcmp(kern_levels[i].name, isa)) return i;
    return -1;
}

const char *kern_isa_name(int index) {
    return index >= 0 && index < KERN_N_LEVELS ? kern_levels[index].name : NULL;
}

int kern_isa_available(const char *isa) {
    int level = kern_level_of(isa);
    return level >= 0 && level <= cpu_level() && (level != CPU_TILES || cpu_may_use_tiles());
}

int kern_table_init(kern_table *table, const char *isa) {
    int level = cpu_level(), status = 0;
    int wanted = isa && *isa ? kern_level_of(isa) : level;
    if (wanted < 0 || wanted > level)
        status = -1;
    else
        level = wanted;
    if (level == CPU_TILES && !cpu_may_use_tiles()) { /* asked only by who would use them */
        if (wanted == level && isa && *isa) status = -1;
        level--;
    }
    *table = (kern_table){.isa = kern_levels[level].name};
    kern_table_ref_matmul(table);
    kern_table_ref_attention(table);
    kern_table_ref_elementwise(table);
    for (int i = 1; i <= level; i++) kern_levels[i].fill(table);
    return status;
}
