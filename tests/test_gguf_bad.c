/* test_gguf_bad.c: every damaged GGUF file is refused with an error that names what is wrong, quickly, in little memory
 * and without a leak; from memory and from a file alike. The list follows the holes found in other loaders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../engine/gguf.h"
#include "count_allocator.h"
#include "gguf_writer.h"

#define MAX64 UINT64_MAX
#define TOP64 (UINT64_C(1) << 63)
#define MIB   (UINT64_C(1) << 20)

typedef struct bad_case {
    const char *name;
    void (*build)(gw *w, uint64_t x);
    uint64_t x; /* for build */
    minim_status status;
    const char *text; /* the error contains this */
    uint64_t tail;    /* zeros behind the file (without memory: they are never touched) */
    size_t cut;       /* bytes taken away from its end */
} bad_case;

/* ---- builders: a correct file but for one thing ----------------------------------------------------------------- */

static const uint64_t one_row[1] = {32};

static void build_nothing(gw *w, uint64_t x) {
    (void)w;
    (void)x;
}

static void build_good(gw *w, uint64_t x) {
    (void)x;
    gw_str(w, "general.architecture", "llama");
    gw_u32(w, "llama.block_count", 1);
    gw_tensor(w, "norm.weight", 0, 1, one_row, NULL, 128);
    gw_tensor(w, "last.weight", 8, 1, one_row, NULL, 34);
}

static void build_magic(gw *w, uint64_t x) {
    build_good(w, 0);
    for (int i = 0; i < 4; i++) w->magic[i] = (char)(x >> 8 * i);
}

static void build_version(gw *w, uint64_t x) {
    build_good(w, 0);
    w->version = (uint32_t)x;
}

static void build_n_tensors(gw *w, uint64_t x) {
    build_good(w, 0);
    w->n_tensors = x;
}

static void build_n_keys(gw *w, uint64_t x) {
    build_good(w, 0);
    w->n_keys = x;
}

/* A key of x letters. */
static void build_key_length(gw *w, uint64_t x) {
    char *key = malloc((size_t)x + 1);
    assert_non_null(key);
    memset(key, 'k', (size_t)x);
    gw_u32(w, "general.first", 1);
    gw_key_bytes(w, key, (size_t)x, 0);
    gw_put_number(&w->keys, 1, 1);
    free(key);
}

/* A key that is said to be x bytes long. */
static void build_key_claim(gw *w, uint64_t x) {
    gw_u32(w, "general.first", 1);
    gw_put_number(&w->keys, x, 8);
    gw_put_zeros(&w->keys, 32);
    w->n_keys = 2;
}

static void build_key_twice(gw *w, uint64_t x) {
    (void)x;
    gw_u32(w, "general.first", 1);
    gw_u32(w, "general.twice", 1);
    gw_u32(w, "general.other", 1);
    gw_str(w, "general.twice", "again");
}

/* Bytes that must not be in a name; at most 8, little endian in x, behind "key". */
static void build_key_letters(gw *w, uint64_t x) {
    uint8_t key[11] = {'k', 'e', 'y'};
    size_t n = 3;
    for (; n < sizeof key && (n == 3 || x); n++, x >>= 8) key[n] = (uint8_t)x;
    gw_key_bytes(w, key, n, 0);
    gw_put_number(&w->keys, 1, 1);
}

static void build_value_type(gw *w, uint64_t x) {
    gw_key(w, "the.key", (uint32_t)x);
    gw_put_zeros(&w->keys, 64);
}

/* A string value of x bytes, none of which are there. */
static void build_string_claim(gw *w, uint64_t x) {
    gw_key(w, "the.key", 8);
    gw_put_number(&w->keys, x, 8);
    gw_put_zeros(&w->keys, 16);
}

static void build_array_type(gw *w, uint64_t x) {
    gw_array(w, "the.key", (uint32_t)x, 4);
    gw_put_zeros(&w->keys, 64);
}

/* Arrays in arrays, x deep. */
static void build_array_nested(gw *w, uint64_t x) {
    gw_key(w, "the.key", 9);
    for (; x > 1; x--) {
        gw_put_number(&w->keys, 9, 4);
        gw_put_number(&w->keys, 1, 8);
    }
    gw_put_number(&w->keys, 0, 4);
    gw_put_number(&w->keys, 1, 8);
    gw_put_number(&w->keys, 7, 1);
}

static void build_array_u8(gw *w, uint64_t x) {
    gw_array(w, "the.key", 0, x);
    gw_put_zeros(&w->keys, 16);
}

static void build_array_f32(gw *w, uint64_t x) {
    gw_array(w, "the.key", 6, x);
    gw_put_zeros(&w->keys, 16);
}

