/* checkkern_between.c: checks of everything between the matrix products: activations rounded to int8, attention, norms,
 * rotary embedding, sums, conversions. */
#include "checkkern.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- activations to int8 ----------------------------------------------------------------------------------------- */

void check_quantize(const kern_table *k) {
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

/* ---- attention --------------------------------------------------------------------------------------------------- */

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

/* What a kernel may ask for is anywhere, and need not be there. */
static const kern_ahead *odd_ahead(int64_t n_q, const void *memory, kern_ahead *ahead) {
    for (int i = 0; i < KERN_AHEAD; i++) ahead->at[i] = i % 2 ? NULL : memory;
    ahead->lines = n_q * n_q / 4;
    return n_q % 2 ? ahead : NULL;
}

static void check_qk(const kern_table *k, int type) {
    int64_t n_q = random_between(1, 30), n_keys = random_between(1, 140), dim = random_head_dim();
    int64_t ldq = dim + random_between(0, 5), ldk = n_keys + random_between(0, 9), lds = n_keys + random_between(0, 5);
    int kind = random_kind();
    float *q = slot_floats(0, (n_q - 1) * ldq + dim, kind);
    void *keys = slot_kv(1, (dim - 1) * ldk + n_keys, type, kind);
    float *s = slot_output(2, (n_q - 1) * lds + n_keys);
    kern_ahead ahead;
    k->qk[type](q, ldq, n_q, keys, ldk, n_keys, dim, random_tame(), s, lds, odd_ahead(n_q, keys, &ahead));
    record_matrix(s, n_q, n_keys, lds);
}

static void check_pv(const kern_table *k, int type) {
    int64_t n_q = random_between(1, 30), n_keys = random_between(1, 140), dim = random_head_dim();
    int64_t ldp = n_keys + random_between(0, 5), ldo = dim + random_between(0, 5);
    int kind = random_kind();
    float *p = slot_floats(0, (n_q - 1) * ldp + n_keys, kind);
    void *values = slot_kv(1, n_keys * dim, type, kind);
    float *o = slot_output(2, (n_q - 1) * ldo + dim);
    kern_ahead ahead;
    for (int64_t r = 0; r < n_q; r++)
        for (int64_t d = 0; d < dim; d++) o[r * ldo + d] = random_float(kind);
    k->pv[type](p, ldp, n_q, values, n_keys, dim, o, ldo, odd_ahead(n_q, values, &ahead));
    record_matrix(o, n_q, dim, ldo);
}

void check_qk_f16(const kern_table *k) {
    check_qk(k, KERN_KV_F16);
}
void check_qk_f32(const kern_table *k) {
    check_qk(k, KERN_KV_F32);
}
void check_pv_f16(const kern_table *k) {
    check_pv(k, KERN_KV_F16);
}
void check_pv_f32(const kern_table *k) {
    check_pv(k, KERN_KV_F32);
}

static int8_t *slot_codes(int i, int64_t n, int low, int extreme) {
    int8_t *p = slot_take(i, (size_t)n, 1), edge = random_u32() % 2 || low == 0 ? 127 : -127;
    for (int64_t k = 0; k < n; k++) p[k] = extreme ? edge : (int8_t)random_between(low, 127);
    return p;
}

static void check_row_codes(void (*quantize)(const float *x, int64_t n, int8_t *codes, float *scale)) {
    int64_t n = random_between(1, 140);
    const float *x = slot_floats(0, n, random_kind());
    int8_t *codes = slot_take(1, (size_t)n, 1);
    float scale;
    quantize(x, n, codes, &scale);
    record_bytes(codes, n);
    record_floats(&scale, 1);
}

void check_quantize_row(const kern_table *k) {
    check_row_codes(k->quantize_row);
}
void check_quantize_value(const kern_table *k) {
    check_row_codes(k->quantize_value);
}

/* Pages of `bytes` bytes each, in an order of their own. */
static void slot_pages(int i, int64_t n_pages, int64_t bytes, int extreme, const int8_t **page) {
    int8_t *codes = slot_codes(i, n_pages * bytes, -127, extreme);
    for (int64_t p = 0; p < n_pages; p++) page[p] = codes + (n_pages - 1 - p) * bytes;
}

/* Pages of page_keys floats each, in an order of their own */
static float *slot_float_pages(int i, int64_t n_pages, int64_t page_keys, int kind, const float **page) {
    float *all = slot_floats(i, n_pages * page_keys, kind);
    for (int64_t p = 0; p < n_pages; p++) page[p] = all + (n_pages - 1 - p) * page_keys;
    return all;
}

/* What some rows see: all the same, or each a key more, as along the causal edge, or with a window, or some nothing. */
static void random_views(kern_view *seen, int64_t rows) {
    const int how = (int)random_between(0, 3), window = (int)random_between(1, KERN_RANGE);
    int32_t end = (int32_t)random_between(1, KERN_RANGE),
            first = (int32_t)(random_u32() % 2 ? 0 : random_between(0, end - 1));
    if (random_u32() % 4 == 0) first = 0, end = KERN_RANGE;
    for (int64_t r = 0; r < rows; r++) {
        seen[r] = (kern_view){first, end};
        if (how == 1 && end < KERN_RANGE) end++;
        if (how == 2) first = end > window ? end - window : 0, end = end < KERN_RANGE ? end + 1 : end;
        if (how == 3 && random_u32() % 3 == 0) seen[r] = (kern_view){0, -(int32_t)random_between(0, 99)};
    }
}

void check_weights_q8(const kern_table *k) {
    enum { BLOCKS = KERN_RANGE / KERN_WEIGHTS };
    int64_t page_keys = 16 << random_between(0, 4), n_pages = KERN_RANGE / page_keys, rows = random_between(1, 40);
    int64_t groups = (random_head_dim() + 3) / 4, ldq = 4 * groups + random_between(0, 5);
    int64_t ld = KERN_RANGE + random_between(0, 5), ld_scale = rows + random_between(0, 5);
    const int8_t *key[KERN_RANGE / 16];
    const float *k_scale[KERN_RANGE / 16], *v_level[KERN_RANGE / 16];
    kern_view *seen = slot_take(4, (size_t)rows * sizeof *seen, sizeof *seen);
    random_views(seen, rows);
    int extreme = random_u32() % 4 == 0;
    int8_t *q = slot_codes(0, (rows - 1) * ldq + 4 * groups, -127, extreme);
    slot_pages(1, n_pages, page_keys * groups * 4, extreme, key);
    float *q_scale = slot_floats(2, rows, TAME);
    float *scales = slot_float_pages(3, n_pages, page_keys, random_u32() % 8 ? TAME : TINY, k_scale);
    float *levels = slot_float_pages(5, n_pages, page_keys, TAME, v_level);
    const float wide = random_u32() % 8 == 0 ? 1e30f : random_u32() % 2 ? 1e-4f : 1e-2f;
    const int spread = random_u32() % 2 ? 20 : 3000, damage = random_u32() % 8 == 0;
    for (int64_t r = 0; r < rows; r++)
        q_scale[r] = random_u32() % 16 == 0 ? 0.0f : random_u32() % 64 == 0 ? NAN : fabsf(q_scale[r]);
    for (int64_t i = 0; i < KERN_RANGE; i++) {
        scales[i] *= wide;
        levels[i] = damage && random_u32() % 64 == 0 ? NAN : (float)random_between(-spread, 100);
    }
    kern_look look = {q, q_scale, seen, rows, ldq, groups, key, k_scale, v_level, page_keys, 0};
    if (random_u32() % 4 == 0) look.cap = 30;
    int8_t *codes = slot_take(6, (size_t)((rows - 1) * ld + KERN_RANGE), 1);
    float *scale = slot_output(7, (BLOCKS - 1) * ld_scale + rows);
    float *max = slot_output(8, rows), *sum = slot_output(9, rows);
    for (int64_t r = 0; r < rows; r++) { /* blocks of which nobody sees anything are left alone */
        memset(codes + r * ld, 0, KERN_RANGE);
        for (int64_t b = 0; b < BLOCKS; b++) scale[b * ld_scale + r] = 0;
    }
    k->weights_q8(&look, codes, ld, scale, ld_scale, max, sum);
    for (int64_t r = 0; r < rows; r++) record_bytes(codes + r * ld, KERN_RANGE);
    record_matrix(scale, BLOCKS, rows, ld_scale);
    record_floats(max, rows);
    record_floats(sum, rows);
}

void check_pv_q8(const kern_table *k) {
    enum { BLOCKS = KERN_RANGE / KERN_WEIGHTS };
    int64_t n_q = random_between(1, 20), dim = random_head_dim(), page_keys = 16 << random_between(0, 4);
    int64_t first = random_between(0, BLOCKS - 1), end = random_between(first + 1, BLOCKS);
    int64_t ldp = KERN_RANGE + random_between(0, 5), ld_scale = n_q + random_between(0, 2);
    int64_t ldo = dim + random_between(0, 5);
    int kind = random_kind(), extreme = random_u32() % 4 == 0;
    int8_t *p = slot_codes(0, (n_q - 1) * ldp + KERN_RANGE, 0, extreme);
    const int8_t *page[KERN_RANGE / 16];
    slot_pages(1, KERN_RANGE / page_keys, page_keys * dim, extreme, page);
    float *scale = slot_floats(2, (BLOCKS - 1) * ld_scale + n_q, kind), *o = slot_output(3, (n_q - 1) * ldo + dim);
    k->pv_q8(p, ldp, scale, ld_scale, n_q, page, page_keys, first, end, dim, o, ldo);
    record_matrix(o, n_q, dim, ldo);
}

void check_softmax_part(const kern_table *k) {
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

void check_clean(const kern_table *k) {
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
void check_weigh(const kern_table *k) {
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

void check_softmax_join(const kern_table *k) {
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

/* ---- elementwise ------------------------------------------------------------------------------------------------- */

void check_rms_norm(const kern_table *k) {
    int64_t n = random_between(1, 200);
    int kind = random_kind(), in_place = random_u32() % 2;
    float *x = slot_floats(0, n, kind), *w = slot_floats(1, n, kind), *y = in_place ? x : slot_output(2, n);
    k->rms_norm(x, w, n, 1e-5f, y);
    record_floats(y, n);
}

void check_layer_norm(const kern_table *k) {
    int64_t n = random_between(1, 200);
    int kind = random_kind(), in_place = random_u32() % 2;
    float *x = slot_floats(0, n, kind), *w = slot_floats(1, n, kind), *b = slot_floats(2, n, kind);
    float *y = in_place ? x : slot_output(3, n);
    k->layer_norm(x, w, b, n, 1e-5f, y);
    record_floats(y, n);
}

void check_add(const kern_table *k) {
    int64_t n = random_between(1, 70);
    int kind = random_kind();
    float *x = slot_floats(0, n, kind), *y = slot_floats(1, n, kind);
    k->add(x, y, n);
    record_floats(x, n);
}

/* Also shows exp on values of every size. */
void check_silu_mul(const kern_table *k) {
    int64_t n = random_between(1, 300);
    int kind = random_kind();
    float *gate = slot_floats(0, n, kind), *up = slot_floats(1, n, kind), stretch = random_u32() % 2 ? 1.0f : 30.0f;
    for (int64_t i = 0; i < n; i++) gate[i] *= stretch;
    k->silu_mul(gate, up, n);
    record_floats(gate, n);
}

void check_gelu_mul(const kern_table *k) {
    int64_t n = random_between(1, 300);
    int kind = random_kind();
    float *gate = slot_floats(0, n, kind), *up = slot_floats(1, n, kind);
    k->gelu_mul(gate, random_u32() % 2 ? up : NULL, n);
    record_floats(gate, n);
}

void check_softcap(const kern_table *k) {
    int64_t n = random_between(1, 300);
    float *x = slot_floats(0, n, random_kind());
    k->softcap(x, n, random_u32() % 2 ? 1.0f : 50.0f);
    record_floats(x, n);
}

void check_clamp(const kern_table *k) {
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

void check_rope_adjacent(const kern_table *k) {
    check_rope(k->rope_adjacent);
}
void check_rope_split(const kern_table *k) {
    check_rope(k->rope_split);
}

void check_scale(const kern_table *k) {
    int64_t n = random_between(1, 70);
    int kind = random_kind(), in_place = random_u32() % 2;
    float *x = slot_floats(0, n, kind), *y = in_place ? x : slot_output(1, n);
    k->scale(x, random_float(kind), n, y);
    record_floats(y, n);
}

void check_to_f16(const kern_table *k) {
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

void check_from_f16(const kern_table *k) {
    int64_t n = random_between(1, 70);
    uint16_t *x = slot_kv(0, n, KERN_KV_F16, random_kind());
    for (int64_t i = 0; i < n; i++)
        if (random_u32() % 2) x[i] = (uint16_t)random_u32();
    float *y = slot_output(1, n);
    k->from_f16(x, n, y);
    record_floats(y, n);
}
