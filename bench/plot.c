/* plot.c: draws what `bench_kernels --json` measured as a roofline (Williams, Waterman & Patterson 2009) in SVG.
 *
 * usage: plot [FILE.json [FILE.svg]]    standard input and output without them
 *
 * Across: operations for each byte of weights that is read; up: operations a second; both logarithmic. Reading memory
 * is a slope, a multiply-add instruction a level, and no point of a kernel whose weights come from memory can lie above
 * both. The products of a model are one point for each type, instruction set and number of tokens, with a bar from the
 * slowest to the fastest of its matrices. The other kernels are small rings, the fastest version of each; what they
 * work on fits the cache, so they may lie above the slope. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLOT_POINTS = 512, PLOT_PEAKS = 16, PLOT_LABELS = 512 };

typedef struct plot_point {
    const char *kernel, *type, *isa, *matrix;
    double tokens, x, y, low, high; /* operations per byte; GOPS: median, and the range of the matrices */
    int product;
} plot_point;

typedef struct plot_peak {
    const char *name;
    double gops;
} plot_peak;

typedef struct plot_box {
    double x, y, width, height;
} plot_box;

typedef struct plot {
    FILE *file;
    json_t *root; /* names point into it */
    const char *cpu, *model, *commit, *compiler;
    double threads, read_gbs;
    plot_peak peak[PLOT_PEAKS];
    plot_point point[PLOT_POINTS];
    const char *isa[16], *type[16]; /* in the order of their first appearance */
    int n_peaks, n_points, n_isas, n_types;
    double x0, x1, y0, y1;       /* the axes, in powers of 10 */
    plot_box taken[PLOT_LABELS]; /* by labels */
    int n_taken;
} plot;

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static const char *plot_text(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static double plot_number(const json_t *object, const char *name) {
    return json_number_value(json_object_get(object, name));
}

static double plot_median(const json_t *object, const char *name) {
    return plot_number(json_object_get(object, name), "median");
}

static void plot_add_name(const char **names, int *n, const char *name) {
    for (int i = 0; i < *n; i++) {
        if (!strcmp(names[i], name)) return;
    }
    if (*n < 16) names[(*n)++] = name;
}

static int plot_index(const char *const *names, int n, const char *name) {
    int i = 0;
    while (i + 1 < n && strcmp(names[i], name) != 0) i++;
    return i;
}

static void plot_add(plot *p, plot_point point) {
    if (p->n_points == PLOT_POINTS || !(point.x > 0) || !(point.y > 0)) return;
    p->point[p->n_points++] = point;
    plot_add_name(p->isa, &p->n_isas, point.isa);
    if (point.product) plot_add_name(p->type, &p->n_types, point.type);
}

static int plot_is_product(const json_t *result) {
    const char *kernel = plot_text(result, "kernel");
    return !strcmp(kernel, "matmul") || !strcmp(kernel, "sgemv") || !strcmp(kernel, "sgemm");
}

/* The range over the matrices of a total. */
static void plot_find_range(const json_t *results, plot_point *point) {
    size_t i;
    json_t *result;
    json_array_foreach(results, i, result) {
        if (!plot_is_product(result) || strcmp(plot_text(result, "type"), point->type) != 0 ||
            strcmp(plot_text(result, "isa"), point->isa) != 0 || plot_number(result, "tokens") != point->tokens)
            continue;
        double gops = plot_median(result, "gops");
        if (gops < point->low) point->low = gops;
        if (gops > point->high) point->high = gops;
    }
}

static void plot_read_totals(plot *p, const json_t *totals, const json_t *results) {
    size_t i;
    json_t *total;
    json_array_foreach(totals, i, total) {
        plot_point point = {.kernel = "matmul", .matrix = "", .product = 1};
        point.type = plot_text(total, "type");
        point.isa = plot_text(total, "isa");
        point.tokens = plot_number(total, "tokens");
        point.y = point.low = point.high = plot_number(total, "gops");
        point.x = point.y / plot_number(total, "gbs");
        plot_find_range(results, &point);
        plot_add(p, point);
    }
}

/* Of each other kernel the fastest version. */
static void plot_read_others(plot *p, const json_t *results) {
    size_t i;
    json_t *result;
    json_array_foreach(results, i, result) {
        if (plot_is_product(result)) continue;
        plot_point point = {.kernel = plot_text(result, "kernel"), .matrix = ""};
        point.type = plot_text(result, "type");
        point.isa = plot_text(result, "isa");
        point.tokens = plot_number(result, "tokens");
        point.x = plot_number(result, "ops_per_byte");
        point.y = plot_median(result, "gops");
        plot_point *last = p->n_points ? &p->point[p->n_points - 1] : NULL;
        int same = last && !last->product && !strcmp(last->kernel, point.kernel) && !strcmp(last->type, point.type) &&
                   last->tokens == point.tokens;
        if (!same)
            plot_add(p, point);
        else if (point.y > last->y)
            *last = point;
    }
}

static int plot_read(plot *p, const char *path) {
    json_error_t error;
    p->root = path ? json_load_file(path, 0, &error) : json_loadf(stdin, 0, &error);
    if (!p->root) {
        fprintf(stderr, "plot: %s: line %d: %s\n", path ? path : "standard input", error.line, error.text);
        return -1;
    }
    const json_t *limits = json_object_get(p->root, "limits"), *results = json_object_get(p->root, "results");
    p->cpu = plot_text(p->root, "cpu");
    p->model = plot_text(p->root, "model");
    p->commit = plot_text(p->root, "commit");
    p->compiler = plot_text(p->root, "compiler");
    p->threads = plot_number(p->root, "threads");
    p->read_gbs = plot_median(limits, "read_gbs");
    size_t i;
    json_t *peak;
    json_array_foreach(json_object_get(limits, "peaks"), i, peak) {
        if (p->n_peaks < PLOT_PEAKS)
            p->peak[p->n_peaks++] = (plot_peak){plot_text(peak, "name"), plot_median(peak, "gops")};
    }
    plot_read_totals(p, json_object_get(p->root, "totals"), results);
    plot_read_others(p, results);
    if (p->n_points && p->read_gbs > 0) return 0;
    fprintf(stderr, "plot: %s: expected the output of bench_kernels --json, with kernels\n",
            path ? path : "standard input");
    return -1;
}

/* ---- coordinates ------------------------------------------------------------------------------------------------- */

enum { WIDTH = 1010, HEIGHT = 700, LEFT = 74, RIGHT = 832, TOP = 66, BOTTOM = 570 };

static double plot_x(const plot *p, double x) {
    return LEFT + (log10(x) - p->x0) / (p->x1 - p->x0) * (RIGHT - LEFT);
}

static double plot_y(const plot *p, double y) {
    return BOTTOM - (log10(y) - p->y0) / (p->y1 - p->y0) * (BOTTOM - TOP);
}

static void plot_choose_axes(plot *p) {
    double x0 = 1e9, x1 = 0, y0 = 1e9, y1 = 0;
    for (int i = 0; i < p->n_points; i++) {
        const plot_point *point = &p->point[i];
        x0 = fmin(x0, point->x), x1 = fmax(x1, point->x);
        y0 = fmin(y0, point->product ? point->low : point->y), y1 = fmax(y1, point->product ? point->high : point->y);
    }
    for (int i = 0; i < p->n_peaks; i++) y1 = fmax(y1, p->peak[i].gops);
    p->x0 = log10(x0) - 0.2, p->x1 = log10(x1) + 0.35;
    p->y0 = log10(y0) - 0.2, p->y1 = log10(y1) + 0.2;
}

/* ---- labels ------------------------------------------------------------------------------------------------------ */

static void plot_escape(FILE *file, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '&': fputs("&amp;", file); break;
        case '<': fputs("&lt;", file); break;
        case '>': fputs("&gt;", file); break;
        default: putc(*text, file); break;
        }
    }
}

