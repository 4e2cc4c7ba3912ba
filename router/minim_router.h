/* minim_router.h: who answers a prompt, the local model or a remote one.
 *
 *   minim_router_config    what is wanted and where the remote is: minim.json, environment, flags.
 *   minim_router_backend   something that answers a conversation: a minim_engine, an HTTP server, a test's script.
 *   minim_route_decision   a value: who answers, why, with which score, tokens, cost. Made by a pure function.
 *   minim_router           asks the backends in the order the decisions say.
 *   minim_ledger           a file that remembers every decision, keeps the budget and caches answers. Optional.
 * What is learned from judged answers (a calibration, a score of prompts) is in minim_route_learn.h.
 *
 * The shortest complete program (errors left out; model and engine as in minim.h):
 *
 *     minim_router_config c;   minim_router_config_default(&c);
 *     minim_router_config_load(&c, NULL, &err);  minim_router_config_environment(&c, &err);
 *     minim_router_backend local;  minim_router_local(model, engine, NULL, &local, &err);
 *     minim_router_options o;  minim_router_options_default(&o);
 *     o.config = &c;  o.local = &local;  o.remote = minim_router_remote_http;
 *     minim_router *r;         minim_router_new(&o, &r, &err);
 *     minim_router_request q;  minim_router_request_default(&q);  q.messages = messages;  q.n_messages = 1;
 *     minim_router_answer *a;  minim_router_ask(r, &q, NULL, &a, &err);
 *     puts(a->text);
 *     minim_router_answer_free(a); minim_router_free(r); local.free(local.state);
 *
 * Rules: those of minim.h (codes and minim_error, sized structs with a _default(), NULL is accepted by free functions,
 * UTF-8, seconds). Further:
 *   - One router is used by one thread at a time; minim_router_cancel() may be called from anywhere. Different routers
 *     run in parallel. Callbacks run on the thread that called minim_router_ask().
 *   - In the mode "local" the remote is not merely unused: its factory is dropped by minim_router_new(), no backend is
 *     made, no API key is read, libcurl is not initialised.
 *   - `confidence` is a calibrated probability that the local answer is right, a `score` is not. A bar for the one is
 *     never compared with the other.
 */
#ifndef MINIM_ROUTER_H
#define MINIM_ROUTER_H

#include "../engine/minim.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- words ------------------------------------------------------------------------------------------------------ */

/* Who may answer. Each name is followed by its alias in the words of Firebase's InferenceMode. */
typedef enum minim_route_mode {
    MINIM_ROUTE_MODE_CASCADE = 0, /* "cascade", "prefer_on_device": local first, remote when the score is too low */
    MINIM_ROUTE_MODE_LOCAL,       /* "local", "only_on_device": nothing leaves this machine */
    MINIM_ROUTE_MODE_REMOTE,      /* "remote", "prefer_in_cloud": remote first, local when that fails */
    MINIM_ROUTE_MODE_ONLY_REMOTE  /* "only_remote", "only_in_cloud": the local model is never asked */
} minim_route_mode;

/* How the mode "cascade" (prefer_on_device) chooses between the two. */
typedef enum minim_route_plan {
    MINIM_ROUTE_PLAN_CASCADE = 0, /* "cascade": local first; remote when its answer, or its beginning, is too weak */
    MINIM_ROUTE_PLAN_RACE,        /* "race": the remote beside the local model; who has something good first goes on */
    MINIM_ROUTE_PLAN_CONTEXT,     /* "context": rules over the request decide before anybody is asked */
    MINIM_ROUTE_PLAN_HYBRID       /* "hybrid": the remote writes the spans that the local model is unsure of */
} minim_route_plan;

/* How a score is made from the local model's raw log-probabilities. */
typedef enum minim_route_method {
    MINIM_ROUTE_AVG_LOGPROB = 0,  /* "avg_logprob": exp(mean log-probability), the geometric mean token probability */
    MINIM_ROUTE_MARGIN,           /* "margin": 1 - exp(-mean margin between the best two tokens) */
    MINIM_ROUTE_QUANTILE,         /* "quantile": exp(the log-probability that a tenth of the tokens stays below) */
    MINIM_ROUTE_LEARNED,          /* "learned": a logistic model of all signals, from a calibration */
    MINIM_ROUTE_SELF_CONSISTENCY, /* "self_consistency": the share of sampled answers that agree with the most common */
    MINIM_ROUTE_VERIFY            /* "verify": P(YES) of the remote, asked in one token whether the answer is right */
} minim_route_method;

/* What the threshold of a cascade is. */
typedef enum minim_route_threshold {
    MINIM_ROUTE_THRESHOLD_AUTO = 0,   /* "auto": calibrated where a calibration is configured, else raw */
    MINIM_ROUTE_THRESHOLD_RAW,        /* "raw": the least score */
    MINIM_ROUTE_THRESHOLD_CALIBRATED, /* "calibrated": the least confidence; without one the remote is asked */
    MINIM_ROUTE_THRESHOLD_CERTIFIED,  /* "certified": the bar that the calibration could certify; none: the same */
    MINIM_ROUTE_THRESHOLD_COST        /* "cost": no bar; accept, verify or ask, whichever costs least in expectation */
} minim_route_threshold;

typedef enum minim_route { MINIM_ROUTE_LOCAL = 0, MINIM_ROUTE_REMOTE } minim_route;

typedef enum minim_route_action {
    MINIM_ROUTE_ASK = 0, /* decision.route is asked next */
    MINIM_ROUTE_ANSWER,  /* the answer of decision.route stands */
    MINIM_ROUTE_FAIL,    /* nobody could answer */
    MINIM_ROUTE_CHECK    /* the remote is asked for one token: is the local answer right? */
} minim_route_action;

/* Whether answers are remembered and given again. */
typedef enum minim_route_cache {
    MINIM_ROUTE_CACHE_OFF = 0,   /* "off" */
    MINIM_ROUTE_CACHE_ON,        /* "on" */
    MINIM_ROUTE_CACHE_READ_ONLY, /* "read_only" */
    MINIM_ROUTE_CACHE_WRITE_ONLY /* "write_only" */
} minim_route_cache;