static void build_array_f64(gw *w, uint64_t x) {
    gw_array(w, "the.key", 12, x);
    gw_put_zeros(&w->keys, 16);
}

static void build_array_str(gw *w, uint64_t x) {
    gw_array(w, "the.key", 8, x);
    gw_put_zeros(&w->keys, 16);
}

/* The third string of an array is said to be x bytes long. */
static void build_array_str_claim(gw *w, uint64_t x) {
    gw_array(w, "the.key", 8, 3);
    gw_put_string(&w->keys, "a", 1);
    gw_put_string(&w->keys, "b", 1);
    gw_put_number(&w->keys, x, 8);
    gw_put_zeros(&w->keys, 4);
}

static void build_bool(gw *w, uint64_t x) {
    gw_key(w, "the.key", 7);
    gw_put_number(&w->keys, x, 1);
}

static void build_bool_array(gw *w, uint64_t x) {
    gw_array(w, "the.key", 7, 4);
    gw_put_number(&w->keys, x, 4);
}

static void build_alignment(gw *w, uint64_t x) {
    gw_u32(w, "general.alignment", (uint32_t)x);
    gw_tensor(w, "last.weight", 0, 1, one_row, NULL, 128);
}

static void build_alignment_number(gw *w, uint64_t type) {
    gw_number(w, "general.alignment", (uint32_t)type, 32);
    gw_tensor(w, "last.weight", 0, 1, one_row, NULL, 128);
}

static void build_alignment_str(gw *w, uint64_t x) {
    (void)x;
    gw_str(w, "general.alignment", "32");
}

static void build_alignment_array(gw *w, uint64_t x) {
    gw_numbers(w, "general.alignment", 4, &x, 1, 4);
}

/* A tensor whose name has x letters. */
static void build_name_length(gw *w, uint64_t x) {
    char name[80] = {0};
    memset(name, 'n', (size_t)x);
    gw_tensor(w, "first.weight", 0, 1, one_row, NULL, 128);
    gw_tensor(w, name, 0, 1, one_row, NULL, 128);
}

static void build_name_claim(gw *w, uint64_t x) {
    gw_tensor(w, "first.weight", 0, 1, one_row, NULL, 128);
    gw_put_number(&w->infos, x, 8);
    gw_put_zeros(&w->infos, 64);
    w->n_tensors = 2;
}

static void build_name_letters(gw *w, uint64_t x) {
    gw_put_string(&w->infos, &x, 4); /* little endian */
    gw_put_zeros(&w->infos, 64);
    w->n_tensors = 1;
}

static void build_name_twice(gw *w, uint64_t x) {
    (void)x;
    gw_tensor(w, "first.weight", 0, 1, one_row, NULL, 128);
    gw_tensor(w, "twice.weight", 0, 1, one_row, NULL, 128);
    gw_tensor(w, "other.weight", 0, 1, one_row, NULL, 128);
    gw_tensor(w, "twice.weight", 0, 1, one_row, NULL, 128);
}

/* x is the claim, with so much behind it that only the claim is wrong. */
static void build_n_dims(gw *w, uint64_t x) {
    gw_put_string(&w->infos, "the.weight", 10);
    gw_put_number(&w->infos, x, 4);
    gw_put_zeros(&w->infos, 64);
    w->n_tensors = 1;
}

/* F32 tensors with a bad dimension x; the room behind is never enough. */
static void build_dim0(gw *w, uint64_t x) {
    gw_tensor(w, "the.weight", 0, 2, (uint64_t[]){x, 2}, NULL, 128);
}

static void build_dim1(gw *w, uint64_t x) {
    gw_tensor(w, "the.weight", 0, 2, (uint64_t[]){32, x}, NULL, 128);
}

static void build_dims_square(gw *w, uint64_t x) {
    gw_tensor(w, "the.weight", 0, 2, (uint64_t[]){x, x}, NULL, 128);
}

static void build_dims_four(gw *w, uint64_t x) {
    gw_tensor(w, "the.weight", 0, 4, (uint64_t[]){x, x, x, x}, NULL, 128);
}

static void build_tensor_type(gw *w, uint64_t x) {
    gw_tensor(w, "the.weight", (uint32_t)x, 1, one_row, NULL, 4096);
}

/* Type in the upper half, dimension 0 in the lower. */
static void build_block(gw *w, uint64_t x) {
    gw_tensor(w, "the.weight", (uint32_t)(x >> 32), 2, (uint64_t[]){x & UINT32_MAX, 64}, NULL, 65536);
}

static void build_offset(gw *w, uint64_t x) {
    gw_put_zeros(&w->data, 256);
    gw_info(w, "the.weight", 0, 1, one_row, x);
}

