/* test_route_calibration.c: scores become probabilities: maps, bounds, files, and what decisions make of them. The
 * answers are those of the built-in model; an answer is right when the model, sampling the same story, went on that
 * way. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../router/minim_route_learn.h"
#include "router_test.h"

static uint64_t calibration_next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static double calibration_uniform(uint64_t *state) {
    return (double)(calibration_next(state) >> 11) / 9007199254740992.0;
}

static const char *calibration_path(void) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/minim-calibration-%ld.json", (long)getpid());
    return path;
}

static minim_route_calibration *calibration_new(void) {
    minim_route_calibration *c = NULL;
    assert_int_equal(minim_route_calibration_new(&c, NULL), MINIM_OK);
    return c;
}

/* ---- labels of a world that is known ------------------------------------------------------------------------------
 */

enum { WORLD = 2000 };

/* Scores in 0..1; an answer is right with probability p(score). The signals say the same as the score. */
static void calibration_world(minim_route_label *rows, const minim_route_label **pointers, size_t n, double slope,
                              double middle, uint64_t seed) {
    for (size_t i = 0; i < n; i++) {
        double score = 0.02 + 0.96 * calibration_uniform(&seed), p = 1 / (1 + exp(-slope * (score - middle)));
        rows[i] = (minim_route_label){.group = "", .prompt = "", .model = "m", .quantisation = "q", .score = score};
        rows[i].weak = calibration_uniform(&seed) < p;
        rows[i].strong = 1;
        pointers[i] = &rows[i];
    }
}

static void calibration_signals(minim_route_label *row, double score, double noise) {
    row->has_signals = 1;
    for (int k = 0; k < MINIM_ROUTE_N_SIGNALS; k++) row->signals[k] = noise * k;
    row->signals[MINIM_ROUTE_SIGNAL_LOGPROB_MEAN] = log(score);
    row->signals[MINIM_ROUTE_SIGNAL_LOGPROB_Q10] = 2 * log(score);
    row->signals[MINIM_ROUTE_SIGNAL_MARGIN_MEAN] = -log(1 - score);
}

static minim_route_calibration_info calibration_fit(minim_route_calibration *c, const minim_route_label **rows,
                                                    size_t n, minim_route_method method, double alpha) {
    minim_route_calibrate_options o;
    minim_route_calibration_info info = {.size = sizeof info};
    minim_error error = {MINIM_OK, ""};
    minim_route_calibrate_options_default(&o);
    o.model = "m";
    o.quantisation = "q";
    o.method = method;
    o.alpha = alpha;
    if (minim_route_calibrate(c, rows, n, &o, &info, &error)) fail_msg("%s", error.text);
    return info;
}

static double calibration_confidence(const minim_route_calibration *c, minim_route_method method, double score,
                                     int *certified) {
    minim_route_features f = {.size = sizeof f, .has_signals = 1};
    minim_route_label row = {0};
    calibration_signals(&row, score, 0);
    memcpy(f.signals, row.signals, sizeof f.signals);
    if (!minim_route_apply_calibration(c, "m", "q", method, &f)) return -1;
    if (certified) *certified = f.certified;
    return f.confidence;
}

static void a_confidence_is_the_rate_of_right_answers(void **state) {
    (void)state;
    static minim_route_label rows[WORLD];
    static const minim_route_label *pointers[WORLD];
    calibration_world(rows, pointers, WORLD, 6, 0.4, 1);
    for (int few = 0; few < 2; few++) {
        minim_route_calibration *c = calibration_new();
        minim_route_calibration_info info =
            calibration_fit(c, pointers, few ? 400 : WORLD, MINIM_ROUTE_AVG_LOGPROB, 0.2);
        assert_int_equal(info.isotonic, !few); /* Platt under 500 labels */
        for (double score = 0.1; score < 0.95; score += 0.2) {
            double is = calibration_confidence(c, MINIM_ROUTE_AVG_LOGPROB, score, NULL);
            double should = 1 / (1 + exp(-6 * (score - 0.4)));
            if (fabs(is - should) > 0.12) fail_msg("P(right | %.1f) is %.3f, not %.3f", score, is, should);
        }
        assert_true(info.auroc > 0.7 && info.ece < 0.08);
        /* the usual bar of a cascade */
        double kept = 0, right = 0;
        for (size_t i = 400; i < WORLD; i++) {
            if (calibration_confidence(c, MINIM_ROUTE_AVG_LOGPROB, rows[i].score, NULL) < 0.8) continue;
            kept++;
            right += rows[i].weak;
        }
        assert_true(kept > 100);
        if (right / kept < 0.75) fail_msg("of the answers above 0.8 only %.3f are right", right / kept);
        minim_route_calibration_free(c);
    }
}