/* What makes a request private. Bits of a set. */
enum {
    MINIM_PRIVATE_EMAIL = 1, /* "email" */
    MINIM_PRIVATE_PHONE = 2, /* "phone": with a +, a leading 0, brackets or separators, or 10 to 11 digits */
    MINIM_PRIVATE_CARD = 4,  /* "card": 13 to 19 digits whose last one is Luhn's check digit */
    MINIM_PRIVATE_IBAN = 8,  /* "iban": with the right check digits (ISO 13616) */
    MINIM_PRIVATE_KEY = 16,  /* "key": private keys, tokens with a known prefix, "password: ...", long random words */
    MINIM_PRIVATE_ALL = 31,
    MINIM_PRIVATE_PATTERN = 32, /* a pattern of the configuration */
    MINIM_PRIVATE_REQUEST = 64  /* the request says so itself */
};

typedef enum minim_route_reason {
    MINIM_ROUTE_REASON_LOCAL_ONLY = 0, /* "local_only": the mode allows nothing else */
    MINIM_ROUTE_REASON_LOCAL_FIRST,    /* "local_first": a cascade begins here */
    MINIM_ROUTE_REASON_REMOTE_FIRST,   /* "remote_first": the mode asks for it */
    MINIM_ROUTE_REASON_SCORE_PASSED,   /* "score_passed": score >= threshold */
    MINIM_ROUTE_REASON_SCORE_LOW,      /* "score_low": score < threshold */
    MINIM_ROUTE_REASON_LOCAL_EMPTY,    /* "local_empty": the local model said nothing */
    MINIM_ROUTE_REASON_LOCAL_CONTEXT,  /* "local_context": its context was full before its answer ended */
    MINIM_ROUTE_REASON_LOCAL_FAILED,   /* "local_failed": for example a prompt longer than its context */
    MINIM_ROUTE_REASON_NO_REMOTE,      /* "no_remote": there is nobody else to ask */
    MINIM_ROUTE_REASON_REMOTE_FAILED,  /* "remote_failed": see degraded_reason */
    MINIM_ROUTE_REASON_PRIVATE,        /* "private": this request may not leave the machine */
    MINIM_ROUTE_REASON_OVER_BUDGET,    /* "over_budget": the most it could cost does not fit max_budget any more */
    MINIM_ROUTE_REASON_CACHED,         /* "cached": the same request was answered before */
    MINIM_ROUTE_REASON_UNCALIBRATED,  /* "uncalibrated": a confidence is asked for, and this score has no calibration */
    MINIM_ROUTE_REASON_PROMPT_SCORE,  /* "prompt_score": the prompt looks like one that only the remote gets right */
    MINIM_ROUTE_REASON_ONLY_REMOTE,   /* "only_remote": the mode allows nothing else */
    MINIM_ROUTE_REASON_RACE,          /* "race": both begin */
    MINIM_ROUTE_REASON_GATE_PASSED,   /* "gate_passed": the beginning of the local answer is good enough */
    MINIM_ROUTE_REASON_GATE_LOW,      /* "gate_low": it is not */
    MINIM_ROUTE_REASON_COLLAPSED,     /* "collapsed": the local model lost its way in the middle */
    MINIM_ROUTE_REASON_RACE_LOST,     /* "race_lost": the remote had text before the local answer was good enough */
    MINIM_ROUTE_REASON_LATENCY,       /* "latency": the remote would not begin within latency_budget */
    MINIM_ROUTE_REASON_COMPLEXITY,    /* "complexity": complexity >= complexity_threshold */
    MINIM_ROUTE_REASON_SIMPLE,        /* "simple": no rule of the context plan sends it away */
    MINIM_ROUTE_REASON_EVIDENCE,      /* "evidence": a validator refused the local answer; see evidence_detail */
    MINIM_ROUTE_REASON_VERIFY,        /* "verify": the remote looks at the local answer */
    MINIM_ROUTE_REASON_VERIFY_FAILED, /* "verify_failed": it could not, or gave no verdict */
    MINIM_ROUTE_REASON_COST,          /* "cost": nothing else costs less in expectation */
    MINIM_ROUTE_REASON_HYBRID         /* "hybrid": the local model writes, the remote the spans it is unsure of */
} minim_route_reason;

/* Why a backend failed. */
typedef enum minim_route_failure {
    MINIM_ROUTE_OK = 0,
    MINIM_ROUTE_FAILED_CONFIG,     /* "config": address or key not usable */
    MINIM_ROUTE_FAILED_RESOLVE,    /* "resolve": no address for that name */
    MINIM_ROUTE_FAILED_CONNECT,    /* "connect": refused, unreachable, or the connection broke before an answer */
    MINIM_ROUTE_FAILED_TLS,        /* "tls" */
    MINIM_ROUTE_FAILED_TIMEOUT,    /* "timeout" */
    MINIM_ROUTE_FAILED_AUTH,       /* "auth": HTTP 401, 403 */
    MINIM_ROUTE_FAILED_QUOTA,      /* "quota": HTTP 402, or 429 with insufficient_quota */
    MINIM_ROUTE_FAILED_RATE_LIMIT, /* "rate_limit": HTTP 429 */
    MINIM_ROUTE_FAILED_REQUEST,    /* "request": any other answer that is not 2xx or 5xx, redirects too */
    MINIM_ROUTE_FAILED_SERVER,     /* "server": HTTP 5xx, or an error inside a stream */
    MINIM_ROUTE_FAILED_PROTOCOL,   /* "protocol": not what an OpenAI-compatible server says */
    MINIM_ROUTE_FAILED_INCOMPLETE, /* "incomplete": the answer broke off */
    MINIM_ROUTE_FAILED_EMPTY,      /* "empty": a complete answer without text */
    MINIM_ROUTE_FAILED_TOO_LARGE,  /* "too_large": longer than max_response_bytes */
    MINIM_ROUTE_FAILED_LOCAL,      /* "local": the local model; the minim_error says why */
    MINIM_ROUTE_FAILED_EVIDENCE,   /* "evidence": a validator refused the answer */
    MINIM_ROUTE_FAILED_CONTEXT     /* "context": the request is longer than the server's context */
} minim_route_failure;

/* How an answer ended. */
typedef enum minim_route_finish {
    MINIM_ROUTE_FINISH_END = 0, /* "stop" */
    MINIM_ROUTE_FINISH_LENGTH,  /* "length": max_tokens reached */
    MINIM_ROUTE_FINISH_CONTEXT, /* "context": the local model's context is full */
    MINIM_ROUTE_FINISH_OTHER    /* "other": what only some servers have, such as a content filter */
} minim_route_finish;