/* Two tensors of 128 bytes, the second (in the file's list) at offset x, the first at 256. */
static void build_overlap(gw *w, uint64_t x) {
    gw_put_zeros(&w->data, 1024);
    gw_info(w, "far.weight", 0, 1, one_row, 896);
    gw_info(w, "one.weight", 0, 1, one_row, 256);
    gw_info(w, "two.weight", 0, 1, one_row, x);
}

/* A small tensor inside a large one. */
static void build_overlap_inside(gw *w, uint64_t x) {
    gw_put_zeros(&w->data, 1024);
    gw_info(w, "big.weight", 0, 1, (uint64_t[]){256}, 0);
    gw_info(w, "end.weight", 0, 1, one_row, 896);
    (void)x;
}

/* Sizes that fit one by one, but whose sum wraps: four of 2^62 bytes. */
static void build_sum_wraps(gw *w, uint64_t x) {
    static const char *const names[4] = {"a", "b", "c", "d"};
    gw_put_zeros(&w->data, 128);
    for (uint64_t i = 0; i < 4; i++) gw_info(w, names[i], 0, 1, (uint64_t[]){UINT64_C(1) << 60}, i * x);
}

static void build_no_data(gw *w, uint64_t x) {
    build_good(w, x);
    w->no_data = 1;
}

/* ---- the list --------------------------------------------------------------------------------------------------- */

#define BAD           MINIM_ERR_FORMAT
#define NOT_SUPPORTED MINIM_ERR_UNSUPPORTED