static void a_confidence_never_falls_with_the_score(void **state) {
    (void)state;
    static minim_route_label rows[600];
    static const minim_route_label *pointers[600];
    for (int slope = -4; slope <= 4; slope += 4) { /* also of a score that lies: then everybody gets the base rate */
        calibration_world(rows, pointers, 600, slope, 0.5, 5);
        for (size_t n = 200; n <= 600; n += 400) {
            minim_route_calibration *c = calibration_new();
            calibration_fit(c, pointers, n, MINIM_ROUTE_AVG_LOGPROB, 0.1);
            double last = 0;
            for (double score = 0.01; score < 1; score += 0.01) {
                double confidence = calibration_confidence(c, MINIM_ROUTE_AVG_LOGPROB, score, NULL);
                assert_true(confidence >= last - 1e-12 && confidence > 0 && confidence < 1);
                last = confidence;
            }
            minim_route_calibration_free(c);
        }
    }
}

/* The promise: among the answers above the bar at most alpha are wrong, in all but delta of the cases. */
static void a_certified_bar_keeps_its_promise(void **state) {
    (void)state;
    static minim_route_label rows[300];
    static const minim_route_label *pointers[300];
    int certified = 0, broken = 0;
    enum { ROUNDS = 200 };
    for (uint64_t round = 0; round < ROUNDS; round++) {
        minim_route_calibration *c = calibration_new();
        calibration_world(rows, pointers, 300, 5, 0.3, 1000 + round);
        minim_route_calibration_info info = calibration_fit(c, pointers, 300, MINIM_ROUTE_AVG_LOGPROB, 0.2);
        if (info.certified) {
            double wrong = 0, n = 0;
            for (double score = info.bar_score; score < 0.98; score += 0.001, n++)
                wrong += 1 - 1 / (1 + exp(-5 * (score - 0.3)));
            certified++;
            broken += wrong / n > 0.2; /* the true rate, not an estimate */
            int passes = 0;
            calibration_confidence(c, MINIM_ROUTE_AVG_LOGPROB, info.bar_score, &passes);
            assert_true(passes || info.bar_score != exp(log(info.bar_score)));
            calibration_confidence(c, MINIM_ROUTE_AVG_LOGPROB, info.bar_score - 0.001, &passes);
            assert_false(passes);
        }
        minim_route_calibration_free(c);
    }
    assert_true(certified > ROUNDS / 2);
    /* 20 in 200, and three standard deviations of a binomial */
    if (broken > 20 + 13) fail_msg("the promise was broken %d times of %d", broken, ROUNDS);
}

static void what_can_not_be_certified_says_how_much_is_missing(void **state) {
    (void)state;
    static minim_route_label rows[WORLD];
    static const minim_route_label *pointers[WORLD];
    minim_route_calibration *c = calibration_new();
    /* 19 good labels in a slice can not show 10 % with 90 %: 0.9^22 < 0.1 */
    calibration_world(rows, pointers, 40, 12, 0.3, 3);
    minim_route_calibration_info few = calibration_fit(c, pointers, 40, MINIM_ROUTE_AVG_LOGPROB, 0.02);
    assert_false(few.certified);
    assert_true(few.labels_missing > 0 || few.labels_missing == -1);
    assert_true(few.accepted == 0);
    /* a score that says nothing about answers that are wrong half of the time: no number of labels helps */
    calibration_world(rows, pointers, WORLD, 0, 0.5, 3);
    minim_route_calibration_info never = calibration_fit(c, pointers, WORLD, MINIM_ROUTE_AVG_LOGPROB, 0.1);
    assert_false(never.certified);
    assert_true(never.labels_missing == -1);
    /* a good score and few labels: a number */
    calibration_world(rows, pointers, 60, 10, 0.1, 3);
    minim_route_calibration_info some = calibration_fit(c, pointers, 60, MINIM_ROUTE_AVG_LOGPROB, 0.03);
    assert_false(some.certified);
    assert_true(some.labels_missing >= 1);
    minim_route_calibration_free(c);
}

