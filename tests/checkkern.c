/* checkkern: compares every kernel of every instruction set with ref, bit for bit.
 *
 *   checkkern [--seed N] [--percent OF_THE_USUAL_CASES] [--hashes]
 *
 * A check is a function that draws a case (sizes, values, alignment) from the random generator, runs one entry of a
 * table and records all it wrote. It is run on ref and on the table under test with the same seed, and the records must
 * be equal; any NaN equals any other. Buffers lie in slots: surrounded by poison that must not change and that shows
 * when it is read (it is NaN), or ending at a page that cannot be touched.
 *
 * The checks are in checkkern_products.c (matrix products, packing) and checkkern_between.c (all other kernels). Here
 * is what they are made with (declared in checkkern.h), then the list of them, then what runs them.
 *
 * For ref itself, a hash of the record with fixed seeds is compared with the one in this file: a compiler that fuses
 * or reorders something changes it. --hashes prints them. */
#include "checkkern.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- random cases ------------------------------------------------------------------------------------------------ */

uint64_t random_state;

uint32_t random_u32(void) { /* xorshift64* (Vigna 2016) */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 2685821657736338717u) >> 32);
}

int64_t random_between(int64_t low, int64_t high) {
    return low + (int64_t)(random_u32() % (uint32_t)(high - low + 1));
}