static const bad_case cases[] = {
    /* header */
    {"one byte", build_nothing, 0, BAD, "has only 1 bytes", 0, 23},
    {"three bytes", build_nothing, 0, BAD, "has only 3 bytes", 0, 21},
    {"nothing behind the magic", build_nothing, 0, BAD, "GGUF version needs 4 bytes at offset 4", 0, 20},
    {"half a version", build_nothing, 0, BAD, "GGUF version needs 4 bytes", 0, 18},
    {"no number of tensors", build_nothing, 0, BAD, "number of tensors needs 8 bytes at offset 8", 0, 16},
    {"half a number of keys", build_nothing, 0, BAD, "number of keys needs 8 bytes at offset 16", 0, 4},
    {"a bad magic", build_magic, 0x80555555, BAD, "55 55 55 80, expected 47 47 55 46", 0, 0},
    {"a magic in other order", build_magic, 0x47475546, BAD, "expected 47 47 55 46", 0, 0},
    {"version 0", build_version, 0, BAD, "GGUF version is 0, expected 2 or 3", 0, 0},
    {"version 1", build_version, 1, NOT_SUPPORTED, "GGUF version is 1, expected 2 or 3 (version 1 files", 0, 0},
    {"version 4", build_version, 4, NOT_SUPPORTED, "GGUF version is 4, expected 2 or 3", 0, 0},
    {"version 2^32-1", build_version, UINT32_MAX, NOT_SUPPORTED, "GGUF version is 4294967295", 0, 0},
    {"a big-endian file of version 3", build_version, 0x03000000, NOT_SUPPORTED, "big-endian", 0, 0},
    {"a big-endian file of version 2", build_version, 0x02000000, NOT_SUPPORTED, "big-endian", 0, 0},
    {"2^63 tensors", build_n_tensors, TOP64, BAD, "number of tensors is 9223372036854775808", 0, 0},
    {"-1 tensors", build_n_tensors, MAX64, BAD, "number of tensors is 18446744073709551615", 0, 0},
    {"tensors whose overhead wraps", build_n_tensors, MAX64 / 80 + 2, BAD, "number of tensors is", 0, 0},
    {"one tensor too many", build_n_tensors, 3, BAD, "tensor 2: tensor name is empty", 0, 0},
    {"more tensors than fit", build_n_tensors, 20, BAD, "have room for at most", 0, 0},
    {"more tensors than the limit", build_n_tensors, MIB / 4 + 1, BAD, "the limit is 262144", 64 * MIB, 0},
    {"2^63 keys", build_n_keys, TOP64, BAD, "number of keys is 9223372036854775808", 0, 0},
    {"-1 keys", build_n_keys, MAX64, BAD, "number of keys is 18446744073709551615", 0, 0},
    {"keys whose overhead wraps", build_n_keys, MAX64 / 40 + 2, BAD, "number of keys is", 0, 0},
    {"more keys than fit", build_n_keys, 40, BAD, "have room for at most", 0, 0},
    {"more keys than the limit", build_n_keys, MIB + 1, BAD, "the limit is 1048576", 32 * MIB, 0},
    {"one key too many", build_n_keys, 3, BAD, "tensor 0: tensor name is empty", 0, 0},
    {"zeros instead of keys", build_n_keys, 1000, BAD, "key 3: key is empty", MIB, 0},

    /* keys */
    {"an empty key", build_key_length, 0, BAD, "key 1: key is empty", 0, 0},
    {"a key of 64 KiB", build_key_length, 65536, BAD, "key 1: key is 65536 bytes long, the limit is 65535", 0, 0},
    {"a key of 1 MiB", build_key_length, MIB, BAD, "key 1: key is 1048576 bytes long", 0, 0},
    {"a key longer than the file", build_key_claim, 100, BAD, "key 1: key is said to be 100 bytes long", 0, 0},
    {"a key of 2^63 bytes", build_key_claim, TOP64, BAD, "key 1: key is said to be 9223372036854775808", 0, 0},
    {"a key of 2^64-1 bytes", build_key_claim, MAX64, BAD, "key 1: key is said to be", 0, 0},
    {"a key cut in its length", build_key_length, 1, BAD, "key 1: the file is cut: key needs 8 bytes", 0, 10},
    {"a key cut in its letters", build_key_length, 30, BAD, "key 1: key is said to be 30 bytes long", 0, 6},
    {"a key without a type", build_key_length, 2, BAD, "key 1 'kk': the file is cut: value type", 0, 3},
    {"a key without a value", build_key_length, 2, BAD, "key 1 'kk': the file is cut: value needs 1 bytes", 0, 1},
    {"a key twice", build_key_twice, 0, BAD, "key 3 'general.twice': key 1 has the same name", 0, 0},
    {"a key with a NUL", build_key_letters, 0, BAD, "key 0 'key': key has a NUL at byte 3", 0, 0},
    {"a key with a NUL inside", build_key_letters, 0x6100, BAD, "key has a NUL at byte 3", 0, 0},
    {"a key with a stray continuation", build_key_letters, 0x80, BAD, "key has invalid UTF-8 at byte 3", 0, 0},
    {"a key with an overlong letter", build_key_letters, 0x81c1, BAD, "key has invalid UTF-8 at byte 3", 0, 0},
    {"a key with an overlong euro", build_key_letters, 0xac82e0, BAD, "key has invalid UTF-8 at byte 3", 0, 0},
    {"a key with a surrogate", build_key_letters, 0x80a0ed, BAD, "key has invalid UTF-8 at byte 3", 0, 0},
    {"a key above U+10FFFF", build_key_letters, 0x808090f4, BAD, "key has invalid UTF-8 at byte 3", 0, 0},
    {"a key that ends in a character", build_key_letters, 0x82e261, BAD, "key has invalid UTF-8 at byte 4", 0, 0},

    /* values */
    {"value type 13", build_value_type, 13, BAD, "key 0 'the.key': value type 13 is unknown", 0, 0},
    {"value type 255", build_value_type, 255, BAD, "key 0 'the.key': value type 255 is unknown", 0, 0},
    {"value type -1", build_value_type, UINT32_MAX, BAD, "value type 4294967295 is unknown, expected 0..12", 0, 0},
    {"value type -2^31", build_value_type, 0x80000000, BAD, "value type 2147483648 is unknown", 0, 0},
    {"a string of 2^64-1 bytes", build_string_claim, MAX64, BAD, "key 0 'the.key': string is said to be", 0, 0},
    {"a string of 2^63 bytes", build_string_claim, TOP64, BAD, "key 0 'the.key': string is said to be", 0, 0},
    {"a string that wraps to the start", build_string_claim, MAX64 - 50, BAD, "key 0 'the.key': string is said", 0, 0},
    {"a string one byte too long", build_string_claim, 17, BAD, "17 bytes long, but only 16 bytes of the file", 0, 0},
    {"a string over the limit", build_string_claim, 16 * MIB + 1, BAD, "the limit is 16777216", 17 * MIB, 0},
    {"an array of type 13", build_array_type, 13, BAD, "key 0 'the.key': array element type 13 is unknown", 0, 0},
    {"an array of type 255", build_array_type, 255, BAD, "array element type 255 is unknown", 0, 0},
    {"an array of type -1", build_array_type, UINT32_MAX, BAD, "array element type 4294967295 is unknown", 0, 0},
    {"an array in an array", build_array_nested, 2, NOT_SUPPORTED, "key 0 'the.key': is an array of arrays", 0, 0},
    {"arrays 100,000 deep", build_array_nested, 100000, NOT_SUPPORTED, "is an array of arrays", 0, 0},
    {"an array of 2^60 bytes", build_array_u8, UINT64_C(1) << 60, BAD, "1152921504606846976 elements of type u8", 0, 0},
    {"an array of 2^64-1 bytes", build_array_u8, MAX64, BAD, "has room for at most 16", 0, 0},
    {"an array of 2^60 floats", build_array_f32, UINT64_C(1) << 60, BAD, "elements of type f32", 0, 0},
    {"an array whose bytes wrap to 4", build_array_f32, (UINT64_C(1) << 62) + 1, BAD, "room for at most 4", 0, 0},
    {"an array of doubles that wraps", build_array_f64, (UINT64_C(1) << 61) + 1, BAD, "room for at most 2", 0, 0},
    {"an array one element too long", build_array_f32, 5, BAD, "5 elements of type f32", 0, 0},
    {"an array of 2^60 strings", build_array_str, UINT64_C(1) << 60, BAD, "elements of type str", 0, 0},
    {"an array of strings that wraps", build_array_str, (UINT64_C(1) << 60) + 1, BAD, "room for at most 2", 0, 0},
    {"an array over the limit", build_array_u8, 64 * MIB + 1, BAD, "the limit is 67108864", 65 * MIB, 0},
    {"strings over the limit", build_array_str, 9 * MIB, BAD, "more than the limit of 134217728", 80 * MIB, 0},
    {"a string of 2^64-1 bytes in an array", build_array_str_claim, MAX64, BAD,
     "key 0 'the.key': element 2: string is said to be", 0, 0},
    {"a string past the end in an array", build_array_str_claim, 5, BAD,
     "element 2: string is said to be 5 bytes long, but only 4 bytes", 0, 0},
    {"a bool of 2", build_bool, 2, BAD, "key 0 'the.key': bool 0 is 2, expected 0 or 1", 0, 0},
    {"a bool of 255", build_bool, 255, BAD, "key 0 'the.key': bool 0 is 255", 0, 0},
    {"a bool of 2 in an array", build_bool_array, 0x00020100, BAD, "key 0 'the.key': bool 2 is 2", 0, 0},

    /* general.alignment */
    {"alignment 0", build_alignment, 0, BAD, "key 0 'general.alignment': is 0, expected a power of two", 0, 0},
    {"alignment 1", build_alignment, 1, BAD, "key 0 'general.alignment': is 1,", 0, 0},
    {"alignment 3", build_alignment, 3, BAD, "key 0 'general.alignment': is 3,", 0, 0},
    {"alignment 24", build_alignment, 24, BAD, "key 0 'general.alignment': is 24,", 0, 0},
    {"alignment 2^31", build_alignment, 0x80000000, BAD, "'general.alignment': is 2147483648, expected", 0, 0},
    {"alignment 128 MiB", build_alignment, 128 * MIB, BAD, "'general.alignment': is 134217728, expected", 0, 0},
    {"alignment 2^32-1", build_alignment, UINT32_MAX, BAD, "'general.alignment': is 4294967295, expected", 0, 0},
    {"alignment past the end", build_alignment, 64 * MIB, BAD, "tensor 0 'last.weight': the file is cut", 0, 0},
    {"alignment as string", build_alignment_str, 0, BAD, "'general.alignment': is str, expected u32", 0, 0},
    {"alignment as u64", build_alignment_number, 10, BAD, "'general.alignment': is u64, expected u32", 0, 0},
    {"alignment as i32", build_alignment_number, 5, BAD, "'general.alignment': is i32, expected u32", 0, 0},
    {"alignment as f32", build_alignment_number, 6, BAD, "'general.alignment': is f32, expected u32", 0, 0},
    {"alignment as array", build_alignment_array, 32, BAD, "'general.alignment': is arr[u32], expected u32", 0, 0},

    /* tensor list */
    {"a tensor without a name", build_name_length, 0, BAD, "tensor 1: tensor name is empty", 0, 0},
    {"a name of 64 bytes", build_name_length, 64, BAD, "tensor 1: tensor name is 64 bytes long, the limit is 63", 0, 0},
    {"a name of 65 bytes", build_name_length, 65, BAD, "tensor 1: tensor name is 65 bytes long", 0, 0},
    {"a name of 2^63 bytes", build_name_claim, TOP64, BAD, "tensor 1: tensor name is said to be 922337203685", 0, 0},
    {"a name of 2^64-1 bytes", build_name_claim, MAX64, BAD, "tensor 1: tensor name is said to be 1844674407", 0, 0},
    {"a name with a NUL", build_name_letters, 0x61006161, BAD, "tensor name has a NUL at byte 2", 0, 0},
    {"a name of bad UTF-8", build_name_letters, 0x61ff6161, BAD, "tensor name has invalid UTF-8 at byte 2", 0, 0},
    {"two tensors of one name", build_name_twice, 0, BAD, "tensor 3 'twice.weight': tensor 1 has the same name", 0, 0},
    {"0 dimensions", build_n_dims, 0, BAD, "tensor 0 'the.weight': has 0 dimensions, expected 1 to 4", 0, 0},
    {"5 dimensions", build_n_dims, 5, BAD, "tensor 0 'the.weight': has 5 dimensions", 0, 0},
    {"2^32-1 dimensions", build_n_dims, UINT32_MAX, BAD, "has 4294967295 dimensions", 0, 0},
    {"dimension 0 of 0", build_dim0, 0, BAD, "tensor 0 'the.weight': dimension 0 is 0, expected at least 1", 0, 0},
    {"dimension 1 of 0", build_dim1, 0, BAD, "tensor 0 'the.weight': dimension 1 is 0, expected at least 1", 0, 0},
    {"a dimension of -1", build_dim1, MAX64, BAD, "tensor 0 'the.weight': dimension 1 is -1,", 0, 0},
    {"a dimension of -2^63", build_dim0, TOP64, BAD, "dimension 0 is -9223372036854775808,", 0, 0},
    {"2^63-1 times 2 elements", build_dim0, INT64_MAX, BAD, "tensor 0 'the.weight': the product of its", 0, 0},
    {"2^32 times 2^32 elements", build_dims_square, UINT64_C(1) << 32, BAD, "the product of its dimensions", 0, 0},
    {"2^31.5 squared elements", build_dims_square, 3037000500, BAD, "the product of its dimensions", 0, 0},
    {"2^16 to the fourth elements", build_dims_four, 65536, BAD, "the product of its dimensions", 0, 0},
    {"2^17 to the fourth elements", build_dims_four, 131072, BAD, "the product of its dimensions", 0, 0},
    {"bytes that wrap to 0", build_dim0, UINT64_C(1) << 61, BAD, "take more than 2^63 bytes", 0, 0},
    {"bytes of 2^63", build_dim0, UINT64_C(1) << 60, BAD, "take more than 2^63 bytes", 0, 0},
    {"tensor type 4", build_tensor_type, 4, BAD, "tensor 0 'the.weight': tensor type 4 is not known", 0, 0},
    {"tensor type 5", build_tensor_type, 5, BAD, "tensor type 5 is not known", 0, 0},
    {"tensor type 31", build_tensor_type, 31, BAD, "tensor type 31 is not known", 0, 0},
    {"tensor type 32", build_tensor_type, 32, BAD, "tensor type 32 is not known", 0, 0},
    {"tensor type 33", build_tensor_type, 33, BAD, "tensor type 33 is not known", 0, 0},
    {"tensor type 36", build_tensor_type, 36, BAD, "tensor type 36 is not known", 0, 0},
    {"tensor type 37", build_tensor_type, 37, BAD, "tensor type 37 is not known", 0, 0},
    {"tensor type 38", build_tensor_type, 38, BAD, "tensor type 38 is not known", 0, 0},
    {"tensor type 1000", build_tensor_type, 1000, BAD, "tensor type 1000 is not known", 0, 0},
    {"tensor type -1", build_tensor_type, UINT32_MAX, BAD, "tensor type 4294967295 is not known", 0, 0},
    {"half a block of Q4_0", build_block, UINT64_C(2) << 32 | 48, BAD, "dimension 0 is 48, expected a multiple of 32",
     0, 0},
    {"one element of Q8_0", build_block, UINT64_C(8) << 32 | 1, BAD, "dimension 0 is 1, expected a multiple of", 0, 0},
    {"half a block of Q4_K", build_block, UINT64_C(12) << 32 | 128, BAD, "of 256, the block of type Q4_K", 0, 0},
    {"an offset of 8", build_offset, 8, BAD, "'the.weight': offset 8 is not a multiple of the alignment 32", 0, 0},
    {"an odd offset", build_offset, 33, BAD, "offset 33 is not a multiple", 0, 0},
    {"an offset of -1", build_offset, MAX64, BAD, "offset 18446744073709551615 is not a multiple", 0, 0},
    {"an offset that wraps", build_offset, MAX64 - 31, BAD, "tensor 0 'the.weight': the file is cut", 0, 0},
    {"an offset of 2^63", build_offset, TOP64, BAD, "tensor 0 'the.weight': the file is cut", 0, 0},
    {"an offset one step too far", build_offset, 160, BAD,
     "128 bytes at offset 160 of the data section, which has 256 bytes", 0, 0},
    {"an offset at the end", build_offset, 256, BAD, "tensor 0 'the.weight': the file is cut", 0, 0},
    {"two tensors at one place", build_overlap, 256, BAD, "overlaps that of tensor", 0, 0},
    {"a tensor that starts in another", build_overlap, 352, BAD,
     "tensor 2 'two.weight': its data at offset 512 overlaps that of tensor 1 'one.weight', which ends at 544", 0, 0},
    {"a tensor that ends in another", build_overlap, 160, BAD,
     "tensor 1 'one.weight': its data at offset 416 overlaps that of tensor 2 'two.weight', which ends at 448", 0, 0},
    {"a tensor inside another", build_overlap_inside, 0, BAD, "tensor 1 'end.weight': its data", 0, 0},
    {"sizes whose sum wraps", build_sum_wraps, UINT64_C(1) << 62, BAD, "tensor 0 'a': the file is cut", 0, 0},
    {"no data section", build_no_data, 0, BAD, "tensor 0 'norm.weight': the file is cut", 0, 0},
    {"data cut by a byte", build_good, 0, BAD,
     "tensor 1 'last.weight': the file is cut: its data is said to be 34 bytes at offset 128", 0, 1},
    {"data cut in the first tensor", build_good, 0, BAD, "tensor 0 'norm.weight': the file is cut", 0, 100},
    {"data cut at its start", build_good, 0, BAD, "tensor 0 'norm.weight': the file is cut", 0, 162},
    {"a tensor list cut", build_no_data, 0, BAD, "tensor 1 'last.weight': the file is cut: tensor offset", 0, 1},
    {"a type cut", build_no_data, 0, BAD, "tensor 1 'last.weight': the file is cut: tensor type", 0, 9},
    {"a dimension cut", build_no_data, 0, BAD, "tensor 1 'last.weight': the file is cut: dimension", 0, 13},
};

