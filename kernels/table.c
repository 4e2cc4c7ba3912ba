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

int kern_cpu_is_amd(void) {
    uint32_t a, b = 0, c = 0, d = 0;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx && c == signature_AMD_ecx && d == signature_AMD_edx;
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

/* Places in the table of levels below. */
enum { CPU_AVX2 = 1, CPU_AVXVNNI, CPU_AVX512, CPU_AVX512VNNI, CPU_TILES };

/* The levels this CPU has, as bits. AVX-VNNI is no step on the way to AVX-512: many have only one of them. */
static uint32_t cpu_levels(void) {
    const uint32_t leaf1 = bit_FMA | bit_OSXSAVE | bit_AVX | bit_F16C;               /* ecx */
    const uint32_t leaf7 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL; /* ebx */
    const uint32_t amx = 1u << 24 | 1u << 25;                                        /* edx: AMX-TILE, AMX-INT8 */
    const uint32_t avxvnni = 1u << 4;                                                /* leaf 7, subleaf 1, eax */
    uint32_t a, b, c, d, more, unused, levels = 1;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1) != leaf1) return levels;
    uint32_t xcr0 = cpu_xcr0();
    if ((xcr0 & CPU_XCR0_AVX) != CPU_XCR0_AVX) return levels;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return levels;
    levels |= 1u << CPU_AVX2;
    if (a >= 1 && __get_cpuid_count(7, 1, &more, &unused, &unused, &unused) && (more & avxvnni))
        levels |= 1u << CPU_AVXVNNI;
    if ((xcr0 & CPU_XCR0_AVX512) != CPU_XCR0_AVX512 || (b & leaf7) != leaf7) return levels;
    levels |= 1u << CPU_AVX512;
    if (!(c & bit_AVX512VNNI)) return levels;
    levels |= 1u << CPU_AVX512VNNI;
    if ((d & amx) == amx && (xcr0 & CPU_XCR0_AMX) == CPU_XCR0_AMX) levels |= 1u << CPU_TILES;
    return levels;
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

/* ref 1, neon 2, neon_dotprod 4, neon_i8mm 8: each builds on the one before it. */
static uint32_t cpu_levels(void) {
    const unsigned long caps = getauxval(AT_HWCAP), caps2 = getauxval(AT_HWCAP2);
    if (!(caps & CPU_HWCAP_ASIMD)) return 1;
    if (!(caps & CPU_HWCAP_ASIMDDP)) return 1 | 2;
    return caps2 & CPU_HWCAP2_I8MM ? 1 | 2 | 4 | 8 : 1 | 2 | 4;
}

#elif defined(KERN_ARM)

/* NEON is there on every 64-bit Arm system; how to ask for more differs from one to the next. */
static uint32_t cpu_levels(void) {
    return 1 | 2;
}

#else

static uint32_t cpu_levels(void) {
    return 1;
}

#endif

#endif

/* ---- the table --------------------------------------------------------------------------------------------------- */

static void kern_table_ref(kern_table *table) {
    table->pack = kern_pack;
    kern_table_ref_matmul(table);
    kern_table_ref_attention(table);
    kern_table_ref_elementwise(table);
}

/* In rising order. A level is filled over another one, which every CPU that has it has, too. */
static const struct kern_level {
    const char *name;
    int over;
    void (*fill)(kern_table *table);
} kern_levels[] = {
    {"ref", -1, kern_table_ref},
#if defined(KERN_X86)
    {"avx2", 0, kern_table_avx2},
    {"avxvnni", CPU_AVX2, kern_table_avxvnni},
    {"avx512", CPU_AVX2, kern_table_avx512},
    {"avx512vnni", CPU_AVX512, kern_table_avx512vnni},
    {"amx", CPU_AVX512VNNI, kern_table_amx},
#elif defined(KERN_ARM)
    {"neon", 0, kern_table_neon},
    {"neon_dotprod", 1, kern_table_neon_dotprod},
    {"neon_i8mm", 2, kern_table_neon_i8mm},
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

/* Tiles are asked for only by who would use them. */
static int kern_level_works(uint32_t levels, int level) {
    return level >= 0 && (levels >> level & 1) && (level != CPU_TILES || cpu_may_use_tiles());
}

int kern_isa_available(const char *isa) {
    return kern_level_works(cpu_levels(), kern_level_of(isa));
}

int kern_table_init(kern_table *table, const char *isa) {
    const uint32_t levels = cpu_levels();
    const int limited = isa && *isa;
    int level = limited ? kern_level_of(isa) : KERN_N_LEVELS - 1, status = 0;
    if (!kern_level_works(levels, level)) {
        if (limited) status = -1;
        for (level = KERN_N_LEVELS - 1; !kern_level_works(levels, level);) level--;
    }
    int below[KERN_N_LEVELS], n = 0; /* from the level down to ref */
    for (int i = level; i >= 0; i = kern_levels[i].over) below[n++] = i;
    *table = (kern_table){.panel_group = 1, .isa = kern_levels[level].name};
    while (n > 0) kern_levels[below[--n]].fill(table);
    return status;
}
