/* text.c: see text.h.
 *
 * Two stages. The first reads bytes and gives characters: valid ones as they are, U+FFFD for what is none. The second
 * runs every stop string over them with its own Knuth-Morris-Pratt automaton. The state of an automaton is how many
 * bytes at the end of the text are a beginning of its stop string, so the largest state is what must be held back. */
#include "text.h"

#include <string.h>

typedef struct text_stop {
    const char *text; /* [n], in text_stream.stop_text */
    uint16_t *border; /* [n]: longest proper prefix of text[0..i] that is also its suffix, in text_stream.borders */
    uint16_t n;
    uint16_t state; /* bytes matched so far, < n */
} text_stop;

struct text_stream {
    minim_allocator allocator;
    text_stop stop[TEXT_MAX_STOPS];
    size_t n_stop;
    char *stop_text; /* [stop_bytes] */
    uint16_t *borders;
    size_t stop_bytes;
    unsigned char part[4]; /* the beginning of a character that is not complete yet */
    size_t n_part;
    char *out; /* [n_out]: given out with the last call up to n_ready, then held back */
    size_t n_out, n_ready, capacity;
    int stopped;
};

static const char text_replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* ---- stop strings ----------------------------------------------------------------------------------------------- */

static minim_status text_check_stop(const char *stop, size_t index, minim_error *e) {
    const unsigned long long which = index;
    size_t n, length;
    if (!stop || !*stop) return err_set(e, MINIM_ERR_ARGUMENT, "stop string %llu is empty", which);
    n = strnlen(stop, TEXT_MAX_STOP_BYTES + 1);
    if (n > TEXT_MAX_STOP_BYTES)
        return err_set(e, MINIM_ERR_ARGUMENT, "stop string %llu is longer than %d bytes", which, TEXT_MAX_STOP_BYTES);
    for (size_t i = 0; i < n; i += length) {
        length = utf8_length(stop + i, n - i);
        if (!length) return err_set(e, MINIM_ERR_ARGUMENT, "stop string %llu is not valid UTF-8", which);
    }
    return MINIM_OK;
}

static void text_fill_borders(const text_stop *s) {
    size_t k = 0;
    s->border[0] = 0;
    for (size_t i = 1; i < s->n; i++) {
        while (k && s->text[i] != s->text[k]) k = s->border[k - 1];
        if (s->text[i] == s->text[k]) k++;
        s->border[i] = (uint16_t)k;
    }
}

/* Copies the stop strings, which have been checked, into one block of text and one of borders. */
static int text_copy_stops(text_stream *t, const char *const *stop, size_t n_stop) {
    size_t at = 0;
    for (size_t i = 0; i < n_stop; i++) t->stop_bytes += strlen(stop[i]);
    t->stop_text = mem_alloc(&t->allocator, t->stop_bytes, 1);
    t->borders = mem_alloc(&t->allocator, t->stop_bytes, sizeof *t->borders);
    if (!t->stop_text || !t->borders) return -1;
    for (size_t i = 0; i < n_stop; i++) {
        text_stop *s = &t->stop[i];
        s->n = (uint16_t)strlen(stop[i]);
        s->text = memcpy(t->stop_text + at, stop[i], s->n);
        s->border = t->borders + at;
        text_fill_borders(s);
        at += s->n;
    }
    t->n_stop = n_stop;
    return 0;
}

minim_status text_new(const minim_allocator *a, const char *const *stop, size_t n_stop, text_stream **out,
                      minim_error *e) {
    text_stream *t;
    *out = NULL;
    if (n_stop > TEXT_MAX_STOPS)
        return err_set(e, MINIM_ERR_ARGUMENT, "%llu stop strings, at most %d are possible", (unsigned long long)n_stop,
                       TEXT_MAX_STOPS);
    if (n_stop && !stop) return err_set(e, MINIM_ERR_ARGUMENT, "the list of stop strings is NULL");
    for (size_t i = 0; i < n_stop; i++) {
        const minim_status status = text_check_stop(stop[i], i, e);
        if (status) return status;
    }
    t = mem_zalloc(a, 1, sizeof *t);
    if (!t) return err_memory(e, "a text stream", sizeof *t);
    t->allocator = mem_allocator(a);
    if (text_copy_stops(t, stop, n_stop)) {
        const size_t bytes = t->stop_bytes * (1 + sizeof *t->borders);
        text_free(t);
        return err_memory(e, "a list of stop strings", bytes);
    }
    *out = t;
    return err_ok(e);
}

void text_free(text_stream *t) {
    if (!t) return;
    const minim_allocator a = t->allocator;
    mem_free(&a, t->stop_text, t->stop_bytes, 1);
    mem_free(&a, t->borders, t->stop_bytes, sizeof *t->borders);
    mem_free(&a, t->out, t->capacity, 1);
    mem_free(&a, t, 1, sizeof *t);
}