static void labels_that_make_no_calibration_are_refused(void **state) {
    (void)state;
    static minim_route_label rows[100];
    static const minim_route_label *pointers[100];
    minim_route_calibration *c = calibration_new();
    minim_route_calibrate_options o;
    minim_error error;
    minim_route_calibrate_options_default(&o);
    calibration_world(rows, pointers, 100, 5, 0.5, 1);
    assert_int_equal(minim_route_calibrate(c, pointers, 19, &o, NULL, &error), MINIM_ERR_ARGUMENT);
    assert_has(error.text, "found 19 labels");
    o.method = MINIM_ROUTE_LEARNED;
    assert_int_equal(minim_route_calibrate(c, pointers, 100, &o, NULL, &error), MINIM_ERR_ARGUMENT);
    assert_has(error.text, "expected all signals");
    o.method = MINIM_ROUTE_AVG_LOGPROB;
    rows[7].score = 1.5;
    assert_int_equal(minim_route_calibrate(c, pointers, 100, &o, NULL, &error), MINIM_ERR_ARGUMENT);
    assert_has(error.text, "label 7");
    rows[7].score = 0.5;
    rows[8].weak = 0.5;
    assert_int_equal(minim_route_calibrate(c, pointers, 100, &o, NULL, &error), MINIM_ERR_ARGUMENT);
    assert_has(error.text, "label 8: expected an answer judged 0 or 1");
    for (int i = 0; i < 100; i++) rows[i].weak = 1;
    assert_int_equal(minim_route_calibrate(c, pointers, 100, &o, NULL, &error), MINIM_ERR_ARGUMENT);
    assert_has(error.text, "some of both kinds");
    o.alpha = 0;
    assert_int_equal(minim_route_calibrate(c, pointers, 100, &o, NULL, &error), MINIM_ERR_ARGUMENT);
    minim_route_calibration_free(c);
}

/* ---- files ----------------------------------------------------------------------------------------------------------
 */

