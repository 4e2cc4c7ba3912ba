/* math.c: exp, log, sine and f16 conversions, written so that every machine computes the same bits.
 *
 * Nothing here calls libm but fma, which is exact by definition. The recipe is the same three times: reduce the
 * argument to a small interval with a constant split into a high and a low part (Cody & Waite 1980), evaluate a
 * polynomial there with Horner's rule, undo the reduction with the exponent bits. */
#include "../internal.h"

#include <math.h>

/* ---- float32 exp ------------------------------------------------------------------------------------------------- */

/* exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= ln(2)/2.
 *
 * Adding KERN_EXP_ROUND, a number so large that its last bit is worth 1, rounds to an integer. The 127 in it is the
 * exponent bias of float32, so the low bits of the sum are n + 127 and a shift by 23 makes them the float 2^n.
 *
 * exp(r) ~ 1 + r + r^2 * (C2 + C3 r + C4 r^2 + C5 r^3 + C6 r^4), nearly minimax, relative error 1.1e-8. The result is
 * within 1 ulp for every x (tests/test_math.c) and exp(0) is 1.
 *   x < -87.3:  0, so that no subnormal appears.
 *   x > 88.37:  infinity, a little early (float32 ends at exp(88.72)), so that 2^n stays a normal float.
 *   NaN:        NaN. */