/* The words in quotes above. Never NULL. */
MINIM_API const char *minim_route_mode_name(minim_route_mode mode);
MINIM_API const char *minim_route_plan_name(minim_route_plan plan);
MINIM_API const char *minim_route_method_name(minim_route_method method);
MINIM_API const char *minim_route_threshold_name(minim_route_threshold threshold);
MINIM_API const char *minim_route_name(minim_route route);
MINIM_API const char *minim_route_reason_name(minim_route_reason reason);
MINIM_API const char *minim_route_failure_name(minim_route_failure failure);
MINIM_API const char *minim_route_finish_name(minim_route_finish finish);
MINIM_API const char *minim_route_cache_name(minim_route_cache cache);
MINIM_API const char *minim_private_name(unsigned bit); /* "email" ...; "pattern", "request" */

/* Which of the wanted kinds (MINIM_PRIVATE_EMAIL ... _KEY) a text holds. Wide forms, odd spaces and dashes, and
 * invisible characters do not hide them. What has no form, such as a name, an address or a diagnosis, is not seen;
 * neither is what is spelt out, split over messages, encoded or in a picture. */
MINIM_API unsigned minim_private_find(const char *text, size_t n_bytes, unsigned wanted);
/* A word or an alias to a mode; 0, or -1 when it is none. */
MINIM_API int minim_route_mode_parse(const char *word, minim_route_mode *mode);
MINIM_API int minim_route_method_parse(const char *word, minim_route_method *method);

/* What the sampler saw while the local model answered, from the raw logits; collected for free. */
typedef enum minim_route_signal {
    MINIM_ROUTE_SIGNAL_LOGPROB_MEAN = 0, /* "logprob_mean": of the tokens of the answer */
    MINIM_ROUTE_SIGNAL_LOGPROB_MIN,      /* "logprob_min" */
    MINIM_ROUTE_SIGNAL_LOGPROB_Q10,      /* "logprob_q10": quantiles over the tokens */
    MINIM_ROUTE_SIGNAL_LOGPROB_Q25,      /* "logprob_q25" */
    MINIM_ROUTE_SIGNAL_LOGPROB_Q50,      /* "logprob_q50" */
    MINIM_ROUTE_SIGNAL_LOGPROB_FIRST,    /* "logprob_first": of the first token */
    MINIM_ROUTE_SIGNAL_MARGIN_MEAN,      /* "margin_mean": best logprob minus the second best */
    MINIM_ROUTE_SIGNAL_MARGIN_Q10,       /* "margin_q10" */
    MINIM_ROUTE_SIGNAL_ENTROPY_MEAN,     /* "entropy_mean": nats */
    MINIM_ROUTE_SIGNAL_ENTROPY_MAX,      /* "entropy_max" */
    MINIM_ROUTE_SIGNAL_ENTROPY_FIRST,    /* "entropy_first" */
    MINIM_ROUTE_SIGNAL_LOG_LENGTH,       /* "log_length": log(1 + tokens) */
    MINIM_ROUTE_SIGNAL_CUT_OFF,          /* "cut_off": 1 when the answer did not end by itself */
    MINIM_ROUTE_N_SIGNALS
} minim_route_signal;

/* The words in quotes above; "unknown" past the last. Never NULL. */
MINIM_API const char *minim_route_signal_name(minim_route_signal signal);

/* ---- decisions: pure functions of values ------------------------------------------------------------------------ */

/* What one side did. */
typedef struct minim_route_usage {
    uint64_t prompt_tokens, completion_tokens;
    int estimated; /* 1: the backend gave no figures; the text is counted with the local model's tokenizer, or, where
                      there is none, as bytes / 4, rounded up */
    double first_token_seconds, seconds;
} minim_route_usage;

/* What is known about the local answer. All zero before there is one. */
typedef struct minim_route_features {
    size_t size;
    uint64_t n_tokens;  /* generated, the end token included */
    uint64_t n_bytes;   /* of text that is not white space */
    double sum_logprob; /* of those tokens, from the raw logits */
    minim_route_finish finish;
    int has_signals;
    double signals[MINIM_ROUTE_N_SIGNALS];
    double learned_score; /* what "learned" makes of the signals */
    int has_confidence;   /* a calibration fits this model, quantisation and method; minim_route_apply_calibration() */
    double confidence;    /* calibrated P(the answer is right) */
    int certified;        /* 1: the score reaches the bar that the calibration certified */
    int has_prompt_score; /* known before there is an answer; 0 also when the prompt is too unfamiliar */
    double prompt_score;  /* P(remote right) - P(local right), from minim_route_predict() */
    double complexity;    /* of the request: minim_route_complexity() */
    int evidence_failed;  /* 1: a validator refused the answer */
    int has_agreement;    /* self-consistency: the share of samples that agree with the answer */
    double agreement;
    int has_verdict; /* verification: P(YES) of the remote's first token */
    double verdict;
} minim_route_features;

/* What a decision depends on besides the answer; the part of the configuration that policies see. */
typedef struct minim_route_policy {
    size_t size;
    minim_route_mode mode;
    minim_route_method method;
    double threshold;
    int remote_available;        /* 1: a remote is configured */
    double input_cost_per_token; /* $ a token; negative = unknown */
    double output_cost_per_token;
    minim_route_threshold threshold_semantics; /* AUTO is raw here */
    double prompt_threshold;                   /* prompts of this prompt_score go to the remote at once; 0 = none do */
    minim_route_plan plan;
    int hold_tokens;             /* tokens after which the gate looks at the answer; 0 = not before its end */
    double gate_threshold;       /* of the score of the beginning; raw, never calibrated */
    int handover_tokens;         /* the last so many tokens are watched */
    double handover_threshold;   /* below this score of theirs the remote takes over; 0 = never */
    double gate_seconds;         /* race: the gate decides by then, on the tokens that are there */
    double hedge_seconds;        /* race: the remote is opened then at the latest */
    double complexity_threshold; /* context, race: from there on the remote is asked at once; 0 = never */
    double latency_budget;       /* context: seconds to the first token; 0 = none */
    int rules;                   /* context: its rules in order as decimal digits: 1 privacy, 2 latency, 3 complexity */
    double error_cost;           /* "cost": $ that a wrong answer costs */
    double verify_accuracy;      /* "cost": how often a verdict is right, 0.5..1; 0 = nothing is verified */
    int fail_on_error;           /* 1: a remote that was wanted and failed is an error, not a degraded answer */
    int span_tokens;             /* hybrid: so many tokens the remote writes at a time */
    int max_spans;               /* hybrid: and so often */
} minim_route_policy;

