/* machine.h: what a measurement was made on, for the record beside its figures. */
#ifndef TOOLS_MACHINE_H
#define TOOLS_MACHINE_H

#include <stddef.h>

/* The CPU as it calls itself, "AMD EPYC 9R14" for example; else the architecture. Writes to buffer and returns it. */
const char *machine_cpu(char *buffer, size_t size);

/* Abbreviated commit of the sources, with "-dirty" when they were changed; "unknown" outside a checkout. */
const char *machine_commit(void);

/* "gcc 12.2.0" */
const char *machine_compiler(void);

/* Most memory the process has had so far, bytes. */
unsigned long long machine_peak_memory(void);

#endif
