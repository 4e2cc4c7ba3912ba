/* machine.c: see machine.h. */
#include "machine.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#ifndef MINIM_COMMIT /* set by the Makefile */
#define MINIM_COMMIT ""
#endif
#ifndef MINIM_CFLAGS
#define MINIM_CFLAGS ""
#endif

/* The value of the first line "name : value" of /proc/cpuinfo with one of two names. Writes to buffer; 0 if it is
 * there. */
static int machine_find(const char *name, const char *other, char *buffer, size_t size) {
    static char line[16384]; /* the list of a CPU's features is long */
    FILE *file = fopen("/proc/cpuinfo", "r");
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        size_t n = strcspn(line, "\t:");
        const char *value = strchr(line, ':');
        if (!value ||
            !((n == strlen(name) && !strncmp(line, name, n)) || (n == strlen(other) && !strncmp(line, other, n))))
            continue;
        value += 1 + strspn(value + 1, " ");
        snprintf(buffer, size, "%.*s", (int)strcspn(value, "\n"), value);
        found = 1;
    }
    if (file) fclose(file);
    return found ? 0 : -1;
}

const char *machine_cpu(char *buffer, size_t size) {
    struct utsname name;
    if (!machine_find("model name", "Model", buffer, size)) return buffer; /* x86; Raspberry Pi and others */
    snprintf(buffer, size, "%s", uname(&name) ? "unknown" : name.machine);
    return buffer;
}

const char *machine_cpu_flags(char *buffer, size_t size) {
    *buffer = 0;
    machine_find("flags", "Features", buffer, size); /* x86; Arm */
    return buffer;
}

const char *machine_commit(void) {
    return *MINIM_COMMIT ? MINIM_COMMIT : "unknown";
}

const char *machine_compiler(void) {
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown";
#endif
}

const char *machine_compiler_flags(void) {
    return MINIM_CFLAGS;
}

unsigned long long machine_peak_memory(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage)) return 0;
#if defined(__APPLE__)
    return (unsigned long long)usage.ru_maxrss;
#else
    return (unsigned long long)usage.ru_maxrss * 1024;
#endif
}
