/* score_file.c: the file of reference logits of `minim eval`; see score.h. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "common.h"
#include "score.h"

static const char score_magic[8] = {'m', 'i', 'n', 'i', 'm', 'l', 'g', 't'};
static const char score_magic_16[8] = {'_', 'l', 'o', 'g', 'i', 't', 's', '_'}; /* llama-perplexity's */
enum { SCORE_VERSION = 1, SCORE_CTX_MIN = 4, SCORE_PIECE = 4096 };

size_t score_first(size_t n_ctx) {
    return n_ctx / 2;
}

size_t score_count(size_t n_ctx) {
    return n_ctx - 1 - score_first(n_ctx);
}

int score_write_header(FILE *file, const score_header *header, const int32_t *tokens) {
    const uint32_t words[4] = {SCORE_VERSION, header->n_vocab, header->n_ctx, header->n_chunks};
    size_t n = (size_t)header->n_chunks * header->n_ctx;
    errno = 0;
    if (fwrite(score_magic, sizeof score_magic, 1, file) != 1) return -1;
    if (fwrite(words, sizeof words, 1, file) != 1) return -1;
    return fwrite(tokens, sizeof *tokens, n, file) == n ? 0 : -1;
}

/* The message after fewer bytes than needed came. */
static int score_fail_read(FILE *file, const char *name, const char *what) {
    if (tool_interrupted()) return EXIT_CODE_INTERRUPTED;
    if (ferror(file)) return tool_fail("%s: %s", name, strerror(errno));
    return tool_fail("%s: expected %s, found the end of the file", name, what);
}

/* What the four numbers say, against the model and the text. */
static int score_check_header(const char *name, const score_header *header, size_t n_vocab, size_t n_tokens) {
    if (header->version != SCORE_VERSION) {
        return tool_fail("%s: version: expected %d, found %u", name, SCORE_VERSION, header->version);
    }
    if (header->n_vocab != n_vocab) {
        return tool_fail("%s: vocabulary: expected %zu tokens, which is the model's, found %u", name, n_vocab,
                         header->n_vocab);
    }
    if (header->n_ctx < SCORE_CTX_MIN || header->n_ctx > INT32_MAX) {
        return tool_fail("%s: context: expected %d tokens or more, found %u", name, SCORE_CTX_MIN, header->n_ctx);
    }
    size_t chunks = n_tokens / header->n_ctx;
    if (header->n_chunks >= 1 && header->n_chunks <= chunks) return -1;
    return tool_fail("%s: chunks: expected 1 to %zu of %u tokens, which is what the text has, found %u", name, chunks,
                     header->n_ctx, header->n_chunks);
}

/* A file that is too short is noticed before the work, not at its end. What is no regular file has no size to look at.
 */
static int score_check_size(FILE *file, const char *name, const score_header *header) {
    struct stat status;
    if (fstat(fileno(file), &status) || !S_ISREG(status.st_mode)) return -1;
    uint64_t rows = (uint64_t)header->n_chunks * score_count(header->n_ctx), row = (uint64_t)header->n_vocab * 4;
    uint64_t start = sizeof score_magic + 16 + (uint64_t)header->n_chunks * header->n_ctx * 4;
    if (header->is_16) row = 8 + 4 * (((uint64_t)header->n_vocab + 1) / 2), start -= 4;
    uint64_t found = (uint64_t)status.st_size;
    if (rows > (UINT64_MAX - start) / row)
        return tool_fail("%s: %llu rows are too many", name, (unsigned long long)rows);
    if (found == start + rows * row) return -1;
    return tool_fail("%s: size: expected %llu bytes, found %llu", name, (unsigned long long)(start + rows * row),
                     (unsigned long long)found);
}

