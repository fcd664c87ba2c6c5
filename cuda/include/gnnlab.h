/* The C interface of gnnlab's CPU kernels.
 *
 * Plain pointers and integers in, an int status out. A status other than GNNLAB_OK leaves a sentence
 * for the user in gnnlab_last_error(), kept per thread until the next failure on that thread.
 * No exception crosses this border and no argument is kept after a call returns.
 *
 * Words used below:
 *   dtype       one of GNNLAB_F32 ... GNNLAB_I64. bfloat16 and float16 are computed in float32 and
 *               rounded once, to nearest even, where a result is written.
 *   *_bytes     width of an index array's items: 4 (int32) or 8 (int64).
 *   ld*         distance between rows, in items (the items of one row lie side by side).
 *   threads     how many threads may run; small jobs use one. Results never depend on it.
 *   place       position of an edge in the order of gnnlab_rows.
 *   edge        position of an edge in the caller's order.
 * Indices inside gnnlab_rows were checked when it was made and are not checked again.
 */
#ifndef GNNLAB_H
#define GNNLAB_H

#include <stdint.h>

#define GNNLAB_ABI_VERSION 6

#define GNNLAB_OK 0
#define GNNLAB_BAD_ARGUMENT 1
#define GNNLAB_BAD_INDEX 2
#define GNNLAB_NO_MEMORY 3
#define GNNLAB_INTERNAL 4

#define GNNLAB_F32 0
#define GNNLAB_F64 1
#define GNNLAB_BF16 2
#define GNNLAB_F16 3
#define GNNLAB_I32 4
#define GNNLAB_I64 5

#define GNNLAB_SUM 0
#define GNNLAB_MEAN 1
#define GNNLAB_MAX 2
#define GNNLAB_MIN 3
#define GNNLAB_MUL 4

#define GNNLAB_DOT 0
#define GNNLAB_ADD 1
#define GNNLAB_SUB 2
#define GNNLAB_TIMES 3
#define GNNLAB_DIV 4

#define GNNLAB_SOFTMAX 0
#define GNNLAB_LOG_SOFTMAX 1
#define GNNLAB_LOGSUMEXP 2

#define GNNLAB_SCATTER_AUTO 0
#define GNNLAB_SCATTER_SCAN 1
#define GNNLAB_SCATTER_SORT 2

