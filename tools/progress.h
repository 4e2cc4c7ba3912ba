/* progress.h: one line on the terminal that tells how far a long job is and how long it will take. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <stddef.h>

typedef struct tool_meter {
    double start, shown; /* seconds; shown 0 = there is no line */
    int enabled;
    size_t length; /* of the line */
} tool_meter;

/* The job begins; nothing is ever shown when `quiet`, or when standard error is no terminal. */
void tool_meter_begin(tool_meter *meter, int quiet);
/* fraction 0..1 is done; `what` says what is going on: "writing", "layer 3 of 22". Shown at most ten times a second. */
void tool_meter_show(tool_meter *meter, double fraction, const char *what);
/* Removes the line, for a message or at the end. */
void tool_meter_clear(tool_meter *meter);

#endif
