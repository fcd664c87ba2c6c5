/* The C interface of gnnlab's CPU kernels.
 *
 * Plain pointers and integers in, an int status out. A status other than GNNLAB_OK leaves a sentence
 * for the user in gnnlab_last_error(), kept per thread until the next failure on that thread.
 * No exception crosses this border and no argument is kept after a call returns.
 *
 * Words used below:
 *   dtype       GNNLAB_F32 or GNNLAB_F64.
 *   *_bytes     width of an index array's items: 4 (int32) or 8 (int64).
 *   ld*         distance between rows, in items (the items of one row lie side by side).
 *   threads     how many threads may run; small jobs use one. Results never depend on it.
 */
#ifndef GNNLAB_H
#define GNNLAB_H

#include <stdint.h>

#define GNNLAB_ABI_VERSION 1

#define GNNLAB_OK 0
#define GNNLAB_BAD_ARGUMENT 1
#define GNNLAB_BAD_INDEX 2
#define GNNLAB_NO_MEMORY 3
#define GNNLAB_INTERNAL 4

#define GNNLAB_F32 0
#define GNNLAB_F64 1

#define GNNLAB_SCATTER_AUTO 0
#define GNNLAB_SCATTER_SCAN 1
#define GNNLAB_SCATTER_SORT 2

#ifdef __cplusplus
extern "C" {
#endif

int gnnlab_abi_version(void);
const char* gnnlab_last_error(void);
int gnnlab_has_openmp(void);

/* Name of the instruction set in use: "v2", "v3", "v4" (levels of x86-64) or "portable". */
const char* gnnlab_isa(void);
/* Chooses it by name; "auto" takes the best that this machine can run. */
int gnnlab_select_isa(const char* name);

/* Checks 0 <= index[i] < bound for all i, and tells whether index never decreases. */
int gnnlab_check_index(const void* index, int index_bytes, int64_t count, int64_t bound, int* sorted);

/* Sorts edges by key (0 <= key < num_keys), keeping the input order inside a row:
 * indptr (num_keys + 1), col (num_edges) = other[perm], perm (num_edges).
 * perm may be NULL when key is known to be sorted; col may be NULL together with other. */
int gnnlab_plan_build(const void* key, const void* other, int index_bytes, int64_t num_edges,
                      int64_t num_keys, int64_t num_other, int64_t* indptr, void* col, void* perm,
                      int out_bytes, int threads);

/* out[i, h, :] = sum over edges e of row i of weight[perm[e], h] * x[col[e], h, :]; divided by the
 * number of edges when mean != 0. Sizes: x (num_src, heads * width), out (num_dst, heads * width).
 * weight NULL: no weight; weight_heads is 1 (shared by the heads) or heads.
 * perm NULL: weights already lie in row order. */
int gnnlab_spmm(const int64_t* indptr, const void* col, const void* perm, int index_bytes,
                int64_t num_dst, int64_t num_edges, const void* x, int64_t ldx, int64_t heads,
                int64_t width, const void* weight, int64_t weight_heads, int mean, int dtype,
                void* out, int threads);

/* out[i, :] = sum of src[indptr[i] .. indptr[i+1], :]; indptr is checked. */
int gnnlab_segment(const void* src, int64_t lds, const int64_t* indptr, int64_t num_segments,
                   int64_t num_rows, int64_t width, int mean, int dtype, void* out, int threads);

/* out[index[e], :] += src[e, :] without a plan; rows that nothing reaches are 0. */
int gnnlab_scatter(const void* src, int64_t lds, const void* index, int index_bytes,
                   int64_t num_edges, int64_t num_dst, int64_t width, int mean, int dtype, void* out,
                   int strategy, int threads);

/* out[e, :] = x[index[e], :]; rows are row_bytes long and stride_bytes apart, of any dtype. */
int gnnlab_gather(const void* x, int64_t stride_bytes, const void* index, int index_bytes,
                  int64_t num_edges, int64_t num_src, int64_t row_bytes, void* out, int threads);

#ifdef __cplusplus
}
#endif
#endif
