/* session.c: a sequence in a file, and back.
 *
 *     session_header        what it is of: version, model, layout of the pages, numbers of tokens and pages
 *     int32 [n_tokens]      the tokens
 *     byte [n_note]         what the caller has put beside them
 *     page [n_pages]        keys and values, as kv.h lays them out, page after page as the table lists them;
 *                           those of windowed layers that were dropped are left out
 *     uint64                a checksum over everything before
 *
 * Numbers are little-endian, as in GGUF. The file fits one model, KV type and page size. Which model is told by a
 * digest of its tensors' names, shapes and types and of all weights in memory: a fine-tuned model has the same shapes,
 * and nothing in a file's header has to change when a weight does. The checksum finds damage, not malice: someone who
 * writes a whole file can put any numbers into the pages. So pages of a file never enter the prefix cache, where they
 * would become part of other sequences.
 *
 * A file is written beside its place and renamed when it is complete and on disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine.h"
#include "kv_impl.h"

enum { SESSION_VERSION = 4 }; /* another one when this layout changes, or a bit of what models compute */

static const char session_magic[8] = {'m', 'i', 'n', 'i', 'm', 's', 'e', 'q'};

typedef struct session_header {
    char magic[8];
    uint32_t version, kv_type;
    uint32_t page_size, far; /* far: rotary factors for a long context */
    uint64_t model;          /* see session_model() */
    uint64_t page_bytes;     /* of one page in the file */
    uint64_t together;       /* pages that hold the same tokens */
    uint64_t n_tokens;
    uint64_t dropped; /* the first so many pages of tokens are left out in windowed layers; and if `lost`, all are */
    uint64_t lost;
    uint64_t n_pages, n_note;
} session_header;

/* ---- checksum and identity ----------------------------------------------------------------------------------------
 */

/* Every step can be undone, given the data: so no single change goes unnoticed. Four lanes, for speed. */
static uint64_t session_sum(uint64_t sum, const void *data, size_t n) {
    const unsigned char *bytes = data;
    uint64_t lane[4] = {sum, ~sum, sum ^ n, sum + 1};
    for (; n >= 32; bytes += 32, n -= 32) {
        for (int i = 0; i < 4; i++) {
            uint64_t word;
            memcpy(&word, bytes + i * 8, 8);
            lane[i] = (lane[i] ^ word) * 0x9e3779b97f4a7c15u;
            lane[i] ^= lane[i] >> 29;
        }
    }
    for (; n > 0; bytes++, n--) lane[0] = (lane[0] ^ *bytes) * 0x100000001b3u;
    for (int i = 1; i < 4; i++) {
        lane[0] = (lane[0] ^ lane[i]) * 0xff51afd7ed558ccdu;
        lane[0] ^= lane[0] >> 32;
    }
    return lane[0];
}

static uint64_t session_sum_matrix(uint64_t sum, const model_matrix *w) {
    if (!w->panels) return sum;
    const uint64_t about[] = {w->type, (uint64_t)w->rows, (uint64_t)w->cols};
    const size_t panels = (size_t)((w->rows + KERN_PANEL - 1) / KERN_PANEL);
    sum = session_sum(sum, about, sizeof about);
    sum = session_sum(sum, w->panels, panels * w->panel_bytes);
    return w->bias ? session_sum(sum, w->bias, (size_t)w->rows * sizeof *w->bias) : sum;
}

static uint64_t session_sum_norm(uint64_t sum, const model_norm *norm) {
    if (norm->weight) sum = session_sum(sum, norm->weight, (size_t)norm->n * sizeof(float));
    return norm->bias ? session_sum(sum, norm->bias, (size_t)norm->n * sizeof(float)) : sum;
}

