/* vocab_split.c: see vocab_split.h. A stage looks at the beginning of a piece and says how many bytes its first match
 * takes, or how many lie before it. The expressions stand beside the functions; as everywhere, the first alternative
 * that matches counts, and a repetition takes as much as it can. */
#include "vocab_split.h"

#include <stdio.h>
#include <string.h>

/* Inclusive. */
typedef struct split_range {
    uint32_t first, last;
} split_range;

struct split_stage {
    /* Bytes of the first match in s[n], n > 0, or of what lies before it. */
    size_t (*next)(const split_stage *stage, const char *s, size_t n);
    unsigned set;             /* classes of split_runs() */
    uint64_t ascii[2];        /* further characters of it: those below 128, a bit each, and */
    const split_range *range; /* others: n_range of them, in order */
    size_t n_range;
    unsigned max;   /* characters of a run, or digits that stay together; 0 = any number */
    unsigned flags; /* enum split_option */
};

enum split_option {
    SPLIT_LEADING_SPACE = 1, /* runs: \s? before them */
    SPLIT_MARKS = 2,         /* words: marks belong to them */
    SPLIT_SUFFIX = 4,        /* 's, 't, 're ... belong to the word before them, or */
    SPLIT_CONTRACTIONS = 8,  /* are words of their own */
    SPLIT_SLASH = 16,        /* slashes, too, belong to the punctuation before them */
    SPLIT_NO_NEWLINES = 32   /* newlines do not */
};

#define SPLIT_SPACE   UNICODE_BIT(UNICODE_SPACE)
#define SPLIT_NUMBER  UNICODE_BIT(UNICODE_NUMBER)
#define SPLIT_MARK    UNICODE_BIT(UNICODE_MARK)
#define SPLIT_POINT   UNICODE_BIT(UNICODE_PUNCTUATION)
#define SPLIT_SYMBOLS UNICODE_BIT(UNICODE_SYMBOL)
/* [^\s\p{L}\p{N}] */
#define SPLIT_OTHERS (UNICODE_ALL & ~(SPLIT_SPACE | UNICODE_LETTERS | SPLIT_NUMBER))

/* ---- parts ------------------------------------------------------------------------------------------------------ */

/* Where the characters of a set end that begin at i. */
static inline size_t split_run(const char *s, size_t n, size_t i, unsigned set) {
    size_t length;
    for (; unicode_bit_at(s, n, i, &length) & set; i += length) {
    }
    return i;
}

static int split_is_newline(char c) {
    return c == '\n' || c == '\r';
}