static void calibrations_of_several_models_share_a_file(void **state) {
    (void)state;
    static minim_route_label rows[600];
    static const minim_route_label *pointers[600];
    const char *path = calibration_path();
    minim_route_calibrate_options o;
    minim_error error = {MINIM_OK, ""};
    minim_route_calibrate_options_default(&o);
    calibration_world(rows, pointers, 600, 5, 0.3, 1);
    for (int i = 0; i < 600; i++) calibration_signals(&rows[i], rows[i].score, rows[i].score * 0.01);
    static const char *const quantisations[] = {"Q4_0", "Q8_0", "Q4_0"};
    for (int i = 0; i < 3;
         i++) { /* each from a process that knows nothing of the others; the third replaces the first */
        minim_route_calibration *c = calibration_new();
        o.model = "m";
        o.quantisation = quantisations[i];
        o.method = i == 1 ? MINIM_ROUTE_LEARNED : MINIM_ROUTE_AVG_LOGPROB;
        if (minim_route_calibrate(c, pointers, i == 2 ? 600 : 100, &o, NULL, &error) ||
            minim_route_calibration_save(c, path, &error))
            fail_msg("%s", error.text);
        minim_route_calibration_free(c);
    }
    minim_route_calibration *c = NULL, *fresh = calibration_new();
    if (minim_route_calibration_load(path, &c, &error)) fail_msg("%s", error.text);
    assert_int_equal(minim_route_calibration_count(c), 2);
    minim_route_calibration_info info = {.size = sizeof info};
    assert_int_equal(minim_route_calibration_get(c, 0, &info), MINIM_OK);
    assert_string_equal(info.quantisation, "Q4_0");
    assert_int_equal(info.n_labels, 600);
    assert_true(info.isotonic);
    assert_int_equal(minim_route_calibration_get(c, 2, &info), MINIM_ERR_ARGUMENT);
    /* what was read says what was written */
    o.quantisation = "Q4_0";
    o.method = MINIM_ROUTE_AVG_LOGPROB;
    assert_int_equal(minim_route_calibrate(fresh, pointers, 600, &o, NULL, NULL), MINIM_OK);
    for (int i = 0; i < 600; i++) {
        minim_route_features a = {.size = sizeof a, .has_signals = 1}, b = a;
        memcpy(a.signals, rows[i].signals, sizeof a.signals);
        memcpy(b.signals, rows[i].signals, sizeof b.signals);
        assert_true(minim_route_apply_calibration(c, "m", "Q4_0", MINIM_ROUTE_AVG_LOGPROB, &a));
        assert_true(minim_route_apply_calibration(fresh, "m", "Q4_0", MINIM_ROUTE_AVG_LOGPROB, &b));
        assert_true(a.confidence == b.confidence && a.certified == b.certified);
        /* not for another quantisation, method or model */
        assert_false(minim_route_apply_calibration(c, "m", "Q8_0", MINIM_ROUTE_AVG_LOGPROB, &a));
        assert_false(a.has_confidence);
        assert_false(minim_route_apply_calibration(c, "n", "Q4_0", MINIM_ROUTE_AVG_LOGPROB, &a));
        assert_true(minim_route_apply_calibration(c, "m", "Q8_0", MINIM_ROUTE_LEARNED, &a));
        assert_true(a.learned_score > 0 && a.learned_score < 1);
    }
    minim_route_calibration_free(c);
    minim_route_calibration_free(fresh);
    unlink(path);
}

static void damaged_calibration_files_are_refused(void **state) {
    (void)state;
    static minim_route_label rows[600];
    static const minim_route_label *pointers[600];
    static char text[1 << 18];
    const char *path = calibration_path();
    minim_error error = {MINIM_OK, ""};
    minim_route_calibration *c = calibration_new();
    calibration_world(rows, pointers, 600, 5, 0.3, 1);
    for (int i = 0; i < 600; i++) calibration_signals(&rows[i], rows[i].score, 0.1);
    calibration_fit(c, pointers, 600, MINIM_ROUTE_AVG_LOGPROB, 0.2);
    calibration_fit(c, pointers, 600, MINIM_ROUTE_LEARNED, 0.2);
    assert_int_equal(minim_route_calibration_save(c, path, &error), MINIM_OK);
    FILE *file = fopen(path, "rb");
    size_t n = fread(text, 1, sizeof text, file);
    fclose(file);
    minim_route_calibration_free(c);
    uint64_t seed = 1;
    for (int i = 0; i < 600; i++) {
        size_t at = calibration_next(&seed) % n, size = i % 2 ? n : at;
        char was = text[at];
        text[at] = (char)"0-9e,[]}{\" \x80"[calibration_next(&seed) % 12];
        file = fopen(path, "wb");
        assert_int_equal(fwrite(text, 1, size, file), size);
        fclose(file);
        text[at] = was;
        c = NULL;
        if (minim_route_calibration_load(path, &c, &error) == MINIM_OK) {
            assert_true(i % 2); /* a file that was cut is never one */
            double confidence = calibration_confidence(c, MINIM_ROUTE_LEARNED, 0.4, NULL);
            assert_true(confidence == -1 || (confidence >= 0 && confidence <= 1));
            minim_route_calibration_free(c);
        } else {
            assert_null(c);
            assert_has(error.text, path);
        }
    }
    /* a file that is something else is not overwritten */
    file = fopen(path, "wb");
    fputs("{\"mine\":1}", file);
    fclose(file);
    c = calibration_new();
    calibration_fit(c, pointers, 600, MINIM_ROUTE_AVG_LOGPROB, 0.2);
    assert_int_equal(minim_route_calibration_save(c, path, &error), MINIM_ERR_FORMAT);
    assert_int_equal(minim_route_calibration_save(c, "/nonexistent/folder/x", &error), MINIM_ERR_IO);
    minim_route_calibration_free(c);
    unlink(path);
}