#ifdef __cplusplus
extern "C" {
#endif

/* Edges grouped by one end: row i holds places indptr[i] .. indptr[i + 1]. */
typedef struct gnnlab_rows {
  const int64_t* indptr; /* num_rows + 1, from 0 to num_edges */
  const void* col;       /* row of x that each place reads; NULL: row `place` */
  const void* perm;      /* edge at each place; NULL: edge `place` */
  int64_t num_rows;
  int64_t num_edges;
  int32_t index_bytes; /* of col and perm, and of the args that kernels write */
  int32_t reserved;
} gnnlab_rows;

int gnnlab_abi_version(void);
const char* gnnlab_last_error(void);
int gnnlab_has_openmp(void);

/* Name of the instruction set in use: "v2", "v3", "v4" (levels of x86-64) or "portable". */
const char* gnnlab_isa(void);
/* Chooses it by name; "auto" takes the best that this machine can run. */
int gnnlab_select_isa(const char* name);

/* 1 if the two arrays hold the same bytes, else 0. */
int gnnlab_same_bytes(const void* a, const void* b, int64_t bytes);

/* Checks 0 <= index[i] < bound for all i, and tells whether index never decreases. */
int gnnlab_check_index(const void* index, int index_bytes, int64_t count, int64_t bound, int* sorted);

/* Checks that indptr starts at 0, never decreases and ends at num_edges. */
int gnnlab_check_indptr(const int64_t* indptr, int64_t num_rows, int64_t num_edges);

/* Sorts edges by key (0 <= key < num_keys), keeping the input order inside a row:
 * indptr (num_keys + 1), col (num_edges) = other[perm], perm (num_edges).
 * perm may be NULL when key is known to be sorted; col may be NULL together with other. */
int gnnlab_plan_build(const void* key, const void* other, int index_bytes, int64_t num_edges,
                      int64_t num_keys, int64_t num_other, int64_t* indptr, void* col, void* perm,
                      int out_bytes, int threads);

/* out[e, :] = x[index[e], :]; rows are row_bytes long and stride_bytes apart, of any dtype. */
int gnnlab_gather(const void* x, int64_t stride_bytes, const void* index, int index_bytes,
                  int64_t num_edges, int64_t num_src, int64_t row_bytes, void* out, int threads);

/* out[index[e], :] is reduced with src[e, :] without gnnlab_rows. arg as for gnnlab_reduce, but it
 * holds edges, as int64; NULL unless reduce is MAX or MIN. */
int gnnlab_scatter(const void* src, int64_t lds, const void* index, int index_bytes,
                   int64_t num_edges, int64_t num_dst, int64_t width, int reduce, int dtype,
                   void* out, int64_t* arg, int strategy, int threads);

/* out[i, h, :] = reduction over the places k of row i of weight[perm[k], h] * x[col[k], h, :].
 * MEAN divides by the number of edges. An empty row gives 0, for MUL 1.
 * Sizes: x (?, heads * width), out and arg (num_rows, heads * width).
 * weight NULL: no weight; weight_heads is 1 (shared by the heads) or heads.
 * arg (MAX and MIN; may be NULL): the place that won, the lowest among equals, num_edges for an
 * empty row. A NaN wins over every number, the first NaN over later ones. */
int gnnlab_reduce(const gnnlab_rows* rows, const void* x, int64_t ldx, int64_t heads, int64_t width,
                  const void* weight, int64_t weight_heads, int reduce, int dtype, void* out,
                  void* arg, int threads);

/* Several reductions in one pass over the edges; a NULL result is not computed. std is the square
 * root of the population variance, from the deviations. Floating dtypes. */
int gnnlab_reduce_multi(const gnnlab_rows* rows, const void* x, int64_t ldx, int64_t heads,
                        int64_t width, const void* weight, int64_t weight_heads, int dtype,
                        void* sum, void* mean, void* max, void* min, void* std, int threads);

/* Gradient of MAX and MIN: gx[col[arg[i, f]], f] += weight * grad[i, f] and, where weight is given,
 * gweight[perm[arg], h] += grad[i, f] * x[col[arg], f]. Clears gx (num_src rows) and gweight first.
 * x is read for gweight alone. Rows are visited in order, whatever the number of threads. */
int gnnlab_reduce_arg_backward(const gnnlab_rows* rows, const void* grad, const void* arg,
                               const void* x, int64_t ldx, int64_t heads, int64_t width,
                               const void* weight, int64_t weight_heads, int64_t num_src, int dtype,
                               void* gx, void* gweight, int threads);

/* Both gradients of the weighted sum in one pass. `rows` is the transpose: row j is a source, col
 * holds destinations. gx[j] = sum of weight * grad[col[k]], gweight[perm[k], h] =
 * <grad[col[k], h, :], x[j, h, :]>. Either result may be NULL. */
int gnnlab_spmm_backward(const gnnlab_rows* rows, const void* grad, int64_t ldg, const void* x,
                         int64_t ldx, int64_t heads, int64_t width, const void* weight,
                         int64_t weight_heads, int dtype, void* gx, void* gweight, int threads);

/* out[perm[k], h] = <a[i, h, :], b[col[k], h, :]> for the places k of row i; the other ops give
 * a op b item by item, out (num_edges, heads * width). */
int gnnlab_sddmm(const gnnlab_rows* rows, const void* a, int64_t lda, const void* b, int64_t ldb,
                 int64_t heads, int64_t width, int op, int dtype, void* out, int threads);

/* Softmax over the edges of each row and its relatives; src and, but for LOGSUMEXP, out are
 * (num_edges, heads) in the caller's order. LOGSUMEXP: out (num_rows, heads), -inf when empty.
 * row_of: the row of each of the caller's edges; may be NULL, which is slower if there is a perm. */
int gnnlab_softmax(const gnnlab_rows* rows, const void* row_of, int row_bytes, const void* src,
                   int64_t heads, int kind, int dtype, void* out, int threads);

/* SOFTMAX: gsrc = out * (grad - sum over the row of out * grad).
 * LOG_SOFTMAX: gsrc = grad - exp(out) * sum over the row of grad. */
int gnnlab_softmax_backward(const gnnlab_rows* rows, const void* row_of, int row_bytes, const void* out,
                            const void* grad, int64_t heads, int kind, int dtype, void* gsrc,
                            int threads);

/* Fused attention: y[i, h, :] = sum over places k of row i of p[k, h] * v[col[k], h, :], p the
 * softmax of scores s over the row, never stored. Per row and head, `max` and `total` keep the
 * largest score and the sum of exp(s - max): float32, float64 for dtype F64; an empty row has
 * y 0, max 0, total 0. All operands contiguous. The scores:
 *   gat        LeakyReLU(a_src[col[k], h] + a_dst[i, h] + edge[perm[k], h])       v = x
 *   gatv2      <att[h], LeakyReLU(x_src[col[k], h] + x_dst[i, h] + edge[perm[k], h, :])>  v = x_src
 *   attention  scale * <q[i, h], k[col[k], h]> + bias[perm[k], h]
 * edge and bias may be NULL. gat drops p with probability dropout (after the softmax, scaled by
 * 1 / (1 - dropout)): Philox4x32-10, key (seed low, seed high), counter (edge low, edge high, head,
 * 0); word 0 below dropout * 2^32 drops. */
int gnnlab_gat(const gnnlab_rows* rows, const void* x, const void* a_src, const void* a_dst,
               const void* edge, int64_t heads, int64_t width, double slope, double dropout,
               uint64_t seed, int dtype, void* out, void* max, void* total, int threads);
int gnnlab_gatv2(const gnnlab_rows* rows, const void* x_src, const void* x_dst, const void* att,
                 const void* edge, int64_t heads, int64_t width, double slope, int dtype, void* out,
                 void* max, void* total, int threads);
int gnnlab_attention(const gnnlab_rows* rows, const void* q, const void* k, const void* v,
                     const void* bias, int64_t heads, int64_t width, double scale, int dtype,
                     void* out, void* max, void* total, int threads);

/* Their gradients from `out`, `max` and `total` of the forward call. rows_t is the transpose. Any
 * gradient may be NULL; gedge and gbias are in the caller's order. gatt is (heads, width). */
int gnnlab_gat_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t, const void* grad,
                        const void* out, const void* x, const void* a_src, const void* a_dst,
                        const void* edge, const void* max, const void* total, int64_t heads,
                        int64_t width, double slope, double dropout, uint64_t seed, int dtype,
                        void* gx, void* ga_src, void* ga_dst, void* gedge, int threads);
