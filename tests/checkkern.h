/* checkkern.h: what the files of checkkern share: random cases, guarded memory, the record of what a kernel wrote (all
 * in checkkern.c), and the checks. */
#ifndef TESTS_CHECKKERN_H
#define TESTS_CHECKKERN_H

#include "../kernels/kernels.h"

/* ---- random cases ------------------------------------------------------------------------------------------------ */

extern uint64_t random_state;

uint32_t random_u32(void);
int64_t random_between(int64_t low, int64_t high);

float float_of_bits(uint32_t bits);
uint32_t bits_of_float(float v);

/* What a case draws its values from. */
enum { TAME, WIDE, TINY, SPECIAL, VALUE_KINDS };

int random_kind(void);
float random_tame(void);
float random_float(int kind);
uint16_t random_f16(int kind);

/* The seed of a case, for random_state. */
uint64_t case_seed(uint64_t seed, int check, int number);

/* ---- slots: guarded memory --------------------------------------------------------------------------------------- */

/* Memory for a buffer of the case: all poison. `unit` is the alignment its type needs. */
void *slot_take(int i, size_t bytes, size_t unit);
float *slot_floats(int i, int64_t n, int kind);
/* An output: poison that must be overwritten or, where nothing belongs, stay. */
float *slot_output(int i, int64_t n);

/* Looks at all guards; the slots are free again. */
void slots_verify(void);

/* ---- records ----------------------------------------------------------------------------------------------------- */

void record_word(uint32_t w);
void record_bytes(const int8_t *p, int64_t n);
void record_floats(const float *p, int64_t n);
/* [rows][cols] floats, ld apart; the gap between rows must still be poison. */
void record_matrix(const float *p, int64_t rows, int64_t cols, int64_t ld);

/* ---- what runs, and what came of it ------------------------------------------------------------------------------ */

extern const char *check_op, *check_isa; /* what runs, for the handler of a crash */
extern uint32_t check_type;              /* of the check that runs: its .type */
extern int check_damage;                 /* a guard was overwritten */
extern int check_range;                  /* a code is out of range */

/* Prints a line and counts it. */
void report(int ok, const char *op, const char *isa, const char *detail);

/* ---- the checks: checkkern_products.c ---------------------------------------------------------------------------- */

void check_matmul_f32(const kern_table *k);
void check_matmul_f16(const kern_table *k);
void check_matmul_bf16(const kern_table *k);
void check_matmul_q4_0(const kern_table *k);
void check_matmul_q8_0(const kern_table *k);
void check_matmul_blocks(const kern_table *k);

/* These report for themselves, a line for each type. */
void check_packing(void);
void check_packing_of(const kern_table *table);
void check_bad_scales(void);
void check_fixtures(void);

/* ---- the checks: checkkern_between.c ----------------------------------------------------------------------------- */

void check_quantize(const kern_table *k);

void check_qk_f16(const kern_table *k);
void check_qk_f32(const kern_table *k);
void check_pv_f16(const kern_table *k);
void check_pv_f32(const kern_table *k);
void check_quantize_row(const kern_table *k);
void check_quantize_value(const kern_table *k);
void check_weights_q8(const kern_table *k);
void check_pv_q8(const kern_table *k);
void check_softmax_part(const kern_table *k);
void check_clean(const kern_table *k);
void check_weigh(const kern_table *k);
void check_softmax_join(const kern_table *k);

void check_rms_norm(const kern_table *k);
void check_layer_norm(const kern_table *k);
void check_add(const kern_table *k);
void check_silu_mul(const kern_table *k);
void check_gelu_mul(const kern_table *k);
void check_softcap(const kern_table *k);
void check_clamp(const kern_table *k);
void check_rope_adjacent(const kern_table *k);
void check_rope_split(const kern_table *k);
void check_scale(const kern_table *k);
void check_to_f16(const kern_table *k);
void check_from_f16(const kern_table *k);

#endif
