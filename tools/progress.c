/* progress.c: see progress.h. */
#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#include "common.h"

void tool_meter_begin(tool_meter *meter, int quiet) {
    *meter = (tool_meter){.start = tool_seconds(), .enabled = !quiet && isatty(STDERR_FILENO)};
}

void tool_meter_show(tool_meter *meter, double fraction, const char *what) {
    enum { WIDTH = 40 };
    static const char full[] = "########################################";
    const double now = tool_seconds(), passed = now - meter->start;
    if (!meter->enabled || passed < 0.3 || now - meter->shown < 0.1) return;
    fraction = fraction > 0 ? fraction < 1 ? fraction : 1 : 0;
    char line[160], left[32] = "";
    if (fraction > 0.01) {
        const double seconds = passed / fraction - passed;
        const unsigned long s = seconds < 1e9 ? (unsigned long)(seconds + 0.5) : 999999999;
        snprintf(left, sizeof left, ", %lu:%02lu:%02lu left", s / 3600, s / 60 % 60, s % 60);
    }
    const int n = snprintf(line, sizeof line, "%.40s [%-*.*s] %3.0f%%%s", what, WIDTH, (int)(fraction * WIDTH), full,
                           fraction * 100, left);
    const size_t length = n > 0 && (size_t)n < sizeof line ? (size_t)n : 0;
    fprintf(stderr, "\r%s%*s", line, length < meter->length ? (int)(meter->length - length) : 0, "");
    meter->length = length > meter->length ? length : meter->length;
    meter->shown = now;
}

void tool_meter_clear(tool_meter *meter) {
    if (meter->shown > 0) fprintf(stderr, "\r%*s\r", (int)meter->length, "");
    meter->shown = 0;
    meter->length = 0;
}