enum { N_CASES = sizeof cases / sizeof cases[0] };

/* ---- running them ----------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/minim-gguf-bad-XXXXXX";

/* Opens what must be refused, and checks everything that holds for every refusal. Returns the text behind the name. */
static const char *refuse(const char *path, const void *data, size_t size, const bad_case *c, minim_error *e) {
    count_allocator counter = {0};
    const minim_allocator a = count_allocator_get(&counter);
    const clock_t start = clock();
    gguf_file *f = (gguf_file *)&counter;
    const minim_status status = gguf_open(&a, path, data, size, &f, e);
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (status != c->status || e->status != c->status || !strstr(e->text, c->text))
        fail_msg("%s: status %d, text: %s", c->name, status, e->text);
    assert_null(f);
    assert_true(count_allocator_clean(&counter));
    assert_true(counter.peak < 64 * MIB);
    assert_true(seconds < 1.0);
    assert_memory_equal(e->text, path, strlen(path));
    assert_null(strchr(e->text, '\n'));
    return e->text + strlen(path);
}

static void run_case(void **state) {
    const bad_case *c = *state;
    char path[64];
    minim_error from_memory, from_file;
    size_t n;
    gw w;
    uint8_t *image;
    gw_init(&w);
    c->build(&w, c->x);
    image = gw_finish(&w, &n);
    assert_true(c->cut < n);
    n -= c->cut;

    snprintf(path, sizeof path, "%s/bad.gguf", folder);
    assert_int_equal(gw_save(path, image, n), 0);
    assert_int_equal(truncate(path, (off_t)(n + c->tail)), 0);

    /* The image again with exactly the bytes of the case, and zeros that take no memory as long as nobody looks. */
    uint8_t *exact = c->tail ? calloc(1, n + (size_t)c->tail) : malloc(n);
    assert_non_null(exact);
    memcpy(exact, image, n);
    const char *text = refuse(path, exact, n + (size_t)c->tail, c, &from_memory);
    assert_string_equal(text, refuse(path, NULL, 0, c, &from_file));
    free(exact);
    free(image);
    gw_free(&w);
    unlink(path);
}

