/* base.c: memory, errors, checked sizes, and what the machine offers. See base.h. */
#define BASE_IMPLEMENTATION
#include "base.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ---- memory ----------------------------------------------------------------------------------------------------- */

enum { MEM_ALIGNMENT = 64 }; /* a cache line, and the widest SIMD register */

static void *mem_default_alloc(void *user, size_t size, size_t alignment) {
    void *p = NULL;
    (void)user;
    return posix_memalign(&p, alignment, size) == 0 ? p : NULL;
}

static void mem_default_free(void *user, void *pointer, size_t size) {
    (void)user;
    (void)size;
    free(pointer);
}

minim_allocator mem_allocator(const minim_allocator *a) {
    if (a && a->alloc) return *a;
    return (minim_allocator){NULL, mem_default_alloc, mem_default_free};
}

int mem_is_default(const minim_allocator *a) {
    return mem_allocator(a).alloc == mem_default_alloc;
}

/* n*size, at least 1 (so that NULL always means failure); 0 when it does not fit. */
static size_t mem_bytes(size_t n, size_t size) {
    uint64_t bytes;
    if (size_mul(n, size, &bytes) || bytes > PTRDIFF_MAX) return 0;
    return bytes ? (size_t)bytes : 1;
}

void *mem_alloc(const minim_allocator *a, size_t n, size_t size) {
    const minim_allocator use = mem_allocator(a);
    const size_t bytes = mem_bytes(n, size);
    return bytes ? use.alloc(use.user, bytes, MEM_ALIGNMENT) : NULL;
}

void *mem_zalloc(const minim_allocator *a, size_t n, size_t size) {
    void *p = mem_alloc(a, n, size);
    return p ? memset(p, 0, mem_bytes(n, size)) : NULL;
}

void *mem_alloc_huge(const minim_allocator *a, size_t bytes) {
    if (bytes < MEM_HUGE_LEAST || !mem_is_default(a)) return mem_alloc(a, bytes, 1);
    void *p = bytes > PTRDIFF_MAX ? NULL : mem_default_alloc(NULL, bytes, MEM_HUGE);
#ifdef MADV_HUGEPAGE
    if (p) madvise(p, bytes, MADV_HUGEPAGE); /* no harm done where it is refused */
#endif
    return p;
}

void mem_free(const minim_allocator *a, void *p, size_t n, size_t size) {
    const minim_allocator use = mem_allocator(a);
    /* An allocator without free() is an arena: it forgets everything at once. */
    if (p && use.free) use.free(use.user, p, mem_bytes(n, size));
}

int mem_grow(const minim_allocator *a, void *p_to_pointer, size_t *capacity, size_t need, size_t size) {
    const size_t doubled = *capacity > SIZE_MAX / 2 ? SIZE_MAX : *capacity * 2;
    const size_t grown = need > doubled ? need : doubled;
    void *before, *after;
    if (need <= *capacity) return 0;
    after = mem_alloc(a, grown, size);
    if (!after) return -1;
    /* The caller's pointer may have any type: move it as bytes, not as a void *. */
    memcpy(&before, p_to_pointer, sizeof before);
    if (before) memcpy(after, before, *capacity * size);
    mem_free(a, before, *capacity, size);
    memcpy(p_to_pointer, &after, sizeof after);
    *capacity = grown;
    return 0;
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

size_t utf8_length(const char *s, size_t n) {
    const unsigned char *u = (const unsigned char *)s;
    size_t length, i;
    if (n == 0) return 0;
    if (u[0] < 0x80) return 1;
    length = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
    if (u[0] < 0xc2 || u[0] > 0xf4 || length > n) return 0;
    for (i = 1; i < length; i++)
        if ((u[i] & 0xc0) != 0x80) return 0;
    if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xf0 && u[1] < 0x90)) return 0; /* overlong */
    if ((u[0] == 0xed && u[1] > 0x9f) || (u[0] == 0xf4 && u[1] > 0x8f)) return 0; /* surrogate; above U+10FFFF */
    return length;
}

/* ---- errors ----------------------------------------------------------------------------------------------------- */

/* Makes text safe to print in one line of a terminal: control characters (also U+0080..U+009F) and bytes that are not
 * UTF-8 become '?'. If the text was cut, half a character at its end is dropped. In place: it only gets shorter. */
static void err_clean(char *text, int cut) {
    const size_t n = strlen(text);
    size_t from = 0, to = 0;
    while (from < n) {
        const size_t length = utf8_length(text + from, n - from);
        const unsigned char first = (unsigned char)text[from], second = (unsigned char)text[from + 1];
        if (length == 0) {
            if (cut && n - from < 4 && first >= 0xc2) break;
            text[to++] = '?';
            from++;
        } else if ((length == 1 && (first < 0x20 || first == 0x7f)) || (first == 0xc2 && second < 0xa0)) {
            text[to++] = '?';
            from += length;
        } else {
            memmove(text + to, text + from, length);
            to += length;
            from += length;
        }
    }
    text[to] = 0;
}

minim_status err_set(minim_error *e, minim_status status, const char *format, ...) {
    minim_error made = {.status = status}; /* not *e itself: its text may be among the arguments */
    va_list args;
    int n;
    if (!e) return status;
    va_start(args, format);
    n = vsnprintf(made.text, sizeof made.text, format, args);
    va_end(args);
    err_clean(made.text, n >= (int)sizeof made.text);
    *e = made;
    return status;
}

