/* cases.h: which kernels are measured, on which shapes. */
#ifndef BENCH_CASES_H
#define BENCH_CASES_H

#include "harness.h"

enum { CASES_ISAS = 16, CASES_TYPES = 32, CASES_TOKENS = 16, CASES_MATRICES = 64 };

/* A matrix of the model, and how many there are of its shape. */
typedef struct cases_matrix {
    char name[24];
    int64_t rows, cols;
    uint32_t type; /* a kern_type, or CASES_ANY_TYPE: measure all chosen types */
    int count;
    int last; /* 1: the output matrix, which sees one token of a prompt only */
} cases_matrix;

#define CASES_ANY_TYPE UINT32_MAX

/* What is chosen on the command line, and the dimensions of the model. */
typedef struct cases_plan {
    const char *model; /* name of the shape or the file */
    int n_embd, n_ff, n_heads, n_kv_heads, head_dim;
    cases_matrix matrix[CASES_MATRICES];
    int n_matrices;
    const char *isa[CASES_ISAS];
    int n_isas;
    uint32_t type[CASES_TYPES];
    int n_types;
    int tokens[CASES_TOKENS];
    int n_tokens;
    const char *only; /* measure what has this text in its name; NULL = everything */
    int no_blas, n_threads;
} cases_plan;

typedef struct cases_list {
    harness_case *items;
    size_t n, capacity;
    int n_groups;
    kern_table table[CASES_ISAS]; /* of plan->isa */
} cases_list;

/* Sizes for harness_memory_new(). */
void cases_sizes(const cases_plan *plan, size_t *n_vector, size_t *act_values, size_t *outputs);

/* Fills an empty list. 0 or -1 when memory is short. */
int cases_make(const cases_plan *plan, const harness_memory *memory, cases_list *list);
void cases_free(cases_list *list);

/* "matmul Q4_0 ffn_gate" */
void cases_name(const harness_case *c, char *text, size_t size);

/* The limits as cases of their own: reading memory, and a peak. */
harness_case cases_read(const harness_memory *memory);
harness_case cases_peak(const harness_memory *memory, const limits_peak *peak);

#endif