int gnnlab_gatv2_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t, const void* grad,
                          const void* out, const void* x_src, const void* x_dst, const void* att,
                          const void* edge, const void* max, const void* total, int64_t heads,
                          int64_t width, double slope, int dtype, void* gx_src, void* gx_dst,
                          void* gatt, void* gedge, int threads);
int gnnlab_attention_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t, const void* grad,
                              const void* out, const void* q, const void* k, const void* v,
                              const void* bias, const void* max, const void* total, int64_t heads,
                              int64_t width, double scale, int dtype, void* gq, void* gk, void* gv,
                              void* gbias, int threads);

/* out[i, :] = sum over the places k of row i of max(x[col[k], :] + edge[perm[k], :], 0). */
int gnnlab_relu_sum(const gnnlab_rows* rows, const void* x, const void* edge, int64_t width, int dtype,
                    void* out, int threads);

/* Its gradients; rows_t groups by source. gx or gedge (num_edges, width) may be NULL. */
int gnnlab_relu_sum_backward(const gnnlab_rows* rows_t, const void* grad, const void* x,
                             const void* edge, int64_t width, int dtype, void* gx, void* gedge,
                             int threads);

/* out[i, :] = sum over the places k of row i of sigmoid(key[i, :] + query[col[k], :]) * value[col[k], :]. */
int gnnlab_gated_sum(const gnnlab_rows* rows, const void* key, const void* query, const void* value,
                     int64_t width, int dtype, void* out, int threads);

/* Its gradients, each of which may be NULL; rows_t groups by source. */
int gnnlab_gated_sum_backward(const gnnlab_rows* rows, const gnnlab_rows* rows_t, const void* grad,
                              const void* key, const void* query, const void* value, int64_t width,
                              int dtype, void* gkey, void* gquery, void* gvalue, int threads);