minim_status err_memory(minim_error *e, const char *what, uint64_t bytes) {
    return err_set(e, MINIM_ERR_MEMORY, "out of memory: %s needs %llu bytes", what, (unsigned long long)bytes);
}

minim_status err_ok(minim_error *e) {
    if (e) {
        e->status = MINIM_OK;
        e->text[0] = 0;
    }
    return MINIM_OK;
}

/* ---- checked sizes ---------------------------------------------------------------------------------------------- */

int size_mul(uint64_t a, uint64_t b, uint64_t *out) {
    if (b && a > UINT64_MAX / b) return -1;
    *out = a * b;
    return 0;
}

int size_add(uint64_t a, uint64_t b, uint64_t *out) {
    if (a > UINT64_MAX - b) return -1;
    *out = a + b;
    return 0;
}

/* ---- the machine ------------------------------------------------------------------------------------------------ */

/* The first n-1 bytes of the small file folder/name as a string; -1 if it cannot be read. */
static int cpu_read_file(const char *folder, const char *name, char *text, size_t n) {
    char path[PATH_MAX];
    const int n_path = snprintf(path, sizeof path, "%s/%s", folder, name);
    const int fd = n_path > 0 && n_path < (int)sizeof path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    size_t have = 0;
    ssize_t got = -1;
    if (fd < 0) return -1;
    while (have < n - 1 && (got = read(fd, text + have, n - 1 - have)) > 0) have += (size_t)got;
    close(fd);
    text[have] = 0;
    return got < 0 ? -1 : 0;
}

/* quota microseconds in each period of so many, as whole CPUs; 0 when that means no limit. */
static int cpu_from_quota(long long quota, long long period) {
    if (quota <= 0 || period <= 0) return 0;
    if (quota / period >= INT_MAX) return 0;
    return (int)(quota / period + (quota % period != 0));
}

/* The quota that is set in one group's folder; 0 = none. */
static int cpu_group_quota(const char *folder) {
    char text[64];
    long long quota, period = 100000;                             /* the kernel's default period */
    if (cpu_read_file(folder, "cpu.max", text, sizeof text) == 0) /* v2: "max 100000" or two numbers */
        return sscanf(text, "%lld %lld", &quota, &period) >= 1 ? cpu_from_quota(quota, period) : 0;
    if (cpu_read_file(folder, "cpu.cfs_quota_us", text, sizeof text)) return 0; /* v1: -1 = no limit */
    if (sscanf(text, "%lld", &quota) != 1) return 0;
    if (cpu_read_file(folder, "cpu.cfs_period_us", text, sizeof text) || sscanf(text, "%lld", &period) != 1) return 0;
    return cpu_from_quota(quota, period);
}

/* The smallest quota from a group up to the mount point: a parent's limit holds for its children. In a container the
 * group's path is often the host's and not visible below the mount point; then what the mount point itself says holds.
 */
static int cpu_least_quota(const char *mount, const char *group) {
    char folder[PATH_MAX];
    const size_t n_mount = strlen(mount);
    const int n = snprintf(folder, sizeof folder, "%s%s", mount, group);
    int least = 0;
    if (n < 0 || n >= (int)sizeof folder) return 0;
    for (;;) {
        const int quota = cpu_group_quota(folder);
        char *slash = strrchr(folder + n_mount, '/');
        if (quota && (!least || quota < least)) least = quota;
        if (!slash) return least;
        *slash = 0;
    }
}

/* 1 if `name` is an item of the comma-separated list. */
static int cpu_list_has(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == 0)) return 1;
    return 0;
}

int cpu_quota(const char *root) {
    char path[PATH_MAX], text[8192], *line, *rest = text;
    int least = 0;
    if (cpu_read_file(root, "proc/self/cgroup", text, sizeof text)) return 0;
    /* A line is ID:CONTROLLERS:PATH. Version 2 is the one without controllers. */
    while ((line = strsep(&rest, "\n"))) {
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        int quota, n;
        if (!group) continue;
        *group++ = 0;
        controllers++;
        if (*controllers && !cpu_list_has(controllers, "cpu")) continue;
        /* Version 1 mounts a controller under its name; "cpu,cpuacct" has a link "cpu" beside it. */
        n = snprintf(path, sizeof path, "%s/sys/fs/cgroup%s", root, *controllers ? "/cpu" : "");
        if (n < 0 || n >= (int)sizeof path) return 0;
        quota = cpu_least_quota(path, group);
        if (quota && (!least || quota < least)) least = quota;
    }
    return least;
}

/* CPUs in the affinity mask. The call fails when the mask of the machine does not fit: one cpu_set_t holds 1024. */
static int cpu_affinity(void) {
    cpu_set_t sets[16];
    if (sched_getaffinity(0, sizeof sets, sets) == 0) return CPU_COUNT_S(sizeof sets, sets);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

int cpu_count(void) {
    const int quota = cpu_quota("");
    int n = cpu_affinity();
    if (quota && quota < n) n = quota;
    return n > 0 ? n : 1;
}

double time_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
