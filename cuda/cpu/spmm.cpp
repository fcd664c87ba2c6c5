// SpMM: out[i] = sum (or mean) over in-edges e = (j -> i) of w[e] * x[j], without an (E, F) array.
//
// Algorithm: row sums with tiles in registers, see include/row_sum.h. The transpose (backward) is
//   the same call on the transposed plan: weights are read through perm, so nothing is re-ordered.
// Reads 8 (M + 1) + 4 E (+ 4 E perm + s E weights) + s E F bytes, writes s M F. At F = 64 the time
//   is that of fetching E rows of 256 bytes from cache: neither unrolling nor prefetch moves it.
//   At F <= 32 the adder's latency would dominate, hence several accumulators.
// Order of sums: by place in the row, see include/row_sum.h. Weighted: each product is rounded
//   before it is added (no fused multiply-add), so that all instruction sets agree.
// Measured by: gnnlab.bench.ops, rows "spmm sum".
#include "families.h"
#include "row_sum.h"

namespace gnnlab::GNNLAB_NS {
namespace {

template <typename T, typename I>
int run(const SpmmArgs& a) {
  RowSum<T> job{a.indptr, a.num_dst, a.num_edges, static_cast<const T*>(a.x), a.ldx, a.heads,
                a.width, a.weight_heads > 1 ? 1 : 0, a.mean != 0, static_cast<T*>(a.out), a.threads};
  const Listed<I> col{static_cast<const I*>(a.col)};
  const T* weight = static_cast<const T*>(a.weight);
  if (!weight) {
    job.width *= job.heads;
    job.heads = 1;
    return sum_all(job, col, NoWeight{});
  }
  if (a.weight_heads == 1) {
    job.width *= job.heads;
    job.heads = 1;
  }
  if (!a.perm) return sum_all(job, col, Weight<T, InOrder>{weight, a.weight_heads, InOrder{}});
  return sum_all(job, col, Weight<T, Listed<I>>{weight, a.weight_heads, {static_cast<const I*>(a.perm)}});
}

}  // namespace

int spmm(const SpmmArgs& a) {
  if (a.dtype == GNNLAB_F32)
    return a.index_bytes == 4 ? run<float, int32_t>(a) : run<float, int64_t>(a);
  return a.index_bytes == 4 ? run<double, int32_t>(a) : run<double, int64_t>(a);
}

}  // namespace gnnlab::GNNLAB_NS