/* Adds one byte of valid text. Returns the length of the longest stop string that it completes, else 0. */
static size_t text_match(text_stream *t, char byte) {
    size_t longest = 0;
    for (size_t i = 0; i < t->n_stop; i++) {
        text_stop *s = &t->stop[i];
        size_t k = s->state;
        while (k && s->text[k] != byte) k = s->border[k - 1];
        if (s->text[k] == byte) k++;
        if (k == s->n) {
            if (k > longest) longest = k;
            k = s->border[k - 1];
        }
        s->state = (uint16_t)k;
    }
    return longest;
}

/* Appends a character; there is room. After a stop string the text ends before it. */
static void text_append(text_stream *t, const char *bytes, size_t n) {
    for (size_t i = 0; i < n && !t->stopped; i++) {
        const size_t found = text_match(t, bytes[i]);
        t->out[t->n_out++] = bytes[i];
        if (found) {
            t->n_out -= found;
            t->stopped = 1;
        }
    }
}

/* ---- characters ------------------------------------------------------------------------------------------------- */

/* How many bytes a character has that begins with part[0..n), 0 if none does (RFC 3629, section 4). */
static size_t text_expected(const unsigned char *part, size_t n) {
    const unsigned char first = part[0];
    if (first < 0x80) return 1;
    if (first < 0xc2 || first > 0xf4) return 0;
    if (n >= 2) {
        const unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;  /* below: overlong */
        const unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf; /* above: surrogate, U+110000 */
        if (part[1] < low || part[1] > high) return 0;
    }
    for (size_t i = 2; i < n; i++)
        if (part[i] < 0x80 || part[i] > 0xbf) return 0;
    return first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
}

static void text_take_byte(text_stream *t, unsigned char byte) {
    size_t expected;
    t->part[t->n_part++] = byte;
    expected = text_expected(t->part, t->n_part);
    if (!expected && t->n_part > 1) { /* what came before is the replaced part; this byte begins something new */
        text_append(t, text_replacement, 3);
        t->part[0] = byte;
        t->n_part = 1;
        expected = text_expected(t->part, 1);
    }
    if (!expected) {
        text_append(t, text_replacement, 3);
        t->n_part = 0;
    } else if (expected == t->n_part) {
        text_append(t, (const char *)t->part, expected);
        t->n_part = 0;
    }
}

/* ---- the stream ------------------------------------------------------------------------------------------------- */

/* Forgets what the last call gave out and makes room for n bytes more, each of which may become a U+FFFD. */
static minim_status text_begin(text_stream *t, size_t n, minim_error *e) {
    const size_t held = t->n_out - t->n_ready;
    uint64_t need;
    if (size_add(n, sizeof t->part, &need) || size_mul(need, 3, &need) || size_add(need, held, &need) ||
        need > SIZE_MAX)
        return err_memory(e, "the text of an answer", UINT64_MAX);
    if (held) memmove(t->out, t->out + t->n_ready, held);
    t->n_out = held;
    t->n_ready = 0;
    if (mem_grow(&t->allocator, &t->out, &t->capacity, (size_t)need, 1))
        return err_memory(e, "the text of an answer", need);
    return MINIM_OK;
}

static size_t text_held(const text_stream *t) {
    size_t most = 0;
    if (t->stopped) return 0;
    for (size_t i = 0; i < t->n_stop; i++)
        if (t->stop[i].state > most) most = t->stop[i].state;
    return most;
}

minim_status text_push(text_stream *t, const char *bytes, size_t n, const char **ready, size_t *n_ready, int *stopped,
                       minim_error *e) {
    minim_status status;
    *ready = "";
    *n_ready = 0;
    *stopped = t->stopped;
    status = text_begin(t, t->stopped ? 0 : n, e);
    if (status) return status;
    for (size_t i = 0; i < n && !t->stopped; i++) text_take_byte(t, (unsigned char)bytes[i]);
    t->n_ready = t->n_out - text_held(t);
    *ready = t->out;
    *n_ready = t->n_ready;
    *stopped = t->stopped;
    return err_ok(e);
}

minim_status text_finish(text_stream *t, const char **ready, size_t *n_ready, minim_error *e) {
    minim_status status;
    *ready = "";
    *n_ready = 0;
    status = text_begin(t, 0, e);
    if (status) return status;
    if (t->n_part) text_append(t, text_replacement, 3);
    t->n_part = 0;
    t->n_ready = t->n_out;
    *ready = t->out;
    *n_ready = t->n_ready;
    return err_ok(e);
}
