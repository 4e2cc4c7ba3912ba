/* pages.h: counts the pages of an engine by hand, for tests that share, drop and free them. */
#ifndef TESTS_PAGES_H
#define TESTS_PAGES_H

#include <stddef.h>

#include "../engine/minim.h"

/* NULL when the pool agrees with what these sequences hold: every page knows how many of them hold it, and the pool how
 * many pages that are; else what is wrong. They have to be all sequences of the engine. */
const char *pages_wrong(minim_engine *engine, minim_seq *const *seqs, size_t n);

#endif
