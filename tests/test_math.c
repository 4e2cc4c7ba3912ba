/* test_math: the scalar functions of kernels/ref/math.c against libm, with the bounds they promise. */
#include "../kernels/kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static float math_float(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint32_t math_bits(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* Distance of a float from the true value in units of its last place. */
static double math_ulps(float found, double exact) {
    float near = fabsf((float)exact);
    double unit = (double)nextafterf(near, INFINITY) - (double)near;
    return fabs((double)found - exact) / unit;
}

static void expf_is_within_one_ulp_of_the_truth(void **state) {
    (void)state;
    double worst = 0;
    for (int negative = 0; negative < 2; negative++)
        for (uint32_t bits = 0x30000000u; bits < 0x42b10000u; bits += 509) { /* up to 88.5, every 509th float */
            float x = math_float(bits | (uint32_t)negative << 31);
            if (x < -87.3f || x > 88.37f) continue;
            double u = math_ulps(kern_expf(x), exp((double)x));
            if (u > worst) worst = u;
        }
    if (worst > 1.0) fail_msg("error of %g ulp", worst);
}

static void expf_of_zero_is_exactly_one(void **state) {
    (void)state;
    assert_true(kern_expf(0.0f) == 1.0f);
    assert_true(kern_expf(-0.0f) == 1.0f);
    assert_true(kern_expf(0x1p-149f) == 1.0f);
}

static void expf_ends_at_zero_and_infinity_and_keeps_nan(void **state) {
    (void)state;
    assert_true(kern_expf(-87.3f) >= 0x1p-126f); /* no subnormal comes out */
    assert_true(kern_expf(nextafterf(-87.3f, -100.0f)) == 0.0f);
    assert_true(kern_expf(-3.4e38f) == 0.0f);
    assert_true(kern_expf(-INFINITY) == 0.0f);
    assert_true(isfinite(kern_expf(88.37f)));
    assert_true(kern_expf(88.4f) == INFINITY);
    assert_true(kern_expf(INFINITY) == INFINITY);
    assert_true(isnan(kern_expf(NAN)));
    assert_true(isnan(kern_expf(math_float(0xff801234u))));
}

/* Softmax must not prefer a smaller score. Near equal scores are what greedy decoding decides on. */
static void expf_never_falls_by_more_than_a_rounding(void **state) {
    (void)state;
    float last = 0;
    for (float x = -87.3f; x < 88.37f; x += 0x1p-9f) {
        float v = kern_expf(x);
        assert_true(v >= last);
        last = v;
    }
}

static void weight_code_is_a_power_of_two_in_32nds(void **state) {
    (void)state;
    assert_int_equal(kern_weight_code(255), 127);
    assert_int_equal(kern_weight_code(0), 0);
    for (int y = 1; y < 256; y++) {
        const double truth = 127 * exp2((y - 255) / 32.0);
        assert_true(fabs(kern_weight_code(y) - truth) <= (y >= 224 ? 0.5 : 0.76)); /* rounded once or twice */
        assert_true(kern_weight_code(y) >= kern_weight_code(y - 1));
    }
}

static void level_scale_is_a_power_of_two_in_32nds(void **state) {
    (void)state;
    for (float level = -107 * 32; level <= 126 * 32; level++)
        assert_true(fabs((double)kern_level_scale(level) / exp2(level / 32.0) - 1) < 1e-5);
    assert_true(isnan(kern_level_scale(NAN)));
}

static void tanhf_is_within_two_ulps_of_the_truth(void **state) {
    (void)state;
    double worst = 0;
    for (uint32_t bits = 0x30000000u; bits < 0x42800000u; bits += 509) { /* up to 64, every 509th float */
        float x = math_float(bits), y = kern_tanhf(x);
        double u = math_ulps(y, tanh((double)x));
        if (u > worst) worst = u;
        assert_true(y <= 1.0f && kern_tanhf(-x) == -y);
    }
    if (worst > 2.0) fail_msg("error of %g ulp", worst);
    assert_true(kern_tanhf(INFINITY) == 1.0f && kern_tanhf(-INFINITY) == -1.0f);
    assert_true(kern_tanhf(0.0f) == 0.0f);
    assert_true(isnan(kern_tanhf(NAN)));
}

static void exp_has_a_relative_error_below_1e_14(void **state) {
    (void)state;
    double worst = 0;
    for (double x = -708.0; x < 709.7; x += 0.00713) {
        double e = fabs(kern_exp(x) / exp(x) - 1);
        if (e > worst) worst = e;
    }
    if (worst > 1e-14) fail_msg("error of %g", worst);
    assert_true(kern_exp(0.0) == 1.0);
    assert_true(kern_exp(710.0) == INFINITY && kern_exp(INFINITY) == INFINITY);
    assert_true(kern_exp(-709.0) == 0.0 && kern_exp(-INFINITY) == 0.0);
    assert_true(isnan(kern_exp(NAN)));
}

static void log_has_a_relative_error_below_1e_14(void **state) {
    (void)state;
    double worst = 0;
    for (double x = 1e-320; x < 1e308; x *= 1.00713) {
        double e = fabs(kern_log(x) / log(x) - 1);
        if (e > worst) worst = e;
    }
    for (double x = 0.4; x < 2.5; x += 1.3e-5) { /* around 1, where log is small */
        double e = fabs(kern_log(x) - log(x)) / fabs(log(x));
        if (e > worst) worst = e;
    }
    if (worst > 1e-14) fail_msg("error of %g", worst);
    assert_true(kern_log(1.0) == 0.0);
    assert_true(kern_log(0.0) == -INFINITY && kern_log(INFINITY) == INFINITY);
    assert_true(isnan(kern_log(-1.0)) && isnan(kern_log(NAN)));
}

