/* checkkern: compares every kernel of every instruction set with ref, bit for bit.
 *
 *   checkkern [--seed N] [--rounds N] [--hashes]
 *
 * A check is a function that draws a case (sizes, values, alignment) from the random generator, runs one entry of a
 * table and records all it wrote. It is run on ref and on the table under test with the same seed, and the records must
 * be equal; any NaN equals any other. Buffers lie in slots: surrounded by poison that must not change and that shows
 * when it is read (it is NaN), or ending at a page that cannot be touched.
 *
 * For ref itself, a hash of the record with fixed seeds is compared with the one in this file: a compiler that fuses
 * or reorders something changes it. --hashes prints them. */
#include "../kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- random cases ------------------------------------------------------------------------------------------------ */

static uint64_t random_state;

static uint32_t random_u32(void) { /* xorshift64* (Vigna 2016) */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 2685821657736338717u) >> 32);
}

static int64_t random_between(int64_t low, int64_t high) {
    return low + (int64_t)(random_u32() % (uint32_t)(high - low + 1));
}

static float float_of_bits(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint32_t bits_of_float(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* What a case draws its values from. */
enum { TAME, WIDE, TINY, SPECIAL, VALUE_KINDS };

static int random_kind(void) {
    uint32_t r = random_u32() % 8;
    return r < 4 ? TAME : (int)(r % VALUE_KINDS);
}

static float random_tame(void) {
    return (float)((int32_t)random_u32() >> 8) * 0x1p-21f; /* -4..4 */
}

static float random_float(int kind) {
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

static uint16_t random_f16(int kind) {
    uint16_t bits = (uint16_t)random_u32();
    if (kind == TAME) return kern_f32_to_f16(random_tame());
    if (kind == TINY) return bits & 0x83ff;
    if (kind == SPECIAL && bits % 5) return kern_f32_to_f16(random_tame());
    return kind == WIDE && (bits & 0x7c00) == 0x7c00 ? 0x7bff : bits;
}

/* ---- slots: guarded memory --------------------------------------------------------------------------------------- */

enum { N_SLOTS = 7, SLOT_ROOM = 1 << 21, SLOT_MARGIN = 192, POISON = 0xff };

static struct slot {
    uint8_t *memory; /* SLOT_ROOM bytes, then a page without access */
    uint8_t *data;
    size_t bytes;
} slots[N_SLOTS];

static const char *check_op, *check_isa; /* what runs, for the handler of a crash */
static int check_damage;                 /* a guard was overwritten */
static int check_range;                  /* a code is out of range */

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

/* Memory for a buffer of the case: all poison. `unit` is the alignment its type needs. */
static void *slot_take(int i, size_t bytes, size_t unit) {
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

static void slots_verify(void) {
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

static float *slot_floats(int i, int64_t n, int kind) {
    float *p = slot_take(i, (size_t)n * sizeof *p, sizeof *p);
    for (int64_t k = 0; k < n; k++) p[k] = random_float(kind);
    return p;
}

/* An output: poison that must be overwritten or, where nothing belongs, stay. */
static float *slot_output(int i, int64_t n) {
    return slot_take(i, (size_t)n * sizeof(float), sizeof(float));
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

typedef struct record {
    uint32_t *word;
    size_t n, room;
} record;

static record *current;

static void record_word(uint32_t w) {
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

static void record_bytes(const int8_t *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) record_word((uint8_t)p[i]);
}

static void record_floats(const float *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) record_word(p[i] != p[i] ? 0x7fc00000u : bits_of_float(p[i]));
}

/* [rows][cols] floats, ld apart; the gap between rows must still be poison. */
static void record_matrix(const float *p, int64_t rows, int64_t cols, int64_t ld) {
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

/* ---- the checks: matrix products --------------------------------------------------------------------------------- */

static void check_quantize(const kern_table *k) {
    int64_t n = random_between(1, 7) * KERN_BLOCK;
    int kind = random_kind(), twist = (int)random_between(0, 6);
    float *x = slot_floats(0, n, kind);
    for (int64_t i = 0; i < n; i++) {
        if (twist == 0) x[i] = (float)random_between(-254, 254) * 0.5f; /* ties, when the largest is 127 */
        if (twist == 1) x[i] = random_tame() * 5e-31f;                  /* around the smallest block */
        if (twist == 2 && random_u32() % 64) x[i] *= 1e-3f;             /* an outlier */
        if (twist == 3) x[i] = i % 3 ? -0.0f : 0.0f;
        if (twist == 4 && random_u32() % 2) x[i] = copysignf(x[0], x[i]);
    }
    if (twist == 0) x[0] = 127;
    for (int64_t i = 0; twist == 5 && i < n; i += KERN_BLOCK) { /* about as much above zero as codes have room for */
        const float size = (float)random_between(-1000, 1000), other = size * (-113.0f / 127.0f);
        for (int j = 2; j < KERN_BLOCK; j++) x[i + j] = size * (float)random_between(-500, 500) * 1e-3f;
        x[i] = size, x[i + 1] = other * (1.0f + (float)random_between(-3, 3) * 0x1p-23f);
    }
    int8_t *codes = slot_take(1, (size_t)n, 1);
    float *scale = slot_output(2, n / KERN_BLOCK);
    int32_t *sum = slot_take(3, (size_t)n / KERN_BLOCK * sizeof *sum, sizeof *sum);
    k->quantize(x, n, codes, scale, sum);
    for (int64_t i = 0; i < n; i++) {
        record_word((uint8_t)codes[i]);
        check_range |= codes[i] < -127 || codes[i] > 113;
    }
    for (int64_t i = 0; i < n / KERN_BLOCK; i++) {
        record_word(bits_of_float(scale[i])); /* here even the NaN is fixed */
        record_word((uint32_t)sum[i]);
    }
}

typedef struct product {
    int64_t rows, cols, n, ldy;
} product;

static product random_product(int64_t unit, int64_t most) {
    product p = {.rows = random_between(1, 50), .cols = unit * random_between(1, most), .n = random_between(1, 40)};
    if (random_u32() % 3 == 0) p.n = 1, p.rows = random_between(1, 144); /* several panels to a stream, or few */
    if (random_u32() % 200 == 0) p.n = 1, p.cols = unit * 33 * most;     /* longer than any chunk */
    if (random_u32() % 12 == 0) p.n = 277, p.cols = unit * 2 * most;     /* more tokens than go at a time */
    if (p.cols > unit * most) p.rows = (p.rows - 1) % 34 + 1;            /* there is no room for more */
    p.ldy = p.rows + random_between(0, 3);
    return p;
}

/* The tiles of activations, in slot i, where the table wants them. */
static const kern_act_tile *slot_tiles(int i, const kern_table *k, const kern_act *act, product p) {
    const int64_t groups = p.cols / KERN_BLOCK, n = (p.n + KERN_TILE_TOKENS - 1) / KERN_TILE_TOKENS * groups;
    if (!k->tile_row) return NULL;
    kern_act_tile *tiles = slot_take(i, (size_t)n * sizeof *tiles, _Alignof(kern_act_tile));
    for (int64_t t = 0; t < p.n; t++)
        k->tile_row(act->codes + t * p.cols, act->scale + t * groups, act->sum + t * groups, p.cols,
                    tiles + t / KERN_TILE_TOKENS * groups, (int)(t % KERN_TILE_TOKENS));
    return tiles;
}

/* The same for their pairs. */
static const kern_act_pair *slot_pairs(int i, const kern_table *k, const kern_act *act, product p) {
    const int64_t groups = p.cols / KERN_BLOCK, n = (p.n + KERN_PAIR_TOKENS - 1) / KERN_PAIR_TOKENS * KERN_PAIR_TOKENS;
    if (!k->pair_row) return NULL;
    kern_act_pair *pairs = slot_take(i, (size_t)(n * groups) * sizeof *pairs, _Alignof(kern_act_pair));
    for (int64_t t = 0; t < p.n; t++)
        k->pair_row(act->codes + t * p.cols, act->scale + t * groups, act->sum + t * groups, p.cols,
                    pairs + t / KERN_PAIR_TOKENS * KERN_PAIR_TOKENS * groups, (int)(t % KERN_PAIR_TOKENS));
    return pairs;
}

static void check_float_matmul(const kern_table *k, int type, size_t bytes) {
    product p = random_product(1, 130);
    int kind = random_kind();
    int64_t elements = (p.rows + KERN_PANEL - 1) / KERN_PANEL * KERN_PANEL * p.cols;
    uint8_t *panels = slot_take(0, (size_t)elements * bytes, 1);
    for (int64_t i = 0; i < elements; i++) {
        uint32_t v = bits_of_float(random_float(kind));
        uint16_t half = type == KERN_F16 ? random_f16(kind) : (uint16_t)(v >> 16);
        if (bytes == 4)
            memcpy(panels + i * 4, &v, 4);
        else
            memcpy(panels + i * 2, &half, 2);
    }
    kern_act act = {.x = slot_floats(1, p.n * p.cols, kind)};
    float *y = slot_output(2, (p.n - 1) * p.ldy + p.rows);
    k->matmul[type](panels, p.rows, p.cols, &act, p.n, y, p.ldy);
    record_matrix(y, p.n, p.rows, p.ldy);
}

static void check_matmul_f32(const kern_table *k) {
    check_float_matmul(k, KERN_F32, 4);
}
static void check_matmul_f16(const kern_table *k) {
    check_float_matmul(k, KERN_F16, 2);
}
static void check_matmul_bf16(const kern_table *k) {
    check_float_matmul(k, KERN_BF16, 2);
}

/* One in four cases has all codes and activations at their extremes, where an int16 would overflow. */
static void check_int_matmul(const kern_table *k, int type, int64_t code_bytes) {
    product p = random_product(KERN_BLOCK, 20);
    if (p.n == 1 && random_u32() % 8 == 0) /* about as long as a chunk, and rows enough for streams */
        p.cols = KERN_BLOCK * random_between(511, 513), p.rows = 49 + p.rows % 40;
    int kind = random_kind(), extreme = random_u32() % 4 == 0;
    int64_t blocks = p.cols / KERN_BLOCK, n_panels = (p.rows + KERN_PANEL - 1) / KERN_PANEL;
    size_t panel_bytes = kern_panel_bytes((uint32_t)type, p.cols);
    uint8_t *panels = slot_take(0, panel_bytes * (size_t)n_panels, 1), byte = random_u32() % 2 ? 255 : 0;
    for (int64_t q = 0; q < n_panels; q++) {
        uint8_t *panel = panels + (size_t)q * panel_bytes;
        for (int64_t i = 0; i < blocks * code_bytes; i++) panel[i] = extreme ? byte : (uint8_t)random_u32();
        for (int64_t i = 0; i < blocks * KERN_PANEL; i++) {
            uint16_t scale = random_f16(kind);
            memcpy(panel + blocks * code_bytes + i * 2, &scale, 2);
        }
    }
    int8_t *codes = slot_take(1, (size_t)(p.n * p.cols), 1), edge = random_u32() % 2 ? 113 : -127;
    for (int64_t i = 0; i < p.n * p.cols; i++) codes[i] = extreme ? edge : (int8_t)random_between(-127, 113);
    int32_t *sum = slot_take(2, (size_t)(p.n * blocks) * sizeof *sum, sizeof *sum);
    for (int64_t b = 0; b < p.n * blocks; b++) {
        sum[b] = 0;
        for (int i = 0; i < KERN_BLOCK; i++) sum[b] += codes[b * KERN_BLOCK + i];
    }
    float *scale = slot_floats(3, p.n * blocks, kind);
    kern_act act = {.codes = codes, .sum = sum, .scale = scale};
    float *y = slot_output(4, (p.n - 1) * p.ldy + p.rows);
    act.tiles = slot_tiles(5, k, &act, p);
    act.pairs = slot_pairs(6, k, &act, p);
    k->matmul[type](panels, p.rows, p.cols, &act, p.n, y, p.ldy);
    record_matrix(y, p.n, p.rows, p.ldy);
}

static void check_matmul_q4_0(const kern_table *k) {
    check_int_matmul(k, KERN_Q4_0, 256);
}
static void check_matmul_q8_0(const kern_table *k) {
    check_int_matmul(k, KERN_Q8_0, 512);
}

static uint32_t check_type; /* of the check that runs: its .type */

/* Where blocks have their f16 scales; the other bytes may be anything. */
static const struct block_scales {
    uint8_t at, n;
} block_scales[KERN_TYPE_END] = {
    [KERN_Q4_0] = {0, 1},    [KERN_Q4_1] = {0, 2},   [KERN_Q5_0] = {0, 1},    [KERN_Q5_1] = {0, 2},
    [KERN_Q8_0] = {0, 1},    [KERN_Q2_K] = {80, 2},  [KERN_Q3_K] = {108, 1},  [KERN_Q4_K] = {0, 2},
    [KERN_Q5_K] = {0, 2},    [KERN_Q6_K] = {208, 1}, [KERN_IQ2_XXS] = {0, 1}, [KERN_IQ2_XS] = {0, 1},
    [KERN_IQ3_XXS] = {0, 1}, [KERN_IQ1_S] = {0, 1},  [KERN_IQ4_NL] = {0, 1},  [KERN_IQ3_S] = {0, 1},
    [KERN_IQ2_S] = {0, 1},   [KERN_IQ4_XS] = {0, 1}, [KERN_TQ1_0] = {52, 1},  [KERN_TQ2_0] = {64, 1},
};

/* n blocks of a type, in file layout; `fill` >= 0: all bytes are that but the f16 scales. */
static void random_blocks(uint32_t type, uint8_t *block, int64_t n, int kind, int fill) {
    const kern_type_info info = kern_type_get(type);
    for (; n > 0; n--, block += info.block_bytes) {
        for (int i = 0; i < info.block_bytes; i++) block[i] = fill >= 0 ? (uint8_t)fill : (uint8_t)random_u32();
        for (int i = 0; i < block_scales[type].n; i++) {
            uint16_t scale = random_f16(kind);
            memcpy(block + block_scales[type].at + 2 * i, &scale, 2);
        }
        if (type == KERN_MXFP4 && kind == TAME) block[0] = (uint8_t)random_between(120, 130);
    }
}

/* Any integer type. One in four cases has all codes and activations at their extremes. */
static void check_matmul_blocks(const kern_table *k) {
    const uint32_t type = check_type;
    const kern_type_info info = kern_type_get(type);
    product p = random_product(info.block, info.block == 256 ? 4 : 20);
    const int kind = random_kind(), extreme = random_u32() % 4 == 0,
              fill = extreme ? (int)(random_u32() % 2) * 255 : -1;
    const int64_t blocks = p.cols / info.block, groups = p.cols / KERN_BLOCK;
    const int64_t n_panels = (p.rows + KERN_PANEL - 1) / KERN_PANEL;
    const size_t row_bytes = (size_t)(blocks * info.block_bytes), panel_bytes = kern_panel_bytes(type, p.cols);
    uint8_t *panels = slot_take(0, panel_bytes * (size_t)n_panels, 1), *rows = malloc(row_bytes * KERN_PANEL);
    if (!rows) exit(2);
    for (int64_t row = 0; row < p.rows; row += KERN_PANEL) {
        const int64_t left = p.rows - row, n_rows = left < KERN_PANEL ? left : KERN_PANEL;
        random_blocks(type, rows, blocks * n_rows, kind, fill);
        kern_pack(type, p.cols, rows, row_bytes, (int)n_rows, panels + (size_t)(row / KERN_PANEL) * panel_bytes);
    }
    free(rows);
    int8_t *codes = slot_take(1, (size_t)(p.n * p.cols), 1), edge = random_u32() % 2 ? 113 : -127;
    for (int64_t i = 0; i < p.n * p.cols; i++) codes[i] = extreme ? edge : (int8_t)random_between(-127, 113);
    int32_t *sum = slot_take(2, (size_t)(p.n * groups) * sizeof *sum, sizeof *sum);
    for (int64_t b = 0; b < p.n * groups; b++) {
        sum[b] = 0;
        for (int i = 0; i < KERN_BLOCK; i++) sum[b] += codes[b * KERN_BLOCK + i];
    }
    kern_act act = {.codes = codes, .sum = sum, .scale = slot_floats(3, p.n * groups, kind)};
    float *y = slot_output(4, (p.n - 1) * p.ldy + p.rows);
    act.tiles = slot_tiles(5, k, &act, p);
    act.pairs = slot_pairs(6, k, &act, p);
    k->matmul[type](panels, p.rows, p.cols, &act, p.n, y, p.ldy);
    record_matrix(y, p.n, p.rows, p.ldy);
}

/* ---- the checks: attention --------------------------------------------------------------------------------------- */

static int64_t random_head_dim(void) {
    static const int64_t dims[] = {1, 2, 7, 8, 13, 16, 29, 40, 64, 80, 100, 128};
    return dims[random_u32() % (sizeof dims / sizeof *dims)];
}

static void *slot_kv(int i, int64_t n, int type, int kind) {
    if (type == KERN_KV_F32) return slot_floats(i, n, kind);
    uint16_t *p = slot_take(i, (size_t)n * sizeof *p, sizeof *p);
    for (int64_t k = 0; k < n; k++) p[k] = random_f16(kind);
    return p;
}

static void check_qk(const kern_table *k, int type) {
    int64_t n_q = random_between(1, 30), n_keys = random_between(1, 140), dim = random_head_dim();
    int64_t ldq = dim + random_between(0, 5), ldk = n_keys + random_between(0, 9), lds = n_keys + random_between(0, 5);
    int kind = random_kind();
    float *q = slot_floats(0, (n_q - 1) * ldq + dim, kind);
    void *keys = slot_kv(1, (dim - 1) * ldk + n_keys, type, kind);
    float *s = slot_output(2, (n_q - 1) * lds + n_keys);
    k->qk[type](q, ldq, n_q, keys, ldk, n_keys, dim, random_tame(), s, lds, n_q % 2 ? keys : NULL);
    record_matrix(s, n_q, n_keys, lds);
}

static void check_pv(const kern_table *k, int type) {
    int64_t n_q = random_between(1, 30), n_keys = random_between(1, 140), dim = random_head_dim();
    int64_t ldp = n_keys + random_between(0, 5), ldo = dim + random_between(0, 5);
    int kind = random_kind();
    float *p = slot_floats(0, (n_q - 1) * ldp + n_keys, kind);
    void *values = slot_kv(1, n_keys * dim, type, kind);
    float *o = slot_output(2, (n_q - 1) * ldo + dim);
    for (int64_t r = 0; r < n_q; r++)
        for (int64_t d = 0; d < dim; d++) o[r * ldo + d] = random_float(kind);
    k->pv[type](p, ldp, n_q, values, n_keys, dim, o, ldo, n_q % 2 ? values : NULL);
    record_matrix(o, n_q, dim, ldo);
}

static void check_qk_f16(const kern_table *k) {
    check_qk(k, KERN_KV_F16);
}
static void check_qk_f32(const kern_table *k) {
    check_qk(k, KERN_KV_F32);
}
static void check_pv_f16(const kern_table *k) {
    check_pv(k, KERN_KV_F16);
}
static void check_pv_f32(const kern_table *k) {
    check_pv(k, KERN_KV_F32);
}

static int8_t *slot_codes(int i, int64_t n, int low, int extreme) {
    int8_t *p = slot_take(i, (size_t)n, 1), edge = random_u32() % 2 || low == 0 ? 127 : -127;
    for (int64_t k = 0; k < n; k++) p[k] = extreme ? edge : (int8_t)random_between(low, 127);
    return p;
}

static void check_quantize_row(const kern_table *k) {
    int64_t n = random_between(1, 140);
    const float *x = slot_floats(0, n, random_kind());
    int8_t *codes = slot_take(1, (size_t)n, 1);
    float scale;
    k->quantize_row(x, n, codes, &scale);
    record_bytes(codes, n);
    record_floats(&scale, 1);
}

static void check_quantize_weights(const kern_table *k) {
    int64_t n = KERN_BLOCK * random_between(1, 8), n_rows = random_between(1, 5), ldp = n + random_between(0, 5);
    int64_t blocks = n / KERN_BLOCK, lds = blocks + random_between(0, 2), size = (n_rows - 1) * ldp + n;
    int kind = random_kind();
    float *p = slot_floats(0, size, kind);
    for (int64_t i = 0; i < size; i++) p[i] = random_u32() % 4 ? fabsf(p[i]) : 0.0f;
    if (random_u32() % 8 == 0) memset(p, 0, KERN_BLOCK * sizeof *p);
    float *v_scale = slot_floats(1, n, kind);
    for (int64_t i = 0; i < n; i++) v_scale[i] = fabsf(v_scale[i]);
    int8_t *codes = slot_take(2, (size_t)size, 1);
    float *scale = slot_output(3, (n_rows - 1) * lds + blocks);
    k->quantize_weights(p, ldp, n_rows, v_scale, n, codes, scale, lds);
    record_bytes(codes, size);
    record_matrix(scale, n_rows, blocks, lds);
}

static void check_qk_q8(const kern_table *k) {
    int64_t n_q = random_between(1, 50), n_keys = random_between(1, 140), groups = (random_head_dim() + 3) / 4;
    int64_t ldq = 4 * groups + random_between(0, 5), ldk = n_keys + random_between(0, 9);
    int64_t lds = n_keys + random_between(0, 5);
    int kind = random_kind(), extreme = random_u32() % 4 == 0;
    int8_t *q = slot_codes(0, (n_q - 1) * ldq + 4 * groups, -127, extreme);
    int8_t *keys = slot_codes(1, 4 * ((groups - 1) * ldk + n_keys), -127, extreme);
    float *k_scale = slot_floats(2, n_keys, kind), *q_scale = slot_floats(3, n_q, kind);
    float *s = slot_output(4, (n_q - 1) * lds + n_keys);
    k->qk_q8(q, ldq, q_scale, n_q, keys, ldk, k_scale, n_keys, groups, s, lds);
    record_matrix(s, n_q, n_keys, lds);
}

static void check_pv_q8(const kern_table *k) {
    enum { BLOCKS = 8 };
    int64_t n_q = random_between(1, 20), dim = random_head_dim(), page_keys = 16 << random_between(0, 4);
    int64_t first = random_between(0, BLOCKS - 1), end = random_between(first + 1, BLOCKS);
    int64_t ldp = BLOCKS * KERN_BLOCK + random_between(0, 5), lds = BLOCKS + random_between(0, 2);
    int64_t ldo = dim + random_between(0, 5), n_pages = BLOCKS * KERN_BLOCK / page_keys;
    int kind = random_kind(), extreme = random_u32() % 4 == 0;
    int8_t *p = slot_codes(0, (n_q - 1) * ldp + BLOCKS * KERN_BLOCK, 0, extreme);
    int8_t *values = slot_codes(1, BLOCKS * KERN_BLOCK * dim, -127, extreme);
    const int8_t *page[16];
    for (int64_t i = 0; i < n_pages; i++) page[i] = values + (n_pages - 1 - i) * page_keys * dim;
    float *scale = slot_floats(2, (n_q - 1) * lds + BLOCKS, kind), *o = slot_output(3, (n_q - 1) * ldo + dim);
    for (int64_t r = 0; r < n_q; r++)
        for (int64_t d = 0; d < dim; d++) o[r * ldo + d] = random_float(kind);
    k->pv_q8(p, ldp, scale, lds, n_q, page, page_keys, first, end, dim, o, ldo);
    record_matrix(o, n_q, dim, ldo);
}

static void check_softmax_part(const kern_table *k) {
    int64_t n = random_between(1, 140), n_rows = random_between(1, 9), lds = n + random_between(0, 5);
    int64_t size = (n_rows - 1) * lds + n;
    float *s = slot_floats(0, size, random_kind()), *max = slot_output(1, n_rows), *sum = slot_output(2, n_rows);
    const uint32_t which = random_u32() % 8;
    for (int64_t i = 0; i < size && which < 4; i++) /* zeros of both signs, or scores as they usually are */
        s[i] = which >= 2         ? (float)random_between(-3000, 3000) / (which == 2 ? 100.0f : 50.0f)
               : random_u32() % 2 ? -0.0f
                                  : 0.0f;
    if (random_u32() % 8 == 0) s[random_between(0, size - 1)] = NAN;
    k->softmax_part(s, lds, n_rows, n, max, sum);
    record_floats(s, size);
    record_floats(max, n_rows);
    record_floats(sum, n_rows);
}

static void check_clean(const kern_table *k) {
    int64_t n = random_between(1, 800), blocks = (n + KERN_CLEAN - 1) / KERN_CLEAN;
    float *x = slot_floats(0, n, random_kind()), *y = slot_output(1, n), *top = slot_output(2, blocks);
    for (int64_t i = 0; i < n; i++) {
        const uint32_t which = random_u32() % 64;
        if (which < 6) x[i] = (float[]){NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, -0.0f}[which];
    }
    if (random_u32() % 8 == 0) /* nothing but zeros and what is no number */
        for (int64_t i = 0; i < n; i++) x[i] = (float[]){0.0f, -0.0f, NAN, -INFINITY}[random_u32() % 4];
    k->clean(x, n, y, top);
    record_floats(y, n);
    record_floats(top, blocks);
}

/* Numbers up to the largest, of which it is told; some of them minus infinity. */
static void check_weigh(const kern_table *k) {
    int64_t n = random_between(1, 70);
    const int in_place = random_u32() % 4 == 0;
    float *x = slot_floats(0, n, random_kind()), *w = in_place ? x : slot_output(1, n), max = -INFINITY, sum;
    double dot;
    for (int64_t i = 0; i < n; i++) {
        if (!(x[i] >= -FLT_MAX && x[i] <= FLT_MAX)) x[i] = -INFINITY;
        if (x[i] > max) max = x[i];
    }
    if (!(max > -INFINITY)) x[0] = max = 0;
    k->weigh(x, n, max + 0.0f, w, &sum, &dot);
    record_floats(w, n);
    record_floats(&sum, 1);
    record_bytes((const int8_t *)&dot, sizeof dot);
}

static void check_softmax_join(const kern_table *k) {
    int64_t n = random_between(1, 140), n_rows = random_between(1, 20);
    int kind = random_kind();
    float *o = slot_floats(0, n_rows * n, kind), *o2 = slot_floats(1, n_rows * n, kind);
    float *max = slot_floats(2, n_rows, kind), *sum = slot_floats(3, n_rows, kind);
    const float *max2 = slot_floats(4, n_rows, kind), *sum2 = slot_floats(5, n_rows, kind);
    for (int64_t r = 0; r < n_rows; r++)
        if (random_u32() % 4 == 0) max[r] = -INFINITY, sum[r] = 0; /* joined into an empty part */
    k->softmax_join(max, sum, o, max2, sum2, o2, n_rows, n);
    record_floats(o, n_rows * n);
    record_floats(max, n_rows);
    record_floats(sum, n_rows);
}

/* ---- the checks: between the products ---------------------------------------------------------------------------- */

static void check_rms_norm(const kern_table *k) {
    int64_t n = random_between(1, 200);
    int kind = random_kind(), in_place = random_u32() % 2;
    float *x = slot_floats(0, n, kind), *w = slot_floats(1, n, kind), *y = in_place ? x : slot_output(2, n);
    k->rms_norm(x, w, n, 1e-5f, y);
    record_floats(y, n);
}

static void check_layer_norm(const kern_table *k) {
    int64_t n = random_between(1, 200);
    int kind = random_kind(), in_place = random_u32() % 2;
    float *x = slot_floats(0, n, kind), *w = slot_floats(1, n, kind), *b = slot_floats(2, n, kind);
    float *y = in_place ? x : slot_output(3, n);
    k->layer_norm(x, w, b, n, 1e-5f, y);
    record_floats(y, n);
}

static void check_add(const kern_table *k) {
    int64_t n = random_between(1, 70);
    int kind = random_kind();
    float *x = slot_floats(0, n, kind), *y = slot_floats(1, n, kind);
    k->add(x, y, n);
    record_floats(x, n);
}

/* Also shows exp on values of every size. */
static void check_silu_mul(const kern_table *k) {
    int64_t n = random_between(1, 300);
    int kind = random_kind();
    float *gate = slot_floats(0, n, kind), *up = slot_floats(1, n, kind), stretch = random_u32() % 2 ? 1.0f : 30.0f;
    for (int64_t i = 0; i < n; i++) gate[i] *= stretch;
    k->silu_mul(gate, up, n);
    record_floats(gate, n);
}

static void check_gelu_mul(const kern_table *k) {
    int64_t n = random_between(1, 300);
    int kind = random_kind();
    float *gate = slot_floats(0, n, kind), *up = slot_floats(1, n, kind);
    k->gelu_mul(gate, random_u32() % 2 ? up : NULL, n);
    record_floats(gate, n);
}

static void check_softcap(const kern_table *k) {
    int64_t n = random_between(1, 300);
    float *x = slot_floats(0, n, random_kind());
    k->softcap(x, n, random_u32() % 2 ? 1.0f : 50.0f);
    record_floats(x, n);
}

static void check_clamp(const kern_table *k) {
    int64_t n = random_between(1, 70);
    float *x = slot_floats(0, n, random_kind());
    k->clamp(x, n, 1.5f);
    record_floats(x, n);
}

static void check_rope(void (*rope)(float *, int64_t, int64_t, int64_t, const float *)) {
    int64_t n_heads = random_between(1, 3), dim = random_between(1, 130), n_rot = random_between(0, dim / 2) * 2;
    int kind = random_kind();
    if (random_u32() % 2) n_rot = dim / 2 * 2;
    float *x = slot_floats(0, n_heads * dim, kind), *cs = slot_floats(1, n_rot, kind);
    rope(x, n_heads, dim, n_rot, cs);
    record_floats(x, n_heads * dim);
}

static void check_rope_adjacent(const kern_table *k) {
    check_rope(k->rope_adjacent);
}
static void check_rope_split(const kern_table *k) {
    check_rope(k->rope_split);
}

static void check_scale(const kern_table *k) {
    int64_t n = random_between(1, 70);
    int kind = random_kind(), in_place = random_u32() % 2;
    float *x = slot_floats(0, n, kind), *y = in_place ? x : slot_output(1, n);
    k->scale(x, random_float(kind), n, y);
    record_floats(y, n);
}

static void check_to_f16(const kern_table *k) {
    int64_t n = random_between(1, 70);
    float *x = slot_floats(0, n, random_kind());
    for (int64_t i = 0; i < n; i++) /* numbers near a f16 and near the middle of two */
        if (random_u32() % 2)
            x[i] = float_of_bits((bits_of_float(kern_f16_to_f32((uint16_t)random_u32())) ^ (random_u32() % 2 << 12)) +
                                 (uint32_t)random_between(-1, 1));
    uint16_t *y = slot_take(1, (size_t)n * sizeof *y, sizeof *y);
    k->to_f16(x, n, y);
    for (int64_t i = 0; i < n; i++) record_word(y[i]);
}

static void check_from_f16(const kern_table *k) {
    int64_t n = random_between(1, 70);
    uint16_t *x = slot_kv(0, n, KERN_KV_F16, random_kind());
    for (int64_t i = 0; i < n; i++)
        if (random_u32() % 2) x[i] = (uint16_t)random_u32();
    float *y = slot_output(1, n);
    k->from_f16(x, n, y);
    record_floats(y, n);
}

static const struct check {
    const char *op;
    void (*run)(const kern_table *);
    int cases;
    uint64_t hash; /* of ref's results */
    uint32_t type;
} checks[] = {
    {"quantize", check_quantize, 600, 0x80371d64cad539da, 0},
    {"matmul f32", check_matmul_f32, 300, 0x13a9b6c1ec50e97d, 0},
    {"matmul f16", check_matmul_f16, 300, 0x3c168ede53759975, 0},
    {"matmul bf16", check_matmul_bf16, 300, 0xbfdbd399c3646b6f, 0},
    {"matmul q4_0", check_matmul_q4_0, 400, 0x44eb7cf04ebfd764, 0},
    {"matmul q8_0", check_matmul_q8_0, 400, 0x59248a0ca381e27f, 0},
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
    {"matmul q4_1", check_matmul_blocks, 200, 0x2664971b7cd894d9, KERN_Q4_1},
    {"matmul q5_0", check_matmul_blocks, 200, 0x7c991300326a7563, KERN_Q5_0},
    {"matmul q5_1", check_matmul_blocks, 200, 0x5cbbbdb69cc579f1, KERN_Q5_1},
    {"matmul q2_k", check_matmul_blocks, 200, 0x4777a3ecaa9f804a, KERN_Q2_K},
    {"matmul q3_k", check_matmul_blocks, 200, 0x4f505f06347d8108, KERN_Q3_K},
    {"matmul q4_k", check_matmul_blocks, 200, 0xe51ac1468b8630cb, KERN_Q4_K},
    {"matmul q5_k", check_matmul_blocks, 200, 0x2602ed88c894fbdd, KERN_Q5_K},
    {"matmul q6_k", check_matmul_blocks, 200, 0x3c4b1c2b06a1a6cb, KERN_Q6_K},
    {"matmul iq1_s", check_matmul_blocks, 100, 0x09d06caaa706ad48, KERN_IQ1_S},
    {"matmul iq1_m", check_matmul_blocks, 100, 0x137786e5f0f7d12b, KERN_IQ1_M},
    {"matmul iq2_xxs", check_matmul_blocks, 100, 0xde3b8ddcd10e6178, KERN_IQ2_XXS},
    {"matmul iq2_xs", check_matmul_blocks, 100, 0x67dad9390a8f43d7, KERN_IQ2_XS},
    {"matmul iq2_s", check_matmul_blocks, 100, 0x30bf218f4a2db24d, KERN_IQ2_S},
    {"matmul iq3_xxs", check_matmul_blocks, 100, 0x02c43d9e33841798, KERN_IQ3_XXS},
    {"matmul iq3_s", check_matmul_blocks, 100, 0xfd85a2e029b1401c, KERN_IQ3_S},
    {"matmul iq4_nl", check_matmul_blocks, 200, 0x202d4257d73927db, KERN_IQ4_NL},
    {"matmul iq4_xs", check_matmul_blocks, 200, 0xc7f5a05cb73b6b4e, KERN_IQ4_XS},
    {"matmul tq1_0", check_matmul_blocks, 100, 0xd96b9893e1488f17, KERN_TQ1_0},
    {"matmul tq2_0", check_matmul_blocks, 100, 0xbb84cb5a965cacee, KERN_TQ2_0},
    {"matmul mxfp4", check_matmul_blocks, 200, 0x08fa66503243cbe0, KERN_MXFP4},
    {"matmul nvfp4", check_matmul_blocks, 100, 0x1d1df1d2635cf5e7, KERN_NVFP4},
    {"layer_norm", check_layer_norm, 1000, 0x9ff182c0f4f49129, 0},
    {"gelu_mul", check_gelu_mul, 1000, 0x2b7beb82676e0fa6, 0},
    {"softcap", check_softcap, 1000, 0xf255d788cfe02fc2, 0},
    {"clamp", check_clamp, 1000, 0xea871519bb15c050, 0},
    {"quantize_row", check_quantize_row, 1000, 0x8d7a50a735660a8a, 0},
    {"quantize_weights", check_quantize_weights, 500, 0xd6a1a6debe869255, 0},
    {"qk q8", check_qk_q8, 300, 0x0374d5e6a958c7db, 0},
    {"pv q8", check_pv_q8, 300, 0x3dcb95c3706bcfb8, 0},
    {"clean", check_clean, 300, 0x0ac3540283830a51, 0},
    {"weigh", check_weigh, 1000, 0xf081961fe41160a5, 0},
};

enum { N_CHECKS = sizeof checks / sizeof *checks };

/* ---- running them ------------------------------------------------------------------------------------------------ */

enum { MAX_TABLES = 8 };

static int n_passed, n_failed;

static void report(int ok, const char *op, const char *isa, const char *detail) {
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

static uint64_t case_seed(uint64_t seed, int check, int number) {
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

/* ---- packing, and the values of the quantised fixtures ------------------------------------------------------------
 */

static int same_values(const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (bits_of_float(a[i]) != bits_of_float(b[i]) && (a[i] == a[i] || b[i] == b[i])) return 0;
    return 1;
}

/* Rows in file layout, packed and unpacked again, are what kern_dequantize makes of them. */
static int round_trip(uint32_t type, const uint8_t *rows, int n_rows, int64_t cols) {
    kern_type_info info = kern_type_get(type);
    size_t row_bytes = (size_t)(cols / info.block * info.block_bytes), bytes = kern_panel_bytes(type, cols);
    float *expected = slot_output(1, cols), *found = slot_output(2, cols);
    uint8_t *panel = slot_take(3, bytes, 1);
    int ok = bytes == row_bytes * KERN_PANEL;
    kern_pack(type, cols, rows, row_bytes, n_rows, panel);
    for (int r = 0; r < n_rows && ok; r++) {
        kern_dequantize(type, rows + (size_t)r * row_bytes, cols, expected);
        kern_unpack_row(type, cols, panel, r, found);
        ok = same_values(expected, found, cols);
    }
    if (n_rows < KERN_PANEL && ok) { /* a missing row is zero */
        kern_unpack_row(type, cols, panel, KERN_PANEL - 1, found);
        for (int64_t i = 0; i < cols; i++) ok = ok && found[i] == 0;
    }
    slots_verify();
    return ok && !check_damage;
}

/* Every instruction set packs to the same bytes. */
static void check_packing_of(const kern_table *table) {
    check_isa = table->isa;
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        kern_type_info info = kern_type_get(type);
        if (!info.has_kernels) continue;
        int ok = 1;
        check_damage = 0;
        for (int i = 0; i < 200 && ok; i++) {
            random_state = case_seed(1, 200 + (int)type, i);
            int n_rows = i % 4 ? KERN_PANEL : (int)random_between(1, KERN_PANEL);
            int64_t cols = info.block * random_between(1, i % 2 ? 9 : 40);
            size_t row_bytes = (size_t)(cols / info.block * info.block_bytes);
            size_t stride = row_bytes + (size_t)random_between(0, 5), bytes = kern_panel_bytes(type, cols);
            uint8_t *rows = slot_take(0, stride * (size_t)(n_rows - 1) + row_bytes, 1);
            for (size_t k = 0; k < stride * (size_t)(n_rows - 1) + row_bytes; k++) rows[k] = (uint8_t)random_u32();
            uint8_t *expected = slot_take(1, bytes, 1), *found = slot_take(2, bytes, 1);
            memset(found, 0xa5, bytes);
            kern_pack(type, cols, rows, stride, n_rows, expected);
            table->pack(type, cols, rows, stride, n_rows, found);
            ok = !memcmp(expected, found, bytes);
            slots_verify();
            ok = ok && !check_damage;
        }
        report(ok, "pack", info.name, "");
    }
}

static void check_packing(void) {
    check_isa = "";
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        kern_type_info info = kern_type_get(type);
        if (!info.has_kernels) continue;
        int ok = 1;
        check_damage = 0;
        check_op = info.name;
        for (int i = 0; i < 200 && ok; i++) {
            random_state = case_seed(1, 100 + (int)type, i);
            int n_rows = (int)random_between(1, KERN_PANEL);
            int64_t cols = info.block * random_between(1, 9);
            size_t bytes = (size_t)(cols / info.block * info.block_bytes * n_rows);
            uint8_t *rows = slot_take(0, bytes, 1);
            for (size_t k = 0; k < bytes; k++) rows[k] = (uint8_t)random_u32();
            ok = round_trip(type, rows, n_rows, cols);
        }
        ok = ok && kern_panel_bytes(type, 0) == 0 && kern_panel_bytes(type, -256) == 0;
        ok = ok && kern_panel_bytes(type, INT64_MAX / 256 * 256) == 0; /* more than there can be */
        if (info.block > 1) ok = ok && kern_panel_bytes(type, info.block + 1) == 0;
        report(ok, "pack and unpack", info.name, "");
    }
}

/* The column of the first bad scale of a row of n blocks, in a panel whose other rows are good, or count for nothing.
 */
static int64_t find_bad_scale(uint32_t type, const uint8_t *blocks, int n) {
    const kern_type_info info = kern_type_get(type);
    const size_t bytes = (size_t)n * (size_t)info.block_bytes;
    const int row = (int)random_between(0, KERN_PANEL - 1);
    uint8_t *rows = calloc(KERN_PANEL, bytes), *panel = malloc(KERN_PANEL * bytes);
    int64_t col = -1;
    if (!rows || !panel) abort();
    memcpy(rows + (size_t)row * bytes, blocks, bytes);
    kern_pack(type, (int64_t)n * info.block, rows, bytes, KERN_PANEL, panel);
    const int found = kern_find_bad_scale(type, (int64_t)n * info.block, panel, KERN_PANEL, &col);
    const int above = kern_find_bad_scale(type, (int64_t)n * info.block, panel, row, &(int64_t){0});
    free(rows);
    free(panel);
    return above != -1 || (found != -1 && found != row) ? -2 : found < 0 ? -1 : col;
}

/* A scale that is no number is found, and only that. */
static void check_bad_scales(void) {
    static const uint16_t bad[] = {0x7c00, 0xfc00, 0x7e00, 0xffff}, good[] = {0x7bff, 0xfbff, 0x8000, 0x0001};
    check_isa = "";
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        const struct block_scales s = block_scales[type];
        const kern_type_info info = kern_type_get(type);
        uint8_t block[3 * 256];
        if (!s.n && type != KERN_MXFP4 && type != KERN_IQ1_M) continue;
        int ok = 1;
        for (int i = 0; i < 4 * (s.n ? s.n : 1) && ok; i++) {
            random_state = case_seed(1, 300 + (int)type, i);
            random_blocks(type, block, 3, TAME, type == KERN_IQ1_M ? 0x11 : -1);
            ok = find_bad_scale(type, block, 3) == -1;
            for (int b = 0; b < 3; b++) {
                uint8_t *at = block + b * info.block_bytes;
                const uint16_t *value = b == 1 ? bad : good;
                if (s.n) memcpy(at + s.at + i / 4 * 2, &value[i % 4], 2);
                if (type == KERN_MXFP4) at[0] = b == 1 ? 0xff : 0xfe;
                for (int k = 0; k < 4 && type == KERN_IQ1_M; k++) /* four bits here and there */
                    at[49 + 2 * k] = (uint8_t)((at[49 + 2 * k] & 15) | (value[i % 4] >> 4 * k & 15) << 4);
            }
            ok = ok && find_bad_scale(type, block, 3) == info.block;
            ok = ok && find_bad_scale(type, block, 1) == -1;
        }
        report(ok, "bad scales", info.name, "");
    }
}

static uint8_t *read_file(const char *folder, const char *type, const char *end, size_t *size) {
    char path[512];
    snprintf(path, sizeof path, "%s/fixtures/quants/%s%s", folder, type, end);
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    uint8_t *p = malloc(1 << 20);
    *size = p ? fread(p, 1, 1 << 20, f) : 0;
    fclose(f);
    return p;
}

/* A fixture holds tensors of 8 x 512, 3 x 256 and 24 x 256 values; each starts at a multiple of 32 bytes and the last
 * is padded too, so their sizes lead back from the end of the file. */
static int fixture_values(uint32_t type, const uint8_t *file, size_t size, const float *expected) {
    static const int64_t shape[3][2] = {{8, 512}, {3, 256}, {24, 256}};
    kern_type_info info = kern_type_get(type);
    size_t total = 0, bytes[3];
    for (int i = 0; i < 3; i++) {
        bytes[i] = (size_t)(shape[i][0] * shape[i][1] / info.block * info.block_bytes);
        total += (bytes[i] + 31) / 32 * 32;
    }
    if (size < total || size - total != 288) return 0; /* so long are the headers of all these files */
    const uint8_t *data = file + (size - total);
    float *found = slot_output(0, 24 * 256);
    for (int i = 0; i < 3; i++) {
        int64_t n = shape[i][0] * shape[i][1];
        if (info.has_kernels) {
            kern_dequantize(type, data, n, found);
            if (!same_values(found, expected, n)) return 0;
            if (!round_trip(type, data, i == 1 ? 3 : 8, shape[i][1])) return 0;
        }
        data += (bytes[i] + 31) / 32 * 32;
        expected += n;
    }
    return 1;
}

static void check_fixtures(void) {
    const char *folder = getenv("MINIM_SHARED");
    if (!folder) folder = "../shared";
    int found = 0;
    for (uint32_t type = 0; type < 64; type++) {
        kern_type_info info = kern_type_get(type);
        if (!info.name) continue;
        char name[16] = {0};
        for (size_t i = 0; info.name[i]; i++)
            name[i] = info.name[i] >= 'A' && info.name[i] <= 'Z' ? (char)(info.name[i] + 32) : info.name[i];
        size_t size = 0, values_size = 0;
        uint8_t *file = read_file(folder, name, ".gguf", &size);
        uint8_t *values = read_file(folder, name, ".f32", &values_size);
        if (file && values) {
            found++;
            check_damage = 0;
            check_op = check_isa = info.name;
            int ok = values_size == 11008 * sizeof(float) && fixture_values(type, file, size, (const void *)values);
            report(ok, info.has_kernels ? "fixture values" : "fixture size", info.name, "");
        }
        free(file);
        free(values);
    }
    if (!found) printf("note: no fixtures in %s/fixtures/quants, that part is left out\n", folder);
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