float float_of_bits(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

uint32_t bits_of_float(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

int random_kind(void) {
    uint32_t r = random_u32() % 8;
    return r < 4 ? TAME : (int)(r % VALUE_KINDS);
}

float random_tame(void) {
    return (float)((int32_t)random_u32() >> 8) * 0x1p-21f; /* -4..4 */
}

float random_float(int kind) {
    static const uint32_t special[] = {0x00000000,
                                       0x80000000,
                                       0x00000001,
                                       0x807fffff,
                                       0x00800000,
                                       0x7f7fffff,
                                       0xff7fffff,
                                       0x7f800000,
                                       0xff800000,
                                       0x7fc00000,
                                       0xffc12345,
                                       0x3f800000,
                                       /* the ends of exp, both signs */ 0xc2ae999a,
                                       0x42ae999a,
                                       0x42b0bd71,
                                       0xc2b0bd71,
                                       0x42b20000,
                                       0x38800000,
                                       0x33000000};
    uint32_t bits = random_u32();
    switch (kind) {
    case TAME: return random_tame();
    case WIDE: return float_of_bits((bits & 0x81ffffff) + (uint32_t)random_between(80, 160) * 0x00800000u);
    case TINY: return float_of_bits(bits & 0x80ffffff);
    default:
        if (bits % 4) return random_tame();
        return float_of_bits(special[random_u32() % (sizeof special / sizeof *special)]);
    }
}

uint16_t random_f16(int kind) {
    uint16_t bits = (uint16_t)random_u32();
    if (kind == TAME) return kern_f32_to_f16(random_tame());
    if (kind == TINY) return bits & 0x83ff;
    if (kind == SPECIAL && bits % 5) return kern_f32_to_f16(random_tame());
    return kind == WIDE && (bits & 0x7c00) == 0x7c00 ? 0x7bff : bits;
}

/* ---- slots: guarded memory --------------------------------------------------------------------------------------- */

enum { N_SLOTS = 10, SLOT_ROOM = 1 << 21, SLOT_MARGIN = 192, POISON = 0xff };

static struct slot {
    uint8_t *memory; /* SLOT_ROOM bytes, then a page without access */
    uint8_t *data;
    size_t bytes;
} slots[N_SLOTS];

const char *check_op, *check_isa;
uint32_t check_type;
int check_damage, check_range;

static void slots_open(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < N_SLOTS; i++) {
        void *m = mmap(NULL, SLOT_ROOM + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (m == MAP_FAILED || mprotect((uint8_t *)m + SLOT_ROOM, page, PROT_NONE)) {
            perror("checkkern: mmap");
            exit(2);
        }
        slots[i].memory = m;
    }
}

void *slot_take(int i, size_t bytes, size_t unit) {
    struct slot *s = &slots[i];
    size_t offset = SLOT_MARGIN + unit * (random_u32() % 17);
    if (random_u32() % 2) offset = (SLOT_ROOM - bytes) / unit * unit; /* up to the closed page */
    if (bytes + 2 * SLOT_MARGIN + 17 * unit > SLOT_ROOM) {
        fprintf(stderr, "checkkern: slot too small\n");
        exit(2);
    }
    s->data = s->memory + offset;
    s->bytes = bytes;
    size_t behind = (size_t)(s->memory + SLOT_ROOM - (s->data + bytes));
    memset(s->data - SLOT_MARGIN, POISON, SLOT_MARGIN + bytes + (behind < SLOT_MARGIN ? behind : SLOT_MARGIN));
    return s->data;
}

void slots_verify(void) {
    for (int i = 0; i < N_SLOTS; i++) {
        struct slot *s = &slots[i];
        if (!s->data) continue;
        size_t behind = (size_t)(s->memory + SLOT_ROOM - (s->data + s->bytes));
        for (size_t k = 0; k < SLOT_MARGIN; k++) {
            if (s->data[-1 - (ptrdiff_t)k] != POISON) check_damage = 1;
            if (k < behind && s->data[s->bytes + k] != POISON) check_damage = 1;
        }
        s->data = NULL;
    }
}

float *slot_floats(int i, int64_t n, int kind) {
    float *p = slot_take(i, (size_t)n * sizeof *p, sizeof *p);
    for (int64_t k = 0; k < n; k++) p[k] = random_float(kind);
    return p;
}

float *slot_output(int i, int64_t n) {
    return slot_take(i, (size_t)n * sizeof(float), sizeof(float));
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

typedef struct record {
    uint32_t *word;
    size_t n, room;
} record;

static record *current;

void record_word(uint32_t w) {
    if (current->n == current->room) {
        current->room = current->room ? current->room * 2 : 4096;
        current->word = realloc(current->word, current->room * sizeof *current->word);
        if (!current->word) {
            perror("checkkern");
            exit(2);
        }
    }
    current->word[current->n++] = w;
}

void record_bytes(const int8_t *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) record_word((uint8_t)p[i]);
}

void record_floats(const float *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) record_word(p[i] != p[i] ? 0x7fc00000u : bits_of_float(p[i]));
}

void record_matrix(const float *p, int64_t rows, int64_t cols, int64_t ld) {
    for (int64_t r = 0; r < rows; r++) {
        record_floats(p + r * ld, cols);
        for (int64_t c = cols; c < ld && r < rows - 1; c++)
            if (bits_of_float(p[r * ld + c]) != 0xffffffffu) check_damage = 1;
    }
}

static uint64_t record_hash(const record *r, uint64_t h) { /* FNV-1a */
    for (size_t i = 0; i < r->n; i++)
        for (int b = 0; b < 32; b += 8) h = (h ^ (r->word[i] >> b & 255)) * 1099511628211u;
    return h;
}

/* ---- the list of checks ------------------------------------------------------------------------------------------ */

static const struct check {
    const char *op;
    void (*run)(const kern_table *);
    int cases;
    uint64_t hash; /* of ref's results */
    uint32_t type;
} checks[] = {
    {"quantize", check_quantize, 600, 0x80371d64cad539da, 0},
    {"matmul f32", check_matmul_f32, 300, 0xcb293f0ae8d3afd9, 0},
    {"matmul f16", check_matmul_f16, 300, 0x836335d74775b60c, 0},
    {"matmul bf16", check_matmul_bf16, 300, 0xd82321aa61ff0114, 0},
    {"matmul q4_0", check_matmul_q4_0, 400, 0xcb1f95caea8445df, 0},
    {"matmul q8_0", check_matmul_q8_0, 400, 0x3e9ba8fda7fe72c7, 0},
    {"qk f16", check_qk_f16, 300, 0x0f5ddd706a8a5d5f, 0},
    {"qk f32", check_qk_f32, 300, 0x5b0257228cc6bb52, 0},
    {"pv f16", check_pv_f16, 300, 0xc7bd934d5d2c59a1, 0},
    {"pv f32", check_pv_f32, 300, 0xe9823a9312954122, 0},
    {"softmax_part", check_softmax_part, 1000, 0xd3c49d029631377f, 0},
    {"softmax_join", check_softmax_join, 1000, 0x4e834bc92e3877c6, 0},
    {"rms_norm", check_rms_norm, 1000, 0xc1fb9f7aefb0d986, 0},
    {"add", check_add, 1000, 0x034cb40ffdcf2af8, 0},
    {"silu_mul", check_silu_mul, 1000, 0xb40f5bfdcfe8e63f, 0},
    {"rope_adjacent", check_rope_adjacent, 1000, 0x34e9d5096b511f5f, 0},
    {"rope_split", check_rope_split, 1000, 0x29f3d217bbc49281, 0},
    {"scale", check_scale, 1000, 0xd79da06d2a34be86, 0},
    {"to_f16", check_to_f16, 1000, 0xbc3d7106f6d390f9, 0},
    {"from_f16", check_from_f16, 1000, 0x5a30a92c072b58bc, 0},
    {"matmul q4_1", check_matmul_blocks, 200, 0x9216a0b70f10d47a, KERN_Q4_1},
    {"matmul q5_0", check_matmul_blocks, 200, 0x224e668a1bb8e9c8, KERN_Q5_0},
    {"matmul q5_1", check_matmul_blocks, 200, 0x2860062e14b35951, KERN_Q5_1},
    {"matmul q2_k", check_matmul_blocks, 200, 0xb1eb55ce213677c6, KERN_Q2_K},
    {"matmul q3_k", check_matmul_blocks, 200, 0xfd9fa7fc34dc6dec, KERN_Q3_K},
    {"matmul q4_k", check_matmul_blocks, 200, 0x560613c016950e98, KERN_Q4_K},
    {"matmul q5_k", check_matmul_blocks, 200, 0x79d36e34a23fe560, KERN_Q5_K},
    {"matmul q6_k", check_matmul_blocks, 200, 0xced107021320f3a1, KERN_Q6_K},
    {"matmul iq1_s", check_matmul_blocks, 100, 0xbbf56f14a1679cb7, KERN_IQ1_S},
    {"matmul iq1_m", check_matmul_blocks, 100, 0xd130917b11b9583a, KERN_IQ1_M},
    {"matmul iq2_xxs", check_matmul_blocks, 100, 0x53e3af9c7cd7996f, KERN_IQ2_XXS},
    {"matmul iq2_xs", check_matmul_blocks, 100, 0xd34e6315a01b43be, KERN_IQ2_XS},
    {"matmul iq2_s", check_matmul_blocks, 100, 0x2760a54f483a2464, KERN_IQ2_S},
    {"matmul iq3_xxs", check_matmul_blocks, 100, 0xdb84f6ec9485f330, KERN_IQ3_XXS},
    {"matmul iq3_s", check_matmul_blocks, 100, 0x1df1ba513c414128, KERN_IQ3_S},
    {"matmul iq4_nl", check_matmul_blocks, 200, 0x89db0cb543609952, KERN_IQ4_NL},
    {"matmul iq4_xs", check_matmul_blocks, 200, 0x95f3ee7c0f578ec0, KERN_IQ4_XS},
    {"matmul tq1_0", check_matmul_blocks, 100, 0xe9fc8591a06358d1, KERN_TQ1_0},
    {"matmul tq2_0", check_matmul_blocks, 100, 0x5c16ed1f449212f4, KERN_TQ2_0},
    {"matmul mxfp4", check_matmul_blocks, 200, 0x748d39e1dc5c7f33, KERN_MXFP4},
    {"matmul nvfp4", check_matmul_blocks, 100, 0x29a45d53839a420b, KERN_NVFP4},
    {"layer_norm", check_layer_norm, 1000, 0x9ff182c0f4f49129, 0},
    {"gelu_mul", check_gelu_mul, 1000, 0x2b7beb82676e0fa6, 0},
    {"softcap", check_softcap, 1000, 0xf255d788cfe02fc2, 0},
    {"clamp", check_clamp, 1000, 0xea871519bb15c050, 0},
    {"quantize_row", check_quantize_row, 1000, 0x8d7a50a735660a8a, 0},
    {"quantize_value", check_quantize_value, 1000, 0x04df613a06c6c6e2, 0},
    {"weights q8", check_weights_q8, 500, 0x2924a720abb14e8d, 0},
    {"pv q8", check_pv_q8, 300, 0xf2b0c5541981c145, 0},
    {"clean", check_clean, 300, 0x0ac3540283830a51, 0},
    {"weigh", check_weigh, 1000, 0xf081961fe41160a5, 0},
};

enum { N_CHECKS = sizeof checks / sizeof *checks };

/* ---- running them ------------------------------------------------------------------------------------------------ */

enum { MAX_TABLES = 8 };

static int n_passed, n_failed;

void report(int ok, const char *op, const char *isa, const char *detail) {
    printf("%-6s %-24s %-12s %s\n", ok ? "ok" : "FAILED", op, isa, detail);
    if (ok)
        n_passed++;
    else
        n_failed++;
}

static void on_crash(int signal_number) {
    static const char text[] = "\nFAILED: touched memory outside its arrays: ";
    ssize_t ignored = write(1, text, sizeof text - 1);
    ignored = write(1, check_op, strlen(check_op));
    ignored = write(1, " ", 1);
    ignored = write(1, check_isa, strlen(check_isa));
    ignored = write(1, "\n", 1);
    (void)ignored, (void)signal_number;
    _exit(1);
}

static void run_case(const struct check *c, const kern_table *k, uint64_t seed, record *r) {
    random_state = seed;
    current = r;
    r->n = 0;
    check_op = c->op;
    check_isa = k->isa;
    check_type = c->type;
    c->run(k);
    slots_verify();
}

uint64_t case_seed(uint64_t seed, int check, int number) {
    uint64_t s = seed * 0x9e3779b97f4a7c15u + (uint64_t)check * 1000003u + (uint64_t)number;
    s = (s ^ s >> 31) * 0xbf58476d1ce4e5b9u;
    return s ^ s >> 29 ? s ^ s >> 29 : 1;
}

/* One check on every table; tables[0] is ref, whose own guards are looked at too. */
static void compare_with_ref(int c, const kern_table *tables, int n_tables, uint64_t seed, int percent) {
    record ref = {0}, r = {0};
    const int n = (checks[c].cases * percent + 99) / 100;
    char detail[MAX_TABLES][160] = {""};
    for (int i = 0; i < n; i++)
        for (int t = 0; t < n_tables; t++) {
            if (*detail[t]) continue; /* has failed */
            record *to = t == 0 ? &ref : &r;
            check_damage = check_range = 0;
            run_case(&checks[c], &tables[t], case_seed(seed, c, i), to);
            size_t at = 0, both = ref.n < to->n ? ref.n : to->n;
            while (at < both && ref.word[at] == to->word[at]) at++;
            if (check_damage)
                snprintf(detail[t], sizeof detail[t], "case %d: wrote outside its arrays", i);
            else if (check_range)
                snprintf(detail[t], sizeof detail[t], "case %d: a code is not in -127..113", i);
            else if (ref.n != to->n || at < both)
                snprintf(detail[t], sizeof detail[t], "case %d: result %zu of %zu is %08x, ref has %08x", i, at, both,
                         at < both ? to->word[at] : 0u, at < both ? ref.word[at] : 0u);
        }
    for (int t = 0; t < n_tables; t++) {
        const int ok = !*detail[t];
        if (ok) snprintf(detail[t], sizeof detail[t], "%d cases", n);
        report(ok, checks[c].op, tables[t].isa, detail[t]);
    }
    free(ref.word);
    free(r.word);
}

static void check_hashes(const kern_table *ref, int print) {
    record r = {0};
    for (int c = 0; c < N_CHECKS; c++) {
        uint64_t h = 14695981039346656037u;
        check_damage = 0;
        for (int i = 0; i < 40; i++) {
            run_case(&checks[c], ref, case_seed(1, c, i), &r);
            h = record_hash(&r, h);
        }
        char detail[80];
        snprintf(detail, sizeof detail, "0x%016llx", (unsigned long long)h);
        if (print) printf("%-16s %s\n", checks[c].op, detail);
        report(h == checks[c].hash && !check_damage, checks[c].op, "ref = ever", detail);
    }
    free(r.word);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static void check_table(void) {
    kern_table best, t;
    int ok = kern_table_init(&best, NULL) == 0 && kern_table_init(&t, "") == 0 && !strcmp(best.isa, t.isa);
    report(ok, "no limit = best", best.isa, "");
    ok = kern_table_init(&t, "abacus") == -1 && !strcmp(best.isa, t.isa) && !kern_isa_available("abacus");
    report(ok, "unknown set = best", t.isa, "");
    for (int i = 0; kern_isa_name(i); i++) {
        const char *isa = kern_isa_name(i);
        int status = kern_table_init(&t, isa), available = kern_isa_available(isa);
        ok = status == (available ? 0 : -1) && !strcmp(t.isa, available ? isa : best.isa);
        for (uint32_t type = 0; type < KERN_TYPE_END; type++)
            ok = ok && (t.matmul[type] != NULL) == kern_type_get(type).has_kernels;
        report(ok, "table", isa, available ? "" : "not on this CPU");
    }
}

int main(int argc, char **argv) {
    uint64_t seed = 1;
    int percent = 100, print = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (!strcmp(argv[i], "--percent") && i + 1 < argc) {
            percent = atoi(argv[++i]);
            if (percent < 1) percent = 1;
        } else if (!strcmp(argv[i], "--hashes")) {
            print = 1;
        } else {
            fprintf(stderr, "usage: checkkern [--seed N] [--percent OF_THE_USUAL_CASES] [--hashes]\n");
            return 2;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGSEGV, on_crash);
    signal(SIGBUS, on_crash);
    slots_open();

    kern_table tables[MAX_TABLES];
    int n_tables = 0;
    for (int i = 0; kern_isa_name(i) && n_tables < MAX_TABLES; i++)
        if (kern_table_init(&tables[n_tables], kern_isa_name(i)) == 0) n_tables++;
    check_table();
    check_hashes(&tables[0], print);
    check_packing();
    for (int i = 0; i < n_tables; i++) check_packing_of(&tables[i]);
    check_bad_scales();
    check_fixtures();
    for (int c = 0; c < N_CHECKS; c++) compare_with_ref(c, tables, n_tables, seed, percent);
    printf("%d passed, %d failed\n", n_passed, n_failed);
    return n_failed != 0;
}