/* Reads all weights once; the engine keeps the result. */
static uint64_t session_model(minim_engine *en) {
    const minim_model *m = en->model;
    if (en->model_sum) return en->model_sum;
    ready_for_all(en);
    uint64_t sum = session_sum(0, m->architecture, strlen(m->architecture));
    for (size_t i = 0; i < gguf_tensor_count(m->file); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->file, i);
        sum = session_sum(sum, t->name.s, t->name.n);
        sum = session_sum(sum, t->dim, sizeof t->dim);
        sum = session_sum(sum, &t->type, sizeof t->type);
    }
    sum = session_sum_matrix(sum, &m->embedding);
    if (m->output.panels != m->embedding.panels) sum = session_sum_matrix(sum, &m->output);
    sum = session_sum_norm(sum, &m->output_norm);
    for (int i = 0; i < m->shape.n_layers; i++) {
        const model_layer *y = &m->layers[i];
        const model_matrix *matrix[] = {&y->q, &y->k, &y->v, &y->attn_output, &y->ffn_gate, &y->ffn_up, &y->ffn_down};
        const model_norm *norm[] = {&y->attn_norm, &y->ffn_norm, &y->attn_post, &y->ffn_post, &y->q_norm, &y->k_norm};
        for (size_t k = 0; k < sizeof matrix / sizeof *matrix; k++) sum = session_sum_matrix(sum, matrix[k]);
        for (size_t k = 0; k < sizeof norm / sizeof *norm; k++) sum = session_sum_norm(sum, norm[k]);
    }
    for (int i = 0; i < MODEL_ROPE_KINDS; i++) {
        if (m->rope_freq[i]) sum = session_sum(sum, m->rope_freq[i], (size_t)m->shape.n_rot / 2 * sizeof(double));
    }
    en->model_sum = sum ? sum : 1;
    return en->model_sum;
}

/* What every file of this engine has in common. */
static session_header session_describe(minim_engine *en) {
    session_header h = {.version = SESSION_VERSION,
                        .kv_type = (uint32_t)kv_type(en->kv),
                        .page_size = (uint32_t)en->page_size,
                        .far = en->rope_freq[0] != en->model->rope_freq[MODEL_ROPE_NEAR],
                        .model = session_model(en),
                        .page_bytes = en->kv->page_bytes - KV_HEADER,
                        .together = en->kv->together};
    memcpy(h.magic, session_magic, sizeof h.magic);
    return h;
}

/* Is page i of the table in the file? Pages of one kind stand side by side in it. */
static int session_has_page(const minim_engine *en, const session_header *h, size_t i) {
    const int windowed = i % en->kv->together >= en->kv->kept;
    return !windowed || (!h->lost && i / en->kv->together >= h->dropped);
}

static uint64_t session_pages(const minim_engine *en, const session_header *h) {
    const uint64_t size = h->page_size, blocks = (h->n_tokens + size - 1) / size;
    const uint64_t windowed = en->kv->together - en->kv->kept;
    return blocks * en->kv->kept + (h->lost ? 0 : (blocks - h->dropped) * windowed);
}

/* ---- saving -------------------------------------------------------------------------------------------------------
 */

typedef struct session_file {
    const char *path;
    int fd;
    uint64_t sum;
} session_file;

static minim_status session_write(session_file *f, const void *data, size_t n, minim_error *e) {
    const char *at = data;
    f->sum = session_sum(f->sum, data, n);
    while (n > 0) {
        ssize_t done = write(f->fd, at, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) {
            return err_set(e, MINIM_ERR_IO, "%s: cannot be written: %s", f->path, strerror(done ? errno : ENOSPC));
        }
        at += done, n -= (size_t)done;
    }
    return MINIM_OK;
}

static minim_status session_write_all(const minim_seq *s, session_file *f, minim_error *e) {
    minim_engine *en = s->engine;
    session_header h = session_describe(en);
    h.n_tokens = s->length;
    h.dropped = s->lost ? 0 : s->pages.dropped;
    h.lost = (uint64_t)s->lost;
    h.n_pages = session_pages(en, &h);
    h.n_note = s->n_note;
    minim_status status = session_write(f, &h, sizeof h, e);
    if (!status && s->length) status = session_write(f, s->tokens, s->length * sizeof *s->tokens, e);
    if (!status && s->n_note) status = session_write(f, s->note, s->n_note, e);
    for (size_t i = 0; i < s->pages.n * en->kv->together && !status; i++) {
        if (!session_has_page(en, &h, i)) continue;
        status = session_write(f, (const char *)s->pages.page[i] + KV_HEADER, (size_t)h.page_bytes, e);
    }
    const uint64_t sum = f->sum;
    return status ? status : session_write(f, &sum, sizeof sum, e);
}