/* How far the local answer has come, and the remote's beside it. */
typedef struct minim_route_progress {
    size_t size;
    uint64_t n_tokens;    /* of the local model */
    double sum_logprob;   /* of them */
    uint64_t last_tokens; /* of the last handover_tokens: how many there are, and their sum */
    double last_logprob;
    double seconds;   /* since the prompt came in */
    int shown;        /* 1: text of it has been shown */
    int may_ask;      /* 1: there is a remote, the request may leave, there is money, and it has not failed */
    int remote_open;  /* 1: the remote works beside */
    int remote_bytes; /* 1: it has text */
    double complexity;
} minim_route_progress;

typedef enum minim_route_step {
    MINIM_ROUTE_STEP_WAIT = 0, /* "wait": go on as before */
    MINIM_ROUTE_STEP_SHOW,     /* "show": the gate passes; what was held and what comes is shown, the remote stopped */
    MINIM_ROUTE_STEP_OPEN,     /* "open": the remote begins beside the local model */
    MINIM_ROUTE_STEP_HAND_OVER /* "hand_over": the local model stops, the remote answers */
} minim_route_step;

typedef enum minim_route_outcome {
    MINIM_ROUTE_NOT_ASKED = 0,
    MINIM_ROUTE_ANSWERED,
    MINIM_ROUTE_FAILED,
    MINIM_ROUTE_STOPPED /* in the middle, because the other one answers */
} minim_route_outcome;

/* How far a prompt has come. All zero at the start. */
typedef struct minim_route_state {
    size_t size;
    minim_route_outcome local, remote;
    minim_route_usage local_usage, remote_usage;
    char local_detail[256], remote_detail[256]; /* why it failed, one line */
    double seconds;                             /* since the prompt came in */
    unsigned is_private; /* MINIM_PRIVATE_...: why the request may not leave the machine; 0 = it may */
    int over_budget;     /* 1: there is no money for a call */
    int cached;          /* 1: there is an answer of cached_route from before, of this usage */
    minim_route cached_route;
    minim_route_usage cached_usage;
    uint64_t request_bytes;        /* of all messages */
    int gate_passed;               /* 1: the local answer is shown since its beginning was good enough */
    minim_route_reason stopped;    /* why the local answer was stopped */
    double remote_latency;         /* seconds to the remote's first token, as last seen or configured; 0 = unknown */
    char evidence_detail[256];     /* what the validators missed, one line */
    minim_route_outcome verify;    /* of the verification */
    char verify_detail[256];       /* why there is no verdict, one line */
    int spans;                     /* hybrid: that the remote has written */
    minim_route_usage extra_usage; /* of verification and spans; remote_usage is that of a whole answer */
    minim_route_step gate_step;    /* the last of minim_route_watch() but to wait, and what it saw; for replay: */
    minim_route_progress gate;     /* no decision depends on them */
} minim_route_state;

typedef struct minim_route_decision {
    size_t size;
    minim_route_action action;
    minim_route route;
    minim_route_reason reason;
    int hold;      /* with MINIM_ROUTE_ASK: the answer may yet be replaced, so its text is not shown */
    int has_score; /* 0: the local model was not asked or failed */
    double score, threshold;
    minim_route_method method;
    int calibrated;                  /* 1: a confidence was compared with the threshold; 0: a score, if anything */
    int truncated;                   /* the local answer was cut off at max_tokens or by a full context */
    minim_route_usage local, remote; /* all zero for a side that was not asked */
    int cost_known;                  /* 0: the remote was asked and has no prices */
    double cost;                     /* $; local tokens are free */
    double seconds;
    int degraded; /* 1: the answer is not the one that the mode asks for */
    char degraded_reason[256];
    int all_remote_known; /* what it would have cost to ask nobody but the remote; an estimate where it was not asked */
    double all_remote_cost;
    int has_confidence;
    double confidence; /* calibrated P(the local answer is right) */
    int has_prompt_score;
    double prompt_score;
    minim_route_threshold threshold_semantics; /* what `threshold` is; AUTO: no bar was looked at */
    int has_expected; /* "cost": what each action is expected to cost in $, wrong answers included; the least is taken
                       */
    double accept_cost, verify_cost, remote_cost; /* infinite: not possible (any more) */
    int span_tokens; /* with ASK: only so many tokens are wanted, in continuation of the answer; 0 = an answer */
    int spans;       /* that the remote has written into the local answer */
    minim_route_usage extra; /* of verification and spans; in the cost */
} minim_route_decision;

/* The score of an answer in [0, 1]. avg_logprob: exp(sum_logprob / n_tokens). 0 for an answer without tokens or text,
 * and when the logprobs are not numbers. The length does not enter, so that a short certain answer is not worth more
 * than a long one; an answer that was cut off at max_tokens is scored by what there is of it. With temperature > 0 the
 * figures are still those of the raw logits and come out lower: compare scores of greedy answers only. */
MINIM_API double minim_route_score(minim_route_method method, const minim_route_features *features);

// clang-format off: the table
/* The next step. Pure: the same three values give the same decision, and nothing else is looked at. Asking (and noting
 * the outcome in the state) until the action is no longer MINIM_ROUTE_ASK takes at most three calls:
 *
 *   mode     remote   first    the local answer stands when                      else
 *   local    -        local    always                                            fail
 *   cascade  none     local    always (no_remote)                                fail
 *   cascade  there    local    the bar is reached, not empty, context not full   remote; if that fails local, degraded
 *   remote   none     local    always (no_remote, degraded)                      fail
 *   remote   there    remote   the remote failed (remote_failed, degraded)       fail
 *   only_remote       remote   never                                             fail
 *
 * The plans of "cascade" differ in what comes first: "race" lets minim_route_watch() open the remote beside the local
 * model; "context" asks the one that its rules name. A local answer that was stopped for a remote that then failed is
 * made again, degraded.
 *
 * A cached answer stands at once. A private request, and one that does not fit the budget, is answered as if there were
 * no remote, for that reason; that is what was asked for, so such an answer is not degraded.
 *
 * The bar: score >= threshold where that is raw, confidence >= threshold where it is calibrated, or certified. A
 * cascade asks the remote at once, as if the local answer had not reached the bar, for a prompt_score >=
 * prompt_threshold.
 *
 * The method "verify" has the remote look at a local answer (MINIM_ROUTE_CHECK) before its bar is looked at. With
 * "cost" the three actions of a cascade are weighed, with p = P(right), E = error_cost, a = verify_accuracy, R and V
 * what an answer and a verdict of the remote cost, and the remote's answer taken to be right: accept (1 - p) E remote R
 * verify V + (1 - p)(1 - a) E + (p (1 - a) + (1 - p) a) R
 *
 * "hybrid": a local answer that collapses is continued by the remote for span_tokens, then by the local model again.
 *
 * A local model that fails (say the prompt does not fit) hands over as well. MINIM_ERR_ARGUMENT for NULL, a size of 0
 * or an unknown mode. */