static void other_formats_are_recognised(void **state) {
    static const struct {
        const char *bytes;
        size_t n;
        const char *text;
    } others[] = {
        {"tjgg\3\0\0\0\0\0", 10, "is a GGML file of 2023 (ggjt)"},
        {"fmgg\1\0\0\0\0\0", 10, "is a GGML file of 2023 (ggmf)"},
        {"lmgg\1\0\0\0\0\0", 10, "is a GGML file of 2023 (ggml)"},
        {"algg\1\0\0\0\0\0", 10, "is a GGML LoRA adapter of 2023"},
        {"PK\3\4\0\0\10\10\0\0", 10, "is a ZIP archive"},
        {"\x80\2}q\0X\0\0\0\0", 10, "is a Python pickle"},
        {"\177ELF\2\1\1\0\0\0", 10, "is an ELF program"},
        {"MZqFpD='\n\0", 10, "is a program"},
        {"\x89HDF\r\n\x1a\n\0\0", 10, "is an HDF5 file"},
        {"\x1f\x8b\10\0\0\0\0\0\0\3", 10, "is gzip-compressed"},
        {"\x28\xb5\x2f\xfd\0\0\0\0\0\0", 10, "is zstd-compressed"},
        {"\xfd"
         "7zXZ\0\0\4\0\0",
         10, "is xz-compressed"},
        {"version https://git-lfs.github.com/spec/v1\n", 43, "is a Git LFS pointer"},
        {"\x40\1\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\"", 24, "is a safetensors file"},
        {"<!DOCTYPE html>\n<html>", 22, "is text"},
        {"Entry not found", 15, "is text"},
        {"\0\0\0\0\0\0\0\0\0\0", 10, "is zeros"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        const bad_case c = {others[i].text, NULL, 0, BAD, others[i].text, 0, 0};
        minim_error e;
        refuse("other.bin", others[i].bytes, others[i].n, &c, &e);
        assert_non_null(strstr(e.text, "expected a GGUF file"));
    }
}

/* A file of n keys "k0", "k1" ... with value 0; the last is like the key `same` if that is not n. */
static uint8_t *many_keys(size_t n, size_t same, size_t *size) {
    gw w;
    uint8_t *image;
    gw_init(&w);
    for (size_t i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "k%zu", i + 1 == n && same < n ? same : i);
        gw_number(&w, key, 0, 0);
    }
    image = gw_finish(&w, size);
    gw_free(&w);
    return image;
}

