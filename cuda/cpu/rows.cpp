// Reduce: out[i] = sum, mean, max, min or product of w[e] * x[j] over the places of row i, without
// an (E, F) array. SpMM, its transpose (weights are read through perm, so nothing is re-ordered) and
// segment reduction (no col: rows lie side by side) are all this call.
//
// Algorithm: tiles of the result in registers, see include/row_reduce.h, which also gives the order.
// Reads 8 (M + 1) + 4 E (+ 4 E perm + s E weights) + s E F bytes, writes s M F (+ 4 M F of arg). At
//   F = 64 the time is that of fetching E rows of 256 bytes from cache. At F <= 32 the adder's
//   latency would dominate, hence several accumulators.
// Weighted: each product is rounded before it is added (no fused multiply-add), so that all
//   instruction sets agree. bfloat16 and float16: float32 throughout, rounded once at the end.
// Measured by: gnnlab.bench.ops, rows "spmm" and "segment".
#include "families.h"
#include "pages.h"
#include "row_reduce.h"

namespace gnnlab::GNNLAB_NS {
namespace {

template <Mode MODE, typename S>
int choose_edges(const gnnlab_rows& rows, RowJob<S> job, const S* weight, int64_t weight_heads) {
  if (!weight || weight_heads == 1) {  // heads do not matter
    job.width *= job.heads;
    job.heads = 1;
  }
  const int64_t step = weight_heads > 1 ? 1 : 0;
  const bool narrow = rows.index_bytes == 4;
  if constexpr (MODE != kMul) {
    if (!rows.col && !weight) return reduce_all<MODE>(job, InOrder<S>{});
    const int32_t* const col = static_cast<const int32_t*>(rows.col);
    const int32_t* const perm = static_cast<const int32_t*>(rows.perm);
    if (col && narrow && !weight) return reduce_all<MODE>(job, Listed<S>{col, rows.num_edges - 1});
    if constexpr (std::is_floating_point_v<Compute<S>>)
      if (col && narrow)
        return reduce_all<MODE>(job, Weighted<S>{col, rows.num_edges - 1, perm, weight, weight_heads, step});
  }
  return reduce_all<MODE>(job, General<S>{rows.col, rows.perm, weight, weight_heads, step, !narrow});
}

struct ReduceArgs {
  const gnnlab_rows* rows;
  const void* x;
  int64_t ldx, heads, width;
  const void* weight;
  int64_t weight_heads;
  int reduce;
  void* out;
  void* arg;
  int threads;
};

template <Mode MODE, typename S>
int run(const ReduceArgs& a) {
  using C = Compute<S>;
  constexpr Int<C> kFlip = std::is_floating_point_v<C> ? std::numeric_limits<Int<C>>::min() : Int<C>(-1);
  const gnnlab_rows& rows = *a.rows;
  const int64_t items = rows.num_rows * a.heads * a.width;
  advise_huge_pages(a.out, items * static_cast<int64_t>(sizeof(S)));
  if (a.arg) advise_huge_pages(a.arg, items * rows.index_bytes);
  const RowJob<S> job{rows.indptr, rows.num_rows, rows.num_edges, static_cast<const S*>(a.x), a.ldx,
                      a.heads, a.width, a.reduce == GNNLAB_MEAN,
                      a.reduce == GNNLAB_MIN ? kFlip : Int<C>(0), static_cast<S*>(a.out), a.arg,
                      rows.index_bytes == 8, a.threads, nullptr};
  return choose_edges<MODE>(rows, job, static_cast<const S*>(a.weight), a.weight_heads);
}

// S for ordering, U for sums: they differ for integers, whose sums wrap around.
template <typename S, typename U>
int choose_mode(const ReduceArgs& a) {
  switch (a.reduce) {
    case GNNLAB_SUM:
    case GNNLAB_MEAN: return run<kSum, U>(a);
    case GNNLAB_MUL: return run<kMul, U>(a);
    default: return a.arg ? run<kArg, S>(a) : run<kMax, S>(a);
  }
}

}  // namespace

int reduce(const gnnlab_rows* rows, const void* x, int64_t ldx, int64_t heads, int64_t width,
           const void* weight, int64_t weight_heads, int reduce, int dtype, void* out, void* arg,
           int threads) {
  const ReduceArgs a{rows, x, ldx, heads, width, weight, weight_heads, reduce, out, arg, threads};
  switch (dtype) {
    case GNNLAB_F32: return choose_mode<float, float>(a);
    case GNNLAB_F64: return choose_mode<double, double>(a);
    case GNNLAB_BF16: return choose_mode<Bf16, Bf16>(a);
    case GNNLAB_F16: return choose_mode<F16, F16>(a);
    case GNNLAB_I32: return choose_mode<int32_t, uint32_t>(a);
    default: return choose_mode<int64_t, uint64_t>(a);
  }
}

}  // namespace gnnlab::GNNLAB_NS
