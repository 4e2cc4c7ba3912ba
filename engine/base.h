/* base.h: what every file of the engine uses: memory through the caller's allocator, errors, checked sizes. */
#ifndef ENGINE_BASE_H
#define ENGINE_BASE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "minim.h"

/* ---- memory ----------------------------------------------------------------------------------------------------- */

enum { MEM_HUGE = 2 << 20, MEM_HUGE_LEAST = 4 * MEM_HUGE }; /* bytes: a huge page; see mem_alloc_huge() */

/* The caller's allocator, or malloc when *a is NULL or all zero. Every block is 64-byte aligned. */
minim_allocator mem_allocator(const minim_allocator *a);
/* 1 if that is malloc. */
int mem_is_default(const minim_allocator *a);
/* Not cleared. NULL when it fails or n*size does not fit. A size of 0 gives a valid block of one byte. */
void *mem_alloc(const minim_allocator *a, size_t n, size_t size);
void *mem_zalloc(const minim_allocator *a, size_t n, size_t size);
/* For a block of many megabytes that is read again and again: on huge pages where the system has them and malloc is the
 * allocator, from MEM_HUGE_LEAST bytes on. NULL as mem_alloc(); freed with mem_free(a, p, bytes, 1). */
void *mem_alloc_huge(const minim_allocator *a, size_t bytes);
/* NULL is fine; n and size as given to mem_alloc. */
void mem_free(const minim_allocator *a, void *p, size_t n, size_t size);
/* Grows *p from *capacity to at least `need` elements, at least doubling; 0 or -1 (then nothing changed). */
int mem_grow(const minim_allocator *a, void *p_to_pointer, size_t *capacity, size_t need, size_t size);

/* ---- errors ----------------------------------------------------------------------------------------------------- */

#if defined(__GNUC__)
#define BASE_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define BASE_PRINTF(f, a)
#endif

/* Sets *e (may be NULL) and returns status, so that a function can `return err_set(...)`. Control characters that came
 * from a file are shown as '?', so a text is always one line. e->text itself may be an argument. */
minim_status err_set(minim_error *e, minim_status status, const char *format, ...) BASE_PRINTF(3, 4);
minim_status err_memory(minim_error *e, const char *what, uint64_t bytes);
minim_status err_ok(minim_error *e);

/* The static analyzer does not look into another file, so it is told here what comes back. */
#if defined(__clang_analyzer__) && !defined(BASE_IMPLEMENTATION)
#define err_set(e, status, ...) (err_set(e, status, __VA_ARGS__), (status))
#define err_memory(...)         (err_memory(__VA_ARGS__), MINIM_ERR_MEMORY)
#endif

/* ---- text ------------------------------------------------------------------------------------------------------- */

/* Bytes (1..4) of the UTF-8 character at s[0..n), 0 if there is no valid one (RFC 3629: no overlong forms, surrogates
 * or numbers above U+10FFFF). */
size_t utf8_length(const char *s, size_t n);

/* ---- checked sizes ---------------------------------------------------------------------------------------------- */

/* 0 and *out = a op b, or -1 when it does not fit. */
int size_mul(uint64_t a, uint64_t b, uint64_t *out);
int size_add(uint64_t a, uint64_t b, uint64_t *out);

/* ---- the machine ------------------------------------------------------------------------------------------------ */

/* CPUs this process may use: affinity mask, then cgroup quota rounded up; at least 1. */
int cpu_count(void);
/* The cgroup quota alone (v2 cpu.max, v1 cfs; the smallest of this process's group and its parents), rounded up; 0 =
 * none. `root` stands before /proc and /sys, "" for the real ones. */
int cpu_quota(const char *root);
/* Monotonic seconds. */
double time_now(void);

#endif
