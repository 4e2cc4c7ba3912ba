/* test_pack.c: `minim pack`: a packed file gives the logits and values of the file it was made from, on every way to
 * load and run it; its pages are shared; what is damaged or of another version is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../engine/engine.h"
#include "../engine/gguf.h"
#include "../kernels/kernels.h"
#include "../router/sha256.h"
#include "count_allocator.h"
#include "family_model.h"
#include "gguf_writer.h"
#include "synth.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

#if defined(__SANITIZE_THREAD__)
enum { N_TOKENS = 2 }; /* where every byte that plain C reads costs a call */
#else
enum { N_TOKENS = 12 };
#endif
enum { N_VOCAB = 512 };

static char folder[64], input[96], output[96], err[4096], out[16384];

static int setup(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/minim-pack-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(input, sizeof input, "%s/in.gguf", folder);
    snprintf(output, sizeof output, "%s/out.gguf", folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void ok(minim_status status, const minim_error *e) {
    if (status) fail_msg("%s: %s", minim_status_name(status), e->text);
}

static void slurp(const char *name, char *text, size_t size) {
    char path[96];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    const size_t n = file ? fread(text, 1, size - 1, file) : 0;
    text[n] = 0;
    if (file) fclose(file);
}

/* `minim` with these arguments; the exit code. Fills out and err. */
static int run(const char *before, const char *arguments) {
    const char *b = getenv("B");
    char command[1024];
    snprintf(command, sizeof command, "%s%s/minim %s >%s/text 2>%s/err </dev/null", before, b ? b : "build", arguments,
             folder, folder);
    const int status = system(command);
    slurp("text", out, sizeof out);
    slurp("err", err, sizeof err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void *read_all(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    struct stat status;
    assert_true(file && !fstat(fileno(file), &status));
    uint8_t *bytes = malloc((size_t)status.st_size);
    assert_non_null(bytes);
    *size = fread(bytes, 1, (size_t)status.st_size, file);
    assert_int_equal(*size, status.st_size);
    fclose(file);
    return bytes;
}

typedef struct file_image {
    void *bytes;
    size_t size;
} file_image;

/* Packs an image, which is freed, from `input` to `output`. */
static void pack(file_image image) {
    char arguments[256];
    assert_non_null(image.bytes);
    assert_int_equal(gw_save(input, image.bytes, image.size), 0);
    free(image.bytes);
    snprintf(arguments, sizeof arguments, "pack -q %s %s", input, output);
    if (run("", arguments)) fail_msg("minim %s: %s", arguments, err);
}

/* The 8 or 20 rows of k and v end in a panel that is not full. */
static file_image model_of(uint32_t type, int tied) {
    const synth_shape shape = {type, 2, 256, 32, 1, 8, 256, 64, tied, 1, 1, 0};
    const synth_shape floats = {type, 2, 40, 2, 1, 20, 72, 64, tied, 1, 1, 0};
    file_image image = {NULL, 0};
    image.bytes = synth_model(kern_type_get(type).integer ? &shape : &floats, &image.size);
    return image;
}

static file_image family_of(const family_model *f) {
    file_image image = {NULL, 0};
    image.bytes = family_model_image(f, -1, FAMILY_INTACT, NULL, &image.size);
    return image;
}

/* ---- logits ------------------------------------------------------------------------------------------------------ */

static uint64_t hash_logits(const minim_model *m, const char *isa, int threads) {
    minim_engine *engine;
    minim_seq *seq;
    minim_engine_options o;
    minim_error e;
    minim_row rows[N_TOKENS];
    int32_t tokens[N_TOKENS];
    static float logits[N_TOKENS * N_VOCAB];
    minim_engine_options_default(&o);
    o.isa = isa, o.n_threads = threads, o.n_ctx = 32;
    ok(minim_engine_new(m, &o, &engine, &e), &e);
    engine->share_all = 1;
    ok(minim_seq_new(engine, &seq, &e), &e);
    synth_tokens(tokens, N_TOKENS);
    for (int i = 0; i < N_TOKENS; i++) rows[i] = (minim_row){seq, tokens[i], 1};
    ok(minim_engine_step(engine, rows, N_TOKENS, logits, &e), &e);
    minim_seq_free(seq);
    minim_engine_free(engine);
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < sizeof logits; i++) h = (h ^ ((const uint8_t *)logits)[i]) * 1099511628211u;
    return h;
}

static minim_model *load(const char *path, int no_map, const minim_allocator *a) {
    minim_model *m;
    minim_model_options o;
    minim_error e;
    minim_model_options_default(&o);
    o.no_map = no_map, o.allocator = a;
    o.n_threads = a ? 1 : 2; /* count_allocator is for one thread */
    ok(minim_model_load(path, &o, &m, &e), &e);
    return m;
}

static minim_model_info info_of(const minim_model *m) {
    minim_model_info info = {.size = sizeof info};
    assert_int_equal(minim_model_get_info(m, &info), MINIM_OK);
    return info;
}

/* input and output give the same logits, however the packed one is loaded. */
static void same_logits(const char *what, int every_isa) {
    minim_error e;
    size_t size;
    void *image = read_all(output, &size);
    count_allocator counter = {0};
    const minim_allocator a = count_allocator_get(&counter);
    minim_model *plain = load(input, 0, NULL);
    minim_model *packed[4] = {load(output, 0, NULL), load(output, 1, NULL), load(output, 0, &a), NULL};
    ok(minim_model_load_memory(image, size, "image", NULL, &packed[3], &e), &e);
    memset(image, 0xff, size); /* not needed any more */
    free(image);
    assert_int_equal(info_of(plain).panels, 0);
    assert_int_equal(info_of(plain).mapped_bytes, 0);
    for (int i = 0; i < 4; i++) {
        const minim_model_info info = info_of(packed[i]);
        assert_int_equal(info.panels, KERN_PANEL_LAYOUT);
        assert_int_equal(info.weight_bytes, info_of(plain).weight_bytes);
        assert_int_equal(info.n_params, info_of(plain).n_params);
        assert_int_equal(info.mapped_bytes > 0, i == 0);
    }
    const uint64_t expected = hash_logits(plain, "ref", 1);
    for (int i = 0; i < 4; i++)
        for (int k = 0; kern_isa_name(k); k++) {
            if (!kern_isa_available(kern_isa_name(k)) || (k && i && !every_isa)) continue;
            if (hash_logits(packed[i], kern_isa_name(k), 1 + (i + k) % 3) != expected)
                fail_msg("%s, loaded in way %d, %s: other logits", what, i, kern_isa_name(k));
        }
    for (int i = 0; i < 4; i++) minim_model_free(packed[i]);
    minim_model_free(plain);
    assert_true(count_allocator_clean(&counter));
}

static void every_type_gives_the_same_logits(void **state) {
    (void)state;
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        if (!kern_type_get(type).has_kernels) continue;
        pack(model_of(type, type % 2 == 0));
        same_logits(kern_type_get(type).name, type == KERN_Q4_0 || type == KERN_Q6_K);
    }
}

/* With fused matrices, biases, factors and norms of every kind. */
static void every_family_gives_the_same_logits(void **state) {
    (void)state;
    for (const family_model *f = family_models; f->name; f++) {
        pack(family_of(f));
        same_logits(f->name, 0);
    }
}

/* ---- values, keys ------------------------------------------------------------------------------------------------ */

static minim_model *load_header(const char *path) {
    minim_model *m;
    minim_model_options o;
    minim_error e;
    minim_model_options_default(&o);
    o.level = MINIM_LOAD_HEADER;
    ok(minim_model_load(path, &o, &m, &e), &e);
    return m;
}

/* Also in pieces that begin and end in the middle of rows and panels. */
static void values_and_keys_stay(void **state) {
    (void)state;
    static const uint32_t types[] = {KERN_F32, KERN_BF16, KERN_Q4_0, KERN_Q6_K, KERN_IQ3_S};
    for (size_t i = 0; i < COUNT(types); i++) {
        size_t n_packed = 0;
        pack(model_of(types[i], 0));
        minim_model *a = load_header(input), *b = load_header(output);
        assert_int_equal(minim_model_meta_count(a) + 2, minim_model_meta_count(b)); /* alignment, minim.panels */
        assert_int_equal(minim_model_tensor_count(a), minim_model_tensor_count(b));
        for (size_t t = 0; t < minim_model_tensor_count(a); t++) {
            minim_tensor x, y;
            minim_error e;
            minim_model_tensor(a, t, &x);
            minim_model_tensor(b, t, &y);
            assert_string_equal(x.name, y.name);
            assert_string_equal(x.type, y.type);
            assert_string_equal(x.layout, y.layout);
            assert_memory_equal(x.dims, y.dims, sizeof x.dims);
            assert_int_equal(y.offset % 64, 0);
            const size_t n = (size_t)(x.dims[0] * x.dims[1]);
            float *from = malloc(n * sizeof *from), *to = malloc(n * sizeof *to);
            assert_true(from && to);
            ok(minim_model_tensor_values(a, t, 0, n, from, &e), &e);
            for (size_t at = 0, k = 1; at < n; at += k, k = k * 7 % 1009) {
                if (k > n - at) k = n - at;
                ok(minim_model_tensor_values(b, t, at, k, to + at, &e), &e);
            }
            if (memcmp(from, to, n * sizeof *from)) fail_msg("%s: other values", x.name);
            assert_int_equal(minim_model_tensor_values(b, t, n, 1, to, &e), MINIM_ERR_ARGUMENT);
            free(from);
            free(to);
            minim_panels p = {.size = sizeof p};
            ok(minim_model_panels(a, t, &p, &e), &e);
            n_packed += p.n > 0;
            assert_int_equal(p.n ? p.n * p.panel_bytes : x.bytes, y.bytes);
            ok(minim_model_panels(b, t, &p, &e), &e);
            assert_int_equal(p.n, 0);
        }
        assert_int_equal(n_packed, 2 * 7 + 2);
        minim_model_free(a);
        minim_model_free(b);
    }
}

/* Files with these bytes lie on disks. Whoever changes them has to raise KERN_PANEL_LAYOUT: then old files are refused
 * instead of misread. */
static void the_layout_is_that_of_its_version(void **state) {
    (void)state;
    sha256_state hash;
    uint8_t digest[32];
    char hex[65];
    sha256_begin(&hash);
    for (uint32_t type = 0; type < KERN_TYPE_END; type++) {
        const int64_t cols = kern_type_get(type).integer ? 512 : 33;
        const size_t bytes = kern_panel_bytes(type, cols);
        if (!bytes) continue;
        uint8_t *rows = malloc(bytes), *panel = malloc(bytes);
        assert_true(rows && panel);
        uint32_t seed = type;
        for (size_t i = 0; i < bytes; i++) {
            seed = seed * 1664525u + 1013904223u;
            rows[i] = (uint8_t)(seed >> 24);
        }
        for (int n_rows = 5; n_rows <= 16; n_rows += 11) {
            kern_pack(type, cols, rows, bytes / 16, n_rows, panel);
            sha256_add(&hash, panel, bytes);
        }
        free(rows);
        free(panel);
    }
    sha256_end(&hash, digest);
    sha256_to_hex(digest, hex);
    assert_int_equal(KERN_PANEL_LAYOUT, 1);
    assert_string_equal(hex, "05584850d0da45a9b37c627585fc1a76961af8a500f9701b9147839d711ca190");
}

/* ---- mapping ----------------------------------------------------------------------------------------------------- */

static int is_mapped(const char *path) {
    char line[512];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) found |= strstr(line, path) && strstr(line, " r--s ");
    if (maps) fclose(maps);
    return found;
}

static void pages_are_shared_and_outlive_their_name(void **state) {
    (void)state;
    pack(model_of(KERN_Q8_0, 0));
    minim_model *m = load(output, 0, NULL);
    assert_true(is_mapped(output));
    const uint64_t expected = hash_logits(m, NULL, 1);
    pack(model_of(KERN_Q4_0, 0)); /* another file of that name */
    assert_true(hash_logits(m, NULL, 1) == expected);
    minim_model *other = load(output, 0, NULL);
    assert_true(hash_logits(other, NULL, 1) != expected);
    assert_int_equal(unlink(output), 0);
    assert_true(hash_logits(m, NULL, 2) == expected);
    minim_model_free(other);
    minim_model_free(m);
    assert_false(is_mapped(output));
}

static void all_memory_of_a_caller_with_an_allocator_is_his(void **state) {
    (void)state;
    pack(model_of(KERN_Q4_K, 0));
    count_allocator counter = {0};
    const minim_allocator a = count_allocator_get(&counter);
    minim_model *m = load(output, 0, &a);
    assert_false(is_mapped(output));
    assert_true(counter.bytes >= info_of(m).weight_bytes);
    minim_model_free(m);
    assert_true(count_allocator_clean(&counter));
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    pack(model_of(KERN_Q5_0, 0));
    for (int packed = 0; packed < 2; packed++)
        for (int level = MINIM_LOAD_HEADER; level <= MINIM_LOAD_ALL; level += 2) {
            int failed = 1;
            for (size_t at = 1; failed; at++) {
                static float values[600];
                count_allocator counter = {.fail_at = at};
                const minim_allocator a = count_allocator_get(&counter);
                minim_model *m = NULL;
                minim_model_options o;
                minim_error e;
                minim_model_options_default(&o);
                o.allocator = &a, o.level = (minim_load_level)level, o.n_threads = 1;
                minim_status s = minim_model_load(packed ? output : input, &o, &m, &e);
                for (size_t t = 0; !s && level == MINIM_LOAD_HEADER && t < minim_model_tensor_count(m) && !s; t++) {
                    static uint8_t panel[1 << 16];
                    minim_panels p = {.size = sizeof p};
                    s = minim_model_tensor_values(m, t, 0, 8, values, &e);
                    if (!s) s = minim_model_panels(m, t, &p, &e);
                    assert_true(p.panel_bytes <= sizeof panel);
                    if (!s && p.n) s = minim_model_read_panels(m, t, p.n - 1, 1, panel, &e);
                }
                if (s) assert_int_equal(s, MINIM_ERR_MEMORY);
                failed = s != MINIM_OK;
                minim_model_free(m);
                assert_true(count_allocator_clean(&counter));
                assert_true(at < 10000);
            }
        }
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

/* An image whose every change is tried: through memory and through a mapped file. Returns the status; it must be the
 * same, and the texts too but for the name. */
static minim_status try_image(const void *image, size_t size, char *text) {
    minim_model *m = NULL, *m2 = NULL;
    minim_model_options o;
    minim_error e = {.status = MINIM_OK}, e2 = {.status = MINIM_OK};
    minim_model_options_default(&o);
    o.n_threads = 1;
    const minim_status s = minim_model_load_memory(image, size, output, &o, &m, &e);
    assert_int_equal(gw_save(output, image, size), 0);
    const minim_status s2 = minim_model_load(output, &o, &m2, &e2);
    minim_model_free(m);
    minim_model_free(m2);
    assert_int_equal(s, s2);
    assert_string_equal(s ? e.text : "", s2 ? e2.text : "");
    if (text) snprintf(text, sizeof e.text, "%s", s ? e.text : "");
    return s;
}

static void expect(const void *image, size_t size, minim_status status, const char *words) {
    char text[sizeof(minim_error)];
    const minim_status s = try_image(image, size, text);
    if (s != status || !strstr(text, words))
        fail_msg("%s: \"%s\"; expected %s and \"%s\"", minim_status_name(s), text, minim_status_name(status), words);
}

static uint8_t *find_bytes(uint8_t *image, size_t size, const void *bytes, size_t n) {
    for (size_t i = 0; i + n <= size; i++)
        if (!memcmp(image + i, bytes, n)) return image + i;
    fail_msg("not found");
    return NULL;
}

/* The value of a u32 key. */
static uint8_t *find_u32(uint8_t *image, size_t size, const char *key) {
    return find_bytes(image, size, key, strlen(key)) + strlen(key) + 4;
}

/* Number of dimensions of a tensor; the dimensions follow, then type and offset. */
static uint8_t *find_dims(uint8_t *image, size_t size, const char *name) {
    return find_bytes(image, size, name, strlen(name)) + strlen(name);
}

static void put_number(uint8_t *at, uint64_t x, int n) {
    for (int i = 0; i < n; i++) at[i] = (uint8_t)(x >> 8 * i);
}

static void other_layouts_and_lies_are_refused(void **state) {
    (void)state;
    size_t size, size2;
    pack(model_of(KERN_Q4_0, 0));
    uint8_t *good = read_all(output, &size2), *image = malloc(size2), *at;
    size = size2;
    assert_non_null(image);
    expect(good, size, MINIM_OK, "");
#define AGAIN() memcpy(image, good, size)
    AGAIN(), put_number(find_u32(image, size, "minim.panels"), 2, 4);
    expect(image, size, MINIM_ERR_UNSUPPORTED, "is 2: the weights were packed by another version of minim, expected 1");
    AGAIN(), put_number(find_u32(image, size, "minim.panels") - 4, 5, 4); /* i32 */
    expect(image, size, MINIM_ERR_FORMAT, "is i32, expected u32");
    AGAIN(), find_u32(image, size, "minim.panels")[-5] = 'z'; /* no such key */
    expect(image, size, MINIM_ERR_FORMAT, "no key 'minim.panels'");
    AGAIN(), put_number(find_u32(image, size, "general.alignment"), 32, 4);
    expect(image, size, MINIM_ERR_FORMAT, "general.alignment is 32, expected at least 64");
    AGAIN(), at = find_dims(image, size, "blk.0.attn_q.weight");
    put_number(at + 20, GGUF_PANELS + 26, 4); /* I32 */
    expect(image, size, MINIM_ERR_FORMAT, "expected a type that minim computes with");
    AGAIN(), put_number(find_dims(image, size, "blk.0.attn_q.weight") + 20, GGUF_PANELS + 5, 4);
    expect(image, size, MINIM_ERR_FORMAT, "is not known to minim");
    AGAIN(), at = find_dims(image, size, "blk.0.attn_q.weight");
    put_number(at + 12, INT64_MAX / 256, 8); /* fewer elements than 2^63, but of 4 bytes */
    put_number(at + 20, GGUF_PANELS + KERN_F32, 4);
    expect(image, size, MINIM_ERR_FORMAT, "more than 2^63");
    AGAIN(), put_number(find_dims(image, size, "blk.0.attn_q.weight") + 12, 1 << 20, 8);
    expect(image, size, MINIM_ERR_FORMAT, "the file is cut");
    AGAIN(), put_number(find_dims(image, size, "blk.0.attn_q.weight") + 4, 100, 8);
    expect(image, size, MINIM_ERR_FORMAT, "multiple of 32");
    AGAIN(), at = find_dims(image, size, "blk.0.attn_q.weight");
    at[24] |= 32;
    expect(image, size, MINIM_ERR_FORMAT, "not a multiple of the alignment 64");
#undef AGAIN
    free(good);
    free(image);
}

/* Of a tensor in `output`, from the start of the file. */
static size_t offset_of(const char *name) {
    minim_model *m = load_header(output);
    minim_tensor t;
    size_t index = 0;
    while (!minim_model_tensor(m, index, &t) && strcmp(t.name, name) != 0) index++;
    minim_model_free(m);
    return (size_t)t.offset;
}

/* Fused matrices whose parts end within a panel: `minim pack` leaves them as they are, and who packs them all the same
 * is refused, as is a norm in panels. */
static void panels_where_none_may_be_are_refused(void **state) {
    (void)state;
    const family_model *f = family_models;
    while (f->name && (f->parts & (FM_FUSED_QKV | FM_FUSED_FFN)) != (FM_FUSED_QKV | FM_FUSED_FFN)) f++;
    assert_non_null(f->name);
    family_model odd = *f;
    odd.n_ff = 40, odd.n_heads = odd.n_kv_heads = 4, odd.head_dim = odd.n_rot = 10;
    static const struct {
        const char *tensor, *words;
        int n_dims;
    } cases[] = {{"blk.0.attn_qkv.weight", "a part of it begins at row 40", 2},
                 {"blk.0.ffn_up.weight", "a part of it begins at row 40", 2},
                 {"blk.0.attn_norm.weight", "2 dimensions", 1}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        enum { ROOM = 1 << 16 };
        size_t size;
        pack(family_of(&odd));
        same_logits("odd parts", 0);
        uint8_t *good = read_all(output, &size);
        const size_t end = (size + 63) / 64 * 64, is_at = offset_of(cases[i].tensor);
        uint8_t *image = calloc(1, end + ROOM); /* panels need more bytes than rows: they go behind the end */
        assert_non_null(image);
        memcpy(image, good, size);
        uint8_t *type = find_dims(image, size, cases[i].tensor) + 4 + 8 * cases[i].n_dims, *offset = type + 4;
        put_number(type, GGUF_PANELS + KERN_F32, 4);
        put_number(offset, gguf_little(offset, 8) + (end - is_at), 8);
        expect(image, end + ROOM, MINIM_ERR_FORMAT, cases[i].words);
        free(good);
        free(image);
    }
}

static void scales_that_are_no_numbers_are_refused(void **state) {
    (void)state;
    size_t size;
    pack(model_of(KERN_Q4_0, 0));
    uint8_t *image = read_all(output, &size);
    const size_t panel = kern_panel_bytes(KERN_Q4_0, 256), codes = 256 / 2 * 16; /* codes, then scales [8][16] */
    uint8_t *q = image + offset_of("blk.1.attn_q.weight") + panel + codes;       /* of the second panel */
    uint8_t *k = image + offset_of("blk.1.attn_k.weight") + codes;               /* has 8 rows */
    put_number(q + 2 * (16 * 3 + 5), 0x7e00, 2);
    expect(image, size, MINIM_ERR_FORMAT, "row 21, column 96 is infinite or not a number");
    put_number(q + 2 * (16 * 3 + 5), 0x3c00, 2);
    put_number(k + 2 * (16 * 3 + 8), 0x7c00, 2); /* of a row that is not there */
    expect(image, size, MINIM_OK, "");
    put_number(k + 2 * (16 * 3 + 7), 0x7c00, 2);
    expect(image, size, MINIM_ERR_FORMAT, "row 7, column 96 is infinite or not a number");
    free(image);
}

/* Any byte of the header, any length: an error or a model, nothing else. */
static void any_header_and_any_length_is_borne(void **state) {
    (void)state;
    size_t size;
    gw w;
    gw_init(&w);
    gw_str(&w, "general.architecture", "llama");
    gw_alignment(&w, 64);
    gw_u32(&w, "minim.panels", KERN_PANEL_LAYOUT);
    gw_tensor(&w, "token_embd.weight", GGUF_PANELS + KERN_Q4_0, 2, (uint64_t[]){32, 20}, NULL, 2 * 18 * 16);
    gw_tensor(&w, "output.weight", GGUF_PANELS + KERN_F16, 2, (uint64_t[]){5, 16}, NULL, 5 * 2 * 16);
    gw_tensor(&w, "output_norm.weight", KERN_F32, 1, (uint64_t[]){32}, NULL, 128);
    uint8_t *image = gw_finish(&w, &size);
    const size_t header = 24 + w.keys.n + w.infos.n;
    static float values[640];
    int n_good = 0;
    for (size_t i = 0; i < header * 4 + size; i++) {
        static const uint8_t change[] = {1, 0x10, 0x80, 0xff};
        const size_t n = i < header * 4 ? size : i - header * 4;
        minim_model *m = NULL;
        minim_model_options o;
        minim_error e;
        minim_model_options_default(&o);
        o.level = MINIM_LOAD_HEADER;
        if (i < header * 4) image[i / 4] ^= change[i % 4];
        uint8_t *exact = malloc(n ? n : 1);
        assert_non_null(exact);
        memcpy(exact, image, n);
        const minim_status s = minim_model_load_memory(exact, n, "image", &o, &m, &e);
        assert_true(!s || e.text[0]);
        n_good += !s;
        for (size_t t = 0; !s && t < minim_model_tensor_count(m); t++)
            minim_model_tensor_values(m, t, 3, 9, values, &e);
        minim_model_free(m);
        free(exact);
        if (i < header * 4) image[i / 4] ^= change[i % 4];
    }
    assert_true(n_good > 0);
    free(image);
    gw_free(&w);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static void expect_refusal(const char *before, const char *arguments, int code, const char *words) {
    const int found = run(before, arguments);
    if (found != code || !strstr(err, words))
        fail_msg("%s: exit code %d, \"%s\"; expected %d and \"%s\"", arguments, found, err, code, words);
}

static void the_other_commands_know_packed_files(void **state) {
    (void)state;
    char arguments[512], text[2][4096];
    snprintf(arguments, sizeof arguments, "pack models/stories260K.gguf %s", output);
    if (run("", arguments)) fail_msg("%s", err);
    assert_non_null(strstr(err, "37 matrices packed, 11 tensors kept"));
    for (int i = 0; i < 2; i++) {
        const char *model = i ? output : "models/stories260K.gguf";
        snprintf(arguments, sizeof arguments, "run -q -m %s -n 30 %s 'Once upon a time'", model, i ? "--no-mmap" : "");
        assert_int_equal(run("", arguments), 0);
        memcpy(text[i], out, sizeof text[i]);
    }
    assert_string_equal(text[0], text[1]);
    snprintf(arguments, sizeof arguments, "inspect %s", output);
    assert_int_equal(run("", arguments), 0);
    assert_non_null(strstr(out, "packed         by minim pack"));
    snprintf(arguments, sizeof arguments, "inspect --json %s", output);
    assert_int_equal(run("", arguments), 0);
    assert_non_null(strstr(out, "\"panels\": 1"));
    snprintf(arguments, sizeof arguments, "tokenize -m %s 'Once upon'", output);
    assert_int_equal(run("", arguments), 0);
    snprintf(arguments, sizeof arguments, "bench -m %s -p 4 -n 2 -r 1", output);
    assert_int_equal(run("", arguments), 0);
    snprintf(arguments, sizeof arguments, "pack %s %s2", output, output);
    expect_refusal("", arguments, 1, "its weights are packed (minim pack)");
    snprintf(arguments, sizeof arguments, "quantize --type Q8_0 %s %s2", output, output);
    expect_refusal("", arguments, 1, "its weights are packed (minim pack)");
}

static void a_dry_run_tells_the_size_and_writes_nothing(void **state) {
    (void)state;
    char arguments[256], line[64];
    struct stat status;
    pack(model_of(KERN_Q4_0, 0));
    assert_int_equal(stat(output, &status), 0);
    snprintf(arguments, sizeof arguments, "pack --dry-run %s", input);
    assert_int_equal(run("", arguments), 0);
    snprintf(line, sizeof line, "file: %lld bytes\n", (long long)status.st_size);
    if (!strstr(out, line)) fail_msg("expected \"%s\", found \"%s\"", line, out);
    assert_int_equal(unlink(output), 0);
    snprintf(arguments, sizeof arguments, "pack --dry-run %s %s", input, output);
    assert_int_equal(run("", arguments), 0);
    assert_int_not_equal(stat(output, &status), 0);
}

static void what_fails_leaves_the_old_file(void **state) {
    (void)state;
    char arguments[256], text[32];
    size_t size;
    file_image old = model_of(KERN_Q8_0, 0);
    assert_true(old.bytes && !gw_save(input, old.bytes, old.size));
    free(old.bytes);
    assert_int_equal(gw_save(output, "the old one", 11), 0);
    snprintf(arguments, sizeof arguments, "pack -q %s %s", input, output);
    expect_refusal("ulimit -f 16; ", arguments, 1, "out.gguf");
    slurp("out.gguf", text, sizeof text);
    assert_string_equal(text, "the old one");
    snprintf(arguments, sizeof arguments, "pack -q %s %s", input, input);
    expect_refusal("", arguments, 1, "this is the file to be packed");
    snprintf(arguments, sizeof arguments, "pack -q %s", input);
    expect_refusal("", arguments, 2, "names of two files");
    gw w;
    gw_init(&w);
    gw_str(&w, "general.architecture", "nobody");
    gw_tensor(&w, "output.weight", 0, 2, (uint64_t[]){4, 4}, NULL, 64);
    void *image = gw_finish(&w, &size);
    gw_free(&w);
    assert_int_equal(gw_save(input, image, size), 0);
    free(image);
    snprintf(arguments, sizeof arguments, "pack -q %s %s", input, output);
    expect_refusal("", arguments, 1, "nobody");
    slurp("out.gguf", text, sizeof text);
    assert_string_equal(text, "the old one");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_type_gives_the_same_logits, setup, teardown),
        cmocka_unit_test_setup_teardown(every_family_gives_the_same_logits, setup, teardown),
        cmocka_unit_test_setup_teardown(values_and_keys_stay, setup, teardown),
        cmocka_unit_test(the_layout_is_that_of_its_version),
        cmocka_unit_test_setup_teardown(pages_are_shared_and_outlive_their_name, setup, teardown),
        cmocka_unit_test_setup_teardown(all_memory_of_a_caller_with_an_allocator_is_his, setup, teardown),
        cmocka_unit_test_setup_teardown(every_allocation_may_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(other_layouts_and_lies_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(panels_where_none_may_be_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(scales_that_are_no_numbers_are_refused, setup, teardown),
        cmocka_unit_test(any_header_and_any_length_is_borne),
        cmocka_unit_test_setup_teardown(the_other_commands_know_packed_files, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dry_run_tells_the_size_and_writes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(what_fails_leaves_the_old_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
