/* rope.c: the angles of rotary positions (Su et al. 2021) and the ways to stretch them over longer contexts.
 *
 * Pair i of a head turns by base^(-2i/n_rot) from one position to the next: the first pairs fast, the last ones so
 * slowly that one turn takes many thousand tokens. Models are made to read further than they were first trained for by
 * turning more slowly:
 *   linear   every pair by the same factor (Chen et al. 2023)
 *   factors  every pair by its own, a tensor of the file: Llama 3.1's rope_freqs, Phi's short and long sets
 *   YaRN     pairs that turn often within the original context keep their speed, slow ones get the whole factor, and
 *            between the two there is a ramp (Peng et al. 2023)
 */
#include <math.h>

#include "model.h"

/* The pair, as a fractional index, that makes `turns` turns within the original context. */
static double rope_pair_of(const model_shape *s, double turns) {
    const double two_pi = 6.283185307179586;
    return s->n_rot * kern_log(s->n_ctx_orig / (turns * two_pi)) / (2 * kern_log((double)s->rope_base));
}

/* How much of the scaling pair i gets, 0 to 1. */
static double rope_yarn_share(const model_shape *s, int i) {
    double low = floor(rope_pair_of(s, (double)s->yarn_fast)), high = ceil(rope_pair_of(s, (double)s->yarn_slow));
    low = low > 0 ? low : 0;
    high = high < s->n_rot - 1 ? high : s->n_rot - 1;
    double width = high - low > 0.001 ? high - low : 0.001, share = (i - low) / width;
    return share < 0 ? 0 : share < 1 ? share : 1;
}

/* factor: [n_rot/2] or NULL */
static minim_status rope_table(minim_model *m, enum model_rope kind, float base, const float *factor, minim_error *e) {
    const model_shape *s = &m->shape;
    int pairs = s->n_rot / 2, stretched = kind != MODEL_ROPE_WINDOW;
    double *freq = mem_alloc(&m->allocator, (size_t)pairs, sizeof *freq);
    if (!freq) return err_memory(e, "rotary frequencies", (uint64_t)pairs * sizeof *freq);
    m->rope_freq[kind] = freq;
    for (int i = 0; i < pairs; i++) {
        if (factor && !(factor[i] > 0 && isfinite(factor[i]))) {
            return err_set(e, MINIM_ERR_FORMAT, "%s: rotary factors: element %d is %g, expected > 0",
                           gguf_path(m->file), i, (double)factor[i]);
        }
        double scale = stretched ? (double)s->rope_scale : 1.0;
        if (stretched && s->rope_yarn) scale = fma(scale - 1.0, rope_yarn_share(s, i), 1.0);
        freq[i] = kern_pow((double)base, -2.0 * i / s->n_rot) * scale / (factor ? (double)factor[i] : 1.0);
    }
    return MINIM_OK;
}

minim_status rope_make(minim_model *m, const float *near, const float *far, minim_error *e) {
    const model_shape *s = &m->shape;
    minim_status status = rope_table(m, MODEL_ROPE_NEAR, s->rope_base, near, e);
    if (!status && far != near) status = rope_table(m, MODEL_ROPE_FAR, s->rope_base, far, e);
    if (!status && s->n_window_layers && m->family->window_rope != FAMILY_WINDOW_ROPE_SAME) {
        status = rope_table(m, MODEL_ROPE_WINDOW, s->rope_window_base, NULL, e);
    }
    return status;
}