static void plot_write(const plot *p, double x, double y, const char *class, const char *anchor, const char *text) {
    fprintf(p->file, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">", x, y, class, anchor);
    plot_escape(p->file, text);
    fputs("</text>\n", p->file);
}

static int plot_is_free(const plot *p, plot_box box) {
    if (box.x < LEFT || box.x + box.width > RIGHT + 4 || box.y < TOP || box.y + box.height > BOTTOM) return 0;
    for (int i = 0; i < p->n_taken; i++) {
        const plot_box *b = &p->taken[i];
        if (box.x < b->x + b->width && b->x < box.x + box.width && box.y < b->y + b->height &&
            b->y < box.y + box.height)
            return 0;
    }
    return 1;
}

static void plot_take(plot *p, plot_box box) {
    if (p->n_taken < PLOT_LABELS) p->taken[p->n_taken++] = box;
}

/* A label beside the point (x, y), where no other is; left out when there is no room. */
static void plot_label(plot *p, double x, double y, const char *class, const char *text) {
    /* Letters are about this wide in the fonts of the style; there is no way to ask. */
    const double letter = strcmp(class, "small") ? 7.4 : 6.3;
    const double width = letter * (double)strlen(text) + 2, height = 12, gap = 7;
    const struct {
        double x, y; /* of the box's upper left corner */
    } place[] = {
        {x + gap, y - height / 2},         {x - width / 2, y - gap - height},     {x - width / 2, y + gap},
        {x - gap - width, y - height / 2}, {x + gap, y - gap - height},           {x + gap, y + gap},
        {x - gap - width, y + gap},        {x - gap - width, y - gap - height},   {x - width / 2, y - 2 * gap - height},
        {x - width / 2, y + 2 * gap},      {x + 3 * gap, y - 1.2 * gap - height}, {x + 3 * gap, y + 1.2 * gap},
    };
    for (size_t i = 0; i < sizeof place / sizeof *place; i++) {
        plot_box box = {place[i].x, place[i].y, width, height};
        if (!plot_is_free(p, box)) continue;
        plot_take(p, box);
        plot_write(p, box.x + 1, box.y + 10, class, "start", text);
        return;
    }
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

/* Colours that people with any colour vision can tell apart (Okabe & Ito 2008), on light and dark pages. */
static const char *const plot_colours[] = {"#8b949e", "#e69f00", "#1f8fd6", "#009e73", "#d55e00", "#cc79a7", "#b3a125"};

static const char *plot_colour(const plot *p, const char *isa) {
    const int n = sizeof plot_colours / sizeof *plot_colours;
    return plot_colours[plot_index(p->isa, p->n_isas, isa) % n];
}

static void plot_head(const plot *p) {
    fprintf(
        p->file,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n",
        WIDTH, HEIGHT, WIDTH, HEIGHT);
    fputs(
        "<style>\n"
        "text { font-family: system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', "
        "sans-serif; font-size: 12px; fill: #6e7781 }\n"
        ".title { font-size: 17px; font-weight: 600; fill: #444c56 }\n"
        ".axis { font-size: 13px; fill: #57606a }\n"
        ".roof { font-size: 12px; fill: #57606a }\n"
        ".strong { fill: #444c56; font-weight: 600 }\n"
        ".small { font-size: 10.5px }\n"
        ".grid { stroke: #8b949e; stroke-opacity: 0.18; stroke-width: 1 }\n"
        ".fine { stroke-opacity: 0.09 }\n"
        ".limit { stroke: #6e7781; stroke-width: 1.6; fill: none }\n"
        ".level { stroke-dasharray: 6 4; stroke-width: 1.2; stroke-opacity: 0.6 }\n"
        "@media (prefers-color-scheme: dark) {\n"
        "  text { fill: #9198a1 } .axis, .roof { fill: #adbac7 } .title, .strong { fill: #cdd9e5 }\n"
        "  .limit { stroke: #adbac7 }\n"
        "}\n"
        "</style>\n",
        p->file);
    char text[512];
    snprintf(text, sizeof text, "minim's kernels under the roofline of %s", p->cpu);
    plot_write(p, LEFT, 28, "title", "start", text);
    snprintf(text, sizeof text, "matrices of %s, %.0f thread%s, commit %s, %s", p->model, p->threads,
             p->threads > 1 ? "s" : "", p->commit, p->compiler);
    plot_write(p, LEFT, 48, "", "start", text);
}

static void plot_tick_text(char *text, size_t size, double value) {
    if (value >= 1000)
        snprintf(text, size, "%.0f 000", value / 1000);
    else
        snprintf(text, size, "%g", value);
}

/* Lines at 1, 2, 5 times the powers of ten of one axis; numbers at the powers. */
static void plot_grid(const plot *p, int across) {
    static const double steps[] = {1, 2, 5};
    double low = across ? p->x0 : p->y0, high = across ? p->x1 : p->y1;
    for (int power = (int)floor(low); power <= (int)ceil(high); power++) {
        for (int i = 0; i < 3; i++) {
            double value = steps[i] * pow(10, power), at = log10(value);
            if (at < low || at > high) continue;
            double x = across ? plot_x(p, value) : LEFT, y = across ? BOTTOM : plot_y(p, value);
            fprintf(p->file, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"grid%s\"/>\n", x, y,
                    across ? x : RIGHT, across ? TOP : y, i ? " fine" : "");
            char text[32];
            plot_tick_text(text, sizeof text, value);
            if (i == 0 && across) plot_write(p, x, BOTTOM + 20, "", "middle", text);
            if (i == 0 && !across) plot_write(p, LEFT - 9, y + 4, "", "end", text);
        }
    }
}

static void plot_axes(const plot *p) {
    plot_grid(p, 1);
    plot_grid(p, 0);
    plot_write(p, (LEFT + RIGHT) / 2.0, BOTTOM + 46, "axis", "middle",
               "operations per byte of weights read (products), or of all bytes touched (the others)");
    fprintf(
        p->file,
        "<text class=\"axis\" text-anchor=\"middle\" transform=\"translate(22 %.0f) rotate(-90)\">GOPS (a multiply-add "
        "is two operations)</text>\n",
        (TOP + BOTTOM) / 2.0);
}

/* The peak of rank i, the highest first. */
static int plot_peak_rank(const plot *p, int rank) {
    for (int i = 0;; i++) {
        int higher = 0;
        for (int k = 0; k < p->n_peaks; k++) {
            higher += p->peak[k].gops > p->peak[i].gops || (k < i && !(p->peak[k].gops < p->peak[i].gops));
        }
        if (higher == rank || i + 1 == p->n_peaks) return i;
    }
}

static void plot_roof(plot *p) {
    double top = 0, left = pow(10, p->x0), right = pow(10, p->x1), bottom = pow(10, p->y0);
    for (int i = 0; i < p->n_peaks; i++) top = fmax(top, p->peak[i].gops);
    if (!(top > 0)) top = pow(10, p->y1);
    double start = fmax(left, bottom / p->read_gbs), knee = fmin(top / p->read_gbs, right);
    fprintf(p->file, "<path class=\"limit\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", plot_x(p, start),
            plot_y(p, start * p->read_gbs), plot_x(p, knee), plot_y(p, knee * p->read_gbs));
    double below = TOP; /* the names stand beside the levels, one under the other where these are close */
    for (int i = 0; i < p->n_peaks; i++) {
        const plot_peak *peak = &p->peak[plot_peak_rank(p, i)];
        double y = plot_y(p, peak->gops), x = plot_x(p, fmax(left, peak->gops / p->read_gbs));
        char text[96];
        fprintf(p->file, "<path class=\"limit%s\" d=\"M%.1f %.1fH%d\"/>\n", peak->gops < top ? " level" : "", x, y,
                RIGHT);
        snprintf(text, sizeof text, "%s, %.0f", peak->name, peak->gops);
        below = fmax(y + 4, below + 14);
        plot_write(p, RIGHT + 8, below, "roof", "start", text);
    }
    char text[64];
    snprintf(text, sizeof text, "reading memory, %.1f GB/s", p->read_gbs);
    double slope = atan2(plot_y(p, 1) - plot_y(p, 10), plot_x(p, 10) - plot_x(p, 1)) * 180 / acos(-1);
    double x = knee * pow(10, -0.08); /* the upper end is where the fewest points lie */
    fprintf(p->file,
            "<text class=\"roof\" text-anchor=\"end\" transform=\"translate(%.1f %.1f) rotate(%.1f)\">%s</text>\n",
            plot_x(p, x) - 5, plot_y(p, x * p->read_gbs) - 7, -slope, text);
    const double angle = slope * acos(-1) / 180;
    for (int i = 0; i < (int)(0.8 * (double)strlen(text)); i++) { /* other labels keep off it */
        double across = 8 * i * cos(angle), down = 8 * i * sin(angle);
        plot_take(p, (plot_box){plot_x(p, x) - 15 - across, plot_y(p, x * p->read_gbs) - 18 + down, 10, 14});
    }
}

/* The mark of a weight type; size is half its width. */
static void plot_mark(const plot *p, double x, double y, const char *type, const char *colour, double s) {
    switch (plot_index(p->type, p->n_types, type) % 5) {
    case 0: fprintf(p->file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"", x, y, s); break;
    case 1:
        fprintf(p->file, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"", x - 0.9 * s, y - 0.9 * s,
                1.8 * s, 1.8 * s);
        break;
    case 2: fprintf(p->file, "<path d=\"M%.1f %.1fl%.1f %.1fh%.1fz\"", x, y - 1.1 * s, 1.1 * s, 2 * s, -2.2 * s); break;
    case 3:
        fprintf(p->file, "<path d=\"M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz\"", x, y - 1.3 * s, 1.3 * s, 1.3 * s,
                -1.3 * s, 1.3 * s, -1.3 * s, -1.3 * s);
        break;
    default:
        fprintf(p->file, "<path d=\"M%.1f %.1fl%.1f %.1fh%.1fz\"", x, y + 1.1 * s, 1.1 * s, -2 * s, -2.2 * s);
        break;
    }
    fprintf(p->file, " fill=\"%s\"/>\n", colour);
}

static void plot_draw_product(plot *p, const plot_point *point) {
    const char *colour = plot_colour(p, point->isa);
    double x = plot_x(p, point->x), y = plot_y(p, point->y);
    if (point->high > point->low * 1.02) {
        fprintf(p->file, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"%s\" stroke-width=\"2\" stroke-opacity=\"0.55\"/>\n", x,
                plot_y(p, point->low), plot_y(p, point->high), colour);
    }
    plot_mark(p, x, y, point->type, colour, 5);
    plot_take(p, (plot_box){x - 5, y - 5, 10, 10});
}

static void plot_draw_other(plot *p, const plot_point *point) {
    double x = plot_x(p, point->x), y = plot_y(p, point->y);
    fprintf(p->file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"/>\n", x,
            y, plot_colour(p, point->isa));
    plot_take(p, (plot_box){x - 3, y - 3, 6, 6});
}

static void plot_draw_points(plot *p) {
    for (int i = 0; i < p->n_points; i++) {
        if (p->point[i].product)
            plot_draw_product(p, &p->point[i]);
        else
            plot_draw_other(p, &p->point[i]);
    }
}

/* The name of a product stands at its highest point; the name of another kernel beside it. */
static void plot_draw_labels(plot *p) {
    char text[64];
    for (int i = 0; i < p->n_points; i++) {
        const plot_point *point = &p->point[i];
        int highest = point->product;
        for (int k = 0; k < p->n_points; k++) {
            const plot_point *other = &p->point[k];
            highest &= !(other->product && !strcmp(other->type, point->type) && other->tokens == point->tokens &&
                         other->y > point->y);
        }
        if (!highest) continue;
        snprintf(text, sizeof text, "%s, %.0f", point->type, point->tokens);
        plot_label(p, plot_x(p, point->x), plot_y(p, fmax(point->high, point->y)), "strong", text);
    }
    for (int i = 0; i < p->n_points; i++) {
        const plot_point *point = &p->point[i];
        if (point->product) continue;
        int attention = !strcmp(point->kernel, "qk") || !strcmp(point->kernel, "pv");
        if (attention)
            snprintf(text, sizeof text, "%s %s, %.0f", point->kernel, point->type, point->tokens);
        else
            snprintf(text, sizeof text, "%s", point->kernel);
        plot_label(p, plot_x(p, point->x), plot_y(p, point->y), "small", text);
    }
}

static void plot_legend(const plot *p) {
    const double step = 108, from = LEFT + 120;
    double y = BOTTOM + 76, x = from;
    plot_write(p, LEFT, y, "strong", "start", "instruction set");
    for (int i = 0; i < p->n_isas; i++, x += step) {
        fprintf(p->file, "<rect x=\"%.1f\" y=\"%.1f\" width=\"14\" height=\"4\" rx=\"2\" fill=\"%s\"/>\n", x, y - 6,
                plot_colour(p, p->isa[i]));
        plot_write(p, x + 21, y, "", "start", p->isa[i]);
    }
    x = from;
    y += 22;
    plot_write(p, LEFT, y, "strong", "start", "weights");
    for (int i = 0; i < p->n_types; i++, x += step) {
        plot_mark(p, x + 7, y - 4, p->type[i], plot_colours[0], 5);
        plot_write(p, x + 21, y, "", "start", p->type[i]);
    }
    fprintf(p->file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"/>\n",
            x + 7, y - 4, plot_colours[0]);
    plot_write(p, x + 21, y, "", "start", "other kernels");
    plot_write(
        p, LEFT, y + 24, "small", "start",
        "\"Q4_0, 512\": the products of Q4_0 matrices with 512 tokens at a time. Bars reach from the slowest matrix of "
        "the model to the fastest. Other kernels: the fastest version.");
}

static void plot_draw(plot *p) {
    plot_choose_axes(p);
    plot_head(p);
    plot_axes(p);
    plot_roof(p);
    plot_draw_points(p);
    plot_draw_labels(p);
    plot_legend(p);
    fputs("</svg>\n", p->file);
}

/* 0, or -1 after a message. */
static int plot_save(plot *p, const char *path) {
    int failed = 1;
    p->file = path ? fopen(path, "w") : stdout;
    if (p->file) {
        plot_draw(p);
        failed = fflush(p->file) != 0;
        if (path && fclose(p->file)) failed = 1;
    }
    if (failed) fprintf(stderr, "plot: %s: %s\n", path ? path : "standard output", strerror(errno));
    return failed ? -1 : 0;
}

int main(int argc, char **argv) {
    static plot p;
    if (argc > 3 || (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))) {
        fputs("usage: plot [FILE.json [FILE.svg]]\n\nDraws the output of bench_kernels --json.\n",
              argc > 3 ? stderr : stdout);
        return argc > 3 ? 2 : 0;
    }
    int failed = plot_read(&p, argc > 1 ? argv[1] : NULL);
    if (!failed) failed = plot_save(&p, argc > 2 ? argv[2] : NULL);
    json_decref(p.root);
    return failed ? 1 : 0;
}
