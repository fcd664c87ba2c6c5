// Reductions over rows of edges: out[i] = sum (or mean) of w[e] * x[j] over the places of row i.
//
// Algorithm: row sums with tiles in registers, see include/row_sum.h.
#include "families.h"
#include "row_sum.h"

namespace gnnlab::GNNLAB_NS {
namespace {

template <typename T, class Col, class Place>
int weighted(RowSum<T>& job, const Col& col, const T* weight, int64_t weight_heads, const Place& place) {
  if (weight) return sum_all(job, col, Weight<T, Place>{weight, weight_heads, place});
  job.width *= job.heads;
  job.heads = 1;
  return sum_all(job, col, NoWeight{});
}

template <typename T, typename I>
int run(const gnnlab_rows& r, RowSum<T> job, const T* weight, int64_t weight_heads) {
  if (weight && weight_heads == 1) {
    job.width *= job.heads;
    job.heads = 1;
  }
  const Listed<I> col{static_cast<const I*>(r.col)}, perm{static_cast<const I*>(r.perm)};
  if (!r.col) {
    return r.perm ? weighted(job, InOrder{}, weight, weight_heads, perm)
                  : weighted(job, InOrder{}, weight, weight_heads, InOrder{});
  }
  return r.perm ? weighted(job, col, weight, weight_heads, perm)
                : weighted(job, col, weight, weight_heads, InOrder{});
}

}  // namespace

int reduce(const gnnlab_rows* rows, const void* x, int64_t ldx, int64_t heads, int64_t width,
           const void* weight, int64_t weight_heads, int reduce, int dtype, void* out, void* arg,
           int threads) {
  if (arg || reduce > GNNLAB_MEAN || dtype > GNNLAB_F64)
    return fail(GNNLAB_INTERNAL, "this reduction is not there yet");
  const auto go = [&](auto t) {
    using T = decltype(t);
    const RowSum<T> job{rows->indptr, rows->num_rows, rows->num_edges, static_cast<const T*>(x), ldx,
                        heads, width, weight_heads > 1 ? 1 : 0, reduce == GNNLAB_MEAN,
                        static_cast<T*>(out), threads};
    const T* w = static_cast<const T*>(weight);
    return rows->index_bytes == 4 ? run<T, int32_t>(*rows, job, w, weight_heads)
                                  : run<T, int64_t>(*rows, job, w, weight_heads);
  };
  return dtype == GNNLAB_F32 ? go(float{}) : go(double{});
}

int reduce_multi(const gnnlab_rows*, const void*, int64_t, int64_t, int64_t, const void*, int64_t, int,
                 void*, void*, void*, void*, void*, int) {
  return fail(GNNLAB_INTERNAL, "this reduction is not there yet");
}

}  // namespace gnnlab::GNNLAB_NS
