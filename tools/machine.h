/* machine.h: what a measurement was made on, for the record beside its figures. */
#ifndef TOOLS_MACHINE_H
#define TOOLS_MACHINE_H

#include <stddef.h>

/* The CPU as it calls itself, "AMD EPYC 9R14" for example; else the architecture. Writes to buffer and returns it. */
const char *machine_cpu(char *buffer, size_t size);

/* Abbreviated commit of the sources, with "-dirty" when they were changed; "unknown" outside a checkout. */
const char *machine_commit(void);

/* What the CPU can do in the system's words, "fpu vme ... avx512_vnni"; "" when the system does not tell. */
const char *machine_cpu_flags(char *buffer, size_t size);

/* "gcc 12.2.0", and the optimisation it was told to do. */
const char *machine_compiler(void);
const char *machine_compiler_flags(void);

/* Most memory the process has had so far, bytes. */
unsigned long long machine_peak_memory(void);

#endif
