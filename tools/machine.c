/* machine.c: see machine.h. */
#include "machine.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#ifndef MINIM_COMMIT /* set by the Makefile */
#define MINIM_COMMIT ""
#endif

/* The value of a line "name : value" of /proc/cpuinfo; NULL when the line has another name. */
static char *machine_value(char *line, const char *name) {
    size_t n = strlen(name);
    char *value = strchr(line, ':');
    if (strncmp(line, name, n) != 0 || !value || line[n + strspn(line + n, " \t")] != ':') return NULL;
    value += 1 + strspn(value + 1, " \t");
    value[strcspn(value, "\n")] = 0;
    return value;
}

const char *machine_cpu(char *buffer, size_t size) {
    char line[1024], *value = NULL;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && !value && fgets(line, sizeof line, file)) {
        value = machine_value(line, "model name");        /* x86 */
        if (!value) value = machine_value(line, "Model"); /* Raspberry Pi and others */
        if (value) snprintf(buffer, size, "%s", value);
    }
    if (file) fclose(file);
    struct utsname name;
    if (!value) snprintf(buffer, size, "%s", uname(&name) ? "unknown" : name.machine);
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

unsigned long long machine_peak_memory(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage)) return 0;
#if defined(__APPLE__)
    return (unsigned long long)usage.ru_maxrss;
#else
    return (unsigned long long)usage.ru_maxrss * 1024;
#endif
}