// clang-format on
MINIM_API minim_status minim_route_decide(const minim_route_policy *policy, const minim_route_features *features,
                                          const minim_route_state *state, minim_route_decision *decision);

MINIM_API const char *minim_route_step_name(minim_route_step step);

/* What to do while the local model answers and its text is held or shown. Pure, as minim_route_decide(); asked after
 * every token. *reason says why when the step is not WAIT. MINIM_ERR_ARGUMENT for NULL or a size of 0. */
MINIM_API minim_status minim_route_watch(const minim_route_policy *policy, const minim_route_progress *progress,
                                         minim_route_step *step, minim_route_reason *reason);

/* How much a request asks for, in [0, 1]: its length, code, arithmetic, several demands, words such as "prove" or
 * "compare". Weights set by hand, not learned: a sieve for what is obviously easy. Pure. */
MINIM_API double minim_route_complexity(const minim_message *messages, size_t n_messages);

/* What the decision depended on as one line of words, "mode=cascade threshold=0.5 ...", which minim_route_inputs_read()
 * reads again; it holds no content. Returns the length it needs without the NUL, as snprintf() does. */
MINIM_API size_t minim_route_inputs(const minim_route_policy *policy, const minim_route_features *features,
                                    const minim_route_state *state, char *buffer, size_t capacity);
/* Reads such a line; names it does not hold are 0, names that are not known are MINIM_ERR_FORMAT. */
MINIM_API minim_status minim_route_inputs_read(const char *text, minim_route_policy *policy,
                                               minim_route_features *features, minim_route_state *state,
                                               minim_error *error);

/* The decision as one line of text without a newline: who answered, why, score, threshold, tokens, cost, time. Returns
 * the length it needs without the NUL; what fits is written, as snprintf() does. */
MINIM_API size_t minim_route_describe(const minim_route_decision *decision, char *buffer, size_t capacity);

/* ---- configuration ---------------------------------------------------------------------------------------------- */

/* Another server for when the first one fails: tried in order, each with retries of its own, until one has said a word.
 * It is priced like the first. */
typedef struct minim_router_endpoint {
    char base_url[1024], model[256], api_key[1024]; /* as in minim_router_config; "" = the first one's model, no key */
    int url_was_found;
} minim_router_endpoint;

enum { MINIM_ROUTER_FALLBACKS = 5 };

/* How a server is told to go on with a text instead of beginning an answer. In all forms that text is the last message,
 * of the assistant. */
typedef enum minim_route_continuation {
    MINIM_ROUTE_CONTINUE_NONE = 0,  /* "none": it can not (OpenAI) */
    MINIM_ROUTE_CONTINUE_PREFIX,    /* "prefix": with "prefix": true in it (DeepSeek's beta, Mistral) */
    MINIM_ROUTE_CONTINUE_PARTIAL,   /* "partial": with "partial": true in it (Qwen) */
    MINIM_ROUTE_CONTINUE_ASSISTANT, /* "assistant": nothing else (Anthropic, llama-server) */
    MINIM_ROUTE_CONTINUE_FINAL      /* "continue_final_message": that and no generation prompt, in the body (vLLM) */
} minim_route_continuation;