float kern_expf(float x) {
    if (x < KERN_EXP_MIN) return 0.0f;
    if (x > KERN_EXP_MAX) return INFINITY;

    float rounded = fmaf(x, KERN_EXP_LOG2E, KERN_EXP_ROUND);
    float n = rounded - KERN_EXP_ROUND;
    float r = fmaf(-n, KERN_EXP_LN2HI, x);
    r = fmaf(-n, KERN_EXP_LN2LO, r);

    float p = KERN_EXP_C6;
    p = fmaf(p, r, KERN_EXP_C5);
    p = fmaf(p, r, KERN_EXP_C4);
    p = fmaf(p, r, KERN_EXP_C3);
    p = fmaf(p, r, KERN_EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return p * kern_bits_to_f32(kern_f32_to_bits(rounded) << 23); /* exact: a power of two */
}

/* Weights of int8 values count in 32nds of a power of two: finer than the int8 they become, and a byte holds the eight
 * powers that int8 has. Below the topmost power they are halved, rounded up in the middle. */
const uint8_t kern_weight_32nds[32] = {
    65, 66, 68, 69, 71,  72,  74,  76,  77,  79,  81,  82,  84,  86,  88,  90,
    92, 94, 96, 98, 100, 102, 105, 107, 109, 112, 114, 116, 119, 122, 124, 127,
};

int8_t kern_weight_code(int y) {
    const int half = 7 - (y >> 5);
    return (int8_t)(y == 0 ? 0 : (kern_weight_32nds[y & 31] + ((1 << half) >> 1)) >> half);
}

float kern_level_scale(float level) {
    return kern_expf(level * KERN_LEVEL_STEP);
}

float kern_value_level(uint32_t top, float most, float *level) {
    float scale;
    if (kern_code_scale(top, most, &scale) == 0) {
        *level = scale == 0 ? (float)KERN_LEVEL_MIN : scale;
        return 0;
    }
    /* The lowest level that reaches the scale. Its exponent says where that is, but for 33 levels. */
    int below = 32 * ((int)(kern_f32_to_bits(scale) >> 23) - 127) - 1, at = below + 33;
    while (at - below > 1) {
        const int middle = (at + below) / 2;
        *(kern_level_scale((float)middle) < scale ? &below : &at) = middle;
    }
    *level = (float)at;
    return 1.0f / kern_level_scale(*level);
}

/* tanh(x). Up to 0.625: x + x^3 (C3 + C5 x^2 + ... + C11 x^8), nearly minimax, relative error 1.7e-8. Above:
 * 1 - 2/(exp(2|x|) + 1) with the sign of x, where nothing cancels. Within 2 ulp (tests/test_math.c). */
float kern_tanhf(float x) {
    float a = fabsf(x);
    if (a < KERN_TANH_SMALL) {
        float z = x * x, p = KERN_TANH_C11;
        p = fmaf(p, z, KERN_TANH_C9);
        p = fmaf(p, z, KERN_TANH_C7);
        p = fmaf(p, z, KERN_TANH_C5);
        p = fmaf(p, z, KERN_TANH_C3);
        return fmaf(x * z, p, x);
    }
    return copysignf(1.0f - 2.0f / (kern_expf(a + a) + 1.0f), x);
}

/* ---- double ------------------------------------------------------------------------------------------------------ */

#define MATH_LN2HI  0x1.62e42feep-1       /* the first 32 bits of ln 2: times an exponent it is exact */
#define MATH_LN2LO  0x1.a39ef35793c76p-33 /* the rest */
#define MATH_LOG2E  0x1.71547652b82fep+0  /* 1/ln 2 */
#define MATH_ROUND  0x1.8p+52             /* adding and subtracting it rounds to an integer */
#define MATH_PIO2HI 0x1.921fb54442d18p+0  /* pi/2, rounded to double */
#define MATH_PIO2LO 0x1.1a62633145c07p-54 /* pi/2 - PIO2HI */
#define MATH_2OPI   0x1.45f306dc9c883p-1  /* 2/pi */

/* 2^n for a normal result, -1022 <= n <= 1023 */
static double math_pow2(int n) {
    return kern_bits_to_f64((uint64_t)(n + 1023) << 52);
}

/* exp(x) by its Taylor series on |r| <= ln(2)/2, where 14 terms leave 4e-18. Below the normal numbers it gives 0. */
double kern_exp(double x) {
    static const double inverse_factorial[] = {
        1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    if (x < -708.39) return 0.0;
    if (x > 709.78) return INFINITY;
    if (!(x == x)) return x;

    double n = fma(x, MATH_LOG2E, MATH_ROUND) - MATH_ROUND;
    double r = fma(-n, MATH_LN2HI, x);
    r = fma(-n, MATH_LN2LO, r);

    double p = inverse_factorial[13];
    for (int i = 12; i >= 0; i--) p = fma(p, r, inverse_factorial[i]);
    int half = (int)n / 2; /* in two steps, because 2^1024 is no double */
    return p * math_pow2(half) * math_pow2((int)n - half);
}

/* log(x) = e * ln 2 + log(m), x = 2^e * m, sqrt(1/2) <= m < sqrt(2), and
 * log(m) = 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1), |s| < 0.172: 12 terms leave 1e-19. */
double kern_log(double x) {
    if (!(x == x) || x == INFINITY) return x;
    if (x == 0.0) return -INFINITY;
    if (x < 0.0) return NAN;

    int e = 0;
    if (x < 0x1p-1022) { /* subnormal */
        x *= 0x1p54;
        e = -54;
    }
    uint64_t bits = kern_f64_to_bits(x);
    e += (int)(bits >> 52) - 1023;
    double m = kern_bits_to_f64((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u); /* [1, 2) */
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = 1.0 / 23;
    for (int i = 21; i >= 3; i -= 2) p = fma(p, z, 1.0 / i);
    /* the small terms first: e*LN2LO + 2s^3 p, then 2s, then the exact e*LN2HI */
    double small = fma(2.0 * s * z, p, e * MATH_LN2LO);
    return fma(e, MATH_LN2HI, fma(2.0, s, small));
}

double kern_pow(double x, double y) {
    return kern_exp(y * kern_log(x));
}

/* Sine and cosine: x = n * pi/2 + r, |r| <= pi/4. fma(-n, PIO2HI, x) is exact for |x| < 2^30, because the result is a
 * multiple of 2^-53 below 1; PIO2LO then leaves an absolute error near 1e-16. Outside |x| < 2^30 both are NaN. */
void kern_sincos(double x, double *sin_out, double *cos_out) {
    if (!(x > -0x1p30 && x < 0x1p30)) {
        *sin_out = *cos_out = NAN;
        return;
    }
    double n = fma(x, MATH_2OPI, MATH_ROUND) - MATH_ROUND;
    double r = fma(-n, MATH_PIO2HI, x);
    r = fma(-n, MATH_PIO2LO, r);
    double z = r * r;

    double s = -1.0 / 1307674368000.0; /* 1/15! */
    s = fma(s, z, 1.0 / 6227020800.0);
    s = fma(s, z, -1.0 / 39916800.0);
    s = fma(s, z, 1.0 / 362880.0);
    s = fma(s, z, -1.0 / 5040.0);
    s = fma(s, z, 1.0 / 120.0);
    s = fma(s, z, -1.0 / 6.0);
    s = fma(s * z, r, r);

    double c = 1.0 / 20922789888000.0; /* 1/16! */
    c = fma(c, z, -1.0 / 87178291200.0);
    c = fma(c, z, 1.0 / 479001600.0);
    c = fma(c, z, -1.0 / 3628800.0);
    c = fma(c, z, 1.0 / 40320.0);
    c = fma(c, z, -1.0 / 720.0);
    c = fma(c, z, 1.0 / 24.0);
    c = fma(c, z, -1.0 / 2.0);
    c = fma(c, z, 1.0);

    switch ((int64_t)n & 3) { /* quarter turns */
    case 0: *sin_out = s, *cos_out = c; break;
    case 1: *sin_out = c, *cos_out = -s; break;
    case 2: *sin_out = -s, *cos_out = -c; break;
    default: *sin_out = -c, *cos_out = s; break;
    }
}

/* ---- f16 (IEEE 754 binary16): 1 sign, 5 exponent, 10 mantissa bits ----------------------------------------------- */

float kern_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h >> 15) << 31;
    uint32_t exponent = h >> 10 & 31, mantissa = h & 1023;
    if (exponent == 31) { /* infinity; a NaN becomes quiet, as F16C does */
        uint32_t quiet = mantissa ? 0x00400000u : 0;
        return kern_bits_to_f32(sign | 0x7f800000u | quiet | mantissa << 13);
    }
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24, exact */
        float v = (float)mantissa * 0x1p-24f;
        return kern_bits_to_f32(sign | kern_f32_to_bits(v));
    }
    return kern_bits_to_f32(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t kern_f32_to_f16(float x) {
    uint32_t bits = kern_f32_to_bits(x);
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 1023)); /* NaN, quiet */
    if (magnitude >= 0x47800000u) return (uint16_t)(sign | 0x7c00u);                           /* 65536 and up */
    if (magnitude <
        0x38800000u) { /* subnormal: adding 0.5 leaves the value in units of 2^-24, rounded, in the low bits */
        float v = kern_bits_to_f32(magnitude) + 0.5f;
        return (uint16_t)(sign | (kern_f32_to_bits(v) - 0x3f000000u));
    }
    /* Rebias the exponent, then round: half a unit less one, plus the last bit that stays (ties to even). A carry out
     * of the mantissa raises the exponent, up to infinity. */
    uint32_t rounded = magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1);
    return (uint16_t)(sign | rounded >> 13);
}
