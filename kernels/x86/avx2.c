#include "../internal.h"
#if defined(KERN_X86)
void kern_table_avx2(kern_table *table) {
    (void)table;
}
#endif