typedef struct minim_router_config {
    size_t size;
    minim_route_mode mode;                /* "mode": default cascade */
    minim_route_method confidence_method; /* "confidence_method": "avg_logprob", "margin", "quantile", "learned",
                                             "self_consistency", "verify" */
    double threshold;                     /* "threshold": 0..1, default 0.5 (see router/README.md) */

    /* In the file, everything below is inside "remote": {...}. */
    char base_url[1024]; /* "base_url": up to and including /v1; "" = no remote */
    char model[256];     /* "model": "" = not sent, the server chooses */
    char api_key[1024]; /* "api_key": where the key is, never the key: "env:NAME", "file:PATH" (mode 0600); "" = none */
    double connect_timeout;       /* "connect_timeout": seconds for DNS, TCP and TLS; default 5 */
    double stream_timeout;        /* "stream_timeout": seconds until the first token; default 60 */
    double idle_timeout;          /* "idle_timeout": longest silence after it; default 30 */
    double timeout;               /* "timeout": for everything, retries included; default 600 */
    int num_retries;              /* "num_retries": default 2; never once text has been shown */
    int stream;                   /* "stream": default true; false asks for the answer in one piece, for gateways that
                                     can not stream. There is no first token then: stream_timeout does not count */
    double retry_after;           /* "retry_after": seconds before the first retry, doubled each time up to 8, minus up
                                     to a quarter at random; default 0.5. What the server asks for goes first */
    double input_cost_per_token;  /* "input_cost_per_token": $; default -1 = unknown */
    double output_cost_per_token; /* "output_cost_per_token" */
    uint64_t max_response_bytes;  /* "max_response_bytes": default 16 MiB */
    int require_done;             /* "require_done": default true; false accepts a stream that ended with a
                                     finish_reason but without [DONE] */
    int url_was_found;            /* base_url is from a ./minim.json that nobody named: only this machine is accepted */
    int new_max_tokens;           /* "max_tokens_field": "max_tokens" (default, 0) or "max_completion_tokens" (1), which
                                     OpenAI's reasoning models insist on */

    /* At the top level of the file again. A budget and a cache need a ledger. */
    double max_budget;      /* "max_budget": $ that the remote may cost within budget_duration; default -1 = no limit */
    double budget_duration; /* "budget_duration": "30s", "30m", "30h", "30d", "1mo"; seconds, or -n = n calendar months;
                               default 0 = for ever */
    /* Inside "ledger": {...}. */
    char ledger[1024];  /* "path": a file, made when it is not there; "" = no ledger */
    int ledger_content; /* "content": true also stores prompts and answers, except private ones; default false */
    /* Inside "cache": {...}. */
    minim_route_cache cache; /* "enabled": "on", "off" (default), "read_only", "write_only" */
    double cache_max_age;    /* "max_age_s": default 86400 */
    int cache_sampled;       /* "sampled": true also caches answers made with a temperature above 0; default false */
    /* Inside "privacy": {...}. All messages are looked through, whatever their role, and the stop strings. A request
     * can only become more private by it. */
    unsigned private_detect;     /* "detect": an array of "email", "phone", "card", "iban", "key"; default all */
    char private_patterns[4096]; /* "patterns": an array of POSIX extended regular expressions; here a line each */
    /* At the top level of the file again. */
    minim_route_threshold threshold_semantics; /* "threshold_semantics": "auto" (default), "raw", "calibrated",
                                                  "certified", "cost" */
    char calibration[1024];                    /* "calibration": a file that `minim route calibrate` wrote; "" = none */
    char prompt_model[1024];                   /* "prompt_model": a file that `minim route train` wrote; "" = none */
    double prompt_threshold; /* "prompt_threshold": prompts that score as much go to the remote at once; default 0 =
                                none do */
    /* At the top level. */
    minim_route_plan plan;       /* "policy": "cascade" (default), "race", "context", "hybrid" */
    int hold_tokens;             /* "hold_tokens": default 0 = the whole answer (cascade), 8 (race) */
    double gate_threshold;       /* "gate_threshold": default 0.5 */
    double handover_threshold;   /* "handover_threshold": default 0 = never */
    double gate_delay;           /* "gate_delay": seconds, default 0.1 */
    double hedge_delay;          /* "hedge_delay": seconds, default 0.25 */
    int handover_tokens;         /* "handover_tokens": default 16 */
    int escalation_order;        /* "escalation_order": an array of "privacy", "latency", "complexity", in this order
                                    by default; here as `rules` of minim_route_policy. Privacy always goes first */
    double complexity_threshold; /* "complexity_threshold": default 0.5 (context; race: 1 = not used) */
    double latency_budget;       /* "latency_budget": seconds, default 0 = none */
    double remote_latency;       /* "remote_latency": what to expect before the remote has been asked; 0 = unknown */
    /* Inside "evidence": {...}: what every answer has to keep, of either side; see router/README.md. */
    char evidence_schema[4096];  /* "json_schema": an object; here its text. "" = none */
    char evidence_pattern[1024]; /* "pattern": a POSIX extended regular expression. "" = none */
    int evidence_spans;          /* "spans": true: what the answer quotes has to stand in the messages */
    int evidence_numbers;        /* "numbers": true: its numbers have to stand there or be computed from such */
    char evidence_command[1024]; /* "command": an array, program and arguments; here a line each. The answer is its
                                    input, exit code 0 accepts it */
    /* Inside "remote": {...} again. */
    minim_router_endpoint fallbacks[MINIM_ROUTER_FALLBACKS]; /* "fallbacks": an array of objects with base_url, model,
                                                                api_key; the first one without base_url ends them */
    int allowed_fails;     /* "allowed_fails": failed answers in a row after which a server is left alone; default 3 */
    double cooldown_time;  /* "cooldown_time": seconds for which it is; then one request tries again; default 5 */
    int disable_cooldowns; /* "disable_cooldowns": default false */
    int max_fallbacks;     /* "max_fallbacks": how many other servers a question may go to; default 5 */
    minim_router_endpoint context_fallbacks[MINIM_ROUTER_FALLBACKS]; /* "context_window_fallbacks": asked instead when
                                                the request is longer than a server's context */
    char provider[1024]; /* "provider": an object that is passed on (OpenRouter's preferences); here its text */
    minim_route_continuation continuation; /* "continuation": default none */
    /* At the top level. */
    int fail_on_error;      /* "on_error": "skip" (default): the local answer, degraded; "fail": an error */
    double error_cost;      /* "error_cost": $, for "threshold_semantics": "cost"; default 0 = not set */
    double verify_accuracy; /* "verify_accuracy": default 0.8; 0 = "cost" verifies nothing */
    int span_tokens;        /* "span_tokens": default 32 */
    int max_spans;          /* "max_spans": default 4 */
    /* Inside "self_consistency": {...}. */
    int samples;               /* "samples": 2..16, default 5 */
    double sample_temperature; /* "temperature": default 0.7 */
    char sample_pattern[1024]; /* "pattern": a POSIX extended regular expression; its last match in a sample (the first
                                  group, if it has one) is what has to agree. "" = the whole text */
} minim_router_config;

MINIM_API void minim_router_config_default(minim_router_config *config);

/* Reads a minim.json over what is in *config. path NULL: the first of ./minim.json,
 * $XDG_CONFIG_HOME/minim/minim.json (or ~/.config/minim/minim.json) that exists; none is fine. The error names file,
 * key, what was found and expected; unknown keys are errors. On failure *config is unchanged.
 *
 * A ./minim.json that was found and not named may have come with somebody else's files, so it may not say where prompts
 * and keys go: api_key is refused there, and a base_url that is not on this machine when it is to be used; pass the
 * path to accept them. An api_key needs a base_url in the same file. */
MINIM_API minim_status minim_router_config_load(minim_router_config *config, const char *path, minim_error *error);

/* Applies OPENAI_BASE_URL and OPENAI_MODEL where they are set and not empty, and OPENAI_API_KEY when the file named no
 * key (never for the address of a ./minim.json that nobody named). Call it after _load(). */
MINIM_API minim_status minim_router_config_environment(minim_router_config *config, minim_error *error);

/* Applies --remote-url and --remote-model; NULL = not given. A key that minim.json names is only ever sent to the
 * base_url of that file: with another URL, here or in OPENAI_BASE_URL, the key is OPENAI_API_KEY or none. */
MINIM_API minim_status minim_router_config_remote(minim_router_config *config, const char *base_url, const char *model,
                                                  minim_error *error);

/* What policies see of a configuration: what minim_router_ask() decides by. */
MINIM_API void minim_router_config_policy(const minim_router_config *config, int remote_available, int has_calibration,
                                          minim_route_policy *policy);

/* ---- backends --------------------------------------------------------------------------------------------------- */

/* Which of the sampling settings were asked for and go to the remote too; servers refuse some they do not like. */
enum { MINIM_ROUTER_SEND_TEMPERATURE = 1, MINIM_ROUTER_SEND_TOP_P = 2, MINIM_ROUTER_SEND_SEED = 4 };