/* Neighbour sampling, three steps. A node gives min(degree, fanout) places of its row, with
 * `replace` fanout of them (none if its row is empty), with fanout -1 its whole row in order.
 *
 * count: indptr[i + 1] = indptr[i] + what nodes[i] gives; indptr[0] is the caller's. Checks nodes.
 * draw: places of nodes[i] go to place[indptr[i] - indptr[0] ..], the entries of col there to
 * neighbour; both of rows->index_bytes. Draw t of a node takes word t % 4 of block t / 4 if its
 * degree is at most 65536, else words 2 t and 2 t + 1 as high and low half; a block is Philox4x32-10,
 * key (seed low, seed high), counter (node low, node high, hop, number of the block). The draw is
 * word * bound >> 32 (>> 64). With replacement bound = degree. Without: Floyd's algorithm, draw t of
 * k has bound = degree - k + t + 1 and a number that was taken already stands for degree - k + t. */
int gnnlab_sample_count(const gnnlab_rows* rows, const int64_t* nodes, int64_t num_nodes,
                        int64_t fanout, int replace, int64_t* indptr);
int gnnlab_sample_draw(const gnnlab_rows* rows, const int64_t* nodes, int64_t num_nodes,
                       int64_t fanout, int replace, uint64_t seed, int64_t hop, const int64_t* indptr,
                       void* place, void* neighbour, int threads);

/* Numbers ids in the order of their first appearance, in place: new ones are appended to nodes, whose
 * length is *count (room for num_ids more). `table` remembers numbers from call to call: `slots`
 * items of index_bytes, one per id that may come; or, `hashed`, `slots` pairs of them, a power of two
 * of at least 2 and at least twice the number of nodes. A table begins with base 0 and *count 0,
 * whatever it holds; for the next list base grows by the *count of the last one. base + *count must
 * fit into an item. Ids are not checked. */
int gnnlab_sample_number(void* table, int64_t slots, int hashed, int64_t base, void* ids,
                         int index_bytes, int64_t num_ids, int64_t* nodes, int64_t* count);

/* Parts of a graph: part[v] in 0 .. num_parts - 1, at most `capacity` nodes in each (capacity *
 * num_parts >= num_rows). rows and back are a graph and its transpose. Parts of ceil(num_rows /
 * num_parts) nodes are grown in turn, breadth first, neighbours in the order of rows, then of back;
 * a part begins, and one that can grow no more goes on, at the first new neighbour of the node that
 * was met first, else at the lowest new node. Then nodes come `passes` times in the order of growing,
 * and each goes to the part with the largest neighbours * (capacity - size) > 0, the lowest among
 * equals, or stays. */
int gnnlab_partition(const gnnlab_rows* rows, const gnnlab_rows* back, int64_t num_parts,
                     int64_t capacity, int64_t passes, int64_t* part);

/* Points that lie near one another. x (num_x, dim) holds the points that are found, y (num_y, dim)
 * those that look for them, both finite float64 and contiguous; y NULL: the points x themselves.
 * graph_x and graph_y: the graph of each point, 0 <= graph < num_graphs, in any order; NULL when
 * num_graphs is 1. A point finds points of its own graph only. The distance is the root of the sum
 * of squared differences, added in order of dimension, in float64.
 * skip_same: leave out pairs of equal position in x and y (a point and itself).
 *
 * radius: all pairs closer than r. indptr (num_y + 1) counts them; *found holds them until
 * gnnlab_found_write has written them, sorted by (target, source), and freed *found. With source
 * NULL it only frees. *found is NULL when there are none, or after a failure.
 *
 * knn: out (num_y, k) holds the k nearest, by (squared distance, source), then -1 where there are fewer. */
int gnnlab_radius(const double* x, const int64_t* graph_x, int64_t num_x, const double* y,
                  const int64_t* graph_y, int64_t num_y, int64_t num_graphs, int64_t dim, double r,
                  int skip_same, int64_t* indptr, void** found, int threads);
int gnnlab_found_write(void* found, const int64_t* indptr, int64_t* source, int64_t* target,
                       int threads);
int gnnlab_knn(const double* x, const int64_t* graph_x, int64_t num_x, const double* y,
               const int64_t* graph_y, int64_t num_y, int64_t num_graphs, int64_t dim, int64_t k,
               int skip_same, int64_t* out, int threads);

#ifdef __cplusplus
}
#endif
#endif