/* Bytes of 's 't 're 've 'm 'll 'd at s[i], 0 if there is none; in upper case too if any_case. */
static size_t split_contraction(const char *s, size_t n, size_t i, int any_case) {
    const int fold = any_case ? 0x20 : 0;
    char a, b;
    if (n - i < 2 || s[i] != '\'') return 0;
    a = (char)(s[i + 1] | fold);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (n - i < 3) return 0;
    b = (char)(s[i + 2] | fold);
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ : white space, but its last character stays with the word behind it if there is another before. */
static size_t split_spaces(const char *s, size_t n) {
    const size_t end = split_run(s, n, 0, SPLIT_SPACE);
    size_t last = end - 1;
    if (end == n) return end;
    while (((unsigned char)s[last] & 0xc0) == 0x80) last--;
    return last ? last : end;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t split_lines(const char *s, size_t n) {
    for (size_t i = split_run(s, n, 0, SPLIT_SPACE); i > 0; i--)
        if (split_is_newline(s[i - 1])) return i;
    return split_spaces(s, n);
}

/* ---- GPT-2 ------------------------------------------------------------------------------------------------------ */

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t split_gpt2(const split_stage *stage, const char *s, size_t n) {
    static const unsigned sets[] = {UNICODE_LETTERS, SPLIT_NUMBER, SPLIT_OTHERS};
    const size_t begin = *s == ' ', short_form = split_contraction(s, n, 0, 0);
    size_t length;
    const unsigned bit = unicode_bit_at(s, n, begin, &length);
    (void)stage;
    if (short_form) return short_form;
    for (size_t i = 0; i < 3; i++)
        if (bit & sets[i]) return split_run(s, n, begin + length, sets[i]);
    return split_spaces(s, n);
}

/* ---- Llama 3 and those like it ---------------------------------------------------------------------------------- */

/* \p{N}{1,max}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ with the variations of the flags. */
static size_t split_rest(const split_stage *stage, const char *s, size_t n) {
    unsigned others = SPLIT_OTHERS;
    size_t i = 0, length;
    if (stage->flags & SPLIT_MARKS) others &= ~SPLIT_MARK;
    for (unsigned digits = 0; !stage->max || digits < stage->max; digits++, i += length)
        if (!(unicode_bit_at(s, n, i, &length) & SPLIT_NUMBER)) break;
    if (i) return i;
    i = *s == ' ';
    if (unicode_bit_at(s, n, i, &length) & others) {
        i = split_run(s, n, i, others);
        if (stage->flags & SPLIT_NO_NEWLINES) return i;
        while (i < n && (split_is_newline(s[i]) || (stage->flags & SPLIT_SLASH && s[i] == '/'))) i++;
        return i;
    }
    return split_lines(s, n);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+| and the rest; [\p{L}\p{M}] for \p{L} with SPLIT_MARKS. */
static size_t split_llama3(const split_stage *stage, const char *s, size_t n) {
    const unsigned letters = UNICODE_LETTERS | (stage->flags & SPLIT_MARKS ? SPLIT_MARK : 0);
    const size_t short_form = stage->flags & SPLIT_CONTRACTIONS ? split_contraction(s, n, 0, 1) : 0;
    size_t first, second;
    const unsigned bit = unicode_bit_at(s, n, 0, &first);
    if (short_form) return short_form;
    if (bit & letters) return split_run(s, n, first, letters);
    if (!(bit & SPLIT_NUMBER) && !split_is_newline(*s) && unicode_bit_at(s, n, first, &second) & letters)
        return split_run(s, n, first + second, letters);
    return split_rest(stage, s, n);
}

/* With U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and W = [\p{Ll}\p{Lm}\p{Lo}\p{M}]: where U*W+|U+W* ends that begins at i,
 * 0 if neither matches. U* takes all it can; if no lower case letter follows, it gives back as much as W+ needs.
 * *capitals: only U+W* matched. */
static size_t split_case(const char *s, size_t n, size_t i, int *capitals) {
    const unsigned lower = UNICODE_BIT(UNICODE_LOWER), upper = UNICODE_BIT(UNICODE_UPPER) | UNICODE_BIT(UNICODE_TITLE);
    const unsigned both = UNICODE_BIT(UNICODE_MODIFIER_LETTER) | UNICODE_BIT(UNICODE_OTHER_LETTER) | SPLIT_MARK;
    const size_t begin = i;
    size_t length, end = 0;
    unsigned bit;
    for (; (bit = unicode_bit_at(s, n, i, &length)) & (upper | both); i += length)
        if (bit & both) end = i + length; /* W+ could be this one */
    *capitals = !(bit & lower) && !end && i > begin;
    if (bit & lower) return split_run(s, n, i, lower | both);
    return *capitals ? i : end;
}

/* [^\r\n\p{L}\p{N}]?U*W+|[^\r\n\p{L}\p{N}]?U+W* , then 's and the like with SPLIT_SUFFIX; and the rest. */
static size_t split_cased(const split_stage *stage, const char *s, size_t n) {
    int capitals;
    size_t first, end = 0;
    const unsigned bit = unicode_bit_at(s, n, 0, &first);
    if (!(bit & (UNICODE_LETTERS | SPLIT_NUMBER)) && !split_is_newline(*s)) {
        end = split_case(s, n, first, &capitals);
        if (bit & SPLIT_MARK && capitals) end = 0; /* a mark is W+ by itself, and U*W+ comes first */
    }
    if (!end) end = split_case(s, n, 0, &capitals);
    if (!end) return split_rest(stage, s, n);
    return end + (stage->flags & SPLIT_SUFFIX ? split_contraction(s, n, end, 1) : 0);
}

/* ---- DeepSeek V3 ------------------------------------------------------------------------------------------------ */

static int split_is_ascii_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The last stage: [!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+
 * |\s+(?!\S)|\s+ . Numbers and controls match nothing by themselves. */
static size_t split_deepseek3(const split_stage *stage, const char *s, size_t n) {
    const unsigned points = SPLIT_POINT | SPLIT_SYMBOLS, word = UNICODE_LETTERS | SPLIT_MARK;
    size_t i, length, second;
    unsigned bit = unicode_bit_at(s, n, 0, &length);
    (void)stage;
    if (bit & points && length == 1 && n > 1 && (unsigned char)*s < 128 && split_is_ascii_letter(s[1])) {
        for (i = 2; i < n && split_is_ascii_letter(s[i]);) i++;
        return i;
    }
    if (bit & word) return split_run(s, n, 0, word);
    if (!(bit & points) && !split_is_newline(*s) && unicode_bit_at(s, n, length, &second) & word)
        return split_run(s, n, length, word);
    i = *s == ' ';
    if (unicode_bit_at(s, n, i, &second) & points) {
        for (i = split_run(s, n, i, points); i < n && split_is_newline(s[i]);) i++;
        return i;
    }
    if (bit & SPLIT_SPACE) return split_lines(s, n);
    for (i = length;; i += length) { /* up to the first character that something matches */
        bit = unicode_bit_at(s, n, i, &length);
        if (!(bit & (UNICODE_BIT(UNICODE_OTHER) | SPLIT_NUMBER)) || unicode_bit_at(s, n, i + length, &second) & word)
            return i;
    }
}

/* ---- runs of one kind of character ------------------------------------------------------------------------------ */

/* Whether a character from 128 on is one of the stage's. */
static int split_in_ranges(const split_stage *stage, uint32_t code) {
    size_t low = 0, high = stage->n_range;
    if (UNICODE_BIT(unicode_class_of(code)) & stage->set) return 1;
    while (low + 1 < high) {
        const size_t middle = (low + high) / 2;
        if (stage->range[middle].first <= code)
            low = middle;
        else
            high = middle;
    }
    return low < high && code >= stage->range[low].first && code <= stage->range[low].last;
}

/* Whether the character at s[i], i < n, is one of the stage's; *length gets its bytes. */
static inline int split_in_set(const split_stage *stage, const char *s, size_t n, size_t i, size_t *length) {
    const unsigned char c = (unsigned char)s[i];
    *length = 1;
    if (c < 128) return ((unicode_ascii[c] & stage->set) | (stage->ascii[c / 64] >> c % 64 & 1)) != 0;
    return split_in_ranges(stage, unicode_decode(s + i, n - i, length));
}

/* [set] , [set]+ , \s?[set]+ or [set]{1,max} */
static size_t split_runs(const split_stage *stage, const char *s, size_t n) {
    size_t length, i = 0, before = 0;
    for (; i < n && !split_in_set(stage, s, n, i, &length); i += length) before = i;
    const size_t begin =
        i < n && stage->flags & SPLIT_LEADING_SPACE && unicode_bit_at(s, n, before, &length) & SPLIT_SPACE ? before : i;
    if (begin) return begin;
    for (unsigned k = 0; i < n && (!stage->max || k < stage->max); k++, i += length)
        if (!split_in_set(stage, s, n, i, &length)) break;
    return i;
}

/* \s+$ */
static size_t split_last_spaces(const split_stage *stage, const char *s, size_t n) {
    size_t i = 0, end;
    (void)stage;
    if ((unsigned char)s[n - 1] < 128 && !(unicode_ascii[(unsigned char)s[n - 1]] & SPLIT_SPACE)) return n; /* mostly */
    end = split_run(s, n, 0, SPLIT_SPACE);
    if (end == n) return n;
    while (i < n) {
        i = split_run(s, n, end, UNICODE_ALL & ~SPLIT_SPACE);
        end = split_run(s, n, i, SPLIT_SPACE);
        if (end == n) break;
    }
    return i;
}

static int split_is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* [0-9][0-9][0-9] */
static size_t split_three_digits(const split_stage *stage, const char *s, size_t n) {
    (void)stage;
    for (size_t i = 0; i + 3 <= n; i++)
        if (split_is_digit(s[i]) && split_is_digit(s[i + 1]) && split_is_digit(s[i + 2])) return i ? i : 3;
    return n;
}

/* ---- the stages ------------------------------------------------------------------------------------------------- */

/* Characters first..last as bits of split_stage.ascii[first / 64]. */
#define SPLIT_BITS(first, last) (UINT64_MAX << (first) % 64 & UINT64_MAX >> (63 - (last) % 64))

/* The letters with case that DeepSeek LLM lists (Unicode 13). */
static const split_range split_cased_letters[] = {
    {0xb5, 0xb5},       {0xc0, 0xd6},       {0xd8, 0xf6},       {0xf8, 0x1ba},      {0x1bc, 0x1bf},
    {0x1c4, 0x293},     {0x295, 0x2af},     {0x370, 0x373},     {0x376, 0x377},     {0x37b, 0x37d},
    {0x37f, 0x37f},     {0x386, 0x386},     {0x388, 0x38a},     {0x38c, 0x38c},     {0x38e, 0x3a1},
    {0x3a3, 0x3f5},     {0x3f7, 0x481},     {0x48a, 0x52f},     {0x531, 0x556},     {0x10a0, 0x10c5},
    {0x13a0, 0x13f5},   {0x13f8, 0x13fd},   {0x1c90, 0x1cba},   {0x1cbd, 0x1cbf},   {0x1d00, 0x1d2b},
    {0x1d6b, 0x1d77},   {0x1d79, 0x1d9a},   {0x1e00, 0x1f15},   {0x1f18, 0x1f1d},   {0x1f20, 0x1f45},
    {0x1f48, 0x1f4d},   {0x1f50, 0x1f57},   {0x1f59, 0x1f59},   {0x1f5b, 0x1f5b},   {0x1f5d, 0x1f5d},
    {0x1f5f, 0x1f7d},   {0x1f80, 0x1fb4},   {0x1fb6, 0x1fbc},   {0x1fbe, 0x1fbe},   {0x1fc2, 0x1fc4},
    {0x1fc6, 0x1fcc},   {0x1fd0, 0x1fd3},   {0x1fd6, 0x1fdb},   {0x1fe0, 0x1fec},   {0x1ff2, 0x1ff4},
    {0x1ff6, 0x1ffc},   {0x2102, 0x2102},   {0x2107, 0x2107},   {0x210a, 0x2113},   {0x2115, 0x2115},
    {0x2119, 0x211d},   {0x2124, 0x2124},   {0x2126, 0x2126},   {0x2128, 0x2128},   {0x212a, 0x212d},
    {0x212f, 0x2134},   {0x2139, 0x2139},   {0x213c, 0x213f},   {0x2145, 0x2149},   {0x214e, 0x214e},
    {0x2183, 0x2184},   {0x2c00, 0x2c7b},   {0x2c7e, 0x2ce4},   {0x2ceb, 0x2cee},   {0x2cf2, 0x2cf3},
    {0xa640, 0xa66d},   {0xa680, 0xa69b},   {0xa722, 0xa76f},   {0xa771, 0xa787},   {0xa78b, 0xa78e},
    {0xab70, 0xabbf},   {0xfb00, 0xfb06},   {0xfb13, 0xfb17},   {0xff21, 0xff3a},   {0xff41, 0xff5a},
    {0x10400, 0x1044f}, {0x104b0, 0x104d3}, {0x104d8, 0x104fb}, {0x10c80, 0x10cb2}, {0x10cc0, 0x10cf2},
    {0x118a0, 0x118df}, {0x1e900, 0x1e943}};

/* Full-width forms of !-/ :-~, quotation marks, and U+3000..3002, which begin with a space. */
static const split_range split_deepseek_points[] = {
    {0x2018, 0x201f}, {0x3000, 0x3002}, {0xff01, 0xff0f}, {0xff1a, 0xff5e}};
static const split_range split_deepseek_cjk[] = {{0x800, 0x9fa5}, {0xac00, 0xd7ff}};
static const split_range split_deepseek3_cjk[] = {{0x3040, 0x309f}, {0x30a0, 0x30ff}, {0x4e00, 0x9fa5}};

#define SPLIT_RANGES(array) .range = (array), .n_range = sizeof(array) / sizeof *(array)

static const split_stage split_by_gpt2 = {.next = split_gpt2};
static const split_stage split_by_llama3 = {.next = split_llama3, .max = 3, .flags = SPLIT_CONTRACTIONS};
static const split_stage split_by_qwen2 = {.next = split_llama3, .max = 1, .flags = SPLIT_CONTRACTIONS};
static const split_stage split_by_qwen35 = {.next = split_llama3, .max = 1, .flags = SPLIT_CONTRACTIONS | SPLIT_MARKS};
static const split_stage split_by_ufakzeka = {.next = split_llama3, .max = 1};
static const split_stage split_by_minicpm = {.next = split_llama3, .flags = SPLIT_CONTRACTIONS};
static const split_stage split_by_seed = {
    .next = split_llama3, .max = 1, .flags = SPLIT_CONTRACTIONS | SPLIT_NO_NEWLINES};
static const split_stage split_by_gpt4o = {.next = split_cased, .max = 3, .flags = SPLIT_SUFFIX | SPLIT_SLASH};
static const split_stage split_by_tekken = {.next = split_cased, .max = 1, .flags = SPLIT_SLASH};
static const split_stage split_by_deepseek3 = {.next = split_deepseek3};
/* \p{N} , \p{N}{1,3} , \p{N}+ , [0-9][0-9][0-9] */
static const split_stage split_by_digit = {.next = split_runs, .set = SPLIT_NUMBER, .max = 1};
static const split_stage split_by_3_digits = {.next = split_runs, .set = SPLIT_NUMBER, .max = 3};
static const split_stage split_by_number = {.next = split_runs, .set = SPLIT_NUMBER};
static const split_stage split_by_thousands = {.next = split_three_digits};
/* [\r\n] , \s?[A-Za-z ... ]+ , \s?[!-/:-~ ... ]+ , \s+$ , \s?\p{L}+ , \s?\p{P}+ , [\u4e00-\u9fa5 ... ]+ */
static const split_stage split_by_newline = {
    .next = split_runs, .ascii = {SPLIT_BITS('\n', '\n') | SPLIT_BITS('\r', '\r')}, .max = 1};
static const split_stage split_by_cased_letters = {.next = split_runs,
                                                   .ascii = {0, SPLIT_BITS('A', 'Z') | SPLIT_BITS('a', 'z')},
                                                   SPLIT_RANGES(split_cased_letters),
                                                   .flags = SPLIT_LEADING_SPACE};
static const split_stage split_by_deepseek_points = {
    .next = split_runs,
    .ascii = {SPLIT_BITS('!', '/') | SPLIT_BITS(':', '?'), SPLIT_BITS('@', '~')},
    SPLIT_RANGES(split_deepseek_points),
    .flags = SPLIT_LEADING_SPACE};
static const split_stage split_by_last_spaces = {.next = split_last_spaces};
static const split_stage split_by_letters = {.next = split_runs, .set = UNICODE_LETTERS, .flags = SPLIT_LEADING_SPACE};
static const split_stage split_by_points = {.next = split_runs, .set = SPLIT_POINT, .flags = SPLIT_LEADING_SPACE};
static const split_stage split_by_deepseek_cjk = {.next = split_runs, SPLIT_RANGES(split_deepseek_cjk)};
static const split_stage split_by_deepseek3_cjk = {.next = split_runs, SPLIT_RANGES(split_deepseek3_cjk)};
/* [\p{P}\$\+<=>\^~\|`]+ , and without the ` */
static const split_stage split_by_falcon_points = {
    .next = split_runs,
    .set = SPLIT_POINT,
    .ascii = {SPLIT_BITS('$', '$') | SPLIT_BITS('+', '+') | SPLIT_BITS('<', '>'),
              SPLIT_BITS('^', '^') | SPLIT_BITS('`', '`') | SPLIT_BITS('|', '|') | SPLIT_BITS('~', '~')}};
static const split_stage split_by_default_points = {
    .next = split_runs,
    .set = SPLIT_POINT,
    .ascii = {SPLIT_BITS('$', '$') | SPLIT_BITS('+', '+') | SPLIT_BITS('<', '>'),
              SPLIT_BITS('^', '^') | SPLIT_BITS('|', '|') | SPLIT_BITS('~', '~')}};

/* ---- the names -------------------------------------------------------------------------------------------------- */

/* The expressions are those of the models' own tokenizer.json; the names are llama.cpp's. */
static const split_kind split_kinds[] = {
    {"default", 0, {&split_by_default_points, &split_by_gpt2, &split_by_number, &split_by_thousands}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     SPLIT_WHOLE_WORDS | SPLIT_ADD_BOS,
     {&split_by_llama3}},
    {"dbrx smaug-bpe", 0, {&split_by_llama3}},
    {"chatglm-bpe glm4", SPLIT_NO_BOS, {&split_by_llama3}},
    {"qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 bailingmoe bailingmoe2 llada-moe",
     0,
     {&split_by_qwen2}},
    {"qwen35", 0, {&split_by_qwen35}},
    {"ufakzeka", 0, {&split_by_ufakzeka}},
    {"seed-coder", 0, {&split_by_seed}},
    {"minicpm5", SPLIT_WHOLE_WORDS, {&split_by_3_digits, &split_by_minicpm}},
    {"gpt-2 phi-2 olmo mpt jais trillion granite-docling exaone4 modern-bert gigachat a.x-4.0 mellum jina-es jina-de "
     "jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe",
     0,
     {&split_by_gpt2}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", 0, {&split_by_digit, &split_by_gpt2}},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", 0, {&split_by_gpt4o}},
    {"tekken", SPLIT_WHOLE_WORDS | SPLIT_ADD_BOS, {&split_by_tekken}},
    {"deepseek-llm",
     0,
     {&split_by_newline, &split_by_cased_letters, &split_by_deepseek_points, &split_by_last_spaces,
      &split_by_deepseek_cjk, &split_by_number}},
    {"deepseek-coder",
     0,
     {&split_by_newline, &split_by_letters, &split_by_points, &split_by_deepseek_cjk, &split_by_digit}},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     0,
     {&split_by_3_digits, &split_by_deepseek3_cjk, &split_by_deepseek3}},
    {"falcon", 0, {&split_by_falcon_points, &split_by_gpt2, &split_by_thousands}},
};

enum { SPLIT_N_KINDS = sizeof split_kinds / sizeof *split_kinds };

const split_kind *split_find(const char *name, size_t n) {
    for (size_t i = 0; i < SPLIT_N_KINDS && n && !memchr(name, ' ', n); i++) {
        for (const char *at = split_kinds[i].names; *at; at += strspn(at, " ")) {
            const size_t length = strcspn(at, " ");
            if (length == n && memcmp(at, name, n) == 0) return &split_kinds[i];
            at += length;
        }
    }
    return NULL;
}

void split_list(char *buf, size_t n) {
    size_t used = 0;
    buf[0] = 0;
    for (size_t i = 0; i < SPLIT_N_KINDS && used < n; i++)
        used += (size_t)snprintf(buf + used, n - used, "%s%.*s", i ? ", " : "", (int)strcspn(split_kinds[i].names, " "),
                                 split_kinds[i].names);
}

/* Whether s[n] is ASCII letters, or a space and ASCII letters. No stage behind the first of a kind cuts such a word,
 * and most words of English are: they need not go through all stages. */
static int split_is_plain_word(const char *s, size_t n) {
    size_t i = *s == ' ';
    while (i < n && split_is_ascii_letter(s[i])) i++;
    return i == n;
}

size_t split_next(split_reader *r) {
    const size_t at = r->at;
    size_t limit = r->n;
    if (at >= limit) return 0;
    for (size_t k = 0; r->kind->stage[k]; k++) {
        const split_stage *stage = r->kind->stage[k];
        if (r->end[k] <= at) r->end[k] = at + stage->next(stage, r->text + at, limit - at);
        limit = r->end[k];
        if (limit - at == 1 || (r->kind->stage[k + 1] && split_is_plain_word(r->text + at, limit - at))) break;
    }
    r->at = limit;
    return limit - at;
}