static void a_million_keys_load_in_linear_time(void **state) {
    size_t size;
    uint8_t *image = many_keys(1000000, 1000000, &size);
    const clock_t start = clock();
    gguf_file *f;
    minim_error e;
    double seconds;
    (void)state;
    assert_int_equal(gguf_open(NULL, "keys.gguf", image, size, &f, &e), MINIM_OK);
    seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    print_message("a million keys: %.2f s of CPU time\n", seconds);
    assert_true(seconds < 20); /* room for valgrind; comparing every pair would take hours */
    assert_int_equal(gguf_value_count(f), 1000000);
    for (int i = 0; i < 1000000; i += 99999) {
        char key[32];
        snprintf(key, sizeof key, "k%d", i);
        assert_ptr_equal(gguf_find(f, key), gguf_value_at(f, (size_t)i));
    }
    assert_null(gguf_find(f, "k1000000"));
    gguf_close(f);
    free(image);
}

static void one_key_twice_among_a_million_is_found(void **state) {
    size_t size;
    uint8_t *image = many_keys(1000000, 17, &size);
    gguf_file *f;
    minim_error e;
    (void)state;
    assert_int_equal(gguf_open(NULL, "keys.gguf", image, size, &f, &e), MINIM_ERR_FORMAT);
    assert_string_equal(e.text, "keys.gguf: key 999999 'k17': key 17 has the same name, expected each name once");
    free(image);
}