/* ---- decisions ------------------------------------------------------------------------------------------------------
 */

static minim_route_decision calibration_decide(minim_route_threshold semantics, const minim_route_features *features,
                                               int local_answered, double prompt_threshold) {
    minim_route_policy policy = {.size = sizeof policy,
                                 .threshold = 0.5,
                                 .remote_available = 1,
                                 .threshold_semantics = semantics,
                                 .prompt_threshold = prompt_threshold};
    minim_route_state state = {.size = sizeof state};
    minim_route_decision d = {.size = sizeof d};
    if (local_answered) state.local = MINIM_ROUTE_ANSWERED;
    assert_int_equal(minim_route_decide(&policy, features, &state, &d), MINIM_OK);
    return d;
}

static void a_raw_score_never_passes_a_calibrated_bar(void **state) {
    (void)state;
    minim_route_features f = {.size = sizeof f, .n_tokens = 4, .n_bytes = 9, .sum_logprob = 0}; /* score 1 */
    minim_route_decision d = calibration_decide(MINIM_ROUTE_THRESHOLD_RAW, &f, 1, 0);
    assert_int_equal(d.reason, MINIM_ROUTE_REASON_SCORE_PASSED);
    assert_false(d.calibrated);
    d = calibration_decide(MINIM_ROUTE_THRESHOLD_CALIBRATED, &f, 1, 0);
    assert_int_equal(d.reason, MINIM_ROUTE_REASON_UNCALIBRATED);
    assert_int_equal(d.route, MINIM_ROUTE_REMOTE);
    assert_false(d.calibrated);
    d = calibration_decide(MINIM_ROUTE_THRESHOLD_CERTIFIED, &f, 1, 0);
    assert_int_equal(d.reason, MINIM_ROUTE_REASON_UNCALIBRATED);
    f.has_confidence = 1;
    f.confidence = 0.4; /* sure, and wrong more often than not */
    d = calibration_decide(MINIM_ROUTE_THRESHOLD_CALIBRATED, &f, 1, 0);
    assert_int_equal(d.reason, MINIM_ROUTE_REASON_SCORE_LOW);
    assert_true(d.calibrated && d.has_confidence && d.confidence == 0.4 && d.score == 1);
    f.confidence = 0.6;
    assert_int_equal(calibration_decide(MINIM_ROUTE_THRESHOLD_CALIBRATED, &f, 1, 0).reason,
                     MINIM_ROUTE_REASON_SCORE_PASSED);
    /* a bar that was not certified lets nothing through, whatever the confidence */
    assert_int_equal(calibration_decide(MINIM_ROUTE_THRESHOLD_CERTIFIED, &f, 1, 0).reason,
                     MINIM_ROUTE_REASON_SCORE_LOW);
    f.certified = 1;
    assert_int_equal(calibration_decide(MINIM_ROUTE_THRESHOLD_CERTIFIED, &f, 1, 0).reason,
                     MINIM_ROUTE_REASON_SCORE_PASSED);
}

static void a_prompt_that_is_too_hard_leaves_at_once(void **state) {
    (void)state;
    minim_route_features f = {.size = sizeof f, .has_prompt_score = 1, .prompt_score = 0.4};
    assert_int_equal(calibration_decide(MINIM_ROUTE_THRESHOLD_RAW, &f, 0, 0).reason, MINIM_ROUTE_REASON_LOCAL_FIRST);
    minim_route_decision d = calibration_decide(MINIM_ROUTE_THRESHOLD_RAW, &f, 0, 0.3);
    assert_int_equal(d.reason, MINIM_ROUTE_REASON_PROMPT_SCORE);
    assert_int_equal(d.route, MINIM_ROUTE_REMOTE);
    f.prompt_score = 0.2;
    assert_int_equal(calibration_decide(MINIM_ROUTE_THRESHOLD_RAW, &f, 0, 0.3).reason, MINIM_ROUTE_REASON_LOCAL_FIRST);
    f.has_prompt_score = 0; /* abstained */
    f.prompt_score = 0.9;
    assert_int_equal(calibration_decide(MINIM_ROUTE_THRESHOLD_RAW, &f, 0, 0.3).reason, MINIM_ROUTE_REASON_LOCAL_FIRST);
}