minim_status minim_seq_save(minim_seq *s, const char *path, minim_error *error) {
    if (!s || !path) return err_set(error, MINIM_ERR_ARGUMENT, "seq or path is NULL");
    minim_engine *en = s->engine;
    struct stat there;
    if (!stat(path, &there) && !S_ISREG(there.st_mode))
        return err_set(error, MINIM_ERR_IO, "%s: expected the name of a file, found a directory, a pipe or a device",
                       path);
    char resolved[PATH_MAX]; /* a link stays one, what it leads to is replaced */
    const char *target = realpath(path, resolved) ? resolved : path;
    const size_t n = strlen(target) + 16;
    char *beside = mem_alloc(&en->allocator, n, 1);
    if (!beside) return err_memory(error, "a file name", n);
    snprintf(beside, n, "%s.XXXXXX", target);
    session_file f = {.path = path, .fd = mkstemp(beside)};
    if (f.fd < 0) {
        const int why = errno;
        mem_free(&en->allocator, beside, n, 1);
        return err_set(error, MINIM_ERR_IO, "%s: cannot be written: %s", path, strerror(why));
    }
    pthread_mutex_lock(&en->lock);
    minim_status status = session_write_all(s, &f, error);
    pthread_mutex_unlock(&en->lock);
    /* Only what is on disk may take the place of what was there. */
    int failed = !status && fsync(f.fd);
    failed = close(f.fd) || failed;
    if (!status && (failed || rename(beside, target)))
        status = err_set(error, MINIM_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    if (status) unlink(beside);
    mem_free(&en->allocator, beside, n, 1);
    return status ? status : err_ok(error);
}

/* ---- restoring ----------------------------------------------------------------------------------------------------
 */

static minim_status session_read(session_file *f, void *data, size_t n, minim_error *e) {
    char *at = data;
    for (size_t left = n; left > 0;) {
        ssize_t done = read(f->fd, at, left);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return err_set(e, MINIM_ERR_IO, "%s: cannot be read: %s", f->path, strerror(errno));
        if (!done) return err_set(e, MINIM_ERR_FORMAT, "%s: is no whole saved sequence: it ends too early", f->path);
        at += done, left -= (size_t)done;
    }
    f->sum = session_sum(f->sum, data, n);
    return MINIM_OK;
}

/* Everything that a step will rely on. */
static minim_status session_check(minim_engine *en, const session_file *f, const session_header *h, uint64_t file_bytes,
                                  minim_error *e) {
    if (memcmp(h->magic, session_magic, sizeof session_magic) != 0)
        return err_set(e, MINIM_ERR_FORMAT, "%s: is no saved sequence", f->path);
    if (h->version != SESSION_VERSION)
        return err_set(e, MINIM_ERR_UNSUPPORTED, "%s: version %u, expected %u", f->path, h->version, SESSION_VERSION);
    const session_header own = session_describe(en);
    if (h->model != own.model) return err_set(e, MINIM_ERR_UNSUPPORTED, "%s: was saved with another model", f->path);
    if (h->kv_type != own.kv_type || h->page_size != own.page_size || h->far != own.far ||
        h->page_bytes != own.page_bytes || h->together != own.together) {
        return err_set(e, MINIM_ERR_UNSUPPORTED,
                       "%s: was saved with another KV type, page size or context (pages of %u tokens and %llu bytes, "
                       "expected %u and %llu)",
                       f->path, h->page_size, (unsigned long long)h->page_bytes, own.page_size,
                       (unsigned long long)own.page_bytes);
    }
    if (h->n_tokens > (uint64_t)en->n_ctx) {
        return err_set(e, MINIM_ERR_CONTEXT, "%s: %llu tokens do not fit the context of %d", f->path,
                       (unsigned long long)h->n_tokens, en->n_ctx);
    }
    const uint64_t size = h->page_size, blocks = (h->n_tokens + size - 1) / size;
    const int has_windows = en->kv->kept < en->kv->together;
    if (h->lost > 1 || h->dropped > blocks || (!has_windows && (h->lost || h->dropped)) ||
        (!h->lost && h->dropped * size > engine_first_key(en, (size_t)h->n_tokens)) ||
        h->n_pages != session_pages(en, h)) {
        return err_set(e, MINIM_ERR_FORMAT, "%s: its numbers of tokens and pages do not fit each other", f->path);
    }
    /* n_tokens and n_pages are small by now: no overflow. */
    uint64_t bytes;
    if (size_mul(h->n_pages, h->page_bytes, &bytes) ||
        size_add(bytes, sizeof *h + h->n_tokens * sizeof(int32_t) + sizeof(uint64_t), &bytes) ||
        size_add(bytes, h->n_note, &bytes) || bytes != file_bytes) {
        return err_set(e, MINIM_ERR_FORMAT, "%s: has %llu bytes, which is not what its header says", f->path,
                       (unsigned long long)file_bytes);
    }
    return MINIM_OK;
}

static minim_status session_read_tokens(minim_seq *s, session_file *f, size_t n, minim_error *e) {
    minim_engine *en = s->engine;
    if (mem_grow(&en->allocator, &s->tokens, &s->capacity, n, sizeof *s->tokens))
        return err_memory(e, "a token list", n * sizeof *s->tokens);
    minim_status status = n ? session_read(f, s->tokens, n * sizeof *s->tokens, e) : MINIM_OK;
    for (size_t i = 0; i < n && !status; i++) {
        if (s->tokens[i] < 0 || s->tokens[i] >= en->model->n_vocab)
            status = err_set(e, MINIM_ERR_FORMAT, "%s: token %zu is %d, expected 0 to %d", f->path, i, s->tokens[i],
                             en->model->n_vocab - 1);
    }
    return status;
}

static minim_status session_read_note(minim_seq *s, session_file *f, size_t n, minim_error *e) {
    if (!n) return MINIM_OK;
    s->note = mem_alloc(&s->engine->allocator, n, 1);
    if (!s->note) return err_memory(e, "a note", n);
    s->n_note = n;
    return session_read(f, s->note, n, e);
}

static minim_status session_read_pages(minim_seq *s, session_file *f, const session_header *h, minim_error *e) {
    minim_engine *en = s->engine;
    const size_t size = h->page_size, n = (size_t)h->n_tokens, blocks = (n + size - 1) / size;
    for (size_t i = 0; i < blocks; i++) {
        const size_t end = (i + 1) * size < n ? (i + 1) * size : n;
        minim_status status = kv_reserve(en->kv, &s->pages, i * size, end, e);
        if (!status && (h->lost || i < h->dropped)) kv_drop(en->kv, &s->pages, (i + 1) * size);
        for (size_t k = i * en->kv->together; k < (i + 1) * en->kv->together && !status; k++) {
            if (session_has_page(en, h, k))
                status = session_read(f, (char *)s->pages.page[k] + KV_HEADER, (size_t)h->page_bytes, e);
        }
        if (status) return status;
    }
    return MINIM_OK;
}

static minim_status session_read_all(minim_seq *s, session_file *f, minim_error *e) {
    session_header h;
    struct stat about;
    uint64_t found;
    if (fstat(f->fd, &about)) return err_set(e, MINIM_ERR_IO, "%s: %s", f->path, strerror(errno));
    if (!S_ISREG(about.st_mode)) return err_set(e, MINIM_ERR_FORMAT, "%s: is no regular file", f->path);
    minim_status status = session_read(f, &h, sizeof h, e);
    if (!status) status = session_check(s->engine, f, &h, (uint64_t)about.st_size, e);
    if (!status) status = session_read_tokens(s, f, (size_t)h.n_tokens, e);
    if (!status) status = session_read_note(s, f, (size_t)h.n_note, e);
    s->pages.foreign = 1;
    if (!status) status = session_read_pages(s, f, &h, e);
    const uint64_t sum = f->sum;
    if (!status) status = session_read(f, &found, sizeof found, e);
    if (!status && found != sum)
        status = err_set(e, MINIM_ERR_FORMAT, "%s: is damaged: its checksum is wrong", f->path);
    if (status) return status;
    s->length = (size_t)h.n_tokens;
    s->lost = (int)h.lost;
    return MINIM_OK;
}

minim_status minim_seq_restore(minim_engine *en, const char *path, minim_seq **out, minim_error *error) {
    if (!en || !path || !out) return err_set(error, MINIM_ERR_ARGUMENT, "engine, path or seq is NULL");
    minim_status status = minim_seq_new(en, out, error);
    if (status) return status;
    session_file f = {.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (f.fd < 0) {
        status = err_set(error, MINIM_ERR_IO, "%s: %s", path, strerror(errno));
    } else {
        pthread_mutex_lock(&en->lock);
        status = session_read_all(*out, &f, error);
        pthread_mutex_unlock(&en->lock);
        close(f.fd);
    }
    if (status) {
        minim_seq_free(*out);
        *out = NULL;
        return status;
    }
    return err_ok(error);
}