static void an_error_stays_one_readable_line(void **state) {
    char key[300], path[600];
    minim_error e;
    gguf_file *f;
    size_t n;
    gw w;
    uint8_t *image;
    (void)state;
    memset(key, 'k', sizeof key - 1);
    memcpy(key, "line\nbreak\x1b[31m\xc2\x9b", 17);
    memcpy(key + 79, "\xe2\x82\xac", 3); /* a character across the place where the key is cut */
    key[sizeof key - 1] = 0;
    memset(path, 'p', sizeof path - 1);
    memcpy(path + sizeof path - 11, "/file.gguf", 11);
    gw_init(&w);
    gw_key(&w, key, 99);
    gw_put_zeros(&w.keys, 8);
    image = gw_finish(&w, &n);
    assert_int_equal(gguf_open(NULL, path, image, n, &f, &e), MINIM_ERR_FORMAT);
    assert_non_null(strstr(e.text, "ppp/file.gguf: key 0 'line?break?[31m?kkk"));
    assert_non_null(strstr(e.text, "kkk...': value type 99 is unknown, expected 0..12"));
    free(image);
    gw_free(&w);
}

int main(void) {
    static struct CMUnitTest tests[N_CASES + 8];
    static char names[N_CASES][96];
    size_t n = 0;
    int failed;
    if (!mkdtemp(folder)) return 1;
    for (; n < N_CASES; n++) {
        snprintf(names[n], sizeof names[n], "a GGUF file with %s is refused", cases[n].name);
        tests[n] = (struct CMUnitTest){names[n], run_case, NULL, NULL, (void *)(uintptr_t)&cases[n]};
    }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(other_formats_are_recognised);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(a_million_keys_load_in_linear_time);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(one_key_twice_among_a_million_is_found);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(an_error_stays_one_readable_line);
    failed = _cmocka_run_group_tests("damaged GGUF files", tests, n, NULL, NULL);
    rmdir(folder);
    return failed;
}