/* ---- a real local model
 * ---------------------------------------------------------------------------------------------- */

enum { STORIES = 200, CUTS = 7, ANSWERS = STORIES * CUTS, STORY_TOKENS = 110, EXPECT = 6 };

typedef struct story_text {
    char text[1024];
    size_t n;
} story_text;

static int story_on_text(void *user, const char *text, size_t n) {
    story_text *story = user;
    if (story->n + n >= sizeof story->text) return 1;
    memcpy(story->text + story->n, text, n);
    story->text[story->n += n] = 0;
    return 0;
}

/* Answers of the built-in model, judged: what it says first after a part of a story, against how the story went on. */
static size_t story_answers(minim_route_label *rows) {
    size_t size, n = 0;
    const void *image = minim_default_model(&size);
    minim_model *model = NULL;
    minim_engine *engine = NULL;
    minim_router_backend backend;
    if (!image) skip();
    assert_int_equal(minim_model_load_memory(image, size, "default", NULL, &model, NULL), MINIM_OK);
    assert_int_equal(minim_engine_new(model, NULL, &engine, NULL), MINIM_OK);
    assert_int_equal(minim_router_local(model, engine, NULL, &backend, NULL), MINIM_OK);
    for (size_t s = 0; s < STORIES; s++) {
        story_text story = {.n = 0};
        story_on_text(&story, "Once", 4);
        minim_message message = {"user", "Once"};
        minim_router_sink sink = {&story, story_on_text, NULL};
        minim_router_request request;
        minim_router_request_default(&request);
        request.messages = &message;
        request.n_messages = 1;
        request.max_tokens = STORY_TOKENS;
        request.sampling.temperature = 1;
        request.sampling.seed = 100 + s;
        minim_router_reply reply = {.size = sizeof reply};
        assert_int_equal(backend.chat(backend.state, &request, &sink, &reply, NULL), MINIM_OK);
        assert_false(reply.has_signals); /* drawn at random */
        for (size_t cut = 0; cut < CUTS && story.n > 120; cut++) {
            char prompt[1024];
            size_t at = 60 + (story.n - 60 - EXPECT) * cut / CUTS; /* the first sentence is always the same */
            while (at < story.n && story.text[at] != ' ') at++;    /* at the end of a word */
            if (at + EXPECT > story.n) break;
            memcpy(prompt, story.text, at);
            prompt[at] = 0;
            story_text answer = {.n = 0};
            message.content = prompt;
            sink.user = &answer;
            request.max_tokens = EXPECT;
            request.sampling.temperature = 0;
            memset(&reply, 0, sizeof reply);
            reply.size = sizeof reply;
            assert_int_equal(backend.chat(backend.state, &request, &sink, &reply, NULL), MINIM_OK);
            assert_true(reply.has_signals);
            assert_has(reply.quantisation, "parameters");
            rows[n] =
                (minim_route_label){.group = "", .prompt = "", .model = "m", .quantisation = "q", .has_signals = 1};
            memcpy(rows[n].signals, reply.signals, sizeof rows[n].signals);
            rows[n++].weak = answer.n >= EXPECT && !memcmp(answer.text, story.text + at, EXPECT);
        }
    }
    backend.free(backend.state);
    minim_engine_free(engine);
    minim_model_free(model);
    return n;
}

/* The bars of the issue: expected calibration error on held-out answers after 200 labels, and the promise of the bar.
 */
