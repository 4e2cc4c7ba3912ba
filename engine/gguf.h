/* gguf.h: a GGUF file (version 2 or 3, little endian): metadata, tensor list, and checked access to the data.
 *
 * The file is hostile. Every count, size, offset and product is checked in gguf.c and nowhere else: what these
 * functions return can be used without another look. The format:
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 * What `minim pack` writes is a GGUF file, too, but its matrices are panels (kernels.h) instead of rows, so that they
 * can be used where they lie. Three things make sure that nobody takes one for the other:
 *   - such a tensor's type is GGUF_PANELS + the id of its blocks, which no other program knows, so it refuses the file;
 *   - the key minim.panels (u32) is the version of the layout: another one than KERN_PANEL_LAYOUT is refused here;
 *   - general.alignment is at least GGUF_PANEL_ALIGNMENT, so panels begin on cache lines of the mapped file.
 * Its dimensions are those of the matrix, its bytes ceil(rows/16) panels. What is no matrix is stored as ever.
 */
#ifndef ENGINE_GGUF_H
#define ENGINE_GGUF_H

#include "base.h"

enum {
    GGUF_PANELS = 0x4d500000,  /* "MP" */
    GGUF_PANEL_ALIGNMENT = 64, /* bytes */
};

enum gguf_type {
    GGUF_U8 = 0,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STR,
    GGUF_ARR,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_END
};

typedef struct gguf_str {
    const char *s; /* NUL-terminated too, but may contain NULs */
    size_t n;
} gguf_str;

typedef struct gguf_value {
    gguf_str key;
    uint32_t type;      /* enum gguf_type */
    uint32_t elem_type; /* of an array; else = type */
    uint64_t count;     /* elements of an array; else 1 */
    const void *data;   /* scalars and arrays of them: little-endian, packed, aligned to 8; strings: gguf_str[count] */
} gguf_value;

typedef struct gguf_tensor {
    gguf_str name;
    uint32_t type;   /* GGUF tensor type id, without GGUF_PANELS; always one kern_type_get() knows */
    int panels;      /* 1: the data are panels, of a type that has kernels; then there are 2 dimensions */
    uint32_t n_dims; /* 1..4 */
    uint64_t dim[4]; /* dim[0] contiguous; unused = 1; none is 0 */
    uint64_t offset; /* from the start of the file; aligned; offset + bytes lies inside the file */
    uint64_t bytes;
    uint64_t elements;
} gguf_tensor;

typedef struct gguf_file gguf_file;

/* Opens and checks the whole header and tensor list. `data` not NULL: an image in memory of `size` bytes, which must
 * outlive the gguf_file; `path` then only names it. */
minim_status gguf_open(const minim_allocator *a, const char *path, const void *data, size_t size, gguf_file **out,
                       minim_error *e);
void gguf_close(gguf_file *f); /* NULL is fine */
/* Closes the descriptor or forgets the image, once the tensors' data is no longer needed. Metadata, tensor list and
 * what is mapped stay; gguf_read() fails from then on. Not while another thread reads. */
void gguf_close_data(gguf_file *f);

/* For errors: of a path longer than 160 bytes only the end. */
const char *gguf_path(const gguf_file *f);
uint32_t gguf_version(const gguf_file *f);
/* KERN_PANEL_LAYOUT for a file with panels, else 0. */
uint32_t gguf_panels(const gguf_file *f);
/* In file order; _at() is NULL behind the last. */
size_t gguf_value_count(const gguf_file *f);
const gguf_value *gguf_value_at(const gguf_file *f, size_t i);
size_t gguf_tensor_count(const gguf_file *f);
const gguf_tensor *gguf_tensor_at(const gguf_file *f, size_t i);

/* NULL when absent. Hashed: constant time. */
const gguf_value *gguf_find(const gguf_file *f, const char *key);
const gguf_tensor *gguf_find_tensor(const gguf_file *f, const char *name);

/* Reads n bytes of a tensor's data, from byte `at` of it. Safe from several threads at once. */
minim_status gguf_read(const gguf_file *f, const gguf_tensor *t, uint64_t at, void *dst, size_t n, minim_error *e);
/* When the file is an image in memory: a pointer to the tensor's data, else NULL. */
const void *gguf_data(const gguf_file *f, const gguf_tensor *t);

/* Maps the whole file read-only until gguf_close(), shared with all processes that do the same. 0, or -1 where that is
 * impossible (an image, or the system refuses): then it has to be read. Whoever touches a page behind the new end of a
 * file that was cut gets SIGBUS. */
int gguf_map(gguf_file *f);
void gguf_unmap(gguf_file *f);
/* The tensor's data in the mapped file; NULL when it is not mapped. */
const void *gguf_mapped(const gguf_file *f, const gguf_tensor *t);

/* Typed access for hyper-parameters. A missing key leaves *out alone and returns MINIM_OK with *found = 0 (found may be
 * NULL: then a missing key is MINIM_ERR_FORMAT "key ... is missing"). A key of another type is MINIM_ERR_FORMAT naming
 * file, key, found and expected type. u32 accepts any integer type whose value fits; f32 accepts f32 and f64. */
minim_status gguf_get_u32(const gguf_file *f, const char *key, uint32_t *out, int *found, minim_error *e);
minim_status gguf_get_f32(const gguf_file *f, const char *key, float *out, int *found, minim_error *e);
minim_status gguf_get_bool(const gguf_file *f, const char *key, int *out, int *found, minim_error *e);
minim_status gguf_get_str(const gguf_file *f, const char *key, gguf_str *out, int *found, minim_error *e);
/* An array of the given element type; MINIM_ERR_FORMAT for a scalar or another element type. *out is NULL if absent. */
minim_status gguf_get_array(const gguf_file *f, const char *key, uint32_t elem_type, const gguf_value **out, int *found,
                            minim_error *e);

/* Bytes of a number or bool of this type, 0 for strings and arrays. */
size_t gguf_type_bytes(uint32_t type);

/* "u32", "arr[str]" ...; writes to buf and returns it. */
const char *gguf_type_text(const gguf_value *v, char *buf, size_t n);

/* The n <= 8 little-endian bytes at any address as a number, on any machine. */
uint64_t gguf_little(const void *bytes, size_t n);

#endif
