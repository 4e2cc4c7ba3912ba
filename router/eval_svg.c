/* eval_svg.c: quality over the share of prompts sent away, as an SVG image. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "minim_route_learn.h"
#include "support.h"

enum { SVG_WIDTH = 760, SVG_HEIGHT = 480, SVG_LEFT = 70, SVG_RIGHT = 180, SVG_TOP = 30, SVG_BOTTOM = 60, SVG_MOST = 8 };

typedef struct svg_frame {
    FILE *file;
    double low, high; /* quality at the lower and upper edge */
} svg_frame;

static double svg_x(double share) {
    return SVG_LEFT + share * (SVG_WIDTH - SVG_LEFT - SVG_RIGHT);
}

static double svg_y(const svg_frame *frame, double quality) {
    double t = (quality - frame->low) / (frame->high - frame->low);
    return SVG_HEIGHT - SVG_BOTTOM - t * (SVG_HEIGHT - SVG_TOP - SVG_BOTTOM);
}

/* A name as text of an XML document; control characters would make it invalid. */
static void svg_text(FILE *file, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '<': fputs("&lt;", file); break;
        case '>': fputs("&gt;", file); break;
        case '&': fputs("&amp;", file); break;
        default: fputc((unsigned char)*text < 0x20 ? ' ' : *text, file);
        }
    }
}

/* One curve and its line in the legend. */
static void svg_curve(const svg_frame *frame, const double *quality, const char *colour, const char *dashes,
                      const char *name, int row) {
    FILE *f = frame->file;
    double x = SVG_WIDTH - SVG_RIGHT + 15, y = SVG_TOP + 10 + 20 * row;
    fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s points=\"", colour, dashes);
    for (int i = 0; i < MINIM_ROUTE_CURVE; i++) {
        fprintf(f, "%s%.1f,%.1f", i ? " " : "", svg_x(i / (double)(MINIM_ROUTE_CURVE - 1)), svg_y(frame, quality[i]));
    }
    fputs("\"/>\n", f);
    fprintf(f, "<line x1=\"%.0f\" y1=\"%.0f\" x2=\"%.0f\" y2=\"%.0f\" stroke=\"%s\" stroke-width=\"2\"%s/>\n", x, y,
            x + 24, y, colour, dashes);
    fprintf(f, "<text x=\"%.0f\" y=\"%.0f\">", x + 30, y + 4);
    svg_text(f, name);
    fputs("</text>\n", f);
}

static void svg_axes(const svg_frame *frame) {
    FILE *f = frame->file;
    for (int i = 0; i <= 5; i++) {
        double share = i / 5.0, quality = frame->low + share * (frame->high - frame->low);
        double x = svg_x(share), y = svg_y(frame, quality);
        fprintf(f, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", x, SVG_TOP, x,
                SVG_HEIGHT - SVG_BOTTOM);
        fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f %%</text>\n", x, SVG_HEIGHT - SVG_BOTTOM + 18,
                100 * share);
        fprintf(f, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", SVG_LEFT, y,
                SVG_WIDTH - SVG_RIGHT, y);
        fprintf(f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3f</text>\n", SVG_LEFT - 8, y + 4, quality);
    }
    fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">prompts sent to the remote model</text>\n", svg_x(0.5),
            SVG_HEIGHT - 18);
    fprintf(f, "<text transform=\"translate(18 %d) rotate(-90)\" text-anchor=\"middle\">mean quality</text>\n",
            (SVG_TOP + SVG_HEIGHT - SVG_BOTTOM) / 2);
}

static void svg_write(FILE *file, const minim_route_report *const *reports, const char *const *names, size_t n) {
    static const char *const colours[SVG_MOST] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                  "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f"};
    svg_frame frame = {.file = file, .low = 1, .high = 0};
    double random[MINIM_ROUTE_CURVE];
    const minim_route_report *first = reports[0];
    for (size_t k = 0; k < n; k++) {
        for (int i = 0; i < MINIM_ROUTE_CURVE; i++) {
            frame.low = fmin(frame.low, reports[k]->quality[i]);
            frame.high = fmax(frame.high, fmax(reports[k]->quality[i], first->oracle_quality[i]));
        }
    }
    if (!(frame.high > frame.low)) frame.high = frame.low + 1;
    for (int i = 0; i < MINIM_ROUTE_CURVE; i++) {
        random[i] = first->weak_mean + (first->strong_mean - first->weak_mean) * i / (MINIM_ROUTE_CURVE - 1);
    }
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
            SVG_WIDTH, SVG_HEIGHT, SVG_WIDTH, SVG_HEIGHT);
    svg_axes(&frame);
    svg_curve(&frame, first->oracle_quality, "#999", " stroke-dasharray=\"2 3\"", "oracle", 0);
    svg_curve(&frame, random, "#999", " stroke-dasharray=\"8 4\"", "random", 1);
    for (size_t k = 0; k < n; k++) svg_curve(&frame, reports[k]->quality, colours[k], "", names[k], 2 + (int)k);
    fputs("</svg>\n", file);
}

minim_status minim_route_write_svg(const char *path, const minim_route_report *const *reports, const char *const *names,
                                   size_t n, minim_error *error) {
    char *text = NULL;
    size_t size = 0;
    if (!path || !reports || !names || !n || n > SVG_MOST) {
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_write_svg: NULL, or not 1..%d reports", SVG_MOST);
    }
    for (size_t k = 0; k < n; k++) {
        if (reports[k] && reports[k]->size >= sizeof *reports[k] && names[k]) continue;
        return router_fail(error, MINIM_ERR_ARGUMENT, "minim_route_write_svg: report %zu is NULL or too small", k);
    }
    FILE *file = open_memstream(&text, &size);
    if (!file) return router_fail_memory(error, path);
    svg_write(file, reports, names, n);
    int failed = ferror(file);
    failed |= fclose(file) != 0;
    minim_status status = failed ? router_fail_memory(error, path) : router_write_file(path, text, size, error);
    free(text);
    return status;
}