static void the_answers_of_a_real_model_are_calibrated_by_200_labels(void **state) {
    (void)state;
    static minim_route_label rows[ANSWERS];
    static const minim_route_label *pointers[ANSWERS];
    static double confidence[ANSWERS], right[ANSWERS], zero[ANSWERS];
    size_t n = story_answers(rows);
    assert_true(n > 400);
    enum { RESPLITS = 200, LABELS = 200 };
    static const minim_route_method methods[] = {MINIM_ROUTE_AVG_LOGPROB, MINIM_ROUTE_LEARNED};
    for (size_t k = 0; k < COUNT(methods); k++) {
        double ece = 0, auroc = 0;
        int too_sure = 0, broken = 0, certified = 0;
        for (uint64_t round = 0; round < RESPLITS; round++) {
            uint64_t seed = 1 + round;
            for (size_t i = 0; i < n; i++) pointers[i] = &rows[i];
            for (size_t i = n; i > 1; i--) {
                size_t j = calibration_next(&seed) % i;
                const minim_route_label *swap = pointers[i - 1];
                pointers[i - 1] = pointers[j];
                pointers[j] = swap;
            }
            minim_route_calibration *c = calibration_new();
            minim_route_calibration_info info = calibration_fit(c, pointers, LABELS, methods[k], 0.6);
            double accepted = 0, wrong = 0, high = 0, high_right = 0;
            for (size_t i = LABELS; i < n; i++) {
                minim_route_features f = {.size = sizeof f, .has_signals = 1};
                memcpy(f.signals, pointers[i]->signals, sizeof f.signals);
                assert_true(minim_route_apply_calibration(c, "m", "q", methods[k], &f));
                confidence[i - LABELS] = f.confidence;
                right[i - LABELS] = pointers[i]->weak;
                high += f.confidence >= 0.8;
                high_right += f.confidence >= 0.8 ? pointers[i]->weak : 0;
                accepted += f.certified;
                wrong += f.certified && pointers[i]->weak < 0.5;
            }
            minim_route_eval_options o;
            minim_route_report r = {.size = sizeof r};
            minim_route_eval_options_default(&o);
            o.weak = o.strong = right;
            o.confidence = confidence;
            o.n_bootstrap = 0;
            assert_int_equal(minim_route_evaluate(zero, n - LABELS, &o, &r, NULL), MINIM_OK);
            ece += r.ece / RESPLITS;
            auroc += r.auroc.value / RESPLITS;
            certified += info.certified;
            too_sure += high_right < 0.75 * high;
            broken += accepted > 0 && wrong / accepted > 0.6;
            minim_route_calibration_free(c);
        }
        double base = 0;
        for (size_t i = 0; i < n; i++) base += rows[i].weak / (double)n;
        print_message("# %s: %zu answers, %.0f %% right; AUROC %.3f, ECE %.3f; certified in %d of %d, broken in %d, "
                      "too sure in %d\n",
                      minim_route_method_name(methods[k]), n, 100 * base, auroc, ece, certified, RESPLITS, broken,
                      too_sure);
        assert_true(ece <= 0.06);
        /* a bar of 0.8 accepts nothing, or answers that deserve it */
        if (too_sure > 10) fail_msg("of the answers above 0.8 less than 0.75 are right in %d resplits", too_sure);
        assert_true(auroc > 0.6);
        assert_true(certified > 0);
        assert_true(broken <= 20 + 13); /* delta is 0.1: 20 of 200, and three standard deviations of a binomial */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_confidence_is_the_rate_of_right_answers),
        cmocka_unit_test(a_confidence_never_falls_with_the_score),
        cmocka_unit_test(a_certified_bar_keeps_its_promise),
        cmocka_unit_test(what_can_not_be_certified_says_how_much_is_missing),
        cmocka_unit_test(labels_that_make_no_calibration_are_refused),
        cmocka_unit_test(calibrations_of_several_models_share_a_file),
        cmocka_unit_test(damaged_calibration_files_are_refused),
        cmocka_unit_test(a_raw_score_never_passes_a_calibrated_bar),
        cmocka_unit_test(a_prompt_that_is_too_hard_leaves_at_once),
        cmocka_unit_test(the_answers_of_a_real_model_are_calibrated_by_200_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