/* The frequencies of the rotary embedding. */
static void powers_of_rope_bases_have_a_relative_error_below_1e_13(void **state) {
    (void)state;
    static const double bases[] = {10000.0, 500000.0, 1000000.0, 10000000.0};
    for (int b = 0; b < 4; b++)
        for (int i = 0; i <= 256; i++) {
            double y = -i / 256.0, e = fabs(kern_pow(bases[b], y) / pow(bases[b], y) - 1);
            if (e > 1e-13) fail_msg("pow(%g, %g): error of %g", bases[b], y, e);
        }
    assert_true(kern_pow(7.0, 0.0) == 1.0);
}

static void sine_and_cosine_are_right_to_1e_14_up_to_two_to_the_30(void **state) {
    (void)state;
    double worst = 0;
    for (int scale = -10; scale < 30; scale++)
        for (int i = 0; i < 5000; i++) {
            double x = ldexp(1.0 + i / 5000.0, scale), s, c;
            if (i % 2) x = -x;
            if (i % 5 == 0) x = round(x / 1.5707963267948966) * 1.5707963267948966; /* near the zeros */
            if (fabs(x) >= 0x1p30) continue;
            kern_sincos(x, &s, &c);
            double e = fmax(fabs(s - sin(x)), fabs(c - cos(x)));
            if (e > worst) worst = e;
        }
    if (worst > 1e-14) fail_msg("error of %g", worst);
    double s, c;
    kern_sincos(0.0, &s, &c);
    assert_true(s == 0.0 && c == 1.0);
}

static void sine_and_cosine_outside_their_range_are_nan(void **state) {
    (void)state;
    static const double outside[] = {0x1p30, -0x1p30, 1e300, INFINITY, -INFINITY, NAN};
    for (int i = 0; i < 6; i++) {
        double s = 0, c = 0;
        kern_sincos(outside[i], &s, &c);
        assert_true(isnan(s) && isnan(c));
    }
}

static void every_f16_survives_the_way_to_float_and_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        int nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
        uint16_t back = kern_f32_to_f16(kern_f16_to_f32((uint16_t)h));
        assert_int_equal(back, nan ? h | 0x200 : h); /* a NaN becomes quiet and stays itself otherwise */
    }
}

/* The value of a finite f16 from its definition. */
static double math_f16_value(uint32_t h) {
    int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
    double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -v : v;
}

static void every_finite_f16_has_the_value_of_its_definition(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++)
        if ((h & 0x7c00) != 0x7c00) assert_true((double)kern_f16_to_f32((uint16_t)h) == math_f16_value(h));
    assert_true(kern_f16_to_f32(0x7c00) == INFINITY && kern_f16_to_f32(0xfc00) == -INFINITY);
    assert_true(isnan(kern_f16_to_f32(0x7c01)));
    assert_true(signbit(kern_f16_to_f32(0x8000)));
}

/* Between two neighbours the nearer is taken, in the middle the even one; over the last lies infinity. */
static void floats_round_to_the_nearest_f16_and_ties_to_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double next = h == 0x7bff ? 65536.0 : math_f16_value(h + 1);
        float middle = (float)((math_f16_value(h) + next) / 2); /* exact */
        for (uint32_t sign = 0; sign < 2; sign++) {
            float s = sign ? -1.0f : 1.0f;
            uint32_t low = h | sign << 15, high = low + 1;
            assert_int_equal(kern_f32_to_f16(s * nextafterf(middle, 0.0f)), low);
            assert_int_equal(kern_f32_to_f16(s * middle), h % 2 ? high : low);
            assert_int_equal(kern_f32_to_f16(s * nextafterf(middle, INFINITY)), high);
        }
    }
    assert_int_equal(kern_f32_to_f16(3.4e38f), 0x7c00);
    assert_int_equal(kern_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(kern_f32_to_f16(math_float(0x7f800001u)), 0x7e00);
    assert_int_equal(math_bits(kern_f16_to_f32(kern_f32_to_f16(-0.0f))), 0x80000000u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expf_is_within_one_ulp_of_the_truth),
        cmocka_unit_test(expf_of_zero_is_exactly_one),
        cmocka_unit_test(expf_ends_at_zero_and_infinity_and_keeps_nan),
        cmocka_unit_test(expf_never_falls_by_more_than_a_rounding),
        cmocka_unit_test(weight_code_is_a_power_of_two_in_32nds),
        cmocka_unit_test(level_scale_is_a_power_of_two_in_32nds),
        cmocka_unit_test(tanhf_is_within_two_ulps_of_the_truth),
        cmocka_unit_test(exp_has_a_relative_error_below_1e_14),
        cmocka_unit_test(log_has_a_relative_error_below_1e_14),
        cmocka_unit_test(powers_of_rope_bases_have_a_relative_error_below_1e_13),
        cmocka_unit_test(sine_and_cosine_are_right_to_1e_14_up_to_two_to_the_30),
        cmocka_unit_test(sine_and_cosine_outside_their_range_are_nan),
        cmocka_unit_test(every_f16_survives_the_way_to_float_and_back),
        cmocka_unit_test(every_finite_f16_has_the_value_of_its_definition),
        cmocka_unit_test(floats_round_to_the_nearest_f16_and_ties_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