/* What a backend keeps between the parts of one answer; the router frees it. All zero at first. */
typedef struct minim_router_session {
    void *state;
    void (*free)(void *state);
} minim_router_session;

typedef struct minim_router_request {
    size_t size;
    const minim_message *messages;
    size_t n_messages;
    int max_tokens;          /* default 256; 0 = as many as fit */
    minim_sampling sampling; /* for the local model; default greedy */
    unsigned send;           /* MINIM_ROUTER_SEND_... */
    const char *const *stop; /* stop strings */
    size_t n_stop;
    int is_private; /* 1: may not leave the machine, whatever the mode; its content is stored nowhere */
    /* The following are the router's; minim_router_ask() sets them for its backends, whatever the caller says. */
    const char *prefix;            /* the answer so far, which is to be continued; NULL = none */
    minim_router_session *session; /* of this answer; may be NULL */
    int top_logprobs;              /* so many of the best first tokens are wanted, up to MINIM_ROUTER_TOP */
    int samples;                   /* self-consistency: so many samples, of which the most common one is the answer */
    double sample_temperature;
    const char *sample_pattern;
    /* How many tokens a text is for the local model, for a server that does not say; 0 = not known. NULL = nobody
     * knows. May be called from any thread. */
    uint64_t (*count)(void *user, const char *text, size_t n_bytes);
    void *count_user;
} minim_router_request;

MINIM_API void minim_router_request_default(minim_router_request *request);

/* Where a backend puts its answer. */
typedef struct minim_router_sink {
    void *user;
    /* Text in pieces, whole UTF-8 characters only. A non-zero return stops. */
    int (*on_text)(void *user, const char *text, size_t n_bytes);
    /* How far it is: called after every step of the local model, and at least every 100 ms while waiting for a
     * server. A non-zero return stops; this is how a request is cancelled. */
    int (*on_progress)(void *user, uint64_t n_tokens);
} minim_router_sink;

enum { MINIM_ROUTER_TOP = 8, MINIM_ROUTER_MAX_SAMPLES = 16 };

/* One of the best first tokens. */
typedef struct minim_router_top {
    char text[24];
    double logprob;
} minim_router_top;

/* What a backend says about its answer, filled in on failure too. */
typedef struct minim_router_reply {
    size_t size;
    minim_route_failure failure;
    minim_route_finish finish;
    minim_route_usage usage;
    uint64_t n_logprobs; /* tokens that sum_logprob is over; 0 = the backend has none */
    double sum_logprob;
    int http_status;        /* 0 = none */
    int attempts;           /* requests that were sent; 0 for a local model */
    char model[256];        /* as the backend names it */
    char quantisation[256]; /* of a local model, with what else tells it from its namesakes; "" = not known */
    int has_signals;        /* 0 when there are none, and after a temperature above 0: then they mean something else */
    double signals[MINIM_ROUTE_N_SIGNALS];
    int fallbacks; /* other servers that were asked */
    int n_top;     /* of the first token */
    minim_router_top top[MINIM_ROUTER_TOP];
    int has_agreement; /* of samples */
    double agreement;
    char server[256]; /* that was asked last, "https://host:port"; "" = none, or a local model */
    char asked[256];  /* its model as the configuration names it; "" = the server chooses */
} minim_router_reply;

/* Something that answers a conversation. The struct is a value; `state` is what it stands for. */
typedef struct minim_router_backend {
    void *state;
    /* Answers through the sink. MINIM_OK only for a complete answer that has text (the local model may also say
     * nothing). MINIM_ERR_CANCELLED when the sink stopped it. *reply comes cleared. */
    minim_status (*chat)(void *state, const minim_router_request *request, const minim_router_sink *sink,
                         minim_router_reply *reply, minim_error *error);
    void (*free)(void *state); /* may be NULL */
    /* Tokens of a text, as minim_router_request.count; may be NULL. */
    uint64_t (*count)(void *state, const char *text, size_t n_bytes);
} minim_router_backend;

/* Makes a backend when the first decision asks for it. */
typedef minim_status (*minim_router_factory)(void *user, const minim_router_config *config,
                                             minim_router_backend *backend, minim_error *error);

/* The local model: every request runs in a sequence of its own. chat_format NULL = the file's; MINIM_ERR_UNSUPPORTED
 * when that is one minim does not know. model is the engine's; both must outlive the backend. */
MINIM_API minim_status minim_router_local(const minim_model *model, minim_engine *engine, const char *chat_format,
                                          minim_router_backend *backend, minim_error *error);

/* A factory: any server with OpenAI's POST {base_url}/chat/completions, through libcurl. Initialises libcurl once per
 * process, on the first call, and never undoes it. That is thread-safe among routers; a host program that uses a
 * libcurl older than 7.84 in other threads calls curl_global_init() itself before it starts them. user is not used.
 * Fails like minim_router_remote_check(). */
MINIM_API minim_status minim_router_remote_http(void *user, const minim_router_config *config,
                                                minim_router_backend *backend, minim_error *error);

/* Whether the remote of a configuration could be asked, without asking: https (http to this machine only), no
 * credentials in the URL, the key is there, is one line, and its file is readable by its owner only. */
MINIM_API minim_status minim_router_remote_check(const minim_router_config *config, minim_error *error);

/* ---- the ledger -------------------------------------------------------------------------------------------------- */

/* One SQLite file (WAL) that any number of threads and processes use at once. A line a decision: what was decided and
 * why, lengths and salted hashes of prompt and answer, tokens, costs. Content only where `ledger_content` asks for it,
 * and never that of private requests. What a call may cost at most is set aside before it is made; when a process dies
 * in between, that amount stays booked (the call may have been billed). What minim_router_ask() has returned is in the
 * file even if the process is killed the next moment; a power cut may lose the last moments. */
typedef struct minim_ledger minim_ledger;

/* Opens or makes it, readable by its owner only. The error names the file. Not there in a minim without SQLite. */
MINIM_API minim_status minim_ledger_open(const char *path, minim_ledger **ledger, minim_error *error);
MINIM_API void minim_ledger_close(minim_ledger *ledger);