static int score_check_tokens(FILE *file, const char *name, const score_header *header, const int32_t *tokens) {
    int32_t piece[SCORE_PIECE];
    size_t n = (size_t)header->n_chunks * header->n_ctx;
    for (size_t at = 0; at < n; at += SCORE_PIECE) {
        size_t count = n - at < SCORE_PIECE ? n - at : SCORE_PIECE;
        if (fread(piece, sizeof *piece, count, file) != count) return score_fail_read(file, name, "the text's tokens");
        for (size_t i = 0; i < count; i++) {
            if (piece[i] == tokens[at + i]) continue;
            return tool_fail("%s: token %zu: expected %d as in the text, found %d: another text or vocabulary", name,
                             at + i, tokens[at + i], piece[i]);
        }
    }
    return -1;
}

int score_read_header(FILE *file, const char *name, size_t n_vocab, const int32_t *tokens, size_t n_tokens,
                      score_header *header) {
    char magic[sizeof score_magic];
    uint32_t words[4];
    errno = 0;
    if (fread(magic, sizeof magic, 1, file) != 1) return score_fail_read(file, name, "reference logits");
    const int is_16 = !memcmp(magic, score_magic_16, sizeof magic);
    if (!is_16 && memcmp(magic, score_magic, sizeof magic) != 0) {
        const unsigned char *m = (const unsigned char *)magic;
        return tool_fail("%s: expected reference logits (of minim eval --save-logits, or of llama-perplexity), found "
                         "bytes %02x %02x %02x %02x at the start",
                         name, m[0], m[1], m[2], m[3]);
    }
    const size_t n_words = is_16 ? 3 : 4;
    if (fread(words, sizeof *words, n_words, file) != n_words) return score_fail_read(file, name, "its header");
    *header = is_16 ? (score_header){SCORE_VERSION, words[1], words[0], words[2], 1}
                    : (score_header){words[0], words[1], words[2], words[3], 0};
    int code = score_check_header(name, header, n_vocab, n_tokens);
    if (code < 0) code = score_check_size(file, name, header);
    if (code < 0) code = score_check_tokens(file, name, header, tokens);
    return code;
}

/* A row of llama-perplexity's: two floats, scale and least, then 16 bits for each token, its logarithm being scale *
 * code + least. Code 0 also stands for all that is 16 nats less likely than the best, and less. Were they counted as
 * such, many would be a part of a distribution that they are none of: they get 8 nats less. */
static int score_read_row_16(FILE *file, size_t n_vocab, float *logits) {
    enum { CUT = 16, LESS = 8 };
    uint16_t codes[SCORE_PIECE];
    float head[2]; /* scale, least */
    if (fread(head, sizeof head, 1, file) != 1) return -1;
    const float range = head[0] * 65535;
    const float cut = range > CUT - 0.01f ? head[1] - LESS : head[1];
    for (size_t at = 0, n; at < n_vocab; at += n) {
        const size_t left = n_vocab - at;
        n = left < SCORE_PIECE ? left : SCORE_PIECE;
        if (fread(codes, sizeof *codes, n + n % 2, file) != n + n % 2) return -1; /* rows have an even number */
        for (size_t i = 0; i < n; i++) logits[at + i] = codes[i] ? head[0] * codes[i] + head[1] : cut;
    }
    return 0;
}

int score_read_rows(FILE *file, const char *name, const score_header *header, size_t row, size_t rows, float *logits) {
    const size_t n_vocab = header->n_vocab;
    size_t found = 0;
    errno = 0;
    if (!header->is_16)
        found = fread(logits, n_vocab * sizeof *logits, rows, file);
    else
        while (found < rows && !score_read_row_16(file, n_vocab, logits + found * n_vocab)) found++;
    if (found != rows) {
        char what[64];
        snprintf(what, sizeof what, "logits of position %zu", row + found);
        return score_fail_read(file, name, what);
    }
    size_t bad = score_not_finite(logits, rows * n_vocab);
    if (bad == rows * n_vocab) return -1;
    return tool_fail("%s: position %zu, token %zu: expected a finite logit, found %g", name, row + bad / n_vocab,
                     bad % n_vocab, (double)logits[bad]);
}