/* One day (UTC) of a ledger, or all of it. Money is in $. */
typedef struct minim_ledger_day {
    size_t size;
    char day[12];                           /* "2026-11-21"; "total" */
    uint64_t requests;                      /* = local + remote + cached + failed */
    uint64_t local, remote, cached, failed; /* who answered */
    uint64_t private_requests, degraded, over_budget;
    uint64_t unsettled;       /* reservations of processes that did not come back; in cost, not in requests */
    uint64_t remote_requests; /* for which the remote was asked for text, whoever answered */
    uint64_t remote_calls;    /* that reached it: answers, spans of a hybrid, verdicts */
    uint64_t remote_verdicts; /* of these */
    uint64_t local_tokens, remote_tokens;
    double cost;            /* what was paid or is set aside */
    uint64_t unknown_costs; /* requests that failed, or whose costs are not known; in none of the following */
    double compared_cost;   /* what was paid for the others */
    double all_remote;      /* what asking nobody but the remote would have cost */
    /* A router that throws dice and sends the same share of requests away, at the mean all-remote cost. */
    double random_same_share;
    /* One that throws dice until its answers are as good on average, when P(right) is the calibrated confidence and 1
     * for the remote. has_quality 0: not every local answer has a calibrated confidence. */
    int has_quality;
    double random_same_quality;
} minim_ledger_day;

/* The days of a ledger in order and at the end "total"; *days is freed with minim_ledger_days_free(). since is Unix
 * time in seconds, 0 = from the start. */
MINIM_API minim_status minim_ledger_report(minim_ledger *ledger, double since, minim_ledger_day **days, size_t *n_days,
                                           minim_error *error);
MINIM_API void minim_ledger_days_free(minim_ledger_day *days);

typedef enum minim_ledger_view {
    MINIM_LEDGER_LINES = 0, /* every line, with the keys of OpenTelemetry's GenAI conventions where they have one */
    MINIM_LEDGER_PAIRS,     /* prompts and complete remote answers as {"messages": [...]}, for fine-tuning */
    MINIM_LEDGER_INPUTS     /* {"id", "inputs", "action", "route", "reason"}: what minim_route_decide() saw and said */
} minim_ledger_view;

/* Calls on_line with each line as a JSON object without a newline, oldest first; non-zero stops. */
MINIM_API minim_status minim_ledger_read(minim_ledger *ledger, minim_ledger_view view, double since,
                                         int (*on_line)(void *user, const char *json, size_t n_bytes), void *user,
                                         minim_error *error);

/* ---- the router ------------------------------------------------------------------------------------------------- */

typedef struct minim_router minim_router;
typedef struct minim_route_calibration minim_route_calibration; /* minim_route_learn.h has both */
typedef struct minim_route_model minim_route_model;

typedef struct minim_router_options {
    size_t size;
    const minim_router_config *config; /* copied; NULL = defaults */
    const minim_router_backend *local; /* must outlive the router, which does not free it */
    minim_router_factory remote;       /* NULL = no remote. What it makes belongs to the router */
    void *remote_user;
    minim_ledger *ledger;       /* NULL = none; must outlive the router. May serve several routers at once */
    const char *local_identity; /* copied; names the local model and its quantisation in the keys of the cache, see
                                   minim_router_identity(). NULL or "": answers are not cached */
    const minim_route_calibration *calibration; /* NULL = none; both must outlive the router. The files that the
                                                   configuration names are the caller's to load */
    const minim_route_model *prompt_model;
} minim_router_options;

/* 64 hexadecimal digits over what a model says about itself: metadata, tensors, their types and sizes, chat format. Two
 * fine-tunings of one model may say the same: add what tells them apart, such as the file's name and date. */
MINIM_API minim_status minim_router_identity(const minim_model *model, char identity[65], minim_error *error);

MINIM_API void minim_router_options_default(minim_router_options *options);

MINIM_API minim_status minim_router_new(const minim_router_options *options, minim_router **router, minim_error *error);
MINIM_API void minim_router_free(minim_router *router);

/* What the caller sees while an answer is made. Every function may be NULL. */
typedef struct minim_router_callbacks {
    size_t size;
    void *user;
    /* Text to show. A local answer that may yet be replaced comes in one piece, after the decision. Non-zero stops. */
    int (*on_text)(void *user, minim_route route, const char *text, size_t n_bytes);
    /* All text shown so far is withdrawn: it broke off. Another answer follows, or an error. reason is one line. */
    void (*on_discard)(void *user, const char *reason);
    /* Every decision as it is made; the last one is the answer's. */
    void (*on_decision)(void *user, const minim_route_decision *decision);
    /* While text is held back or awaited; non-zero stops. */
    int (*on_progress)(void *user, minim_route route, uint64_t n_tokens);
} minim_router_callbacks;

MINIM_API void minim_router_callbacks_default(minim_router_callbacks *callbacks);

typedef struct minim_router_answer {
    const char *text; /* NUL-terminated, valid UTF-8 without NULs inside */
    size_t n_bytes;
    const minim_route_decision *decision;
    const minim_router_reply *local, *remote; /* NULL for a side that was not asked */
    const char *ledger_error;                 /* why the ledger has no line of it; NULL = it has, or there is none */
    const char *cache;                        /* "off", "miss", "hit", "stored" */
} minim_router_answer;

/* Answers one conversation. callbacks may be NULL. Fails when nobody could answer (the error says what each said), or
 * with MINIM_ERR_CANCELLED. A degraded answer is MINIM_OK with decision->degraded set. */
MINIM_API minim_status minim_router_ask(minim_router *router, const minim_router_request *request,
                                        const minim_router_callbacks *callbacks, minim_router_answer **answer,
                                        minim_error *error);
MINIM_API void minim_router_answer_free(minim_router_answer *answer);

/* Stops a running minim_router_ask() after the current step of the local model or within about 100 ms of waiting for
 * the remote. Safe from any thread and from a signal handler. The next minim_router_ask() starts afresh. */
MINIM_API void minim_router_cancel(minim_router *router);

/* The answer as one JSON object in one line: answer, route, reason, score, confidence, calibrated, threshold, local,
 * remote, cost, seconds, degraded, degraded_reason. What is not known is null. *json is freed with
 * minim_router_text_free(). */
MINIM_API minim_status minim_router_answer_json(const minim_router_answer *answer, char **json, minim_error *error);
MINIM_API void minim_router_text_free(char *text);

/* The answer's figures as HTTP header lines, for servers that are built on the router: "x-minim-route: local\r\n" and
 * likewise -reason, -confidence (empty without a calibration), -response-cost, -attempted-retries,
 * -attempted-fallbacks, -overhead-duration-ms, -cache. Returns the length it needs without the NUL, as snprintf() does.
 */
MINIM_API size_t minim_router_answer_headers(const minim_router_answer *answer, char *buffer, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
